"""How coverage (uint8, 0 to 255) is laid on a layer, and the shapes that coverage comes in.

The mask takes the larger value when painting, the smaller of itself and what coverage leaves when
erasing. The sketch is RGBA with straight alpha, handled as 32-bit words (R lowest): colour goes over
what was there. Arithmetic is in integers and in place, a tile's worth at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from studio.errors import PictureError
from studio.ui.canvas.brush import Brush
from studio.ui.canvas.history import Rect, within

_WORD = np.dtype("<u4")
_FINE = 4  # subpixels along each axis of a polygon's edge
_BAND = 4 * 2**20  # pixels of a polygon drawn at once
_MOST_RUNS = 3_000_000  # of pixels in rows, in a region that is filled


def words(pixels: np.ndarray) -> np.ndarray:
    """RGBA (H, W, 4), contiguous along its rows, as words (H, W) of the same memory."""
    return pixels.view(_WORD)[..., 0]


def cover_mask(mask: np.ndarray, coverage: np.ndarray, erase: bool) -> None:
    """Paint or erase in place; `coverage` is used up when erasing."""
    if erase:
        np.subtract(255, coverage, out=coverage)
        np.minimum(mask, coverage, out=mask)
    else:
        np.maximum(mask, coverage, out=mask)


class Ink:
    """One colour, or the eraser, laid over words of RGBA."""

    def __init__(self, brush: Brush) -> None:
        self._erase = brush.erase
        red, green, blue = (int(min(max(c, 0), 255)) for c in brush.colour)
        self._colour = np.uint32(red | green << 8 | blue << 16)

    def cover(self, before: np.ndarray, coverage: np.ndarray, out: np.ndarray) -> None:
        """Lay the ink, as thick as `coverage` (h, w), over `before` into `out`, words (h, w)."""
        opaque = self._colour | _OPAQUE
        if self._erase:
            _erase(before, coverage, out)
        elif coverage.min() == 255:
            out[...] = opaque
        elif before.max() == 0:
            above = np.minimum(coverage, 1).astype(np.uint32)
            above *= self._colour
            above |= coverage.astype(np.uint32) << np.uint32(24)
            out[...] = above
        elif before.min() >= _OPAQUE:
            weight = coverage.astype(np.uint32)
            weight += weight >> np.uint32(7)
            _mix(before, opaque, weight, out)
        else:
            weight, alpha = _shares(before, coverage.astype(np.float32))
            _mix(before, opaque, weight, out)
            out &= ~_OPAQUE
            out |= alpha


_OPAQUE = np.uint32(0xFF000000)
_PAIR = np.uint32(0x00FF00FF)
_HALVES = np.uint32(0x00800080)
_BYTE = np.uint32(8)


def over(below: np.ndarray, above: np.ndarray, out: np.ndarray) -> None:
    """Words of RGBA over words of RGBA, straight alpha. `out` may be `below`.

    Colours are right to one level. Where either is clear, the other is kept bit for bit.
    """
    weight, alpha = _shares(below, (above >> np.uint32(24)).astype(np.float32))
    _mix(below, above, weight, out)
    out &= ~_OPAQUE
    out |= alpha


def _shares(below: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of the colour above is seen, of 256, and the alpha of both as a word.

    `alpha` is that above, float32, and is used up.
    """
    both = (below >> np.uint32(24)).astype(np.float32)
    both *= 1 - alpha * np.float32(1 / 255)
    both += alpha
    alpha *= 256
    alpha /= np.maximum(both, np.float32(0.5))
    alpha += np.float32(0.5)
    both += np.float32(0.5)
    return alpha.astype(np.uint32), both.astype(np.uint32) << np.uint32(24)


def _mix(
    below: np.ndarray, above: np.ndarray | np.uint32, weight: np.ndarray, out: np.ndarray
) -> None:
    """`weight` of 256 of one word and the rest of the other, each byte for itself.

    Two bytes at a time: each has 16 bits of a word to itself.
    """
    rest = np.uint32(256) - weight
    odd = below & _PAIR
    odd *= rest
    odd += (above & _PAIR) * weight
    odd += _HALVES
    odd >>= _BYTE
    odd &= _PAIR
    even = below >> _BYTE
    even &= _PAIR
    even *= rest
    even += ((above >> _BYTE) & _PAIR) * weight
    even += _HALVES
    even &= ~_PAIR
    np.bitwise_or(odd, even, out=out)


