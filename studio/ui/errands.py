"""Calls that wait for the disk, one after the other, in the I/O lane; the window goes on meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, Signal

from studio.engine.engine import Engine
from studio.engine.events import Done, Event
from studio.engine.work import Work
from studio.ui.runner import Runner

Call = Callable[[], Any]
Then = Callable[[Any], None]


class Errands(QObject):
    """`failed` carries a StudioError for the person, `bug` any other exception; the rest goes on."""

    failed = Signal(object)
    bug = Signal(object)

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.runner = Runner(engine, self._receive)
        self.runner.failed.connect(self.failed)
        self.runner.bug.connect(self.bug)
        self.runner.state_changed.connect(lambda _: self._go_on())
        self._waiting: deque[tuple[Call, Then | None]] = deque()
        self._then: Then | None = None

    def do(self, call: Call, then: Then | None = None) -> None:
        """Make a call after those that wait, and hand its answer to `then`, in the window's thread."""
        self._waiting.append((call, then))
        self._go_on()

    def only(self, call: Call, then: Then | None = None) -> None:
        """Make a call in place of those that wait, whose answers nobody needs any more."""
        self.clear()
        self.do(call, then)

    def clear(self) -> None:
        """Leave out what has yet to begin."""
        self._waiting.clear()

    async def done(self) -> None:
        """Until nothing is under way or waits."""
        while self.runner.busy:
            await self.runner.finished()

    def _go_on(self) -> None:
        if self._waiting and not self.runner.busy:
            call, self._then = self._waiting.popleft()
            self.runner.start(lambda: Work("", call))

    def _receive(self, event: Event) -> None:
        if isinstance(event, Done) and self._then is not None:
            self._then(event.value)
