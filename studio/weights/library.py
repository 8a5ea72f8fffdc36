"""A person's own shelf: putting models on it, naming them, taking them off, seeing that they are whole.

Each operation happens whole or not at all: a model is built in a hidden folder and moved into place,
and leaves its place before it is deleted. Models that ship with the studio are not touched.
`origin.json` in a model's folder says where it came from and what its files were.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import CheckpointError, SaveError, StudioError
from studio.paths import atomic, user_dir
from studio.weights import formats
from studio.weights.formats import native
from studio.weights.model import Opened, network_of
from studio.weights.shelf import Entry, Shelf

if TYPE_CHECKING:
    from studio.weights.model import Weights

ORIGIN = "origin.json"
_CHUNK = 4 * 2**20
_SHOWN = 12  # names of tensors in a card


@dataclass(frozen=True)
class Kept:
    """A file of a model as it came."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Origin:
    """Where a model came from."""

    source: str  # a hub id, or the name of the file or folder that was added
    revision: str = ""  # the hub's commit
    date: str = ""  # ISO, UTC
    files: Mapping[str, Kept] = field(default_factory=dict)  # by path in the model's folder


@dataclass(frozen=True)
class Verified:
    """Whether a model is whole, and what was looked at, a sentence each."""

    ok: bool
    lines: tuple[str, ...] = ()


# -- onto the shelf and off it ----------------------------------------------------------------------


def add(source: Path, name: str = "", preset: str = "", folder: Path | None = None) -> Entry:
    """Put the model in a file or folder of any format onto the shelf, in the studio's own format.

    `name` defaults to the source's; `preset` names a published configuration, for files that do not
    describe themselves; `folder` is a folder of models, by default the person's own.
    Raises CheckpointError if it is no model or the name is taken, SaveError if it cannot be saved.
    """
    source = source.expanduser()
    opened = formats.open_model(source, preset)
    models = folder or _models()
    target = _free_place(models, name or _as_name(opened.name))
    weights = opened.read()
    network_of(opened.name, opened.info, weights.tensors)  # all there, of the right shape, finite
    with _beside(models) as temporary:
        made = temporary / target.name
        card = _card(target.name, source, opened, weights)
        native.save(made, opened.info, weights.tensors, card)
        files = {p.name: Kept(sha256(p), p.stat().st_size) for p in sorted(made.iterdir())}
        write_origin(made, Origin(source.name, "", now(), files))
        os.rename(made, target)
    return Entry(target.name, target, formats.open_model(target))


def rename(entry: Entry, name: str) -> Entry:
    """Give a model of the person's own another name; its Entry under that name.

    Raises CheckpointError if it ships with the studio, or the name is none or taken.
    """
    path = _own(entry)
    target = _free_place(path.parent, name, path)
    try:
        os.rename(path, target)
    except OSError as error:
        raise _unsaved(f"“{entry.name}” could not be renamed", error) from error
    return Entry(name, target, formats.open_model(target) if entry.opened else None, entry.problem)


def remove(entry: Entry) -> int:
    """Delete a model of the person's own, for good. Returns the bytes that are free again.

    Raises CheckpointError if it ships with the studio, SaveError if it cannot be deleted.
    """
    path = _own(entry)
    freed = _bytes(path)
    try:
        trash = Path(tempfile.mkdtemp(prefix=".trash-", dir=path.parent))
        os.rename(path, trash / path.name)  # gone at once, even if deleting takes a while
        for left in path.parent.glob(".trash-*"):
            delete(left)
    except OSError as error:
        raise _unsaved(f"“{entry.name}” could not be deleted", error) from error
    return freed


def used_bytes(shelf: Shelf | None = None) -> int:
    """What the folders of a shelf that are a person's own take on disk, half downloads included."""
    folders = [_models()] if shelf is None else shelf.folders
    return sum(_bytes(f) for f in folders if not Entry(f.name, f, None).ships)


# -- whether it is whole ----------------------------------------------------------------------------


def verify(entry: Entry) -> Verified:
    """Read every file of a model, its weights, and see whether a network can be built of them."""
    lines: list[str] = []
    known = origin(entry)
    bad = _differences(entry.path, known) if known else []
    if known and not bad:
        lines.append(f"All {len(known.files)} files are as they came from {known.source}.")
    elif known is None:
        lines.append("Nothing was noted of its files; only the weights can be looked at.")
    lines += bad
    try:
        opened = entry.opened or formats.open_model(entry.path)
        weights = opened.read()
        network_of(opened.name, opened.info, weights.tensors)
        count = sum(v.numel() for v in weights.tensors.values())
        lines.append(f"{len(weights.tensors)} tensors, {count:,} numbers, all finite; they fit.")
        return Verified(not bad, tuple(lines))
    except StudioError as error:
        return Verified(False, (*lines, str(error)))


def origin(entry: Entry) -> Origin | None:
    """Where a model came from; None if nothing was written down."""
    return origin_in(entry.path)


