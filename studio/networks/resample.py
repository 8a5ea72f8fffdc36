"""Half and twice the resolution: with a low-pass filter (FIR) or without.

A FIR resampling convolves with a small kernel, of sum one, around dropping every other pixel or putting
zeros between them; outside of the picture there is nothing (zero). All of it is written as plain
depthwise convolutions. A kernel is a tensor (k, k): `fir_kernel` makes it from its taps along one axis.

Sources: Zhang 2019, "Making Convolutional Networks Shift-Invariant Again"; Karras et al. 2020,
"Analyzing and Improving the Image Quality of StyleGAN", appendix B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: The taps of every published network of this family.
TAPS = (1.0, 3.0, 3.0, 1.0)


def fir_kernel(taps: Sequence[float]) -> Tensor:
    """The kernel (k, k), of sum one, that has these taps along both axes. Always on the CPU."""
    line = torch.tensor(taps, dtype=torch.float32, device="cpu")
    kernel = torch.outer(line, line)
    return kernel / kernel.sum()


def fir_down(x: Tensor, kernel: Tensor) -> Tensor:
    """x (B, C, H, W) -> (B, C, H / 2, W / 2)."""
    extra = len(kernel) - 2
    return _filter(x, kernel, (extra + 1) // 2, extra // 2, stride=2)


def fir_up(x: Tensor, kernel: Tensor) -> Tensor:
    """x (B, C, H, W) -> (B, C, 2 H, 2 W)."""
    extra = len(kernel) - 2
    left = extra - (extra + 1) // 2
    channels, even = x.shape[1], 2 * left == extra
    # Three of four pixels are zeros that were put in: times 4 keeps the brightness.
    weight = (4 * kernel.to(x.dtype)).expand(channels, 1, -1, -1)
    x = F.conv_transpose2d(x, weight, stride=2, padding=left if even else 0, groups=channels)
    return x if even else F.pad(x, [-left, left - extra] * 2)


def fir_down_conv(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """x (B, C, H, W) filtered, then a convolution (D, C, 3, 3) at every other pixel."""
    extra = len(kernel) - 2 + weight.shape[-1] - 1
    x = _filter(x, kernel, (extra + 1) // 2, extra // 2)
    return F.conv2d(x, weight, stride=2)


def fir_up_conv(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """Zeros put between the pixels of x (B, C, H, W), a convolution (D, C, 3, 3), then the filter.

    The reference's own PyTorch version of this stops with an error; its JAX version gives this.
    """
    # A transposed convolution turns its weight around, a convolution does not.
    x = F.conv_transpose2d(x, weight.flip(2, 3).transpose(0, 1), stride=2)
    extra = len(kernel) - 2 - (weight.shape[-1] - 1)
    return _filter(x, 4 * kernel, (extra + 1) // 2 + 1, extra // 2 + 1)


class Resample(nn.Module):
    """Halves or doubles the resolution with a FIR of these taps; without any: means and repeats.

    Its kernel follows `.to(device)`, and is not part of the state dict.
    """

    kernel: Tensor | None

    def __init__(self, taps: Sequence[float] = TAPS) -> None:
        super().__init__()
        self.register_buffer("kernel", fir_kernel(taps) if taps else None, persistent=False)

    def down(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.kernel is None else fir_down(x, self.kernel)

    def up(self, x: Tensor) -> Tensor:
        if self.kernel is None:
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return fir_up(x, self.kernel)


def _filter(x: Tensor, kernel: Tensor, before: int, after: int, stride: int = 1) -> Tensor:
    """x convolved with the kernel, after so many zeros before and after it (negative: cut off)."""
    channels = x.shape[1]
    # Turned around, because torch's convolution is a correlation.
    weight = kernel.to(x.dtype).flip(0, 1).expand(channels, 1, -1, -1)
    if before != after or before < 0:
        x, before = F.pad(x, [before, after] * 2), 0
    return F.conv2d(x, weight, stride=stride, padding=before, groups=channels)
