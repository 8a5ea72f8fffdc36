"""The page of grids as a person uses it, with an exact model."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import qasync
from conftest import gaussian_score
from PIL import Image
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QMouseEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QComboBox, QLineEdit

from studio import recipes, spec
from studio.diffusion.sde import VPSDE
from studio.engine.engine import Engine
from studio.engine.grid import Axis, GridRecipe
from studio.engine.jobs import Setting
from studio.errors import CheckpointError, SpecError
from studio.settings import Settings
from studio.ui import theme
from studio.ui.collector import Collector
from studio.ui.compare.grid_page import GridPage
from studio.ui.session import Session
from studio.weights.model import ModelInfo

pytestmark = pytest.mark.usefixtures("one_thread")

Work = Callable[[GridPage], Coroutine[Any, Any, None]]


class ExactShelf:
    """Two models of 8×8 pictures with exact scores; the file of one is damaged, as its load tells."""

    def entries(self) -> list[Any]:
        info = ModelInfo(size=8)
        return [SimpleNamespace(name=name, info=info) for name in ("exact", "broken")]

    def load(self, name: str, *_: object, **__: object) -> Any:
        if name == "broken":
            raise CheckpointError("The file of broken is damaged.", "Get it again.")
        return gaussian_score(VPSDE(), 0.5, (3, 8, 8))

    def changed(self, name: str, *_: object) -> float:
        return 0.0


@pytest.fixture
def with_page(qapp: Any) -> Callable[[Work], None]:
    """Runs a coroutine function with the page shown, then ends its engine."""

    async def whole(work: Work) -> None:
        collector = Collector(lambda: False)
        shelf = ExactShelf()
        engine = Engine(Setting(shelf, "cpu"))
        session = Session(engine, shelf, Settings(model="exact"))  # type: ignore[arg-type]
        page, bugs = GridPage(session), []
        page.bug.connect(bugs.append)
        set_axes(page, Axis("steps", ("4", "2")), Axis("sampler", ("dpm2m", "ancestral")))
        page.resize(1100, 700)
        page.show()
        try:
            async with asyncio.timeout(120):
                await work(page)
        finally:
            page.hide()
            await engine.close()
            page.deleteLater()
            collector.stop()
        assert not bugs, bugs

    def run(work: Work) -> None:
        with qasync.QEventLoop(qapp) as loop:
            loop.run_until_complete(whole(work))

    return run


def set_axes(page: GridPage, across: Axis, down: Axis) -> None:
    page.form.across.set_axis(across)
    page.form.down.set_axis(down)
    page.form._edited()


def said_by(page: GridPage) -> list[str]:
    said: list[str] = []
    page.status.connect(said.append)
    return said


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def made(page: GridPage) -> None:
    QTest.mouseClick(page.verbs.run, Qt.MouseButton.LeftButton)
    await until(lambda: not page.runner.busy)


async def held_after(page: GridPage, cells: int) -> None:
    """Run step by step until so many cells are done and the next one is begun."""
    page.start()
    while not (page._grid and len(page._grid.done) >= cells and page._grid.making):
        page.runner.step()
        await asyncio.sleep(0.003)


# -- what is set ----------------------------------------------------------------------------------


def test_the_cost_is_told_before_and_compared_with_the_truth_after(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        assert "4 cells" in page.cost.text()
        calls = sum(cell.calls or 0 for cell in page.job().cells())
        assert f"{calls} network calls" in page.cost.text()
        await made(page)
        assert f"Took {calls} network calls" in page.cost.text()
        assert f"predicted were {calls}" in page.cost.text()
        for place in page.view.places:
            cell = page.view.cell(place)
            assert cell.state == "done"
            assert "calls" in cell.words
            assert (cell.image.width(), cell.image.height()) == (8, 8)

    with_page(work)


NONSENSE = [
    (Axis("steps", ("4", "many")), "whole number"),
    (Axis("steps", ("4", "4")), "twice"),
    (Axis("sampler", ("dpm2m", "dmp2m")), "dmp2m"),
    (Axis("model", ("exact", "gone")), "gone"),
    (Axis("class", ("cat",)), "without classes"),
    (Axis("guidance", ("1", "2")), "without classes"),
    (Axis("snr", ("0.1", "0.2")), "Predictor"),
    (Axis("steps", tuple(str(i) for i in range(1, 1000))), "400"),
]


def test_what_makes_no_sense_is_said_beside_its_axis(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        for axis, wrong in NONSENSE:
            set_axes(page, axis, Axis())
            assert wrong in page.form.across.problem.text(), axis
            assert not page.form.across.problem.isHidden()
            assert page.form.down.problem.isHidden()
            assert not page.verbs.run.isEnabled()
            set_axes(page, Axis("steps", ("4", "2")), Axis())
            assert page.form.across.problem.isHidden()
            assert page.verbs.run.isEnabled()
        set_axes(page, Axis("steps", ("4",)), Axis("steps", ("2",)))
        assert "same setting" in page.form.down.problem.text()

    with_page(work)


def test_ten_thousand_cells_are_refused_before_a_run(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        many = tuple(str(i) for i in range(1, 101))
        set_axes(page, Axis("steps", many), Axis("seed", many))
        assert "10000 cells is too large" in page.form.why_not
        assert not page.verbs.run.isEnabled()
        assert "10000" in page.form.across.problem.text() + page.form.down.problem.text()

    with_page(work)


def test_values_are_checked_as_one_types_and_kept_when_one_comes_back(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        page.form.across.values.clear()
        QTest.keyClicks(page.form.across.values, "3, ")
        assert page.recipe().x == Axis("steps", ("3",))
        QTest.keyClicks(page.form.across.values, "x")
        assert not page.form.across.problem.isHidden()
        combo = page.form.across.setting
        for name in ("seed", "steps"):
            combo.setCurrentIndex(combo.findData(name))
            combo.activated.emit(combo.currentIndex())
            if name == "seed":
                assert page.recipe().x == Axis("seed", ("0", "1", "2", "3"))
        assert page.form.across.values.text() == "3, x"

    with_page(work)


def test_a_seed_each_has_no_meaning_where_an_axis_is_the_seed(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        page.form.vary.setChecked(True)
        assert page.recipe().vary_seed
        set_axes(page, Axis("seed", ("4", "5")), Axis())
        assert not page.recipe().vary_seed
        assert not page.form.vary.isEnabled()

    with_page(work)


def test_the_recipe_of_a_grid_can_be_opened_again(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        page.form.vary.setChecked(True)
        page.form.panel.seed.set_value(7)
        wanted = page.recipe()
        set_axes(page, Axis("seed", ("4", "5")), Axis())
        page.form.vary.setChecked(False)
        page.open_recipe(json.loads(json.dumps(spec.to_dict(wanted))))
        assert page.recipe() == wanted
        gone = spec.to_dict(spec.replace(wanted, "base.model", "gone"))
        with pytest.raises(SpecError, match="gone"):
            page.open_recipe(gone)

    with_page(work)


# -- making it ------------------------------------------------------------------------------------


def test_a_cell_that_waits_can_be_made_next(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        set_axes(page, Axis("steps", ("2", "10", "12", "14")), Axis())
        await held_after(page, 1)
        assert page.view.cell((3, 0)).words == "No. 2"
        assert page.view.cell((2, 0)).words == "Next"
        point = page.view.rect_of((3, 0)).center().toPoint()
        QTest.mouseDClick(page.view.viewport(), Qt.MouseButton.LeftButton, pos=point)
        assert page.view.cell((3, 0)).words == "Next"
        assert page.view.cell((2, 0)).words == "No. 2"
        page.runner.resume()
        await until(lambda: page._grid and page._grid.making == (3, 0))
        assert (2, 0) not in page._grid.done  # type: ignore[union-attr]
        await until(lambda: not page.runner.busy)
        assert set(page._grid.done) == set(page.view.places)  # type: ignore[union-attr]

    with_page(work)


def test_a_stopped_grid_goes_on_where_it_was(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        said = said_by(page)
        set_axes(page, Axis("steps", ("2", "10", "12")), Axis())
        await held_after(page, 1)
        page.runner.stop()
        await until(lambda: not page.runner.busy)
        assert any("1 of 3 cells are kept" in text for text in said)
        assert page.view.cell((1, 0)).image.isNull()
        assert page.save_button.isEnabled()
        await made(page)
        assert any("Going on: 1 of 3" in text for text in said)
        assert all(page.view.cell(place).state == "done" for place in page.view.places)

    with_page(work)


def test_a_cell_that_fails_says_why_in_its_place(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        set_axes(page, Axis("steps", ("2",)), Axis("model", ("broken", "exact")))
        await made(page)
        assert page.view.cell((0, 0)).state == "failed"
        assert page.view.cell((0, 0)).words == "The file of broken is damaged."
        assert page.view.cell((0, 1)).state == "done"
        set_axes(page, Axis("steps", ("2",)), Axis("model", ("broken",)))
        await made(page)
        assert "No cell" in page.errors.text

    with_page(work)


# -- looking at it --------------------------------------------------------------------------------


def test_a_chosen_cell_can_be_looked_back_in(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        await made(page)
        assert not page.timeline.isVisible()
        point = page.view.rect_of((0, 1)).center().toPoint()
        QTest.mouseClick(page.view.viewport(), Qt.MouseButton.LeftButton, pos=point)
        assert page.told.text() == "steps 4 · ancestral"
        assert page.timeline.isVisible()
        assert len(page.timeline.times) >= 4
        end = page.view.cell((0, 1)).image.copy()
        page.timeline.setFocus()
        QTest.keyClick(page.timeline, Qt.Key.Key_Home)
        assert "step 1" in page.about.text()
        assert page.view.cell((0, 1)).image != end
        page.view.choose((1, 1))  # leaving it, the cell shows its end again
        assert page.view.cell((0, 1)).image == end

    with_page(work)


def test_a_cell_kept_from_before_says_that_its_way_is_not_there(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        await made(page)
        page._grid = None  # as in a window opened later
        await made(page)
        page.view.choose((0, 0))
        assert "kept from before" in page.about.text()
        assert not page.timeline.isVisible()
        assert page.cost.text() == "4 cells were kept from before."

    with_page(work)


def test_keys_walk_the_cells_and_zoom(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        await made(page)
        page.view.setFocus()
        for key in (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Down, Qt.Key.Key_Right):
            QTest.keyClick(page.view, key)
        assert page.view.current == (1, 1)
        for _ in range(4):
            QTest.keyClick(page.view, Qt.Key.Key_Plus)
        assert page.view.zoom > 2
        view = page.view.viewport().rect().toRectF()
        QTest.keyClick(page.view, Qt.Key.Key_Home)
        assert page.view.current == (0, 0)
        assert view.contains(page.view.rect_of((0, 0)).center())
        page.view.zoom_to_fit()
        assert all(view.contains(page.view.rect_of(place)) for place in page.view.places)

    with_page(work)


def test_legends_stay_in_sight_when_the_table_is_scrolled(with_page: Any, grab: Any) -> None:
    async def work(page: GridPage) -> None:
        await made(page)
        page.view.zoom_by(3)
        page.view.verticalScrollBar().setValue(0)
        before = grab(page.view.viewport())[:20]
        page.view.verticalScrollBar().setValue(page.view.verticalScrollBar().maximum())
        after = grab(page.view.viewport())[:20]
        np.testing.assert_array_equal(before, after)
        at = page.view._layout
        assert page.view.place_at(QPointF(at.left + 20, at.top - 4)) is None

    with_page(work)


# -- saving it ------------------------------------------------------------------------------------


def test_a_grid_is_saved_with_its_recipe_and_tables(with_page: Any, tmp_path: Path) -> None:
    async def work(page: GridPage) -> None:
        await made(page)
        sizes = []
        for legend in (True, False):
            page.save_to(tmp_path / "mine", legend)
            await until(lambda: not page.saver.busy)
            with Image.open(tmp_path / "mine.png") as image:
                sizes.append(image.size)
        assert sizes[0][1] > sizes[1][1]
        told = recipes.read_recipe(tmp_path / "mine.png")
        assert told is not None
        assert spec.from_dict(GridRecipe, told) == page.recipe()
        rows = list(csv.DictReader((tmp_path / "mine.csv").read_text().splitlines()))
        data = json.loads((tmp_path / "mine.json").read_text())
        assert len(rows) == len(data["cells"]) == 4
        assert data["calls"] == sum(int(row["calls"]) for row in rows)

    with_page(work)


def test_a_place_that_cannot_be_written_is_said(with_page: Any, tmp_path: Path) -> None:
    async def work(page: GridPage) -> None:
        await made(page)
        (tmp_path / "file").write_text("")
        page.save_to(tmp_path / "file" / "grid.png")
        await until(lambda: not page.saver.busy)
        assert page.errors.text

    with_page(work)


# -- for everyone ---------------------------------------------------------------------------------


def test_every_part_has_a_name_and_both_appearances_draw(with_page: Any, qapp: Any) -> None:
    async def work(page: GridPage) -> None:
        await made(page)
        page.view.choose((0, 0))
        for kind in (QComboBox, QLineEdit, QAbstractButton):
            for widget in page.findChildren(kind):
                if widget.isVisibleTo(page) and not widget.objectName().startswith("qt_"):
                    text = widget.text() if isinstance(widget, QAbstractButton) else ""
                    assert widget.accessibleName() or text, widget.objectName()
        await asyncio.sleep(0.35)
        assert page.view.accessibleName() == "Grid of 2 by 2 cells"
        assert "dpm2m" in page.view.accessibleDescription()
        for scheme in ("dark", "light"):
            theme.apply(qapp, scheme)
            page.grab()

    with_page(work)


def test_without_a_model_the_reason_is_said(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        page.session.shelf.entries = lambda: []  # type: ignore[method-assign]
        page.session.look_again()
        assert "no model" in page.cost.text()
        assert not page.verbs.run.isEnabled()

    with_page(work)


# -- another order --------------------------------------------------------------------------------


def middle(page: GridPage, place: tuple[int, int]) -> QPoint:
    return page.view.rect_of(place).center().toPoint()


def drag(page: GridPage, start: QPoint, end: QPoint) -> None:
    there, left = page.view.viewport(), Qt.MouseButton.LeftButton
    QTest.mousePress(there, left, pos=start)
    for share in (0.3, 0.7, 1.0):
        step = start + (end - start) * share
        moved = QMouseEvent(
            QEvent.Type.MouseMove, QPointF(step), QPointF(step), left, left, Qt.KeyboardModifier(0)
        )
        page.view.mouseMoveEvent(moved)
    QTest.mouseRelease(there, left, pos=end)


def pictures_of(page: GridPage, tmp_path: Path) -> np.ndarray:
    job, cells = page._grid.shown_job, page._grid.shown_cells()
    return job.sheet(cells, legend=False)


def test_columns_are_dragged_into_another_order_with_their_values(
    with_page: Any, tmp_path: Path
) -> None:
    async def work(page: GridPage) -> None:
        set_axes(page, Axis("steps", ("4", "2", "3")), Axis("sampler", ("dpm2m", "ancestral")))
        await made(page)
        first, last = middle(page, (0, 0)), middle(page, (2, 0))
        whole = pictures_of(page, tmp_path)
        drag(page, QPoint(first.x(), 8), QPoint(last.x() + 5, 8))
        assert page.view._columns == [1, 2, 0]
        assert page.form.across.axis().values == ("2", "3", "4")
        assert middle(page, (0, 0)).x() == last.x()
        assert page.view.place_at(QPointF(last)) == (0, 0)
        moved, wide = pictures_of(page, tmp_path), whole.shape[1] // 3
        assert (moved[:, 2 * wide :] == whole[:, :wide]).all()
        page.save_to(tmp_path / "g.png")
        await until(lambda: (tmp_path / "g.json").exists() and not page.saver.busy)
        rows = list(csv.DictReader((tmp_path / "g.csv").read_text().splitlines()))
        assert [r["steps"] for r in rows[:3]] == ["2", "3", "4"]
        assert recipes.read_recipe(tmp_path / "g.png")["x"]["values"] == ["2", "3", "4"]
        # Run lays the grid out so, with every cell and its way kept.
        await made(page)
        assert page._grid.laid.kept == 6
        assert set(page._grid.trajectories) == set(page.view.places)
        assert (pictures_of(page, tmp_path) == moved).all()

    with_page(work)


def test_rows_and_columns_go_by_keys(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        await made(page)
        page.view.choose((1, 0))
        page.view.setFocus()
        control = Qt.KeyboardModifier.ControlModifier
        QTest.keyClick(page.view, Qt.Key.Key_Left, control)
        QTest.keyClick(page.view, Qt.Key.Key_Down, control)
        assert page.form.across.axis().values == ("2", "4")
        assert page.form.down.axis().values == ("ancestral", "dpm2m")
        QTest.keyClick(page.view, Qt.Key.Key_Left, control)  # it is at the border already
        assert page.form.across.axis().values == ("2", "4")
        QTest.keyClick(page.view, Qt.Key.Key_Up)
        assert page.view.current == (1, 1)

    with_page(work)


def test_cells_that_wait_are_dragged_before_others_and_go_by_keys(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        set_axes(page, Axis("steps", ("2", "3", "4", "5")), Axis("sampler", ("dpm2m", "em")))
        page._grid = None
        await held_after(page, 1)
        order = list(page._grid.order)
        assert len(order) == 6
        drag(page, middle(page, order[4]), middle(page, order[1]))
        assert page._grid.order == [order[0], order[4], *order[1:4], order[5]]
        assert page.view.cell(order[4]).words == "No. 2"
        page.view.choose(order[4])
        QTest.keyClick(page.view, Qt.Key.Key_PageUp)
        assert page._grid.order[0] == order[4]
        QTest.keyClick(page.view, Qt.Key.Key_PageDown)
        wanted = list(page._grid.order)
        page.runner.resume()
        await until(lambda: not page.runner.busy)
        assert [p for p in page._grid.done if p in wanted] == wanted

    with_page(work)


# -- what is kept ---------------------------------------------------------------------------------


def test_kept_cells_are_told_bounded_and_let_go_of(with_page: Any, home: Path) -> None:
    async def work(page: GridPage) -> None:
        await made(page)
        await until(lambda: "4 cells" in page.use.told.text())
        assert "500" in page.use.limit_button.text()
        page.use.limit(10**8)
        await until(lambda: "100" in page.use.limit_button.text())
        assert Settings.load().grids_bytes == 10**8
        assert page.job().bound == 10**8
        page.use.clear()
        await until(lambda: "No cells" in page.use.told.text())
        assert not list((home / "grids").rglob("*.png"))

    with_page(work)


def test_a_grid_waits_in_the_queue(with_page: Any) -> None:
    async def work(page: GridPage) -> None:
        queue = page.session.queue
        running = queue.put({"kind": "grid", "x": 3})
        assert page.errors.text  # one that makes no sense is said, and the next one may run
        assert queue.running is None
        assert running
        page.add_to_queue()
        await until(lambda: not page.runner.busy)
        assert len(page._grid.done) == 4
        assert queue.running is None

    with_page(work)
