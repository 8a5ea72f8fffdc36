"""Messages to a person: the error beside the button, the question, the crash report.

Dialogs are opened, never exec()ed: a nested event loop would tear the asyncio tasks apart.
"""

from __future__ import annotations

import asyncio
import traceback

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.errors import StudioError


class ErrorBox(QFrame):
    """What went wrong and the way out, beside the button that failed. Hidden when all is well."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("errorBox")
        self.setAccessibleName(self.tr("Problem"))
        self._text = QLabel()
        self._text.setProperty("role", "heading")
        self._text.setWordWrap(True)
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._hint = QLabel()
        self._hint.setObjectName("errorHint")
        self._hint.setWordWrap(True)
        self._hint.setTextFormat(Qt.TextFormat.PlainText)
        copy = QToolButton()
        copy.setText(self.tr("Copy"))
        copy.setToolTip(self.tr("Copy this message"))
        copy.clicked.connect(self._copy)
        close = QToolButton()
        close.setText("✕")
        close.setToolTip(self.tr("Dismiss"))
        close.setAccessibleName(self.tr("Dismiss"))
        close.clicked.connect(self.clear)
        buttons = QHBoxLayout()
        buttons.addStretch()
        buttons.addWidget(copy)
        buttons.addWidget(close)
        box = QVBoxLayout(self)
        box.setContentsMargins(10, 8, 8, 6)
        box.setSpacing(4)
        box.addWidget(self._text)
        box.addWidget(self._hint)
        box.addLayout(buttons)
        self.clear()

    def show_error(self, error: StudioError) -> None:
        self._text.setText(error.message)
        self._hint.setText(error.hint)
        self._hint.setVisible(bool(error.hint))
        self.setAccessibleDescription(str(error))
        self.show()

    def clear(self) -> None:
        self.hide()

    @property
    def text(self) -> str:
        """What is shown; empty when hidden."""
        return "" if self.isHidden() else f"{self._text.text()} {self._hint.text()}".strip()

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(f"{self._text.text()}\n{self._hint.text()}".strip())


class CrashDialog(QDialog):
    """A bug of ours: said plainly, with everything needed to report it. Work goes on behind it."""

    def __init__(self, report: str, log: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("crashDialog")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Something broke in the studio"))
        self.resize(640, 420)
        told = QLabel(
            self.tr(
                "This is a bug of the studio, not something you did. What you see can still be "
                "saved. If you report it, send the text below; the log is at {path}."
            ).format(path=log)
        )
        told.setWordWrap(True)
        details = QPlainTextEdit(report)
        details.setReadOnly(True)
        details.setAccessibleName(self.tr("Details"))
        copy = QPushButton(self.tr("Copy details"))
        copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(report))
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.addButton(copy, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.rejected.connect(self.close)
        box = QVBoxLayout(self)
        box.addWidget(told)
        box.addWidget(details)
        box.addWidget(buttons)


def report_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


async def ask(parent: QWidget, title: str, text: str, details: str, yes: str, no: str = "") -> bool:
    """A question whose safe answer is Cancel, or `no`. True if the person chose `yes`."""
    box = QMessageBox(QMessageBox.Icon.Question, title, text, parent=parent)
    box.setObjectName("question")
    box.setInformativeText(details)
    accept = box.addButton(yes, QMessageBox.ButtonRole.AcceptRole)
    safe = box.addButton(QMessageBox.StandardButton.Cancel)
    if no:
        safe.setText(no)
    box.setDefaultButton(safe)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def finished(*_: object) -> None:
        if not answer.done():
            answer.set_result(box.clickedButton() is accept)

    box.finished.connect(finished)
    box.open()
    return await answer
