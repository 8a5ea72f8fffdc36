"""ADM's U-Net against its description, block by block, and against the one of diffusers."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch.nn import functional as F

from studio.errors import CheckpointError, SpecError
from studio.networks.catalog import build
from studio.weights.formats.adm import PRESETS, Preset, Shape, _options, _read

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Shape(width=32, channels=(32, 64, 64), blocks=1, attention=(1, 2), classes=0)


def shaped(**changes):
    return Shape(**(vars(TINY) | changes))


def published_state(shape, learned=True, draw=None):
    """Random weights under the names of a published file."""
    draw = draw or functools.partial(torch.randn, generator=torch.Generator().manual_seed(0))
    state = {}

    def layer(name, outputs, inputs, *size):
        fan = inputs * math.prod(size)
        state[f"{name}.weight"] = draw(outputs, inputs, *size)
        state[f"{name}.weight"] /= math.sqrt(fan)
        state[f"{name}.bias"] = draw(outputs) * 0.1

    def norm(name, c):
        state[f"{name}.weight"] = 1 + 0.2 * draw(c)
        state[f"{name}.bias"] = 0.2 * draw(c)

    e = 4 * shape.width

    def block(name, inputs, outputs):
        norm(f"{name}.in_layers.0", inputs)
        layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
        layer(f"{name}.emb_layers.1", outputs * (1 + (shape.modulation == "scale_shift")), e)
        norm(f"{name}.out_layers.0", outputs)
        layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.skip_connection", outputs, inputs, 1, 1)

    def attention(name, c):
        norm(f"{name}.norm", c)
        layer(f"{name}.qkv", 3 * c, c, 1)
        layer(f"{name}.proj_out", c, c, 1)

    layer("time_embed.0", e, shape.width)
    layer("time_embed.2", e, e)
    if shape.classes:
        state["label_emb.weight"] = draw(shape.classes, e)
    c = shape.channels[0]
    layer("input_blocks.0.0", c, shape.colours, 3, 3)
    met, i = [c], 0
    last = len(shape.channels) - 1
    for stage, width in enumerate(shape.channels):
        for _ in range(shape.blocks):
            i += 1
            block(f"input_blocks.{i}.0", c, width)
            c = width
            if stage in shape.attention:
                attention(f"input_blocks.{i}.1", c)
            met.append(c)
        if stage < last:
            i += 1
            met.append(c)
            if shape.resample == "block":
                block(f"input_blocks.{i}.0", c, c)
            elif shape.resample == "conv":
                layer(f"input_blocks.{i}.0.op", c, c, 3, 3)
    block("middle_block.0", c, c)
    attention("middle_block.1", c)
    block("middle_block.2", c, c)
    i = 0
    for stage in range(last, -1, -1):
        for k in range(shape.blocks + 1):
            block(f"output_blocks.{i}.0", c + met.pop(), shape.channels[stage])
            c = shape.channels[stage]
            if stage in shape.attention:
                attention(f"output_blocks.{i}.1", c)
            if stage and k == shape.blocks:
                place = 2 if stage in shape.attention else 1
                if shape.resample == "block":
                    block(f"output_blocks.{i}.{place}", c, c)
                elif shape.resample == "conv":
                    layer(f"output_blocks.{i}.{place}.conv", c, c, 3, 3)
            i += 1
    norm("out.0", c)
    layer("out.2", shape.colours * (1 + learned), c, 3, 3)
    return state


class Published:
    """The network of the paper from a table of a file's tensors, one formula after the other."""

    def __init__(self, state, shape, heads_of, rows):
        self.s, self.shape, self.heads_of, self.rows = state, shape, heads_of, rows

    def layer(self, name, x, **more):
        weight, bias = self.s[f"{name}.weight"], self.s[f"{name}.bias"]
        if weight.ndim == 2:
            return x @ weight.T + bias
        if weight.ndim == 3:
            return torch.einsum("oi,bip->bop", weight[..., 0], x) + bias[:, None]
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, **more)

    def norm(self, name, x):
        """Over 32 groups of neighbouring channels: mean 0, variance 1."""
        b, c = x.shape[:2]
        groups = x.reshape(b, 32, -1)
        off = groups - groups.mean(2, keepdim=True)
        unit = off / torch.sqrt((off**2).mean(2, keepdim=True) + 1e-5)
        ones = [1] * (x.ndim - 2)
        weight, bias = (self.s[f"{name}.{k}"].reshape(1, c, *ones) for k in ("weight", "bias"))
        return unit.reshape(x.shape) * weight + bias

    def block(self, name, x, e, way=""):
        h = silu(self.norm(f"{name}.in_layers.0", x))
        h, x = (down_or_up(v, way) for v in (h, x))
        h = self.layer(f"{name}.in_layers.2", h)
        told = self.layer(f"{name}.emb_layers.1", silu(e))[:, :, None, None]
        if self.shape.modulation == "scale_shift":
            half = told.shape[1] // 2
            h = self.norm(f"{name}.out_layers.0", h) * (1 + told[:, :half]) + told[:, half:]
        else:
            h = self.norm(f"{name}.out_layers.0", h + told)
        h = self.layer(f"{name}.out_layers.3", silu(h))
        if f"{name}.skip_connection.weight" in self.s:
            x = self.layer(f"{name}.skip_connection", x)
        return x + h

    def attention(self, name, x):
        b, c = x.shape[:2]
        heads = self.heads_of(c)
        rows = self.layer(f"{name}.qkv", self.norm(f"{name}.norm", x.reshape(b, c, -1)))
        d, answers = c // heads, []
        for head in range(heads):
            if self.rows == "by head":
                q, k, v = (rows[:, (3 * head + i) * d :][:, :d] for i in range(3))
            else:
                q, k, v = (rows[:, i * c + head * d :][:, :d] for i in range(3))
            weight = torch.softmax(torch.einsum("bdt,bds->bts", q, k) / math.sqrt(d), 2)
            answers.append(torch.einsum("bts,bds->bdt", weight, v))
        return x + self.layer(f"{name}.proj_out", torch.cat(answers, 1)).reshape(x.shape)

    def part(self, name, x, e, way):
        if f"{name}.qkv.weight" in self.s:
            return self.attention(name, x)
        if f"{name}.in_layers.0.weight" in self.s:
            return self.block(name, x, e, way)
        if f"{name}.op.weight" in self.s:
            return self.layer(f"{name}.op", x, stride=2)
        if f"{name}.conv.weight" in self.s:
            return self.layer(f"{name}.conv", down_or_up(x, "up"))
        return down_or_up(x, way)

    def __call__(self, x, step, y=None):
        shape, width = self.shape, self.shape.width
        waves = [10_000 ** (-k / (width // 2)) for k in range(width // 2)]
        told = torch.stack(
            [torch.cos(step * w) for w in waves] + [torch.sin(step * w) for w in waves], 1
        )
        e = self.layer("time_embed.2", silu(self.layer("time_embed.0", told)))
        if y is not None:
            e = e + self.s["label_emb.weight"][y]
        per_stage = shape.blocks + 1
        h = self.layer("input_blocks.0.0", x)
        met = [h]
        for i in range(1, per_stage * len(shape.channels)):
            if i % per_stage:
                h = self.block(f"input_blocks.{i}.0", h, e)
                if f"input_blocks.{i}.1.qkv.weight" in self.s:
                    h = self.attention(f"input_blocks.{i}.1", h)
            else:
                h = self.part(f"input_blocks.{i}.0", h, e, "down")
            met.append(h)
        h = self.block("middle_block.0", h, e)
        h = self.block("middle_block.2", self.attention("middle_block.1", h), e)
        for i in range(per_stage * len(shape.channels)):
            h = self.block(f"output_blocks.{i}.0", torch.cat([h, met.pop()], 1), e)
            attends = f"output_blocks.{i}.1.qkv.weight" in self.s
            if attends:
                h = self.attention(f"output_blocks.{i}.1", h)
            if i % per_stage == per_stage - 1 and i < per_stage * len(shape.channels) - 1:
                h = self.part(f"output_blocks.{i}.{1 + attends}", h, e, "up")
        return self.layer("out.2", silu(self.norm("out.0", h)))[:, : shape.colours]


def silu(x):
    return x / (1 + torch.exp(-x))


def down_or_up(x, way):
    if way == "down":
        return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if way == "up" else x


def ours(state, chosen, **changes):
    shape = chosen.shape
    net = build("adm", _options(shape, chosen) | changes)
    net.load_state_dict(_read(state, shape, chosen).tensors)
    return net.eval().requires_grad_(False)


def inputs(shape, size=8, count=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, shape.colours, size, size, generator=generator)
    return x, torch.linspace(3, 951.25, count)


CASES = [
    (shaped(), 0, "by head"),
    (shaped(), 0, "by kind"),
    (shaped(classes=3), 4, "by head"),
    (shaped(resample="conv", modulation="add"), 1, "by head"),
    (shaped(resample="pool", blocks=2, attention=(0, 2)), 4, "by kind"),
    (shaped(channels=(32,), attention=(), colours=1), 2, "by head"),
    (shaped(width=64, channels=(32, 64, 128), blocks=2, attention=(2,)), 0, "by head"),
]


@pytest.mark.parametrize(("shape", "heads", "rows"), CASES)
def test_the_network_is_that_of_the_paper(shape, heads, rows):
    state = published_state(shape)
    chosen = Preset(8, shape, heads=heads, head_width=32, rows=rows)
    (x, step), y = inputs(shape), torch.tensor([2, 0]) if shape.classes else None
    wanted = Published(state, shape, lambda c: heads or c // 32, rows)(x, step, y)
    found = ours(state, chosen)(x, step, y)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.std()))


def test_the_network_is_that_of_diffusers_where_both_have_one():
    from diffusers import UNet2DModel

    shape = shaped(classes=3, blocks=2)
    net = ours(published_state(shape), Preset(8, shape, head_width=32))
    other = UNet2DModel(
        sample_size=8,
        freq_shift=0,
        flip_sin_to_cos=True,
        block_out_channels=shape.channels,
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        layers_per_block=shape.blocks,
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=32,
        norm_eps=1e-5,
        attn_norm_num_groups=32,
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=3,
    ).eval()
    other.load_state_dict(as_diffusers(net.state_dict(), shape))
    (x, step), y = inputs(shape), torch.tensor([1, 2])
    with torch.no_grad():
        wanted = other(x, step, class_labels=y).sample
    torch.testing.assert_close(net(x, step, y), wanted, rtol=1e-4, atol=1e-4)


def as_diffusers(state, shape):
    """Our tensors under the names of UNet2DModel."""
    per_stage, out = shape.blocks + 1, {}
    inner = {"norm_in": "norm1", "conv_in": "conv1", "modulation": "time_emb_proj"}
    inner |= {"norm_out": "norm2", "conv_out": "conv2", "shortcut": "conv_shortcut"}
    outer = {"stem": "conv_in", "norm": "conv_norm_out", "head": "conv_out"}
    outer |= {"label": "class_embedding", "embedding.hidden": "time_embedding.linear_1"}
    outer |= {"embedding.out": "time_embedding.linear_2"}

    def part(where, kind, k, name, v):
        sub, leaf = name.rsplit(".", 1)
        if kind != "attention":
            place = (
                f"resnets.{k}"
                if kind == "block"
                else f"{'down' if 'down_' in where else 'up'}samplers.0"
            )
            out[f"{where}.{place}.{inner[sub]}.{leaf}"] = v
        elif sub == "qkv":
            for name, rows in zip("qkv", v.chunk(3)):
                out[f"{where}.attentions.{k}.to_{name}.{leaf}"] = rows.reshape(
                    len(rows), -1
                ).squeeze(-1)
        elif sub == "norm":
            out[f"{where}.attentions.{k}.group_norm.{leaf}"] = v
        else:
            out[f"{where}.attentions.{k}.to_out.0.{leaf}"] = v.squeeze(-1)

    for name, v in state.items():
        parts = name.split(".", 3)
        if parts[0] == "middle":
            kind = "attention" if parts[1] == "1" else "block"
            part("mid_block", kind, int(parts[1]) // 2, name.split(".", 2)[2], v)
        elif parts[0] in ("down", "up"):
            stage, k = divmod(int(parts[1]), per_stage)
            part(f"{parts[0]}_blocks.{stage}", parts[2], k, parts[3], v)
        else:
            sub, leaf = name.rsplit(".", 1)
            out[f"{outer[sub]}.{leaf}"] = v
    return out


@pytest.mark.parametrize("y", [None, torch.tensor([-1, 0])])
def test_a_network_with_classes_does_not_guess_one(y):
    shape = shaped(classes=3)
    net = ours(published_state(shape), Preset(8, shape, head_width=32))
    with pytest.raises(SpecError, match="Choose a class"):
        net(*inputs(shape), y)


def parameters(preset):
    with torch.device("meta"):
        net = build("adm", _options(PRESETS[preset].shape, PRESETS[preset]))
    return sum(p.numel() for p in net.parameters()) / 1e6


# In millions, as the papers and repositories give them; cutting off the learned variances, our heads
# have some thousand fewer.
@pytest.mark.parametrize(
    ("preset", "millions"),
    [
        ("adm/imagenet64", 296),
        ("adm/imagenet128", 422),
        ("adm/imagenet256", 554),
        ("adm/imagenet256_uncond", 553),
        ("adm/imagenet512", 559),
        ("adm/lsun_bedroom", 553),
        ("adm/ffhq_10m", 93.6),
        ("improved/imagenet64_cond", 273),  # "270M"
    ],
)
def test_the_published_networks_have_their_known_size(preset, millions):
    assert parameters(preset) == pytest.approx(millions, rel=2e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": []},
        {"channels": [33]},
        {"channels": [32] * 11},
        {"channels": [10**9 // 32 * 32]},
        {"width": 0},
        {"width": 31},
        {"blocks": 0},
        {"blocks": 10**6},
        {"size": 9},
        {"size": 10**6},
        {"head_width": 0, "heads": 0, "channels": [96]},
        {"heads": 7},
        {"head_width": 48},
        {"colours": 4},
        {"classes": 10**9},
        {"dropout": 1.0},
        {"modulation": "none"},
        {"resample": "none"},
    ],
)
def test_options_that_make_no_sense_are_refused_before_memory_is_asked_for(wrong):
    with pytest.raises(CheckpointError, match="options make no sense"):
        build("adm", {"size": 64} | wrong)


def test_gradients_reach_every_weight():
    shape = shaped(classes=3)
    net = ours(published_state(shape), Preset(8, shape, head_width=32)).requires_grad_(True)
    net(*inputs(shape, count=3), torch.tensor([0, 1, 2])).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())
