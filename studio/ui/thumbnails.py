"""A view of many thumbnails, of which only those in view are drawn and fetched.

Where each lies is arithmetic, so nothing is laid out one by one. Rows carry an id in UserRole; pictures
come later: `wanted` names those in view that are missing, `set_images` brings them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from PySide6.QtCore import (
    QAbstractItemModel,
    QEvent,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRect,
    QSize,
    Qt,
    QTimer,
    Signal,
)
from PySide6.QtGui import QFontMetricsF, QImage, QMouseEvent, QRegion, QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QListView, QWidget

from studio.ui import theme
from studio.ui.keys import OwnKeys

ID = int(Qt.ItemDataRole.UserRole)
PAD = 6  # around a thumbnail

Index = QModelIndex | QPersistentModelIndex
_Action = QAbstractItemView.CursorAction


class Thumbnails(OwnKeys, QListView):
    """A subclass says where rows lie, draws them, and names those whose pictures are missing.

    `side` is of a thumbnail in pixels, `small` the size of the words below it, `kept` how many pictures
    are kept at once: those not seen for longest go. The model is set by the subclass.
    """

    wanted = Signal(list)

    heading = 0  # pixels above the first row of a group, brought into view with it

    def __init__(self, side: int, small: float, kept: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._side, self._small, self._kept = side, small, kept
        self._images: OrderedDict[str, QImage] = OrderedDict()
        self._columns, self._cell, self._whole = 1, QSize(1, 1), 0
        self._hovered = -1
        self._empty = "", ""
        self._late = QTimer(self, singleShot=True, interval=15)
        self._late.timeout.connect(self._want)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMouseTracking(True)
        self.setMinimumSize(side + 40, side + 60)

    # ---- what a subclass says -----------------------------------------------------------------

    def _arrange(self) -> int:
        """Work out where rows lie, of so many `_columns` of `_cell`; the height of the whole."""
        raise NotImplementedError

    def _rect(self, row: int) -> QRect:
        """Where a row is, in the whole."""
        raise NotImplementedError

    def _row_at(self, point: QPoint) -> int:
        """The row nearest to a point of the whole, of which there is one."""
        raise NotImplementedError

    def _rows_between(self, top: int, bottom: int) -> Iterable[int]:
        """The rows between two heights of the whole."""
        raise NotImplementedError

    def _missing(self, rows: Iterable[int]) -> list[Any]:
        """What `wanted` says of those of these rows whose pictures are not here."""
        raise NotImplementedError

    def _lines_away(self, row: int, lines: int) -> int:
        """The row so many lines below another one."""
        return row + lines * self._columns

    # ---- what is shown ------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many rows there are."""
        model: QAbstractItemModel | None = self.model()
        return model.rowCount() if model is not None else 0

    def set_images(self, images: dict[str, QImage]) -> None:
        """Thumbnails that were wanted, by id; a null image is of a picture that cannot be read."""
        for id, image in images.items():
            self._images[id] = image
            self._images.move_to_end(id)
        while len(self._images) > max(self._kept, 2 * len(images)):
            self._images.popitem(last=False)
        self.viewport().update()

    def set_empty_text(self, title: str, body: str) -> None:
        """What is said while there is nothing."""
        self._empty = title, body
        self.viewport().update()

    def current(self) -> str:
        """The id of the marked row; empty if there is none."""
        index = self.currentIndex()
        return index.data(ID) if index.isValid() else ""

    def selected(self) -> list[str]:
        """The ids of what is selected, in their order."""
        ranges = self.selectionModel().selection().toList()
        rows = sorted(r for some in ranges for r in range(some.top(), some.bottom() + 1))
        return [self.model().index(row, 0).data(ID) for row in rows if row < self.count]

    def _want(self) -> None:
        """Ask for the thumbnails in view first, then for those of the pages about it."""
        page, top = self.viewport().height(), self.verticalOffset()
        seen = self._rows_between(top, top + page)
        near = self._rows_between(top - page, top + 2 * page)
        if missing := self._missing(dict.fromkeys([*seen, *near])):
            self.wanted.emit(missing)

    # ---- where things are ---------------------------------------------------------------------

    def _lay_out(self) -> None:
        # As if the scroll bar were there, so that the number of columns does not depend on itself.
        bar = self.verticalScrollBar().sizeHint().width()
        width = max(1, self.maximumViewportSize().width() - bar - PAD)
        line = QFontMetricsF(theme.font(self.font(), self._small)).height()
        self._columns = max(1, width // (self._side + 2 * PAD))
        self._cell = QSize(width // self._columns, round(self._side + 2 * PAD + 3 + line))
        self.updateGeometries()
        self.viewport().update()

    def updateGeometries(self) -> None:
        self._whole = self._arrange() if self.count else 0
        bar, page = self.verticalScrollBar(), self.viewport().height()
        bar.setRange(0, max(0, self._whole - page))
        bar.setPageStep(page)
        bar.setSingleStep(max(1, self._cell.height() // 3))

    def doItemsLayout(self) -> None:
        self._lay_out()

    def visualRect(self, index: Index) -> QRect:
        if not index.isValid() or index.row() >= self.count:
            return QRect()
        return self._rect(index.row()).translated(0, -self.verticalOffset())

    def indexAt(self, point: QPoint) -> QModelIndex:
        if not self.count:  # Qt asks before a subclass is whole
            return QModelIndex()
        point = point + QPoint(0, self.verticalOffset())
        row = self._row_at(point)
        there = self._rect(row).contains(point)
        return self.model().index(row, 0) if there else QModelIndex()

    def verticalOffset(self) -> int:
        return self.verticalScrollBar().value()

    def horizontalOffset(self) -> int:
        return 0

    def scrollTo(
        self,
        index: Index,
        hint: QAbstractItemView.ScrollHint = QAbstractItemView.ScrollHint.EnsureVisible,
    ) -> None:
        if not index.isValid():
            return
        rect, bar = self._rect(index.row()), self.verticalScrollBar()
        above, below = rect.top() - self.heading, rect.bottom() - self.viewport().height() + 1
        bar.setValue(min(above, max(below, bar.value())))

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._lay_out()
        self._late.start()

    def scrollContentsBy(self, dx: int, dy: int) -> None:
        self.viewport().update()
        if not self._late.isActive():
            self._late.start()

    def sizeHint(self) -> QSize:
        return QSize(3 * (self._side + 2 * PAD), 320)

    # ---- moving and selecting -----------------------------------------------------------------

    def moveCursor(self, action: _Action, modifiers: Qt.KeyboardModifier) -> QModelIndex:
        if not self.count:
            return QModelIndex()
        row, last = self.currentIndex().row(), self.count - 1
        if row < 0:
            return self.model().index(0, 0)
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
        return self.model().index(min(max(0, steps[action]()), last), 0)

    def setSelection(self, rect: QRect, command: QItemSelectionModel.SelectionFlag) -> None:
        offset = QPoint(0, self.verticalOffset())
        if self.count:
            rows = sorted(self._row_at(p + offset) for p in (rect.topLeft(), rect.bottomRight()))
            ends = (self.model().index(row, 0) for row in rows)
            self.selectionModel().select(QItemSelection(*ends), command)

    def visualRegionForSelection(self, selection: QItemSelection) -> QRegion:
        return QRegion(self.viewport().rect())

    def keyboardSearch(self, search: str) -> None:
        """Letters are for verbs here."""

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
