"""Pictures as files: PNGs that carry the recipe that made them, animations, contact sheets.

A recipe is the job of the engine as JSON data, kept in the PNG's text chunk `score-studio` as
`{"version": 1, "job": {...}}`. What is read back is untrusted: whoever uses it builds Specs
from it, which check every field.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.diffusion import pictures
from studio.errors import PictureError, SaveError
from studio.paths import atomic

KEY = "score-studio"
VERSION = 1
ANIMATIONS = (".gif", ".webp")
_LONGEST = 2**20  # characters of a recipe
_LEAST = 256  # pixels of an enlarged picture's shorter side


def write_png(path: Path, pixels: np.ndarray, recipe: dict[str, Any] | None = None) -> None:
    """Write a picture, uint8 (H, W, C), with the job that made it. The file is replaced as a whole.

    Raises SaveError if it cannot be written.
    """
    text = PngInfo()
    if recipe is not None:
        text.add_text(KEY, json.dumps({"version": VERSION, "job": recipe}))
    with atomic(path) as temporary:
        _image(pixels).save(temporary, "PNG", pnginfo=text)


def read_recipe(path: Path) -> dict[str, Any] | None:
    """The job kept in a picture file; None if it carries none.

    Only the head of the file is read. Raises PictureError if it is no picture, or if its recipe is
    damaged or from a newer studio.
    """
    try:
        with Image.open(path) as image:
            text = image.info.get(KEY)
    except FileNotFoundError as error:
        raise PictureError(f"There is no picture at {path}.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"{path.name} is not a picture that can be read.") from error
    return None if text is None else _job(text, path.name)


def _job(text: Any, name: str) -> dict[str, Any]:
    try:
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise ValueError("it is too long")
        recipe = json.loads(text, parse_constant=_refuse)
        version, job = recipe["version"], recipe["job"]
        if not isinstance(version, int) or not isinstance(job, dict):
            raise ValueError("it is no job")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise PictureError(
            f"The recipe in {name} is damaged.", "The picture itself can still be used."
        ) from error
    if version > VERSION:
        raise PictureError(f"The recipe in {name} is from a newer studio.", "Update the studio.")
    return job


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def write_animation(
    path: Path, frames: Sequence[np.ndarray], seconds: float = 4.0, hold: float = 2.0
) -> None:
    """Write pictures, uint8 (H, W, C) of one size, as a GIF or WebP that repeats.

    The frames share `seconds`, and the last is held for `hold` seconds more. Small pictures are
    enlarged without smoothing. Raises SaveError if the suffix is neither, or it cannot be written.
    """
    check_animation(path)
    if not frames:
        raise SaveError(f"There is no frame to put into {path.name}.")
    images = [_image(enlarged(frame)).convert("RGB") for frame in frames]
    # Viewers slow down frames of less than 20 ms.
    each = max(20, round(1000 * seconds / len(images)))
    with atomic(path) as temporary:
        images[0].save(
            temporary,
            path.suffix[1:].upper(),
            save_all=True,
            append_images=images[1:],
            duration=[*[each] * (len(images) - 1), each + round(1000 * hold)],
            loop=0,
            **({"quality": 90} if path.suffix.lower() == ".webp" else {}),
        )


def check_animation(path: Path) -> None:
    """Raise SaveError if `path` is not named as an animation we can write."""
    if path.suffix.lower() not in ANIMATIONS:
        raise SaveError(
            f"{path.name} cannot hold an animation.",
            f"Name it {path.stem}.webp or {path.stem}.gif.",
        )


def check_writable(path: Path) -> None:
    """Raise SaveError, before long work, if no file can be put at `path`. Its folder is made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise SaveError(
            f"{path.name} cannot be saved in {path.parent}: {error.strerror or error}.",
            "Choose another place.",
        ) from error


def enlarged(picture: np.ndarray, least: int = _LEAST) -> np.ndarray:
    """A picture (H, W, C), pixels repeated so that its shorter side is at least `least`."""
    factor = math.ceil(least / min(picture.shape[:2]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else picture


def contact_sheet(stack: np.ndarray, least: int = _LEAST) -> np.ndarray:
    """A stack (N, H, W, C) laid out as one picture (H', W', C), enlarged if it is small."""
    return enlarged(pictures.grid(stack), least)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
