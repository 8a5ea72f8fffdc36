"""The left column of the Train mode: which folder, what is in it, and what is made of its pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QLocale, Qt, Signal
from PySide6.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.training.choices import Choices
from studio.ui import theme
from studio.ui.form import Form
from studio.ui.page import controls, stacked
from studio.ui.train.collection import Collection
from studio.ui.train.colour import Swatch
from studio.ui.train.varied import Varied

ENOUGH = 200  # pictures from which a model learns a manner
FEW = 50  # with fewer, it learns them by heart


class DataPanel(QWidget):
    """`folder_chosen` carries a Path; `changed` tells that the choices are others; `unreadable_asked`
    wants the list of what could not be read."""

    folder_chosen = Signal(object)
    stop_requested = Signal()
    again_requested = Signal()
    changed = Signal()
    unreadable_asked = Signal()

    def __init__(self, collection: Collection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("trainData")
        self.collection = collection
        self._choices = Choices()
        self._build()
        self._connect()
        self.show_scan(False)
        self.tell()

    # -- layout -------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.varied = Varied()
        inputs = stacked(self._folder_part(), self._choices_part(), self.varied)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(controls(inputs, least=250, most=380))

    def _folder_part(self) -> QWidget:
        self.line = QLineEdit()
        self.line.setObjectName("trainFolder")
        self.line.setPlaceholderText(self.tr("Drop a folder, or type its path"))
        self.line.setAccessibleName(self.tr("Folder of pictures"))
        self.line.setToolTip(self.tr("The folder to learn from; no names or order are asked for"))
        self.line.setAcceptDrops(False)  # a folder that is dropped is for the page, not its address
        self.choose = QToolButton()
        self.choose.setObjectName("chooseFolder")
        self.choose.setIcon(theme.icon("open"))
        self.choose.setAccessibleName(self.tr("Choose a folder…"))
        self.choose.setToolTip(self.tr("Choose a folder of pictures (Ctrl+O)"))
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self.line, 1)
        row.addWidget(self.choose)
        self.problem = QLabel()
        self.problem.setObjectName("folderProblem")
        self.problem.setProperty("role", "problem")
        self.problem.setWordWrap(True)
        self.problem.setTextFormat(Qt.TextFormat.PlainText)
        self.problem.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.problem.hide()
        part = QWidget()
        box = QVBoxLayout(part)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(6)
        box.addWidget(_heading(self.tr("Pictures")))
        box.addLayout(row)
        box.addWidget(self.problem)
        box.addWidget(self._scan_line())
        box.addWidget(self._summary())
        return part

    def _scan_line(self) -> QWidget:
        """How far a scan is, with the button that ends it."""
        self.bar = QProgressBar()
        self.bar.setObjectName("scanProgress")
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName(self.tr("Looking through the folder"))
        self.scan_text = QLabel()
        self.scan_text.setProperty("role", "muted")
        self.stop = QToolButton()
        self.stop.setObjectName("stopScan")
        self.stop.setIcon(theme.icon("stop"))
        self.stop.setAccessibleName(self.tr("Stop looking"))
        self.stop.setToolTip(self.tr("Stop looking; what was found stays"))
        self.scan = QWidget()
        box = QVBoxLayout(self.scan)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        row = QHBoxLayout()
        row.addWidget(self.scan_text, 1)
        row.addWidget(self.stop)
        box.addLayout(row)
        box.addWidget(self.bar)
        return self.scan

    def _summary(self) -> QWidget:
        """What was found, in words, and whether it is enough."""
        self.said = QLabel()
        self.said.setObjectName("folderSummary")
        self.said.setWordWrap(True)
        self.verdict = QLabel()
        self.verdict.setObjectName("folderVerdict")
        self.verdict.setWordWrap(True)
        self.reasons = QPushButton()
        self.reasons.setObjectName("unreadable")
        self.reasons.setFlat(True)
        self.reasons.setIcon(theme.icon("warning", "danger"))
        self.reasons.setToolTip(self.tr("The files that cannot be read, and why"))
        self.again = QToolButton()
        self.again.setObjectName("scanAgain")
        self.again.setIcon(theme.icon("loop"))
        self.again.setToolTip(self.tr("Look through the folder again"))
        self.again.setAccessibleName(self.tr("Look again"))
        row = QHBoxLayout()
        row.addWidget(self.reasons)
        row.addStretch()
        row.addWidget(self.again)
        self.summary = QWidget()
        box = QVBoxLayout(self.summary)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addWidget(self.said)
        box.addWidget(self.verdict)
        box.addLayout(row)
        return self.summary

    def _choices_part(self) -> QWidget:
        self.form = Form(self._choices, skip=("background",))
        self.form.name_choices("framing", self._framings())
        self.swatch = Swatch(self.tr("Background"))
        self.swatch.setToolTip(self.tr("The colour that is put behind transparent pictures"))
        self.classes = QLabel()
        self.classes.setObjectName("folderClasses")
        self.classes.setProperty("role", "muted")
        self.classes.setWordWrap(True)
        label = QLabel(self.tr("Background"))
        label.setBuddy(self.swatch)
        label.setToolTip(self.swatch.toolTip())
        rows = self.form.layout()
        assert isinstance(rows, QFormLayout)
        rows.insertRow(rows.rowCount() - 1, label, self.swatch)
        part = QWidget()
        box = QVBoxLayout(part)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(6)
        box.addWidget(_heading(self.tr("What is made of them")))
        box.addWidget(self.form)
        box.addWidget(self.classes)
        return part

    def _framings(self) -> dict[str, str]:
        return {
            "centre": self.tr("Square in the middle"),
            "random": self.tr("A square by chance, each time"),
            "native": self.tr("Its own pixels (textures)"),
        }

    def _connect(self) -> None:
        self.line.returnPressed.connect(self._typed)
        self.choose.clicked.connect(self.ask)
        self.stop.clicked.connect(self.stop_requested)
        self.again.clicked.connect(self.again_requested)
        self.reasons.clicked.connect(self.unreadable_asked)
        self.form.changed.connect(self._form_changed)
        self.swatch.chosen.connect(lambda _: self._form_changed(self.form.value()))
        self.collection.sorted_anew.connect(self._sorted_anew)

    # -- the folder ---------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask for a folder."""
        start = str(self.collection.folder or Path.home())
        path = QFileDialog.getExistingDirectory(self, self.tr("Choose a folder of pictures"), start)
        if path:
            self.folder_chosen.emit(Path(path))

    def _typed(self) -> None:
        text = self.line.text().strip().removeprefix("file://")
        if text:
            self.folder_chosen.emit(Path(text).expanduser())

    def show_folder(self, folder: Path) -> None:
        home = Path.home()
        inside = folder.is_relative_to(home) and folder != home
        self.line.setText(f"~/{folder.relative_to(home).as_posix()}" if inside else str(folder))
        self.line.setToolTip(str(folder))
        self.line.setCursorPosition(len(self.line.text()))

    def show_problem(self, text: str) -> None:
        """What is wrong with the folder; empty if nothing is."""
        self.problem.setText(text)
        self.problem.setVisible(bool(text))

    def show_scan(self, running: bool) -> None:
        """Whether a scan is under way."""
        self.scan.setVisible(running)
        self.again.setEnabled(not running)
        if running:
            self.bar.setRange(0, 0)
            self.scan_text.setText(self.tr("Looking through the folder…"))

    def show_progress(self, done: int, total: int) -> None:
        self.bar.setRange(0, max(1, total))
        self.bar.setValue(done)
        number = QLocale().toString
        self.scan_text.setText(
            self.tr("Looked at {done} of {total} files").format(
                done=number(done), total=number(total)
            )
        )

    # -- what was found -----------------------------------------------------------------------------

    def tell(self) -> None:
        """Say what is there, and whether it is enough."""
        counts, number = self.collection.counts(), QLocale().toString
        there = self.collection.folder is not None
        self.summary.setVisible(there)
        used, wrong = counts["used"], counts["error"]
        words = self.tr("{used} pictures to learn from").format(used=number(used))
        if used == 1:
            words = self.tr("1 picture to learn from")
        if counts["left out"]:
            words += self.tr(", {count} left out").format(count=number(counts["left out"]))
        self.said.setText(words + ".")
        self.reasons.setVisible(bool(wrong))
        text = self.tr("{count} files cannot be read…").format(count=number(wrong))
        self.reasons.setText(self.tr("1 file cannot be read…") if wrong == 1 else text)
        self._tell_verdict(used)
        self._tell_classes()

    def _tell_verdict(self, used: int) -> None:
        if self.framing == "native" and used:
            text, tone = self.tr("Squares at their own pixels: one photo can be enough."), "muted"
        elif used >= ENOUGH:
            text, tone = self.tr("Enough to learn from."), "muted"
        elif used >= FEW:
            text = self.tr("Fewer than 200: enough to try, and some are learned by heart.")
            tone = "warning"
        elif used:
            text = self.tr("Fewer than 50: a model will learn these by heart.")
            tone = "warning"
        else:
            text, tone = self.tr("Nothing to learn from yet."), "muted"
        self.verdict.setText(text)
        if self.verdict.property("role") != tone:
            self.verdict.setProperty("role", tone)
            self.verdict.style().unpolish(self.verdict)
            self.verdict.style().polish(self.verdict)

    def class_names(self) -> tuple[str, ...]:
        """The classes that the sub-folders give; none unless every picture lies in one."""
        known = self.collection.classes
        if not self._choices.labels or known.get("") or len(known) < 2:
            return ()
        return tuple(sorted(known))

    def _tell_classes(self) -> None:
        known, names = self.collection.classes, self.class_names()
        loose = known.get("", 0)
        if names:
            said = ", ".join(f"{name} ({known[name]})" for name in names[:12])
            more = self.tr(" and {count} more").format(count=len(names) - 12)
            text = self.tr("Classes: {names}").format(names=said + more * (len(names) > 12))
        elif self._choices.labels and len(known) - bool(loose) > 1:
            text = self.tr("No classes: {count} pictures lie in no sub-folder.").format(count=loose)
        else:
            text = ""
        self.classes.setText(text)
        self.classes.setVisible(bool(text))

    # -- the choices --------------------------------------------------------------------------------

    def choices(self) -> Choices:
        """What a person decided about the folder. Raises SpecError if it makes no sense."""
        return replace(
            self.form.value(),
            background=self.swatch.colour(),
            crops=tuple(self.collection.crops.values()),
            excluded=tuple(sorted(self.collection.excluded)),
        )

    @property
    def framing(self) -> str:
        """How pictures are framed."""
        return self._choices.framing

    def show_choices(self, choices: Choices) -> None:
        """Show the decisions of an earlier run."""
        self._choices = choices
        self.form.set_value(choices)
        self.swatch.set_colour(choices.background)
        self.collection.show_choices(choices)
        self.tell()

    def set_locked(self, locked: bool) -> None:
        """While a run goes on, its choices stay what they are."""
        for widget in (self.form, self.line, self.choose, self.again):
            widget.setEnabled(not locked)

    def _form_changed(self, choices: Choices) -> None:
        self._choices = choices
        self.collection.keep_twins(choices.twins)
        self.tell()
        self.changed.emit()

    def _sorted_anew(self) -> None:
        self.tell()
        self.changed.emit()


def _heading(text: str) -> QLabel:
    label = QLabel(text)
    label.setProperty("role", "heading")
    label.setAlignment(Qt.AlignmentFlag.AlignLeft)
    return label
