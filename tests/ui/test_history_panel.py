"""The history and the queue as a person uses them: with real files, and an engine in a loop."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qasync
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QAccessible, QContextMenuEvent, QDesktopServices, QDropEvent
from PySide6.QtTest import QSignalSpy, QTest
from PySide6.QtWidgets import QApplication, QWidget

from studio import spec
from studio.diffusion.catalog import SAMPLERS
from studio.engine.engine import Engine
from studio.engine.events import Finished
from studio.engine.history import History, Item
from studio.engine.jobs import SampleJob, Setting
from studio.engine.queue import Queue
from studio.ui.history_panel import HistoryPanel
from studio.ui.queue_panel import QueuePanel
from studio.ui.tiles import Tiles, by_day

CLICK = Qt.MouseButton.LeftButton
NONE = Qt.KeyboardModifier.NoModifier
CONTROL = Qt.KeyboardModifier.ControlModifier


def result(
    seed: int, model: str = "critters-32", sampler: str = "heun", count: int = 2
) -> Finished:
    job = SampleJob(model, SAMPLERS[sampler](), count=count, seed=seed)
    pictures = np.full((count, 8, 8, 3), 20 * (seed % 10), np.uint8)
    return Finished(pictures, spec.to_dict(job), 40, 1.5)


def item(i: int, made: float, **values: Any) -> Item:
    kept = Item(f"{i:05d}", "sample", "m", "heun", i, 1, 8, 8, made, 1, 1.0, 100, False)
    return replace(kept, **values)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


async def settled(panel: HistoryPanel) -> None:
    """Until nothing is on its way any more."""
    panel._soon.isActive() and panel.refresh()
    for _ in range(3):
        for errands in (panel.errands, panel.searches, panel.fetches):
            await errands.done()
        await asyncio.sleep(0.02)  # thumbnails are asked for a little later


@pytest.fixture
def with_panel(qapp: QApplication, home: Path) -> Callable[..., None]:
    """Runs a coroutine function with a shown panel whose history holds results of these seeds."""
    qapp.setQuitOnLastWindowClosed(False)

    async def whole(work: Callable[..., Coroutine[Any, Any, None]], seeds: range) -> None:
        engine = Engine(Setting(shelf=None, device="cpu"))
        history = History(home / "history")
        for seed in seeds:
            model = "flowers-64" if seed % 2 else "critters-32"
            history.add(result(seed, model, "pc" if seed % 3 else "heun"))
        panel = HistoryPanel(engine, history, Queue(home / "queue.json", lambda entry: None))
        panel.resize(260, 600)
        panel.show()
        panel.activateWindow()
        panel.refresh()
        bugs = QSignalSpy(panel.bug)
        try:
            async with asyncio.timeout(120):
                await settled(panel)
                await work(panel)
        finally:
            await panel.close_up()
            await engine.close()
            panel.close()
            panel.deleteLater()
        assert bugs.count() == 0, bugs.at(0)

    def run(work: Callable[..., Coroutine[Any, Any, None]], seeds: range = range(6)) -> None:
        with qasync.QEventLoop(qapp) as loop:
            loop.run_until_complete(whole(work, seeds))
        assert not [t for t in threading.enumerate() if t.name in ("device", "io")]

    return run


def seeds(panel: HistoryPanel) -> list[int | None]:
    return [item.seed for item in panel.tiles.items]


def place(tiles: Tiles, row: int) -> QPoint:
    return tiles.visualRect(tiles.model().index(row, 0)).center()


def click(tiles: Tiles, row: int, modifiers: Qt.KeyboardModifier = NONE) -> None:
    QTest.mouseClick(tiles.viewport(), CLICK, modifiers, place(tiles, row))


# -- finding ------------------------------------------------------------------------------------


def test_results_are_listed_newest_first_with_their_thumbnails(with_panel):
    async def work(panel: HistoryPanel) -> None:
        assert seeds(panel) == [5, 4, 3, 2, 1, 0]
        assert set(panel.tiles._images) == {item.id for item in panel.tiles.items}
        assert panel.use.text().startswith("6 results, ")
        assert panel.limit_button.text() == "of 2 GB"
        assert panel.problem.isHidden()

    with_panel(work)


def test_what_is_typed_is_searched_a_moment_later(with_panel):
    async def work(panel: HistoryPanel) -> None:
        QTest.keyClicks(panel.search, "model:flow sampler:pc")
        await until(lambda: seeds(panel) == [5, 1])
        panel.search.setText("seed:4")
        await until(lambda: seeds(panel) == [4, 3])  # of two pictures, the second has the seed + 1
        panel.search.setText("nothing of this kind")
        await until(lambda: not seeds(panel))
        assert panel.tiles._empty[0] == "Nothing fits"
        panel.search.clear()
        await until(lambda: len(seeds(panel)) == 6)

    with_panel(work)


def test_only_those_with_a_star(with_panel):
    async def work(panel: HistoryPanel) -> None:
        panel.star([panel.tiles.items[2].id], True)
        await settled(panel)
        panel.only_starred.click()
        await until(lambda: seeds(panel) == [3])

    with_panel(work)


def test_a_new_result_comes_first_and_what_was_selected_stays(with_panel):
    async def work(panel: HistoryPanel) -> None:
        id = panel.tiles.items[1].id
        panel.select(id)
        added = QSignalSpy(panel.added)
        panel.add(result(77))
        await until(lambda: added.count())
        await settled(panel)
        assert seeds(panel)[0] == 77
        assert panel.selected() == [id]
        assert panel.use.text().startswith("7 results")
        panel.search.setText("flowers")
        panel.add(result(78))
        await settled(panel)
        assert seeds(panel) == [5, 3, 1]

    with_panel(work)


def test_results_that_make_room_leave_the_list(with_panel):
    async def work(panel: HistoryPanel) -> None:
        panel.history.bound = panel.history.disk_use().bytes * 13 // 12
        panel.add(result(77))
        await settled(panel)
        assert seeds(panel) == [77, 5, 4, 3, 2, 1]

    with_panel(work)


# -- what a person does -------------------------------------------------------------------------


def test_click_and_enter_open_but_selecting_does_not(with_panel):
    async def work(panel: HistoryPanel) -> None:
        tiles, opened = panel.tiles, QSignalSpy(panel.opened)
        click(tiles, 2)
        assert opened.at(0)[0] == tiles.items[2].id
        click(tiles, 4, CONTROL)
        assert panel.selected() == [tiles.items[2].id, tiles.items[4].id]
        click(tiles, 1, Qt.KeyboardModifier.ShiftModifier)
        QTest.keyClick(tiles, Qt.Key.Key_Right)
        assert opened.count() == 1
        QTest.keyClick(tiles, Qt.Key.Key_Return)
        assert opened.count() == 2

    with_panel(work)


def test_stars_by_click_and_by_key(with_panel):
    async def work(panel: HistoryPanel) -> None:
        tiles, opened = panel.tiles, QSignalSpy(panel.opened)
        spot = tiles._star_rect(1).center()
        QTest.mouseClick(tiles.viewport(), CLICK, NONE, spot)
        assert [item.starred for item in tiles.items] == [False, True, *[False] * 4]
        assert opened.count() == 0
        tiles.select([item.id for item in tiles.items[:2]])
        QTest.keyClick(tiles, Qt.Key.Key_S)
        await settled(panel)
        kept = panel.history.search(starred=True)
        assert [item.seed for item in kept] == [5, 4]
        QTest.keyClick(tiles, Qt.Key.Key_S)  # both have one: both lose it
        await settled(panel)
        assert panel.history.search(starred=True) == []

    with_panel(work)


def test_delete_with_undo(with_panel):
    async def work(panel: HistoryPanel) -> None:
        tiles = panel.tiles
        tiles.select([tiles.items[i].id for i in (1, 2, 4)])
        QTest.keyClick(tiles, Qt.Key.Key_Delete)
        assert seeds(panel) == [5, 2, 0]
        assert panel.selected() == [tiles.items[1].id]
        await until(lambda: not panel.undo_line.isHidden())
        assert panel.undo_text.text() == "Removed 3 results."
        await settled(panel)
        assert panel.use.text().startswith("3 results")
        panel.undo_button.click()
        await until(lambda: seeds(panel) == [5, 4, 3, 2, 1, 0])
        assert panel.undo_line.isHidden()
        QTest.keyClick(tiles, Qt.Key.Key_Delete)
        await until(lambda: not panel.undo_line.isHidden())
        QTest.keyClick(tiles, Qt.Key.Key_Z, CONTROL)
        await until(lambda: len(seeds(panel)) == 6)

    with_panel(work)


def test_what_was_removed_is_deleted_for_good_when_the_window_closes(with_panel, home):
    async def work(panel: HistoryPanel) -> None:
        panel.remove([item.id for item in panel.tiles.items])

    with_panel(work)
    assert not list((home / "history" / "pictures").iterdir())


def test_a_result_on_its_way_is_kept_when_the_window_closes(with_panel, home):
    async def work(panel: HistoryPanel) -> None:
        for seed in (50, 51, 52):
            panel.add(result(seed))

    with_panel(work)
    history = History(home / "history")
    assert [item.seed for item in history.search(limit=3)] == [52, 51, 50]
    history.close()


def test_the_menu_says_and_does_what_can_be_done(with_panel, monkeypatch):
    async def work(panel: HistoryPanel) -> None:
        items, shown = panel.tiles.items, []
        monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: shown.append(url))
        ids = [item.id for item in items[:2]]
        spies = {
            "historyOpen": QSignalSpy(panel.opened),
            "historyRecipe": QSignalSpy(panel.recipe_requested),
            "historyCompare": QSignalSpy(panel.compare_requested),
            "historySave": QSignalSpy(panel.save_requested),
        }
        menu = panel.menu_for(ids, ids[1])
        actions = {action.objectName(): action for action in menu.actions()}
        for name, spy in spies.items():
            actions[name].trigger()
            assert spy.at(0)[0] == (ids if name == "historyCompare" else ids[1])
        actions["historyReveal"].trigger()
        assert shown == [QUrl.fromLocalFile(str(panel.history.path(ids[1]).parent))]
        actions["historyStar"].trigger()
        await settled(panel)
        assert len(panel.history.search(starred=True)) == 2
        names = {a.objectName(): a for a in panel.menu_for(ids[:1], ids[0]).actions()}
        assert not names["historyCompare"].isVisible()
        assert names["historyStar"].text() == "Take the star away"
        actions["historyRemove"].trigger()
        assert seeds(panel) == [3, 2, 1, 0]

    with_panel(work)


def test_the_menu_opens_by_right_click_and_by_key(with_panel, qapp, monkeypatch):
    async def work(panel: HistoryPanel) -> None:
        tiles, asked = panel.tiles, []
        monkeypatch.setattr(panel, "_popup", lambda where: asked.append((panel.selected(), where)))
        ids = [item.id for item in tiles.items]
        middle = [tiles.viewport().mapToGlobal(place(tiles, row)) for row in range(2)]
        tiles.setFocus()
        for reason in (QContextMenuEvent.Reason.Mouse, QContextMenuEvent.Reason.Keyboard):
            tiles.select([ids[1]])
            qapp.sendEvent(tiles.viewport(), QContextMenuEvent(reason, place(tiles, 1), middle[1]))
        # A right click beside what is selected chooses what is under it.
        mouse = QContextMenuEvent.Reason.Mouse
        qapp.sendEvent(tiles.viewport(), QContextMenuEvent(mouse, place(tiles, 0), middle[0]))
        qapp.sendEvent(tiles.viewport(), QContextMenuEvent(mouse, QPoint(9, 9), QPoint(9, 9)))
        assert [ids for ids, _ in asked] == [[ids[1]], [ids[1]], [ids[0]]]
        assert [where for _, where in asked] == [middle[1], middle[1], middle[0]]

    with_panel(work)


def test_the_bound_can_be_chosen(with_panel):
    async def work(panel: HistoryPanel) -> None:
        told = QSignalSpy(panel.bound_changed)
        panel._fill_limits()
        actions = panel.limit_button.menu().actions()
        assert [a.text() for a in actions if a.isChecked()] == ["At most 2 GB"]
        actions[0].trigger()
        await settled(panel)
        assert panel.history.bound == told.at(0)[0] == 500 * 10**6
        assert panel.limit_button.text() == "of 500 MB"

    with_panel(work)


def test_results_are_dragged_out_as_files(with_panel):
    async def work(panel: HistoryPanel) -> None:
        ids = [item.id for item in panel.tiles.items[:2]]
        urls = panel.tiles.files_of(ids).urls()
        assert [Path(url.toLocalFile()).stem for url in urls] == ids
        assert all(Path(url.toLocalFile()).exists() for url in urls)
        index = panel.tiles.model().index(0, 0)
        assert index.flags() & Qt.ItemFlag.ItemIsDragEnabled

    with_panel(work)


def test_a_history_that_is_off_is_said_and_harms_nothing(qapp, home):
    home.mkdir()
    (home / "history").write_text("in the way")

    async def whole() -> None:
        engine = Engine(Setting(shelf=None, device="cpu"))
        panel = HistoryPanel(engine, History(home / "history"))
        panel.show()
        panel.refresh()
        panel.add(result(1))
        await settled(panel)
        assert "The history is off" in panel.problem.text()
        assert panel.tiles._empty[0] == "The history is off"
        await panel.close_up()
        await engine.close()
        panel.close()
        panel.deleteLater()

    with qasync.QEventLoop(qapp) as loop:
        loop.run_until_complete(whole())


# -- thumbnails -----------------------------------------------------------------------------------


@pytest.fixture
def tiles(shown: Any) -> Tiles:
    return shown(Tiles(lambda id: Path(id)), 260, 500)


def filled(tiles: Tiles, items: list[Item]) -> Tiles:
    tiles.set_items(items, by_day(items))
    QApplication.processEvents()
    return tiles


def noon(day: int) -> float:
    return datetime.datetime(2026, 7, day, 12).timestamp()


def test_days_are_those_of_the_calendar_here(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    try:
        late = datetime.datetime(2026, 7, 3, 23, 59, 59).timestamp()
        items = [
            item(3, late + 2),
            item(2, late),
            item(1, late - 86_000),
            item(0, late - 86_400 * 9),
        ]
        days = by_day(items)
        assert [(d.date.day, d.start, d.stop) for d in days] == [
            (4, 0, 1),
            (3, 1, 3),
            (24, 3, 4),
        ]
        assert by_day([]) == []
    finally:
        monkeypatch.undo()
        time.tzset()


def test_every_tile_is_where_it_is_found(tiles):
    filled(tiles, [item(i, noon(28 - i // 5)) for i in range(60)])
    seen = []
    for row in range(60):
        index = tiles.model().index(row, 0)
        tiles.scrollTo(index)
        rect = tiles.visualRect(index)
        assert tiles.viewport().rect().contains(rect.center())
        assert tiles.indexAt(rect.center()) == index
        seen.append(rect.translated(0, tiles.verticalOffset()))
    assert not any(a.intersects(b) for i, a in enumerate(seen) for b in seen[:i])
    assert not tiles.indexAt(QPoint(20, 5 - tiles.verticalOffset())).isValid()  # a heading


@pytest.mark.parametrize("width", [140, 260, 700])
def test_arrows_reach_every_tile_and_stop_at_the_ends(tiles, width):
    tiles.resize(width, 400)
    filled(tiles, [item(i, noon(28 - i // 5)) for i in range(23)])
    tiles.select(["00000"])
    for row in range(1, 23):
        QTest.keyClick(tiles, Qt.Key.Key_Right)
        assert tiles.currentIndex().row() == row
    QTest.keyClick(tiles, Qt.Key.Key_Right)
    assert tiles.currentIndex().row() == 22
    x = tiles.visualRect(tiles.currentIndex()).center().x()
    before = 22
    while tiles.currentIndex().row() != before or before == 22:
        before = tiles.currentIndex().row()
        QTest.keyClick(tiles, Qt.Key.Key_Up)
        row = tiles.currentIndex().row()
        assert row <= before
        assert tiles.visualRect(tiles.currentIndex()).center().x() <= x
        if row == before:
            break
    assert tiles.currentIndex().row() < 5  # the first day
    QTest.keyClick(tiles, Qt.Key.Key_End)
    assert tiles.currentIndex().row() == 22
    QTest.keyClick(tiles, Qt.Key.Key_PageUp)
    assert tiles.currentIndex().row() < 22
    QTest.keyClick(tiles, Qt.Key.Key_Home)
    assert tiles.currentIndex().row() == 0
    for _ in range(23):
        QTest.keyClick(tiles, Qt.Key.Key_Down)
    assert tiles.currentIndex().row() >= 20  # the last line of the last day


def test_selecting_all_and_a_span(tiles):
    filled(tiles, [item(i, noon(28 - i // 5)) for i in range(12)])
    tiles.select(["00002"])
    QTest.keyClick(tiles, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    QTest.keyClick(tiles, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    assert tiles.selected() == ["00002", "00003", "00004"]
    QTest.keyClick(tiles, Qt.Key.Key_A, CONTROL)
    assert len(tiles.selected()) == 12


def test_of_ten_thousand_only_those_in_view_are_wanted_and_drawn(tiles):
    wanted = QSignalSpy(tiles.wanted)
    filled(tiles, [item(i, noon(28) - 3600 * i) for i in range(10_000)])
    drawn = []
    real = tiles._paint_tile
    tiles._paint_tile = lambda painter, row, *rest: (drawn.append(row), real(painter, row, *rest))
    bar = tiles.verticalScrollBar()
    bar.setValue(bar.maximum() // 2)
    tiles.viewport().repaint()
    assert 4 <= len(set(drawn)) <= 20
    assert min(drawn) > 4000
    assert wanted.wait(2000)
    ids = wanted.at(wanted.count() - 1)[0]
    assert len(ids) < 60
    assert {f"{row:05d}" for row in drawn} <= set(ids)


def test_each_tile_tells_a_screen_reader_what_it_is(tiles):
    filled(tiles, [item(7, noon(1), starred=True, count=3)])
    told = tiles.model().index(0, 0).data(Qt.ItemDataRole.AccessibleTextRole)
    for part in ("m · heun · seed 7", "3 pictures 8 × 8", "starred", "1 network calls"):
        assert part in told
    seen = QAccessible.queryAccessibleInterface(tiles)
    assert seen.text(QAccessible.Text.Name) == "History"


def test_headings_stars_and_the_empty_state_are_drawn(tiles, grab):
    tiles.set_empty_text("No pictures yet", "Every result is kept here.")
    empty = grab(tiles)
    filled(tiles, [item(0, time.time()), item(1, time.time() - 86_400, starred=True)])
    model = tiles.model()
    names = [model.name_of(day.date) for day in tiles._days]
    assert names == ["Today", "Yesterday"]
    plain = grab(tiles)
    assert (plain != empty).any()
    tiles.set_starred(["00000"], True)
    assert (grab(tiles) != plain).any()


# -- the queue ------------------------------------------------------------------------------------


@pytest.fixture
def queue(home: Path) -> Queue:
    made = Queue(home / "queue.json", lambda entry: None)
    for name in "rabcd":
        made.put({"model": name, "sampler": {"kind": "pc"}, "seed": 3, "count": 16})
    return made


@pytest.fixture
def section(shown: Any, queue: Queue) -> QueuePanel:
    host = QWidget()
    made = QueuePanel(queue, host)
    made.resize(300, 300)
    shown(host, 300, 300)
    return made


def order(queue: Queue) -> str:
    return "".join(entry.recipe["model"] for entry in queue.waiting())


def listed(section: QueuePanel) -> str:
    texts = [section.list.item(row).text() for row in range(section.list.count())]
    return "".join(text.split()[1] for text in texts)


def test_the_queue_says_what_runs_and_what_waits(section, queue):
    assert section.running.text() == "r · pc · seed 3 · × 16"
    assert section.heading.text() == "Queue (5)"
    assert listed(section) == "abcd"
    queue.ended(queue.running.id)
    assert section.running.text().startswith("a")
    assert listed(section) == "bcd"


def test_a_queue_with_nothing_in_it_takes_no_room(shown, home):
    queue = Queue(home / "other.json", lambda entry: None)
    host = QWidget()
    section = QueuePanel(queue, host)
    shown(host, 300, 300)
    assert section.isHidden()
    queue.put({"model": "a"})
    assert section.isVisible()
    queue.ended(queue.running.id)
    assert section.isHidden()


def test_waiting_runs_are_moved_by_keys_and_dropped(section, queue):
    section.list.setFocus()
    section.list.setCurrentRow(2)
    QTest.keyClick(section.list, Qt.Key.Key_Up, CONTROL)
    assert order(queue) == listed(section) == "acbd"
    QTest.keyClick(section.list, Qt.Key.Key_Down, CONTROL)
    QTest.keyClick(section.list, Qt.Key.Key_Down, CONTROL)
    QTest.keyClick(section.list, Qt.Key.Key_Down, CONTROL)
    assert order(queue) == "abdc"
    QTest.keyClick(section.list, Qt.Key.Key_Home, CONTROL)
    assert order(queue) == "cabd"
    QTest.keyClick(section.list, Qt.Key.Key_Delete)
    assert order(queue) == listed(section) == "abd"


def test_buttons_jump_ahead_and_drop(section, queue):
    assert not section.jump.isEnabled()
    section.list.item(3).setSelected(True)
    section.list.item(1).setSelected(True)
    section.jump.click()
    assert order(queue) == "bdac"
    section.drop.click()
    assert order(queue) == "ac"


def test_a_drag_changes_the_order(section, queue):
    section.list.setCurrentRow(3)
    section.list.source = lambda: section.list
    for row, wanted in ((0, "dabc"), (None, "abcd")):
        rect = section.list.visualItemRect(section.list.item(row or 0))
        at = QPointF(rect.center()) if row is not None else QPointF(5, rect.height() * 4 + 1)
        event = _Drop(section.list, at)
        section.list.dropEvent(event)
        assert event.dropAction() == Qt.DropAction.IgnoreAction
        assert order(queue) == listed(section) == wanted


class _Drop(QDropEvent):
    """A drop of the list's own rows: only a real drag has a source."""

    def __init__(self, source: QWidget, at: QPointF) -> None:
        self._data = QMimeData()
        super().__init__(at, Qt.DropAction.MoveAction, self._data, CLICK, NONE)
        self._source = source

    def source(self) -> QWidget:
        return self._source


def test_what_an_earlier_session_left_is_offered(shown, queue, home):
    again = Queue(home / "queue.json", lambda entry: None)
    host = QWidget()
    section = QueuePanel(again, host)
    shown(host, 300, 300)
    assert section.offer_text.text() == "5 runs were waiting when the studio was left."
    assert section.list.isHidden()
    section.accept_button.click()
    assert section.offer.isHidden()
    assert listed(section) == "abcd"
    section.decline_button.click()
    assert order(again) == "abcd"


def test_a_queue_that_cannot_be_kept_says_so(shown, tmp_path):
    (tmp_path / "file").write_text("in the way")
    queue = Queue(tmp_path / "file" / "queue.json", lambda entry: None)
    host = QWidget()
    section = QueuePanel(queue, host)
    shown(host, 300, 300)
    queue.put({"model": "a"})
    assert "only until the studio is closed" in section.problem.text()
