"""Brightness is kept as closely as 8 bits allow, and chroma as nearly as the brightness leaves room."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from studio.diffusion import colour
from studio.errors import SpecError

every_weights = pytest.mark.parametrize(
    "weights", [*colour.WEIGHTS.values(), (0, 1, 0)], ids=[*colour.WEIGHTS, "green"]
)
MEAN, REC601 = colour.WEIGHTS["mean"], colour.WEIGHTS["rec601"]


def random_picture(seed=0, height=60, width=80):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@every_weights
def test_the_basis_is_orthonormal_and_begins_with_the_weights(weights):
    m = colour.basis(weights).numpy()
    np.testing.assert_allclose(m @ m.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(m[0], np.array(weights) / np.linalg.norm(weights), atol=1e-14)
    assert (colour.basis(weights).numpy() == m).all()


def test_chroma_of_grey_is_nothing_for_equal_weights():
    chroma = colour.basis(MEAN).numpy()[1:] @ np.ones(3)
    np.testing.assert_allclose(chroma, 0, atol=1e-14)


@pytest.mark.parametrize("weights", [(0, 0, 0), (1, -1, 1), (1, 1), (1, 1, float("nan"))], ids=str)
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(SpecError):
        colour.basis(weights)
    with pytest.raises(SpecError):
        colour.brightness(random_picture(), weights)


@every_weights
def test_brightness_is_a_mean(weights):
    grey = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    np.testing.assert_allclose(colour.brightness(grey, weights), np.arange(256), atol=1e-12)
    assert colour.brightness(np.array([255, 0, 0]), weights) == pytest.approx(
        255 * weights[0] / sum(weights)
    )


@every_weights
def test_a_picture_with_its_own_brightness_stays_as_it_is(weights):
    pixels = random_picture()
    same = colour.with_brightness(pixels, colour.brightness(pixels, weights), weights)
    assert (same == pixels).all()


def test_sums_of_channels_are_kept_exactly():
    photo, other = random_picture(0), random_picture(1)
    made = colour.with_brightness(other, colour.brightness(photo, MEAN), MEAN)
    assert (made.sum(-1, dtype=int) == photo.sum(-1, dtype=int)).all()
    assert colour.brightness_error(photo, made, MEAN) == 0


def test_every_sum_of_channels_can_be_met():
    sums = np.arange(766).reshape(1, -1)
    for pixels in (random_picture(2, 1, 766), np.full((1, 766, 3), (255, 0, 128), np.uint8)):
        made = colour.with_brightness(pixels, sums / 3, MEAN)
        assert (made.sum(-1, dtype=int) == sums).all()


@every_weights
def test_any_brightness_is_met_within_the_bound(weights):
    wanted = np.linspace(0, 255, 4800).reshape(60, 80)
    for pixels in (random_picture(), wanted[..., None].repeat(3, -1), 300 * np.ones((60, 80, 3))):
        made = colour.with_brightness(pixels, wanted, weights)
        error = np.abs(colour.brightness(made, weights) - wanted).max()
        assert error <= colour.tightness(weights) + 1e-9


def test_the_bounds_are_small():
    bounds = {name: colour.tightness(w) for name, w in colour.WEIGHTS.items()}
    assert bounds["mean"] == pytest.approx(1 / 6)  # for sums that are not whole
    assert max(bounds[name] for name in ("rec601", "rec709", "sepia")) < 0.07


@every_weights
def test_no_colour_nearby_is_nearer_in_brightness(weights):
    rng = np.random.default_rng(3)
    pixels = random_picture(4, 4, 50)
    # Little moved, so that nothing leaves the gamut and the colour aimed at is known.
    wanted = colour.brightness(pixels, weights).clip(20, 235) + rng.uniform(-0.5, 0.5, (4, 50))
    w = np.array(weights, float)
    aim = pixels + ((wanted * w.sum() - pixels @ w) / (w @ w))[..., None] * w
    inside = ((aim > 3) & (aim < 252)).all(-1)
    made = colour.with_brightness(pixels, wanted, weights)[inside].astype(float)
    aim, wanted = aim[inside], wanted[inside]
    error = np.abs(colour.brightness(made, weights) - wanted)
    away = np.linalg.norm(made - aim, axis=-1)
    for step in product((-1, 0, 1, 2), repeat=3):
        other = np.floor(aim) + step
        theirs = np.abs(colour.brightness(other, weights) - wanted)
        assert (error <= theirs + 1e-9).all()
        tie = np.abs(theirs - error) < 1e-9
        assert (away[tie] <= np.linalg.norm(other - aim, axis=-1)[tie] + 1e-9).all()


@every_weights
def test_colours_that_fit_keep_their_chroma(weights):
    pixels = random_picture().astype(float) * 0.3 + 90
    wanted = colour.brightness(pixels, weights) + 10
    moved = colour.with_brightness(pixels, wanted, weights) - pixels
    chroma = moved @ colour.basis(weights).numpy()[1:].T
    assert np.abs(chroma).max() < 3.5  # the four values a channel that are tried


def test_colours_that_do_not_fit_lose_saturation_and_not_hue():
    red = np.array([[[200.0, 40.0, 40.0]]])
    # At brightness 240 this red would be (347, 187, 187): it goes towards grey on a straight line.
    made = colour.with_brightness(red, np.array([[240.0]]), MEAN)[0, 0].astype(int)
    assert made.sum() == 720
    assert abs(made[0] - 255) <= 1
    assert abs(made[1] - made[2]) <= 1
    assert made[0] > made[1]


@every_weights
def test_black_and_white_have_no_chroma(weights):
    pixels = random_picture()
    for level in (0, 255):
        made = colour.with_brightness(pixels, np.full((60, 80), level), weights)
        if min(weights) > 0:
            assert (made == level).all()
        assert np.abs(colour.brightness(made, weights) - level).max() < 1e-9
    beyond = colour.with_brightness(pixels, np.full((60, 80), 400.0), MEAN)
    assert (beyond == 255).all()


def test_the_error_is_the_largest_one():
    before = np.full((4, 4, 3), 100, np.uint8)
    after = before.copy()
    after[2, 1] = (103, 100, 100)
    after[0, 0] = (100, 100, 101)
    assert colour.brightness_error(before, after, MEAN) == pytest.approx(1.0)
    assert colour.brightness_error(before, after, REC601) == pytest.approx(0.897)
