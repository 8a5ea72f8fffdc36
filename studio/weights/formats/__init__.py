"""The formats that models come in: one file here and one line in FORMATS each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.errors import CheckpointError, SpecError
from studio.weights import classifiers, tensors
from studio.weights.formats import refused
from studio.weights.formats.adm import AdmFiles
from studio.weights.formats.bare import Bare
from studio.weights.formats.base import Format, StateFormat
from studio.weights.formats.diffusers import Diffusers
from studio.weights.formats.native import Native
from studio.weights.formats.ncsn import Ncsn
from studio.weights.formats.score_sde import ScoreSde
from studio.weights.model import Opened

#: In the order in which they are asked.
FORMATS: dict[str, Format] = {
    "native": Native(),
    "diffusers": Diffusers(),
    "score_sde": ScoreSde(),
    "ncsn": Ncsn(),
    "adm": AdmFiles(),
    "bare": Bare(),
}

PICKLES = (".pth", ".pt", ".bin", ".ckpt")


def recognise(path: Path) -> Format | None:
    """The format of a folder or file as far as it can be told without reading weights."""
    return next((f for f in FORMATS.values() if f.claims(path)), None)


def open_model(path: Path, preset: str = "") -> Opened:
    """The model in a folder or file of any format we read.

    `preset` names a published configuration, for files that do not describe themselves. Raises
    CheckpointError with the reason if there is no model that we can use, SpecError if the preset is
    unknown or not needed.
    """
    if not path.exists():
        raise CheckpointError(f"There is nothing at {path}.")
    refused.check_path(path)
    if (found := recognise(path)) is not None:
        if preset:
            raise SpecError(f"“{path.name}” describes itself.", "Leave the preset out.")
        return found.open(path)
    if (path / classifiers.WEIGHTS).is_file():
        raise classifiers.no_model(path)
    if path.is_dir():
        raise CheckpointError(
            f"“{path.name}” holds no model that the studio can read.",
            "Choose the folder that has the weights and their description in it.",
        )
    tree = read_tree(path)
    for format in FORMATS.values():
        if isinstance(format, StateFormat) and format.fits(tree):
            return format.open_tree(tree, path.stem, preset)
    refused.check_tree(tree, path.name)
    raise CheckpointError(
        f"{path.name} holds tensors, but of no network that the studio knows.",
        "Open the folder it came in, with its configuration.",
    )


def read_tree(path: Path) -> Any:
    """What a single file of weights holds. Raises CheckpointError if it is no such file."""
    if path.suffix == ".safetensors":
        return tensors.read_safetensors(path)
    if path.suffix in PICKLES:
        return tensors.read_pickle(path)
    raise CheckpointError(
        f"{path.name} is no file of weights that the studio reads.",
        f"Choose a folder, a .safetensors file or one of {', '.join(PICKLES)}.",
    )
