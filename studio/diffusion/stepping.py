"""Samplers that visit a grid of times: a predictor, alone or with a corrector. One loop for all.

Source: Song et al. 2021, algorithm 1. As in the published code the corrector comes first at each
level, so the last move is the predictor's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, make_dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from studio import spec
from studio.diffusion.conditions import Condition
from studio.diffusion.correctors import Corrector, Langevin, NoCorrector
from studio.diffusion.grids import Grid, UniformLogSNR
from studio.diffusion.noise import Noise
from studio.diffusion.predictors import Move, Predictor, ReverseDiffusion
from studio.diffusion.sampler import Counted, Lookout, Sampler, Step, finish
from studio.diffusion.score import Score
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.move import Draw


#: Where the predictor's own noise at a time begins, beyond what a corrector may use there.
_APART = 1 << 16


@dataclass(frozen=True)
class Stepping(Sampler):
    """A predictor on a grid of its own choice, with or without a corrector."""

    steps: int = option(100, label="Steps", range=(1, 10_000), help="Levels of noise visited.")
    grid: Grid = option(
        UniformLogSNR, label="Grid", help="Where between noise and picture they lie."
    )

    def parts(self) -> tuple[Predictor, Corrector]:
        raise NotImplementedError

    @property
    def stochastic(self) -> bool:
        predictor, corrector = self.parts()
        return predictor.stochastic or corrector.calls > 0

    def cost(self) -> int:
        predictor, corrector = self.parts()
        return self.steps * (predictor.calls + corrector.calls) + 1

    def _steps(
        self,
        score: Score,
        noise: Noise,
        condition: Condition,
        start: Tensor | None,
        begin: float,
        resume: Step | None,
    ) -> Iterator[Step]:
        predictor, corrector = self.parts()
        predictor.check()
        counted = Counted(score)
        guided = condition.guide(counted.score)
        times = self.grid.times(score.sde, self.steps, begin).tolist()
        first, x, last = 0, None, None
        if resume is not None:
            first, x = resume.index, resume.x
            counted.calls = resume.nfe
            before = x.new_full((len(x),), times[max(0, first - 1)])
            last = Move(x, resume.denoised, before, resume.memory) if first else None
        if x is None:
            x = noise.start() * score.sde.prior_std if start is None else start
            x = condition.constrain(x, times[0], score.sde, noise)
        lookout = Lookout(score.sde, x)
        for i, (t, s) in enumerate(pairwise(times)):
            if i < first:
                continue
            t_all, s_all = x.new_full((len(x),), t), x.new_full((len(x),), s)
            if corrector.calls:
                x = corrector.correct(guided, x, t_all, s_all, lambda k, t=t: noise.fresh(t, k))
                x = condition.constrain(x, t, score.sde, noise)
            draw = _draw(noise, t, s)
            x, t_all = predictor.raised(score.sde, x, t_all, self.steps, lambda draw=draw: draw(1))
            last = predictor.step(guided, x, t_all, s_all, draw, last)
            x = condition.constrain(last.x, s, score.sde, noise)
            lookout.see(x, s)
            yield Step(i + 1, self.steps, s, x, last.denoised, counted.calls, last.memory)
        lookout.judge()
        yield finish(guided, x, times[-1], self.steps, counted, condition, noise)


def _draw(noise: Noise, t: float, s: float) -> Draw:
    """The noise of the step from t to s."""

    def draw(apart: int = 0) -> Tensor:
        return noise.fresh(t, _APART + apart) if apart else noise.increment(t, s)

    return draw


@dataclass(frozen=True)
class PredictorCorrector(Stepping):
    """The paper's PC sampler: a predictor moves on, a corrector mends at every level. Use it for the
    best pictures where time does not matter.
    """

    title: ClassVar[str] = "Predictor–corrector (PC)"
    predictor: Predictor = option(ReverseDiffusion, label="Predictor")
    corrector: Corrector = option(Langevin, label="Corrector")

    def parts(self) -> tuple[Predictor, Corrector]:
        return self.predictor, self.corrector


def alone(predictor: type[Predictor]) -> type[Stepping]:
    """The sampler that is this predictor without a corrector; it has the predictor's options too."""
    own = [(f.name, spec.hints(predictor)[f.name], f) for f in fields(predictor)]

    def parts(self: Stepping) -> tuple[Predictor, Corrector]:
        return predictor(**{name: getattr(self, name) for name, _, _ in own}), NoCorrector()

    namespace = {"title": predictor.title, "parts": parts, "__doc__": predictor.__doc__}
    name = f"{predictor.__name__}Sampler"
    sampler = make_dataclass(name, own, bases=(Stepping,), namespace=namespace, frozen=True)
    sampler.__module__ = __name__
    return sampler
