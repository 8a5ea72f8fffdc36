"""Sheets of a training: what the model makes of the same noise at different steps, kept beside it.

A sheet is two PNGs in `samples`, the samples and the picture learned from that is nearest to each, and
an entry in `samples/index.json`. They can be looked at with any program; small ones are enlarged.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studio import recipes
from studio.diffusion import pictures
from studio.engine.events import Event
from studio.paths import atomic
from studio.training.runs import SAMPLES

INDEX = "index.json"
_GAP = 2
_MOST = 64  # pictures on a sheet that is read


@dataclass(frozen=True)
class Sheet(Event):
    """Samples from fixed seeds at a step, uint8 (N, H, W, C); of each the `nearest` picture learned from
    and its `distance` (N,), root mean square in grey levels. `memorised` is 0 where samples are as far
    from the pictures as held-out ones are, 1 where they are copies; nan where nothing was held out."""

    step: int
    pictures: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray
    memorised: float


def file_of(step: int) -> str:
    """The name of the samples of a step."""
    return f"step-{step:06}.png"


def keep(folder: Path, sheet: Sheet) -> Path:
    """Write a sheet of the run in `folder`. Raises SaveError if it cannot be written."""
    place = folder / SAMPLES
    recipes.write_png(place / file_of(sheet.step), recipes.contact_sheet(sheet.pictures))
    recipes.write_png(place / _nearest(sheet.step), recipes.contact_sheet(sheet.nearest))
    rows = [row for row in _rows(folder) if row["step"] < sheet.step]
    n, h, w, c = sheet.pictures.shape
    rows.append(
        {
            "step": sheet.step,
            "shape": [n, h, w, c],
            "nearest": list(sheet.nearest.shape),
            "distance": [round(float(d), 3) for d in sheet.distance],
            "memorised": None if math.isnan(sheet.memorised) else round(sheet.memorised, 4),
        }
    )
    with atomic(place / INDEX) as temporary:
        temporary.write_text(json.dumps(rows), encoding="utf-8")
    return place / file_of(sheet.step)


def sheets(folder: Path) -> list[Sheet]:
    """The sheets that were drawn of the run in `folder`, by step. Those that are damaged are left out."""
    return [sheet for row in _rows(folder) if (sheet := _read(folder, row)) is not None]


def last_sheet(folder: Path) -> Sheet | None:
    """The last of the sheets of a run; None if there is none."""
    found = (_read(folder, row) for row in reversed(_rows(folder)))
    return next((sheet for sheet in found if sheet is not None), None)


def _read(folder: Path, row: dict[str, Any]) -> Sheet | None:
    try:
        return _sheet(folder / SAMPLES, row)
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, SyntaxError):
        return None
    except Image.DecompressionBombError:
        return None


def _sheet(place: Path, row: dict[str, Any]) -> Sheet:
    step, memorised = int(row["step"]), row["memorised"]
    made = _cut(place / file_of(step), row["shape"])
    nearest = _cut(place / _nearest(step), row["nearest"])
    distance = np.array(row["distance"], np.float32)
    if len(made) != len(nearest) or len(made) != len(distance):
        raise ValueError("its parts do not belong together")
    return Sheet(step, made, nearest, distance, math.nan if memorised is None else float(memorised))


def _nearest(step: int) -> str:
    return f"nearest-{step:06}.png"


def _rows(folder: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads((folder / SAMPLES / INDEX).read_text(encoding="utf-8"))
        return sorted((r for r in rows if isinstance(r["step"], int)), key=lambda r: r["step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _cut(path: Path, shape: list[int]) -> np.ndarray:
    """The pictures (N, H, W, C) that a contact sheet was made of."""
    n, h, w, c = (int(v) for v in shape)
    if not (1 <= n <= _MOST and 1 <= h <= 4096 and 1 <= w <= 4096 and c in (1, 3)):
        raise ValueError("its sizes are impossible")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L" if c == 1 else "RGB"))
    pixels = pixels.reshape(*pixels.shape[:2], c)
    across = pictures.columns(n)
    wide = across * (w + _GAP) - _GAP
    factor = pixels.shape[1] // wide
    pixels = pixels[::factor, ::factor]
    places = [divmod(i, across) for i in range(n)]
    tops = [(row * (h + _GAP), column * (w + _GAP)) for row, column in places]
    return np.stack([pixels[y : y + h, x : x + w] for y, x in tops])
