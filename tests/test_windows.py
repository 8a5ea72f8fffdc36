"""The score of a large canvas from windows: exact where windows can know it, without seams, and only
where it is wanted."""

from __future__ import annotations

from collections import Counter as Counts

import numpy as np
import pytest
from conftest import every_sde, gaussian_score, noise_for

from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.conditions import ClassifierFree, ClassLabel
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import VESDE, VPSDE
from studio.diffusion.windows import windowed
from studio.errors import SpecError
from studio.lazy import torch

STD = 0.5


def correlations(side, length):
    apart = np.arange(side)[:, None] - np.arange(side)
    return np.exp(-(apart**2) / (2 * length**2))


def field_score(sde, height, width, length=1.0):
    """The exact score of smooth random fields: variance STD², correlations Gaussian in the distance."""
    (down, u), (across, v) = (
        map(torch.from_numpy, np.linalg.eigh(correlations(n, length))) for n in (height, width)
    )
    spectrum = STD**2 * down.clamp_min(0)[:, None] * across.clamp_min(0)

    def fn(x, t):
        a, s = (expand(value, x) for value in sde.marginal(t))
        waves = u.T.to(x) @ x @ v.to(x)
        return -u.to(x) @ (waves / (a**2 * spectrum.to(x) + s**2)) @ v.T.to(x)

    return Score.from_function(fn, sde, (1, height, width))


class Recorder:
    """A score of 8×8 pictures that keeps what it was asked; with x the number of each pixel, that says
    where each window lies."""

    def __init__(self, sde=None):
        self.calls = []
        self.score = Score.from_function(self, sde or VPSDE(), (1, 8, 8))

    def __call__(self, x, t):
        self.calls.append((x, t))
        return torch.ones_like(x)

    def corners(self, width):
        found = torch.cat([x[:, 0, 0, 0] for x, _ in self.calls]).long()
        return {divmod(int(i), width) for i in found}


def numbered(height, width, count=1):
    flat = torch.arange(height * width, dtype=torch.float64)
    return flat.reshape(1, 1, height, width).repeat(count, 1, 1, 1)


def at(*times):
    return torch.tensor(times, dtype=torch.float64)


def states(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@every_sde
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.8])
def test_what_acts_on_each_pixel_alone_is_exact(sde, overlap):
    small, large = (gaussian_score(sde, STD, shape) for shape in ((3, 8, 8), (3, 21, 13)))
    x, t = states(4, 3, 21, 13), at(0.01, 0.3, 0.3, 0.9)
    torch.testing.assert_close(windowed(small, (21, 13), overlap)(x, t), large(x, t))


@pytest.mark.parametrize("time", [0.05, 0.2, 0.5, 0.8])
def test_fields_that_correlate_over_less_than_a_window_are_denoised_as_on_the_whole(time):
    sde = VPSDE()
    canvas = windowed(field_score(sde, 16, 16), (40, 36))
    whole = field_score(sde, 40, 36)
    roots = [np.linalg.cholesky(correlations(n, 1.0) + 1e-9 * np.eye(n)) for n in (40, 36)]
    clean = STD * torch.from_numpy(roots[0]) @ states(4, 1, 40, 36) @ torch.from_numpy(roots[1]).T
    t = at(*[time] * 4)
    a, s = (expand(v, clean) for v in sde.marginal(t))
    x = a * clean + s * states(4, 1, 40, 36, seed=1)
    off = canvas.denoised(x, t) - whole.denoised(x, t)
    assert float(off.square().mean().sqrt()) < 0.003 * STD


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=["vp", "ve"])
def test_a_sampled_canvas_is_that_of_the_whole_score_and_has_no_seams(sde, one_thread):
    height, width, count = 32, 40, 24
    sampler = SAMPLERS["dpm3m"](steps=40)
    whole, canvas = (
        list(sampler.run(score, noise_for(sampler, score, count=count)))[-1].denoised[:, 0]
        for score in (
            field_score(sde, height, width),
            windowed(field_score(sde, 16, 16), (height, width)),
        )
    )
    # The same noise: the two differ by what windows cannot know, nowhere more than elsewhere.
    off = (canvas - whole).square()
    assert float(off.mean().sqrt()) < 0.03 * STD
    assert float(off.mean((0, 1)).sqrt().max()) < 0.06 * STD
    assert float(off.mean((0, 2)).sqrt().max()) < 0.06 * STD
    # And the field is what it should be: 24 × 32 × 40 / 2π independent places, of 2 % each.
    assert float(canvas.mean()) == pytest.approx(0, abs=4 * STD / 70)
    for lag in (0, 1, 2, 3):
        product = (canvas[..., : width - lag] * canvas[..., lag:]).mean()
        assert float(product) == pytest.approx(STD**2 * np.exp(-(lag**2) / 2), abs=0.08 * STD**2)


