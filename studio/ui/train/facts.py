"""The inspector of a run: where it is, how well it learns, how long it takes, and what befell it."""

from __future__ import annotations

import math

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFormLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from studio.ui.train import words
from studio.ui.train.record import Record

_NOTES = 4  # of what befell the run, the newest


class Facts(QWidget):
    """Shows a Record, in numbers and words."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("inspector")
        self.setAccessibleName(self.tr("Inspector"))
        self.title = QLabel()
        self.title.setProperty("role", "heading")
        self.title.setWordWrap(True)
        self.title.setTextFormat(Qt.TextFormat.PlainText)
        self.about = QLabel()
        self.about.setProperty("role", "muted")
        self.about.setWordWrap(True)
        self.about.setTextFormat(Qt.TextFormat.PlainText)
        self.state = QLabel()
        self.state.setObjectName("runState")
        self.state.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName(self.tr("How far the training is"))
        self._rows: dict[str, QLabel] = {}
        self._shown: dict[str, str] = {}
        self.notes = QLabel()
        self.notes.setObjectName("runNotes")
        self.notes.setWordWrap(True)
        self.notes.setTextFormat(Qt.TextFormat.PlainText)
        self.notes.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        for widget in (self.title, self.about, self.state, self.bar):
            box.addWidget(widget)
        box.addLayout(self._table())
        box.addWidget(self.notes)

    def _table(self) -> QFormLayout:
        table = QFormLayout()
        table.setContentsMargins(0, 0, 0, 0)
        table.setHorizontalSpacing(16)
        for key, label, tip in (
            ("step", self.tr("Step"), self.tr("Steps done of all")),
            ("left", self.tr("Time left"), self.tr("At the pace of late, samples left out")),
            ("pace", self.tr("Pictures a second"), self.tr("How fast it learns, of late")),
            ("seen", self.tr("Pictures seen"), self.tr("Each time one was learned from counts")),
            (
                "loss",
                self.tr("Loss"),
                self.tr("Smoothed; how it falls says more than how high it is"),
            ),
            (
                "held-out",
                self.tr("Held-out loss"),
                self.tr("Of pictures it does not learn from: when it rises, it learns by heart"),
            ),
            (
                "bits",
                self.tr("Bits per dimension"),
                self.tr("Of held-out pictures; fewer is better"),
            ),
            (
                "memorised",
                self.tr("By heart"),
                self.tr(
                    "0 %: samples are as far from your pictures as held-out ones; 100 %: copies"
                ),
            ),
        ):
            value, name = QLabel(words.NOTHING), QLabel(label)
            value.setObjectName(f"value_{key}")
            value.setAlignment(Qt.AlignmentFlag.AlignRight)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            name.setProperty("role", "muted")
            for widget in (name, value):
                widget.setToolTip(tip)
            table.addRow(name, value)
            self._rows[key] = value
        return table

    def show_record(self, record: Record) -> None:
        """Write what is known of a run. Made to be called ten times a second."""
        self._set("title", self.title, record.name)
        self._set("about", self.about, record.about)
        share = record.step / record.total if record.total else 0.0
        self.bar.setValue(round(1000 * share))
        self.bar.setRange(0, 1000)
        memorised = record.memorised
        shown = {
            "step": f"{words.count(record.step)} / {words.count(record.total)}",
            "left": words.duration(record.seconds_left),
            "pace": words.short(record.last("pace")),
            "seen": words.count(record.seen) if record.seen else words.NOTHING,
            "loss": _digits(record.last("loss")),
            "held-out": _digits(record.last("held-out")),
            "bits": _digits(record.last("bits"), 2),
            "memorised": "–" if math.isnan(memorised) else f"{memorised:.0%}",
        }
        for key, text in shown.items():
            self._set(key, self._rows[key], text)
        self._set("notes", self.notes, "\n".join(f"• {note}" for note in record.notes[-_NOTES:]))

    def show_state(self, text: str) -> None:
        """Say how the run stands."""
        self._set("state", self.state, text)
        self.state.setVisible(bool(text))

    def _set(self, key: str, label: QLabel, text: str) -> None:
        if self._shown.get(key) != text:
            self._shown[key] = text
            label.setText(text)


def _digits(value: float, places: int = 4) -> str:
    return f"{value:.{places}f}" if math.isfinite(value) else words.NOTHING
