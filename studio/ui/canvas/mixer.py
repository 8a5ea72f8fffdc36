"""The mixer of Bayes' rule: the score is a sum, and here is a row for each term that is added to the
model's own. Its weight can be changed, and a bar shows how long the term is beside the model's score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from PySide6.QtCore import QEvent, QLocale, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent
from PySide6.QtWidgets import QGridLayout, QLabel, QSizePolicy, QSlider, QVBoxLayout, QWidget

from studio.ui import theme
from studio.ui.fields import Number

_TICKS = 1000  # of a slider
_FAINT, _LOUD = 0.01, 10.0  # shares between which the bar grows with the logarithm


@dataclass(frozen=True)
class Term:
    """What is added to the score: its name for programs and for people, a sentence, its weight now."""

    key: str
    label: str
    help: str
    weight: float
    range: tuple[float, float]


class Mixer(QWidget):
    """A row a term. Emits `weight_changed` with the key of a term whose weight a person changed."""

    weight_changed = Signal(str, float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("mixer")
        self.setAccessibleName(self.tr("Weights of what is known"))
        self._rows: dict[str, _Row] = {}
        self._shown: list[Term] = []  # with all weights alike: what the rows are made of
        self.explanation = QLabel()
        self.explanation.setObjectName("mixerExplanation")
        self.explanation.setProperty("role", "muted")
        self.explanation.setWordWrap(True)
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.setSpacing(10)
        self._box.addWidget(self.explanation)
        self._explain()

    def set_terms(self, terms: Sequence[Term]) -> None:
        """Show these rows, in this order. The same terms with other weights keep their editors."""
        wanted = [replace(term, weight=0) for term in terms]
        if wanted != self._shown:
            self._shown = wanted
            for row in self._rows.values():
                self._box.removeWidget(row)
                row.hide()
                row.deleteLater()
            self._rows = {t.key: _Row(t) for t in terms}
            for row in self._rows.values():
                row.changed.connect(self.weight_changed)
                self._box.addWidget(row)
            self._explain()
        for term in terms:
            self._rows[term.key].set_weight(term.weight)

    def weight(self, key: str) -> float:
        """The weight of a term as it is set. Raises KeyError if there is no such term."""
        return self._rows[key].number.value()

    def show_shares(self, shares: Mapping[str, float]) -> None:
        """How long each term is beside the score, by key; terms not named say nothing. Made for 30
        calls a second.
        """
        for key, row in self._rows.items():
            row.bar.show_share(shares.get(key))

    def _explain(self) -> None:
        self.explanation.setText(
            self.tr(
                "What is known adds to the model's score. The bars show how hard each term pulls; "
                "at the mark it pulls as hard as the score itself."
            )
            if self._rows
            else self.tr("Nothing is added to the model's score by this task and method.")
        )


class _Row(QWidget):
    """A name and a number over a slider and a bar."""

    changed = Signal(str, float)

    def __init__(self, term: Term) -> None:
        super().__init__()
        self._key, self._range = term.key, term.range
        self.setToolTip(term.help)
        label = QLabel(term.label)
        label.setWordWrap(True)
        self.number = Number(*term.range)
        self.number.setObjectName(f"weight_{term.key}")
        self.number.setMinimumWidth(76)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setObjectName(f"slider_{term.key}")
        self.slider.setRange(0, _TICKS)
        self.slider.setPageStep(_TICKS // 10)
        self.slider.setSingleStep(_TICKS // 100)
        self.bar = Bar()
        self.bar.setObjectName(f"share_{term.key}")
        self.bar.setAccessibleName(self.tr("Pull of {0}").format(term.label))
        label.setBuddy(self.number)
        for widget in (self.number, self.slider):
            widget.setAccessibleName(self.tr("Weight of {0}").format(term.label))
            widget.setToolTip(term.help)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(0, 1)
        grid.addWidget(label, 0, 0)
        grid.addWidget(self.number, 0, 1)
        grid.addWidget(self.slider, 1, 0, 1, 2)
        grid.addWidget(self.bar, 2, 0, 1, 2)
        self.set_weight(term.weight)
        self.number.valueChanged.connect(self._typed)
        self.slider.valueChanged.connect(self._slid)

    def set_weight(self, weight: float) -> None:
        """Show another weight, without a signal."""
        for widget in (self.number, self.slider):
            widget.blockSignals(True)
        if weight != self.number.value():
            self.number.setValue(weight)
        place = place_of(self.number.value(), self._range)  # which holds it within its bounds
        self.slider.setValue(round(_TICKS * place))
        for widget in (self.number, self.slider):
            widget.blockSignals(False)

    def _typed(self, weight: float) -> None:
        self.set_weight(weight)
        self.changed.emit(self._key, self.number.value())

    def _slid(self, tick: int) -> None:
        # To three digits: a weight is read, not only heard.
        weight = float(f"{weight_at(tick / _TICKS, self._range):.3g}")
        self.number.blockSignals(True)
        self.number.setValue(weight)
        self.number.blockSignals(False)
        self.changed.emit(self._key, self.number.value())


class Bar(QWidget):
    """The length of a term beside the score's: on a scale like a logarithm's, but with a zero, and a
    mark where they are equal. Its number has a place of its own, so nothing moves while it runs.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._share: float | None = None
        self._told = ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_share(self, share: float | None) -> None:
        """Show a share of 0 or more; None is not known."""
        if share is not None and not (math.isfinite(share) and share >= 0):
            share = None
        if share != self._share:
            self._share = share
            self._told = _percent(share)
            self.update()

    def sizeHint(self) -> QSize:
        return QSize(160, self.minimumSizeHint().height())

    def minimumSizeHint(self) -> QSize:
        return QSize(90, round(QFontMetricsF(theme.font(self.font(), 0.85)).height()))

    def event(self, event: QEvent) -> bool:
        # Said only when somebody asks, not thirty times a second.
        if event.type() == QEvent.Type.ToolTip:
            told = self.tr("{0} as long as the model's score").format(self._told)
            self.setToolTip(told if self._told else self.tr("Not measured yet"))
        return super().event(event)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self.update()
        super().changeEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        c = theme.colours()
        small = theme.font(self.font(), 0.85)
        words = QFontMetricsF(small).horizontalAdvance(_percent(9.99)) + 10
        rail = QRectF(1, self.height() / 2 - 3, self.width() - words - 2, 6)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(c.line))
        painter.drawRoundedRect(rail, 3, 3)
        reach = rail.width() * length_of(self._share or 0.0)
        if reach >= 0.5:
            # Not the accent, in which the slider above is drawn: this one only shows.
            painter.setBrush(QColor(c.series[2]))
            painter.drawRoundedRect(QRectF(rail.left(), rail.top(), max(6.0, reach), 6), 3, 3)
        mark = round(rail.left() + rail.width() * length_of(1.0)) + 0.5
        painter.setPen(QColor(c.text))
        painter.drawLine(QPointF(mark, rail.top() - 3), QPointF(mark, rail.bottom() + 3))
        painter.setFont(small)
        painter.setPen(QColor(c.text if self._told else c.muted))
        room = QRectF(self.width() - words, 0, words, self.height())
        flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        painter.drawText(room, flags, self._told or "–")
        painter.end()


def length_of(share: float) -> float:
    """The part of the bar that a share fills: none for 0, all for 10 and more."""
    return min(1.0, math.log1p(share / _FAINT) / math.log1p(_LOUD / _FAINT))


def place_of(weight: float, range: tuple[float, float]) -> float:
    """Where on a slider, from 0 to 1, a weight lies: 1 in the middle, if it is within the range."""
    low, high = range
    return ((weight - low) / (high - low)) ** (1 / _bend(range)) if high > low else 0.0


def weight_at(place: float, range: tuple[float, float]) -> float:
    """The weight at a place of a slider, the inverse of `place_of`."""
    low, high = range
    return low + (high - low) * place ** _bend(range)


def _bend(range: tuple[float, float]) -> float:
    """The power that puts weight 1, Bayes' rule itself, into the middle of a slider."""
    low, high = range
    return math.log((1 - low) / (high - low)) / math.log(0.5) if low < 1 < high else 1.0


def _percent(share: float | None) -> str:
    if share is None:
        return ""
    if share >= _LOUD:
        return f"> {QLocale().toString(_LOUD * 100, 'f', 0)} %"
    return f"{QLocale().toString(share * 100, 'f', 0 if share >= 0.1 else 1)} %"
