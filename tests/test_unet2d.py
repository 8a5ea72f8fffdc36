"""The published U-Net: the same answers as diffusers' own, and options that a hostile file may hold."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from studio.errors import CheckpointError, SpecError
from studio.networks.catalog import build
from studio.networks.unet2d import UNet2D, UNet2DOptions
from studio.spec import from_dict

pytestmark = pytest.mark.usefixtures("one_thread")

POSITIONAL = {
    "time_embedding_type": "positional",
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "center_input_sample": False,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
    "downsample_padding": 0,
}
FOURIER = {
    "time_embedding_type": "fourier",
    "center_input_sample": True,
    "norm_num_groups": None,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
    "mid_block_scale_factor": 1.41421356237,
}


def with_one_attention(plain: str, attentive: str, stages: int, at: int) -> tuple[str, ...]:
    return tuple(attentive if i == at else plain for i in range(stages))


def skips(widths: tuple[int, ...], down_at: int, up_at: int, **more):
    stages = len(widths)
    return FOURIER | {
        "block_out_channels": widths,
        "down_block_types": with_one_attention(
            "SkipDownBlock2D", "AttnSkipDownBlock2D", stages, down_at
        ),
        "up_block_types": with_one_attention("SkipUpBlock2D", "AttnSkipUpBlock2D", stages, up_at),
        **more,
    }


def plains(widths: tuple[int, ...], down_at: int, up_at: int, **more):
    stages = len(widths)
    return POSITIONAL | {
        "block_out_channels": widths,
        "down_block_types": with_one_attention("DownBlock2D", "AttnDownBlock2D", stages, down_at),
        "up_block_types": with_one_attention("UpBlock2D", "AttnUpBlock2D", stages, up_at),
        **more,
    }


#: The published configurations, as they are.
NCSNPP_256 = skips((128, 128, 256, 256, 256, 256, 256), 4, 2, size=256)
FFHQ_1024 = skips((16, 32, 64, 128, 256, 512, 512, 512), 6, 1, size=1024, layers_per_block=1)
DDPM_256 = plains((128, 128, 256, 256, 512, 512), 4, 1, size=256)
DDPM_CIFAR10 = plains((128, 256, 256, 256), 1, 2, size=32)
#: The same structure, narrow, on small pictures.
NARROW = {
    "ncsnpp-256": skips((16, 16, 32, 32, 32, 32, 32), 4, 2, size=64),
    "ncsnpp-ffhq-1024": skips((4, 8, 8, 16, 16, 32, 32, 32), 6, 1, size=128, layers_per_block=1),
    "ddpm-256": plains((32, 32, 64, 64, 96, 96), 4, 1, size=32),
    "ddpm-cifar10-32": plains((32, 64, 64, 64), 1, 2, size=16),
}
TWO = plains((32, 64), 1, 0, size=8, layers_per_block=1)
TWO_SKIPS = skips((32, 32), 1, 0, size=8, layers_per_block=1)
RESNETS = {
    "down_block_types": ("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
}
ATTENTIVE = {
    "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
}
SKIP_ENDS = {
    "norm_num_groups": 8,
    "down_block_types": ("AttnSkipDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnSkipUpBlock2D"),
}
VARIANTS = {
    "one stage": TWO
    | {
        "block_out_channels": (32,),
        "down_block_types": ("AttnDownBlock2D",),
        "up_block_types": ("UpBlock2D",),
    },
    "their defaults": {"size": 16, "block_out_channels": (32, 32, 64, 64)},
    "residual resampling": TWO | RESNETS,
    "attention and residual resampling": TWO
    | ATTENTIVE
    | {"downsample_type": "resnet", "upsample_type": "resnet"},
    "attention and convolutions": TWO | ATTENTIVE,
    "attention beside pictures": TWO_SKIPS
    | {
        "block_out_channels": (32, 64, 32),
        "down_block_types": ("AttnSkipDownBlock2D",) * 3,
        "up_block_types": ("AttnSkipUpBlock2D",) * 3,
    },
    "a skip block first and last": TWO_SKIPS | SKIP_ENDS,
    "scale and shift": TWO | {"resnet_time_scale_shift": "scale_shift"},
    "scale and shift, normalized attention": TWO
    | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
    "scale and shift beside pictures": TWO_SKIPS | {"resnet_time_scale_shift": "scale_shift"},
    "three layers": TWO | {"layers_per_block": 3},
    "three layers beside pictures": TWO_SKIPS | {"layers_per_block": 3},
    "centred": TWO | {"center_input_sample": True},
    "not centred": TWO_SKIPS | {"center_input_sample": False},
    "cosines first": TWO | {"flip_sin_to_cos": True},
    "no frequency shift": TWO | {"freq_shift": 0},
    "an odd first width": TWO | {"block_out_channels": (33, 66), "norm_num_groups": 3},
    "sigma for plain blocks": TWO | {"time_embedding_type": "fourier", "flip_sin_to_cos": True},
    "steps for skip blocks": TWO_SKIPS | {"time_embedding_type": "positional"},
    "heads of 8": TWO | {"attention_head_dim": 8},
    "heads that do not add up": TWO | {"attention_head_dim": 24},
    "heads beside pictures": TWO_SKIPS | {"attention_head_dim": 16},
    "padding all around": TWO | {"downsample_padding": 1},
    "no middle": TWO | {"mid_block_type": None},
    "no attention in the middle": TWO | {"add_attention": False},
    "scaled middle": TWO | {"mid_block_scale_factor": 3.0},
    "groups of the middle's attention": TWO | {"attn_norm_num_groups": 2},
    "another time embedding": TWO | {"time_embedding_dim": 48},
    "another activation": TWO | {"act_fn": "mish"},
    "one colour": TWO | {"colours": 1},
}


def published(options: dict) -> dict:
    """Our options as diffusers names them."""
    out = {k: v for k, v in options.items() if k not in ("size", "colours", "classes")}
    colours = options.get("colours", 3)
    out |= {"sample_size": options["size"], "in_channels": colours, "out_channels": colours}
    if options.get("classes"):
        out.setdefault("num_class_embeds", options["classes"])
    return out


def theirs(options: dict):
    """diffusers' own module with weights that leave nothing at zero."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(**published(options)).eval().requires_grad_(False)
    for name, value in net.named_parameters():
        if name.endswith("bias") or "norm" in name:
            value.add_(0.1 * torch.randn_like(value))
    return net


