"""`score-studio evaluate-steps`: error against network calls, for every sampler.

A folder keeps what was measured, a JSON object a line, so that a stopped command goes on where it was
and others add to it. Table and plot show every line of the folder; of a model that has changed since,
only those of its last weights.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio import choose, recipes, spec, terminal
from studio.commands import Command, Outcome, positional
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.sde import VESDE, VPSDE, SubVPSDE
from studio.errors import DataError, SaveError, SpecError
from studio.paths import atomic
from studio.spec import option
from studio.training import chart, steps
from studio.training.steps import Row, Subject, Trial
from studio.weights.devices import resolve
from studio.weights.shelf import Shelf

_RESULTS, _TABLE, _CSV, _PLOT = "results.jsonl", "table.md", "table.csv", "steps-to-quality.png"
_EXACT = {"VP": VPSDE(), "sub-VP": SubVPSDE(), "VE": VESDE()}
_FLOOR = "floor"


@dataclass(frozen=True, kw_only=True)
class EvaluateSteps(Command):
    """Measure every sampler at growing numbers of network calls, as a table and a plot.

    Without a model: on mixtures whose score is known exactly. With one: against pictures in classes.
    """

    model: str = positional("", help="A name on the shelf, or the path of a model's folder.")
    data: str = positional("", help="Pictures to compare with: a folder or an image pack (.npz).")
    samplers: str = option("", help="Short names with commas between; empty: every sampler.")
    calls: str = option("5,10,20,50,100,200", help="Network calls, with commas between.")
    tolerances: str = option(
        "", help="Of samplers that choose their steps, with commas between; empty: a range."
    )
    count: str = option(
        "256", help="Pictures a row. Of several numbers, 64,256, each gets a row from one run."
    )
    seed: int = option(0, range=(0, 2**32 - 1), help="Picture i has the seed + i.")
    compositions: int = option(6000, range=(300, 10**6), help="Compositions from a pack of parts.")
    features: str = option(
        "",
        help="The feature space, as studio-features-1. Empty: features learned from the pictures.",
    )
    out: str = option("steps-to-quality", help="The folder of results, table and plot.")
    device: str = option("auto", help="auto, cpu, cuda or mps.")

    def run(self) -> Outcome:
        names = [n.strip() for n in self.samplers.split(",") if n.strip()] or list(SAMPLERS)
        calls, counts = (choose.numbers(getattr(self, name), name) for name in ("calls", "count"))
        plan = steps.trials(names, calls, lambda name: choose.sampler(name)[0], self._tolerances())
        kept = _Kept(Path(self.out))
        recipes.check_writable(kept.folder / _RESULTS)
        if self.model:
            self._measure(kept, [self._model()], plan, counts)
        else:
            subjects = [(steps.mixture(name, sde), "") for name, sde in _EXACT.items()]
            self._measure(kept, subjects, plan, counts)
        rows = kept.rows()
        text = "\n\n".join(_tables(rows))
        _write(kept.folder / _TABLE, text + "\n")
        _write(kept.folder / _CSV, _csv(rows))
        recipes.write_png(kept.folder / _PLOT, chart.draw(_panels(rows)))
        shown = [dataclasses.asdict(row) for row in rows]
        return Outcome({"folder": str(kept.folder), "rows": shown}, text)

    def _tolerances(self) -> list[float]:
        try:
            return [float(part) for part in self.tolerances.split(",") if part.strip()]
        except ValueError:
            raise SpecError(f"--tolerances cannot be “{self.tolerances}”.") from None

    def _model(self) -> tuple[Subject, str]:
        from studio.training import data as packs
        from studio.training import features

        if not self.data:
            raise DataError(
                "A model is measured against pictures.",
                "Name a folder or an image pack (.npz) after it.",
            )
        shelf = Shelf()
        entry = shelf.find(self.model)
        score = shelf.load(self.model, resolve(self.device))
        terminal.note("Reading pictures")
        # A seed of its own: the compositions are not those that the model was trained on.
        real = packs.load(Path(self.data), score.shape[1], self.compositions, seed=987)
        if real.pixels.shape[1:] != (*score.shape[1:], score.shape[0]):
            raise DataError(f"{self.data} has other channels than {self.model}.")
        facts = f"{entry.fingerprint} {Path(self.data).name} {len(real)}"
        space = features.space(self.features, score.device) if self.features else None
        if space:
            facts += f" {space.name}"
        return steps.model(entry.name, score, real, space=space), facts

    def _measure(
        self,
        kept: _Kept,
        subjects: Sequence[tuple[Subject, str]],
        plan: Sequence[Trial],
        counts: Sequence[int],
    ) -> None:
        """Measure what is not there yet, and keep it as it comes."""
        with terminal.progress("Measuring") as show:
            done, total = 0, len(plan) * len(subjects)
            for subject, facts in subjects:
                for n in counts:
                    if (known := _Known(facts, {}, self.seed, subject.name, n)) not in kept:
                        floor = subject.floor(n)
                        kept.add(known, Row(subject.name, _FLOOR, "", 0, n, 0, floor, 0))
                for trial in plan:
                    sampler = spec.to_dict(trial.sampler)
                    known = {n: _Known(facts, sampler, self.seed, subject.name, n) for n in counts}
                    if missing := [n for n in counts if known[n] not in kept]:
                        for row in steps.measure(subject, trial, missing, self.seed):
                            kept.add(known[row.count], row)
                    done += 1
                    show(done, total, f"{subject.name} {trial.name} {trial.setting}")


@dataclass(frozen=True)
class _Known:
    """What a row depends on. `facts` tells models and data of one name apart."""

    facts: str
    sampler: dict[str, Any]
    seed: int
    subject: str
    count: int

    @property
    def key(self) -> str:
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Kept:
    """The lines of a folder's results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines = [_line(text) for text in _texts(folder / _RESULTS)]
        self._keys = {key for key, _, _ in self._lines}

    def __contains__(self, known: _Known) -> bool:
        return known.key in self._keys

    def add(self, known: _Known, row: Row) -> None:
        self._lines.append((known.key, known.facts, row))
        self._keys.add(known.key)
        data = {"key": known.key, "facts": known.facts} | dataclasses.asdict(row)
        try:
            with (self.folder / _RESULTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(data) + "\n")
        except OSError as error:
            raise SaveError(f"{_RESULTS} cannot be written: {error.strerror or error}.") from error

    def rows(self) -> list[Row]:
        """Every row; of a subject whose facts have changed, those of the last."""
        last = {row.subject: facts for _, facts, row in self._lines}
        return [row for _, facts, row in self._lines if facts == last[row.subject]]


