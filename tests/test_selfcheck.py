"""The self-check: exact answers for likelihood, flow and conditions, and a job that measures them."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from studio import cli
from studio.diffusion import condition_laws, flow_laws, laws
from studio.diffusion.conditions import ClassifierFree, ClassLabel
from studio.diffusion.laws import Law
from studio.diffusion.sde import SDES, VPSDE
from studio.engine import checks
from studio.engine.checks import Checked, SelfCheckJob
from studio.engine.events import Metric, Progress
from studio.engine.jobs import Setting

pytestmark = pytest.mark.usefixtures("one_thread")

TURNS = [
    pytest.param(sde, marks=[pytest.mark.slow] if turn else []) for turn, sde in enumerate(SDES)
]


@pytest.mark.parametrize("sde", TURNS)
def test_every_law_of_the_likelihood_holds(sde):
    found = list(flow_laws.likelihood_laws({sde: SDES[sde]()}))
    assert {law.sampler for law in found} == {"likelihood", "flow"}
    for law in found:
        assert law.ok, law
        assert law.sde == sde


@pytest.mark.parametrize("sde", list(SDES))
def test_every_law_of_conditions_holds(sde):
    found = list(condition_laws.condition_laws({sde: SDES[sde]()}))
    assert len({law.sampler for law in found}) >= 4
    for law in found:
        assert law.ok, law


@pytest.mark.parametrize("density", flow_laws.densities(), ids=lambda d: d.name)
def test_a_density_is_one_and_its_pictures_are_its_own(density):
    """Its integral by drawing: the mean of its density over a wide Gaussian's is one; and -log p of
    its own pictures is the least on average of all three densities."""
    normal = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(1)).double()
    x = normal.reshape(-1, *flow_laws.SHAPE)
    ones, zeros = torch.ones(len(x)).double(), torch.zeros(len(x)).double()
    wide = -(normal**2).sum(1) / 2 - 2 * math.log(2 * math.pi)
    ratio = torch.exp(density.log_density(x, ones, zeros) - wide)
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / len(x) ** 0.5)
    own = density.drawn(4000)
    scores = [
        float(d.log_density(own, ones[:4000], zeros[:4000]).mean()) for d in flow_laws.densities()
    ]
    assert max(scores) == float(density.log_density(own, ones[:4000], zeros[:4000]).mean())


def test_a_likelihood_that_is_off_is_seen(monkeypatch):
    monkeypatch.setattr(VPSDE, "prior_log_density", lambda self, x: -x.flatten(1).abs().sum(1))
    found = list(flow_laws.likelihood_laws({"vp": VPSDE()}))
    assert not any(law.ok for law in found if law.name.startswith("bits"))


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (ClassLabel, lambda self, score: score),
        (ClassifierFree, lambda self, score: score.labelled(torch.tensor(self.labels))),
    ],
)
def test_a_condition_that_is_off_is_seen(monkeypatch, cls, wrong):
    monkeypatch.setattr(cls, "guide", wrong)
    found = list(condition_laws.condition_laws({"vp": VPSDE()}))
    assert not all(law.ok for law in found)


# -- the job --------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """A check of one sampler and nothing else."""
    monkeypatch.setattr(checks, "SAMPLERS", {"euler": None})
    monkeypatch.setattr(checks, "_OTHERS", {})


def events(**options):
    return list(SelfCheckJob(**options).run(Setting(None, "cpu")))


def test_the_job_measures_every_part_with_every_sde(small):
    found = events()
    measured = [event.law for event in found if isinstance(event, Checked)]
    assert {law.sde for law in measured} == set(SDES)
    assert all(law.ok for law in measured)
    ends = [event for event in found if isinstance(event, Progress)]
    assert [event.step for event in ends] == list(range(1, ends[-1].total + 1))


def test_a_quick_check_still_has_every_part():
    titles = [title for title, _ in SelfCheckJob(quick=True).parts()]
    for part in [*checks.SAMPLERS, *checks._OTHERS]:
        assert sum(title.startswith(f"{part},") for title in titles) == 1


def test_stopping_a_check_gives_the_threads_back(small):
    before = torch.get_num_threads()
    run = SelfCheckJob().run(Setting(None, "cpu"))
    next(run)
    run.close()
    assert torch.get_num_threads() == before


def test_curves_fall_by_the_order_of_their_sampler():
    curves = {
        event.name: event.points for event in checks._curves("vp") if isinstance(event, Metric)
    }
    assert set(curves) == {f"vp {name}" for name in laws.ORDERS}
    for name, order in {"euler": 1, "ancestral": 1, "dpm2m": 2, "heun": 2}.items():
        points = curves[f"vp {name}"][-3:]
        for (n, e), (m, d) in itertools.pairwise(points):
            slope = math.log(e / d) / math.log(m / n)
            assert slope == pytest.approx(order, abs=0.4), name


def test_laws_stand_in_a_table_with_their_theory():
    made = [
        Law("order of convergence", "vp", "heun", 2.1, 2.0, 0.3),
        Law("error of the spread", "vp", "heun", 0.5, 0.0, 0.02),
        Law("order of convergence", "ve", "heun", 1.9, 2.0, 0.3),
    ]
    order, error = checks.rows(made)
    assert (order.measured("vp"), order.measured("ve"), order.measured("own")) == (
        "2.100",
        "1.900",
        "",
    )
    assert order.theory == "2.000 ± 0.300"
    assert (order.ok, error.ok) == (True, False)
    head, first, second = checks.table(made).splitlines()
    assert head.split() == ["law", *SDES, "theory"]
    assert first.startswith("ok ")
    assert second.startswith("OFF ")
    assert "+50.00 % !" in second


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def selfcheck(small, capsys):
    def run(*words):
        code = cli.main(["selfcheck", *words])
        return code, capsys.readouterr().out

    return run


def test_a_check_that_finds_nothing_ends_well(selfcheck):
    code, out = selfcheck("--quick")
    assert code == 0
    assert "3 of 3 laws hold" in out
    code, out = selfcheck("--quick", "--json")
    told = json.loads(out)
    assert (code, told["ok"], told["failed"]) == (0, True, [])
    assert {law["name"] for law in told["laws"]} >= {"order of convergence"}


def test_a_check_that_finds_something_says_so_and_exits_with_one(selfcheck, monkeypatch):
    monkeypatch.setitem(laws.ORDERS, "euler", 2)
    code, out = selfcheck("--quick")
    assert code == 1
    assert "OFF  euler" in out
    code, out = selfcheck("--quick", "--json")
    told = json.loads(out)
    assert (code, told["ok"]) == (1, False)
    assert [law["name"] for law in told["failed"]] == ["order of convergence"]


@pytest.mark.slow
def test_the_whole_quick_check_finds_nothing(capsys):
    assert cli.main(["selfcheck", "--quick"]) == 0
    assert "OFF" not in capsys.readouterr().out
