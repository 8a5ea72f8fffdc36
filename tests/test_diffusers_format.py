"""Folders of diffusers open in every layout, agree with diffusers, or are refused in words."""

from __future__ import annotations

import atexit
import copy
import functools
import json
import os
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.diffusion.predictors import PREDICTORS
from studio.errors import CheckpointError
from studio.weights.formats import open_model, recognise
from studio.weights.formats.diffusers import Diffusers
from studio.weights.shelf import Shelf

diffusers = pytest.importorskip("diffusers")

STEPS = [0, 10, 500, 999]
SMALL = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
}
SKIPS = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "time_embedding_type": "fourier",
    "center_input_sample": True,
    "norm_num_groups": None,
    "norm_eps": 1e-6,
    "mid_block_scale_factor": 2**0.5,
    "attention_head_dim": None,
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D"),
    "up_block_types": ("AttnSkipUpBlock2D", "SkipUpBlock2D"),
}


@functools.cache
def network(**changes: Any) -> Any:
    torch.manual_seed(1)
    return diffusers.UNet2DModel(**(SMALL | changes)).eval().requires_grad_(False)


def pipeline(scheduler: Any = None, **changes: Any) -> Any:
    return diffusers.DDPMPipeline(network(**changes), scheduler or diffusers.DDPMScheduler())


