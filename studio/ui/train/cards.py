"""What is offered beside a training: to go on with an earlier one, and what to do with the result."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from studio.engine.train_jobs import RunFound
from studio.ui.train import words


class EarlierRuns(QWidget):
    """Trainings that were interrupted. `go_on_requested` carries the RunFound. Hidden without any."""

    go_on_requested = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("earlierRuns")
        self.setAccessibleName(self.tr("An earlier training"))
        card = QFrame()
        card.setProperty("role", "card")
        self._runs: list[RunFound] = []
        self._declined: set[str] = set()
        self.text = QLabel()
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.text.setWordWrap(True)
        self.choice = QComboBox()
        self.choice.setObjectName("earlierRun")
        self.choice.setAccessibleName(self.tr("Which training"))
        self.choice.setToolTip(self.tr("The trainings that can go on, the latest first"))
        self.go_on = QPushButton(self.tr("Go on"))
        self.go_on.setObjectName("goOn")
        self.go_on.setProperty("primary", True)
        self.go_on.setToolTip(self.tr("Train on from where it stopped, with its own plan"))
        later = QPushButton(self.tr("Not now"))
        later.setObjectName("notNow")
        later.setToolTip(self.tr("Leave it; it is offered again at the next start"))
        around = QVBoxLayout(self)
        around.setContentsMargins(12, 8, 12, 0)
        around.addWidget(card)
        row = QHBoxLayout(card)
        row.setContentsMargins(12, 6, 8, 6)
        row.setSpacing(8)
        row.addWidget(self.text, 1)
        for widget in (self.choice, self.go_on, later):
            row.addWidget(widget)
        self.choice.currentIndexChanged.connect(lambda _: self._tell())
        self.go_on.clicked.connect(self._go_on)
        later.clicked.connect(self.decline)
        self.hide()

    def show_runs(self, runs: list[RunFound]) -> None:
        """Offer those that can go on and were not declined."""
        self._runs = [
            run
            for run in runs
            if run.resumable and run.step < run.total and run.name not in self._declined
        ]
        was = self.choice.blockSignals(True)
        self.choice.clear()
        for run in self._runs:
            self.choice.addItem(run.name)
        self.choice.blockSignals(was)
        self.choice.setVisible(len(self._runs) > 1)
        self.setVisible(bool(self._runs))
        self._tell()

    def decline(self) -> None:
        """Not now."""
        self._declined |= {run.name for run in self._runs}
        self.hide()

    def _chosen(self) -> RunFound | None:
        at = self.choice.currentIndex()
        return self._runs[at] if 0 <= at < len(self._runs) else None

    def _tell(self) -> None:
        run = self._chosen()
        if run is not None:
            self.text.setText(
                self.tr("“{name}” stopped at step {step} of {total}, {when}.").format(
                    name=run.name,
                    step=words.count(run.step),
                    total=words.count(run.total),
                    when=words.moment(run.when),
                )
            )

    def _go_on(self) -> None:
        run = self._chosen()
        if run is not None:
            self.go_on_requested.emit(run)


class ResultCard(QFrame):
    """A model that is ready, one click from Sample. Hidden until there is one."""

    use_requested = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("resultCard")
        self.setProperty("role", "card")
        self.name = ""
        self.text = QLabel()
        self.text.setObjectName("resultText")
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.use = QPushButton(self.tr("Open in Sample"))
        self.use.setObjectName("openInSample")
        self.use.setProperty("primary", True)
        self.use.setToolTip(self.tr("Choose this model, and draw pictures with it"))
        self.use.clicked.connect(lambda: self.use_requested.emit(self.name))
        box = QVBoxLayout(self)
        box.setContentsMargins(10, 8, 10, 10)
        box.setSpacing(8)
        box.addWidget(self.text)
        box.addWidget(self.use)
        self.hide()

    def show_result(self, name: str, text: str) -> None:
        """A model on the shelf, and what is said of it."""
        self.name = name
        self.text.setText(text)
        self.show()
