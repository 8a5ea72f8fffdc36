"""The cells of a grid as a table of pictures, with legends at the top and the left that stay in sight.

A place is (column, row) as the grid was laid; a slot is where a place is shown, for a person may drag
columns and rows into another order. Sizes are logical pixels; a zoom of 1 shows the whole table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QPointF, QRect, QRectF, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QFocusEvent,
    QFontMetricsF,
    QHelpEvent,
    QImage,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QApplication, QToolTip, QWidget

from studio.diffusion import pictures
from studio.ui import drawing, theme
from studio.ui.keys import OwnKeys

Place = tuple[int, int]

_GAP = 8
_EDGE = 10
_LEAST, _MOST = 72.0, 1024.0  # the side of a cell
_LARGEST_AT_FIRST = 288.0
_NOTCH = math.sqrt(2.0)
_SHIFTS = {
    Qt.Key.Key_Left: (-1, 0),
    Qt.Key.Key_Right: (1, 0),
    Qt.Key.Key_Up: (0, -1),
    Qt.Key.Key_Down: (0, 1),
}
_WIDEST_LEGEND = 180.0


@dataclass
class CellShown:
    """What is seen of a cell: `state` is "waiting", "making", "done" or "failed"."""

    state: str = "waiting"
    words: str = ""  # its cost, its place in the order, or why it failed
    image: QImage = field(default_factory=QImage)


@dataclass
class _Drag:
    """What the pointer holds: a "column", a "row", or a "cell" that waits; and the cell it is over."""

    what: str
    place: Place
    start: QPointF
    moving: bool = False
    over: Place | None = None


@dataclass(frozen=True)
class _Layout:
    """Where things are when nothing is scrolled: the legend's width, the corner of the first cell, from
    one cell to the next, and the height of a cell's words and of its picture at a zoom of 1."""

    legend: float = 0.0
    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0
    line: float = 0.0
    fit: float = _LEAST


