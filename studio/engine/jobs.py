"""Jobs: what a person asks for, as generators of events. The window and the command line share them.

A job is also the recipe of its result: a Spec that becomes JSON, goes into the PNG, and makes the
same pictures again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from studio import spec
from studio.diffusion import pictures
from studio.diffusion.catalog import PRESETS
from studio.diffusion.conditions import (
    FREE,
    ClassifierFree,
    ClassifierGuidance,
    ClassLabel,
    Condition,
)
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Sampler, Step, finite
from studio.diffusion.score import Score, expand
from studio.diffusion.sde import SDE, log_snr_at
from studio.engine.branch import Branch, Leg, Way
from studio.engine.events import Begun, Event, Finished, Metric, Note, Picture, Progress
from studio.engine.trajectory import Frame, Kept, State, Trajectory
from studio.errors import SolverError, SpecError
from studio.lazy import torch
from studio.spec import option
from studio.weights import classifiers
from studio.weights.devices import DeviceFacts, facts, is_out_of_memory, resolve

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from studio.engine.engine import Context

T = TypeVar("T")

PICTURES_A_SECOND = 30
MOST_PICTURES = 64
_SMALL = 2**18  # values of a stack whose views are made in a millisecond
_THINNED = "Fewer moments are kept: what does not fit into memory cannot be written ({})"


class Setting:
    """The Context of the studio: the shelf, the device and its numbers, the rate of pictures."""

    def __init__(
        self,
        shelf: Any,
        device: str = "auto",
        rate: float = PICTURES_A_SECOND,
        dtype: str = "fp32",
    ) -> None:
        self.shelf = shelf
        self.dtype = dtype
        self._wanted, self._device = device, ""
        self._gap = 1 / rate if rate else float("inf")
        self._last = 0.0

    @property
    def device(self) -> str:
        """Resolved at first use, in the worker, because it needs torch."""
        self._device = self._device or resolve(self._wanted)
        return self._device

    def choose(self, device: str, dtype: str) -> None:
        """Where models run and how they compute, from the next run on."""
        if device != self._wanted:
            self._wanted, self._device = device, ""
        self.dtype = dtype

    @property
    def facts(self) -> DeviceFacts | None:
        """The device and its memory now; None until a job has asked for the device."""
        return facts(self._device) if self._device else None

    def check(self) -> None:
        """Nothing stops a job that is run directly."""

    def wants_picture(self) -> bool:
        """Whether a display tick has gone by since the last yes."""
        now = time.monotonic()
        if now - self._last < self._gap:
            return False
        self._last = now
        return True


@dataclass(frozen=True)
class FinishWith:
    """A message to a job: go on from here with another sampler; in a race, in the lane that is told."""

    sampler: Sampler
    lane: int = 0


@dataclass(frozen=True)
class SampleJob:
    """Pictures from noise."""

    model: str = "critters-32"
    sampler: Sampler = option(lambda: PRESETS["quick"][1], label="Sampler")
    count: int = option(16, label="Pictures", range=(1, MOST_PICTURES), help="How many at once.")
    seed: int = option(
        0, label="Seed", range=(0, 2**32 - 1), help="Picture i has the seed + i, alone or together."
    )
    classes: str = option("", label="Class", help="Empty: any class.")
    guidance: float = option(
        1.0,
        label="Guidance",
        range=(0, 100),
        help="1 is the class as it was learned; more looks more typical and varies less.",
    )
    classifier: str = option(
        "",
        label="Classifier",
        help="What tells classes apart; empty: the model's own knowledge of them.",
    )
    sde: SDE | None = option(None, label="Noising", help="None: as the model was trained.")
    model_preset: str = option(
        "", label="Configuration", help="A published one, for a file that does not describe itself."
    )
    branches: tuple[Branch, ...] = option((), label="Branches", help="Where the run left its way.")

    def run(self, context: Context) -> Generator[Event, Any, None]:
        """Events of a run; a FinishWith sent to it changes the sampler, which the recipe of the result
        tells as a branch. Halves what does not fit."""
        return self.made(context)

    def made(self, context: Context, state: State | None = None) -> Generator[Event, Any, None]:
        """As `run`; from a kept state, which the last branch leaves, if one is given."""
        spec.check(self)
        yield Note("Loading the model")
        score = self.score(context)
        condition, watch = self.condition(score, context.device), Watch()
        results = yield from in_groups(
            self.count, lambda part: self._some(context, score, condition, part, watch, state)
        )
        stack, ways = _joined([made for made, _ in results]), [way for _, way in results]
        if any(way != ways[-1] for way in ways):
            yield Note("Some pictures were finished otherwise than the recipe says")
        recipe = replace(self, branches=ways[-1])
        yield Finished(stack, spec.to_dict(recipe), watch.calls, watch.seconds)

    def score(self, context: Context) -> Score:
        """The model's score under the SDE that is wanted, which asks whether to stop."""
        loaded = context.shelf.load(self.model, context.device, context.dtype, self.model_preset)
        return interruptible(loaded if self.sde is None else loaded.under(self.sde), context)

    def condition(self, score: Score, device: str) -> Condition:
        """What is known of all pictures of this job. Raises StudioError if it cannot be had."""
        if not self.classes and (self.classifier or self.guidance != 1):
            raise SpecError("Guidance needs a class to guide to.", "Choose a class.")
        if not self.classifier:
            known = class_condition(score, self.classes, self.count, self.seed)
            if self.guidance == 1 or not isinstance(known, ClassLabel):
                return known
            return ClassifierFree(known.labels, self.guidance)
        classifier = classifiers.load(self.classifier, device)
        classifier.check(score)
        labels = class_indices(
            "The classifier", classifier.classes, self.classes, self.count, self.seed
        )
        return ClassifierGuidance(classifier, labels, self.guidance)

    def step_at(
        self, context: Context, t: float, step: int, watch: Watch
    ) -> Generator[Event, Any, Step]:
        """Run to the first Step of the last leg at or below time t that has at least this index. Raises
        SpecError if the run does not come there."""
        score, end = self.score(context), Branch(t, step)
        job = replace(self, branches=(*self.branches, end))
        way = job._way(score, self.condition(score, context.device), range(self.count), context)
        run = Watched(context, score, way.leg.steps(), watch)
        while (event := run.next()) is not None:
            yield event
            assert run.step is not None
            while isinstance(event, Progress) and (branch := way.here(run.step)) is not None:
                if len(way.taken) == len(self.branches):
                    return run.step
                run.turn(way, branch)
        raise SpecError("The run that it begins from does not come so far.")

    def _way(self, score: Score, condition: Condition, part: range, context: Context) -> Way:
        """The way of a part of the pictures, at its beginning."""
        alone = replace(self, seed=self.seed + part.start, count=len(part))
        noise = Noise.of(
            alone.seed,
            len(part),
            score.shape,
            score.sde,
            device=context.device,
            depth=self.sampler.depth,
        )
        return Way(Leg(alone, score, noise, condition.of(part)))

    def _some(
        self,
        context: Context,
        score: Score,
        condition: Condition,
        part: range,
        watch: Watch,
        state: State | None,
    ) -> Generator[Event, Any, tuple[np.ndarray, tuple[Branch, ...]]]:
        """The pictures of a part, and the branches that lead to them."""
        way = self._way(score, condition, part, context)
        spent, steps = (0, way.leg.steps()) if state is None else way.resume(state, part)
        run = Watched(context, score, steps, watch)
        run.follow(way, spent)
        yield Begun(run.trajectory)
        if way.note:
            yield Note(way.note)
        while (event := run.next()) is not None:
            message = yield event
            step = run.step
            if step is None or step.finished:
                continue
            if isinstance(message, FinishWith):
                way.leave(Branch(step.t, step.index, sampler=message.sampler))
                yield Note(f"Finishing with {message.sampler.title}")
            elif not isinstance(event, Progress):
                continue
            if (branch := way.here(step)) is not None:
                run.turn(way, branch)
                if way.note:
                    yield Note(way.note)
        if way.missed:
            yield Note("The run came to its end before its last branch")
        assert run.step is not None
        return pictures.to_pictures(run.step.x, score.value_range), way.taken


