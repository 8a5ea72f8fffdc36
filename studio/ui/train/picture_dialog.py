"""One picture of the folder, closely: its square, whether it is used, and what the model sees of it."""

from __future__ import annotations

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QImage, QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QCheckBox,
    QDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.training.choices import Crop
from studio.training.folder import File
from studio.ui import theme
from studio.ui.train.crop_view import CropView

LARGE = 900  # the side at which a picture is fetched


class PictureDialog(QDialog):
    """Stays open while a person goes from picture to picture.

    `step_requested` carries how many pictures to go on, `cropped` a path and a Crop or None, `used`
    a path and whether it is to be learned from.
    """

    step_requested = Signal(int)
    cropped = Signal(str, object)
    used = Signal(str, bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("pictureDialog")
        self.resize(760, 600)
        self.path = ""
        self.view = CropView()
        self.view.changed.connect(self._cropped)
        self.facts = QLabel()
        self.facts.setProperty("role", "muted")
        self.facts.setTextFormat(Qt.TextFormat.PlainText)
        self.facts.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.use = QCheckBox(self.tr("Learn from this picture"))
        self.use.setObjectName("pictureUsed")
        self.use.setToolTip(self.tr("Delete leaves it out or takes it in again"))
        self.use.toggled.connect(lambda on: self.used.emit(self.path, on))
        self.reset = QPushButton(self.tr("Back to the framing"))
        self.reset.setObjectName("cropReset")
        self.reset.setToolTip(self.tr("Forget the square that was drawn for this picture"))
        self.reset.clicked.connect(self._reset)
        self.back = self._arrow("step-back", self.tr("The picture before (Page up)"), -1)
        self.on = self._arrow("step", self.tr("The next picture (Page down)"), 1)
        close = QPushButton(self.tr("Close"))
        close.setObjectName("pictureClose")
        close.setToolTip(self.tr("Back to the wall (Esc); every change is kept already"))
        close.clicked.connect(self.close)
        self._lay_out(close)
        QShortcut(QKeySequence("PgUp"), self, lambda: self.step_requested.emit(-1))
        QShortcut(QKeySequence("PgDown"), self, lambda: self.step_requested.emit(1))
        QShortcut(QKeySequence("Del"), self, self.use.toggle)

    def _arrow(self, icon: str, tip: str, step: int) -> QToolButton:
        button = QToolButton()
        button.setObjectName(f"picture_{icon}")
        button.setIcon(theme.icon(icon))
        button.setToolTip(tip)
        button.setAccessibleName(tip)
        button.clicked.connect(lambda: self.step_requested.emit(step))
        return button

    def _lay_out(self, close: QPushButton) -> None:
        top = QHBoxLayout()
        top.addWidget(self.back)
        top.addWidget(self.on)
        top.addWidget(self.facts, 1)
        below = QHBoxLayout()
        below.addWidget(self.use)
        below.addStretch()
        below.addWidget(self.reset)
        below.addWidget(close)
        box = QVBoxLayout(self)
        box.setContentsMargins(12, 10, 12, 12)
        box.addLayout(top)
        box.addWidget(self.view, 1)
        box.addLayout(below)

    # -- what is shown ------------------------------------------------------------------------------

    def show_file(
        self, file: File, crop: Crop | None, framing: str, used: bool, image: QImage | None
    ) -> None:
        """A picture; the image is a small one until `show_image` brings it."""
        self.path = file.path
        self.setWindowTitle(file.path.rpartition("/")[2])
        self.view.show_file(file, crop, framing == "centre")
        if image is not None and not image.isNull():
            self.view.set_image(image)
        was = self.use.blockSignals(True)
        self.use.setChecked(used)
        self.use.blockSignals(was)
        self._tell(file)

    def show_image(self, path: str, image: QImage) -> None:
        """The picture in full, if it is still the one that is looked at."""
        if path == self.path and not image.isNull():
            self.view.set_image(image)

    def set_locked(self, locked: bool) -> None:
        """While a run goes on, nothing is changed."""
        for widget in (self.view, self.use, self.reset):
            widget.setEnabled(not locked)

    def _tell(self, file: File) -> None:
        self.facts.setText(f"{file.path}   {file.size[0]} × {file.size[1]}")
        self.facts.setToolTip(file.path)
        self.reset.setEnabled(self.view.crop is not None)

    def _cropped(self, crop: Crop) -> None:
        self.reset.setEnabled(True)
        self.cropped.emit(self.path, crop)

    def _reset(self) -> None:
        self.view.reset()
        self.reset.setEnabled(False)
        self.cropped.emit(self.path, None)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.PaletteChange:
            self.view.update()
        super().changeEvent(event)
