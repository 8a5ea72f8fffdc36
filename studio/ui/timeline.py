"""The run on a noise axis: a filmstrip from noise (left) to clean (right) that can be scrubbed.

The axis is log-SNR, ln(a²/s²), because step numbers mean nothing across samplers. The noise level
shown is sigma = s/a = exp(-log-SNR / 2). The playhead follows the run ("live") until a person
takes it, and always stands on a kept frame, so that what it says is what is seen.
"""

from __future__ import annotations

import bisect
import math

import numpy as np
from PySide6.QtCore import QEvent, QLocale, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFontMetricsF,
    QHelpEvent,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
)
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from studio.ui import drawing, theme
from studio.ui.keys import OwnKeys

_STRIP = 52  # height of the filmstrip
_TOP = 6
_RAIL = _TOP + _STRIP + 8
_SIDE = 12
_LIVE = 64  # width of the live button's column
_KEPT = 1024


class Timeline(OwnKeys, QWidget):
    """Keys: left and right (also , and .) go from frame to frame, Page Up and Page Down in larger
    steps, Home to the first frame, End back to live."""

    scrubbed = Signal(float)  # the log-SNR of the kept frame a person asks for
    live_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("timeline")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setMinimumWidth(300)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(96)
        self._low, self._high = -1.0, 1.0
        self._ready = False
        self._times: list[float] = []
        self._thumbs: list[QImage] = []
        self._live: float | None = None
        self._playhead: float | None = None
        self._scrubbing = False
        self._hover: QPointF | None = None
        self._strip = QImage()
        self._strip_of: tuple[object, ...] = ()  # what the kept drawing of the filmstrip shows
        self._version = 0
        self.setAccessibleName(self.tr("Timeline"))
        self.setToolTip(self.tr("Drag to look back at any moment; the run goes on."))
        self._tell()

    # ---- what is shown ------------------------------------------------------------------------

    def begin(self, low: float, high: float) -> None:
        """Start a new run from log-SNR `low` (noise) to `high` (clean)."""
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"the axis runs from noise to clean, not from {low} to {high}")
        self._low, self._high, self._ready = low, high, True
        self._times, self._thumbs = [], []
        self._version += 1
        self._live = self._playhead = None
        self._scrubbing = False
        self._tell()
        self.update()

    def clear(self) -> None:
        """Back to the empty state."""
        self.begin(-1.0, 1.0)
        self._ready = False
        self.update()

    def add(self, log_snr: float, thumbnail: np.ndarray) -> None:
        """Keep a uint8 frame (H, W, C); one at the same log-SNR takes the place of the last."""
        when = self._held(log_snr)
        image = drawing.image_of(thumbnail)
        if max(image.width(), image.height()) > 2 * _STRIP:
            image = image.scaled(
                2 * _STRIP,
                2 * _STRIP,
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            )
        at = bisect.bisect_left(self._times, when)
        if at < len(self._times) and self._times[at] == when:
            self._thumbs[at] = image
        else:
            self._times.insert(at, when)
            self._thumbs.insert(at, image)
        self._version += 1
        if len(self._times) > _KEPT:
            self._times, self._thumbs = self._times[::2], self._thumbs[::2]
        self.update()

    def set_live(self, log_snr: float) -> None:
        """Where the run is now."""
        before, self._live = self._live, self._held(log_snr)
        if before is None and self._playhead is None:
            self._tell()
        if before is None or abs(self.x_of(before) - self.x_of(self._live)) > 0.2:
            self.update()

    def set_playhead(self, log_snr: float | None) -> None:
        """Which moment is looked at; None follows the run. Emits nothing."""
        self._playhead = None if log_snr is None else self._held(log_snr)
        self._tell()
        self.update()

    @property
    def playhead(self) -> float | None:
        """The log-SNR looked at; None while following the run."""
        return self._playhead

    @property
    def times(self) -> list[float]:
        """The log-SNR of every kept frame, rising."""
        return list(self._times)

    def _held(self, log_snr: float) -> float:
        """Within the axis; noise of unbounded size lies at its end."""
        return self._low if math.isnan(log_snr) else min(max(log_snr, self._low), self._high)

    def _head(self) -> float:
        """The last moment that can be looked at."""
        last = self._times[-1] if self._times else self._low
        return last if self._live is None else max(self._live, last)

    def _tell(self) -> None:
        """Describe the playhead to screen readers."""
        if self._playhead is not None:
            self.setAccessibleDescription(self._words(self._playhead))
        elif self._live is not None:
            self.setAccessibleDescription(self.tr("Following the run"))
        else:
            self.setAccessibleDescription(self.tr("No run yet"))

    def _words(self, log_snr: float) -> str:
        sigma = math.exp(-log_snr / 2)
        return self.tr("log-SNR {0} · σ {1}").format(_number(log_snr, 1), _significant(sigma))

    # ---- geometry -----------------------------------------------------------------------------

    def sizeHint(self) -> QSize:
        return QSize(640, 96)

    def _axis(self) -> tuple[float, float]:
        """Left end and width of the axis."""
        return _SIDE, max(1.0, self.width() - 2 * _SIDE - _LIVE)

    def x_of(self, log_snr: float) -> float:
        """The x coordinate of a log-SNR."""
        left, width = self._axis()
        return left + (self._held(log_snr) - self._low) / (self._high - self._low) * width

    def log_snr_at(self, x: float) -> float:
        """The log-SNR at an x coordinate, within the axis."""
        left, width = self._axis()
        return self._held(self._low + (x - left) / width * (self._high - self._low))

    def live_area(self) -> QRectF:
        """The button at the right that goes back to the run."""
        return QRectF(self.width() - _LIVE - 2, _TOP + _STRIP / 2 - 13, _LIVE - 6, 26)

    def _nearest(self, log_snr: float) -> int:
        """Index of the kept frame closest to a log-SNR; there must be one."""
        at = bisect.bisect_left(self._times, log_snr)
        near = range(max(0, at - 1), min(len(self._times), at + 1))
        return min(near, key=lambda i: abs(self._times[i] - log_snr))

    # ---- mouse and keys -----------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() != Qt.MouseButton.LeftButton or not self._times:
            return
        if event.position().x() >= self.width() - _LIVE:
            self._go_live()
        else:
            self._scrubbing = True
            self._scrub(self.log_snr_at(event.position().x()))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._hover = event.position()
        if self._scrubbing:
            self._scrub(self.log_snr_at(event.position().x()))
        self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._scrubbing = False

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and self._times:
            self._scrubbing = False
            self._go_live()

    def leaveEvent(self, event: QEvent) -> None:
        self._hover = None
        self.update()

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and self._times:
            self._help(event)
            return True
        return super().event(event)

    def _help(self, event: QHelpEvent) -> None:
        x = float(event.pos().x())
        if x >= self.width() - _LIVE:
            text = self.tr("Follow the run again (End)")
        else:
            text = self._words(self._times[self._nearest(self.log_snr_at(x))])
        QToolTip.showText(event.globalPos(), text, self)

    def _command(self, event: QKeyEvent):
        """What a key does here, or None if it is somebody else's."""
        mods = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if not self._times or mods != Qt.KeyboardModifier.NoModifier:
            return None
        leap = max(1, len(self._times) // 10)
        moves = {
            Qt.Key.Key_Left: -1,
            Qt.Key.Key_Comma: -1,
            Qt.Key.Key_Right: 1,
            Qt.Key.Key_Period: 1,
            Qt.Key.Key_PageUp: -leap,
            Qt.Key.Key_PageDown: leap,
            Qt.Key.Key_Home: -len(self._times),
        }
        if event.key() == Qt.Key.Key_End:
            return self._go_live
        count = moves.get(Qt.Key(event.key()))
        return None if count is None else lambda: self._walk(count)

    def _walk(self, count: int) -> None:
        """Go on by kept frames; past the last one lies the run itself."""
        if self._playhead is None:
            if count > 0:
                return
            at = len(self._times) - 1
            # Live stands on the newest frame, unless the run is already past it.
            at += self._live is not None and self._live > self._times[-1]
        else:
            at = self._nearest(self._playhead)
        if at + count >= len(self._times):
            self._go_live()
        else:
            self._scrub(self._times[max(0, at + count)])

    def _scrub(self, log_snr: float) -> None:
        when = self._times[self._nearest(log_snr)]
        if when != self._playhead:
            self.set_playhead(when)
            self.scrubbed.emit(when)

    def _go_live(self) -> None:
        self.set_playhead(None)
        self.live_requested.emit()

    # ---- painting -----------------------------------------------------------------------------

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self.update()
        super().changeEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self._ready:
            self._paint_strip(painter)
            self._paint_rail(painter)
            self._paint_ticks(painter)
            self._paint_live(painter)
            self._paint_playhead(painter)
        else:
            title = self.tr("The run will be laid out here")
            body = self.tr("From noise on the left to the clean picture on the right.")
            drawing.empty_state(painter, self.rect(), self.font(), title, body)
        if self.hasFocus():
            box = QRectF(self.rect()).adjusted(1, 1, -1, -1)
            drawing.frame(painter, box, theme.colours().accent, 1.5, -1.5, 6)
        painter.end()

    def _slots(self) -> list[QRectF]:
        """Where thumbnails go: as many as fit, in the shape of the frames."""
        left, width = self._axis()
        first = self._thumbs[0] if self._thumbs else None
        aspect = first.width() / first.height() if first is not None else 1.0
        side = min(max(_STRIP * aspect, 28.0), 120.0)
        count = max(1, int((width + 3) // (side + 3)))
        pitch = (width + 3) / count
        return [QRectF(round(left + i * pitch), _TOP, int(pitch) - 3, _STRIP) for i in range(count)]

    def _paint_strip(self, painter: QPainter) -> None:
        """The filmstrip, drawn anew only when something in it changed."""
        slots, head, ratio = self._slots(), self._head(), self.devicePixelRatioF()
        shown = sum(1 for slot in slots if self._reached(slot, head))
        wanted = (self._version, shown, self.width(), ratio, theme.is_dark())
        if wanted != self._strip_of:
            size = QSize(round(self.width() * ratio), round((_TOP + _STRIP + 2) * ratio))
            self._strip = QImage(size, QImage.Format.Format_ARGB32_Premultiplied)
            self._strip.setDevicePixelRatio(ratio)
            self._strip.fill(Qt.GlobalColor.transparent)
            self._draw_slots(slots, head)
            self._strip_of = wanted
        painter.drawImage(QPointF(0, 0), self._strip)

    def _reached(self, slot: QRectF, head: float) -> bool:
        """Whether the run came as far as a slot; its first frame fills the slot it lies in."""
        if not self._times:
            return False
        middle = self.log_snr_at(slot.center().x())
        return middle <= head or slot.left() <= self.x_of(self._times[0])

    def _draw_slots(self, slots: list[QRectF], head: float) -> None:
        c = theme.colours()
        painter = QPainter(self._strip)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for slot in slots:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(c.stage))
            painter.drawRoundedRect(slot, 4, 4)
            if self._reached(slot, head):
                image = self._thumbs[self._nearest(self.log_snr_at(slot.center().x()))]
                where = drawing.draw_fitting(painter, slot, image)
                drawing.frame(painter, where, c.line, 1, 0, 2)
        painter.end()

    def _paint_rail(self, painter: QPainter) -> None:
        c = theme.colours()
        left, width = self._axis()
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(c.line))
        painter.drawRoundedRect(QRectF(left, _RAIL, width, 4), 2, 2)
        reached = self.x_of(self._head()) - left
        if self._times or self._live is not None:
            painter.setBrush(QColor(c.accent))
            painter.drawRoundedRect(QRectF(left, _RAIL, max(4.0, reached), 4), 2, 2)
        # Small dots where frames are kept, unless they would run together.
        if len(self._times) * 9 < width:
            painter.setBrush(QColor(c.on_accent))
            for when in self._times:
                painter.drawEllipse(QPointF(self.x_of(when), _RAIL + 2), 1.1, 1.1)

    def _paint_ticks(self, painter: QPainter) -> None:
        c = theme.colours()
        small = theme.font(self.font(), 0.85)
        metrics = QFontMetricsF(small)
        left, width = self._axis()
        base = _RAIL + 8 + metrics.ascent()
        painter.setFont(small)
        noise, clean = self.tr("noise"), self.tr("clean")
        painter.setPen(QColor(c.text))
        painter.drawText(QPointF(left, base), noise)
        painter.drawText(QPointF(left + width - metrics.horizontalAdvance(clean), base), clean)
        taken = [
            (left, left + metrics.horizontalAdvance(noise)),
            (left + width - metrics.horizontalAdvance(clean), left + width),
        ]
        painter.setPen(QColor(c.muted))
        for value in _ticks(self._low, self._high):
            text, x = _number(value, 0 if value == int(value) else 1), self.x_of(value)
            half = metrics.horizontalAdvance(text) / 2
            if all(x + half + 10 < a or x - half - 10 > b for a, b in taken):
                painter.drawText(QPointF(x - half, base), text)
                taken.append((x - half, x + half))

    def _paint_live(self, painter: QPainter) -> None:
        c, box = theme.colours(), self.live_area()
        following = self._playhead is None
        running = self._live is not None
        hovered = self._hover is not None and self._hover.x() >= self.width() - _LIVE
        painter.setPen(QPen(QColor(c.accent if following and running else c.edge), 1))
        painter.setBrush(QColor(c.accent_soft if following and running else c.raised))
        if hovered and not following:
            painter.setBrush(QColor(c.hover))
        painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 13, 13)
        ink = QColor(c.text if running else c.muted)
        font = theme.font(self.font(), 0.85, strong=following and running)
        text = self.tr("Live")
        width = QFontMetricsF(font).horizontalAdvance(text)
        start = box.center().x() - (width + 12) / 2
        dot = QPointF(start + 3, box.center().y())
        painter.setPen(QPen(QColor(c.accent if running else c.muted), 1.4))
        filled = following and running
        painter.setBrush(QColor(c.accent) if filled else Qt.BrushStyle.NoBrush)
        painter.drawEllipse(dot, 3, 3)
        painter.setPen(ink)
        painter.setFont(font)
        words = QRectF(start + 12, box.top(), width + 4, box.height())
        painter.drawText(words, Qt.AlignmentFlag.AlignVCenter, text)

    def _paint_playhead(self, painter: QPainter) -> None:
        if self._playhead is None and self._live is None:
            return
        c = theme.colours()
        following = self._playhead is None
        x = round(self.x_of(self._head() if self._playhead is None else self._playhead)) + 0.5
        painter.setPen(QPen(QColor(c.stage), 4))
        painter.drawLine(QPointF(x, _TOP - 2), QPointF(x, _RAIL))
        painter.setPen(QPen(QColor(c.accent), 2))
        painter.drawLine(QPointF(x, _TOP - 2), QPointF(x, _RAIL))
        painter.setBrush(QColor(c.raised if following else c.accent))
        painter.drawEllipse(QPointF(x, _RAIL + 2), 6, 6)
        if not following:
            left, width = self._axis()
            value = self.tr("log-SNR {0}").format(_number(self._playhead or 0.0, 1))
            room = QRectF(left - 6, 0, width + 12, self.height() - 1)
            small = theme.font(self.font(), 0.85)
            drawing.plate(painter, small, value, QPointF(x, self.height()), room, strong=True)


def _ticks(low: float, high: float) -> list[float]:
    """About seven round numbers within a range."""
    rough = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _number(value: float, digits: int) -> str:
    return QLocale().toString(value + 0.0, "f", digits).replace("-", "−")


def _significant(value: float) -> str:
    return QLocale().toString(value, "g", 3)
