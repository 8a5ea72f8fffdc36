"""The history in the window: a search line, thumbnails by day, stars, removal with undo, disk use; the
queue above it.

It never waits for the disk: every call to the History is an errand. Ids are those of the History.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from PySide6.QtCore import QPoint, Qt, QTimer, QUrl, Signal
from PySide6.QtGui import (
    QAction,
    QActionGroup,
    QContextMenuEvent,
    QDesktopServices,
    QImage,
    QKeySequence,
)
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.engine.engine import Engine
from studio.engine.events import Finished
from studio.engine.history import History, Item, Use, query
from studio.engine.queue import Queue
from studio.errors import StudioError
from studio.ui import drawing, theme
from studio.ui.errands import Errands
from studio.ui.queue_panel import QueuePanel
from studio.ui.runner import Runner
from studio.ui.tiles import Day, Tiles, by_day
from studio.weights.listing import as_size

#: What a person may choose as bound, in bytes.
BOUNDS = (500 * 10**6, 10**9, 2 * 10**9, 5 * 10**9, 10**10, 5 * 10**10)
_MOST_COMPARED = 4
_PAUSE = 120  # milliseconds from the last letter to the search


@dataclass(frozen=True)
class _Found:
    """What a search answers, ready to be shown."""

    items: list[Item]
    days: list[Day]
    use: Use
    problem: str


class HistoryPanel(QWidget):
    """`opened`, `recipe_requested` and `save_requested` carry an id, `compare_requested` a list of ids,
    `added` the new Item, `bound_changed` bytes, `bug` an exception. Close it by `await close_up()`."""

    opened = Signal(str)
    recipe_requested = Signal(str)
    compare_requested = Signal(list)
    save_requested = Signal(str)
    added = Signal(object)
    bound_changed = Signal(object)
    bug = Signal(object)

    def __init__(
        self,
        engine: Engine,
        history: History,
        queue: Queue | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.history = history
        self.setObjectName("history")
        self.setAccessibleName(self.tr("History"))
        self.errands = Errands(engine)  # each of them counts
        self.searches = Errands(engine)  # only the newest counts
        self.fetches = Errands(engine)
        self.queue = QueuePanel(queue, self) if queue is not None else None
        self.tiles = Tiles(history.path)
        self._token = 0  # what Undo brings back
        self._soon = QTimer(self, singleShot=True, interval=_PAUSE)
        self._forget = QTimer(self, singleShot=True, interval=60_000)
        self._build()
        self._connect()
        self.tiles.set_empty_text("", "")

    # -- for the window -----------------------------------------------------------------------------

    def add(self, result: Finished, kind: str = "") -> None:
        """Keep a result; `added` follows when it is on disk."""
        self.errands.do(partial(self.history.add, result, kind), self._added)

    def refresh(self) -> None:
        """Search again. Call it once when the window is on screen: before, nothing is listed."""
        asked = query(self.search.text())
        if self.only_starred.isChecked():
            asked["starred"] = True
        self.searches.only(partial(_find, self.history, asked), self._show)

    def selected(self) -> list[str]:
        """The ids of what is selected, the newest first."""
        return self.tiles.selected()

    def select(self, id: str) -> None:
        """Mark a result and bring it into view; nothing happens if it is not listed."""
        self.tiles.select([id])

    def runners(self) -> list[Runner]:
        """For closing in order."""
        return [errands.runner for errands in (self.errands, self.searches, self.fetches)]

    async def close_up(self) -> None:
        """Keep what is still on its way, then delete what was removed. Before the engine is closed."""
        self._soon.stop()
        for errands in (self.searches, self.fetches):
            errands.clear()
            await errands.done()
        self.errands.do(self.history.close)
        await self.errands.done()

    # -- layout -------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.search = QLineEdit()
        self.search.setObjectName("historySearch")
        self.search.setPlaceholderText(self.tr("Search"))
        self.search.setClearButtonEnabled(True)
        self.search.setAccessibleName(self.tr("Search the history"))
        self.search.setToolTip(
            self.tr(
                "Any words of the recipe, or model:critters, sampler:heun, seed:7, kind:paint, "
                "date:2026-07, since:yesterday, until:2026-07-31, starred"
            )
        )
        self.only_starred = QToolButton()
        self.only_starred.setObjectName("historyStarred")
        self.only_starred.setText("★")
        self.only_starred.setCheckable(True)
        self.only_starred.setAccessibleName(self.tr("Only those with a star"))
        self.only_starred.setToolTip(self.tr("Show only those with a star"))
        top = QHBoxLayout()
        top.setSpacing(4)
        top.addWidget(self.search, 1)
        top.addWidget(self.only_starred)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(6)
        if self.queue is not None:
            box.addWidget(self.queue)
        title = QLabel(self.tr("History"))
        title.setProperty("role", "heading")
        box.addWidget(title)
        box.addLayout(top)
        box.addWidget(self.tiles, 1)
        box.addWidget(self._undo_line())
        box.addWidget(self._problem_line())
        box.addLayout(self._footer())
        self.setFocusProxy(self.tiles)

    def _undo_line(self) -> QWidget:
        self.undo_line = QFrame()
        self.undo_line.setObjectName("historyUndoLine")
        self.undo_line.setProperty("role", "card")
        self.undo_text = QLabel()
        self.undo_button = QPushButton(self.tr("Undo"))
        self.undo_button.setObjectName("historyUndo")
        self.undo_button.setFlat(True)
        self.undo_button.setToolTip(self.tr("Bring them back (Ctrl+Z)"))
        row = QHBoxLayout(self.undo_line)
        row.setContentsMargins(10, 3, 3, 3)
        row.addWidget(self.undo_text, 1)
        row.addWidget(self.undo_button)
        self.undo_line.hide()
        return self.undo_line

    def _problem_line(self) -> QWidget:
        self.problem = QLabel()
        self.problem.setObjectName("historyProblem")
        self.problem.setProperty("role", "problem")
        self.problem.setWordWrap(True)
        self.problem.setTextFormat(Qt.TextFormat.PlainText)
        self.problem.hide()
        return self.problem

    def _footer(self) -> QHBoxLayout:
        self.use = QLabel()
        self.use.setObjectName("historyUse")
        self.use.setProperty("role", "muted")
        self.use.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.limit_button = QToolButton()
        self.limit_button.setObjectName("historyLimit")
        self.limit_button.setAccessibleName(self.tr("Disk space of the history"))
        self.limit_button.setToolTip(
            self.tr("How much may be kept: then the oldest without a star make room")
        )
        self.limit_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self)
        menu.aboutToShow.connect(self._fill_limits)
        self.limit_button.setMenu(menu)
        row = QHBoxLayout()
        row.addWidget(self.use, 1)
        row.addWidget(self.limit_button)
        return row

    def _connect(self) -> None:
        tiles = self.tiles
        tiles.opened.connect(self.opened)
        tiles.save_requested.connect(self.save_requested)
        tiles.star_changed.connect(self.star)
        tiles.remove_requested.connect(self.remove)
        tiles.undo_requested.connect(self.undo)
        tiles.wanted.connect(self._fetch)
        tiles.setContextMenuPolicy(Qt.ContextMenuPolicy.NoContextMenu)
        self.search.textChanged.connect(lambda _: self._soon.start())
        self.search.returnPressed.connect(self.refresh)
        self.only_starred.toggled.connect(lambda _: self.refresh())
        self.undo_button.clicked.connect(self.undo)
        self._soon.timeout.connect(self.refresh)
        self._forget.timeout.connect(self.undo_line.hide)
        for errands in (self.errands, self.searches, self.fetches):
            errands.failed.connect(self._failed)
            errands.bug.connect(self.bug)

    # -- verbs --------------------------------------------------------------------------------------

    def star(self, ids: list[str], on: bool) -> None:
        """Give these a star, or take it away."""
        self.tiles.set_starred(ids, on)
        for id in ids:
            self.errands.do(partial(self.history.star, id, on))

    def remove(self, ids: list[str]) -> None:
        """Take these out, and offer to undo it."""
        self.tiles.take_out(ids)
        self.errands.do(
            partial(self.history.remove, ids), lambda token: self._removed(token, len(ids))
        )

    def undo(self) -> None:
        """Bring back what was removed last."""
        if self._token:
            self.errands.do(partial(self.history.undo, self._token), lambda _: self.refresh())
            self._token = 0
            self.undo_line.hide()

    def _limit(self, bound: int) -> None:
        self.errands.do(partial(self.history.limit, bound), lambda _: self.refresh())
        self.bound_changed.emit(bound)

    def reveal(self, id: str) -> None:
        """Show the folder of a result's file in the desktop's own browser."""
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.history.path(id).parent)))

    # -- what comes back ----------------------------------------------------------------------------

    def _show(self, found: _Found) -> None:
        self.tiles.set_items(found.items, found.days)
        self._tell_use(found.use)
        self._tell_problem(found.problem)
        if found.problem:
            self.tiles.set_empty_text(self.tr("The history is off"), "")
        elif self._searching:
            self.tiles.set_empty_text(self.tr("Nothing fits"), self.tr("Try fewer words."))
        else:
            title, body = self.tr("No pictures yet"), self.tr("Every result is kept here.")
            self.tiles.set_empty_text(title, body)

    def _tell_use(self, use: Use) -> None:
        many = self.tr("{0} results, {1}")
        text = (self.tr("1 result, {1}") if use.results == 1 else many).format(
            f"{use.results:,}", as_size(use.bytes)
        )
        self.use.setText(text)
        self.limit_button.setText(self.tr("of {0}").format(as_size(use.bound)))
        self.tiles.setAccessibleDescription(text)

    def _tell_problem(self, text: str) -> None:
        self.problem.setText(text)
        self.problem.setVisible(bool(text))

    def _added(self, item: Item) -> None:
        self.added.emit(item)
        if self._searching:
            self.refresh()
            return
        items = [item, *self.tiles.items]
        self.tiles.set_items(items, by_day(items))
        self.errands.do(self.history.disk_use, self._tell_use_after)

    def _tell_use_after(self, use: Use) -> None:
        self._tell_use(use)
        if use.results != len(self.tiles.items):
            self.refresh()  # older ones had to make room

    @property
    def _searching(self) -> bool:
        return bool(self.search.text().strip()) or self.only_starred.isChecked()

    def _removed(self, token: int, count: int) -> None:
        self._token = token
        one = self.tr("Removed 1 result.")
        self.undo_text.setText(one if count == 1 else self.tr("Removed {0} results.").format(count))
        self.undo_line.show()
        self._forget.start()
        self.errands.do(self.history.disk_use, self._tell_use)

    def _fetch(self, ids: list[str]) -> None:
        self.fetches.only(partial(_images, self.history, ids), self.tiles.set_images)

    def _failed(self, error: StudioError) -> None:
        self._tell_problem(str(error))

    # -- menus --------------------------------------------------------------------------------------

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        tiles, where = self.tiles, event.globalPos()
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            index = tiles.currentIndex()
            where = tiles.viewport().mapToGlobal(tiles.visualRect(index).center())
        else:
            index = tiles.indexAt(tiles.viewport().mapFromGlobal(where))
        if not index.isValid() or not (tiles.underMouse() or tiles.hasFocus()):
            event.ignore()
            return
        id = tiles.items[index.row()].id
        if id not in tiles.selected():
            tiles.select([id])
        self._popup(where)

    def _popup(self, where: QPoint) -> None:
        menu = self.menu_for(self.tiles.selected(), self.tiles.current())
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(where)

    def menu_for(self, ids: list[str], current: str) -> QMenu:
        """The menu of what is selected; what can be done with one only is done with `current`."""
        menu = QMenu(self)
        menu.setObjectName("historyMenu")
        id = current if current in ids else ids[0]
        stars = {item.starred for item in self.tiles.items if item.id in set(ids)}
        star = self.tr("Take the star away") if stars == {True} else self.tr("Star")
        several = self.tr("Compare {0} side by side").format(len(ids))
        choices = (
            ("historyOpen", "zoom-fit", self.tr("Open"), "Return", lambda: self.opened.emit(id)),
            ("historyRecipe", "history", self.tr("Use its recipe"), "", self._recipe_of(id)),
            ("historyCompare", "swap", several, "", lambda: self.compare_requested.emit(ids)),
            ("", "", "", "", None),
            ("historyStar", "", star, "S", lambda: self.tiles.toggle_star(ids)),
            ("historySave", "save", self.tr("Save as…"), "Ctrl+S", self._save(id)),
            ("historyReveal", "open", self.tr("Show in folder"), "", lambda: self.reveal(id)),
            ("", "", "", "", None),
            ("historyRemove", "close", self.tr("Remove"), "Del", lambda: self.remove(ids)),
        )
        for name, icon, text, keys, verb in choices:
            if verb is None:
                menu.addSeparator()
                continue
            action = QAction(text, menu)
            action.setObjectName(name)
            if icon:
                action.setIcon(theme.icon(icon))
            action.setShortcut(QKeySequence(keys))
            # Shown in the menu only: the keys themselves are taken by the thumbnails.
            action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
            action.triggered.connect(lambda _=False, verb=verb: verb())
            action.setVisible(name != "historyCompare" or 2 <= len(ids) <= _MOST_COMPARED)
            menu.addAction(action)
        return menu

    def _recipe_of(self, id: str) -> Any:
        return lambda: self.recipe_requested.emit(id)

    def _save(self, id: str) -> Any:
        return lambda: self.save_requested.emit(id)

    def _fill_limits(self) -> None:
        menu = self.limit_button.menu()
        menu.clear()
        group = QActionGroup(menu)
        for bound in sorted({*BOUNDS, self.history.bound}):
            action = menu.addAction(self.tr("At most {0}").format(as_size(bound)))
            action.setCheckable(True)
            action.setChecked(bound == self.history.bound)
            action.triggered.connect(lambda _=False, bound=bound: self._limit(bound))
            group.addAction(action)
        menu.addSeparator()
        menu.addAction(theme.icon("open"), self.tr("Open its folder")).triggered.connect(
            lambda: QDesktopServices.openUrl(QUrl.fromLocalFile(str(self.history.folder)))
        )


def _find(history: History, asked: dict[str, Any]) -> _Found:
    items = history.search(**asked)
    return _Found(items, by_day(items), history.disk_use(), history.problem)


def _images(history: History, ids: list[str]) -> dict[str, QImage]:
    return {id: drawing.image_of(picture) for id, picture in history.thumbnails(ids).items()}
