"""Pictures to train on: a folder, an image pack, or a pack of parts from which pictures are composed.

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
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from studio.errors import DataError, PictureError
from studio.photos import SUFFIXES, read_rgb
from studio.training.choices import Choices, lot

Report = Callable[[int, int], None]
"""Called with (done, total) now and then."""

_LARGEST_PACK = 2**31  # bytes of decoded pixels
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, OverflowError, EOFError, RecursionError)
_UNREADABLE += (lzma.LZMAError, zlib.error, zipfile.BadZipFile)


@dataclass(frozen=True)
class Pictures:
    """uint8 pixels (N, H, W, C), class indices int64 (N,) with -1 for none, the classes' names."""

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()  # (file, reason)
    names: tuple[str, ...] = ()  # paths relative to the folder; none of a pack
    choices: Choices = Choices()

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def size(self) -> int:
        return self.pixels.shape[1]

    @property
    def colours(self) -> int:
        return self.pixels.shape[3]

    @property
    def moves(self) -> bool:
        """Whether `draw` gives anything new each time."""
        return self.choices.moves

    def draw(self, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The pictures at `places` (B,) as a step sees them, uint8 (B, S, S, C)."""
        return self.pixels[places]

    def split(self, share: float) -> tuple[Pictures, Pictures]:
        """(learned from, held out): about `share` of them are held out, the same ones every time."""
        keys = self.names or tuple(map(str, range(len(self))))
        out = np.array([lot(key) < share for key in keys], bool)
        return self._some(~out), self._some(out)

    def _some(self, chosen: np.ndarray) -> Pictures:
        names = tuple(n for n, c in zip(self.names, chosen) if c)
        return replace(self, pixels=self.pixels[chosen], labels=self.labels[chosen], names=names)


def load(
    path: Path,
    size: int,
    count: int,
    seed: int,
    report: Report = lambda *_: None,
    choices: Choices = Choices(),
) -> Pictures:
    """The pictures at `path`, `size` pixels square.

    A pack of parts gives `count` fresh compositions; a folder or pack of pictures is taken whole.
    Raises DataError if there is nothing to train on.
    """
    if path.is_dir():
        return read_folder(path, size, report)
    pixels, labels, meta = read_pack(path)
    if meta["channels"] == 4:
        return compose(pixels, labels, meta["classes"], size, count, seed, report)
    if pixels.shape[1:3] != (size, size):
        squares = [_square(Image.fromarray(p.squeeze()), size) for p in pixels]
        pixels = np.stack([np.asarray(s).reshape(size, size, -1) for s in squares])
    return Pictures(pixels, labels, tuple(meta["classes"]))


def read_folder(folder: Path, size: int, report: Report = lambda *_: None) -> Pictures:
    """Every picture below `folder`, upright, centre-cropped to a square and scaled.

    The first level of sub-folders names the classes, if every picture lies in one.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    files = [
        p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)
    ]
    pixels, kept, skipped = [], [], []
    for done, path in enumerate(files):
        try:
            pixels.append(np.asarray(read_picture(path, size)))
            kept.append(path.relative_to(folder).parts)
        except PictureError as error:
            reason = error.message.removeprefix(f"{path.name} is ").removesuffix(".")
            skipped.append((path.name, reason))
        report(done + 1, len(files))
    if not pixels:
        raise DataError(f"No picture in {folder} can be read.", "Choose a folder with pictures.")
    tops = sorted({parts[0] for parts in kept})
    named = len(tops) > 1 and all(len(parts) > 1 for parts in kept)
    labels = [tops.index(parts[0]) if named else -1 for parts in kept]
    classes = tuple(tops) if named else ()
    names = tuple("/".join(parts) for parts in kept)
    return Pictures(np.stack(pixels), np.array(labels, np.int64), classes, tuple(skipped), names)


def read_one(folder: Path, name: str, size: int, choices: Choices) -> Pictures:
    """One picture of a folder, to see how it is varied. Raises PictureError."""
    pixels = np.asarray(read_picture(folder / name, size))[None]
    return Pictures(pixels, np.array([-1], np.int64), names=(name,), choices=choices)


def read_picture(path: Path, size: int) -> Image.Image:
    """The picture in a file as RGB: upright, on white, centre-cropped to a square, scaled to `size`.

    Raises PictureError if it cannot be read.
    """
    # Four times the size leaves the filter all it needs.
    return _square(read_rgb(path, 4 * size), size)


def _square(image: Image.Image, size: int) -> Image.Image:
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)


def read_pack(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(uint8 pixels (N, H, W, C), int64 labels (N,), meta). Raises DataError on a bad file."""
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
        names = meta["classes"] = [str(name) for name in meta.get("classes") or []]
        if c != 4 and names and not ((labels >= -1) & (labels < len(names))).all():
            raise ValueError("its labels name classes that it does not have")
        return pixels, labels, meta
    except FileNotFoundError as error:
        raise DataError(f"There is nothing at {path}.") from error
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path.name} is not an image pack we can read: {error}",
            "Give a folder of pictures, or a pack (.npz).",
        ) from error


def _decode(raw: bytes, codec: str, shape: tuple[int, ...]) -> np.ndarray:
    if codec == "xz":
        # No more than is wanted: a few bytes can unfold into all memory.
        values = lzma.LZMADecompressor().decompress(raw, math.prod(shape) + 1)
        return np.frombuffer(values, np.uint8).reshape(shape)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[shape[-1]]
    return np.asarray(Image.open(io.BytesIO(raw)).convert(mode)).reshape(shape)


def compose(
    parts: np.ndarray,
    groups: np.ndarray,
    names: list[str],
    size: int,
    count: int,
    seed: int,
    report: Report = lambda *_: None,
) -> Pictures:
    """`count` compositions from parts (P, H, W, 4), classes in turn, each on a pastel gradient.

    The group of a part is named "species/colour/layer". One colour is drawn, then one part of each
    of its layers, laid over each other in the order of the layers' names.
    """
    layers = _layers(groups, names)
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
        if i % 1000 == 999:
            report(i + 1, count)
    labels = np.arange(count, dtype=np.int64) % len(species)
    return Pictures(pixels, labels, tuple(species))


def _layers(groups: np.ndarray, names: list[str]) -> dict[str, dict[str, dict[str, list[int]]]]:
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
