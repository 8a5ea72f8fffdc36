"""Where the picture lies in the view, and what zooming and panning make of it.

Device coordinates are the screen's own pixels, so that one picture pixel can cover whole screen
pixels on any display. `scale` is device pixels per picture pixel: 1.0 is 100 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from PySide6.QtCore import QPointF, QRect, QRectF

from studio.ui import drawing

LOWEST = 0.05
HIGHEST = 64.0
Rect = tuple[int, int, int, int]


@dataclass(frozen=True)
class Camera:
    """One look at a picture. `wanted` is the scale asked for, `scale` the one that is shown."""

    picture: tuple[int, int]
    view: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    wanted: float = 1.0

    @property
    def scale(self) -> float:
        """Whole device pixels per picture pixel from 200 % upwards."""
        if self.wanted >= drawing.CRISP - 0.25:
            return float(int(self.wanted + 0.5))
        return self.wanted

    @property
    def crisp(self) -> bool:
        """Whether picture pixels are seen as they are, not smoothed."""
        return self.scale >= drawing.CRISP or self.scale == 1.0

    def to_device(self, x: float, y: float) -> QPointF:
        return QPointF(self.origin[0] + x * self.scale, self.origin[1] + y * self.scale)

    def to_picture(self, at: QPointF) -> tuple[float, float]:
        scale = self.scale
        return (at.x() - self.origin[0]) / scale, (at.y() - self.origin[1]) / scale

    def exactly(self, rect: Rect) -> QRectF:
        """A rectangle of the picture in device pixels."""
        x, y, w, h = rect
        return QRectF(self.to_device(x, y), self.to_device(x + w, y + h))

    def around(self, rect: Rect) -> QRect:
        """Every device pixel that a change within a rectangle of the picture can alter."""
        # Smoothing looks at the neighbours of a pixel, on the level that is shown too.
        margin = 0 if self.crisp else 2 + math.ceil(2 * max(self.scale, 1.0))
        box = self.exactly(rect).toAlignedRect().adjusted(-margin, -margin, margin, margin)
        return box & self.shown()

    def shown(self) -> QRect:
        """The device pixels of the view that the picture covers."""
        whole = self.exactly((0, 0, *self.picture))
        left, top = round(whole.left()), round(whole.top())
        right, bottom = max(left + 1, round(whole.right())), max(top + 1, round(whole.bottom()))
        return QRect(left, top, right - left, bottom - top) & QRect(0, 0, *self.view)

    def zoomed(self, wanted: float, at: QPointF) -> Camera:
        """Another scale; the point of the picture under the device point `at` stays there."""
        x, y = self.to_picture(at)
        made = replace(self, wanted=min(max(wanted, self._lowest()), HIGHEST))
        origin = (round(at.x() - x * made.scale), round(at.y() - y * made.scale))
        return replace(made, origin=made._held(origin))

    def moved(self, dx: int, dy: int) -> Camera:
        """Panned by device pixels."""
        return replace(self, origin=self._held((self.origin[0] + dx, self.origin[1] + dy)))

    def showing(self, rect: Rect, margin: int) -> Camera:
        """Centred on a rectangle of the picture, as large as it fits with a margin around it."""
        x, y, w, h = rect
        room = [max(1, side - 2 * margin) for side in self.view]
        fit = drawing.quantized(min(room[0] / w, room[1] / h))
        made = replace(self, wanted=min(max(fit, 0.005), HIGHEST))
        scale = made.scale
        left = round(self.view[0] / 2 - (x + w / 2) * scale)
        top = round(self.view[1] / 2 - (y + h / 2) * scale)
        return replace(made, origin=made._held((left, top)))

    def resized(self, view: tuple[int, int]) -> Camera:
        """Another size of the view; what was in its middle stays there."""
        dx, dy = (view[0] - self.view[0]) // 2, (view[1] - self.view[1]) // 2
        return replace(self, view=view).moved(dx, dy)

    def _lowest(self) -> float:
        """Very large pictures may be made as small as the view needs."""
        return min(LOWEST, min(v / p for v, p in zip(self.view, self.picture)) * 0.9)

    def _held(self, origin: tuple[int, int]) -> tuple[int, int]:
        """The nearest origin at which the middle of the view still shows some of the picture."""
        held = []
        for at, view, picture in zip(origin, self.view, self.picture):
            middle = view // 2
            lowest = math.ceil(middle - picture * self.scale)
            held.append(min(max(at, min(lowest, middle)), middle))
        return held[0], held[1]
