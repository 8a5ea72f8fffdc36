"""The tools on the flow as a person uses them, with an exact model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import qasync
from conftest import gaussian_score
from PIL import Image
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QAbstractSlider, QLineEdit

from studio.diffusion.sde import VPSDE
from studio.engine.engine import Engine
from studio.engine.jobs import Setting
from studio.settings import Settings
from studio.ui import theme
from studio.ui.collector import Collector
from studio.ui.flow import FlowTools
from studio.ui.flow.meter import Exactness, ramp
from studio.ui.flow.plot import bins
from studio.ui.flow.tool import Tolerance, duration
from studio.ui.session import Session
from studio.weights.model import ModelInfo

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 8, 8)
Work = Callable[[FlowTools], Coroutine[Any, Any, None]]


class ExactShelf:
    """One model whose density is known: values N(0, 0.5²), each for itself."""

    def __init__(self) -> None:
        self.score: Any = gaussian_score(VPSDE(), 0.5, SHAPE)
        self.info: Any = ModelInfo(size=8)

    def entries(self) -> list[Any]:
        return [SimpleNamespace(name="exact", info=self.info)]

    def load(self, *_: object, **__: object) -> Any:
        return self.score


@pytest.fixture
def shelf() -> ExactShelf:
    return ExactShelf()


@pytest.fixture
def with_tools(qapp: Any, shelf: ExactShelf) -> Iterator[Callable[[Work], None]]:
    """Runs a coroutine function with the page shown, then ends its engine."""

    async def whole(work: Work) -> None:
        # As in the window: widgets in cycles are not to be collected in the worker.
        collector = Collector(lambda: False)
        engine = Engine(Setting(shelf, "cpu"))
        session = Session(engine, shelf, Settings(model="exact"))  # type: ignore[arg-type]
        page, bugs = FlowTools(session), []
        page.bug.connect(bugs.append)
        page.meter.form.set_value(Exactness(tolerance=0.05, probes=2))
        page.round_trip.form.set_value(Tolerance(1e-3))
        page.resize(1100, 700)
        page.show()
        try:
            async with asyncio.timeout(120):
                await work(page)
                settled = "idle", "running"  # an estimate may just be on its way out
                await until(lambda: all(r.state in settled for r in page.runners()))
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


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def gaussian_pictures(count: int, spread: float, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(127.5, spread, (count, 8, 8, 3))
    return values.clip(0, 255).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Pictures like the model's own, and pictures that are far too loud; one file is broken."""
    made = tmp_path / "own", tmp_path / "loud"
    for folder, spread in zip(made, (64, 110)):
        folder.mkdir()
        for i, picture in enumerate(gaussian_pictures(4, spread, int(spread))):
            Image.fromarray(picture).save(folder / f"{i}.png")
    (made[0] / "broken.png").write_text("no picture")
    return made


# -- the meter ------------------------------------------------------------------------------------


def test_two_folders_are_measured_and_told_apart(with_tools: Any, folders: Any) -> None:
    async def work(page: FlowTools) -> None:
        meter = page.meter
        for well, folder in zip(meter.wells, folders):
            well.open(folder)
        await until(lambda: all(well.given for well in meter.wells))
        assert "of each the centred square" in meter.wells[0].accessibleDescription()
        await until(lambda: meter._cost)
        assert "network calls" in meter.cost.text()
        QTest.mouseClick(meter.run_button, Qt.MouseButton.LeftButton)
        await until(lambda: not meter.runner.busy)
        assert "own: " in meter.answer.text()
        assert "(4 of 4)" in meter.answer.text()
        assert "Told apart: in 100 of 100 pairs the picture of own" in meter.details.text()
        assert "broken.png is not a picture" in meter.details.text()
        # The strangest first: those of the loud folder need the most bits.
        first = meter.ranking.item(0)
        assert "loud" in first.toolTip()
        figures = [float(meter.ranking.item(i).text()[:4]) for i in range(8)]
        assert figures == sorted(figures, reverse=True)
        assert len(meter.table().splitlines()) == 9
        assert "expected were" in meter.cost.text()

    with_tools(work)


def test_a_picture_from_elsewhere_is_measured_at_once(with_tools: Any) -> None:
    async def work(page: FlowTools) -> None:
        page.choose(page.round_trip)
        page.measure(gaussian_pictures(1, 64)[0].repeat(3, 0), "from the canvas")
        await until(lambda: "bits" in page.meter.answer.text() and not page.meter.runner.busy)
        assert page.tool is page.meter
        # 8 bits less what a Gaussian of half the range saves: log2(256) - log2(64 √(2πe) …).
        bits, error = (float(v) for v in page.meter.answer.text().split(" bits")[0].split(" ± "))
        assert 6 < bits < 9
        assert error < 0.05
        assert page.meter.panes.views[1].count == 1
        assert not page.meter.ranking.isVisible()

    with_tools(work)


