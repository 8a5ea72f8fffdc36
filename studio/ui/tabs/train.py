"""Mode 4, Train: a folder of pictures becomes a model, and one watches it learn."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtCore import QTimer
from PySide6.QtGui import (
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QKeySequence,
    QShortcut,
    QShowEvent,
)
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from studio.engine import train_jobs
from studio.engine.events import Done, Event, Levels, Metric, Note, Progress, Saved
from studio.engine.exports import ExportJob
from studio.engine.sheets import Sheet
from studio.engine.train_events import Discard, RolledBack, SampleNow, SaveNow, TrainResult
from studio.engine.train_jobs import CheckPlan, RunFound, TrainJob
from studio.errors import SpecError, StudioError
from studio.training.check import Checked
from studio.ui.dialogs import ask
from studio.ui.errands import Errands
from studio.ui.keeping import ask_path
from studio.ui.page import columns, menu_button, scrolled, stacked
from studio.ui.runner import Runner, spawn
from studio.ui.session import Session
from studio.ui.tabs import Tab
from studio.ui.train import words
from studio.ui.train.cards import EarlierRuns, ResultCard
from studio.ui.train.check_card import CheckCard
from studio.ui.train.facts import Facts
from studio.ui.train.folder_side import PACK, FolderSide
from studio.ui.train.live_view import LiveView
from studio.ui.train.plan_panel import PlanPanel
from studio.ui.train.record import Record
from studio.ui.train.train_bar import TrainBar

_TICK = 250  # milliseconds between two writings of the numbers
_PULSE = 1000  # and of what is said while nothing comes
_PICTURES, _TRAINING = 0, 1


class TrainTab(Tab):
    """Two views in the middle: the pictures that are learned from, and the training as it goes."""

    title = "Train"
    keeps = True

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setObjectName("trainPage")
        self.setAcceptDrops(True)
        self.folder = FolderSide(session.engine)
        self.plan = PlanPanel()
        self.card = CheckCard()
        self.facts = Facts()
        self.result = ResultCard()
        self.live = LiveView()
        self.earlier = EarlierRuns()
        self.bar = TrainBar()
        self.checker = Runner(session.engine, self._check_told)
        self.errands = Errands(session.engine)
        self.exports = Runner(session.engine, self._exported)
        self.record = Record()
        self._job: TrainJob | None = None
        self._ended = self._discarding = self._failing = False
        self._unseen = False  # whether it came to its end while another mode was looked at
        self._saved_at = 0  # the step that the model on disk is of
        self._runs: list[RunFound] = []  # earlier ones, the latest first
        self._checked_plan: Any = None
        self._note = self._marked = ""
        self._soon = QTimer(self, singleShot=True, interval=_TICK)
        self._soon.timeout.connect(self._tell)
        self._pulse = QTimer(self, interval=_PULSE)
        self._pulse.timeout.connect(self._tell)
        self._build()
        self._connect()
        self._models_changed()
        self._plan_changed()
        self.show_view(_PICTURES)

    # -- layout -------------------------------------------------------------------------------------

    def _build(self) -> None:
        page = QWidget()
        parts = (
            (self.folder.panel, 0, 290),
            (self._centre(), 1, 740),
            (self._right(), 0, 294),
        )
        columns(page, "trainSplit", parts)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addWidget(self.earlier)
        box.addWidget(page, 1)

    def _centre(self) -> QWidget:
        self.views = QButtonGroup(self)
        bar = QHBoxLayout()
        bar.setSpacing(0)
        for i, (name, text, tip) in enumerate(
            (
                ("view_pictures", self.tr("Pictures"), self.tr("What it learns from")),
                ("view_training", self.tr("Training"), self.tr("How it learns")),
            )
        ):
            button = QPushButton(text)
            button.setObjectName(name)
            button.setProperty("segment", True)
            button.setCheckable(True)
            button.setToolTip(f"{tip} (Alt+{i + 1})")
            self.views.addButton(button, i)
            bar.addWidget(button)
        bar.addStretch()
        self.past = QMenu(self)
        self.past.aboutToShow.connect(self._fill_past)
        bar.addWidget(past := menu_button("history", self.tr("Earlier"), self.past))
        past.setToolTip(self.tr("Look at a training that has ended: its curves and samples"))
        self.view = QStackedWidget()
        self.view.setObjectName("trainView")
        self.view.setAccessibleName(self.tr("Pictures, or the training as it goes"))
        self.view.addWidget(self.folder.page)
        self.view.addWidget(self.live)
        centre = QWidget()
        box = QVBoxLayout(centre)
        box.setContentsMargins(8, 12, 8, 10)
        box.setSpacing(8)
        box.addLayout(bar)
        box.addWidget(self.view, 1)
        return centre

    def _right(self) -> QWidget:
        self.side = QStackedWidget()
        for part in (stacked(self.plan), stacked(self.facts, self.result)):
            self.side.addWidget(scrolled(part))
        side = QWidget()
        side.setMinimumWidth(284)
        side.setMaximumWidth(380)
        box = QVBoxLayout(side)
        box.setContentsMargins(8, 12, 12, 12)
        box.setSpacing(8)
        box.addWidget(self.side, 1)
        for widget in (self.card, self.errors, self.bar):
            box.addWidget(widget)
        return side

    def _connect(self) -> None:
        self.views.idClicked.connect(self.show_view)
        self.folder.changed.connect(self._plan_changed)
        self.folder.opened.connect(self._folder_opened)
        self.folder.said.connect(self.status)
        self.folder.page.told.connect(self._show_state)
        self.plan.changed.connect(self._plan_changed)
        self.card.sigma_wanted.connect(self.plan.set_sigma_max)
        self.result.use_requested.connect(self.use)
        self.earlier.go_on_requested.connect(self.go_on)
        self.live.lapse.film_requested.connect(self.ask_film)
        self.bar.check_requested.connect(self.check_or_stop)
        self.bar.run_requested.connect(self.run_or_stop)
        self.bar.pause_requested.connect(self.pause_or_go)
        self.bar.sample_requested.connect(
            lambda: self._send(SampleNow(), self.tr("Drawing samples"))
        )
        self.bar.save_requested.connect(lambda: self._send(SaveNow(), self.tr("Saving")))
        self.bar.discard_requested.connect(self.ask_discard)
        self.runner.state_changed.connect(self._state)
        self.runner.failed.connect(self._run_failed)
        self.checker.state_changed.connect(lambda _: self._show_state())
        self.checker.failed.connect(self._failed)
        self.errands.failed.connect(self._failed)
        self.exports.failed.connect(self._failed)
        for part in (self.folder, self.checker, self.errands, self.exports):
            part.bug.connect(self.bug)
        self.session.model_changed.connect(lambda _: self._models_changed())
        self.session.shelf_changed.connect(self._models_changed)
        for keys, verb in (
            ("Ctrl+Return", self.run_or_stop),
            ("Ctrl+Shift+Return", self.check_or_stop),
            ("K", self.pause_or_go),
            ("N", self.bar.sample.click),
            ("Ctrl+S", self.bar.save.click),
            ("X", self.live.wall.next_view),
            ("L", self.live.lapse.play_or_stop),
            (",", lambda: self.live.lapse.walk(-1)),
            (".", lambda: self.live.lapse.walk(1)),
            ("Ctrl+E", self.ask_film),
            ("Alt+1", lambda: self.show_view(_PICTURES)),
            ("Alt+2", lambda: self.show_view(_TRAINING)),
        ):
            QShortcut(QKeySequence(keys), self, verb)

    def show_view(self, place: int) -> None:
        """Show the pictures (0) or the training (1), with what belongs beside them."""
        self.views.button(place).setChecked(True)
        self.view.setCurrentIndex(place)
        # The samples want the room that the folder's column has.
        self.folder.panel.setVisible(place == _PICTURES)
        self.side.setCurrentIndex(int(place == _TRAINING and bool(self.record.name)))
        self._show_card()

    # -- entering -----------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.live.load()
        self._unseen = False
        self._tell()
        self._look_for_runs()

    def _look_for_runs(self) -> None:
        """Offer to go on with what was interrupted. Waits until the page is on screen."""
        if self.isVisible() and not self.runner.busy:
            self.errands.do(train_jobs.runs, self._offer)

    def _offer(self, runs: list[RunFound]) -> None:
        self._runs = runs
        if self.runner.busy:
            return
        self.earlier.show_runs(runs)
        for run in runs:  # the step under way when it was stopped counts as well
            if run.name == self.record.name and run.step == self.record.step + 1:
                self.record.step = run.step
                self._tell()
                if self.result.isVisible() and not self._ended:
                    self._kept()

    def _models_changed(self) -> None:
        if self.runner.busy:
            return  # what trains is what is shown; it is looked at again when that has ended
        used = self.session.model.name if self.session.model else ""
        self.plan.set_entries(self.session.shelf.entries(), used)
        self._suggest()

    # -- the folder ---------------------------------------------------------------------------------

    def ask_open(self) -> bool:
        self.folder.panel.ask()
        return True

    def open_path(self, path: Path) -> bool:
        """A folder or pack that is dropped is what will be learned from."""
        if not path.is_dir() and path.suffix.lower() != PACK:
            return False
        if self.runner.busy:
            self.status.emit(self.tr("Drop it again when the training under way has ended"))
            return True
        self.errors.clear()
        self.folder.open(path)
        return True

    def _folder_opened(self, path: Path) -> None:
        self.errors.clear()
        self.plan.forget_name()
        self._suggest()
        self.show_view(_PICTURES)

    def _suggest(self) -> None:
        if self.folder.path is not None and not self.runner.busy:
            taken = {entry.name for entry in self.session.shelf.entries()}
            self.plan.suggest(self.folder.path.stem, taken)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        paths = [Path(u.toLocalFile()) for u in event.mimeData().urls() if u.isLocalFile()]
        if paths and (paths[0].is_dir() or paths[0].suffix.lower() == PACK):
            self.folder.page.welcome.set_over(True)
            event.acceptProposedAction()

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self.folder.page.welcome.set_over(False)

    def dropEvent(self, event: QDropEvent) -> None:
        self.folder.page.welcome.set_over(False)
        paths = [Path(u.toLocalFile()) for u in event.mimeData().urls() if u.isLocalFile()]
        if paths and self.open_path(paths[0]):
            event.acceptProposedAction()

    # -- the plan -----------------------------------------------------------------------------------

    def job(self) -> TrainJob:
        name = self.plan.result()
        entries = {entry.name: entry for entry in self.session.shelf.entries()}
        if name in entries:
            there = self.tr("“{0}” is there already.")
            if entries[name].ships:
                there = self.tr("“{0}” ships with the studio.")
            raise SpecError(
                there.format(name),
                self.tr("Choose another name. An interrupted training is offered above the page."),
            )
        return TrainJob(
            data=self.folder.data(),
            plan=self.plan.plan(),
            choices=self.folder.choices(),
            out=name,
            sample_every=self.plan.every.value(),
        )

    def _plan_changed(self) -> None:
        self.folder.set_size(self.plan.side)
        self._show_state()
        self._show_card()

    def check_or_stop(self) -> None:
        """Try one real step, or end the trying."""
        if self.checker.busy:
            self.checker.stop()
        elif self.bar.check.isEnabled() and not self.runner.busy:
            self.errors.clear()
            self.card.hide()
            self._checked_plan = None
            self.checker.start(self._check_job)

    def _check_job(self) -> CheckPlan:
        job = CheckPlan(self.folder.data(), self.plan.plan(), self.folder.choices())
        self._checked_plan = job.plan, job.choices, job.data
        self.status.emit(self.tr("Checking the plan: one real step"))
        return job

    def _check_told(self, event: Event) -> None:
        match event:
            case Note():
                self.status.emit(self.tr(event.text))
            case Done() if isinstance(event.value, Checked):
                self.card.show_checked(event.value)
                self._show_card()
                self.status.emit(
                    self.tr("Checked: about {0} for the whole run").format(
                        words.duration(event.value.seconds)
                    )
                )

    def _show_card(self) -> None:
        """The card is of the plan, and pales when that is another."""
        if self._checked_plan is None:
            return
        now: Any = None
        with contextlib.suppress(StudioError):
            now = self.plan.plan(), self.folder.choices(), self.folder.data()
        self.card.set_stale(now != self._checked_plan)
        self.card.setVisible(self.side.currentIndex() == 0 and not self.runner.busy)

    # -- the run ------------------------------------------------------------------------------------

    def run_or_stop(self) -> None:
        """Train the plan; or end what trains, and keep it."""
        if self.runner.busy:
            self.runner.stop()
        elif self.bar.run.isEnabled():
            self.start()

    def start(self) -> None:
        self.errors.clear()
        self.checker.stop()
        try:
            job = self.job()
        except StudioError as error:
            self._failed(error)
            return
        self._begin(job, Record(job.out, self._about(job), total=job.plan.steps))

    def go_on(self, run: RunFound) -> None:
        """Train on from where an earlier run stopped."""
        self.errors.clear()
        self.earlier.hide()
        self.status.emit(self.tr("Reading “{name}”").format(name=run.name))
        self.errands.do(
            lambda: (train_jobs.resumed(run.folder), train_jobs.sheets(run.folder)),
            partial(self._resume, run),
        )

    def look_back(self, run: RunFound) -> None:
        """Show the curves and the samples of an earlier training."""
        self.errands.do(lambda: Record.of(run), partial(self._look_back, run))

    def _look_back(self, run: RunFound, record: Record) -> None:
        if self.runner.busy:
            return
        self.record = record
        self.live.begin(record)
        self.card.hide()
        self.show_view(_TRAINING)
        told = self.tr("“{name}” came to step {step} of {total}, {when}.").format(
            name=run.name,
            step=words.count(run.step),
            total=words.count(run.total),
            when=words.moment(run.when),
        )
        self.result.show_result(run.name, told)
        self.status.emit(told)
        self._tell()

    def _fill_past(self) -> None:
        self.past.clear()
        for run in self._runs:
            text = f"{run.name}, {words.moment(run.when)}"
            action = self.past.addAction(text, partial(self.look_back, run))
            action.setEnabled(not self.runner.busy)
        if not self._runs:
            self.past.addAction(self.tr("There is none yet")).setEnabled(False)
        elif self.runner.busy:
            self.past.addAction(self.tr("While one trains, it is shown")).setEnabled(False)

    def _resume(self, run: RunFound, kept: tuple[TrainJob, list[Sheet]]) -> None:
        job, sheets = kept
        if self.runner.busy:
            return
        record = Record(run.name, self._about(job), run.step, job.plan.steps)
        record.add_sheets(sheets)
        record.notes.append(self.tr("Goes on from step {0}").format(words.count(run.step)))
        if Path(job.data).is_dir():
            self.folder.open(Path(job.data))
            self.folder.show_choices(job.choices)
        self.plan.show_plan(job.plan, run.name)
        self.plan.set_every(job.sample_every)
        self._begin(job, record)

    def _begin(self, job: TrainJob, record: Record) -> None:
        self._job, self.record = job, record
        self._ended = self._discarding = self._failing = False
        self._saved_at, self._note = record.step, ""
        self.result.hide()
        self.earlier.hide()
        self.card.hide()
        self.live.begin(record)
        self.show_view(_TRAINING)
        self.runner.start(lambda: job)
        self._tell()

    def _about(self, job: TrainJob) -> str:
        """A plan in a line."""
        start = self.tr("from {0}").format(job.plan.start) if job.plan.start else ""
        parts = (
            Path(job.data).stem,
            start or self.tr("from scratch"),
            self.tr("{0} a step").format(job.plan.batch),
            self.tr("rate {0}").format(words.short(job.plan.rate)),
        )
        return " · ".join(parts)

    def pause_or_go(self) -> None:
        """Hold the training where it is, with the model in memory; or let it go on."""
        if self.runner.state == "paused":
            self.runner.resume()
        else:
            self.runner.pause()

    def _send(self, message: Any, said: str) -> None:
        """A wish for the run under way. One that is held makes one step for it."""
        if self.runner.state not in ("running", "paused"):
            return
        self.runner.send(message)
        if self.runner.state == "paused":
            self.runner.step()
        self.status.emit(said)

    def ask_discard(self) -> None:
        """Ask once, then end the run and delete what it has made."""
        if self.runner.state in ("running", "paused"):
            spawn(self._discard())

    async def _discard(self) -> None:
        question = self.tr("Discard “{name}”?").format(name=self.record.name)
        said = self.tr("The model and its {steps} steps are deleted for good.").format(
            steps=words.count(self.record.step)
        )
        job = self._job
        if not await ask(self, self.tr("Discard the training"), question, said, self.tr("Discard")):
            return
        if self._job is job and self.runner.state in ("running", "paused"):
            self._discarding = True
            self.runner.send(Discard())
            self.runner.resume()

    def use(self, name: str) -> None:
        """Draw pictures with a model."""
        self.session.look_again()
        self.session.choose_model(name)
        self.leave.emit("sample")

    # -- events -------------------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        record = self.record
        match event:
            case Progress():
                record.advance(event.step, event.total, event.calls, event.seconds)
                self._note = ""
            case Metric():
                record.add(event.name, event.points)
            case Levels():
                record.levels = event
            case Sheet():
                record.add_sheets([event])
            case RolledBack():
                self._rolled_back(event)
            case Saved():
                self._saved_at = record.step
            case Note():
                self._note = self.tr(event.text)
                self._say(self._note)
            case Done() if isinstance(event.value, TrainResult):
                self._done(event.value)
        self.live.touch()
        if not self._soon.isActive():
            self._soon.start()

    def _rolled_back(self, event: RolledBack) -> None:
        self.record.go_back(event.step)
        said = self.tr("{reason} Back to step {step}; learning rate {rate} from here.").format(
            reason=event.reason, step=words.count(event.step), rate=words.short(event.rate)
        )
        self.record.notes.append(said)
        self._say(said)

    def _done(self, result: TrainResult) -> None:
        self._ended, self._unseen = True, not self.isVisible()
        self.record.step = self._saved_at = result.step
        self.record.add_sheets(sheet for sheet in (result.before, result.after) if sheet)
        self.session.look_again()
        text = self.tr("“{name}” is on the shelf, after {steps} steps.").format(
            name=result.name, steps=words.count(result.step)
        )
        self.result.show_result(result.name, text)
        self.status.emit(text)

    def _tell(self) -> None:
        """Write the numbers, a few times a second."""
        self.facts.show_record(self.record)
        state = self._state_words()
        self.facts.show_state(state)
        if (marked := self._mark_words()) != self._marked:
            self._marked = marked
            self.mark.emit(marked)
        if self.runner.state == "running" and not self._note:
            self._say(state)

    def _say(self, text: str) -> None:
        """In the status line, unless another mode is looked at, whose line it is."""
        if text and self.isVisible():
            self.status.emit(text)

    def _mark_words(self) -> str:
        """How far the run is, for those who look at another mode."""
        if self.runner.state == "paused":
            return self.tr("paused")
        if self.runner.state == "idle" or not self.record.total:
            return self.tr("ready") if self._unseen else ""
        return f"{self.record.step / self.record.total:.0%}"

    def _makes_way(self) -> bool:
        """Whether another mode computes, which a training waits for."""
        return any(
            run.state == "running" and not run.background
            for run in self.session.engine.runs()
            if getattr(run.job, "lane", "device") == "device"
        )

    def _state_words(self) -> str:
        """How the run stands, in a sentence."""
        record = self.record
        if self.runner.state == "idle":
            return ""
        if self.runner.state == "stopping":
            return self.tr("Saving what it has come to")
        if self.runner.state == "paused":
            return self.tr("Paused. The model stays in memory; Sample and Canvas can be used.")
        if self._makes_way():
            return self.tr("Waiting while another mode computes")
        if self._note:
            return self._note
        left = record.seconds_left
        if left == left:
            return self.tr("Training, about {0} left").format(words.duration(left))
        return self.tr("Training")

    # -- states -------------------------------------------------------------------------------------

    def _state(self, state: str) -> None:
        self.folder.set_locked(state != "idle")
        self.plan.setEnabled(state == "idle")
        self._show_state()
        self._pulse.start() if state == "running" else self._pulse.stop()
        if state == "paused":
            self._say(self._state_words())
        if state == "idle":
            self._run_ended()
        self._tell()
        self._show_card()

    def _show_state(self) -> None:
        why_not = self.folder.why_not()
        self.bar.show_state(self.runner.state, self.checker.busy, why_not)

    def _run_ended(self) -> None:
        """The run is over, whichever way."""
        if self._discarding and not self._failing:
            self.status.emit(
                self.tr("Discarded: nothing of “{0}” was kept").format(self.record.name)
            )
            self.record = Record()
            self.live.begin(self.record)
            self.show_view(_PICTURES)
        elif not self._ended and not self._failing:
            self._kept()
        self.session.look_again()
        self._suggest()
        self._look_for_runs()

    def _kept(self) -> None:
        """It was stopped: what it came to is on the shelf, and can go on."""
        name = self.record.name
        if name in {entry.name for entry in self.session.shelf.entries() if entry.info}:
            text = self.tr("“{name}” is kept at step {step}. It can go on later.").format(
                name=name, step=words.count(self.record.step)
            )
            self.result.show_result(name, text)
        else:
            text = self.tr("Stopped before anything was learned")
        self.status.emit(text)

    def _run_failed(self, error: StudioError) -> None:
        """What happened, and what of the run is kept."""
        self._failing = True
        kept = self.tr("Nothing was kept: it had not begun.")
        if self._saved_at:
            kept = self.tr("Kept: “{name}” as it was at step {step}.").format(
                name=self.record.name, step=words.count(self._saved_at)
            )
        shown = type(error)(error.message, f"{error.hint} {kept}".strip())
        self._failed(shown)

    def _failed(self, error: StudioError) -> None:
        self.errors.show_error(error)
        self.status.emit(error.message)

    # -- keeping ------------------------------------------------------------------------------------

    def ask_film(self) -> None:
        """Ask where, and save the samples through the training as a film."""
        sheets = self.record.sheets
        # Of a run that was gone on with by another plan, the first sheets may have fewer pictures.
        sheets = [s for s in sheets if s.pictures.shape == sheets[-1].pictures.shape]
        if len(sheets) < 2:
            self.status.emit(self.tr("A film needs the samples of two steps at least"))
            return
        if self.exports.busy:
            self.status.emit(self.tr("Something is being saved already; a moment"))
            return
        kinds = "WebP (*.webp);;GIF (*.gif);;MP4 (*.mp4)"
        name, title = f"{self.record.name or 'training'}.webp", self.tr("Save a film")
        if (path := ask_path(self, title, name, kinds)) is None:
            return
        stacks, steps = (tuple(s.pictures for s in sheets), tuple(s.step for s in sheets))
        job = ExportJob(path, "film", stacks[-1], {}, frames=stacks, steps=steps)
        self.exports.start(lambda: job)

    def _exported(self, event: Event) -> None:
        if isinstance(event, Saved):
            self.status.emit(self.tr("Saved {path}").format(path=event.path))

    # -- closing ------------------------------------------------------------------------------------

    def at_stake(self) -> str:
        if not self.runner.busy:
            return ""
        return self.tr(
            "“{name}” is being trained, at step {step} of {total}. Closing saves it, and it can go "
            "on from there next time."
        ).format(
            name=self.record.name,
            step=words.count(self.record.step),
            total=words.count(self.record.total),
        )

    def closing(self) -> None:
        self._soon.stop()
        self._pulse.stop()
        self.folder.stop()

    def runners(self) -> list[Runner]:
        others = self.checker, self.errands.runner, self.exports
        return [self.runner, *others, *self.folder.runners()]
