"""Pictures that nearly equal another: saved again, made smaller, a little brighter, one of a burst.

A picture is looked at as 64 bits (is each place of a 9 × 8 grid darker than its right neighbour?) and
as 8 × 8 colours. Those whose bits hardly differ are looked up by parts of the bits; whether they are
alike is decided by the colours, since all flat pictures have the same bits.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from PIL import Image

_BANDS = 4  # of 16 bits: bits that differ in three places agree in one band
_MOST_BITS = 6
_MOST_MEAN = 3.0  # of the colours' difference, in levels of 255
_MOST_ANYWHERE = 28
_ASPECT = 1.04
_CROWD = 400  # candidates that are compared at most: pictures of one graph paper are all alike
_RISE = 1.5  # levels; less is noise of the coding, which would toss the bits of a flat place


def look(image: Image.Image) -> tuple[int, bytes]:
    """(64 bits, 8 × 8 colours as 192 bytes) of an image of mode RGB."""
    box = Image.Resampling.BOX
    small = image.resize((72, 64), box)
    grey = np.asarray(small.convert("F").resize((9, 8), box))
    bits = np.packbits(np.diff(grey, axis=1) > _RISE)
    return int.from_bytes(bits.tobytes(), "big"), small.resize((8, 8), box).tobytes()


class Twins:
    """The pictures seen so far, each under the first that it nearly equals."""

    def __init__(self) -> None:
        self._bands: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._paths: list[str] = []
        self._bits: list[int] = []
        self._colours: list[np.ndarray] = []
        self._aspects: list[float] = []

    def first(self, path: str, bits: int, colours: bytes, size: tuple[int, int]) -> str:
        """The path of the earlier picture that this one nearly equals; "" if it is the first."""
        values = np.frombuffer(colours, np.uint8).astype(np.int16)
        aspect = size[0] / max(1, size[1])
        bands = [(i, bits >> (16 * i) & 0xFFFF) for i in range(_BANDS)]
        tried: set[int] = set()
        for band in bands:
            for other in self._bands[band][:_CROWD]:
                if other not in tried and self._alike(other, bits, values, aspect):
                    return self._paths[other]
                tried.add(other)
        for band in bands:
            self._bands[band].append(len(self._paths))
        self._paths.append(path)
        self._bits.append(bits)
        self._colours.append(values)
        self._aspects.append(aspect)
        return ""

    def _alike(self, other: int, bits: int, colours: np.ndarray, aspect: float) -> bool:
        if (self._bits[other] ^ bits).bit_count() > _MOST_BITS:
            return False
        ratio = self._aspects[other] / aspect
        if not 1 / _ASPECT <= ratio <= _ASPECT:
            return False
        apart = np.abs(self._colours[other] - colours)
        return bool(apart.mean() <= _MOST_MEAN and apart.max() <= _MOST_ANYWHERE)
