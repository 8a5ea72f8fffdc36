"""How a page of the window is laid out: controls at the left over problems and Run, the view in the
middle, what is told at the right; and the button that opens a menu."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import (
    QFrame,
    QMenu,
    QScrollArea,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio.ui import theme


def columns(page: QWidget, name: str, parts: Iterable[tuple[QWidget, int, int]]) -> QSplitter:
    """Fill a page with parts beside each other, (widget, stretch, width at first), between movable
    borders."""
    split = QSplitter(Qt.Orientation.Horizontal)
    split.setObjectName(name)
    split.setChildrenCollapsible(False)
    widths = []
    for part, stretch, width in parts:
        split.addWidget(part)
        split.setStretchFactor(split.count() - 1, stretch)
        widths.append(width)
    split.setSizes(widths)
    box = QVBoxLayout(page)
    box.setContentsMargins(0, 0, 0, 0)
    box.addWidget(split)
    return split


def controls(inputs: QWidget, *below: QWidget, least: int = 280, most: int = 400) -> QWidget:
    """The left part of a page: inputs that scroll, and below them what has to stay in sight."""
    side = QWidget()
    side.setMinimumWidth(least)
    side.setMaximumWidth(most)
    box = QVBoxLayout(side)
    box.setContentsMargins(12, 12, 8, 12)
    box.setSpacing(8)
    box.addWidget(scrolled(inputs), 1)
    for widget in below:
        box.addWidget(widget)
    return side


def stacked(*widgets: QWidget) -> QWidget:
    """Inputs one below the other, at the top of what room there is."""
    inside = QWidget()
    column = QVBoxLayout(inside)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(12)
    for widget in widgets:
        column.addWidget(widget)
    column.addStretch()
    return inside


def scrolled(widget: QWidget) -> QScrollArea:
    """The widget in a frameless area that scrolls up and down only."""
    area = QScrollArea()
    area.setWidget(widget)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return area


def verbs(page: QWidget, rows: Iterable[tuple[str, str, str, Callable[[], None]]]) -> QMenu:
    """A menu of (name, text, keys, what it does), whose keys work wherever in the page the focus is."""
    menu = QMenu(page)
    for name, text, keys, verb in rows:
        action = menu.addAction(text)
        action.setObjectName(name)
        action.setShortcut(QKeySequence(keys))
        action.setShortcutContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
        action.triggered.connect(lambda _=False, verb=verb: verb())
        page.addAction(action)
    return menu


def menu_button(icon: str, text: str, menu: QMenu) -> QToolButton:
    """A button with an icon and a word that opens a menu."""
    button = QToolButton()
    button.setText(text)
    button.setIcon(theme.icon(icon))
    button.setObjectName(icon)
    button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
    button.setMenu(menu)
    return button
