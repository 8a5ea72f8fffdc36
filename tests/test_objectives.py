"""What each objective visits, that it weighs as stated, and that it finds the score of a density."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import every_sde
from scipy import integrate
from torch import nn

from studio import spec
from studio.diffusion.objective import Noised, Objective
from studio.diffusion.objectives import OBJECTIVES, normaliser
from studio.diffusion.score import OUTPUTS, expand
from studio.diffusion.sde import FIRST_TIME, SDE, VESDE, VPSDE, SubVPSDE
from studio.spec import about

pytestmark = pytest.mark.usefixtures("one_thread")

every_objective = pytest.mark.parametrize("objective", list(OBJECTIVES))
IMPLICIT = ("sliced", "sliced-vr", "implicit")
every_implicit = pytest.mark.parametrize("objective", IMPLICIT)

U = torch.linspace(1e-6, 1 - 1e-6, 501, dtype=torch.float64)


@every_objective
def test_an_objective_says_what_it_is_and_what_its_settings_do(objective):
    cls = OBJECTIVES[objective]
    assert cls.title
    assert "Use it" in " ".join(cls.__doc__.split())
    for field in dataclasses.fields(cls):
        assert about(field).label
        assert about(field).help
        assert about(field).range or about(field).choices
    made = cls()
    spec.check(made)
    assert spec.from_dict(Objective, spec.to_dict(made)) == made


# -- times ----------------------------------------------------------------------------------------


def beta_integral(sde, t):
    return sde.beta_min * t + (sde.beta_max - sde.beta_min) * t**2 / 2


CLOSED = {
    VPSDE(): lambda sde, t: torch.log(torch.expm1(beta_integral(sde, t))),
    VPSDE(0.5, 6.0): lambda sde, t: torch.log(torch.expm1(beta_integral(sde, t))),
    SubVPSDE(): lambda sde, t: 2 * torch.log(2 * torch.sinh(beta_integral(sde, t) / 2)),
    VESDE(): lambda sde, t: 2 * t * math.log(sde.sigma_max / sde.sigma_min),
}


@pytest.mark.parametrize(
    "sde", list(CLOSED), ids=lambda sde: f"{sde.title}-{list(vars(sde).values())}"
)
def test_likelihood_times_have_the_density_g2_over_s2(sde):
    """The closed-form integral of g² / s² up to the time of u is u times all of it."""
    integral = CLOSED[sde]
    first, last = (integral(sde, torch.tensor(v, dtype=torch.float64)) for v in (FIRST_TIME, 1.0))
    t = OBJECTIVES["likelihood"]().times(U, sde)
    share = (integral(sde, t) - first) / (last - first)
    torch.testing.assert_close(share, U, rtol=0, atol=1e-9)
    assert normaliser(sde) == pytest.approx(float(last - first), abs=1e-9)


@pytest.mark.parametrize(("sde", "wanted"), [(VPSDE(), 23.864), (SubVPSDE(), 37.679)])
def test_the_published_constants_have_the_known_normalisers(sde, wanted):
    assert normaliser(sde) == pytest.approx(wanted, abs=5e-4)


class Bent(SDE):
    """A process of nobody's: VE with sigma = 0.01 + t³ + t."""

    eps = 1e-3

    def marginal(self, t):
        return torch.ones_like(t), 0.01 + t**3 + t

    def coefficients(self, t):
        return torch.zeros_like(t), torch.sqrt(2 * (0.01 + t**3 + t) * (3 * t**2 + 1))

    def time(self, sigma):
        low, high = torch.zeros_like(sigma), torch.ones_like(sigma)
        for _ in range(60):
            middle = (low + high) / 2
            over = self.marginal(middle)[1] > sigma
            low, high = torch.where(over, low, middle), torch.where(over, middle, high)
        return (low + high) / 2


def share_below(sde: SDE, power: float, t: float) -> float:
    """The share of the integral of (g² / s²)^power below t, by quadrature in ln t."""

    def rate(log_t: float) -> float:
        at = torch.tensor([math.exp(log_t)], dtype=torch.float64)
        return float((sde.coefficients(at)[1] / sde.marginal(at)[1]) ** (2 * power)) * float(at)

    def total(to: float) -> float:
        return integrate.quad(rate, math.log(FIRST_TIME), math.log(to), limit=200)[0]

    return total(t) / total(1.0)


