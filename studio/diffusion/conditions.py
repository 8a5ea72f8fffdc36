"""What is known of the picture. A condition turns the score of pictures into a score of pictures
given what is known: grad log p(x | y) = grad log p(x) + grad log p(y | x).

For a class y the second term is either asked of a classifier of noised pictures, or is the difference
of two answers of one network, with the class and without. Conditions add up: see All.

Sources: Song et al. 2021, section 5 (classifier of noised pictures); Dhariwal and Nichol 2021,
"Diffusion Models Beat GANs on Image Synthesis" (its scale); Ho and Salimans 2022, "Classifier-Free
Diffusion Guidance".
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from studio.diffusion.noise import Noise
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE
from studio.errors import SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.score import Function

    #: Of a covector v (B, C, H, W), the gradient of the sum of v · D by x.
    Pull = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Travel:
    """Going back in time where what is made does not fit what is known: after each stretch of `jump`
    steps, up to `repeats` times, for samples whose misfit is above `threshold`."""

    jump: int = 5
    repeats: int = 4
    threshold: float = 0.6


class Condition:
    """Nothing is known. All hooks leave things as they are."""

    travel: Travel | None = None

    def on(self, score: Score) -> Condition:
        """The same, of the states of this score: what is known as a picture takes its value range."""
        return self

    def guide(self, score: Score) -> Score:
        """The score with the likelihood terms of this condition added."""
        return score

    def constrain(self, x: Tensor, t: float, sde: SDE, noise: Noise) -> Tensor:
        """x (B, C, H, W) with known coordinates put back at the noise level of time t."""
        return x

    def misfit(self, clean: Tensor, t: float, sde: SDE) -> Tensor:
        """How badly a denoised estimate (B, C, H, W) made at time t fits what is known, (B,)."""
        return clean.new_zeros(len(clean))

    def begin(self, sde: SDE) -> float:
        """The time at which a run should begin: earlier than 1 if all is known above some level."""
        return 1.0

    def of(self, rows: Sequence[int]) -> Condition:
        """What is known of the samples at these places of the batch, for a batch of them alone."""
        return self

    @property
    def constrains(self) -> bool:
        """Whether `constrain` does anything: a solver with step control cannot go with it."""
        return type(self).constrain is not Condition.constrain


FREE = Condition()


class Guiding(Condition):
    """A condition that asks the network for a gradient: its term is made of D and of pulls on it.

    Several of them share one call of the network."""

    @abstractmethod
    def term(self, x: Tensor, t: Tensor, clean: Tensor, pull: Pull, sde: SDE) -> Tensor:
        """What to add to the score at x (B, C, H, W), t (B,), where the denoised estimate is `clean`."""

    def guide(self, score: Score) -> Score:
        return _guided(score, (self,), None)


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


class Meter:
    """Reads off how much each term says beside the score itself. Filled in a run without waiting for
    the device; read when a person looks."""

    def __init__(self) -> None:
        self._shares: dict[str, Tensor] = {}

    def put(self, name: str, term: Tensor, score: Tensor) -> None:
        norms = [v.detach().flatten(1).norm(dim=1) for v in (term, score)]
        self._shares[name] = norms[0] / norms[1].clamp_min(1e-20)

    def read(self) -> dict[str, float]:
        """By name of term: its length as a share of the free score's, the mean over samples."""
        return {name: float(share.mean()) for name, share in self._shares.items()}


@dataclass(frozen=True)
class All(Condition):
    """Several things are known at once: each guides in turn, and each constrains in turn.

    Their likelihoods add up as if they were independent of each other given the picture. A `meter` is
    told the length of each term, under the names of its condition's class.
    """

    parts: tuple[Condition, ...]
    meter: Meter | None = field(default=None, compare=False)

    def on(self, score: Score) -> All:
        return All(tuple(part.on(score) for part in self.parts), self.meter)

    def guide(self, score: Score) -> Score:
        for part in self.parts:
            if not isinstance(part, Guiding):
                score = _metered(part, score, self.meter)
        guiding = tuple(part for part in self.parts if isinstance(part, Guiding))
        return _guided(score, guiding, self.meter) if guiding else score

    @property
    def travel(self) -> Travel | None:  # type: ignore[override]
        return next((part.travel for part in self.parts if part.travel), None)

    def misfit(self, clean: Tensor, t: float, sde: SDE) -> Tensor:
        return torch.stack([part.misfit(clean, t, sde) for part in self.parts]).amax(0)

    def begin(self, sde: SDE) -> float:
        return min((part.begin(sde) for part in self.parts), default=1.0)

    def constrain(self, x: Tensor, t: float, sde: SDE, noise: Noise) -> Tensor:
        for part in self.parts:
            x = part.constrain(x, t, sde, noise)
        return x

    def of(self, rows: Sequence[int]) -> All:
        return All(tuple(part.of(rows) for part in self.parts), self.meter)

    @property
    def constrains(self) -> bool:
        return any(part.constrains for part in self.parts)


