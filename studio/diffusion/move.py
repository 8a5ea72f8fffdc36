"""What a predictor is: one step from time t to s < t, of the reverse SDE or of the probability flow.

A predictor sees the score at its own times only. What it has to know of earlier steps it leaves in
its Move, which is handed to it at the next step and kept with the Step, so that a run goes on after
a pause as if there had been none. Letters as in sde.py and score.py; `z` unit noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    class Draw(Protocol):
        """Unit noise for one step: the path's own, or with `apart` from 1 on, apart from the path.

        Not called by the solvers of the flow, so they cost no random numbers.
        """

        def __call__(self, apart: int = 0) -> Tensor: ...


@dataclass(frozen=True)
class Move:
    """Where a step led: the state at time s, and the denoised estimate made at time t."""

    x: Tensor
    denoised: Tensor
    t: Tensor
    memory: dict[str, Tensor] = field(default_factory=dict)  # what the next step needs besides


@dataclass(frozen=True)
class Predictor(ABC):
    title: ClassVar[str] = "Predictor"
    calls: ClassVar[int] = 1  # network calls a step

    @property
    def stochastic(self) -> bool:
        """Whether a step adds noise."""
        return True

    def check(self) -> None:  # noqa: B027  (most have nothing to refuse)
        """Raise SpecError if two options exclude each other."""

    def raised(
        self, sde: SDE, x: Tensor, t: Tensor, steps: int, fresh: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Where a step of a run of `steps` steps begins: (x, t), or both at a higher noise level."""
        return x, t

    @abstractmethod
    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        """From x at time t to time s < t; t and s are (B,). `last` is the move that led to x."""


def towards(sde: SDE, x: Tensor, clean: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """x_s on the straight line in (y, sigma) from x_t to the picture `clean`: exact if D is constant."""
    (a_t, s_t), (a_s, s_s) = sde.marginals(t, s)
    kept = s_s / s_t
    return torch.addcmul(expand(kept, x) * x, expand(a_s - kept * a_t, x), clean)
