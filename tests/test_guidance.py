"""Classes by Bayes' rule, with a classifier and without, against mixtures that are known exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conftest import build, every_sde, noise_for

from studio import spec
from studio.diffusion.conditions import (
    FREE,
    All,
    ClassifierFree,
    ClassifierGuidance,
    ClassLabel,
    Condition,
    NoisyClassifier,
)
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDES, VESDE, VPSDE
from studio.engine.events import Finished
from studio.engine.jobs import SampleJob, Setting
from studio.errors import SpecError, StudioError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (2, 1, 1)
CLASSES = ("low", "high")
#: Two Gaussians a class: their middles (classes, components, 2), and the share of each component.
MEANS = torch.tensor([[[-0.6, -0.4], [-0.1, 0.5]], [[0.5, 0.6], [0.4, -0.5]]], dtype=torch.float64)
SHARES = torch.tensor([[0.4, 0.2], [0.1, 0.3]], dtype=torch.float64)
STD = 0.15


def log_joint(y, sigma):
    """ln p(y, class, component) (B, classes, components) up to a constant of y; y = x / a."""
    variance = STD**2 + sigma**2
    away = (y.flatten(1)[:, None, None] - MEANS.to(y)).pow(2).sum(3)
    return SHARES.log().to(y) - away / (2 * expand(variance, away)) - expand(variance.log(), away)


def posterior(y, sigma):
    """ln p(class | y), (B, 2)."""
    return torch.log_softmax(log_joint(y, sigma).logsumexp(2), 1)


EXACT = NoisyClassifier(posterior, SHAPE, CLASSES)


def mixture(sde, value_range=(-1.0, 1.0)):
    """The exact score of the mixture, and of each class of it by label."""
    unit = 2 / (value_range[1] - value_range[0])

    def conditional(labels=None):
        def fn(x, t):
            a, s = sde.marginal(t)
            y, sigma = unit * (x / expand(a, x) - value_range[0]) - 1, unit * s / a
            logits = log_joint(y, sigma)
            if labels is not None:
                other = torch.arange(2) != labels[:, None]
                other = other & (labels >= 0)[:, None]
                logits = logits.masked_fill(other[:, :, None], -math.inf)
            shares = torch.softmax(logits.flatten(1), 1)
            away = MEANS.flatten(0, 1).to(y) - y.flatten(1)[:, None]
            score = (shares[:, :, None] * away).sum(1) / (STD**2 + sigma**2)[:, None]
            return score.reshape(x.shape) * unit / expand(a, x)

        return fn

    return Score(conditional(), sde, SHAPE, value_range, CLASSES, conditional)


def somewhere(sde, count=64, seed=0, value_range=(-1.0, 1.0)):
    """States all over at times all over, and a class for each."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(count, generator=generator, dtype=torch.float64) * 0.98 + 0.02
    a, s = sde.marginal(t)
    low, high = value_range
    clean = low + (high - low) * torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64)
    x = expand(a, clean) * clean
    x = x + expand(s, x) * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return x, t, torch.randint(0, 2, (count,), generator=generator)


def bayes(labels, scale=1.0, classifier=EXACT):
    return ClassifierGuidance(classifier, tuple(labels.tolist()), scale)


# -- a classifier ---------------------------------------------------------------------------------


