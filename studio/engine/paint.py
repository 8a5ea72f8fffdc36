"""Painting: a part of a picture, the *box*, made anew by a model, while the rest of it stays.

The box comes to the model in one of three ways. "box": scaled to the model's size and back. "windows": at
its own size, the score of the whole box being the mean of those of overlapping windows. "cascade": first
scaled, then sharpened at its own size by windows, such that the means of blocks stay as they were.

Pictures are uint8 (H, W, 3), masks uint8 (H, W) with 0 known, 255 free and between them how far a pixel
may change, strokes uint8 (H, W, 4) with straight alpha.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from studio import photos, spec
from studio.diffusion import colour, pictures
from studio.diffusion.conditions import All, Changing, Condition, Meter
from studio.diffusion.linear import Blocks
from studio.diffusion.measured import Replacement
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Step
from studio.diffusion.score import Score, expand
from studio.diffusion.tasks import Colorize, Inpaint, Replace, Scene, Task, level
from studio.diffusion.windows import windowed
from studio.engine.events import Begun, Event, Finished, Note, Picture, Shares
from studio.engine.jobs import FinishWith, SampleJob, Watch, Watched, in_groups
from studio.errors import PictureError, SpecError
from studio.lazy import torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.score import Function
    from studio.engine.engine import Context

Rect = tuple[int, int, int, int]  # x, y, width, height

WAYS = {
    "box": "Scaled to the model's size and back. Use it for boxes about as large as the model.",
    "windows": "At full size, as overlapping windows in one run. Use it for textures and small holes.",
    "cascade": "Scaled first, then sharpened at full size. Use it for large boxes; it takes longest.",
}

#: Where the noise of paint put on a state begins, apart from every other use.
_TOUCH = 1 << 18
#: How far the second run of a cascade may change what the first one made: as a Task's strength.
_SHARPENED = 0.45
_MOST_PIXELS = 2048 * 2048  # of a box at full size


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
class PaintJob:
    """Candidates for a box of a picture. Its result is what the box would become, (N, h, w, 3)."""

    recipe: PaintRecipe
    picture: np.ndarray
    mask: np.ndarray | None = None
    sketch: np.ndarray | None = None
    boxed: bool = False  # whether the arrays are those of the box alone

    def alone(self) -> PaintJob:
        """The job with copies of what is in the box. Raises StudioError as `check` does."""
        self.check()
        box = self.box()
        cut = {
            name: None if array is None or not (part := _cut(array, box)).any() else part.copy()
            for name, array in (("mask", self.mask), ("sketch", self.sketch))
        }
        picture = self.picture if self.boxed else _cut(self.picture, box).copy()
        return replace(self, picture=picture, boxed=True, **cut)

    def box(self) -> Rect:
        """The box, inside the picture. Raises PictureError if it is not."""
        h, w = self.picture.shape[:2]
        if self.boxed or not self.recipe.box:
            return 0, 0, w, h
        x, y, wide, high = self.recipe.box
        if wide < 1 or high < 1 or x < 0 or y < 0 or x + wide > w or y + high > h:
            raise PictureError("The box is not inside the picture.", "Place the box again.")
        return x, y, wide, high

    def check(self) -> None:
        """Raise StudioError, before anything is loaded, if there is nothing to do or it cannot be."""
        spec.check(self.recipe)
        if len(self.recipe.box) not in (0, 4):
            raise SpecError("A box has four numbers: x, y, width, height.")
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
        job = self.alone()
        yield Note("Loading the model")
        score = self.recipe.sample.score(context)
        watch = Watch()
        stack, job = yield from job._made(context, score, watch)
        task, crop = job.recipe.task, job.picture
        results = np.stack([merged(task, crop, made, job.mask) for made in stack])
        told = proof(task, crop, results, job.mask)
        recipe = replace(job.recipe, inputs=job.inputs(), proof=told)
        yield Finished(results, spec.to_dict(recipe), watch.calls, watch.seconds)

    def inputs(self) -> dict[str, str]:
        """The first digits of the SHA-256 of the picture, mask and strokes in the box."""
        job = self.alone()
        given = {"picture": job.picture, "mask": job.mask, "sketch": job.sketch}
        return {k: _digest(v) for k, v in given.items() if v is not None}

    # -- the ways -----------------------------------------------------------------------------------

    def _made(
        self, context: Context, score: Score, watch: Watch
    ) -> Generator[Event, Any, tuple[np.ndarray, PaintJob]]:
        """What the model makes of the box, (N, h, w, C) at the box's size, before it is merged; and the
        job as it is in the end, for it may be changed on the way."""
        _, _, w, h = self.box()
        side = score.shape[1]
        if self.recipe.way == "windows" and max(w, h) > side:
            fitted = Fitted((w, h), (w, h), side)
            return (yield from self._run(context, score, fitted, watch, None))
        fitted = Fitted.scaled((w, h), side)
        first, job = yield from self._run(context, score, fitted, watch, None)
        factor = math.ceil(max(w, h) / side)
        if self.recipe.way == "box" or factor < 2:
            return first, job
        yield Note("Sharpening at full size")
        (cw, ch) = fitted.content
        fine = Fitted((w, h), (cw * factor, ch * factor), side, factor)
        # As it will be: with the picture itself where it is kept.
        first = np.stack([merged(job.recipe.task, job.picture, made, job.mask) for made in first])
        return (yield from job._run(context, score, fine, watch, first))

    def _run(
        self, context: Context, score: Score, fitted: Fitted, watch: Watch, first: np.ndarray | None
    ) -> Generator[Event, Any, tuple[np.ndarray, PaintJob]]:
        run = _Run(self, context, score, fitted, watch, first)
        stacks = yield from in_groups(self.recipe.sample.count, run.some)
        made = np.stack([fitted.back(made) for stack in stacks for made in stack])
        return made, run.job


@dataclass(frozen=True)
class Fitted:
    """How a box comes to the model: its `content`, (width, height), scaled from `size`, lies in the
    corner of a canvas whose sides are at least the model's and multiples of `factor`; the rest is the
    border repeated."""

    size: tuple[int, int]
    content: tuple[int, int]
    side: int
    factor: int = 1

    @staticmethod
    def scaled(size: tuple[int, int], side: int) -> Fitted:
        """The longer side of the box becomes the model's side."""
        w, h = size
        scale = side / max(w, h)
        return Fitted(size, (max(1, round(w * scale)), max(1, round(h * scale))), side)

    @property
    def canvas(self) -> tuple[int, int]:
        """(height, width) of what is sampled."""
        w, h = (math.ceil(max(v, self.side) / self.factor) * self.factor for v in self.content)
        return h, w

    def forth(self, pixels: np.ndarray) -> np.ndarray:
        """A picture of the box, (h, w, C), on the canvas."""
        return self._padded(photos.resized(pixels, self.content))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the box on the canvas: the most that any pixel may change that has a share."""
        (w, h), (cw, ch) = self.size, self.content
        rows, columns = np.arange(ch) * h // ch, np.arange(cw) * w // cw
        most = np.maximum.reduceat(np.maximum.reduceat(mask, rows, 0), columns, 1)
        return self._padded(most[..., None])[..., 0]

    def back(self, pixels: np.ndarray) -> np.ndarray:
        """The canvas, (H, W, C), as a picture of the box."""
        cw, ch = self.content
        return photos.resized(np.ascontiguousarray(pixels[:ch, :cw]), self.size)

    def _padded(self, pixels: np.ndarray) -> np.ndarray:
        (height, width), (h, w) = self.canvas, pixels.shape[:2]
        return np.pad(pixels, ((0, height - h), (0, width - w), (0, 0)), mode="edge")


class _Run:
    """One sampler run over a fitted box, for groups of the candidates."""

    def __init__(
        self,
        job: PaintJob,
        context: Context,
        score: Score,
        fitted: Fitted,
        watch: Watch,
        first: np.ndarray | None,
    ) -> None:
        self.job, self.context, self.fitted = job, context, fitted
        self.watch, self.first = watch, first
        self.free = score
        self.laid = self._laid()
        self.score = _live(lambda: self.laid)
        self.meter = Meter()
        self.conditions = self._conditions()

    def some(self, part: range) -> Generator[Event, Any, np.ndarray]:
        """The candidates of a range, (n, H, W, C) on the canvas."""
        sampler, score = self.job.recipe.sample.sampler, self.score
        seed = self.job.recipe.sample.seed + part.start
        noise = Noise.of(
            seed, len(part), score.shape, score.sde, device=self.context.device, depth=sampler.depth
        )
        now = Changing(self._of(part))
        start, begin = self._start(noise, part)
        steps = sampler.run(score, noise, now, start, begin)
        cw, ch = self.fitted.content
        run = Watched(self.context, score, steps, self.watch, size=(ch, cw))
        # A message may come with any event: none of them may be lost.
        messages = [(yield Begun(run.trajectory))]
        again = sampler, start, begin
        while (event := run.next()) is not None:
            messages.append((yield event))
            if isinstance(event, Picture) and (shares := self.meter.read()):
                messages.append((yield Shares(shares)))
            for message in messages:
                if isinstance(message, Repaint):
                    self._change_to(message)
                    now.now = self._of(part)
                elif run.step is None or run.step.finished:
                    continue
                elif isinstance(message, Touch):
                    run.step = self._touched(run.step, message.paint, noise)
                    run.change(again[0].run(score, noise, now, again[1], again[2], run.step))
                elif isinstance(message, FinishWith):
                    again = message.sampler, run.step.x, run.step.t
                    run.continue_with(message.sampler, noise, now)
            messages.clear()
        assert run.step is not None
        return pictures.to_pictures(run.step.x, score.value_range)

    def _laid(self) -> Score:
        """The score of the canvas, computed where something may change."""
        known = self._state(self.job.picture)[0]
        if self.fitted.canvas == self.free.shape[1:]:
            return self.free
        where = torch.from_numpy(self._change() > 0)
        return windowed(self.free, self.fitted.canvas, where=where, known=known)

    # -- what is known --------------------------------------------------------------------------------

    def _of(self, part: range) -> Condition:
        return All(tuple(c.of(part) for c in self.conditions), self.meter)

    def _conditions(self) -> tuple[Condition, ...]:
        known = self.job.recipe.sample.condition(self.free, self.context.device)
        return (*self._task(), known)

    def _task(self) -> tuple[Condition, ...]:
        picture = self._state(self.job.picture)
        change = torch.from_numpy(self._change()).to(picture) / 255
        paint, painted = picture, torch.zeros_like(change)
        if (strokes := self.job.sketch) is not None:
            colours = self.fitted.forth(strokes)
            paint = self._state_of(colours[..., :3])
            painted = torch.from_numpy(colours[..., 3].copy()).to(picture) / 255
        scene = Scene(
            picture,
            change[None, None],
            paint,
            painted.expand(change.shape)[None, None],
            self.free.value_range,
        )
        if self.first is None:
            return self.job.recipe.task.conditions(scene)
        # What was made at the model's size stays, in the means of blocks; the rest is found anew.
        coarse = torch.cat([self._state_of(self.fitted.forth(made)) for made in self.first])
        task = self.job.recipe.task
        kept = task if isinstance(task, Colorize) else Inpaint(Replace())
        return (*kept.conditions(scene), Replacement(Blocks(self.fitted.factor), coarse))

    def _start(self, noise: Noise, part: range) -> tuple[Tensor | None, float | None]:
        """Where a run begins: None leaves it to the condition."""
        if self.first is None:
            return None, None
        coarse = torch.cat([self._state_of(self.fitted.forth(self.first[i])) for i in part])
        low, high = self.free.value_range
        strength = torch.tensor([_SHARPENED], dtype=torch.float64)
        t = self.free.sde.time(level(strength, (high - low) / 2)).clamp(self.free.sde.eps, 1.0)
        a, s = (float(v) for v in self.free.sde.marginal(t))
        return a * coarse + s * noise.start(), float(t)

    def _change(self) -> np.ndarray:
        """How far each pixel of the canvas may change; everywhere, if nothing is marked and the task
        needs no mask."""
        h, w = self.fitted.canvas
        mask = self.job.mask
        if mask is None:
            return np.full((h, w), 0 if self.job.recipe.task.needs_mask else 255, np.uint8)
        return self.fitted.mask(mask)

    def _change_to(self, message: Repaint) -> None:
        """Take over what is new; what cannot be used raises, and the run ends with the reason."""
        job = self.job
        self.job = replace(
            job,
            mask=job.mask if message.mask is None else message.mask,
            sketch=job.sketch if message.sketch is None else message.sketch,
            recipe=message.recipe or job.recipe,
        )
        self.job.check()
        self.laid = self._laid()
        self.conditions = self._conditions()

    def _touched(self, step: Step, paint: np.ndarray, noise: Noise) -> Step:
        """The Step with paint, noised to its level, on its states."""
        paint = self.fitted.forth(paint)
        where = torch.from_numpy(paint[..., 3] > 127).to(step.x.device)
        (a, s) = self.free.sde.marginal(step.x.new_full((1,), step.t))
        colours = self._state_of(paint[..., :3])
        noised = expand(a, colours) * colours + expand(s, colours) * noise.fresh(step.t, _TOUCH)
        return replace(step, x=torch.where(where, noised, step.x))

    def _state(self, crop: np.ndarray) -> Tensor:
        """A picture of the box as a state (1, C, H, W)."""
        return self._state_of(self.fitted.forth(crop))

    def _state_of(self, canvas: np.ndarray) -> Tensor:
        if self.free.shape[0] == 1:
            if (np.ptp(canvas.astype(np.int16), axis=-1) > 0).any():
                raise PictureError(
                    "This model makes grey pictures, and the picture has colours.",
                    "Choose a model of colour pictures.",
                )
            canvas = canvas[..., :1]
        return pictures.to_state(canvas[None].copy(), self.free.value_range, self.context.device)


def _live(now: Callable[[], Score]) -> Score:
    """A score that may become another one, of the same canvas, in the middle of a run."""

    def conditional(labels: Tensor) -> Function:
        def fn(x: Tensor, t: Tensor) -> Tensor:
            inner = now().conditional
            assert inner is not None
            return inner(labels)(x, t)

        return fn

    first = now()
    told = None if first.conditional is None else conditional
    return replace(first, fn=lambda x, t: now().fn(x, t), conditional=told)


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
