"""Pictures to train on: a folder of them, an image pack, a folder of packs, or parts to compose from.

Whatever they come from, they are uint8 squares, which lie in memory or on the disk as needed, and may be
drawn in another way each time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from studio import photos, spec
from studio.errors import DataError
from studio.photos import SUFFIXES as SUFFIXES
from studio.training import cache, folder, framing, packs, readers
from studio.training.cache import Pixels
from studio.training.choices import Choices, Crop, lot
from studio.training.folder import File
from studio.training.framing import Stock

T = TypeVar("T")
Report = Callable[[int, int], None]
"""Called with (done, total) now and then."""

Reading = Generator[tuple[int, int], None, "Pictures"]
"""Yields (done, total) several times a second, also while it waits for a disk; closing it ends it."""

_AS_USUAL = Choices()
_AHEAD = {"centre": 64, "random": 32, "native": 6}  # pictures read ahead: whole ones are large
_LONG = 1800.0  # seconds that a pack may take to be read or scaled
_FEW = 10  # of fewer pictures none is held out, unless the lot falls on one


@dataclass(frozen=True)
class Pictures:
    """uint8 pixels (N, H, W, C), class indices int64 (N,) with -1 for none, the classes' names.

    `pixels` are the squares as they are when nothing varies. `stock` is what others are cut from.
    """

    pixels: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()  # (file, reason)
    names: tuple[str, ...] = ()  # paths relative to the folder; none of a pack
    choices: Choices = _AS_USUAL
    stock: Stock | None = None
    lots: np.ndarray | None = None  # float64 (N,): those below a share are held out
    cut: int = 0  # of how many the middle alone is kept, because all together are too large

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

    @property
    def grey(self) -> float:
        """The share of pictures without colour, of a thousand."""
        some = self.pixels[:: max(1, len(self) // 1000)].astype(np.int16)
        return float(((some.max(3) - some.min(3)).max((1, 2)) <= folder.GREY).mean())

    def draw(self, places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The pictures at `places` (B,) as a step sees them, uint8 (B, S, S, C), writable."""
        if self.stock is None:
            squares = self.pixels[places]
        else:
            squares = framing.cut(self.stock, places, self.size, self.choices.framing, rng)
        return framing.varied(squares, self.choices, rng)

    def split(self, share: float) -> tuple[Pictures, Pictures]:
        """(learned from, held out): about `share` of them are held out, the same ones every time, and
        near-duplicates together."""
        lots = _lots(range(len(self))) if self.lots is None else self.lots
        out = lots < share
        if share > 0 and not out.any() and len(self) >= _FEW:
            out = lots == lots.min()
        if out.all():
            out = np.zeros(len(self), bool)
        return self._some(~out), self._some(out)

    def _some(self, chosen: np.ndarray) -> Pictures:
        places = np.flatnonzero(chosen)
        rows: slice | np.ndarray = places
        # In one piece nothing is copied, which may be all of a disk.
        if len(places) == 0 or places[-1] - places[0] + 1 == len(places):
            rows = slice(places[0], places[-1] + 1) if len(places) else slice(0)
        stock, lots = self.stock, self.lots
        return replace(
            self,
            pixels=self.pixels[rows],
            labels=self.labels[rows],
            names=tuple(self.names[i] for i in places) if self.names else (),
            stock=stock and replace(stock, places=stock.places[rows]),
            lots=None if lots is None else lots[rows],
        )


def load(
    path: Path,
    size: int,
    count: int,
    seed: int,
    report: Report = lambda *_: None,
    choices: Choices = _AS_USUAL,
) -> Pictures:
    """The pictures at `path`, `size` pixels square.

    A pack of parts gives `count` fresh compositions; all else is taken whole. In a folder of packs,
    those that measure (named -test) are left out. Raises DataError if there is nothing to train on.
    """
    reading = read(path, size, count, seed, choices)
    while True:
        try:
            report(*next(reading))
        except StopIteration as end:
            return end.value


