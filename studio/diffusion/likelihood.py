"""How likely a model finds a picture, in bits per dimension: exact up to the solver and the trace.

Along the probability flow the log density changes by the divergence of the flow (instantaneous
change of variables): ln p_0(x) = ln p_1(z) + ∫ div dt, where z is the noise that x flows to. The
divergence is a trace, exact or estimated with probes (Skilling, Hutchinson) that stay the same along
the way, from the same call of the network as the flow itself.

A float picture is taken as it is, and its density is in units of its own values. A uint8 picture is
spread over its levels, (k + u) / 256 of the value range, and log2(256 / range) bits are added, which
makes its figure a bound on the bits of the 8-bit picture: that is the figure in papers.

Sources: Song et al. 2021, section 4.3 and appendix D.2; Chen et al. 2018, "Neural ODEs"; Grathwohl et
al. 2019, "FFJORD"; Hutchinson 1990; Theis et al. 2016 for the spreading over levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studio import spec
from studio.diffusion import pictures
from studio.diffusion.flow import FIRST_STEP, LONGEST_STEP, NoiseClock, steps_in_all
from studio.diffusion.integrator import DormandPrince54, Point
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Counted
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import FIRST_TIME
from studio.errors import PictureError, SpecError
from studio.lazy import no_grad, torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.integrator import State

_MOST_EXACT = 4096  # values a picture may have for the exact trace
_ROWS = 32  # rows of the Jacobian taken at once
_PROBE, _SPREAD = -1.0, -2.0  # addresses of fresh noise; no sampler is ever at such a time


@dataclass(frozen=True)
class LikelihoodStep:
    """Where a measurement is. On the way `bits` is a guess, made as if the state were noise already.

    All are (B,) but `latent`, the noise that the pictures flow to, and `map`, the part of each value
    in the change of the log density in nats, (B, C, H, W).
    """

    index: int
    total: int  # an estimate
    t: float  # of the sample that has the longest way to go
    bits: Tensor
    error: Tensor  # standard error of `bits`; nan where nothing was repeated
    latent: Tensor
    map: Tensor
    calls: int  # of the network; each also has a pass back for each probe
    finished: bool = False


@dataclass(frozen=True)
class Measure:
    """How a likelihood is measured. `run` yields a LikelihoodStep a step; the last is the result."""

    method: str = option(
        "hutchinson",
        label="Trace",
        choices=("hutchinson", "exact"),
        help="Estimated with probes, or exact, at a pass back for every value of a picture.",
    )
    probes: int = option(2, label="Probes", range=(1, 1000), help="More: a smaller error bar.")
    law: str = option(
        "rademacher",
        label="Law of the probes",
        choices=("rademacher", "gaussian"),
        help="Signs vary less than Gaussian numbers.",
    )
    repeats: int = option(
        1, label="Repeats", range=(1, 100), help="Anew with other probes and another spreading."
    )
    rtol: float = option(
        1e-5,
        label="Relative tolerance",
        range=(1e-7, 0.5),
        log=True,
        help="Smaller is finer, slower.",
    )
    atol: float = option(
        1e-5,
        label="Absolute tolerance",
        range=(1e-7, 0.5),
        log=True,
        help="In units of the pixels, and of nats per dimension.",
    )
    dequantize: bool = option(
        True,
        label="Spread over levels",
        help="Else an 8-bit value stands in the middle of its level, which can give too few bits.",
    )
    precision: str = option(
        "float32",
        label="Precision",
        choices=("float32", "float64"),
        help="Of the state and the sums; a network computes as it always does.",
    )

    @no_grad
    def run(self, score: Score, x: Tensor | np.ndarray, seed: int = 0) -> Iterator[LikelihoodStep]:
        """Measure x: float (B, C, H, W) in the value range, or uint8 (B, H, W, C).

        Picture i has the seed `seed + i`, alone or in company. Raises SpecError if the score has no
        likelihood or cannot be differentiated, PictureError if x does not fit it, SolverError if
        the flow cannot be followed to this precision.
        """
        spec.check(self)
        given, counted = _accepted(self, score, x), Counted(score)
        dtype = torch.float64 if self.precision == "float64" else torch.float32
        noise = Noise.of(seed, len(given), score.shape, score.sde, device=score.device, dtype=dtype)
        past: list[_Passage] = []
        for repeat in range(self.repeats):
            start, offset = self._start(given, noise, repeat, score.value_range)
            flow = _Flow(counted.score, self._drawn(noise, repeat), offset)
            now: _Passage | None = None
            for now in flow.follow(start, self.rtol, self.atol):
                yield self._step([*past, now], counted.calls)
            assert now is not None
            past.append(now)

    def _start(
        self, given: Tensor, noise: Noise, repeat: int, value_range: tuple[float, float]
    ) -> tuple[Tensor, float]:
        """(the state at FIRST_TIME, the bits a dimension that its unit adds)."""
        dtype = noise.dtype
        if given.is_floating_point():
            return given.to(dtype), 0.0
        share = torch.full((), 0.5, dtype=dtype, device=given.device)
        if self.dequantize:
            share = torch.special.ndtr(noise.fresh(_SPREAD, repeat))
        low, high = value_range
        x = pictures.dequantized(given, value_range, share)
        return x, -math.log2((high - low) / pictures.LEVELS)

    def _drawn(self, noise: Noise, repeat: int) -> Tensor | None:
        """The probes (K, B, C, H, W) of a repeat; None for the exact trace."""
        if self.method == "exact":
            return None
        uses = range(repeat * self.probes, (repeat + 1) * self.probes)
        drawn = torch.stack([noise.fresh(_PROBE, use) for use in uses])
        return drawn if self.law == "gaussian" else torch.where(drawn < 0, -1.0, 1.0).to(drawn)

    def _step(self, passages: list[_Passage], calls: int) -> LikelihoodStep:
        now, index = passages[-1], sum(p.index for p in passages)
        to_come = self.repeats - len(passages)
        each = torch.stack([p.bits.mean(1) for p in passages])
        error = torch.full_like(each[0], 0.0 if self.method == "exact" else math.nan)
        if len(each) > 1:
            error = each.std(0) / math.sqrt(len(each))
        elif now.bits.shape[1] > 1:
            error = now.bits.std(1) / math.sqrt(now.bits.shape[1])
        return LikelihoodStep(
            index=index,
            total=index - now.index + now.total * (1 + to_come),
            t=now.t,
            bits=each.mean(0),
            error=error,
            latent=now.latent,
            map=torch.stack([p.map for p in passages]).mean(0),
            calls=calls,
            finished=now.arrived and not to_come,
        )


@dataclass(frozen=True)
class _Passage:
    """Where one way along the flow is."""

    index: int
    total: int
    t: float
    bits: Tensor  # (B, K), by each probe
    latent: Tensor
    map: Tensor
    arrived: bool


class _Flow:
    """The flow of (pictures, log density changes in nats a dimension by each probe (B, K), map)."""

    def __init__(self, score: Score, probes: Tensor | None, offset: float) -> None:
        self.score, self.probes, self.offset = score, probes, offset
        self.clock = NoiseClock(score.sde)

    def follow(self, x: Tensor, rtol: float, atol: float) -> Iterator[_Passage]:
        first, last = self.clock.at(FIRST_TIME), self.clock.at(1.0)
        # The map comes along without a say: its values are as rough as a probe is.
        rule = DormandPrince54(self.slope, last, rtol, atol, 2, LONGEST_STEP)
        change = x.new_zeros(len(x), 1 if self.probes is None else len(self.probes))
        state = (x, change, torch.zeros_like(x))
        for point in rule.run(rule.start(state, x.new_full((len(x),), first), FIRST_STEP)):
            total = steps_in_all(point, first, last)
            t = 1.0 if point.arrived else self.clock.reached(point)
            bits, (latent, _, map) = self._bits(point), point.state
            yield _Passage(point.index, total, t, bits, latent, map, point.arrived)

    def slope(self, state: State, u: Tensor) -> State:
        x, t = state[0], self.clock.time(u)
        kept, pull = self.clock.terms(t)
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            value = self.score(x, t)
        if not value.requires_grad:
            raise SpecError("This score cannot be differentiated, so it has no likelihood.")
        value = value.to(x.dtype)
        traces, diagonal = (
            _exact(value, x) if self.probes is None else _probed(value, x, self.probes)
        )
        value, x = value.detach(), x.detach()
        return (
            expand(kept, x) * x - expand(pull, x) * value,
            kept[:, None] - pull[:, None] * traces / x[0].numel(),
            expand(kept, x) - expand(pull, x) * diagonal,
        )

    def _bits(self, point: Point) -> Tensor:
        """Bits per dimension by each probe, (B, K)."""
        x, change, _ = point.state
        if point.arrived:
            prior = self.score.sde.prior_log_density(x) / x[0].numel()
        else:
            # Of the Gaussian of the state's own size: near the end that is the prior.
            prior = -(1 + torch.log(2 * math.pi * x.pow(2).flatten(1).mean(1))) / 2
        return -(prior[:, None] + change) / math.log(2) + self.offset


def density_rate(score: Score, x: Tensor, t: Tensor, probes: Tensor) -> Tensor:
    """How fast each value's part of the log density grows along the flow at x (B, C, H, W), t (B,), in
    nats for each unit by which ln(sigma) falls; estimated with probes (K, B, C, H, W).

    Raises SpecError if the score cannot be differentiated.
    """
    kept, pull = NoiseClock(score.sde).terms(t)
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_(True)
        value = score(x, t.clone())
        if not value.requires_grad:
            raise SpecError("This score cannot be differentiated, so it tells no densities.")
        _, diagonal = _probed(value, x, probes)
    return expand(kept, x) - expand(pull, x) * diagonal


def _probed(value: Tensor, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    """(trace of d value / dx by each probe (B, K), its diagonal by their mean (B, C, H, W))."""
    traces, diagonal = [], torch.zeros_like(x)
    for k, probe in enumerate(probes):
        more = k + 1 < len(probes)
        (pulled,) = torch.autograd.grad(value, x, probe, retain_graph=more)
        product = pulled * probe
        traces.append(product.flatten(1).sum(1))
        diagonal = diagonal + product / len(probes)
    return torch.stack(traces, 1), diagonal


def _exact(value: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """(trace of d value / dx (B, 1), its diagonal (B, C, H, W)), a row of the Jacobian for each value."""
    count = x[0].numel()
    parts = []
    for first in range(0, count, _ROWS):
        rows = torch.arange(first, min(first + _ROWS, count), device=x.device)
        units = torch.nn.functional.one_hot(rows, count).to(x).reshape(-1, 1, *x.shape[1:])
        jacobian = _pulled(value, x, units.expand(-1, *x.shape))
        parts.append(jacobian.flatten(2)[rows - first, :, rows])
    diagonal = torch.cat(parts).T.reshape(x.shape)
    return diagonal.flatten(1).sum(1, keepdim=True), diagonal


def _pulled(value: Tensor, x: Tensor, units: Tensor) -> Tensor:
    """Each of `units` (M, B, C, H, W) pulled back from `value` to x."""
    try:
        return torch.autograd.grad(value, x, units, retain_graph=True, is_grads_batched=True)[0]
    except RuntimeError:
        # Not every layer can be pulled back for many at once. If that was not why, it fails again.
        each = [torch.autograd.grad(value, x, unit, retain_graph=True)[0] for unit in units]
        return torch.stack(each)


def _accepted(measure: Measure, score: Score, x: Tensor | np.ndarray) -> Tensor:
    """x on the score's device, uint8 (B, H, W, C) or float (B, C, H, W). Raises as `Measure.run`."""
    if not score.continuous:
        raise SpecError(
            "This network knows a fixed set of noise levels and nothing between them, "
            "so it has no likelihood.",
            "Choose a model that was trained in continuous time.",
        )
    if measure.precision == "float64" and score.device.startswith("mps"):
        raise SpecError("This device has no float64.", "Choose float32.")
    # A copy of an array, which may be one that cannot be written to.
    given = (x if isinstance(x, torch.Tensor) else torch.from_numpy(np.array(x))).to(score.device)
    c, h, w = score.shape
    fitting = (h, w, c) if given.dtype == torch.uint8 else (c, h, w)
    if given.ndim != 4 or not len(given) or tuple(given.shape[1:]) != fitting:
        raise PictureError(
            f"This model measures pictures of shape {fitting}, not {tuple(given.shape[1:])}."
        )
    if given.dtype != torch.uint8 and not given.is_floating_point():
        raise PictureError("Pictures are uint8 or float, not " + str(given.dtype)[6:] + ".")
    if not bool(torch.isfinite(given).all()):
        raise PictureError("The picture is not made of finite numbers.")
    if measure.method == "exact" and given[0].numel() > _MOST_EXACT:
        raise SpecError(
            f"The exact trace takes a pass back for each of {given[0].numel()} values.",
            f"It is for pictures of up to {_MOST_EXACT}; choose hutchinson.",
        )
    return given


#: For a first look: half the calls, and bits to a few thousandths.
QUICK = Measure(rtol=1e-4, atol=1e-4)
