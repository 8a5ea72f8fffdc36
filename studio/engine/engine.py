"""The engine: one thread owns the device and runs jobs; events cross to asyncio through a mailbox.

A job is a plain generator of events. To stop it is to close it, to pause it is not to ask for the
next event, to change something is to send() it. The device thread holds paused generators on a
stack: while the top one is paused, the next job may run (a paused training lets a sample run). A job
with `background = True` goes on only while nothing else would. Jobs of the I/O lane wait for disks
and networks, not for each other: each has a thread for as long as it runs.

This is the only file that knows threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Generator
from typing import Any, Protocol

from studio.engine.events import REPLACEABLE, Event, Metric, Picture, Progress
from studio.errors import DeviceError, StudioError
from studio.weights.devices import DeviceFacts, is_out_of_memory

QUEUED, RUNNING, PAUSED, STOPPING, ENDED = "queued", "running", "paused", "stopping", "ended"


class Context(Protocol):
    """What a job is given: the shelf and device, and when to make pictures."""

    shelf: Any

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def facts(self) -> DeviceFacts | None: ...

    def choose(self, device: str, dtype: str) -> None:
        """Where models run and how they compute, from the next run on."""

    def wants_picture(self) -> bool: ...

    def check(self) -> None:
        """Raise Stopped if the run is to stop: for work that is long between two events."""


class Stopped(BaseException):
    """Ends a job from inside, as closing it does from outside."""


class Job(Protocol):
    """A piece of work. `run` is a generator of events; what is sent to it arrives at its yields."""

    def run(self, context: Context) -> Generator[Event, Any, None]: ...


class Mailbox:
    """Hand-over from the worker to the loop: in order, with what may be replaced replaced."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready = asyncio.Event()
        self._lock = threading.Lock()
        self._events: OrderedDict[Any, Event] = OrderedDict()
        self._count = 0
        self._closed = False
        self._error: BaseException | None = None
        self._woken = False

    def put(self, event: Event) -> None:
        with self._lock:
            self._count += 1
            key: Any = self._count
            if isinstance(event, REPLACEABLE):
                key = type(event), event.lane
                self._events.pop(key, None)
            elif isinstance(event, Metric):
                key = Metric, event.lane, event.name
                if isinstance(waiting := self._events.get(key), Metric):
                    event = Metric(event.name, waiting.points + event.points, lane=event.lane)
            self._events[key] = event
        self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """No more events; `error` is raised where they are read, after the last of them."""
        with self._lock:
            self._closed, self._error = True, error
        self._wake()

    def holds(self, kind: type[Event]) -> bool:
        """Whether an event of this kind still waits to be read."""
        with self._lock:
            return any(isinstance(e, kind) for e in self._events.values())

    async def get(self) -> Event:
        """The oldest event. Raises StopAsyncIteration, or the job's error, after the last."""
        while True:
            with self._lock:
                if self._events:
                    return self._events.popitem(last=False)[1]
                if self._closed:
                    if self._error is not None:
                        raise self._error
                    raise StopAsyncIteration
                self._woken = False
                self._ready.clear()
            await self._ready.wait()

    def _wake(self) -> None:
        with self._lock:
            wake, self._woken = not self._woken, True
        # A loop that is closed has nobody left to tell.
        if wake and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ready.set)


class Run:
    """A job under way. Iterate over it for its events; every verb may be called at any time."""

    def __init__(self, job: Job, lane: _Lane, loop: asyncio.AbstractEventLoop) -> None:
        self.job = job
        self.background = bool(getattr(job, "background", False))
        self._lane = lane
        self._mail = Mailbox(loop)
        self._messages: deque[Any] = deque()
        self._events: Generator[Event, Any, None] | None = None
        self._started = False
        self._paused = False
        self._credit = 0  # steps asked for while paused
        self._stop = False
        self._ended = False

    @property
    def state(self) -> str:
        if self._ended:
            return ENDED
        if self._stop:
            return STOPPING
        if self._paused:
            return PAUSED
        return RUNNING if self._started else QUEUED

    def pause(self) -> None:
        """Hold after the event under way; the solver's state stays as it is."""
        self._change(paused=True)

    def resume(self) -> None:
        self._change(paused=False, credit=0)

    def step(self) -> None:
        """While paused: go on to the next Progress, that is, for one step."""
        self._change(paused=True, credit=self._credit + 1)

    def stop(self) -> None:
        """Close the job after the event under way; its `finally` runs. Does nothing if it ended."""
        self._change(stop=True)

    def send(self, message: Any) -> None:
        """Hand a value to the job; it arrives at its next yield."""
        self._messages.append(message)

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> Event:
        try:
            # Without this a full mailbox would never let the loop breathe.
            await asyncio.sleep(0)
            return await self._mail.get()
        except asyncio.CancelledError:
            self.stop()
            raise

    def _change(self, **values: Any) -> None:
        with self._lane.changed:
            for name, value in values.items():
                setattr(self, f"_{name}", value)
            self._lane.changed.notify_all()

    # -- in the worker ------------------------------------------------------------------------------

    @property
    def runnable(self) -> bool:
        return self._stop or not self._paused or self._credit > 0

    def advance(self, context: Context) -> bool:
        """Draw one event. False when the job has ended, one way or another."""
        try:
            if self._stop:
                return self._finish()
            if self._events is None:
                self._started = True
                self._events = self.job.run(_Paced(context, self))
                event = next(self._events)
            else:
                event = self._events.send(self._messages.popleft() if self._messages else None)
        except (StopIteration, Stopped):
            return self._finish()
        except BaseException as error:
            return self._finish(explained(error))
        if isinstance(event, Progress):
            self._credit = max(0, self._credit - 1)
        self._mail.put(event)
        return True

    def _finish(self, error: BaseException | None = None) -> bool:
        try:
            if self._events is not None:
                self._events.close()
        except Exception as late:
            error = error or explained(late)
        self._ended = True
        self._mail.close(error)
        return False


