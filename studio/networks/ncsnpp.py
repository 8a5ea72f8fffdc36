"""The U-Nets of the score SDE papers: NCSN++, DDPM++ and DDPM, as one family.

They take a picture as it is and tell the noise level by a label: its standard deviation for a Fourier
embedding, which works in its logarithm, and a number of up to a thousand for a positional one. They
answer without the division by sigma that the paper draws inside the network: the caller scales.

Names follow the paper's configurations: `progressive` is how the picture is put together on the way up,
`progressive_input` how smaller copies of it come in on the way down. A BigGAN network changes resolution
inside of residual blocks, a DDPM network between them.

Sources: Song et al. 2021, "Score-Based Generative Modeling through SDEs", appendix H; Ho et al. 2020,
"Denoising Diffusion Probabilistic Models", appendix B.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from studio.errors import SpecError
from studio.networks.layers import zeroed
from studio.networks.resample import TAPS, Resample, fir_down_conv, fir_up_conv

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "swish": F.silu,
    "elu": F.elu,
    "relu": F.relu,
    "lrelu": partial(F.leaky_relu, negative_slope=0.2),
}
_CHOICES = {
    "block": ("biggan", "ddpm"),
    "embedding": ("fourier", "positional"),
    "progressive": ("none", "output_skip", "residual"),
    "progressive_input": ("none", "input_skip", "residual"),
    "progressive_combine": ("sum", "cat"),
    "nonlinearity": tuple(NONLINEARITIES),
}


@dataclass(frozen=True)
class NCSNppOptions:
    """Everything needed to build the network again. As it stands: NCSN++ for CIFAR-10, VE."""

    size: int = 32
    colours: int = 3
    classes: int = 0
    width: int = 128  # channels of the first layer
    multipliers: tuple[int, ...] = (1, 2, 2, 2)  # of `width`, a stage each, from full resolution
    blocks: int = 4  # residual blocks of each stage on the way down; one more on the way up
    attention: tuple[int, ...] = (1,)  # stages with attention; there always is one in the middle
    block: str = "biggan"
    embedding: str = "fourier"
    conditional: bool = True  # whether the blocks are told the noise level
    progressive: str = "none"
    progressive_input: str = "residual"
    progressive_combine: str = "sum"
    fir: tuple[float, ...] = TAPS  # taps of the filter that goes with resampling; empty for none
    resample_conv: bool = True  # DDPM networks: convolutions where the resolution changes
    skip_rescale: bool = True  # sums of two branches are divided by √2
    groups: int = 0  # of every norm; 0 for groups of four channels, at most 32
    centered: bool = False  # pictures come in [-1, 1]; otherwise in [0, 1]
    nonlinearity: str = "swish"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise SpecError(f"The network's {name} must be one of {', '.join(choices)}.")
        stages = len(self.multipliers)
        if not 1 <= stages <= 12 or any(not 1 <= m <= 64 for m in self.multipliers):
            raise SpecError("The network needs 1 to 12 stages with multipliers of 1 to 64.")
        if not 4 <= self.width <= 4096 or self.width * max(self.multipliers) > 4096:
            raise SpecError("The network needs a width of at least 4, and at most 4096 channels.")
        if not 1 <= self.blocks <= 64:
            raise SpecError("The network needs 1 to 64 blocks in each stage.")
        if any(not 0 <= stage < stages for stage in self.attention):
            raise SpecError(f"Attention must be in one of the {stages} stages, counted from 0.")
        if not 4 <= self.size <= 4096 or self.size % 2 ** (stages - 1):
            raise SpecError(
                f"{stages} stages need a size, of up to 4096, that {2 ** (stages - 1)} divides."
            )
        if self.colours not in (1, 3) or self.classes:
            raise SpecError("The network works on pictures with 1 or 3 channels, without classes.")
        if not 0 <= self.dropout < 1 or not 0 <= self.groups <= 4096:
            raise SpecError("Dropout must be below 1, and norms have at most 4096 groups.")
        self._check_taps()

    def _check_taps(self) -> None:
        total = abs(sum(self.fir))
        if len(self.fir) > 16 or not (1e-6 < total < 1e6 or not self.fir):
            raise SpecError("A filter needs at most 16 taps, whose sum is not zero.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.width * m for m in self.multipliers)

    @property
    def scale(self) -> float:
        """What a sum of two branches is multiplied by."""
        return math.sqrt(0.5) if self.skip_rescale else 1.0


class NCSNpp(nn.Module):
    """(x (B, C, H, W), label (B,)) -> (B, C, H, W). There is no class input; `y` is ignored."""

    waves: Tensor

    def __init__(self, options: NCSNppOptions) -> None:
        super().__init__()
        self.options = o = options
        self.act = NONLINEARITIES[o.nonlinearity]
        # Layers are made in the order of computation: published files number them so (see `units`).
        self.fourier = Fourier(o.width) if o.embedding == "fourier" else None
        self.register_buffer("waves", _waves(o.width), persistent=False)
        if o.conditional:
            self.hidden = nn.Linear(o.width * (2 if self.fourier else 1), 4 * o.width)
            self.embed = nn.Linear(4 * o.width, 4 * o.width)
        self.stem = nn.Conv2d(o.colours, o.width, 3, padding=1)
        self.down, skips = _encoder(o)
        deepest = skips[-1]
        self.middle = nn.ModuleList(
            [Block(deepest, deepest, o), Attention(deepest, o), Block(deepest, deepest, o)]
        )
        self.up = _decoder(o, skips)
        self.norm = self.head = None
        if o.progressive != "output_skip":
            self.norm = _norm(o.widths[0], o)
            self.head = zeroed(nn.Conv2d(o.widths[0], o.colours, 3, padding=1))

    def units(self) -> Iterator[tuple[str, nn.Module]]:
        """Its layers by name, in the order of computation, also those without weights."""
        return _units(self, "")

    def forward(self, x: Tensor, label: Tensor, y: Tensor | None = None) -> Tensor:
        embedding = self._embed(label)
        x = (x if self.options.centered else 2 * x - 1).to(self.stem.weight.dtype)
        h, pyramid = _exactly(self.stem, x), x
        skips = [h]
        for stage in self.down:
            more, pyramid = stage(skips[-1], pyramid, embedding)
            skips += more
        first, attention, second = self.middle
        h = second(attention(first(skips[-1], embedding)), embedding)
        for stage in self.up:
            h, pyramid = stage(h, skips, pyramid, embedding)
        if self.norm is None or self.head is None:
            return pyramid
        return _exactly(self.head, self.act(self.norm(h)))

    def _embed(self, label: Tensor) -> Tensor | None:
        """What the blocks are told of the noise level, (B, 4 width)."""
        if not self.options.conditional:
            return None
        if self.fourier is not None:
            features = self.fourier(torch.log(label.to(self.fourier.frequencies.dtype)))
        else:
            angles = label.to(self.waves.dtype)[:, None] * self.waves
            features = torch.cat([angles.sin(), angles.cos()], dim=1)
            features = F.pad(features, [0, self.options.width % 2])
        return self.act(self.embed(self.act(self.hidden(features))))


class Fourier(nn.Module):
    """Sines and cosines, (B,) -> (B, 2 width), at frequencies drawn once and kept with the weights."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(width) * 16)

    def forward(self, x: Tensor) -> Tensor:
        angles = x[:, None] * self.frequencies * (2 * math.pi)
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Block(nn.Module):
    """Two 3×3 convolutions; the noise embedding shifts between them. May change the resolution."""

    def __init__(self, inputs: int, outputs: int, o: NCSNppOptions, resample: str = "") -> None:
        super().__init__()
        self.act, self.scale, self.way = NONLINEARITIES[o.nonlinearity], o.scale, resample
        self.norm_in = _norm(inputs, o)
        self.conv_in = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shift = nn.Linear(4 * o.width, outputs) if o.conditional else None
        self.norm_out = _norm(outputs, o)
        self.dropout = nn.Dropout(o.dropout)
        self.conv_out = zeroed(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs or resample else None
        self.sampler = Resample(o.fir) if resample else None

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.act(self.norm_in(x))
        if self.sampler is not None:
            resample = self.sampler.up if self.way == "up" else self.sampler.down
            h, x = resample(h), resample(x)
        h = self.conv_in(h)
        if self.shift is not None and embedding is not None:
            h = h + self.shift(embedding)[:, :, None, None]
        h = self.conv_out(self.dropout(self.act(self.norm_out(h))))
        return _sum(h, x if self.skip is None else self.skip(x), self.scale)


class Attention(nn.Module):
    """Every position looks at every other, with one head."""

    def __init__(self, channels: int, o: NCSNppOptions) -> None:
        super().__init__()
        self.scale = o.scale
        self.norm = _norm(channels, o)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, 1, c, h * w).transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(b, c, h, w)
        return _sum(self.out(mixed), x, self.scale)


