"""PNG files of layers: written a band at a time while others may compute, read with no surprises.

Pillow writes them at half the speed and holds the interpreter for longer at a time, which the window
would feel. What is read is untrusted: only PNG, and only of the size and kind that is expected.
Source: the PNG specification, third edition: each row is led by its filter, here 1 (left neighbour).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import IO

import numpy as np
from PIL import PngImagePlugin

_KINDS = {1: (0, "L"), 3: (2, "RGB"), 4: (6, "RGBA")}  # channels: colour type, Pillow's mode


def write(
    file: IO[bytes], bands: Iterable[np.ndarray], size: tuple[int, int], channels: int
) -> None:
    """Write uint8 bands (rows, w, channels) from top to bottom as one PNG of size (w, h)."""
    file.write(b"\x89PNG\r\n\x1a\n")
    header = struct.pack(">IIBBBBB", *size, 8, _KINDS[channels][0], 0, 0, 0)
    _chunk(file, b"IHDR", header)
    pack = zlib.compressobj(1)
    for band in bands:
        rows = np.ascontiguousarray(band).reshape(len(band), -1)
        # Compressing a mebibyte takes a few milliseconds and lets go of the interpreter meanwhile.
        for part in np.array_split(rows, max(1, rows.nbytes >> 20)):
            filtered = np.empty((len(part), part.shape[1] + 1), np.uint8)
            filtered[:, 0] = 1
            filtered[:, 1 : channels + 1] = part[:, :channels]
            np.subtract(part[:, channels:], part[:, :-channels], out=filtered[:, channels + 1 :])
            _chunk(file, b"IDAT", pack.compress(filtered.data))
    _chunk(file, b"IDAT", pack.flush())
    _chunk(file, b"IEND", b"")


def _chunk(file: IO[bytes], kind: bytes, data: bytes) -> None:
    if data or kind != b"IDAT":
        file.write(struct.pack(">I", len(data)) + kind + data)
        file.write(struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))


def read(file: IO[bytes], size: tuple[int, int], channels: int) -> np.ndarray:
    """The pixels, (h, w) if of one channel, else (h, w, channels).

    Raises ValueError if it is a PNG of another size or kind, else what Pillow raises.
    """
    # Not Image.open, which tries every format and warns of sizes that are all right here.
    with PngImagePlugin.PngImageFile(file) as image:
        if image.size != size or image.mode != _KINDS[channels][1]:
            raise ValueError("a layer is of another size or kind")
        return np.asarray(image)
