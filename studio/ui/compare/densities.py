"""How the log density of each pixel grew in lanes on the flow: as pictures, and the measuring of it.

Measured at the exact states kept of a lane, which takes as many network calls again, so it waits until
the race is held or has ended.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PySide6.QtCore import QObject, Signal

from studio.engine.density import Density, DensityJob, Followed
from studio.engine.engine import Engine
from studio.engine.events import Event, Failed, Progress
from studio.engine.race import RaceRecipe
from studio.engine.trajectory import Trajectory
from studio.ui.runner import Runner


@dataclass
class _Lane:
    """What is known of a lane: at rising log-SNR, maps (N, H, W) in nats a pixel."""

    places: list[float] = field(default_factory=list)
    maps: list[np.ndarray] = field(default_factory=list)


class Densities:
    """Maps of lanes as grey pictures: at each moment black is the least of all lanes and white the most,
    but for one pixel in a hundred at either end."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane] = {}
        self._scales: dict[float, tuple[float, float]] = {}

    def clear(self) -> None:
        self._lanes, self._scales = {}, {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def add(self, event: Density) -> None:
        lane = self._lanes.setdefault(event.lane, _Lane())
        lane.places.append(event.log_snr)
        lane.maps.append(event.map)
        self._scales = {}

    def at(self, lane: int, log_snr: float) -> np.ndarray | None:
        """The change from noise to a moment, uint8 (N, H, W, 1); None if nothing is known of it."""
        known = self._lanes.get(lane)
        if known is None:
            return None
        low, high = self.scale(log_snr)
        grey = (_between(known, log_snr) - low) * (255 / max(high - low, 1e-6))
        return np.clip(np.rint(grey), 0, 255).astype(np.uint8)[..., None]

    def scale(self, log_snr: float) -> tuple[float, float]:
        """The nats a pixel that are black and white at a moment."""
        if log_snr not in self._scales:
            maps = [_between(lane, log_snr).ravel() for lane in self._lanes.values()]
            low, high = np.quantile(np.concatenate(maps), (0.01, 0.99)) if maps else (0.0, 0.0)
            self._scales[log_snr] = float(low), float(high)
        return self._scales[log_snr]


def _between(lane: _Lane, log_snr: float) -> np.ndarray:
    """The map at a moment; between two measured ones it changes evenly."""
    at = bisect.bisect_right(lane.places, log_snr)
    if at == 0:
        return np.zeros_like(lane.maps[0], np.float32)
    if at == len(lane.places):
        return lane.maps[-1].astype(np.float32)
    low, high = lane.places[at - 1 : at + 1]
    share = (log_snr - low) / max(high - low, 1e-9)
    one, two = (lane.maps[i].astype(np.float32) for i in (at - 1, at))
    return one + share * (two - one)


class DensityLens(QObject):
    """Measures the lanes of a race when asked, and again where more states are kept since.

    `changed` is emitted as maps come; `words` tell what there is to say of a lane that has none;
    `progress` is what has been done of the work, from 0 to 1.
    """

    changed = Signal()

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.maps = Densities()
        self.runner = Runner(engine, self._receive)
        self.words: dict[int, str] = {}
        self.progress = 0.0
        self._measured: dict[int, int] = {}  # of how many states

    def clear(self) -> None:
        """Another race."""
        self.runner.stop()
        self.maps.clear()
        self.words, self._measured, self.progress = {}, {}, 0.0

    def measure(self, recipe: RaceRecipe, ways: Mapping[int, Trajectory], racing: bool) -> None:
        """Measure the lanes that have states not measured yet. While a race goes on, that waits."""
        if self.runner.busy:
            return
        self._tell(recipe, ways, racing)
        counts = {
            lane: len(way.states)
            for lane, way in ways.items()
            if way.states and not racing and not recipe.lanes[lane].sampler.stochastic
        }
        if counts == self._measured or not counts:
            self.changed.emit()
            return
        self.maps.clear()
        self._measured = counts
        work = tuple(
            Followed(lane, recipe.lanes[lane].job(recipe), tuple(ways[lane].states))
            for lane in counts
        )
        self.runner.start(lambda: DensityJob(work))

    def _tell(self, recipe: RaceRecipe, ways: Mapping[int, Trajectory], racing: bool) -> None:
        for lane, told in enumerate(recipe.lanes):
            way = ways.get(lane)
            if told.sampler.stochastic:
                self.words[lane] = self.tr(
                    "This sampler draws noise on its way. Only along the flow, without noise, is there a "
                    "density that can be followed."
                )
            elif racing:
                self.words[lane] = self.tr("Measured when the race is held or has ended.")
            elif way is None or not way.states:
                self.words[lane] = self.tr("No exact states of this lane were kept.")
            else:
                self.words[lane] = self.tr("Measuring…")

    def _receive(self, event: Event) -> None:
        if isinstance(event, Density):
            self.maps.add(event)
            self.changed.emit()
        elif isinstance(event, Progress):
            self.progress = event.step / max(1, event.total)
        elif isinstance(event, Failed):
            self.words[event.lane] = f"{event.message} {event.hint}".strip()
            self.changed.emit()
