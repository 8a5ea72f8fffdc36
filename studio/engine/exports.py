"""Writing results to disk, in the I/O lane so that neither window nor sampler waits for it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from studio.engine.events import Event, Note, Saved
from studio.errors import SaveError
from studio.films import Film, Shot

if TYPE_CHECKING:
    import numpy as np

    from studio.engine.engine import Context
    from studio.engine.trajectory import Trajectory


@dataclass(frozen=True)
class ExportJob:
    """Save a result, by `kind`: one "picture", all in a "folder", a contact "sheet", a "film" of its run,
    a "strip" of twelve moments of it, the "trajectory" itself, or a "replay" file that makes the pictures
    again elsewhere and proves it.

    `pictures` is uint8 (N, H, W, C), `frames` stacks of the same layout, for a run without a
    trajectory, and `steps` the step that each is of, where that is to be said below it. Whatever can
    carry the recipe does, unless it is empty; one picture alone carries the recipe of itself alone.
    """

    lane: ClassVar[str] = "io"
    path: Path
    kind: str
    pictures: np.ndarray
    recipe: dict[str, Any]
    chosen: int = 0
    frames: tuple[np.ndarray, ...] = ()
    trajectory: Trajectory | None = None
    film: Film = field(default_factory=Film)
    steps: tuple[int, ...] = ()

    def run(self, context: Context) -> Generator[Event, Any, None]:
        from studio import films, recipes
        from studio.diffusion.pictures import grid
        from studio.engine import replay, trajectory_file

        yield Note("Saving")
        if self.kind == "folder":
            yield from self._folder()
            return
        if self.kind == "picture":
            recipes.write_png(self.path, self.pictures[self.chosen], self._alone(self.chosen))
        elif self.kind == "sheet":
            recipes.write_png(self.path, grid(self.pictures), self.recipe or None)
        elif self.kind == "strip":
            strip = films.strip(self._shots(), style=self.film.caption)
            recipes.write_png(self.path, strip, self.recipe)
        elif self.kind == "trajectory":
            if self.trajectory is None:
                raise SaveError("The frames of this run are no longer kept.")
            trajectory_file.save(self.trajectory, self.path)
        elif self.kind == "replay":
            replay.write(self.path, self.pictures, self.recipe, context)
        else:
            film = self.film
            if self.trajectory is None:
                film = replace(film, caption="step" if self.steps else "none")
            films.write(self.path, self._shots(), film, self.recipe or None)
        yield Saved(self.path)

    def _folder(self) -> Generator[Event, Any, None]:
        from studio import recipes

        for i, picture in enumerate(self.pictures):
            recipe = self._alone(i)
            name = f"{Path(self.recipe['model']).name}-{recipe['seed']}.png"
            recipes.write_png(self.path / name, picture, recipe)
            yield Saved(self.path / name)

    def _alone(self, index: int) -> dict[str, Any]:
        """The recipe of one picture by itself: its own seed."""
        return self.recipe | {"seed": self.recipe["seed"] + index, "count": 1}

    def _shots(self) -> list[Shot]:
        if self.trajectory is not None and self.trajectory.frames:
            return shots(self.trajectory, self.film.view)
        stacks = self.frames or (self.pictures,)  # of which nobody knows when they were
        steps = self.steps or range(len(stacks))
        return [Shot(stack, 0.0, step, step) for step, stack in zip(steps, stacks)]


def shots(trajectory: Trajectory, view: str) -> list[Shot]:
    """The kept moments of a run, by one of VIEWS."""
    frames = trajectory.frames[:]
    found = [Shot(f.view(view), f.log_snr, f.step, f.calls) for f in frames[:-1]]
    # The last moment of a run has no score and no change: the picture ends every film.
    last = frames[-1]
    stack = last.denoised
    return [*found, Shot(stack, last.log_snr, last.step, last.calls)]
