"""What lies on the canvas, from the photo up to the mask, composed for the view at its own pixels.

Two pixmaps the size of the view are kept: the ground (photo, sketch, candidate, doubt), and on it
what is shown (with the mask). A stroke composes anew only where it went, panning moves what is there
and composes the strips that come into view. No overlay of the picture's size exists: tint and
hatching are made from the mask's bytes for the part that is looked at.

Rectangles named `device` are QRects in the screen's pixels; (x, y, w, h) are picture pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from PySide6.QtCore import QPoint, QRect, QRectF, QSize
from PySide6.QtGui import QColor, QImage, QPainter, QPixmap, QRegion

from studio.ui import theme
from studio.ui.canvas.camera import Camera, Rect
from studio.ui.canvas.pyramid import Pyramid

if TYPE_CHECKING:
    from studio.ui.canvas.document import Document

#: So many pixels are averaged before a paint; more are sampled, and averaged between paints.
_AT_ONCE = 3_000_000
#: Mask values up to this lie outside the outline.
_FAINT = 6
_TINT = (104, 84, 236)
_Mode = QPainter.CompositionMode


@dataclass(frozen=True)
class Sheet:
    """An array that lies over a rectangle of the picture."""

    pyramid: Pyramid
    rect: Rect

    def draw(self, painter: QPainter, camera: Camera, device: QRect) -> None:
        """Draw the part within `device`, which the caller clips to."""
        found = self._part(camera, device)
        if found is None:
            return
        level, target, part = found
        if self.pyramid.stale(level, part) > _AT_ONCE:
            self.pyramid.sample(level, part)
        else:
            self.pyramid.refresh(level, part)
        # A candidate of another size is smoothed at any zoom, as it will be when it is accepted.
        own = self.pyramid.size == self.rect[2:]
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, not (own and camera.crisp))
        painter.drawImage(target, self.pyramid.image(level), QRectF(*part))

    def refine(self, camera: Camera, device: QRect, seconds: float) -> QRect | None:
        """Average some of what was only sampled; the device pixels that are better now, if any."""
        found = self._part(camera, device)
        done = None if found is None else self.pyramid.refine(found[0], found[2], seconds)
        if found is None or done is None:
            return None
        left, top, across, down = self._grid(camera, found[0])
        x, y, w, h = done
        return QRectF(left + x * across, top + y * down, w * across, h * down).toAlignedRect()

    def is_coarse(self, camera: Camera, device: QRect) -> bool:
        found = self._part(camera, device)
        return found is not None and self.pyramid.stale(found[0], found[2]) > 0

    def _scales(self, camera: Camera) -> tuple[float, float]:
        width, height = self.pyramid.size
        return camera.scale * self.rect[2] / width, camera.scale * self.rect[3] / height

    def _grid(self, camera: Camera, level: int) -> tuple[float, float, float, float]:
        """Left, top, width and height in device pixels of a level's first pixel."""
        across, down = self._scales(camera)
        corner = camera.to_device(self.rect[0], self.rect[1])
        return corner.x(), corner.y(), across * 2**level, down * 2**level

    def _part(self, camera: Camera, device: QRect) -> tuple[int, QRectF, Rect] | None:
        """The level to look at, where to draw, and which part of it."""
        level = self.pyramid.level_for(min(self._scales(camera)))
        left, top, across, down = self._grid(camera, level)
        image = self.pyramid.image(level)
        # Two pixels more than is seen: smoothing must not know where the part ends.
        x0 = max(0, math.floor((device.left() - left) / across) - 2)
        y0 = max(0, math.floor((device.top() - top) / down) - 2)
        x1 = min(image.width(), math.ceil((device.right() + 1 - left) / across) + 2)
        y1 = min(image.height(), math.ceil((device.bottom() + 1 - top) / down) + 2)
        if x1 <= x0 or y1 <= y0:
            return None
        w, h = x1 - x0, y1 - y0
        target = QRectF(left + x0 * across, top + y0 * down, w * across, h * down)
        return level, target, (x0, y0, w, h)


