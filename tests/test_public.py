"""The public face: two lines load a model and sample from it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import warnings

import pytest
from conftest import REPOSITORY, gaussian_score

import studio
from studio import choose
from studio.diffusion.catalog import PRESETS, SAMPLERS
from studio.diffusion.sampler import Sampler
from studio.diffusion.tasks import Inpaint, Task
from studio.errors import CheckpointError, DeviceError, SpecError
from studio.lazy import torch

pytestmark = pytest.mark.usefixtures("one_thread")


def last(steps):
    return list(steps)[-1]


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, studio; dir(studio); studio.__version__\n"
        "heavy = {'torch', 'numpy', 'PySide6', 'PIL'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_every_public_name_is_there():
    for name in studio.__all__:
        assert getattr(studio, name) is not None
    assert set(studio.__all__) <= set(dir(studio))
    with pytest.raises(AttributeError, match="nonsense"):
        studio.nonsense  # noqa: B018


def test_a_model_is_loaded_from_its_folder_and_sampled(tiny_checkpoint):
    score = studio.load(str(tiny_checkpoint), device="cpu")
    assert isinstance(score, studio.Score)
    step = last(studio.sample(score, count=2, sampler="dpm2m", steps=3, seed=5))
    assert step.finished
    assert step.denoised.shape == (2, 3, 8, 8)
    alone = last(studio.sample(score, count=1, sampler="dpm2m", steps=3, seed=6))
    assert torch.allclose(alone.denoised[0], step.denoised[1], atol=1e-4)


def test_an_analytic_score_is_sampled():
    score = gaussian_score(studio.VPSDE(), 0.5, (1, 4, 4))
    step = last(studio.sample(score, count=3, steps=4, snr=0.1, predictor="em"))
    assert step.nfe == 9
    assert torch.isfinite(step.denoised).all()


def test_what_is_wrong_is_said_at_the_call():
    score = gaussian_score(studio.VPSDE(), 0.5, (1, 4, 4))
    with pytest.raises(SpecError, match="Did you mean “heun”"):
        studio.sample(score, sampler="heunn")
    with pytest.raises(SpecError, match="snr"):
        studio.sample(score, sampler="pc", snnr=0.1)
    with pytest.raises(SpecError, match="from 1 to"):
        studio.sample(score, steps=0)
    with pytest.raises(SpecError, match="at least one"):
        studio.sample(score, count=0)


def test_what_is_not_there_is_said(tiny_checkpoint):
    with pytest.raises(CheckpointError, match="no model “nobody”"):
        studio.load("nobody", device="cpu")
    with pytest.raises(DeviceError, match="gpu9"):
        studio.load(str(tiny_checkpoint), device="gpu9")
    with pytest.raises(SpecError, match="preset"):
        studio.load(str(tiny_checkpoint), device="cpu", preset="ve/cifar10")


def test_steps_of_an_adaptive_sampler_are_ignored_with_a_warning():
    score = gaussian_score(studio.VPSDE(), 0.5, (1, 4, 4))
    with pytest.warns(UserWarning, match="chooses its own steps"):
        steps = studio.sample(score, sampler="rk45", steps=7, rtol=0.1, atol=0.1)
    assert last(steps).finished


@pytest.mark.parametrize("name", [*SAMPLERS, *PRESETS])
def test_every_short_name_is_a_sampler(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler, note = choose.sampler(name)
    assert isinstance(sampler, tuple(SAMPLERS.values()))
    assert not note


def test_options_are_found_by_path_and_by_bare_name():
    by_path, _ = choose.sampler("pc", None, {"corrector.snr": "0.2", "grid": "time"})
    bare, _ = choose.sampler("pc", None, {"snr": 0.2, "grid": "time"})
    assert by_path == bare
    assert by_path.corrector.snr == 0.2


def test_a_member_of_a_family_is_chosen_before_its_options():
    sampler, _ = choose.sampler("pc", None, {"eta": "0.5", "predictor": "ancestral"})
    assert sampler.predictor.eta == 0.5
    with pytest.raises(SpecError, match="snr"):
        choose.sampler("pc", None, {"corrector": "none", "snr": "0.2"})


def test_options_reach_into_what_stands_side_by_side():
    both = dataclasses.make_dataclass("Both", [("task", Task), ("sampler", Sampler)], frozen=True)
    base = both(Inpaint(), PRESETS["paper"][1])
    chosen = choose.with_options(
        base, {"weight": "2", "snr": "0.3", "method": "pigdm", "steps": "9", "task.hints": "0.1"}
    )
    assert (chosen.task.method.weight, chosen.task.hints) == (2, 0.1)
    # The outermost of that name.
    assert (chosen.sampler.steps, chosen.sampler.corrector.snr) == (9, 0.3)
    with pytest.raises(SpecError, match="wieght"):
        choose.with_options(base, {"wieght": "2"})


def test_a_top_level_name_wins_over_an_inner_one():
    sampler, _ = choose.sampler("pc", None, {"steps": 7})
    assert (sampler.steps, sampler.corrector.steps) == (7, 1)


def test_an_option_is_a_name_and_a_value():
    assert choose.pairs(("snr=0.2", "a=b=c")) == {"snr": "0.2", "a": "b=c"}
    for text in ("snr", "=3", ""):
        with pytest.raises(SpecError):
            choose.pairs((text,))
