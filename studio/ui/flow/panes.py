"""Pictures side by side, each under its title and over a note, zoomed for itself."""

from __future__ import annotations

import numpy as np
from PySide6.QtWidgets import QGridLayout, QLabel, QWidget

from studio.ui.flow.tool import heading, muted
from studio.ui.picture_view import PictureView


class Panes(QWidget):
    """One pane for each (title, what is said while there is nothing)."""

    def __init__(self, *panes: tuple[str, str], across: int = 2) -> None:
        super().__init__()
        self.views: list[PictureView] = []
        self._notes: list[QLabel] = []
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(6)
        for title, empty in panes:
            view, note = PictureView(), muted()
            view.setObjectName(f"flowPane{len(self.views)}")
            view.setMinimumSize(120, 110)
            view.set_empty_text(empty, "")
            down, column = divmod(len(self.views), across)
            for i, widget in enumerate((heading(title), view, note)):
                grid.addWidget(widget, 3 * down + i, column)
            grid.setRowStretch(3 * down + 1, 1)
            grid.setColumnStretch(column, 1)
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
