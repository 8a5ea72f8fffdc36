"""What is known of a run: its curves, the loss by noise level, its sheets, and what befell it.

Plain data, filled by the events of a TrainJob and read by the widgets some ten times a second.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from studio.engine import train_jobs
from studio.engine.events import Levels
from studio.engine.sheets import Sheet
from studio.engine.train_jobs import RunFound

_LATE, _TICK = 60.0, 0.25  # seconds of work from which the pace is taken, and between its points
_ROOM = 100 * 2**20  # bytes of sheets; then those that stand closest go, but the first and the last
_MOST = 1200  # points of a curve; then every other one goes, the newest stay

Point = tuple[float, float]


class Curve:
    """Points (step, value) in the order of steps, thinned as they grow too many to be seen."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._every, self._skipped = 1, 0

    def add(self, points: Iterable[Point]) -> None:
        for step, value in points:
            if not math.isfinite(value):
                continue
            # After a roll-back, what was undone is not part of the run any more.
            while self.points and self.points[-1][0] >= step:
                self.points.pop()
            # The last point is always there; of those before it, one in so many.
            if len(self.points) > 1 and self._skipped + 1 < self._every:
                self.points[-1] = (step, value)
                self._skipped += 1
            else:
                self.points.append((step, value))
                self._skipped = 0
            if len(self.points) > _MOST:
                self.points = self.points[:-1:2] + self.points[-1:]
                self._every *= 2

    @property
    def last(self) -> float:
        return self.points[-1][1] if self.points else math.nan


@dataclass
class Record:
    """One run, as far as it came."""

    name: str = ""
    about: str = ""  # the plan, in a line
    step: int = 0
    total: int = 0
    seen: int = 0
    seconds: float = 0.0
    curves: dict[str, Curve] = field(default_factory=dict)
    levels: Levels | None = None
    sheets: list[Sheet] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _paces: list[Point] = field(default_factory=list)

    @staticmethod
    def of(run: RunFound) -> Record:
        """What an earlier run has left in its folder."""
        record = Record(run.name, Path(run.data).stem, run.step, run.total, run.seen)
        for name, points in train_jobs.curves(run).items():
            record.add(name, points)
        record.levels = train_jobs.levels(run)
        record.add_sheets(train_jobs.sheets(run.folder))
        return record

    def advance(self, step: int, total: int, seen: int, seconds: float) -> None:
        """A step was done, after so many seconds of work."""
        self.step, self.total, self.seen, self.seconds = step, total, seen or self.seen, seconds
        paces = self._paces
        if paces and (step <= paces[-1][1] or seconds < paces[-1][0]):
            paces.clear()  # it went back, or on from another place
        if not paces or seconds - paces[-1][0] >= _TICK:
            paces.append((seconds, step))
        while len(paces) > 4 and seconds - paces[0][0] > _LATE:
            paces.pop(0)

    def add(self, name: str, points: Iterable[Point]) -> None:
        """Points of a curve."""
        self.curves.setdefault(name, Curve()).add(points)

    def add_sheets(self, sheets: Iterable[Sheet]) -> None:
        """Samples of some steps; of a step that is there already, the new ones."""
        for sheet in sheets:
            steps = [known.step for known in self.sheets]
            at = bisect.bisect_left(steps, sheet.step)
            if at < len(steps) and steps[at] == sheet.step:
                self.sheets[at] = sheet
            else:
                self.sheets.insert(at, sheet)
        while len(self.sheets) > 2 and sum(map(_bytes, self.sheets)) > _ROOM:
            steps = [known.step for known in self.sheets]
            gaps = [steps[i + 1] - steps[i - 1] for i in range(1, len(steps) - 1)]
            del self.sheets[1 + gaps.index(min(gaps))]

    def go_back(self, step: int) -> None:
        """The run was put back: sheets of later steps are of a past that was undone."""
        self.sheets = [sheet for sheet in self.sheets if sheet.step <= step]
        self.step = min(self.step, step)
        self._paces = []

    def last(self, name: str) -> float:
        """The newest value of a curve; nan if there is none."""
        curve = self.curves.get(name)
        return curve.last if curve else math.nan

    @property
    def memorised(self) -> float:
        """Of the newest sheet that could be judged; nan if there is none."""
        judged = (s.memorised for s in reversed(self.sheets) if math.isfinite(s.memorised))
        return next(judged, math.nan)

    @property
    def seconds_left(self) -> float:
        """At the pace of late; nan while it is not known."""
        if len(self._paces) < 4:
            return math.nan
        (since, first), (now, step) = self._paces[0], self._paces[-1]
        return (self.total - step) * (now - since) / max(1e-9, step - first)


def _bytes(sheet: Sheet) -> int:
    return sheet.pictures.nbytes + sheet.nearest.nbytes
