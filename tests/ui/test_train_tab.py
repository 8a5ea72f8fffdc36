"""The Train mode as a person uses it: a folder of a few pictures, and a training that is made up."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qasync
from conftest import build
from PIL import Image
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QMessageBox, QWidget

from studio import app
from studio.engine import sheets, train_jobs
from studio.engine.engine import Engine
from studio.engine.events import Done, Event, Levels, Metric, Note, Progress, Saved
from studio.engine.jobs import SampleJob, Setting
from studio.engine.sheets import Sheet
from studio.engine.train_events import Discard, RolledBack, TrainResult
from studio.engine.train_jobs import CheckPlan, RunFound, TrainJob
from studio.errors import DataError, DeviceError
from studio.settings import Settings
from studio.training import log
from studio.training.check import Checked
from studio.ui.collector import Collector
from studio.ui.main_window import MainWindow
from studio.ui.session import Session
from studio.ui.tabs.train import TrainTab
from studio.weights.shelf import Shelf


def sheet(step: int) -> Sheet:
    pictures = np.full((4, 8, 8, 3), step % 256, np.uint8)
    return Sheet(step, pictures, pictures, np.zeros(4), 0.1)


class MadeUp:
    """A training that makes a step when it is told to, and a check that answers at once."""

    def __init__(self, home: Path, source: Path) -> None:
        self._home, self._source = home, source
        self._steps = threading.Semaphore(0)
        self.heard: list[Any] = []
        self.jobs: list[TrainJob] = []
        self.checks: list[CheckPlan] = []
        self.before = 0  # the step that a run begins at
        self.fails_at = self.rolls_back_at = 0
        self.closed = self.discarded = False
        self._at = 0
        self.refusal: Exception | None = None
        self.found: list[RunFound] = []

    def more(self, steps: int) -> None:
        self._steps.release(steps)

    def check(self, job: CheckPlan) -> Generator[Event, Any, None]:
        self.checks.append(job)
        if self.refusal is not None:
            raise self.refusal
        yield Note("Reading pictures")
        yield Done(Checked(10**8, 10**10, 0.5, 250.0, 10**7, 10**11, 10**6, 10**6, None, ("Few.",)))

    def train(self, job: TrainJob) -> Generator[Event, Any, None]:
        """What is sent arrives at any yield."""
        self.jobs.append(job)
        self._at, done = self.before, False
        try:
            for event in self._events(job):
                message = yield event
                if message is not None:
                    self.heard.append(message)
                if isinstance(message, Discard):
                    self.discarded = True
                    return
            done = True
        finally:
            self.closed = True
            if not done and not self.discarded and self._at > self.before:
                self._save(job.out)

    def _events(self, job: TrainJob) -> Iterator[Event]:
        yield Note("Reading pictures")
        yield sheet(self._at)
        while self._at < job.plan.steps:
            while not self._steps.acquire(timeout=0.005):
                yield Note("Waiting to be told")
            self._at += 1
            yield from self._step(job, self._at)
            yield Progress(self._at, job.plan.steps, 4 * self._at, 0.1 * self._at)
        self._save(job.out)
        yield Saved(self._home / "models" / job.out)
        yield Done(TrainResult(job.out, self._at, 0.25, 0.5, after=sheet(self._at)))

    def _step(self, job: TrainJob, step: int) -> Iterator[Event]:
        yield Metric("loss", ((step, 1 / step),))
        yield Metric("pace", ((step, 40.0),))
        yield Levels(np.linspace(-3, 3, 5), np.full(4, 1 / step), np.full(4, 50), np.ones(4))
        if step % 5 == 0:
            yield sheet(step)
        if step == self.rolls_back_at:
            yield RolledBack(step - 1, "The loss was no longer finite.", 5e-5)
        if step == self.fails_at:
            self._save(job.out)
            yield Saved(self._home / "models" / job.out)
            raise DeviceError("There is not enough memory for this.", "Choose a smaller batch.")

    def _save(self, name: str) -> None:
        shutil.copytree(self._source, self._home / "models" / name, dirs_exist_ok=True)


@pytest.fixture
def made_up(home: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    (home / "models").mkdir(parents=True)
    shutil.copytree(tiny_checkpoint, home / "models" / "tiny")
    made = MadeUp(home, tiny_checkpoint)
    monkeypatch.setattr(TrainJob, "run", lambda job, context: made.train(job))
    monkeypatch.setattr(CheckPlan, "run", lambda job, context: made.check(job))
    monkeypatch.setattr(train_jobs, "runs", lambda: made.found)
    return made


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """A folder as folders are: pictures in a sub-folder, a broken one, something else."""
    folder = tmp_path / "My animals"
    (folder / "old").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 256, (24, 40 if i else 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / ("old" if i % 2 else ".") / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    (folder / "notes.txt").write_text("not a picture")
    return folder


Work = Callable[[TrainTab], Coroutine[Any, Any, None]]


@pytest.fixture
def with_tab(qapp: Any, made_up: MadeUp) -> Callable[[Work], None]:
    """Runs a coroutine function with the page open on a shelf with a tiny model."""
    qapp.setQuitOnLastWindowClosed(False)

    async def whole(work: Work) -> None:
        shelf = Shelf()
        engine = Engine(Setting(shelf, "cpu", 60.0))
        tab = TrainTab(Session(engine, shelf, Settings(model="tiny")))
        bugs: list[BaseException] = []
        tab.bug.connect(bugs.append)
        collector = Collector(lambda: False, tab)
        tab.resize(1300, 820)
        tab.show()
        try:
            async with asyncio.timeout(120):
                await work(tab)
        finally:
            tab.closing()
            for runner in tab.runners():
                runner.stop()
            await engine.close()
            await asyncio.gather(*(runner.finished() for runner in tab.runners()))
            collector.stop()
            tab.close()
            tab.deleteLater()
        assert not bugs

    def run(work: Work) -> None:
        with qasync.QEventLoop(qapp) as loop:
            loop.run_until_complete(whole(work))

    return run


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def opened(tab: TrainTab, folder: Path) -> None:
    tab.open_path(folder)
    await until(lambda: not tab.folder.reader.scanning)


async def begun(tab: TrainTab, folder: Path, made_up: MadeUp, steps: int = 0) -> None:
    """A training under way, that has come to a step."""
    await opened(tab, folder)
    tab.bar.run.click()
    made_up.more(steps)
    await until(lambda: tab.record.step >= steps and tab.record.sheets)


def question() -> QMessageBox | None:
    from PySide6.QtWidgets import QApplication

    boxes = [w for w in QApplication.topLevelWidgets() if w.objectName() == "question"]
    return next((b for b in boxes if isinstance(b, QMessageBox) and b.isVisible()), None)


async def answer(text: str) -> None:
    await until(question)
    box = question()
    assert box is not None
    next(b for b in box.buttons() if b.text().replace("&", "") == text).click()


# -- the folder -------------------------------------------------------------------------------------


def test_before_there_is_a_folder_the_page_says_what_to_do(with_tab: Any) -> None:
    async def work(tab: TrainTab) -> None:
        assert tab.folder.page.welcome.isVisible()
        assert not tab.bar.run.isEnabled()
        assert "folder" in tab.bar.run.toolTip()
        assert not tab.bar.check.isEnabled()

    with_tab(work)


def test_a_folder_is_looked_through_and_told_in_numbers_and_words(
    with_tab: Any, animals: Path
) -> None:
    async def work(tab: TrainTab) -> None:
        await opened(tab, animals)
        page = tab.folder.page
        await until(lambda: page.chips.buttons["all"].text().endswith("7"))
        assert page.chips.buttons["error"].text().endswith("1")
        assert page.wall.count == 7
        assert "6 pictures" in tab.folder.panel.said.text()
        assert "by heart" in tab.folder.panel.verdict.text()
        assert tab.folder.panel.reasons.isVisible()
        await until(lambda: len(page.wall._images) == 6)
        await until(lambda: tab.folder.panel.varied.view.count)
        assert tab.plan.result() == "my-animals"
        assert tab.bar.run.isEnabled()

    with_tab(work)


def test_a_path_is_typed_and_one_that_is_not_there_is_said(with_tab: Any, animals: Path) -> None:
    async def work(tab: TrainTab) -> None:
        line = tab.folder.panel.line
        line.setText(str(animals / "nowhere"))
        QTest.keyClick(line, Qt.Key.Key_Return)
        assert "no folder" in tab.folder.panel.problem.text()
        assert not tab.bar.run.isEnabled()
        line.setText(str(animals))
        QTest.keyClick(line, Qt.Key.Key_Return)
        await until(lambda: not tab.folder.reader.scanning)
        assert tab.folder.panel.problem.isHidden()
        assert tab.folder.collection.pictures == 6

    with_tab(work)


def test_variations_follow_the_choices(with_tab: Any, animals: Path) -> None:
    async def work(tab: TrainTab) -> None:
        await opened(tab, animals)
        varied = tab.folder.panel.varied.view
        await until(lambda: varied.count == 1)  # all alike: one says it
        flips = tab.folder.panel.form.editor("flips").focusProxy()
        flips.click()  # type: ignore[union-attr]
        await until(lambda: varied.count == 6)
        assert tab.folder.choices().flips

    with_tab(work)


def test_a_picture_is_left_out_and_cropped_closely(
    with_tab: Any, animals: Path, made_up: MadeUp
) -> None:
    async def work(tab: TrainTab) -> None:
        await opened(tab, animals)
        page = tab.folder.page
        page.wall.select("old/1.png")
        QTest.keyClick(page.wall, Qt.Key.Key_Delete)
        assert tab.folder.choices().excluded == ("old/1.png",)
        page.open_picture("2.png")
        dialog = page.dialog
        assert dialog is not None
        await until(lambda: not dialog.view._image.isNull())
        dialog.view.resize_by(0.5)
        QTest.keyClick(dialog, Qt.Key.Key_PageDown)
        assert dialog.path != "2.png"
        dialog.use.click()
        dialog.close()
        (crop,) = tab.folder.choices().crops
        assert (crop.path, crop.side) == ("2.png", 0.5)
        assert len(tab.folder.choices().excluded) == 2
        tab.bar.run.click()
        await until(lambda: made_up.jobs)
        assert made_up.jobs[0].choices == tab.folder.choices()

    with_tab(work)


def test_a_scan_can_be_stopped_and_what_was_found_stays(with_tab: Any, animals: Path) -> None:
    async def work(tab: TrainTab) -> None:
        tab.open_path(animals)
        tab.folder.panel.stop.click()
        await until(lambda: not tab.folder.reader.scanning)
        assert tab.folder.panel.scan.isHidden()
        assert tab.folder.panel.again.isEnabled()
        tab.folder.panel.again.click()
        await until(lambda: not tab.folder.reader.scanning)
        assert tab.folder.collection.pictures == 6

    with_tab(work)


# -- the check --------------------------------------------------------------------------------------


def test_the_check_tells_what_a_run_costs_and_pales_when_the_plan_changes(
    with_tab: Any, animals: Path, made_up: MadeUp
) -> None:
    async def work(tab: TrainTab) -> None:
        await opened(tab, animals)
        tab.bar.check.click()
        await until(lambda: tab.card.isVisible())
        assert tab.card._rows["time"].text() == "4 min"
        assert "Few." in tab.card.warnings.text()
        assert made_up.checks[0].data == str(animals)
        assert made_up.checks[0].plan.start == "tiny"
        batch = tab.plan.pace.editor("batch").focusProxy()
        batch.setValue(4)  # type: ignore[union-attr]
        assert "before the plan changed" in tab.card.title.text()

    with_tab(work)


def test_what_the_check_refuses_stands_beside_the_button(
    with_tab: Any, animals: Path, made_up: MadeUp
) -> None:
    made_up.refusal = DataError("Training needs at least two pictures.", "Add some.")

    async def work(tab: TrainTab) -> None:
        await opened(tab, animals)
        tab.bar.check.click()
        await until(lambda: tab.errors.text)
        assert "at least two pictures" in tab.errors.text
        assert tab.bar.run.isEnabled()
        assert tab.bar.check.text() == "Check"

    with_tab(work)


# -- the run ----------------------------------------------------------------------------------------


def test_a_training_is_watched_to_its_end_and_its_model_opened_in_sample(
    with_tab: Any, animals: Path, made_up: MadeUp
) -> None:
    async def work(tab: TrainTab) -> None:
        left: list[str] = []
        tab.leave.connect(left.append)
        await begun(tab, animals, made_up, steps=12)
        assert tab.view.currentWidget() is tab.live
        assert tab.bar.run.text() == "Stop and keep"
        assert not tab.plan.isEnabled()
        tab.live.draw()
        assert [s.step for s in tab.record.sheets] == [0, 5, 10]
        assert tab.live.lapse.told.text() == "step 10"
        await until(lambda: tab.facts._rows["step"].text() == "12 / 500")
        assert tab.facts._rows["pace"].text() == "40"
        made_up.more(488)
        await until(lambda: not tab.runner.busy)
        assert tab.result.isVisible()
        assert "“my-animals” is on the shelf, after 500 steps" in tab.result.text.text()
        assert tab.plan.result() == "my-animals-2"
        tab.result.use.click()
        assert left == ["sample"]
        assert tab.session.model is not None
        assert tab.session.model.name == "my-animals"

    with_tab(work)


def test_a_paused_training_lets_a_sample_run_and_goes_on(
    with_tab: Any, animals: Path, made_up: MadeUp
) -> None:
    async def work(tab: TrainTab) -> None:
        await begun(tab, animals, made_up, steps=3)
        tab.bar.pause.click()
        assert tab.bar.pause.text() == "Go on"
        await until(lambda: "Paused" in tab.facts.state.text())
        sample = tab.session.engine.start(
            SampleJob(model="tiny", sampler=build("em", steps=3), count=1)
        )
        kinds = [type(event).__name__ async for event in sample]
        assert "Finished" in kinds
        assert tab.record.step == 3
        tab.bar.pause.click()
        made_up.more(2)
        await until(lambda: tab.record.step == 5)

    with_tab(work)


def test_samples_and_saves_are_asked_for_also_while_it_is_held(
    with_tab: Any, animals: Path, made_up: MadeUp
) -> None:
    async def work(tab: TrainTab) -> None:
        await begun(tab, animals, made_up, steps=2)
        tab.bar.sample.click()
        made_up.more(2)
        await until(lambda: made_up.heard)
        tab.bar.pause.click()
        made_up.more(2)
        tab.bar.save.click()
        await until(lambda: len(made_up.heard) == 2)
        assert [type(m).__name__ for m in made_up.heard] == ["SampleNow", "SaveNow"]
        assert tab.runner.state == "paused"

    with_tab(work)


def test_the_samples_through_a_training_become_a_film(
    with_tab: Any, animals: Path, made_up: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = str(tmp_path / "grown"), "GIF (*.gif)"
    monkeypatch.setattr("studio.ui.keeping.QFileDialog.getSaveFileName", lambda *_: named)

    async def work(tab: TrainTab) -> None:
        tab.ask_film()  # nothing yet: it is said, nothing breaks
        await begun(tab, animals, made_up, steps=12)
        tab.live.draw()
        assert tab.live.lapse.film.isEnabled()
        tab.live.lapse.film.click()
        await until(lambda: not tab.exports.busy)
        with Image.open(tmp_path / "grown.gif") as film:
            assert film.n_frames >= 3
        said: list[str] = []
        tab.status.connect(said.append)
        tab.ask_film()
        tab.ask_film()
        assert any("already" in text for text in said)

    with_tab(work)  # closes while the second is written
    (film,) = tmp_path.glob("grown*")
    with Image.open(film) as shown:
        assert shown.n_frames >= 3


def test_an_earlier_training_is_looked_at_again(
    with_tab: Any, animals: Path, made_up: MadeUp, tmp_path: Path
) -> None:
    folder = tmp_path / "ended"
    folder.mkdir()
    (folder / "log.csv").write_text(
        "step,loss,pictures_per_second,seconds\n5,0.5,4,1\n10,0.4,4,2\n"
    )
    (folder / "measures.csv").write_text(
        "step,held_out,bits,memorised\n0,0.7,nan,0\n10,0.6,3.5,0\n"
    )
    log.keep_levels(folder, [(-1.0, 0.0, 0.5, 9.0, 40.0, 0.9), (0.0, 1.0, 0.2, 9.0, 50.0, 0.8)])
    for step in (0, 10):
        sheets.keep(folder, sheet(step))
    made_up.found = [RunFound("ended", 10, 10, 0.4, 1e9, False, str(animals), folder)]

    async def work(tab: TrainTab) -> None:
        await until(lambda: tab._runs)
        tab._fill_past()
        (action,) = tab.past.actions()
        assert action.text().startswith("ended, ")
        action.trigger()
        await until(lambda: tab.record.name == "ended")
        assert tab.view.currentWidget() is tab.live
        assert tab.record.curves["loss"].points == [(5, 0.5), (10, 0.4)]
        assert tab.record.curves["bits"].points == [(10, 3.5)]
        assert tab.record.last("pace") == 4
        assert [s.step for s in tab.record.sheets] == [0, 10]
        assert len(tab.live.levels.bars()) == 2
        assert "“ended” came to step 10 of 10" in tab.result.text.text()
        assert tab.live.lapse.film.isEnabled()
        await begun(tab, animals, made_up, steps=2)
        tab._fill_past()
        assert not any(action.isEnabled() for action in tab.past.actions())
        assert tab.record.name == "my-animals"

    with_tab(work)


def test_stopping_keeps_the_model(
    with_tab: Any, animals: Path, made_up: MadeUp, home: Path
) -> None:
    async def work(tab: TrainTab) -> None:
        await begun(tab, animals, made_up, steps=7)
        tab.bar.run.click()
        await until(lambda: not tab.runner.busy)
        assert made_up.closed
        assert tab.result.isVisible()
        assert "kept at step 7" in tab.result.text.text()
        assert tab.bar.run.text() == "Run"
        place = home / "models" / "my-animals"
        tab._offer([RunFound("my-animals", 8, 500, 0.1, 1e9, True, str(animals), place)])
        assert "kept at step 8" in tab.result.text.text()  # the one under way counts as well
        assert tab.earlier.isVisible()

    with_tab(work)


@pytest.mark.parametrize("paused", [False, True])
def test_discarding_asks_once_and_leaves_nothing(
    with_tab: Any, animals: Path, made_up: MadeUp, home: Path, paused: bool
) -> None:
    async def work(tab: TrainTab) -> None:
        await begun(tab, animals, made_up, steps=4)
        if paused:
            tab.bar.pause.click()
        tab.bar.discard.click()
        await answer("Cancel")
        await asyncio.sleep(0)
        assert tab.runner.busy
        tab.bar.discard.click()
        await answer("Discard")
        made_up.more(3)
        await until(lambda: not tab.runner.busy)
        assert made_up.discarded
        assert not (home / "models" / "my-animals").exists()
        assert tab.result.isHidden()
        assert tab.view.currentIndex() == 0

    with_tab(work)


def test_a_failure_says_what_was_kept_beside_the_button(
    with_tab: Any, animals: Path, made_up: MadeUp
) -> None:
    made_up.fails_at = 6

    async def work(tab: TrainTab) -> None:
        await begun(tab, animals, made_up, steps=5)
        made_up.more(5)
        await until(lambda: not tab.runner.busy)
        assert "not enough memory" in tab.errors.text
        assert "Kept: “my-animals” as it was at step 5" in tab.errors.text
        assert tab.bar.run.isEnabled()

    with_tab(work)


def test_a_roll_back_is_a_note_and_not_an_error(
    with_tab: Any, animals: Path, made_up: MadeUp
) -> None:
    made_up.rolls_back_at = 5

    async def work(tab: TrainTab) -> None:
        await begun(tab, animals, made_up, steps=8)
        await until(lambda: "Back to step 4" in tab.facts.notes.text())
        assert tab.errors.text == ""
        assert tab.runner.busy

    with_tab(work)


def test_a_name_that_is_taken_is_refused(with_tab: Any, animals: Path, made_up: MadeUp) -> None:
    async def work(tab: TrainTab) -> None:
        await opened(tab, animals)
        for name, word in (("tiny", "is there already"), ("critters-32", "ships")):
            tab.plan.name.setText(name)
            tab.bar.run.click()
            assert word in tab.errors.text
        assert not made_up.jobs

    with_tab(work)


def test_keys_check_run_hold_and_turn(with_tab: Any, animals: Path, made_up: MadeUp) -> None:
    async def work(tab: TrainTab) -> None:
        control = Qt.KeyboardModifier.ControlModifier
        await opened(tab, animals)
        tab.activateWindow()
        tab.folder.page.wall.setFocus()
        both = control | Qt.KeyboardModifier.ShiftModifier
        QTest.keyClick(tab, Qt.Key.Key_Return, both)
        await until(lambda: made_up.checks)
        await until(lambda: not tab.checker.busy)
        QTest.keyClick(tab, Qt.Key.Key_Return, control)
        await until(lambda: made_up.jobs)
        await until(lambda: tab.record.sheets)
        QTest.keyClick(tab, Qt.Key.Key_K)
        assert tab.runner.state == "paused"
        QTest.keyClick(tab, Qt.Key.Key_X)
        assert tab.live.wall.view == "before"
        QTest.keyClick(tab, Qt.Key.Key_1, Qt.KeyboardModifier.AltModifier)
        assert tab.view.currentIndex() == 0
        QTest.keyClick(tab, Qt.Key.Key_Return, control)
        await until(lambda: not tab.runner.busy)

    with_tab(work)


# -- earlier runs -----------------------------------------------------------------------------------


def test_an_interrupted_training_is_offered_and_goes_on_with_its_own_plan(
    with_tab: Any, animals: Path, made_up: MadeUp, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "models" / "my-animals"
    made_up.found = [RunFound("my-animals", 40, 300, 0.2, 1e9, True, str(animals), folder)]
    made_up.before = 40

    async def work(tab: TrainTab) -> None:
        from dataclasses import replace

        from studio.training.choices import Choices

        plan = replace(tab.plan.plan(), steps=300, batch=6)
        choices = Choices(flips=True, excluded=("2.png",))
        job = TrainJob(str(animals), plan, choices, "my-animals", 25)
        monkeypatch.setattr(train_jobs, "resumed", lambda folder: job, raising=False)
        monkeypatch.setattr(train_jobs, "sheets", lambda folder: [sheet(0), sheet(25)])
        await until(lambda: tab.earlier.isVisible())
        assert "step 40 of 300" in tab.earlier.text.text()
        tab.earlier.go_on.click()
        await until(lambda: made_up.jobs)
        assert made_up.jobs[0] is job
        assert tab.earlier.isHidden()
        await until(lambda: len(tab.record.sheets) == 3)
        assert [s.step for s in tab.record.sheets] == [0, 25, 40]
        made_up.more(1)
        await until(lambda: tab.record.step == 41)
        assert tab.plan.plan() == plan
        assert tab.folder.choices() == choices

    with_tab(work)


# -- in the window ----------------------------------------------------------------------------------


@pytest.fixture
def with_window(qapp: Any, made_up: MadeUp) -> Callable[[Any], None]:
    qapp.setQuitOnLastWindowClosed(False)

    async def whole(work: Any) -> None:
        closed = asyncio.Event()
        window = app.build(Settings(model="tiny"), closed)
        window.show()
        try:
            async with asyncio.timeout(120):
                await work(window, closed)
        finally:
            await window.shutdown()

    def run(work: Any) -> None:
        with qasync.QEventLoop(qapp) as loop:
            loop.run_until_complete(whole(work))
        assert not [t for t in threading.enumerate() if t.name in ("device", "io")]

    return run


def train_tab(window: MainWindow) -> TrainTab:
    tab = window.tabs["train"]
    assert isinstance(tab, TrainTab)
    return tab


def test_every_control_can_be_found_and_is_named(with_window: Any, animals: Path) -> None:
    names = "trainFolder check trainView run pause steps batch inspector errorBox resultName"

    async def work(window: MainWindow, _: Any) -> None:
        page = window.findChild(QWidget, "trainPage")
        assert page is not None
        for name in names.split():
            assert page.findChild(QWidget, name) is not None, name
        from PySide6.QtWidgets import QAbstractButton

        for button in page.findChildren(QAbstractButton):
            if button.objectName() and not button.objectName().startswith("qt_"):
                assert button.toolTip() or button.text(), button.objectName()
                assert button.accessibleName() or button.text(), button.objectName()

    with_window(work)


def test_a_folder_dropped_on_the_window_is_what_will_be_learned_from(
    with_window: Any, animals: Path
) -> None:
    async def work(window: MainWindow, _: Any) -> None:
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(animals))])
        event = QDropEvent(
            QPointF(5, 5),
            Qt.DropAction.CopyAction,
            data,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
        window.dropEvent(event)
        tab = train_tab(window)
        assert window.modes.currentWidget() is tab
        await until(lambda: not tab.folder.reader.scanning)
        assert tab.folder.collection.pictures == 6

    with_window(work)


def test_other_modes_see_how_far_it_is_and_that_it_is_ready(
    with_window: Any, animals: Path, made_up: MadeUp
) -> None:
    async def work(window: MainWindow, _: Any) -> None:
        window.turn_to("train")
        tab = train_tab(window)
        place = window.modes.indexOf(tab)
        await begun(tab, animals, made_up, steps=100)
        window.turn_to("sample")
        await until(lambda: window.modes.tabText(place) == "4  Train · 20%")
        made_up.more(400)
        await until(lambda: window.modes.tabText(place) == "4  Train · ready")
        window.turn_to("train")
        assert window.modes.tabText(place) == "4  Train"

    with_window(work)


def test_closing_while_it_trains_asks_and_saves(
    with_window: Any, animals: Path, made_up: MadeUp, home: Path
) -> None:
    async def work(window: MainWindow, closed: asyncio.Event) -> None:
        window.turn_to("train")
        tab = train_tab(window)
        await begun(tab, animals, made_up, steps=3)
        window.close()
        await until(question)
        box = question()
        assert box is not None
        assert "step 3 of 500" in box.text()
        assert "saves it" in box.text()
        await answer("Keep going")
        made_up.more(1)
        await until(lambda: tab.record.step == 4)
        assert tab.runner.busy
        assert not closed.is_set()
        window.close()
        await answer("Save and quit")
        await until(closed.is_set)

    with_window(work)
    assert made_up.closed
    assert (home / "models" / "my-animals" / "model.safetensors").exists()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_drawn_in_both_appearances_and_narrow(
    with_tab: Any, animals: Path, made_up: MadeUp, qapp: Any, scheme: str
) -> None:
    async def work(tab: TrainTab) -> None:
        from studio.ui import theme

        theme.apply(qapp, scheme)
        tab.resize(1000, 620)
        assert tab.width() <= 1024
        assert not tab.grab().isNull()
        await begun(tab, animals, made_up, steps=6)
        assert not tab.grab().isNull()

    with_tab(work)