class Scene:
    """The layers of a document and the candidate over it, as one pixmap of the view.

    Set what lies there, `look` from a camera, then `compose` before drawing `shown`.
    """

    def __init__(self) -> None:
        self.shown = QPixmap()
        self.ratio = 1.0
        self._ground = QPixmap()
        self._camera: Camera | None = None
        self._document: Document | None = None
        self._layers: dict[str, Sheet] = {}
        self._marked: dict[str, QRect] = {}
        self._alpha: np.ndarray | None = None
        self._result: Sheet | None = None
        self._heat: Sheet | None = None
        self._wipe: float | None = None
        self._original = False
        self._judging = False
        self._sketching = False
        self._old_ground = QRegion()
        self._old_shown = QRegion()

    # ---- what lies there ----------------------------------------------------------------------

    def set_document(self, document: Document | None) -> None:
        self._document, self._layers, self._marked = document, {}, {}
        self._result = self._heat = self._wipe = None
        if document is not None:
            for layer in ("photo", "mask", "sketch"):
                self._lay(layer)
        self.spoil()

    def _lay(self, layer: str) -> None:
        """Take a layer's array as it is now."""
        document = self._document
        assert document is not None
        whole = (0, 0, *document.size)
        if layer == "photo":
            self._layers[layer] = Sheet(Pyramid(self._photo(document)), whole)
            return
        bounds = document.bounds(layer)
        pixels = document.mask if layer == "mask" else document.sketch
        self._layers[layer] = Sheet(Pyramid(pixels, blank=bounds is None), whole)
        self._marked[layer] = QRect() if bounds is None else QRect(*bounds)

    def _photo(self, document: Document) -> np.ndarray:
        """The photo's own array; with transparency a copy that has it."""
        self._alpha = document.alpha
        if self._alpha is None:
            return document.photo
        return np.dstack([document.photo, self._alpha])

    def changed(self, layer: str, rect: Rect) -> QRect:
        """A layer of the document changed within a rectangle; the device pixels that show it."""
        document, camera = self._document, self._camera
        if document is None or layer not in self._layers:
            return QRect()
        sheet = self._layers[layer]
        array = {"photo": document.photo, "mask": document.mask, "sketch": document.sketch}[layer]
        if layer == "photo" and self._alpha is not None:
            x, y, w, h = rect
            sheet.pyramid.pixels[y : y + h, x : x + w, :3] = array[y : y + h, x : x + w]
        elif array.ctypes.data != sheet.pyramid.pixels.ctypes.data:
            self._lay(layer)
        sheet = self._layers[layer]
        sheet.pyramid.touch(rect)
        if layer in self._marked:
            self._marked[layer] = self._marked[layer] | QRect(*rect)
        if camera is None:
            return QRect()
        # One more for the outline, which runs beside the mask.
        device = camera.around(rect).adjusted(-2, -2, 2, 2) & self._view()
        self._old_shown += device
        if layer != "mask":
            self._old_ground += device
        return device

    def set_result(self, pixels: np.ndarray | None, rect: Rect) -> QRect:
        """Returns the device pixels to draw again: thirty times a second it must not be all of them."""
        before, self._result = self._result, _sheet(pixels, rect)
        if self._camera is None:
            return QRect()
        device = QRect()
        for sheet in (before, self._result):
            if sheet is not None:
                device = device.united(self._camera.around(sheet.rect).adjusted(-2, -2, 2, 2))
        device &= self._view()
        self._old_ground += device
        self._old_shown += device
        return device

    def set_heat(self, values: np.ndarray | None, rect: Rect) -> None:
        self._heat = _sheet(None if values is None else _heat_table()[values], rect)
        self.spoil()

    def set_wipe(self, share: float | None) -> None:
        self._wipe = share
        self.spoil()

    def set_original(self, on: bool) -> None:
        if on != self._original:
            self._original = on
            self.spoil()

    def set_judging(self, on: bool) -> None:
        """Whether a mask over a candidate is an outline only, which hides nothing."""
        if on != self._judging:
            self._judging = on
            self._old_shown += self._view()

    def set_sketching(self, on: bool) -> None:
        """Whether colours lie over a candidate: it would else hide the stroke that is being made."""
        if on != self._sketching:
            self._sketching = on
            if self._result is not None:
                self.spoil()

    @property
    def result_rect(self) -> Rect | None:
        return None if self._result is None else self._result.rect

    @property
    def wipe(self) -> float | None:
        return self._wipe

    @property
    def original(self) -> bool:
        return self._original

    # ---- looking ------------------------------------------------------------------------------

    def _view(self) -> QRect:
        return self._ground.rect()

    def spoil(self) -> None:
        """Everything has to be composed anew."""
        self._old_ground = QRegion(self._view())
        self._old_shown = QRegion(self._view())

    def look(self, camera: Camera | None) -> None:
        """From now on show what this camera sees."""
        before, self._camera = self._camera, camera
        if camera is None or camera == before:
            return
        if self._ground.size() != QSize(*camera.view):
            self._ground, self.shown = QPixmap(*camera.view), QPixmap(*camera.view)
        elif before is not None and before.scale == camera.scale and before.view == camera.view:
            dx, dy = (b - a for a, b in zip(before.origin, camera.origin))
            if abs(dx) < camera.view[0] and abs(dy) < camera.view[1]:
                self._scroll(dx, dy)
                return
        self.spoil()

    def _scroll(self, dx: int, dy: int) -> None:
        view = self._view()
        for pixmap in (self._ground, self.shown):
            pixmap.scroll(dx, dy, view)
        fresh = QRegion(view) - QRegion(view.translated(dx, dy))
        self._old_ground = (self._old_ground.translated(dx, dy) & view) + fresh
        self._old_shown = (self._old_shown.translated(dx, dy) & view) + fresh

    @property
    def coarse(self) -> bool:
        """Whether something shown was only sampled, which `refine` makes good."""
        camera = self._camera
        return camera is not None and any(s.is_coarse(camera, self._view()) for s in self._sheets())

    def refine(self, seconds: float) -> QRect | None:
        """Average some of what was only sampled; the device pixels to draw again, None at the end."""
        if self._camera is None:
            return None
        for sheet in self._sheets():
            better = sheet.refine(self._camera, self._view(), seconds)
            if better is not None:
                better = better.adjusted(-2, -2, 2, 2) & self._view()
                self._old_ground += better
                self._old_shown += better
                return better
        return None

    def _sheets(self) -> list[Sheet]:
        laid = [s for name, s in self._layers.items() if not self._marked.get(name, _ANY).isEmpty()]
        return laid + [sheet for sheet in (self._result, self._heat) if sheet is not None]

    # ---- composing ----------------------------------------------------------------------------

    def compose(self) -> None:
        """Bring `shown` up to date."""
        camera = self._camera
        if camera is None or not self._layers:
            return
        for device in _few(self._old_ground):
            self._compose_ground(camera, device)
        for device in _few(self._old_shown):
            painter = QPainter(self.shown)
            painter.drawPixmap(device.topLeft(), self._ground, device)
            self._mask(painter, camera, device & camera.shown())
            painter.end()
        self._old_ground = QRegion()
        self._old_shown = QRegion()

    def _compose_ground(self, camera: Camera, device: QRect) -> None:
        painter = QPainter(self._ground)
        painter.setClipRect(device)
        painter.fillRect(device, QColor(theme.colours().stage))
        shown = camera.shown()
        painter.fillRect(shown.adjusted(-1, -1, 1, 1), QColor(theme.colours().edge))
        seen = device & shown
        if seen.isEmpty():
            painter.end()
            return
        painter.setClipRect(seen)
        if self._alpha is not None:
            tile = _checkers(max(4, round(8 * self.ratio)), theme.is_dark())
            painter.drawTiledPixmap(seen, tile, _phase(seen, camera, tile))
        self._layers["photo"].draw(painter, camera, seen)
        if not self._original:
            self._above(painter, camera, seen)
        painter.end()

    def _above(self, painter: QPainter, camera: Camera, seen: QRect) -> None:
        """Sketch, candidate and doubt."""
        if not self._sketching:
            self._sketch(painter, camera, seen)
        for sheet in (self._result, self._heat):
            if sheet is None:
                continue
            box = camera.exactly(sheet.rect)
            if sheet is self._result and self._wipe is not None:
                box.setLeft(box.left() + self._wipe * box.width())
            part = box.toRect() & seen
            if not part.isEmpty():
                painter.setClipRect(part)
                sheet.draw(painter, camera, part)
        if self._sketching:
            self._sketch(painter, camera, seen)

    def _sketch(self, painter: QPainter, camera: Camera, seen: QRect) -> None:
        marked = camera.around(_rect(self._marked["sketch"])) & seen
        if not marked.isEmpty():
            painter.setClipRect(marked)
            self._layers["sketch"].draw(painter, camera, marked)

    def _mask(self, painter: QPainter, camera: Camera, seen: QRect) -> None:
        marked = camera.around(_rect(self._marked["mask"])).adjusted(-2, -2, 2, 2) & seen
        if marked.isEmpty() or self._original:
            return
        whole = marked.adjusted(-1, -1, 1, 1)
        cover = QImage(whole.size(), QImage.Format.Format_Alpha8)
        cover.fill(0)
        inner = QPainter(cover)
        inner.translate(-whole.topLeft())
        inner.setCompositionMode(_Mode.CompositionMode_Source)
        inner.setClipRect(whole & camera.shown())
        self._layers["mask"].draw(inner, camera, whole)
        inner.end()
        values = _bytes(cover)
        if not values.any():
            return
        made = QImage(whole.size(), QImage.Format.Format_ARGB32_Premultiplied)
        if self._judging and self._result is not None:
            made.fill(0)
        else:
            self._hatch(made, cover, whole, camera)
        _outline(made, values)
        painter.drawImage(marked.topLeft(), made, QRect(QPoint(1, 1), marked.size()))

    def _hatch(self, made: QImage, cover: QImage, whole: QRect, camera: Camera) -> None:
        """Fill with the pattern, the stronger the higher the mask."""
        tile = _pattern(max(6, round(9 * self.ratio)))
        painter = QPainter(made)
        painter.setCompositionMode(_Mode.CompositionMode_Source)
        painter.drawImage(0, 0, cover)
        # Twice over itself, 2 a - a²: faint masks are lifted, or nobody would see them.
        painter.setCompositionMode(_Mode.CompositionMode_SourceOver)
        painter.drawImage(0, 0, cover)
        painter.setCompositionMode(_Mode.CompositionMode_SourceIn)
        painter.drawTiledPixmap(made.rect(), tile, _phase(whole, camera, tile))
        painter.end()


