"""Events: frozen values that cross from the worker thread to whoever listens.

Of Progress, Transfer, Picture, Shares, Levels and Standing only the newest of a lane waits; Metrics of
a lane and name wait as one; everything else waits in order and is never lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from studio.engine.trajectory import Frame, Trajectory


@dataclass(frozen=True)
class Event:
    lane: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class Note(Event):
    """What is happening, in words."""

    text: str


@dataclass(frozen=True)
class Begun(Event):
    """A run of pictures has begun; its frames are kept in `trajectory` as it goes."""

    trajectory: Trajectory


@dataclass(frozen=True)
class Progress(Event):
    """After a step. `total` is an estimate for adaptive samplers; `seconds` counts work only."""

    step: int
    total: int
    calls: int = 0
    log_snr: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Transfer(Event):
    """How far a download is, in bytes. `speed` is bytes a second, 0 while it is not known."""

    done: int
    total: int
    speed: float = 0.0


@dataclass(frozen=True)
class Picture(Event):
    """How things look now."""

    frame: Frame


@dataclass(frozen=True)
class Metric(Event):
    """Points (x, y) of one curve."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Shares(Event):
    """How long the term of each condition is now, as a share of the score's own length, by name."""

    shares: dict[str, float]


@dataclass(frozen=True)
class Levels(Event):
    """The loss by noise level: `edges` (K + 1,) of ln(sigma), the smoothed `loss` (K,), nan where none
    was seen; how many pictures were `seen` (K,); and the loss at `first` (K,), nan until it is known."""

    edges: np.ndarray
    loss: np.ndarray
    seen: np.ndarray
    first: np.ndarray

    @staticmethod
    def of(rows: Sequence[Sequence[float]]) -> Levels:
        """From the rows that training.watch.LevelLosses tells and a run's folder keeps."""
        low, high, loss, _, seen, first = np.array(rows, np.float64).T
        return Levels(np.append(low, high[-1]), loss, seen, first)


@dataclass(frozen=True)
class Saved(Event):
    path: Path


@dataclass(frozen=True)
class Done(Event):
    """A piece of work has come to its end, with this to show."""

    value: Any = None


@dataclass(frozen=True)
class Finished(Event):
    """The result: uint8 pictures (N, H, W, C), the recipe that makes them again, and the cost. `given` is
    what the recipe needs besides itself: of a painting the job, with its picture and masks."""

    pictures: np.ndarray
    recipe: dict[str, Any]
    calls: int = 0
    seconds: float = 0.0
    given: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Standing(Event):
    """How a lane of a race stands. Seconds count its own work; of a network call that several lanes
    share, each counts its part. Steps accepted and rejected are means over the pictures of an adaptive
    solver, None of others; bits per dimension are None until measured.
    """

    state: str  # "running", "finished", "stopped" or "failed"
    calls: int = 0
    seconds: float = 0.0
    accepted: float | None = None
    rejected: float | None = None
    bits: float | None = None


@dataclass(frozen=True)
class Failed(Event):
    """A lane cannot go on; the others do. One sentence, and what to do about it."""

    message: str
    hint: str = ""


REPLACEABLE = (Progress, Transfer, Picture, Shares, Levels, Standing)
