"""The dialog of the self-check: what every part of the mathematics does, beside what it must do."""

from __future__ import annotations

import math
from typing import Any

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QColor, QGuiApplication, QPalette, QShowEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QSplitter,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.diffusion.laws import ORDERS, Law
from studio.diffusion.sde import SDES
from studio.engine.checks import CURVE_CALLS, Checked, Row, SelfCheckJob, rows, table
from studio.engine.events import Event, Metric, Note, Progress
from studio.ui import theme
from studio.ui.dialogs import ErrorBox
from studio.ui.form import told
from studio.ui.runner import Runner
from studio.ui.session import Session


class SelfCheckDialog(QDialog):
    """Measures in the worker while a person reads. It stays as it is until the next check.

    `runner.bug` carries an exception for the crash dialog.
    """

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("selfcheck")
        self.setWindowTitle(self.tr("Self-check"))
        self.resize(1120, 780)
        self.laws: list[Law] = []
        self.runner = Runner(session.engine, self.receive)
        self.runner.state_changed.connect(self._tell_state)
        self.errors = ErrorBox()
        self.runner.failed.connect(self.errors.show_error)
        self.plot = Convergence()
        about = QLabel(
            self.tr(
                "Each sampler, the likelihood and each condition work here on pictures whose score "
                "is known exactly, without a model. What they give stands beside what theory says."
            )
        )
        about.setWordWrap(True)
        about.setProperty("role", "muted")
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.addWidget(self._table())
        parts.addWidget(self.plot)
        parts.setSizes([400, 320])
        parts.setChildrenCollapsible(False)
        box = QVBoxLayout(self)
        box.setSpacing(10)
        box.addWidget(about)
        box.addWidget(parts, 1)
        box.addWidget(self.errors)
        box.addLayout(self._buttons())
        self._tell_state("idle")

    def _table(self) -> QTableWidget:
        names = [told(spec.title(cls)) for cls in SDES.values()]
        head = ["", self.tr("Part"), self.tr("Law"), *names, self.tr("Theory")]
        self.table = QTableWidget(0, len(head))
        self.table.setObjectName("lawTable")
        self.table.setAccessibleName(self.tr("Laws"))
        self.table.setHorizontalHeaderLabels(head)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.table.setAlternatingRowColors(True)
        self.table.setShowGrid(False)
        self.table.verticalHeader().hide()
        self.table.horizontalHeader().setHighlightSections(False)
        self.table.horizontalHeader().setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        self.table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft)
        self.table.setColumnWidth(0, 28)
        for column in (1, *range(3, len(head))):
            wanted = self.table.horizontalHeader().sectionSizeHint(column)
            self.table.setColumnWidth(column, max(wanted, 120 if column == 1 else 84))
        self.table.setColumnWidth(len(head) - 1, 190)
        return self.table

    def _buttons(self) -> QHBoxLayout:
        self.run_button = QPushButton()
        self.run_button.setObjectName("run")
        self.run_button.clicked.connect(self.run_or_stop)
        self.quick = QCheckBox(self.tr("Quick"))
        self.quick.setObjectName("quick")
        self.quick.setToolTip(self.tr("Each sampler with one SDE instead of all: seconds"))
        self.quick.setChecked(True)
        self.progress = QProgressBar()
        self.progress.setObjectName("checkProgress")
        self.progress.setAccessibleName(self.tr("Progress"))
        self.progress.setTextVisible(False)
        self.said = QLabel()
        self.said.setObjectName("checkSaid")
        self.said.setMinimumWidth(240)
        self.said.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.copy_button = QPushButton(self.tr("Copy"))
        self.copy_button.setObjectName("copyLaws")
        self.copy_button.setToolTip(self.tr("Copy the table as text"))
        self.copy_button.clicked.connect(
            lambda: QGuiApplication.clipboard().setText(table(self.laws))
        )
        close = QPushButton(self.tr("Close"))
        close.clicked.connect(self.reject)
        for button in (self.copy_button, close):
            button.setAutoDefault(False)
        line = QHBoxLayout()
        line.setSpacing(12)
        line.addWidget(self.run_button)
        line.addWidget(self.quick)
        line.addWidget(self.progress, 1)
        line.addWidget(self.said)
        line.addWidget(self.copy_button)
        line.addWidget(close)
        return line

    # -- running ------------------------------------------------------------------------------------

    def run_or_stop(self) -> None:
        if self.runner.busy:
            self.runner.stop()
            return
        self.laws.clear()
        self.table.setRowCount(0)
        self.plot.clear()
        self.progress.setValue(0)
        self.errors.clear()
        self.runner.start(lambda: SelfCheckJob(self.quick.isChecked(), curves=True))

    def receive(self, event: Event) -> None:
        if isinstance(event, Checked):
            self.laws.append(event.law)
            self._show_law(event.law)
        elif isinstance(event, Metric):
            self.plot.add(event)
        elif isinstance(event, Note):
            self.said.setText(event.text)
        elif isinstance(event, Progress):
            self.progress.setMaximum(event.total)
            self.progress.setValue(event.step)

    def _show_law(self, law: Law) -> None:
        """Fill the row of a law, or begin it."""
        every = rows(self.laws)
        place = next(
            i for i, row in enumerate(every) if (row.subject, row.name) == (law.sampler, law.name)
        )
        row = every[place]
        self.table.setRowCount(len(every))
        cells = [row.subject, row.name, *(row.measured(sde) for sde in SDES), row.theory]
        for column, text in enumerate(["✓" if row.ok else "✗", *cells]):
            item = QTableWidgetItem(text)
            item.setToolTip(text)
            self.table.setItem(place, column, item)
        self._colour_row(place, row)

    def _colour_row(self, place: int, row: Row) -> None:
        colours = theme.colours()
        mark = self.table.item(place, 0)
        if mark is not None:
            mark.setForeground(QColor(colours.good if row.ok else colours.danger))
            mark.setToolTip(self.tr("As theory says") if row.ok else self.tr("Not as theory says"))
            mark.setTextAlignment(Qt.AlignmentFlag.AlignCenter)

    def _tell_state(self, state: str) -> None:
        busy = state != "idle"
        self.run_button.setText(self.tr("Stop") if busy else self.tr("Check"))
        self.run_button.setEnabled(state != "stopping")
        self.run_button.setProperty("busy", busy)
        self.run_button.style().polish(self.run_button)
        self.quick.setEnabled(not busy)
        self.copy_button.setEnabled(bool(self.laws))
        if not busy and self.laws:
            off = sum(not law.ok for law in self.laws)
            ended = self.progress.value() == self.progress.maximum()
            text = (
                self.tr("{good} of {all} laws hold")
                if ended
                else self.tr("Stopped: {good} of {all} laws hold")
            )
            self.said.setText(text.format(good=len(self.laws) - off, all=len(self.laws)))

    # -- the window ---------------------------------------------------------------------------------

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.plot.load()

    def reject(self) -> None:
        """Close, however that was asked for: what is under way stops."""
        self.runner.stop()
        super().reject()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "table"):
            for place, row in enumerate(rows(self.laws)):
                self._colour_row(place, row)


