"""Paintings that wait, or that were made: a job with its picture, masks and strokes in a file, a zip of
`painting.json` and the arrays. What the history keeps beside a result, and the queue beside a recipe.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studio import spec
from studio.engine import array_zip
from studio.engine.events import Event, Note
from studio.engine.paint import Layers, PaintJob, PaintRecipe
from studio.errors import PictureError, StudioError
from studio.paths import atomic

if TYPE_CHECKING:
    from studio.engine.engine import Context

VERSION = 1
_HEAD = "painting.json"
_LONGEST = 2**22  # bytes of the JSON
_MOST_PIXELS = 10**8
_MOST_LEGS = 1000
_CHANNELS = {"picture": 3, "mask": 0, "sketch": 4, "touch": 4}


def save(job: PaintJob, path: Path) -> None:
    """Write a job, of which only the box is kept. Raises StudioError if it makes no sense or cannot be
    written."""
    job = job.alone()
    legs = [layers_of(layers) for layers in (job.painted, *job.later)]
    legs[0]["picture"] = job.picture
    head = {
        "version": VERSION,
        "recipe": spec.to_dict(job.recipe),
        "arrays": [{name: array_zip.about(array) for name, array in leg.items()} for leg in legs],
    }
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        file.writestr(_HEAD, json.dumps(head), zipfile.ZIP_DEFLATED)
        for place, leg in enumerate(legs):
            for name, array in leg.items():
                array_zip.write(file, f"{place}/{name}", array, zipfile.ZIP_DEFLATED)


def layers_of(layers: Layers) -> dict[str, np.ndarray]:
    """Those of the layers that there are."""
    return {name: array for name, array in vars(layers).items() if array is not None}


def load(path: Path) -> PaintJob:
    """The job in a file. Raises PictureError if it is not there, damaged, or from a newer studio."""
    if not path.is_file():
        raise PictureError(
            "The picture and the mask of this painting are not here any more.",
            "Paint it again from the photo.",
        )
    try:
        with zipfile.ZipFile(path) as file:
            head = _head(file)
            legs = [_leg(file, place, about) for place, about in enumerate(head["arrays"])]
            recipe = spec.from_dict(PaintRecipe, head["recipe"])
            picture = legs[0].pop("picture")
            first, *later = (Layers(**leg) for leg in legs)
            job = PaintJob(recipe, picture, first.mask, first.sketch, True, tuple(later))
            job.check()
    except PictureError:
        raise
    except (*array_zip.BROKEN, StudioError) as error:
        raise PictureError(
            "What is kept of this painting is damaged.", "Paint it again from the photo."
        ) from error
    return job


@dataclass(frozen=True)
class KeptPainting:
    """The job in a file, as a job: it is read when its turn comes."""

    path: Path

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note("Opening the painting")
        yield from load(self.path).run(context)


def _head(file: zipfile.ZipFile) -> dict[str, Any]:
    if file.getinfo(_HEAD).file_size > _LONGEST:
        raise ValueError("its description is too long")
    head = json.loads(file.read(_HEAD), parse_constant=array_zip.refuse)
    if head["version"] > VERSION:
        raise PictureError("This painting is from a newer studio.", "Update the studio.")
    if not 0 < len(head["arrays"]) <= _MOST_LEGS:
        raise ValueError("it has no parts, or too many")
    kind, (h, w, _) = head["arrays"][0]["picture"]
    if kind != "|u1" or not (min(h, w) > 0 and h * w <= _MOST_PIXELS):
        raise ValueError("its picture has an impossible size")
    for place, leg in enumerate(head["arrays"]):
        for name, about in leg.items():
            channels = _CHANNELS[name]
            if about != ["|u1", [h, w, channels] if channels else [h, w]]:
                raise ValueError("a layer is not of the picture's size")
            if name == "picture" and place:
                raise ValueError("it has two pictures")
    return head


def _leg(file: zipfile.ZipFile, place: int, about: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: array_zip.read(file, f"{place}/{name}", *about[name]) for name in about}
