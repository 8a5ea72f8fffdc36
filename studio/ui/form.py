"""A form for any Spec: editors come from the fields' types, families become combo boxes.

The form knows families, not their members: a predictor added to PREDICTORS appears by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from PySide6.QtCore import QCoreApplication, Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.errors import SpecError
from studio.ui.fields import Number, Rows, Whole


def told(text: str) -> str:
    """A text of a Spec in the person's language."""
    return QCoreApplication.translate("Spec", text)


class Editor(QWidget):
    """Edits one value; `changed` is emitted with the new one after a person changed it."""

    changed = Signal(object)

    def value(self) -> Any:
        raise NotImplementedError

    def set_value(self, value: Any) -> None:
        """Show another value, without emitting `changed`."""
        raise NotImplementedError


class Form(Editor):
    """Edits a frozen dataclass, a row a field. What makes no sense yet is told below, in a sentence;
    `changed` waits until it does.
    """

    def __init__(
        self, value: Any, skip: tuple[str, ...] = (), parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._value = value
        self._editors: dict[str, Editor] = {}
        self._labels: dict[str, QLabel] = {}
        rows = Rows(self)
        kinds = spec.hints(type(value))
        for field in dataclasses.fields(value):
            if field.name in skip or not _editable(kinds[field.name]):
                continue
            editor = _editor(field, kinds[field.name], getattr(value, field.name))
            editor.changed.connect(self._emit)
            label = QLabel(told(spec.label(field)))
            label.setToolTip(told(spec.about(field).help))
            label.setBuddy(editor.focusProxy() or editor)
            if isinstance(editor, Choice):
                rows.addRow(label)
                rows.addRow(editor)
            else:
                rows.field(label, editor)
            self._editors[field.name], self._labels[field.name] = editor, label
        self._wrong = QLabel()
        self._wrong.setObjectName("problem")
        self._wrong.setProperty("role", "problem")
        self._wrong.setWordWrap(True)
        self._wrong.hide()
        rows.addRow(self._wrong)

    def value(self) -> Any:
        """The value as it is set. Raises SpecError if it makes no sense."""
        changed = {name: editor.value() for name, editor in self._editors.items()}
        return dataclasses.replace(self._value, **changed)

    def set_value(self, value: Any) -> None:
        self._value = value
        for name, editor in self._editors.items():
            editor.set_value(getattr(value, name))
        self._wrong.hide()

    @property
    def edits(self) -> type:
        """The class of the value."""
        return type(self._value)

    def editor(self, name: str) -> Editor:
        """The editor of a field."""
        return self._editors[name]

    def show_field(self, name: str, on: bool) -> None:
        """Show a field, or hide it where it means nothing."""
        rows = self.layout()
        assert isinstance(rows, QFormLayout)
        rows.setRowVisible(self._editors[name], on)
        rows.setRowVisible(self._labels[name], on)

    def name_choices(self, name: str, words: Mapping[Any, str]) -> None:
        """Say what may be chosen for a field in other words."""
        combo = self._editors[name].focusProxy()
        assert isinstance(combo, QComboBox)
        for place in range(combo.count()):
            combo.setItemText(place, words.get(combo.itemData(place), combo.itemText(place)))
        # As wide as its column, not as its longest words.
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(8)

    def _emit(self, _: Any) -> None:
        try:
            value = self.value()
        except SpecError as error:
            self._wrong.setText(str(error))
            self._wrong.show()
            return
        self._wrong.hide()
        self.changed.emit(value)


class Choice(Editor):
    """Chooses a member of a family, and edits the options of the one chosen below.

    Where there may be none, `nothing` says what that is called; the value then is None.
    """

    def __init__(
        self, base: type, value: Any, name: str, nothing: str = "", parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._members = spec.members(base) or {}
        self._kept: dict[str, Any] = {}  # what a person had set in a member, if they come back
        self.combo = QComboBox()
        self.combo.setObjectName(name)
        self.combo.setAccessibleName(told(spec.title(base)))
        if nothing:
            self.combo.addItem(nothing, "")
        for key, member in self._members.items():
            self.combo.addItem(told(spec.title(member)), key)
            last = self.combo.count() - 1
            self.combo.setItemData(last, _sentence(member), Qt.ItemDataRole.ToolTipRole)
        self._about = QLabel()
        self._about.setWordWrap(True)
        self._about.setProperty("role", "muted")
        self._form: Form | None = None
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.addWidget(self.combo)
        self._box.addWidget(self._about)
        self.setFocusProxy(self.combo)
        self._show(value)
        self.combo.activated.connect(self._chosen)

    def value(self) -> Any:
        return None if self._form is None else self._form.value()

    def set_value(self, value: Any) -> None:
        if self._form is not None and self._form.edits is type(value):
            self._form.set_value(value)
        else:
            self._show(value)

    def _chosen(self, index: int) -> None:
        key = self.combo.itemData(index)
        if self._form is not None:
            if self._form.edits is self._members.get(key):
                return
            with contextlib.suppress(SpecError):  # half typed: not worth keeping
                now = self._form.value()
                self._kept[spec.kind(now)] = now
        self._show((self._kept.get(key) or self._members[key]()) if key else None)
        self.changed.emit(self.value())

    def _show(self, value: Any) -> None:
        self.combo.setCurrentIndex(self.combo.findData("" if value is None else spec.kind(value)))
        self._about.setText("" if value is None else _sentence(type(value)))
        self._about.setVisible(value is not None)
        if self._form is not None:
            self._box.removeWidget(self._form)
            self._form.hide()
            self._form.deleteLater()
            self._form = None
        if value is None:
            return
        self._form = Form(value)
        self._form.changed.connect(lambda _: self.changed.emit(self.value()))
        self._form.setContentsMargins(0, 4, 0, 0)  # off the explanation above
        self._box.addWidget(self._form)
        # Not before it has a parent: it would be a window of its own for a moment.
        self._form.setVisible(bool(self._form._editors))


class _Plain(Editor):
    """An editor around one Qt widget."""

    def __init__(
        self, widget: QWidget, signal: Any, read: Callable[[], Any], write: Callable[[Any], None]
    ) -> None:
        super().__init__()
        self._widget, self._read, self._write = widget, read, write
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(widget)
        self.setFocusProxy(widget)
        signal.connect(lambda *_: self.changed.emit(self.value()))

    def value(self) -> Any:
        return self._read()

    def set_value(self, value: Any) -> None:
        blocked = self._widget.blockSignals(True)
        self._write(value)
        self._widget.blockSignals(blocked)


def _editable(kind: Any) -> bool:
    return kind in (bool, int, float, str) or (
        isinstance(kind, type) and spec.members(kind) is not None
    )


def _editor(field: dataclasses.Field[Any], kind: Any, value: Any) -> Editor:
    facts = spec.about(field)
    if isinstance(kind, type) and spec.members(kind):
        editor: Editor = Choice(kind, value, field.name)
    elif facts.choices:
        editor = _choices(facts.choices, value)
    elif kind is bool:
        box = QCheckBox()
        editor = _Plain(box, box.toggled, box.isChecked, box.setChecked)
    elif kind is int:
        spin = Whole()
        low, high = facts.range or (-(2**31), 2**31 - 1)
        spin.setRange(int(max(low, -(2**31))), int(min(high, 2**31 - 1)))
        spin.setStepType(
            Whole.StepType.AdaptiveDecimalStepType if high > 200 else Whole.StepType.DefaultStepType
        )
        editor = _Plain(spin, spin.valueChanged, spin.value, spin.setValue)
    elif kind is float:
        number = Number(*(facts.range or (-1e9, 1e9)))
        editor = _Plain(number, number.valueChanged, number.value, number.setValue)
    else:
        line = QLineEdit()
        editor = _Plain(line, line.textEdited, line.text, line.setText)
    editor.set_value(value)
    widget = editor.focusProxy() or editor
    widget.setObjectName(field.name)
    widget.setAccessibleName(told(spec.label(field)))
    if not isinstance(editor, Choice):
        widget.setToolTip(told(facts.help) or told(spec.label(field)))
    return editor


def _choices(choices: tuple[Any, ...], value: Any) -> Editor:
    combo = QComboBox()
    for choice in choices:
        combo.addItem(told(str(choice)), choice)
    return _Plain(
        combo,
        combo.activated,
        combo.currentData,
        lambda v: combo.setCurrentIndex(max(0, combo.findData(v))),
    )


def _sentence(member: type) -> str:
    """The first paragraph of a member's docstring: what a person is told of it."""
    text = inspect.cleandoc(member.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return told(text)
