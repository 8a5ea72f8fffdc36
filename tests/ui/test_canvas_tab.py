"""The canvas as a person uses it, with a tiny model on the shelf."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qasync
from PIL import Image
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QLabel, QMessageBox, QPushButton, QStackedWidget, QToolButton, QWidget

from studio import photos, recipes, spec
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.tasks import TASKS
from studio.engine.engine import Engine
from studio.engine.events import Finished
from studio.engine.jobs import Setting
from studio.engine.paint import PaintJob, PaintRecipe, Repaint, Touch
from studio.settings import Settings
from studio.ui.canvas.brush import Brush
from studio.ui.session import Session
from studio.ui.tabs.canvas import CanvasTab
from studio.weights.shelf import Shelf

Work = Callable[["Host", CanvasTab], Coroutine[Any, Any, None]]


class Host(QStackedWidget):
    """The canvas's page without the rest of the window, which takes longer to build; and a page beside
    it that is empty. `said` is what was told in the status line."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        shelf, settings = Shelf(), Settings(model="tiny", rate=60.0)
        self.engine = Engine(Setting(shelf, settings.device, settings.rate))
        self.tab = CanvasTab(Session(self.engine, shelf, settings))
        self.tab.status.connect(self.said.append)
        self.addWidget(self.tab)
        self.addWidget(QWidget())
        self.resize(1300, 860)

    async def shutdown(self) -> None:
        self.tab.closing()
        for runner in self.tab.runners():
            runner.stop()
        await self.engine.close()
        for runner in self.tab.runners():
            await runner.finished()
        self.deleteLater()


