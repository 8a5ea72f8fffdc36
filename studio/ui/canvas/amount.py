"""A number with a name, a slider and a box to type in: the options of the brush."""

from __future__ import annotations

import math

from PySide6.QtCore import QSignalBlocker, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSlider, QWidget

from studio.ui.fields import Number

HEIGHT = 34  # logical pixels, of everything in the bar
_STEPS = 1000  # of a slider
_SLIDER = 60  # logical pixels
_GAP = 6


class Amount(QWidget):
    """A number between `low` and `high`. `name` is the objectName of the box to type in; that of the
    slider ends in "Slider".
    """

    changed = Signal(float)  # by a person
    done = Signal()  # Enter was pressed after typing

    def __init__(self, name: str, low: float, high: float, unit: str) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.label = QLabel()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setObjectName(f"{name}Slider")
        self.slider.setRange(0, _STEPS)
        self.slider.setSingleStep(_STEPS // 50)
        self.slider.setPageStep(_STEPS // 10)
        self.slider.setFixedWidth(_SLIDER)
        # A drag must not take the keys away from the canvas.
        self.slider.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.spin = Number(low, high)
        self.spin.setObjectName(name)
        self.spin.setDecimals(0)
        self.spin.setSuffix(unit)
        self.spin.setStepType(Number.StepType.DefaultStepType)
        self.spin.setSingleStep(5)
        self.spin.setKeyboardTracking(False)
        self.spin.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.spin.setFixedWidth(64)
        self.label.setBuddy(self.spin)
        row = QHBoxLayout(self)
        row.setContentsMargins(4, 0, 4, 0)
        row.setSpacing(_GAP)
        for widget in (self.label, self.slider, self.spin):
            row.addWidget(widget)
        self.setMinimumHeight(HEIGHT)
        self.slider.valueChanged.connect(self._slid)
        self.spin.valueChanged.connect(self._typed)
        self.spin.lineEdit().returnPressed.connect(self.done)

    def value(self) -> float:
        return self.spin.value()

    def set_value(self, value: float) -> None:
        """Show another value, without emitting `changed`."""
        with QSignalBlocker(self.spin), QSignalBlocker(self.slider):
            self.spin.setValue(value)
            if self._at(self.slider.value()) != self.spin.value():
                self.slider.setValue(round(_STEPS * self._share(self.spin.value())))

    def widths(self) -> tuple[int, int]:
        """The width that is wanted, with the slider and without."""
        hint, slider = self.sizeHint().width(), _SLIDER + _GAP
        return (hint + slider, hint) if self.slider.isHidden() else (hint, hint - slider)

    def tell(self, title: str, tip: str, titles: tuple[str, ...] = ()) -> None:
        """Name the number and say what it does. `titles`: all it is ever called, for the width."""
        metrics = self.label.fontMetrics()
        self.label.setText(title)
        self.label.setMinimumWidth(max(metrics.horizontalAdvance(t) for t in (title, *titles)))
        for widget in (self.label, self.slider, self.spin):
            widget.setToolTip(tip)
            widget.setAccessibleName(title)

    def _slid(self, position: int) -> None:
        value = self._at(position)
        if value != self.spin.value():
            with QSignalBlocker(self.spin):
                self.spin.setValue(value)
            self.changed.emit(value)

    def _typed(self, value: float) -> None:
        with QSignalBlocker(self.slider):
            self.slider.setValue(round(_STEPS * self._share(value)))
        self.changed.emit(value)

    def _at(self, position: int) -> float:
        """The value at a position of the slider, rounded as the box shows it."""
        return round(self._value(position / _STEPS), self.spin.decimals())

    def _share(self, value: float) -> float:
        """How far along the slider a value is, 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def _value(self, share: float) -> float:
        return self.low + share * (self.high - self.low)


class SizeAmount(Amount):
    """A size: each part of the slider multiplies it by as much."""

    def __init__(self, name: str, low: float, high: float, unit: str) -> None:
        super().__init__(name, low, high, unit)
        self.spin.setDecimals(1)
        self.spin.setStepType(Number.StepType.AdaptiveDecimalStepType)
        self.spin.setFixedWidth(84)

    def _at(self, position: int) -> float:
        value = super()._at(position)
        return value if value < 10 else float(round(value))

    def _share(self, value: float) -> float:
        return math.log(value / self.low) / math.log(self.high / self.low)

    def _value(self, share: float) -> float:
        return self.low * (self.high / self.low) ** share
