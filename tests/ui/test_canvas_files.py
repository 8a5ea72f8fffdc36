"""Files of the canvas: what cannot be opened, what is saved, what survives a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studio import photos
from studio.ui.main_window import MainWindow
from studio.ui.tabs.canvas import CanvasTab
from tests.ui.test_canvas_tab import (  # the fixtures, too
    Host,
    answer,
    mark,
    on_canvas,
    opened,
    painted,
    picture,
    question,
    until,
)
from tests.ui.test_window import with_window

__all__ = ["on_canvas", "picture", "with_window"]


def _cut_short(path: Path) -> None:
    Image.effect_noise((64, 64), 60).convert("RGB").save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:900])


BAD = {
    "text.jpg": lambda path: path.write_text("only words, whatever the name says\n" * 9),
    "empty.png": lambda path: path.write_bytes(b""),
    "cut.jpg": _cut_short,
    "folder.png": lambda path: path.mkdir(),
    "broken.studio": lambda path: path.write_bytes(b"PK\x03\x04 no project"),
    "missing.png": lambda path: None,
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_file_is_refused_beside_the_button_and_the_canvas_stays(
    on_canvas: Any, picture: Path, tmp_path: Path, name: str
) -> None:
    bad = tmp_path / name
    BAD[name](bad)

    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        mask = document.mask.copy()
        tab.open_path(bad)
        await until(lambda: tab.errors.text)
        assert name in tab.errors.text
        assert tab.view.document is document
        assert (document.mask == mask).all()

    on_canvas(work)


def test_a_project_comes_back_with_its_mask_and_settings(
    on_canvas: Any, picture: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.studio"

    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        mask = document.mask.copy()
        tab.panel.seed.set_value(31)
        tab.task.set_way("windows")
        tab.files.save("project", kept, {})
        await until(lambda: not document.modified)
        tab.panel.seed.set_value(1)
        tab.task.set_way("box")
        again = await opened(tab, kept)
        assert (again.mask == mask).all()
        assert tab.panel.seed.value() == 31
        assert tab.task.way() == "windows"

    on_canvas(work)


def test_masks_go_out_and_come_in(
    on_canvas: Any, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mask.png"

    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        mask = document.mask.copy()
        tab.files.save("mask", path, {})
        await until(path.exists)
        assert (photos.read_mask(path) == mask).all()
        document.clear("mask")
        chosen = [path]
        monkeypatch.setattr(
            "studio.ui.canvas.files.QFileDialog.getOpenFileName", lambda *_: (str(chosen[0]), "")
        )
        await until(lambda: not tab.files._work.busy)
        tab.files.import_mask()
        await until(lambda: document.mask.any())
        assert (document.mask == mask).all()
        Image.new("L", (5, 5), 255).save(tmp_path / "small.png")
        chosen[0] = tmp_path / "small.png"
        await until(lambda: not tab.files._work.busy)
        tab.files.import_mask()
        await until(lambda: tab.errors.text)
        assert "small.png" in tab.errors.text
        assert (document.mask == mask).all()

    on_canvas(work)


def test_a_place_that_cannot_be_written_is_said_and_nothing_is_lost(
    on_canvas: Any, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")

    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        tab.files.save("project", tmp_path / "file" / "a.studio", {})
        await until(lambda: tab.errors.text)
        assert "a.studio" in tab.errors.text
        assert document.modified

    on_canvas(work)


def test_letting_go_of_marks_is_asked_first(on_canvas: Any, picture: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.png"
    Image.new("RGB", (20, 20)).save(other)

    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        tab.open_path(other)
        answer(await question(host), "Cancel")
        await asyncio.sleep(0.05)
        assert tab.view.document is document

    on_canvas(work)


def test_a_pasted_picture_is_a_document_first_and_colours_later(on_canvas: Any) -> None:
    pixels = np.full((12, 10, 4), 255, np.uint8)

    async def work(host: Host, tab: CanvasTab) -> None:
        tab.view.pasted.emit(pixels)
        await until(lambda: tab.view.document is not None)
        assert tab.view.document.size == (10, 12)
        assert not tab.view.document.sketch.any()
        tab.view.pasted.emit(pixels[:4, :4])
        assert tab.view.document.sketch[:4, :4].all()
        assert tab.view.layer == "sketch"

    on_canvas(work)


def test_what_was_not_saved_is_offered_next_time(on_canvas: Any, picture: Path) -> None:
    found: dict[str, np.ndarray] = {}

    async def paint(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        found["mask"] = document.mask.copy()

    async def come_back(host: Host, tab: CanvasTab) -> None:
        offer = asyncio.ensure_future(tab.offer_recovery())
        answer(await question(host), "Open")
        await offer
        await until(lambda: tab.view.document is not None)
        assert (tab.view.document.mask == found["mask"]).all()
        assert tab.view.document.modified

    async def refuse(host: Host, tab: CanvasTab) -> None:
        offer = asyncio.ensure_future(tab.offer_recovery())
        answer(await question(host), "Cancel")
        await offer
        # Escape is Cancel: it must not lose what was painted.
        assert len(tab.files.autosave.recoverable()) == 1
        assert tab.view.document is None

    for work in (paint, come_back, refuse, come_back):
        on_canvas(work)


_KILLED = """
import asyncio, sys
from pathlib import Path
from PySide6.QtWidgets import QApplication
import qasync
from studio import app
from studio.settings import Settings
from studio.ui.canvas.brush import Brush

