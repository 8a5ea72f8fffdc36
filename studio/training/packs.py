"""Image packs: many pictures in one file, or parts from which pictures are composed.

An image pack is a plain .npz (read without pickle): `meta` (JSON), `blob` with encoded chunks,
`offsets`, `counts`, `labels`. Its chunks are lossless WebP or JPEG stacks, or xz of raw pixels.
"""

from __future__ import annotations

import colorsys
import io
import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from studio.errors import DataError
from studio.training.framing import squared

_LARGEST_PACK = 2**31  # bytes of decoded pixels
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, OverflowError, EOFError, RecursionError)
_UNREADABLE += (lzma.LZMAError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class Pack:
    """uint8 pixels (N, H, W, C), int64 labels (N,) with -1 for none, the classes' names.

    Four channels are parts of pictures; their labels say which part belongs to which name.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    @property
    def parts(self) -> bool:
        return self.pixels.shape[3] == 4


def is_pack(path: Path) -> bool:
    """Whether a file holds the arrays of an image pack. Reads its table of contents only."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"meta.npy", "blob.npy", "offsets.npy"} <= set(archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def is_held_back(path: Path) -> bool:
    """Whether a pack is one that measures, by its name: it is never learned from with others."""
    return path.stem.lower().endswith(("-test", "-held-out", "_test"))


def refuse_held_back(path: Path) -> None:
    """Raises DataError if what is to be learned from is a pack that measures."""
    if path.suffix.lower() == ".npz" and is_held_back(path):
        raise DataError(
            f"{path.name} is there to measure with, as its name says, and is not learned from.",
            "Choose the pack for training, or give this one another name.",
        )


def read_pack(path: Path) -> Pack:
    """What is in a pack. Raises DataError on a bad file."""
    try:
        # Opened here, because numpy leaves a file open that turns out to be no zip.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as pack:
            meta = json.loads(str(pack["meta"]))
            blob, offsets = pack["blob"], pack["offsets"]
            counts, labels = pack["counts"], pack["labels"].astype(np.int64)
        n, h, w, c = (int(meta[k]) for k in ("count", "height", "width", "channels"))
        if min(n, h, w) < 1 or c not in (1, 3, 4) or n * h * w * c > _LARGEST_PACK:
            raise ValueError("its sizes are impossible")
        if counts.sum() != n or len(labels) != n or len(offsets) != len(counts) + 1:
            raise ValueError("its counts disagree")
        pixels = np.empty((n, h, w, c), np.uint8)
        first = 0
        for i, k in enumerate(counts):
            raw = blob[offsets[i] : offsets[i + 1]].tobytes()
            pixels[first : first + k] = _decode(raw, meta["codec"], (k, h, w, c))
            first += k
        names = tuple(str(name) for name in meta.get("classes") or [])
        if c != 4 and names and not ((labels >= -1) & (labels < len(names))).all():
            raise ValueError("its labels name classes that it does not have")
        return Pack(pixels, labels, names)
    except FileNotFoundError as error:
        raise DataError(f"There is nothing at {path}.") from error
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path.name} is not an image pack we can read: {error}",
            "Give a folder of pictures, or a pack (.npz).",
        ) from error


def joined(packs: list[Pack], size: int) -> Pack:
    """Packs of pictures as one, with the classes of all. Where their shapes differ, pictures are scaled
    to `size`, and grey ones get colours."""
    if len(packs) == 1:
        return packs[0]
    if len({pack.pixels.shape[1:] for pack in packs}) > 1:
        colours = max(pack.pixels.shape[3] for pack in packs)
        stacks = [scaled(pack.pixels, size) for pack in packs]
        stacks = [s if s.shape[3] == colours else s.repeat(colours, 3) for s in stacks]
    else:
        stacks = [pack.pixels for pack in packs]
    classes = tuple(dict.fromkeys(name for pack in packs for name in pack.classes))
    # Its -1, for no class, reads the -1 that stands last.
    places = [np.array([*map(classes.index, pack.classes), -1], np.int64) for pack in packs]
    labels = [place[pack.labels] for place, pack in zip(places, packs)]
    return Pack(np.concatenate(stacks), np.concatenate(labels), classes)


def scaled(pixels: np.ndarray, size: int) -> np.ndarray:
    """The pictures of a pack as squares of another size."""
    if pixels.shape[1:3] == (size, size):
        return pixels
    made = np.empty((len(pixels), size, size, pixels.shape[3]), np.uint8)
    for place, picture in enumerate(pixels):
        image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
        made[place] = squared(image, size).reshape(size, size, -1)
    return made


def _decode(raw: bytes, codec: str, shape: tuple[int, ...]) -> np.ndarray:
    if codec == "xz":
        # No more than is wanted: a few bytes can unfold into all memory.
        values = lzma.LZMADecompressor().decompress(raw, math.prod(shape) + 1)
        return np.frombuffer(values, np.uint8).reshape(shape)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[shape[-1]]
    return np.asarray(Image.open(io.BytesIO(raw)).convert(mode)).reshape(shape)


def compose(pack: Pack, size: int, count: int, seed: int) -> Generator[tuple[int, int], None, Pack]:
    """`count` compositions from parts, classes in turn, each on a pastel gradient.

    The group of a part is named "species/colour/layer". One colour is drawn, then one part of each
    of its layers, laid over each other in the order of the layers' names. Yields how far it is.
    """
    parts, layers = pack.pixels, _layers(pack.labels, pack.classes)
    species = sorted(layers)
    if not species:
        raise DataError("The parts in this pack are not named species/colour/layer.")
    colour = parts[..., :3].astype(np.float32) * (parts[..., 3:] / np.float32(255))
    cover = 1 - parts[..., 3:] / np.float32(255)
    rng = np.random.default_rng(seed)
    pixels = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        palettes = layers[species[i % len(species)]]
        palette = palettes[sorted(palettes)[rng.integers(len(palettes))]]
        canvas = _gradient(parts.shape[1], parts.shape[2], rng)
        for layer in sorted(palette):
            part = palette[layer][rng.integers(len(palette[layer]))]
            canvas = canvas * cover[part] + colour[part]
        full = Image.fromarray(canvas.clip(0, 255).round().astype(np.uint8))
        pixels[i] = np.asarray(full.resize((size, size), Image.Resampling.LANCZOS))
        if i % 100 == 99:
            yield i + 1, count
    labels = np.arange(count, dtype=np.int64) % len(species)
    return Pack(pixels, labels, tuple(species))


def _layers(
    groups: np.ndarray, names: tuple[str, ...]
) -> dict[str, dict[str, dict[str, list[int]]]]:
    tree: dict[str, dict[str, dict[str, list[int]]]] = {}
    for index, group in enumerate(groups):
        parts = names[group].split("/") if 0 <= group < len(names) else []
        if len(parts) == 3:
            species, colour, layer = parts
            tree.setdefault(species, {}).setdefault(colour, {}).setdefault(layer, []).append(index)
    return tree


def _gradient(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A pastel background of one of twelve hues, slightly varied, a little deeper at the bottom."""
    hue = (rng.integers(12) / 12 + rng.uniform(-0.02, 0.02)) % 1
    top, bottom = (
        255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)
        for saturation, value in ((0.16, 1.0), (0.34, 0.93))
    )
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return np.broadcast_to((1 - down) * top + down * bottom, (height, width, 3))
