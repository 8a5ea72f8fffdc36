"""The modes of the window. A tab is one file here and one line in TABS."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from studio.engine.engine import Job
from studio.engine.events import Event
from studio.ui.dialogs import ErrorBox
from studio.ui.runner import Runner
from studio.ui.session import Session


class Tab(QWidget):
    """A mode: its page, its job, and what it does with the job's events.

    `status` carries words for the status line, `bug` an exception for the crash dialog, `leave` the
    name of the mode to go to, `mark` a word to show beside its title; `errors` is where a person is told
    of problems, beside the button that failed. A mode with a recipe also has `job`, `changes` and
    `open_recipe`. `keeps` says that closing loses nothing of what is at stake.
    """

    title = ""
    keeps = False
    status = Signal(str)
    mark = Signal(str)
    bug = Signal(object)
    leave = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.errors = ErrorBox()
        self.runner = Runner(session.engine, self.receive)
        self.runner.bug.connect(self.bug)

    def job(self) -> Job:
        """What Run starts. Raises StudioError if something is missing."""
        raise NotImplementedError

    def changes(self, recipe: dict[str, Any]) -> list[str]:
        """What restoring a recipe would change, a line each. Raises SpecError if it is not for this
        mode."""
        raise NotImplementedError

    def receive(self, event: Event) -> None:
        raise NotImplementedError

    def shown(self) -> None:
        """Called once the window is on screen, for what need not be there at first."""

    def at_stake(self) -> str:
        """What closing the window now would stop, in a sentence; empty if nothing is lost by it."""
        return self.tr("Pictures are still being made.") if self.runner.busy else ""

    async def offer_recovery(self) -> None:
        """Offer what an earlier session left unsaved in this mode."""

    def closing(self) -> None:
        """The window closes: keep what would be lost."""

    def ready_for(self, kind: str) -> None:
        """Build what of this mode runs recipes of a kind, if it is not there yet."""

    def ask_open(self) -> bool:
        """Ask for a file to open in this mode; False leaves it to the window."""
        return False

    def open_path(self, path: Path) -> bool:
        """Open a file that was dropped on the window in this mode; False leaves it to the window."""
        return False

    def runners(self) -> list[Runner]:
        """Every runner of the mode, for closing in order."""
        return [self.runner]

    def open_recipe(self, recipe: dict[str, object]) -> None:
        """Show a recipe's settings. Raises SpecError if it is not for this mode."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mode:
    """A tab that need not be there yet: its title, the module here that has it, and its class."""

    title: str
    module: str
    name: str

    def make(self, session: Session) -> Tab:
        return getattr(import_module(f"{__name__}.{self.module}"), self.name)(session)


#: Every mode, in the order of the window. The first is there at once, the others a moment later.
TABS = {
    "sample": Mode("Sample", "sample", "SampleTab"),
    "canvas": Mode("Canvas", "canvas", "CanvasTab"),
    "compare": Mode("Compare", "compare", "CompareTab"),
    "train": Mode("Train", "train", "TrainTab"),
    "models": Mode("Models", "models", "ModelsTab"),
}
