"""A live grid of pictures: watch many, open one, zoom to its true pixels.

Coordinates inside are *device* pixels, so that one picture pixel can cover whole screen pixels on
any display. `scale` is device pixels per picture pixel: 1.0 is 100 %. Pictures are uint8 arrays
(N, H, W, C), C of 1 or 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PySide6.QtCore import QEvent, QPoint, QPointF, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QContextMenuEvent,
    QHelpEvent,
    QImage,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QNativeGestureEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QApplication, QWidget

from studio.ui import drawing, theme
from studio.ui.keys import OwnKeys

HIGHEST = 64.0
_GAP = 10
_MARGIN = 16
_NOTCH = math.sqrt(2.0)


@dataclass(frozen=True)
class _Axis:
    """One direction of the grid in device pixels: `count` cells of `size` picture pixels."""

    count: int
    size: int
    gap: float
    view: float

    def pitch(self, scale: float) -> float:
        return self.size * scale + self.gap

    def extent(self, scale: float) -> float:
        return self.count * self.pitch(scale) - self.gap

    def held(self, origin: float, scale: float) -> float:
        """The origin nearest to `origin` at which the content is centred, or covers the view."""
        room = self.view - self.extent(scale)
        if room >= 0:
            return float(round(room / 2))
        return float(round(min(max(origin, room - self.gap), self.gap)))

    def moved(self, origin: float, at: float, before: float, after: float) -> float:
        """The origin that keeps the picture point under `at` in place when the scale changes."""
        inside = at - origin
        cell = min(max(int(inside // self.pitch(before)), 0), self.count - 1)
        point = (inside - cell * self.pitch(before)) / before
        return at - cell * self.pitch(after) - point * after


@dataclass(frozen=True)
class Camera:
    """Where a view looks, so that another one of as many pictures can look there too.

    `wanted` is the scale asked for, None where everything fits; `offset` goes from the middle of the
    view to the corner of its first picture, in device pixels.
    """

    solo: int | None
    current: int
    columns: int
    wanted: float | None
    offset: QPointF


class PictureView(OwnKeys, QWidget):
    """Shows pictures as a grid, or one of them alone (`solo`).

    Keys: arrows move, Enter opens, Escape or Backspace goes back, + and - zoom, Ctrl+0 fits,
    Ctrl+Alt+0 shows true pixels. Wheel zooms at the cursor, dragging pans, double click fits.
    """

    solo_changed = Signal(object)  # the index shown alone, or None for the grid
    current_changed = Signal(int)  # the cell that has the focus ring
    zoom_changed = Signal(float)  # 1.0 is 100 %
    camera_changed = Signal(object)  # the Camera, after a person moved it
    context_menu_requested = Signal(int, QPoint)  # picture, global position

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("sampleView")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setMinimumSize(160, 120)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self._sheet: np.ndarray | None = None  # (rows, H, across, W, C)
        self._image = QImage()
        self._shape = (0, 0, 0)
        self._across = 1
        self._columns = 1
        self._solo: int | None = None
        self._current = 0
        self._hovered: int | None = None
        self._wanted: float | None = None  # None fits the view; else the scale asked for
        self._scale = 1.0
        self._origin = QPointF()
        self._press: QPointF | None = None
        self._drag: QPointF | None = None
        self._undo_click: tuple[int | None, float, QPointF] | None = None
        self._captions: list[str] = []
        self._overlay: Callable[[QPainter, PictureView], None] | None = None
        self._hud = ""
        self._empty = (
            self.tr("Nothing here yet"),
            self.tr("Pictures appear here as they emerge from noise."),
        )
        self._speech = QTimer(self, singleShot=True, interval=400)
        self._speech.timeout.connect(self._speak)
        self.setToolTip(
            self.tr(
                "Click a picture to see it alone. The wheel zooms, dragging pans, "
                "a double click shows everything again (Ctrl+0)."
            )
        )
        self._speak()

    # ---- what is shown ------------------------------------------------------------------------

    def set_pictures(self, pictures: np.ndarray) -> None:
        """Show uint8 pictures (N, H, W, C); the array is copied. Made for 30 calls a second."""
        if pictures.ndim != 4 or pictures.shape[3] not in (1, 3) or pictures.dtype != np.uint8:
            raise ValueError(f"pictures are uint8 (N, H, W, 1 or 3), not {pictures.shape}")
        if not len(pictures):
            self.clear()
            return
        count, height, width, channels = pictures.shape
        # A square sheet: a single column of many large pictures would pass what Qt can address.
        across = math.isqrt(count - 1) + 1
        rows = -(-count // across)
        sheet = np.empty((rows, height, across, width, channels), np.uint8)
        for i, picture in enumerate(pictures):
            sheet[i // across, :, i % across] = picture
        self._sheet, self._across = sheet, across
        self._image = drawing.image_of(sheet.reshape(rows * height, across * width, channels))
        if self._shape != (count, height, width):
            self._reshaped(count, height, width)
        self.update()
        self._speak_soon()

    def clear(self) -> None:
        """Back to the empty state."""
        self._sheet, self._image, self._captions = None, QImage(), []
        self._reshaped(0, 0, 0)
        self._hud = ""
        self.update()
        self._speak_soon()

    def picture(self, index: int) -> np.ndarray:
        """A copy of one picture, (H, W, C). Raises IndexError if there is none."""
        if self._sheet is None or not 0 <= index < self.count:
            raise IndexError(f"there is no picture {index}")
        return self._sheet[index // self._across, :, index % self._across].copy()

    def set_empty_text(self, title: str, body: str) -> None:
        """What is said while there are no pictures."""
        self._empty = (title, body)
        self.update()
        self._speak_soon()

    def set_hud(self, text: str) -> None:
        """A short line in the lower left corner; empty takes it away."""
        if text != self._hud:
            appears = bool(text) != bool(self._hud)
            self._hud = text
            if appears:
                self._arrange()
            self.update()
            self._speak_soon()

    def set_captions(self, captions: list[str]) -> None:
        """A word on each picture, shown for the one under the cursor or with the focus."""
        self._captions = list(captions)
        self.update()
        self._speak_soon()

    def set_overlay(self, paint: Callable[[QPainter, PictureView], None] | None) -> None:
        """Something painted over the pictures and below the plates, in the widget's coordinates."""
        self._overlay = paint
        self.update()

    @property
    def count(self) -> int:
        return self._shape[0]

    @property
    def shown(self) -> list[int]:
        """The pictures that are in the view: all of them, or the one alone."""
        return list(range(self.count)) if self._solo is None else [self._solo]

    @property
    def current(self) -> int:
        """The picture with the focus ring."""
        return self._current

    @current.setter
    def current(self, index: int) -> None:
        self._go(index)

    @property
    def solo(self) -> int | None:
        """The picture shown alone, or None for the grid."""
        return self._solo

    @solo.setter
    def solo(self, index: int | None) -> None:
        if index is not None and not 0 <= index < self.count:
            raise IndexError(f"there is no picture {index}")
        self._set_solo(index, keep_zoom=self._solo is not None and index is not None)

    def _reshaped(self, count: int, height: int, width: int) -> None:
        same_size = self._shape[1:] == (height, width)
        self._shape = (count, height, width)
        self._current = min(self._current, max(0, count - 1))
        self._hovered = None
        if self._solo is not None and self._solo >= count:
            self._solo = None
            self.solo_changed.emit(None)
        if not same_size:
            self._wanted = None
        self._arrange()

    def _set_solo(self, index: int | None, keep_zoom: bool = False) -> None:
        if index == self._solo:
            return
        self._solo = index
        if index is not None:
            self._current = index
        if not keep_zoom:
            self._wanted = None
        self._arrange()
        self.update()
        self._speak_soon()
        self.solo_changed.emit(index)
        self.camera_changed.emit(self.camera)

    # ---- camera -------------------------------------------------------------------------------

    @property
    def camera(self) -> Camera:
        """Where the view looks now."""
        offset = self._origin - self._middle()
        return Camera(self._solo, self._current, self._columns, self._wanted, offset)

    def look(self, camera: Camera) -> None:
        """Look where another view looks. Emits no `camera_changed`."""
        solo = camera.solo if camera.solo in range(self.count) else None
        moved, self._solo = solo != self._solo, solo
        self._current = min(camera.current, max(0, self.count - 1))
        self._wanted, self._columns = camera.wanted, camera.columns
        self._origin = self._middle() + camera.offset
        self._arrange()
        self.update()
        if moved:
            self._speak_soon()
            self.solo_changed.emit(solo)

    def _middle(self) -> QPointF:
        return QPointF(self.width(), self.height() - self._reserved()) * (self._ratio() / 2)

    # ---- geometry -----------------------------------------------------------------------------

    def sizeHint(self) -> QSize:
        return QSize(640, 480)

    def _ratio(self) -> float:
        return self.devicePixelRatioF()

    def _axes(self) -> tuple[_Axis, _Axis]:
        count, height, width = self._shape
        columns, rows = self._columns, -(-count // self._columns)
        if self._solo is not None:
            columns = rows = 1
        ratio = self._ratio()
        gap = float(round(_GAP * ratio))
        view = (self.width() * ratio, (self.height() - self._reserved()) * ratio)
        return _Axis(columns, width, gap, view[0]), _Axis(rows, height, gap, view[1])

    def _reserved(self) -> int:
        """Height of the strip below the pictures that keeps the plates off them."""
        return 22 if self._hud or self._solo is not None else 0

    def _fitting(self, columns: int, rows: int) -> float:
        """The largest scale at which that many cells are seen whole."""
        _, height, width = self._shape
        ratio = self._ratio()
        room_x = (self.width() - 2 * _MARGIN - (columns - 1) * _GAP) * ratio
        room_y = (self.height() - self._reserved() - 2 * _MARGIN - (rows - 1) * _GAP) * ratio
        return max(0.02, min(room_x / (columns * width), room_y / (rows * height)))

    def _arrange(self) -> None:
        """Find columns, scale and origin after anything that could change them."""
        if not self.count:
            return
        if self._wanted is None or self._columns > self.count:
            self._columns = max(range(1, self.count + 1), key=self._worth)
        fit = self._fit_scale()
        if self._wanted is not None:
            self._wanted = min(max(self._wanted, min(fit, 1.0)), HIGHEST)
        scale = fit if self._wanted is None else _snapped(self._wanted)
        across, down = self._axes()
        self._origin = QPointF(
            across.held(self._origin.x(), scale), down.held(self._origin.y(), scale)
        )
        if scale != self._scale:
            self._scale = scale
            self.zoom_changed.emit(scale)
        self._show_cursor()

    def _worth(self, columns: int) -> tuple[float, int, float]:
        """Larger for the better arrangement: large pictures, then no empty places, then room."""
        empty = -self.count % columns
        return self._fit_of(columns), -empty, self._fitting(columns, -(-self.count // columns))

    def _fit_of(self, columns: int) -> float:
        return drawing.quantized(self._fitting(columns, -(-self.count // columns)))

    def _fit_scale(self) -> float:
        """The scale that shows everything, whole pixels where it enlarges."""
        alone = self._solo is not None
        return drawing.quantized(self._fitting(1, 1)) if alone else self._fit_of(self._columns)

    def _cell(self, index: int) -> QRectF:
        """Where a picture lies, in device pixels."""
        across, down = self._axes()
        column, row = (0, 0) if self._solo is not None else divmod(index, self._columns)[::-1]
        _, height, width = self._shape
        left = self._origin.x() + round(column * across.pitch(self._scale))
        top = self._origin.y() + round(row * down.pitch(self._scale))
        return QRectF(left, top, round(width * self._scale), round(height * self._scale))

    def cell_rect(self, index: int) -> QRectF:
        """Where a picture lies in the widget; an empty rectangle if it is not shown."""
        if not 0 <= index < self.count or self._solo not in (None, index):
            return QRectF()
        ratio = self._ratio()
        box = self._cell(index)
        return QRectF(box.topLeft() / ratio, box.size() / ratio)

    def index_at(self, position: QPointF) -> int | None:
        """The picture under a point of the widget."""
        point = position * self._ratio()
        return next((i for i in self.shown if self._cell(i).contains(point)), None)

    # ---- zoom ---------------------------------------------------------------------------------

    @property
    def zoom(self) -> float:
        """Device pixels per picture pixel; 1.0 is 100 %."""
        return self._scale

    @property
    def fits(self) -> bool:
        """Whether the zoom follows the size of the view."""
        return self._wanted is None

    def zoom_to_fit(self) -> None:
        """Show everything."""
        self._wanted = None
        self._arrange()
        self.update()
        self.camera_changed.emit(self.camera)

    def zoom_true(self) -> None:
        """One picture pixel on one screen pixel."""
        self._zoom_to(1.0, None)

    def zoom_by(self, factor: float, at: QPointF | None = None) -> None:
        """Zoom by a factor around a point of the widget (its centre if None)."""
        if not self.count:
            return
        wanted, fit = (self._wanted or self._scale) * factor, self._fit_scale()
        # Zooming out ends at "fit", which then follows the size of the window.
        if wanted <= fit <= self._scale:
            self.zoom_to_fit()
        else:
            self._zoom_to(wanted, at)

    def _zoom_to(self, wanted: float, at: QPointF | None) -> None:
        if not self.count:
            return
        self._wanted = min(max(wanted, min(self._fit_scale(), 1.0)), HIGHEST)
        anchor = (at if at is not None else QRectF(self.rect()).center()) * self._ratio()
        across, down = self._axes()
        after = _snapped(self._wanted)
        self._origin = QPointF(
            across.moved(self._origin.x(), anchor.x(), self._scale, after),
            down.moved(self._origin.y(), anchor.y(), self._scale, after),
        )
        self._arrange()
        self.update()
        self.camera_changed.emit(self.camera)

    def wheelEvent(self, event: QWheelEvent) -> None:
        turned = event.angleDelta().y()
        if turned:
            self.zoom_by(_NOTCH ** (turned / 120), event.position())
        event.accept()

    def _pannable(self) -> bool:
        return bool(self.count) and any(a.extent(self._scale) > a.view for a in self._axes())

    def _show_cursor(self) -> None:
        if self._drag is not None and self._pannable():
            self.setCursor(Qt.CursorShape.ClosedHandCursor)
        elif self._wanted is not None and self._pannable():
            self.setCursor(Qt.CursorShape.OpenHandCursor)
        else:
            self.unsetCursor()

    # ---- mouse --------------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() in (Qt.MouseButton.LeftButton, Qt.MouseButton.MiddleButton):
            self._press = event.position()
            self._undo_click = None

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._press is None:
            self._hover(self.index_at(event.position()))
            return
        moved = event.position() - self._press
        if self._drag is None:
            if moved.manhattanLength() < QApplication.startDragDistance():
                return
            self._drag = self._origin - self._press * self._ratio()
        across, down = self._axes()
        wish = self._drag + event.position() * self._ratio()
        self._origin = QPointF(across.held(wish.x(), self._scale), down.held(wish.y(), self._scale))
        self._show_cursor()
        self.update()
        self.camera_changed.emit(self.camera)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        clicked = self._press is not None and self._drag is None
        self._press = self._drag = None
        self._show_cursor()
        if clicked and event.button() == Qt.MouseButton.LeftButton:
            self._click(self.index_at(event.position()))

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Fit. A first click that already changed the view while zoomed in is taken back."""
        if event.button() != Qt.MouseButton.LeftButton:
            return
        self._press = None
        if self._undo_click is not None:
            self._set_solo(self._undo_click[0])
            self._undo_click = None
        self.zoom_to_fit()

    def _click(self, index: int | None) -> None:
        if self._wanted is not None:
            self._undo_click = (self._solo, self._scale, self._origin)
        if self._solo is not None:
            self._set_solo(None)
        elif index is not None:
            self._go(index)
            if self.count > 1:
                self._set_solo(index)

    def _hover(self, index: int | None) -> None:
        if index != self._hovered:
            self._hovered = index
            self.update()

    def leaveEvent(self, event: QEvent) -> None:
        self._hover(None)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            index = self._current if self.count else None
            where = self.cell_rect(self._current).center().toPoint()
            position = self.mapToGlobal(where)
        else:
            index, position = self.index_at(QPointF(event.pos())), event.globalPos()
        if index is None:
            event.ignore()
            return
        self._go(index)
        self.context_menu_requested.emit(index, position)

    # ---- keys ---------------------------------------------------------------------------------

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QNativeGestureEvent) and _is_pinch(event):
            self.zoom_by(1.0 + event.value(), event.position())
            return True
        if isinstance(event, QHelpEvent) and self.index_at(QPointF(event.pos())) is not None:
            # The explanation must not cover the picture somebody is watching.
            event.ignore()
            return True
        return super().event(event)

    def _command(self, event: QKeyEvent):
        """What a key does here, or None if it is somebody else's."""
        if not self.count:
            return None
        key, mods = event.key(), event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        control, alt = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.AltModifier
        if mods == control | alt and key == Qt.Key.Key_0:
            return self.zoom_true
        if mods == control and key == Qt.Key.Key_0:
            return self.zoom_to_fit
        larger = event.matches(QKeySequence.StandardKey.ZoomIn)
        if larger or key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            return lambda: self.zoom_by(_NOTCH)
        if event.matches(QKeySequence.StandardKey.ZoomOut) or key == Qt.Key.Key_Minus:
            return lambda: self.zoom_by(1 / _NOTCH)
        if mods != Qt.KeyboardModifier.NoModifier:
            return None
        if key in (Qt.Key.Key_Escape, Qt.Key.Key_Backspace):
            return None if self._solo is None else lambda: self._set_solo(None)
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            return self._toggle
        moves = {
            Qt.Key.Key_Left: self._current - 1,
            Qt.Key.Key_Right: self._current + 1,
            Qt.Key.Key_Up: self._current - self._columns,
            Qt.Key.Key_Down: self._current + self._columns,
            Qt.Key.Key_Home: 0,
            Qt.Key.Key_End: self.count - 1,
        }
        target = moves.get(Qt.Key(key))
        return None if target is None else lambda: self._go(target)

    def _toggle(self) -> None:
        self._set_solo(self._current if self._solo is None else None)

    def _go(self, index: int) -> None:
        """Move the focus ring; alone, show that picture instead at the same place and zoom."""
        if not 0 <= index < self.count or index == self._current:
            return
        self._current = index
        self.current_changed.emit(index)
        if self._solo is not None:
            self._set_solo(index, keep_zoom=True)
        else:
            self._reveal(index)
            self.camera_changed.emit(self.camera)
        self.update()
        self._speak_soon()

    def _reveal(self, index: int) -> None:
        """Pan as little as needed to have a cell in view."""
        box, ratio = self._cell(index), self._ratio()
        view = QRectF(0, 0, self.width() * ratio, self.height() * ratio)
        if not view.contains(box) and self._pannable():
            dx = min(0.0, view.right() - box.right()) or max(0.0, -box.left())
            dy = min(0.0, view.bottom() - box.bottom()) or max(0.0, -box.top())
            self._origin += QPointF(round(dx), round(dy))
            self._arrange()

    # ---- painting -----------------------------------------------------------------------------

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._arrange()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self.update()
        super().changeEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.fillRect(event.rect(), QColor(theme.colours().stage))
        if self.count:
            self._paint_pictures(painter)
            self._paint_marks(painter)
            if self._overlay is not None:
                painter.save()
                self._overlay(painter, self)
                painter.restore()
            self._paint_plates(painter)
        else:
            drawing.empty_state(painter, self.rect(), self.font(), *self._empty, illustrated=True)
            if self.hasFocus():
                inner = QRectF(self.rect()).adjusted(3, 3, -3, -3)
                drawing.frame(painter, inner, theme.colours().accent, 1.5, -1.5, 5)
        painter.end()

    def _paint_pictures(self, painter: QPainter) -> None:
        ratio = self._ratio()
        _, height, width = self._shape
        view = QRectF(0, 0, self.width() * ratio, self.height() * ratio)
        painter.save()
        painter.scale(1 / ratio, 1 / ratio)
        painter.setRenderHint(
            QPainter.RenderHint.SmoothPixmapTransform,
            self._scale < drawing.CRISP and self._scale != 1.0,
        )
        line, edge = QColor(theme.colours().line), max(1.0, round(ratio))
        for i in self.shown:
            box = self._cell(i)
            if box.intersects(view):
                row, column = divmod(i, self._across)
                # A frame with its corners cut; far cheaper than a rounded outline per picture.
                painter.fillRect(box.adjusted(-edge, 0, edge, 0), line)
                painter.fillRect(box.adjusted(0, -edge, 0, edge), line)
                part = QRectF(column * width, row * height, width, height)
                painter.drawImage(box, self._image, part)
        painter.restore()

    def _paint_marks(self, painter: QPainter) -> None:
        """The focus ring, and an outline under the cursor."""
        if self._solo is not None:
            return
        c, ringed = theme.colours(), self.hasFocus() and self.count > 1
        if self._hovered is not None and not (ringed and self._hovered == self._current):
            drawing.frame(painter, self.cell_rect(self._hovered), c.muted, 1, 1, 3)
        if ringed:
            drawing.frame(painter, self.cell_rect(self._current), c.accent, 2, 1.5, 4)

    def _paint_plates(self, painter: QPainter) -> None:
        inside = QRectF(self.rect()).adjusted(8, 8, -8, -8)
        small = theme.font(self.font(), 0.92)
        corner = QRectF()
        if self._hud:
            left = QPointF(inside.left(), inside.bottom())
            corner = drawing.plate(painter, small, self._hud, left, inside)
        if self._solo is not None:
            parts = [self.tr("{0} of {1}").format(self._solo + 1, self.count)]
            text = " · ".join(parts + [self._caption(self._solo)] * bool(self._caption(self._solo)))
            drawing.plate(painter, small, text, QPointF(inside.right(), inside.bottom()), inside)
            return
        marked = self._hovered
        if marked is None and self.hasFocus() and self.count > 1:
            marked = self._current
        if marked is not None and self._caption(marked):
            box = self.cell_rect(marked)
            # Inside tall cells; below small ones, whose picture it would hide.
            bottom = box.bottom() - 6 if box.height() >= 110 else box.bottom() + 24
            spot = QPointF(box.center().x(), bottom)
            room = inside if corner.isEmpty() else inside.adjusted(0, 0, 0, -corner.height() - 4)
            drawing.plate(painter, small, self._caption(marked), spot, room)

    def _caption(self, index: int) -> str:
        return self._captions[index] if index < len(self._captions) else ""

    # ---- for those who listen -----------------------------------------------------------------

    def _speak_soon(self) -> None:
        if not self._speech.isActive():
            self._speech.start()

    def _speak(self) -> None:
        """Tell screen readers what is shown; at most a few times a second."""
        if not self.count:
            self.setAccessibleName(self._empty[0])
            self.setAccessibleDescription(self._empty[1])
            return
        several = self.tr("{0} pictures").format(self.count)
        count = self.tr("1 picture") if self.count == 1 else several
        self.setAccessibleName(", ".join(part for part in (count, self._hud) if part))
        place = self.tr("Picture {0} of {1}").format(self._current + 1, self.count)
        alone = self.tr("shown alone, Escape returns to the grid") if self._solo is not None else ""
        told = (place, self._caption(self._current), alone)
        self.setAccessibleDescription(", ".join(part for part in told if part))


def _is_pinch(event: QNativeGestureEvent) -> bool:
    return event.gestureType() == Qt.NativeGestureType.ZoomNativeGesture


def _snapped(scale: float) -> float:
    """Whole device pixels from 200 % upwards, the nearest ones to what was asked for."""
    return float(int(scale + 0.5)) if scale >= drawing.CRISP - 0.25 else scale
