"""uint8 pictures and states are two coats of one thing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from studio.diffusion import pictures

RANGES = [(-1.0, 1.0), (0.0, 1.0), (-2.0, 3.0)]
every_range = pytest.mark.parametrize("value_range", RANGES)


def all_bytes():
    return np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)


@every_range
def test_every_byte_survives_the_round_trip(value_range):
    state = pictures.to_state(all_bytes(), value_range)
    assert state.shape == (1, 3, 16, 16)
    assert state.dtype == torch.float32
    assert float(state.min()) == pytest.approx(value_range[0])
    assert float(state.max()) == pytest.approx(value_range[1])
    np.testing.assert_array_equal(pictures.to_pictures(state, value_range), all_bytes())


def test_channels_and_rows_stay_where_they_are():
    picture = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3)).astype(np.uint8)
    state = pictures.to_state(picture, (0.0, 1.0))
    assert float(state[1, 2, 0, 4]) == pytest.approx(picture[1, 0, 4, 2] / 255)
    back = pictures.to_pictures(state.contiguous(memory_format=torch.channels_last), (0.0, 1.0))
    np.testing.assert_array_equal(back, picture)
    assert back.flags.c_contiguous


def test_what_lies_outside_is_clipped_and_nan_is_grey():
    state = torch.tensor([-9.0, 9.0, math.inf, -math.inf, math.nan]).reshape(1, 1, 1, 5)
    row = pictures.to_pictures(state, (-1.0, 1.0))[0, 0, :, 0]
    assert row[:4].tolist() == [0, 255, 255, 0]
    assert row[4] in (127, 128)


def test_low_precision_states_become_pictures():
    state = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)
    assert pictures.to_pictures(state, (-1.0, 1.0)).max() in (127, 128)


def test_magnitude_is_the_length_over_channels():
    field = torch.tensor([3.0, 4.0, 0.0]).reshape(1, 3, 1, 1).expand(2, 3, 2, 2)
    # √((9 + 16) / 3) = 2.887, white at the given scale.
    scale = torch.tensor([math.sqrt(25 / 3), 2 * math.sqrt(25 / 3)])
    shown = pictures.magnitude(field, scale)
    assert shown.shape == (2, 2, 2, 1)
    assert shown[0].min() == 255
    assert shown[1].max() in (127, 128)


@pytest.mark.parametrize(("count", "across"), [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4)])
def test_grids_are_as_square_as_can_be(count, across):
    assert pictures.columns(count) == across
    stack = np.full((count, 4, 6, 3), 200, np.uint8)
    sheet = pictures.grid(stack, gap=2, background=128)
    down = math.ceil(count / across)
    assert sheet.shape == (down * 6 - 2, across * 8 - 2, 3)
    assert (sheet == 200).sum() == stack.size


def test_a_grid_shows_pictures_in_reading_order():
    stack = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    assert pictures.grid(stack, gap=0)[..., 0].tolist() == [[0, 1], [2, 3]]


@every_range
def test_dequantized_levels_fill_the_range_side_by_side(value_range):
    """Levels 0 … 255 and shares 0 … 1 cover the range once: each level starts where the last ended."""
    low, high = value_range
    zero, one = (torch.full((), v, dtype=torch.float64) for v in (0.0, 1.0))
    starts = pictures.dequantized(all_bytes(), value_range, zero)
    ends = pictures.dequantized(all_bytes(), value_range, one)
    assert starts.shape == (1, 3, 16, 16)
    torch.testing.assert_close(ends.flatten(2)[..., :-1], starts.flatten(2)[..., 1:])
    assert float(starts.min()) == pytest.approx(low)
    assert float(ends.max()) == pytest.approx(high)
