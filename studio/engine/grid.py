"""A grid of samples: two settings, each over a few values, and what the pictures become.

Cells are made in an order that shows most soonest, the cheap ones first. What is finished is kept (see
grid_cells.py), so a grid that was stopped, or broke off, goes on where it was.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from studio import choose, recipes, spec
from studio.diffusion import pictures
from studio.diffusion.noise import Noise
from studio.engine.events import Begun, Event, Failed, Finished, Note, Picture, Progress
from studio.engine.grid_cells import BOUND, Cells, Made
from studio.engine.jobs import SampleJob
from studio.engine.trajectory import Trajectory
from studio.errors import SaveError, SpecError, StudioError
from studio.lazy import torch
from studio.paths import atomic
from studio.spec import option

if TYPE_CHECKING:
    from studio.engine.engine import Context

MOST_CELLS = 400
#: Settings of a sample by the word people use for an axis; all others are settings of its sampler.
_OF_SAMPLE = ("model", "seed", "count", "classes", "guidance", "classifier", "sampler", "sde")
_WORDS = {"class": "classes", "label": "classes", "checkpoint": "model", "tolerance": "rtol"}


@dataclass(frozen=True)
class Axis:
    """A setting by its name ("sampler", "steps", "snr", "seed", "guidance", "model", …) and its values
    as one writes them. No name is an axis of one value that changes nothing."""

    name: str = ""
    values: tuple[str, ...] = ("",)

    @staticmethod
    def of(text: str) -> Axis:
        """From "steps=10,20,50". Raises SpecError if it is not written so."""
        ((name, values),) = choose.pairs((text,)).items()
        found = tuple(v.strip() for v in values.split(",") if v.strip())
        if not found:
            raise SpecError(f"The axis {name} has no values.", "Write it as steps=10,20,50.")
        return Axis(name, found)


@dataclass(frozen=True)
class GridRecipe:
    """A sample, and the two settings that vary: `x` across, `y` down."""

    kind: str = option("grid", choices=("grid",))
    base: SampleJob = option(lambda: SampleJob(count=1), label="Sample")
    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    vary_seed: bool = option(
        False, label="A seed each", help="Every cell has another seed; else all have the same."
    )


@dataclass(frozen=True)
class Cell:
    """A place of a grid: column and row, what is sampled there, and its network calls if known."""

    column: int
    row: int
    job: SampleJob
    calls: int | None


@dataclass(frozen=True)
class Laid(Event):
    """The cells there are, before the first is made: how many are kept from before, and what the
    rest is predicted to cost, from a short probe; nan where only the run can tell."""

    cells: tuple[Cell, ...]
    kept: int
    calls: int
    seconds: float


@dataclass(frozen=True)
class CellDone(Event):
    """A cell is made: uint8 pictures (N, H, W, C), what it cost, and its run if it was made just now."""

    column: int
    row: int
    pictures: np.ndarray
    calls: int
    seconds: float
    trajectory: Trajectory | None = None


@dataclass(frozen=True)
class First:
    """A message to a GridJob: make these cells, (column, row), in this order, before the others."""

    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class GridJob:
    """Makes the cells of a grid. A cell that fails says so and leaves the others."""

    recipe: GridRecipe
    folder: Path | None = None  # where cells are kept; the studio's own if None
    bound: int = BOUND  # bytes that may be kept there

    def cells(self) -> list[Cell]:
        """The cells in the order in which they are made. Raises SpecError for an axis that means
        nothing, or too many cells."""
        recipe = self.recipe
        spec.check(recipe)
        count = len(recipe.x.values) * len(recipe.y.values)
        if count > MOST_CELLS:
            raise SpecError(
                f"A grid of {count} cells is too large; {MOST_CELLS} is the most.",
                "Give an axis fewer values.",
            )
        cells = []
        for row, down in enumerate(recipe.y.values):
            for column, across in enumerate(recipe.x.values):
                job = self._job(across, down)
                if recipe.vary_seed:
                    # By what the cell is of, so that it stays the same when a person moves it.
                    place = _rank(recipe.y, row) * len(recipe.x.values) + _rank(recipe.x, column)
                    job = replace(job, seed=(job.seed + place * job.count) % 2**32)
                cost = job.sampler.cost()
                cells.append(Cell(column, row, job, None if cost is None else cost))
        return sorted(cells, key=lambda c: (c.calls is None, c.calls or 0))

    def run(self, context: Context) -> Generator[Event, Any, None]:
        """Events of a run: Laid, then those of each cell with its CellDone, at last Finished with the
        sheet of all. Takes First."""
        waiting, store = self.cells(), Cells(self.folder, self.bound)
        cells, stamps = tuple(waiting), {c.job.model: _stamp(context, c.job) for c in waiting}
        kept = {
            (c.column, c.row): CellDone(c.column, c.row, made.pictures, made.calls, made.seconds)
            for c in cells
            if (made := store.find(c.job, stamps[c.job.model])) is not None
        }
        waiting = [c for c in waiting if (c.column, c.row) not in kept]
        _put_first((yield Note("Measuring what a network call takes")), waiting)
        _put_first((yield self._laid(context, cells, waiting)), waiting)
        for cell in cells:
            if (found := kept.get((cell.column, cell.row))) is not None:
                _put_first((yield found), waiting)
        done, begun, full = dict(kept), time.perf_counter(), ""
        while waiting:
            cell = waiting.pop(0)
            try:
                made = yield from self._make(context, cell, waiting)
            except StudioError as error:
                where = f"{said(self.recipe.x, cell.column)} {said(self.recipe.y, cell.row)}"
                told = f"{where.strip()}: {error.message}"
                message = yield Failed(told, error.hint, lane=self.lane(cell))
            else:
                done[cell.column, cell.row] = made
                problem = _keep(store, cell, made, stamps[cell.job.model])
                message = yield made
                if problem != full:
                    full = problem
                    _put_first((yield Note(f"Cells are made, but not kept: {problem}")), waiting)
            _put_first(message, waiting)
        if not done:
            raise SpecError("No cell of the grid could be made.", "See what each of them said.")
        calls = sum(d.calls for d in done.values())
        sheet = self.sheet(done)
        yield Finished(sheet[None], spec.to_dict(self.recipe), calls, time.perf_counter() - begun)

    # -- cells ----------------------------------------------------------------------------------------

    def lane(self, cell: Cell) -> int:
        """The lane of the events of a cell: its place, row by row."""
        return cell.row * len(self.recipe.x.values) + cell.column

    def _job(self, across: str, down: str) -> SampleJob:
        job = self.recipe.base
        given = [(self.recipe.x.name, across), (self.recipe.y.name, down)]
        given = [(_WORDS.get(name, name), value) for name, value in given if name]
        # The sampler first, because the other setting may be one of its own.
        for name, value in sorted(given, key=lambda g: g[0] != "sampler"):
            if name == "sampler":
                steps = getattr(job.sampler, "steps", None)
                job = replace(job, sampler=choose.sampler(value, steps)[0])
            elif name in _OF_SAMPLE:
                job = spec.replace(job, name, value)
            elif name == "steps":
                job = replace(job, sampler=choose.sampler(job.sampler, int(_whole(value)))[0])
            else:
                job = replace(job, sampler=choose.with_options(job.sampler, {name: value}))
        spec.check(job)
        return job

    def _make(
        self, context: Context, cell: Cell, waiting: list[Cell]
    ) -> Generator[Event, Any, CellDone]:
        lane = self.lane(cell)
        finished, trajectory = None, None
        for event in cell.job.run(context):
            if isinstance(event, Finished):
                finished = event
                continue
            if isinstance(event, Begun):
                trajectory = event.trajectory
            if isinstance(event, Begun | Picture | Progress):
                _put_first((yield replace(event, lane=lane)), waiting)
        assert finished is not None
        return CellDone(
            cell.column,
            cell.row,
            finished.pictures,
            finished.calls,
            finished.seconds,
            trajectory,
            lane=lane,
        )

    def _laid(self, context: Context, cells: tuple[Cell, ...], waiting: list[Cell]) -> Laid:
        """What the waiting cells will cost, by the time of two calls of each model's network."""
        each: dict[tuple[str, int], float] = {}
        seconds, calls = 0.0, 0
        for cell in waiting:
            key = cell.job.model, cell.job.count
            if key not in each:
                try:
                    each[key] = _seconds_a_call(context, cell.job)
                except StudioError:
                    each[key] = math.nan  # said when its cell is made
            calls += cell.calls or 0
            seconds += math.nan if cell.calls is None else cell.calls * each[key]
        return Laid(cells, len(cells) - len(waiting), calls, seconds)

    # -- the whole ------------------------------------------------------------------------------------

    def sheet(self, done: dict[tuple[int, int], CellDone], legend: bool = True) -> np.ndarray:
        """All cells as one picture (H, W, 3), with what they are at its edges."""
        recipe = self.recipe
        tiles = {k: _tile(d.pictures) for k, d in done.items()}
        height = max(t.shape[0] for t in tiles.values())
        width = max(t.shape[1] for t in tiles.values())
        columns, rows = len(recipe.x.values), len(recipe.y.values)
        font = ImageFont.load_default(14)
        across = [said(recipe.x, i) for i in range(columns)] if legend else [""] * columns
        down = [said(recipe.y, i) for i in range(rows)] if legend else [""] * rows
        left = round(max(font.getlength(text) for text in down)) + 16 if any(down) else 0
        top = 28 if any(across) else 0
        width = max(width, *(round(font.getlength(text)) + 12 for text in across))
        page = Image.new("RGB", (left + columns * (width + 6), top + rows * (height + 6)), "white")
        draw = ImageDraw.Draw(page)
        for i, text in enumerate(across):
            place = left + i * (width + 6) + width / 2, top / 2
            draw.text(place, text, fill="#222222", font=font, anchor="mm")
        for i, text in enumerate(down):
            place = 8, top + i * (height + 6) + height / 2
            draw.text(place, text, fill="#222222", font=font, anchor="lm")
        for (column, row), tile in tiles.items():
            place = (
                left + column * (width + 6) + (width - tile.shape[1]) // 2,
                top + row * (height + 6),
            )
            page.paste(Image.fromarray(tile), place)
        return np.asarray(page)

    def table(self, done: dict[tuple[int, int], CellDone]) -> list[dict[str, Any]]:
        """A row a cell: what it is and what it cost."""
        recipe, found = self.recipe, []
        for cell in sorted(self.cells(), key=lambda c: (c.row, c.column)):
            made = done.get((cell.column, cell.row))
            row: dict[str, Any] = {}
            for axis, place in ((recipe.x, cell.column), (recipe.y, cell.row)):
                if axis.name:
                    row[axis.name] = axis.values[place]
            row |= {"seed": cell.job.seed, "calls": made.calls if made else None}
            row["seconds"] = round(made.seconds, 3) if made else None
            found.append(row)
        return found

    def table_csv(self, done: dict[tuple[int, int], CellDone]) -> str:
        """The table as comma-separated values."""
        rows, text = self.table(done), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def write(
    job: GridJob,
    done: dict[tuple[int, int], CellDone],
    path: Path,
    legend: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the cells that are done as a PNG with the recipe, and their table as a .csv and a .json
    beside it; what the .json says, with `facts` about the run among it.

    Raises SaveError if a file cannot be written.
    """
    recipe = spec.to_dict(job.recipe)
    files = [path, path.with_suffix(".csv"), path.with_suffix(".json")]
    data: dict[str, Any] = {"files": [str(file) for file in files], "cells": job.table(done)}
    data |= {**(facts or {}), "recipe": recipe}
    recipes.write_png(path, job.sheet(done, legend), recipe)
    for file, text in zip(files[1:], (job.table_csv(done), json.dumps(data, indent=1))):
        with atomic(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return data


def said(axis: Axis, place: int) -> str:
    """What a legend says of a value of an axis; empty for the axis that changes nothing."""
    if not axis.name:
        return ""
    value = axis.values[place]
    return value if axis.name in ("sampler", "model", "checkpoint") else f"{axis.name} {value}"


def arranged(recipe: GridRecipe, columns: Sequence[int], rows: Sequence[int]) -> GridRecipe:
    """The same grid, with the values of its axes in another order: what stands now in these places."""
    x, y = recipe.x, recipe.y
    return replace(
        recipe,
        x=replace(x, values=tuple(x.values[i] for i in columns)),
        y=replace(y, values=tuple(y.values[i] for i in rows)),
    )


def _rank(axis: Axis, place: int) -> int:
    """The place of a value among all of its axis, in an order that nobody changes."""
    return sorted(range(len(axis.values)), key=lambda i: axis.values[i]).index(place)


def _stamp(context: Context, job: SampleJob) -> float:
    """When the model's files were last written; 0 if it is not there, which is said when it is asked."""
    try:
        return context.shelf.changed(job.model, job.model_preset)
    except StudioError:
        return 0.0


def _keep(store: Cells, cell: Cell, made: CellDone, stamp: float) -> str:
    """Keep a cell; why it could not be kept, else empty."""
    try:
        store.keep(cell.job, Made(made.pictures, made.calls, made.seconds), stamp)
    except SaveError as error:
        return str(error)
    return ""


def _put_first(message: Any, waiting: list[Cell]) -> None:
    """Put the cells that a First names before the others; any other message changes nothing."""
    if isinstance(message, First):
        order = {place: number for number, place in enumerate(message.places)}
        waiting.sort(key=lambda c: order.get((c.column, c.row), len(order)))


def _tile(stack: np.ndarray) -> np.ndarray:
    sheet = recipes.enlarged(pictures.grid(stack), 128)
    return np.broadcast_to(sheet, (*sheet.shape[:2], 3)).copy()


def _whole(value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise SpecError(f"Steps are a whole number, not {value}.") from error


def _seconds_a_call(context: Context, job: SampleJob) -> float:
    """How long the network takes for the pictures of a job: the quicker of two calls, after one more."""
    score = job.score(context)
    x = Noise.of(0, job.count, score.shape, score.sde, device=context.device).start()
    score = job.condition(score, context.device).guide(score)
    t, times = x.new_full((len(x),), 0.5), []
    with torch.no_grad():
        for _ in range(3):
            begun = time.perf_counter()
            float(score(x, t).sum())  # waits for the device
            times.append(time.perf_counter() - begun)
    return min(times[1:])
