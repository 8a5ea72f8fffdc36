"""Whether a model repeats the pictures that it was trained on.

Of made pictures and of held-out ones, the distance to the nearest training picture, as it is and
mirrored, is held against that to the nearest of other pictures, which nobody learned from; in a feature
space and pixel by pixel. A model that has learned the law has both alike, as held-out pictures have; one
that repeats its training pictures is nearer to those. Blurred pictures, which are near to many, are near
to both.

Sources: Meehan et al. 2020, "A Non-Parametric Test to Detect Data-Copying in Generative Models" (the
comparison with held-out pictures); Mann and Whitney 1947.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from studio.training import distances
from studio.training.distances import Figure
from studio.training.features import FeatureSpace

Report = Callable[[int, int], None]

_CLOSE = 0.01  # the share of held-out pictures that count as close to a training picture


@dataclass(frozen=True)
class Nearest:
    """The nearest known picture of each of N: its distance (N,), its place (N,), and whether it is
    nearer when mirrored (N,)."""

    distance: np.ndarray
    place: np.ndarray
    mirrored: np.ndarray


@dataclass(frozen=True)
class Gauge:
    """How near made pictures are to training pictures, beside held-out ones.

    How near one is: its distance to the nearest of them over that to the nearest of other pictures.
    `close` is the share of made pictures that are nearer than `border`, which one in a hundred held-out
    ones is. `nearer` is how often a made picture is nearer than a held-out one: a half if nothing is
    repeated, and less for blurred pictures. `ratio` is the median over that of held-out pictures.
    """

    close: Figure
    border: float
    nearer: Figure
    ratio: float

    @property
    def repeats(self) -> bool:
        """Whether chance would hardly bring so many made pictures so close."""
        return (
            self.close.value > _CLOSE + 3 * self.close.error + _CLOSE
            or self.nearer.value > 0.5 + 3 * self.nearer.error + 0.1
        )


@dataclass(frozen=True)
class Known:
    """Pictures to find the nearest among, uint8 (M, H, W, C), and their features."""

    pixels: np.ndarray
    points: np.ndarray
    space: FeatureSpace

    @staticmethod
    def of(pixels: np.ndarray, space: FeatureSpace, report: Report = lambda *_: None) -> Known:
        return Known(pixels, space.of(pixels, report), space)

    def by_features(self, pixels: np.ndarray) -> Nearest:
        """The nearest in the feature space to each of uint8 pictures (N, H, W, C)."""
        return _nearest(pixels, self.space.of, self.points, lambda *_: None)

    def by_pixels(self, pixels: np.ndarray, report: Report = lambda *_: None) -> Nearest:
        """The nearest by root mean square difference, in grey levels of 255."""
        found = _nearest(pixels, _flat, _flat(self.pixels), report)
        scale = 1 / math.sqrt(self.pixels[0].size)
        return Nearest(found.distance * scale, found.place, found.mirrored)


def _nearest(
    pixels: np.ndarray,
    points: Callable[[np.ndarray], np.ndarray],
    among: np.ndarray,
    report: Report,
) -> Nearest:
    n = len(pixels)
    both = np.concatenate([points(pixels), points(np.ascontiguousarray(pixels[:, :, ::-1]))])
    distance, place = distances.nearest(both, among, report)
    mirrored = distance[n:] < distance[:n]
    return Nearest(
        np.where(mirrored, distance[n:], distance[:n]),
        np.where(mirrored, place[n:], place[:n]),
        mirrored,
    )


def _flat(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1)


def shares(learned: Nearest, other: Nearest) -> np.ndarray:
    """How near (N,) each picture is to those learned from, beside other ones; 1 where it equals both."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = learned.distance / other.distance
    return np.where(np.isnan(found), 1.0, found)


def gauge(made: np.ndarray, held_out: np.ndarray) -> Gauge:
    """The Gauge of the `shares` (N,) of made and (M,) of held-out pictures."""
    border = float(np.quantile(held_out, _CLOSE))
    n, m = len(made), len(held_out)
    # Mann-Whitney's statistic, and its deviation if both were of one law.
    ordered = np.sort(held_out)
    above = m - np.searchsorted(ordered, made, "right")
    equal = np.searchsorted(ordered, made, "right") - np.searchsorted(ordered, made, "left")
    nearer = float((above + equal / 2).sum() / (n * m))
    error = math.sqrt((n + m + 1) / (12 * n * m))
    middle = float(np.median(held_out))
    ratio = float(np.median(made)) / middle if middle else math.nan
    # The binomial error of the share that is expected: nobody close is no proof that nobody is.
    close = float((made < border).mean())
    expected = math.sqrt(max(close, _CLOSE) * (1 - _CLOSE) / n)
    return Gauge(Figure(close, expected), border, Figure(nearer, error), ratio)


def sheet(made: np.ndarray, training: np.ndarray, found: Nearest, count: int = 40) -> np.ndarray:
    """The `count` made pictures that are closest to a training picture, each beside it, the closest
    first; uint8 (H, W, C). A training picture is mirrored where that is nearer."""
    order = np.argsort(found.distance[: len(made)], kind="stable")[:count]
    beside = training[found.place[order]]
    turned = found.mirrored[order][:, None, None, None]
    beside = np.where(turned, beside[:, :, ::-1], beside)
    return pairs(made[order], beside)


def pairs(left: np.ndarray, right: np.ndarray, gap: int = 4) -> np.ndarray:
    """Pictures (N, H, W, C) in pairs, laid out as one picture on grey."""
    n, h, w, c = left.shape
    across = max(1, round(math.sqrt(n / 2)))
    down = math.ceil(n / across)
    page = np.full((down * (h + gap) + gap, across * (2 * w + gap) + gap, c), 128, np.uint8)
    for i in range(n):
        y, x = gap + (i // across) * (h + gap), gap + (i % across) * (2 * w + gap)
        page[y : y + h, x : x + w], page[y : y + h, x + w : x + 2 * w] = left[i], right[i]
    return page
