"""A training under way: its steps as events, its wishes granted, its samples drawn, its files kept."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import choose
from studio.diffusion import pictures
from studio.diffusion.noise import Noise
from studio.engine import sheets
from studio.engine.events import Done, Event, Levels, Metric, Note, Progress, Saved
from studio.engine.jobs import class_condition
from studio.engine.sheets import Sheet
from studio.engine.train_events import (
    Discard,
    RolledBack,
    SampleNow,
    SaveNow,
    StopNow,
    TrainResult,
)
from studio.errors import SaveError
from studio.training import card
from studio.training import runs as places
from studio.training.board import Board
from studio.training.log import Log, Measures, keep_levels, levels
from studio.training.loop import Guard, TrainStep, train
from studio.training.runs import Recipe
from studio.training.watch import HeldOut, LevelLosses, Memory
from studio.weights import devices
from studio.weights.model import score_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from studio.training.data import Pictures
    from studio.training.trainer import Trainer

_SAMPLE_STEPS = 20
_SAMPLES, _FEWEST = 16, 8
_USUAL = 16_000  # pictures learned between two looks, from which on a look has all its pictures
_TOLD_SECONDS = 0.1  # between two points of a curve
_SLOW_SECONDS = 1.0  # between two of what changes slowly

Told = Generator[Event, Any, None]


@dataclass(frozen=True)
class Lot:
    """The pictures of a run: all that were read, those learned from, those held out."""

    read: Pictures
    learned: Pictures
    held: Pictures
    mirrored: bool  # whether they are learned mirrored as well


@dataclass(frozen=True)
class Terms:
    """What a run was told besides its plan."""

    recipe: Recipe
    save_seconds: float
    patience: float
    tensorboard: bool
    made_by: str


class Looks:
    """What is looked at now and then, so that it can be compared: samples of fixed seeds, held-out
    pictures under fixed noise. The more is learned between two looks, the more is drawn."""

    def __init__(self, trainer: Trainer, lot: Lot, every: int) -> None:
        info, device = trainer.info, trainer.device
        effort = min(1.0, every * trainer.plan.batch / _USUAL)
        self._info, self._device, self._dtype = info, device, trainer.plan.precision
        self._count = round(max(_FEWEST, _SAMPLES * effort))
        # Classes that are not learned are those of before.
        self._classes = "each" if trainer.labelled else ""
        self._memory = Memory(lot.learned, lot.held, lot.mirrored)
        self._held = None
        if len(lot.held):
            self._held = HeldOut(lot.held, info, trainer.plan, device, effort)

    def draw(self, net: nn.Module) -> Iterator[Tensor]:
        """The samples (N, C, H, W) as they come out of noise; the last are the result."""
        score = score_of(net, self._info, self._device, self._dtype)
        sampler, _ = choose.sampler("dpm2m", _SAMPLE_STEPS)
        condition = class_condition(score, self._classes, self._count, 0)
        noise = Noise.of(0, self._count, score.shape, score.sde, device=self._device)
        for step in sampler.run(score, noise, condition):
            yield step.x

    def sheet(self, step: int, x: Tensor) -> Sheet:
        samples = pictures.to_pictures(x, self._info.value_range)
        near = self._memory.nearest(samples)
        return Sheet(step, samples, near.pictures, near.distance, near.memorised)

    def measure(self, net: nn.Module) -> tuple[float, float]:
        """(held-out loss, bits per dimension); nan where nothing is held out."""
        return self._held.measure(net) if self._held is not None else (math.nan, math.nan)


class Running:
    """A TrainJob under way."""

    def __init__(self, trainer: Trainer, lot: Lot, terms: Terms) -> None:
        self.trainer, self.lot, self.terms = trainer, lot, terms
        self.folder, self.plan, self.main = trainer.folder, trainer.plan, trainer.team.main
        self.every = terms.recipe.sample_every if self.main else 0
        self.guard = Guard(trainer)
        self.log, self.measures = (
            Log(self.folder, trainer.step),
            Measures(self.folder, trainer.step),
        )
        self.levels = LevelLosses(trainer.info.sde)
        if trainer.step:
            self.levels.go_on(levels(self.folder))
        self.resumed_at = trainer.step
        self.board = Board(self.folder) if terms.tensorboard and self.main else None
        self.looks = Looks(trainer, lot, self.every) if self.every else None
        kept = sheets.sheets(self.folder) if self.main else []
        self.first, self.last = (kept[0], kept[-1]) if kept else (None, None)
        self._wishes: deque[Any] = deque()
        self._points: list[tuple[float, float]] = []
        self._told_at = self._slow_at = 0.0

    # -- the run ------------------------------------------------------------------------------------

    def run(self, inbox: list[Any]) -> Told:
        """Events to the end of the plan. `inbox`: what was sent before it began."""
        for message in inbox:
            self._hear(message)
        steps = train(self.trainer, self.terms.save_seconds, self.guard, self.terms.patience)
        if self.main:
            places.write_recipe(self.folder, self.terms.recipe)
        try:
            yield from self._earlier()
            yield from self._steps(steps)
        finally:
            steps.close()
            if self.board is not None:
                self.board.close()
            if self.guard.keep and self.trainer.step:
                self._describe()
            elif self.main:  # there is nothing in it that anyone would want
                places.discard(self.folder)
        if self.guard.keep:
            yield from self._ended()

    def _earlier(self) -> Told:
        """The curves of what was trained before; what the model makes before it is trained."""
        if self.log.rows:
            yield from self._tell(Metric("loss", tuple((s, loss) for s, loss, *_ in self.log.rows)))
        for place, name in ((1, "held-out"), (2, "bits")):
            points = tuple((row[0], row[place]) for row in self.measures.rows)
            if points:
                yield from self._tell(Metric(name, points))
        if self.levels.seen.any():
            yield from self._tell(Levels.of(self.levels.rows))
        if self.every and self.last is None:
            yield from self._look()

    def _steps(self, steps: Generator[TrainStep, None, None]) -> Told:
        while self.guard.keep:
            begun_at = time.perf_counter()
            step = next(steps, None)
            if step is None:
                return
            yield from self._after(step, time.perf_counter() - begun_at)
            yield from self._grant()
            due = self.every and step.step % self.every == 0 and not math.isnan(step.loss)
            if due and self.guard.keep:
                yield from self._look()

    def _after(self, step: TrainStep, took: float) -> Told:
        """What there is to tell after a step. Progress comes last: it is where a run is held."""
        self.log.add(step, self.plan.batch, took)
        if step.back is not None:
            self.log.back(step.step)
            self._points.clear()
            rate = self.plan.rate * step.back.eased
            yield from self._tell(RolledBack(step.step, step.back.reason, rate))
        if step.trouble:
            yield from self._tell(Note(f"Not saved, and tried again soon. {step.trouble}"))
        if step.saved is not None:
            self._describe()
            yield from self._tell(Saved(step.saved))
        yield from self._curves(step)
        seen = step.step * self.plan.batch
        yield from self._tell(Progress(step.step, step.total, seen, seconds=self.log.seconds))

    def _curves(self, step: TrainStep) -> Told:
        if math.isnan(step.loss):
            return
        now = time.monotonic()
        self._points.append((step.step, self.log.loss))
        if self.trainer.seen is not None:
            self.levels.add(*self.trainer.seen)
        if self.board is not None:
            self.board.curve("loss", step.step, step.loss)
            self.board.curve("pictures a second", step.step, self.log.speed)
        if now - self._told_at > _TOLD_SECONDS:
            self._told_at = now
            points, self._points = tuple(self._points), []
            yield from self._tell(Metric("loss", points))
        if now - self._slow_at > _SLOW_SECONDS:
            self._slow_at = now
            yield from self._tell(Metric("pace", ((step.step, self.log.speed),)))
            yield from self._tell(Levels.of(self.levels.rows))

    def _ended(self) -> Told:
        """The last look, and what has come of it all."""
        step, stopped = self.trainer.step, self.trainer.stopping
        if self.every and not stopped and (self.last is None or self.last.step != step):
            yield from self._look()
            self._describe()
        yield from self._tell(Done(self.result()))

    # -- what is wished -----------------------------------------------------------------------------

    def _tell(self, event: Event) -> Told:
        """Yield an event, and hear what is sent."""
        self._hear((yield event))

    def _hear(self, message: Any) -> None:
        if isinstance(message, Discard):
            self.guard.keep = False
        elif isinstance(message, StopNow):
            self.trainer.asked = True
        elif message is not None:
            self._wishes.append(message)

    def _grant(self) -> Told:
        """Do what was wished."""
        while self._wishes and self.guard.keep:
            wish = self._wishes.popleft()
            if isinstance(wish, SaveNow):
                yield from self._save()
            elif isinstance(wish, SampleNow) and self.main:
                yield from self._look()

    def _save(self) -> Told:
        try:
            path = self.trainer.save()
        except SaveError as error:
            yield from self._tell(Note(str(error)))
            return
        self._describe()
        yield from self._tell(Saved(path))

    # -- what is looked at --------------------------------------------------------------------------

    def _look(self) -> Told:
        """Draw a sheet and measure; the pictures of others may be made in between."""
        self.looks = self.looks or Looks(self.trainer, self.lot, max(1, self.every))
        step, net, x = self.trainer.step, self.trainer.network(), None
        for x in self.looks.draw(net):  # noqa: B007
            # Nothing is told by this; it is where others may go on, and where a wish is heard.
            yield from self._tell(Metric("pace", ()))
            if not self.guard.keep:
                return
        assert x is not None
        sheet = self.looks.sheet(step, x)
        held_out, bits = self.looks.measure(net)
        devices.give_back()
        self.measures.add(step, held_out, bits, sheet.memorised)
        for name, value in (("held-out", held_out), ("bits", bits)):
            if math.isfinite(value):
                yield from self._tell(Metric(name, ((step, value),)))
        yield from self._show(sheet)

    def _show(self, sheet: Sheet) -> Told:
        self.first, self.last = self.first or sheet, sheet
        try:
            sheets.keep(self.folder, sheet)
        except SaveError as error:
            yield from self._tell(Note(str(error)))
        if self.board is not None:
            _, held_out, bits, memorised = self.measures.rows[-1]
            for name, value in (("held-out loss", held_out), ("bits per dimension", bits),
                                ("learned by heart", memorised)):  # fmt: skip
                self.board.curve(name, sheet.step, value)
            self.board.picture("samples", sheet.step, pictures.grid(sheet.pictures))
        yield from self._tell(sheet)

    # -- what is kept -------------------------------------------------------------------------------

    def result(self) -> TrainResult:
        trainer, read = self.trainer, self.lot.read
        _, held_out, bits, _ = (
            self.measures.rows[-1] if self.measures.rows else (0, *[math.nan] * 3)
        )
        return TrainResult(
            name=self.folder.name,
            step=trainer.step,
            loss=self.log.loss,
            held_out=held_out,
            before=self.first,
            after=self.last,
            path=self.folder,
            bits=bits,
            plan=self.plan,
            pictures=len(read),
            held=len(self.lot.held),
            classes=read.classes,
            skipped=read.skipped,
            pace=self.log.speed,
            seconds=self.log.seconds,
            resumed_at=self.resumed_at,
            stopped=trainer.stopping,
            device=trainer.device,
        )

    def _describe(self) -> None:
        """Write the card and the curves. They are worth less than the run, which is saved by now."""
        if not self.main or not self.trainer.step:
            return
        self.log.close()
        keep_levels(self.folder, self.levels.rows)
        with contextlib.suppress(SaveError):
            card.write(self.folder, self._card())

    def _card(self) -> str:
        rows = self.measures.rows
        return card.text(
            name=self.folder.name,
            data=Path(self.terms.recipe.data).name,
            pictures=self.lot.read,
            command=self.terms.made_by or "score-studio train --recipe recipe.json",
            step=self.trainer.step,
            curve=self.log.curve(),
            seconds=self.log.seconds,
            device=self.trainer.device,
            held=len(self.lot.held),
            measures=[rows[0], *rows[1:][-1:]] if rows else [],
            plan=self.plan,
            samples=f"{places.SAMPLES}/{sheets.file_of(self.last.step)}" if self.last else "",
        )