_ANY = QRect(0, 0, 1, 1)


def _sheet(pixels: np.ndarray | None, rect: Rect) -> Sheet | None:
    if pixels is None or not pixels.size or rect[2] <= 0 or rect[3] <= 0:
        return None
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"a candidate is uint8 (h, w, 3), not {pixels.dtype} {pixels.shape}")
    return Sheet(Pyramid(np.array(pixels, order="C")), rect)


def _rect(box: QRect) -> Rect:
    return box.x(), box.y(), box.width(), box.height()


def _few(region: QRegion) -> list[QRect]:
    """The rectangles of a region; its bounds where they are many or cover little less."""
    # Its stubs do not know that a region is iterable.
    boxes = list(cast(Iterable[QRect], region))
    bounds = region.boundingRect()
    area = sum(box.width() * box.height() for box in boxes)
    if len(boxes) > 6 or (len(boxes) > 1 and area > 0.7 * bounds.width() * bounds.height()):
        return [bounds]
    return boxes


def _phase(device: QRect, camera: Camera, tile: QPixmap) -> QPoint:
    """Where in a tile a rectangle begins, so that patterns stay with the picture when it moves."""
    offset = device.topLeft() - QPoint(*camera.origin)
    return QPoint(offset.x() % tile.width(), offset.y() % tile.height())


