"""What is kept of a run: frames spaced evenly in log-SNR, within a byte budget.

Frames are made in the worker and read in the window; a list is only ever replaced or appended to,
so a reader sees a whole state at any time.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

#: What can be looked at, and the attribute of a Frame that shows it.
VIEWS = ("x", "denoised", "score", "change")


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


class Trajectory:
    """The frames of a run from log-SNR `low` (noise) to `high` (clean), rising."""

    def __init__(self, low: float, high: float, marks: int = 96, budget: int = 128 * 2**20) -> None:
        self.low, self.high = low, high
        self._marks, self._budget = marks, budget
        self.frames: list[Frame] = []

    def due(self, log_snr: float) -> bool:
        """Whether a frame at this log-SNR would be kept."""
        if not self.frames:
            return True
        return log_snr - self.frames[-1].log_snr >= (self.high - self.low) / self._marks

    def add(self, frame: Frame) -> None:
        """Keep a frame. When the budget is spent, every other frame goes and marks are rarer."""
        if len(self.frames) >= 4 and (len(self.frames) + 1) * frame.bytes > self._budget:
            self.frames = self.frames[::2]
            self._marks = max(2, self._marks // 2)
        self.frames.append(frame)

    def nearest(self, log_snr: float) -> Frame | None:
        """The kept frame closest to a log-SNR; None if none is kept yet."""
        frames = self.frames
        if not frames:
            return None
        i = bisect.bisect_left([f.log_snr for f in frames], log_snr)
        near = frames[max(0, i - 1) : i + 1]
        return min(near, key=lambda f: abs(f.log_snr - log_snr))

    @property
    def bytes(self) -> int:
        return sum(f.bytes for f in self.frames)
