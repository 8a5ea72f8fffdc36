"""The commands of `score-studio`, one file each.

A command is a Spec: its fields are the options, with the same bounds and help as everywhere, and
`run` does the work. It tells people how it goes through `terminal`, and hands back an Outcome.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from studio.spec import About, option


@dataclass(frozen=True)
class Outcome:
    """What a command found: `data` for --json, `text` for people, and the exit code."""

    data: dict[str, Any]
    text: str = ""
    code: int = 0
    silent: bool = False  # of many processes that do one thing, one speaks


@dataclass(frozen=True, kw_only=True)
class Command:
    """Something the terminal can be asked to do."""

    json: bool = option(False, help="Print the result as one JSON object.")

    def run(self) -> Outcome:
        """Do it. Raises StudioError for what the person can mend."""
        raise NotImplementedError


def positional(default: Any = dataclasses.MISSING, *, help: str) -> Any:
    """A field that is given by its place, not by a flag. Without a default it must be given."""
    metadata = {"about": About(help=help), "positional": True}
    return dataclasses.field(default=default, metadata=metadata)
