"""What is known of the picture. A condition turns the score of pictures into a score of pictures
given what is known: grad log p(x | y) = grad log p(x) + grad log p(y | x).

For a class y the second term is either asked of a classifier of noised pictures, or is the difference
of two answers of one network, with the class and without. Conditions add up: see All.

Sources: Song et al. 2021, section 5 (classifier of noised pictures); Dhariwal and Nichol 2021,
"Diffusion Models Beat GANs on Image Synthesis" (its scale); Ho and Salimans 2022, "Classifier-Free
Diffusion Guidance".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from studio.diffusion.noise import Noise
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE
from studio.errors import SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.score import Function


class Condition:
    """Nothing is known. All hooks leave things as they are."""

    def guide(self, score: Score) -> Score:
        """The score with the likelihood terms of this condition added."""
        return score

    def constrain(self, x: Tensor, t: float, sde: SDE, noise: Noise) -> Tensor:
        """x (B, C, H, W) with known coordinates put back at the noise level of time t."""
        return x

    def of(self, rows: Sequence[int]) -> Condition:
        """What is known of the samples at these places of the batch, for a batch of them alone."""
        return self

    @property
    def constrains(self) -> bool:
        """Whether `constrain` does anything: a solver with step control cannot go with it."""
        return type(self).constrain is not Condition.constrain


FREE = Condition()


@dataclass(frozen=True)
class ClassLabel(Condition):
    """Pictures of given classes, for a model with a class input: one index a sample, -1 for any."""

    labels: tuple[int, ...]

    def guide(self, score: Score) -> Score:
        labels = torch.tensor(self.labels)
        inner = score.labelled(labels)

        def fn(x: Tensor, t: Tensor) -> Tensor:
            return score.labelled(labels.to(x.device))(x, t)

        return replace(inner, fn=fn)

    def of(self, rows: Sequence[int]) -> ClassLabel:
        return replace(self, labels=_picked(self.labels, rows))


@dataclass(frozen=True)
class ClassifierFree(Condition):
    """Pictures of given classes, more or less clearly: free + weight (of the class - free).

    For a model with a class input that was also trained without being told the class. Weight 0 is any
    class, 1 the class as it is; more looks more typical and less varied. Both answers come from one
    call of the network, on twice the batch.
    """

    labels: tuple[int, ...]
    weight: float = 1.0

    def guide(self, score: Score) -> Score:
        labels = torch.tensor([-1] * len(self.labels) + list(self.labels))
        inner = score.labelled(labels)

        def fn(x: Tensor, t: Tensor) -> Tensor:
            twice = score.labelled(labels.to(x.device))
            free, told = twice(torch.cat([x, x]), torch.cat([t, t])).chunk(2)
            return torch.lerp(free, told, self.weight)

        return replace(inner, fn=fn)

    def of(self, rows: Sequence[int]) -> ClassifierFree:
        return replace(self, labels=_picked(self.labels, rows))


@dataclass(frozen=True)
class NoisyClassifier:
    """What noised pictures show: y = x / a (B, C, H, W) in `value_range` and its noise level sigma
    (B,) -> ln p(class | y), (B, classes). It knows noise levels and no SDE, so it serves them all.
    """

    fn: Callable[[Tensor, Tensor], Tensor]
    shape: tuple[int, int, int]  # C, H, W
    classes: tuple[str, ...]
    value_range: tuple[float, float] = (-1.0, 1.0)

    def check(self, score: Score) -> None:
        """Raise SpecError if pictures of this score are none for this classifier."""
        if self.shape != score.shape:
            (c, h, w), (c_s, h_s, w_s) = self.shape, score.shape
            raise SpecError(
                f"The classifier knows pictures of {h}×{w} with {c} channels; "
                f"the model makes {h_s}×{w_s} with {c_s}.",
                "Train a classifier on pictures of the model's size.",
            )

    def log_likelihood(self, score: Score, x: Tensor, t: Tensor) -> Tensor:
        """ln p(class | x) (B, classes) of states x of `score`'s SDE and range at times t (B,)."""
        a, s = score.sde.marginal(t)
        (low, high), (bottom, top) = score.value_range, self.value_range
        scale = (top - bottom) / (high - low)
        return self.fn(bottom + scale * (x / expand(a, x) - low), scale * s / a)


@dataclass(frozen=True)
class ClassifierGuidance(Condition):
    """Pictures that a classifier takes for given classes: score + scale · grad ln p(class | x).

    For any model, told of classes or not. Scale 1 is Bayes' rule; more looks more typical and less
    varied. Each call of the score takes one of the classifier and its gradient.
    """

    classifier: NoisyClassifier
    labels: tuple[int, ...]
    scale: float = 1.0

    def guide(self, score: Score) -> Score:
        """Raises SpecError if the classifier is not for such pictures, or has no such class."""
        self.classifier.check(score)
        with torch.inference_mode(False):
            labels = torch.tensor(self.labels)
        if bool(((labels < 0) | (labels >= len(self.classifier.classes))).any()):
            raise SpecError(f"The classifier has {len(self.classifier.classes)} classes.")

        def term(x: Tensor, t: Tensor) -> Tensor:
            def log_p(x: Tensor, t: Tensor) -> Tensor:
                told = self.classifier.log_likelihood(score, x, t)
                return told.gather(1, labels.to(x.device)[:, None])

            return self.scale * _slope(log_p, x, t)

        return _plus(score, term)

    def of(self, rows: Sequence[int]) -> ClassifierGuidance:
        return replace(self, labels=_picked(self.labels, rows))


@dataclass(frozen=True)
class All(Condition):
    """Several things are known at once: each guides in turn, and each constrains in turn.

    Their likelihoods add up as if they were independent of each other given the picture.
    """

    parts: tuple[Condition, ...]

    def guide(self, score: Score) -> Score:
        for part in self.parts:
            score = part.guide(score)
        return score

    def constrain(self, x: Tensor, t: float, sde: SDE, noise: Noise) -> Tensor:
        for part in self.parts:
            x = part.constrain(x, t, sde, noise)
        return x

    def of(self, rows: Sequence[int]) -> All:
        return All(tuple(part.of(rows) for part in self.parts))

    @property
    def constrains(self) -> bool:
        return any(part.constrains for part in self.parts)


def _picked(labels: tuple[int, ...], rows: Sequence[int]) -> tuple[int, ...]:
    return tuple(labels[i] for i in rows)


def _plus(score: Score, term: Function) -> Score:
    """The score with a term added, whether or not a class is chosen later."""

    def plus(fn: Function) -> Function:
        return lambda x, t: fn(x, t) + term(x, t)

    inner = score.conditional
    conditional = None if inner is None else (lambda labels: plus(inner(labels)))
    return replace(score, fn=plus(score.fn), conditional=conditional)


def _slope(log_p: Function, x: Tensor, t: Tensor) -> Tensor:
    """The gradient of log_p by x, also where gradients are off; with a path back to x if one is kept
    track of.
    """
    traced = torch.is_grad_enabled() and x.requires_grad
    with torch.inference_mode(False), torch.enable_grad():
        # Copies, because a tensor made in inference mode can be no part of a gradient.
        x, t = (x, t) if traced else (x.detach().clone().requires_grad_(), t.clone())
        return torch.autograd.grad(log_p(x, t).sum(), x, create_graph=traced)[0]
