"""The line over the pictures of a lane: which one it is, how it stands, and its own verbs."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QMenu, QToolButton, QWidget

from studio.diffusion.catalog import PRESETS
from studio.ui import theme
from studio.ui.compare.marks import LETTERS, Chip
from studio.ui.form import told
from studio.ui.line import Line

#: States of a lane in which it can still be stopped.
UNDER_WAY = ("running", "waiting")


class LaneHeader(QWidget):
    """Letter, sampler, state; stop this lane alone, or finish it with another sampler."""

    stop_requested = Signal(int)
    finish_requested = Signal(int, object)  # the lane, a Sampler

    def __init__(self, lane: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.lane = lane
        self.chip = Chip(lane)
        self.title = Line(strong=True)
        self.told = QLabel()
        self.told.setObjectName("laneState")
        self.stop = self._button("stop", self.tr("Stop this lane"))
        self.finish = self._button("finish", self.tr("Finish this lane"))
        self.finish.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.finish.setMenu(self._samplers())
        row = QHBoxLayout(self)
        row.setContentsMargins(2, 0, 2, 0)
        row.setSpacing(6)
        row.addWidget(self.chip)
        row.addWidget(self.title, 1)
        for widget in (self.told, self.finish, self.stop):
            row.addWidget(widget)
        self.setFixedHeight(30)
        self.stop.clicked.connect(lambda: self.stop_requested.emit(self.lane))
        self.set_state("")

    def set_lane(self, lane: int) -> None:
        """Stand for another lane."""
        self.lane = lane
        self.chip.set_lane(lane)

    def set_state(self, state: str, words: str = "") -> None:
        """Show a state of the lane: "running", "waiting", "finished", "stopped", "failed" or ""."""
        shown = {
            "waiting": self.tr("waiting"),
            "finished": self.tr("✓ finished"),
            "stopped": self.tr("stopped"),
            "failed": self.tr("⚠ failed"),
        }.get(state, "")
        role = {"failed": "problem"}.get(state, "muted")
        self.told.setText(shown)
        self.told.setToolTip(words)
        self.told.setVisible(bool(shown))
        if self.told.property("role") != role:
            self.told.setProperty("role", role)
            self.told.style().unpolish(self.told)
            self.told.style().polish(self.told)
        for button in (self.stop, self.finish):
            button.setVisible(state in UNDER_WAY)
        name = self.tr("Lane {letter}").format(letter=LETTERS[self.lane])
        parts = (name, self.title.text(), shown, words)
        self.setAccessibleName(", ".join(p for p in parts if p))

    def _button(self, icon: str, name: str) -> QToolButton:
        button = QToolButton()
        button.setObjectName(f"{icon}Lane")
        button.setIcon(theme.icon(icon))
        button.setAccessibleName(name)
        button.setToolTip(self.tr("{verb}; the others go on").format(verb=name))
        return button

    def _samplers(self) -> QMenu:
        menu = QMenu(self)
        for label, sampler in PRESETS.values():
            action = menu.addAction(self.tr("With {name}").format(name=told(label)))
            action.triggered.connect(
                lambda _=False, sampler=sampler: self.finish_requested.emit(self.lane, sampler)
            )
        return menu
