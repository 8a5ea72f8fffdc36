"""A network that grew begins with what the smaller one knew, and is a model like any other."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY_OPTIONS, tiny_network

from studio.diffusion.score import Preconditioned
from studio.diffusion.sde import VESDE, VPSDE
from studio.errors import CheckpointError
from studio.networks.catalog import build

INNER = TINY_OPTIONS | {"patch": 2, "top": 4, "channels": [8, 16]}
GROWN = {"size": 16, "colours": 3, "classes": 2, "inner": INNER, "top": 4}


def grown(**changes):
    net = build("grown", GROWN | changes).eval().requires_grad_(False)
    net.inner.load_state_dict(tiny_network(patch=2, top=4).state_dict())
    return net


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=["vp", "ve"])
def test_a_grown_network_begins_with_the_estimate_of_the_smaller_one(sde):
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    sigma = torch.tensor([0.3, 2.0])
    noisy = x_0 + sigma[:, None, None, None] * torch.randn(x_0.shape, generator=generator)
    y, output = torch.tensor([0, 1]), Preconditioned()

    def denoised(net, x, at):
        t = sde.time(at)
        a, s = sde.marginal(t)
        scaled = a[:, None, None, None] * x
        noise = output.noise(net, scaled, t, y, sde)
        return (scaled - s[:, None, None, None] * noise) / a[:, None, None, None]

    means = torch.nn.functional.avg_pool2d(noisy, 2)
    small = denoised(grown().inner, means, sigma / 2)
    skip = (0.25 / (0.25 + sigma**2))[:, None, None, None]
    up = torch.nn.Upsample(scale_factor=2)
    wanted = up(small) + skip * (noisy - up(means))
    torch.testing.assert_close(denoised(grown(), noisy, sigma), wanted, rtol=1e-3, atol=1e-3)


def test_every_weight_of_a_grown_network_learns():
    net = build("grown", GROWN).train()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    out = net(torch.randn(2, 3, 16, 16), torch.tensor([-0.2, 0.3]), torch.tensor([0, -1]))
    assert out.shape == (2, 3, 16, 16)
    out.square().mean().backward()
    assert all(bool(p.grad.any()) for p in net.parameters())


@pytest.mark.parametrize(
    "change", [{"size": 32}, {"classes": 3}, {"top": 0}, {"inner": INNER | {"top": 0, "patch": 1}}]
)
def test_a_network_that_cannot_have_grown_is_refused(change):
    with pytest.raises(CheckpointError):
        build("grown", GROWN | change)