def in_groups(
    count: int, some: Callable[[range], Generator[Event, Any, T]]
) -> Generator[Event, Any, list[T]]:
    """What `some` makes of all `count` samples, in groups that fit into memory: all at once if it can
    be, else half as many as did not fit. Raises what `some` raises otherwise."""
    group, done, results = count, 0, []
    while done < count:
        part = range(done, min(done + group, count))
        try:
            results.append((yield from some(part)))
            done = part.stop
        except Exception as error:
            if not is_out_of_memory(error) or group == 1:
                raise
            group = (len(part) + 1) // 2
            yield Note(f"Not enough memory for {len(part)} pictures at once: trying {group}")
    return results


class Watch:
    """Counts what a job has cost: network calls, and seconds at work (not those it was paused)."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0


class Watched:
    """A sampler's Steps as events: a Picture and Metric when one is wanted, then Progress. Of states that
    are padded to the right and below, `size` (H, W) is what is shown."""

    def __init__(
        self,
        context: Context,
        score: Score,
        steps: Iterator[Step],
        watch: Watch,
        lane: int = 0,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.context, self.score, self.lane = context, score, lane
        self._size = size or score.shape[1:]
        self.step: Step | None = None
        self.trajectory = Trajectory(*log_snr_range(score))
        self._steps, self._watch, self._calls = steps, watch, watch.calls
        self._waiting: list[Event] = []
        self._earlier: Frame | None = None
        self._leg, self._troubled = 0, False

    def next(self) -> Event | None:
        """The next event, or None after the last Step."""
        if self._waiting:
            return self._waiting.pop(0)
        begun = time.perf_counter()
        step = next(self._steps, None)
        self._watch.seconds += time.perf_counter() - begun
        if step is None:
            return None
        self.step = step
        self._watch.calls = self._calls + step.nfe
        snr = self._log_snr(step.t)
        if not step.finished and self.trajectory.due_state(snr):
            self.trajectory.add_state(step, snr, self._leg)
        if step.finished or self.context.wants_picture() or self.trajectory.due(snr):
            self._waiting = self._picture(step, snr)
        # Progress comes last: it is where a run that goes step by step is held.
        progress = Progress(step.index, step.total, self._watch.calls, snr, self._watch.seconds)
        self._waiting.append(replace(progress, lane=self.lane))
        return self._waiting.pop(0)

    def follow(self, way: Way, spent: int = 0) -> None:
        """Keep states of a run on this way, so that it can be branched. It begins with `spent` calls
        behind it, which another run has paid for."""
        self._calls -= spent
        self._leg = len(way.taken)
        self.trajectory.recipe = way.recipe

    def turn(self, way: Way, branch: Branch) -> None:
        """Take a branch of the way. Raises StudioError if it cannot be."""
        assert self.step is not None
        anew, steps = way.turn(branch, self.step)
        if anew:
            self._calls += self.step.nfe
        self._steps = steps
        self.follow(way)

    def change(self, steps: Iterator[Step]) -> None:
        """Go on with the Steps of a run that resumes where this one is."""
        self._steps = steps

    def continue_with(self, sampler: Sampler, noise: Noise, condition: Condition = FREE) -> None:
        """Leave this sampler; the given one goes on from the state it has reached.

        Raises SpecError if the samples are at different times.
        """
        assert self.step is not None
        if self.step.finished:
            return
        if "t" in self.step.memory and float(self.step.memory["t"].min()) != self.step.t:
            raise SpecError(
                "The pictures of this sampler are each at their own time.", "Let it run to its end."
            )
        self._calls += self.step.nfe
        self._steps = sampler.run(
            self.score, noise, condition, start=self.step.x, begin=self.step.t
        )

    def _log_snr(self, t: float) -> float:
        if t <= 0:
            return self.trajectory.high
        return log_snr_at(self.score.sde, t)

    def _picture(self, step: Step, snr: float) -> list[Event]:
        h, w = self._size
        step = replace(step, x=step.x[..., :h, :w], denoised=step.denoised[..., :h, :w])
        frame = live_frame(self.score, step, snr, self._earlier)
        if not finite(step.x):
            raise SolverError(
                f"The solver diverged at log-SNR {snr:.1f}; the last good picture is kept.",
                "Take more steps, a smaller signal-to-noise, or another sampler.",
            )
        self._earlier = frame
        events: list[Event] = [Picture(frame, lane=self.lane)]
        if step.finished or self.trajectory.due(snr):
            kept = isinstance(frame, Kept)
            self.trajectory.add(frame if kept else kept_frame(self.score, step, snr))
            if self.trajectory.trouble and not self._troubled:
                self._troubled = True
                events.append(Note(_THINNED.format(self.trajectory.trouble), lane=self.lane))
        if not step.finished:
            events.append(Metric("score", ((snr, frame.score_norm),), lane=self.lane))
        return events


def interruptible(score: Score, context: Context) -> Score:
    """The score, asking before every call whether the run is to stop: a step may have many calls."""

    def checking(fn: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def call(x: Tensor, t: Tensor) -> Tensor:
            context.check()
            return fn(x, t)

        return call

    inner = score.conditional
    conditional = None if inner is None else (lambda labels: checking(inner(labels)))
    return replace(score, fn=checking(score.fn), conditional=conditional)


def live_frame(score: Score, step: Step, snr: float, earlier: Frame | None = None) -> Frame:
    """A Step as it is looked at while the run goes on; what changed is since the frame before.

    Of a small stack it is what is kept, and whoever looks makes the view. Of a large one that would take
    the window too long: there all views are made here, where the device is.
    """
    x, clean, (low, high) = step.x, step.denoised, score.value_range
    if step.finished or x.numel() <= _SMALL:
        before = earlier.after(None) if isinstance(earlier, Kept) else None
        return kept_frame(score, step, snr, before)
    a, s, field = _unit_score(score, step)
    middle, ones = (low + high) / 2, x.new_ones(len(x))
    shown = middle + (x - expand(a, x) * middle) / expand(torch.sqrt(a**2 + s**2), x)
    if earlier is None:
        changed = torch.zeros_like(clean)
    else:
        changed = clean - pictures.to_state(earlier.denoised, score.value_range, str(x.device))
    return Frame(
        log_snr=snr,
        step=step.index,
        calls=step.nfe,
        x=pictures.to_pictures(shown, score.value_range),
        denoised=pictures.to_pictures(clean, score.value_range),
        score=pictures.magnitude(field, 3 * ones),
        change=pictures.magnitude(changed, ones * (high - low) / 4),
        score_norm=_mean_length(field, s),
    )


def kept_frame(score: Score, step: Step, snr: float, before: Kept | None = None) -> Kept:
    """A Step as a trajectory keeps it: at the end of a run the result alone, before it the estimate and
    the noise.

    The noisy state is shown divided by √(a² + s²), so that it never washes out; the score as the
    length of s · score, which is about one at every level.
    """
    arrays = {"denoised": pictures.to_pictures(step.denoised, score.value_range)}
    if step.finished:
        return Kept.of((snr, step.index, step.nfe, 0.0), arrays, (), before)
    a, s, field = _unit_score(score, step)
    norm = _mean_length(field, s)
    # As far as the noise goes, so that none is cut off.
    reach = torch.stack(torch.aminmax(field)).abs().amax().clamp_min(1e-6)
    codes = field.mul_(-127.5 / reach).add_(127.5).round_().clamp_(0, 255)
    arrays["noise"] = pictures.in_bytes(codes)
    low, high = score.value_range
    length = torch.sqrt(a**2 + s**2)
    weights = a / length, s * reach / (length * (high - low) / 2), reach.expand_as(a) * (2 / 3)
    code = tuple(w.float().cpu().numpy() for w in weights)
    return Kept.of((snr, step.index, step.nfe, norm), arrays, code, before)


def _mean_length(field: Tensor, s: Tensor) -> float:
    """The mean length of the score, of s · score (B, C, H, W)."""
    return float((torch.linalg.vector_norm(field, dim=(1, 2, 3)) / s).mean())


def _unit_score(score: Score, step: Step) -> tuple[Tensor, Tensor, Tensor]:
    """(a, s, s · score) at a Step, of shapes (B,), (B,) and (B, C, H, W)."""
    x = step.x
    a, s = score.sde.marginal(step.memory.get("t", x.new_full((len(x),), step.t)))
    return a, s, torch.addcmul(x, expand(-a, x), step.denoised).div_(expand(-s, x))


def log_snr_range(score: Score) -> tuple[float, float]:
    """log-SNR at time 1 and at the SDE's eps."""
    ends = torch.tensor([1.0, score.sde.eps], dtype=torch.float64)
    low, high = score.sde.log_snr(ends).tolist()
    return low, high


def class_condition(score: Score, wanted: str, count: int, seed: int) -> Condition:
    """The condition for a class by name; "" is any, "each" goes by the seed of each picture, so that
    a picture made again alone has the same class. Raises SpecError if unknown.
    """
    if not wanted and score.free:
        return FREE
    wanted = wanted or "each"  # a model that has to be told: all its classes, in turn
    return ClassLabel(class_indices("This model", score.classes, wanted, count, seed))


def class_indices(
    who: str, classes: tuple[str, ...], wanted: str, count: int, seed: int
) -> tuple[int, ...]:
    """The class of each picture, among `classes`, by name or "each". Raises SpecError if unknown."""
    if wanted == "each" and classes:
        return tuple((seed + i) % len(classes) for i in range(count))
    if wanted not in classes:
        some = ", ".join(classes[:12]) + (", …" if classes[12:] else "")
        known = some or "none: it was trained without"
        raise SpecError(f"{who} has no class “{wanted}”.", f"Its classes: {known}.")
    return (classes.index(wanted),) * count


def _joined(stacks: list[np.ndarray]) -> np.ndarray:
    import numpy as np

    return np.concatenate(stacks)
