"""The loss by noise level: a bar for every part of ln σ, against how it was at the beginning.

One loss mixes all levels, and mostly shows which were drawn; here one sees where the model learns.
"""

from __future__ import annotations

import math

import numpy as np
from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QHelpEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from studio.engine.events import Levels
from studio.ui import drawing, theme
from studio.ui.train import words

_LEFT, _RIGHT, _TOP, _BOTTOM = 10.0, 10.0, 40.0, 36.0
_HEAD = 30.0  # the height of the words above
_MOST = 3.0  # times the highest bar; what was beyond at the beginning is not drawn


class LevelsStrip(QWidget):
    """Shows Levels. A bar is paler where few pictures were seen; the thin line is the beginning."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("levelsStrip")
        self.setAccessibleName(self.tr("Loss by noise level"))
        self.setMinimumSize(200, 120)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._now: Levels | None = None

    def show_levels(self, now: Levels | None) -> None:
        """The levels of the moment; None where nothing is known."""
        if now is self._now:
            return
        self._now = now
        self._describe()
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(320, 170)

    def bars(self) -> list[tuple[QRectF, float, float]]:
        """Where each bar lies, its loss and its share of the most seen; none for levels unseen."""
        now = self._now
        if now is None or not np.isfinite(now.loss).any():
            return []
        high, most = self._highest(now), max(1.0, float(now.seen.max()))
        made = []
        for i, loss in enumerate(now.loss):
            if not math.isfinite(loss):
                continue
            left, right = self._x(now.edges[i]), self._x(now.edges[i + 1])
            top = self._y(float(loss), high)
            box = QRectF(left + 0.5, top, max(1.0, right - left - 1), self._floor() - top)
            made.append((box, float(loss), float(now.seen[i]) / most))
        return made

    # -- geometry -----------------------------------------------------------------------------------

    def _floor(self) -> float:
        return self.height() - _BOTTOM

    def _highest(self, now: Levels) -> float:
        """The loss at the top: of the bars, and of the beginning as far as it does not dwarf them."""
        high = float(np.nanmax(now.loss))
        if np.isfinite(now.first).any():
            high = max(high, min(float(np.nanmax(now.first)), _MOST * high))
        return max(high, 1e-9)

    def _ends(self) -> tuple[float, float]:
        """The levels that are shown: those that were seen, and one more at each side."""
        assert self._now is not None
        seen = np.flatnonzero(np.isfinite(self._now.loss))
        first, last = (seen[0], seen[-1] + 1) if len(seen) else (0, len(self._now.loss))
        edges = self._now.edges
        return float(edges[max(0, first - 1)]), float(edges[min(len(edges) - 1, last + 1)])

    def _x(self, level: float) -> float:
        low, high = self._ends()
        return _LEFT + (level - low) / max(1e-9, high - low) * (self.width() - _LEFT - _RIGHT)

    def _y(self, loss: float, high: float) -> float:
        share = min(max(loss / high, 0.0), 1.0)
        return self._floor() - share * (self._floor() - _TOP)

    # -- painting -----------------------------------------------------------------------------------

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self.update()
        super().changeEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        c = theme.colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(QRectF(self.rect()).adjusted(0, _HEAD, 0, 0), QColor(c.base))
        painter.setPen(QColor(c.text))
        painter.drawText(QPointF(_LEFT, 19), self.tr("Loss by noise level"))
        bars = self.bars()
        if bars:
            self._paint_bars(painter, bars)
            self._paint_first(painter)
            self._paint_axis(painter)
        else:
            inside = self.rect().adjusted(0, round(_HEAD), 0, 0)
            body = self.tr("Fine detail is at the left, the whole layout at the right.")
            drawing.empty_state(painter, inside, self.font(), self.tr("Nothing measured"), body)
        painter.end()

    def _paint_bars(self, painter: QPainter, bars: list[tuple[QRectF, float, float]]) -> None:
        accent = QColor(theme.colours().accent)
        painter.setPen(Qt.PenStyle.NoPen)
        for box, _, seen in bars:
            accent.setAlphaF(0.3 + 0.7 * math.sqrt(seen))
            painter.setBrush(accent)
            painter.drawRect(box)

    def _paint_first(self, painter: QPainter) -> None:
        """How it was at the beginning, a step above each bar that has learned since."""
        now = self._now
        if now is None or not np.isfinite(now.first).any():
            return
        high = self._highest(now)
        painter.setPen(QPen(QColor(theme.colours().series[1]), 1.6))
        for i, loss in enumerate(now.first):
            if math.isfinite(loss) and loss <= high:
                y = self._y(float(loss), high)
                left, right = self._x(now.edges[i]), self._x(now.edges[i + 1])
                painter.drawLine(QPointF(left + 1, y), QPointF(right - 1, y))
        text, small = self.tr("when first measured"), theme.font(self.font(), 0.85)
        width = QFontMetricsF(small).horizontalAdvance(text)
        painter.setFont(small)
        end = self.width() - _RIGHT
        painter.drawLine(QPointF(end - width - 24, 15), QPointF(end - width - 8, 15))
        painter.setPen(QColor(theme.colours().muted))
        painter.drawText(QPointF(end - width, 19), text)

    def _paint_axis(self, painter: QPainter) -> None:
        c, small = theme.colours(), theme.font(self.font(), 0.85)
        metrics, floor = QFontMetricsF(small), self._floor()
        painter.setFont(small)
        painter.setPen(QPen(QColor(c.edge), 1))
        painter.drawLine(QPointF(_LEFT, floor + 0.5), QPointF(self.width() - _RIGHT, floor + 0.5))
        painter.setPen(QColor(c.text))
        low, high = self._ends()
        for power in range(math.ceil(low / math.log(10)), math.floor(high / math.log(10)) + 1):
            text, x = f"{10.0**power:g}", self._x(power * math.log(10))
            half = metrics.horizontalAdvance(text) / 2
            if x - half >= 0 and x + half <= self.width():
                painter.drawText(QPointF(x - half, floor + 3 + metrics.ascent()), text)
        painter.setPen(QColor(c.muted))
        fine, coarse = self.tr("fine detail"), self.tr("the whole layout")
        base = floor + 4 + metrics.height() + metrics.ascent()
        painter.drawText(QPointF(_LEFT, base), fine)
        middle = self.tr("σ")
        painter.drawText(QPointF(self.width() / 2, base), middle)
        end = self.width() - _RIGHT - metrics.horizontalAdvance(coarse)
        painter.drawText(QPointF(end, base), coarse)

    # -- for those who ask --------------------------------------------------------------------------

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            QToolTip.showText(event.globalPos(), self._told(float(event.pos().x())), self)
            return True
        return super().event(event)

    def _told(self, x: float) -> str:
        now = self._now
        if now is None:
            return self.tr("How far off the model is, for strong noise and for little")
        for i, loss in enumerate(now.loss):
            if self._x(now.edges[i]) <= x < self._x(now.edges[i + 1]):
                sigma = math.exp((now.edges[i] + now.edges[i + 1]) / 2)
                return self.tr("σ {sigma}: loss {loss}, of {seen} pictures").format(
                    sigma=words.short(sigma),
                    loss=words.short(float(loss)),
                    seen=words.count(int(now.seen[i])),
                )
        return ""

    def _describe(self) -> None:
        bars = self.bars()
        if bars:
            worst = max(bars, key=lambda bar: bar[1])
            self.setAccessibleDescription(self._told(worst[0].center().x()))
