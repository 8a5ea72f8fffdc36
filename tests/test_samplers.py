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
from studio.diffusion.sde import SDES, VESDE, VPSDE
from studio.errors import SolverError, SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = (3, 4, 4)
MANY = (3, 64, 64)  # every value is a sample of its own
#: What is built where exactness is measured, and where only behaviour is.
FINE = {"steps": 120}
FINE_OF = {"rk45": {"rtol": 1e-4, "atol": 1e-5}, "adaptive": {"rtol": 0.01, "atol": 0.001}}
ROUGH = {"rtol": 0.2, "atol": 0.2}

#: How far the spread may be off at 120 steps, in percent: twice the exact bias of a first-order
#: step there (test_oracle), plus three standard errors of 12288 values (1.9). Langevin at snr .16
#: keeps 1 / (1 - snr²) too much variance, 1.3 % of spread, on top of its predictor's. Annealed
#: Langevin lags behind its levels.
TOLERANCE = {"reverse": 10, "pc": 8, "em": 7, "milstein": 7, "ancestral": 9, "euler": 5, "ald": 14}
TOLERANCE["adaptive"] = 4  # of its own at .02, where its absolute tolerance is a twentieth
TOLERANCE["langevin"] = 7  # keeps 1 / (1 - snr²) too much variance, at snr .3

#: Every sampler with every SDE; everyday each sampler with one of them, which is drawn by its place.
PAIRS = [
    pytest.param(
        sde(),
        sampler,
        id=f"{name}-{sampler}",
        marks=[pytest.mark.slow] if (i + j) % len(SDES) else [],
    )
    for i, (name, sde) in enumerate(SDES.items())
    for j, sampler in enumerate(SAMPLERS)
]
every_pair = pytest.mark.parametrize(("sde", "sampler"), PAIRS)


def fine(sampler):
    return build(sampler, **FINE, **FINE_OF.get(sampler, {}))


def rough(sampler, steps):
    return build(sampler, steps=steps, **ROUGH)


def tolerance(sampler):
    return TOLERANCE.get(sampler, 2.4) / 100


def denoised_std(sde, std, t):
    """The deviation of E[x_0 | x_t] for pictures N(0, std²)."""
    a, s = (float(v) for v in sde.marginal(torch.tensor([t], dtype=torch.float64)))
    return a * std**2 / math.sqrt((a * std) ** 2 + s**2)


@every_pair
@pytest.mark.parametrize("std", [pytest.param(0.5, marks=pytest.mark.slow), 0.02])
def test_sampler_reaches_the_target_gaussian(sde, sampler, std):
    score = gaussian_score(sde, std, MANY, mean=0.3)
    *_, before, last = steps_of(fine(sampler), score, count=1)
    ratio = float(last.denoised.std()) / denoised_std(sde, std, before.t)
    assert ratio == pytest.approx(1, abs=tolerance(sampler))
    # Four standard errors, and on VE what the prior, which knows no mean, leaves: (std / 50)².
    allowed = 4 * std / math.sqrt(math.prod(MANY)) + 0.03 * tolerance(sampler)
    assert float(last.denoised.mean()) == pytest.approx(0.3, abs=allowed)


@every_pair
def test_sampler_reaches_the_target_mixture(sde, sampler):
    if sampler == "langevin":
        pytest.skip("at its one level the two parts of the mixture are one")
    means, std, weights = (-0.6, 0.4), 0.1, (0.3, 0.7)
    score = mixture_score(sde, means, std, weights, MANY)
    values = steps_of(fine(sampler), score, count=1)[-1].denoised.flatten()
    for mean, weight, part in zip(means, weights, (values < -0.1, values >= -0.1)):
        count = int(part.sum())
        error = math.sqrt(weight * (1 - weight) / len(values))
        assert count / len(values) == pytest.approx(weight, abs=5 * error + 0.02)
        assert float(values[part].mean()) == pytest.approx(mean, abs=0.015)
        spread = float(values[part].std()) / denoised_std(sde, std, sde.eps)
        assert spread == pytest.approx(1, abs=tolerance(sampler) + 0.02)


