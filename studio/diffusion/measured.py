"""Conditions on what was measured of a picture: y = A x_0, with A of linear.py.

Three ways to draw pictures that measure y. *Replacement* puts what is known back, noised, after every
step: fast, exact in what is known, and a little blind, because the rest sees what is known only through
its noise. *Pseudoinverse guidance* and *posterior sampling* add the gradient of ln p(y | x_t) to the
score, through the network: about twice the work, and the rest fits better. With a Gaussian
prior of equal variance in all directions pseudoinverse guidance is Bayes' rule itself.

Letters as in sde.py and score.py; `D` the denoised estimate.

Sources: Song et al. 2021, section 5 and appendix I (replacement); Lugmayr et al. 2022, "RePaint" (going
back in time); Chung et al. 2023, "Diffusion Posterior Sampling for General Noisy Inverse Problems";
Song et al. 2023, "Pseudoinverse-Guided Diffusion Models for Inverse Problems".
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from studio.diffusion.conditions import Condition, Guiding, Travel
from studio.diffusion.linear import Coordinates, Linear
from studio.diffusion.noise import Noise
from studio.diffusion.score import expand
from studio.diffusion.sde import SDE
from studio.errors import SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.conditions import Pull

#: Where the noise of what is put back begins, apart from that of correctors and predictors.
_KNOWN = 1 << 17


@dataclass(frozen=True)
class Measured(Condition, ABC):
    """What `operator` measures of `picture` (1 or B, C, H, W) is known; the rest is not looked at."""

    operator: Linear
    picture: Tensor

    def of(self, rows: Sequence[int]) -> Measured:
        index = torch.tensor(list(rows))
        picture = self.picture if len(self.picture) == 1 else self.picture[index]
        return replace(self, operator=self.operator.of(index), picture=picture)


@dataclass(frozen=True)
class Replacement(Measured):
    """What is known is put back after every step, noised as much as the rest.

    With `travel`, samples whose known and made parts do not fit go back and come again.
    """

    travel: Travel | None = None

    def __post_init__(self) -> None:
        if not self.operator.exact:
            raise SpecError(
                "A blur cannot be undone exactly, so nothing can be put back.",
                "Choose pseudoinverse guidance or posterior sampling.",
            )

    def begin(self, sde: SDE) -> float:
        """Above the level where all is known there is nothing to find out: a run begins there."""
        level = self.operator.free_below
        if not 0 < level < math.inf:
            return 1.0
        sigma = torch.tensor([level], dtype=torch.float64)
        return float(sde.time(sigma).clamp(sde.eps * 1.01, 1.0))

    def constrain(self, x: Tensor, t: float, sde: SDE, noise: Noise) -> Tensor:
        """Fresh noise is drawn at each time; the same at each call for it. At t = 0 there is none.

        Raises SpecError if x and the picture differ in size.
        """
        picture = self.picture.to(x)
        if picture.shape[1:] != x.shape[1:]:
            raise SpecError("The picture that is known is not of the size that is sampled.")
        if t == 0:
            noised, sigma = picture, x.new_zeros(1)
        else:
            time = x.new_full((1,), t)
            (a, s), sigma = sde.marginal(time), sde.sigma(time)
            noised = a * picture + s * noise.fresh(t, _KNOWN)
        operator = self.operator.at(sigma)
        return x + operator.restored(operator.forward(noised - x))

    def misfit(self, clean: Tensor, t: float, sde: SDE) -> Tensor:
        """How far the estimate D (B, C, H, W) at time t is off beside the border of what is made: the
        mean distance to the known pixels there, in units of what noise of that level hides, (B,)."""
        sigma = sde.sigma(clean.new_full((1,), t))
        operator = self.operator.at(sigma)
        gap = operator.forward(clean - self.picture.to(clean))
        ring = _beside(operator, gap)
        hidden = 0.5 * sigma / torch.sqrt(sigma**2 + 0.25)
        count = ring.expand_as(gap).sum((1, 2, 3)).clamp_min(1)
        return ((ring * gap**2).sum((1, 2, 3)) / count).sqrt() / hidden


def _beside(operator: Linear, gap: Tensor) -> Tensor:
    """1 at known coordinates at most two pixels from one that is not known, else 0."""
    if not isinstance(operator, Coordinates) or operator.known is None:
        return torch.ones_like(gap)
    known = operator.known.to(gap)
    made = torch.nn.functional.max_pool2d(1 - known, 5, stride=1, padding=2)
    return known * made


@dataclass(frozen=True)
class PseudoinverseGuidance(Guiding, Measured):
    """ΠGDM: as if x_0 were normal about D with the variance that is left at this noise level.

    `noise` is the deviation of the measurement; `spread` that of pictures in each value, which says how
    much noise hides. Weight 1 is Bayes' rule.
    """

    noise: float = 0.0
    spread: float = 0.5
    weight: float = 1.0

    def term(self, x: Tensor, t: Tensor, clean: Tensor, pull: Pull, sde: SDE) -> Tensor:
        sigma = sde.sigma(t)
        operator = self.operator.at(sigma)
        left = expand((sigma * self.spread) ** 2 / (sigma**2 + self.spread**2), x)
        gap = operator.measured(self.picture.to(x)) - operator.forward(clean)
        return self.weight * pull(operator.adjoint(operator.solve(gap, left, self.noise**2)))


@dataclass(frozen=True)
class PosteriorSampling(Guiding, Measured):
    """DPS: down the gradient of ‖y - A D‖, the norm itself and of each sample for itself.

    `rate` is the length of a move in a run of 1,000 steps, as published; it is spread over the decades of
    noise, so it does not depend on the steps. No move goes past the place where the gap would close.
    """

    rate: float = 0.5
    weight: float = 1.0

    def term(self, x: Tensor, t: Tensor, clean: Tensor, pull: Pull, sde: SDE) -> Tensor:
        sigma = sde.sigma(t)
        operator = self.operator.at(sigma)
        gap = operator.measured(self.picture.to(x)) - operator.forward(clean)
        size = gap.flatten(1).norm(dim=1).clamp_min(1e-12)
        slope = pull(operator.adjoint(gap / expand(size, gap)))  # of -size, by x
        a, _ = sde.marginal(t)
        ends = sde.sigma(t.new_tensor([sde.eps, 1.0])).log()
        move = self.rate * 1000 / (2 * (ends[1] - ends[0]))
        # In y = x / a the slope is a times as long; a step of size / slope² closes the gap.
        most = size / (a * slope.flatten(1).norm(dim=1)).pow(2).clamp_min(1e-12)
        return self.weight * expand(torch.minimum(move.expand_as(most), most) / sigma**2, x) * slope
