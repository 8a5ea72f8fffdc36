"""The Models mode as a person uses it: with a tiny model, a made-up hub, and one on this machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qasync
from conftest import SHIPPED
from hub_server import Repo, serving
from PIL import Image
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QInputDialog,
    QLineEdit,
    QMessageBox,
    QTabBar,
    QVBoxLayout,
    QWidget,
)

from studio import app
from studio.engine.engine import Engine
from studio.engine.jobs import Setting
from studio.engine.library import ThumbnailsJob
from studio.errors import CheckpointError, HubError
from studio.settings import Settings
from studio.ui import model_card, theme
from studio.ui.collector import Collector
from studio.ui.downloads import is_offline, time_left
from studio.ui.main_window import MainWindow
from studio.ui.model_card import body_of, licence_of
from studio.ui.session import Session
from studio.ui.tabs.models import ModelsTab, presets_in
from studio.weights import hub, library
from studio.weights.shelf import Entry, Shelf

Work = Callable[[Any], Coroutine[Any, Any, None]]


@pytest.fixture
def running(
    qapp: Any, home: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], Any], Work], None]:
    """Makes a widget in a loop, has a coroutine function work with it, and closes it in order."""
    monkeypatch.setattr("studio.ui.tabs.models.is_small", lambda entry: False)
    qapp.setQuitOnLastWindowClosed(False)
    (home / "models").mkdir(parents=True)
    tiny_checkpoint.rename(home / "models" / "tiny")

    async def whole(make: Callable[[], Any], work: Work) -> None:
        made = make()
        made.show()
        made.tabs["models"].shown()
        try:
            async with asyncio.timeout(120):
                await work(made)
        finally:
            await made.shutdown()

    def run(make: Callable[[], Any], work: Work) -> None:
        with qasync.QEventLoop(qapp) as loop:
            loop.run_until_complete(whole(make, work))
        assert not [t for t in threading.enumerate() if t.name in ("device", "io")]

    return run


@pytest.fixture
def with_window(running: Any) -> Callable[[Work], None]:
    """Runs a coroutine function with the whole window, in the Models mode."""

    def make() -> MainWindow:
        window = app.build(Settings(model="tiny"))
        window.modes.setCurrentWidget(window.tabs["models"])
        return window

    return lambda work: running(make, work)


@pytest.fixture
def with_page(running: Any) -> Callable[[Work], None]:
    """Runs a coroutine function with a Host."""
    return lambda work: running(Host, work)


class Host(QWidget):
    """The Models mode without the rest of the window, for what happens inside of it."""

    def __init__(self) -> None:
        super().__init__()
        shelf = Shelf()
        settings = Settings(model="tiny")
        self.session = Session(Engine(Setting(shelf)), shelf, settings)
        self._collector = Collector(lambda: False, self)
        self.tab = ModelsTab(self.session)
        self.tabs = {"models": self.tab}
        self.left: list[str] = []
        self.said: list[str] = []
        self.tab.leave.connect(self.left.append)
        self.tab.status.connect(self.said.append)
        QVBoxLayout(self).addWidget(self.tab)
        self.resize(1200, 760)

    async def shutdown(self) -> None:
        self.hide()
        for runner in self.tab.runners():
            runner.stop()
        await self.session.engine.close()
        await asyncio.gather(*(runner.finished() for runner in self.tab.runners()))
        self._collector.stop()
        self.deleteLater()


class MadeUpHub:
    """Sends a model of ten parts, one when `more` is called; or answers with `refusal`."""

    def __init__(self, models: Path, source: Path) -> None:
        self.models, self.source = models, source
        self.refusal: HubError | None = None
        self.tokens: list[str | None] = []
        self.kept = 0
        self.discarded: list[Path] = []
        self._sent = threading.Semaphore(0)

    def more(self, parts: int = 1) -> None:
        self._sent.release(parts)

    def look(self, id: str, revision: str = "main", token: str | None = None) -> hub.Listing:
        self.tokens.append(token)
        if self.refusal is not None:
            raise self.refusal
        return hub.Listing(id, "a" * 40, (hub.RemoteFile("model.safetensors", 1000),))

    def fetch(
        self, listing: hub.Listing, folder: Path, token: str | None = None
    ) -> Generator[hub.Received, None, Path]:
        while self.kept < 1000:
            if self._sent.acquire(timeout=0.02):
                self.kept += 100
            yield hub.Received(self.kept, 1000, "model.safetensors", 200.0)
        self.source.rename(folder)
        library.write_origin(folder, library.Origin(listing.id, listing.revision))
        return folder

    def discard(self, what: Any) -> None:
        self.discarded.append(what)
        self.kept = 0


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, home: Path, tmp_path: Path) -> MadeUpHub:
    from conftest import TINY_OPTIONS, tiny_network

    from studio.weights.formats import native
    from studio.weights.model import ModelInfo

    source = tmp_path / "remote"
    info = ModelInfo(options=TINY_OPTIONS, size=8, classes=("cat", "dog"))
    native.save(source, info, tiny_network().state_dict())
    made = MadeUpHub(home / "models", source)
    for name in ("look", "fetch", "discard"):
        monkeypatch.setattr(hub, name, getattr(made, name))
    return made


def models(window: Any) -> ModelsTab:
    tab = window.tabs["models"]
    assert isinstance(tab, ModelsTab)
    return tab


def part(window: QWidget, kind: type, name: str) -> Any:
    found = window.findChild(kind, name)
    assert found is not None, name
    return found


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def strip_of(tab: ModelsTab, name: str) -> Any:
    return tab.list.strip(name)


# -- the shelf --------------------------------------------------------------------------------------


def test_every_model_has_a_card_and_the_one_in_use_is_marked(with_page: Any) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        assert tab.list.names() == ["tiny", *SHIPPED]
        assert tab.list.selected() == "tiny"
        card = tab.list.card("tiny")
        assert card is not None
        assert card.used
        assert "8 × 8" in card.facts
        assert "2 classes" in card.facts
        assert "yours" in card.origin
        shipped = tab.list.card("critters-32")
        assert shipped is not None
        assert "ships" in shipped.origin
        assert f"{1 + len(SHIPPED)} models" in tab.total.text()
        assert tab.detail.title.text() == "tiny"

    with_page(work)


def test_a_damaged_model_says_why_it_cannot_be_used(with_page: Any, home: Path) -> None:
    async def work(window: Host) -> None:
        broken = home / "models" / "broken"
        broken.mkdir()
        (broken / "model.safetensors").write_bytes(b"no model")
        window.session.look_again()
        tab = models(window)
        tab.list.select("broken")
        assert "model.safetensors" in tab.detail.problem.text()
        assert not tab.detail.buttons["use"].isEnabled()
        assert not window.grab().isNull()

    with_page(work)


def test_small_models_get_thumbnails_by_themselves(
    with_page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.ui.tabs.models.is_small", lambda entry: entry.name == "tiny")

    async def work(window: Host) -> None:
        tab = models(window)
        await until(lambda: strip_of(tab, "tiny"))
        assert len(strip_of(tab, "tiny")) == 4
        await until(lambda: tab.detail.buttons["thumbnails"].isHidden())

    with_page(work)


def test_large_models_are_drawn_when_asked(with_page: Any) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        await until(lambda: "tiny" in tab._looked)
        await asyncio.sleep(0.05)
        assert strip_of(tab, "tiny") is None
        button = tab.detail.buttons["thumbnails"]
        assert button.isVisible()
        button.click()
        assert not button.isEnabled()
        await until(lambda: strip_of(tab, "tiny"))
        await until(lambda: button.isHidden())

    with_page(work)


def test_samples_that_come_with_a_model_are_shown(
    with_page: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThumbnailsJob, "run", lambda *_: pytest.fail("nothing was to be drawn"))
    monkeypatch.setattr("studio.ui.tabs.models.is_small", lambda e: e.name == "tiny")
    samples = home / "models" / "tiny" / "samples"

    async def work(window: Host) -> None:
        await until(lambda: strip_of(models(window), "tiny"))

    samples.parent.mkdir(parents=True, exist_ok=True)
    samples.mkdir()
    Image.new("RGB", (64, 48), "red").save(samples / "a.png")
    with_page(work)


def test_using_a_model_chooses_it_and_goes_to_sample(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        tab = models(window)
        tab.list.select("critters-32")
        tab.list.setFocus()
        QTest.keyClick(tab.list, Qt.Key.Key_Return)
        assert window.modes.currentWidget() is window.tabs["sample"]
        assert window.model_chip.text() == "critters-32"

    with_window(work)


def test_renaming_keeps_the_model_in_use(with_page: Any, home: Path) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        tab.detail.buttons["rename"].click()
        dialog = part(window, QInputDialog, "renameModel")
        dialog.setTextValue("my cats")
        dialog.accept()
        await until(lambda: "my cats" in tab.list.names())
        assert (home / "models" / "my cats").is_dir()
        assert window.session.model is not None
        assert window.session.model.name == "my cats"
        assert tab.list.selected() == "my cats"

    with_page(work)


def test_removing_asks_and_then_the_next_model_is_used(with_page: Any, home: Path) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        for answer, left in (("Cancel", True), ("Remove", False)):
            tab.detail.buttons["remove"].click()
            await until(lambda: window.findChild(QMessageBox, "question"))
            question = part(window, QMessageBox, "question")
            assert "tiny" in question.text()
            next(b for b in question.buttons() if b.text().replace("&", "") == answer).click()
            await until(lambda: window.findChild(QMessageBox, "question") is None)
            await asyncio.sleep(0.05)
            await until(lambda: not tab.runner.busy)
            assert (home / "models" / "tiny").exists() == left
        assert tab.list.names() == SHIPPED
        assert window.session.model is not None
        assert window.session.model.name == SHIPPED[0]

    with_page(work)


@pytest.mark.parametrize("verb", ["rename", "remove"])
def test_what_ships_stays_and_the_reason_is_said(with_page: Any, verb: str) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        tab.list.select("critters-32")
        tab.detail.buttons[verb].click()
        assert "ships with the studio" in tab.errors.text

    with_page(work)


def test_verifying_tells_what_was_looked_at(with_page: Any) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        tab.detail.buttons["verify"].click()
        await until(lambda: not tab.runner.busy)
        assert "tensors" in tab.detail.report.toPlainText()
        assert tab.detail.pages.currentWidget() is tab.detail.report

    with_page(work)


def test_a_model_in_memory_can_be_ejected(with_page: Any) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        window.session.shelf.load("tiny")
        tab.refresh()
        assert "in memory" in tab.detail.facts.text()
        tab.detail.buttons["eject"].click()
        await until(lambda: not window.session.shelf.loaded())
        await until(lambda: not tab.detail.buttons["eject"].isEnabled())

    with_page(work)


# -- adding -----------------------------------------------------------------------------------------


def dropped(path: Path, on: QWidget) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    event = QDropEvent(
        QPointF(5, 5),
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    on.dropEvent(event)


def test_a_folder_dropped_on_the_window_becomes_a_model(
    with_window: Any, made_up: MadeUpHub, tmp_path: Path
) -> None:
    folder = made_up.source.rename(tmp_path / "found")

    async def work(window: MainWindow) -> None:
        window.modes.setCurrentWidget(window.tabs["sample"])
        dropped(folder, window)
        tab = models(window)
        assert window.modes.currentWidget() is tab
        await until(lambda: "found" in tab.list.names())
        assert tab.list.selected() == "found"
        assert folder.exists()

    with_window(work)


def test_what_is_no_model_is_refused_beside_the_buttons(with_page: Any, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(b"nothing of the kind")

    async def work(window: Host) -> None:
        tab = models(window)
        tab.add_path(path)
        await until(lambda: tab.errors.text)
        assert "odd.safetensors" in tab.errors.text
        assert tab.add_file.isEnabled()
        assert tab.presets.isHidden()

    with_page(work)


def test_a_preset_is_asked_for_only_when_the_file_needs_one(
    with_page: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def add(source: Path, name: str = "", preset: str = "") -> Entry:
        asked.append(preset)
        if not preset:
            raise CheckpointError(
                "a.pth does not say which SDE it was trained with.",
                "Choose the preset: ve/cifar10_ncsnpp, subvp/cifar10_ddpmpp_continuous.",
            )
        return Entry("tiny", tmp_path, None)

    monkeypatch.setattr(library, "add", add)

    async def work(window: Host) -> None:
        tab = models(window)
        tab.add_path(tmp_path / "a.pth")
        await until(lambda: tab.presets.isVisible())
        names = [tab.presets.choice.itemText(i) for i in range(tab.presets.choice.count())]
        assert names == ["ve/cifar10_ncsnpp", "subvp/cifar10_ddpmpp_continuous"]
        await until(lambda: not tab.runner.busy)
        tab.presets.choice.setCurrentIndex(1)
        part(tab, QAbstractButton, "addWithPreset").click()
        await until(lambda: len(asked) == 2)
        assert asked == ["", "subvp/cifar10_ddpmpp_continuous"]
        assert tab.presets.isHidden()

    with_page(work)


def test_an_error_without_presets_asks_for_none() -> None:
    assert presets_in(CheckpointError("No.", "Try another/file of v/e.")) == []


# -- downloads --------------------------------------------------------------------------------------


def typed(tab: ModelsTab, text: str) -> None:
    part(tab, QAbstractButton, "models_more").click()
    tab.get_models.id.setText(text)
    tab.get_models.get.click()


def test_a_download_shows_how_far_it_is_and_its_model_is_one_click_from_use(
    with_page: Any, made_up: MadeUpHub
) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        typed(tab, "https://huggingface.co/someone/cats")
        made_up.more(4)
        (row,) = tab.downloads.rows
        await until(lambda: "400 B of 1 kB" in row.text.text())
        assert "200 B/s" in row.text.text()
        assert "3 s left" in row.text.text()
        assert row.bar.value() == 400
        made_up.more(6)
        await until(lambda: row.state == "done")
        assert "someone--cats" in tab.list.names()
        row.go.click()
        assert window.session.model is not None
        assert window.session.model.name == "someone--cats"
        assert window.left == ["sample"]
        row.cancel.click()
        assert tab.downloads.isHidden()

    with_page(work)


def test_a_download_is_paused_gone_on_with_and_cancelled(
    with_page: Any, made_up: MadeUpHub, home: Path
) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        typed(tab, "someone/cats")
        (row,) = tab.downloads.rows
        made_up.more(3)
        await until(lambda: row.bar.value() == 300)
        row.go.click()
        await until(lambda: row.state == "paused")
        assert row.go.text() == "Resume"
        assert "Paused · 300 B of 1 kB" in row.text.text()
        row.go.click()
        made_up.more(2)
        await until(lambda: row.bar.value() == 500)
        row.cancel.click()
        await until(lambda: not tab.downloads.rows)
        assert made_up.discarded == [home / "models" / "someone--cats"]

    with_page(work)


def test_an_error_stands_in_the_row_with_what_was_kept_and_a_retry(
    with_page: Any, made_up: MadeUpHub
) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        typed(tab, "someone/cats")
        (row,) = tab.downloads.rows
        made_up.more(3)
        await until(lambda: row.bar.value() == 300)
        row.go.click()
        await until(lambda: row.state == "paused")
        made_up.refusal = HubError("The disk is full.", "Free some space.")
        row.go.click()
        await until(lambda: row.state == "failed")
        assert row.text.text() == "The disk is full. Free some space. 300 B of 1 kB kept."
        assert row.go.text() == "Retry"
        assert tab.downloads.offline.isHidden()
        made_up.refusal = None
        row.go.click()
        made_up.more(7)
        await until(lambda: row.state == "done")

    with_page(work)


def test_without_a_network_downloads_wait_and_this_is_said(
    with_page: Any, made_up: MadeUpHub
) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        made_up.refusal = HubError("The server cannot be reached (no route).", "Look at it.")
        typed(tab, "someone/cats")
        (row,) = tab.downloads.rows
        await until(lambda: row.state == "waiting")
        assert tab.downloads.offline.isVisible()
        assert row._again.isActive()  # it looks again by itself
        made_up.refusal = None
        made_up.more(10)
        row._again.timeout.emit()
        await until(lambda: row.state == "done")
        assert tab.downloads.offline.isHidden()

    with_page(work)


def test_what_an_earlier_session_left_is_listed_with_resume(
    with_page: Any, made_up: MadeUpHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = hub.Unfinished("someone/cats", "b" * 40, 600, 1000, Path("anywhere"))
    monkeypatch.setattr(hub, "unfinished", lambda: [left])
    made_up.kept = 600

    async def work(window: Host) -> None:
        tab = models(window)
        await until(lambda: tab.downloads.rows)
        (row,) = tab.downloads.rows
        assert row.go.text() == "Resume"
        assert "600 B of 1 kB" in row.text.text()
        assert row.job.revision == "b" * 40
        row.go.click()
        made_up.more(4)
        await until(lambda: row.state == "done")

    with_page(work)


def test_a_token_is_asked_for_only_for_private_models_and_kept_nowhere(
    with_page: Any, made_up: MadeUpHub, home: Path
) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        part(tab, QAbstractButton, "models_more").click()
        field = part(tab, QLineEdit, "hubToken")
        assert field.isHidden()
        part(tab, QAbstractButton, "hubPrivate").click()
        assert field.isVisible()
        assert field.echoMode() == QLineEdit.EchoMode.Password
        field.setText("hf_secret")
        typed(tab, "someone/cats")
        await until(lambda: made_up.tokens)
        assert made_up.tokens == ["hf_secret"]
        assert field.text() == ""
        window.session.remember()

    with_page(work)
    for file in home.rglob("*"):
        if file.is_file():
            assert b"hf_secret" not in file.read_bytes()


def test_what_is_no_id_is_said_at_once(with_page: Any) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        typed(tab, "not an id")
        assert "owner/name" in tab.errors.text
        assert not tab.downloads.rows

    with_page(work)


def test_known_models_say_whether_they_are_here(with_page: Any, made_up: MadeUpHub) -> None:
    async def work(window: Host) -> None:
        tab = models(window)
        part(tab, QAbstractButton, "models_more").click()
        id, row = next(iter(tab.get_models.rows.items()))
        assert row.get.text() == "Get"
        row.get.click()
        assert row.get.text() == "On its way"
        made_up.more(10)
        await until(lambda: row.get.text() == "On the shelf")
        assert not row.get.isEnabled()
        assert tab.downloads.rows[0].job.id.lower() == id

    with_page(work)


def test_closing_in_the_middle_of_a_download_keeps_what_has_come(
    with_window: Any, made_up: MadeUpHub
) -> None:
    async def work(window: MainWindow) -> None:
        tab = models(window)
        typed(tab, "someone/cats")
        made_up.more(2)
        await until(lambda: tab.downloads.rows[0].bar.value() == 200)
        assert tab.at_stake() == ""  # it can be gone on with: nothing to ask

    with_window(work)
    assert made_up.kept == 200
    assert not made_up.discarded


def test_a_model_comes_over_the_wire_from_a_hub_that_drops_the_line(
    with_page: Any, made_up: MadeUpHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    monkeypatch.undo()
    monkeypatch.setenv("STUDIO_HOME", str(made_up.models.parent))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    weights = (made_up.source / "model.safetensors").read_bytes()
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.repos["someone/cats"] = Repo({"model.safetensors": weights})
        server.tricks["model.safetensors"] = [("drop", len(weights) // 2)]

        async def work(window: Host) -> None:
            tab = models(window)
            typed(tab, "someone/cats")
            (row,) = tab.downloads.rows
            await until(lambda: row.state in ("done", "failed"))
            assert row.state == "done", row.text.text()
            card = tab.list.card("someone--cats")
            assert card is not None
            assert "from the hub" in card.origin

        with_page(work)


# -- the chips --------------------------------------------------------------------------------------


def test_the_device_chip_offers_devices_numbers_and_to_eject(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        menu = window.device_menu
        menu.aboutToShow.emit()
        await until(lambda: window.session.engine.facts is not None)
        await until(lambda: not menu.runners()[0].busy)
        actions = {a.objectName(): a for a in menu.actions() if a.objectName()}
        assert actions["device_auto"].isChecked()
        assert actions["dtype_fp32"].isChecked()
        assert not actions["dtype_fp16"].isEnabled()
        actions["device_cpu"].trigger()
        actions["dtype_bf16"].trigger()
        models(window).do("thumbnails", "tiny")
        assert Settings.load().device == "cpu"
        assert Settings.load().dtype == "bf16"
        await until(lambda: strip_of(models(window), "tiny"))
        window._tell_device()
        assert "bf16" in window.device_chip.text()
        window.session.shelf.load("tiny")
        menu.aboutToShow.emit()
        eject = next(a for a in menu.actions() if a.objectName() == "ejectModels")
        assert eject.isEnabled()
        eject.trigger()
        await until(lambda: not window.session.shelf.loaded())

    with_window(work)


def test_numbers_that_are_not_sound_on_a_device_are_left_with_it(with_window: Any) -> None:
    async def work(window: MainWindow) -> None:
        window.session.remember(device="cuda", dtype="fp16")
        window.device_menu.choose_device("cpu")
        assert window.session.settings.dtype == "fp32"

    with_window(work)


# -- words ------------------------------------------------------------------------------------------


def entry_with(tmp_path: Path, card: str) -> Entry:
    (tmp_path / "card.md").write_text(card)
    return Entry("x", tmp_path, None)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# X\n", "apache-2.0"),
        ("# X\n\n| | |\n|---|---|\n| licence | CC BY 4.0 |\n", "CC BY 4.0"),
        ("# X\n\nLicense: MIT\n", "MIT"),
        ("# X\n", ""),
        ("", ""),
    ],
)
def test_the_licence_is_read_off_the_card(tmp_path: Path, card: str, licence: str) -> None:
    assert licence_of(entry_with(tmp_path, card)) == licence


def test_a_card_loads_nothing_and_runs_nothing() -> None:
    card = (
        "---\nlicense: mit\n---\n# Hello\n![cat](https://evil.example/cat.png)\n"
        '<img src="http://evil.example/x"><script>alert(1)</script>\n<!-- hidden -->\nText.'
    )
    body = body_of(card)
    assert "evil" not in body
    assert "hidden" not in body
    assert "license" not in body
    assert "# Hello" in body
    assert "Text." in body


def test_a_card_stays_a_card_whatever_is_in_it(shown: Any) -> None:
    from studio.ui.model_detail import CardView

    view = shown(CardView(), 300, 200)
    for text in ("|||\n|---|---|\n|a|b|", "# " * 500, "[" * 3000, "\x00\n# x", "| a |\n" * 300):
        view.show_text(body_of(text))
    assert view.loadResource(2, QUrl("https://example.com/a.png")) is None


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "1 s left"), (42, "42 s left"), (600, "10 min left"), (9000, "2.5 h left")],
)
def test_time_left_is_told_as_people_say_it(seconds: float, told: str) -> None:
    assert time_left(seconds) == told


def test_offline_is_told_from_other_trouble() -> None:
    assert is_offline(HubError("The hub could not be asked: the server cannot be reached (x)."))
    assert not is_offline(HubError("There is no model a/b on the hub."))


def test_every_control_of_the_mode_can_be_found_and_is_named(with_window: Any) -> None:
    names = "modelsPage modelList modelChip deviceChip hubId hubGet hubPrivate addFile addFolder"

    async def work(window: MainWindow) -> None:
        for name in names.split():
            assert window.findChild(QWidget, name) is not None, name
        for button in models(window).findChildren(QAbstractButton):
            if not isinstance(button.parent(), QLineEdit | QTabBar):  # those are Qt's own
                assert button.toolTip(), button.objectName()
                assert button.accessibleName() or button.text(), button.objectName()

    with_window(work)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_list_paints_strips_and_placeholders(
    with_page: Any, grab: Any, qapp: Any, scheme: str
) -> None:
    async def work(window: Host) -> None:
        theme.apply(qapp, scheme)
        tab = models(window)
        before = grab(tab.list.viewport())
        red = np.zeros((4, 8, 8, 3), np.uint8)
        red[..., 0] = 255
        tab.list.set_strip("tiny", red)
        after = grab(tab.list.viewport())
        side, pad = model_card.STRIP_SIDE, model_card._PAD
        spot = after[pad + 10 : pad + side - 10, pad + 10 : pad + side - 10].reshape(-1, 3)
        assert (spot == (255, 0, 0)).all(axis=1).mean() > 0.7
        assert (after != before).any()

    with_page(work)


def test_an_empty_shelf_says_what_to_do(shown: Any, grab: Any) -> None:
    view = shown(model_card.ModelList(), 400, 300)
    view.show_cards([])
    assert view.selected() == ""
    assert len(np.unique(grab(view).reshape(-1, 3), axis=0)) > 10  # words are painted
