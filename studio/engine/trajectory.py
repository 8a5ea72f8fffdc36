"""What is kept of a run: frames to look at, spaced evenly in log-SNR, and sparse exact states to go on
from; in memory within a budget, beyond it in a temporary file.

A frame is kept as two bytes a value, the denoised estimate D and the noise z = (x - a D) / s that the
network sees; the noisy state, the length of the score and the change since the frame before follow
from them when they are looked at, to within three of 255 levels, but where D is beyond the range of
pictures, which 8 bits cannot say.

Frames are made in the worker and read in the window; a list is only ever replaced or appended to,
so a reader sees a whole state at any time.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.diffusion.sampler import Step
from studio.engine.spill import DISK, MEMORY, Item, Spill, held
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

#: What can be looked at, and the attribute of a Frame that shows it.
VIEWS = ("x", "denoised", "score", "change")
MARKS, STATES = 96, 24


@dataclass(frozen=True)
class Frame:
    """A moment of a run: uint8 stacks (N, H, W, C); `score` and `change` have one channel."""

    log_snr: float
    step: int
    calls: int
    x: np.ndarray
    denoised: np.ndarray
    score: np.ndarray
    change: np.ndarray
    score_norm: float = 0.0

    def view(self, name: str) -> np.ndarray:
        return getattr(self, name)

    @property
    def bytes(self) -> int:
        return sum(getattr(self, name).nbytes for name in VIEWS)


class Kept(Frame):
    """A Frame in short form: its views are made when they are looked at, and not kept.

    `items` has the denoised estimate D and, but at the end of a run, the noise z, uint8 (N, H, W, C)
    centred at 127.5. `code` turns them into views: (signal, gain, pull), each (N,) in 8-bit levels. The
    noisy state is 127.5 + signal (D - 127.5) + gain (z - 127.5), the score's length the root of the mean
    of (z - 127.5)² over channels times pull. What changed is since the frame `before`.
    """

    items: dict[str, Item]
    code: tuple[np.ndarray, ...]
    before: Kept | None

    def __init__(
        self,
        moment: tuple[float, int, int, float],
        items: dict[str, Item],
        code: tuple[np.ndarray, ...] = (),
        before: Kept | None = None,
    ) -> None:
        for name, value in zip(("log_snr", "step", "calls", "score_norm"), moment):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "items", items)
        object.__setattr__(self, "code", code)
        object.__setattr__(self, "before", before)

    @staticmethod
    def of(
        moment: tuple[float, int, int, float],
        arrays: dict[str, np.ndarray],
        code: tuple[np.ndarray, ...] = (),
        before: Kept | None = None,
    ) -> Kept:
        """One of arrays in memory, which no trajectory keeps yet."""
        items = {name: held(array) for name, array in arrays.items()}
        return Kept(moment, items, code, before)

    def __getattr__(self, name: str) -> np.ndarray:
        # What the base class keeps as arrays is not there, so asking for it leads here.
        if name not in VIEWS:
            raise AttributeError(name)
        items, before = self.items, self.before
        if name in items:
            return items[name].load()
        if name == "change":
            now = self.denoised
            return _change(now, now if before is None else before.denoised)
        if "noise" not in items:  # the end of a run: the state is the estimate
            return self.denoised if name == "x" else np.zeros_like(self.denoised[..., :1])
        return self._state() if name == "x" else self._length()

    def after(self, before: Kept | None) -> Kept:
        """The same frame with another one before it."""
        return Kept(self.moment, self.items, self.code, before)

    @property
    def moment(self) -> tuple[float, int, int, float]:
        return self.log_snr, self.step, self.calls, self.score_norm

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C) of the pictures, told without making any."""
        return self.items["denoised"].shape

    @property
    def bytes(self) -> int:
        """Of memory; what lies in the file is not counted."""
        return sum(item.bytes for item in self.items.values() if not item.on_disk)

    def _state(self) -> np.ndarray:
        signal, gain, _ = (v.reshape(-1, 1, 1, 1) for v in self.code)
        noise = self.items["noise"].load()
        levels = self.denoised * signal
        levels += noise * gain
        levels += 127.5 * (1 - signal - gain)
        return _pixels(levels)

    def _length(self) -> np.ndarray:
        pull = self.code[2].reshape(-1, 1, 1, 1)
        noise = self.items["noise"].load().astype(np.float32) - 127.5
        return _pixels(_root_mean(noise) * pull)


