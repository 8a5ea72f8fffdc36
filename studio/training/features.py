"""Pictures as features: in a space that ships, in one of your own, or in Inception's.

Pictures of any size become what the space sees in one way for real and made ones: reduced with
antialiasing, grey repeated. A figure is worth nothing without the name of its space.
Source: Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.diffusion import pictures
from studio.errors import DataError, StudioError
from studio.lazy import no_grad, torch
from studio.training import optimization
from studio.weights import features
from studio.weights.features import USUAL

if TYPE_CHECKING:
    from torch import Tensor

INCEPTION = "inception"  # as a person asks for it
_INCEPTION_NAME = "inception-v3-compat"  # as torch-fidelity calls it
_BATCH = 256


@dataclass(frozen=True)
class FeatureSpace:
    """Pictures -> points. `fn` takes uint8 (B, H, W, 3) and gives (B, width)."""

    name: str
    width: int
    fn: Callable[[np.ndarray], Tensor]

    def of(
        self, pixels: np.ndarray, report: Callable[[int, int], None] = lambda *_: None
    ) -> np.ndarray:
        """The features of uint8 pictures (N, H, W, C), float32 (N, width)."""
        found = np.empty((len(pixels), self.width), np.float32)
        for first in range(0, len(pixels), _BATCH):
            some = optimization.coloured(pixels[first : first + _BATCH], 3)
            found[first : first + len(some)] = self.fn(some).float().cpu().numpy()
            report(first + len(some), len(pixels))
        if not np.isfinite(found).all():
            raise DataError(f"The features of {self.name} are not finite numbers.")
        return found


def space(name: str = USUAL, device: str = "cpu") -> FeatureSpace:
    """The feature space of that name or at that path; "inception" is torch-fidelity's.

    Raises CheckpointError if there is none, StudioError if torch-fidelity is not installed.
    """
    if name == INCEPTION:
        return _inception(device)
    name, net = features.load(name, device)
    size = net.options.size

    @no_grad
    def fn(pixels: np.ndarray) -> Tensor:
        return net(seen(pixels, size, device))

    return FeatureSpace(name, net.options.features, fn)


def seen(pixels: np.ndarray, size: int, device: str = "cpu") -> Tensor:
    """uint8 (N, H, W, C) as float (N, C, size, size) from -1 to 1, reduced with antialiasing."""
    x = pictures.to_state(pixels, (-1.0, 1.0), device)
    if x.shape[2:] == (size, size):
        return x
    resize = torch.nn.functional.interpolate
    return resize(x, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)


def _inception(device: str) -> FeatureSpace:
    """The 2048 features of the network that published Fréchet distances are measured with."""
    try:
        module: Any = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except ImportError as error:
        raise StudioError(
            "Inception features need torch-fidelity, which is not installed here.",
            f"Install it (pip install torch-fidelity), or leave {USUAL} to measure with.",
        ) from error
    # It fetches its weights by itself, the first time.
    net = module.FeatureExtractorInceptionV3(_INCEPTION_NAME, ["2048"]).to(device).eval()

    @no_grad
    def fn(pixels: np.ndarray) -> Tensor:
        # It resizes by itself, in the way that published figures do.
        (found,) = net(torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous())
        return found

    return FeatureSpace(_INCEPTION_NAME, 2048, fn)


# -- what the features say of classes -------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """The class index of each of (N, width)."""
        return (points @ self.weight + self.bias).argmax(1)


def probe(points: np.ndarray, labels: np.ndarray, classes: int) -> Probe:
    """Multinomial regression of labels from features (N, width), a little pulled to zero."""
    from torch.nn import functional as F

    middle, scale = points.mean(0), points.std(0) + 1e-6
    x, y = torch.from_numpy((points - middle) / scale), torch.from_numpy(labels)
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = F.cross_entropy(x @ weight + bias, y) + 1e-3 * weight.pow(2).sum()
            loss.backward()
        return loss

    optimizer.step(closure)
    scaled = weight.detach().numpy() / scale[:, None]
    return Probe(scaled, bias.detach().numpy() - middle @ scaled)
