"""What one real step of the plan has told: memory, time, disk, and what speaks against it."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from studio.training.check import Checked
from studio.ui.train import words
from studio.weights.listing import as_size

_SHOWN = 3  # warnings; the rest is in the tooltip


class CheckCard(QFrame):
    """Hidden until there is something to tell. `sigma_wanted` carries the σ max that is suggested."""

    sigma_wanted = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("checkCard")
        self.setProperty("role", "card")
        self.setAccessibleName(self.tr("What the check told"))
        self._rows: dict[str, QLabel] = {}
        self._sigma = 0.0
        self.title = QLabel()
        self.title.setProperty("role", "heading")
        table = QFormLayout()
        table.setContentsMargins(0, 0, 0, 0)
        table.setVerticalSpacing(2)
        table.setHorizontalSpacing(12)
        for key, label, tip in self._told():
            name, value = QLabel(label), QLabel()
            value.setObjectName(f"check_{key}")
            value.setAlignment(Qt.AlignmentFlag.AlignRight)
            value.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            name.setProperty("role", "muted")
            for widget in (name, value):
                widget.setToolTip(tip)
            table.addRow(name, value)
            self._rows[key] = value
        self.warnings = QLabel()
        self.warnings.setObjectName("checkWarnings")
        self.warnings.setProperty("role", "warning")
        self.warnings.setWordWrap(True)
        self.warnings.setTextFormat(Qt.TextFormat.PlainText)
        self.sigma = QPushButton()
        self.sigma.setObjectName("useSigma")
        self.sigma.setAccessibleName(self.tr("Use the suggested σ max"))
        self.sigma.setToolTip(
            self.tr(
                "The largest distance between two of the pictures: noise this strong hides them"
            )
        )
        self.sigma.clicked.connect(lambda: self.sigma_wanted.emit(self._sigma))
        below = QHBoxLayout()
        below.addWidget(self.sigma)
        below.addStretch()
        box = QVBoxLayout(self)
        box.setContentsMargins(10, 8, 10, 8)
        box.setSpacing(6)
        box.addWidget(self.title)
        box.addLayout(table)
        box.addWidget(self.warnings)
        box.addLayout(below)
        self.hide()

    def _told(self) -> tuple[tuple[str, str, str], ...]:
        return (
            (
                "time",
                self.tr("Whole run"),
                self.tr("Steps times what one took; samples come on top"),
            ),
            ("step", self.tr("A step"), self.tr("Measured just now, on the device in use")),
            ("memory", self.tr("Memory"), self.tr("At its peak, and what was free before")),
            ("disk", self.tr("Disk"), self.tr("What the run will fill, and what is free")),
            ("trained", self.tr("Weights"), self.tr("How many are trained, of all in the network")),
        )

    def show_checked(self, checked: Checked) -> None:
        shown = {
            "time": words.duration(checked.seconds),
            "step": self.tr("{0} s").format(words.short(checked.seconds_per_step)),
            "memory": self._of(checked.memory, checked.memory_free),
            "disk": self._of(checked.disk, checked.disk_free),
            "trained": _share(checked.trained, checked.parameters),
        }
        for key, text in shown.items():
            self._rows[key].setText(text)
        self._warn(checked.warnings)
        self._sigma = checked.sigma_max or 0.0
        self.sigma.setVisible(checked.sigma_max is not None)
        self.sigma.setText(self.tr("Use σ max {0}").format(words.short(self._sigma)))
        self.set_stale(False)
        self.show()

    def _of(self, used: int, free: int) -> str:
        """Bytes of those that are free, where that is known."""
        if not free:
            return as_size(used)
        return self.tr("{used} of {free}").format(used=as_size(used), free=as_size(free))

    def _warn(self, warnings: tuple[str, ...]) -> None:
        lines = [f"• {text}" for text in warnings[:_SHOWN]]
        if len(warnings) > _SHOWN:
            lines.append(self.tr("and {count} more").format(count=len(warnings) - _SHOWN))
        self.warnings.setText("\n".join(lines))
        self.warnings.setToolTip("\n".join(warnings))
        self.warnings.setVisible(bool(warnings))

    def set_stale(self, stale: bool) -> None:
        """Whether the plan has changed since."""
        self.title.setText(
            self.tr("Checked before the plan changed") if stale else self.tr("Checked: this works")
        )
        if not stale and self.warnings.text():
            self.title.setText(self.tr("Checked: it runs. Mind this:"))
        for value in self._rows.values():
            value.setEnabled(not stale)


def _share(trained: int, parameters: int) -> str:
    def millions(number: int) -> str:
        return f"{number / 1e6:.3g} M" if number >= 100_000 else words.count(number)

    return (
        millions(trained)
        if trained == parameters
        else (f"{millions(trained)} / {millions(parameters)}")
    )
