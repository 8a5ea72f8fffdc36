"""Posteriors that are known exactly, and what each method draws instead."""

from __future__ import annotations

import math

import pytest
import torch

from studio.diffusion import posterior_laws
from studio.diffusion.conditions import All
from studio.diffusion.measured import PseudoinverseGuidance, Replacement
from studio.diffusion.posterior_laws import METHODS, Bias, drawn, independent, posteriors
from studio.diffusion.sde import SDES, VPSDE

pytestmark = pytest.mark.usefixtures("one_thread")

TURNS = [
    pytest.param(sde, marks=[pytest.mark.slow] if turn else []) for turn, sde in enumerate(SDES)
]
CASES = {(name, c): p for c in (False, True) for name, p in posteriors(c).items()}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=[f"{n}-{c}" for n, c in CASES])


@pytest.mark.slow
@pytest.mark.parametrize("sde", list(SDES))
def test_every_law_of_posteriors_holds(sde):
    found = list(posterior_laws.posterior_laws({sde: SDES[sde]()}))
    assert {law.sampler for law in found} == set(METHODS)
    for law in found:
        assert law.ok, law
        assert law.sde == sde


@every_case
def test_posteriors_are_what_many_pictures_near_a_measurement_are(case):
    """By the joint law of a picture and its measurement: what regression leaves is the posterior."""
    generator = torch.Generator().manual_seed(3)
    size = len(case.covariance)
    z = torch.randn(20_000, size, generator=generator, dtype=torch.float64)
    x = z @ torch.linalg.cholesky(case.covariance).T
    y = x @ case.matrix.T
    y = y + case.error * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    rest = x - y @ case.gain.T
    torch.testing.assert_close(rest.T.cov(), case.spread, rtol=0, atol=0.02)
    assert float((rest.T @ y / len(y)).abs().max()) < 0.02


@every_case
def test_the_score_is_the_slope_of_the_noised_density(case):
    sde = VPSDE()
    t = torch.tensor([0.01, 0.4, 1.0], dtype=torch.float64)
    a, s = (v[:, None, None] for v in sde.marginal(t))
    x = torch.randn(3, *case.shape, generator=torch.Generator().manual_seed(1)).double()
    noised = a**2 * case.covariance + s**2 * torch.eye(len(case.covariance))
    wanted = -torch.linalg.solve(noised, x.flatten(1)[:, :, None]).reshape(x.shape)
    torch.testing.assert_close(case.score(sde)(x, t), wanted, rtol=1e-8, atol=1e-8)


def test_what_is_independent_tells_nothing_of_the_rest():
    for case in posteriors(correlated=True).values():
        apart = independent(case)
        rest = apart.covariance - apart.covariance @ torch.linalg.pinv(apart.matrix) @ apart.matrix
        told = rest @ apart.matrix.T
        assert float(told.abs().max()) < 1e-9


@pytest.mark.parametrize("sde", TURNS)
@pytest.mark.parametrize("measured", list(posteriors(False)))
def test_pseudoinverse_guidance_is_bayes_rule_for_even_pictures(sde, measured):
    case = posteriors(False)[measured]
    _, wanted = case.seen(posterior_laws._TRUTHS)
    for method in ("pseudoinverse guidance", "Bayes' rule"):
        law = drawn(method, case, SDES[sde](), 25)
        assert law.mean_error(case, wanted) < 0.005
        assert abs(law.spread_error(case)) < 0.05


def test_impulses_tell_the_law_that_drawing_would_find(monkeypatch):
    """The law of replacement from unit impulses is the one of many draws."""
    case = posteriors(True)["half of it"]
    exact = drawn("replacement", case, VPSDE(), 12)
    monkeypatch.setattr(posterior_laws, "_AFFINE", set())
    found = drawn("replacement", case, VPSDE(), 12)
    torch.testing.assert_close(found.means, exact.means, rtol=0, atol=1e-9)
    error = 4 * 0.25 * math.sqrt(2 / (posterior_laws._TRUTHS * posterior_laws._PAIRS))
    torch.testing.assert_close(found.covariance, exact.covariance, rtol=0, atol=error)


def test_a_condition_that_is_off_is_seen(monkeypatch):
    def half(self, x, t, clean, pull, sde):
        gap = self.operator.measured(self.picture) - self.operator.forward(clean)
        return 0.5 * pull(self.operator.adjoint(gap)) / sde.sigma(t).reshape(-1, 1, 1, 1) ** 2

    monkeypatch.setattr(PseudoinverseGuidance, "term", half)
    assert not all(law.ok for law in posterior_laws._laws_of("pseudoinverse guidance", VPSDE()))


def test_grain_that_is_left_is_seen(monkeypatch):
    """The reference's end: noise put back with what is known, and not taken away again."""
    real = Replacement.constrain

    def noisy(self, x, t, sde, noise):
        put = real(self, x, t or sde.eps, sde, noise)
        if t == 0:
            put = put + sde.sigma(x.new_full((1,), sde.eps)) * noise.fresh(0.0, 1)
        return put

    monkeypatch.setattr(Replacement, "constrain", noisy)
    half = posteriors(True)["half of it"]
    assert [law.ok for law in posterior_laws._ends("replacement", half, SDES["ve"]())] == [
        False
    ] * 2


def test_several_conditions_together_are_drawn_as_the_one_they_make(monkeypatch):
    """Both halves of what is known, each as a condition of its own, are both known."""
    case = posteriors(False)["half of it"]
    seen, wanted = case.seen(4)
    parts = []
    for rows in ([0, 1], [2, 3]):
        until = case.operator.until.clone()
        until[:, :, rows] = math.inf
        parts.append(PseudoinverseGuidance(type(case.operator)(until), seen))
    noise = posterior_laws._Impulses(VPSDE(), case.shape, 4, 0)
    monkeypatch.setitem(METHODS, "both", lambda p, seen: All(tuple(parts)))
    x, _ = posterior_laws._run("both", case, noise, seen, 40)
    torch.testing.assert_close(x, wanted, rtol=0, atol=0.005)


def test_biases_stand_in_a_table():
    found = [
        Bias("replacement", "half", 0.4371, 0.098, 61),
        Bias("guided", "half", 0.19, -0.006, 61),
        Bias("guided", "a blur", 0.05, 0.007, 60),
    ]
    lines = posterior_laws.posterior_table(found).splitlines()
    assert [line.strip("| ").split(" | ") for line in lines] == [
        ["Method", "half", "a blur", "Calls"],
        ["---"] * 4,
        ["replacement", "0.44 σ, +9.8 %", "–", "61"],
        ["guided", "0.19 σ, -0.6 %", "0.05 σ, +0.7 %", "61"],
    ]


@pytest.mark.slow
def test_every_method_has_its_biases():
    found = list(posterior_laws.biases(VPSDE(), steps=10))
    assert {(b.method, b.measured) for b in found} == {
        (m, name)
        for m in METHODS
        for name, p in posteriors(True).items()
        if p.operator.exact or m not in ("replacement", "time travel")
    }
