"""How a picture of any shape becomes the square that a model sees, and how it varies from time to time.

Where each square is another one, larger pictures are kept in a Stock, and squares cut as they are drawn.
Pixels are uint8 (H, W, C); squares (B, S, S, C).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from studio.training.choices import Choices, Crop

_CLOSEST = 0.6  # the smallest random square, as a share of the shorter side
_SPARE = 2  # the shorter side of a kept picture, in sides of the model's square
_LANCZOS, _CUBIC = Image.Resampling.LANCZOS, Image.Resampling.BICUBIC


@dataclass(frozen=True)
class Stock:
    """Pictures of many shapes in one row of values. `places` int64 (N, 3): start, height, width."""

    values: np.ndarray
    places: np.ndarray
    colours: int = 3

    @staticmethod
    def of(pixels: np.ndarray) -> Stock:
        """Pictures of one shape (N, H, W, C)."""
        n, h, w, c = pixels.shape
        start = np.arange(n, dtype=np.int64) * (h * w * c)
        places = np.stack([start, np.full(n, h), np.full(n, w)], 1)
        return Stock(pixels.reshape(-1), places, c)

    def __getitem__(self, place: int) -> np.ndarray:
        """One of them, (H, W, C), not copied."""
        start, height, width = (int(v) for v in self.places[place])
        values = self.values[start : start + height * width * self.colours]
        return values.reshape(height, width, self.colours)


# -- out of a file --------------------------------------------------------------------------------


def least(size: int, choices: Choices, crop: Crop | None) -> int | None:
    """How short the sides of a picture may be as it comes out of its file: the filter needs four times
    the square. None: it is needed as it is."""
    if choices.framing == "native":
        return None
    return round(4 * size / (crop.side if crop else 1))


def squared(image: Image.Image, size: int, crop: Crop | None = None) -> np.ndarray:
    """The largest square in the middle, or the one that a person chose, scaled to `size`."""
    if crop is None:
        return np.asarray(ImageOps.fit(image, (size, size), _LANCZOS))
    return np.asarray(image.resize((size, size), _LANCZOS, box=crop.box(*image.size)))


def area(size: tuple[int, int], side: int, framing: str, crop: Crop | None) -> int:
    """The pixels that would be kept of a picture of a (width, height) if there were room for all."""
    if framing == "centre":
        return 0
    short = min(size) if crop is None else crop.side * min(size)
    long = max(size) if crop is None else short
    wanted = max(side, short) if framing == "native" else max(side, min(short, _SPARE * side))
    return round(long * wanted**2 / max(short, 1e-9))


def kept(image: Image.Image, size: int, framing: str, crop: Crop | None, most: int) -> np.ndarray:
    """What is kept of a picture to cut random squares from: `most` pixels or little more, no side below
    `size`. A picture that is too small for the model is enlarged."""
    if crop is not None:
        left, top, right, bottom = (round(v) for v in crop.box(*image.size))
        image = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    short, area = min(image.size), image.width * image.height
    fewer = (most / area) ** 0.5
    if framing == "native":
        image = _scaled(image, max(1.0, size / short), size)
        return np.asarray(_middle(image, max(fewer, size / min(image.size)), size))
    return np.asarray(
        _scaled(image, max(size / short, min(1.0, _SPARE * size / short, fewer)), size)
    )


def middle(picture: np.ndarray, size: int, framing: str) -> np.ndarray:
    """The one square of a kept picture that stands for it where squares must stay."""
    if framing == "native":
        return _window(picture, size, np.full(3, 0.5))
    return squared(_image(picture), size).reshape(size, size, -1)


def share(areas: Iterable[int], limit: int) -> int:
    """The most pixels that each picture may have, so that all have `limit` together."""
    left, rest = limit, sorted(areas)
    for place, area in enumerate(rest):
        even = left // (len(rest) - place)
        if area > even:
            return even
        left -= area
    return max(rest, default=limit)


def _scaled(image: Image.Image, scale: float, size: int) -> Image.Image:
    if scale == 1:
        return image
    wide, high = (max(size, round(side * scale)) for side in image.size)
    return image.resize((wide, high), _LANCZOS)


def _middle(image: Image.Image, part: float, size: int) -> Image.Image:
    """The part in the middle whose sides are `part` as long."""
    if part >= 1:
        return image
    wide, high = (max(size, round(side * part)) for side in image.size)
    left, top = (image.width - wide) // 2, (image.height - high) // 2
    return image.crop((left, top, left + wide, top + high))


# -- as they are drawn ----------------------------------------------------------------------------


def cut(
    stock: Stock, places: np.ndarray, size: int, framing: str, rng: np.random.Generator
) -> np.ndarray:
    """A square from each of the pictures at `places`, wherever the dice say."""
    dice = rng.random((len(places), 3))
    one = _window if framing == "native" else _anywhere
    return np.stack([one(stock[int(place)], size, die) for place, die in zip(places, dice)])


def varied(squares: np.ndarray, choices: Choices, rng: np.random.Generator) -> np.ndarray:
    """The squares turned, mirrored and in other light, each as the dice say and the choices allow."""
    count = len(squares)
    if choices.turns:
        quarters = rng.integers(4, size=count)
        for turn in (1, 2, 3):
            squares[quarters == turn] = np.rot90(squares[quarters == turn], turn, (1, 2))
    if choices.flips:
        mirrored = rng.random(count) < 0.5
        squares[mirrored] = squares[mirrored, :, ::-1]
    if choices.jitter:
        brighter, harder = rng.uniform(-choices.jitter, choices.jitter, (2, count, 1))
        levels = (np.arange(256) - 127.5) * (1 + harder) + 127.5 * (1 + brighter)
        tables = levels.round().clip(0, 255).astype(np.uint8)
        squares = np.stack([table[square] for table, square in zip(tables, squares)])
    return squares


def _anywhere(picture: np.ndarray, size: int, die: np.ndarray) -> np.ndarray:
    high, wide = picture.shape[:2]
    side = min(high, wide) * (_CLOSEST + (1 - _CLOSEST) * die[0])
    left, top = (wide - side) * die[1], (high - side) * die[2]
    box = left, top, min(left + side, wide), min(top + side, high)
    # Hardly made smaller, so the longer filter would cost half as much again and show nothing.
    square = _image(picture).resize((size, size), _CUBIC, box=box)
    return np.asarray(square).reshape(size, size, -1)


def _window(picture: np.ndarray, size: int, die: np.ndarray) -> np.ndarray:
    high, wide = picture.shape[:2]
    left, top = int((wide - size + 1) * die[1]), int((high - size + 1) * die[2])
    return picture[top : top + size, left : left + size]


def _image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
