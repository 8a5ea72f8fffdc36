"""Live mode: the run that follows a stroke by itself, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEvent, QObject, QTimer, Signal
from PySide6.QtWidgets import QWidget

from studio.ui.canvas.task_panel import TaskPanel
from studio.ui.runner import Runner

_PAUSE = 250  # milliseconds from the last stroke to a run


class Live(QObject):
    """Calls `start` shortly after the last change, while the panel's switch is on and the page is seen.

    A change during a run ends that run and begins another. `ready` tells whether a run can begin,
    `fresh` whether there are candidates of the last one.
    """

    rested = Signal()  # a run made way for another, which cannot begin

    def __init__(
        self,
        page: QWidget,
        panel: TaskPanel,
        runner: Runner,
        start: Callable[[], None],
        ready: Callable[[], bool],
        fresh: Callable[[], bool],
    ) -> None:
        super().__init__(page)
        self._page, self._panel, self._runner = page, panel, runner
        self._start, self._ready, self._fresh = start, ready, fresh
        self._changed = False  # since the last run began
        self._given_up = False  # whether the last run was
        self.due = False  # a run ends to make way for another
        self._timer = QTimer(self, singleShot=True, interval=_PAUSE)
        self._timer.timeout.connect(self._go)
        panel.live_changed.connect(self._switched)
        page.installEventFilter(self)

    @property
    def on(self) -> bool:
        return self._panel.live

    def touch(self) -> None:
        """Something has changed that a run would show."""
        self._changed = True
        if self.on and self._page.isVisible():
            self._timer.start()
        self.tell()

    def wait(self) -> None:
        """A mark is being made: not before it is finished."""
        self._timer.stop()

    def begun(self) -> None:
        """A run begins, by itself or by hand, with all that was changed."""
        self._timer.stop()
        self._changed = self._given_up = self.due = False

    def ended(self) -> None:
        """A run has ended; one that made way is followed by the next."""
        if self.due:
            # After the runner has told everybody else.
            QTimer.singleShot(0, self, self._go)
        self.tell()

    def stopping(self) -> None:
        """A run is being stopped; by a person, if it does not make way for another."""
        if not self.due:
            self.rest()

    def rest(self) -> None:
        """Nothing more until the next change: a person has said stop."""
        self._timer.stop()
        self._given_up, self._changed, self.due = True, False, False
        self.tell()

    def tell(self) -> None:
        """Show what live mode is doing."""
        if not self.on:
            state = "off"
        elif self._runner.busy or self.due:
            state = "working"
        elif self._fresh() and not self._changed and not self._given_up:
            state = "fresh"
        else:
            state = "waiting"
        self._panel.set_live_state(state)

    def _go(self) -> None:
        self.due = False
        if self.on and self._page.isVisible() and self._ready():
            if self._runner.busy:
                self.due = True
                self._runner.stop()
            else:
                self._start()
        elif not self._runner.busy:
            self.rested.emit()
        self.tell()

    def _switched(self, on: bool) -> None:
        if on:
            self.touch()
        else:
            self._halt()
        self.tell()

    def _halt(self) -> None:
        """Stop for real: also the run under way."""
        self._timer.stop()
        self.due = False
        self._runner.stop()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if self.on and watched is self._page:
            if event.type() == QEvent.Type.Hide:
                changed = self._changed or self._runner.busy
                self._halt()
                self._changed = changed
            elif event.type() == QEvent.Type.Show and self._changed:
                self._timer.start()
        return super().eventFilter(watched, event)
