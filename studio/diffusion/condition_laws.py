"""What every condition must do to scores that are known exactly.

Pictures of two classes, each Gaussian about a mean of its own: their score, that of each class, and
how likely a noised picture belongs to either are all known, so what a condition makes of them is too.
Tests and the self-check share this file. Letters as in sde.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from studio import spec
from studio.diffusion.conditions import (
    All,
    ClassifierFree,
    ClassifierGuidance,
    ClassLabel,
    Condition,
    NoisyClassifier,
)
from studio.diffusion.laws import Law
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Sampler
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE, SDES
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.score import Function

SHAPE = (1, 4, 4)
CLASSES = ("dark", "bright")
MEANS, STD = (-0.5, 0.5), 0.3
_COUNT = 32


@dataclass(frozen=True)
class _Case:
    """A condition on class 1, and how much of the difference to the free score it adds."""

    name: str
    condition: Condition
    weight: float


def _cases(count: int) -> list[_Case]:
    labels = (1,) * count
    classifier = NoisyClassifier(_told, SHAPE, CLASSES)
    halves = tuple(ClassifierGuidance(classifier, labels, scale) for scale in (0.25, 0.75))
    return [
        _Case("class label", ClassLabel(labels), 1.0),
        _Case("classifier-free", ClassifierFree(labels, 2.0), 2.0),
        _Case("classifier", ClassifierGuidance(classifier, labels), 1.0),
        _Case("two classifiers", All(halves), 1.0),
    ]


def condition_laws(sdes: Mapping[str, SDE] | None = None) -> Iterator[Law]:
    """The error of every guided score, and the mean of the pictures that it leads to where that is
    known. All SDEs unless said.
    """
    sdes = sdes or {name: spec.from_dict(SDE, {"kind": name}) for name in SDES}
    for name, sde in sdes.items():
        for case in _cases(_COUNT):
            for law in _laws_of(case, sde):
                yield replace(law, sde=name, sampler=case.name)


def _laws_of(case: _Case, sde: SDE) -> Iterator[Law]:
    score = two_classes(sde)
    guided = case.condition.guide(score)
    t = torch.linspace(sde.eps, 1, _COUNT, dtype=torch.float64)
    noise = Noise.of(0, _COUNT, SHAPE, sde, dtype=torch.float64)
    x = noise.start() * expand(torch.hypot(*sde.marginal(t)), noise.start())
    free, told = score(x, t), _of_class(sde, 1)(x, t)
    wanted = free + case.weight * (told - free)
    off = float(((guided(x, t) - wanted).abs().amax((1, 2, 3)) * sde.marginal(t)[1]).max())
    yield Law("error of the guided score", "", "", off, 0.0, 1e-6)
    if case.weight == 1:
        sampler = spec.from_dict(Sampler, {"kind": "dpm2m", "steps": 60})
        *_, end = sampler.run(score, noise, case.condition)
        mean = _mean_of_class(sde, float(noise.start().mean()) * sde.prior_std)
        yield Law("mean of guided pictures", "", "", float(end.x.mean()), mean, 0.005)


def _mean_of_class(sde: SDE, start: float) -> float:
    """The mean of the pictures of class 1 that the flow makes of noise with the mean `start`."""
    a, s = (float(v) for v in sde.marginal(torch.ones(1, dtype=torch.float64)))
    return MEANS[1] + STD / math.hypot(a * STD, s) * (start - a * MEANS[1])


def two_classes(sde: SDE) -> Score:
    """The exact score of pictures of both classes, as many of one as of the other."""

    def free(x: Tensor, t: Tensor) -> Tensor:
        a, s = sde.marginal(t)
        dark, bright = _told(x / expand(a, x), s / a).exp().unbind(1)
        ends = _of_class(sde, 0)(x, t), _of_class(sde, 1)(x, t)
        return expand(dark, x) * ends[0] + expand(bright, x) * ends[1]

    def conditional(labels: Tensor) -> Function:
        def fn(x: Tensor, t: Tensor) -> Tensor:
            answers = torch.stack([_of_class(sde, 0)(x, t), _of_class(sde, 1)(x, t), free(x, t)])
            return answers[labels, torch.arange(len(x))]

        return fn

    return Score(free, sde, SHAPE, classes=CLASSES, conditional=conditional)


def _of_class(sde: SDE, k: int) -> Function:
    def fn(x: Tensor, t: Tensor) -> Tensor:
        a, s = sde.marginal(t)
        return (expand(a * MEANS[k], x) - x) / expand((a * STD) ** 2 + s**2, x)

    return fn


def _told(y: Tensor, sigma: Tensor) -> Tensor:
    """ln p(class | y) of pictures plus noise of deviation sigma, (B, classes)."""
    away = torch.stack([((y - mean) ** 2).flatten(1).sum(1) for mean in MEANS], 1)
    return torch.log_softmax(-away / (2 * (STD**2 + sigma[:, None] ** 2)), 1)
