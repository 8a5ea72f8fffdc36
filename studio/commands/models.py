"""`score-studio models …`: what stands on the shelf, and how it comes there. Listing needs no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import spec, terminal
from studio.commands import Command, Outcome, positional
from studio.errors import SpecError, StudioError
from studio.weights import classifiers, formats, hub, library
from studio.weights.hub import Listing, Received, as_size
from studio.weights.known import KNOWN
from studio.weights.shelf import Entry, Shelf

_NAME = "A name on the shelf, a hub id that was fetched, or the path of a model."


@dataclass(frozen=True, kw_only=True)
class ListModels(Command):
    """List the models and classifiers at hand: your own and those that ship."""

    def run(self) -> Outcome:
        shelf = Shelf()
        entries, begun, used = shelf.entries(), hub.unfinished(), library.used_bytes(shelf)
        others = [Entry(name, path, None) for name, path in classifiers.entries()]
        lines = [_row(entry) for entry in entries] or ["No models. score-studio train makes one."]
        lines += [f"{u.id:<24} {_share(u.done, u.total)} fetched; get it to go on" for u in begun]
        lines += [_row(entry) for entry in others]
        lines.append(f"Your own take {as_size(used)}.")
        data = {
            "models": [facts(entry) for entry in entries],
            "classifiers": [facts(entry) for entry in others],
            "unfinished": [dataclasses.asdict(u) | {"folder": str(u.folder)} for u in begun],
            "used_bytes": used,
        }
        return Outcome(data, "\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class ModelInfo(Command):
    """Show what a model says of itself, and its card."""

    name: str = positional(help=_NAME)

    def run(self) -> Outcome:
        entry = _classifier(self.name) or Shelf().find(self.name)
        data = facts(entry)
        lines = [
            f"{key:<12} {_plain(value)}" for key, value in data.items() if value not in ("", [])
        ]
        return Outcome(data | {"card": entry.card}, "\n".join([*lines, "", entry.card]).rstrip())


@dataclass(frozen=True, kw_only=True)
class KnownModels(Command):
    """List public models that the studio can get from the hub."""

    def run(self) -> Outcome:
        rows = [
            f"{k.id:<44} {k.size:>5} px  {k.sde:<4}  about {as_size(k.bytes)}\n    {k.says}"
            for k in KNOWN
        ]
        return Outcome(
            {"known": [dataclasses.asdict(k) for k in KNOWN]},
            "\n".join([*rows, "score-studio models get ID fetches one."]),
        )


@dataclass(frozen=True, kw_only=True)
class GetModel(Command):
    """Fetch a model from the hub, or go on fetching it. Ctrl-C pauses."""

    id: str = positional(help="owner/name, or the address of its page.")
    revision: str = spec.option("main", help="A branch, a tag or a commit.")
    token: str = spec.option(
        "", help="For private models; else HF_TOKEN or the stored login is used."
    )

    def run(self) -> Outcome:
        token = self.token or None
        listing = hub.look(self.id, self.revision, token)
        folder = hub.folder_of(listing.id)
        terminal.note(
            f"{listing.id} at {listing.revision[:8]}: {as_size(listing.bytes)}, "
            f"licence: {listing.licence or 'not stated'}"
        )
        data = {
            "id": listing.id,
            "revision": listing.revision,
            "licence": listing.licence,
            "path": str(folder),
            "bytes": listing.bytes,
        }
        done, steps = 0, _told(hub.fetch(listing, folder, token))
        try:
            with contextlib.closing(steps):
                for step in steps:
                    done = step
        except KeyboardInterrupt:
            said = f"Paused at {_share(done, listing.bytes)}. The same command goes on from there."
            return Outcome(data | {"done": done, "interrupted": True}, said, code=130)
        return self._fetched(listing, folder, data | {"done": done, "interrupted": False})

    def _fetched(self, listing: Listing, folder: Path, data: dict[str, Any]) -> Outcome:
        if listing.lone:
            file = folder / listing.lone
            said = (
                f"{listing.id} is {folder}\nIt does not describe itself: score-studio models add "
                f"{file} puts it on the shelf, with --preset if it asks for one."
            )
            return Outcome(data | {"problem": "", "file": str(file)}, said)
        try:
            formats.open_model(folder)
        except StudioError as error:
            said = f"{listing.id} is {folder}\nIt cannot be used as it is: {error}"
            return Outcome(data | {"problem": str(error)}, said)
        return Outcome(data | {"problem": ""}, f"{listing.id} is on the shelf: {folder}")


@dataclass(frozen=True, kw_only=True)
class AddModel(Command):
    """Put a model in any format that the studio reads onto the shelf, in its own format."""

    path: str = positional(help="A model's folder, or a file of weights.")
    name: str = spec.option("", help="What to call it; else as the source is called.")
    preset: str = spec.option("", help="A published configuration, for files that say nothing.")

    def run(self) -> Outcome:
        entry = library.add(Path(self.path), self.name, self.preset)
        return Outcome(
            facts(entry) | {"card": entry.card},
            f"{entry.name} is on the shelf: {entry.path}\n\n{entry.card}".rstrip(),
        )


@dataclass(frozen=True, kw_only=True)
class ExportModel(Command):
    """Write a model as a folder that other programs read (the diffusers layout)."""

    name: str = positional(help=_NAME)
    folder: str = positional(help="A new folder, or an earlier export, which is replaced.")

    def run(self) -> Outcome:
        from studio.weights.formats.export import export

        entry = Shelf().find(self.name)
        assert entry.opened is not None
        path = export(entry.opened, Path(self.folder).expanduser(), entry.card)
        files = sorted(p for p in path.rglob("*") if p.is_file())
        data = {"name": self.name, "path": str(path), "files": [str(p) for p in files]}
        return Outcome(data, "\n".join(f"wrote {p}" for p in files))


@dataclass(frozen=True, kw_only=True)
class RenameModel(Command):
    """Give one of your models another name."""

    name: str = positional(help="What it is called.")
    new: str = positional(help="What it shall be called.")

    def run(self) -> Outcome:
        entry = library.rename(_entry(self.name), self.new)
        return Outcome(facts(entry), f"{self.name} is {entry.name} now: {entry.path}")


@dataclass(frozen=True, kw_only=True)
class RemoveModel(Command):
    """Delete one of your models, or an unfinished download. It does not come back."""

    name: str = positional(help="A name on the shelf, or a hub id.")
    yes: bool = spec.option(False, help="Do not ask.")

    def run(self) -> Outcome:
        begun = next((u for u in hub.unfinished() if self.name in (u.id, u.folder.name)), None)
        if begun is not None:
            self._sure(f"Delete what has come of {begun.id}, {as_size(begun.done)}?")
            hub.discard(begun)
            return self._gone(begun.done)
        entry = _entry(self.name)
        if not entry.ships:  # else `remove` says so, without a question
            self._sure(f"Delete {entry.name}, {as_size(entry.bytes)}, for good?")
        return self._gone(library.remove(entry))

    def _gone(self, freed: int) -> Outcome:
        said = f"{self.name} is gone; {as_size(freed)} are free again."
        return Outcome({"name": self.name, "freed_bytes": freed}, said)

    def _sure(self, question: str) -> None:
        """Ask. Raises SpecError if the answer is not yes, or nobody is there to give one."""
        if self.yes:
            return
        if self.json or not sys.stdin.isatty():
            raise SpecError(f"{question} Nobody can be asked here.", "Say --yes.")
        terminal.note(f"{question} Type yes:")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise SpecError(f"{self.name} was left as it is.")


@dataclass(frozen=True, kw_only=True)
class VerifyModels(Command):
    """See whether the files of a model, or of all, are whole and can be used."""

    name: str = positional("", help="A name on the shelf; none for all.")

    def run(self) -> Outcome:
        entries = [_entry(self.name)] if self.name else Shelf().entries()
        found: dict[str, library.Verified] = {}
        with terminal.progress("Verifying") as update:
            for i, entry in enumerate(entries):
                update(i, len(entries), entry.name)
                check = _verify_classifier if _is_classifier(entry) else library.verify
                found[entry.name] = check(entry)
        ok = all(v.ok for v in found.values())
        lines = [
            f"{name:<24} {'whole' if v.ok else 'NOT whole'}\n    " + "\n    ".join(v.lines)
            for name, v in found.items()
        ]
        data = {
            "ok": ok,
            "models": [{"name": n} | dataclasses.asdict(v) for n, v in found.items()],
        }
        return Outcome(data, "\n".join(lines) or "No models.", code=0 if ok else 2)


def _told(steps: Generator[Received, None, Path]) -> Generator[int, None, None]:
    """Show how a download goes; yields the bytes that are there."""
    with terminal.progress("Fetching") as update, contextlib.closing(steps):
        for step in steps:
            if step.note:
                terminal.note(step.note)
            left = f", {_minutes(step.eta)} left" if step.eta is not None else ""
            said = f"{as_size(step.done)} of {as_size(step.total)}, {as_size(int(step.speed))}/s"
            update(step.done, step.total, f"{said}{left}")
            yield step.done


def _entry(name: str) -> Entry:
    """A model on the shelf by its name or hub id, also one that cannot be opened."""
    names = (name, name.replace("/", "--"))
    found = next((e for e in Shelf().entries() if e.name in names), None)
    return found or _classifier(name) or Shelf().find(name)


def _classifier(name: str) -> Entry | None:
    """The classifier called `name`, unless a model is."""
    known = dict(classifiers.entries())
    taken = name not in known or any(e.name == name for e in Shelf().entries())
    return None if taken else Entry(name, known[name], None)


def _is_classifier(entry: Entry) -> bool:
    return entry.opened is None and (entry.path / classifiers.WEIGHTS).is_file()


def _verify_classifier(entry: Entry) -> library.Verified:
    try:
        classifiers.load(str(entry.path))
    except StudioError as error:
        return library.Verified(False, (str(error),))
    return library.Verified(True, ("A classifier; its weights fit, and are all finite.",))


def facts(entry: Entry) -> dict[str, Any]:
    """An entry of the shelf as JSON data."""
    if _is_classifier(entry):
        return _classifier_facts(entry)
    data: dict[str, Any] = {
        "name": entry.name,
        "kind": "model",
        "path": str(entry.path),
        "ships": entry.ships,
        "bytes": entry.bytes,
        "problem": entry.problem,
        "format": entry.opened.format if entry.opened else "",
        "notes": list(entry.opened.notes) if entry.opened else [],
    }
    if (came := library.origin(entry)) is not None:
        data |= {"source": came.source, "revision": came.revision, "added": came.date}
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


def _classifier_facts(entry: Entry) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": entry.name,
        "kind": classifiers.KIND,
        "path": str(entry.path),
        "ships": entry.ships,
        "bytes": entry.bytes,
        "problem": "",
    }
    try:
        info = classifiers.read_info(entry.path / classifiers.WEIGHTS)
    except StudioError as error:
        return data | {"problem": str(error)}
    return data | {
        "size": info.size,
        "colours": info.colours,
        "classes": list(info.classes),
        "sde": spec.to_dict(info.sde),
        "steps": info.steps,
    }


def _row(entry: Entry) -> str:
    if _is_classifier(entry):
        data = _classifier_facts(entry)
        origin, takes = "ships" if entry.ships else "yours", as_size(entry.bytes)
        if data["problem"]:
            return f"{entry.name:<24} cannot be used: {data['problem']}"
        size, count = f"{data['size']} px", len(data["classes"])
        return f"{entry.name:<24} {size:>7}  classifier  {takes:>7}  {origin}, {count} classes"
    if (info := entry.info) is None:
        return f"{entry.name:<24} cannot be used: {entry.problem}"
    classes = f", {len(info.classes)} classes" if info.classes else ""
    origin = "ships" if entry.ships else "yours"
    size = f"{info.size} px"
    kind = spec.title(type(info.sde))
    takes = as_size(entry.bytes)
    return f"{entry.name:<24} {size:>7}  {kind:<6}  {takes:>7}  {origin}{classes}"


def _share(done: int, total: int) -> str:
    return f"{as_size(done)} of {as_size(total)}"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(str(v) if k == "kind" else f"{k} {v:g}" for k, v in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
