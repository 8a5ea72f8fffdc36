"""The jobs of the Train mode: check a plan, train it, and what earlier runs have left.

Closing a TrainJob saves what it has come to, unless Discard was sent to it. It makes way for everything
else a person starts, and goes on when that is done. What is sent to it is heard at every yield.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from studio import paths, recipes
from studio.engine.events import Done, Event, Note
from studio.engine.events import Levels as Levels
from studio.engine.sheets import Sheet as Sheet
from studio.engine.sheets import sheets as sheets
from studio.engine.train_events import Discard as Discard
from studio.engine.train_events import RolledBack as RolledBack
from studio.engine.train_events import SampleNow as SampleNow
from studio.engine.train_events import SaveNow as SaveNow
from studio.engine.train_events import StopNow as StopNow
from studio.engine.train_events import TrainResult as TrainResult
from studio.engine.training_run import Lot, Running, Terms
from studio.errors import DataError, SpecError, StudioError
from studio.spec import option
from studio.training import data, log, many, packs
from studio.training import runs as places
from studio.training.check import check
from studio.training.choices import Choices
from studio.training.plan import Training
from studio.training.runs import Recipe
from studio.training.trainer import Trainer, begun
from studio.weights import formats
from studio.weights.formats import native

if TYPE_CHECKING:
    from studio.engine.engine import Context
    from studio.training.data import Pictures


# -- jobs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckPlan:
    """One real step of a plan: Notes, and Done with a Checked."""

    data: str
    plan: Training = option(Training)
    choices: Choices = option(Choices)
    compositions: int = 60_000

    def run(self, context: Context) -> Generator[Event, Any, None]:
        plan, choices = _settled(self.plan, self.choices)
        start = context.shelf.find(plan.start).opened if plan.start else None
        found = yield from _read(self.data, plan, choices, self.compositions, [])
        learned, held = found.split(choices.held_out)
        yield Note("Making one real step")
        yield Done(check(plan, learned, held, start, context.device, paths.user_dir()))


@dataclass(frozen=True)
class TrainJob:
    """Train a plan, or go on with the run that exists under its name: Note, Progress, Metrics ("loss",
    "held-out", "bits", "pace"), Levels, Sheet, Saved, RolledBack, and Done with a TrainResult.

    `out` is a name for the shelf, or with a slash in it a folder. Every `sample_every` steps (0: never)
    a Sheet is drawn. A full disk at the end is waited for so many seconds as `patience` says.
    """

    background: ClassVar[bool] = True
    data: str
    plan: Training = option(Training)
    choices: Choices = option(Choices)
    out: str = ""
    sample_every: int = 250
    save_seconds: float = 60.0
    compositions: int = 60_000  # made of a pack of parts
    tensorboard: bool = False
    patience: float = math.inf
    made_by: str = ""  # the command that does this, for the card

    def run(self, context: Context) -> Generator[Event, Any, None]:
        folder = places.place(self.out)
        team = many.team(context.device)
        recipes.check_writable(folder / native.WEIGHTS)
        before = begun(folder)
        if before is None and folder.is_dir() and formats.recognise(folder):
            raise SpecError(f"“{folder.name}” is a model already.", "Give another name.")
        plan, choices = _settled(self.plan, self._as_begun(folder, before is not None))
        start = None
        if plan.start and before is None:
            start = context.shelf.find(plan.start).opened
        inbox: list[Any] = []
        read = yield from _read(self.data, plan, choices, self.compositions, inbox)
        learned, held = read.split(choices.held_out)
        trainer = Trainer(plan, learned, folder, context.device, start, team)
        if trainer.step:
            inbox.append((yield Note(f"Resuming “{folder.name}” at step {trainer.step}")))
        lot = Lot(read, learned, held, plan.flips or choices.flips)
        yield from Running(trainer, lot, self._terms()).run(inbox)

    def _terms(self) -> Terms:
        where = str(Path(self.data).expanduser().resolve())
        recipe = Recipe(self.plan, self.choices, where, self.compositions, self.sample_every)
        return Terms(recipe, self.save_seconds, self.patience, self.tensorboard, self.made_by)

    def _as_begun(self, folder: Path, resumed: bool) -> Choices:
        """The choices; of a run that is gone on with, with as much held out as it was begun with."""
        if not resumed:
            return self.choices
        try:
            return replace(self.choices, held_out=places.read_recipe(folder).choices.held_out)
        except StudioError:
            return self.choices


def _settled(plan: Training, choices: Choices) -> tuple[Training, Choices]:
    """Mirroring alone is done by the trainer: then all pictures may stay on the device."""
    if choices.flips and replace(choices, flips=False).moves is False:
        return replace(plan, flips=True), replace(choices, flips=False)
    return plan, choices


def _read(
    where: str, plan: Training, choices: Choices, compositions: int, inbox: list[Any]
) -> Generator[Event, Any, Pictures]:
    """The pictures to learn from; what is sent meanwhile goes into the inbox. Raises DataError if there
    are none."""
    packs.refuse_held_back(Path(where))
    reading = data.read(Path(where).expanduser(), plan.size, compositions, plan.seed, choices)
    said_at = time.perf_counter()
    while True:
        try:
            done, total = next(reading)
        except StopIteration as end:
            return end.value
        if total and time.perf_counter() - said_at > 0.5:
            said_at = time.perf_counter()
            inbox.append((yield Note(f"Reading the pictures: {done:,} of {total:,}")))


# -- what is there --------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunFound:
    """An earlier run: how far it came, when that was (seconds since 1970), whether it can go on, and how
    many pictures it has seen."""

    name: str
    step: int
    total: int
    loss: float
    when: float
    resumable: bool
    data: str
    folder: Path
    seen: int = 0


def runs() -> list[RunFound]:
    """The runs among the person's own models, the latest first."""
    own = paths.user_dir() / "models"
    folders = [path.parent for path in own.glob(f"*/{places.RESUME}")]
    found = [run for folder in folders if (run := _found(folder)) is not None]
    return sorted(found, key=lambda run: -run.when)


