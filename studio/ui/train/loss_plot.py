"""The loss of a run by its steps: smoothed, of held-out pictures, or as bits per dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QColor, QResizeEvent
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from studio.ui import theme
from studio.ui.train import words
from studio.ui.train.plot_paint import bare_plot, colour_plot
from studio.ui.train.record import Curve, Record

_ROOM = 350  # the width from which there is a legend
_EARLY = 0.02  # share of a run whose losses, far above the rest, do not set the scale


class LossPlot(QWidget):
    """Empty until `load`."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("lossPlot")
        self.setMinimumHeight(120)
        self._plot: Any = None
        self._lines: list[Any] = []
        self._drawn: tuple[Any, ...] = ()
        self._record = Record()
        self.kinds = QButtonGroup(self)
        top = QHBoxLayout()
        top.setSpacing(0)
        for i, (name, text, tip) in enumerate(
            (
                ("lossKind", self.tr("Loss"), self.tr("Smoothed, and of held-out pictures")),
                ("bitsKind", self.tr("Bits/dim"), self.tr("Of held-out pictures, along the flow")),
            )
        ):
            button = QPushButton(text)
            button.setObjectName(name)
            button.setProperty("segment", True)
            button.setCheckable(True)
            button.setChecked(i == 0)
            button.setToolTip(tip)
            self.kinds.addButton(button, i)
            top.addWidget(button)
        self.legend = QLabel()
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.legend.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        top.addWidget(self.legend, 1)
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.setSpacing(2)
        self._box.addLayout(top)
        self.kinds.idClicked.connect(lambda _: self.show_record(self._record))

    def load(self) -> None:
        """Build the plot, once the page is on screen."""
        if self._plot is not None:
            return
        self._plot = bare_plot("lossLines", self.tr("Loss by steps"))
        self._lines = [self._plot.plot([], []) for _ in range(2)]
        self._box.addWidget(self._plot, 1)
        self._colour()
        self.show_record(self._record)

    def show_record(self, record: Record) -> None:
        """Draw the curves of a run. Made to be called ten times a second."""
        self._record = record
        self._describe()
        if self._plot is None:
            return
        bits = self.kinds.checkedId() == 1
        names = ("bits",) if bits else ("loss", "held-out")
        curves = [record.curves.get(name, Curve()) for name in names]
        drawn = (names, record.total, *(tuple(c.points[-1:]) for c in curves))
        if drawn == self._drawn:
            return
        self._drawn = drawn
        for line, curve in zip(self._lines, [*curves, Curve()], strict=False):
            points = np.array(curve.points, float).reshape(-1, 2)
            line.setData(points[:, 0], points[:, 1])
        self._scale(record, curves)

    def _scale(self, record: Record, curves: list[Curve]) -> None:
        """The run across; down, what is not of the first steps."""
        last = max([record.step, *(c.points[-1][0] for c in curves if c.points)], default=0)
        first = min((c.points[0][0] for c in curves if c.points), default=0)
        early = first + _EARLY * (last - first)
        late = [value for curve in curves for step, value in curve.points if step >= early]
        self._plot.setXRange(0, _reach(last, record.total), padding=0.01)
        if late:
            low, high = float(np.min(late)), float(np.quantile(late, 0.995))
            room = max(high - low, 1e-6 + 0.02 * abs(high))
            self._plot.setYRange(low - 0.08 * room, high + 0.08 * room, padding=0)
        else:
            self._plot.setYRange(0, 1)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        # Half a legend would be worse than none.
        self.legend.setVisible(self.width() >= _ROOM)

    def _describe(self) -> None:
        """Say the newest values to screen readers."""
        loss, held = self._record.last("loss"), self._record.last("held-out")
        self.setAccessibleName(
            self.tr("Loss {loss}, of held-out pictures {held}").format(
                loss=words.short(loss), held=words.short(held)
            )
        )

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.PaletteChange:
            self._colour()
        super().changeEvent(event)

    def _colour(self) -> None:
        c = theme.colours()
        self.legend.setText(
            f"<span style='color:{c.series[0]}'>━</span> {self.tr('learned from')} &nbsp; "
            f"<span style='color:{c.series[1]}'>┅</span> {self.tr('held out')}"
        )
        if self._plot is None:
            return
        import pyqtgraph as pg

        colour_plot(self._plot)
        first, second = self._lines
        first.setPen(pg.mkPen(QColor(c.series[0]), width=1.6))
        second.setPen(pg.mkPen(QColor(c.series[1]), width=1.6, style=Qt.PenStyle.DashLine))
        for axis in ("left", "bottom"):
            self._plot.getAxis(axis).setStyle(tickFont=theme.font(self.font(), 0.85))


def _reach(last: float, total: float) -> float:
    """How far the axis goes: to the end of the run, halved while the curve would take less than half."""
    end = max(total, last, 1.0)
    while end / 2 >= max(1.0, 1.02 * last):
        end /= 2
    return end
