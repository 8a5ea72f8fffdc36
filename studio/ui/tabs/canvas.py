"""Mode 2, Canvas: paint what should change, sketch, and let the model repaint it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.diffusion.sampler import Sampler
from studio.diffusion.tasks import Sketch
from studio.engine.engine import Job
from studio.engine.events import Begun, Event, Finished, Note, Picture, Progress, Shares
from studio.engine.paint import Layers, PaintJob, PaintRecipe, Rect, Repaint, Touch
from studio.engine.trajectory import Trajectory
from studio.errors import PictureError, SpecError, StudioError
from studio.ui.canvas.document import Document
from studio.ui.canvas.files import CanvasFiles
from studio.ui.canvas.live import Live
from studio.ui.canvas.mixer import Mixer, Term
from studio.ui.canvas.options_bar import OptionsBar
from studio.ui.canvas.past import Now, Past, Plan
from studio.ui.canvas.staging import Staging, Taken, noised, of_document, sketched
from studio.ui.canvas.strip import CandidateStrip
from studio.ui.canvas.task_panel import TaskPanel
from studio.ui.canvas.tool_strip import ToolStrip
from studio.ui.canvas.view import CanvasView
from studio.ui.canvas.waiting import PaintQueue
from studio.ui.canvas.welcome import Samples
from studio.ui.dialogs import ask
from studio.ui.page import columns, controls, menu_button, stacked, verbs
from studio.ui.recipe_panel import RecipePanel, differences
from studio.ui.run_bar import RunBar
from studio.ui.runner import Runner, spawn
from studio.ui.session import Session
from studio.ui.tabs import Tab

_COARSE = 4  # times the model's side: up to there a box may be whole, for it to see what it knows
_SETTLED = 60  # milliseconds from the last change to what follows from it
_LIVE_CALLS = 40  # what a live run may cost; a dearer sampler is replaced
_PADDING = 0.35  # of the paint's longer side, around it in a box that follows it


class CanvasTab(Tab):
    title = "Canvas"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setObjectName("canvasPage")
        self.files = CanvasFiles(session, self, self._extras)
        self.view = CanvasView()
        self.samples = Samples(self.view)
        self.tools = ToolStrip(self.view)
        self.options = OptionsBar(self.view, self.files.masks)
        self.strip = CandidateStrip()
        self.staging = Staging(self.view, self.strip)
        self.task = TaskPanel()
        self.panel = RecipePanel(candidates=4)
        self.mixer = Mixer()
        self.past = Past(
            self,
            self.panel,
            self.runner,
            self.staging,
            self.strip,
            self._now,
            lambda plan: self.runner.start(lambda: self._stage(plan)),
            self._show_frame,
        )
        self.queue = PaintQueue(self, session, self._queued)
        self._box: Rect = (0, 0, 1, 1)  # of the run under way
        self._job: PaintJob | None = None  # of its last leg
        self._whole: PaintJob | None = None  # a restored painting, until something is changed
        self._held: np.ndarray | None = None  # the strokes in the box when the run was paused
        self._taken: list[Taken] = []  # what was accepted, the newest last
        self._stopped = False  # by a person, before its end
        self._placed = False  # whether the box was put where it is by hand
        self._changed = QTimer(self, singleShot=True, interval=_SETTLED)
        self.live = Live(
            self,
            self.task,
            self.runner,
            self.start,
            lambda: not self._why_not(),
            lambda: self.staging.count > 0,
        )
        self._build()
        self._connect()
        self.panel.set_model(session.model)
        self._tell_terms()
        self._state("idle")

    # -- layout -------------------------------------------------------------------------------------

    def _build(self) -> None:
        columns(self, "canvasSplit", ((self._left(), 0, 300), (self._centre(), 1, 1000)))

    def _left(self) -> QWidget:
        self.verbs = RunBar(self, self.runner, self.start, self._touch)
        heading = QLabel(self.tr("Weights"))
        heading.setProperty("role", "heading")
        inputs = stacked(self.task, self.panel, heading, self.mixer)
        return controls(inputs, self.errors, self.verbs, self.queue.button)

    def _centre(self) -> QWidget:
        top = QHBoxLayout()
        top.setContentsMargins(0, 0, 8, 0)
        top.addWidget(self.options, 1)
        top.addWidget(self._file_button(), 0, Qt.AlignmentFlag.AlignTop)
        middle = QHBoxLayout()
        middle.setSpacing(0)
        middle.addWidget(self.tools)
        middle.addWidget(self.view, 1)
        upper = QWidget()
        box = QVBoxLayout(upper)
        box.setContentsMargins(0, 8, 8, 0)
        box.setSpacing(4)
        box.addLayout(top)
        box.addLayout(middle, 1)
        lower = QWidget()
        low = QVBoxLayout(lower)
        low.setContentsMargins(8, 4, 12, 8)
        low.addWidget(self.past.walk)
        low.addWidget(self.strip, 1)
        split = QSplitter(Qt.Orientation.Vertical)
        split.setObjectName("stripSplit")
        split.setChildrenCollapsible(False)
        split.addWidget(upper)
        split.addWidget(lower)
        split.setStretchFactor(0, 1)
        split.setSizes([620, 150])
        return split

    def _file_button(self) -> QToolButton:
        picture, project = self.tr("Save picture…"), self.tr("Save project…")
        rows = (
            ("open", self.tr("Open picture or project…"), "", self.files.ask_open),
            ("save_picture", picture, "Ctrl+S", lambda: self.save("picture")),
            ("save_project", project, "Ctrl+Shift+S", lambda: self.save("project")),
        )
        button = menu_button("open", self.tr("File"), verbs(self, rows))
        button.setObjectName("canvasFile")
        button.setAccessibleName(self.tr("Open and save"))
        button.setToolTip(self.tr("Open and save pictures and projects"))
        return button

    def _connect(self) -> None:
        self.files.opened.connect(self._opened)
        for source in (self.files, self.runner, self.past, self.queue):
            source.failed.connect(self._failed)
        for source in (self.files, self.queue):
            source.bug.connect(self.bug)
        self.queue.made.connect(self._painted_unseen)
        for words in (self.files.status, self.past.said, self.queue.said):
            words.connect(self.status)
        self.view.edited.connect(self._edited)
        self.view.open_requested.connect(self.files.ask_open)
        self.view.dropped.connect(lambda paths: self.open_path(paths[0]))
        self.view.pasted.connect(self._pasted)
        self.view.stroke_began.connect(self.live.wait)
        self.samples.chosen.connect(self.files.open)
        self.options.mask_import_requested.connect(self.files.import_mask)
        self.options.mask_export_requested.connect(lambda: self.save("mask"))
        self.strip.more_requested.connect(self._more)
        self.strip.accepted.connect(lambda _: self.live.tell())
        self.strip.cleared.connect(self._discarded)
        self.staging.accepted.connect(self._accepted)
        self.task.changed.connect(self._task_changed)
        self.panel.changed.connect(self._task_changed)
        self.mixer.weight_changed.connect(self._weigh)
        self.runner.state_changed.connect(self._state)
        # After that: a branch begins when all is told of what has ended.
        self.runner.state_changed.connect(self.past.go_on)
        self.session.model_changed.connect(self._model_changed)
        self.live.rested.connect(self.staging.end)
        self._changed.timeout.connect(self._settled)
        QShortcut(
            QKeySequence("Escape"), self, self.stop, context=Qt.ShortcutContext.WindowShortcut
        )

    # -- what is run --------------------------------------------------------------------------------

    def recipe(self) -> PaintRecipe:
        """The recipe as it is set. Raises StudioError if something is missing or makes no sense."""
        recipe = PaintRecipe(
            sample=self.panel.job(),
            task=self.task.task(),
            way=self.task.way(),
            box=self._document().box,
        )
        spec.check(recipe)
        return recipe

    def job(self) -> Job:
        if self._whole is not None:
            whole = self._restored(self._whole)
            self._box = self._document().box
            return self._stage(Plan(whole, whole.leg(len(whole.later)), self.tr("as restored")))
        recipe = self.recipe()
        if self.task.live:
            # The same noise after each stroke, or nobody could tell what the stroke has done.
            sample = replace(recipe.sample, sampler=_quick(recipe.sample.sampler))
        else:
            sample = replace(recipe.sample, seed=self.panel.seed.take())
        return self._made(replace(recipe, sample=sample))

    def _made(self, recipe: PaintRecipe) -> Job:
        self._box = self._document().box
        now = self._now(recipe)
        job = PaintJob(recipe, now.picture, now.layers.mask, now.layers.sketch, boxed=True)
        seed = self.tr("seed {seed}").format(seed=recipe.sample.seed)
        return self._stage(Plan(job, job, f"{self.tr(recipe.task.title)} · {seed}"))

    def _now(self, recipe: PaintRecipe | None = None) -> Now:
        """What is set and painted now, in the box of the runs that are looked at."""
        document = self._document()
        document.finish()
        strokes = None if document.bounds("sketch") is None else self._cut("sketch")
        layers = Layers(self._cut("mask"), strokes)
        picture = of_document(document, self._box)
        return Now(recipe or self.recipe(), picture, layers, self._box)

    def _stage(self, plan: Plan) -> Job:
        """Clear the stage for a run; its job. Raises StudioError if it makes no sense."""
        plan.leg.check()
        self._job = plan.leg
        self.past.expect(plan, self._box)
        self.staging.begin(plan.leg, self._box)
        self.files.keep_mask()
        return plan.job

    def _restored(self, whole: PaintJob) -> PaintJob:
        """A restored painting, with the number of candidates and the seed that are set."""
        sample = replace(
            whole.recipe.sample, seed=self.panel.seed.take(), count=self.panel.count.value()
        )
        return replace(whole, recipe=replace(whole.recipe, sample=sample))

    def _queued(self) -> PaintJob:
        """What is set, with copies of what is painted, to be painted another time."""
        self.errors.clear()
        if self._whole is not None:
            return self._restored(self._whole)
        recipe = self.recipe()
        recipe = replace(recipe, sample=replace(recipe.sample, seed=self.panel.seed.take()))
        document = self._document()
        document.finish()
        if document.alpha is None:
            return PaintJob(recipe, document.photo, document.mask, document.sketch).alone()
        self._box, box = document.box, self._box
        now = self._now(recipe)
        self._box = box
        return PaintJob(recipe, now.picture, now.layers.mask, now.layers.sketch, boxed=True).alone()

    def _document(self) -> Document:
        if self.view.document is None:
            raise PictureError("There is no picture yet.", "Open, paste or drop one.")
        return self.view.document

    def start(self) -> None:
        self.errors.clear()
        self.live.begun()
        self._follow()
        self.runner.start(self.job)

    def stop(self) -> None:
        self.live.rest()
        self.runner.stop()

    def _touch(self) -> None:
        """A run that was held goes on: what was painted meanwhile goes onto the noisy states."""
        touched = self._touched()
        if touched is not None:
            self.runner.send(Touch(touched))
        self._held = None

    def _touched(self) -> np.ndarray | None:
        """The strokes made in the box since the run was paused, (h, w, 4); None if there are none."""
        if self._held is None or self.view.document is None:
            return None
        now = self._cut("sketch")
        changed = (now != self._held).any(-1) & (now[..., 3] > 0)
        if not changed.any():
            return None
        return np.dstack([now[..., :3], np.where(changed, 255, 0).astype(np.uint8)])

    def _cut(self, layer: str) -> np.ndarray:
        """A copy of a layer in the box of the run under way."""
        x, y, w, h = self._box
        return getattr(self._document(), layer)[y : y + h, x : x + w].copy()

    def _more(self) -> None:
        """Other candidates for the same: the next seeds."""
        if not self.runner.busy:
            self.panel.seed.set_value((self.panel.seed.value() + self.panel.count.value()) % 2**32)
            self.start()

    def _repaint(self) -> None:
        """Tell the run under way what has changed; from its next step on it goes by that."""
        if self._job is None or not self.runner.busy:
            return
        if self._job.recipe.way != "box":
            self.status.emit(self.tr("That counts from the next run on"))
            return
        try:
            recipe = replace(self.recipe(), box=self._job.recipe.box)
            recipe = replace(
                recipe, sample=replace(self._job.recipe.sample, guidance=recipe.sample.guidance)
            )
            changed = replace(
                self._job, recipe=recipe, mask=self._cut("mask"), sketch=self._cut("sketch")
            )
            changed.check()
        except StudioError as error:
            self.status.emit(error.message)
            return
        self._job = changed
        self.staging.change(changed)
        self.runner.send(Repaint(changed.mask, changed.sketch, recipe))

    # -- after a change -----------------------------------------------------------------------------

    def _edited(self, layer: str) -> None:
        """A mark is finished."""
        self._forget_whole()
        if layer == "box":
            self._placed = True
        elif layer == "mask":
            self._follow()
        if self.runner.state == "paused" and layer == "sketch":
            self._show_frame()
        elif self.live.on:
            self.live.touch()
        elif self.runner.busy and layer != "box":
            self._repaint()
        elif self.staging.count and layer != "box":
            self.status.emit(self.tr("These candidates are of before that; Run makes new ones"))

    def _marked(self, layer: str, _: Rect) -> None:
        """The document tells of every change; of a stroke, at every move."""
        self._changed.start()
        if not self.verbs.run.isEnabled():
            self._tell_run()
        if layer == "photo" and not self.staging.accepting:
            # By undo, say: what is kept of the photo is not what the candidates were made around.
            self.staging.clear()
            self.past.clear()
            self._forget_whole()
            if self.runner.busy and not self.live.on:
                self.runner.stop()
            self.live.touch()

    def _forget_whole(self) -> None:
        if self._whole is not None:
            self._whole = None
            self.status.emit(self.tr("Changed: Run goes by what is set and painted now"))

    def _settled(self) -> None:
        """What follows from a change, once no other has come for a moment."""
        self._tell_run()
        self._show_start()

    def _follow(self) -> None:
        """Put the box around the paint, unless it is around it already or was placed by hand."""
        document, model = self.view.document, self.session.model
        if document is None or model is None or model.info is None:
            return
        bounds = document.bounds("mask")
        if bounds is None or (self.runner.busy and not self.live.on):
            return
        x, y, w, h = document.box
        if self._placed and document.mask[y : y + h, x : x + w].any():
            return
        bx, by, bw, bh = bounds
        inside = x <= bx and y <= by and bx + bw <= x + w and by + bh <= y + h
        if inside and not self._loose(document.box, bounds):
            return
        self._placed = False
        padding = max(8, round(_PADDING * max(bw, bh)))
        document.set_box(document.fit_box(min(model.info.size, *document.size), padding))

    def _loose(self, box: Rect, bounds: Rect) -> bool:
        """Whether a box is so much larger than the paint that the model would hardly see it."""
        info = self.session.model.info if self.session.model else None
        side = max(box[2], box[3])
        return info is not None and side > _COARSE * info.size and side > 3 * max(bounds[2:])

    # -- events -------------------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        match event:
            case Begun():
                self.past.begun(event.trajectory)
                self.status.emit(self.tr("Painting"))
            case Picture():
                self.past.show(event.frame)
            case Shares():
                self.mixer.show_shares({_TERMS.get(k, k): v for k, v in event.shares.items()})
            case Progress():
                self.view.set_busy(
                    self.tr("step {step}/{total} · {calls} calls").format(
                        step=event.step, total=event.total, calls=event.calls
                    )
                )
            case Finished():
                self.past.finish(event)
                self.session.made.emit(event, "")
                self.status.emit(
                    self.tr("{calls} network calls in {seconds:.1f} s").format(
                        calls=event.calls, seconds=event.seconds
                    )
                )
            case Note():
                self.status.emit(self.tr(event.text))
                self.view.set_busy(self.tr(event.text))

    def _show_frame(self) -> None:
        """A run that is held shows its noisy state, which can be painted on."""
        frame = self.past.frame
        if frame is not None and self.past.walk.looks_live:
            held = self.runner.state == "paused"
            paint = self._touched() if held else None
            self.staging.form(frame.x if held else frame.denoised, paint)

    def _state(self, state: str) -> None:
        self._tell_run()
        if told := self.verbs.told(state):
            self.status.emit(told)
        if state == "paused":
            self._held = self._cut("sketch") if self._held is None else self._held
            self.status.emit(
                self.tr("Paused. Paint colours onto the noise, and go on: they become part of it")
            )
        if state in ("paused", "running"):
            self._show_frame()
        if state == "stopping":
            self.live.stopping()
            self._stopped = True
        if state == "idle":
            self.view.set_busy("")
            if self._stopped and not self.live.due and not self.errors.text:
                self.status.emit(self.tr("Stopped"))
            self._stopped = False
            self._held = None
            if not self.live.due:
                self.staging.end()
            self.live.ended()
            self._show_start()
        self.live.tell()

    def _tell_run(self) -> None:
        """What Run would do now, or why it would not."""
        why_not = self._why_not()
        self.queue.button.show_state(self.runner.state, why_not)
        self.verbs.show_state(self.runner.state, why_not, self.tr("Repaint (Ctrl+Enter)"))
        self.strip.set_empty_text(
            self.tr("No candidates yet"), why_not or self.tr("Press Run to see some.")
        )

    def _why_not(self) -> str:
        """Why a run cannot begin; empty if it can."""
        if self.session.model is None:
            return self.tr("There is no model on the shelf yet: get one, or train one")
        document = self.view.document
        if document is None:
            return self.tr("There is no picture yet: open, paste or drop one")
        try:
            needs = self.task.task().needs_mask
        except SpecError as error:
            return error.message
        if needs and document.bounds("mask") is None:
            return self.tr("Nothing is painted: paint what should change")
        return ""

    def _failed(self, error: StudioError) -> None:
        self.errors.show_error(error)
        self.status.emit(error.message)

    def _model_changed(self, entry: Any) -> None:
        self.panel.set_model(entry)
        self._state(self.runner.state)

    # -- the document -------------------------------------------------------------------------------

    def _opened(self, document: Document, extras: dict[str, Any]) -> None:
        self.stop()
        self.staging.clear()
        self.past.clear()
        self.errors.clear()
        self._placed, self._job, self._whole = False, None, None
        self._taken = [t for given in extras.get("taken", ()) if (t := Taken.read(given))]
        self.samples.offer(False)
        self.view.set_document(document)
        self.options.set_document(document)
        document.listen(self._marked)
        self.status.emit(
            self.tr("{name}: {w} × {h} pixels").format(
                name=document.name, w=document.size[0], h=document.size[1]
            )
        )
        if isinstance(recipe := extras.get("recipe"), dict):
            try:
                self.open_recipe(recipe)
            except StudioError as error:
                self.status.emit(error.message)
        elif note := extras.get("note"):
            self.status.emit(self.tr("{name}: {note}").format(name=document.name, note=note))
        radius = max(2.0, max(document.size) / 32)
        self.view.set_brush(replace(self.view.brush, radius=radius))
        self.view.setFocus()
        self._settled()
        if isinstance(whole := extras.get("whole"), PaintJob):
            self._whole = whole if whole.later or whole.recipe.origin else None
            self._box = (0, 0, *document.size)
            self.staging.show(extras["made"], self._box)
            self.status.emit(self.tr("Restored; Run makes these candidates again"))
        elif isinstance(root := extras.get("root"), Trajectory):
            self._opened_sample(document, root)
        if isinstance(found := extras.get("found"), dict):
            spawn(self._offer(document.name, found))

    def _opened_sample(self, document: Document, root: Trajectory) -> None:
        """The picture of a run: parts of it are kept, the rest goes its way again."""
        self._box, self._placed = (0, 0, *document.size), True
        document.set_box(self._box)
        self.past.open(root, document.photo, document.name)
        self.status.emit(
            self.tr("Paint what should change, go back on the timeline, and branch there")
        )

    def open_painting(self, job: PaintJob, made: Finished) -> None:
        """A painting of the history: its picture, mask and strokes as they were at its end, and its
        candidates."""
        last = job.leg(len(job.later))
        given = {k: v for k, v in (("mask", last.mask), ("sketch", last.sketch)) if v is not None}
        document = Document.of(job.picture.copy(), None, self.tr("painting"), **given)
        recipe = spec.to_dict(replace(last.recipe, box=(0, 0, *document.size)))
        self.files.offer(document, {"recipe": recipe, "whole": job, "made": made})

    def _painted_unseen(self, made: Finished) -> None:
        """A painting out of the queue: its candidates are shown if the photo is still the one."""
        document, job = self.view.document, made.given
        if document is None or not isinstance(job, PaintJob) or self.runner.busy:
            return
        x, y, w, h = job.recipe.box or (0, 0, *document.size)
        there = of_document(document, (x, y, w, h))
        if there.shape == job.picture.shape and (there == job.picture).all():
            self.past.clear()
            self._box = (x, y, w, h)
            self.staging.show(made, self._box)

    def open_sample(self, run: Trajectory, picture: np.ndarray, name: str) -> None:
        """The picture (h, w, 1 or 3) of a run of it alone, to be painted on."""
        self.session.choose_model(str(run.recipe.get("model", "")))
        pixels = np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))
        self.files.offer(Document.of(pixels, None, name), {"root": run})

    async def _offer(self, name: str, recipe: dict[str, Any]) -> None:
        """Offer the recipe that came with a picture."""
        try:
            lines = self.changes(recipe)
            title = self.tr("Restore the recipe of {name}?").format(name=name)
            if lines and await ask(
                self, self.tr("Recipe"), title, "\n".join(lines), self.tr("Restore")
            ):
                self.open_recipe(recipe)
        except StudioError as error:
            self.status.emit(error.message)
        except Exception as error:
            self.bug.emit(error)

    def open_path(self, path: Path) -> bool:
        """Open a picture or project, from a drop or the command line."""
        self.files.open(path)
        return True

    def _pasted(self, pixels: np.ndarray) -> None:
        """A picture from the clipboard: a new document, or colours on the one that is there."""
        document = self.view.document
        if document is None:
            self.files.open_pixels(pixels, self.tr("pasted"))
            return
        x, y, _, _ = document.box
        document.paste(pixels, x, y)
        self.view.set_layer("sketch")
        self._edited("sketch")

    def save(self, kind: str) -> None:
        """Ask where, and save the "picture", the "project" or the "mask"."""
        self.files.ask_save(kind, self._made_by() if kind == "picture" else {})

    def _made_by(self) -> dict[str, Any]:
        """The recipe of what was accepted last, of what the photo still has; empty if of nothing."""
        document = self.view.document
        stands = (t for t in reversed(self._taken) if document and t.stands(document.photo))
        return next((t.recipe for t in stands), {})

    def _accepted(self, taken: Taken) -> None:
        self._taken.append(taken)
        self.status.emit(self.tr("Accepted; undo takes it back. The mask is still there"))
        self.live.tell()

    def _discarded(self) -> None:
        """All candidates are let go of, and what forms with them."""
        self.stop()
        self.past.clear()
        self._show_start()

    # -- recipes ------------------------------------------------------------------------------------

    def changes(self, recipe: dict[str, Any]) -> list[str]:
        new = spec.from_dict(PaintRecipe, recipe)
        spec.check(new)
        now = PaintRecipe(sample=self.panel.job(), task=self.task.task(), way=self.task.way())
        return differences(now, replace(new, box=(), inputs={}, proof={}))

    def open_recipe(self, recipe: dict[str, Any]) -> None:
        told = spec.from_dict(PaintRecipe, recipe)
        spec.check(told)
        if told.sample.model in {e.name for e in self.session.shelf.entries()}:
            self.session.choose_model(told.sample.model)
        self.panel.show_job(told.sample)
        self.panel.seed.lock.setChecked(True)
        self.task.set_task(told.task)
        self.task.set_way(told.way)
        document = self.view.document
        if document is not None and len(told.box) == 4:
            x, y, w, h = told.box
            if x + w <= document.size[0] and y + h <= document.size[1]:
                document.set_box((x, y, w, h))
                self._placed = True
        self._tell_terms()
        self._settled()

    def _extras(self) -> dict[str, Any]:
        """What is kept beside a document: how it was worked on."""
        kept: dict[str, Any] = {"taken": [asdict(taken) for taken in self._taken]}
        try:
            return kept | {"recipe": spec.to_dict(self.recipe())}
        except StudioError:
            return kept

    def _task_changed(self) -> None:
        self._forget_whole()
        self._tell_terms()
        self._tell_run()
        if self.live.on:
            self.live.touch()
        elif self.runner.busy:
            self._repaint()
        self._show_start()

    def _show_start(self) -> None:
        """Before a sketch is run: what of it the noise leaves to be seen."""
        document, model = self.view.document, self.session.model
        if self.runner.busy or document is None or model is None or model.info is None:
            return
        shown = None
        try:
            if isinstance(task := self.task.task(), Sketch):
                seen = sketched(document, document.box, model.info.size)
                shown = noised(seen, task.strength)
        except SpecError as error:
            self.status.emit(error.message)
        self.staging.show_start(shown, document.box)
        told = shown is not None and not self.staging.count
        self.view.set_busy(self.tr("What the model will see of it") if told else "")

    # -- weights ------------------------------------------------------------------------------------

    def _tell_terms(self) -> None:
        """The terms that have a weight, with the weights they have now."""
        try:
            task, sample = self.task.task(), self.panel.job()
        except StudioError:
            return
        terms = []
        for path, key, label in (
            ("method.weight", "task", self.tr("What is known")),
            ("hints", "hints", self.tr("Colour hints")),
        ):
            if (found := _field(task, path)) is not None:
                value, about = found
                terms.append(Term(key, label, self.tr(about.help), value, about.range or (0, 1)))
        if sample.classes:
            help_ = self.tr("1 is the class as it was learned; more looks more typical.")
            terms.append(Term("class", self.tr("Class"), help_, sample.guidance, (0, 20)))
        self.mixer.set_terms(terms)

    def _weigh(self, key: str, weight: float) -> None:
        if key == "class":
            self.panel.guidance.setValue(weight)
        else:
            path = {"task": "method.weight", "hints": "hints"}[key]
            self.task.set_task(spec.replace(self.task.task(), path, weight))
        self._task_changed()

    # -- the mode in the window ----------------------------------------------------------------------

    def at_stake(self) -> str:
        return self.tr("A picture is being repainted.") if self.runner.busy else ""

    def runners(self) -> list[Runner]:
        return [self.runner, *self.queue.runners(), *self.files.runners()]

    def ask_open(self) -> bool:
        self.files.ask_open()
        return True

    async def offer_recovery(self) -> None:
        await self.files.offer_recovery()

    def closing(self) -> None:
        self.live.rest()
        self.files.close()


#: What the meter calls a term, and the row of the mixer that weighs it.
_TERMS = {
    "PseudoinverseGuidance": "task",
    "PosteriorSampling": "task",
    "ClassifierFree": "class",
    "ClassifierGuidance": "class",
    "ClassLabel": "class",
}


def _field(task: Any, path: str) -> tuple[float, spec.About] | None:
    """The value of a number inside a Spec, and what is said of it; None if it has no such field."""
    *outer, name = path.split(".")
    for part in outer:
        task = getattr(task, part, None)
    field = next((f for f in spec.fields(task) if f.name == name), None) if task else None
    return None if field is None else (float(getattr(task, name)), spec.about(field))


def _quick(sampler: Sampler) -> Sampler:
    """A sampler that a person can wait for after every stroke."""
    cost = sampler.cost()
    if cost is not None and cost <= _LIVE_CALLS:
        return sampler
    return spec.from_dict(Sampler, {"kind": "dpm2m-sde", "steps": 16})