def _erase(before: np.ndarray, coverage: np.ndarray, out: np.ndarray) -> None:
    alpha = before >> np.uint32(24)
    alpha *= np.subtract(255, coverage).astype(np.uint32)
    alpha += np.uint32(127)
    alpha //= np.uint32(255)
    kept = before & np.uint32(0x00FFFFFF)
    kept |= alpha << np.uint32(24)
    # Colour under nothing would be kept, compressed and saved for nothing.
    np.copyto(kept, np.uint32(0), where=(alpha == 0) & (coverage > 0))
    out[...] = kept


def box_of(values: np.ndarray) -> Rect | None:
    """The rectangle around what is not zero in (H, W) or (H, W, C); None if all is."""
    h, w = values.shape[:2]
    # numpy finds a maximum many values at a time, `any` one by one.
    rows = np.flatnonzero(values.reshape(h, -1).max(axis=1))
    if not len(rows):
        return None
    top, bottom = int(rows[0]), int(rows[-1])
    columns = np.flatnonzero(values[top : bottom + 1].max(axis=0).reshape(w, -1).max(axis=1))
    left, right = int(columns[0]), int(columns[-1])
    return left, top, right - left + 1, bottom - top + 1


def polygon_bounds(points: Sequence[tuple[float, float]], size: tuple[int, int]) -> Rect | None:
    """The pixels that a polygon can touch in a picture (w, h); None if it has no corner or area."""
    corners = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(corners) < 3:
        return None
    left, top = (math.floor(min(c[i] for c in corners)) for i in (0, 1))
    right, bottom = (math.ceil(max(c[i] for c in corners)) for i in (0, 1))
    return within((left, top, right - left, bottom - top), size)


