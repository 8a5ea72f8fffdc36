"""The jobs of the Models mode: get, add, verify, export, rename, remove; and the strips of samples.

All but ThumbnailsJob and EjectJob wait for disks and networks, and belong to the I/O lane. What has
come of a download stays when its job is closed, and the next GetJob of the same id goes on from there.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from studio import recipes
from studio.diffusion.catalog import PRESETS
from studio.engine.events import Event, Finished, Note, Progress, Saved, Transfer
from studio.engine.jobs import SampleJob
from studio.errors import CheckpointError, HubError, SaveError
from studio.lazy import torch
from studio.paths import user_dir
from studio.weights import library
from studio.weights.shelf import Entry, Shelf

if TYPE_CHECKING:
    from studio.engine.engine import Context

#: Pictures in the strip of a model.
STRIP = 4
#: A model up to these may be sampled unasked: a strip of it takes a few seconds on any processor.
_SMALL_BYTES, _SMALL_SIZE = 64 * 2**20, 64
#: The longer side of a picture that is kept in a strip.
_SHOWN = 256
_SAMPLES = ("samples", "images")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_ADDRESS = re.compile(r"^(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/", flags=re.IGNORECASE)


def parse_id(text: str) -> tuple[str, str]:
    """The hub id "owner/name" and the revision, out of an id or a page's address as it was pasted.

    Raises HubError if it is neither.
    """
    text = text.strip()
    parts = _ADDRESS.sub("", text).split("?")[0].split("#")[0].strip("/").split("/")
    rest = parts[2:]
    revision = rest[1] if len(rest) > 1 and rest[0] in ("tree", "blob", "resolve") else "main"
    named = all(re.fullmatch(r"[\w.-]+", part, flags=re.ASCII) for part in parts[:2])
    if len(parts) < 2 or not named or (rest and not _ADDRESS.match(text)):
        raise HubError(
            f"“{text[:80]}” is no model of the hub.",
            "Type it as owner/name, or paste the address of its page on huggingface.co.",
        )
    return "/".join(parts[:2]), revision


@dataclass(frozen=True)
class GetJob:
    """Download a model of the hub onto the shelf: Transfers, Notes, and its folder as Saved."""

    lane: ClassVar[str] = "io"
    id: str
    revision: str = "main"
    token: str = field(default="", repr=False)  # for this one download; kept nowhere

    def run(self, context: Context) -> Generator[Event, Any, None]:
        from studio.weights import hub

        yield Note("Asking the hub")
        listing = hub.look(self.id, self.revision, self.token or None)
        folder = hub.folder_of(self.id)
        yield Transfer(0, listing.bytes)
        fetching = hub.fetch(listing, folder, self.token or None)
        try:
            while True:
                got = next(fetching)
                if got.note:
                    yield Note(got.note)
                yield Transfer(got.done, got.total, got.speed)
        except StopIteration:
            if listing.lone:
                raise CheckpointError(
                    f"{listing.id} came as one file, {listing.lone}, that does not describe itself.",
                    f"Add that file from {folder}, and choose the preset it was trained with.",
                ) from None
            yield Saved(folder)
        finally:
            fetching.close()


@dataclass(frozen=True)
class DiscardJob:
    """Cancel the unfinished download of a model: what has come is deleted."""

    lane: ClassVar[str] = "io"
    id: str

    def run(self, context: Context) -> Generator[Event, Any, None]:
        from studio.weights import hub

        yield Note("Deleting what had come")
        hub.discard(hub.folder_of(self.id))


@dataclass(frozen=True)
class AddJob:
    """Put the model in a file or folder onto the shelf. `preset` as in `Format.open`."""

    lane: ClassVar[str] = "io"
    path: Path
    name: str = ""
    preset: str = ""

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note(f"Reading {self.path.name}")
        yield Saved(library.add(self.path, self.name, self.preset).path)


@dataclass(frozen=True)
class VerifyJob:
    """Look whether a model is whole: what was looked at as Notes. Raises CheckpointError if not."""

    lane: ClassVar[str] = "io"
    name: str

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note(f"Verifying {self.name}")
        told = library.verify(standing(context.shelf, self.name))
        if not told.ok:
            raise CheckpointError(
                f"{self.name} is not whole. {' '.join(told.lines)}".strip(),
                "Get it or add it again; its folder is as it was.",
            )
        for line in told.lines:
            yield Note(line)


@dataclass(frozen=True)
class ExportModelJob:
    """Write a model for other tools: the diffusers library's layout, in a folder of its name."""

    lane: ClassVar[str] = "io"
    name: str
    folder: Path

    def run(self, context: Context) -> Generator[Event, Any, None]:
        from studio.weights.formats.export import export

        yield Note(f"Exporting {self.name}")
        entry = context.shelf.find(self.name)
        yield Saved(export(entry.opened, self.folder / self.name, entry.card))


@dataclass(frozen=True)
class RenameJob:
    lane: ClassVar[str] = "io"
    name: str
    new: str

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note(f"Renaming {self.name}")
        yield Saved(library.rename(standing(context.shelf, self.name), self.new).path)


@dataclass(frozen=True)
class RemoveJob:
    lane: ClassVar[str] = "io"
    name: str

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note(f"Removing {self.name}")
        entry = standing(context.shelf, self.name)
        kept = strip_file(entry)
        library.remove(entry)
        kept.unlink(missing_ok=True)


