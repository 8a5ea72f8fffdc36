"""Figures of a model: how far its pictures are from real ones, whether they show the class asked for,
how grainy they are, and how many bits the model needs for a real one.

Real pictures are split: one part is the reference, and as many of the rest as there are made ones say
what right pictures get. Distances of features are those of distances.py, in a space of features.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studio.diffusion import pictures
from studio.diffusion.conditions import FREE, ClassLabel
from studio.diffusion.likelihood import Measure
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Sampler, Step
from studio.diffusion.score import Score
from studio.errors import DataError
from studio.lazy import torch
from studio.training import distances, features
from studio.training.data import Pictures
from studio.training.distances import Figure
from studio.training.features import FeatureSpace

if TYPE_CHECKING:
    from torch import nn

Report = Callable[[int, int], None]

_BATCH = 32
_FEWEST = 8  # pictures of a set, of which neighbours can be told
_MOST_PAIRED = 10_000  # of the reference in the kernel distance, which looks at every pair
_UNKNOWN = Figure(math.nan)


@dataclass(frozen=True)
class Figures:
    """Of `count` pictures. Distances have no unit but that of the space; `named` is the share whose
    class is recognised, nan if they have none; `grain` is in grey levels of 255."""

    count: int
    frechet: Figure
    kernel: Figure
    precision: Figure
    recall: Figure
    density: Figure
    coverage: Figure
    named: Figure
    grain: Figure


class Ruler:
    """Real pictures in a feature space, which any number of sets of pictures are held against."""

    def __init__(
        self,
        space: FeatureSpace,
        real: Pictures,
        reference: Pictures | None = None,
        report: Report = lambda *_: None,
    ) -> None:
        """Half of the real pictures are the reference, unless one is given, as the pictures that a
        model was trained on. Raises DataError if there are too few."""
        mixed = _mixed(real)
        half = len(mixed) // 2
        self.space, self.rest = space, mixed if reference else taken(mixed, slice(half, None))
        self.reference = _mixed(reference) if reference else taken(mixed, slice(half))
        if min(len(self.reference), len(self.rest)) < _FEWEST:
            raise DataError(
                f"{len(real)} real pictures are too few to measure with.",
                f"Give {2 * _FEWEST} at least; a thousand tell something.",
            )
        self._known = space.of(self.reference.pixels, report)
        self._probe: features.Probe | None = None
        labelled = self.reference.labels >= 0
        if len(set(self.reference.labels[labelled].tolist())) > 1:
            self._probe = features.probe(
                self._known[labelled], self.reference.labels[labelled], len(real.classes)
            )

    def figures(self, made: np.ndarray, labels: np.ndarray) -> Figures:
        """The figures of uint8 pictures (N, H, W, C); `labels` (N,) are class indices of the real
        pictures, -1 for none. Raises DataError if there are too few."""
        if len(made) < _FEWEST:
            raise DataError(f"Figures need {_FEWEST} pictures at least.")
        points = self.space.of(made)
        # Of one number, because balls are the smaller the more points there are.
        both = min(len(points), len(self._known))
        cover = distances.manifolds(points[:both], self._known[:both])
        return Figures(
            count=len(made),
            frechet=distances.frechet(points, self._known),
            kernel=distances.kernel(points, self._known[:_MOST_PAIRED]),
            precision=cover.precision,
            recall=cover.recall,
            density=cover.density,
            coverage=cover.coverage,
            named=self._named(points, labels),
            grain=_median(grain(made)),
        )

    def floor(self, count: int) -> Figures:
        """The figures of `count` real pictures, or of as many as there are beside the reference."""
        some = taken(self.rest, slice(count))
        return self.figures(some.pixels, some.labels)

    def _named(self, points: np.ndarray, labels: np.ndarray) -> Figure:
        labelled = labels >= 0
        if self._probe is None or not labelled.any():
            return _UNKNOWN
        return distances.share(self._probe(points[labelled]) == labels[labelled])


def renamed(labels: np.ndarray, names: tuple[str, ...], among: tuple[str, ...]) -> np.ndarray:
    """Class indices (N,) into `names` as indices into `among`; -1 for what is not there."""
    places = [among.index(name) if name in among else -1 for name in names]
    return np.array([*places, -1], np.int64)[labels]


def _mixed(some: Pictures) -> Pictures:
    """In no order, the same each time."""
    return taken(some, np.random.default_rng(0).permutation(len(some)))


def taken(some: Pictures, places: np.ndarray | slice) -> Pictures:
    """The pictures at these places, in this order."""
    return Pictures(some.pixels[places], some.labels[places], some.classes)


def _median(values: np.ndarray) -> Figure:
    """The median, and its standard error if the middle of the values is about normal."""
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return Figure(middle, 1.2533 * spread / math.sqrt(len(values)))


#: Of many pictures: how they differ is more than what probes and tolerance leave open.
BITS = Measure(probes=1, rtol=1e-4, atol=1e-4)


def bits(score: Score, real: Pictures, seed: int = 0) -> list[float]:
    """Bits per dimension of each of some real pictures. Picture i has the seed + i.

    A model that knows no pictures of any class is asked with their classes. Raises SpecError if the
    model has no likelihood.
    """
    known = score if score.free else score.labelled(torch.from_numpy(real.labels).to(score.device))
    *_, last = BITS.run(known, real.pixels, seed)
    return last.bits.tolist()


def runs(
    score: Score, sampler: Sampler, count: int, seed: int, batch: int = _BATCH
) -> Iterator[tuple[Step, np.ndarray]]:
    """The last Step of every batch, and the class index asked of each picture in it (-1: none).

    Picture i has the seed + i, and so the same noise whatever the sampler and the batch.
    """
    labels = np.full(count, -1)
    if score.classes:
        labels = np.arange(seed, seed + count) % len(score.classes)
    for first in range(0, count, batch):
        some = labels[first : first + batch]
        condition = ClassLabel(tuple(some.tolist())) if score.classes else FREE
        noise = Noise.of(
            seed + first,
            len(some),
            score.shape,
            score.sde,
            device=score.device,
            depth=sampler.depth,
        )
        *_, last = sampler.run(score, noise, condition)
        yield last, some


def grain(pixels: np.ndarray, corner: int = 6) -> np.ndarray:
    """How grainy each picture (N, H, W, C) is, (N,): grey levels, in its four corners.

    The deviation of each pixel from the mean of its 3×3 neighbourhood, over corners where the
    pictures themselves have a smooth background.
    """
    x = pixels.astype(np.float32)
    n = corner
    corners = np.stack([x[:, :n, :n], x[:, :n, -n:], x[:, -n:, :n], x[:, -n:, -n:]], axis=1)
    shifts = [corners[:, :, i : n - 2 + i, j : n - 2 + j] for i in range(3) for j in range(3)]
    high = corners[:, :, 1:-1, 1:-1] - np.mean(shifts, axis=0)
    return high.reshape(len(x), -1).std(axis=1)


def train_classifier(
    pixels: np.ndarray, labels: np.ndarray, classes: int, steps: int = 400, seed: int = 0
) -> nn.Module:
    """A small convolutional classifier of clean pictures, on the CPU."""
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    width = pixels.shape[3]
    for out in (16, 32, 64):
        layers += [nn.Conv2d(width, out, 3, stride=2, padding=1), nn.ReLU()]
        width = out
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = rng.integers(len(pixels), size=128)
        x = pictures.to_state(pixels[chosen], (-1.0, 1.0))
        with torch.enable_grad():
            loss = F.cross_entropy(net(x), torch.from_numpy(labels[chosen]))
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
    return net.eval()


def accuracy(classifier: nn.Module, pixels: np.ndarray, labels: np.ndarray) -> float:
    """The share of pictures whose class the classifier names."""
    with torch.no_grad():
        answers = [
            classifier(pictures.to_state(part, (-1.0, 1.0))).argmax(1).numpy()
            for part in np.array_split(pixels, max(1, len(pixels) // 256))
        ]
    return float((np.concatenate(answers) == labels).mean())


def classifier_features(net: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """What the last layer but one of `train_classifier`'s network says of uint8 pictures, (N, 64)."""
    from torch import nn

    assert isinstance(net, nn.Sequential)
    with torch.no_grad():
        parts = [
            net[:-1](pictures.to_state(part, (-1.0, 1.0))).numpy()
            for part in np.array_split(pixels, max(1, len(pixels) // 256))
        ]
    return np.concatenate(parts)
