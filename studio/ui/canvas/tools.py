"""What the tools of the canvas do with a pointer, be it mouse, pen or keyboard.

A tool gets `press`, `move`, `release` with a Spot, and says through the canvas what it did. Points
are picture pixels (x to the right, y down); `at` is in device pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PySide6.QtCore import QPointF, Qt
from PySide6.QtGui import QPainter

from studio.ui.canvas import cursor
from studio.ui.canvas.brush import Brush
from studio.ui.canvas.camera import Rect

if TYPE_CHECKING:
    from studio.ui.canvas.document import Stroke
    from studio.ui.canvas.view import CanvasView

LEAST_RADIUS, MOST_RADIUS = 0.5, 2048.0
LEAST_BOX = 8
#: Logical pixels: what is moved less is a click, and what is nearer to an edge snaps to it.
_CLICK = 4.0
_SNAP = 8.0


@dataclass(frozen=True)
class Spot:
    """Where a pointer is and how it is held. Pressure is 0 to 1; without a pen it is 1."""

    x: float
    y: float
    at: QPointF
    pressure: float = 1.0
    erase: bool = False
    shift: bool = False
    control: bool = False


class Tool:
    """One tool. `busy` while a mark is being made, which `cancel` takes back."""

    shape = Qt.CursorShape.CrossCursor

    def __init__(self, canvas: CanvasView) -> None:
        self.canvas = canvas

    @property
    def busy(self) -> bool:
        return False

    def press(self, spot: Spot) -> None:
        """The pointer went down."""

    def move(self, spot: Spot) -> None:
        """It moved while down."""

    def release(self, spot: Spot) -> None:
        """It was lifted."""

    def hover(self, spot: Spot) -> None:
        """It moved while up."""

    def finish(self) -> None:
        """End a mark made of several clicks."""

    def cancel(self) -> None:
        """Leave no mark."""

    def paint(self, painter: QPainter, ratio: float) -> None:
        """What is being made, over the picture, in device pixels."""


class BrushTool(Tool):
    """Paints, or erases. With Shift, a straight line from where the last stroke ended."""

    shape = Qt.CursorShape.BlankCursor

    def __init__(self, canvas: CanvasView, erase: bool = False) -> None:
        super().__init__(canvas)
        self.erase = erase
        self._stroke: Stroke | None = None
        self._layer = ""
        self._felt = False
        self._end: tuple[float, float] | None = None

    @property
    def busy(self) -> bool:
        return self._stroke is not None

    def forget(self) -> None:
        """There is no last stroke: another document is shown."""
        self._end = None

    def press(self, spot: Spot) -> None:
        document = self.canvas.document
        if document is None or self._stroke is not None:
            return
        brush = replace(self.canvas.brush, erase=self.erase or spot.erase)
        self._layer = self.canvas.layer
        self.canvas.stroke_began.emit()
        self._stroke = document.stroke(self._layer, brush)
        self._felt = spot.pressure > 0
        pressure = spot.pressure or 1.0
        if spot.shift and self._end is not None:
            self._stroke.to(*self._end, pressure)
        self._stroke.to(spot.x, spot.y, pressure)
        self._end = (spot.x, spot.y)

    def move(self, spot: Spot) -> None:
        if self._stroke is None:
            return
        if spot.pressure > 0:
            self._felt = True
        elif self._felt:
            # A pen that is being lifted: full pressure would end the stroke in a blot.
            return
        self._stroke.to(spot.x, spot.y, spot.pressure or 1.0)
        self._end = (spot.x, spot.y)

    def release(self, spot: Spot) -> None:
        if self._stroke is not None:
            stroke, self._stroke = self._stroke, None
            stroke.end()
            self.canvas.edited.emit(self._layer)

    def cancel(self) -> None:
        if self._stroke is not None:
            stroke, self._stroke = self._stroke, None
            stroke.cancel()
            self._end = None


class LassoTool(Tool):
    """Fills an outline: dragged freely, or clicked corner by corner. Ctrl takes away."""

    def __init__(self, canvas: CanvasView) -> None:
        super().__init__(canvas)
        self._points: list[tuple[float, float]] = []
        self._pressed: QPointF | None = None
        self._free = False
        self._erase = False
        self._tip: tuple[float, float] | None = None

    @property
    def busy(self) -> bool:
        return bool(self._points)

    def press(self, spot: Spot) -> None:
        if not self._points:
            self._erase = spot.erase or spot.control
        elif len(self._points) > 2 and self._near(spot, self._points[0]):
            self.finish()
            return
        self._pressed, self._free = spot.at, False
        self._points.append((spot.x, spot.y))

    def move(self, spot: Spot) -> None:
        if self._pressed is None:
            return
        if not self._free and _apart(spot.at, self._pressed) < _CLICK * self.canvas.ratio:
            return
        self._free = True
        self._points.append((spot.x, spot.y))
        self.canvas.update()

    def release(self, spot: Spot) -> None:
        self._pressed = None
        if self._free:
            self.finish()
        self.canvas.update()

    def hover(self, spot: Spot) -> None:
        if self._points:
            self._tip = (spot.x, spot.y)
            self.canvas.update()

    def finish(self) -> None:
        points, self._points, self._tip = self._points, [], None
        self._pressed, self._free = None, False
        canvas = self.canvas
        if len(set(points)) >= 3 and canvas.document is not None:
            brush = replace(canvas.brush, erase=self._erase)
            canvas.document.fill_polygon(canvas.layer, points, brush)
            canvas.edited.emit(canvas.layer)
        canvas.update()

    def cancel(self) -> None:
        self._points, self._tip, self._pressed, self._free = [], None, None, False
        self.canvas.update()

    def paint(self, painter: QPainter, ratio: float) -> None:
        camera = self.canvas.camera
        if camera is None or not self._points:
            return
        corners = self._points + ([self._tip] if self._tip and not self._free else [])
        points = [camera.to_device(x, y) for x, y in corners]
        cursor.polygon(painter, points, self._free, ratio)

    def _near(self, spot: Spot, point: tuple[float, float]) -> bool:
        camera = self.canvas.camera
        reach = 2 * _CLICK * self.canvas.ratio
        return camera is not None and _apart(camera.to_device(*point), spot.at) < reach


class RectTool(Tool):
    """Fills a rectangle; Shift makes it a square, Ctrl takes away."""

    def __init__(self, canvas: CanvasView) -> None:
        super().__init__(canvas)
        self._from: tuple[float, float] | None = None
        self._rect: Rect | None = None
        self._erase = False

    @property
    def busy(self) -> bool:
        return self._from is not None

    def press(self, spot: Spot) -> None:
        self._from, self._rect = (spot.x, spot.y), None
        self._erase = spot.erase or spot.control

    def move(self, spot: Spot) -> None:
        document = self.canvas.document
        if self._from is None or document is None:
            return
        x, y = spot.x, spot.y
        if spot.shift:
            side = max(abs(x - self._from[0]), abs(y - self._from[1]))
            x = self._from[0] + math.copysign(side, x - self._from[0])
            y = self._from[1] + math.copysign(side, y - self._from[1])
        self._rect = _clipped(self._from, (x, y), document.size)
        self.canvas.update()

    def release(self, spot: Spot) -> None:
        rect, self._from, self._rect = self._rect, None, None
        canvas = self.canvas
        if rect is not None and rect[2] > 0 and rect[3] > 0 and canvas.document is not None:
            brush = replace(canvas.brush, erase=self._erase)
            canvas.document.fill_rect(canvas.layer, rect, brush)
            canvas.edited.emit(canvas.layer)
        canvas.update()

    def cancel(self) -> None:
        self._from = self._rect = None
        self.canvas.update()

    def paint(self, painter: QPainter, ratio: float) -> None:
        if self._rect is not None and self.canvas.camera is not None:
            cursor.rectangle(painter, self.canvas.camera.exactly(self._rect), ratio)


class FillTool(Tool):
    """Fills what looks alike around a click."""

    def press(self, spot: Spot) -> None:
        canvas, pixel = self.canvas, self.canvas.pixel_at(spot)
        if canvas.document is None or pixel is None:
            return
        brush = replace(canvas.brush, erase=spot.erase or spot.control)
        canvas.document.flood(canvas.layer, *pixel, brush)
        canvas.edited.emit(canvas.layer)


class PickTool(Tool):
    """Takes the brush's colour from the picture."""

    def press(self, spot: Spot) -> None:
        canvas, pixel = self.canvas, self.canvas.pixel_at(spot)
        if canvas.document is not None and pixel is not None:
            colour = canvas.document.pick(*pixel)
            canvas.set_brush(replace(canvas.brush, colour=colour))

    def move(self, spot: Spot) -> None:
        self.press(spot)


