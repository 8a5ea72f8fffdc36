"""The live grid: true pixels, cheap frames, and every key and click does what is said."""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QContextMenuEvent, QKeyEvent, QWheelEvent
from PySide6.QtTest import QSignalSpy, QTest
from PySide6.QtWidgets import QApplication

from studio.ui.picture_view import PictureView


def pictures(count: int, height: int = 64, width: int = 64, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, height, width, channels), np.uint8)


@pytest.fixture
def view(shown: Callable[..., Any]) -> PictureView:
    return shown(PictureView(), 800, 600)


def click(
    view: PictureView, index: int, button: Qt.MouseButton = Qt.MouseButton.LeftButton
) -> None:
    where = view.cell_rect(index).center().toPoint()
    QTest.mouseClick(view, button, Qt.KeyboardModifier.NoModifier, where)


def double_click(view: PictureView, where: QPoint) -> None:
    """As a screen sends it: press, release, double click, release."""
    QTest.mouseClick(view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, where)
    QTest.mouseDClick(view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, where)


def turn(view: PictureView, where: QPointF, notches: int) -> None:
    event = QWheelEvent(
        where,
        view.mapToGlobal(where),
        QPoint(),
        QPoint(0, 120 * notches),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(view, event)


def seen(view: PictureView, index: int, grab) -> np.ndarray:
    """The screen pixels of one cell."""
    box = view.cell_rect(index).toRect()
    return grab(view)[box.top() : box.bottom() + 1, box.left() : box.right() + 1]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "height", "width"), [(1, 64, 64), (5, 32, 32), (16, 21, 63)])
def test_what_is_seen_are_the_true_pixels(
    view: PictureView, grab, count: int, height: int, width: int, channels: int
) -> None:
    shown = pictures(count, height, width, channels)
    view.set_pictures(shown)
    view.clearFocus()
    scale = round(view.zoom)
    assert scale == view.zoom >= 2
    for i in range(count):
        enlarged = shown[i].repeat(scale, 0).repeat(scale, 1)
        expected = np.broadcast_to(enlarged, (*enlarged.shape[:2], 3))
        np.testing.assert_array_equal(seen(view, i, grab), expected)


def test_at_one_hundred_per_cent_pixels_are_exact(view: PictureView, grab) -> None:
    shown = pictures(4, 128, 128)
    view.set_pictures(shown)
    view.clearFocus()
    view.zoom_true()
    assert view.zoom == 1.0
    np.testing.assert_array_equal(seen(view, 3, grab), shown[3])


def test_frames_are_copies(view: PictureView, grab) -> None:
    shown = pictures(2)
    view.set_pictures(shown)
    before = grab(view)
    kept = shown[1].copy()
    shown[:] = 0
    np.testing.assert_array_equal(grab(view), before)
    np.testing.assert_array_equal(view.picture(1), kept)
    with pytest.raises(IndexError):
        view.picture(2)


def test_sixty_four_pictures_are_all_in_view_and_apart(view: PictureView) -> None:
    view.set_pictures(pictures(64, 32, 32))
    boxes = [view.cell_rect(i) for i in range(64)]
    assert all(view.rect().contains(box.toRect()) for box in boxes)
    for i, box in enumerate(boxes):
        assert not any(box.intersects(other) for other in boxes[i + 1 :])
        assert view.index_at(box.center()) == i


def test_pictures_of_another_kind_are_refused(view: PictureView) -> None:
    for wrong in (np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((1, 8, 8, 4))):
        with pytest.raises(ValueError, match="uint8"):
            view.set_pictures(wrong)


def test_a_click_opens_a_picture_and_a_click_closes_it(view: PictureView) -> None:
    view.set_pictures(pictures(4))
    told = QSignalSpy(view.solo_changed)
    grid = view.cell_rect(2)
    click(view, 2)
    assert view.solo == 2
    assert view.cell_rect(2).width() > grid.width()
    assert view.cell_rect(0).isEmpty()
    click(view, 2)
    assert view.solo is None
    assert view.cell_rect(2) == grid
    assert [told.at(i)[0] for i in range(told.count())] == [2, None]


