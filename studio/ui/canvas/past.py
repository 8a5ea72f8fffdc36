"""Runs of the canvas as something to go back in: looked at at any moment, and left from there with what
is painted now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from studio.engine.branch import Node, Tree
from studio.engine.engine import Job
from studio.engine.events import Finished
from studio.engine.paint import Layers, PaintJob, PaintRecipe, Rect, branched, onto
from studio.engine.trajectory import Frame, Trajectory
from studio.errors import SpecError, StudioError
from studio.ui.branch_menu import BranchMenu, branch_label
from studio.ui.canvas.staging import Staging
from studio.ui.canvas.strip import CandidateStrip
from studio.ui.recipe_panel import RecipePanel
from studio.ui.runner import Runner
from studio.ui.walk import Walk


@dataclass(frozen=True, eq=False)
class Plan:
    """A run to come: its job, that of its last leg, and where in the tree it belongs."""

    job: Job
    leg: PaintJob
    label: str
    parent: int | None = None
    log_snr: float | None = None


@dataclass(frozen=True, eq=False)
class Now:
    """What is painted and set at this moment, of the box of the runs that are looked at."""

    recipe: PaintRecipe
    picture: np.ndarray
    layers: Layers
    box: Rect


class Past(QObject):
    """The Walk of the canvas. `now` tells what is painted now; it may raise StudioError. `begin` starts a
    Plan; `show_live` shows the run under way. `failed` carries a StudioError, `said` words.
    """

    failed = Signal(object)
    said = Signal(str)

    def __init__(
        self,
        page: QWidget,
        panel: RecipePanel,
        runner: Runner,
        staging: Staging,
        strip: CandidateStrip,
        now: Callable[[], Now],
        begin: Callable[[Plan], None],
        show_live: Callable[[], None],
    ) -> None:
        super().__init__(page)
        self._runner, self._staging, self._strip = runner, staging, strip
        self._now, self._begin, self._show_live = now, begin, show_live
        self.menu = BranchMenu(panel, page, painted=True)
        self.walk = Walk(self.menu.button(), self._thumbnail, lambda: runner.busy, rows=2)
        self.frame: Frame | None = None  # of the run under way
        self._box: Rect = (0, 0, 1, 1)  # of all runs of the tree
        self._plan: Plan | None = None  # what runs
        self._next: Plan | None = None  # what runs when that has been stopped
        self._root: Trajectory | None = None  # the run of the sample that is painted on
        self._picture: PaintJob | None = None  # that sample alone, with nothing painted
        self._leg: tuple[PaintJob | None, PaintJob | None] = None, None  # a job and its last leg
        self.walk.shown.connect(self._look)
        self.walk.looked.connect(lambda node: self.said.emit(node.label))
        self.menu.wanted.connect(lambda changes: self.branch(**changes))
        self.menu.failed.connect(self.failed)
        self.walk.hide()

    # -- runs ---------------------------------------------------------------------------------------

    def expect(self, plan: Plan, box: Rect) -> None:
        """A run of this plan is about to begin."""
        self._plan, self._box, self.frame = plan, box, None
        self.walk.await_run()

    def begun(self, trajectory: Trajectory) -> None:
        """It has: in the tree if it is a branch or paints on a sample, else as the first of its own."""
        plan = self._plan
        assert plan is not None
        self.frame = None
        grows = plan.parent is not None or self._root is not None
        tree = self.walk.tree if grows else Tree()
        self.walk.begin(trajectory, tree, plan.label, plan.parent, plan.log_snr)
        self.walk.show()

    def show(self, frame: Frame) -> None:
        """It has come to a frame."""
        self.frame = frame
        self.walk.show_live(frame)

    def finish(self, event: Finished) -> None:
        """It has come to its end; who looks back meanwhile goes on doing so."""
        there = self.walk.looks_live
        self.walk.finish(event, event.pictures[0])
        self._staging.finish(event)
        if not there:
            self._look_again()

    def open(self, trajectory: Trajectory, picture: np.ndarray, name: str) -> None:
        """Begin with the run of a sample, whose picture, uint8 (H, W, 3), is the document."""
        self._root, self._picture = trajectory, PaintJob(PaintRecipe(), picture)
        self._box = (0, 0, picture.shape[1], picture.shape[0])
        self.walk.open(trajectory, name, None, picture)
        self.walk.show()

    def clear(self) -> None:
        """The picture is not there any more that these runs were made on."""
        self._root = self._picture = self._next = self.frame = None
        self.walk.clear()
        self.walk.hide()

    def go_on(self, state: str) -> None:
        """After what ran has ended: the branch that it was left for begins."""
        if state == "idle" and self._next is not None:
            plan, self._next = self._next, None
            self._begin(plan)

    # -- branches -----------------------------------------------------------------------------------

    def branch(self, **changes: Any) -> None:
        """From the playhead on with what is painted now, and other settings: the fields of a Branch."""
        moment = self.walk.moment(self.frame)
        if moment is None:
            self.said.emit(self.tr("Go back on the timeline to the moment to branch at"))
            return
        try:
            plan = self._planned(moment, changes)
        except StudioError as error:
            self.failed.emit(error)
            return
        if self._runner.busy:
            # Who paints on does not wait for what they leave behind.
            self._next = plan
            self._runner.stop()
        else:
            self._begin(plan)

    def _planned(self, moment: float, changes: dict[str, Any]) -> Plan:
        node, now = self.walk.stem(moment), self._now()
        label = branch_label(changes) or self.tr("painted anew")
        assert node.trajectory is not None
        if node.trajectory is self._root:
            job = _kept_parts(node.trajectory, moment, now, changes)
            assert job.begun is not None
            return Plan(job, job, label, node.id, job.begun.log_snr)
        job = branched(node.trajectory, moment, now.layers, now.recipe.task, **changes)
        leg = job.job.leg(len(job.job.later))
        return Plan(job, leg, label, node.id, job.state.log_snr)

    # -- looking ------------------------------------------------------------------------------------

    def _thumbnail(self, frame: Frame) -> np.ndarray:
        return frame.denoised[min(self._strip.current or 0, len(frame.denoised) - 1)]

    def _look(self, frame: Frame | None) -> None:
        """Show a moment of the run that is looked at, or what it has come to."""
        node, walk = self.walk.looked_at, self.walk
        if node is None:
            return
        if walk.following and node.trajectory is self._root:
            self._staging.clear()  # the picture itself, with what is painted on it
        elif walk.looks_live and self._runner.busy:
            self._show_live()
        elif walk.following and node.result is not None:
            self._staging.show(node.result, self._box)
        elif frame is not None and (job := self._laid_into(node)) is not None:
            self._staging.look_back(frame.denoised, job, self._box)

    def _look_again(self) -> None:
        playhead = self.walk.timeline.playhead
        if playhead is not None:
            self._look(self.walk.tree.nearest(self.walk.node, playhead))
        else:
            self.walk.follow()

    def _laid_into(self, node: Node) -> PaintJob | None:
        """The last leg of a run, or the picture of the sample that is painted on."""
        given = node.trajectory.given if node.trajectory is not None else None
        if not isinstance(given, PaintJob):
            return self._picture
        if self._leg[0] is not given:
            self._leg = given, given.leg(len(given.later))
        return self._leg[1]


def _kept_parts(
    trajectory: Trajectory, moment: float, now: Now, changes: dict[str, Any]
) -> PaintJob:
    """A sample goes its way again from a moment of its run, with parts of its picture kept. Raises
    StudioError if it cannot."""
    if "temperature" in changes:
        raise SpecError(
            "A sample is painted on at its own temperature.", "Branch once, and then at another."
        )
    origin, state = onto(trajectory, moment)
    run, sample = origin.run, now.recipe.sample
    sample = replace(sample, model=run.model, model_preset=run.model_preset, sde=run.sde)
    recipe = replace(now.recipe, sample=replace(sample, **changes), way="box", origin=origin)
    layers = now.layers
    return PaintJob(
        recipe, now.picture, layers.mask, layers.sketch, boxed=True, begun=state
    ).alone()
