"""Two to four lanes of pictures under one camera, side by side or two of them in one frame.

What is shown of a lane is a Frame of its trajectory. Frames may come as fast as they like: what has
changed is drawn once in each turn of the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from PySide6.QtCore import QEvent, QObject, QPointF, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent, QPainter
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QStackedWidget, QVBoxLayout, QWidget

from studio.engine.trajectory import VIEWS, Frame
from studio.ui.compare import lenses
from studio.ui.compare.densities import Densities
from studio.ui.compare.lane_header import LaneHeader
from studio.ui.compare.marks import LETTERS
from studio.ui.picture_view import Camera, PictureView

MODES = ("side", "wipe", "blink", "difference")
#: A view that a Frame does not have: it is measured apart.
DENSITY = "density"
_BLINK = 500  # milliseconds a lane is shown; well below three flashes a second
_GRIP = 12.0  # how near the line of a wipe is taken
_SMALLEST, _LARGEST = 16.0, 400.0  # the loupe's radius


@dataclass
class _Lane:
    """What is known of a lane: the frame that is shown and how it stands."""

    number: int
    title: str
    frame: Frame | None = None
    state: str = ""
    words: str = ""
    views: dict[str, np.ndarray | None] = field(default_factory=dict)
    pulled: np.ndarray | None = None
    none: str = ""  # why it has no density

    def show(self, frame: Frame) -> None:
        self.frame, self.views, self.pulled = frame, {}, None

    def pulls(self) -> np.ndarray:
        """s · score of the frame, made once."""
        assert self.frame is not None
        if self.pulled is None:
            seen = [self.view(name) for name in ("denoised", "x", "score")]
            self.pulled = lenses.pulls(self.frame, *(v for v in seen if v is not None))
        return self.pulled

    def view(self, name: str, densities: Densities | None = None) -> np.ndarray | None:
        """A view of the frame, made once: a frame may make it anew each time it is asked. None if there
        is no frame, or no such view."""
        if self.frame is None:
            return None
        if name not in self.views:
            if name != DENSITY:
                self.views[name] = self.frame.view(name)
            elif densities is not None:
                self.views[name] = densities.at(self.number, self.frame.log_snr)
        return self.views.get(name)


class LanesView(QWidget):
    """Shows Frames of lanes. Modes: "side", "wipe", "blink", "difference"; the last three show the
    two lanes of `pair` in one frame.

    Keys on the pictures: those of PictureView; Space shows the second lane while it is held (blink);
    Shift+Left and Shift+Right move the wipe; [ and ] make the loupe smaller and larger.
    """

    stop_requested = Signal(int)
    finish_requested = Signal(int, object)
    share_changed = Signal(float)  # of the wipe, from 0 to 1
    camera_changed = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("compareView")
        self.setAccessibleName(self.tr("Lanes"))
        self.mode, self.view, self.pair = "side", "denoised", (0, 1)
        self.share, self.gain, self.radius = 0.5, 1, 64.0
        self.loupe = self.arrows = False
        self.densities = Densities()
        self._empty = ("", "")
        self._lanes: list[_Lane] = []
        self._headers: list[LaneHeader] = []
        self._views: list[PictureView] = []
        self._dirty: set[int] = set()
        self._pointer: QPointF | None = None
        self._dragging = self._other = False
        self._later = QTimer(self, singleShot=True, interval=0)
        self._later.timeout.connect(self._redraw)
        self._blinking = QTimer(self, interval=_BLINK)
        self._blinking.timeout.connect(lambda: self._show_other(not self._other))
        self._side = QWidget()
        self._grid = QGridLayout(self._side)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(6)
        self._pages = QStackedWidget()
        self._pages.addWidget(self._side)
        self._pages.addWidget(self._both())
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.addWidget(self._pages)

    def _both(self) -> QWidget:
        """The page of two lanes in one frame."""
        self.merged = self._picture_view("mergedView")
        self._pair_headers = [self._header(lane) for lane in self.pair]
        row = QHBoxLayout()
        row.setSpacing(12)
        for header in self._pair_headers:
            row.addWidget(header, 1)
        page = QWidget()
        box = QVBoxLayout(page)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        box.addLayout(row)
        box.addWidget(self.merged, 1)
        return page

    def _picture_view(self, name: str) -> PictureView:
        view = PictureView()
        view.setObjectName(name)
        view.setToolTip("")
        view.camera_changed.connect(partial(self._camera_moved, view))
        view.installEventFilter(self)
        view.set_overlay(self._paint_over)
        return view

    def _header(self, lane: int) -> LaneHeader:
        header = LaneHeader(lane)
        header.stop_requested.connect(self.stop_requested)
        header.finish_requested.connect(self.finish_requested)
        return header

    # ---- what is shown ------------------------------------------------------------------------

    def set_lanes(self, titles: list[str]) -> None:
        """Begin anew with lanes of these titles. Mode, pair, camera and lenses stay where they can."""
        while len(self._views) > len(titles):
            for widget in (self._views.pop(), self._headers.pop()):
                self._grid.removeWidget(widget)
                widget.deleteLater()
        while len(self._views) < len(titles):
            lane = len(self._views)
            self._headers.append(self._header(lane))
            self._views.append(self._picture_view(f"lane{LETTERS[lane]}"))
        self._place()
        self._lanes = [_Lane(number, title) for number, title in enumerate(titles)]
        for view in (*self._views, self.merged):
            view.clear()
        if max(self.pair) >= len(titles):
            self.set_pair((0, 1))
        for lane in range(len(titles)):
            self._tell(lane)

    def set_titles(self, titles: list[str]) -> None:
        """Other words for the same lanes."""
        for lane, title in enumerate(titles[: len(self._lanes)]):
            self._lanes[lane].title = title
            self._tell(lane)

    def _place(self) -> None:
        """Up to three side by side; four in a square."""
        across = 2 if len(self._views) == 4 else len(self._views)
        down = -(-len(self._views) // max(1, across))
        for lane, (header, view) in enumerate(zip(self._headers, self._views, strict=True)):
            row, column = divmod(lane, across)
            self._grid.addWidget(header, 2 * row, column)
            self._grid.addWidget(view, 2 * row + 1, column)
            header.show()
            view.show()
        for place in range(4):
            self._grid.setColumnStretch(place, int(place < across))
            self._grid.setRowStretch(place, int(place % 2 == 1 and place < 2 * down))
        chain = [w for pair in zip(self._views, self._headers, strict=True) for w in pair]
        for before, after in pairwise(chain):
            QWidget.setTabOrder(before, after)

    def show_frame(self, lane: int, frame: Frame) -> None:
        """Show a moment of a lane. Made for 30 calls a second and lane."""
        self._lanes[lane].show(frame)
        self._dirty.add(lane)
        self._later.start()

    def set_state(self, lane: int, state: str, words: str = "") -> None:
        """How a lane stands, on its header: see LaneHeader."""
        self._lanes[lane].state, self._lanes[lane].words = state, words
        self._tell(lane)

    def set_hud(self, lane: int, text: str) -> None:
        """A short line in the corner of a lane."""
        self._views[lane].set_hud(text)

    def state(self, lane: int) -> str:
        return self._lanes[lane].state

    def frame(self, lane: int) -> Frame | None:
        """What is shown of a lane."""
        return self._lanes[lane].frame

    def lane_view(self, lane: int) -> PictureView:
        """The pictures of one lane."""
        return self._views[lane]

    def header(self, lane: int) -> LaneHeader:
        return self._headers[lane]

    def set_empty_text(self, title: str, body: str) -> None:
        """What is said before there are pictures."""
        self._empty = title, body
        for view in (*self._views, self.merged):
            view.set_empty_text(title, body)

    def show_densities(self, densities: Densities, words: dict[int, str]) -> None:
        """Densities as they are now, and what to say of lanes that have none."""
        self.densities = densities
        for lane in self._lanes:
            lane.views.pop(DENSITY, None)
            lane.none = words.get(lane.number, "")
        if self.view == DENSITY:
            self._everything()

    def seen(self, lane: int) -> np.ndarray | None:
        """What is shown of a lane: uint8 (N, H, W, 1 or 3); None if nothing is."""
        return self._lanes[lane].view(self.view, self.densities)

    def _tell(self, lane: int) -> None:
        """Write a lane on its header, and on that of the frame of two."""
        known = self._lanes[lane]
        headers = [self._headers[lane]] + [h for h in self._pair_headers if h.lane == lane]
        # What befell a lane is said in its own line.
        text = f"{known.title}: {known.words}" if known.words else known.title
        for header in headers:
            header.title.set_text(text)
            header.set_state(known.state, known.words)

    # ---- how it is shown ----------------------------------------------------------------------

    def set_mode(self, mode: str) -> None:
        """Side by side, or two lanes in one frame. Raises ValueError if there is no such mode."""
        if mode not in MODES:
            raise ValueError(f"there is no mode {mode}")
        camera = self._seen().camera if self._views else None
        self.mode = mode
        self._pages.setCurrentIndex(int(mode != "side"))
        self.set_blinking(False)
        self._other = False
        self._everything()
        if camera is not None and self._seen().camera != camera:
            for view in self._views if mode == "side" else [self.merged]:
                view.look(camera)
        if mode == "blink":
            self.merged.setFocus()

    def set_view(self, view: str) -> None:
        """Which of VIEWS is shown of every lane, or DENSITY."""
        if view not in (*VIEWS, DENSITY):
            raise ValueError(f"there is no view {view}")
        self.view = view
        self._everything()

    def set_pair(self, pair: tuple[int, int]) -> None:
        """The two lanes of wipe, blink and difference."""
        self.pair = pair
        for header, lane in zip(self._pair_headers, pair, strict=True):
            header.set_lane(lane)
            if lane < len(self._lanes):
                self._tell(lane)
        self._everything()

    def set_gain(self, gain: int) -> None:
        """By how much a difference is enlarged."""
        self.gain = gain
        self._everything()

    def set_share(self, share: float) -> None:
        """Where the wipe lies, from 0 (the second lane alone) to 1 (the first alone)."""
        share = min(max(share, 0.0), 1.0)
        if share != self.share:
            self.share = share
            self._everything()
            self.share_changed.emit(share)

    def set_blinking(self, on: bool) -> None:
        """Show the two lanes in turn, twice a second."""
        if on:
            self._blinking.start()
        elif self._blinking.isActive():
            self._blinking.stop()
            self._show_other(False)

    def set_loupe(self, on: bool) -> None:
        """See the denoised estimate through a lens, or the noisy state where that one is shown."""
        self.loupe = on
        self._overlays()

    def set_arrows(self, on: bool) -> None:
        """Lay arrows of the score over the pictures of each lane."""
        self.arrows = on
        self._overlays()

    def _seen(self) -> PictureView:
        return self._views[0] if self.mode == "side" else self.merged

    def _everything(self) -> None:
        self._dirty.update(range(len(self._lanes)))
        self._redraw()
        self._overlays()

    def _overlays(self) -> None:
        for view in self._views if self.mode == "side" else [self.merged]:
            view.update()

    # ---- drawing ------------------------------------------------------------------------------

    def _redraw(self) -> None:
        """Bring on screen what has changed since the last time."""
        dirty, self._dirty = self._dirty, set()
        if self.mode != "side":
            if dirty & set(self.pair):
                self._draw_pair()
            return
        for number in sorted(dirty):
            if number < len(self._lanes) and (lane := self._lanes[number]).frame is not None:
                seen = self.seen(number)
                if seen is None:
                    self._say_none(self._views[number], lane)
                else:
                    self._draw(self._views[number], seen)

    def _say_none(self, view: PictureView, lane: _Lane) -> None:
        view.clear()
        view.set_empty_text(self.tr("No density here"), lane.none)

    def _draw(self, view: PictureView, pictures: np.ndarray) -> None:
        fresh = not view.count
        view.set_pictures(pictures)
        if fresh:  # the others may have been zoomed already
            others = [v for v in (*self._views, self.merged) if v is not view and v.count]
            if others and view is not self.merged:
                view.look(others[0].camera)

    def _draw_pair(self) -> None:
        seen = [lane.view(self.view, self.densities) for lane in self._two()]
        known = [view for view in seen if view is not None]
        if not known:
            self.merged.clear()
            if self.view == DENSITY and self._two():
                self._say_none(self.merged, self._two()[0])
        elif len(known) < 2 or known[0].shape != known[1].shape:
            self._draw(self.merged, known[0])
        elif self.mode == "wipe":
            self._draw(self.merged, self._wiped(self.view))
        elif self.mode == "difference":
            self._draw(self.merged, lenses.difference(known[0], known[1], self.gain))
        else:
            self._draw(self.merged, known[int(self._other)])

    def _show_other(self, other: bool) -> None:
        if other != self._other:
            self._other = other
            if self.mode == "blink":
                self._draw_pair()
                self._overlays()

    def _two(self) -> list[_Lane]:
        """The lanes of the pair, as far as there are any."""
        return [self._lanes[i] for i in self.pair if i < len(self._lanes)]

    def _paint_over(self, painter: QPainter, view: PictureView) -> None:
        """What lies over the pictures of a lane, or of two in one frame."""
        letters, both = [LETTERS[lane] for lane in self.pair], view is self.merged
        if both and self.mode == "difference":
            span = 255.0
            if self.view == DENSITY and (first := self._lanes[self.pair[0]].frame) is not None:
                low, high = self.densities.scale(first.log_snr)
                span = high - low
            lenses.paint_legend(painter, view, self.font(), self.gain, letters, span)
            return
        lane = self._lanes[self.pair[int(self._other)] if both else self._views.index(view)]
        if lane.frame is None:
            return
        if self.arrows:
            lenses.paint_arrows(painter, view, lane.pulls())
        if self.loupe:
            name = "x" if self.view == "denoised" else "denoised"
            through = self._wiped(name) if both and self.mode == "wipe" else lane.view(name)
            if through is not None:
                lenses.paint_loupe(painter, view, through, self._lens_at(view), self.radius)
        if self.view == DENSITY and self.seen(lane.number) is not None:
            scale, unit = self.densities.scale(lane.frame.log_snr), self.tr("nats a pixel")
            lenses.paint_densities(painter, view, self.font(), scale, unit)
        if both and self.mode == "wipe":
            lenses.paint_wipe(painter, view, self.share, letters)
        elif both:
            lenses.paint_letter(painter, view, self.pair[int(self._other)])

    def _wiped(self, name: str) -> np.ndarray:
        """A view of the pair, on each side of the wipe that of its own lane."""
        seen = [lane.view(name, self.densities) for lane in self._two()]
        known = [view for view in seen if view is not None]
        if len(known) < 2 or known[0].shape != known[1].shape:
            return known[0]
        return lenses.wiped(known[0], known[1], self.share)

    def _lens_at(self, view: PictureView) -> QPointF:
        """Under the pointer; without one, on the picture with the focus."""
        if self._pointer is not None:
            return self._pointer
        return view.cell_rect(view.current if view.solo is None else view.solo).center()

    # ---- one camera, one pointer --------------------------------------------------------------

    def leave_solo(self) -> None:
        """Back to the grid, in every lane."""
        for view in (*self._views, self.merged):
            view.solo = None

    def _camera_moved(self, mover: PictureView, camera: Camera) -> None:
        if mover is self.merged:
            return
        for view in self._views:
            if view is not mover:
                view.look(camera)
        self.camera_changed.emit(camera)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        wiping = watched is self.merged and self.mode == "wipe"
        if wiping and isinstance(event, QMouseEvent) and self._wipe(event):
            return True
        if event.type() == QEvent.Type.MouseMove and isinstance(event, QMouseEvent):
            self._point(event.position())
        elif event.type() == QEvent.Type.Leave:
            self._point(None)
        elif isinstance(event, QKeyEvent):
            return self._key(event)
        return super().eventFilter(watched, event)

    def _point(self, at: QPointF | None) -> None:
        self._pointer = at
        if self.loupe:
            self._overlays()

    def _wipe(self, event: QMouseEvent) -> bool:
        """Take the line where it is near, and drag it. Whether the event was for it."""
        at, kind = event.position(), event.type()
        if kind == QEvent.Type.MouseButtonRelease and self._dragging:
            self._dragging = False
            return True
        index = self.merged.index_at(at)
        if self._dragging and event.buttons() & Qt.MouseButton.LeftButton:
            index = index if index is not None else self.merged.current
            box = self.merged.cell_rect(index)
            if box.width() > 0:
                self.set_share((at.x() - box.left()) / box.width())
            return True
        near = index is not None and self._near(index, at)
        if kind == QEvent.Type.MouseMove and not event.buttons():
            shape = Qt.CursorShape.SplitHCursor if near else Qt.CursorShape.ArrowCursor
            self.merged.setCursor(shape)
        if kind == QEvent.Type.MouseButtonPress and near:
            self._dragging = event.button() == Qt.MouseButton.LeftButton
        return self._dragging

    def _near(self, index: int, at: QPointF) -> bool:
        line = lenses.wipe_line(self.merged, index, self.share)
        grip = min(_GRIP, self.merged.cell_rect(index).width() / 5)
        return abs(at.x() - line.x1()) <= grip

    def _key(self, event: QKeyEvent) -> bool:
        """What a key on the pictures does beyond those of PictureView. Whether it was for us."""
        command = self._command(event)
        if command is None:
            return False
        event.accept()
        if event.type() != QEvent.Type.ShortcutOverride:
            command()
        return True

    def _command(self, event: QKeyEvent) -> Any:
        key, shift = event.key(), event.modifiers() == Qt.KeyboardModifier.ShiftModifier
        if self.mode == "blink" and key == Qt.Key.Key_Space:
            held = event.type() != QEvent.Type.KeyRelease
            return (lambda: None) if event.isAutoRepeat() else lambda: self._show_other(held)
        if event.type() == QEvent.Type.KeyRelease:
            return None
        if self.mode == "wipe" and shift and key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            step = 0.05 if key == Qt.Key.Key_Right else -0.05
            return lambda: self.set_share(self.share + step)
        if self.loupe and key in (Qt.Key.Key_BracketLeft, Qt.Key.Key_BracketRight):
            factor = 1.2 if key == Qt.Key.Key_BracketRight else 1 / 1.2
            return lambda: self._resize_loupe(factor)
        return None

    def _resize_loupe(self, factor: float) -> None:
        self.radius = min(max(self.radius * factor, _SMALLEST), _LARGEST)
        self._overlays()
