"""What an objective is: which noise levels are trained, what counts as an error, and how much.

For a picture x_0 a time t is drawn and x_t = a x_0 + s z is formed. Errors are of the noise z, or are
brought to its units: s² times an error of the score, averaged over the values of a picture. So every
weighting is a factor on one and the same thing, and the losses of objectives can be compared.

Sources: Vincent 2011 (denoising score matching); Song et al. 2021, equation 7.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.score import Output, expand
from studio.diffusion.sde import SDE
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from studio.diffusion.score import Network


@dataclass(frozen=True)
class Noised:
    """Pictures x = a x_0 + s z (B, C, H, W) at times t (B,), and the unit noise z in them."""

    x: Tensor
    t: Tensor
    z: Tensor

    @classmethod
    def of(cls, sde: SDE, x_0: Tensor, t: Tensor, z: Tensor) -> Noised:
        """Pictures x_0 (B, C, H, W) noised to times t with noise z."""
        a, s = sde.marginal(t)
        return cls(expand(a, x_0) * x_0 + expand(s, x_0) * z, t, z)


@dataclass(frozen=True)
class Objective(ABC):
    """Which noise levels are trained, and how much each counts."""

    title: ClassVar[str] = "Objective"
    #: Whether it differentiates the network by its input, and then trains through that.
    second_order: ClassVar[bool] = False

    @abstractmethod
    def times(self, u: Tensor, sde: SDE) -> Tensor:
        """Training times (B,) from u (B,), even in (0, 1)."""

    def weight(self, t: Tensor, sde: SDE) -> Tensor:
        """The factor (B,) on the mean squared error of the noise."""
        return torch.ones_like(t)

    def error(
        self,
        net: Network,
        output: Output,
        sde: SDE,
        noised: Noised,
        y: Tensor | None,
        generator: Generator,
    ) -> Tensor:
        """The mean squared error (B,) of the noise found in each picture: denoising score matching."""
        found = output.noise(net, noised.x, noised.t, y, sde)
        return (found.to(noised.z.dtype) - noised.z).pow(2).flatten(1).mean(1)

    def loss(
        self,
        net: Network,
        output: Output,
        sde: SDE,
        x_0: Tensor,
        y: Tensor | None,
        generator: Generator,
    ) -> tuple[Tensor, Tensor]:
        """(loss of each picture (B,), its time (B,)). x_0 is (B, C, H, W) in the value range.

        All that is random comes from `generator`, on the CPU, whatever the device.
        """
        noised = self.noised(sde, x_0, generator)
        return self.weighted(net, output, sde, noised, y, generator), noised.t

    def weighted(
        self,
        net: Network,
        output: Output,
        sde: SDE,
        noised: Noised,
        y: Tensor | None,
        generator: Generator,
    ) -> Tensor:
        """The loss (B,) of pictures that are noised already."""
        return self.weight(noised.t, sde) * self.error(net, output, sde, noised, y, generator)

    def noised(self, sde: SDE, x_0: Tensor, generator: Generator) -> Noised:
        """Pictures noised to training times, which are stratified over the batch: one in each B-th of
        the range, which lowers the variance.
        """
        count = len(x_0)
        u = torch.rand(count, generator=generator)
        u = (torch.randperm(count, generator=generator) + u) / count
        t = self.times(u.to(x_0), sde)
        z = torch.randn(x_0.shape, generator=generator).to(x_0)
        return Noised.of(sde, x_0, t, z)
