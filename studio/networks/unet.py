"""The studio's own U-Net, of the DDPM++ family, sized so that a processor can train it.

What differs from the paper's network: adaptive group norm; a first stage as narrow as one likes, or
pixels folded into channels (`patch`), because a CPU spends most of its time at full resolution; and a
noise label of ln(sigma) / 4, the same for every SDE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from studio.errors import SpecError
from studio.networks.layers import (
    Attention,
    NoiseEmbedding,
    ResidualBlock,
    in_full_precision,
    normalization,
    zeroed,
)


@dataclass(frozen=True)
class UNetOptions:
    """Everything needed to build the network again."""

    size: int = 32
    colours: int = 3
    channels: tuple[int, ...] = (32, 128, 192)  # of each stage, from full resolution down
    blocks: tuple[int, ...] = (1, 2, 2)  # residual blocks of each stage, each way
    attention: tuple[int, ...] = (2,)  # stages with attention
    patch: int = 1  # pixels folded into channels before the first stage: patch × patch
    top: int = 0  # with patch > 1: channels of a thin stage of its own at full resolution
    embedding: int = 256
    classes: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.channels) or not self.channels:
            raise SpecError("A U-Net needs as many block counts as it has stages.")
        if any(not 1 <= c <= 4096 for c in self.channels) or any(
            not 1 <= b <= 64 for b in self.blocks
        ):
            raise SpecError("A U-Net needs 1 to 4096 channels and 1 to 64 blocks in each stage.")
        if self.patch < 1 or self.size % self.patch:
            raise SpecError(f"Pictures of {self.size} px cannot be folded by {self.patch}.")
        folds = self.patch * 2 ** (len(self.channels) - 1)
        if not 8 <= self.size <= 1024 or self.size % folds:
            raise SpecError(
                f"{len(self.channels)} stages need a size that {folds} divides; {self.size} is not.",
                "Use fewer stages.",
            )
        if not 0 <= self.top <= 256 or (self.top and self.patch == 1):
            raise SpecError("A stage on top (up to 256 channels) goes with folded pixels only.")
        if not 1 <= self.embedding <= 8192 or not 0 <= self.dropout < 1:
            raise SpecError("A U-Net needs an embedding of 1 to 8192 and a dropout below 1.")
        if self.colours not in (1, 3) or not 0 <= self.classes <= 100_000:
            raise SpecError("A U-Net works on pictures with 1 or 3 channels.")


class UNet(nn.Module):
    """(x (B, C, H, W), label (B,), class (B,) or None) -> (B, C, H, W). Class -1 means any."""

    def __init__(self, options: UNetOptions) -> None:
        super().__init__()
        self.options = options
        self.classes = options.classes
        e, top = options.embedding, options.top or options.colours
        folded = top * options.patch**2
        self.noise = NoiseEmbedding(e)
        # The last row stands for "any class".
        self.label = nn.Embedding(options.classes + 1, e) if options.classes else None
        self.fold = nn.PixelUnshuffle(options.patch)
        self.unfold = nn.PixelShuffle(options.patch)
        self.top_in = nn.Conv2d(options.colours, top, 3, padding=1) if options.top else None
        self.stem = nn.Conv2d(folded, options.channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self._build_down()
        deepest = options.channels[-1]
        self.middle = nn.ModuleList(
            [
                ResidualBlock(deepest, deepest, e, options.dropout),
                Attention(deepest),
                ResidualBlock(deepest, deepest, e, options.dropout),
            ]
        )
        self._build_up()
        last = options.channels[0]
        self.top_out = None
        if options.top:
            self.mix = nn.Conv2d(last, folded, 1)
            self.top_out = ResidualBlock(2 * top, top, e)
            last, folded = top, options.colours
        self.norm = normalization(last)
        self.head = zeroed(nn.Conv2d(last, folded, 3, padding=1))

    def _build_down(self) -> None:
        o = self.options
        c = o.channels[0]
        for stage, (width, count) in enumerate(zip(o.channels, o.blocks)):
            if stage:
                self.down.append(nn.Conv2d(c, width, 3, stride=2, padding=1))
                c = width
            for _ in range(count):
                self.down.append(self._block(c, width, stage))
                c = width

    def _build_up(self) -> None:
        o = self.options
        for stage in reversed(range(len(o.channels))):
            width = o.channels[stage]
            for _ in range(o.blocks[stage]):
                self.up.append(self._block(2 * width, width, stage))
            if stage:
                self.up.append(_Up(width, o.channels[stage - 1]))

    def _block(self, inputs: int, outputs: int, stage: int) -> nn.Module:
        o = self.options
        block = ResidualBlock(inputs, outputs, o.embedding, o.dropout)
        return _Attentive(block, Attention(outputs)) if stage in o.attention else block

    def forward(self, x: Tensor, label: Tensor, y: Tensor | None = None) -> Tensor:
        thin = x if self.top_in is None else in_full_precision(self.top_in, x)
        return self.answer(self.trunk(thin, F.silu(self.embed(label, y))))

    def trunk(self, thin: Tensor, embedding: Tensor) -> Tensor:
        """What the stages make of features at full size, or of pixels where there is no thin stage."""
        h = in_full_precision(self.stem, self.fold(thin))
        embedding = embedding.to(h.dtype)
        h = self._stages(h, embedding)
        if self.top_out is None:
            return h
        h = torch.cat([self.unfold(self.mix(h)), thin.to(h.dtype)], dim=1)
        return self.top_out(h, embedding)

    def answer(self, h: Tensor) -> Tensor:
        """The output, from the trunk's features."""
        h = in_full_precision(self.head, F.silu(self.norm(h)))
        return h if self.top_out is not None else self.unfold(h)

    def _stages(self, h: Tensor, embedding: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for layer in self.down:
            if isinstance(layer, nn.Conv2d):
                h = layer(h)
            else:
                h = layer(h, embedding)
                skips.append(h)
        first, attention, second = self.middle
        h = second(attention(first(h, embedding)), embedding)
        for layer in self.up:
            if isinstance(layer, _Up):
                h = layer(h)
            else:
                h = layer(torch.cat([h, skips.pop()], dim=1), embedding)
        return h

    def embed(self, label: Tensor, y: Tensor | None) -> Tensor:
        """Features (B, width) of noise label and class."""
        embedding = self.noise(label)
        if self.label is None:
            return embedding
        if y is None:
            y = torch.full_like(label, -1, dtype=torch.long)
        y = torch.where(y < 0, self.classes, y)
        return (embedding + self.label(y)) * math.sqrt(0.5)


class _Attentive(nn.Module):
    def __init__(self, block: ResidualBlock, attention: Attention) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.block(x, embedding))


class _Up(nn.Module):
    """Twice the resolution. Channels are mixed first, where there are fewer pixels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2.0, mode="nearest")
