"""One lane of a race as it is set: a model, a sampler with all its settings, a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from PySide6.QtCore import QCoreApplication, QSize, Qt, Signal
from PySide6.QtGui import QStandardItemModel
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.diffusion.sampler import Sampler
from studio.engine.race import Lane
from studio.ui import theme
from studio.ui.compare.marks import LETTERS, Chip
from studio.ui.fields import Number, Rows
from studio.ui.form import Choice, told
from studio.weights.shelf import Entry


class LaneRow(QFrame):
    """Edits one lane. Emits `changed` when a person changes it, `removed` when they take it away."""

    changed = Signal()
    removed = Signal()

    def __init__(self, number: int, lane: Lane, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setProperty("role", "card")
        self._lane = lane
        self._entries: list[Entry] = []
        self.chip = Chip(number)
        self.model = QComboBox()
        self.model.setObjectName("laneModel")
        self.model.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.model.setMinimumContentsLength(8)
        self.model.setToolTip(self.tr("The model of this lane: one of the same size and colours"))
        self.remove = QToolButton()
        self.remove.setObjectName("removeLane")
        self.remove.setIcon(theme.icon("close"))
        self.remove.clicked.connect(self.removed)
        self.heading = self._disclosure()
        self.sampler = Choice(Sampler, lane.sampler, "sampler")
        self.classes = QComboBox()
        self.classes.setObjectName("class")
        self.classes.setAccessibleName(self.tr("Class"))
        self.guidance = self._guidance()
        self._lay_out()
        self.set_number(number)
        self.model.activated.connect(self._model_chosen)
        self.sampler.changed.connect(lambda _: self._edited())
        self.classes.activated.connect(lambda _: self._edited())
        self.guidance.valueChanged.connect(lambda _: self._edited())

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.setSpacing(6)
        top.addWidget(self.chip)
        top.addWidget(self.model, 1)
        top.addWidget(self.remove)
        self._class_rows = Rows()
        self._class_rows.field(self.tr("Class"), self.classes)
        self._class_rows.field(self.tr("Guidance"), self.guidance)
        self.body = QWidget()
        body = QVBoxLayout(self.body)
        body.setContentsMargins(0, 2, 0, 2)
        body.addWidget(self.sampler)
        body.addLayout(self._class_rows)
        self.body.hide()
        box = QVBoxLayout(self)
        box.setContentsMargins(8, 8, 8, 6)
        box.setSpacing(4)
        box.addLayout(top)
        box.addWidget(self.heading)
        box.addWidget(self.body)

    def _disclosure(self) -> QToolButton:
        """What the lane does, in a line, which opens all its settings."""
        button = QToolButton()
        button.setObjectName("laneHeading")
        button.setProperty("role", "disclosure")
        button.setCheckable(True)
        button.setAutoRaise(True)
        button.setIconSize(QSize(10, 10))
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setToolTip(self.tr("The sampler of this lane, with all its settings"))
        # Long names are cut rather than the panel widened.
        button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        button.toggled.connect(self._fold)
        return button

    def _guidance(self) -> Number:
        facts = spec.about(next(f for f in fields(Lane) if f.name == "guidance"))
        number = Number(*(facts.range or (0, 1)))
        number.setObjectName("guidance")
        number.setAccessibleName(told(facts.label))
        number.setToolTip(told(facts.help))
        number.setValue(self._lane.guidance)
        return number

    # ---- the lane -----------------------------------------------------------------------------

    def lane(self) -> Lane:
        """The Lane as it is set. Raises SpecError if it makes no sense."""
        return replace(
            self._lane,
            model=self.model.currentData() or self._lane.model,
            sampler=self.sampler.value(),
            classes=self.classes.currentData() or "",
            guidance=self.guidance.value() if self.classes.count() > 1 else 1.0,
        )

    def set_lane(self, lane: Lane) -> None:
        self._lane = lane
        self.sampler.set_value(lane.sampler)
        self.guidance.blockSignals(True)
        self.guidance.setValue(lane.guidance)
        self.guidance.blockSignals(False)
        self._offer_models()
        self._tell()

    def set_number(self, number: int) -> None:
        """Which lane this is."""
        self.chip.set_lane(number)
        letter = LETTERS[number]
        self.model.setAccessibleName(self.tr("Model of lane {letter}").format(letter=letter))
        self.remove.setAccessibleName(self.tr("Remove lane {letter}").format(letter=letter))
        self._tell()

    def set_removable(self, why_not: str = "") -> None:
        self.remove.setEnabled(not why_not)
        self.remove.setToolTip(why_not or self.tr("Remove this lane"))

    def offer(self, entries: Sequence[Entry], like: Entry | None) -> None:
        """The models there are; those that do not fit `like` cannot be chosen, and say why."""
        self._entries, self._like = list(entries), like
        self._offer_models()

    _like: Entry | None = None

    def _offer_models(self) -> None:
        self.model.clear()
        for entry in self._entries:
            self.model.addItem(entry.name, entry.name)
            why_not = unfit(entry, self._like)
            last = self.model.count() - 1
            items = self.model.model()
            assert isinstance(items, QStandardItemModel)
            items.item(last).setEnabled(not why_not)
            self.model.setItemData(last, why_not or _facts(entry), Qt.ItemDataRole.ToolTipRole)
        if self.model.findData(self._lane.model) < 0:
            name = self.tr("{name} (not on the shelf)").format(name=self._lane.model)
            self.model.addItem(name, self._lane.model)
        self.model.setCurrentIndex(self.model.findData(self._lane.model))
        self._offer_classes(self._lane.classes)

    def _offer_classes(self, wanted: str) -> None:
        entry = next((e for e in self._entries if e.name == self.model.currentData()), None)
        names = entry.info.classes if entry and entry.info else ()
        if not entry and wanted not in ("", "each"):
            names = (wanted,)  # of a model that is not here: the run will say so
        self.classes.clear()
        self.classes.addItem(self.tr("Any"), "")
        if names:
            self.classes.addItem(self.tr("Each in turn"), "each")
        for name in names:
            self.classes.addItem(name.capitalize(), name)
        self.classes.setCurrentIndex(max(0, self.classes.findData(wanted)))
        for widget in (self.classes, self.guidance):
            self._class_rows.setRowVisible(widget, self.classes.count() > 1)

    def _model_chosen(self, _: int) -> None:
        self._lane = replace(self._lane, model=self.model.currentData(), model_preset="")
        self._offer_classes(self.classes.currentData() or "")
        self._edited()

    def _edited(self) -> None:
        self._tell()
        self.changed.emit()

    def _fold(self, opened: bool) -> None:
        self.body.setVisible(opened)
        self._tell()

    def _tell(self) -> None:
        opened = self.heading.isChecked()
        self.heading.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        words = sampler_words(self.sampler.value())
        self.heading.setText(words)
        letter = LETTERS[self.chip.lane]
        self.heading.setAccessibleName(
            self.tr("Sampler of lane {letter}: {words}").format(letter=letter, words=words)
        )


def titles(lanes: Sequence[Lane]) -> list[str]:
    """A few words on each lane; with the model where they differ."""
    several = len({lane.model for lane in lanes}) > 1
    return [sampler_words(x.sampler) + (f" · {x.model}" if several else "") for x in lanes]


def unfit(entry: Entry, like: Entry | None) -> str:
    """Why a model cannot race against another one; empty if it can."""
    if entry.info is None:
        return entry.problem
    if like is None or like.info is None or entry.info.shape == like.info.shape:
        return ""
    return QCoreApplication.translate(
        "LaneEditor", "It makes pictures of {0}, lane A of {1}"
    ).format(_facts(entry), _facts(like))


def _facts(entry: Entry) -> str:
    if entry.info is None:
        return entry.problem
    grey = entry.info.colours == 1
    tr = QCoreApplication.translate
    colours = tr("LaneEditor", "grey") if grey else tr("LaneEditor", "colour")
    return f"{entry.info.size} px, {colours}"


def sampler_words(sampler: Sampler) -> str:
    """A sampler with the setting that says most about what it costs."""
    title = told(spec.title(type(sampler)))
    tr = QCoreApplication.translate
    steps, rtol = getattr(sampler, "steps", None), getattr(sampler, "rtol", None)
    if steps is not None:
        return tr("LaneEditor", "{0}, {1} steps").format(title, steps)
    if rtol is not None:
        return tr("LaneEditor", "{0}, tolerance {1}").format(title, f"{rtol:g}")
    return title
