"""The history strip: what was made, newest first, each a click away.

Every entry has a key that its owner chooses (a path, an id). The strip keeps the last 200; older
ones leave without a signal, since nothing of theirs is deleted.
"""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import (
    QModelIndex,
    QPersistentModelIndex,
    QPoint,
    QRectF,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import (
    QColor,
    QContextMenuEvent,
    QFontMetricsF,
    QKeyEvent,
    QKeySequence,
    QPainter,
    QPaintEvent,
    QStandardItem,
    QStandardItemModel,
)
from PySide6.QtWidgets import (
    QAbstractItemView,
    QListView,
    QMenu,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from studio.ui import drawing, theme
from studio.ui.keys import OwnKeys

THUMBNAIL = 72
KEPT = 200
_KEY = int(Qt.ItemDataRole.UserRole)
_PICTURE = _KEY + 1
_PAD = 6

_Index = QModelIndex | QPersistentModelIndex


class Gallery(OwnKeys, QListView):
    """Click or Enter opens, Delete takes out of the strip, the context menu saves and recalls."""

    opened = Signal(str)
    save_requested = Signal(str)
    recipe_requested = Signal(str)
    removed = Signal(str)  # by a person, not by remove() or age

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("history")
        self._items = QStandardItemModel(self)
        self.setModel(self._items)
        self.setItemDelegate(_Thumbnails(self))
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setMovement(QListView.Movement.Static)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setUniformItemSizes(True)
        self.setSpacing(2)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setDragEnabled(False)
        self.setMouseTracking(True)
        self.setMinimumSize(THUMBNAIL + 40, THUMBNAIL + 40)
        self.setAccessibleName(self.tr("History"))
        self.setToolTip(
            self.tr("What you made, newest first. Click to open, right-click for more.")
        )
        self._empty = self.tr("No pictures yet"), self.tr("Every result is kept here.")
        self.clicked.connect(self._clicked)
        self._tell()

    def add(self, key: str, picture: np.ndarray, caption: str) -> None:
        """Put a uint8 picture (H, W, C) first; a known key is replaced and moves to the front."""
        self.remove(key)
        image = drawing.image_of(picture)
        if max(image.width(), image.height()) > 2 * THUMBNAIL:
            image = image.scaled(
                2 * THUMBNAIL,
                2 * THUMBNAIL,
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            )
        item = QStandardItem(caption)
        item.setData(key, _KEY)
        item.setData(image, _PICTURE)
        item.setToolTip(caption)
        item.setEditable(False)
        self._items.insertRow(0, item)
        if self._items.rowCount() > KEPT:
            self._items.removeRows(KEPT, self._items.rowCount() - KEPT)
        self._tell()

    def remove(self, key: str) -> None:
        """Take an entry out; nothing happens if there is none. Emits nothing."""
        row = self._row(key)
        if row is not None:
            self._items.removeRow(row)
            self._tell()

    def select(self, key: str) -> None:
        """Mark an entry and bring it into view; nothing happens if there is none."""
        row = self._row(key)
        if row is not None:
            self.setCurrentIndex(self._items.index(row, 0))

    def selected(self) -> str | None:
        """The key of the marked entry."""
        index = self.currentIndex()
        return index.data(_KEY) if index.isValid() else None

    def keys(self) -> list[str]:
        """All keys, newest first."""
        return [self._items.item(row).data(_KEY) for row in range(self._items.rowCount())]

    def clear(self) -> None:
        """Take out everything. Emits nothing."""
        self._items.clear()
        self._tell()

    def set_empty_text(self, title: str, body: str) -> None:
        """What is said while there is nothing."""
        self._empty = (title, body)
        self.viewport().update()

    def sizeHint(self) -> QSize:
        return QSize(3 * (THUMBNAIL + 2 * _PAD + 6), 220)

    def _row(self, key: str) -> int | None:
        keys = self.keys()
        return keys.index(key) if key in keys else None

    def _tell(self) -> None:
        count = self._items.rowCount()
        several = self.tr("{0} pictures").format(count)
        told = self.tr("1 picture") if count == 1 else several if count else self._empty[0]
        self.setAccessibleDescription(told)

    # ---- what a person does -------------------------------------------------------------------

    def _clicked(self, index: QModelIndex) -> None:
        self.opened.emit(index.data(_KEY))

    def _discard(self, key: str) -> None:
        row = self._row(key)
        if row is None:
            return
        self.remove(key)
        if self._items.rowCount():
            self.setCurrentIndex(self._items.index(min(row, self._items.rowCount() - 1), 0))
        self.removed.emit(key)

    def _command(self, event: QKeyEvent):
        """What a key does to the marked entry, or None if it is not one of ours."""
        key = self.selected()
        if key is None:
            return None
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and not event.modifiers():
            return lambda: self.opened.emit(key)
        if event.matches(QKeySequence.StandardKey.Delete):
            return lambda: self._discard(key)
        if event.matches(QKeySequence.StandardKey.Save):
            return lambda: self.save_requested.emit(key)
        return None

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        index, where = self.indexAt(event.pos()), event.globalPos()
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            index = self.currentIndex()
            where = self.viewport().mapToGlobal(self.visualRect(index).center())
        if not index.isValid():
            event.ignore()
            return
        self.setCurrentIndex(index)
        self._popup(index.data(_KEY), where)

    def _popup(self, key: str, where: QPoint) -> None:
        menu = self.menu_for(key)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(where)

    def menu_for(self, key: str) -> QMenu:
        """The menu of one entry."""
        menu = QMenu(self)
        menu.setObjectName("historyMenu")
        choices = (
            ("zoom-fit", self.tr("Open"), "Return", self.opened.emit),
            ("save", self.tr("Save as…"), "Ctrl+S", self.save_requested.emit),
            ("history", self.tr("Use its recipe"), "", self.recipe_requested.emit),
            ("close", self.tr("Remove from history"), "Del", self._discard),
        )
        for name, text, keys, act in choices:
            if name == "close":
                menu.addSeparator()
            action = menu.addAction(theme.icon(name), text)
            action.setShortcut(QKeySequence(keys))
            # Shown in the menu only: the keys themselves are taken in keyPressEvent.
            action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
            action.triggered.connect(lambda _checked=False, act=act: act(key))
        return menu

    # ---- painting -----------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self._items.rowCount():
            return
        painter = QPainter(self.viewport())
        drawing.empty_state(painter, self.viewport().rect(), self.font(), *self._empty)
        painter.end()


class _Thumbnails(QStyledItemDelegate):
    """A picture over its caption."""

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:
        line = QFontMetricsF(theme.font(option.font, 0.85)).height()
        return QSize(THUMBNAIL + 2 * _PAD, round(THUMBNAIL + 2 * _PAD + 4 + line))

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        c = theme.colours()
        box = QRectF(option.rect)
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        hovered = bool(option.state & QStyle.StateFlag.State_MouseOver)
        focused = bool(option.state & QStyle.StateFlag.State_HasFocus)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if chosen or hovered:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(c.accent_soft if chosen else c.hover))
            painter.drawRoundedRect(box, 7, 7)
        if focused:
            drawing.frame(painter, box, c.accent, 1.5, -1.5, 6)
        spot = QRectF(box.left() + _PAD, box.top() + _PAD, THUMBNAIL, THUMBNAIL)
        where = drawing.draw_fitting(painter, spot, index.data(_PICTURE))
        drawing.frame(painter, where, c.edge if chosen else c.line, 1, 0, 3)
        small = theme.font(option.font, 0.85)
        line = QRectF(spot.left(), spot.bottom() + 4, THUMBNAIL, box.bottom() - spot.bottom() - 6)
        caption = QFontMetricsF(small).elidedText(
            index.data(), Qt.TextElideMode.ElideRight, THUMBNAIL
        )
        painter.setFont(small)
        painter.setPen(QColor(c.text if chosen else c.muted))
        painter.drawText(line, Qt.AlignmentFlag.AlignCenter, caption)
        painter.restore()
