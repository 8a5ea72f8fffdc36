"""What waits to run, as plain data: recipes in an order that a person can change.

The queue hands out one recipe at a time, to a callable that builds the job and starts it on the
engine, and the next one when it is told that this one has ended. So the engine's own line holds no
more than what was started already, and an order is kept in one place only.

All of it is in one JSON file, written at each change. What was waiting or running when the studio went
away is *offered* by the next one, and runs only if a person accepts. What a recipe needs besides itself
may lie in a file beside it, `given`, which goes when the recipe leaves the queue. Used from one thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import SaveError, SpecError
from studio.paths import atomic

VERSION = 1
#: What may wait at once.
MOST = 1000


@dataclass(frozen=True)
class Waiting:
    """A recipe in the queue."""

    id: str
    recipe: dict[str, Any]


def new_id() -> str:
    """An id for what is put into a queue."""
    return secrets.token_hex(6)


class Queue:
    """Recipes in order. `start` is given the next one; it must see to it that `ended` is called once,
    however the run ends. `problem` says in a sentence what could not be read or written."""

    def __init__(self, path: Path, start: Callable[[Waiting], None]) -> None:
        self.running: Waiting | None = None
        self.problem = ""
        self._path, self._start = path, start
        self._waiting: list[Waiting] = []
        self._listeners: list[Callable[[], None]] = []
        self._handing_out = False
        self._closed = False
        self._offered = self._load()
        self._tidy()

    def given(self, id: str) -> Path:
        """Where a file lies that the recipe of this id needs; write it before the recipe is put."""
        return self._path.with_suffix("") / f"{id}.painting"

    def waiting(self) -> tuple[Waiting, ...]:
        """What has yet to run, the next one first."""
        return tuple(self._waiting)

    def offered(self) -> tuple[Waiting, ...]:
        """What an earlier session left, until it is accepted or declined."""
        return tuple(self._offered)

    def listen(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each change."""
        self._listeners.append(changed)

    # -- verbs --------------------------------------------------------------------------------------

    def put(self, recipe: dict[str, Any], first: bool = False, id: str = "") -> str:
        """Add a recipe at the end, or before all that wait; it runs at once if nothing does. Its id is a
        new one if none is given.

        Raises SpecError if too many wait already.
        """
        if len(self._waiting) + len(self._offered) >= MOST:
            raise SpecError(f"{MOST} runs are waiting already.", "Drop some, or let them run.")
        entry = Waiting(id or new_id(), recipe)
        self._waiting.insert(0 if first else len(self._waiting), entry)
        self._changed()
        return entry.id

    def move(self, id: str, place: int) -> None:
        """Put what waits at a place, 0 being the next to run. Nothing happens if it does not wait."""
        for entry in self._waiting:
            if entry.id == id:
                self._waiting.remove(entry)
                self._waiting.insert(max(0, place), entry)
                return self._changed()
        return None

    def arrange(self, ids: Sequence[str]) -> None:
        """Let what waits stand in this order; what is not named comes after."""
        places = {id: place for place, id in enumerate(ids)}
        self._waiting.sort(key=lambda entry: places.get(entry.id, len(places)))
        self._changed()

    def jump(self, id: str) -> None:
        """Let this be the next to run."""
        self.move(id, 0)

    def drop(self, id: str) -> None:
        """Take out what waits or is offered. What runs is stopped where it runs."""
        self._waiting = [entry for entry in self._waiting if entry.id != id]
        self._offered = [entry for entry in self._offered if entry.id != id]
        self._let_go(id)
        self._changed()

    def accept(self) -> None:
        """Let what an earlier session left run, after what waits already."""
        self._waiting += self._offered
        self._offered = []
        self._changed()

    def decline(self) -> None:
        """Forget what an earlier session left."""
        for entry in self._offered:
            self._let_go(entry.id)
        self._offered = []
        self._changed()

    def ended(self, id: str) -> None:
        """The run of this one has ended, in whatever way: the next may start."""
        if self.running is not None and self.running.id == id:
            self.running = None
            self._let_go(id)
            self._changed()

    def close(self) -> None:
        """Start nothing more. What waits is kept for the next session; what runs was given up by the
        person who closed the studio, and is not."""
        self._closed = True
        if self.running is not None:
            self._let_go(self.running.id)
        self.running = None
        self._changed()

    # -- keeping ------------------------------------------------------------------------------------

    def _changed(self) -> None:
        if self._handing_out:
            return  # the loop below looks again
        self._handing_out = True
        try:
            while self.running is None and self._waiting and not self._closed:
                self.running = self._waiting.pop(0)
                self._save()
                self._start(self.running)
        finally:
            self._handing_out = False
            self._save()
            for changed in self._listeners:
                changed()

    def _let_go(self, id: str) -> None:
        """Delete the file of a recipe that has left; if it cannot be, the next session does."""
        with contextlib.suppress(OSError):
            self.given(id).unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Delete files that belong to none: of a studio that went away while it wrote them."""
        known = {self.given(entry.id) for entry in self._offered}
        with contextlib.suppress(OSError):
            for path in self._path.with_suffix("").iterdir():
                if path not in known:
                    path.unlink(missing_ok=True)

    def _save(self) -> None:
        kept = {
            "version": VERSION,
            "running": [vars(self.running)] if self.running else [],
            "waiting": [vars(entry) for entry in self._waiting],
            "offered": [vars(entry) for entry in self._offered],
        }
        try:
            with atomic(self._path) as temporary:
                temporary.write_text(json.dumps(kept), encoding="utf-8")
        except SaveError as error:
            self.problem = f"The queue lasts only until the studio is closed: {error.message}"

    def _load(self) -> list[Waiting]:
        """What an earlier session left, in its order; a file that cannot be understood is set aside."""
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if kept["version"] > VERSION:
                raise ValueError("it is from a newer studio")
            found = [_entry(data) for part in _PARTS for data in kept[part]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self.problem = "The queue of the last session could not be read; it was set aside."
            try:
                os.replace(self._path, self._path.with_suffix(".json.damaged"))
            except OSError:
                self.problem = "The queue of the last session could not be read."
            return []
        # By id, so that none comes twice.
        return list({entry.id: entry for entry in found}.values())[:MOST]


_PARTS = ("running", "waiting", "offered")


def _entry(data: Any) -> Waiting:
    id, recipe = data["id"], data["recipe"]
    if not isinstance(id, str) or not isinstance(recipe, dict):
        raise ValueError("it is no recipe")
    if not re.fullmatch(r"[0-9A-Za-z_-]{1,40}", id):  # it becomes the name of a file
        raise ValueError("it has no id")
    return Waiting(id, recipe)
