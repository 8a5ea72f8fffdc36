"""What was read from folders of pictures, kept for the next time: what a scan found, and pixels.

All of it lies below the studio's folder and may be deleted at any time. It is bounded: what was not used
for longest goes first. Lines are read one by one, since parsing a file of 100,000 in one go would hold
up every other thread.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from studio.errors import DataError, SaveError
from studio.paths import atomic, user_dir
from studio.training import readers
from studio.training.choices import Choices, Crop
from studio.training.folder import File, scan
from studio.training.framing import Stock

MOST_BYTES = 10 * 2**30  # of all pixels that are kept
_MOST_OF_ONE = 4 * 2**30  # of the pixels from which one folder's squares are cut
_SPARE = 2**29  # bytes of the disk that stay free
_FORMAT = 1
_MAKING, _A_DAY = "making-", 86_400
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, RecursionError)


def home() -> Path:
    return user_dir() / "cache" / "folders"


# -- what a scan found ----------------------------------------------------------------------------


def scanned(folder: Path, size: int) -> Generator[tuple[int, int, list[File]], None, None]:
    """As `scan`, but what has not changed since the last time is not read again."""
    known: dict[str, File] = {}
    for _, _, parts in readers.read(remembered, [folder], lambda _: {}, 1):
        known = parts[0] if parts else known
        yield 0, 0, []
    found: dict[str, File] = {}
    done = total = 0
    try:
        with contextlib.closing(scan(folder, size, known)) as scanning:
            for done, total, files in scanning:
                found |= {file.path: file for file in files}
                yield done, total, files
    except GeneratorExit:
        # Of a scan that was broken off, what it came to is kept beside what was known before.
        _keep(folder, known, known | found)
        raise
    for _ in readers.asked(lambda: _keep(folder, known, found)):
        yield done, total, []


def _keep(folder: Path, known: dict[str, File], found: dict[str, File]) -> None:
    """Remember a scan unless it found nothing new."""
    if found.keys() != known.keys() or any(known[p].stamp != f.stamp for p, f in found.items()):
        remember(folder, found.values())


def remembered(folder: Path) -> dict[str, File]:
    """What is known of the files of a folder from its last scan, by path."""
    found: dict[str, File] = {}
    try:
        with _index(folder).open(encoding="ascii") as lines:
            for line in lines:
                file = _file(json.loads(line))
                found[file.path] = file
    except (*_UNREADABLE, binascii.Error):
        return {}  # there is none, or it is damaged: the folder is read again
    return found


def remember(folder: Path, files: Iterable[File]) -> None:
    """Keep what a scan found, where there is room for it."""
    # Nothing is lost by a full disk: the next scan takes longer.
    with (
        contextlib.suppress(SaveError),
        atomic(_index(folder)) as temporary,
        temporary.open("w", encoding="ascii") as lines,
    ):
        lines.writelines(f"{json.dumps(_row(file))}\n" for file in files)


def forget(folder: Path) -> None:
    """The next scan of a folder reads every file again."""
    _index(folder).unlink(missing_ok=True)


def _index(folder: Path) -> Path:
    return home() / f"{_digest([_FORMAT, str(folder.absolute())])}.jsonl"


def _row(file: File) -> list[Any]:
    colours = base64.b64encode(file.colours).decode("ascii")
    return [
        *(file.path, file.result, file.reason, *file.size, list(file.flags)),
        *(file.look, *file.stamp, colours),
    ]


def _file(row: list[Any]) -> File:
    path, result, reason, width, height, flags, look, changed, size, colours = row
    values = base64.b64decode(colours, validate=True)
    if result == "image" and (len(values) != 192 or width < 1 or height < 1):
        raise ValueError("no picture is like this")
    return File(
        *(str(path), str(result), str(reason), (int(width), int(height))),
        *(tuple(map(str, flags)), "", int(look), (int(changed), int(size)), values),
    )


# -- pixels ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pixels:
    """The pictures of a folder: one square of each, uint8 (N, S, S, 3), and for framings that cut
    others, what they are cut from. Both lie on the disk and come into memory as they are used."""

    names: tuple[str, ...]
    squares: np.ndarray
    stock: Stock | None


def most_of_one() -> int:
    """How many bytes may be kept of one folder to cut its squares from."""
    place = user_dir()
    while not place.exists():
        place = place.parent
    return max(0, min(_MOST_OF_ONE, shutil.disk_usage(place).free // 2))


def key(
    folder: Path, files: Sequence[File], size: int, choices: Choices, crops: dict[str, Crop]
) -> str:
    """The name for what is made of these files: the same as long as nothing has changed."""
    boxes = {path: [c.left, c.top, c.side] for path, c in crops.items()}
    rows = [[f.path, *f.stamp, boxes.get(f.path)] for f in files]
    facts = [_FORMAT, str(folder.absolute()), size, choices.framing, choices.background]
    return _digest([*facts, rows])


def opened(name: str, size: int) -> Pixels | None:
    """What is kept under a key, or None."""
    folder = home() / name
    try:
        with (folder / "names.jsonl").open(encoding="ascii") as lines:
            names = tuple(str(json.loads(line)) for line in lines)
        shape = len(names), size, size, 3
        if (folder / "squares.bin").stat().st_size != math.prod(shape):
            return None
        # Open to writing, though nobody writes: what is not, torch takes with a warning only.
        squares = np.memmap(folder / "squares.bin", np.uint8, "r+", shape=shape)
        stock = _stock(folder, len(names)) if (folder / "places.npy").exists() else None
        with contextlib.suppress(OSError):
            os.utime(folder)  # so that it is not the first to go
    except _UNREADABLE:
        return None
    return Pixels(names, squares.view(np.ndarray), stock)


def _stock(folder: Path, count: int) -> Stock:
    """Raises ValueError or OSError if the files do not belong together."""
    values = np.memmap(folder / "stock.bin", np.uint8, "r").view(np.ndarray)
    places = np.load(folder / "places.npy", allow_pickle=False).astype(np.int64)
    if places.shape != (count, 3) or places.min() < 0:
        raise ValueError("its places are no table of the pictures")
    if (places[:, 0] + places[:, 1] * places[:, 2] * 3).max() > len(values):
        raise ValueError("it is too short")
    return Stock(values, places)


@dataclass
class Writer:
    """Takes the pixels of one picture after the other."""

    squares: BinaryIO
    stock: BinaryIO
    names: list[str] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, name: str, square: np.ndarray, picture: np.ndarray | None) -> None:
        self.names.append(name)
        self.squares.write(np.ascontiguousarray(square).data)
        if picture is not None:
            self.places.append((self.stock.tell(), *picture.shape[:2]))
            self.stock.write(np.ascontiguousarray(picture).data)


@contextlib.contextmanager
def writing(name: str, size: int, wanted: int) -> Iterator[Writer]:
    """Room for the pixels that will be kept under a key, about `wanted` bytes; they are if the block
    succeeds, else there is nothing. Raises DataError if the disk has no room.
    """
    temporary: Path | None = None
    try:
        _make_room(wanted, name)
        temporary = Path(tempfile.mkdtemp(prefix=_MAKING, dir=home()))
        with (temporary / "squares.bin").open("wb") as a, (temporary / "stock.bin").open("wb") as b:
            writer = Writer(a, b)
            yield writer
        _finish(temporary, writer)
        # Another process may have made the same meanwhile, and be using it.
        there = opened(name, size)
        if there is None or len(there.names) < len(writer.names):
            shutil.rmtree(home() / name, ignore_errors=True)
            temporary.rename(home() / name)
    except OSError as error:
        raise _no_room(error.strerror or str(error)) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _finish(folder: Path, writer: Writer) -> None:
    with (folder / "names.jsonl").open("w", encoding="ascii") as lines:
        lines.writelines(f"{json.dumps(name)}\n" for name in writer.names)
    if writer.places:
        np.save(folder / "places.npy", np.array(writer.places, np.int64))
    else:
        (folder / "stock.bin").unlink()


def _make_room(wanted: int, keep: str) -> None:
    """Forget what was not used for longest. Raises DataError if that is not enough, or OSError."""
    home().mkdir(parents=True, exist_ok=True)
    kept = sorted((p for p in home().iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    sizes = {place: sum(f.stat().st_size for f in place.iterdir()) for place in kept}
    left = sum(sizes.values())
    for place in kept:
        if left + wanted <= MOST_BYTES and shutil.disk_usage(home()).free > wanted + _SPARE:
            break
        new = time.time() - place.stat().st_mtime < _A_DAY
        if place.name != keep and not (new and place.name.startswith(_MAKING)):
            shutil.rmtree(place, ignore_errors=True)
            left -= sizes[place]
    free = shutil.disk_usage(home()).free
    if free < wanted + _SPARE:
        raise _no_room(f"{wanted / 2**30:.1f} GB are needed, {free / 2**30:.1f} GB are free")


def _no_room(why: str) -> DataError:
    return DataError(
        f"The pictures cannot be kept ready in {home()}: {why}.",
        "Free some space there, or open it to writing.",
    )


def _digest(facts: Any) -> str:
    return hashlib.blake2b(json.dumps(facts).encode("ascii"), digest_size=12).hexdigest()
