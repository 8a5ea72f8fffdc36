"""Mode 1, Sample: watch pictures emerge from noise, hold them, look around in time, keep them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.engine.events import Begun, Event, Finished, Metric, Note, Picture, Progress, Saved
from studio.engine.exports import ExportJob
from studio.engine.jobs import SampleJob
from studio.engine.trajectory import Frame, Trajectory
from studio.errors import StudioError
from studio.ui import theme
from studio.ui.gallery import Gallery
from studio.ui.inspector import Inspector
from studio.ui.picture_view import PictureView
from studio.ui.recipe_panel import RecipePanel, differences, scrolled
from studio.ui.run_bar import RunBar
from studio.ui.runner import Runner
from studio.ui.session import Session
from studio.ui.tabs import Tab
from studio.ui.timeline import Timeline


class SampleTab(Tab):
    title = "Sample"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setObjectName("samplePage")
        self.exports = Runner(session.engine, self._exported)
        self.panel = RecipePanel()
        self.view = PictureView()
        self.view.setObjectName("sampleView")
        self.timeline = Timeline()
        self.timeline.setObjectName("timeline")
        self.inspector = Inspector()
        self.gallery = Gallery()
        self.gallery.setObjectName("history")
        self._trajectory: Trajectory | None = None
        self._shown: Frame | None = None
        self._following = True
        self._thumbnails = 0  # frames of the trajectory that the timeline already has
        self._results: dict[str, Finished] = {}
        self._build()
        self._connect()
        self.panel.set_model(session.model)
        self._empty()
        self._state("idle")

    # -- layout -------------------------------------------------------------------------------------

    def _build(self) -> None:
        split = QSplitter(Qt.Orientation.Horizontal)
        split.setObjectName("sampleSplit")
        split.setChildrenCollapsible(False)
        for part, stretch in ((self._left(), 0), (self._centre(), 1), (self._right(), 0)):
            split.addWidget(part)
            split.setStretchFactor(split.count() - 1, stretch)
        split.setSizes([290, 760, 250])
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(split)

    def _left(self) -> QWidget:
        self.verbs = RunBar(self, self.runner, self.start)
        self.run_button = self.verbs.run
        side = QWidget()
        side.setMinimumWidth(270)
        side.setMaximumWidth(380)
        box = QVBoxLayout(side)
        box.setContentsMargins(12, 12, 8, 12)
        box.setSpacing(8)
        box.addWidget(scrolled(self.panel), 1)
        box.addWidget(self.errors)
        box.addWidget(self.verbs)
        return side

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
        self.told = QLabel()
        self.told.setObjectName("viewCaption")
        self.told.setProperty("role", "muted")
        bar.addWidget(self.told)
        self.save_button = QToolButton()
        self.save_button.setText(self.tr("Save"))
        self.save_button.setIcon(theme.icon("save"))
        self.save_button.setObjectName("save")
        self.save_button.setAccessibleName(self.tr("Save and export"))
        self.save_button.setToolTip(self.tr("Save pictures with their recipe, or export the run"))
        self.save_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.save_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.save_button.setMenu(self._save_menu())
        bar.addWidget(self.save_button)
        centre = QWidget()
        box = QVBoxLayout(centre)
        box.setContentsMargins(4, 12, 4, 8)
        box.setSpacing(8)
        box.addLayout(bar)
        box.addWidget(self.view, 1)
        box.addWidget(self.timeline)
        return centre

    def _right(self) -> QWidget:
        title = QLabel(self.tr("History"))
        title.setProperty("role", "heading")
        side = QWidget()
        side.setMinimumWidth(220)
        side.setMaximumWidth(340)
        box = QVBoxLayout(side)
        box.setContentsMargins(8, 12, 12, 12)
        box.setSpacing(8)
        box.addWidget(self.inspector)
        box.addSpacing(4)
        box.addWidget(title)
        box.addWidget(self.gallery, 1)
        return side

    def _save_menu(self) -> QMenu:
        menu = QMenu(self)
        for text, key, kind in (
            (self.tr("Picture…"), "Ctrl+S", "picture"),
            (self.tr("All pictures in a folder…"), "", "folder"),
            (self.tr("Contact sheet…"), "Ctrl+Shift+S", "sheet"),
            (self.tr("Film of the run (GIF or WebP)…"), "Ctrl+E", "film"),
        ):
            action = menu.addAction(text)
            action.setObjectName(f"save_{kind}")
            action.setShortcut(QKeySequence(key))
            action.triggered.connect(lambda _=False, k=kind: self.save(k))
            self.addAction(action)
        return menu

    def _connect(self) -> None:
        self.views.idClicked.connect(lambda _: self._redraw())
        self.timeline.scrubbed.connect(self._scrub)
        self.timeline.live_requested.connect(self._follow)
        self.gallery.opened.connect(self._open_result)
        self.gallery.recipe_requested.connect(self._restore_result)
        self.gallery.save_requested.connect(lambda key: self.save("picture", key))
        self.gallery.removed.connect(lambda key: self._results.pop(key, None))
        self.view.context_menu_requested.connect(self._picture_menu)
        self.runner.state_changed.connect(self._state)
        self.runner.failed.connect(self._failed)
        self.exports.failed.connect(self._failed)
        self.exports.bug.connect(self.bug)
        self.session.model_changed.connect(self._model_changed)
        for key, verb in (("Escape", self._escape), ("X", self._next_view)):
            QShortcut(QKeySequence(key), self, verb, context=Qt.ShortcutContext.WindowShortcut)

    # -- verbs --------------------------------------------------------------------------------------

    def job(self) -> SampleJob:
        seed = self.panel.seed.take()
        job = replace(self.panel.job(), seed=seed)
        self.session.remember(recipe=spec.to_dict(job))
        return job

    def start(self) -> None:
        self.errors.clear()
        self.runner.start(self.job)

    def run_or_stop(self) -> None:
        self.verbs.run_or_stop()

    def shown(self) -> None:
        self.inspector.load_plot()

    def open_recipe(self, recipe: dict[str, Any]) -> None:
        job = spec.from_dict(SampleJob, recipe)
        spec.check(job)
        if job.model in {e.name for e in self.session.shelf.entries()}:
            self.session.choose_model(job.model)
        self.panel.show_job(job)
        self.panel.seed.lock.setChecked(True)

    def changes(self, recipe: dict[str, Any]) -> list[str]:
        new = spec.from_dict(SampleJob, recipe)
        spec.check(new)
        return differences(self.panel.job(), new)

    # -- events -------------------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        match event:
            case Begun():
                self._begin(event.trajectory)
            case Picture():
                self._picture(event.frame)
            case Progress():
                self.inspector.progress(event)
                self.view.set_hud(self._hud(event))
            case Metric():
                self.inspector.add_points(event.points)
            case Finished():
                self._finished(event)
            case Note():
                self.status.emit(self.tr(event.text))
                self.view.set_hud(self.tr(event.text))

    def _begin(self, trajectory: Trajectory) -> None:
        self._trajectory, self._thumbnails, self._following = trajectory, 0, True
        self.timeline.begin(trajectory.low, trajectory.high)
        self.inspector.clear()
        self.status.emit(self.tr("Sampling"))

    def _picture(self, frame: Frame) -> None:
        self.timeline.set_live(frame.log_snr)
        self._add_thumbnails()
        if self._following:
            self._show(frame)

    def _add_thumbnails(self) -> None:
        frames = self._trajectory.frames if self._trajectory else []
        self._thumbnails = min(self._thumbnails, len(frames))  # a full budget thins the frames
        for frame in frames[self._thumbnails :]:
            self.timeline.add(frame.log_snr, frame.denoised[self.view.solo or 0])
        self._thumbnails = len(frames)

    def _finished(self, event: Finished) -> None:
        job = spec.from_dict(SampleJob, event.recipe)
        key = f"{job.model}-{job.seed}-{len(self._results)}"
        self._results[key] = event
        self.gallery.add(key, event.pictures[0], self.tr("seed {seed}").format(seed=job.seed))
        self._add_thumbnails()
        self.status.emit(
            self.tr("{calls} network calls in {seconds:.1f} s").format(
                seconds=event.seconds, calls=event.calls
            )
        )

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

    def _show(self, frame: Frame) -> None:
        self._shown = frame
        self._redraw()

    def _redraw(self) -> None:
        if self._shown is not None:
            self.view.set_pictures(self._shown.view(self._view_name()))

    def _view_name(self) -> str:
        return ("denoised", "x", "score", "change")[max(0, self.views.checkedId())]

    def _next_view(self) -> None:
        self.views.button((self.views.checkedId() + 1) % 4).setChecked(True)
        self._redraw()

    def _scrub(self, log_snr: float) -> None:
        frame = self._trajectory.nearest(log_snr) if self._trajectory else None
        if frame is not None:
            self._following = False
            self.timeline.set_playhead(frame.log_snr)
            self.told.setText(self.tr("step {step}").format(step=frame.step))
            self._show(frame)

    def _follow(self) -> None:
        """Back to the live head."""
        self._following = True
        self.timeline.set_playhead(None)
        self.told.clear()
        if self._trajectory and self._trajectory.frames:
            self._show(self._trajectory.frames[-1])

    def _open_result(self, key: str) -> None:
        if (result := self._results.get(key)) is not None and not self.runner.busy:
            self._trajectory = None
            self.timeline.clear()
            self.view.set_pictures(result.pictures)
            self._shown = None
            self.view.set_hud("")

    def _restore_result(self, key: str) -> None:
        if (result := self._results.get(key)) is not None:
            self.open_recipe(result.recipe)
            self.status.emit(self.tr("Recipe restored; press Run to make these pictures again"))

    def _escape(self) -> None:
        if self.view.solo is not None:
            self.view.solo = None
        else:
            self.runner.stop()

    # -- states -------------------------------------------------------------------------------------

    def _state(self, state: str) -> None:
        why_not = ""
        if self.session.model is None:
            why_not = self.tr("There is no model on the shelf yet: get one, or train one")
        self.verbs.show_state(state, why_not, self.tr("Sample with this recipe (Ctrl+Enter)"))
        if told := self.verbs.told(state):
            self.status.emit(told)
        if state == "idle" and self._shown is not None and not self.view_finished:
            self.status.emit(self.tr("Stopped; what was reached stays on the timeline"))

    @property
    def view_finished(self) -> bool:
        """Whether the run on screen came to its end."""
        frames = self._trajectory.frames if self._trajectory else []
        return bool(frames) and frames[-1].log_snr >= self._trajectory.high  # type: ignore[union-attr]

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

    # -- keeping ------------------------------------------------------------------------------------

    def save(self, kind: str, key: str | None = None) -> None:
        """Ask where, and save in the background: "picture", "folder", "sheet" or "film"."""
        result = self._results.get(key or "") or next(reversed(self._results.values()), None)
        if result is None:
            self.status.emit(self.tr("There is nothing to save yet: let a run come to its end"))
            return
        path = self._ask_path(kind, result)
        if path is None:
            return
        frames: tuple[np.ndarray, ...] = ()
        if kind == "film" and self._trajectory is not None:
            frames = tuple(f.view(self._view_name()) for f in self._trajectory.frames)
        chosen = self.view.solo if key is None else 0
        job = ExportJob(path, kind, result.pictures, result.recipe, chosen or 0, frames)
        self.exports.start(lambda: job)

    def _ask_path(self, kind: str, result: Finished) -> Path | None:
        name = f"{result.recipe['model']}-{result.recipe['seed']}".replace("/", "-")
        if kind == "folder":
            path = QFileDialog.getExistingDirectory(self, self.tr("Save all pictures in"))
        else:
            what = "film" if kind == "film" else "png"
            kinds = {"png": "PNG (*.png)", "film": "WebP (*.webp);;GIF (*.gif)"}[what]
            suffix = ".webp" if kind == "film" else ".png"
            path, _ = QFileDialog.getSaveFileName(self, self.tr("Save"), name + suffix, kinds)
            if path and not Path(path).suffix:
                path += suffix
        return Path(path) if path else None

    def _exported(self, event: Event) -> None:
        if isinstance(event, Saved):
            self.status.emit(self.tr("Saved {path}").format(path=event.path))

    def _picture_menu(self, index: int, place: QPoint) -> None:
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addActions(self.save_button.menu().actions())
        if self._results:
            seed = next(reversed(self._results.values())).recipe["seed"] + index
            menu.addSeparator()
            only = menu.addAction(self.tr("Run this seed alone ({seed})").format(seed=seed))
            only.triggered.connect(lambda: self._only(seed))
        menu.popup(place)

    def _only(self, seed: int) -> None:
        self.panel.count.setValue(1)
        self.panel.seed.set_value(seed)
        self.panel.seed.lock.setChecked(True)
        self.run_or_stop()
