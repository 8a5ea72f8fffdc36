"""The recipe panel gives back every setting of a job, and offers what fits the model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QApplication, QLineEdit

from studio import spec
from studio.diffusion.sde import SDES, OwnSDE
from studio.engine.jobs import SampleJob
from studio.errors import SpecError
from studio.ui.recipe_panel import RecipePanel, summary
from studio.weights.model import ModelInfo, Opened
from studio.weights.shelf import Entry

pytestmark = pytest.mark.usefixtures("qapp")


def entry(**facts: Any) -> Entry:
    info = ModelInfo(**{"size": 8, "classes": ("cat", "dog")} | facts)
    return Entry("tiny", Path("tiny"), Opened("tiny", "test", info, lambda: pytest.fail("read")))


@pytest.fixture
def judge(home: Path) -> str:
    """A classifier of 8 px pictures on the shelf."""
    from studio.networks.classifier import ClassifierOptions
    from studio.weights import classifiers

    options = ClassifierOptions(
        size=8, classes=3, channels=(8,), blocks=(1,), attention=(), embedding=8, patch=1
    )
    info = classifiers.ClassifierInfo(
        options=spec.to_dict(options), size=8, classes=("dark", "grey", "light")
    )
    net = classifiers.build(info)
    classifiers.save(home / "models" / "judge", info, net.state_dict())
    return "judge"


@pytest.fixture
def panel() -> RecipePanel:
    made = RecipePanel()
    made.set_model(entry())
    return made


def items(combo: Any) -> list[str]:
    return [combo.itemData(i) for i in range(combo.count())]


def choose(combo: Any, key: str) -> None:
    combo.setCurrentIndex(combo.findData(key))
    combo.activated.emit(combo.currentIndex())


@pytest.mark.parametrize("kind", list(SDES))
def test_a_job_comes_back_as_it_was_shown(panel: RecipePanel, kind: str) -> None:
    job = SampleJob("tiny", count=3, seed=9, classes="dog", guidance=2.5, sde=SDES[kind]())
    panel.show_job(job)
    assert panel.job() == job
    assert panel.noising.isChecked()


def test_a_job_with_a_classifier_comes_back_as_it_was_shown(judge: str, panel: RecipePanel) -> None:
    job = SampleJob("tiny", classes="light", guidance=4.0, classifier=judge)
    panel.show_job(job)
    assert panel.job() == job


def test_a_classifier_that_is_not_here_stays_in_the_recipe(panel: RecipePanel) -> None:
    job = SampleJob("tiny", classes="light", guidance=4.0, classifier="elsewhere/judge")
    panel.show_job(job)
    assert panel.job() == job


def test_a_plain_job_closes_what_another_opened(panel: RecipePanel) -> None:
    panel.show_job(SampleJob("tiny", sde=OwnSDE(g="9^t"), guidance=3.0, classes="cat"))
    panel.show_job(SampleJob("tiny"))
    assert panel.job() == SampleJob("tiny")
    assert not panel.noising.isChecked()
    assert panel.sde.isHidden()


def test_the_noising_of_an_ordinary_recipe_is_folded_away(panel: RecipePanel) -> None:
    assert panel.sde.isHidden()
    assert items(panel.sde.combo) == ["", *SDES]
    panel.noising.click()
    assert not panel.sde.isHidden()


def test_guidance_is_offered_where_there_are_classes(panel: RecipePanel) -> None:
    assert not panel.guidance.isHidden()
    panel.guidance.setValue(3)
    panel.set_model(entry(classes=()))
    assert panel.guidance.isHidden()
    assert panel.job().guidance == 1


def test_only_classifiers_that_fit_are_offered(judge: str) -> None:
    panel = RecipePanel()
    panel.set_model(entry(size=16))
    assert panel.classifier.isHidden()
    panel.set_model(entry())
    assert not panel.classifier.isHidden()
    assert items(panel.classifier) == ["", judge]


def test_a_classifier_brings_its_classes_to_a_model_without_any(judge: str) -> None:
    panel = RecipePanel()
    panel.set_model(entry(classes=()))
    assert not panel.classes.isEnabled()
    choose(panel.classifier, judge)
    assert items(panel.classes) == ["", "each", "dark", "grey", "light"]
    assert panel.job() == SampleJob("tiny", classes="each", classifier=judge)
    choose(panel.classifier, "")
    assert panel.job() == SampleJob("tiny")


def test_a_classifier_that_does_not_fit_the_next_model_is_let_go(judge: str) -> None:
    panel = RecipePanel()
    panel.set_model(entry())
    choose(panel.classifier, judge)
    panel.set_model(entry(size=16))
    assert panel.job().classifier == ""


def test_a_formula_that_is_half_typed_is_told_and_cannot_be_run(panel: RecipePanel) -> None:
    told: list[None] = []
    panel.changed.connect(lambda: told.append(None))
    choose(panel.sde.combo, "own")
    field = panel.sde.findChild(QLineEdit, "g")
    assert field is not None
    before = len(told)
    field.setText("9^")
    field.textEdited.emit("9^")
    problem = panel.sde.findChild(type(panel.cost), "problem")
    assert problem is not None
    assert "9^" in problem.text()
    assert not problem.isHidden()
    assert len(told) == before
    with pytest.raises(SpecError):
        panel.job()
    choose(panel.sde.combo, "ve")  # leaving it is no trouble either
    choose(panel.sde.combo, "own")
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    field = panel.sde.findChild(QLineEdit, "g")
    assert field is not None
    field.setText("9^t")
    field.textEdited.emit("9^t")
    assert panel.job().sde == OwnSDE(g="9^t")


def test_a_recipe_in_words_names_guidance_and_noising() -> None:
    job = SampleJob("tiny", classes="cat", guidance=2.5, classifier="judge", sde=OwnSDE())
    assert "guidance 2.5 by judge" in summary(job)
    assert "Your own" in summary(job)
    assert "guidance" not in summary(SampleJob("tiny", classes="cat"))


def test_the_panel_is_made_without_torch(judge: str, home: Path) -> None:
    code = (
        "import sys\n"
        "from PySide6.QtWidgets import QApplication\n"
        "app = QApplication([])\n"
        "from studio.ui.recipe_panel import RecipePanel\n"
        "from studio.weights.shelf import Shelf\n"
        "panel = RecipePanel()\n"
        "panel.set_model(Shelf().entries()[-1])\n"
        "panel.noising.click()\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False)
    assert done.returncode == 0


def test_a_large_model_starts_with_few_pictures() -> None:
    panel = RecipePanel()
    for size, few in ((32, 16), (256, 1), (64, 16), (128, 4)):
        panel.set_model(entry(size=size))
        assert panel.count.value() == few
