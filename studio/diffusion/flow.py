"""The probability-flow ODE, dx/dt = f x - g² score / 2: same marginals as the SDE, no noise.

Source: Song et al. 2021, section 4.3 and appendix D; Dormand and Prince 1980 for the pair 5(4);
Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", section II.4 for the control.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio import spec
from studio.diffusion.conditions import FREE, Condition
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Counted, Sampler, Step, finish
from studio.diffusion.score import Score, expand
from studio.errors import SolverError, SpecError
from studio.lazy import no_grad, torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor

# Dormand-Prince 5(4): nodes, stages, the weights of order 5 (the last stage) and of the error.
_C = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_E = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

_MOST_STEPS = 5_000
_SHORTEST = 1e-6  # far below any step that a score network needs


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

    @property
    def stochastic(self) -> bool:
        return False

    def cost(self) -> int | None:
        return None

    @no_grad
    def run(
        self,
        score: Score,
        noise: Noise,
        condition: Condition = FREE,
        start: Tensor | None = None,
        begin: float = 1.0,
        resume: Step | None = None,
    ) -> Iterator[Step]:
        spec.check(self)
        if condition.constrains:
            raise SpecError(
                "A solver that chooses its own steps cannot hold pixels in place.",
                "Choose a sampler with fixed steps.",
            )
        if resume is not None and resume.finished:
            yield resume
            return
        counted = Counted(score)
        guided = condition.guide(counted.score)
        if resume is None:
            x = noise.start() * score.sde.prior_std if start is None else start
            t, h = x.new_full((len(x),), begin), x.new_full((len(x),), 0.01)
            slope, index = flow(guided, x, t), 0
        else:
            counted.calls, index, x = resume.nfe, resume.index, resume.x
            t, h, slope = (resume.memory[k] for k in ("t", "h", "slope"))
        # As the state's precision has it, or a float32 time that stands at eps is never there.
        farthest, eps = float(t.max()), float(t.new_tensor(score.sde.eps))
        while farthest > eps:
            index += 1
            before = t
            x, t, h, slope, clean = self._attempt(guided, x, t, h, slope, eps)
            farthest = float(t.max())
            stuck = (t == before) & (t > eps) & (h <= _SHORTEST)
            if index >= _MOST_STEPS or bool(stuck.any()):
                raise SolverError(
                    f"The flow is too stiff at t = {farthest:.3g}: its steps became too small.",
                    "Loosen the tolerances.",
                )
            memory = {"t": t, "h": h, "slope": slope}
            # How many steps are to come is a guess from the way done: noise times fall about evenly.
            total = index + max(1, round(index * (farthest - eps) / max(1e-3, begin - farthest)))
            yield Step(index, total, farthest, x, clean, counted.calls, memory)
        yield finish(guided, x, eps, index, counted, condition, noise)

    def _attempt(
        self, score: Score, x: Tensor, t: Tensor, h: Tensor, slope: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Try one step of every sample; those whose error is small enough move, all get a new h."""
        h = torch.minimum(h, t - eps)
        step = expand(-h, x)
        stages = [slope]
        y = x
        for c, weights in zip(_C[1:], _A[1:]):
            y = x + step * sum(w * k for w, k in zip(weights, stages) if w)
            stages.append(flow(score, y, (t - c * h).clamp_min(eps)))
        error = step * sum(w * k for w, k in zip(_E, stages) if w)
        scale = self.atol + self.rtol * torch.maximum(x.abs(), y.abs())
        ratio = (error / scale).pow(2).flatten(1).mean(1).sqrt()
        # A sample that has arrived stands still with error zero.
        good = (ratio <= 1) & torch.isfinite(ratio)
        factor = (0.9 * ratio.clamp_min(1e-8) ** -0.2).clamp(0.2, 5.0)
        factor = torch.where(torch.isfinite(ratio), factor, 0.2)
        taken = expand(good, x)
        x, slope = torch.where(taken, y, x), torch.where(taken, stages[-1], slope)
        t = torch.where(good, (t - h).clamp_min(eps), t)
        # The bound also keeps an arrived sample's h positive.
        h = (h * factor).clamp_min(_SHORTEST)
        return x, t, h, slope, self._estimate(score, x, t, slope)

    @staticmethod
    def _estimate(score: Score, x: Tensor, t: Tensor, slope: Tensor) -> Tensor:
        """The denoised estimate that belongs to a slope of the flow, without another call."""
        f, g = score.sde.coefficients(t)
        return score.tweedie(x, t, expand(2 / g**2, x) * (expand(f, x) * x - slope))
