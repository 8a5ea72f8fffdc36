"""Keys of a widget's own, which come before the window's shortcuts while it has the focus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QEvent
from PySide6.QtGui import QKeyEvent


class OwnKeys:
    """Mixed into a QWidget, before its Qt class. The widget says in `_command` what a key does."""

    def _command(self, event: QKeyEvent) -> Callable[[], Any] | None:
        """What a key does here, or None if it is somebody else's."""
        raise NotImplementedError

    def event(self, event: QEvent) -> bool:
        asked = event.type() == QEvent.Type.ShortcutOverride
        if asked and isinstance(event, QKeyEvent) and self._command(event) is not None:
            event.accept()
            return True
        return super().event(event)  # type: ignore[misc]

    def keyPressEvent(self, event: QKeyEvent) -> None:
        command = self._command(event)
        if command is None:
            super().keyPressEvent(event)  # type: ignore[misc]
        else:
            command()
