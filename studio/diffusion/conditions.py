"""What is known of the picture. A condition turns the score of pictures into a score of pictures
given what is known: grad log p(x | y) = grad log p(x) + grad log p(y | x).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from studio.diffusion.noise import Noise
from studio.diffusion.score import Score
from studio.diffusion.sde import SDE
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Condition:
    """Nothing is known. Both hooks leave things as they are."""

    def guide(self, score: Score) -> Score:
        """The score with the likelihood terms of this condition added."""
        return score

    def constrain(self, x: Tensor, t: float, sde: SDE, noise: Noise) -> Tensor:
        """x (B, C, H, W) with known coordinates put back at the noise level of time t."""
        return x

    @property
    def constrains(self) -> bool:
        """Whether `constrain` does anything: a solver with step control cannot go with it."""
        return type(self).constrain is not Condition.constrain


FREE = Condition()


@dataclass(frozen=True)
class ClassLabel(Condition):
    """Pictures of given classes, for a model with a class input: one index a sample, -1 for any."""

    labels: tuple[int, ...]

    def guide(self, score: Score) -> Score:
        labels = torch.tensor(self.labels)
        inner = score.labelled(labels)

        def fn(x: Tensor, t: Tensor) -> Tensor:
            return score.labelled(labels.to(x.device))(x, t)

        return replace(inner, fn=fn)
