"""The appearance: readable text, both palettes, icons that follow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields

import numpy as np
import pytest
from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QColor, QIcon, QImage, QPalette
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication, QLabel, QPushButton

from studio.paths import resource
from studio.ui import theme

#: What the window asks for by name; arrows and check marks of the style sheet carry their shade.
ICONS = sorted(
    path.stem
    for path in resource("icons").glob("*.svg")
    if path.stem != "app" and not path.stem.endswith(("-light", "-dark"))
)
both = pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])


@pytest.fixture(autouse=True)
def light_afterwards(qapp: QApplication) -> Iterator[None]:
    yield
    theme.apply(qapp, "light")


def luminance(name: str) -> float:
    colour = QColor(name)
    channels = np.array([colour.redF(), colour.greenF(), colour.blueF()])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def inked(icon: QIcon, mode: QIcon.Mode = QIcon.Mode.Normal) -> QColor:
    """The colour of the most opaque pixel of an icon."""
    image = icon.pixmap(QSize(48, 48), 1.0, mode).toImage()
    image = image.convertToFormat(QImage.Format.Format_ARGB32)
    spots = [image.pixelColor(x, y) for x in range(48) for y in range(48)]
    return max(spots, key=lambda colour: colour.alpha())


@both
def test_text_is_readable_on_everything_it_stands_on(colours: theme.Colours) -> None:
    for ground in ("window", "base", "raised", "hover", "stage", "accent_soft"):
        for ink in ("text", "muted"):
            assert contrast(getattr(colours, ink), getattr(colours, ground)) >= 4.5, (ink, ground)
    assert contrast(colours.on_accent, colours.accent) >= 4.5
    assert contrast(colours.on_accent, colours.accent_hover) >= 4.5
    for kind in ("danger", "warning"):
        for ink in (getattr(colours, kind), colours.text):
            assert contrast(ink, getattr(colours, f"{kind}_soft")) >= 4.5
    assert contrast(colours.danger, colours.window) >= 4.5
    assert contrast(colours.good, colours.window) >= 4.5


@both
def test_the_accent_and_plot_lines_stand_out_from_the_ground(colours: theme.Colours) -> None:
    for line in (colours.accent, *colours.series):
        assert contrast(line, colours.base) >= 3
        assert contrast(line, colours.window) >= 3


@both
def test_the_style_sheet_uses_known_colours_only(colours: theme.Colours) -> None:
    known = {field.name for field in fields(theme.Colours)} | {"icons", "shade"}
    text = resource("style.qss").read_text(encoding="utf-8")
    assert set(re.findall(r"\$(\w+)", text)) <= known
    filled = theme.style_sheet(colours)
    assert "$" not in filled
    for path in re.findall(r'url\("(.+?)"\)', filled):
        assert QSvgRenderer(path).isValid(), path


def test_applying_dresses_the_application_and_can_be_undone(qapp: QApplication) -> None:
    for scheme, colours in (("dark", theme.DARK), ("light", theme.LIGHT)):
        theme.apply(qapp, scheme)
        assert theme.colours() is colours
        assert theme.is_dark() == (scheme == "dark")
        assert qapp.palette().color(QPalette.ColorRole.Window) == QColor(colours.window)
        assert colours.accent in qapp.styleSheet()


def test_a_choice_stays_when_the_desktop_changes(qapp: QApplication) -> None:
    theme.apply(qapp, "light")
    qapp.styleHints().colorSchemeChanged.emit(Qt.ColorScheme.Dark)
    assert not theme.is_dark()


def test_system_follows_the_desktop(qapp: QApplication) -> None:
    theme.apply(qapp, "system")
    # Stands for the desktop: the offscreen platform has no scheme of its own.
    for scheme in (Qt.ColorScheme.Dark, Qt.ColorScheme.Light):
        qapp.styleHints().colorSchemeChanged.emit(scheme)
        assert theme.is_dark() == (scheme == Qt.ColorScheme.Dark)


def test_the_icons_that_the_window_needs_are_there() -> None:
    assert {"play", "stop", "pause", "step", "finish", "branch", "zoom-fit", "live"} <= set(ICONS)
    assert len(ICONS) >= 27


@pytest.mark.parametrize("name", ICONS)
def test_every_icon_is_valid_and_leaves_ink(name: str, qapp: QApplication) -> None:
    source = resource(f"icons/{name}.svg")
    assert QSvgRenderer(str(source)).isValid()
    assert "currentColor" in source.read_text()
    assert inked(theme.icon(name)).alpha() > 200


def test_an_icon_takes_the_colours_of_the_moment(qapp: QApplication) -> None:
    theme.apply(qapp, "light")
    icon = theme.icon("stop")
    assert inked(icon) == QColor(theme.LIGHT.text)
    theme.apply(qapp, "dark")
    assert inked(icon) == QColor(theme.DARK.text)
    assert inked(icon, QIcon.Mode.Disabled) == QColor(theme.DARK.disabled)
    assert inked(theme.icon("stop", "on_accent")) == QColor(theme.DARK.on_accent)


def test_an_icon_is_sharp_on_a_dense_screen(qapp: QApplication) -> None:
    dense = theme.icon("grid").pixmap(QSize(24, 24), 2.0)
    assert dense.size() == QSize(48, 48)
    assert dense.devicePixelRatio() == 2.0


def test_an_icon_survives_its_copies_and_widgets(qapp: QApplication) -> None:
    for _ in range(50):
        button = QPushButton(theme.icon("save"), "Save")
        copy = QIcon(button.icon())
        copy.addPixmap(copy.pixmap(16, 16))
        button.grab()
        button.deleteLater()
    qapp.processEvents()


def test_an_unknown_icon_is_refused() -> None:
    with pytest.raises(FileNotFoundError):
        theme.icon("no-such-icon")


def test_the_app_icon_is_lovely_at_every_size(qapp: QApplication) -> None:
    for side in (16, 32, 64, 512):
        image = theme.app_icon().pixmap(QSize(side, side), 1.0).toImage()
        assert image.size() == QSize(side, side)
        # The middle is the critter, the outermost corner is empty.
        assert image.pixelColor(side // 2, side // 2).alpha() == 255
        assert image.pixelColor(0, 0).alpha() < 40


def test_own_fonts_keep_the_family_and_have_even_digits(qapp: QApplication) -> None:
    label = QLabel("x")
    larger = theme.font(label.font(), 1.5, strong=True)
    assert larger.family() == label.font().family()
    assert larger.pointSizeF() == pytest.approx(1.5 * label.font().pointSizeF())
