"""The U-Net of ADM ("guided diffusion") and of improved DDPM, which came before it.

Group norms with 32 groups; the embedding of the step scales and shifts between the convolutions;
resolutions change inside residual blocks, by a convolution or by plain pooling. The network is told
the index of the step as a number, fractions allowed, and answers with the noise; the variances that
published files predict beside it are cut off by the format that reads them.

A network with classes was always told one: it knows no "any class". It refuses to guess.

Sources: Dhariwal and Nichol 2021, "Diffusion Models Beat GANs on Image Synthesis", section 3; Nichol
and Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from studio.errors import SpecError
from studio.networks.layers import in_full_precision, zeroed

MODULATIONS = ("scale_shift", "add")
RESAMPLERS = ("block", "conv", "pool")


@dataclass(frozen=True)
class AdmOptions:
    """Everything needed to build the network again."""

    size: int = 64
    colours: int = 3
    width: int = 128  # waves that the step is told by; the embedding is four times as wide
    channels: tuple[int, ...] = (128, 256, 384, 512)  # of each stage, from full resolution down
    blocks: int = 3  # residual blocks of each stage on the way down; one more on the way up
    attention: tuple[int, ...] = (1, 2, 3)  # stages with attention
    heads: int = 0  # of every attention; 0 for as many as `head_width` gives
    head_width: int = 64
    modulation: str = "scale_shift"  # what the embedding does to a block: one of MODULATIONS
    resample: str = "block"  # what changes the resolution: one of RESAMPLERS
    classes: int = 0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.modulation not in MODULATIONS or self.resample not in RESAMPLERS:
            raise SpecError(f"An ADM network has {MODULATIONS} and {RESAMPLERS} to choose from.")
        if not self.channels or any(not 32 <= c <= 8192 or c % 32 for c in self.channels):
            raise SpecError("An ADM network needs stages with channels in multiples of 32.")
        if not 2 <= self.width <= 8192 or self.width % 2:
            raise SpecError("An ADM network needs an even width of 2 to 8192.")
        if not 1 <= self.blocks <= 64 or len(self.channels) > 10:
            raise SpecError("An ADM network needs 1 to 64 blocks in each of at most 10 stages.")
        folds = 2 ** (len(self.channels) - 1)
        if not 8 <= self.size <= 1024 or self.size % folds:
            raise SpecError(
                f"{len(self.channels)} stages need a size that {folds} divides; {self.size} is not."
            )
        if self.heads < 0 or self.head_width < 1:
            raise SpecError("An ADM network needs attention with at least one head.")
        deepest = len(self.channels) - 1  # whose middle always has attention
        for c in [self.channels[k] for k in (*self.attention, deepest) if 0 <= k <= deepest]:
            if c % (self.heads or self.head_width):
                raise SpecError(f"The heads of its attention do not divide {c} channels.")
        if self.colours not in (1, 3) or not 0 <= self.classes <= 100_000:
            raise SpecError("An ADM network works on pictures with 1 or 3 channels.")
        if not 0 <= self.dropout < 1:
            raise SpecError("An ADM network needs a dropout below 1.")


class Adm(nn.Module):
    """(x (B, C, H, W), index of the step (B,), class (B,) or None) -> (B, C, H, W), the noise.

    Raises SpecError if the network has classes and is told none.
    """

    def __init__(self, options: AdmOptions) -> None:
        super().__init__()
        self.free = not options.classes  # it was never shown a picture of no class
        self.options = o = options
        self.embedding = Embedding(o.width)
        self.label = nn.Embedding(o.classes, 4 * o.width) if o.classes else None
        self._told: Tensor | None = None
        self.stem = nn.Conv2d(o.colours, o.channels[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        skips = self._build_down()
        deepest = o.channels[-1]
        self.middle = nn.ModuleList(
            [Block(deepest, deepest, o), Attention(deepest, o), Block(deepest, deepest, o)]
        )
        self._build_up(skips)
        self.norm = nn.GroupNorm(32, o.channels[0])
        self.head = zeroed(nn.Conv2d(o.channels[0], o.colours, 3, padding=1))

    def _build_down(self) -> list[int]:
        """Returns the channels of everything that the way up will look at."""
        o = self.options
        c, skips = o.channels[0], [o.channels[0]]
        for stage, width in enumerate(o.channels):
            for _ in range(o.blocks):
                attention = Attention(width, o) if stage in o.attention else None
                self.down.append(Step(Block(c, width, o), attention, None))
                c = width
                skips.append(c)
            if stage < len(o.channels) - 1:
                self.down.append(Step(None, None, _resampler(c, o, "down")))
                skips.append(c)
        return skips

    def _build_up(self, skips: list[int]) -> None:
        o = self.options
        c = o.channels[-1]
        for stage in reversed(range(len(o.channels))):
            width = o.channels[stage]
            for k in range(o.blocks + 1):
                attention = Attention(width, o) if stage in o.attention else None
                last = stage > 0 and k == o.blocks
                resize = _resampler(width, o, "up") if last else None
                self.up.append(Step(Block(c + skips.pop(), width, o), attention, resize))
                c = width

    def forward(self, x: Tensor, label: Tensor, y: Tensor | None = None) -> Tensor:
        e = self.embedding(label)
        if self.label is not None:
            e = e + self.label(self._class(y))
        e = F.silu(e)
        h = in_full_precision(self.stem, x)
        skips = [h]
        for step in self.down:
            h = step(h, e)
            skips.append(h)
        first, attention, second = self.middle
        h = second(attention(first(h, e)), e)
        for step in self.up:
            h = step(torch.cat([h, skips.pop()], dim=1), e)
        return in_full_precision(self.head, F.silu(self.norm(h)))

    def _class(self, y: Tensor | None) -> Tensor:
        # Looking into y waits for the device, so it is done once for the labels of a run, which are
        # the same tensor at every step.
        if y is None or (y is not self._told and bool((y < 0).any())):
            raise SpecError(
                "This model knows pictures of its classes only, not of “any class”.",
                "Choose a class.",
            )
        self._told = y
        return y


class Embedding(nn.Module):
    """Index of a step (B,) -> features (B, 4 width): cosines and sines of slower and slower waves."""

    waves: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        # On the CPU even where a network is built without memory: it is no weight, no file has it.
        exponents = torch.arange(half, device="cpu", dtype=torch.float32) / half
        self.register_buffer("waves", torch.exp(-math.log(10_000) * exponents), persistent=False)
        self.hidden = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, 4 * width)

    def forward(self, label: Tensor) -> Tensor:
        angles = label.float()[:, None] * self.waves
        features = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.out(F.silu(self.hidden(features)))


class Step(nn.Module):
    """What happens between two places that the way up looks at, or looks from."""

    def __init__(
        self, block: Block | None, attention: Attention | None, resize: nn.Module | None
    ) -> None:
        super().__init__()
        self.block = block
        self.attention = attention
        self.resize = resize

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        if self.block is not None:
            h = self.block(h, e)
        if self.attention is not None:
            h = self.attention(h)
        return h if self.resize is None else self.resize(h, e)


class Block(nn.Module):
    """Two convolutions beside a shortcut; the embedding comes in between. It may change the
    resolution, of both ways, before its first convolution."""

    def __init__(self, inputs: int, outputs: int, options: AdmOptions, way: str = "") -> None:
        super().__init__()
        self.way = way
        self.scales = options.modulation == "scale_shift"
        self.norm_in = nn.GroupNorm(32, inputs)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(4 * options.width, outputs * (2 if self.scales else 1))
        self.norm_out = nn.GroupNorm(32, outputs)
        self.dropout = nn.Dropout(options.dropout)
        self.conv_out = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = self.conv_in(_resized(F.silu(self.norm_in(x)), self.way))
        told = self.modulation(e)[:, :, None, None]
        if self.scales:
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm_out(h), 1 + scale)
        else:
            h = self.norm_out(h + told)
        h = self.conv_out(self.dropout(F.silu(h)))
        return self.shortcut(_resized(x, self.way)) + h


class Attention(nn.Module):
    """Every position looks at every other. Rows of `qkv`: all queries, all keys, all values."""

    def __init__(self, channels: int, options: AdmOptions) -> None:
        super().__init__()
        self.heads = options.heads or channels // options.head_width
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.out = nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        flat = self.qkv(self.norm(x).flatten(2))
        q, k, v = flat.reshape(b, 3, self.heads, c // self.heads, -1).transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(b, c, -1)
        return x + self.out(mixed).reshape(b, c, height, width)


class Resize(nn.Module):
    """A change of resolution outside of a residual block: by a convolution, or without any weight."""

    def __init__(self, channels: int, way: str, learned: bool) -> None:
        super().__init__()
        self.way = way
        stride = 2 if way == "down" else 1
        self.conv = nn.Conv2d(channels, channels, 3, stride, padding=1) if learned else None

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        if self.conv is None:
            return _resized(x, self.way)
        return self.conv(x if self.way == "down" else _resized(x, self.way))


def _resampler(channels: int, options: AdmOptions, way: str) -> nn.Module:
    if options.resample == "block":
        return Block(channels, channels, options, way)
    return Resize(channels, way, options.resample == "conv")


def _resized(x: Tensor, way: str) -> Tensor:
    """x at half the resolution ("down"), at twice it ("up"), or as it is ("")."""
    if way == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2.0, mode="nearest") if way == "up" else x
