"""What is in a folder of pictures, as a person would sort it: pictures, broken ones, other things.

A scan looks at every file once, reads no more of it than it must, and is drawn from as a generator:
to abort it is to close it. What it found last time is not read again where nothing changed.
Paths are relative to the folder, with forward slashes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from studio import photos
from studio.errors import DataError, PictureError, SpecError
from studio.photos import SUFFIXES
from studio.training import readers
from studio.training.choices import Choices
from studio.training.packs import is_pack
from studio.training.twins import SMALL, Twins, look

EXTREME = 2.5  # how many times as long as wide
GREY = 6  # levels between the colours of a grey picture, at most: JPEG's rounding leaves some
PACK = "an image pack, not a picture"
LATE = "not answering: its disk did not give it in time"
_FLAT = 4  # levels: a picture that varies less shows nothing

#: Named as pictures, besides what the studio writes.
_PICTURES = SUFFIXES | {
    *(".jpe", ".jfif", ".mpo", ".apng", ".dib", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".tga"),
    *(".qoi", ".psd", ".heic", ".heif", ".hif"),
}
_FOREIGN = {
    **dict.fromkeys(
        (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"),
        "a camera's raw photo: save it as JPEG or PNG with the camera's program",
    ),
    ".jxl": "a JPEG XL picture, which cannot be read: save it as JPEG or PNG",
    ".svg": "a drawing of shapes, not pixels: save it as PNG",
    ".xcf": "a GIMP project: export it as PNG",
}
_SYSTEM = {"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "__macosx", "@eadir", "lost+found"}
_SYSTEM |= {"$recycle.bin", "system volume information"}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_WINDOWS_HIDDEN = 0x2 | 0x4  # or of the system


@dataclass(frozen=True, slots=True)
class File:
    """One file of a folder, as the scan found it."""

    path: str
    result: str  # "image", "error" (a picture that cannot be read) or "ignore" (no picture)
    reason: str = ""  # why it is an error or ignored
    size: tuple[int, int] = (0, 0)  # upright (width, height)
    flags: tuple[str, ...] = ()  # of images, of FLAGS
    twin: str = ""  # the earlier picture that this one nearly equals; the first of a group has none
    look: int = 0  # perceptual hash, 64 bit
    stamp: tuple[int, int] = (0, 0)  # (mtime in ns, bytes)
    colours: bytes = b""  # the picture in 8 × 8, RGB


#: small: the shorter side is below the model's. extreme: beyond 2.5 : 1. animated: the first of several
#: is taken. converted: from CMYK, a palette, more than 8 bits, or by a profile. flat: of one colour.
FLAGS = ("small", "extreme", "grey", "transparent", "animated", "converted", "flat")


def scan(
    folder: Path, size: int, known: Mapping[str, File] = {}, patience: float | None = None
) -> Generator[tuple[int, int, list[File]], None, None]:
    """(done, total, new files) several times a second until all is seen; total grows while it lists.

    `size` is the side of the model's pictures. Files come in an order that is always the same. One that
    cannot be read, or not within `patience` seconds, is an error. Raises DataError if the folder is
    missing, not open, gone meanwhile, or does not answer.
    """
    twins = Twins()

    def seen(item: File | str) -> File:
        return item if isinstance(item, File) else _seen(folder, item, known)

    def late(item: File | str) -> File:
        name = item.path if isinstance(item, File) else item
        return File(name, "error", LATE)

    with closing(readers.read(seen, _listed(folder), late, patience=patience)) as reading:
        for done, total, files in reading:
            yield done, total, [_related(file, size, twins) for file in files]


def thumbnail(folder: Path, file: File, side: int, background: str = "white") -> np.ndarray:
    """The whole picture fitted into side × side, uint8 (h, w, 3). Raises PictureError."""
    image = photos.read_rgb(folder / file.path, side, background)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return np.array(image)


def chosen(files: Sequence[File], choices: Choices) -> list[File]:
    """The pictures that are learned from or held out, by what a person decided."""
    out = set(choices.excluded)
    kept = [f for f in files if f.result == "image" and f.path not in out]
    if choices.twins:
        return kept
    # If the first of a group is left out by hand, the next stands for it.
    firsts: dict[str, File] = {}
    for file in kept:
        firsts.setdefault(file.twin or file.path, file)
    return list(firsts.values())


def classes(paths: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """(names, the class of each picture): their sub-folders, if every picture lies in one of several.

    Folders that hold all of them are passed over. Without classes: ((), -1 for each).
    """
    folders = [path.split("/")[:-1] for path in paths]
    while folders and folders[0] and all(f and f[0] == folders[0][0] for f in folders):
        folders = [f[1:] for f in folders]
    if not folders or not all(folders):
        return (), [-1] * len(paths)
    names = sorted({f[0] for f in folders})
    place = {name: i for i, name in enumerate(names)}
    return tuple(names), [place[f[0]] for f in folders]


def colour(text: str) -> str:
    """A colour as people write it, if Pillow knows it. Raises SpecError."""
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise SpecError(f"“{text[:40]}” is no colour.", "Write it as #ffffff.") from error
    return f"#{red:02x}{green:02x}{blue:02x}"


def reason(error: Exception, name: str) -> str:
    """Why a picture could not be read, without its name: a file of a list carries that already."""
    if not isinstance(error, PictureError):
        return f"damaged and cannot be read ({error})"
    text = error.message.removesuffix(".")
    for start in (f"{name} is ", f"{name} "):
        text = text.removeprefix(start)
    return text


def gone(folder: Path) -> DataError:
    return DataError(
        f"{folder} is gone: it was removed, or its drive disconnected, while it was read.",
        "Connect it again, or choose another folder.",
    )


# -- listing --------------------------------------------------------------------------------------


def _listed(folder: Path) -> Iterator[File | str]:
    """The paths below a folder, folder by folder; as a File if there is nothing to read."""
    waiting, been = [("", str(folder))], set()
    while waiting:
        prefix, place = waiting.pop()
        try:
            if (identity := _identity(place)) in been:
                continue  # a link that leads back to where we were
            with os.scandir(place) as entries:
                ordered = sorted(entries, key=lambda entry: os.path.splitext(entry.name))
        except OSError as error:
            if not prefix:
                raise _unusable(folder, error) from error
            yield File(prefix, "error", f"a folder that cannot be opened: {_told(error)}")
            continue
        been.add(identity)
        below = []
        for entry in ordered:
            name, inside = prefix + entry.name, _is_folder(entry)
            if (why := _passed_over(entry)) is not None:
                yield File(name + "/" * inside, "ignore", why)
            elif inside:
                below.append((f"{name}/", entry.path))
            else:
                yield name
        waiting += reversed(below)


def _identity(place: str) -> tuple[int, int]:
    found = os.stat(place)
    return found.st_dev, found.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _passed_over(entry: os.DirEntry[str]) -> str | None:
    if entry.name.lower() in _SYSTEM:
        return "kept by the system"
    if entry.name.startswith("."):
        return "hidden"
    if os.name == "nt":
        attributes = getattr(entry.stat(follow_symlinks=False), "st_file_attributes", 0)
        return "hidden" if attributes & _WINDOWS_HIDDEN else None
    return None


def _unusable(folder: Path, error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"There is no folder at {folder}.", "Look whether its drive is connected.")
    if isinstance(error, NotADirectoryError):
        return DataError(f"{folder} is a file, not a folder.", "Choose the folder that it is in.")
    if isinstance(error, PermissionError):
        return DataError(f"{folder} is not open to you.", "Change its permissions.")
    return DataError(f"{folder} cannot be read: {_told(error)}.")


def _told(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


# -- one file -------------------------------------------------------------------------------------


def _seen(folder: Path, name: str, known: Mapping[str, File]) -> File:
    path = folder / name
    try:
        found = path.stat()
    except OSError as error:
        return _lost(folder, name, error)
    stamp = found.st_mtime_ns, found.st_size
    before = known.get(name)
    if before is not None and before.stamp == stamp and before.result != "error":
        return before
    if not stat.S_ISREG(found.st_mode):
        return File(name, "ignore", "no file, but a device or pipe", stamp=stamp)
    if why := _FOREIGN.get(path.suffix.lower()):
        return File(name, "error", why, stamp=stamp)
    try:
        if path.suffix.lower() == ".npz" and is_pack(path):
            return File(name, "ignore", PACK, stamp=stamp)
        if path.suffix.lower() not in _PICTURES and not _begins_as_picture(path):
            return File(name, "ignore", "not a picture", stamp=stamp)
        return _picture(path, name, stamp)
    except OSError as error:
        return _lost(folder, name, error)
    except Exception as error:  # whatever a decoder makes of one file, the others are read
        if not path.exists():
            return _lost(folder, name, FileNotFoundError(path))
        return File(name, "error", reason(error, path.name), stamp=stamp)


def _picture(path: Path, name: str, stamp: tuple[int, int]) -> File:
    """Raises PictureError."""
    seen = photos.glance(path, max(SMALL))
    small = seen.image.resize(SMALL, Image.Resampling.BOX)
    values = np.asarray(small)
    width, height = seen.size
    marks = {
        "extreme": max(width, height) > EXTREME * min(width, height),
        "grey": np.ptp(values, axis=2).max() <= GREY,
        "transparent": seen.transparent,
        "animated": seen.animated,
        "converted": seen.converted,
        "flat": np.ptp(values, axis=(0, 1)).max() <= _FLAT,
    }
    bits, colours = look(small)
    flags = tuple(flag for flag, there in marks.items() if there)
    return File(name, "image", "", seen.size, flags, "", bits, stamp, colours)


def _related(file: File, size: int, twins: Twins) -> File:
    """The file with what depends on the model and on the other files."""
    if file.result != "image":
        return file
    flags = tuple(f for f in file.flags if f != "small")
    if min(file.size) < size:
        flags = ("small", *flags)
    twin = twins.first(file.path, file.look, file.colours, file.size)
    return replace(file, flags=flags, twin=twin)


def _begins_as_picture(path: Path) -> bool:
    """Whether a file with an unknown name begins as pictures do. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp":
        return head[8:12] in _BRANDS
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _lost(folder: Path, name: str, error: OSError) -> File:
    """What to say of a file that is there no more, or not for us. Raises DataError if all are."""
    if not folder.exists():
        raise gone(folder) from error
    if not isinstance(error, FileNotFoundError):
        return File(name, "error", f"a file that cannot be opened: {_told(error)}")
    link = (folder / name).is_symlink()
    return File(name, "error", "a link to a file that is gone" if link else "gone meanwhile")
