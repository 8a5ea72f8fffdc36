"""The curves of a run, kept beside it so that they survive a resume: `log.csv` of its loss and pace,
`measures.csv` of what was measured on held-out pictures, `levels.csv` of the loss by noise level."""

from __future__ import annotations

import contextlib
import csv
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from studio.errors import SaveError
from studio.paths import atomic
from studio.training.loop import TrainStep
from studio.training.runs import LEVELS, LOG, MEASURES

_FIELDS = ("step", "loss", "pictures_per_second", "seconds")
_SMOOTHING = 0.98
_SECONDS_BETWEEN_ROWS = 10.0

Row = tuple[int, float, float, float]
_unreadable = contextlib.suppress(OSError, ValueError, csv.Error)


class Log:
    """Smoothed loss, speed and time of a run, from the step it begins or goes on at."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / LOG
        self.rows: list[Row] = [row for row in _read(self._path) if row[0] <= step]
        self.loss = self.rows[-1][1] if self.rows else math.nan
        self.speed = 0.0  # pictures a second of late
        self.seconds = self.rows[-1][3] if self.rows else 0.0
        self._step = step
        self._at = self._written = time.monotonic()

    def add(self, step: TrainStep, batch: int, took: float | None = None) -> None:
        """Take note of a step; a row is kept every few seconds. It took all the time since the last one,
        unless said."""
        now = time.monotonic()
        took = now - self._at if took is None else took
        self._step, self._at = step.step, now
        self.seconds += took
        if math.isnan(step.loss):  # the last save of a run, no step of its own
            return
        speed = batch / max(took, 1e-9)
        self.speed = speed if not self.speed else 0.9 * self.speed + 0.1 * speed
        # The first losses fall fast; a slow average would show them for a long time.
        keep = min(_SMOOTHING, step.step / (step.step + 10))
        self.loss = (
            step.loss if math.isnan(self.loss) else keep * self.loss + (1 - keep) * step.loss
        )
        if now - self._written > _SECONDS_BETWEEN_ROWS:
            self._write(now)

    def pause(self) -> None:
        """What has gone by since the last step was no training: it counts for nothing."""
        self._at = time.monotonic()

    def back(self, step: int) -> None:
        """The run was put back to a step: what came after it is no part of it."""
        self._step = step
        self.rows = [row for row in self.rows if row[0] <= step]
        if self.rows:
            self.loss = self.rows[-1][1]

    def close(self) -> None:
        """Keep the last row."""
        self._write(time.monotonic())

    def curve(self, points: int = 12) -> list[tuple[int, float]]:
        """About `points` of the curve, (step, smoothed loss), the last among them."""
        every = max(1, math.ceil(len(self.rows) / points))
        return [(row[0], row[1]) for row in self.rows[::-1][::every][::-1]]

    def _write(self, now: float) -> None:
        self._written = now
        if not math.isnan(self.loss) and (not self.rows or self.rows[-1][0] < self._step):
            self.rows.append((self._step, self.loss, self.speed, self.seconds))
        _keep(self._path, _FIELDS, self.rows)


class Measures:
    """What was measured of a run: (step, held-out loss, bits per dimension, share learned by heart)."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / MEASURES
        self.rows: list[Row] = [row for row in _read(self._path) if row[0] <= step]

    def add(self, step: int, held_out: float, bits: float, memorised: float) -> None:
        self.rows = [row for row in self.rows if row[0] < step]
        self.rows.append((step, held_out, bits, memorised))
        _keep(self._path, ("step", "held_out", "bits", "memorised"), self.rows)


def keep_levels(folder: Path, rows: Iterable[Sequence[float]]) -> None:
    """Keep what LevelLosses tells in rows."""
    _keep(folder / LEVELS, ("low", "high", "loss", "weight", "seen", "first"), rows)


def levels(folder: Path) -> list[tuple[float, ...]]:
    """The rows of LevelLosses as they were kept last; none if they are not there or damaged."""
    rows: list[tuple[float, ...]] = []
    with _unreadable, (folder / LEVELS).open(encoding="utf-8") as file:
        rows = [tuple(map(float, line)) for line in list(csv.reader(file))[1:]]
    return rows if all(map(_sound, rows)) else []


def _sound(row: tuple[float, ...]) -> bool:
    """Whether a row of levels can be true; a loss may be unknown."""
    return len(row) == 6 and all(abs(row[i]) < 1e15 for i in (0, 1, 3, 4)) and row[0] < row[1]


def _keep(path: Path, names: tuple[str, ...], rows: Iterable[Sequence[float]]) -> None:
    # The curves are worth less than the run: a full disk is told where the model is saved.
    told = [[v if isinstance(v, int) else f"{v:.6g}" for v in row] for row in rows]
    with (
        contextlib.suppress(SaveError),
        atomic(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file).writerows([names, *told])


def _read(path: Path) -> list[Row]:
    """The rows of a log; those that cannot be read are left out."""
    rows: list[Row] = []
    with _unreadable, path.open(encoding="utf-8") as file:
        for line in csv.reader(file):
            with contextlib.suppress(ValueError):
                step, loss, speed, seconds = line
                rows.append((int(step), float(loss), float(speed), float(seconds)))
    return rows
