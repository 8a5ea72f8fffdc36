"""Which photos a painting command works on, what lies beside each of them, and where each goes.

A photo may be a folder: then the result is one, laid out alike, and masks and strokes are either one file
for all photos, or a folder with files of the same stems.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from studio.commands import given
from studio.errors import DataError, PictureError, SaveError
from studio.photos import SUFFIXES


@dataclass(frozen=True)
class Beside:
    """A file for every photo, or a folder of files with the photos' stems."""

    name: str  # what it is: "mask"
    path: Path | None

    def of(self, place: Path) -> Path | None:
        """The file for a photo at `place`, relative to the photos' folder; None if none is given.

        Raises PictureError if the folder has none for it, or several.
        """
        if self.path is None or not self.path.is_dir():
            return self.path
        for folder in dict.fromkeys((self.path / place.parent, self.path)):
            names = sorted(folder.iterdir()) if folder.is_dir() else []
            found = [p for p in names if p.stem == place.stem and p.suffix.lower() in SUFFIXES]
            if len(found) > 1:
                both = " and ".join(p.name for p in found[:2])
                raise PictureError(f"There are several {self.name}s for {place}: {both}.")
            if found:
                return found[0]
        raise PictureError(
            f"There is no {self.name} for {place} in {self.path}.", "Name it as the photo."
        )


@dataclass(frozen=True)
class Work:
    """A photo, and the files its results go to."""

    photo: Path
    place: Path  # relative to the folder of photos
    files: tuple[Path, ...]


def planned(photo: Path, out: str, count: int, beside: tuple[Beside, ...]) -> list[Work]:
    """What is to be done. Raises StudioError if a result would replace something that is read."""
    folder, sources = photo.is_dir(), [b.path for b in beside if b.path is not None]
    if folder:
        works = _of_folder(photo, Path(out) if out else None, count, sources)
    else:
        path = Path(out or "out.png")
        if path.is_dir():
            raise SaveError(f"{path} is a folder.", f"Name a file: {path / photo.stem}.png.")
        if path.suffix.lower() != ".png":
            raise SaveError(
                f"{path.name} is not named as a PNG, which carries its recipe.",
                f"Name it {path.stem or 'out'}.png.",
            )
        works = [Work(photo, Path(photo.name), _numbered(path, count))]
    read = {path.resolve() for path in [*(w.photo for w in works), *sources]}
    for path in (path for work in works for path in work.files):
        if path.resolve() in read:
            raise SaveError(f"{path} would be replaced by its result.", "Choose another --out.")
    return works


def _of_folder(folder: Path, out: Path | None, count: int, sources: list[Path]) -> list[Work]:
    if out is None or out.suffix.lower() in SUFFIXES or (out.exists() and not out.is_dir()):
        raise SaveError(
            f"{folder} is a folder, so its results need one too.", "Name it with --out FOLDER."
        )
    apart = {path.resolve() for path in [out, *sources]}
    if folder.resolve() in apart:
        raise SaveError(
            f"{folder} holds the photos and nothing else can be there.",
            "Give masks, strokes and results folders of their own.",
        )
    photos = [p for p in given.picture_files(folder) if not apart & {p.resolve(), *_above(p)}]
    if not photos:
        raise DataError(f"No picture is in {folder}.", "Choose a folder with pictures.")
    places = [p.relative_to(folder) for p in photos]
    stems = Counter(place.with_suffix("") for place in places)
    works = []
    for photo, place in zip(photos, places):
        # a.jpg and a.png are told apart by their whole names.
        stem = place.stem if stems[place.with_suffix("")] == 1 else place.name
        works.append(Work(photo, place, _numbered(out / place.parent / f"{stem}.png", count)))
    return works


def _above(path: Path) -> tuple[Path, ...]:
    return tuple(path.resolve().parents)


def _numbered(path: Path, count: int) -> tuple[Path, ...]:
    """out.png, or out-1.png, out-2.png, …"""
    if count == 1:
        return (path,)
    return tuple(path.with_name(f"{path.stem}-{i + 1}{path.suffix}") for i in range(count))
