"""Thumbnails in rows, by day, as many as there are: only those in view are laid out, drawn and fetched.

The order and the headings are worked out by `by_day`, which may be called in any thread. Pictures come
later: `wanted` names those in view that are missing, `set_images` brings them.
"""

from __future__ import annotations

import bisect
import datetime
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QDate,
    QDateTime,
    QEvent,
    QItemSelection,
    QItemSelectionModel,
    QLocale,
    QMimeData,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QPointF,
    QRect,
    QRectF,
    QSize,
    Qt,
    QTimer,
    QUrl,
    Signal,
)
from PySide6.QtGui import (
    QColor,
    QDrag,
    QFontMetricsF,
    QImage,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QPolygonF,
    QRegion,
    QResizeEvent,
)
from PySide6.QtWidgets import QAbstractItemView, QListView, QWidget

from studio.engine.history import Item
from studio.ui import drawing, theme
from studio.ui.keys import OwnKeys

SIDE = 72  # of a thumbnail
_PAD = 6
_HEADING = 28
_STAR = 18  # of the place where a click gives a star
_IMAGES = 800  # kept at once; those not seen for longest go
_ID = int(Qt.ItemDataRole.UserRole)

_Index = QModelIndex | QPersistentModelIndex
_Action = QAbstractItemView.CursorAction


@dataclass(frozen=True)
class Day:
    """The results of one day are those from `start` to `stop` of the list."""

    date: datetime.date
    start: int
    stop: int


def by_day(items: Sequence[Item]) -> list[Day]:
    """The days, local time, of results that are in the order of time, the newest first."""
    dates: list[datetime.date] = []
    starts: list[int] = []
    begin = float("inf")
    for i, item in enumerate(items):
        if item.made < begin:
            date = datetime.datetime.fromtimestamp(item.made).date()
            begin = datetime.datetime.combine(date, datetime.time()).timestamp()
            dates.append(date)
            starts.append(i)
    return [Day(*day) for day in zip(dates, starts, [*starts[1:], len(items)])]


