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
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from studio.diffusion.sde import FIRST_TIME, SDE, log_snr_at
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

_START, _PATH, _FRESH = 0, 1, 2  # streams of one sample's generator
_MASK = 2**64 - 1


@dataclass(frozen=True)
class Noise:
    """The noise of a batch: one path for each seed. Deterministic on every device.

    `branches` lists (time, seed): below that time, the path is the one of that seed. `temperature`
    is the deviation of what is called unit noise here: below 1, pictures vary less.
    """

    seeds: tuple[int, ...]
    shape: tuple[int, int, int]  # C, H, W of one sample
    sde: SDE
    device: str = "cpu"
    dtype: torch.dtype | None = None  # float32 if not given
    depth: int = 10
    branches: tuple[tuple[float, int], ...] = ()
    temperature: float = 1.0
    _clock: _Clock = field(init=False, repr=False, compare=False)
    _paths: dict[tuple[int, ...], _Path] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _alone: dict[int, Noise] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        return self._placed(_normals(self.seeds, _START, 0, 0, self.shape))

    def increment(self, t: float, s: float) -> Tensor:
        """Unit-variance increments of the paths from time t to time s < t, (B, C, H, W)."""
        clock = self._clock
        variance = clock.tau(clock.place(t)) - clock.tau(clock.place(s))
        # Between two branchings the path is one and the same; such stretches add up.
        cuts = [t, *sorted((b for b, _ in self.branches if s < b < t), reverse=True), s]
        changes = [self._path_at(high).change(high, low) for high, low in pairwise(cuts)]
        change = torch.stack(changes).sum(0) if len(changes) > 1 else changes[0]
        return self._placed(change / math.sqrt(variance) if variance > 0 else change)

    def fresh(self, t: float, use: int) -> Tensor:
        """Unit noise of its own, apart from the path, for the `use`-th need at time t."""
        (place,) = struct.unpack("<Q", struct.pack("<d", t))
        return self._placed(_normals(self._seeds_at(t), _FRESH, place, use, self.shape))

    def alone(self, i: int) -> Noise:
        """The noise of sample i without its batch-mates."""
        if i not in self._alone:
            self._alone[i] = replace(self, seeds=self.seeds[i : i + 1])
        return self._alone[i]

    def increments(self, rows: Sequence[int], t: Sequence[float], s: Sequence[float]) -> Tensor:
        """As `increment`, for the samples `rows` only, each from a time of its own to another."""
        parts = [self.alone(i).increment(*ends) for i, *ends in zip(rows, t, s)]
        return torch.cat(parts)

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
            self.temperature,
        )

    def _path_at(self, t: float) -> _Path:
        """The paths of all samples just below time t."""
        seeds = self._seeds_at(t)
        if seeds not in self._paths:
            self._paths[seeds] = _Path(seeds, self.shape, self._clock, self.depth)
        return self._paths[seeds]

    def _seeds_at(self, t: float) -> tuple[int, ...]:
        seeds = self.seeds
        for branched, other in self.branches:
            if t <= branched:
                seeds = tuple(_mixed(seed, other) for seed in seeds)
        return seeds

    def _placed(self, noise: Tensor) -> Tensor:
        if self.temperature != 1:
            noise = noise * self.temperature
        return noise.to(self.device, self.dtype or torch.float32, non_blocking=True)


def path_depth(steps: int) -> int:
    """Halvings of a path for a sampler with `steps` steps: leaves of about a step.

    Deeper paths cost a normal draw for each level. Paths of one seed agree at every depth, up to the
    fine structure inside the coarser one's leaves.
    """
    return min(14, max(6, math.ceil(math.log2(max(1, steps)))))


@dataclass(frozen=True)
class _Clock:
    """tau = sigma² against u in [0, 1], the place of ln(sigma) between the first time and 1."""

    sde: SDE
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", _log_sigma(self.sde, FIRST_TIME))
        object.__setattr__(self, "high", _log_sigma(self.sde, 1.0))

    def place(self, t: float) -> float:
        u = (_log_sigma(self.sde, t) - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, u))

    def tau(self, u: float) -> float:
        return math.exp(2 * (self.low + u * (self.high - self.low)))


def _log_sigma(sde: SDE, t: float) -> float:
    return -log_snr_at(sde, t) / 2


class _Path:
    """W(tau) of a batch, (B, C, H, W); W is zero at the first time. Keeps the last way down the tree."""

    def __init__(
        self, seeds: tuple[int, ...], shape: tuple[int, ...], clock: _Clock, depth: int
    ) -> None:
        self._seeds, self._shape, self._clock, self._depth = seeds, shape, clock, depth
        span = clock.tau(1.0) - clock.tau(0.0)
        self._end = self._draw(0, 0) * math.sqrt(span)
        self._last: dict[float, Tensor] = {}
        self._nodes: dict[tuple[int, int], Tensor] = {}  # (level, index) -> W at its middle

    def change(self, t: float, s: float) -> Tensor:
        """W at time t minus W at time s < t."""
        high, low = self._clock.place(t), self._clock.place(s)
        upper, lower = self._value(high), self._value(low)
        self._last = {high: upper, low: lower}
        return upper - lower

    def _value(self, u: float) -> Tensor:
        """W at place u, by descending to u's leaf."""
        if (known := self._last.get(u)) is not None:
            return known
        place, left, right = 0, torch.zeros_like(self._end), self._end
        u_left, u_right = 0.0, 1.0
        used: dict[tuple[int, int], Tensor] = {}
        for level in range(self._depth):
            u_middle = (u_left + u_right) / 2
            middle = self._nodes.get((level, place))
            if middle is None:
                middle = self._between(left, right, (u_left, u_middle, u_right), level, place)
            used[level, place] = middle
            if u < u_middle:
                right, u_right, place = middle, u_middle, 2 * place
            else:
                left, u_left, place = middle, u_middle, 2 * place + 1
        self._nodes = used
        if u in (u_left, u_right):
            return left if u == u_left else right
        return self._between(left, right, (u_left, u, u_right), self._depth, place)

    def _between(
        self, left: Tensor, right: Tensor, u: tuple[float, float, float], level: int, place: int
    ) -> Tensor:
        """A draw from the Brownian bridge at the middle of `u`, between W at its ends."""
        low, now, high = (self._clock.tau(v) for v in u)
        std = math.sqrt((now - low) * (high - now) / (high - low))
        drawn = self._draw(level + 1, place)
        return torch.lerp(left, right, (now - low) / (high - low)).add_(drawn, alpha=std)

    def _draw(self, level: int, place: int) -> Tensor:
        return _normals(self._seeds, _PATH, level, place, self._shape)


def _normals(
    seeds: Sequence[int], stream: int, place: int, use: int, shape: tuple[int, ...]
) -> Tensor:
    """Unit normals (B, *shape), each sample's addressed by (its seed, stream, place, use).

    Made on the CPU whatever the device. The generator keeps 32 bits of an address: of the few
    thousand draws of a run two may share their numbers, at places that have nothing to do with each
    other. It is three times faster than a counter-based one, and this is a stepping sampler's
    largest cost after the network.
    """
    generator = torch.Generator()
    out = torch.empty(len(seeds), *shape)
    for row, seed in zip(out, seeds):
        address = _mixed(_mixed(_mixed(seed, stream), place), use)
        torch.randn(shape, generator=generator.manual_seed(address >> 32), out=row)
    return out


def _mixed(seed: int, other: int) -> int:
    """A new 64-bit number from two: the finalizer of SplitMix64 (Steele et al. 2014)."""
    z = (seed * 0x9E3779B97F4A7C15 + other + 1) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