def read(path: Path, size: int, count: int, seed: int, choices: Choices = _AS_USUAL) -> Reading:
    """As `load`, step by step."""
    spec.check(choices)
    choices = replace(choices, background=folder.colour(choices.background))
    found = yield from _waited(readers.asked(lambda: _packs(path)))
    if found:
        return (yield from _of_packs(found, size, count, seed, choices))
    return (yield from _of_folder(path, size, choices))


def read_one(place: Path, name: str, size: int, choices: Choices) -> Pictures:
    """One picture of a folder, to see how it is varied. Raises PictureError."""
    crop = {c.path: c for c in choices.crops}.get(name)
    most = cache.most_of_one() // 3
    square, picture = _prepared(place / name, size, choices, crop, most)
    stock = None if picture is None else Stock.of(picture[None])
    return Pictures(square[None], np.array([-1]), names=(name,), choices=choices, stock=stock)


def read_picture(path: Path, size: int) -> Image.Image:
    """The picture in a file as RGB: upright, on white, centre-cropped to a square, scaled to `size`.

    Raises PictureError if it cannot be read.
    """
    least = framing.least(size, _AS_USUAL, None)
    return Image.fromarray(framing.squared(photos.read_rgb(path, least), size))


# -- packs ----------------------------------------------------------------------------------------


def _packs(path: Path) -> list[Path]:
    """The packs to learn from at a path; none if it is a folder of pictures. Raises DataError."""
    try:
        if path.is_file() and path.suffix.lower() in SUFFIXES:
            raise DataError(f"{path.name} is one picture.", "Put it into a folder of its own.")
        if not path.is_dir():
            return [path]
        found = sorted(p for p in path.glob("*.npz") if packs.is_pack(p))
    except OSError:
        return []  # what is wrong with it, the scan says
    kept = [p for p in found if not packs.is_held_back(p)]
    if found and not kept:
        raise DataError(
            f"{path} has packs to measure with only: {found[0].name}.", "Choose one for training."
        )
    return kept


def _of_packs(paths: list[Path], size: int, count: int, seed: int, choices: Choices) -> Reading:
    found: list[packs.Pack] = []
    for place, path in enumerate(paths):
        asked = readers.asked(lambda path=path: packs.read_pack(path), _LONG)
        found.append((yield from _waited(asked, place, len(paths))))
    whole = [pack for pack in found if not pack.parts]
    # Parts that lie beside pictures are what those were composed from.
    if whole:
        pack = yield from _waited(readers.asked(lambda: packs.joined(whole, size), _LONG))
    else:
        pack = yield from packs.compose(found[0], size, count, seed)
    pixels = yield from _waited(readers.asked(lambda: packs.scaled(pack.pixels, size), _LONG))
    fits = min(pack.pixels.shape[1:3]) >= size
    stock = Stock.of(pack.pixels) if choices.framing != "centre" and fits else None
    labels, classes = pack.labels, pack.classes
    if not choices.labels:
        labels, classes = np.full_like(labels, -1), ()
    return Pictures(pixels, labels, classes, choices=choices, stock=stock)


def _waited(
    asked: Generator[None, None, T], done: int = 0, total: int = 0
) -> Generator[tuple[int, int], None, T]:
    while True:
        try:
            next(asked)
        except StopIteration as end:
            return end.value
        yield done, total


# -- folders --------------------------------------------------------------------------------------


