"""Looking through a folder of pictures: its scan, thumbnails, and how its pictures will be varied.

Jobs of the I/O lane. Files are read by threads of their own, so each job answers several times a second,
whatever the disk does, and closing it ends it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from studio.engine.events import Done, Event, Note, Progress
from studio.errors import PictureError
from studio.training import cache, data, folder, readers
from studio.training.choices import Choices
from studio.training.folder import File

if TYPE_CHECKING:
    from studio.engine.engine import Context

_QUIET = 3.0  # seconds without a new file, after which it is said


@dataclass(frozen=True)
class Found(Event):
    """Files that the scan has come to, in its order."""

    files: tuple[File, ...]


@dataclass(frozen=True)
class Thumb(Event):
    """A picture of the folder, whole, uint8 (h, w, 3); (0, 0, 3) if it can no longer be read."""

    path: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Summary:
    """What a scan found: how many of each result and flag, of twins; bytes of the pictures; seconds."""

    images: int = 0
    errors: int = 0
    ignored: int = 0
    twins: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0

    @staticmethod
    def of(files: Sequence[File], seconds: float = 0.0) -> Summary:
        results = Counter(f.result for f in files)
        flags = Counter(flag for f in files for flag in f.flags)
        return Summary(
            results["image"],
            results["error"],
            results["ignore"],
            sum(bool(f.twin) for f in files),
            {flag: flags[flag] for flag in folder.FLAGS if flags[flag]},
            sum(f.stamp[1] for f in files if f.result == "image"),
            seconds,
        )


@dataclass(frozen=True)
class ScanFolder:
    """What is in a folder, for a model of `size` pixels: Found, Progress, and a Summary as Done.

    What has not changed since the last scan is not read again. Raises DataError if the folder cannot be
    opened, or is gone meanwhile.
    """

    lane: ClassVar[str] = "io"
    folder: str
    size: int

    def run(self, context: Context) -> Generator[Event, Any, None]:
        begun = heard = time.monotonic()
        files: list[File] = []
        with closing(cache.scanned(Path(self.folder), self.size)) as scan:
            for done, total, new in scan:
                now = time.monotonic()
                if new:
                    files += new
                    yield Found(tuple(new))
                    heard = now
                elif now - heard > _QUIET:
                    yield Note("Waiting for the disk, which does not answer")
                    heard = now
                yield Progress(done, total, seconds=now - begun)
        yield Done(Summary.of(files, time.monotonic() - begun))


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of a folder, each fitted into side × side: a Thumb each, in order, and Progress."""

    lane: ClassVar[str] = "io"
    folder: str
    files: tuple[File, ...]
    side: int
    background: str = "#ffffff"

    def run(self, context: Context) -> Generator[Event, Any, None]:
        place = Path(self.folder)

        def small(file: File) -> Thumb:
            try:
                pixels = folder.thumbnail(place, file, self.side, self.background)
            except PictureError:
                return _missing(file)
            return Thumb(file.path, pixels)

        with closing(readers.read(small, self.files, _missing)) as reading:
            for done, total, thumbs in reading:
                yield from thumbs
                yield Progress(done, total)


@dataclass(frozen=True)
class AugmentPreview:
    """What a model will see of one picture: Done(uint8 (count, size, size, 3)).

    Raises PictureError if it can no longer be read, DataError if it takes too long.
    """

    lane: ClassVar[str] = "io"
    folder: str
    file: File
    size: int
    choices: Choices
    count: int = 8
    seed: int = 0

    def run(self, context: Context) -> Generator[Event, Any, None]:
        place = Path(self.folder)
        asked = readers.asked(lambda: data.read_one(place, self.file.path, self.size, self.choices))
        one = yield from _waiting(asked)
        rng = np.random.default_rng(self.seed)
        yield Done(one.draw(np.zeros(self.count, np.int64), rng))


@dataclass(frozen=True)
class PackPreview:
    """What is in an image pack or a folder of packs: Progress, and data.Pictures as Done, `most` of them
    at most. Raises DataError."""

    lane: ClassVar[str] = "io"
    path: str
    size: int
    most: int = 256

    def run(self, context: Context) -> Generator[Event, Any, None]:
        reading = data.read(Path(self.path), self.size, self.most, seed=0)
        with closing(reading):
            while True:
                try:
                    yield Progress(*next(reading))
                except StopIteration as end:
                    yield Done(end.value)
                    return


def _missing(file: File) -> Thumb:
    return Thumb(file.path, np.zeros((0, 0, 3), np.uint8))


def _waiting(asked: Generator[None, None, data.Pictures]) -> Generator[Event, Any, data.Pictures]:
    while True:
        try:
            next(asked)
        except StopIteration as end:
            return end.value
        yield Progress(0, 1)
