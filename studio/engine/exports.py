"""Writing results to disk, in the I/O lane so that neither window nor sampler waits for it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from studio.engine.events import Event, Note, Saved

if TYPE_CHECKING:
    import numpy as np

    from studio.engine.engine import Context


@dataclass(frozen=True)
class ExportJob:
    """Save a result: one "picture", all in a "folder", a contact "sheet", or a "film" of its frames.

    `pictures` is uint8 (N, H, W, C), `frames` stacks of the same layout. PNGs carry the recipe; one
    picture alone carries the recipe of itself alone.
    """

    lane: ClassVar[str] = "io"
    path: Path
    kind: str
    pictures: np.ndarray
    recipe: dict[str, Any]
    chosen: int = 0
    frames: tuple[np.ndarray, ...] = ()

    def run(self, context: Context) -> Generator[Event, Any, None]:
        from studio import recipes
        from studio.diffusion.pictures import grid

        yield Note("Saving")
        if self.kind == "folder":
            for i, picture in enumerate(self.pictures):
                recipe = self._alone(i)
                name = f"{Path(self.recipe['model']).name}-{recipe['seed']}.png"
                recipes.write_png(self.path / name, picture, recipe)
                yield Saved(self.path / name)
            return
        if self.kind == "picture":
            recipes.write_png(self.path, self.pictures[self.chosen], self._alone(self.chosen))
        elif self.kind == "sheet":
            recipes.write_png(self.path, grid(self.pictures), self.recipe)
        else:
            sheets = [grid(frame) for frame in self.frames] or [grid(self.pictures)]
            recipes.write_animation(self.path, sheets)
        yield Saved(self.path)

    def _alone(self, index: int) -> dict[str, Any]:
        """The recipe of one picture by itself: its own seed."""
        return self.recipe | {"seed": self.recipe["seed"] + index, "count": 1}
