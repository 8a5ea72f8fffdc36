"""What is watched while a model trains: the loss by noise level, how well pictures are known that were
never learned from, and whether those learned from are learned by heart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studio.diffusion import pictures
from studio.diffusion.bound import bits_bound
from studio.diffusion.objective import Noised, Objective
from studio.diffusion.objectives import LikelihoodWeighted
from studio.diffusion.sde import FIRST_TIME, SDE
from studio.lazy import no_grad, torch
from studio.training.draws import Draws
from studio.training.feed import coloured
from studio.training.plan import Training
from studio.weights.model import ModelInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

    from studio.training.data import Pictures

LEVELS = 12
_KEEP = 0.99
_ENOUGH = 32  # pictures seen of a level, from which on its loss says how it stands
_POINTS = 128, 256  # (picture, noise level) pairs that loss and bits are measured at
_AT_ONCE = 32
_NO_STEP = 1 << 40  # whose noise no step of a training has
_MOST, _CHUNK = 20_000, 1024  # pictures that samples are compared with, and at once
_SIDE = 32  # pixels of the pictures that are compared


class LevelLosses:
    """The loss by noise level, smoothed over the last hundred steps or so. `first` is what it was, once
    enough had been seen of every level to say so; nan before."""

    def __init__(self, sde: SDE) -> None:
        ends = torch.tensor([FIRST_TIME, 1.0], dtype=torch.float64)
        low, high = sde.sigma(ends).log().tolist()
        self.edges = np.linspace(low, high, LEVELS + 1)
        self._sum, self._weight = np.zeros(LEVELS), np.zeros(LEVELS)
        self.seen = np.zeros(LEVELS, np.int64)
        self.first = np.full(LEVELS, math.nan)

    def add(self, levels: Tensor, losses: Tensor) -> None:
        """Take note of ln(sigma) and the loss of pictures, (n,) each."""
        at = np.digitize(levels.cpu().numpy(), self.edges[1:-1])
        values = losses.float().cpu().numpy()
        there = np.isfinite(values)
        count = np.bincount(at[there], minlength=LEVELS)
        self._sum = _KEEP * self._sum + np.bincount(at[there], values[there], LEVELS)
        self._weight = _KEEP * self._weight + count
        self.seen += count
        known = not np.isnan(self.first).all()
        if there.any() and not known and np.median(self.seen[self.seen > 0]) >= _ENOUGH:
            self.first = self.loss

    @property
    def loss(self) -> np.ndarray:
        """(LEVELS,), nan where none was seen."""
        return np.divide(
            self._sum, self._weight, out=np.full(LEVELS, math.nan), where=self._weight > 1e-9
        )

    @property
    def rows(self) -> list[tuple[float, ...]]:
        """A row a level: its ends (ln sigma), loss, weight of the loss, pictures seen, first loss."""
        columns = self.edges[:-1], self.edges[1:], self.loss, self._weight, self.seen, self.first
        return [tuple(map(float, row)) for row in zip(*columns)]

    def go_on(self, rows: list[tuple[float, ...]]) -> None:
        """Go on from the rows of an earlier part of the run, if they are of these levels."""
        table = np.array(rows)
        if table.shape != (LEVELS, 6) or not np.allclose(table[:, 0], self.edges[:-1], atol=1e-3):
            return
        loss, weight, seen, first = table[:, 2:].T
        self._sum, self._weight = np.nan_to_num(loss) * np.nan_to_num(weight), np.nan_to_num(weight)
        self.seen, self.first = np.nan_to_num(seen).astype(np.int64), first


# -- pictures that were not learned from ----------------------------------------------------------


class HeldOut:
    """Measures a network on pictures that it does not learn from, always with the same noise, so that
    figures of different steps can be compared."""

    def __init__(
        self, data: Pictures, info: ModelInfo, plan: Training, device: str, effort: float = 1.0
    ) -> None:
        """`effort` up to 1: how many of the usual (picture, noise level) pairs are measured."""
        self._info, self._plan, self._device = info, plan, device
        self._points, self._bits_points = (max(16, round(effort * n)) for n in _POINTS)
        rng = np.random.default_rng(plan.seed)
        chosen = np.linspace(0, len(data) - 1, min(len(data), max(_POINTS))).astype(np.int64)
        self._pixels = coloured(torch.from_numpy(_plain(data, chosen, rng)), info.colours)
        known = bool(data.classes) and data.classes == info.classes
        self._labels = torch.from_numpy(data.labels[chosen]) if known else None

    @no_grad
    def measure(self, net: nn.Module) -> tuple[float, float]:
        """(loss, bound on the bits per dimension)."""
        span = self._info.value_range
        x = pictures.to_state(self._pixels, span)
        losses = self._losses(net, self._plan.objective, self._points, x)
        share = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
        spread = pictures.dequantized(self._pixels, span, share)
        errors = self._losses(net, LikelihoodWeighted(), self._bits_points, spread)
        return float(losses.double().mean()), bits_bound(self._info.sde, spread, errors, span)

    def _losses(self, net: nn.Module, objective: Objective, points: int, x_0: Tensor) -> Tensor:
        """Losses (points,) by an objective, of the pictures in turn."""
        plan, info, found = self._plan, self._info, []
        draws = Draws(plan.seed, _NO_STEP, points)
        kind = torch.device(self._device).type
        for first in range(0, points, _AT_ONCE):
            part = range(first, min(points, first + _AT_ONCE))
            which = torch.arange(part.start, part.stop) % len(x_0)
            x = x_0[which].to(self._device)
            t = objective.times(draws.u[part.start : part.stop].to(x), info.sde)
            noised = Noised.of(info.sde, x, t, draws.noise(part, tuple(x.shape[1:]), self._device))
            y = None if self._labels is None else self._labels[which].to(self._device)
            with torch.autocast(kind, torch.bfloat16, plan.precision == "bf16"):
                losses = objective.weighted(
                    net, info.output, info.sde, noised, y, draws.dice(first)
                )
            found.append(losses.float().cpu())
        return torch.cat(found)


# -- learned by heart -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Nearest:
    """Of each sample the nearest picture learned from, uint8 (N, H, W, C), and how far it is (N,), as
    root mean square of the difference in grey levels; and how much of all this is learned by heart."""

    pictures: np.ndarray
    distance: np.ndarray
    memorised: float


class Memory:
    """The pictures learned from, to find the nearest of each sample among.

    How far a picture is from those when it was not learned from, the held-out ones tell. A sample that
    is much nearer than that was not made up. `memorised` goes from 0, as far as held-out pictures or
    farther, to 1, copies; nan where nothing was held out.
    """

    def __init__(self, learned: Pictures, held: Pictures, mirrored: bool, seed: int = 0) -> None:
        self._learned, self._seed = learned, seed
        self._places = np.arange(len(learned))
        if len(learned) > _MOST:
            rng = np.random.default_rng(seed)
            self._places = np.sort(rng.choice(self._places, _MOST, replace=False))
        self._turns = (1, -1) if mirrored else (1,)
        starts = range(0, len(self._places), _CHUNK)
        self._small = [_reduced(self._chunk(first)) for first in starts]
        self._usual = math.nan
        if len(held):
            some = _plain(held, np.arange(min(len(held), 256)), np.random.default_rng(seed))
            self._usual = float(np.quantile(self._find(some)[1], 0.1))

    def nearest(self, samples: np.ndarray) -> Nearest:
        """Of uint8 samples (N, H, W, C)."""
        where, distance = self._find(samples)
        found = [
            self._chunk(place - place % _CHUNK)[place % _CHUNK][:, ::turn] for place, turn in where
        ]
        near = np.maximum(0.0, 1 - distance / self._usual) if self._usual > 0 else math.nan
        return Nearest(np.stack(found), distance, float(np.mean(near)))

    def _chunk(self, first: int) -> np.ndarray:
        """Some of the pictures; the same ones however often they are asked for."""
        rng = np.random.default_rng((self._seed, first))
        return _plain(self._learned, self._places[first : first + _CHUNK], rng)

    def _find(self, samples: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
        """(which is nearest and the way it is turned, how far it is) of each."""
        small = _reduced(_like(samples, self._learned.colours))
        best = np.full(len(small), np.inf, np.float32)
        where = [(0, 1)] * len(small)
        for turn in self._turns:
            x = _unit(small[:, :, ::turn])
            for k, chunk in enumerate(self._small):
                y = _unit(chunk)
                square = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
                for i in np.flatnonzero(square.min(1) < best):
                    best[i] = square[i].min()
                    where[i] = k * _CHUNK + int(square[i].argmin()), turn
        return where, 255 * np.sqrt(np.maximum(best, 0) / small[0].size)


def _plain(data: Pictures, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures as they are where they stand still, else as they were drawn once."""
    still = data.choices.framing == "centre"
    return np.asarray(data.pixels[places]) if still else data.draw(places, rng)


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """Pictures uint8 (N, H, W, C), no larger than is compared."""
    if pixels.shape[1] <= _SIDE:
        return pixels
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.adaptive_avg_pool2d(x, _SIDE).round().to(torch.uint8)
    return small.permute(0, 2, 3, 1).numpy()


