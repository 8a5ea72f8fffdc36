"""Garbage collection on the window's thread only.

Python collects cycles in whichever thread happens to allocate. A widget that is part of a cycle would
then be destroyed in the worker, and Qt objects must die where they live: it crashes, rarely.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from PySide6.QtCore import QObject, QTimer

_OFTEN = 20  # young collections to one of the middle, and those to one of everything


class Collector(QObject):
    """Collects while it lives, in steps too short to be seen; Python does so again after `stop`.

    `loaded` says when the large libraries are there: what lives then stays out of every search.
    """

    def __init__(self, loaded: Callable[[], bool], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._loaded, self._frozen, self._turn = loaded, False, 0
        gc.collect()
        gc.disable()
        self._timer = QTimer(self, interval=500)
        self._timer.timeout.connect(self._collect)
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()
        if self._frozen:
            gc.unfreeze()
        gc.enable()

    def _collect(self) -> None:
        if not self._frozen and self._loaded():
            # A million objects of torch would make every full search take a quarter of a second.
            gc.freeze()
            self._frozen = True
        self._turn += 1
        if gc.get_count()[0] < 500:
            return
        if self._turn % (_OFTEN * _OFTEN) == 0:
            gc.collect(2)
        else:
            gc.collect(1 if self._turn % _OFTEN == 0 else 0)
