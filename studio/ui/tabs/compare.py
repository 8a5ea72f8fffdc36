"""Mode 3, Compare: a race of samplers, a grid of settings, and what the probability flow tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QPushButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.engine.engine import Job
from studio.engine.events import Event
from studio.engine.grid import GridRecipe
from studio.ui.runner import Runner
from studio.ui.session import Session
from studio.ui.tabs import Tab
from studio.ui.tabs.race import RaceTab


class CompareTab(Tab):
    """Three pages, of which the race is there at once and the others when they are first looked at. A
    run goes on while another page is shown."""

    title = "Compare"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setObjectName("comparePage")
        self.race = RaceTab(session)
        self._makers: list[Callable[[], QWidget]] = [lambda: self.race, self._grid, self._flow]
        self._pages: list[QWidget | None] = [None, None, None]
        self._stack = QStackedWidget()
        self._chooser = QButtonGroup(self)
        self._build()
        self._listen(self.race)
        self.show_page(0)

    def _build(self) -> None:
        bar = QHBoxLayout()
        bar.setContentsMargins(12, 8, 12, 0)
        bar.setSpacing(0)
        names = (
            ("pageRace", self.tr("Race"), self.tr("Samplers side by side, from one start")),
            ("pageGrid", self.tr("Grid"), self.tr("Two settings over a few values each")),
            (
                "pageFlow",
                self.tr("Flow"),
                self.tr("Likelihood, there and back, between two pictures"),
            ),
        )
        for i, (name, text, tip) in enumerate(names):
            button = QPushButton(text)
            button.setObjectName(name)
            button.setProperty("segment", True)
            button.setCheckable(True)
            button.setToolTip(f"{tip} (Alt+{i + 1})")
            self._chooser.addButton(button, i)
            bar.addWidget(button)
            QShortcut(QKeySequence(f"Alt+{i + 1}"), self, lambda i=i: self.show_page(i))
            self._stack.addWidget(QWidget())
        bar.addStretch()
        self._chooser.idClicked.connect(self.show_page)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(0)
        box.addLayout(bar)
        box.addWidget(self._stack, 1)

    def show_page(self, place: int) -> QWidget:
        """Show a page: 0 the race, 1 the grid, 2 the tools of the flow."""
        page = self._page(place)
        self._chooser.button(place).setChecked(True)
        self._stack.setCurrentIndex(place)
        return page

    def ready_for(self, kind: str) -> None:
        if kind == "grid":
            self._page(1)

    def _page(self, place: int) -> QWidget:
        """A page, built now if it is not there yet."""
        page = self._pages[place]
        if page is None:
            page = self._pages[place] = self._makers[place]()
            if (blank := self._stack.widget(place)) is not None:
                self._stack.removeWidget(blank)
                blank.deleteLater()
            shown = self._stack.currentIndex()
            self._stack.insertWidget(place, page)
            self._stack.setCurrentIndex(shown)
        return page

    def _grid(self) -> QWidget:
        from studio.ui.compare.grid_page import GridPage

        page = GridPage(self.session)
        self._listen(page)
        return page

    def _flow(self) -> QWidget:
        from studio.ui.flow import FlowTools

        page = FlowTools(self.session)
        self._listen(page)
        return page

    def _listen(self, page: Any) -> None:
        page.status.connect(self.status)
        page.bug.connect(self.bug)

    def measure(self, pixels: Any, name: str) -> None:
        """Show how likely pictures are, uint8 (H, W, C) or (N, H, W, C)."""
        self.show_page(2).measure(pixels, name)  # type: ignore[attr-defined]

    # -- the mode in the window: what it says of itself is said of the race ---------------------------

    def job(self) -> Job:
        return self.race.job()

    def changes(self, recipe: dict[str, Any]) -> list[str]:
        if recipe.get("kind") == "grid":
            told = spec.from_dict(GridRecipe, recipe)
            spec.check(told)
            return [
                f"{axis.name}: {', '.join(axis.values)}" for axis in (told.x, told.y) if axis.name
            ]
        return self.race.changes(recipe)

    def open_recipe(self, recipe: dict[str, Any]) -> None:
        place = 1 if recipe.get("kind") == "grid" else 0
        self.show_page(place).open_recipe(recipe)  # type: ignore[attr-defined]

    def receive(self, event: Event) -> None:
        raise NotImplementedError  # each page listens to its own runs

    def shown(self) -> None:
        self.race.shown()

    def open_path(self, path: Path) -> bool:
        """A picture or folder that is dropped goes to the tools of the flow, if they are shown."""
        if self._stack.currentIndex() != 2:
            return False
        return self.show_page(2).open(path)  # type: ignore[attr-defined]

    def at_stake(self) -> str:
        busy = any(runner.computing for runner in self.runners())
        return self.tr("A comparison is still under way.") if busy else ""

    def runners(self) -> list[Runner]:
        pages: list[Any] = [self.race, *(page for page in self._pages[1:] if page is not None)]
        return [runner for page in pages for runner in page.runners()]
