"""What a checkpoint format is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from studio.weights.model import Opened


class Format(ABC):
    """A way in which models are kept on disk, as a folder or a file."""

    title: ClassVar[str]

    @abstractmethod
    def claims(self, path: Path) -> bool:
        """Whether `path` looks like this format. A cheap look, without torch; never raises."""

    @abstractmethod
    def open(self, path: Path, preset: str = "") -> Opened:
        """The model at `path`, its weights not read yet. Nothing loads half.

        `preset` names a published configuration, for files that do not describe themselves.
        Raises CheckpointError with the reason and what to do if it cannot be used, SpecError if
        there is no such preset.
        """


class StateFormat(Format):
    """A format told apart by the tensors inside a file: whatever torch.save or safetensors held."""

    @abstractmethod
    def fits(self, tree: Any) -> bool:
        """Whether what the file held, tables of tensors most likely, is of this format."""

    @abstractmethod
    def open_tree(self, tree: Any, name: str, preset: str = "") -> Opened:
        """As `open`, from what the file held. The Opened reads from `tree`."""

    def claims(self, path: Path) -> bool:
        return False  # only a look inside can tell; `formats.open_model` does that

    def open(self, path: Path, preset: str = "") -> Opened:
        from studio.weights.formats import read_tree

        return self.open_tree(read_tree(path), path.stem, preset)
