"""A second, slow implementation of the score SDE networks, and files as score_sde_pytorch writes them.

It computes in float64, layer by layer, with the operations spelled out, and makes up its weights while it
goes: so the numbers that layers have in a file are the order of computation by construction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def upfirdn(
    x: Tensor, taps: Sequence[float], pads: tuple[int, int], up: int = 1, down: int = 1
) -> Tensor:
    """Zeros put behind every pixel, zeros around, a convolution by its definition, every other pixel.

    A negative pad cuts off. The kernel has sum one.
    """
    kernel = np.outer(taps, taps) / np.sum(taps) ** 2
    k = len(taps)
    values = x.double().numpy()
    b, c, h, w = values.shape
    wide = np.zeros((b, c, h * up, w * up))
    wide[:, :, ::up, ::up] = values
    before, after = pads
    width = [(0, 0), (0, 0), (max(before, 0), max(after, 0)), (max(before, 0), max(after, 0))]
    wide = np.pad(wide, width)
    first, last = max(-before, 0), -max(-after, 0) or None
    wide = wide[:, :, first:last, first:last]
    rows, columns = wide.shape[2] - k + 1, wide.shape[3] - k + 1
    out = np.zeros((b, c, rows, columns))
    for i in range(k):
        for j in range(k):
            out += kernel[k - 1 - i, k - 1 - j] * wide[:, :, i : i + rows, j : j + columns]
    return torch.from_numpy(out[:, :, ::down, ::down].copy())


def slow_down(x: Tensor, taps: Sequence[float]) -> Tensor:
    extra = len(taps) - 2
    return upfirdn(x, taps, ((extra + 1) // 2, extra // 2), down=2)


def slow_up(x: Tensor, taps: Sequence[float]) -> Tensor:
    extra = len(taps) - 2
    return 4 * upfirdn(x, taps, ((extra + 1) // 2 + 1, extra // 2), up=2)


@dataclass
class Config:
    """As the configuration files name it, but attention by stage."""

    nf: int = 8
    ch_mult: tuple[int, ...] = (1, 2)
    num_res_blocks: int = 1
    attention: tuple[int, ...] = (1,)
    fir: bool = True
    resblock: str = "biggan"
    embedding: str = "fourier"
    progressive: str = "none"
    progressive_input: str = "residual"
    combine: str = "sum"
    resamp_with_conv: bool = True
    conditional: bool = True
    skip_rescale: bool = True
    groups: int = 0
    centered: bool = False
    colours: int = 3
    taps: tuple[float, ...] = (1, 3, 3, 1)


class Reference:
    """The network h(x, label), without the division by sigma. `state` has the file's names."""

    def __init__(self, config: Config, seed: int = 0) -> None:
        self.config = config
        self.state: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)
        size = 2 ** (len(config.ch_mult) - 1)
        self(torch.zeros(1, config.colours, size, size), torch.ones(1))

    def __call__(self, x: Tensor, label: Tensor) -> Tensor:
        with torch.no_grad():
            self.index = -1
            return self._network(x.double(), label.double())

    # -- weights

    def _weight(self, name: str, *shape: int, inputs: int = 0) -> Tensor:
        key = f"all_modules.{self.index}.{name}"
        if key not in self.state:
            noise = torch.randn(shape, generator=self._generator, dtype=torch.float64)
            scale = 1 / math.sqrt(inputs) if inputs else 0.2
            one = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
            # Rounded, since files hold float32.
            self.state[key] = (one + scale * noise).float().double()
        return self.state[key]

    def _next(self) -> None:
        self.index += 1

    def _conv(self, x: Tensor, name: str, outputs: int, k: int = 3, **how: Any) -> Tensor:
        dot = f"{name}." if name else ""
        weight = self._weight(f"{dot}weight", outputs, x.shape[1], k, k, inputs=x.shape[1] * k * k)
        bias = self._weight(f"{dot}bias", outputs)
        return F.conv2d(x, weight, bias, **({"padding": k // 2} | how))

    def _dense(self, x: Tensor, name: str, outputs: int) -> Tensor:
        dot = f"{name}." if name else ""
        weight = self._weight(f"{dot}weight", outputs, x.shape[1], inputs=x.shape[1])
        return x @ weight.T + self._weight(f"{dot}bias", outputs)

    def _nin(self, x: Tensor, name: str, outputs: int) -> Tensor:
        weight = self._weight(f"{name}.W", x.shape[1], outputs, inputs=x.shape[1])
        bias = self._weight(f"{name}.b", outputs)
        return torch.einsum("bchw,cd->bdhw", x, weight) + bias[:, None, None]

    def _norm(self, x: Tensor, name: str = "") -> Tensor:
        b, c = x.shape[:2]
        groups = self.config.groups or min(c // 4, 32)
        parts = x.reshape(b, groups, -1)
        mean, var = parts.mean(2, keepdim=True), parts.var(2, keepdim=True, correction=0)
        x = ((parts - mean) / torch.sqrt(var + 1e-6)).reshape(x.shape)
        dot = f"{name}." if name else ""
        weight, bias = self._weight(f"{dot}weight", c), self._weight(f"{dot}bias", c)
        return x * weight[:, None, None] + bias[:, None, None]

    @staticmethod
    def _act(x: Tensor) -> Tensor:
        return x / (1 + torch.exp(-x))

    def _join(self, x: Tensor, h: Tensor) -> Tensor:
        return (x + h) / math.sqrt(2) if self.config.skip_rescale else x + h

    # -- layers

    def _smaller(self, x: Tensor) -> Tensor:
        if self.config.fir:
            return slow_down(x, self.config.taps)
        b, c, h, w = x.shape
        return x.reshape(b, c, h // 2, 2, w // 2, 2).mean((3, 5))

    def _larger(self, x: Tensor) -> Tensor:
        if self.config.fir:
            return slow_up(x, self.config.taps)
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def _downsample(self, x: Tensor, outputs: int, conv: bool) -> Tensor:
        self._next()
        if not conv:
            return self._smaller(x)
        if not self.config.fir:
            x = F.pad(x, (0, 1, 0, 1))
            return self._conv(x, "Conv_0", outputs, stride=2, padding=0)
        x = upfirdn(x, self.config.taps, (2, 2))
        return self._conv(x, "Conv2d_0", outputs, stride=2, padding=0)

    def _upsample(self, x: Tensor, outputs: int, conv: bool) -> Tensor:
        self._next()
        if not conv:
            return self._larger(x)
        if not self.config.fir:
            return self._conv(self._larger(x), "Conv_0", outputs)
        b, c, h, w = x.shape
        wide = torch.zeros(b, c, 2 * h - 1, 2 * w - 1, dtype=x.dtype)
        wide[:, :, ::2, ::2] = x
        weight = self._weight("Conv2d_0.weight", outputs, c, 3, 3, inputs=9 * c)
        bias = self._weight("Conv2d_0.bias", outputs)
        wide = F.conv2d(wide, weight, padding=2)
        return 4 * upfirdn(wide, self.config.taps, (1, 1)) + bias[:, None, None]

    def _block(self, x: Tensor, temb: Tensor | None, outputs: int, resample: str = "") -> Tensor:
        self._next()
        inputs = x.shape[1]
        h = self._act(self._norm(x, "GroupNorm_0"))
        if resample:
            move = self._smaller if resample == "down" else self._larger
            h, x = move(h), move(x)
        h = self._conv(h, "Conv_0", outputs)
        if temb is not None:
            h = h + self._dense(self._act(temb), "Dense_0", outputs)[:, :, None, None]
        h = self._conv(self._act(self._norm(h, "GroupNorm_1")), "Conv_1", outputs)
        if self.config.resblock == "biggan" and (inputs != outputs or resample):
            x = self._conv(x, "Conv_2", outputs, k=1)
        elif inputs != outputs:
            x = self._nin(x, "NIN_0", outputs)
        return self._join(x, h)

    def _attend(self, x: Tensor) -> Tensor:
        self._next()
        b, c, h, w = x.shape
        inner = self._norm(x, "GroupNorm_0")
        q, k, v = (self._nin(inner, f"NIN_{i}", c).reshape(b, c, h * w) for i in range(3))
        weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(c), dim=2)
        mixed = torch.einsum("bij,bcj->bci", weights, v).reshape(b, c, h, w)
        return self._join(x, self._nin(mixed, "NIN_3", c))

    def _norm_conv(self, h: Tensor, outputs: int) -> Tensor:
        self._next()
        h = self._act(self._norm(h))
        self._next()
        return self._conv(h, "", outputs)

    # -- the network

    def _embedding(self, label: Tensor) -> Tensor | None:
        nf = self.config.nf
        if self.config.embedding == "fourier":
            self._next()
            angles = label.log()[:, None] * self._frequencies(nf) * 2 * math.pi
        else:
            half = nf // 2
            powers = torch.arange(half, dtype=torch.float64) / (half - 1)
            angles = label[:, None] * 10_000.0**-powers
        features = torch.cat([angles.sin(), angles.cos()], dim=1)
        if not self.config.conditional:
            return None
        self._next()
        features = self._dense(features, "", 4 * nf)
        self._next()
        return self._dense(self._act(features), "", 4 * nf)

    def _frequencies(self, nf: int) -> Tensor:
        return self._weight("W", nf, inputs=16)

    def _network(self, x: Tensor, label: Tensor) -> Tensor:
        c = self.config
        temb = self._embedding(label)
        if not c.centered:
            x = 2 * x - 1
        pyramid = x
        self._next()
        seen = [self._conv(x, "", c.nf)]
        last = len(c.ch_mult) - 1
        for stage, mult in enumerate(c.ch_mult):
            for _ in range(c.num_res_blocks):
                h = self._block(seen[-1], temb, c.nf * mult)
                seen.append(self._attend(h) if stage in c.attention else h)
            if stage < last:
                h, pyramid = self._go_down(seen[-1], pyramid, temb)
                seen.append(h)
        h = self._block(seen[-1], temb, seen[-1].shape[1])
        h = self._block(self._attend(h), temb, h.shape[1])
        for stage in range(last, -1, -1):
            for _ in range(c.num_res_blocks + 1):
                h = self._block(torch.cat([h, seen.pop()], dim=1), temb, c.nf * c.ch_mult[stage])
            if stage in c.attention:
                h = self._attend(h)
            if c.progressive != "none":
                h, pyramid = self._add_up(h, pyramid, first=stage == last)
            if stage and c.resblock == "ddpm":
                h = self._upsample(h, h.shape[1], c.resamp_with_conv)
            elif stage:
                h = self._block(h, temb, h.shape[1], "up")
        return pyramid if c.progressive == "output_skip" else self._norm_conv(h, c.colours)

    def _go_down(self, h: Tensor, pyramid: Tensor, temb: Tensor | None) -> tuple[Tensor, Tensor]:
        c = self.config
        if c.resblock == "ddpm":
            h = self._downsample(h, h.shape[1], c.resamp_with_conv)
        else:
            h = self._block(h, temb, h.shape[1], "down")
        if c.progressive_input == "residual":
            pyramid = h = self._join(self._downsample(pyramid, h.shape[1], True), h)
        elif c.progressive_input == "input_skip":
            pyramid = self._downsample(pyramid, c.colours, False)
            self._next()
            copy = self._conv(pyramid, "Conv", h.shape[1], k=1)
            h = copy + h if c.combine == "sum" else torch.cat([copy, h], dim=1)
        return h, pyramid

    def _add_up(self, h: Tensor, pyramid: Tensor, first: bool) -> tuple[Tensor, Tensor]:
        c = self.config
        if c.progressive == "output_skip":
            if first:
                return h, self._norm_conv(h, c.colours)
            pyramid = self._upsample(pyramid, c.colours, False)
            return h, pyramid + self._norm_conv(h, c.colours)
        if first:
            return h, self._norm_conv(h, h.shape[1])
        pyramid = self._join(self._upsample(pyramid, h.shape[1], True), h)
        return pyramid, pyramid


_DDPM_ORDER = ["GroupNorm_0", "GroupNorm_1", "Conv_0", "Conv_1", "Dense_0", "NIN_0"]


def model_table(reference: Reference, prefix: str = "module.") -> dict[str, Tensor]:
    """The `model` of a file: noise levels first, then every tensor in the order of its module."""
    levels = np.exp(np.linspace(np.log(50), np.log(0.01), 1000))
    keys = list(reference.state)
    if reference.config.groups:  # ddpm.py makes the parts of a block in another order
        keys = sorted(keys, key=_ddpm_rank)
    table = {k: reference.state[k].float() for k in keys}
    return {prefix + k: v for k, v in ({"sigmas": torch.from_numpy(levels)} | table).items()}


def _ddpm_rank(key: str) -> tuple[int, int]:
    _, index, part, *_ = key.split(".")
    return int(index), _DDPM_ORDER.index(part) if part in _DDPM_ORDER else 0


def checkpoint(
    reference: Reference, averages: Reference | None = None, step: int = 1200
) -> dict[str, Any]:
    """What torch.save gets: the averages are those of `averages`, the model's by default."""
    model = model_table(reference)
    source = model_table(averages or reference)
    shadow = [v for k, v in source.items() if not k.endswith((".sigmas", "all_modules.0.W"))]
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 2e-4}]}
    ema = {"decay": 0.999, "num_updates": step, "shadow_params": shadow}
    return {"optimizer": optimizer, "model": model, "ema": ema, "step": step}
