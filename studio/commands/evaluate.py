"""`score-studio evaluate`: the figures of a model, or of any pictures, beside real ones.

With --out a folder keeps what was measured: figures.json, table.md for the model's card, a contact sheet,
made pictures beside their nearest training pictures, and the made pictures themselves, so that a command
that was stopped goes on where it was and other figures can be had without sampling again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio import choose, recipes, terminal
from studio.commands import Command, Outcome, positional
from studio.diffusion import pictures
from studio.diffusion.score import Score
from studio.errors import SpecError
from studio.paths import atomic
from studio.photos import read_rgb
from studio.spec import option
from studio.training import (
    data,
    evaluation,
    features,
    kept,
    memorisation,
    optimization,
    packs,
    steps,
)
from studio.training.data import Pictures
from studio.training.evaluation import Ruler
from studio.training.kept import Made
from studio.training.report import Report, Row
from studio.training.steps import Trial
from studio.weights import formats
from studio.weights.devices import resolve
from studio.weights.features import USUAL
from studio.weights.shelf import Shelf

_FIGURES, _TABLE, _SHEET, _NEAREST = "figures.json", "table.md", "sheet.png", "nearest.png"
_SHOWN = 64  # pictures of a contact sheet
_SEED = 987_654_321  # of compositions: not those that a model was trained on
_GIVEN = "as given"  # the sampler of pictures that were made elsewhere


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Measure a model, or a folder of pictures that any program made, against real pictures.

    How far features are apart (Fréchet and kernel distance), how the sets cover each other (precision,
    recall, density, coverage), whether the class asked for is recognised, grain, bits per dimension;
    with --train also whether it repeats what it was trained on. Give pictures that it has not seen.
    """

    model: str = positional(help="A model's name or folder; or a folder or pack of made pictures.")
    data: str = positional(help="Real pictures, held out: a folder or an image pack (.npz).")
    sampler: str = option("quick", help="A sampler or preset by its short name.")
    samplers: str = option("", help="Several instead, with commas between: a row for each.")
    calls: str = option(
        "", help="Network calls, with commas between: a row for each. Empty: as set."
    )
    count: int = option(256, range=(8, 100_000), help="Pictures to sample.")
    seed: int = option(0, range=(0, 2**32 - 1), help="Picture i has the seed + i.")
    features: str = option(
        USUAL, help="The feature space: a name, a folder, or inception if torch-fidelity is there."
    )
    reference: str = option(
        "held-out",
        choices=("held-out", "train"),
        help="Distances are to half of the held-out pictures, or to those of --train.",
    )
    train: str = option("", help="What the model was trained on: looks for repeated pictures.")
    held_out: float = option(
        0.0, range=(0, 0.9), help="Instead: DATA is what it was trained on, all but this share."
    )
    bits: int = option(64, range=(0, 100_000), help="Pictures to measure bits of; 0 for none.")
    compositions: int = option(4000, range=(100, 10**6), help="Compositions from a pack of parts.")
    train_compositions: int = option(
        60_000, range=(2, 10**7), help="The same of --train: as many as training had."
    )
    out: str = option("", help="A folder to keep figures, table, sheets and samples in.")
    sheet: str = option("", help="Write the sampled pictures to this PNG as well.")
    batch: int = option(0, range=(0, 65536), help="Pictures at once; 0 for what suits the device.")
    device: str = option("auto", help="auto, cpu, cuda or mps.")

    def run(self) -> Outcome:
        if self.reference == "train" and not (self.train or self.held_out):
            raise SpecError("--reference train needs --train.", "Name the training pictures.")
        if self.train and self.held_out:
            raise SpecError("--held-out says what was trained on.", "Leave --train out.")
        device = resolve(self.device)
        plan, space = self._plan(), features.space(self.features, device)
        subject = _subject(self, device)
        if self.out:
            recipes.check_writable(Path(self.out) / _FIGURES)
        ruler, train = self._ruler(subject, space)
        found = self._begun(subject, ruler)
        first: Made | None = None
        for trial in plan if subject.score else [None]:
            row, made = self._row(subject, trial, ruler)
            first = first or made
            found = dataclasses.replace(found, rows=(*found.rows, row))
            self._keep(found)
        assert first is not None
        found = self._with_bits(found, subject, ruler)
        if train is not None:
            gauges = self._compared(first.pixels, ruler, train)
            found = dataclasses.replace(found, gauges=gauges)
        self._keep(found)
        self._show(first.pixels)
        return Outcome(found.facts(), found.table())

    def _begun(self, subject: _Subject, ruler: Ruler) -> Report:
        source = self.train if self.reference == "train" else self.data
        return Report(
            model=subject.name,
            data=Path(self.data).name,
            space=ruler.space.name,
            reference=f"{len(ruler.reference)} pictures of {Path(source).name}",
            real=ruler.floor(self.count),
        )

    # -- what is measured, and against what ---------------------------------------------------------

    def _plan(self) -> list[Trial]:
        """Every sampler as it is set, or at every number of calls that is enough for it."""
        names = [n.strip() for n in self.samplers.split(",") if n.strip()] or [self.sampler]
        if self.calls:
            calls = choose.numbers(self.calls, "calls", least=1)
            found = steps.trials(names, calls, lambda name: choose.sampler(name)[0])
            if not found:
                raise SpecError(f"No sampler takes a step in {self.calls} calls.")
            return found
        return [Trial(name, choose.sampler(name)[0], "", 0) for name in names]

    def _ruler(
        self, subject: _Subject, space: features.FeatureSpace
    ) -> tuple[Ruler, memorisation.Known | None]:
        real, known = self._read(self.data, subject, self.compositions, _SEED), None
        if self.held_out:
            known, real = real.split(self.held_out)
        elif self.train:
            # As the trainer composes them, so that they are the very pictures it had.
            known = self._read(self.train, subject, self.train_compositions, seed=0)
        with terminal.progress("Features of real pictures") as update:
            if known is None:
                return Ruler(space, real, None, _plainly(update)), None
            train = memorisation.Known.of(known.pixels, space, _plainly(update))
            reference = known if self.reference == "train" else None
            return Ruler(space, real, reference, _plainly(update)), train

    def _read(self, path: str, subject: _Subject, compositions: int, seed: int) -> Pictures:
        colours, size = subject.shape[0], subject.shape[1]
        with terminal.progress(f"Reading {Path(path).name}") as update:
            found = data.load(Path(path), size, compositions, seed, _plainly(update))
        return dataclasses.replace(found, pixels=optimization.coloured(found.pixels, colours))

    # -- the measurements -----------------------------------------------------------------------------

    def _row(self, subject: _Subject, trial: Trial | None, ruler: Ruler) -> tuple[Row, Made]:
        made, name, setting = subject.made, _GIVEN, ""
        if trial is not None:
            name, setting = trial.name, trial.setting
            made = self._drawn(subject, trial)
        assert made is not None
        labels = evaluation.renamed(made.labels, subject.classes, ruler.reference.classes)
        figures = ruler.figures(made.pixels, labels)
        return Row(name, setting, made.calls, made.seconds, figures), made

    def _drawn(self, subject: _Subject, trial: Trial) -> Made:
        assert subject.score is not None
        name = f"{trial.name} {trial.setting}".rstrip()
        with terminal.progress(f"Sampling {name}") as update:
            return kept.draw(
                subject.score,
                trial.sampler,
                self.count,
                self.seed,
                self.batch or (32 if subject.score.device == "cpu" else 256),
                self._kept(f"{name.replace(' ', '-')}.npz"),
                subject.fingerprint,
                _plainly(update),
            )

    def _with_bits(self, found: Report, subject: _Subject, ruler: Ruler) -> Report:
        score = subject.score
        if score is None or not self.bits:
            return found
        some = evaluation.taken(ruler.rest, slice(self.bits))
        if not score.free:
            labels = evaluation.renamed(some.labels, some.classes, score.classes)
            some = dataclasses.replace(some, labels=labels, classes=score.classes)
            some = evaluation.taken(some, np.flatnonzero(labels >= 0))
        if not score.continuous or not len(some):
            why = "classes" if score.continuous else "a model of continuous time"
            terminal.note(f"Bits per dimension are left out: they need {why}.")
            return found
        facts = {"model": subject.fingerprint, "data": self.data, "of": len(ruler.rest)}
        with terminal.progress("Measuring bits") as update:
            batch = self.batch or (8 if score.device == "cpu" else 64)
            bits = kept.bits(
                score, some, batch, self.seed, self._kept("bits.json"), facts, _plainly(update)
            )
        return dataclasses.replace(found, bits=bits, bits_count=len(some))

    def _compared(
        self, made: np.ndarray, ruler: Ruler, train: memorisation.Known
    ) -> dict[str, memorisation.Gauge]:
        """The gauges by features and by pixels; the sheet of the nearest is written."""
        rest, others = ruler.rest.pixels, ruler.reference.pixels
        if self.reference == "train":
            rest, others = rest[::2], rest[1::2]
        both = np.concatenate([made, rest[: max(len(made), 100)]])
        other = memorisation.Known.of(others, train.space)
        with terminal.progress("Comparing with training pictures") as update:
            near = train.by_features(both)
            found = {
                "features": memorisation.shares(near, other.by_features(both)),
                "pixels": memorisation.shares(
                    train.by_pixels(both, _plainly(update)), other.by_pixels(both)
                ),
            }
        if self.out:
            page = memorisation.sheet(made, train.pixels, near)
            recipes.write_png(Path(self.out) / _NEAREST, recipes.enlarged(page, 512))
        n = len(made)
        return {name: memorisation.gauge(all_[:n], all_[n:]) for name, all_ in found.items()}

    # -- what is kept -------------------------------------------------------------------------------

    def _kept(self, name: str) -> Path | None:
        """Where what takes long is kept."""
        return Path(self.out) / "samples" / name if self.out else None

    def _keep(self, found: Report) -> None:
        if self.out:
            _write(Path(self.out) / _FIGURES, json.dumps(found.facts(), indent=1) + "\n")
            _write(Path(self.out) / _TABLE, found.table() + "\n")

    def _show(self, made: np.ndarray) -> None:
        if self.out:
            page = recipes.contact_sheet(made[:_SHOWN], 512)
            recipes.write_png(Path(self.out) / _SHEET, page)
        if self.sheet:
            recipes.write_png(Path(self.sheet), pictures.grid(made))


