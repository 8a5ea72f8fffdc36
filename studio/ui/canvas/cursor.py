"""The thin marks over the picture: brush, outlines, box, wipe. Always as thin on any zoom.

All of it is drawn in device pixels, light over dark, so that it is seen on any ground and in both
appearances. `ratio` is device pixels per logical pixel.
"""

from __future__ import annotations

from PySide6.QtCore import QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPen, QPolygonF, QRegion

from studio.ui import theme

#: Side of a handle and how near to it a press counts, in logical pixels.
HANDLE = 9.0
REACH = 9.0
#: The eight handles of a box, as (x, y) from 0 to 2: corners first, they win where sides are short.
HANDLES = ((0, 0), (2, 0), (0, 2), (2, 2), (1, 0), (0, 1), (2, 1), (1, 2))
_DARK = QColor(0, 0, 0, 170)
_LIGHT = QColor(255, 255, 255)


def stroke_path(
    painter: QPainter,
    path: QPainterPath,
    ratio: float,
    style: Qt.PenStyle = Qt.PenStyle.SolidLine,
    width: float = 1.25,
) -> None:
    """A light line in a dark one; dashes are light on a whole dark line."""
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(_DARK, (width + 2.0) * ratio))
    painter.drawPath(path)
    pen = QPen(_LIGHT, width * ratio, style)
    if style is Qt.PenStyle.DashLine:
        pen.setDashPattern([4.0, 4.0])
    painter.setPen(pen)
    painter.drawPath(path)


def brush(
    painter: QPainter, centre: QPointF, radius: float, hardness: float, erase: bool, ratio: float
) -> None:
    """The brush's edge, the ring where it begins to fade, and a minus where it erases."""
    edge = QPainterPath()
    shown = max(radius, 2.0 * ratio)
    edge.addEllipse(centre, shown, shown)
    stroke_path(painter, edge, ratio)
    if hardness < 0.95 and radius * (1 - hardness) > 3 * ratio and radius * hardness > 2 * ratio:
        ring = QPainterPath()
        ring.addEllipse(centre, radius * hardness, radius * hardness)
        painter.setPen(QPen(QColor(0, 0, 0, 110), 1.6 * ratio))
        painter.drawPath(ring)
        painter.setPen(QPen(QColor(255, 255, 255, 210), 0.8 * ratio, Qt.PenStyle.DotLine))
        painter.drawPath(ring)
    if radius > 7 * ratio:
        middle, arm = QPainterPath(), 3.0 * ratio
        middle.moveTo(centre - QPointF(arm, 0))
        middle.lineTo(centre + QPointF(arm, 0))
        if not erase:
            middle.moveTo(centre - QPointF(0, arm))
            middle.lineTo(centre + QPointF(0, arm))
        stroke_path(painter, middle, ratio, width=1.0)


def brush_extent(centre: QPointF, radius: float, ratio: float) -> QRect:
    """Every device pixel that `brush` may touch."""
    reach = max(radius, 8 * ratio) + 4 * ratio
    corner = QPointF(reach, reach)
    return QRectF(centre - corner, centre + corner).toAlignedRect()


def crosshair(painter: QPainter, centre: QPointF, ratio: float) -> None:
    """Where the keyboard paints."""
    path, near, far = QPainterPath(), 5.0 * ratio, 14.0 * ratio
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        path.moveTo(centre + QPointF(dx, dy) * near)
        path.lineTo(centre + QPointF(dx, dy) * far)
    stroke_path(painter, path, ratio, width=1.5)


def polygon(painter: QPainter, points: list[QPointF], closed: bool, ratio: float) -> None:
    """The outline of a lasso; not closed, it shows where it began."""
    path = QPainterPath()
    path.addPolygon(QPolygonF(points))
    if closed:
        path.closeSubpath()
    stroke_path(painter, path, ratio, Qt.PenStyle.DashLine)
    if not closed and points:
        handle(painter, points[0], ratio)


def rectangle(painter: QPainter, box: QRectF, ratio: float, ellipsis: bool = True) -> None:
    path = QPainterPath()
    path.addRect(box)
    style = Qt.PenStyle.DashLine if ellipsis else Qt.PenStyle.SolidLine
    stroke_path(painter, path, ratio, style)


def dim(painter: QPainter, box: QRectF, shown: QRect, strength: float) -> None:
    """Darken the picture outside a box."""
    painter.save()
    painter.setClipRegion(QRegion(shown) - QRegion(box.toRect()))
    painter.fillRect(shown, QColor(0, 0, 0, round(255 * strength)))
    painter.restore()


def box(painter: QPainter, where: QRectF, handles: bool, ratio: float) -> None:
    """The part that goes through the model."""
    rectangle(painter, where.adjusted(-0.5, -0.5, 0.5, 0.5), ratio, ellipsis=not handles)
    if handles:
        for spot in handle_spots(where):
            handle(painter, spot, ratio)


def handle_spots(where: QRectF) -> list[QPointF]:
    """The places of HANDLES on a box."""
    return [
        QPointF(where.left() + x * where.width() / 2, where.top() + y * where.height() / 2)
        for x, y in HANDLES
    ]


def handle(painter: QPainter, centre: QPointF, ratio: float) -> None:
    half = HANDLE / 2 * ratio
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(_DARK, 1.5 * ratio))
    painter.setBrush(_LIGHT)
    corner = QPointF(half, half)
    painter.drawRoundedRect(QRectF(centre - corner, centre + corner), 2 * ratio, 2 * ratio)


def divider(painter: QPainter, x: float, top: float, bottom: float, ratio: float) -> None:
    """The wipe's line with its grip."""
    path = QPainterPath(QPointF(x, top))
    path.lineTo(x, bottom)
    stroke_path(painter, path, ratio, width=1.5)
    centre, radius = QPointF(x, (top + bottom) / 2), 11.0 * ratio
    painter.setPen(QPen(_DARK, 1.5 * ratio))
    painter.setBrush(_LIGHT)
    painter.drawEllipse(centre, radius, radius)
    arrows = QPainterPath()
    for side in (-1, 1):
        tip = centre + QPointF(side * 6.5 * ratio, 0)
        arrows.moveTo(tip + QPointF(-side * 3.5, -3.5) * ratio)
        arrows.lineTo(tip)
        arrows.lineTo(tip + QPointF(-side * 3.5, 3.5) * ratio)
    painter.setPen(QPen(QColor(30, 30, 34), 1.5 * ratio))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawPath(arrows)


def drop_zone(painter: QPainter, where: QRectF, hot: bool) -> None:
    """A dashed frame, logical pixels; `hot` while something is held over it."""
    c = theme.colours()
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(c.accent if hot else c.edge), 2.0, Qt.PenStyle.DashLine))
    painter.setBrush(QColor(c.accent_soft) if hot else Qt.BrushStyle.NoBrush)
    painter.drawRoundedRect(where, 12, 12)
    painter.restore()
