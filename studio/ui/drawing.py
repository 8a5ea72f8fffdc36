"""Small things several widgets draw: arrays as images, text plates, frames, empty states.

Pictures are uint8 arrays (H, W, C) with C of 1 or 3.
"""

from __future__ import annotations

import functools

import numpy as np
from PySide6.QtCore import QPointF, QRect, QRectF, QSizeF, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QImage, QPainter, QPen

from studio.ui import theme

#: Above this many device pixels per picture pixel a picture is shown as it is, not smoothed.
CRISP = 2.0


def image_of(picture: np.ndarray) -> QImage:
    """A picture as an RGB32 image of its own; the array may change afterwards."""
    height, width, channels = picture.shape
    packed = np.ascontiguousarray(picture)
    kind = QImage.Format.Format_RGB888 if channels == 3 else QImage.Format.Format_Grayscale8
    borrowed = QImage(packed.data, width, height, width * channels, kind)
    return borrowed.convertToFormat(QImage.Format.Format_RGB32)


def quantized(scale: float) -> float:
    """The scale in device pixels per picture pixel that is really used: whole from 2 upwards."""
    return float(int(scale)) if scale >= CRISP else scale


def draw_fitting(painter: QPainter, box: QRectF, image: QImage) -> QRectF:
    """Draw an image whole and centred in `box`, enlarged only by whole numbers; where it went."""
    ratio = painter.device().devicePixelRatio()
    scale = min(box.width() * ratio / image.width(), box.height() * ratio / image.height())
    scale = quantized(scale) if scale >= CRISP else min(scale, 1.0)
    size = QSizeF(image.width(), image.height()) * (scale / ratio)
    corner = box.center() - QPointF(size.width() / 2, size.height() / 2)
    corner = QPointF(round(corner.x() * ratio) / ratio, round(corner.y() * ratio) / ratio)
    where = QRectF(corner, size)
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, scale < 1)
    painter.drawImage(where, image)
    return where


def frame(
    painter: QPainter, rect: QRectF, colour: str, width: float, gap: float, radius: float
) -> None:
    """A rounded outline `gap` outside a rectangle."""
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(colour), width))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    out = gap + width / 2
    painter.drawRoundedRect(rect.adjusted(-out, -out, out, out), radius, radius)
    painter.restore()


def plate(
    painter: QPainter, font: QFont, text: str, at: QPointF, inside: QRectF, strong: bool = False
) -> QRectF:
    """A small translucent label whose bottom centre is `at`, kept inside a rectangle."""
    c = theme.colours()
    metrics = QFontMetricsF(font)
    text = metrics.elidedText(text, Qt.TextElideMode.ElideRight, max(0.0, inside.width() - 20))
    width, height = metrics.horizontalAdvance(text) + 16, metrics.height() + 6
    left = min(max(at.x() - width / 2, inside.left()), inside.right() - width)
    top = min(max(at.y() - height, inside.top()), inside.bottom() - height)
    box = QRectF(round(left), round(top), width, height)
    fill = QColor(c.accent if strong else c.raised)
    fill.setAlphaF(1.0 if strong else 0.9)
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen if strong else QPen(QColor(c.line), 1))
    painter.setBrush(fill)
    painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 6, 6)
    painter.setPen(QColor(c.on_accent if strong else c.text))
    painter.setFont(font)
    painter.drawText(box, Qt.AlignmentFlag.AlignCenter, text)
    painter.restore()
    return box


def empty_state(
    painter: QPainter, rect: QRect, font: QFont, title: str, body: str, illustrated: bool = False
) -> None:
    """A title over a paragraph, centred; with the row of tiles that turn from noise to a face."""
    c = theme.colours()
    heading, text = theme.font(font, 1.35 if illustrated else 1.0, strong=True), theme.font(font)
    width = min(rect.width() - 32, 420)
    flags = int(
        Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop | Qt.TextFlag.TextWordWrap
    )
    bounds = QRectF(0, 0, width, 10_000)
    title_height = QFontMetricsF(heading).boundingRect(bounds, flags, title).height()
    body_height = QFontMetricsF(text).boundingRect(bounds, flags, body).height() if body else 0.0
    words = title_height + (8 + body_height if body else 0)
    art = 48 + 28 if illustrated and rect.height() > words + 120 and width > 260 else 0
    left, top = rect.center().x() - width / 2, rect.center().y() - (words + art) / 2
    if art:
        _tiles(painter, rect.center().x(), round(top))
    painter.setFont(heading)
    painter.setPen(QColor(c.text if illustrated else c.muted))
    painter.drawText(QRectF(left, top + art, width, title_height), flags, title)
    painter.setFont(text)
    painter.setPen(QColor(c.muted))
    body_top = top + art + title_height + 8
    painter.drawText(QRectF(left, body_top, width, body_height), flags, body)


_FACE = """
............
..bb....bb..
..bwb..bwb..
..bbbbbbbb..
.bbbbbbbbbb.
.bbebbbbebb.
.bbebbbbebb.
.bcbbbbbbcb.
.bbbebbebbb.
..bbbeebbb..
...bbbbbb...
............
"""
_INK = {".": "#6d5ce0", "b": "#ffd9a0", "w": "#ff9c9c", "e": "#2a1b5e", "c": "#ffb0a0"}


def _rgb(name: str) -> tuple[int, int, int]:
    colour = QColor(name)
    return colour.red(), colour.green(), colour.blue()


@functools.cache
def _emerging(stage: int, of: int) -> QImage:
    """A 12 × 12 face at one of the moments between pure noise and itself."""
    rows = [[_rgb(_INK[ch]) for ch in row] for row in _FACE.split()]
    clean = np.array(rows, dtype=np.float32)
    noise = np.random.default_rng(7).normal(128, 90, clean.shape)
    share = (stage / (of - 1)) ** 0.8
    return image_of(np.clip(share * clean + (1 - share) * noise, 0, 255).astype(np.uint8))


def _tiles(painter: QPainter, centre: float, top: float, count: int = 5) -> None:
    pitch, side = 60, 48
    left = round(centre - (count * pitch - (pitch - side)) / 2)
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, False)
    for i in range(count):
        box = QRectF(left + i * pitch, top, side, side)
        painter.setOpacity(0.9)
        painter.drawImage(box, _emerging(i, count))
        frame(painter, box, theme.colours().line, 1, 1, 3)
    painter.restore()
