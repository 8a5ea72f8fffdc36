"""Sampling as a job: events, recipes, finishing otherwise, too little memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from studio import spec
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Step
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import VPSDE
from studio.engine.engine import Stopped
from studio.engine.events import Begun, Finished, Note, Picture, Progress
from studio.engine.jobs import FinishWith, SampleJob, Setting, Watch, Watched
from studio.engine.trajectory import VIEWS, Kept, Trajectory
from studio.errors import DeviceError, SolverError, SpecError

SHAPE = (3, 8, 8)


def gaussian(std: float = 0.5) -> Score:
    sde = VPSDE()

    def fn(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = sde.marginal(t)
        return -x / expand((a * std) ** 2 + s**2, x)

    return Score.from_function(fn, sde, SHAPE)


class OneModel:
    """A shelf with one score, whatever is asked for."""

    def __init__(self, score: Score) -> None:
        self.score = score

    def load(self, source: str, device: str, dtype: str, preset: str = "") -> Score:
        return self.score


def setting(score: Score | None = None) -> Setting:
    return Setting(OneModel(score or gaussian()), "cpu", rate=1e9)


def events(job: SampleJob, score: Score | None = None) -> list[Any]:
    return list(job.run(setting(score)))


def result(job: SampleJob, score: Score | None = None) -> np.ndarray:
    return events(job, score)[-1].pictures


JOB = SampleJob(model="exact", count=4, seed=7)


def test_a_run_tells_its_beginning_every_step_and_its_result() -> None:
    told = events(JOB)
    assert isinstance(told[0], Note)
    assert isinstance(told[1], Begun)
    steps = [e.step for e in told if isinstance(e, Progress)]
    assert steps == [*range(1, 25), 24]  # the preset's steps, and Tweedie's
    assert isinstance(told[-1], Finished)
    assert told[-1].pictures.shape == (4, 8, 8, 3)


def test_every_view_of_every_frame_is_a_picture() -> None:
    frames = [e.frame for e in events(JOB) if isinstance(e, Picture)]
    assert frames
    for frame in frames:
        for view in VIEWS:
            assert frame.view(view).dtype == np.uint8
            assert frame.view(view).shape[:3] == (4, 8, 8)


def test_the_last_frame_shows_the_result() -> None:
    told = events(JOB)
    last = [e.frame for e in told if isinstance(e, Picture)][-1]
    assert (last.denoised == told[-1].pictures).all()
    assert (last.x == told[-1].pictures).all()


def test_the_recipe_of_a_result_makes_it_again() -> None:
    finished = events(JOB)[-1]
    again = spec.from_dict(SampleJob, finished.recipe)
    assert again == JOB
    assert (result(again) == finished.pictures).all()


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_picture_i_has_the_seed_plus_i(name: str) -> None:
    sampler = SAMPLERS[name]()
    many = result(replace(JOB, sampler=sampler, seed=5, count=4))
    alone = result(replace(JOB, sampler=sampler, seed=7, count=1))
    assert np.abs(many[2].astype(int) - alone[0].astype(int)).max() <= 1


def test_log_snr_rises_to_the_end_of_the_axis() -> None:
    told = events(JOB)
    begun = told[1]
    snrs = [e.log_snr for e in told if isinstance(e, Progress)]
    assert snrs == sorted(snrs)
    assert snrs[-1] == begun.trajectory.high
    assert begun.trajectory.frames[-1].log_snr == begun.trajectory.high


def test_finish_with_another_sampler_goes_on_from_here() -> None:
    job = replace(JOB, sampler=SAMPLERS["pc"](steps=400))
    run = job.run(setting())
    for event in run:
        if isinstance(event, Progress) and event.step == 5:
            break
    told = [run.send(FinishWith(SAMPLERS["dpm2m"](steps=12)))]
    told += list(run)
    assert any(isinstance(e, Note) for e in told)
    assert told[-1].calls == 5 * 2 + 12 + 1
    assert np.abs(told[-1].pictures.astype(float) - 127.5).mean() > 10


def test_pictures_at_different_times_cannot_change_their_sampler() -> None:
    x = torch.zeros(2, *SHAPE)
    apart = Step(1, 9, 0.6, x, x, 7, {"t": torch.tensor([0.6, 0.5])})
    run = Watched(setting(), gaussian(), iter([apart]), Watch())
    run.next()
    with pytest.raises(SpecError):
        run.continue_with(SAMPLERS["dpm2m"](), Noise.of(0, 2, SHAPE, VPSDE()))


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"count": 65}, {"seed": -1}, {"classes": "unicorn"}],
)
def test_wrong_settings_are_refused_before_the_first_step(wrong: dict[str, Any]) -> None:
    told: list[Any] = []
    with pytest.raises(SpecError):
        for event in replace(JOB, **wrong).run(setting()):
            told.append(event)
    assert not any(isinstance(e, Progress) for e in told)


def hungry(most: int) -> Score:
    """A score that fits at most `most` pictures at once."""
    exact = gaussian()

    def fn(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if len(x) > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return exact(x, t)

    return Score.from_function(fn, exact.sde, SHAPE)


def test_too_many_pictures_at_once_are_halved_and_come_out_the_same() -> None:
    job = replace(JOB, count=7)
    told = events(job, hungry(2))
    assert (told[-1].pictures == result(job)).all()
    assert any(isinstance(e, Note) and "memory" in e.text for e in told)
    assert told[-1].recipe["count"] == 7


def test_a_picture_that_does_not_fit_alone_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        events(JOB, hungry(0))


def test_a_solver_that_diverges_says_where() -> None:
    sde = VPSDE()
    exact = gaussian()

    def fn(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return exact(x, t) * (float("nan") if float(t[0]) < 0.5 else 1)

    with pytest.raises(SolverError, match="log-SNR"):
        events(JOB, Score.from_function(fn, sde, SHAPE))


def test_a_trajectory_stays_within_its_budget_and_keeps_both_ends() -> None:
    seen = {"denoised": np.zeros((1, 4, 4, 3), np.uint8)}
    one = seen["denoised"].nbytes
    trajectory = Trajectory(0.0, 1000.0, marks=1000, budget=20 * one)
    for i in range(1001):
        if trajectory.due(float(i)) or i == 1000:
            trajectory.add(Kept.of((float(i), i, i, 0.0), seen))
    assert trajectory.bytes <= 20 * one
    assert trajectory.frames[0].step == 0
    assert trajectory.frames[-1].step == 1000
    assert trajectory.nearest(-5.0).step == 0


def test_the_device_that_is_not_there_is_said() -> None:
    with pytest.raises(DeviceError):
        _ = Setting(None, "abacus").device


def test_a_stop_waits_for_one_call_of_a_step_with_many() -> None:
    calls = 0

    class Stopping(Setting):
        def check(self) -> None:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise Stopped

    run = replace(JOB, sampler=SAMPLERS["rk45"]()).run(Stopping(OneModel(gaussian()), "cpu"))
    with pytest.raises(Stopped):
        list(run)
    assert calls == 4  # within the first of rk45's steps, which have six
