"""A training as it goes: the loss, the loss by noise level, and samples from fixed seeds."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import QSplitter, QVBoxLayout, QWidget

from studio.ui.train.levels_strip import LevelsStrip
from studio.ui.train.loss_plot import LossPlot
from studio.ui.train.record import Record
from studio.ui.train.sample_wall import SampleWall
from studio.ui.train.time_lapse import TimeLapse

_TICK = 120  # milliseconds between two drawings: faster cannot be read, and costs the training


class LiveView(QWidget):
    """Shows a Record. Call `touch` whenever it changed; it is drawn a few times a second."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.record = Record()
        self.plot = LossPlot()
        self.levels = LevelsStrip()
        self.wall = SampleWall()
        self.lapse = TimeLapse()
        self._later = QTimer(self, singleShot=True, interval=_TICK)
        self._later.timeout.connect(self.draw)
        plots = QSplitter(Qt.Orientation.Horizontal)
        plots.setObjectName("trainPlots")
        plots.setChildrenCollapsible(False)
        plots.addWidget(self.plot)
        plots.addWidget(self.levels)
        plots.setStretchFactor(0, 3)
        plots.setStretchFactor(1, 2)
        plots.setSizes([420, 320])
        samples = QWidget()
        below = QVBoxLayout(samples)
        below.setContentsMargins(0, 0, 0, 0)
        below.setSpacing(6)
        below.addWidget(self.wall, 1)
        below.addWidget(self.lapse)
        split = QSplitter(Qt.Orientation.Vertical)
        split.setObjectName("trainLiveSplit")
        split.setChildrenCollapsible(False)
        split.addWidget(plots)
        split.addWidget(samples)
        split.setStretchFactor(0, 1)
        split.setStretchFactor(1, 3)
        split.setSizes([190, 430])
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(split)
        self.lapse.moved.connect(lambda _: self._draw_sheet())
        self._say_empty()

    def load(self) -> None:
        """Build what takes long to load, once the page is on screen."""
        self.plot.load()

    def begin(self, record: Record) -> None:
        """Show another run."""
        self.record = record
        self.lapse.follow()
        self.draw()

    def touch(self) -> None:
        """Something of the run is new."""
        if not self._later.isActive():
            self._later.start()

    def draw(self) -> None:
        """Show all that is known of the run."""
        record = self.record
        if not self.isVisible():
            return  # shown when it is looked at
        self.plot.show_record(record)
        self.levels.show_levels(record.levels)
        self.lapse.set_steps([sheet.step for sheet in record.sheets])
        self.wall.set_memorised(record.memorised)
        self._draw_sheet()

    def showEvent(self, event: object) -> None:
        super().showEvent(event)  # type: ignore[arg-type]
        self.draw()

    def _draw_sheet(self) -> None:
        sheets, place = self.record.sheets, self.lapse.place
        if not sheets:
            self.wall.show_sheet(None, None)
            return
        at = len(sheets) - 1 if place is None else min(place, len(sheets) - 1)
        shown = sheets[at]
        # Of a run that was gone on with by another plan, the first sheets may have fewer pictures.
        alike = (s for s in sheets if s.pictures.shape == shown.pictures.shape)
        self.wall.show_sheet(shown, next(alike, shown))

    def _say_empty(self) -> None:
        self.wall.set_empty_text(
            self.tr("No samples yet"),
            self.tr("Once it trains, the same noise is turned into pictures again and again."),
        )
