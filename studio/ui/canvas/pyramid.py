"""A picture at every zoom: its own pixels, and halved copies that are made where they are looked at.

Level 0 is the array itself, never copied; each level above is a 2 × 2 area average of the one
below, one byte a pixel for masks and four for colours. A change marks tiles as stale, and only those
that come into view are averaged again, so a stroke never costs more than the pixels it touched.

Rectangles are (x, y, w, h) in the pixels of the level they are about. Averages round down in one
direction and up in the other, so that small levels are neither darker nor lighter.
"""

from __future__ import annotations

import math
import time

import numpy as np
from PySide6.QtCore import QRect
from PySide6.QtGui import QImage

Rect = tuple[int, int, int, int]

#: Side of a tile of stale pixels, in pixels of its level.
_TILE = 64
#: Rows averaged at once: what stays in the processor's cache is averaged twice as fast.
_BAND = 64
#: Pixels averaged between two looks at the clock.
_PORTION = 1_000_000
_FORMATS = {
    1: QImage.Format.Format_Alpha8,
    3: QImage.Format.Format_RGB888,
    4: QImage.Format.Format_RGBA8888,
}
_HALVED = {
    1: QImage.Format.Format_Alpha8,
    3: QImage.Format.Format_RGB32,
    4: QImage.Format.Format_ARGB32_Premultiplied,
}


