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
        self._box.addWidget(self._plot)
        self._draw()

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
        if event.type() == event.Type.PaletteChange:
            self._draw()
        super().changeEvent(event)

    # -- drawing ------------------------------------------------------------------------------------

    def _draw(self) -> None:
        if self._plot is None:
            return
        self._colour()
        self._plot.clear()
        self._legend.clear()
        view = self._plot.getPlotItem().getViewBox()
        view.invertX(self._shown is None and bool(self._way))
        if self._shown is not None:
            self._draw_sets(self._shown)
        elif self._way:
            self._draw_way()
        else:
            self._plot.setLabel("bottom", self.tr("Bits per dimension"))
            self._plot.setLabel("left", "")
            self._plot.setXRange(0, 8)
            self._plot.setYRange(0, 1)
            return
        self._plot.enableAutoRange()

    def _draw_sets(self, sets: tuple[Bits, ...]) -> None:
        import pyqtgraph as pg

        self._plot.setLabel("bottom", self.tr("Bits per dimension (fewer is likelier)"))
        self._plot.setLabel("left", self.tr("Pictures"))
        edges = bins([s.values for s in sets])
        colours = theme.colours().series
        for i, one in enumerate(sets):
            heights, _ = np.histogram(one.values, edges)
            # Only as far as there are bars: a line along the axis would say nothing.
            some = np.flatnonzero(heights)
            part = slice(some[0], some[-1] + 1)
            fill = QColor(colours[i % 2])
            fill.setAlphaF(0.35 if i == 0 else 0.75)
            pen = pg.mkPen(colours[i % 2], width=2, style=_LINES[i % 2])
            self._plot.plot(
                edges[part.start : part.stop + 1],
                heights[part],
                stepMode="center",
                fillLevel=0,
                fillBrush=QBrush(fill, _FILLS[i % 2]),
                pen=pen,
                name=one.name,
            )
            self._mean(one.values, float(heights.max(initial=1)), i)
        if self._border is not None:
            pen = pg.mkPen(theme.colours().muted, width=1, style=Qt.PenStyle.DotLine)
            self._plot.addItem(pg.InfiniteLine(self._border, pen=pen))

    def _mean(self, values: np.ndarray, top: float, lane: int) -> None:
        """The mean of a set and its standard error, above its bars."""
        import pyqtgraph as pg

        if len(values) < 2:
            return
        error = float(values.std(ddof=1)) / np.sqrt(len(values))
        at = top * (1.06 + 0.07 * lane)
        pen = pg.mkPen(theme.colours().series[lane % 2], width=2)
        bar = pg.ErrorBarItem(
            x=np.array([values.mean()]), y=np.array([at]), left=error, right=error, beam=0.04 * top
        )
        bar.setOpts(pen=pen)
        self._plot.addItem(bar)

    def _draw_way(self) -> None:
        import pyqtgraph as pg

        self._plot.setLabel("bottom", self.tr("log-SNR: from the picture to noise"))
        self._plot.setLabel("left", self.tr("Bits per dimension"))
        x, y, error = (np.array(v) for v in zip(*self._way))
        pen = pg.mkPen(theme.colours().series[0], width=2)
        known = np.nan_to_num(error)
        soft = QColor(theme.colours().series[0])
        soft.setAlphaF(0.25)
        low, high = pg.PlotDataItem(x, y - known), pg.PlotDataItem(x, y + known)
        self._plot.addItem(pg.FillBetweenItem(low, high, brush=QBrush(soft)))
        self._plot.plot(x, y, pen=pen)
        end = {"x": x[-1:], "y": y[-1:], "height": 2 * known[-1:], "beam": 0.3}
        bar = pg.ErrorBarItem(**end)
        bar.setOpts(pen=pen)
        self._plot.addItem(bar)
        self._plot.plot(x[-1:], y[-1:], symbol="o", symbolSize=7, symbolBrush=pen.color())

    def _colour(self) -> None:
        c = theme.colours()
        self._plot.setBackground(c.base)
        self._legend.setLabelTextColor(QColor(c.text))
        for side in ("left", "bottom"):
            axis = self._plot.getAxis(side)
            axis.setPen(QPen(QColor(c.edge)))
            axis.setTextPen(QColor(c.text))


def bins(sets: list[np.ndarray]) -> np.ndarray:
    """Edges of the bars that suit all sets together: round numbers, about 30 of them."""
    every = np.concatenate(sets)
    low, high = (float(v) for v in (every.min(), every.max())) if len(every) else (0.0, 8.0)
    rough = max(high - low, 0.05) / 30
    step = 10 ** np.floor(np.log10(rough))
    step *= next(k for k in (1, 2, 5, 10) if k * step >= rough)
    first = np.floor(low / step)
    return (first + np.arange(int(np.floor(high / step) - first) + 2)) * step
