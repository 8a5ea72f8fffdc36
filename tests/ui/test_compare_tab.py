"""The pages of the Compare mode: the race at once, the grid and the flow when they are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import qasync
from PySide6.QtWidgets import QApplication, QWidget

from studio import spec
from studio.engine.engine import Engine
from studio.engine.grid import Axis, GridRecipe
from studio.engine.jobs import SampleJob, Setting
from studio.settings import Settings
from studio.ui.session import Session
from studio.ui.tabs.compare import CompareTab
from studio.weights.shelf import Shelf


@pytest.fixture
def with_tab(
    qapp: QApplication, tiny_checkpoint: Path
) -> Iterator[Callable[[Callable[[CompareTab], None]], None]]:
    loop = qasync.QEventLoop(qapp)
    asyncio.set_event_loop(loop)

    async def whole(work: Callable[[CompareTab], None]) -> None:
        shelf = Shelf([tiny_checkpoint.parent])
        engine = Engine(Setting(shelf, "cpu"))
        tab = CompareTab(Session(engine, shelf, Settings(model=tiny_checkpoint.name)))
        try:
            work(tab)
        finally:
            await engine.close()
            tab.deleteLater()

    yield lambda work: loop.run_until_complete(whole(work))
    loop.close()


def test_the_race_is_there_and_the_others_come_when_they_are_wanted(with_tab):
    def work(tab: CompareTab) -> None:
        assert tab.findChild(QWidget, "gridPage") is None
        assert tab.findChild(QWidget, "racePage") is tab.race
        for place, name in ((1, "gridPage"), (2, "flowTools"), (1, "gridPage")):
            page = tab.show_page(place)
            assert page.objectName() == name
            assert tab.findChild(QWidget, name) is page
            assert tab._stack.currentWidget() is page

    with_tab(work)


def test_every_page_is_closed_in_order(with_tab):
    def work(tab: CompareTab) -> None:
        few = len(tab.runners())
        tab.show_page(1)
        tab.show_page(2)
        assert len(tab.runners()) > few
        assert tab.at_stake() == ""

    with_tab(work)


def test_the_recipe_of_a_grid_goes_to_the_grid(with_tab):
    def work(tab: CompareTab) -> None:
        base = SampleJob("tiny", count=1)
        recipe = GridRecipe(base=base, x=Axis("steps", ("2", "3")), y=Axis("seed", ("1", "2")))
        data = spec.to_dict(recipe)
        assert tab.changes(data) == ["steps: 2, 3", "seed: 1, 2"]
        tab.open_recipe(data)
        page = tab.show_page(1)
        assert page.recipe().x.values == ("2", "3")

    with_tab(work)
