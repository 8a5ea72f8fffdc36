"""What a network is trained to do: denoising score matching in continuous time.

For a picture x_0 a time t is drawn, x_t = a x_0 + s z is formed, and the network's estimate of the
score is compared with -z / s, the score of x_t | x_0. Weighted by s² the error is |z_hat - z|², so
every weighting is written as a factor on the mean squared error of the noise.

Sources: Vincent 2011 (denoising score matching); Song et al. 2021, equation 7; Karras et al. 2022,
table 1 (log-normal noise levels and their weight).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.score import Output, expand
from studio.diffusion.sde import FIRST_TIME, SDE
from studio.lazy import torch
from studio.spec import family, option

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.score import Network


@dataclass(frozen=True)
class Objective(ABC):
    """Which noise levels are trained, and how much each counts."""

    title: ClassVar[str] = "Objective"

    @abstractmethod
    def times(self, u: Tensor, sde: SDE) -> Tensor:
        """Training times (B,) from u (B,), even in (0, 1)."""

    @abstractmethod
    def weight(self, t: Tensor, sde: SDE) -> Tensor:
        """The factor (B,) on the mean squared error of the noise."""


@dataclass(frozen=True)
class VarianceWeighted(Objective):
    """The paper's choice: every time alike, each error weighted by the variance of its noise."""

    title: ClassVar[str] = "Even in time (paper)"

    def times(self, u: Tensor, sde: SDE) -> Tensor:
        return FIRST_TIME + u * (1 - FIRST_TIME)

    def weight(self, t: Tensor, sde: SDE) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class LogNormal(Objective):
    """EDM's choice: ln(sigma) is normal, so most work goes where pictures take shape."""

    title: ClassVar[str] = "Log-normal (EDM)"
    mean: float = option(
        -1.2, label="Mean of ln σ", range=(-6, 6), help="Lower trains finer detail."
    )
    std: float = option(1.2, label="Spread of ln σ", range=(0.1, 5), help="How wide around it.")
    sigma_data: float = option(
        0.5, label="σ data", range=(0.01, 10), help="Spread of the pictures."
    )

    def times(self, u: Tensor, sde: SDE) -> Tensor:
        normal = math.sqrt(2) * torch.erfinv((2 * u - 1).clamp(-1 + 1e-6, 1 - 1e-6))
        ends = torch.tensor([FIRST_TIME, 1.0], dtype=u.dtype, device=u.device)
        low, high = sde.sigma(ends).unbind()
        sigma = torch.exp(self.mean + self.std * normal).clamp(low, high)
        return sde.time(sigma).clamp(FIRST_TIME, 1.0)

    def weight(self, t: Tensor, sde: SDE) -> Tensor:
        # EDM weighs the error of D by 1 / c_out²; the error of the noise is that of D over sigma².
        return 1 + (sde.sigma(t) / self.sigma_data) ** 2


OBJECTIVES = family(Objective, {"variance": VarianceWeighted, "lognormal": LogNormal})


def denoising_loss(
    net: Network,
    output: Output,
    sde: SDE,
    objective: Objective,
    x_0: Tensor,
    y: Tensor | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """(loss of each picture (B,), its time (B,)). x_0 is (B, C, H, W) in the value range.

    Times are stratified over the batch: one in each B-th of the range, which lowers the variance.
    """
    count = len(x_0)
    u = torch.rand(count, generator=generator)
    u = (torch.randperm(count, generator=generator) + u) / count
    t = objective.times(u.to(x_0.device), sde)
    z = torch.randn(x_0.shape, generator=generator).to(x_0.device)
    a, s = sde.marginal(t)
    x_t = expand(a, x_0) * x_0 + expand(s, x_0) * z
    error = (output.noise(net, x_t, t, y, sde).float() - z).pow(2).flatten(1).mean(1)
    return objective.weight(t, sde) * error, t
