"""Files of tensors, read as if their makers meant harm, and written atomically.

A header may claim anything and a pickle may contain anything: sizes are checked before memory is
asked for, only plain tensors are unpickled (`weights_only`), and nothing in a file is executed.
"""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import CheckpointError
from studio.lazy import torch
from studio.paths import atomic

if TYPE_CHECKING:
    from torch import Tensor, nn

#: What the studio writes into the header of its own files.
FORMAT = "score-studio"
_LARGEST_HEADER = 16 * 2**20


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, untrusted. Raises CheckpointError if there is none."""
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            if total < 8:
                raise ValueError("it is too short")
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
    """All tensors of a safetensors file, in memory of their own, one read each.

    Not mapped, as the library does it: a network that lays its weights out anew would hold them
    twice, and a file in use could not be replaced. Raises CheckpointError if the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as checked:  # shapes, types and places all agree
            names = list(checked.keys())
        with path.open("rb", buffering=0) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            return {name: _read_tensor(file, 8 + length, header[name]) for name in names}
    except (SafetensorError, OSError, ValueError, LookupError, RuntimeError) as error:
        raise _damaged(path, error) from error


def fill(net: nn.Module, path: Path) -> None:
    """Give a network, built without memory, the tensors of a file.

    Raises CheckpointError if they are not those that it has, or not finite.
    """
    found = read_safetensors(path)
    if {k: v.shape for k, v in net.state_dict().items()} != {k: v.shape for k, v in found.items()}:
        raise CheckpointError(f"{path.name} does not fit its own description.")
    if not all(bool(torch.isfinite(v).all()) for v in found.values()):
        raise CheckpointError(f"{path.name} holds weights that are not finite numbers.")
    net.load_state_dict(found, assign=True)


def _read_tensor(file: io.FileIO, base: int, entry: dict[str, Any]) -> Tensor:
    """The tensor that an entry of a header, found sound by the library, describes."""
    begin, end = entry["data_offsets"]
    raw = torch.empty(end - begin, dtype=torch.uint8)
    view, at = raw.numpy().data, 0
    file.seek(base + begin)
    while at < len(view):
        got = file.readinto(view[at:])
        if not got:
            raise ValueError("it ends before its last tensor")
        at += got
    return raw.view(_dtype(entry["dtype"])).reshape(entry["shape"])


def _dtypes() -> dict[str, torch.dtype]:
    """The kinds of numbers that we read and write, by a safetensors file's names."""
    return {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }


def _dtype(name: str) -> torch.dtype:
    """The dtype of a safetensors file's name for it. Raises LookupError if it is none of ours."""
    if (found := _dtypes().get(name)) is None:
        raise LookupError(f"it holds numbers of the kind {name}")
    return found


def _name_of(dtype: torch.dtype) -> str:
    return next(name for name, kind in _dtypes().items() if kind == dtype)


def within(folder: Path, name: str) -> Path:
    """The file `name` in `folder`, where a description of the folder names it.

    Raises CheckpointError if that, or what it links to, is anywhere else.
    """
    root, file = folder.resolve(), (folder / name).resolve()
    allowed = [root]
    if root.parent.name == "snapshots" or root.parent.parent.name == "snapshots":
        # The hub's cache keeps a model's files in a folder of their own and links to them.
        cache = root.parents[1] if root.parent.name == "snapshots" else root.parents[2]
        allowed.append(cache / "blobs")
    if Path(name).name != name or not any(file.is_relative_to(a) for a in allowed):
        raise CheckpointError(
            f"“{folder.name}” names a file outside of it ({name:.80}): not opened.",
            "Get the model again from a place you trust.",
        )
    return folder / name


def read_sharded(index: Path) -> dict[str, Tensor]:
    """All tensors of the files that an index names, which lie beside it.

    Raises CheckpointError if one is damaged or elsewhere, or a tensor is not where the index has it.
    """
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(places.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index.name} is damaged.", "Get the file again.") from error
    found: dict[str, Tensor] = {}
    for name in names:
        file = within(index.parent, str(name))
        found |= read_safetensors(file) if file.suffix == ".safetensors" else read_pickle(file)
    if found.keys() != places.keys():
        odd = sorted(found.keys() ^ places.keys())
        raise CheckpointError(
            f"{index.name} and its files disagree on {len(odd)} tensors, for example {odd[0]:.80}.",
            "Get the model again.",
        )
    return found


def read_pickle(path: Path, mapped: bool = True) -> Any:
    """What a file of torch.save holds: tensors in tables and lists, no code.

    `mapped`: tensors cost memory when they are used only, for files that hold more than the weights
    wanted; where the file allows it. Raises
    CheckpointError if the file is damaged, would unpack to more than it weighs, or holds anything
    that would have to be executed.
    """
    import pickle

    try:
        weight, zipped = path.stat().st_size, zipfile.is_zipfile(path)
        if zipped:
            _check_archive(path, weight)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old protocols; what it cannot read, it refuses
            tree = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped and mapped)
        _check_tree(tree, weight)
        return tree
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no model file at {path}.") from error
    except pickle.UnpicklingError as error:
        if "nsupported" in str(error) or "not an allowed" in str(error):
            raise CheckpointError(
                f"{path.name} holds more than tensors, which could run code: not opened.",
                "Save its weights as safetensors, or as a plain state dict, and open that.",
            ) from error
        raise _damaged(path, error) from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


#: What torch.load raises over files that are cut, scrambled or made up: nearly anything, it turns out.
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, EOFError)
_DAMAGE += (ArithmeticError, AssertionError, RecursionError, MemoryError, struct.error)
_DAMAGE += (zipfile.BadZipFile, NotImplementedError)


def _damaged(path: Path, error: BaseException) -> CheckpointError:
    reason = str(error).partition("\n")[0].rstrip(".")[:120] or type(error).__name__
    return CheckpointError(f"{path.name} is damaged: {reason}.", "Get the file again.")


def _check_archive(path: Path, weight: int) -> None:
    """Raise CheckpointError over a zip that is larger inside than outside: torch packs nothing."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > weight:
            raise CheckpointError(f"{path.name} unpacks to more than it weighs: not opened.")


def _check_tree(tree: Any, weight: int) -> None:
    """Raise CheckpointError unless every tensor is dense and no larger than its file.

    A tensor may claim any shape over a single number by strides of zero, and each use would fill
    the memory. Iterative, because tables may be nested to any depth.
    """
    pending, seen = [tree], set()
    while pending:
        value = pending.pop()
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.numel() * value.element_size() > weight:
                raise CheckpointError("It holds a tensor that is larger than the file: not opened.")
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            pending.extend(value.values() if isinstance(value, dict) else value)


def write_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file with our format mark, written atomically, one tensor after the other: not
    gathered, as the library does it, which would hold all of them twice. It is on the disk when this
    returns, also if the power fails then. Raises SaveError if it cannot be written.
    """
    # Wide numbers first, so that every tensor lies where its numbers may.
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, **metadata}}
    at = 0
    for name in names:
        value = state[name]
        size = value.numel() * value.element_size()
        header[name] = {
            "dtype": _name_of(value.dtype),
            "shape": list(value.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with atomic(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for name in names:
            value = state[name].detach().contiguous().cpu()
            if value.numel():
                file.write(value.reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
