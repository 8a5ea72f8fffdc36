"""Thumbnails in rows, by day, as many as there are: only those in view are laid out, drawn and fetched.

The order and the headings are worked out by `by_day`, which may be called in any thread.
"""

from __future__ import annotations

import bisect
import datetime
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QDate,
    QDateTime,
    QItemSelection,
    QItemSelectionModel,
    QLocale,
    QMimeData,
    QPoint,
    QPointF,
    QRect,
    QRectF,
    Qt,
    QUrl,
    Signal,
)
from PySide6.QtGui import (
    QColor,
    QDrag,
    QFontMetricsF,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPixmap,
    QPolygonF,
)
from PySide6.QtWidgets import QAbstractItemView, QWidget

from studio.engine.history import Item
from studio.ui import drawing, theme
from studio.ui.thumbnails import ID, PAD, Index, Thumbnails

SIDE = 72  # of a thumbnail
_STAR = 18  # of the place where a click gives a star
_IMAGES = 800  # kept at once; those not seen for longest go


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


class Tiles(Thumbnails):
    """Click or Enter opens, S gives a star, Delete removes, Ctrl+S saves; several can be selected, and
    dragged out as files. `path` is the file of a result. Signals carry ids."""

    opened = Signal(str)
    star_changed = Signal(list, bool)
    remove_requested = Signal(list)
    save_requested = Signal(str)
    undo_requested = Signal()

    heading = 28

    def __init__(self, path: Callable[[str], Path], parent: QWidget | None = None) -> None:
        super().__init__(SIDE, 0.85, _IMAGES, parent)
        self._path = path
        self._results = _Results(self)
        self._days: list[Day] = []
        self._tops: list[int] = []
        self._pressed = -1
        self._fonts = self.font(), self.font()
        self.setObjectName("historyTiles")
        self.setModel(self._results)
        self.setDragEnabled(True)
        self.setDragDropMode(QAbstractItemView.DragDropMode.DragOnly)
        self.setAccessibleName(self.tr("History"))

    # ---- what is shown ------------------------------------------------------------------------

    def set_items(self, items: list[Item], days: list[Day]) -> None:
        """Show these, of which `days` are the days. What is selected stays so if it is there."""
        current, selected = self.current(), set(self.selected())
        self._days = days
        self._results.show_items(items)
        self._hovered = -1
        self._lay_out()
        if current or selected:
            self._select_again(current, selected)
        self._late.start()

    @property
    def items(self) -> list[Item]:
        return self._results.items

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

    def _arrange(self) -> int:
        self._tops, top = [], 0
        for day in self._days:
            self._tops.append(top)
            lines = -(-(day.stop - day.start) // self._columns)
            top += self.heading + lines * self._cell.height() + PAD
        return top

    def _rect(self, row: int) -> QRect:
        """Where a result is, in the whole."""
        d = bisect.bisect_right(self._days, row, key=lambda day: day.start) - 1
        line, column = divmod(row - self._days[d].start, self._columns)
        w, h = self._cell.width(), self._cell.height()
        return QRect(PAD // 2 + column * w, self._tops[d] + self.heading + line * h, w, h)

    def _row_at(self, point: QPoint) -> int:
        """The result nearest to a point of the whole."""
        d = max(0, bisect.bisect_right(self._tops, point.y()) - 1)
        day = self._days[d]
        line = max(0, (point.y() - self._tops[d] - self.heading) // self._cell.height())
        column = min(max(0, (point.x() - PAD // 2) // self._cell.width()), self._columns - 1)
        return min(day.start + line * self._columns + column, day.stop - 1)

    def _days_between(self, top: int, bottom: int) -> Iterator[tuple[int, Day, range]]:
        """Every day between two heights of the whole, with its own top and those of its results that
        are between them."""
        first = max(0, bisect.bisect_right(self._tops, top) - 1)
        h, columns = self._cell.height(), self._columns
        for at, day in zip(self._tops[first:], self._days[first:]):
            if at >= bottom:
                return
            above = max(0, (top - at - self.heading) // h) * columns
            below = max(0, -(-(bottom - at - self.heading) // h)) * columns
            yield at, day, range(day.start + above, min(day.start + below, day.stop))

    def _rows_between(self, top: int, bottom: int) -> Iterator[int]:
        for _, _, rows in self._days_between(top, bottom):
            yield from rows

    def _missing(self, rows: Iterable[int]) -> list[str]:
        return [id for row in rows if (id := self.items[row].id) not in self._images]

    # ---- moving and selecting -----------------------------------------------------------------

    def _lines_away(self, row: int, lines: int) -> int:
        """The result `lines` below another one, headings not counted."""
        up, column = lines < 0, self._rect(row).center().x()
        for _ in range(abs(lines)):
            rect = self._rect(row)
            beyond = (
                rect.top() - self.heading - PAD - 1
                if up
                else rect.bottom() + self.heading + PAD + 1
            )
            within = rect.top() - 1 if up else rect.bottom() + 1
            for y in (within, beyond):
                there = self._row_at(QPoint(column, y))
                if 0 <= y < self._whole and self._rect(there).top() != rect.top():
                    row = there
                    break
        return row

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
        return QRect(left, cell.top() + PAD, _STAR, _STAR)

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
        box = QRectF(PAD + 3, top, self.viewport().width() - 2 * PAD - 6, self.heading)
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
        spot = QRectF(left, cell.top() + PAD, SIDE, SIDE)
        box = QRectF(spot.left() - PAD, cell.top(), SIDE + 2 * PAD, cell.height())
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

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.items)

    def flags(self, index: Index) -> Qt.ItemFlag:
        return super().flags(index) | Qt.ItemFlag.ItemIsDragEnabled

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self.items):
            return None
        item = self.items[index.row()]
        if role == ID:
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
