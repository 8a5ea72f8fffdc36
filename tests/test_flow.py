"""The probability-flow ODE against its closed form and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import build, every_sde, gaussian_score, mixture_score, noise_for, steps_of
from scipy.integrate import solve_ivp

from studio.diffusion.flow import DormandPrince, flow
from studio.diffusion.noise import Noise
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import VPSDE
from studio.errors import SolverError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 8, 8)


def exact_end(score, std, start):
    """On N(0, std²) the flow only scales: x_eps / x_1 is the ratio of the deviations."""
    ends = torch.tensor([1.0, score.sde.eps], dtype=torch.float64)
    a, s = score.sde.marginal(ends)
    deviation = torch.sqrt((a * std) ** 2 + s**2)
    return start * float(deviation[1] / deviation[0])


def arrival(sampler, score, **options):
    """(start, x at eps) of a run in float64."""
    steps = steps_of(sampler, score, **options)
    noise = noise_for(sampler, score, dtype=torch.float64)
    return noise.start() * score.sde.prior_std, steps[-2].x


@every_sde
@pytest.mark.parametrize("std", [0.5, 0.02])
def test_error_falls_with_the_tolerance(sde, std):
    score, errors = gaussian_score(sde, std, SHAPE), []
    for tol in (1e-2, 1e-4, 1e-6):
        start, end = arrival(DormandPrince(rtol=tol, atol=tol / 10), score)
        errors.append(float((end - exact_end(score, std, start)).abs().max()))
    assert errors[1] < errors[0] / 5
    assert errors[2] < errors[1] / 5
    assert errors[2] < 2e-5 * max(1, sde.prior_std)


@every_sde
def test_float32_arrives_too(sde):
    score = gaussian_score(sde, 0.5, SHAPE)
    start = Noise.of(0, 2, SHAPE, sde).start() * sde.prior_std
    *_, before, last = DormandPrince().run(score, noise_for(DormandPrince(), score))
    assert last.finished
    assert last.x.dtype == torch.float32
    torch.testing.assert_close(before.x, exact_end(score, 0.5, start), rtol=0.02, atol=0.01)


@every_sde
def test_solvers_follow_scipy_where_no_closed_form_exists(sde):
    score = mixture_score(sde, (-0.6, 0.4), 0.1, (0.3, 0.7), (1, 4, 4))
    shape = (2, 1, 4, 4)

    def slope(t, x):
        at = torch.tensor([t, t], dtype=torch.float64)
        return flow(score, torch.from_numpy(x).reshape(shape), at).numpy().ravel()

    start, ours = arrival(DormandPrince(rtol=1e-6, atol=1e-7), score)
    path = solve_ivp(
        slope, (1.0, sde.eps), start.numpy().ravel(), method="DOP853", rtol=1e-9, atol=1e-10
    )
    wanted = path.y[:, -1].reshape(shape)
    np.testing.assert_allclose(ours.numpy(), wanted, atol=2e-4)
    for sampler, steps, allowed in (
        ("heun", 400, 2e-3),
        ("dpm2m", 800, 2e-3),
        ("euler", 1500, 0.05),
    ):
        end = arrival(build(sampler, steps=steps), score)[1].numpy()
        np.testing.assert_allclose(end, wanted, atol=allowed)


@every_sde
def test_every_sample_has_steps_of_its_own(sde):
    """A stiff picture in the batch does not change the others by one bit."""
    easy, hard = gaussian_score(sde, 0.5, SHAPE), gaussian_score(sde, 0.02, SHAPE)

    def fn(x, t):
        return torch.cat([easy(x[:1], t[:1]), hard(x[1:], t[1:])])

    start = Noise.of(0, 2, SHAPE, sde, dtype=torch.float64).start() * sde.prior_std
    both = Score.from_function(fn, sde, SHAPE)
    *_, together = DormandPrince().run(both, noise_for(DormandPrince(), both), start=start)
    *_, alone = DormandPrince().run(easy, noise_for(DormandPrince(), easy), start=start[:1])
    torch.testing.assert_close(together.denoised[:1], alone.denoised, rtol=1e-12, atol=1e-12)


@every_sde
def test_the_estimate_on_the_way_is_tweedies(sde):
    score = gaussian_score(sde, 0.5, SHAPE)
    for step in steps_of(DormandPrince(), score)[:-1]:
        t = step.memory["t"]
        wanted = score.denoised(step.x, t)
        torch.testing.assert_close(step.denoised, wanted, rtol=1e-5, atol=1e-5)


@every_sde
def test_flow_keeps_the_marginals(sde):
    """The flow changes the variance as the SDE does: 2 x dx/dt = dVar/dt for x of deviation one."""
    std, t = 0.5, torch.tensor([0.02, 0.3, 0.9], dtype=torch.float64)
    a, s = sde.marginal(t)
    f, g = sde.coefficients(t)
    variance = (a * std) ** 2 + s**2
    x = torch.ones(3, 1, 1, 1, dtype=torch.float64)
    ours = flow(gaussian_score(sde, std, (1, 1, 1)), x, t)
    wanted = (2 * f * variance + g**2) / (2 * variance)
    torch.testing.assert_close(ours, expand(wanted, x))


def test_a_flow_that_cannot_be_followed_says_so():
    stiff = Score.from_function(lambda x, t: -1e9 * (x - torch.sin(1e7 * x)), VPSDE(), (1, 2, 2))
    with pytest.raises(SolverError, match=r"stiff|diverged"):
        steps_of(DormandPrince(rtol=1e-7, atol=1e-7), stiff, count=1)
