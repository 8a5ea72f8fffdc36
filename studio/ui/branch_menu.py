"""The Branch button: from the moment looked at, on another seed, or with what else is set now."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QMenu, QToolButton, QWidget

from studio import spec
from studio.errors import StudioError
from studio.ui.page import menu_button
from studio.ui.recipe_panel import RecipePanel

_DEGREES = (0.6, 0.7, 0.8, 0.9, 1.0, 1.05)


class BranchMenu(QMenu):
    """What can be other on a branch, by what `panel` is set to. `wanted` carries the changes, fields of a
    Branch; `failed` a StudioError. With `painted`, the first choice is what is painted now, which is no
    change of its own.
    """

    wanted = Signal(dict)
    failed = Signal(object)

    def __init__(self, panel: RecipePanel, page: QWidget, painted: bool = False) -> None:
        super().__init__(page)
        self.setObjectName("branchMenu")
        self._panel, self._painted = panel, painted
        if painted:
            self._add("branch_mask", self.tr("With what is painted now"), lambda: {})
        self._add("branch_seed", self.tr("On another seed"), _another_seed)
        self._add("branch_sampler", self.tr("With the sampler set now"), self._sampler)
        text = self.tr("With the class and guidance set now")
        self._classed = self._add("branch_class", text, self._class)
        cooler = self.addMenu(self.tr("At temperature"))
        for degree in _DEGREES:
            action = cooler.addAction(f"{degree:g}")
            action.setObjectName(f"branch_temperature_{degree:g}")
            action.triggered.connect(lambda _=False, d=degree: self.wanted.emit({"temperature": d}))
        self.aboutToShow.connect(lambda: self._classed.setVisible(panel.classes.isEnabled()))

    def button(self) -> QToolButton:
        """The button that does the first of it, and opens the menu."""
        button = menu_button("branch", self.tr("Branch"), self)
        button.setPopupMode(QToolButton.ToolButtonPopupMode.MenuButtonPopup)
        button.setAccessibleName(self.tr("Branch here"))
        tip = self.tr("From the playhead on with another seed (B); more in the menu")
        if self._painted:
            tip = self.tr("From the playhead on with what is painted now; more in the menu")
        button.setToolTip(tip)
        button.clicked.connect(self.first)
        return button

    def first(self) -> None:
        """The first choice."""
        self.wanted.emit({} if self._painted else _another_seed())

    def _add(self, name: str, text: str, changes: Callable[[], dict[str, Any]]) -> Any:
        def go() -> None:
            try:
                told = changes()
            except StudioError as error:
                self.failed.emit(error)
                return
            self.wanted.emit(told)

        action = self.addAction(text, go)
        action.setObjectName(name)
        return action

    def _sampler(self) -> dict[str, Any]:
        return {"sampler": self._panel.sampler.value()}

    def _class(self) -> dict[str, Any]:
        job = self._panel.job()
        return {"classes": job.classes, "guidance": job.guidance}


def _another_seed() -> dict[str, Any]:
    return {"seed": random.randrange(2**32)}


def branch_label(changes: dict[str, Any]) -> str:
    """What is other on a branch, in words."""
    words = []
    for name, value in changes.items():
        if name in ("sampler", "task"):
            words.append(spec.title(type(value)))
        elif name == "classes":
            words.append(value or "any class")
        else:
            words.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return " · ".join(words)
