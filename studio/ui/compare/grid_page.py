"""A grid of samples: two settings, each over a few values, a table whose cells fill as they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.engine import grid
from studio.engine.events import Begun, Done, Event, Failed, Finished, Note, Picture, Progress
from studio.engine.grid import CellDone, First, GridJob, GridRecipe, Laid
from studio.engine.queue import Waiting
from studio.engine.trajectory import Trajectory
from studio.engine.work import Work
from studio.errors import StudioError
from studio.ui.compare.grid_form import GridForm
from studio.ui.compare.grid_run import GridRun, expected
from studio.ui.compare.grid_use import GridUse
from studio.ui.compare.grid_view import GridView, Place
from studio.ui.dialogs import ErrorBox
from studio.ui.flow.tool import duration, heading, muted, tool_button
from studio.ui.page import columns, controls
from studio.ui.queue_seat import QueueButton, Seat
from studio.ui.run_bar import RunBar
from studio.ui.runner import Runner
from studio.ui.session import Session
from studio.ui.timeline import Timeline


class GridPage(QWidget):
    """A sample and two axes at the left, the table at the right, the way of a cell below it.

    `status` carries words for the status line, `bug` an exception for the crash dialog; `errors` is
    where a person is told of problems. Cells are kept in `folder`, the studio's own if None.
    """

    status = Signal(str)
    bug = Signal(object)

    def __init__(
        self, session: Session, folder: Path | None = None, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setObjectName("gridPage")
        self.session, self._folder = session, folder
        self.errors = ErrorBox()
        self.runner = Runner(session.engine, self.receive)
        self.saver = Runner(session.engine, self._saved)
        self.use = GridUse(session, folder)
        self.form = GridForm(session)
        self.view = GridView()
        self.timeline = Timeline()
        room = self.timeline.sizePolicy()
        room.setRetainSizeWhenHidden(True)  # the cells must not move under a double click
        self.timeline.setSizePolicy(room)
        self._grid: GridRun | None = None
        self._changed = True  # whether what is set is not what was run last
        self._looked_at: Place | None = None  # the cell whose way the timeline has
        self._thumbnails = 0  # frames of the chosen cell that the timeline already has
        self._lay_out()
        self._connect()
        self.view.clear(
            self.tr("Two settings, side by side"),
            self.tr("Choose what changes across and down, and press Run. Cheap cells come first."),
        )
        self._edited()
        self._choose(None)

    def runners(self) -> list[Runner]:
        """Every runner of the page, for closing in order."""
        return [self.runner, self.saver, self.use.errands.runner]

    # -- layout -------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        columns(self, "gridSplit", ((self._left(), 0, 300), (self._right(), 1, 900)))

    def _left(self) -> QWidget:
        self.cost = QLabel()
        self.cost.setObjectName("cost")
        self.cost.setWordWrap(True)
        self.progress = QProgressBar()
        self.progress.setAccessibleName(self.tr("Progress"))
        self.progress.setTextVisible(False)
        self.progress.hide()
        self.verbs = _GridBar(self)
        tip = self.tr("Make this grid after what runs now (Q)")
        self.queue_button = QueueButton(self.session, tip)
        self.queue_button.clicked.connect(self.add_to_queue)
        below = (self.cost, self.errors, self.progress, self.verbs, self.queue_button)
        return controls(self.form, *below)

    def _right(self) -> QWidget:
        self.told = heading("")
        self.told.setObjectName("gridTold")
        self.about = muted()
        self.about.setObjectName("gridAbout")
        self.next_button = tool_button(
            "finish", self.tr("Make next"), self.tr("Make this cell before the others (Enter)")
        )
        self.next_button.setObjectName("gridNext")
        self.save_button = self._save_menu()
        above, below = QHBoxLayout(), QHBoxLayout()
        fit = tool_button("zoom-fit", self.tr("Fit"), self.tr("Show the whole table (Ctrl+0)"))
        fit.setObjectName("gridFit")
        fit.clicked.connect(self.view.zoom_to_fit)
        above.addWidget(self.use, 1)
        above.addSpacing(12)
        above.addWidget(fit)
        above.addWidget(self.save_button)
        below.addWidget(self.told)
        below.addWidget(self.about, 1)
        below.addWidget(self.next_button)
        right = QWidget()
        box = QVBoxLayout(right)
        box.setContentsMargins(4, 12, 12, 8)
        box.setSpacing(6)
        box.addLayout(above)
        box.addWidget(self.view, 1)
        box.addLayout(below)
        box.addWidget(self.timeline)
        return right

    def _save_menu(self) -> QToolButton:
        menu = QMenu(self)
        for text, key, legend in (
            (self.tr("Picture with legend, and tables…"), "Ctrl+S", True),
            (self.tr("Picture without legend, and tables…"), "Ctrl+Shift+S", False),
        ):
            action = menu.addAction(text, lambda legend=legend: self._ask_save(legend))
            action.setShortcut(QKeySequence(key))
            action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            self.addAction(action)
        tip = self.tr("Save the cells there are as a PNG with the recipe, a CSV and a JSON")
        button = tool_button("save", self.tr("Save"), tip)
        button.setObjectName("gridSave")
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        button.setMenu(menu)
        return button

    def _connect(self) -> None:
        self.form.changed.connect(self._edited)
        self.view.chosen.connect(lambda column, row: self._choose((column, row)))
        self.view.wanted_next.connect(lambda column, row: self.make_next((column, row)))
        self.view.wanted_before.connect(self._make_before)
        self.view.wanted_sooner.connect(self._make_sooner)
        self.view.arranged.connect(self._arranged)
        self.next_button.clicked.connect(self._next_clicked)
        self.timeline.scrubbed.connect(self._scrub)
        self.timeline.live_requested.connect(self._follow)
        self.runner.state_changed.connect(self._state)
        # After that: what is next in the queue begins when all is told of what has ended.
        self.seat = Seat(self.session, "grid", self.runner, self._begin_queued)
        for source in (self.runner, self.saver, self.use, self.seat):
            source.failed.connect(self._fail)
        for source in (self.runner, self.saver, self.use):
            source.bug.connect(self.bug)
        context = Qt.ShortcutContext.WindowShortcut
        QShortcut(QKeySequence("Escape"), self, self.runner.stop, context=context)
        QShortcut(QKeySequence("Q"), self, self.add_to_queue, context=context)
        self.use.refresh()

    # -- what is set --------------------------------------------------------------------------------

    def job(self) -> GridJob:
        """What Run starts. Raises SpecError if something is missing or makes no sense."""
        return self._job_of(self.recipe())

    def _job_of(self, recipe: GridRecipe) -> GridJob:
        job = GridJob(recipe, self._folder, self.use.bound)
        job.cells()
        return job

    def recipe(self) -> GridRecipe:
        """The grid as it is set. Raises SpecError if a part of it makes no sense."""
        return self.form.recipe()

    def open_recipe(self, recipe: dict[str, Any]) -> None:
        """Show the settings of a grid's recipe. Raises SpecError if it is none, or the model is not
        here."""
        self.form.show_recipe(spec.from_dict(GridRecipe, recipe))

    def _edited(self) -> None:
        self._changed = True
        self._checked()

    def _checked(self) -> None:
        self._tell_cost()
        self._show_state()

    # -- running ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the grid as it is set; one that was begun goes on where it was."""
        self.errors.clear()
        self.runner.start(self._begin)

    def add_to_queue(self) -> None:
        """Make the grid that is set after what runs now, or at once if nothing does."""
        self.errors.clear()
        try:
            if not self.seat.put(spec.to_dict(self.job().recipe), None):
                self.status.emit(self.tr("In the queue: this grid"))
        except StudioError as error:
            self._fail(error)

    def _begin_queued(self, entry: Waiting, _: Any) -> GridJob:
        """A grid out of the queue. Raises SpecError if it makes no sense."""
        return self._begin(self._job_of(spec.from_dict(GridRecipe, entry.recipe)))

    def _begin(self, job: GridJob | None = None) -> GridJob:
        """Lay out a grid, the one that is set if none is given; its job."""
        job = self.job() if job is None else job
        self._grid = GridRun.of(job, self._grid)
        self._changed = False
        recipe = job.recipe
        across = tuple(grid.said(recipe.x, i) for i in range(len(recipe.x.values)))
        down = tuple(grid.said(recipe.y, i) for i in range(len(recipe.y.values)))
        self.view.lay(across, down)
        self._choose(None)
        self.save_button.setEnabled(False)
        self.progress.setRange(0, 0)
        return job

    # -- another order ------------------------------------------------------------------------------

    def make_next(self, place: Place) -> None:
        """Make a cell before the others, if it waits."""
        if (shown := self._grid) is None or not self._waits(place):
            return
        shown.put_sooner(place, -len(shown.order))
        self._ordered()
        self.status.emit(self.tr("{cell} is made next").format(cell=shown.legend(place)))

    def _make_before(self, place: Place, other: Place) -> None:
        """Make a cell before another, if both wait."""
        if self._grid is not None and self._waits(place) and self._waits(other):
            self._grid.put_before(place, other)
            self._ordered()

    def _make_sooner(self, place: Place, by: int) -> None:
        if self._grid is not None and self._waits(place):
            self._grid.put_sooner(place, by)
            self._ordered()

    def _ordered(self) -> None:
        """Tell the run in which order the cells that wait are made."""
        if self._grid is not None:
            self.runner.send(First(tuple(self._grid.order)))
            self._show_order()
            self._show_next()

    def _arranged(self, columns: tuple[int, ...], rows: tuple[int, ...]) -> None:
        """Columns and rows are shown in another order: so are their values, if these are still set."""
        if (shown := self._grid) is None:
            return
        before = shown.shown_job.recipe
        shown.columns, shown.rows = columns, rows
        self.form.rearrange(before, shown.shown_job.recipe)
        self._checked()

    def _waits(self, place: Place | None) -> bool:
        shown = self._grid
        return shown is not None and place in shown.order and self.runner.busy

    def _next_clicked(self) -> None:
        if self.view.current is not None:
            self.make_next(self.view.current)

    def _state(self, state: str) -> None:
        self._show_state()
        self._show_next()
        if state == "idle":
            self.use.refresh()
        if told := self.verbs.told(state):
            self.status.emit(told)
        if state == "idle":
            self._over()

    def _show_state(self) -> None:
        tip = self.tr("Make the cells of the grid (Ctrl+Return)")
        self.verbs.show_state(self.runner.state, self.form.why_not, tip)
        self.queue_button.show_state(self.runner.state, self.form.why_not)
        self.progress.setVisible(self.runner.busy)

    def _over(self) -> None:
        """The run has ended, or was stopped: cells under way are not kept."""
        if (shown := self._grid) is None:
            return
        if shown.making is not None:
            shown.trajectories.pop(shown.making, None)
            shown.order.insert(0, shown.making)
            shown.making = None
        for place in shown.order:
            self.view.show_cell(place, "waiting", self.tr("Not made"))
            self.view.empty(place)
        self.save_button.setEnabled(bool(shown.done))
        self._choose(self.view.current)
        self._tell_cost()
        if not shown.ended and shown.laid is not None:
            self.status.emit(
                self.tr("Stopped. {done} of {all} cells are kept; Run goes on from there.").format(
                    done=len(shown.done), all=len(shown.laid.cells)
                )
            )

    def _fail(self, error: StudioError) -> None:
        self.errors.show_error(error)
        self.status.emit(error.message)

    # -- events -------------------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        if (shown := self._grid) is None:
            return
        place = shown.place(event.lane)
        match event:
            case Note():
                self.status.emit(self.tr(event.text))
            case Laid():
                self._laid(shown, event)
            case Begun():
                self._cell_begun(shown, place, event.trajectory)
            case Picture():
                self._picture(place, event)
            case Progress():
                self._step(shown, place, event)
                if shown.laid is not None:
                    self.seat.tell(len(shown.done) + shown.failed, len(shown.laid.cells))
            case CellDone():
                self._cell_done(shown, event)
            case Failed():
                self._cell_failed(shown, place, event)
            case Finished():
                shown.ended = True
                self._told_end(shown)

    def _laid(self, shown: GridRun, event: Laid) -> None:
        shown.laid = event
        shown.order = [(cell.column, cell.row) for cell in event.cells]
        self.progress.setRange(0, len(event.cells))
        self._show_order()
        self._tell_cost()
        if event.kept:
            self.status.emit(
                self.tr("Going on: {kept} of {all} cells are kept from before.").format(
                    kept=event.kept, all=len(event.cells)
                )
            )
        else:
            self.status.emit(self.tr("Making {count} cells").format(count=len(event.cells)))

    def _cell_begun(self, shown: GridRun, place: Place, trajectory: Trajectory) -> None:
        shown.making = place
        shown.trajectories[place] = trajectory
        self._leave_order(shown, place)
        self.view.show_cell(place, "making", self.tr("Being made"))
        if place == self.view.current:
            self._choose(place)

    def _picture(self, place: Place, event: Picture) -> None:
        if place == self.view.current:
            self.timeline.set_live(event.frame.log_snr)
            self._add_thumbnails(place)
        if not self._looks_back(place):
            self.view.show_pictures(place, event.frame.x)

    def _step(self, shown: GridRun, place: Place, event: Progress) -> None:
        words = self.tr("step {step} of {total}").format(step=event.step, total=event.total)
        self.view.show_cell(place, "making", words)
        self._tell_cost()

    def _cell_done(self, shown: GridRun, event: CellDone) -> None:
        place = event.column, event.row
        shown.done[place] = event
        shown.making = None
        self._leave_order(shown, place)
        if event.trajectory is not None:
            shown.calls += event.calls
            shown.seconds += event.seconds
        words = self.tr("{calls} calls · {time}").format(
            calls=event.calls, time=duration(event.seconds)
        )
        self.view.show_cell(place, "done", words)
        if not self._looks_back(place):
            self.view.show_pictures(place, event.pictures)
        if place == self.view.current:
            self._add_thumbnails(place)
            self._tell_cell(place)
        self.save_button.setEnabled(True)
        self._count_up(shown)

    def _cell_failed(self, shown: GridRun, place: Place, event: Failed) -> None:
        shown.failed += 1
        shown.making = None
        shown.trajectories.pop(place, None)
        self._leave_order(shown, place)
        # What it is stands at the edges already.
        where = shown.legend(place).replace(" · ", " ") + ": "
        self.view.show_cell(place, "failed", event.message.removeprefix(where))
        self.view.empty(place)
        self.status.emit(event.message)
        if place == self.view.current:
            self._choose(place)
        self._count_up(shown)

    def _count_up(self, shown: GridRun) -> None:
        self.progress.setValue(len(shown.done) + shown.failed)
        self._show_next()
        self._tell_cost()

    def _leave_order(self, shown: GridRun, place: Place) -> None:
        if place in shown.order:
            shown.order.remove(place)
            self._show_order()

    def _show_order(self) -> None:
        if self._grid is None:
            return
        for number, place in enumerate(self._grid.order, 1):
            words = self.tr("Next") if number == 1 else self.tr("No. {n}").format(n=number)
            if self.view.cell(place).words != words:
                self.view.show_cell(place, "waiting", words)

    # -- the cost -----------------------------------------------------------------------------------

    def _tell_cost(self) -> None:
        """Before a run what it will cost, then how far it is, at last what was true."""
        shown = self._grid
        if self.runner.busy and shown is not None:
            self.cost.setText(shown.going())
        elif self.form.why_not:
            # Not twice: an axis says itself what is wrong with it.
            self.cost.setText("" if self.form.told else self.form.why_not)
        elif self._changed or shown is None or not shown.truth():
            self.cost.setText(expected(self.recipe()))
        else:
            self.cost.setText(shown.truth())

    def _told_end(self, shown: GridRun) -> None:
        if shown.failed:
            text = self.tr("The grid is made, but {failed} cells failed").format(
                failed=shown.failed
            )
        else:
            text = self.tr("The grid is made: {count} cells").format(count=len(shown.done))
        self.status.emit(text)

    # -- the way of a cell --------------------------------------------------------------------------

    def _choose(self, place: Place | None) -> None:
        """Show how a cell came about."""
        self._put_back()
        shown = self._grid
        way = shown.trajectories.get(place) if shown is not None and place is not None else None
        self._looked_at = place
        self.timeline.setVisible(way is not None)
        self._thumbnails = 0
        if way is not None and place is not None:
            self.timeline.begin(way.low, way.high)
            self._add_thumbnails(place)
        self._tell_cell(place)
        self._show_next()

    def _put_back(self) -> None:
        """The cell that was looked back in shows its end again."""
        before, shown = self._looked_at, self._grid
        if (
            shown is not None
            and before is not None
            and before in shown.done
            and self._looks_back(before)
        ):
            self.timeline.set_playhead(None)
            self.view.show_pictures(before, shown.done[before].pictures)

    def _looks_back(self, place: Place) -> bool:
        return place == self._looked_at and self.timeline.playhead is not None

    def _add_thumbnails(self, place: Place) -> None:
        assert self._grid is not None
        way = self._grid.trajectories.get(place)
        frames = way.frames[:] if way is not None else []
        self._thumbnails = min(self._thumbnails, len(frames))  # a full budget thins the frames
        for frame in frames[self._thumbnails :]:
            self.timeline.add(frame.log_snr, frame.denoised[0])
        self._thumbnails = len(frames)

    def _scrub(self, log_snr: float) -> None:
        place, shown = self.view.current, self._grid
        if shown is None or place is None or place not in shown.trajectories:
            return
        frame = shown.trajectories[place].nearest(log_snr)
        if frame is not None:
            self.timeline.set_playhead(frame.log_snr)
            self.view.show_pictures(place, frame.x)
            self.about.setText(self.tr("step {step}").format(step=frame.step))

    def _follow(self) -> None:
        place, shown = self.view.current, self._grid
        self.timeline.set_playhead(None)
        if shown is None or place is None:
            return
        if place in shown.done:
            self.view.show_pictures(place, shown.done[place].pictures)
        elif place in shown.trajectories and shown.trajectories[place].frames:
            self.view.show_pictures(place, shown.trajectories[place].frames[-1].x)
        self._tell_cell(place)

    def _tell_cell(self, place: Place | None) -> None:
        shown = self._grid
        if shown is None or place is None:
            self.told.clear()
            hint = self.tr("Choose a cell to see how it came about.")
            self.about.setText("" if shown is None else hint)
            return
        cell = self.view.cell(place)
        self.told.setText(shown.legend(place))
        text = cell.words
        if cell.state == "done" and place not in shown.trajectories:
            text += " · " + self.tr("kept from before, so its way from noise is not there")
        elif self._looks_back(place):
            return
        self.about.setText("" if cell.state == "making" else text)

    def _show_next(self) -> None:
        place, shown = self.view.current, self._grid
        self.next_button.setVisible(self._waits(place))
        first = shown is not None and shown.order[:1] == [place]
        self.next_button.setEnabled(not first)

    # -- saving -------------------------------------------------------------------------------------

    def _ask_save(self, legend: bool) -> None:
        if self._grid is None or not self._grid.done:
            self.status.emit(self.tr("There is no cell to save yet"))
            return
        title = self.tr("Save the grid, with its tables beside it")
        path, _ = QFileDialog.getSaveFileName(self, title, "grid.png", "PNG (*.png)")
        if path:
            self.save_to(Path(path), legend)

    def save_to(self, path: Path, legend: bool = True) -> None:
        """Write the cells there are as a PNG, and a .csv and a .json of the same name."""
        if (shown := self._grid) is None or not shown.done:
            return
        target = path if path.suffix.lower() == ".png" else path.with_name(f"{path.name}.png")
        job, done, facts = shown.shown_job, shown.shown_cells(), shown.facts

        def call() -> Path:
            grid.write(job, done, target, legend, facts)
            return target

        self.errors.clear()
        self.saver.start(lambda: Work(self.tr("Saving"), call))

    def _saved(self, event: Event) -> None:
        if isinstance(event, Done):
            told = self.tr("Saved {path}, with its tables beside it").format(path=event.value)
            self.status.emit(told)


class _GridBar(RunBar):
    """The RunBar of a grid, whose cells are not gone through step by step."""

    def __init__(self, page: GridPage) -> None:
        super().__init__(page, page.runner, page.start)
        self.step.hide()
        self.finish.hide()

    def one_step(self) -> None:
        pass

    def finish_quickly(self) -> None:
        pass