def test_picking_a_picture_shows_its_map(with_tools: Any, folders: Any) -> None:
    async def work(page: FlowTools) -> None:
        meter = page.meter
        meter.open(folders[0])
        await until(lambda: meter.wells[0].given)
        page.run_or_stop()
        await until(lambda: not meter.runner.busy)
        meter.ranking.setFocus()
        meter.ranking.setCurrentRow(2)
        lane, index = meter._picked
        name = Path(meter.wells[lane].given.names[index]).name
        assert meter.panes.note(0) == name
        assert "nats per value" in meter.panes.note(1)

    with_tools(work)


def test_a_model_of_fixed_levels_is_refused_before_the_run(
    with_tools: Any, shelf: ExactShelf
) -> None:
    from studio.diffusion.score import Published

    shelf.info = replace(shelf.info, output=Published(label="level"))

    async def work(page: FlowTools) -> None:
        assert not page.meter.run_button.isEnabled()
        assert "fixed set of noise levels" in page.meter.cost.text()

    with_tools(work)


def test_stopping_keeps_what_was_measured(with_tools: Any, shelf: ExactShelf) -> None:
    score, calls = shelf.score, []

    def counted(x: Any, t: Any) -> Any:
        calls.append(t)
        return score.fn(x, t)

    shelf.score = replace(score, fn=counted)

    async def work(page: FlowTools) -> None:
        meter = page.meter
        meter.wells[0].put(gaussian_pictures(16, 64), "many")
        await until(lambda: meter.wells[0].given)
        page.run_or_stop()
        await until(lambda: meter._found[0].done.any())
        done = int(meter._found[0].done.sum())
        page.stop()
        asked = len(calls)
        await until(lambda: not meter.runner.busy)
        assert len(calls) <= asked + 1
        assert 8 <= done <= int(meter._found[0].done.sum()) <= 16
        assert meter.ranking.count() >= 8
        assert meter.run_button.text() == "Measure"

    with_tools(work)


def test_a_bad_file_is_one_sentence_beside_the_button(with_tools: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no picture")

    async def work(page: FlowTools) -> None:
        for tool, well in (
            (page.meter, page.meter.wells[0]),
            (page.round_trip, page.round_trip.well),
            (page.interpolation, page.interpolation.wells[1]),
        ):
            page.choose(tool)
            well.open(tmp_path / "bad.png")
            await until(lambda: page.errors.text)
            assert "bad.png is not a picture." in page.errors.text
            assert well.given is None
            assert not tool.run_button.isEnabled()

    with_tools(work)


def test_a_file_can_be_dropped(with_tools: Any, folders: Any) -> None:
    async def work(page: FlowTools) -> None:
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(folders[0] / "1.png"))])
        place, copy = QPointF(9, 9), Qt.DropAction.CopyAction
        keys, button = Qt.KeyboardModifier.NoModifier, Qt.MouseButton.LeftButton
        page.round_trip.well.dropEvent(QDropEvent(place, copy, data, button, keys))
        await until(lambda: page.round_trip.well.given)
        assert page.round_trip.well.name == "1.png"

    with_tools(work)


# -- to noise and back ----------------------------------------------------------------------------


def test_a_picture_goes_to_noise_and_back_and_can_be_cooled(
    with_tools: Any, tmp_path: Path
) -> None:
    picture = gaussian_pictures(1, 64)[0]

    async def work(page: FlowTools) -> None:
        trip = page.round_trip
        page.choose(trip)
        trip.put(picture, "mine")
        await until(lambda: trip.well.given)
        page.run_or_stop()
        await until(lambda: not trip.runner.busy)
        assert np.array_equal(trip.shown_picture("back"), picture)
        assert "It comes back with an error of 0.0" in trip.answer.text()
        assert "deviation" in trip.panes.note(1)
        trip.temperature.slider.setValue(10)
        await until(lambda: "temperature 0.5" in trip.answer.text() and not trip.runner.busy)
        half = 127.5 + (picture.astype(float) - 127.5) / 2
        np.testing.assert_allclose(trip.shown_picture("back"), half, atol=1)
        for which in ("picture", "noise", "back", "difference"):
            assert trip.shown_picture(which).shape == (8, 8, 3)
        trip.save_to(tmp_path / "back.png", lambda p: p.write_bytes(b"done"))
        await until(lambda: (tmp_path / "back.png").exists())

    with_tools(work)