def test_a_canvas_of_the_models_size_is_the_model():
    score = gaussian_score(VPSDE(), STD, (3, 8, 8))
    assert windowed(score, (8, 8)) is score


def test_a_canvas_is_a_score_of_its_own_shape():
    score = gaussian_score(VPSDE(), STD, (3, 8, 8))
    canvas = windowed(score, (8, 19))
    assert canvas.shape == (3, 8, 19)
    assert (canvas.sde, canvas.value_range) == (score.sde, score.value_range)
    assert canvas.conditional is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (7, 30)},
        {"size": (30, 7)},
        {"overlap": 1.0},
        {"overlap": -0.1},
        {"batch": 0},
        {"where": torch.zeros(8, 8, dtype=torch.bool)},
        {"known": torch.zeros(3, 16, 16)},
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(wrong):
    score = gaussian_score(VPSDE(), STD, (1, 8, 8))
    with pytest.raises(SpecError):
        windowed(score, **{"size": (16, 16)} | wrong)


# -- the grid -------------------------------------------------------------------------------------


def test_windows_lie_inside_and_reach_every_border():
    for time in np.linspace(0.01, 1, 20):
        seen = Recorder()
        windowed(seen.score, (20, 27))(numbered(20, 27), at(time))
        for x, _ in seen.calls:
            # Rows and columns without a gap: no window wraps round or is cut.
            assert (x.diff(dim=3) == 1).all()
            assert (x.diff(dim=2) == 27).all()
        tops, lefts = (sorted(set(side)) for side in zip(*seen.corners(27)))
        assert (tops[0], tops[-1], lefts[0], lefts[-1]) == (0, 12, 0, 19)
        assert max(np.diff(tops)) <= 4 >= max(np.diff(lefts))


def test_the_grid_moves_with_the_noise_level():
    inner = []
    for time in np.linspace(0.05, 0.95, 12):
        seen = Recorder()
        windowed(seen.score, (40, 40))(numbered(40, 40), at(time))
        inner.append(frozenset(c for c in seen.corners(40) if 0 not in c and 32 not in c))
    assert len(set(inner)) >= 8
    rows, columns = (
        Counts(min(c[axis] for c in corners) % 4 for corners in inner) for axis in (0, 1)
    )
    assert max(rows.values()) <= 6 >= max(columns.values())


def test_the_grid_depends_on_the_time_and_nothing_else():
    canvas = windowed(field_score(VPSDE(), 8, 8), (20, 20))
    x, t = states(3, 1, 20, 20), at(0.7, 0.2, 0.7)
    together = canvas(x, t)
    for i in range(3):
        torch.testing.assert_close(together[i], canvas(x[i : i + 1], t[i : i + 1])[0])
    single = canvas(x.float(), t.float())
    torch.testing.assert_close(single.double(), together, atol=1e-3, rtol=1e-4)


def test_the_model_is_given_no_more_windows_at_once_than_said():
    seen = Recorder()
    windowed(seen.score, (24, 24), batch=5)(numbered(24, 24, 2), at(0.5, 0.5))
    sizes = [len(x) for x, _ in seen.calls]
    assert max(sizes) == 5
    assert all(size == 5 for size in sizes[:-1])


# -- classes, gradients ---------------------------------------------------------------------------


def classed():
    """Two classes of constant pictures at 0.6 and -0.6; any class lies between."""

    def fn(means, x, t):
        a, s = (expand(v, x) for v in VPSDE().marginal(t))
        return (a * expand(means, x) - x) / (a**2 * STD**2 + s**2)

    def conditional(labels):
        means = torch.tensor([0.6, -0.6, 0.0], dtype=torch.float64)[labels]
        return lambda x, t: fn(means.to(x), x, t)

    plain = lambda x, t: fn(x.new_zeros(len(x)), x, t)  # noqa: E731
    return Score(plain, VPSDE(), (1, 8, 8), classes=("light", "dark"), conditional=conditional)