@pytest.mark.parametrize(
    "sde", [VPSDE(), SubVPSDE(), VESDE(), Bent()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_balanced_times_have_a_power_of_that_density(sde, balance):
    t = OBJECTIVES["balanced"](balance=balance).times(U, sde)
    for k in (25, 250, 475):
        assert share_below(sde, balance, float(t[k])) == pytest.approx(float(U[k]), abs=1e-5)


@every_sde
def test_the_ends_of_the_balance_are_the_papers_times_and_the_likelihoods(sde):
    for balance, name in ((0.0, "variance"), (1.0, "likelihood")):
        found = OBJECTIVES["balanced"](balance=balance).times(U, sde)
        torch.testing.assert_close(found, OBJECTIVES[name]().times(U, sde), rtol=1e-3, atol=1e-6)


def test_discrete_levels_are_geometric_and_no_others_are_visited():
    sde = VESDE()
    t = OBJECTIVES["smld"](levels=10).times(torch.rand(4000, dtype=torch.float64), sde)
    found, counts = sde.sigma(t).unique(return_counts=True)
    wanted = np.geomspace(float(sde.sigma(torch.tensor(FIRST_TIME))), sde.sigma_max, 10)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=1e-6)
    assert int(counts.min()) > 300


@every_sde
def test_discrete_levels_go_from_the_first_noise_to_the_last(sde):
    t = OBJECTIVES["smld"](levels=5).times(U, sde)
    steps = torch.log(sde.sigma(t.unique())).diff()
    assert len(steps) == 4
    torch.testing.assert_close(steps, steps.mean().expand(4), rtol=1e-5, atol=0)
    assert float(t.max()) == pytest.approx(1, abs=1e-9)


def test_discrete_steps_are_those_of_ddpm():
    t = OBJECTIVES["ddpm"](steps=8).times(torch.rand(4000), VPSDE())
    found, counts = t.unique(return_counts=True)
    assert found.tolist() == [i / 8 for i in range(1, 9)]
    assert int(counts.min()) > 400


# -- errors ---------------------------------------------------------------------------------------


def noised_gaussian(sde: SDE, count: int, std: float = 0.7, seed: int = 0) -> Noised:
    """Pictures (count, 2, 1, 1) of a Gaussian with that deviation, at times all over."""
    generator = torch.Generator().manual_seed(seed)
    x_0 = std * torch.randn(count, 2, 1, 1, generator=generator, dtype=torch.float64)
    return OBJECTIVES["variance"]().noised(sde, x_0, generator)


def linear_network(matrix):
    """Answers with the score -matrix x, whatever the noise."""
    return lambda x, label, y: -(x.flatten(1) @ matrix.T).reshape(x.shape)


class Plain(OUTPUTS["score"]):
    """The network is given x as it is."""

    def noise(self, net, x, t, y, sde):
        return -net(x, t, y) * expand(sde.marginal(t)[1], x)


MATRIX = torch.tensor([[1.5, 0.4], [-0.2, 0.8]], dtype=torch.float64)


def closed_form(noised: Noised, sde: SDE, matrix) -> torch.Tensor:
    """s² (2 tr(ds/dx) + |s|²) / D + 1 for the score -matrix x."""
    s, score = sde.marginal(noised.t)[1], noised.x.flatten(1) @ matrix.T
    return s**2 * (score.pow(2).sum(1) - 2 * matrix.trace()) / 2 + 1


@every_sde
def test_the_implicit_error_of_a_linear_score_is_its_closed_form(sde):
    noised, generator = noised_gaussian(sde, 64), torch.Generator()
    found = OBJECTIVES["implicit"]().error(
        linear_network(MATRIX), Plain(), sde, noised, None, generator
    )
    torch.testing.assert_close(found, closed_form(noised, sde, MATRIX), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("direction", ["rademacher", "gaussian"])
@pytest.mark.parametrize("objective", ["sliced", "sliced-vr"])
def test_sliced_errors_of_a_linear_score_are_its_closed_form_in_the_mean(objective, direction):
    """One picture at one time under very many directions."""
    sde, count = VPSDE(), 40_000
    one = noised_gaussian(sde, 1)
    many = Noised(one.x.expand(count, -1, -1, -1), one.t.repeat(count), one.z)
    found = (
        OBJECTIVES[objective](direction=direction)
        .error(linear_network(MATRIX), Plain(), sde, many, None, torch.Generator().manual_seed(0))
        .detach()
    )
    within = 4 * float(found.std()) / math.sqrt(count)
    assert float(found.mean()) == pytest.approx(float(closed_form(one, sde, MATRIX)), abs=within)


def test_signs_give_the_trace_of_a_diagonal_score_without_noise():
    sde, matrix = VPSDE(), torch.diag(torch.tensor([1.5, 0.3], dtype=torch.float64))
    noised = noised_gaussian(sde, 32)
    found = OBJECTIVES["sliced-vr"]().error(
        linear_network(matrix), Plain(), sde, noised, None, torch.Generator()
    )
    torch.testing.assert_close(found, closed_form(noised, sde, matrix), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("objective", ["sliced", "sliced-vr"])
def test_more_projections_are_less_noisy(objective):
    sde = VPSDE()
    noised = noised_gaussian(sde, 4000)

    def spread(count):
        cls = OBJECTIVES[objective](projections=count, direction="gaussian")
        generator = torch.Generator().manual_seed(0)
        found = cls.error(linear_network(MATRIX), Plain(), sde, noised, None, generator).detach()
        return float((found - closed_form(noised, sde, MATRIX)).std())

    assert spread(16) == pytest.approx(spread(1) / 4, rel=0.15)


@every_sde
def test_the_implicit_loss_and_its_gradient_are_those_of_denoising_in_the_mean(sde):
    """The means over picture and noise by Gauss-Hermite quadrature, for a network that bends."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(48)
    x_0, z = (torch.from_numpy(v).reshape(-1, 1, 1, 1) for v in np.meshgrid(nodes, nodes))
    mass = torch.from_numpy(np.outer(weights, weights)).flatten() / (2 * math.pi)
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    t = sde.time(torch.tensor([0.6], dtype=torch.float64))
    a, s = sde.marginal(t)
    noised = Noised(a * 0.5 * x_0 + s * z, t.repeat(len(z)), z)
    found = []
    for name in ("variance", "implicit"):
        errors = OBJECTIVES[name]().error(
            lambda x, label, y: net(x), Plain(), sde, noised, None, generator
        )
        mean = (mass * errors).sum()
        found.append([mean.detach(), *torch.autograd.grad(mean, list(net.parameters()))])
    for ours, wanted in zip(*found):
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-8)


@every_implicit
def test_objectives_without_known_noise_never_look_at_it(objective):
    sde, noised = VPSDE(), noised_gaussian(VPSDE(), 8)
    blind = Noised(noised.x, noised.t, torch.full_like(noised.z, math.nan))
    found = OBJECTIVES[objective]().error(
        linear_network(MATRIX), Plain(), sde, blind, None, torch.Generator()
    )
    assert bool(torch.isfinite(found).all())


# -- learning -------------------------------------------------------------------------------------

MEANS = torch.tensor([[-0.6, -0.3], [0.5, 0.6], [0.4, -0.5]], dtype=torch.float64)
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
STD = 0.2


def draw(count, generator):
    """Points of a mixture of three Gaussians, (count, 2, 1, 1)."""
    k = torch.multinomial(SHARES, count, replacement=True, generator=generator)
    noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return (MEANS[k] + STD * noise).reshape(count, 2, 1, 1)


def true_score(x, a, s):
    variance = (a * STD) ** 2 + s**2
    away = a[:, None, None] * MEANS - x.flatten(1)[:, None]
    logits = SHARES.log() - away.pow(2).sum(2) / (2 * variance[:, None])
    return (torch.softmax(logits, 1)[:, :, None] * away).sum(1) / variance[:, None]


class Tiny(nn.Module):
    """A network of points in the plane."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(9, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
        )

    def forward(self, x, label, y=None):
        angles = label[:, None] * torch.tensor([1.5, 3.0, 6.0])
        told = torch.cat([x.flatten(1), label[:, None], angles.sin(), angles.cos()], 1)
        return self.body(told).reshape(x.shape)


def fisher_divergence(net, output, sde, count=1000):
    """E s² |score_net - score|², in the mean over six noise levels."""
    generator, found = torch.Generator().manual_seed(99), []
    for sigma in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6):
        t = sde.time(torch.full((count,), sigma, dtype=torch.float64))
        a, s = sde.marginal(t)
        x_0 = draw(count, generator)
        z = torch.randn(count, 2, 1, 1, generator=generator, dtype=torch.float64)
        x = expand(a, x_0) * x_0 + expand(s, x_0) * z
        with torch.no_grad():
            ours = output.score(net, x.float(), t.float(), None, sde).double().flatten(1)
        found.append(float((s[:, None] * (ours - true_score(x, a, s))).pow(2).sum(1).mean()))
    return sum(found) / len(found)


def learned(objective, sde, steps):
    """The Fisher divergence of a small network before and after that many steps."""
    torch.manual_seed(0)
    net, output = Tiny(), OUTPUTS["edm"](sigma_data=0.6)
    before = fisher_divergence(net, output, sde)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x_0 = draw(256, generator).float()
        loss, _ = OBJECTIVES[objective]().loss(net, output, sde, x_0, None, generator)
        loss.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return before, fisher_divergence(net, output, sde)


@pytest.mark.slow
@every_objective
def test_every_objective_learns_a_known_density(objective):
    """To a Fisher divergence of 0.03; the best Gaussian, where it begins, is at 0.25."""
    before, after = learned(objective, VPSDE(), steps=2000)
    assert before > 0.2
    assert after < 0.03


@pytest.mark.parametrize("objective", ["variance", "sliced-vr"])
def test_a_short_training_already_finds_some_of_it(objective):
    before, after = learned(objective, VESDE(sigma_max=5.0), steps=250)
    assert after < 0.6 * before
