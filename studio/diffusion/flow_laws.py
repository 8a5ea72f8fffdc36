"""What the likelihood and the probability flow must give on pictures whose density is known exactly.

Four values a picture: independent Gaussian ones, correlated ones, and ones from a mixture of two
Gaussians. Their noised densities are known as well, so the truth is that at the flow's first time.
Tests and the self-check share this file. Letters as in sde.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from studio import spec
from studio.diffusion.flow import FlowMap
from studio.diffusion.laws import Law, gaussian, target_std
from studio.diffusion.likelihood import Measure
from studio.diffusion.score import Score
from studio.diffusion.sde import FIRST_TIME, SDE, SDES
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

SHAPE = (1, 2, 2)
_PICTURES = 4
_STD = 0.5
_EXACT = Measure(method="exact", precision="float64")
_PROBED = Measure(probes=32, precision="float64", rtol=1e-4, atol=1e-4)


@dataclass(frozen=True)
class Density:
    """A law of pictures x = axes · values, with the values of each direction a mixture of Gaussians
    N(±middle, variances), independent of one another.
    """

    name: str
    axes: Tensor  # (D, D), orthonormal
    variances: Tensor  # (D,)
    middle: float = 0.0

    def log_density(self, x: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """ln of the density of a x_0 + s z at x (B, C, H, W), in nats, (B,); a, s (B,)."""
        values = x.flatten(1) @ self.axes
        variance = (a[:, None] ** 2 * self.variances) + s[:, None] ** 2
        modes = [values - sign * self.middle * a[:, None] for sign in (-1, 1)]
        both = torch.stack([-(mode**2) / (2 * variance) for mode in modes])
        norm = torch.log(2 * math.pi * variance) / 2 + math.log(2)
        return (torch.logsumexp(both, 0) - norm).sum(1)

    def score(self, sde: SDE) -> Score:
        def fn(x: Tensor, t: Tensor) -> Tensor:
            with torch.enable_grad():
                kept = x if x.requires_grad else x.detach().requires_grad_()
                nats = self.log_density(kept, *sde.marginal(t)).sum()
                (slope,) = torch.autograd.grad(nats, kept, create_graph=x.requires_grad)
            return slope

        return Score.from_function(fn, sde, SHAPE)

    def drawn(self, count: int) -> Tensor:
        """Pictures of this law, (count, *SHAPE), always the same."""
        generator = torch.Generator().manual_seed(0)
        normal = torch.randn(count, len(self.axes), generator=generator, dtype=torch.float64)
        signs = torch.randint(2, normal.shape, generator=generator) * 2 - 1
        values = signs * self.middle + normal * self.variances.sqrt()
        return (values @ self.axes.T).reshape(count, *SHAPE)


def densities() -> list[Density]:
    """The laws that the likelihood is measured on."""
    even = torch.eye(4, dtype=torch.float64)
    # Averages and differences of neighbours: no axis of the pictures is a direction of its own.
    halves = (
        torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double() / 2
    )
    spread = torch.tensor([0.9, 0.7, 0.5, 0.4], dtype=torch.float64)
    return [
        Density("Gaussian", even, torch.full((4,), _STD**2, dtype=torch.float64)),
        Density("correlated", halves, spread**2),
        Density("mixture", even, torch.full((4,), 0.2**2, dtype=torch.float64), 0.5),
    ]


def likelihood_laws(sdes: Mapping[str, SDE] | None = None) -> Iterator[Law]:
    """Bits of every density by the exact trace, and by probes within their error; and the noise of
    pictures, there and back. All SDEs unless said.
    """
    sdes = sdes or {name: spec.from_dict(SDE, {"kind": name}) for name in SDES}
    for name, sde in sdes.items():
        for make in (_bits, _probed_bits, _ways):
            for law in make(sde):
                yield replace(law, sde=name)


def _bits(sde: SDE) -> Iterator[Law]:
    for density in densities():
        x = density.drawn(_PICTURES)
        *_, end = _EXACT.run(density.score(sde), x)
        wanted = _truth(density, sde, x)
        yield Law(
            f"bits of {density.name} pictures",
            "",
            "likelihood",
            float(end.bits.mean()),
            float(wanted.mean()),
            0.005,
        )


def _probed_bits(sde: SDE) -> Iterator[Law]:
    density = densities()[1]
    x = density.drawn(_PICTURES)
    *_, end = _PROBED.run(density.score(sde), x)
    error = float(end.error.pow(2).sum().sqrt()) / len(x)
    measured, wanted = float(end.bits.mean()), float(_truth(density, sde, x).mean())
    yield Law("bits by probes", "", "likelihood", measured, wanted, 4 * error + 0.005)


def _truth(density: Density, sde: SDE, x: Tensor) -> Tensor:
    """-log2 of the density at the flow's first time, over the dimensions, (B,)."""
    first = torch.full((len(x),), FIRST_TIME, dtype=x.dtype)
    return -density.log_density(x, *sde.marginal(first)) / (x[0].numel() * math.log(2))


def _ways(sde: SDE) -> Iterator[Law]:
    """To the noise, which for Gaussian pictures is the picture stretched, and back."""
    x, flow = densities()[0].drawn(_PICTURES), FlowMap()
    score = gaussian(sde, _STD, SHAPE)
    *_, there = flow.encode(score, x)
    stretch = target_std(sde, _STD, 1.0) / target_std(sde, _STD, FIRST_TIME)
    off = float((there.x / (x * stretch) - 1).abs().max())
    yield Law("error of the noise of pictures", "", "flow", off, 0.0, 1e-3)
    *_, back = flow.decode(score, there.x)
    yield Law("error there and back", "", "flow", float((back.x - x).abs().max()), 0.0, 1e-3)