@pytest.mark.parametrize("condition", [ClassLabel((0, 1, -1)), ClassifierFree((0, 1, -1), 1.0)])
def test_each_window_has_the_class_of_its_sample(condition):
    canvas = condition.guide(windowed(classed(), (19, 12), batch=7))
    x, t = states(3, 1, 19, 12), at(0.3, 0.3, 0.6)
    small = classed().conditional(torch.tensor([0, 1, -1]))
    torch.testing.assert_close(canvas(x, t), small(x, t))


def test_gradients_flow_as_through_the_whole():
    canvas = windowed(field_score(VPSDE(), 8, 8), (13, 11), batch=3)
    x = states(2, 1, 13, 11).requires_grad_()
    t = at(0.4, 0.1)
    towards = states(2, 1, 13, 11, seed=1)
    (pulled,) = torch.autograd.grad(canvas(x, t), x, towards)
    # The score is linear in x: so its slope along a direction is its value there.
    along = states(2, 1, 13, 11, seed=2)
    torch.testing.assert_close((pulled * along).sum(), (towards * canvas(along, t)).sum())


def test_it_works_without_gradients_and_inside_inference():
    canvas = windowed(field_score(VPSDE(), 8, 8), (13, 11), known=torch.zeros(1, 13, 11))
    x, t = states(1, 1, 13, 11), at(0.4)
    wanted = canvas(x, t)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            torch.testing.assert_close(canvas(x.clone(), t.clone()), wanted)


# -- only where it is wanted ----------------------------------------------------------------------


def patch():
    where = torch.zeros(40, 40, dtype=torch.bool)
    where[3:6, 30:33] = True
    return where


def test_only_windows_that_touch_what_is_wanted_are_computed():
    seen = Recorder()
    x, t = numbered(40, 40, 2), at(0.5, 0.5)
    answer = windowed(seen.score, (40, 40), where=patch())(x, t)
    for top, left in seen.corners(40):
        assert patch()[top : top + 8, left : left + 8].any()
    torch.testing.assert_close(answer[:, 0][:, patch()], torch.ones_like(answer[:, 0][:, patch()]))
    assert (answer[..., 20:, :] == 0).all()
    assert (answer[..., :20] == 0).all()


def test_what_is_wanted_is_answered_as_without_the_mask():
    score, where = field_score(VPSDE(), 8, 8), patch()
    where[30, 2] = True  # two places apart: windows between them are left out
    x, t = states(2, 1, 40, 40), at(0.5, 0.2)
    part, full = (windowed(score, (40, 40), where=w)(x, t)[:, 0] for w in (where, None))
    torch.testing.assert_close(part[:, where], full[:, where])


def test_where_nothing_is_wanted_nothing_is_computed():
    seen = Recorder()
    canvas = windowed(seen.score, (20, 20), where=torch.zeros(20, 20, dtype=torch.bool))
    x, t = states(1, 1, 20, 20), at(0.5)
    a, _ = canvas.sde.marginal(t)
    torch.testing.assert_close(canvas.denoised(x, t), x / a)
    assert not seen.calls


@every_sde
def test_elsewhere_the_estimate_is_the_known_picture(sde):
    known = states(1, 40, 40).clamp(-1, 1)
    score = gaussian_score(sde, STD, (1, 8, 8))
    canvas = windowed(score, (40, 40), where=patch(), known=known)
    t = at(0.5)
    a, s = sde.marginal(t)
    z = states(1, 1, 40, 40, seed=1)
    x = a * known + s * z
    told = canvas.denoised(x, t)[0]
    torch.testing.assert_close(told[:, 20:], known[:, 20:])
    full = windowed(score, (40, 40)).denoised(x, t)[0]
    torch.testing.assert_close(told[:, patch()], full[:, patch()])
    # As long as a score is: Langevin steps take their size from it.
    assert float(canvas(x, t).norm() * s) == pytest.approx(float(z.norm()), rel=0.05)
