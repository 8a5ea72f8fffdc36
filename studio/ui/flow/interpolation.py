"""From one picture to another through their noises: computed once, then walked with a slider."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QSize, Qt, QTimer
from PySide6.QtGui import QPixmap
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSlider,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio import recipes
from studio.engine.events import Event, Finished, Picture
from studio.engine.flow_jobs import (
    MOST_FRAMES,
    Decoded,
    Encoded,
    InterpolateJob,
    row,
    there_and_back,
)
from studio.errors import SpecError
from studio.spec import option
from studio.ui import drawing, theme
from studio.ui.fields import Rows
from studio.ui.flow.tool import Temperature, Tool, heading, muted, tool_button
from studio.ui.flow.well import Well
from studio.ui.form import Form
from studio.ui.picture_view import PictureView
from studio.ui.runner import Runner
from studio.ui.seed import SeedEdit
from studio.ui.session import Session

_TICK = 80  # milliseconds a frame while it plays
_THUMB = 40


@dataclass(frozen=True)
class Way:
    """How many pictures a way has, and how exactly they are made."""

    count: int = option(
        17,
        label="Pictures",
        range=(2, MOST_FRAMES),
        help="On the way, with both ends. More: smoother, and longer to compute.",
    )
    tolerance: float = option(
        1e-3,
        label="Tolerance",
        range=(1e-7, 0.1),
        log=True,
        help="Error allowed in a step of the solver.",
    )


class Interpolation(Tool):
    """Between two pictures, or two samples of the model by their seeds."""

    name = "interpolateRun"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setObjectName("interpolation")
        self.wells = (
            Well(
                session,
                self.tr("From"),
                self.tr("Click to choose one, or drop or paste it."),
                False,
            ),
            Well(session, self.tr("To"), self.tr("Another, the same way."), False),
        )
        for well, name in zip(self.wells, ("interpolateFrom", "interpolateTo")):
            well.setObjectName(name)
            well.changed.connect(self.changed)
            well.failed.connect(self.fail)
            well.bug.connect(self.bug)
        self.seeds = (self._seed("interpolateSeedFrom", 0), self._seed("interpolateSeedTo", 1))
        self.form = Form(Way())
        self.form.changed.connect(lambda _: self.changed())
        self.temperature = Temperature()
        self.temperature.changed.connect(lambda _: self._heated())
        self.frames: dict[int, np.ndarray] = {}
        self._count = 0
        self._noise: np.ndarray | None = None  # of both ends, (2, C, H, W)
        self.view = PictureView()
        self.view.setObjectName("interpolationView")
        self.view.set_empty_text(
            self.tr("Two pictures, and all that lies between"),
            self.tr("Choose two pictures or two seeds, press Run, then drag the slider."),
        )
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setObjectName("interpolationSlider")
        self.slider.setAccessibleName(self.tr("Place on the way"))
        self.slider.setToolTip(self.tr("Drag from one picture to the other (arrows: one frame)"))
        self.slider.valueChanged.connect(lambda _: self.show_frame())
        self._timer = QTimer(self, interval=_TICK)
        self._timer.timeout.connect(self._tick)
        self._buttons()
        self.lay_out(self._inputs(), self._view())
        self._enable()

    def title(self) -> str:
        return self.tr("Between two pictures")

    def verb(self) -> str:
        return self.tr("Find the way")

    # -- layout -------------------------------------------------------------------------------------

    def _seed(self, name: str, value: int) -> SeedEdit:
        edit = SeedEdit()
        edit.line.setObjectName(name)
        edit.set_value(value)
        edit.lock.hide()
        # R is one key, and here are two seeds.
        for dice in edit.findChildren(QToolButton, "seedDice"):
            dice.setShortcut("")
            dice.setToolTip(self.tr("A new seed by chance"))
        edit.changed.connect(lambda _: self.changed())
        return edit

    def _buttons(self) -> None:
        self.kinds = QButtonGroup(self)
        self._kind_row = QHBoxLayout()
        self._kind_row.setSpacing(0)
        for i, (text, tip) in enumerate(
            (
                (self.tr("Pictures"), self.tr("Between two pictures of yours")),
                (self.tr("Seeds"), self.tr("Between two samples of the model")),
            )
        ):
            button = QPushButton(text)
            button.setCheckable(True)
            button.setChecked(i == 0)
            button.setToolTip(tip)
            button.setObjectName(("interpolatePictures", "interpolateSeeds")[i])
            self.kinds.addButton(button, i)
            self._kind_row.addWidget(button, 1)
        self.kinds.idClicked.connect(self._kind_chosen)
        self.swap_button = tool_button("swap", self.tr("Swap"), self.tr("Exchange both ends"))
        self.swap_button.setObjectName("interpolateSwap")
        self.swap_button.clicked.connect(self.swap)
        self.play_button = tool_button(
            "play", self.tr("Play"), self.tr("There and back, again and again")
        )
        self.play_button.setObjectName("interpolatePlay")
        self.play_button.setCheckable(True)
        self.play_button.toggled.connect(self._play)
        self.save_button = tool_button(
            "film", self.tr("Save"), self.tr("Save the way as a film or strip")
        )
        self.save_button.setObjectName("interpolateSave")
        self.save_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.save_button)
        menu.addAction(self.tr("Film (GIF or WebP)…"), self._ask_film)
        menu.addAction(self.tr("Strip of all pictures…"), self._ask_strip)
        menu.addAction(self.tr("This picture…"), self._ask_frame)
        self.save_button.setMenu(menu)

    def _inputs(self) -> QWidget:
        pages = self._ends = QStackedWidget()
        for page in (self._well_page(), self._seed_page()):
            pages.addWidget(page)
        inputs = QWidget()
        box = QVBoxLayout(inputs)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addWidget(heading(self.title()))
        box.addWidget(
            muted(
                self.tr(
                    "Between two pictures the mean is a double exposure. Between their noises, on "
                    "the sphere where noise lies, everything is a picture of its own."
                )
            )
        )
        box.addLayout(self._kind_row)
        box.addWidget(pages)
        box.addWidget(self.swap_button)
        rows = Rows()
        rows.field(self.tr("Class"), self.classes)
        rows.field(self.tr("Temperature"), self.temperature)
        box.addLayout(rows)
        box.addWidget(self.form)
        box.addStretch()
        return inputs

    def _well_page(self) -> QWidget:
        page = QWidget()
        box = QVBoxLayout(page)
        box.setContentsMargins(0, 0, 0, 0)
        for well in self.wells:
            box.addWidget(well)
        return page

    def _seed_page(self) -> QWidget:
        page = QWidget()
        rows = Rows(page)
        for text, edit in zip((self.tr("From seed"), self.tr("To seed")), self.seeds):
            edit.line.setAccessibleName(text)
            rows.field(text, edit)
        return page

    def _view(self) -> QWidget:
        self._thumbs = [QLabel(), QLabel()]
        for thumb in self._thumbs:
            thumb.setFixedSize(QSize(_THUMB, _THUMB))
            thumb.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.told = muted()
        self.told.setObjectName("interpolationTold")
        walk = QHBoxLayout()
        walk.addWidget(self.play_button)
        walk.addWidget(self._thumbs[0])
        walk.addWidget(self.slider, 1)
        walk.addWidget(self._thumbs[1])
        walk.addWidget(self.save_button)
        view = QWidget()
        box = QVBoxLayout(view)
        box.setContentsMargins(8, 12, 12, 12)
        box.setSpacing(6)
        box.addWidget(self.view, 1)
        box.addLayout(walk)
        box.addWidget(self.told)
        return view

    def runners(self) -> list[Runner]:
        return [*super().runners(), *(well.reader for well in self.wells)]

    # -- what is run --------------------------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Take a picture: into the first well, or the second while the first is filled."""
        (self.wells[0] if self.wells[0].source is None else self.wells[1]).open(path)

    @property
    def of_seeds(self) -> bool:
        return self.kinds.checkedId() == 1

    def why_not(self) -> str:
        if self.session.model is None or self.session.model.info is None:
            return self.tr("There is no model on the shelf yet: get one, or train one.")
        if not self.of_seeds and any(well.given is None for well in self.wells):
            return self.tr("Choose two pictures first, or two seeds.")
        return ""

    def job(self) -> InterpolateJob:
        model, first, second = self.session.model, *(well.given for well in self.wells)
        way: Way = self.form.value()
        if self._noise is not None:
            ends: Any = (self._noise[0], self._noise[1])
        elif self.of_seeds:
            ends = (self.seeds[0].value(), self.seeds[1].value())
        elif first is not None and second is not None:
            ends = (first.pixels[0], second.pixels[0])
        else:
            raise SpecError(self.why_not())
        if model is None:
            raise SpecError(self.why_not())
        return InterpolateJob(
            model=model.name,
            tolerance=way.tolerance,
            label=self.label,
            ends=ends,
            count=way.count,
            temperature=self.temperature.value(),
        )

    def run_or_stop(self) -> None:
        if not self.runner.busy and not self.why_not():
            self._clear()
        super().run_or_stop()

    def changed(self) -> None:
        """Other ends, or otherwise found: their noise is not known."""
        self.runner.stop()
        self._noise = None
        self._clear()
        super().changed()

    def _heated(self) -> None:
        """Another temperature: the noise of both ends stays."""
        if self.runner.busy or not self.frames:
            noise = self._noise
            self.changed()
            self._noise = noise
            return
        self.run_or_stop()

    def _clear(self) -> None:
        self.frames, self._count = {}, self.form.value().count
        self.play_button.setChecked(False)
        self.view.clear()
        self.told.clear()
        self.slider.setRange(0, self._count - 1)
        self._enable()

    def _kind_chosen(self, kind: int) -> None:
        self._ends.setCurrentIndex(kind)
        self.changed()

    def swap(self) -> None:
        """Exchange the ends. What is computed is turned round, not computed again."""
        frames, noise = self.frames, self._noise
        finished = not self.runner.busy and len(frames) == self._count
        place = self.slider.value()
        seeds = self.seeds[0].value(), self.seeds[1].value()
        self.wells[0].exchange(self.wells[1])
        for edit, seed in zip(self.seeds, reversed(seeds)):
            edit.set_value(seed)
        if not finished:
            self.changed()
            return
        self.frames = {self._count - 1 - i: frame for i, frame in frames.items()}
        self._noise = None if noise is None else noise[::-1].copy()
        self.slider.setValue(self._count - 1 - place)
        self.show_frame()

    # -- events -------------------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        if isinstance(event, Encoded):
            self._noise = event.latent.noise
        elif isinstance(event, Decoded):
            self.frames |= dict(zip(event.places, event.pictures))
            self.show_frame()
        elif isinstance(event, Picture) and not self.frames:
            self.view.set_pictures(event.frame.x)
        elif isinstance(event, Finished):
            self.status.emit(self.tr("Drag the slider from one end to the other"))
            self.slider.setFocus()
        self._enable()

    def refresh(self) -> None:
        super().refresh()
        self._enable()

    def _enable(self) -> None:
        whole = bool(self.frames) and len(self.frames) == self._count
        self.slider.setEnabled(bool(self.frames))
        self.play_button.setEnabled(bool(self.frames))
        self.save_button.setEnabled(whole)

    # -- walking ------------------------------------------------------------------------------------

    def show_frame(self) -> None:
        """Show the picture at the slider, or the nearest that is there."""
        if not self.frames:
            return
        place = self.slider.value()
        nearest = min(self.frames, key=lambda i: abs(i - place))
        self.view.set_pictures(self.frames[nearest][None])
        told = self.tr("{share:.0f} % of the way, picture {place} of {count}").format(
            share=100 * place / max(1, self._count - 1), place=place + 1, count=self._count
        )
        if nearest != place:
            told = self.tr("{told}; the nearest that is there is {nearest}").format(
                told=told, nearest=nearest + 1
            )
        self.told.setText(told)
        for thumb, end in zip(self._thumbs, (0, self._count - 1)):
            if end in self.frames:
                image = drawing.image_of(self.frames[end]).scaled(_THUMB, _THUMB)
                thumb.setPixmap(QPixmap.fromImage(image))

    def _play(self, on: bool) -> None:
        self.play_button.setIcon(theme.icon("pause" if on else "play"))
        self._step = 1
        if on:
            self._timer.start()
        else:
            self._timer.stop()

    def _tick(self) -> None:
        if not self.isVisible():
            self.play_button.setChecked(False)
            return
        place = self.slider.value()
        if not 0 <= place + self._step < self._count:
            self._step = -self._step
        self.slider.setValue(place + self._step)

    # -- keeping ------------------------------------------------------------------------------------

    def stack(self) -> np.ndarray:
        """All pictures of the way, uint8 (N, H, W, C)."""
        return np.stack([self.frames[i] for i in sorted(self.frames)])

    def write_film(self, path: Path) -> None:
        """Write the way, there and back, as an animation, in the background."""
        frames = there_and_back(self.stack())
        seconds = len(frames) * _TICK / 1000
        self.save_to(path, lambda p: recipes.write_animation(p, frames, seconds, 0.5))

    def _ask_film(self) -> None:
        frames = there_and_back(self.stack())
        seconds = len(frames) * _TICK / 1000
        self.save(
            "way.webp",
            "WebP (*.webp);;GIF (*.gif)",
            lambda path: recipes.write_animation(path, frames, seconds, 0.5),
        )

    def _ask_strip(self) -> None:
        stack = self.stack()
        self.save(
            "way.png",
            "PNG (*.png)",
            lambda path: recipes.write_png(path, recipes.enlarged(row(stack))),
        )

    def _ask_frame(self) -> None:
        picture = self.frames[min(self.frames, key=lambda i: abs(i - self.slider.value()))]
        self.save("picture.png", "PNG (*.png)", lambda path: recipes.write_png(path, picture))
