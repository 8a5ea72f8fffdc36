"""How the studio looks: a light and a dark palette, one style sheet, and the icons.

`apply` is called once with the person's choice and again when it changes. Own widgets ask
`colours()` while they paint, so they follow without being told. Text has a contrast of at least
4.5 : 1 on everything it may stand on; tests hold it to that.

The style sheet knows these widgets by name: `run` (with the property `busy` it is a Stop button),
`modelChip` and `deviceChip` (the property `tone` may be "warning"), `errorBox`, `sectionTitle`, and
the tools and options of the canvas;
and by property: `segment` on buttons that choose a view, `role` on labels ("title", "heading",
"muted", "problem"), frames ("card") and buttons ("disclosure"), `chip` on labels. After changing a
property, polish the widget again.
"""

from __future__ import annotations

import functools
import string
from dataclasses import asdict, dataclass
from typing import Literal

from PySide6.QtCore import QByteArray, QRect, QRectF, QSize, Qt
from PySide6.QtGui import (
    QColor,
    QFont,
    QIcon,
    QIconEngine,
    QImage,
    QPainter,
    QPalette,
    QPixmap,
)
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QApplication

from studio.paths import resource

#: The colour an icon takes: that of text, of quiet text, of the accent, or of text on the accent.
Tone = Literal["text", "muted", "accent", "on_accent", "danger", "warning"]


@dataclass(frozen=True)
class Colours:
    """One appearance. `stage` lies behind pictures; `raised` is for buttons, menus and plates."""

    window: str
    base: str
    raised: str
    hover: str
    stage: str
    text: str
    muted: str
    disabled: str
    line: str
    edge: str
    accent: str
    accent_hover: str
    accent_soft: str
    on_accent: str
    danger: str
    danger_soft: str
    warning: str
    warning_soft: str
    good: str
    #: Lines in plots, told apart also by the colour-blind; first is the accent.
    series: tuple[str, ...] = ()


LIGHT = Colours(
    window="#f4f4f3",
    base="#ffffff",
    raised="#ffffff",
    hover="#ececeb",
    stage="#e8e8e6",
    text="#1e2022",
    muted="#5a5e64",
    disabled="#9b9ea3",
    line="#dcdcda",
    edge="#bfc1c3",
    accent="#4a56c9",
    accent_hover="#3c47b3",
    accent_soft="#e4e6f8",
    on_accent="#ffffff",
    danger="#b3261e",
    danger_soft="#fcebe9",
    warning="#7d5200",
    warning_soft="#fbf1d9",
    good="#1d7442",
    series=("#4a56c9", "#c2571a", "#1d7f74", "#b03a7a", "#7a6a00", "#5a5e64"),
)

DARK = Colours(
    window="#1e1f21",
    base="#161718",
    raised="#2a2b2e",
    hover="#333538",
    stage="#141516",
    text="#e8e8e6",
    muted="#a3a6ab",
    disabled="#6c7075",
    line="#343639",
    edge="#4b4e53",
    accent="#9aa5ff",
    accent_hover="#b1b9ff",
    accent_soft="#2c3050",
    on_accent="#14161f",
    danger="#ff9a90",
    danger_soft="#3a2221",
    warning="#f0bd5a",
    warning_soft="#362c17",
    good="#74d19c",
    series=("#9aa5ff", "#f0985a", "#5cc9ba", "#ec86ba", "#d8c64c", "#a3a6ab"),
)

_current: Colours = LIGHT
_scheme: str = "system"


def apply(app: QApplication, scheme: str) -> None:
    """Dress the application: "light", "dark", or "system", which follows the desktop from now on."""
    global _scheme
    _scheme = scheme
    hints = app.styleHints()
    if not app.property("studioDressed"):
        app.setProperty("studioDressed", True)
        app.setStyle("Fusion")
        hints.colorSchemeChanged.connect(_system_changed)
    asked = {"light": Qt.ColorScheme.Light, "dark": Qt.ColorScheme.Dark}
    # The hint also reaches what the palette does not: title bars and the desktop's own dialogs.
    hints.setColorScheme(asked.get(scheme, Qt.ColorScheme.Unknown))
    _dress(app, scheme == "dark" or (scheme == "system" and _is_dark(hints.colorScheme())))


def colours() -> Colours:
    """The appearance shown now."""
    return _current


def is_dark() -> bool:
    return _current is DARK


def icon(name: str, tone: Tone = "text") -> QIcon:
    """resources/icons/<name>.svg in the colours of the moment, sharp at any size.

    Raises FileNotFoundError if there is no such icon.
    """
    _svg(name)
    return QIcon(_SvgEngine(name, tone))


def app_icon() -> QIcon:
    """The studio's own picture, for windows and the desktop."""
    return QIcon(str(resource("icons/app.svg")))


def font(base: QFont, scale: float = 1.0, strong: bool = False) -> QFont:
    """`base` larger or smaller, with digits of equal width so that running numbers stand still."""
    made = QFont(base)
    if base.pointSizeF() > 0:
        made.setPointSizeF(base.pointSizeF() * scale)
    else:
        made.setPixelSize(max(1, round(base.pixelSize() * scale)))
    if strong:
        made.setWeight(QFont.Weight.DemiBold)
    made.setFeature(QFont.Tag("tnum"), 1)
    return made


