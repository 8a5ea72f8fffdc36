"""What the Train mode says before there is a folder: what to give it, and how much is enough."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from studio.ui import theme

_WIDTH = 400  # of a line that is easily read


class Welcome(QWidget):
    """A place to drop a folder; `choose_requested` asks for one."""

    choose_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("trainWelcome")
        self._over = False
        title = QLabel(self.tr("Drop a folder of pictures here"))
        title.setProperty("role", "title")
        body = QLabel(
            self.tr(
                "Any names, any sizes, folders inside folders. From 200 pictures on a model learns "
                "their manner; with fewer than 50 it learns them by heart. One large photo is enough "
                "for a texture."
            )
        )
        body.setWordWrap(True)
        body.setFixedWidth(_WIDTH)
        body.ensurePolished()
        body.setMinimumHeight(body.heightForWidth(_WIDTH))
        private = QLabel(self.tr("Nothing leaves this machine."))
        private.setProperty("role", "muted")
        choose = QPushButton(self.tr("Choose a folder…"))
        choose.setObjectName("welcomeChoose")
        choose.setProperty("primary", True)
        choose.setIcon(theme.icon("open", "on_accent"))
        choose.setIconSize(QSize(16, 16))
        choose.setToolTip(self.tr("Choose a folder of pictures (Ctrl+O)"))
        choose.clicked.connect(self.choose_requested)
        box = QVBoxLayout(self)
        box.setSpacing(12)
        box.addStretch()
        for label in (title, body, private):
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            box.addWidget(label, 0, Qt.AlignmentFlag.AlignHCenter)
        box.addSpacing(4)
        box.addWidget(choose, 0, Qt.AlignmentFlag.AlignHCenter)
        box.addStretch()

    def set_over(self, over: bool) -> None:
        """Whether something is dragged over it."""
        if over != self._over:
            self._over = over
            self.update()

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.PaletteChange:
            self.update()
        super().changeEvent(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        c = theme.colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        box = QRectF(self.rect()).adjusted(1, 1, -1, -1)
        painter.setBrush(QColor(c.accent_soft if self._over else c.stage))
        pen = QPen(QColor(c.accent if self._over else c.edge), 1.5, Qt.PenStyle.DashLine)
        painter.setPen(pen)
        painter.drawRoundedRect(box, 10, 10)
        painter.end()
