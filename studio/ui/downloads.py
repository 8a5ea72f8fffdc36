"""Downloads: a row each, with bytes, speed, time left, and verbs that may be pressed at any time.

To pause is to stop: what has come stays on disk, and going on (also in another session) is a new job
that begins where that one ended. A row without a network waits and tries again by itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QCoreApplication, Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from studio.engine.engine import Engine
from studio.engine.events import Event, Note, Saved, Transfer
from studio.engine.library import DiscardJob, GetJob
from studio.errors import StudioError
from studio.ui.page import scrolled
from studio.ui.runner import Runner
from studio.weights.listing import as_size

#: Seconds until a download that found no network tries again.
RETRY = 20


class DownloadRow(QFrame):
    """One download. `state`: running, pausing, paused, waiting, failed, cancelling, done."""

    changed = Signal()
    retold = Signal()  # its text may take more lines, or fewer
    arrived = Signal(object)  # the folder of the model
    use_requested = Signal(object)
    dismissed = Signal()
    bug = Signal(object)

    def __init__(self, engine: Engine, job: GetJob) -> None:
        super().__init__()
        self.job = job
        self.state = "paused"
        self.folder: Path | None = None
        self._transfer = Transfer(0, 0)
        self._told = ""
        self._discarding = False
        self._runner = Runner(engine, self._receive)
        self._runner.failed.connect(self._failed)
        self._runner.bug.connect(self._broken)
        self._runner.state_changed.connect(self._run_ended)
        self._again = QTimer(self, singleShot=True, interval=RETRY * 1000)
        self._again.timeout.connect(self.resume)
        self.setObjectName("download")
        self.setProperty("role", "card")
        self.setAccessibleName(self.tr("Download of {id}").format(id=job.id))
        self._build()
        self._show()

    def _build(self) -> None:
        self.name = QLabel(self.job.id)
        self.name.setObjectName("downloadName")
        self.name.setProperty("role", "heading")
        self.name.setTextFormat(Qt.TextFormat.PlainText)
        self.name.setToolTip(self.job.id)
        self.name.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.bar = QProgressBar()
        self.bar.setObjectName("downloadBar")
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName(self.tr("Progress"))
        self.bar.setToolTip(self.tr("How much of the model has come"))
        self.text = QLabel()
        self.text.setObjectName("downloadText")
        self.text.setProperty("role", "muted")
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.go = self._button("downloadGo")
        self.cancel = self._button("downloadCancel")
        self.go.clicked.connect(self._go)
        self.cancel.clicked.connect(self._cancel)
        grid = QGridLayout(self)
        grid.setContentsMargins(12, 8, 10, 8)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        grid.addWidget(self.name, 0, 0)
        grid.addWidget(self.bar, 1, 0)
        grid.addWidget(self.text, 2, 0)
        grid.addWidget(self.go, 0, 1, 3, 1, Qt.AlignmentFlag.AlignVCenter)
        grid.addWidget(self.cancel, 0, 2, 3, 1, Qt.AlignmentFlag.AlignVCenter)
        grid.setColumnStretch(0, 1)

    def _button(self, name: str) -> QPushButton:
        button = QPushButton()
        button.setObjectName(name)
        button.setMinimumWidth(86)
        return button

    # -- verbs --------------------------------------------------------------------------------------

    @property
    def runner(self) -> Runner:
        return self._runner

    def resume(self) -> None:
        """Begin, go on, or try again. Does nothing while it is under way or done."""
        if self._runner.busy or self.state == "done":
            return
        self._again.stop()
        self._told = self.tr("Asking the hub")
        self._set("running")
        self._runner.start(lambda: self.job)

    def pause(self) -> None:
        self._again.stop()
        if self._runner.busy:
            self._set("pausing")
            self._runner.stop()
        elif self.state == "waiting":
            self._set("paused")

    def discard(self) -> None:
        """Cancel: stop, then delete what has come."""
        self._again.stop()
        self._set("cancelling")
        if self._runner.busy:
            self._runner.stop()
        else:
            self._discarding = True
            self._runner.start(lambda: DiscardJob(self.job.id))

    def show_unfinished(self, done: int, total: int) -> None:
        """A download of an earlier session: how far it had come."""
        self._transfer = Transfer(done, total)
        self._show()

    def _go(self) -> None:
        if self.state == "done":
            self.use_requested.emit(self.folder)
        elif self.state == "running":
            self.pause()
        else:
            self.resume()

    def _cancel(self) -> None:
        if self.state == "done":
            self.dismissed.emit()
        else:
            self.discard()

    # -- what comes ---------------------------------------------------------------------------------

    def _receive(self, event: Event) -> None:
        match event:
            case Transfer():
                self._transfer, self._told = event, ""
            case Note():
                self._told = self.tr(event.text)
            case Saved():
                self.folder = event.path
        self._show()

    def _failed(self, error: StudioError) -> None:
        if self.state == "cancelling" and not self._discarding:
            return
        self._discarding = False
        self._told = str(error)
        waiting = is_offline(error)
        self._set("waiting" if waiting else "failed")
        if waiting:
            self._again.start()

    def _broken(self, error: BaseException) -> None:
        self._told = self.tr("Something broke in the studio; what has come is kept.")
        self._set("failed")
        self.bug.emit(error)

    def _run_ended(self, runner_state: str) -> None:
        """The runner is idle again: by its end, by Pause, or by Cancel, which goes on from here."""
        if runner_state != "idle":
            return
        if self.state == "cancelling" and self._discarding:
            self.dismissed.emit()
        elif self.state == "cancelling":
            self.discard()
        elif self.folder is not None:
            self._set("done")
            self.arrived.emit(self.folder)
        elif self.state in ("running", "pausing"):
            self._set("paused")

    # -- showing ------------------------------------------------------------------------------------

    def _set(self, state: str) -> None:
        self.state = state
        self._show()
        self.changed.emit()

    def _show(self) -> None:
        done, total = self._transfer.done, self._transfer.total
        self.bar.setValue(
            1000 if self.state == "done" else round(1000 * done / total) if total else 0
        )
        if (words := self._words()) != self.text.text():
            self.text.setText(words)
            self.retold.emit()
        problem = self.state in ("failed", "waiting")
        if self.text.property("tone") != (wanted := "danger" if problem else ""):
            self.text.setProperty("tone", wanted)
            self.text.style().unpolish(self.text)
            self.text.style().polish(self.text)
        verbs = {
            "running": (self.tr("Pause"), self.tr("Stop here; what has come is kept")),
            "failed": (self.tr("Retry"), self.tr("Go on from what has come")),
            "waiting": (self.tr("Retry"), self.tr("Look now whether the network is back")),
            "done": (self.tr("Use it"), self.tr("Choose this model and go to Sample")),
        }
        text, tip = verbs.get(self.state, (self.tr("Resume"), self.tr("Go on from what has come")))
        self.go.setText(text)
        self.go.setToolTip(tip)
        self.go.setAccessibleName(f"{text}: {self.job.id}")
        self.go.setEnabled(self.state not in ("pausing", "cancelling"))
        self.go.setProperty("primary", self.state == "done")
        self.go.style().unpolish(self.go)
        self.go.style().polish(self.go)
        done_with = self.state == "done"
        self.cancel.setText(self.tr("Close") if done_with else self.tr("Cancel"))
        self.cancel.setToolTip(
            self.tr("Take this row away; the model stays")
            if done_with
            else self.tr("Give up this download and delete what has come")
        )
        self.cancel.setAccessibleName(f"{self.cancel.text()}: {self.job.id}")
        self.cancel.setEnabled(self.state != "cancelling")

    def _words(self) -> str:
        done, total = self._transfer.done, self._transfer.total
        amount = as_size(done)
        if total:
            amount = self.tr("{done} of {total}").format(done=amount, total=as_size(total))
        match self.state:
            case "done":
                return self.tr("Here, and checked. It is on the shelf.")
            case "cancelling":
                return self.tr("Cancelling…")
            case "pausing":
                return self.tr("Pausing… · {amount}").format(amount=amount)
            case "paused":
                return self.tr("Paused · {amount}").format(amount=amount)
            case "failed" | "waiting":
                kept = self.tr("{amount} kept.").format(amount=amount) if done else ""
                return f"{self._told} {kept}".strip()
        speed = self._transfer.speed
        parts = [amount] if total else []
        if speed > 0:
            parts += [f"{as_size(round(speed))}/s", time_left((total - done) / speed)]
        return " · ".join([*parts, *filter(None, [self._told])])


class Downloads(QWidget):
    """All rows. Hidden while there are none."""

    arrived = Signal(object)
    use_requested = Signal(object)
    changed = Signal()
    bug = Signal(object)

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.setObjectName("downloads")
        self.setAccessibleName(self.tr("Downloads"))
        self._engine = engine
        self.rows: list[DownloadRow] = []
        title = QLabel(self.tr("Downloads"))
        title.setProperty("role", "heading")
        self.offline = QLabel(
            self.tr("You are offline: models on this machine work; downloads wait.")
        )
        self.offline.setObjectName("offline")
        self.offline.setProperty("chip", True)
        self.offline.setProperty("tone", "warning")
        self.offline.hide()
        head = QHBoxLayout()
        head.addWidget(title)
        head.addWidget(self.offline)
        head.addStretch()
        inner = QWidget()
        self._list = QVBoxLayout(inner)
        self._list.setContentsMargins(0, 0, 0, 0)
        self._list.setSpacing(6)
        self._list.addStretch()
        self._area = scrolled(inner)
        box = QVBoxLayout(self)
        box.setContentsMargins(12, 4, 12, 10)
        box.setSpacing(6)
        box.addLayout(head)
        box.addWidget(self._area)
        self.hide()

    def get(self, id: str, revision: str = "main", token: str = "") -> DownloadRow:
        """Download a model, or go on with it if there is a row of it already."""
        row = self.row(id)
        if row is None or row.state == "done":
            if row is not None:
                self._remove(row)
            row = self._add(GetJob(id, revision, token))
        elif token:
            row.job = replace(row.job, token=token)
        row.resume()
        return row

    def restore(self) -> None:
        """Rows for what an earlier session left unfinished, each waiting for Resume."""
        from studio.weights import hub  # it brings the network with it

        for left in hub.unfinished():
            if self.row(left.id) is None:
                # Its own revision: parts of another one do not fit.
                self._add(GetJob(left.id, left.revision)).show_unfinished(left.done, left.total)

    def row(self, id: str) -> DownloadRow | None:
        return next((row for row in self.rows if row.job.id.lower() == id.lower()), None)

    def runners(self) -> list[Runner]:
        return [row.runner for row in self.rows]

    def _add(self, job: GetJob) -> DownloadRow:
        row = DownloadRow(self._engine, job)
        row.changed.connect(self._changed)
        row.retold.connect(self._fit)
        row.arrived.connect(self.arrived)
        row.use_requested.connect(self.use_requested)
        row.dismissed.connect(lambda: self._remove(row))
        row.bug.connect(self.bug)
        self.rows.append(row)
        self._list.insertWidget(self._list.count() - 1, row)
        self._changed()
        return row

    def _remove(self, row: DownloadRow) -> None:
        if row in self.rows:
            self.rows.remove(row)
            self._list.removeWidget(row)
            row.hide()
            row.deleteLater()
            self._changed()

    def _changed(self) -> None:
        self.offline.setVisible(any(row.state == "waiting" for row in self.rows))
        self.setVisible(bool(self.rows))
        self._fit()
        self.changed.emit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        """As tall as the rows, up to a quarter of the page but no less than one; then they scroll."""
        width = self.width() - 24
        heights = [row.heightForWidth(width) + 6 for row in self.rows]
        parent = self.parentWidget()
        page = parent.height() if parent is not None else 0
        self._area.setFixedHeight(max(min(sum(heights), page // 4), max(heights, default=0)))


def is_offline(error: StudioError) -> bool:
    """Whether an error says that the hub cannot be reached, rather than something of the model."""
    return any(sign in error.message for sign in ("cannot be reached", "HF_HUB_OFFLINE"))


def time_left(seconds: float) -> str:
    """A duration ahead as people say it: "3 min left"."""

    def told(words: str, count: float) -> str:
        return QCoreApplication.translate("Downloads", words).format(n=count)

    if seconds < 90:
        return told("{n:.0f} s left", max(1.0, seconds))
    if seconds < 90 * 60:
        return told("{n:.0f} min left", seconds / 60)
    return told("{n:.1f} h left", seconds / 3600)
