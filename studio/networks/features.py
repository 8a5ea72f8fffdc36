"""What pictures have in them, as a few numbers: a small residual network with three answers.

The features come before the answers and are all that distances see. Where in the picture something is
counts: nothing is averaged over places. Each feature is standardised over the pictures that the network
was trained on, so that distances have one unit: a deviation of all those pictures. The first features
are the answer to how much noise and blur there is, so that a little grain moves a picture by much.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from studio.errors import SpecError

#: How many numbers say what was done to a picture: how much noise, how much blur.
DAMAGES = 2


@dataclass(frozen=True)
class FeatureOptions:
    """Everything needed to build the network again."""

    size: int = 32  # pixels on a side, of three colours
    classes: int = 0
    channels: tuple[int, ...] = (48, 96, 96)  # of the stages at a half, a quarter, an eighth
    features: int = 128
    thumbnail: int = 8  # pixels on a side of the picture it redraws

    def __post_init__(self) -> None:
        if len(self.channels) != 3 or any(not 1 <= c <= 1024 for c in self.channels):
            raise SpecError("A network of features has three stages of 1 to 1024 channels.")
        if not 16 <= self.size <= 256 or self.size % 8 or not 2 <= self.features <= 4096:
            raise SpecError("A network of features sees 16 to 256 pixels, a multiple of eight.")
        if not 0 <= self.classes <= 100_000 or not 1 <= self.thumbnail <= self.size:
            raise SpecError("The answers of this network of features make no sense.")


@dataclass(frozen=True)
class Answers:
    """What the network says of pictures: logits of classes (B, K), the picture again in few pixels
    (B, 3, S, S), and how it was damaged (B, DAMAGES)."""

    classes: Tensor
    thumbnail: Tensor
    damage: Tensor


class FeatureNetwork(nn.Module):
    """x (B, 3, size, size) from -1 to 1 -> features (B, features)."""

    def __init__(self, options: FeatureOptions) -> None:
        super().__init__()
        self.options = o = options
        first, second, last = o.channels
        self.trunk = nn.Sequential(
            nn.PixelUnshuffle(2),
            _layer(12, first),
            _Residual(first),
            _layer(first, second, stride=2),
            _Residual(second),
            _layer(second, last, stride=2),
            nn.Flatten(),
            nn.Linear(last * (o.size // 8) ** 2, o.features, bias=False),
        )
        self.unit = nn.BatchNorm1d(o.features, affine=False)
        self.named = nn.Linear(o.features, max(1, o.classes))  # torch warns of none
        self.redrawn = nn.Linear(o.features, 3 * o.thumbnail**2)
        self.damaged = nn.Parameter(torch.tensor([[1.0] * DAMAGES, [0.0] * DAMAGES]))

    def forward(self, x: Tensor) -> Tensor:
        # Standardised in full precision: a half keeps two to three digits.
        return self.unit(self.trunk(x).float())

    def answers(self, features: Tensor) -> Answers:
        """What features (B, features) say."""
        side, (scale, shift) = self.options.thumbnail, self.damaged
        return Answers(
            self.named(features),
            self.redrawn(features).reshape(-1, 3, side, side),
            features[:, :DAMAGES] * scale + shift,
        )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_layer(channels, channels), _layer(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())


def thumbnail(x: Tensor, side: int) -> Tensor:
    """Pictures (B, C, H, W) reduced to `side` pixels square, each the mean of its part."""
    return torch.nn.functional.adaptive_avg_pool2d(x, side)