def _root_mean(field: np.ndarray) -> np.ndarray:
    """The root of the mean square over channels, (N, H, W, 1)."""
    mean = np.einsum("nhwc,nhwc->nhw", field, field) / field.shape[-1]
    return np.sqrt(mean)[..., None]


def _change(now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """How far an estimate has moved; a quarter of the range is white."""
    return _pixels(4 * _root_mean(now.astype(np.float32) - before))


def _pixels(levels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(levels, out=levels), 0, 255, out=levels).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class State:
    """A Step of a run, exactly as it was. `leg` counts the branches of the recipe taken before it."""

    log_snr: float
    leg: int
    index: int
    total: int
    t: float
    nfe: int
    items: dict[str, Item]  # x, denoised, and the memory's tensors as "memory.name"

    def step(self, device: str = "cpu", rows: range | None = None) -> Step:
        """The Step itself, or that of some of its samples, its tensors on a device, but those in float64,
        which solvers keep on the host."""
        arrays = {k: item.load() for k, item in self.items.items()}
        if rows is not None and len(rows) < len(arrays["x"]):
            arrays = {k: _picked(array, rows) for k, array in arrays.items()}
        tensors = {k: torch.from_numpy(array.copy()) for k, array in arrays.items()}
        tensors = {k: v if v.dtype == torch.float64 else v.to(device) for k, v in tensors.items()}
        memory = {k.removeprefix("memory."): v for k, v in tensors.items() if "." in k}
        ends = self.index, self.total, self.t, tensors["x"], tensors["denoised"]
        return Step(*ends, self.nfe, memory)

    def alone(self, row: int) -> State:
        """Of one sample, at the time at which that one is."""
        items = {k: _one(item, row) for k, item in self.items.items()}
        t = float(items["memory.t"].load()[0]) if "memory.t" in items else self.t
        return replace(self, t=t, items=items)

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items.values())


def _picked(array: np.ndarray, rows: range) -> np.ndarray:
    """Some samples of what a state keeps: a number for all, (B,) or (B, C, H, W), or several of these."""
    if array.ndim in (0, 3):
        return array
    return array[:, list(rows)] if array.ndim in (2, 5) else array[list(rows)]


def _one(item: Item, row: int) -> Item:
    """What is kept of one sample, read when it is asked for."""
    one = range(row, row + 1)
    shape = _picked(np.empty(item.shape, np.bool_), one).shape
    return Item(lambda: _picked(item.load(), one), 0, shape, item.on_disk)


