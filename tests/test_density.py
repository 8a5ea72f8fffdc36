"""The change of the log density along a run on the flow, pixel by pixel, against closed forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build, every_sde, gaussian_score
from test_jobs import OneModel

from studio.diffusion.score import Score
from studio.diffusion.sde import VPSDE
from studio.engine.density import Density, DensityJob, Followed
from studio.engine.events import Begun, Failed, Finished
from studio.engine.jobs import FinishWith, SampleJob, Setting
from studio.engine.race import Lane, RaceJob, RaceRecipe
from studio.engine.trajectory import Trajectory

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 6, 6)


def setting(score: Any) -> Setting:
    return Setting(OneModel(score), "cpu", rate=0)


def raced(score: Any, *samplers: Any, temperature: float = 1.0) -> dict[int, Trajectory]:
    lanes = tuple(Lane("exact", s, temperature=temperature) for s in samplers)
    job = RaceJob(RaceRecipe(lanes=lanes, count=2, seed=3))
    return {e.lane: e.trajectory for e in job.run(setting(score)) if isinstance(e, Begun)}


def measured(score: Any, *samplers: Any, **more: Any) -> list[Any]:
    found = raced(score, *samplers, **more)
    lanes = tuple(
        Followed(lane, SampleJob("exact", samplers[lane], 2, 3), tuple(way.states))
        for lane, way in found.items()
    )
    return list(DensityJob(lanes).run(setting(score)))


@every_sde
@pytest.mark.parametrize("sampler", ["dpm2m", "rk45"])
def test_pixels_of_a_gaussian_gain_what_its_width_loses(sde: Any, sampler: str) -> None:
    """The flow of a Gaussian is a scaling, so the density of a value grows as its deviation falls."""
    std = 0.3
    score = gaussian_score(sde, std, SHAPE)
    made = build(sampler, steps=60, rtol=1e-5, atol=1e-5)
    told = [e for e in measured(score, made) if isinstance(e, Density)]
    assert len(told) >= 7
    for event in told[len(told) // 2 :: 3]:
        t = sde.time(torch.tensor([np.exp(-event.log_snr / 2)], dtype=torch.float64))
        (a, s), (a1, s1) = (
            [float(v) for v in sde.marginal(x)] for x in (t, torch.ones(1, dtype=torch.float64))
        )
        before, now = (a1 * std) ** 2 + s1**2, (a * std) ** 2 + s**2
        wanted = SHAPE[0] * 0.5 * np.log(before / now)
        # The moment is that of the sample that has the longest way to go.
        behind = event.map[event.map.mean((1, 2)).argmin()].astype(float)
        assert behind == pytest.approx(wanted, rel=0.02, abs=0.05)


def test_a_pixel_that_is_certain_gains_more_than_one_that_is_not() -> None:
    widths = torch.full(SHAPE, 0.5)
    widths[:, :3] = 0.05

    def fn(x: Any, t: Any) -> Any:
        a, s = (v.reshape(-1, 1, 1, 1) for v in VPSDE().marginal(t))
        return -x / ((a * widths) ** 2 + s**2)

    score = Score.from_function(fn, VPSDE(), SHAPE)
    last = [e for e in measured(score, build("dpm2m", steps=30)) if isinstance(e, Density)][-1]
    assert last.map[:, :3].min() > last.map[:, 3:].max() + 1


def test_lanes_are_measured_side_by_side_from_noise_on() -> None:
    score = gaussian_score(VPSDE(), 0.4, SHAPE)
    told = measured(score, build("dpm2m", steps=20), build("rk45"))
    places = [e.log_snr for e in told if isinstance(e, Density)]
    assert places == sorted(places)
    assert {e.lane for e in told if isinstance(e, Density)} == {0, 1}


def test_states_are_kept_of_lanes_on_the_flow_at_any_temperature() -> None:
    score = gaussian_score(VPSDE(), 0.4, SHAPE)
    ways = raced(score, build("dpm2m", steps=20), build("ancestral", steps=20), temperature=0.5)
    assert ways[0].states
    assert not ways[1].states


def test_a_lane_that_goes_on_with_noise_keeps_the_states_of_the_flow_alone() -> None:
    score = gaussian_score(VPSDE(), 0.4, SHAPE)
    lanes = (Lane("exact", build("dpm2m", steps=40)),) * 2
    run = RaceJob(RaceRecipe(lanes=lanes, count=1, seed=3)).run(setting(score))
    found, sent = [next(run)], False
    while not (isinstance(found[-1], Finished) and found[-1].lane == 1):
        late = len(found) > 60 and not sent
        sent |= late
        found.append(run.send(FinishWith(build("em", steps=40), 0) if late else None))
    ways = {e.lane: e.trajectory for e in found if isinstance(e, Begun)}
    assert 0 < len(ways[0].states) < len(ways[1].states)
    assert ways[0].states[-1].log_snr < ways[1].states[-1].log_snr


def test_what_cannot_be_followed_says_why_and_leaves_the_others() -> None:
    score = gaussian_score(VPSDE(), 0.4, SHAPE)
    (way,) = raced(score, build("dpm2m", steps=9)).values()
    job = SampleJob("exact", build("dpm2m", steps=9), 2, 3)
    lanes = (Followed(0, job, ()), Followed(1, job, tuple(way.states)))
    told = list(DensityJob(lanes).run(setting(score)))
    (failed,) = [e for e in told if isinstance(e, Failed)]
    assert failed.lane == 0
    assert "No exact states" in failed.message
    assert [e.lane for e in told if isinstance(e, Density)][-1] == 1
    steps = replace(score, continuous=False)
    (failed,) = [e for e in DensityJob(lanes[1:]).run(setting(steps)) if isinstance(e, Failed)]
    assert "fixed set" in failed.message
