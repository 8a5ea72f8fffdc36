"""How much disk the kept cells of grids take, and of what bound; the cells can be let go of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QHBoxLayout, QLabel, QMenu, QSizePolicy, QToolButton, QWidget

from studio.engine.grid_cells import Cells, Used
from studio.ui.dialogs import ask
from studio.ui.errands import Errands
from studio.ui.runner import spawn
from studio.ui.session import Session
from studio.weights.listing import as_size

#: What a person may choose as bound, in bytes.
BOUNDS = (10**8, 5 * 10**8, 10**9, 2 * 10**9, 5 * 10**9)


class GridUse(QWidget):
    """A line of words and a menu. Never waits for the disk. `failed` carries a StudioError, `bug` any
    other exception.
    """

    failed = Signal(object)
    bug = Signal(object)

    def __init__(self, session: Session, folder: Path | None) -> None:
        super().__init__()
        self._session, self._folder = session, folder
        self.errands = Errands(session.engine)
        self.told = QLabel()
        self.told.setObjectName("gridUse")
        self.told.setProperty("role", "muted")
        self.told.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.limit_button = QToolButton()
        self.limit_button.setObjectName("gridLimit")
        self.limit_button.setAccessibleName(self.tr("Disk space of grids"))
        self.limit_button.setToolTip(
            self.tr("How much finished cells may take: then those used least lately make room")
        )
        self.limit_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self)
        menu.aboutToShow.connect(partial(self._fill, menu))
        self.limit_button.setMenu(menu)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.told, 1)
        row.addWidget(self.limit_button)
        self.errands.failed.connect(self.failed)
        self.errands.bug.connect(self.bug)
        self._tell(Used(0, 0, self.bound))

    @property
    def bound(self) -> int:
        return self._session.settings.grids_bytes

    def refresh(self) -> None:
        """Look again how much there is."""
        self._do(lambda cells: None)

    def limit(self, bound: int) -> None:
        """Let cells take so many bytes at most; what is too much goes."""
        self._session.remember(grids_bytes=bound)
        self._do(Cells.make_room)

    def clear(self) -> None:
        """Let go of all cells."""
        self._do(Cells.clear)

    def _do(self, work: Callable[[Cells], None]) -> None:
        cells = Cells(self._folder, self.bound)

        def call() -> Used:
            work(cells)
            return cells.use()

        self.errands.only(call, self._tell)

    def _tell(self, used: Used) -> None:
        one, many = self.tr("1 cell kept, {1}"), self.tr("{0} cells kept, {1}")
        text = (one if used.cells == 1 else many).format(f"{used.cells:,}", as_size(used.bytes))
        self.told.setText(text if used.cells else self.tr("No cells are kept"))
        self.limit_button.setText(self.tr("of {0}").format(as_size(used.bound)))

    def _fill(self, menu: QMenu) -> None:
        menu.clear()
        group = QActionGroup(menu)
        for bound in sorted({*BOUNDS, self.bound}):
            action = QAction(as_size(bound), group)
            action.setCheckable(True)
            action.setChecked(bound == self.bound)
            action.triggered.connect(lambda _=False, b=bound: self.limit(b))
            menu.addAction(action)
        menu.addSeparator()
        clear = menu.addAction(self.tr("Let go of all cells…"), lambda: spawn(self._ask()))
        clear.setObjectName("gridClear")

    async def _ask(self) -> None:
        if await ask(
            self,
            self.tr("Kept cells"),
            self.tr("Let go of all finished cells of grids?"),
            self.tr("A grid that was begun starts anew. Pictures that you saved stay."),
            self.tr("Let go"),
        ):
            self.clear()
