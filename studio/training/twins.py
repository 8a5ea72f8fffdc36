"""Pictures that nearly equal another: saved again, made smaller, a little brighter, one of a burst.

A picture is looked at as 64 bits (is each place of a 9 × 8 grid darker than its right neighbour?) and
as 8 × 8 colours. Those whose bits hardly differ are looked up by parts of the bits; whether they are
alike is decided by the colours, since all flat pictures have the same bits.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from PIL import Image

SMALL = (72, 64)
_BANDS = (13, 13, 13, 13, 12)  # bits each: bits that differ in four places agree in one band
_MOST_BITS = 8
_MOST_ANYWHERE = 32  # levels between two places, once both pictures are equally bright
_CROWD = (
    200  # pictures of a bucket that are looked at: graph papers, for one, have all the same bits
)
_COMPARED = 64  # of those, by their colours
_RISE = 1.5  # levels; less is noise of the coding, which would toss the bits of a flat place
_ASPECT = 1.04


def look(small: Image.Image) -> tuple[int, bytes]:
    """(64 bits, 8 × 8 colours as 192 bytes) of a picture, whole, as RGB of 72 × 64."""
    box = Image.Resampling.BOX
    grey = np.asarray(small.convert("F").resize((9, 8), box))
    bits = np.packbits(np.diff(grey, axis=1) > _RISE)
    return int.from_bytes(bits.tobytes(), "big"), small.resize((8, 8), box).tobytes()


class Twins:
    """The pictures seen so far, each under the first that it nearly equals."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._paths: list[str] = []
        self._bits: list[int] = []
        self._aspects: list[float] = []
        self._colours = np.empty((256, 64, 3), np.uint8)

    def first(self, path: str, bits: int, colours: bytes, size: tuple[int, int]) -> str:
        """The path of the earlier picture that this one nearly equals; "" if it is the first."""
        values = np.frombuffer(colours, np.uint8).reshape(64, 3)
        aspect = size[0] / max(1, size[1])
        buckets = [self._buckets[band] for band in _bands(bits)]
        near = self._near(buckets, bits, aspect)
        if near:
            alike = np.flatnonzero(_alike(values, self._colours[near]))
            if len(alike):
                return self._paths[min(near[i] for i in alike)]
        for bucket in buckets:
            bucket.append(len(self._paths))
        self._add(path, bits, values, aspect)
        return ""

    def _near(self, buckets: list[list[int]], bits: int, aspect: float) -> list[int]:
        """The pictures whose bits hardly differ; those that differ least, if there are many."""
        found: dict[int, int] = {}
        for bucket in buckets:
            for other in bucket[:_CROWD]:
                differ = (self._bits[other] ^ bits).bit_count()
                if differ <= _MOST_BITS and 1 / _ASPECT <= self._aspects[other] / aspect <= _ASPECT:
                    found[other] = differ
        return sorted(found, key=lambda other: (found[other], other))[:_COMPARED]

    def _add(self, path: str, bits: int, colours: np.ndarray, aspect: float) -> None:
        count = len(self._paths)
        if count == len(self._colours):
            self._colours = np.concatenate([self._colours, np.empty_like(self._colours)])
        self._colours[count] = colours
        self._paths.append(path)
        self._bits.append(bits)
        self._aspects.append(aspect)


def _alike(colours: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether a picture's colours, uint8 (64, 3), are those of each of others (N, 64, 3)."""
    apart = others.astype(np.float32) - colours
    brighter = apart.mean(1, keepdims=True)
    # Of a picture with little in it, a little is a lot.
    contrast = float(colours.std(0).mean())
    apart = np.abs(apart - brighter)
    return (
        (np.abs(brighter).max((1, 2)) <= min(20.0, 2 + contrast / 3))
        & (apart.mean((1, 2)) <= min(4.5, 1 + contrast / 12))
        & (apart.max((1, 2)) <= _MOST_ANYWHERE)
    )


def _bands(bits: int) -> list[tuple[int, int]]:
    """The parts of 64 bits, each with its place."""
    found = []
    for place, width in enumerate(_BANDS):
        found.append((place, bits & ((1 << width) - 1)))
        bits >>= width
    return found
