"""What is seen of two lanes at once, and what is laid over a picture: wipe, difference, loupe, arrows.

Pictures are uint8 stacks (N, H, W, C), C of 1 or 3. Painters paint in the coordinates of a
PictureView, over its pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PySide6.QtCore import QLineF, QPointF, QRectF, Qt
from PySide6.QtGui import (
    QColor,
    QFont,
    QFontMetricsF,
    QImage,
    QPainter,
    QPainterPath,
    QPen,
)

from studio.engine.trajectory import Frame, Kept
from studio.ui import drawing, theme
from studio.ui.compare.marks import paint_chip
from studio.ui.picture_view import PictureView

#: How much a difference may be enlarged.
GAINS = (1, 2, 4, 8, 16, 32)

#: From "the first is higher" through "equal" to "the second is higher". Blue and red that are as dark
#: at the same distance from white are told apart also without red or green cones.
_STOPS = ((33, 102, 172), (146, 197, 222), (255, 255, 255), (244, 165, 130), (178, 24, 43))

_PATCH = 26.0  # the least side of a patch that has an arrow, in pixels of the window

_SHORTEST = 3.5  # half of the least arrow that is drawn

#: The length of s · score that is white in a frame's view of it.
_WHITE = 3.0

#: Beyond this log-SNR estimate and state are nearly equal, and eight bits cannot tell how they differ.
LAST_ARROWS = 7.0


def _diverging() -> np.ndarray:
    """The colours of differences from -255 to 255, uint8 (511, 3)."""
    places = np.linspace(-255, 255, len(_STOPS))
    steps = np.arange(-255, 256)
    columns = [np.interp(steps, places, [stop[i] for stop in _STOPS]) for i in range(3)]
    return np.stack(columns, -1).round().astype(np.uint8)


_COLOURS = _diverging()


def signed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """other - one in the channel that differs most, int16 (N, H, W): zero only where all are equal."""
    moved = other.astype(np.int16) - one
    high = low = moved[..., 0]
    for channel in range(1, moved.shape[-1]):
        high = np.maximum(high, moved[..., channel])
        low = np.minimum(low, moved[..., channel])
    return np.where(high >= -low, high, low)


def difference(one: np.ndarray, other: np.ndarray, gain: int) -> np.ndarray:
    """The signed difference as colours, uint8 (N, H, W, 3): blue where `one` is higher, red where
    `other` is, white where they are equal."""
    moved = signed(one, other).astype(np.int32) * gain
    return _COLOURS[np.clip(moved, -255, 255) + 255]


def wiped(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """`one` left of the line that lies at `share` of each picture's width, `other` right of it."""
    whole = one.copy()
    at = cut(share, one.shape[2])
    whole[:, :, at:] = other[:, :, at:]
    return whole


def cut(share: float, width: int) -> int:
    """The column of pixels at which a wipe lies."""
    return min(max(round(share * width), 0), width)


def pulls(frame: Frame, clean: np.ndarray, noisy: np.ndarray, length: np.ndarray) -> np.ndarray:
    """s · score of a frame from its views "denoised", "x" and "score", float32 (N, H, W, C).

    A kept frame has the noise itself. In others, with r = a/s = exp(log-SNR / 2), it points along
    r (estimate - middle) - √(1 + r²) (state - middle); the state is cut off at black and white, so
    how long it is comes from its own view.
    """
    if isinstance(frame, Kept) and "noise" in (kept := vars(frame))["items"]:
        noise = kept["items"]["noise"].load().astype(np.float32) - 127.5
        return noise * (kept["code"][2] * (-_WHITE / 255)).reshape(-1, 1, 1, 1)
    if frame.log_snr > LAST_ARROWS:
        return np.zeros(clean.shape, np.float32)
    ratio = math.exp(frame.log_snr / 2)
    field = ratio * _centred(clean) - math.hypot(1.0, ratio) * _centred(noisy)
    seen = np.sqrt(np.mean(field**2, -1, keepdims=True))
    return field * (length * np.float32(_WHITE / 255) / np.maximum(seen, 1e-3))


