"""Branches of a painting: on another mask from any kept moment, and the same again from nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import build, gaussian_score
from test_branch import job as sample_job
from test_branch import setting as sample_setting
from test_paint_job import (
    MASK,
    PICTURE,
    SIDE,
    OneModel,
    events,
    every_way,
    hole,
    kept,
    last_of,
    model,
    photo,
    recipe,
)

from studio import spec
from studio.diffusion.sde import VPSDE
from studio.diffusion.tasks import Colorize, Inpaint, Replace, Sketch, TimeTravel
from studio.engine.branch import branched as sample_branched
from studio.engine.events import Begun, Finished, Note, Picture, Progress
from studio.engine.jobs import FinishWith, Setting
from studio.engine.paint import (
    Layers,
    Origin,
    PaintJob,
    PaintRecipe,
    Repaint,
    Touch,
    branched,
    onto,
    taken_out,
)
from studio.engine.trajectory import Trajectory
from studio.errors import PictureError, SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

OTHER = hole(SIDE, SIDE, 0, 0, 3, 3)
SMOOTH = build("dpm2m-sde", steps=12)


def painting(**more: Any) -> PaintJob:
    given = recipe(**more)
    given = replace(given, sample=replace(given.sample, sampler=SMOOTH))
    return PaintJob(given, PICTURE, MASK)


def all_of(job: Any, score: Any = None, messages: Any = None) -> list[Any]:
    return events(job, score, messages, rate=1e9)


def way_of(found: list[Any]) -> Trajectory:
    return next(e.trajectory for e in found if isinstance(e, Begun))


def middle(trajectory: Trajectory) -> float:
    return (trajectory.low + trajectory.high) / 2


def again(finished: Finished, job: PaintJob) -> PaintJob:
    """The job that the recipe of a result tells of, after a way through JSON, with what was painted."""
    read = spec.from_dict(PaintRecipe, json.loads(json.dumps(finished.recipe)))
    return replace(job, recipe=read)


def test_a_branch_on_another_mask_keeps_what_is_unmasked_now() -> None:
    parent = all_of(painting())
    branch = branched(way_of(parent), middle(way_of(parent)), Layers(OTHER))
    last = all_of(branch)[-1]
    assert kept(last, PICTURE, OTHER)
    assert (last.pictures[0][OTHER > 0] != PICTURE[OTHER > 0]).any()
    assert last.recipe["proof"] == {"kept": 0.0}
    told = last.recipe["sample"]["branches"][0]["inputs"]
    assert told == Layers(OTHER).inputs()
    assert last.recipe["inputs"] == parent[-1].recipe["inputs"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": 9},
        {"temperature": 0.5},
        {"sampler": build("dpm3m", steps=5)},
        {"task": Sketch(strength=0.5), "seed": 3},
    ],
    ids=lambda c: "-".join(c) or "mask",
)
def test_a_branch_comes_again_from_its_recipe_and_what_was_painted(changes: Any) -> None:
    parent = all_of(painting())
    branch = branched(way_of(parent), middle(way_of(parent)), Layers(OTHER), **changes)
    last = all_of(branch)[-1]
    whole = all_of(again(last, branch.job))[-1]
    assert (whole.pictures == last.pictures).all()
    assert whole.recipe == last.recipe
    assert whole.calls > last.calls


def test_a_candidate_of_a_branch_comes_again_alone() -> None:
    trajectory = way_of(all_of(painting()))
    branch = branched(trajectory, middle(trajectory), Layers(OTHER), seed=5)
    many = all_of(branch)[-1]
    alone = again(many, branch.job)
    sample = replace(alone.recipe.sample, seed=1, count=1)
    one = all_of(replace(alone, recipe=replace(alone.recipe, sample=sample)))[-1]
    assert np.abs(one.pictures[0].astype(int) - many.pictures[1]).max() <= 1


def test_a_branch_of_a_branch_knows_all_three_masks() -> None:
    first = way_of(all_of(painting()))
    branch = branched(first, first.low + 4, Layers(OTHER))
    second = way_of(all_of(branch))
    third = hole(SIDE, SIDE, 4, 4, 4, 4)
    deeper = branched(second, middle(second) + 2, Layers(third), seed=2)
    assert [layers.mask is not None for layers in deeper.job.later] == [True, True]
    last = all_of(deeper)[-1]
    assert kept(last, PICTURE, third)
    assert (all_of(again(last, deeper.job))[-1].pictures == last.pictures).all()


@pytest.mark.parametrize(
    "message",
    [
        Repaint(mask=OTHER),
        Repaint(recipe=recipe(Inpaint(Replace()))),
        FinishWith(build("heun", steps=3)),
        Touch(np.full((SIDE, SIDE, 4), 255, np.uint8)),
    ],
    ids=["mask", "task", "sampler", "touch"],
)
def test_what_is_done_in_mid_run_is_a_branch_and_comes_again(message: Any) -> None:
    """From nothing, or from a state on either side of it."""
    found = all_of(painting(), messages={6: message})
    last, trajectory = found[-1], way_of(found)
    (branch,) = last.recipe["sample"]["branches"]
    assert branch["step"] == 6
    given = trajectory.given
    assert (all_of(again(last, given))[-1].pictures == last.pictures).all()
    late = branched(trajectory, trajectory.high, Layers(hole(SIDE, SIDE, 5, 5, 2, 2)))
    assert len(late.job.later) == 2
    end = all_of(late)[-1]
    assert (all_of(again(end, late.job))[-1].pictures == end.pictures).all()
    early = branched(trajectory, trajectory.states[0].log_snr, Layers(OTHER), seed=1)
    assert len(early.job.later) == 1


def test_what_was_done_twice_at_one_step_comes_again() -> None:
    job = painting()
    run = job.run(Setting(OneModel(model()), "cpu", 1e9))
    found, sent = [next(run)], [Repaint(mask=OTHER), FinishWith(build("dpm2m", steps=4))]
    while not isinstance(last := found[-1], Finished):
        here = isinstance(last, Picture) and last.frame.step == 4
        here |= isinstance(last, Progress) and last.step == 4
        found.append(run.send(sent.pop(0) if here and sent else None))
    last, given = found[-1], way_of(found).given
    assert [b["step"] for b in last.recipe["sample"]["branches"]] == [4, 4]
    assert (all_of(again(last, given))[-1].pictures == last.pictures).all()


@pytest.mark.parametrize("task", [Colorize(), Sketch(strength=0.6), Inpaint(TimeTravel())])
def test_every_kind_of_task_can_be_branched(task: Any) -> None:
    job = painting(task=task)
    trajectory = way_of(all_of(job))
    branch = branched(trajectory, trajectory.states[3].log_snr, Layers(OTHER))
    last = all_of(branch)[-1]
    assert kept(last, PICTURE, OTHER)
    assert (all_of(again(last, branch.job))[-1].pictures == last.pictures).all()


def test_boxes_at_full_size_are_branched_and_cascades_say_that_they_are_not() -> None:
    picture, mask = photo(20, 13), hole(20, 13, 6, 4, 10, 6)
    other = hole(20, 13, 2, 2, 5, 5)
    parent = all_of(PaintJob(recipe(way="windows"), picture, mask))
    branch = branched(way_of(parent), middle(way_of(parent)), Layers(other))
    assert kept(all_of(branch)[-1], picture, other)
    cascade = all_of(PaintJob(recipe(way="cascade"), picture, mask))
    for event in (e for e in cascade if isinstance(e, Begun)):
        with pytest.raises(SpecError, match="cascade is two runs"):
            branched(event.trajectory, middle(event.trajectory), Layers(other))


def test_a_cascade_that_was_changed_while_it_sharpened_says_so() -> None:
    picture, mask = photo(20, 13), hole(20, 13, 6, 4, 10, 6)
    messages = {8: Repaint(mask=hole(20, 13, 2, 2, 5, 5))}
    found = all_of(PaintJob(recipe(way="cascade"), picture, mask), messages=messages)
    assert any(isinstance(e, Note) and "otherwise" in e.text for e in found)
    assert found[-1].recipe["sample"]["branches"] == []


def test_what_cannot_be_branched_says_why() -> None:
    trajectory = way_of(all_of(painting()))
    with pytest.raises(SpecError, match="Nothing is other"):
        branched(trajectory, middle(trajectory), Layers(MASK))
    with pytest.raises(SpecError, match="so early"):
        branched(trajectory, trajectory.low - 5, Layers(OTHER))
    with pytest.raises(PictureError, match="Nothing is painted"):
        branched(trajectory, middle(trajectory), Layers())
    lone = replace(painting(), recipe=again(all_of(painting())[-1], painting()).recipe)
    told = all_of(branched(trajectory, middle(trajectory), Layers(OTHER)))[-1]
    with pytest.raises(SpecError, match="not here"):
        all_of(again(told, lone))


class Tight(OneModel):
    """A model with memory for one sample at a time."""

    def load(self, *args: Any) -> Any:
        inner = self.score.fn

        def fn(x: Any, t: Any) -> Any:
            if len(x) > 1:
                raise torch.OutOfMemoryError("out of memory")
            return inner(x, t)

        return replace(self.score, fn=fn)


def test_a_branch_of_a_batch_that_does_not_fit_goes_on_in_parts() -> None:
    trajectory = way_of(all_of(painting()))
    branch = branched(trajectory, middle(trajectory), Layers(OTHER))
    whole = all_of(branch)[-1].pictures.astype(int)
    *_, last = branch.run(Setting(Tight(model()), "cpu", 0))
    assert np.abs(last.pictures - whole).max() <= 1


# -- from a run that samples from noise ------------------------------------------------------------


def sampled(sampler: str = "ancestral") -> tuple[Finished, Trajectory]:
    found = list(sample_job(sampler).run(sample_setting()))
    return found[-1], way_of(found)


def from_run(sampler: str = "ancestral", row: int = 1) -> tuple[PaintJob, Finished]:
    """Parts of a sample's picture are kept, the rest goes its way again from the middle of its run."""
    result, trajectory = sampled(sampler)
    origin, state = onto(trajectory, middle(trajectory), row)
    given = replace(recipe(Inpaint(Replace()), count=3, seed=40), origin=origin)
    return PaintJob(given, result.pictures[row], MASK, begun=state), result


