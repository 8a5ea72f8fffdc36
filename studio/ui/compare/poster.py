"""A race as one picture to keep: every lane's pictures under its letter and a line on it.

Drawn in fixed colours, for it is seen outside of the window. Images may be drawn in any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QImage, QPainter

from studio import recipes
from studio.ui import drawing, theme
from studio.ui.compare.marks import LETTERS

_HEAD, _GAP = 34, 12
_LEAST = 256  # pixels of a lane's shorter side


@dataclass(frozen=True)
class Strip:
    """A lane on a poster: its uint8 pictures (N, H, W, C), and what is said of them."""

    pictures: np.ndarray
    title: str
    line: str = ""


def poster(strips: Sequence[Strip]) -> np.ndarray:
    """The lanes beside each other, uint8 (H, W, 3)."""
    sheets = [drawing.image_of(recipes.contact_sheet(s.pictures, _LEAST)) for s in strips]
    width = sum(sheet.width() for sheet in sheets) + _GAP * (len(sheets) + 1)
    height = max(sheet.height() for sheet in sheets) + _HEAD + _GAP
    image = QImage(width, height, QImage.Format.Format_RGB888)
    image.fill(QColor(theme.LIGHT.window))
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    left = _GAP
    for lane, (strip, sheet) in enumerate(zip(strips, sheets, strict=True)):
        _head(painter, QRectF(left, 7, sheet.width(), 20), lane, strip)
        painter.drawImage(left, _HEAD, sheet)
        left += sheet.width() + _GAP
    painter.end()
    lines = np.frombuffer(image.constBits(), np.uint8).reshape(height, image.bytesPerLine())
    return lines[:, : 3 * width].reshape(height, width, 3).copy()


def _head(painter: QPainter, box: QRectF, lane: int, strip: Strip) -> None:
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(theme.LIGHT.series[lane]))
    chip = QRectF(box.left(), box.top(), 20, 20)
    painter.drawRoundedRect(chip, 5, 5)
    bold, plain = QFont(), QFont()
    bold.setPixelSize(13)
    bold.setWeight(QFont.Weight.DemiBold)
    plain.setPixelSize(13)
    painter.setFont(bold)
    painter.setPen(QColor(theme.LIGHT.on_accent))
    painter.drawText(chip, Qt.AlignmentFlag.AlignCenter, LETTERS[lane])
    flag = Qt.AlignmentFlag.AlignVCenter
    right = QFontMetricsF(plain).horizontalAdvance(strip.line)
    room = box.width() - 28 - right - 8
    title = QFontMetricsF(bold).elidedText(strip.title, Qt.TextElideMode.ElideRight, room)
    painter.setPen(QColor(theme.LIGHT.text))
    painter.drawText(QRectF(box.left() + 28, box.top(), room, 20), flag, title)
    painter.setFont(plain)
    painter.setPen(QColor(theme.LIGHT.muted))
    painter.drawText(QRectF(box.right() - right, box.top(), right + 1, 20), flag, strip.line)


class Reel:
    """Pictures that are drawn one by one when they are asked for, by whoever writes them."""

    def __init__(self, moments: Sequence[float], draw: Callable[[float], np.ndarray]) -> None:
        self._moments, self._draw = list(moments), draw

    def __len__(self) -> int:
        return len(self._moments)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._draw(moment)[None] for moment in self._moments)
