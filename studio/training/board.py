"""TensorBoard's log of a run, for who wants it: an optional package."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np

from studio.errors import DataError
from studio.training.runs import BOARD


class Board:
    """Curves and samples of the run in a folder. Raises DataError if the package is missing."""

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise DataError(
                "A log for TensorBoard needs the package tensorboard.",
                "Install it with: pip install score-studio[tensorboard]",
            )
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / BOARD))

    def curve(self, name: str, step: int, value: float) -> None:
        if math.isfinite(value):
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, step: int, pixels: np.ndarray) -> None:
        """A picture, uint8 (H, W, C)."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()
