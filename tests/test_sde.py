"""The noising processes obey their own definition: dx = f x dt + g dw."""

from __future__ import annotations

import pytest
import torch
from conftest import every_sde
from scipy.integrate import solve_ivp
from scipy.stats import norm

from studio.diffusion.sde import VESDE, VPSDE, SubVPSDE

TIMES = torch.tensor([1e-5, 1e-3, 0.02, 0.1, 0.3, 0.5, 0.8, 1.0], dtype=torch.float64)


def close(ours, wanted, rtol=1e-9, atol=0.0):
    torch.testing.assert_close(
        ours, torch.as_tensor(wanted, dtype=ours.dtype), rtol=rtol, atol=atol
    )


@every_sde
def test_marginal_obeys_the_moment_equations(sde):
    t = TIMES.clone().requires_grad_()
    a, s = sde.marginal(t)
    f, g = (v.detach() for v in sde.coefficients(t))
    (da,) = torch.autograd.grad((a + 0 * t).sum(), t, retain_graph=True)  # VE's a is a constant
    (dv,) = torch.autograd.grad((s**2).sum(), t)
    a, s = a.detach(), s.detach()
    close(da, f * a)
    close(dv, 2 * f * s**2 + g**2)


@every_sde
def test_time_inverts_sigma(sde):
    close(sde.time(sde.sigma(TIMES)), TIMES, rtol=1e-8)


@every_sde
def test_sigma_and_log_snr_say_the_same_as_the_marginal(sde):
    a, s = sde.marginal(TIMES)
    close(sde.sigma(TIMES), s / a)
    close(sde.log_snr(TIMES), torch.log(a**2 / s**2), atol=1e-9)


@every_sde
def test_noise_only_grows(sde):
    assert bool((sde.sigma(TIMES).diff() > 0).all())


@every_sde
def test_transitions_compose(sde):
    s, u, t = (TIMES[k : k + 1] for k in (2, 4, 6))
    r_su, v_su = sde.transition(s, u)
    r_ut, v_ut = sde.transition(u, t)
    r, v = sde.transition(s, t)
    close(r, r_su * r_ut)
    close(v, r_ut**2 * v_su + v_ut)


@every_sde
@pytest.mark.parametrize(("s", "t"), [(1e-3, 2e-3), (0.1, 0.4), (0.5, 1.0)])
def test_transition_is_the_solution_of_the_sde_between_two_times(sde, s, t):
    def moments(time, m):
        f, g = (float(v) for v in sde.coefficients(torch.tensor([time], dtype=torch.float64)))
        return f * m[0], 2 * f * m[1] + g**2

    end = solve_ivp(moments, (s, t), (1.0, 0.0), method="DOP853", rtol=1e-11, atol=1e-14).y[:, -1]
    r, v = sde.transition(*(torch.tensor([u], dtype=torch.float64) for u in (s, t)))
    close(r, [end[0]], rtol=1e-8)
    close(v, [end[1]], rtol=1e-8)


@every_sde
def test_bridge_is_gaussian_conditioning(sde):
    s, t = TIMES[3:4], TIMES[5:6]
    (a_s, s_s), (a_t, s_t), (r, _) = sde.marginal(s), sde.marginal(t), sde.transition(s, t)
    covariance = r * s_s**2  # of x_s and x_t given x_0
    c, c_0, std = sde.bridge(t, s)
    gain = covariance / s_t**2
    close(c, gain)
    close(c_0, a_s - gain * a_t)
    close(std**2, s_s**2 - gain * covariance)


@every_sde
def test_float32_keeps_its_digits_near_the_picture(sde):
    t = torch.tensor([1e-5, 2e-5, 1e-4, 1e-3], dtype=torch.float32)
    exact = t.double()
    for ours, wanted in [
        *zip(sde.marginal(t), sde.marginal(exact)),
        *zip(sde.coefficients(t), sde.coefficients(exact)),
        (sde.sigma(t), sde.sigma(exact)),
        (sde.time(sde.sigma(t)), exact),
    ]:
        # Of VE's time only the absolute digits exist: it is a logarithm near 0 of sigma.
        torch.testing.assert_close(ours.double(), wanted, rtol=2e-6, atol=2e-7)


@every_sde
def test_float32_transitions_of_a_thousand_steps_keep_their_digits(sde):
    grid = torch.linspace(1, sde.eps, 1001, dtype=torch.float64).float()
    _, v = sde.transition(grid[1:], grid[:-1])
    _, exact = sde.transition(grid[1:].double(), grid[:-1].double())
    torch.testing.assert_close(v.double(), exact, rtol=1e-3, atol=0)


@every_sde
def test_prior_is_the_normal_law_at_time_one(sde):
    assert sde.prior_std == pytest.approx(float(sde.marginal(TIMES[-1:])[1]))
    x = torch.linspace(-2, 3, 24, dtype=torch.float64).reshape(2, 3, 2, 2)
    wanted = norm(0, sde.prior_std).logpdf(x.numpy()).sum((1, 2, 3))
    close(sde.prior_log_density(x), wanted)


def test_the_published_constants_come_out():
    # research/engine.md 2.1: alpha-bar(1) = 4.3e-5 and std(1e-3) = .01049 of VP.
    a, s = VPSDE().marginal(torch.tensor([1.0, 1e-3], dtype=torch.float64))
    assert float(a[0] ** 2) == pytest.approx(4.3e-5, rel=0.01)
    assert float(s[1]) == pytest.approx(0.01049, rel=1e-3)
    # sub-VP has the square of VP's deviation; VE goes from sigma_min to sigma_max.
    close(SubVPSDE().marginal(TIMES)[1], VPSDE().marginal(TIMES)[1] ** 2)
    ends = VESDE(0.02, 90.0).sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    close(ends, [0.02, 90.0])


@every_sde
def test_times_of_every_second_level_are_found_without_a_warning(sde):
    """Values that do not lie side by side in memory, as a column of a table."""
    t = torch.linspace(0.2, 0.9, 8, dtype=torch.float64)
    torch.testing.assert_close(sde.time(sde.sigma(t[::2])), t[::2])
    torch.testing.assert_close(sde.time(sde.sigma(t)[::2]), t[::2])
