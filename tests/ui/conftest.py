"""One QApplication for all tests of the window; what Qt warns about fails the test."""

from __future__ import annotations

import gc
import os

os.environ["QT_QPA_PLATFORM"] = "offscreen"

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QtMsgType, qInstallMessageHandler
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication, QWidget

from studio.ui import theme

# Said by the offscreen platform about every window of fixed size; nothing is wrong.
_HARMLESS = ("propagateSizeHints",)


#: (widget, width, height) -> the widget, shown.
Shown = Callable[[Any, int, int], Any]


@pytest.fixture(scope="session")
def qapp() -> Iterator[QApplication]:
    app = QApplication.instance() or QApplication(["score-studio"])
    assert isinstance(app, QApplication)
    yield app
    app.closeAllWindows()


@pytest.fixture(autouse=True)
def light_again() -> Iterator[None]:
    """A test that leaves the window dark leaves it so to no other."""
    yield
    app = QApplication.instance()
    if theme._scheme == "dark" and isinstance(app, QApplication):
        theme.apply(app, "light")


@pytest.fixture(autouse=True)
def collected_here() -> Iterator[None]:
    """Cycles are collected on this thread, as in the window: a widget must not die in a worker."""
    gc.disable()
    yield
    gc.collect(1)
    gc.enable()


@pytest.fixture(autouse=True)
def qt_warnings(qapp: QApplication) -> Iterator[list[str]]:
    """What Qt said during the test; the test fails if that is not empty at its end."""
    said: list[str] = []

    def listen(kind: QtMsgType, _context: object, message: str) -> None:
        if kind not in (QtMsgType.QtDebugMsg, QtMsgType.QtInfoMsg) and not any(
            known in message for known in _HARMLESS
        ):
            said.append(message)

    before = qInstallMessageHandler(listen)
    yield said
    qapp.processEvents()
    qInstallMessageHandler(before)
    assert not said, "Qt warned: " + "; ".join(said)


def pixels(widget: QWidget) -> np.ndarray:
    """What a widget shows, uint8 (H, W, 3)."""
    image = widget.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    lines = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return lines[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


@pytest.fixture
def shown(qapp: QApplication) -> Iterator[Shown]:
    """Shows a widget in a size, with the focus; closes it after the test."""
    made: list[QWidget] = []

    def show(widget: Any, width: int, height: int) -> Any:
        made.append(widget)
        widget.resize(width, height)
        widget.show()
        widget.activateWindow()
        widget.setFocus()
        qapp.processEvents()
        return widget

    yield show
    for widget in made:
        widget.close()
        widget.deleteLater()


@pytest.fixture
def grab():
    """The function `pixels`."""
    return pixels
