"""A run and its branches along time: the timeline, playing what is kept, how much that is, and the tree
of branches below. For every mode whose runs can be looked back at and branched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from studio.engine.branch import Node, Tree
from studio.engine.trajectory import Frame, Trajectory
from studio.ui.branches import BranchStrip
from studio.ui.compare.playback import Playback
from studio.ui.timeline import Timeline
from studio.weights.listing import as_size


class Walk(QWidget):
    """Holds a Tree, of which one run is looked at, at a moment or as it goes.

    `shown` carries the Frame to show, or None where there is none; `looked` the Node that is looked at
    from now on. `branch` is the button that a mode puts at the end; `picture` says what of a Frame,
    uint8 (H, W, C), is a thumbnail on the timeline; `busy` whether a run is under way.
    """

    shown = Signal(object)
    looked = Signal(object)

    def __init__(
        self,
        branch: QToolButton,
        picture: Callable[[Frame], np.ndarray],
        busy: Callable[[], bool],
        rows: int = 4,
    ) -> None:
        """At most so many `rows` of branches are seen at once."""
        super().__init__()
        self.setObjectName("walk")
        self.tree = Tree()
        self.node, self.live = -1, -1  # the run that is looked at, the run under way
        self.aside = True  # whether something else than the run is looked at
        self.following = True
        self._picture, self._busy = picture, busy
        self._laid = 0  # frames of the run looked at that the timeline already has
        self.timeline = Timeline()
        self.timeline.setObjectName("timeline")
        self.playback = Playback(self.timeline)
        self.told = self.playback.told
        self.timeline.setMinimumHeight(self.timeline.sizeHint().height())
        self.strip = BranchStrip(self.timeline.x_of, rows)
        self.kept = QLabel()
        self.kept.setObjectName("kept")
        self.kept.setProperty("role", "muted")
        self.branch_button = branch
        self._lay_out()
        self.timeline.scrubbed.connect(self._taken)
        self.timeline.live_requested.connect(self.follow)
        self.playback.moved.connect(self.scrub)
        self.strip.chosen.connect(self.look_at)
        self._tell_kept()

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.playback, 1)
        row.addWidget(self.kept)
        row.addWidget(self.branch_button)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addWidget(self.timeline)
        box.addWidget(self.strip)
        box.addLayout(row)

    # -- a run under way ----------------------------------------------------------------------------

    def await_run(self) -> None:
        """A run is about to begin: what begins next is that one."""
        self.live = -1

    def begin(
        self,
        trajectory: Trajectory,
        tree: Tree,
        label: str,
        parent: int | None = None,
        log_snr: float | None = None,
    ) -> None:
        """A run has begun, in a tree; or another part of the one under way, if it did not fit into memory
        at once."""
        self.playback.stop()
        if self.live < 0:
            self.tree = tree
            self.live = tree.add(label, trajectory, parent, log_snr).id
        else:
            self.tree.update(self.live, trajectory=trajectory)
        self.node, self.following, self.aside = self.live, True, False
        self._lay_out_time()
        self.told.clear()

    def show_live(self, frame: Frame) -> None:
        """The run under way has come to a frame."""
        if self.node == self.live and self.trajectory is not None:
            self.timeline.set_live(frame.log_snr)
            self._add_thumbnails()
        if self.looks_live:
            self.shown.emit(frame)
        self._show_tree()
        self._tell_kept()

    def finish(self, result: Any, thumbnail: np.ndarray) -> None:
        """The run under way has come to its end, with this result."""
        if self.live >= 0:
            self.tree.update(self.live, result=result, thumbnail=thumbnail)
        if self.node == self.live:
            self._add_thumbnails()
        self._show_tree()
        self._tell_kept()

    def open(self, trajectory: Trajectory, label: str, result: Any, thumbnail: np.ndarray) -> None:
        """Look at a run that was made before."""
        self.tree, self.live = Tree(), -1
        node = self.tree.add(label, trajectory)
        self.tree.update(node.id, result=result, thumbnail=thumbnail)
        self.look_at(node.id)

    def clear(self) -> None:
        """No run at all."""
        self.playback.stop()
        self.tree, self.node, self.live = Tree(), -1, -1
        self.following, self.aside = True, True
        self._lay_out_time()
        self._show_tree()
        self._tell_kept()

    # -- what is looked at --------------------------------------------------------------------------

    @property
    def looked_at(self) -> Node | None:
        """The run that is looked at."""
        return self.tree.nodes[self.node] if 0 <= self.node < len(self.tree.nodes) else None

    @property
    def trajectory(self) -> Trajectory | None:
        """What is kept of it."""
        return None if self.looked_at is None else self.looked_at.trajectory

    @property
    def result(self) -> Any:
        """What it came to, if it did."""
        return None if self.looked_at is None else self.looked_at.result

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        way = self.trajectory
        return way is not None and bool(way.frames) and way.frames[-1].log_snr >= way.high

    @property
    def looks_live(self) -> bool:
        return self.following and self.node == self.live and not self.aside

    def whole_way(self) -> Trajectory | None:
        """The run with the past it shares, as one trajectory."""
        node = self.looked_at
        own = None if self.aside or node is None else node.trajectory
        if own is None or node is None or node.parent is None:
            return own
        whole = Trajectory(own.low, own.high)
        whole.frames, whole.states = self.tree.frames(node.id), own.states[:]
        whole.recipe = own.recipe
        return whole

    def set_aside(self) -> None:
        """Something else is looked at; the run goes on, and is a click away."""
        self.playback.stop()
        self.following, self.aside = False, True
        self.told.clear()

    def look_at(self, id: int) -> None:
        """Look at another run of the tree, at the same moment."""
        if not 0 <= id < len(self.tree.nodes):
            return
        live = id == self.live and self._busy()
        playhead = None if live else self.timeline.playhead
        self.node = id
        self._lay_out_time()
        self.looked.emit(self.tree.nodes[id])
        self.follow()
        if playhead is not None:
            self.scrub(playhead)

    def follow(self) -> None:
        """Back to the live head, or the end."""
        self.playback.stop()
        self.following, self.aside = True, False
        self.timeline.set_playhead(None)
        self.told.clear()
        frames = self.trajectory.frames if self.trajectory else []
        self.shown.emit(frames[-1] if frames else None)

    def _taken(self, log_snr: float) -> None:
        """A person has taken the playhead."""
        self.playback.stop()
        self.scrub(log_snr)

    def scrub(self, log_snr: float) -> None:
        """Look at the kept moment nearest to a log-SNR."""
        frame = self.tree.nearest(self.node, log_snr) if self.trajectory else None
        if frame is not None:
            self.following, self.aside = False, False
            self.timeline.set_playhead(frame.log_snr)
            self.told.setText(self.tr("step {step}").format(step=frame.step))
            self.shown.emit(frame)

    # -- branching ----------------------------------------------------------------------------------

    def moment(self, shown: Frame | None) -> float | None:
        """Where a branch leaves: at the playhead, or where a run under way is now, at the frame shown."""
        if self.trajectory is None or self.aside:
            return None
        if self.timeline.playhead is not None:
            return self.timeline.playhead
        live = self._busy() and self.node == self.live
        return shown.log_snr if live and shown is not None else None

    def stem(self, moment: float) -> Node:
        """The run that a branch at a moment leaves: that looked at, or the one that it shares this moment
        with."""
        way = [node for node in reversed(self.tree.past(self.node)) if node.trajectory]
        kept = [n for n in way if n.trajectory and n.trajectory.state_before(moment)]
        return (kept or way)[0]

    # -- painting -----------------------------------------------------------------------------------

    def _lay_out_time(self) -> None:
        """The timeline shows the whole way of the run that is looked at, from noise on."""
        way = self.trajectory
        if way is None:
            self.timeline.clear()
            return
        self.timeline.begin(way.low, way.high)
        self._laid = len(way.frames)  # before they are read: the worker may be adding to them
        frames = self.tree.frames(self.node)
        for frame in frames:
            self.timeline.add(frame.log_snr, self._picture(frame))
        if frames:
            self.timeline.set_live(frames[-1].log_snr)
        self._show_tree()
        self._tell_kept()

    def _add_thumbnails(self) -> None:
        frames = self.trajectory.frames[:] if self.trajectory else []
        self._laid = min(self._laid, len(frames))  # a full budget thins the frames
        for frame in frames[self._laid :]:
            self.timeline.add(frame.log_snr, self._picture(frame))
        self._laid = len(frames)

    def _show_tree(self) -> None:
        self.strip.show_tree(self.tree, self.node)

    def _tell_kept(self) -> None:
        """How much is kept of the run that is looked at, and of what it may take."""
        way = self.trajectory
        self.branch_button.setEnabled(way is not None)
        # What was taken out of another run takes nothing itself.
        self.kept.setVisible(way is not None and bool(way.bytes or way.spilled))
        if way is None:
            return
        text = self.tr("{used} of {budget} kept").format(
            used=as_size(way.bytes), budget=as_size(way.budget)
        )
        if way.spilled:
            text += self.tr(" · {size} on disk").format(size=as_size(way.spilled))
        self.kept.setText(text)
        told = self.tr("{0} moments and {1} exact states of this run").format(
            len(way.frames), len(way.states)
        )
        self.kept.setToolTip(f"{told}\n{way.trouble}".strip())
