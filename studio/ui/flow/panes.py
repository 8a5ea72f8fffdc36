"""Pictures side by side, each under its title and over a note, zoomed for itself."""

from __future__ import annotations

import numpy as np
from PySide6.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from studio.ui.flow.tool import heading, muted
from studio.ui.picture_view import PictureView


class Panes(QWidget):
    """One pane for each (title, what is said while there is nothing)."""

    def __init__(self, *panes: tuple[str, str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.views: list[PictureView] = []
        self._notes: list[QLabel] = []
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        for title, empty in panes:
            view, note = PictureView(), muted()
            view.setObjectName(f"flowPane{len(self.views)}")
            view.setMinimumSize(120, 110)
            view.set_empty_text(empty, "")
            box = QVBoxLayout()
            box.setSpacing(4)
            box.addWidget(heading(title))
            box.addWidget(view, 1)
            box.addWidget(note)
            row.addLayout(box, 1)
            self.views.append(view)
            self._notes.append(note)

    def show_picture(self, pane: int, picture: np.ndarray, note: str | None = None) -> None:
        """A picture, uint8 (H, W, C), in a pane; the note stays where it is None."""
        self.views[pane].set_pictures(picture[None])
        if note is not None:
            self.set_note(pane, note)

    def set_note(self, pane: int, note: str) -> None:
        self._notes[pane].setText(note)

    def note(self, pane: int) -> str:
        return self._notes[pane].text()

    def clear(self, *panes: int) -> None:
        """Empty these panes, or all."""
        for pane in panes or range(len(self.views)):
            self.views[pane].clear()
            self.set_note(pane, "")
