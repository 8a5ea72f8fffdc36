"""The files that cannot be read and why, as a list that can be copied."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from studio.training.folder import File

_MOST = 2000  # lines; a folder of a hundred thousand broken files needs no longer list


class Unreadable(QDialog):
    """Opened, never exec()ed. The files themselves are left as they are."""

    def __init__(self, files: Sequence[File], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("unreadableDialog")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Files that cannot be read"))
        self.resize(680, 420)
        self._files = files
        told = QLabel(self.tr("They are left out of the training, and stay as they are on disk."))
        told.setWordWrap(True)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        copy = QPushButton(self.tr("Copy the list"))
        copy.setObjectName("copyUnreadable")
        copy.setToolTip(self.tr("A line a file: its path, a tab, and the reason"))
        copy.clicked.connect(self.copy)
        buttons.addButton(copy, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.rejected.connect(self.close)
        box = QVBoxLayout(self)
        box.addWidget(told)
        box.addWidget(self._table())
        box.addWidget(buttons)

    def _table(self) -> QTableWidget:
        shown = self._files[:_MOST]
        self.table = QTableWidget(len(shown), 2)
        self.table.setObjectName("unreadableList")
        self.table.setAccessibleName(self.windowTitle())
        self.table.setHorizontalHeaderLabels([self.tr("File"), self.tr("Why")])
        self.table.verticalHeader().hide()
        self.table.setShowGrid(False)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        across = self.table.horizontalHeader()
        across.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        across.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        across.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft)
        self.table.setColumnWidth(0, 220)
        for row, file in enumerate(shown):
            for column, text in enumerate((file.path, file.reason)):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                self.table.setItem(row, column, item)
        return self.table

    def text(self) -> str:
        """The whole list, a line a file."""
        return "\n".join(f"{file.path}\t{file.reason}" for file in self._files)

    def copy(self) -> None:
        QGuiApplication.clipboard().setText(self.text())
