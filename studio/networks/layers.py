"""Building blocks of the U-Nets. They know channels and resolutions, and no SDE."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def normalization(channels: int) -> nn.GroupNorm:
    """Group norm with groups of at least four channels, at most 32 groups."""
    groups = min(32, max(1, channels // 4))
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels, eps=1e-6)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """A layer that starts as zero, so that its block starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def in_full_precision(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A layer that sees pixels. Eight bits of bfloat16 mantissa would show as grain in them."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(layer.weight.dtype))


class NoiseEmbedding(nn.Module):
    """A scalar noise label (B,) -> features (B, width): sines and cosines, then two layers."""

    waves: Tensor

    def __init__(self, width: int, frequencies: int = 64) -> None:
        super().__init__()
        # Labels span about [-1.3, 1.3] (ln(sigma) / 4): from one slow wave to 5e-3 in ln(sigma).
        # On the CPU even where a network is built without memory: it is no weight, no file has it.
        waves = math.pi * 2 ** torch.linspace(-2, 5, frequencies, device="cpu")
        self.register_buffer("waves", waves, persistent=False)
        self.hidden = nn.Linear(2 * frequencies, width)
        self.out = nn.Linear(width, width)

    def forward(self, label: Tensor) -> Tensor:
        angles = label.float()[:, None] * self.waves
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.out(F.silu(self.hidden(features)))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions; the noise embedding scales and shifts between them (adaptive norm)."""

    def __init__(self, inputs: int, outputs: int, embedding: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_in = normalization(inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outputs)
        self.norm_out = normalization(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = F.silu(torch.addcmul(shift, self.norm_out(h), 1 + scale))
        h = self.conv_out(self.dropout(h))
        return (self.skip(x) + h) * math.sqrt(0.5)


class Attention(nn.Module):
    """Every position looks at every other; heads of up to 64 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 64)
        self.norm = normalization(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(b, c, h, w)
        return (x + self.out(mixed)) * math.sqrt(0.5)
