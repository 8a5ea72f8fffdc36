"""Painting: a part of a picture, the *box*, made anew by a model, while the rest of it stays.

The box comes to the model in one of three ways. "box": scaled to the model's size and back. "windows": at
its own size, the score of the whole box being the mean of those of overlapping windows. "cascade": first
scaled, then sharpened at its own size by windows, such that the means of blocks stay as they were.

A run may leave its way as any run can (see branch.py); on each leg it has a mask and strokes of its own.
What a person paints while it runs is such a branch, too, so a recipe tells of it.

Pictures are uint8 (H, W, 3), masks uint8 (H, W) with 0 known, 255 free and between them how far a pixel
may change, strokes uint8 (H, W, 4) with straight alpha.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from studio import spec
from studio.diffusion import colour
from studio.diffusion.tasks import Colorize, Inpaint, Task
from studio.engine.branch import Branch
from studio.engine.events import Event, Finished, Note
from studio.engine.jobs import SampleJob, Watch
from studio.errors import PictureError, SpecError
from studio.spec import option

if TYPE_CHECKING:
    from studio.engine.engine import Context
    from studio.engine.trajectory import State, Trajectory

Rect = tuple[int, int, int, int]  # x, y, width, height

WAYS = {
    "box": "Scaled to the model's size and back. Use it for boxes about as large as the model.",
    "windows": "At full size, as overlapping windows in one run. Use it for textures and small holes.",
    "cascade": "Scaled first, then sharpened at full size. Use it for large boxes; it takes longest.",
}

_MOST_PIXELS = 2048 * 2048  # of a box at full size


@dataclass(frozen=True)
class Origin:
    """The run of one picture, from whose state at a time all candidates begin."""

    run: SampleJob = option(lambda: SampleJob(count=1), label="Run")
    t: float = option(1.0, label="Time", range=(0, 1))
    step: int = option(0, label="Step", range=(0, 10**6), help="Of its last leg.")


@dataclass(frozen=True)
class PaintRecipe:
    """All that shapes the candidates but the picture, the mask and the strokes themselves, of which it
    keeps what identifies them; and, of a result, the proof of what it left unchanged."""

    kind: str = option("paint", choices=("paint",))
    sample: SampleJob = option(lambda: SampleJob(count=4), label="Candidates")
    task: Task = option(Inpaint, label="Task")
    way: str = option(
        "box", label="Large pictures", choices=tuple(WAYS), help="How a box comes to the model."
    )
    box: tuple[int, ...] = ()
    origin: Origin | None = option(None, label="From", help="None: from noise.")
    inputs: dict[str, str] = field(default_factory=dict)
    proof: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Repaint:
    """A message to a PaintJob: another mask, other strokes or another recipe, from the next step on. The
    arrays are those of the box. Of the recipe, task and guidance are looked at; None is as before."""

    mask: np.ndarray | None = None
    sketch: np.ndarray | None = None
    recipe: PaintRecipe | None = None


@dataclass(frozen=True, eq=False)
class Touch:
    """A message to a PaintJob: paint, uint8 (h, w, 4) of the box's size, onto the noisy states."""

    paint: np.ndarray


@dataclass(frozen=True, eq=False)
class Layers:
    """What is painted from a branch on, and what was put on the noisy states there."""

    mask: np.ndarray | None = None
    sketch: np.ndarray | None = None
    touch: np.ndarray | None = None

    def inputs(self) -> dict[str, str]:
        """What identifies each: the first digits of a SHA-256. No mask is told, too."""
        return {"mask": ""} | {k: _digest(v) for k, v in vars(self).items() if v is not None}

    def cut(self, box: Rect) -> Layers:
        """Copies of the part in a box; what is empty there is None."""
        parts = {k: None if v is None else _cut(v, box) for k, v in vars(self).items()}
        return Layers(**{k: v.copy() for k, v in parts.items() if v is not None and v.any()})


