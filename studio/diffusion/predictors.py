"""Predictors: one step of the reverse SDE or of the probability-flow ODE, from time t to s < t.

A predictor sees the score at its own times only and keeps nothing between steps, except that a
multistep method is handed the previous Move. Letters as in sde.py and score.py; `z` unit noise.

Sources: Song et al. 2021, algorithms 2-5 and appendix F (reverse diffusion, ancestral); Song, Meng
and Ermon 2021 (DDIM); Karras et al. 2022, algorithm 1 (Heun); Lu et al. 2022, "DPM-Solver++",
algorithm 2 (2M).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.score import Score, expand
from studio.lazy import torch
from studio.spec import family, option

if TYPE_CHECKING:
    from torch import Tensor

    #: Unit noise for this step. Not called by the ODE's solvers, so they cost no random numbers.
    Draw = Callable[[], Tensor]


@dataclass(frozen=True)
class Move:
    """Where a step led: the state at time s, and the denoised estimate made at time t."""

    x: Tensor
    denoised: Tensor
    t: Tensor


@dataclass(frozen=True)
class Predictor(ABC):
    title: ClassVar[str] = "Predictor"
    stochastic: ClassVar[bool] = True
    calls: ClassVar[int] = 1  # network calls a step

    @abstractmethod
    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        """From x at time t to time s < t; t and s are (B,). `last` is the move that led to x."""


@dataclass(frozen=True)
class EulerMaruyama(Predictor):
    """The plainest solver of the reverse SDE. Use it to see what the others improve on."""

    title: ClassVar[str] = "Euler–Maruyama"

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        f, g = score.sde.coefficients(t)
        h, slope = t - s, score(x, t)
        mean = x - expand(h * f, x) * x + expand(h * g**2, x) * slope
        noisy = mean + expand(g * h.sqrt(), x) * draw()
        return Move(noisy, score.tweedie(x, t, slope), t)


@dataclass(frozen=True)
class ReverseDiffusion(Predictor):
    """Undoes the noising step by step, as the noising was made; the paper's default with Langevin.

    With x_t = r x_s + √v z the step is x_s = (2 - r) x_t + v score + √v z. The exact r and v of the
    SDE keep it finite however few the steps.
    """

    title: ClassVar[str] = "Reverse diffusion"

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        r, v = score.sde.transition(s, t)
        slope = score(x, t)
        mean = expand(2 - r, x) * x + expand(v, x) * slope
        return Move(mean + expand(v.sqrt(), x) * draw(), score.tweedie(x, t, slope), t)


@dataclass(frozen=True)
class Ancestral(Predictor):
    """Draws x_s given x_t and the denoised estimate; η fades the noise, 1 is DDPM, 0 is DDIM.
    Use it for clean pictures in few steps: fresh noise washes the network's errors out.
    """

    title: ClassVar[str] = "Ancestral"
    eta: float = option(1.0, label="η", range=(0, 1), help="1 draws anew, 0 adds no noise.")

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean = score.denoised(x, t)
        (a_t, s_t), (a_s, s_s) = score.sde.marginal(t), score.sde.marginal(s)
        std = self.eta * score.sde.bridge(t, s)[2]
        kept = (s_s**2 - std**2).clamp_min(0).sqrt() / s_t
        mean = expand(a_s - kept * a_t, x) * clean + expand(kept, x) * x
        return Move(mean + expand(std, x) * draw() if self.eta else mean, clean, t)


@dataclass(frozen=True)
class Euler(Predictor):
    """Euler's method on the probability flow in σ, which is DDIM: same start, same picture."""

    title: ClassVar[str] = "Euler (DDIM)"
    stochastic: ClassVar[bool] = False

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean = score.denoised(x, t)
        return Move(_towards(score, x, clean, t, s), clean, t)


@dataclass(frozen=True)
class Heun(Predictor):
    """Second order on the probability flow: two calls a step, the safe classic of EDM."""

    title: ClassVar[str] = "Heun"
    stochastic: ClassVar[bool] = False
    calls: ClassVar[int] = 2

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean = score.denoised(x, t)
        ahead = score.denoised(_towards(score, x, clean, t, s), s)
        # In y = x / a: dy/dsigma = (y - D) / sigma, averaged over both ends.
        (a_t, _), (a_s, _) = score.sde.marginal(t), score.sde.marginal(s)
        sigma_t, sigma_s = score.sde.sigma(t), score.sde.sigma(s)
        y, h = x / expand(a_t, x), sigma_s - sigma_t
        first = (y - clean) / expand(sigma_t, x)
        second = (y + expand(h, x) * first - ahead) / expand(sigma_s, x)
        y = y + expand(h / 2, x) * (first + second)
        return Move(expand(a_s, x) * y, clean, t)


@dataclass(frozen=True)
class DPM2M(Predictor):
    """DPM-Solver++(2M): second order on the probability flow with one call a step. Use it where the
    start alone should decide the picture.
    """

    title: ClassVar[str] = "DPM-Solver++ 2M"
    stochastic: ClassVar[bool] = False

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean = score.denoised(x, t)
        estimate = clean
        if last is not None:
            now, after, before = (torch.log(score.sde.sigma(u)) for u in (t, s, last.t))
            ratio = expand((now - after) / (2 * (before - now)), x)
            estimate = (1 + ratio) * clean - ratio * last.denoised
        return Move(_towards(score, x, estimate, t, s), clean, t)


def _towards(score: Score, x: Tensor, clean: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """x_s on the straight line in (y, sigma) from x_t to the picture `clean`: exact if D is constant."""
    (a_t, s_t), (a_s, s_s) = score.sde.marginal(t), score.sde.marginal(s)
    kept = s_s / s_t
    return expand(kept, x) * x + expand(a_s - kept * a_t, x) * clean


PREDICTORS = family(
    Predictor,
    {
        "reverse": ReverseDiffusion,
        "em": EulerMaruyama,
        "ancestral": Ancestral,
        "dpm2m": DPM2M,
        "heun": Heun,
        "euler": Euler,
    },
)