def palette(c: Colours) -> QPalette:
    """The Qt palette of an appearance."""
    made = QPalette()
    role = QPalette.ColorRole
    both = {
        role.Window: c.window,
        role.Base: c.base,
        role.AlternateBase: c.window,
        role.Button: c.raised,
        role.ToolTipBase: c.raised,
        role.Light: c.raised,
        role.Midlight: c.hover,
        role.Mid: c.line,
        role.Dark: c.edge,
        role.Shadow: c.edge,
        role.Link: c.accent,
        role.LinkVisited: c.accent,
        role.Accent: c.accent,
        role.BrightText: c.danger,
    }
    for key, value in both.items():
        made.setColor(key, QColor(value))
    written = (role.WindowText, role.Text, role.ButtonText, role.ToolTipText)
    for key in written:
        made.setColor(key, QColor(c.text))
        made.setColor(QPalette.ColorGroup.Disabled, key, QColor(c.disabled))
    made.setColor(role.PlaceholderText, QColor(c.muted))
    made.setColor(role.Highlight, QColor(c.accent))
    made.setColor(role.HighlightedText, QColor(c.on_accent))
    made.setColor(QPalette.ColorGroup.Disabled, role.Highlight, QColor(c.edge))
    made.setColor(QPalette.ColorGroup.Disabled, role.HighlightedText, QColor(c.text))
    return made


def style_sheet(c: Colours) -> str:
    """resources/style.qss with the `$name` of every colour filled in."""
    text = resource("style.qss").read_text(encoding="utf-8")
    icons = resource("icons").as_posix()
    shade = "dark" if c is DARK else "light"
    return string.Template(text).substitute(asdict(c), icons=icons, shade=shade)


def _is_dark(scheme: Qt.ColorScheme) -> bool:
    return scheme == Qt.ColorScheme.Dark


def _system_changed(scheme: Qt.ColorScheme) -> None:
    app = QApplication.instance()
    if _scheme == "system" and isinstance(app, QApplication):
        _dress(app, _is_dark(scheme))


def _dress(app: QApplication, dark: bool) -> None:
    global _current
    wanted = DARK if dark else LIGHT
    if wanted is _current and app.styleSheet():
        return
    _current = wanted
    app.setPalette(palette(wanted))
    app.setStyleSheet(style_sheet(wanted))


@functools.cache
def _svg(name: str) -> str:
    return resource(f"icons/{name}.svg").read_text(encoding="utf-8")


@functools.lru_cache(maxsize=512)
def _drawn(name: str, colour: str, width: int, height: int) -> QImage:
    """An icon as a picture. A QImage, because a cached QPixmap must not outlive the application."""
    image = QImage(width, height, QImage.Format.Format_ARGB32_Premultiplied)
    image.fill(Qt.GlobalColor.transparent)
    renderer = QSvgRenderer(QByteArray(_svg(name).replace("currentColor", colour).encode()))
    side = min(width, height)
    painter = QPainter(image)
    renderer.render(painter, QRectF((width - side) / 2, (height - side) / 2, side, side))
    painter.end()
    return image


class _SvgEngine(QIconEngine):
    """Draws an icon when it is asked for, in the colour the theme has then."""

    def __init__(self, name: str, tone: Tone) -> None:
        super().__init__()
        self._name = name
        self._tone: Tone = tone

    def _colour(self, mode: QIcon.Mode) -> str:
        if mode == QIcon.Mode.Disabled:
            return _current.disabled
        if mode == QIcon.Mode.Selected:
            return _current.on_accent
        return getattr(_current, self._tone)

    def paint(self, painter: QPainter, rect: QRect, mode: QIcon.Mode, state: QIcon.State) -> None:
        device = painter.device()
        ratio = device.devicePixelRatio() if device is not None else 1.0
        size = (max(1, round(rect.width() * ratio)), max(1, round(rect.height() * ratio)))
        painter.drawImage(rect, _drawn(self._name, self._colour(mode), *size))

    def pixmap(self, size: QSize, mode: QIcon.Mode, state: QIcon.State) -> QPixmap:
        if size.isEmpty():
            return QPixmap()
        image = _drawn(self._name, self._colour(mode), size.width(), size.height())
        return QPixmap.fromImage(image)

    def scaledPixmap(
        self, size: QSize, mode: QIcon.Mode, state: QIcon.State, scale: float
    ) -> QPixmap:
        # Asked for in logical pixels; Qt notes the ratio on what it gets.
        dense = QSize(round(size.width() * scale), round(size.height() * scale))
        return self.pixmap(dense, mode, state)

    def clone(self) -> QIconEngine:
        made = _SvgEngine(self._name, self._tone)
        # Qt owns a clone without telling Python, which would free it under Qt's feet.
        _clones.append(made)
        return made


_clones: list[_SvgEngine] = []
