"""A lone file of weights, `X.safetensors`, with its description beside it or in its own header.

The tensors have the names that our networks give them. The description is a ModelInfo as JSON, in
`X.json`, in `config.json`, or under "model" in the header's metadata. What is left out keeps its default:

    {
      "sde": {"kind": "ve", "sigma_min": 0.01, "sigma_max": 50.0},
      "output": {"kind": "published", "predicts": "minus_noise", "label": "sigma"},
      "network": "refinenet",
      "options": {"size": 32, "colours": 3, "width": 128, "depth": 4},
      "size": 32,
      "colours": 3,
      "value_range": [0.0, 1.0]
    }

`model.safetensors` is the name of the studio's own format, which describes itself.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from studio import spec
from studio.errors import CheckpointError, SpecError
from studio.weights import tensors
from studio.weights.formats.base import Format
from studio.weights.model import ModelInfo, Opened, Weights

_LARGEST = 16 * 2**20


class Bare(Format):
    title: ClassVar[str] = "Weights with a description"

    def claims(self, path: Path) -> bool:
        return path.suffix == ".safetensors" and path.is_file() and bool(_description(path))

    def open(self, path: Path, preset: str = "") -> Opened:
        found = _description(path)
        if not found:
            raise CheckpointError(
                f"{path.name} has no description beside it.",
                f"Write what it is into {path.stem}.json.",
            )
        try:
            info = spec.from_dict(ModelInfo, found)
            info.check()
        except (SpecError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path.name} is described wrongly: {error}") from error
        return Opened(path.stem, self.title, info, partial(_read, path))


def _read(path: Path) -> Weights:
    return Weights(tensors.read_safetensors(path))


def _description(path: Path) -> dict[str, Any]:
    """The table that describes a file of weights, untrusted; empty if there is none that we know."""
    for beside in (path.with_suffix(".json"), path.parent / "config.json"):
        if found := _table(beside):
            return found
    try:
        metadata = tensors.read_header(path).get("__metadata__")
    except CheckpointError:
        return {}
    return _parsed(metadata.get("model")) if isinstance(metadata, dict) else {}


def _table(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        return _parsed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


def _parsed(text: Any) -> dict[str, Any]:
    """A description in `text`; empty if it is none, as the configuration of another program."""
    try:
        found = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    ours = isinstance(found, dict) and {"sde", "network"} <= found.keys()
    return found if ours else {}
