"""Feature spaces on disk: a folder with `features.safetensors` and a card.

They lie among the models that ship or a person's own, under a file name of their own, so that no list
of models shows them. A figure measured in a space is worth nothing without its name, which is that of
the folder. The header says all that is needed, and nothing is executed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import spec
from studio.errors import CheckpointError, SpecError
from studio.lazy import torch
from studio.paths import model_dirs
from studio.spec import option
from studio.weights import tensors

if TYPE_CHECKING:
    from torch import Tensor

    from studio.networks.features import FeatureNetwork

WEIGHTS = "features.safetensors"
KIND = "features"

#: The space in which distances are measured unless another is named.
USUAL = "studio-features-1"


@dataclass(frozen=True)
class FeatureInfo:
    """What the file of a feature space says of itself. `classes` has a tuple of names for each pack
    that it was trained on."""

    options: dict[str, Any] = option(dict)
    classes: tuple[tuple[str, ...], ...] = ()
    steps: int = 0  # training steps behind these weights


def entries() -> list[tuple[str, Path]]:
    """(name, folder) of every feature space at hand, a person's own first. Nothing is opened."""
    found: dict[str, Path] = {}
    for folder in (f for f in model_dirs() if f.is_dir()):
        for path in sorted(folder.iterdir()):
            if (path / WEIGHTS).is_file():
                found.setdefault(path.name, path)
    return list(found.items())


def find(source: str) -> Path:
    """The folder of the feature space of that name, or at that path.

    Raises CheckpointError, with the names there are, if there is none.
    """
    known = dict(entries())
    path = known.get(source) or Path(source).expanduser()
    if path.name == WEIGHTS and path.is_file():
        path = path.parent
    if (path / WEIGHTS).is_file():
        return path
    names = ", ".join(known) or "none; score-studio train-features makes one"
    raise CheckpointError(f"There is no feature space “{source}”.", f"There are: {names}.")


def read_info(folder: Path) -> FeatureInfo:
    """The FeatureInfo in the header of a feature space, without reading the weights.

    Raises CheckpointError if the file is missing, damaged or something else.
    """
    path = folder / WEIGHTS
    metadata = tensors.read_header(path).get("__metadata__")
    if not isinstance(metadata, dict) or metadata.get("kind") != KIND:
        raise CheckpointError(
            f"{path.name} holds no feature space.", "score-studio train-features makes one."
        )
    try:
        data = json.loads(metadata["features"])
        groups = tuple(tuple(map(str, group)) for group in data["classes"])
        return FeatureInfo(dict(data["options"]), groups, int(data["steps"]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path.name} describes its features wrongly: {error}") from error


def save(folder: Path, info: FeatureInfo, state: dict[str, Tensor]) -> Path:
    """Write a feature space; the file is replaced as a whole. Returns its path."""
    metadata = {"kind": KIND, "features": json.dumps(spec.to_dict(info))}
    tensors.write_tensors(folder / WEIGHTS, state, metadata)
    return folder / WEIGHTS


def load(source: str, device: str = "cpu") -> tuple[str, FeatureNetwork]:
    """(name, network ready to evaluate) of the space of that name, or at that path.

    Raises CheckpointError if there is none or it is damaged.
    """
    folder = find(source)
    info = read_info(folder)
    # Without memory first: a description may ask for any amount of it.
    with torch.device("meta"):
        net = build(info)
    tensors.fill(net, folder / WEIGHTS)
    return folder.name, net.float().to(device).eval().requires_grad_(False)


def build(info: FeatureInfo) -> FeatureNetwork:
    """A fresh network that `info` describes. Raises CheckpointError if it makes no sense."""
    from studio.networks.features import FeatureNetwork, FeatureOptions

    try:
        options = spec.from_dict(FeatureOptions, info.options)
    except (SpecError, TypeError) as error:
        raise CheckpointError(f"The options of these features make no sense: {error}") from error
    if options.classes != sum(map(len, info.classes)):
        raise CheckpointError("The description of these features and their network do not fit.")
    return FeatureNetwork(options)
