"""A trained U-Net inside a thin stage of twice its size: how a model grows to larger pictures.

The inner network sees the means of 2×2 pixels, in which the noise is half as strong, and estimates the
picture at half size, as it was trained to. The stage around it adds what the means leave out. With
sigma the noise level, D the estimate of the clean picture x_0, and x' the means:

    D(x, sigma) = up(D'(x', sigma / 2)) + c_skip (x - up(x')) + c_out head

where the last two terms are EDM's preconditioning of the detail alone. At first the head is zero, so
a grown network begins with what the inner one knows; training starts from there.

Input and output are scaled as EDM's preconditioned networks are, and the label is ln(sigma) / 4.
Source of c_skip and c_out: Karras et al. 2022, table 1. Growing: after Karras et al. 2018.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from studio.errors import SpecError
from studio.networks.layers import ResidualBlock, in_full_precision, normalization, zeroed
from studio.networks.unet import UNet, UNetOptions


@dataclass(frozen=True)
class GrownOptions:
    """Everything needed to build the network again."""

    size: int = 64
    colours: int = 3
    classes: int = 0
    inner: UNetOptions = UNetOptions(patch=2, top=24)
    top: int = 16  # channels at full size
    blocks: int = 2  # residual blocks at full size
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.inner, dict):  # as an exported model's JSON has it
            object.__setattr__(self, "inner", UNetOptions(**self.inner))
        inside = self.inner
        if (self.size, self.colours, self.classes) != (
            2 * inside.size,
            inside.colours,
            inside.classes,
        ):
            raise SpecError("A network grows to twice its size, with its colours and classes.")
        if not inside.top:
            raise SpecError("Only a U-Net with a thin stage on top can grow.")
        if not 1 <= self.top <= 256 or not 1 <= self.blocks <= 16 or not self.sigma_data > 0:
            raise SpecError("The stage at full size needs 1 to 256 channels and 1 to 16 blocks.")


class Grown(nn.Module):
    """(x (B, C, H, W), label (B,), class (B,) or None) -> (B, C, H, W). Class -1 means any."""

    def __init__(self, options: GrownOptions) -> None:
        super().__init__()
        self.options = options
        self.classes = options.classes
        top, below, e = options.top, options.inner.top, options.inner.embedding
        self.inner = UNet(options.inner)
        self.enter = nn.Conv2d(options.colours, top, 3, padding=1)
        self.down = zeroed(nn.Conv2d(top, below, 3, stride=2, padding=1))
        self.lift = nn.Conv2d(below, 4 * top, 1)
        self.unfold = nn.PixelShuffle(2)
        self.stage = nn.ModuleList(
            ResidualBlock(top if i else 2 * top, top, e) for i in range(options.blocks)
        )
        self.norm = normalization(top)
        self.head = zeroed(nn.Conv2d(top, options.colours, 3, padding=1))

    def forward(self, x: Tensor, label: Tensor, y: Tensor | None = None) -> Tensor:
        known = _Levels.of(label, self.options.sigma_data, x)
        embedding = F.silu(self.inner.embed(label - math.log(2) / 4, y))
        means = F.avg_pool2d(x, 2)
        wide = in_full_precision(self.enter, x)
        assert self.inner.top_in is not None  # as the options have it
        thin = in_full_precision(self.inner.top_in, known.inner * means) + self.down(F.silu(wide))
        h = self.inner.trunk(thin, embedding.to(thin.dtype))
        coarse = known.means * means + known.estimate * self.inner.answer(h)
        h = torch.cat([self.unfold(self.lift(h)), wide.to(h.dtype)], dim=1)
        for block in self.stage:
            h = block(h, embedding.to(h.dtype))
        detail = in_full_precision(self.head, F.silu(self.norm(h)))
        return F.interpolate(coarse, scale_factor=2.0, mode="nearest") + detail


@dataclass(frozen=True)
class _Levels:
    """Factors (B, 1, 1, 1) of a noise level: what brings the means to the scale the inner network
    expects, and the shares of the means and of its answer in the coarse part of the output.
    """

    inner: Tensor
    means: Tensor
    estimate: Tensor

    @classmethod
    def of(cls, label: Tensor, data: float, x: Tensor) -> _Levels:
        sigma = torch.exp(4 * label.float())[:, None, None, None]
        full, half = data**2 + sigma**2, data**2 + sigma**2 / 4
        inner = torch.sqrt(full / half)
        shares = inner, 0.75 * data * sigma / half, inner / 2
        return cls(*(v.to(x.dtype) for v in shares))