class Tiles(OwnKeys, QListView):
    """Click or Enter opens, S gives a star, Delete removes, Ctrl+S saves; several can be selected, and
    dragged out as files. `path` is the file of a result. Signals carry ids."""

    opened = Signal(str)
    star_changed = Signal(list, bool)
    remove_requested = Signal(list)
    save_requested = Signal(str)
    undo_requested = Signal()
    wanted = Signal(list)

    def __init__(self, path: Callable[[str], Path], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._path = path
        self._results = _Results(self)
        self._images: OrderedDict[str, QImage] = OrderedDict()
        self._days: list[Day] = []
        self._tops: list[int] = []
        self._columns, self._cell, self._height = 1, QSize(1, 1), 0
        self._hovered = -1
        self._pressed = -1
        self._empty = "", ""
        self._fonts = self.font(), self.font()
        self._late = QTimer(self, singleShot=True, interval=15)
        self._late.timeout.connect(self._want)
        self.setObjectName("historyTiles")
        self.setModel(self._results)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setDragEnabled(True)
        self.setDragDropMode(QAbstractItemView.DragDropMode.DragOnly)
        self.setMouseTracking(True)
        self.setMinimumSize(SIDE + 40, SIDE + 60)
        self.setAccessibleName(self.tr("History"))

    # ---- what is shown ------------------------------------------------------------------------

    def set_items(self, items: list[Item], days: list[Day]) -> None:
        """Show these, of which `days` are the days. What is selected stays so if it is there."""
        current, selected = self.current(), set(self.selected())
        self._results.show_items(items)
        self._days = days
        self._hovered = -1
        self._lay_out()
        if current or selected:
            self._select_again(current, selected)
        self._late.start()

    def set_images(self, images: dict[str, QImage]) -> None:
        """Thumbnails that were wanted."""
        for id, image in images.items():
            self._images[id] = image
            self._images.move_to_end(id)
        while len(self._images) > max(_IMAGES, 2 * len(images)):
            self._images.popitem(last=False)
        self.viewport().update()

    def set_empty_text(self, title: str, body: str) -> None:
        """What is said while there is nothing."""
        self._empty = title, body
        self.viewport().update()

    @property
    def items(self) -> list[Item]:
        return self._results.items

    def current(self) -> str:
        """The id of the marked result; empty if there is none."""
        index = self.currentIndex()
        return index.data(_ID) if index.isValid() else ""

    def selected(self) -> list[str]:
        """The ids of what is selected, in their order."""
        ranges = self.selectionModel().selection().toList()
        rows = sorted(r for some in ranges for r in range(some.top(), some.bottom() + 1))
        return [self.items[row].id for row in rows]

    def select(self, ids: Iterable[str]) -> None:
        """Select these and bring the first into view."""
        wanted = list(ids)
        self._select_again(wanted[0] if wanted else "", set(wanted))
        if self.currentIndex().isValid():
            self.scrollTo(self.currentIndex())

    def take_out(self, ids: Iterable[str]) -> None:
        """Show what is left without these; what follows them is selected."""
        going = set(ids)
        rows = [row for row, item in enumerate(self.items) if item.id in going]
        left = [item for item in self.items if item.id not in going]
        self.set_items(left, by_day(left))
        if rows and left:
            self.select([left[min(rows[0], len(left) - 1)].id])

    def set_starred(self, ids: Iterable[str], on: bool) -> None:
        """Show stars, or none, on these."""
        wanted = set(ids)
        self._results.items = [
            replace(item, starred=on) if item.id in wanted else item for item in self.items
        ]
        self.viewport().update()

    def _select_again(self, current: str, selected: set[str]) -> None:
        model, selection = self.selectionModel(), QItemSelection()
        flags = QItemSelectionModel.SelectionFlag
        rows = [row for row, item in enumerate(self.items) if item.id in selected]
        for row in rows:
            index = self._results.index(row)
            selection.select(index, index)
            if self.items[row].id == current:
                model.setCurrentIndex(index, flags.NoUpdate)
        model.select(selection, flags.ClearAndSelect)

    # ---- where things are ---------------------------------------------------------------------

    def _lay_out(self) -> None:
        # As if the scroll bar were there, so that the number of columns does not depend on itself.
        bar = self.verticalScrollBar().sizeHint().width()
        width = max(1, self.maximumViewportSize().width() - bar - _PAD)
        line = QFontMetricsF(theme.font(self.font(), 0.85)).height()
        self._columns = max(1, width // (SIDE + 2 * _PAD))
        self._cell = QSize(width // self._columns, round(SIDE + 2 * _PAD + 2 + line))
        self._tops, top = [], 0
        for day in self._days:
            self._tops.append(top)
            lines = -(-(day.stop - day.start) // self._columns)
            top += _HEADING + lines * self._cell.height() + _PAD
        self._height = top
        self.updateGeometries()
        self.viewport().update()

    def _rect(self, row: int) -> QRect:
        """Where a result is, in the whole."""
        d = bisect.bisect_right(self._days, row, key=lambda day: day.start) - 1
        line, column = divmod(row - self._days[d].start, self._columns)
        w, h = self._cell.width(), self._cell.height()
        return QRect(_PAD // 2 + column * w, self._tops[d] + _HEADING + line * h, w, h)

    def _row_at(self, point: QPoint) -> int:
        """The result nearest to a point of the whole; -1 if there is none at all."""
        if not self._days:
            return -1
        d = max(0, bisect.bisect_right(self._tops, point.y()) - 1)
        day = self._days[d]
        line = max(0, (point.y() - self._tops[d] - _HEADING) // self._cell.height())
        column = min(max(0, (point.x() - _PAD // 2) // self._cell.width()), self._columns - 1)
        return min(day.start + line * self._columns + column, day.stop - 1)

    def _days_between(self, top: int, bottom: int) -> Iterator[tuple[int, Day, range]]:
        """Every day between two heights of the whole, with its own top and those of its results that
        are between them."""
        first = max(0, bisect.bisect_right(self._tops, top) - 1)
        h, columns = self._cell.height(), self._columns
        for at, day in zip(self._tops[first:], self._days[first:]):
            if at >= bottom:
                return
            above = max(0, (top - at - _HEADING) // h) * columns
            below = max(0, -(-(bottom - at - _HEADING) // h)) * columns
            yield at, day, range(day.start + above, min(day.start + below, day.stop))

    def visualRect(self, index: _Index) -> QRect:
        if not index.isValid() or index.row() >= len(self.items):
            return QRect()
        return self._rect(index.row()).translated(0, -self.verticalOffset())

    def indexAt(self, point: QPoint) -> QModelIndex:
        point = point + QPoint(0, self.verticalOffset())
        row = self._row_at(point)
        there = row >= 0 and self._rect(row).contains(point)
        return self._results.index(row) if there else QModelIndex()

    def verticalOffset(self) -> int:
        return self.verticalScrollBar().value()

    def horizontalOffset(self) -> int:
        return 0

    def scrollTo(
        self,
        index: _Index,
        hint: QAbstractItemView.ScrollHint = QAbstractItemView.ScrollHint.EnsureVisible,
    ) -> None:
        if not index.isValid():
            return
        rect, bar = self._rect(index.row()), self.verticalScrollBar()
        above, below = rect.top() - _HEADING, rect.bottom() - self.viewport().height() + 1
        bar.setValue(min(above, max(below, bar.value())))

    def doItemsLayout(self) -> None:
        self._lay_out()

    def updateGeometries(self) -> None:
        bar, page = self.verticalScrollBar(), self.viewport().height()
        bar.setRange(0, max(0, self._height - page))
        bar.setPageStep(page)
        bar.setSingleStep(24)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._lay_out()
        self._late.start()

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        self.viewport().update()
        if not self._late.isActive():
            self._late.start()

    def sizeHint(self) -> QSize:
        return QSize(3 * (SIDE + 2 * _PAD), 320)

    def _want(self) -> None:
        """Ask for the thumbnails in view and about it."""
        page, top = self.viewport().height(), self.verticalOffset()
        rows = [r for _, _, some in self._days_between(top - page, top + 2 * page) for r in some]
        missing = [id for r in rows if (id := self.items[r].id) not in self._images]
        if missing:
            self.wanted.emit(missing)

    # ---- moving and selecting -----------------------------------------------------------------

    def moveCursor(self, action: _Action, modifiers: Qt.KeyboardModifier) -> QModelIndex:
        if not self.items:
            return QModelIndex()
        row, last = self.currentIndex().row(), len(self.items) - 1
        if row < 0:
            return self._results.index(0)
        page = max(1, self.viewport().height() // self._cell.height() - 1)
        steps = {
            _Action.MoveLeft: lambda: row - 1,
            _Action.MovePrevious: lambda: row - 1,
            _Action.MoveRight: lambda: row + 1,
            _Action.MoveNext: lambda: row + 1,
            _Action.MoveUp: lambda: self._lines_away(row, -1),
            _Action.MoveDown: lambda: self._lines_away(row, 1),
            _Action.MovePageUp: lambda: self._lines_away(row, -page),
            _Action.MovePageDown: lambda: self._lines_away(row, page),
            _Action.MoveHome: lambda: 0,
            _Action.MoveEnd: lambda: last,
        }
        return self._results.index(min(max(0, steps[action]()), last))

    def _lines_away(self, row: int, lines: int) -> int:
        """The result `lines` below another one, headings not counted."""
        up, column = lines < 0, self._rect(row).center().x()
        for _ in range(abs(lines)):
            rect = self._rect(row)
            beyond = rect.top() - _HEADING - _PAD - 1 if up else rect.bottom() + _HEADING + _PAD + 1
            within = rect.top() - 1 if up else rect.bottom() + 1
            for y in (within, beyond):
                there = self._row_at(QPoint(column, y))
                if 0 <= y < self._height and self._rect(there).top() != rect.top():
                    row = there
                    break
        return row

    def setSelection(self, rect: QRect, command: QItemSelectionModel.SelectionFlag) -> None:
        offset = QPoint(0, self.verticalOffset())
        rows = sorted(self._row_at(p + offset) for p in (rect.topLeft(), rect.bottomRight()))
        if rows[0] >= 0:
            ends = (self._results.index(row) for row in rows)
            self.selectionModel().select(QItemSelection(*ends), command)

    def visualRegionForSelection(self, selection: QItemSelection) -> QRegion:
        return QRegion(self.viewport().rect())

    def keyboardSearch(self, search: str) -> None:
        """Letters are for verbs here; there is a field to search with."""

    def _command(self, event: QKeyEvent) -> Callable[[], Any] | None:
        if event.matches(QKeySequence.StandardKey.Undo):
            return self.undo_requested.emit
        ids, current = self.selected(), self.current()
        if not ids:
            return None
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and not event.modifiers():
            return lambda: self.opened.emit(current or ids[0])
        if event.key() == Qt.Key.Key_S and not event.modifiers():
            return lambda: self.toggle_star(ids)
        if event.matches(QKeySequence.StandardKey.Delete):
            return lambda: self.remove_requested.emit(ids)
        if event.matches(QKeySequence.StandardKey.Save):
            return lambda: self.save_requested.emit(current or ids[0])
        return None

    def toggle_star(self, ids: list[str]) -> None:
        """A star for all of these, or for none if all have one."""
        wanted = set(ids)
        on = not all(item.starred for item in self.items if item.id in wanted)
        self.star_changed.emit(ids, on)

    # ---- the mouse ----------------------------------------------------------------------------

    def _star_rect(self, row: int) -> QRect:
        """Where a click gives a star, in the viewport."""
        cell = self._rect(row).translated(0, -self.verticalOffset())
        left = cell.center().x() + SIDE // 2 - _STAR + 1
        return QRect(left, cell.top() + _PAD, _STAR, _STAR)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        place, left = event.position().toPoint(), event.button() == Qt.MouseButton.LeftButton
        index = self.indexAt(place)
        self._pressed = -1
        if left and index.isValid() and self._star_rect(index.row()).contains(place):
            item = self.items[index.row()]
            self.star_changed.emit([item.id], not item.starred)
            return
        if left and not event.modifiers():
            self._pressed = index.row()
        super().mousePressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        super().mouseReleaseEvent(event)
        index, pressed = self.indexAt(event.position().toPoint()), self._pressed
        self._pressed = -1
        if pressed >= 0 and index.row() == pressed:
            self.opened.emit(self.items[pressed].id)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        self._hover(self.indexAt(event.position().toPoint()).row())

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self._hover(-1)

    def _hover(self, row: int) -> None:
        if row != self._hovered:
            self._hovered = row
            self.viewport().update()

    def startDrag(self, supportedActions: Qt.DropAction) -> None:
        self._pressed = -1
        ids = self.selected()
        if not ids:
            return
        drag = QDrag(self)
        drag.setMimeData(self.files_of(ids))
        if (image := self._images.get(ids[0])) is not None:
            drag.setPixmap(QPixmap.fromImage(image).scaledToWidth(SIDE))
        drag.exec(Qt.DropAction.CopyAction)

    def files_of(self, ids: Iterable[str]) -> QMimeData:
        """The files of results, to be dropped or pasted elsewhere."""
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(self._path(id))) for id in ids])
        return data

    # ---- painting -----------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self.viewport())
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if not self.items:
            drawing.empty_state(painter, self.viewport().rect(), self.font(), *self._empty)
        self._fonts = theme.font(self.font(), 0.85), theme.font(self.font(), 0.75)
        top, current = self.verticalOffset(), self.currentIndex().row()
        focused = current if self.hasFocus() else -1
        selected = self.selectionModel()
        for at, day, rows in self._days_between(top, top + self.viewport().height()):
            self._paint_heading(painter, day, at - top)
            for row in rows:
                chosen = selected.isSelected(self._results.index(row))
                self._paint_tile(painter, row, chosen, row == focused)
        painter.end()

    def _paint_heading(self, painter: QPainter, day: Day, top: int) -> None:
        c = theme.colours()
        box = QRectF(_PAD + 3, top, self.viewport().width() - 2 * _PAD - 6, _HEADING)
        painter.setFont(theme.font(self.font(), 0.9, strong=True))
        painter.setPen(QColor(c.text))
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.drawText(box, middle, self._results.name_of(day.date))
        painter.setFont(theme.font(self.font(), 0.85))
        painter.setPen(QColor(c.muted))
        painter.drawText(box, middle | Qt.AlignmentFlag.AlignRight, f"{day.stop - day.start}")

    def _paint_tile(self, painter: QPainter, row: int, chosen: bool, focused: bool) -> None:
        c, item = theme.colours(), self.items[row]
        cell = self._rect(row).translated(0, -self.verticalOffset())
        left = cell.center().x() - SIDE // 2 + 1
        spot = QRectF(left, cell.top() + _PAD, SIDE, SIDE)
        box = QRectF(spot.left() - _PAD, cell.top(), SIDE + 2 * _PAD, cell.height())
        if chosen or row == self._hovered:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(c.accent_soft if chosen else c.hover))
            painter.drawRoundedRect(box, 7, 7)
        if focused:
            drawing.frame(painter, box, c.accent, 1.5, -1.5, 6)
        if (image := self._images.get(item.id)) is not None:
            where = drawing.draw_fitting(painter, spot, image)
            drawing.frame(painter, where, c.edge if chosen else c.line, 1, 0, 3)
        else:
            where = spot
            drawing.frame(painter, spot, c.line, 1, -1, 3)
        small, tiny = self._fonts
        if item.count > 1:
            corner = QPointF(where.right(), where.bottom() - 2)
            drawing.plate(painter, tiny, str(item.count), corner, where.adjusted(0, 0, -2, 0))
        if item.starred or row == self._hovered:
            self._paint_star(painter, QRectF(self._star_rect(row)), item.starred)
        line = QRectF(box.left(), spot.bottom() + 2, box.width(), cell.bottom() - spot.bottom() - 2)
        caption = self._results.caption(item)
        caption = QFontMetricsF(small).elidedText(caption, Qt.TextElideMode.ElideRight, SIDE)
        painter.setFont(small)
        painter.setPen(QColor(c.text if chosen else c.muted))
        painter.drawText(line, Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop, caption)

    def _paint_star(self, painter: QPainter, box: QRectF, filled: bool) -> None:
        c = theme.colours()
        back = QColor(c.raised)
        back.setAlphaF(0.85)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(back)
        painter.drawRoundedRect(box, 5, 5)
        painter.setPen(QPen(QColor(c.warning if filled else c.muted), 1.2))
        painter.setBrush(QColor(c.warning) if filled else Qt.BrushStyle.NoBrush)
        painter.drawPolygon(star(box.center() + QPointF(0, 0.5), 6.5))


def star(centre: QPointF, radius: float) -> QPolygonF:
    """Five points."""
    turns = [(-math.pi / 2 + i * math.pi / 5, radius * (0.45 if i % 2 else 1)) for i in range(10)]
    return QPolygonF([centre + QPointF(math.cos(a), math.sin(a)) * r for a, r in turns])


class _Results(QAbstractListModel):
    """The results as rows, with what is said of them."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.items: list[Item] = []

    def show_items(self, items: list[Item]) -> None:
        self.beginResetModel()
        self.items = items
        self.endResetModel()

    def rowCount(self, parent: _Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.items)

    def flags(self, index: _Index) -> Qt.ItemFlag:
        return super().flags(index) | Qt.ItemFlag.ItemIsDragEnabled

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self.items):
            return None
        item = self.items[index.row()]
        if role == _ID:
            return item.id
        if role == Qt.ItemDataRole.DisplayRole:
            return self.caption(item)
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole):
            return self.told(item)
        return None

    def caption(self, item: Item) -> str:
        if item.seed is None:
            return item.kind
        return self.tr("seed {seed}").format(seed=item.seed)

    def told(self, item: Item) -> str:
        """All that is known of a result, in a line or two."""
        made = QDateTime.fromMSecsSinceEpoch(round(item.made * 1000))
        count = self.tr("1 picture") if item.count == 1 else self.tr("{0} pictures")
        parts = [
            item.model,
            item.sampler,
            "" if item.seed is None else self.caption(item),
            f"{count.format(item.count)} {item.width} × {item.height}",
            self.tr("starred") if item.starred else "",
        ]
        when = QLocale().toString(made, QLocale.FormatType.ShortFormat)
        cost = ""
        if item.calls:
            cost = self.tr(", {calls} network calls in {seconds:.1f} s").format(
                calls=item.calls, seconds=item.seconds
            )
        return " · ".join(part for part in parts if part) + f"\n{when}{cost}"

    def name_of(self, date: datetime.date) -> str:
        """A day as people call it."""
        ago = (datetime.date.today() - date).days
        if ago in (0, 1):
            return self.tr("Yesterday") if ago else self.tr("Today")
        day = QDate(date.year, date.month, date.day)
        this_year = date.year == datetime.date.today().year
        return QLocale().toString(day, "dddd d MMMM" if this_year else "d MMMM yyyy")
