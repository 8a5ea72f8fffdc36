"""The scoreboard of a race: a column a lane, and how far lanes are apart along log-SNR.

The distance of two lanes is what the job measures: the root mean square difference of their denoised
estimates, as a share of the value range.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from PySide6.QtCore import QEvent, QLocale, QSize, Qt, QTimer
from PySide6.QtGui import (
    QBrush,
    QColor,
    QGuiApplication,
    QKeySequence,
    QPalette,
    QShortcut,
    QShowEvent,
)
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.engine.events import Progress, Standing
from studio.ui import theme
from studio.ui.compare.marks import LETTERS, colour

_TICK = 100  # milliseconds between two writings of the numbers: faster cannot be read
_NOTHING = "–"
_DASH = (4.0, 4.0)  # of the second lane's colour on a curve, in widths of the line


@dataclass
class Score:
    """What is known of one lane."""

    sampler: str
    model: str = ""
    log_snr: float | None = None
    standing: Standing = field(default_factory=lambda: Standing(""))


class Scoreboard(QWidget):
    """Reads Progress, Standing and points of distances."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("scoreboard")
        self.setAccessibleName(self.tr("Scoreboard"))
        self._scores: list[Score] = []
        self._heads: list[QTableWidgetItem] = []
        self._cells: list[list[QTableWidgetItem]] = []  # of each lane
        self._later = QTimer(self, singleShot=True, interval=_TICK)
        self._later.timeout.connect(self._write)
        self._labels: list[QTableWidgetItem] = []
        self.table = self._table()
        self.distances = DistancePlot()
        copy = QToolButton()
        copy.setObjectName("copyScores")
        copy.setIcon(theme.icon("copy"))
        copy.setAccessibleName(self.tr("Copy the scoreboard"))
        copy.setToolTip(self.tr("Copy the table and the distances, for a spreadsheet (Ctrl+C)"))
        copy.clicked.connect(self.copy)
        QShortcut(
            QKeySequence(QKeySequence.StandardKey.Copy),
            self.table,
            self.copy,
            context=Qt.ShortcutContext.WidgetShortcut,
        )
        title = QLabel(self.tr("Scoreboard"))
        title.setProperty("role", "heading")
        top = QHBoxLayout()
        top.addWidget(title, 1)
        top.addWidget(copy)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(top)
        box.addWidget(self.table)
        box.addSpacing(8)
        box.addWidget(self.distances)
        box.addStretch()

    def _rows(self) -> tuple[tuple[str, str], ...]:
        """What is told of each lane: the word, and what it means."""
        return (
            (self.tr("Sampler"), self.tr("What brings this lane from noise to a picture")),
            (
                self.tr("log-SNR"),
                self.tr("How far it has come: from noise (low) to picture (high)"),
            ),
            (self.tr("Calls"), self.tr("How often the network was asked")),
            (
                self.tr("Seconds"),
                self.tr("At work on this lane, its share of common calls included"),
            ),
            (self.tr("Calls/s"), self.tr("Network calls in each second of work")),
            (
                self.tr("Accepted"),
                self.tr("Steps an adaptive solver kept, in the mean of pictures"),
            ),
            (self.tr("Rejected"), self.tr("Steps it took back because their error was too large")),
            (
                self.tr("Bits/dim"),
                self.tr("How likely the result is under the flow; measured on wish"),
            ),
        )

    def _table(self) -> QTableWidget:
        table = _Table(len(self._rows()), 1)
        table.setObjectName("scores")
        table.setAccessibleName(self.tr("Scoreboard"))
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        table.setShowGrid(False)
        table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setTabKeyNavigation(False)
        table.setHorizontalHeaderItem(0, QTableWidgetItem(""))
        for row, (name, tip) in enumerate(self._rows()):
            label = QTableWidgetItem(name)
            label.setToolTip(tip)
            table.setItem(row, 0, label)
            self._labels.append(label)
        table.verticalHeader().hide()
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        table.verticalHeader().setDefaultSectionSize(24)
        across = table.horizontalHeader()
        across.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        across.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        across.setMinimumSectionSize(30)
        across.setHighlightSections(False)
        across.setSectionsClickable(False)
        return table

    # ---- what is shown ------------------------------------------------------------------------

    def set_lanes(self, lanes: list[tuple[str, str]]) -> None:
        """Begin anew with lanes of these (sampler, model) names."""
        self._scores = [Score(sampler, model) for sampler, model in lanes]
        self.table.setColumnCount(1 + len(lanes))
        self._heads, self._cells = [], []
        for column, lane in enumerate(lanes):
            head = QTableWidgetItem(LETTERS[column])
            head.setToolTip(", ".join(part for part in lane if part))
            self.table.setHorizontalHeaderItem(1 + column, head)
            cells = [QTableWidgetItem(_NOTHING) for _ in range(self.table.rowCount())]
            for row, cell in enumerate(cells):
                cell.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
                self.table.setItem(row, 1 + column, cell)
            cells[0].setToolTip(head.toolTip())
            cells[0].setFont(theme.font(self.font(), 0.85))  # the longest words of a column
            self._heads.append(head)
            self._cells.append(cells)
        self._colour()
        self.distances.clear(len(lanes))
        self._write()

    def progress(self, event: Progress) -> None:
        if event.lane < len(self._scores):
            score = self._scores[event.lane]
            score.log_snr = event.log_snr
            # It comes with every step; how the lane stands is told less often.
            if event.calls > score.standing.calls:
                score.standing = replace(score.standing, calls=event.calls, seconds=event.seconds)
            self._soon()

    def standing(self, event: Standing) -> None:
        if event.lane < len(self._scores):
            self._scores[event.lane].standing = event
            self._soon()

    def scores(self) -> list[Score]:
        """What is known of each lane."""
        return list(self._scores)

    def _soon(self) -> None:
        if not self._later.isActive():
            self._later.start()

    def _write(self) -> None:
        for column, score in enumerate(self._scores):
            for cell, text in zip(self._cells[column], told(score), strict=True):
                if cell.text() != text:
                    cell.setText(text)

    def text(self) -> str:
        """The table and the distances, columns parted by tabs."""
        lines = [["", *LETTERS[: len(self._scores)]]]
        columns = [told(score) for score in self._scores]
        for row, (name, _) in enumerate(self._rows()):
            lines.append([name, *(column[row] for column in columns)])
        lines += [[], *self.distances.rows()]
        return "\n".join("\t".join(line) for line in lines).rstrip() + "\n"

    def copy(self) -> None:
        self._write()
        QGuiApplication.clipboard().setText(self.text())

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.PaletteChange:
            self._colour()
        super().changeEvent(event)

    def _colour(self) -> None:
        for column, head in enumerate(self._heads):
            head.setForeground(QBrush(QColor(colour(column))))
        for label in self._labels:
            label.setForeground(QBrush(QColor(theme.colours().muted)))


