"""Predictors of the reverse SDE that look at one step only.

In the time tau = -t, which runs from noise to picture, the reverse SDE is
dx = (g² score - f x) dtau + g dw. Euler-Maruyama, Milstein and SRA1 solve it as any SDE with a drift
and a diffusion; the other two know that it undoes a linear noising.

Sources: Song et al. 2021, algorithms 2-5 and appendix F (reverse diffusion, ancestral); Song, Meng
and Ermon 2021 (DDIM); Kloeden and Platen 1992, section 11.1 (Milstein without derivatives); Rossler
2010, "Runge-Kutta Methods for the Strong Approximation of Solutions of Stochastic Differential
Equations", table 6.2 (SRA1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.move import Move, Predictor
from studio.diffusion.score import Score, expand
from studio.lazy import torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.move import Draw

    #: Drift or diffusion of an SDE: (x (B, ...), time (B,)) -> shape of x.
    Field = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Reverse:
    """The reverse SDE of a score: its drift and diffusion in tau, at x and the time t = -tau."""

    score: Score

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        f, g = self.score.sde.coefficients(t)
        return expand(g**2, x) * self.score(x, t) - expand(f, x) * x

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return expand(self.score.sde.coefficients(t)[1], x)

    def denoised(self, x: Tensor, t: Tensor, drift: Tensor) -> Tensor:
        """The denoised estimate that belongs to a drift already computed at (x, t)."""
        f, g = self.score.sde.coefficients(t)
        return self.score.tweedie(x, t, (drift + expand(f, x) * x) / expand(g**2, x))


def maruyama(x: Tensor, t: Tensor, h: Tensor, drift: Tensor, diffusion: Field, z: Tensor) -> Tensor:
    """x + a h + b sqrt(h) z: Euler-Maruyama with the drift a at (x, t), steps h (B,), unit noise z."""
    return x + expand(h, x) * drift + expand(h.sqrt(), x) * diffusion(x, t) * z


def milstein(x: Tensor, t: Tensor, h: Tensor, drift: Tensor, diffusion: Field, z: Tensor) -> Tensor:
    """Milstein's step for diagonal noise b(x, t): Euler-Maruyama plus b b' h (z² - 1) / 2.

    b b' is a difference of b itself, (b(x + a h + b sqrt(h), t) - b(x, t)) / sqrt(h), so that no
    derivative is asked for. Strong order 1, where Euler-Maruyama has 1/2.
    """
    here, root = diffusion(x, t), expand(h.sqrt(), x)
    change = diffusion(x + expand(h, x) * drift + root * here, t) - here
    return maruyama(x, t, h, drift, diffusion, z) + root * change * (z**2 - 1) / 2


@dataclass(frozen=True)
class EulerMaruyama(Predictor):
    """The plainest solver of the reverse SDE. Use it to see what the others improve on."""

    title: ClassVar[str] = "Euler–Maruyama"

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        sde = Reverse(score)
        drift = sde.drift(x, t)
        moved = maruyama(x, t, t - s, drift, sde.diffusion, draw())
        return Move(moved, sde.denoised(x, t, drift), t)


@dataclass(frozen=True)
class Milstein(Predictor):
    """Euler–Maruyama with a term for noise that depends on the picture. The noise of these SDEs does
    not, so here it equals Euler–Maruyama. Use it to see that, or with an SDE of your own.
    """

    title: ClassVar[str] = "Milstein"

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        sde = Reverse(score)
        drift = sde.drift(x, t)
        moved = milstein(x, t, t - s, drift, sde.diffusion, draw())
        return Move(moved, sde.denoised(x, t, drift), t)


@dataclass(frozen=True)
class ReverseDiffusion(Predictor):
    """Undoes the noising step by step, as the noising was made; the paper's default with Langevin.
    Use it with a corrector and many steps.

    With x_t = r x_s + √v z the step is x_s = (2 - r) x_t + v score + √v z. The exact r and v of the
    SDE keep it finite however few the steps.
    """

    title: ClassVar[str] = "Reverse diffusion"

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        r, v = score.sde.transition(s, t)
        slope = score(x, t)
        mean = torch.addcmul(expand(2 - r, x) * x, expand(v, x), slope)
        moved = torch.addcmul(mean, expand(v.sqrt(), x), draw())
        return Move(moved, score.tweedie(x, t, slope), t)


@dataclass(frozen=True)
class Ancestral(Predictor):
    """Draws x_s given x_t and the denoised estimate; η fades the noise, 1 is DDPM, 0 is DDIM.
    Use it to see DDPM and DDIM themselves: smooth pictures in few steps.
    """

    title: ClassVar[str] = "Ancestral"
    eta: float = option(1.0, label="η", range=(0, 1), help="1 draws anew, 0 adds no noise.")

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean = score.denoised(x, t)
        (a_t, s_t), (a_s, s_s) = score.sde.marginals(t, s)
        std = self.eta * score.sde.bridge(t, s)[2]
        kept = (s_s**2 - std**2).clamp_min(0).sqrt() / s_t
        moved = torch.addcmul(expand(kept, x) * x, expand(a_s - kept * a_t, x), clean)
        if self.eta:
            moved = torch.addcmul(moved, expand(std, x), draw())
        return Move(moved, clean, t)


@dataclass(frozen=True)
class SRA1(Predictor):
    """Rößler's stochastic Runge–Kutta method for noise that does not depend on the picture: second
    order in law, two calls a step. Use it for the exact SDE, with 50 steps or more.

    Long steps make it explode. The guard is on ln(sigma_t² / sigma_s²), which is to first order the
    step times the steepest slope that a score can have, g² / s²; beyond it an ancestral step is taken.
    """

    title: ClassVar[str] = "SRA1 (Rößler)"
    calls: ClassVar[int] = 2
    guard: float = option(
        1.0,
        label="Guard",
        range=(0.01, 1000),
        log=True,
        help="Where the noise variance falls by more than e to this power, the step is ancestral.",
    )

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        sde, h, z = Reverse(score), t - s, draw()
        drift = sde.drift(x, t)
        clean = sde.denoised(x, t, drift)
        root = expand(h.sqrt(), x)
        # I_1 = dW and I_10 / h, where I_10 is the integral of W - W(t) over the step.
        one, area = root * z, root * (z + draw(1) / math.sqrt(3)) / 2
        far, near = sde.diffusion(x, s), sde.diffusion(x, t)
        ahead = x + expand(0.75 * h, x) * drift + 1.5 * far * area
        second = sde.drift(ahead, t - 0.75 * h)
        moved = x + expand(h, x) * (drift + 2 * second) / 3 + far * (one - area) + near * area
        careful = self._bridge(score, x, clean, t, s, z)
        steep = 2 * torch.log(score.sde.sigma(t) / score.sde.sigma(s))
        return Move(torch.where(expand(steep > self.guard, x), careful, moved), clean, t)

    @staticmethod
    def _bridge(score: Score, x: Tensor, clean: Tensor, t: Tensor, s: Tensor, z: Tensor) -> Tensor:
        c, c_0, std = score.sde.bridge(t, s)
        return expand(c, x) * x + expand(c_0, x) * clean + expand(std, x) * z
