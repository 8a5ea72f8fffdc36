"""Whether pictures are repeated, on pictures of which that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.training import memorisation
from studio.training.features import FeatureSpace
from studio.training.memorisation import Known, gauge, shares


def noise(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def pixels_themselves() -> FeatureSpace:
    def fn(pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(pixels.reshape(len(pixels), -1).astype(np.float32))

    return FeatureSpace("pixels", 192, fn)


def test_a_copy_is_found_in_both_spaces_also_when_mirrored() -> None:
    train = Known.of(noise(50, 0), pixels_themselves())
    made = noise(4, 1)
    made[1], made[2] = train.pixels[17], train.pixels[31][:, ::-1]
    for found in (train.by_features(made), train.by_pixels(made)):
        assert found.place[1:3].tolist() == [17, 31]
        assert found.distance[1:3].tolist() == [0, 0]
        assert found.mirrored[1:3].tolist() == [False, True]
        assert found.distance[[0, 3]].min() > 50


def test_pixels_differ_by_their_root_mean_square_in_grey_levels() -> None:
    known = np.full((2, 8, 8, 3), 100, np.uint8)
    known[1] = 200
    train = Known.of(known, pixels_themselves())
    assert train.by_pixels(np.full((1, 8, 8, 3), 107, np.uint8)).distance == pytest.approx(7)


def test_pictures_of_the_law_are_as_near_as_held_out_ones() -> None:
    rng = np.random.default_rng(0)
    found = gauge(rng.normal(5, 1, 800), rng.normal(5, 1, 1000))
    assert found.nearer.value == pytest.approx(0.5, abs=3 * found.nearer.error)
    assert found.close.value == pytest.approx(0.01, abs=3 * found.close.error)
    assert found.ratio == pytest.approx(1, abs=0.03)
    assert not found.repeats


def test_a_few_copies_among_good_pictures_are_told() -> None:
    rng = np.random.default_rng(0)
    made = rng.normal(5, 1, 800)
    made[:80] = 0.1
    found = gauge(made, rng.normal(5, 1, 1000))
    assert found.close.value > 0.09
    assert found.repeats


def test_pictures_that_are_all_a_little_too_near_are_told() -> None:
    rng = np.random.default_rng(0)
    found = gauge(rng.normal(4.2, 1, 800), rng.normal(5, 1, 1000))
    assert found.nearer.value > 0.65
    assert found.repeats


@pytest.mark.parametrize(("copies", "told"), [(0, False), (40, True)])
def test_blurred_pictures_are_not_taken_for_copies(copies: int, told: bool) -> None:
    rng = np.random.default_rng(0)
    learned, others, held_out, made = (
        rng.normal(0, 30, (n, 2, 2, 3)) for n in (2000, 500, 400, 400)
    )
    made *= 0.6  # blurred: nearer to all
    made[:copies] = learned[:copies]
    space = FeatureSpace("pixels", 12, lambda x: torch.from_numpy(x.reshape(len(x), -1)))
    known, other = Known.of(learned, space), Known.of(others, space)
    near = [known.by_features(x) for x in (made, held_out)]
    assert gauge(near[0].distance, near[1].distance).repeats, "what distances alone would tell"
    found = gauge(*(shares(a, other.by_features(x)) for a, x in zip(near, (made, held_out))))
    assert found.repeats == told


def test_a_picture_that_equals_both_is_as_near_to_both() -> None:
    def at(*distances: float) -> memorisation.Nearest:
        return memorisation.Nearest(np.array(distances), np.zeros(3), np.zeros(3))

    assert shares(at(0, 0, 1), at(0, 2, 4)).tolist() == [1, 0, 0.25]


def test_ties_count_half() -> None:
    assert gauge(np.ones(10), np.ones(20)).nearer.value == 0.5


def test_the_sheet_shows_the_closest_first_beside_what_they_are_close_to() -> None:
    train = Known.of(noise(20, 0), pixels_themselves())
    made = noise(6, 1)
    made[4] = train.pixels[3][:, ::-1]
    page = memorisation.sheet(made, train.pixels, train.by_features(made), count=2)
    np.testing.assert_array_equal(page[4:12, 4:12], made[4])
    np.testing.assert_array_equal(page[4:12, 12:20], made[4])  # the training picture, mirrored
