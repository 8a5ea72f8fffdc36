"""Figures of the window itself, for the bench: how soon it shows, whether its loop ever waits."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PySide6.QtCore import QTimer

from studio import choose
from studio.diffusion.catalog import PRESETS
from studio.errors import StudioError
from studio.weights.devices import resident_bytes

if TYPE_CHECKING:
    from studio.ui.main_window import MainWindow

_STARTED = time.perf_counter()
_MODEL = "critters-32"  # it ships, and is the quickest: the most pictures a second


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
    while not window.shown_at:
        await asyncio.sleep(0)
    figures = {"window_seconds": window.shown_at - _process_age_offset()}
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
    figures |= await _scrubbed(tab)
    figures |= await _gaps(tab)
    figures |= await _race(window)
    figures |= await _canvas(window)
    return figures | await _training(window)


async def _scrubbed(tab: Any) -> dict[str, float]:
    """From taking the playhead to the pixels of that moment, over all moments of the run before."""
    timeline, took = tab.walk.timeline, []
    for when in timeline.times * 3:
        begun = time.perf_counter()
        timeline._scrub(when)
        tab.view.repaint()  # and with it all that is to be painted anew
        took.append(time.perf_counter() - begun)
        await asyncio.sleep(0)
    tab.walk.follow()
    return {"scrub_p99_ms": 1000 * sorted(took)[int(0.99 * len(took))]}


async def _race(window: MainWindow) -> dict[str, float]:
    """Gaps of the loop in ten seconds of a race of four lanes."""
    tab: Any = window.turn_to("compare")
    race = tab.race
    while len(race.editor.rows) < 4:
        race.editor.add_lane()
    for row, name in zip(race.editor.rows, ("pc", "rk45", "ancestral", "dpm2m"), strict=True):
        lane = replace(row.lane(), model=_MODEL, model_preset="")
        row.set_lane(replace(lane, sampler=choose.sampler(name, 1000)[0]))
    race.start()
    async with asyncio.timeout(60):
        while any(race.view.frame(lane) is None for lane in range(4)):
            await asyncio.sleep(0.02)
    gaps = await _ticked(10.0)
    race.runner.stop()
    while race.runner.busy:
        await asyncio.sleep(0.01)
    return {"race_gap_p99_ms": 1000 * gaps[int(0.99 * len(gaps))]}


async def _ticked(seconds: float) -> list[float]:
    """The gaps between the ticks of a 4 ms timer, rising."""
    ticks: list[float] = []
    timer = QTimer()
    timer.setTimerType(timer.timerType().PreciseTimer)
    timer.timeout.connect(lambda: ticks.append(time.perf_counter()))
    timer.start(4)
    await asyncio.sleep(seconds)
    timer.stop()
    return sorted(b - a for a, b in pairwise(ticks))


async def _canvas(window: MainWindow) -> dict[str, float]:
    """From the pointer's move to the pixels: a brush of radius 512 on 4096², and panning 24 Mpx."""
    from studio.ui.canvas.brush import Brush
    from studio.ui.canvas.document import Document

    tab: Any = window.turn_to("canvas")
    rng = np.random.default_rng(0)
    tab.files.open_pixels(rng.integers(0, 256, (4096, 4096, 3), np.uint8), "bench")
    await _settled(tab)
    stroke = tab.view.document.stroke("mask", Brush(radius=512))
    painted = []
    for i in range(200):
        begun = time.perf_counter()
        stroke.to(600 + 14.0 * i, 2048 + 600 * np.sin(i / 12))
        tab.view.repaint()
        painted.append(time.perf_counter() - begun)
        await asyncio.sleep(0)
    stroke.cancel()
    tab.view.set_document(Document.of(rng.integers(0, 256, (4000, 6000, 3), np.uint8)))
    await asyncio.sleep(1.0)
    panned = []
    for i in range(120):
        begun = time.perf_counter()
        tab.view.pan(9 if i < 60 else -9, 5 if i < 60 else -5)
        tab.view.repaint()
        panned.append(time.perf_counter() - begun)
        await asyncio.sleep(0)
    return {
        "brush_p50_ms": 1000 * sorted(painted)[100],
        "brush_p99_ms": 1000 * sorted(painted)[197],
        "pan_p99_ms": 1000 * sorted(panned)[118],
    } | await _candidates(tab)


async def _candidates(tab: Any) -> dict[str, float]:
    """From Run to the first pixels of a candidate, and gaps of the loop while a person paints on it."""
    from studio.ui.canvas.brush import Brush

    rng = np.random.default_rng(0)
    tab.files.open_pixels(rng.integers(0, 256, (256, 256, 3), np.uint8), "candidates")
    async with asyncio.timeout(30):
        while tab.view.document.name != "candidates":
            await asyncio.sleep(0.02)
    document = tab.view.document
    stroke = document.stroke("mask", Brush(radius=40))
    stroke.to(110, 128)
    stroke.to(150, 128)
    stroke.end()
    tab.view.edited.emit("mask")
    tab.panel.sampler.set_value(PRESETS["paper"][1])
    tab.start()
    asked = time.perf_counter()
    async with asyncio.timeout(60):
        while tab.past.frame is None:
            await asyncio.sleep(0.002)
    first = time.perf_counter() - asked
    painted = document.stroke("sketch", Brush(radius=12))
    places = iter(range(10**6))
    mover = QTimer()
    mover.timeout.connect(
        lambda: painted.to(90 + 80 * abs(np.sin((i := next(places)) / 9)), 60 + i % 140)
    )
    mover.start(16)
    gaps = await _ticked(5.0)
    mover.stop()
    painted.cancel()
    tab.stop()
    while tab.runner.busy:
        await asyncio.sleep(0.01)
    return {
        "first_candidate_ms": 1000 * first,
        "paint_gap_p99_ms": 1000 * gaps[int(0.99 * len(gaps))],
    }


async def _training(window: MainWindow) -> dict[str, float]:
    """Gaps of the loop in ten seconds of a training on 64 pictures, which is then discarded."""
    from studio.engine.train_events import Discard

    tab: Any = window.turn_to("train")
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for i in range(64):
            noise = Image.fromarray(rng.integers(0, 256, (96, 96, 3), np.uint8))
            noise.save(Path(folder) / f"{i}.png")
        tab.open_path(Path(folder))
        async with asyncio.timeout(30):
            while tab.folder.reader.scanning or not tab.bar.run.isEnabled():
                await asyncio.sleep(0.02)
        tab.start()
        async with asyncio.timeout(90):
            while tab.record.step < 2 and not tab.errors.isVisible():
                await asyncio.sleep(0.02)
        gaps = await _ticked(10.0)
        if tab.record.step < 2 or not tab.runner.busy:
            return {}
        tab.runner.send(Discard())
        while tab.runner.busy:
            await asyncio.sleep(0.02)
    return {"train_gap_p99_ms": 1000 * gaps[int(0.99 * len(gaps))]}


async def _settled(tab: Any) -> None:
    async with asyncio.timeout(30):
        while tab.view.document is None:
            await asyncio.sleep(0.02)
    await asyncio.sleep(1.0)


async def _gaps(tab: Any) -> dict[str, float]:
    """Gaps of the loop, by a 4 ms timer, in ten seconds of sampling; then how long Stop takes."""
    tab.panel.sampler.set_value(PRESETS["paper"][1])
    tab.run_or_stop()
    await asyncio.sleep(1.0)
    gaps = await _ticked(10.0)
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
