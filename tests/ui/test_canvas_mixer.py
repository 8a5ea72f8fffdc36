"""The mixer: weights that a person turns, and bars that say how long each term is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PySide6.QtWidgets import QDoubleSpinBox, QLabel, QSlider

from studio.ui.canvas.mixer import Bar, Mixer, Term, length_of, place_of, weight_at
from ui.conftest import Shown

pytestmark = pytest.mark.usefixtures("qapp")

RANGES = [(0.0, 10.0), (0.0, 1.0), (0.5, 4.0), (2.0, 5.0), (-1.0, 3.0)]
each_range = pytest.mark.parametrize("bounds", RANGES, ids=str)


def term(key: str, weight: float = 1.0, bounds: tuple[float, float] = (0, 10)) -> Term:
    return Term(key, key.capitalize(), f"What {key} adds.", weight, bounds)


def slider(mixer: Mixer, key: str) -> QSlider:
    found = mixer.findChild(QSlider, f"slider_{key}")
    assert found is not None
    return found


def number(mixer: Mixer, key: str) -> QDoubleSpinBox:
    found = mixer.findChild(QDoubleSpinBox, f"weight_{key}")
    assert found is not None
    return found


def bar(mixer: Mixer, key: str) -> Bar:
    found = mixer.findChild(Bar, f"share_{key}")
    assert found is not None
    return found


@pytest.fixture
def mixer(shown: Shown) -> Mixer:
    made = Mixer()
    made.set_terms([term("class", 2.5), term("photo"), term("hints", 0.5, (0, 1))])
    return shown(made, 270, 240)


@pytest.fixture
def told(mixer: Mixer) -> list[tuple[str, float]]:
    heard: list[tuple[str, float]] = []
    mixer.weight_changed.connect(lambda key, weight: heard.append((key, weight)))
    return heard


def test_a_mixer_without_terms_says_so() -> None:
    mixer = Mixer()
    before = mixer.explanation.text()
    assert "Nothing" in before
    mixer.set_terms([term("class")])
    assert mixer.explanation.text() != before
    mixer.set_terms([])
    assert mixer.explanation.text() == before


def test_a_row_has_the_name_the_weight_and_the_help_of_its_term(mixer: Mixer) -> None:
    names = [label.text() for label in mixer.findChildren(QLabel)]
    assert names[1:] == ["Class", "Photo", "Hints"]
    assert [mixer.weight(key) for key in ("class", "photo", "hints")] == [2.5, 1.0, 0.5]
    for widget in (number(mixer, "photo"), slider(mixer, "photo")):
        assert widget.toolTip() == "What photo adds."
        assert "Photo" in widget.accessibleName()


def test_a_typed_weight_is_told_and_moves_the_slider(
    mixer: Mixer, told: list[tuple[str, float]]
) -> None:
    number(mixer, "photo").setValue(10)
    assert told == [("photo", 10.0)]
    assert slider(mixer, "photo").value() == slider(mixer, "photo").maximum()


def test_a_slid_weight_is_told_and_written(mixer: Mixer, told: list[tuple[str, float]]) -> None:
    slide = slider(mixer, "hints")
    slide.setValue(slide.maximum() // 4)
    assert told == [("hints", 0.25)]
    assert number(mixer, "hints").value() == 0.25


def test_weight_one_lies_in_the_middle_of_a_slider(mixer: Mixer) -> None:
    slide = slider(mixer, "photo")
    assert slide.value() == slide.maximum() // 2
    slide.setValue(0)
    assert mixer.weight("photo") == 0
    slide.setValue(slide.maximum() // 2)
    assert mixer.weight("photo") == 1


@each_range
def test_the_place_on_a_slider_is_undone_by_its_weight(bounds: tuple[float, float]) -> None:
    for weight in np.linspace(*bounds, 41):
        place = place_of(weight, bounds)
        assert 0 <= place <= 1
        assert weight_at(place, bounds) == pytest.approx(weight, abs=1e-9)


def test_showing_other_weights_is_no_change_and_keeps_the_editors(
    mixer: Mixer, told: list[tuple[str, float]]
) -> None:
    before = number(mixer, "class")
    mixer.set_terms([term("class", 4.0), term("photo", 0.3), term("hints", 1.0, (0, 1))])
    assert number(mixer, "class") is before
    assert [mixer.weight(key) for key in ("class", "photo", "hints")] == [4.0, 0.3, 1.0]
    assert told == []


def test_a_weight_beyond_its_bounds_is_held_at_them(mixer: Mixer) -> None:
    for asked, held in ((-5.0, 0.0), (50.0, 10.0)):
        mixer.set_terms([term("photo", asked)])
        assert mixer.weight("photo") == held


def test_other_terms_take_the_place_of_these(mixer: Mixer) -> None:
    mixer.set_terms([term("photo", 3.0)])
    assert mixer.weight("photo") == 3.0
    with pytest.raises(KeyError):
        mixer.weight("class")


def test_bars_follow_their_terms_and_nothing_else_moves(mixer: Mixer, grab: Any) -> None:
    before = grab(mixer)
    places = [row.geometry() for row in mixer.findChildren(Bar)]
    mixer.show_shares({"class": 0.001, "photo": 12345.0, "elsewhere": 1.0})
    after = grab(mixer)
    changed = (before != after).any(2)
    allowed = np.zeros_like(changed)
    for one in (bar(mixer, "class"), bar(mixer, "photo")):
        corner = one.mapTo(mixer, one.rect().topLeft())
        rows = slice(corner.y(), corner.y() + one.height())
        assert changed[rows].any()
        allowed[rows] = True
    assert not (changed & ~allowed).any()
    assert [row.geometry() for row in mixer.findChildren(Bar)] == places


def test_the_mark_is_where_a_term_is_as_long_as_the_score(shown: Shown, grab: Any) -> None:
    reached = []
    one = shown(Bar(), 260, 20)
    empty = grab(one)
    middle = one.height() // 2
    for share in (0.0, 0.01, 0.1, 1.0, 10.0, 1e6):
        one.show_share(share)
        line = (grab(one)[middle, :200] != empty[middle, :200]).any(1)
        reached.append(int(np.flatnonzero(line).max(initial=0)))
    assert reached[0] == 0
    assert reached == sorted(reached)
    assert reached[1] < reached[2] < reached[3] < reached[4] == reached[5]
    # The mark itself has the same colour in both, so the bar ends beside it.
    marks = (grab(one)[middle - 5] == grab(one)[middle + 5]).all(1)
    dark = np.flatnonzero(marks[:200] & (grab(one)[middle - 5, :200].sum(1) < 200))
    assert abs(int(dark.mean()) - reached[3]) <= 2


def test_the_length_of_a_bar_is_a_logarithm_for_all_but_the_faintest() -> None:
    assert length_of(0) == 0
    assert length_of(10) == length_of(1e9) == 1
    steps = [length_of(10.0**k) - length_of(10.0 ** (k - 1)) for k in (0, 1)]
    assert steps[0] == pytest.approx(steps[1], rel=0.05)


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -1.0, None])
def test_a_share_that_is_none_is_shown_as_not_known(
    shown: Shown, grab: Any, nonsense: float | None
) -> None:
    one = shown(Bar(), 200, 20)
    empty = grab(one)
    one.show_share(0.5)
    assert (grab(one) != empty).any()
    one.show_share(nonsense)
    assert (grab(one) == empty).all()


def test_it_fits_a_narrow_panel(mixer: Mixer) -> None:
    assert mixer.minimumSizeHint().width() <= 250
