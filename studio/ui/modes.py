"""The window's modes, one page each."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtWidgets import QTabWidget


class Modes(QTabWidget):
    """A QTabWidget that is not drawn anew when something in a page asks for another layout.

    Qt's own places its parts again and draws all of them each time: a number that changes ten times a
    second in a label would draw the whole window as often.
    """

    _placed: tuple[QSize, ...] = ()

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()  # the window may have to be larger
            corner = self.cornerWidget(Qt.Corner.TopRightCorner)
            parts = self.tabBar().sizeHint(), corner.sizeHint() if corner else QSize()
            if parts == self._placed:
                return True  # where the parts are stays
            self._placed = parts
        return super().event(event)
