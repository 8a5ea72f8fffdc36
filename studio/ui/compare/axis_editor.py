"""One axis of a grid: which setting goes along it, and over which values."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QSignalBlocker, Signal
from PySide6.QtWidgets import QComboBox, QLabel, QLineEdit, QVBoxLayout, QWidget

from studio.engine.grid import Axis
from studio.errors import SpecError


@dataclass(frozen=True)
class Offer:
    """Values that make sense for a setting: what is filled in at first, and all that are known if only
    those may be; or why there is none."""

    values: tuple[str, ...]
    known: tuple[str, ...] = ()
    why_not: str = ""


class AxisEditor(QWidget):
    """Edits an Axis. Emits `changed` when a person changes it; `tell` says what is wrong with it."""

    changed = Signal()

    def __init__(self, title: str, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self._offers: dict[str, Offer] = {}
        self._typed: dict[str, str] = {}  # what a person wrote for a setting, if they come back
        heading = QLabel(title)
        heading.setProperty("role", "heading")
        self.setting = QComboBox()
        self.setting.setObjectName(f"{name}Setting")
        self.setting.setAccessibleName(self.tr("{axis}: setting").format(axis=title))
        self.setting.setToolTip(self.tr("The setting that differs from cell to cell"))
        for key, words in self._settings():
            self.setting.addItem(words, key)
        self.values = QLineEdit()
        self.values.setObjectName(f"{name}Values")
        self.values.setAccessibleName(self.tr("{axis}: values").format(axis=title))
        self.values.setPlaceholderText(self.tr("Values, with commas between"))
        self.problem = QLabel()
        self.problem.setObjectName(f"{name}Problem")
        self.problem.setProperty("role", "problem")
        self.problem.setWordWrap(True)
        self.problem.hide()
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        for widget in (heading, self.setting, self.values, self.problem):
            box.addWidget(widget)
        self.setting.activated.connect(lambda _: self._chosen())
        self.values.textEdited.connect(self._edited)

    def _settings(self) -> tuple[tuple[str, str], ...]:
        """What may go along an axis, by the names that an Axis knows."""
        return (
            ("", self.tr("Nothing")),
            ("sampler", self.tr("Sampler")),
            ("steps", self.tr("Steps")),
            ("snr", self.tr("Signal-to-noise of the corrector")),
            ("corrector.steps", self.tr("Corrector steps")),
            ("tolerance", self.tr("Tolerance")),
            ("temperature", self.tr("Temperature")),
            ("guidance", self.tr("Guidance")),
            ("seed", self.tr("Seed")),
            ("class", self.tr("Class")),
            ("model", self.tr("Model")),
        )

    # -- the axis -----------------------------------------------------------------------------------

    def axis(self) -> Axis:
        """The axis as it is written. Raises SpecError if a value is missing, unknown or there twice."""
        name: str = self.setting.currentData()
        if not name:
            return Axis()
        offer = self._offers.get(name, Offer(()))
        if offer.why_not:
            raise SpecError(offer.why_not)
        values = tuple(v.strip() for v in self.values.text().split(",") if v.strip())
        if not values:
            raise SpecError(self.tr("Give at least one value."))
        for i, value in enumerate(values):
            if value in values[:i]:
                raise SpecError(self.tr("“{value}” is there twice.").format(value=value))
        for value in values:
            if offer.known and value not in offer.known:
                some = ", ".join(offer.known[:12]) + (", …" if offer.known[12:] else "")
                raise SpecError(
                    self.tr("There is no “{value}”.").format(value=value),
                    self.tr("Known: {names}.").format(names=some),
                )
        return Axis(name, values)

    def set_axis(self, axis: Axis) -> None:
        """Show an axis, without emitting `changed`."""
        index = self.setting.findData(axis.name)
        if index < 0:  # one that only the command line offers
            self.setting.addItem(axis.name, axis.name)
            index = self.setting.count() - 1
        self.setting.setCurrentIndex(index)
        if axis.name:
            self._typed[axis.name] = ", ".join(axis.values)
        self._show_values()

    def offer(self, offers: dict[str, Offer]) -> None:
        """What to fill in for settings from now on; what a person has written stays."""
        self._offers = offers
        self._show_values()

    def tell(self, problem: str) -> None:
        """Say what is wrong with the axis, below it; nothing if empty."""
        self.problem.setText(problem)
        self.problem.setVisible(bool(problem))
        self.values.setAccessibleDescription(problem)

    # -- parts --------------------------------------------------------------------------------------

    def _chosen(self) -> None:
        self._show_values()
        self.changed.emit()

    def _edited(self, text: str) -> None:
        self._typed[self.setting.currentData()] = text
        self.changed.emit()

    def _show_values(self) -> None:
        name = self.setting.currentData()
        self.values.setVisible(bool(name))
        offer = self._offers.get(name)
        text = self._typed.get(name, ", ".join(offer.values) if offer else "")
        if text != self.values.text():
            with QSignalBlocker(self.values):
                self.values.setText(text)
                self.values.setCursorPosition(0)
        tip = self.tr("Values, with commas between.")
        if offer and offer.known:
            tip += " " + self.tr("Known: {names}.").format(names=", ".join(offer.known))
        self.values.setToolTip(tip)
