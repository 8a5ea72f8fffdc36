"""The desktop application: engine, session and window put together, and taken apart in order.

`run()` is the program. `build()` gives other programs and tests a window inside their own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import TextIO

from PySide6.QtCore import QLockFile, Qt, QTimer
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QApplication, QMessageBox

# PySide6 stands above on purpose: qasync takes the Qt binding that is loaded already.
import qasync  # isort: skip

from studio.engine.engine import Engine
from studio.engine.jobs import Setting
from studio.paths import user_dir
from studio.settings import Settings
from studio.ui import theme
from studio.ui.main_window import MainWindow
from studio.ui.measure import measure as measure_window
from studio.ui.runner import spawn
from studio.ui.session import Session
from studio.weights.shelf import Shelf


def build(settings: Settings | None = None, closed: asyncio.Event | None = None) -> MainWindow:
    """The main window, not yet shown. Call inside a running qasync loop, with a QApplication.

    Close it with `await window.shutdown()`. `closed` is set when a person closes it.
    """
    window = _window(settings, closed)
    window.complete()
    return window


def _window(settings: Settings | None, closed: asyncio.Event | None) -> MainWindow:
    """The window with its first page; the others follow its first paint."""
    settings = settings or Settings.load()
    app = QApplication.instance()
    assert isinstance(app, QApplication)
    theme.apply(app, settings.theme)
    shelf = Shelf()
    engine = Engine(Setting(shelf, settings.device, settings.rate))
    return MainWindow(Session(engine, shelf, settings), closed.set if closed else None)


def run(measure: bool = False) -> int:
    """Open the studio; returns the exit status when its window is closed."""
    app = QApplication(sys.argv[:1])
    app.setApplicationName("score-studio")
    app.setApplicationDisplayName("Score Studio")
    QGuiApplication.setDesktopFileName("score-studio")
    # A brush wants every point that the pointer passed.
    QApplication.setAttribute(Qt.ApplicationAttribute.AA_CompressHighFrequencyEvents, False)
    app.setQuitOnLastWindowClosed(False)  # closing takes a moment of orderly work, see _main
    # The worker hands over the interpreter sooner, so the window's loop is never kept waiting.
    sys.setswitchinterval(0.001)
    with _crash_log(), qasync.QEventLoop(app) as loop, _only_one(measure) as alone:
        if not alone:
            return 2
        return loop.run_until_complete(_main(measure))


async def _main(measure: bool) -> int:
    closed = asyncio.Event()
    settings = Settings.load()
    crashed, first = not settings.clean, not settings.started
    window = _window(settings, closed)
    _report_bugs(window)
    if not measure:
        window.session.remember(clean=False, started=True)
    window.show()
    if measure:
        spawn(measure_window(window, closed))
    elif first and window.session.model is not None:
        QTimer.singleShot(150, window.tabs["sample"].run_or_stop)  # type: ignore[attr-defined]
    else:
        spawn(window.offer_recovery(crashed))
    await closed.wait()
    await window.shutdown()
    return 0


def _report_bugs(window: MainWindow) -> None:
    """Whatever nobody caught, in any thread or task, goes to the crash dialog and the log."""
    loop = asyncio.get_running_loop()

    def show(error: BaseException | None) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
            loop.call_soon_threadsafe(window.crashed, error)

    sys.excepthook = lambda kind, error, trace: (traceback.print_exception(error), show(error))[0]
    threading.excepthook = lambda args: show(args.exc_value)
    sys.unraisablehook = lambda args: show(args.exc_value)
    loop.set_exception_handler(lambda _, context: show(context.get("exception")))


@contextlib.contextmanager
def _crash_log() -> Iterator[TextIO | None]:
    """Where Python writes its stacks if it dies; nowhere if the folder cannot be written."""
    try:
        user_dir().mkdir(parents=True, exist_ok=True)
        with (user_dir() / "fault.log").open("a") as file:
            faulthandler.enable(file)
            yield file
            faulthandler.disable()
    except OSError:
        yield None


@contextlib.contextmanager
def _only_one(measure: bool) -> Iterator[bool]:
    """Whether this is the only studio on this person's files; says so if it is not."""
    lock = QLockFile(str(user_dir() / "studio.lock"))
    lock.setStaleLockTime(0)
    alone = measure or lock.tryLock(100) or lock.error() != QLockFile.LockError.LockFailedError
    if not alone:
        text = "Score Studio is already open. Use the window that is there, or close it first."
        print(f"score-studio: {text}", file=sys.stderr)  # noqa: T201
        box = QMessageBox(QMessageBox.Icon.Information, "Score Studio", text)
        QTimer.singleShot(20_000, box.close)
        box.exec()
    try:
        yield alone
    finally:
        lock.unlock()


if __name__ == "__main__":
    sys.exit(run("--measure" in sys.argv))
