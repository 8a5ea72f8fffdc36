"""Reads a folder for the window: its scan, thumbnails of what is looked at, and previews, in the
background, each with a job of its own.

The newest wish wins: what was asked for before and is not wanted any more is left off.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QImage

from studio.engine.engine import Engine, Job
from studio.engine.events import Done, Event, Progress
from studio.engine.folder_jobs import AugmentPreview, Found, ScanFolder, Thumb, Thumbnails
from studio.errors import StudioError
from studio.training.choices import Choices
from studio.training.folder import File
from studio.ui import drawing
from studio.ui.runner import Runner
from studio.ui.train.collection import Collection

_TOLD = 40  # milliseconds between two hand-overs of thumbnails


class Newest(QObject):
    """Runs one job at a time; one that is asked for meanwhile stops it and comes next."""

    failed = Signal(object)
    bug = Signal(object)
    ended = Signal()

    def __init__(self, engine: Engine, receive: Callable[[Event], None]) -> None:
        super().__init__()
        self._receive = receive
        self.runner = Runner(engine, self._take)
        self.runner.failed.connect(self._failed)
        self.runner.bug.connect(self.bug)
        self.runner.state_changed.connect(self._state)
        self._next: Callable[[], Job] | None = None

    def ask(self, make: Callable[[], Job]) -> None:
        """Run this job in place of what runs and waits."""
        if self.runner.busy:
            self._next = make
            self.runner.stop()
        else:
            self.runner.start(make)

    def stop(self) -> None:
        self._next = None
        self.runner.stop()

    def _take(self, event: Event) -> None:
        if self._next is None:
            self._receive(event)

    def _failed(self, error: StudioError) -> None:
        if self._next is None:
            self.failed.emit(error)

    def _state(self, state: str) -> None:
        if state != "idle":
            return
        if self._next is not None:
            make, self._next = self._next, None
            self.runner.start(make)
        else:
            self.ended.emit()


class Reader(QObject):
    """Fills a Collection. `progress` carries (done, total), `scanned` whether it came to the end,
    `thumbnails` images by path, `large` a picture as an image, `varied` uint8 (N, H, W, 3)."""

    progress = Signal(int, int)
    scanned = Signal(bool)
    thumbnails = Signal(dict)
    large = Signal(str, QImage)
    varied = Signal(object)
    failed = Signal(object)
    bug = Signal(object)

    def __init__(self, engine: Engine, collection: Collection) -> None:
        super().__init__()
        self.collection = collection
        self._scan = Newest(engine, self._found)
        self._thumbs = Newest(engine, self._thumb)
        self._large = Newest(engine, self._picture)
        self._preview = Newest(engine, self._variants)
        self._whole = False
        self._images: dict[str, QImage] = {}
        self._later = QTimer(self, singleShot=True, interval=_TOLD)
        self._later.timeout.connect(self._hand_over)
        self._scan.ended.connect(lambda: self.scanned.emit(self._whole))
        self._scan.failed.connect(self.failed)
        for part in (self._scan, self._thumbs, self._large, self._preview):
            part.bug.connect(self.bug)

    @property
    def scanning(self) -> bool:
        return self._scan.runner.busy

    def scan(self, folder: Path, size: int) -> None:
        """Find out what is in a folder, for pictures of `size`."""
        self.collection.begin(folder)
        self._whole = False
        self._scan.ask(lambda: ScanFolder(str(folder), size))

    def stop_scan(self) -> None:
        self._scan.stop()

    def fetch(self, files: list[File], side: int) -> None:
        """Thumbnails of these, in their order."""
        folder = str(self.collection.folder)
        self._thumbs.ask(lambda: Thumbnails(folder, tuple(files), side))

    def fetch_large(self, file: File, side: int) -> None:
        """One picture, to be looked at closely."""
        folder = str(self.collection.folder)
        self._large.ask(lambda: Thumbnails(folder, (file,), side))

    def vary(self, file: File, size: int, choices: Choices, count: int, seed: int) -> None:
        """How one picture will be varied."""
        folder = str(self.collection.folder)
        self._preview.ask(lambda: AugmentPreview(folder, file, size, choices, count, seed))

    def runners(self) -> list[Runner]:
        parts = (self._scan, self._thumbs, self._large, self._preview)
        return [part.runner for part in parts]

    def stop(self) -> None:
        for part in (self._scan, self._thumbs, self._large, self._preview):
            part.stop()

    # -- what comes back ----------------------------------------------------------------------------

    def _found(self, event: Event) -> None:
        match event:
            case Found():
                self.collection.add(event.files)
            case Progress():
                self.progress.emit(event.step, event.total)
            case Done():
                self._whole = True

    def _thumb(self, event: Event) -> None:
        if isinstance(event, Thumb):
            self._images[event.path] = _image(event.pixels)
            if not self._later.isActive():
                self._later.start()

    def _hand_over(self) -> None:
        images, self._images = self._images, {}
        self.thumbnails.emit(images)

    def _picture(self, event: Event) -> None:
        if isinstance(event, Thumb):
            self.large.emit(event.path, _image(event.pixels))

    def _variants(self, event: Event) -> None:
        if isinstance(event, Done):
            self.varied.emit(event.value)


def _image(pixels: np.ndarray[Any, Any]) -> QImage:
    """A null image for what could not be read."""
    return drawing.image_of(pixels) if pixels.size else QImage()