def ours(options: dict, weights: dict[str, torch.Tensor]) -> UNet2D:
    with torch.device("meta"):
        net = UNet2D(from_dict(UNet2DOptions, options))
    net.load_state_dict(weights, assign=True)
    return net.float().eval().requires_grad_(False)  # as network_of has it


def inputs(options: dict, count: int = 2):
    size, colours = options["size"], options.get("colours", 3)
    x = torch.randn(count, colours, size, size, generator=torch.Generator().manual_seed(1))
    if options.get("time_embedding_type") == "fourier":
        return x, torch.tensor([0.013, 37.5, 1.0][:count])
    return x, torch.tensor([3.25, 871.0, 0.0][:count])


def their_answer(net, x: torch.Tensor, label: torch.Tensor, y: torch.Tensor | None = None):
    """What diffusers' network says, without the division by sigma."""
    answer = net(x, label, class_labels=y).sample
    fourier = net.config.time_embedding_type == "fourier"
    return answer * label[:, None, None, None] if fourier else answer


def difference(answer: torch.Tensor, wanted: torch.Tensor) -> float:
    assert answer.shape == wanted.shape
    return float((answer - wanted).std() / wanted.std())


# -- the same answers ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NARROW, *VARIANTS])
def test_answers_are_those_of_diffusers(name):
    options = (NARROW | VARIANTS)[name]
    reference = theirs(options)
    net = ours(options, reference.state_dict())
    x, label = inputs(options)
    assert difference(net(x, label), their_answer(reference, x, label)) < 2e-5


@pytest.mark.parametrize("rows", [3, 4])
def test_classes_are_those_of_diffusers(rows):
    options = TWO | {"classes": 3, "num_class_embeds": rows}
    reference = theirs(options)
    net = ours(options, reference.state_dict())
    (x, label), y = inputs(options), torch.tensor([2, 0])
    assert difference(net(x, label, y), their_answer(reference, x, label, y)) < 2e-5