@every_sampler
def test_the_last_step_has_the_result_and_the_calls_add_up(sampler):
    chosen = rough(sampler, 12)
    steps = steps_of(chosen, gaussian_score(VPSDE(), 0.5, SMALL))
    *before, last = steps
    assert last.finished
    assert last.t == 0
    assert not any(step.finished for step in before)
    assert torch.equal(last.x, last.denoised)
    assert [s.index for s in before] == list(range(1, len(before) + 1))
    assert all(a.t >= b.t and a.nfe <= b.nfe for a, b in itertools.pairwise(steps))
    if sampler != "langevin":  # stays at its level
        assert before[-1].t == pytest.approx(VPSDE.eps)
    assert chosen.cost() in (None, last.nfe)


@every_sampler
def test_calls_are_counted_honestly(sampler):
    exact, calls = gaussian_score(VPSDE(), 0.5, SMALL), []

    def fn(x, t):
        calls.append(len(x))
        return exact(x, t)

    last = steps_of(rough(sampler, 7), Score.from_function(fn, exact.sde, SMALL))[-1]
    assert last.nfe == len(calls)


@every_pair
def test_a_picture_does_not_depend_on_its_batch_mates(sde, sampler):
    score = mixture_score(sde, (-0.6, 0.4), 0.1, (0.3, 0.7), SMALL)
    chosen = rough(sampler, 20)
    alone = steps_of(chosen, score, seed=7, count=1, dtype=None)[-1].denoised
    together = steps_of(chosen, score, seed=0, count=8, dtype=None)[-1].denoised
    # One step of an eight-bit picture is 1 / 255 of the range of 2.
    assert float((alone[0] - together[7]).abs().max()) < 2 / 255


@every_sampler
def test_a_networks_picture_does_not_depend_on_its_batch_mates(sampler):
    sde, net = VPSDE(), tiny_network(classes=0)
    score = network_score(net, OUTPUTS["edm"](), sde, (3, 8, 8))
    chosen = rough(sampler, 10)
    alone = steps_of(chosen, score, seed=7, count=1, dtype=None)[-1].denoised
    together = steps_of(chosen, score, seed=0, count=8, dtype=None)[-1].denoised
    assert float((alone[0] - together[7]).abs().max()) < 2 / 255


@every_pair
def test_a_run_goes_on_from_any_of_its_steps_as_if_it_had_never_stopped(sde, sampler):
    score, chosen = gaussian_score(sde, 0.5, SMALL), rough(sampler, 9)
    whole = steps_of(chosen, score, dtype=None)
    few = len(whole) // 12 + 1
    for kept in whole[:-1][::few]:
        rest = list(chosen.run(score, noise_for(chosen, score), resume=kept))
        assert len(rest) == len(whole) - kept.index
        for ours, wanted in zip(rest, whole[kept.index :]):
            assert torch.equal(ours.x, wanted.x)
            assert torch.equal(ours.denoised, wanted.denoised)
            assert (ours.index, ours.t, ours.nfe) == (wanted.index, wanted.t, wanted.nfe)


@every_sampler
def test_a_run_that_was_closed_goes_on_from_a_kept_step(sampler):
    score, chosen = gaussian_score(VPSDE(), 0.5, SMALL), rough(sampler, 9)
    whole = steps_of(chosen, score, dtype=None)
    run = chosen.run(score, noise_for(chosen, score))
    kept = [next(run), next(run)][-1]
    run.close()
    rest = list(chosen.run(score, noise_for(chosen, score), resume=kept))
    assert torch.equal(rest[-1].denoised, whole[-1].denoised)


@every_sampler
def test_a_finished_run_has_nothing_more_to_do(sampler):
    score, chosen = gaussian_score(VPSDE(), 0.5, SMALL), rough(sampler, 5)
    last = steps_of(chosen, score, dtype=None)[-1]
    rest = list(chosen.run(score, noise_for(chosen, score), resume=last))
    assert [step.finished for step in rest] == [True]
    assert torch.equal(rest[0].denoised, last.denoised)
    assert rest[0].nfe == last.nfe