def _centred(pictures: np.ndarray) -> np.ndarray:
    return pictures.astype(np.float32) / np.float32(127.5) - 1


def patches(field: np.ndarray, cells: int) -> np.ndarray:
    """Where s · score (H, W, C) pulls each of cells × cells patches: (cells, cells, 2).

    The second number is its mean over the patch, positive where it makes the patch brighter; the
    first, in colour pictures, how much more it pulls red than blue. Pure noise gives about one.
    """
    means = field
    for axis in (0, 1):
        edges = np.linspace(0, field.shape[axis], cells + 1).astype(int)
        counts = np.diff(edges).reshape([-1 if i == axis else 1 for i in range(3)])
        means = np.add.reduceat(means, edges[:-1], axis=axis) / counts
    height, width, channels = field.shape
    # The mean of n values of unit noise has the deviation 1/√n.
    means = means * math.sqrt(height * width / cells**2)
    bright = means.mean(-1) * math.sqrt(channels)
    warm = (means[..., 0] - means[..., -1]) / math.sqrt(2)
    return np.stack([warm, bright], -1)


# ---- painters ---------------------------------------------------------------------------------


def paint_loupe(
    painter: QPainter, view: PictureView, pictures: np.ndarray, at: QPointF, radius: float
) -> None:
    """`pictures` seen through a round lens around `at`, each pixel in its place."""
    lens = QRectF(at.x() - radius, at.y() - radius, 2 * radius, 2 * radius)
    shape = QPainterPath()
    shape.addEllipse(lens)
    painter.save()
    painter.setClipPath(shape)
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, view.zoom < drawing.CRISP)
    for i in view.shown:
        box = view.cell_rect(i)
        if i < len(pictures) and box.intersects(lens):
            painter.drawImage(box, drawing.image_of(pictures[i]))
    painter.restore()
    c = theme.colours()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    for shade, width in ((c.stage, 4.0), (c.accent, 2.0)):
        painter.setPen(QPen(QColor(shade), width))
        painter.drawEllipse(lens)


