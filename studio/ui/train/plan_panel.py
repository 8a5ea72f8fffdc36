"""The plan of a training: what it starts from, for how long, and every setting behind a fold."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from functools import partial
from typing import Any

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.diffusion.score import Published
from studio.errors import SpecError
from studio.training.plan import PRESETS, Training, usual_rate
from studio.training.sizes import GROWN
from studio.ui.fields import Rows, Whole
from studio.ui.form import Form, told
from studio.weights.model import ModelInfo
from studio.weights.shelf import Entry

CUSTOM = "custom"

#: What most people look at, in the order of the page; the rest is behind the fold.
_PARTS = (("train", "rank", "last"), ("steps", "batch", "rate"), ("objective",))
#: What has a control of its own here, or is the folder's.
_ELSEWHERE = ("start", "flips", "network")
#: What a start model brings along.
_OF_THE_MODEL = ("size", "sde", "output", "patch", "top", "embedding", "dropout")


class PlanPanel(QWidget):
    """Edits a Training, the name of its result, and how often it shows samples.

    `changed` tells that any of them is another.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("trainPlan")
        self._plan = Training()
        self._entries: dict[str, Entry] = {}
        self._named = False  # whether a person gave the name
        self._started = False  # whether a person chose what it starts from
        self._paced = False  # whether a person chose how often samples are shown
        names = [field.name for field in fields(Training)]
        shown = [name for part in _PARTS for name in part]
        rest = tuple(n for n in names if n not in shown and n not in _ELSEWHERE)
        self._parts = {
            part: Form(self._plan, tuple(n for n in names if n not in part))
            for part in (*_PARTS, rest)
        }
        self.what, self.pace, self.aim, self.rest = self._parts.values()
        self.what.name_choices(
            "train",
            {
                "all": self.tr("Everything"),
                "last": self.tr("The last blocks"),
                "adapters": self.tr("Adapters beside it (LoRA)"),
            },
        )
        self._build()
        self._connect()
        self._choose_preset("quick look")
        self._show_rows()

    # -- layout -------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.start = self._combo("trainStart", self.tr("Start from"))
        self.start.setToolTip(
            self.tr("The model whose weights it begins with; from scratch takes far longer")
        )
        self.preset = self._combo("trainPreset", self.tr("Preset"))
        self.preset.setToolTip(self.tr("For how long it learns, with settings that suit it"))
        for name, preset in PRESETS.items():
            self.preset.addItem(told(preset.title), name)
            self.preset.setItemData(
                self.preset.count() - 1, told(preset.help), Qt.ItemDataRole.ToolTipRole
            )
        self.preset.addItem(self.tr("Own settings"), CUSTOM)
        self.about = QLabel()
        self.about.setProperty("role", "muted")
        self.about.setWordWrap(True)
        self.name = QLineEdit()
        self.name.setObjectName("resultName")
        self.name.setAccessibleName(self.tr("Name of the result"))
        self.name.setPlaceholderText(self.tr("Named after the folder"))
        self.name.setToolTip(self.tr("What the model will be called on the shelf"))
        self.every = Whole()
        self.every.setObjectName("sampleEvery")
        self.every.setRange(0, 10**7)
        self.every.setSingleStep(50)
        self.every.setSpecialValueText(self.tr("never"))
        self.every.setSuffix(self.tr(" steps"))
        self.every.setMinimumWidth(90)  # its largest number is not what is common
        self.every.setAccessibleName(self.tr("Samples every"))
        self.every.setToolTip(self.tr("How often it draws the same seeds, to see it learn"))
        self._lay_out()

    def _combo(self, name: str, words: str) -> QComboBox:
        combo = QComboBox()
        combo.setObjectName(name)
        combo.setAccessibleName(words)
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(10)
        return combo

    def _lay_out(self) -> None:
        top = Rows()
        for words, widget in (
            (self.tr("Start from"), self.start),
            (self.tr("Name"), self.name),
            (self.tr("Preset"), self.preset),
        ):
            label = QLabel(words)
            label.setToolTip(widget.toolTip())
            top.field(label, widget)
        self.more = QToolButton()
        self.more.setObjectName("allSettings")
        self.more.setText(self.tr("All settings"))
        self.more.setAccessibleName(self.tr("All settings"))
        self.more.setToolTip(self.tr("Every setting of the training, each explained"))
        self.more.setProperty("role", "disclosure")
        self.more.setCheckable(True)
        self.more.setAutoRaise(True)
        self.more.setIconSize(QSize(10, 10))
        self.more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold = QWidget()
        inside = QVBoxLayout(self.fold)
        inside.setContentsMargins(0, 0, 0, 0)
        every = Rows()
        every.field(self.tr("Samples every"), self.every)
        self.grow = QCheckBox()
        self.grow.setObjectName("growModel")
        self.grow.setToolTip(
            self.tr("Put the model inside a thin stage of twice its size: larger pictures, sooner")
        )
        self.grow.toggled.connect(self._grow)
        inside.addLayout(every)
        inside.addWidget(self.grow)
        inside.addWidget(self.rest)
        title = QLabel(self.tr("Plan"))
        title.setProperty("role", "heading")
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(10)
        box.addWidget(title)
        box.addLayout(top)
        for widget in (self.about, self.what, self.pace, self.aim, self.more, self.fold):
            box.addWidget(widget)
        box.addStretch()
        _align([top, every, *(form.layout() for form in self._parts.values())])
        self._unfold(False)

    def _connect(self) -> None:
        self.start.activated.connect(self._start_set)
        self.preset.activated.connect(lambda _: self._preset_chosen())
        for part, form in self._parts.items():
            form.changed.connect(partial(self._edited, part))
        self.name.textEdited.connect(self._name_edited)
        self.every.valueChanged.connect(self._every_chosen)
        self.more.toggled.connect(self._unfold)

    def _unfold(self, on: bool) -> None:
        self.more.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)
        self.fold.setVisible(on)

    # -- what it starts from ------------------------------------------------------------------------

    def set_entries(self, entries: list[Entry], chosen: str = "") -> None:
        """The models that it can start from: `chosen`, until a person sets another."""
        before = self.start.currentData() if self._started else chosen
        self._entries = {e.name: e for e in entries if e.info is not None}
        self.start.clear()
        for name, entry in self._entries.items():
            assert entry.info is not None
            self.start.addItem(f"{name}   {entry.info.size} px", name)
        self.start.addItem(self.tr("From scratch"), "")
        at = self.start.findData(before)
        self.start.setCurrentIndex(at if at >= 0 else 0)
        if self.start.currentData() != before or self._plan.start != before:
            self._start_chosen()

    def _start_set(self, _: int) -> None:
        self._started = True
        self._start_chosen()

    def _start_chosen(self) -> None:
        name = self.start.currentData() or ""
        plan = replace(self._plan, start=name)
        fresh = Training()
        if (info := self._model) is not None:
            plan = replace(
                plan, size=info.size, sde=info.sde, output=info.output, network=info.network
            )
        elif not name:
            plan = replace(plan, network=fresh.network, train=fresh.train)
        self._show(self._paced_as(plan))
        self._show_rows()
        self.changed.emit()

    @property
    def _model(self) -> ModelInfo | None:
        """What is known of the model that it starts from; None from scratch."""
        entry = self._entries.get(self.start.currentData() or "")
        return entry.info if entry else None

    def _paced_as(self, plan: Training) -> Training:
        """The plan with the rate that suits it, unless a person chose one."""
        chosen = self._plan.rate != usual_rate(self._plan)
        return plan if chosen else replace(plan, rate=usual_rate(plan))

    def _grow(self, on: bool) -> None:
        """Put the model inside a network of twice its size, or leave it as it is."""
        info = self._model
        if info is not None:
            size, network = (2 * info.size, GROWN) if on else (info.size, info.network)
            self._show(replace(self._plan, size=size, network=network))
            self.changed.emit()

    def _show_rows(self) -> None:
        """Only what means something: a model brings its own network, adapters have a rank."""
        scratch, info = not self._plan.start, self._model
        # A model that was trained here is told σ, which means the same under every process.
        ours = info is not None and not isinstance(info.output, Published)
        for name in _OF_THE_MODEL:
            self.rest.show_field(name, scratch or name == "size" or (ours and name == "sde"))
        can_grow = info is not None and info.network == "unet" and bool(info.options.get("top"))
        self.grow.setVisible(can_grow)
        if info is not None:
            self.grow.setText(self.tr("Grow to {0} px").format(2 * info.size))
        was = self.grow.blockSignals(True)
        self.grow.setChecked(self._plan.network == GROWN)
        self.grow.blockSignals(was)
        self.what.show_field("train", not scratch)
        self.what.show_field("rank", self._plan.train == "adapters")
        self.what.show_field("last", self._plan.train == "last")

    # -- the plan -----------------------------------------------------------------------------------

    def plan(self) -> Training:
        """The plan as it is set. Raises SpecError if something in it makes no sense."""
        for form in self._parts.values():
            form.value()
        return self._plan

    @property
    def side(self) -> int:
        """The side of the pictures that it learns."""
        return self._plan.size

    def result(self) -> str:
        """What the model will be called. Raises SpecError if that is no name."""
        name = self.name.text().strip()
        if not name:
            raise SpecError("The model needs a name.", "Give it one under “Name”.")
        if name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
            raise SpecError(f"“{name}” is no name for a model.", "Use letters and digits.")
        return name

    def suggest(self, folder_name: str, taken: set[str]) -> None:
        """Name the result after the folder, unless a person gave a name."""
        if not self._named:
            self.name.setText(name_for(folder_name, taken))

    def show_plan(self, plan: Training, name: str) -> None:
        """The plan of an earlier run."""
        self._named = self._started = True
        self.name.setText(name)
        at = self.start.findData(plan.start)
        if at < 0:  # it is gone, but the run has its weights
            self.start.addItem(plan.start, plan.start)
            at = self.start.count() - 1
        self.start.setCurrentIndex(at)
        self._show(plan)
        self._show_rows()
        self.changed.emit()

    def forget_name(self) -> None:
        """The next folder may name the result again."""
        self._named = False

    def _show(self, plan: Training) -> None:
        self._plan = plan
        for form in self._parts.values():
            form.set_value(plan)
        self._show_preset()
        self._pace()

    def _edited(self, part: tuple[str, ...], plan: Training) -> None:
        # A form knows only its own fields.
        new = replace(self._plan, **{name: getattr(plan, name) for name in part})
        if new.size != self._plan.size and (info := self._model) is not None:
            new = replace(new, network=info.network)
        self._show(self._paced_as(new) if new.train != self._plan.train else new)
        self._show_rows()
        self.changed.emit()

    def _preset_chosen(self) -> None:
        name = self.preset.currentData()
        if name in PRESETS:
            self._choose_preset(name)
        self.changed.emit()

    def _choose_preset(self, name: str) -> None:
        self._show(PRESETS[name].of(self._plan))

    def _show_preset(self) -> None:
        known = [name for name, preset in PRESETS.items() if preset.of(self._plan) == self._plan]
        name = known[0] if known else CUSTOM
        self.preset.setCurrentIndex(self.preset.findData(name))
        self.about.setText(told(PRESETS[name].help) if known else "")
        self.about.setVisible(bool(known))

    def _name_edited(self, text: str) -> None:
        self._named = bool(text.strip())
        self.changed.emit()

    # -- samples ------------------------------------------------------------------------------------

    def _pace(self) -> None:
        """Twenty looks at a run, unless a person chose otherwise."""
        if not self._paced:
            was = self.every.blockSignals(True)
            self.every.setValue(min(1000, max(50, self._plan.steps // 20)))
            self.every.blockSignals(was)

    def _every_chosen(self, _: int) -> None:
        self._paced = True
        self.changed.emit()

    def set_sigma_max(self, sigma: float) -> None:
        """The strongest noise, where the process has one to choose."""
        if hasattr(self._plan.sde, "sigma_max"):
            self._show(spec.replace(self._plan, "sde.sigma_max", sigma))
            self.changed.emit()

    def set_every(self, steps: int) -> None:
        """How often the earlier run showed samples."""
        was = self.every.blockSignals(True)
        self.every.setValue(steps)
        self.every.blockSignals(was)


def _align(rows: list[Any]) -> None:
    """Give the labels of several forms one width."""
    labels = [
        item.widget()
        for form in rows
        for row in range(form.rowCount())
        if (item := form.itemAt(row, QFormLayout.ItemRole.LabelRole)) is not None
    ]
    widest = max(label.sizeHint().width() for label in labels)
    for label in labels:
        label.setMinimumWidth(widest)


def name_for(folder_name: str, taken: set[str]) -> str:
    """A name after a folder's, one that is free: "My animals" becomes "my-animals"."""
    words = re.findall(r"\w+", folder_name.lower())
    base = "-".join(words)[:48] or "my-model"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name
