"""How lanes are looked at: which view of the state, in what arrangement, through which lenses."""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.engine.trajectory import VIEWS
from studio.ui import theme
from studio.ui.compare.lanes_view import DENSITY, MODES, LanesView
from studio.ui.compare.lenses import GAINS
from studio.ui.compare.marks import LETTERS

#: The views in the order of the buttons: what a person wants to see first comes first.
_VIEWS = ("denoised", "x", "score", "change", DENSITY)
assert sorted(_VIEWS) == sorted((*VIEWS, DENSITY))


class ViewBar(QWidget):
    """Two rows of buttons over a LanesView, which they steer. `saves` is a button put at the end."""

    mode_changed = Signal(str)
    view_changed = Signal(str)

    def __init__(self, view: LanesView, saves: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._view = view
        self.views, self.modes = QButtonGroup(self), QButtonGroup(self)
        self.pair = self._pair()
        self.options = self._options()
        self.loupe = self._switch(
            "loupe",
            "loupe",
            self.tr("Loupe"),
            self.tr(
                "See the denoised estimate through a lens in the noisy state, where the pointer is; "
                "[ and ] change its size (O)"
            ),
        )
        self.arrows = self._switch(
            "arrows",
            "arrows",
            self.tr("Arrows"),
            self.tr(
                "Where the score pulls each patch of a picture: up brighter, down darker, right redder, "
                "left bluer; longest at twice the pull of pure noise (V)"
            ),
        )
        above, below = QHBoxLayout(), QHBoxLayout()
        above.setSpacing(0)
        below.setSpacing(0)
        self._segments(above, self.views, "view", zip(_VIEWS, *self._view_words(), strict=True))
        above.addStretch()
        for widget in (self.loupe, self.arrows, saves):
            above.addWidget(widget)
        self._segments(below, self.modes, "mode", zip(MODES, *self._mode_words(), strict=True))
        below.addSpacing(8)
        below.addWidget(self.pair)
        below.addSpacing(8)
        below.addWidget(self.options, 1)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(above)
        box.addLayout(below)
        self._connect()
        self.set_lanes(2)

    # ---- parts --------------------------------------------------------------------------------

    def _view_words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (
            (
                self.tr("Denoised"),
                self.tr("Noisy state"),
                self.tr("Score"),
                self.tr("Change"),
                self.tr("Density"),
            ),
            (
                self.tr("What the model expects to come out (X)"),
                self.tr("x_t itself, scaled so that it can be seen (X)"),
                self.tr("How strongly each pixel is pulled: ‖s·score‖ (X)"),
                self.tr("What moved since the picture before (X)"),
                self.tr(
                    "By how much the log density of each pixel has grown since noise, along the flow (X)"
                ),
            ),
        )

    def _mode_words(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (
            (self.tr("Side by side"), self.tr("Wipe"), self.tr("Blink"), self.tr("Difference")),
            (
                self.tr("Every lane beside the others (M)"),
                self.tr("One lane left of a line, the other right of it; drag the line (M)"),
                self.tr("One lane in the place of the other; hold Space to see it (M)"),
                self.tr("Red where the second lane is higher, blue where the first is (M)"),
            ),
        )

    def _segments(
        self,
        row: QHBoxLayout,
        group: QButtonGroup,
        kind: str,
        words: Iterable[tuple[str, str, str]],
    ) -> None:
        for i, (name, text, tip) in enumerate(words):
            button = QPushButton(text)
            button.setCheckable(True)
            button.setChecked(i == 0)
            button.setObjectName(f"{kind}_{name}")
            button.setProperty("segment", True)
            button.setToolTip(tip)
            group.addButton(button, i)
            row.addWidget(button)

    def _switch(self, icon: str, name: str, text: str, tip: str) -> QToolButton:
        button = QToolButton()
        button.setObjectName(name)
        button.setText(text)
        button.setIcon(theme.icon(icon))
        button.setCheckable(True)
        button.setAccessibleName(text)
        button.setToolTip(tip)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        return button

    def _pair(self) -> QComboBox:
        combo = QComboBox()
        combo.setObjectName("pair")
        combo.setAccessibleName(self.tr("Which two lanes"))
        combo.setToolTip(self.tr("Which two lanes are seen in one frame"))
        return combo

    def _options(self) -> QStackedWidget:
        """What each arrangement has to set."""
        self.share = self._slider(100, self.tr("Where the line lies"))
        self.share.setValue(50)
        self.gain = self._slider(len(GAINS) - 1, self.tr("How much the difference is enlarged"))
        self.gain.setPageStep(1)
        self.gain.setValue(GAINS.index(self._view.gain))
        self.gain_told = QLabel()
        self.auto = self._switch(
            "swap", "blinking", self.tr("By itself"), self.tr("Change lanes twice a second")
        )
        pages = QStackedWidget()
        for widgets in ((), (self.share,), (self.auto,), (self.gain, self.gain_told)):
            page = QWidget()
            row = QHBoxLayout(page)
            row.setContentsMargins(0, 0, 0, 0)
            for widget in widgets:
                row.addWidget(widget)
            row.addStretch()
            pages.addWidget(page)
        return pages

    def _slider(self, most: int, name: str) -> QSlider:
        slider = QSlider(Qt.Orientation.Horizontal)
        slider.setObjectName("gain" if most < 100 else "wipe")
        slider.setRange(0, most)
        slider.setFixedWidth(120)
        slider.setAccessibleName(name)
        slider.setToolTip(name)
        return slider

    def _connect(self) -> None:
        view = self._view
        self.views.idClicked.connect(lambda i: self.set_view(_VIEWS[i]))
        self.modes.idClicked.connect(lambda i: self.set_mode(MODES[i]))
        self.pair.activated.connect(lambda _: view.set_pair(self.pair.currentData()))
        self.share.valueChanged.connect(lambda v: view.set_share(v / 100))
        view.share_changed.connect(self._share_moved)
        self.gain.valueChanged.connect(self._gain_moved)
        self.auto.toggled.connect(view.set_blinking)
        self.loupe.toggled.connect(self._loupe_switched)
        self.arrows.toggled.connect(view.set_arrows)
        self._gain_moved(self.gain.value())

    # ---- verbs --------------------------------------------------------------------------------

    def set_lanes(self, count: int) -> None:
        """So many lanes: which pairs there are."""
        known = self.pair.currentData()
        self.pair.clear()
        for b in range(count):
            for a in range(b):
                self.pair.addItem(f"{LETTERS[a]} – {LETTERS[b]}", (a, b))
        at = max(0, self.pair.findData(known))
        self.pair.setCurrentIndex(at)
        self._view.set_pair(self.pair.itemData(at))
        self._fit()

    def set_mode(self, mode: str) -> None:
        at = MODES.index(mode)
        self.modes.button(at).setChecked(True)
        self.options.setCurrentIndex(at)
        self.auto.setChecked(False)
        self._fit()
        self._view.set_mode(mode)
        self.mode_changed.emit(mode)

    def set_view(self, view: str) -> None:
        self.views.button(_VIEWS.index(view)).setChecked(True)
        self._view.set_view(view)
        self.view_changed.emit(view)

    def next_view(self) -> None:
        self.set_view(_VIEWS[(self.views.checkedId() + 1) % len(_VIEWS)])

    def next_mode(self) -> None:
        self.set_mode(MODES[(self.modes.checkedId() + 1) % len(MODES)])

    def _fit(self) -> None:
        """Which lanes is a question only where there are more than two, and two are seen."""
        self.pair.setVisible(self.modes.checkedId() > 0 and self.pair.count() > 1)
        apart = self.modes.checkedId() != MODES.index("difference")
        self.loupe.setEnabled(apart)
        self.arrows.setEnabled(apart)

    def _share_moved(self, share: float) -> None:
        self.share.blockSignals(True)
        self.share.setValue(round(100 * share))
        self.share.blockSignals(False)

    def _gain_moved(self, at: int) -> None:
        self.gain_told.setText(f"×{GAINS[at]}")
        self._view.set_gain(GAINS[at])

    def _loupe_switched(self, on: bool) -> None:
        """A lens of the estimate lies in the noisy state."""
        if on and self._view.view == "denoised":
            self.set_view("x")
        self._view.set_loupe(on)
