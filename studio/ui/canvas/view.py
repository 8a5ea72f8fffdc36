"""The canvas: a document seen through a camera, and the tools that mark it.

What is shown is composed in `overlay`, the marks over it are in `cursor`, what a pointer does is in
`tools`. Here are the events: mouse, pen, wheel, keys, drop and paste, and what screen readers hear.
Signals and coordinates are in picture pixels; the camera works in the screen's own pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PySide6.QtCore import QEvent, QMimeData, QPointF, QRect, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QFocusEvent,
    QHelpEvent,
    QImage,
    QInputDevice,
    QKeyEvent,
    QMouseEvent,
    QNativeGestureEvent,
    QPainter,
    QPaintEvent,
    QPointingDevice,
    QResizeEvent,
    QTabletEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QApplication, QWidget

from studio.errors import StudioError
from studio.ui import drawing, theme
from studio.ui.canvas import cursor, tools
from studio.ui.canvas.brush import Brush
from studio.ui.canvas.camera import Camera, Rect
from studio.ui.canvas.keyboard import Keyboard
from studio.ui.canvas.overlay import Scene
from studio.ui.canvas.tools import Spot, Tool
from studio.ui.keys import OwnKeys

if TYPE_CHECKING:
    from studio.ui.canvas.document import Document

_NOTCH = math.sqrt(2.0)
_MARGIN = 24
#: Seconds of averaging between two paints.
_SLICE = 0.006
_PAINTING = (
    Qt.MouseButton.LeftButton,
    Qt.MouseButton.MiddleButton,
    Qt.MouseButton.RightButton,
)


class CanvasView(OwnKeys, QWidget):
    """Shows a document and lets it be painted on; its keys are in `keyboard`."""

    edited = Signal(str)  # the layer of a mark that is finished: "mask", "sketch" or "box"
    stroke_began = Signal()
    tool_changed = Signal(str)
    layer_changed = Signal(str)
    brush_changed = Signal(object)  # Brush
    zoom_changed = Signal(float)  # 1.0 is 100 %
    wipe_changed = Signal(object)  # float or None
    pointed = Signal(object)  # (x, y, (r, g, b)), or None outside
    dropped = Signal(object)  # list[Path]
    pasted = Signal(object)  # uint8 (h, w, 4)
    open_requested = Signal()  # a click on the empty canvas
    accept_requested = Signal()
    discard_requested = Signal()
    flip_requested = Signal(int)  # -1 or 1

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("canvasView")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setAcceptDrops(True)
        # The right button erases; it must not open the window's menu too.
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.PreventContextMenu)
        self.setMinimumSize(160, 120)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.document: Document | None = None
        self.camera: Camera | None = None
        self.tool, self.layer, self.brush = "brush", "mask", Brush()
        self._scene = Scene()
        self._unlisten: Callable[[], None] | None = None
        self._fits = True
        self._busy, self._said, self._hot = "", "", False
        self._tools: dict[str, Tool] = {
            "brush": tools.BrushTool(self),
            "eraser": tools.BrushTool(self, erase=True),
            "lasso": tools.LassoTool(self),
            "rect": tools.RectTool(self),
            "fill": tools.FillTool(self),
            "pick": tools.PickTool(self),
            "box": tools.BoxTool(self),
            "pan": tools.PanTool(self),
            "wipe": tools.WipeTool(self),
        }
        self._adjust, self._drag = tools.AdjustTool(self), tools.PanTool(self)
        self._active: Tool | None = None
        self._pen_down = self._pen_erases = False
        self._keyboard = Keyboard(self)
        self._pointer: QPointF | None = None  # device pixels
        self._ring = QRect()
        self._refining = QTimer(self, interval=0)
        self._refining.timeout.connect(self._refine)
        self._hush = QTimer(self, singleShot=True, interval=1400)
        self._hush.timeout.connect(lambda: self.notice(""))
        self._speech = QTimer(self, singleShot=True, interval=400)
        self._speech.timeout.connect(self._speak)
        self.setToolTip(
            self.tr(
                "Paint what the model may change. The wheel zooms, the middle button or Space pans, "
                "the right button erases, [ and ] change the size."
            )
        )
        self._speak()

    # ---- what is shown ------------------------------------------------------------------------

    def set_document(self, document: Document | None) -> None:
        """Show another document, whole; None shows where to drop a picture."""
        self.cancel()
        if self._unlisten is not None:
            self._unlisten()
        self.document = document
        self._unlisten = None if document is None else document.listen(self._changed)
        for tool in self._tools.values():
            if isinstance(tool, tools.BrushTool):
                tool.forget()
        self._keyboard.at = None
        self._scene.ratio = self.ratio
        self._scene.set_document(document)
        if document is None:
            self.camera = None
            self._scene.look(None)
        else:
            self.fit()
        self.show_cursor()
        self.update()
        self._speak_soon()

    def set_result(self, pixels: np.ndarray | None, rect: Rect) -> None:
        """Show a candidate, uint8 (h, w, 3) of any size, over a rectangle; None takes it away.

        While it is there the mask is an outline, unless a mark is being made.
        """
        alike = self.result_rect is not None and pixels is not None
        changed = self._scene.set_result(pixels, rect)
        self._judge()
        if self._scene.wipe is not None or not alike:
            self.update()  # the wipe's grip reaches beyond, and so does the mask's other look
        else:
            self.update(self._logical(changed))

    def set_heat(self, values: np.ndarray | None, rect: Rect) -> None:
        """Show doubt, uint8 (h, w), over a rectangle: darker where low, light where high."""
        self._scene.set_heat(values, rect)
        self.update()

    def set_wipe(self, share: float | None) -> None:
        """Show the candidate only to the right of this share of its width; None shows all."""
        if share != self._scene.wipe:
            self._scene.set_wipe(share)
            self.wipe_changed.emit(share)
            self.update()

    def show_original(self, on: bool) -> None:
        """Show the photo alone, without anything over it."""
        self._scene.set_original(on)
        self.update()

    def set_busy(self, text: str) -> None:
        """A line in the lower left corner; empty takes it away."""
        if text != self._busy:
            self._busy = text
            self.update()
            self._speak_soon()

    def notice(self, text: str) -> None:
        """A line that goes away by itself."""
        self._said = text
        if text:
            self._hush.start()
        self.update()

    @property
    def result_rect(self) -> Rect | None:
        """Where a candidate lies, if one is shown."""
        return self._scene.result_rect

    @property
    def painting(self) -> bool:
        """Whether a mark is being made right now."""
        return self._active is not None and self._active.busy

    def _changed(self, layer: str, rect: Rect) -> None:
        """The document tells of a change; a stroke tells at every move."""
        if layer == "box":
            self.update()
            return
        device = self._scene.changed(layer, rect)
        if not device.isEmpty():
            self.update(self._logical(device))

    def _judge(self) -> None:
        self._scene.set_judging(self._scene.result_rect is not None and not self.painting)
        self._scene.set_sketching(self.painting and self.layer == "sketch")

    # ---- tool, layer, brush -------------------------------------------------------------------

    def set_tool(self, name: str) -> None:
        """Raises KeyError if there is no such tool."""
        chosen = self._tools[name]
        if name != self.tool:
            self.cancel()
            self.tool = name
            self.tool_changed.emit(name)
        if name == "wipe" and self._scene.wipe is None and self.result_rect is not None:
            self.set_wipe(0.5)
        if not isinstance(chosen, tools.BrushTool):
            self._keyboard.at = None
        self.show_cursor()
        self.update()
        self._speak_soon()

    def set_layer(self, name: str) -> None:
        if name not in ("mask", "sketch"):
            raise ValueError(f"there is no layer {name!r} to paint on")
        if name != self.layer:
            self.layer = name
            self.layer_changed.emit(name)
            self.update()
            self._speak_soon()

    def set_brush(self, brush: Brush) -> None:
        if brush != self.brush:
            self.brush = brush
            self.brush_changed.emit(brush)
            self.update()
            self._speak_soon()

    def tell_brush(self) -> None:
        """Say for a moment what the brush is like."""
        self.notice(
            self.tr("{0} px · hardness {1} % · strength {2} %").format(
                f"{2 * self.brush.radius:.0f}",
                round(100 * self.brush.hardness),
                round(100 * self.brush.strength),
            )
        )

    @property
    def unfinished(self) -> bool:
        """Whether a mark is being made, or waits for the next click."""
        return self._active is not None or any(tool.busy for tool in self._tools.values())

    def finish(self) -> None:
        """Close a lasso that is made of clicks."""
        self._tools[self.tool].finish()

    def cancel(self) -> None:
        """Take back a mark that is not finished."""
        for tool in (*self._tools.values(), self._adjust, self._drag):
            if tool.busy:
                tool.cancel()
        self._active, self._pen_down = None, False
        self._judge()

    # ---- zoom ---------------------------------------------------------------------------------

    @property
    def ratio(self) -> float:
        """Device pixels per logical pixel."""
        return self.devicePixelRatioF()

    @property
    def zoom(self) -> float:
        """Device pixels per picture pixel; 1.0 is 100 %."""
        return 1.0 if self.camera is None else self.camera.scale

    @property
    def fits(self) -> bool:
        """Whether the zoom follows the size of the view."""
        return self._fits

    def fit(self) -> None:
        """Show the whole picture."""
        if self.document is not None:
            self._fits = True
            blank = Camera(self.document.size, self._device_size())
            self._look(blank.showing((0, 0, *self.document.size), round(_MARGIN * self.ratio)))

    def show_box(self) -> None:
        """Show the box as large as it fits."""
        if self.document is not None and self.camera is not None:
            self._fits = False
            self._look(self.camera.showing(self.document.box, round(2 * _MARGIN * self.ratio)))

    def true_pixels(self) -> None:
        """One picture pixel on one screen pixel."""
        self.zoom_to(1.0)

    def zoom_to(self, scale: float, at: QPointF | None = None) -> None:
        """Zoom to 0.05 … 64, around a point of the widget (its centre if None)."""
        if self.camera is not None:
            self._fits = False
            anchor = QRectF(self.rect()).center() if at is None else at
            self._look(self.camera.zoomed(scale, anchor * self.ratio))

    def zoom_by(self, factor: float, at: QPointF | None = None) -> None:
        if self.camera is not None:
            self.zoom_to(self.camera.wanted * factor, at)

    def pan(self, dx: int, dy: int) -> None:
        """Move the picture by device pixels."""
        if self.camera is not None:
            self._fits = False
            self._look(self.camera.moved(dx, dy))

    def reveal(self, x: float, y: float) -> None:
        """Pan as little as needed to have a point of the picture well inside the view."""
        if self.camera is None:
            return
        at, margin = self.camera.to_device(x, y), 32 * self.ratio
        moves = [
            round(max(0.0, margin - place) or min(0.0, side - margin - place))
            for place, side in zip((at.x(), at.y()), self.camera.view)
        ]
        if any(moves):
            self.pan(*moves)
        self.update()

    def to_widget(self, x: float, y: float) -> QPointF:
        """Where a point of the picture is in the widget; the corner without a picture."""
        return QPointF() if self.camera is None else self.camera.to_device(x, y) / self.ratio

    def to_picture(self, position: QPointF) -> tuple[float, float]:
        """The point of the picture at a point of the widget."""
        return (0.0, 0.0) if self.camera is None else self.camera.to_picture(position * self.ratio)

    def _look(self, camera: Camera) -> None:
        before, self.camera = self.camera, camera
        self._scene.look(camera)
        self.update()
        if before is None or before.scale != camera.scale:
            self.zoom_changed.emit(camera.scale)
            self._speak_soon()

    def _device_size(self) -> tuple[int, int]:
        ratio = self.ratio
        return max(1, round(self.width() * ratio)), max(1, round(self.height() * ratio))

    def _logical(self, device: QRect) -> QRect:
        ratio = self.ratio
        return QRectF(
            device.x() / ratio, device.y() / ratio, device.width() / ratio, device.height() / ratio
        ).toAlignedRect()

    def sizeHint(self) -> QSize:
        return QSize(800, 600)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._arrange()

    def _arrange(self) -> None:
        """The view has another size, or the screen other pixels."""
        if self.camera is None:
            return
        if self._scene.ratio != self.ratio:
            self._scene.ratio = self.ratio
            self._scene.spoil()
        if self._fits:
            self.fit()
        else:
            self._look(self.camera.resized(self._device_size()))

    def _refine(self) -> None:
        better = self._scene.refine(_SLICE)
        if better is None:
            self._refining.stop()
        else:
            self.update(self._logical(better))

    # ---- pointers -----------------------------------------------------------------------------

    def _spot(self, event: QMouseEvent | QTabletEvent, pressure: float, erase: bool) -> Spot:
        at, mods = event.position() * self.ratio, event.modifiers()
        x, y = (0.0, 0.0) if self.camera is None else self.camera.to_picture(at)
        shift = bool(mods & Qt.KeyboardModifier.ShiftModifier)
        control = bool(mods & Qt.KeyboardModifier.ControlModifier)
        return Spot(x, y, at, pressure, erase, shift, control)

    def pixel_at(self, spot: Spot) -> tuple[int, int] | None:
        """The pixel under a spot, None outside of the picture."""
        if self.document is None:
            return None
        x, y = math.floor(spot.x), math.floor(spot.y)
        width, height = self.document.size
        return (x, y) if 0 <= x < width and 0 <= y < height else None

    def _press(self, spot: Spot, button: Qt.MouseButton, alt: bool) -> None:
        if self.document is None or self._active is not None:
            return
        chosen = self._tools[self.tool]
        if button == Qt.MouseButton.MiddleButton or self._keyboard.space:
            chosen = self._drag
        elif alt and isinstance(chosen, tools.BrushTool):
            chosen = self._adjust
        self._active, self._keyboard.at = chosen, None
        try:
            chosen.press(spot)
        except StudioError as error:
            self._active = None
            self.notice(str(error))
        self._judge()

    def _move(self, spot: Spot) -> None:
        self._pointer, self._keyboard.at = spot.at, None
        if self._active is not None:
            self._active.move(spot)
        else:
            self._tools[self.tool].hover(spot)
        self._move_ring()
        self._point(spot)

    def _release(self, spot: Spot) -> None:
        active, self._active = self._active, None
        if active is not None:
            active.release(spot)
        self._judge()
        self.show_cursor()
        self.update()

    def _point(self, spot: Spot) -> None:
        pixel = self.pixel_at(spot)
        if self.document is None or pixel is None:
            self.pointed.emit(None)
        else:
            self.pointed.emit((*pixel, self.document.pick(*pixel)))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if self._pen_down:
            return
        if self.document is None:
            if event.button() == Qt.MouseButton.LeftButton:
                self.open_requested.emit()
            return
        if event.button() in _PAINTING:
            spot = self._spot(event, 1.0, event.button() == Qt.MouseButton.RightButton)
            self._pointer = spot.at
            self._press(
                spot, event.button(), bool(event.modifiers() & Qt.KeyboardModifier.AltModifier)
            )

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if not self._pen_down:
            self._move(self._spot(event, 1.0, False))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if not self._pen_down and not event.buttons():
            self._release(self._spot(event, 1.0, False))

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Closes a lasso; for other tools it is a second press."""
        lasso = self._tools["lasso"]
        if lasso.busy and self._active is None:
            lasso.finish()
        else:
            self.mousePressEvent(event)

    def tabletEvent(self, event: QTabletEvent) -> None:
        """A pen: pressure narrows the brush, the other end erases. Mouse events are not wanted."""
        event.accept()
        erase = event.pointerType() == QPointingDevice.PointerType.Eraser
        kind = event.type()
        if kind == QEvent.Type.TabletPress:
            if self.document is not None and self._active is None:
                self.setFocus(Qt.FocusReason.MouseFocusReason)
                erase = erase or event.button() == Qt.MouseButton.RightButton
                self._pen_down, self._pen_erases = True, erase
                spot = self._spot(event, _pressure(event), erase)
                self._pointer = spot.at
                self._press(
                    spot, event.button(), bool(event.modifiers() & Qt.KeyboardModifier.AltModifier)
                )
        elif kind == QEvent.Type.TabletMove:
            self._pen_erases = self._pen_erases if self._pen_down else erase
            self._move(self._spot(event, _pressure(event), erase))
        elif kind == QEvent.Type.TabletRelease and self._pen_down:
            self._pen_down = False
            self._release(self._spot(event, _pressure(event), erase))

    def wheelEvent(self, event: QWheelEvent) -> None:
        turned = event.angleDelta().y()
        if turned:
            self.zoom_by(_NOTCH ** (turned / 120), event.position())
        event.accept()

    def leaveEvent(self, event: QEvent) -> None:
        self._pointer = None
        self._move_ring()
        self.pointed.emit(None)

    # ---- keys ---------------------------------------------------------------------------------

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QNativeGestureEvent):
            if event.gestureType() == Qt.NativeGestureType.ZoomNativeGesture:
                self.zoom_by(1.0 + event.value(), event.position())
                return True
        elif isinstance(event, QHelpEvent) and self.document is not None:
            # The explanation must not cover the picture somebody is painting on.
            event.ignore()
            return True
        elif isinstance(event, QKeyEvent) and self._keyboard.holds(event):
            event.accept()
            return True
        elif event.type() == QEvent.Type.DevicePixelRatioChange:
            self._arrange()
        return super().event(event)

    def _command(self, event: QKeyEvent) -> Callable[[], object] | None:
        return self._keyboard.command(event)

    def stamp(self, x: float, y: float) -> None:
        """One touch of the brush."""
        if self.camera is not None:
            spot = Spot(x, y, self.camera.to_device(x, y))
            self._tools[self.tool].press(spot)
            self._tools[self.tool].release(spot)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        self._keyboard.let_go()
        super().focusOutEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        self.update()
        super().focusInEvent(event)

    # ---- drop and paste -----------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if _offers(event.mimeData()):
            self._hot = True
            self.update()
            event.acceptProposedAction()

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self._hot = False
        self.update()

    def dropEvent(self, event: QDropEvent) -> None:
        self._hot = False
        self.update()
        if self._take(event.mimeData()):
            event.acceptProposedAction()

    def paste(self) -> None:
        """Take a picture, or files, from the clipboard."""
        if not self._take(QApplication.clipboard().mimeData()):
            self.notice(self.tr("There is no picture in the clipboard."))

    def _take(self, data: QMimeData) -> bool:
        paths = _paths(data)
        if paths:
            self.dropped.emit(paths)
            return True
        image = data.imageData() if data.hasImage() else None
        if not isinstance(image, QImage) or image.isNull():
            return False
        self.pasted.emit(_rgba(image))
        return True

    # ---- painting -----------------------------------------------------------------------------

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self._scene.spoil()
            self.update()
        super().changeEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        if self.document is None or self.camera is None:
            self._paint_empty(painter)
        else:
            self._scene.compose()
            ratio = self.ratio
            painter.save()
            painter.scale(1 / ratio, 1 / ratio)
            exposed = event.rect()
            device = QRectF(
                exposed.x() * ratio,
                exposed.y() * ratio,
                exposed.width() * ratio,
                exposed.height() * ratio,
            ).toAlignedRect()
            painter.drawPixmap(device.topLeft(), self._scene.shown, device)
            self._paint_marks(painter, self.document, self.camera)
            painter.restore()
            self._paint_plates(painter)
            if not self._refining.isActive() and self._scene.coarse:
                self._refining.start()
        if self.hasFocus():
            inner = QRectF(self.rect()).adjusted(2, 2, -2, -2)
            drawing.frame(painter, inner, theme.colours().accent, 1.5, -1.5, 4)
        painter.end()

    def _paint_empty(self, painter: QPainter) -> None:
        painter.fillRect(self.rect(), QColor(theme.colours().stage))
        cursor.drop_zone(painter, QRectF(self.rect()).adjusted(20, 20, -20, -20), self._hot)
        drawing.empty_state(
            painter, self.rect(), self.font(), *self._invitation(), illustrated=True
        )

    def _invitation(self) -> tuple[str, str]:
        return (
            self.tr("Open, paste or drop a picture"),
            self.tr(
                "Then paint over what should become something else. The model fills in the rest, "
                "and every other pixel stays as it is."
            ),
        )

    def _paint_marks(self, painter: QPainter, document: Document, camera: Camera) -> None:
        """What lies over the picture, in device pixels."""
        ratio = self.ratio
        if not self._scene.original:
            self._paint_box(painter, document, camera)
            rect, share = self._scene.result_rect, self._scene.wipe
            if rect is not None and share is not None:
                where = camera.exactly(rect)
                x = where.left() + share * where.width()
                cursor.divider(painter, x, where.top(), where.bottom(), ratio)
        self._tools[self.tool].paint(painter, ratio)
        self._ring = self._ring_at()
        if not self._ring.isEmpty():
            self._paint_ring(painter, camera)
        if self._hot:
            painter.fillRect(QRect(0, 0, *camera.view), QColor(0, 0, 0, 60))

    def _paint_box(self, painter: QPainter, document: Document, camera: Camera) -> None:
        tool, chosen = self._tools["box"], self.tool == "box"
        wish = tool.wish if isinstance(tool, tools.BoxTool) else None
        rect = wish or document.box
        if rect == (0, 0, *document.size) and not chosen:
            return
        where = camera.exactly(rect)
        cursor.dim(painter, where, camera.shown(), 0.5 if chosen else 0.28)
        cursor.box(painter, where, chosen, self.ratio)

    def _brush_centre(self) -> QPointF | None:
        """Where the brush is shown, in device pixels."""
        if self.camera is None or self._keyboard.space:
            return None
        if self._adjust.centre is not None:
            return self._adjust.centre
        if self._active is self._drag or not isinstance(self._tools[self.tool], tools.BrushTool):
            return None
        at = self._keyboard.at
        return self._pointer if at is None else self.camera.to_device(*at)

    def _ring_at(self) -> QRect:
        centre = self._brush_centre()
        if centre is None:
            return QRect()
        return cursor.brush_extent(centre, self.brush.radius * self.zoom, self.ratio)

    def _move_ring(self) -> None:
        """Draw again where the brush was, and where it is."""
        for device in (self._ring, self._ring_at()):
            if not device.isEmpty():
                self.update(self._logical(device))

    def _paint_ring(self, painter: QPainter, camera: Camera) -> None:
        centre = self._brush_centre()
        assert centre is not None
        erase = self.tool == "eraser" or self._pen_erases
        radius = self.brush.radius * camera.scale
        cursor.brush(painter, centre, radius, self.brush.hardness, erase, self.ratio)
        if self._keyboard.at is not None:
            cursor.crosshair(painter, centre, self.ratio)

    def _paint_plates(self, painter: QPainter) -> None:
        inside = QRectF(self.rect()).adjusted(8, 8, -8, -8)
        small = theme.font(self.font(), 0.92)
        if self._busy:
            corner = QPointF(inside.left(), inside.bottom())
            drawing.plate(painter, small, self._busy, corner, inside)
        if self._said:
            above = QPointF(inside.center().x(), inside.bottom() - (30 if self._busy else 0))
            drawing.plate(painter, small, self._said, above, inside)

    def show_cursor(self) -> None:
        """The cursor that fits the tool, or the key that is held."""
        if self.document is None:
            self.setCursor(Qt.CursorShape.PointingHandCursor)
        elif self._keyboard.space:
            self.setCursor(Qt.CursorShape.OpenHandCursor)
        else:
            self.setCursor(self._tools[self.tool].shape)

    # ---- for those who listen -----------------------------------------------------------------

    def _speak_soon(self) -> None:
        if not self._speech.isActive():
            self._speech.start()

    def _speak(self) -> None:
        """Tell screen readers what is shown; at most a few times a second."""
        document = self.document
        if document is None:
            name, description = self._invitation()
            self.setAccessibleName(name)
            self.setAccessibleDescription(description)
            return
        picture = self.tr("Canvas: {0}, {1} by {2} pixels")
        name = picture.format(document.name, *document.size)
        self.setAccessibleName(", ".join(part for part in (name, self._busy) if part))
        told = self.tr("{0} on the {1}, zoom {2} %, brush {3} pixels, strength {4} %")
        self.setAccessibleDescription(
            told.format(
                self._tool_name(),
                self.tr("mask") if self.layer == "mask" else self.tr("sketch"),
                round(100 * self.zoom),
                f"{2 * self.brush.radius:.0f}",
                round(100 * self.brush.strength),
            )
        )

    def _tool_name(self) -> str:
        names = {
            "brush": self.tr("Brush"),
            "eraser": self.tr("Eraser"),
            "lasso": self.tr("Lasso"),
            "rect": self.tr("Rectangle"),
            "fill": self.tr("Fill"),
            "pick": self.tr("Eyedropper"),
            "box": self.tr("Box"),
            "pan": self.tr("Pan"),
            "wipe": self.tr("Wipe"),
        }
        return names[self.tool]


def _pressure(event: QTabletEvent) -> float:
    """Of 0 to 1; 1 for pens that cannot feel it."""
    feels = event.pointingDevice().hasCapability(QInputDevice.Capability.Pressure)
    return min(max(event.pressure(), 0.0), 1.0) if feels else 1.0


def _paths(data: QMimeData) -> list[Path]:
    return [Path(url.toLocalFile()) for url in data.urls() if url.isLocalFile()]


def _offers(data: QMimeData) -> bool:
    return data.hasImage() or bool(_paths(data))


def _rgba(image: QImage) -> np.ndarray:
    """The pixels of an image, uint8 (h, w, 4) with straight alpha, in memory of their own."""
    made = image.convertToFormat(QImage.Format.Format_RGBA8888)
    return np.frombuffer(made.constBits(), np.uint8).reshape(made.height(), made.width(), 4).copy()