@pytest.fixture
def on_canvas(qapp: Any, home: Path, tiny_checkpoint: Path) -> Iterator[Callable[[Work], None]]:
    """Runs a coroutine function with the canvas on screen, then closes it in order."""
    qapp.setQuitOnLastWindowClosed(False)
    (home / "models").mkdir(parents=True)
    tiny_checkpoint.rename(home / "models" / "tiny")

    async def whole(work: Work) -> None:
        host = Host()
        bugs: list[BaseException] = []
        host.tab.bug.connect(bugs.append)
        host.show()
        host.tab.panel.sampler.set_value(SAMPLERS["dpm2m"](steps=4))
        try:
            async with asyncio.timeout(120):
                await work(host, host.tab)
        finally:
            await host.shutdown()
        assert bugs == []

    def run(work: Work) -> None:
        with qasync.QEventLoop(qapp) as loop:
            loop.run_until_complete(whole(work))

    # Widgets must die where they live: not in the worker, should it happen to collect.
    gc.disable()
    yield run
    gc.enable()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A small colour picture in a file."""
    path = tmp_path / "photo.png"
    y, x = np.mgrid[0:24, 0:32]
    Image.fromarray(np.stack([x * 7, y * 9, x * 3 + y * 4], -1).astype(np.uint8)).save(path)
    return path


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def opened(tab: CanvasTab, path: Path) -> Any:
    before = tab.view.document
    tab.open_path(path)
    await until(lambda: tab.view.document is not before)
    return tab.view.document


async def painted(tab: CanvasTab, path: Path) -> Any:
    """A picture is open, and something of it is painted."""
    document = await opened(tab, path)
    mark(tab, "mask", 10, 10)
    return document


def mark(tab: CanvasTab, layer: str, x: float, y: float, radius: float = 3) -> None:
    """What the brush does: a stroke, then word of it."""
    assert tab.view.document is not None
    stroke = tab.view.document.stroke(layer, Brush(radius, 1.0))
    stroke.to(x, y)
    stroke.to(x + 3, y + 2)
    stroke.end()
    tab.view.edited.emit(layer)


async def ran(tab: CanvasTab) -> None:
    tab.verbs.run.click()
    await until(lambda: not tab.runner.busy)


async def under_way(tab: CanvasTab) -> None:
    """A long run that shows something."""
    tab.panel.sampler.set_value(SAMPLERS["pc"](steps=5000))
    tab.verbs.run.click()
    await until(lambda: tab.past.frame is not None)


async def question(host: QWidget) -> QMessageBox:
    def asked() -> list[QMessageBox]:
        boxes = host.findChildren(QMessageBox, "question")
        return [box for box in boxes if box.isVisible()]

    await until(asked)
    return asked()[0]


def answer(box: QMessageBox, word: str) -> None:
    next(b for b in box.buttons() if b.text() == word).click()


# -- the flow -----------------------------------------------------------------------------------------


def test_a_picture_is_opened_painted_run_and_accepted(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        document = await opened(tab, picture)
        assert not tab.verbs.run.isEnabled()
        assert "paint" in tab.verbs.run.toolTip()
        tab.view.setFocus()
        where = tab.view.to_widget(12, 12).toPoint()
        QTest.mouseClick(tab.view, Qt.MouseButton.LeftButton, pos=where)
        assert document.mask[12, 12] == 255
        before = document.photo.copy()
        await ran(tab)
        assert tab.staging.count == tab.strip.count == 4
        assert "unchanged" in host.findChild(QWidget, "candidateNote").text()
        assert (document.photo == before).all()
        QTest.keyClick(tab.view, Qt.Key.Key_Right)
        assert tab.strip.current == 1
        QTest.keyClick(tab.view, Qt.Key.Key_Return)
        changed = (document.photo != before).any(-1)
        assert changed.any()
        assert not changed[document.mask == 0].any()
        assert document.mask.any()
        assert tab.staging.count == 0
        document.history.undo()
        assert (document.photo == before).all()

    on_canvas(work)


@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_gives_candidates(on_canvas: Any, picture: Path, task: str) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        mark(tab, "sketch", 12, 12)
        tab.task.set_task(TASKS[task]())
        tab.task.changed.emit()
        await ran(tab)
        assert tab.errors.text == ""
        assert tab.staging.count == 4

    on_canvas(work)


def test_before_a_sketch_is_run_its_noised_form_is_seen(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await opened(tab, picture)
        tab.task.set_task(TASKS["sketch"]())
        tab.task.changed.emit()
        assert tab.view.result_rect == tab.view.document.box
        tab.task.set_task(TASKS["inpaint"]())
        tab.task.changed.emit()
        assert tab.view.result_rect is None

    on_canvas(work)


def test_more_gives_other_candidates_by_the_next_seeds(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        tab.panel.seed.set_value(5)
        await ran(tab)
        first = tab.staging._results
        tab.strip.more.click()
        await until(lambda: tab.runner.busy)
        await until(lambda: not tab.runner.busy)
        assert tab.panel.seed.value() == 9
        assert all((a != b).any() for a in first for b in tab.staging._results)

    on_canvas(work)


def test_the_empty_canvas_offers_pictures_to_try(on_canvas: Any) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        samples = tab.samples.findChildren(QToolButton)
        assert len(samples) == 3
        assert all("CC BY" in button.toolTip() for button in samples)
        samples[0].click()
        await until(lambda: tab.view.document is not None)
        assert tab.view.document.size == (128, 128)
        assert not tab.samples.isVisible()

    on_canvas(work)


# -- runs that do not come to their end ---------------------------------------------------------------


def test_a_run_stopped_half_way_leaves_the_candidates_of_before(
    on_canvas: Any, picture: Path
) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        await ran(tab)
        before = tab.staging._results
        await under_way(tab)
        tab.verbs.run.click()
        await until(lambda: not tab.runner.busy)
        assert tab.staging._results is before
        assert tab.strip.count == 4
        assert not tab.strip.forming
        assert host.said[-1] == "Stopped"

    on_canvas(work)


def test_a_first_run_stopped_half_way_leaves_nothing(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        await under_way(tab)
        QTest.keyClick(tab.view, Qt.Key.Key_Escape)
        await until(lambda: not tab.runner.busy)
        assert tab.strip.count == 0
        assert tab.view.result_rect is None

    on_canvas(work)


def test_discarding_all_stops_what_forms(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        await under_way(tab)
        tab.strip.discard_all()
        await until(lambda: not tab.runner.busy)
        assert tab.view.result_rect is None

    on_canvas(work)


def test_another_picture_ends_the_run_on_the_first(
    on_canvas: Any, picture: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    Image.new("RGB", (20, 20)).save(other)

    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        await under_way(tab)
        tab.open_path(other)
        box = await question(host)
        assert "photo.png" in box.text()
        answer(box, "Let go")
        await until(lambda: tab.view.document.size == (20, 20))
        await until(lambda: not tab.runner.busy)
        assert tab.strip.count == 0

    on_canvas(work)


def test_undoing_an_accepted_picture_lets_go_of_candidates_made_around_it(
    on_canvas: Any, picture: Path
) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        await ran(tab)
        tab.strip.accept()
        await ran(tab)
        assert tab.staging.count == 4
        document.history.undo()
        assert tab.staging.count == 0

    on_canvas(work)


# -- changes during a run -----------------------------------------------------------------------------


def test_a_stroke_during_a_run_is_told_to_it(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        await under_way(tab)
        sent: list[Any] = []
        tab.runner.send, send = lambda m: (sent.append(m), send(m)), tab.runner.send  # type: ignore
        mark(tab, "mask", 20, 18)
        assert isinstance(sent[0], Repaint)
        assert (sent[0].mask == document.mask).all()
        tab.verbs.finish.click()
        await until(lambda: not tab.runner.busy)
        assert tab.errors.text == ""
        changed = (tab.staging._results[0] != document.photo).any(-1)
        assert changed[18:20, 20:22].any()  # where the run began, that was known

    on_canvas(work)


@pytest.mark.parametrize("verb", ["pause", "step"])
def test_paint_on_a_held_run_is_put_on_its_noise(on_canvas: Any, picture: Path, verb: str) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        await under_way(tab)
        tab.verbs.pause.click()
        assert "onto the noise" in host.said[-1]
        sent: list[Any] = []
        tab.runner.send = sent.append  # type: ignore[method-assign]
        mark(tab, "sketch", 11, 11)
        assert sent == []
        getattr(tab.verbs, verb).click()
        (touch,) = sent
        assert isinstance(touch, Touch)
        assert touch.paint.shape == (*tab.view.document.size[::-1], 4)
        assert touch.paint[11, 11].tolist() == [230, 80, 60, 255]
        assert touch.paint[0, 0, 3] == 0

    on_canvas(work)


def test_weights_of_the_mixer_reach_a_run_under_way(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        await under_way(tab)
        sent: list[Any] = []
        tab.runner.send = sent.append  # type: ignore[method-assign]
        tab.mixer.weight_changed.emit("hints", 0.9)
        assert sent[0].recipe.task.hints == 0.9
        assert tab.task.task().hints == 0.9

    on_canvas(work)


# -- live ---------------------------------------------------------------------------------------------


def test_live_runs_after_a_stroke_and_again_after_the_next(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        tab.task.live = True
        await until(lambda: tab.task.live_state.state == "fresh")
        first = tab.staging._results
        mark(tab, "mask", 14, 12)
        assert tab.task.live_state.state == "waiting"
        await until(lambda: tab.task.live_state.state == "working")
        mark(tab, "mask", 16, 14)
        await until(lambda: tab.task.live_state.state == "fresh")
        assert tab.staging._results is not first
        assert tab.errors.text == ""

    on_canvas(work)


def test_live_stops_when_it_is_switched_off_or_not_seen(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        tab.panel.sampler.set_value(SAMPLERS["dpm2m"](steps=40))
        tab.panel.count.setValue(16)
        tab.task.live = True
        await until(lambda: tab.runner.busy)
        host.setCurrentIndex(1)
        await until(lambda: not tab.runner.busy)
        mark(tab, "mask", 14, 12)
        await asyncio.sleep(0.4)
        assert not tab.runner.busy
        host.setCurrentIndex(0)
        await until(lambda: tab.runner.busy)
        tab.task.live = False
        await until(lambda: not tab.runner.busy)
        assert tab.task.live_state.state == "off"

    on_canvas(work)


def test_live_with_nothing_painted_waits_in_silence(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await opened(tab, picture)
        tab.task.live = True
        await asyncio.sleep(0.35)
        assert tab.errors.text == ""
        assert tab.task.live_state.state == "waiting"

    on_canvas(work)


# -- the box ------------------------------------------------------------------------------------------


def test_the_box_follows_the_paint_until_it_is_placed_by_hand(
    on_canvas: Any, tmp_path: Path
) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (400, 300), (90, 120, 30)).save(path)

    async def work(host: Host, tab: CanvasTab) -> None:
        document = await opened(tab, path)
        mark(tab, "mask", 50, 60)
        x, y, w, _ = document.box
        assert w < 100
        assert x <= 47
        assert y <= 57
        assert x + w >= 56
        document.set_box((40, 50, 60, 60))
        tab.view.edited.emit("box")
        mark(tab, "mask", 300, 200)
        assert document.box == (40, 50, 60, 60)

    on_canvas(work)


# -- what cannot be used ------------------------------------------------------------------------------


def test_a_box_without_paint_is_brought_to_it(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        document.set_box((20, 16, 8, 8))
        tab.view.edited.emit("box")
        await ran(tab)
        assert tab.errors.text == ""
        x, y, w, h = document.box
        assert document.mask[y : y + h, x : x + w].any()

    on_canvas(work)


def test_an_error_stands_beside_the_button_and_nothing_is_lost(
    on_canvas: Any, picture: Path
) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        await ran(tab)
        mask, before = document.mask.copy(), tab.staging._results
        tab.panel.classes.addItem("Unicorn", "unicorn")
        tab.panel.classes.setCurrentIndex(tab.panel.classes.count() - 1)
        await ran(tab)
        assert "unicorn" in tab.errors.text
        assert (document.mask == mask).all()
        assert tab.staging._results is before
        tab.panel.classes.setCurrentIndex(0)
        await ran(tab)
        assert tab.errors.text == ""
        assert tab.staging._results is not before

    on_canvas(work)


def test_without_a_picture_run_says_what_is_missing(on_canvas: Any) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        assert not tab.verbs.run.isEnabled()
        assert "open" in tab.verbs.run.toolTip()

    on_canvas(work)


# -- recipes ------------------------------------------------------------------------------------------


def test_a_saved_picture_carries_a_recipe_that_makes_it_again(
    on_canvas: Any, picture: Path, tmp_path: Path, home: Path
) -> None:
    saved = tmp_path / "saved.png"
    kept: dict[str, Any] = {}

    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        tab.panel.seed.set_value(21)
        await ran(tab)
        kept["mask"] = document.mask.copy()
        tab.strip.accept()
        tab.files.save("picture", saved, tab._made_by())
        await until(saved.exists)

    on_canvas(work)
    told = recipes.read_recipe(saved)
    assert told is not None
    recipe = spec.from_dict(PaintRecipe, told)
    assert recipe.sample.seed == 21
    assert recipe.proof == {"kept": 0.0}
    job = PaintJob(recipe, photos.read(picture).pixels, kept["mask"])
    assert job.inputs() == recipe.inputs
    *_, last = job.run(Setting(Shelf()))
    assert isinstance(last, Finished)
    assert (last.pictures[0] == photos.read(saved).pixels).all()


def test_what_is_undone_is_not_told_of_in_the_recipe(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        await ran(tab)
        tab.strip.accept()
        assert tab._made_by()["kind"] == "paint"
        document.history.undo()
        assert tab._made_by() == {}
        document.history.redo()
        assert tab._made_by()["kind"] == "paint"

    on_canvas(work)


def test_the_recipe_in_a_picture_is_offered_when_it_is_opened(
    on_canvas: Any, tmp_path: Path
) -> None:
    path = tmp_path / "made.png"
    recipe = spec.from_dict(PaintRecipe, {"sample": {"model": "tiny", "seed": 77, "count": 2}})
    photos.write(path, np.zeros((16, 16, 3), np.uint8), None, spec.to_dict(recipe))

    async def work(host: Host, tab: CanvasTab) -> None:
        tab.open_path(path)
        box = await question(host)
        assert "77" in box.informativeText()
        answer(box, "Restore")
        await until(lambda: tab.panel.seed.value() == 77)
        assert tab.view.document.name == "made.png"
        assert tab.panel.job().count == 2

    on_canvas(work)


def test_a_recipe_that_makes_no_sense_is_refused_in_a_sentence(
    on_canvas: Any, tmp_path: Path
) -> None:
    path = tmp_path / "made.png"
    photos.write(path, np.zeros((16, 16, 3), np.uint8), None, {"kind": "paint", "task": 3})

    async def work(host: Host, tab: CanvasTab) -> None:
        await opened(tab, path)
        await until(lambda: "task" in host.said[-1].lower())
        assert tab.view.document.name == "made.png"

    on_canvas(work)


def test_every_control_of_the_canvas_can_be_found_and_is_named(on_canvas: Any) -> None:
    names = (
        "canvasPage canvasView maskBrush task candidates run pause step finish errorBox mixer "
        "toolStrip taskPanel canvasFile samples"
    )

    async def work(host: Host, tab: CanvasTab) -> None:
        for name in names.split():
            found = tab if name == "canvasPage" else tab.findChild(QWidget, name)
            assert found is not None, name
        for button in tab.findChildren(QToolButton) + tab.findChildren(QPushButton):
            if button.isVisible() and button.objectName():
                assert button.toolTip() or button.text(), button.objectName()
        assert tab.findChild(QLabel) is not None

    on_canvas(work)


# -- the past --------------------------------------------------------------------------------------


def go_to(tab: CanvasTab, share: float) -> None:
    """The playhead to a kept moment."""
    times = tab.past.walk.timeline.times
    tab.past.walk.timeline._scrub(times[int(share * (len(times) - 1))])


def slow(tab: CanvasTab) -> None:
    tab.panel.sampler.set_value(SAMPLERS["ancestral"](steps=12))


def test_a_run_is_looked_back_at_and_left_with_another_mask(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        slow(tab)
        assert not tab.past.walk.isVisible()
        await ran(tab)
        first = tab.past.walk.result.pictures
        assert tab.past.walk.isVisible()
        go_to(tab, 0.5)
        assert not tab.strip.accept_button.isEnabled()
        tab.strip.accept()
        assert (document.photo == document.base).all()
        document.clear("mask")
        mark(tab, "mask", 22, 16)
        tab.past.walk.branch_button.click()
        await until(lambda: tab.runner.busy)
        await until(lambda: not tab.runner.busy)
        trunk, branch = tab.past.walk.tree.nodes
        assert branch.parent == trunk.id
        made = branch.result.pictures
        x, y, w, h = tab._box
        where = document.mask[y : y + h, x : x + w]
        assert (made[:, where == 0] == document.photo[y : y + h, x : x + w][where == 0]).all()
        assert (made != first).any()
        assert branch.result.recipe["sample"]["branches"]
        assert tab.strip.accept_button.isEnabled()
        tab.past.walk.look_at(trunk.id)
        assert (tab.staging._results[0] == first[0]).all()
        tab.strip.accept()
        assert (document.photo[y : y + h, x : x + w] == first[0]).all()

    on_canvas(work)


def test_nothing_other_and_no_moment_are_said(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        slow(tab)
        await ran(tab)
        tab.past.menu.first()
        assert "Go back on the timeline" in host.said[-1]
        go_to(tab, 0.5)
        tab.past.menu.first()
        assert "Nothing is other" in tab.errors.text
        tab.past.branch(seed=5)
        await until(lambda: not tab.runner.busy)
        assert len(tab.past.walk.tree.nodes) == 2

    on_canvas(work)


def test_a_run_under_way_is_left_for_the_branch(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        tab.panel.sampler.set_value(SAMPLERS["ancestral"](steps=400))
        tab.verbs.run.click()
        await until(lambda: len(tab.past.walk.timeline.times) > 6)
        go_to(tab, 0.3)
        tab.past.branch(sampler=SAMPLERS["dpm2m"](steps=4))
        await until(lambda: len(tab.past.walk.tree.nodes) == 2 and not tab.runner.busy)
        trunk, branch = tab.past.walk.tree.nodes
        assert trunk.result is None
        assert branch.result is not None
        assert tab.strip.count == len(branch.result.pictures)

    on_canvas(work)


def test_another_photo_has_no_past(on_canvas: Any, picture: Path, tmp_path: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        await ran(tab)
        assert tab.past.walk.tree.nodes
        tab.strip.accept()
        assert tab.past.walk.tree.nodes, "what was accepted came of it"
        tab.view.document.history.undo()
        tab._marked("photo", (0, 0, 1, 1))
        assert not tab.past.walk.tree.nodes
        assert not tab.past.walk.isVisible()

    on_canvas(work)


def test_a_painting_waits_in_the_queue_with_its_picture(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        made: list[Finished] = []
        tab.session.made.connect(lambda event, _: made.append(event))
        document = await painted(tab, picture)
        tab.panel.seed.set_value(31)
        assert not tab.queue.button.isVisible()
        await under_way(tab)
        assert tab.queue.button.isVisible()
        tab.panel.sampler.set_value(SAMPLERS["dpm2m"](steps=4))
        before, mask = document.photo.copy(), document.mask.copy()
        tab.queue.button.click()
        await until(lambda: tab.session.queue.running is not None)
        # What is painted after it was put there is not painted there.
        document.clear("mask")
        tab.runner.stop()
        await until(lambda: made)
        x, y, w, h = made[0].recipe["box"]
        kept = mask[y : y + h, x : x + w] == 0
        assert (made[0].pictures[:, kept] == before[y : y + h, x : x + w][kept]).all()
        assert (made[0].pictures[:, ~kept] != before[y : y + h, x : x + w][~kept]).any()
        # The photo is still the one: its candidates are shown, and can be taken.
        assert tab.strip.count == len(made[0].pictures)
        tab.strip.accept()
        assert (document.photo[y : y + h, x : x + w] == made[0].pictures[0]).all()
        await until(lambda: tab.session.queue.running is None)
        assert not list(tab.session.queue.given("x").parent.iterdir())

    on_canvas(work)


def test_a_restored_painting_comes_again_until_something_is_changed(
    on_canvas: Any, picture: Path
) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        await painted(tab, picture)
        slow(tab)
        await ran(tab)
        go_to(tab, 0.6)
        mark(tab, "mask", 12, 12)
        tab.past.menu.first()
        await until(lambda: len(tab.past.walk.tree.nodes) == 2 and not tab.runner.busy)
        result = tab.past.walk.result
        tab.view.document.history.mark(tab.view.document.history.state)
        tab.open_painting(result.given, result)
        await until(lambda: tab.view.document.name == "painting")
        assert (tab.view.document.mask > 0).any()
        assert tab.strip.count == len(result.pictures)
        assert tab.strip.accept_button.isEnabled()
        await ran(tab)
        assert (tab.past.walk.result.pictures == result.pictures).all()
        mark(tab, "mask", 5, 5)
        assert tab._whole is None
        assert "Changed" in " ".join(host.said)

    on_canvas(work)


def test_a_sample_is_painted_on_from_a_moment_of_its_run(on_canvas: Any) -> None:
    from studio.engine.events import Begun
    from studio.engine.jobs import SampleJob
    from studio.engine.paint import taken_out

    async def work(host: Host, tab: CanvasTab) -> None:
        job = SampleJob("tiny", SAMPLERS["ancestral"](steps=12), 3, 5, "cat")
        found = list(job.run(Setting(Shelf(), "cpu", 1e9)))
        run = taken_out(next(e.trajectory for e in found if isinstance(e, Begun)), 1)
        tab.open_sample(run, found[-1].pictures[1], "seed 6")
        await until(lambda: tab.view.document is not None)
        assert tab.past.walk.isVisible()
        assert (tab.view.document.photo == found[-1].pictures[1]).all()
        mark(tab, "mask", 4, 4, radius=1)
        tab.panel.count.setValue(2)
        go_to(tab, 0.5)
        tab.past.menu.first()
        await until(lambda: len(tab.past.walk.tree.nodes) == 2 and not tab.runner.busy)
        assert tab.errors.text == ""
        trunk, branch = tab.past.walk.tree.nodes
        assert branch.parent == trunk.id
        mask = tab.view.document.mask
        assert (branch.result.pictures[:, mask == 0] == found[-1].pictures[1][mask == 0]).all()
        assert branch.result.recipe["origin"]["run"]["seed"] == 6
        # And from there once more.
        mark(tab, "mask", 2, 6, radius=1)
        go_to(tab, 0.9)
        tab.past.menu.first()
        await until(lambda: len(tab.past.walk.tree.nodes) == 3 and not tab.runner.busy)
        assert tab.past.walk.tree.nodes[2].parent == 1
        go_to(tab, 0.3)
        tab.past.branch(temperature=0.5)
        assert "own temperature" in tab.errors.text

    on_canvas(work)
