"""What a mark is made with: layer, size, hardness, strength, colour; and undo, mask menu, zoom.

Sizes are told as diameters in picture pixels, as the canvas tells them; a Brush has the radius.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from PySide6.QtCore import QCoreApplication, QEvent, QObject, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QAction,
    QKeySequence,
    QResizeEvent,
    QTabletEvent,
)
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QToolButton,
    QWidget,
)

from studio.ui import theme
from studio.ui.canvas.amount import HEIGHT, Amount, SizeAmount
from studio.ui.canvas.brush import Brush
from studio.ui.canvas.colour_button import ColourButton
from studio.ui.canvas.document import Document
from studio.ui.canvas.history import Rect
from studio.ui.canvas.mask_menu import MaskMenu
from studio.ui.canvas.masks import Masks
from studio.ui.canvas.tools import LEAST_RADIUS, MOST_RADIUS
from studio.ui.canvas.view import CanvasView
from studio.ui.flow_layout import FlowLayout

_GAP, _EDGE = 4, 8  # logical pixels
_ZOOMS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
#: The tools that use the tip of the brush, and those that use its strength.
_TIPPED = ("brush", "eraser")
_PAINTING = (*_TIPPED, "lasso", "rect", "fill")


class OptionsBar(QWidget):
    """The options of a canvas. They follow the canvas, whatever changes it.

    Call `set_document` whenever the canvas is given another document.
    """

    mask_import_requested = Signal()
    mask_export_requested = Signal()

    def __init__(
        self, view: CanvasView, masks: Masks | None = None, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setObjectName("optionsBar")
        self.setAccessibleName(self.tr("Brush and mask options"))
        self._view = view
        self._document: Document | None = None
        self._unlisten: Callable[[], None] | None = None
        self._steady = SteadyPen(self)
        # A stroke tells of every move; what can be undone need not be told as often.
        self._later = QTimer(self, singleShot=True, interval=60)
        self._later.timeout.connect(self._tell_history)
        self.undo_action = self._action("undo", QKeySequence.StandardKey.Undo, lambda: self._go(-1))
        self.redo_action = self._action("redo", QKeySequence.StandardKey.Redo, lambda: self._go(1))
        self.redo_action.setShortcuts([QKeySequence("Ctrl+Shift+Z"), QKeySequence("Ctrl+Y")])
        self.layers = self._layer_switch()
        self.size_amount = SizeAmount("brushSize", 2 * LEAST_RADIUS, 2 * MOST_RADIUS, " px")
        self.hardness = Amount("brushHardness", 0, 100, " %")
        self.strength = Amount("brushStrength", 1, 100, " %")
        self._amounts = (self.size_amount, self.hardness, self.strength)
        self.pressure = self._pressure_button()
        self.colour = ColourButton()
        self.mask_menu = MaskMenu(view, masks)
        self.mask_button = MenuButton("maskMenu", "mask", self.mask_menu)
        self.mask_button.setText(self.tr("Edit mask"))
        self.mask_button.setAccessibleName(self.tr("Mask menu"))
        self.mask_button.setToolTip(
            self.tr("Invert, grow, feather, import: what concerns the whole mask")
        )
        self.zoom = self._zoom_button()
        self._lay_out()
        self._tell_amounts()
        self._connect()
        self.set_document(view.document)

    def set_document(self, document: Document | None) -> None:
        """Follow the history of the document that the canvas shows."""
        if self._unlisten is not None:
            self._unlisten()
        self._document = document
        self._unlisten = None if document is None else document.listen(self._changed)
        self._tell_history()
        self._tell_zoom()

    # -- parts --------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self._flow = flow = FlowLayout(spacing=_GAP)
        flow.setContentsMargins(_EDGE, 3, _EDGE, 3)
        self.setLayout(flow)
        flow.addWidget(_group(_button(self.undo_action), _button(self.redo_action)))
        flow.addWidget(self.layers)
        flow.addWidget(self.size_amount)
        flow.addWidget(_group(self.pressure))
        flow.addWidget(self.hardness)
        flow.addWidget(self.strength)
        flow.addWidget(_group(self.colour))
        flow.addWidget(self.mask_button)
        flow.addWidget(self.zoom)

    def _connect(self) -> None:
        view = self._view
        self.size_amount.changed.connect(lambda px: self._set(radius=px / 2))
        self.hardness.changed.connect(lambda percent: self._set(hardness=percent / 100))
        self.strength.changed.connect(lambda percent: self._set(strength=percent / 100))
        self.colour.chosen.connect(lambda colour: self._set(colour=colour))
        self.colour.pick_requested.connect(lambda: view.set_tool("pick"))
        self.colour.clear_requested.connect(self._clear_colours)
        for amount in self._amounts:
            amount.done.connect(view.setFocus)
        self.mask_menu.import_requested.connect(self.mask_import_requested)
        self.mask_menu.export_requested.connect(self.mask_export_requested)
        view.brush_changed.connect(self._show_brush)
        view.layer_changed.connect(self._show_layer)
        view.tool_changed.connect(self._show_tool)
        view.zoom_changed.connect(self._tell_zoom)
        view.edited.connect(self._edited)
        self._show_brush(view.brush)
        self._show_layer(view.layer)
        self._show_tool(view.tool)

    def _action(
        self, name: str, key: QKeySequence.StandardKey, verb: Callable[[], None]
    ) -> QAction:
        action = QAction(theme.icon(name), "", self)
        action.setObjectName(name)
        action.setShortcut(QKeySequence(key))
        action.triggered.connect(lambda *_: verb())
        return action

    def _layer_switch(self) -> QWidget:
        switch = QWidget()
        row = QHBoxLayout(switch)
        row.setContentsMargins(0, 0, 4, 0)
        row.setSpacing(0)
        group = QButtonGroup(switch)
        for layer, text, tip in (
            ("mask", self.tr("Mask"), self.tr("Paint what may change (X swaps)")),
            ("sketch", self.tr("Colours"), self.tr("Paint colours for the model to follow (X)")),
        ):
            button = QPushButton(text)
            button.setObjectName(f"layer_{layer}")
            button.setProperty("segment", True)
            button.setCheckable(True)
            button.setToolTip(tip)
            button.setAccessibleName(self.tr("Layer: {0}").format(text))
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.toggled.connect(lambda on, layer=layer: on and self._view.set_layer(layer))
            group.addButton(button)
            row.addWidget(button)
        switch.setMinimumHeight(HEIGHT)
        return switch

    def _pressure_button(self) -> QToolButton:
        button = QToolButton()
        button.setObjectName("penPressure")
        button.setIcon(theme.icon("pen"))
        button.setCheckable(True)
        button.setChecked(True)
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.setAccessibleName(self.tr("Pen pressure"))
        button.setToolTip(self.tr("Pen pressure: a pen that is pressed less paints more thinly"))
        button.toggled.connect(self._set_pressure)
        return button

    def _zoom_button(self) -> MenuButton:
        menu, view = QMenu(self), self._view
        entries: list[tuple[str, str, Callable[[], None]]] = [
            (self.tr("Whole picture"), "Ctrl+0", view.fit),
            (self.tr("True pixels"), "Ctrl+Alt+0", view.true_pixels),
            (self.tr("The box"), "", view.show_box),
            (self.tr("Closer"), "+", lambda: view.zoom_by(math.sqrt(2))),
            (self.tr("Farther"), "-", lambda: view.zoom_by(math.sqrt(0.5))),
        ]
        for text, key, verb in entries:
            action = menu.addAction(text, verb)
            action.setShortcut(QKeySequence(key))
            action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        menu.addSeparator()
        for zoom in _ZOOMS:
            menu.addAction(_percent(zoom), lambda zoom=zoom: view.zoom_to(zoom))
        button = MenuButton("canvasZoom", "zoom-fit", menu)
        button.setToolTip(self.tr("Zoom: the wheel, + and −; Ctrl+0 shows the whole picture"))
        button.setText(_percent(1.0))
        button.setMinimumWidth(button.sizeHint().width())  # it stands still while zooming
        return button

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Sliders and a word give way where that saves a line; numbers can be typed as well."""
        super().resizeEvent(event)
        room = self.width() - 2 * _EDGE
        roomy, brief = self._widths()
        self._set_brief(_lines(brief, room) < _lines(roomy, room))

    def _set_brief(self, brief: bool) -> None:
        for amount in self._amounts:
            amount.slider.setHidden(brief)
        self.mask_button.set_brief(brief)

    def _widths(self) -> tuple[list[int], list[int]]:
        """Of all that is in the bar: with sliders, and without what may give way."""
        giving = {id(part): part.widths() for part in (*self._amounts, self.mask_button)}
        roomy, brief = [], []
        for i in range(self._flow.count()):
            item = self._flow.itemAt(i)
            assert item is not None
            hint = item.sizeHint().width()
            wide, narrow = giving.get(id(item.widget()), (hint, hint))
            roomy.append(wide)
            brief.append(narrow)
        return roomy, brief

    # -- what is shown ------------------------------------------------------------------------------

    def _show_brush(self, brush: Brush) -> None:
        self.size_amount.set_value(2 * brush.radius)
        self.hardness.set_value(100 * brush.hardness)
        self.strength.set_value(100 * brush.strength)
        self.colour.set_colour(brush.colour)

    def _show_layer(self, layer: str) -> None:
        button = self.layers.findChild(QPushButton, f"layer_{layer}")
        assert button is not None
        button.setChecked(True)
        self._tell_amounts()
        self._show_tool(self._view.tool)

    def _show_tool(self, tool: str) -> None:
        """What the tool does not use is grey."""
        for amount in (self.size_amount, self.hardness):
            amount.setEnabled(tool in _TIPPED)
        self.pressure.setEnabled(tool in _TIPPED)
        self.strength.setEnabled(tool in _PAINTING)
        self.colour.setEnabled(self._view.layer == "sketch")

    def _tell_amounts(self) -> None:
        self.size_amount.tell(
            self.tr("Size"), self.tr("How wide the brush is, in picture pixels ([ and ])")
        )
        self.hardness.tell(
            self.tr("Hardness"), self.tr("100 %: a hard edge. Less: an edge that fades ({ and })")
        )
        names = (self.tr("Change"), self.tr("Opacity"))
        if self._view.layer == "mask":
            tip = self.tr(
                "How far what is painted may change: 100 % is free, less keeps more (1 … 0)"
            )
            self.strength.tell(names[0], tip, names)
        else:
            tip = self.tr("How much of the colour covers the photo (1 … 0)")
            self.strength.tell(names[1], tip, names)

    def _tell_zoom(self, *_: object) -> None:
        self.zoom.setText(_percent(self._view.zoom))
        self.zoom.setEnabled(self._document is not None)
        self.zoom.setAccessibleName(self.tr("Zoom {0}").format(self.zoom.text()))

    def _tell_history(self) -> None:
        history = None if self._document is None else self._document.history
        for action, title, plain, which in (
            (
                self.undo_action,
                history and history.undo_title,
                self.tr("Undo"),
                self.tr("Undo: {0}"),
            ),
            (
                self.redo_action,
                history and history.redo_title,
                self.tr("Redo"),
                self.tr("Redo: {0}"),
            ),
        ):
            told = QCoreApplication.translate("Document", title) if title else ""
            text = which.format(told) if told else plain
            if action.text() != text:
                action.setText(text)
                key = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
                action.setToolTip(f"{text} ({key})")
            action.setEnabled(bool(told))

    # -- what is done -------------------------------------------------------------------------------

    def _set(self, **changes: Any) -> None:
        self._view.set_brush(replace(self._view.brush, **changes))

    def _set_pressure(self, on: bool) -> None:
        if on:
            self._view.removeEventFilter(self._steady)
        else:
            self._view.installEventFilter(self._steady)

    def _changed(self, layer: str, rect: Rect) -> None:
        if not self._later.isActive():
            self._later.start()

    def _edited(self, layer: str) -> None:
        if layer == "sketch":
            self.colour.remember(self._view.brush.colour)
        self._tell_history()

    def _clear_colours(self) -> None:
        document = self._document
        if document is not None and document.bounds("sketch") is not None:
            document.clear("sketch")
            self._view.edited.emit("sketch")

    def _go(self, way: int) -> None:
        """Undo (-1) or redo (1), and say which layers that has edited."""
        document, view = self._document, self._view
        if document is None or view.painting:
            return
        touched: dict[str, None] = {}
        end = document.listen(lambda layer, rect: touched.setdefault(layer))
        try:
            document.history.undo() if way < 0 else document.history.redo()
        finally:
            end()
        for layer in touched:
            view.edited.emit(layer)
        self._tell_history()


