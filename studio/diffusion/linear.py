"""What can be known of a picture by measuring it: linear maps y = A x of states (B, C, H, W).

Every map is diagonal in an orthonormal basis that it can go to and come back from: channels turned
against each other, means of blocks, cosine waves. So its pseudoinverse and (r² A Aᵀ + v)⁻¹ cost no more
than the map itself. A measurement y is kept in the shape that suits the map.

Source: Kawar et al. 2022, "Denoising Diffusion Restoration Models" (measuring in such a basis).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from studio.errors import SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


class Linear(ABC):
    """A linear map A of states."""

    #: Whether A A⁺ = 1 without enlarging anything, so that what is known can be put back.
    exact = True

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y, a state."""

    @abstractmethod
    def solve(self, y: Tensor, r2: Tensor, v: float) -> Tensor:
        """(r2 A Aᵀ + v)⁻¹ y, with r2 of shape (B, 1, 1, 1)."""

    def measured(self, picture: Tensor) -> Tensor:
        """y, of a picture in which it can be seen."""
        return self.forward(picture)

    def restored(self, y: Tensor) -> Tensor:
        """A⁺ y: the smallest state that measures y."""
        return self.adjoint(self.solve(y, y.new_ones(1, 1, 1, 1), 0.0))

    def at(self, sigma: Tensor) -> Linear:
        """What is measured while the noise level is sigma (B,): less than everything, if part of it is
        known at high levels only."""
        return self

    @property
    def free_below(self) -> float:
        """The noise level above which all of the picture is known; infinite if it never is."""
        return math.inf

    def of(self, rows: Tensor) -> Linear:
        """The map for the samples at these places of the batch."""
        return self


@dataclass(frozen=True)
class Coordinates(Linear):
    """Some coordinates of a picture in an orthonormal basis of its channels.

    `until` (1 or B, C, H, W) is the noise level of each coordinate down to which it is known: 0 for good,
    infinity never. `basis` (C, C) has the directions as rows; None is the channels themselves.
    """

    until: Tensor
    basis: Tensor | None = None
    known: Tensor | None = None  # instead of `until`: which are known now, 0 or 1

    def forward(self, x: Tensor) -> Tensor:
        known = self._known(x)
        turned = x if self.basis is None else _turned(self.basis, x)
        return known * turned

    def adjoint(self, y: Tensor) -> Tensor:
        kept = self._known(y) * y
        return kept if self.basis is None else _turned(self.basis.mT, kept)

    def solve(self, y: Tensor, r2: Tensor, v: float) -> Tensor:
        return y / (r2 + v)

    def at(self, sigma: Tensor) -> Coordinates:
        # Held at its own level too, so that a run that begins there begins with what is known.
        known = self.until.to(sigma.device) <= sigma.reshape(-1, 1, 1, 1) * (1 + 1e-6)
        return replace(self, known=known)

    @property
    def free_below(self) -> float:
        return float(self.until.amax())

    def of(self, rows: Tensor) -> Coordinates:
        return self if len(self.until) == 1 else replace(self, until=self.until[rows])

    def _known(self, x: Tensor) -> Tensor:
        known = self.until == 0 if self.known is None else self.known
        return known.to(x)


@dataclass(frozen=True)
class Blocks(Linear):
    """The means of blocks of `side` × `side` pixels: a picture made smaller by that factor."""

    side: int

    def forward(self, x: Tensor) -> Tensor:
        """Raises SpecError if the sides of x are no multiples of the block's."""
        if x.shape[-1] % self.side or x.shape[-2] % self.side:
            raise SpecError(
                f"A picture of {x.shape[-1]}×{x.shape[-2]} has no {self.side}×{self.side} blocks."
            )
        return torch.nn.functional.avg_pool2d(x, self.side)

    def adjoint(self, y: Tensor) -> Tensor:
        whole = y.repeat_interleave(self.side, -1).repeat_interleave(self.side, -2)
        return whole / self.side**2

    def solve(self, y: Tensor, r2: Tensor, v: float) -> Tensor:
        return y / (r2 / self.side**2 + v)


@dataclass(frozen=True)
class Blur(Linear):
    """A Gaussian blur of `radius` pixels, mirrored at the edges: diagonal in cosine waves.

    What it takes away cannot be brought back exactly, so it has to be measured with some error. The
    picture in which it is seen is the blurred one.
    """

    radius: float
    exact = False

    def measured(self, picture: Tensor) -> Tensor:
        return picture

    def forward(self, x: Tensor) -> Tensor:
        return self._waves(x, lambda pass_: pass_)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.forward(y)

    def solve(self, y: Tensor, r2: Tensor, v: float) -> Tensor:
        return self._waves(y, lambda pass_: 1 / (r2 * pass_**2 + max(v, 1e-12)))

    def _waves(self, x: Tensor, filtered: object) -> Tensor:
        """x with each cosine wave multiplied by a function of how much of it the blur lets through."""
        h, w = x.shape[-2:]
        mirrored = torch.cat([x, x.flip(-1)], -1)
        mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
        u = torch.fft.fftfreq(2 * h, device=x.device, dtype=x.dtype)[:, None]
        v = torch.fft.rfftfreq(2 * w, device=x.device, dtype=x.dtype)
        pass_ = torch.exp(-2 * (math.pi * self.radius) ** 2 * (u**2 + v**2))
        filter_ = filtered(pass_)  # type: ignore[operator]
        waves = torch.fft.rfft2(mirrored) * filter_
        return torch.fft.irfft2(waves, s=mirrored.shape[-2:])[..., :h, :w]


def _turned(basis: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("kc,bchw->bkhw", basis.to(x), x)
