"""What a person gives to a command, made fit for it: pictures for a model, a class, a file to write."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from studio import recipes, terminal
from studio.diffusion.score import Score
from studio.engine import flow_jobs
from studio.engine.events import Progress
from studio.engine.flow_jobs import Given, picture_files, read_one
from studio.errors import SaveError

__all__ = ["Given", "picture", "picture_files", "pictures", "to_write"]


def picture(path: Path, score: Score) -> np.ndarray:
    """A picture file fitted to the model as training fits it: upright, a centred square, scaled.
    uint8 (H, W, C). Raises PictureError if it cannot be read."""
    return read_one(path, score.shape)


def pictures(path: Path, shape: tuple[int, int, int], limit: int) -> Given:
    """A picture, the pictures below a folder in the order of their names, or an image pack; `limit`
    of them at most. Raises PictureError or DataError if there is none."""
    reading = flow_jobs.read(path, shape, limit)
    with terminal.progress("Reading") as update:
        while True:
            try:
                event = next(reading)
            except StopIteration as end:
                return end.value
            if isinstance(event, Progress):
                update(event.step, event.total, "")


def to_write(name: str, suffix: str) -> Path:
    """The path of a file to write. Raises SaveError, before long work, if it cannot be."""
    path = Path(name)
    if path.suffix.lower() != suffix:
        raise SaveError(
            f"{path.name} is not named as a {suffix} file.",
            f"Name it {path.stem or 'out'}{suffix}.",
        )
    recipes.check_writable(path)
    return path
