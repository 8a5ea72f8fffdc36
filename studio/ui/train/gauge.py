"""How much of the samples is remembered: from new pictures to copies of those learned from."""

from __future__ import annotations

import math

from PySide6.QtCore import QEvent, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

from studio.ui import theme

_BAR = 84.0
_SOME, _MUCH = 0.25, 0.6


class Gauge(QWidget):
    """A bar with words, so that it is read without its colour."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("memorised")
        self._share = math.nan
        self.setToolTip(
            self.tr(
                "How near samples come to the pictures learned from: 0 % is as near as held-out "
                "pictures are, 100 % are copies"
            )
        )
        self._tell()

    def set_share(self, share: float) -> None:
        """0 to 1; nan while nothing is known."""
        if share != self._share and not (math.isnan(share) and math.isnan(self._share)):
            self._share = share
            self._tell()
            self.updateGeometry()
            self.update()

    @property
    def text(self) -> str:
        """What it says."""
        if math.isnan(self._share):
            return ""
        if self._share < _SOME:
            words = self.tr("new pictures")
        elif self._share < _MUCH:
            words = self.tr("close to yours")
        else:
            words = self.tr("learned by heart")
        return f"{words} · {self._share:.0%}"

    def _tell(self) -> None:
        self.setAccessibleName(self.tr("Learned by heart: {0}").format(self.text or "–"))

    def sizeHint(self) -> QSize:
        if not self.text:
            return QSize(0, 24)
        metrics = QFontMetricsF(theme.font(self.font(), 0.92))
        return QSize(round(metrics.horizontalAdvance(self.text) + _BAR + 16), 24)

    def minimumSizeHint(self) -> QSize:
        return self.sizeHint()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self.update()
        super().changeEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        if not self.text:
            return
        c = theme.colours()
        share = min(max(self._share, 0.0), 1.0)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        middle = self.height() / 2
        groove = QRectF(self.width() - _BAR - 2, middle - 3, _BAR, 6)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(c.line))
        painter.drawRoundedRect(groove, 3, 3)
        shade = c.good if share < _SOME else c.warning if share < _MUCH else c.danger
        painter.setBrush(QColor(shade))
        painter.drawRoundedRect(
            QRectF(groove.left(), groove.top(), max(6.0, share * _BAR), 6), 3, 3
        )
        painter.setPen(QColor(c.text))
        painter.setFont(theme.font(self.font(), 0.92))
        words = QRectF(0, 0, groove.left() - 8, self.height())
        painter.drawText(
            words, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, self.text
        )
        painter.end()
