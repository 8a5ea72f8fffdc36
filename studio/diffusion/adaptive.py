"""The reverse SDE with steps that find their own length, each sample by itself.

A step of Euler-Maruyama, x', is compared with improved Euler's, x'': the mean of x' and of an Euler
step with the slope found at its end. If they agree within the tolerance x'' is taken, else a shorter
step is tried. Noise belongs to the time interval (see noise.py), so after a rejection the sample is
still on the same Brownian path. Drawing anew would favour the harmless draws: the law of the pictures
would be wrong, by half of its width where pictures are small.

Source: Jolicoeur-Martineau et al. 2021, "Gotta Go Fast When Generating Data with Score-Based Models",
algorithm 1, for the pair and the control of the step; the Brownian path is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.conditions import Condition
from studio.diffusion.correctors import Corrector, NoCorrector
from studio.diffusion.noise import Noise
from studio.diffusion.reverse import Reverse, maruyama
from studio.diffusion.sampler import Counted, Sampler, Step, finish
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE, log_snr_at
from studio.errors import SolverError
from studio.lazy import torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor

_FIRST = 0.01  # the first step that is tried
_SAFETY, _EXPONENT = 0.9, 0.9
_SHRINK, _GROW = 0.2, 5.0  # what one attempt may do to the step
_SHORTEST = 1e-7
_MOST_ATTEMPTS = 20_000
_DEPTH = 12  # leaves of the path below the shortest steps that tolerances in range lead to


@dataclass(frozen=True)
class AdaptiveSDE(Sampler):
    """Steps of the reverse SDE that are as long as a tolerance allows, for each picture by itself.
    Use it where you know how exact it must be, but not how many steps that takes.
    """

    title: ClassVar[str] = "Adaptive SDE"
    holds: ClassVar[bool] = False
    behind: ClassVar[bool] = True
    rtol: float = option(
        0.02,
        label="Relative tolerance",
        range=(1e-4, 1.0),
        log=True,
        help="Smaller is finer, slower.",
    )
    atol: float = option(
        0.0078,
        label="Absolute tolerance",
        range=(1e-5, 1.0),
        log=True,
        help="In units of the pixels: .0078 is one of 256 shades in [-1, 1].",
    )
    corrector: Corrector = option(NoCorrector, label="Corrector", help="After each step taken.")

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def depth(self) -> int:
        return _DEPTH

    def cost(self) -> int | None:
        return None

    def _steps(
        self,
        score: Score,
        noise: Noise,
        condition: Condition,
        start: Tensor | None,
        begin: float,
        resume: Step | None,
    ) -> Iterator[Step]:
        counted, eps = Counted(score), score.sde.eps
        if resume is None:
            x = noise.start() * score.sde.prior_std if start is None else start
            batch, index = _begun(x, begin), 0
        else:
            counted.calls, index = resume.nfe, resume.index
            low, clock = resume.memory["low"], resume.memory["clock"]
            batch = _Batch(resume.x, resume.denoised, low, clock)
        while (far := batch.farthest) > eps:
            batch, index = self._attempt(counted.score, condition, noise, batch), index + 1
            if index >= _MOST_ATTEMPTS or batch.stuck(eps):
                raise _stopped(score.sde, far)
            far, calls = batch.farthest, counted.calls
            # How many attempts are to come is a guess from the way done.
            done = max(0.01, (begin - far) / max(1e-9, begin - eps))
            total = max(index + 1, round(index / done))
            yield Step(index, total, far, batch.x, batch.clean, calls, batch.memory())
        guided = condition.guide(counted.score)
        yield finish(guided, batch.x, eps, index, counted, condition, noise)

    def _attempt(self, score: Score, condition: Condition, noise: Noise, batch: _Batch) -> _Batch:
        """Try one step of every sample that has not arrived."""
        eps = score.sde.eps
        rows = (batch.clock[_T] > eps).nonzero().flatten()
        guided, now = _guided(score, condition, batch, rows), batch.of(rows)
        t, h = now.clock[_T], now.clock[_H]
        s = torch.where(t - h > eps, t - h, torch.full_like(t, eps))
        z = noise.increments(rows.tolist(), t.tolist(), s.tolist())
        t_all, s_all, length = (_like(v, now.x) for v in (t, s, t - s))
        rough, fine, clean = _pair(guided, now.x, t_all, s_all, length, z)
        scale = self.rtol * torch.maximum(rough.abs(), now.low.abs())
        error = ((fine - rough) / scale.clamp_min(self.atol)).flatten(1).square().mean(1).sqrt()
        taken = expand(error <= 1, fine)
        # The one look at the device in an attempt.
        clock = _advanced(now.clock, s, error.cpu().double())
        x, low = torch.where(taken, fine, now.x), torch.where(taken, rough, now.low)
        batch = batch.put(rows, _Batch(x, clean, low, clock))
        moved = rows[(clock[_T] < t) & (clock[_T] > eps)]
        if self.corrector.calls and len(moved):
            batch = self._corrected(score, condition, noise, batch, moved)
        return batch

    def _corrected(
        self, score: Score, condition: Condition, noise: Noise, batch: _Batch, rows: Tensor
    ) -> _Batch:
        guided, now = _guided(score, condition, batch, rows), batch.of(rows)
        t = now.clock[_T]
        s = (t - now.clock[_H]).clamp_min(score.sde.eps)
        places = list(zip(rows.tolist(), t.tolist()))

        def draw(k: int) -> Tensor:
            return torch.cat([noise.alone(i).fresh(at, k) for i, at in places])

        x = self.corrector.correct(guided, now.x, _like(t, now.x), _like(s, now.x), draw)
        return batch.put(rows, replace(now, x=x))


_T, _H, _ACCEPTED, _REJECTED = range(4)  # rows of a clock


@dataclass(frozen=True)
class _Batch:
    """Samples, each at its own time: state, denoised estimate, and x' of the step taken last.

    `clock` (4, B), float64 on the host, holds the times, the next steps, and how many attempts were
    accepted and rejected.
    """

    x: Tensor
    clean: Tensor
    low: Tensor
    clock: Tensor

    @property
    def farthest(self) -> float:
        return float(self.clock[_T].max())

    def stuck(self, eps: float) -> bool:
        return bool(((self.clock[_T] > eps) & (self.clock[_H] < _SHORTEST)).any())

    def memory(self) -> dict[str, Tensor]:
        """What a Step keeps: the times where x is, the counts of attempts, and what resuming needs."""
        accepted, rejected = self.clock[_ACCEPTED].long(), self.clock[_REJECTED].long()
        kept = {"t": _like(self.clock[_T], self.x), "low": self.low, "clock": self.clock}
        return kept | {"accepted": accepted, "rejected": rejected}

    def of(self, rows: Tensor) -> _Batch:
        """The samples `rows` only."""
        if len(rows) == len(self.x):
            return self
        at = rows.to(self.x.device, non_blocking=True)
        return _Batch(self.x[at], self.clean[at], self.low[at], self.clock[:, rows])

    def put(self, rows: Tensor, part: _Batch) -> _Batch:
        """With the samples `rows` replaced by those of `part`."""
        if len(rows) == len(self.x):
            return part
        at = rows.to(self.x.device, non_blocking=True)
        x, clean, low = (
            whole.index_copy(0, at, some)
            for whole, some in zip((self.x, self.clean, self.low), (part.x, part.clean, part.low))
        )
        return _Batch(x, clean, low, self.clock.index_copy(1, rows, part.clock))


def _begun(x: Tensor, begin: float) -> _Batch:
    clock = torch.zeros(4, len(x), dtype=torch.float64)
    clock[_T], clock[_H] = begin, _FIRST
    return _Batch(x, x, x, clock)


def _pair(
    score: Score, x: Tensor, t: Tensor, s: Tensor, h: Tensor, z: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Euler-Maruyama's step, improved Euler's along the same noise, and the denoised estimate at t."""
    sde = Reverse(score)
    drift = sde.drift(x, t)
    rough = maruyama(x, t, h, drift, sde.diffusion, z)
    other = maruyama(x, s, h, sde.drift(rough, s), sde.diffusion, z)
    return rough, (rough + other) / 2, sde.denoised(x, t, drift)


