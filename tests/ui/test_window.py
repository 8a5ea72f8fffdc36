"""The window as a person uses it, with a tiny model on the shelf."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qasync
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QDialog,
    QDoubleSpinBox,
    QLabel,
    QMessageBox,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio import app, recipes, spec
from studio.diffusion.catalog import PRESETS, SAMPLERS
from studio.engine.jobs import SampleJob
from studio.errors import StudioError
from studio.settings import Settings
from studio.ui.main_window import MainWindow
from studio.ui.modes import Modes
from studio.ui.tabs.sample import SampleTab


@pytest.fixture
def with_window(
    qapp: Any, home: Path, tiny_checkpoint: Path
) -> Callable[[Callable[[MainWindow], Coroutine[Any, Any, None]]], None]:
    """Runs a coroutine function with an open window, then closes the window in order."""
    qapp.setQuitOnLastWindowClosed(False)
    (home / "models").mkdir(parents=True)
    tiny_checkpoint.rename(home / "models" / "tiny")

    async def whole(work: Callable[[MainWindow], Coroutine[Any, Any, None]]) -> None:
        window = app.build(Settings(model="tiny", rate=60.0))
        window.show()
        try:
            async with asyncio.timeout(120):
                await work(window)
        finally:
            await window.shutdown()

    def run(work: Callable[[MainWindow], Coroutine[Any, Any, None]]) -> None:
        with qasync.QEventLoop(qapp) as loop:
            loop.run_until_complete(whole(work))

    return run


def sample(window: MainWindow) -> SampleTab:
    tab = window.tabs["sample"]
    assert isinstance(tab, SampleTab)
    return tab


def part(window: QWidget, kind: type, name: str) -> Any:
    found = window.findChild(kind, name)
    assert found is not None, name
    return found


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def begun(tab: SampleTab, steps: int = 5000, name: str = "pc") -> None:
    """A long run, under way."""
    tab.panel.sampler.set_value(SAMPLERS[name](steps=steps))
    tab.panel.count.setValue(2)
    tab.run_or_stop()
    await until(lambda: tab._shown is not None)


async def one_run(tab: SampleTab, count: int = 4) -> None:
    tab.panel.count.setValue(count)
    tab.run_or_stop()
    await until(lambda: not tab.runner.busy)


def test_run_shows_pictures_and_keeps_them(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        tab = sample(window)
        QTest.mouseClick(tab.run_button, Qt.MouseButton.LeftButton)
        assert tab.run_button.text() == "Stop"
        await until(lambda: not tab.runner.busy)
        assert tab.view.count == 16
        await until(lambda: len(tab.history.tiles.items) == 1)
        assert tab.run_button.text() == "Run"
        assert tab.run_button.isEnabled()
        assert "network calls" in window.status.text()

    with_window(work)


def test_a_run_shows_the_pictures_that_its_seed_makes(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        tab = sample(window)
        tab.panel.seed.set_value(11)
        await one_run(tab, 3)
        first = tab.view.picture(1).copy()
        tab.panel.seed.set_value(12)
        tab.panel.seed.lock.setChecked(True)
        await one_run(tab, 1)
        assert np.abs(tab.view.picture(0).astype(int) - first.astype(int)).max() <= 1

    with_window(work)


def test_pause_holds_step_moves_by_one_and_stop_ends(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        tab = sample(window)
        await begun(tab)
        pause, step = part(tab, QToolButton, "pause"), part(tab, QToolButton, "step")
        pause.click()
        assert tab.runner.state == "paused"
        await asyncio.sleep(0.2)
        shown = part(tab, QWidget, "value_step").text()
        await asyncio.sleep(0.1)
        assert part(tab, QWidget, "value_step").text() == shown
        step.click()
        await until(lambda: part(tab, QWidget, "value_step").text() != shown)
        tab.run_button.click()
        await until(lambda: not tab.runner.busy)
        assert tab.run_button.text() == "Run"
        assert tab.view.count == 2  # what was reached stays

    with_window(work)


def test_typing_a_number_is_not_taken_for_a_shortcut(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        tab = sample(window)
        tab.panel.sampler.set_value(SAMPLERS["pc"](steps=5000))
        tab.panel.count.setValue(1)
        tab.run_or_stop()
        await until(lambda: tab._shown is not None)
        field = part(tab, QDoubleSpinBox, "snr")
        window.activateWindow()
        field.setFocus()
        field.selectAll()
        QTest.keyClicks(field, "0.25")
        assert tab.panel.sampler.value().corrector.snr == 0.25
        assert tab.runner.state == "running"  # "." alone would have held it for a step

    with_window(work)


def test_finish_brings_a_long_run_to_its_end(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        tab = sample(window)
        await begun(tab)
        part(tab, QToolButton, "finish").click()
        await until(lambda: not tab.runner.busy)
        await until(lambda: len(tab.history.tiles.items) == 1)
        assert tab.walk.finished

    with_window(work)


def test_scrubbing_looks_back_while_the_run_goes_on(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        tab = sample(window)
        await begun(tab, steps=400)
        await until(lambda: len(tab.walk.timeline.times) > 10)
        past = tab.walk.timeline.times[3]
        tab.walk.timeline.scrubbed.emit(past)
        assert tab._shown.log_snr == past
        await until(lambda: not tab.runner.busy)
        assert tab._shown.log_snr == past
        tab.walk.timeline.live_requested.emit()
        assert tab._shown.log_snr > past

    with_window(work)


def test_all_four_views_show_the_same_moment(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        tab = sample(window)
        await one_run(tab)
        tab.walk.timeline.scrubbed.emit(tab.walk.timeline.times[8])
        for name in ("x", "denoised", "score", "change"):
            part(tab, QPushButton, f"view_{name}").click()
            assert (tab.view.picture(0) == tab._shown.view(name)[0]).all()

    with_window(work)


def test_the_recipe_of_a_saved_picture_comes_back_when_it_is_dropped(
    with_window: Any, tmp_path: Path
) -> None:
    async def work(window: MainWindow) -> None:
        tab = sample(window)
        tab.panel.seed.set_value(77)
        await one_run(tab)
        result = tab.result
        assert result is not None
        path = tmp_path / "kept.png"
        recipes.write_png(path, result.pictures[0], result.recipe)
        tab.panel.seed.set_value(5)
        tab.panel.sampler.set_value(PRESETS["paper"][1])
        window.open_file(path)
        await until(lambda: window.findChild(QMessageBox, "question"))
        question = part(window, QMessageBox, "question")
        assert "77" in question.informativeText()
        next(b for b in question.buttons() if b.text() == "Restore").click()
        await until(lambda: tab.panel.seed.value() == 77)
        assert tab.panel.job() == spec.from_dict(SampleJob, result.recipe)

    with_window(work)


@pytest.mark.parametrize(
    ("kind", "name"), [("picture", "a.png"), ("sheet", "b.png"), ("film", "c.webp")]
)
def test_results_are_saved_where_a_person_says(
    with_window: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    path = tmp_path / name
    monkeypatch.setattr("studio.ui.keeping.QFileDialog.getSaveFileName", lambda *_: (str(path), ""))

    async def work(window: MainWindow) -> None:
        tab = sample(window)
        await one_run(tab)
        tab.save(kind)
        await until(path.exists)
        await until(lambda: str(path) in window.status.text())

    with_window(work)


def test_a_folder_that_cannot_be_written_is_said_beside_the_button(
    with_window: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / "file" / "a.png"
    monkeypatch.setattr("studio.ui.keeping.QFileDialog.getSaveFileName", lambda *_: (str(path), ""))

    async def work(window: MainWindow) -> None:
        tab = sample(window)
        await one_run(tab)
        tab.save("picture")
        await until(lambda: tab.errors.text)
        assert "a.png" in tab.errors.text
        assert tab.view.count == 4

    with_window(work)


@pytest.mark.parametrize("content", [b"not a picture", b""])
def test_a_file_that_is_no_picture_is_refused_in_a_sentence(
    with_window: Any, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "odd.png"
    path.write_bytes(content)

    async def work(window: MainWindow) -> None:
        window.open_file(path)
        await until(lambda: sample(window).errors.text)
        assert "odd.png" in sample(window).errors.text

    with_window(work)


def test_an_error_stands_beside_the_button_and_run_works_again(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        tab = sample(window)
        tab.panel.classes.addItem("Unicorn", "unicorn")
        tab.panel.classes.setCurrentIndex(tab.panel.classes.count() - 1)
        tab.run_or_stop()
        await until(lambda: not tab.runner.busy)
        assert "unicorn" in tab.errors.text
        tab.panel.classes.setCurrentIndex(0)
        await one_run(tab)
        assert tab.errors.text == ""
        await until(lambda: len(tab.history.tiles.items) == 1)

    with_window(work)


def test_a_bug_opens_the_crash_dialog_and_is_logged(with_window: Any, home: Path) -> None:
    async def work(window: MainWindow) -> None:
        tab = sample(window)
        tab.runner.bug.emit(ZeroDivisionError("a bug of ours"))
        dialog = part(window, QDialog, "crashDialog")
        assert dialog.isVisible()
        assert "a bug of ours" in (home / "crash.log").read_text()
        dialog.close()

    with_window(work)


def test_closing_during_a_run_asks_once_and_leaves_no_thread(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        await begun(sample(window))
        window.close()
        window.close()
        await until(lambda: window.findChild(QMessageBox, "question"))
        assert len(window.findChildren(QMessageBox, "question")) == 1
        part(window, QMessageBox, "question").button(QMessageBox.StandardButton.Cancel).click()
        await asyncio.sleep(0.05)
        assert sample(window).runner.busy

    with_window(work)
    assert not [t for t in threading.enumerate() if t.name in ("device", "io")]


def test_after_a_crash_the_recipe_is_offered_back(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        lost = SampleJob(model="tiny", sampler=SAMPLERS["heun"](steps=9), count=3, seed=41)
        window.session.remember(recipe=spec.to_dict(lost), clean=False)
        offer = asyncio.ensure_future(window.offer_recovery(crashed=True))
        await until(lambda: window.findChild(QMessageBox, "question"))
        question = part(window, QMessageBox, "question")
        assert "seed 41" in question.informativeText()
        next(b for b in question.buttons() if b.text() == "Restore").click()
        await offer
        assert sample(window).panel.job() == lost

    with_window(work)
    assert Settings.load().clean


def test_a_recipe_of_another_version_is_not_offered(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        window.session.remember(recipe={"model": "tiny", "wormhole": 3})
        await window.offer_recovery(crashed=True)
        assert window.findChild(QMessageBox, "question") is None

    with_window(work)


def test_without_a_model_run_is_disabled_and_says_why(qapp: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("studio.app.Shelf", lambda: app_shelf_of_nothing())

    async def whole() -> None:
        window = app.build(Settings())
        button = sample(window).run_button
        assert not button.isEnabled()
        assert button.toolTip()
        await window.shutdown()

    with qasync.QEventLoop(qapp) as loop:
        loop.run_until_complete(whole())


def app_shelf_of_nothing() -> Any:
    from studio.weights.shelf import Shelf

    return Shelf([])


@pytest.mark.parametrize("scheme", ["light", "dark", "system"])
def test_every_appearance_can_be_chosen(with_window: Any, scheme: str) -> None:
    async def work(window: MainWindow) -> None:
        window.session.remember(theme=scheme)
        assert Settings.load().theme == scheme
        assert not window.grab().isNull()

    with_window(work)


def test_every_control_can_be_found_and_is_named(with_window: Any) -> None:
    names = (
        "modes samplePage run pause step finish sampler steps count seed sampleView timeline "
        "inspector history modelChip deviceChip status errorBox"
    )

    async def work(window: MainWindow) -> None:
        for name in names.split():
            assert window.findChild(QWidget, name) is not None, name
        for button in window.findChildren(QToolButton) + window.findChildren(QPushButton):
            if button.isVisible() and button.objectName():
                assert button.toolTip() or button.text(), button.objectName()

    with_window(work)


def test_settings_that_make_no_sense_are_left_at_their_defaults(home: Path) -> None:
    home.mkdir()
    (home / "settings.json").write_text('{"theme": "plaid", "rate": 1e9, "model": "mine", "x": 1}')
    assert Settings.load() == Settings(model="mine")
    (home / "settings.json").write_text("[")
    assert Settings.load() == Settings()


def test_errors_have_a_message_and_a_hint() -> None:
    error = StudioError("No.", "Try this.")
    assert (str(error), error.message, error.hint) == ("No. Try this.", "No.", "Try this.")


def test_words_that_change_in_a_mode_do_not_draw_all_of_it_anew(qapp: Any) -> None:
    class Beside(QWidget):
        drawn = 0

        def paintEvent(self, event: Any) -> None:
            self.drawn += 1

    modes, page, label, beside = Modes(), QWidget(), QLabel("1"), Beside()
    box = QVBoxLayout(page)
    box.addWidget(label)
    box.addWidget(beside, 1)
    modes.addTab(page, "one")
    modes.resize(300, 300)
    modes.show()
    QTest.qWait(100)
    before, least = beside.drawn, modes.minimumSizeHint().width()
    for number in range(5):
        label.setText(str(number))
        QTest.qWait(10)
    assert beside.drawn == before > 0
    label.setText("a long text " * 20)
    QTest.qWait(10)
    assert modes.minimumSizeHint().width() > least, "the window still learns what it needs"
    modes.close()


def test_a_chip_beside_the_modes_gets_the_room_that_its_words_need(qapp: Any) -> None:
    modes, chip = Modes(), QLabel("CPU")
    modes.addTab(QWidget(), "one")
    modes.setCornerWidget(chip, Qt.Corner.TopRightCorner)
    modes.resize(600, 300)
    modes.show()
    QTest.qWait(50)
    chip.setText("CPU · 0.6 GB · bf16")
    QTest.qWait(50)
    assert chip.width() >= chip.sizeHint().width()
    modes.close()
