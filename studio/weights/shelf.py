"""The shelf: every model at hand, those that ship and a person's own. Listing needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studio.diffusion.score import Score
from studio.errors import CheckpointError
from studio.paths import model_dirs, shipped
from studio.weights import checkpoint
from studio.weights.checkpoint import CARD, WEIGHTS, ModelInfo


@dataclass(frozen=True)
class Entry:
    """A model on the shelf. `problem` is set, and `info` is not, if its file cannot be used."""

    name: str
    path: Path
    info: ModelInfo | None
    problem: str = ""

    @property
    def ships(self) -> bool:
        return self.path.is_relative_to(shipped("checkpoints"))

    @property
    def card(self) -> str:
        """The card's text; empty if there is none."""
        path = self.path / CARD
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    @property
    def bytes(self) -> int:
        return (self.path / WEIGHTS).stat().st_size


class Shelf:
    """Finds models by name, folder or file, and keeps the ones in use in memory."""

    def __init__(self, folders: list[Path] | None = None) -> None:
        self.folders = model_dirs() if folders is None else folders
        self._loaded: dict[tuple[Path, str], tuple[float, Score]] = {}

    def entries(self) -> list[Entry]:
        """All models, a person's own first. Folders that cannot be read count as empty."""
        found: dict[str, Entry] = {}
        for folder in self.folders:
            if not folder.is_dir():
                continue
            for path in sorted(folder.iterdir()):
                if (path / WEIGHTS).is_file() and path.name not in found:
                    found[path.name] = self._entry(path)
        return list(found.values())

    def find(self, source: str) -> Entry:
        """The entry called `source`, or in the folder or file at that path.

        Raises CheckpointError, with the names there are, if there is none.
        """
        for entry in self.entries():
            if entry.name == source:
                return self._usable(entry)
        path = Path(source).expanduser()
        if path.name == WEIGHTS and path.is_file():
            path = path.parent
        if (path / WEIGHTS).is_file():
            return self._usable(self._entry(path.resolve()))
        names = ", ".join(e.name for e in self.entries()) or "none yet"
        raise CheckpointError(f"There is no model “{source}”.", f"On the shelf: {names}.")

    def load(self, source: str, device: str = "cpu") -> Score:
        """The Score of a model, on a device. Kept in memory until its file changes."""
        entry = self.find(source)
        assert entry.info is not None
        path = entry.path / WEIGHTS
        key, changed = (path, device), path.stat().st_mtime
        if key not in self._loaded or self._loaded[key][0] != changed:
            net = checkpoint.load_network(path, entry.info, device)
            self._loaded[key] = changed, checkpoint.score_of(net, entry.info, device)
        return self._loaded[key][1]

    @staticmethod
    def _entry(path: Path) -> Entry:
        try:
            return Entry(path.name, path, checkpoint.read_info(path / WEIGHTS))
        except CheckpointError as error:
            return Entry(path.name, path, None, str(error))

    @staticmethod
    def _usable(entry: Entry) -> Entry:
        if entry.info is None:
            raise CheckpointError(entry.problem)
        return entry