def _advanced(clock: Tensor, s: Tensor, error: Tensor) -> Tensor:
    """The clock after an attempt to come to times s with these errors, in units of the tolerance."""
    good = error <= 1
    factor = _SAFETY * error.clamp_min(1e-8) ** -_EXPONENT
    factor = torch.where(torch.isfinite(error), factor.clamp(_SHRINK, _GROW), _SHRINK)
    h = (clock[_T] - s) * factor
    t = torch.where(good, s, clock[_T])
    return torch.stack([t, h, clock[_ACCEPTED] + good, clock[_REJECTED] + ~good])


def _guided(score: Score, condition: Condition, batch: _Batch, rows: Tensor) -> Score:
    """The guided score of the samples `rows`: only they are given to the network."""
    if len(rows) < len(batch.x):
        condition = condition.of(rows.tolist())
    return condition.guide(score)


def _like(v: Tensor, x: Tensor) -> Tensor:
    """v, from the host, in the precision of x and where x is."""
    return v.to(x.dtype).to(x.device, non_blocking=True)


def _stopped(sde: SDE, t: float) -> SolverError:
    snr = log_snr_at(sde, t)
    return SolverError(
        f"The adaptive solver is stuck at t = {t:.3g} (log-SNR {snr:.1f}): no step is short enough.",
        "Loosen the tolerances, or choose a sampler with fixed steps.",
    )
