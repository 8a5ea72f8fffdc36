"""The Save menu of a mode: where to, and an ExportJob in the background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QFileDialog, QMenu, QWidget

from studio.engine.engine import Engine
from studio.engine.events import Event, Finished, Saved
from studio.engine.exports import ExportJob
from studio.engine.trajectory import Trajectory
from studio.films import Film
from studio.ui.runner import Runner


@dataclass(frozen=True, eq=False)
class Shown:
    """What is on screen: a result, the run that led to it, the view and the picture looked at."""

    result: Finished | None
    trajectory: Trajectory | None = None
    view: str = "denoised"
    chosen: int = 0


#: What needs the moments of a run, not only its pictures.
_OF_RUNS = ("film", "strip", "trajectory")


class Keeping(QObject):
    """Saves what `shown` tells. `said` carries words for the status line."""

    said = Signal(str)

    def __init__(self, engine: Engine, page: QWidget, shown: Callable[[], Shown]) -> None:
        super().__init__(page)
        self.runner = Runner(engine, self._receive)
        self._page, self._what = page, shown

    def menu(self) -> QMenu:
        """A new menu with everything that can be saved; its keys belong to the page."""
        menu = QMenu(self._page)
        menu.setToolTipsVisible(True)
        for kind, text, keys, tip in (
            ("picture", self.tr("Picture…"), "Ctrl+S", self.tr("One picture with its recipe")),
            ("folder", self.tr("All pictures in a folder…"), "", self.tr("A PNG for each seed")),
            ("sheet", self.tr("Contact sheet…"), "Ctrl+Shift+S", self.tr("All in one picture")),
            ("", "", "", ""),
            ("film", self.tr("Film of the run…"), "Ctrl+E", self.tr("WebP, GIF or MP4, captioned")),
            ("strip", self.tr("Film strip…"), "", self.tr("Twelve moments side by side")),
            ("", "", "", ""),
            (
                "trajectory",
                self.tr("Trajectory…"),
                "",
                self.tr("The run itself, to scrub and branch another day"),
            ),
            (
                "replay",
                self.tr("Replay file…"),
                "",
                self.tr("Makes the same pixels elsewhere, and proves it"),
            ),
        ):
            if not kind:
                menu.addSeparator()
                continue
            action = menu.addAction(text)
            action.setObjectName(f"save_{kind}")
            action.setToolTip(tip)
            action.setShortcut(QKeySequence(keys))
            action.triggered.connect(lambda _=False, k=kind: self.save(k))
            self._page.addAction(action)
        menu.aboutToShow.connect(lambda: self._enable(menu))
        # Closed again, a key says itself why nothing can be saved.
        menu.aboutToHide.connect(partial(_enable_all, menu))
        return menu

    def save(self, kind: str, shown: Shown | None = None) -> None:
        """Ask where, and save in the background, by a `kind` of ExportJob."""
        shown = shown or self._what()
        if self.runner.busy:
            self.said.emit(self.tr("Something is being saved already; a moment"))
            return
        if kind in _OF_RUNS and (shown.trajectory is None or not shown.trajectory.frames):
            self.said.emit(self.tr("The moments of this run are not kept: run its recipe again"))
            return
        if shown.result is None:
            self.said.emit(self.tr("There is nothing to save yet: let a run come to its end"))
            return
        if kind in ("picture", "folder", "replay") and "model" not in shown.result.recipe:
            kind = "sheet"  # no recipe of one picture alone can be made of this one
        path = self._ask(kind, shown.result)
        if path is not None:
            result, film = shown.result, Film(view=shown.view)
            chosen = min(shown.chosen, len(result.pictures) - 1)
            trajectory = shown.trajectory if kind in _OF_RUNS else None
            job = ExportJob(
                path, kind, result.pictures, result.recipe, chosen, (), trajectory, film
            )
            self.runner.start(lambda: job)

    def _enable(self, menu: QMenu) -> None:
        shown = self._what()
        for action in menu.actions():
            of_run = action.objectName().removeprefix("save_") in _OF_RUNS
            there = shown.trajectory is not None and bool(shown.trajectory.frames)
            action.setEnabled(shown.result is not None and (there or not of_run))

    def _ask(self, kind: str, result: Finished) -> Path | None:
        parts = [str(result.recipe.get(key, "")) for key in ("kind", "model", "seed")]
        name = "-".join(part for part in parts if part).replace("/", "-") or "pictures"
        if kind == "folder":
            path = QFileDialog.getExistingDirectory(self._page, self.tr("Save all pictures in"))
            return Path(path) if path else None
        suffix, kinds = {
            "film": (".webp", "WebP (*.webp);;GIF (*.gif);;MP4 (*.mp4)"),
            "trajectory": (".traj", self.tr("Trajectory (*.traj)")),
            "replay": (".replay", self.tr("Replay (*.replay)")),
        }.get(kind, (".png", "PNG (*.png)"))
        return ask_path(self._page, self.tr("Save"), name + suffix, kinds)

    def _receive(self, event: Event) -> None:
        if isinstance(event, Saved):
            self.said.emit(self.tr("Saved {path}").format(path=event.path))


def ask_path(page: QWidget, title: str, name: str, kinds: str) -> Path | None:
    """Where to save, with `name` proposed; without a suffix, by the one of `kinds` that is chosen."""
    path, chosen = QFileDialog.getSaveFileName(page, title, name, kinds)
    if path and not Path(path).suffix:
        path += chosen[chosen.rfind("*") + 1 : -1] if "*." in chosen else Path(name).suffix
    return Path(path) if path else None


def _enable_all(menu: QMenu) -> None:
    for action in menu.actions():
        action.setEnabled(True)
