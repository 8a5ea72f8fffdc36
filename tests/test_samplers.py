"""Every sampler on scores whose answer is known: it arrives, repeats itself, stops and goes on."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import (
    build,
    every_sampler,
    every_sde,
    gaussian_score,
    mixture_score,
    noise_for,
    steps_of,
    tiny_network,
)

from studio import spec
from studio.diffusion.catalog import PRESETS, SAMPLERS
from studio.diffusion.conditions import ClassLabel, Condition
from studio.diffusion.correctors import CORRECTORS
from studio.diffusion.grids import GRIDS
from studio.diffusion.predictors import PREDICTORS
from studio.diffusion.sampler import Sampler
from studio.diffusion.score import OUTPUTS, Score, network_score
from studio.diffusion.sde import VESDE, VPSDE
from studio.errors import SolverError, SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = (3, 4, 4)
MANY = (3, 64, 64)  # every value is a sample of its own
FINE = {"steps": 250, "rtol": 1e-4, "atol": 1e-5}

#: How far the spread may be off at 250 steps, in percent: twice the exact bias of a first-order
#: step there (test_oracle), plus three standard errors of 24576 values (1.4). Langevin at snr .16
#: keeps 1 / (1 - snr²) too much variance, 1.3 % of spread, on top of its predictor's.
TOLERANCE = {"reverse": 6, "pc": 6, "em": 5, "ancestral": 5, "euler": 3}


def tolerance(sampler):
    return TOLERANCE.get(sampler, 1.6) / 100


def denoised_std(sde, std):
    """The deviation of E[x_0 | x_eps] for pictures N(0, std²)."""
    a, s = (float(v) for v in sde.marginal(torch.tensor([sde.eps], dtype=torch.float64)))
    return a * std**2 / math.sqrt((a * std) ** 2 + s**2)


@every_sde
@every_sampler
@pytest.mark.parametrize("std", [0.5, 0.02])
def test_sampler_reaches_the_target_gaussian(sde, sampler, std):
    last = steps_of(build(sampler, **FINE), gaussian_score(sde, std, MANY, mean=0.3))[-1]
    ratio = float(last.denoised.std()) / denoised_std(sde, std)
    assert ratio == pytest.approx(1, abs=tolerance(sampler))
    # Four standard errors, and on VE what the prior, which knows no mean, leaves: (std / 50)².
    allowed = 4 * std / math.sqrt(2 * math.prod(MANY)) + 0.3 * tolerance(sampler) * 0.1
    assert float(last.denoised.mean()) == pytest.approx(0.3, abs=allowed)


@every_sde
@every_sampler
def test_sampler_reaches_the_target_mixture(sde, sampler):
    means, std, weights = (-0.6, 0.4), 0.1, (0.3, 0.7)
    score = mixture_score(sde, means, std, weights, MANY)
    values = steps_of(build(sampler, **FINE), score)[-1].denoised.flatten()
    for mean, weight, part in zip(means, weights, (values < -0.1, values >= -0.1)):
        count = int(part.sum())
        error = math.sqrt(weight * (1 - weight) / len(values))
        assert count / len(values) == pytest.approx(weight, abs=5 * error + 0.02)
        assert float(values[part].mean()) == pytest.approx(mean, abs=0.012)
        spread = float(values[part].std()) / denoised_std(sde, std)
        assert spread == pytest.approx(1, abs=tolerance(sampler) + 0.02)


@every_sampler
def test_the_last_step_has_the_result_and_the_calls_add_up(sampler):
    chosen = build(sampler, steps=12)
    steps = steps_of(chosen, gaussian_score(VPSDE(), 0.5, SMALL))
    *before, last = steps
    assert last.finished
    assert last.t == 0
    assert not any(step.finished for step in before)
    assert torch.equal(last.x, last.denoised)
    assert [s.index for s in before] == list(range(1, len(before) + 1))
    assert all(a.t >= b.t and a.nfe <= b.nfe for a, b in itertools.pairwise(steps))
    assert before[-1].t == pytest.approx(VPSDE.eps)
    assert chosen.cost() in (None, last.nfe)


@every_sampler
def test_calls_are_counted_honestly(sampler):
    exact, calls = gaussian_score(VPSDE(), 0.5, SMALL), []

    def fn(x, t):
        calls.append(len(x))
        return exact(x, t)

    last = steps_of(build(sampler, steps=7), Score.from_function(fn, exact.sde, SMALL))[-1]
    assert last.nfe == len(calls)


@every_sde
@every_sampler
def test_a_picture_does_not_depend_on_its_batch_mates(sde, sampler):
    score = mixture_score(sde, (-0.6, 0.4), 0.1, (0.3, 0.7), SMALL)
    chosen = build(sampler, steps=20)
    alone = steps_of(chosen, score, seed=7, count=1, dtype=None)[-1].denoised
    together = steps_of(chosen, score, seed=0, count=8, dtype=None)[-1].denoised
    # One step of an eight-bit picture is 1 / 255 of the range of 2.
    assert float((alone[0] - together[7]).abs().max()) < 2 / 255


@every_sampler
def test_a_networks_picture_does_not_depend_on_its_batch_mates(sampler):
    sde, net = VPSDE(), tiny_network(classes=0)
    score = network_score(net, OUTPUTS["edm"](), sde, (3, 8, 8))
    chosen = build(sampler, steps=10)
    alone = steps_of(chosen, score, seed=7, count=1, dtype=None)[-1].denoised
    together = steps_of(chosen, score, seed=0, count=8, dtype=None)[-1].denoised
    assert float((alone[0] - together[7]).abs().max()) < 2 / 255


@every_sde
@every_sampler
@pytest.mark.parametrize("stop", [1, 4, -2])
def test_a_run_that_was_closed_goes_on_from_a_kept_step(sde, sampler, stop):
    score, chosen = gaussian_score(sde, 0.5, SMALL), build(sampler, steps=9)
    whole = steps_of(chosen, score, dtype=None)
    kept, run = None, chosen.run(score, noise_for(chosen, score))
    for step in run:
        kept = step
        if step.index == whole[stop].index:
            break
    run.close()
    rest = list(chosen.run(score, noise_for(chosen, score), resume=kept))
    assert len(rest) == len(whole) - kept.index
    for ours, wanted in zip(rest, whole[kept.index :]):
        assert torch.equal(ours.x, wanted.x)
        assert torch.equal(ours.denoised, wanted.denoised)
        assert (ours.index, ours.t, ours.nfe) == (wanted.index, wanted.t, wanted.nfe)


@every_sampler
def test_a_finished_run_has_nothing_more_to_do(sampler):
    score, chosen = gaussian_score(VPSDE(), 0.5, SMALL), build(sampler, steps=5)
    last = steps_of(chosen, score, dtype=None)[-1]
    rest = list(chosen.run(score, noise_for(chosen, score), resume=last))
    assert [step.finished for step in rest] == [True]
    assert torch.equal(rest[0].denoised, last.denoised)
    assert rest[0].nfe == last.nfe


@every_sampler
def test_a_branch_shares_what_came_before_it(sampler):
    score, chosen = gaussian_score(VPSDE(), 0.5, SMALL), build(sampler, steps=8)
    whole = steps_of(chosen, score, dtype=None)
    kept = whole[len(whole) // 2]
    other = noise_for(chosen, score).branch(kept.t, seed=3)
    branched = list(chosen.run(score, other))
    assert torch.equal(branched[kept.index - 1].x, kept.x)
    assert torch.equal(branched[-1].x, whole[-1].x) == (not chosen.stochastic)
    resumed = list(chosen.run(score, other, resume=kept))[-1]
    assert torch.equal(resumed.x, branched[-1].x)


@every_sampler
def test_a_start_of_ones_own_is_used(sampler):
    score, chosen = gaussian_score(VPSDE(), 0.5, SMALL), build(sampler, steps=6)
    start = torch.full((2, *SMALL), 0.25)
    first = next(chosen.run(score, noise_for(chosen, score), start=start))
    other = next(chosen.run(score, noise_for(chosen, score), start=-start))
    assert not torch.allclose(first.x, other.x)
    assert torch.equal(start, torch.full((2, *SMALL), 0.25)), "the start must stay as it was"


@every_sampler
def test_gradients_are_on_for_whoever_consumes_the_run(sampler):
    score, chosen = gaussian_score(VPSDE(), 0.5, SMALL), build(sampler, steps=4)
    for step in chosen.run(score, noise_for(chosen, score)):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad
    with torch.no_grad():
        list(chosen.run(score, noise_for(chosen, score)))
        assert not torch.is_grad_enabled()


@every_sampler
def test_scores_that_are_not_numbers_stop_the_run_with_a_clear_word(sampler):
    broken = Score.from_function(lambda x, t: x * math.nan, VPSDE(), SMALL)
    with pytest.raises(SolverError) as caught:
        steps_of(build(sampler, steps=4), broken)
    assert caught.value.hint


BAD = [
    *[(name, {"steps": 0}) for name in SAMPLERS if name != "rk45"],
    ("dpm2m", {"steps": -3}),
    ("rk45", {"rtol": 0.0}),
    ("rk45", {"atol": 0.0}),
    ("rk45", {"rtol": math.nan}),
    ("ancestral", {"eta": 1.5}),
    ("pc", {"corrector": CORRECTORS["langevin"](snr=0.0)}),
    ("pc", {"corrector": CORRECTORS["langevin"](steps=0)}),
    ("pc", {"grid": GRIDS["power"](rho=0.0)}),
]


@pytest.mark.parametrize(("sampler", "options"), BAD)
def test_bad_options_are_refused_before_the_first_step(sampler, options):
    touched = []
    score = Score.from_function(lambda x, t: touched.append(1) or -x, VPSDE(), SMALL)
    with pytest.raises(SpecError):
        steps_of(SAMPLERS[sampler](**options), score)
    assert not touched


@pytest.mark.parametrize("predictor", list(PREDICTORS))
@pytest.mark.parametrize("corrector", list(CORRECTORS))
@pytest.mark.parametrize("grid", list(GRIDS))
def test_every_combination_of_parts_runs(predictor, corrector, grid):
    parts = {"predictor": predictor, "corrector": corrector, "grid": grid}
    chosen = spec.from_dict(Sampler, {"kind": "pc", "steps": 30, **parts})
    steps = steps_of(chosen, gaussian_score(VESDE(), 0.5, (1, 16, 16)))
    assert steps[-1].nfe == chosen.cost()
    assert float(steps[-1].denoised.std()) == pytest.approx(0.5, rel=0.35)


@every_sampler
def test_few_steps_stay_finite(sampler):
    last = steps_of(build(sampler, steps=1), gaussian_score(VPSDE(), 0.5, SMALL))[-1]
    assert bool(torch.isfinite(last.denoised).all())


@every_sde
@pytest.mark.parametrize("grid", [cls() for cls in GRIDS.values()], ids=list(GRIDS))
@pytest.mark.parametrize("begin", [1.0, 0.4])
def test_grids_fall_from_where_a_run_begins_to_where_it_ends(sde, grid, begin):
    times = grid.times(sde, 17, begin)
    assert times.shape == (18,)
    assert times.dtype == torch.float64
    assert float(times[0]) == begin
    assert float(times[-1]) == sde.eps
    assert bool((times.diff() < 0).all())


@every_sde
@every_sampler
def test_a_run_may_begin_on_the_way(sde, sampler):
    """From pictures noised to time .5 the way back leads to the law of the pictures."""
    std, begin = 0.5, 0.5
    score, chosen = gaussian_score(sde, std, MANY), build(sampler, **FINE)
    a, s = (float(v) for v in sde.marginal(torch.tensor([begin], dtype=torch.float64)))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, *MANY, generator=generator, dtype=torch.float64) * math.hypot(a * std, s)
    noise = noise_for(chosen, score, count=1, dtype=torch.float64)
    steps = list(chosen.run(score, noise, start=start, begin=begin))
    assert all(step.t < begin for step in steps)
    ratio = float(steps[-1].denoised.std()) / denoised_std(sde, std)
    assert ratio == pytest.approx(1, abs=tolerance(sampler))
    kept = steps[len(steps) // 2]
    rest = list(chosen.run(score, noise, begin=begin, resume=kept))
    assert torch.equal(rest[-1].denoised, steps[-1].denoised)


@every_sampler
def test_a_class_condition_samples_its_class(sampler):
    sde, means = VPSDE(), torch.tensor([-0.6, 0.4])

    def conditional(labels):
        def fn(x, t):
            a, s = (v.reshape(-1, 1, 1, 1) for v in sde.marginal(t))
            mean = means.to(x)[labels].reshape(-1, 1, 1, 1)
            return (a * mean - x) / ((a * 0.1) ** 2 + s**2)

        return fn

    free = conditional(torch.zeros(3, dtype=torch.long))
    score = Score(free, sde, (1, 8, 8), (-1.0, 1.0), ("dark", "light"), conditional)
    chosen, condition = build(sampler, steps=30), ClassLabel((1, 0, 1))
    steps = list(chosen.run(score, noise_for(chosen, score, count=3), condition=condition))
    assert steps[-1].denoised.flatten(1).mean(1).tolist() == pytest.approx(
        [0.4, -0.6, 0.4], abs=0.06
    )
    assert steps[-1].nfe > 5, "calls of the class score are counted too"


def test_a_corrector_mends_what_the_predictor_got_wrong():
    score = gaussian_score(VPSDE(), 0.5, MANY)
    coarse = {"steps": 20, "predictor": PREDICTORS["ancestral"]()}
    plain, mended = (
        abs(float(steps_of(SAMPLERS["pc"](corrector=c, **coarse), score)[-1].denoised.std()) - 0.5)
        for c in (CORRECTORS["none"](), CORRECTORS["langevin"](steps=4))
    )
    assert mended < plain / 2


def test_known_values_are_put_back_at_every_level():
    class Pinned(Condition):
        """The first channel is known to be 0.5."""

        seen: list = []

        def constrain(self, x, t, sde, noise):
            self.seen.append(t)
            return torch.cat([torch.full_like(x[:, :1], 0.5), x[:, 1:]], 1)

    score, chosen, pinned = gaussian_score(VPSDE(), 0.5, SMALL), build("pc", steps=5), Pinned()
    steps = list(chosen.run(score, noise_for(chosen, score), condition=pinned))
    assert all(bool((step.x[:, 0] == 0.5).all()) for step in steps)
    assert pinned.seen[-1] == 0.0
    with pytest.raises(SpecError, match="fixed steps"):
        list(build("rk45").run(score, noise_for(build("rk45"), score), condition=pinned))


def test_the_same_path_drives_samplers_with_different_steps():
    """More steps keep the same picture: strong convergence along one Brownian path."""
    score = mixture_score(VPSDE(), (-0.6, 0.4), 0.1, (0.3, 0.7), (1, 32, 32))
    pictures = [
        steps_of(build("em", steps=n), score, count=1)[-1].denoised.flatten() for n in (100, 200)
    ]
    assert float(torch.corrcoef(torch.stack(pictures))[0, 1]) > 0.9


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_sound(name):
    title, sampler = PRESETS[name]
    spec.check(sampler)
    assert title
    assert spec.from_dict(Sampler, spec.to_dict(sampler)) == sampler