@pytest.mark.parametrize("key", [Qt.Key.Key_Escape, Qt.Key.Key_Backspace])
def test_keys_open_move_and_go_back(view: PictureView, key: Qt.Key) -> None:
    view.set_pictures(pictures(4))
    QTest.keyClick(view, Qt.Key.Key_Right)
    QTest.keyClick(view, Qt.Key.Key_Down)
    assert view.current == 3
    QTest.keyClick(view, Qt.Key.Key_Return)
    assert view.solo == 3
    QTest.keyClick(view, Qt.Key.Key_Left)
    assert view.solo == view.current == 2
    QTest.keyClick(view, key)
    assert view.solo is None
    QTest.keyClick(view, Qt.Key.Key_Home)
    assert view.current == 0
    QTest.keyClick(view, Qt.Key.Key_Up)
    assert view.current == 0


def test_escape_is_taken_only_while_one_picture_is_alone(view: PictureView) -> None:
    def taken() -> bool:
        event = QKeyEvent(
            QEvent.Type.ShortcutOverride, Qt.Key.Key_Escape, Qt.KeyboardModifier.NoModifier
        )
        event.ignore()
        QApplication.sendEvent(view, event)
        return event.isAccepted()

    view.set_pictures(pictures(4))
    assert not taken()
    view.solo = 1
    assert taken()


def test_the_focus_ring_shows_where_the_keys_are(view: PictureView, grab) -> None:
    view.set_pictures(pictures(4))
    first = grab(view)
    QTest.keyClick(view, Qt.Key.Key_Right)
    assert (grab(view) != first).any()


def test_the_wheel_zooms_around_the_cursor(view: PictureView, grab) -> None:
    view.set_pictures(pictures(4))
    told = QSignalSpy(view.zoom_changed)
    box = view.cell_rect(1)
    where = box.topLeft() + QPointF(box.width() * 0.25, box.height() * 0.75)
    before = view.zoom
    turn(view, where, 3)
    assert view.zoom > before
    assert view.zoom == round(view.zoom)
    after = view.cell_rect(1)
    share = (where - after.topLeft()) / after.width()
    assert share.x() == pytest.approx(0.25, abs=0.02)
    assert share.y() == pytest.approx(0.75, abs=0.02)
    assert told.at(told.count() - 1)[0] == view.zoom
    turn(view, where, 40)
    assert view.zoom == 64.0
    turn(view, where, -60)
    assert view.fits
    assert view.zoom == before


def test_every_notch_of_the_wheel_does_something(view: PictureView) -> None:
    view.set_pictures(pictures(1, 512, 512))
    scales = [view.zoom]
    while view.zoom < 64:
        turn(view, QPointF(400, 300), 1)
        scales.append(view.zoom)
    assert all(a < b for a, b in itertools.pairwise(scales))
    assert all(s == int(s) for s in scales if s >= 2)


def test_keys_zoom_fit_and_show_true_pixels(view: PictureView) -> None:
    view.set_pictures(pictures(1, 32, 32))
    fit = view.zoom
    QTest.keyClick(view, Qt.Key.Key_Plus)
    assert view.zoom > fit
    control, alt = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.AltModifier
    QTest.keyClick(view, Qt.Key.Key_0, control)
    assert view.zoom == fit
    QTest.keyClick(view, Qt.Key.Key_0, control | alt)
    assert view.zoom == 1.0
    assert view.cell_rect(0).width() == 32


def test_dragging_pans_and_is_no_click(view: PictureView) -> None:
    view.set_pictures(pictures(4))
    view.zoom_by(8)
    before = view.cell_rect(0).topLeft()
    none = Qt.KeyboardModifier.NoModifier
    QTest.mousePress(view, Qt.MouseButton.LeftButton, none, QPoint(400, 300))
    QTest.mouseMove(view, QPoint(430, 310))
    QTest.mouseMove(view, QPoint(450, 320))
    QTest.mouseRelease(view, Qt.MouseButton.LeftButton, none, QPoint(450, 320))
    assert view.cell_rect(0).topLeft() - before == QPointF(50, 20)
    assert view.solo is None


def test_a_double_click_fits_and_stays_where_it_was(view: PictureView) -> None:
    view.set_pictures(pictures(4))
    view.solo = 1
    fit = view.zoom
    view.zoom_by(4)
    double_click(view, QPoint(400, 300))
    assert view.solo == 1
    assert view.zoom == fit


