"""Dormand–Prince 5(4) for a batch whose samples each have their own time, step and error control.

So what becomes of a sample does not depend on the others. A state is a tuple of parts, each
(B, ...), and `clock` (B,) is the variable of integration, which may run either way. The device is
waited for once a step.

Sources: Dormand and Prince 1980 for the pair; Hairer, Norsett and Wanner, "Solving Ordinary
Differential Equations I", section II.4 for the control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from studio.diffusion.score import expand
from studio.errors import SolverError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    State = tuple[Tensor, ...]
    #: (state, clock) -> d state / d clock.
    Slope = Callable[[State, Tensor], State]

# Nodes, stages, the weights of order 5 (the last stage) and of the error.
_C = (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1)
_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_E = (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)

_MOST_STEPS = 5_000
_SHORTEST = 1e-6  # far below any step that a score network needs


@dataclass(frozen=True)
class Point:
    """Where an integration is: all that is needed to go on from here."""

    state: State
    clock: Tensor
    h: Tensor  # length of each sample's next step, positive
    slope: State  # d state / d clock, here
    index: int = 0  # steps tried so far
    farthest: float = math.nan  # the clock of the sample that has the longest way to go
    arrived: bool = False  # whether all are at the end


@dataclass(frozen=True)
class DormandPrince54:
    """`slope` followed to `end`, with errors below atol + rtol |value| a step.

    The error of a part is its root mean square over a sample; the largest over the first
    `controlled` parts decides, and the other parts come along. No step is longer than `longest`: a
    long one can pass over something without seeing it.
    """

    slope: Slope
    end: float
    rtol: float
    atol: float
    controlled: int = 1
    longest: float = math.inf

    def start(self, state: State, clock: Tensor, h: float) -> Point:
        """The first Point; `h` is the length of the first step to try."""
        return Point(state, clock, torch.full_like(clock, h), self.slope(state, clock))

    def run(self, point: Point) -> Iterator[Point]:
        """The Point after each step, until every sample is at the end. A sample that has arrived
        stands still.

        Raises SolverError if the steps become too short or too many.
        """
        # As the state's precision has it, or a float32 clock that stands at the end is never there.
        end = float(point.clock.new_tensor(self.end))
        farthest = max(map(float, point.clock.aminmax()), key=lambda v: abs(v - end))
        while farthest != end:
            before = point.clock
            point = self._attempt(point, end)
            stuck = (point.clock == before) & (point.clock != end) & (point.h <= _SHORTEST)
            *ends, stopped = torch.stack([*point.clock.aminmax(), stuck.any().to(before)]).tolist()
            if stopped or point.index >= _MOST_STEPS:
                raise SolverError(
                    "The flow is too stiff to be followed: its steps became too small.",
                    "Loosen the tolerances.",
                )
            farthest = max(ends, key=lambda v: abs(v - end))
            point = replace(point, farthest=farthest, arrived=farthest == end)
            yield point

    def _attempt(self, point: Point, end: float) -> Point:
        """Try one step of every sample; those whose error is small enough move, all get a new h."""
        h = torch.minimum(point.h.clamp_max(self.longest), (point.clock - end).abs())
        step = torch.where(point.clock > end, -h, h)
        after, slopes = self._stages(point, step, end)
        errors = [
            self._error(step, x, y, [slope[i] for slope in slopes])
            for i, (x, y) in enumerate(zip(point.state[: self.controlled], after))
        ]
        ratio = torch.stack(errors).amax(0)
        # A sample that has arrived stands still with error zero.
        good = (ratio <= 1) & torch.isfinite(ratio)
        factor = (0.9 * ratio.clamp_min(1e-8) ** -0.2).clamp(0.2, 5.0)
        factor = torch.where(torch.isfinite(ratio), factor, 0.2)
        # The bound also keeps an arrived sample's h positive.
        return Point(
            _chosen(good, after, point.state),
            torch.where(good, _moved(point.clock, step, end), point.clock),
            (h * factor).clamp_min(_SHORTEST),
            _chosen(good, slopes[-1], point.slope),
            point.index + 1,
        )

    def _stages(self, point: Point, step: Tensor, end: float) -> tuple[State, list[State]]:
        """The state after the step, and the slope at each stage; the last is the slope there."""
        slopes, after = [point.slope], point.state
        for c, weights in zip(_C[1:], _A[1:]):
            after = tuple(
                x + expand(step, x) * sum(w * s[i] for w, s in zip(weights, slopes) if w)
                for i, x in enumerate(point.state)
            )
            slopes.append(self.slope(after, _moved(point.clock, c * step, end)))
        return after, slopes

    def _error(self, step: Tensor, before: Tensor, after: Tensor, slopes: list[Tensor]) -> Tensor:
        """The error of a part over what is allowed, (B,)."""
        error = expand(step, before) * sum(w * k for w, k in zip(_E, slopes) if w)
        scale = self.atol + self.rtol * torch.maximum(before.abs(), after.abs())
        return (error / scale).pow(2).flatten(1).mean(1).sqrt()


def _moved(clock: Tensor, step: Tensor, end: float) -> Tensor:
    """clock + step, not past the end."""
    moved = clock + step
    return torch.where(clock > end, moved.clamp_min(end), moved.clamp_max(end))


def _chosen(good: Tensor, new: State, old: State) -> State:
    return tuple(torch.where(expand(good, x), x, y) for x, y in zip(new, old))
