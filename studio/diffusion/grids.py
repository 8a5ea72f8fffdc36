"""Grids: the times that a stepping sampler visits, from noise (1) to the SDE's eps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.sde import SDE
from studio.lazy import torch
from studio.spec import family, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Grid(ABC):
    """The times that a stepping sampler visits."""

    title: ClassVar[str] = "Grid"

    @abstractmethod
    def times(self, sde: SDE, steps: int, begin: float = 1.0) -> Tensor:
        """steps + 1 falling times from `begin` to the SDE's eps, float64."""


@dataclass(frozen=True)
class UniformTime(Grid):
    """Even in time, as in the paper. Coarse where fine detail forms; wants many steps."""

    title: ClassVar[str] = "Even in time"

    def times(self, sde: SDE, steps: int, begin: float = 1.0) -> Tensor:
        return torch.linspace(begin, sde.eps, steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class UniformLogSNR(Grid):
    """Even in the logarithm of the noise level. The best grid for few steps."""

    title: ClassVar[str] = "Even in log-SNR"

    def times(self, sde: SDE, steps: int, begin: float = 1.0) -> Tensor:
        high, low = _end_sigmas(sde, begin).log().unbind()
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        return _between_ends(sde, begin, torch.exp(high + u * (low - high)))


@dataclass(frozen=True)
class PowerSigma(Grid):
    """Even in σ^(1/ρ): EDM's grid, between the other two."""

    title: ClassVar[str] = "Power of σ (EDM)"
    rho: float = option(7.0, label="ρ", range=(1, 50), help="Larger spends more on fine detail.")

    def times(self, sde: SDE, steps: int, begin: float = 1.0) -> Tensor:
        high, low = (_end_sigmas(sde, begin) ** (1 / self.rho)).unbind()
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        return _between_ends(sde, begin, (high + u * (low - high)) ** self.rho)


def _end_sigmas(sde: SDE, begin: float) -> Tensor:
    return sde.sigma(torch.tensor([begin, sde.eps], dtype=torch.float64))


def _between_ends(sde: SDE, begin: float, sigma: Tensor) -> Tensor:
    times = sde.time(sigma)
    times[0], times[-1] = begin, sde.eps
    return times


GRIDS = family(Grid, {"log_snr": UniformLogSNR, "time": UniformTime, "power": PowerSigma})
