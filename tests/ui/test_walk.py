"""A run on its timeline: every moment that is kept is there, however the worker and the window meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PySide6.QtWidgets import QToolButton

from studio.engine.branch import Tree
from studio.engine.trajectory import Frame, Kept, Trajectory
from studio.ui.walk import Walk


def put(way: Trajectory, log_snr: float) -> None:
    seen = {"denoised": np.full((1, 8, 8, 3), 90, np.uint8)}
    way.add(Kept.of((log_snr, len(way.frames), len(way.frames), 0.0), seen))


class Worker:
    """Adds what waits while the window is at a thumbnail, as a thread may."""

    def __init__(self, way: Trajectory) -> None:
        self.way, self.waits = way, list[float]()

    def picture(self, frame: Frame) -> np.ndarray:
        while self.waits:
            put(self.way, self.waits.pop(0))
        return frame.denoised[0]


@pytest.fixture
def worker() -> Worker:
    return Worker(Trajectory(-8.0, 8.0))


@pytest.fixture
def walk(shown: Callable[..., Any], worker: Worker) -> Walk:
    return shown(Walk(QToolButton(), worker.picture, lambda: True), 700, 200)


def test_frames_that_come_while_a_run_is_laid_out_are_not_lost(walk: Walk, worker: Worker) -> None:
    put(worker.way, -8.0)
    worker.waits = [-7.0, -6.0]
    walk.begin(worker.way, Tree(), "one")
    walk.show_live(worker.way.frames[-1])
    assert walk.timeline.times == [-8.0, -7.0, -6.0]


def test_frames_that_come_while_thumbnails_are_made_are_not_lost(
    walk: Walk, worker: Worker
) -> None:
    walk.begin(worker.way, Tree(), "one")
    put(worker.way, -8.0)
    worker.waits = [-7.0]
    walk.show_live(worker.way.frames[-1])
    put(worker.way, -6.0)
    walk.finish(None, np.zeros((8, 8, 3), np.uint8))
    assert walk.timeline.times == [-8.0, -7.0, -6.0]
