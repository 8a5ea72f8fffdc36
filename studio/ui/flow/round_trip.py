"""Photo to noise to photo: the noise a picture comes from, what comes back, and how far off it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PySide6.QtWidgets import QLabel, QMenu, QToolButton, QVBoxLayout, QWidget

from studio import recipes
from studio.engine.events import Event, Picture
from studio.engine.flow_jobs import (
    Counts,
    Decoded,
    DecodeJob,
    Encoded,
    Given,
    Latent,
    RoundTripJob,
    Trip,
)
from studio.errors import SpecError
from studio.ui.fields import Rows
from studio.ui.flow.panes import Panes
from studio.ui.flow.tool import Temperature, Tolerance, Tool, heading, muted, tool_button
from studio.ui.flow.well import Well
from studio.ui.form import Form
from studio.ui.runner import Runner
from studio.ui.session import Session

_PHOTO, _NOISE, _BACK, _ERROR = range(4)
_MOST_GAIN = 64


class RoundTrip(Tool):
    """`open` and `put` give it a picture."""

    name = "roundTripRun"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setObjectName("roundTrip")
        self.well = Well(
            session, self.tr("Picture"), self.tr("Click to choose one, or drop or paste it."), False
        )
        self.well.setObjectName("roundTripPicture")
        self.well.changed.connect(self.changed)
        self.well.failed.connect(self.fail)
        self.well.bug.connect(self.bug)
        self.form = Form(Tolerance())
        self.form.changed.connect(lambda _: self.changed())
        self.temperature = Temperature()
        self.temperature.changed.connect(lambda _: self._heated())
        self.latent: Latent | None = None
        self.decoded: np.ndarray | None = None  # (1, H, W, C)
        self._difference: np.ndarray | None = None
        self._wanted: float | None = None  # a temperature asked for while another was decoded
        self.answer = QLabel()
        self.answer.setObjectName("roundTripAnswer")
        self.answer.setProperty("role", "title")
        self.answer.setWordWrap(True)
        self.panes = Panes(
            (self.tr("Picture"), self.tr("A picture")),
            (self.tr("Its noise"), self.tr("becomes noise")),
            (self.tr("What comes back"), self.tr("and a picture again,")),
            (self.tr("Difference"), self.tr("as it was.")),
        )
        self.save_button = self._save_menu()
        self.lay_out(self._inputs(), self._view())

    def title(self) -> str:
        return self.tr("Picture to noise and back")

    def verb(self) -> str:
        return self.tr("Go to noise and back")

    # -- layout -------------------------------------------------------------------------------------

    def _inputs(self) -> QWidget:
        inputs = QWidget()
        box = QVBoxLayout(inputs)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addWidget(heading(self.title()))
        box.addWidget(
            muted(
                self.tr(
                    "Every picture comes from one noise along the probability flow. Find it, and "
                    "come back; the difference is the error of the solver. Then change the "
                    "temperature of the noise."
                )
            )
        )
        box.addWidget(self.well)
        rows = Rows()
        rows.field(self.tr("Class"), self.classes)
        rows.field(self.tr("Temperature"), self.temperature)
        box.addLayout(rows)
        box.addWidget(self.form)
        box.addWidget(self.save_button)
        box.addStretch()
        return inputs

    def _view(self) -> QWidget:
        view = QWidget()
        box = QVBoxLayout(view)
        box.setContentsMargins(8, 12, 12, 12)
        box.addWidget(self.answer)
        box.addWidget(self.panes, 1)
        return view

    def _save_menu(self) -> QToolButton:
        tip = self.tr("Save the noise, what comes back, or the difference")
        button = tool_button("save", self.tr("Save"), tip)
        button.setObjectName("roundTripSave")
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(button)
        for text, which in (
            (self.tr("Picture as the model sees it…"), "picture"),
            (self.tr("Noise, as a picture…"), "noise"),
            (self.tr("What came back…"), "back"),
            (self.tr("Difference…"), "difference"),
        ):
            menu.addAction(text, lambda which=which: self._ask_save(which))
        button.setMenu(menu)
        return button

    def runners(self) -> list[Runner]:
        return [*super().runners(), self.well.reader]

    # -- what is run --------------------------------------------------------------------------------

    def open(self, path: Path) -> None:
        self.well.open(path)

    def put(self, pixels: np.ndarray, name: str) -> None:
        """A picture, uint8 (H, W, C), from elsewhere in the studio."""
        self.well.put(pixels, name)

    def why_not(self) -> str:
        if self.session.model is None or self.session.model.info is None:
            return self.tr("There is no model on the shelf yet: get one, or train one.")
        return "" if self.well.given is not None else self.tr("Choose a picture first.")

    def job(self) -> RoundTripJob:
        model, given = self._given()
        return RoundTripJob(
            model=model,
            tolerance=self.form.value().tolerance,
            label=self.label,
            pixels=given.pixels,
            temperature=self.temperature.value(),
        )

    def _given(self) -> tuple[str, Given]:
        if self.session.model is None or self.well.given is None:
            raise SpecError(self.why_not())
        return self.session.model.name, self.well.given

    def changed(self) -> None:
        """Another picture, or otherwise encoded: the noise is not its noise."""
        self.runner.stop()
        self.latent = self.decoded = self._difference = self._wanted = None
        self.answer.clear()
        self.panes.clear()
        if self.well.given is not None:
            self.panes.show_picture(_PHOTO, self.well.given.pixels[0], self.well.caption())
        super().changed()

    def _heated(self) -> None:
        """Another temperature: the noise is known, so only the way back is gone again."""
        if self.runner.busy or self.latent is None:
            # A round trip under way has its own; when it ends, this one is gone to.
            self._wanted = self.temperature.value() if self.runner.busy else None
            if self.latent is not None:
                self.runner.stop()
            return
        self._wanted = self._cost = None  # what was expected was of the whole trip
        self.start(self._decode_job)

    def _decode_job(self) -> Counts:
        model, given = self._given()
        assert self.latent is not None
        return DecodeJob(
            model=model,
            tolerance=self.form.value().tolerance,
            label=self.label,
            noise=self.latent.noise,
            temperature=self.temperature.value(),
            original=given.pixels,
        )

    def refresh(self) -> None:
        super().refresh()
        self.save_button.setEnabled(self.decoded is not None)
        if not self.runner.busy and self._wanted is not None:
            self._wanted = None
            self._heated()

    # -- events -------------------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        if self.well.given is None:
            return
        if isinstance(event, Picture):
            # On the way out it is the noise that forms, on the way back the picture.
            self.panes.show_picture(_NOISE if self.latent is None else _BACK, event.frame.x[0])
        elif isinstance(event, Encoded):
            self.latent = event.latent
            self.panes.show_picture(_NOISE, event.latent.shown[0], self._about_noise(event.latent))
        elif isinstance(event, Decoded):
            self.decoded = event.pictures
            self._show_back(event.pictures[0], event.trip)
            self.save_button.setEnabled(True)

    def _about_noise(self, latent: Latent) -> str:
        return self.tr(
            "Shown from -3 to 3 deviations. Mean {mean:.3f} (of unit noise 0), deviation "
            "{deviation:.3f} (1), correlation of neighbours {correlation:.3f} (0)."
        ).format(mean=latent.mean, deviation=latent.deviation, correlation=latent.correlation)

    def _show_back(self, back: np.ndarray, trip: Trip | None) -> None:
        assert self.well.given is not None
        photo = self.well.given.pixels[0]
        apart = np.abs(back.astype(int) - photo)
        gain = max(1, min(_MOST_GAIN, 255 // max(1, int(apart.max()))))
        difference = np.minimum(apart * gain, 255).astype(np.uint8)
        self._difference = difference
        heat = self.temperature.value()
        plain = self.tr("At temperature {heat:g}").format(heat=heat)
        self.panes.show_picture(_BACK, back, plain)
        self.panes.show_picture(
            _ERROR, difference, self.tr("Its size, brightened ×{gain}").format(gain=gain)
        )
        if trip is not None:
            self.answer.setText(self._figures(trip, heat))

    def _figures(self, trip: Trip, heat: float) -> str:
        psnr = "∞" if math.isinf(trip.psnr) else f"{trip.psnr:.1f}"
        facts = {"max": trip.max, "rms": trip.rms, "psnr": psnr, "heat": heat}
        if heat == 1:
            return self.tr(
                "It comes back with an error of {rms:.2f} / 255 rms, at most {max:.1f} / 255; PSNR "
                "{psnr} dB"
            ).format(**facts)
        return self.tr(
            "At temperature {heat:g} it differs by {rms:.1f} / 255 rms, at most {max:.0f} / 255; "
            "PSNR {psnr} dB"
        ).format(**facts)

    # -- keeping ------------------------------------------------------------------------------------

    def shown_picture(self, which: str) -> np.ndarray | None:
        """One of "picture", "noise", "back", "difference", uint8 (H, W, C); None if there is none."""
        given = self.well.given
        choices: dict[str, Callable[[], np.ndarray | None]] = {
            "picture": lambda: None if given is None else given.pixels[0],
            "noise": lambda: None if self.latent is None else self.latent.shown[0],
            "back": lambda: None if self.decoded is None else self.decoded[0],
            "difference": lambda: self._difference,
        }
        return choices[which]()

    def _ask_save(self, which: str) -> None:
        picture = self.shown_picture(which)
        if picture is not None:
            name = f"{Path(self.well.name).stem or 'picture'}-{which}.png"
            self.save(name, "PNG (*.png)", lambda path: recipes.write_png(path, picture))
