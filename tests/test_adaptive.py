"""The adaptive solver of the SDE: right in law, each sample by its own clock."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import gaussian_score, noise_for, steps_of

from studio.diffusion.adaptive import AdaptiveSDE
from studio.diffusion.conditions import ClassLabel
from studio.diffusion.correctors import CORRECTORS
from studio.diffusion.noise import Noise
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import VESDE, VPSDE, SubVPSDE
from studio.errors import SolverError

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = (3, 4, 4)


class ManyPaths(Noise):
    """Paths of thousands of samples at once, for a law; `Noise` makes them one by one.

    W is drawn at even places of ln(sigma); between two of them one bridge draw serves all times, as
    in the leaves of `Noise`. With `forget`, as in published code, a step draws anew whenever asked.
    """

    def __init__(self, count, shape, sde, forget=False, knots=1024):
        super().__init__((0,) * count, shape, sde, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        low, high = sde.sigma(torch.tensor([1e-5, 1.0], dtype=torch.float64)).log().tolist()
        tau = torch.exp(2 * torch.linspace(low, high, knots + 1, dtype=torch.float64))
        path = torch.randn(knots + 1, count, *shape, generator=generator)
        path[0] = 0
        path[1:] *= tau.diff().sqrt().float().reshape(-1, 1, 1, 1, 1)
        path = path.cumsum(0) if not forget else path[:1]
        inner = torch.randn(knots if not forget else 1, count, *shape, generator=generator)
        vars(self).update(generator=generator, forget=forget, tau=tau, path=path, inner=inner)

    def _normal(self, count):
        return torch.randn(count, *self.shape, generator=self.generator, dtype=torch.float64)

    def start(self):
        return self._normal(len(self.seeds))

    def increments(self, rows, t, s):
        if self.forget:
            return self._normal(len(rows))
        rows = torch.tensor(rows)
        (upper, high), (lower, low) = (self._at(rows, torch.tensor(v).double()) for v in (t, s))
        return (upper - lower) / expand((high - low).sqrt(), upper)

    def _at(self, rows, t):
        """(W, its variance) at times t."""
        now = self.sde.sigma(t) ** 2
        knot = (torch.searchsorted(self.tau, now) - 1).clamp(0, len(self.tau) - 2)
        low, high = self.tau[knot], self.tau[knot + 1]
        now = torch.minimum(torch.maximum(now, low), high)
        share, left = (now - low) / (high - low), self.path[knot, rows].double()
        std = torch.sqrt((now - low) * (high - now) / (high - low))
        w = left + expand(share, left) * (self.path[knot + 1, rows] - left)
        return w + expand(std, left) * self.inner[knot, rows], now


def spread_error(sde, dimension, forget=False):
    """By how much pictures N(0, .5²) of so many values come out too wide; standard error .5 %."""
    std, count = 0.5, {1: 20_000, 48: 420}[dimension]
    score = gaussian_score(sde, std, (1, 1, dimension))
    *_, before, _ = AdaptiveSDE().run(score, ManyPaths(count, score.shape, sde, forget))
    a, s = (float(v) for v in sde.marginal(torch.tensor([sde.eps], dtype=torch.float64)))
    return float(before.x.square().mean().sqrt()) / math.hypot(a * std, s) - 1


every_plain_sde = pytest.mark.parametrize(
    "sde", [VPSDE(), SubVPSDE(), VESDE()], ids=["vp", "subvp", "ve"]
)


@every_plain_sde
@pytest.mark.parametrize("dimension", [pytest.param(1, marks=pytest.mark.slow), 48])
def test_pictures_come_out_as_wide_as_they_are(sde, dimension):
    """Bias below 1 % at the tolerance that it starts with, whatever the size of the picture."""
    assert abs(spread_error(sde, dimension)) < 0.01


@pytest.mark.slow
@every_plain_sde
def test_drawing_anew_after_a_rejection_would_not_do(sde):
    """What published code does widens single values by half: the test above can see it."""
    assert spread_error(sde, 1, forget=True) > 0.4


def test_finished_samples_are_not_given_to_the_network_again():
    sde, sizes = VPSDE(), []
    easy, hard = gaussian_score(sde, 0.5, SMALL), gaussian_score(sde, 0.02, SMALL)

    def fn(x, t):
        sizes.append(len(x))
        # Pictures of the first two samples are coarse, those of the last fine: it takes longer.
        return torch.cat([easy(x[:-1], t[:-1]), hard(x[-1:], t[-1:])])

    sampler, score = AdaptiveSDE(), Score.from_function(fn, sde, SMALL)
    *steps, last = steps_of(sampler, score, count=3)
    assert sizes[0] == 3
    assert sizes[-2] == 1
    assert sizes[-1] == 3, "all are denoised at the end"
    assert last.nfe == len(sizes)
    attempts = steps[-1].memory["accepted"] + steps[-1].memory["rejected"]
    assert sum(sizes[:-1]) == 2 * int(attempts.sum())
    assert len(steps) == int(attempts.max())


def test_every_sample_has_its_own_clock_which_only_falls():
    steps = steps_of(AdaptiveSDE(), gaussian_score(VESDE(), 0.5, SMALL), count=3)[:-1]
    times = torch.stack([step.memory["t"] for step in steps])
    assert bool((times.diff(dim=0) <= 0).all())
    assert float(times[len(times) // 2].max() - times[len(times) // 2].min()) > 0
    assert [step.t for step in steps] == pytest.approx(times.max(1).values.tolist())
    moved = (torch.cat([torch.ones(1, 3), times]).diff(dim=0) < 0).sum(0)
    assert moved.tolist() == steps[-1].memory["accepted"].tolist()


def test_a_finer_tolerance_costs_more_calls():
    score = gaussian_score(VPSDE(), 0.5, (3, 16, 16))
    costs = [steps_of(AdaptiveSDE(rtol=rtol), score)[-1].nfe for rtol in (0.2, 0.05, 0.01)]
    assert costs == sorted(costs)
    assert costs[-1] > 1.5 * costs[0]


def test_conditions_follow_the_samples_that_are_left():
    sde, means = VPSDE(), torch.tensor([-0.6, 0.4], dtype=torch.float64)

    def conditional(labels):
        def fn(x, t):
            assert len(labels) == len(x)
            a, s = (expand(v, x) for v in sde.marginal(t))
            fine = torch.tensor([0.1, 0.02], dtype=x.dtype)[labels]
            return (a * expand(means[labels], x) - x) / ((a * expand(fine, x)) ** 2 + s**2)

        return fn

    free = conditional(torch.zeros(3, dtype=torch.long))
    score = Score(free, sde, (1, 8, 8), (-1.0, 1.0), ("dark", "light"), conditional)
    sampler = AdaptiveSDE()
    noise = noise_for(sampler, score, count=3, dtype=torch.float64)
    last = list(sampler.run(score, noise, ClassLabel((1, 0, 1))))[-1]
    assert last.denoised.flatten(1).mean(1).tolist() == pytest.approx([0.4, -0.6, 0.4], abs=0.05)


@pytest.mark.parametrize("corrector", ["ald", "langevin"])
def test_a_corrector_goes_with_it(corrector):
    sampler = AdaptiveSDE(rtol=0.1, atol=0.02, corrector=CORRECTORS[corrector](snr=0.1))
    score = gaussian_score(VPSDE(), 0.5, (3, 24, 24))
    *_, kept, _, last = steps_of(sampler, score)
    assert float(last.denoised.std()) == pytest.approx(0.5, rel=0.05)
    rest = list(sampler.run(score, noise_for(sampler, score, dtype=torch.float64), resume=kept))
    assert torch.equal(rest[-1].denoised, last.denoised)


def test_a_score_that_cannot_be_followed_stops_at_its_level():
    exact = gaussian_score(VPSDE(), 0.5, SMALL)

    def fn(x, t):
        return torch.where(expand(t < 0.5, x), torch.full_like(x, math.nan), exact(x, t))

    broken, noise = Score.from_function(fn, VPSDE(), SMALL), Noise.of(0, 2, SMALL, VPSDE())
    seen = []
    with pytest.raises(SolverError, match=r"t = 0\.5.*log-SNR -2\.5"):
        for step in AdaptiveSDE().run(broken, noise):
            seen.append(step)
    assert seen
    assert bool(torch.isfinite(seen[-1].x).all())


def test_the_device_is_looked_at_once_in_an_attempt(monkeypatch):
    looks = []
    to_host = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: looks.append(1) or to_host(self))
    steps = steps_of(AdaptiveSDE(), gaussian_score(VPSDE(), 0.5, SMALL))
    assert len(looks) == len(steps) - 1
