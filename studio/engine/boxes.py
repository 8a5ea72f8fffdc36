"""Where a picture's box lies, the part of it that goes through a model, and how it comes to the model.

Sizes are (width, height), rectangles (x, y, width, height) in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from studio import photos

Rect = tuple[int, int, int, int]

PADDING = 32  # what a model sees around a mask


def bounds(mask: np.ndarray) -> Rect | None:
    """The rectangle around what is not zero in a mask (H, W); None if nothing is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def around(rect: Rect, size: tuple[int, int], side: int, padding: int = PADDING) -> Rect:
    """A square of at least `side` around `rect` and `padding`. In a picture of `size` where it fits;
    else it stands out evenly on both sides. The padding gives way before the square leaves it."""
    _, _, w, h = rect
    least = max(side, w, h)
    return square(rect, size, min(max(least, max(w, h) + 2 * padding), max(least, min(size))))


def square(rect: Rect, size: tuple[int, int], side: int) -> Rect:
    """A square of `side` about the middle of `rect`, placed as `around` places it."""
    x, y, w, h = rect
    left, top = (
        _placed(start + (length - side) // 2, side, whole)
        for start, length, whole in zip((x, y), (w, h), size)
    )
    return left, top, side, side


def within(rect: Rect, size: tuple[int, int]) -> Rect | None:
    """The part of `rect` inside a picture of `size`; None if there is none."""
    left, top = max(rect[0], 0), max(rect[1], 0)
    right, bottom = min(rect[0] + rect[2], size[0]), min(rect[1] + rect[3], size[1])
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


@dataclass(frozen=True)
class Fitted:
    """How a box comes to the model: its `content`, (width, height), scaled from `size`, lies in the
    corner of a canvas whose sides are at least the model's and multiples of `factor`; the rest is the
    border repeated."""

    size: tuple[int, int]
    content: tuple[int, int]
    side: int
    factor: int = 1

    @staticmethod
    def scaled(size: tuple[int, int], side: int) -> Fitted:
        """The longer side of the box becomes the model's side."""
        w, h = size
        scale = side / max(w, h)
        return Fitted(size, (max(1, round(w * scale)), max(1, round(h * scale))), side)

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of what is sampled."""
        w, h = (math.ceil(max(v, self.side) / self.factor) * self.factor for v in self.content)
        return h, w

    def forth(self, pixels: np.ndarray) -> np.ndarray:
        """A picture of the box, (h, w, C), on the canvas."""
        return self._padded(photos.resized(pixels, self.content))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the box on the canvas: the most that any pixel may change that has a share."""
        (w, h), (cw, ch) = self.size, self.content
        rows, columns = np.arange(ch) * h // ch, np.arange(cw) * w // cw
        most = np.maximum.reduceat(np.maximum.reduceat(mask, rows, 0), columns, 1)
        return self._padded(most[..., None])[..., 0]

    def back(self, pixels: np.ndarray) -> np.ndarray:
        """The canvas, (H, W, C), as a picture of the box."""
        cw, ch = self.content
        return photos.resized(np.ascontiguousarray(pixels[:ch, :cw]), self.size)

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        (height, width), (h, w) = self.canvas, pixels.shape[:2]
        return np.pad(pixels, ((0, height - h), (0, width - w), (0, 0)), mode="edge")


def _placed(start: int, length: int, whole: int) -> int:
    """Where a stretch lies that keeps within `whole`; in its middle if it is longer."""
    return (whole - length) // 2 if length > whole else min(max(start, 0), whole - length)
