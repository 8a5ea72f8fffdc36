"""Loading a model and sampling from it in two lines of Python: what `import studio` offers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from studio import choose
from studio.diffusion.conditions import FREE, Condition
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Sampler, Step
from studio.diffusion.score import Score
from studio.errors import SpecError
from studio.weights.devices import resolve
from studio.weights.shelf import Shelf


def load(source: str, device: str = "auto", preset: str | None = None) -> Score:
    """The Score of a model: a name on the shelf, or the path of a model's folder or file.

    `device` is "auto" (the best there is), "cpu", "cuda", "cuda:1" or "mps". `preset` is for files
    that do not describe themselves; the studio's own models do. Raises CheckpointError if there is
    no such model or it is damaged, DeviceError if there is no such device.
    """
    if preset is not None:
        raise SpecError(f"“{source}” describes itself.", "Leave the preset out.")
    return Shelf().load(str(source), resolve(device))


def sample(
    score: Score,
    count: int = 1,
    sampler: str | Sampler = "pc",
    steps: int | None = None,
    seed: int = 0,
    condition: Condition | None = None,
    **options: Any,
) -> Iterator[Step]:
    """Sample `count` pictures; the last Step's `denoised` (count, C, H, W) is the result.

    `sampler` is a short name, a preset or a Sampler; `options` are its settings, by bare name or as
    `**{"corrector.snr": 0.2}`. `steps` is ignored, with a warning, by those that choose their own.
    Picture i has the seed `seed + i`, alone or in company. Raises SpecError before the first step.
    """
    if count < 1:
        raise SpecError(f"There must be at least one picture, not {count}.")
    chosen, note = choose.sampler(sampler, steps, options)
    if note:
        warnings.warn(note, stacklevel=2)
    noise = Noise.of(seed, count, score.shape, score.sde, device=score.device, depth=chosen.depth)
    return chosen.run(score, noise, condition or FREE)