class GridView(OwnKeys, QAbstractScrollArea):
    """Arrows move from cell to cell, Enter asks for a cell to be made next; + and - zoom, Ctrl+0 shows
    all. The wheel scrolls, with Ctrl it zooms. Legends are dragged to arrange columns and rows, as Ctrl
    and arrows do; a cell that waits is dragged onto another to come before it, as Page Up and Page Down
    let it come earlier or later.
    """

    chosen = Signal(int, int)  # column, row
    wanted_next = Signal(int, int)
    wanted_before = Signal(object, object)  # a place, and that before which it is wanted
    wanted_sooner = Signal(object, int)  # a place, and by how many numbers
    arranged = Signal(tuple, tuple)  # columns and rows, in the order in which they are shown

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("gridView")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setFrameShape(QAbstractScrollArea.Shape.NoFrame)
        self.viewport().setMouseTracking(True)
        self.setMinimumSize(260, 200)
        self._across: tuple[str, ...] = ()
        self._down: tuple[str, ...] = ()
        self._cells: dict[Place, CellShown] = {}
        self._columns: list[int] = []  # in the order in which they are shown
        self._rows: list[int] = []
        self._drag: _Drag | None = None
        self._aspect = 1.0
        self._zoom = 1.0
        self._layout = _Layout()
        self.current: Place | None = None
        self._empty = ("", "")
        self._speech = QTimer(self, singleShot=True, interval=300)
        self._speech.timeout.connect(self._tell)
        self._tell()

    # -- what is shown ------------------------------------------------------------------------------

    def lay(self, across: tuple[str, ...], down: tuple[str, ...]) -> None:
        """Begin a table with these legends, of cells that wait."""
        self._across, self._down = across, down
        places = [(column, row) for row in range(len(down)) for column in range(len(across))]
        self._cells = {place: CellShown() for place in places}
        self._columns, self._rows = list(range(len(across))), list(range(len(down)))
        self._drag = None
        self.current, self._zoom, self._aspect = None, 1.0, 1.0
        self._arrange()
        self._speech.start()

    def clear(self, title: str, body: str) -> None:
        """No table, but these words."""
        self._empty = title, body
        self.lay((), ())

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(self._cells)

    def cell(self, place: Place) -> CellShown:
        """What is seen of a cell."""
        return self._cells[place]

    def show_cell(
        self, place: Place, state: str, words: str = "", stack: np.ndarray | None = None
    ) -> None:
        """Show the state of a cell, and its pictures, uint8 (N, H, W, C), if there are new ones."""
        cell = self._cells[place]
        cell.state, cell.words = state, words
        if stack is not None:
            self.show_pictures(place, stack)
        self._refresh(place)

    def show_pictures(self, place: Place, stack: np.ndarray) -> None:
        """Show other pictures in a cell, uint8 (N, H, W, C)."""
        cell, sheet = self._cells[place], pictures.grid(stack)
        cell.image = drawing.image_of(sheet)
        aspect = sheet.shape[1] / sheet.shape[0]
        if aspect != self._aspect and all(
            c.image.isNull() or c is cell for c in self._cells.values()
        ):
            self._aspect = aspect
            self._arrange()
        self._refresh(place)

    def empty(self, place: Place) -> None:
        """Show no picture in a cell, but its words."""
        self._cells[place].image = QImage()
        self._refresh(place)

    def choose(self, place: Place) -> None:
        """Put the ring around a cell, bring it into view and say so."""
        self.current = place
        self._reveal(place)
        self.viewport().update()
        self._speech.start()
        self.chosen.emit(*place)

    def _refresh(self, place: Place) -> None:
        self.viewport().update(self.rect_of(place).toAlignedRect().adjusted(-4, -4, 4, 4))
        if place == self.current:
            self._speech.start()

    # -- geometry -----------------------------------------------------------------------------------

    @property
    def zoom(self) -> float:
        return self._zoom

    def zoom_by(self, factor: float, at: QPointF | None = None) -> None:
        """Zoom around a point of the view, its middle if None; not below the whole table."""
        if not self._cells:
            return
        spot = at if at is not None else QRectF(self.viewport().rect()).center()
        bars = self.horizontalScrollBar(), self.verticalScrollBar()
        points, at_first = (spot.x(), spot.y()), self._layout
        starts, pitches = (at_first.left, at_first.top), (at_first.width, at_first.height)
        grasped = [
            (point - start + bar.value()) / pitch
            for point, start, bar, pitch in zip(points, starts, bars, pitches)
        ]
        most = max(1.0, _MOST / at_first.fit)
        self._zoom = min(max(self._zoom * factor, 1.0), most)
        self._arrange()
        now = self._layout
        starts, pitches = (now.left, now.top), (now.width, now.height)
        for share, point, start, bar, pitch in zip(grasped, points, starts, bars, pitches):
            bar.setValue(round(share * pitch - point + start))

    def zoom_to_fit(self) -> None:
        """Show the whole table, as far as its cells stay large enough to see."""
        self._zoom = 1.0
        self._arrange()

    def rect_of(self, place: Place) -> QRectF:
        """Where a cell is in the viewport, its words below its picture included."""
        at = self._layout
        column, row = self._columns.index(place[0]), self._rows.index(place[1])
        x = at.left + column * at.width - self.horizontalScrollBar().value()
        y = at.top + row * at.height - self.verticalScrollBar().value()
        return QRectF(round(x), round(y), round(at.width - _GAP), round(at.height - _GAP))

    def place_at(self, point: QPointF) -> Place | None:
        """The cell under a point of the viewport; None on the legends and between cells."""
        at = self._layout
        if point.x() < at.left or point.y() < at.top:
            return None
        column, row = self._slot_at(point)
        if column not in range(len(self._columns)) or row not in range(len(self._rows)):
            return None
        place = self._columns[column], self._rows[row]
        return place if self.rect_of(place).contains(point) else None

    def _slot_at(self, point: QPointF) -> tuple[int, int]:
        """The slot under a point, as if there were slots everywhere."""
        at = self._layout
        column = int((point.x() - at.left + self.horizontalScrollBar().value()) // at.width)
        row = int((point.y() - at.top + self.verticalScrollBar().value()) // at.height)
        return column, row

    def _measure(self) -> _Layout:
        """The layout for the size of the view and the zoom; a table with room to spare is centred."""
        metrics = QFontMetricsF(theme.font(self.font()))
        widest = max((metrics.horizontalAdvance(text) for text in self._down), default=0.0)
        legend = math.ceil(min(widest, _WIDEST_LEGEND) + 2 * _EDGE) if widest else _EDGE
        top = math.ceil(metrics.height() + 14) if any(self._across) else _EDGE
        line = math.ceil(QFontMetricsF(theme.font(self.font(), 0.85)).height()) + 4
        columns, rows = max(1, len(self._across)), max(1, len(self._down))
        view = self.viewport()
        wide = (view.width() - legend - _EDGE) / columns - _GAP
        high = (view.height() - top - _EDGE) / rows - _GAP - line
        fit = min(max(min(wide / self._aspect, high), _LEAST), _LARGEST_AT_FIRST)
        # Rounded down, so that a table that fits needs no scroll bar.
        width = int(fit * self._zoom * self._aspect) + _GAP
        height = int(fit * self._zoom) + line + _GAP
        spare = max(0, view.width() - legend - columns * width - _EDGE)
        return _Layout(legend, legend + round(spare / 2), top, width, height, line, fit)

    def _arrange(self) -> None:
        at = self._layout = self._measure()
        wide = at.legend + len(self._across) * at.width + _EDGE
        high = at.top + len(self._down) * at.height + _EDGE
        for bar, whole, room in (
            (self.horizontalScrollBar(), wide, self.viewport().width()),
            (self.verticalScrollBar(), high, self.viewport().height()),
        ):
            bar.setRange(0, max(0, round(whole - room)) if self._cells else 0)
            bar.setPageStep(max(1, room))
            bar.setSingleStep(24)
        self.viewport().update()

    def _reveal(self, place: Place) -> None:
        at, box = self._layout, self.rect_of(place)
        view = QRectF(self.viewport().rect()).adjusted(at.left, at.top, 0, 0)
        for bar, low, high, start, end in (
            (self.horizontalScrollBar(), box.left(), box.right(), view.left(), view.right()),
            (self.verticalScrollBar(), box.top(), box.bottom(), view.top(), view.bottom()),
        ):
            moved = min(0.0, low - start) or max(0.0, high + _GAP - end)
            bar.setValue(bar.value() + round(moved))

    # -- a person -----------------------------------------------------------------------------------

    def _command(self, event: QKeyEvent) -> Callable[[], Any] | None:
        """What a key does here, or None if it is somebody else's."""
        if not self._cells:
            return None
        key, mods = event.key(), event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if mods == Qt.KeyboardModifier.ControlModifier:
            if key == Qt.Key.Key_0:
                return self.zoom_to_fit
            if (by := _SHIFTS.get(Qt.Key(key))) is not None and self.current is not None:
                return lambda: self._shift(*by)
        larger = event.matches(QKeySequence.StandardKey.ZoomIn)
        if larger or key in (Qt.Key.Key_Plus, Qt.Key.Key_Equal):
            return lambda: self.zoom_by(_NOTCH)
        if event.matches(QKeySequence.StandardKey.ZoomOut) or key == Qt.Key.Key_Minus:
            return lambda: self.zoom_by(1 / _NOTCH)
        if mods != Qt.KeyboardModifier.NoModifier:
            return None
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            place = self.current
            return None if place is None else lambda: self.wanted_next.emit(*place)
        place = self.current
        if key in (Qt.Key.Key_PageUp, Qt.Key.Key_PageDown):
            by = -1 if key == Qt.Key.Key_PageUp else 1
            return None if place is None else lambda: self.wanted_sooner.emit(place, by)
        moves = {
            Qt.Key.Key_Left: (-1, 0),
            Qt.Key.Key_Right: (1, 0),
            Qt.Key.Key_Up: (0, -1),
            Qt.Key.Key_Down: (0, 1),
            Qt.Key.Key_Home: (-len(self._across), -len(self._down)),
            Qt.Key.Key_End: (len(self._across), len(self._down)),
        }
        move = moves.get(Qt.Key(key))
        return None if move is None else lambda: self._walk(*move)

    def _walk(self, across: int, down: int) -> None:
        if self.current is None:
            self.choose((self._columns[0], self._rows[0]))
            return
        column = self._columns.index(self.current[0]) + across
        row = self._rows.index(self.current[1]) + down
        column = min(max(column, 0), len(self._columns) - 1)
        row = min(max(row, 0), len(self._rows) - 1)
        if (there := (self._columns[column], self._rows[row])) != self.current:
            self.choose(there)

    # -- another order ------------------------------------------------------------------------------

    def _shift(self, across: int, down: int) -> None:
        """Move the column or the row of the current cell by one."""
        assert self.current is not None
        column = self._columns.index(self.current[0]) + across
        row = self._rows.index(self.current[1]) + down
        if across:
            self._put(self._columns, self.current[0], column)
        else:
            self._put(self._rows, self.current[1], row)
        self._reveal(self.current)
        self._tell_arranged()

    def _put(self, order: list[int], number: int, slot: int) -> None:
        """Show a column or row in another slot."""
        slot = min(max(slot, 0), len(order) - 1)
        if order[slot] != number:
            order.remove(number)
            order.insert(slot, number)
            self.viewport().update()

    def _tell_arranged(self) -> None:
        self.arranged.emit(tuple(self._columns), tuple(self._rows))

    def _grasp(self, point: QPointF) -> _Drag | None:
        """What a press takes hold of."""
        at, (column, row) = self._layout, self._slot_at(point)
        if not self._cells:
            return None
        above, beside = point.y() < at.top, point.x() < at.left
        if above and not beside and column in range(len(self._columns)) and any(self._across):
            return _Drag("column", (self._columns[column], self._rows[0]), point)
        if beside and not above and row in range(len(self._rows)) and any(self._down):
            return _Drag("row", (self._columns[0], self._rows[row]), point)
        place = self.place_at(point)
        waits = place is not None and self._cells[place].state == "waiting"
        return _Drag("cell", place, point) if place is not None and waits else None

    def _dragged(self, drag: _Drag, point: QPointF) -> None:
        far = (point - drag.start).manhattanLength() >= QApplication.startDragDistance()
        drag.moving = drag.moving or far
        if not drag.moving:
            return
        self.viewport().setCursor(Qt.CursorShape.ClosedHandCursor)
        column, row = self._slot_at(point)
        if drag.what == "column":
            self._put(self._columns, drag.place[0], column)
        elif drag.what == "row":
            self._put(self._rows, drag.place[1], row)
        else:
            place = self.place_at(point)
            waits = place is not None and self._cells[place].state == "waiting"
            drag.over = place if waits and place != drag.place else None
            self.viewport().update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() != Qt.MouseButton.LeftButton:
            return
        self._drag = self._grasp(event.position())
        if (place := self.place_at(event.position())) is not None:
            self.choose(place)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._drag is not None and event.buttons() & Qt.MouseButton.LeftButton:
            self._dragged(self._drag, event.position())
            return
        grasped = self._grasp(event.position())
        hand = grasped is not None and grasped.what != "cell"
        shape = Qt.CursorShape.OpenHandCursor if hand else Qt.CursorShape.ArrowCursor
        self.viewport().setCursor(shape)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        drag, self._drag = self._drag, None
        if drag is None or not drag.moving:
            return
        self.viewport().setCursor(Qt.CursorShape.ArrowCursor)
        self.viewport().update()
        if drag.what != "cell":
            self._tell_arranged()
        elif drag.over is not None:
            self.wanted_before.emit(drag.place, drag.over)

    # -- the rest of a person -----------------------------------------------------------------------

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        place = self.place_at(event.position())
        if event.button() == Qt.MouseButton.LeftButton and place is not None:
            self.wanted_next.emit(*place)

    def wheelEvent(self, event: QWheelEvent) -> None:
        turned = event.angleDelta().y()
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier and turned:
            self.zoom_by(_NOTCH ** (turned / 120), event.position())
            event.accept()
        else:
            super().wheelEvent(event)

    def viewportEvent(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent):
            place, grasped = self.place_at(QPointF(event.pos())), self._grasp(QPointF(event.pos()))
            text = "" if place is None else self._words(place)
            if grasped is not None and grasped.what != "cell":
                text = self.tr("Drag it to another place (Ctrl with an arrow)")
            elif grasped is not None:
                text += "\n" + self.tr("Drag it onto another that waits, to come before it")
            QToolTip.showText(event.globalPos(), text, self.viewport())
            return True
        return super().viewportEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange()

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        # Not scrolled as they are: the legends stay.
        self.viewport().update()

    def focusInEvent(self, event: QFocusEvent) -> None:
        self.viewport().update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        self.viewport().update()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self._arrange()
        super().changeEvent(event)

    # -- painting -----------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self.viewport())
        c = theme.colours()
        painter.fillRect(event.rect(), QColor(c.stage))
        if self._cells:
            left, top = self._layout.left, self._layout.top
            painter.save()
            painter.setClipRect(QRectF(self.viewport().rect()).adjusted(left - 4, top - 4, 0, 0))
            for place in self._touched(event.rect()):
                box, ringed = self.rect_of(place), place == self.current
                self._paint_cell(painter, box, self._cells[place], ringed)
            painter.restore()
            if event.rect().left() < left or event.rect().top() < top:
                self._paint_legends(painter)
        else:
            rect = self.viewport().rect()
            drawing.empty_state(painter, rect, self.font(), *self._empty, illustrated=True)
        if self.hasFocus() and self.current is None:
            inner = QRectF(self.viewport().rect()).adjusted(3, 3, -3, -3)
            drawing.frame(painter, inner, c.accent, 1.5, -1.5, 5)
        painter.end()

    def _touched(self, rect: QRect) -> list[Place]:
        """The cells that a part of the viewport shows something of, their rings included."""
        at, x, y = self._layout, self.horizontalScrollBar(), self.verticalScrollBar()
        spans = []
        for low, high, start, pitch, count in (
            (rect.left() + x.value(), rect.right() + x.value(), at.left, at.width, self._across),
            (rect.top() + y.value(), rect.bottom() + y.value(), at.top, at.height, self._down),
        ):
            first = max(0, int((low - 4 - start) // pitch))
            last = min(len(count) - 1, int((high + 4 - start) // pitch))
            spans.append(range(first, last + 1))
        return [(self._columns[c], self._rows[r]) for r in spans[1] for c in spans[0]]

    def _paint_cell(self, painter: QPainter, box: QRectF, cell: CellShown, ringed: bool) -> None:
        c, small = theme.colours(), theme.font(self.font(), 0.85)
        tile = box.adjusted(0, 0, 0, -self._layout.line)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(c.danger_soft if cell.state == "failed" else c.window))
        painter.drawRoundedRect(tile, 4, 4)
        if not cell.image.isNull():
            where = _draw(painter, tile, cell.image)
            drawing.frame(painter, where, c.line, 1, 0, 2)
        else:
            drawing.frame(painter, tile, c.line, 1, -1, 4)
        ink = {"failed": c.danger, "making": c.text}.get(cell.state, c.muted)
        painter.setPen(QColor(ink))
        painter.setFont(small)
        if cell.image.isNull():
            flags = int(Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap)
            painter.save()
            painter.setClipRect(tile, Qt.ClipOperation.IntersectClip)
            painter.drawText(tile.adjusted(6, 4, -6, -4), flags, cell.words)
            painter.restore()
        else:
            words = QRectF(box.left(), tile.bottom() + 2, box.width(), self._layout.line - 2)
            elide = Qt.TextElideMode.ElideRight
            text = QFontMetricsF(small).elidedText(cell.words, elide, words.width())
            painter.drawText(words, Qt.AlignmentFlag.AlignCenter, text)
        if ringed:
            colour = c.accent if self.hasFocus() else c.muted
            drawing.frame(painter, tile, colour, 2, 0.5, 5)
        elif cell.state == "making":
            drawing.frame(painter, tile, c.accent, 1, 0.5, 5)
        over = None if self._drag is None else self._drag.over
        if over is not None and self._cells[over] is cell:
            drawing.frame(painter, tile, c.accent, 3, 1.5, 5)

    def _paint_legends(self, painter: QPainter) -> None:
        c, plain = theme.colours(), theme.font(self.font())
        left, top, wide = self._layout.left, self._layout.top, self._layout.legend
        view, metrics = QRectF(self.viewport().rect()), QFontMetricsF(plain)
        elide = Qt.TextElideMode.ElideMiddle
        painter.setFont(plain)
        painter.fillRect(QRectF(0, 0, view.width(), top - 4), QColor(c.stage))
        painter.fillRect(QRectF(0, 0, left - 4, view.height()), QColor(c.stage))
        held = self._drag if self._drag is not None and self._drag.moving else None
        painter.save()
        painter.setClipRect(QRectF(left - 4, 0, view.width(), top))
        for column, text in enumerate(self._across):
            taken = held is not None and held.what == "column" and held.place[0] == column
            painter.setPen(QColor(c.accent if taken else c.text))
            box = self.rect_of((column, self._rows[0]))
            words = metrics.elidedText(text, elide, box.width() + _GAP - 4)
            room = QRectF(box.left() - _GAP / 2, 0, box.width() + _GAP, top)
            painter.drawText(room, Qt.AlignmentFlag.AlignCenter, words)
        painter.restore()
        painter.setClipRect(QRectF(0, top - 4, left, view.height()))
        for row, text in enumerate(self._down):
            taken = held is not None and held.what == "row" and held.place[1] == row
            painter.setPen(QColor(c.accent if taken else c.text))
            box = self.rect_of((self._columns[0], row)).adjusted(0, 0, 0, -self._layout.line)
            words = metrics.elidedText(text, elide, wide - 2 * _EDGE + 1)
            room = QRectF(left - wide + _EDGE, box.top(), wide - 2 * _EDGE + 2, box.height())
            painter.drawText(room, Qt.AlignmentFlag.AlignVCenter, words)
        painter.setClipping(False)

    # -- for those who listen -----------------------------------------------------------------------

    def _words(self, place: Place) -> str:
        """All that is known of a cell."""
        cell = self._cells[place]
        legend = (self._across[place[0]], self._down[place[1]])
        return "\n".join(text for text in (*legend, cell.words) if text)

    def _tell(self) -> None:
        """Tell screen readers what is shown; at most a few times a second."""
        if not self._cells:
            self.setAccessibleName(self._empty[0] or self.tr("Grid"))
            self.setAccessibleDescription(self._empty[1])
            return
        count = self.tr("Grid of {columns} by {rows} cells").format(
            columns=len(self._across), rows=len(self._down)
        )
        self.setAccessibleName(count)
        told = "" if self.current is None else self._words(self.current).replace("\n", ", ")
        self.setAccessibleDescription(told)


def _draw(painter: QPainter, box: QRectF, image: QImage) -> QRectF:
    """Draw an image whole and centred in `box`, its pixels as they are when they are large; where it
    went."""
    ratio = painter.device().devicePixelRatio()
    scale = min(box.width() / image.width(), box.height() / image.height())
    width, height = round(image.width() * scale), round(image.height() * scale)
    corner = box.center() - QPointF(width / 2, height / 2)
    where = QRectF(round(corner.x()), round(corner.y()), width, height)
    painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, scale * ratio < drawing.CRISP)
    painter.drawImage(where, image)
    return where