def paint_arrows(painter: QPainter, view: PictureView, field: np.ndarray) -> None:
    """An arrow of s · score (N, H, W, C) on each patch: up where it makes the patch brighter, down
    where darker; to the right where redder, to the left where bluer. Few on small pictures."""
    lines: list[QLineF] = []
    inside = QRectF(view.rect())
    for i in view.shown:
        box = view.cell_rect(i)
        if i < len(field) and box.intersects(inside):
            room = int(min(box.width(), box.height()) // _PATCH)
            cells = min(12, max(1, room), *field.shape[1:3])
            lines += _arrows(box, patches(field[i], cells))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    for shade, width in (("#141516", 3.4), ("#ffffff", 1.5)):
        painter.setPen(QPen(QColor(shade), width, c=Qt.PenCapStyle.RoundCap))
        painter.drawLines(lines)


def _arrows(box: QRectF, field: np.ndarray) -> list[QLineF]:
    """Arrows on a grid of patches, longest where the pull is twice that of pure noise."""
    rows, across = field.shape[:2]
    pitch_x, pitch_y = box.width() / across, box.height() / rows
    longest = 0.46 * min(pitch_x, pitch_y)
    lines = []
    for row in range(rows):
        for column in range(across):
            warm, bright = (float(v) / 2.0 for v in field[row, column])
            strength = math.hypot(warm, bright)
            if longest * strength < _SHORTEST:
                continue
            reach = longest * min(strength, 1.0) / strength
            middle = QPointF(
                box.left() + (column + 0.5) * pitch_x, box.top() + (row + 0.5) * pitch_y
            )
            lines += _arrow(middle, warm * reach, -bright * reach)
    return lines


def _arrow(middle: QPointF, dx: float, dy: float) -> list[QLineF]:
    """A shaft centred on a point, and its head."""
    tip, tail = middle + QPointF(dx, dy), middle - QPointF(dx, dy)
    size = 0.55
    left = QPointF(tip.x() - size * (dx + 0.6 * dy), tip.y() - size * (dy - 0.6 * dx))
    right = QPointF(tip.x() - size * (dx - 0.6 * dy), tip.y() - size * (dy + 0.6 * dx))
    return [QLineF(tail, tip), QLineF(left, tip), QLineF(right, tip)]


def wipe_line(view: PictureView, index: int, share: float) -> QLineF:
    """Where the line of a wipe lies on a picture, in the widget."""
    box = view.cell_rect(index)
    width = view.picture(index).shape[1]
    x = box.left() + cut(share, width) * box.width() / width
    return QLineF(x, box.top(), x, box.bottom())


def paint_wipe(painter: QPainter, view: PictureView, share: float, letters: Sequence[str]) -> None:
    """The line between two lanes on each picture; which is which on a picture that is large."""
    c = theme.colours()
    lines = [wipe_line(view, i, share) for i in view.shown]
    for shade, width in ((c.stage, 3.0), (c.accent, 1.4)):
        painter.setPen(QPen(QColor(shade), width))
        painter.drawLines(lines)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    grip = 5.0 if len(lines) == 1 else 3.5
    painter.setPen(QPen(QColor(c.stage), 1.5))
    painter.setBrush(QColor(c.accent))
    for line in lines:
        painter.drawEllipse(line.center(), grip, grip)
    if len(lines) == 1:
        box, small = view.cell_rect(view.shown[0]), theme.font(painter.font(), 0.92)
        x, y = lines[0].x1(), box.top() + 30
        drawing.plate(painter, small, letters[0], QPointF(x - 22, y), box)
        drawing.plate(painter, small, letters[1], QPointF(x + 22, y), box)


def paint_letter(painter: QPainter, view: PictureView, lane: int) -> None:
    """Which lane is seen, in the upper left corner."""
    paint_chip(painter, QRectF(8, 8, 26, 26), lane)


def paint_legend(
    painter: QPainter,
    view: PictureView,
    font: QFont,
    gain: int,
    letters: Sequence[str],
    span: float,
) -> None:
    """What the colours of a difference mean; `span` is what 255 levels are."""
    most = f"{span / gain:.3g}"
    words = f"{letters[0]} +{most}", f"{letters[1]} +{most}"
    _paint_scale(painter, view, font, drawing.image_of(_COLOURS[None]), words)


def paint_densities(
    painter: QPainter, view: PictureView, font: QFont, scale: tuple[float, float], unit: str
) -> None:
    """What the greys of a density mean: black and white of `scale`."""
    greys, (low, high) = np.arange(256, dtype=np.uint8)[None, :, None], scale
    words = f"{low:.2f}".replace("-", "−"), f"{high:.2f} {unit}"
    _paint_scale(painter, view, font, drawing.image_of(greys), words)


def _paint_scale(
    painter: QPainter, view: PictureView, font: QFont, bar: QImage, words: tuple[str, str]
) -> None:
    """A bar of colours between two words, in the upper right corner."""
    c, small = theme.colours(), theme.font(font, 0.85)
    metrics, wide, pad = QFontMetricsF(small), min(120.0, view.width() / 4), 8.0
    sides = [metrics.horizontalAdvance(text) for text in words]
    width, height = sum(sides) + wide + 4 * pad, metrics.height() + 8
    box = QRectF(view.width() - width - 8, 8, width, height)
    plate = QColor(c.raised)
    plate.setAlphaF(0.92)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(c.line), 1))
    painter.setBrush(plate)
    painter.drawRoundedRect(box, 6, 6)
    strip = QRectF(box.left() + 2 * pad + sides[0], box.top() + height / 2 - 4, wide, 8)
    painter.drawImage(strip, bar)
    painter.setPen(QColor(c.text))
    painter.setFont(small)
    text = box.adjusted(pad, 0, -pad, 0)
    painter.drawText(text, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft, words[0])
    painter.drawText(text, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight, words[1])
