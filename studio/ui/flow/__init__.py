"""Tools on the probability flow: a likelihood meter, pictures to noise and back, ways between two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QPushButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from studio.ui.dialogs import ErrorBox
from studio.ui.flow.interpolation import Interpolation
from studio.ui.flow.meter import Meter
from studio.ui.flow.round_trip import RoundTrip
from studio.ui.flow.tool import Tool
from studio.ui.runner import Runner
from studio.ui.session import Session


class FlowTools(QWidget):
    """One of the three tools at a time; a run goes on while another is looked at.

    `status` carries words for the status line, `bug` an exception for the crash dialog.
    """

    status = Signal(str)
    bug = Signal(object)

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("flowTools")
        self.meter = Meter(session)
        self.round_trip = RoundTrip(session)
        self.interpolation = Interpolation(session)
        self.tools: tuple[Tool, ...] = (self.meter, self.round_trip, self.interpolation)
        self._stack = QStackedWidget()
        self._chooser = QButtonGroup(self)
        bar = QHBoxLayout()
        bar.setContentsMargins(12, 10, 12, 0)
        bar.setSpacing(4)
        for i, tool in enumerate(self.tools):
            tool.status.connect(self.status)
            tool.bug.connect(self.bug)
            self._stack.addWidget(tool)
            button = QPushButton(tool.title())
            button.setObjectName(f"flow_{tool.objectName()}")
            button.setCheckable(True)
            button.setChecked(i == 0)
            button.setToolTip(tool.title())
            self._chooser.addButton(button, i)
            bar.addWidget(button)
        bar.addStretch()
        self._chooser.idClicked.connect(self._stack.setCurrentIndex)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addLayout(bar)
        box.addWidget(self._stack, 1)
        for key, verb in (("Ctrl+Return", self.run_or_stop), ("Escape", self.stop)):
            shortcut = QShortcut(QKeySequence(key), self, verb)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)

    @property
    def tool(self) -> Tool:
        """The tool that is shown."""
        return self.tools[self._stack.currentIndex()]

    @property
    def errors(self) -> ErrorBox:
        """Where the tool that is shown tells of problems, beside its button."""
        return self.tool.errors

    def choose(self, tool: Tool) -> None:
        """Show a tool."""
        index = self.tools.index(tool)
        self._chooser.button(index).setChecked(True)
        self._stack.setCurrentIndex(index)

    def runners(self) -> list[Runner]:
        """Every runner of the page, for closing in order."""
        return [runner for tool in self.tools for runner in tool.runners()]

    def run_or_stop(self) -> None:
        self.tool.run_or_stop()

    def stop(self) -> None:
        self.tool.runner.stop()

    def measure(self, pixels: np.ndarray, name: str) -> None:
        """Show how likely pictures are, uint8 (H, W, C) or (N, H, W, C) of any size."""
        self.choose(self.meter)
        self.meter.measure(pixels, name)

    def open(self, path: Path) -> bool:
        """Give a picture or folder to the tool that is shown; whether it takes such a thing."""
        tool = self.tool
        if isinstance(tool, Meter | RoundTrip | Interpolation):
            tool.open(path)
        return True
