"""How much likelier each pixel became along a run on the flow, measured at the exact states kept of it.

Along the probability flow the log density of a state changes by the divergence of the flow, a sum over
its values (see diffusion/likelihood.py). From noise to a state, that sum is told pixel by pixel, in
nats. Where two states lie far apart, the rate is measured at places between them, too.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from studio.diffusion.flow import NoiseClock
from studio.diffusion.likelihood import density_rate
from studio.diffusion.noise import Noise
from studio.diffusion.score import expand
from studio.engine.events import Event, Failed, Note, Progress
from studio.engine.jobs import SampleJob
from studio.engine.trajectory import State
from studio.errors import SpecError, StudioError
from studio.lazy import no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor

    from studio.engine.engine import Context

_PROBES = 2  # at each place; each place has others
_LONGEST = 0.5  # of ln(sigma) from one place to the next
_PROBE = -3.0  # an address of fresh noise where no sampler is
_AT_ONCE = 8  # pictures
_BUDGET = 64 * 2**20  # bytes of the maps of a run


@dataclass(frozen=True)
class Density(Event):
    """By how much the log density has grown from noise to the moment `log_snr`: float16 (N, H, W), in
    nats a pixel."""

    log_snr: float
    map: np.ndarray


@dataclass(frozen=True, eq=False)
class Followed:
    """A lane on the flow: what it is run with, and states of it."""

    lane: int
    job: SampleJob
    states: tuple[State, ...]


@dataclass(frozen=True, eq=False)
class DensityJob:
    """Measures lanes side by side, from noise on: Density and Progress. A lane that cannot be measured is
    told as Failed. Waits while anything else would run."""

    background: ClassVar[bool] = True
    lanes: tuple[Followed, ...]

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note("Following the density along the flow")
        lanes: list[_Lane] = []
        for followed in self.lanes:
            try:
                lanes.append(_Lane(followed, context))
            except StudioError as error:
                yield Failed(error.message, error.hint, lane=followed.lane)
        nodes = sorted(
            ((state.log_snr, lane, i) for lane in lanes for i, state in enumerate(lane.states)),
            key=lambda node: node[0],
        )
        for done, (log_snr, lane, i) in enumerate(nodes, 1):
            told = lane.measured(i)
            yield Density(log_snr, told, lane=lane.number)
            yield Progress(done, len(nodes), log_snr=log_snr, lane=lane.number)


@dataclass(frozen=True, eq=False)
class _Point:
    """A state x and its denoised estimate, (B, C, H, W), and the clock ln(sigma) of each sample, (B,)."""

    x: Tensor
    clean: Tensor
    u: Tensor

    def at(self, other: _Point, share: float, clock: NoiseClock) -> tuple[Tensor, Tensor]:
        """(state, time) that share of the way to another point: estimates change evenly between two, and
        for a fixed one the flow is known."""
        u = torch.lerp(self.u, other.u, share)
        times = [clock.time(v) for v in (self.u, u)]
        (a0, s0), (a, s) = (clock.sde.marginal(t) for t in times)
        clean = torch.lerp(self.clean, other.clean, share)
        a0, s0, a, s = (expand(v.to(self.x), self.x) for v in (a0, s0, a, s))
        return a * clean + s / s0 * (self.x - a0 * clean), times[1].to(self.x)


class _Lane:
    """A lane on its way."""

    def __init__(self, followed: Followed, context: Context) -> None:
        job = followed.job
        self.number, self.device = followed.lane, context.device
        score = job.score(context)
        if not score.continuous:
            raise SpecError(
                "This network knows a fixed set of noise levels and tells no densities."
            )
        if not followed.states:
            raise SpecError("No exact states of this lane were kept.", "Run the race again.")
        self.known = job.condition(score, context.device)
        self.score, self.clock = score, NoiseClock(score.sde)
        self.noise = Noise.of(job.seed, job.count, score.shape, score.sde, device=context.device)
        h, w = score.shape[1:]
        self.states = _evenly(followed.states, _BUDGET // (2 * job.count * h * w))
        self.gained = np.zeros((job.count, h, w), np.float64)
        self._last: _Point | None = None
        self._rate_there: np.ndarray | None = None
        self._asked = 0

    def measured(self, node: int) -> np.ndarray:
        """The change up to a state; asked of one after the other."""
        now = self._point(self.states[node])
        last = self._start(now) if self._last is None else self._last
        fallen = (last.u - now.u).cpu().numpy()
        count = max(1, math.ceil(fallen.max() / _LONGEST))
        for k in range(1, count + 1):
            x, t = (now.x, self.clock.time(now.u).to(now.x))
            if k < count:
                x, t = last.at(now, k / count, self.clock)
            rate = self._rate(x, t)
            before = rate if self._rate_there is None else self._rate_there
            self.gained += fallen[:, None, None] / count * (rate + before) / 2
            self._rate_there = rate
        self._last = now
        return self.gained.astype(np.float16)

    def _point(self, state: State) -> _Point:
        step = state.step(self.device)
        t = step.memory.get("t", step.x.new_full((len(step.x),), step.t))
        return _Point(step.x, step.denoised, self.score.sde.sigma(t.double()).log())

    def _start(self, first: _Point) -> _Point:
        """Where the lane began, as the flow leads back from its first state, and the rate there."""
        noisy = replace(first, u=torch.full_like(first.u, self.clock.at(1.0)))
        x, t = first.at(noisy, 1.0, self.clock)
        self._rate_there = self._rate(x, t)
        return replace(noisy, x=x)

    def _rate(self, x: Tensor, t: Tensor) -> np.ndarray:
        """Nats a pixel for each unit of the clock, (B, H, W)."""
        uses = range(self._asked * _PROBES, (self._asked + 1) * _PROBES)
        self._asked += 1
        return np.concatenate([self._some(x, t, part, uses) for part in _parts(len(t))])

    @no_grad
    def _some(self, x: Tensor, t: Tensor, part: range, uses: range) -> np.ndarray:
        rows = slice(part.start, part.stop)
        noise = replace(self.noise, seeds=self.noise.seeds[rows])
        probes = torch.stack([noise.fresh(_PROBE, use) for use in uses])
        probes = torch.where(probes < 0, -1.0, 1.0).to(x)
        guided = self.known.of(part).guide(self.score)
        found = density_rate(guided, x[rows], t[rows], probes)
        return found.sum(1).double().cpu().numpy()


def _parts(count: int) -> list[range]:
    return [range(i, min(i + _AT_ONCE, count)) for i in range(0, count, _AT_ONCE)]


def _evenly(states: Sequence[State], most: int) -> list[State]:
    """No more than `most` of the states, two at least, the last among them."""
    most = max(2, most)
    if len(states) <= most:
        return list(states)
    places = np.linspace(0, len(states) - 1, most).round().astype(int)
    return [states[i] for i in places]