class _Table(QTableWidget):
    """As high as its rows."""

    def sizeHint(self) -> QSize:
        rows = sum(self.rowHeight(i) for i in range(self.rowCount()))
        header = self.horizontalHeader().sizeHint().height()
        return QSize(200, rows + header + 2 * self.frameWidth())

    def minimumSizeHint(self) -> QSize:
        return QSize(120, self.sizeHint().height())

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.setFixedHeight(self.sizeHint().height())


def told(score: Score) -> list[str]:
    """The cells of a lane, in the order of the rows."""
    now = score.standing
    rate = now.calls / now.seconds if now.seconds > 0 else None
    return [
        score.sampler,
        _number(score.log_snr, 1),
        str(now.calls) if now.calls else _NOTHING,
        _number(now.seconds or None, 1),
        _number(rate, 0 if rate is not None and rate >= 10 else 1),
        _number(now.accepted, 0 if _whole(now.accepted) else 1),
        _number(now.rejected, 0 if _whole(now.rejected) else 1),
        _number(now.bits, 2),
    ]


def _whole(value: float | None) -> bool:
    return value is not None and float(value).is_integer()


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return _NOTHING
    return QLocale().toString(value + 0.0, "f", digits).replace("-", "−")


class DistancePlot(QWidget):
    """A curve for each pair of lanes: their distance along log-SNR."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._points: dict[tuple[int, int], list[tuple[float, float]]] = {}
        self._plot: Any = None
        self._curves: dict[tuple[int, int], list[Any]] = {}
        self._later = QTimer(self, singleShot=True, interval=_TICK)
        self._later.timeout.connect(self._draw)
        title = QLabel(self.tr("Distance between lanes"))
        title.setProperty("role", "heading")
        title.setToolTip(
            self.tr(
                "Root mean square difference of the denoised estimates, in percent of the value "
                "range, at the same log-SNR"
            )
        )
        self._legend = QLabel()
        self._legend.setObjectName("distanceLegend")
        self._legend.setTextFormat(Qt.TextFormat.RichText)
        self._legend.setWordWrap(True)
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.setSpacing(4)
        self._box.addWidget(title)
        self._box.addWidget(self._legend)
        self._tell()

    def load(self) -> None:
        """Build the plot. Called once the window is on screen: pyqtgraph takes half a second."""
        if self._plot is not None:
            return
        import pyqtgraph as pg

        plot: Any = pg.PlotWidget()
        self._plot = plot
        plot.setObjectName("distancePlot")
        plot.setAccessibleName(self.tr("Distance between lanes along log-SNR, in percent"))
        plot.setFixedHeight(190)
        plot.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        plot.setMenuEnabled(False)
        plot.hideButtons()
        plot.setMouseEnabled(False, False)
        plot.setAntialiasing(True)
        plot.getPlotItem().layout.setContentsMargins(4, 8, 8, 2)
        plot.setXRange(-10, 10)
        plot.setYRange(0, 10)
        plot.setLabel("bottom", self.tr("log-SNR"))
        plot.setLabel("left", "%")
        self._box.addWidget(plot)
        self._colour()
        self._draw()

    def clear(self, lanes: int) -> None:
        """Begin anew with a curve for each pair of so many lanes."""
        self._points = {(a, b): [] for b in range(lanes) for a in range(b)}
        for curves in self._curves.values():
            for curve in curves:
                self._plot.removeItem(curve)
        self._curves = {}
        self._tell()
        self._draw()

    def add(self, name: str, points: tuple[tuple[float, float], ...]) -> None:
        """Points (log-SNR, distance) of a curve called "distance a-b". Any other curve is not ours."""
        kind, _, lanes = name.partition(" ")
        one, _, other = lanes.partition("-")
        if kind == "distance" and one.isdigit() and other.isdigit():
            pair = int(one), int(other)
            if pair in self._points:
                self._points[pair].extend(points)
                if not self._later.isActive():
                    self._later.start()

    def points(self, pair: tuple[int, int]) -> list[tuple[float, float]]:
        """(log-SNR, distance as a share of the value range) of two lanes, as they came."""
        return list(self._points.get(pair, ()))

    def rows(self) -> list[list[str]]:
        """Every point for a spreadsheet: pair, log-SNR, distance."""
        out = [[self.tr("Lanes"), self.tr("log-SNR"), self.tr("Distance")]]
        for (a, b), points in self._points.items():
            name = f"{LETTERS[a]}-{LETTERS[b]}"
            out += [[name, f"{snr:.4g}", f"{apart:.6g}"] for snr, apart in sorted(points)]
        return out if len(out) > 1 else []

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.PaletteChange:
            self._colour()
            self._tell()
        super().changeEvent(event)

    def _draw(self) -> None:
        if self._plot is None:
            return
        for pair, points in self._points.items():
            if pair not in self._curves:
                pens = self._pens(pair)
                self._curves[pair] = [self._plot.plot([], [], pen=pen) for pen in pens]
            points = sorted(points)
            for curve in self._curves[pair]:
                curve.setData([p[0] for p in points], [100 * p[1] for p in points])
        if any(self._points.values()):
            self._plot.enableAutoRange()

    def _pens(self, pair: tuple[int, int]) -> list[Any]:
        """A line in the colour of one lane, and dashes on it in that of the other."""
        import pyqtgraph as pg

        one, other = (colour(lane) for lane in pair)
        dashes = pg.mkPen(other, width=2, dash=_DASH)
        dashes.setCapStyle(Qt.PenCapStyle.FlatCap)
        return [pg.mkPen(one, width=2), dashes]

    def _tell(self) -> None:
        """Which line is which pair, in the colours of both."""
        names = []
        for a, b in self._points:
            line = "".join(f'<span style="color:{colour(i)}">━</span>' for i in (a, b))
            names.append(f"{line}&nbsp;{LETTERS[a]}–{LETTERS[b]}")
        self._legend.setText("&ensp; ".join(names))
        self._legend.setVisible(bool(names))

    def _colour(self) -> None:
        if self._plot is None:
            return
        palette = self.palette()
        text = palette.color(QPalette.ColorRole.WindowText)
        self._plot.setBackground(palette.color(QPalette.ColorRole.Base))
        for side in ("left", "bottom"):
            axis = self._plot.getAxis(side)
            axis.setPen(palette.color(QPalette.ColorRole.Mid))
            axis.setTextPen(text)
        for pair, curves in self._curves.items():
            for curve, pen in zip(curves, self._pens(pair), strict=True):
                curve.setPen(pen)
