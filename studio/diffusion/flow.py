"""The probability-flow ODE, dx/dt = f x - g² score / 2: same marginals as the SDE, no noise.

It is a map between pictures and noise that can be gone both ways: `DormandPrince` samples by it,
`FlowMap` gives the noise of a picture and the picture of a noise.

Sources: Song et al. 2021, section 4.3 and appendix D; Karras et al. 2022, section 2, for the flow in
the noise level; Shoemake 1985 for the interpolation of directions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio import spec
from studio.diffusion.conditions import Condition
from studio.diffusion.integrator import DormandPrince54, Point
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Counted, Sampler, Step, finish
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import FIRST_TIME, SDE
from studio.errors import PictureError
from studio.lazy import no_grad, torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.integrator import State


def flow(score: Score, x: Tensor, t: Tensor) -> Tensor:
    """dx/dt of the probability flow at x (B, C, H, W), t (B,)."""
    f, g = score.sde.coefficients(t)
    return expand(f, x) * x - expand(g**2 / 2, x) * score(x, t)


@dataclass(frozen=True)
class DormandPrince(Sampler):
    """Adaptive Dormand–Prince 5(4) on the probability flow: give the error, it finds the steps.

    Every sample has its own time and its own step, so its picture does not depend on the others.
    """

    title: ClassVar[str] = "Dormand–Prince 5(4)"
    holds: ClassVar[bool] = False
    rtol: float = option(
        1e-3,
        label="Relative tolerance",
        range=(1e-7, 0.5),
        log=True,
        help="Smaller is finer, slower.",
    )
    atol: float = option(
        1e-3,
        label="Absolute tolerance",
        range=(1e-7, 0.5),
        log=True,
        help="In units of the pixels.",
    )
    temperature: float = option(
        1.0,
        label="Temperature",
        range=(0.0, 2.0),
        help="Scales the noise that it begins from. Below 1: plainer pictures, nearer to the average.",
    )

    @property
    def stochastic(self) -> bool:
        return False

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
        counted = Counted(score)
        guided = condition.guide(counted.score)
        eps = score.sde.eps
        rule = DormandPrince54(
            lambda state, t: (flow(guided, state[0], t),), eps, self.rtol, self.atol
        )
        if resume is None:
            x = noise.start() * (score.sde.prior_std * self.temperature) if start is None else start
            point = rule.start((x,), x.new_full((len(x),), begin), 0.01)
        else:
            counted.calls = resume.nfe
            t, h, slope = (resume.memory[k] for k in _MEMORY)
            point = Point((resume.x,), t, h, (slope,), resume.index)
        tried = _Tried.after(resume, point.clock)
        for point in rule.run(point):  # noqa: B020
            (x,), (slope,), far = point.state, point.slope, point.farthest
            f, g = score.sde.coefficients(point.clock)
            clean = guided.tweedie(x, point.clock, _score(f, g**2 / 2, x, slope))
            tried = tried.then(point.clock, eps)
            memory = dict(zip(_MEMORY, (point.clock, point.h, slope))) | tried.counts()
            # How many steps are to come is a guess from the way done: noise times fall about evenly.
            to_come = round(point.index * (far - eps) / max(1e-3, begin - far))
            total = point.index + max(1, to_come)
            yield Step(point.index, total, far, x, clean, counted.calls, memory)
        yield finish(guided, point.state[0], eps, point.index, counted, condition, noise)


_MEMORY: tuple[str, ...] = ("t", "h", "slope")


@dataclass(frozen=True)
class _Tried:
    """The steps tried so far by each sample, (B,): the last times, and how many were kept or not."""

    clock: Tensor
    accepted: Tensor
    rejected: Tensor

    @staticmethod
    def after(resume: Step | None, clock: Tensor) -> _Tried:
        none = torch.zeros_like(clock, dtype=torch.long)
        memory = {} if resume is None else resume.memory
        return _Tried(clock, memory.get("accepted", none), memory.get("rejected", none))

    def then(self, clock: Tensor, end: float) -> _Tried:
        """After one more attempt, which led to the times `clock`. Who had arrived tries nothing."""
        moved, trying = clock != self.clock, self.clock > self.clock.new_tensor(end)
        return _Tried(clock, self.accepted + moved, self.rejected + (trying & ~moved))

    def counts(self) -> dict[str, Tensor]:
        return {"accepted": self.accepted, "rejected": self.rejected}


def _score(kept: Tensor, pull: Tensor, x: Tensor, slope: Tensor) -> Tensor:
    """The score in a slope kept x - pull score of the flow, without another call."""
    return expand(1 / pull, x) * (expand(kept, x) * x - slope)


@dataclass(frozen=True)
class NoiseClock:
    """u = ln(sigma) in the place of time: in it the flow is smooth from end to end, where in time
    half of it happens in the last hundredth, so it takes fewer steps for the same precision."""

    sde: SDE

    def at(self, t: float) -> float:
        return float(self.sde.sigma(torch.tensor([t], dtype=torch.float64)).log())

    def time(self, u: Tensor) -> Tensor:
        """The times (B,) at u (B,), from FIRST_TIME to 1."""
        return self.sde.time(u.exp()).clamp(FIRST_TIME, 1.0)

    def reached(self, point: Point) -> float:
        """The time of the sample that has the longest way to go."""
        return float(self.time(torch.tensor([point.farthest], dtype=torch.float64)))

    def terms(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(kept, pull), each (B,): dx/du = kept x - pull score at times t (B,)."""
        f, g = self.sde.coefficients(t)
        variance = self.sde.marginal(t)[1] ** 2
        # du/dt = g² / (2 s²) for every linear SDE, because sigma² grows by g² / a².
        return 2 * variance * f / g**2, variance


