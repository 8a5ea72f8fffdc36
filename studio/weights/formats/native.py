"""The studio's own format: a folder with `model.safetensors` and `card.md`.

The safetensors file holds the averaged weights, and in its header everything needed to use them: SDE
and constants, what the network predicts, its architecture, the value range, the classes. The header
is read without torch. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from studio import spec
from studio.errors import CheckpointError, SpecError
from studio.paths import atomic
from studio.weights import classifiers, tensors
from studio.weights.formats.base import Format
from studio.weights.model import ModelInfo, Opened, Weights

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
CARD = "card.md"


class Native(Format):
    title: ClassVar[str] = "Score Studio"

    def claims(self, path: Path) -> bool:
        return (path / WEIGHTS).is_file() or path.name == WEIGHTS or _has_mark(path)

    def open(self, path: Path, preset: str = "") -> Opened:
        file = path / WEIGHTS if path.is_dir() else path
        name = file.parent.name if file.name == WEIGHTS else file.stem
        return Opened(name, self.title, read_info(file), partial(_read, file))


def read_info(path: Path) -> ModelInfo:
    """The ModelInfo in the header of a weight file, without reading the weights.

    Raises CheckpointError if the file is missing, damaged or not the studio's.
    """
    metadata = tensors.read_header(path).get("__metadata__")
    if isinstance(metadata, dict) and metadata.get("kind") == classifiers.KIND:
        raise classifiers.no_model(path.parent if path.name == classifiers.WEIGHTS else path)
    if not isinstance(metadata, dict) or metadata.get("format") != tensors.FORMAT:
        raise CheckpointError(
            f"{path.name} holds weights, but not a model of this studio.",
            "Open a folder that the studio saved.",
        )
    try:
        info = spec.from_dict(ModelInfo, json.loads(metadata["model"]))
        info.check()
        return info
    except (KeyError, ValueError, SpecError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path.name} describes its model wrongly: {error}") from error


def save(folder: Path, info: ModelInfo, state: dict[str, Tensor], card: str = "") -> Path:
    """Write a model folder; each file is replaced as a whole. Returns the weight file's path."""
    tensors.write_tensors(folder / WEIGHTS, state, {"model": json.dumps(spec.to_dict(info))})
    if card:
        with atomic(folder / CARD) as temporary:
            temporary.write_text(card, encoding="utf-8")
    return folder / WEIGHTS


def _read(file: Path) -> Weights:
    return Weights(tensors.read_safetensors(file))


def _has_mark(path: Path) -> bool:
    """Whether a weight file of any name carries the studio's mark."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        metadata = tensors.read_header(path).get("__metadata__")
    except CheckpointError:
        return False
    return isinstance(metadata, dict) and metadata.get("format") == tensors.FORMAT