def _texts(path: Path) -> list[str]:
    """The lines of a file; one that a crash cut short is taken out, and so is measured again."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read.", "Choose another folder with --out.") from error
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        _write(path, whole)
    return whole.splitlines()


def _line(text: str) -> tuple[str, str, Row]:
    try:
        data = json.loads(text)
        key, facts = str(data.pop("key")), str(data.pop("facts"))
        row = Row(**data)
        values = [row.calls, row.seconds, *row.errors.values()]
        if not all(isinstance(v, int | float) for v in (*values, row.budget, row.count)):
            raise ValueError("a figure is no number")
        return key, facts, row
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(
            f"A line of {_RESULTS} is damaged.", "Delete the line, or choose another --out."
        ) from error


# -- table and plot -------------------------------------------------------------------------------


def _tables(rows: Sequence[Row]) -> list[str]:
    """A Markdown table for each subject, distance and count: samplers down, calls across."""
    groups = dict.fromkeys((r.subject, r.count) for r in rows)
    tables = []
    for subject, count in groups:
        some = [r for r in rows if (r.subject, r.count) == (subject, count)]
        if not all(r.sampler == _FLOOR for r in some):
            kinds = dict.fromkeys(kind for r in some for kind in r.errors)
            tables += [_table(some, kind, f"{subject}, {count} pictures: {kind}") for kind in kinds]
    return tables


def _table(rows: Sequence[Row], kind: str, title: str) -> str:
    budgets = sorted({r.budget for r in rows if r.budget})
    floor = next((r.errors[kind] for r in rows if r.sampler == _FLOOR and r.errors), math.nan)
    lines = [f"{title} (right pictures: {floor:.3g})", ""]
    lines.append("| sampler | " + " | ".join(str(b) for b in budgets) + " |")
    lines.append("|---|" + "---:|" * len(budgets))
    at = {(r.sampler, r.budget): r for r in rows if r.budget}
    for name in dict.fromkeys(r.sampler for r in rows if r.budget):
        cells = [_cell(at.get((name, b)), kind) for b in budgets]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    for row in rows:
        if not row.budget and row.sampler != _FLOOR:
            told = f"{_cell(row, kind)} in {row.calls:.0f} calls"
            lines.append(f"| `{row.sampler}`, {row.setting} | {told} |" + " |" * (len(budgets) - 1))
    return "\n".join(lines)


def _cell(row: Row | None, kind: str) -> str:
    if row is None:
        return "–"
    return f"{row.errors[kind]:.3g}" if row.errors else "diverged"


def _csv(rows: Sequence[Row]) -> str:
    kinds = list(dict.fromkeys(kind for r in rows for kind in r.errors))
    names = ["subject", "sampler", "setting", "budget", "count", "calls", "seconds"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *kinds])
    for row in rows:
        writer.writerow(
            [*(getattr(row, n) for n in names), *(row.errors.get(k, "") for k in kinds)]
        )
    return text.getvalue()


def _panels(rows: Sequence[Row]) -> list[chart.Panel]:
    """A panel for each subject, of its last distance, at the count that has most rows."""
    panels = []
    for subject in dict.fromkeys(r.subject for r in rows):
        mine = [r for r in rows if r.subject == subject and r.errors]
        counts = [r.count for r in mine if r.sampler != _FLOOR]
        if not counts:
            continue
        count = max(counts, key=counts.count)
        mine = [r for r in mine if r.count == count]
        kind = list(mine[0].errors)[-1]
        floor = next((r.errors[kind] for r in mine if r.sampler == _FLOOR), math.nan)
        lines = {
            name: np.array([(r.calls, r.errors[kind]) for r in mine if r.sampler == name])
            for name in dict.fromkeys(r.sampler for r in mine if r.sampler != _FLOOR)
        }
        title = f"{subject}: {_TITLES.get(kind, kind)}, {count} pictures"
        panels.append(chart.Panel(title, "network calls", lines, floor))
    return panels


# Pillow's own font lacks the accent.
_TITLES = {"sliced": "sliced Wasserstein-2", "frechet": "Frechet distance"}


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
