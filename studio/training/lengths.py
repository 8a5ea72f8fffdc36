"""Averages of weights whose length is chosen after training.

A power-function average of exponent gamma has seen weights in proportion to (time of the weights)^gamma.
Its length is the deviation of that profile as a share of the run so far, so it grows with the run. Two
such averages are kept while it goes on, and now and then written down. What was written at different
steps is averages with many profiles, and the profile of any other length, at the end, is nearly a sum
of those: the average of that length is the same sum of what was written.

A step i of t has the share (i/t)^(gamma+1) - ((i-1)/t)^(gamma+1), exactly, if step t moves an average by
1 - (1 - 1/t)^(gamma+1) towards its weights.

Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", sec. 3.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from studio.errors import DataError, SpecError, StudioError
from studio.lazy import no_grad
from studio.weights import tensors

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "averages"
#: Lengths that can be made of those kept, within a tenth or so of their profile.
SHORTEST, LONGEST = 0.02, 0.25
#: Steps between two updates: weights hardly move in so few, and reading all of them costs.
EVERY = 4
_RATIO = 1.25  # between the steps at which averages are written down
_KEPT = 6.0  # times: what is older than this share of the run has no part in its averages any more
_MOST_BINS = 100_000
#: Files that are kept at most.
MOST = 10
_RIDGE = (
    1e-6  # against large factors of alternating sign, which blow up the rounding of what was kept
)


@functools.lru_cache(maxsize=64)
def exponent(length: float) -> float:
    """The exponent gamma of the profile whose deviation is `length`, a share of the run."""
    if not 0 < length < 0.2886:  # that of even weights, gamma = 0, is 1 / √12
        raise SpecError("The length of an average is a share of the run, above 0 and below 0.28.")
    s = length**2
    # length² = (gamma + 1) / ((gamma + 2)² (gamma + 3))
    roots = np.roots([s, 7 * s, 16 * s - 1, 12 * s - 1])
    return float(max(r.real for r in roots if abs(r.imag) < 1e-6))


def profile(length: float, step: int, edges: np.ndarray) -> np.ndarray:
    """The share (M,) that the weights between `edges` (M + 1,), in steps, have in the average then."""
    return np.diff(np.minimum(edges / step, 1.0) ** (exponent(length) + 1))


class Averages:
    """Power-function averages of tensors that training changes in place, every few steps."""

    def __init__(
        self, live: dict[str, Tensor], lengths: tuple[float, ...], every: int = EVERY
    ) -> None:
        self.lengths, self._every = lengths, every
        self._live = live
        self._kept = [{k: v.detach().clone() for k, v in live.items()} for _ in lengths]

    @no_grad
    def update(self, step: int) -> None:
        """Move towards the tensors after training step `step` (from 1), if it is time."""
        from studio.networks.ema import slide

        if step % self._every:
            return
        for length, kept in zip(self.lengths, self._kept):
            share = 1 - (1 - self._every / step) ** (exponent(length) + 1)
            slide(list(kept.values()), list(self._live.values()), share)

    def state(self) -> dict[str, Tensor]:
        """All of them by name: of the first length "0.NAME"."""
        return {f"{i}.{k}": v for i, kept in enumerate(self._kept) for k, v in kept.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        for name, value in self.state().items():
            value.copy_(state[name])


# -- what is written down --------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """Averages of some lengths that were written down at a step."""

    path: Path
    step: int
    lengths: tuple[float, ...]


def due(step: int) -> bool:
    """Whether averages are written down after this step: at steps in a geometric row."""
    count = step // EVERY
    power = round(math.log(max(1, count), _RATIO))
    in_row = any(count == round(_RATIO**k) for k in (power - 1, power, power + 1))
    return in_row and step == count * EVERY > 0


def write(folder: Path, step: int, averages: Averages) -> Path | None:
    """Write averages of a run down in its folder; those too old to matter are deleted. None if they
    have not begun.

    Raises SaveError if they cannot be written.
    """
    step -= step % EVERY  # at which they were brought up to date
    if not step:
        return None
    path = folder / FOLDER / f"step-{step:09}.safetensors"
    half = {k: v.half() for k, v in averages.state().items()}
    lengths = " ".join(map(repr, averages.lengths))
    tensors.write_tensors(path, half, {"kind": "averages", "step": str(step), "lengths": lengths})
    for old in written(folder):
        if old.step < step and (old.step < step / _KEPT or not due(old.step)):
            old.path.unlink(missing_ok=True)
    return path


def written(folder: Path) -> list[Written]:
    """What was written down of a run, by step. Files that are none of ours are passed over."""
    found = []
    for path in sorted((folder / FOLDER).glob("step-*.safetensors")):
        try:
            told = tensors.read_header(path).get("__metadata__", {})
            lengths = tuple(map(float, told["lengths"].split()))
            found.append(Written(path, int(told["step"]), lengths))
        except (StudioError, KeyError, ValueError, TypeError, AttributeError):
            continue
    return sorted(found, key=lambda w: w.step)


def forget_after(folder: Path, step: int) -> None:
    """Delete what was written after a step, to which the run has gone back."""
    for later in written(folder):
        if later.step > step:
            later.path.unlink(missing_ok=True)


# -- another length --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mix:
    """How an average is made of those kept: factors (K,), and the `error` of its profile as a share of
    the profile's own length."""

    factors: np.ndarray
    error: float


def mix(kept: list[tuple[int, float]], length: float, step: int) -> Mix:
    """The average of `length` at `step` out of averages at (step, length): nearest in profile, with
    factors that add up to one."""
    edges = np.linspace(0, step, min(step, _MOST_BINS) + 1)
    wanted = profile(length, step, edges)
    norm = float(np.linalg.norm(wanted))
    basis = np.stack([profile(other, at, edges) for at, other in kept], 1) / norm
    count = len(kept)
    # The sum is kept by a row that outweighs the rest.
    heavy = np.full((1, count), 1e4)
    rows = np.vstack([basis, heavy, math.sqrt(_RIDGE) * np.eye(count)])
    right = np.concatenate([wanted / norm, [1e4], np.zeros(count)])
    factors = np.linalg.lstsq(rows, right, rcond=None)[0]
    factors /= factors.sum()
    return Mix(factors, float(np.linalg.norm(basis @ factors - wanted / norm)))


def rebuilt(folder: Path, length: float) -> tuple[dict[str, Tensor], int, Mix]:
    """The average of `length` of what a run trained, by name in float32; the step it is of; how it was
    made. Raises SpecError if the length cannot be made, DataError if nothing was written down.
    """
    if not SHORTEST <= length <= LONGEST:
        raise SpecError(
            f"An average of length {length:g} cannot be made of those kept.",
            f"Choose a length from {SHORTEST:g} to {LONGEST:g} of the run.",
        )
    files = written(folder)
    if not files:
        raise DataError(
            f"“{folder.name}” has kept no averages to make others of.",
            "Train with --ema-lengths 0.05 0.1, which is what is done unless said otherwise.",
        )
    kept = [(w, i) for w in files for i in range(len(w.lengths))]
    found = mix([(w.step, w.lengths[i]) for w, i in kept], length, files[-1].step)
    total: dict[str, Tensor] = {}
    factors = {(w.path, i): float(f) for (w, i), f in zip(kept, found.factors)}
    for w in files:
        for name, value in tensors.read_safetensors(w.path).items():
            place, _, own = name.partition(".")
            share = factors[w.path, int(place)] * value.float()
            total[own] = total[own] + share if own in total else share
    return total, files[-1].step, found
