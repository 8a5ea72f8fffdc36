"""Noising processes dx = f(t) x dt + g(t) dw, with t from eps (data) to 1 (noise).

Letters: `a, s` the mean factor and deviation of x_t | x_0 ~ N(a x_0, s² I); `sigma = s / a`, the noise
level seen by y = x / a; `B(t)`, the integral of beta from 0 to t. Times are tensors of shape (B,).
No sampler, corrector or condition asks which SDE it has: it asks these methods.

Source: Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential
Equations", sections 3.4 and appendices B and C.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.lazy import torch
from studio.spec import family, option

if TYPE_CHECKING:
    from torch import Tensor

#: The earliest time that training and likelihood look at; sampling stops earlier, at `SDE.eps`.
FIRST_TIME = 1e-5


@dataclass(frozen=True)
class SDE(ABC):
    """A linear SDE with noise that does not depend on x."""

    title: ClassVar[str] = "SDE"
    eps: ClassVar[float]  # where sampling stops and Tweedie's step takes over

    @abstractmethod
    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(a, s), each (B,): x_t | x_0 ~ N(a x_0, s² I)."""

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(f, g), each (B,): dx = f x dt + g dw."""

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        """The time at which s / a is `sigma`: the inverse of `sigma(t)`."""

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level s / a, shape (B,)."""
        a, s = self.marginal(t)
        return s / a

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(a² / s²), shape (B,): falls from clean to noise."""
        return -2 * torch.log(self.sigma(t))

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(r, v), each (B,): x_t | x_s ~ N(r x_s, v I) for s < t. Exact for every linear SDE."""
        (a_t, s_t), (a_s, s_s) = self.marginal(t), self.marginal(s)
        r = a_t / a_s
        return r, (s_t**2 - r**2 * s_s**2).clamp_min(0)

    def bridge(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(c, c_0, std), each (B,): x_s | x_t, x_0 ~ N(c x_t + c_0 x_0, std² I) for s < t. Exact."""
        r, v = self.transition(s, t)
        (_, s_t), (a_s, s_s) = self.marginal(t), self.marginal(s)
        return r * s_s**2 / s_t**2, a_s * v / s_t**2, v.sqrt() * s_s / s_t

    @property
    def prior_std(self) -> float:
        """Deviation of the noise that sampling starts from."""
        return float(self.marginal(torch.ones(1, dtype=torch.float64))[1])

    def prior_log_density(self, x: Tensor) -> Tensor:
        """ln of the prior N(0, prior_std² I) at x (B, ...), in nats, shape (B,)."""
        flat = x.flatten(1) / self.prior_std
        constant = math.log(2 * math.pi) / 2 + math.log(self.prior_std)
        return -(flat**2).sum(1) / 2 - flat.shape[1] * constant


@dataclass(frozen=True)
class VPSDE(SDE):
    """Variance preserving: the picture fades while noise comes in, total variance stays one."""

    title: ClassVar[str] = "VP"
    eps: ClassVar[float] = 1e-3
    beta_min: float = option(
        0.1, label="β min", range=(1e-4, 10), help="Noise rate at the picture."
    )
    beta_max: float = option(20.0, label="β max", range=(0.1, 100), help="Noise rate at the end.")

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        b = _beta_integral(self, t)
        # expm1, because 1 - exp(-b) loses most of its digits in float32 near t = 0.
        return torch.exp(-b / 2), torch.sqrt(-torch.expm1(-b))

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        beta = _beta(self, t)
        return -beta / 2, torch.sqrt(beta)

    def time(self, sigma: Tensor) -> Tensor:
        return _beta_time(self, torch.log1p(sigma**2))


@dataclass(frozen=True)
class SubVPSDE(SDE):
    """Sub-variance preserving: like VP with less noise on the way; best likelihoods in the paper."""

    title: ClassVar[str] = "sub-VP"
    eps: ClassVar[float] = 1e-3
    beta_min: float = option(
        0.1, label="β min", range=(1e-4, 10), help="Noise rate at the picture."
    )
    beta_max: float = option(20.0, label="β max", range=(0.1, 100), help="Noise rate at the end.")

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        b = _beta_integral(self, t)
        return torch.exp(-b / 2), -torch.expm1(-b)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        beta, b = _beta(self, t), _beta_integral(self, t)
        return -beta / 2, torch.sqrt(-beta * torch.expm1(-2 * b))

    def time(self, sigma: Tensor) -> Tensor:
        return _beta_time(self, 2 * torch.asinh(sigma / 2))


@dataclass(frozen=True)
class VESDE(SDE):
    """Variance exploding: the picture stays, noise grows over it until nothing can be seen."""

    title: ClassVar[str] = "VE"
    eps: ClassVar[float] = 1e-5
    sigma_min: float = option(0.01, label="σ min", range=(1e-5, 1), log=True, help="First level.")
    sigma_max: float = option(
        50.0,
        label="σ max",
        range=(1, 5000),
        log=True,
        help="About the largest distance of two pictures.",
    )

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma(t)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), self.sigma(t) * math.sqrt(2 * self._decades)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.exp(t * self._decades)

    def time(self, sigma: Tensor) -> Tensor:
        return torch.log(sigma / self.sigma_min) / self._decades

    @property
    def _decades(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


def _beta(sde: VPSDE | SubVPSDE, t: Tensor) -> Tensor:
    return sde.beta_min + t * (sde.beta_max - sde.beta_min)


def _beta_integral(sde: VPSDE | SubVPSDE, t: Tensor) -> Tensor:
    return t * sde.beta_min + t**2 * (sde.beta_max - sde.beta_min) / 2


def _beta_time(sde: VPSDE | SubVPSDE, b: Tensor) -> Tensor:
    """The t whose integral of beta is b: the positive root, in the form that keeps its digits."""
    slope = sde.beta_max - sde.beta_min
    return 2 * b / (sde.beta_min + torch.sqrt(sde.beta_min**2 + 2 * slope * b))


SDES = family(SDE, {"vp": VPSDE, "subvp": SubVPSDE, "ve": VESDE})
