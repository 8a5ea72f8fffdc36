"""The jobs of the Train mode: check a plan, train it, and what earlier runs have left.

Closing a TrainJob saves what it has come to, unless Discard was sent to it. It makes way for everything
else a person starts, and goes on when that is done.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from studio.engine.events import Event
from studio.spec import option
from studio.training.choices import Choices
from studio.training.plan import Training

if TYPE_CHECKING:
    from studio.engine.engine import Context


# -- messages -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SaveNow:
    """Write the model as it is."""


@dataclass(frozen=True)
class SampleNow:
    """Draw the sheet of fixed seeds now."""


@dataclass(frozen=True)
class Discard:
    """End the run and delete what it has made."""


# -- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Levels(Event):
    """The loss by noise level: `edges` (K + 1,) of ln sigma, the smoothed `loss` (K,), nan where none
    was seen, and how many pictures were `seen` (K,)."""

    edges: np.ndarray
    loss: np.ndarray
    seen: np.ndarray


@dataclass(frozen=True)
class Sheet(Event):
    """Samples from fixed seeds at a step, uint8 (N, H, W, C); of each the `nearest` picture learned from
    and its `distance` (N,), root mean square in grey levels. `memorised` is 0 where samples are as far
    from the pictures as held-out ones are, 1 where they are copies; nan where nothing was held out."""

    step: int
    pictures: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray
    memorised: float


@dataclass(frozen=True)
class RolledBack(Event):
    """The run was put back to its last good state, at `step`, and goes on with a lower learning rate."""

    step: int
    reason: str
    rate: float


@dataclass(frozen=True)
class TrainResult:
    """What a run has come to. `held_out` is nan where nothing was held out."""

    name: str
    step: int
    loss: float
    held_out: float
    before: Sheet | None = None
    after: Sheet | None = None
    path: Path | None = None


# -- jobs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckPlan:
    """One real step of a plan: Notes, and Done with a Checked."""

    data: str
    plan: Training = option(Training)
    choices: Choices = option(Choices)

    def run(self, context: Context) -> Generator[Event, Any, None]:
        raise NotImplementedError
        yield


@dataclass(frozen=True)
class TrainJob:
    """Train a plan, or go on with the run that exists under its name: Note, Progress, Metrics ("loss",
    "held-out", "bits", "pace"), Levels, Sheet, Saved, RolledBack, and Done with a TrainResult.

    `out` is a name for the shelf, or with a slash in it a folder. `sample_every` steps a Sheet is drawn.
    """

    background: ClassVar[bool] = True
    data: str
    plan: Training = option(Training)
    choices: Choices = option(Choices)
    out: str = ""
    sample_every: int = 250
    save_seconds: float = 60.0

    def run(self, context: Context) -> Generator[Event, Any, None]:
        raise NotImplementedError
        yield


# -- what is there --------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunFound:
    """An earlier run: how far it came, when that was (seconds since 1970), and whether it can go on."""

    name: str
    step: int
    total: int
    loss: float
    when: float
    resumable: bool
    data: str
    folder: Path


def runs() -> list[RunFound]:
    """The runs in the person's models, the latest first."""
    return []


def sheets(folder: Path) -> list[Sheet]:
    """The sheets that were drawn of the run in `folder`, by step."""
    return []
