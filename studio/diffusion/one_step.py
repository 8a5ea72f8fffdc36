"""One-step predictors of the probability flow, with EDM's churn as an option.

Churn raises the noise level a little before each step and takes the step from there: noise then
washes errors out, as the SDE's does, while the step itself keeps the order of the ODE's.

Sources: Song, Meng and Ermon 2021 (DDIM); Karras et al. 2022, "Elucidating the Design Space of
Diffusion-Based Generative Models", algorithms 1 (Heun) and 2 (churn).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.move import Move, Predictor, towards
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE
from studio.errors import SpecError
from studio.lazy import torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.move import Draw

_MOST_CHURN = math.sqrt(2) - 1  # never more new noise than there is already


@dataclass(frozen=True)
class Churned(Predictor):
    """A predictor of the flow that may add noise before each step."""

    s_churn: float = option(
        0.0, label="Churn", range=(0, 1000), help="New noise over the whole run; 0 adds none."
    )
    s_min: float = option(
        0.0, label="Churn from σ", range=(0, 1e5), help="Finer levels are left in peace."
    )
    s_max: float = option(
        1e5, label="Churn up to σ", range=(0, 1e5), help="Noisier levels are left in peace."
    )
    s_noise: float = option(
        1.0,
        label="Churn noise",
        range=(0.9, 1.1),
        help="Deviation of the new noise; above 1 makes up for detail that a network removes.",
    )

    @property
    def stochastic(self) -> bool:
        return self.s_churn > 0

    def check(self) -> None:
        if self.s_min > self.s_max:
            raise SpecError(
                f"Churn cannot go from σ = {self.s_min:g} up to σ = {self.s_max:g}.",
                "Let the first be the smaller.",
            )

    def raised(
        self, sde: SDE, x: Tensor, t: Tensor, steps: int, fresh: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor]:
        if not self.s_churn:
            return x, t
        sigma, most = sde.sigma(t), sde.sigma(torch.ones_like(t))
        churn = min(self.s_churn / steps, _MOST_CHURN)
        churned = (sigma >= self.s_min) & (sigma <= self.s_max)
        # No network knows levels beyond time 1.
        up = torch.where(churned, torch.minimum((1 + churn) * sigma, most), sigma)
        later = torch.where(up > sigma, torch.maximum(sde.time(up), t), t)
        r, v = sde.transition(t, later)
        return expand(r, x) * x + expand(self.s_noise * v.sqrt(), x) * fresh(), later


@dataclass(frozen=True)
class Euler(Churned):
    """Euler's method on the probability flow in σ, which is DDIM: same start, same picture.
    Use it as the plain reference for the other solvers of the flow.
    """

    title: ClassVar[str] = "Euler (DDIM)"

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean = score.denoised(x, t)
        return Move(towards(score.sde, x, clean, t, s), clean, t)


@dataclass(frozen=True)
class Heun(Churned):
    """Second order on the probability flow: two calls a step, the safe classic of EDM. Use it with
    churn where the flow alone looks smooth and dull.
    """

    title: ClassVar[str] = "Heun"
    calls: ClassVar[int] = 2

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean = score.denoised(x, t)
        ahead = score.denoised(towards(score.sde, x, clean, t, s), s)
        # In y = x / a: dy/dsigma = (y - D) / sigma, averaged over both ends.
        (a_t, s_t), (a_s, s_s) = score.sde.marginals(t, s)
        sigma_t, sigma_s = s_t / a_t, s_s / a_s
        y, h = x / expand(a_t, x), sigma_s - sigma_t
        first = (y - clean) / expand(sigma_t, x)
        second = (y + expand(h, x) * first - ahead) / expand(sigma_s, x)
        y = y + expand(h / 2, x) * (first + second)
        return Move(expand(a_s, x) * y, clean, t)