def _found(folder: Path) -> RunFound | None:
    """The run in a folder; None if its files are damaged or gone meanwhile."""
    try:
        run, when = begun(folder), (folder / places.RESUME).stat().st_mtime
    except (StudioError, OSError):
        return None
    if run is None:
        return None
    try:
        where = places.read_recipe(folder).data
    except StudioError:
        where = ""
    rows = log.Log(folder, run.step).rows
    loss = rows[-1][1] if rows else math.nan
    goes_on = run.step < run.plan.steps and bool(where) and Path(where).exists()
    seen = run.step * run.plan.batch
    return RunFound(folder.name, run.step, run.plan.steps, loss, when, goes_on, where, folder, seen)


def curves(run: RunFound) -> dict[str, tuple[tuple[int, float], ...]]:
    """What is kept of the loss and pace of a run and of what was measured, (step, value) each, by the
    names that the events of a training have."""
    kept = log.Log(run.folder, run.step).rows
    measured = log.Measures(run.folder, run.step).rows
    return {
        "loss": tuple((step, loss) for step, loss, _, _ in kept),
        "pace": tuple((step, pace) for step, _, pace, _ in kept),
        "held-out": tuple((step, held_out) for step, held_out, _, _ in measured),
        "bits": tuple((step, bits) for step, _, bits, _ in measured),
    }


def levels(run: RunFound) -> Levels | None:
    """The loss by noise level as a run has left it; None of one that has left nothing of it."""
    rows = log.levels(run.folder)
    return Levels.of(rows) if rows else None


def resumed(folder: Path) -> TrainJob:
    """The job that goes on with the run in a folder. Raises DataError if it cannot be gone on with."""
    recipe = places.read_recipe(folder)
    if not recipe.data:
        raise DataError(
            f"“{folder.name}” does not say what it was learning from.",
            "Open its pictures, and train with the same settings and name.",
        )
    if not Path(recipe.data).exists():
        raise DataError(
            f"The pictures that “{folder.name}” learns from are gone: {recipe.data}",
            "Put them back, or connect the disk that they are on.",
        )
    own = folder.parent == paths.user_dir() / "models"
    return TrainJob(
        data=recipe.data,
        plan=recipe.plan,
        choices=recipe.choices,
        out=folder.name if own else str(folder),
        sample_every=recipe.sample_every,
        compositions=recipe.compositions,
    )
