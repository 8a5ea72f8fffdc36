"""The studio's own model: a folder with `model.safetensors` and `card.md`.

The safetensors file holds the averaged weights, and in its header everything needed to use them: SDE
and constants, what the network predicts, its architecture, the value range, the classes. The header
is read without torch, so a shelf of models lists at once. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import spec
from studio.diffusion.score import Output, Preconditioned, Score, network_score
from studio.diffusion.sde import SDE, VPSDE
from studio.errors import CheckpointError, SpecError
from studio.lazy import torch
from studio.paths import atomic
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"
CARD = "card.md"
_FORMAT = "score-studio"
_LARGEST_HEADER = 16 * 2**20


@dataclass(frozen=True)
class ModelInfo:
    """What a weight file says of itself."""

    sde: SDE = option(VPSDE)
    output: Output = option(Preconditioned)
    network: str = "unet"
    options: dict[str, Any] = option(dict)
    size: int = 32
    colours: int = 3
    value_range: tuple[float, float] = (-1.0, 1.0)
    classes: tuple[str, ...] = ()
    steps: int = 0  # training steps behind these weights
    preset: str = ""  # the sampler preset that suits it best; empty for the studio's default

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.colours, self.size, self.size


def read_info(path: Path) -> ModelInfo:
    """The ModelInfo in the header of a weight file, without reading the weights.

    Raises CheckpointError if the file is missing, damaged or not the studio's.
    """
    metadata = read_header(path).get("__metadata__")
    if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path.name} holds weights, but not a model of this studio.",
            "Open a folder that the studio saved.",
        )
    try:
        info = spec.from_dict(ModelInfo, json.loads(metadata["model"]))
        _check(info)
        return info
    except (KeyError, ValueError, SpecError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path.name} describes its model wrongly: {error}") from error


def _check(info: ModelInfo) -> None:
    spec.check(info)
    low, high = info.value_range
    if not (1 <= info.size <= 4096 and info.colours in (1, 3) and -1e6 < low < high < 1e6):
        raise SpecError("size, channels or value range are impossible.")


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, untrusted. Raises CheckpointError if there is none."""
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(_LARGEST_HEADER, total - 8):
                raise ValueError("its header is longer than the file allows")
            header = json.loads(file.read(length))
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no model file at {path}.") from error
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}.") from error
    except (ValueError, struct.error, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} is damaged or not a safetensors file: {error}.",
            "Get the model again, or take its folder off the shelf.",
        ) from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path.name} is damaged: its header is no table.")
    return header


def save(folder: Path, info: ModelInfo, state: dict[str, Tensor], card: str = "") -> Path:
    """Write a model folder; each file is replaced as a whole. Returns the weight file's path."""
    write_tensors(folder / WEIGHTS, state, {"model": json.dumps(spec.to_dict(info))})
    if card:
        with atomic(folder / CARD) as temporary:
            temporary.write_text(card, encoding="utf-8")
    return folder / WEIGHTS


def write_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file with our format mark, written atomically."""
    from safetensors.torch import save_file

    tensors = {k: v.detach().contiguous().cpu() for k, v in state.items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"format": _FORMAT, **metadata})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises CheckpointError if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} is damaged: {error}.", "Get the file again.") from error


def load_network(path: Path, info: ModelInfo, device: str = "cpu") -> nn.Module:
    """The network of a weight file, in float32, ready to evaluate.

    Raises CheckpointError if a tensor is missing, unknown, of the wrong shape or not finite.
    """
    from studio.networks.catalog import build

    # Without memory at first: a description may ask for any amount of it.
    with torch.device("meta"):
        net = build(info.network, info.options)
    made_for = vars(net.options)
    if (info.size, info.colours, len(info.classes)) != tuple(
        made_for[k] for k in ("size", "colours", "classes")
    ):
        raise CheckpointError(f"{path.name} describes a model and a network that do not fit.")
    state = read_tensors(path)
    wanted = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    if wanted != found:
        odd = [k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k)]
        raise CheckpointError(
            f"{path.name} does not fit its own description: {len(odd)} tensors differ, "
            f"for example {sorted(odd)[0]}."
        )
    if not all(bool(torch.isfinite(v).all()) for v in state.values() if v.is_floating_point()):
        raise CheckpointError(f"{path.name} holds weights that are not finite numbers.")
    net = build(info.network, info.options)
    net.load_state_dict(state)
    return net.float().to(device).eval().requires_grad_(False)


def score_of(net: nn.Module, info: ModelInfo, device: str = "cpu") -> Score:
    """The Score of a network on `device` that `info` describes."""
    return network_score(
        net, info.output, info.sde, info.shape, info.value_range, info.classes, device
    )
