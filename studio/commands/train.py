"""`score-studio train`: a folder of pictures, or a pack, into a model of your own.

Launched by `accelerate launch -m studio` or `torchrun -m studio`, the same command trains on many
devices and machines at once.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import choose, spec, terminal
from studio.commands import Command, Outcome, positional, training
from studio.engine.events import Done, Event, Metric, Note, Progress
from studio.engine.jobs import Setting
from studio.engine.sheets import Sheet
from studio.engine.train_events import RolledBack, StopNow, TrainResult
from studio.engine.train_jobs import CheckPlan, TrainJob
from studio.errors import SpecError
from studio.training import many, runs
from studio.training.check import Checked
from studio.training.choices import Choices
from studio.training.plan import PRESETS, Training, usual_rate
from studio.training.runs import Recipe
from studio.training.sizes import GROWN
from studio.weights.model import ModelInfo
from studio.weights.shelf import Shelf

_PATIENCE = 300.0  # seconds that a full disk is waited for at the end


def _choice(name: str) -> Any:
    """A field of Choices as an option of the command."""
    (field,) = (f for f in dataclasses.fields(Choices) if f.name == name)
    return dataclasses.field(default=field.default, metadata=dict(field.metadata))


@dataclass(frozen=True, kw_only=True)
class Train(Training, Command):
    """Train a model on a folder of pictures or a pack.

    A run that exists under this name is resumed. Ctrl-C stops and saves.
    """

    data: str = positional(
        "", help="A folder of pictures or of image packs, or a pack (.npz). May be in the recipe."
    )
    out: str = spec.option("", help="A name for the shelf, or with a slash in it a folder. Needed.")
    recipe: str = spec.option(
        "", help="A recipe.json, or the folder of a run: what is not said otherwise is as there."
    )
    preset: str = spec.option("", help=f"A plan: {', '.join(PRESETS)}. What else is said counts.")
    size: int = spec.option(
        0,
        label="Size",
        range=(0, 1024),
        help="Pixels on a side; 0 for those of the model that it starts from, or 32.",
    )
    rate: float = spec.option(
        0.0, label="Learning rate", range=(0, 1), help="0 for one that suits what is trained."
    )
    framing: str = _choice("framing")
    turns: bool = _choice("turns")
    jitter: float = _choice("jitter")
    background: str = _choice("background")
    labels: bool = _choice("labels")
    twins: bool = _choice("twins")
    held_out: float = _choice("held_out")
    excluded: tuple[str, ...] = spec.option((), help="A file to leave out. May be repeated.")
    compositions: int = spec.option(
        60_000, range=(2, 10**7), help="Pictures composed from a pack of parts."
    )
    check: bool = spec.option(False, help="Only make a real step, and tell what all would cost.")
    sample_every: int = spec.option(
        500, range=(0, 10**8), help="Steps between samples of the run; 0 for none."
    )
    save_seconds: float = spec.option(60.0, range=(0, 10**6), help="Seconds between saves.")
    tensorboard: bool = spec.option(False, help="Write a log for TensorBoard as well.")
    device: str = spec.option("auto", help="auto, cpu, cuda or mps.")
    option: tuple[str, ...] = spec.option(
        (), help="A setting inside another, as objective.mean=-1.5. May be repeated."
    )

    def run(self) -> Outcome:
        job, shelf = self.job(), Shelf()
        setting = Setting(shelf, self.device, rate=0)
        if self.check:
            return self._checked(job, setting)
        result = self._train(job, setting)
        said = f"{result.name} is at step {result.step}, loss {result.loss:.4f}: {result.path}"
        again = "\nThe same command goes on from here." if result.stopped else ""
        code = 130 if result.stopped else 0
        return Outcome(_facts(result), said + again, code, silent=not many.main())

    def job(self) -> TrainJob:
        """The job of this command. Raises StudioError if something in it makes no sense."""
        told = runs.read_recipe(Path(self.recipe).expanduser()) if self.recipe else None
        folder = self._place(told)
        where = self.data or (told.data if told else "")
        if not where:
            raise SpecError("DATA must be given.", "Name a folder of pictures, or a recipe.")
        return TrainJob(
            data=where,
            plan=self.plan(self._begins_with(folder, told), told),
            choices=self._choices(told),
            out=self.out or str(folder),
            sample_every=self._or("sample_every", told),
            save_seconds=self.save_seconds,
            compositions=self._or("compositions", told),
            tensorboard=self.tensorboard,
            patience=_PATIENCE,
            made_by=training.command_line("train", self),
        )

    def _begins_with(self, folder: Path, told: Recipe | None) -> ModelInfo | None:
        """The model that the run starts from; as the run has it if there is one already."""
        name = self.start or (told.plan.start if told else "")
        if not name:
            return None
        from studio.training.trainer import begun

        if (before := begun(folder)) is not None:
            return before.info
        opened = Shelf().find(name).opened
        return opened.info if opened else None

    def plan(self, start: ModelInfo | None = None, told: Recipe | None = None) -> Training:
        """The plan of this command: that of the recipe, the preset's settings, its own fields, and what
        --option says inside them.

        The model that it starts from brings its SDE, output and network, and its size unless one is
        given. Raises SpecError if a setting is unknown or out of bounds.
        """
        plan = told.plan if told else Training(size=start.size if start else Training.size)
        if self.preset:
            plan = _preset(self.preset).of(plan)
        plan = dataclasses.replace(plan, **self._said())
        if start is not None:
            plan = dataclasses.replace(plan, **self._brought(start))
        if not self.rate and told is None:
            plan = dataclasses.replace(plan, rate=usual_rate(plan))
        plan = choose.with_options(plan, choose.pairs(self.option))
        spec.check(plan)
        return plan

    def _brought(self, start: ModelInfo) -> dict[str, Any]:
        """What the model that it starts from decides: all but another noising, or growing, if asked."""
        said = self._said()
        keep = {"sde"} & said.keys() | ({"network"} if self.network == GROWN else set())
        return {k: getattr(start, k) for k in ("sde", "output", "network") if k not in keep}

    def _said(self) -> dict[str, Any]:
        """The settings of the plan that were given."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(Training)}
        usual = {f.name: training.default(f) for f in dataclasses.fields(type(self))}
        return {name: value for name, value in given.items() if value != usual[name]}

    def _choices(self, told: Recipe | None) -> Choices:
        choices = told.choices if told else Choices()
        fields = {f.name: f for f in dataclasses.fields(type(self))}
        names = [f.name for f in dataclasses.fields(Choices) if f.name in fields]
        given = {
            name: getattr(self, name)
            for name in names
            if name != "flips" and getattr(self, name) != training.default(fields[name])
        }
        return dataclasses.replace(choices, **given)

    def _or(self, name: str, told: Recipe | None) -> Any:
        """A setting of this command, or of the recipe where it was not given."""
        (field,) = (f for f in dataclasses.fields(type(self)) if f.name == name)
        value = getattr(self, name)
        return getattr(told, name) if told and value == training.default(field) else value

    def _place(self, told: Recipe | None) -> Path:
        """Where the run is kept: where it was said, or where its recipe lies."""
        if not self.out and told is not None:
            path = Path(self.recipe).expanduser().resolve()
            return path if path.is_dir() else path.parent
        return runs.place(self.out)

    # -- doing it -----------------------------------------------------------------------------------

    def _checked(self, job: TrainJob, setting: Setting) -> Outcome:
        found: Checked | None = None
        for event in CheckPlan(job.data, job.plan, job.choices, job.compositions).run(setting):
            if isinstance(event, Note):
                terminal.note(event.text)
            elif isinstance(event, Done):
                found = event.value
        assert found is not None
        return Outcome(dataclasses.asdict(found), "\n".join(_told(found)))

    def _train(self, job: TrainJob, setting: Setting) -> TrainResult:
        result: TrainResult | None = None
        with training.interrupts() as asked, terminal.progress("Training") as show:
            line = _Line(show)
            for event in _listened(job.run(setting), asked):
                if isinstance(event, Done):
                    result = event.value
                elif many.main():
                    line.tell(event)
        assert result is not None
        many.leave()
        for name, reason in result.skipped if many.main() else ():
            terminal.note(f"left out {name}: {reason}")
        return result


