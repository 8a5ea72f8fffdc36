"""The bound on bits, against closed forms and against the exact likelihood."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import every_sde, gaussian_score

from studio.diffusion.bound import bits_bound
from studio.diffusion.likelihood import Measure
from studio.diffusion.sde import FIRST_TIME, VESDE, VPSDE

SPREAD = 0.4


def exact_errors(sde, std, points=20_001):
    """What the exact score leaves unknown of the noise, at levels even in ln(sigma)."""
    ends = sde.sigma(torch.tensor([FIRST_TIME, 1.0], dtype=torch.float64)).log()
    share = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    sigma = torch.exp(ends[0] + share * (ends[1] - ends[0]))
    return std**2 / (std**2 + sigma**2)


def gaussian_pixels(std, count=2000):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    return x / x.std() * std  # so that their mean square is what the law's is


@every_sde
def test_of_a_gaussian_and_its_exact_score_the_bound_is_the_entropy(sde):
    found = bits_bound(sde, gaussian_pixels(SPREAD), exact_errors(sde, SPREAD), (-1.0, 1.0))
    a, s = sde.marginal(torch.tensor([FIRST_TIME], dtype=torch.float64))
    variance = float((a * SPREAD) ** 2 + s**2)
    entropy = 0.5 * math.log2(2 * math.pi * math.e * variance) + 7
    # The prior is not quite where the SDE ends, which costs a little.
    assert found == pytest.approx(entropy, abs=0.005)
    assert found >= entropy - 1e-3


@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_a_wrong_score_has_more_bits(wrong):
    sde = VPSDE()
    share = exact_errors(sde, SPREAD)
    # A network that takes the pictures for wider or narrower than they are errs by this.
    ends = sde.sigma(torch.tensor([FIRST_TIME, 1.0], dtype=torch.float64)).log()
    sigma = torch.exp(
        torch.linspace(float(ends[0]), float(ends[1]), len(share), dtype=torch.float64)
    )
    k = sigma**2 / ((wrong * SPREAD) ** 2 + sigma**2)
    errors = (1 - k) ** 2 + k**2 * SPREAD**2 / sigma**2
    x = gaussian_pixels(SPREAD)
    right = bits_bound(sde, x, share, (-1.0, 1.0))
    assert bits_bound(sde, x, errors, (-1.0, 1.0)) > right + 0.1


def test_the_bound_is_near_the_exact_likelihood_of_pictures():
    sde = VESDE(sigma_max=20.0)
    x = gaussian_pixels(SPREAD, count=64).float()
    score = gaussian_score(sde, SPREAD, (3, 8, 8))
    *_, last = Measure(probes=8).run(score, x)
    bound = bits_bound(sde, x, exact_errors(sde, SPREAD), (-1.0, 1.0))
    # A float picture's density is in units of its own values: 8-bit levels are 7 bits finer.
    assert bound - 7 == pytest.approx(float(last.bits.mean()), abs=0.02)


def test_the_value_range_says_how_fine_a_level_is():
    sde, x = VPSDE(), gaussian_pixels(SPREAD)
    wide = bits_bound(sde, x, exact_errors(sde, SPREAD), (-1.0, 1.0))
    assert bits_bound(sde, x, exact_errors(sde, SPREAD), (0.0, 1.0)) == pytest.approx(wide + 1)
