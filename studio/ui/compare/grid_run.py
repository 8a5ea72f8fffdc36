"""The grid on screen: what is known of its cells, in which order they are made and shown, its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from PySide6.QtCore import QCoreApplication

from studio.engine import grid
from studio.engine.grid import CellDone, GridJob, GridRecipe, Laid
from studio.engine.trajectory import Trajectory
from studio.ui.compare.grid_view import Place
from studio.ui.flow.tool import duration


@dataclass
class GridRun:
    """Cells are known by their place in `job`; `columns` and `rows` are its columns and rows in the order
    in which a person has put them.
    """

    job: GridJob
    columns: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    trajectories: dict[Place, Trajectory] = field(default_factory=dict)
    order: list[Place] = field(default_factory=list)  # of those that wait
    done: dict[Place, CellDone] = field(default_factory=dict)
    failed: int = 0
    laid: Laid | None = None
    making: Place | None = None
    calls: int = 0
    seconds: float = 0.0
    ended: bool = False

    @staticmethod
    def of(job: GridJob, before: GridRun | None) -> GridRun:
        """A run of this job; of a run before it that made the same cells, their ways are kept."""
        x, y = job.recipe.x.values, job.recipe.y.values
        run = GridRun(job, tuple(range(len(x))), tuple(range(len(y))))
        if before is not None and before.shown_job == job:
            run.trajectories = {
                (before.columns.index(column), before.rows.index(row)): way
                for (column, row), way in before.trajectories.items()
            }
        return run

    @property
    def shown_job(self) -> GridJob:
        """The job whose cells lie as these are shown."""
        recipe = grid.arranged(self.job.recipe, self.columns, self.rows)
        return replace(self.job, recipe=recipe)

    def shown_cells(self) -> dict[Place, CellDone]:
        """The finished cells, by where they are shown."""
        found = {}
        for (column, row), cell in self.done.items():
            there = self.columns.index(column), self.rows.index(row)
            found[there] = replace(cell, column=there[0], row=there[1])
        return found

    def place(self, lane: int) -> Place:
        row, column = divmod(lane, len(self.job.recipe.x.values))
        return column, row

    def legend(self, place: Place) -> str:
        recipe = self.job.recipe
        texts = grid.said(recipe.x, place[0]), grid.said(recipe.y, place[1])
        return " · ".join(text for text in texts if text)

    # -- the order in which cells are made ----------------------------------------------------------

    def put_before(self, place: Place, other: Place) -> None:
        """Make a cell before another; both wait."""
        self.order.remove(place)
        self.order.insert(self.order.index(other), place)

    def put_sooner(self, place: Place, by: int) -> None:
        """Make a cell that waits so many numbers later, or sooner if negative."""
        at = self.order.index(place)
        self.order.remove(place)
        self.order.insert(min(max(at + by, 0), len(self.order)), place)

    # -- what it costs ------------------------------------------------------------------------------

    @property
    def facts(self) -> dict[str, Any]:
        """What is written of the run beside the cells."""
        expected = math.nan if self.laid is None else self.laid.seconds
        return {
            "predicted_seconds": None if math.isnan(expected) else round(expected, 2),
            "seconds": round(sum(cell.seconds for cell in self.done.values()), 2),
            "calls": sum(cell.calls for cell in self.done.values()),
        }

    def going(self) -> str:
        """How far it is, and how long it will take."""
        if (laid := self.laid) is None:
            return _tr("Measuring what a network call takes")
        text = _tr("{done} of {all} cells").format(done=len(self.done), all=len(laid.cells))
        if math.isnan(laid.seconds) or not laid.calls:
            return text
        left = max(0, laid.calls - self.calls)
        each = self.seconds / self.calls if self.calls else laid.seconds / laid.calls
        return text + _tr("; predicted {expected}, about {left} left").format(
            expected=duration(laid.seconds), left=duration(left * each)
        )

    def truth(self) -> str:
        """What it took, and what was kept from before; empty if it made and found nothing."""
        if (laid := self.laid) is None:
            return ""
        facts = {"calls": self.calls, "time": duration(self.seconds)}
        parts: list[str] = []
        if self.calls and self.ended and not self.failed and not math.isnan(laid.seconds):
            text = _tr("Took {calls} network calls, {time}; predicted were {guess} and {expected}.")
            parts += [text.format(**facts, guess=laid.calls, expected=duration(laid.seconds))]
        elif self.calls:
            parts += [_tr("Took {calls} network calls, {time}.").format(**facts)]
        if laid.kept:
            parts += [_tr("{kept} cells were kept from before.").format(kept=laid.kept)]
        return " ".join(parts)


def expected(recipe: GridRecipe) -> str:
    """What a grid will cost, in words. Raises SpecError if it makes no sense."""
    cells = GridJob(recipe).cells()
    open_ended = sum(cell.calls is None for cell in cells)
    text = _tr("{cells} cells, {calls} network calls.").format(
        cells=len(cells), calls=sum(cell.calls or 0 for cell in cells)
    )
    if open_ended:
        more = _tr("{cells} of them take as many more as their tolerance asks.")
        text += " " + more.format(cells=open_ended)
    return text


def _tr(text: str) -> str:
    return QCoreApplication.translate("GridRun", text)
