"""What the empty canvas offers besides opening, pasting and dropping: pictures to try."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSize, Qt, Signal
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QHBoxLayout, QLabel, QToolButton, QVBoxLayout, QWidget

from studio.paths import resource

_SIDE = 88
_BELOW = 96  # from the centre of the canvas, where its own words end


class Samples(QWidget):
    """A row of pictures in the lower half of an empty canvas; `chosen` carries the file of one."""

    chosen = Signal(object)

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas)
        self.setObjectName("samples")
        self._canvas, self._offered = canvas, True
        title = QLabel(self.tr("Or try one of these"))
        title.setProperty("role", "muted")
        title.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        row = QHBoxLayout()
        row.setSpacing(12)
        for name, text, credit in (
            ("kitten", self.tr("A kitten"), "David Revoy, CC BY 4.0"),
            ("robot", self.tr("A robot"), "Zikri Kader, CC BY 4.0"),
            ("robot-head", self.tr("A robot's head"), "Julian Peter Arias, CC BY 3.0"),
        ):
            row.addWidget(self._button(name, text, credit))
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addWidget(title)
        box.addLayout(row)
        canvas.installEventFilter(self)
        self._place()

    def _button(self, name: str, text: str, credit: str) -> QToolButton:
        path = resource(f"samples/{name}.png")
        button = QToolButton()
        button.setObjectName(f"sample_{name}")
        button.setAccessibleName(text)
        # The licence wants the artists named where their work is seen.
        button.setToolTip(
            self.tr("{picture}, from drawings by {artist}").format(picture=text, artist=credit)
        )
        button.setIcon(QIcon(str(path)))
        button.setIconSize(QSize(_SIDE, _SIDE))
        button.setCursor(Qt.CursorShape.PointingHandCursor)
        button.clicked.connect(lambda _=False, path=path: self.chosen.emit(path))
        return button

    def offer(self, on: bool) -> None:
        """Whether the canvas is empty."""
        self._offered = on
        self._place()

    def _place(self) -> None:
        size, canvas = self.sizeHint(), self._canvas.rect()
        top = canvas.center().y() + _BELOW
        self.setGeometry(canvas.center().x() - size.width() // 2, top, size.width(), size.height())
        # In a low window they would lie over its edge.
        self.setVisible(self._offered and top + size.height() < canvas.bottom() - 24)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize:
            self._place()
        return super().eventFilter(watched, event)
