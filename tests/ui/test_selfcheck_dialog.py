"""The self-check as a person uses it: from the Help menu, to a table, curves and a copied text."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import qasync
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from studio import app
from studio.diffusion import laws
from studio.diffusion.sde import SDES
from studio.engine import checks
from studio.settings import Settings
from studio.ui import theme
from studio.ui.main_window import MainWindow
from studio.ui.selfcheck import SelfCheckDialog

Work = Callable[[SelfCheckDialog], Coroutine[Any, Any, None]]


@pytest.fixture
def with_dialog(
    qapp: QApplication, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Work], None]:
    """Opens the dialog from the menu of a window; its check has two samplers and nothing else."""
    qapp.setQuitOnLastWindowClosed(False)
    monkeypatch.setattr(checks, "SAMPLERS", {"euler": None, "dpm2m": None})
    monkeypatch.setattr(checks, "ORDERS", {"euler": 1, "dpm2m": 2})
    monkeypatch.setattr(checks, "_OTHERS", {})

    async def whole(work: Work) -> None:
        window = app.build(Settings())
        window.show()
        try:
            async with asyncio.timeout(120):
                await work(opened(window))
        finally:
            await window.shutdown()

    def run(work: Work) -> None:
        with qasync.QEventLoop(qapp) as loop:
            loop.run_until_complete(whole(work))
        assert not [t for t in threading.enumerate() if t.name == "device"]

    return run


def opened(window: MainWindow) -> SelfCheckDialog:
    (action,) = [a for a in window.findChildren(QAction) if a.text() == "Self-check…"]
    action.trigger()
    dialog = window.findChild(SelfCheckDialog, "selfcheck")
    assert dialog is not None
    assert dialog.isVisible()
    return dialog


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def checked(dialog: SelfCheckDialog) -> None:
    QTest.mouseClick(dialog.run_button, Qt.MouseButton.LeftButton)
    await until(lambda: not dialog.runner.busy)


def cells(dialog: SelfCheckDialog, row: int) -> list[str]:
    items = [dialog.table.item(row, column) for column in range(dialog.table.columnCount())]
    return [item.text() if item else "" for item in items]


def test_a_check_fills_the_table_and_the_curves(with_dialog: Any) -> None:
    async def work(dialog: SelfCheckDialog) -> None:
        assert not dialog.copy_button.isEnabled()
        assert dialog.quick.isChecked()
        await checked(dialog)
        assert dialog.said.text() == "6 of 6 laws hold"
        assert dialog.table.rowCount() == 6
        mark, part, law, *measured, theory = cells(dialog, 0)
        assert (mark, part, law, theory) == ("✓", "euler", "order of convergence", "1.000 ± 0.350")
        assert [bool(text) for text in measured] == [True] + [False] * (len(SDES) - 1)
        assert dialog.progress.value() == dialog.progress.maximum()
        lines = dialog.plot._plot.listDataItems()
        assert {line.name() for line in lines} == {"euler", "dpm2m"}
        assert len(lines[0].getOriginalDataset()[0]) == len(checks.CURVE_CALLS)
        dialog.plot.sde.setCurrentIndex(1)  # a quick check has curves of the first only
        assert dialog.plot._plot.listDataItems() == []

    with_dialog(work)


def test_the_table_can_be_copied_as_text(with_dialog: Any) -> None:
    async def work(dialog: SelfCheckDialog) -> None:
        await checked(dialog)
        QTest.mouseClick(dialog.copy_button, Qt.MouseButton.LeftButton)
        assert QGuiApplication.clipboard().text() == checks.table(dialog.laws)

    with_dialog(work)


def test_a_law_that_does_not_hold_is_marked(
    with_dialog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(laws.ORDERS, "euler", 2)

    async def work(dialog: SelfCheckDialog) -> None:
        await checked(dialog)
        assert dialog.said.text() == "5 of 6 laws hold"
        assert cells(dialog, 0)[0] == "✗"
        assert cells(dialog, 0)[3].endswith("!")
        mark = dialog.table.item(0, 0)
        assert mark is not None
        assert mark.foreground().color().name() == theme.colours().danger

    with_dialog(work)


def test_a_check_can_be_stopped_and_begun_again(with_dialog: Any) -> None:
    async def work(dialog: SelfCheckDialog) -> None:
        dialog.quick.setChecked(False)
        QTest.mouseClick(dialog.run_button, Qt.MouseButton.LeftButton)
        assert dialog.run_button.text() == "Stop"
        assert not dialog.quick.isEnabled()
        await until(lambda: dialog.laws)
        QTest.mouseClick(dialog.run_button, Qt.MouseButton.LeftButton)
        await until(lambda: not dialog.runner.busy)
        assert dialog.said.text().startswith("Stopped:")
        dialog.quick.setChecked(True)
        await checked(dialog)
        assert dialog.said.text() == "6 of 6 laws hold"

    with_dialog(work)


def test_closing_the_dialog_stops_the_check(with_dialog: Any) -> None:
    async def work(dialog: SelfCheckDialog) -> None:
        dialog.quick.setChecked(False)
        dialog.run_or_stop()
        await until(lambda: dialog.laws)
        QTest.keyClick(dialog, Qt.Key.Key_Escape)
        assert not dialog.isVisible()
        await until(lambda: not dialog.runner.busy)
        assert len(dialog.laws) < 6 * len(SDES)

    with_dialog(work)


def test_the_window_closes_in_order_during_a_check(with_dialog: Any) -> None:
    async def work(dialog: SelfCheckDialog) -> None:
        dialog.quick.setChecked(False)
        dialog.run_or_stop()
        await until(lambda: dialog.laws)

    with_dialog(work)  # and no thread is left


def test_the_dialog_follows_the_theme(with_dialog: Any, qapp: QApplication) -> None:
    async def work(dialog: SelfCheckDialog) -> None:
        await checked(dialog)
        try:
            theme.apply(qapp, "dark")
            qapp.processEvents()
            mark = dialog.table.item(0, 0)
            assert mark is not None
            assert mark.foreground().color().name() == theme.DARK.good
            line = dialog.plot._plot.listDataItems()[0]
            assert line.opts["pen"].color().name() in theme.DARK.series
        finally:
            theme.apply(qapp, "light")

    with_dialog(work)