@dataclass(frozen=True)
class EjectJob:
    """Let go of a model in memory, or of all. In turn: not while a run is at its work."""

    path: Path | None = None

    def run(self, context: Context) -> Generator[Event, Any, None]:
        context.shelf.eject(self.path)
        if "torch" in sys.modules and torch.cuda.is_available():
            torch.cuda.empty_cache()
        yield Note("Ejected from memory")


@dataclass(frozen=True)
class DeviceJob:
    """Find out what the device is, so that its facts can be told before a model is loaded."""

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note(f"Models run on {context.device}")


# -- strips of samples --------------------------------------------------------------------------


@dataclass(frozen=True)
class StripsJob:
    """The strips that are there already, of one model after the other: Finished with its name.

    They are those the studio has kept, or pictures in the model's folder. Nothing is computed.
    """

    lane: ClassVar[str] = "io"
    names: tuple[str, ...]

    def run(self, context: Context) -> Generator[Event, Any, None]:
        wanted = {e.name: e for e in context.shelf.entries()}
        for name in self.names:
            if name in wanted and (strip := kept_strip(wanted[name])) is not None:
                yield Finished(strip, {"model": name})


@dataclass(frozen=True)
class ThumbnailsJob:
    """Draw the strip of a model and keep it. Makes way for everything a person starts."""

    background: ClassVar[bool] = True
    name: str

    def run(self, context: Context) -> Generator[Event, Any, None]:
        entry = context.shelf.find(self.name)
        resident = entry.path in context.shelf.loaded()
        job = SampleJob(
            model=self.name,
            sampler=PRESETS["quick"][1],
            count=STRIP,
            classes="each" if entry.info and entry.info.classes else "",
        )
        try:
            for event in job.run(context):
                if isinstance(event, Progress):
                    yield event
                elif isinstance(event, Finished):
                    strip = np.stack([_small(picture) for picture in event.pictures])
                    yield from _keep(entry, strip)
                    yield Finished(strip, event.recipe, event.calls, event.seconds)
        finally:
            if not resident:
                context.shelf.eject(entry.path)


def is_small(entry: Entry) -> bool:
    """Whether a strip of this model may be drawn without asking."""
    info = entry.info
    return info is not None and info.size <= _SMALL_SIZE and entry.bytes <= _SMALL_BYTES


def strip_file(entry: Entry) -> Path:
    """Where the strip of a model is kept; another place once its files have changed."""
    files = sorted(p for p in entry.path.glob("*") if p.is_file()) or [entry.path]
    stamps = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    digest = hashlib.sha256(repr((str(entry.path), stamps)).encode()).hexdigest()
    return user_dir() / "thumbnails" / f"{digest[:24]}.png"


def kept_strip(entry: Entry) -> np.ndarray | None:
    """The strip of a model, uint8 (N, H, W, 3), without computing it; None if there is none."""
    try:
        with Image.open(strip_file(entry)) as image:
            wide = np.asarray(image.convert("RGB"))
        side = wide.shape[0]
        if wide.shape[1] >= side:
            return np.stack([wide[:, i : i + side] for i in range(0, wide.shape[1], side)][:STRIP])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pass  # none was kept, or it was damaged: it can be drawn again
    from studio.engine.sheets import last_sheet  # which brings the trainer's files with it

    if (sheet := last_sheet(entry.path)) is not None:  # what it drew while it was trained here
        return np.stack([_small(picture) for picture in sheet.pictures[:STRIP]])
    found = [picture for path in _samples(entry) if (picture := _read(path)) is not None]
    return np.stack(found[:STRIP]) if found else None


def standing(shelf: Shelf, name: str) -> Entry:
    """The entry called `name`, usable or not. Raises CheckpointError if there is none."""
    for entry in shelf.entries():
        if entry.name == name:
            return entry
    raise CheckpointError(f"There is no model “{name}” on the shelf any more.")


def _keep(entry: Entry, strip: np.ndarray) -> Iterator[Event]:
    try:
        recipes.write_png(strip_file(entry), np.concatenate(list(strip), axis=1))
    except SaveError as error:
        yield Note(f"The samples are not kept: {error.message}")


def _samples(entry: Entry) -> list[Path]:
    """The first pictures in a model's folder of samples."""
    for folder in (entry.path / name for name in _SAMPLES):
        if folder.is_dir():
            found = sorted(p for p in folder.iterdir() if p.suffix.lower() in _PICTURES)
            return found[: 2 * STRIP]
    return []


def _read(path: Path) -> np.ndarray | None:
    """A picture of somebody else's as a square of _SHOWN, or None if it cannot be read."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > 64 * 10**6:
                return None
            image.draft("RGB", (_SHOWN, _SHOWN))
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            return np.asarray(square.resize((_SHOWN, _SHOWN), Image.Resampling.LANCZOS))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _small(picture: np.ndarray) -> np.ndarray:
    """A picture of ours, uint8 (H, W, C), in colour and no larger than a strip shows."""
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).convert("RGB")
    if max(image.size) > _SHOWN:
        image = image.resize((_SHOWN, _SHOWN), Image.Resampling.LANCZOS)
    return np.asarray(image)