def polygon(points: Sequence[tuple[float, float]], rect: Rect, level: int) -> np.ndarray:
    """Coverage (h, w) of a polygon over `rect`, up to `level`, with a smooth edge.

    Where it crosses itself an even number of times, it is empty.
    """
    x, y, w, h = rect
    corners = [(a, b) for a, b in points if math.isfinite(a) and math.isfinite(b)]
    coverage = np.empty((h, w), np.uint8)
    rows = max(1, _BAND // (w * _FINE * _FINE))
    for top in range(0, h, rows):
        count = min(rows, h - top)
        band = Image.new("L", (w * _FINE, count * _FINE), 0)
        # Pillow's pixel (0, 0) has its centre there.
        shifted = [(_near(a - x), _near(b - y - top)) for a, b in corners]
        ImageDraw.Draw(band).polygon(shifted, fill=level)
        coverage[top : top + count] = np.asarray(band.reduce(_FINE))
    return coverage


def _near(distance: float) -> float:
    """In subpixels; no further away than Pillow can count."""
    return min(max(distance, -1e6), 1e6) * _FINE - 0.5


def dilated(values: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) uint8: each value becomes the largest within `radius` of it.

    Exact, but for a large radius on a large plane, where the disc is a polygon of 16 sides that lies
    within 3 % of it.
    """
    if values.size * radius <= _MOST_WORK or radius <= 2 * _CORE:
        return _disc(values, radius)
    # Sums of sets: a small disc and 8 lines. Lines of points grow by doubling, in few passes.
    out = _disc(values, _CORE)
    for dx, dy in ((1, 0), (2, 1), (1, 1), (1, 2), (0, 1), (-1, 2), (-1, 1), (-2, 1)):
        # The width of the sum, over all directions, is 16 / pi times the half length of a line.
        half = round((radius - _CORE) * math.pi / 16 / math.hypot(dx, dy))
        length = 0
        while length < half:
            step = min(half - length, length + 1)
            out, length = _longer(out, step * dx, step * dy), length + step
    return out


_MOST_WORK = 400_000_000  # pixels times radius: about half a second
_CORE = 8  # pixels; without holes when moved by (2, 1)


def _disc(values: np.ndarray, radius: int) -> np.ndarray:
    """`dilated`, exact.

    A disc is a stack of rows of different lengths: rows are lengthened from the shortest, at the
    disc's rim, to the longest, through its centre, and laid into place above and below.
    """
    reach = [math.isqrt(radius * radius - dy * dy) for dy in range(radius + 1)]
    out = values.copy()
    rows, length = values, 0
    for dy in range(radius, -1, -1):
        while length < reach[dy]:
            step = min(reach[dy] - length, length + 1)
            rows, length = _longer(rows, step, 0), length + step
        if dy < len(values):
            np.maximum(out[dy:], rows[: len(values) - dy], out=out[dy:])
            np.maximum(out[: len(values) - dy], rows[dy:], out=out[: len(values) - dy])
    return out


def _longer(values: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """The largest of each value and those (dx, dy) away to both sides; dy is not negative."""
    h, w = values.shape
    out = values.copy()
    if dy < h and abs(dx) < w:
        up, down = slice(0, h - dy), slice(dy, h)
        left, right = slice(0, w - abs(dx)), slice(abs(dx), w)
        one, other = (left, right) if dx >= 0 else (right, left)
        np.maximum(out[down, other], values[up, one], out=out[down, other])
        np.maximum(out[up, one], values[down, other], out=out[up, one])
    return out


def blurred(values: np.ndarray, deviation: float) -> np.ndarray:
    """(H, W) uint8 smoothed by a Gaussian; its rim is taken to go on outside."""
    return np.asarray(Image.fromarray(values).filter(ImageFilter.GaussianBlur(deviation)))


def region(photo: np.ndarray, x: int, y: int, tolerance: int) -> tuple[Rect, np.ndarray]:
    """What is joined to pixel (x, y) by sides, each channel within `tolerance` of that pixel's.

    Returns the rectangle around it and, in that, bool (h, w). Looks at a window around the pixel
    first, and at more of the picture while the region reaches the window's rim.
    Raises PictureError if the region is too ragged to follow.
    """
    size = (photo.shape[1], photo.shape[0])
    colour = photo[y, x].astype(np.int16)
    low = np.clip(colour - tolerance, 0, 255).astype(np.uint8)
    high = np.clip(colour + tolerance, 0, 255).astype(np.uint8)
    side = 512
    while True:
        window = within((x - side, y - side, 2 * side, 2 * side), size) or (0, 0, 1, 1)
        left, top, w, h = window
        view = photo[top : top + h, left : left + w]
        alike = _alike(view, low, high)
        joined = _joined(alike, x - left, y - top)
        inner = box_of(joined.view(np.uint8)) or (0, 0, 1, 1)
        cut = (
            (inner[0] == 0 and left > 0)
            or (inner[1] == 0 and top > 0)
            or (inner[0] + inner[2] == w and left + w < size[0])
            or (inner[1] + inner[3] == h and top + h < size[1])
        )
        if not cut:
            rows = slice(inner[1], inner[1] + inner[3])
            columns = slice(inner[0], inner[0] + inner[2])
            return (left + inner[0], top + inner[1], inner[2], inner[3]), joined[rows, columns]
        side *= 2


def _alike(pixels: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """bool (h, w): every channel between `low` and `high`."""
    alike = np.ones(pixels.shape[:2], bool)
    for channel in range(pixels.shape[2]):
        plane = np.ascontiguousarray(pixels[..., channel])
        alike &= (plane - low[channel]) <= high[channel] - low[channel]
    return alike


def _joined(alike: np.ndarray, x: int, y: int) -> np.ndarray:
    """The part of bool (h, w) that is joined to (x, y) by sides.

    Works on runs of pixels in rows: runs that touch in neighbouring rows are joined by giving each
    the smallest number among those it can reach.
    """
    h, w = alike.shape
    pitch = w + 1  # a gap after each row, so that no run goes on in the next
    flat = np.zeros(h * pitch + 1, np.int8)
    flat[1:].reshape(h, pitch)[:, :w] = alike
    turns = np.flatnonzero(np.diff(flat))
    starts, ends = turns[::2], turns[1::2]
    if len(starts) > _MOST_RUNS:
        raise PictureError(
            "This region is too ragged to fill.",
            "Choose another tolerance, or draw with the lasso.",
        )
    first = np.searchsorted(ends, starts + pitch, "right")
    counts = np.searchsorted(starts, ends + pitch, "left") - first
    one = np.repeat(np.arange(len(starts)), counts)
    other = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts) + first[one]
    names = _components(len(starts), one, other)
    seed = int(np.searchsorted(starts, y * pitch + x, "right")) - 1
    chosen = names == names[seed]
    marks = np.zeros(h * pitch + 1, np.int8)
    marks[starts[chosen]] = 1
    marks[ends[chosen]] = -1
    return np.cumsum(marks, dtype=np.int8)[:-1].reshape(h, pitch)[:, :w].astype(bool)


def _components(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A name for each of `count` nodes, the same for nodes joined by edges (one, other)."""
    names = np.arange(count)
    while True:
        a, b = names[one], names[other]
        apart = a != b
        if not apart.any():
            return names
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        np.minimum.at(names, np.maximum(a, b), np.minimum(a, b))
        while True:
            nearer = names[names]
            if np.array_equal(nearer, names):
                break
            names = nearer
