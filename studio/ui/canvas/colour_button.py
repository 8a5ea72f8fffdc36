"""The brush's colour: a button that shows it, opens the colour dialog, and offers recent ones."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QIcon, QKeySequence, QPainter, QPen, QPixmap
from PySide6.QtWidgets import (
    QColorDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QToolButton,
    QVBoxLayout,
    QWidget,
    QWidgetAction,
)

from studio.ui import theme

RECENT = 8
#: What is offered before anything was painted: skin, wood, sky, leaf, sun, brick, white, black.
_FIRST = (
    (236, 188, 160),
    (133, 94, 66),
    (121, 178, 224),
    (88, 142, 74),
    (246, 205, 86),
    (178, 70, 56),
    (255, 255, 255),
    (20, 20, 22),
)
Colour = tuple[int, int, int]


class ColourButton(QToolButton):
    """Click: the colour dialog. Arrow: recent colours, the eyedropper, clearing what was painted."""

    chosen = Signal(object)  # Colour
    pick_requested = Signal()
    clear_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("brushColour")
        self.setIconSize(QSize(20, 20))
        self.setPopupMode(QToolButton.ToolButtonPopupMode.MenuButtonPopup)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.dialog: QColorDialog | None = None
        self.recent: list[Colour] = list(_FIRST)
        self._colour: Colour = (0, 0, 0)
        self._swatches: list[QToolButton] = []
        self._fill_menu()
        self._draw()
        self._draw_recent()
        self.clicked.connect(self.choose)

    def colour(self) -> Colour:
        return self._colour

    def set_colour(self, colour: Colour) -> None:
        """Show another colour, without emitting `chosen`."""
        if colour != self._colour:
            self._colour = colour
            self._draw()

    def remember(self, colour: Colour) -> None:
        """A colour was used: it comes first among the recent ones."""
        if colour != self.recent[0]:
            self.recent = [colour, *(other for other in self.recent if other != colour)][:RECENT]

    def choose(self) -> None:
        """Open the colour dialog, with the recent colours among its own."""
        for i, colour in enumerate(self.recent):
            QColorDialog.setCustomColor(2 * i, QColor(*colour))  # counted down its columns of two
        dialog = QColorDialog(QColor(*self._colour), self.window())
        dialog.setObjectName("colourDialog")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setOption(QColorDialog.ColorDialogOption.DontUseNativeDialog)
        dialog.setWindowTitle(self.tr("Colour of the brush"))
        dialog.colorSelected.connect(lambda c: self._take((c.red(), c.green(), c.blue())))
        dialog.finished.connect(self._closed)
        self.dialog = dialog
        dialog.open()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.EnabledChange):
            self._draw()
        super().changeEvent(event)

    def _closed(self) -> None:
        self.dialog = None

    def _take(self, colour: Colour) -> None:
        self.remember(colour)
        self.set_colour(colour)
        self.chosen.emit(colour)

    # -- menu ---------------------------------------------------------------------------------------

    def _fill_menu(self) -> None:
        menu = QMenu(self)
        row = QWidgetAction(menu)
        row.setDefaultWidget(self._row(menu))
        menu.addAction(row)
        menu.addSeparator()
        menu.addAction(self.tr("Choose a colour…"), self.choose)
        pick = menu.addAction(self.tr("Take it from the picture"), self.pick_requested.emit)
        pick.setIcon(theme.icon("pick"))
        # The key is the canvas's; here it is only shown.
        pick.setShortcut(QKeySequence("I"))
        pick.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        menu.addSeparator()
        clear = menu.addAction(self.tr("Clear all colours"), self.clear_requested.emit)
        clear.setObjectName("clearColours")
        menu.aboutToShow.connect(self._draw_recent)
        self.setMenu(menu)

    def _row(self, menu: QMenu) -> QWidget:
        """The recent colours, side by side."""
        holder = QWidget()
        column = QVBoxLayout(holder)
        column.setContentsMargins(10, 4, 10, 4)
        column.setSpacing(4)
        title = QLabel(self.tr("Recent colours"))
        title.setProperty("role", "muted")
        column.addWidget(title)
        row = QHBoxLayout()
        row.setSpacing(2)
        column.addLayout(row)
        for i in range(RECENT):
            button = QToolButton()
            button.setObjectName(f"recentColour_{i}")
            button.setIconSize(QSize(18, 18))
            button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            button.clicked.connect(lambda _=False, i=i: self._take(self.recent[i]))
            button.clicked.connect(menu.close)
            row.addWidget(button)
            self._swatches.append(button)
        holder.setFocusProxy(self._swatches[0])
        holder.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        return holder

    # -- looks --------------------------------------------------------------------------------------

    def _draw(self) -> None:
        self.setIcon(_swatch(self._colour, 20, self.isEnabled()))
        code = QColor(*self._colour).name()
        self.setAccessibleName(self.tr("Colour of the brush: {0}").format(code))
        self.setToolTip(
            self.tr("Colour {0}. The eyedropper (I) takes one from the picture").format(code)
            if self.isEnabled()
            else self.tr("Colours are painted on the layer Colours (X)")
        )

    def _draw_recent(self) -> None:
        for button, colour in zip(self._swatches, self.recent):
            code = QColor(*colour).name()
            button.setIcon(_swatch(colour, 18))
            button.setToolTip(code)
            button.setAccessibleName(self.tr("Colour {0}").format(code))


def _swatch(colour: Colour, side: int, enabled: bool = True) -> QIcon:
    """A colour as a rounded plate with an edge that is seen on light and dark."""
    ratio = 2
    made = QPixmap(side * ratio, side * ratio)
    made.setDevicePixelRatio(ratio)
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setOpacity(1.0 if enabled else 0.35)
    painter.setBrush(QColor(*colour))
    painter.setPen(QPen(QColor(theme.colours().muted), 1))
    painter.drawRoundedRect(QRectF(0.5, 0.5, side - 1, side - 1), 4, 4)
    painter.end()
    icon = QIcon(made)
    icon.addPixmap(made, QIcon.Mode.Disabled)
    return icon
