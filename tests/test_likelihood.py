"""Bits per dimension against closed forms: correlated Gaussians, mixtures, 8-bit levels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import every_sde, gaussian_score, mixture_score, tiny_network

from studio.diffusion import likelihood
from studio.diffusion.likelihood import QUICK, LikelihoodStep, Measure
from studio.diffusion.pictures import to_state
from studio.diffusion.score import (
    NoiseOutput,
    Preconditioned,
    Published,
    Score,
    expand,
    network_score,
)
from studio.diffusion.sde import VESDE, VPSDE, SubVPSDE
from studio.errors import PictureError, SolverError, SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (1, 4, 4)
SIXTEEN = 16
FINE = Measure(rtol=1e-5, atol=1e-5, probes=1)


def last(steps) -> LikelihoodStep:
    return list(steps)[-1]


def allowed(sde) -> float:
    """A thousandth of a bit; more where a picture still shows in the noise at the end, which the prior
    takes to be plain: the method's own error, of about the share of its variance."""
    a, s = sde.marginal(torch.ones(1))
    return max(1e-3, float(a / s) ** 2)


class Correlated:
    """Pictures x ~ N(0, V diag(variances) Vᵀ): no axis is its own, so a probe's trace is a guess."""

    def __init__(self, dtype=torch.float32):
        generator = torch.Generator().manual_seed(3)
        self.variances = torch.linspace(0.25, 0.9, SIXTEEN, dtype=torch.float64) ** 2
        mixed = torch.randn(SIXTEEN, SIXTEEN, generator=generator, dtype=torch.float64)
        self.axes = torch.linalg.qr(mixed)[0]
        normal = torch.randn(3, SIXTEEN, generator=generator, dtype=torch.float64)
        self.x = ((normal * self.variances.sqrt()) @ self.axes.T).reshape(3, *SHAPE).to(dtype)

    def score(self, sde) -> Score:
        def fn(x, t):
            a, s = (v[:, None] for v in sde.marginal(t))
            axes, variances = self.axes.to(x), self.variances.to(x)
            along = x.flatten(1) @ axes
            return -(along / (a**2 * variances + s**2) @ axes.T).reshape(x.shape)

        return Score.from_function(fn, sde, SHAPE)

    def bits(self):
        """-log2 of the density, over the dimensions."""
        along = self.x.double().flatten(1) @ self.axes
        nats = along**2 / self.variances + torch.log(2 * math.pi * self.variances)
        return nats.mean(1) / 2 / math.log(2)


# -- the truth ------------------------------------------------------------------------------------


@every_sde
def test_the_exact_trace_finds_the_density_of_correlated_pictures(sde):
    data = Correlated()
    end = last(replace(FINE, method="exact").run(data.score(sde), data.x))
    torch.testing.assert_close(end.bits.double(), data.bits(), atol=allowed(sde), rtol=0)
    assert not end.error.any()


def covered(measure, sde, most):
    data = Correlated()
    end = last(measure.run(data.score(sde), data.x, seed=5))
    away = (end.bits.double() - data.bits()).abs()
    assert (away < 4 * end.error + allowed(sde)).all()
    assert (end.error > 1e-3).all()
    assert (end.error < most).all()


@every_sde
def test_the_error_bar_of_probes_covers_the_truth(sde):
    covered(replace(QUICK, probes=25), sde, 0.1)


def test_gaussian_probes_cover_the_truth_with_a_wider_bar():
    covered(replace(QUICK, probes=60, law="gaussian"), VPSDE(), 0.6)


