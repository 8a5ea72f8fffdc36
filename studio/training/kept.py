"""What a long measurement keeps, so that it goes on where it was stopped: made pictures, and bits.

A file says what its content depends on, and is taken for nothing else. Picture i depends on the seed + i
alone, so a measurement of more pictures goes on from that of fewer.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio import spec
from studio.diffusion import pictures
from studio.diffusion.sampler import Sampler
from studio.diffusion.score import Score
from studio.paths import atomic
from studio.training import evaluation
from studio.training.data import Pictures
from studio.training.distances import Figure

Report = Callable[[int, int], None]
Facts = dict[str, Any]

_SECONDS_BETWEEN_SAVES = 60.0
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Made:
    """uint8 pictures (N, H, W, C), the class index asked of each (-1: none), the network calls of a run
    and the seconds of all."""

    pixels: np.ndarray
    labels: np.ndarray
    calls: int = 0
    seconds: float = 0.0

    def __len__(self) -> int:
        return len(self.pixels)

    def first(self, count: int) -> Made:
        share = min(1.0, count / max(1, len(self)))
        return Made(self.pixels[:count], self.labels[:count], self.calls, self.seconds * share)

    def save(self, path: Path, facts: Facts) -> None:
        """Write them with what they depend on. Raises SaveError if that fails."""
        told = json.dumps({"facts": facts, "calls": self.calls, "seconds": self.seconds})
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, pixels=self.pixels, labels=self.labels, told=np.array(told))


def read(path: Path, facts: Facts, shape: tuple[int, int, int]) -> Made | None:
    """What was saved under these facts, of pictures (C, H, W); None if there is nothing, or it is
    something else or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            told = json.loads(str(found["told"]))
            pixels, labels = found["pixels"], found["labels"].astype(np.int64)
        c, h, w = shape
        sound = pixels.dtype == np.uint8 and pixels.shape == (len(labels), h, w, c)
        if told["facts"] != facts or not sound or not len(pixels):
            return None
        return Made(pixels, labels, int(told["calls"]), float(told["seconds"]))
    except _UNREADABLE:
        return None


def draw(
    score: Score,
    sampler: Sampler,
    count: int,
    seed: int,
    batch: int = 32,
    path: Path | None = None,
    model: str = "",
    report: Report = lambda *_: None,
) -> Made:
    """`count` pictures of `score`, whose weights `model` tells from others. Those at `path` are not
    made again, and what was made is there, also if this is interrupted."""
    facts = {"model": model, "sampler": spec.to_dict(sampler), "seed": seed}
    drawing = _Drawing(score, read(path, facts, score.shape) if path else None)
    if len(drawing.made) >= count:
        return drawing.made.first(count)
    with _saved_now_and_then(lambda: path and drawing.made.save(path, facts)) as tick:
        done = len(drawing.made)
        for last, asked in evaluation.runs(score, sampler, count - done, seed + done, batch):
            drawing.add(pictures.to_pictures(last.x, score.value_range), asked, last.nfe)
            report(len(drawing.made), count)
            tick()
    return drawing.made


class _Drawing:
    """Pictures as they come."""

    def __init__(self, score: Score, before: Made | None) -> None:
        c, h, w = score.shape
        self.made = before or Made(np.empty((0, h, w, c), np.uint8), np.empty(0, np.int64))
        self._before, self._begun = self.made.seconds, time.perf_counter()

    def add(self, pixels: np.ndarray, labels: np.ndarray, calls: int) -> None:
        self.made = Made(
            np.concatenate([self.made.pixels, pixels]),
            np.concatenate([self.made.labels, labels]),
            max(self.made.calls, calls),
            self._before + time.perf_counter() - self._begun,
        )


def bits(
    score: Score,
    real: Pictures,
    batch: int = 8,
    seed: int = 0,
    path: Path | None = None,
    facts: Facts | None = None,
    report: Report = lambda *_: None,
) -> Figure:
    """Bits per dimension of real pictures: their mean, and its standard error by their spread. Those at
    `path` under `facts`, which tell model and pictures from others, are not measured again.

    Raises SpecError if the model has no likelihood.
    """
    facts = {"measure": spec.to_dict(evaluation.BITS), "seed": seed} | (facts or {})
    found = _read_bits(path, facts)[: len(real)] if path else []
    with _saved_now_and_then(lambda: path and _write_bits(path, facts, found)) as tick:
        while (done := len(found)) < len(real):
            some = evaluation.taken(real, slice(done, done + batch))
            found += evaluation.bits(score, some, seed + done)
            report(len(found), len(real))
            tick()
    error = float(np.std(found, ddof=1)) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return Figure(float(np.mean(found)), error)


def _read_bits(path: Path, facts: Facts) -> list[float]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return [float(v) for v in kept["bits"]] if kept["facts"] == facts else []
    except _UNREADABLE:
        return []


def _write_bits(path: Path, facts: Facts, found: list[float]) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({"facts": facts, "bits": found}), encoding="utf-8")


@contextlib.contextmanager
def _saved_now_and_then(save: Callable[[], Any]) -> Iterator[Callable[[], None]]:
    """What saves when a minute has gone since the last time, and at the end whatever that is."""
    last, unsaved = time.monotonic(), False

    def tick() -> None:
        nonlocal last, unsaved
        unsaved = True
        if time.monotonic() - last > _SECONDS_BETWEEN_SAVES:
            save()
            last, unsaved = time.monotonic(), False

    try:
        yield tick
    finally:
        if unsaved:
            save()
