"""The verbs of a training: check and start it; pause it, look at it, keep it, or throw it away."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QToolButton, QVBoxLayout, QWidget

from studio.ui import theme


class TrainBar(QWidget):
    """Buttons only: the mode says what they do, and tells by `show_state` how things stand."""

    check_requested = Signal()
    run_requested = Signal()
    pause_requested = Signal()
    sample_requested = Signal()
    save_requested = Signal()
    discard_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown: tuple[str, bool, str] = ("", False, "")
        self.check = QPushButton(self.tr("Check"))
        self.check.setObjectName("check")
        self.check.setAccessibleName(self.tr("Check the plan"))
        self.run = QPushButton(self.tr("Run"))
        self.run.setObjectName("run")
        self.run.setAccessibleName(self.tr("Train"))
        self.pause = self._verb(
            "pause", "pause", self.tr("Pause"), self.tr("Hold it where it is; the model stays (K)")
        )
        self.sample = self._verb(
            "sampleNow", "eye", self.tr("Sample"), self.tr("Draw the fixed seeds now (N)")
        )
        self.save = self._verb(
            "saveNow", "save", self.tr("Save"), self.tr("Write the model as it is now (Ctrl+S)")
        )
        self.discard = self._verb(
            "discard", "close", self.tr("Discard"), self.tr("End it and delete what it has made")
        )
        self._lay_out()
        self.show_state("idle", False, "")

    def _verb(self, name: str, icon: str, text: str, tip: str) -> QToolButton:
        button = QToolButton()
        button.setObjectName(name)
        button.setIcon(theme.icon(icon))
        button.setText(text)
        button.setToolTip(tip)
        button.setAccessibleName(text)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        policy = button.sizePolicy()
        button.setSizePolicy(policy.Policy.Expanding, policy.verticalPolicy())
        return button

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(8)
        top.addWidget(self.check, 1)
        top.addWidget(self.run, 2)
        self.verbs = QWidget()
        below = QVBoxLayout(self.verbs)
        below.setContentsMargins(0, 0, 0, 0)
        below.setSpacing(4)
        for pair in ((self.pause, self.sample), (self.save, self.discard)):
            row = QHBoxLayout()
            row.setSpacing(4)
            for button in pair:
                row.addWidget(button, 1)
            below.addLayout(row)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addLayout(top)
        box.addWidget(self.verbs)
        self.check.clicked.connect(self.check_requested)
        self.run.clicked.connect(self.run_requested)
        self.pause.clicked.connect(self.pause_requested)
        self.sample.clicked.connect(self.sample_requested)
        self.save.clicked.connect(self.save_requested)
        self.discard.clicked.connect(self.discard_requested)

    def show_state(self, state: str, checking: bool, why_not: str) -> None:
        """How the buttons are in a state of the runner. `why_not` says why a run cannot begin."""
        if (state, checking, why_not) == self._shown:
            return
        self._shown = (state, checking, why_not)
        busy = state != "idle"
        words = {"idle": self.tr("Run"), "stopping": self.tr("Saving what it has come to…")}
        self.run.setText(words.get(state, self.tr("Stop and keep")))
        self.run.setIcon(theme.icon("stop") if busy else theme.icon("play", "on_accent"))
        self.run.setProperty("busy", busy)
        self.run.style().unpolish(self.run)
        self.run.style().polish(self.run)
        self.run.setEnabled((busy or not why_not) and state != "stopping")
        tip = why_not or self.tr("Train this plan (Ctrl+Enter)")
        self.run.setToolTip(
            self.tr("End it and keep the model; it can go on later (Ctrl+Enter)") if busy else tip
        )
        self.check.setVisible(not busy)
        self.check.setEnabled(checking or not why_not)
        self.check.setText(self.tr("Stop check") if checking else self.tr("Check"))
        self.check.setToolTip(
            why_not
            or self.tr("One real step: memory, time, and what speaks against it (Ctrl+Shift+Enter)")
        )
        self.verbs.setVisible(busy)
        for button in (self.pause, self.sample, self.save, self.discard):
            button.setEnabled(state in ("running", "paused"))
        paused = state == "paused"
        self.pause.setText(self.tr("Go on") if paused else self.tr("Pause"))
        self.pause.setIcon(theme.icon("play" if paused else "pause"))