def _bytes(image: QImage) -> np.ndarray:
    """The values of an Alpha8 image, sharing its memory."""
    lines = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return lines[:, : image.width()]


def _outline(made: QImage, values: np.ndarray) -> None:
    """A light line just inside of what may change, a dark one just outside: seen on any photo."""
    inside = values > _FAINT
    grown, shrunk = inside.copy(), inside.copy()
    for at, beside in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        grown[at] |= inside[beside]
        grown[beside] |= inside[at]
        shrunk[at] &= inside[beside]
        shrunk[beside] &= inside[at]
    pixels = np.frombuffer(made.bits(), np.uint32).reshape(made.height(), made.width())
    np.copyto(pixels, np.uint32(0xFFFFFFFF), where=inside ^ shrunk)
    np.copyto(pixels, np.uint32(0xD0000000), where=grown ^ inside)


def _tiled(colours: np.ndarray) -> QPixmap:
    """A square of straight RGBA values 0 to 255 as a tile."""
    pixels = np.ascontiguousarray(colours.astype(np.uint8))
    side = len(pixels)
    image = QImage(pixels.data, side, side, 4 * side, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image.convertToFormat(QImage.Format.Format_ARGB32_Premultiplied))


def _pattern(side: int) -> QPixmap:
    """Tint and diagonal lines, light beside dark, for masks at full strength."""
    place = np.add.outer(np.arange(side), np.arange(side)) % side
    line = max(1, round(side / 9))
    tile = np.empty((side, side, 4))
    tile[:] = (*_TINT, 110)
    tile[place < line] = (255, 255, 255, 190)
    tile[(place >= line) & (place < 2 * line)] = (24, 16, 80, 150)
    return _tiled(tile)


def _checkers(side: int, dark: bool) -> QPixmap:
    """What is seen through a transparent photo."""
    place = np.add.outer(np.arange(2 * side) // side, np.arange(2 * side) // side) % 2
    low, high = (38, 54) if dark else (214, 246)
    tile = np.full((2 * side, 2 * side, 4), 255)
    tile[..., :3] = np.where(place, high, low)[..., None]
    return _tiled(tile)


@functools.cache
def _heat_table() -> np.ndarray:
    """RGBA of doubt 0 to 255: violet to yellow, lighter and denser as it rises, (256, 4)."""
    at = np.arange(256)
    stops = [0, 64, 128, 192, 255]
    colours = [(40, 10, 90), (120, 30, 130), (205, 60, 90), (245, 135, 45), (255, 240, 130)]
    opacity = np.clip(at * 1.6, 0, 220)
    channels = [np.interp(at, stops, [c[i] for c in colours]) for i in range(3)]
    return np.stack([*channels, opacity], axis=-1).astype(np.uint8)
