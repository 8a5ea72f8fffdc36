"""The folder in the middle of the Train mode: chips over the wall, a menu for what is selected, and a
picture looked at closely."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import QPoint, QTimer, QUrl, Signal
from PySide6.QtGui import QAction, QDesktopServices, QGuiApplication, QImage, QKeySequence
from PySide6.QtWidgets import QMenu, QStackedWidget, QVBoxLayout, QWidget

from studio.training.choices import Crop
from studio.training.folder import File
from studio.ui.train.chips import Chips
from studio.ui.train.collection import Collection
from studio.ui.train.picture_dialog import LARGE, PictureDialog
from studio.ui.train.reader import Reader
from studio.ui.train.tile import SIDE
from studio.ui.train.unreadable import Unreadable
from studio.ui.train.wall import Wall
from studio.ui.train.welcome import Welcome

_TICK = 100  # milliseconds between two tellings of the counts


class PicturesPage(QWidget):
    """`current_path` carries the picture that is marked; `told` that the counts are others."""

    current_path = Signal(str)
    told = Signal()
    choose_requested = Signal()

    def __init__(self, collection: Collection, reader: Reader) -> None:
        super().__init__()
        self.collection, self.reader = collection, reader
        self.chips = Chips()
        self.wall = Wall(collection)
        self.welcome = Welcome()
        self.dialog: PictureDialog | None = None
        self._locked = False
        self._soon = QTimer(self, singleShot=True, interval=_TICK)
        self._soon.timeout.connect(self._tell)
        listed = QWidget()
        inside = QVBoxLayout(listed)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(8)
        inside.addWidget(self.chips)
        inside.addWidget(self.wall, 1)
        self.pages = QStackedWidget()
        self.pages.addWidget(self.welcome)
        self.pages.addWidget(listed)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self.pages)
        self._connect()

    def _connect(self) -> None:
        self.chips.chosen.connect(self._show_group)
        self.wall.wanted.connect(self._fetch)
        self.wall.opened.connect(self.open_picture)
        self.wall.exclude_requested.connect(self.toggle)
        self.wall.menu_requested.connect(self._popup)
        self.wall.current_path.connect(self.current_path)
        self.welcome.choose_requested.connect(self.choose_requested)
        self.collection.grown.connect(self._tell_soon)
        self.collection.sorted_anew.connect(self._tell_soon)
        self.reader.thumbnails.connect(self.wall.set_images)
        self.reader.large.connect(self._large_came)

    # -- what is shown ------------------------------------------------------------------------------

    def begin(self) -> None:
        """A folder was chosen: show the wall, which fills."""
        self.pages.setCurrentIndex(1)
        self.chips.choose("all")
        self.wall.set_empty_text(self.tr("Looking through the folder…"), "")
        self._tell()

    def show_pack(self, name: str) -> None:
        """An image pack was chosen: there are no files to look through."""
        self.pages.setCurrentIndex(1)
        self.wall.set_empty_text(name, self.tr("An image pack is learned from as it is."))
        self._tell()

    def ended(self, whole: bool) -> None:
        """The scan has ended."""
        text = self.tr("Choose another folder, or drop one here.")
        title = self.tr("There are no pictures in this folder")
        if not whole:
            title = self.tr("Nothing was found before it was stopped")
        self.wall.set_empty_text(title, text)
        self._tell()

    def set_locked(self, locked: bool) -> None:
        """While a run goes on, nothing is left out or cropped."""
        self._locked = locked
        if self.dialog is not None:
            self.dialog.set_locked(locked)

    def show_unreadable(self) -> None:
        """The files that cannot be read, and why."""
        files = [self.collection.files[place] for place in self.collection.places("error")]
        Unreadable(files, self.window()).open()

    def _show_group(self, group: str) -> None:
        words = {
            "left out": self.tr("Nothing is left out"),
            "used": self.tr("Nothing is used"),
        }
        if group != "all" and not self.reader.scanning:
            self.wall.set_empty_text(words.get(group, self.tr("None of this kind")), "")
        self.wall.show_group(group)

    def _tell_soon(self) -> None:
        if not self._soon.isActive():
            self._soon.start()

    def _tell(self) -> None:
        self.chips.show_counts(self.collection.counts())
        self.told.emit()

    def _fetch(self, files: list[File]) -> None:
        self.reader.fetch(files, round(SIDE * self.devicePixelRatioF()))

    # -- verbs --------------------------------------------------------------------------------------

    def toggle(self, paths: list[str]) -> None:
        """Leave these out, or take them in if all of them are out."""
        if self._locked:
            return
        images = [p for p in paths if (f := self.collection.file(p)) and f.result == "image"]
        out = not all(path in self.collection.excluded for path in images)
        if images:
            self.collection.exclude(images, out)

    def open_picture(self, path: str) -> None:
        """Look at a picture closely."""
        file = self.collection.file(path)
        if file is None:
            return
        if file.result != "image":
            self.show_unreadable()
            return
        if self.dialog is None:
            self.dialog = PictureDialog(self.window())
            self.dialog.cropped.connect(self._cropped)
            self.dialog.used.connect(lambda path, on: self.collection.exclude([path], not on))
            self.dialog.step_requested.connect(self._step)
        self.dialog.set_locked(self._locked)
        self.dialog.show_file(
            file,
            self.collection.crops.get(path),
            self.wall.framing,
            path not in self.collection.excluded,
            self.wall.image(path),
        )
        self.reader.fetch_large(file, LARGE)
        self.dialog.show()
        self.dialog.view.setFocus()

    def _step(self, count: int) -> None:
        """The next picture of the wall that can be looked at."""
        assert self.dialog is not None
        path = self.dialog.path
        while path := self.wall.neighbour(path, count):
            file = self.collection.file(path)
            if file is not None and file.result == "image":
                self.wall.select(path)
                self.open_picture(path)
                return

    def _cropped(self, path: str, crop: Crop | None) -> None:
        self.collection.set_crop(path, crop)

    def _large_came(self, path: str, image: QImage) -> None:
        if self.dialog is not None:
            self.dialog.show_image(path, image)

    # -- the menu -----------------------------------------------------------------------------------

    def menu(self) -> QMenu:
        """The menu of what is selected."""
        paths, current = self.wall.selected() or [self.wall.current()], self.wall.current()
        menu = QMenu(self)
        menu.setObjectName("pictureMenu")
        all_out = all(path in self.collection.excluded for path in paths)
        out = self.tr("Take in again") if all_out else self.tr("Leave out")
        rows = (
            (
                "menuOpen",
                self.tr("Look closely, crop…"),
                "Return",
                partial(self.open_picture, current),
            ),
            ("menuExclude", out, "Del", partial(self.toggle, paths)),
            ("menuReveal", self.tr("Show in folder"), "", partial(self._reveal, current)),
            ("menuCopy", self.tr("Copy the path"), "", partial(self._copy, current)),
        )
        for name, text, keys, verb in rows:
            action = QAction(text, menu)
            action.setObjectName(name)
            action.setShortcut(QKeySequence(keys))
            action.setEnabled(not (self._locked and name == "menuExclude"))
            action.triggered.connect(lambda _=False, verb=verb: verb())
            menu.addAction(action)
        return menu

    def _popup(self, where: QPoint) -> None:
        menu = self.menu()
        menu.aboutToHide.connect(menu.deleteLater)
        menu.popup(where)

    def _path(self, path: str) -> Path:
        return (self.collection.folder or Path()) / path

    def _reveal(self, path: str) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._path(path).parent)))

    def _copy(self, path: str) -> None:
        QGuiApplication.clipboard().setText(str(self._path(path)))
