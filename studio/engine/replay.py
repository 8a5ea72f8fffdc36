"""Replays: a recipe with what it takes to prove that it makes the same pixels elsewhere.

A replay file, `.replay`, is JSON: the job, the versions and the device it ran on, the model's hash, the
SHA-256 of the pixels, and, unless they are too large, the pixels themselves as a PNG, so that a
difference can be measured. A PNG with a recipe can be replayed too; it is its own proof.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

import studio
from studio import photos, recipes, spec
from studio.diffusion import pictures
from studio.engine.events import Done, Event, Finished
from studio.engine.jobs import SampleJob
from studio.errors import CheckpointError, PictureError, StudioError
from studio.lazy import torch
from studio.paths import atomic
from studio.weights.devices import resolve
from studio.weights.library import sha256

if TYPE_CHECKING:
    from studio.engine.engine import Context

SUFFIX, FORMAT, VERSION = ".replay", "score-studio replay", 1
#: The largest difference, in levels of 255, that is called close: nobody sees it.
CLOSE = 4
_MOST_PIXELS = 2**26  # values of a picture that is kept with a replay
_LONGEST = 2**28  # bytes of a file
_WEIGHTS = {".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz"}


@dataclass(frozen=True, eq=False)
class Replay:
    """What is to be made again. `sheet` (H, W, C) is what should come out, if it is known, `digest` its
    SHA-256; `made` says where it was made: "studio", "torch", "model", "device", "dtype"."""

    recipe: dict[str, Any]
    digest: str
    sheet: np.ndarray | None = None
    made: dict[str, str] = field(default_factory=dict)

    def job(self) -> SampleJob:
        """The job. Raises SpecError if the recipe is not one, PictureError if it needs more than
        itself."""
        kind = self.recipe.get("kind", "sample")
        if kind == "paint":
            raise PictureError(
                "This picture was painted: its recipe needs the picture, mask and strokes it began with.",
                "Open it in the canvas, with the picture it belongs to.",
            )
        if kind != "sample":
            raise PictureError(
                f"This is the recipe of a {kind}, which cannot be replayed by itself.",
                "Replay one of its pictures.",
            )
        job = spec.from_dict(SampleJob, self.recipe)
        spec.check(job)
        return job


@dataclass(frozen=True)
class Difference:
    """A setting that is not as it was. `matters` is whether pixels may differ by it."""

    name: str
    then: str
    now: str
    matters: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.then} → {self.now}"


@dataclass(frozen=True)
class Verdict:
    """How a replay came out: "exact", "close" or "different". `most` is the largest difference in levels
    of 255, and `mean` the mean one; None if the expected pixels are not known but by their hash."""

    result: str
    most: int | None = None
    mean: float | None = None

    def __str__(self) -> str:
        if self.result == "exact":
            return "bit-exact: every pixel is the same"
        if self.most is None:
            return f"{self.result}; by how much cannot be told, for the pixels are not in the file"
        return f"{self.result}: at most {self.most} of 255 levels apart, {self.mean:.3g} on average"


# -- files ------------------------------------------------------------------------------------------


def write(path: Path, stack: np.ndarray, recipe: dict[str, Any], context: Context) -> None:
    """Write a replay of pictures, uint8 (N, H, W, C), that were made by this recipe here and now.

    Raises StudioError if it could not be replayed, or cannot be written.
    """
    sheet = _sheet(stack)
    job = Replay(recipe, digest(sheet)).job()
    data: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "job": recipe,
        "made": here(job, context),
        "pixels": {"shape": list(sheet.shape), "sha256": digest(sheet)},
    }
    if sheet.size <= _MOST_PIXELS:
        png = io.BytesIO()
        Image.fromarray(_flat(sheet)).save(png, "PNG")
        data["png"] = base64.b64encode(png.getvalue()).decode("ascii")
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")


def read(path: Path) -> Replay:
    """The replay in a .replay file, or in any picture with a recipe. Raises PictureError if there is
    none, or it is damaged."""
    if path.suffix.lower() != SUFFIX:
        recipe = recipes.read_recipe(path)
        if recipe is None:
            raise PictureError(f"{path.name} carries no recipe.", "Give a picture the studio made.")
        sheet = photos.read(path).pixels if path.suffix.lower() == ".png" else None
        return Replay(recipe, digest(sheet) if sheet is not None else "", sheet)
    try:
        if path.stat().st_size > _LONGEST:
            raise ValueError("it is too long")
        return _parsed(json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse))
    except FileNotFoundError as error:
        raise PictureError(f"There is no replay at {path}.") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError(f"{path.name} is no replay, or damaged.") from error


def _parsed(data: dict[str, Any]) -> Replay:
    if data["format"] != FORMAT or not isinstance(data["job"], dict):
        raise ValueError("it is no replay")
    if data["version"] > VERSION:
        raise PictureError("This replay is from a newer studio.", "Update the studio.")
    expected, made = data["pixels"]["sha256"], data["made"]
    if not all(isinstance(v, str) for v in [expected, *made, *made.values()]):
        raise ValueError("it is no replay")
    sheet = None
    if "png" in data:
        sheet = _decoded(base64.b64decode(data["png"], validate=True), data["pixels"]["shape"])
        if digest(sheet) != expected:
            raise ValueError("its pixels are not those it speaks of")
    return Replay(data["job"], expected, sheet, dict(made))


def _decoded(png: bytes, shape: list[int]) -> np.ndarray:
    """A PNG of a known shape; its size is looked at before it is decoded."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        if list(image.size[::-1]) != shape[:2] or image.size[0] * image.size[1] > _MOST_PIXELS:
            raise ValueError("its picture is of another size")
        return np.array(image).reshape(shape)


