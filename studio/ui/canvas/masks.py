"""The last masks, to be put back later, also into another run of the studio.

A file each: a line that says what it is, a line of JSON with the sizes, then a thumbnail and the
mask, both compressed by zlib. A list of them reads the thumbnails only.
"""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from studio.errors import PictureError
from studio.paths import atomic
from studio.ui.canvas.document import MOST_PIXELS

MOST = 10
THUMBNAIL = 96  # pixels of the longer side
_MAGIC = b"score studio mask 1\n"
_SUFFIX = ".mask"
_HEAD = 1024  # bytes of the line of JSON
_DAMAGED = (OSError, ValueError, KeyError, TypeError, zlib.error, RecursionError)


@dataclass(frozen=True)
class KeptMask:
    """A mask on disk: `thumb` is uint8 (h, w), `size` is (w, h) of the mask itself."""

    path: Path
    size: tuple[int, int]
    thumb: np.ndarray


class Masks:
    """At most `most` masks in `folder`; the oldest leave."""

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self.folder, self.most = folder, most

    def add(self, mask: np.ndarray) -> Path | None:
        """Keep a mask, uint8 (H, W). None if it is empty or the newest one already.

        Compresses all of it, 0.1 s for 24 million pixels: not for the thread of the window.
        Raises SaveError if it cannot be written.
        """
        data = zlib.compress(np.ascontiguousarray(mask).data, 1)
        known = self._files()
        if not mask.any() or (known and self._tail(known[0]) == data):
            return None
        thumb = Image.fromarray(mask)
        thumb.thumbnail((THUMBNAIL, THUMBNAIL))
        small = zlib.compress(np.asarray(thumb).tobytes())
        head = {
            "size": [mask.shape[1], mask.shape[0]],
            "thumb": list(thumb.size),
            "bytes": len(small),
        }
        newest = int(known[0].stem) if known else 0
        path = self.folder / f"{max(time.time_ns(), newest + 1):020d}{_SUFFIX}"
        with atomic(path) as temporary:
            temporary.write_bytes(_MAGIC + json.dumps(head).encode() + b"\n" + small + data)
        for old in self._files()[self.most :]:
            old.unlink(missing_ok=True)
        return path

    def list(self) -> list[KeptMask]:
        """What is kept, the newest first. Damaged files are left out."""
        kept: list[KeptMask] = []
        for path in self._files():
            try:
                with path.open("rb") as file:
                    head = _head(file)
                    thumb = _unpack(file.read(head["bytes"]), head["thumb"])
            except _DAMAGED:
                continue
            kept.append(KeptMask(path, (head["size"][0], head["size"][1]), thumb))
        return kept

    def read(self, kept: KeptMask) -> np.ndarray:
        """The mask, uint8 (H, W). Raises PictureError if it is gone or damaged."""
        try:
            with kept.path.open("rb") as file:
                head = _head(file)
                file.seek(head["bytes"], 1)
                return _unpack(file.read(), head["size"])
        except _DAMAGED as error:
            raise PictureError(
                "This mask is damaged or was deleted.", "Choose another one."
            ) from error

    def _files(self) -> list[Path]:
        found = [p for p in self.folder.glob(f"*{_SUFFIX}") if p.stem.isdecimal()]
        return sorted(found, key=lambda p: int(p.stem), reverse=True)

    def _tail(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(_head(file)["bytes"], 1)
                return file.read()
        except _DAMAGED:
            return b""


def _head(file: IO[bytes]) -> dict[str, Any]:
    """The sizes in the head of a file, checked; what follows is the thumbnail. Raises ValueError."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise ValueError("it is no mask")
    head = json.loads(file.readline(_HEAD))
    w, h = head["size"]
    small = head["thumb"]
    numbers = (w, h, *small, head["bytes"])
    if len(small) != 2 or not all(type(v) is int and v > 0 for v in numbers):
        raise ValueError("its sizes are impossible")
    if w * h > MOST_PIXELS or max(small) > THUMBNAIL or head["bytes"] > 2 * THUMBNAIL**2:
        raise ValueError("it is too large")
    return head


def _unpack(data: bytes, size: list[int]) -> np.ndarray:
    w, h = size
    # No more than is wanted: a few bytes can unfold into all memory.
    pixels = zlib.decompressobj().decompress(data, w * h + 1)
    return np.frombuffer(pixels, np.uint8).reshape(h, w)
