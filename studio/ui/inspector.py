"""The inspector: where a run is, in numbers, and the size of the score along the way."""

from __future__ import annotations

import math
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import QFormLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from studio.engine.events import Progress


class Inspector(QWidget):
    """Reads Progress and points of the score's norm."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("inspector")
        self.setAccessibleName(self.tr("Inspector"))
        self._rows: dict[str, QLabel] = {}
        table = QFormLayout()
        table.setContentsMargins(0, 0, 0, 0)
        table.setHorizontalSpacing(16)
        for key, label, tip in (
            (
                "log_snr",
                self.tr("log-SNR"),
                self.tr("ln(a²/s²): from noise (low) to picture (high)"),
            ),
            ("sigma", self.tr("σ"), self.tr("Noise level s/a that the state still has")),
            ("step", self.tr("Step"), self.tr("Steps done of all")),
            ("calls", self.tr("Network calls"), self.tr("How often the network was asked")),
            ("rate", self.tr("Calls a second"), self.tr("Network calls in each second of work")),
            ("seconds", self.tr("Seconds"), self.tr("Seconds of work, pauses left out")),
        ):
            value = QLabel("–")
            value.setObjectName(f"value_{key}")
            value.setAlignment(Qt.AlignmentFlag.AlignRight)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            name = QLabel(label)
            name.setToolTip(tip)
            name.setProperty("role", "muted")
            value.setToolTip(tip)
            table.addRow(name, value)
            self._rows[key] = value
        self._caption = QLabel(self.tr("Score norm, log₁₀ ‖∇ log p‖"))
        self._caption.setProperty("role", "heading")
        self._caption.setToolTip(self.tr("Mean length of the score over the pictures, by log-SNR"))
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.addLayout(table)
        self._box.addSpacing(8)
        self._box.addWidget(self._caption)
        self._plot: Any = None
        self._curve: Any = None
        self._points: list[tuple[float, float]] = []

    def load_plot(self) -> None:
        """Build the plot. Called once the window is on screen: pyqtgraph takes half a second."""
        if self._plot is not None:
            return
        import pyqtgraph as pg

        self._plot = pg.PlotWidget()
        self._plot.setObjectName("scorePlot")
        self._plot.setAccessibleName(self._caption.text())
        self._plot.setMinimumHeight(120)
        self._plot.setMaximumHeight(200)
        self._plot.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self._plot.setMenuEnabled(False)
        self._plot.hideButtons()
        self._plot.setMouseEnabled(False, False)
        # Room for the topmost number, which would be cut at the edge.
        self._plot.getPlotItem().layout.setContentsMargins(4, 8, 8, 2)
        self._plot.setXRange(-10, 10)
        self._plot.setYRange(0, 4)
        self._plot.setAntialiasing(True)
        self._curve = self._plot.plot([], [])
        self._box.addWidget(self._plot)
        self._colour_plot()
        self._draw()

    def clear(self) -> None:
        for label in self._rows.values():
            label.setText("–")
        self._points = []
        self._draw()

    def progress(self, event: Progress) -> None:
        shown = {
            "log_snr": f"{event.log_snr:.2f}",
            "sigma": f"{math.exp(-event.log_snr / 2):.3g}",
            "step": f"{event.step} / {event.total}",
            "calls": str(event.calls),
            "rate": f"{event.calls / event.seconds:.1f}" if event.seconds > 0 else "–",
            "seconds": f"{event.seconds:.1f}",
        }
        for key, text in shown.items():
            self._rows[key].setText(text)

    def add_points(self, points: tuple[tuple[float, float], ...]) -> None:
        self._points.extend(p for p in points if p[1] > 0)
        self._draw()

    def changeEvent(self, event: Any) -> None:
        if event.type() == event.Type.PaletteChange:
            self._colour_plot()
        super().changeEvent(event)

    def _draw(self) -> None:
        if self._curve is not None:
            if self._points:
                self._plot.enableAutoRange()
            self._curve.setData(
                [x for x, _ in self._points], [math.log10(y) for _, y in self._points]
            )

    def _colour_plot(self) -> None:
        if self._plot is None:
            return
        palette = self.palette()
        text = palette.color(QPalette.ColorRole.WindowText)
        self._plot.setBackground(palette.color(QPalette.ColorRole.Base))
        for side in ("left", "bottom"):
            axis = self._plot.getAxis(side)
            axis.setPen(palette.color(QPalette.ColorRole.Mid))
            axis.setTextPen(text)
        self._curve.setPen(palette.color(QPalette.ColorRole.Highlight), width=2)
