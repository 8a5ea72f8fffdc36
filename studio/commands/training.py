"""What the commands that train share: a place for the run, a command line to keep, Ctrl-C."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from studio import cli, spec, terminal
from studio.training import data, packs, runs
from studio.training.data import Pictures
from studio.training.log import Log
from studio.training.loop import TrainStep

_ELSEWHERE = ("data", "json", "device")  # what comes first, and what makes no difference


def folder(out: str) -> Path:
    """Where a run called `out` is kept. Raises SpecError if it is missing or no name."""
    return runs.place(out)


def command_line(name: str, command: Any) -> str:
    """The command line that does what `command`, called `name`, does."""
    given = (command.data,) if isinstance(command.data, str) else command.data
    words = ["score-studio", name, *given]
    for field in dataclasses.fields(command):
        value, flag = getattr(command, field.name), f"--{cli.flag(field)}"
        if field.name in _ELSEWHERE or value == default(field):
            continue
        if spec.hints(type(command))[field.name] == tuple[str, ...]:  # said again for each
            words += [word for text in value for word in (flag, text)]
        elif isinstance(value, bool):
            words.append(flag)
        elif isinstance(value, tuple):
            words += [flag, *map(str, value)]
        else:
            words += [flag, spec.kind(value) if dataclasses.is_dataclass(value) else str(value)]
    return shlex.join(words)


def pictures(path: str, size: int, compositions: int, seed: int) -> Pictures:
    """The pictures to train on; what had to be left out is told. Raises DataError."""
    packs.refuse_held_back(Path(path))
    with terminal.progress("Reading pictures") as update:
        found = data.load(
            Path(path), size, compositions, seed, lambda done, total: update(done, total, "")
        )
    for name, reason in found.skipped:
        terminal.note(f"left out {name}: {reason}")
    return found


def follow(
    steps: Generator[TrainStep, None, None],
    log: Log,
    batch: int,
    after: Callable[[TrainStep], None] = lambda step: None,
) -> bool:
    """Train until done or interrupted; True if interrupted. Everything is saved either way."""
    with (
        contextlib.closing(steps),
        interrupts() as interrupted,
        terminal.progress("Training") as show,
    ):
        for step in steps:
            log.add(step, batch)
            show(step.step, step.total, f"loss {log.loss:.4f}, {log.speed:.0f} pictures/s")
            after(step)
            if interrupted.is_set():
                break
    log.close()
    return interrupted.is_set()


@contextlib.contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Ctrl-C, or being told to end, sets an event instead of breaking a step in half; a second time
    breaks off."""
    asked = threading.Event()
    before: dict[int, Any] = {}

    def ask(number: int, _: Any) -> None:
        signal.signal(number, before[number])
        terminal.note("Stopping after this step, then saving")
        asked.set()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
    except ValueError:  # not in the main thread: nobody can press Ctrl-C there
        yield asked
        return
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