class BoxTool(Tool):
    """Moves the box from inside, resizes it at its handles, draws another from outside.

    It stays square unless Shift is held, and snaps to the edges of the picture. It is set when the
    pointer is lifted, so that a move is one step to undo.
    """

    def __init__(self, canvas: CanvasView) -> None:
        super().__init__(canvas)
        self.wish: Rect | None = None
        self._start: Rect = (0, 0, 0, 0)
        self._from: Spot | None = None
        self._handle: tuple[int, int] | None = None
        self._moving = False

    @property
    def busy(self) -> bool:
        return self._from is not None

    def press(self, spot: Spot) -> None:
        document = self.canvas.document
        if document is None:
            return
        self._from, self._start, self.wish = spot, document.box, None
        self._handle, self._moving = self._what(spot)

    def move(self, spot: Spot) -> None:
        document, began = self.canvas.document, self._from
        if document is None or began is None:
            return
        if self.wish is None and _apart(spot.at, began.at) < _CLICK * self.canvas.ratio:
            return
        size, reach = document.size, self._reach()
        if self._moving:
            self.wish = moved_box(self._start, spot.x - began.x, spot.y - began.y, size, reach)
        elif self._handle is not None:
            grip = (spot.x, spot.y)
            self.wish = resized_box(self._start, self._handle, grip, size, reach, not spot.shift)
        else:
            start = (round(began.x), round(began.y), 0, 0)
            corner = (2 if spot.x >= began.x else 0, 2 if spot.y >= began.y else 0)
            grip = (spot.x, spot.y)
            self.wish = resized_box(start, corner, grip, size, reach, not spot.shift)
        self.canvas.update()

    def release(self, spot: Spot) -> None:
        wish, self.wish, self._from = self.wish, None, None
        document = self.canvas.document
        if wish is not None and document is not None and wish != document.box:
            document.set_box(wish)
            self.canvas.edited.emit("box")
        self.canvas.update()

    def cancel(self) -> None:
        self.wish = self._from = None
        self.canvas.update()

    def hover(self, spot: Spot) -> None:
        handle, inside = self._what(spot)
        shapes = {
            (0, 0): Qt.CursorShape.SizeFDiagCursor,
            (2, 2): Qt.CursorShape.SizeFDiagCursor,
            (2, 0): Qt.CursorShape.SizeBDiagCursor,
            (0, 2): Qt.CursorShape.SizeBDiagCursor,
            (1, 0): Qt.CursorShape.SizeVerCursor,
            (1, 2): Qt.CursorShape.SizeVerCursor,
            (0, 1): Qt.CursorShape.SizeHorCursor,
            (2, 1): Qt.CursorShape.SizeHorCursor,
        }
        inner = Qt.CursorShape.SizeAllCursor if inside else Qt.CursorShape.CrossCursor
        self.canvas.setCursor(inner if handle is None else shapes[handle])

    def _reach(self) -> float:
        """How near an edge snaps, in picture pixels."""
        return _SNAP * self.canvas.ratio / (self.canvas.camera.scale if self.canvas.camera else 1)

    def _what(self, spot: Spot) -> tuple[tuple[int, int] | None, bool]:
        """The handle under a spot, and whether it is inside the box."""
        document, camera = self.canvas.document, self.canvas.camera
        if document is None or camera is None:
            return None, False
        where = camera.exactly(document.box)
        reach = cursor.REACH * self.canvas.ratio
        for handle, place in zip(cursor.HANDLES, cursor.handle_spots(where)):
            if _apart(place, spot.at) <= reach:
                return handle, False
        return None, where.contains(spot.at)


