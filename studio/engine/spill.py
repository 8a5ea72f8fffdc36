"""Arrays kept in memory up to a budget, and beyond it in a temporary file.

The file has no name, or is removed by the system when its process ends, so nothing of it is left
behind, not even by a crash. Arrays are put by one thread and may be read by others.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio.paths import user_dir

MEMORY, DISK = 128 * 2**20, 2**30
#: What all of them may take together, for a grid or a history keeps many.
MEMORY_IN_ALL, DISK_IN_ALL = 512 * 2**20, 4 * 2**30

_all: weakref.WeakSet[Spill] = weakref.WeakSet()
_counting = threading.Lock()


@dataclass(frozen=True, eq=False)
class Item:
    """An array that is kept: `load` gives it, from memory or from the file."""

    load: Callable[[], np.ndarray]
    bytes: int
    shape: tuple[int, ...]
    on_disk: bool = False


def held(array: np.ndarray) -> Item:
    """An array in memory."""
    return Item(lambda: array, array.nbytes, array.shape)


class Spill:
    """Keeps arrays: `memory` bytes of them in memory, `disk` bytes in a file in `folder`.

    `bytes` and `spilled` are what is kept in each; `trouble` says, once something went wrong with
    the disk, what it was.
    """

    def __init__(self, memory: int = MEMORY, disk: int = DISK, folder: Path | None = None) -> None:
        self.memory, self.disk = memory, disk
        self.bytes = self.spilled = 0
        self.trouble = ""
        self._folder = user_dir() / "spill" if folder is None else folder
        self._lock = threading.Lock()
        self._file = None
        with _counting:
            _all.add(self)

    def put(self, array: np.ndarray, must: bool = False, spare: int = 0) -> Item | None:
        """Keep an array; None if there is no room. With `must`, in memory even so; with `spare`, so
        many bytes of memory are left to others."""
        array = np.asarray(array, order="C")
        memory, disk = in_all()
        size, fits = array.nbytes, self.bytes + array.nbytes <= self.memory - spare
        if fits and memory + size <= MEMORY_IN_ALL:
            return self._in_memory(array)
        fits = self.spilled + size <= self.disk and disk + size <= DISK_IN_ALL
        if fits and (item := self._on_disk(array)):
            return item
        return self._in_memory(array) if must else None

    def drop(self, item: Item) -> None:
        """Count an item no longer. Space in the file is not used again: a reader may be at it."""
        if not item.on_disk:
            self.bytes -= item.bytes

    def close(self) -> None:
        """Give the file back. What lies in it cannot be read any more."""
        with self._lock:
            if self._file is not None:
                self._file.close()
        self.bytes = self.spilled = 0

    def _in_memory(self, array: np.ndarray) -> Item:
        self.bytes += array.nbytes
        return held(array)

    def _on_disk(self, array: np.ndarray) -> Item | None:
        if self.trouble:
            return None
        try:
            with self._lock:
                place = self.spilled
                file, flat, done = self._opened(), array.reshape(-1).view(np.uint8), 0
                file.seek(place)
                while done < len(flat):
                    done += file.write(flat[done:].data) or 0
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return None
        self.spilled += array.nbytes
        shape, dtype, size = array.shape, array.dtype, array.nbytes
        return Item(lambda: self._read(place, size).view(dtype).reshape(shape), size, shape, True)

    def _opened(self):
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Unbuffered, so that a full disk is known at the write that does not fit.
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        return self._file

    def _read(self, place: int, size: int) -> np.ndarray:
        out = np.empty(size, np.uint8)
        with self._lock:
            if self._file is None or self._file.closed:
                raise ValueError("these arrays have been given back")
            self._file.seek(place)
            view, got = out.data, 0
            while got < size:
                count = self._file.readinto(view[got:])
                if not count:
                    raise OSError("the temporary file of this run was cut short")
                got += count
        return out


def in_all() -> tuple[int, int]:
    """What all of them keep in memory and on disk."""
    with _counting:
        return sum(s.bytes for s in _all), sum(s.spilled for s in _all)
