"""Figures of a model: grain in smooth corners, and whether pictures show the class asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studio.diffusion import pictures
from studio.diffusion.conditions import FREE, ClassLabel
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Sampler
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
    labels = np.full(count, -1)
    if score.classes:
        labels = np.arange(seed, seed + count) % len(score.classes)
    stacks = []
    for first in range(0, count, _BATCH):
        some = labels[first : first + _BATCH]
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
        stacks.append(pictures.to_pictures(last.x, score.value_range))
    return np.concatenate(stacks), labels


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
