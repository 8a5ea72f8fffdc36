"""One declaration gives JSON, bounds, names and words; what comes from outside is not trusted."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, fields

import pytest

from studio import spec
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.correctors import CORRECTORS, Corrector, Langevin, NoCorrector
from studio.diffusion.grids import GRIDS, Grid
from studio.diffusion.objectives import OBJECTIVES, Objective
from studio.diffusion.predictors import PREDICTORS, Ancestral, Predictor
from studio.diffusion.sampler import Sampler
from studio.diffusion.score import OUTPUTS, Output
from studio.diffusion.sde import SDE, SDES, VPSDE
from studio.errors import SpecError, StudioError
from studio.training.trainer import Training
from studio.weights.model import ModelInfo

FAMILIES = [
    (Sampler, SAMPLERS),
    (Predictor, PREDICTORS),
    (Corrector, CORRECTORS),
    (Grid, GRIDS),
    (SDE, SDES),
    (Output, OUTPUTS),
    (Objective, OBJECTIVES),
]
MEMBERS = [
    pytest.param(base, name, cls, id=f"{base.__name__}-{name}")
    for base, named in FAMILIES
    for name, cls in named.items()
]


@dataclass(frozen=True)
class Plan:
    count: int = spec.option(3, label="How many", range=(1, 9))
    rate: float = spec.option(0.5, range=(0, 1))
    mirror: bool = False
    mood: str = spec.option("calm", choices=("calm", "wild"))
    sizes: tuple[int, ...] = (1, 2)
    ends: tuple[float, float] = (0.0, 1.0)
    limit: int | None = None
    corrector: Corrector = spec.option(Langevin)


@pytest.mark.parametrize(("base", "name", "cls"), MEMBERS)
def test_every_member_becomes_json_and_comes_back(base, name, cls):
    text = json.dumps(spec.to_dict(cls()), allow_nan=False)
    assert spec.from_dict(base, json.loads(text)) == cls()
    assert spec.kind(cls()) == name
    assert spec.from_dict(base, {"kind": name}) == cls()


@pytest.mark.parametrize(("base", "name", "cls"), MEMBERS)
def test_every_member_has_words_for_people_and_sound_defaults(base, name, cls):
    spec.check(cls())
    assert spec.title(cls)
    assert cls.__doc__
    for field in fields(cls):
        assert spec.label(field)


@pytest.mark.parametrize("spec_", [Training(), ModelInfo(), Plan()])
def test_plans_become_json_and_come_back(spec_):
    assert spec.from_dict(type(spec_), json.loads(json.dumps(spec.to_dict(spec_)))) == spec_
    spec.check(spec_)


def test_words_from_a_command_line_become_values():
    plan = spec.from_dict(
        Plan,
        {"count": "4", "rate": "0.25", "mirror": "yes", "limit": "7", "corrector": "none"},
    )
    assert plan == Plan(4, 0.25, True, limit=7, corrector=NoCorrector())


@pytest.mark.parametrize(
    "data",
    [
        {"count": 2.5},
        {"count": True},
        {"count": math.inf},
        {"count": None},
        {"count": [1]},
        {"rate": "fast"},
        {"rate": 10**400},
        {"mirror": 1},
        {"mood": 3},
        {"sizes": 3},
        {"sizes": ["a"]},
        {"ends": [1.0]},
        {"limit": "many"},
        {"corrector": 3},
        {"corrector": {"kind": ["langevin"]}},
        {"corrector": {}},
        {"corrector": {"snr": 0.1}},
    ],
)
def test_values_of_the_wrong_kind_are_refused_with_their_place(data):
    with pytest.raises(SpecError):
        spec.from_dict(Plan, data)


@pytest.mark.parametrize("data", [None, 3, "plan", ["count"], [("count", 3)]])
def test_what_is_no_table_is_refused(data):
    with pytest.raises(SpecError, match="table"):
        spec.from_dict(Plan, data)


def test_a_slip_of_the_pen_gets_a_hint():
    with pytest.raises(SpecError) as caught:
        spec.from_dict(Plan, {"cuont": 3})
    assert "count" in caught.value.hint
    with pytest.raises(SpecError) as caught:
        spec.from_dict(Sampler, {"kind": "hoin"})
    assert "heun" in str(caught.value)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(count=0),
        Plan(count=10),
        Plan(rate=-0.1),
        Plan(rate=math.nan),
        Plan(mood="sad"),
        Plan(corrector=Langevin(snr=0.0)),
        Plan(corrector=Langevin(steps=0)),
    ],
)
def test_values_out_of_bounds_are_refused(plan):
    with pytest.raises(SpecError):
        spec.check(plan)


def test_the_words_of_a_refusal_name_field_and_bounds():
    with pytest.raises(SpecError, match="How many must be from 1 to 9, not 12"):
        spec.check(Plan(count=12))


def test_replace_reaches_into_a_spec_inside():
    assert spec.replace(Plan(), "corrector.snr", "0.3").corrector == Langevin(snr=0.3)
    assert spec.replace(Plan(), "corrector", "none").corrector == NoCorrector()
    assert spec.replace(Plan(), "sizes", [3, 4]).sizes == (3, 4)
    with pytest.raises(SpecError, match="snrr"):
        spec.replace(Plan(), "corrector.snrr", 1)


def test_a_predictor_alone_has_the_predictors_options():
    sampler = SAMPLERS["ancestral"](steps=7, eta=0.2)
    assert sampler.parts()[0] == Ancestral(eta=0.2)
    assert spec.from_dict(Sampler, {"kind": "ancestral", "eta": "0.2", "steps": 7}) == sampler


def test_specs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        VPSDE().beta_min = 3


def test_an_error_says_what_and_what_to_do():
    error = StudioError("It broke.", "Mend it.")
    assert str(error) == "It broke. Mend it."
    assert str(StudioError("It broke.")) == "It broke."
