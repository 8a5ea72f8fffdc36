"""What is in a folder of pictures, as a person would sort it: pictures, broken ones, other things.

A scan looks at every file once, reading no more of it than it must, and is drawn from as a generator:
to abort it is to close it. What it found last time need not be read again where nothing changed.
Paths are relative to the folder, with forward slashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from studio.errors import DataError, PictureError
from studio.photos import SUFFIXES, read_rgb


@dataclass(frozen=True)
class File:
    """One file of a folder, as the scan found it."""

    path: str
    result: str  # "image", "error" (a picture that cannot be read) or "ignore" (no picture)
    reason: str = ""  # why it is an error or ignored
    size: tuple[int, int] = (0, 0)  # upright (width, height)
    flags: tuple[str, ...] = ()  # of images: small, extreme, grey, transparent, animated, converted
    twin: str = ""  # the earlier picture that this one nearly equals; the first of a group has none
    look: int = 0  # perceptual hash, 64 bit
    stamp: tuple[int, int] = (0, 0)  # (mtime in ns, bytes)


def scan(
    folder: Path, size: int, known: Mapping[str, File] = {}
) -> Iterator[tuple[int, int, list[File]]]:
    """(done, total, new files) again and again until all is seen; total grows while it lists.

    `size` is the side of the model's pictures. Raises DataError if the folder cannot be opened.
    """
    if not folder.is_dir():
        raise DataError(f"There is no folder at {folder}.")
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    for done, path in enumerate(paths):
        yield done + 1, len(paths), [_seen(folder, path, size)]


def _seen(folder: Path, path: Path, size: int) -> File:
    place = path.relative_to(folder)
    name, stat = place.as_posix(), path.stat()
    stamp = stat.st_mtime_ns, stat.st_size
    if any(part.startswith(".") for part in place.parts):
        return File(name, "ignore", "hidden", stamp=stamp)
    if path.suffix.lower() not in SUFFIXES:
        return File(name, "ignore", "not a picture", stamp=stamp)
    try:
        image = read_rgb(path)
    except PictureError as error:
        return File(name, "error", error.message, stamp=stamp)
    flags = ("small",) if min(image.size) < size else ()
    return File(name, "image", size=image.size, flags=flags, stamp=stamp)


def thumbnail(folder: Path, file: File, side: int) -> np.ndarray:
    """The whole picture fitted into side × side, uint8 (h, w, 3). Raises PictureError."""
    image = read_rgb(folder / file.path, side)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.array(image)
