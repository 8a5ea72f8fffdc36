"""Figures of a model: grain in smooth corners, whether pictures show the class asked for, and how far
two sets of pictures are apart.

Sources: Bonneel et al. 2015, "Sliced and Radon Wasserstein Barycenters of Measures"; Heusel et al.
2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (the Fréchet
distance of features; ours are not Inception's, so its values compare with each other only).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studio.diffusion import pictures
from studio.diffusion.conditions import FREE, ClassLabel
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Sampler, Step
from studio.diffusion.score import Score
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import nn

    from studio.training.data import Pictures

_BATCH = 32


@dataclass(frozen=True)
class Figures:
    """Of `count` sampled pictures. Grain in grey levels (of 255); recovered is a share, or nan."""

    count: int
    grain: float
    real_grain: float
    recovered: float
    real_recovered: float


def figures(score: Score, made: np.ndarray, labels: np.ndarray, real: Pictures) -> Figures:
    """The figures of pictures drawn from `score`, beside those of real ones.

    Half of the real pictures train a small classifier, the other half measures it.
    """
    recovered = truth = float("nan")
    if score.classes and real.classes == score.classes:
        half = len(real) // 2
        classifier = train_classifier(real.pixels[:half], real.labels[:half], len(real.classes))
        recovered = accuracy(classifier, made, labels)
        truth = accuracy(classifier, real.pixels[half:], real.labels[half:])
    grains = float(np.median(grain(made))), float(np.median(grain(real.pixels)))
    return Figures(len(made), *grains, recovered, truth)


def draw(score: Score, sampler: Sampler, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 pictures (count, H, W, C), the class index asked of each; -1 if there are none)."""
    stacks, labels = [], []
    for last, asked in runs(score, sampler, count, seed):
        stacks.append(pictures.to_pictures(last.x, score.value_range))
        labels.append(asked)
    return np.concatenate(stacks), np.concatenate(labels)


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


# -- how far two sets are apart -------------------------------------------------------------------


def sliced_distance(a: np.ndarray, b: np.ndarray, projections: int = 128, seed: int = 0) -> float:
    """Sliced Wasserstein-2 distance of two sets (N, D) and (M, D), in units of one value.

    The root mean square, over fixed random directions, of the exact distance in each.
    """
    directions = np.random.default_rng(seed).normal(size=(a.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    low, high = (np.sort(x.astype(np.float64) @ directions, axis=0) for x in (a, b))
    n, m = len(a), len(b)
    # Both quantile functions are constant between these shares, counted in 1 / (n m).
    edges = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(edges, prepend=0) / (n * m)
    gaps = low[(edges - 1) // m] - high[(edges - 1) // n]
    return float(np.sqrt((widths @ gaps**2).mean()))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Wasserstein-2 distance of the Gaussians with the moments of (N, D) and (M, D)."""
    first, second = (np.cov(x.astype(np.float64), rowvar=False) for x in (a, b))
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    away = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    return float(away @ away + np.trace(first) + np.trace(second) - 2 * shared)


def features(net: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """What the last layer but one of `train_classifier`'s network says of uint8 pictures, (N, 64)."""
    from torch import nn

    assert isinstance(net, nn.Sequential)
    with torch.no_grad():
        parts = [
            net[:-1](pictures.to_state(part, (-1.0, 1.0))).numpy()
            for part in np.array_split(pixels, max(1, len(pixels) // 256))
        ]
    return np.concatenate(parts)
