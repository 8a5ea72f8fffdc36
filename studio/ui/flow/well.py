"""Where a person puts a picture or a folder: chosen, dropped or pasted, read in the background.

What is given is kept as it came, and fitted again when another model is chosen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PySide6.QtCore import QEvent, QMimeData, QRectF, QSize, Qt, Signal
from PySide6.QtGui import (
    QColor,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QGuiApplication,
    QImage,
    QKeyEvent,
    QKeySequence,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QTextOption,
)
from PySide6.QtWidgets import QFileDialog, QMenu, QSizePolicy, QWidget

from studio import photos
from studio.engine.events import Done, Event, Progress
from studio.engine.flow_jobs import Given, ReadJob, fitted
from studio.engine.work import Work
from studio.errors import StudioError
from studio.ui import drawing, theme
from studio.ui.runner import Runner
from studio.ui.session import Session

_TILES = 4  # pictures across the face of a well that holds many


class Well(QWidget):
    """Holds a picture, or with `many` a folder, at the size of the session's model.

    `changed` tells that `given` is another; `failed` carries a StudioError.
    """

    changed = Signal()
    failed = Signal(object)
    bug = Signal(object)

    def __init__(
        self, session: Session, title: str, empty: str, many: bool, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._session, self._title, self._empty, self._many = session, title, empty, many
        self.given: Given | None = None
        self._source: Path | tuple[np.ndarray, str] | None = None
        self._again = False  # another source was given while one was being read
        self._hint = ""
        self._over = False
        self._face = QImage()
        self.reader = Runner(session.engine, self._receive)
        self.reader.failed.connect(self._failed)
        self.reader.bug.connect(self.bug)
        self.reader.state_changed.connect(self._state)
        session.model_changed.connect(lambda _: self._read())
        self.setAcceptDrops(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            self.tr("Click to choose a picture or folder, or drop or paste one")
            if many
            else self.tr("Click to choose a picture, or drop or paste one")
        )
        self._tell()

    # -- what a person gives ------------------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Read a picture or folder, in the background."""
        self._source = path
        self._read()

    def put(self, pixels: np.ndarray, name: str) -> None:
        """Take pictures, uint8 (N, H, W, C) or (H, W, C), from elsewhere in the studio."""
        self._source = (pixels[None] if pixels.ndim == 3 else pixels, name)
        self._read()

    def clear(self) -> None:
        self._source = None
        self._set(None)

    @property
    def name(self) -> str:
        """What the pictures are called."""
        if isinstance(self._source, Path):
            return self._source.name or str(self._source)
        return self._source[1] if self._source else ""

    @property
    def source(self) -> Path | tuple[np.ndarray, str] | None:
        """What was given, as it came."""
        return self._source

    def exchange(self, other: Well) -> None:
        """Each holds what the other held; told only where something has yet to be read."""
        busy = self.reader.busy or other.reader.busy
        self._source, other._source = other._source, self._source
        self.given, other.given = other.given, self.given
        self._face, other._face = other._face, self._face
        for well in (self, other):
            if busy:
                well._read()
            well._tell()
            well.update()

    def ask(self) -> None:
        """Ask for a file."""
        kinds = " ".join(f"*{suffix}" for suffix in sorted(photos.SUFFIXES))
        filters = self.tr("Pictures ({kinds});;All files (*)").format(kinds=kinds)
        path, _ = QFileDialog.getOpenFileName(self, self.tr("Choose a picture"), "", filters)
        if path:
            self.open(Path(path))

    def ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, self.tr("Choose a folder of pictures"))
        if path:
            self.open(Path(path))

    # -- reading ------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read the source for the model of the moment; what is read already is dropped at once."""
        if self.reader.busy:
            self._again = True
            self.reader.stop()
            return
        self._again = False
        model, source = self._session.model, self._source
        if source is None or model is None or model.info is None:
            self._set(None)
            return
        shape = model.info.shape
        if isinstance(source, Path):
            self._set(None, self.tr("Reading…"))
            limit = 10**6 if self._many else 1
            self.reader.start(lambda: ReadJob(source, shape, limit))
        else:
            self._set(None, self.tr("Reading…"))
            pixels, name = source
            names = (
                (name,)
                if len(pixels) == 1
                else tuple(f"{name} {i + 1}" for i in range(len(pixels)))
            )
            self.reader.start(lambda: Work("", lambda: Given(fitted(pixels, shape), names)))

    def _receive(self, event: Event) -> None:
        if self._again:
            return
        if isinstance(event, Done):
            self._set(event.value)
        elif isinstance(event, Progress):
            self._hint = self.tr("Reading {done} of {total}").format(
                done=event.step, total=event.total
            )
            self.update()

    def _failed(self, error: StudioError) -> None:
        if not self._again:
            self._source = None
            self._set(None)
            self.failed.emit(error)

    def _state(self, state: str) -> None:
        if state == "idle" and self._again:
            self._read()

    def _set(self, given: Given | None, hint: str = "") -> None:
        told = self.given is not None or given is not None
        self.given, self._hint = given, hint
        self._face = QImage() if given is None else drawing.image_of(_face(given.pixels))
        self._tell()
        self.update()
        if told:
            self.changed.emit()

    def caption(self) -> str:
        """What is held, in words."""
        if self.given is None:
            return self._hint or self._empty
        size = self.given.pixels.shape[1]
        count = len(self.given.pixels)
        facts = {"name": self.name, "size": size, "count": count}
        if count == 1:
            return self.tr("{name}: its centred square, scaled to {size} × {size}").format(**facts)
        return self.tr(
            "{name}: {count} pictures, of each the centred square, scaled to {size} × {size}"
        ).format(**facts)

    def _tell(self) -> None:
        self.setAccessibleName(self._title)
        self.setAccessibleDescription(self.caption())

    # -- drop, paste, keys --------------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if _offered(event.mimeData()) is not None:
            self._over = True
            event.acceptProposedAction()
            self.update()

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self._over = False
        self.update()

    def dropEvent(self, event: QDropEvent) -> None:
        self._over = False
        self.update()
        if self._accept(event.mimeData()):
            event.acceptProposedAction()

    def _accept(self, data: QMimeData) -> bool:
        offered = _offered(data)
        if isinstance(offered, Path):
            self.open(offered)
        elif offered is not None:
            self.put(offered, self.tr("pasted picture"))
        return offered is not None

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.matches(QKeySequence.StandardKey.Paste):
            self._accept(QGuiApplication.clipboard().mimeData())
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self._choose()
        elif event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.clear()
        else:
            super().keyPressEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and self.rect().contains(event.pos()):
            self._choose()

    def _choose(self) -> None:
        if not self._many:
            self.ask()
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.addAction(theme.icon("open"), self.tr("A folder of pictures…"), self.ask_folder)
        menu.addAction(self.tr("A picture…"), self.ask)
        if self._source is not None:
            menu.addSeparator()
            menu.addAction(self.tr("Take away"), self.clear)
        menu.popup(self.mapToGlobal(self.rect().bottomLeft()))

    # -- painting -----------------------------------------------------------------------------------

    def sizeHint(self) -> QSize:
        return QSize(240, 96)

    def paintEvent(self, event: QPaintEvent) -> None:
        c, painter = theme.colours(), QPainter(self)
        box = QRectF(self.rect()).adjusted(1.5, 1.5, -1.5, -1.5)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        lit = self.hasFocus() or self._over
        pen = QPen(QColor(c.accent if lit else c.edge), 1.5 if lit else 1)
        if self.given is None:
            pen.setStyle(Qt.PenStyle.DashLine)
        painter.setPen(pen)
        painter.setBrush(QColor(c.accent_soft if self._over else c.base))
        painter.drawRoundedRect(box, 8, 8)
        words = box.adjusted(12, 8, -10, -8)
        if not self._face.isNull():
            side = box.height() - 16
            spot = QRectF(box.left() + 8, box.top() + 8, side, side)
            where = drawing.draw_fitting(painter, spot, self._face)
            drawing.frame(painter, where, c.line, 1, 0, 2)
            words.setLeft(spot.right() + 12)
        self._paint_words(painter, words)
        painter.end()

    def _paint_words(self, painter: QPainter, box: QRectF) -> None:
        c = theme.colours()
        heading = theme.font(self.font(), strong=True)
        painter.setFont(heading)
        painter.setPen(QColor(c.text))
        line = painter.fontMetrics().height()
        painter.drawText(QRectF(box.left(), box.top(), box.width(), line), 0, self._title)
        painter.setFont(theme.font(self.font(), 0.92))
        painter.setPen(QColor(c.muted))
        rest = QRectF(box.left(), box.top() + line + 2, box.width(), box.height() - line - 2)
        # Between words, and within the name of a file that is longer than the line.
        wrap = QTextOption()
        wrap.setWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        painter.drawText(rest, self.caption(), wrap)

    def changeEvent(self, event: QEvent) -> None:
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self.update()
        super().changeEvent(event)


def _offered(data: QMimeData | None) -> Path | np.ndarray | None:
    """The file or the picture in what is dropped or pasted; None if there is neither."""
    if data is None:
        return None
    for url in data.urls():
        if url.isLocalFile():
            return Path(url.toLocalFile())
    if data.hasImage():
        image = QImage(data.imageData()).convertToFormat(QImage.Format.Format_RGB888)
        if not image.isNull():
            lines = np.frombuffer(image.constBits(), np.uint8)
            rows = lines.reshape(image.height(), image.bytesPerLine())[:, : 3 * image.width()]
            return rows.reshape(image.height(), image.width(), 3).copy()
    return None


def _face(pixels: np.ndarray) -> np.ndarray:
    """A picture, or the first of many as tiles, (H, W, C)."""
    if len(pixels) == 1:
        return pixels[0]
    across = 2 if len(pixels) < _TILES**2 else _TILES
    tiles = [pixels[i % len(pixels)] for i in range(across**2)]
    return np.concatenate(
        [np.concatenate(tiles[r * across : (r + 1) * across], axis=1) for r in range(across)]
    )
