"""Classifiers of noised pictures on disk: a folder with `classifier.safetensors` and a card.

They lie among a person's models, but under a file name of their own, so that no list of models shows
them. As in the studio's own format the header says all that is needed and nothing is executed.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import spec
from studio.diffusion.conditions import NoisyClassifier
from studio.diffusion.score import expand
from studio.diffusion.sde import FIRST_TIME, SDE, VPSDE
from studio.errors import CheckpointError, SpecError, StudioError
from studio.lazy import torch
from studio.paths import model_dirs
from studio.spec import option
from studio.weights import tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "classifier.safetensors"
KIND = "classifier"


@dataclass(frozen=True)
class ClassifierInfo:
    """What a classifier's file says of itself. Of the SDE only the range of noise levels matters."""

    sde: SDE = option(VPSDE)
    options: dict[str, Any] = option(dict)
    size: int = 32
    colours: int = 3
    value_range: tuple[float, float] = (-1.0, 1.0)
    classes: tuple[str, ...] = ()
    sigma_data: float = option(0.5, range=(0.01, 10))
    steps: int = 0  # training steps behind these weights

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.colours, self.size, self.size

    def check(self) -> None:
        """Raise SpecError if something in it is out of bounds."""
        spec.check(self)
        low, high = self.value_range
        if not (8 <= self.size <= 1024 and self.colours in (1, 3) and -1e6 < low < high < 1e6):
            raise SpecError("size, channels or value range are impossible.")
        if not 2 <= len(self.classes) <= 100_000:
            raise SpecError("it tells no classes apart.")


def entries() -> list[tuple[str, Path]]:
    """(name, folder) of every classifier at hand, a person's own first. Nothing is opened."""
    found: dict[str, Path] = {}
    for folder in (f for f in model_dirs() if f.is_dir()):
        for path in sorted(folder.iterdir()):
            if (path / WEIGHTS).is_file():
                found.setdefault(path.name, path)
    return list(found.items())


def find(source: str) -> Path:
    """The weight file of the classifier of that name, or in the folder or file at that path.

    Raises CheckpointError, with the names there are, if there is none.
    """
    known = dict(entries())
    if source in known:
        return known[source] / WEIGHTS
    path = Path(source).expanduser()
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    if path.is_file():
        return path
    names = ", ".join(known) or "none yet: score-studio train-classifier makes one"
    raise CheckpointError(f"There is no classifier “{source}”.", f"There are: {names}.")


def fitting(shape: tuple[int, int, int]) -> dict[str, ClassifierInfo]:
    """The classifiers at hand that know pictures of this shape (C, H, W), by name. Reads no weights;
    what cannot be read is left out.
    """
    found: dict[str, ClassifierInfo] = {}
    for name, folder in entries():
        with contextlib.suppress(CheckpointError):
            if (info := read_info(folder / WEIGHTS)).shape == shape:
                found[name] = info
    return found


def no_model(path: Path) -> CheckpointError:
    """What to say where a model is wanted and the classifier at `path` is given."""
    source = path.name if (path.name, path) in entries() else str(path)
    return CheckpointError(
        f"“{path.name}” is a classifier: it guides models, and makes no pictures.",
        f"Choose a model, and guide it with --classifier {shlex.quote(source)}.",
    )


def read_info(path: Path) -> ClassifierInfo:
    """The ClassifierInfo in the header of a weight file, without reading the weights.

    Raises CheckpointError if the file is missing, damaged or no classifier.
    """
    metadata = tensors.read_header(path).get("__metadata__")
    if not isinstance(metadata, dict) or metadata.get("kind") != KIND:
        raise CheckpointError(
            f"{path.name} holds no classifier.", "score-studio train-classifier makes one."
        )
    try:
        info = spec.from_dict(ClassifierInfo, json.loads(metadata["classifier"]))
        info.check()
        return info
    except (KeyError, ValueError, SpecError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path.name} describes its classifier wrongly: {error}") from error


def save(folder: Path, info: ClassifierInfo, state: dict[str, Tensor]) -> Path:
    """Write a classifier's weights; the file is replaced as a whole. Returns its path."""
    metadata = {"kind": KIND, "classifier": json.dumps(spec.to_dict(info))}
    tensors.write_tensors(folder / WEIGHTS, state, metadata)
    return folder / WEIGHTS


def load(source: str, device: str = "cpu") -> NoisyClassifier:
    """The classifier of that name or at that path, ready to guide.

    Raises CheckpointError if there is none or it is damaged.
    """
    path = find(source)
    info = read_info(path)
    # Without memory first: a description may ask for any amount of it.
    with torch.device("meta"):
        net = build(info)
    tensors.fill(net, path)
    return classifier_of(net.float().to(device).eval().requires_grad_(False), info)


def build(info: ClassifierInfo) -> nn.Module:
    """A fresh network that `info` describes. Raises CheckpointError if it makes no sense."""
    from studio.networks.classifier import Classifier, ClassifierOptions

    try:
        options = spec.from_dict(ClassifierOptions, info.options)
    except (StudioError, TypeError) as error:
        raise CheckpointError(f"The classifier's options make no sense: {error}") from error
    made_for = (options.size, options.colours, options.classes)
    if made_for != (info.size, info.colours, len(info.classes)):
        raise CheckpointError("The classifier's description and its network do not fit.")
    return Classifier(options)


def classifier_of(net: nn.Module, info: ClassifierInfo) -> NoisyClassifier:
    """The NoisyClassifier of a network that `info` describes."""
    ends = torch.tensor([FIRST_TIME, 1.0], dtype=torch.float64)
    lowest, highest = info.sde.sigma(ends).tolist()

    def fn(y: Tensor, sigma: Tensor) -> Tensor:
        # Beyond what it was trained on it is told the nearest level that it knows. Above that, what
        # can be told falls off as 1 / sigma: the odds of two Gaussians far wider than apart.
        label = sigma.clamp(lowest, highest).log() / 4
        unit = y / expand(torch.sqrt(sigma**2 + info.sigma_data**2), y)
        fading = (highest / sigma).clamp_max(1).float()[:, None]
        return torch.log_softmax(net(unit.float(), label.float()).float() * fading, 1)

    return NoisyClassifier(fn, info.shape, info.classes, info.value_range)