def _listened(
    events: Generator[Event, Any, None], asked: threading.Event
) -> Generator[Event, None, None]:
    """The events of a job, which is told once when it is asked to stop."""
    message, told = None, False
    try:
        while True:
            yield events.send(message)
            message = StopNow() if asked.is_set() and not told else None
            told = told or message is not None
    except StopIteration:
        return
    finally:
        events.close()


class _Line:
    """What is said of a run while it goes on: a line of progress, and notes."""

    def __init__(self, show: Callable[[int, int, str], None]) -> None:
        self._show = show
        self._figures: dict[str, float] = {}

    def tell(self, event: Event) -> None:
        figures = self._figures
        if isinstance(event, Note):
            terminal.note(event.text)
        elif isinstance(event, RolledBack):
            rate = f"with a learning rate of {event.rate:.2g}"
            terminal.note(f"{event.reason} Back to step {event.step}, {rate}")
        elif isinstance(event, Metric) and event.points:
            figures[event.name] = event.points[-1][1]
        elif isinstance(event, Sheet):
            told = f"step {event.step}: samples drawn"
            if "held-out" in figures:
                told += f", held-out loss {figures['held-out']:.4f}, {event.memorised:.0%} by heart"
            terminal.note(told)
        elif isinstance(event, Progress):
            loss, pace = figures.get("loss", math.nan), figures.get("pace", 0.0)
            self._show(event.step, event.total, f"loss {loss:.4f}, {pace:.0f} pictures/s")


def _preset(name: str) -> Any:
    found = [preset for key, preset in PRESETS.items() if key.startswith(name.lower())]
    if len(found) != 1:
        raise SpecError(f"There is no preset “{name}”.", f"Known: {', '.join(PRESETS)}.")
    return found[0]


def _told(found: Checked) -> list[str]:
    """What was checked, for people."""
    minutes = found.seconds / 60
    lines = [
        f"{found.seconds_per_step:.2f} s a step, {minutes:,.1f} minutes for all of them",
        f"{found.memory / 1e6:,.0f} MB of memory, of {found.memory_free / 1e6:,.0f} MB free",
        f"{found.disk / 1e6:,.0f} MB of the disk, of {found.disk_free / 1e6:,.0f} MB free",
        f"{found.trained:,} of {found.parameters:,} parameters are trained",
    ]
    if found.sigma_max is not None:
        lines.append(f"strongest noise that suits these pictures: {found.sigma_max:.1f}")
    return [*lines, *found.warnings]


def _facts(result: TrainResult) -> dict[str, Any]:
    sheet = result.after
    return {
        "name": result.name,
        "path": str(result.path),
        "pictures": result.pictures,
        "held_out": result.held,
        "classes": list(result.classes),
        "skipped": [{"file": name, "reason": reason} for name, reason in result.skipped],
        "steps": result.step,
        "loss": result.loss,
        "held_out_loss": result.held_out,
        "bits_per_dimension": result.bits,
        "memorised": sheet.memorised if sheet else None,
        "pictures_per_second": result.pace,
        "seconds": round(result.seconds, 1),
        "device": result.device,
        "plan": spec.to_dict(result.plan),
        "resumed_at": result.resumed_at,
        "interrupted": result.stopped,
    }