def _of_folder(place: Path, size: int, choices: Choices) -> Reading:
    files = yield from _scanned(place, size)
    wanted = folder.chosen(files, choices)
    if not wanted:
        raise _nothing(place, files)
    # By lot, so that what is held out is one piece, however large a share it is.
    lots = {f.path: lot(f.twin or f.path) for f in wanted}
    wanted.sort(key=lambda f: (lots[f.path], f.path))
    crops = {c.path: c for c in choices.crops}
    key = cache.key(place, wanted, size, choices, crops)
    skipped = [(f.path, f.reason) for f in files if f.result == "error"]
    areas = [framing.area(f.size, size, choices.framing, crops.get(f.path)) for f in wanted]
    most = framing.share(areas, cache.most_of_one() // 3)
    found = cache.opened(key, size)
    if found is None or len(found.names) < len(wanted):
        room = 3 * (len(wanted) * size**2 + sum(min(area, most) for area in areas))
        found, more = yield from _filled(place, wanted, size, choices, crops, key, (most, room))
        skipped += more
    classes, labels = (
        folder.classes(found.names) if choices.labels else ((), [-1] * len(found.names))
    )
    return Pictures(
        found.squares,
        np.array(labels, np.int64),
        classes,
        tuple(skipped),
        found.names,
        choices,
        found.stock,
        np.array([lots[name] for name in found.names]),
        sum(area > most for area in areas),
    )


def _scanned(place: Path, size: int) -> Generator[tuple[int, int], None, list[File]]:
    files: list[File] = []
    with contextlib.closing(cache.scanned(place, size)) as scan:
        for done, total, new in scan:
            files += new
            yield done, 2 * total  # they are read once more, to be kept
    return files


def _filled(
    place: Path,
    wanted: list[File],
    size: int,
    choices: Choices,
    crops: dict[str, Crop],
    key: str,
    limits: tuple[int, int],
) -> Generator[tuple[int, int], None, tuple[Pixels, list[tuple[str, str]]]]:
    """(pixels, (file, reason) of what could not be read after all), kept under `key`. `limits`: the most
    pixels of one, and bytes of all."""
    most, room = limits

    def prepared(file: File) -> _Prepared | str:
        try:
            return _prepared(place / file.path, size, choices, crops.get(file.path), most)
        except Exception as error:  # whatever a decoder makes of one file, the others are read
            if not place.exists():
                raise folder.gone(place) from error
            return folder.reason(error, Path(file.path).name)

    reading = readers.read(prepared, wanted, lambda _: folder.LATE, ahead=_AHEAD[choices.framing])
    skipped: list[tuple[str, str]] = []
    with cache.writing(key, size, room) as writer, contextlib.closing(reading):
        waiting = iter(wanted)
        for done, total, results in reading:
            for result, file in zip(results, waiting):
                if isinstance(result, str):
                    skipped.append((file.path, result))
                else:
                    writer.add(file.path, *result)
            yield total + done, 2 * total
        if not writer.names:
            raise DataError(f"No picture in {place} can be read: {skipped[0][1]}.")
    found = cache.opened(key, size)
    if found is None:
        raise DataError(f"The pictures of {place} were read, but could not be kept.")
    return found, skipped


_Prepared = tuple[np.ndarray, np.ndarray | None]


def _prepared(path: Path, size: int, choices: Choices, crop: Crop | None, most: int) -> _Prepared:
    """(its square, what others are cut from) of the picture in a file. Raises PictureError."""
    least = framing.least(size, choices, crop)
    image = photos.read_rgb(path, least, choices.background)
    if choices.framing == "centre":
        return framing.squared(image, size, crop), None
    picture = framing.kept(image, size, choices.framing, crop, most)
    return framing.middle(picture, size, choices.framing), picture


def _nothing(place: Path, files: list[File]) -> DataError:
    errors = [f for f in files if f.result == "error"]
    if any(f.result == "image" for f in files):
        return DataError(f"All pictures in {place} are left out.", "Take some of them back in.")
    if errors:
        return DataError(
            f"No picture in {place} can be read: {errors[0].path} is {errors[0].reason}.",
            "Choose a folder with pictures.",
        )
    return DataError(f"No picture is in {place}.", "Choose a folder with pictures.")


def _lots(places: Sequence[int]) -> np.ndarray:
    return np.array([lot(str(place)) for place in places])
