"""Measured pictures in order, each over its figure: those that the model finds strangest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QColor, QIcon, QPixmap
from PySide6.QtWidgets import QListView, QListWidget, QListWidgetItem, QWidget

from studio.ui import drawing, theme

_SIDE = 64
MOST = 500  # thumbnails shown; the rest are in the middle of the order, and nobody looks for them


@dataclass(frozen=True)
class Ranked:
    """A measured picture: which set it is of, its place there, and what is told of it."""

    lane: int
    index: int
    picture: np.ndarray  # uint8 (H, W, C)
    bits: float
    caption: str
    told: str  # all of it, for the tooltip
    outlier: bool = False


class Ranking(QListWidget):
    """`picked` carries (set, index) of the picture that was chosen."""

    picked = Signal(int, int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("flowRanking")
        self.setAccessibleName(self.tr("Pictures, strangest first"))
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setMovement(QListView.Movement.Static)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setIconSize(QSize(_SIDE, _SIDE))
        self.setGridSize(QSize(_SIDE + 34, _SIDE + 30))
        self.setUniformItemSizes(True)
        self.setMinimumHeight(_SIDE + 44)
        self.currentItemChanged.connect(lambda item, _: self._pick(item))

    def show_pictures(self, ranked: list[Ranked]) -> None:
        """Show these, in their order; the choice stays on its picture."""
        kept = self._chosen()
        if len(ranked) > MOST:
            ranked = ranked[: MOST // 2] + ranked[-MOST // 2 :]
        blocked = self.blockSignals(True)
        self.clear()
        for entry in ranked:
            self.addItem(_item(entry))
            if (entry.lane, entry.index) == kept:
                self.setCurrentRow(self.count() - 1)
        self.blockSignals(blocked)

    def _chosen(self) -> tuple[int, int] | None:
        item = self.currentItem()
        return None if item is None else tuple(item.data(Qt.ItemDataRole.UserRole))

    def _pick(self, item: QListWidgetItem | None) -> None:
        if item is not None:
            self.picked.emit(*item.data(Qt.ItemDataRole.UserRole))


def _item(entry: Ranked) -> QListWidgetItem:
    image = drawing.image_of(entry.picture)
    crisp = max(image.width(), image.height()) <= _SIDE
    mode = (
        Qt.TransformationMode.FastTransformation
        if crisp
        else Qt.TransformationMode.SmoothTransformation
    )
    small = image.scaled(_SIDE, _SIDE, Qt.AspectRatioMode.KeepAspectRatio, mode)
    item = QListWidgetItem(QIcon(QPixmap.fromImage(small)), entry.caption)
    item.setData(Qt.ItemDataRole.UserRole, (entry.lane, entry.index))
    item.setToolTip(entry.told)
    item.setData(Qt.ItemDataRole.AccessibleTextRole, entry.told)
    if entry.outlier:
        item.setForeground(QColor(theme.colours().warning))
    return item
