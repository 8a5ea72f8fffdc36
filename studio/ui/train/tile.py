"""How one file looks on the wall: its picture, the square that is learned from, and its marks."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QImage, QPainter, QPainterPath, QPen

from studio.training.choices import Crop
from studio.training.folder import File
from studio.ui import drawing, theme
from studio.ui.thumbnails import PAD

SIDE = 96  # of a thumbnail
_MARK = 17.0


@dataclass(frozen=True)
class Look:
    """What is to be seen of a file beside its own facts."""

    image: QImage | None = None
    crop: Crop | None = None
    framing: str = "centre"
    used: bool = True
    small: bool = False
    selected: bool = False
    hovered: bool = False
    focused: bool = False


def paint_tile(painter: QPainter, cell: QRectF, file: File, look: Look) -> None:
    """Paint a file into its cell, in the painter's font."""
    c = theme.colours()
    left = cell.center().x() - SIDE / 2
    spot = QRectF(round(left), cell.top() + PAD, SIDE, SIDE)
    box = QRectF(spot.left() - PAD, cell.top() + 1, SIDE + 2 * PAD, cell.height() - 2)
    if look.selected or look.hovered:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(c.accent_soft if look.selected else c.hover))
        painter.drawRoundedRect(box, 7, 7)
    if look.focused:
        drawing.frame(painter, box, c.accent, 1.5, -1.5, 6)
    if file.result == "image":
        _paint_picture(painter, spot, file, look)
    else:
        _paint_broken(painter, spot, file)
    name = file.path.rpartition("/")[2]
    metrics = QFontMetricsF(painter.font())
    line = QRectF(box.left() + 3, spot.bottom() + 3, box.width() - 6, metrics.height())
    unreadable = file.result == "error"
    painter.setPen(QColor(c.danger if unreadable else c.text if look.selected else c.muted))
    text = metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, line.width())
    painter.drawText(line, Qt.AlignmentFlag.AlignCenter, text)


def square(where: QRectF, file: File, framing: str, crop: Crop | None) -> QRectF | None:
    """The part of a picture drawn at `where` that is learned from; None if it is another each time."""
    width, height = file.size
    if crop is not None:
        left, top, right, bottom = crop.box(width, height)
    elif framing == "centre":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        right, bottom = left + side, top + side
    else:
        return None
    across, down = where.width() / max(1, width), where.height() / max(1, height)
    return QRectF(
        where.left() + left * across,
        where.top() + top * down,
        (right - left) * across,
        (bottom - top) * down,
    )


def shade_outside(painter: QPainter, where: QRectF, inside: QRectF, strength: float) -> None:
    """Veil what of `where` lies outside `inside`."""
    veil = QColor(theme.colours().stage)
    veil.setAlphaF(strength)
    path = QPainterPath()
    path.setFillRule(Qt.FillRule.OddEvenFill)
    path.addRect(where)
    path.addRect(inside.intersected(where))
    painter.fillPath(path, veil)


def _paint_picture(painter: QPainter, spot: QRectF, file: File, look: Look) -> None:
    c = theme.colours()
    if look.image is None or look.image.isNull():
        drawing.frame(painter, spot, c.line, 1, -1, 4)
        where = spot
    else:
        painter.save()
        if not look.used:
            painter.setOpacity(0.25)
        where = drawing.draw_fitting(painter, spot, look.image)
        painter.restore()
        inside = square(where, file, look.framing, look.crop)
        if look.used and inside is not None:
            shade_outside(painter, where, inside, 0.62)
            if look.crop is not None:
                drawing.frame(painter, inside, c.accent, 1.5, -1.5, 1)
        drawing.frame(painter, where, c.edge if look.selected else c.line, 1, 0, 2)
    if not look.used:
        word = QCoreApplication.translate("Wall", "left out")
        spot_of = QPointF(spot.center().x(), spot.center().y() + 11)
        drawing.plate(painter, painter.font(), word, spot_of, spot)
    corner = where.topLeft() + QPointF(3, 3)
    for sign in _signs(file, look):
        _paint_mark(painter, QRectF(corner.x(), corner.y(), _MARK, _MARK), sign)
        corner += QPointF(_MARK + 2, 0)


def _signs(file: File, look: Look) -> list[str]:
    """The marks of a picture: a twin, a small one, one of extreme shape."""
    shown = (("≈", bool(file.twin)), ("▫", look.small), ("↔", "extreme" in file.flags))
    return [sign for sign, there in shown if there]


def _paint_mark(painter: QPainter, box: QRectF, sign: str) -> None:
    c = theme.colours()
    painter.setPen(QPen(QColor(c.warning), 1))
    painter.setBrush(QColor(c.warning_soft))
    painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
    painter.setPen(QColor(c.warning))
    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, sign)


def _paint_broken(painter: QPainter, spot: QRectF, file: File) -> None:
    """A file without a picture: why, in its own words."""
    c = theme.colours()
    wrong = file.result == "error"
    painter.setPen(QPen(QColor(c.danger if wrong else c.line), 1))
    painter.setBrush(QColor(c.danger_soft if wrong else c.base))
    painter.drawRoundedRect(spot.adjusted(0.5, 0.5, -0.5, -0.5), 5, 5)
    icon = theme.icon("warning" if wrong else "info", "danger" if wrong else "muted")
    side = 20
    icon.paint(painter, round(spot.center().x()) - side // 2, round(spot.top()) + 10, side, side)
    painter.setPen(QColor(c.text if wrong else c.muted))
    words = spot.adjusted(6, 34, -6, -4)
    flags = Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop | Qt.TextFlag.TextWordWrap
    painter.save()
    painter.setClipRect(words)
    painter.drawText(words, int(flags), file.reason)
    painter.restore()
