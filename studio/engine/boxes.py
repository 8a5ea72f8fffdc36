"""Where a picture's box lies: the part of it that goes through a model. For the window and the commands.

Sizes are (width, height), rectangles (x, y, width, height) in pixels.
"""

from __future__ import annotations

import numpy as np

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


def _placed(start: int, length: int, whole: int) -> int:
    """Where a stretch lies that keeps within `whole`; in its middle if it is longer."""
    return (whole - length) // 2 if length > whole else min(max(start, 0), whole - length)
