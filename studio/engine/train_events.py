"""What a training tells besides the events of every job, and what may be sent to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from studio.engine.events import Event
from studio.engine.sheets import Sheet
from studio.spec import option
from studio.training.plan import Training


@dataclass(frozen=True)
class SaveNow:
    """Write the model as it is."""


@dataclass(frozen=True)
class SampleNow:
    """Draw the sheet of fixed seeds now."""


@dataclass(frozen=True)
class StopNow:
    """End the run after this step, saved, and tell what it has come to. Of many processes, all end."""


@dataclass(frozen=True)
class Discard:
    """End the run and delete what it has made."""


@dataclass(frozen=True)
class RolledBack(Event):
    """The run was put back to its last good state, at `step`, and goes on with a lower learning rate.
    `reason` is a sentence."""

    step: int
    reason: str
    rate: float


@dataclass(frozen=True)
class TrainResult:
    """What a run has come to. Figures are nan where they were not measured."""

    name: str
    step: int
    loss: float
    held_out: float
    before: Sheet | None = None
    after: Sheet | None = None
    path: Path | None = None
    bits: float = math.nan
    plan: Training = option(Training)
    pictures: int = 0  # all that were read, held-out ones among them
    held: int = 0
    classes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()  # (file, reason)
    pace: float = 0.0  # pictures a second of late
    seconds: float = 0.0  # of work, with what was worked before
    resumed_at: int = 0
    stopped: bool = False
    device: str = "cpu"
