"""The history, the queue, branches and files of runs in the Sample mode, as a person uses them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qasync
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QMessageBox

from studio import app, spec
from studio.diffusion.catalog import SAMPLERS
from studio.engine.events import Finished
from studio.engine.jobs import SampleJob, Setting
from studio.engine.paint import PaintJob, PaintRecipe
from studio.settings import Settings
from studio.ui.branches import ROW
from studio.ui.canvas.document import Document
from studio.ui.main_window import MainWindow
from studio.ui.tabs.sample import SampleTab

Work = Callable[[MainWindow, SampleTab], Coroutine[Any, Any, None]]


@pytest.fixture
def with_tab(qapp: Any, home: Path, tiny_checkpoint: Path) -> Callable[..., None]:
    """Runs a coroutine function with an open window and its Sample mode; may be called again, as a
    later session."""
    qapp.setQuitOnLastWindowClosed(False)
    (home / "models").mkdir(parents=True)
    tiny_checkpoint.rename(home / "models" / "tiny")

    async def whole(work: Work) -> None:
        window = app.build(Settings(model="tiny", rate=60.0))
        window.show()
        window.activateWindow()
        tab = window.tabs["sample"]
        assert isinstance(tab, SampleTab)
        try:
            tab.panel.sampler.set_value(SAMPLERS["ancestral"](steps=12))
            tab.panel.count.setValue(2)
            async with asyncio.timeout(120):
                await work(window, tab)
        finally:
            await window.shutdown()

    def run(work: Work) -> None:
        with qasync.QEventLoop(qapp) as loop:
            loop.run_until_complete(whole(work))

    return run


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def ran(tab: SampleTab) -> None:
    """Until nothing runs or waits, and the results are on disk."""
    await until(lambda: not tab.runner.busy and tab.session.queue.running is None)
    await tab.history.errands.done()


async def run(tab: SampleTab) -> np.ndarray:
    tab.start()
    await ran(tab)
    assert tab.result is not None
    return tab.result.pictures


def go_to(tab: SampleTab, share: float) -> None:
    """The playhead to a kept moment."""
    times = tab.walk.timeline.times
    tab.walk.timeline._scrub(times[int(share * (len(times) - 1))])


async def answer(window: MainWindow, text: str) -> str:
    """Press a button of the question that comes; what it said."""
    await until(lambda: window.findChild(QMessageBox, "question"))
    question = window.findChild(QMessageBox, "question")
    assert question is not None
    said = f"{question.text()} {question.informativeText()}"
    next(b for b in question.buttons() if b.text() == text).click()
    return said


def long(tab: SampleTab) -> None:
    tab.panel.sampler.set_value(SAMPLERS["ancestral"](steps=10_000))


# -- history ------------------------------------------------------------------------------------


def test_results_are_there_in_the_next_session_with_pictures_and_recipe(with_tab: Any) -> None:
    made: list[np.ndarray] = []

    async def first(window: MainWindow, tab: SampleTab) -> None:
        tab.panel.seed.set_value(41)
        made.append(await run(tab))

    async def second(window: MainWindow, tab: SampleTab) -> None:
        await until(lambda: tab.history.tiles.items)
        id = tab.history.tiles.items[0].id
        tab.history.opened.emit(id)
        await until(lambda: tab.view.count == 2)
        assert (tab.view.picture(1) == made[0][1]).all()
        tab.history.recipe_requested.emit(id)
        await until(lambda: tab.panel.seed.value() == 41)
        assert (await run(tab) == made[0]).all()

    with_tab(first)
    with_tab(second)


def test_the_bound_of_the_history_is_a_setting(with_tab: Any) -> None:
    async def first(window: MainWindow, tab: SampleTab) -> None:
        tab.history._limit(5 * 10**9)

    with_tab(first)
    assert Settings.load().history_bytes == 5 * 10**9


def test_a_kept_result_is_looked_at_while_another_run_goes_on(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        made = await run(tab)
        await until(lambda: tab.history.tiles.items)
        long(tab)
        tab.start()
        await until(lambda: tab.walk.live >= 0 and len(tab.walk.timeline.times) > 3)
        tab.history.opened.emit(tab.history.tiles.items[0].id)
        await until(lambda: tab._opened is not None)
        moments = len(tab.walk.timeline.times)
        await until(lambda: len(tab.walk.timeline.times) > moments)
        assert (tab.view.picture(0) == made[0]).all()
        tab.walk.follow()
        assert tab._shown is not None
        tab.runner.stop()

    with_tab(work)


def test_results_of_other_modes_are_kept_too_and_lead_back_to_them(
    with_tab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    monkeypatch.setattr("studio.ui.keeping.QFileDialog.getSaveFileName", lambda *_: (str(path), ""))

    async def work(window: MainWindow, tab: SampleTab) -> None:
        compare = window.tabs["compare"]
        compare.race.start()
        await until(lambda: len(tab.history.tiles.items) == 2)
        tab.session.made.emit(Finished(np.zeros((1, 8, 8, 3), np.uint8), {"kind": "paint"}), "")
        await until(lambda: len(tab.history.tiles.items) == 3)
        id = tab.history.tiles.items[0].id
        tab.history.recipe_requested.emit(id)
        await until(lambda: "not here" in tab.errors.text)
        tab.history.save_requested.emit(id)
        await until(path.exists)

    with_tab(work)


def test_kept_results_are_set_up_as_a_race(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        await run(tab)
        tab.panel.sampler.set_value(SAMPLERS["rk45"]())
        await run(tab)
        await until(lambda: len(tab.history.tiles.items) == 2)
        tab.history.compare_requested.emit([item.id for item in tab.history.tiles.items])
        await until(lambda: window.modes.currentWidget() is window.tabs["compare"])
        lanes = window.tabs["compare"].race.editor.recipe().lanes
        assert [spec.kind(lane.sampler) for lane in lanes] == ["rk45", "ancestral"]

    with_tab(work)


def test_a_painting_of_the_history_is_opened_on_the_canvas_as_it_was(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        canvas = window.tabs["canvas"]
        photo = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
        mask = np.zeros((8, 8), np.uint8)
        mask[2:5, 2:6] = 255
        sample = SampleJob("tiny", SAMPLERS["dpm2m"](steps=3), 2, 9)
        job = PaintJob(PaintRecipe(sample=sample), photo, mask)
        *_, made = job.run(Setting(tab.session.shelf, "cpu"))
        tab.session.made.emit(made, "")
        await until(lambda: tab.history.tiles.items)
        tab.history.recipe_requested.emit(tab.history.tiles.items[0].id)
        await until(lambda: canvas.view.document is not None)
        assert window.modes.currentWidget() is canvas
        assert (canvas.view.document.photo == photo).all()
        assert (canvas.view.document.mask == mask).all()
        canvas.start()
        await until(lambda: canvas.past.walk.result is not None)
        assert (canvas.past.walk.result.pictures == made.pictures).all()

    with_tab(work)


def test_a_picture_of_a_run_is_taken_to_the_canvas(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        made = await run(tab)
        canvas = window.tabs["canvas"]
        tab.to_canvas(1)
        await until(lambda: canvas.view.document is not None)
        assert window.modes.currentWidget() is canvas
        assert (canvas.view.document.photo == made[1]).all()
        assert len(canvas.past.walk.timeline.times) == len(tab.walk.timeline.times)

    with_tab(work)


# -- queue --------------------------------------------------------------------------------------


def test_what_is_added_during_a_run_follows_it_in_the_order_asked_for(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        long(tab)
        tab.start()
        assert tab.queue_button.isVisible()
        tab.panel.sampler.set_value(SAMPLERS["ancestral"](steps=5))
        for seed, first in ((1, False), (2, False), (3, True)):
            tab.panel.seed.set_value(seed)
            tab.add_to_queue(first)
        queue = tab.session.queue
        assert [e.recipe["seed"] for e in queue.waiting()] == [3, 1, 2]
        tab.runner.stop()
        await ran(tab)
        await until(lambda: [i.seed for i in tab.history.tiles.items] == [2, 1, 3])
        assert not tab.queue_button.isVisible()

    with_tab(work)


def test_a_recipe_that_cannot_run_is_told_of_and_the_next_one_runs(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        gone = spec.to_dict(SampleJob("gone", count=1))
        for recipe in ({"kind": "paint"}, {"kind": "opera"}, {"count": "many"}, gone):
            tab.errors.clear()
            tab.session.queue.put(recipe)
            await ran(tab)
            assert tab.errors.text
        assert len(await run(tab)) == 2

    with_tab(work)


def test_a_race_and_a_painting_wait_between_samples(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        compare, canvas = window.tabs["compare"].race, window.tabs["canvas"]
        compare.editor.count.setValue(1)
        canvas.view.set_document(Document.of(np.full((8, 8, 3), 90, np.uint8)))
        canvas.view.document.set_mask(np.eye(8, dtype=np.uint8) * 255)
        canvas.panel.sampler.set_value(SAMPLERS["dpm2m"](steps=3))
        long(tab)
        tab.start()
        queue = tab.session.queue
        compare.add_to_queue()
        canvas.queue.add()
        await until(lambda: len(queue.waiting()) == 2)
        assert [e.recipe["kind"] for e in queue.waiting()] == ["race", "paint"]
        queue.jump(queue.waiting()[1].id)
        tab.panel.sampler.set_value(SAMPLERS["ancestral"](steps=5))
        tab.add_to_queue()
        tab.history.queue.stop.click()
        await until(lambda: len(tab.history.tiles.items) == 4)
        kinds = [item.kind for item in reversed(tab.history.tiles.items)]
        assert kinds[0] == "paint"
        assert kinds[-1] == "sample"
        assert all(state == "finished" for state in map(compare.view.state, range(2)))
        assert queue.running is None

    with_tab(work)


def test_a_painting_that_waited_is_painted_in_the_next_session(with_tab: Any) -> None:
    async def first(window: MainWindow, tab: SampleTab) -> None:
        canvas = window.tabs["canvas"]
        canvas.view.set_document(Document.of(np.full((8, 8, 3), 90, np.uint8)))
        canvas.view.document.set_mask(np.eye(8, dtype=np.uint8) * 255)
        canvas.panel.sampler.set_value(SAMPLERS["dpm2m"](steps=3))
        long(tab)
        tab.start()
        canvas.queue.add()
        await until(tab.session.queue.waiting)

    async def second(window: MainWindow, tab: SampleTab) -> None:
        (entry,) = tab.session.queue.offered()
        assert entry.recipe["kind"] == "paint"
        tab.session.queue.accept()
        await until(lambda: tab.history.tiles.items)
        assert tab.history.tiles.items[0].kind == "paint"
        assert tab.errors.text == ""

    with_tab(first)
    with_tab(second)


def test_what_waited_when_the_studio_closed_is_offered_and_not_started(
    with_tab: Any, home: Path
) -> None:
    async def first(window: MainWindow, tab: SampleTab) -> None:
        long(tab)
        tab.start()
        tab.panel.sampler.set_value(SAMPLERS["ancestral"](steps=5))
        tab.panel.seed.set_value(77)
        tab.add_to_queue()

    async def second(window: MainWindow, tab: SampleTab) -> None:
        queue = tab.session.queue
        assert [e.recipe["seed"] for e in queue.offered()] == [77]
        assert not tab.runner.busy
        queue.accept()
        assert tab.runner.busy
        await ran(tab)
        assert tab.result is not None
        assert tab.result.recipe["seed"] == 77

    with_tab(first)
    assert len(json.loads((home / "queue.json").read_text())["waiting"]) == 1
    with_tab(second)


# -- branches -----------------------------------------------------------------------------------


def test_a_branch_shares_its_past_and_comes_again_from_its_recipe(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        trunk = await run(tab)
        go_to(tab, 0.5)
        left = tab.walk.timeline.playhead
        QTest.keyClick(tab, Qt.Key.Key_B)
        await ran(tab)
        first, branch = tab.walk.tree.nodes
        assert branch.parent == first.id
        assert left is not None
        assert branch.log_snr <= left + 1e-6
        assert branch.result is not None
        assert (branch.result.pictures != trunk).any()
        assert tab.walk.strip.isVisible()
        assert tab.walk.timeline.times[0] == first.trajectory.frames[0].log_snr
        tab.open_recipe(branch.result.recipe)
        assert (await run(tab) == branch.result.pictures).all()
        tab.open_recipe(branch.result.recipe)
        tab.panel.changed.emit()
        assert tab.job().branches == ()

    with_tab(work)


def test_the_branch_that_is_clicked_is_looked_at(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        trunk = await run(tab)
        go_to(tab, 0.4)
        tab.branch(temperature=0.8)
        await ran(tab)
        rows = tab.walk.strip.rows
        place = rows.rect().topLeft()
        QTest.mouseClick(rows, Qt.MouseButton.LeftButton, pos=place + place.__class__(40, ROW // 2))
        assert tab.walk.node == 0
        assert (tab.view.picture(0) == trunk[0]).all()
        assert rows.tree.nodes[1].label == "temperature 0.8"
        rows.setFocus()
        QTest.keyClick(rows, Qt.Key.Key_Down)
        assert tab.walk.node == 1
        go_to(tab, 0.1)  # before the branch: a branch from here leaves the trunk
        tab.branching.first()
        await ran(tab)
        assert tab.walk.tree.nodes[2].parent == 0

    with_tab(work)


def test_a_flow_on_another_seed_says_that_nothing_changes(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        said: list[str] = []
        tab.status.connect(said.append)
        tab.panel.sampler.set_value(SAMPLERS["heun"](steps=8))
        trunk = await run(tab)
        go_to(tab, 0.5)
        tab.branching.first()
        await ran(tab)
        assert any("draws no noise" in text for text in said)
        assert (tab.walk.tree.nodes[1].result.pictures == trunk).all()

    with_tab(work)


def test_a_branch_needs_a_moment_and_something_that_is_other(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        assert not tab.walk.branch_button.isEnabled()
        await run(tab)
        tab.branching.first()
        assert "Go back" in window.status.text()
        go_to(tab, 0.5)
        tab.branch()
        assert "Nothing is other" in tab.errors.text
        assert len(tab.walk.tree.nodes) == 1

    with_tab(work)


def test_a_branch_asked_for_during_a_run_comes_after_it_in_its_tree(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        tab.panel.sampler.set_value(SAMPLERS["ancestral"](steps=100))
        tab.start()
        await until(lambda: len(tab.walk.timeline.times) > 8)
        go_to(tab, 0.5)
        tab.branch(sampler=SAMPLERS["heun"](steps=4))
        assert len(tab.session.queue.waiting()) == 1
        await ran(tab)
        assert [n.parent for n in tab.walk.tree.nodes] == [None, 0]
        assert all(n.result is not None for n in tab.walk.tree.nodes)

    with_tab(work)


# -- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("trajectory", "c.traj"),
        pytest.param("strip", "a.png", marks=pytest.mark.slow),
        pytest.param("film", "b.gif", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_saved_whole_even_from_a_branch(
    with_tab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    path = tmp_path / name
    monkeypatch.setattr("studio.ui.keeping.QFileDialog.getSaveFileName", lambda *_: (str(path), ""))

    async def work(window: MainWindow, tab: SampleTab) -> None:
        await run(tab)
        go_to(tab, 0.5)
        tab.branching.first()
        await ran(tab)
        moments = len(tab.walk.timeline.times)
        tab.save(kind)
        await until(path.exists)
        await until(lambda: str(path) in window.status.text())
        if kind == "trajectory":
            window.open_path(path)
            await until(lambda: tab.walk.tree.nodes[0].label == "c")
            assert len(tab.walk.timeline.times) == moments
            go_to(tab, 0.9)
            tab.branching.first()
            await ran(tab)
            assert len(tab.walk.tree.nodes) == 2

    with_tab(work)


def test_a_replay_tells_what_differs_and_then_how_it_came_out(
    with_tab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.replay"
    monkeypatch.setattr("studio.ui.keeping.QFileDialog.getSaveFileName", lambda *_: (str(path), ""))

    async def work(window: MainWindow, tab: SampleTab) -> None:
        await run(tab)
        tab.save("replay")
        await until(path.exists)
        data = json.loads(path.read_text())
        path.write_text(json.dumps(data | {"made": data["made"] | {"torch": "0.4"}}))
        window.open_path(path)
        assert "torch: 0.4" in await answer(window, "Run it")
        await until(lambda: "bit-exact" in window.status.text())

    with_tab(work)


@pytest.mark.parametrize("name", ["a.traj", "a.replay"])
def test_a_file_of_a_run_that_is_damaged_is_refused_in_a_sentence(
    with_tab: Any, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"not a run")

    async def work(window: MainWindow, tab: SampleTab) -> None:
        window.open_path(tmp_path / name)
        await until(lambda: tab.errors.text)
        assert name in tab.errors.text

    with_tab(work)


def test_how_much_of_the_run_is_kept_is_told(with_tab: Any) -> None:
    async def work(window: MainWindow, tab: SampleTab) -> None:
        assert not tab.walk.kept.isVisible()
        await run(tab)
        assert " of " in tab.walk.kept.text()
        assert "moments" in tab.walk.kept.toolTip()
        tab.walk.playback.play_or_stop()
        assert tab.walk.playback.playing
        await until(lambda: tab.walk.timeline.playhead is not None)
        tab._escape()
        assert not tab.walk.playback.playing

    with_tab(work)
