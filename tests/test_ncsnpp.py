"""The score SDE networks: every variant against a slow implementation, and against diffusers."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from score_sde_reference import Config, Reference

from studio.errors import CheckpointError, SpecError
from studio.networks.catalog import build
from studio.networks.ncsnpp import NCSNpp, NCSNppOptions
from studio.weights.formats.score_sde import _named, _numbered

pytestmark = pytest.mark.usefixtures("one_thread")


def options_of(config: Config, size: int = 16) -> NCSNppOptions:
    return NCSNppOptions(
        size=size,
        colours=config.colours,
        width=config.nf,
        multipliers=config.ch_mult,
        blocks=config.num_res_blocks,
        attention=config.attention,
        block=config.resblock,
        embedding=config.embedding,
        conditional=config.conditional,
        progressive=config.progressive,
        progressive_input=config.progressive_input,
        progressive_combine=config.combine,
        fir=config.taps if config.fir else (),
        resample_conv=config.resamp_with_conv,
        skip_rescale=config.skip_rescale,
        groups=config.groups,
        centered=config.centered,
    )


def network(reference: Reference, size: int = 16) -> NCSNpp:
    """Our network with the reference's weights."""
    with torch.device("meta"):
        net = NCSNpp(options_of(reference.config, size))
    layers = _numbered("reference", reference.state)
    tensors, left = _named(net, layers)
    assert left == []
    net.load_state_dict({k: v.float().contiguous() for k, v in tensors.items()}, assign=True)
    return net.eval().requires_grad_(False)


def inputs(size=16, colours=3, labels=(0.3, 20.0)):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(len(labels), colours, size, size, generator=generator), torch.tensor(labels)


def error(found, wanted):
    return float((found.double() - wanted).norm() / wanted.norm())


