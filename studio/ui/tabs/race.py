"""The race of mode 3: two to four samplers from one start, watched and measured side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.diffusion.catalog import PRESETS
from studio.diffusion.sampler import Sampler
from studio.engine.engine import Job
from studio.engine.events import (
    Begun,
    Done,
    Event,
    Failed,
    Finished,
    Metric,
    Note,
    Picture,
    Progress,
    Saved,
    Standing,
)
from studio.engine.exports import ExportJob
from studio.engine.jobs import FinishWith
from studio.engine.queue import Waiting
from studio.engine.race import MeasureLane, ProbeJob, RaceJob, RaceRecipe, StopLane
from studio.engine.trajectory import Frame, Trajectory
from studio.errors import StudioError
from studio.ui.compare.densities import DensityLens
from studio.ui.compare.lane_editor import LaneEditor, fits
from studio.ui.compare.lane_header import UNDER_WAY
from studio.ui.compare.lane_row import sampler_words, titles
from studio.ui.compare.lanes_view import DENSITY, LanesView
from studio.ui.compare.marks import LETTERS
from studio.ui.compare.playback import Playback, RaceTimeline
from studio.ui.compare.poster import Reel, Strip, poster
from studio.ui.compare.scoreboard import Scoreboard
from studio.ui.compare.view_bar import ViewBar
from studio.ui.keeping import ask_path
from studio.ui.page import columns, controls, menu_button, verbs
from studio.ui.queue_seat import QueueButton, Seat
from studio.ui.recipe_panel import differences
from studio.ui.run_bar import RunBar
from studio.ui.runner import Runner
from studio.ui.session import Session
from studio.ui.tabs import Tab


@dataclass
class _Race:
    """The race on screen."""

    recipe: RaceRecipe
    titles: list[str]
    trajectories: dict[int, Trajectory] = field(default_factory=dict)
    results: dict[int, Finished] = field(default_factory=dict)
    following: bool = True
    shares: dict[int, float] = field(default_factory=dict)  # of each lane's way
    bent: bool = False  # whether a lane was finished otherwise than the recipe says


class RaceTab(Tab):
    title = "Race"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setObjectName("racePage")
        self.exports = Runner(session.engine, self._exported)
        self.probes = Runner(session.engine, self._probed)
        self.editor = LaneEditor()
        self.view = LanesView()
        self.timeline = RaceTimeline()
        self.playback = Playback(self.timeline)
        self.board = Scoreboard()
        self.densities = DensityLens(session.engine)
        self._race: _Race | None = None
        self._model = ""
        self._build()
        self._connect()
        self.editor.set_entries(session.shelf.entries())
        self._model_changed(session.model)
        self._recipe_changed()
        self._state("idle")

    # -- layout -------------------------------------------------------------------------------------

    def _build(self) -> None:
        parts = ((self._left(), 0, 300), (self._centre(), 1, 730), (self._right(), 0, 290))
        columns(self, "compareSplit", parts)

    def _left(self) -> QWidget:
        self.verbs = _RaceBar(self)
        self.queue_button = QueueButton(
            self.session, self.tr("Run this race after what runs now (Q)")
        )
        self.queue_button.clicked.connect(self.add_to_queue)
        return controls(self.editor, self.errors, self.verbs, self.queue_button)

    def _centre(self) -> QWidget:
        self.bar = ViewBar(self.view, self._save_button())
        centre = QWidget()
        box = QVBoxLayout(centre)
        box.setContentsMargins(4, 12, 4, 8)
        box.setSpacing(6)
        box.addWidget(self.bar)
        box.addWidget(self.view, 1)
        box.addWidget(self.timeline)
        box.addWidget(self.playback)
        return centre

    def _right(self) -> QWidget:
        side = QWidget()
        side.setMinimumWidth(240)
        side.setMaximumWidth(380)
        box = QVBoxLayout(side)
        box.setContentsMargins(8, 12, 12, 12)
        box.addWidget(self.board, 1)
        return side

    def _save_button(self) -> QToolButton:
        film = self.tr("Film of the race (GIF or WebP)…")
        rows = (
            (
                "save_picture",
                self.tr("Picture of the race…"),
                "Ctrl+S",
                lambda: self.save("picture"),
            ),
            ("save_film", film, "Ctrl+E", lambda: self.save("film")),
        )
        button = menu_button("save", self.tr("Save"), verbs(self, rows))
        button.setAccessibleName(self.tr("Save and export"))
        button.setToolTip(
            self.tr("Save what is seen with its recipe, or export the race as a film")
        )
        return button

    def _connect(self) -> None:
        self.editor.changed.connect(self._recipe_changed)
        self.editor.probe_wanted.connect(self._probe)
        self.view.stop_requested.connect(self.stop_lane)
        self.view.finish_requested.connect(self.finish_lane)
        self.timeline.scrubbed.connect(self._taken)
        self.timeline.live_requested.connect(self._follow)
        self.playback.moved.connect(self._scrub)
        self.runner.state_changed.connect(self._state)
        self.runner.failed.connect(self._failed)
        # After _state: what is next begins when all is told of what has ended.
        self.seat = Seat(self.session, "race", self.runner, self._begin_queued)
        self.seat.failed.connect(self._failed)
        self.bar.view_changed.connect(lambda _: self._measure_densities())
        self.densities.changed.connect(self._show_densities)
        # One that was given up for another is followed by that one.
        self.densities.runner.state_changed.connect(lambda _: self._measure_densities())
        for runner in (self.exports, self.probes, self.densities.runner):
            runner.failed.connect(self._failed)
            runner.bug.connect(self.bug)
        self.session.model_changed.connect(self._model_changed)
        self.session.shelf_changed.connect(
            lambda: self.editor.set_entries(self.session.shelf.entries())
        )
        for key, verb in (
            ("Escape", self._escape),
            ("X", self.bar.next_view),
            ("M", self.bar.next_mode),
            ("O", self.bar.loupe.toggle),
            ("V", self.bar.arrows.toggle),
            ("L", self.playback.play_or_stop),
            (",", lambda: self.playback.walk(-1)),
            ("Q", self.add_to_queue),
        ):
            QShortcut(QKeySequence(key), self, verb, context=Qt.ShortcutContext.WindowShortcut)

    # -- verbs --------------------------------------------------------------------------------------

    def job(self) -> Job:
        recipe = replace(self.editor.recipe(), seed=self.editor.seed.take())
        return self._begin(recipe)

    def add_to_queue(self) -> None:
        """Run the race that is set after what runs now, or at once if nothing does."""
        self.errors.clear()
        try:
            recipe = replace(self.editor.recipe(), seed=self.editor.seed.take())
            if not self.seat.put(spec.to_dict(recipe), None):
                self.status.emit(self.tr("In the queue: this race"))
        except StudioError as error:
            self._failed(error)

    def _begin_queued(self, entry: Waiting, _: Any) -> Job:
        """A race out of the queue. Raises SpecError if it cannot be shown."""
        return self._begin(self._read(entry.recipe))

    def start(self) -> None:
        self.errors.clear()
        self.runner.start(self.job)

    def stop_lane(self, lane: int) -> None:
        """End one lane where it is; the others go on."""
        self.runner.send(StopLane(lane))

    def finish_lane(self, lane: int, sampler: Sampler) -> None:
        """Bring one lane to its end with another sampler; the others go on."""
        if self._race is None or self.view.state(lane) not in UNDER_WAY:
            return
        self.runner.send(FinishWith(sampler, lane))
        self._race.bent = True
        self._race.titles[lane] += f" → {sampler_words(sampler)}"
        self.view.set_titles(self._race.titles)

    def finish_quickly(self) -> None:
        """Bring every lane to its end with the quick sampler."""
        for lane in range(len(self._race.titles) if self._race else 0):
            self.finish_lane(lane, PRESETS["quick"][1])
        self.runner.resume()

    def runners(self) -> list[Runner]:
        return [self.runner, self.exports, self.probes, self.densities.runner]

    def shown(self) -> None:
        self.board.distances.load()

    def open_recipe(self, recipe: dict[str, Any]) -> None:
        self.editor.show_recipe(self._read(recipe))
        self.editor.seed.lock.setChecked(True)
        self._recipe_changed()

    def changes(self, recipe: dict[str, Any]) -> list[str]:
        new, old = self._read(recipe), self.editor.recipe()
        lines = differences(replace(old, lanes=()), replace(new, lanes=()))
        for i, letter in enumerate(LETTERS):
            was, comes = (r.lanes[i] if i < len(r.lanes) else None for r in (old, new))
            lane = self.tr("Lane {letter}").format(letter=letter)
            if was is not None and comes is not None:
                lines += [f"{lane}, {line}" for line in differences(was, comes)]
            elif was is not None or comes is not None:
                words = [sampler_words(x.sampler) if x else "–" for x in (was, comes)]
                lines.append(f"{lane}: {words[0]} → {words[1]}")
        return lines

    def _read(self, recipe: dict[str, Any]) -> RaceRecipe:
        """An untrusted recipe. Raises SpecError if it is no race that this window can show."""
        read = spec.from_dict(RaceRecipe, recipe)
        read.check()
        fits(read)
        return read

    # -- events -------------------------------------------------------------------------------------

    def _begin(self, recipe: RaceRecipe) -> Job:
        """Clear the stage for a race; its job."""
        self._race = _Race(recipe, titles(recipe.lanes))
        self.playback.stop()
        self.timeline.clear()
        self.densities.clear()
        self._set_lanes()
        return RaceJob(recipe, bits=self.editor.bits.isChecked())

    def receive(self, event: Event) -> None:
        race = self._race
        if race is None:
            return
        match event:
            case Begun():
                race.trajectories[event.lane] = event.trajectory
                self.timeline.begin_lane(event.lane, event.trajectory)
                self.view.set_state(event.lane, "running")
                self.status.emit(self.tr("Racing"))
            case Picture():
                self._picture(race, event)
            case Progress():
                self.board.progress(event)
                race.shares[event.lane] = event.step / max(1, event.total)
                self.seat.tell(round(1000 * sum(race.shares.values()) / len(race.titles)), 1000)
            case Metric():
                self.board.distances.add(event.name, event.points)
            case Standing():
                self._standing(event)
            case Failed():
                words = f"{event.message} {event.hint}".strip()
                self.view.set_state(event.lane, "failed", words)
                self.status.emit(f"{LETTERS[event.lane]}: {event.message}")
            case Finished():
                race.results[event.lane] = event
                self.session.made.emit(event, "")
                self._result(race, event)
            case Note():
                self.status.emit(self.tr(event.text))

    def _picture(self, race: _Race, event: Picture) -> None:
        frame = event.frame
        self.timeline.go(event.lane, frame.log_snr, self.view.lane_view(0).solo or 0)
        if race.following:
            self._show(event.lane, frame)

    def _standing(self, event: Standing) -> None:
        self.board.standing(event)
        # What a failed lane says must stay.
        if event.state not in ("failed", self.view.state(event.lane)):
            self.view.set_state(event.lane, event.state)

    def _result(self, race: _Race, event: Finished) -> None:
        self.status.emit(
            self.tr("Lane {letter}: {calls} network calls in {seconds:.1f} s").format(
                letter=LETTERS[event.lane], seconds=event.seconds, calls=event.calls
            )
        )

    # -- looking ------------------------------------------------------------------------------------

    def _show(self, lane: int, frame: Frame) -> None:
        self.view.show_frame(lane, frame)
        self.view.set_hud(
            lane,
            self.tr("step {step} · {calls} calls").format(step=frame.step, calls=frame.calls),
        )

    def _taken(self, log_snr: float) -> None:
        """A person took the playhead."""
        self.playback.stop()
        self._scrub(log_snr)

    def _scrub(self, log_snr: float) -> None:
        """Every lane as it was at a log-SNR, or as near to it as it came."""
        if self._race is None:
            return
        self._race.following = False
        words = self.tr("Every lane at log-SNR {0}").format(f"{log_snr:.1f}".replace("-", "−"))
        self.playback.told.setText(words)
        self._show_all(log_snr)

    def _follow(self) -> None:
        """Back to the live head."""
        self.playback.stop()
        self.playback.told.clear()
        if self._race is not None:
            self._race.following = True
            self._show_all(float("inf"))

    def _show_all(self, log_snr: float) -> None:
        for lane, trajectory in self._race.trajectories.items() if self._race else ():
            if (frame := trajectory.nearest(log_snr)) is not None:
                self._show(lane, frame)

    def _escape(self) -> None:
        seen = self.view.lane_view(0) if self.view.mode == "side" else self.view.merged
        if seen.solo is not None:
            self.view.leave_solo()
        else:
            self.runner.stop()

    # -- states -------------------------------------------------------------------------------------

    def _state(self, state: str) -> None:
        why_not = ""
        if self.session.model is None:
            why_not = self.tr("There is no model on the shelf yet: get one, or train one")
        self.verbs.show_state(state, why_not, self.tr("Start the race (Ctrl+Enter)"))
        self.queue_button.show_state(state, why_not)
        if told := self.verbs.told(state):
            self.status.emit(told)
        self._measure_densities()
        if state == "idle" and self._race is not None:
            lanes = range(len(self._race.titles))
            for lane in lanes:
                if self.view.state(lane) in UNDER_WAY:
                    self.view.set_state(lane, "stopped")
            if all(self.view.state(lane) == "finished" for lane in lanes):
                self.status.emit(self.tr("Every lane came to its end"))

    def _failed(self, error: StudioError) -> None:
        self.errors.show_error(error)
        self.status.emit(self.tr("Stopped: {problem}").format(problem=error.message))

    def _model_changed(self, entry: Any) -> None:
        if entry is not None:
            self.editor.set_model(entry.name, self._model)
            self._model = entry.name
            self._recipe_changed()
        self._state(self.runner.state)

    def _recipe_changed(self) -> None:
        """Before there is a race on screen, the stage shows the lanes that are set."""
        if self._race is None:
            self._set_lanes()
        if self.runner.busy and self.editor.bits.isChecked():
            for lane in range(len(self._race.titles) if self._race else 0):
                self.runner.send(MeasureLane(lane))

    def _set_lanes(self) -> None:
        lanes = self._race.recipe.lanes if self._race else self.editor.lanes()
        titles = self._race.titles if self._race else self.editor.titles()
        self.view.set_lanes(titles)
        self.bar.set_lanes(len(lanes))
        self.board.set_lanes([(spec.kind(lane.sampler), lane.model) for lane in lanes])
        self.view.set_empty_text(
            self.tr("Nothing but noise yet"),
            self.tr("Press Run: every lane starts from the same noise."),
        )

    # -- densities ----------------------------------------------------------------------------------

    def _measure_densities(self) -> None:
        """While they are looked at: of a race that is held or has ended."""
        race = self._race
        if race is not None and self.view.view == DENSITY:
            racing = self.runner.state in ("running", "stopping")
            self.densities.measure(race.recipe, race.trajectories, racing)

    def _show_densities(self) -> None:
        self.view.show_densities(self.densities.maps, self.densities.words)
        if self.densities.runner.busy:
            done = round(100 * self.densities.progress)
            self.status.emit(self.tr("Following the density: {done} %").format(done=done))
        elif self.densities.maps:
            self.status.emit(self.tr("Bright is where the log density has grown most since noise"))

    # -- trying out ---------------------------------------------------------------------------------

    def _probe(self) -> None:
        """How long a network call of each lane takes, for races of the same time."""
        self.errors.clear()
        self.status.emit(self.tr("Trying out how long a network call takes"))
        self.probes.start(lambda: ProbeJob(self.editor.lanes(), self.editor.count.value()))

    def _probed(self, event: Event) -> None:
        if isinstance(event, Done):
            self.editor.set_speeds(event.value)
            self.status.emit(self.tr("The lanes are set to take the same time"))
        elif isinstance(event, Note):
            self.status.emit(self.tr(event.text))

    # -- keeping ------------------------------------------------------------------------------------

    def save(self, kind: str) -> None:
        """Ask where, and save in the background: what is seen as a "picture", or all as a "film"."""
        race = self._race
        if race is None or any(self.view.frame(i) is None for i in range(len(race.titles))):
            self.status.emit(self.tr("There is nothing to save yet: start a race"))
            return
        path = self._ask_path(kind, race.recipe)
        if path is None:
            return
        titles = tuple(race.titles)
        seen = [self.view.frame(i) for i in range(len(titles))]
        shown = [self.view.seen(i) for i in range(len(titles))]
        # Densities are not there of every lane, nor of every moment.
        view = self.view.view if self.view.view != DENSITY else "denoised"
        sheet = _sheet([f for f in seen if f is not None], titles, view, shown)
        # A recipe that does not lead to these pictures is worse than none.
        recipe = {} if race.bent else spec.to_dict(race.recipe)
        frames: Any = ()
        if kind == "film":
            kept = [race.trajectories[i] for i in sorted(race.trajectories)]
            frames = Reel(
                self.timeline.times,
                lambda when: _sheet([t.nearest(when) for t in kept], titles, view),
            )
        name = "film" if kind == "film" else "sheet"
        job = ExportJob(path, name, sheet[None], recipe, 0, frames)
        self.exports.start(lambda: job)

    def _ask_path(self, kind: str, recipe: RaceRecipe) -> Path | None:
        film = kind == "film"
        suffix = ".webp" if film else ".png"
        kinds = "WebP (*.webp);;GIF (*.gif)" if film else "PNG (*.png)"
        name = f"race-{recipe.seed}{suffix}"
        return ask_path(self, self.tr("Save"), name, kinds)

    def _exported(self, event: Event) -> None:
        if isinstance(event, Saved):
            told = self.tr("Saved {path}").format(path=event.path)
            if self._race is not None and self._race.bent:
                told += self.tr(", without a recipe: a lane was finished with another sampler")
            self.status.emit(told)


class _RaceBar(RunBar):
    """The RunBar of a race: finishing brings every lane to its end."""

    def __init__(self, tab: RaceTab) -> None:
        self._tab = tab
        super().__init__(tab, tab.runner, tab.start)

    def finish_quickly(self) -> None:
        if self._tab.runner.state in ("running", "paused"):
            self._tab.finish_quickly()


def _sheet(
    frames: list[Any], titles: tuple[str, ...], view: str, shown: Sequence[np.ndarray | None] = ()
) -> np.ndarray:
    """A moment of every lane as one picture, uint8 (H, W, 3): what is shown of each, else a view."""
    seen = shown or [None] * len(frames)
    strips = [
        Strip(frame.view(view) if there is None else there, title, f"{frame.calls} calls")
        for frame, title, there in zip(frames, titles, seen, strict=True)
    ]
    return poster(strips)
