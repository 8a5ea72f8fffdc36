"""The pictures of a folder as a wall of thumbnails, as many as there are.

Only what is in view is drawn and fetched: `wanted` names the files whose thumbnails are missing, and
`set_images` brings them. Where a tile lies is arithmetic, so nothing is laid out when files come.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QEvent,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRect,
    QRectF,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import (
    QContextMenuEvent,
    QFontMetricsF,
    QImage,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QRegion,
    QResizeEvent,
)
from PySide6.QtWidgets import QAbstractItemView, QListView, QWidget

from studio.training.folder import File
from studio.ui import drawing, theme
from studio.ui.keys import OwnKeys
from studio.ui.train.collection import Collection
from studio.ui.train.tile import PAD, SIDE, Look, paint_tile

_IMAGES = 1200  # kept at once; those not seen for longest go
_PATH = int(Qt.ItemDataRole.UserRole)

_Index = QModelIndex | QPersistentModelIndex
_Action = QAbstractItemView.CursorAction


class Wall(OwnKeys, QListView):
    """Enter or a double click opens, Delete leaves out or takes in again; several can be selected.

    Signals carry paths; `menu_requested` a place on screen.
    """

    opened = Signal(str)
    exclude_requested = Signal(list)
    menu_requested = Signal(QPoint)
    current_path = Signal(str)
    wanted = Signal(list)

    def __init__(self, collection: Collection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.collection = collection
        self.group = "all"
        self.framing = "centre"
        self._rows = _Rows(collection, self)
        self._images: OrderedDict[str, QImage] = OrderedDict()
        self._columns, self._cell = 1, QSize(1, 1)
        self._hovered = -1
        self._empty = "", ""
        self._taken = 0  # files of the collection that were looked at for this group
        self._late = QTimer(self, singleShot=True, interval=15)
        self._late.timeout.connect(self._want)
        self._again = QTimer(self, singleShot=True, interval=250)
        self._again.timeout.connect(self._refill)
        self.setObjectName("trainWall")
        self.setModel(self._rows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMouseTracking(True)
        self.setMinimumSize(SIDE + 60, SIDE + 60)
        self.setAccessibleName(self.tr("Pictures of the folder"))
        self.selectionModel().currentChanged.connect(self._current_moved)
        collection.grown.connect(self._grow)
        collection.sorted_anew.connect(self._sorted_anew)
        self._refill()

    # ---- what is shown ------------------------------------------------------------------------

    def show_group(self, group: str) -> None:
        """Show the files of one group."""
        self.group = group
        self._refill()
        self.verticalScrollBar().setValue(0)

    def set_framing(self, framing: str) -> None:
        """By which framing the squares are drawn."""
        self.framing = framing
        self.viewport().update()

    def set_images(self, images: dict[str, QImage]) -> None:
        """Thumbnails that were wanted; a null image is of a picture that cannot be read."""
        for path, image in images.items():
            self._images[path] = image
            self._images.move_to_end(path)
        while len(self._images) > _IMAGES:
            self._images.popitem(last=False)
        self.viewport().update()

    def forget_images(self) -> None:
        """The files have changed: fetch their thumbnails again."""
        self._images.clear()

    def image(self, path: str) -> QImage | None:
        return self._images.get(path)

    def set_empty_text(self, title: str, body: str) -> None:
        """What is said while there is nothing."""
        self._empty = title, body
        self.viewport().update()

    @property
    def count(self) -> int:
        """How many files are listed."""
        return len(self._rows.places)

    def current(self) -> str:
        """The path of the marked picture; empty if there is none."""
        index = self.currentIndex()
        return index.data(_PATH) if index.isValid() else ""

    def selected(self) -> list[str]:
        """The paths of what is selected, in their order."""
        ranges = self.selectionModel().selection().toList()
        rows = sorted(r for some in ranges for r in range(some.top(), some.bottom() + 1))
        return [self._rows.file(row).path for row in rows if row < self.count]

    def select(self, path: str) -> None:
        """Mark a picture and bring it into view, if it is listed."""
        row = self._rows.row_of(path)
        if row >= 0:
            self.setCurrentIndex(self._rows.index(row))
            self.scrollTo(self.currentIndex())

    def neighbour(self, path: str, step: int) -> str:
        """The path of the picture so many places on from another; empty beyond the ends."""
        row = self._rows.row_of(path)
        there = row >= 0 and 0 <= row + step < self.count
        return self._rows.file(row + step).path if there else ""

    def _sorted_anew(self) -> None:
        """Decisions changed: what is listed by them is listed again, the rest drawn."""
        gone = self._taken > len(self.collection.files)
        if gone:
            self.forget_images()
        if gone or self.group in ("used", "left out", "small"):
            self._refill()
        self.viewport().update()

    def _grow(self) -> None:
        if self.group == "twins":
            if not self._again.isActive():
                self._again.start()
            return
        files = self.collection.files
        new = [
            place
            for place in range(self._taken, len(files))
            if self.collection.belongs(files[place], self.group)
        ]
        self._taken = len(files)
        if new:
            first = self.count
            self._rows.append(new)
            self.updateGeometries()
            # Most files come below what is seen.
            if self._rect(first).top() < self.verticalOffset() + 2 * self.viewport().height():
                self.viewport().update()
                self._late.start()

    def _refill(self) -> None:
        kept = self.current()
        self._taken = len(self.collection.files)
        self._hovered = -1
        self._rows.show(self.collection.places(self.group))
        self._lay_out()
        if kept and self.collection.file(kept) is not None:
            self.select(kept)
        self._late.start()

    def _current_moved(self, *_: object) -> None:
        self.current_path.emit(self.current())

    # ---- where things are ---------------------------------------------------------------------

    def _lay_out(self) -> None:
        # As if the scroll bar were there, so that the number of columns does not depend on itself.
        bar = self.verticalScrollBar().sizeHint().width()
        width = max(1, self.maximumViewportSize().width() - bar - PAD)
        line = QFontMetricsF(theme.font(self.font(), 0.8)).height()
        self._columns = max(1, width // (SIDE + 2 * PAD))
        self._cell = QSize(width // self._columns, round(SIDE + 2 * PAD + 4 + line))
        self.updateGeometries()
        self.viewport().update()

    def _rect(self, row: int) -> QRect:
        """Where a tile is, in the whole."""
        line, column = divmod(row, self._columns)
        w, h = self._cell.width(), self._cell.height()
        return QRect(PAD // 2 + column * w, PAD // 2 + line * h, w, h)

    def _row_at(self, point: QPoint) -> int:
        """The tile nearest to a point of the whole; -1 if there is none at all."""
        line = max(0, (point.y() - PAD // 2) // self._cell.height())
        column = min(max(0, (point.x() - PAD // 2) // self._cell.width()), self._columns - 1)
        return min(line * self._columns + column, self.count - 1)

    def _rows_between(self, top: int, bottom: int) -> range:
        h = self._cell.height()
        first, last = max(0, top // h), max(0, -(-bottom // h))
        return range(min(first * self._columns, self.count), min(last * self._columns, self.count))

    def visualRect(self, index: _Index) -> QRect:
        if not index.isValid() or index.row() >= self.count:
            return QRect()
        return self._rect(index.row()).translated(0, -self.verticalOffset())

    def indexAt(self, point: QPoint) -> QModelIndex:
        point = point + QPoint(0, self.verticalOffset())
        row = self._row_at(point)
        there = row >= 0 and self._rect(row).contains(point)
        return self._rows.index(row) if there else QModelIndex()

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
        below = rect.bottom() - self.viewport().height() + 1
        bar.setValue(min(rect.top(), max(below, bar.value())))

    def doItemsLayout(self) -> None:
        """Called whenever rows come; where they lie is arithmetic."""
        self.updateGeometries()

    def updateGeometries(self) -> None:
        bar, page = self.verticalScrollBar(), self.viewport().height()
        height = -(-self.count // self._columns) * self._cell.height() + PAD
        bar.setRange(0, max(0, height - page))
        bar.setPageStep(page)
        bar.setSingleStep(self._cell.height() // 3)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._lay_out()
        self._late.start()

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        self.viewport().update()
        if not self._late.isActive():
            self._late.start()

    def sizeHint(self) -> QSize:
        return QSize(4 * (SIDE + 2 * PAD), 400)

    def _want(self) -> None:
        """Ask for the thumbnails in view first, then for those of the pages about it."""
        page, top = self.viewport().height(), self.verticalOffset()
        seen = self._rows_between(top, top + page)
        near = self._rows_between(top - page, top + 2 * page)
        rows = [*seen, *(row for row in near if row not in seen)]
        files = (self._rows.file(row) for row in rows)
        missing = [f for f in files if f.result == "image" and f.path not in self._images]
        if missing:
            self.wanted.emit(missing)

    # ---- moving and selecting -----------------------------------------------------------------

    def moveCursor(self, action: _Action, modifiers: Qt.KeyboardModifier) -> QModelIndex:
        if not self.count:
            return QModelIndex()
        row = self.currentIndex().row()
        if row < 0:
            return self._rows.index(0)
        page = max(1, self.viewport().height() // self._cell.height() - 1)
        steps = {
            _Action.MoveLeft: -1,
            _Action.MovePrevious: -1,
            _Action.MoveRight: 1,
            _Action.MoveNext: 1,
            _Action.MoveUp: -self._columns,
            _Action.MoveDown: self._columns,
            _Action.MovePageUp: -page * self._columns,
            _Action.MovePageDown: page * self._columns,
            _Action.MoveHome: -self.count,
            _Action.MoveEnd: self.count,
        }
        return self._rows.index(min(max(0, row + steps[action]), self.count - 1))

    def setSelection(self, rect: QRect, command: QItemSelectionModel.SelectionFlag) -> None:
        offset = QPoint(0, self.verticalOffset())
        rows = sorted(self._row_at(p + offset) for p in (rect.topLeft(), rect.bottomRight()))
        if rows[0] >= 0:
            ends = (self._rows.index(row) for row in rows)
            self.selectionModel().select(QItemSelection(*ends), command)

    def visualRegionForSelection(self, selection: QItemSelection) -> QRegion:
        return QRegion(self.viewport().rect())

    def keyboardSearch(self, search: str) -> None:
        """Letters are for verbs here."""

    def _command(self, event: QKeyEvent) -> Callable[[], Any] | None:
        current, paths = self.current(), self.selected()
        if not current:
            return None
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and not event.modifiers():
            return lambda: self.opened.emit(current)
        if event.matches(QKeySequence.StandardKey.Delete):
            return lambda: self.exclude_requested.emit(paths or [current])
        return None

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        index = self.indexAt(event.position().toPoint())
        if index.isValid():
            self.opened.emit(index.data(_PATH))

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

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        index = self.currentIndex()
        where = self.viewport().mapToGlobal(self.visualRect(index).center())
        if event.reason() != QContextMenuEvent.Reason.Keyboard:
            index = self.indexAt(self.viewport().mapFromGlobal(event.globalPos()))
            where = event.globalPos()
        if not index.isValid():
            return
        if not self.selectionModel().isSelected(index):
            self.setCurrentIndex(index)
        self.menu_requested.emit(where)

    # ---- painting -----------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self.viewport())
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if not self.count:
            drawing.empty_state(painter, self.viewport().rect(), self.font(), *self._empty)
        top, current = self.verticalOffset(), self.currentIndex().row()
        focused = current if self.hasFocus() else -1
        painter.setFont(theme.font(self.font(), 0.8))
        chosen = self.selectionModel()
        for row in self._rows_between(top, top + self.viewport().height()):
            file = self._rows.file(row)
            cell = QRectF(self._rect(row).translated(0, -top))
            look = Look(
                image=self._images.get(file.path),
                crop=self.collection.crops.get(file.path),
                framing=self.framing,
                used=self.collection.is_used(file),
                small=self.collection.is_small(file),
                selected=chosen.isSelected(self._rows.index(row)),
                hovered=row == self._hovered,
                focused=row == focused,
            )
            paint_tile(painter, cell, file, look)
        painter.end()


class _Rows(QAbstractListModel):
    """The files of a group as rows, with what is said of them."""

    def __init__(self, collection: Collection, parent: QWidget) -> None:
        super().__init__(parent)
        self._collection = collection
        self.places: list[int] = []

    def show(self, places: list[int]) -> None:
        self.beginResetModel()
        self.places = places
        self.endResetModel()

    def append(self, places: list[int]) -> None:
        first = len(self.places)
        self.beginInsertRows(QModelIndex(), first, first + len(places) - 1)
        self.places += places
        self.endInsertRows()

    def row_of(self, path: str) -> int:
        """The row of a path; -1 if it is not listed."""
        place = self._collection.place(path)
        row = bisect.bisect_left(self.places, place)  # in order, but for groups of twins
        if row < len(self.places) and self.places[row] == place:
            return row
        return self.places.index(place) if place in self.places else -1

    def file(self, row: int) -> File:
        return self._collection.files[self.places[row]]

    def rowCount(self, parent: _Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.places)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self.places):
            return None
        file = self.file(index.row())
        if role == _PATH:
            return file.path
        if role == Qt.ItemDataRole.DisplayRole:
            return file.path.rpartition("/")[2]
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole):
            return self.told(file)
        return None

    def told(self, file: File) -> str:
        """All that is known of a file, a line each."""
        lines = [file.path]
        if file.result != "image":
            return "\n".join([*lines, file.reason])
        lines.append(f"{file.size[0]} × {file.size[1]}")
        words = {
            "extreme": self.tr("Very long or tall: most of it lies outside the square"),
            "grey": self.tr("Grey"),
            "transparent": self.tr("Transparent: the background colour is put behind it"),
            "animated": self.tr("Animated: its first picture is used"),
            "converted": self.tr("Its colours are converted"),
        }
        if self._collection.is_small(file):
            lines.append(self.tr("Smaller than the model's pictures: it will be enlarged"))
        lines += [words[flag] for flag in file.flags if flag in words]
        if file.twin:
            lines.append(self.tr("Nearly the same as {path}").format(path=file.twin))
        if file.path in self._collection.crops:
            lines.append(self.tr("Cropped by you"))
        if not self._collection.is_used(file):
            lines.append(self.tr("Left out"))
        return "\n".join(lines)
