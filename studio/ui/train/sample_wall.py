"""Samples from fixed seeds through a training: of any step, against the beginning, and each beside the
training picture that is nearest to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent, QPainter
from PySide6.QtWidgets import QButtonGroup, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from studio.engine.sheets import Sheet
from studio.ui.compare import lenses
from studio.ui.picture_view import PictureView
from studio.ui.train.gauge import Gauge

VIEWS = ("samples", "before", "wipe", "nearest")
_GRIP = 14.0  # how near the line of a wipe is taken
_SEAM = 2  # pixels between a sample and its nearest


class SampleWall(QWidget):
    """Shows one Sheet. Space, held, shows the beginning; Shift+Left and Shift+Right move the wipe."""

    view_changed = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("sampleWall")
        self.share = 0.5
        self._sheet: Sheet | None = None
        self._before: Sheet | None = None
        self._held = self._dragging = False
        self._names = ("", "")
        self.pictures = PictureView()
        self.pictures.setObjectName("trainSamples")
        self.pictures.setToolTip("")
        self.pictures.installEventFilter(self)
        self.pictures.set_overlay(self._paint_over)
        self.gauge = Gauge()
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(self._bar())
        box.addWidget(self.pictures, 1)

    def _bar(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(0)
        self.views = QButtonGroup(self)
        for i, (text, tip) in enumerate(
            (
                (self.tr("Samples"), self.tr("From the same noise at every step")),
                (self.tr("Before"), self.tr("The same noise before the training (Space, held)")),
                (self.tr("Wipe"), self.tr("Before at the left of the line, now at the right")),
                (
                    self.tr("Nearest"),
                    self.tr("Below each sample the picture learned from that is nearest to it"),
                ),
            )
        ):
            button = QPushButton(text)
            button.setObjectName(f"sheet_{VIEWS[i]}")
            button.setProperty("segment", True)
            button.setCheckable(True)
            button.setChecked(i == 0)
            button.setToolTip(f"{tip} (X)")
            self.views.addButton(button, i)
            row.addWidget(button)
        row.addStretch()
        row.addWidget(self.gauge)
        self.views.idClicked.connect(lambda _: self._changed())
        return row

    # -- what is shown ------------------------------------------------------------------------------

    def show_sheet(self, sheet: Sheet | None, before: Sheet | None) -> None:
        """Samples of a step, and those of the beginning."""
        if sheet is self._sheet and before is self._before:
            return
        self._sheet, self._before = sheet, before
        self._draw()

    def set_empty_text(self, title: str, body: str) -> None:
        self.pictures.set_empty_text(title, body)

    def set_memorised(self, share: float) -> None:
        """What the gauge says."""
        self.gauge.set_share(share)

    @property
    def view(self) -> str:
        """How it is shown, one of VIEWS."""
        return VIEWS[max(0, self.views.checkedId())]

    def set_view(self, view: str) -> None:
        self.views.button(VIEWS.index(view)).setChecked(True)
        self._changed()

    def next_view(self) -> None:
        self.set_view(VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)])

    def set_share(self, share: float) -> None:
        """Where the wipe lies, from 0 to 1."""
        self.share = min(max(share, 0.0), 1.0)
        self._draw()

    def _changed(self) -> None:
        self.pictures.solo = None
        self._draw()
        self.view_changed.emit(self.view)

    def _draw(self) -> None:
        sheet = self._sheet
        if sheet is None or not len(sheet.pictures):
            self.pictures.clear()
            return
        self.pictures.set_pictures(self._shown(sheet))
        self.pictures.set_captions(self._captions(sheet))
        early = self._before_seen and self._before is not None
        step = self._before.step if early and self._before else sheet.step
        self.pictures.set_hud(self.tr("step {step}").format(step=step))

    @property
    def _before_seen(self) -> bool:
        return self._held or self.view == "before"

    def _shown(self, sheet: Sheet) -> np.ndarray:
        before = self._before
        alike = before is not None and before.pictures.shape == sheet.pictures.shape
        if before is not None and alike:
            if self._before_seen:
                return before.pictures
            if self.view == "wipe":
                return lenses.wiped(before.pictures, sheet.pictures, self.share)
        if self.view == "nearest" and sheet.nearest.shape == sheet.pictures.shape:
            return paired(sheet.pictures, sheet.nearest)
        return sheet.pictures

    def _captions(self, sheet: Sheet) -> list[str]:
        if self.view != "nearest":
            return []
        said = self.tr("{distance} grey levels from its nearest")
        return [said.format(distance=f"{d:.1f}") for d in sheet.distance]

    def _paint_over(self, painter: QPainter, view: PictureView) -> None:
        if self._wiping and view.count:
            lenses.paint_wipe(painter, view, self.share, (self.tr("Before"), self.tr("Now")))

    @property
    def _wiping(self) -> bool:
        both = self._sheet is not None and self._before is not None
        return self.view == "wipe" and both and not self._held

    # -- the wipe and the blink ---------------------------------------------------------------------

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QKeyEvent):
            return self._key(event)
        if self._wiping and isinstance(event, QMouseEvent) and self._wipe(event):
            return True
        return super().eventFilter(watched, event)

    def _wipe(self, event: QMouseEvent) -> bool:
        """Take the line where it is near, and drag it. Whether the event was for it."""
        at, kind = event.position(), event.type()
        if kind == QEvent.Type.MouseButtonRelease and self._dragging:
            self._dragging = False
            return True
        index = self.pictures.index_at(at)
        if self._dragging and event.buttons() & Qt.MouseButton.LeftButton:
            box = self.pictures.cell_rect(self.pictures.current if index is None else index)
            if box.width() > 0:
                self.set_share((at.x() - box.left()) / box.width())
            return True
        near = False
        if index is not None:
            line = lenses.wipe_line(self.pictures, index, self.share)
            near = abs(at.x() - line.x1()) <= min(_GRIP, line.length() / 4)
        if kind == QEvent.Type.MouseMove and not event.buttons():
            shape = Qt.CursorShape.SplitHCursor if near else Qt.CursorShape.ArrowCursor
            self.pictures.setCursor(shape)
        if kind == QEvent.Type.MouseButtonPress and near:
            self._dragging = event.button() == Qt.MouseButton.LeftButton
        return self._dragging

    def _key(self, event: QKeyEvent) -> bool:
        command = self._command(event)
        if command is None:
            return False
        event.accept()
        if event.type() != QEvent.Type.ShortcutOverride:
            command()
        return True

    def _command(self, event: QKeyEvent) -> Callable[[], Any] | None:
        key, shift = event.key(), event.modifiers() == Qt.KeyboardModifier.ShiftModifier
        if key == Qt.Key.Key_Space:
            held = event.type() != QEvent.Type.KeyRelease
            return (lambda: None) if event.isAutoRepeat() else lambda: self._hold(held)
        if event.type() == QEvent.Type.KeyRelease:
            return None
        if self._wiping and shift and key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            step = 0.05 if key == Qt.Key.Key_Right else -0.05
            return lambda: self.set_share(self.share + step)
        return None

    def _hold(self, held: bool) -> None:
        if held != self._held:
            self._held = held
            self._draw()


def paired(samples: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Each sample above its nearest picture, uint8 (N, 2 H + seam, W, C)."""
    count, _, width, colours = samples.shape
    seam = np.zeros((count, _SEAM, width, colours), np.uint8)
    return np.concatenate([samples, seam, nearest], 1)
