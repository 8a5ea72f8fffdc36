"""The recipe of a sample, left in the window: all of a SampleJob but the model and its preset, which
are the session's; and what it costs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.diffusion.catalog import PRESETS
from studio.diffusion.sampler import Sampler
from studio.diffusion.sde import SDE
from studio.engine.jobs import MOST_PICTURES, SampleJob
from studio.errors import SpecError
from studio.ui.fields import Number, Rows, Whole
from studio.ui.form import Choice, told
from studio.ui.seed import SeedEdit
from studio.weights import classifiers
from studio.weights.classifiers import ClassifierInfo
from studio.weights.shelf import Entry

CUSTOM = "custom"


class RecipePanel(QWidget):
    """Edits a SampleJob for the model of the session. Emits `changed` when a person changes it.

    With `candidates`, as many pictures at first whatever the model, of any class.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None, candidates: int | None = None) -> None:
        super().__init__(parent)
        self._candidates = candidates
        self._entry: Entry | None = None
        self.facts = QLabel()
        self.facts.setObjectName("modelFacts")
        self.facts.setProperty("role", "muted")
        self.facts.setWordWrap(True)
        self.preset = self._preset()
        self.sampler = Choice(Sampler, PRESETS["quick"][1], "sampler")
        self.count, self._count_slider = self._count()
        self.seed = SeedEdit()
        self.classes = QComboBox()
        self.classes.setObjectName("class")
        self.classes.setAccessibleName(self.tr("Class"))
        self.guidance = self._guidance()
        self.classifier = QComboBox()
        self.classifier.setObjectName("classifier")
        self.classifier.setAccessibleName(self.tr("Classifier"))
        self.classifier.setToolTip(
            self.tr("Who tells classes apart: the model itself, or a classifier that guides it")
        )
        self._classifiers: dict[str, ClassifierInfo] = {}  # those that know such pictures
        self.sde = Choice(SDE, None, "noising", nothing=self.tr("As trained"))
        self.noising = self._noising()
        self.cost = QLabel()
        self.cost.setObjectName("cost")
        self.cost.setProperty("role", "muted")
        self.cost.setWordWrap(True)
        self._lay_out()
        self.preset.activated.connect(self._preset_chosen)
        self.sampler.changed.connect(self._sampler_changed)
        self.seed.changed.connect(lambda _: self.changed.emit())
        self.classes.activated.connect(lambda _: self.changed.emit())
        self.guidance.valueChanged.connect(lambda _: self.changed.emit())
        self.classifier.activated.connect(self._classifier_chosen)
        self.sde.changed.connect(lambda _: self._sde_changed())
        self._tell_noising()
        self._tell_cost()

    # -- the job ------------------------------------------------------------------------------------

    def job(self) -> SampleJob:
        """The SampleJob as it is set. Raises SpecError if there is no model, or a formula is wrong."""
        if self._entry is None:
            raise SpecError("There is no model to sample from.", "Train one, or get one.")
        job = SampleJob(
            model=self._entry.name,
            sampler=self.sampler.value(),
            count=self.count.value(),
            seed=self.seed.value(),
            classes=self.classes.currentData() or "",
            guidance=self.guidance.value() if self._guides else 1.0,
            classifier=self.classifier.currentData() or "",
            sde=self.sde.value(),
        )
        spec.check(job)
        return job

    def show_job(self, job: SampleJob) -> None:
        """Show the settings of a job; the model is the session's to choose."""
        self.sampler.set_value(job.sampler)
        self.count.setValue(job.count)
        self.seed.set_value(job.seed)
        self._offer_classifiers(job.classifier)
        self._offer_classes(job.classes)
        self.guidance.setValue(job.guidance)
        self.sde.set_value(job.sde)
        self.noising.setChecked(job.sde is not None)
        self._tell_noising()
        self._show_preset()
        self._tell_cost()

    def set_model(self, entry: Entry | None) -> None:
        """Show the facts and classes of the model that is chosen, and the classifiers that fit it."""
        info = entry.info if entry else None
        if self._entry is None and self._candidates:
            self.count.setValue(self._candidates)
        elif not self._candidates and info and self._suits(entry) != self._suits(self._entry):
            self.count.setValue(self._suits(entry))
        self._entry = entry
        if entry is None or info is None:
            self.facts.setText(self.tr("No model on the shelf yet."))
        else:
            colours = self.tr("grey") if info.colours == 1 else self.tr("colour")
            self.facts.setText(
                f"{entry.name} · {info.size}×{info.size} {colours} · {info.sde.title}"
            )
        self._classifiers = classifiers.fitting(info.shape) if info else {}
        chosen = self.classifier.currentData()
        wanted = self.classes.currentData() if self._guides else None
        self._offer_classifiers(chosen if chosen in self._classifiers else "")
        self._offer_classes(wanted)

    def _suits(self, entry: Entry | None) -> int:
        """How many pictures a person can wait for at first, of a model's size; 0 for no model."""
        if entry is None or entry.info is None:
            return 0
        return 16 if entry.info.size <= 64 else 4 if entry.info.size <= 128 else 1

    def _offer_classifiers(self, wanted: str) -> None:
        """None and those that fit; and the one that is wanted, which a recipe may know better."""
        self.classifier.clear()
        self.classifier.addItem(self.tr("None"), "")
        names = list(self._classifiers)
        for name in names if wanted in ("", *names) else [*names, wanted]:
            self.classifier.addItem(name, name)
        self.classifier.setCurrentIndex(self.classifier.findData(wanted))
        self._rows.setRowVisible(self.classifier, self.classifier.count() > 1)

    def _offer_classes(self, wanted: str | None) -> None:
        """The classes of the classifier, else of the model. None wants what suits them best."""
        judge, info = self.classifier.currentData(), self._entry.info if self._entry else None
        known = self._classifiers.get(judge) if judge else info
        names = known.classes if known else ()
        if judge and known is None and wanted and wanted != "each":
            names = (wanted,)  # of a classifier that is not here, so the run will say so
        self.classes.clear()
        self.classes.addItem(self.tr("Any"), "")
        if names or judge:
            self.classes.addItem(self.tr("Each in turn"), "each")
        for name in names:
            self.classes.addItem(name.capitalize(), name)
        # A model that knows classes draws best when it is told one; what is repainted has its own.
        suits = "" if self._candidates else "each"
        chosen = self.classes.findData(suits if wanted is None else wanted)
        self.classes.setCurrentIndex(max(0, chosen))
        self.classes.setEnabled(self._guides)
        self.classes.setToolTip(
            self.tr("What the pictures should show")
            if self._guides
            else self.tr("This model was trained without classes")
        )
        self._rows.setRowVisible(self.guidance, self._guides)

    @property
    def _guides(self) -> bool:
        """Whether there are classes to guide to."""
        return self.classes.count() > 1

    # -- parts --------------------------------------------------------------------------------------

    def _preset(self) -> QComboBox:
        combo = QComboBox()
        combo.setObjectName("preset")
        combo.setAccessibleName(self.tr("Preset"))
        combo.setToolTip(self.tr("A sampler with settings that suit it"))
        for name, (label, _) in PRESETS.items():
            combo.addItem(told(label), name)
        combo.addItem(self.tr("Own settings"), CUSTOM)
        return combo

    def _count(self) -> tuple[Whole, QSlider]:
        spin, slider = Whole(), QSlider(Qt.Orientation.Horizontal)
        spin.setObjectName("count")
        for widget in (spin, slider):
            widget.setRange(1, MOST_PICTURES)
            widget.setValue(16)
            widget.setToolTip(self.tr("How many pictures at once"))
            widget.setAccessibleName(self.tr("Pictures"))
        slider.valueChanged.connect(spin.setValue)
        spin.valueChanged.connect(slider.setValue)
        spin.valueChanged.connect(lambda _: self.changed.emit())
        return spin, slider

    def _guidance(self) -> Number:
        """A number from the bounds that the job has."""
        field = next(f for f in dataclasses.fields(SampleJob) if f.name == "guidance")
        facts = spec.about(field)
        number = Number(*(facts.range or (0, 1)))
        number.setObjectName(field.name)
        number.setAccessibleName(told(facts.label))
        number.setToolTip(told(facts.help))
        number.setValue(SampleJob.guidance)
        return number

    def _noising(self) -> QToolButton:
        """The heading of what few people change, which opens it."""
        button = QToolButton()
        button.setObjectName("noisingHeading")
        button.setProperty("role", "disclosure")
        button.setCheckable(True)
        button.setAutoRaise(True)
        button.setIconSize(QSize(10, 10))
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        button.setToolTip(
            self.tr("Sample along another noising process than the one the model was trained with")
        )
        button.toggled.connect(lambda _: self._tell_noising())
        return button

    def _lay_out(self) -> None:
        self._rows = top = Rows()
        pictures = QHBoxLayout()
        pictures.addWidget(self._count_slider, 1)
        pictures.addWidget(self.count)
        top.field(self.tr("Preset"), self.preset)
        top.field(self.tr("Class"), self.classes)
        top.field(self.tr("Classifier"), self.classifier)
        top.field(self.tr("Guidance"), self.guidance)
        many = self.tr("Candidates") if self._candidates else self.tr("Pictures")
        top.field(many, pictures)
        top.field(self.tr("Seed"), self.seed)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(10)
        box.addWidget(self._title(self.tr("Recipe")))
        box.addWidget(self.facts)
        box.addLayout(top)
        box.addWidget(self._title(self.tr("Sampler")))
        box.addWidget(self.sampler)
        box.addWidget(self.cost)
        box.addWidget(self.noising)
        box.addWidget(self.sde)
        box.addStretch()

    def _title(self, text: str) -> QLabel:
        label = QLabel(text)
        label.setProperty("role", "heading")
        return label

    def _preset_chosen(self, index: int) -> None:
        name = self.preset.itemData(index)
        if name in PRESETS:
            self.sampler.set_value(PRESETS[name][1])
        self._tell_cost()
        self.changed.emit()

    def _sampler_changed(self, _: object) -> None:
        self._show_preset()
        self._tell_cost()
        self.changed.emit()

    def _classifier_chosen(self, _: int) -> None:
        # It is there to tell classes apart: any class is not what a person wants of it.
        self._offer_classes(self.classes.currentData() or "each")
        self.changed.emit()

    def _sde_changed(self) -> None:
        self._tell_noising()
        self.changed.emit()

    def _tell_noising(self) -> None:
        opened = self.noising.isChecked()
        self.noising.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        process = self.sde.combo.currentText()
        said = self.tr("Noising: {process}").format(process=process)
        self.noising.setText(self.tr("Noising") if opened else said)
        self.noising.setAccessibleName(said)
        self.sde.setVisible(opened)

    def _show_preset(self) -> None:
        value = self.sampler.value()
        known = [name for name, (_, sampler) in PRESETS.items() if sampler == value]
        self.preset.setCurrentIndex(self.preset.findData(known[0] if known else CUSTOM))

    def _tell_cost(self) -> None:
        calls = self.sampler.value().cost()
        self.cost.setText(
            self.tr("Takes as many network calls as the tolerance asks for.")
            if calls is None
            else self.tr("%n network calls", "", calls)
        )


def summary(job: SampleJob) -> str:
    """A job in a few words, a line each."""
    lines = [job.model, spec.title(type(job.sampler))]
    if (calls := job.sampler.cost()) is not None:
        lines[-1] += f", {calls} network calls"
    pictures = f"{job.count} × {job.classes}" if job.classes else f"{job.count} pictures"
    if job.guidance != 1 or job.classifier:
        pictures += f", guidance {job.guidance:g}" + f" by {job.classifier}" * bool(job.classifier)
    if job.sde is not None:
        lines.append(f"noising {spec.title(type(job.sde))}")
    return "\n".join([*lines, pictures, f"seed {job.seed}"])


def differences(old: Any, new: Any) -> list[str]:
    """What changes from one recipe to the other, a line each: "Seed: 3 → 7"."""
    before, after = _flat(spec.to_dict(old)), _flat(spec.to_dict(new))
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            lines.append(f"{key}: {before.get(key, '–')} → {after.get(key, '–')}")
    return lines


def _flat(data: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in data.items():
        name = f"{prefix}{key}" if key != "kind" else prefix.rstrip(".") or "kind"
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat
