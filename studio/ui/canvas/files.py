"""The files of the canvas: opening, saving, and what survives a crash. No disk is waited for here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtWidgets import QFileDialog, QWidget

from studio import photos, recipes
from studio.engine.events import Done, Event, Note
from studio.engine.work import Work
from studio.errors import PictureError, StudioError
from studio.paths import user_dir
from studio.ui.canvas import project
from studio.ui.canvas.autosave import Autosave
from studio.ui.canvas.document import Document
from studio.ui.canvas.masks import Masks
from studio.ui.dialogs import ask
from studio.ui.runner import Runner, spawn
from studio.ui.session import Session

_OFFERED = 5  # recovery copies of earlier sessions; older ones go
_IDLE = 250  # milliseconds between looks at what there is to tidy or to keep
_EVERY = (
    20.0  # seconds between copies for recovery: half a minute is lost at most, writing included
)


class CanvasFiles(QObject):
    """Opens documents and keeps them.

    `opened` carries (Document, extras), extras being what a project kept beside it; `failed` a
    StudioError; `status` words; `saved` the path of what was written.
    """

    opened = Signal(object, object)
    failed = Signal(object)
    bug = Signal(object)
    status = Signal(str)
    saved = Signal(object)

    def __init__(
        self, session: Session, page: QWidget, extras: Callable[[], dict[str, Any]]
    ) -> None:
        super().__init__(page)
        self._session, self._page, self._extras = session, page, extras
        self.document: Document | None = None
        self.autosave = Autosave(user_dir() / "canvas", _EVERY)
        self.masks = Masks(user_dir() / "masks")
        self._work = self._runner(self._done)
        self._keeping = self._runner(lambda _: None)
        self._then: Callable[[Any], None] = lambda _: None
        self._timer = QTimer(self, interval=_IDLE)
        self._timer.timeout.connect(self._tidy)
        self._timer.start()

    def runners(self) -> list[Runner]:
        return [self._work, self._keeping]

    # -- opening ------------------------------------------------------------------------------------

    def ask_open(self) -> None:
        kinds = " ".join(f"*{suffix}" for suffix in sorted(photos.SUFFIXES))
        path, _ = QFileDialog.getOpenFileName(
            self._page,
            self.tr("Open a picture or project"),
            "",
            self.tr("Pictures and projects ({kinds} *.studio);;All files (*)").format(kinds=kinds),
        )
        if path:
            self.open(Path(path))

    def open(self, path: Path) -> None:
        """Open a picture or project, in the background; asks before marks would be lost."""
        kept = path.suffix.lower() == project.SUFFIX
        self._do(
            self.tr("Opening {name}").format(name=path.name),
            lambda: project.open_project(path) if kept else _read(path),
            lambda found: self.offer(*found),
        )

    def open_pixels(self, pixels: np.ndarray, name: str) -> None:
        """A picture from the clipboard or a mode, (h, w, 3 or 4), as a new document."""
        alpha = pixels[..., 3].copy() if pixels.shape[-1] == 4 else None
        alpha = None if alpha is None or (alpha == 255).all() else alpha
        self.offer(Document.of(pixels[..., :3].copy(), alpha, name), {})

    def offer(self, document: Document, extras: dict[str, Any]) -> None:
        """Open a document; asks before marks would be lost."""
        spawn(self._replace(document, extras))

    async def _replace(self, document: Document, extras: dict[str, Any]) -> None:
        # Asked once it is read: for a file that is none, nobody needs to decide anything.
        if await self._may_leave():
            self._show(document, extras)

    def _show(self, document: Document, extras: dict[str, Any]) -> None:
        if self.document is not None:
            self.autosave.forget(self.document)
        self.document = document
        self.opened.emit(document, extras)

    async def _may_leave(self) -> bool:
        """Whether the document may be let go of: it has no marks, or the person says so."""
        if self.document is None or not self.document.modified:
            return True
        return await ask(
            self._page,
            self.tr("Another picture"),
            self.tr("Let go of {name}?").format(name=self.document.name),
            self.tr("What was painted on it since it was saved is lost."),
            self.tr("Let go"),
        )

    # -- saving -------------------------------------------------------------------------------------

    def ask_save(self, kind: str, recipe: dict[str, Any]) -> None:
        """Ask where, and save: the "picture" as it is now, the "project", or the "mask"."""
        document = self.document
        if document is None:
            self.status.emit(self.tr("There is no picture to save yet"))
            return
        suffix = project.SUFFIX if kind == "project" else ".png"
        stem = Path(document.name).stem or "picture"
        name = stem + {"picture": "-painted", "mask": "-mask"}.get(kind, "") + suffix
        filters = {".png": "PNG (*.png)", project.SUFFIX: self.tr("Project (*.studio)")}
        path, _ = QFileDialog.getSaveFileName(self._page, self.tr("Save"), name, filters[suffix])
        if path:
            self.save(kind, Path(path) if Path(path).suffix else Path(path + suffix), recipe)

    def save(self, kind: str, path: Path, recipe: dict[str, Any]) -> None:
        """Save in the background, from copies: painting goes on."""
        document = self.document
        assert document is not None
        if kind == "project":
            shot = project.snapshot(document, self._extras())
            self._do(
                self.tr("Saving"),
                lambda: project.write(shot, path),
                lambda _: self._wrote_project(document, shot, path),
            )
        elif kind == "mask":
            mask = document.mask.copy()
            self._do(self.tr("Saving"), lambda: photos.write_mask(path, mask), self._wrote(path))
        else:
            pixels = document.photo.copy()
            alpha = document.alpha
            self._do(
                self.tr("Saving"),
                lambda: photos.write(path, pixels, alpha, recipe or None),
                self._wrote(path),
            )

    def _wrote(self, path: Path) -> Callable[[Any], None]:
        def told(_: Any) -> None:
            self.status.emit(self.tr("Saved {path}").format(path=path))
            self.saved.emit(path)

        return told

    def _wrote_project(self, document: Document, shot: project.Snapshot, path: Path) -> None:
        project.saved(document, shot, path)
        self.autosave.forget(document)
        self._wrote(path)(None)

    def import_mask(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self._page, self.tr("Import a mask"), "")
        document = self.document
        if path and document is not None:
            self._do(
                self.tr("Opening"),
                lambda: photos.read_mask(Path(path), document.size),
                lambda mask: document.set_mask(mask, "Import mask"),
            )

    def keep_mask(self) -> None:
        """Remember the mask, for later pictures and days."""
        if self.document is not None and self.document.bounds("mask") is not None:
            mask = self.document.mask.copy()
            self._keep(lambda: self.masks.add(mask))

    # -- what survives ------------------------------------------------------------------------------

    async def offer_recovery(self) -> None:
        """Offer what an earlier session left behind."""
        left = self.autosave.recoverable()
        if not left:
            return
        wanted = await ask(
            self._page,
            self.tr("Welcome back"),
            self.tr("There is a picture that you had not saved. Open it again?"),
            self.tr("If not, it is kept, and offered again next time."),
            self.tr("Open"),
        )
        for path in left[_OFFERED:]:
            self.autosave.forget(path)
        if not wanted:
            return
        newest = left[0]
        self._do(
            self.tr("Opening"),
            lambda: self.autosave.recover(newest),
            lambda found: self._recovered(newest, found),
        )

    def _recovered(self, path: Path, found: tuple[Document, dict[str, Any]]) -> None:
        self._show(*found)
        shot = self.autosave.snapshot(found[0], time.monotonic(), found[1])

        def replaced() -> None:
            # The old copy goes once there is a new one.
            self.autosave.write(shot)
            self.autosave.forget(path)

        self._keep(replaced)

    def close(self) -> None:
        """The window closes: what is not saved is kept, and offered next time."""
        self._timer.stop()
        if self.document is not None and self.document.modified:
            try:
                self.autosave.write(
                    self.autosave.snapshot(self.document, time.monotonic(), self._extras())
                )
            except StudioError as error:
                self.failed.emit(error)
        self.autosave.close()

    def _tidy(self) -> None:
        """In idle time: pack what undo keeps, and keep the document every half minute."""
        document = self.document
        if document is None:
            return
        document.history.settle(0.004)
        now = time.monotonic()
        if self.autosave.due(document, now) and not self._keeping.busy:
            shot = self.autosave.snapshot(document, now, self._extras())
            self._keep(lambda: self.autosave.write(shot))

    # -- work elsewhere -----------------------------------------------------------------------------

    def _do(self, title: str, call: Callable[[], Any], then: Callable[[Any], None]) -> None:
        if self._work.busy:
            self.status.emit(self.tr("One file at a time: the last one is not done yet"))
            return
        self._then = then
        self._work.start(lambda: Work(title, call))

    def _keep(self, call: Callable[[], Any]) -> None:
        if not self._keeping.busy:
            self._keeping.start(lambda: Work("", call))

    def _done(self, event: Event) -> None:
        if isinstance(event, Note):
            self.status.emit(event.text)
        elif isinstance(event, Done):
            self.status.emit("")
            try:
                self._then(event.value)
            except PictureError as error:
                self.failed.emit(error)

    def _runner(self, receive: Callable[[Event], None]) -> Runner:
        runner = Runner(self._session.engine, receive)
        runner.failed.connect(self.failed)
        runner.bug.connect(self.bug)
        return runner


def _read(path: Path) -> tuple[Document, dict[str, Any]]:
    photo = photos.read(path)
    document = Document.of(photo.pixels, photo.alpha, photo.name)
    return document, {"note": photo.note, "found": _recipe(path)}


def _recipe(path: Path) -> dict[str, Any] | None:
    """The recipe of painting that a picture carries, if it does."""
    try:
        found = recipes.read_recipe(path)
    except PictureError:
        return None  # the picture was read: its recipe alone is damaged, or too new
    return found if found is not None and found.get("kind") == "paint" else None
