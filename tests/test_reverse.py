"""Milstein on an SDE where it matters: noise that depends on x."""

from __future__ import annotations

import math

import pytest
import torch

from studio.diffusion.reverse import maruyama, milstein

pytestmark = pytest.mark.usefixtures("one_thread")

MU, SIGMA = 0.5, 0.8  # geometric Brownian motion dx = mu x dt + sigma x dw, x(0) = 1, to time 1
FINEST = 512


def strong_error(step, steps):
    """The mean distance from x(1) = exp((mu - sigma²/2) + sigma W(1)) on the same path."""
    generator = torch.Generator().manual_seed(0)
    dw = torch.randn(20_000, FINEST, generator=generator, dtype=torch.float64) / math.sqrt(FINEST)
    coarse = dw.reshape(len(dw), steps, -1).sum(2)
    h = torch.full((len(dw),), 1 / steps, dtype=torch.float64)
    x = torch.ones(len(dw), 1, dtype=torch.float64)
    for i in range(steps):
        z = coarse[:, i : i + 1] / math.sqrt(1 / steps)
        x = step(x, h * i, h, MU * x, lambda x, t: SIGMA * x, z)
    exact = torch.exp(MU - SIGMA**2 / 2 + SIGMA * dw.sum(1, keepdim=True))
    return float((x - exact).abs().mean())


@pytest.mark.parametrize(("step", "order"), [(maruyama, 0.5), (milstein, 1.0)])
def test_strong_order_on_geometric_brownian_motion(step, order):
    errors = [strong_error(step, n) for n in (32, 128)]
    assert math.log2(errors[0] / errors[1]) / 2 == pytest.approx(order, abs=0.1)


def test_milsteins_term_is_that_of_the_closed_form():
    """b b' (z² - 1) h / 2 with b = sigma x, up to what a difference over sqrt(h) adds."""
    x, z = torch.full((1, 1), 2.0, dtype=torch.float64), torch.tensor([[1.7]], dtype=torch.float64)
    h = torch.tensor([1e-8], dtype=torch.float64)
    field = lambda x, t: SIGMA * x  # noqa: E731
    added = milstein(x, h, h, 0 * x, field, z) - maruyama(x, h, h, 0 * x, field, z)
    wanted = SIGMA**2 * 2.0 * (1.7**2 - 1) * 1e-8 / 2
    assert float(added) == pytest.approx(wanted, rel=1e-3)