class Down(nn.Module):
    """Half the resolution, (B, C, H, W) -> (B, D, H / 2, W / 2), with a convolution if it has one."""

    def __init__(self, inputs: int, outputs: int, conv: bool, o: NCSNppOptions) -> None:
        super().__init__()
        self.sampler = Resample(o.fir)
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2) if conv else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        if self.conv is None:
            return self.sampler.down(x)
        if self.sampler.kernel is None:
            return self.conv(F.pad(x, [0, 1, 0, 1]))
        x = fir_down_conv(x, self.conv.weight, self.sampler.kernel)
        return x + _bias(self.conv)


class Up(nn.Module):
    """Twice the resolution, (B, C, H, W) -> (B, D, 2 H, 2 W), with a convolution if it has one."""

    def __init__(self, inputs: int, outputs: int, conv: bool, o: NCSNppOptions) -> None:
        super().__init__()
        self.sampler = Resample(o.fir)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1) if conv else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        if self.conv is None:
            return self.sampler.up(x)
        if self.sampler.kernel is None:
            return self.conv(self.sampler.up(x))
        x = fir_up_conv(x, self.conv.weight, self.sampler.kernel)
        return x + _bias(self.conv)


class _Layer(nn.Module):
    """A block, and attention behind it where the stage has it."""

    def __init__(self, block: Block, attention: Attention | None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        h = self.block(x, embedding)
        return h if self.attention is None else self.attention(h)


class _DownStage(nn.Module):
    """One resolution on the way down, and the step to the next where there is one."""

    def __init__(self, inputs: int, stage: int, pyramid: int, o: NCSNppOptions) -> None:
        super().__init__()
        outputs, attends = o.widths[stage], stage in o.attention
        self.options, self.sees_pixels = o, pyramid == o.colours
        self.layers = nn.ModuleList()
        for i in range(o.blocks):
            block = Block(outputs if i else inputs, outputs, o)
            self.layers.append(_Layer(block, Attention(outputs, o) if attends else None))
        self.resample = self.pyramid = self.combine = None
        if stage == len(o.widths) - 1:
            return
        if o.block == "biggan":
            self.resample = Block(outputs, outputs, o, "down")
        else:
            self.resample = Down(outputs, outputs, o.resample_conv, o)
        if o.progressive_input != "none":
            self.pyramid = Down(pyramid, outputs, o.progressive_input == "residual", o)
        if o.progressive_input == "input_skip":
            self.combine = nn.Conv2d(pyramid, outputs, 1)

    def forward(
        self, h: Tensor, pyramid: Tensor, embedding: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """What the way up gets to see of this stage, and the pyramid, made smaller."""
        seen = []
        for layer in self.layers:
            h = layer(h, embedding)
            seen.append(h)
        if self.resample is None:
            return seen, pyramid
        h = self.resample(h, embedding)
        if self.pyramid is not None:
            down = _exactly if self.sees_pixels else _call
            pyramid = down(self.pyramid, pyramid)
            if self.combine is None:
                h = pyramid = _sum(pyramid, h, self.options.scale)
            else:
                copy = _exactly(self.combine, pyramid)
                joined = self.options.progressive_combine == "cat"
                h = torch.cat([copy.to(h.dtype), h], dim=1) if joined else copy + h
        return [*seen, h], pyramid


class _UpStage(nn.Module):
    """One resolution on the way up, and the step to the next where there is one."""

    def __init__(self, inputs: int, skips: list[int], stage: int, o: NCSNppOptions) -> None:
        super().__init__()
        outputs, first = o.widths[stage], stage == len(o.widths) - 1
        self.options, self.act = o, NONLINEARITIES[o.nonlinearity]
        self.layers = nn.ModuleList()
        for i in range(o.blocks + 1):
            block = Block((outputs if i else inputs) + skips.pop(), outputs, o)
            attends = i == o.blocks and stage in o.attention
            self.layers.append(_Layer(block, Attention(outputs, o) if attends else None))
        self.grow = self.norm = self.conv = self.resample = None
        self._build_pyramid(outputs, inputs, first)
        if stage:
            biggan = o.block == "biggan"
            self.resample = (
                Block(outputs, outputs, o, "up")
                if biggan
                else Up(outputs, outputs, o.resample_conv, o)
            )

    def _build_pyramid(self, outputs: int, inputs: int, first: bool) -> None:
        o = self.options
        residual = o.progressive == "residual"
        if o.progressive == "none":
            return
        if not first:
            self.grow = Up(inputs, outputs, residual, o)
        if first or not residual:
            self.norm = _norm(outputs, o)
            conv = nn.Conv2d(outputs, outputs if residual else o.colours, 3, padding=1)
            self.conv = conv if residual else zeroed(conv)

    def forward(
        self, h: Tensor, skips: list[Tensor], pyramid: Tensor, embedding: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The features and the pyramid, for the next stage. Takes what it uses off `skips`."""
        for layer in self.layers:
            h = layer(torch.cat([h, skips.pop()], dim=1), embedding)
        residual = self.options.progressive == "residual"
        run = _call if residual else _exactly
        if self.grow is not None:
            pyramid = run(self.grow, pyramid)
        if self.norm is not None and self.conv is not None:
            part = run(self.conv, self.act(self.norm(h)))
            pyramid = part if self.grow is None else pyramid + part
        elif self.grow is not None:
            h = pyramid = _sum(pyramid, h, self.options.scale)
        return (h if self.resample is None else self.resample(h, embedding)), pyramid


def _encoder(o: NCSNppOptions) -> tuple[nn.ModuleList, list[int]]:
    """The stages on the way down, and the channels of everything that the way up will see."""
    stages, skips = nn.ModuleList(), [o.width]
    channels, pyramid = o.width, o.colours
    for i, width in enumerate(o.widths):
        stages.append(_DownStage(channels, i, pyramid, o))
        channels = width
        skips += [width] * o.blocks
        if i < len(o.widths) - 1:
            if o.progressive_input == "input_skip" and o.progressive_combine == "cat":
                channels *= 2
            if o.progressive_input == "residual":
                pyramid = width
            skips.append(channels)
    return stages, skips


def _decoder(o: NCSNppOptions, skips: list[int]) -> nn.ModuleList:
    """The stages on the way up, from the lowest resolution."""
    stages, channels, left = nn.ModuleList(), skips[-1], list(skips)
    for i in reversed(range(len(o.widths))):
        stages.append(_UpStage(channels, left, i, o))
        channels = o.widths[i]
    return stages


def _units(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList | _Layer | _DownStage | _UpStage):
            yield from _units(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _norm(channels: int, o: NCSNppOptions) -> nn.GroupNorm:
    groups = o.groups or min(channels // 4, 32)
    if groups < 1 or channels % groups:
        raise SpecError(f"{channels} channels cannot be normalized in {groups} groups.")
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _waves(width: int) -> Tensor:
    """Frequencies of the positional embedding. On the CPU: they are no weights, no file has them."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device="cpu")
    return torch.exp(steps * (-math.log(10_000) / (half - 1)))


def _sum(h: Tensor, x: Tensor, scale: float) -> Tensor:
    """scale (h + x), in place of h, which must be a convolution's answer and nobody else's."""
    h = h.add_(x.to(h.dtype))
    return h if scale == 1 else h.mul_(scale)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias[:, None, None]


def _exactly(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer that sees pixels, in float32: eight bits of bfloat16 mantissa would show as grain."""
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x)


def _call(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x)
