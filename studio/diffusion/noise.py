"""Noise as a function of (seed, sample, time interval): a Brownian path that can be refined.

A sample's path is W(tau), Brownian in the clock tau = sigma² (the variance that noising has added to
y = x / a). A step from t to s < t asks for W(tau_t) - W(tau_s), scaled to unit variance. So a picture
does not depend on its batch-mates, a run can stop, rewind and branch, two samplers can share one
path, and more steps follow the same path more closely.

The path is built by halving intervals of ln(sigma): the middle is drawn from the Brownian bridge
between the ends, from a generator addressed by (seed, stream, place). At `depth` halvings, a last
bridge draw serves every time inside the leaf, so W is one definite function of tau whatever is asked,
in whatever order; increments across a leaf's border have exactly the right law.

Source: the idea of a virtual Brownian tree, Li et al. 2020, "Scalable Gradients for SDEs", section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from studio.diffusion.sde import FIRST_TIME, SDE
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_START, _PATH, _FRESH = 0, 1, 2  # streams of one sample's generator
_MASK = 2**64 - 1


@dataclass(frozen=True)
class Noise:
    """The noise of a batch: one path for each seed. Deterministic on every device.

    `branches` lists (time, seed): below that time, the path is the one of that seed.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, int, int]  # C, H, W of one sample
    sde: SDE
    device: str = "cpu"
    dtype: torch.dtype | None = None  # float32 if not given
    depth: int = 10
    branches: tuple[tuple[float, int], ...] = ()
    _clock: _Clock = field(init=False, repr=False, compare=False)
    _paths: dict[int, _Path] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_clock", _Clock(self.sde))

    @staticmethod
    def of(
        seed: int, count: int, shape: tuple[int, int, int], sde: SDE, **options: object
    ) -> Noise:
        """Noise for `count` samples: sample i has the seed `seed + i`."""
        return Noise(tuple(range(seed, seed + count)), shape, sde, **options)  # type: ignore[arg-type]

    def start(self) -> Tensor:
        """Unit noise to begin from, (B, C, H, W)."""
        return self._stack([_normal(s, _START, 0, 0, self.shape) for s in self.seeds])

    def increment(self, t: float, s: float) -> Tensor:
        """Unit-variance increments of the paths from time t to time s < t, (B, C, H, W)."""
        clock = self._clock
        variance = clock.tau(clock.place(t)) - clock.tau(clock.place(s))
        scale = np.float32(math.sqrt(variance) if variance > 0 else 1.0)
        # Between two branchings the path is one and the same; such stretches add up.
        cuts = [t, *sorted((b for b, _ in self.branches if s < b < t), reverse=True), s]
        stretches = [(self._paths_at(high), high, low) for high, low in pairwise(cuts)]
        return self._stack(
            [
                sum(paths[i].change(high, low) for paths, high, low in stretches) / scale
                for i in range(len(self.seeds))
            ]
        )

    def fresh(self, t: float, use: int) -> Tensor:
        """Unit noise of its own, apart from the path, for the `use`-th need at time t."""
        place = int(np.float64(t).view(np.uint64))
        return self._stack(
            [_normal(s, _FRESH, place, use, self.shape) for s in self._path_seeds_at(t)]
        )

    def branch(self, t: float, seed: int) -> Noise:
        """The same noise down to time t, and other noise below it."""
        return Noise(
            self.seeds,
            self.shape,
            self.sde,
            self.device,
            self.dtype,
            self.depth,
            (*self.branches, (t, seed)),
        )

    def _paths_at(self, t: float) -> list[_Path]:
        """The paths of all samples just below time t."""
        for seed in (seeds := self._path_seeds_at(t)):
            if seed not in self._paths:
                self._paths[seed] = _Path(seed, self.shape, self._clock, self.depth)
        return [self._paths[seed] for seed in seeds]

    def _path_seeds_at(self, t: float) -> list[int]:
        taken = tuple(b for b in self.branches if t <= b[0])
        return [self._mixed(s, taken) for s in self.seeds]

    @staticmethod
    def _mixed(seed: int, branches: Sequence[tuple[float, int]]) -> int:
        for _, other in branches:
            seed = (seed * 0x9E3779B97F4A7C15 + other + 1) & _MASK
        return seed

    def _stack(self, samples: list[np.ndarray]) -> Tensor:
        batch = torch.from_numpy(np.stack(samples))
        return batch.to(self.device, self.dtype or torch.float32, non_blocking=True)


