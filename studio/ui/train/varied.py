"""What the model will see of one picture: a few of the ways in which it will be varied."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from studio.ui import theme
from studio.ui.picture_view import PictureView

COUNT = 6


class Varied(QWidget):
    """`again_requested` asks for other variations of the same picture."""

    again_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("augmentPreview")
        self.told = QLabel()
        self.told.setProperty("role", "muted")
        self.told.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.dice = QToolButton()
        self.dice.setObjectName("augmentAgain")
        self.dice.setIcon(theme.icon("dice"))
        self.dice.setToolTip(self.tr("Vary it again"))
        self.dice.setAccessibleName(self.tr("Vary it again"))
        self.dice.clicked.connect(self.again_requested)
        self.view = PictureView()
        self.view.setObjectName("augmentView")
        self.view.setFixedHeight(172)
        self.view.setToolTip(self.tr("What the model will see of the picture that is marked"))
        title = QLabel(self.tr("What the model sees"))
        title.setProperty("role", "heading")
        top = QHBoxLayout()
        top.setSpacing(4)
        top.addWidget(title, 1)
        top.addWidget(self.dice)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(top)
        box.addWidget(self.view)
        box.addWidget(self.told)
        self.clear()

    def show_pictures(self, name: str, pictures: np.ndarray) -> None:
        """Variations of the picture called `name`, uint8 (N, H, W, C)."""
        self.view.set_pictures(pictures)
        self._tell(name)

    def clear(self) -> None:
        """Nothing is marked."""
        self.view.clear()
        self.view.set_empty_text("", self.tr("Mark a picture to see it as the model will."))
        self._tell("")

    def _tell(self, name: str) -> None:
        metrics = self.told.fontMetrics()
        short = metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, max(60, self.width() - 8))
        self.told.setText(short)
        self.told.setToolTip(name)
        self.dice.setEnabled(bool(name))

    def sizeHint(self) -> QSize:
        return QSize(260, 200)
