"""Projects: the canvas as one `.studio` file, a zip of PNGs with `project.json`.

Members: photo.png (RGB), alpha.png (L), mask.png (L), sketch.png (RGBA), of which all but the photo
may be missing if project.json does not list them. A file that is opened is untrusted: every size is
checked before anything is unpacked, and nothing is ever unpacked to disk.

Saving is in two parts, so that the slow one can run elsewhere: `snapshot` copies what has changed
since the snapshot before, a few milliseconds; `write` compresses and writes.
"""

from __future__ import annotations

import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from studio.errors import PictureError
from studio.paths import atomic
from studio.ui.canvas import png
from studio.ui.canvas.document import MOST_PIXELS, Document
from studio.ui.canvas.history import TILE, Place, Rect, tile_at

SUFFIX = ".studio"
VERSION = 1
_CHANNELS = {"photo": 3, "alpha": 1, "mask": 1, "sketch": 4}
_DESCRIPTION = "project.json"
_LONGEST = 4 * 2**20  # bytes of the description
_DAMAGED = (OSError, ValueError, KeyError, TypeError, IndexError, SyntaxError, EOFError)
_DAMAGED += (RuntimeError, OverflowError, struct.error)  # a password, an unknown compression
_DAMAGED += (zipfile.BadZipFile, zlib.error, lzma.LZMAError)

Encoded = dict[str, tuple[int, bytes]]
"""By layer: its stamp, and its PNG, so that what has not changed is not compressed again."""


