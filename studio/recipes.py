"""Pictures as files: PNGs that carry the recipe that made them, animations, contact sheets.

A recipe is the job of the engine as JSON data, `{"version": 1, "job": {...}}`, kept in the PNG's text
chunk `score-studio`; in the description of a WebP and the comment of a GIF or MP4, after the word
`score-studio`. What is read back is untrusted: whoever uses it builds Specs from it, which check
every field.

Source of the boxes of an MP4: ISO/IEC 14496-12, sections 4.2 and 8.10.
"""

from __future__ import annotations

import json
import math
import struct
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
_LONGEST_HEAD = 2**26  # bytes of a film's head
_DESCRIPTION = 0x010E  # Exif
_LEAST = 256  # pixels of an enlarged picture's shorter side


def write_png(path: Path, pixels: np.ndarray, recipe: dict[str, Any] | None = None) -> None:
    """Write a picture, uint8 (H, W, C), with the job that made it. The file is replaced as a whole.

    Raises SaveError if it cannot be written.
    """
    text = PngInfo()
    if recipe is not None:
        text.add_text(KEY, _packed(recipe))
    with atomic(path) as temporary:
        _image(pixels).save(temporary, "PNG", pnginfo=text)


def read_recipe(path: Path) -> dict[str, Any] | None:
    """The job kept in a picture or film; None if it carries none.

    Only the head of the file is read. Raises PictureError if it is no picture, or if its recipe is
    damaged or from a newer studio.
    """
    try:
        if (text := _film_text(path)) is None:
            with Image.open(path) as image:
                text = image.info.get(KEY) or _noted(image)
    except FileNotFoundError as error:
        raise PictureError(f"There is no picture at {path}.") from error
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise PictureError(f"{path.name} is not a picture that can be read.") from error
    return None if not text else _job(text, path.name)


def note(recipe: dict[str, Any]) -> str:
    """A recipe as the comment of a file that is not a PNG."""
    return f"{KEY} {_packed(recipe)}"


def _packed(recipe: dict[str, Any]) -> str:
    return json.dumps({"version": VERSION, "job": recipe})


def _unpacked(comment: Any) -> str | None:
    """The recipe in a comment, if it is one of ours."""
    text = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else comment
    if not isinstance(text, str) or not text.startswith(f"{KEY} "):
        return None
    return text[len(KEY) + 1 :].rstrip("\0 ")


def _noted(image: Image.Image) -> str | None:
    """The recipe in a GIF's comment or a WebP's description."""
    found = _unpacked(image.info.get("comment"))
    return found or (
        _unpacked(image.getexif().get(_DESCRIPTION)) if image.format == "WEBP" else None
    )


def _film_text(path: Path) -> str | None:
    """The recipe in an MP4, "" if it has none; None if the file is no MP4."""
    with path.open("rb") as file:
        if file.read(12)[4:8] != b"ftyp":
            return None
        place, end = 0, path.stat().st_size
        while place + 8 <= end:
            file.seek(place)
            size, kind = struct.unpack(">I4s", file.read(8))
            if size == 1:  # too long for 32 bits
                (size,) = struct.unpack(">Q", file.read(8))
            if kind == b"moov" and 8 <= size <= _LONGEST_HEAD:
                return _unpacked(_comment(file.read(size - 8))) or ""
            if size < 8:
                break
            place += size
    return ""


def _comment(box: bytes) -> bytes:
    """The comment among the boxes of a film's head."""
    for kind in (b"udta", b"meta", b"ilst", b"\xa9cmt", b"data"):
        place = 4 if kind == b"ilst" else 0  # `meta` begins with four bytes of its own
        while box[place + 4 : place + 8] not in (kind, b""):
            place += max(8, struct.unpack_from(">I", box, place)[0])
        size = struct.unpack_from(">I", box, place)[0] if place + 8 <= len(box) else 0
        box = box[place + 8 : place + size]
    return box[8:]  # after its type and language


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
    path: Path,
    frames: Sequence[np.ndarray],
    seconds: float = 4.0,
    hold: float = 2.0,
    recipe: dict[str, Any] | None = None,
    held: int = -1,
) -> None:
    """Write pictures, uint8 (H, W, C) of one size, as a GIF or WebP that repeats, with the job that
    made them.

    The frames share `seconds`, and the one at place `held` stays for `hold` seconds more. Small pictures
    are enlarged without smoothing. Raises SaveError if the suffix is neither, or it cannot be written.
    """
    check_animation(path)
    if not frames:
        raise SaveError(f"There is no frame to put into {path.name}.")
    images = [_image(enlarged(frame)).convert("RGB") for frame in frames]
    # Viewers slow down frames of less than 20 ms.
    durations = [max(20, round(1000 * seconds / len(images)))] * len(images)
    durations[held] += round(1000 * hold)
    with atomic(path) as temporary:
        images[0].save(
            temporary,
            path.suffix[1:].upper(),
            save_all=True,
            append_images=images[1:],
            duration=durations,
            loop=0,
            **_of_kind(path.suffix.lower(), recipe),
        )


def _of_kind(suffix: str, recipe: dict[str, Any] | None) -> dict[str, Any]:
    """What is told to the writer of a GIF or WebP besides."""
    if suffix == ".gif":
        return {} if recipe is None else {"comment": note(recipe).encode()}
    exif = Image.Exif()
    if recipe is not None:
        exif[_DESCRIPTION] = note(recipe)
    return {"quality": 90} | ({"exif": exif} if recipe is not None else {})


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