class MenuButton(QToolButton):
    """A button with a menu; brief, it shows no words."""

    def __init__(self, name: str, icon: str, menu: QMenu) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setIcon(theme.icon(icon))
        self.setIconSize(QSize(18, 18))
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setMinimumHeight(HEIGHT)
        self.setMenu(menu)

    def widths(self) -> tuple[int, int]:
        """The width that is wanted, with words and about that without."""
        hint, words = self.sizeHint().width(), self.fontMetrics().horizontalAdvance(self.text())
        brief = self.toolButtonStyle() == Qt.ToolButtonStyle.ToolButtonIconOnly
        return (hint + words, hint) if brief else (hint, hint - words)

    def set_brief(self, brief: bool) -> None:
        style = Qt.ToolButtonStyle
        wanted = style.ToolButtonIconOnly if brief else style.ToolButtonTextBesideIcon
        if wanted != self.toolButtonStyle():
            self.setToolButtonStyle(wanted)
            self.style().polish(self)  # the style sheet makes room for the arrow


class SteadyPen(QObject):
    """Between a pen and the canvas: whatever the pressure, the canvas is told of full pressure."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if not isinstance(event, QTabletEvent) or event.pressure() == 1.0:
            return False
        firm = QTabletEvent(
            event.type(),
            event.pointingDevice(),
            event.position(),
            event.globalPosition(),
            1.0,
            event.xTilt(),
            event.yTilt(),
            event.tangentialPressure(),
            event.rotation(),
            event.z(),
            event.modifiers(),
            event.button(),
            event.buttons(),
        )
        handled = QCoreApplication.sendEvent(watched, firm)
        event.setAccepted(firm.isAccepted())
        return handled


def _group(*widgets: QWidget) -> QWidget:
    """Widgets that stay beside each other, as high as the rest of the bar."""
    group = QWidget()
    row = QHBoxLayout(group)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(2)
    for widget in widgets:
        row.addWidget(widget)
    group.setMinimumHeight(HEIGHT)
    return group


def _button(action: QAction) -> QToolButton:
    button = QToolButton()
    button.setObjectName(action.objectName())
    button.setDefaultAction(action)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)
    button.setIconSize(QSize(18, 18))
    button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return button


def _lines(widths: list[int], room: int) -> int:
    """How many lines things of these widths take."""
    lines, left = 1, room
    for width in widths:
        if width > left and left < room:
            lines, left = lines + 1, room
        left -= width + _GAP
    return lines


def _percent(zoom: float) -> str:
    return f"{100 * zoom:.0f} %" if zoom >= 0.1 else f"{100 * zoom:.1f} %"
