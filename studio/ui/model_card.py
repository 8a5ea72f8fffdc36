"""The list of models: a card each, with a strip of samples, the facts in two lines, and its state.

Everything shown of a model is put into words here once, for the card, its tooltip and the detail pane.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PySide6.QtCore import (
    QCoreApplication,
    QModelIndex,
    QPersistentModelIndex,
    QRectF,
    QSize,
    Qt,
    Signal,
)
from PySide6.QtGui import (
    QColor,
    QFontMetricsF,
    QImage,
    QKeyEvent,
    QPainter,
    QPainterPath,
    QPaintEvent,
    QStandardItem,
    QStandardItemModel,
)
from PySide6.QtWidgets import (
    QAbstractItemView,
    QListView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QWidget,
)

from studio import spec
from studio.errors import StudioError
from studio.ui import drawing, theme
from studio.ui.keys import OwnKeys
from studio.weights import library
from studio.weights.listing import as_size
from studio.weights.shelf import Entry

STRIP_SIDE = 84
_PAD = 12
_NAME = int(Qt.ItemDataRole.UserRole)
_CARD = _NAME + 1
_STRIP = _NAME + 2

_Index = QModelIndex | QPersistentModelIndex

_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", flags=re.DOTALL)
_LICENCE = re.compile(
    r"^\s*(?:\|\s*)?(?:weights )?licen[cs]e\s*[:|]\s*([^|\n]+)", re.IGNORECASE | re.MULTILINE
)


def tr(text: str) -> str:
    return QCoreApplication.translate("ModelCard", text)


@dataclass(frozen=True)
class Card:
    """What is said of a model on the shelf."""

    name: str
    facts: str  # "32 × 32 · VP · Score Studio · 3 classes"
    origin: str  # "CC BY 4.0 · 9.4 MB · ships with the studio"
    licence: str
    source: str
    problem: str = ""
    used: bool = False
    resident: bool = False

    @property
    def told(self) -> str:
        """All of it in sentences, for tooltips and screen readers."""
        states = [tr("In use.")] * self.used + [tr("In memory.")] * self.resident
        return "\n".join(filter(None, (self.name, self.facts, self.origin, self.problem, *states)))


def card_of(entry: Entry, used: bool = False, resident: bool = False) -> Card:
    source, found = source_of(entry), licence_of(entry)
    licence = found or (tr("see its card") if entry.card else tr("not stated"))
    terms = found or tr("licence: {licence}").format(licence=licence)
    return Card(
        name=entry.name,
        facts=facts_of(entry),
        origin=" · ".join((terms, as_size(entry.bytes), source)),
        licence=licence,
        source=source,
        problem=entry.problem,
        used=used,
        resident=resident,
    )


def facts_of(entry: Entry) -> str:
    """Size, process, format, and how many classes, in a line; empty if it cannot be used."""
    if entry.opened is None or (info := entry.info) is None:
        return tr("Cannot be used")
    facts = [f"{info.size} × {info.size}", spec.title(type(info.sde)), entry.opened.format]
    if info.colours == 1:
        facts.insert(1, tr("grey"))
    if info.classes:
        facts.append(tr("{count} classes").format(count=len(info.classes)))
    return " · ".join(facts)


def source_of(entry: Entry) -> str:
    """ "ships with the studio", "from the hub" or "yours"."""
    if entry.ships:
        return tr("ships with the studio")
    return tr("from the hub") if hub_id(entry) else tr("yours")


def hub_id(entry: Entry) -> str:
    """The id on the hub that a model was downloaded from; empty if it was not."""
    try:
        origin = library.origin(entry)
    except (StudioError, OSError, NotImplementedError):
        return ""
    return origin.source if origin is not None and origin.revision else ""


def licence_of(entry: Entry) -> str:
    """The licence that a model's card names; empty if it names none."""
    card = entry.card
    front = _FRONT.match(card)
    found = _LICENCE.search(front.group(1) if front else card)
    return found.group(1).strip().strip("\"'")[:60] if found else ""


def body_of(card: str) -> str:
    """A card's Markdown without its front matter, pictures and HTML: nothing in it loads anything."""
    text = _FRONT.sub("", card[:200_000])
    text = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"</?[a-zA-Z][^<>]{0,2000}>", "", text)


