"""What the tests share: exact scores, the registries as marks, a tiny model, a home."""

from __future__ import annotations

import os

os.environ["QT_QPA_PLATFORM"] = "offscreen"
if "PYTEST_XDIST_WORKER" in os.environ:
    # There are as many workers as cores: more threads would only wait for each other.
    os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.noise import Noise
from studio.diffusion.predictors import PREDICTORS
from studio.diffusion.sampler import Sampler, Step
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE, SDES
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, int, int]

every_sde = pytest.mark.parametrize("sde", [cls() for cls in SDES.values()], ids=list(SDES))
every_predictor = pytest.mark.parametrize(
    "predictor", [cls() for cls in PREDICTORS.values()], ids=list(PREDICTORS)
)
every_sampler = pytest.mark.parametrize("sampler", list(SAMPLERS))

REPOSITORY = Path(__file__).resolve().parent.parent
#: The models that ship, in the order of the shelf.
SHIPPED = sorted(p.parent.name for p in REPOSITORY.glob("checkpoints/*/model.safetensors"))
SHIPPED_CLASSIFIERS = sorted(
    p.parent.name for p in REPOSITORY.glob("checkpoints/*/classifier.safetensors")
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A studio home that no other test and no person uses."""
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def one_thread() -> None:
    """Small tensors are slower with more threads, and sums may then differ in their last digit."""
    torch.set_num_threads(1)


def gaussian_score(sde: SDE, std: float, shape: Shape, mean: float = 0.0) -> Score:
    """The exact score of pictures whose values are N(mean, std²), each for itself."""

    def fn(x: Tensor, t: Tensor) -> Tensor:
        a, s = sde.marginal(t)
        return (expand(a * mean, x) - x) / expand((a * std) ** 2 + s**2, x)

    return Score.from_function(fn, sde, shape)


def mixture_score(
    sde: SDE, means: Sequence[float], std: float, weights: Sequence[float], shape: Shape
) -> Score:
    """The exact score of pictures whose values come from a mixture of Gaussians of one width."""

    def fn(x: Tensor, t: Tensor) -> Tensor:
        a, s = (expand(v, x) for v in sde.marginal(t))
        variance = (a * std) ** 2 + s**2
        away = [a * m - x for m in means]
        logits = [torch.log(x.new_tensor(w)) - d**2 / (2 * variance) for w, d in zip(weights, away)]
        shares = torch.softmax(torch.stack(logits), 0)
        return sum(share * d for share, d in zip(shares, away)) / variance

    return Score.from_function(fn, sde, shape)


def build(sampler: str, **options: Any) -> Sampler:
    """A sampler by its name; options that it does not have are left out, as `steps` of rk45."""
    cls = SAMPLERS[sampler]
    return cls(**{k: v for k, v in options.items() if k in cls.__dataclass_fields__})


def noise_for(sampler: Sampler, score: Score, seed: int = 0, count: int = 2, **kw: Any) -> Noise:
    return Noise.of(seed, count, score.shape, score.sde, depth=sampler.depth, **kw)


def steps_of(
    sampler: Sampler, score: Score, seed: int = 0, count: int = 2, **kw: Any
) -> list[Step]:
    """Every Step of a run, in float64 unless said."""
    kw.setdefault("dtype", torch.float64)
    return list(sampler.run(score, noise_for(sampler, score, seed, count, **kw)))


TINY_OPTIONS: dict[str, Any] = {
    "size": 8,
    "colours": 3,
    "channels": [8, 16],
    "blocks": [1, 1],
    "attention": [1],
    "embedding": 16,
    "classes": 2,
}


def tiny_network(**changes: Any) -> Any:
    """A small U-Net that answers something: its zeroed layers are given weights."""
    from studio.networks.catalog import build as build_network

    torch.manual_seed(0)
    net = build_network("unet", TINY_OPTIONS | changes)
    with torch.no_grad():
        for parameter in net.parameters():
            if not bool(parameter.any()):
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return net.eval().requires_grad_(False)


@pytest.fixture
def tiny_checkpoint(tmp_path: Path) -> Path:
    """The folder of a small model with two classes, as the studio saves it."""
    from studio.weights.formats import native
    from studio.weights.model import ModelInfo

    info = ModelInfo(options=TINY_OPTIONS, size=8, classes=("cat", "dog"), steps=12)
    folder = tmp_path / "tiny"
    native.save(folder, info, tiny_network().state_dict(), card="# Tiny\n\nFor tests.\n")
    return folder