@dataclass(frozen=True, eq=False)
class PaintJob:
    """Candidates for a box of a picture. Its result is what the box would become, (N, h, w, 3).

    `later` has what is painted from each branch of the recipe on. `begun` is the state of the recipe's
    origin, if it was kept; else it is made again.
    """

    recipe: PaintRecipe
    picture: np.ndarray
    mask: np.ndarray | None = None
    sketch: np.ndarray | None = None
    boxed: bool = False  # whether the arrays are those of the box alone
    later: tuple[Layers, ...] = ()
    begun: State | None = None

    def alone(self) -> PaintJob:
        """The job with copies of what is in the box. Raises StudioError as `check` does."""
        self.check()
        box = self.box()
        picture = self.picture if self.boxed else _cut(self.picture, box).copy()
        first, *later = (layers.cut(box) for layers in (self.painted, *self.later))
        first = {"mask": first.mask, "sketch": first.sketch}
        return replace(self, picture=picture, boxed=True, later=tuple(later), **first)

    def box(self) -> Rect:
        """The box, inside the picture. Raises PictureError if it is not."""
        h, w = self.picture.shape[:2]
        if self.boxed or not self.recipe.box:
            return 0, 0, w, h
        x, y, wide, high = self.recipe.box
        if wide < 1 or high < 1 or x < 0 or y < 0 or x + wide > w or y + high > h:
            raise PictureError("The box is not inside the picture.", "Place the box again.")
        return x, y, wide, high

    @property
    def painted(self) -> Layers:
        """What is painted at the beginning."""
        return Layers(self.mask, self.sketch)

    @property
    def branches(self) -> tuple[Branch, ...]:
        return self.recipe.sample.branches

    def inputs(self) -> dict[str, str]:
        """What identifies the picture, and the mask and strokes at the beginning, in the box."""
        job = self.alone()
        painted = {k: told for k, told in job.painted.inputs().items() if told}
        return {"picture": _digest(job.picture), **painted}

    def leg(self, place: int) -> PaintJob:
        """A job with everything as it is after so many branches."""
        job = replace(self, later=(), recipe=_branched(self.recipe, ()))
        for branch, layers in zip(self.branches[:place], self.later):
            told = {"classes": branch.classes, "guidance": branch.guidance}
            sample = replace(job.recipe.sample, **{k: v for k, v in told.items() if v is not None})
            recipe = replace(job.recipe, sample=sample, task=branch.task or job.recipe.task)
            job = replace(job, recipe=recipe, mask=layers.mask, sketch=layers.sketch)
        return job

    def on(self, place: int, branch: Branch, layers: Layers) -> PaintJob:
        """The job that leaves its way after so many branches, and takes none of the others."""
        recipe = _branched(self.recipe, (*self.branches[:place], branch))
        return replace(self, recipe=recipe, later=(*self.later[:place], layers))

    def check(self) -> None:
        """Raise StudioError, before anything is loaded, if there is nothing to do or it cannot be."""
        spec.check(self.recipe)
        if len(self.recipe.box) not in (0, 4):
            raise SpecError("A box has four numbers: x, y, width, height.")
        if len(self.later) != len(self.branches):
            raise SpecError(
                "What was painted at the branches of this recipe is not here.",
                "Leave the branches out.",
            )
        if self.recipe.origin is not None and self.recipe.origin.run.count != 1:
            raise SpecError("Candidates begin from the run of one picture.")
        for place in range(len(self.later) + 1):
            self.leg(place)._check()

    def _check(self) -> None:
        shape = self.picture.shape[:2]
        for name, other in (("mask", self.mask), ("sketch", self.sketch)):
            if other is not None and other.shape[:2] != shape:
                raise PictureError(
                    f"The {name} is {other.shape[1]} × {other.shape[0]} pixels; "
                    f"the picture is {shape[1]} × {shape[0]}."
                )
        x, y, w, h = self.box()
        _check_mask(
            self.recipe.task, self.mask, self.mask is not None and _cut(self.mask, (x, y, w, h))
        )
        if self.recipe.way == "windows" and w * h > _MOST_PIXELS:
            raise PictureError(
                "The box is too large to be made at full size.", "Make it smaller, or scale it."
            )

    def run(self, context: Context) -> Generator[Event, Any, None]:
        """Events of a run. Takes FinishWith, Repaint and Touch."""
        return self.made(context)

    def made(self, context: Context, state: State | None = None) -> Generator[Event, Any, None]:
        """As `run`; from a kept state, which the last branch leaves, if one is given."""
        from studio.engine.paint_run import painted

        job = self.alone()
        job = replace(job, recipe=replace(job.recipe, inputs=job.inputs()))
        yield Note("Loading the model")
        score, watch = job.recipe.sample.score(context), Watch()
        stack, job, end = yield from painted(job, context, score, watch, state)
        results = end.merged(stack)
        told = proof(end.recipe.task, end.picture, results, end.mask)
        recipe = replace(job.recipe, proof=told)
        told = spec.to_dict(recipe), watch.calls, watch.seconds
        yield Finished(results, *told, given=replace(job, begun=None))

    def merged(self, stack: np.ndarray) -> np.ndarray:
        """What the box becomes by what the model made of it, (N, h, w, 1 or 3)."""
        return np.stack([merged(self.recipe.task, self.picture, x, self.mask) for x in stack])


def _branched(recipe: PaintRecipe, branches: tuple[Branch, ...]) -> PaintRecipe:
    return replace(recipe, sample=replace(recipe.sample, branches=branches))


@dataclass(frozen=True, eq=False)
class PaintBranchJob:
    """Goes on from a kept state to the end, by what is painted at the job's last branch, which leaves at
    the state. The job makes the same pictures from nothing."""

    job: PaintJob
    state: State

    def run(self, context: Context) -> Generator[Event, Any, None]:
        """Events as those of a PaintJob; calls and seconds are of this run alone."""
        return self.job.made(context, self.state)


