"""What all modes share: the engine, the shelf, the settings, the model that is chosen, the history of
results and the queue of runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, Signal

from studio import spec
from studio.engine.engine import Engine
from studio.engine.history import History
from studio.engine.queue import Queue, Waiting
from studio.errors import SaveError
from studio.paths import user_dir
from studio.settings import Settings
from studio.weights.shelf import Entry, Shelf


class Session(QObject):
    """One for each window. Emits `model_changed` with an Entry or None, and what any mode `made` that
    the history should keep: a Finished and its kind.

    `run_waiting` starts what the queue hands out; the mode that can run it puts itself there.
    """

    model_changed = Signal(object)
    shelf_changed = Signal()
    settings_changed = Signal(object)
    made = Signal(object, str)

    def __init__(self, engine: Engine, shelf: Shelf, settings: Settings) -> None:
        super().__init__()
        self.engine, self.shelf, self.settings = engine, shelf, settings
        self.model: Entry | None = None
        # It opens its files when it is first asked for something, in the I/O lane.
        self.history = History(user_dir() / "history", settings.history_bytes)
        self.run_waiting: Callable[[Waiting], None] = lambda entry: self.queue.ended(entry.id)
        self.queue = Queue(user_dir() / "queue.json", lambda entry: self.run_waiting(entry))
        engine.choose(settings.device, settings.dtype)
        self.choose_model(settings.model)

    def choose_model(self, name: str) -> None:
        """Use the model called `name`, else the first that works, else none."""
        usable = {e.name: e for e in self.shelf.entries() if e.info is not None}
        self.model = usable.get(name) or next(iter(usable.values()), None)
        if self.model is not None and self.model.name != self.settings.model:
            self.remember(model=self.model.name)
        self.model_changed.emit(self.model)

    def look_again(self) -> None:
        """The shelf has changed: is the model in use still there? Then the modes are told."""
        self.choose_model(self.settings.model)
        self.shelf_changed.emit()

    def remember(self, **values: Any) -> None:
        """Change settings and keep them. Without a place to write, they last until the end."""
        for name, value in values.items():
            self.settings = spec.replace(self.settings, name, value)
        if values.keys() & {"device", "dtype"}:
            self.engine.choose(self.settings.device, self.settings.dtype)
        try:
            self.settings.save()
        except SaveError as error:
            self.problem = str(error)
        self.settings_changed.emit(self.settings)