class Trajectory:
    """The frames and states of a run from log-SNR `low` (noise) to `high` (clean), rising.

    `budget` is what may be kept in memory, `disk` what beyond it in a file. `recipe` is the job that
    leads here, as data, of these samples alone; while it is empty, no states are kept, unless they are
    wanted for themselves: `exact`. `given` is that job itself where data alone do not make it again.
    `trouble` says what went wrong with the file, if anything did.
    """

    def __init__(
        self,
        low: float,
        high: float,
        marks: int = MARKS,
        budget: int = MEMORY,
        disk: int = DISK,
        states: int = STATES,
    ) -> None:
        self.low, self.high = low, high
        self.frames: list[Frame] = []
        self.states: list[State] = []
        self.recipe: dict[str, Any] = {}
        self.given: Any = None
        self.exact = False
        self._marks, self._states = marks, states
        self._spill = Spill(budget, disk)

    # -- frames -----------------------------------------------------------------------------------

    def due(self, log_snr: float) -> bool:
        """Whether a frame at this log-SNR would be kept."""
        if not self.frames:
            return True
        return log_snr - self.frames[-1].log_snr >= (self.high - self.low) / self._marks

    def add(self, frame: Kept) -> None:
        """Keep a frame. When there is no room left, every other frame goes and marks are rarer."""
        arrays = {name: item.load() for name, item in frame.items.items()}
        self.put_frame(frame.moment, arrays, frame.code)

    def put_frame(
        self,
        moment: tuple[float, int, int, float],
        arrays: dict[str, np.ndarray],
        weights: tuple[np.ndarray, ...],
    ) -> None:
        """Keep a frame as `Kept` holds it."""
        items = self._put(arrays)
        if items is None:
            self._thin()
            items = self._put(arrays) or self._put(arrays, must=True) or {}
        last = self.frames[-1] if self.frames else None
        before = last if isinstance(last, Kept) else None
        self.frames.append(Kept(moment, items, weights, before))

    def nearest(self, log_snr: float) -> Frame | None:
        """The kept frame closest to a log-SNR; None if none is kept yet."""
        frames = self.frames
        if not frames:
            return None
        i = bisect.bisect_left(frames, log_snr, key=lambda f: f.log_snr)
        near = frames[max(0, i - 1) : i + 1]
        return min(near, key=lambda f: abs(f.log_snr - log_snr))

    def _thin(self) -> None:
        """Leave out every other frame, and drop the links to them."""
        if len(self.frames) < 4:
            return
        kept: list[Frame] = []
        for i, frame in enumerate(self.frames):
            assert isinstance(frame, Kept)
            if i % 2:
                for item in frame.items.values():
                    self._spill.drop(item)
            else:
                before = kept[-1] if kept else None
                kept.append(frame.after(before if isinstance(before, Kept) else None))
        self.frames = kept
        self._marks = max(2, self._marks // 2)

    # -- states -----------------------------------------------------------------------------------

    def due_state(self, log_snr: float) -> bool:
        """Whether the Step at this log-SNR would be kept as it is."""
        if not (self.recipe or self.exact) or not self._states:
            return False
        if not self.states:
            return True
        return self._mark(log_snr) > self._mark(self.states[-1].log_snr)

    def add_state(self, step: Step, log_snr: float, leg: int = 0) -> None:
        """Keep a Step as it is, if there is room for it."""
        tensors: dict[str, Tensor] = {"x": step.x, "denoised": step.denoised}
        tensors |= {f"memory.{k}": v for k, v in step.memory.items()}
        arrays = {k: v.detach().cpu().numpy() for k, v in tensors.items()}
        self.put_state(log_snr, leg, (step.index, step.total, step.t, step.nfe), arrays)

    def put_state(
        self,
        log_snr: float,
        leg: int,
        numbers: tuple[int, int, float, int],
        arrays: dict[str, np.ndarray],
    ) -> None:
        """Keep a state as `State` holds it, if there is room for it."""
        if (items := self._put(arrays, spare=self.budget // 4)) is not None:
            self.states.append(State(log_snr, leg, *numbers, items))

    def state_before(self, log_snr: float) -> State | None:
        """The last kept state at or above the noise of a log-SNR; None if there is none."""
        states = self.states
        at = bisect.bisect_right(states, log_snr + 1e-9, key=lambda s: s.log_snr)
        return states[at - 1] if at else None

    def _mark(self, log_snr: float) -> int:
        return int((log_snr - self.low) / (self.high - self.low) * self._states)

    # -- one sample ---------------------------------------------------------------------------------

    def alone(self, row: int, recipe: dict[str, Any]) -> Trajectory:
        """The run of one sample, with the recipe of it alone. It keeps nothing itself: this one does."""
        one = Trajectory(self.low, self.high)
        one.recipe, before = recipe, None
        for frame in self.frames[:]:
            if isinstance(frame, Kept):
                items = {name: _one(item, row) for name, item in frame.items.items()}
                code = tuple(v[row : row + 1] for v in frame.code)
                before = Kept(frame.moment, items, code, before)
                one.frames.append(before)
        one.states = [state.alone(row) for state in self.states[:]]
        return one

    # -- room -------------------------------------------------------------------------------------

    @property
    def bytes(self) -> int:
        """What is in memory, of frames and states."""
        return self._spill.bytes

    @property
    def budget(self) -> int:
        return self._spill.memory

    @property
    def spilled(self) -> int:
        """What is in the file."""
        return self._spill.spilled

    @property
    def trouble(self) -> str:
        """Why the file cannot be written; empty while it can."""
        return self._spill.trouble

    def close(self) -> None:
        """Let go of everything, and of the file."""
        self.frames, self.states = [], []
        self._spill.close()

    def _put(
        self, arrays: dict[str, np.ndarray], must: bool = False, spare: int = 0
    ) -> dict[str, Item] | None:
        """All of the arrays, or none of them."""
        items: dict[str, Item] = {}
        for name, array in arrays.items():
            if (item := self._spill.put(array, must, spare)) is None:
                for kept in items.values():
                    self._spill.drop(kept)
                return None
            items[name] = item
        return items
