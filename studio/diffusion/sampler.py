"""What a sampler is: from noise to pictures, yielding a Step after every step.

A sampler is a generator and knows nothing of threads or stop buttons: to stop is to close it, to
pause is not to ask for the next Step, to save a run is to keep a Step and hand it back as `resume`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from studio import spec
from studio.diffusion.conditions import FREE, Condition
from studio.diffusion.noise import Noise, path_depth
from studio.diffusion.score import Score
from studio.diffusion.sde import SDE, log_snr_at
from studio.errors import SolverError, SpecError
from studio.lazy import no_grad, torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """Where a run is. The last Step of a run has `t` 0 and its `denoised` is the result."""

    index: int
    total: int  # an estimate for adaptive samplers
    t: float  # the time of x; the noisiest one if samples have their own
    x: Tensor
    denoised: Tensor
    nfe: int  # network calls so far
    memory: dict[str, Tensor] = field(default_factory=dict)  # what a resumed run needs besides

    @property
    def finished(self) -> bool:
        return self.t == 0


@dataclass(frozen=True)
class Sampler(ABC):
    """Anything that turns noise into pictures."""

    title: ClassVar[str] = "Sampler"
    holds: ClassVar[bool] = True  # whether a condition may put known pixels back after its steps
    #: Whether the denoised estimate of a Step was made where the step began, not where it led.
    behind: ClassVar[bool] = False

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether the picture depends on noise drawn on the way, not on the start alone."""

    @abstractmethod
    def cost(self) -> int | None:
        """Network calls of a run, or None if only the run can tell."""

    @no_grad
    def run(
        self,
        score: Score,
        noise: Noise,
        condition: Condition = FREE,
        start: Tensor | None = None,
        begin: float | None = None,
        resume: Step | None = None,
    ) -> Iterator[Step]:
        """Sample. Begins with `start` (B, C, H, W) at time `begin`, else with the prior at time 1, or
        where the condition says; or goes on after the Step `resume` of a run with the same
        arguments. A finished Step is given back as it is.

        Raises SpecError before the first step if options do not go together, SolverError, with the
        noise level, when the state is no longer finite.
        """
        spec.check(self)
        condition = condition.on(score)
        if condition.constrains and not self.holds:
            raise SpecError(
                "A solver that chooses its own steps cannot hold pixels in place.",
                "Choose a sampler with fixed steps.",
            )
        if resume is not None and resume.finished:
            yield resume
            return
        if begin is None:
            begin = condition.begin(score.sde) if start is None else 1.0
        yield from self._steps(score, noise, condition, start, begin, resume)

    @abstractmethod
    def _steps(
        self,
        score: Score,
        noise: Noise,
        condition: Condition,
        start: Tensor | None,
        begin: float,
        resume: Step | None,
    ) -> Iterator[Step]:
        """As `run`, of a run that is not finished. Called without gradients."""

    @property
    def depth(self) -> int:
        """How finely this sampler wants its noise resolved (see noise.path_depth)."""
        return path_depth(self.cost() or 100)


def finish(
    guided: Score,
    x: Tensor,
    t: float,
    total: int,
    counted: Counted,
    condition: Condition,
    noise: Noise,
) -> Step:
    """The last Step: Tweedie's denoising, without which the last noise shows as grain.

    Raises SolverError if the result is not finite.
    """
    clean = guided.denoised(x, x.new_full((len(x),), t))
    clean = condition.constrain(clean, 0.0, guided.sde, noise)
    if not finite(clean):
        raise diverged(guided.sde, t)
    return Step(total, total, 0.0, clean, clean, counted.calls)


def finite(x: Tensor) -> bool:
    # What is not finite stays so in a sum; a sum that is too large for it is looked at again.
    return math.isfinite(x.sum()) or bool(torch.isfinite(x).all())


def diverged(sde: SDE, t: float) -> SolverError:
    """The error of a state that is no longer finite at time t."""
    snr = log_snr_at(sde, t)
    return SolverError(
        f"The solver diverged at t = {t:.3g} (log-SNR {snr:.1f}): its state is no longer finite.",
        "Take more steps, a smaller signal-to-noise, or another sampler.",
    )


class Lookout:
    """Finds where a fixed-step run stops being finite.

    On the CPU it looks after every step, so that the last Step yielded is a good one. An accelerator
    would have to be waited for at every step; there the place is noted on it and read at the end.
    """

    def __init__(self, sde: SDE, x: Tensor) -> None:
        self._sde, self._times = sde, [math.nan]
        self._first = (
            None if looks_at_once(x) else torch.zeros((), dtype=torch.long, device=x.device)
        )

    def see(self, x: Tensor, t: float) -> None:
        """Look at x, which has come to time t. Raises SolverError, on the CPU, if it is not finite."""
        if self._first is None:
            if not finite(x):
                raise diverged(self._sde, t)
            return
        bad = (self._first == 0) & ~torch.isfinite(x).all()
        self._first = torch.where(bad, len(self._times), self._first)
        self._times.append(t)

    def judge(self) -> None:
        """Raises SolverError, with the first time at which x was not finite, if there was one."""
        if self._first is not None and (first := int(self._first)):
            raise diverged(self._sde, self._times[first])


def looks_at_once(x: Tensor) -> bool:
    """Whether the host may look at x without waiting for another device."""
    return x.device.type == "cpu"


class Counted:
    """Counts the calls of a score."""

    def __init__(self, score: Score) -> None:
        self.calls = 0
        self.score = self._count(score)

    def _count(self, score: Score) -> Score:
        def counting(fn: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            def call(x: Tensor, t: Tensor) -> Tensor:
                self.calls += 1
                return fn(x, t)

            return call

        inner = score.conditional
        conditional = None if inner is None else (lambda labels: counting(inner(labels)))
        return replace(score, fn=counting(score.fn), conditional=conditional)
