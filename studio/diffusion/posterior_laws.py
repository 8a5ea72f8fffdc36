"""What conditions on measurements must draw, where the right answer is known: pictures with a Gaussian
law, of which something linear is measured, have a Gaussian posterior with known mean and covariance.

Replacement and pseudoinverse guidance are affine in the start and in every noise that is drawn, so unit
impulses, a batch-mate for each, give the exact law of what they draw. Posterior sampling is not: its law
is estimated, from pairs of draws with opposite noise.

On pictures whose values are equally varied and independent every method is right. Where they are
correlated each has a bias, which is measured here and shown: it belongs to the method. Tests and the
self-check share this file. Letters as in sde.py; `A` what is measured, `K` the gain of the posterior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from studio import spec
from studio.diffusion import colour
from studio.diffusion.conditions import Condition, Guiding, Travel
from studio.diffusion.laws import Law
from studio.diffusion.linear import Blocks, Blur, Coordinates, Linear
from studio.diffusion.measured import (
    Measured,
    PosteriorSampling,
    PseudoinverseGuidance,
    Replacement,
)
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Sampler
from studio.diffusion.score import Score
from studio.diffusion.sde import SDE, SDES
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.conditions import Pull

STD = 0.5  # of every value of a picture
STEPS = 60
_TRUTHS = 16  # pictures of which something is measured
_PAIRS = 200  # of draws with opposite noise, where a law is estimated
_REACH = 2.0  # pixels over which correlated values forget each other


@dataclass(frozen=True)
class Posterior:
    """Pictures N(0, covariance) of `shape`, and what is measured of them, with what deviation."""

    operator: Linear
    shape: tuple[int, int, int]
    covariance: Tensor  # (D, D)
    error: float = 0.0

    @property
    def matrix(self) -> Tensor:
        """A, (measured values, D)."""
        units = torch.eye(len(self.covariance), dtype=torch.float64)
        return self.operator.forward(units.reshape(-1, *self.shape)).flatten(1).T

    @property
    def gain(self) -> Tensor:
        """K, (D, measured values): the posterior mean is K y."""
        a, c = self.matrix, self.covariance
        noisy = a @ c @ a.T + self.error**2 * torch.eye(len(a), dtype=torch.float64)
        return c @ a.T @ torch.linalg.pinv(noisy, rtol=1e-9, hermitian=True)

    @property
    def spread(self) -> Tensor:
        """The covariance of the posterior, (D, D)."""
        return self.covariance - self.gain @ self.matrix @ self.covariance

    def score(self, sde: SDE) -> Score:
        """The exact score of the pictures, nothing being known."""
        variances, axes = torch.linalg.eigh(self.covariance)

        def fn(x: Tensor, t: Tensor) -> Tensor:
            a, s = sde.marginal(t)
            left = (a**2)[:, None] * variances + (s**2)[:, None]
            return -((x.flatten(1) @ axes / left) @ axes.T).reshape(x.shape)

        return Score.from_function(fn, sde, self.shape)

    def seen(self, count: int) -> tuple[Tensor, Tensor]:
        """Pictures in which the operator sees what was measured (count, C, H, W), always the same; and
        the posterior mean of each, (count, D)."""
        generator = torch.Generator().manual_seed(0)
        size = len(self.covariance)
        z = torch.randn(count, 2 * size, generator=generator, dtype=torch.float64)
        pictures = z[:, :size] @ torch.linalg.cholesky(self.covariance).T
        measured = pictures @ self.matrix.T
        if self.error:
            measured = pictures = measured + self.error * z[:, size : size + measured.shape[1]]
        return pictures.reshape(-1, *self.shape), measured @ self.gain.T


@dataclass(frozen=True)
class BayesGuidance(Guiding, Measured):
    """Bayes' rule itself, with the covariance that is left of these pictures at each noise level: what
    pseudoinverse guidance stands in for. It shows what the sampler alone gets wrong."""

    posterior: Posterior

    def term(self, x: Tensor, t: Tensor, clean: Tensor, pull: Pull, sde: SDE) -> Tensor:
        c, a = self.posterior.covariance, self.posterior.matrix
        v = sde.sigma(t)[:, None, None] ** 2 * torch.eye(len(c), dtype=c.dtype)
        left = a @ (c @ torch.linalg.solve(c + v, v)) @ a.T
        left = left + self.posterior.error**2 * torch.eye(len(a), dtype=c.dtype)
        gap = self.operator.measured(self.picture) - self.operator.forward(clean)
        told = torch.linalg.pinv(left, rtol=1e-9, hermitian=True) @ gap.flatten(1)[:, :, None]
        return pull((told[:, :, 0] @ a).reshape(x.shape))


#: How each method is told what is known; of those that are not affine in the noise, see `_AFFINE`.
METHODS: dict[str, Callable[[Posterior, Tensor], Condition]] = {
    "replacement": lambda p, seen: Replacement(p.operator, seen),
    # A threshold that is always passed, for a law that does not depend on what is drawn.
    "time travel": lambda p, seen: Replacement(p.operator, seen, Travel(5, 4, -1.0)),
    "pseudoinverse guidance": lambda p, seen: PseudoinverseGuidance(p.operator, seen, p.error, STD),
    "posterior sampling": lambda p, seen: PosteriorSampling(p.operator, seen),
    "Bayes' rule": lambda p, seen: BayesGuidance(p.operator, seen, p),
}
_AFFINE = set(METHODS) - {"posterior sampling"}
_PUT_BACK = {"replacement", "time travel"}  # and so no blur


# -- pictures and what is known of them ---------------------------------------------------------------


def posteriors(correlated: bool) -> dict[str, Posterior]:
    """Pictures of every kind of measurement, by name, whose values go together or do not."""
    grey = _covariance((1, 4, 4), correlated)
    colours = _covariance((3, 2, 2), correlated)
    half = torch.full((1, 1, 4, 4), math.inf, dtype=torch.float64)
    half[:, :, :2] = 0
    chroma = torch.full((1, 3, 2, 2), math.inf, dtype=torch.float64)
    chroma[:, 0] = 0
    basis = colour.basis(colour.WEIGHTS["rec601"])
    return {
        "half of it": Posterior(Coordinates(half), (1, 4, 4), grey),
        "brightness": Posterior(Coordinates(chroma, basis), (3, 2, 2), colours),
        "means of blocks": Posterior(Blocks(2), (1, 4, 4), grey),
        "a blur": Posterior(Blur(1.0), (1, 4, 4), grey, 0.1),
    }


def independent(posterior: Posterior) -> Posterior:
    """The same pictures, but what is measured says nothing of the rest."""
    a, c = posterior.matrix, posterior.covariance
    told = torch.linalg.pinv(a) @ a
    rest = torch.eye(len(c), dtype=c.dtype) - told
    return replace(posterior, covariance=told @ c @ told + rest @ c @ rest)


def _covariance(shape: tuple[int, int, int], correlated: bool) -> Tensor:
    """Of values of deviation STD: falling with the distance of pixels and, at half of that, channels."""
    if not correlated:
        return STD**2 * torch.eye(math.prod(shape), dtype=torch.float64)
    places = [torch.arange(n, dtype=torch.float64) for n in shape]
    grid = torch.stack(torch.meshgrid(*places, indexing="ij"), -1).reshape(-1, 3)
    grid[:, 0] /= 2
    return STD**2 * torch.exp(-torch.cdist(grid, grid) / _REACH)


# -- what a method draws ------------------------------------------------------------------------------


class _Impulses(Noise):
    """As laws.Impulses for pictures of many values: each value of each draw is seen by one sample only,
    and the first `quiet` samples see none."""

    def __init__(self, sde: SDE, shape: tuple[int, int, int], quiet: int, draws: int) -> None:
        count = quiet + draws * math.prod(shape)
        super().__init__((0,) * count, shape, sde, dtype=torch.float64)
        object.__setattr__(self, "quiet", quiet)
        object.__setattr__(self, "places", {})

    def start(self) -> Tensor:
        return self._impulse("start")

    def increment(self, t: float, s: float) -> Tensor:
        return self._impulse((t, s, self.branches))

    def fresh(self, t: float, use: int) -> Tensor:
        return self._impulse((t, "fresh", use, self.branches))

    def branch(self, t: float, seed: int) -> Noise:
        """Other noise, of which only what lies below t may be asked."""
        other = _Impulses(self.sde, self.shape, 0, 0)
        told = {"seeds": self.seeds, "branches": (*self.branches, (t, seed))}
        for name, value in (vars(self) | told).items():
            object.__setattr__(other, name, value)
        return other

    def _impulse(self, address: Any) -> Tensor:
        places: dict[Any, int] = self.places  # type: ignore[attr-defined]
        size = math.prod(self.shape)
        first = self.quiet + size * places.setdefault(address, len(places))  # type: ignore[attr-defined]
        out = torch.zeros(len(self.seeds), size, dtype=torch.float64)
        # Past the end where the draws are only counted.
        out[first : first + size] = torch.eye(size, dtype=torch.float64)[: max(0, len(out) - first)]
        return out.reshape(-1, *self.shape)


class _Pairs(Noise):
    """Draws for `groups` groups of samples, of which one half sees the opposite of what the other half
    sees. For solvers that ask for each draw once."""

    def __init__(self, sde: SDE, shape: tuple[int, int, int], groups: int, pairs: int) -> None:
        super().__init__((0,) * (groups * pairs * 2), shape, sde, dtype=torch.float64)
        object.__setattr__(self, "halves", (groups, pairs, *shape))
        object.__setattr__(self, "generator", torch.Generator().manual_seed(0))

    def start(self) -> Tensor:
        halves, generator = self.halves, self.generator  # type: ignore[attr-defined]
        z = torch.randn(halves, generator=generator, dtype=torch.float64)
        return torch.cat([z, -z], 1).reshape(-1, *self.shape)

    def increment(self, t: float, s: float) -> Tensor:
        return self.start()

    def fresh(self, t: float, use: int) -> Tensor:
        return self.start()


@dataclass(frozen=True)
class Drawn:
    """The law of what a method draws: a mean for each of some pictures (count, D), one covariance."""

    means: Tensor
    covariance: Tensor
    calls: int

    def mean_error(self, posterior: Posterior, wanted: Tensor) -> float:
        """How far means are off, in deviations of the posterior: over pictures the root mean square, of
        the values that are not known the largest."""
        std = posterior.spread.diagonal().clamp_min(0).sqrt()
        free = std > 1e-3 * STD
        off = (self.means - wanted).square().mean(0).sqrt()
        return float((off[free] / std[free]).max())

    def spread_error(self, posterior: Posterior) -> float:
        """By how much values vary too much or too little, as a share; of all of them the largest."""
        std = posterior.spread.diagonal().clamp_min(0).sqrt()
        free = std > 1e-3 * STD
        share = self.covariance.diagonal().clamp_min(0).sqrt()[free] / std[free] - 1
        return float(share[share.abs().argmax()])


def drawn(method: str, posterior: Posterior, sde: SDE, steps: int = STEPS) -> Drawn:
    """The law of the pictures that `method` draws, in runs of `steps` steps."""
    seen, _ = posterior.seen(_TRUTHS)
    size = len(posterior.covariance)
    if method not in _AFFINE:
        rows = seen.repeat_interleave(2 * _PAIRS, 0)
        x, calls = _run(
            method, posterior, _Pairs(sde, posterior.shape, _TRUTHS, _PAIRS), rows, steps
        )
        groups = x.reshape(_TRUTHS, -1, size)
        away = (groups - groups.mean(1, keepdim=True)).reshape(-1, size)
        return Drawn(groups.mean(1), away.T @ away / len(away), calls)
    counting = _Impulses(sde, posterior.shape, _TRUTHS, 0)
    _run(method, posterior, counting, seen, steps)
    noise = _Impulses(sde, posterior.shape, _TRUTHS, len(counting.places))  # type: ignore[attr-defined]
    # The impulses are about the first picture; what it makes without them is taken off.
    rows = torch.cat([seen, seen[:1].expand(len(noise.seeds) - _TRUTHS, -1, -1, -1)])
    x, calls = _run(method, posterior, noise, rows, steps)
    gains = x[_TRUTHS:] - x[0]
    return Drawn(x[:_TRUTHS], gains.T @ gains, calls)


def _run(
    method: str, posterior: Posterior, noise: Noise, seen: Tensor, steps: int
) -> tuple[Tensor, int]:
    """The pictures at the end of a run, (B, D), and its network calls."""
    sampler = spec.from_dict(Sampler, {"kind": "dpm2m-sde", "steps": steps})
    condition = METHODS[method](posterior, seen)
    *_, last = sampler.run(posterior.score(noise.sde), noise, condition)
    return last.x.flatten(1), last.nfe


# -- laws ---------------------------------------------------------------------------------------------

#: By how much (means, spread) a method may be off on correlated pictures of which half is known: bounds
#: on a bias that belongs to the method. It is measured to be seen, and is no failure.
_BIAS = {
    "replacement": (0.6, 0.2),
    "time travel": (0.4, 0.1),
    "pseudoinverse guidance": (0.3, 0.06),
    "posterior sampling": (0.35, 0.15),
}
#: And where it is right: what 30 steps leave, and what 3,200 independent draws leave of a spread.
_RIGHT = (0.005, 0.04)
_ESTIMATED = 0.04
_LAW_STEPS = 30
_EVEN = 1e-3  # the deviation of values so even that all that is left in them at the end is grain


def posterior_laws(sdes: Mapping[str, SDE] | None = None) -> Iterator[Law]:
    """What each method gets wrong: nothing where it is right, its bias where it is known to have one.
    All SDEs unless said."""
    sdes = sdes or {name: spec.from_dict(SDE, {"kind": name}) for name in SDES}
    for name, sde in sdes.items():
        for method in METHODS:
            for law in _laws_of(method, sde):
                yield replace(law, sde=name, sampler=method)


def _laws_of(method: str, sde: SDE) -> Iterator[Law]:
    correlated = posteriors(correlated=True)
    half, blur = correlated["half of it"], correlated["a blur"]
    if method not in _BIAS:
        yield from _errors("correlated pictures", method, [half, blur], sde, (0.01, _RIGHT[1]))
        return
    right = _RIGHT[0], _RIGHT[1] + (0 if method in _AFFINE else _ESTIMATED)
    yield from _errors("even pictures", method, _where_right(method), sde, right)
    yield from _errors("the rest independent", method, [independent(half)], sde, right)
    yield from _errors("correlated pictures (its bias)", method, [half], sde, _BIAS[method])
    yield from _ends(method, half, sde)


def _where_right(method: str) -> list[Posterior]:
    """Of even pictures, the measurements on which a method is right."""
    found = posteriors(correlated=False)
    blur = found.pop("a blur")
    if method == "time travel":
        return [found["half of it"]]  # in all else as replacement, at four times its calls
    # Posterior sampling knows of no error of what is measured.
    return [*found.values(), *([blur] if method == "pseudoinverse guidance" else [])]


def _errors(
    where: str, method: str, pictures: list[Posterior], sde: SDE, allowed: tuple[float, float]
) -> Iterator[Law]:
    """The largest errors of means and spread on these pictures."""
    laws = [(drawn(method, p, sde, _LAW_STEPS), p) for p in pictures]
    mean = max(law.mean_error(p, p.seen(_TRUTHS)[1]) for law, p in laws)
    spread = max((law.spread_error(p) for law, p in laws), key=abs)
    yield Law(f"error of means, {where}", "", "", mean, 0.0, allowed[0])
    yield Law(f"error of the spread, {where}", "", "", spread, 0.0, allowed[1])


def _ends(method: str, half: Posterior, sde: SDE) -> Iterator[Law]:
    """How exactly what is known comes out, and what noise is left in the rest, if that is even."""
    known = half.matrix.diagonal() > 0
    std = torch.where(known, STD, _EVEN).double()
    pictures = replace(half, covariance=torch.diag(std**2))
    law, (seen, _) = drawn(method, pictures, sde, _LAW_STEPS), pictures.seen(_TRUTHS)
    spread = law.covariance.diagonal().clamp_min(0).sqrt()
    off = (law.means - seen.flatten(1))[:, known].abs().amax() + spread[known].amax()
    yield Law("error of what is known", "", "", float(off), 0.0, 1e-4)
    grain = float(spread[~known].amax()) * 255 / 2
    yield Law("grain left, in 8-bit steps", "", "", grain, 0.0, 0.5)


@dataclass(frozen=True)
class Bias:
    """What a method gets wrong on correlated pictures, of which something was measured."""

    method: str
    measured: str
    mean: float  # in deviations of the posterior
    spread: float  # as a share
    calls: int


def biases(sde: SDE | None = None, steps: int = STEPS) -> Iterator[Bias]:
    """Of every method with every measurement that it takes; VP unless said."""
    sde = sde or spec.from_dict(SDE, {"kind": "vp"})
    for method in METHODS:
        for name, posterior in posteriors(correlated=True).items():
            if posterior.operator.exact or method not in _PUT_BACK:
                law = drawn(method, posterior, sde, steps)
                mean = law.mean_error(posterior, posterior.seen(_TRUTHS)[1])
                yield Bias(method, name, mean, law.spread_error(posterior), law.calls)


def posterior_table(found: Sequence[Bias] | None = None) -> str:
    """Markdown: by method and measurement, how far means are off in deviations of the posterior, and by
    how much the deviation is."""
    found = list(biases()) if found is None else found
    measured = list(dict.fromkeys(bias.measured for bias in found))
    lines = [["Method", *measured, "Calls"], ["---"] * (len(measured) + 2)]
    for method in dict.fromkeys(bias.method for bias in found):
        own = {bias.measured: bias for bias in found if bias.method == method}
        cells = [
            f"{own[m].mean:.2f} σ, {100 * own[m].spread:+.1f} %" if m in own else "–"
            for m in measured
        ]
        lines.append([method, *cells, str(max(bias.calls for bias in own.values()))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
