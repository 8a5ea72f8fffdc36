"""What a sampler is: from noise to pictures, yielding a Step after every step.

A sampler is a generator and knows nothing of threads or stop buttons: to stop is to close it, to
pause is not to ask for the next Step, to save a run is to keep a Step and hand it back as `resume`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.conditions import FREE, Condition
from studio.diffusion.noise import Noise, path_depth
from studio.diffusion.score import Score
from studio.errors import SolverError
from studio.lazy import torch

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

    @property
    @abstractmethod
    def stochastic(self) -> bool:
        """Whether the picture depends on noise drawn on the way, not on the start alone."""

    @abstractmethod
    def cost(self) -> int | None:
        """Network calls of a run, or None if only the run can tell."""

    @abstractmethod
    def run(
        self,
        score: Score,
        noise: Noise,
        condition: Condition = FREE,
        start: Tensor | None = None,
        begin: float = 1.0,
        resume: Step | None = None,
    ) -> Iterator[Step]:
        """Sample. Begins with `start` (B, C, H, W) at time `begin`, else with the prior at time 1;
        or goes on after the Step `resume` of a run with the same arguments. A finished Step is
        given back as it is.

        Raises SolverError, with the noise level, when the state is no longer finite.
        """

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
    if not bool(torch.isfinite(clean).all()):
        raise SolverError(
            "The solver diverged: the picture is no longer made of numbers.",
            "Take more steps, a smaller signal-to-noise, or another sampler.",
        )
    return Step(total, total, 0.0, clean, clean, counted.calls)


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