class Convergence(QWidget):
    """End error against network calls, both in logarithms: a line a sampler, of one SDE at a time."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._points: dict[str, tuple[tuple[float, float], ...]] = {}
        self._plot: Any = None
        caption = QLabel(self.tr("Error of the spread of N(0, 0.5²) at the end, by network calls"))
        caption.setProperty("role", "heading")
        self.sde = QComboBox()
        self.sde.setObjectName("curveSde")
        self.sde.setAccessibleName(self.tr("SDE of the curves"))
        self.sde.setToolTip(self.tr("Which SDE the curves are of"))
        for name, cls in SDES.items():
            self.sde.addItem(told(spec.title(cls)), name)
        self.sde.currentIndexChanged.connect(lambda _: self._draw())
        head = QHBoxLayout()
        head.addWidget(caption)
        head.addStretch()
        head.addWidget(self.sde)
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.addLayout(head)

    def load(self) -> None:
        """Build the plot. Called once the dialog is on screen: pyqtgraph takes half a second."""
        if self._plot is not None:
            return
        import pyqtgraph as pg

        self._plot = pg.PlotWidget()
        self._plot.setObjectName("convergencePlot")
        self._plot.setAccessibleName(self.tr("End error by network calls"))
        self._plot.setMinimumHeight(200)
        self._plot.setMenuEnabled(False)
        self._plot.hideButtons()
        self._plot.setMouseEnabled(False, False)
        self._plot.setAntialiasing(True)
        self._plot.setLogMode(True, True)
        self._plot.getPlotItem().layout.setContentsMargins(4, 8, 8, 2)
        self._plot.getAxis("bottom").setTicks([[(math.log10(n), str(n)) for n in CURVE_CALLS]])
        self._plot.getAxis("left").setTicks([[(k - 2, f"{10.0**k:g} %") for k in range(-5, 3)]])
        # Room at the right for the names of the lines.
        self._plot.setXRange(math.log10(CURVE_CALLS[0]), math.log10(CURVE_CALLS[-1]) + 0.55)
        self._plot.setYRange(-6, 0)
        self._legend = self._plot.addLegend(offset=(-8, 8), colCount=2)
        self._box.addWidget(self._plot, 1)
        self._draw()

    def clear(self) -> None:
        self._points = {}
        self._draw()

    def add(self, event: Metric) -> None:
        self._points[event.name] = event.points
        self._draw()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange:
            self._draw()

    def _draw(self) -> None:
        if self._plot is None:
            return
        import pyqtgraph as pg

        palette, colours = self.palette(), theme.colours().series
        text = palette.color(QPalette.ColorRole.WindowText)
        self._plot.clear()
        self._plot.setBackground(palette.color(QPalette.ColorRole.Base))
        for side in ("left", "bottom"):
            self._plot.getAxis(side).setPen(palette.color(QPalette.ColorRole.Mid))
            self._plot.getAxis(side).setTextPen(text)
        self._legend.setLabelTextColor(text)
        for i, sampler in enumerate(ORDERS):
            points = self._points.get(f"{self.sde.currentData()} {sampler}", ())
            known = [(x, y) for x, y in points if y > 0 and math.isfinite(y)]
            if known:
                style = Qt.PenStyle.SolidLine if i < len(colours) else Qt.PenStyle.DashLine
                pen = pg.mkPen(colours[i % len(colours)], width=2, style=style)
                self._plot.plot([x for x, _ in known], [y for _, y in known], pen=pen, name=sampler)
