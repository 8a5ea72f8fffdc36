"""What a folder holds, as chips with counts: a click shows those files alone."""

from __future__ import annotations

from PySide6.QtCore import QLocale, Signal
from PySide6.QtWidgets import QButtonGroup, QPushButton, QWidget

from studio.ui.flow_layout import FlowLayout
from studio.ui.train.collection import GROUPS

_ALWAYS = ("all", "used")


class Chips(QWidget):
    """`chosen` carries the group to show."""

    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("trainChips")
        self.setAccessibleName(self.tr("What to show"))
        self.buttons: dict[str, QPushButton] = {}
        self._counts: dict[str, int] = {}
        self._group = QButtonGroup(self)
        row = FlowLayout(6)
        self.setLayout(row)
        names = self._names()
        for group in GROUPS:
            text, tip = names[group]
            button = QPushButton(text)
            button.setObjectName(f"chip_{group.replace(' ', '_')}")
            button.setProperty("chip", True)
            button.setCheckable(True)
            button.setToolTip(tip)
            button.setAccessibleName(text)
            button.clicked.connect(lambda _=False, group=group: self.chosen.emit(group))
            self._group.addButton(button)
            self.buttons[group] = button
            row.addWidget(button)
        self.buttons["all"].setChecked(True)
        self.show_counts(dict.fromkeys(GROUPS, 0))

    def _names(self) -> dict[str, tuple[str, str]]:
        """The word of each group, and what it means."""
        return {
            "all": (self.tr("All"), self.tr("Every file that is a picture or should be one")),
            "used": (self.tr("Used"), self.tr("What will be learned from")),
            "left out": (
                self.tr("Left out"),
                self.tr("By you (Delete on a picture), or as a near-duplicate"),
            ),
            "error": (self.tr("Unreadable"), self.tr("Damaged or no pictures; each says why")),
            "small": (
                self.tr("Too small"),
                self.tr("Fewer pixels than the model's pictures: they are enlarged"),
            ),
            "twins": (self.tr("Alike"), self.tr("Near-duplicates, beside what they equal")),
            "extreme": (
                self.tr("Long or tall"),
                self.tr("More than 2.5 times as long as wide: most lies outside the square"),
            ),
            "other": (self.tr("No pictures"), self.tr("Other files, hidden ones, folders' own")),
        }

    def show_counts(self, counts: dict[str, int]) -> None:
        """How many files each group has; groups without any are not offered."""
        if counts == self._counts:
            return
        self._counts = counts
        names = self._names()
        for group, button in self.buttons.items():
            count = counts.get(group, 0)
            text = f"{names[group][0]}  {QLocale().toString(count)}"
            button.setText(text)
            button.setAccessibleName(text)
            button.setVisible(bool(count) or group in _ALWAYS or button.isChecked())

    @property
    def group(self) -> str:
        """The group that is chosen."""
        return next(name for name, button in self.buttons.items() if button.isChecked())

    def choose(self, group: str) -> None:
        """Choose a group as a click does."""
        self.buttons[group].setChecked(True)
        self.chosen.emit(group)
