"""Grids of samples: which cells there are, what they cost, and going on where a grid broke off."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import gaussian_score

from studio import spec
from studio.diffusion.sde import VPSDE
from studio.engine import grid
from studio.engine.events import Failed, Finished, Note
from studio.engine.grid import Axis, CellDone, First, GridJob, GridRecipe, Laid
from studio.engine.grid_cells import BOUND, Cells, Used
from studio.engine.jobs import SampleJob, Setting
from studio.errors import CheckpointError, SaveError, SpecError

pytestmark = pytest.mark.usefixtures("one_thread")


class Shelf:
    """One model of grey 8×8 pictures, whose score is exact."""

    def load(self, name, *_):
        if name != "exact":
            raise CheckpointError(f"There is no model {name}.")
        return gaussian_score(VPSDE(), 0.4, (1, 8, 8))

    written = 1.5

    def changed(self, name, *_):
        self.load(name)
        return self.written


BASE = SampleJob("exact", count=2)
RECIPE = GridRecipe(base=BASE, x=Axis("steps", ("4", "2", "8")), y=Axis("sampler", ("dpm2m", "pc")))


def events_of(recipe, folder, messages=()):
    run = GridJob(recipe, folder).run(Setting(Shelf(), "cpu", rate=0))
    found, waiting = [next(run)], list(messages)
    while True:
        try:
            send = waiting.pop(0) if waiting and isinstance(found[-1], CellDone) else None
            found.append(run.send(send))
        except StopIteration:
            return found


def done_of(events):
    return [(e.column, e.row) for e in events if isinstance(e, CellDone)]


def test_an_axis_is_written_as_a_name_and_values():
    assert Axis.of("steps=5, 10,20") == Axis("steps", ("5", "10", "20"))
    with pytest.raises(SpecError):
        Axis.of("steps")
    with pytest.raises(SpecError):
        Axis.of("steps=")


def test_cheap_cells_come_first(tmp_path):
    cells = GridJob(RECIPE, tmp_path).cells()
    calls = [cell.calls for cell in cells]
    assert calls == sorted(calls)
    assert calls[0] == 3  # two steps of dpm2m, and the last denoising
    assert {(c.column, c.row) for c in cells} == {(i, j) for i in range(3) for j in range(2)}


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_an_option_of_the_sampler_can_cross_the_sampler(tmp_path, order):
    x, y = Axis("snr", ("0.1", "0.3")), Axis("sampler", ("pc",))
    x, y = (x, y) if order == "xy" else (y, x)
    cells = GridJob(GridRecipe(base=BASE, x=x, y=y), tmp_path).cells()
    assert sorted(c.job.sampler.corrector.snr for c in cells) == [0.1, 0.3]


@pytest.mark.parametrize(
    ("name", "values", "read"),
    [
        ("seed", ("1", "7"), lambda job: job.seed),
        ("tolerance", ("0.1", "0.01"), lambda job: job.sampler.rtol),
        ("guidance", ("1", "2.5"), lambda job: job.guidance),
        ("model", ("a", "b"), lambda job: job.model),
        ("class", ("cat", "dog"), lambda job: job.classes),
    ],
)
def test_axes_go_over_all_that_shapes_a_sample(tmp_path, name, values, read):
    base = replace(BASE, sampler=spec.from_dict(type(BASE.sampler).__mro__[2], {"kind": "rk45"}))
    cells = GridJob(GridRecipe(base=base, x=Axis(name, values)), tmp_path).cells()
    found = [str(read(c.job)) for c in sorted(cells, key=lambda c: c.column)]
    assert [float(f) if f[0].isdigit() else f for f in found] == [
        float(v) if v[0].isdigit() else v for v in values
    ]


@pytest.mark.parametrize(
    "axis", [Axis("steps", ("some",)), Axis("snr", ("0.2",)), Axis("colour", ("red",))]
)
def test_an_axis_that_means_nothing_is_refused(tmp_path, axis):
    with pytest.raises(SpecError):
        GridJob(GridRecipe(base=BASE, x=axis), tmp_path).cells()


def test_ten_thousand_cells_are_refused_before_any_is_made(tmp_path):
    many = Axis("seed", tuple(str(i) for i in range(100)))
    with pytest.raises(SpecError, match="10000 cells is too large"):
        events_of(GridRecipe(base=BASE, x=many, y=replace(many, name="steps")), tmp_path)


def test_each_cell_is_what_its_sample_alone_would_be(tmp_path):
    events = events_of(RECIPE, tmp_path)
    cells = {(c.column, c.row): c for c in GridJob(RECIPE, tmp_path).cells()}
    for event in events:
        if isinstance(event, CellDone):
            job = cells[event.column, event.row].job
            *_, alone = job.run(Setting(Shelf(), "cpu", rate=0))
            np.testing.assert_array_equal(event.pictures, alone.pictures)


def test_the_cost_is_told_before_and_comes_true(tmp_path):
    events = events_of(RECIPE, tmp_path)
    laid = next(e for e in events if isinstance(e, Laid))
    finished = next(e for e in events if isinstance(e, Finished))
    assert laid.calls == finished.calls
    assert laid.seconds > 0
    assert laid.kept == 0


def test_a_grid_goes_on_where_it_was_stopped(tmp_path):
    run = GridJob(RECIPE, tmp_path).run(Setting(Shelf(), "cpu", rate=0))
    first = next(e for e in run if isinstance(e, CellDone))
    run.close()
    events = events_of(RECIPE, tmp_path)
    laid = next(e for e in events if isinstance(e, Laid))
    assert laid.kept == 1
    again = next(e for e in events if isinstance(e, CellDone))
    assert (again.column, again.row) == (first.column, first.row)
    assert again.trajectory is None
    np.testing.assert_array_equal(again.pictures, first.pictures)


def test_a_kept_cell_that_is_damaged_or_of_another_recipe_is_made_anew(tmp_path):
    events_of(RECIPE, tmp_path)
    first, second, third, *_ = sorted(tmp_path.glob("*.png"))
    first.write_bytes(b"no picture")
    second.write_bytes(third.read_bytes())
    events = events_of(RECIPE, tmp_path)
    assert next(e for e in events if isinstance(e, Laid)).kept == 4
    assert len(done_of(events)) == 6


def test_cells_of_a_model_that_was_trained_again_are_made_anew(tmp_path, monkeypatch):
    events_of(RECIPE, tmp_path)
    monkeypatch.setattr(Shelf, "written", 2.5)
    assert next(e for e in events_of(RECIPE, tmp_path) if isinstance(e, Laid)).kept == 0


def test_cells_are_found_again_in_another_order_and_by_a_larger_grid(tmp_path):
    before = {e.pictures.tobytes() for e in events_of(RECIPE, tmp_path) if isinstance(e, CellDone)}
    other = grid.arranged(RECIPE, (2, 0, 1), (1, 0))
    assert other.x.values == ("8", "4", "2")
    events = events_of(other, tmp_path)
    assert next(e for e in events if isinstance(e, Laid)).kept == 6
    assert {e.pictures.tobytes() for e in events if isinstance(e, CellDone)} == before
    larger = replace(RECIPE, x=Axis("steps", ("4", "2", "8", "3")))
    assert next(e for e in events_of(larger, tmp_path) if isinstance(e, Laid)).kept == 6


def test_a_cell_with_a_seed_of_its_own_keeps_it_when_it_is_moved(tmp_path):
    varied = replace(RECIPE, vary_seed=True)
    moved = grid.arranged(varied, (1, 2, 0), (1, 0))
    told = [
        {(c.job.sampler, c.job.seed) for c in GridJob(recipe, tmp_path).cells()}
        for recipe in (varied, moved)
    ]
    assert told[0] == told[1]


# -- what is kept ----------------------------------------------------------------------------------


def aged(folder, seconds):
    """As if all in the folder had been used so long ago."""
    for path in folder.rglob("*.png"):
        told = path.stat().st_mtime - seconds
        os.utime(path, (told, told))


def test_the_cells_used_least_lately_make_room_and_those_of_the_grid_stay(tmp_path):
    events_of(RECIPE, tmp_path)
    each = Cells(tmp_path).use().bytes / 6
    aged(tmp_path, 100)
    shared = replace(RECIPE, x=Axis("steps", ("4", "16")))
    list(GridJob(shared, tmp_path, bound=int(6.5 * each)).run(Setting(Shelf(), "cpu", rate=0)))
    assert Cells(tmp_path).use().cells == 6
    assert next(e for e in events_of(shared, tmp_path) if isinstance(e, Laid)).kept == 4
    # A grid larger than the bound is kept whole, until the next one.
    list(GridJob(RECIPE, tmp_path, bound=1).run(Setting(Shelf(), "cpu", rate=0)))
    assert Cells(tmp_path).use().cells >= 6


def test_use_is_told_and_all_can_be_cleared(tmp_path):
    assert Cells(tmp_path / "none").use() == Used(0, 0, BOUND)
    events_of(RECIPE, tmp_path)
    old = tmp_path / "0123456789abcdef"
    old.mkdir()
    (old / "0-0.png").write_bytes(b"x" * 1000)
    used = Cells(tmp_path, 10**6).use()
    assert (used.cells, used.bound) == (7, 10**6)
    Cells(tmp_path).clear()
    assert Cells(tmp_path).use().cells == 0


def test_a_full_disk_is_said_once_and_the_grid_goes_on(tmp_path, monkeypatch):
    def full(*_):
        raise SaveError("The disk is full.", "Free some space.")

    monkeypatch.setattr("studio.recipes.write_png", full)
    events = events_of(RECIPE, tmp_path)
    said = [e.text for e in events if isinstance(e, Note) and "not kept" in e.text]
    assert len(said) == 1
    assert "disk is full" in said[0]
    assert len(done_of(events)) == 6
    assert isinstance(events[-1], Finished)


def test_cells_that_a_person_wants_first_come_first(tmp_path):
    events = events_of(RECIPE, tmp_path, [First(((2, 1),))])
    assert done_of(events)[1] == (2, 1)


def test_cells_are_made_in_the_order_that_is_asked_for(tmp_path):
    events = events_of(RECIPE, tmp_path, [First(((2, 1), (0, 1), (2, 0)))])
    assert done_of(events)[1:4] == [(2, 1), (0, 1), (2, 0)]


def test_a_cell_that_fails_says_so_and_leaves_the_others(tmp_path):
    recipe = GridRecipe(base=BASE, x=Axis("model", ("exact", "gone")))
    events = events_of(recipe, tmp_path)
    failed = [e for e in events if isinstance(e, Failed)]
    assert len(failed) == 1
    assert "gone" in failed[0].message
    assert done_of(events) == [(0, 0)]


def test_no_cell_at_all_is_an_error(tmp_path):
    with pytest.raises(SpecError, match="No cell"):
        events_of(GridRecipe(base=BASE, x=Axis("model", ("gone", "lost"))), tmp_path)


def test_each_cell_can_have_a_seed_of_its_own(tmp_path):
    cells = GridJob(replace(RECIPE, vary_seed=True), tmp_path).cells()
    assert len({c.job.seed for c in cells}) == 6


def test_the_table_has_a_row_for_each_cell(tmp_path):
    job, events = GridJob(RECIPE, tmp_path), events_of(RECIPE, tmp_path)
    done = {(e.column, e.row): e for e in events if isinstance(e, CellDone)}
    rows = list(csv.DictReader(io.StringIO(job.table_csv(done))))
    assert [(r["steps"], r["sampler"]) for r in rows[:3]] == [
        ("4", "dpm2m"),
        ("2", "dpm2m"),
        ("8", "dpm2m"),
    ]
    assert all(int(r["calls"]) > 0 for r in rows)


def test_the_sheet_has_the_cells_with_and_without_a_legend(tmp_path):
    job, events = GridJob(RECIPE, tmp_path), events_of(RECIPE, tmp_path)
    done = {(e.column, e.row): e for e in events if isinstance(e, CellDone)}
    with_legend, plain = job.sheet(done), job.sheet(done, legend=False)
    assert with_legend.shape[0] > plain.shape[0]
    assert with_legend.shape[1] > plain.shape[1]
    assert plain.dtype == np.uint8


def test_the_recipe_goes_through_json(tmp_path):
    data = spec.to_dict(RECIPE)
    assert data["kind"] == "grid"
    assert spec.from_dict(GridRecipe, data) == RECIPE


def test_the_probe_looks_at_the_score_that_will_be_called():
    assert torch.isfinite(torch.tensor(grid._seconds_a_call(Setting(Shelf(), "cpu"), BASE)))