@pytest.mark.parametrize("sampler", ["ancestral", "dpm2m", "adaptive", "ald"])
def test_a_sample_goes_on_with_parts_of_it_kept(sampler: str) -> None:
    job, result = from_run(sampler)
    last = list(job.run(sample_setting()))[-1]
    assert kept(last, result.pictures[1], MASK)
    assert len({made.tobytes() for made in last.pictures}) == 3, "each candidate has its own noise"
    made_again = replace(again(last, job), begun=None)
    whole = list(made_again.run(sample_setting()))[-1]
    apart = np.abs(whole.pictures.astype(int) - last.pictures).max()
    assert apart <= 1
    assert whole.calls > last.calls


def test_the_run_of_one_picture_is_taken_out_of_a_batch() -> None:
    result, trajectory = sampled()
    alone = taken_out(trajectory, 1)
    assert alone.recipe["seed"] == trajectory.recipe["seed"] + 1
    assert [f.log_snr for f in alone.frames] == [f.log_snr for f in trajectory.frames]
    for one, all_ in zip(alone.frames[::5], trajectory.frames[::5]):
        for view in ("x", "denoised", "score", "change"):
            assert (one.view(view) == all_.view(view)[1:]).all()
    assert (alone.frames[-1].denoised[0] == result.pictures[1]).all()
    origin, state = onto(alone, middle(alone))
    assert (origin, state.t) == (onto(trajectory, middle(trajectory), 1)[0], origin.t)


