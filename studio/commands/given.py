"""What a person gives to a command, made fit for it: pictures for a model, a class, a file to write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio import recipes
from studio.diffusion.score import Score
from studio.engine.jobs import class_condition
from studio.errors import DataError, PictureError, SaveError
from studio.training import data


@dataclass(frozen=True)
class Given:
    """Pictures at a model's size: uint8 (N, H, W, C), the name of each, and (name, why) of the rest."""

    pixels: np.ndarray
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    left_out: int = 0  # beyond the limit


def picture(path: Path, score: Score) -> np.ndarray:
    """A picture file fitted to the model as training fits it: upright, a centred square, scaled.
    uint8 (H, W, C). Raises PictureError if it cannot be read."""
    channels, size, _ = score.shape
    square = data.read_picture(path, size)
    fitted = square.convert("L") if channels == 1 else square
    return np.array(fitted).reshape(size, size, channels)


def pictures(path: Path, score: Score, limit: int) -> Given:
    """A picture, the pictures below a folder in the order of their names, or an image pack; `limit`
    of them at most. Raises PictureError or DataError if there is none."""
    if path.is_dir():
        return _folder(path, score, limit)
    if path.suffix.lower() != ".npz":
        return Given(picture(path, score)[None], (str(path),))
    # A seed of its own: compositions are not those that a model was trained on.
    pack = data.load(path, score.shape[1], limit, seed=987_654_321)
    if pack.pixels.shape[-1] != score.shape[0]:
        raise DataError(f"{path.name} has other channels than the model.")
    count = min(limit, len(pack))
    names = tuple(f"{path}#{i}" for i in range(count))
    return Given(pack.pixels[:count], names, left_out=len(pack) - count)


def picture_files(folder: Path) -> list[Path]:
    """The files below a folder that are named as pictures, in the order of their names."""
    files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in data.SUFFIXES]
    return [p for p in files if p.is_file() and not _hidden(p.relative_to(folder))]


def _folder(folder: Path, score: Score, limit: int) -> Given:
    files = picture_files(folder)
    pixels, names, skipped = [], [], []
    for path in files:
        if len(pixels) == limit:
            break
        try:
            pixels.append(picture(path, score))
            names.append(str(path))
        except PictureError as error:
            skipped.append((str(path), error.message))
    if not pixels:
        raise DataError(f"No picture in {folder} can be read.", "Choose a folder with pictures.")
    left = len(files) - len(pixels) - len(skipped)
    return Given(np.stack(pixels), tuple(names), tuple(skipped), left)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def of_class(score: Score, label: str, count: int) -> Score:
    """The score of `count` pictures of the class called `label`; "" is any."""
    return class_condition(score, label, count, 0).guide(score)


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
