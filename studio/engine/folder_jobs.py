"""Looking through a folder of pictures: its scan, thumbnails, and how its pictures will be varied."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from studio.engine.events import Done, Event, Progress
from studio.training import data, folder
from studio.training.choices import Choices
from studio.training.folder import File

if TYPE_CHECKING:
    from studio.engine.engine import Context


@dataclass(frozen=True)
class Found(Event):
    """Files that the scan has come to, in the order of their paths."""

    files: tuple[File, ...]


@dataclass(frozen=True)
class Thumb(Event):
    """A picture of the folder, whole, uint8 (h, w, 3); empty if it can no longer be read."""

    path: str
    pixels: np.ndarray


@dataclass(frozen=True)
class Summary:
    """What a scan found: how many of each result, of each flag, of twins; bytes; seconds."""

    images: int = 0
    errors: int = 0
    ignored: int = 0
    twins: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0

    @staticmethod
    def of(files: list[File], seconds: float = 0.0) -> Summary:
        results = Counter(f.result for f in files)
        return Summary(
            results["image"],
            results["error"],
            results["ignore"],
            sum(bool(f.twin) for f in files),
            dict(Counter(flag for f in files for flag in f.flags)),
            sum(f.stamp[1] for f in files if f.result == "image"),
            seconds,
        )


@dataclass(frozen=True)
class ScanFolder:
    """Find out what is in a folder, for pictures of `size` pixels: Found, Progress, Done(Summary)."""

    lane: ClassVar[str] = "io"
    folder: str
    size: int

    def run(self, context: Context) -> Generator[Event, Any, None]:
        begun, files = time.monotonic(), []
        for done, total, new in folder.scan(Path(self.folder), self.size):
            files += new
            if new:
                yield Found(tuple(new))
            yield Progress(done, total, seconds=time.monotonic() - begun)
        yield Done(Summary.of(files, time.monotonic() - begun))


@dataclass(frozen=True)
class Thumbnails:
    """The pictures of a folder, each fitted into side × side: a Thumb each, in order."""

    lane: ClassVar[str] = "io"
    folder: str
    files: tuple[File, ...]
    side: int

    def run(self, context: Context) -> Generator[Event, Any, None]:
        for file in self.files:
            yield Thumb(file.path, folder.thumbnail(Path(self.folder), file, self.side))


@dataclass(frozen=True)
class AugmentPreview:
    """What a model will see of one picture: Done(uint8 (count, size, size, 3))."""

    lane: ClassVar[str] = "io"
    folder: str
    file: File
    size: int
    choices: Choices
    count: int = 8
    seed: int = 0

    def run(self, context: Context) -> Generator[Event, Any, None]:
        one = data.read_one(Path(self.folder), self.file.path, self.size, self.choices)
        rng = np.random.default_rng(self.seed)
        yield Done(one.draw(np.zeros(self.count, np.int64), rng))