def test_another_picture_forgets_the_noise_of_the_first(with_tools: Any) -> None:
    async def work(page: FlowTools) -> None:
        trip = page.round_trip
        page.choose(trip)
        trip.put(gaussian_pictures(1, 64)[0], "mine")
        await until(lambda: trip.well.given)
        page.run_or_stop()
        await until(lambda: trip.latent is not None)
        trip.put(gaussian_pictures(1, 64, 5)[0], "another")
        await until(lambda: trip.well.given and not trip.runner.busy)
        assert trip.latent is None
        assert trip.answer.text() == ""
        assert trip.panes.views[2].count == 0

    with_tools(work)


# -- ways -----------------------------------------------------------------------------------------


def test_a_way_between_two_pictures_is_walked_without_computing(
    with_tools: Any, tmp_path: Path
) -> None:
    ends = gaussian_pictures(2, 64)

    async def work(page: FlowTools) -> None:
        way = page.interpolation
        page.choose(way)
        way.form.set_value(replace(way.form.value(), count=5))
        for well, end, name in zip(way.wells, ends, "ab"):
            well.put(end, name)
        await until(lambda: all(well.given for well in way.wells))
        page.run_or_stop()
        await until(lambda: not way.runner.busy)
        way.slider.setValue(0)
        assert np.abs(way.view.picture(0).astype(int) - ends[0]).max() <= 1
        spent = []
        for place in (1, 2, 3, 4):
            begun = time.thread_time()
            way.slider.setValue(place)
            way.view.repaint()
            spent.append(time.thread_time() - begun)
        assert np.median(spent) < 1 / 60
        assert np.abs(way.view.picture(0).astype(int) - ends[1]).max() <= 1
        way.swap()
        assert not way.runner.busy
        assert way.slider.value() == 0
        assert way.wells[0].name == "b"
        assert np.abs(way.view.picture(0).astype(int) - ends[1]).max() <= 1
        way.write_film(tmp_path / "way.gif")
        await until(lambda: not way.saver.busy)
        with Image.open(tmp_path / "way.gif") as film:
            assert film.n_frames == 8

    with_tools(work)


def test_a_way_between_seeds_needs_no_picture(with_tools: Any) -> None:
    async def work(page: FlowTools) -> None:
        way = page.interpolation
        page.choose(way)
        assert not way.run_button.isEnabled()
        way.kinds.button(1).click()
        assert way.run_button.isEnabled()
        way.form.set_value(replace(way.form.value(), count=3, tolerance=0.05))
        page.run_or_stop()
        await until(lambda: len(way.frames) == 3 and not way.runner.busy)
        warm = way.stack()
        way.temperature.slider.setValue(0)
        await until(lambda: len(way.frames) == 3 and np.ptp(way.stack()) == 0)
        assert np.ptp(warm) > 0

    with_tools(work)


# -- the page -------------------------------------------------------------------------------------


def test_everything_has_a_name_and_an_explanation(with_tools: Any) -> None:
    async def work(page: FlowTools) -> None:
        assert len(page.runners()) == 9 + 5
        for kind in (QAbstractButton, QAbstractSlider, QLineEdit):
            for widget in page.findChildren(kind):
                if widget.objectName().startswith("qt_") or "QScroll" in type(widget).__name__:
                    continue
                if kind is QAbstractButton:
                    assert widget.text() or widget.accessibleName(), widget
                elif not isinstance(widget.parent(), _spin_boxes()):
                    assert widget.accessibleName(), widget.objectName()
        names = [button.objectName() for button in page._chooser.buttons()]
        assert names == ["flow_likelihoodMeter", "flow_roundTrip", "flow_interpolation"]

    with_tools(work)


def _spin_boxes() -> Any:
    from PySide6.QtWidgets import QAbstractSpinBox

    return QAbstractSpinBox


def test_it_is_drawn_in_the_colours_of_the_moment(with_tools: Any, grab: Any, qapp: Any) -> None:
    async def work(page: FlowTools) -> None:
        theme.apply(qapp, "light")
        light = grab(page.meter.wells[0]).astype(int)
        try:
            theme.apply(qapp, "dark")
            assert np.abs(grab(page.meter.wells[0]) - light).mean() > 50
        finally:
            theme.apply(qapp, "light")

    with_tools(work)


def test_bars_stand_at_round_numbers_and_hold_all() -> None:
    edges = bins([np.array([2.13, 3.9]), np.array([9.99])])
    assert edges[0] <= 2.13
    assert edges[-1] > 9.99
    assert len(edges) < 40
    np.testing.assert_allclose(np.diff(edges), 0.5)
    assert len(bins([np.array([3.0])])) >= 2


def test_the_ramp_rises_in_brightness() -> None:
    colours = ramp(np.arange(256, dtype=np.uint8)[None])[0].astype(float)
    brightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness) >= -0.3).all()
    assert brightness[-1] - brightness[0] > 180


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (7.26, "7.3 s"), (42, "42 s"), (130, "2 min"), (4300, "1 h 12 min")],
)
def test_durations_are_told_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
