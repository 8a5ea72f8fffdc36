"""Steps to quality: how far a sampler's pictures are from what they should be, by network calls.

Two subjects. Exact mixtures, whose score is known, so that the error is the sampler's alone; and a
model beside real pictures, where the network's own error is a floor that no sampler goes below. Every
sampler begins from the same noise. Calls are those that a run counts itself (`Step.nfe`).

Letters: `a, s` as in sde.py. The distances are those of distances.py.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from studio import spec
from studio.diffusion import pictures
from studio.diffusion.sampler import Sampler
from studio.diffusion.score import Score
from studio.diffusion.sde import SDE
from studio.errors import DataError, SolverError
from studio.lazy import torch
from studio.training import distances, evaluation

if TYPE_CHECKING:
    from torch import Tensor

    from studio.training.data import Pictures
    from studio.training.features import FeatureSpace

#: The tolerances at which samplers without a number of steps are measured.
TOLERANCES = {"adaptive": (0.3, 0.1, 0.05, 0.02), "rk45": (0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)}

#: Distances by name; the first is always there.
Errors = dict[str, float]


@dataclass(frozen=True)
class Trial:
    """A sampler set to one number of steps, or to one tolerance (then `budget` is 0)."""

    name: str
    sampler: Sampler
    setting: str
    budget: int


@dataclass(frozen=True)
class Subject:
    """What is sampled, and how its pictures are judged: `errors` of samples (N, …) as `made` from the
    last state; `floor` is what as many right ones get."""

    name: str
    score: Score
    made: Callable[[Tensor], np.ndarray]
    errors: Callable[[np.ndarray], Errors]
    floor: Callable[[int], Errors]
    batch: int


@dataclass(frozen=True)
class Row:
    """One line of the table. `calls` is nan, and `errors` empty, where the solver diverged."""

    subject: str
    sampler: str
    setting: str
    budget: int
    count: int
    calls: float
    errors: Errors
    seconds: float


def trials(
    names: Iterable[str],
    calls: Sequence[int],
    named: Callable[[str], Sampler],
    tolerances: Sequence[float] = (),
) -> list[Trial]:
    """Every sampler at every budget that is enough for a step of it, the small budgets first; those
    without a number of steps at `tolerances`, else at their own in TOLERANCES."""
    found: list[Trial] = []
    for name in names:
        sampler = named(name)
        if "steps" not in {f.name for f in dataclasses.fields(sampler)}:
            found += _tolerant(name, sampler, tolerances)
            continue
        for budget in calls:
            if (steps := steps_within(sampler, budget)) is not None:
                fitted = spec.replace(sampler, "steps", steps)
                found.append(Trial(name, fitted, f"{steps} steps", budget))
    return sorted(found, key=lambda trial: trial.budget or math.inf)


def steps_within(sampler: Sampler, calls: int) -> int | None:
    """The most steps whose run makes no more than `calls` calls; None if one is too many."""
    one, two = (spec.replace(sampler, "steps", n).cost() for n in (1, 2))
    if one is None or two is None or one > calls:
        return None
    return 1 + (calls - one) // (two - one)


def _tolerant(name: str, sampler: Any, tolerances: Sequence[float]) -> Iterator[Trial]:
    ratio = sampler.atol / sampler.rtol
    for rtol in tolerances or TOLERANCES[spec.kind(sampler)]:
        fitted = dataclasses.replace(sampler, rtol=rtol, atol=rtol * ratio)
        spec.check(fitted)
        yield Trial(name, fitted, f"tolerance {rtol:g}", 0)


def measure(subject: Subject, trial: Trial, counts: Sequence[int], seed: int = 0) -> list[Row]:
    """The rows of one run of max(counts) pictures: a row for the first so many, for each count."""
    begun = time.perf_counter()
    stacks, calls = [], []
    try:
        for last, _ in evaluation.runs(
            subject.score, trial.sampler, max(counts), seed, subject.batch
        ):
            stacks.append(subject.made(last.x))
            calls.append(last.nfe)
    except SolverError:
        return [_row(subject, trial, n, math.nan, {}, math.nan) for n in counts]
    seconds = time.perf_counter() - begun
    made = np.concatenate(stacks)
    mean = float(np.mean(calls))
    return [_row(subject, trial, n, mean, subject.errors(made[:n]), seconds) for n in counts]


def _row(
    subject: Subject, trial: Trial, count: int, calls: float, errors: Errors, seconds: float
) -> Row:
    return Row(subject.name, trial.name, trial.setting, trial.budget, count, calls, errors, seconds)


# -- exact mixtures -------------------------------------------------------------------------------

_SHAPE = (2, 4, 4)
_PARTS = 5
_WIDEST, _NARROWEST = 0.5, 0.03
_EXACT = 16_384


@dataclass(frozen=True)
class Mixture:
    """Gaussians in the 32 values of 2×4×4 pictures, each with axes and widths of its own: means (K, D),
    axes (K, D, D) in columns, widths (K, D) and weights (K,), float64."""

    means: Tensor
    axes: Tensor
    widths: Tensor
    weights: Tensor

    @staticmethod
    def of(seed: int = 0) -> Mixture:
        """Widths from .03 to .5, means about half a unit from the middle."""
        rng = np.random.default_rng(seed)
        size = math.prod(_SHAPE)
        means = rng.normal(0, 0.4, (_PARTS, size))
        axes = np.linalg.qr(rng.normal(size=(_PARTS, size, size))).Q
        widths = np.geomspace(_WIDEST, _NARROWEST, size)[None].repeat(_PARTS, 0)
        weights = np.arange(1, _PARTS + 1) / sum(range(1, _PARTS + 1))
        return Mixture(*(torch.from_numpy(v) for v in (means, axes, widths, weights)))

    def score(self, sde: SDE) -> Score:
        """The exact score of the mixture, noised."""

        def fn(x: Tensor, t: Tensor) -> Tensor:
            a, s = (v.double()[:, None, None] for v in sde.marginal(t))
            away = x.double().flatten(1)[:, None] - a * self.means
            turned = torch.einsum("bkd,kde->bke", away, self.axes)
            variances = (a * self.widths) ** 2 + s**2
            scaled = turned / variances
            logs = self.weights.log() - (turned * scaled + variances.log()).sum(2) / 2
            pulls = torch.einsum("bke,kde->bkd", scaled, self.axes)
            score = -(torch.softmax(logs, 1)[:, :, None] * pulls).sum(1)
            return score.reshape(x.shape).to(x.dtype)

        return Score.from_function(fn, sde, _SHAPE)

    def draw(self, count: int, seed: int) -> np.ndarray:
        """Exact samples, (count, D)."""
        rng = np.random.default_rng(seed)
        means, axes, widths = (v.numpy() for v in (self.means, self.axes, self.widths))
        chosen = rng.choice(len(means), count, p=self.weights.numpy())
        z = rng.normal(size=(count, means.shape[1])) * widths[chosen]
        return means[chosen] + np.einsum("be,bde->bd", z, axes[chosen])


def mixture(name: str, sde: SDE) -> Subject:
    """The mixture under an SDE; its error is the sliced distance to 16,384 exact samples."""
    exact = Mixture.of()
    reference = exact.draw(_EXACT, seed=1)

    def errors(made: np.ndarray) -> Errors:
        return {"sliced": distances.sliced_distance(made, reference)}

    def floor(count: int) -> Errors:
        tries = [errors(exact.draw(count, seed=2 + i)) for i in range(8)]
        return {"sliced": float(np.mean([t["sliced"] for t in tries]))}

    return Subject(name, exact.score(sde), _flat, errors, floor, batch=100_000)


def _flat(x: Tensor) -> np.ndarray:
    return x.flatten(1).double().cpu().numpy()


# -- a model beside real pictures -----------------------------------------------------------------


def model(
    name: str, score: Score, real: Pictures, batch: int = 32, space: FeatureSpace | None = None
) -> Subject:
    """A model's pictures beside real ones: the sliced distance of pixels in [-1, 1], and the Fréchet
    distance of features: in `space`, or the 64 before the last layer of the evaluation's classifier.

    A third of the real pictures trains the classifier (of their classes, seed 0), a third is the
    reference, and a third says what right pictures get. Raises DataError if there are no classes for
    the classifier.
    """
    third = len(real) // 3
    points = space.of if space else _learned(real, third)
    reference, rest = real.pixels[third : 2 * third], real.pixels[2 * third :]
    known, flat = points(reference), _pixels(reference)

    def errors(made: np.ndarray) -> Errors:
        return {
            "sliced": distances.sliced_distance(_pixels(made), flat),
            "frechet": distances.frechet_distance(points(made), known),
        }

    def floor(count: int) -> Errors:
        tries = [errors(rest[i : i + count]) for i in range(0, len(rest) - count + 1, count)][:8]
        return {key: float(np.mean([t[key] for t in tries])) for key in tries[0]} if tries else {}

    def made(x: Tensor) -> np.ndarray:
        return pictures.to_pictures(x, score.value_range)

    return Subject(name, score, made, errors, floor, batch)


def _learned(real: Pictures, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """The features that a classifier of the first `count` pictures learns."""
    if not real.classes:
        raise DataError(
            "These pictures have no classes, and features are learned by telling those.",
            "Put the pictures of each class into a folder of its own, or name a space: --features.",
        )
    net = evaluation.train_classifier(real.pixels[:count], real.labels[:count], len(real.classes))
    return functools.partial(evaluation.classifier_features, net)


def _pixels(stack: np.ndarray) -> np.ndarray:
    return stack.reshape(len(stack), -1).astype(np.float64) / 127.5 - 1