def branched(
    trajectory: Trajectory,
    log_snr: float,
    layers: Layers,
    task: Task | None = None,
    **changes: Any,
) -> PaintBranchJob:
    """A branch of a painting from the last state kept at or above the noise of a log-SNR: with other
    `layers`, those of the box, another `task`, or `changes` of fields of a Branch. Raises StudioError,
    with the reason, if there can be none.
    """
    job, state = trajectory.given, trajectory.state_before(log_snr)
    if not isinstance(job, PaintJob) or not trajectory.states:
        raise SpecError(
            "A cascade is two runs, and neither can be branched.", "Choose another way for the box."
        )
    if state is None:
        raise SpecError(
            "No state of this run was kept so early.", "Branch at a later moment of the run."
        )
    before = job.leg(state.leg)
    layers = layers.cut((0, 0, *job.picture.shape[1::-1]))
    inputs = layers.inputs() if layers.inputs() != before.painted.inputs() else {}
    task = None if task == before.recipe.task else task
    branch = Branch(state.t, state.index, task=task, inputs=inputs, **changes)
    if branch == Branch(state.t, state.index):
        raise SpecError(
            "Nothing is other on this branch.", "Paint another mask, or change the seed."
        )
    job = job.on(state.leg, branch, layers)
    job.check()
    return PaintBranchJob(job, state)


def taken_out(trajectory: Trajectory, row: int) -> Trajectory:
    """The run of one picture of a run that samples from noise, for the canvas. Raises SpecError."""
    if not trajectory.recipe or "kind" in trajectory.recipe:
        raise SpecError("Only runs that sample from noise can be taken to the canvas.")
    run = spec.from_dict(SampleJob, trajectory.recipe)
    alone = replace(run, seed=(run.seed + row) % 2**32, count=1)
    return trajectory.alone(row, spec.to_dict(alone))


def onto(trajectory: Trajectory, log_snr: float, row: int = 0) -> tuple[Origin, State]:
    """Where candidates can begin from one picture of a run that samples from noise: at the last state
    kept at or above the noise of a log-SNR. Raises SpecError, with the reason, if they cannot."""
    state = trajectory.state_before(log_snr)
    run = spec.from_dict(SampleJob, taken_out(trajectory, row).recipe)
    if state is None:
        raise SpecError(
            "No state of this run was kept so early.", "Go to a later moment of the run."
        )
    alone = state.alone(row)
    return Origin(replace(run, branches=run.branches[: state.leg]), alone.t, alone.index), alone


# -- results -----------------------------------------------------------------------------------------


def merged(task: Task, crop: np.ndarray, made: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """What a box (h, w, 3) becomes by what the model made of it, (h, w, 1 or 3): nothing where the mask
    is 0, all of it from half on. Colorization keeps the brightness as exactly as 8 bits can."""
    share = 1.0 if mask is None else np.minimum(mask / 127.5, 1.0)[..., None]
    whole = crop + share * (made.astype(np.float64) - crop)
    if not isinstance(task, Colorize):
        return whole.round().astype(np.uint8)
    weights = colour.WEIGHTS[task.weights]
    found = colour.with_brightness(whole, colour.brightness(crop, weights), weights)
    return found if mask is None else np.where(mask[..., None] > 0, found, crop)


def proof(
    task: Task, crop: np.ndarray, results: np.ndarray, mask: np.ndarray | None
) -> dict[str, float]:
    """What is certain to be unchanged, with the largest error in units of 1/255: "kept" of pixels that
    are not masked, "brightness" of a colorization."""
    found: dict[str, float] = {}
    if mask is not None and not mask.all():
        away = np.abs(results.astype(np.int16) - crop)[:, mask == 0]
        found["kept"] = float(away.max())
    if isinstance(task, Colorize):
        weights = colour.WEIGHTS[task.weights]
        found["brightness"] = max(colour.brightness_error(crop, r, weights) for r in results)
    return found


def doubt(stack: np.ndarray) -> np.ndarray:
    """Where candidates (N, h, w, 3) disagree: their deviation at each pixel, uint8 (h, w), 255 where it
    is a quarter of the range or more."""
    spread = stack.astype(np.float32).std(0).mean(-1)
    return np.clip(spread * 4, 0, 255).astype(np.uint8)


def _check_mask(task: Task, mask: np.ndarray | None, boxed: Any) -> None:
    if not task.needs_mask:
        return
    if mask is None or not mask.any():
        raise PictureError("Nothing is painted.", "Paint what should change.")
    if not boxed.any():
        raise PictureError("Nothing is painted inside the box.", "Move the box to the paint.")
    if task.needs_rest and boxed.all():
        raise PictureError(
            "All of the box is painted, so nothing of the picture is kept.",
            "Make the box larger, or leave something.",
        )


def _cut(array: np.ndarray, box: Rect) -> np.ndarray:
    x, y, w, h = box
    return array[y : y + h, x : x + w]


def _digest(array: np.ndarray) -> str:
    head = f"{array.shape}{array.dtype}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
