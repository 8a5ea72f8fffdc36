"""One step of each predictor, against what it promises."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import every_predictor, every_sde, gaussian_score

from studio.diffusion.predictors import DPM2M, PREDICTORS, Euler, Heun
from studio.diffusion.sampler import Counted
from studio.diffusion.score import Score, expand

SHAPE = (1, 4, 4)


def setting(sde, std=0.5, t=0.5, s=0.4):
    generator = torch.Generator().manual_seed(1)
    x, z = torch.randn(2, 3, *SHAPE, dtype=torch.float64, generator=generator)
    times = (torch.full((3,), v, dtype=torch.float64) for v in (t, s))
    return gaussian_score(sde, std, SHAPE), x, *times, z


@every_sde
@every_predictor
def test_a_step_costs_the_calls_it_says(sde, predictor):
    score, x, t, s, z = setting(sde)
    counted = Counted(score)
    predictor.step(counted.score, x, t, s, lambda _=0: z, None)
    assert counted.calls == predictor.calls


@every_sde
@every_predictor
def test_only_stochastic_predictors_draw_noise(sde, predictor):
    score, x, t, s, z = setting(sde)
    drawn = []
    predictor.step(score, x, t, s, lambda _=0: drawn.append(1) or z, None)
    assert bool(drawn) == predictor.stochastic


@every_sde
@every_predictor
def test_a_step_reports_the_denoised_estimate_of_where_it_began(sde, predictor):
    score, x, t, s, z = setting(sde)
    move = predictor.step(score, x, t, s, lambda _=0: z, None)
    torch.testing.assert_close(move.denoised, score.denoised(x, t))
    assert torch.equal(move.t, t)


@every_sde
@every_predictor
def test_samples_of_a_batch_may_stand_at_times_of_their_own(sde, predictor):
    score, x, _, _, z = setting(sde)
    t, s = (torch.tensor(v, dtype=torch.float64) for v in ([0.9, 0.5, 0.1], [0.8, 0.3, 0.05]))
    together = predictor.step(score, x, t, s, lambda _=0: z, None).x
    for i in range(3):
        one = slice(i, i + 1)
        alone = predictor.step(score, x[one], t[one], s[one], lambda _=0, one=one: z[one], None).x
        torch.testing.assert_close(alone, together[one])


@every_sde
@every_predictor
def test_tiny_steps_move_little(sde, predictor):
    score, x, t, _, z = setting(sde)
    x = x * expand(sde.marginal(t)[1], x)
    moved = predictor.step(score, x, t, t - 1e-8, lambda _=0: 0 * z, None).x
    assert float((moved - x).abs().max()) < 1e-5 * float(x.abs().max())


@every_sde
@pytest.mark.parametrize("predictor", [Euler(), Heun(), DPM2M()])
def test_straight_paths_are_followed_exactly_in_one_step(sde, predictor):
    """If the picture is known, D does not change, and (y, sigma) moves on a straight line to it."""
    _, x, t, s, z = setting(sde, t=0.9, s=0.1)
    picture = torch.full_like(x, 0.3)

    def fn(x, t):
        a, noise = sde.marginal(t)
        return (expand(a, x) * picture - x) / expand(noise**2, x)

    (a_t, s_t), (a_s, s_s) = sde.marginal(t), sde.marginal(s)
    x = expand(a_t, x) * picture + expand(s_t, x) * z
    wanted = expand(a_s, x) * picture + expand(s_s, x) * z
    score = Score.from_function(fn, sde, SHAPE)
    torch.testing.assert_close(predictor.step(score, x, t, s, lambda _=0: z, None).x, wanted)


@every_sde
def test_ancestral_step_is_the_bridge_to_the_denoised_estimate(sde):
    score, x, t, s, z = setting(sde)
    c, c_0, std = (expand(v, x) for v in sde.bridge(t, s))
    wanted = c * x + c_0 * score.denoised(x, t) + std * z
    ours = PREDICTORS["ancestral"]().step(score, x, t, s, lambda _=0: z, None).x
    torch.testing.assert_close(ours, wanted)


@every_predictor
def test_predictors_are_plain_frozen_values(predictor):
    assert predictor == dataclasses.replace(predictor)
    assert hash(predictor) == hash(type(predictor)())