NCSN = Config()
VARIANTS = {
    "ncsn++ for cifar": replace(NCSN, ch_mult=(1, 2, 2), num_res_blocks=2),
    "ncsn++ for large pictures": replace(
        NCSN, ch_mult=(1, 1, 2), progressive="output_skip", progressive_input="input_skip"
    ),
    "ddpm++": replace(
        NCSN, fir=False, embedding="positional", progressive_input="none", centered=True
    ),
    "ddpm": Config(
        nf=32,
        fir=False,
        resblock="ddpm",
        embedding="positional",
        progressive_input="none",
        skip_rescale=False,
        groups=32,
        centered=True,
    ),
    "inputs joined": replace(
        NCSN, progressive_input="input_skip", combine="cat", ch_mult=(1, 2, 2)
    ),
    "residual on both ways": replace(NCSN, progressive="residual", ch_mult=(1, 2, 2)),
    "residual on both ways, no filter": replace(NCSN, progressive="residual", fir=False),
    "ddpm blocks with a filter": replace(NCSN, resblock="ddpm"),
    "ddpm blocks, no convolutions": replace(
        NCSN, resblock="ddpm", resamp_with_conv=False, fir=False, progressive_input="none"
    ),
    "ddpm blocks, a filter and no convolutions": replace(
        NCSN, resblock="ddpm", resamp_with_conv=False, progressive_input="none"
    ),
    "not told the noise": replace(NCSN, conditional=False),
    "no rescaling": replace(NCSN, skip_rescale=False),
    "another filter": replace(NCSN, taps=(1, 2, 3, 0)),
    "a longer filter": replace(NCSN, taps=(1, 5, 10, 10, 5, 1), progressive_input="none"),
    "grayscale": replace(NCSN, colours=1),
    "one stage": replace(NCSN, ch_mult=(2,), attention=()),
    "an odd width": replace(NCSN, nf=12, embedding="positional", ch_mult=(1, 3)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_what_the_formulas_say(name):
    reference = Reference(VARIANTS[name])
    net, (x, label) = network(reference), inputs(colours=VARIANTS[name].colours)
    assert error(net(x, label), reference(x, label)) < 1e-5


def test_labels_span_what_the_papers_use():
    fourier, positional = Reference(NCSN), Reference(replace(NCSN, embedding="positional"))
    for reference, labels in ((fourier, (0.01, 1348.0)), (positional, (0.0, 998.5))):
        x, label = inputs(labels=labels)
        # Angles of a thousand radians keep four digits of a turn in float32.
        assert error(network(reference)(x, label), reference(x, label)) < 1e-4


def test_the_networks_have_the_published_sizes():
    def millions(**options):
        with torch.device("meta"):
            net = NCSNpp(NCSNppOptions(**options))
        return round(sum(p.numel() for p in net.parameters()) / 1e6, 1)

    assert millions() == 62.8
    large = {"progressive": "output_skip", "progressive_input": "input_skip", "size": 256}
    widths = {"multipliers": (1, 1, 2, 2, 2, 2, 2), "blocks": 2, "attention": (4,)}
    assert millions(**large, **widths) == 65.6


def test_it_is_built_without_memory_and_follows_its_device():
    reference = Reference(VARIANTS["ddpm++"])
    net = network(reference)
    x, label = inputs()
    assert (
        error(copy.deepcopy(net).double()(x.double(), label.double()), reference(x, label)) < 1e-7
    )
    names = dict(net.named_buffers())
    assert names["waves"].device.type == "cpu"
    assert "waves" not in net.state_dict()
    assert "fourier.frequencies" in NCSNpp(NCSNppOptions(width=8, size=8)).state_dict()


def test_bfloat16_is_close_to_float32():
    net, (x, label) = network(Reference(VARIANTS["ncsn++ for large pictures"])), inputs()
    exact = net(x, label)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x, label)
    assert rough.dtype == torch.float32
    assert error(rough, exact.double()) < 0.05


@pytest.mark.parametrize("name", ["ncsn++ for cifar", "residual on both ways", "ddpm"])
def test_gradients_reach_every_parameter(name):
    net = network(Reference(VARIANTS[name])).train().requires_grad_(True)
    net(*inputs()).square().mean().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert silent == []


def test_a_gradient_is_that_of_the_function():
    """Branches are added in place: nothing that a gradient needs may be lost by that."""
    net = network(Reference(VARIANTS["residual on both ways"]), 8).double()
    x, label = inputs(size=8, labels=(0.7,))
    x = x.double().requires_grad_(True)
    (slope,) = torch.autograd.grad(net(x, label).square().sum(), x)
    step = torch.randn_like(x) * 1e-5
    with torch.no_grad():
        change = net(x + step, label).square().sum() - net(x - step, label).square().sum()
    assert float((slope * 2 * step).sum()) == pytest.approx(float(change), rel=1e-5)


def test_an_answer_does_not_depend_on_batch_mates():
    net, (x, label) = network(Reference(NCSN)), inputs()
    torch.testing.assert_close(net(x[:1], label[:1]), net(x, label)[:1], rtol=1e-5, atol=1e-5)


def test_a_fresh_network_predicts_zero():
    for progressive in ("none", "output_skip"):
        net = NCSNpp(NCSNppOptions(size=8, width=8, multipliers=(1, 2), progressive=progressive))
        assert not bool(net(*inputs(8)).any())


NONSENSE = [
    ("size", 31, "divides"),
    ("size", 2**20, "divides"),
    ("size", 10**400, "size"),
    ("colours", 2, "channels"),
    ("classes", 10, "classes"),
    ("width", 0, "width"),
    ("width", 10**9, "channels"),
    ("width", 13, "normalized"),
    ("multipliers", [], "stages"),
    ("multipliers", [1, 0], "multipliers"),
    ("multipliers", [1] * 40, "stages"),
    ("blocks", 0, "blocks"),
    ("blocks", 10**6, "blocks"),
    ("attention", [7], "stages"),
    ("block", "wide", "biggan"),
    ("embedding", "words", "fourier"),
    ("progressive", "input_skip", "output_skip"),
    ("progressive_combine", "max", "cat"),
    ("nonlinearity", "sin", "swish"),
    ("fir", [1.0, -1.0], "taps"),
    ("fir", [1.0] * 99, "taps"),
    ("fir", [float("nan")], "taps"),
    ("groups", 7, "normalized"),
    ("groups", -1, "norms"),
    ("dropout", float("nan"), "Dropout"),
    ("wings", 2, "wings"),
]


@pytest.mark.parametrize(("name", "value", "word"), NONSENSE, ids=range(len(NONSENSE)))
def test_options_that_make_no_sense_are_refused_in_words(name, value, word):
    with pytest.raises(CheckpointError, match=word):
        build("ncsnpp", {"size": 8, "width": 8, "multipliers": [1, 2]} | {name: value})


def test_a_network_of_the_catalog_is_built_from_plain_data():
    net = build("ncsnpp", {"size": 8, "width": 8, "multipliers": [1, 2], "fir": []})
    assert net.options.fir == ()
    with pytest.raises(SpecError):
        NCSNppOptions(width=2)


# -- another library ------------------------------------------------------------------------------


@pytest.mark.slow
def test_diffusers_computes_the_same_with_the_weights_of_google_ncsnpp():
    """UNet2DModel as google/ncsnpp-* configure it, with our weights by its names."""
    diffusers = pytest.importorskip("diffusers")
    config = replace(
        NCSN,
        nf=128,  # below that, its norms have other groups
        ch_mult=(1, 1, 1),
        attention=(1,),
        progressive="output_skip",
        progressive_input="input_skip",
    )
    net = network(Reference(config))
    theirs = diffusers.UNet2DModel(
        sample_size=16,
        block_out_channels=(128, 128, 128),
        layers_per_block=1,
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"),
        up_block_types=("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"),
        time_embedding_type="fourier",
        center_input_sample=True,
        norm_num_groups=None,
        norm_eps=1e-6,
        mid_block_scale_factor=2**0.5,
        downsample_padding=1,
        attention_head_dim=None,
        freq_shift=0,
        flip_sin_to_cos=True,
    ).eval()
    theirs.load_state_dict(by_their_names(net), strict=True)
    x, sigma = inputs()
    with torch.no_grad():
        wanted = theirs(x, sigma).sample.double()
    assert error(net(x, sigma) / sigma[:, None, None, None], wanted) < 1e-4


PARTS = {
    "norm_in": "norm1",
    "conv_in": "conv1",
    "shift": "time_emb_proj",
    "norm_out": "norm2",
    "conv_out": "conv2",
    "skip": "conv_shortcut",
}


def by_their_names(net: NCSNpp) -> dict[str, torch.Tensor]:
    """Our weights by the names of UNet2DModel."""
    out = {}

    def put(theirs, ours):
        for k, v in ours.state_dict().items():
            out[f"{theirs}.{k}"] = v

    def block(theirs, ours):
        for part, their_part in PARTS.items():
            if getattr(ours, part) is not None:
                put(f"{theirs}.{their_part}", getattr(ours, part))

    def attention(theirs, ours):
        put(f"{theirs}.group_norm", ours.norm)
        parts = zip(("to_q", "to_k", "to_v"), ours.qkv.weight.chunk(3), ours.qkv.bias.chunk(3))
        for name, weight, bias in [*parts, ("to_out.0", ours.out.weight, ours.out.bias)]:
            out[f"{theirs}.{name}.weight"] = weight[:, :, 0, 0]
            out[f"{theirs}.{name}.bias"] = bias

    out["time_proj.weight"] = net.fourier.frequencies
    put("time_embedding.linear_1", net.hidden)
    put("time_embedding.linear_2", net.embed)
    put("conv_in", net.stem)
    for i, stage in enumerate(net.down):
        stage_layers(f"down_blocks.{i}", stage, block, attention)
        if stage.resample is not None:
            block(f"down_blocks.{i}.resnet_down", stage.resample)
            put(f"down_blocks.{i}.skip_conv", stage.combine)
    block("mid_block.resnets.0", net.middle[0])
    attention("mid_block.attentions.0", net.middle[1])
    block("mid_block.resnets.1", net.middle[2])
    for i, stage in enumerate(net.up):
        stage_layers(f"up_blocks.{i}", stage, block, attention)
        last = stage.resample is None
        if not last:
            block(f"up_blocks.{i}.resnet_up", stage.resample)
        put("conv_norm_out" if last else f"up_blocks.{i}.skip_norm", stage.norm)
        put("conv_out" if last else f"up_blocks.{i}.skip_conv", stage.conv)
    return out


def stage_layers(theirs, stage, block, attention):
    seen = 0
    for j, layer in enumerate(stage.layers):
        block(f"{theirs}.resnets.{j}", layer.block)
        if layer.attention is not None:
            attention(f"{theirs}.attentions.{seen}", layer.attention)
            seen += 1
