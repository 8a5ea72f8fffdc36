"""What a person decides about a folder: kept as JSON, in its bounds, the same on every machine."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio import spec
from studio.errors import SpecError
from studio.training.choices import FRAMINGS, Choices, Crop, lot

shares = st.floats(0, 1)
sides = st.integers(1, 5000)


def test_choices_come_back_from_json():
    made = Choices(
        framing="native",
        jitter=0.2,
        crops=(Crop("a/b.png", 0.1, 0.2, 0.5), Crop("żółw.jpg")),
        excluded=("c.png",),
    )
    assert spec.from_dict(Choices, json.loads(json.dumps(spec.to_dict(made)))) == made


@pytest.mark.parametrize(
    "wrong",
    [
        Choices(framing="tiles"),
        Choices(jitter=0.6),
        Choices(held_out=0.9),
        Choices(crops=(Crop("a.png", 2.0),)),
        Choices(crops=(Crop("a.png", 0, 0, 0.0),)),
        Choices(crops=(Crop("a.png", float("nan")),)),
    ],
)
def test_choices_out_of_bounds_are_refused(wrong):
    with pytest.raises(SpecError):
        spec.check(wrong)


@given(left=shares, top=shares, side=st.floats(0.01, 1), width=sides, height=sides)
def test_a_crop_is_a_square_inside_the_picture(left, top, side, width, height):
    x0, y0, x1, y1 = Crop("a.png", left, top, side).box(width, height)
    assert x1 - x0 == pytest.approx(y1 - y0)
    assert x1 - x0 == pytest.approx(side * min(width, height))
    assert min(x0, y0) >= 0
    assert x1 <= width * (1 + 1e-9)
    assert y1 <= height * (1 + 1e-9)


def test_a_crop_stands_where_it_was_put():
    assert Crop("a.png", 0.25, 0.5, 0.5).box(400, 200) == (100, 100, 200, 200)


def test_only_what_varies_moves():
    assert not Choices().moves
    assert not Choices(background="#000000", twins=False, held_out=0).moves
    varied = [Choices(framing=f) for f in FRAMINGS if f != "centre"]
    varied += [Choices(flips=True), Choices(turns=True), Choices(jitter=0.1)]
    assert all(choices.moves for choices in varied)


def test_lots_are_spread_evenly_and_belong_to_the_name():
    lots = np.array([lot(f"holiday/IMG_{i}.jpg") for i in range(4000)])
    counts = np.histogram(lots, 8, (0, 1))[0]
    assert ((counts - 500) ** 2 / 500).sum() < 24  # chi squared, 7 degrees: one in a thousand
    assert lot("holiday/IMG_7.jpg") == lots[7]
    assert lot("odd \udcff name") >= 0