@pytest.mark.parametrize("name", ["ncsnpp-ffhq-1024", "ddpm-cifar10-32"])
def test_bfloat16_is_close_to_float32(name):
    options = NARROW[name]
    reference = theirs(options)
    net = ours(options, reference.state_dict())
    x, label = inputs(options)
    exact = their_answer(reference, x, label)
    with torch.autocast("cpu", torch.bfloat16):
        rough, their_rough = net(x, label), their_answer(reference, x, label)
    assert rough.dtype == torch.float32
    # bfloat16 has eight bits; a few layers deep that is a few percent of the spread.
    assert difference(rough, exact) < min(0.03, 1.2 * difference(their_rough.float(), exact))


@pytest.mark.parametrize("name", ["ncsnpp-ffhq-1024", "ddpm-cifar10-32"])
def test_gradients_are_those_of_diffusers(name):
    options = NARROW[name]
    reference = theirs(options).train().requires_grad_(True)
    net = ours(options, {k: v.clone() for k, v in reference.state_dict().items()})
    net.train().requires_grad_(True)
    x, label = inputs(options, 1)
    for f in (lambda: net(x, label), lambda: their_answer(reference, x, label)):
        f().square().mean().backward()
    wanted = {k: v.grad for k, v in reference.named_parameters()}
    found = {k: v.grad for k, v in net.named_parameters()}
    assert found.keys() == wanted.keys() - {"time_proj.weight"}  # never trained: no parameter
    names = sorted(found)
    flat = [torch.cat([grads[k].flatten() for k in names]) for grads in (found, wanted)]
    assert float((flat[0] - flat[1]).norm() / flat[1].norm()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("options", [TWO, TWO_SKIPS], ids=["plain", "skip"])
def test_a_compiled_network_is_one_graph_with_the_same_answers(options):
    # One graph: nothing in it waits for the value of a tensor.
    options = options | {"classes": 2}
    net = ours(options, theirs(options).state_dict())
    (x, label), y = inputs(options), torch.tensor([1, 0])
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, label, y), net(x, label, y))


@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize("options", [TWO, TWO_SKIPS], ids=["plain", "skip"])
def test_nothing_waits_for_the_value_of_a_tensor(options, rows):
    options = options | {"classes": 2, "num_class_embeds": rows}
    with FakeTensorMode():  # these tensors have no values; to ask for one is an error
        net = UNet2D(from_dict(UNet2DOptions, options))
        x, label, y = torch.zeros(2, 3, 8, 8), torch.ones(2), torch.zeros(2, dtype=torch.long)
        assert net(x, label, y).shape == x.shape


def test_an_answer_does_not_depend_on_batch_mates():
    options = NARROW["ddpm-cifar10-32"]
    net = ours(options, theirs(options).state_dict())
    x, label = inputs(options, 3)
    torch.testing.assert_close(net(x[:1], label[:1]), net(x, label)[:1], rtol=1e-5, atol=1e-5)


# -- the published configurations ---------------------------------------------------------------


@pytest.mark.parametrize("options", [NCSNPP_256, FFHQ_1024, DDPM_256, DDPM_CIFAR10])
def test_tensors_have_the_names_and_shapes_of_diffusers(options):
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        wanted = diffusers.UNet2DModel(**published(options)).state_dict()
        found = build("unet2d", options).state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}


@pytest.mark.parametrize(
    ("options", "millions"), [(NCSNPP_256, 65.6), (DDPM_CIFAR10, 35.7), (DDPM_256, 113.7)]
)
def test_the_published_sizes(options, millions):
    with torch.device("meta"):
        net = build("unet2d", options)
    count = sum(v.numel() for v in net.state_dict().values())
    assert round(count / 1e6, 1) == millions


def test_the_tables_of_a_network_built_without_memory_are_there():
    for options in (DDPM_CIFAR10, NCSNPP_256):
        with torch.device("meta"):
            net = build("unet2d", options)
        held = {k: v.device.type for k, v in net.named_buffers() if k != "time_proj.weight"}
        assert set(held.values()) == {"cpu"}


def test_weights_lie_as_the_processor_reads_them_and_keep_their_values():
    reference = theirs(TWO).state_dict()
    net = ours(TWO, reference)
    assert net.up_blocks[0].resnets[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(v, reference[k]) for k, v in net.state_dict().items())


# -- classes ------------------------------------------------------------------------------------


def test_without_a_row_for_any_class_one_must_be_given():
    options = TWO | {"classes": 2}
    net = ours(options, theirs(options).state_dict())
    x, label = inputs(options)
    with pytest.raises(SpecError, match="class"):
        net(x, label)
    answer = net(x, label, torch.tensor([-1, 1]))
    assert bool(answer[0].isnan().all())
    assert bool(answer[1].isfinite().all())