class PanTool(Tool):
    """Moves the view."""

    shape = Qt.CursorShape.OpenHandCursor

    def __init__(self, canvas: CanvasView) -> None:
        super().__init__(canvas)
        self._at: QPointF | None = None

    @property
    def busy(self) -> bool:
        return self._at is not None

    def press(self, spot: Spot) -> None:
        self._at = spot.at
        self.canvas.setCursor(Qt.CursorShape.ClosedHandCursor)

    def move(self, spot: Spot) -> None:
        if self._at is not None:
            dx, dy = round(spot.at.x() - self._at.x()), round(spot.at.y() - self._at.y())
            self._at += QPointF(dx, dy)
            self.canvas.pan(dx, dy)

    def release(self, spot: Spot) -> None:
        self._at = None

    def cancel(self) -> None:
        self._at = None


class WipeTool(Tool):
    """Moves the line between photo and candidate."""

    shape = Qt.CursorShape.SplitHCursor

    def press(self, spot: Spot) -> None:
        rect = self.canvas.result_rect
        if rect is not None:
            self.canvas.set_wipe(min(max((spot.x - rect[0]) / rect[2], 0.0), 1.0))

    def move(self, spot: Spot) -> None:
        self.press(spot)


class AdjustTool(Tool):
    """Alt-drag: to the right a larger brush, upwards a harder one."""

    shape = Qt.CursorShape.BlankCursor

    def __init__(self, canvas: CanvasView) -> None:
        super().__init__(canvas)
        self.centre: QPointF | None = None
        self._from = Brush()

    @property
    def busy(self) -> bool:
        return self.centre is not None

    def press(self, spot: Spot) -> None:
        self.centre, self._from = spot.at, self.canvas.brush

    def move(self, spot: Spot) -> None:
        camera = self.canvas.camera
        if self.centre is None or camera is None:
            return
        offset = (spot.at - self.centre) / self.canvas.ratio
        # The edge of the brush follows the pointer at any zoom.
        radius = self._from.radius + offset.x() * self.canvas.ratio / camera.scale
        hardness = self._from.hardness - offset.y() / 200
        self.canvas.set_brush(
            replace(self._from, radius=held_radius(radius), hardness=min(max(hardness, 0.0), 1.0))
        )

    def release(self, spot: Spot) -> None:
        self.centre = None
        self.canvas.update()

    def cancel(self) -> None:
        if self.centre is not None:
            self.centre = None
            self.canvas.set_brush(self._from)