def path_depth(steps: int) -> int:
    """Halvings of a path for a sampler with `steps` steps: leaves of about half a step.

    Deeper paths cost a normal draw for each level. Paths of one seed agree at every depth, up to the
    fine structure inside the coarser one's leaves.
    """
    return min(14, max(6, math.ceil(math.log2(2 * max(1, steps)))))


@dataclass(frozen=True)
class _Clock:
    """tau = sigma² against u in [0, 1], the place of ln(sigma) between the first time and 1."""

    sde: SDE
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", self._log_sigma(FIRST_TIME))
        object.__setattr__(self, "high", self._log_sigma(1.0))

    def _log_sigma(self, t: float) -> float:
        return math.log(float(self.sde.sigma(torch.tensor([t], dtype=torch.float64))))

    def place(self, t: float) -> float:
        u = (self._log_sigma(t) - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, u))

    def tau(self, u: float) -> float:
        return math.exp(2 * (self.low + u * (self.high - self.low)))


class _Path:
    """W(tau) of one sample; W is zero at the first time. Keeps the branch of the tree last used."""

    def __init__(self, seed: int, shape: tuple[int, ...], clock: _Clock, depth: int) -> None:
        self._seed, self._shape, self._clock, self._depth = seed, shape, clock, depth
        self._last: dict[float, np.ndarray] = {}
        self._nodes: dict[tuple[int, int], np.ndarray] = {}  # (level, index) -> W at its middle

    def change(self, t: float, s: float) -> np.ndarray:
        """W at time t minus W at time s < t."""
        high, low = self._clock.place(t), self._clock.place(s)
        upper, lower = self._value(high), self._value(low)
        self._last = {high: upper, low: lower}
        return upper - lower

    def _value(self, u: float) -> np.ndarray:
        """W at place u, by descending to u's leaf."""
        if (known := self._last.get(u)) is not None:
            return known
        tau, place = self._clock.tau, 0
        left, right = np.zeros(self._shape, np.float32), self._end()
        u_left, u_right = 0.0, 1.0
        used: dict[tuple[int, int], np.ndarray] = {}
        for level in range(self._depth):
            u_middle = (u_left + u_right) / 2
            middle = self._nodes.get((level, place))
            if middle is None:
                middle = self._between(left, right, u_left, u_middle, u_right, level, place)
            used[level, place] = middle
            if u < u_middle:
                right, u_right, place = middle, u_middle, 2 * place
            else:
                left, u_left, place = middle, u_middle, 2 * place + 1
        self._nodes = used
        if tau(u) in (tau(u_left), tau(u_right)):
            return left if tau(u) == tau(u_left) else right
        return self._between(left, right, u_left, u, u_right, self._depth, place)

    def _end(self) -> np.ndarray:
        span = self._clock.tau(1.0) - self._clock.tau(0.0)
        return _normal(self._seed, _PATH, 0, 0, self._shape) * np.float32(math.sqrt(span))

    def _between(
        self,
        left: np.ndarray,
        right: np.ndarray,
        u_left: float,
        u: float,
        u_right: float,
        level: int,
        place: int,
    ) -> np.ndarray:
        """A draw from the Brownian bridge at u, between W at u_left and at u_right."""
        low, now, high = (self._clock.tau(v) for v in (u_left, u, u_right))
        share = (now - low) / (high - low)
        std = math.sqrt((now - low) * (high - now) / (high - low))
        z = _normal(self._seed, _PATH, level + 1, place, self._shape)
        z *= np.float32(std)
        z += left * np.float32(1 - share)
        z += right * np.float32(share)
        return z


def _normal(seed: int, stream: int, place: int, use: int, shape: tuple[int, ...]) -> np.ndarray:
    """Unit normals addressed by four numbers: a counter-based generator, keyed and placed."""
    bits = np.random.Philox(key=[seed & _MASK, stream], counter=[0, 0, use & _MASK, place & _MASK])
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)
