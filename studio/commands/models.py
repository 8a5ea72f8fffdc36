"""`score-studio models …`: what stands on the shelf. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studio import spec
from studio.commands import Command, Outcome, positional
from studio.weights.shelf import Entry, Shelf


@dataclass(frozen=True, kw_only=True)
class ListModels(Command):
    """List the models at hand: your own and those that ship."""

    def run(self) -> Outcome:
        entries = Shelf().entries()
        lines = [_row(entry) for entry in entries] or ["No models. score-studio train makes one."]
        return Outcome({"models": [facts(entry) for entry in entries]}, "\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class ModelInfo(Command):
    """Show what a model says of itself, and its card."""

    name: str = positional(help="A name on the shelf, or the path of a model's folder.")

    def run(self) -> Outcome:
        entry = Shelf().find(self.name)
        data = facts(entry)
        lines = [
            f"{key:<12} {_plain(value)}" for key, value in data.items() if value not in ("", [])
        ]
        return Outcome(data | {"card": entry.card}, "\n".join([*lines, "", entry.card]).rstrip())


def facts(entry: Entry) -> dict[str, Any]:
    """An entry of the shelf as JSON data."""
    data: dict[str, Any] = {
        "name": entry.name,
        "path": str(entry.path),
        "ships": entry.ships,
        "bytes": entry.bytes,
        "problem": entry.problem,
    }
    if (info := entry.info) is not None:
        data |= {
            "size": info.size,
            "colours": info.colours,
            "classes": list(info.classes),
            "sde": spec.to_dict(info.sde),
            "output": spec.to_dict(info.output),
            "network": info.network,
            "steps": info.steps,
            "preset": info.preset,
        }
    return data


def _row(entry: Entry) -> str:
    if (info := entry.info) is None:
        return f"{entry.name:<24} cannot be used: {entry.problem}"
    classes = f", {len(info.classes)} classes" if info.classes else ""
    origin = "ships" if entry.ships else "yours"
    size = f"{info.size} px"
    return f"{entry.name:<24} {size:>7}  {spec.title(type(info.sde)):<6}  {origin}{classes}"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(str(v) if k == "kind" else f"{k} {v:g}" for k, v in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
