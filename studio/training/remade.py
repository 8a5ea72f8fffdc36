"""Models made of what a training has kept, without training: with an average of another length, or of a
start model and adapters that were trained on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import CheckpointError, SpecError
from studio.training import adapters, lengths
from studio.training.runs import place
from studio.weights import formats, tensors
from studio.weights.formats import native
from studio.weights.model import ModelInfo, Opened, network_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Remade:
    """A model that was made: its folder, the step it is of, and how far its average is from the one that
    was asked for, as a share of the profile; 0 where it is exact."""

    path: Path
    step: int
    error: float = 0.0


def with_length(run: Path, length: float, out: str) -> Remade:
    """The model of a run with an average of `length`, as a share of the run, called `out`.

    Raises StudioError if it cannot be made of what the run has kept, or the name is taken.
    """
    info, state = native.read_info(run / native.WEIGHTS), _weights(run)
    kept, step, mix = lengths.rebuilt(run, length)
    if (run / adapters.CONFIG).is_file():
        plain = adapters.load(run).on(state, share=-1.0)
        state = adapters.of(kept, "").on(plain)
    else:
        state |= kept
    card = (
        f"# {{name}}\n\n“{run.name}” at step {step}, with an average of its weights over "
        f"{100 * length:g} % of the run.\n"
    )
    made = _write(out, replace(info, steps=step), state, card)
    return Remade(made, step, mix.error)


def with_adapters(start: Opened, folder: Path, out: str, share: float = 1.0) -> Remade:
    """The model `start` with `share` of the adapters in a folder added, called `out`.

    Raises StudioError if they do not fit, or the name is taken.
    """
    found = adapters.load(folder)
    state = found.on(start.read().tensors, share)
    card = f"# {{name}}\n\n{start.name}, with {100 * share:g} % of the adapters “{folder.name}”.\n"
    return Remade(_write(out, start.info, state, card), start.info.steps)


def _weights(run: Path) -> dict[str, Tensor]:
    found = tensors.read_safetensors(run / native.WEIGHTS)
    return {k: v.float() if v.is_floating_point() else v for k, v in found.items()}


def _write(out: str, info: ModelInfo, state: dict[str, Tensor], card: str) -> Path:
    folder = place(out)
    if folder.exists() and (
        not folder.is_dir() or formats.recognise(folder) or any(folder.iterdir())
    ):
        raise SpecError(f"There is something at “{folder.name}” already.", "Give another name.")
    try:
        network_of(folder.name, info, dict(state))  # all there, of the right shape, finite
    except CheckpointError as error:
        raise CheckpointError(f"That makes no model: {error.message}", error.hint) from error
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    native.save(folder, info, half, card.format(name=folder.name))
    return folder
