"""Rows of the bench for comparing: lanes raced together, runs that are kept, and a race in the window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from studio import choose
from studio.diffusion.score import Score
from studio.diffusion.sde import VPSDE
from studio.engine.events import Begun, Progress
from studio.engine.jobs import SampleJob, Setting
from studio.engine.race import Lane, RaceJob, RaceRecipe
from studio.lazy import torch
from studio.weights.shelf import Shelf

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 16
_LARGE = (3, 64, 64)


class _Clock(Setting):
    """A Context with pictures 30 times a second of what the race itself takes."""

    def __init__(self, device: str) -> None:
        super().__init__(Shelf(), device, 30.0)
        self.now, self._shown = 0.0, 0.0

    def wants_picture(self) -> bool:
        if self.now - self._shown < self._gap:
            return False
        self._shown = self.now
        return True


def lanes_over_calls(
    model: str,
    device: str,
    steps: int,
    share: bool,
    bare: Callable[[], Any],
    wait: Callable[[], None],
) -> float:
    """What a turn of a race of two lanes takes, with pictures and all that is kept of them, as a ratio to
    two bare network calls made before and after it."""
    lanes = tuple(Lane(model, choose.sampler(name, steps)[0]) for name in ("dpm2m", "ancestral"))
    context = _Clock(device)
    events = RaceJob(RaceRecipe(lanes=lanes, count=_BATCH), share=share).run(context)

    def timed(work: Callable[[], Any]) -> float:
        begun = time.perf_counter()
        work()
        wait()
        return time.perf_counter() - begun

    def two_calls() -> float:
        return timed(lambda: (bare(), bare()))

    _turn(events)
    two_calls()
    ratios = []
    for _ in range(steps - 2):
        before = two_calls()
        took = timed(lambda: _turn(events))
        context.now += took
        ratios.append(took / ((before + two_calls()) / 2))
    events.close()
    return median(ratios)


def _turn(events: Iterator[Any]) -> None:
    """Until both lanes have made a step."""
    lanes: set[int] = set()
    while len(lanes) < 2:
        event = next(events)
        if isinstance(event, Progress):
            lanes.add(event.lane)


@dataclass(frozen=True)
class Kept:
    """What is kept of a run of 16 pictures of 64 pixels: moments, exact states, and bytes of each."""

    frames: int
    frame_bytes: int
    states: int
    state_bytes: int


def kept_of_a_run() -> Kept:
    """Keep a run with an exact score, which costs no network."""
    found = [e for e in _job().run(Setting(_Exact(), "cpu", 1e9)) if isinstance(e, Begun)]
    trajectory = found[0].trajectory
    frames = sum(frame.bytes for frame in trajectory.frames)
    states = sum(state.bytes for state in trajectory.states)
    return Kept(len(trajectory.frames), frames, len(trajectory.states), states)


def _job() -> SampleJob:
    # A little further than the marks from step to step, so that every moment is kept.
    return SampleJob("exact", choose.sampler("dpm2m", 95)[0], _BATCH)


class _Exact:
    """A shelf with the exact score of pictures of Gaussian values."""

    def load(self, *_: Any) -> Score:
        sde = VPSDE()

        def fn(x: Tensor, t: Tensor) -> Tensor:
            a, s = sde.marginal(t)
            return -x / ((0.5 * a) ** 2 + s**2).reshape(-1, 1, 1, 1)

        with torch.no_grad():
            return Score.from_function(fn, sde, _LARGE)
