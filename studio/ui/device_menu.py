"""The menu of the device chip: where models run, how they compute, and what is in memory.

Which devices there are is known once torch is loaded; the menu has that done in the worker when it
is first opened, and shows what it learns the next moment.
"""

from __future__ import annotations

import sys

from PySide6.QtCore import QCoreApplication
from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QLabel, QMenu, QWidget, QWidgetAction

from studio.engine.library import DeviceJob, EjectJob
from studio.ui.runner import Runner
from studio.ui.session import Session
from studio.weights import devices
from studio.weights.model import DTYPES


def device_title(device: str) -> str:
    """A device as people call it."""
    known = {
        "auto": QCoreApplication.translate("DeviceMenu", "Automatic"),
        "cuda": "CUDA",
        "mps": "MPS",
        "cpu": "CPU",
    }
    return known.get(device, device.upper())


class DeviceMenu(QMenu):
    """Choices go into the settings and hold from the next run on."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("deviceMenu")
        self.setToolTipsVisible(True)
        self._session = session
        self._runner = Runner(session.engine, lambda _: None)
        self._runner.state_changed.connect(lambda state: state == "idle" and self._fill())
        self.aboutToShow.connect(self._opened)

    def _opened(self) -> None:
        if self._session.engine.facts is None:
            self._runner.start(DeviceJob)
        self._fill()

    def _fill(self) -> None:
        self.clear()
        settings = self._session.settings
        self._heading(self.tr("Run models on"))
        there = ["auto", *(devices.available() if "torch" in sys.modules else ["cpu"])]
        if settings.device not in there:
            there.append(settings.device)
        group = QActionGroup(self)
        for device in there:
            text = device_title(device)
            if device == "auto":
                text = self.tr("Automatic: the fastest there is")
            action = self._choice(group, f"device_{device}", text, settings.device == device)
            action.triggered.connect(lambda _=False, d=device: self.choose_device(d))
        self.addSeparator()
        self._heading(self.tr("Compute in"))
        numbers = QActionGroup(self)
        for dtype in DTYPES:
            text, tip = self._told(dtype)
            action = self._choice(numbers, f"dtype_{dtype}", text, settings.dtype == dtype)
            action.setToolTip(tip)
            action.setEnabled(self._sound(dtype))
            action.triggered.connect(lambda _=False, d=dtype: self._session.remember(dtype=d))
        self.addSeparator()
        count = len(self._session.shelf.loaded())
        eject = self.addAction(self.tr("Eject models from memory"))
        eject.setObjectName("ejectModels")
        eject.setEnabled(count > 0)
        eject.setToolTip(
            self.tr("{count} in memory; it is free once no run uses them").format(count=count)
            if count
            else self.tr("No model is in memory")
        )
        eject.triggered.connect(lambda: self._runner.start(EjectJob))

    def choose_device(self, device: str) -> None:
        """Run on `device`, in numbers that are sound there."""
        self._session.remember(device=device)
        if not self._sound(self._session.settings.dtype):
            self._session.remember(dtype="fp32")

    def runners(self) -> list[Runner]:
        return [self._runner]

    def _heading(self, text: str) -> None:
        label = QLabel(text)
        label.setProperty("role", "muted")
        label.setContentsMargins(12, 4, 12, 2)
        action = QWidgetAction(self)
        action.setDefaultWidget(label)
        action.setEnabled(False)
        self.addAction(action)

    def _choice(self, group: QActionGroup, name: str, text: str, chosen: bool) -> QAction:
        action = self.addAction(text)
        action.setObjectName(name)
        action.setCheckable(True)
        action.setChecked(chosen)
        group.addAction(action)
        return action

    def _sound(self, dtype: str) -> bool:
        """Whether a network may compute so, as far as is known: fp16 overflows but on CUDA."""
        device = self._session.settings.device
        facts = self._session.engine.facts
        if device == "auto" and facts is not None:
            device = facts.device
        return dtype != "fp16" or device.startswith("cuda")

    def _told(self, dtype: str) -> tuple[str, str]:
        return {
            "fp32": (self.tr("fp32: exact"), self.tr("Full precision, the same everywhere")),
            "bf16": (
                self.tr("bf16: faster, fewer digits"),
                self.tr("Half the memory for what is computed; pictures change a little"),
            ),
            "fp16": (
                self.tr("fp16: faster, on CUDA only"),
                self.tr("For GPUs that are slow in bf16; large values may overflow"),
            ),
        }[dtype]
