"""The candidates of a run: thumbnails under the canvas, formed live, and what can be done with them.

A place is *empty* until its picture begins to form, and *earlier* if its picture is of the run before,
which stays until the new run has one of its own. Pictures are uint8 arrays (N, h, w, 1 or 3).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QFocusEvent,
    QFontMetricsF,
    QHelpEvent,
    QHideEvent,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QShowEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import (
    QLabel,
    QPushButton,
    QSizePolicy,
    QToolTip,
    QVBoxLayout,
    QWidget,
)

from studio.ui import drawing, theme
from studio.ui.flow_layout import FlowLayout
from studio.ui.keys import OwnKeys

_SIDE = 72  # of a thumbnail, where there is room for it
_SMALLEST, _LARGEST = 40, 160
_PAD = 6
_NOTE = 300  # width of the note at most
_GAP = 4
_PULSE = 1.4  # seconds in which an empty place glows up and down

#: Of the note: as ordinary text, as something proved, as something to look at.
NoteTone = Literal["muted", "good", "warning"]


class CandidateStrip(QWidget):
    """Left and right flip, Enter accepts, Delete discards, a double click accepts.

    Signals tell what a person did; a picture that is discarded has left the strip by then. Nothing can be
    accepted or discarded alone while a run forms, because what is seen is not finished.
    """

    chosen = Signal(int)
    accepted = Signal(int)
    discarded = Signal(int)  # its index before it left; `chosen` follows if another takes its place
    cleared = Signal()
    more_requested = Signal()
    wipe_toggled = Signal(bool)
    doubt_toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("candidates")
        self.setAccessibleName(self.tr("Candidates"))
        self.thumbnails = _Thumbnails()
        self.setFocusProxy(self.thumbnails)
        self.note = _Note()
        self.note.setObjectName("candidateNote")
        self._held = False
        self._buttons()
        verbs = FlowLayout()
        for button in (self.accept_button, self.discard_button, self.clear_button, self.more):
            verbs.addWidget(button)
        for button in (self.wipe, self.doubt, self.note):
            verbs.addWidget(button)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addWidget(self.thumbnails, 1)
        box.addLayout(verbs)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.thumbnails.chosen.connect(self.chosen)
        self.thumbnails.accept_requested.connect(self.accept)
        self.thumbnails.discard_requested.connect(self.discard)
        self._enable()

    # ---- what is shown ------------------------------------------------------------------------

    def set_forming(self, count: int) -> None:
        """A run of `count` candidates has begun. Earlier ones stay until its first pictures come."""
        if count < 1:
            raise ValueError(f"a run forms at least one candidate, not {count}")
        self.thumbnails.begin(count)
        self._enable()

    def set_pictures(self, stack: np.ndarray) -> None:
        """Show these, uint8 (N, h, w, 1 or 3), which are copied. Made for 30 calls a second. The
        choice stays; the first picture is chosen if there was none, which `chosen` does not tell.
        """
        fits = stack.ndim == 4 and stack.shape[3] in (1, 3) and min(stack.shape[1:]) > 0
        if not fits or stack.dtype != np.uint8:
            raise ValueError(f"pictures are uint8 (N, h, w, 1 or 3), not {stack.shape}")
        self.thumbnails.show_stack(stack)
        self._enable()

    def set_captions(self, captions: list[str]) -> None:
        """A word on each picture for its tooltip: its seed."""
        self.thumbnails.set_captions(captions)

    def hold(self, on: bool) -> None:
        """What is shown is of the past: it can be looked at, and neither accepted nor discarded."""
        self._held = on
        self._enable()

    def finish(self) -> None:
        """The run is over: what it has shown is there to be accepted, and if it has shown nothing, what
        was there before. For a run that was given up halfway, `clear` leaves nothing half-formed.
        """
        self.thumbnails.end()
        self._enable()

    def clear(self) -> None:
        """Back to the empty state, without a signal."""
        self.thumbnails.clear()
        self.set_note("")
        self._enable()

    def set_note(self, text: str, tone: NoteTone = "muted") -> None:
        """A short line beside the buttons, as that the kept pixels are unchanged."""
        self.note.say(text, tone)

    def set_empty_text(self, title: str, body: str) -> None:
        """What is said while there is nothing."""
        self.thumbnails.set_empty_text(title, body)

    @property
    def count(self) -> int:
        """How many pictures there are; empty places are none."""
        return self.thumbnails.count

    @property
    def current(self) -> int | None:
        """The picture that is chosen; None while there is none."""
        return self.thumbnails.current

    @property
    def forming(self) -> bool:
        """Whether a run has begun and has not finished."""
        return self.thumbnails.forming

    def picture(self, index: int) -> np.ndarray:
        """A copy of one picture, (h, w, 1 or 3). Raises IndexError if there is none."""
        return self.thumbnails.picture(index)

    # ---- what a person does, here or with the keys of the canvas ------------------------------

    def choose(self, index: int) -> None:
        """Choose a picture; nothing happens if there is none of this index."""
        self.thumbnails.choose(index)

    def flip(self, step: int) -> None:
        """Choose the picture `step` places further, round and round."""
        self.thumbnails.flip(step)

    def accept(self) -> None:
        """Ask for the chosen picture to be accepted, if it is finished."""
        if self.current is not None and not self.forming and not self._held:
            self.accepted.emit(self.current)

    def discard(self) -> None:
        """Drop the chosen picture, if it is finished; its neighbour is chosen."""
        index = self.current
        if index is None or self.forming or self._held:
            return
        self.thumbnails.remove(index)
        self._enable()
        self.discarded.emit(index)
        if self.current is not None:
            self.chosen.emit(self.current)

    def discard_all(self) -> None:
        """Drop all pictures, and what forms."""
        self.clear()
        self.cleared.emit()

    def _buttons(self) -> None:
        self.accept_button = self._button(
            "candidateAccept",
            self.tr("Accept"),
            self.tr("Put the chosen candidate into the photo, as one step to undo (Enter)"),
            self.accept,
        )
        self.discard_button = self._button(
            "candidateDiscard",
            self.tr("Discard"),
            self.tr("Drop the chosen candidate (Del)"),
            self.discard,
        )
        self.clear_button = self._button(
            "candidateDiscardAll",
            self.tr("Discard all"),
            self.tr("Drop all candidates; the photo and the mask stay as they are"),
            self.discard_all,
        )
        self.more = self._button(
            "candidateMore",
            self.tr("More"),
            self.tr("Draw as many again, with new seeds"),
            self.more_requested.emit,
        )
        self.wipe = self._switch(
            "candidateWipe",
            self.tr("Wipe"),
            self.tr("Compare: the photo left of a line that you drag, the candidate right (W)"),
            self.wipe_toggled,
        )
        self.doubt = self._switch(
            "candidateDoubt",
            self.tr("Doubt"),
            self.tr("Show where the candidates disagree: bright is where the model is unsure"),
            self.doubt_toggled,
        )

    def _button(self, name: str, text: str, tip: str, act: Callable[[], Any]) -> QPushButton:
        button = QPushButton(text)
        button.setObjectName(name)
        button.setAccessibleName(text)
        button.setToolTip(tip)
        button.clicked.connect(lambda _=False: act())
        return button

    def _switch(self, name: str, text: str, tip: str, told: Any) -> QPushButton:
        button = QPushButton(text)
        button.setObjectName(name)
        button.setAccessibleName(text)
        button.setToolTip(tip)
        button.setCheckable(True)
        button.toggled.connect(told)
        return button

    def _enable(self) -> None:
        """What makes sense now. Switches keep their state: a live run would else undo them."""
        some = self.count > 0
        whole = some and not self.forming and not self._held
        self.accept_button.setEnabled(whole)
        self.discard_button.setEnabled(whole)
        self.more.setEnabled(whole)
        self.clear_button.setEnabled(some or self.forming)
        self.wipe.setEnabled(some)
        self.doubt.setEnabled(self.count > 1)


class _Thumbnails(OwnKeys, QWidget):
    """The row of places. It scrolls sideways where they do not all fit."""

    chosen = Signal(int)
    accept_requested = Signal()
    discard_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("candidateThumbnails")
        self.setAccessibleName(self.tr("Candidates"))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self._stack: np.ndarray | None = None
        self._images: list[QImage | None] = []  # as large as they are drawn, made when they are
        self._captions: list[str] = []
        self._current: int | None = None
        self._expected = 0  # of the run that forms; 0 while none does
        self._earlier = False
        self._half = False  # whether the pictures are of a run that has not finished
        self._hovered: int | None = None
        self._offset = 0.0
        self._empty = (
            self.tr("No candidates yet"),
            self.tr("Mark what should change and press Run."),
        )
        self._pulse = QTimer(self, interval=80)
        self._pulse.timeout.connect(self.update)
        self._tell()

    # ---- what is shown ------------------------------------------------------------------------

    @property
    def count(self) -> int:
        return 0 if self._stack is None else len(self._stack)

    @property
    def current(self) -> int | None:
        return self._current

    @property
    def forming(self) -> bool:
        return self._expected > 0

    def begin(self, count: int) -> None:
        self._expected, self._earlier = count, self.count > 0
        self._changed()

    def show_stack(self, stack: np.ndarray) -> None:
        before = (self.count, self._earlier)
        self._stack = stack.copy() if len(stack) else None
        self._images = [None] * len(stack)
        self._earlier, self._half = False, self.forming
        if self.isVisible():
            # Not left to the painting, within which it was measured to take twice as long.
            for i in range(self.count):
                self._image(i, self._side())
        if self.count:
            self._current = min(self._current or 0, self.count - 1)
        else:
            self._current = None
        if before == (self.count, False):
            self.update()
        else:
            self._changed()

    def end(self) -> None:
        if self._earlier and self._half:
            # Of a run that gave way to another one, which gave way to none: nobody's pictures.
            self._stack, self._images, self._current = None, [], None
        self._expected, self._earlier, self._half = 0, False, False
        self._changed()

    def clear(self) -> None:
        self._stack, self._images, self._captions = None, [], []
        self._current, self._offset = None, 0.0
        self.end()

    def remove(self, index: int) -> None:
        captions = [text for i, text in enumerate(self._captions) if i != index]
        if self._stack is not None:
            self.show_stack(np.delete(self._stack, index, axis=0))
        self.set_captions(captions)

    def picture(self, index: int) -> np.ndarray:
        if self._stack is None or not 0 <= index < len(self._stack):
            raise IndexError(f"there is no candidate {index}")
        return self._stack[index].copy()

    def set_captions(self, captions: list[str]) -> None:
        self._captions = list(captions)
        self._tell()

    def set_empty_text(self, title: str, body: str) -> None:
        self._empty = (title, body)
        self._tell()
        self.update()

    def choose(self, index: int) -> None:
        if 0 <= index < self.count and index != self._current:
            self._current = index
            self._reveal(index)
            self._tell()
            self.update()
            self.chosen.emit(index)

    def flip(self, step: int) -> None:
        if self.count:
            self.choose(((self._current or 0) + step) % self.count)

    def _changed(self) -> None:
        """Other places than before, or other facts about them."""
        self._hovered = None
        self._scroll(0)
        self._tell()
        self._glow()
        self.update()

    @property
    def _places(self) -> int:
        return max(self.count, self._expected)

    def _tell(self) -> None:
        """Say to screen readers what is shown, where that has changed."""
        if self._current is not None:
            told = self._about(self._current)
            if self._earlier:
                told += " · " + self.tr("of the run before; a new one has begun")
            elif self.forming:
                told += " · " + self.tr("still forming")
        elif self.forming:
            told = self.tr("%n candidates are forming", "", self._expected)
        else:
            told = ". ".join(self._empty)
        if told != self.accessibleDescription():
            self.setAccessibleDescription(told)

    def _about(self, index: int) -> str:
        """A place in words: its number, and its caption."""
        place = self.tr("Candidate {0} of {1}").format(index + 1, self._places)
        caption = self._captions[index] if index < min(self.count, len(self._captions)) else ""
        return f"{place} · {caption}" if caption else place

    # ---- geometry -----------------------------------------------------------------------------

    def sizeHint(self) -> QSize:
        return QSize(4 * (_SIDE + 2 * _PAD), round(_SIDE + 2 * _PAD + self._line()))

    def minimumSizeHint(self) -> QSize:
        return QSize(2 * _SIDE, round(_SMALLEST + 2 * _PAD + self._line()))

    def _line(self) -> float:
        """Height of the words below a thumbnail."""
        return QFontMetricsF(theme.font(self.font(), 0.85)).height() + 2

    def _side(self) -> float:
        room = self.height() - 2 * _PAD - self._line()
        return float(int(min(max(room, _SMALLEST), _LARGEST)))

    def place(self, index: int) -> QRectF:
        """Where a place lies in the widget, its words and padding included."""
        side = self._side() + 2 * _PAD
        left = index * (side + _GAP) - self._offset
        return QRectF(left, 0, side, side + self._line())

    def place_at(self, point: QPointF) -> int | None:
        """The place under a point of the widget."""
        return next((i for i in range(self._places) if self.place(i).contains(point)), None)

    def _scroll(self, by: float) -> None:
        extent = self._places * (self._side() + 2 * _PAD + _GAP) - _GAP
        offset = min(max(self._offset + by, 0.0), max(0.0, extent - self.width()))
        if offset != self._offset:
            self._offset = offset
            self.update()

    def _reveal(self, index: int) -> None:
        box = self.place(index)
        self._scroll(max(0.0, box.right() - self.width()) or min(0.0, box.left()))

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._images = [None] * self.count
        self._scroll(0)

    # ---- mouse and keys -----------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        index = self.place_at(event.position())
        if event.button() == Qt.MouseButton.LeftButton and index is not None:
            self.choose(index)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        here = self.place_at(event.position())
        if event.button() == Qt.MouseButton.LeftButton and here is not None:
            self.choose(here)
            if here == self._current:
                self.accept_requested.emit()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._hover(self.place_at(event.position()))

    def leaveEvent(self, event: QEvent) -> None:
        self._hover(None)

    def _hover(self, index: int | None) -> None:
        if index != self._hovered:
            self._hovered = index
            self.update()

    def wheelEvent(self, event: QWheelEvent) -> None:
        turned = event.angleDelta()
        self._scroll(-(turned.x() or turned.y()) / 2)
        event.accept()

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            index = self.place_at(QPointF(event.pos()))
            if index is None:
                QToolTip.hideText()
            else:
                where = self.place(index).toAlignedRect()
                QToolTip.showText(event.globalPos(), self._about(index), self, where)
            return True
        return super().event(event)

    def _command(self, event: QKeyEvent) -> Callable[[], Any] | None:
        pressed = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if not self.count or pressed != Qt.KeyboardModifier.NoModifier:
            return None
        commands: dict[int, Callable[[], Any]] = {
            Qt.Key.Key_Left: lambda: self.flip(-1),
            Qt.Key.Key_Right: lambda: self.flip(1),
            Qt.Key.Key_Home: lambda: self.choose(0),
            Qt.Key.Key_End: lambda: self.choose(self.count - 1),
            Qt.Key.Key_Return: self.accept_requested.emit,
            Qt.Key.Key_Enter: self.accept_requested.emit,
            Qt.Key.Key_Delete: self.discard_requested.emit,
        }
        return commands.get(event.key())

    # ---- painting -----------------------------------------------------------------------------

    def _glow(self) -> None:
        """Move only while there is an empty place to look at."""
        if self.count < self._expected and self.isVisible():
            self._pulse.start()
        else:
            self._pulse.stop()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._glow()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._glow()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self.update()
        super().changeEvent(event)

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        if not self._places:
            drawing.empty_state(painter, self.rect(), self.font(), *self._empty)
            if self.hasFocus():
                inner = QRectF(self.rect()).adjusted(2, 2, -2, -2)
                drawing.frame(painter, inner, theme.colours().accent, 1.5, -1.5, 6)
        for i in range(self._places):
            if self.place(i).intersects(QRectF(event.rect())):
                self._paint_place(painter, i)
        painter.end()

    def _paint_place(self, painter: QPainter, index: int) -> None:
        c, box, side = theme.colours(), self.place(index), self._side()
        spot = QRectF(box.left() + _PAD, box.top() + _PAD, side, side)
        chosen, focused = index == self._current, index == self._current and self.hasFocus()
        if chosen or index == self._hovered:
            painter.save()
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(c.accent_soft if chosen else c.hover))
            painter.drawRoundedRect(box, 7, 7)
            painter.restore()
        if focused:
            drawing.frame(painter, box, c.accent, 1.5, -1.5, 6)
        if index < self.count:
            self._paint_picture(painter, index, spot)
        else:
            self._paint_empty(painter, index, spot)
        self._paint_words(painter, index, QRectF(spot.left(), spot.bottom(), side, box.bottom()))

    def _paint_picture(self, painter: QPainter, index: int, spot: QRectF) -> None:
        c = theme.colours()
        painter.setOpacity(0.4 if self._earlier else 1.0)
        where = drawing.draw_fitting(painter, spot, self._image(index, spot.width()))
        painter.setOpacity(1.0)
        drawing.frame(painter, where, c.accent if index == self._current else c.edge, 1, 0, 2)

    def _paint_empty(self, painter: QPainter, index: int, spot: QRectF) -> None:
        """A place that waits: it glows, one after the other."""
        c = theme.colours()
        turn = time.monotonic() / _PULSE - index / 8
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QColor(c.line))
        painter.setBrush(QColor(c.stage))
        painter.drawRoundedRect(spot.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
        painter.setOpacity(0.5 + 0.5 * math.sin(2 * math.pi * turn))
        painter.setBrush(QColor(c.accent_soft))
        painter.drawRoundedRect(spot.adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
        painter.restore()

    def _paint_words(self, painter: QPainter, index: int, below: QRectF) -> None:
        c = theme.colours()
        small = theme.font(self.font(), 0.85, strong=index == self._current)
        words = str(index + 1)
        if index < self.count and self._earlier:
            words = self.tr("earlier")
        elif self.forming:
            words = self.tr("{0} forming").format(index + 1)
        line = QRectF(below.left() - _PAD, below.top() + 2, below.width() + 2 * _PAD, self._line())
        metrics = QFontMetricsF(small)
        painter.setFont(small)
        painter.setPen(QColor(c.text if index == self._current else c.muted))
        words = metrics.elidedText(words, Qt.TextElideMode.ElideRight, line.width() - 4)
        painter.drawText(line, Qt.AlignmentFlag.AlignCenter, words)

    def _image(self, index: int, side: float) -> QImage:
        """A picture as large as it is drawn. Made smaller by means, not by leaving pixels out."""
        kept = self._images[index]
        if kept is None:
            assert self._stack is not None
            kept = drawing.image_of(self._stack[index])
            most = int(side * self.devicePixelRatioF())
            if max(kept.width(), kept.height()) > most:
                kept = kept.scaled(
                    most,
                    most,
                    Qt.AspectRatioMode.KeepAspectRatio,
                    Qt.TransformationMode.SmoothTransformation,
                )
            self._images[index] = kept
        return kept


class _Note(QLabel):
    """One line of no more than a certain width: what does not fit is in its tooltip."""

    def __init__(self) -> None:
        super().__init__()
        self._tone: NoteTone = "muted"
        self.hide()

    def say(self, text: str, tone: NoteTone) -> None:
        self._tone = tone
        self.setText(text)
        self.setToolTip(text)
        self.setVisible(bool(text))
        self.update()

    def sizeHint(self) -> QSize:
        # As high as the buttons beside it, so that their words stand on one line.
        wanted = self.fontMetrics().horizontalAdvance(self.text()) + 12
        return QSize(min(wanted, _NOTE), self.fontMetrics().height() + 14)

    def minimumSizeHint(self) -> QSize:
        return QSize(0, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        room = self.rect().adjusted(8, 0, -2, 0)
        fitting = self.fontMetrics().elidedText(
            self.text(), Qt.TextElideMode.ElideRight, room.width()
        )
        painter.setPen(QColor(getattr(theme.colours(), self._tone)))
        painter.drawText(room, Qt.AlignmentFlag.AlignVCenter, fitting)
        painter.end()
