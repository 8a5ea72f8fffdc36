"""Noising processes dx = f(t) x dt + g(t) dw, with t from eps (data) to 1 (noise).

Letters: `a, s` the mean factor and deviation of x_t | x_0 ~ N(a x_0, s² I); `sigma = s / a`, the noise
level seen by y = x / a; `B(t)`, the integral of beta from 0 to t. Times are tensors of shape (B,).
No sampler, corrector or condition asks which SDE it has: it asks these methods.

Sources: Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential
Equations", sections 3.4 and appendices B and C; Ho et al. 2020 and Nichol and Dhariwal 2021 for the
schedules of discrete steps; Fritsch and Carlson 1980 for the monotone curve through them.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.expressions import parse
from studio.diffusion.tabulated import Curve, integrate, root
from studio.errors import SpecError
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

    def marginals(self, *times: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(a, s) at each of several times (B,), found together."""
        return list(zip(*self.marginal(torch.stack(times))))

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level s / a, shape (B,)."""
        a, s = self.marginal(t)
        return s / a

    def log_snr(self, t: Tensor) -> Tensor:
        """ln(a² / s²), shape (B,): falls from clean to noise."""
        return -2 * torch.log(self.sigma(t))

    def transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(r, v), each (B,): x_t | x_s ~ N(r x_s, v I) for s < t. Exact for every linear SDE."""
        (a_t, s_t), (a_s, s_s) = self.marginals(t, s)
        return _transition(a_t, s_t, a_s, s_s)

    def bridge(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(c, c_0, std), each (B,): x_s | x_t, x_0 ~ N(c x_t + c_0 x_0, std² I) for s < t. Exact."""
        (a_t, s_t), (a_s, s_s) = self.marginals(t, s)
        r, v = _transition(a_t, s_t, a_s, s_s)
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


@dataclass(frozen=True)
class TableVPSDE(SDE):
    """Variance preserving in discrete steps, as DDPM and its relatives are trained.

    Exact at the steps t = 1/N … 1, where alpha-bar is the product of the factors 1 - beta so far. In
    between, B is a rising cubic through the steps with a continuous slope, which is beta.
    """

    title: ClassVar[str] = "DDPM (discrete VP)"
    schedule: str = option(
        "linear",
        label="Schedule",
        choices=("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"),
        help="How fast noise comes in; squaredcos_cap_v2 is the cosine one, which needs no ends.",
    )
    beta_start: float = option(
        1e-4, label="β first", range=(1e-8, 0.99), log=True, help="Share of noise of step one."
    )
    beta_end: float = option(
        0.02, label="β last", range=(1e-8, 0.99), log=True, help="Share of noise of the last step."
    )
    steps: int = option(1000, label="Steps", range=(2, 10_000), help="Steps from picture to noise.")
    betas: tuple[float, ...] = ()  # of each step; instead of all of the above where there are any

    def __post_init__(self) -> None:
        if self.betas and len(self.betas) < 2:
            raise SpecError("A table of betas needs at least two steps.")
        if len(self.betas) > 10_000 or not all(0 < beta < 1 for beta in self.betas):
            raise SpecError("Betas must lie between 0 and 1, and be 10000 at most.")

    @property
    def count(self) -> int:
        """How many steps there are from picture to noise: N."""
        return len(self.betas) or self.steps

    # The others have a constant here; no step of this one is finer than its first.
    @property
    def eps(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 / self.count

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        (c_0, c_1, c_2, c_3), u = self._piece(t)
        b = c_0 + u * (c_1 + u * (c_2 + u * c_3))
        return torch.exp(-b / 2), torch.sqrt(-torch.expm1(-b))

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        (_, c_1, c_2, c_3), u = self._piece(t)
        beta = self.count * (c_1 + u * (2 * c_2 + u * 3 * c_3))
        return -beta / 2, torch.sqrt(beta)

    def time(self, sigma: Tensor) -> Tensor:
        b = torch.log1p(sigma**2)
        knots, pieces = _curve(self, b.device, b.dtype)
        k = (torch.searchsorted(knots, b.detach().contiguous()) - 1).clamp(0, self.count - 1)
        return ((k + root(pieces[:, k], b)) / self.count).to(b.dtype)

    def _piece(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The cubic (4, B) of B(t) around each time, and where in it the time is, 0 to 1."""
        _, pieces = _curve(self, t.device, t.dtype)
        u = t * self.count
        k = u.detach().long().clamp(0, self.count - 1)
        return pieces[:, k], u - k


@dataclass(frozen=True)
class OwnSDE(SDE):
    """dx = f(t) x dt + g(t) dw with your own f and g: formulas in t, as e^t or -(0.1 + 19.9*t)/2.

    Noise begins at nothing: for VE's marginals but the sigma_min² that they begin with, f = 0 and
    g = sigma_min √(2 ln r) r^t, where r = sigma_max / sigma_min. The default is the process of Song's
    tutorial. What can be told from the text alone is refused at once, the rest at the first use.
    """

    title: ClassVar[str] = "Your own"
    f: str = option("0", label="f(t)", help="How fast the picture grows; below 0 it fades.")
    g: str = option("25^t", label="g(t)", help="How fast noise comes in; above 0.")

    def __post_init__(self) -> None:
        for formula in (self.f, self.g):
            parse(formula)

    # Where the noise is as small as where sampling stops with the others.
    @property
    def eps(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        small = torch.tensor([1e-4], dtype=torch.float64, device="cpu")
        curve = _own_curve(self, small.device, small.dtype)
        return max(FIRST_TIME, float(curve.time(small)))

    def marginal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_a, variance = _own_curve(self, t.device, t.dtype).at(t)
        a = torch.exp(log_a)
        return a, a * torch.sqrt(variance)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # In double precision where there is one: a formula may cancel digits.
        exact = t if t.device.type == "mps" else t.double()
        return parse(self.f).value(exact).to(t), parse(self.g).value(exact).to(t)

    def time(self, sigma: Tensor) -> Tensor:
        return _own_curve(self, sigma.device, sigma.dtype).time(sigma**2)


@functools.lru_cache(maxsize=1024)
def log_snr_at(sde: SDE, t: float) -> float:
    """`sde.log_snr` at one time in double precision; remembered, for it is asked for again and again."""
    return float(sde.log_snr(torch.tensor([t], dtype=torch.float64)))


def _transition(a_t: Tensor, s_t: Tensor, a_s: Tensor, s_s: Tensor) -> tuple[Tensor, Tensor]:
    r = a_t / a_s
    return r, (s_t**2 - r**2 * s_s**2).clamp_min(0)


def _beta(sde: VPSDE | SubVPSDE, t: Tensor) -> Tensor:
    return sde.beta_min + t * (sde.beta_max - sde.beta_min)


def _beta_integral(sde: VPSDE | SubVPSDE, t: Tensor) -> Tensor:
    return torch.addcmul(t * sde.beta_min, t, t, value=(sde.beta_max - sde.beta_min) / 2)


def _beta_time(sde: VPSDE | SubVPSDE, b: Tensor) -> Tensor:
    """The t whose integral of beta is b: the positive root, in the form that keeps its digits."""
    slope = sde.beta_max - sde.beta_min
    return 2 * b / (sde.beta_min + torch.sqrt(sde.beta_min**2 + 2 * slope * b))


def step_betas(sde: TableVPSDE) -> list[float]:
    """The share of noise of each step. Without torch, so that a description can be read with it."""
    if sde.betas:
        return list(sde.betas)
    first, last, count = sde.beta_start, sde.beta_end, sde.steps
    line = [i / (count - 1) for i in range(count)]
    if sde.schedule == "linear":
        return [first + u * (last - first) for u in line]
    if sde.schedule == "scaled_linear":
        low, high = math.sqrt(first), math.sqrt(last)
        return [(low + u * (high - low)) ** 2 for u in line]
    if sde.schedule == "sigmoid":
        return [first + (last - first) / (1 + math.exp(6 - 12 * u)) for u in line]
    edges = [(i / count + 0.008) / 1.008 * math.pi / 2 for i in range(count + 1)]
    return [min(1 - (math.cos(b) / math.cos(a)) ** 2, 0.999) for a, b in pairwise(edges)]


@functools.lru_cache(maxsize=16)
def _curve(sde: TableVPSDE, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """B at the steps 0 … N, (N + 1,), and the cubics c_0 + c_1 u + c_2 u² + c_3 u³ between, (4, N)."""
    # Kept for any later call, so not as an inference tensor, whatever the first caller is doing.
    with torch.inference_mode(False), torch.no_grad():
        rise = -torch.log1p(-torch.tensor(step_betas(sde), dtype=torch.float64, device="cpu"))
        knots = torch.cat([rise.new_zeros(1), rise.cumsum(0)])
        # Fourth-order slopes, but from half to twice the flatter side's: so no cubic turns back.
        wide = torch.cat([2 * rise[:1] - rise[1:2], rise, 2 * rise[-1:] - rise[-2:-1]])
        flatter = torch.minimum(rise[1:], rise[:-1])
        smooth = (7 * (wide[1:-2] + wide[2:-1]) - wide[:-3] - wide[3:]) / 12
        inner = smooth.clamp(flatter / 2, flatter * 2)
        tips = (1.5 * rise[[0, -1]] - 0.5 * rise[[1, -2]]).clamp(
            rise[[0, -1]] / 2, rise[[0, -1]] * 2
        )
        slopes = torch.cat([tips[:1], inner, tips[1:]])
        a, b = slopes[:-1], slopes[1:]
        pieces = torch.stack([knots[:-1], a, 3 * rise - 2 * a - b, a + b - 2 * rise])
        return knots.to(device, dtype), pieces.to(device, dtype)


@functools.lru_cache(maxsize=32)
def _own_curve(sde: OwnSDE, device: torch.device, dtype: torch.dtype) -> Curve:
    """What f and g of `sde` come to. Raises SpecError if that is no noising process."""
    with torch.inference_mode(False), torch.no_grad():
        if device.type != "cpu" or dtype != torch.float64:
            return _own_curve(sde, torch.device("cpu"), torch.float64).to(device, dtype)
        return integrate(parse(sde.f).value, parse(sde.g).value, FIRST_TIME)


SDES = family(SDE, {"vp": VPSDE, "subvp": SubVPSDE, "ve": VESDE, "ddpm": TableVPSDE, "own": OwnSDE})
