"""The U-Net of diffusers' `UNet2DModel`, from its published configuration, as a module of our own.

The options have the names of its configuration, and the tensors have the names of its state dict, so
a published file fits as it is. What is not theirs: the network answers with the plain output of its
last layer. For the Fourier kind theirs divides by sigma; here that is left to the caller.
Skip blocks hand a small picture from stage to stage beside the features (Song et al. 2021, appendix
H: "input skip" and "output skip"), resampled with the filter of `resample.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from studio.errors import SpecError
from studio.networks.layers import in_full_precision
from studio.networks.resample import Resample

#: In place where there is a way: fresh memory costs more than the arithmetic on large pictures.
_silu = partial(F.silu, inplace=True)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": _silu,
    "swish": _silu,
    "mish": partial(F.mish, inplace=True),
    "gelu": F.gelu,
    "relu": partial(F.relu, inplace=True),
}


@dataclass(frozen=True)
class Kind:
    """What a named block is made of."""

    attention: bool = False
    picture: bool = False  # hands a picture on beside the features: a "skip" block
    residual: bool = False  # changes resolution inside a residual block


DOWN = {
    "DownBlock2D": Kind(),
    "AttnDownBlock2D": Kind(attention=True),
    "SkipDownBlock2D": Kind(picture=True),
    "AttnSkipDownBlock2D": Kind(attention=True, picture=True),
    "ResnetDownsampleBlock2D": Kind(residual=True),
}
UP = {
    "UpBlock2D": Kind(),
    "AttnUpBlock2D": Kind(attention=True),
    "SkipUpBlock2D": Kind(picture=True),
    "AttnSkipUpBlock2D": Kind(attention=True, picture=True),
    "ResnetUpsampleBlock2D": Kind(residual=True),
}


@dataclass(frozen=True)
class UNet2DOptions:
    """Everything needed to build the network again. What is left out is as diffusers has it.

    `num_class_embeds` may be `classes`, or one more: then the last row stands for "any class".
    """

    size: int = 32
    colours: int = 3
    classes: int = 0
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0.0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = (
        "DownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
        "AttnDownBlock2D",
    )
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple[str, ...] = (
        "AttnUpBlock2D",
        "AttnUpBlock2D",
        "AttnUpBlock2D",
        "UpBlock2D",
    )
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1.0
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int | None = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_choices()
        self._check_blocks()
        self._check_label()
        self._check_groups()

    def _check_sizes(self) -> None:
        widths = self.block_out_channels
        if not 1 <= len(widths) <= 12 or any(not 1 <= c <= 4096 for c in widths):
            raise SpecError("A U-Net needs 1 to 12 stages of 1 to 4096 channels.")
        if not 1 <= self.layers_per_block <= 64:
            raise SpecError("A U-Net needs 1 to 64 blocks in each stage.")
        folds = 2 ** (len(widths) - 1)
        if not 1 <= self.size <= 4096 or self.size % folds:
            raise SpecError(
                f"{len(widths)} stages need a size up to 4096 px that {folds} divides; "
                f"{self.size} is not."
            )
        if self.colours not in (1, 3):
            raise SpecError("A U-Net works on pictures with 1 or 3 channels.")
        if not 0 <= self.dropout < 1:
            raise SpecError("dropout must be from 0 to below 1.")
        if not 0 < self.norm_eps <= 1:
            raise SpecError("norm_eps must be above 0 and up to 1.")
        if not 1e-3 <= self.mid_block_scale_factor <= 1e3:
            raise SpecError("mid_block_scale_factor must be from 0.001 to 1000.")
        for name in ("norm_num_groups", "attn_norm_num_groups", "attention_head_dim"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 4096:
                raise SpecError(f"{name} must be from 1 to 4096.")

    def _check_choices(self) -> None:
        choices: dict[str, tuple[object, ...]] = {
            "act_fn": tuple(ACTIVATIONS),
            "mid_block_type": ("UNetMidBlock2D", None),
            "downsample_padding": (0, 1),
            "downsample_type": ("conv", "resnet"),
            "upsample_type": ("conv", "resnet"),
            "resnet_time_scale_shift": ("default", "scale_shift"),
            "time_embedding_type": ("positional", "fourier"),
            "class_embed_type": (None,),
        }
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                words = ", ".join("null" if k is None else str(k) for k in known)
                raise SpecError(f"{name} “{value!s:.40}” is not supported here. Known: {words}.")

    def _check_blocks(self) -> None:
        stages = len(self.block_out_channels)
        if not len(self.down_block_types) == len(self.up_block_types) == stages:
            raise SpecError("A U-Net needs a block type for each stage, on the way down and up.")
        for name, known in ((n, DOWN) for n in self.down_block_types):
            _known(name, known)
        for name, known in ((n, UP) for n in self.up_block_types):
            _known(name, known)
        down = [DOWN[n].picture for n in self.down_block_types]
        up = [UP[n].picture for n in self.up_block_types]
        # The last block down changes no resolution and takes no picture; any kind will do there.
        lost = any(down[i] and not down[i - 1] for i in range(1, stages - 1))
        if lost or any(up[i] and not up[i + 1] for i in range(stages - 1)):
            raise SpecError("Skip blocks must come first on the way down and last on the way up.")
        if self.colours != 3 and any(down[:-1] + up[:-1]):
            raise SpecError("Skip blocks work on pictures with 3 channels only.")
        if self.norm_num_groups is None and not all(down + up):
            raise SpecError("norm_num_groups may be null only where every block is a skip block.")

    def _check_label(self) -> None:
        half = self.block_out_channels[0] // 2
        if self.time_embedding_type == "positional" and not 0 <= self.freq_shift < half:
            raise SpecError(f"freq_shift must be from 0 to below {half}, half the first width.")
        if self.time_embedding_dim is not None and not 1 <= self.time_embedding_dim <= 16384:
            raise SpecError("time_embedding_dim must be from 1 to 16384.")
        if not 0 <= self.classes <= 100_000:
            raise SpecError("A U-Net knows 0 to 100000 classes.")
        rows = self.class_rows
        if rows != self.classes and not (self.classes and rows == self.classes + 1):
            raise SpecError(f"num_class_embeds is {rows}, but there are {self.classes} classes.")

    def _check_groups(self) -> None:
        for channels, groups in norms(self):
            if groups < 1 or channels % groups:
                raise SpecError(f"{channels} channels cannot be normalized in {groups} groups.")
        attentive = [
            c
            for c, down, up in zip(
                self.block_out_channels, self.down_block_types, reversed(self.up_block_types)
            )
            if DOWN[down].attention or UP[up].attention
        ]
        if self.mid_block_type and self.add_attention:
            attentive.append(self.block_out_channels[-1])
        if any(c < (self.attention_head_dim or 1) for c in attentive):
            raise SpecError("attention_head_dim must not exceed the channels it divides.")

    @property
    def embedding(self) -> int:
        """Features of the time embedding."""
        return self.time_embedding_dim or 4 * self.block_out_channels[0]

    @property
    def class_rows(self) -> int:
        return self.classes if self.num_class_embeds is None else self.num_class_embeds


def _known(name: str, known: dict[str, Kind]) -> None:
    if name not in known:
        raise SpecError(
            f"The block type “{name:.40}” is not supported here.", f"Known: {', '.join(known)}."
        )


# -- the sizes, once for the checks and for the layers ------------------------------------------


def down_widths(o: UNet2DOptions, i: int) -> list[tuple[int, int]]:
    """Of each residual block of stage i on the way down: channels from below, and from a skip (0)."""
    widths = o.block_out_channels
    return [(widths[max(i - 1, 0)] if j == 0 else widths[i], 0) for j in range(o.layers_per_block)]


def up_widths(o: UNet2DOptions, i: int) -> list[tuple[int, int]]:
    """The same for stage i on the way up: what comes from the stage before, and what is joined."""
    widths, last = o.block_out_channels[::-1], o.layers_per_block
    before, after = widths[max(i - 1, 0)], widths[min(i + 1, len(widths) - 1)]
    return [
        (before if j == 0 else widths[i], after if j == last else widths[i])
        for j in range(last + 1)
    ]


def group_count(o: UNet2DOptions, kind: Kind | None, channels: int, joined: int = 0) -> int:
    """Groups of a norm over `channels` and `joined` more, in a block of this kind."""
    if o.norm_num_groups is not None and not (kind and kind.picture):
        return o.norm_num_groups
    if kind and kind.attention:
        # A slip of theirs that published weights were trained with: only `joined` is divided.
        return min(channels + joined // 4 if joined else channels // 4, 32)
    return min((channels + joined) // 4, 32)


def norms(o: UNet2DOptions) -> Iterator[tuple[int, int]]:
    """(channels, groups) of every group norm in the network."""
    widths = o.block_out_channels
    for i in range(len(widths)):
        for kind, width, pairs in (
            (DOWN[o.down_block_types[i]], widths[i], down_widths(o, i)),
            (UP[o.up_block_types[i]], widths[-1 - i], up_widths(o, i)),
        ):
            yield from ((a + b, group_count(o, kind, a, b)) for a, b in pairs)
            yield width, group_count(o, kind, width)
            if kind.attention:
                yield width, _attention_groups(o, kind)
    if o.mid_block_type:
        yield widths[-1], group_count(o, None, widths[-1])
        if o.add_attention and (groups := _middle_groups(o)):
            yield widths[-1], groups
    yield widths[0], group_count(o, None, widths[0])


def _attention_groups(o: UNet2DOptions, kind: Kind) -> int:
    return 32 if kind.picture else o.norm_num_groups or 32


def _middle_groups(o: UNet2DOptions) -> int | None:
    if o.attn_norm_num_groups is not None or o.resnet_time_scale_shift == "scale_shift":
        return o.attn_norm_num_groups
    return group_count(o, None, o.block_out_channels[-1])


# -- layers -------------------------------------------------------------------------------------


class FourierLabel(nn.Module):
    """A noise level sigma (B,) -> sines and cosines (B, 2 width) of ln(sigma) at random frequencies."""

    weight: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        # In the state dict, as drawn when the training began; a buffer, because nothing trains it.
        self.register_buffer("weight", 16 * torch.randn(width))

    def forward(self, label: Tensor) -> Tensor:
        angles = label.float().log()[:, None] * self.weight * 2 * math.pi
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class PositionalLabel(nn.Module):
    """A step (B,), which may be a fraction -> sines and cosines (B, width), as a transformer's."""

    waves: Tensor

    def __init__(self, width: int, shift: float, cosines_first: bool) -> None:
        super().__init__()
        half = width // 2
        steps = torch.arange(half, dtype=torch.float32, device="cpu")
        waves = torch.exp(-math.log(10_000) * steps / (half - shift))
        self.register_buffer("waves", waves, persistent=False)
        self.cosines_first = cosines_first
        self.odd = width % 2

    def forward(self, label: Tensor) -> Tensor:
        angles = label.float()[:, None] * self.waves
        parts = [angles.sin(), angles.cos()]
        features = torch.cat(parts[::-1] if self.cosines_first else parts, dim=1)
        return F.pad(features, (0, 1)) if self.odd else features


