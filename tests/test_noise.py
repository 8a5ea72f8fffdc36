"""Noise is a Brownian path: a function of seed, sample and time, in whatever order one asks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from conftest import every_sde

from studio.diffusion.grids import GRIDS
from studio.diffusion.noise import Noise, path_depth
from studio.diffusion.sde import FIRST_TIME, VESDE, VPSDE

SHAPE = (3, 48, 48)
VALUES = math.prod(SHAPE)
every_grid = pytest.mark.parametrize("grid", [cls() for cls in GRIDS.values()], ids=list(GRIDS))


def span(sde, t, s):
    """The root of the variance that noising adds to x / a between s and t."""
    high, low = sde.sigma(torch.tensor([t, s], dtype=torch.float64)) ** 2
    return math.sqrt(float(high - low))


def moved(noise, t, s):
    """W(t -> s) in its own units."""
    return noise.increment(t, s).double() * span(noise.sde, t, s)


@every_sde
@pytest.mark.parametrize(("t", "u", "s"), [(1.0, 0.6, 0.2), (0.3, 0.01, 1e-3), (0.5, 0.4999, 0.49)])
def test_increments_add_up(sde, t, u, s):
    noise = Noise((3,), SHAPE, sde)
    whole, parts = moved(noise, t, s), moved(noise, t, u) + moved(noise, u, s)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4 * span(sde, t, s))


@every_sde
def test_noise_does_not_depend_on_batch_mates(sde):
    alone, together = Noise((7,), SHAPE, sde), Noise.of(0, 8, SHAPE, sde)
    assert torch.equal(alone.start()[0], together.start()[7])
    assert torch.equal(alone.increment(0.7, 0.1)[0], together.increment(0.7, 0.1)[7])
    assert torch.equal(alone.fresh(0.7, 1)[0], together.fresh(0.7, 1)[7])


@every_sde
def test_noise_does_not_depend_on_the_order_of_asking(sde):
    times = GRIDS["log_snr"]().times(sde, 12).tolist()
    pairs = list(itertools.pairwise(times))
    down, up = Noise((1,), (1, 4, 4), sde), Noise((1,), (1, 4, 4), sde)
    first = {pair: down.increment(*pair) for pair in pairs}
    second = {pair: up.increment(*pair) for pair in reversed(pairs)}
    again = {pair: down.increment(*pair) for pair in pairs[::3]}
    assert all(torch.equal(first[p], second[p]) for p in pairs)
    assert all(torch.equal(first[p], again[p]) for p in again)


@every_sde
@every_grid
def test_steps_have_unit_variance_and_do_not_know_each_other(sde, grid):
    steps = 10
    times = grid.times(sde, steps).tolist()
    noise = Noise((5,), SHAPE, sde, depth=path_depth(steps))
    z = torch.stack(
        [noise.increment(t, s).flatten() for t, s in itertools.pairwise(times)]
    ).double()
    gram = z @ z.T / VALUES - torch.eye(steps, dtype=torch.float64)
    # Five standard errors: 1 / √n off the diagonal, √2 / √n on it.
    assert gram.abs().max() < 5 * math.sqrt(2 / VALUES)
    assert z.mean(1).abs().max() < 5 / math.sqrt(VALUES)


def test_many_steps_have_unit_variance_too():
    sde, steps = VPSDE(), 400
    times = GRIDS["log_snr"]().times(sde, steps).tolist()
    noise = Noise((5,), (3, 16, 16), sde, depth=path_depth(steps))
    z = torch.stack(
        [noise.increment(t, s).flatten() for t, s in itertools.pairwise(times)]
    ).double()
    assert float(z.var()) == pytest.approx(1, abs=0.02)
    neighbours = (z[1:] * z[:-1]).mean()
    assert abs(float(neighbours)) < 0.01


def test_seeds_samples_and_uses_are_apart():
    noise = Noise.of(0, 2, SHAPE, VPSDE())
    draws = [noise.start(), noise.increment(1.0, 0.5), noise.fresh(0.5, 0), noise.fresh(0.5, 1)]
    draws += [noise.fresh(0.25, 0)]
    z = torch.cat(draws).flatten(1).double()
    gram = z @ z.T / VALUES - torch.eye(len(z), dtype=torch.float64)
    assert gram.abs().max() < 5 * math.sqrt(2 / VALUES)


@every_sde
def test_a_deeper_path_agrees_with_a_coarser_one_at_its_times(sde):
    ends = torch.tensor([FIRST_TIME, 1.0], dtype=torch.float64)
    low, high = sde.sigma(ends).log()
    u = torch.arange(17, dtype=torch.float64).flip(0) / 16  # the borders of the leaves at depth 4
    times = sde.time(torch.exp(low + u * (high - low))).tolist()
    coarse, fine = (Noise((2,), (1, 8, 8), sde, depth=depth) for depth in (4, 9))
    for t, s in itertools.pairwise(times):
        assert torch.allclose(coarse.increment(t, s), fine.increment(t, s), atol=2e-3)


@every_sde
def test_more_steps_follow_the_same_path(sde):
    coarse, fine = (Noise((2,), SHAPE, sde, depth=path_depth(steps)) for steps in (50, 400))
    a, b = coarse.increment(0.8, 0.2).flatten(), fine.increment(0.8, 0.2).flatten()
    assert float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > 0.95


@every_sde
def test_a_branch_shares_the_path_above_and_not_below(sde):
    noise = Noise.of(4, 2, SHAPE, sde)
    branch = noise.branch(0.4, seed=1)
    assert torch.equal(branch.start(), noise.start())
    assert torch.equal(branch.increment(1.0, 0.6), noise.increment(1.0, 0.6))
    assert torch.equal(branch.increment(0.6, 0.4), noise.increment(0.6, 0.4))
    assert torch.equal(branch.fresh(0.6, 0), noise.fresh(0.6, 0))
    below = torch.stack([n.increment(0.4, 0.1).flatten() for n in (noise, branch)])
    assert abs(float(torch.corrcoef(below)[0, 1])) < 5 / math.sqrt(2 * VALUES)
    assert not torch.equal(branch.fresh(0.4, 0), noise.fresh(0.4, 0))


def test_a_step_across_a_branch_adds_both_sides():
    noise = Noise((4,), SHAPE, VESDE()).branch(0.4, 1).branch(0.7, 2)
    times = [0.9, 0.7, 0.5, 0.4, 0.2]
    parts = sum(moved(noise, t, s) for t, s in itertools.pairwise(times))
    whole = moved(noise, 0.9, 0.2)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4 * span(noise.sde, 0.9, 0.2))
    assert float(noise.increment(0.5, 0.3).std()) == pytest.approx(1, abs=0.05)


def test_branches_with_other_seeds_differ():
    noise = Noise((4,), SHAPE, VPSDE())
    one, two = (noise.branch(0.5, seed).increment(0.5, 0.1) for seed in (1, 2))
    assert not torch.allclose(one, two)


def test_noise_comes_in_the_asked_precision():
    noise = Noise((0,), (1, 4, 4), VPSDE(), dtype=torch.float64)
    assert noise.start().dtype == noise.increment(1.0, 0.5).dtype == torch.float64
    assert torch.equal(noise.start().float(), Noise((0,), (1, 4, 4), VPSDE()).start())


@every_sde
def test_samples_may_ask_for_intervals_of_their_own(sde):
    """Each gets what it would get alone, and those not asked for are left out."""
    noise = Noise.of(3, 4, (1, 4, 4), sde).branch(0.3, 1)
    rows, starts, ends = [2, 0], [0.9, 0.4], [0.5, 0.1]
    together = noise.increments(rows, starts, ends)
    assert together.shape == (2, 1, 4, 4)
    for i, row in enumerate(rows):
        assert torch.equal(together[i], noise.increment(starts[i], ends[i])[row])
        assert torch.equal(noise.alone(row).fresh(0.2, 5)[0], noise.fresh(0.2, 5)[row])


@every_sde
def test_a_shorter_step_stays_on_the_path_of_the_longer_one(sde):
    """What is left of a rejected step after a shorter one is its other part, not new noise."""
    noise = Noise.of(0, 2, (1, 8, 8), sde, depth=12)
    t, long, short = [0.8, 0.6], [0.4, 0.5], [0.7, 0.55]
    ends = [noise.increments([0, 1], a, b) for a, b in ((t, long), (t, short), (short, long))]
    spans = [
        torch.tensor([span(sde, *pair) for pair in zip(a, b)]).reshape(2, 1, 1, 1)
        for a, b in ((t, long), (t, short), (short, long))
    ]
    whole, first, rest = (end.double() * size for end, size in zip(ends, spans))
    torch.testing.assert_close(first + rest, whole, rtol=0, atol=1e-4 * float(spans[0].max()))