class Changing(Condition):
    """A condition that may become another one in the middle of a run; the next call of the score, and
    the next step, go by what it is `now`."""

    def __init__(self, now: Condition) -> None:
        self.now = now

    def guide(self, score: Score) -> Score:
        guided: dict[int, Score] = {}

        def current() -> Score:
            if id(self.now) not in guided:
                guided.clear()
                guided[id(self.now)] = self.now.guide(score)
            return guided[id(self.now)]

        return replace(current(), fn=lambda x, t: current().fn(x, t))

    def constrain(self, x: Tensor, t: float, sde: SDE, noise: Noise) -> Tensor:
        return self.now.constrain(x, t, sde, noise)

    @property
    def constrains(self) -> bool:
        return self.now.constrains

    @property
    def travel(self) -> Travel | None:  # type: ignore[override]
        return self.now.travel

    def misfit(self, clean: Tensor, t: float, sde: SDE) -> Tensor:
        return self.now.misfit(clean, t, sde)

    def begin(self, sde: SDE) -> float:
        return self.now.begin(sde)

    def of(self, rows: Sequence[int]) -> Changing:
        return Changing(self.now.of(rows))


def _picked(labels: tuple[int, ...], rows: Sequence[int]) -> tuple[int, ...]:
    return tuple(labels[i] for i in rows)


def _plus(score: Score, term: Function) -> Score:
    """The score with a term added, whether or not a class is chosen later."""

    def plus(fn: Function) -> Function:
        return lambda x, t: fn(x, t) + term(x, t)

    inner = score.conditional
    conditional = None if inner is None else (lambda labels: plus(inner(labels)))
    return replace(score, fn=plus(score.fn), conditional=conditional)


def _guided(score: Score, parts: tuple[Guiding, ...], meter: Meter | None) -> Score:
    """The score with the terms of these conditions, from one call of the network and its graph."""

    def guided(fn: Function) -> Function:
        def call(x: Tensor, t: Tensor) -> Tensor:
            traced = torch.is_grad_enabled() and x.requires_grad
            with torch.inference_mode(False), torch.enable_grad():
                # Copies, because a tensor made in inference mode can be no part of a gradient.
                x, t = (x, t) if traced else (x.detach().clone().requires_grad_(), t.clone())
                free = fn(x, t)
                clean = score.tweedie(x, t, free)

                def pull(covector: Tensor) -> Tensor:
                    covector = covector if traced else covector.detach()
                    return torch.autograd.grad(
                        clean, x, covector, retain_graph=True, create_graph=traced
                    )[0]

                told = clean if traced else clean.detach()
                terms = [part.term(x, t, told, pull, score.sde) for part in parts]
            if meter is not None:
                for part, term in zip(parts, terms):
                    meter.put(type(part).__name__, term, free)
            whole = free + sum(terms)
            return whole if traced else whole.detach()

        return call

    inner = score.conditional
    conditional = None if inner is None else (lambda labels: guided(inner(labels)))
    return replace(score, fn=guided(score.fn), conditional=conditional)


def _metered(part: Condition, score: Score, meter: Meter | None) -> Score:
    """As part.guide(score), telling the meter what it adds."""
    if meter is None or type(part).guide is Condition.guide:
        return part.guide(score)
    last: list[Tensor] = []

    def keeping(fn: Function) -> Function:
        def call(x: Tensor, t: Tensor) -> Tensor:
            last[:] = [fn(x, t)]
            return last[0]

        return call

    inner = score.conditional
    conditional = None if inner is None else (lambda labels: keeping(inner(labels)))
    guided = part.guide(replace(score, fn=keeping(score.fn), conditional=conditional))

    def fn(x: Tensor, t: Tensor) -> Tensor:
        answer = guided.fn(x, t)
        # The first half, where a condition asks for two answers at once: the free one.
        free = last[0][: len(x)]
        meter.put(type(part).__name__, answer - free, free)
        return answer

    return replace(guided, fn=fn)


def _slope(log_p: Function, x: Tensor, t: Tensor) -> Tensor:
    """The gradient of log_p by x, also where gradients are off; with a path back to x if one is kept
    track of.
    """
    traced = torch.is_grad_enabled() and x.requires_grad
    with torch.inference_mode(False), torch.enable_grad():
        # Copies, because a tensor made in inference mode can be no part of a gradient.
        x, t = (x, t) if traced else (x.detach().clone().requires_grad_(), t.clone())
        return torch.autograd.grad(log_p(x, t).sum(), x, create_graph=traced)[0]
