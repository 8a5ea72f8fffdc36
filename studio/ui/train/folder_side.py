"""The folder of the Train mode: its column at the left, its page in the middle, and who reads it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from PySide6.QtCore import QObject, QTimer, Signal

from studio.engine.engine import Engine
from studio.errors import DataError, SpecError, StudioError
from studio.training.choices import Choices
from studio.training.folder import File
from studio.ui.runner import Runner
from studio.ui.train.collection import Collection
from studio.ui.train.data_panel import DataPanel
from studio.ui.train.pictures_page import PicturesPage
from studio.ui.train.reader import Reader
from studio.ui.train.varied import COUNT

PACK = ".npz"
_SOON = 150  # milliseconds from the last change to a new preview


class FolderSide(QObject):
    """`changed` tells that what is learned from is other; `opened` carries the folder or pack."""

    changed = Signal()
    opened = Signal(object)
    said = Signal(str)
    bug = Signal(object)

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.collection = Collection()
        self.reader = Reader(engine, self.collection)
        self.panel = DataPanel(self.collection)
        self.page = PicturesPage(self.collection, self.reader)
        self.path: Path | None = None
        self._size, self._seed, self._varied = 32, 0, ""
        self._soon = QTimer(self, singleShot=True, interval=_SOON)
        self._soon.timeout.connect(self._vary)
        self._connect()

    def _connect(self) -> None:
        self.panel.folder_chosen.connect(self.open)
        self.panel.stop_requested.connect(self.reader.stop_scan)
        self.panel.again_requested.connect(self._look_again)
        self.panel.unreadable_asked.connect(self.page.show_unreadable)
        self.panel.changed.connect(self._changed)
        self.panel.varied.again_requested.connect(self._roll)
        self.page.choose_requested.connect(self.panel.ask)
        self.page.current_path.connect(lambda _: self._soon.start())
        self.page.told.connect(self.panel.tell)
        self.reader.progress.connect(self.panel.show_progress)
        self.reader.scanned.connect(self._scanned)
        self.reader.varied.connect(self._show_varied)
        self.reader.failed.connect(self._failed)
        self.reader.bug.connect(self.bug)

    # -- the folder ---------------------------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Look through a folder, or take an image pack as it is."""
        if path.suffix.lower() != PACK and not path.is_dir():
            self._failed(
                DataError(f"There is no folder at {path}.", "Choose another, or drop one here.")
            )
            return
        self.panel.show_problem("")
        self.path = path
        self.panel.show_folder(path)
        if path.is_dir():
            self._look_again()
        else:
            self.reader.stop_scan()
            self.collection.begin(None)
            self.page.show_pack(path.name)
        self.opened.emit(path)
        self.changed.emit()

    def _failed(self, error: StudioError) -> None:
        """Said beside the folder's line."""
        self.panel.show_problem(str(error))
        self.said.emit(error.message)

    def _look_again(self) -> None:
        if self.path is not None:
            self.panel.show_problem("")
            self.page.wall.forget_images()
            self.panel.varied.clear()
            self.panel.show_scan(True)
            self.reader.scan(self.path, self._size)
            self.page.begin()

    def _scanned(self, whole: bool) -> None:
        self.panel.show_scan(False)
        self.page.ended(whole)
        self._soon.start()
        counts = self.collection.counts()
        if whole:
            self.said.emit(
                self.tr("{used} pictures can be learned from, {wrong} files cannot be read").format(
                    used=counts["used"], wrong=counts["error"]
                )
            )
        self.changed.emit()

    def why_not(self) -> str:
        """Why nothing can be learned from yet; empty if it can."""
        if self.path is None:
            return self.tr("Choose a folder of pictures first")
        if self.path.suffix.lower() == PACK and not self.path.is_dir():
            return ""
        if not self.collection.counts()["used"]:
            if self.reader.scanning:
                return self.tr("Still looking for the first picture")
            return self.tr("There is no picture to learn from in this folder")
        return ""

    def data(self) -> str:
        """What a job is given. Raises DataError if there is nothing to learn from."""
        if (why_not := self.why_not()) or self.path is None:
            raise DataError(f"{why_not}.", "Drop a folder of pictures on the window.")
        return str(self.path)

    def choices(self) -> Choices:
        """What a person decided about it. Raises SpecError if it makes no sense."""
        return self.panel.choices()

    def show_choices(self, choices: Choices) -> None:
        """The decisions of an earlier run."""
        self.panel.show_choices(choices)

    def set_size(self, size: int) -> None:
        """The side of the pictures that the model learns."""
        if size != self._size:
            self._size = size
            self.collection.set_size(size)
            self._soon.start()

    def set_locked(self, locked: bool) -> None:
        """While a run goes on, its choices stay what they are."""
        self.panel.set_locked(locked)
        self.page.set_locked(locked)

    def runners(self) -> list[Runner]:
        return self.reader.runners()

    def stop(self) -> None:
        """Read nothing more."""
        self._soon.stop()
        self.reader.stop()

    def _changed(self) -> None:
        self.page.wall.set_framing(self.panel.framing)
        self._soon.start()
        self.changed.emit()

    # -- what the model sees ------------------------------------------------------------------------

    def _roll(self) -> None:
        self._seed = random.randrange(2**31)
        self._vary()

    def _vary(self) -> None:
        """Ask for variations of the picture that is marked, else of the first."""
        file = self._marked()
        if file is None:
            self.panel.varied.clear()
            return
        try:
            choices = self.choices()
        except SpecError:
            return  # half typed; it comes with the next letter
        self._varied = file.path
        count = COUNT if choices.moves else 1  # the same picture again and again says nothing
        self.reader.vary(file, self._size, choices, count, self._seed)

    def _marked(self) -> File | None:
        file = self.collection.file(self.page.wall.current())
        if file is not None and file.result == "image":
            return file
        files = (self.collection.files[place] for place in self.collection.places("all"))
        return next((f for f in files if f.result == "image"), None)

    def _show_varied(self, pictures: np.ndarray) -> None:
        self.panel.varied.show_pictures(self._varied, pictures)