@dataclass(frozen=True)
class Snapshot:
    """A document as it was at one moment; belongs to no thread. Its arrays are never written to."""

    key: str
    name: str
    size: tuple[int, int]
    box: Rect
    state: int  # of the history; `history.mark(state)` once it is saved
    photo: np.ndarray
    alpha: np.ndarray | None
    tiles: dict[Place, np.ndarray]
    versions: dict[Place, int]
    extras: dict[str, Any] = field(default_factory=dict)

    def layers(self) -> list[str]:
        """The layers that hold anything."""
        painted = {place[0] for place in self.tiles} - {"photo"}
        alpha = [] if self.alpha is None else ["alpha"]
        return ["photo", *alpha, *(layer for layer in ("mask", "sketch") if layer in painted)]

    def stamp(self, layer: str) -> int:
        """A number that grows with every change of the layer."""
        return max((v for place, v in self.versions.items() if place[0] == layer), default=0)

    def bands(self, layer: str) -> Iterator[np.ndarray]:
        """The layer, (rows, w) or (rows, w, channels), a row of tiles at a time."""
        w, h = self.size
        channels = _CHANNELS[layer]
        shape = () if channels == 1 else (channels,)
        below = {"photo": self.photo, "alpha": self.alpha}.get(layer)
        for row in range((h + TILE - 1) // TILE):
            rows = slice(row * TILE, min((row + 1) * TILE, h))
            band = np.zeros((rows.stop - rows.start, w, *shape), np.uint8)
            if below is not None:
                band[...] = below[rows]
            for column in range((w + TILE - 1) // TILE):
                tile = self.tiles.get((layer, row, column))
                if tile is not None:
                    band[:, column * TILE : (column + 1) * TILE] = tile
            yield band


def snapshot(
    document: Document, extras: dict[str, Any] | None = None, previous: Snapshot | None = None
) -> Snapshot:
    """What the document is now, with `extras` (JSON data) beside it.

    Tiles that are as they were in `previous`, of the same document, are shared with it.
    """
    known = previous if previous is not None and previous.key == document.key else None
    pixels = {"photo": document.photo, "mask": document.mask, "sketch": document.sketch}
    tiles: dict[Place, np.ndarray] = {}
    versions: dict[Place, int] = {}
    for layer, array in pixels.items():
        for (row, column), version in document.version(layer).items():
            place = (layer, row, column)
            versions[place] = version
            if known is not None and known.versions.get(place) == version:
                tiles[place] = known.tiles[place]
            else:
                tiles[place] = array[tile_at(row, column)].copy()
    return Snapshot(
        document.key,
        document.name,
        document.size,
        document.box,
        document.history.state,
        document.base,
        document.alpha,
        tiles,
        versions,
        dict(extras or {}),
    )


def write(snapshot: Snapshot, path: Path, encoded: Encoded | None = None) -> None:
    """Write a snapshot as a project; the file is replaced as a whole.

    `encoded` is filled with the layers' PNGs, and used for those that have not changed; keep one for
    each document. Raises SaveError if the file cannot be written.
    """
    layers = snapshot.layers()
    description = {
        "version": VERSION,
        "name": snapshot.name,
        "size": snapshot.size,
        "box": snapshot.box,
        "layers": layers,
        "extras": snapshot.extras,
    }
    text = json.dumps(description)
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(_DESCRIPTION, text, zipfile.ZIP_DEFLATED)
        for layer in layers:
            archive.writestr(f"{layer}.png", _encode(snapshot, layer, encoded))


def _encode(snapshot: Snapshot, layer: str, encoded: Encoded | None) -> bytes:
    stamp = snapshot.stamp(layer)
    if encoded is not None and encoded.get(layer, (-1, b""))[0] == stamp:
        return encoded[layer][1]
    file = io.BytesIO()
    png.write(file, snapshot.bands(layer), snapshot.size, _CHANNELS[layer])
    if encoded is not None:
        encoded[layer] = (stamp, file.getvalue())
    return file.getvalue()


def save(document: Document, path: Path, extras: dict[str, Any] | None = None) -> None:
    """Write the document and remember that it is saved. Raises SaveError if it cannot be written."""
    taken = replace(snapshot(document, extras), name=path.stem)
    write(taken, path)
    saved(document, taken, path)


def saved(document: Document, taken: Snapshot, path: Path) -> None:
    """Remember that `taken` lies at `path`; what was done since is still unsaved."""
    document.path, document.name = path, path.stem
    document.history.mark(taken.state)


def open_project(path: Path) -> tuple[Document, dict[str, Any]]:
    """The document in a project, and the extras that were saved beside it.

    Raises PictureError if the file is missing, damaged, too large or from a newer studio.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            document, extras = _read(archive, path)
    except FileNotFoundError as error:
        raise PictureError(f"There is no project at {path}.") from error
    except zipfile.BadZipFile as error:
        raise PictureError(
            f"{path.name} is not a project of this studio, or is damaged.",
            "Open a .studio file, or open the photo itself.",
        ) from error
    except _DAMAGED as error:
        raise PictureError(
            f"{path.name} is damaged and cannot be opened.", "Open an earlier copy of it."
        ) from error
    document.path = path
    return document, extras


def _read(archive: zipfile.ZipFile, path: Path) -> tuple[Document, dict[str, Any]]:
    about = json.loads(_member(archive, _DESCRIPTION, _LONGEST), parse_constant=_refuse)
    if type(about["version"]) is not int or about["version"] < 1:
        raise ValueError("its version is no version")
    if about["version"] > VERSION:
        raise PictureError(f"{path.name} is from a newer studio.", "Update the studio.")
    (w, h), box, layers = about["size"], about["box"], about["layers"]
    if not all(type(v) is int for v in (w, h, *box)) or len(box) != 4 or min(w, h) < 1:
        raise ValueError("its sizes are impossible")
    if w * h > MOST_PIXELS:
        raise PictureError(
            f"{path.name} is larger than {MOST_PIXELS // 10**6} million pixels.",
            "Open a smaller project.",
        )
    if not isinstance(about["extras"], dict) or "photo" not in layers:
        raise ValueError("it is incomplete")
    found: dict[str, np.ndarray] = {}
    for layer, channels in _CHANNELS.items():
        if layer in layers:
            # A PNG that does not compress is a little larger than its pixels.
            most = (w * channels + 1) * h * 1.01 + 2**20
            data = io.BytesIO(_member(archive, f"{layer}.png", int(most)))
            found[layer] = png.read(data, (w, h), channels)
    name = str(about["name"])[:200]
    document = Document.of(found.pop("photo"), found.pop("alpha", None), name, **found)
    document.set_box((box[0], box[1], box[2], box[3]))
    document.history.clear()
    return document, about["extras"]


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A member's bytes. Raises ValueError, before unpacking, if it would be more than `most`."""
    info = archive.getinfo(name)
    if info.file_size > most:
        raise ValueError(f"{name} is too large")
    with archive.open(info) as file:
        # What is said in the head need not be true.
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{name} is too large")
    return data


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