class ModelList(OwnKeys, QListView):
    """The cards. Enter or a double click uses a model, Delete removes it, F2 renames it."""

    chosen = Signal(str)  # the marked model; empty if none is
    use_requested = Signal(str)
    remove_requested = Signal(str)
    rename_requested = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("modelList")
        self.setAccessibleName(self.tr("Models on this machine"))
        self.setToolTip(self.tr("Enter uses a model, F2 renames it, Delete removes it."))
        self._items = QStandardItemModel(self)
        self.setModel(self._items)
        self.setItemDelegate(_Cards(self))
        self.setUniformItemSizes(False)
        self.setSpacing(3)
        self.setMouseTracking(True)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setMinimumWidth(320)
        self.selectionModel().currentChanged.connect(
            lambda index, _: self.chosen.emit(index.data(_NAME) or "")
        )
        self.doubleClicked.connect(lambda index: self.use_requested.emit(index.data(_NAME)))

    def show_cards(self, cards: list[Card]) -> None:
        """Show these models; strips and the mark stay with the names."""
        strips = {item.data(_NAME): item.data(_STRIP) for item in self._all()}
        marked = self.selected()
        self._items.removeRows(len(cards), max(0, self._items.rowCount() - len(cards)))
        for row, card in enumerate(cards):
            item = self._items.item(row)
            if item is None:
                item = QStandardItem()
                item.setEditable(False)
                self._items.appendRow(item)
            item.setData(card.name, _NAME)
            item.setData(card, _CARD)
            item.setData(strips.get(card.name), _STRIP)
            item.setText(card.name)
            item.setToolTip(card.told)
            item.setAccessibleText(card.told)
        self.setAccessibleDescription(self.tr("{count} models").format(count=len(cards)))
        self.select(marked)
        self.viewport().update()

    def set_strip(self, name: str, pictures: np.ndarray | None) -> None:
        """The samples of a model, uint8 (N, H, W, 3)."""
        for item in self._all():
            if item.data(_NAME) == name:
                images = None if pictures is None else [drawing.image_of(p) for p in pictures]
                item.setData(images, _STRIP)

    def strip(self, name: str) -> list[Any] | None:
        """The samples shown of a model, as images; None while there are none."""
        return next((i.data(_STRIP) for i in self._all() if i.data(_NAME) == name), None)

    def names(self) -> list[str]:
        return [item.data(_NAME) for item in self._all()]

    def card(self, name: str) -> Card | None:
        return next((i.data(_CARD) for i in self._all() if i.data(_NAME) == name), None)

    def selected(self) -> str:
        """The name of the marked model, or ""."""
        return self.currentIndex().data(_NAME) or ""

    def select(self, name: str) -> None:
        """Mark a model; the first if there is none of that name."""
        names = self.names()
        row = names.index(name) if name in names else 0
        index = self._items.index(row, 0)
        if index != self.currentIndex():
            self.setCurrentIndex(index)
        elif names:
            self.chosen.emit(names[row])
        if not names:
            self.chosen.emit("")

    def sizeHint(self) -> QSize:
        return QSize(400, 400)

    def _all(self) -> list[QStandardItem]:
        return [self._items.item(row) for row in range(self._items.rowCount())]

    def _command(self, event: QKeyEvent) -> Callable[[], Any] | None:
        name = self.selected()
        verbs = {
            Qt.Key.Key_Return: self.use_requested,
            Qt.Key.Key_Enter: self.use_requested,
            Qt.Key.Key_Delete: self.remove_requested,
            Qt.Key.Key_F2: self.rename_requested,
        }
        verb = verbs.get(Qt.Key(event.key()))
        if not name or verb is None or event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
            return None
        return lambda: verb.emit(name)

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self._items.rowCount():
            return
        painter = QPainter(self.viewport())
        drawing.empty_state(
            painter,
            self.viewport().rect(),
            self.font(),
            self.tr("No model on this machine yet"),
            self.tr("Get one from the hub, or drop a file or folder of weights here."),
        )
        painter.end()


