"""The shelf: every model at hand, those that ship and a person's own. Listing needs no torch."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from studio.diffusion.score import Score
from studio.errors import CheckpointError, StudioError
from studio.paths import model_dirs, shipped
from studio.weights import classifiers, formats
from studio.weights.formats.native import CARD
from studio.weights.model import ModelInfo, Opened

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """A model on the shelf. `problem` is set, and `opened` is not, if it cannot be used."""

    name: str
    path: Path
    opened: Opened | None
    problem: str = ""

    @property
    def info(self) -> ModelInfo | None:
        return self.opened.info if self.opened else None

    @property
    def ships(self) -> bool:
        return self.path.is_relative_to(shipped("checkpoints"))

    @property
    def card(self) -> str:
        """The card's text; empty if there is none."""
        for name in (CARD, "README.md"):
            if (path := self.path / name).is_file():
                return path.read_text(encoding="utf-8", errors="replace")
        return ""

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        if self.path.is_file():
            return self.path.stat().st_size
        return sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file())

    @property
    def fingerprint(self) -> str:
        """Tells a model from another of its name: a hash of its largest file."""
        files = [self.path] if self.path.is_file() else list(self.path.rglob("*"))
        largest = max((f for f in files if f.is_file()), key=lambda f: f.stat().st_size)
        with largest.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]


class Shelf:
    """Finds models by name, folder or file, and keeps the ones in use in memory."""

    def __init__(self, folders: list[Path] | None = None) -> None:
        self.folders = model_dirs() if folders is None else folders
        self._loaded: dict[tuple[Path, str, str, str], tuple[float, Score]] = {}

    def entries(self) -> list[Entry]:
        """All models, a person's own first. Folders that cannot be read count as empty."""
        found: dict[str, Entry] = {}
        for folder in self.folders:
            if not folder.is_dir():
                continue
            for path in sorted(folder.iterdir()):
                if path.name not in found and path.is_dir() and formats.recognise(path):
                    found[path.name] = _entry(path)
        return list(found.values())

    def find(self, source: str, preset: str = "") -> Entry:
        """The entry called `source`, the model in the folder or file at that path, or the one that
        was fetched from the hub under this id, "owner/name".

        Raises CheckpointError, with the names there are, if there is none.
        """
        path = Path(source).expanduser()
        if _HUB_ID.fullmatch(source) and not path.exists():
            return self._fetched(source, preset)
        for folder in self.folders:
            there = folder / source
            if Path(source).name == source and there.is_dir() and formats.recognise(there):
                return Entry(source, there, formats.open_model(there, preset))
        if path.exists():
            path = path.resolve()
            opened = formats.open_model(path, preset)
            return Entry(opened.name, path, opened)
        for folder in self.folders:
            if Path(source).name == source and (folder / source / classifiers.WEIGHTS).is_file():
                raise classifiers.no_model(folder / source)
        names = ", ".join(e.name for e in self.entries()) or "none yet"
        raise CheckpointError(f"There is no model “{source}”.", f"On the shelf: {names}.")

    def _fetched(self, id: str, preset: str) -> Entry:
        """The model that was fetched from the hub as "owner/name"."""
        name = id.replace("/", "--")
        for path in (folder / name for folder in self.folders):
            if path.is_dir() and formats.recognise(path):
                return Entry(name, path, formats.open_model(path, preset))
        raise CheckpointError(
            f"There is no model “{id}” on the shelf.",
            f"Get it from the hub: score-studio models get {id}",
        )

    def load(
        self, source: str, device: str = "cpu", dtype: str = "fp32", preset: str = ""
    ) -> Score:
        """The Score of a model, on a device. Kept in memory until its file changes."""
        entry = self.find(source, preset)
        assert entry.opened is not None
        key, changed = (entry.path, device, dtype, preset), _changed(entry.path)
        if key not in self._loaded or self._loaded[key][0] != changed:
            self._loaded[key] = changed, entry.opened.score(device, dtype)
        return self._loaded[key][1]

    def changed(self, source: str, preset: str = "") -> float:
        """When the files of a model were last written. Raises CheckpointError if there is none."""
        return _changed(self.find(source, preset).path)

    def loaded(self) -> list[Path]:
        """The folders and files of the models that are in memory."""
        return sorted({key[0] for key in list(self._loaded)})  # the worker may be loading one

    def eject(self, path: Path | None = None) -> None:
        """Let go of a model in memory, or of all. The memory is free once no run uses it."""
        for key in [k for k in self._loaded if path is None or k[0] == path]:
            del self._loaded[key]


def _entry(path: Path) -> Entry:
    try:
        return Entry(path.name, path, formats.open_model(path))
    except StudioError as error:
        return Entry(path.name, path, None, str(error))


def _changed(path: Path) -> float:
    """When a model's file, or any file directly in its folder, was last written."""
    files = [path, *path.iterdir()] if path.is_dir() else [path]
    return max(f.stat().st_mtime for f in files)
