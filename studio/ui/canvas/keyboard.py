"""What keys do on the canvas, while it has the focus; and painting without a mouse.

Shift and an arrow call up a cursor of the keyboard's own, which Enter stamps with the brush. Keys that
are held last as long: Space pans, Tab shows the original. A short touch of Tab goes on to the next
widget, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from PySide6.QtCore import QEvent, QRectF, Qt, QTimer
from PySide6.QtGui import QKeyEvent, QKeySequence

from studio.ui.canvas import tools

if TYPE_CHECKING:
    from studio.ui.canvas.view import CanvasView

Command = Callable[[], object]

_TAP_MS = 200
_NOTCH = math.sqrt(2.0)
_TOOLS = {
    Qt.Key.Key_B: "brush",
    Qt.Key.Key_E: "eraser",
    Qt.Key.Key_L: "lasso",
    Qt.Key.Key_M: "rect",
    Qt.Key.Key_G: "fill",
    Qt.Key.Key_I: "pick",
    Qt.Key.Key_C: "box",
    Qt.Key.Key_H: "pan",
    Qt.Key.Key_W: "wipe",
}
_ARROWS = {
    Qt.Key.Key_Left: (-1, 0),
    Qt.Key.Key_Right: (1, 0),
    Qt.Key.Key_Up: (0, -1),
    Qt.Key.Key_Down: (0, 1),
}
_ENTER = (Qt.Key.Key_Return, Qt.Key.Key_Enter)
_NONE = Qt.KeyboardModifier.NoModifier
_SHIFT = Qt.KeyboardModifier.ShiftModifier
_CONTROL = Qt.KeyboardModifier.ControlModifier
_ALT = Qt.KeyboardModifier.AltModifier


class Keyboard:
    """The keys of one canvas. `at` is its own cursor in picture pixels, None while hidden."""

    def __init__(self, canvas: CanvasView) -> None:
        self.at: tuple[float, float] | None = None
        self.space = False
        self._canvas = canvas
        self._tab = False
        self._tap = QTimer(canvas, singleShot=True, interval=_TAP_MS)

    # ---- held keys ----------------------------------------------------------------------------

    def holds(self, event: QKeyEvent) -> bool:
        """Take a key that lasts as long as it is held; whether it was one."""
        known = event.key() in (Qt.Key.Key_Space, Qt.Key.Key_Tab)
        if self._canvas.document is None or not known:
            return False
        asked = event.type() == QEvent.Type.ShortcutOverride
        down = event.type() == QEvent.Type.KeyPress
        if (asked or down) and event.modifiers() != _NONE:
            return False
        if asked or event.isAutoRepeat():
            return True
        if event.key() == Qt.Key.Key_Space:
            self.space = down
            self._canvas.show_cursor()
        elif down:
            self._tab = True
            self._tap.start()
            self._canvas.show_original(True)
        elif self._tab:
            self._tab = False
            self._canvas.show_original(False)
            if self._tap.isActive():
                self._tap.stop()
                self._canvas.focusNextChild()
        return True

    def let_go(self) -> None:
        """The focus is gone, and with it whatever was held."""
        self.space = self._tab = False
        self._canvas.show_original(False)
        self._canvas.show_cursor()

    # ---- commands -----------------------------------------------------------------------------

    def command(self, event: QKeyEvent) -> Command | None:
        """What a key does, or None if it is somebody else's."""
        canvas = self._canvas
        if event.matches(QKeySequence.StandardKey.Paste):
            return canvas.paste
        mods, key = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier, Qt.Key(event.key())
        if canvas.document is None:
            return canvas.open_requested.emit if key in _ENTER and mods == _NONE else None
        if mods in (_NONE, _SHIFT) and (found := self._written(event.text())) is not None:
            return found
        if mods == _SHIFT and key in _ARROWS:
            return lambda: self._step(*_ARROWS[key])
        if mods == _NONE:
            return self._plain(key)
        if mods == _CONTROL | _ALT and key == Qt.Key.Key_0:
            return canvas.true_pixels
        if mods & ~_SHIFT != _CONTROL:
            return None
        known: dict[Qt.Key, Command] = {
            Qt.Key.Key_0: canvas.fit,
            Qt.Key.Key_I: self._invert,
            Qt.Key.Key_Plus: lambda: canvas.zoom_by(_NOTCH),
            Qt.Key.Key_Equal: lambda: canvas.zoom_by(_NOTCH),
            Qt.Key.Key_Minus: lambda: canvas.zoom_by(1 / _NOTCH),
        }
        return known.get(key)

    def _written(self, text: str) -> Command | None:
        """Keys that are known by what is written on them, wherever a keyboard has them."""
        canvas = self._canvas
        if len(text) == 1 and text in "0123456789":
            return lambda: self._set(strength=(int(text) or 10) / 10)
        signs: dict[str, Command] = {
            "[": lambda: self._resize(0.85),
            "]": lambda: self._resize(1 / 0.85),
            "{": lambda: self._harden(-0.1),
            "}": lambda: self._harden(0.1),
            "+": lambda: canvas.zoom_by(_NOTCH),
            "=": lambda: canvas.zoom_by(_NOTCH),
            "-": lambda: canvas.zoom_by(1 / _NOTCH),
        }
        return signs.get(text)

    def _plain(self, key: Qt.Key) -> Command | None:
        """Keys without modifiers."""
        canvas = self._canvas
        if key in _TOOLS:
            return lambda: canvas.set_tool(_TOOLS[key])
        if key in _ENTER:
            return self._enter()
        if key == Qt.Key.Key_Escape:
            return self._escape if canvas.unfinished or self.at is not None else None
        if canvas.tool == "pan" and key in _ARROWS:
            dx, dy = (-round(64 * canvas.ratio) * way for way in _ARROWS[key])
            return lambda: canvas.pan(dx, dy)
        other = "sketch" if canvas.layer == "mask" else "mask"
        known: dict[Qt.Key, Command] = {
            Qt.Key.Key_X: lambda: canvas.set_layer(other),
            Qt.Key.Key_Left: lambda: canvas.flip_requested.emit(-1),
            Qt.Key.Key_Right: lambda: canvas.flip_requested.emit(1),
            Qt.Key.Key_Delete: canvas.discard_requested.emit,
        }
        return known.get(key)

    def _enter(self) -> Command | None:
        canvas = self._canvas
        if canvas.unfinished:
            return canvas.finish
        if canvas.result_rect is not None:
            return canvas.accept_requested.emit
        at = self.at
        return None if at is None else lambda: canvas.stamp(*at)

    def _escape(self) -> None:
        self.at = None
        self._canvas.cancel()
        self._canvas.update()

    def _invert(self) -> None:
        document = self._canvas.document
        if document is not None and not self._canvas.painting:
            document.invert_mask()
            self._canvas.edited.emit("mask")

    # ---- the brush ----------------------------------------------------------------------------

    def _resize(self, factor: float) -> None:
        before = self._canvas.brush.radius
        after = before * factor
        if abs(after - before) < 0.5:
            after = before + math.copysign(0.5, factor - 1)
        self._set(radius=tools.held_radius(after))

    def _harden(self, step: float) -> None:
        after = round(self._canvas.brush.hardness + step, 2)
        self._set(hardness=min(max(after, 0.0), 1.0))

    def _set(self, **changes: float) -> None:
        self._canvas.set_brush(replace(self._canvas.brush, **changes))
        self._canvas.tell_brush()

    def _step(self, dx: int, dy: int) -> None:
        """Move the cursor by a quarter of the brush, or the box with its tool."""
        canvas = self._canvas
        document, camera = canvas.document, canvas.camera
        if document is None or camera is None or canvas.painting:
            return
        if canvas.tool == "box":
            box = document.box
            step = max(1, box[2] // 16)
            document.set_box(tools.moved_box(box, dx * step, dy * step, document.size, 0))
            canvas.edited.emit("box")
        elif canvas.tool in ("brush", "eraser"):
            width, height = document.size
            if self.at is None:
                x, y = canvas.to_picture(QRectF(canvas.rect()).center())
            else:
                step = max(1.0, canvas.brush.radius / 4)
                x, y = self.at[0] + dx * step, self.at[1] + dy * step
            self.at = (min(max(x, 0.0), float(width)), min(max(y, 0.0), float(height)))
            canvas.reveal(*self.at)
