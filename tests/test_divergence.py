"""Runs that go wrong say where; runs with fixed steps do not wait for the device to find out."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import build, gaussian_score
from torch.utils._python_dispatch import TorchDispatchMode

from studio.diffusion import sampler as samplers
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.noise import Noise
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import VPSDE
from studio.errors import SolverError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 4, 4)
FIXED = [name for name in SAMPLERS if name not in ("rk45", "adaptive")]
every_fixed = pytest.mark.parametrize("sampler", FIXED)
BROKEN_BELOW = 0.5


def breaking_score(value=math.nan):
    exact = gaussian_score(VPSDE(), 0.5, SHAPE)

    def fn(x, t):
        return torch.where(expand(t < BROKEN_BELOW, x), torch.full_like(x, value), exact(x, t))

    return Score.from_function(fn, VPSDE(), SHAPE)


def fails(sampler):
    """(steps before the failure, its message) of a run whose score breaks on the way."""
    chosen, steps = build(sampler, steps=20), []
    with pytest.raises(SolverError) as caught:
        for step in chosen.run(breaking_score(), Noise.of(0, 2, SHAPE, VPSDE())):
            steps.append(step)
    assert caught.value.hint
    return steps, caught.value.message


@every_fixed
def test_a_run_stops_at_its_last_good_step_and_says_where(sampler):
    steps, message = fails(sampler)
    assert all(bool(torch.isfinite(step.x).all()) for step in steps)
    assert "log-SNR" in message
    if steps and sampler != "langevin":
        bad = float(message.split("t = ")[1].split(" ")[0])
        assert bad < steps[-1].t
        assert bad < BROKEN_BELOW + 0.05


@every_fixed
def test_where_the_host_does_not_look_the_place_is_told_at_the_end(sampler, monkeypatch):
    _, at_once = fails(sampler)
    monkeypatch.setattr(samplers, "looks_at_once", lambda x: False)
    steps, at_last = fails(sampler)
    assert at_last == at_once
    assert len(steps) == 20


class NoLooking(TorchDispatchMode):
    """Fails where the host reads a value of a tensor, for which it would wait for a device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "is_nonzero", "equal", "nonzero"), name
        return func(*args, **(kwargs or {}))


class Prepared(Noise):
    """Noise that costs no look at a tensor, as the host's own does."""

    def start(self):
        return torch.ones(len(self.seeds), *self.shape)

    def increment(self, t, s):
        return torch.ones(len(self.seeds), *self.shape)

    def fresh(self, t, use):
        return -torch.ones(len(self.seeds), *self.shape)


@every_fixed
@pytest.mark.parametrize("churn", [0.0, 10.0])
def test_fixed_steps_never_wait_for_the_device(sampler, churn, monkeypatch):
    monkeypatch.setattr(samplers, "looks_at_once", lambda x: False)
    chosen = build(sampler, steps=6, s_churn=churn)
    noise = Prepared((0, 1), SHAPE, VPSDE())
    run = chosen.run(gaussian_score(VPSDE(), 0.5, SHAPE), noise)
    next(run)  # the grid is made on the host
    with NoLooking():
        for _ in range(5):
            next(run)
    assert next(run).finished


def test_looking_would_be_seen():
    with NoLooking(), pytest.raises(AssertionError, match="local_scalar"):
        float(torch.ones(()))
