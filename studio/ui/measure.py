"""Figures of the window itself, for the bench: how soon it shows, whether its loop ever waits."""

from __future__ import annotations

import asyncio
import json
import os
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QTimer

from studio.diffusion.catalog import PRESETS
from studio.errors import StudioError
from studio.weights.devices import resident_bytes

if TYPE_CHECKING:
    from studio.ui.main_window import MainWindow

_STARTED = time.perf_counter()


async def measure(window: MainWindow, closed: asyncio.Event) -> None:
    """Print one JSON line of figures, then set `closed`."""
    try:
        figures = await _figures(window)
    except (StudioError, TimeoutError) as error:
        figures = {"problem": str(error)}
    print(json.dumps(figures), flush=True)  # noqa: T201
    closed.set()


async def _figures(window: MainWindow) -> dict[str, Any]:
    tab: Any = window.tabs["sample"]
    window.repaint()
    figures = {"window_seconds": time.perf_counter() - _process_age_offset()}
    await asyncio.sleep(1.0)
    figures["idle_rss_mb"] = resident_bytes() / 1e6
    tab.panel.count.setValue(16)
    tab.run_or_stop()
    asked = time.perf_counter()
    async with asyncio.timeout(60):
        while tab._shown is None:
            await asyncio.sleep(0.005)
        figures["first_picture_seconds"] = time.perf_counter() - asked + figures["window_seconds"]
        while tab.runner.busy:
            await asyncio.sleep(0.05)
    figures |= await _gaps(tab)
    return figures


async def _gaps(tab: Any) -> dict[str, float]:
    """Gaps of the loop, by a 4 ms timer, in ten seconds of sampling; then how long Stop takes."""
    tab.panel.sampler.set_value(PRESETS["paper"][1])
    tab.run_or_stop()
    await asyncio.sleep(1.0)
    ticks: list[float] = []
    timer = QTimer()
    timer.setTimerType(timer.timerType().PreciseTimer)
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start(4)
    await asyncio.sleep(10.0)
    timer.stop()
    gaps = sorted(b - a for a, b in pairwise(ticks))
    begun = time.perf_counter()
    tab.runner.stop()
    while tab.runner.busy:
        await asyncio.sleep(0.002)
    return {
        "gap_p99_ms": 1000 * gaps[int(0.99 * len(gaps))],
        "gap_max_ms": 1000 * gaps[-1],
        "stop_ms": 1000 * (time.perf_counter() - begun),
    }


def _process_age_offset() -> float:
    """perf_counter at the start of the process; where no system tells, at this module's import."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rsplit(")", 1)[1].split()[19])
        born = ticks / os.sysconf("SC_CLK_TCK")
        return time.perf_counter() - (time.clock_gettime(time.CLOCK_BOOTTIME) - born)
    except (OSError, ValueError, AttributeError, IndexError):
        return _STARTED
