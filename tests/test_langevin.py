"""Langevin samplers: where they settle, and the published choices of levels and steps."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import gaussian_score, noise_for, steps_of

from studio.diffusion import laws
from studio.diffusion.langevin import (
    AnnealedLangevinDynamics,
    LangevinDynamics,
    levels_for,
    step_size,
    variance_after,
)
from studio.diffusion.sde import VESDE, VPSDE
from studio.errors import SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (1, 8, 8)


@pytest.mark.parametrize(
    ("sigma_max", "side", "levels", "size"),
    [(50.0, 32, 232, 6.2e-6), (90.0, 64, 500, 3.3e-6), (190.0, 128, 1086, None)],
    ids=["cifar-10", "celeba-64", "bedroom-128"],
)
def test_the_choices_of_ncsnv2_come_out(sigma_max, side, levels, size):
    """Levels from the largest to .01, and step size at five steps a level, as its paper lists them.

    The paper solves its criterion "approximately": its counts of levels are 6 % above the solution.
    """
    sde = VESDE(sigma_min=0.01, sigma_max=sigma_max)
    ours = levels_for(sde, 3 * side * side)
    assert ours == pytest.approx(levels, rel=0.07)
    if size is not None:
        ratio = (sigma_max / 0.01) ** (1 / (levels - 1))
        assert step_size(ratio, 5) * 0.01**2 == pytest.approx(size, rel=0.05)


def test_the_criterion_counts_variance_rightly():
    """Against the recursion V <- (1 - e)² V + 2 e, in units of the level's variance."""
    for ratio, repeats, size in ((1.04, 5, 0.06), (1.6, 100, 0.1), (3.0, 2, 0.5)):
        variance = ratio**2
        for _ in range(repeats):
            variance = (1 - size) ** 2 * variance + 2 * size
        assert variance_after(ratio, repeats, size) == pytest.approx(variance, rel=1e-12)


def test_the_step_is_the_one_that_the_criterion_likes_best():
    best = step_size(1.1, 5)
    for other in (best * 0.8, best * 1.25):
        assert abs(variance_after(1.1, 5, best) - 1) <= abs(variance_after(1.1, 5, other) - 1)


def test_annealed_langevin_visits_its_levels_and_no_others():
    score, sampler = (
        gaussian_score(VESDE(), 0.5, SHAPE),
        AnnealedLangevinDynamics(steps=7, repeats=3),
    )
    steps = steps_of(sampler, score)
    sigmas = [float(VESDE().sigma(torch.tensor(s.t, dtype=torch.float64))) for s in steps[:-1]]
    assert len(sigmas) == 7
    ratios = [a / b for a, b in zip([50.0, *sigmas], sigmas)]
    assert ratios == pytest.approx([ratios[0]] * 7)
    assert sampler.cost() == steps[-1].nfe == 22


def test_the_papers_number_of_levels_goes_by_the_size_of_the_picture():
    sampler = AnnealedLangevinDynamics(levels="paper", repeats=1)
    assert sampler.cost() is None
    few, many = (
        len(steps_of(sampler, gaussian_score(VESDE(), 0.5, shape), count=1))
        for shape in (SHAPE, (3, 16, 16))
    )
    assert few - 1 == levels_for(VESDE(), 64)
    assert many > few


def test_more_steps_per_level_lag_less():
    few, many = (
        abs(laws.end_error(AnnealedLangevinDynamics(steps=60, repeats=n), VESDE(), 0.5))
        for n in (2, 20)
    )
    assert many < few / 2


def test_plain_langevin_stays_at_its_level():
    sampler = LangevinDynamics(steps=5, sigma=0.2)
    *steps, last = steps_of(sampler, gaussian_score(VPSDE(), 0.5, SHAPE))
    wanted = float(VPSDE().time(torch.tensor([0.2], dtype=torch.float64)))
    assert [step.t for step in steps] == [wanted] * 5
    assert last.nfe == sampler.cost() == 6


@pytest.mark.parametrize("begin", [0.05, 0.9])
def test_a_start_is_brought_to_the_level(begin):
    """y = x / a is kept on the way to a finer level; to a noisier one the missing noise is added."""
    sde, sampler = VPSDE(), LangevinDynamics(steps=1, sigma=1.0, snr=0.001)
    score = gaussian_score(sde, 0.5, (3, 32, 32))
    a, s = (float(v) for v in sde.marginal(torch.tensor([begin], dtype=torch.float64)))
    start = torch.full((1, 3, 32, 32), 0.4 * a, dtype=torch.float64)
    noise = noise_for(sampler, score, count=1, dtype=torch.float64)
    first = next(sampler.run(score, noise, start=start, begin=begin))
    level, _ = (float(v) for v in sde.marginal(torch.tensor([first.t], dtype=torch.float64)))
    assert float(first.x.mean()) / level == pytest.approx(0.4, abs=0.08)
    added = math.sqrt(max(0.0, 1 - (s / a) ** 2))
    assert float(first.x.std()) / level == pytest.approx(added, abs=0.05)


def test_a_level_that_the_model_does_not_have_is_refused():
    with pytest.raises(SpecError, match=r"from 0\.01.* to 50"):
        steps_of(LangevinDynamics(sigma=60.0), gaussian_score(VESDE(), 0.5, SHAPE))
