"""Brightness and chroma: what colorization keeps, and what it is free to choose.

The brightness of a colour is w · (R, G, B) / sum(w) for weights w, on the scale of the colours; its
chroma are the two directions at right angles to w. Colours are (H, W, 3), brightness is (H, W).
Sources: Song et al. 2021, section 5 and appendix I.2 (the basis, for equal weights); ITU-R BT.601 and
BT.709 (weights of video); the sepia filter's weights are those of its blue row in common use.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from studio.errors import SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Weights = tuple[float, float, float]

WEIGHTS: dict[str, Weights] = {
    "mean": (1.0, 1.0, 1.0),
    "rec601": (0.299, 0.587, 0.114),
    "rec709": (0.2126, 0.7152, 0.0722),
    "sepia": (0.393, 0.769, 0.189),
}
_CHUNK = 2**16  # colours at a time: they stay in the processor's cache


def basis(weights: Weights) -> Tensor:
    """An orthonormal basis of colours, (3, 3) float64, its rows: brightness w / ‖w‖, then chroma.

    Raises SpecError if a weight is negative or all are zero.
    """
    # A mirror that takes -(1, 0, 0) to w / ‖w‖; nothing cancels in it, as no weight is negative.
    mirror = _checked(weights)
    mirror /= np.linalg.norm(mirror)
    mirror[0] += 1
    return torch.from_numpy(2 * np.outer(mirror, mirror) / (mirror @ mirror) - np.eye(3))


def brightness(pixels: np.ndarray, weights: Weights) -> np.ndarray:
    """The weighted mean of colours (..., 3), float64 (...)."""
    w = _checked(weights)
    return pixels.astype(np.float64) @ w / w.sum()


def with_brightness(pixels: np.ndarray, wanted: np.ndarray, weights: Weights) -> np.ndarray:
    """The 8-bit colours nearest in chroma to `pixels` (H, W, 3) whose brightness is `wanted` (H, W).

    The brightness is met as closely as four neighbouring values a channel allow: exactly, for equal
    weights and sums of channels that are whole; else within `tightness(weights)`. Colours that the
    wanted brightness cannot have lose saturation, not hue. `wanted` is clipped to 0 … 255.
    """
    w = _checked(weights)
    colours, levels = pixels.reshape(-1, 3), wanted.reshape(-1)
    out = np.empty(colours.shape, np.uint8)
    lattice = _lattice(weights)
    for start in range(0, len(out), _CHUNK):
        part = slice(start, start + _CHUNK)
        level = np.clip(levels[part].astype(np.float64), 0, 255)
        out[part] = _rounded(_in_gamut(colours[part], level, w), level * w.sum(), lattice)
    return out.reshape(pixels.shape)


def brightness_error(before: np.ndarray, after: np.ndarray, weights: Weights) -> float:
    """The largest difference in brightness of two 8-bit pictures (H, W, 3), in 8-bit units."""
    return float(np.abs(brightness(before, weights) - brightness(after, weights)).max(initial=0.0))


def tightness(weights: Weights) -> float:
    """How far from the wanted brightness `with_brightness` can end, in 8-bit units: half the widest gap
    between the brightnesses of neighbouring colours.
    """
    return float(np.diff(_lattice(weights).sums).max() / 2 / sum(weights))


def _checked(weights: Weights) -> np.ndarray:
    w = np.array(weights, np.float64)
    if w.shape != (3,) or not np.isfinite(w).all() or w.min() < 0 or w.max() == 0:
        raise SpecError(
            f"Brightness cannot be weighted by {weights}.", "Give three weights, as 1,1,1."
        )
    return w


def _in_gamut(colours: np.ndarray, level: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Colours (N, 3) moved to brightness `level` (N,) along w, then towards its grey until inside."""
    grey = level[:, None]
    chroma = colours - grey
    chroma -= (chroma @ w / (w @ w))[:, None] * w
    room = np.where(chroma > 0, 255 - grey, grey)
    # A hair more room than there is: what rounding adds to no chroma must not count as too much.
    share = (room + 1e-9) / np.maximum(np.abs(chroma), 1e-9)
    return grey + chroma * np.minimum(share.min(axis=1, keepdims=True), 1)


@dataclass(frozen=True)
class _Lattice:
    """The 64 steps {0, 1, 2, 3}³, in groups that change w · colour by the same amount."""

    weights: np.ndarray
    sums: np.ndarray  # (G,) rising
    groups: tuple[np.ndarray, ...]  # G arrays (K, 3)


@functools.lru_cache(maxsize=16)
def _lattice(weights: Weights) -> _Lattice:
    steps = np.array(list(product(range(4), repeat=3)), np.float64)
    # Rounded, because equal sums differ in their last digit.
    w = _checked(weights)
    sums, which = np.unique(np.round(steps @ w, 9), return_inverse=True)
    return _Lattice(w, sums, tuple(steps[which == g] for g in range(len(sums))))


def _rounded(colours: np.ndarray, wanted: np.ndarray, lattice: _Lattice) -> np.ndarray:
    """Whole colours (N, 3) near `colours`, with w · colour as near as can be to `wanted` (N,).

    Of those that are equally near it, the nearest to the colour.
    """
    low = np.clip(np.floor(colours) - 1, 0, 252)
    best = _nearest(lattice.sums, wanted - low @ lattice.weights)
    order = np.argsort(best, kind="stable")
    ends = np.searchsorted(best[order], np.arange(len(lattice.groups) + 1))
    steps = np.empty_like(low)
    for group, start, end in zip(lattice.groups, ends[:-1], ends[1:]):
        rows = order[start:end]
        # ‖colour - step‖², less the part that all steps share.
        away = (group**2).sum(axis=1) - 2 * (colours[rows] - low[rows]) @ group.T
        steps[rows] = group[away.argmin(axis=1)]
    return (low + steps).astype(np.uint8)


def _nearest(sums: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The index of the nearest of `sums` (rising) to each value."""
    return np.searchsorted((sums[1:] + sums[:-1]) / 2, values)