def test_a_row_more_stands_for_any_class():
    options = TWO | {"classes": 2, "num_class_embeds": 3}
    net = ours(options, theirs(options).state_dict())
    x, label = inputs(options)
    last = net(x, label, torch.tensor([2, 2]))
    torch.testing.assert_close(net(x, label), last)
    torch.testing.assert_close(net(x, label, torch.tensor([-1, -1])), last)


# -- options that make no sense -----------------------------------------------------------------

NONSENSE = [
    ("size", 7, "divides"),
    ("size", 10**9, "divides"),
    ("size", "big", "size"),
    ("colours", 2, "channels"),
    ("classes", -1, "classes"),
    ("classes", 10**7, "classes"),
    ("num_class_embeds", 5, "classes"),
    ("block_out_channels", [], "stages"),
    ("block_out_channels", [32] * 40, "stages"),
    ("block_out_channels", [32, 10**9], "channels"),
    ("block_out_channels", [32, 0], "channels"),
    ("block_out_channels", [32, 48], "groups"),
    ("block_out_channels", [32], "block type"),
    ("layers_per_block", 0, "blocks"),
    ("layers_per_block", 10**6, "blocks"),
    ("down_block_types", ["DownBlock2D"], "block type"),
    ("down_block_types", ["DownBlock2D", "KDownBlock2D"], "KDownBlock2D"),
    ("up_block_types", ["CrossAttnUpBlock2D", "UpBlock2D"], "CrossAttnUpBlock2D"),
    ("up_block_types", ["SkipUpBlock2D", "UpBlock2D"], "last on the way up"),
    ("mid_block_type", "UNetMidBlock2DCrossAttn", "mid_block_type"),
    ("mid_block_scale_factor", 0.0, "mid_block_scale_factor"),
    ("mid_block_scale_factor", float("nan"), "mid_block_scale_factor"),
    ("time_embedding_type", "learned", "learned"),
    ("time_embedding_dim", 10**9, "time_embedding_dim"),
    ("time_embedding_dim", 0, "time_embedding_dim"),
    ("freq_shift", 16, "freq_shift"),
    ("freq_shift", float("nan"), "freq_shift"),
    ("downsample_padding", 2, "downsample_padding"),
    ("downsample_type", "k", "downsample_type"),
    ("upsample_type", "fir", "upsample_type"),
    ("resnet_time_scale_shift", "spatial", "spatial"),
    ("class_embed_type", "timestep", "timestep"),
    ("act_fn", "exec", "act_fn"),
    ("norm_num_groups", 7, "groups"),
    ("norm_num_groups", 0, "norm_num_groups"),
    ("norm_num_groups", None, "skip block"),
    ("attn_norm_num_groups", 5, "groups"),
    ("attention_head_dim", 65, "attention_head_dim"),
    ("attention_head_dim", 0, "attention_head_dim"),
    ("norm_eps", 0.0, "norm_eps"),
    ("norm_eps", float("inf"), "norm_eps"),
    ("dropout", 1.0, "dropout"),
    ("dropout", float("nan"), "dropout"),
    ("wings", 2, "wings"),
]


@pytest.mark.parametrize(("name", "value", "word"), NONSENSE, ids=range(len(NONSENSE)))
def test_options_that_make_no_sense_are_refused_in_words(name, value, word):
    with pytest.raises(CheckpointError, match=word), torch.device("meta"):
        build("unet2d", TWO | {name: value})


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"colours": 1}, "3 channels"),
        ({"block_out_channels": (32, 2)}, "groups"),
        ({"block_out_channels": (32, 48)}, "groups"),
        ({"down_block_types": ("DownBlock2D", "SkipDownBlock2D")}, "skip block"),
    ],
)
def test_skip_blocks_have_rules_of_their_own(more, word):
    with pytest.raises(CheckpointError, match=word), torch.device("meta"):
        build("unet2d", TWO_SKIPS | more)


def test_a_skip_block_below_a_plain_one_is_refused():
    three = TWO | {"block_out_channels": (32, 32, 32), "up_block_types": ("UpBlock2D",) * 3}
    types = ("DownBlock2D", "SkipDownBlock2D", "DownBlock2D")
    with pytest.raises(CheckpointError, match="first on the way down"):
        build("unet2d", three | {"down_block_types": types})
