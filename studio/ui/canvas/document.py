"""The document behind the canvas: a photo, what of it may change, colours over it, and the box.

Layers are uint8 arrays: `photo` (H, W, 3), `mask` (H, W), `sketch` (H, W, 4, straight alpha). A mask
value says how far a pixel may change: 0 is known and comes back bit for bit, 255 is free. Every verb
is one undo step, and tells the listeners which rectangle of which layer has changed. Coordinates are
picture pixels, x to the right, y down. All of it belongs to one thread.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from studio.engine import boxes
from studio.errors import PictureError
from studio.ui.canvas import marks
from studio.ui.canvas.brush import Brush
from studio.ui.canvas.history import (
    TILE,
    History,
    Place,
    Recording,
    Rect,
    Step,
    area,
    tile_at,
    tiles,
    union,
    within,
)
from studio.ui.canvas.stroke import Stroke

Listener = Callable[[str, Rect], None]
"""Called with (layer, dirty rectangle); the layer is "photo", "mask", "sketch" or "box"."""

PAINTED = ("mask", "sketch")
MOST_PIXELS = 200_000_000
MOST_GROWTH = 256  # pixels


class Document:
    """Made by `Document.of`. Arrays are read-only views; `photo` may be another array after an
    `accept`, so ask for it anew when told that it has changed."""

    def __init__(self, photo: np.ndarray, alpha: np.ndarray | None, name: str) -> None:
        h, w = photo.shape[:2]
        self.name = name
        self.path: Path | None = None
        self.key = uuid.uuid4().hex  # tells documents apart, also after a crash
        self.base = _read_only(photo)  # as it came; never written to
        self._alpha = alpha
        self._own = False  # whether the photo's pixels may be written to
        self._layers = {
            "photo": photo,
            "mask": np.zeros((h, w), np.uint8),
            "sketch": np.zeros((h, w, 4), np.uint8),
        }
        self._views = {layer: _read_only(pixels) for layer, pixels in self._layers.items()}
        self._versions: dict[Place, int] = {}
        self._version = 0
        self._bounds: dict[Place, Rect | None] = {}
        self._box: Rect = (0, 0, w, h)
        self._listeners: list[Listener] = []
        self._stroke: Stroke | None = None
        self.history = History(self._tile, self._apply, self.finish)

    @classmethod
    def of(
        cls,
        photo: np.ndarray,
        alpha: np.ndarray | None = None,
        name: str = "untitled",
        *,
        mask: np.ndarray | None = None,
        sketch: np.ndarray | None = None,
    ) -> Document:
        """A document on `photo`, uint8 (H, W, 3), which must not be written to afterwards.

        `alpha` is uint8 (H, W); `mask` and `sketch` are what is painted already. Raises PictureError
        if the arrays are no picture of usable size, or differ in size.
        """
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise PictureError("A canvas is made from a picture with 8-bit red, green and blue.")
        if not 0 < photo.shape[0] * photo.shape[1] <= MOST_PIXELS:
            raise PictureError(
                f"A canvas holds at most {MOST_PIXELS // 10**6} million pixels.",
                "Make the picture smaller first.",
            )
        h, w = photo.shape[:2]
        for layer, shape in ((alpha, (h, w)), (mask, (h, w)), (sketch, (h, w, 4))):
            if layer is not None and (layer.dtype != np.uint8 or layer.shape != shape):
                raise PictureError("The layers of the canvas differ in size.")
        document = cls(np.ascontiguousarray(photo), alpha, name)
        for name, given in (("mask", mask), ("sketch", sketch)):
            rect = None if given is None else marks.box_of(given)
            if given is not None and rect is not None:
                document._layers[name][...] = given
                document._changed(name, (0, rect[1], w, rect[3]))
        return document

    # -- what there is -------------------------------------------------------------------------

    @property
    def photo(self) -> np.ndarray:
        return self._views["photo"]

    @property
    def mask(self) -> np.ndarray:
        return self._views["mask"]

    @property
    def sketch(self) -> np.ndarray:
        return self._views["sketch"]

    @property
    def alpha(self) -> np.ndarray | None:
        return None if self._alpha is None else _read_only(self._alpha)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self._layers["mask"].shape[1], self._layers["mask"].shape[0]

    @property
    def box(self) -> Rect:
        """The part that goes through the model. At first, the whole picture."""
        return self._box

    @property
    def modified(self) -> bool:
        """Whether anything differs from what was saved last, or opened."""
        return self._stroke is not None or not self.history.clean

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Be told of every change, until the function that is returned is called."""
        self._listeners.append(listener)

        def end() -> None:
            # By identity: two bound methods of one object are equal.
            self._listeners = [known for known in self._listeners if known is not listener]

        return end

    def bounds(self, layer: str) -> Rect | None:
        """The rectangle around what is not zero in the mask or the sketch.

        Only tiles that have changed since the last call are looked at.
        """
        if layer == "photo":
            return (0, 0, *self.size)
        around: Rect | None = None
        places = [place for place in self._versions if place[0] == layer]
        for place in sorted(places, key=lambda p: p not in self._bounds):
            whole = (place[2] * TILE, place[1] * TILE, TILE, TILE)
            if union(around, whole) != around:
                around = union(around, self._bounds_of(place))
        return around

    def _bounds_of(self, place: Place) -> Rect | None:
        if place not in self._bounds:
            tile = self._tile(place)
            inner = marks.box_of(tile if tile.ndim == 2 else marks.words(tile))
            x, y = place[2] * TILE, place[1] * TILE
            self._bounds[place] = inner and (x + inner[0], y + inner[1], inner[2], inner[3])
        return self._bounds[place]

    def pick(self, x: float, y: float) -> tuple[int, int, int]:
        """The colour that is seen at a point: the sketch over the photo."""
        column = min(max(int(x), 0), self.size[0] - 1)
        row = min(max(int(y), 0), self.size[1] - 1)
        *above, alpha = (int(v) for v in self._layers["sketch"][row, column])
        below = self._layers["photo"][row, column]
        red, green, blue = (
            (a * alpha + int(b) * (255 - alpha) + 127) // 255 for a, b in zip(above, below)
        )
        return red, green, blue

    def version(self, layer: str) -> dict[tuple[int, int], int]:
        """A number for each tile (row, column) that was ever changed; a change makes it larger."""
        return {place[1:]: v for place, v in self._versions.items() if place[0] == layer}

    # -- marks by hand -------------------------------------------------------------------------

    def stroke(self, layer: str, brush: Brush) -> Stroke:
        """Press the brush down on "mask" or "sketch"; a stroke still being made is ended."""
        self.finish()
        pixels = self._painted(layer)
        recording = Recording(self._layers, self._versions, self.history)
        title = "Erase" if brush.erase else "Brush stroke"

        def done(stays: bool) -> bool:
            self._stroke = None
            if not stays:
                recording.restore()
                return False
            return self._commit(title, recording)

        self._stroke = Stroke(layer, brush, pixels, recording, self._changed, done)
        return self._stroke

    def finish(self) -> None:
        """End the stroke that is being made, if there is one."""
        if self._stroke is not None:
            self._stroke.end()

    def fill_polygon(self, layer: str, points: Sequence[tuple[float, float]], brush: Brush) -> None:
        """Fill the inside of a polygon with smooth edges, at the brush's strength."""
        rect = marks.polygon_bounds(points, self.size)
        if rect is not None and brush.level:
            coverage = marks.polygon(points, rect, brush.level)
            self._cover(layer, rect, coverage, brush, "Erase lasso" if brush.erase else "Lasso")

    def fill_rect(self, layer: str, rect: Rect, brush: Brush) -> None:
        """Fill a rectangle at the brush's strength."""
        inside = within(rect, self.size)
        if inside is not None:
            coverage = np.full((inside[3], inside[2]), brush.level, np.uint8)
            title = "Erase rectangle" if brush.erase else "Rectangle"
            self._cover(layer, inside, coverage, brush, title)

    def flood(self, layer: str, x: float, y: float, brush: Brush, tolerance: int = 24) -> None:
        """Fill what is joined to a point and looks like it in the photo: each of red, green and
        blue within `tolerance`. Raises PictureError if that region is too ragged to follow."""
        column, row = int(x // 1), int(y // 1)
        if within((column, row, 1, 1), self.size) is None:
            return
        rect, inside = marks.region(self._layers["photo"], column, row, tolerance)
        coverage = inside * np.uint8(brush.level)
        self._cover(layer, rect, coverage, brush, "Erase region" if brush.erase else "Fill region")

    def _cover(
        self, layer: str, rect: Rect, coverage: np.ndarray, brush: Brush, title: str
    ) -> None:
        """Lay `coverage`, uint8 (h, w), on a layer. It is used up."""
        with self._edit(layer, rect, title) as part:
            if layer == "mask":
                marks.cover_mask(part, coverage, brush.erase)
                return
            ink, pixels = marks.Ink(brush), marks.words(part)
            for inner in _by_tile((0, 0, rect[2], rect[3])):
                ink.cover(pixels[inner], coverage[inner], pixels[inner])

    # -- verbs ---------------------------------------------------------------------------------

    def invert_mask(self) -> None:
        with self._edit("mask", (0, 0, *self.size), "Invert mask") as part:
            np.subtract(255, part, out=part)

    def clear(self, layer: str) -> None:
        """Empty the mask or the sketch."""
        rect = self.bounds(layer)
        if rect is not None:
            with self._edit(layer, rect, f"Clear {layer}") as part:
                part[...] = 0

    def grow_mask(self, px: int) -> None:
        """Grow what is painted by `px` pixels all round, or shrink it if negative, to 256.

        Shrinking stops at the picture's edge: what goes on outside is taken to be painted.
        """
        px = min(max(int(px), -MOST_GROWTH), MOST_GROWTH)
        rect = self._around_mask(max(px, 0) + 1)
        if rect is None or not px:
            return
        with self._edit("mask", rect, "Grow mask" if px > 0 else "Shrink mask") as part:
            if px > 0:
                part[...] = marks.dilated(part, px)
            else:
                np.subtract(255, marks.dilated(np.subtract(255, part), -px), out=part)

    def feather_mask(self, px: float) -> None:
        """Soften the mask's edges by a Gaussian with a standard deviation of `px`, to 256."""
        px = min(max(float(px), 0.0), float(MOST_GROWTH))
        rect = self._around_mask(int(3 * px) + 2)
        if rect is not None and px:
            with self._edit("mask", rect, "Feather mask") as part:
                part[...] = marks.blurred(part, px)

    def threshold_mask(self) -> None:
        """Make the mask hard: 255 from the middle value up, else 0."""
        rect = self.bounds("mask")
        if rect is not None:
            with self._edit("mask", rect, "Threshold mask") as part:
                np.multiply(part >= 128, np.uint8(255), out=part)

    def mask_from_alpha(self) -> None:
        """Let change what is transparent. Raises PictureError if the picture has no alpha."""
        if self._alpha is None:
            raise PictureError(
                "This picture has no transparency to make a mask from.",
                "Paint the mask, or open a picture with an alpha channel.",
            )
        self.set_mask(np.subtract(255, self._alpha), "Mask from transparency")

    def set_mask(self, mask: np.ndarray, title: str = "Import mask") -> None:
        """Replace the whole mask. Raises PictureError unless it is uint8 (H, W) of this size."""
        if mask.dtype != np.uint8 or mask.shape != self._layers["mask"].shape:
            raise PictureError(
                "This mask does not have the size of the picture.",
                f"Make it {self.size[0]} x {self.size[1]} pixels in size.",
            )
        rect = union(self.bounds("mask"), marks.box_of(mask))
        if rect is not None:
            with self._edit("mask", rect, title) as part:
                part[...] = mask[area(rect)]

    def accept(self, rect: Rect, pixels: np.ndarray, title: str = "Accept candidate") -> None:
        """Put `pixels`, uint8 (h, w, 3), into the photo at `rect`. The mask stays.

        What lies outside the picture is left out. Raises PictureError if the sizes differ.
        """
        if pixels.dtype != np.uint8 or pixels.shape != (rect[3], rect[2], 3):
            raise PictureError("The pixels to accept do not have the size of their place.")
        inside = within(rect, self.size)
        if inside is None:
            return
        x, y, w, h = inside
        with self._edit("photo", inside, title) as part:
            part[...] = pixels[y - rect[1] :, x - rect[0] :][:h, :w]

    def paste(self, pixels: np.ndarray, x: int, y: int) -> None:
        """Lay `pixels`, uint8 (h, w, 4), over the sketch with the left top corner at (x, y)."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 4:
            raise PictureError("What is pasted has to be a picture with 8-bit colours and alpha.")
        x, y = int(x), int(y)
        inside = within((x, y, pixels.shape[1], pixels.shape[0]), self.size)
        if inside is None:
            return
        left, top, w, h = inside
        shown = np.ascontiguousarray(pixels[top - y :, left - x :][:h, :w])
        with self._edit("sketch", inside, "Paste") as part:
            below, above = marks.words(part), marks.words(shown)
            for inner in _by_tile((0, 0, w, h)):
                marks.over(below[inner], above[inner], below[inner])

    # -- the box -------------------------------------------------------------------------------

    def set_box(self, rect: Rect) -> None:
        """Move the box to what of `rect` lies in the picture; nothing happens if none does."""
        x, y, w, h = (round(v) for v in rect)
        inside = within((x, y, w, h), self.size)
        if inside is not None and inside != self._box:
            self.finish()
            before, self._box = self._box, inside
            self.history.push(Step("Move box", box=(before, inside)))
            self._tell("box", union(before, inside) or inside)

    def fit_box(self, side: int, padding: int = 32) -> Rect:
        """A square of at least `side` around the mask and `padding`, or around the box if the mask
        is empty. In the picture where it fits; else it stands out evenly on both sides.

        The padding gives way before the square leaves the picture.
        """
        marked = self.bounds("mask")
        if marked is None:
            return boxes.square(self._box, self.size, side)
        return boxes.around(marked, self.size, side, padding)

    # -- how changes are made ------------------------------------------------------------------

    def _painted(self, layer: str) -> np.ndarray:
        if layer not in PAINTED:
            raise ValueError(f"there is no painting on {layer!r}")
        return self._layers[layer]

    def _around_mask(self, margin: int) -> Rect | None:
        rect = self.bounds("mask")
        if rect is None:
            return None
        x, y, w, h = rect
        return within((x - margin, y - margin, w + 2 * margin, h + 2 * margin), self.size)

    @contextlib.contextmanager
    def _edit(self, layer: str, rect: Rect, title: str) -> Iterator[np.ndarray]:
        """The pixels of `rect`, inside the picture, to write to: one undo step, and none if they
        come out as they were. If the block fails, they are as before."""
        self.finish()
        if layer == "photo":
            self._own_photo()
        else:
            self._painted(layer)
        recording = Recording(self._layers, self._versions, self.history)
        recording.touch(layer, rect)
        try:
            yield self._layers[layer][area(rect)]
        except BaseException:
            recording.restore()
            raise
        if self._commit(title, recording):
            self._changed(layer, rect)

    def _commit(self, title: str, recording: Recording) -> bool:
        changes = recording.finish()
        if changes:
            self.history.push(Step(title, changes))
        return bool(changes)

    def _tile(self, place: Place) -> np.ndarray:
        return self._layers[place[0]][tile_at(*place[1:])]

    def _own_photo(self) -> None:
        if not self._own:
            self._own = True
            self._layers["photo"] = self._layers["photo"].copy()
            self._views["photo"] = _read_only(self._layers["photo"])

    def _apply(self, step: Step, back: bool) -> None:
        """Undo or redo: the tiles' XOR turns the one into the other."""
        dirty: dict[str, Rect] = {}
        for place, delta in step.changes.items():
            layer, row, column = place
            part, change = self._tile(place), delta.read()
            part ^= change
            inner = marks.box_of(change)
            if inner is not None:
                x, y = column * TILE + inner[0], row * TILE + inner[1]
                around = union(dirty.get(layer), (x, y, inner[2], inner[3]))
                dirty[layer] = around or dirty[layer]
        for layer, rect in dirty.items():
            self._changed(layer, rect)
        if step.box is not None:
            self._box = step.box[0] if back else step.box[1]
            self._tell("box", union(*step.box) or self._box)

    def _changed(self, layer: str, rect: Rect) -> None:
        self._version += 1
        for row, column in tiles(rect):
            place = (layer, row, column)
            self._versions[place] = self._version
            self._bounds.pop(place, None)
        self._tell(layer, rect)

    def _tell(self, layer: str, rect: Rect) -> None:
        for listener in list(self._listeners):
            listener(layer, rect)


def _read_only(pixels: np.ndarray) -> np.ndarray:
    view = pixels.view()
    view.flags.writeable = False
    return view


def _by_tile(rect: Rect) -> Iterator[tuple[slice, slice]]:
    """Parts of a rectangle of about a tile each: temporaries stay in the processor's cache."""
    for row, column in tiles(rect):
        yield (
            slice(row * TILE, min((row + 1) * TILE, rect[1] + rect[3])),
            slice(column * TILE, min((column + 1) * TILE, rect[0] + rect[2])),
        )
