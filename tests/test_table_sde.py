"""The SDE of discrete schedules: exact at the steps, smooth and rising in between."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import build as sampler_of
from conftest import gaussian_score, steps_of

from studio import spec
from studio.diffusion.objectives import FIRST_TIME
from studio.diffusion.sde import SDE, VPSDE, TableVPSDE, step_betas
from studio.errors import SpecError

WILD = tuple(np.random.default_rng(0).uniform(1e-4, 0.4, 40).tolist())
every_table = pytest.mark.parametrize(
    "sde",
    [
        TableVPSDE(),
        TableVPSDE("scaled_linear", 0.00085, 0.012),
        TableVPSDE("squaredcos_cap_v2"),
        TableVPSDE("squaredcos_cap_v2", steps=50),
        TableVPSDE("sigmoid"),
        TableVPSDE(steps=10, beta_start=0.05, beta_end=0.3),
        TableVPSDE(betas=WILD),
        TableVPSDE(betas=(0.5, 1e-4)),
    ],
    ids=["linear", "scaled", "cosine", "cosine-50", "sigmoid", "short", "wild", "two"],
)


def steps(sde):
    return torch.arange(1, sde.count + 1, dtype=torch.float64) / sde.count


def between(sde):
    return torch.linspace(0, 1, 20 * sde.count + 1, dtype=torch.float64)


@every_table
def test_steps_have_the_products_of_their_betas(sde):
    bars = np.cumprod(1 - np.array(step_betas(sde)))
    a, s = sde.marginal(steps(sde))
    np.testing.assert_allclose(a.numpy() ** 2, bars, rtol=1e-11)
    np.testing.assert_allclose(s.numpy() ** 2, 1 - bars, rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
@pytest.mark.parametrize("count", [1000, 37])
def test_schedules_are_those_of_diffusers(schedule, count):
    scheduler = pytest.importorskip("diffusers").DDPMScheduler(count, beta_schedule=schedule)
    ours = TableVPSDE(schedule, steps=count)
    np.testing.assert_allclose(step_betas(ours), scheduler.betas.numpy(), rtol=2e-3, atol=1e-7)
    bars = scheduler.alphas_cumprod.double()
    torch.testing.assert_close(ours.marginal(steps(ours))[0] ** 2, bars, rtol=2e-4, atol=1e-9)


@every_table
def test_between_the_steps_noise_rises_smoothly(sde):
    t = between(sde)
    f, g = sde.coefficients(t)
    assert bool((g > 0).all())
    torch.testing.assert_close(f, -(g**2) / 2)
    assert bool((sde.sigma(t).diff() > 0).all())
    # No jump in beta at a step: both sides of it have the same.
    left, right = steps(sde)[:-1] - 1e-9, steps(sde)[:-1] + 1e-9
    torch.testing.assert_close(
        sde.coefficients(left)[1], sde.coefficients(right)[1], rtol=1e-4, atol=0
    )


@every_table
@pytest.mark.parametrize(("dtype", "off"), [(torch.float64, 1e-11), (torch.float32, 3e-5)])
def test_time_inverts_sigma_everywhere(sde, dtype, off):
    t = between(sde).to(dtype)[1:]
    back = sde.time(sde.sigma(t))
    assert back.dtype == dtype
    # One unit in the last place of sigma, taken back through its slope.
    slack = torch.finfo(dtype).eps * 4 / (sde.coefficients(t)[1] ** 2 * t)
    assert bool(((back - t).abs() / t <= off + slack).all())


@every_table
def test_levels_beyond_the_table_have_its_ends(sde):
    ends = sde.time(torch.tensor([0.0, 1e9], dtype=torch.float64))
    assert ends.tolist() == [0.0, 1.0]


def test_the_linear_one_is_the_paper_s_vp_in_steps():
    """beta_i = beta(t) / N: the discrete chain and its limit agree to about 1 / N."""
    t = steps(TableVPSDE())
    ours, limit = TableVPSDE().log_snr(t), VPSDE().log_snr(t)
    assert float((ours - limit).abs().max()) < 0.12
    torch.testing.assert_close(
        TableVPSDE().sigma(t[100:]).log(), VPSDE().sigma(t[100:]).log(), rtol=0, atol=0.06
    )


@every_table
def test_single_precision_keeps_its_digits_where_pictures_form(sde):
    t = torch.tensor([FIRST_TIME, 1e-4, sde.eps, 2 * sde.eps]).float()
    for ours, exact in zip(sde.marginal(t), sde.marginal(t.double())):
        torch.testing.assert_close(ours.double(), exact, rtol=2e-6, atol=0)


def test_sampling_stops_at_the_first_step():
    sde = TableVPSDE("squaredcos_cap_v2", steps=50)
    assert sde.eps == 1 / 50
    last = steps_of(sampler_of("dpm2m", steps=40), gaussian_score(sde, 0.5, (1, 16, 16)))[-1]
    assert float(last.denoised.std()) == pytest.approx(0.5, rel=0.15)


def test_a_table_becomes_json_and_comes_back():
    sde = TableVPSDE(betas=WILD)
    assert spec.from_dict(SDE, json.loads(json.dumps(spec.to_dict(sde)))) == sde
    assert sde.count == 40


@pytest.mark.parametrize("betas", [(0.1,), (0.1, 0.0), (0.1, 1.0), (0.1, float("nan")), (0.1, -1)])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(SpecError):
        TableVPSDE(betas=betas)


def test_the_curve_is_built_once_and_serves_training_after_inference():
    sde = TableVPSDE(steps=123)
    t = torch.linspace(0.1, 1, 5)
    with torch.inference_mode():
        sde.marginal(t)
    t.requires_grad_()
    sde.marginal(t)[1].sum().backward()
    assert t.grad is not None
