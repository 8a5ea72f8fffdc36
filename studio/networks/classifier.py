"""A classifier of pictures under noise: the lower half of a U-Net, told the noise level.

It is fed as our U-Nets are: pictures scaled to unit variance, ln(sigma) / 4 as the label. At the
deepest stage one query, made of the mean of all places, asks every place what it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from studio.errors import SpecError
from studio.networks.layers import Attention, NoiseEmbedding, ResidualBlock, normalization


@dataclass(frozen=True)
class ClassifierOptions:
    """Everything needed to build the network again."""

    size: int = 32
    colours: int = 3
    classes: int = 2
    channels: tuple[int, ...] = (48, 96, 96)  # of each stage, from full resolution down
    blocks: tuple[int, ...] = (1, 1, 1)  # residual blocks of each stage
    attention: tuple[int, ...] = (2,)  # stages with attention
    patch: int = 2  # pixels folded into channels before the first stage: patch × patch
    embedding: int = 128
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.channels) or not self.channels:
            raise SpecError("A classifier needs as many block counts as it has stages.")
        if any(not 1 <= c <= 4096 for c in self.channels) or any(
            not 1 <= b <= 64 for b in self.blocks
        ):
            raise SpecError("A classifier needs 1 to 4096 channels and 1 to 64 blocks in a stage.")
        folds = self.patch * 2 ** (len(self.channels) - 1)
        if not 1 <= self.patch <= 64 or not 8 <= self.size <= 1024 or self.size % folds:
            raise SpecError(
                f"{len(self.channels)} stages need a size that {folds} divides; {self.size} is not.",
                "Use fewer stages, or fold fewer pixels.",
            )
        if not 1 <= self.embedding <= 8192 or not 0 <= self.dropout < 1:
            raise SpecError("A classifier needs an embedding of 1 to 8192 and a dropout below 1.")
        if self.colours not in (1, 3) or not 2 <= self.classes <= 100_000:
            raise SpecError("A classifier tells 2 classes or more of pictures of 1 or 3 channels.")


class Classifier(nn.Module):
    """(x (B, C, H, W), label (B,)) -> logits (B, classes)."""

    def __init__(self, options: ClassifierOptions) -> None:
        super().__init__()
        self.options = o = options
        self.noise = NoiseEmbedding(o.embedding)
        self.fold = nn.PixelUnshuffle(o.patch)
        self.stem = nn.Conv2d(o.colours * o.patch**2, o.channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        width = o.channels[0]
        for stage, (channels, count) in enumerate(zip(o.channels, o.blocks)):
            if stage:
                self.down.append(nn.Conv2d(width, channels, 3, stride=2, padding=1))
                width = channels
            for _ in range(count):
                self.down.append(ResidualBlock(channels, channels, o.embedding, o.dropout))
            if stage in o.attention:
                self.down.append(Attention(channels))
        self.pool = AttentionPool(width, o.size // (o.patch * 2 ** (len(o.channels) - 1)))
        self.head = nn.Linear(width, o.classes)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        embedding = F.silu(self.noise(label))
        h = self.stem(self.fold(x))
        for layer in self.down:
            h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
        return self.head(self.pool(h))


class AttentionPool(nn.Module):
    """(B, C, N, N) -> (B, C): the mean place asks all places, which know where they are."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 64)
        while channels % self.heads:
            self.heads -= 1
        self.norm = normalization(channels)
        self.place = nn.Parameter(torch.randn(channels, side, side) / channels**0.5)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Conv2d(channels, 2 * channels, 1)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x) + self.place
        b, c = h.shape[:2]
        mean = h.mean((2, 3))
        q = self.query(mean).reshape(b, self.heads, 1, -1)
        k, v = (
            part.transpose(2, 3)
            for part in self.key_value(h).reshape(b, 2, self.heads, c // self.heads, -1).unbind(1)
        )
        return mean + self.out(F.scaled_dot_product_attention(q, k, v).reshape(b, c))
