"""What every sampler must do on scores that are known exactly, measured, with the theory beside it.

Pictures whose values are N(0, std²) have a linear score, so a sampler with fixed steps is a linear
map of its start and of every noise it draws. Running it once on unit impulses, a batch-mate for each,
gives that map, and with it the exact spread of what it makes: no Monte Carlo, no network.

Tests and the self-check share this file. Letters as in sde.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from studio import spec
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.langevin import AnnealedLangevinDynamics, LangevinDynamics
from studio.diffusion.noise import Noise
from studio.diffusion.predictors import PREDICTORS
from studio.diffusion.sampler import Sampler
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE, SDES
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Law:
    """One thing measured, and what theory says of it."""

    name: str
    sde: str
    sampler: str
    measured: float
    expected: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return abs(self.measured - self.expected) <= self.tolerance


#: Order of convergence in the law of the pictures of each sampler with fixed steps, even in log-SNR.
ORDERS = {
    "reverse": 1,
    "em": 1,
    "ancestral": 1,
    "milstein": 1,
    "sra1": 2,
    "dpm2m-sde": 2,
    "dpm2m": 2,
    "dpm3m": 3,
    "unipc": 3,
    "heun": 2,
    "euler": 1,
}


def gaussian(sde: SDE, std: float, shape: tuple[int, int, int] = (1, 1, 1)) -> Score:
    """The exact score of pictures whose values are N(0, std²), each for itself."""

    def fn(x: Tensor, t: Tensor) -> Tensor:
        a, s = sde.marginal(t)
        return -x / expand((a * std) ** 2 + s**2, x)

    return Score.from_function(fn, sde, shape)


def target_std(sde: SDE, std: float, t: float) -> float:
    """The deviation of noised pictures N(0, std²) at time t."""
    a, s = (float(v) for v in sde.marginal(torch.tensor([t], dtype=torch.float64)))
    return math.hypot(a * std, s)


class Impulses(Noise):
    """Noise of which every sample sees one draw only, as a one: sample 0 the start, and so on.

    A draw is known by its address, so that what is asked twice is the same noise, as with Noise.
    """

    def __init__(self, sde: SDE, rows: int) -> None:
        super().__init__((0,) * rows, (1, 1, 1), sde, dtype=torch.float64)
        object.__setattr__(self, "_places", {"start": 0})

    def start(self) -> Tensor:
        return self._impulse("start")

    def increment(self, t: float, s: float) -> Tensor:
        return self._impulse((t, s))

    def fresh(self, t: float, use: int) -> Tensor:
        return self._impulse((t, "fresh", use))

    def _impulse(self, address: Any) -> Tensor:
        places: dict[Any, int] = self._places  # type: ignore[attr-defined]
        out = torch.zeros(len(self.seeds), 1, 1, 1, dtype=torch.float64)
        out[places.setdefault(address, len(places))] = 1
        return out


def responses(sampler: Sampler, sde: SDE, std: float, begin: float = 1.0) -> tuple[Tensor, float]:
    """What each unit of noise becomes at the end of a run, (draws,), the start's first; and the time
    of the end. The start is a draw of the prior, or from `begin` < 1 on of the right law.

    For samplers that are linear where the score is, and draw no more often than they ask the score.
    """
    cost = sampler.cost()
    assert cost is not None
    noise = Impulses(sde, cost if sampler.stochastic else 1)
    start = None if begin == 1 else noise.start() * target_std(sde, std, begin)
    *_, before, _ = sampler.run(gaussian(sde, std), noise, start=start, begin=begin)
    return before.x.flatten(), before.t


def end_std(sampler: Sampler, sde: SDE, std: float, begin: float = 1.0) -> float:
    """The exact deviation of x where the run ends, before the denoising."""
    return float(responses(sampler, sde, std, begin)[0].norm())


def end_error(sampler: Sampler, sde: SDE, std: float) -> float:
    """By how much that deviation is too large, as a share of the right one."""
    gains, t = responses(sampler, sde, std)
    return float(gains.norm()) / target_std(sde, std, t) - 1


def order_of_convergence(sampler: Sampler, sde: SDE, steps: int = 64) -> float:
    """The slope measured at `steps`, twice and four times as many; 2 for errors that fall as h².

    The pictures are a little finer than the noise that is left at the end: over a fall of the noise
    from far above them to far below, the leading errors of some solvers cancel, and they look better
    than they are. Differences of the three free the slope of what no step mends.
    """
    std = 0.3 * float(sde.sigma(torch.tensor([sde.eps], dtype=torch.float64)))
    counts = (steps, 2 * steps, 4 * steps)
    ends = [end_std(spec.replace(sampler, "steps", n), sde, std) for n in counts]
    return math.log2(abs((ends[0] - ends[1]) / (ends[1] - ends[2])))


def drawn_error(sampler: Sampler, sde: SDE, std: float, count: int = 4) -> float:
    """As `end_error` for samplers that are not linear, from `count` drawn pictures of 3072 values.

    Its standard error is 1 / √(2 · 3072 · count), .64 % for four pictures.
    """
    score = gaussian(sde, std, (3, 32, 32))
    noise = Noise.of(0, count, score.shape, sde, depth=sampler.depth, dtype=torch.float64)
    *_, before, _ = sampler.run(score, noise)
    return float(before.x.square().mean().sqrt()) / target_std(sde, std, before.t) - 1


def stationary_error(sampler: LangevinDynamics, sde: SDE, std: float) -> float:
    """By how much Langevin's steps at one level widen N(0, std²) there, in the end: theory.

    A step e widens the variance V of a Gaussian to V / (1 - e / (2 V)).
    """
    a, s = sde.marginal(sde.time(torch.tensor([sampler.sigma], dtype=torch.float64)))
    share = float(s**2 / ((a * std) ** 2 + s**2))
    return (1 - sampler.snr**2 * share) ** -0.5 - 1


#: Calls at which end errors are measured, and the most that they may be there, by order.
CALLS = 200
_ALLOWED = {1: 0.06, 2: 0.02, 3: 0.005}


def sampler_laws(
    sdes: Mapping[str, SDE] | None = None, samplers: Iterable[str] | None = None
) -> Iterator[Law]:
    """Every law of the samplers, on pictures N(0, std²). All SDEs and samplers unless said."""
    sdes = sdes or {name: spec.from_dict(SDE, {"kind": name}) for name in SDES}
    for title, sde in sdes.items():
        for name in samplers or SAMPLERS:
            for law in _laws_of(name, sde):
                yield replace(law, sde=title)


def _laws_of(name: str, sde: SDE) -> Iterator[Law]:
    if (order := ORDERS.get(name)) is not None:
        measured = order_of_convergence(_made(name), sde)
        yield Law("order of convergence", "", name, measured, order, 0.35)
    for std in (0.5, 0.02):
        what = f"error of the spread of N(0, {std:g}²)"
        if order is not None:
            steps = CALLS // PREDICTORS[name].calls
            error = end_error(_made(name, steps=steps), sde, std)
            yield Law(what, "", name, error, 0.0, _ALLOWED[order])
        elif name == "langevin":
            chain = LangevinDynamics(steps=1000, snr=0.5, sigma=max(0.3, std))
            wanted = stationary_error(chain, sde, std)
            yield Law(what, "", name, end_error(chain, sde, std), wanted, 1e-6)
        elif name == "ald":
            error = end_error(AnnealedLangevinDynamics(steps=CALLS), sde, std)
            yield Law(what, "", name, error, 0.0, 0.1)
        else:
            # Those that choose their steps by what they see. Three standard errors, and the bias
            # that their own tolerance leaves, which is larger where pictures are as fine as it.
            allowed = 0.02 + (0.06 if std < 0.1 else 0.02)
            yield Law(
                what,
                "",
                name,
                drawn_error(_made(name, **_FINE.get(name, {})), sde, std),
                0.0,
                allowed,
            )


_FINE: dict[str, dict[str, Any]] = {
    "pc": {"steps": CALLS},
    "rk45": {"rtol": 1e-4, "atol": 1e-4},
}


def _made(name: str, **options: Any) -> Sampler:
    return spec.from_dict(Sampler, {"kind": name, **options})
