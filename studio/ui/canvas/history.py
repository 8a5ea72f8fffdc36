"""Undo and redo by tiles: a step keeps before XOR after of the tiles that it changed.

XOR turns a picture into what it was and back, so one copy serves both ways. Lifting the brush must not
take long, so a step begins with plain copies of what was there; they become XOR when their tile is
written to again or its step undone, and are compressed by `settle` in idle time.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

import numpy as np

Rect = tuple[int, int, int, int]
"""(x, y, width, height) in picture pixels."""

Place = tuple[str, int, int]
"""(layer, row of tiles, column of tiles)"""

TILE = 256
BUDGET = 256 * 2**20  # bytes of undo and redo together


def within(rect: Rect, size: tuple[int, int]) -> Rect | None:
    """The part of `rect` inside a picture (w, h); None if there is none."""
    left, top = max(rect[0], 0), max(rect[1], 0)
    right, bottom = min(rect[0] + rect[2], size[0]), min(rect[1] + rect[3], size[1])
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def union(one: Rect | None, other: Rect | None) -> Rect | None:
    """The smallest rectangle around both."""
    if one is None or other is None:
        return one or other
    left, top = min(one[0], other[0]), min(one[1], other[1])
    right = max(one[0] + one[2], other[0] + other[2])
    bottom = max(one[1] + one[3], other[1] + other[3])
    return left, top, right - left, bottom - top


def area(rect: Rect) -> tuple[slice, slice]:
    """The index of `rect` in an array (H, W, …)."""
    x, y, w, h = rect
    return slice(y, y + h), slice(x, x + w)


def tile_at(row: int, column: int) -> tuple[slice, slice]:
    """The index of a tile in an array (H, W, …); numpy cuts it at the picture's end."""
    return area((column * TILE, row * TILE, TILE, TILE))


