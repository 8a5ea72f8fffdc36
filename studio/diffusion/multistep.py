"""Predictors that look back: from earlier denoised estimates they tell how D changes in the step.

In l = -ln(sigma) the flow from t to s, of length h = l_s - l_t, is
x_s = (s_s / s_t) x_t + a_s ∫ h e^{-h (1 - u)} D(u) du over u in [0, 1]; a method is a choice of nodes u
and of weights for D there. Weights that are exact for polynomials make an exponential Adams method.

Sources: Lu et al. 2022, "DPM-Solver++", algorithm 2 and appendix B (2M, SDE 2M, 3M); Zhao et al. 2023,
"UniPC: A Unified Predictor-Corrector Framework", algorithms 5 to 8. The published code of 3M leaves a
factor 2 out of the second difference, which makes it second order; here the weights are the exact ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.move import Move, Predictor, towards
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE
from studio.lazy import torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.move import Draw

    #: Earlier denoised estimates and their times (B,), the newest first.
    Past = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class DPM2M(Predictor):
    """DPM-Solver++(2M): second order on the probability flow with one call a step. Use it where the
    start alone should decide the picture.
    """

    title: ClassVar[str] = "DPM-Solver++ 2M"

    @property
    def stochastic(self) -> bool:
        return False

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean = score.denoised(x, t)
        return Move(towards(score.sde, x, _straight(score.sde, clean, t, s, last), t, s), clean, t)


@dataclass(frozen=True)
class DPM2MSDE(Predictor):
    """DPM-Solver++(2M) for the SDE: second order in law with one call a step. Use it first: the best
    pictures in few steps, for fresh noise washes the network's errors out.
    """

    title: ClassVar[str] = "DPM-Solver++ 2M SDE"
    eta: float = option(
        1.0, label="η", range=(0, 1), help="Noise added: 1 is the reverse SDE, 0 the flow."
    )

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean = score.denoised(x, t)
        estimate = _straight(score.sde, clean, t, s, last)
        (a_t, s_t), (a_s, s_s) = score.sde.marginals(t, s)
        h = torch.log(s_t / a_t * a_s / s_s)
        kept = s_s / s_t * torch.exp(-self.eta * h)
        drawn = -a_s * torch.expm1(-(1 + self.eta) * h)
        mean = torch.addcmul(expand(kept, x) * x, expand(drawn, x), estimate)
        if not self.eta:
            return Move(mean, clean, t)
        std = s_s * torch.sqrt(-torch.expm1(-2 * self.eta * h))
        return Move(torch.addcmul(mean, expand(std, x), draw()), clean, t)


@dataclass(frozen=True)
class DPM3M(Predictor):
    """DPM-Solver++(3M): third order on the probability flow with one call a step. Use it with 30
    steps or more; below that 2M is calmer.
    """

    title: ClassVar[str] = "DPM-Solver++ 3M"

    @property
    def stochastic(self) -> bool:
        return False

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean = score.denoised(x, t)
        past = _past(last)
        known: Past = [(clean, t), *past[:2]]
        h, nodes = _nodes(score.sde, t, s, [at for _, at in known])
        estimates = [estimate for estimate, _ in known]
        moved = _integrated(score.sde, x, t, s, exact_weights(h, nodes), estimates)
        return Move(moved, clean, t, _kept(past, 1))


@dataclass(frozen=True)
class UniPC(Predictor):
    """Predicts, and mends the step before with the estimate it needs anyway: one call a step, one
    order higher. Use it for the flow's answer in few steps.
    """

    title: ClassVar[str] = "UniPC"
    order: int = option(
        2, label="Order", range=(1, 3), help="Of the prediction; its correction is one higher."
    )

    @property
    def stochastic(self) -> bool:
        return False

    def step(
        self, score: Score, x: Tensor, t: Tensor, s: Tensor, draw: Draw, last: Move | None
    ) -> Move:
        clean, past = score.denoised(x, t), _past(last)[: self.order]
        if past:
            x = x + self._correction(score.sde, clean, t, past)
        known: Past = [(clean, t), *past[: self.order - 1]]
        h, nodes = _nodes(score.sde, t, s, [at for _, at in known])
        estimates = [estimate for estimate, _ in known]
        moved = _integrated(score.sde, x, t, s, _prediction(h, nodes), estimates)
        return Move(moved, clean, t, _kept(past, self.order - 1))

    @staticmethod
    def _correction(sde: SDE, clean: Tensor, t: Tensor, past: Past) -> Tensor:
        """How the step that led here would have ended had it known D at its end."""
        begun = past[0][1]
        h, nodes = _nodes(sde, begun, t, [at for _, at in past])
        end = torch.ones_like(h)
        mean = -torch.expm1(-h)
        # The paper's choice for its first order, B_2(h) / 2, weighs both ends alike.
        better = exact_weights(h, [end, *nodes]) if len(past) > 1 else [mean / 2, mean / 2]
        was = [torch.zeros_like(h), *_prediction(h, nodes)]
        estimates = [clean, *(estimate for estimate, _ in past)]
        a = sde.marginal(t)[0]
        parts = [
            expand(a * (new - old), clean) * estimate
            for new, old, estimate in zip(better, was, estimates)
        ]
        return torch.stack(parts).sum(0)


def exact_weights(h: Tensor, nodes: Sequence[Tensor]) -> list[Tensor]:
    """Weights (B,) of D at `nodes` (one to four, each (B,)), exact where D is a polynomial in u.

    ∫ h e^{-h (1 - u)} L_j(u) du over [0, 1], with L_j the polynomial that is 1 at node j and 0 at the
    others.
    """
    moments = _moments(h, len(nodes))
    weights = []
    for j, node in enumerate(nodes):
        polynomial = [torch.ones_like(h)]  # coefficients, the constant first
        for other in (n for i, n in enumerate(nodes) if i != j):
            scale = 1 / (node - other)
            zero = torch.zeros_like(h)
            raised, same = [zero, *polynomial], [*polynomial, zero]
            polynomial = [(a - other * b) * scale for a, b in zip(raised, same)]
        weights.append(torch.stack([c * m for c, m in zip(polynomial, moments)]).sum(0))
    return weights


def _moments(h: Tensor, count: int) -> list[Tensor]:
    """∫ h e^{-h (1 - u)} u^k du over [0, 1] for k below `count`."""
    up = [-torch.expm1(-h)]
    for k in range(1, count):
        up.append(1 - k / h * up[-1])
    # For short steps that loses all digits; there, a series for the last one and the way back down.
    series = term = h / count
    for m in range(1, 12):
        term = -term * h / (count + m)
        series = series + term
    down = [series]
    for k in range(count - 1, 0, -1):
        down.append((1 - down[-1]) * h / k)
    return [torch.where(h < 1, low, high) for low, high in zip(reversed(down), up)]


def _prediction(h: Tensor, nodes: Sequence[Tensor]) -> list[Tensor]:
    """Weights of UniPC's prediction: for two nodes the paper's B_2(h) / 2, which is that of 2M."""
    if len(nodes) != 2:
        return exact_weights(h, nodes)
    mean = -torch.expm1(-h)
    share = mean / (2 * nodes[1])
    return [mean - share, share]


def _nodes(sde: SDE, t: Tensor, s: Tensor, at: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """(h, the place u of each time in `at`): 0 is t, 1 is s, earlier ones are negative."""
    now, end, *places = (torch.log(s / a) for a, s in sde.marginals(t, s, *at))
    h = now - end
    return h, [(now - place) / h for place in places]


def _integrated(
    sde: SDE,
    x: Tensor,
    t: Tensor,
    s: Tensor,
    weights: Sequence[Tensor],
    estimates: Sequence[Tensor],
) -> Tensor:
    (_, s_t), (a_s, s_s) = sde.marginals(t, s)
    x = expand(s_s / s_t, x) * x
    for weight, estimate in zip(weights, estimates):
        x = torch.addcmul(x, expand(a_s * weight, x), estimate)
    return x


def _straight(sde: SDE, clean: Tensor, t: Tensor, s: Tensor, last: Move | None) -> Tensor:
    """D in the middle of the step, on the line through its last two values."""
    if last is None:
        return clean
    now, after, before = (torch.log(s / a) for a, s in sde.marginals(t, s, last.t))
    ratio = (now - after) / (2 * (before - now))
    return torch.lerp(last.denoised, clean, expand(1 + ratio, clean))


def _past(last: Move | None) -> Past:
    if last is None:
        return []
    older = last.memory
    if "past" not in older:
        return [(last.denoised, last.t)]
    return [(last.denoised, last.t), *zip(older["past"], older["past_times"])]


def _kept(past: Past, count: int) -> dict[str, Tensor]:
    """What the next step needs of the past besides this step's own estimate."""
    if not past[:count]:
        return {}
    estimates, times = zip(*past[:count])
    return {"past": torch.stack(estimates), "past_times": torch.stack(times)}