def _unit(pixels: np.ndarray) -> np.ndarray:
    """float32 (N, D), from -1/2 to 1/2."""
    return pixels.reshape(len(pixels), -1).astype(np.float32) / 255 - 0.5


def _like(pixels: np.ndarray, colours: int) -> np.ndarray:
    return coloured(torch.from_numpy(np.ascontiguousarray(pixels)), colours).numpy()


def largest_distance(data: Pictures, info: ModelInfo, seed: int = 0) -> float:
    """About the largest Euclidean distance of two pictures in the model's value range: what sigma_max of
    a variance-exploding SDE should be. Exact for up to 1024 pictures, else of a sample and of the
    farthest found from its ends among all. Never too large.

    Source: Song and Ermon 2020, "Improved Techniques for Training Score-Based Generative Models",
    technique 1.
    """
    rng = np.random.default_rng(seed)
    low, high = info.value_range
    chosen = np.arange(len(data))
    if len(chosen) > 1024:
        chosen = np.sort(rng.choice(chosen, 1024, replace=False))
    x = _flat(data, chosen, info)
    square = (x**2).sum(1)[:, None] + (x**2).sum(1)[None] - 2 * x @ x.T
    most = float(square.max())
    for end in np.unravel_index(square.argmax(), square.shape) if len(chosen) < len(data) else ():
        for first in range(0, len(data), 1024):
            y = _flat(data, np.arange(first, min(first + 1024, len(data))), info)
            most = max(most, float(((y - x[end]) ** 2).sum(1).max()))
    return math.sqrt(max(0.0, most)) * (high - low)


def _flat(data: Pictures, places: np.ndarray, info: ModelInfo) -> np.ndarray:
    return _unit(_like(_plain(data, places, np.random.default_rng(0)), info.colours))
