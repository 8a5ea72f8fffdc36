"""The history strip: newest first, opened by click and Enter, taken out by Delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QSignalSpy, QTest
from PySide6.QtWidgets import QMenu

from studio.ui.gallery import KEPT, Gallery


def picture(value: int = 128, side: int = 32) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


@pytest.fixture
def gallery(shown: Callable[..., Any]) -> Gallery:
    return shown(Gallery(), 360, 300)


@pytest.fixture
def filled(gallery: Gallery) -> Gallery:
    for i, key in enumerate("abc"):
        gallery.add(key, picture(40 * i), f"seed {i}")
    return gallery


def told(spy: QSignalSpy) -> list[str]:
    return [spy.at(i)[0] for i in range(spy.count())]


def place(gallery: Gallery, row: int) -> QPoint:
    return gallery.visualRect(gallery.model().index(row, 0)).center()


def test_the_newest_is_first_and_a_known_key_moves_up(filled: Gallery) -> None:
    assert filled.keys() == ["c", "b", "a"]
    filled.add("a", picture(), "again")
    assert filled.keys() == ["a", "c", "b"]
    filled.remove("c")
    filled.remove("never there")
    assert filled.keys() == ["a", "b"]


def test_a_click_opens(filled: Gallery) -> None:
    opened = QSignalSpy(filled.opened)
    QTest.mouseClick(
        filled.viewport(),
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        place(filled, 1),
    )
    assert told(opened) == ["b"]
    assert filled.selected() == "b"


def test_enter_opens_and_arrows_only_move(filled: Gallery) -> None:
    opened = QSignalSpy(filled.opened)
    filled.select("c")
    QTest.keyClick(filled, Qt.Key.Key_Right)
    assert filled.selected() == "b"
    assert opened.count() == 0
    QTest.keyClick(filled, Qt.Key.Key_Return)
    assert told(opened) == ["b"]


def test_delete_takes_out_and_goes_on_to_the_next(filled: Gallery) -> None:
    removed = QSignalSpy(filled.removed)
    filled.select("b")
    QTest.keyClick(filled, Qt.Key.Key_Delete)
    assert told(removed) == ["b"]
    assert filled.keys() == ["c", "a"]
    assert filled.selected() == "a"
    QTest.keyClick(filled, Qt.Key.Key_Delete)
    QTest.keyClick(filled, Qt.Key.Key_Delete)
    QTest.keyClick(filled, Qt.Key.Key_Delete)
    assert filled.keys() == []
    assert told(removed) == ["b", "a", "c"]


def test_the_menu_saves_recalls_and_removes(filled: Gallery) -> None:
    spies = [
        QSignalSpy(s)
        for s in (filled.opened, filled.save_requested, filled.recipe_requested, filled.removed)
    ]
    menu = filled.menu_for("b")
    assert isinstance(menu, QMenu)
    for action in menu.actions():
        if not action.isSeparator():
            action.trigger()
    assert [told(spy) for spy in spies] == [["b"]] * 4
    assert filled.keys() == ["c", "a"]


def test_code_changes_are_silent(filled: Gallery) -> None:
    opened, removed = QSignalSpy(filled.opened), QSignalSpy(filled.removed)
    filled.select("a")
    filled.remove("a")
    filled.clear()
    assert opened.count() == removed.count() == 0
    assert filled.keys() == []


def test_the_oldest_leave_silently(gallery: Gallery) -> None:
    removed = QSignalSpy(gallery.removed)
    for i in range(KEPT + 5):
        gallery.add(str(i), picture(side=4), "")
    assert len(gallery.keys()) == KEPT
    assert gallery.keys()[0] == str(KEPT + 4)
    assert gallery.keys()[-1] == "5"
    assert removed.count() == 0


@pytest.mark.parametrize("side", [16, 32, 64, 72, 256])
def test_thumbnails_show_the_picture(gallery: Gallery, grab, side: int) -> None:
    gallery.add("x", np.full((side, side, 1), 200, np.uint8), "")
    gallery.clearFocus()
    box = gallery.visualRect(gallery.model().index(0, 0))
    x, y = box.center().x(), box.top() + 6 + 36
    assert list(grab(gallery.viewport())[y, x]) == [200, 200, 200]


def test_the_empty_strip_says_what_comes_here(gallery: Gallery, grab) -> None:
    assert len(np.unique(grab(gallery.viewport()).reshape(-1, 3), axis=0)) > 10
    assert gallery.accessibleDescription() == "No pictures yet"
    assert gallery.objectName() == "history"
    assert gallery.accessibleName() == "History"
    assert gallery.toolTip()
