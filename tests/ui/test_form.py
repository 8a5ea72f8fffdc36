"""Forms come from Specs alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
from PySide6.QtWidgets import QComboBox, QDoubleSpinBox, QSpinBox, QWidget

from studio import spec
from studio.diffusion.catalog import PRESETS, SAMPLERS
from studio.diffusion.correctors import CORRECTORS
from studio.diffusion.predictors import PREDICTORS, Euler
from studio.diffusion.sampler import Sampler
from studio.diffusion.stepping import PredictorCorrector
from studio.spec import option
from studio.ui.form import Choice, Form

pytestmark = pytest.mark.usefixtures("qapp")


def combo(form: QWidget, name: str) -> QComboBox:
    found = form.findChild(QComboBox, name)
    assert found is not None
    return found


def keys(box: QComboBox) -> list[str]:
    return [box.itemData(i) for i in range(box.count())]


def choose(box: QComboBox, key: str) -> None:
    """As a person does: pick the entry, which activates it."""
    box.setCurrentIndex(box.findData(key))
    box.activated.emit(box.currentIndex())


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_form_gives_back_what_it_was_given(name: str) -> None:
    value = SAMPLERS[name]()
    assert Form(value).value() == value


@pytest.mark.parametrize(
    ("field", "members"), [("predictor", PREDICTORS), ("corrector", CORRECTORS)]
)
def test_every_member_of_a_family_is_offered(field: str, members: dict[str, type]) -> None:
    assert keys(combo(Form(PredictorCorrector()), field)) == list(members)


def test_every_sampler_is_offered() -> None:
    assert keys(Choice(Sampler, PRESETS["quick"][1], "sampler").combo) == list(SAMPLERS)


def test_a_predictor_added_to_its_family_appears_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Leap(Euler):
        """Leaps ahead."""

        title: ClassVar[str] = "Leap"
        height: float = option(2.0, label="Height", range=(0, 5))

    monkeypatch.setitem(PREDICTORS, "leap", Leap)
    form = Form(PredictorCorrector())
    choose(combo(form, "predictor"), "leap")
    height = form.findChild(QDoubleSpinBox, "height")
    assert height is not None
    height.setValue(3.5)
    assert form.value().predictor == Leap(height=3.5)


def test_a_change_is_told_with_the_new_value() -> None:
    form, told = Form(PredictorCorrector()), []
    form.changed.connect(told.append)
    steps = form.findChild(QSpinBox, "steps")
    assert steps is not None
    steps.setValue(321)
    assert told[-1] == PredictorCorrector(steps=321)


def test_showing_another_value_is_not_a_change() -> None:
    form, told = Form(PredictorCorrector()), []
    form.changed.connect(told.append)
    value = PredictorCorrector(steps=7, predictor=PREDICTORS["heun"]())
    form.set_value(value)
    assert form.value() == value
    assert told == []


def test_coming_back_to_a_member_finds_its_settings_again() -> None:
    choice = Choice(Sampler, SAMPLERS["heun"](steps=33), "sampler")
    choose(choice.combo, "rk45")
    choose(choice.combo, "heun")
    assert choice.value() == SAMPLERS["heun"](steps=33)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_option_has_a_name_for_other_programs_and_for_screen_readers(name: str) -> None:
    value = SAMPLERS[name]()
    form = Form(value)
    for field in dataclasses.fields(value):
        widget = form.editor(field.name).focusProxy()
        assert widget.objectName() == field.name
        assert widget.accessibleName()


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_explains_itself_in_a_sentence(name: str) -> None:
    explanation = (SAMPLERS[name].__doc__ or "").strip()
    assert explanation.endswith((".", ").")), f"{name} needs a docstring that a person can read"
    assert len(explanation.split()) >= 5


def test_bounds_of_a_field_are_the_bounds_of_its_editor() -> None:
    form = Form(SAMPLERS["rk45"]())
    box = form.findChild(QDoubleSpinBox, "rtol")
    assert box is not None
    low, high = spec.about(SAMPLERS["rk45"].__dataclass_fields__["rtol"]).range  # type: ignore[misc]
    assert (box.minimum(), box.maximum()) == (low, high)
    assert box.textFromValue(0.00001) in ("1e-05", "1E-05")
