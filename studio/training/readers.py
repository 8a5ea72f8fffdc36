"""A few threads that read ahead, so that whoever waits for a disk can always stop, and never hangs.

What is read comes back in order. A file that does not answer in time is given up and its thread left
behind, which is a daemon: a dead network drive holds up neither a run nor the end of the program.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from studio.errors import DataError

Thing = TypeVar("Thing")
Result = TypeVar("Result")

BEAT = 0.05  # seconds between two answers, with results or without
PATIENCE = 60.0  # seconds that one file may take
_PARTING = 0.2  # seconds to wait for threads that are told to end


def workers() -> int:
    return max(2, min(4, (os.cpu_count() or 2) - 1))


def read(
    call: Callable[[Thing], Result],
    things: Iterable[Thing],
    late: Callable[[Thing], Result],
    threads: int | None = None,
    patience: float | None = None,
    ahead: int = 1024,
) -> Generator[tuple[int, int, list[Result]], None, None]:
    """(done, total, results) of `call` on each of `things`, in their order, several times a second,
    even if there is nothing new. `total` grows while `things` are still drawn.

    `late` makes the result of a thing that took longer than `patience` seconds. At most `ahead` results
    wait for an earlier one. Raises what `call` or `things` raise, and DataError if many things are late
    or `things` themselves are.
    """
    line = _Line(call, things, late, PATIENCE if patience is None else patience, ahead)
    try:
        line.start(workers() if threads is None else threads)
        while True:
            results, ended = line.take()
            yield line.done, line.total, results
            if ended:
                return
    finally:
        line.close()


def asked(
    call: Callable[[], Result], patience: float | None = None
) -> Generator[None, None, Result]:
    """What `call` returns; yields while it is waited for. Raises DataError if it takes too long."""
    results: list[Result] = []

    def late(_: None) -> Result:
        raise _silent()

    for _, _, new in read(lambda _: call(), [None], late, 1, patience):
        results += new
        yield
    return results[0]


def ahead(
    call: Callable[[Thing], Result], things: Iterable[Thing], threads: int = 2, depth: int = 4
) -> Generator[Result, None, None]:
    """`call` on each of `things`, in their order, each made before it is asked for: for work that waits
    for nobody, as cutting the pictures of the next steps."""
    pool = ThreadPoolExecutor(threads, "ahead")
    made: deque[Future[Result]] = deque()
    try:
        for thing in things:
            made.append(pool.submit(call, thing))
            if len(made) > depth:
                yield made.popleft().result()
        while made:
            yield made.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Line(Generic[Thing, Result]):
    """Things in a line, read by threads of its own."""

    def __init__(
        self,
        call: Callable[[Thing], Result],
        things: Iterable[Thing],
        late: Callable[[Thing], Result],
        patience: float,
        ahead: int,
    ) -> None:
        self.done = self.total = 0
        self._call, self._things, self._late = call, things, late
        self._patience, self._ahead = patience, ahead
        lock = threading.Lock()
        self._work = threading.Condition(lock)  # for readers: there is something to do
        self._end = threading.Condition(lock)  # for whoever waits: all is done
        self._waiting: deque[tuple[int, Thing]] = deque()
        self._busy: dict[int, tuple[Thing, float]] = {}
        self._results: dict[int, Result] = {}
        self._next = 0
        self._listed = self._stop = False
        self._heard = time.monotonic()  # when a thing was last drawn
        self._given_up = 0
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def start(self, threads: int) -> None:
        self._most_late = 4 * threads
        for target in (self._list, *[self._read] * threads):
            self._begin(target)

    def take(self) -> tuple[list[Result], bool]:
        """The results that are next in order, after a beat or when all is done; whether it is."""
        with self._end:
            self._end.wait_for(self._over, BEAT)
            if self._error is not None:
                raise self._error
            self._give_up()
            results = []
            while self._next in self._results:
                results.append(self._results.pop(self._next))
                self._next += 1
            self._work.notify_all()
            return results, self._listed and self._next == self.total

    def close(self) -> None:
        """Tell the threads to end, and wait a moment for those that can."""
        with self._work:
            self._stop = True
            self._work.notify_all()
        end = time.monotonic() + _PARTING
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _over(self) -> bool:
        return self._error is not None or (self._listed and self.done == self.total)

    def _give_up(self) -> None:
        now = time.monotonic()
        for place, (thing, since) in list(self._busy.items()):
            if now - since > self._patience:
                self._given_up += 1
                if self._given_up > self._most_late:
                    raise _silent()
                del self._busy[place]
                self._results[place] = self._late(thing)
                self.done += 1
                self._begin(self._read)  # instead of the thread that hangs
        if not self._listed and not self._waiting and now - self._heard > self._patience:
            raise _silent()

    def _begin(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name="reader", daemon=True)
        self._threads.append(thread)
        thread.start()

    # -- in the threads -----------------------------------------------------------------------------

    def _list(self) -> None:
        try:
            for thing in self._things:
                with self._work:
                    if self._stop:
                        return
                    self._waiting.append((self.total, thing))
                    self.total += 1
                    self._heard = time.monotonic()
                    self._work.notify()
        except BaseException as error:
            self._fail(error)
        with self._work:
            self._listed = True
            self._work.notify_all()
            self._end.notify_all()

    def _read(self) -> None:
        while (item := self._take_up()) is not None:
            place, thing = item
            try:
                result = self._call(thing)
            except BaseException as error:
                self._fail(error)
                return
            with self._work:
                if self._busy.pop(place, None) is None:
                    return  # it was given up, and another thread took over
                self._results[place] = result
                self.done += 1
                if self._over():
                    self._end.notify_all()

    def _take_up(self) -> tuple[int, Thing] | None:
        with self._work:
            while not self._stop and self._error is None:
                if self._waiting and self._waiting[0][0] < self._next + self._ahead:
                    place, thing = self._waiting.popleft()
                    self._busy[place] = thing, time.monotonic()
                    return place, thing
                if self._listed and not self._waiting:
                    return None
                self._work.wait()
            return None

    def _fail(self, error: BaseException) -> None:
        with self._work:
            self._error = self._error or error
            self._work.notify_all()
            self._end.notify_all()


def _silent() -> DataError:
    return DataError(
        "The folder or file does not answer.", "Look whether its drive is still connected."
    )
