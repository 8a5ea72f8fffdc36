"""How the plots of the Train mode are drawn, alike: colours, axes, no menus, no mouse."""

from __future__ import annotations

from typing import Any

from PySide6.QtGui import QColor, QPen

from studio.ui import theme


def bare_plot(name: str, words: str) -> Any:
    """A PlotWidget to look at. pyqtgraph takes half a second to load: only when the page is shown."""
    import pyqtgraph as pg

    plot: Any = pg.PlotWidget()
    plot.setObjectName(name)
    plot.setAccessibleName(words)
    plot.setMenuEnabled(False)
    plot.hideButtons()
    plot.setMouseEnabled(False, False)
    plot.setAntialiasing(True)
    # Room for the topmost number, which would be cut at the edge.
    plot.getPlotItem().layout.setContentsMargins(4, 8, 12, 2)
    return plot


def colour_plot(plot: Any) -> None:
    """Dress it in the colours of the moment."""
    c = theme.colours()
    plot.setBackground(c.base)
    for side in ("left", "bottom"):
        axis = plot.getAxis(side)
        axis.setPen(QPen(QColor(c.edge)))
        axis.setTextPen(QColor(c.text))
