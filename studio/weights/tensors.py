"""Files of tensors, read as if their makers meant harm, and written atomically.

A header may claim anything and a pickle may contain anything: sizes are checked before memory is
asked for, only plain tensors are unpickled (`weights_only`), and nothing in a file is executed.
"""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import CheckpointError
from studio.lazy import torch
from studio.paths import atomic

if TYPE_CHECKING:
    from torch import Tensor

#: What the studio writes into the header of its own files.
FORMAT = "score-studio"
_LARGEST_HEADER = 16 * 2**20


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


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises CheckpointError if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} is damaged: {error}.", "Get the file again.") from error


def read_pickle(path: Path) -> Any:
    """What a file of torch.save holds: tensors in tables and lists, no code.

    Raises CheckpointError if it is damaged, would unpack to more than it weighs, or holds anything
    that would have to be executed.
    """
    import pickle

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(e.file_size for e in archive.infolist()) > path.stat().st_size:
                    raise CheckpointError(
                        f"{path.name} unpacks to more than it weighs: not opened."
                    )
        return torch.load(path, map_location="cpu", weights_only=True, mmap=None)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no model file at {path}.") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} holds more than tensors, which could run code: not opened.",
            "Save its weights as safetensors, or as a plain state dict, and open that.",
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path.name} is damaged: {error}.", "Get the file again.") from error


def write_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file with our format mark, written atomically."""
    from safetensors.torch import save_file

    tensors = {k: v.detach().contiguous().cpu() for k, v in state.items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"format": FORMAT, **metadata})
