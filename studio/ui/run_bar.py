"""Run, Stop and the verbs of a run under way: the same in every mode that draws pictures."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QToolButton, QVBoxLayout, QWidget

from studio.diffusion.catalog import PRESETS
from studio.engine.jobs import FinishWith
from studio.ui import theme
from studio.ui.runner import Runner


class RunBar(QWidget):
    """The Run button over Pause, Step and Finish, for the runner of `page`, whose keys they have.

    `start` begins a run; `before` is called when one that is held goes on, for a step or for good.
    """

    def __init__(
        self,
        page: QWidget,
        runner: Runner,
        start: Callable[[], None],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(page)
        self._runner, self._start, self._before = runner, start, before
        self._shown = ("", "", "")
        self.run = _run_button(self.tr("Run"))
        self.pause = _verb("pause", self.tr("Pause"), self.tr("Hold the solver (K)"))
        self.step = _verb("step", self.tr("Step"), self.tr("One step, then hold (.)"))
        self.finish = _verb("finish", self.tr("Finish"), self.tr("Finish quickly from here (F)"))
        verbs = QHBoxLayout()
        verbs.setSpacing(4)
        for button in (self.pause, self.step, self.finish):
            verbs.addWidget(button, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addWidget(self.run)
        box.addLayout(verbs)
        self.run.clicked.connect(self.run_or_stop)
        self.pause.clicked.connect(self.pause_or_go)
        self.step.clicked.connect(self.one_step)
        self.finish.clicked.connect(self.finish_quickly)
        for key, verb in (
            ("Ctrl+Return", self.run_or_stop),
            ("K", self.pause_or_go),
            (".", self.one_step),
            ("F", self.finish_quickly),
        ):
            QShortcut(QKeySequence(key), page, verb, context=Qt.ShortcutContext.WindowShortcut)

    def run_or_stop(self) -> None:
        if self._runner.busy:
            self._runner.stop()
        elif self.run.isEnabled():
            self._start()

    def pause_or_go(self) -> None:
        if self._runner.state == "paused":
            self._before()
            self._runner.resume()
        else:
            self._runner.pause()

    def one_step(self) -> None:
        if self._runner.state == "paused":
            self._before()
        self._runner.step()

    def finish_quickly(self) -> None:
        """Go on from here with the quick sampler, to the end."""
        if self._runner.state not in ("running", "paused"):
            return
        if self._runner.state == "paused":
            self._before()
        self._runner.send(FinishWith(PRESETS["quick"][1]))
        self._runner.resume()

    def show_state(self, state: str, why_not: str = "", tip: str = "") -> None:
        """How the buttons are in a state of the runner. `why_not` says why a run cannot begin."""
        if (state, why_not, tip) == self._shown:
            return
        self._shown = (state, why_not, tip)
        busy = state != "idle"
        words = {"idle": self.tr("Run"), "stopping": self.tr("Stopping after this call…")}
        self.run.setText(words.get(state, self.tr("Stop")))
        self.run.setProperty("busy", busy)
        self.run.style().unpolish(self.run)
        self.run.style().polish(self.run)
        self.run.setIcon(theme.icon("stop") if busy else theme.icon("play", "on_accent"))
        self.run.setEnabled((busy or not why_not) and state != "stopping")
        self.run.setToolTip(self.tr("Stop (Esc)") if busy else why_not or tip)
        for button in (self.pause, self.step, self.finish):
            button.setEnabled(state in ("running", "paused"))
        paused = state == "paused"
        self.pause.setText(self.tr("Go on") if paused else self.tr("Pause"))
        self.pause.setIcon(theme.icon("play" if paused else "pause"))

    def told(self, state: str) -> str:
        """What to say of a state in the status line; empty if nothing."""
        return {
            "paused": self.tr("Paused: the solver is held where it is"),
            "stopping": self.tr("Stopping after this network call"),
        }.get(state, "")


def _run_button(text: str) -> QPushButton:
    """The primary button of a mode."""
    button = QPushButton(text)
    button.setObjectName("run")
    button.setAccessibleName(text)
    return button


def _verb(name: str, text: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setIcon(theme.icon(name))
    button.setObjectName(name)
    button.setToolTip(tip)
    button.setAccessibleName(text)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    policy = button.sizePolicy()
    button.setSizePolicy(policy.Policy.Expanding, policy.verticalPolicy())
    return button
