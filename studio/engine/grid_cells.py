"""Finished cells of grids, kept on disk by what they are of: a grid finds its own again, in whatever
order it is laid out, and other grids find those that they share. Those used least lately make room.

In the folder: `<hash>.png`, the pictures of a cell one below the other, with the recipe, the cost, and
when the model's files were last written.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from studio import recipes, spec
from studio.engine.jobs import SampleJob
from studio.errors import PictureError, SaveError
from studio.paths import user_dir

#: Bytes that cells may take, unless told otherwise.
BOUND = 500 * 10**6


@dataclass(frozen=True)
class Made:
    """A finished cell: uint8 pictures (N, H, W, C), and what they cost."""

    pictures: np.ndarray
    calls: int
    seconds: float


@dataclass(frozen=True)
class Used:
    """How many cells are kept, and how many bytes they take and may take."""

    cells: int
    bytes: int
    bound: int


class Cells:
    """The cells in a folder, the studio's own if None."""

    def __init__(self, folder: Path | None = None, bound: int = BOUND) -> None:
        self.folder, self.bound = folder or user_dir() / "grids", bound
        self._mine: set[Path] = set()  # made or found by this one: they stay as long as it does

    def path(self, job: SampleJob) -> Path:
        """Where the cell of a job lies, or would."""
        text = json.dumps(spec.to_dict(job), sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.png"

    def find(self, job: SampleJob, stamp: float) -> Made | None:
        """A cell that was made before, of a model whose files were last written at `stamp`; None if it is
        not there or not as it should be."""
        path = self.path(job)
        try:
            told = recipes.read_recipe(path) or {}
            cost, of = told.pop("cost"), told.pop("model_changed")
            if of != stamp or told != json.loads(json.dumps(spec.to_dict(job))):
                return None
            with Image.open(path) as image:
                pixels = np.asarray(image)
            stack = pixels.reshape(job.count, -1, pixels.shape[1], *(pixels.shape[2:] or (1,)))
            made = Made(stack, int(cost["calls"]), float(cost["seconds"]))
            os.utime(path)
        except (PictureError, KeyError, TypeError, ValueError, OSError):
            return None
        self._mine.add(path)
        return made

    def keep(self, job: SampleJob, made: Made, stamp: float) -> None:
        """Keep a cell; others make room for it. Raises SaveError if it cannot be written."""
        path = self.path(job)
        cost = {"calls": made.calls, "seconds": made.seconds}
        told = spec.to_dict(job) | {"cost": cost, "model_changed": stamp}
        recipes.write_png(path, np.concatenate(list(made.pictures), 0), told)
        self._mine.add(path)
        self.make_room()

    def use(self) -> Used:
        """What is kept now."""
        sizes = [size for _, size, _ in self._files()]
        return Used(len(sizes), sum(sizes), self.bound)

    def make_room(self) -> None:
        """Delete those used least lately until all fits into the bound, but none that this one made or
        found. Raises SaveError if they cannot be deleted."""
        files = self._files()
        total = sum(size for _, size, _ in files)
        for path, size, _ in sorted(files, key=lambda file: file[2]):
            if total <= self.bound:
                return
            if path not in self._mine:
                total -= size
                self._delete([path])

    def clear(self) -> None:
        """Delete all cells. Raises SaveError if they cannot be."""
        self._delete(path for path, _, _ in self._files())

    def _delete(self, paths: Iterable[Path]) -> None:
        try:
            for path in paths:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise SaveError(
                f"The cells in {self.folder} could not be deleted: {error.strerror or error}.",
                "See who may write there.",
            ) from error

    def _files(self) -> list[tuple[Path, int, float]]:
        """(path, bytes, when it was used last) of every cell; also of cells in folders of old."""
        found = []
        for path in self.folder.rglob("*.png") if self.folder.is_dir() else ():
            try:
                told = path.stat()
            except OSError:
                continue  # another studio was quicker
            found.append((path, told.st_size, told.st_mtime))
        return found