@every_sde
def test_one_probe_finds_the_density_of_a_mixture_exactly_where_values_are_independent(sde):
    means, std, weights = (-0.6, 0.5), 0.3, (0.3, 0.7)
    generator = torch.Generator().manual_seed(0)
    which = torch.multinomial(torch.tensor(weights), 2 * 48, True, generator=generator)
    x = torch.tensor(means)[which] + std * torch.randn(2 * 48, generator=generator)
    x = x.reshape(2, 3, 4, 4)
    score = mixture_score(sde, means, std, weights, (3, 4, 4))
    parts = [
        w * torch.exp(-(((x - m) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
        for m, w in zip(means, weights)
    ]
    wanted = -torch.log2(sum(parts)).flatten(1).mean(1)
    end = last(FINE.run(score, x))
    torch.testing.assert_close(end.bits, wanted, atol=allowed(sde), rtol=0)


@every_sde
def test_the_noise_of_a_gaussian_picture_is_the_picture_stretched(sde):
    x = 0.5 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    end = last(FINE.run(gaussian_score(sde, 0.5, SHAPE), x))
    times = torch.tensor([1e-5, 1.0])
    a, s = sde.marginal(times)
    first, final = torch.sqrt((a * 0.5) ** 2 + s**2)
    torch.testing.assert_close(end.latent, x * final / first, rtol=1e-3, atol=1e-3)
    # Every value is stretched alike, so the change of the density is even over the map.
    wanted = torch.log(final / first).expand_as(x)
    torch.testing.assert_close(end.map, wanted, rtol=1e-3, atol=1e-3)


def test_the_map_adds_up_to_the_change_of_the_density():
    data, sde = Correlated(), VPSDE()
    end = last(replace(FINE, probes=5).run(data.score(sde), data.x))
    prior = sde.prior_log_density(end.latent)
    nats = -(prior + end.map.flatten(1).sum(1)) / SIXTEEN
    torch.testing.assert_close(nats / math.log(2), end.bits, atol=1e-4, rtol=0)


def test_double_precision_finds_more_digits():
    data = Correlated(torch.float64)
    fine = Measure(method="exact", rtol=1e-6, atol=1e-6, precision="float64")
    end = last(fine.run(data.score(SubVPSDE()), data.x))
    assert end.bits.dtype == torch.float64
    torch.testing.assert_close(end.bits, data.bits(), atol=2e-5, rtol=0)


# -- 8-bit pictures -------------------------------------------------------------------------------


def eight_bit_bits(levels, mean, std):
    """-log2 of the chance of each 8-bit level, for levels of width one with N(mean, std²)."""
    normal = torch.distributions.Normal(mean, std)
    chance = normal.cdf(levels + 1.0) - normal.cdf(levels + 0.0)
    return -torch.log2(chance).flatten(1).mean(1)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_the_bits_of_a_picture_are_those_of_its_levels(value_range):
    low, high = value_range
    levels = torch.from_numpy(np.random.default_rng(0).integers(40, 220, (2, 8, 8, 3), np.uint8))
    wanted = eight_bit_bits(levels.double(), 128.0, 64.0)
    width, middle = (high - low) / 256, (high + low) / 2
    score = gaussian_score(VPSDE(), 64 * width, (3, 8, 8), middle)
    score = replace(score, value_range=value_range)
    found = last(replace(FINE, repeats=3).run(score, levels))
    torch.testing.assert_close(found.bits.double(), wanted, atol=2e-3, rtol=0)
    middle_of_level = last(replace(FINE, dequantize=False).run(score, levels.numpy()))
    torch.testing.assert_close(middle_of_level.bits.double(), wanted, atol=1e-3, rtol=0)


def test_a_float_picture_is_taken_as_it_is():
    score = gaussian_score(VPSDE(), 0.5, (3, 8, 8))
    levels = np.full((1, 8, 8, 3), 100, np.uint8)
    state = to_state(levels, (-1.0, 1.0))
    spread = last(replace(FINE, dequantize=False).run(score, levels))
    as_given = last(FINE.run(score, (state + 1) * 255 / 256 - 1 + 1 / 256))
    torch.testing.assert_close(spread.bits, as_given.bits + 7, atol=1e-5, rtol=0)


def test_a_narrow_model_needs_the_spreading():
    """Below a level's width, a picture without spreading may cost less than nothing."""
    score = gaussian_score(VPSDE(beta_min=0.01), 1e-3, (1, 4, 4), -1 + 100.5 / 128)
    levels = np.full((1, 4, 4, 1), 100, np.uint8)
    assert float(last(replace(FINE, dequantize=False).run(score, levels)).bits) < 0
    assert float(last(replace(FINE, repeats=2).run(score, levels)).bits) > 0


# -- a measurement --------------------------------------------------------------------------------


def test_a_picture_measures_the_same_alone_and_in_company():
    data = Correlated()
    measure = replace(QUICK, repeats=2)
    together = last(measure.run(data.score(VPSDE()), data.x, seed=7))
    alone = last(measure.run(data.score(VPSDE()), data.x[1:2], seed=8))
    torch.testing.assert_close(together.bits[1:2], alone.bits, atol=1e-5, rtol=0)
    again = last(measure.run(data.score(VPSDE()), data.x, seed=7))
    other = last(measure.run(data.score(VPSDE()), data.x, seed=9))
    assert torch.equal(again.bits, together.bits)
    assert not torch.allclose(other.bits, together.bits, atol=1e-4)


def test_the_error_is_that_of_the_repeats():
    data = Correlated()
    score = data.score(VPSDE())
    ends = [last(replace(QUICK, repeats=4, probes=1).run(score, data.x, seed=s)) for s in (0, 10)]
    for end in ends:
        assert ((end.bits - data.bits()).abs() < 6 * end.error).all()
    assert torch.isnan(last(replace(QUICK, probes=1).run(score, data.x)).error).all()


def test_it_shows_how_it_goes():
    data, seen = Correlated(), []
    plain = data.score(VPSDE())

    def counting(x, t):
        seen.append(len(x))
        return plain(x, t)

    score = Score.from_function(counting, VPSDE(), SHAPE)
    steps = list(replace(QUICK, repeats=2, probes=3).run(score, data.x))
    assert [s.finished for s in steps] == [False] * (len(steps) - 1) + [True]
    assert [s.index for s in steps] == list(range(1, len(steps) + 1))
    # One call an evaluation, shared by the flow and all probes: six a step and the first.
    assert steps[-1].calls == len(seen) == 6 * len(steps) + 2
    assert steps[-1].total == steps[-1].index
    assert all(s.total >= s.index for s in steps)
    assert steps[-1].t == 1.0
    # Near the end of the first way the guess is the answer.
    near = next(s for s in steps if s.t > 0.5)
    assert ((near.bits - steps[-1].bits).abs() < 1).all()


def test_gradients_are_off_for_whoever_draws_the_steps():
    data = Correlated()
    with torch.enable_grad():
        for step in QUICK.run(data.score(VPSDE()), data.x):
            assert torch.is_grad_enabled()
            assert not step.bits.requires_grad
            assert not step.latent.requires_grad
            assert not step.map.requires_grad


def test_a_class_has_a_likelihood_of_its_own():
    sde = VPSDE()
    low, high = (gaussian_score(sde, 0.3, SHAPE, m) for m in (-0.2, 0.2))

    def conditional(labels):
        def fn(x, t):
            return torch.where(expand(labels, x) == 0, low(x, t), high(x, t))

        return fn

    score = replace(low, classes=("low", "high"), conditional=conditional)
    x = torch.full((2, *SHAPE), 0.2)
    end = last(FINE.run(score.labelled(torch.tensor([0, 1])), x))
    peak = math.log2(0.3 * math.sqrt(2 * math.pi))
    assert abs(float(end.bits[1]) - peak) < 5e-3
    assert abs(float(end.bits[0]) - peak - (0.4 / 0.3) ** 2 / 2 / math.log(2)) < 5e-3


def test_the_trace_of_a_network_is_that_of_its_jacobian():
    net = tiny_network()
    score = network_score(net, Preconditioned(), VPSDE(), (3, 8, 8), classes=("a", "b"))
    x, t = torch.randn(2, 3, 8, 8), torch.full((2,), 0.2)
    with torch.enable_grad():
        x.requires_grad_(True)
        value = score(x, t)
    trace, diagonal = likelihood._exact(value, x)
    wanted = torch.autograd.functional.jacobian(lambda v: score(v[None], t[:1])[0], x[0].detach())
    torch.testing.assert_close(diagonal[0].flatten(), wanted.reshape(192, 192).diagonal())
    torch.testing.assert_close(trace[:, 0], diagonal.flatten(1).sum(1))
    probes = torch.randint(0, 2, (36, *x.shape)) * 2.0 - 1
    traces, _ = likelihood._probed(value, x, probes)
    away = (traces.mean(1) - trace[:, 0]).abs()
    assert (away < 5 * traces.std(1) / 6).all()


def test_a_layer_that_cannot_be_pulled_back_for_many_is_for_each():
    class Stubborn(torch.autograd.Function):
        @staticmethod
        def forward(_, x):
            return x * x

        @staticmethod
        def backward(_, g):
            assert not g.is_contiguous(memory_format=torch.channels_last_3d)  # vmap has no answer
            return 3 * g

    x = torch.randn(2, *SHAPE, requires_grad=True)
    trace, diagonal = likelihood._exact(Stubborn.apply(x), x)
    assert torch.equal(diagonal, torch.full_like(x, 3.0))
    assert torch.equal(trace, torch.full((2, 1), 48.0))


@pytest.mark.slow
def test_a_small_network_is_measured_in_either_precision():
    net = tiny_network()
    score = network_score(net, NoiseOutput(), SubVPSDE(), (3, 8, 8), classes=("a", "b"))
    picture = np.random.default_rng(1).integers(0, 256, (1, 8, 8, 3), np.uint8)
    rough = Measure(rtol=1e-2, atol=1e-2, probes=1)
    single_precision = last(rough.run(score, picture))
    assert torch.isfinite(single_precision.bits).all()
    double = last(replace(rough, precision="float64").run(score, picture))
    torch.testing.assert_close(double.bits.float(), single_precision.bits, atol=5e-3, rtol=0)


# -- what cannot be measured ----------------------------------------------------------------------


@pytest.mark.parametrize("label", ["time", "sigma", "level"])
def test_a_network_of_discrete_levels_has_no_likelihood(label):
    output = Published(label=label)
    score = network_score(lambda x, t, y: x, output, VPSDE(), SHAPE)
    assert score.continuous == (label != "level")
    if label == "level":
        with pytest.raises(SpecError, match="fixed set of noise levels"):
            next(QUICK.run(score, torch.zeros(1, *SHAPE)))


def test_a_score_that_cannot_be_differentiated_is_refused():
    score = Score.from_function(lambda x, t: -x.detach(), VPSDE(), SHAPE)
    with pytest.raises(SpecError, match="differentiated"):
        next(QUICK.run(score, torch.zeros(1, *SHAPE)))


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(1, 1, 4, 5), "shape"),
        (torch.zeros(1, 4, 4), "shape"),
        (torch.zeros(0, 1, 4, 4), "shape"),
        (np.zeros((1, 1, 4, 4), np.uint8), "shape"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.int64), "int64"),
        (torch.full((1, 1, 4, 4), math.nan), "finite"),
    ],
)
def test_what_is_no_picture_of_the_model_is_refused(x, said):
    with pytest.raises(PictureError, match=said):
        next(QUICK.run(gaussian_score(VPSDE(), 0.5, SHAPE), x))


def test_the_exact_trace_of_large_pictures_is_refused():
    score = gaussian_score(VPSDE(), 0.5, (3, 64, 64))
    with pytest.raises(SpecError, match="12288"):
        next(replace(QUICK, method="exact").run(score, torch.zeros(1, 3, 64, 64)))


def test_options_out_of_bounds_are_refused():
    with pytest.raises(SpecError, match="Probes"):
        next(replace(QUICK, probes=0).run(gaussian_score(VESDE(), 1, SHAPE), torch.zeros(1)))


def test_a_flow_that_breaks_down_says_so():
    score = Score.from_function(lambda x, t: x * math.nan, VPSDE(), SHAPE)
    with pytest.raises(SolverError, match="stiff"):
        last(QUICK.run(score, torch.ones(1, *SHAPE)))
