"""Objectives that never look at the noise put in: the score is learned from noised pictures alone.

Hyvärinen's identity: E |score_net - score|² / 2 is E [tr(d score_net / dx) + |score_net|² / 2] and a
constant. The trace is the divergence of the network, so the network is differentiated by its input,
and training differentiates that once more. In the units of the noise, for pictures of D values and z
the network's estimate of it, the error is (|z|² - 2 s div z) / D + 1. The constant is E |z|² / D of
true noise, so in the mean it is the error of denoising score matching.

Sources: Hyvärinen 2005; Song et al. 2019, "Sliced Score Matching: A Scalable Approach to Density and
Score Estimation", equations 7 and 8; Hutchinson 1989 for the trace.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.objective import Noised, Objective
from studio.diffusion.score import Output
from studio.diffusion.sde import FIRST_TIME, SDE
from studio.lazy import torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from studio.diffusion.score import Network

_PROBES = ("rademacher", "gaussian")


@dataclass(frozen=True)
class Hyvarinen(Objective):
    """The part that is common: the network's answer with a path back to its input.

    In full precision, whatever the plan says: second derivatives in bfloat16 are mostly rounding.
    """

    second_order: ClassVar[bool] = True

    def times(self, u: Tensor, sde: SDE) -> Tensor:
        return FIRST_TIME + u * (1 - FIRST_TIME)

    def error(
        self,
        net: Network,
        output: Output,
        sde: SDE,
        noised: Noised,
        y: Tensor | None,
        generator: Generator,
    ) -> Tensor:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        # The fast kernels of attention have no second derivative.
        plain = sdpa_kernel(SDPBackend.MATH)
        off = torch.autocast(noised.x.device.type, enabled=False)
        with torch.enable_grad(), off, plain:
            x = noised.x.detach().requires_grad_()
            z = output.noise(net, x, noised.t, y, sde)
            length, divergence = self.parts(z, x, generator)
        deviation = sde.marginal(noised.t)[1]
        return (length - 2 * deviation * divergence) / x[0].numel() + 1

    @abstractmethod
    def parts(self, z: Tensor, x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """(|z|², div z), each (B,), or estimates of them that are right in the mean."""


@dataclass(frozen=True)
class Sliced(Hyvarinen):
    """The score is matched along random directions, by second derivatives instead of known noise. Use
    it to see score matching without denoising; it costs two to three times a step and is noisier.
    """

    title: ClassVar[str] = "Sliced score matching"
    projections: int = option(
        1, label="Projections", range=(1, 64), help="Random directions a picture; more, less noise."
    )
    direction: str = option(
        "rademacher", label="Directions", choices=_PROBES, help="Signs only, or normal numbers."
    )

    def parts(self, z: Tensor, x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        lengths, slopes = [], []
        for _ in range(self.projections):
            v = _probe(self.direction, x, generator)
            lengths.append((z * v).flatten(1).sum(1) ** 2)
            slopes.append(_slope(z, x, v))
        return torch.stack(lengths).mean(0), torch.stack(slopes).mean(0)


@dataclass(frozen=True)
class SlicedReduced(Hyvarinen):
    """Sliced score matching with the length of the score itself instead of its projections', which is
    less noisy at the same cost. Use it rather than the plain form, other than to compare.
    """

    title: ClassVar[str] = "Sliced, variance reduced"
    projections: int = option(
        1, label="Projections", range=(1, 64), help="Random directions a picture; more, less noise."
    )
    direction: str = option(
        "rademacher", label="Directions", choices=_PROBES, help="Signs only, or normal numbers."
    )

    def parts(self, z: Tensor, x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        probes = [_probe(self.direction, x, generator) for _ in range(self.projections)]
        slopes = [_slope(z, x, v) for v in probes]
        return z.pow(2).flatten(1).sum(1), torch.stack(slopes).mean(0)


@dataclass(frozen=True)
class Implicit(Hyvarinen):
    """Hyvärinen's own objective with the exact trace, one derivative a value of a picture. Use it for
    small things only: beyond the limit the trace is a random estimate, as in the sliced forms.
    """

    title: ClassVar[str] = "Implicit (Hyvärinen)"
    exact: int = option(
        64, label="Exact up to", range=(0, 4096), help="Values a picture for an exact trace."
    )

    def parts(self, z: Tensor, x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        length = z.pow(2).flatten(1).sum(1)
        count = x[0].numel()
        if count > self.exact:
            return length, _slope(z, x, _probe("rademacher", x, generator))
        units = torch.eye(count, dtype=x.dtype, device=x.device).reshape(count, *x.shape[1:])
        slopes = [_slope(z, x, unit.expand_as(x)) for unit in units]
        return length, torch.stack(slopes).sum(0)


def _probe(direction: str, x: Tensor, generator: Generator) -> Tensor:
    """Random vectors of the shape of x with independent values of mean 0 and variance 1."""
    normal = torch.randn(x.shape, generator=generator)
    return (normal if direction == "gaussian" else torch.where(normal < 0, -1.0, 1.0)).to(x)


def _slope(z: Tensor, x: Tensor, v: Tensor) -> Tensor:
    """v · (dz/dx) v for each picture, (B,), with a path back to the weights."""
    if not z.requires_grad:  # a network that ignores its input
        return z.new_zeros(len(z))
    (pulled,) = torch.autograd.grad(z, x, v, create_graph=True, materialize_grads=True)
    return (pulled * v).flatten(1).sum(1)
