"""Loading a model and sampling from it in two lines of Python: what `import studio` offers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from studio import choose, spec
from studio.diffusion import tasks
from studio.diffusion.conditions import FREE, Condition
from studio.diffusion.flow import FlowMap
from studio.diffusion.likelihood import Measure
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Sampler, Step
from studio.diffusion.score import Score
from studio.errors import SpecError
from studio.weights.devices import resolve
from studio.weights.shelf import Shelf

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def load(source: str, device: str = "auto", preset: str | None = None) -> Score:
    """The Score of a model: a name on the shelf, the path of a model's folder or file, or the hub
    id, "owner/name", of one that was fetched (`score-studio models get`).

    `device` is "auto" (the best there is), "cpu", "cuda", "cuda:1" or "mps". `preset` names a
    published configuration, as "ve/cifar10_ncsnpp_continuous", for a file that does not describe
    itself. Raises CheckpointError if there is no such model or it is damaged, SpecError if the
    preset is unknown or not needed, DeviceError if there is no such device.
    """
    return Shelf().load(str(source), resolve(device), preset=preset or "")


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
    return chosen.run(score, noise, (condition or FREE).on(score))


def inpaint(
    picture: np.ndarray, mask: np.ndarray, strokes: np.ndarray | None = None, **options: Any
) -> Condition:
    """That a picture is known where the mask is False: a condition for `sample`.

    The picture is uint8 (H, W, C) of the model's size, or (H, W) if it is grey; the mask (H, W) is bool,
    True = repaint, or uint8 that says how far each pixel may change. `strokes`, uint8 (H, W, 4), are
    hints of colour. `options` are those of the task: method="pigdm", weight=2, hints=0.7, … Raises
    SpecError at once if one is unknown, and `sample` PictureError if the picture does not suit the model.
    """
    return _pictured(tasks.Inpaint(), picture, mask, strokes, options)


def colorize(
    picture: np.ndarray,
    mask: np.ndarray | None = None,
    strokes: np.ndarray | None = None,
    **options: Any,
) -> Condition:
    """That the brightness of a picture is known; as `inpaint`, without a mask everywhere. `options`:
    weights="rec709", method, hints, …"""
    return _pictured(tasks.Colorize(), picture, mask, strokes, options)


def sketch(
    picture: np.ndarray,
    mask: np.ndarray | None = None,
    strokes: np.ndarray | None = None,
    **options: Any,
) -> Condition:
    """That a picture looks roughly like this one and the strokes on it; `options`: strength=0.7."""
    return _pictured(tasks.Sketch(), picture, mask, strokes, options)


def upscale(picture: np.ndarray, **options: Any) -> Condition:
    """That the means of blocks are those of a picture of the model's size; `options`: factor=2,
    method, …"""
    return _pictured(tasks.Upscale(), picture, None, None, options)


def deblur(picture: np.ndarray, **options: Any) -> Condition:
    """That a picture looks like this one when blurred; `options`: radius=1.0, method, …"""
    return _pictured(tasks.Deblur(), picture, None, None, options)


def _pictured(
    task: tasks.Task,
    picture: np.ndarray,
    mask: np.ndarray | None,
    strokes: np.ndarray | None,
    options: dict[str, Any],
) -> Condition:
    chosen = choose.with_options(task, options)
    spec.check(chosen)
    return tasks.Pictured(chosen, picture, mask, strokes)


def log_likelihood(score: Score, x: Tensor | np.ndarray, seed: int = 0, **options: Any) -> Tensor:
    """Bits per dimension that `score` needs for each picture, (B,): -log2 of its density over C H W.

    A float x (B, C, H, W) is taken as it is, and the density is in units of its own values. uint8
    pictures (B, H, W, C) are dequantized first and their figure is that of papers: it includes
    log2(256 / range), 7 for values in [-1, 1]. `options` are those of a Measure: probes, repeats,
    rtol, atol, method="exact", … Raises SpecError, PictureError or SolverError.
    """
    measure = choose.with_options(Measure(), options)
    spec.check(measure)
    bits = None
    for step in measure.run(score, x, seed):
        bits = step.bits
    assert bits is not None
    return bits


def encode(score: Score, x: Tensor, tolerance: float = 1e-5) -> Tensor:
    """The noise (B, C, H, W), of deviation `score.sde.prior_std`, that pictures x (B, C, H, W) in the
    value range come from by the probability flow. Raises SpecError, PictureError or
    SolverError."""
    return _last(FlowMap(tolerance, tolerance).encode(score, x))


def decode(score: Score, latent: Tensor, tolerance: float = 1e-5) -> Tensor:
    """The pictures (B, C, H, W) that noise (B, C, H, W) becomes by the flow: undoes `encode`."""
    return _last(FlowMap(tolerance, tolerance).decode(score, latent))


def _last(steps: Iterator[Step]) -> Tensor:
    x = None
    for step in steps:
        x = step.x
    assert x is not None
    return x
