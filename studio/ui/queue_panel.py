"""The queue as a person sees it: what runs, what waits in which order, what an earlier session left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QEvent, QSize, Qt, Signal
from PySide6.QtGui import QDropEvent, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMenu,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.engine.history import facts
from studio.engine.queue import Queue, Waiting
from studio.ui import theme
from studio.ui.keys import OwnKeys
from studio.ui.line import Line

_ID = int(Qt.ItemDataRole.UserRole)
_ROWS = 5  # shown at once


class QueuePanel(QWidget):
    """Hidden while there is nothing to tell. The queue is the only place where the order is kept.

    `stop_requested` asks for the run under way to be stopped.
    """

    stop_requested = Signal()

    def __init__(self, queue: Queue, parent: QWidget) -> None:
        super().__init__(parent)
        self.queue = queue
        self.setObjectName("queue")
        self.setAccessibleName(self.tr("Queue"))
        self._seen: Waiting | None = None
        self.list = _List(queue)
        self._build()
        self._draw_icon()
        queue.listen(self.refresh)
        self.list.itemSelectionChanged.connect(self._enable)
        self.refresh()

    def set_progress(self, done: int, total: int) -> None:
        """How far the run under way is; a total of 0 is not known."""
        self.bar.setRange(0, total)
        self.bar.setValue(min(done, total))

    def refresh(self) -> None:
        """Show the queue as it is now."""
        queue, waiting, offered = self.queue, self.queue.waiting(), self.queue.offered()
        count = len(waiting) + (queue.running is not None)
        self.heading.setText(self.tr("Queue ({0})").format(count) if count else self.tr("Queue"))
        running = told(queue.running) if queue.running else ""
        self.running.set_text(running)
        self.running_row.setVisible(queue.running is not None)
        if queue.running != self._seen:
            self._seen = queue.running
            self.set_progress(0, 1)
        self.list.show_entries(waiting)
        self.list.setVisible(bool(waiting))
        several = self.tr("{0} runs were waiting when the studio was left.").format(len(offered))
        one = self.tr("A run was waiting when the studio was left.")
        self.offer_text.setText(one if len(offered) == 1 else several)
        self.offer.setToolTip("\n".join(told(entry) for entry in offered[:12]))
        self.offer.setVisible(bool(offered))
        self.problem.setText(queue.problem)
        self.problem.setVisible(bool(queue.problem))
        self.setVisible(bool(count or offered or queue.problem))
        self._enable()

    # -- layout -------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.heading = QLabel()
        self.heading.setProperty("role", "heading")
        self.jump = self._button(
            "queueJump", "up", self.tr("Jump ahead"), "Ctrl+Home", self.list.jump
        )
        self.drop = self._button(
            "queueDrop", "close", self.tr("Drop from the queue"), "Del", self.list.drop
        )
        top = QHBoxLayout()
        top.setSpacing(2)
        top.addWidget(self.heading, 1)
        top.addWidget(self.jump)
        top.addWidget(self.drop)
        self.problem = QLabel()
        self.problem.setObjectName("queueProblem")
        self.problem.setProperty("role", "problem")
        self.problem.setWordWrap(True)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(top)
        box.addWidget(self._running_row())
        box.addWidget(self.list)
        box.addWidget(self._offer())
        box.addWidget(self.problem)

    def _button(
        self, name: str, icon: str, text: str, keys: str, verb: Callable[[], Any]
    ) -> QToolButton:
        button = QToolButton()
        button.setObjectName(name)
        if icon == "up":
            button.setText("↑")
        else:
            button.setIcon(theme.icon(icon))
        button.setAccessibleName(text)
        button.setToolTip(f"{text} ({keys})" if keys else text)
        button.clicked.connect(lambda: verb())
        return button

    def _running_row(self) -> QWidget:
        self.running_row = QFrame()
        self.running_row.setObjectName("queueRunning")
        self.running_row.setToolTip(self.tr("What runs now"))
        self.icon = QLabel()
        self.running = Line()
        self.bar = QProgressBar()
        self.bar.setObjectName("queueProgress")
        self.bar.setAccessibleName(self.tr("Progress of the run under way"))
        self.bar.setTextVisible(False)
        row = QHBoxLayout()
        row.setSpacing(6)
        row.addWidget(self.icon)
        row.addWidget(self.running, 1)
        text = self.tr("Stop the run under way")
        self.stop = self._button("queueStop", "stop", text, "", self.stop_requested.emit)
        row.addWidget(self.stop)
        box = QVBoxLayout(self.running_row)
        box.setContentsMargins(4, 2, 4, 2)
        box.setSpacing(3)
        box.addLayout(row)
        box.addWidget(self.bar)
        return self.running_row

    def _offer(self) -> QWidget:
        self.offer = QFrame()
        self.offer.setObjectName("queueOffer")
        self.offer.setProperty("role", "card")
        self.offer_text = QLabel()
        self.offer_text.setWordWrap(True)
        self.accept_button = QPushButton(self.tr("Run"))
        self.accept_button.setObjectName("queueAccept")
        self.accept_button.setToolTip(self.tr("Put them in the queue, in their order"))
        self.decline_button = QPushButton(self.tr("Forget"))
        self.decline_button.setObjectName("queueDecline")
        self.decline_button.setToolTip(self.tr("They will not run"))
        self.accept_button.clicked.connect(self.queue.accept)
        self.decline_button.clicked.connect(self.queue.decline)
        row = QHBoxLayout()
        row.addStretch()
        row.addWidget(self.decline_button)
        row.addWidget(self.accept_button)
        box = QVBoxLayout(self.offer)
        box.setContentsMargins(10, 8, 8, 8)
        box.setSpacing(6)
        box.addWidget(self.offer_text)
        box.addLayout(row)
        return self.offer

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.PaletteChange:
            self._draw_icon()

    def _draw_icon(self) -> None:
        self.icon.setPixmap(theme.icon("play", "accent").pixmap(QSize(14, 14)))

    def _enable(self) -> None:
        chosen = bool(self.list.chosen())
        several = self.list.count() > 0
        for button in (self.jump, self.drop):
            button.setVisible(several)
            button.setEnabled(chosen)


class _List(OwnKeys, QListWidget):
    """What waits. Drag or Ctrl+Up and Ctrl+Down move, Ctrl+Home lets jump ahead, Delete drops."""

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self.queue = queue
        self.setObjectName("queueList")
        self.setAccessibleName(self.tr("Waiting runs, the next one first"))
        self.setToolTip(self.tr("Drag to change the order"))
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        self.setDefaultDropAction(Qt.DropAction.MoveAction)
        self.setDropIndicatorShown(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)

    def show_entries(self, entries: tuple[Waiting, ...]) -> None:
        chosen = set(self.chosen())
        current = self.currentItem().data(_ID) if self.currentItem() else None
        self.blockSignals(True)
        self.clear()
        for place, entry in enumerate(entries, 1):
            item = QListWidgetItem(f"{place}  {told(entry)}")
            item.setData(_ID, entry.id)
            item.setToolTip(told(entry))
            item.setSizeHint(QSize(0, self.fontMetrics().height() + 9))
            self.addItem(item)
            if entry.id == current:
                self.setCurrentItem(item)
            item.setSelected(entry.id in chosen)
        self.blockSignals(False)
        rows = min(max(1, len(entries)), _ROWS)
        height = self.sizeHintForRow(0) if entries else 20
        self.setFixedHeight(rows * height + 2 * self.frameWidth() + 2)
        self.itemSelectionChanged.emit()

    def chosen(self) -> list[str]:
        """The ids of what is selected, in their order."""
        rows = sorted(index.row() for index in self.selectedIndexes())
        return [self.item(row).data(_ID) for row in rows]

    def jump(self) -> None:
        self.put(self.chosen(), 0)

    def drop(self) -> None:
        for id in self.chosen():
            self.queue.drop(id)

    def put(self, ids: list[str], place: int) -> None:
        """Let these stand one after the other, before what is at `place` now."""
        order = [entry.id for entry in self.queue.waiting()]
        before = [id for id in order[:place] if id not in ids]
        after = [id for id in order[place:] if id not in ids]
        self.queue.arrange([*before, *ids, *after])

    def _shift(self, by: int) -> None:
        ids, order = self.chosen(), [e.id for e in self.queue.waiting()]
        if ids:
            first = order.index(ids[0])
            self.put(ids, max(0, first - 1) if by < 0 else first + len(ids) + 1)

    def _command(self, event: QKeyEvent) -> Callable[[], Any] | None:
        if not self.chosen():
            return None
        held = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if event.matches(QKeySequence.StandardKey.Delete):
            return self.drop
        if held != Qt.KeyboardModifier.ControlModifier:
            return None
        return {
            Qt.Key.Key_Up: lambda: self._shift(-1),
            Qt.Key.Key_Down: lambda: self._shift(1),
            Qt.Key.Key_Home: self.jump,
        }.get(Qt.Key(event.key()))

    def dropEvent(self, event: QDropEvent) -> None:
        """The queue is told, and shows itself anew; Qt itself moves nothing."""
        if event.source() is not self:
            event.ignore()
            return
        index = self.indexAt(event.position().toPoint())
        place = index.row() if index.isValid() else self.count()
        if self.dropIndicatorPosition() == QAbstractItemView.DropIndicatorPosition.BelowItem:
            place += 1
        event.setDropAction(Qt.DropAction.IgnoreAction)
        event.accept()
        self.put(self.chosen(), place)

    def contextMenuEvent(self, event: Any) -> None:
        if not self.chosen():
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for text, keys, verb in (
            (self.tr("Jump ahead"), "Ctrl+Home", self.jump),
            (self.tr("Drop from the queue"), "Del", self.drop),
        ):
            action = menu.addAction(text)
            action.setShortcut(QKeySequence(keys))
            action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
            action.triggered.connect(lambda _=False, verb=verb: verb())
        menu.popup(event.globalPos())


def told(entry: Waiting) -> str:
    """A run that waits, in a line: its model, sampler, seed and number of pictures."""
    known = facts(entry.recipe)
    count = entry.recipe.get("count")
    parts = [known.kind if known.kind != "sample" else "", known.model, known.sampler]
    parts.append("" if known.seed is None else f"seed {known.seed}")
    parts.append(f"× {count}" if isinstance(count, int) and count > 1 else "")
    return " · ".join(part for part in parts if part)
