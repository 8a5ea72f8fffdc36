"""A stroke: what the brush leaves on one layer between pressing it down and lifting it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from studio.ui.canvas.brush import Brush, Stamp, Tips, along
from studio.ui.canvas.history import TILE, Recording, Rect, area, tiles, union, within
from studio.ui.canvas.marks import Ink, words


class Stroke:
    """Made by `Document.stroke`. After `end` or `cancel`, nothing more happens.

    `told` is called with each changed rectangle, `done` once with whether the stroke stays.
    """

    def __init__(
        self,
        layer: str,
        brush: Brush,
        pixels: np.ndarray,
        recording: Recording,
        told: Callable[[str, Rect], None],
        done: Callable[[bool], bool],
    ) -> None:
        self.layer, self.brush = layer, brush
        self.size = (pixels.shape[1], pixels.shape[0])
        self._pixels, self._recording = pixels, recording
        self._told, self._done = told, done
        self._tips = Tips(brush)
        self._last: tuple[float, float, float] | None = None
        self._dirty: Rect | None = None
        self._over = False
        self._plan = _Colour(pixels, brush, recording) if layer == "sketch" else None

    def to(self, x: float, y: float, pressure: float = 1.0) -> None:
        """Draw on from the last point to (x, y); the first time, touch down there.

        `pressure`, 0 to 1, scales the radius, to no less than a twentieth.
        """
        if self._over or not (math.isfinite(x) and math.isfinite(y)):
            return
        point = (x, y, pressure if math.isfinite(pressure) else 1.0)
        if self._last is None:
            stamps = [self._tips.stamp(*point)] if self._near(x, y) else []
        elif point == self._last:
            return
        else:
            stamps = along(self._tips, self._last, point, self.size)
        self._last = point
        dirty: Rect | None = None
        for stamp in stamps:
            side = len(stamp.tip)
            rect = within((stamp.left, stamp.top, side, side), self.size)
            if rect is not None:
                self._press(stamp, rect)
                dirty = union(dirty, rect)
        if dirty is not None:
            if self._plan is not None:
                self._plan.show(dirty)
            self._dirty = union(self._dirty, dirty)
            self._told(self.layer, dirty)

    def end(self) -> bool:
        """Lift the brush: one undo step, if anything has changed. Returns whether it has."""
        if self._over:
            return False
        self._over = True
        return self._done(True)

    def cancel(self) -> None:
        """Take the stroke back, as if it had never begun."""
        if self._over:
            return
        self._over = True
        self._done(False)
        if self._dirty is not None:
            self._told(self.layer, self._dirty)

    def _near(self, x: float, y: float) -> bool:
        reach = self._tips.radius(1.0) + 2
        return all(-reach <= a <= most + reach for a, most in zip((x, y), self.size))

    def _press(self, stamp: Stamp, rect: Rect) -> None:
        x, y, w, h = rect
        tip = stamp.tip[y - stamp.top :, x - stamp.left :][:h, :w]
        self._recording.touch(self.layer, rect)
        if self._plan is not None:
            below = self._plan.coverage[area(rect)]
            np.maximum(below, tip, out=below)
            return
        below = self._pixels[area(rect)]
        if self.brush.erase:
            np.minimum(below, np.subtract(255, tip), out=below)
        else:
            np.maximum(below, tip, out=below)


_BAND = 64  # rows


class _Colour:
    """A stroke on the sketch: its own coverage, laid over what was there before it began."""

    def __init__(self, pixels: np.ndarray, brush: Brush, recording: Recording) -> None:
        self._pixels, self._recording = words(pixels), recording
        self._ink = Ink(brush)
        self.coverage = np.zeros(pixels.shape[:2], np.uint8)
        self._shown = np.zeros(pixels.shape[:2], np.uint8)  # coverage that the sketch has taken on

    def show(self, dirty: Rect) -> None:
        """Bring the sketch up to date with the coverage in `dirty`, where that has changed.

        A band of a tile at a time: its temporaries stay in the processor's cache.
        """
        x, y, w, h = dirty
        for row, column in tiles(dirty):
            before = self._recording.before.get(("sketch", row, column))
            if before is None:
                continue
            left, right = max(x, column * TILE), min(x + w, (column + 1) * TILE)
            bottom = min(y + h, (row + 1) * TILE)
            for top in range(max(y, row * TILE), bottom, _BAND):
                band = slice(top, min(top + _BAND, bottom)), slice(left, right)
                changed = (self.coverage[band] != self._shown[band]).any(axis=0)
                if changed.any():
                    self._blend(band, changed, words(before), (row * TILE, column * TILE))

    def _blend(
        self,
        band: tuple[slice, slice],
        changed: np.ndarray,
        before: np.ndarray,
        corner: tuple[int, int],
    ) -> None:
        """Lay the ink over the columns from the first to the last that `changed` names."""
        first = band[1].start + int(changed.argmax())
        last = band[1].stop - int(changed[::-1].argmax())
        part = band[0], slice(first, last)
        inside = (
            slice(band[0].start - corner[0], band[0].stop - corner[0]),
            slice(first - corner[1], last - corner[1]),
        )
        coverage = self.coverage[part]
        self._ink.cover(before[inside], coverage, self._pixels[part])
        self._shown[part] = coverage
