"""The parts of the Train mode by themselves: the wall, the square, the plan, the record of a run."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QGuiApplication, QImage
from PySide6.QtTest import QTest

from studio.diffusion.sde import VESDE
from studio.engine.events import Levels
from studio.engine.sheets import Sheet
from studio.engine.train_jobs import RunFound
from studio.errors import SpecError
from studio.training.check import Checked
from studio.training.choices import Choices, Crop
from studio.training.folder import File
from studio.training.plan import PRESETS, Training, usual_rate
from studio.ui import theme
from studio.ui.train import words
from studio.ui.train.cards import EarlierRuns
from studio.ui.train.check_card import CheckCard
from studio.ui.train.chips import Chips
from studio.ui.train.collection import Collection
from studio.ui.train.crop_view import CropView
from studio.ui.train.data_panel import DataPanel
from studio.ui.train.gauge import Gauge
from studio.ui.train.levels_strip import LevelsStrip
from studio.ui.train.live_view import LiveView
from studio.ui.train.loss_plot import _reach
from studio.ui.train.plan_panel import PlanPanel, name_for
from studio.ui.train.record import Curve, Record
from studio.ui.train.sample_wall import SampleWall, paired
from studio.ui.train.time_lapse import TimeLapse
from studio.ui.train.unreadable import Unreadable
from studio.ui.train.wall import Wall
from studio.weights.shelf import Entry, Shelf
from ui.conftest import Shown


def picture(path: str, size: tuple[int, int] = (64, 48), **changes: Any) -> File:
    return File(path, "image", size=size, **changes)


def broken(path: str, reason: str = "cut short") -> File:
    return File(path, "error", reason)


def folder_of(*files: File) -> Collection:
    collection = Collection()
    collection.begin(Path("pictures"))
    collection.set_size(32)
    collection.add(files)
    return collection


MIXED = (
    picture("a.png"),
    picture("b.png", (20, 90), flags=("extreme",)),
    broken("c.png"),
    picture("d.png", twin="a.png"),
    File("Thumbs.db", "ignore", "not a picture"),
    picture("e.png", (400, 300)),
)


# -- the collection ---------------------------------------------------------------------------------


def test_every_file_is_counted_in_the_groups_it_belongs_to() -> None:
    counts = folder_of(*MIXED).counts()
    assert counts == {
        "all": 5,
        "used": 4,
        "left out": 0,
        "error": 1,
        "small": 1,
        "twins": 2,
        "extreme": 1,
        "other": 1,
    }


def test_groups_list_what_they_count() -> None:
    collection = folder_of(*MIXED)
    for group, count in collection.counts().items():
        assert len(collection.places(group)) == count, group
    twins = [collection.files[place].path for place in collection.places("twins")]
    assert twins == ["a.png", "d.png"]


def test_what_is_left_out_is_no_longer_used_and_comes_back() -> None:
    collection = folder_of(*MIXED)
    collection.exclude(["a.png", "c.png"], True)
    assert (collection.counts()["used"], collection.counts()["left out"]) == (3, 1)
    collection.exclude(["a.png"], False)
    assert collection.counts()["used"] == 4


def test_near_duplicates_are_left_out_but_for_the_first_of_them() -> None:
    collection = folder_of(*MIXED)
    collection.keep_twins(False)
    assert collection.counts()["left out"] == 1
    collection.exclude(["d.png"], True)
    assert collection.counts()["left out"] == 1  # once, not twice
    assert len(collection.places("left out")) == 1


def test_how_small_is_too_small_follows_the_model() -> None:
    collection = folder_of(*MIXED)
    collection.set_size(64)
    assert collection.counts()["small"] == 3
    assert len(collection.places("small")) == 3


def test_another_folder_forgets_the_decisions_and_another_look_keeps_them() -> None:
    collection = folder_of(*MIXED)
    collection.exclude(["a.png"], True)
    collection.begin(Path("pictures"))
    assert collection.excluded == {"a.png"}
    collection.begin(Path("others"))
    assert collection.excluded == set()


# -- the wall ---------------------------------------------------------------------------------------


def test_the_wall_asks_only_for_thumbnails_that_are_near(shown: Shown, qapp: Any) -> None:
    collection = folder_of(*(picture(f"{i:05}.png") for i in range(5000)))
    wall = shown(Wall(collection), 600, 500)
    asked: list[list[File]] = []
    wall.wanted.connect(asked.append)
    wall._want()
    first = [file.path for file in asked[-1]]
    assert first[0] == "00000.png"
    assert len(first) < 80
    wall.verticalScrollBar().setValue(wall.verticalScrollBar().maximum())
    wall._want()
    assert asked[-1][0].path > "04900.png"
    wall.set_images({file.path: QImage(8, 6, QImage.Format.Format_RGB32) for file in asked[-1]})
    before = len(asked)
    wall._want()
    assert len(asked) == before  # what is here is not asked for again


def test_a_hundred_thousand_files_do_not_stop_the_window(shown: Shown, qapp: Any) -> None:
    collection = folder_of()
    wall = shown(Wall(collection), 700, 500)
    longest = 0.0
    for batch in range(200):
        files = [picture(f"{batch:03}/{i:03}.jpg") for i in range(500)]
        begun = time.thread_time()
        collection.add(files)
        qapp.processEvents()
        longest = max(longest, time.thread_time() - begun)
    assert wall.count == 100_000
    begun = time.thread_time()
    wall.verticalScrollBar().setValue(wall.verticalScrollBar().maximum() // 2)
    qapp.processEvents()
    assert time.thread_time() - begun < 0.2
    assert longest < 0.2


def test_files_that_come_while_a_group_is_shown_join_it_only_if_they_belong(shown: Shown) -> None:
    collection = folder_of(*MIXED)
    wall = shown(Wall(collection), 600, 400)
    wall.show_group("error")
    assert wall.count == 1
    collection.add([broken("x.png"), picture("y.png")])
    assert wall.count == 2


def test_keys_on_the_wall_move_open_and_leave_out(shown: Shown) -> None:
    wall = shown(Wall(folder_of(*MIXED)), 600, 400)
    opened: list[str] = []
    out: list[list[str]] = []
    wall.opened.connect(opened.append)
    wall.exclude_requested.connect(out.append)
    wall.select("a.png")
    QTest.keyClick(wall, Qt.Key.Key_Right)
    assert wall.current() == "b.png"
    QTest.keyClick(wall, Qt.Key.Key_Return)
    QTest.keyClick(wall, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    QTest.keyClick(wall, Qt.Key.Key_Delete)
    assert opened == ["b.png"]
    assert out == [["b.png", "c.png"]]


def test_every_tile_says_what_is_known_of_its_file(shown: Shown) -> None:
    collection = folder_of(*MIXED)
    collection.exclude(["e.png"], True)
    wall = shown(Wall(collection), 600, 400)
    told = [
        wall.model().index(row, 0).data(Qt.ItemDataRole.ToolTipRole) for row in range(wall.count)
    ]
    assert "Smaller" in told[1]
    assert "Very long" in told[1]
    assert told[2] == "c.png\ncut short"
    assert "a.png" in told[3]
    assert "Left out" in told[4]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tiles_of_every_kind_can_be_seen(shown: Shown, grab: Any, qapp: Any, scheme: str) -> None:
    theme.apply(qapp, scheme)
    wall = shown(Wall(folder_of(*MIXED)), 600, 400)
    empty = grab(wall.viewport())
    image = QImage(64, 48, QImage.Format.Format_RGB32)
    image.fill(Qt.GlobalColor.magenta)
    wall.set_images({"a.png": image})
    filled = grab(wall.viewport())
    centre = wall.visualRect(wall.model().index(0, 0)).center()
    assert (filled[centre.y() - 8, centre.x()] == (255, 0, 255)).all()
    assert not (empty[centre.y() - 8, centre.x()] == (255, 0, 255)).all()


# -- the square -------------------------------------------------------------------------------------


def drawn(view: CropView, size: tuple[int, int] = (400, 200)) -> CropView:
    view.show_file(picture("a.png", size), None, True)
    view.set_image(QImage(*size, QImage.Format.Format_RGB32))
    return view


def test_without_a_crop_the_middle_square_counts(shown: Shown) -> None:
    view = drawn(shown(CropView(), 424, 300))
    box, where = view.square(), view.picture_rect()
    assert box.center() == where.center()
    assert box.width() == box.height() == where.height()
    assert view.crop is None


def test_dragging_inside_moves_the_square_and_the_border_holds_it(shown: Shown) -> None:
    view = drawn(shown(CropView(), 424, 300))
    start = view.square().center().toPoint()
    QTest.mousePress(view, Qt.MouseButton.LeftButton, pos=start)
    QTest.mouseMove(view, start + QPoint(500, 0))
    QTest.mouseRelease(view, Qt.MouseButton.LeftButton, pos=start + QPoint(500, 0))
    assert view.crop == Crop("a.png", 0.5, 0.0, 1.0)


def test_dragging_a_corner_keeps_the_corner_across_from_it(shown: Shown) -> None:
    view = drawn(shown(CropView(), 424, 300))
    before = view.square()
    corner = before.bottomRight().toPoint()
    QTest.mousePress(view, Qt.MouseButton.LeftButton, pos=corner)
    QTest.mouseMove(view, corner - QPoint(60, 60))
    QTest.mouseRelease(view, Qt.MouseButton.LeftButton, pos=corner - QPoint(60, 60))
    after = view.square()
    assert (after.topLeft() - before.topLeft()).manhattanLength() < 0.01
    assert after.width() == pytest.approx(before.width() - 60, abs=1.5)
    assert after.width() == pytest.approx(after.height())


def test_the_square_can_be_moved_and_resized_by_keys(shown: Shown) -> None:
    view = drawn(shown(CropView(), 424, 300))
    changed: list[Crop] = []
    view.changed.connect(changed.append)
    QTest.keyClick(view, Qt.Key.Key_Minus)
    QTest.keyClick(view, Qt.Key.Key_Left)
    assert view.crop is not None
    assert view.crop.side == pytest.approx(1 / 1.1)
    assert len(changed) == 2
    left, top, right, bottom = view.crop.box(400, 200)
    assert 0 <= left < right <= 400
    assert 0 <= top < bottom <= 200
    view.reset()
    assert view.crop is None


@pytest.mark.parametrize("size", [(400, 200), (30, 900), (1, 1)])
def test_no_key_brings_the_square_outside_the_picture(shown: Shown, size: tuple[int, int]) -> None:
    view = drawn(shown(CropView(), 424, 300), size)
    rng = np.random.default_rng(0)
    keys = [Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_Up, Qt.Key.Key_Down]
    keys += [Qt.Key.Key_Plus, Qt.Key.Key_Minus]
    for place in rng.integers(0, len(keys), 60):
        QTest.keyClick(view, keys[place], Qt.KeyboardModifier.ShiftModifier)
        if view.crop is not None:
            assert 0 < view.crop.side <= 1
            left, top, right, bottom = view.crop.box(*size)
            assert left >= -1e-9
            assert top >= -1e-9
            assert right <= size[0] + 1e-9
            assert bottom <= size[1] + 1e-9


# -- the folder's column ----------------------------------------------------------------------------


def test_the_verdict_says_how_much_is_enough(shown: Shown) -> None:
    collection = Collection()
    panel = shown(DataPanel(collection), 300, 700)
    for count, word in ((30, "by heart"), (120, "try"), (250, "Enough to learn")):
        collection.begin(Path("x"))
        collection.add(picture(f"{i}.png") for i in range(count))
        panel.tell()
        assert word in panel.verdict.text(), count
    assert "250 pictures" in panel.said.text()


def test_sub_folders_are_classes_only_if_every_picture_lies_in_one(shown: Shown) -> None:
    collection = folder_of(picture("cats/1.png"), picture("cats/2.png"), picture("dogs/1.png"))
    panel = shown(DataPanel(collection), 300, 700)
    panel.tell()
    assert panel.class_names() == ("cats", "dogs")
    assert "cats (2), dogs (1)" in panel.classes.text()
    collection.add([picture("loose.png")])
    panel.tell()
    assert panel.class_names() == ()
    assert "1 pictures lie in no sub-folder" in panel.classes.text()


def test_a_folder_at_home_is_shown_short_and_read_back_whole(
    shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    panel = shown(DataPanel(Collection()), 300, 700)
    panel.show_folder(tmp_path / "Pictures" / "cats")
    assert panel.line.text() == "~/Pictures/cats"
    chosen: list[Path] = []
    panel.folder_chosen.connect(chosen.append)
    QTest.keyClick(panel.line, Qt.Key.Key_Return)
    assert chosen == [tmp_path / "Pictures" / "cats"]


def test_choices_hold_what_was_set_left_out_and_cropped(shown: Shown) -> None:
    collection = folder_of(*MIXED)
    panel = shown(DataPanel(collection), 300, 700)
    panel.swatch.set_colour("#102030")
    collection.exclude(["e.png", "a.png"], True)
    collection.set_crop("b.png", Crop("b.png", 0.0, 0.2, 0.5))
    choices = panel.choices()
    assert choices.background == "#102030"
    assert choices.excluded == ("a.png", "e.png")
    assert choices.crops == (Crop("b.png", 0.0, 0.2, 0.5),)
    other = Choices(framing="random", jitter=0.25, excluded=("d.png",), background="#ff0000")
    panel.show_choices(other)
    assert panel.choices() == other


def test_unreadable_files_can_be_copied_with_their_reasons(qapp: Any) -> None:
    dialog = Unreadable([broken("a b.png", "empty"), broken("c.png")])
    assert dialog.table.rowCount() == 2
    dialog.copy()
    assert QGuiApplication.clipboard().text() == "a b.png\tempty\nc.png\tcut short"
    dialog.deleteLater()


def test_chips_offer_only_groups_that_have_files(shown: Shown) -> None:
    chips = shown(Chips(), 600, 60)
    chips.show_counts(folder_of(*MIXED).counts())
    assert chips.buttons["error"].text().endswith("1")
    assert chips.buttons["error"].isVisible()
    assert not chips.buttons["left out"].isVisible()
    chosen: list[str] = []
    chips.chosen.connect(chosen.append)
    chips.buttons["twins"].click()
    assert chosen == ["twins"]
    assert chips.group == "twins"


# -- the plan ---------------------------------------------------------------------------------------


@pytest.fixture
def entries(home: Path, tiny_checkpoint: Path) -> list[Entry]:
    (home / "models").mkdir(parents=True)
    tiny_checkpoint.rename(home / "models" / "tiny")
    return Shelf().entries()


def test_a_start_model_brings_its_size_its_noising_and_a_gentle_rate(
    qapp: Any, entries: list[Entry]
) -> None:
    panel = PlanPanel()
    panel.set_entries(entries, "tiny")
    plan = panel.plan()
    assert (plan.start, plan.size, plan.rate) == ("tiny", 8, usual_rate(plan))
    panel.start.setCurrentIndex(panel.start.findData(""))
    panel._start_chosen()
    assert (panel.plan().start, panel.plan().rate) == ("", Training.rate)
    assert panel.rest.editor("patch").isVisibleTo(panel.rest)
    panel.start.setCurrentIndex(panel.start.findData("tiny"))
    panel._start_chosen()
    assert not panel.rest.editor("patch").isVisibleTo(panel.rest)
    assert panel.rest.editor("sde").isVisibleTo(panel.rest)  # it was trained here


def test_the_rate_suits_what_is_trained_until_a_person_sets_one(
    qapp: Any, entries: list[Entry]
) -> None:
    panel = PlanPanel()
    panel.set_entries(entries, "tiny")
    combo = panel.what.editor("train").focusProxy()
    rate = panel.pace.editor("rate").focusProxy()
    for value in ("adapters", "all"):
        combo.setCurrentIndex(combo.findData(value))  # type: ignore[union-attr]
        combo.activated.emit(0)  # type: ignore[union-attr]
        assert panel.plan().rate == usual_rate(panel.plan())
    rate.setValue(0.0005)  # type: ignore[union-attr]
    combo.setCurrentIndex(combo.findData("adapters"))  # type: ignore[union-attr]
    combo.activated.emit(0)  # type: ignore[union-attr]
    assert panel.plan().rate == 0.0005


def test_a_model_that_can_grow_is_offered_to(qapp: Any, entries: list[Entry]) -> None:
    panel = PlanPanel()
    panel.set_entries(entries, "tiny")
    assert not panel.grow.isVisibleTo(panel.fold)
    panel.set_entries(entries, "critters-32")
    assert panel.grow.isVisibleTo(panel.fold)
    panel.grow.click()
    assert (panel.plan().size, panel.plan().network) == (64, "grown")
    size = panel.rest.editor("size").focusProxy()
    size.setValue(48)  # type: ignore[union-attr]
    assert panel.plan().network == "unet"
    assert not panel.grow.isChecked()


def test_it_starts_from_the_model_in_use_until_a_person_chooses_another(
    qapp: Any, entries: list[Entry]
) -> None:
    panel = PlanPanel()
    panel.set_entries(entries, "tiny")
    panel.set_entries(entries, "critters-32")
    assert panel.plan().start == "critters-32"
    panel.start.setCurrentIndex(panel.start.findData(""))
    panel.start.activated.emit(panel.start.currentIndex())
    panel.set_entries(entries, "tiny")
    assert panel.plan().start == ""


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_fills_the_plan_and_is_recognised(
    qapp: Any, entries: list[Entry], name: str
) -> None:
    panel = PlanPanel()
    panel.set_entries(entries, "tiny")
    panel.preset.setCurrentIndex(panel.preset.findData(name))
    panel._preset_chosen()
    assert panel.plan() == PRESETS[name].of(panel.plan())
    assert panel.preset.currentData() == name
    steps = panel.pace.editor("steps").focusProxy()
    steps.setValue(steps.value() + 1)  # type: ignore[union-attr]
    assert panel.preset.currentData() == "custom"
    assert panel.plan().steps == PRESETS[name].changes["steps"] + 1


def test_what_is_trained_shows_the_setting_that_belongs_to_it(
    qapp: Any, entries: list[Entry]
) -> None:
    panel = PlanPanel()
    panel.set_entries(entries, "tiny")
    combo = panel.what.editor("train").focusProxy()
    for value, shown_fields in (("all", ()), ("last", ("last",)), ("adapters", ("rank",))):
        combo.setCurrentIndex(combo.findData(value))  # type: ignore[union-attr]
        combo.activated.emit(0)  # type: ignore[union-attr]
        assert panel.plan().train == value
        for name in ("last", "rank"):
            assert panel.what.editor(name).isVisibleTo(panel.what) == (name in shown_fields)


def test_the_name_follows_the_folder_until_a_person_gives_one(
    qapp: Any, entries: list[Entry]
) -> None:
    panel = PlanPanel()
    panel.suggest("My animals", {"my-animals"})
    assert panel.result() == "my-animals-2"
    panel.name.setText("cats")
    panel.name.textEdited.emit("cats")
    panel.suggest("Other", set())
    assert panel.result() == "cats"
    for wrong in ("", "a/b", ".hidden"):
        panel.name.setText(wrong)
        with pytest.raises(SpecError):
            panel.result()


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("My animals", "my-animals"),
        ("猫の写真", "猫の写真"),
        ("!!!", "my-model"),
        ("A_b  c", "a_b-c"),
    ],
)
def test_names_come_from_any_folder(folder: str, name: str) -> None:
    assert name_for(folder, set()) == name


def test_the_suggested_strongest_noise_is_taken_where_there_is_one(
    qapp: Any, entries: list[Entry]
) -> None:
    panel = PlanPanel()
    panel.set_entries(entries, "tiny")
    panel.set_sigma_max(12.0)  # VP has none to choose
    panel.start.setCurrentIndex(panel.start.findData(""))
    panel._start_chosen()
    panel._show(Training(sde=VESDE()))
    panel.set_sigma_max(12.0)
    assert panel.plan().sde == VESDE(sigma_max=12.0)


def test_the_check_is_told_in_words_and_pales_when_the_plan_changes(shown: Shown) -> None:
    card = shown(CheckCard(), 280, 260)
    warnings = tuple(f"Sentence {i}." for i in range(5))
    card.show_checked(
        Checked(3 * 10**8, 6 * 10**9, 0.4, 7200, 10**7, 10**10, 2 * 10**6, 10**5, 48.0, warnings)
    )
    assert card._rows["time"].text() == "2 h"
    assert card._rows["trained"].text() == "0.1 M / 2 M"
    assert "and 2 more" in card.warnings.text()
    assert card.sigma.text() == "Use σ max 48"
    card.set_stale(True)
    assert "before the plan changed" in card.title.text()


# -- the record of a run ----------------------------------------------------------------------------


def levels(loss: float, seen: int = 100) -> Levels:
    return Levels(np.linspace(-4, 4, 9), np.full(8, loss), np.full(8, seen), np.full(8, math.nan))


def sheet(step: int, value: int = 0, memorised: float = 0.1) -> Sheet:
    stack = np.full((4, 8, 8, 3), value, np.uint8)
    return Sheet(step, stack, stack + 100, np.arange(4.0), memorised)


def test_a_curve_of_any_length_stays_small_and_keeps_its_ends() -> None:
    curve = Curve()
    curve.add((step, math.sin(step / 1000)) for step in range(1, 100_001))
    assert len(curve.points) <= 1201
    assert curve.points[-1][0] == 100_000
    assert curve.points[0][0] < 500
    steps = np.array([step for step, _ in curve.points])
    assert (np.diff(steps) > 0).all()
    assert np.diff(steps).max() < 500
    assert all(value == math.sin(step / 1000) for step, value in curve.points)


def test_what_a_roll_back_undid_is_gone_from_curves_and_sheets() -> None:
    record = Record(total=100)
    record.add("loss", ((step, 1.0) for step in range(50)))
    record.add_sheets([sheet(0), sheet(20), sheet(40)])
    record.go_back(30)
    record.add("loss", [(31, 0.5)])
    assert record.curves["loss"].points[-2:] == [(30, 1.0), (31, 0.5)]
    assert [s.step for s in record.sheets] == [0, 20]


def test_the_time_left_is_taken_from_the_pace_of_late() -> None:
    record = Record()
    for step in range(1, 101):  # two seconds a step at first, then one
        seconds = 2.0 * min(step, 20) + max(0, step - 20)
        record.advance(step, 200, step * 4, seconds)
    assert record.seconds_left == pytest.approx(100, rel=0.02)
    assert record.seen == 400


def test_sheets_stand_in_the_order_of_their_steps() -> None:
    record = Record()
    record.add_sheets([sheet(50), sheet(0), sheet(25, 1), sheet(25, 2)])
    assert [s.step for s in record.sheets] == [0, 25, 50]
    assert record.sheets[1].pictures.max() == 2
    record.add_sheets([sheet(75, memorised=math.nan)])
    assert record.memorised == 0.1  # the newest that could be judged


def test_sheets_that_would_take_too_much_memory_are_thinned_between_their_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("studio.ui.train.record._ROOM", 6 * 2 * 4 * 8 * 8 * 3)
    record = Record()
    for step in range(0, 1000, 50):
        record.add_sheets([sheet(step)])
    assert len(record.sheets) == 6
    assert (record.sheets[0].step, record.sheets[-1].step) == (0, 950)


# -- the training as it is shown --------------------------------------------------------------------


def test_bars_are_as_high_as_their_losses_and_levels_unseen_have_none(shown: Shown) -> None:
    strip = shown(LevelsStrip(), 400, 200)
    assert strip.bars() == []
    loss, seen = np.array([0.1, 0.4, math.nan, 0.2]), np.array([9, 9, 0, 9])
    strip.show_levels(Levels(np.linspace(-4, 4, 5), loss, seen, loss))
    heights = [box.height() for box, _, _ in strip.bars()]
    assert len(heights) == 3
    assert heights[1] == pytest.approx(4 * heights[0], rel=1e-6)
    assert "loss 0.4" in strip._told(strip.bars()[1][0].center().x())


def test_a_live_view_draws_a_run_that_grows(shown: Shown, qapp: Any) -> None:
    view = shown(LiveView(), 900, 640)
    view.load()
    record = Record("cats", total=500)
    view.begin(record)
    record.add("loss", ((step, 1 / (step + 1)) for step in range(200)))
    record.add("held-out", ((step, 1.2 / (step + 1)) for step in range(0, 200, 20)))
    record.levels = levels(0.5)
    record.add_sheets([sheet(0), sheet(100, 50)])
    view.draw()
    assert view.wall.pictures.count == 4
    assert (view.wall.pictures.picture(0) == 50).all()
    assert view.lapse.told.text() == "step 100"
    assert "new pictures · 10%" in view.wall.gauge.text
    assert len(view.plot._lines[0].getData()[0]) == 200


@pytest.mark.parametrize(
    ("last", "total", "end"),
    [(0, 500, 1.953125), (30, 5000, 39.0625), (499, 500, 500), (700, 500, 700)],
)
def test_the_axis_of_a_long_run_reaches_no_further_than_it_need(
    last: float, total: float, end: float
) -> None:
    assert _reach(last, total) == end


def test_views_of_the_samples(shown: Shown) -> None:
    wall = shown(SampleWall(), 600, 400)
    before, now = sheet(0, 10), sheet(90, 200)
    wall.show_sheet(now, before)
    assert (wall.pictures.picture(0) == 200).all()
    wall.set_view("before")
    assert (wall.pictures.picture(0) == 10).all()
    wall.set_view("wipe")
    wall.set_share(0.25)
    seen = wall.pictures.picture(3)
    assert (seen[:, :2] == 10).all()
    assert (seen[:, 2:] == 200).all()
    wall.set_view("nearest")
    assert wall.pictures.picture(0).shape == (18, 8, 3)
    assert (wall.pictures.picture(0)[:8] == 200).all()
    assert (wall.pictures.picture(0)[10:] == (200 + 100) % 256).all()


def test_space_shows_the_beginning_while_it_is_held(shown: Shown) -> None:
    wall = shown(SampleWall(), 600, 400)
    wall.show_sheet(sheet(90, 200), sheet(0, 10))
    QTest.keyPress(wall.pictures, Qt.Key.Key_Space)
    assert (wall.pictures.picture(0) == 10).all()
    QTest.keyRelease(wall.pictures, Qt.Key.Key_Space)
    assert (wall.pictures.picture(0) == 200).all()


def test_the_line_of_a_wipe_is_dragged(shown: Shown) -> None:
    wall = shown(SampleWall(), 600, 400)
    wall.show_sheet(sheet(90, 200), sheet(0, 10))
    wall.set_view("wipe")
    box = wall.pictures.cell_rect(0)
    start = box.center().toPoint()
    end = (box.center() + QPointF(box.width() / 4, 0)).toPoint()
    QTest.mousePress(wall.pictures, Qt.MouseButton.LeftButton, pos=start)
    QTest.mouseMove(wall.pictures, end)
    QTest.mouseRelease(wall.pictures, Qt.MouseButton.LeftButton, pos=end)
    assert wall.share == pytest.approx(0.75, abs=0.03)
    assert wall.pictures.solo is None


def test_pairs_are_a_sample_over_its_nearest() -> None:
    one = paired(np.zeros((2, 4, 4, 1), np.uint8), np.full((2, 4, 4, 1), 9, np.uint8))
    assert one.shape == (2, 10, 4, 1)
    assert (one[:, 6:] == 9).all()


def test_the_time_lapse_follows_until_a_person_takes_it(shown: Shown) -> None:
    lapse = shown(TimeLapse(), 500, 40)
    moved: list[int] = []
    lapse.moved.connect(moved.append)
    lapse.set_steps([0, 50, 100])
    assert lapse.place is None
    assert lapse.told.text() == "step 100"
    lapse.slider.setValue(1)
    assert lapse.place == 1
    assert moved == [1]
    lapse.set_steps([0, 50, 100, 150])
    assert lapse.place == 1
    assert lapse.told.text() == "step 50"
    lapse.latest.click()
    assert lapse.place is None
    assert lapse.told.text() == "step 150"
    lapse.walk(-1)
    assert lapse.place == 2


def test_playing_begins_at_the_start_and_again_after_the_end(shown: Shown) -> None:
    lapse = shown(TimeLapse(), 500, 40)
    lapse.set_steps([0, 50, 100])
    lapse.play_or_stop()
    assert lapse.playing
    assert lapse.place == 0
    for place in (1, 2):
        lapse._tick()
        assert lapse.place == place
    for _ in range(5):
        lapse._tick()
    assert lapse.place == 0
    lapse.play_or_stop()
    assert not lapse.playing


@pytest.mark.parametrize(
    ("share", "words_of_it"),
    [(0.02, "new pictures"), (0.4, "close to yours"), (0.9, "learned by heart")],
)
def test_the_gauge_says_in_words_how_much_is_remembered(
    shown: Shown, share: float, words_of_it: str
) -> None:
    gauge = shown(Gauge(), 260, 24)
    assert gauge.text == ""
    gauge.set_share(share)
    assert gauge.text.startswith(words_of_it)
    assert words_of_it in gauge.accessibleName()


# -- what is offered --------------------------------------------------------------------------------


def found(name: str, step: int = 200, total: int = 500, resumable: bool = True) -> RunFound:
    return RunFound(name, step, total, 0.1, time.time() - 60, resumable, "x", Path(name))


def test_only_runs_that_can_go_on_are_offered_and_not_again_once_declined(shown: Shown) -> None:
    card = shown(EarlierRuns(), 700, 50)
    card.show_runs([found("done", 500), found("broken", resumable=False)])
    assert card.isHidden()
    card.show_runs([found("cats"), found("dogs", 10)])
    assert "“cats” stopped at step 200 of 500, " in card.text.text()
    card.choice.setCurrentIndex(1)
    wanted: list[RunFound] = []
    card.go_on_requested.connect(wanted.append)
    card.go_on.click()
    assert wanted[0].name == "dogs"
    card.decline()
    card.show_runs([found("cats")])
    assert card.isHidden()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (61, "61 s"),
        (600, "10 min"),
        (7200, "2 h"),
        (12_000, "3 h 20 min"),
        (3e5, "3 days"),
        (math.nan, "–"),
    ],
)
def test_spans_of_time_are_as_exact_as_they_can_be_known(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text
