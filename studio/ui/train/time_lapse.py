"""Through a training by its sheets: a slider, steps back and on, and play."""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSlider, QToolButton, QWidget

from studio.ui import theme
from studio.ui.train import words

_FRAME = 250  # milliseconds a sheet is shown while it plays
_SHORTEST = 60
_WHOLE = 6000  # milliseconds a whole training takes at most
_HOLD = 4  # how many frames the end is shown before it begins again


class TimeLapse(QWidget):
    """`moved` carries the place of the sheet to show; None of `place` follows the newest."""

    moved = Signal(int)
    film_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("timeLapse")
        self._steps: list[int] = []
        self._following, self._held = True, 0
        self._timer = QTimer(self, interval=_FRAME)
        self._timer.timeout.connect(self._tick)
        self.back = self._button("step-back", self.tr("The sheet before (,)"))
        self.play = self._button("play", self.tr("Play through the training (L)"))
        self.on = self._button("step", self.tr("The next sheet (.)"))
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setObjectName("sheetSlider")
        self.slider.setAccessibleName(self.tr("Step of the training"))
        self.slider.setToolTip(self.tr("Through the training, by the samples that were drawn"))
        self.told = QLabel()
        self.told.setObjectName("sheetStep")
        self.told.setProperty("role", "muted")
        self.latest = QToolButton()
        self.latest.setObjectName("sheetLatest")
        self.latest.setText(self.tr("Latest"))
        self.latest.setCheckable(True)
        self.latest.setToolTip(self.tr("Follow the training: show samples as they come (End)"))
        self.film = self._button("film", self.tr("Save a film of the training (Ctrl+E)"))
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        for widget in (self.back, self.play, self.on):
            row.addWidget(widget)
        row.addWidget(self.slider, 1)
        row.addWidget(self.told)
        row.addWidget(self.latest)
        row.addWidget(self.film)
        self.back.clicked.connect(lambda: self.walk(-1))
        self.on.clicked.connect(lambda: self.walk(1))
        self.play.clicked.connect(self.play_or_stop)
        self.slider.valueChanged.connect(self._slid)
        self.latest.clicked.connect(self.follow)
        self.film.clicked.connect(self.film_requested)
        self._show()

    def _button(self, icon: str, tip: str) -> QToolButton:
        button = QToolButton()
        button.setIcon(theme.icon(icon))
        button.setObjectName(f"lapse_{icon}")
        button.setToolTip(tip)
        button.setAccessibleName(tip)
        return button

    # -- what there is ------------------------------------------------------------------------------

    def set_steps(self, steps: list[int]) -> None:
        """The steps of the sheets there are."""
        if steps == self._steps:
            return
        step = self._steps[self.slider.value()] if self._steps else 0
        self._steps = steps
        near = range(len(steps))
        at = len(steps) - 1 if self._following else min(near, key=lambda i: abs(steps[i] - step))
        was = self.slider.blockSignals(True)
        self.slider.setRange(0, max(0, len(steps) - 1))
        self.slider.setValue(max(0, at))
        self.slider.blockSignals(was)
        self._show()

    @property
    def place(self) -> int | None:
        """The place of the sheet that is looked at; None while following."""
        return None if self._following else self.slider.value()

    @property
    def playing(self) -> bool:
        return self._timer.isActive()

    # -- verbs --------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Show the newest, and those that come."""
        self.stop()
        self._following = True
        self._put(len(self._steps) - 1)

    def walk(self, count: int) -> None:
        """So many sheets on; past the last it follows."""
        self.stop()
        at = self.slider.value() + count
        self._following = at >= len(self._steps)
        self._put(min(max(at, 0), len(self._steps) - 1))

    def play_or_stop(self) -> None:
        if self.playing:
            self.stop()
        elif len(self._steps) > 1:
            self._following, self._held = False, 0
            if self.slider.value() == len(self._steps) - 1:
                self._put(0)
            self._timer.start(min(_FRAME, max(_SHORTEST, _WHOLE // len(self._steps))))
            self._show()

    def stop(self) -> None:
        self._timer.stop()
        self._show()

    def _tick(self) -> None:
        at = self.slider.value() + 1
        if at < len(self._steps):
            self._put(at)
            return
        self._held += 1
        if self._held > _HOLD:
            self._held = 0
            self._put(0)

    def _slid(self, place: int) -> None:
        """A person moved the slider."""
        self.stop()
        self._following = False
        self._show()
        self.moved.emit(place)

    def _put(self, place: int) -> None:
        if place < 0:
            return
        was = self.slider.blockSignals(True)
        self.slider.setValue(place)
        self.slider.blockSignals(was)
        self._show()
        self.moved.emit(place)

    def _show(self) -> None:
        many = len(self._steps) > 1
        for widget in (self.back, self.play, self.on, self.slider, self.film):
            widget.setEnabled(many)
        self.latest.setEnabled(bool(self._steps))
        self.latest.setChecked(self._following)
        self.play.setIcon(theme.icon("pause" if self.playing else "play"))
        text = ""
        if self._steps:
            text = self.tr("step {0}").format(words.count(self._steps[self.slider.value()]))
        self.told.setText(text)
        self.slider.setAccessibleDescription(text)
