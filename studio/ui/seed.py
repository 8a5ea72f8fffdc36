"""The seed of a run: a number, a lock that keeps it, dice that throw a new one."""

from __future__ import annotations

import random

from PySide6.QtCore import Signal
from PySide6.QtGui import QValidator
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QToolButton, QWidget

from studio.ui import theme

LARGEST = 2**32 - 1


class _Whole(QValidator):
    """0 to 2³² - 1."""

    def validate(self, text: str, position: int) -> tuple[QValidator.State, str, int]:
        if not text:
            return QValidator.State.Intermediate, text, position
        good = text.isascii() and text.isdigit() and int(text[:12]) <= LARGEST and len(text) <= 10
        return (QValidator.State.Acceptable if good else QValidator.State.Invalid), text, position


class SeedEdit(QWidget):
    """Emits `changed` with the seed after a person changed it."""

    changed = Signal(object)  # an int beyond 31 bits

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._used: int | None = None
        self.line = QLineEdit("0")
        self.line.setObjectName("seed")
        self.line.setAccessibleName(self.tr("Seed"))
        self.line.setToolTip(self.tr("Picture i has the seed + i, alone or in any batch"))
        self.line.setValidator(_Whole(self))
        self.line.textEdited.connect(lambda _: self.changed.emit(self.value()))
        self.lock = QToolButton()
        self.lock.setCheckable(True)
        self.lock.setObjectName("seedLock")
        self.lock.setAccessibleName(self.tr("Keep the seed"))
        self.lock.setToolTip(
            self.tr("Locked: every run uses this seed. Unlocked: each takes a new one")
        )
        self.lock.setIcon(theme.icon("unlock"))
        self.lock.toggled.connect(
            lambda on: self.lock.setIcon(theme.icon("lock" if on else "unlock"))
        )
        dice = QToolButton()
        dice.setIcon(theme.icon("dice"))
        dice.setObjectName("seedDice")
        dice.setAccessibleName(self.tr("New seed"))
        dice.setToolTip(self.tr("A new seed by chance (R)"))
        dice.setShortcut("R")
        dice.clicked.connect(self.throw)
        box = QHBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addWidget(self.line, 1)
        box.addWidget(self.lock)
        box.addWidget(dice)
        self.setFocusProxy(self.line)

    def value(self) -> int:
        return int(self.line.text() or 0)

    def set_value(self, seed: int) -> None:
        self.line.setText(str(seed))

    def throw(self) -> None:
        """Another seed, by chance."""
        self.set_value(random.randrange(LARGEST + 1))
        self.changed.emit(self.value())

    def take(self) -> int:
        """The seed for a run. One that was used already makes way for another, unless locked."""
        if not self.lock.isChecked() and self.value() == self._used:
            self.throw()
        self._used = self.value()
        return self._used
