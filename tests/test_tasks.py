"""Tasks: what a person marked becomes what is known of the picture."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conftest import build, mixture_score, noise_for

from studio import spec
from studio.diffusion import colour
from studio.diffusion.conditions import All
from studio.diffusion.linear import Blocks, Blur
from studio.diffusion.measured import PosteriorSampling, PseudoinverseGuidance, Replacement
from studio.diffusion.sde import VPSDE
from studio.diffusion.tasks import (
    METHODS,
    TASKS,
    Colorize,
    Deblur,
    Inpaint,
    Posterior,
    Pseudoinverse,
    Replace,
    Scene,
    Sketch,
    TimeTravel,
    Upscale,
    level,
)
from studio.errors import PictureError, SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 4, 4)
HALF = torch.zeros(1, 1, 4, 4)
HALF[..., 2:] = 1
NOWHERE = torch.zeros(1, 1, 4, 4)


def picture(seed=0, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, channels, 4, 4, generator=generator) * 1.2 - 0.6


def scene(change=HALF, painted=NOWHERE, channels=3, value_range=(-1.0, 1.0)):
    return Scene(picture(0, channels), change, picture(1, channels), painted, value_range)


def one(task, of):
    (condition,) = task.conditions(of)
    return condition


def levels(condition):
    return condition.operator.until


# -- strengths ------------------------------------------------------------------------------------


def test_strengths_stand_for_levels_that_are_even_in_their_logarithm():
    found = level(torch.linspace(0.1, 0.9, 9, dtype=torch.float64), 1.0)
    steps = found.log().diff()
    torch.testing.assert_close(steps, steps[:1].expand(8))
    assert 0.02 < float(found[0]) < float(found[-1]) < 10


def test_strength_nought_is_known_for_good_and_one_never():
    ends = torch.tensor([-0.1, 0.0, 1e-6, 1 - 1e-6, 1.0, 1.1], dtype=torch.float64)
    found = level(ends, 1.0)
    assert found[[0, 1]].tolist() == [0, 0]
    assert found[[4, 5]].tolist() == [math.inf] * 2
    assert found[[2, 3]].tolist() == pytest.approx([0.02, 10], rel=1e-3)


def test_levels_are_in_units_of_the_values():
    strengths = torch.tensor([0.0, 0.3, 0.8, 1.0])
    torch.testing.assert_close(level(strengths, 0.5), level(strengths, 1.0) / 2)
    assert scene(value_range=(0.0, 1.0)).half == 0.5


# -- inpainting -----------------------------------------------------------------------------------


def test_inpainting_knows_what_is_not_painted():
    found = one(Inpaint(Replace()), scene())
    assert isinstance(found, Replacement)
    assert torch.equal(found.picture, picture())
    wanted = torch.where(HALF > 0, math.inf, 0.0).expand(1, *SHAPE)
    assert torch.equal(levels(found), wanted)


def test_a_soft_edge_is_held_down_to_the_level_of_its_strength():
    soft = torch.linspace(0, 1, 16).reshape(1, 1, 4, 4)
    assert torch.equal(levels(one(Inpaint(), scene(soft))), level(soft, 1.0).expand(1, *SHAPE))


def test_colours_painted_where_it_may_change_are_hints():
    dab = torch.zeros(1, 1, 4, 4)
    dab[..., 1:3] = 1
    known, hint = Inpaint(hints=0.5).conditions(scene(HALF, dab))
    assert torch.equal(hint.picture, picture(1))
    held = torch.where((HALF * dab) > 0, level(torch.tensor(0.5), 1.0), torch.tensor(math.inf))
    torch.testing.assert_close(levels(hint), held.expand(1, *SHAPE))
    assert known.operator.until[..., 1].eq(0).all(), "paint on what is kept is no hint"


@pytest.mark.parametrize(
    ("task", "painted"),
    [(Inpaint(hints=0.0), HALF), (Inpaint(), NOWHERE), (Inpaint(), 1 - HALF)],
)
def test_without_paint_where_it_may_change_there_are_no_hints(task, painted):
    assert len(task.conditions(scene(HALF, painted))) == 1


def test_the_fainter_the_paint_the_less_it_is_held():
    faint = HALF * torch.linspace(0.2, 1, 4)
    until = levels(Inpaint(hints=1.0).conditions(scene(HALF, faint))[1])[0, 0, 0]
    assert until[:2].tolist() == [math.inf] * 2
    assert float(until[2]) > float(until[3])
    assert float(until[3]) == 0  # full paint at full closeness is known


# -- the other tasks ------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", list(colour.WEIGHTS))
def test_colorizing_keeps_brightness_in_every_state(weights):
    found = one(Colorize(weights=weights), scene(NOWHERE))
    sde, w = VPSDE(), torch.tensor(colour.WEIGHTS[weights], dtype=torch.float64)
    score = mixture_score(sde, (-0.6, 0.4), 0.2, (0.3, 0.7), SHAPE)
    chosen = build("dpm2m-sde", steps=8)
    noise = noise_for(chosen, score, dtype=torch.float64)

    def bright(x):
        return torch.einsum("c,bchw->bhw", w / w.sum(), x.double())

    *before, last = chosen.run(score, noise, found)
    for step in before:
        put = found.constrain(torch.zeros_like(step.x), step.t, sde, noise)
        torch.testing.assert_close(bright(step.x), bright(put), rtol=0, atol=1e-6)
    wanted = bright(picture()).expand(2, -1, -1)
    torch.testing.assert_close(bright(last.x), wanted, rtol=0, atol=1e-6)
    assert float((last.x - picture()).abs().max()) > 0.1, "its colours are new"


def test_colorizing_a_part_keeps_the_colours_of_the_rest():
    until = levels(one(Colorize(), scene(HALF)))
    assert not until[:, 0].any()
    assert until[:, 1:, :, :2].eq(0).all()
    assert until[:, 1:, :, 2:].eq(math.inf).all()
    assert levels(one(Colorize(), scene(NOWHERE)))[:, 1:].eq(math.inf).all()


def test_hints_of_colour_do_not_look_at_brightness():
    _, hint = Colorize().conditions(scene(NOWHERE, HALF))
    assert levels(hint)[:, 0].eq(math.inf).all()
    assert levels(hint)[:, 1:, :, 2:].isfinite().all()
    assert hint.operator.basis is not None


def test_grey_models_cannot_colorize():
    with pytest.raises(PictureError, match="grey pictures"):
        Colorize().conditions(scene(NOWHERE, channels=1))


def test_a_sketch_is_known_above_its_level_and_begins_there():
    painted = HALF * 0.5
    found = one(Sketch(strength=0.6), scene(NOWHERE, painted))
    torch.testing.assert_close(found.picture, torch.lerp(picture(), picture(1), painted))
    wanted = float(level(torch.tensor(0.6), 1.0))
    torch.testing.assert_close(levels(found), torch.full((1, *SHAPE), wanted))
    sde = VPSDE()
    t = torch.tensor([found.begin(sde)], dtype=torch.float64)
    assert float(sde.sigma(t)) == pytest.approx(wanted)
    assert one(Sketch(strength=1.0), scene(NOWHERE)).begin(sde) == 1


def test_a_masked_sketch_leaves_the_rest():
    until = levels(one(Sketch(strength=0.6), scene(HALF)))
    assert not until[..., :2].any()
    assert until[..., 2:].eq(level(torch.tensor(0.6), 1.0)).all()


def test_a_stronger_change_begins_earlier_and_goes_further():
    sde = VPSDE()
    score = mixture_score(sde, (-0.6, 0.4), 0.1, (0.3, 0.7), SHAPE)
    chosen, off = build("dpm2m-sde", steps=20), []
    for strength in (0.05, 0.4, 0.9):
        noise = noise_for(chosen, score, count=8)
        *_, last = chosen.run(score, noise, one(Sketch(strength=strength), scene(NOWHERE)))
        off.append(float((last.x - picture()).abs().mean()))
    assert off[0] < off[1] < off[2]


def test_blocks_and_blurs_are_measured():
    assert one(Upscale(factor=2), scene()).operator == Blocks(2)
    found = one(Deblur(radius=1.5), scene())
    assert found.operator == Blur(1.5)
    assert isinstance(found, PseudoinverseGuidance)
    assert found.noise > 0, "a blur cannot be undone without an error"


# -- methods --------------------------------------------------------------------------------------


def test_methods_become_their_conditions_in_units_of_the_values():
    of = scene(value_range=(0.0, 1.0))
    plain, back, guided, sampled = (
        one(Inpaint(method=m), of)
        for m in (Replace(), TimeTravel(7, 3, 0.2), Pseudoinverse(2.0, 0.1), Posterior(1.5, 0.4))
    )
    assert isinstance(plain, Replacement)
    assert plain.travel is None
    assert (back.travel.jump, back.travel.repeats, back.travel.threshold) == (7, 3, 0.2)
    assert isinstance(guided, PseudoinverseGuidance)
    assert (guided.weight, guided.noise, guided.spread) == (2.0, 0.05, 0.25)
    assert isinstance(sampled, PosteriorSampling)
    assert (sampled.weight, sampled.rate) == (1.5, 0.2)


@pytest.mark.parametrize("method", [Replace(), TimeTravel()])
def test_a_blur_can_only_be_guided_to(method):
    with pytest.raises(SpecError, match="blur"):
        Deblur(method=method).conditions(scene())


RUNS = [
    pytest.param(spec.replace(TASKS[task](), "method", METHODS[method]()), id=f"{task}-{method}")
    for task in ("inpaint", "colorize", "upscale", "deblur")
    for method in METHODS
    if task != "deblur" or method in ("pigdm", "dps")
]


@pytest.mark.parametrize("task", [*RUNS, pytest.param(Sketch(), id="sketch")])
def test_every_task_goes_with_every_method(task):
    score = mixture_score(VPSDE(), (-0.6, 0.4), 0.2, (0.3, 0.7), SHAPE)
    chosen = build("dpm2m-sde", steps=6)
    known = All(task.conditions(scene(HALF, HALF)))
    *_, last = chosen.run(score, noise_for(chosen, score), known)
    assert bool(torch.isfinite(last.x).all())
    assert spec.from_dict(type(task), spec.to_dict(task)) == task


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Inpaint(method=Pseudoinverse(weight=11)), "Weight must be from 0 to 10"),
        (Inpaint(method=Posterior(weight=-1)), "Weight must be from 0 to 10"),
        (Inpaint(method=Posterior(rate=0)), "Step .ζ. must be from"),
        (Inpaint(method=TimeTravel(jump=1)), "Steps back must be from 2"),
        (Inpaint(hints=1.5), "Colour hints must be from 0 to 1"),
        (Sketch(strength=math.nan), "finite"),
        (Upscale(factor=3), "Factor"),
        (Deblur(radius=0.0), "Radius must be from"),
        (Colorize(weights="rec2020"), "Brightness"),
    ],
)
def test_numbers_out_of_range_are_refused(task, words):
    with pytest.raises(SpecError, match=words):
        spec.check(task)


def test_what_is_masked_is_known():
    assert scene().masked
    assert not scene(NOWHERE).masked
    assert torch.equal(replace(scene(), painted=NOWHERE).covered(), picture())