def test_candidates_of_a_late_moment_differ_less_than_those_of_an_early_one() -> None:
    result, trajectory = sampled()
    spreads = []
    for share in (0.3, 0.85):
        place = trajectory.low + share * (trajectory.high - trajectory.low)
        origin, state = onto(trajectory, place, 0)
        given = replace(recipe(Inpaint(Replace()), count=8), origin=origin)
        job = PaintJob(given, result.pictures[0], MASK, begun=state)
        made = list(job.run(sample_setting()))[-1].pictures.astype(float)
        spreads.append(made.std(0)[MASK > 0].mean())
    assert spreads[1] < 0.5 * spreads[0]


def test_such_a_run_is_branched_again_with_another_mask() -> None:
    job, result = from_run()
    found = list(job.run(sample_setting()))
    trajectory = way_of(found)
    branch = branched(trajectory, middle(trajectory) + 3, Layers(OTHER))
    last = list(branch.run(sample_setting()))[-1]
    assert kept(last, result.pictures[1], OTHER)
    made_again = replace(again(last, branch.job), begun=None)
    assert (list(made_again.run(sample_setting()))[-1].pictures == last.pictures).all()


def test_the_branches_of_a_run_are_those_of_its_pictures_too() -> None:
    _, trajectory = sampled()
    node = list(sample_branched(trajectory, trajectory.low + 4, seed=3).run(sample_setting()))
    origin, state = onto(way_of(node), trajectory.high - 3, 0)
    assert len(origin.run.branches) == 1
    given = replace(recipe(Inpaint(Replace())), origin=origin)
    job = PaintJob(given, node[-1].pictures[0], MASK, begun=state)
    last = list(job.run(sample_setting()))[-1]
    whole = list(replace(job, begun=None).run(sample_setting()))[-1]
    assert np.abs(whole.pictures.astype(int) - last.pictures).max() <= 1


def test_another_picture_than_the_runs_own_is_refused() -> None:
    job, _ = from_run()
    larger = replace(job, picture=photo(20, 20), mask=hole(20, 20, 2, 2, 6, 6))
    with pytest.raises(SpecError, match="picture of that run"):
        list(larger.run(sample_setting()))
    with pytest.raises(SpecError, match="one picture"):
        two = replace(job.recipe.origin.run, count=2)
        PaintJob(replace(job.recipe, origin=Origin(two, 0.5, 1)), job.picture, MASK).check()
    with pytest.raises(SpecError, match="sample from noise"):
        onto(way_of(all_of(painting())), 0.0, 0)
    far = replace(job, recipe=replace(job.recipe, origin=Origin(job.recipe.origin.run, 0.0, 9)))
    with pytest.raises(SpecError, match="does not come so far"):
        list(replace(far, begun=None).run(sample_setting()))


def test_a_picture_of_a_model_of_another_size_is_refused() -> None:
    job, _ = from_run()
    score = gaussian_score(VPSDE(), 0.5, (3, 2 * SIDE, 2 * SIDE))
    with pytest.raises(SpecError, match="picture of that run"):
        all_of(replace(job, begun=None), score)


@every_way
def test_old_recipes_have_no_branches_and_no_origin(way: str) -> None:
    data = spec.to_dict(recipe(way=way))
    del data["origin"], data["sample"]["branches"]
    assert spec.from_dict(PaintRecipe, data) == recipe(way=way)
    assert last_of(PaintJob(recipe(way=way), PICTURE, MASK)).recipe["origin"] is None
