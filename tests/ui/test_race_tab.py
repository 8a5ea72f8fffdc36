"""The Compare mode: lanes that are set, raced, looked back at, kept and made again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qasync
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest

from studio import recipes, spec
from studio.diffusion.catalog import SAMPLERS
from studio.engine.engine import Engine
from studio.engine.events import Begun, Event, Failed, Finished, Note, Picture, Progress, Standing
from studio.engine.jobs import Setting
from studio.engine.race import Lane, RaceRecipe
from studio.engine.trajectory import Frame, Kept, Trajectory
from studio.errors import SpecError
from studio.settings import Settings
from studio.ui.collector import Collector
from studio.ui.compare.lane_editor import LaneEditor
from studio.ui.compare.playback import Playback, RaceTimeline
from studio.ui.session import Session
from studio.ui.tabs.race import RaceTab
from studio.weights.shelf import Entry, Shelf


@pytest.fixture
def with_tab(
    qapp: Any, home: Path, tiny_checkpoint: Path
) -> Callable[[Callable[[RaceTab], Coroutine[Any, Any, None]]], None]:
    """Runs a coroutine function with the page open on a shelf with two copies of a tiny model."""
    qapp.setQuitOnLastWindowClosed(False)
    (home / "models").mkdir(parents=True)
    shutil.copytree(tiny_checkpoint, home / "models" / "tiny")
    shutil.copytree(tiny_checkpoint, home / "models" / "twin")

    async def whole(work: Callable[[RaceTab], Coroutine[Any, Any, None]]) -> None:
        shelf = Shelf()
        engine = Engine(Setting(shelf, "cpu", 60.0))
        tab = RaceTab(Session(engine, shelf, Settings(model="tiny")))
        bugs: list[BaseException] = []
        tab.bug.connect(bugs.append)
        collector = Collector(lambda: False, tab)
        tab.resize(1200, 800)
        tab.show()
        tab.shown()
        try:
            async with asyncio.timeout(120):
                await work(tab)
        finally:
            for runner in tab.runners():
                runner.stop()
            await engine.close()
            await asyncio.gather(*(runner.finished() for runner in tab.runners()))
            collector.stop()
            tab.close()
            tab.deleteLater()
        assert not bugs

    def run(work: Callable[[RaceTab], Coroutine[Any, Any, None]]) -> None:
        with qasync.QEventLoop(qapp) as loop:
            loop.run_until_complete(whole(work))

    return run


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def set_samplers(tab: RaceTab, *samplers: Any) -> None:
    while len(tab.editor.rows) < len(samplers):
        tab.editor.add_button.click()
    for row, sampler in zip(tab.editor.rows, samplers, strict=True):
        row.set_lane(replace(row.lane(), sampler=sampler))
    tab.editor.count.setValue(2)


async def raced(tab: RaceTab, *samplers: Any) -> None:
    set_samplers(tab, *samplers)
    tab.verbs.run_or_stop()
    await until(lambda: not tab.runner.busy)


def states(tab: RaceTab) -> list[str]:
    return [tab.view.state(i) for i in range(len(tab.editor.rows))]


# -- the race -------------------------------------------------------------------------------------


def test_a_race_shows_pictures_scores_and_distances_of_every_lane(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        await raced(tab, SAMPLERS["pc"](steps=6), SAMPLERS["rk45"](), SAMPLERS["em"](steps=9))
        assert states(tab) == ["finished"] * 3
        assert [tab.view.lane_view(i).count for i in range(3)] == [2, 2, 2]
        scores = tab.board.scores()
        assert [s.standing.calls for s in scores][::2] == [13, 10]
        assert scores[1].standing.accepted
        assert all(tab.board.distances.points(pair) for pair in ((0, 1), (0, 2), (1, 2)))
        assert tab.verbs.run.text() == "Run"
        assert tab.errors.text == ""

    with_tab(work)


def test_the_pictures_of_a_lane_are_those_its_recipe_makes(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        await raced(tab, SAMPLERS["em"](steps=5), SAMPLERS["em"](steps=5))
        one, two = (tab.view.lane_view(i).picture(1) for i in range(2))
        assert (one == two).all()  # one start, one path
        assert (one == tab._race.results[0].pictures[1]).all()

    with_tab(work)


def test_stopping_one_lane_leaves_the_others(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        set_samplers(tab, SAMPLERS["em"](steps=800), SAMPLERS["em"](steps=80))
        tab.verbs.run_or_stop()
        await until(lambda: tab.view.frame(0) is not None)
        tab.view.header(0).stop.click()
        await until(lambda: not tab.runner.busy)
        assert states(tab) == ["stopped", "finished"]

    with_tab(work)


def test_one_lane_and_then_all_are_finished_with_another_sampler(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        set_samplers(tab, SAMPLERS["em"](steps=9000), SAMPLERS["em"](steps=9000))
        tab.verbs.run_or_stop()
        await until(lambda: tab.view.frame(1) is not None)
        tab.view.header(1).finish.menu().actions()[0].trigger()
        assert "→" in tab.view.header(1).title.text()
        tab.verbs.finish.click()
        await until(lambda: not tab.runner.busy)
        assert states(tab) == ["finished", "finished"]

    with_tab(work)


def test_stop_ends_every_lane_and_keeps_what_was_reached(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        set_samplers(tab, SAMPLERS["em"](steps=9000), SAMPLERS["em"](steps=9000))
        tab.verbs.run_or_stop()
        await until(lambda: tab.view.frame(1) is not None)
        tab.verbs.pause_or_go()
        assert tab.runner.state == "paused"
        tab.verbs.run_or_stop()
        await until(lambda: not tab.runner.busy)
        assert states(tab) == ["stopped", "stopped"]
        assert tab.view.lane_view(0).count == 2

    with_tab(work)


@dataclass(frozen=True)
class OneFails:
    """A race in which the first lane falls and the second comes to its end."""

    def run(self, context: Any) -> Generator[Event, Any, None]:
        yield Note("Loading the model")
        flat = [np.zeros((2, 8, 8, c), np.uint8) for c in (3, 3, 1, 1)]
        for lane in range(2):
            yield Begun(Trajectory(-8.0, 8.0), lane=lane)
            yield Picture(Frame(-8.0, 1, 1, *flat), lane=lane)
        yield Failed("The solver diverged.", "Take more steps.", lane=0)
        yield Standing("failed", 1, 0.1, lane=0)
        yield Progress(1, 1, 5, 8.0, 0.2, lane=1)
        yield Standing("finished", 5, 0.2, lane=1)
        yield Finished(flat[0], {}, 5, 0.2, lane=1)


def test_a_lane_that_fails_says_so_on_its_own_line_while_the_others_go_on(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        tab._begin(tab.editor.recipe())
        tab.runner.start(OneFails)
        await until(lambda: not tab.runner.busy)
        assert states(tab) == ["failed", "finished"]
        assert "The solver diverged. Take more steps." in tab.view.header(0).title.text()
        assert tab.errors.text == ""

    with_tab(work)


def test_what_keeps_a_race_from_beginning_is_told_beside_run(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        row = tab.editor.rows[1]
        row.set_lane(replace(row.lane(), model="gone"))
        tab.verbs.run_or_stop()
        await until(lambda: not tab.runner.busy)
        assert "gone" in tab.errors.text
        assert tab.verbs.run.text() == "Run"

    with_tab(work)


# -- densities ------------------------------------------------------------------------------------


def test_lanes_on_the_flow_have_densities_and_the_others_say_why_not(
    with_tab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "race.png"
    monkeypatch.setattr("studio.ui.keeping.QFileDialog.getSaveFileName", lambda *_: (str(path), ""))

    async def work(tab: RaceTab) -> None:
        set_samplers(tab, SAMPLERS["em"](steps=9), SAMPLERS["dpm2m"](steps=12))
        tab.bar.set_view("density")
        tab.verbs.run_or_stop()
        await until(lambda: not tab.runner.busy)
        await until(lambda: tab.view.seen(1) is not None and not tab.densities.runner.busy)
        assert tab.view.seen(0) is None
        assert "draws noise" in tab.view.lane_view(0)._empty[1]
        times = tab.timeline.times
        tab.timeline._scrub(times[len(times) // 2])
        middle = tab.densities.maps.scale(tab.view.frame(1).log_snr)
        assert middle[1] < tab.densities.maps.scale(tab._race.trajectories[1].high)[1]
        tab.save("picture")
        await until(path.exists)
        # Another race begins without.
        tab.verbs.run_or_stop()
        assert tab.view.seen(1) is None
        await until(lambda: not tab.runner.busy)

    with_tab(work)


def test_a_race_that_is_held_is_measured_as_far_as_it_is(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        set_samplers(tab, SAMPLERS["dpm2m"](steps=900), SAMPLERS["dpm2m"](steps=900))
        tab.bar.set_view("density")
        tab.verbs.run_or_stop()
        await until(lambda: tab._race.trajectories and len(tab._race.trajectories[0].states) > 3)
        assert "held" in tab.densities.words[0]
        tab.verbs.pause_or_go()
        await until(lambda: tab.view.seen(0) is not None)
        tab.runner.stop()

    with_tab(work)


# -- looking back ---------------------------------------------------------------------------------


def test_scrubbing_shows_every_lane_at_the_same_noise(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        await raced(tab, SAMPLERS["em"](steps=24), SAMPLERS["em"](steps=40))
        times = tab.timeline.times
        assert len(times) > 20
        middle = times[len(times) // 2]
        tab.timeline.scrubbed.emit(middle)
        shown = [tab.view.frame(i).log_snr for i in range(2)]
        assert all(abs(snr - middle) < (times[-1] - times[0]) / 25 for snr in shown)
        assert "log-SNR" in tab.playback.told.text()
        tab.timeline.live_requested.emit()
        assert [tab.view.frame(i).log_snr for i in range(2)] == [times[-1]] * 2

    with_tab(work)


def test_the_film_of_the_timeline_is_of_one_lane(qapp: Any) -> None:
    timeline = RaceTimeline()
    lanes = [Trajectory(-8.0, 8.0), Trajectory(-8.0, 8.0)]
    for lane, trajectory in enumerate(lanes):
        timeline.begin_lane(lane, trajectory)
    for place in range(-8, 8, 2):
        for lane, ahead in ((1, 1.0), (0, 0.0)):
            seen = {"denoised": np.full((1, 4, 4, 3), 50 + 100 * lane, np.uint8)}
            lanes[lane].add(Kept.of((place + ahead, 1, 1, 0.0), seen))
            timeline.go(lane, place + ahead)
    assert len(timeline.times) == 16
    reached = [
        image for when, image in zip(timeline.times, timeline._thumbs, strict=True) if when <= 6
    ]
    assert {image.pixelColor(1, 1).red() for image in reached} == {50}


def test_playing_goes_over_what_is_kept_and_begins_again(qapp: Any) -> None:
    timeline = RaceTimeline()
    player = Playback(timeline)
    player.play_or_stop()
    assert not player.playing  # there is nothing to play
    timeline.begin(0.0, 10.0)
    for when in range(11):
        timeline.add(float(when), np.zeros((4, 4, 3), np.uint8))
    seen: list[float] = []
    player.moved.connect(seen.append)
    player.walk(-2)
    assert seen == [8.0]
    player.speed.setCurrentIndex(player.speed.count() - 1)
    player.play_or_stop()
    for _ in range(500):
        if 0.0 in seen[3:]:
            break
        QTest.qWait(10)
    assert player.playing
    assert 10.0 in seen
    assert 0.0 in seen[seen.index(10.0) :]
    player.stop()


# -- recipes --------------------------------------------------------------------------------------


def test_a_saved_race_opens_with_the_recipe_that_made_it(
    with_tab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "race.png"

    async def work(tab: RaceTab) -> None:
        tab.editor.seed.set_value(77)
        tab.editor.seed.lock.setChecked(True)
        await raced(tab, SAMPLERS["em"](steps=5), SAMPLERS["heun"](steps=3))
        monkeypatch.setattr(tab, "_ask_path", lambda *_: path)
        tab.save("picture")
        await until(lambda: not tab.exports.busy)
        recipe = recipes.read_recipe(path)
        assert recipe is not None
        assert recipe["kind"] == "race"
        made = tab.editor.recipe()
        assert spec.from_dict(RaceRecipe, recipe) == made
        assert tab.changes(recipe) == []
        tab.editor.rows[1].sampler.set_value(SAMPLERS["heun"](steps=8))
        tab.editor.add_lane()
        lines = "\n".join(tab.changes(recipe))
        assert "Lane B" in lines
        assert "8 → 3" in lines
        assert "Lane C" in lines
        tab.open_recipe(recipe)
        assert tab.editor.recipe() == made

    with_tab(work)


def test_a_film_of_the_race_is_saved(
    with_tab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    path = tmp_path / "race.webp"

    async def work(tab: RaceTab) -> None:
        await raced(tab, SAMPLERS["em"](steps=4), SAMPLERS["em"](steps=5))
        monkeypatch.setattr(tab, "_ask_path", lambda *_: path)
        tab.save("film")
        await until(lambda: not tab.exports.busy)
        with Image.open(path) as film:
            # What does not differ from the frame before is shown longer instead.
            assert 3 <= film.n_frames <= len(tab.timeline.times)
        assert tab.errors.text == ""

    with_tab(work)


def test_a_race_that_was_finished_otherwise_is_saved_without_a_recipe(
    with_tab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(tab: RaceTab) -> None:
        set_samplers(tab, SAMPLERS["em"](steps=9000), SAMPLERS["em"](steps=9000))
        tab.verbs.run_or_stop()
        await until(lambda: tab.view.frame(1) is not None)
        tab.verbs.finish.click()
        await until(lambda: not tab.runner.busy)
        path = tmp_path / "race.png"
        monkeypatch.setattr(tab, "_ask_path", lambda *_: path)
        tab.save("picture")
        await until(lambda: not tab.exports.busy)
        assert recipes.read_recipe(path) is None

    with_tab(work)


NO_RACES: list[dict[str, Any]] = [
    {"lanes": [{}]},
    {"lanes": [{}] * 6},
    {"sync": "moon"},
    {"count": 10_000},
    {"lanes": [{"sampler": "nobody"}, {}]},
    {"surprise": 1},
    {"lanes": 3},
]


def test_a_recipe_that_is_no_race_changes_nothing(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        before = tab.editor.recipe()
        for change in NO_RACES:
            with pytest.raises(SpecError):
                tab.open_recipe(spec.to_dict(before) | change)
            assert tab.editor.recipe() == before

    with_tab(work)


# -- the editor -----------------------------------------------------------------------------------


def test_lanes_come_and_go_between_two_and_four(with_tab: Any) -> None:
    async def work(tab: RaceTab) -> None:
        editor = tab.editor
        assert not editor.rows[0].remove.isEnabled()
        for _ in range(4):
            QTest.mouseClick(editor.add_button, Qt.MouseButton.LeftButton)
        assert len(editor.rows) == 4
        assert not editor.add_button.isEnabled()
        assert len({row.lane().sampler for row in editor.rows}) == 4
        editor.rows[1].remove.click()
        assert len(editor.rows) == 3
        assert [row.chip.lane for row in editor.rows] == [0, 1, 2]
        assert editor.add_button.isEnabled()
        assert tab.view.lane_view(2) is not None

    with_tab(work)


class _Info:
    """What the editor asks of a ModelInfo."""

    def __init__(self, size: int, colours: int = 3) -> None:
        self.size, self.colours, self.shape = size, colours, (colours, size, size)
        self.classes: tuple[str, ...] = ()


def entry(name: str, size: int = 32, colours: int = 3, problem: str = "") -> Any:
    class Known(Entry):
        @property
        def info(self) -> Any:
            return None if problem else _Info(size, colours)

    return Known(name, Path(name), None, problem)


@pytest.fixture
def editor(qapp: Any) -> LaneEditor:
    made = LaneEditor()
    broken = entry("broken", problem="Its weights are gone.")
    made.set_entries([entry("a"), entry("b"), entry("large", 64), entry("grey", 32, 1), broken])
    made.set_model("a")
    return made


def offered(editor: LaneEditor, row: int) -> dict[str, str]:
    """Every model in the list of a lane: why it cannot be chosen, or nothing."""
    combo = editor.rows[row].model
    return {
        combo.itemText(i): ""
        if combo.model().item(i).isEnabled()
        else combo.itemData(i, Qt.ItemDataRole.ToolTipRole)
        for i in range(combo.count())
    }


def test_only_models_that_make_the_same_pictures_can_race(editor: LaneEditor) -> None:
    assert set(name for name, why in offered(editor, 0).items() if why) == {"broken"}
    second = offered(editor, 1)
    assert second["b"] == ""
    assert "64 px" in second["large"]
    assert "32 px" in second["large"]
    assert "grey" in second["grey"]
    assert second["broken"] == "Its weights are gone."


def test_the_other_lanes_follow_a_first_lane_of_another_size(editor: LaneEditor) -> None:
    combo = editor.rows[0].model
    combo.setCurrentIndex(combo.findData("large"))
    combo.activated.emit(combo.currentIndex())
    assert [lane.model for lane in editor.lanes()] == ["large", "large"]
    assert offered(editor, 1)["large"] == ""


def test_the_chosen_model_replaces_the_one_before_and_no_other(editor: LaneEditor) -> None:
    editor.rows[1].set_lane(replace(editor.rows[1].lane(), model="b"))
    editor.set_model("large", "a")
    assert [lane.model for lane in editor.lanes()] == ["large", "large"]
    editor.set_model("a", "large")
    editor.rows[1].set_lane(replace(editor.rows[1].lane(), model="b"))
    editor.set_model("b", "a")
    editor.set_model("a", "b")
    assert [lane.model for lane in editor.lanes()] == ["a", "a"]


def choose_terms(editor: LaneEditor, terms: str) -> None:
    editor.terms.setCurrentIndex(editor.terms.findData(terms))
    editor.terms.activated.emit(editor.terms.currentIndex())


def test_same_calls_gives_every_lane_as_many_as_it_can_use(editor: LaneEditor) -> None:
    editor.show_recipe(RaceRecipe(lanes=tuple(Lane("a", SAMPLERS[n]()) for n in ("pc", "em"))))
    choose_terms(editor, "calls")
    editor.amount.setValue(101)
    costs = [lane.sampler.cost() for lane in editor.lanes()]
    assert costs == [101, 101]
    assert "202" in editor.cost.text()
    editor.rows[0].sampler.changed.emit(None)
    assert editor.terms.currentData() == "own"


def test_same_time_is_tried_out_first_and_then_known(editor: LaneEditor) -> None:
    asked: list[bool] = []
    editor.probe_wanted.connect(lambda: asked.append(True))
    editor.show_recipe(RaceRecipe(lanes=(Lane("a", SAMPLERS["em"]()), Lane("b", SAMPLERS["em"]()))))
    choose_terms(editor, "time")
    assert asked == [True]
    editor.set_speeds((0.1, 0.2))
    one, two = (lane.sampler.cost() for lane in editor.lanes())
    assert (one, two) == (200, 100)  # in 20 seconds
    editor.amount.setValue(10)
    assert asked == [True]
    assert editor.lanes()[0].sampler.cost() == 100


def test_paper_settings_are_those_of_the_paper(editor: LaneEditor) -> None:
    choose_terms(editor, "paper")
    pc, flow = editor.lanes()
    assert pc.sampler.steps == 1000
    assert flow.sampler.rtol == flow.sampler.atol == 1e-5
    assert "2,001" in editor.cost.text() or "2001" in editor.cost.text()
    assert "B" in editor.cost.text()


def test_everything_in_the_mode_has_a_name_for_those_who_cannot_see_it(with_tab: Any) -> None:
    from PySide6.QtWidgets import QAbstractButton, QComboBox, QSlider, QSpinBox, QWidget

    async def work(tab: RaceTab) -> None:
        tab.editor.add_lane()
        for kind in (QAbstractButton, QComboBox, QSlider, QSpinBox):
            for widget in tab.findChildren(kind):
                if widget.objectName().startswith("qt_"):
                    continue
                named = widget.accessibleName() or getattr(widget, "text", lambda: "")()
                assert named, f"{widget.objectName()} {widget}"
        for name in ("racePage", "compareView", "addLane", "run", "pause", "timeline"):
            page = tab if name == "racePage" else tab.findChild(QWidget, name)
            assert page is not None
            assert page.objectName() == name

    with_tab(work)