# -- a model, or pictures -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subject:
    """What is measured: a model with its score, or pictures that were made elsewhere."""

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    score: Score | None = None
    fingerprint: str = ""
    made: Made | None = None


def _subject(command: Evaluate, device: str) -> _Subject:
    path = Path(command.model).expanduser()
    if path.exists() and formats.recognise(path) is None and _holds_pictures(path):
        found = data.load(path, _side(path), command.count, command.seed)
        found = evaluation.taken(found, slice(command.count))
        made = Made(found.pixels, found.labels)
        _, height, width, colours = found.pixels.shape
        return _Subject(path.name, (colours, height, width), found.classes, made=made)
    shelf = Shelf()
    entry = shelf.find(command.model)
    score = shelf.load(command.model, device)
    return _Subject(entry.name, score.shape, score.classes, score, entry.fingerprint)


def _holds_pictures(path: Path) -> bool:
    if path.is_dir():
        return any(p.suffix.lower() in data.SUFFIXES for p in path.rglob("*"))
    return path.suffix == ".npz"


def _side(path: Path) -> int:
    """The shorter side of the pictures of a pack, or of the first of a folder."""
    if path.is_dir():
        first = next(p for p in sorted(path.rglob("*")) if p.suffix.lower() in data.SUFFIXES)
        return min(read_rgb(first, 1024).size)
    return min(packs.read_pack(path).pixels.shape[1:3])


# -- what is written ------------------------------------------------------------------------------


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _plainly(update: terminal.Update) -> Callable[[int, int], None]:
    """A progress that has nothing more to say than how far it is."""
    return lambda done, total: update(done, total, "")