#: Not Langevin's chain, which is at one time, nor the adaptive solver, which looks ahead of it.
BRANCHING = [name for name in SAMPLERS if name not in ("langevin", "adaptive")]


@pytest.mark.parametrize("sampler", BRANCHING)
def test_a_branch_shares_what_came_before_it(sampler):
    score, chosen = gaussian_score(VPSDE(), 0.5, SMALL), rough(sampler, 8)
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
    score, chosen = gaussian_score(VPSDE(), 0.5, SMALL), rough(sampler, 6)
    start = torch.full((2, *SMALL), 0.25)
    first = next(chosen.run(score, noise_for(chosen, score), start=start))
    other = next(chosen.run(score, noise_for(chosen, score), start=-start))
    assert not torch.allclose(first.x, other.x)
    assert torch.equal(start, torch.full((2, *SMALL), 0.25)), "the start must stay as it was"


@every_sampler
def test_gradients_are_on_for_whoever_consumes_the_run(sampler):
    score, chosen = gaussian_score(VPSDE(), 0.5, SMALL), rough(sampler, 4)
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
        steps_of(rough(sampler, 4), broken)
    assert caught.value.hint


BAD = [
    *[(name, {"steps": 0}) for name, cls in SAMPLERS.items() if "steps" in spec.hints(cls)],
    ("dpm2m", {"steps": -3}),
    *[(name, {key: 0.0}) for name in ("rk45", "adaptive") for key in ("rtol", "atol")],
    *[(name, {"rtol": math.nan}) for name in ("rk45", "adaptive")],
    ("ancestral", {"eta": 1.5}),
    ("dpm2m-sde", {"eta": -0.1}),
    ("unipc", {"order": 4}),
    ("sra1", {"guard": 0.0}),
    ("heun", {"s_noise": 3.0}),
    ("euler", {"s_churn": 5.0, "s_min": 2.0, "s_max": 1.0}),
    ("langevin", {"snr": 0.0}),
    ("langevin", {"sigma": 500.0}),
    ("ald", {"repeats": 0}),
    ("ald", {"size": 2.0}),
    ("ald", {"levels": "some"}),
    ("pc", {"corrector": CORRECTORS["langevin"](snr=0.0)}),
    ("pc", {"corrector": CORRECTORS["langevin"](steps=0)}),
    ("pc", {"corrector": CORRECTORS["ald"](snr=0.0)}),
    ("adaptive", {"corrector": CORRECTORS["ald"](steps=0)}),
    ("pc", {"predictor": PREDICTORS["heun"](s_min=2.0, s_max=1.0)}),
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
    steps = steps_of(chosen, gaussian_score(VESDE(), 0.5, (1, 16, 16)), count=1)
    assert steps[-1].nfe == chosen.cost()
    assert float(steps[-1].denoised.std()) == pytest.approx(0.5, rel=0.35)


@every_sampler
def test_few_steps_stay_finite(sampler):
    last = steps_of(rough(sampler, 1), gaussian_score(VPSDE(), 0.5, SMALL))[-1]
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


@every_pair
def test_a_run_may_begin_on_the_way(sde, sampler):
    """From pictures noised to time .5 the way back leads to the law of the pictures."""
    std, begin = 0.5, 0.5
    score, chosen = gaussian_score(sde, std, MANY), fine(sampler)
    a, s = (float(v) for v in sde.marginal(torch.tensor([begin], dtype=torch.float64)))
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, *MANY, generator=generator, dtype=torch.float64) * math.hypot(a * std, s)
    noise = noise_for(chosen, score, count=1, dtype=torch.float64)
    steps = list(chosen.run(score, noise, start=start, begin=begin))
    assert all(step.t <= begin for step in steps)
    ratio = float(steps[-1].denoised.std()) / denoised_std(sde, std, steps[-2].t)
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
    chosen, condition = build(sampler, steps=30, rtol=0.01, atol=0.005), ClassLabel((1, 0, 1))
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
    for free in (build("rk45"), build("adaptive")):
        with pytest.raises(SpecError, match="fixed steps"):
            list(free.run(score, noise_for(free, score), condition=pinned))


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