class Embedding(nn.Module):
    """Two layers on the features of the noise label."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(features)))


def _joined(h: Tensor, x: Tensor, scale: float) -> Tensor:
    """(h + x) / scale in the memory of h, the fresh output of a layer."""
    h = h.add_(x)
    return h if scale == 1 else h.div_(scale)


def _layout(x: Tensor) -> torch.memory_format:
    """How pictures and weights should lie in memory on the device of x."""
    # On a processor convolutions, filters and nearest neighbours are faster with the channels last.
    # On CUDA group norms would undo it, block by block.
    return torch.channels_last if x.device.type == "cpu" else torch.contiguous_format


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions, told the noise level between them; `resample` changes the resolution."""

    def __init__(
        self,
        o: UNet2DOptions,
        inputs: int,
        outputs: int,
        groups: tuple[int, int],
        scale: float = 1.0,
        resample: Callable[[Tensor], Tensor] | None = None,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.act = ACTIVATIONS[o.act_fn]
        self.scaled = o.resnet_time_scale_shift == "scale_shift"
        self.scale = scale
        self.resample = resample
        self.norm1 = nn.GroupNorm(groups[0], inputs, eps=o.norm_eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(o.embedding, outputs * (2 if self.scaled else 1))
        self.norm2 = nn.GroupNorm(groups[1], outputs, eps=o.norm_eps)
        self.dropout = nn.Dropout(o.dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = None
        if shortcut or inputs != outputs:
            self.conv_shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """`embedding` (B, E) has been through the activation already: it is the same for all."""
        h = self.act(self.norm1(x))
        if self.resample is not None:
            x, h = self.resample(x), self.resample(h)
        h = self.conv1(h)
        told = self.time_emb_proj(embedding)[:, :, None, None]
        if self.scaled:
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h.add_(told))
        h = self.conv2(self.dropout(self.act(h)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return _joined(h, x, self.scale)


class Attention(nn.Module):
    """Every position looks at every other."""

    def __init__(
        self, o: UNet2DOptions, channels: int, groups: int | None, scale: float = 1.0
    ) -> None:
        super().__init__()
        width = o.attention_head_dim or channels
        self.heads = channels // width
        self.scale = scale
        inner = self.heads * width
        self.group_norm = nn.GroupNorm(groups, channels, eps=o.norm_eps) if groups else None
        self.to_q = nn.Linear(channels, inner)
        self.to_k = nn.Linear(channels, inner)
        self.to_v = nn.Linear(channels, inner)
        self.to_out = nn.ModuleList([nn.Linear(inner, channels)])

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.group_norm is None else self.group_norm(x)
        h = h.flatten(2).transpose(1, 2)
        q, k, v = (
            layer(h).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = self.to_out[0](h).transpose(1, 2).reshape(x.shape)
        return _joined(h, x, self.scale)


class Downsample(nn.Module):
    """A 3×3 convolution at every other pixel."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)
        self.padded = padding > 0

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.conv(x if self.padded else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Each pixel four times, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


# -- stages -------------------------------------------------------------------------------------


class Stage(nn.Module):
    """The residual blocks and attentions of one resolution."""

    def __init__(
        self,
        o: UNet2DOptions,
        kind: Kind,
        width: int,
        pairs: Sequence[tuple[int, int]],
        attentions: int,
    ) -> None:
        super().__init__()
        self.scale = math.sqrt(2) if kind.picture else 1.0
        self.out_groups = group_count(o, kind, width)
        self.resnets = nn.ModuleList(
            ResidualBlock(
                o, a + b, width, (group_count(o, kind, a, b), self.out_groups), self.scale
            )
            for a, b in pairs
        )
        groups = _attention_groups(o, kind)
        self.attentions = nn.ModuleList(
            Attention(o, width, groups, self.scale) for _ in range(attentions)
        )
        # Where there are fewer attentions than blocks, they follow the last ones.
        self.plain = len(pairs) - attentions

    def block(self, i: int, h: Tensor, embedding: Tensor) -> Tensor:
        h = self.resnets[i](h, embedding)
        return h if i < self.plain else self.attentions[i - self.plain](h)

    def _resampling(
        self,
        o: UNet2DOptions,
        width: int,
        resample: Callable[[Tensor], Tensor],
        shortcut: bool = False,
    ) -> ResidualBlock:
        groups = self.out_groups, self.out_groups
        return ResidualBlock(o, width, width, groups, self.scale, resample, shortcut)


class DownStage(Stage):
    """A stage on the way down, and the step to half the resolution unless it is the last."""

    def __init__(self, o: UNet2DOptions, i: int) -> None:
        kind, width = DOWN[o.down_block_types[i]], o.block_out_channels[i]
        pairs = down_widths(o, i)
        super().__init__(o, kind, width, pairs, len(pairs) if kind.attention else 0)
        self.downsamplers = self.resnet_down = self.skip_conv = None
        if i == len(o.block_out_channels) - 1:
            return
        if kind.picture:
            self.fir = Resample()
            self.resnet_down = self._resampling(o, width, self.fir.down, True)
            self.skip_conv = nn.Conv2d(o.colours, width, 1)
        elif kind.residual or (kind.attention and o.downsample_type == "resnet"):
            self.downsamplers = nn.ModuleList([self._resampling(o, width, Resample(()).down)])
        else:
            self.downsamplers = nn.ModuleList([Downsample(width, o.downsample_padding)])

    def forward(
        self, h: Tensor, embedding: Tensor, picture: Tensor, skips: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Features and picture at the next resolution; `skips` gets what the way up will join."""
        for i in range(len(self.resnets)):
            h = self.block(i, h, embedding)
            skips.append(h)
        if self.downsamplers is not None:
            h = self.downsamplers[0](h, embedding)
            skips.append(h)
        elif self.resnet_down and self.skip_conv:
            with torch.autocast(picture.device.type, enabled=False):
                picture = self.fir.down(picture)
            h = self.resnet_down(h, embedding).add_(in_full_precision(self.skip_conv, picture))
            skips.append(h)
        return h, picture


class UpStage(Stage):
    """A stage on the way up, and the step to twice the resolution unless it is the last."""

    def __init__(self, o: UNet2DOptions, i: int) -> None:
        kind, width = UP[o.up_block_types[i]], o.block_out_channels[-1 - i]
        pairs = up_widths(o, i)
        count = 1 if kind.picture else len(pairs)
        super().__init__(o, kind, width, pairs, count if kind.attention else 0)
        self.fir = Resample() if kind.picture else None
        self.upsamplers = self.resnet_up = self.skip_conv = self.skip_norm = None
        if i == len(o.block_out_channels) - 1:
            return
        if self.fir is not None:
            self.resnet_up = self._resampling(o, width, self.fir.up, True)
            self.skip_conv = nn.Conv2d(width, o.colours, 3, padding=1)
            self.skip_norm = nn.GroupNorm(self.out_groups, width, eps=o.norm_eps)
        elif kind.residual or (kind.attention and o.upsample_type == "resnet"):
            self.upsamplers = nn.ModuleList([self._resampling(o, width, Resample(()).up)])
        else:
            self.upsamplers = nn.ModuleList([Upsample(width)])

    def forward(
        self, h: Tensor, embedding: Tensor, picture: Tensor | None, skips: list[Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Features at the next resolution, and the picture so far at this one."""
        for i in range(len(self.resnets)):
            h = self.block(i, torch.cat([h, skips.pop()], dim=1), embedding)
        if self.fir is not None and picture is not None:
            with torch.autocast(picture.device.type, enabled=False):
                picture = self.fir.up(picture)
        if self.upsamplers is not None:
            h = self.upsamplers[0](h, embedding)
        elif self.resnet_up and self.skip_conv and self.skip_norm:
            seen = in_full_precision(self.skip_conv, _silu(self.skip_norm(h)))
            picture = seen if picture is None else picture + seen
            h = self.resnet_up(h, embedding)
        return h, picture


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution, with attention between them."""

    def __init__(self, o: UNet2DOptions) -> None:
        super().__init__()
        width, scale = o.block_out_channels[-1], o.mid_block_scale_factor
        groups = group_count(o, None, width)
        self.resnets = nn.ModuleList(
            ResidualBlock(o, width, width, (groups, groups), scale) for _ in range(2)
        )
        count = 1 if o.add_attention else 0
        self.attentions = nn.ModuleList(
            Attention(o, width, _middle_groups(o), scale) for _ in range(count)
        )

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        h = self.resnets[0](h, embedding)
        for attention in self.attentions:
            h = attention(h)
        return self.resnets[1](h, embedding)


class UNet2D(nn.Module):
    """(x (B, C, H, W), label (B,), class (B,) or None) -> (B, C, H, W).

    The label is sigma for the Fourier kind, and the step, which may be a fraction, for the positional.
    Class -1 means any where the embedding has a row for it. Where it has none, a class must be given:
    None raises SpecError, and -1 is answered with NaN, since to look at it would wait for the device.
    """

    def __init__(self, options: UNet2DOptions) -> None:
        super().__init__()
        o = self.options = options
        self.free = o.class_rows > o.classes or not o.classes
        widths = o.block_out_channels
        self.act = ACTIVATIONS[o.act_fn]
        self.conv_in = nn.Conv2d(o.colours, widths[0], 3, padding=1)
        if o.time_embedding_type == "fourier":
            self.time_proj = FourierLabel(widths[0])
            self.time_embedding = Embedding(2 * widths[0], o.embedding)
        else:
            self.time_proj = PositionalLabel(widths[0], o.freq_shift, o.flip_sin_to_cos)
            self.time_embedding = Embedding(widths[0], o.embedding)
        self.class_embedding = nn.Embedding(o.class_rows, o.embedding) if o.classes else None
        self.down_blocks = nn.ModuleList(DownStage(o, i) for i in range(len(widths)))
        self.mid_block = Middle(o) if o.mid_block_type else None
        self.up_blocks = nn.ModuleList(UpStage(o, i) for i in range(len(widths)))
        self.conv_norm_out = nn.GroupNorm(
            group_count(o, None, widths[0]), widths[0], eps=o.norm_eps
        )
        self.conv_out = nn.Conv2d(widths[0], o.colours, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor, y: Tensor | None = None) -> Tensor:
        if self.options.center_input_sample:
            x = 2 * x - 1
        embedding = self.act(self._embed(label, y))
        x = x.contiguous(memory_format=_layout(x))
        h, picture = in_full_precision(self.conv_in, x), x
        skips = [h]
        for stage in self.down_blocks:
            h, picture = stage(h, embedding, picture, skips)
        if self.mid_block is not None:
            h = self.mid_block(h, embedding)
        picture = None
        for stage in self.up_blocks:
            h, picture = stage(h, embedding, picture, skips)
        h = in_full_precision(self.conv_out, _silu(self.conv_norm_out(h)))
        return h if picture is None else h + picture

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> UNet2D:
        """What `.to()` and `.float()` end in. Weights lie as the device that holds them reads them."""
        super()._apply(fn, recurse)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                held = layer.weight.data
                layer.weight.data = held.contiguous(memory_format=_layout(held))
        return self

    def _embed(self, label: Tensor, y: Tensor | None) -> Tensor:
        """The time embedding (B, E), with the class in it."""
        # Full precision costs nothing for so few numbers.
        with torch.autocast(label.device.type, enabled=False):
            features = self.time_proj(label).to(self.conv_in.weight.dtype)
            embedding = self.time_embedding(features)
            if self.class_embedding is None:
                return embedding
            return embedding + self._class(label, y)

    def _class(self, label: Tensor, y: Tensor | None) -> Tensor:
        o = self.options
        assert self.class_embedding is not None
        if o.class_rows > o.classes:
            if y is None:
                y = torch.full_like(label, -1, dtype=torch.long)
            return self.class_embedding(torch.where(y < 0, o.classes, y))
        if y is None:
            raise SpecError("This model must be told a class.", "Choose one of its classes.")
        known = self.class_embedding(y.clamp_min(0))
        return torch.where(y[:, None] < 0, math.nan, known)
