"""Runs that come as files: a trajectory to look at, and a replay, of which a person is told what differs
here before it runs.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from studio.engine.events import Done, Event, Note

if TYPE_CHECKING:
    from studio.engine.engine import Context
    from studio.engine.jobs import SampleJob
    from studio.engine.replay import Difference, Replay

TRAJECTORY, REPLAY = ".traj", ".replay"


@dataclass(frozen=True, eq=False)
class Offer:
    """A replay, and which settings are not as they were where it was made."""

    replay: Replay
    differences: list[Difference]

    @property
    def runs(self) -> bool:
        """Whether its model is here."""
        return not any(d.name == "model" and d.now.startswith("missing") for d in self.differences)


@dataclass(frozen=True)
class OpenReplay:
    """Reads a replay and compares where it was made with this studio. Its Done carries an Offer."""

    lane: ClassVar[str] = "io"
    path: Path

    def run(self, context: Context) -> Generator[Event, Any, None]:
        from studio.engine import replay

        yield Note("Opening the replay")
        found = replay.read(self.path)
        found.job()  # one that cannot be run is refused here
        yield Done(Offer(found, replay.differences(found, context)))


@dataclass(frozen=True, eq=False)
class RunReplay:
    """Makes the pictures of a replay again; `recipe` is its job. At last Done with a Verdict."""

    replay: Replay
    recipe: SampleJob

    def run(self, context: Context) -> Generator[Event, Any, None]:
        from studio.engine.replay import ReplayJob

        return ReplayJob(self.replay).run(context)