@functools.cache
def saved() -> Path:
    """A folder to copy: saving takes longer."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    pipeline().save_pretrained(folder / "m")
    return folder / "m"


def nested(folder: Path, **kw: Any) -> Path:
    if kw:
        pipeline().save_pretrained(folder, **kw)
    else:
        shutil.copytree(saved(), folder)
    return folder


def halved() -> Any:
    half = copy.deepcopy(network()).half()
    return diffusers.DDPMPipeline(half, diffusers.DDPMScheduler())


def flat(folder: Path, **kw: Any) -> Path:
    """As google/ddpm-* and google/ncsnpp-* are: everything at the root."""
    nested(folder, **kw)
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    return folder


def edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    data |= {k: v for k, v in changes.items() if v is not ...}
    for k in [k for k, v in changes.items() if v is ...]:
        data.pop(k, None)
    path.write_text(json.dumps(data))


def rewrite(folder: Path, change: Any) -> None:
    """The weights again, after `change`."""
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v.contiguous() for k, v in change(load_file(path)).items()}, path)


def assert_agrees(path: Path, net: Any = None, scheduler: Any = None, off: float = 1e-4) -> None:
    """Our score is minus the noise that their network finds, over the deviation their betas give."""
    net, scheduler = net or network(), scheduler or diffusers.DDPMScheduler()
    score = open_model(path).score()
    x = torch.randn(2, *score.shape, generator=torch.Generator().manual_seed(3))
    count = scheduler.config.num_train_timesteps
    # From their betas, but in double: 1 - alpha-bar has lost four digits in their own table.
    bars = (1 - scheduler.betas.double()).cumprod(0)
    for step in sorted({step * count // 1000 for step in STEPS}):
        t = torch.full((2,), (step + 1) / count)
        bar = bars[step]
        answer = net(x, step).sample.double()
        kind = scheduler.config.prediction_type
        if kind == "sample":
            answer = (x - bar.sqrt() * answer) / (1 - bar).sqrt()
        elif kind == "v_prediction":
            answer = (1 - bar).sqrt() * x + bar.sqrt() * answer
        wanted = -answer / (1 - bar).sqrt()
        worst = (score(x, t).double() - wanted).abs().max() / wanted.abs().max()
        assert float(worst) < off, f"step {step}: {float(worst):.2g}"


# -- layouts ------------------------------------------------------------------------------------


def test_nested(tmp_path):
    assert_agrees(nested(tmp_path / "m"))


def test_flat(tmp_path):
    assert_agrees(flat(tmp_path / "m"))


def test_pickled(tmp_path):
    opened = open_model(nested(tmp_path / "m", safe_serialization=False))
    assert "diffusion_pytorch_model.bin" in opened.read().notes[0]
    assert_agrees(tmp_path / "m")


def test_flat_and_pickled(tmp_path):
    assert_agrees(flat(tmp_path / "m", safe_serialization=False))


def test_safetensors_go_before_a_pickle(tmp_path):
    folder = nested(tmp_path / "m")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"no pickle")
    assert_agrees(folder)


def test_variant(tmp_path):
    folder = tmp_path / "m"
    halved().save_pretrained(folder, variant="fp16")
    assert "half precision" in " ".join(open_model(folder).read().notes)
    assert_agrees(folder, off=2e-2)
    assert_agrees(folder, copy.deepcopy(network()).half().float())


def test_full_precision_goes_before_a_variant(tmp_path):
    nested(tmp_path / "m")
    halved().save_pretrained(tmp_path / "m", variant="fp16")
    assert_agrees(tmp_path / "m")


@pytest.mark.parametrize("safe", [True, False])
def test_sharded(tmp_path, safe):
    folder = tmp_path / "m"
    pipeline().save_pretrained(folder, max_shard_size="20KB", safe_serialization=safe)
    assert len(list((folder / "unet").glob("*-of-*"))) > 2
    assert_agrees(folder)


def test_averaged_weights_are_preferred(tmp_path):
    folder = tmp_path / "m"
    averaged = network()
    ema = diffusers.training_utils.EMAModel(
        averaged.parameters(), model_cls=diffusers.UNet2DModel, model_config=averaged.config
    )
    ema.optimization_step = 77
    nested(folder)
    rewrite(folder, lambda state: {k: v * 0 for k, v in state.items()})
    ema.save_pretrained(folder / "unet_ema")
    opened = open_model(folder)
    assert any("unet_ema" in note for note in opened.notes)
    assert opened.info.steps == 77
    assert_agrees(folder)


def test_network_folder_alone(tmp_path):
    nested(tmp_path / "m")
    shutil.move(tmp_path / "m" / "unet", tmp_path / "alone")
    opened = open_model(tmp_path / "alone")
    assert any("no scheduler" in note for note in opened.notes)
    assert_agrees(tmp_path / "alone")


@pytest.mark.parametrize(
    "inside", ["unet", "model_index.json", "unet/diffusion_pytorch_model.safetensors"]
)
def test_parts_of_a_folder_open_the_whole(tmp_path, inside):
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    pipeline(scheduler).save_pretrained(tmp_path / "m")
    assert_agrees(tmp_path / "m" / inside, scheduler=scheduler)


def test_the_cache_of_the_hub_with_its_links(tmp_path):
    nested(tmp_path / "m")
    folder = tmp_path / "models--someone--kittens" / "snapshots" / "0123abcd"
    blobs = folder.parent.parent / "blobs"
    blobs.mkdir(parents=True)
    for i, file in enumerate(p for p in (tmp_path / "m").rglob("*") if p.is_file()):
        link = folder / file.relative_to(tmp_path / "m")
        link.parent.mkdir(parents=True, exist_ok=True)
        file.rename(blobs / str(i))
        link.symlink_to(os.path.relpath(blobs / str(i), link.parent))
    assert open_model(folder).name == "kittens"
    assert_agrees(folder)


def test_it_stands_on_the_shelf_without_its_weights_being_read(tmp_path):
    nested(tmp_path / "shelf" / "m")
    for file in (tmp_path / "shelf" / "m" / "unet").glob("*.safetensors"):
        file.write_bytes(b"")
    (entry,) = Shelf([tmp_path / "shelf"]).entries()
    assert entry.info is not None
    assert (entry.info.size, entry.info.network, entry.problem) == (8, "unet2d", "")


# -- old files ----------------------------------------------------------------------------------

OLD_FIELDS = {
    "image_size": 8,
    "num_res_blocks": 1,
    "block_channels": [8, 16],
    "down_blocks": ["UNetResDownBlock2D", "UNetResAttnDownBlock2D"],
    "up_blocks": ["UNetResAttnUpBlock2D", "UNetResUpBlock2D"],
    "downscale_freq_shift": 0,
    "resnet_num_groups": 4,
    "resnet_act_fn": "silu",
    "resnet_eps": 1e-5,
    "num_head_channels": 8,
}
NEW_FIELDS = (
    *("sample_size", "layers_per_block", "block_out_channels", "down_block_types"),
    *("up_block_types", "freq_shift", "norm_num_groups", "act_fn", "norm_eps"),
    "attention_head_dim",
)


def with_old_names(state: dict[str, Any], square: bool) -> dict[str, Any]:
    out = {}
    for name, tensor in state.items():
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v")):
            name = name.replace(new, old)
        name = name.replace("to_out.0", "proj_attn")
        if square and ".attentions." in name and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        out[name] = tensor
    return out


@pytest.mark.parametrize("square", [False, True])
def test_old_names_of_attention(tmp_path, square):
    nested(tmp_path / "m")
    rewrite(tmp_path / "m", lambda state: with_old_names(state, square))
    assert any("renamed" in note for note in open_model(tmp_path / "m").read().notes)
    assert_agrees(tmp_path / "m")


@pytest.mark.parametrize(
    ("kind", "pipe"),
    [
        ("UNet2DModel", "PNDMPipeline"),
        ("UNetUnconditionalModel", "DDIMPipeline"),
        ("NCSNpp", "DDPMPipeline"),
    ],
)
def test_old_fields_blocks_classes_and_stems(tmp_path, kind, pipe):
    folder = nested(tmp_path / "m")
    edit(folder / "unet" / "config.json", _class_name=kind, **dict.fromkeys(NEW_FIELDS, ...))
    edit(folder / "unet" / "config.json", **OLD_FIELDS)
    edit(folder / "model_index.json", _class_name=pipe, unet=["diffusers", kind])
    stems = {"mid_block": "mid", "down_blocks": "downsample_blocks", "up_blocks": "upsample_blocks"}

    def older(state):
        state = with_old_names(state, False)
        for new, old in stems.items():
            state = {
                (old + k[len(new) :] if k.startswith(new + ".") else k): v for k, v in state.items()
            }
        return state

    rewrite(folder, older)
    assert_agrees(folder)


def test_sizes_as_pairs(tmp_path):
    folder = nested(tmp_path / "m")
    edit(folder / "unet" / "config.json", sample_size=[8, 8])
    assert_agrees(folder)


# -- schedulers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "answer"),
    [
        ("linear", "sample"),
        ("scaled_linear", "v_prediction"),
        ("squaredcos_cap_v2", "epsilon"),
        ("sigmoid", "epsilon"),
    ],
)
def test_answers_and_schedules(tmp_path, answer, schedule):
    scheduler = diffusers.DDPMScheduler(beta_schedule=schedule, prediction_type=answer)
    pipeline(scheduler).save_pretrained(tmp_path / "m")
    assert_agrees(tmp_path / "m", scheduler=scheduler)


@pytest.mark.parametrize("count", [50, 400])
def test_other_numbers_of_steps(tmp_path, count):
    scheduler = diffusers.DDPMScheduler(count, beta_end=0.05)
    pipeline(scheduler).save_pretrained(tmp_path / "m")
    assert_agrees(tmp_path / "m", scheduler=scheduler)


def test_trained_betas(tmp_path):
    betas = (torch.rand(100, generator=torch.Generator().manual_seed(0)) * 0.1 + 1e-4).tolist()
    scheduler = diffusers.DDPMScheduler(100, trained_betas=betas)
    pipeline(scheduler).save_pretrained(tmp_path / "m")
    assert_agrees(tmp_path / "m", scheduler=scheduler)


def score_sde(folder: Path, corrections: int = 1) -> tuple[Path, Any]:
    torch.manual_seed(2)
    net = diffusers.UNet2DModel(**SKIPS).eval().requires_grad_(False)
    scheduler = diffusers.ScoreSdeVeScheduler(
        1000, snr=0.075, sigma_max=348.0, correct_steps=corrections
    )
    diffusers.ScoreSdeVePipeline(net, scheduler).save_pretrained(folder)
    return folder, net


def test_score_sde_ve_has_the_network_s_answer_as_score(tmp_path):
    folder, net = score_sde(tmp_path / "m")
    opened = open_model(folder)
    assert opened.info.value_range == (0.0, 1.0)
    assert "0.075" in opened.notes[0]
    score = opened.score()
    for sigma in (0.01, 0.3, 5.0, 348.0):
        level = torch.full((2,), sigma)
        x = torch.rand(2, 3, 16, 16) + sigma * torch.randn(2, 3, 16, 16)
        wanted = net(x, level).sample
        ours = score(x, score.sde.time(level))
        assert float((ours - wanted).abs().max() / wanted.abs().max()) < 1e-4


def test_score_sde_weights_under_two_names(tmp_path):
    folder, _ = score_sde(tmp_path / "m")
    rewrite(folder, lambda state: state | {"time_proj.W": state["time_proj.weight"].clone()})
    weights = open_model(folder).read()
    assert weights.left == ("time_proj.W",)
    rewrite(folder, lambda s: {k: v for k, v in s.items() if k != "time_proj.weight"})
    open_model(folder).network()


# -- sampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "answer"),
    [
        ("linear", "epsilon"),
        pytest.param("squaredcos_cap_v2", "epsilon", marks=pytest.mark.slow),
        pytest.param("scaled_linear", "v_prediction", marks=pytest.mark.slow),
    ],
)
def test_fifty_steps_of_ddim_make_the_same_picture(tmp_path, schedule, answer):
    scheduler = diffusers.DDIMScheduler(
        beta_schedule=schedule, prediction_type=answer, clip_sample=False
    )
    pipeline(scheduler).save_pretrained(tmp_path / "m")
    net, score = network(), open_model(tmp_path / "m").score()
    start = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    scheduler.set_timesteps(50)
    theirs = start
    for step in scheduler.timesteps:
        theirs = scheduler.step(net(theirs, step).sample, step, theirs, eta=0.0).prev_sample
    # DDIM is Euler's step of the flow in sigma; after its last level comes the picture itself.
    euler, x = PREDICTORS["euler"](), start
    times = [(int(step) + 1) / 1000 for step in scheduler.timesteps]
    for t, s in pairwise(times):
        at = torch.full((2,), t), torch.full((2,), s)
        x = euler.step(score, x, *at, lambda: torch.zeros_like(start), None).x
    ours = score.denoised(x, torch.full((2,), times[-1]))
    off = float((ours - theirs).abs().max())
    assert off < 1e-3 * max(1.0, float(theirs.abs().max()))


# -- refusals -----------------------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Diffusers().open(path).network()
    assert caught.value.hint or "only square" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"vae": ["diffusers", "AutoencoderKL"]}, "latents"),
        ({"vqvae": ["diffusers", "VQModel"]}, "latents"),
        ({"text_encoder": ["transformers", "CLIPTextModel"]}, "text"),
        ({"unet": ["diffusers", "UNet2DConditionModel"]}, "text"),
        ({"transformer": ["diffusers", "DiTTransformer2DModel"]}, "transformer"),
        ({"unet": ["diffusers", "OnnxRuntimeModel"]}, "ONNX"),
        ({"unet": ["diffusers", "FlaxUNet2DConditionModel"]}, "text"),
        ({"unet": ["my_network", "UNet2DModel"]}, "program code"),
        ({"unet": ["diffusers", "MyNetwork"]}, "MyNetwork"),
    ],
)
def test_other_pipelines_are_refused_with_the_reason(tmp_path, parts, words):
    folder = nested(tmp_path / "m")
    edit(folder / "model_index.json", **parts)
    assert words in refused(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"in_channels": 4, "out_channels": 4}, "latents"),
        ({"out_channels": 6}, "variance"),
        ({"in_channels": 2, "out_channels": 2}, "2 channels"),
        ({"sample_size": [8, 16]}, "square"),
        ({"sample_size": None}, "sample_size"),
        ({"sample_size": "large"}, "sample_size"),
        ({"sample_size": 1e308}, "sample_size"),
        ({"num_class_embeds": -3}, "classes"),
        ({"down_block_types": ["DownBlock2D", "KDownBlock2D"]}, "KDownBlock2D"),
        ({"time_embedding_type": "learned"}, "sigma"),
        ({"block_out_channels": [8, 24]}, "do not fit"),
        ({"layers_per_block": 2}, "missing"),
        ({"layers_per_block": [[[]]]}, "layers_per_block"),
        ({"add_attention": False}, "without a place"),
    ],
)
def test_other_networks_are_refused_with_the_reason(tmp_path, changes, words):
    folder = nested(tmp_path / "m")
    edit(folder / "unet" / "config.json", **changes)
    with pytest.raises(CheckpointError) as caught:
        open_model(folder).network()
    assert words in str(caught.value)


def test_fourier_networks_need_their_scheduler(tmp_path):
    folder, _ = score_sde(tmp_path / "m")
    shutil.rmtree(folder / "scheduler")
    assert "scheduler_config.json" in refused(folder)


def test_a_missing_and_a_strange_tensor_are_named(tmp_path):
    folder = nested(tmp_path / "m")

    def change(state):
        del state["conv_in.bias"]
        return state | {"stranger.weight": torch.zeros(1)}

    rewrite(folder, change)
    message = refused(folder)
    assert "conv_in.bias" in message
    assert "stranger.weight" in message


@pytest.mark.parametrize("where", ["../secret.safetensors", "/etc/passwd", "link.safetensors"])
def test_an_index_that_points_outside_is_refused(tmp_path, where):
    folder = tmp_path / "m"
    pipeline().save_pretrained(folder, max_shard_size="20KB")
    secret = folder / "secret.safetensors"
    save_file({"conv_in.bias": torch.zeros(8)}, secret)
    (folder / "unet" / "link.safetensors").symlink_to(secret)
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"]["conv_in.bias"] = where
    index.write_text(json.dumps(data))
    assert "outside" in refused(folder)


def test_weights_that_link_outside_are_refused(tmp_path):
    folder = nested(tmp_path / "m")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert "outside" in refused(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"a":' * 50_000, "\x00", "NaN"])
@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json"])
def test_damaged_descriptions_are_refused(tmp_path, name, text):
    folder = nested(tmp_path / "m")
    (folder / name).write_text(text)
    assert recognise(folder) is not None
    with pytest.raises(CheckpointError):
        Diffusers().open(folder)


def test_a_description_without_end_is_not_read(tmp_path):
    folder = nested(tmp_path / "m")
    with (folder / "model_index.json").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(CheckpointError, match="too long"):
        Diffusers().open(folder)


def test_missing_weights_and_other_forms_are_told_apart(tmp_path):
    folder = nested(tmp_path / "m")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert "no weights" in refused(folder)
    (folder / "unet" / "diffusion_flax_model.msgpack").touch()
    assert "Flax" in refused(folder)


def test_folders_of_other_programs_are_not_claimed(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": []}')
    (tmp_path / "model.bin").touch()
    assert not Diffusers().claims(tmp_path)
    assert not Diffusers().claims(tmp_path / "model.bin")
    assert not Diffusers().claims(tmp_path / "nothing")


def test_classes_have_names(tmp_path):
    pipeline(num_class_embeds=3).save_pretrained(tmp_path / "m")
    opened = open_model(tmp_path / "m")
    assert opened.info.classes == ("class 0", "class 1", "class 2")
    x, t = torch.randn(2, 3, 8, 8), torch.full((2,), 0.501)
    score = opened.score().labelled(torch.tensor([0, 2]))
    answer = network(num_class_embeds=3)(x, 500, class_labels=torch.tensor([0, 2])).sample
    s = score.sde.marginal(t)[1][0]
    torch.testing.assert_close(score(x, t), -answer / s, rtol=1e-4, atol=1e-4)
