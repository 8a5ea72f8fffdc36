"""Paintings in the queue: put there with their picture and mask, painted unseen when their turn comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from studio import spec
from studio.engine.engine import Job
from studio.engine.events import Event, Finished, Progress
from studio.engine.paint import PaintJob
from studio.engine.paint_file import KeptPainting, save
from studio.engine.queue import Waiting, new_id
from studio.errors import SpecError, StudioError
from studio.ui.errands import Errands
from studio.ui.queue_seat import QueueButton, Seat
from studio.ui.runner import Runner
from studio.ui.session import Session


class PaintQueue(QObject):
    """The canvas's place at the queue, and the button that puts there what is set. `job` makes it; it may
    raise StudioError. `made` carries what came of one that waited, a Finished; `failed` a StudioError,
    `bug` any other exception, `said` words.
    """

    made = Signal(object)
    failed = Signal(object)
    bug = Signal(object)
    said = Signal(str)

    def __init__(self, page: QWidget, session: Session, job: Callable[[], PaintJob]) -> None:
        super().__init__(page)
        self._session, self._job = session, job
        self.runner = Runner(session.engine, self._receive)
        self.errands = Errands(session.engine)
        self.seat = Seat(session, "paint", self.runner, self._begin)
        tip = self.tr("Paint this after what runs now, unseen; the candidates go to the history")
        self.button = QueueButton(session, tip)
        self.button.clicked.connect(self.add)
        for source in (self.runner, self.errands, self.seat):
            source.failed.connect(self.failed)
        for source in (self.runner, self.errands):
            source.bug.connect(self.bug)
        # Said where the queue is, too.
        self.runner.failed.connect(session.refused)

    def runners(self) -> list[Runner]:
        return [self.runner, self.errands.runner]

    def add(self) -> None:
        """Put what is set now into the queue, as soon as its picture is in a file."""
        try:
            job = self._job()
        except StudioError as error:
            self.failed.emit(error)
            return
        id = new_id()
        path = self._session.queue.given(id)
        self.errands.do(partial(save, job, path), lambda _: self._put(job, id))

    def _put(self, job: PaintJob, id: str) -> None:
        try:
            if not self.seat.put(spec.to_dict(job.recipe), None, id=id):
                self.said.emit(self.tr("In the queue: painted when its turn comes"))
        except SpecError as error:
            self._session.queue.drop(id)  # and with it what was written
            self.failed.emit(error)

    def _begin(self, entry: Waiting, _: object) -> Job:
        self.said.emit(self.tr("Painting from the queue"))
        return KeptPainting(self._session.queue.given(entry.id))

    def _receive(self, event: Event) -> None:
        if isinstance(event, Progress):
            self.seat.tell(event.step, event.total)
        elif isinstance(event, Finished):
            self._session.made.emit(event, "")
            self.made.emit(event)
            self.said.emit(self.tr("Painted from the queue; the candidates are in the history"))
