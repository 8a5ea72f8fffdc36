"""Whatever a network predicts, a perfect network gives the exact score."""

from __future__ import annotations

import pytest
import torch
from conftest import every_sde, gaussian_score

from studio.diffusion.score import OUTPUTS, Published, Score, expand, network_score
from studio.diffusion.sde import VPSDE
from studio.errors import SpecError

STD, DATA = 0.3, 0.5  # of the pictures, and what the outputs are told it is
SHAPE = (3, 4, 4)
every_output = pytest.mark.parametrize("kind", [k for k in OUTPUTS if k != "published"])

# What a network that knows all must answer, by the paper that defines each output.
# Noise level sigma, z the expected unit noise, clean the expected picture.
ANSWERS = {
    "noise": lambda clean, z, sigma, a: z,
    "score": lambda clean, z, sigma, a: -z / (a * sigma),
    "picture": lambda clean, z, sigma, a: clean,
    "velocity": lambda clean, z, sigma, a: (z - sigma * clean) / (1 + sigma**2) ** 0.5,
    # (clean - c_skip y) / c_out with y = clean + sigma z, so that nothing cancels.
    "edm": lambda clean, z, sigma, a: (
        (sigma * clean - DATA**2 * z) / (DATA * (sigma**2 + DATA**2) ** 0.5)
    ),
}


def perfect_network(kind, sde):
    """Sees only what a network sees: its scaled input and its label, ln(sigma) / 4."""

    def net(unit, label, y):
        sigma = expand(torch.exp(4 * label), unit)
        a = expand(sde.marginal(sde.time(torch.exp(4 * label)))[0], unit)
        noisy = unit * torch.sqrt(DATA**2 + sigma**2)  # = x / a
        clean, z = (noisy * v / (STD**2 + sigma**2) for v in (STD**2, sigma))
        return ANSWERS[kind](clean, z, sigma, a)

    return net


def states(sde):
    t = torch.tensor([1e-4, 1e-2, 0.2, 0.6, 1.0], dtype=torch.float64)
    a, s = sde.marginal(t)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, *SHAPE, dtype=torch.float64, generator=generator)
    return x * expand(torch.sqrt((a * STD) ** 2 + s**2), x), t


def test_every_output_has_an_answer_here():
    assert ANSWERS.keys() | {"published"} == OUTPUTS.keys()


@every_sde
@pytest.mark.parametrize("label", ["time", "sigma", "level"])
@pytest.mark.parametrize("predicts", ["noise", "minus_noise", "score", "picture", "velocity"])
def test_a_published_network_gives_the_exact_score(sde, label, predicts):
    output = Published(predicts, label, scale=500, shift=-0.5, levels=11)

    def net(x, told, y):
        t = {"time": (told + 0.5) / 500, "level": 1 - told / 10}.get(label)
        t = sde.time(told) if t is None else t
        (a, _), sigma = sde.marginal(t), expand(sde.sigma(t), x)
        z = -gaussian_score(sde, STD, SHAPE)(x, t) * expand(sde.marginal(t)[1], x)
        clean = (x - expand(sde.marginal(t)[1], x) * z) / expand(a, x)
        kind = predicts.removeprefix("minus_")
        sign = -1 if predicts == "minus_noise" else 1
        return ANSWERS[kind](clean, z, sigma, expand(a, x)) * sign

    score = network_score(net, output, sde, SHAPE)
    x, _ = states(sde)
    t = torch.tensor([0.1, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)  # on the grid of levels
    wanted = gaussian_score(sde, STD, SHAPE)(x, t)
    torch.testing.assert_close(score(x, t), wanted, rtol=1e-6, atol=1e-6)


@every_sde
@every_output
def test_a_perfect_network_gives_the_exact_score(sde, kind):
    score = network_score(perfect_network(kind, sde), OUTPUTS[kind](sigma_data=DATA), sde, SHAPE)
    x, t = states(sde)
    wanted = gaussian_score(sde, STD, SHAPE)(x, t)
    # "picture" divides a small difference by sigma: that is the nature of this parametrization.
    loss = 1e-5 if kind == "picture" else 1e-9
    torch.testing.assert_close(score(x, t), wanted, rtol=loss, atol=loss)


@every_sde
@every_output
def test_float32_is_as_good_as_float32_can_be_near_the_picture(sde, kind):
    score = network_score(perfect_network(kind, sde), OUTPUTS[kind](sigma_data=DATA), sde, SHAPE)
    x, t = states(sde)
    noise = -gaussian_score(sde, STD, SHAPE)(x, t) * expand(sde.marginal(t)[1], x)
    ours = -score(x.float(), t.float()).double() * expand(sde.marginal(t)[1], x)
    loss = 2e-2 if kind == "picture" else 2e-6
    torch.testing.assert_close(ours, noise, rtol=loss, atol=loss)


@every_sde
def test_tweedie_is_the_expected_picture(sde):
    x, t = states(sde)
    a, s = sde.marginal(t)
    wanted = x * expand(a * STD**2 / ((a * STD) ** 2 + s**2), x)
    torch.testing.assert_close(gaussian_score(sde, STD, SHAPE).denoised(x, t), wanted)


def classy_score():
    def net(x, label, y):
        return torch.ones_like(x) * y.reshape(-1, 1, 1, 1)

    return network_score(net, OUTPUTS["noise"](), VPSDE(), SHAPE, classes=("cat", "dog"))


def test_a_model_with_classes_is_told_any_class_unless_labelled():
    score, x, t = classy_score(), torch.zeros(2, *SHAPE), torch.ones(2)
    s = float(score.sde.marginal(t)[1][0])
    assert (score(x, t) * -s).flatten(1).mean(1).tolist() == pytest.approx([-1, -1])
    labelled = score.labelled(torch.tensor([1, 0]))
    assert (labelled(x, t) * -s).flatten(1).mean(1).tolist() == pytest.approx([1, 0])


@pytest.mark.parametrize("label", [-2, 2])
def test_a_class_that_does_not_exist_is_refused(label):
    with pytest.raises(SpecError, match="cat, dog"):
        classy_score().labelled(torch.tensor([label]))


def test_a_label_for_a_model_without_classes_is_refused():
    score = Score.from_function(lambda x, t: -x, VPSDE(), SHAPE)
    with pytest.raises(SpecError, match="without classes"):
        score.labelled(torch.tensor([0]))


def test_a_model_that_has_to_be_told_a_class_says_so():
    net = lambda x, label, y: x if y is None else x * y[:, None, None, None]  # noqa: E731
    score = network_score(net, OUTPUTS["noise"](), VPSDE(), SHAPE, classes=("a", "b"), free=False)
    with pytest.raises(SpecError, match="Choose a class"):
        score.labelled(torch.tensor([0, -1]))
    assert score.labelled(torch.tensor([0, 1])).classes == ("a", "b")
