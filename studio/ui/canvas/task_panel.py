"""What is wanted of the picture: the task and its method, how a box larger than the model is done, and
whether it is done again after each stroke.
"""

from __future__ import annotations

from typing import Literal

from PySide6.QtCore import QEvent, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from studio.diffusion.tasks import Inpaint, Task
from studio.ui import theme
from studio.ui.form import Choice

#: Of live mode: switched off; waiting for a stroke; at work on the last one; done with it.
LiveState = Literal["off", "waiting", "working", "fresh"]

WAYS = ("box", "windows", "cascade")


class TaskPanel(QWidget):
    """Edits a Task. Emits `changed` when a person changes it, or the way large pictures are done."""

    changed = Signal()
    live_changed = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("taskPanel")
        self.choice = Choice(Task, Inpaint(), "task")
        self.ways = self._ways()
        self.about_way = QLabel()
        self.about_way.setObjectName("aboutWay")
        self.about_way.setProperty("role", "muted")
        self.about_way.setWordWrap(True)
        self.live_box = QCheckBox(self.tr("Live"))
        self.live_box.setObjectName("live")
        self.live_box.setAccessibleName(self.tr("Live"))
        self.live_box.setToolTip(self.tr("Do it again by itself, shortly after each stroke"))
        self.live_state = LiveSign()
        self.live_state.setObjectName("liveState")
        self._lay_out()
        self.choice.changed.connect(lambda _: self.changed.emit())
        self.ways.activated.connect(self._way_chosen)
        self.live_box.toggled.connect(self._live_toggled)
        self._tell_way()

    def task(self) -> Task:
        """The Task as it is set. Raises SpecError if one of its options makes no sense."""
        return self.choice.value()

    def set_task(self, task: Task) -> None:
        """Show another Task, without a signal."""
        self.choice.set_value(task)

    def way(self) -> str:
        """How a box larger than the model is done: one of WAYS."""
        return self.ways.currentData()

    def set_way(self, way: str) -> None:
        """Show another of WAYS, without a signal. Raises ValueError if it is none."""
        if way not in WAYS:
            raise ValueError(f"large pictures are done by one of {', '.join(WAYS)}, not {way!r}")
        self.ways.setCurrentIndex(self.ways.findData(way))
        self._tell_way()

    @property
    def live(self) -> bool:
        """Whether it is done again after each stroke."""
        return self.live_box.isChecked()

    @live.setter
    def live(self, on: bool) -> None:
        self.live_box.setChecked(on)

    def set_live_state(self, state: LiveState) -> None:
        """Say what live mode is doing."""
        self.live_state.set_state(state)

    def _ways(self) -> QComboBox:
        combo = QComboBox()
        combo.setObjectName("way")
        combo.setAccessibleName(self.tr("Large pictures"))
        for way, title, about in (
            (
                "box",
                self.tr("Fit the box to the model"),
                self.tr(
                    "The box is made as small as the model's pictures and enlarged again: quick, "
                    "and sharp while the box is not much larger than they are."
                ),
            ),
            (
                "windows",
                self.tr("Windows at full size"),
                self.tr(
                    "Overlapping windows of the model's size are drawn together: all the detail, "
                    "but no window sees the whole, and each costs a call."
                ),
            ),
            (
                "cascade",
                self.tr("Small first, then windows"),
                self.tr(
                    "The whole is drawn small, then refined in windows at full size: good shapes "
                    "and all the detail, for the most work."
                ),
            ),
        ):
            combo.addItem(title, way)
            combo.setItemData(combo.count() - 1, about, Qt.ItemDataRole.ToolTipRole)
        return combo

    def _lay_out(self) -> None:
        large = QVBoxLayout()
        large.setSpacing(6)
        large.addWidget(self._title(self.tr("Large pictures"), self.ways))
        large.addWidget(self.ways)
        large.addWidget(self.about_way)
        live = QHBoxLayout()
        live.setSpacing(8)
        live.addWidget(self.live_box)
        live.addWidget(self.live_state, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(10)
        box.addWidget(self._title(self.tr("Task"), self.choice.combo))
        box.addWidget(self.choice)
        box.addLayout(large)
        box.addLayout(live)

    def _title(self, text: str, buddy: QWidget) -> QLabel:
        label = QLabel(text)
        label.setProperty("role", "heading")
        label.setBuddy(buddy)
        return label

    def _way_chosen(self, _: int) -> None:
        self._tell_way()
        self.changed.emit()

    def _tell_way(self) -> None:
        about = self.ways.currentData(Qt.ItemDataRole.ToolTipRole)
        self.about_way.setText(about)
        self.ways.setToolTip(about)

    def _live_toggled(self, on: bool) -> None:
        self.live_state.set_state("waiting" if on else "off")
        self.live_changed.emit(on)


class LiveSign(QWidget):
    """A dot, told apart by its shape as well as its colour, and words beside it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state: LiveState = "off"
        self._bright = True
        self._words = {
            "off": "",
            "waiting": self.tr("waits for the next stroke"),
            "working": self.tr("working…"),
            "fresh": self.tr("up to date"),
        }
        # A run shorter than a beat does not blink.
        self._beat = QTimer(self, interval=450)
        self._beat.timeout.connect(self._blink)
        self._tell()

    @property
    def state(self) -> LiveState:
        return self._state

    def set_state(self, state: LiveState) -> None:
        """Show another state. Raises ValueError if there is no such one."""
        if state not in self._words:
            raise ValueError(f"live mode is one of {', '.join(self._words)}, not {state!r}")
        if state == self._state:
            return
        self._state, self._bright = state, True
        if state == "working":
            self._beat.start()
        else:
            self._beat.stop()
        self._tell()
        self.update()

    def sizeHint(self) -> QSize:
        """Room for the longest words, so that nothing moves when they change."""
        widths = (self.fontMetrics().horizontalAdvance(text) for text in self._words.values())
        return QSize(20 + max(widths), self.fontMetrics().height() + 4)

    def minimumSizeHint(self) -> QSize:
        return QSize(20, self.sizeHint().height())

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self.update()
        super().changeEvent(event)

    def _blink(self) -> None:
        self._bright = not self._bright
        if self.isVisible():
            self.update()

    def _tell(self) -> None:
        self.setAccessibleName(self._words[self._state] or self.tr("off"))
        self.setToolTip(self._words[self._state])

    def paintEvent(self, event: QPaintEvent) -> None:
        if self._state == "off":
            return
        c = theme.colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = {"waiting": c.muted, "working": c.accent, "fresh": c.good}[self._state]
        painter.setPen(QPen(QColor(ink), 1.5))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        if self._state == "fresh" or (self._state == "working" and self._bright):
            painter.setBrush(QColor(ink))
        middle = self.height() / 2
        painter.drawEllipse(3, round(middle - 4), 8, 8)
        painter.setPen(QColor(c.text if self._state == "working" else c.muted))
        words = self.rect().adjusted(18, 0, 0, 0)
        fitting = self.fontMetrics().elidedText(
            self._words[self._state], Qt.TextElideMode.ElideRight, words.width()
        )
        painter.drawText(words, Qt.AlignmentFlag.AlignVCenter, fitting)
        painter.end()
