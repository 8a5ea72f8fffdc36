"""The window's modes, one page each."""

from __future__ import annotations

from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QTabWidget


class Modes(QTabWidget):
    """A QTabWidget that is not drawn anew when something in a page asks for another layout.

    Qt's own places its parts again and draws all of them each time: a number that changes ten times a
    second in a label would draw the whole window as often.
    """

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()  # the window may have to be larger; where the parts are stays
            return True
        return super().event(event)
