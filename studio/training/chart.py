"""Curves on log-log axes as a picture, dark on light, for reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SCALE = 2  # drawn this many times larger and reduced, which smooths the lines
_WIDTH, _HEIGHT, _LEGEND = 400, 290, 120
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 30, 40
_HIGHEST = 60.0  # times the lowest value; what is above is drawn at the edge
_INK, _GRID, _PAPER = "#222222", "#e3e3e3", "#ffffff"
_COLOURS = [
    *("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2"),
    *("#7f7f7f", "#bcbd22", "#111111", "#f4a6a0", "#00695c", "#5c6bc0", "#c2185b", "#9e9d24"),
]


@dataclass(frozen=True)
class Panel:
    """Curves by name, each (N, 2) of positive x and y; `floor` is a dashed line, or nan."""

    title: str
    across: str
    curves: Mapping[str, np.ndarray]
    floor: float = math.nan


def draw(panels: Sequence[Panel], columns: int = 2) -> np.ndarray:
    """The panels side by side with one legend, uint8 (H, W, 3). A name has one colour in all."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    columns = max(1, min(columns, len(panels)))
    down = max(1, math.ceil(len(panels) / columns))
    width = columns * _WIDTH + _LEGEND
    height = max(down * _HEIGHT, _TOP + 18 * (len(names) + 1))
    image = Image.new("RGB", (width * _SCALE, height * _SCALE), _PAPER)
    pen = _Pen(ImageDraw.Draw(image))
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        _Axes(panel, column * _WIDTH, row * _HEIGHT).draw(pen, colours)
    for i, name in enumerate(names):
        y = _TOP + 18 * i + 6
        _line(pen, [(width - _LEGEND + 4, y), (width - _LEGEND + 22, y)], colours[name], i)
        pen.text(width - _LEGEND + 28, y, name, "lm")
    if any(panel.floor == panel.floor for panel in panels):
        y = _TOP + 18 * len(names) + 6
        pen.dashes(width - _LEGEND + 4, width - _LEGEND + 22, y)
        pen.text(width - _LEGEND + 28, y, "right pictures", "lm")
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))


class _Pen:
    """Draws in pixels of the finished picture."""

    def __init__(self, canvas: ImageDraw.ImageDraw) -> None:
        self._canvas = canvas
        self._font = ImageFont.load_default(11 * _SCALE)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._canvas.line(scaled, fill=colour, width=round(width * _SCALE), joint="curve")

    def dashes(self, left: float, right: float, y: float) -> None:
        for x in np.arange(left, right, 7):
            self.line([(x, y), (min(x + 4, right), y)], _INK)

    def mark(self, x: float, y: float, colour: str, place: int) -> None:
        """A disc, a ring, a square or a frame in turn, so that near colours can be told apart."""
        box = [(x - 3) * _SCALE, (y - 3) * _SCALE, (x + 3) * _SCALE, (y + 3) * _SCALE]
        shape = self._canvas.ellipse if place % 4 < 2 else self._canvas.rectangle
        shape(box, fill=colour if place % 2 == 0 else _PAPER, outline=colour, width=3)

    def text(self, x: float, y: float, text: str, anchor: str) -> None:
        self._canvas.text((x * _SCALE, y * _SCALE), text, _INK, self._font, anchor)


class _Axes:
    """Where the values of one panel lie on the picture."""

    def __init__(self, panel: Panel, left: float, top: float) -> None:
        self.panel, self.left, self.top = panel, left + _LEFT, top + _TOP
        self.right, self.bottom = left + _WIDTH - _RIGHT, top + _HEIGHT - _BOTTOM
        points = np.concatenate([*panel.curves.values(), np.empty((0, 2))])
        points = points[(points > 0).all(1) & np.isfinite(points).all(1)]
        if not len(points):
            points = np.ones((1, 2))
        floor = panel.floor if panel.floor > 0 else points[:, 1].min()
        low = min(floor, points[:, 1].min()) * 0.85
        high = min(points[:, 1].max(), low * _HIGHEST) * 1.15
        self.xs = (points[:, 0].min() * 0.9, points[:, 0].max() * 1.1)
        self.ys = (low, max(high, low * 1.5))

    def draw(self, pen: _Pen, colours: Mapping[str, str]) -> None:
        for value in _ticks(*self.xs):
            x, _ = self.at(value, self.ys[0])
            pen.line([(x, self.top), (x, self.bottom)], _GRID)
            pen.text(x, self.bottom + 5, f"{value:g}", "mt")
        for value in _ticks(*self.ys):
            _, y = self.at(self.xs[0], value)
            pen.line([(self.left, y), (self.right, y)], _GRID)
            pen.text(self.left - 5, y, f"{value:g}", "rm")
        corner = [(self.left, self.top), (self.left, self.bottom), (self.right, self.bottom)]
        pen.line(corner, _INK)
        pen.text(self.left, self.top - 8, self.panel.title, "lb")
        pen.text((self.left + self.right) / 2, self.bottom + 22, self.panel.across, "mt")
        if self.panel.floor > 0:
            pen.dashes(self.left, self.right, self.at(self.xs[0], self.panel.floor)[1])
        for place, name in enumerate(colours):
            if len(curve := self.panel.curves.get(name, ())):
                points = [self.at(x, y) for x, y in sorted(map(tuple, curve), key=_down)]
                _line(pen, points, colours[name], place)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a value lies, at the edge if it is beyond."""
        shares = []
        for value, (low, high) in ((x, self.xs), (y, self.ys)):
            value = min(max(value, low), high)
            shares.append(math.log(value / low) / math.log(high / low))
        across, up = shares
        return (
            self.left + across * (self.right - self.left),
            self.bottom - up * (self.bottom - self.top),
        )


def _line(pen: _Pen, points: list[tuple[float, float]], colour: str, place: int) -> None:
    pen.line(points, colour, 1.5)
    for x, y in points:
        pen.mark(x, y, colour, place)


def _down(point: tuple[float, float]) -> tuple[float, float]:
    """Orders a curve: of two points at one x the higher first, as errors fall."""
    return point[0], -point[1]


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between the ends."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [m * 10.0**d for d in decades for m in (1, 2, 5)]
    return [v for v in values if low <= v <= high]
