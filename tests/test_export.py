"""Any model leaves as a folder that diffusers opens and samples from, and comes back as it was."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_OPTIONS, tiny_network

from studio.diffusion.score import OUTPUTS, Published, expand
from studio.diffusion.sde import VESDE, VPSDE, SubVPSDE, TableVPSDE
from studio.errors import CheckpointError, SaveError
from studio.networks.catalog import NETWORKS, build
from studio.weights.formats import open_model
from studio.weights.formats.export import export
from studio.weights.formats.source import module_text
from studio.weights.model import ModelInfo, Opened, Weights

UNET2D: dict[str, Any] = {
    "size": 8,
    "colours": 3,
    "classes": 0,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
STEPS = (0, 40, 999)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def diffusers(tmp_path, monkeypatch):
    library = pytest.importorskip("diffusers")
    from diffusers.utils import dynamic_modules_utils

    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    library.utils.logging.disable_progress_bar()
    return library


def opened(info: ModelInfo, net: Any = None, name: str = "small") -> Opened:
    torch.manual_seed(4)
    net = net or build(info.network, info.options)
    return Opened(name, "test", info, lambda: Weights(net.state_dict()))


def unet2d(sde: Any, output: Any, **changes: Any) -> Opened:
    kept = {k: changes.pop(k) for k in ("value_range", "classes") if k in changes}
    options = UNET2D | {"classes": len(kept.get("classes", ()))} | changes
    return opened(ModelInfo(sde, output, "unet2d", options, options["size"], **kept))


def tiny(sde: Any, output: Any = None, classes: tuple[str, ...] = ("cat", "dog"), **kw) -> Opened:
    options = TINY_OPTIONS | {"classes": len(classes)}
    output = output or OUTPUTS["edm"]()
    info = ModelInfo(sde, output, "unet", options, 8, classes=classes, **kw)
    return opened(info, tiny_network(classes=len(classes)))


def pipeline_of(diffusers: Any, model: Opened, folder: Path, trust: bool) -> Any:
    made = export(model, folder)
    pipe = diffusers.DiffusionPipeline.from_pretrained(made, trust_remote_code=trust)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def assert_same_noise(pipe: Any, model: Opened, labels: Any = None, steps: Any = STEPS) -> None:
    """At each step their state stands for one of ours, and both see the same noise in it."""
    info, score = model.info, model.score()
    score = score if labels is None else score.labelled(labels)
    bars = (1 - torch.tensor(pipe.scheduler.config.trained_betas, dtype=torch.float64)).cumprod(0)
    low, high = info.value_range
    clean = torch.rand(2, 3, info.size, info.size, dtype=torch.float64) * (high - low) + low
    z = torch.randn_like(clean)
    for step in steps:
        t = torch.full((2,), (step + 1) / len(bars), dtype=torch.float64)
        a, s = (expand(v, clean) for v in info.sde.marginal(t))
        ours = (a * clean + s * z).float()
        pixels = (clean - (low + high) / 2) / ((high - low) / 2)
        theirs = bars[step].sqrt() * pixels + (1 - bars[step]).sqrt() * z
        wanted = -score(ours, t.float()) * s.float()
        found = pipe.unet(theirs.float(), step, class_labels=labels).sample
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-4, step


# -- networks that diffusers has ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("sde", "predicts"),
    [
        (TableVPSDE(), "noise"),
        (TableVPSDE("squaredcos_cap_v2", steps=100), "velocity"),
        (TableVPSDE(betas=(0.01,) * 40), "picture"),
    ],
)
def test_ddpm_models_need_no_code(diffusers, tmp_path, sde, predicts):
    model = unet2d(sde, Published(predicts, "time", float(sde.count), -1.0))
    pipe = pipeline_of(diffusers, model, tmp_path / "out", trust=False)
    assert type(pipe.unet) is diffusers.UNet2DModel
    score, x = model.score(), torch.randn(2, 3, 8, 8)
    for step in (0, sde.count // 2, sde.count - 1):
        answer = pipe.unet(x, step).sample.double()
        _, clean = pipe.scheduler.step(answer, step, x.double(), return_dict=False)
        ours = score.denoised(x, torch.full((2,), (step + 1) / sde.count)).double()
        # Their tables are in single precision: the first step has few digits of its noise.
        scale = float(ours.abs().max())
        torch.testing.assert_close(clean, ours, rtol=0, atol=2e-3 * scale)
    assert not list((tmp_path / "out").rglob("*.py"))


def test_continuous_vp_models_become_a_table_of_steps(diffusers, tmp_path):
    model = unet2d(VPSDE(), Published("noise", "time", 999.0))
    pipe = pipeline_of(diffusers, model, tmp_path / "out", trust=False)
    steps = torch.arange(1, 1000)
    a, _ = VPSDE().marginal(steps.double() / 999)
    bars = (1 - pipe.scheduler.betas.double()).cumprod(0)
    torch.testing.assert_close(bars[1:], a**2, rtol=2e-5, atol=0)
    score, x = model.score(), torch.randn(2, 3, 8, 8)
    for step in (1, 500, 999):
        t = torch.full((2,), step / 999)
        noise = -score(x, t) * expand(VPSDE().marginal(t)[1], x)
        torch.testing.assert_close(pipe.unet(x, step).sample, noise, rtol=1e-4, atol=1e-4)
    assert pipe(num_inference_steps=3, output_type="np").images.shape == (1, 8, 8, 3)


def test_ve_models_go_with_score_sde(diffusers, tmp_path):
    model = unet2d(
        VESDE(0.01, 348.0),
        Published("minus_noise", "sigma"),
        value_range=(0.0, 1.0),
        time_embedding_type="fourier",
        center_input_sample=True,
    )
    pipe = pipeline_of(diffusers, model, tmp_path / "out", trust=False)
    assert type(pipe.scheduler) is diffusers.ScoreSdeVeScheduler
    score = model.score()
    for sigma in (0.01, 1.0, 300.0):
        level = torch.full((2,), sigma)
        x = sigma * torch.randn(2, 3, 8, 8)
        theirs, ours = pipe.unet(x, level).sample, score(x, score.sde.time(level))
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-4
    assert pipe(num_inference_steps=3, output_type="np").images.shape == (1, 8, 8, 3)


def test_what_came_from_diffusers_goes_back_as_it_was(diffusers, tmp_path):
    net = diffusers.UNet2DModel(
        8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, norm_eps=1e-6,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=None,
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), freq_shift=1, flip_sin_to_cos=False,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(beta_schedule="scaled_linear")
    diffusers.DDPMPipeline(net, scheduler).save_pretrained(tmp_path / "in")
    back = pipeline_of(diffusers, open_model(tmp_path / "in"), tmp_path / "out", trust=False)
    assert all(torch.equal(v, back.unet.state_dict()[k]) for k, v in net.state_dict().items())
    for name in (k for k in net.config if not k.startswith("_")):
        was, now = net.config[name], back.unet.config[name]
        assert (list(was) if isinstance(was, tuple) else was) == now, name
    torch.testing.assert_close(back.scheduler.betas, scheduler.betas)


# -- networks that it has not -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sde", "value_range"),
    [
        (VPSDE(), (-1.0, 1.0)),
        (SubVPSDE(), (-1.0, 1.0)),
        (VESDE(), (0.0, 1.0)),
        (TableVPSDE(), (0.0, 1.0)),
        pytest.param(VPSDE(), (0.0, 1.0), marks=pytest.mark.slow),
        pytest.param(SubVPSDE(), (0.0, 1.0), marks=pytest.mark.slow),
        pytest.param(VESDE(), (-1.0, 1.0), marks=pytest.mark.slow),
    ],
)
def test_any_process_is_a_ddpm_process(diffusers, tmp_path, sde, value_range):
    model = tiny(sde, value_range=value_range)
    pipe = pipeline_of(diffusers, model, tmp_path / "out", trust=True)
    assert_same_noise(pipe, model)
    assert_same_noise(pipe, model, torch.tensor([1, 0]))
    images = pipe(batch_size=2, num_inference_steps=10, output_type="np").images
    assert images.shape == (2, 8, 8, 3)
    assert bool((images == images).all())


@pytest.mark.parametrize(
    "output",
    [
        *(cls() for name, cls in OUTPUTS.items() if name != "published"),
        *(Published(k, scale=1.0) for k in ("noise", "minus_noise", "score", "picture")),
        Published("velocity", "sigma"),
    ],
)
def test_any_output_is_a_noise(diffusers, tmp_path, output):
    model = tiny(VPSDE(), output, ())
    pipe = pipeline_of(diffusers, model, tmp_path / "out", trust=True)
    assert_same_noise(pipe, model)


def test_a_pipeline_draws_the_class_it_is_set_to(diffusers, tmp_path):
    model = tiny(VPSDE())
    pipe = pipeline_of(diffusers, model, tmp_path / "out", trust=True)
    x = torch.randn(2, 3, 8, 8)
    free, told = pipe.unet(x, 500).sample, pipe.unet(x, 500, torch.tensor([1, 1])).sample
    assert not torch.allclose(free, told)
    pipe.unet.class_label = 1
    assert torch.equal(pipe.unet(x, torch.tensor(500)).sample, told)


def test_between_steps_there_is_something_between(diffusers, tmp_path):
    pipe = pipeline_of(diffusers, tiny(VPSDE()), tmp_path / "out", trust=True)
    x = torch.randn(2, 3, 8, 8)
    low, middle, high = (pipe.unet(x, at, return_dict=False)[0] for at in (500, 500.5, 501))
    assert float((middle - (low + high) / 2).abs().max()) < float((high - low).abs().max())
    assert torch.equal(
        pipe.unet(x, torch.tensor([500.0, 501.0])).sample, torch.stack([low[0], high[1]])
    )


def test_its_code_runs_only_when_the_reader_says_so(diffusers, tmp_path):
    with pytest.raises(ValueError, match="trust_remote_code"):
        pipeline_of(diffusers, tiny(VPSDE()), tmp_path / "out", trust=False)


def test_diffusers_only_notes_that_the_class_is_not_its_own(diffusers, tmp_path, caplog):
    logging.getLogger("diffusers").propagate = True
    with caplog.at_level(logging.WARNING, "diffusers"):
        pipe = pipeline_of(diffusers, tiny(VPSDE()), tmp_path / "out", trust=True)
        pipe(num_inference_steps=2)
    told = [r.getMessage() for r in caplog.records if "low cpu memory" not in r.getMessage()]
    assert {m[:14] for m in told} == {"Expected types"}


#: For networks of other names their own defaults will do.
SMALL_NETWORKS: dict[str, dict[str, Any]] = {
    "unet": TINY_OPTIONS,
    "unet2d": UNET2D,
    "adm": {
        "size": 8,
        "width": 32,
        "channels": [32, 64],
        "blocks": 1,
        "attention": [1],
        "head_width": 32,
    },
    "ncsnpp": {"size": 8, "width": 8, "multipliers": [1, 2], "blocks": 1},
    "refinenet": {"size": 16, "width": 4},
}


@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_source_of_every_network_stands_alone(diffusers, name):
    kind, module = NETWORKS[name]
    text = module_text(module, kind)
    assert "import studio" not in text
    assert "from studio" not in text
    space: dict[str, Any] = {"__name__": "alone"}
    sys.modules["alone"] = type(sys)("alone")  # dataclasses look their module up
    try:
        exec(compile(text, f"{name}.py", "exec"), space)
        torch.manual_seed(0)
        ours = build(name, SMALL_NETWORKS.get(name, {})).eval()
        options = dataclasses.asdict(ours.options)
        alone = space[module.__name__](space[kind.__name__](**options)).eval()
    finally:
        del sys.modules["alone"]
    alone.load_state_dict(ours.state_dict())
    x = torch.randn(1, ours.options.colours, ours.options.size, ours.options.size)
    label = torch.ones(1)
    with torch.no_grad():
        assert torch.equal(alone(x, label, None), ours(x, label, None))


# -- back in the studio -------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), SubVPSDE()])
def test_exports_open_in_the_studio_as_they_were(tmp_path, sde):
    model = tiny(sde, value_range=(0.0, 1.0))
    again = open_model(export(model, tmp_path / "out"))
    assert (again.info, again.name) == (model.info, "out")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.2, 0.9])
    assert torch.equal(again.score()(x, t), model.score()(x, t))


def test_a_process_that_diffusers_only_knows_in_steps_comes_back_whole(tmp_path):
    model = unet2d(VPSDE(0.2, 15.0), Published("noise", "time", 999.0))
    again = open_model(export(model, tmp_path / "out"))
    assert again.info == model.info
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.2003, 0.9])
    assert torch.equal(again.score()(x, t), model.score()(x, t))


def test_a_damaged_description_is_refused(tmp_path):
    folder = export(tiny(VPSDE()), tmp_path / "out")
    (folder / "score_studio.json").write_text('{"model": {"size": "large"}}')
    with pytest.raises(CheckpointError):
        open_model(folder)


# -- the folder ---------------------------------------------------------------------------------


def test_nothing_but_an_earlier_export_is_overwritten(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    export(tiny(VPSDE()), folder)  # an empty folder is fine
    export(tiny(VESDE()), folder)
    assert open_model(folder).info.sde == VESDE()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").touch()
    for taken in (tmp_path / "photos", tmp_path / "photos" / "one.png"):
        with pytest.raises(SaveError):
            export(tiny(VPSDE()), taken)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "home") == ["out", "photos"]


def test_a_failed_export_leaves_the_earlier_one(tmp_path, monkeypatch):
    folder = export(tiny(VPSDE()), tmp_path / "out")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("studio.weights.formats.export._write_weights", full)
    with pytest.raises(SaveError, match="No space left"):
        export(tiny(VESDE()), folder)
    assert open_model(folder).info.sde == VPSDE()
    assert [p.name for p in tmp_path.iterdir() if p.name != "home"] == ["out"]


def test_a_model_exports_over_the_folder_it_was_read_from(tmp_path):
    folder = export(tiny(VPSDE()), tmp_path / "out")
    again = export(open_model(folder), folder)
    assert open_model(again).info.sde == VPSDE()


CARD = """---
license: cc-by-4.0
tags: [x]
---
# Cats

By **Someone**, CC BY 4.0.

```
# no heading
```
"""


def test_the_readme_says_how_to_open_it_and_keeps_the_credits(tmp_path):
    folder = export(tiny(VPSDE()), tmp_path / "out", CARD)
    text = (folder / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: diffusers\n")
    assert "license: cc-by-4.0\n" in text
    assert "trust_remote_code=True" in text
    assert "By **Someone**, CC BY 4.0." in text
    assert "### Cats" in text
    assert "\n# no heading" in text
    plain = export(unet2d(VPSDE(), Published()), tmp_path / "plain")
    assert "trust_remote_code" not in (plain / "README.md").read_text()


def test_all_its_json_is_plain(tmp_path):
    folder = export(tiny(SubVPSDE()), tmp_path / "out")
    for path in folder.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))
