"""Samplers that are Langevin dynamics and nothing else: at one noise level, or down a row of them.

In y = x / a, whose noise level is sigma, a step of size e sigma² is
y + e sigma² score_y + sigma sqrt(2 e) z; in x that is x + e s² score + s sqrt(2 e) z, for every SDE.

Sources: Song and Ermon 2019, "Generative Modeling by Estimating Gradients of the Data Distribution",
algorithm 1; Song and Ermon 2020, "Improved Techniques for Training Score-Based Generative Models",
techniques 2 (how many levels) and 4 (step size), and the denoising at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.conditions import Condition
from studio.diffusion.correctors import langevin_step
from studio.diffusion.grids import UniformLogSNR
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Counted, Lookout, Sampler, Step, finish
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE
from studio.errors import SpecError
from studio.lazy import torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LangevinDynamics(Sampler):
    """Plain Langevin dynamics at one noise level, denoised at the end. Use it to see why pictures
    need many levels: at a low one it hardly moves, at a high one detail is lost.
    """

    title: ClassVar[str] = "Langevin dynamics"
    steps: int = option(500, label="Steps", range=(1, 100_000), help="Network calls.")
    sigma: float = option(
        0.3, label="Noise level σ", range=(1e-4, 1e4), log=True, help="Of a picture in [-1, 1]."
    )
    snr: float = option(
        0.3,
        label="Signal-to-noise",
        range=(0.001, 1.0),
        help="A step is 2 snr² σ²: larger moves further and is less exact.",
    )

    @property
    def stochastic(self) -> bool:
        return True

    def cost(self) -> int:
        return self.steps + 1

    def _steps(
        self,
        score: Score,
        noise: Noise,
        condition: Condition,
        start: Tensor | None,
        begin: float,
        resume: Step | None,
    ) -> Iterator[Step]:
        level = _time_of(score.sde, self.sigma)
        counted = Counted(score)
        guided = condition.guide(counted.score)
        if resume is None:
            first, x = 0, self._start(score, noise, start, begin, level)
            x = condition.constrain(x, level, score.sde, noise)
        else:
            first, x, counted.calls = resume.index, resume.x, resume.nfe
        t = x.new_full((len(x),), level)
        size = 2 * (self.snr * score.sde.marginal(t)[1]) ** 2
        lookout = Lookout(score.sde, x)
        for i in range(first, self.steps):
            slope = guided(x, t)
            clean = score.tweedie(x, t, slope)
            x = langevin_step(x, slope, size, noise.fresh(level, i))
            x = condition.constrain(x, level, score.sde, noise)
            lookout.see(x, level)
            yield Step(i + 1, self.steps, level, x, clean, counted.calls)
        lookout.judge()
        yield finish(guided, x, level, self.steps, counted, condition, noise)

    @staticmethod
    def _start(
        score: Score, noise: Noise, start: Tensor | None, begin: float, level: float
    ) -> Tensor:
        """What was given, brought from time `begin` to the level; else noise as wide as pictures."""
        if start is None:
            low, high = score.value_range
            y = (low + high) / 2 + (high - low) / 2 * noise.start()
            return y * _mean_factor(score.sde, y, level)
        if level < begin:
            shrunk = _mean_factor(score.sde, start, level) / _mean_factor(score.sde, start, begin)
            return start * shrunk
        now, then = (start.new_full((len(start),), v) for v in (begin, level))
        r, v = score.sde.transition(now, then)
        return expand(r, start) * start + expand(v.sqrt(), start) * noise.start()


@dataclass(frozen=True)
class AnnealedLangevinDynamics(Sampler):
    """Langevin dynamics down a row of noise levels, as in NCSN; no step between them but a scaling.
    Use it with models trained for it, or to see what the SDE's predictors add.
    """

    title: ClassVar[str] = "Annealed Langevin dynamics"
    steps: int = option(200, label="Levels", range=(1, 10_000), help="Levels of noise, geometric.")
    repeats: int = option(5, label="Steps per level", range=(1, 1000), help="A call each.")
    levels: str = option(
        "given",
        label="Number of levels",
        choices=("given", "paper"),
        help="paper: as many as NCSNv2 takes for pictures of this size, whatever is given.",
    )
    size: float = option(
        0.0,
        label="Step size",
        range=(0.0, 1.0),
        help="In units of σ². 0 chooses it from the levels by NCSNv2's criterion.",
    )

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def depth(self) -> int:
        return 1  # its noise is not the path's

    def cost(self) -> int | None:
        return self.steps * self.repeats + 1 if self.levels == "given" else None

    def _steps(
        self,
        score: Score,
        noise: Noise,
        condition: Condition,
        start: Tensor | None,
        begin: float,
        resume: Step | None,
    ) -> Iterator[Step]:
        counted = Counted(score)
        guided = condition.guide(counted.score)
        times = self.times(score, begin)
        share = self.size or step_size(level_ratio(score.sde, times), self.repeats)
        if resume is None:
            first, x = 0, noise.start() * score.sde.prior_std if start is None else start
        else:
            first, x, counted.calls = resume.index, resume.x, resume.nfe
        lookout, total = Lookout(score.sde, x), len(times) - 1
        for i in range(first, total):
            above, level = times[i], times[i + 1]
            x = x * (_mean_factor(score.sde, x, level) / _mean_factor(score.sde, x, above))
            t, clean = x.new_full((len(x),), level), x
            e = share * score.sde.marginal(t)[1] ** 2
            for k in range(self.repeats):
                x = condition.constrain(x, level, score.sde, noise)
                slope = guided(x, t)
                clean = score.tweedie(x, t, slope)
                # Addressed by the level above, so that a branch at this one changes what comes after.
                x = langevin_step(x, slope, e, noise.fresh(above, k))
            x = condition.constrain(x, level, score.sde, noise)
            lookout.see(x, level)
            yield Step(i + 1, total, level, x, clean, counted.calls)
        lookout.judge()
        yield finish(guided, x, times[-1], total, counted, condition, noise)

    def times(self, score: Score, begin: float = 1.0) -> list[float]:
        """Where the run begins, and the times of its levels."""
        count = self.steps
        if self.levels == "paper":
            count = levels_for(score.sde, math.prod(score.shape), begin)
        return UniformLogSNR().times(score.sde, count, begin).tolist()


def level_ratio(sde: SDE, times: list[float]) -> float:
    """sigma of a level over sigma of the next, for geometric levels."""
    ends = torch.tensor([times[0], times[-1]], dtype=torch.float64)
    high, low = sde.sigma(ends).tolist()
    return (high / low) ** (1 / (len(times) - 1))


def levels_for(sde: SDE, dimension: int, begin: float = 1.0) -> int:
    """NCSNv2, technique 2: geometric levels whose neighbours overlap by half in `dimension` values.

    Their ratio g solves Phi(√(2D) (g - 1) + 3 g) - Phi(√(2D) (g - 1) - 3 g) = 1/2.
    """
    spread = math.sqrt(2 * dimension)
    low, high = 1.0, 10.0
    for _ in range(60):
        g = (low + high) / 2
        shift = spread * (g - 1)
        overlap = _normal_below(shift + 3 * g) - _normal_below(shift - 3 * g)
        low, high = (g, high) if overlap > 0.5 else (low, g)
    first, last = sde.sigma(torch.tensor([begin, sde.eps], dtype=torch.float64)).tolist()
    return max(1, math.ceil(math.log(first / last) / math.log(low)))


def step_size(ratio: float, repeats: int) -> float:
    """NCSNv2, technique 4: the step, in units of sigma², after which a level's noise is most nearly
    of its right variance, if it began with that of the level above, `ratio`² times as much.
    """
    sizes = [10 ** (-6 + 6 * i / 3000) for i in range(3000)]
    return min(sizes, key=lambda e: abs(variance_after(ratio, repeats, e) - 1))


def variance_after(ratio: float, repeats: int, size: float) -> float:
    """The variance, in units of the level's, after `repeats` steps from that of the level above."""
    stationary = 1 / (1 - size / 2)
    return (1 - size) ** (2 * repeats) * (ratio**2 - stationary) + stationary


def _normal_below(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def _time_of(sde: SDE, sigma: float) -> float:
    """The time of a noise level. Raises SpecError if the SDE does not have it."""
    ends = torch.tensor([sde.eps, 1.0], dtype=torch.float64)
    low, high = sde.sigma(ends).tolist()
    if not low <= sigma <= high:
        raise SpecError(
            f"This model knows noise levels σ from {low:.3g} to {high:.3g}, not {sigma:g}.",
            "Choose a level in between.",
        )
    return float(sde.time(torch.tensor([sigma], dtype=torch.float64)))


def _mean_factor(sde: SDE, x: Tensor, t: float) -> Tensor:
    """a at time t, a scalar where x is."""
    return sde.marginal(x.new_full((1,), t))[0]
