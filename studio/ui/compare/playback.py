"""The timeline of a race, and its transport: to a kept moment, a step on, play, again, how fast."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QElapsedTimer, QPointF, QTimer, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPolygonF
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QLabel, QToolButton, QWidget

from studio.engine.trajectory import MARKS, Frame, Trajectory
from studio.ui import theme
from studio.ui.compare.marks import colour
from studio.ui.timeline import Timeline

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0)
_WHOLE = 4.0  # seconds from noise to clean at speed 1
_HOLD = 1.0  # seconds the end is shown before it begins again
_TICK = 33


class RaceTimeline(Timeline):
    """A Timeline that shows where each lane is. Its moments are those of all lanes, evenly
    spaced; its film is of the first lane, as far as that one has come."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._trajectories: dict[int, Trajectory] = {}
        self._read: dict[int, int] = {}  # how many frames of a lane are laid out
        self._places: dict[int, float] = {}
        self._ends = (0.0, 0.0)

    def begin_lane(self, lane: int, trajectory: Trajectory) -> None:
        """A lane has begun. The axis reaches over all lanes."""
        if self._trajectories:
            ends = min(self._ends[0], trajectory.low), max(self._ends[1], trajectory.high)
        else:
            ends = trajectory.low, trajectory.high
        if not self._trajectories or ends != self._ends:
            self._ends = ends
            self.begin(*ends)
            self._read = {}
        self._trajectories[lane] = trajectory

    def clear(self) -> None:
        self._trajectories, self._read, self._places = {}, {}, {}
        super().clear()

    def go(self, lane: int, log_snr: float, picture: int = 0) -> None:
        """A lane has come to a log-SNR. `picture` is the one whose thumbnails are laid out."""
        self._places[lane] = log_snr
        self.set_live(max(self._places.values()))
        trajectory = self._trajectories.get(lane)
        if trajectory is None:
            return
        frames = trajectory.frames[:]  # the worker may be adding to them
        known = min(self._read.get(lane, 0), len(frames))  # a full budget thins the frames
        for frame in frames[known:]:
            if self._room_at(frame.log_snr):
                self.add(frame.log_snr, _thumbnail(frame, picture))
        if lane == 0 and known < len(frames):
            self._redo(trajectory, frames[known - 1].log_snr if known else self._ends[0], picture)
        self._read[lane] = len(frames)
        self.update()

    def _room_at(self, log_snr: float) -> bool:
        """Whether no kept moment is so near that going from one to the other would show nothing."""
        low, high = self._ends
        gap = 0.9 * (high - low) / MARKS
        return log_snr >= high or all(abs(log_snr - when) >= gap for when in self.times)

    def _redo(self, trajectory: Trajectory, after: float, picture: int) -> None:
        """What the first lane has now passed shows its pictures: one film is of one lane."""
        head = trajectory.frames[-1].log_snr
        for when in self.times:
            if after < when <= head and (frame := trajectory.nearest(when)) is not None:
                self.add(when, _thumbnail(frame, picture))

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if len(self._places) < 2:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QColor(theme.colours().window))
        for lane, place in self._places.items():
            # Flags over the film: each lane has its own height, so that none hides another.
            x, y = self.x_of(place), 3.0 + 9.0 * lane
            flag = [QPointF(x, y), QPointF(x - 8, y + 4.5), QPointF(x, y + 9)]
            painter.setBrush(QColor(colour(lane)))
            painter.drawPolygon(QPolygonF(flag))
        painter.end()


def _thumbnail(frame: Frame, picture: int) -> np.ndarray:
    return frame.denoised[min(picture, len(frame.denoised) - 1)]


class Playback(QWidget):
    """Moves the playhead of a timeline over its kept moments."""

    moved = Signal(float)  # the log-SNR of the moment to show

    def __init__(self, timeline: Timeline, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._timeline = timeline
        self._place = 0.0  # seconds into the film, at speed 1
        self._clock = QElapsedTimer()
        self._timer = QTimer(self, interval=_TICK)
        self._timer.timeout.connect(self._tick)
        self.back = self._button("step-back", self.tr("One moment back (,)"), self.tr("Back"))
        self.play = self._button("play", self.tr("Play what is kept (L)"), self.tr("Play"))
        self.on = self._button("step", self.tr("One moment on"), self.tr("On"))
        self.loop = self._button("loop", self.tr("Begin again at the end"), self.tr("Loop"))
        self.loop.setCheckable(True)
        self.loop.setChecked(True)
        self.speed = QComboBox()
        self.speed.setObjectName("speed")
        self.speed.setAccessibleName(self.tr("Speed"))
        self.speed.setToolTip(self.tr("How fast it plays: at 1× four seconds from noise to clean"))
        for speed in SPEEDS:
            self.speed.addItem(f"{speed:g}×", speed)
        self.speed.setCurrentIndex(SPEEDS.index(1.0))
        self.told = QLabel()
        self.told.setObjectName("viewCaption")
        self.told.setProperty("role", "muted")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for widget in (self.back, self.play, self.on, self.loop, self.speed):
            row.addWidget(widget)
        row.addSpacing(8)
        row.addWidget(self.told, 1)
        self.back.clicked.connect(lambda: self.walk(-1))
        self.on.clicked.connect(lambda: self.walk(1))
        self.play.clicked.connect(self.play_or_stop)

    def _button(self, icon: str, tip: str, name: str) -> QToolButton:
        button = QToolButton()
        button.setIcon(theme.icon(icon))
        button.setObjectName(f"playback_{icon}")
        button.setToolTip(tip)
        button.setAccessibleName(name)
        return button

    @property
    def playing(self) -> bool:
        return self._timer.isActive()

    def play_or_stop(self) -> None:
        """Play from the playhead, or from the start where it stands at the end."""
        if self.playing:
            self.stop()
            return
        times = self._timeline.times
        if len(times) < 2:
            return
        head = self._timeline.playhead
        share = 1.0 if head is None else self._share(head)
        self._place = 0.0 if share >= 1 else share * _WHOLE
        self._clock.start()
        self._timer.start()
        self._show()

    def stop(self) -> None:
        self._timer.stop()
        self._show()

    def walk(self, count: int) -> None:
        """So many kept moments on."""
        self.stop()
        times, head = self._timeline.times, self._timeline.playhead
        if not times:
            return
        at = len(times) - 1
        if head is not None:
            at = min(range(len(times)), key=lambda i: abs(times[i] - head))
        self._go(times[min(max(at + count, 0), len(times) - 1)])

    def _tick(self) -> None:
        self._place += self._clock.restart() / 1000 * self.speed.currentData()
        if self._place > _WHOLE + _HOLD:
            if not self.loop.isChecked():
                self.stop()
                return
            self._place = 0.0
        times = self._timeline.times
        if len(times) < 2:
            self.stop()
            return
        wanted = times[0] + min(self._place / _WHOLE, 1.0) * (times[-1] - times[0])
        self._go(min(times, key=lambda when: abs(when - wanted)))

    def _share(self, log_snr: float) -> float:
        """Where a moment lies between the first kept one and the last."""
        times = self._timeline.times
        return (log_snr - times[0]) / (times[-1] - times[0])

    def _go(self, when: float) -> None:
        if when != self._timeline.playhead:
            self._timeline.set_playhead(when)
            self.moved.emit(when)

    def _show(self) -> None:
        self.play.setIcon(theme.icon("pause" if self.playing else "play"))
        self.play.setAccessibleName(self.tr("Pause") if self.playing else self.tr("Play"))
