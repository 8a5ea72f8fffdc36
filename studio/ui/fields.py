"""Fields and their labels, as every form of the studio has them."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDoubleSpinBox, QFormLayout, QLabel, QSpinBox, QWidget

_GAP = 8  # between labels and fields
_INSET = 5, 0, 0, 0  # of a spin box's text: the padding of a style sheet does not reach it


class Rows(QFormLayout):
    """A field a row. Labels have a least width, so that fields of forms below each other are in line."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setContentsMargins(0, 0, 0, 0)
        self.setHorizontalSpacing(_GAP)
        self.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)

    def field(self, label: str | QLabel, field: Any) -> None:
        """Add a row: a widget or a layout, and what is said of it."""
        said = QLabel(label) if isinstance(label, str) else label
        said.setMinimumWidth(said.fontMetrics().horizontalAdvance("Candidates"))
        if isinstance(field, QWidget) and said.buddy() is None:
            said.setBuddy(field)
        self.addRow(said, field)


class Whole(QSpinBox):
    """A whole number."""

    def __init__(self) -> None:
        super().__init__()
        self.lineEdit().setTextMargins(*_INSET)


class Number(QDoubleSpinBox):
    """A decimal number shown with no more digits than it has; steps by factors or by hundredths."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.lineEdit().setTextMargins(*_INSET)
        self.setDecimals(8)
        self.setRange(low, high)
        self.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)

    def textFromValue(self, value: float) -> str:
        return self.locale().toString(value, "g", 6)
