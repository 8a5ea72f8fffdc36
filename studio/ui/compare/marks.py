"""What tells one lane from the others everywhere: a letter and a colour, never the colour alone."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QWidget

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
