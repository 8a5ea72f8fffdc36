"""A mode's seat at the queue: it puts runs there, and its runner runs those whose turn it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QPushButton

from studio.engine.engine import Job
from studio.engine.queue import Waiting, new_id
from studio.errors import StudioError
from studio.ui.runner import Runner
from studio.ui.session import Session


class QueueButton(QPushButton):
    """Puts what is set into the queue. To wait is a choice only while something runs."""

    def __init__(self, session: Session, tip: str) -> None:
        super().__init__()
        self._session, self._state, self._tip = session, "idle", tip
        self.setText(self.tr("Add to queue"))
        self.setObjectName("queueAdd")
        session.queue.listen(self._show)
        self.show_state("idle")

    def show_state(self, state: str, why_not: str = "") -> None:
        """How the mode's runner is, and why what is set cannot run, if it cannot."""
        self._state = state
        self.setEnabled(not why_not)
        self.setToolTip(why_not or self._tip)
        self._show()

    def _show(self) -> None:
        self.setVisible(self._state != "idle" or self._session.queue.running is not None)


class Seat(QObject):
    """Takes the entries of a `kind`. `begin` makes the job of one whose turn it is, by its plan, which is
    None for what an earlier session left. `failed` carries the StudioError that it raises instead.

    The queue hears once of the end of each, whichever way it ends.
    """

    failed = Signal(object)

    def __init__(
        self,
        session: Session,
        kind: str,
        runner: Runner,
        begin: Callable[[Waiting, Any], Job],
    ) -> None:
        super().__init__()
        self._session, self._runner, self._begin = session, runner, begin
        self._plans: dict[str, Any] = {}  # of what waits, by id
        self._turn: Waiting | None = None
        self._started = False
        session.sit(kind, self)
        runner.state_changed.connect(self._state)

    @property
    def serving(self) -> bool:
        """Whether the run under way is one of the queue's."""
        return self._turn is not None and self._started

    def put(self, recipe: dict[str, Any], plan: Any, first: bool = False, id: str = "") -> bool:
        """Hand a run to the queue, which starts it at once if nothing is under way; whether it did.

        Raises SpecError if too many wait already.
        """
        id = id or new_id()
        self._plans[id] = plan
        try:
            self._session.queue.put(recipe, first, id)
        except StudioError:
            del self._plans[id]
            raise
        return id not in self._plans

    def take(self, entry: Waiting) -> None:
        """It is this one's turn: now, or when what runs already has ended."""
        self._turn, self._started = entry, False
        if not self._runner.busy:
            self._go()

    def stop(self) -> None:
        """Stop the run that is the queue's."""
        if self.serving:
            self._runner.stop()
        elif self._turn is not None:
            self._over()

    def tell(self, done: int, total: int) -> None:
        """How far the run under way is, for those who look at the queue."""
        if self.serving:
            self._session.progressed.emit(done, total)

    def _go(self) -> None:
        assert self._turn is not None
        try:
            job = self._begin(self._turn, self._plans.pop(self._turn.id, None))
        except StudioError as error:
            self.failed.emit(error)
            self._session.refused.emit(error)
            self._over()
            return
        self._started = True
        self._runner.start(lambda: job)

    def _state(self, state: str) -> None:
        if state != "idle" or self._turn is None:
            return
        if self._started:
            self._over()
        else:
            self._go()

    def _over(self) -> None:
        if (turn := self._turn) is not None:
            self._turn, self._started = None, False
            self._session.queue.ended(turn.id)
