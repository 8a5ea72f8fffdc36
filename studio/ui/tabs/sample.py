"""Mode 1, Sample: watch pictures emerge from noise, hold them, look around in time, branch, keep them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QPoint, Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.engine.branch import Branch, Node, Tree, branched
from studio.engine.engine import Job
from studio.engine.events import Begun, Done, Event, Finished, Metric, Note, Picture, Progress
from studio.engine.jobs import SampleJob
from studio.engine.paint import taken_out
from studio.engine.queue import Waiting
from studio.engine.trajectory import Frame, Trajectory
from studio.errors import SpecError, StudioError
from studio.ui.branch_menu import BranchMenu, branch_label
from studio.ui.dialogs import ask
from studio.ui.errands import Errands
from studio.ui.history_panel import HistoryPanel
from studio.ui.inspector import Inspector
from studio.ui.keeping import Keeping, Shown
from studio.ui.opening import REPLAY, TRAJECTORY, Offer, OpenReplay
from studio.ui.page import columns, controls, menu_button
from studio.ui.picture_view import PictureView
from studio.ui.queue_seat import QueueButton, Seat
from studio.ui.recipe_panel import RecipePanel, differences, summary
from studio.ui.run_bar import RunBar
from studio.ui.runner import Runner, spawn
from studio.ui.session import Session
from studio.ui.tabs import Tab
from studio.ui.walk import Walk


@dataclass(frozen=True, eq=False)
class _Plan:
    """A run to come: its job, the tree that it belongs to, and where in it."""

    job: Job
    tree: Tree
    label: str
    parent: int | None = None
    log_snr: float | None = None


class SampleTab(Tab):
    """`recipe_requested` carries a recipe that is for another mode. For the canvas, `painting_requested`
    carries a PaintJob and its Finished; `sample_requested` the run of one picture, that picture and a
    name.
    """

    title = "Sample"
    recipe_requested = Signal(dict)
    painting_requested = Signal(object, object)
    sample_requested = Signal(object, object, str)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setObjectName("samplePage")
        self.panel = RecipePanel()
        self.view = PictureView()
        self.view.setObjectName("sampleView")
        self.branching = BranchMenu(self.panel, self)
        onto = self.branching.addAction(
            self.tr("On a mask, on the canvas…"), lambda: self.to_canvas(self.view.current)
        )
        onto.setObjectName("branch_mask")
        self.walk = Walk(self.branching.button(), self._thumbnail, lambda: self.runner.busy)
        self.inspector = Inspector()
        self.history = HistoryPanel(session.engine, session.history, session.queue)
        self.errands = Errands(session.engine)
        self.keeping = Keeping(session.engine, self, self._on_screen)
        self.replays = Runner(session.engine, self._replay_read)
        self._opened: Finished | None = None  # a kept result that is looked at instead of a run
        self._shown: Frame | None = None
        self._plan: _Plan | None = None  # what runs
        self._branches: tuple[Branch, ...] = ()  # of a restored recipe, until something is changed
        self._build()
        self._connect()
        self.panel.set_model(session.model)
        self._empty()
        self._state("idle")

    # -- layout -------------------------------------------------------------------------------------

    def _build(self) -> None:
        parts = ((self._left(), 0, 290), (self._centre(), 1, 760), (self._right(), 0, 250))
        columns(self, "sampleSplit", parts)

    def _left(self) -> QWidget:
        self.verbs = RunBar(self, self.runner, self.start)
        self.run_button = self.verbs.run
        self.queue_button = QueueButton(
            self.session,
            self.tr(
                "Run this recipe after what runs now (Q), or before all that wait (Ctrl+Shift+Enter)"
            ),
        )
        below = (self.errors, self.verbs, self.queue_button)
        return controls(self.panel, *below, least=270, most=380)

    def _centre(self) -> QWidget:
        bar = QHBoxLayout()
        bar.setSpacing(0)
        self.views = QButtonGroup(self)
        for i, (name, text, tip) in enumerate(
            (
                ("denoised", self.tr("Denoised"), self.tr("What the model expects to come out")),
                ("x", self.tr("Noisy state"), self.tr("x_t itself, scaled so that it can be seen")),
                (
                    "score",
                    self.tr("Score"),
                    self.tr("How strongly each pixel is pulled: ‖s·score‖"),
                ),
                ("change", self.tr("Change"), self.tr("What moved since the picture before")),
            )
        ):
            button = QPushButton(text)
            button.setCheckable(True)
            button.setObjectName(f"view_{name}")
            button.setProperty("segment", True)
            button.setToolTip(f"{tip} (X)")
            button.setChecked(name == "denoised")
            self.views.addButton(button, i)
            bar.addWidget(button)
        bar.addStretch()
        self.save_button = menu_button("save", self.tr("Save"), self.keeping.menu())
        self.save_button.setAccessibleName(self.tr("Save and export"))
        self.save_button.setToolTip(self.tr("Save pictures with their recipe, or export the run"))
        bar.addWidget(self.save_button)
        centre = QWidget()
        box = QVBoxLayout(centre)
        box.setContentsMargins(4, 12, 4, 8)
        box.setSpacing(8)
        box.addLayout(bar)
        box.addWidget(self.view, 1)
        box.addWidget(self.walk)
        return centre

    def _right(self) -> QWidget:
        side = QWidget()
        side.setMinimumWidth(220)
        side.setMaximumWidth(340)
        box = QVBoxLayout(side)
        box.setContentsMargins(8, 12, 12, 12)
        box.setSpacing(8)
        box.addWidget(self.inspector)
        box.addSpacing(4)
        box.addWidget(self.history, 1)
        return side

    def _connect(self) -> None:
        self.views.idClicked.connect(lambda _: self._redraw())
        self.branching.wanted.connect(lambda changes: self.branch(**changes))
        self.branching.failed.connect(self._failed)
        self.walk.shown.connect(self._show)
        self.walk.looked.connect(self._looked)
        self.queue_button.clicked.connect(lambda: self.add_to_queue())
        self.history.opened.connect(self._open_result)
        self.history.recipe_requested.connect(self._restore_result)
        self.history.save_requested.connect(self._save_result)
        self.history.compare_requested.connect(self._compare_results)
        self.history.bound_changed.connect(lambda b: self.session.remember(history_bytes=b))
        self.history.bug.connect(self.bug)
        self.session.made.connect(self.history.add)
        if (queue := self.history.queue) is not None:
            self.session.progressed.connect(queue.set_progress)
            queue.stop_requested.connect(self.session.stop_running)
        self.panel.changed.connect(self._forget_branches)
        self.view.context_menu_requested.connect(self._picture_menu)
        self.runner.state_changed.connect(self._state)
        # After that: what is next in the queue begins when all is told of what has ended.
        self.seat = Seat(self.session, "sample", self.runner, self._begin_plan)
        for source in (self.runner.failed, self.session.refused):
            source.connect(self._failed)
        self.keeping.said.connect(self.status)
        self.errands.failed.connect(self._failed)
        self.errands.bug.connect(self.bug)
        for runner in (self.keeping.runner, self.replays):
            runner.failed.connect(self._failed)
            runner.bug.connect(self.bug)
        self.session.model_changed.connect(self._model_changed)
        for key, verb in (
            ("Escape", self._escape),
            ("X", self._next_view),
            ("B", self.branching.first),
            ("L", self.walk.playback.play_or_stop),
            ("Q", self.add_to_queue),
            ("Ctrl+Shift+Return", lambda: self.add_to_queue(first=True)),
        ):
            QShortcut(QKeySequence(key), self, verb, context=Qt.ShortcutContext.WindowShortcut)

    # -- verbs --------------------------------------------------------------------------------------

    def job(self) -> SampleJob:
        job = self.panel.job()
        seed = self.panel.seed.take()
        if seed != job.seed:
            self._branches = ()
        job = replace(job, seed=seed, branches=self._branches)
        self.session.remember(recipe=spec.to_dict(job))
        return job

    def start(self) -> None:
        """Run the recipe now; nothing else may be under way."""
        self._attempt(lambda: self._put(_plan_of(self.job()), first=True))

    def add_to_queue(self, first: bool = False) -> None:
        """Run the recipe after what runs now, or after all that waits."""
        if self.run_button.isEnabled():
            self._attempt(lambda: self._put(_plan_of(self.job()), first))

    def branch(self, **changes: Any) -> None:
        """From the playhead on with other settings, the fields of a Branch."""
        moment = self.walk.moment(self._shown)
        if moment is None:
            self.status.emit(self.tr("Go back on the timeline to the moment to branch at"))
        else:
            self._attempt(lambda: self._put(self._branch_plan(moment, changes), first=True))

    def _branch_plan(self, moment: float, changes: dict[str, Any]) -> _Plan:
        node = self.walk.stem(moment)
        assert node.trajectory is not None
        job = branched(node.trajectory, moment, **changes)
        label = branch_label(changes)
        return _Plan(job, self.walk.tree, label, node.id, job.state.log_snr)

    def run_or_stop(self) -> None:
        self.verbs.run_or_stop()

    def shown(self) -> None:
        self.inspector.load_plot()
        self.history.refresh()

    def runners(self) -> list[Runner]:
        others = [self.errands.runner, self.keeping.runner, self.replays]
        return [self.runner, *others, *self.history.runners()]

    def open_recipe(self, recipe: dict[str, Any]) -> None:
        job = spec.from_dict(SampleJob, recipe)
        spec.check(job)
        if job.model in {e.name for e in self.session.shelf.entries()}:
            self.session.choose_model(job.model)
        self.panel.show_job(job)
        self.panel.seed.lock.setChecked(True)
        self._branches = job.branches

    def changes(self, recipe: dict[str, Any]) -> list[str]:
        new = spec.from_dict(SampleJob, recipe)
        spec.check(new)
        return differences(replace(self.panel.job(), branches=self._branches), new)

    def _attempt(self, verb: Callable[[], None]) -> None:
        self.errors.clear()
        try:
            verb()
        except StudioError as error:
            self._failed(error)

    def _forget_branches(self) -> None:
        if self._branches:
            self._branches = ()
            self.status.emit(self.tr("Changed: the branches of the restored recipe are left out"))

    # -- the queue ----------------------------------------------------------------------------------

    def _put(self, plan: _Plan, first: bool) -> None:
        """Hand a run to the queue, which starts it at once if nothing is under way."""
        job = plan.job if isinstance(plan.job, SampleJob) else plan.job.recipe  # type: ignore[attr-defined]
        if not self.seat.put(spec.to_dict(job), plan, first):
            self.status.emit(
                self.tr("In the queue: {run}").format(run=plan.label)
                if plan.parent is None
                else self.tr("In the queue: the branch runs when the run under way has ended")
            )

    def _begin_plan(self, entry: Waiting, plan: _Plan | None) -> Job:
        """What the queue hands out. Raises StudioError if it cannot run."""
        if plan is None:
            job = spec.from_dict(SampleJob, entry.recipe)
            spec.check(job)
            plan = _plan_of(job)
        self._plan = plan
        self.walk.await_run()
        return plan.job

    # -- events -------------------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        match event:
            case Begun():
                self._begin(event.trajectory)
            case Picture():
                self.walk.show_live(event.frame)
            case Progress():
                self._progress(event)
            case Metric():
                self.inspector.add_points(event.points)
            case Finished():
                self._finished(event)
            case Done():
                self._judged(str(event.value))
            case Note():
                self.status.emit(self.tr(event.text))
                self.view.set_hud(self.tr(event.text))

    def _begin(self, trajectory: Trajectory) -> None:
        plan = self._plan
        assert plan is not None
        self._opened = None
        self.walk.begin(trajectory, plan.tree, plan.label, plan.parent, plan.log_snr)
        self.inspector.clear()
        self.status.emit(self.tr("Sampling"))

    def _progress(self, event: Progress) -> None:
        self.inspector.progress(event)
        if self.walk.looks_live:
            self.view.set_hud(self._hud(event))
        self.seat.tell(event.step, event.total)

    def _thumbnail(self, frame: Frame) -> np.ndarray:
        return frame.denoised[min(self.view.solo or 0, len(frame.denoised) - 1)]

    def _finished(self, event: Finished) -> None:
        self.walk.finish(event, event.pictures[0])
        self.history.add(event)
        self.status.emit(
            self.tr("{calls} network calls in {seconds:.1f} s").format(
                seconds=event.seconds, calls=event.calls
            )
        )

    def _judged(self, verdict: str) -> None:
        """How a replay came out."""
        said = self.tr("Replayed, {verdict}").format(verdict=verdict)
        self.status.emit(said)
        self.view.set_hud(said)

    def _hud(self, event: Progress) -> str:
        rate = event.calls / event.seconds if event.seconds > 0 else 0
        return self.tr("step {step}/{total} · {calls} calls · {rate:.{digits}f}/s").format(
            step=event.step,
            total=event.total,
            calls=event.calls,
            rate=rate,
            digits=0 if rate >= 10 else 1,
        )

    # -- looking ------------------------------------------------------------------------------------

    @property
    def result(self) -> Finished | None:
        """What is looked at, if it came to its end."""
        return self.walk.result if self._opened is None else self._opened

    def _show(self, frame: Frame | None) -> None:
        if frame is not None:
            self._shown, self._opened = frame, None
            self._redraw()

    def _redraw(self) -> None:
        if self._shown is not None:
            self.view.set_pictures(self._shown.view(self._view_name()))

    def _view_name(self) -> str:
        return ("denoised", "x", "score", "change")[max(0, self.views.checkedId())]

    def _next_view(self) -> None:
        self.views.button((self.views.checkedId() + 1) % 4).setChecked(True)
        self._redraw()

    def _looked(self, node: Node) -> None:
        """Another run of the tree is looked at."""
        self.view.set_hud(node.label)
        self.status.emit(node.label)

    def _escape(self) -> None:
        if self.view.solo is not None:
            self.view.solo = None
        elif self.walk.playback.playing:
            self.walk.playback.stop()
        else:
            self.runner.stop()

    # -- states -------------------------------------------------------------------------------------

    def _state(self, state: str) -> None:
        why_not = ""
        if self.session.model is None:
            why_not = self.tr("There is no model on the shelf yet: get one, or train one")
        self.verbs.show_state(state, why_not, self.tr("Sample with this recipe (Ctrl+Enter)"))
        self.queue_button.show_state(state, why_not)
        if told := self.verbs.told(state):
            self.status.emit(told)
        if state == "idle" and self._shown is not None and not self.walk.finished:
            self.status.emit(self.tr("Stopped; what was reached stays on the timeline"))

    def _failed(self, error: StudioError) -> None:
        self.view.set_hud("")
        self.errors.show_error(error)
        self.status.emit(self.tr("Stopped: {problem}").format(problem=error.message))

    def _model_changed(self, entry: Any) -> None:
        self.panel.set_model(entry)
        self._state(self.runner.state)

    def _empty(self) -> None:
        self.view.set_empty_text(
            self.tr("Nothing but noise yet"),
            self.tr("Press Run, and watch pictures emerge from it."),
        )

    # -- the history --------------------------------------------------------------------------------

    def _open_result(self, id: str) -> None:
        self.errands.only(partial(_kept, self.session.history, id), self._show_result)

    def _show_result(self, result: Finished) -> None:
        """Look at a kept result; what runs goes on, and is a click on "live" away."""
        self._opened, self._shown = result, None
        if self.runner.busy:
            self.walk.set_aside()
        else:
            self.walk.clear()
        self.view.set_pictures(result.pictures)
        self.view.set_hud("")

    def _restore_result(self, id: str) -> None:
        self.errors.clear()
        self.errands.only(partial(self.session.history.recipe, id), partial(self._restore, id))

    def _restore(self, id: str, recipe: dict[str, Any]) -> None:
        kind = recipe.get("kind", "sample")
        if kind == "paint":
            history = self.session.history
            self.errands.only(
                lambda: (history.painting(id), _kept(history, id)),
                lambda found: self.painting_requested.emit(*found),
            )
        elif kind != "sample":
            self.recipe_requested.emit(recipe)
        else:
            self._attempt(lambda: self.open_recipe(recipe))
            if not self.errors.text:
                self.status.emit(self.tr("Recipe restored; Run makes these pictures again"))

    def _save_result(self, id: str) -> None:
        call = partial(_kept, self.session.history, id)
        self.errands.only(call, lambda result: self.keeping.save("picture", Shown(result)))

    def _compare_results(self, ids: list[str]) -> None:
        history = self.session.history
        self.errands.only(lambda: [history.recipe(id) for id in ids], self._race)

    def _race(self, recipes: list[dict[str, Any]]) -> None:
        """Offer the samplers and models of kept results as lanes, from one shared start."""
        self._attempt(lambda: self.recipe_requested.emit(_race_of(recipes)))

    # -- keeping ------------------------------------------------------------------------------------

    def _on_screen(self) -> Shown:
        way = self.walk.whole_way()
        return Shown(self.result, way, self._view_name(), self.view.solo or 0)

    def save(self, kind: str) -> None:
        """Ask where, and save what is on screen, by a `kind` of ExportJob."""
        self.keeping.save(kind)

    def _picture_menu(self, index: int, place: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addActions(self.save_button.menu().actions())
        if self.result is not None and isinstance(self.result.recipe.get("seed"), int):
            seed = self.result.recipe["seed"] + index
            menu.addSeparator()
            only = menu.addAction(self.tr("Run this seed alone ({seed})").format(seed=seed))
            only.triggered.connect(lambda: self._only(seed))
        painted = menu.addAction(self.tr("Repaint parts of it on the canvas…"))
        painted.setObjectName("toCanvas")
        painted.setEnabled(self.walk.whole_way() is not None and self.result is not None)
        painted.triggered.connect(lambda: self.to_canvas(index))
        menu.popup(place)

    def to_canvas(self, index: int) -> None:
        """Take a picture with its run to the canvas: parts of it are kept, the rest is branched."""
        way, result = self.walk.whole_way(), self.result
        if way is None or result is None:
            self.status.emit(self.tr("Let a run come to its end first"))
            return

        def take() -> None:
            run = taken_out(way, index)
            name = self.tr("seed {seed}").format(seed=run.recipe["seed"])
            self.sample_requested.emit(run, result.pictures[index], name)

        self._attempt(take)

    def _only(self, seed: int) -> None:
        self.panel.count.setValue(1)
        self.panel.seed.set_value(seed)
        self.panel.seed.lock.setChecked(True)
        self.run_or_stop()

    # -- files --------------------------------------------------------------------------------------

    def open_path(self, path: Path) -> bool:
        """A run that comes as a file: a trajectory to look at, a replay to run."""
        suffix = path.suffix.lower()
        if suffix == TRAJECTORY:
            from studio.engine.trajectory_file import open_trajectory

            self.errors.clear()
            self.errands.only(
                partial(open_trajectory, path), partial(self._show_trajectory, path.stem)
            )
        elif suffix == REPLAY:
            self.errors.clear()
            self.replays.start(lambda: OpenReplay(path))
        return suffix in (TRAJECTORY, REPLAY)

    def _show_trajectory(self, name: str, trajectory: Trajectory) -> None:
        if self.runner.busy:
            self.status.emit(self.tr("Open it again when the run under way has ended"))
            return
        picture = trajectory.frames[-1].denoised[0]
        self.walk.open(trajectory, name, _result_of(trajectory), picture)
        self.inspector.clear()
        self.status.emit(self.tr("Opened {name}: drag along the timeline").format(name=name))

    def _replay_read(self, event: Event) -> None:
        if isinstance(event, Done):
            spawn(self._offer_replay(event.value))
        elif isinstance(event, Note):
            self.status.emit(self.tr(event.text))

    async def _offer_replay(self, offer: Offer) -> None:
        """Show what differs here before anything runs."""
        told = "\n".join(map(str, offer.differences))
        title = self.tr("Some settings are not as they were")
        if not offer.differences:
            title, told = self.tr("Everything is as it was"), summary(offer.replay.job())
        if not offer.runs:
            self._failed(SpecError(offer.differences[0].now, self.tr("Get it, and open again.")))
        elif await ask(self, self.tr("Replay"), title, told, self.tr("Run it")):
            self._attempt(lambda: self._put(_plan_of_replay(offer), first=True))


def _race_of(recipes: list[dict[str, Any]]) -> dict[str, Any]:
    """The recipe of a race whose lanes are runs, from the start of the first. Raises SpecError."""
    from studio.engine.race import Lane, RaceRecipe

    if any(recipe.get("kind", "sample") != "sample" for recipe in recipes):
        raise SpecError("Only runs that sample from noise can race.", "Choose others.")
    jobs = [spec.from_dict(SampleJob, recipe) for recipe in recipes]
    lanes = tuple(
        Lane(j.model, j.sampler, j.classes, j.guidance, j.sde, model_preset=j.model_preset)
        for j in jobs
    )
    return spec.to_dict(RaceRecipe(lanes=lanes, count=min(4, jobs[0].count), seed=jobs[0].seed))


def _plan_of(job: SampleJob) -> _Plan:
    return _Plan(job, Tree(), f"{spec.title(type(job.sampler))} · seed {job.seed}")


def _plan_of_replay(offer: Offer) -> _Plan:
    from studio.ui.opening import RunReplay

    job = offer.replay.job()
    return replace(_plan_of(job), job=RunReplay(offer.replay, job))


def _kept(history: Any, id: str) -> Finished:
    """A result out of the history."""
    return Finished(history.pictures(id), history.recipe(id))


def _result_of(trajectory: Trajectory) -> Finished | None:
    """The end of an opened run, if it came to its end by a recipe that can be read."""
    last = trajectory.frames[-1]
    try:
        job = spec.from_dict(SampleJob, trajectory.recipe)
        spec.check(job)
    except StudioError:
        return None
    ended = last.log_snr >= trajectory.high
    return Finished(last.denoised, spec.to_dict(job), last.calls) if ended else None
