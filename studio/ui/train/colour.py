"""The colour behind transparent pictures: a swatch that opens the colour dialog."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QIcon, QPainter, QPen, QPixmap
from PySide6.QtWidgets import QColorDialog, QToolButton, QWidget

from studio.ui import theme


class Swatch(QToolButton):
    """`chosen` carries "#rrggbb" after a person chose it."""

    chosen = Signal(str)

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("background")
        self.setAccessibleName(name)
        self.setIconSize(QSize(34, 16))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._colour = "#ffffff"
        self.clicked.connect(self._ask)
        self._draw()

    def colour(self) -> str:
        return self._colour

    def set_colour(self, colour: str) -> None:
        """Show another colour, without emitting `chosen`."""
        self._colour = QColor(colour).name() if QColor(colour).isValid() else "#ffffff"
        self._draw()

    def _ask(self) -> None:
        dialog = QColorDialog(QColor(self._colour), self.window())
        dialog.setObjectName("backgroundDialog")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setOption(QColorDialog.ColorDialogOption.DontUseNativeDialog)
        dialog.setWindowTitle(self.tr("Colour behind transparent pictures"))
        dialog.colorSelected.connect(self._take)
        dialog.open()

    def _take(self, colour: QColor) -> None:
        self.set_colour(colour.name())
        self.chosen.emit(self._colour)

    def _draw(self) -> None:
        size = self.iconSize()
        image = QPixmap(size)
        image.fill(Qt.GlobalColor.transparent)
        painter = QPainter(image)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(theme.colours().edge), 1))
        painter.setBrush(QColor(self._colour))
        painter.drawRoundedRect(QRectF(0.5, 0.5, size.width() - 1, size.height() - 1), 4, 4)
        painter.end()
        self.setIcon(QIcon(image))
        self.setText(self._colour)
