"""Branches: from a kept state and from nothing they come to the same pixels."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build, every_sampler, gaussian_score, mixture_score
from test_jobs import OneModel

from studio import spec
from studio.diffusion.noise import Noise
from studio.diffusion.sde import VPSDE
from studio.engine.branch import Branch, BranchJob, Tree, branched
from studio.engine.events import Begun, Finished, Note, Progress
from studio.engine.jobs import FinishWith, SampleJob, Setting
from studio.engine.trajectory import Trajectory
from studio.errors import SpecError

SHAPE = (3, 8, 8)
STEPS = {"pc": 12, "ald": 12, "langevin": 12}


def setting(score: Any = None) -> Setting:
    score = score or mixture_score(VPSDE(), (-0.6, 0.6), 0.2, (0.5, 0.5), SHAPE)
    return Setting(OneModel(score), "cpu", rate=1e9)


def job(sampler: str = "ancestral", **changes: Any) -> SampleJob:
    made = build(sampler, steps=STEPS.get(sampler, 16))
    return SampleJob(model="exact", sampler=made, count=2, seed=5, **changes)


def told(work: Any, score: Any = None) -> list[Any]:
    return list(work.run(setting(score)))


def trajectory_of(events: list[Any]) -> Trajectory:
    return next(e.trajectory for e in events if isinstance(e, Begun))


def pixels(events: list[Any]) -> np.ndarray:
    return events[-1].pictures


def middle(trajectory: Trajectory) -> float:
    return (trajectory.low + trajectory.high) / 2


def again(finished: Finished) -> np.ndarray:
    """What the recipe makes from nothing, after a way through JSON."""
    recipe = spec.from_dict(SampleJob, json.loads(json.dumps(finished.recipe)))
    return pixels(told(recipe))


@every_sampler
def test_a_branch_on_another_seed_comes_again_from_its_recipe_alone(sampler: str) -> None:
    parent = told(job(sampler))
    states = trajectory_of(parent).states
    where = states[len(states) // 2].log_snr
    branch = told(branched(trajectory_of(parent), where, seed=99))
    assert (again(branch[-1]) == pixels(branch)).all()
    assert np.array_equal(pixels(branch), pixels(parent)) != build(sampler).stochastic


@pytest.mark.parametrize("sampler", ["pc", "dpm2m-sde", "adaptive", "ald"])
def test_a_picture_of_a_branch_comes_again_alone(sampler: str) -> None:
    trajectory = trajectory_of(told(job(sampler)))
    where = trajectory.states[len(trajectory.states) // 2].log_snr
    branch = told(branched(trajectory, where, seed=99))
    alone = spec.from_dict(SampleJob, branch[-1].recipe | {"seed": 6, "count": 1})
    apart = pixels(told(alone))[0].astype(int) - pixels(branch)[1]
    assert np.abs(apart).max() <= 1


@pytest.mark.parametrize("sampler", ["dpm2m", "rk45"])
def test_the_flow_has_no_branches_and_says_so(sampler: str) -> None:
    parent = told(job(sampler))
    branch = told(branched(trajectory_of(parent), middle(trajectory_of(parent)), seed=99))
    assert (pixels(branch) == pixels(parent)).all()
    assert any(isinstance(e, Note) and "changes nothing" in e.text for e in branch)


@pytest.mark.parametrize("sampler", ["dpm2m", "unipc", "pc", "rk45", "ald"])
def test_another_sampler_goes_on_from_a_state(sampler: str) -> None:
    parent = told(job("ancestral"))
    other = build(sampler, steps=6)
    branch = told(branched(trajectory_of(parent), middle(trajectory_of(parent)), sampler=other))
    assert (again(branch[-1]) == pixels(branch)).all()
    assert not np.array_equal(pixels(branch), pixels(parent))
    assert branch[-1].recipe["branches"][0]["sampler"]["kind"] == sampler


def test_a_branch_of_a_branch_comes_again_too() -> None:
    parent = told(job())
    first = trajectory_of(parent)
    branch = told(branched(first, first.low + 4, seed=9))
    second = trajectory_of(branch)
    deeper = told(branched(second, middle(second) + 3, sampler=build("dpm3m", steps=5), seed=1))
    assert len(deeper[-1].recipe["branches"]) == 2
    assert (again(deeper[-1]) == pixels(deeper)).all()
    # Above the first branch a run from the recipe is on its first leg, so a branch there is the only one.
    whole = told(spec.from_dict(SampleJob, deeper[-1].recipe))
    early = branched(trajectory_of(whole), first.low + 2, seed=3)
    assert len(early.recipe.branches) == 1
    late = branched(trajectory_of(whole), second.high, seed=3)
    assert len(late.recipe.branches) == 3
    assert (again(told(late)[-1]) == pixels(told(late))).all()


def test_a_branch_costs_only_its_own_calls() -> None:
    parent = told(job())
    trajectory = trajectory_of(parent)
    state = trajectory.state_before(middle(trajectory))
    assert state is not None
    branch = told(branched(trajectory, middle(trajectory), seed=2))
    assert branch[-1].calls == parent[-1].calls - state.nfe
    other = told(branched(trajectory, middle(trajectory), sampler=build("dpm2m", steps=7)))
    assert other[-1].calls == 8


def test_finishing_otherwise_is_in_the_recipe_of_the_result() -> None:
    run = job("pc").run(setting())
    for event in run:
        if isinstance(event, Progress) and event.step == 5:
            break
    events = [run.send(FinishWith(build("dpm2m", steps=6))), *run]
    assert (again(events[-1]) == pixels(events)).all()


@pytest.mark.parametrize("sampler", ["ancestral", "dpm2m", "rk45"])
def test_the_spread_of_gaussian_pictures_goes_with_the_temperature(sampler: str) -> None:
    score = gaussian_score(VPSDE(), 0.3, SHAPE, mean=0.2)
    start = replace(job(sampler), count=1)
    whole = told(start, score)
    trajectory = trajectory_of(whole)
    first = trajectory.states[0].log_snr
    spread = pixels(whole).astype(float).std()
    for temperature in (0.0, 0.5):
        cool = told(branched(trajectory, first, temperature=temperature), score)
        assert pixels(cool).astype(float).std() == pytest.approx(temperature * spread, rel=0.05)
        assert pixels(cool).mean() == pytest.approx(127.5 * 1.2, abs=3)


def test_a_class_on_a_branch_needs_a_model_that_knows_it() -> None:
    trajectory = trajectory_of(told(job()))
    with pytest.raises(SpecError, match="no class"):
        told(branched(trajectory, middle(trajectory), classes="unicorn"))


def test_a_branch_takes_another_class_and_guidance(tiny_checkpoint: Any) -> None:
    from studio.weights.shelf import Shelf

    work = SampleJob(str(tiny_checkpoint), build("ancestral", steps=8), 2, 3, classes="cat")

    def made(some: Any) -> list[Any]:
        return list(some.run(Setting(Shelf([tiny_checkpoint.parent]), "cpu", rate=0)))

    parent = made(work)
    trajectory = trajectory_of(parent)
    branch = made(branched(trajectory, middle(trajectory), classes="dog", guidance=3.0))
    assert not np.array_equal(pixels(branch), pixels(parent))
    recipe = spec.from_dict(SampleJob, json.loads(json.dumps(branch[-1].recipe)))
    assert (pixels(made(recipe)) == pixels(branch)).all()


def test_pictures_at_their_own_times_take_another_seed_but_not_another_sampler() -> None:
    trajectory = trajectory_of(told(job("adaptive")))
    apart = [s for s in trajectory.states if float(s.step().memory["t"].min()) != s.t]
    assert apart  # else this tests nothing
    with pytest.raises(SpecError, match="own time"):
        told(branched(trajectory, apart[0].log_snr, sampler=build("dpm2m", steps=5)))
    told(branched(trajectory, apart[0].log_snr, seed=8))
    alone = trajectory_of(told(replace(job("adaptive"), count=1)))
    assert told(branched(alone, middle(alone), sampler=build("dpm2m", steps=5)))[-1].calls == 6


def test_what_cannot_be_branched_says_why() -> None:
    trajectory = trajectory_of(told(job()))
    with pytest.raises(SpecError, match="Nothing is other"):
        branched(trajectory, middle(trajectory))
    with pytest.raises(SpecError, match="so early"):
        branched(trajectory, trajectory.low - 5, seed=1)
    with pytest.raises(SpecError, match="Seed"):
        branched(trajectory, middle(trajectory), seed=-1)
    with pytest.raises(SpecError, match="from noise"):
        branched(Trajectory(0, 1), 0.5, seed=1)


def test_a_state_of_another_model_is_refused() -> None:
    trajectory = trajectory_of(told(job()))
    other = gaussian_score(VPSDE(), 0.5, (1, 8, 8))
    with pytest.raises(SpecError, match="not the one"):
        told(branched(trajectory, middle(trajectory), seed=1), other)


def test_the_noise_above_a_branch_is_shared_and_below_it_is_not() -> None:
    noise = Noise.of(0, 1, SHAPE, VPSDE())
    other = noise.branch(0.5, 7)
    assert torch.equal(noise.increment(0.9, 0.5), other.increment(0.9, 0.5))
    assert not torch.allclose(noise.increment(0.5, 0.4), other.increment(0.5, 0.4))


def test_recipes_of_old_have_no_branches_and_damaged_ones_are_refused() -> None:
    old = spec.to_dict(job())
    del old["branches"]
    assert spec.from_dict(SampleJob, old) == job()
    with pytest.raises(SpecError):
        spec.from_dict(SampleJob, old | {"branches": [{"t": "soon"}]})
    with pytest.raises(SpecError):
        spec.check(replace(job(), branches=(Branch(2.0),)))


def test_a_branch_that_is_never_reached_is_said() -> None:
    events = told(job(branches=(Branch(0.0, 3, seed=1),)))
    assert any(isinstance(e, Note) and "before its last branch" in e.text for e in events)


def test_a_tree_draws_the_shared_past_once() -> None:
    parent = told(job())
    trunk = trajectory_of(parent)
    tree = Tree()
    root = tree.add("seed 5", trunk)
    left = middle(trunk)
    work = branched(trunk, left, seed=9)
    node = tree.add("seed 9", parent=root.id, log_snr=work.state.log_snr)
    events = told(work)
    tree.update(node.id, trajectory=trajectory_of(events), result=events[-1])
    (trunk_line, branch_line) = tree.lines()
    assert trunk_line == (0, trunk.low, trunk.high, 0)
    assert branch_line == (1, work.state.log_snr, trunk.high, 0)
    frames = tree.frames(node.id)
    snrs = [f.log_snr for f in frames]
    assert snrs == sorted(snrs)
    assert (frames[0].denoised == trunk.frames[0].denoised).all()
    assert (frames[-1].denoised == pixels(events)).all()
    assert [n.id for n in tree.past(node.id)] == [0, 1]
    assert tree.children(0)[0].result is events[-1]
    assert isinstance(work, BranchJob)