@every_sde
def test_a_classifier_at_scale_one_gives_the_score_of_the_class(sde):
    score = mixture(sde)
    x, t, labels = somewhere(sde)
    with torch.no_grad():
        guided = bayes(labels).guide(score)(x, t)
    wanted = score.labelled(labels)(x, t)
    torch.testing.assert_close(guided, wanted, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(wanted, score(x, t), rtol=0.1)


def test_the_scale_multiplies_what_the_classifier_adds():
    score = mixture(VPSDE())
    x, t, labels = somewhere(score.sde)
    added = [bayes(labels, scale).guide(score)(x, t) - score(x, t) for scale in (0.0, 1.0, 2.5)]
    assert not added[0].any()
    torch.testing.assert_close(added[2], 2.5 * added[1])


def test_a_classifier_serves_models_of_another_value_range():
    score = mixture(VESDE(), (0.0, 1.0))
    x, t, labels = somewhere(score.sde, value_range=(0.0, 1.0))
    guided, wanted = bayes(labels).guide(score)(x, t), score.labelled(labels)(x, t)
    torch.testing.assert_close(guided, wanted, rtol=1e-6, atol=1e-6)


def test_guidance_works_in_inference_mode():
    score = mixture(VPSDE())
    x, t, labels = somewhere(score.sde)
    wanted = bayes(labels).guide(score)(x, t)
    with torch.inference_mode():
        found = bayes(labels).guide(score)(x + 0, t + 0)
    torch.testing.assert_close(found, wanted)


def test_the_guided_score_can_be_differentiated():
    """What the likelihood of a class, or another condition, needs of it."""
    score = mixture(VPSDE())
    x, t, labels = somewhere(score.sde, count=8)
    slopes = []
    for fn in (bayes(labels).guide(score), score.labelled(labels)):
        at = x.clone().requires_grad_()
        slopes.append(torch.autograd.grad(fn(at, t).sum(), at)[0])
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("labels", [(0, 2), (-1, 0)])
def test_classes_that_the_classifier_lacks_are_refused(labels):
    with pytest.raises(SpecError, match="2 classes"):
        ClassifierGuidance(EXACT, labels).guide(mixture(VPSDE()))


def test_a_classifier_of_other_pictures_is_refused():
    with pytest.raises(SpecError, match="8×8 with 3 channels"):
        ClassifierGuidance(replace(EXACT, shape=(3, 8, 8)), (0,)).guide(mixture(VPSDE()))


# -- no classifier --------------------------------------------------------------------------------


@every_sde
@pytest.mark.parametrize(("weight", "told"), [(1.0, True), (0.0, False)])
def test_classifier_free_weights_one_and_nought_are_the_class_and_any(sde, weight, told):
    score = mixture(sde)
    x, t, labels = somewhere(sde)
    guided = ClassifierFree(tuple(labels.tolist()), weight).guide(score)(x, t)
    wanted = score.labelled(labels)(x, t) if told else score(x, t)
    torch.testing.assert_close(guided, wanted, rtol=1e-10, atol=1e-10)


def test_classifier_free_guidance_is_bayes_rule_at_every_weight():
    """The difference of both answers is the gradient of the classifier that they imply."""
    score = mixture(VPSDE())
    x, t, labels = somewhere(score.sde)
    free = ClassifierFree(tuple(labels.tolist()), 3.0).guide(score)(x, t)
    torch.testing.assert_close(free, bayes(labels, 3.0).guide(score)(x, t), rtol=1e-6, atol=1e-6)


def test_both_answers_come_from_one_call():
    score, sizes = mixture(VPSDE()), []
    inner = score.conditional

    def conditional(labels):
        def fn(x, t):
            sizes.append(len(x))
            return inner(labels)(x, t)

        return fn

    x, t, _ = somewhere(score.sde, count=3)
    ClassifierFree((0, 1, 1), 2.0).guide(replace(score, conditional=conditional))(x, t)
    assert sizes == [6]


def test_a_model_without_classes_is_refused():
    with pytest.raises(SpecError, match="without classes"):
        ClassifierFree((0,), 2.0).guide(replace(mixture(VPSDE()), conditional=None))


# -- together -------------------------------------------------------------------------------------


def halves():
    """The posterior as two classifiers that each know half of it."""
    half = replace(EXACT, fn=lambda y, sigma: posterior(y, sigma) / 2)
    return half, half


def test_conditions_add_up():
    score = mixture(VPSDE())
    x, t, labels = somewhere(score.sde)
    both = All(tuple(bayes(labels, classifier=half) for half in halves()))
    torch.testing.assert_close(both.guide(score)(x, t), bayes(labels).guide(score)(x, t))


@pytest.mark.parametrize("turn", [1, -1])
def test_the_order_of_a_class_and_a_classifier_does_not_matter(turn):
    score = mixture(VPSDE())
    x, t, labels = somewhere(score.sde)
    told = ClassLabel(tuple(labels.tolist()))
    found = All((bayes(labels, 0.5), told)[::turn]).guide(score)(x, t)
    free, wanted = score(x, t), score.labelled(labels)(x, t)
    torch.testing.assert_close(found, wanted + 0.5 * (wanted - free), rtol=1e-6, atol=1e-6)


class Pinned(Condition):
    def constrain(self, x, t, sde, noise):
        return x + 1


def test_together_they_constrain_as_each_does():
    assert not All((FREE, bayes(torch.tensor([0])))).constrains
    both = All((Pinned(), FREE, Pinned()))
    assert both.constrains
    assert float(both.constrain(torch.zeros(()), 0.5, VPSDE(), None)) == 2


def test_a_part_of_a_batch_keeps_its_classes():
    conditions = [ClassLabel((0, 1, 1)), ClassifierFree((0, 1, 1)), bayes(torch.tensor([0, 1, 1]))]
    together = All(tuple(conditions)).of([2, 0])
    assert [part.labels for part in together.parts] == [(1, 0)] * 3
    assert FREE.of([1]) is FREE


# -- sampling -------------------------------------------------------------------------------------


def moments(x):
    flat = x.flatten(1)
    return torch.cat([flat.mean(0), torch.cov(flat.T).flatten()])


def true_moments(label):
    shares = SHARES[label] / SHARES[label].sum()
    mean = (shares[:, None] * MEANS[label]).sum(0)
    away = MEANS[label] - mean
    cov = (shares[:, None, None] * away[:, :, None] * away[:, None, :]).sum(0)
    return torch.cat([mean, (cov + STD**2 * torch.eye(2, dtype=torch.float64)).flatten()])


@pytest.mark.parametrize("sde", [SDES[name]() for name in ("vp", "subvp", "ve")])
@pytest.mark.parametrize("label", [0, 1])
def test_samples_guided_by_a_classifier_have_the_classes_moments(sde, label):
    score, count = mixture(sde), 3000
    sampler = build("dpm2m", steps=40)
    condition = bayes(torch.full((count,), label))
    noise = noise_for(sampler, score, count=count, dtype=torch.float64)
    *_, last = sampler.run(score, noise, condition)
    told = posterior(last.x, torch.full((count,), 1e-3, dtype=torch.float64)).argmax(1)
    exact = torch.distributions.Categorical(SHARES[label]).sample((20_000,))
    own = MEANS[label][exact] + STD * torch.randn(20_000, 2, dtype=torch.float64)
    sure = posterior(own, torch.full((20_000,), 1e-3, dtype=torch.float64)).argmax(1) == label
    assert float((told == label).double().mean()) == pytest.approx(
        float(sure.double().mean()), abs=0.01
    )
    torch.testing.assert_close(moments(last.x), true_moments(label), rtol=0, atol=0.03)


def test_more_guidance_varies_less_and_is_surer():
    score, count, sampler = mixture(VPSDE()), 1000, build("dpm2m", steps=25)
    found = []
    for weight in (1.0, 4.0):
        noise = noise_for(sampler, score, count=count, dtype=torch.float64)
        *_, last = sampler.run(score, noise, ClassifierFree((0,) * count, weight))
        sure = posterior(last.x, torch.full((count,), 1e-3, dtype=torch.float64))[:, 0]
        found.append((float(last.x.std(0).mean()), float(sure.mean())))
    assert found[1][0] < found[0][0]
    assert found[1][1] > found[0][1]


@pytest.mark.parametrize("sampler", ["pc", "adaptive", "heun", "rk45"])
def test_every_kind_of_sampler_can_be_guided(sampler):
    score, chosen = mixture(VPSDE()), build(sampler, steps=30, rtol=0.1, atol=0.02)
    noise = noise_for(chosen, score, count=40, dtype=torch.float64)
    condition = bayes(torch.tensor([0, 1] * 20), 2.0)
    *_, last = chosen.run(score, noise, condition)
    told = posterior(last.x, torch.full((40,), 1e-3, dtype=torch.float64)).argmax(1)
    assert float((told == torch.tensor([0, 1] * 20)).double().mean()) > 0.9


# -- the job --------------------------------------------------------------------------------------


class OneModel:
    def __init__(self, score):
        self.score = score

    def load(self, source, device, dtype, preset=""):
        return self.score


def run(job, score):
    events = []
    for event in job.run(Setting(OneModel(score), "cpu", rate=0)):
        events.append(event)
    assert isinstance(events[-1], Finished)
    return events[-1]


SAMPLER = build("dpm2m", steps=4)


def grey(sde=None):
    """Pictures that the job can show: one channel of 8×8, dark or light by class."""
    sde, means = sde or VPSDE(), torch.tensor([-0.6, 0.4, -0.1])

    def conditional(labels):
        def fn(x, t):
            a, s = (v.reshape(-1, 1, 1, 1) for v in sde.marginal(t))
            return (a * means.to(x)[labels].reshape(-1, 1, 1, 1) - x) / ((a * 0.1) ** 2 + s**2)

        return fn

    def free(x, t):
        return conditional(torch.full((len(x),), 2))(x, t)

    return Score(free, sde, (1, 8, 8), (-1.0, 1.0), ("dark", "light"), conditional)


def test_guidance_one_is_the_plain_class():
    score, job = grey(), SampleJob("m", SAMPLER, 2, classes="light")
    calls = run(job, score).calls
    assert calls == 5
    told = run(replace(job, guidance=1.0), score).pictures
    assert (told == run(job, score).pictures).all()
    assert (run(replace(job, guidance=2.0), score).pictures > told).mean() > 0.9


def test_old_recipes_are_of_the_plain_class():
    kept = spec.to_dict(SampleJob("m", SAMPLER, 2, classes="light"))
    del kept["guidance"], kept["classifier"]
    assert spec.from_dict(SampleJob, kept).guidance == 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"guidance": 2.0}, "needs a class"),
        ({"classifier": "any"}, "needs a class"),
        ({"guidance": -1.0, "classes": "dark"}, "Guidance must be from 0 to 100"),
        ({"guidance": math.nan, "classes": "dark"}, "finite"),
        ({"guidance": 2.0, "classes": "darker"}, "no class “darker”"),
        ({"classifier": "none", "classes": "dark"}, "no classifier “none”"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(changes, words):
    with pytest.raises(StudioError, match=words):
        run(replace(SampleJob("m", SAMPLER, 2), **changes), grey())


def test_a_picture_of_a_guided_batch_comes_again_alone():
    job = SampleJob("m", SAMPLER, 3, 4, "each", guidance=2.0)
    many, alone = run(job, grey()).pictures, run(replace(job, count=1, seed=6), grey()).pictures
    assert abs(many[2].astype(int) - alone[0].astype(int)).max() <= 1
