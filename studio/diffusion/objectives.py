"""Every objective that a network can be trained with. Those here compare it with the noise put in
(denoising score matching) and differ in the noise levels they visit and how much each counts.

With s² as the weight of the score's error, that of the noise has weight one. Likelihood wants g²
instead, which is g² / s² on the noise. As d ln(sigma²) / dt = g² / s² for every linear SDE, to draw
times with that density is to draw ln(sigma) evenly: in closed form wherever `SDE.time` is. For VP the
integral of g² / s² is ln(e^B - 1), for sub-VP 2 ln(2 sinh(B / 2)), for VE it is linear in t.

Sources: Song and Ermon 2019 (discrete levels); Ho et al. 2020 (discrete steps); Song et al. 2021,
equation 7; Song et al. 2021, "Maximum Likelihood Training of Score-Based Diffusion Models" (g²);
Karras et al. 2022, table 1 (log-normal noise levels and their weight).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.implicit import Implicit, Sliced, SlicedReduced
from studio.diffusion.objective import Objective
from studio.diffusion.sde import FIRST_TIME, SDE
from studio.lazy import torch
from studio.spec import family, option

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class VarianceWeighted(Objective):
    """The paper's choice: every time alike, each error weighted by the variance of its noise. Use it
    to train as the paper does, for good pictures with any SDE.
    """

    title: ClassVar[str] = "Even in time (paper)"

    def times(self, u: Tensor, sde: SDE) -> Tensor:
        return FIRST_TIME + u * (1 - FIRST_TIME)


@dataclass(frozen=True)
class LogNormal(Objective):
    """EDM's choice: ln(sigma) is normal, so most work goes where pictures take shape. Use it for the
    best pictures after the least training.
    """

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
        low, high = sde.sigma(_ends(u)).unbind()
        sigma = torch.exp(self.mean + self.std * normal).clamp(low, high)
        return sde.time(sigma).clamp(FIRST_TIME, 1.0)

    def weight(self, t: Tensor, sde: SDE) -> Tensor:
        # EDM weighs the error of D by 1 / c_out²; the error of the noise is that of D over sigma².
        return 1 + (sde.sigma(t) / self.sigma_data) ** 2


@dataclass(frozen=True)
class LikelihoodWeighted(Objective):
    """Errors of the score weigh g², which bounds the likelihood; times are drawn so that each counts
    alike. Use it when bits per dimension matter more than looks.
    """

    # Not multiplied by Z, so that a learning rate means the same here as elsewhere.
    title: ClassVar[str] = "Likelihood (g²)"

    def times(self, u: Tensor, sde: SDE) -> Tensor:
        low, high = _log_sigmas(sde, u)
        return sde.time(torch.exp(low + u * (high - low))).clamp(FIRST_TIME, 1.0)


@dataclass(frozen=True)
class Balanced(Objective):
    """Between the paper's weight and that of likelihood, in proportion of their logarithms. Use it to
    give up a little of the looks for a better likelihood, or the other way.
    """

    title: ClassVar[str] = "Looks to likelihood"
    balance: float = option(
        0.5, label="Likelihood", range=(0, 1), help="0 weighs as the paper does, 1 as likelihood."
    )

    def times(self, u: Tensor, sde: SDE) -> Tensor:
        level, share = (v.to(u) for v in _shares(sde, self.balance))
        k = torch.searchsorted(share, u.contiguous()).clamp(1, len(share) - 1)
        within = (u - share[k - 1]) / (share[k] - share[k - 1])
        between = torch.lerp(level[k - 1], level[k], within)
        return sde.time(torch.exp(between)).clamp(FIRST_TIME, 1.0)


@dataclass(frozen=True)
class DiscreteLevels(Objective):
    """As SMLD was trained: a few noise levels, each the same multiple of the one before. Use it to
    train or go on training networks that know levels only, as NCSN.
    """

    title: ClassVar[str] = "Discrete levels (SMLD)"
    levels: int = option(1000, label="Levels", range=(2, 10_000), help="From finest to coarsest.")

    def times(self, u: Tensor, sde: SDE) -> Tensor:
        low, high = _log_sigmas(sde, u)
        share = _cell(u, self.levels) / (self.levels - 1)
        return sde.time(torch.exp(low + share * (high - low))).clamp(FIRST_TIME, 1.0)


@dataclass(frozen=True)
class DiscreteSteps(Objective):
    """As DDPM was trained: the times 1/N, 2/N, … 1 and no other. Use it for networks that are to be
    used by programs with DDPM's schedule of N steps.
    """

    title: ClassVar[str] = "Discrete steps (DDPM)"
    steps: int = option(1000, label="Steps", range=(2, 10_000), help="From picture to noise: N.")

    def times(self, u: Tensor, sde: SDE) -> Tensor:
        return (_cell(u, self.steps) + 1) / self.steps


OBJECTIVES = family(
    Objective,
    {
        "variance": VarianceWeighted,
        "lognormal": LogNormal,
        "likelihood": LikelihoodWeighted,
        "balanced": Balanced,
        "smld": DiscreteLevels,
        "ddpm": DiscreteSteps,
        "sliced": Sliced,
        "sliced-vr": SlicedReduced,
        "implicit": Implicit,
    },
)


def normaliser(sde: SDE) -> float:
    """The integral of g² / s² from FIRST_TIME to 1. The loss with likelihood weights, times half of
    this and the values of a picture, is the bound's in nats.
    """
    low, high = _log_sigmas(sde, torch.zeros(1, dtype=torch.float64)).tolist()
    return 2 * (high - low)


def _log_sigmas(sde: SDE, like: Tensor) -> Tensor:
    """ln(sigma) at the first time and at the last, (2,)."""
    return sde.sigma(_ends(like)).log()


def _ends(like: Tensor) -> Tensor:
    return torch.tensor([FIRST_TIME, 1.0], dtype=like.dtype, device=like.device)


def _cell(u: Tensor, count: int) -> Tensor:
    """Which of `count` equal parts of [0, 1] each u lies in."""
    return (u * count).floor().clamp(0, count - 1)


@functools.lru_cache(maxsize=16)
def _shares(sde: SDE, power: float) -> tuple[Tensor, Tensor]:
    """ln(sigma) on a fine grid, and the share of times below each if their density is
    (g² / s²)^power; (N,) each, float64.
    """
    with torch.inference_mode(False), torch.no_grad():
        low, high = _log_sigmas(sde, torch.zeros(1, dtype=torch.float64, device="cpu")).tolist()
        level = torch.linspace(low, high, 4097, dtype=torch.float64, device="cpu")
        t = sde.time(level.exp()).clamp(FIRST_TIME, 1.0)
        # Of ln(sigma), not t: one power less, and no pole where VP's noise begins.
        density = (sde.coefficients(t)[1] / sde.marginal(t)[1]) ** (2 * (power - 1))
        share = torch.cat([density.new_zeros(1), ((density[1:] + density[:-1]) / 2).cumsum(0)])
        return level, share / share[-1]
