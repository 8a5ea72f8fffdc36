"""The laws that the self-check measures: every sampler keeps them, and a broken one would not."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from test_oracle import factors

from studio import spec
from studio.diffusion import laws
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.correctors import CORRECTORS
from studio.diffusion.grids import GRIDS
from studio.diffusion.predictors import PREDICTORS
from studio.diffusion.sampler import Sampler
from studio.diffusion.sde import SDES, VESDE, VPSDE

pytestmark = pytest.mark.usefixtures("one_thread")

#: Everyday each sampler with one SDE; `slow` with all.
PAIRS = [
    pytest.param(sde, name, marks=[pytest.mark.slow] if (i + j) % len(SDES) else [])
    for i, sde in enumerate(SDES)
    for j, name in enumerate(SAMPLERS)
]


@pytest.mark.parametrize(("sde", "sampler"), PAIRS)
def test_every_law_holds(sde, sampler):
    found = list(laws.sampler_laws({sde: SDES[sde]()}, [sampler]))
    assert found
    for law in found:
        assert law.ok, law
        assert (law.sde, law.sampler) == (sde, sampler)


def test_every_sampler_has_laws_and_every_stepping_one_an_order():
    assert set(laws.ORDERS) == set(PREDICTORS)


#: Variants whose order is not that of their name.
VARIANTS = [
    ({"kind": "unipc", "order": 1}, 2),
    ({"kind": "ancestral", "eta": 0.5}, 1),
    ({"kind": "dpm2m-sde", "eta": 0.5}, 2),
    ({"kind": "euler", "s_churn": 5.0}, 1),
    ({"kind": "heun", "s_churn": 5.0}, 2),
]


@pytest.mark.parametrize(("chosen", "order"), VARIANTS, ids=lambda v: str(v))
def test_order_of_convergence_of_variants(chosen, order):
    sampler = spec.from_dict(Sampler, chosen)
    assert laws.order_of_convergence(sampler, VESDE()) == pytest.approx(order, abs=0.3)


@pytest.mark.slow
def test_unipc_of_order_three_is_of_fourth_order():
    sampler = SAMPLERS["unipc"](order=3)
    assert laws.order_of_convergence(sampler, VPSDE(), 128) == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize("name", ["em", "reverse", "ancestral", "sra1", "heun", "euler"])
@pytest.mark.parametrize("grid", ["time", "log_snr"])
def test_impulses_through_a_run_give_what_single_steps_give(name, grid):
    """The variance of a run, two ways: V <- m² V + n² a step, and the gains of all its noises."""
    sde, std, steps = VPSDE(), 0.5, 30
    times = GRIDS[grid]().times(sde, steps)
    variance = sde.prior_std**2
    for m, n in zip(*factors(PREDICTORS[name](), laws.gaussian(sde, std), times)):
        variance = m**2 * variance + n**2
    sampler = SAMPLERS[name](steps=steps, grid=GRIDS[grid]())
    assert laws.end_std(sampler, sde, std) == pytest.approx(math.sqrt(variance), rel=1e-9)


@pytest.mark.parametrize("corrector", ["ald"])
@pytest.mark.parametrize("predictor", list(PREDICTORS))
def test_a_corrector_leaves_the_law_where_it_was(predictor, corrector):
    """Small Langevin steps keep the law of their level, whatever the predictor."""
    parts = {"predictor": PREDICTORS[predictor](), "corrector": CORRECTORS[corrector](snr=0.1)}
    error = laws.end_error(SAMPLERS["pc"](steps=100, **parts), VESDE(), 0.5)
    assert abs(error) < 0.05


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=["vp", "ve"])
def test_churn_leaves_the_marginal_right(sde):
    error = lambda name, steps: laws.end_error(  # noqa: E731
        SAMPLERS[name](steps=steps, s_churn=40.0), sde, 0.5
    )
    assert abs(error("heun", 200)) < 0.01
    # Euler has to come down again by steps of its own order, but comes to the same law.
    assert error("euler", 400) == pytest.approx(error("euler", 200) / 2, rel=0.2)


def test_the_new_noise_of_churn_is_as_strong_as_asked():
    wide = laws.end_error(SAMPLERS["heun"](steps=200, s_churn=40.0, s_noise=1.05), VESDE(), 0.5)
    assert wide > 0.02


def test_churn_stays_within_its_levels():
    sde = VESDE()
    sampler = SAMPLERS["heun"](steps=40, s_churn=10.0, s_min=0.1, s_max=5.0)
    gains, _ = laws.responses(sampler, sde, 0.5)
    times = sampler.grid.times(sde, 40)
    inside = [0.1 <= float(sde.sigma(t)) <= 5.0 for t in times[:-1]]
    used = (gains[1:41] != 0).tolist()
    assert used == inside


def test_milstein_equals_euler_maruyama_where_noise_does_not_depend_on_the_picture():
    for cls in SDES.values():
        ends = [laws.responses(SAMPLERS[n](steps=20), cls(), 0.5)[0] for n in ("em", "milstein")]
        assert torch.equal(*ends)


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
@pytest.mark.parametrize("grid", list(GRIDS))
def test_the_guard_keeps_sra1_from_exploding(steps, grid):
    """Unguarded it makes pictures 89 times too wide at ten steps on VE (engine table)."""
    for sde, std in itertools.product((VPSDE(), VESDE()), (0.5, 0.02)):
        guarded = SAMPLERS["sra1"](steps=steps, grid=GRIDS[grid]())
        ancestral = SAMPLERS["ancestral"](steps=steps, grid=GRIDS[grid]())
        most = max(1.0, 2 * abs(laws.end_error(ancestral, sde, std)))
        assert abs(laws.end_error(guarded, sde, std)) <= most
    wild = SAMPLERS["sra1"](steps=10, grid=GRIDS["time"](), guard=1000)
    assert laws.end_error(wild, VESDE(), 0.02) > 50
