"""The meter's plot: how an estimate settles along the flow, or how the bits of two sets lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtGui import QBrush, QColor, QPen
from PySide6.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from studio.ui import theme

_LINES = (Qt.PenStyle.SolidLine, Qt.PenStyle.DashLine)
_FILLS = (Qt.BrushStyle.SolidPattern, Qt.BrushStyle.BDiagPattern)


@dataclass(frozen=True)
class Bits:
    """A set for the histogram: its name, and the bits of what is measured, at least one, final or not."""

    name: str
    values: np.ndarray


class BitsPlot(QWidget):
    """Empty until `load_plot`, because pyqtgraph takes half a second to load."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("flowPlot")
        self.setAccessibleName(self.tr("Bits per dimension"))
        self.setMinimumHeight(150)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._plot: Any = None
        self._shown: tuple[Bits, ...] | None = None
        self._border: float | None = None
        self._way: list[tuple[float, float, float]] = []
        self._named: list[str] | None = None

    def load_plot(self) -> None:
        """Build the plot. Called once the page is on screen."""
        if self._plot is not None:
            return
        import pyqtgraph as pg

        self._plot = pg.PlotWidget()
        self._plot.setMenuEnabled(False)
        self._plot.hideButtons()
        self._plot.setMouseEnabled(False, False)
        self._plot.setAntialiasing(True)
        self._plot.getPlotItem().layout.setContentsMargins(4, 8, 12, 2)
        self._legend = self._plot.addLegend(offset=(-10, 6))
        # Made once and given other data: to make them anew would cost more than to paint them.
        self._bars = [
            self._plot.plot([0, 1], [0], stepMode="center", fillLevel=0) for _ in range(2)
        ]
        self._means = [self._error_bar() for _ in range(2)]
        self._dotted = pg.InfiniteLine()
        self._curve, self._low, self._high = (self._plot.plot([], []) for _ in range(3))
        self._band = pg.FillBetweenItem(self._low, self._high)
        self._end = self._error_bar()
        for item in (self._dotted, self._band):
            self._plot.addItem(item)
        self._box.addWidget(self._plot)
        self._colour()
        self._draw()

    def _error_bar(self) -> Any:
        import pyqtgraph as pg

        bar = pg.ErrorBarItem(x=np.zeros(1), y=np.zeros(1), left=0, right=0)
        self._plot.addItem(bar)
        return bar

    def clear(self) -> None:
        self._shown, self._way, self._border = None, [], None
        self._draw()

    def show_sets(self, sets: tuple[Bits, ...], border: float | None = None) -> None:
        """A histogram of each set over the others, and the border that parts two sets best."""
        self._shown, self._way, self._border = sets, [], border
        self._draw()

    def show_way(self, way: list[tuple[float, float, float]]) -> None:
        """How the estimate of one picture settles: (log-SNR, bits, error) of each step."""
        # A repeat goes the way anew: only the last is drawn, which holds those before.
        starts = [i for i in range(1, len(way)) if way[i][0] > way[i - 1][0]]
        self._shown, self._way = None, way[starts[-1] if starts else 0 :]
        self._draw()

    def changeEvent(self, event: Any) -> None:
        if event.type() == event.Type.PaletteChange and self._plot is not None:
            self._colour()
            self._draw()
        super().changeEvent(event)

    # -- drawing ------------------------------------------------------------------------------------

    def _draw(self) -> None:
        if self._plot is None:
            return
        sets = self._shown or ()
        along = not sets and bool(self._way)
        for i, (bars, mean) in enumerate(zip(self._bars, self._means)):
            bars.setVisible(i < len(sets))
            mean.setVisible(i < len(sets) and len(sets[i].values) > 1)
        for item in (self._curve, self._band, self._end):
            item.setVisible(along)
        self._dotted.setVisible(self._border is not None)
        self._plot.getPlotItem().getViewBox().invertX(along)
        self._name(sets)
        if sets:
            self._draw_sets(sets)
        elif along:
            self._draw_way()
        else:
            self._axes("", self.tr("Bits per dimension"))
            self._plot.setXRange(0, 8)
            self._plot.setYRange(0, 1)
            return
        self._plot.enableAutoRange()

    def _axes(self, left: str, bottom: str) -> None:
        for side, text in (("left", left), ("bottom", bottom)):
            if self._plot.getAxis(side).labelText != text:
                self._plot.setLabel(side, text)

    def _name(self, sets: tuple[Bits, ...]) -> None:
        names = [one.name for one in sets]
        if names != self._named:
            self._named = names
            self._legend.clear()
            for bars, name in zip(self._bars, names):
                self._legend.addItem(bars, name)

    def _draw_sets(self, sets: tuple[Bits, ...]) -> None:
        self._axes(self.tr("Pictures"), self.tr("Bits per dimension (fewer is likelier)"))
        edges = bins([s.values for s in sets])
        for i, one in enumerate(sets):
            heights, _ = np.histogram(one.values, edges)
            # Only as far as there are bars: a line along the axis would say nothing.
            some = np.flatnonzero(heights)
            part = slice(some[0], some[-1] + 1)
            self._bars[i].setData(edges[part.start : part.stop + 1], heights[part])
            if len(one.values) > 1:
                self._draw_mean(i, one.values, float(heights.max()))
        if self._border is not None:
            self._dotted.setValue(self._border)

    def _draw_mean(self, lane: int, values: np.ndarray, top: float) -> None:
        """The mean of a set and its standard error, above its bars."""
        error = float(values.std(ddof=1)) / np.sqrt(len(values))
        at = np.array([top * (1.06 + 0.07 * lane)])
        self._means[lane].setData(
            x=np.array([values.mean()]), y=at, left=error, right=error, beam=0.04 * top
        )

    def _draw_way(self) -> None:
        self._axes(self.tr("Bits per dimension"), self.tr("log-SNR: from the picture to noise"))
        x, y, error = (np.array(v) for v in zip(*self._way))
        known = np.nan_to_num(error)
        self._low.setData(x, y - known)
        self._high.setData(x, y + known)
        self._curve.setData(x, y)
        self._end.setData(
            x=x[-1:], y=y[-1:], left=None, right=None, height=2 * known[-1:], beam=0.3
        )

    def _colour(self) -> None:
        import pyqtgraph as pg

        c = theme.colours()
        self._plot.setBackground(c.base)
        self._legend.setLabelTextColor(QColor(c.text))
        self._named = None  # labels keep the colour that they were made in
        for side in ("left", "bottom"):
            axis = self._plot.getAxis(side)
            axis.setPen(QPen(QColor(c.edge)))
            axis.setTextPen(QColor(c.text))
        for i, (bars, mean) in enumerate(zip(self._bars, self._means)):
            fill = QColor(c.series[i])
            fill.setAlphaF(0.35 if i == 0 else 0.75)
            bars.setPen(pg.mkPen(c.series[i], width=2, style=_LINES[i]))
            bars.setFillBrush(QBrush(fill, _FILLS[i]))
            mean.setOpts(pen=pg.mkPen(c.series[i], width=2))
        soft = QColor(c.series[0])
        soft.setAlphaF(0.25)
        pen = pg.mkPen(c.series[0], width=2)
        self._band.setBrush(QBrush(soft))
        self._curve.setPen(pen)
        self._end.setOpts(pen=pen)
        for line in (self._low, self._high):
            line.setPen(None)
        self._dotted.setPen(pg.mkPen(c.muted, width=1, style=Qt.PenStyle.DotLine))


def bins(sets: list[np.ndarray]) -> np.ndarray:
    """Edges of the bars that suit all sets together: round numbers, about 30 of them."""
    every = np.concatenate(sets)
    low, high = (float(v) for v in (every.min(), every.max())) if len(every) else (0.0, 8.0)
    rough = max(high - low, 0.05) / 30
    step = 10 ** np.floor(np.log10(rough))
    step *= next(k for k in (1, 2, 5, 10) if k * step >= rough)
    first = np.floor(low / step)
    return (first + np.arange(int(np.floor(high / step) - first) + 2)) * step
