"""What the tools on the flow share: inputs and a Run button at the left, what it shows at the right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSlider,
    QToolButton,
    QWidget,
)

from studio.engine.events import Done, Event, Note, Progress, Saved
from studio.engine.flow_jobs import Cost, Counts, ProbeJob
from studio.engine.work import Work
from studio.errors import StudioError
from studio.paths import atomic
from studio.spec import option
from studio.ui import theme
from studio.ui.dialogs import ErrorBox
from studio.ui.fields import Number
from studio.ui.page import columns, controls
from studio.ui.runner import Runner
from studio.ui.session import Session


class Tool(QWidget):
    """A tool: `job` is what its Run button starts, `receive` gets the events.

    `status` carries words for the status line, `bug` an exception for the crash dialog.
    """

    name = ""  # of the Run button
    status = Signal(str)
    bug = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.errors = ErrorBox()
        self.runner = Runner(session.engine, self._receive)
        self.saver = Runner(session.engine, self._saved)
        self.prober = Runner(session.engine, self._probed)
        for runner in (self.runner, self.saver):
            runner.failed.connect(self.fail)
        # What keeps a probe from running will be said when Run is pressed.
        self.prober.failed.connect(lambda _: self.cost.setText(""))
        for runner in (self.runner, self.saver, self.prober):
            runner.bug.connect(self.bug)
        self.runner.state_changed.connect(lambda _: self.refresh())
        self._current = False  # whether the run under way is of what is set now
        self._cost: Cost | None = None
        self._last: Progress | None = None
        self._asked = QTimer(self, singleShot=True, interval=400)
        self._asked.timeout.connect(self._probe)
        self.classes = self._classes()
        self.cost = QLabel()
        self.cost.setObjectName("cost")
        self.cost.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setAccessibleName(self.tr("Progress"))
        self.bar.setTextVisible(False)
        self.bar.hide()
        self.run_button = QPushButton()
        self.run_button.setProperty("primary", True)
        self.run_button.clicked.connect(self.run_or_stop)
        session.model_changed.connect(lambda _: self._model_changed())

    # -- to be written by each tool -----------------------------------------------------------------

    def title(self) -> str:
        """What the tool is called."""
        raise NotImplementedError

    def verb(self) -> str:
        """What its Run button says."""
        raise NotImplementedError

    def job(self) -> Counts:
        """What Run starts. Raises StudioError if something is missing."""
        raise NotImplementedError

    def why_not(self) -> str:
        """Why nothing can be run now, in a sentence; empty if it can."""
        raise NotImplementedError

    def receive(self, event: Event) -> None:
        """An event of the job that is neither Note nor Progress."""
        raise NotImplementedError

    def runners(self) -> list[Runner]:
        """Every runner of the tool, for closing in order."""
        return [self.runner, self.saver, self.prober]

    # -- layout -------------------------------------------------------------------------------------

    def lay_out(self, inputs: QWidget, view: QWidget) -> None:
        """Inputs over cost, problems and Run at the left; the view at the right."""
        self.run_button.setObjectName(self.name)
        below = (self.cost, self.errors, self.bar, self.run_button)
        side = controls(inputs, *below, least=270, most=380)
        columns(self, f"{self.name}Split", ((side, 0, 300), (view, 1, 900)))
        self._offer_classes()
        self.refresh()

    def _classes(self) -> QComboBox:
        combo = QComboBox()
        combo.setObjectName("flowClass")
        combo.setAccessibleName(self.tr("Class"))
        combo.setToolTip(self.tr("Take the pictures as pictures of this class of the model"))
        combo.activated.connect(lambda _: self.changed())
        return combo

    def _offer_classes(self) -> None:
        model = self.session.model
        names = model.info.classes if model and model.info else ()
        chosen = self.classes.currentData()
        self.classes.clear()
        self.classes.addItem(self.tr("Any"), "")
        for name in names:
            self.classes.addItem(name.capitalize(), name)
        self.classes.setCurrentIndex(max(0, self.classes.findData(chosen)))
        self.classes.setEnabled(bool(names))

    @property
    def label(self) -> str:
        """The class that is chosen; empty for any."""
        return self.classes.currentData() or ""

    # -- running ------------------------------------------------------------------------------------

    def run_or_stop(self) -> None:
        if self.runner.busy:
            self.runner.stop()
        elif not self.why_not():
            self.start(self.job)

    def start(self, make: Callable[[], Counts]) -> None:
        """Run a job of this tool."""
        self.errors.clear()
        self.prober.stop()
        self._asked.stop()
        self._last, self._current = None, True
        self.runner.start(make)

    def changed(self) -> None:
        """Something was set: what a run costs is looked up anew, a little later."""
        self._current = False
        self._cost = self._last = None
        self.refresh()
        self._asked.start()

    def refresh(self) -> None:
        """Show the state of the runner."""
        state, why_not = self.runner.state, self.why_not()
        busy = state != "idle"
        words = {"idle": self.verb(), "stopping": self.tr("Stopping after this call…")}
        self.run_button.setText(words.get(state, self.tr("Stop")))
        self.run_button.setAccessibleName(self.run_button.text())
        self.run_button.setIcon(theme.icon("stop" if busy else "play", "on_accent"))
        self.run_button.setEnabled(state != "stopping" and (busy or not why_not))
        self.run_button.setToolTip(self.tr("Stop (Esc)") if busy else why_not)
        self.bar.setVisible(busy)
        if not busy:
            self.bar.setRange(0, 0)
            self._tell_cost()
            if self._last is not None and not self.errors.text:
                self.status.emit(self.cost.text())

    def fail(self, error: StudioError) -> None:
        self.errors.show_error(error)
        self.status.emit(error.message)

    def _receive(self, event: Event) -> None:
        if not self._current:
            return  # of a run that is being stopped, for something else
        if isinstance(event, Note):
            self.status.emit(self.tr(event.text))
        elif isinstance(event, Progress):
            self._last = event
            self.bar.setRange(0, max(1, event.total))
            self.bar.setValue(event.step)
            self.cost.setText(self._time_left(event))
        else:
            self.receive(event)

    def _time_left(self, event: Progress) -> str:
        done = event.step / max(1, event.total)
        left = event.seconds * (1 - done) / max(done, 1e-3)
        return self.tr("{calls} network calls, about {left} left").format(
            calls=event.calls, left=duration(left)
        )

    def _model_changed(self) -> None:
        self._offer_classes()
        self.changed()

    # -- what it will cost --------------------------------------------------------------------------

    def _probe(self) -> None:
        if self.why_not() or self.runner.busy or not self.isVisible():
            return
        if self.prober.busy:
            self._asked.start()
            self.prober.stop()
            return
        self.prober.start(lambda: ProbeJob(self.job()))

    def _probed(self, event: Event) -> None:
        if isinstance(event, Done):
            self._cost = event.value
            self._tell_cost()

    def _tell_cost(self) -> None:
        """Before a run what it is expected to cost, after it also what it did."""
        self.cost.setText(self.why_not() or self._cost_in_words())

    def _cost_in_words(self) -> str:
        last, expected = self._last, self._cost
        if last is None and expected is None:
            return ""
        if last is None and expected is not None:
            return self.tr("About {calls} network calls, {time}, by a probe of two steps.").format(
                calls=expected.calls, time=duration(expected.seconds)
            )
        assert last is not None
        facts = {"calls": last.calls, "time": duration(last.seconds)}
        if expected is None:
            return self.tr("Took {calls} network calls, {time}.").format(**facts)
        return self.tr(
            "Took {calls} network calls, {time}; expected were {guess} and {expected}."
        ).format(**facts, guess=expected.calls, expected=duration(expected.seconds))

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self._asked.start()

    # -- saving -------------------------------------------------------------------------------------

    def save(self, name: str, kinds: str, write: Callable[[Path], Any]) -> None:
        """Ask where, and write in the background."""
        path, _ = QFileDialog.getSaveFileName(self, self.tr("Save"), name, kinds)
        if not path:
            return
        target = Path(path) if Path(path).suffix else Path(path + Path(name).suffix)
        self.save_to(target, write)

    def save_to(self, path: Path, write: Callable[[Path], Any]) -> None:
        def call() -> Path:
            write(path)
            return path

        self.errors.clear()
        self.saver.start(lambda: Work(self.tr("Saving"), call))

    def _saved(self, event: Event) -> None:
        if isinstance(event, (Done, Saved)):
            path = event.value if isinstance(event, Done) else event.path
            self.status.emit(self.tr("Saved {path}").format(path=path))


@dataclass(frozen=True)
class Tolerance:
    """How exactly the flow is followed."""

    tolerance: float = option(
        1e-4,
        label="Tolerance",
        range=(1e-7, 0.1),
        log=True,
        help="Error allowed in a step. Ten times smaller takes about twice the time.",
    )


class Temperature(QWidget):
    """A slider with a number: what noise is multiplied by. `changed` when a person has set it."""

    changed = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.number = Number(0.0, 2.0)
        self.number.setSingleStep(0.05)
        self.number.setObjectName("flowTemperature")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, 40)
        tip = self.tr("Multiplies the noise. Below 1: plainer pictures, nearer to the average.")
        for widget in (self.number, self.slider):
            widget.setToolTip(tip)
            widget.setAccessibleName(self.tr("Temperature"))
        self._soon = QTimer(self, singleShot=True, interval=300)
        self._soon.timeout.connect(lambda: self.changed.emit(self.value()))
        self.set_value(1.0)
        self.slider.valueChanged.connect(lambda v: self.number.setValue(v / 20))
        self.number.valueChanged.connect(self._numbered)
        box = QHBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self.slider, 1)
        box.addWidget(self.number)
        self.setFocusProxy(self.slider)

    def value(self) -> float:
        return self.number.value()

    def set_value(self, value: float) -> None:
        """Show another, without telling."""
        for widget, shown in ((self.number, value), (self.slider, round(20 * value))):
            blocked = widget.blockSignals(True)
            widget.setValue(shown)  # type: ignore[arg-type]
            widget.blockSignals(blocked)

    def _numbered(self, value: float) -> None:
        blocked = self.slider.blockSignals(True)
        self.slider.setValue(round(20 * value))
        self.slider.blockSignals(blocked)
        self._soon.start()


def heading(text: str) -> QLabel:
    label = QLabel(text)
    label.setProperty("role", "heading")
    return label


def muted(text: str = "") -> QLabel:
    label = QLabel(text)
    label.setProperty("role", "muted")
    label.setWordWrap(True)
    return label


def duration(seconds: float) -> str:
    """Seconds as a person says them: 4 s, 2 min, 1 h 10 min."""
    if seconds < 9.5:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def tool_button(icon: str, text: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    button.setIcon(theme.icon(icon))
    button.setAccessibleName(text)
    button.setToolTip(tip)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    return button


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole. Raises SaveError if it cannot be written."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