def held_radius(radius: float) -> float:
    return min(max(radius, LEAST_RADIUS), MOST_RADIUS)


def moved_box(box: Rect, dx: float, dy: float, size: tuple[int, int], snap: float) -> Rect:
    """A box moved within a picture (w, h); nearer than `snap` it goes to the edge."""
    places = []
    for start, delta, side, room in zip(box[:2], (dx, dy), box[2:], size):
        place = round(start + delta)
        if abs(place) < snap:
            place = 0
        elif abs(place + side - room) < snap:
            place = room - side
        places.append(min(max(place, 0), max(0, room - side)))
    return places[0], places[1], box[2], box[3]


def resized_box(
    box: Rect,
    handle: tuple[int, int],
    grip: tuple[float, float],
    size: tuple[int, int],
    snap: float,
    square: bool,
) -> Rect:
    """A box whose handle (see HANDLES) was taken to a point; what is opposite stays.

    A side handle of a square changes the other direction about its middle.
    """
    sides, anchors, rooms = [], [], []
    for start, side, place, point, room in zip(box[:2], box[2:], handle, grip, size):
        point = 0 if point < snap else room if room - point < snap else point
        anchor = {0: start + side, 1: start + side / 2, 2: start}[place]
        anchors.append(anchor)
        sides.append({0: anchor - point, 1: float(side), 2: point - anchor}[place])
        rooms.append({0: anchor, 1: 2 * min(anchor, room - anchor), 2: room - anchor}[place])
    if square:
        driven = [s for s, place in zip(sides, handle) if place != 1]
        side = min(max(driven), *rooms)
        sides = [side, side]
    made = []
    for anchor, side, place, whole in zip(anchors, sides, handle, size):
        length = min(max(round(side), LEAST_BOX), whole)
        start = {0: anchor - length, 1: anchor - length / 2, 2: anchor}[place]
        made.append((min(max(round(start), 0), whole - length), length))
    return made[0][0], made[1][0], made[0][1], made[1][1]


def _clipped(a: tuple[float, float], b: tuple[float, float], size: tuple[int, int]) -> Rect:
    """The whole pixels between two points, within a picture (w, h)."""
    sides = []
    for start, end, room in zip(a, b, size):
        low, high = sorted((start, end))
        first, last = max(0, math.floor(low)), min(room, math.ceil(high))
        sides.append((first, last - first))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _apart(a: QPointF, b: QPointF) -> float:
    return math.hypot(a.x() - b.x(), a.y() - b.y())
