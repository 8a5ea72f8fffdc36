"""Correctors: steps of Langevin dynamics at one noise level, which mend what a predictor got wrong.

Source: Song et al. 2021, algorithms 4 and 5. Norms are taken for each sample, not averaged over the
batch as in the published code, so a picture does not depend on its batch-mates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.score import Score, expand
from studio.spec import family, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Corrector(ABC):
    title: ClassVar[str] = "Corrector"

    @property
    def calls(self) -> int:
        """Network calls a step."""
        return 0

    @abstractmethod
    def correct(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Callable[[int], Tensor]
    ) -> Tensor:
        """x at time t, nearer to the law of time t. `s` is the next time; draw(k) is unit noise."""


@dataclass(frozen=True)
class NoCorrector(Corrector):
    """The predictor alone. Use it where every call counts."""

    title: ClassVar[str] = "None"

    def correct(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Callable[[int], Tensor]
    ) -> Tensor:
        return x


@dataclass(frozen=True)
class Langevin(Corrector):
    """Langevin steps whose size keeps a set ratio of signal to noise. Use it to sharpen what a predictor
    left soft; each step costs a call.
    """

    title: ClassVar[str] = "Langevin"
    snr: float = option(
        0.16, label="Signal-to-noise", range=(0.001, 1.0), help="Larger moves further per step."
    )
    steps: int = option(1, label="Corrector steps", range=(1, 20), help="Langevin steps per level.")

    @property
    def calls(self) -> int:
        return self.steps

    def correct(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Callable[[int], Tensor]
    ) -> Tensor:
        # (a_t / a_s)² is alpha_i = 1 - beta_i of discrete VP, 1 for VE, and defined for sub-VP.
        alpha = score.sde.transition(s, t)[0] ** 2
        for k in range(self.steps):
            slope, z = score(x, t), draw(k)
            ratio = z.flatten(1).norm(dim=1) / slope.flatten(1).norm(dim=1).clamp_min(1e-20)
            size = 2 * alpha * (self.snr * ratio) ** 2
            x = langevin_step(x, slope, size, z)
        return x


@dataclass(frozen=True)
class AnnealedLangevin(Corrector):
    """Langevin steps whose size follows the noise level alone, as in annealed Langevin dynamics. Use
    it where the score's length cannot be trusted: the steps do not depend on it.
    """

    title: ClassVar[str] = "Annealed Langevin (ALD)"
    snr: float = option(
        0.16, label="Signal-to-noise", range=(0.001, 1.0), help="Larger moves further per step."
    )
    steps: int = option(1, label="Corrector steps", range=(1, 20), help="Langevin steps per level.")

    @property
    def calls(self) -> int:
        return self.steps

    def correct(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Callable[[int], Tensor]
    ) -> Tensor:
        # alpha as above.
        size = 2 * (self.snr * score.sde.transition(s, t)[0] * score.sde.marginal(t)[1]) ** 2
        for k in range(self.steps):
            x = langevin_step(x, score(x, t), size, draw(k))
        return x


def langevin_step(x: Tensor, slope: Tensor, size: Tensor, z: Tensor) -> Tensor:
    """x + e score + sqrt(2 e) z with steps e (B,) and unit noise z."""
    return x + expand(size, x) * slope + expand((2 * size).sqrt(), x) * z


CORRECTORS = family(Corrector, {"langevin": Langevin, "ald": AnnealedLangevin, "none": NoCorrector})
