"""Painting as a job: what is kept is kept to the bit, whatever the way, the task and the size."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import build, gaussian_score, mixture_score

from studio import photos, spec
from studio.diffusion import colour
from studio.diffusion.measured import PseudoinverseGuidance
from studio.diffusion.sde import VPSDE
from studio.diffusion.tasks import (
    Colorize,
    Deblur,
    Inpaint,
    Posterior,
    Pseudoinverse,
    Replace,
    Sketch,
    TimeTravel,
    Upscale,
)
from studio.engine.boxes import Fitted
from studio.engine.events import Begun, Finished, Note, Progress, Shares
from studio.engine.jobs import FinishWith, SampleJob, Setting
from studio.engine.paint import (
    WAYS,
    PaintJob,
    PaintRecipe,
    Repaint,
    Touch,
    doubt,
    merged,
)
from studio.errors import PictureError, SolverError, SpecError, StudioError

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 8
SAMPLER = build("dpm2m-sde", steps=5)
every_way = pytest.mark.parametrize("way", list(WAYS))


def model(channels=3):
    """Pictures of dark and bright values."""
    return mixture_score(VPSDE(), (-0.6, 0.4), 0.2, (0.3, 0.7), (channels, SIDE, SIDE))


class OneModel:
    def __init__(self, score):
        self.score = score

    def load(self, source, device, dtype, preset=""):
        return self.score


def photo(w, h, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def hole(w, h, x, y, wide, high, value=255):
    mask = np.zeros((h, w), np.uint8)
    mask[y : y + high, x : x + wide] = value
    return mask


def recipe(task=None, count=2, **more):
    sample = SampleJob("m", SAMPLER, count, more.pop("seed", 0))
    return PaintRecipe(sample=sample, task=task or Inpaint(), **more)


def events(job, score=None, messages=None, rate=0):
    """All events of a run; `messages` are sent at the Progress of their step, one run after another."""
    run, found, messages = (
        job.run(Setting(OneModel(score or model()), "cpu", rate)),
        [],
        messages or {},
    )
    message, at = None, 0
    while True:
        try:
            event = run.send(message)
        except StopIteration:
            return found
        found.append(event)
        at += isinstance(event, Progress)
        message = messages.pop(at, None) if isinstance(event, Progress) else None


def last_of(job, score=None, messages=None):
    last = events(job, score, messages)[-1]
    assert isinstance(last, Finished)
    return last


def kept(result, crop, mask):
    return all((made[mask == 0] == crop[mask == 0]).all() for made in result.pictures)


# -- what is kept ---------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("size", [(8, 8), (20, 13), (5, 3), (13, 30), (9, 8)])
def test_what_is_not_painted_is_the_same_to_the_bit(way, size):
    w, h = size
    picture, mask = photo(w, h), hole(w, h, w // 3, h // 3, w // 2, h // 2)
    last = last_of(PaintJob(recipe(way=way), picture, mask))
    assert last.pictures.shape == (2, h, w, 3)
    assert last.pictures.dtype == np.uint8
    assert kept(last, picture, mask)
    assert (last.pictures[0][mask > 0] != picture[mask > 0]).any()
    assert (last.pictures[0] != last.pictures[1]).any()
    assert last.recipe["proof"] == {"kept": 0.0}


@every_way
@pytest.mark.parametrize("box", [(0, 0, 9, 7), (11, 6, 9, 7), (0, 6, 20, 7), (19, 0, 1, 13)])
def test_a_box_at_the_border_is_made_alone(way, box):
    x, y, w, h = box
    picture, mask = photo(20, 13), np.zeros((13, 20), np.uint8)
    mask[y + h // 2, x : x + w] = 255
    last = last_of(PaintJob(recipe(way=way, box=box), picture, mask))
    crop = (slice(y, y + h), slice(x, x + w))
    assert last.pictures.shape == (2, h, w, 3)
    assert kept(last, picture[crop], mask[crop])
    elsewhere = 255 - picture
    elsewhere[crop] = picture[crop]
    other = last_of(PaintJob(recipe(way=way, box=box), elsewhere, mask))
    assert (other.pictures == last.pictures).all(), "what lies outside the box is not looked at"


@every_way
def test_a_picture_of_one_pixel_can_be_made(way):
    picture = photo(1, 1)
    last = last_of(PaintJob(recipe(Sketch(), way=way), picture))
    assert last.pictures.shape == (2, 1, 1, 3)


@pytest.mark.parametrize("way", ["box", "windows"])
def test_a_very_long_picture_can_be_made(way):
    picture, mask = photo(3000, 40), hole(3000, 40, 1500, 10, 6, 6)
    last = last_of(PaintJob(recipe(way=way, count=1), picture, mask))
    assert kept(last, picture, mask)


@pytest.mark.slow
def test_a_very_long_picture_can_be_sharpened():
    picture, mask = photo(3000, 40), hole(3000, 40, 1500, 10, 6, 6)
    assert kept(last_of(PaintJob(recipe(way="cascade", count=1), picture, mask)), picture, mask)


def test_soft_edges_blend_and_full_strength_is_all_new():
    crop, made = photo(4, 1), photo(4, 1, 1)
    mask = np.array([[0, 64, 128, 255]], np.uint8)
    found = merged(Inpaint(), crop, made, mask)
    assert (found[0, 0] == crop[0, 0]).all()
    assert (found[0, 2:] == made[0, 2:]).all()
    between = crop[0, 1] + 64 / 127.5 * (made[0, 1].astype(float) - crop[0, 1])
    assert (found[0, 1] == between.round()).all()


@every_way
def test_a_hole_is_filled_with_what_the_model_makes(way):
    """Not with what was there: the model's values are dark or bright, never the grey that was."""
    picture = np.full((16, 16, 3), 120, np.uint8)
    mask = hole(16, 16, 4, 4, 8, 8)
    made = last_of(PaintJob(recipe(way=way), picture, mask)).pictures[:, 6:10, 6:10].astype(float)
    assert np.abs(made - 120).mean() > 25


