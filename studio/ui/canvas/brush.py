"""The brush: its tip as a small plane of coverage, and where it touches down along a line.

Points are in picture pixels; pixel (i, j) covers the square from (i, j) to (i + 1, j + 1). Coverage
is uint8, 0 to 255. A tip never holds more than its brush's strength, and tips are joined by their
maximum, so a stroke that crosses itself does not grow stronger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LEAST_PRESSURE = 0.05
_STAMPS = 128  # a move of more is stamped as widely as its edge allows
_ROUGHNESS = 0.25  # pixels by which the edge between two stamps may dip
_RADII = 32  # sizes of tip per octave of pressure
_HELD = 64 * 2**20  # bytes of tips that one stroke keeps


@dataclass(frozen=True)
class Brush:
    """What a mark is made with. The strength is the mask's value, or the colour's opacity."""

    radius: float = 32.0  # picture pixels, 0.5 to 2048
    hardness: float = 0.8  # 0 soft to 1 hard; a hard edge is one pixel wide
    strength: float = 1.0  # 0 to 1, at the centre
    colour: tuple[int, int, int] = (230, 80, 60)
    erase: bool = False

    @property
    def level(self) -> int:
        """The strength as coverage, 0 to 255."""
        return round(255 * min(max(self.strength, 0.0), 1.0))


@dataclass(frozen=True)
class Stamp:
    """Where a tip goes: `left` and `top` are the pixel of the tip's first value."""

    left: int
    top: int
    tip: np.ndarray


class Tips:
    """The tips of one brush, made when first needed."""

    def __init__(self, brush: Brush) -> None:
        self.brush = brush
        self._made: dict[tuple[int, int, int], np.ndarray] = {}
        self._bytes = 0

    def radius(self, pressure: float) -> float:
        """The radius at a pressure of 0 to 1, in steps of 2 %: full pressure is exact."""
        return self._stepped(self._step(pressure))

    def stamp(self, x: float, y: float, pressure: float) -> Stamp:
        step = self._step(pressure)
        radius = self._stepped(step)
        # A large tip that lies half a pixel off is not seen, and takes long to make anew.
        parts = 4 if radius <= 32 else 2 if radius <= 128 else 1
        left, across = divmod(round((x - 0.5) * parts), parts)
        top, down = divmod(round((y - 0.5) * parts), parts)
        tip = self._tip(step, across * 4 // parts, down * 4 // parts)
        half = len(tip) // 2
        return Stamp(left - half, top - half, tip)

    def _step(self, pressure: float) -> int:
        return round(-_RADII * math.log2(min(max(pressure, LEAST_PRESSURE), 1.0)))

    def _stepped(self, step: int) -> float:
        return min(max(self.brush.radius, 0.5), 2048.0) * 2.0 ** (-step / _RADII)

    def _tip(self, step: int, across: int, down: int) -> np.ndarray:
        tip = self._made.get((step, across, down))
        if tip is None:
            if self._bytes > _HELD:
                self._made.clear()
                self._bytes = 0
            brush = self.brush
            tip = _tip(self._stepped(step), brush.hardness, brush.level, (across / 4, down / 4))
            self._made[step, across, down] = tip
            self._bytes += tip.nbytes
        return tip


def _tip(radius: float, hardness: float, level: int, shift: tuple[float, float]) -> np.ndarray:
    """Coverage around a centre that lies `shift` (0 to 1) right of and below the middle pixel."""
    inner = min(min(max(hardness, 0.0), 1.0) * radius, radius - 0.5)
    outer = max(radius, inner + 1.0)
    half = math.ceil(outer)
    if shift == (0.0, 0.0):  # a quarter is enough: the others are its mirrors
        axis = np.arange(half + 1, dtype=np.float32) ** 2
        tip = np.empty((2 * half + 1, 2 * half + 1), np.uint8)
        _falloff(axis, axis, (inner, outer), level, tip[half:, half:])
        tip[half:, :half] = tip[half:, :half:-1]
        tip[:half] = tip[:half:-1]
        return tip
    axis = np.arange(-half, half + 1, dtype=np.float32)
    tip = np.empty((2 * half + 1, 2 * half + 1), np.uint8)
    _falloff((axis - shift[1]) ** 2, (axis - shift[0]) ** 2, (inner, outer), level, tip)
    return tip


def _falloff(
    down: np.ndarray, across: np.ndarray, ring: tuple[float, float], level: int, out: np.ndarray
) -> None:
    """Coverage by squared distances along both axes: `level` up to the inner radius of the ring,
    none from its outer. A few rows at a time, so that temporaries stay in the processor's cache."""
    inner, outer = ring
    rows = max(1, 2**14 // len(across))
    for top in range(0, len(down), rows):
        u = down[top : top + rows, None] + across
        np.sqrt(u, out=u)
        np.subtract(outer, u, out=u)
        u *= 1 / (outer - inner)
        np.clip(u, 0.0, 1.0, out=u)
        weight = 3.0 - 2.0 * u
        weight *= u
        weight *= u
        weight *= level
        weight += 0.5
        out[top : top + rows] = weight


def along(
    tips: Tips,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    size: tuple[int, int],
) -> Iterator[Stamp]:
    """Stamps from `start` (left out) to `end`, both (x, y, pressure), near a picture (w, h)."""
    radius = min(tips.radius(start[2]), tips.radius(end[2]))
    reach = max(tips.radius(start[2]), tips.radius(end[2])) + 2
    span = _inside(start, end, size, reach)
    if span is None:
        return
    (x, y, p), (x1, y1, p1) = ([a + t * (b - a) for a, b in zip(start, end)] for t in span)
    count = stamps(math.hypot(x1 - x, y1 - y), radius)
    for i in range(1, count + 1):
        t = i / count
        yield tips.stamp(x + t * (x1 - x), y + t * (y1 - y), p + t * (p1 - p))


def stamps(length: float, radius: float) -> int:
    """How many stamps make a line that looks drawn. At least one.

    Discs of radius r at a distance d leave dips of d² / (8 r) in the edge.
    """
    smooth = math.sqrt(8 * _ROUGHNESS * radius)
    count = math.ceil(length / max(0.5, min(0.2 * radius, smooth)))
    if count > _STAMPS:
        count = max(_STAMPS, math.ceil(length / max(1.0, min(0.5 * radius, smooth))))
    return max(1, count)


def _inside(
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    size: tuple[int, int],
    reach: float,
) -> tuple[float, float] | None:
    """The part of a line, as shares of it, that comes within `reach` of the picture."""
    first, last = 0.0, 1.0
    for a, b, most in zip(start[:2], end[:2], size):
        if a == b:
            if not -reach <= a <= most + reach:
                return None
            continue
        one, other = sorted(((-reach - a) / (b - a), (most + reach - a) / (b - a)))
        first, last = max(first, one), min(last, other)
    return (first, last) if first <= last else None