def tiles(rect: Rect) -> Iterator[tuple[int, int]]:
    """(row, column) of every tile that a rectangle with positive sides touches."""
    x, y, w, h = rect
    for row in range(y // TILE, (y + h - 1) // TILE + 1):
        for column in range(x // TILE, (x + w - 1) // TILE + 1):
            yield row, column


_CLEAR = np.zeros(TILE * TILE * 4, np.uint8)
_CLEAR.flags.writeable = False


class Recording:
    """What one mark changes: tiles are copied before they are first written to.

    `used` holds the places that were ever written to; the others of a painted layer are empty, and
    need no copy of their own.
    """

    def __init__(
        self, layers: dict[str, np.ndarray], used: Container[Place], history: History
    ) -> None:
        self._layers, self._used, self._history = layers, used, history
        self.before: dict[Place, np.ndarray] = {}

    def touch(self, layer: str, rect: Rect) -> None:
        """Say that `rect`, inside the picture, is about to be written to."""
        pixels = self._layers[layer]
        for row, column in tiles(rect):
            place = (layer, row, column)
            if place in self.before:
                continue
            self._history.close(place)
            tile = pixels[tile_at(row, column)]
            empty = layer != "photo" and place not in self._used
            self.before[place] = _CLEAR[: tile.size].reshape(tile.shape) if empty else tile.copy()

    def finish(self) -> dict[Place, Delta]:
        """What has changed; empty if nothing has. The copies are used up."""
        changes: dict[Place, Delta] = {}
        for place in list(self.before):
            before = self.before.pop(place)
            # To find one change is enough; looking at every tile would take long.
            if changes or not np.array_equal(before, self._layers[place[0]][tile_at(*place[1:])]):
                changes[place] = Delta(before)
        return changes

    def restore(self) -> None:
        """Put back what was there."""
        for place, before in self.before.items():
            self._layers[place[0]][tile_at(*place[1:])] = before
        self.before.clear()


class Delta:
    """The change of one tile: first what was there before, then before XOR after, then compressed."""

    def __init__(self, before: np.ndarray) -> None:
        self.shape, self.size = before.shape, before.nbytes
        self._before: np.ndarray | None = before
        self._raw: np.ndarray | None = None
        self._packed = b""

    def close(self, now: np.ndarray) -> None:
        """The tile is about to be something else than it is `now`, as this change left it."""
        if self._before is not None:
            own = self._before if self._before.flags.writeable else None
            self._raw, self._before = np.bitwise_xor(self._before, now, out=own), None

    def pack(self) -> None:
        """Compress, after `close`."""
        if self._raw is not None:
            self._packed, self._raw = zlib.compress(self._raw.data, 1), None
            self.size = len(self._packed)

    def read(self) -> np.ndarray:
        """before XOR after, after `close`."""
        if self._raw is not None:
            return self._raw
        return np.frombuffer(zlib.decompress(self._packed), np.uint8).reshape(self.shape)


@dataclass
class Step:
    """One thing that can be undone. `box` holds the box before and after, where it moved."""

    title: str
    changes: dict[Place, Delta] = field(default_factory=dict)
    box: tuple[Rect, Rect] | None = None
    serial: int = 0

    @property
    def size(self) -> int:
        return sum(delta.size for delta in self.changes.values())


class History:
    """The steps of one document, within a budget of bytes; the oldest are forgotten first.

    `tile(place)` is a tile as it is now; `apply(step, back)` does or undoes a step; `finish()` ends a
    mark that is being made. The last step is kept even if it is larger than the budget.
    """

    def __init__(
        self,
        tile: Callable[[Place], np.ndarray],
        apply: Callable[[Step, bool], None],
        finish: Callable[[], object],
        budget: int = BUDGET,
    ) -> None:
        self._tile, self._apply, self._finish, self._budget = tile, apply, finish, budget
        self._undo: deque[Step] = deque()
        self._redo: list[Step] = []
        self._raw: deque[tuple[Step, Place]] = deque()
        self._open: dict[Place, Delta] = {}  # of each tile, the newest change, until closed
        self._serial = 0
        self._base = 0  # the state below the oldest step
        self._marked = 0
        self._size = 0

    def push(self, step: Step) -> None:
        """Add what has just been done; what was undone before can no longer be redone."""
        self._serial += 1
        step.serial = self._serial
        self._size += step.size
        self._drop(self._redo)
        self._redo = []
        self._undo.append(step)
        self._raw.extend((step, place) for place in step.changes)
        self._open.update(step.changes)
        if self._size > self._budget:
            self._trim()

    def close(self, place: Place) -> None:
        """A tile is about to change."""
        delta = self._open.pop(place, None)
        if delta is not None:
            delta.close(self._tile(place))

    def undo(self) -> bool:
        """Take back the last step. False if there is none."""
        self._finish()
        if not self._undo:
            return False
        step = self._undo.pop()
        for place in step.changes:
            self.close(place)
        self._redo.append(step)
        self._apply(step, True)
        return True

    def redo(self) -> bool:
        """Do again what was taken back last. False if there is nothing."""
        self._finish()
        if not self._redo:
            return False
        step = self._redo.pop()
        self._undo.append(step)
        self._apply(step, False)
        return True

    def clear(self) -> None:
        """Forget every step; the document as it is counts as saved."""
        self._base = self._marked = self.state
        self._undo.clear()
        self._redo = []
        self._raw.clear()
        self._open.clear()
        self._size = 0

    @property
    def undo_title(self) -> str:
        return self._undo[-1].title if self._undo else ""

    @property
    def redo_title(self) -> str:
        return self._redo[-1].title if self._redo else ""

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    @property
    def state(self) -> int:
        """A number that is the same whenever the document is in the same state of this history."""
        return self._undo[-1].serial if self._undo else self._base

    @property
    def clean(self) -> bool:
        """Whether the document is as it was at the last `mark`."""
        return self.state == self._marked

    def mark(self, state: int | None = None) -> None:
        """Remember this state, or the given one, as the one that is saved."""
        self._marked = self.state if state is None else state

    def settle(self, seconds: float) -> bool:
        """Compress raw steps for at most about `seconds`. True if more is left to do."""
        end = time.perf_counter() + seconds
        while self._raw and time.perf_counter() < end:
            self._pack()
        return bool(self._raw)

    def _pack(self) -> None:
        step, place = self._raw.popleft()
        delta = step.changes[place]
        if self._open.get(place) is delta:
            self.close(place)
        before = delta.size
        delta.pack()
        self._size += delta.size - before

    def _trim(self) -> None:
        """Compress, then forget the oldest, until the budget holds."""
        while self._raw and self._size > self._budget:
            self._pack()
        while self._size > self._budget and len(self._undo) > 1:
            oldest = self._undo.popleft()
            self._base = oldest.serial
            self._drop([oldest])

    def _drop(self, steps: list[Step]) -> None:
        gone = {step.serial for step in steps}
        self._size -= sum(step.size for step in steps)
        if gone and self._raw:
            self._raw = deque(entry for entry in self._raw if entry[0].serial not in gone)
