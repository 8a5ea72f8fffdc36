"""What tells one lane from the others everywhere: a letter and a colour, never the colour alone."""

from __future__ import annotations

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

from studio.ui import theme

LETTERS = "ABCD"
MOST_LANES = len(LETTERS)


def colour(lane: int) -> str:
    """The colour of a lane in the appearance of the moment."""
    return theme.colours().series[lane]


class Chip(QWidget):
    """The letter of a lane on its colour."""

    def __init__(self, lane: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.lane = lane
        self.setFixedSize(20, 20)
        self.set_lane(lane)

    def set_lane(self, lane: int) -> None:
        self.lane = lane
        self.setAccessibleName(self.tr("Lane {letter}").format(letter=LETTERS[lane]))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        paint_chip(painter, QRectF(self.rect()), self.lane)
        painter.end()


def paint_chip(painter: QPainter, box: QRectF, lane: int) -> None:
    """The letter of a lane on its colour, filling `box`."""
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(colour(lane)))
    painter.drawRoundedRect(box, 5, 5)
    painter.setPen(QColor(theme.colours().on_accent))
    painter.setFont(theme.font(painter.font(), 0.9, strong=True))
    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, LETTERS[lane])
    painter.restore()


class Line(QWidget):
    """One line of text, cut with an ellipsis where there is no room; whole in its tooltip."""

    def __init__(self, strong: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text, self._strong = "", strong
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_text(self, text: str) -> None:
        if text != self._text:
            self._text = text
            self.setToolTip(text)
            self.setAccessibleName(text)
            self.update()

    def text(self) -> str:
        return self._text

    def sizeHint(self) -> QSize:
        metrics = QFontMetricsF(theme.font(self.font(), strong=self._strong))
        return QSize(round(metrics.horizontalAdvance(self._text)) + 2, round(metrics.height()) + 2)

    def minimumSizeHint(self) -> QSize:
        return QSize(24, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        font = theme.font(self.font(), strong=self._strong)
        text = QFontMetricsF(font).elidedText(
            self._text, Qt.TextElideMode.ElideRight, self.width() - 1
        )
        painter.setFont(font)
        painter.setPen(QColor(theme.colours().text))
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignVCenter, text)
        painter.end()
