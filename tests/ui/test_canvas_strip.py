"""The candidates: what is seen while they form, and what a person can do with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QPushButton

from studio.ui import theme
from studio.ui.canvas.strip import CandidateStrip
from ui.conftest import Shown

pytestmark = pytest.mark.usefixtures("qapp")

RED, GREEN, BLUE, WHITE = (230, 20, 20), (20, 200, 20), (20, 20, 230), (255, 255, 255)


def stack(*colours: tuple[int, int, int], side: int = 8) -> np.ndarray:
    """A picture of each colour."""
    return np.stack([np.full((side, side, 3), colour, np.uint8) for colour in colours])


def seen(grab: Any, strip: CandidateStrip, index: int) -> tuple[int, int, int]:
    """The colour in the middle of a place."""
    strip.thumbnails.repaint()
    where = strip.thumbnails.place(index).center().toPoint() - QPoint(0, 8)
    return tuple(int(v) for v in grab(strip.thumbnails)[where.y(), where.x()])


def click(strip: CandidateStrip, index: int) -> None:
    where = strip.thumbnails.place(index).center().toPoint()
    QTest.mouseClick(strip.thumbnails, Qt.MouseButton.LeftButton, pos=where)


def enabled(strip: CandidateStrip) -> set[str]:
    return {b.text() for b in strip.findChildren(QPushButton) if b.isEnabled()}


@pytest.fixture
def strip(shown: Shown) -> CandidateStrip:
    return shown(CandidateStrip(), 640, 140)


@pytest.fixture
def told(strip: CandidateStrip) -> list[Any]:
    """What the strip tells, in order."""
    heard: list[Any] = []
    for name in ("chosen", "accepted", "discarded"):
        getattr(strip, name).connect(lambda i, name=name: heard.append((name, i)))
    strip.cleared.connect(lambda: heard.append("cleared"))
    strip.more_requested.connect(lambda: heard.append("more"))
    strip.wipe_toggled.connect(lambda on: heard.append(("wipe", on)))
    strip.doubt_toggled.connect(lambda on: heard.append(("doubt", on)))
    return heard


def test_an_empty_strip_says_what_to_do_and_offers_nothing(strip: CandidateStrip) -> None:
    assert strip.count == 0
    assert strip.current is None
    assert enabled(strip) == set()
    assert "Run" in strip.thumbnails.accessibleDescription()


def test_a_run_shows_its_places_before_its_pictures(strip: CandidateStrip) -> None:
    strip.set_forming(4)
    assert (strip.count, strip.current, strip.forming) == (0, None, True)
    assert "4" in strip.thumbnails.accessibleDescription()
    assert strip.thumbnails.place_at(strip.thumbnails.place(3).center()) == 3
    assert enabled(strip) == {"Discard all"}


def test_pictures_are_shown_in_their_own_pixels(strip: CandidateStrip, grab: Any) -> None:
    strip.set_pictures(stack(RED, GREEN))
    assert (strip.count, strip.current) == (2, 0)
    assert seen(grab, strip, 0) == RED
    assert seen(grab, strip, 1) == GREEN


def test_large_pictures_are_made_smaller_by_means(strip: CandidateStrip, grab: Any) -> None:
    board = np.indices((256, 256)).sum(0) % 2 * 255
    strip.set_pictures(np.repeat(board[None, ..., None], 3, axis=3).astype(np.uint8))
    assert seen(grab, strip, 0) == pytest.approx((128, 128, 128), abs=12)


def test_grey_pictures_are_shown_too(strip: CandidateStrip, grab: Any) -> None:
    strip.set_pictures(np.full((1, 8, 8, 1), 77, np.uint8))
    assert seen(grab, strip, 0) == (77, 77, 77)


def test_the_array_may_change_afterwards(strip: CandidateStrip, grab: Any) -> None:
    pictures = stack(RED)
    strip.set_pictures(pictures)
    pictures[:] = 0
    assert strip.picture(0)[0, 0].tolist() == list(RED)
    strip.resize(620, 160)
    assert seen(grab, strip, 0) == RED


def test_earlier_pictures_stay_faded_until_the_new_run_has_one(
    strip: CandidateStrip, grab: Any
) -> None:
    strip.set_pictures(stack(RED, RED))
    strip.set_forming(4)
    assert seen(grab, strip, 0) != RED
    assert "the run before" in strip.thumbnails.accessibleDescription()
    strip.set_pictures(stack(BLUE, BLUE))
    assert [seen(grab, strip, i) for i in (0, 1)] == [BLUE, BLUE]
    assert BLUE != seen(grab, strip, 2) != RED
    assert strip.forming
    strip.set_pictures(stack(GREEN, GREEN, GREEN, GREEN))
    strip.finish()
    assert [seen(grab, strip, i) for i in range(4)] == [GREEN] * 4


def test_more_pictures_than_the_next_run_forms_give_way_to_its_first(
    strip: CandidateStrip,
) -> None:
    strip.set_pictures(stack(RED, RED, RED))
    strip.choose(2)
    strip.set_forming(2)
    assert strip.count == 3
    strip.set_pictures(stack(BLUE, BLUE))
    assert (strip.count, strip.current) == (2, 1)


def test_a_run_that_is_cancelled_early_leaves_no_empty_places(
    strip: CandidateStrip, grab: Any
) -> None:
    strip.set_pictures(stack(RED))
    strip.set_forming(4)
    strip.finish()
    assert strip.count == 1
    assert seen(grab, strip, 0) == RED
    assert strip.thumbnails.place_at(strip.thumbnails.place(1).center()) is None
    strip.clear()
    strip.set_forming(4)
    strip.finish()
    assert strip.count == 0
    assert strip.thumbnails.place_at(strip.thumbnails.place(0).center()) is None
    assert "Run" in strip.thumbnails.accessibleDescription()


def test_half_formed_pictures_of_a_run_that_gave_way_cannot_be_accepted(
    strip: CandidateStrip, told: list[Any]
) -> None:
    strip.set_forming(2)
    strip.set_pictures(stack(RED, RED))
    strip.set_forming(2)
    assert strip.count == 2
    strip.finish()
    assert (strip.count, strip.current) == (0, None)
    strip.accept()
    assert told == []


def test_the_choice_stays_while_pictures_form(strip: CandidateStrip, told: list[Any]) -> None:
    strip.set_forming(3)
    strip.set_pictures(stack(RED, GREEN, BLUE))
    strip.choose(1)
    strip.set_pictures(stack(BLUE, RED, GREEN))
    strip.finish()
    strip.set_forming(3)
    strip.set_pictures(stack(RED, GREEN, BLUE))
    assert strip.current == 1
    assert told == [("chosen", 1)]


def test_a_click_chooses_and_a_double_click_accepts(strip: CandidateStrip, told: list[Any]) -> None:
    strip.set_pictures(stack(RED, GREEN, BLUE))
    click(strip, 2)
    assert told == [("chosen", 2)]
    where = strip.thumbnails.place(1).center().toPoint()
    QTest.mouseClick(strip.thumbnails, Qt.MouseButton.LeftButton, pos=where)
    QTest.mouseDClick(strip.thumbnails, Qt.MouseButton.LeftButton, pos=where)
    assert told[1:] == [("chosen", 1), ("accepted", 1)]


def test_keys_flip_round_and_round_accept_and_discard(
    strip: CandidateStrip, told: list[Any]
) -> None:
    strip.set_pictures(stack(RED, GREEN, BLUE))
    keys = (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Left)
    for key in keys:
        QTest.keyClick(strip.thumbnails, key)
    assert told == [("chosen", i) for i in (1, 2, 0, 2)]
    QTest.keyClick(strip.thumbnails, Qt.Key.Key_Return)
    assert told[-1] == ("accepted", 2)
    QTest.keyClick(strip.thumbnails, Qt.Key.Key_Delete)
    assert told[-2:] == [("discarded", 2), ("chosen", 1)]
    assert strip.count == 2


def test_discarding_takes_out_that_picture_and_its_caption(
    strip: CandidateStrip, told: list[Any]
) -> None:
    strip.set_pictures(stack(RED, GREEN, BLUE))
    strip.set_captions(["seed 5", "seed 6", "seed 7"])
    strip.choose(1)
    strip.discard()
    assert [strip.picture(i)[0, 0].tolist() for i in range(2)] == [list(RED), list(BLUE)]
    assert "seed 7" in strip.thumbnails.accessibleDescription()
    strip.discard()
    strip.discard()
    strip.discard()
    assert [name for name, _ in told].count("discarded") == 3
    assert (strip.count, strip.current) == (0, None)
    assert enabled(strip) == set()


def test_nothing_half_formed_can_be_accepted_or_discarded(
    strip: CandidateStrip, told: list[Any]
) -> None:
    strip.set_forming(2)
    strip.set_pictures(stack(RED, GREEN))
    for key in (Qt.Key.Key_Return, Qt.Key.Key_Delete):
        QTest.keyClick(strip.thumbnails, key)
    strip.accept()
    strip.discard()
    assert told == []
    assert enabled(strip) == {"Discard all", "Wipe", "Doubt"}
    strip.finish()
    assert enabled(strip) == {"Accept", "Discard", "Discard all", "More", "Wipe", "Doubt"}


def test_every_button_tells_what_it_is_for(strip: CandidateStrip, told: list[Any]) -> None:
    strip.set_pictures(stack(RED, GREEN))
    for button in (strip.accept_button, strip.more, strip.wipe, strip.doubt, strip.wipe):
        button.click()
    strip.discard_button.click()
    strip.clear_button.click()
    assert told == [
        ("accepted", 0),
        "more",
        ("wipe", True),
        ("doubt", True),
        ("wipe", False),
        ("discarded", 0),
        ("chosen", 0),
        "cleared",
    ]
    assert strip.count == 0
    for button in strip.findChildren(QPushButton):
        assert button.toolTip()
        assert button.accessibleName()
        assert button.objectName().startswith("candidate")


def test_one_picture_alone_has_no_doubt(strip: CandidateStrip) -> None:
    strip.set_pictures(stack(RED))
    assert not strip.doubt.isEnabled()
    assert strip.wipe.isEnabled()


def test_the_comparison_lasts_through_a_live_run(strip: CandidateStrip, told: list[Any]) -> None:
    strip.set_pictures(stack(RED, GREEN))
    strip.wipe.click()
    strip.set_forming(2)
    strip.set_pictures(stack(BLUE, BLUE))
    strip.finish()
    assert strip.wipe.isChecked()
    assert told == [("wipe", True)]


def test_candidates_beyond_the_edge_come_into_view_when_they_are_chosen(
    strip: CandidateStrip,
) -> None:
    strip.set_pictures(stack(*[RED] * 20))
    assert strip.thumbnails.place(19).left() > strip.width()
    strip.flip(-1)
    assert strip.current == 19
    assert strip.thumbnails.place(19).right() <= strip.width() + 1
    strip.flip(1)
    assert strip.thumbnails.place(0).left() == 0


def test_the_note_says_all_of_itself_in_its_tooltip(strip: CandidateStrip) -> None:
    long = "kept pixels unchanged " * 20
    strip.set_note(long, "good")
    assert strip.note.toolTip() == long
    assert 0 < strip.note.width() < 640
    strip.clear()
    assert strip.note.text() == ""


def test_a_narrow_strip_takes_two_lines_for_its_verbs(shown: Shown) -> None:
    strip = shown(CandidateStrip(), 300, 200)
    strip.set_pictures(stack(RED, GREEN))
    strip.set_note("kept pixels unchanged", "good")
    shown(strip, 300, 200)
    assert strip.minimumSizeHint().width() <= 300
    inside = strip.rect()
    for child in (strip.accept_button, strip.doubt, strip.note):
        assert inside.contains(child.geometry()), child.objectName()
    assert strip.doubt.y() > strip.accept_button.y()
    assert strip.thumbnails.geometry().bottom() < strip.accept_button.y()


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 0, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3)),
    ],
    ids=["no channels", "four channels", "no pixels", "no bytes"],
)
def test_what_is_no_stack_of_pictures_is_refused(strip: CandidateStrip, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        strip.set_pictures(wrong)
    assert strip.count == 0


def test_no_picture_moves_where_nothing_is_awaited(strip: CandidateStrip) -> None:
    glow = strip.thumbnails._pulse
    strip.set_forming(2)
    assert glow.isActive()
    strip.set_pictures(stack(RED, GREEN))
    assert not glow.isActive()
    strip.set_forming(3)
    strip.hide()
    assert not glow.isActive()
    strip.show()
    assert glow.isActive()
    strip.finish()
    assert not glow.isActive()


def test_it_is_drawn_in_the_colours_of_the_moment(
    strip: CandidateStrip, grab: Any, qapp: Any
) -> None:
    strip.set_pictures(stack(WHITE, WHITE))
    light = grab(strip.thumbnails)
    try:
        theme.apply(qapp, "dark")
        assert np.abs(grab(strip.thumbnails).astype(int) - light).mean() > 20
    finally:
        theme.apply(qapp, "light")
