"""A picture with the square of it that is learned from, which can be moved and resized."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QWheelEvent,
)
from PySide6.QtWidgets import QWidget

from studio.training.choices import Crop
from studio.training.folder import File
from studio.ui import drawing, theme
from studio.ui.keys import OwnKeys
from studio.ui.train.tile import shade_outside

_GRIP = 14.0  # how near a corner is taken, in pixels of the window
_SMALLEST = 0.05  # of the shorter side


class CropView(OwnKeys, QWidget):
    """Drag the square or its corners; arrows move it, + and - resize it, the wheel as well.

    `changed` carries the Crop.
    """

    changed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("cropView")
        self.setAccessibleName(self.tr("Square that is learned from"))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setMinimumSize(320, 260)
        self._file: File | None = None
        self._image = QImage()
        self._crop: Crop | None = None
        self._fixed = True
        self._drag: tuple[str, QPointF, Crop] | None = None

    def show_file(self, file: File, crop: Crop | None, by_framing: bool) -> None:
        """A picture to come. `by_framing`: the middle square counts where there is no crop."""
        if self._file is None or file.path != self._file.path:
            self._image = QImage()
        self._file, self._crop, self._fixed = file, crop, by_framing
        self._drag = None
        self._tell()
        self.update()

    def set_image(self, image: QImage) -> None:
        """The picture itself."""
        self._image = image
        self.update()

    @property
    def crop(self) -> Crop | None:
        """What was chosen; None goes by the framing."""
        return self._crop

    def reset(self) -> None:
        """Back to the framing."""
        self._crop = None
        self._tell()
        self.update()

    # -- geometry -----------------------------------------------------------------------------------

    def sizeHint(self) -> QSize:
        return QSize(560, 460)

    def picture_rect(self) -> QRectF:
        """Where the picture lies in the widget."""
        box = QRectF(self.rect()).adjusted(12, 12, -12, -12)
        width, height = self._file.size if self._file else (1, 1)
        scale = min(box.width() / max(1, width), box.height() / max(1, height))
        size = QRectF(0, 0, width * scale, height * scale)
        size.moveCenter(box.center())
        return size

    def square(self) -> QRectF:
        """Where the square lies in the widget."""
        where = self.picture_rect()
        assert self._file is not None
        width, height = self._file.size
        left, top, right, bottom = self._effective().box(width, height)
        scale = where.width() / max(1, width)
        corner = where.topLeft() + QPointF(left, top) * scale
        return QRectF(corner.x(), corner.y(), (right - left) * scale, (bottom - top) * scale)

    def _effective(self) -> Crop:
        """The square as it is, or the one in the middle."""
        if self._crop is not None:
            return self._crop
        assert self._file is not None
        width, height = (max(1, side) for side in self._file.size)
        side = min(width, height)
        return Crop(self._file.path, (width - side) / 2 / width, (height - side) / 2 / height, 1.0)

    def _set(self, left: float, top: float, side: float) -> None:
        """A square by its corner and side in shares, held inside the picture."""
        assert self._file is not None
        width, height = (max(1, side) for side in self._file.size)
        side = min(max(side, _SMALLEST), 1.0)
        pixels = side * min(width, height)
        left = min(max(left, 0.0), 1 - pixels / width)
        top = min(max(top, 0.0), 1 - pixels / height)
        crop = Crop(self._file.path, max(0.0, left), max(0.0, top), side)
        if crop != self._crop:
            self._crop = crop
            self._tell()
            self.update()
            self.changed.emit(crop)

    def resize_by(self, factor: float) -> None:
        """Larger or smaller about its middle."""
        if self._file is None:
            return
        now = self._effective()
        width, height = (max(1, side) for side in self._file.size)
        shorter, side = min(width, height), min(max(now.side * factor, _SMALLEST), 1.0)
        grown = (side - now.side) * shorter / 2
        self._set(now.left - grown / width, now.top - grown / height, side)

    def move_by(self, across: float, down: float) -> None:
        """Moved by shares of the shorter side."""
        if self._file is None:
            return
        now = self._effective()
        width, height = (max(1, side) for side in self._file.size)
        shorter = min(width, height)
        self._set(now.left + across * shorter / width, now.top + down * shorter / height, now.side)

    # -- mouse and keys -----------------------------------------------------------------------------

    def _grip_at(self, point: QPointF) -> str:
        """What of the square a point would take: a corner ("tl" …), the "inside", or nothing."""
        if self._file is None:
            return ""
        box = self.square()
        corners = {
            "tl": box.topLeft(),
            "tr": box.topRight(),
            "bl": box.bottomLeft(),
            "br": box.bottomRight(),
        }
        for name, corner in corners.items():
            if (corner - point).manhattanLength() <= _GRIP:
                return name
        return "inside" if box.contains(point) else ""

    def mousePressEvent(self, event: QMouseEvent) -> None:
        grip = self._grip_at(event.position())
        if grip and event.button() == Qt.MouseButton.LeftButton:
            self._drag = grip, event.position(), self._effective()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._drag is None:
            self._show_cursor(self._grip_at(event.position()))
            return
        grip, start, crop = self._drag
        assert self._file is not None
        where = self.picture_rect()
        moved = event.position() - start
        if grip == "inside":
            left, top = moved.x() / where.width(), moved.y() / where.height()
            self._set(crop.left + left, crop.top + top, crop.side)
        else:
            self._drag_corner(grip, moved, crop, where)

    def _drag_corner(self, grip: str, moved: QPointF, crop: Crop, where: QRectF) -> None:
        """Resize from a corner; the one across from it stays."""
        shorter = min(where.width(), where.height())
        outward = (1 if "r" in grip else -1) * moved.x(), (1 if "b" in grip else -1) * moved.y()
        most = self._room(grip, crop, where) / shorter
        side = min(max(crop.side + max(outward) / shorter, _SMALLEST), most)
        grown = (side - crop.side) * shorter
        left = crop.left - (grown / where.width() if "l" in grip else 0)
        top = crop.top - (grown / where.height() if "t" in grip else 0)
        self._set(left, top, side)

    def _room(self, grip: str, crop: Crop, where: QRectF) -> float:
        """The longest side that a square can have which keeps the corner across from `grip`."""
        shorter = min(where.width(), where.height())
        side = crop.side * shorter
        left, top = crop.left * where.width(), crop.top * where.height()
        across = where.width() - left if "r" in grip else left + side
        down = where.height() - top if "b" in grip else top + side
        return min(across, down, shorter)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._drag = None
        self._show_cursor(self._grip_at(event.position()))

    def wheelEvent(self, event: QWheelEvent) -> None:
        self.resize_by(1.05 ** (event.angleDelta().y() / 120))
        event.accept()

    def _show_cursor(self, grip: str) -> None:
        shapes = {
            "tl": Qt.CursorShape.SizeFDiagCursor,
            "br": Qt.CursorShape.SizeFDiagCursor,
            "tr": Qt.CursorShape.SizeBDiagCursor,
            "bl": Qt.CursorShape.SizeBDiagCursor,
            "inside": Qt.CursorShape.SizeAllCursor,
        }
        if grip:
            self.setCursor(shapes[grip])
        else:
            self.unsetCursor()

    def _command(self, event: QKeyEvent) -> Callable[[], Any] | None:
        step = 0.1 if event.modifiers() & Qt.KeyboardModifier.ShiftModifier else 0.02
        moves = {
            Qt.Key.Key_Left: (-step, 0.0),
            Qt.Key.Key_Right: (step, 0.0),
            Qt.Key.Key_Up: (0.0, -step),
            Qt.Key.Key_Down: (0.0, step),
        }
        key = Qt.Key(event.key())
        if key in moves:
            return lambda: self.move_by(*moves[key])
        if key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            return lambda: self.resize_by(1.1)
        if key == Qt.Key.Key_Minus:
            return lambda: self.resize_by(1 / 1.1)
        return None

    # -- painting -----------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        c = theme.colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), QColor(c.stage))
        if self._file is not None:
            where = self.picture_rect()
            if self._image.isNull():
                painter.fillRect(where, QColor(c.base))
            else:
                painter.setRenderHint(
                    QPainter.RenderHint.SmoothPixmapTransform,
                    where.width() < 2 * self._image.width(),
                )
                painter.drawImage(where, self._image)
            if self._fixed or self._crop is not None:
                self._paint_square(painter, where)
        if self.hasFocus():
            drawing.frame(painter, QRectF(self.rect()), c.accent, 1.5, -2, 5)
        painter.end()

    def _paint_square(self, painter: QPainter, where: QRectF) -> None:
        c, box = theme.colours(), self.square()
        shade_outside(painter, where, box, 0.66)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        for shade, width in ((c.stage, 3.5), (c.accent, 1.6)):
            painter.setPen(QPen(QColor(shade), width))
            painter.drawRect(box)
        painter.setPen(QPen(QColor(c.stage), 1.2))
        painter.setBrush(QColor(c.accent))
        for corner in (box.topLeft(), box.topRight(), box.bottomLeft(), box.bottomRight()):
            painter.drawEllipse(corner, 5, 5)

    def _tell(self) -> None:
        """Say to screen readers where the square is."""
        if self._file is None:
            return
        left, top, right, _ = self._effective().box(*self._file.size)
        self.setAccessibleDescription(
            self.tr("{side} pixels, from {left}, {top}").format(
                side=round(right - left), left=round(left), top=round(top)
            )
        )
