"""Runs of training as they lie on the disk: where, by which recipe, how far. Needs no torch.

`recipe.json` beside a model is everything that a run was told: {"plan", "choices", "data", …}. It can be
run again, here or on many machines. Older recipes are a plan alone.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import paths, spec
from studio.errors import DataError, SpecError
from studio.paths import atomic
from studio.spec import option
from studio.training import adapters, card, lengths
from studio.training.choices import Choices
from studio.training.plan import Training
from studio.weights.formats import native

RECIPE = "recipe.json"
RESUME = "resume.safetensors"
SAMPLES = "samples"
BOARD = "tensorboard"
LOG, MEASURES, LEVELS = "log.csv", "measures.csv", "levels.csv"


@dataclass(frozen=True)
class Recipe:
    """What a run was told. `data` is empty where a recipe does not say what was learned from."""

    plan: Training = option(Training)
    choices: Choices = option(Choices)
    data: str = ""
    compositions: int = 60_000
    sample_every: int = 250


def place(out: str) -> Path:
    """Where a run called `out` is kept: a name for the shelf, or with a slash in it a folder.

    Raises SpecError if it is missing or no name.
    """
    if not out:
        raise SpecError("The model needs a name.", "Give it with --out NAME.")
    if "/" in out or "\\" in out:
        return Path(out).expanduser()
    if out.startswith(".") or not out.isprintable():
        raise SpecError(f"“{out}” is no name for a model.", "Use letters and digits.")
    return paths.user_dir() / "models" / out


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file, or in a run's folder. Raises DataError if it is none."""
    path = path / RECIPE if path.is_dir() else path
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(told, dict):
            raise ValueError("it is no table")
        if "plan" not in told:  # of before there was more to tell
            return Recipe(_plan(told), Choices(held_out=0.0))
        return spec.from_dict(Recipe, {**told, "plan": spec.to_dict(_plan(told["plan"]))})
    except FileNotFoundError as error:
        raise DataError(f"There is no recipe at {path}.") from error
    except (OSError, ValueError, TypeError, SpecError, RecursionError) as error:
        raise DataError(f"{path.name} is no recipe of a training: {error}") from error


def _plan(told: dict[str, Any]) -> Training:
    # A plan of before there were averages of several lengths keeps none.
    return spec.from_dict(Training, {"ema_lengths": [], **told})


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Keep the recipe of a run. Raises SaveError if it cannot be written."""
    with atomic(folder / RECIPE) as temporary:
        temporary.write_text(json.dumps(spec.to_dict(recipe), indent=1), encoding="utf-8")


def discard(folder: Path) -> None:
    """Delete what a run has made in a folder, and the folder if nothing else is in it."""
    for name in (SAMPLES, lengths.FOLDER, BOARD):
        shutil.rmtree(folder / name, ignore_errors=True)
    files = [RESUME, native.WEIGHTS, RECIPE, LOG, MEASURES, LEVELS]
    if card.is_ours(folder):
        files.append(native.CARD)
    for name in (*files, adapters.WEIGHTS, adapters.CONFIG):
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