@dataclass(frozen=True)
class FlowMap:
    """Picture to noise and back along the flow: every picture has one noise, every noise one picture.

    A picture is a state at FIRST_TIME, its noise the state at time 1. Both ways are generators of
    Steps as a sampler is, and the last Step's `x` is the result.
    """

    rtol: float = option(
        1e-5,
        label="Relative tolerance",
        range=(1e-7, 0.5),
        log=True,
        help="Smaller is finer, slower.",
    )
    atol: float = option(
        1e-5,
        label="Absolute tolerance",
        range=(1e-7, 0.5),
        log=True,
        help="In units of the pixels.",
    )

    def encode(self, score: Score, x: Tensor) -> Iterator[Step]:
        """From pictures x (B, C, H, W), in the value range, to their noise.

        Raises PictureError if x does not fit the model, SolverError if the flow cannot be followed to
        this precision.
        """
        return self._go(score, x, FIRST_TIME, 1.0)

    def decode(self, score: Score, latent: Tensor) -> Iterator[Step]:
        """From noise (B, C, H, W) of deviation prior_std to pictures. Raises as `encode`."""
        return self._go(score, latent, 1.0, FIRST_TIME)

    @no_grad
    def _go(self, score: Score, x: Tensor, begin: float, end: float) -> Iterator[Step]:
        spec.check(self)
        if tuple(x.shape[1:]) != score.shape or not x.is_floating_point() or not len(x):
            raise PictureError(
                f"This model's pictures and noise are float, of shape (B, C, H, W) with C, H, W "
                f"{score.shape}, not {tuple(x.shape)}."
            )
        counted, clock = Counted(score), NoiseClock(score.sde)
        first, last = clock.at(begin), clock.at(end)

        def slope(state: State, u: Tensor) -> State:
            t = clock.time(u)
            kept, pull = clock.terms(t)
            return (expand(kept, x) * state[0] - expand(pull, x) * counted.score(state[0], t),)

        rule = DormandPrince54(slope, last, self.rtol, self.atol, longest=LONGEST_STEP)
        for point in rule.run(rule.start((x,), x.new_full((len(x),), first), FIRST_STEP)):
            (y,), (change,), t = point.state, point.slope, clock.time(point.clock)
            clean = score.tweedie(y, t, _score(*clock.terms(t), y, change))
            total = steps_in_all(point, first, last)
            at = end if point.arrived else clock.reached(point)
            yield Step(point.index, total, at, y, clean, counted.calls)


#: The first step that is tried in ln(sigma), of a way of about ten, and the longest: a factor e.
FIRST_STEP, LONGEST_STEP = 0.2, 1.0


def steps_in_all(point: Point, first: float, last: float) -> int:
    """How many steps an integration from `first` to `last` may take, guessed from the way done."""
    done = abs(point.farthest - first) / abs(last - first)
    return max(point.index, round(point.index / max(done, 0.01)))


def slerp(a: Tensor, b: Tensor, shares: Tensor) -> Tensor:
    """Noise between two noises a and b (C, H, W), at `shares` (K,) of the way from a: (K, C, H, W).

    Directions go along the great circle and lengths evenly, because noise lies on a sphere: on the
    straight line between two noises it would be too weak, and its picture too plain.
    """
    lengths = torch.stack([a.norm(), b.norm()])
    cosine = (a * b).sum() / lengths.prod().clamp_min(1e-20)
    angle = torch.acos(cosine.clamp(-1, 1))
    # Where the two lie on one line, or one is nothing, there is no one circle: the straight line.
    straight = (torch.sin(angle) < 1e-2) | (lengths.amin() == 0)
    sine = torch.where(straight, 1.0, torch.sin(angle))
    from_a = torch.where(straight, 1 - shares, torch.sin((1 - shares) * angle) / sine)
    from_b = torch.where(straight, shares, torch.sin(shares * angle) / sine)
    length = lengths[0] + shares * (lengths[1] - lengths[0])
    from_a = torch.where(straight, from_a, from_a * length / lengths[0].clamp_min(1e-20))
    from_b = torch.where(straight, from_b, from_b * length / lengths[1].clamp_min(1e-20))
    return expand(from_a, a[None]) * a + expand(from_b, b[None]) * b