async def work():
    window = app.build(Settings(model="tiny"))
    window.show()
    tab = window.turn_to("canvas")
    tab.files.autosave.every = 0.2
    tab.open_path(Path(sys.argv[1]))
    while tab.view.document is None:
        await asyncio.sleep(0.01)
    stroke = tab.view.document.stroke("mask", Brush(4.0))
    stroke.to(9, 9)
    stroke.end()
    tab.view.edited.emit("mask")
    while True:
        await asyncio.sleep(1)

qt = QApplication([])
with qasync.QEventLoop(qt) as loop:
    loop.run_until_complete(work())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_a_killed_studio_offers_what_was_painted(on_canvas: Any, picture: Path, home: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _KILLED, str(picture)], env=dict(os.environ))
    deadline = time.monotonic() + 40
    while not list((home / "canvas").glob("*.studio")):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()

    async def come_back(host: Host, tab: CanvasTab) -> None:
        offer = asyncio.ensure_future(tab.offer_recovery())
        answer(await question(host), "Open")
        await offer
        await until(lambda: tab.view.document is not None)
        assert tab.view.document.mask[9, 9] == 255

    on_canvas(come_back)


def test_a_dropped_project_goes_to_the_canvas_from_any_mode(
    with_window: Any, picture: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.studio"

    async def work(window: MainWindow) -> None:
        tab = window.tabs["canvas"]
        assert isinstance(tab, CanvasTab)
        window.open_path(picture)  # without a recipe, it is for the canvas, too
        await until(lambda: tab.view.document is not None)
        document = tab.view.document
        mark(tab, "mask", 5, 5)
        tab.files.save("project", kept, {})
        await until(lambda: not document.modified)
        window.modes.setCurrentIndex(0)
        window.open_path(kept)
        await until(lambda: tab.view.document is not document)
        assert window.modes.currentWidget() is tab

    with_window(work)


def test_pages_are_built_when_they_are_needed(with_window: Any, home: Path) -> None:
    async def work(window: MainWindow) -> None:
        late = MainWindow(window.session)
        assert list(late.tabs) == ["sample"]
        late.show()
        assert late.modes.count() == window.modes.count()
        tab = late.turn_to("canvas")
        assert late.modes.currentWidget() is tab
        await until(lambda: list(late.tabs) != ["sample", "canvas"])
        late.complete()
        assert set(late.tabs) == set(window.tabs)
        assert [late.modes.tabText(i) for i in range(4)] == [
            window.modes.tabText(i) for i in range(4)
        ]
        late.hide()
        for page in late.tabs.values():
            page.closing()
        late._device_timer.stop()
        late._collector.stop()
        late.deleteLater()

    with_window(work)


def test_a_run_keeps_its_mask_for_later_pictures(on_canvas: Any, picture: Path) -> None:
    async def work(host: Host, tab: CanvasTab) -> None:
        document = await painted(tab, picture)
        tab.verbs.run.click()
        await until(lambda: not tab.runner.busy)
        await until(lambda: tab.files.masks.list())
        kept = tab.files.masks.list()[0]
        assert (tab.files.masks.read(kept) == document.mask).all()
        mark(tab, "mask", 5, 5)

    on_canvas(work)