class _Cards(QStyledItemDelegate):
    """Paints a card: four samples in a square, the name, two lines of facts, and its states."""

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:
        return QSize(300, STRIP_SIDE + 2 * _PAD)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        card: Card = index.data(_CARD)
        c = theme.colours()
        box = QRectF(option.rect)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._back(painter, box, option)
        strip = QRectF(box.left() + _PAD, box.top() + _PAD, STRIP_SIDE, STRIP_SIDE)
        draw_samples(painter, strip, index.data(_STRIP))
        text = box.adjusted(STRIP_SIDE + 2 * _PAD + 2, _PAD + 2, -_PAD, -_PAD)
        top = self._heading(painter, text, option, card)
        small = theme.font(option.font, 0.93)
        lines = [(card.facts, c.text), (card.origin, c.muted)]
        if card.problem:
            lines = [(card.problem, c.danger)]
        painter.setFont(small)
        for words, colour in lines:
            painter.setPen(QColor(colour))
            rest = QRectF(text.left(), top, text.width(), text.bottom() - top)
            top += self._words(painter, small, words, rest, wrapped=bool(card.problem))
        painter.restore()

    def _back(self, painter: QPainter, box: QRectF, option: QStyleOptionViewItem) -> None:
        c = theme.colours()
        marked = bool(option.state & QStyle.StateFlag.State_Selected)
        hovered = bool(option.state & QStyle.StateFlag.State_MouseOver)
        painter.setPen(QColor(c.accent if marked else c.line))
        painter.setBrush(QColor(c.accent_soft if marked else c.hover if hovered else c.raised))
        painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 8, 8)
        if option.state & QStyle.StateFlag.State_HasFocus:
            drawing.frame(painter, box, c.accent, 1.5, -1.5, 7)

    def _heading(
        self, painter: QPainter, text: QRectF, option: QStyleOptionViewItem, card: Card
    ) -> float:
        """The name, and at the right whether it is in use or in memory; the next line's top."""
        c = theme.colours()
        strong = theme.font(option.font, 1.08, strong=True)
        small = theme.font(option.font, 0.85)
        height = QFontMetricsF(strong).height()
        right = text.right()
        states = [tr("in memory")] * card.resident + [tr("in use")] * card.used
        for words in states:
            width = QFontMetricsF(small).horizontalAdvance(words) + 14
            plate = QRectF(right - width, text.top(), width, height)
            painter.setPen(QColor(c.edge if words == tr("in memory") else c.accent))
            painter.setBrush(QColor(c.window))
            painter.drawRoundedRect(plate, height / 2, height / 2)
            painter.setPen(QColor(c.muted if words == tr("in memory") else c.accent))
            painter.setFont(small)
            painter.drawText(plate, Qt.AlignmentFlag.AlignCenter, words)
            right -= width + 6
        painter.setFont(strong)
        painter.setPen(QColor(c.text))
        room = right - text.left()
        name = QFontMetricsF(strong).elidedText(card.name, Qt.TextElideMode.ElideMiddle, room)
        painter.drawText(QRectF(text.left(), text.top(), room, height), name)
        return text.top() + height + 5

    def _words(
        self, painter: QPainter, font: Any, words: str, rest: QRectF, wrapped: bool
    ) -> float:
        metrics = QFontMetricsF(font)
        if wrapped:
            flags = int(Qt.TextFlag.TextWordWrap | Qt.AlignmentFlag.AlignTop)
            lines = max(1, int(rest.height() // metrics.lineSpacing()))
            fit = lines * rest.width() * 0.92
            painter.drawText(
                rest, flags, metrics.elidedText(words, Qt.TextElideMode.ElideRight, fit)
            )
            return rest.height()
        shown = metrics.elidedText(words, Qt.TextElideMode.ElideRight, rest.width())
        painter.drawText(QRectF(rest.left(), rest.top(), rest.width(), metrics.height()), shown)
        return metrics.height() + 3


def draw_samples(painter: QPainter, box: QRectF, images: list[Any] | None) -> None:
    """Four samples in a square; four quiet plates where there are none yet."""
    side, gap = (box.width() - 4) / 2, 4
    for i in range(4):
        left, top = box.left() + (i % 2) * (side + gap), box.top() + (i // 2) * (side + gap)
        image = images[i] if images and i < len(images) else None
        draw_sample(painter, QRectF(left, top, side, side), image)


def draw_sample(painter: QPainter, cell: QRectF, image: QImage | None) -> None:
    """One sample with round corners, or a quiet plate."""
    shape = QPainterPath()
    shape.addRoundedRect(cell, 4, 4)
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.fillPath(shape, QColor(theme.colours().stage))
    if image is not None:
        painter.setClipPath(shape)
        large = image.width() > cell.width()
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, large)
        painter.drawImage(cell, image)
    painter.restore()