def origin_in(folder: Path) -> Origin | None:
    """What `origin.json` in a folder says; None if it is not there or makes no sense."""
    try:
        data = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        files = {
            str(path): Kept(str(kept["sha256"]), int(kept["size"]))
            for path, kept in data["files"].items()
        }
        return Origin(str(data["source"]), str(data["revision"]), str(data["date"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_origin(folder: Path, origin: Origin) -> None:
    with atomic(folder / ORIGIN) as temporary:
        temporary.write_text(json.dumps(asdict(origin), indent=1), encoding="utf-8")


def sha256(path: Path) -> str:
    """The checksum of a file, read piece by piece."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _differences(folder: Path, known: Origin) -> list[str]:
    """What is not as it was noted, a sentence each."""
    found = []
    for name, kept in known.files.items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute() or not path.is_file():
            found.append(f"{name} is missing.")
        elif path.stat().st_size != kept.size:
            found.append(f"{name} has {path.stat().st_size:,} bytes instead of {kept.size:,}.")
        elif sha256(path) != kept.sha256:
            found.append(f"{name} is not as it came: its checksum differs.")
    return found


# -- places and names -------------------------------------------------------------------------------


def delete(path: Path) -> None:
    """Delete a file or a folder with all that is in it; links are not followed. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _models() -> Path:
    return user_dir() / "models"


def _own(entry: Entry) -> Path:
    """The folder of a model that may be changed. Raises CheckpointError if it may not."""
    if entry.ships:
        raise CheckpointError(f"“{entry.name}” ships with the studio and stays as it is.")
    if entry.path.parent.resolve() != _models().resolve() or not os.path.lexists(entry.path):
        raise CheckpointError(
            f"“{entry.name}” is not on your shelf.",
            f"What lies elsewhere is left alone; your shelf is {_models()}.",
        )
    return entry.path


def _free_place(models: Path, name: str, but: Path | None = None) -> Path:
    """Where a model called `name` would lie. Raises CheckpointError if it is no name, or taken."""
    if (
        not re.fullmatch(r"[^\\/:*?\"<>|\0]{1,100}", name)
        or name.startswith((".", "-", "~"))
        or name != name.strip(" .")
        or not name.isprintable()
    ):
        raise CheckpointError(
            f"“{name[:60]}” is no name for a model.", "Use letters, digits, spaces and dashes."
        )
    target = models / name
    taken = {p.name.casefold(): p for p in models.iterdir()} if models.is_dir() else {}
    if (there := taken.get(name.casefold())) is not None and there != but:
        raise CheckpointError(
            f"“{there.name}” is on the shelf already.", "Choose another name, or remove it first."
        )
    if but is not None and target == but:
        raise CheckpointError(f"It is called “{name}” already.")
    if any(e.name.casefold() == name.casefold() and e.ships for e in Shelf().entries()):
        raise CheckpointError(f"“{name}” ships with the studio.", "Choose another name.")
    return target


def _as_name(text: str) -> str:
    """A name for the shelf made of what a file is called."""
    return re.sub(r"[^\w .+()-]+", "-", text).strip(" .-~")[:100] or "model"


@contextlib.contextmanager
def _beside(models: Path) -> Iterator[Path]:
    """A hidden folder beside the models, gone at the end. Errors of the disk become SaveError."""
    folder = None
    try:
        models.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".adding-", dir=models))
        yield folder
    except OSError as error:
        raise _unsaved("The model could not be saved", error) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _unsaved(what: str, error: OSError) -> SaveError:
    return SaveError(
        f"{what}: {error.strerror or error}.", "Look at the rights of the folder and at the disk."
    )


def _bytes(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(p.lstat().st_size for p in files if p.is_file() and not p.is_symlink())


# -- the card ---------------------------------------------------------------------------------------


def _card(name: str, source: Path, opened: Opened, weights: Weights) -> str:
    """What is known of a model that was added: its source, what was matched, its former card."""
    info = opened.info
    notes = [*opened.notes, *weights.notes]
    if weights.left:
        some = ", ".join(weights.left[:_SHOWN]) + (" …" if len(weights.left) > _SHOWN else "")
        notes.append(f"{len(weights.left)} tensors of the file have no place in it: {some}.")
    said = "\n".join(f"- {note}" for note in notes) or "- Nothing was left open."
    text = f"""# {name}

| | |
|---|---|
| added from | {source.name}, {now()[:10]} |
| format | {opened.format} |
| pictures | {info.size} × {info.size}, {info.colours} colours |
| tensors | {len(weights.tensors)} matched, all finite; {len(weights.left)} left |

{said}
"""
    former = Entry(opened.name, source if source.is_dir() else source.parent, None)
    own = source.is_dir() or source.name == native.WEIGHTS
    return f"{text}\n## The card it came with\n\n{former.card}" if own and former.card else text