def test_one_model_pixel_of_a_mask_covers_every_pixel_it_touches():
    for size in [(20, 13), (5, 3), (8, 8), (1, 1), (300, 7)]:
        fitted = Fitted.scaled(size, SIDE)
        for seed in range(20):
            y, x = np.random.default_rng(seed).integers((size[1], size[0]))
            mask = np.zeros((size[1], size[0]), np.uint8)
            mask[y, x] = 200
            assert fitted.mask(mask).shape == fitted.canvas
            assert fitted.mask(mask).max() == 200


def test_a_box_of_the_models_size_comes_as_it_is():
    fitted, picture = Fitted.scaled((SIDE, SIDE), SIDE), photo(SIDE, SIDE)
    assert fitted.canvas == (SIDE, SIDE)
    assert (fitted.forth(picture) == picture).all()
    assert (fitted.back(picture) == picture).all()


# -- tasks ----------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("weights", ["mean", "rec601"])
def test_colorizing_keeps_brightness_as_exactly_as_eight_bits_can(way, weights):
    picture = np.repeat(photo(12, 10)[..., :1], 3, -1)
    last = last_of(PaintJob(recipe(Colorize(weights=weights), way=way), picture))
    w = colour.WEIGHTS[weights]
    off = max(colour.brightness_error(picture, made, w) for made in last.pictures)
    assert off <= colour.tightness(w) + 1e-9
    assert last.recipe["proof"] == {"brightness": pytest.approx(off)}
    spread = np.ptp(last.pictures.astype(int), axis=-1)
    assert spread.mean() > 10, "it has found colours"


def test_colorizing_a_part_keeps_the_rest_to_the_bit():
    picture, mask = photo(12, 10), hole(12, 10, 3, 3, 5, 5)
    last = last_of(PaintJob(recipe(Colorize()), picture, mask))
    assert kept(last, picture, mask)
    assert set(last.recipe["proof"]) == {"kept", "brightness"}


def test_a_faint_sketch_stays_and_a_strong_one_goes():
    picture = np.full((SIDE, SIDE, 3), 178, np.uint8)  # the bright mean of the model
    paint = np.zeros((SIDE, SIDE, 4), np.uint8)
    paint[:4] = (51, 51, 51, 255)  # and its dark one
    off = []
    for strength in (0.02, 0.5, 1.0):
        job = PaintJob(recipe(Sketch(strength=strength), count=4), picture, None, paint)
        made = last_of(job).pictures.astype(float)
        off.append(np.abs(made[:, :4] - 51).mean() + np.abs(made[:, 4:] - 178).mean())
    assert off[0] < 20 < off[2]
    assert off[0] <= off[1] + 5 < off[2]