def test_going_between_solos_keeps_the_place(view: PictureView) -> None:
    view.set_pictures(pictures(4))
    view.solo = 0
    view.zoom_by(4, QPointF(100, 100))
    place = view.cell_rect(0)
    QTest.keyClick(view, Qt.Key.Key_Right)
    assert view.solo == 1
    assert view.cell_rect(1) == place


def test_a_new_frame_keeps_zoom_and_solo(view: PictureView) -> None:
    view.set_pictures(pictures(4))
    view.solo = 2
    view.zoom_by(4)
    zoom = view.zoom
    view.set_pictures(pictures(4) // 2)
    assert (view.solo, view.zoom) == (2, zoom)


def test_fewer_pictures_end_a_solo_that_is_gone(view: PictureView) -> None:
    view.set_pictures(pictures(4))
    view.solo = 3
    told = QSignalSpy(view.solo_changed)
    view.set_pictures(pictures(2))
    assert view.solo is None
    assert told.count() == 1
    assert view.current == 1


def test_the_menu_is_asked_for_with_the_picture(view: PictureView) -> None:
    view.set_pictures(pictures(4))
    told = QSignalSpy(view.context_menu_requested)
    where = view.cell_rect(2).center().toPoint()
    mouse = QContextMenuEvent.Reason.Mouse
    QApplication.sendEvent(view, QContextMenuEvent(mouse, where, view.mapToGlobal(where)))
    keyboard = QContextMenuEvent.Reason.Keyboard
    QApplication.sendEvent(view, QContextMenuEvent(keyboard, QPoint(), QPoint()))
    assert [told.at(i)[0] for i in range(told.count())] == [2, 2]
    assert told.at(1)[1] == view.mapToGlobal(where)


def test_the_empty_state_speaks(view: PictureView, grab) -> None:
    view.set_empty_text("Press Run", "Four critters will emerge from noise.")
    said = grab(view)
    assert len(np.unique(said.reshape(-1, 3), axis=0)) > 20
    view.set_pictures(pictures(2))
    view.clear()
    np.testing.assert_array_equal(grab(view), said)
    QTest.keyClick(view, Qt.Key.Key_Right)
    click(view, 0)
    assert view.solo is None


def test_screen_readers_hear_what_is_shown(view: PictureView) -> None:
    view.set_pictures(pictures(4))
    view.set_captions(["seed 1", "seed 2", "seed 3", "seed 4"])
    view.set_hud("step 31 of 100")
    view.current = 2
    assert view.accessibleName() == "Nothing here yet"
    view._speech.timeout.emit()
    assert view.accessibleName() == "4 pictures, step 31 of 100"
    assert view.accessibleDescription() == "Picture 3 of 4, seed 3"


def test_the_hud_leaves_the_pictures_free(view: PictureView, grab) -> None:
    shown = pictures(1)
    view.set_pictures(shown)
    view.set_hud("σ 12.4 · step 31/100")
    scale = int(view.zoom)
    np.testing.assert_array_equal(seen(view, 0, grab), shown[0].repeat(scale, 0).repeat(scale, 1))


def test_painting_takes_no_references_of_none(view: PictureView) -> None:
    # PySide6 6.12.0 loses one with every call on a painter, until Python 3.11 aborts.
    view.set_pictures(pictures(4, 16, 16))
    view.set_hud("σ 1")
    view.repaint()
    gc.collect()
    before = sys.getrefcount(None)
    for _ in range(1000):
        view.repaint()
    gc.collect()
    assert sys.getrefcount(None) > before - 20


def test_a_frame_of_sixteen_costs_under_three_milliseconds(view: PictureView) -> None:
    frames = [pictures(16), pictures(16) // 2]
    spent = []
    for i in range(120):
        # Time of this process: the machine may be busy with something else.
        start = time.process_time()
        view.set_pictures(frames[i % 2])
        view.repaint()
        spent.append(time.process_time() - start)
    assert statistics.median(spent) < 0.003


def test_the_widget_can_be_found_and_explains_itself(view: PictureView) -> None:
    assert view.objectName() == "sampleView"
    assert view.toolTip()
    assert view.accessibleName()