# -- running ----------------------------------------------------------------------------------------


def here(job: SampleJob, context: Context) -> dict[str, str]:
    """What a run of this job depends on besides its recipe, in this studio. Raises CheckpointError if
    the model is not here."""
    return {
        "studio": studio.__version__,
        "torch": str(torch.__version__),
        "model": model_hash(context.shelf, job),
        "device": context.device,
        "dtype": context.dtype,
    }


def model_hash(shelf: Any, job: SampleJob) -> str:
    """The SHA-256 of a model's weights: of its file, or of the digests of the weight files in its
    folder. Raises CheckpointError if there is no such model."""
    path = shelf.find(job.model, job.model_preset).path
    if path.is_file():
        return sha256(path)
    files = sorted(p for p in path.rglob("*") if p.suffix in _WEIGHTS and p.is_file())
    if len(files) == 1:
        return sha256(files[0])
    whole = "".join(f"{p.relative_to(path).as_posix()} {sha256(p)}\n" for p in files)
    return hashlib.sha256(whole.encode()).hexdigest()


def differences(replay: Replay, context: Context) -> list[Difference]:
    """Which settings are not as they were where the pictures were made. Of a PNG nothing is known but
    its recipe, so only a model that is missing shows."""
    try:
        now = here(replay.job(), context)
    except CheckpointError as error:
        return [Difference("model", replay.recipe.get("model", ""), f"missing: {error.message}")]
    found = []
    for name, then in replay.made.items():
        if name in now and then != now[name]:
            short = (then[:12], now[name][:12]) if name == "model" else (then, now[name])
            found.append(Difference(name, *short, matters=name != "studio"))
    return found


@dataclass(frozen=True, eq=False)
class ReplayJob:
    """Makes the pictures again: the events of the run, its Finished, and Done with a Verdict."""

    replay: Replay

    def run(self, context: Context) -> Generator[Event, Any, None]:
        finished = None
        for event in self.replay.job().run(context):
            finished = event if isinstance(event, Finished) else finished
            yield event
        assert finished is not None
        yield Done(judged(self.replay, finished.pictures))


def judged(replay: Replay, stack: np.ndarray) -> Verdict:
    """How near pictures, uint8 (N, H, W, C), are to those expected."""
    sheet = _sheet(stack)
    expected = replay.sheet
    if expected is not None and expected.shape[-1] == 3 and sheet.shape[-1] == 1:
        sheet = sheet.repeat(3, axis=-1)  # as a picture file is read
    if digest(sheet) == replay.digest:
        return Verdict("exact", 0, 0.0)
    if expected is None:
        return Verdict("different")
    if expected.shape != sheet.shape:
        raise PictureError(
            f"The picture is {expected.shape[1]} × {expected.shape[0]} pixels; its recipe makes "
            f"{sheet.shape[1]} × {sheet.shape[0]}.",
            "It was scaled or cut after it was made.",
        )
    apart = np.abs(sheet.astype(np.int16) - expected)
    most = int(apart.max())
    return Verdict("close" if most <= CLOSE else "different", most, float(apart.mean()))


def digest(pixels: np.ndarray) -> str:
    """The SHA-256 of pixels, uint8, and of their shape."""
    head = "×".join(map(str, pixels.shape)).encode()
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _sheet(stack: np.ndarray) -> np.ndarray:
    """Pictures as the one picture that a file holds."""
    return stack[0] if len(stack) == 1 else pictures.grid(stack)


def _flat(sheet: np.ndarray) -> np.ndarray:
    return sheet[..., 0] if sheet.shape[-1] == 1 else sheet


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def device_of(replay: Replay, wanted: str) -> str:
    """Where to replay: as it was made, if that is here and nothing else is wanted."""
    if wanted != "auto" or "device" not in replay.made:
        return wanted
    try:
        return resolve(replay.made["device"])
    except StudioError:
        return wanted