def test_strokes_are_hints_of_colour():
    picture, mask = np.full((SIDE, SIDE, 3), 120, np.uint8), hole(SIDE, SIDE, 0, 2, SIDE, 6)
    means = []
    for value in (51, 178):
        paint = np.zeros((SIDE, SIDE, 4), np.uint8)
        paint[2:] = (value, value, value, 255)
        job = PaintJob(recipe(Inpaint(hints=0.8), count=4), picture, mask, paint)
        means.append(last_of(job).pictures[:, 2:].mean())
    assert means[0] < 80 < 150 < means[1]


@pytest.mark.parametrize("task", [Upscale(factor=2), Upscale(2, Pseudoinverse()), Deblur(1.0)])
def test_what_is_made_of_blocks_or_a_blur_still_measures_the_same(task):
    # Smooth, and no colour near an end: what is cut off there would be missing.
    picture = photos.resized(photo(2, 2) // 4 + 96, (SIDE, SIDE))
    job = PaintJob(
        replace(recipe(task), sample=SampleJob("m", build("dpm2m", steps=40), 2)), picture
    )
    calm = gaussian_score(VPSDE(), 0.25, (3, SIDE, SIDE))
    state = torch.from_numpy(last_of(job, calm).pictures / 255).permute(0, 3, 1, 2)
    wanted = torch.from_numpy(picture / 255).permute(2, 0, 1)[None]
    (known,) = job.recipe.task.conditions(_scene_of(picture))
    found = known.operator.forward(state.double())
    off = float((found - known.operator.measured(wanted.double())).abs().max())
    assert off < (0.01 if isinstance(task, Upscale) else 0.06)


def _scene_of(picture):
    from studio.diffusion.tasks import Scene

    x = torch.zeros(1, 3, *picture.shape[:2])
    return Scene(x, x[:, :1], x, x[:, :1], (-1.0, 1.0))


@pytest.mark.parametrize("method", [TimeTravel(2, 1, 0.0), Pseudoinverse(), Posterior()])
@every_way
def test_every_method_goes_every_way(method, way):
    picture, mask = photo(14, 10), hole(14, 10, 4, 2, 5, 5)
    assert kept(last_of(PaintJob(recipe(Inpaint(method), way=way), picture, mask)), picture, mask)


# -- in mid-run -----------------------------------------------------------------------------------

PICTURE, MASK = photo(SIDE, SIDE), hole(SIDE, SIDE, 2, 2, 4, 4)


def test_another_mask_counts_from_the_next_step_on():
    other = hole(SIDE, SIDE, 0, 0, 3, 3)
    last = last_of(PaintJob(recipe(), PICTURE, MASK), messages={2: Repaint(mask=other)})
    assert kept(last, PICTURE, other)
    assert (last.pictures[0][other > 0] != PICTURE[other > 0]).any()
    (branch,) = last.recipe["sample"]["branches"]
    assert last.recipe["inputs"]["mask"] == PaintJob(recipe(), PICTURE, MASK).inputs()["mask"]
    assert branch["inputs"]["mask"] == PaintJob(recipe(), PICTURE, other).inputs()["mask"]


@every_way
def test_what_is_painted_in_mid_run_is_made_too(way):
    """Also where nothing was computed before: the old grey is gone."""
    picture, other = np.full((24, 24, 3), 120, np.uint8), hole(24, 24, 14, 14, 8, 8)
    job = PaintJob(recipe(way=way), picture, hole(24, 24, 1, 1, 4, 4))
    made = last_of(job, messages={1: Repaint(mask=other)}).pictures
    assert np.abs(made[:, 15:21, 15:21].astype(int) - 120).mean() > 25


def test_another_task_counts_from_the_next_step_on():
    new = recipe(Sketch(strength=0.3))
    last = last_of(PaintJob(recipe(), PICTURE, MASK), messages={2: Repaint(recipe=new)})
    (branch,) = last.recipe["sample"]["branches"]
    assert branch["task"] == spec.to_dict(new.task)
    assert kept(last, PICTURE, MASK)
    off = [np.abs(last.pictures.astype(int) - PICTURE).mean()]
    off.append(
        np.abs(last_of(PaintJob(recipe(), PICTURE, MASK)).pictures.astype(int) - PICTURE).mean()
    )
    assert off[0] < 0.7 * off[1], "a sketch stays nearer to what was there"


def test_a_repainting_that_cannot_be_is_refused_in_a_sentence():
    full = np.full_like(MASK, 255)
    with pytest.raises(PictureError, match="nothing of the picture is kept"):
        last_of(PaintJob(recipe(), PICTURE, MASK), messages={2: Repaint(mask=full)})


def test_a_touch_paints_on_the_states_themselves():
    """What was touched becomes more like the paint."""
    means = []
    for value in (None, 0, 255):
        paint = np.zeros((SIDE, SIDE, 4), np.uint8)
        if value is not None:
            paint[2:6, 2:6] = (value, value, value, 255)
        job = PaintJob(recipe(count=4), PICTURE, MASK)
        last = last_of(job, messages={4: Touch(paint)})
        assert kept(last, PICTURE, MASK)
        means.append(last.pictures[:, 2:6, 2:6].mean())
    assert means[1] < means[0] < means[2]
    assert means[2] - means[1] > 50


def test_a_touch_elsewhere_changes_nothing_of_the_run():
    job = PaintJob(recipe(), PICTURE, MASK)
    nothing = np.zeros((SIDE, SIDE, 4), np.uint8)
    touched = last_of(job, messages={3: Touch(nothing)})
    assert (touched.pictures == last_of(job).pictures).all()
    assert touched.calls == last_of(job).calls


def test_another_sampler_can_finish():
    job = PaintJob(recipe(), PICTURE, MASK)
    last = last_of(job, messages={2: FinishWith(build("heun", steps=3))})
    assert kept(last, PICTURE, MASK)
    assert last.calls == 2 + 2 * 3 + 1
    # And after it a touch still finds its way.
    paint = np.zeros((SIDE, SIDE, 4), np.uint8)
    both = {2: FinishWith(build("heun", steps=3)), 4: Touch(paint)}
    assert (last_of(job, messages=both).pictures == last.pictures).all()


def test_messages_after_the_last_step_do_nothing():
    job = PaintJob(recipe(), PICTURE, MASK)
    calm = last_of(job).pictures
    for message in (Touch(np.full((SIDE, SIDE, 4), 255, np.uint8)), FinishWith(SAMPLER)):
        assert (last_of(job, messages={6: message}).pictures == calm).all()


def test_the_shares_of_terms_are_told_while_it_runs():
    job = PaintJob(recipe(Inpaint(Pseudoinverse())), PICTURE, MASK)
    told = [e for e in events(job, rate=1e9) if isinstance(e, Shares)]
    assert told
    for event in told:
        assert set(event.shares) == {"PseudoinverseGuidance"}
        assert all(math.isfinite(v) and v >= 0 for v in event.shares.values())


@every_way
def test_a_run_tells_what_it_does_and_what_it_has_cost(way):
    found = events(PaintJob(recipe(way=way), photo(20, 13), hole(20, 13, 2, 2, 9, 9)))
    runs = 2 if way == "cascade" else 1
    assert sum(isinstance(e, Begun) for e in found) == runs
    assert found[-1].calls == runs * 6
    assert ("Sharpening" in " ".join(e.text for e in found if isinstance(e, Note))) == (runs == 2)


# -- what cannot be -------------------------------------------------------------------------------

FULL = np.full((SIDE, SIDE), 255, np.uint8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask": None}, "Nothing is painted"),
        ({"mask": np.zeros_like(MASK)}, "Nothing is painted"),
        ({"mask": FULL}, "nothing of the picture is kept"),
        ({"mask": MASK[:, :5]}, "The mask is 5 × 8 pixels; the picture is 8 × 8"),
        ({"sketch": np.zeros((3, 4, 4), np.uint8)}, "The sketch is 4 × 3 pixels"),
        ({"recipe": recipe(box=(4, 4, 5, 2))}, "not inside the picture"),
        ({"recipe": recipe(box=(-1, 0, 5, 2))}, "not inside the picture"),
        ({"recipe": recipe(box=(0, 0, 0, 2))}, "not inside the picture"),
        ({"recipe": recipe(box=(0, 0, 2, 2))}, "Nothing is painted inside the box"),
        ({"recipe": recipe(box=(3, 3, 2, 2))}, "nothing of the picture is kept"),
        ({"recipe": recipe(box=(1, 2, 3))}, "four numbers"),
        ({"recipe": recipe(way="no way")}, "no way"),
        ({"recipe": recipe(Inpaint(Pseudoinverse(weight=11)))}, "Weight must be from 0 to 10"),
        ({"recipe": recipe(Inpaint(Posterior(weight=math.nan)))}, "finite"),
        ({"recipe": recipe(Deblur(1.0, TimeTravel()))}, "cannot be undone exactly"),
        ({"recipe": recipe(Upscale(8), count=0)}, "Pictures must be from 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(changes, words):
    job = replace(PaintJob(recipe(), PICTURE, MASK), **changes)
    with pytest.raises(StudioError, match=words) as caught:
        events(job)
    assert caught.value.args[0].count(".") == 1


def test_what_is_refused_needs_no_model():
    class NoModel:
        def load(self, *args):
            raise AssertionError("nothing may be loaded")

    with pytest.raises(PictureError):
        list(PaintJob(recipe(), PICTURE, None).run(Setting(NoModel(), "cpu")))


def test_colours_are_not_for_grey_models():
    with pytest.raises(PictureError, match="grey pictures, and the picture has colours"):
        events(PaintJob(recipe(), PICTURE, MASK), model(1))
    with pytest.raises(PictureError, match="makes grey pictures"):
        grey = np.repeat(PICTURE[..., :1], 3, -1)
        events(PaintJob(recipe(Colorize()), grey), model(1))


@every_way
def test_a_grey_model_paints_grey_pictures(way):
    picture, mask = np.repeat(photo(12, 9)[..., :1], 3, -1), hole(12, 9, 3, 3, 4, 4)
    last = last_of(PaintJob(recipe(way=way), picture, mask), model(1))
    assert kept(last, picture, mask)
    assert not np.ptp(last.pictures.astype(int), axis=-1).any()


def test_a_term_that_is_no_number_stops_the_run_with_a_clear_word(monkeypatch):
    def term(self, x, t, clean, pull, sde):
        return x * math.nan

    monkeypatch.setattr(PseudoinverseGuidance, "term", term)
    with pytest.raises(SolverError, match="no longer finite") as caught:
        events(PaintJob(recipe(Inpaint(Pseudoinverse())), PICTURE, MASK))
    assert caught.value.hint


def test_solvers_that_choose_their_steps_cannot_put_back():
    chosen = replace(recipe(Inpaint(Replace())), sample=SampleJob("m", build("rk45"), 1))
    with pytest.raises(SpecError, match="cannot hold pixels"):
        events(PaintJob(chosen, PICTURE, MASK))
    guided = replace(chosen, task=Inpaint(Pseudoinverse()))
    assert kept(last_of(PaintJob(guided, PICTURE, MASK)), PICTURE, MASK)


# -- again ----------------------------------------------------------------------------------------


@every_way
def test_a_candidate_comes_again_alone(way):
    picture, mask = photo(14, 10), hole(14, 10, 4, 2, 5, 5)
    many = last_of(PaintJob(recipe(way=way, count=3), picture, mask)).pictures
    alone = last_of(PaintJob(recipe(way=way, count=1, seed=2), picture, mask)).pictures
    assert abs(many[2].astype(int) - alone[0].astype(int)).max() <= 1


def test_a_recipe_makes_the_same_again():
    given = recipe(Colorize(method=Pseudoinverse(0.7)), way="windows", box=(1, 2, 12, 7), seed=5)
    picture = photo(20, 13)
    last = last_of(PaintJob(given, picture))
    again = spec.from_dict(PaintRecipe, json.loads(json.dumps(last.recipe)))
    assert replace(again, inputs={}, proof={}) == given
    assert again.proof == last.recipe["proof"]
    repeated = last_of(PaintJob(again, picture))
    assert (repeated.pictures == last.pictures).all()
    assert repeated.recipe == last.recipe


def test_inputs_are_known_by_what_is_in_the_box():
    box = (1, 1, 6, 6)
    told = PaintJob(recipe(box=box), PICTURE, MASK).inputs()
    assert set(told) == {"picture", "mask"}
    elsewhere = PICTURE.copy()
    elsewhere[0, 0] ^= 255
    assert PaintJob(recipe(box=box), elsewhere, MASK).inputs() == told
    inside = PICTURE.copy()
    inside[3, 3] ^= 1
    other = PaintJob(recipe(box=box), inside, MASK).inputs()
    assert (other["picture"] != told["picture"], other["mask"]) == (True, told["mask"])
    assert len(told["picture"]) == 16


def test_doubt_is_where_candidates_disagree():
    stack = np.zeros((2, 2, 2, 3), np.uint8)
    stack[1, 0, 0] = 10
    stack[1, 1, 1] = 255
    assert doubt(stack).tolist() == [[20, 0], [0, 255]]
