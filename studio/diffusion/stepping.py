"""Samplers that visit a grid of times: a predictor, alone or with a corrector. One loop for all.

Source: Song et al. 2021, algorithm 1. As in the published code the corrector comes first at each
level, so the last move is the predictor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, make_dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from studio import spec
from studio.diffusion.conditions import Condition, Travel
from studio.diffusion.correctors import Corrector, Langevin, NoCorrector
from studio.diffusion.grids import Grid, UniformLogSNR
from studio.diffusion.noise import Noise
from studio.diffusion.predictors import Move, Predictor, ReverseDiffusion
from studio.diffusion.sampler import Counted, Lookout, Sampler, Step, finish
from studio.diffusion.score import Score
from studio.lazy import torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.move import Draw


#: Where the predictor's own noise at a time begins, beyond what a corrector may use there.
_APART = 1 << 16


@dataclass(frozen=True)
class Stepping(Sampler):
    """A predictor on a grid of its own choice, with or without a corrector."""

    behind: ClassVar[bool] = True
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
        predictor, _ = self.parts()
        predictor.check()
        counted = Counted(score)
        times = self.grid.times(score.sde, self.steps, begin).tolist()
        walk = _Walk(self, condition.guide(counted.score), condition, times)
        place, index, x, last = 0, 0, None, None
        if resume is not None:
            index, x, counted.calls = resume.index, resume.x, resume.nfe
            place = int(resume.memory.get("place", index))
            before = x.new_full((len(x),), times[max(0, place - 1)])
            last = Move(x, resume.denoised, before, resume.memory) if place else None
        if x is None:
            x = noise.start() * score.sde.prior_std if start is None else start
            x = condition.constrain(x, times[0], score.sde, noise)
        lookout = Lookout(score.sde, x)
        for at, move in walk.all(place, x, last, noise):
            index += 1
            lookout.see(move.x, times[at])
            memory = move.memory
            if condition.travel:
                memory = memory | {"place": torch.tensor(at)}
            total = index + self.steps - at
            yield Step(index, total, times[at], move.x, move.denoised, counted.calls, memory)
            x = move.x
        lookout.judge()
        yield finish(walk.score, x, times[-1], index, counted, condition, noise)


@dataclass
class _Walk:
    """The way down a grid of times, with the ways back up that a condition asks for."""

    sampler: Stepping
    score: Score
    condition: Condition
    times: list[float]

    def all(
        self, place: int, x: Tensor, last: Move | None, noise: Noise
    ) -> Iterator[tuple[int, Move]]:
        """From a place of the grid to its end: (place, Move) after each step."""
        travel, steps = self.condition.travel, self.sampler.steps
        while place < steps:
            end = steps
            if travel is not None:
                end = min(steps, (place // travel.jump + 1) * travel.jump)
            for at, move in self.stretch(place, end, x, last, noise):
                x, last = move.x, move
                yield at, move
            place = end
            if travel is not None and last is not None and end < steps:
                # No more than a stretch made again can know, so that all go on alike.
                last = replace(
                    last, memory={k: v[: travel.jump - 1] for k, v in last.memory.items()}
                )
                for move in self.again(travel, end, last, noise):
                    x, last = move.x, move
                    yield end, move

    def stretch(
        self, place: int, end: int, x: Tensor, last: Move | None, noise: Noise
    ) -> Iterator[tuple[int, Move]]:
        """The steps from one place to a later one."""
        (predictor, corrector), sde = self.sampler.parts(), self.score.sde
        for i in range(place, end):
            t, s = self.times[i : i + 2]
            t_all, s_all = x.new_full((len(x),), t), x.new_full((len(x),), s)
            if corrector.calls:
                x = corrector.correct(self.score, x, t_all, s_all, _fresh(noise, t))
                x = self.condition.constrain(x, t, sde, noise)
            draw = _draw(noise, t, s)
            x, t_all = predictor.raised(
                sde, x, t_all, self.sampler.steps, lambda draw=draw: draw(1)
            )
            last = predictor.step(self.score, x, t_all, s_all, draw, last)
            x = self.condition.constrain(last.x, s, sde, noise)
            last = replace(last, x=x)
            yield i + 1, last

    def again(self, travel: Travel, end: int, last: Move, noise: Noise) -> Iterator[Move]:
        """The stretch that led here once more, with other noise, for the samples that do not fit."""
        sde, back = self.score.sde, max(0, end - travel.jump)
        t, s = self.times[back], self.times[end]
        for turn in range(travel.repeats):
            off = self.condition.misfit(last.denoised, self.times[end - 1], sde) > travel.threshold
            if not bool(off.any()):
                return
            other = noise.branch(t, turn + 1)
            ends = (last.x.new_full((1,), v) for v in (s, t))
            r, v = sde.transition(*ends)
            x = r * last.x + v.sqrt() * other.fresh(t, _APART - 1)
            x = self.condition.constrain(x, t, sde, other)
            *_, (_, move) = self.stretch(back, end, x, None, other)
            last = _chosen(off, move, last)
            yield last


def _chosen(rows: Tensor, new: Move, old: Move) -> Move:
    """The new Move for some samples, the old one for the rest; both have come to the same time, and
    remember as many moves."""

    def pick(a: Tensor, b: Tensor, axis: int = 0) -> Tensor:
        shape = [len(rows) if d == axis else 1 for d in range(a.ndim)]
        return torch.where(rows.reshape(shape), a, b)

    # Of what is remembered, the first axis is the moves.
    memory = {k: pick(v, old.memory[k], 1) for k, v in new.memory.items()}
    return Move(pick(new.x, old.x), pick(new.denoised, old.denoised), new.t, memory)


def _fresh(noise: Noise, t: float) -> Callable[[int], Tensor]:
    return lambda k: noise.fresh(t, k)


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
