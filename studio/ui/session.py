"""What all modes share: the engine, the shelf, the settings, the model that is chosen, the history of
results and the queue of runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject, Signal

from studio import spec
from studio.engine.engine import Engine
from studio.engine.history import History
from studio.engine.queue import Queue, Waiting
from studio.errors import SaveError, SpecError
from studio.paths import user_dir
from studio.settings import Settings
from studio.weights.shelf import Entry, Shelf

if TYPE_CHECKING:
    from studio.ui.queue_seat import Seat


class Session(QObject):
    """One for each window. Emits `model_changed` with an Entry or None, and what any mode `made` that
    the history should keep: a Finished and its kind; how far the run that is the queue's has
    `progressed`, and the StudioError of an entry that was `refused`.

    Modes take seats at the queue, each for a kind of recipe; `summon` builds a mode that is not there
    yet, for a kind.
    """

    model_changed = Signal(object)
    shelf_changed = Signal()
    settings_changed = Signal(object)
    made = Signal(object, str)
    progressed = Signal(int, int)
    refused = Signal(object)

    def __init__(self, engine: Engine, shelf: Shelf, settings: Settings) -> None:
        super().__init__()
        self.engine, self.shelf, self.settings = engine, shelf, settings
        self.model: Entry | None = None
        # It opens its files when it is first asked for something, in the I/O lane.
        self.history = History(user_dir() / "history", settings.history_bytes)
        self._seats: dict[str, Seat] = {}
        self.summon: Callable[[str], object] = lambda kind: None
        self.queue = Queue(user_dir() / "queue.json", self._hand_out)
        engine.choose(settings.device, settings.dtype)
        self.choose_model(settings.model)

    def sit(self, kind: str, seat: Seat) -> None:
        """Give the entries of a kind to this seat."""
        self._seats[kind] = seat

    def stop_running(self) -> None:
        """Stop the run that the queue has started."""
        for seat in self._seats.values():
            seat.stop()

    def _hand_out(self, entry: Waiting) -> None:
        kind = str(entry.recipe.get("kind", "sample"))
        if kind not in self._seats:
            self.summon(kind)
        if (seat := self._seats.get(kind)) is not None:
            seat.take(entry)
            return
        self.refused.emit(SpecError(self.tr("A run of this kind cannot wait in the queue.")))
        self.queue.ended(entry.id)

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
