"""The loop of every training: step after step, saved now and then, put back when it loses its footing.

What is trained is never lost to a full disk: it stays in memory, what is wrong is said, and saving is
tried again.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from studio.errors import SaveError, StudioError
from studio.training.optimization import LostFooting, Pace

if TYPE_CHECKING:
    from torch import Tensor

_RETRY_SECONDS = 10.0
_NO_NUMBER = "The loss was not a number."


@dataclass(frozen=True)
class Back:
    """The run was put back to its last good state, because of `reason`, with this share of the rate."""

    reason: str
    eased: float


@dataclass(frozen=True)
class TrainStep:
    """After a step: how far, the loss of its batch, pictures a second so far, what was saved.

    The loss is nan where no step was taken: when a run was put `back`, was saved at its end, or waits
    to be saved. `trouble` says why it could not be.
    """

    step: int
    total: int
    loss: float
    speed: float
    saved: Path | None = None
    back: Back | None = None
    trouble: str = ""


class Plan(Pace, Protocol):
    """A pace, and how many pictures a step sees."""

    @property
    def batch(self) -> int: ...


class Run(Protocol):
    """What is trained: it has come to `step`, and can go one further or be saved."""

    step: int

    @property
    def plan(self) -> Plan: ...
    def advance(self) -> Tensor: ...
    def save(self) -> Path: ...


class Returning(Run, Protocol):
    """A Run that can be put back."""

    @property
    def stopping(self) -> bool: ...
    def back(self) -> float:
        """Put it back to its last good state, with half the rate. The share of the rate now."""
        ...


class Guard:
    """Sees when a run loses its footing, and puts it back.

    A spike is a loss that stays, over a few steps, far above its mean of late: ten times as far as its
    values usually are, and the mean again.
    """

    _few, _usual, _far, _most = 8, 0.98, 10.0, 5

    def __init__(self, run: Returning) -> None:
        self.run = run
        self._falls, self._beyond = 0, 0
        #: Set to False, nothing is saved when the run is left.
        self.keep = True
        #: Whether the last loss was as losses are: what is saved now is worth going back to.
        self.calm = True
        self._forget()

    def _forget(self) -> None:
        self._mean, self._spread, self._seen = 0.0, 0.0, 0
        self._late: deque[float] = deque(maxlen=self._few)

    def amiss(self, loss: float) -> str:
        """What is wrong with the run, given the loss of its last step; "" if nothing is."""
        if not math.isfinite(loss):
            return _NO_NUMBER
        self._late.append(loss)
        high = statistics.median(self._late)
        limit = self._mean + abs(self._mean) + self._far * self._spread
        self.calm = self._seen <= 50 or loss <= limit
        if self._seen > 50 and len(self._late) == self._few and high > limit:
            return f"The loss rose from {self._mean:.3g} to {high:.3g}."
        if not self.calm:
            return ""  # what is out of the usual does not say what is usual
        self._seen += 1
        keep = min(self._usual, self._seen / (self._seen + 10))
        self._spread = keep * self._spread + (1 - keep) * abs(loss - self._mean)
        self._mean = keep * self._mean + (1 - keep) * loss
        return ""

    def put_back(self, reason: str) -> Back:
        """Put the run back. Raises StudioError if it falls again and again at the same place."""
        fell = self.run.step
        self._falls = self._falls + 1 if fell <= self._beyond else 1
        self._beyond = max(self._beyond, fell + 100)
        if self._falls >= self._most:
            raise StudioError(
                f"Training cannot get past step {fell}, tried {self._falls} times. {reason}",
                "The last good state is saved. Try a lower learning rate, or full precision.",
            )
        self._forget()
        return Back(reason, self.run.back())


class _Saving:
    """When a run is saved next, and whether it has to be."""

    def __init__(self, run: Run, every: float) -> None:
        self._run, self._every = run, every
        self._next = time.monotonic() + every
        self.needed = False

    @property
    def due(self) -> bool:
        return self.needed and time.monotonic() > self._next

    def save(self) -> tuple[Path | None, str]:
        """(what was saved, "") or (None, why it could not be)."""
        try:
            path = self._run.save()
        except SaveError as error:
            self._next = time.monotonic() + min(self._every, _RETRY_SECONDS)
            return None, str(error)
        self._next, self.needed = time.monotonic() + self._every, False
        return path, ""


def train(
    run: Run,
    save_seconds: float = 60.0,
    guard: Guard | None = None,
    patience: float = math.inf,
) -> Generator[TrainStep, None, None]:
    """Train to the end of the plan. Saves every `save_seconds` and when it ends or is closed.

    With a guard a run that loses its footing is put back. At the end a run that cannot be saved waits
    `patience` seconds for room. Raises StudioError if it cannot go on; the last good save stays.
    """
    saving, clock = _Saving(run, save_seconds), _Clock(run)
    try:
        while run.step < run.plan.steps and not (guard and guard.run.stopping):
            loss, wrong = _advanced(run, guard)
            if guard is not None and wrong:
                yield clock.told(back=guard.put_back(wrong))
                continue
            saving.needed = True
            fit = guard is None or guard.calm
            path, trouble = saving.save() if saving.due and fit else (None, "")
            yield clock.told(loss, path, trouble)
        yield from _ended(saving, clock, patience)
    except StudioError as error:
        # The last good save must not be replaced by what went wrong; what could not be saved may.
        saving.needed &= isinstance(error, SaveError)
        raise
    finally:
        if saving.needed and (guard is None or guard.keep):
            run.save()


def _advanced(run: Run, guard: Guard | None) -> tuple[float, str]:
    """(loss of the next step, what is wrong with it). Without a guard nothing is found wrong."""
    try:
        loss = float(run.advance())
    except LostFooting:
        if guard is None:
            raise
        return math.nan, _NO_NUMBER
    return loss, guard.amiss(loss) if guard else ""


def _ended(saving: _Saving, clock: _Clock, patience: float) -> Generator[TrainStep, None, None]:
    """Save what the run has come to, as soon as it can be. Raises SaveError when patience ends."""
    until = time.monotonic() + patience
    while saving.needed:
        if time.monotonic() > until:
            return  # the last try, whose error is raised, is when the run is left
        path, trouble = saving.save()
        yield clock.told(saved=path, trouble=trouble)
        while saving.needed and not saving.due:
            time.sleep(0.05)
            yield clock.told()


class _Clock:
    """What the steps of a run say of their pace."""

    def __init__(self, run: Run) -> None:
        self._run, self._first, self._begun = run, run.step, time.monotonic()

    def told(
        self,
        loss: float = math.nan,
        saved: Path | None = None,
        trouble: str = "",
        back: Back | None = None,
    ) -> TrainStep:
        run = self._run
        seconds = max(1e-9, time.monotonic() - self._begun)
        speed = 0.0 if math.isnan(loss) else (run.step - self._first) * run.plan.batch / seconds
        return TrainStep(run.step, run.plan.steps, loss, speed, saved, back, trouble)
