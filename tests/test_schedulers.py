"""A scheduler's configuration says how a network was trained, or is refused with the reason."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import REPOSITORY

from studio.diffusion.score import Preconditioned, Published
from studio.diffusion.sde import VESDE, VPSDE, SubVPSDE, TableVPSDE
from studio.errors import CheckpointError
from studio.weights.formats.schedulers import DISCRETE, assumed, config_of, process_of


def of(name: str, embedding: str = "positional", **fields: Any) -> Any:
    return process_of({"_class_name": name, **fields}, embedding)


def refusal(name: Any, embedding: str = "positional", **fields: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        of(name, embedding, **fields)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of numpy, over their tables
@pytest.mark.parametrize("name", sorted(DISCRETE))
def test_every_scheduler_of_the_family_has_the_betas_of_diffusers(name):
    diffusers = pytest.importorskip("diffusers")
    cls = getattr(diffusers, name, None)
    if cls is None or getattr(cls, "_backends", None):
        pytest.skip(f"{name} needs a package that is not here")
    sde = of(name).sde
    bars = (1 - cls().betas.double()).cumprod(0)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(sde.marginal(t)[0] ** 2, bars, rtol=1e-5, atol=0)


def test_no_scheduler_of_diffusers_is_taken_for_another():
    """All that exist are read as what they are, or refused; none raises anything else."""
    diffusers = pytest.importorskip("diffusers")
    names = [n for n in dir(diffusers) if n.endswith("Scheduler") and not n.startswith("Flax")]
    read = set()
    for name in names:
        for embedding in ("positional", "fourier"):
            with contextlib.suppress(CheckpointError):
                of(name, embedding)
                read.add(name)
    assert read - set(DISCRETE) == {"ScoreSdeVeScheduler"}


def test_ddpm_by_default():
    process = of("DDPMScheduler")
    assert process.sde == TableVPSDE()
    assert process.output == Published("noise", "time", 1000.0, -1.0)
    assert (process.value_range, process.notes) == ((-1.0, 1.0), ())


@pytest.mark.parametrize(
    ("field", "predicts"),
    [
        ({"prediction_type": "epsilon"}, "noise"),
        ({"prediction_type": "sample"}, "picture"),
        ({"prediction_type": "v_prediction"}, "velocity"),
        ({"predict_epsilon": False}, "picture"),
        ({"predict_epsilon": True}, "noise"),
    ],
)
def test_what_the_network_answers(field, predicts):
    assert of("DDIMScheduler", **field).output.predicts == predicts


def test_the_first_versions_counted_timesteps():
    process = of("PNDMScheduler", timesteps=500)
    assert process.sde == TableVPSDE(steps=500)
    assert process.output == Published("noise", "time", 500.0, -1.0)


def test_sampling_habits_are_only_noted():
    process = of("DDPMScheduler", clip_sample=True, timestep_spacing="trailing", steps_offset=1)
    assert process.sde == TableVPSDE()
    assert "clips" in process.notes[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_last_step_may_hold_no_trace():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.EulerDiscreteScheduler(rescale_betas_zero_snr=True).alphas_cumprod
    sde = of("EulerDiscreteScheduler", rescale_betas_zero_snr=True).sde
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(sde.marginal(t)[0] ** 2, theirs.double(), rtol=1e-4, atol=1e-7)


def test_score_sde():
    ve = of("ScoreSdeVeScheduler", "fourier", sigma_max=348, snr=0.075, correct_steps=2)
    assert (ve.sde, ve.output) == (VESDE(0.01, 348.0), Published("minus_noise", "sigma"))
    assert ve.value_range == (0.0, 1.0)
    assert all(word in ve.notes[0] for word in ("2000", "2 corrections", "0.075"))
    assert of("ScoreSdeVeScheduler", "fourier").sde == VESDE(0.01, 1348.0)
    vp = of("ScoreSdeVpScheduler", beta_min=0.2)
    assert (vp.sde, vp.output) == (VPSDE(0.2), Published("noise", "time", 999.0))


def test_without_a_scheduler_only_steps_can_be_guessed():
    assert assumed("positional").sde == TableVPSDE()
    with pytest.raises(CheckpointError, match=r"scheduler_config\.json"):
        assumed("fourier")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("KarrasVeScheduler", "input scaling"),
        ("EDMEulerScheduler", "EDM"),
        ("FlowMatchEulerDiscreteScheduler", "flow matching"),
        ("LCMScheduler", "distilled"),
        ("CMStochasticIterativeScheduler", "consistency"),
        ("MyScheduler", "MyScheduler"),
        (None, "none that"),
        (["DDPMScheduler"], "none that"),
    ],
)
def test_others_are_refused_with_the_reason(name, words):
    message = refusal(name)
    assert words in message
    assert "DDPM" in message  # and what does open


@pytest.mark.parametrize(
    "fields",
    [
        {"beta_schedule": "laplace"},
        {"beta_schedule": 7},
        {"prediction_type": "flow_prediction"},
        {"use_flow_sigmas": True},
        {"timestep_type": "continuous"},
        {"beta_start": -1},
        {"beta_end": 1.5},
        {"beta_end": float("nan")},
        {"beta_end": "0.02"},
        {"beta_end": 10**400},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": 10**12},
        {"num_train_timesteps": 10.5},
        {"num_train_timesteps": True},
        {"trained_betas": {}},
        {"trained_betas": [0.1, 2.0]},
        {"trained_betas": [0.1, None, "x"]},
        {"trained_betas": [0.1] * 10_001},
        {"num_train_timesteps": 10**12, "rescale_betas_zero_snr": True},
    ],
)
def test_impossible_numbers_are_refused(fields):
    assert refusal("DDPMScheduler", **fields)


@pytest.mark.parametrize(
    ("name", "embedding"),
    [
        ("DDPMScheduler", "fourier"),
        ("ScoreSdeVeScheduler", "positional"),
        ("ScoreSdeVpScheduler", "fourier"),
    ],
)
def test_network_and_scheduler_must_speak_of_the_same_label(name, embedding):
    assert "network that is told" in refusal(name, embedding)


@pytest.mark.parametrize(
    ("sde", "output", "value_range"),
    [
        (TableVPSDE(), Published("noise", "time", 1000.0, -1.0), (-1.0, 1.0)),
        (
            TableVPSDE("sigmoid", 0.001, 0.01, 50),
            Published("velocity", "time", 50.0, -1.0),
            (-1.0, 1.0),
        ),
        (TableVPSDE(betas=(0.1, 0.2)), Published("picture", "time", 2.0, -1.0), (-1.0, 1.0)),
        (VESDE(0.02, 90.0), Published("minus_noise", "sigma"), (0.0, 1.0)),
    ],
)
def test_configurations_go_there_and_back(sde, output, value_range):
    config = json.loads(json.dumps(config_of(sde, output, value_range)))
    back = process_of(config, "fourier" if isinstance(sde, VESDE) else "positional")
    assert (back.sde, back.output, back.value_range) == (sde, output, value_range)


@pytest.mark.parametrize(
    ("sde", "output", "value_range"),
    [
        (VPSDE(), Preconditioned(), (-1.0, 1.0)),
        (SubVPSDE(), Published("noise", "time", 999.0), (-1.0, 1.0)),
        (VPSDE(), Published("noise", "time", 999.0), (0.0, 1.0)),
        (VESDE(), Published("minus_noise", "level"), (0.0, 1.0)),
        (TableVPSDE(), Published("noise", "time", 999.0), (-1.0, 1.0)),
    ],
)
def test_what_no_scheduler_says_has_no_configuration(sde, output, value_range):
    assert config_of(sde, output, value_range) is None


def test_a_folder_is_described_without_torch(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "scheduler").mkdir()
    network = {"_class_name": "UNet2DModel", "sample_size": 32, "in_channels": 3}
    betas = {"_class_name": "DDPMScheduler", "rescale_betas_zero_snr": True}
    (tmp_path / "unet" / "config.json").write_text(json.dumps(network))
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(betas))
    (tmp_path / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DModel"]}')
    code = (
        "import sys, pathlib\n"
        "from studio.weights.formats import open_model\n"
        f"opened = open_model(pathlib.Path({str(tmp_path)!r}))\n"
        "assert opened.info.sde.count == 1000, opened.info\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