class Pyramid:
    """The levels of one array, uint8 (H, W) mask, (H, W, 3) or straight (H, W, 4), C-contiguous.

    The array stays the caller's; after changing it, `touch` says where. With `blank` it is known to
    be all zero, and so are its levels.
    """

    def __init__(self, pixels: np.ndarray, blank: bool = False) -> None:
        if pixels.dtype != np.uint8 or not pixels.flags.c_contiguous or not pixels.size:
            raise ValueError("a pyramid stands on a C-contiguous uint8 array")
        self._channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        self._arrays = [pixels]
        self._images = [_image(pixels, _FORMATS[self._channels])]
        self._stale: list[np.ndarray] = [np.zeros((0, 0), bool)]
        kind = np.uint8 if self._channels == 1 else np.uint32
        height, width = pixels.shape[:2]
        while max(height, width) > _TILE:
            height, width = -(-height // 2), -(-width // 2)
            level = np.zeros((height, width), kind)
            self._arrays.append(level)
            self._images.append(_image(level, _HALVED[self._channels]))
            tiles = (-(-height // _TILE), -(-width // _TILE))
            self._stale.append(np.full(tiles, not blank))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of level 0."""
        height, width = self._arrays[0].shape[:2]
        return width, height

    @property
    def pixels(self) -> np.ndarray:
        """Level 0, the caller's own array."""
        return self._arrays[0]

    def image(self, level: int) -> QImage:
        """A level as an image that shares its memory: only for drawing from."""
        return self._images[level]

    def level_for(self, scale: float) -> int:
        """The smallest level that still has a pixel for each device pixel at a scale."""
        wanted = 0 if scale >= 1 else math.floor(-math.log2(scale) + 1e-9)
        return min(wanted, len(self._arrays) - 1)

    def touch(self, rect: Rect) -> None:
        """The array changed within a rectangle of level 0."""
        x, y, w, h = rect
        if w <= 0 or h <= 0:
            return
        for level in range(1, len(self._arrays)):
            side = _TILE << level
            tiles = self._stale[level]
            tiles[y // side : (y + h - 1) // side + 1, x // side : (x + w - 1) // side + 1] = True

    def stale(self, level: int, rect: Rect) -> int:
        """About how many pixels of the array have to be averaged to show a part of a level."""
        box = self._stale_box(level, rect) if level else None
        if box is None:
            return 0
        top, bottom, left, right = (side << (level - 1) for side in box)
        return int(self._stale[1][top:bottom, left:right].sum()) * (2 * _TILE) ** 2

    def refresh(self, level: int, rect: Rect) -> None:
        """Average whatever is stale in a part of a level."""
        if level == 0:
            return
        box = self._stale_box(level, rect)
        if box is None:
            return
        top, bottom, left, right = box
        height, width = self._arrays[level].shape
        x, y = left * _TILE, top * _TILE
        w, h = min(right * _TILE, width) - x, min(bottom * _TILE, height) - y
        below = self._arrays[level - 1].shape
        x2, y2 = 2 * x, 2 * y
        w2, h2 = min(2 * w, below[1] - x2), min(2 * h, below[0] - y2)
        self.refresh(level - 1, (x2, y2, w2, h2))
        for row in range(0, h, _BAND):
            rows = min(_BAND, h - row)
            source = self._block(level - 1, (x2, y2 + 2 * row, w2, min(2 * rows, h2 - 2 * row)))
            self._arrays[level][y + row : y + row + rows, x : x + w] = _halved(source)
        self._stale[level][top:bottom, left:right] = False

    def refine(self, level: int, rect: Rect, seconds: float) -> Rect | None:
        """Average for about that long; which part of the level is now right, None if all was."""
        end, done = time.perf_counter() + seconds, None
        across = max(1, _PORTION // (_TILE << level) ** 2)
        while level > 0 and (box := self._stale_box(level, rect)) is not None:
            top, _, left, right = box
            left += int(self._stale[level][top, left:right].argmax())
            part = (left * _TILE, top * _TILE, min(across, right - left) * _TILE, _TILE)
            self.refresh(level, part)
            done = part if done is None else _united(done, part)
            if time.perf_counter() > end:
                break
        return done

    def sample(self, level: int, rect: Rect) -> None:
        """Fill what is stale by looking at single pixels: rough, at once, and stale as before."""
        box = self._stale_box(level, rect) if level else None
        if box is None:
            return
        top, bottom, left, right = box
        self._stale[level][top:bottom, left:right] = True
        step, x, y = 1 << level, left * _TILE, top * _TILE
        height, width = self._arrays[level].shape
        w, h = min(right * _TILE, width) - x, min(bottom * _TILE, height) - y
        coarse = self._arrays[0][y * step : (y + h) * step : step, x * step : (x + w) * step : step]
        found = np.ascontiguousarray(coarse)
        if self._channels > 1:
            found = _packed(_image(found, _FORMATS[self._channels]), self._channels)
        self._arrays[level][y : y + h, x : x + w] = found

    def _stale_box(self, level: int, rect: Rect) -> tuple[int, int, int, int] | None:
        """Top, bottom, left, right of the stale tiles that a rectangle meets, in tiles."""
        x, y, w, h = rect
        top, left = max(0, y // _TILE), max(0, x // _TILE)
        part = self._stale[level][top : -(-(y + h) // _TILE), left : -(-(x + w) // _TILE)]
        if not part.any():
            return None
        rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        return (
            top + int(rows[0]),
            top + int(rows[-1]) + 1,
            left + int(columns[0]),
            left + int(columns[-1]) + 1,
        )

    def _block(self, level: int, rect: Rect) -> np.ndarray:
        """Part of a level, one number a pixel: uint8 for masks, else uint32."""
        x, y, w, h = rect
        if level > 0 or self._channels == 1:
            return self._arrays[level][y : y + h, x : x + w]
        return _packed(self._images[0].copy(QRect(x, y, w, h)), self._channels)


def _image(array: np.ndarray, kind: QImage.Format) -> QImage:
    height, width = array.shape[:2]
    return QImage(array.data, width, height, array.strides[0], kind)


def _packed(image: QImage, channels: int) -> np.ndarray:
    """An image of level 0 as pixels of the levels above, uint32 (H, W)."""
    made = image.convertToFormat(_HALVED[channels])
    # A copy: the bytes of an image do not outlive it.
    return np.frombuffer(made.constBits(), np.uint32).reshape(made.height(), made.width()).copy()


def _halved(block: np.ndarray) -> np.ndarray:
    """The 2 × 2 area average of one number a pixel; a lone last row or column stands for two."""
    if block.shape[0] % 2 or block.shape[1] % 2:
        block = np.pad(block, [(0, side % 2) for side in block.shape], mode="edge")
    # Bytes are averaged without leaving bytes: a + b = 2 (a & b) + (a ^ b).
    rows = np.ascontiguousarray(block).view(np.uint8)
    above, below = rows[0::2], rows[1::2]
    mean = above ^ below
    mean >>= 1
    mean &= 0x7F
    mean += above & below
    if block.dtype == np.uint8:
        pairs = mean.view(np.uint16)
        return (((pairs & 0xFF) + (pairs >> 8) + 1) >> 1).astype(np.uint8)
    pairs = mean.view(np.uint64)
    left, right = pairs & np.uint64(0xFFFFFFFF), pairs >> np.uint64(32)
    half = left ^ right
    half >>= np.uint64(1)
    half &= np.uint64(0x7F7F7F7F)
    left |= right
    left -= half
    return left.astype(np.uint32)


def _united(a: Rect, b: Rect) -> Rect:
    left, top = min(a[0], b[0]), min(a[1], b[1])
    right, bottom = max(a[0] + a[2], b[0] + b[2]), max(a[1] + a[3], b[1] + b[3])
    return left, top, right - left, bottom - top
