"""The branches of a run as a person sees them: a row for each below the timeline, on the same axis, the
past that they share drawn once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QFontMetricsF,
    QHelpEvent,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
)
from PySide6.QtWidgets import QScrollArea, QSizePolicy, QToolTip, QWidget

from studio.engine.branch import Node, Tree
from studio.ui import drawing, theme
from studio.ui.keys import OwnKeys

ROW = 34
_PICTURE = 28


class BranchStrip(QScrollArea):
    """A Tree, hidden while it has one run only. `chosen` carries the id of the Node to look at."""

    chosen = Signal(int)

    def __init__(self, x_of: Callable[[float], float], most: int = 4) -> None:
        """`x_of` says where a log-SNR lies, in this widget's own width; `most` rows are seen at once."""
        super().__init__()
        self._most = most
        self.setObjectName("branches")
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.rows = _Rows(x_of)
        self.rows.chosen.connect(self._choose)
        self.setWidget(self.rows)
        self.hide()

    def show_tree(self, tree: Tree, looked_at: int) -> None:
        """Show a tree as it is now, and which of its runs is looked at."""
        count = len(tree.nodes)
        self.setVisible(count > 1)
        self.setFixedHeight(min(count, self._most) * ROW + 4)
        new = count != len(self.rows.tree.nodes) or looked_at != self.rows.looked_at
        self.rows.show_tree(tree, looked_at)
        if new and count:
            self.ensureVisible(0, looked_at * ROW + ROW // 2, 0, ROW // 2 + 2)

    def _choose(self, id: int) -> None:
        self.chosen.emit(id)


class _Rows(OwnKeys, QWidget):
    """Click, or up and down, to look at another branch."""

    chosen = Signal(int)

    def __init__(self, x_of: Callable[[float], float]) -> None:
        super().__init__()
        self.tree, self.looked_at = Tree(), 0
        self._x_of = x_of
        self._images: dict[int, tuple[Any, QImage]] = {}
        self.setObjectName("branchRows")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        self.setAccessibleName(self.tr("Branches"))
        self.setToolTip(self.tr("Click a branch to look at it; up and down go through them"))

    def show_tree(self, tree: Tree, looked_at: int) -> None:
        if tree is not self.tree:
            self._images = {}
        self.tree, self.looked_at = tree, looked_at
        self.setMinimumHeight(len(tree.nodes) * ROW + 2)
        if 0 <= looked_at < len(tree.nodes):
            self.setAccessibleDescription(
                self.tr("{0} of {1}: {2}").format(
                    looked_at + 1, len(tree.nodes), tree.nodes[looked_at].label
                )
            )
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(300, len(self.tree.nodes) * ROW + 2)

    def node_at(self, y: float) -> Node | None:
        row = int(y // ROW)
        return self.tree.nodes[row] if 0 <= row < len(self.tree.nodes) else None

    # -- mouse and keys -----------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        node = self.node_at(event.position().y())
        if event.button() == Qt.MouseButton.LeftButton and node is not None:
            self.chosen.emit(node.id)

    def _command(self, event: QKeyEvent) -> Callable[[], None] | None:
        held = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        last = len(self.tree.nodes) - 1
        if held != Qt.KeyboardModifier.NoModifier or last < 0:
            return None
        wanted = {
            Qt.Key.Key_Up: max(0, self.looked_at - 1),
            Qt.Key.Key_Down: min(last, self.looked_at + 1),
            Qt.Key.Key_Home: 0,
            Qt.Key.Key_End: last,
        }.get(Qt.Key(event.key()))
        return None if wanted is None else lambda: self.chosen.emit(wanted)

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent):
            node = self.node_at(event.pos().y())
            text = self.toolTip() if node is None else f"{node.label}\n{self.toolTip()}"
            QToolTip.showText(event.globalPos(), text, self)
            return True
        return super().event(event)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() == QEvent.Type.PaletteChange:
            self.update()
        super().changeEvent(event)

    # -- painting -----------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        c = theme.colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if 0 <= self.looked_at < len(self.tree.nodes):
            box = QRectF(0, self.looked_at * ROW + 1, self.width(), ROW - 2)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(c.accent_soft))
            painter.drawRoundedRect(box, 6, 6)
            if self.hasFocus():
                drawing.frame(painter, box, c.accent, 1.5, -1.5, 5)
        for line in self.tree.lines():
            self._paint_line(painter, line, QPen(QColor(c.edge), 1.5))
        for line in self._way():
            self._paint_line(painter, line, QPen(QColor(c.accent), 2.5))
        for node in self.tree.nodes:
            self._paint_end(painter, node)
        painter.end()

    def _way(self) -> list[tuple[int, float, float, int]]:
        """Those of the tree's lines that lead to the run looked at, each as far as it does."""
        if not self.tree.nodes:
            return []
        way, lines = self.tree.past(self.looked_at), self.tree.lines()
        cut = {node.id: after.log_snr for node, after in itertools.pairwise(way)}
        found = [lines[node.id] for node in way]
        return [(row, low, cut.get(row, high), parent) for row, low, high, parent in found]

    def _paint_line(
        self, painter: QPainter, line: tuple[int, float, float, int], pen: QPen
    ) -> None:
        """A run, down from where it leaves another and on to where it has come."""
        row, low, high, parent = line
        left, right = self._x_of(low), max(self._x_of(high), self._x_of(low) + 3)
        y, above = _middle(row), _middle(parent)
        painter.setPen(pen)
        painter.drawLine(QPointF(left, y), QPointF(right, y))
        if row != parent:
            painter.drawLine(QPointF(left, above), QPointF(left, y))
            painter.setBrush(pen.color())
            painter.drawEllipse(QPointF(left, above), 3.0, 3.0)

    def _paint_end(self, painter: QPainter, node: Node) -> None:
        """What came of a run, and what is other in it, over its line."""
        c = theme.colours()
        box = QRectF(self.width() - _PICTURE - 20, node.row * ROW + 3, _PICTURE, _PICTURE)
        image = self._image(node)
        if image is not None:
            painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, False)
            where = drawing.draw_fitting(painter, box, image)
            drawing.frame(painter, where, c.line, 1, 0, 2)
        font = theme.font(self.font(), 0.85)
        metrics = QFontMetricsF(font)
        left = self._x_of(node.log_snr) + 8
        text = metrics.elidedText(
            node.label, Qt.TextElideMode.ElideRight, max(60, self.width() / 2)
        )
        left = min(left, box.left() - metrics.horizontalAdvance(text) - 12)
        painter.setFont(font)
        painter.setPen(QColor(c.text if node.id == self.looked_at else c.muted))
        painter.drawText(QPointF(left, _middle(node.row) - 5), text)

    def _image(self, node: Node) -> QImage | None:
        if node.thumbnail is None:
            return None
        known = self._images.get(node.id)
        if known is None or known[0] is not node.thumbnail:
            image = drawing.image_of(node.thumbnail)
            if max(image.width(), image.height()) > 2 * _PICTURE:
                image = image.scaled(
                    QSize(2 * _PICTURE, 2 * _PICTURE),
                    Qt.AspectRatioMode.KeepAspectRatio,
                    Qt.TransformationMode.SmoothTransformation,
                )
            known = self._images[node.id] = node.thumbnail, image
        return known[1]


def _middle(row: int) -> float:
    return row * ROW + ROW / 2 + 4
