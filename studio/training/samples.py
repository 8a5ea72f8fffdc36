"""Pictures that a model made, kept with what they depend on, so that none is taken for another."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio.paths import atomic

_UNREADABLE = (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Made:
    """uint8 pictures (N, H, W, C), the class index asked of each (-1: none), the network calls of a run
    and the seconds of all."""

    pixels: np.ndarray
    labels: np.ndarray
    calls: int
    seconds: float

    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Write them with the facts that they depend on. Raises SaveError if that fails."""
        told = json.dumps({"facts": facts, "calls": self.calls, "seconds": self.seconds})
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, pixels=self.pixels, labels=self.labels, told=np.array(told))


def load(path: Path, facts: dict[str, Any]) -> Made | None:
    """What was saved under these facts; None if it is something else, or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            told = json.loads(str(kept["told"]))
            pixels, labels = kept["pixels"], kept["labels"]
        if told["facts"] != facts or pixels.dtype != np.uint8 or pixels.ndim != 4:
            return None
        if labels.shape != (len(pixels),):
            return None
        return Made(pixels, labels.astype(np.int64), int(told["calls"]), float(told["seconds"]))
    except _UNREADABLE:
        return None
