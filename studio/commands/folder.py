"""`score-studio folder`: what training would make of a folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import terminal
from studio.commands import Command, Outcome, positional
from studio.engine.folder_jobs import Summary
from studio.spec import option
from studio.training import cache
from studio.training.folder import PACK, File

_SAID = {
    "small": "smaller than the model",
    "extreme": "very long or tall",
    "grey": "grey",
    "transparent": "transparent",
    "animated": "animated or of several pages",
    "converted": "converted to sRGB",
    "flat": "of one colour",
}


@dataclass(frozen=True, kw_only=True)
class Folder(Command):
    """Say of every file in a folder whether it is a picture to train on, and if not, why.

    Near-duplicates and pictures that are small, grey, very long or of one colour are told.
    """

    folder: str = positional(help="A folder of pictures.")
    size: int = option(64, range=(8, 1024), help="Side of the model's pictures.")
    fresh: bool = option(False, help="Read every file again, also those that have not changed.")

    def run(self) -> Outcome:
        place, files = Path(self.folder).expanduser(), []
        if self.fresh:
            cache.forget(place)
        with terminal.progress("Looking at files") as update:
            for done, total, new in cache.scanned(place, self.size):
                files += new
                update(done, total, "")
        summary = Summary.of(files)
        found = {
            "files": [_row(f) for f in files],
            "images": summary.images,
            "errors": summary.errors,
            "ignored": summary.ignored,
            "twins": summary.twins,
            "flags": summary.flags,
        }
        return Outcome(found, "\n".join(_told(files, summary, place)))


def _row(file: File) -> dict[str, Any]:
    return {
        "path": file.path,
        "result": file.result,
        "reason": file.reason,
        "size": list(file.size),
        "flags": list(file.flags),
        "twin": file.twin,
    }


def _told(files: Sequence[File], summary: Summary, place: Path) -> list[str]:
    lines = [f"{f.result:<6}  {_size(f):>11}  {_name(f.path)}{_remarks(f)}" for f in files]
    pictures = "1 picture" if summary.images == 1 else f"{summary.images} pictures"
    total = f"{pictures}, {summary.errors} cannot be read, {summary.ignored} passed over"
    packs = sum(f.reason == PACK for f in files)
    if packs:
        total += f"; image packs: {packs}. Training on this folder learns from them"
    elif not summary.images:
        total += f": no picture in {place} to train on"
    marks = [f"{count} {_SAID[flag]}" for flag, count in summary.flags.items()]
    if summary.twins:
        marks.append(f"{summary.twins} nearly equal to another")
    return [*lines, total, *([", ".join(marks)] if marks else [])]


def _size(file: File) -> str:
    return f"{file.size[0]} × {file.size[1]}" if file.result == "image" else ""


def _name(path: str) -> str:
    """A name with a line break or a terminal's code in it, as one harmless line."""
    return path if path.isprintable() else ascii(path)[1:-1]


def _remarks(file: File) -> str:
    parts = [file.reason] if file.reason else [_SAID[flag] for flag in file.flags]
    if file.twin:
        parts.append(f"nearly equals {_name(file.twin)}")
    return f"  ({', '.join(parts)})" if parts else ""
