"""A painting under way: runs of a sampler over a fitted box, by what is painted on each of their legs."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from studio import spec
from studio.diffusion import pictures
from studio.diffusion.conditions import All, Changing, Condition, Meter
from studio.diffusion.linear import Blocks
from studio.diffusion.measured import Replacement
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Step
from studio.diffusion.score import Score, expand
from studio.diffusion.tasks import Colorize, Inpaint, Replace, Scene, level
from studio.diffusion.windows import windowed
from studio.engine.boxes import Fitted
from studio.engine.branch import Branch, Leg, Way
from studio.engine.events import Begun, Event, Note, Picture, Progress, Shares
from studio.engine.jobs import FinishWith, SampleJob, Watch, Watched, in_groups
from studio.engine.paint import Layers, PaintJob, PaintRecipe, Repaint, Touch
from studio.errors import PictureError, SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.score import Function
    from studio.engine.engine import Context
    from studio.engine.trajectory import State

#: What a run makes, the job that makes it again, and its last leg.
Made = Generator[Event, Any, tuple[np.ndarray, PaintJob, PaintJob]]

#: Where the noise of paint put on a state begins, apart from every other use.
_TOUCH = 1 << 18
#: How far the second run of a cascade may change what the first one made: as a Task's strength.
_SHARPENED = 0.45


def painted(
    job: PaintJob, context: Context, score: Score, watch: Watch, state: State | None = None
) -> Made:
    """What the model makes of the box, (N, h, w, C) at the box's size, before it is merged. What is
    painted on the way becomes a part of the job."""
    _, _, w, h = job.box()
    side = score.shape[1]
    begun = yield from _begun(job, context, score, watch)
    if job.recipe.way == "windows" and max(w, h) > side:
        fitted = Fitted((w, h), (w, h), side)
        return (yield from _Run(job, context, score, fitted, watch, state=state).all())
    fitted, factor = Fitted.scaled((w, h), side), math.ceil(max(w, h) / side)
    if job.recipe.way == "box" or factor < 2:
        run = _Run(job, context, score, fitted, watch, state=state, begun=begun)
        return (yield from run.all())
    run = _Run(job, context, score, fitted, watch, branches=False)
    first, job, end = yield from run.all()
    yield Note("Sharpening at full size")
    (cw, ch) = fitted.content
    fine = Fitted((w, h), (cw * factor, ch * factor), side, factor)
    # As it will be: with the picture itself where it is kept.
    run = _Run(job, context, score, fine, watch, end.merged(first), branches=False)
    return (yield from run.all())


def _begun(
    job: PaintJob, context: Context, score: Score, watch: Watch
) -> Generator[Event, Any, Step | None]:
    """The state that all candidates begin with; None for noise."""
    origin, (_, h, w) = job.recipe.origin, score.shape
    if origin is None:
        return None
    if job.box()[2:] != (w, h) or job.recipe.way != "box":
        raise SpecError(
            "Candidates that begin in the midst of a run need the picture of that run.",
            "Open that picture, with a box around all of it, or begin from noise.",
        )
    if job.begun is not None:
        return job.begun.step(context.device)
    yield Note("Making the run again that it begins from")
    found = yield from origin.run.step_at(context, origin.t, origin.step, watch)
    if found.x.shape[1:] != score.shape:
        raise SpecError("The model makes pictures of another size than the run it begins from.")
    return found


@dataclass(frozen=True, eq=False)
class _Out:
    """How a run sets out: its way, its Steps, and the network calls that lie behind it."""

    way: Way
    now: Changing
    steps: Iterator[Step]
    spent: int = 0


class _Run:
    """One sampler run over a fitted box, for groups of the candidates.

    `first` is what a run before it made, to be sharpened; with `branches` its states are kept, so that it
    can be branched; `state` is one that it goes on from, `begun` one that it begins with.
    """

    def __init__(
        self,
        job: PaintJob,
        context: Context,
        score: Score,
        fitted: Fitted,
        watch: Watch,
        first: np.ndarray | None = None,
        branches: bool = True,
        state: State | None = None,
        begun: Step | None = None,
    ) -> None:
        self.job, self.context, self.fitted = job, context, fitted
        self.watch, self.first, self.begun = watch, first, begun
        self.free, self.meter = score, Meter()
        self._keeps, self._state_left = branches, state
        # What was done in the run before the one that sharpens is done.
        self._before = () if first is None else job.branches
        self._go_to(len(self._before))
        self.score = _live(lambda: self.laid)

    def _go_to(self, place: int) -> None:
        """Go by what is painted after so many branches."""
        self.leg = self.job.leg(place)
        self.laid = self._laid()
        self.conditions = self._conditions()

    def all(self) -> Made:
        """What is made of all candidates."""
        given = self.job
        stacks = yield from in_groups(given.recipe.sample.count, self._some)
        made = np.stack([self.fitted.back(made) for stack in stacks for made in stack])
        if self.first is None:
            return made, self.job, self.leg
        if self.job is not given:
            yield Note("Sharpened otherwise than the recipe says")
        return made, given, self.leg

    def _some(self, part: range) -> Generator[Event, Any, np.ndarray]:
        """The candidates of a range, (n, H, W, C) on the canvas."""
        out = self._set_out(part)
        way = out.way
        cw, ch = self.fitted.content
        run = Watched(self.context, self.score, out.steps, self.watch, size=(ch, cw))
        self._follow(run, way, out.spent)
        # A message may come with any event: none of them may be lost. Before the first step they wait.
        messages = [(yield Begun(run.trajectory))]
        while (event := run.next()) is not None:
            messages.append((yield event))
            if isinstance(event, Picture) and (shares := self.meter.read()):
                messages.append((yield Shares(shares)))
            if run.step is None or run.step.finished:
                continue
            for message in messages:
                if (heard := self._heard(message, _step(run))) is not None:
                    self._leave(way, *heard)
                    self._turn(run, out, part, heard[0])
            messages.clear()
            while isinstance(event, Progress) and (branch := way.here(_step(run))) is not None:
                self._turn(run, out, part, branch)
            if way.note:
                said, way.note = way.note, ""
                messages.append((yield Note(said)))
        if way.missed:
            yield Note("The run came to its end before its last branch")
        self.job = self._so_far(way.taken)
        return pictures.to_pictures(_step(run).x, self.score.value_range)

    def _set_out(self, part: range) -> _Out:
        """The way of some candidates from its beginning, or from a kept state."""
        sample, score, place = self.job.recipe.sample, self.score, len(self._before)
        alone = replace(
            sample,
            seed=sample.seed + part.start,
            count=len(part),
            branches=sample.branches[place:],
        )
        device, depth = self.context.device, sample.sampler.depth
        noise = Noise.of(alone.seed, len(part), score.shape, score.sde, device=device, depth=depth)
        self._go_to(place)
        now = Changing(self._of(part))
        start, begin = self._start(noise, part)
        way = Way(Leg(alone, score, noise, now, begin, changes=True), self._recipe)
        if self._state_left is None:
            return _Out(way, now, sample.sampler.run(score, noise, now, start, begin))
        self._go_to(len(self.job.later))
        now.now = self._of(part)
        spent, steps = way.resume(self._state_left, part)
        return _Out(way, now, steps, spent)

    # -- branches -------------------------------------------------------------------------------------

    def _recipe(self, sample: SampleJob) -> dict[str, Any]:
        """What makes these samples again; nothing does where one recipe stands for two runs."""
        return spec.to_dict(replace(self.job.recipe, sample=sample)) if self._keeps else {}

    def _follow(self, run: Watched, way: Way, spent: int = 0) -> None:
        run.follow(way, spent)
        if self._keeps:
            recipe = replace(self.job.recipe, sample=way.job)
            run.trajectory.given = replace(self.job, recipe=recipe)

    def _heard(self, message: Any, step: Step) -> tuple[Branch, Layers] | None:
        """The branch that a message stands for, and what is painted from there on."""
        leg = self.leg
        layers = leg.painted
        match message:
            case Repaint():
                mask = layers.mask if message.mask is None else message.mask
                sketch = layers.sketch if message.sketch is None else message.sketch
                layers = Layers(mask, sketch).cut(self.job.box())
                told = _other(message.recipe or leg.recipe, leg.recipe)
                return Branch(step.t, step.index, inputs=layers.inputs(), **told), layers
            case Touch():
                layers = replace(layers, touch=message.paint)
                return Branch(step.t, step.index, inputs=layers.inputs()), layers
            case FinishWith():
                return Branch(step.t, step.index, sampler=message.sampler), layers
        return None

    def _leave(self, way: Way, branch: Branch, layers: Layers) -> None:
        """Put a branch here into the way and the job. What cannot be used raises, and the run ends with
        the reason."""
        way.leave(branch)
        self.job = self.job.on(len(self._before) + len(way.taken), branch, layers)
        self.job.check()

    def _so_far(self, taken: tuple[Branch, ...]) -> PaintJob:
        """The job with no branches but these, of this run."""
        branches = (*self._before, *taken)
        if branches == self.job.branches:
            return self.job
        recipe = replace(self.job.recipe, sample=replace(self.job.recipe.sample, branches=branches))
        return replace(self.job, recipe=recipe, later=self.job.later[: len(branches)])

    def _turn(self, run: Watched, out: _Out, part: range, branch: Branch) -> None:
        """Take a branch: from here on what is painted for it counts."""
        place = len(self._before) + len(out.way.taken)
        self._go_to(place + 1)
        out.now.now = self._of(part)
        touch = self.job.later[place].touch
        if touch is not None:
            run.step = self._touched(_step(run), touch, out.way.leg.noise)
        run.turn(out.way, branch)
        self._follow(run, out.way)

    def _laid(self) -> Score:
        """The score of the canvas, computed where something may change."""
        known = self._state(self.leg.picture)[0]
        if self.fitted.canvas == self.free.shape[1:]:
            return self.free
        where = torch.from_numpy(self._change() > 0)
        return windowed(self.free, self.fitted.canvas, where=where, known=known)

    # -- what is known --------------------------------------------------------------------------------

    def _of(self, part: range) -> Condition:
        return All(tuple(c.of(part) for c in self.conditions), self.meter)

    def _conditions(self) -> tuple[Condition, ...]:
        known = self.leg.recipe.sample.condition(self.free, self.context.device)
        return (*self._task(), known)

    def _task(self) -> tuple[Condition, ...]:
        task, picture = self.leg.recipe.task, self._state(self.leg.picture)
        change = torch.from_numpy(self._change()).to(picture) / 255
        paint, painted = picture, torch.zeros_like(change)
        if (strokes := self.leg.sketch) is not None:
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
            return task.conditions(scene)
        # What was made at the model's size stays, in the means of blocks; the rest is found anew.
        coarse = torch.cat([self._state_of(self.fitted.forth(made)) for made in self.first])
        kept = task if isinstance(task, Colorize) else Inpaint(Replace())
        return (*kept.conditions(scene), Replacement(Blocks(self.fitted.factor), coarse))

    def _start(self, noise: Noise, part: range) -> tuple[Tensor | None, float]:
        """(the state that a run begins with, or None for noise; its time)."""
        if self.begun is not None:
            return self.begun.x.expand(len(part), -1, -1, -1).clone(), self.begun.t
        if self.first is None:
            return None, self._of(part).begin(self.score.sde)
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
        mask = self.leg.mask
        if mask is None:
            return np.full((h, w), 0 if self.leg.recipe.task.needs_mask else 255, np.uint8)
        return self.fitted.mask(mask)

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


def _step(run: Watched) -> Step:
    assert run.step is not None
    return run.step


def _other(new: PaintRecipe, old: PaintRecipe) -> dict[str, Any]:
    """The fields of a Branch that a recipe changes: of it, task and guidance are looked at."""
    found: dict[str, Any] = {}
    if new.task != old.task:
        found["task"] = new.task
    if new.sample.guidance != old.sample.guidance:
        found["guidance"] = new.sample.guidance
    return found


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
