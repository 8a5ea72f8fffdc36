"""The pictures of a folder as a wall of thumbnails, as many as there are.

Where a tile lies is arithmetic, so nothing is laid out when files come.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from typing import Any

from PySide6.QtCore import (
    QAbstractListModel,
    QModelIndex,
    QPoint,
    QRect,
    QRectF,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import (
    QContextMenuEvent,
    QImage,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
)
from PySide6.QtWidgets import QWidget

from studio.training.folder import File
from studio.ui import drawing, theme
from studio.ui.thumbnails import ID, PAD, Index, Thumbnails
from studio.ui.train.collection import Collection
from studio.ui.train.tile import SIDE, Look, paint_tile

_IMAGES = 1200  # kept at once; those not seen for longest go


class Wall(Thumbnails):
    """Enter or a double click opens, Delete leaves out or takes in again; several can be selected.

    Signals carry paths, `wanted` Files; `menu_requested` a place on screen.
    """

    opened = Signal(str)
    exclude_requested = Signal(list)
    menu_requested = Signal(QPoint)
    current_path = Signal(str)

    def __init__(self, collection: Collection, parent: QWidget | None = None) -> None:
        super().__init__(SIDE, 0.8, _IMAGES, parent)
        self.collection = collection
        self.group = "all"
        self.framing = "centre"
        self._rows = _Rows(collection, self)
        self._taken = 0  # files of the collection that were looked at for this group
        self._again = QTimer(self, singleShot=True, interval=250)
        self._again.timeout.connect(self._refill)
        self.setObjectName("trainWall")
        self.setModel(self._rows)
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

    def forget_images(self) -> None:
        """The files have changed: fetch their thumbnails again."""
        self._images.clear()

    def image(self, path: str) -> QImage | None:
        return self._images.get(path)

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

    def _arrange(self) -> int:
        return -(-self.count // self._columns) * self._cell.height() + PAD

    def _rect(self, row: int) -> QRect:
        """Where a tile is, in the whole."""
        line, column = divmod(row, self._columns)
        w, h = self._cell.width(), self._cell.height()
        return QRect(PAD // 2 + column * w, PAD // 2 + line * h, w, h)

    def _row_at(self, point: QPoint) -> int:
        """The tile nearest to a point of the whole."""
        line = max(0, (point.y() - PAD // 2) // self._cell.height())
        column = min(max(0, (point.x() - PAD // 2) // self._cell.width()), self._columns - 1)
        return min(line * self._columns + column, self.count - 1)

    def _rows_between(self, top: int, bottom: int) -> range:
        h = self._cell.height()
        first, last = max(0, top // h), max(0, -(-bottom // h))
        return range(min(first * self._columns, self.count), min(last * self._columns, self.count))

    def _missing(self, rows: Iterable[int]) -> list[File]:
        files = (self._rows.file(row) for row in rows)
        return [f for f in files if f.result == "image" and f.path not in self._images]

    # ---- moving and selecting -----------------------------------------------------------------

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
            self.opened.emit(index.data(ID))

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

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.places)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self.places):
            return None
        file = self.file(index.row())
        if role == ID:
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
