"""Streams the events of a tab's job to the tab. The only create_task of the program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from PySide6.QtCore import QObject, Signal

from studio.engine.engine import Engine, Job, Run
from studio.engine.events import Event
from studio.errors import StudioError


class Runner(QObject):
    """Runs one job at a time for one listener.

    `state_changed` carries "idle", "running", "paused" or "stopping"; `failed` a StudioError for the
    person; any other exception goes to `bug`, that is, to the crash dialog.
    """

    state_changed = Signal(str)
    failed = Signal(object)
    bug = Signal(object)

    def __init__(self, engine: Engine, receive: Callable[[Event], None]) -> None:
        super().__init__()
        self._engine, self._receive = engine, receive
        self._run: Run | None = None
        self._task: asyncio.Task[None] | None = None
        self.state = "idle"

    @property
    def busy(self) -> bool:
        return self._task is not None

    @property
    def computing(self) -> bool:
        """Whether a person waits for what runs: not for a disk alone, nor in the background."""
        run = self._run
        return run is not None and not run.background and getattr(run.job, "lane", "") != "io"

    def start(self, make: Callable[[], Job]) -> None:
        """Build the job and run it. Does nothing while another runs."""
        if self.busy:
            return
        try:
            job = make()
        except StudioError as error:
            self.failed.emit(error)
            return
        self._run = self._engine.start(job)
        self._task = spawn(self._stream(self._run))
        self._set("running")

    def pause(self) -> None:
        if self._run is not None and self.state == "running":
            self._run.pause()
            self._set("paused")

    def resume(self) -> None:
        if self._run is not None and self.state == "paused":
            self._run.resume()
            self._set("running")

    def step(self) -> None:
        """Pause if running, and go on for one step."""
        if self._run is not None and self.state in ("running", "paused"):
            self._run.step()
            self._set("paused")

    def stop(self) -> None:
        if self._run is not None and self.state != "stopping":
            self._run.stop()
            self._set("stopping")

    def send(self, message: Any) -> None:
        if self._run is not None:
            self._run.send(message)

    async def finished(self) -> None:
        """Until the run under way has ended."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _stream(self, run: Run) -> None:
        try:
            async for event in run:
                self._receive(event)
        except StudioError as error:
            self.failed.emit(error)
        except Exception as error:
            self.bug.emit(error)
        finally:
            run.stop()
            self._run = self._task = None
            self._set("idle")

    def _set(self, state: str) -> None:
        self.state = state
        self.state_changed.emit(state)


_tasks: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task that is kept until it ends: the loop alone would not keep it."""
    task = asyncio.get_running_loop().create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task
