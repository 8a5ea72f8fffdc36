"""Arrays in a zip, each a `.npy`, beside a description in JSON that says which there are.

What is read is untrusted: kinds, shapes and sizes are those that were described and looked at before, and
nothing is ever unpickled.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from typing import Any

import numpy as np

_KINDS = ("|b1", "|u1", "<i8", "<f2", "<f4", "<f8")
#: What a damaged file may raise while it is read.
BROKEN = (OSError, ValueError, LookupError, TypeError, EOFError, ArithmeticError, RecursionError)
BROKEN += (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, AttributeError)


def write(file: zipfile.ZipFile, name: str, array: np.ndarray, method: int) -> None:
    """Add an array, packed by a method of zipfile's."""
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type, info._compresslevel = method, 1  # type: ignore[attr-defined]
    with file.open(info, "w", force_zip64=True) as out:
        np.lib.format.write_array(out, array, (1, 0), allow_pickle=False)


def about(array: np.ndarray) -> list[Any]:
    """What the description says of an array: its kind and shape."""
    return [array.dtype.str, list(array.shape)]


def size(kind: str, shape: list[int]) -> int:
    """Bytes of an array so described. Raises ValueError if there can be none."""
    if kind not in _KINDS or not all(isinstance(v, int) and v >= 0 for v in shape):
        raise ValueError("an array of an unknown kind")
    return math.prod(shape) * np.dtype(kind).itemsize


def read(file: zipfile.ZipFile, name: str, kind: str, shape: list[int]) -> np.ndarray:
    """An array, which must be as it was described; else what BROKEN names is raised."""
    bytes = size(kind, shape)
    with file.open(f"{name}.npy") as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError("an array of another version")
        found, fortran, dtype = np.lib.format.read_array_header_1_0(member, max_header_size=1000)
        if fortran or list(found) != shape or dtype.str != kind:
            raise ValueError("an array is not as described")
        data = member.read(bytes)
        if len(data) != bytes or member.read(1):
            raise ValueError("an array is cut short or too long")
    return np.frombuffer(data, dtype).reshape(shape)


def refuse(constant: str) -> None:
    """For JSON, in which NaN and infinity are no numbers."""
    raise ValueError(f"{constant} is no number")
