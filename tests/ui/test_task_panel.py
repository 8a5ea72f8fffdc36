"""The task panel gives back what it was shown, explains it, and says what live mode does."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from PySide6.QtCore import QEvent, Qt
from PySide6.QtWidgets import QApplication, QCheckBox, QComboBox, QDoubleSpinBox, QSpinBox

from studio import spec
from studio.diffusion.tasks import (
    METHODS,
    TASKS,
    Colorize,
    Inpaint,
    Posterior,
    Task,
    TimeTravel,
)
from studio.ui.canvas.task_panel import WAYS, LiveSign, TaskPanel
from ui.conftest import Shown

pytestmark = pytest.mark.usefixtures("qapp")


@pytest.fixture
def panel() -> TaskPanel:
    return TaskPanel()


@pytest.fixture
def told(panel: TaskPanel) -> list[str]:
    heard: list[str] = []
    panel.changed.connect(lambda: heard.append("changed"))
    panel.live_changed.connect(lambda on: heard.append(f"live {on}"))
    return heard


def box(panel: TaskPanel, name: str) -> QComboBox:
    # A form that was left is deleted by the event loop.
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    found = panel.findChild(QComboBox, name)
    assert found is not None
    return found


def choose(combo: QComboBox, key: str) -> None:
    combo.setCurrentIndex(combo.findData(key))
    combo.activated.emit(combo.currentIndex())


def methods(task: Task) -> list[Task]:
    """A task with each of the methods, if it has one."""
    if not hasattr(task, "method"):
        return [task]
    return [spec.replace(task, "method", name) for name in METHODS]


@pytest.mark.parametrize(
    "task",
    [task for make in TASKS.values() for task in methods(make())],
    ids=lambda task: f"{spec.kind(task)}-{spec.to_dict(task).get('method', {}).get('kind', '')}",
)
def test_a_task_comes_back_as_it_was_shown(panel: TaskPanel, told: list[str], task: Task) -> None:
    panel.set_task(task)
    assert panel.task() == task
    assert told == []


def test_it_begins_with_inpainting_as_the_paper_does(panel: TaskPanel) -> None:
    assert panel.task() == Inpaint()
    assert panel.way() == WAYS[0]
    assert not panel.live


def test_every_task_and_every_method_is_offered_and_explained(panel: TaskPanel) -> None:
    for name, family in (("task", TASKS), ("method", METHODS)):
        combo = box(panel, name)
        assert [combo.itemData(i) for i in range(combo.count())] == list(family)
        for i in range(combo.count()):
            about = combo.itemData(i, Qt.ItemDataRole.ToolTipRole)
            assert len(about.split()) >= 8, combo.itemText(i)


def test_a_method_is_chosen_within_its_task(panel: TaskPanel, told: list[str]) -> None:
    choose(box(panel, "task"), "colorize")
    choose(box(panel, "method"), "repaint")
    repeats = panel.findChild(QSpinBox, "repeats")
    assert repeats is not None
    repeats.setValue(7)
    assert panel.task() == Colorize(method=TimeTravel(repeats=7))
    assert told == ["changed"] * 3


def test_a_task_that_is_left_keeps_its_method(panel: TaskPanel) -> None:
    choose(box(panel, "method"), "dps")
    box(panel, "method")
    rate = panel.findChild(QDoubleSpinBox, "rate")
    assert rate is not None
    rate.setValue(2.0)
    choose(box(panel, "task"), "sketch")
    choose(box(panel, "task"), "inpaint")
    assert panel.task() == Inpaint(method=Posterior(rate=2.0))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_explained_in_a_sentence(panel: TaskPanel, told: list[str], way: str) -> None:
    panel.set_way(way)
    assert panel.way() == way
    assert told == []
    about = panel.about_way.text()
    assert about.endswith(".")
    assert about.count(".") == 1
    assert about == panel.ways.currentData(Qt.ItemDataRole.ToolTipRole)


def test_a_person_who_chooses_a_way_is_heard(panel: TaskPanel, told: list[str]) -> None:
    before = panel.about_way.text()
    choose(box(panel, "way"), "windows")
    assert (panel.way(), told) == ("windows", ["changed"])
    assert panel.about_way.text() != before


def test_an_unknown_way_is_refused(panel: TaskPanel) -> None:
    with pytest.raises(ValueError, match="sideways"):
        panel.set_way("sideways")
    assert panel.way() == "box"


def test_live_mode_waits_for_a_stroke_when_it_is_switched_on(
    panel: TaskPanel, told: list[str]
) -> None:
    live = panel.findChild(QCheckBox, "live")
    assert live is not None
    live.click()
    assert (panel.live, panel.live_state.state) == (True, "waiting")
    live.click()
    assert (panel.live, panel.live_state.state) == (False, "off")
    assert told == ["live True", "live False"]


def test_each_live_state_looks_and_reads_differently(shown: Shown, grab: Any) -> None:
    sign = shown(LiveSign(), 220, 24)
    looks, words = [], []
    for state in ("off", "waiting", "working", "fresh"):
        sign.set_state(state)
        looks.append(grab(sign)[:, :16])
        words.append(sign.accessibleName())
    assert len(set(words)) == 4
    for i, one in enumerate(looks):
        assert not any(np.array_equal(one, other) for other in looks[:i])


def test_the_sign_keeps_its_place_whatever_it_says(panel: TaskPanel) -> None:
    hints = set()
    for state in ("off", "waiting", "working", "fresh"):
        panel.set_live_state(state)
        hints.add(panel.live_state.sizeHint().toTuple())
    assert len(hints) == 1


def test_only_work_blinks(panel: TaskPanel) -> None:
    panel.set_live_state("working")
    assert panel.live_state._beat.isActive()
    for state in ("fresh", "waiting", "off"):
        panel.set_live_state(state)
        assert not panel.live_state._beat.isActive()
    with pytest.raises(ValueError, match="stuck"):
        panel.set_live_state("stuck")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", list(TASKS))
def test_it_fits_a_narrow_panel(shown: Shown, panel: TaskPanel, kind: str) -> None:
    panel.set_task(TASKS[kind]())
    shown(panel, 270, 600)
    assert panel.minimumSizeHint().width() <= 270


def test_the_panels_of_the_canvas_are_made_without_torch() -> None:
    code = (
        "import sys\n"
        "from PySide6.QtWidgets import QApplication\n"
        "app = QApplication([])\n"
        "from studio.ui.canvas.mixer import Mixer\n"
        "from studio.ui.canvas.strip import CandidateStrip\n"
        "from studio.ui.canvas.task_panel import TaskPanel\n"
        "TaskPanel(), Mixer(), CandidateStrip()\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False)
    assert done.returncode == 0
