"""Solvers that look back: their weights against quadrature, their steps against diffusers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import mixture_score, noise_for, steps_of
from scipy.integrate import quad

from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.multistep import exact_weights
from studio.diffusion.sde import VESDE, VPSDE

pytestmark = pytest.mark.usefixtures("one_thread")

NODES = [(0.0,), (0.0, -0.7), (1.0, 0.0), (0.0, -1.3, -2.1), (1.0, 0.0, -0.9, -2.5)]


@pytest.mark.parametrize("h", [1e-4, 0.03, 0.9, 1.1, 4.0])
@pytest.mark.parametrize("nodes", NODES, ids=str)
def test_weights_integrate_polynomials_exactly(h, nodes):
    tensors = [torch.tensor([node], dtype=torch.float64) for node in nodes]
    weights = exact_weights(torch.tensor([h], dtype=torch.float64), tensors)
    for power in range(len(nodes)):
        kernel = lambda u, power=power: h * math.exp(-h * (1 - u)) * u**power  # noqa: E731
        wanted = quad(kernel, 0, 1, epsabs=1e-14, epsrel=1e-12)[0]
        ours = sum(float(w) * node**power for w, node in zip(weights, nodes))
        assert ours == pytest.approx(wanted, rel=1e-8)


def test_weights_keep_their_digits_in_single_precision():
    nodes = (0.0, -1.0, -2.0)
    for h in (1e-3, 0.02, 0.5, 1.5):
        exact, single = (
            exact_weights(
                torch.tensor([h], dtype=kind), [torch.tensor([n], dtype=kind) for n in nodes]
            )
            for kind in (torch.float64, torch.float32)
        )
        for ours, wanted in zip(single, exact):
            assert float(ours) == pytest.approx(float(wanted), rel=1e-4, abs=1e-6 * h)


MEANS, STD, WEIGHTS, SHAPE = (-0.6, 0.4), 0.1, (0.3, 0.7), (1, 8, 8)


@pytest.mark.parametrize(
    ("ours", "options"),
    [
        ("dpm2m", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
        ("dpm2m-sde", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
        ("unipc", {"solver_order": 2, "solver_type": "bh2"}),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_steps_are_those_of_diffusers(ours, options):
    """The same noise levels, the same denoiser, the same noise: the same states, in double precision."""
    diffusers = pytest.importorskip("diffusers")
    steps, sde = 12, VESDE()
    score = mixture_score(sde, MEANS, STD, WEIGHTS, SHAPE)
    sampler = SAMPLERS[ours](steps=steps)
    noise = noise_for(sampler, score, dtype=torch.float64)
    times = sampler.grid.times(sde, steps)
    kind = (
        diffusers.UniPCMultistepScheduler
        if ours == "unipc"
        else diffusers.DPMSolverMultistepScheduler
    )
    scheduler = kind(
        prediction_type="sample", lower_order_final=False, final_sigmas_type="sigma_min", **options
    )
    scheduler.set_timesteps(steps)
    # Their state is in (alpha, sigma) with alpha² + sigma² = 1; ours here has alpha = 1.
    scheduler.sigmas = sde.sigma(times)
    scheduler.timesteps = torch.arange(steps)
    scale = torch.sqrt(1 + sde.sigma(times) ** 2)
    x = noise.start() * sde.prior_std
    mine = [step.x for step in steps_of(sampler, score, dtype=torch.float64)][:-1]
    for i, (t, s) in enumerate(itertools.pairwise(times.tolist())):
        at = torch.full((len(x),), t, dtype=torch.float64)
        clean = score.denoised(x, at)
        drawn = {"variance_noise": noise.increment(t, s)} if ours == "dpm2m-sde" else {}
        x = scheduler.step(clean, i, x / scale[i], **drawn).prev_sample * scale[i + 1]
        torch.testing.assert_close(mine[i], x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=["vp", "ve"])
def test_the_third_order_solver_beats_the_second_on_a_mixture(sde):
    score = mixture_score(sde, MEANS, STD, WEIGHTS, SHAPE)
    finest = steps_of(SAMPLERS["unipc"](steps=400, order=3), score)[-2].x
    second, third, pc = (
        float((steps_of(SAMPLERS[name](steps=150), score)[-2].x - finest).abs().mean())
        for name in ("dpm2m", "dpm3m", "unipc")
    )
    assert third < second / 2
    assert pc < second / 2


def test_history_is_no_longer_than_it_needs_to_be():
    score = mixture_score(VESDE(), MEANS, STD, WEIGHTS, SHAPE)
    longest = {"dpm2m": 0, "dpm2m-sde": 0, "dpm3m": 1, "unipc": 1}
    for name, count in longest.items():
        kept = [s.memory.get("past", ()) for s in steps_of(SAMPLERS[name](steps=5), score)]
        assert max(len(past) for past in kept) == count