class _Paced:
    """The Context of one run: it keeps its device, and makes a picture when the last was read."""

    def __init__(self, context: Context, run: Run) -> None:
        self.shelf = context.shelf
        self._context, self._run = context, run
        self._chosen: tuple[str, str] | None = None

    @property
    def device(self) -> str:
        return self._choice[0]

    @property
    def dtype(self) -> str:
        return self._choice[1]

    @property
    def _choice(self) -> tuple[str, str]:
        # Kept, so that a choice made while this runs does not reach the half of it.
        if self._chosen is None:
            dtype = self._context.dtype
            self._chosen = self._context.device, dtype
        return self._chosen

    def choose(self, device: str, dtype: str) -> None:
        self._context.choose(device, dtype)

    @property
    def facts(self) -> DeviceFacts | None:
        return self._context.facts

    def wants_picture(self) -> bool:
        return self._context.wants_picture() and not self._run._mail.holds(Picture)

    def check(self) -> None:
        if self._run._stop:
            raise Stopped


class _Lane:
    """A thread with its queue and its stack of runs."""

    def __init__(self, name: str, context: Context) -> None:
        self.changed = threading.Condition()
        self._context = context
        self._queue: deque[Run] = deque()
        self._stack: list[Run] = []
        self._closing = False
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)

    def add(self, run: Run) -> None:
        """Queue a run. After the lane was closed it ends at once, without an event."""
        with self.changed:
            if self._closing:
                run._finish()
                return
            if not self.thread.is_alive():
                self.thread.start()
            self._queue.append(run)
            self.changed.notify_all()

    def runs(self) -> list[Run]:
        with self.changed:
            return [*self._stack, *self._queue]

    def retire(self) -> None:
        """End the thread once its runs have ended."""
        with self.changed:
            self._closing = True
            self.changed.notify_all()

    def close(self) -> None:
        """Stop every run, then the thread."""
        with self.changed:
            self._closing = True
            for run in (*self._stack, *self._queue):
                run._stop = True
            self.changed.notify_all()

    def _work(self) -> None:
        while (run := self._next()) is not None:
            if not run.advance(self._context):
                with self.changed:
                    self._stack.remove(run)

    def _next(self) -> Run | None:
        """The run to go on with; waits for one. None when the lane has been closed."""
        with self.changed:
            while True:
                for background in (False, True):
                    if (run := self._ready(background)) is not None:
                        return run
                if self._closing and not self._stack:
                    return None
                self.changed.wait()

    def _ready(self, background: bool) -> Run | None:
        """The topmost run of the stack that may go on, else the next of the queue."""
        for run in reversed(self._stack):
            if run.runnable and run.background == background:
                return run
        for run in self._queue:
            if run.background == background:
                self._queue.remove(run)
                self._stack.append(run)
                # One that was paused while it waited takes its place, and waits on.
                return run if run.runnable else self._ready(background)
        return None


class Engine:
    """Starts jobs. Those of the lane "device" compute, one at a time; those of "io" wait."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lanes = {"device": _Lane("device", context)}
        self._io: list[_Lane] = []
        self._closed = False

    def start(self, job: Job) -> Run:
        """Queue a job; returns at once. Call inside a running asyncio loop.

        After `close` the run ends without an event, so nothing outlives the window.
        """
        if getattr(job, "lane", "device") == "device" or self._closed:
            lane = self._lanes["device"]
        else:
            lane = _Lane("io", self._context)
            self._io = [*(other for other in self._io if other.thread.is_alive()), lane]
        run = Run(job, lane, asyncio.get_running_loop())
        lane.add(run)
        if lane in self._io:
            lane.retire()
        return run

    def choose(self, device: str, dtype: str) -> None:
        """Where models run and how they compute, from the next run on."""
        self._context.choose(device, dtype)

    @property
    def facts(self) -> DeviceFacts | None:
        """The device and its memory, or None until a job has used it."""
        return self._context.facts

    def runs(self) -> list[Run]:
        """All that is running, paused or queued."""
        lanes = (*self._lanes.values(), *self._io)
        # A run has ended when its events have; its thread may take a moment more to see it.
        return [run for lane in lanes for run in lane.runs() if run.state != ENDED]

    async def close(self) -> None:
        """Stop everything, let every job's `finally` run, and end the threads."""
        self._closed = True
        lanes = (*self._lanes.values(), *self._io)
        for lane in lanes:
            lane.close()
        for lane in lanes:
            while lane.thread.is_alive():
                await asyncio.sleep(0.005)


def explained(error: BaseException) -> BaseException:
    """Running out of memory, said as a person can use it; any other error as it is."""
    if isinstance(error, StudioError) or not is_out_of_memory(error):
        return error
    explained = DeviceError(
        "There is not enough memory for this.", "Choose fewer pictures at once, or a smaller model."
    )
    explained.__cause__ = error
    return explained
