"""The race: several samplers and models from one start, advanced together, compared on the way.

All lanes begin with the same unit noise, and those that take noise follow one Brownian path. The lane
that is behind goes next, in log-SNR, network calls or seconds; lanes of one model that stand at the same
place make their calls together (see lockstep.py). How far two lanes are apart is the root mean square
difference of their denoised estimates, as a share of the value range, at common marks of log-SNR.
"""

from __future__ import annotations

import bisect
import math
import statistics
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

from studio import spec
from studio.diffusion import pictures
from studio.diffusion.catalog import PRESETS
from studio.diffusion.flow import DormandPrince
from studio.diffusion.grids import UniformTime
from studio.diffusion.langevin import AnnealedLangevinDynamics
from studio.diffusion.likelihood import QUICK
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Sampler, Step
from studio.diffusion.score import Score
from studio.diffusion.sde import SDE
from studio.diffusion.stepping import Stepping
from studio.engine.branch import Leg, Way
from studio.engine.engine import explained
from studio.engine.events import (
    Begun,
    Done,
    Event,
    Failed,
    Finished,
    Metric,
    Note,
    Progress,
    Standing,
)
from studio.engine.jobs import (
    MOST_PICTURES,
    FinishWith,
    SampleJob,
    Watch,
    Watched,
    class_condition,
    interruptible,
    log_snr_range,
)
from studio.engine.lockstep import Strand, together
from studio.errors import SpecError, StudioError
from studio.lazy import no_grad, torch
from studio.spec import option

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from studio.engine.engine import Context

SYNCS = ("log_snr", "calls", "time")
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"

_MOST_LANES = 8
_MARKS = 48  # of log-SNR at which lanes are compared
_BUDGET = 128 * 2**20  # bytes of estimates that may wait for other lanes to come to their mark
_MEASURED = 8  # pictures of a likelihood measured at once


@dataclass(frozen=True)
class Lane:
    """One runner: a sampler on a model."""

    model: str = "critters-32"
    sampler: Sampler = option(lambda: PRESETS["quick"][1], label="Sampler")
    classes: str = option("", label="Class", help="Empty: any class.")
    guidance: float = option(
        1.0, label="Guidance", range=(0, 100), help="1 is the class as it was learned."
    )
    sde: SDE | None = option(None, label="Noising", help="None: as the model was trained.")
    temperature: float = option(
        1.0,
        label="Temperature",
        range=(0.0, 2.0),
        help="Scales all noise, of the start and on the way. Below 1: plainer pictures.",
    )
    model_preset: str = option(
        "", label="Configuration", help="A published one, for a file that does not describe itself."
    )

    @property
    def name(self) -> str:
        """Sampler and model, in short."""
        return f"{spec.kind(self.sampler)} on {self.model}"

    def job(self, recipe: RaceRecipe) -> SampleJob:
        """This lane alone, apart from its temperature."""
        return SampleJob(
            self.model,
            self.sampler,
            recipe.count,
            recipe.seed,
            self.classes,
            self.guidance,
            "",
            self.sde,
            self.model_preset,
        )


@dataclass(frozen=True)
class RaceRecipe:
    """All that shapes the pictures of a race."""

    kind: str = option("race", choices=("race",))
    lanes: tuple[Lane, ...] = ()
    count: int = option(4, label="Pictures", range=(1, MOST_PICTURES), help="In each lane.")
    seed: int = option(
        0, label="Seed", range=(0, 2**32 - 1), help="Picture i of every lane has the seed + i."
    )
    sync: str = option(
        "log_snr", label="Together in", choices=SYNCS, help="In what the lanes keep together."
    )

    def check(self) -> None:
        """Raise SpecError if it is no race."""
        spec.check(self)
        if not 1 <= len(self.lanes) <= _MOST_LANES:
            raise SpecError(
                f"A race has from 1 to {_MOST_LANES} lanes, not {len(self.lanes)}.",
                "Name two samplers or more.",
            )

    def depth(self) -> int:
        """How finely the path that the lanes share is resolved: as the one that wants it finest does."""
        wanted = [lane.sampler.depth for lane in self.lanes if lane.sampler.stochastic]
        return max(wanted, default=self.lanes[0].sampler.depth)


@dataclass(frozen=True)
class StopLane:
    """A message to a RaceJob: this lane ends as it is, the others go on."""

    lane: int


@dataclass(frozen=True)
class MeasureLane:
    """A message to a RaceJob: measure the bits per dimension of this lane's result when it is there."""

    lane: int


@dataclass(frozen=True)
class RaceJob:
    """A race. Its events tell their lane: Begun, then Picture, Metric, Progress and Standing, at the end
    Finished, or Failed, or a Standing that says "stopped". A Metric "distance a-b" belongs to lane a.
    """

    recipe: RaceRecipe
    bits: bool = False  # measure every result at the end of the race
    share: bool = True  # let lanes of one model share a batch where they stand at the same place

    def run(self, context: Context) -> Generator[Event, Any, None]:
        """Takes StopLane, MeasureLane and FinishWith. Raises SpecError before the first step if the
        lanes cannot race; what befalls one lane later is told as Failed."""
        self.recipe.check()
        yield Note("Loading the models" if len(self.recipe.lanes) > 1 else "Loading the model")
        race = _Race(self, context)
        try:
            yield from race.events()
        finally:
            race.close()


class _Race:
    """A race under way."""

    def __init__(self, job: RaceJob, context: Context) -> None:
        self._job, self._context = job, context
        self._runners = _runners(job, context)
        self._apart = Distances([r.score for r in self._runners], job.recipe.count)
        self._wanted: set[int] = set()  # lanes to be measured as soon as they can be

    def close(self) -> None:
        for runner in self._runners:
            runner.close()

    def events(self) -> Generator[Event, Any, None]:
        yield from self._told(Begun(r.run.trajectory, lane=r.index) for r in self._runners)
        while running := [r for r in self._runners if r.state == RUNNING]:
            if wished := [r for r in running if r.wishes]:
                for runner in wished:
                    yield from self._told(runner.obey())
                continue
            turn = behind(running, self._job.recipe.sync)
            due = self._context.wants_picture()
            together([r.strand for r in turn if r.strand is not None])
            for runner in turn:
                yield from self._told(self._step(runner, due))
            yield from self._measured()
        if self._job.bits:
            self._wanted |= {r.index for r in self._runners}
        yield from self._measured()

    def _step(self, runner: _Runner, due: bool) -> Iterator[Event]:
        """A step of one lane, and what it shows of the distances."""
        yield from runner.step(due)
        if (place := runner.place()) is not None:
            for snr, a, b, apart in self._apart.put(runner.index, *place):
                yield Metric(f"distance {a}-{b}", ((snr, apart),), lane=a)

    def _measured(self) -> Generator[Event, Any, None]:
        """The bits per dimension of those wanted lanes that have finished."""
        for lane in sorted(self._wanted):
            runner = self._runners[lane]
            if runner.state == RUNNING:
                continue
            self._wanted.discard(lane)
            if runner.state == FINISHED:
                yield from self._told(runner.measure())

    def _told(self, events: Iterable[Event]) -> Generator[Event, Any, None]:
        """Pass events on, and note what is said in answer; it is done between two turns."""
        for event in events:
            message = yield event
            lane = getattr(message, "lane", None)
            if not isinstance(lane, int) or not 0 <= lane < len(self._runners):
                continue
            if isinstance(message, MeasureLane):
                self._wanted.add(lane)
            elif isinstance(message, StopLane | FinishWith):
                self._runners[lane].wishes.append(message)


class _Runner:
    """A lane under way. It stands for the Context of its Watched, because whether a picture is due is
    asked once for all lanes of a turn: the first of them would take every picture from the others.
    """

    def __init__(self, index: int, job: RaceJob, context: Context, source: Score) -> None:
        self.index, self.lane = index, job.recipe.lanes[index]
        self.strand: Strand | None = Strand()
        self._recipe, self._alone = job.recipe, self.lane.job(job.recipe)
        self.score, self.sampler = _under(source, self.lane.sde), self.lane.sampler
        self.condition = self._alone.condition(self.score, context.device)
        self.noise = Noise.of(
            job.recipe.seed,
            job.recipe.count,
            source.shape,
            self.score.sde,
            device=context.device,
            depth=job.recipe.depth(),
            temperature=self.lane.temperature,
        )
        asked = _under(self.strand.score(source), self.lane.sde)
        steps: Iterator[Step] = self.sampler.run(asked, self.noise, self.condition)
        steps = self.strand.follow(steps)
        self.watch = Watch()
        self.run = Watched(cast("Context", self), self.score, steps, self.watch, index)
        self._changed = False
        self.run.trajectory.exact = not self.sampler.stochastic
        if self._could_be_alone:
            self.run.follow(Way(Leg(self._alone, self.score, self.noise, self.condition)))
        self.state, self.snr = RUNNING, self.run.trajectory.low
        self.bits: float | None = None
        self.wishes: list[StopLane | FinishWith] = []
        self._counts: dict[str, Tensor] = {}  # attempts of an adaptive solver
        self._places = [self.snr] * job.recipe.count
        self._due = False

    def wants_picture(self) -> bool:
        return self._due

    def close(self) -> None:
        if self.strand is not None:
            self.strand.close()

    def step(self, due: bool) -> Iterator[Event]:
        """The events of one step, with pictures if they are due. What a person can mend ends the lane,
        and is told; anything else is raised."""
        self._due = due
        try:
            yield from self._advance()
        except Exception as error:
            told = explained(error)
            if not isinstance(told, StudioError):
                raise
            self._end(FAILED)
            yield Failed(told.message, told.hint, lane=self.index)
            yield self.standing()

    def _advance(self) -> Iterator[Event]:
        if self.strand is not None:
            self.watch.seconds += self.strand.spent()
        told: Event | None = None
        while not isinstance(told, Progress):
            # The last Step of a run is a finished one, so there is a next until then.
            told = self.run.next()
            assert told is not None
            assert self.run.step is not None
            if isinstance(told, Progress):
                self.snr = told.log_snr
                if "accepted" in self.run.step.memory:
                    self._counts = self.run.step.memory
                if self._due:
                    yield self.standing()
            yield told
        assert self.run.step is not None
        if self.run.step.finished:
            self._end(FINISHED)
            yield self.standing()
            calls, seconds = self.watch.calls, self.watch.seconds
            yield Finished(self._result(), self._made_by(), calls, seconds, lane=self.index)

    def obey(self) -> Iterator[Event]:
        """Do the next thing that this lane was told to do."""
        wish = self.wishes.pop(0)
        if isinstance(wish, StopLane):
            self._end(STOPPED)
            yield self.standing()
            return
        try:
            if self.run.step is None:
                self.run.change(wish.sampler.run(self.score, self.noise, self.condition))
            else:
                self.run.continue_with(wish.sampler, self.noise, self.condition)
        except StudioError as error:
            yield Note(str(error), lane=self.index)
            return
        # What follows is asked directly, not through the strand.
        self.close()
        self.strand, self.sampler, self._changed = None, wish.sampler, True
        self.run.trajectory.recipe = {}  # which does not tell of this
        self.run.trajectory.exact &= not wish.sampler.stochastic
        yield Note(f"Finishing with {wish.sampler.title}", lane=self.index)

    def _end(self, state: str) -> None:
        self.state = state
        self.close()

    def standing(self) -> Standing:
        accepted, rejected = (
            float(self._counts[k].double().mean()) if k in self._counts else None
            for k in ("accepted", "rejected")
        )
        calls, seconds = self.watch.calls, self.watch.seconds
        return Standing(self.state, calls, seconds, accepted, rejected, self.bits, lane=self.index)

    def place(self) -> tuple[list[float], Tensor] | None:
        """After a step: the log-SNR at which each sample's denoised estimate was made, and these."""
        step, before = self.run.step, self._places
        if step is None or self.state == FAILED:
            return None
        if "t" in step.memory:
            times = step.memory["t"].cpu().double()
            self._places = self.score.sde.log_snr(times).tolist()
        else:
            self._places = [self.snr] * len(before)
        late = self.sampler.behind and not step.finished
        return before if late else self._places, step.denoised

    def measure(self) -> Iterator[Event]:
        """Bits per dimension of the result as 8-bit pictures, the mean over them."""
        yield Note(f"Measuring lane {self.index + 1}", lane=self.index)
        found: list[float] = []
        try:
            known = class_condition(
                self.score, self.lane.classes, self._recipe.count, self._recipe.seed
            )
            result = self._result()
            for first in range(0, len(result), _MEASURED):
                part = range(first, min(first + _MEASURED, len(result)))
                labelled, bits = known.of(part).guide(self.score), torch.zeros(0)
                seed = self._recipe.seed + first
                for step in QUICK.run(labelled, result[first : part.stop], seed):
                    bits = step.bits
                    yield self.standing()
                found += bits.tolist()
            self.bits = statistics.fmean(found)
        except Exception as error:
            told = explained(error)
            if not isinstance(told, StudioError):
                raise
            yield Note(str(told), lane=self.index)
        yield self.standing()

    def _result(self) -> np.ndarray:
        assert self.run.step is not None
        return pictures.to_pictures(self.run.step.x, self.score.value_range)

    def _made_by(self) -> dict[str, Any]:
        """The recipe that makes this lane's pictures again: of the lane alone where that is enough."""
        return spec.to_dict(self._alone if self._could_be_alone else self._recipe)

    @property
    def _could_be_alone(self) -> bool:
        """Whether this lane alone, without the race, would make the same pictures."""
        depth = not self.sampler.stochastic or self.noise.depth == self.sampler.depth
        return depth and self.lane.temperature == 1 and not self._changed


def _runners(job: RaceJob, context: Context) -> list[_Runner]:
    """The lanes at their start. Raises SpecError if two make pictures of different sizes."""
    lanes, sources = job.recipe.lanes, {}
    keys = [(lane.model, lane.model_preset) for lane in lanes]
    for key in dict.fromkeys(keys):
        loaded = context.shelf.load(key[0], context.device, context.dtype, key[1])
        sources[key] = interruptible(loaded, context)
        first, other = sources[keys[0]].shape, loaded.shape
        if first != other:
            one, two = (f"Lane {n + 1} ({keys[n][0]})" for n in (0, keys.index(key)))
            raise SpecError(
                f"{one} makes pictures of {_told_size(first)} and {two} of {_told_size(other)}.",
                "Let models race that make pictures of one size.",
            )
    # In a race by the clock nobody waits for another's call; copies of a score do not meet.
    meets = job.share and job.recipe.sync != "time"
    scores = [sources[key] if meets else replace(sources[key]) for key in keys]
    return [_Runner(i, job, context, score) for i, score in enumerate(scores)]


def _under(source: Score, sde: SDE | None) -> Score:
    return source if sde is None else source.under(sde)


def _told_size(shape: tuple[int, int, int]) -> str:
    c, h, w = shape
    return f"{w} × {h} pixels with {c} channel{'s' * (c != 1)}"


def behind(running: Sequence[_Runner], sync: str) -> list[_Runner]:
    """Those that go next: the one that is behind, and who stands at the same place."""
    if sync == "time":
        return [min(running, key=lambda r: r.watch.seconds)]
    if sync == "calls":
        least = min(r.watch.calls for r in running)
        return [r for r in running if r.watch.calls == least]
    least = min(r.snr for r in running)
    # Two SDEs come to the same level at times that are rounded differently.
    return [r for r in running if r.snr - least < 1e-4]


class Distances:
    """How far lanes are apart at marks of log-SNR, as estimates come in, in any order of lanes."""

    def __init__(self, scores: Sequence[Score], count: int, marks: int = _MARKS) -> None:
        self._ranges = [score.value_range for score in scores]
        ends = [log_snr_range(score) for score in scores]
        low, high = max(e[0] for e in ends), min(e[1] for e in ends)
        values = len(scores) * count * math.prod(scores[0].shape)
        marks = min(marks, max(8, _BUDGET // (4 * values))) if high > low else 0
        if len(scores) < 2:
            marks = 0
        self.marks = [low + (k + 0.5) * (high - low) / marks for k in range(marks)]
        self._last: dict[int, tuple[list[float], Tensor]] = {}
        self._whole: list[dict[int, Tensor]] = [{} for _ in self.marks]
        self._parts: dict[tuple[int, int], tuple[Tensor, set[int]]] = {}

    def put(
        self, lane: int, places: list[float], clean: Tensor
    ) -> list[tuple[float, int, int, float]]:
        """A lane's estimates (B, C, H, W), each made at its place in log-SNR. What that settles: (mark,
        lane a < lane b, distance). Between two estimates of a sample they change evenly."""
        before = self._last.get(lane)
        self._last[lane] = places, clean
        if before is None:
            return []
        first = bisect.bisect_right(self.marks, min(before[0]))
        end = bisect.bisect_right(self.marks, max(places))
        found: list[tuple[float, int, int, float]] = []
        for k in range(first, end):
            if (value := self._at(k, lane, before, places, clean)) is None:
                continue
            others = self._whole[k].items()
            found += [
                (self.marks[k], min(lane, o), max(lane, o), self._apart(lane, value, o, v))
                for o, v in others
            ]
            self._whole[k][lane] = value
            if len(self._whole[k]) == len(self._ranges):
                self._whole[k] = {}
        return found

    def _at(
        self,
        k: int,
        lane: int,
        before: tuple[list[float], Tensor],
        places: list[float],
        clean: Tensor,
    ) -> Tensor | None:
        """A lane's estimates at a mark; None while some are to come."""
        mark = self.marks[k]
        rows = [i for i, (p, q) in enumerate(zip(before[0], places)) if p < mark <= q]
        if not rows:
            return None
        shares = [(mark - before[0][i]) / (places[i] - before[0][i]) for i in rows]
        weights = clean.new_tensor(shares).reshape(-1, 1, 1, 1)
        every = len(rows) == len(clean)
        old, new = (before[1], clean) if every else (before[1][rows], clean[rows])
        value = torch.lerp(old, new, weights)
        if every:
            return value
        whole, filled = self._parts.pop((k, lane), (torch.zeros_like(clean), set()))
        whole[rows] = value
        filled |= set(rows)
        if len(filled) == len(clean):
            return whole
        self._parts[k, lane] = whole, filled
        return None

    def _apart(self, one: int, a: Tensor, other: int, b: Tensor) -> float:
        """How far the estimates a of lane `one` are from b of lane `other`, as a share of the range."""
        (low, high), (low_b, high_b) = self._ranges[one], self._ranges[other]
        if (low, high) != (low_b, high_b):
            b = low + (b - low_b) * ((high - low) / (high_b - low_b))
        return float(torch.linalg.vector_norm(a - b.to(a))) / (math.sqrt(a.numel()) * (high - low))


# -- what to let race -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProbeJob:
    """How long a network call of each lane takes. Ends with Done((seconds, …)), one for each lane."""

    lanes: tuple[Lane, ...]
    count: int = 4

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note("Measuring how long a network call takes")
        recipe, found = RaceRecipe(lanes=self.lanes, count=self.count), []
        recipe.check()
        for lane in self.lanes:
            job = lane.job(recipe)
            score = job.score(context)
            guided = job.condition(score, context.device).guide(score)
            found.append(seconds_per_call(guided, self.count))
            yield Note(f"{lane.name}: {1000 * found[-1]:.1f} ms a call")
        yield Done(tuple(found))


@no_grad
def seconds_per_call(score: Score, count: int, calls: int = 3) -> float:
    """The median over `calls` calls on `count` pictures, after one that does not count."""
    x = Noise.of(0, count, score.shape, score.sde, device=score.device).start()
    t, taken = x.new_full((count,), 0.5), []
    for _ in range(calls + 1):
        begun = time.perf_counter()
        float(score(x, t).sum())  # waits for the device
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[1:])


def lanes_of(model: str, names: Sequence[str]) -> tuple[Lane, ...]:
    """A lane for each sampler by its short name or preset. Raises SpecError for a name unknown."""
    made = [PRESETS[n][1] if n in PRESETS else spec.from_dict(Sampler, {"kind": n}) for n in names]
    return tuple(Lane(model, sampler) for sampler in made)


def same_calls(lanes: Sequence[Lane], calls: int) -> tuple[Lane, ...]:
    """The lanes with as many steps as `calls` network calls allow. A solver that chooses its own steps
    stays as it is. Guidance without a classifier asks the network twice."""
    each = [calls // 2 if lane.classes and lane.guidance != 1 else calls for lane in lanes]
    return tuple(replace(x, sampler=with_calls(x.sampler, n)) for x, n in zip(lanes, each))


def same_time(
    lanes: Sequence[Lane], seconds_per_call: Sequence[float], seconds: float
) -> tuple[Lane, ...]:
    """The lanes with as many steps as can be made in `seconds`, if a call of each lane takes as long as
    a ProbeJob found. A solver that chooses its own steps stays as it is."""
    each = [int(seconds / max(one, 1e-9)) for one in seconds_per_call]
    return tuple(replace(lane, sampler=with_calls(lane.sampler, n)) for lane, n in zip(lanes, each))


def paper_settings(lanes: Sequence[Lane]) -> tuple[Lane, ...]:
    """The lanes as in Song et al. 2021: 1000 steps even in time for those that take noise, tolerances of
    1e-5 for the flow, NCSNv2's levels for annealed Langevin dynamics; others stay as they are."""
    return tuple(replace(lane, sampler=_as_in_paper(lane.sampler)) for lane in lanes)


def with_calls(sampler: Sampler, calls: int) -> Sampler:
    """The sampler with as many steps as `calls` network calls allow, one at least."""
    known = {f.name: spec.about(f) for f in fields(sampler)}
    if "steps" not in known:
        return sampler
    one, two = (spec.replace(sampler, "steps", n).cost() for n in (1, 2))
    if one is None or two is None:
        return sampler
    most = (known["steps"].range or (1, 10_000))[1]
    steps = 1 + (calls - one) // (two - one)
    return spec.replace(sampler, "steps", int(max(1, min(steps, most))))


def _as_in_paper(sampler: Sampler) -> Sampler:
    if isinstance(sampler, Stepping) and sampler.stochastic:
        return replace(sampler, steps=1000, grid=UniformTime())
    if isinstance(sampler, DormandPrince):
        return replace(sampler, rtol=1e-5, atol=1e-5)
    if isinstance(sampler, AnnealedLangevinDynamics):
        return replace(sampler, levels="paper", repeats=5)
    return sampler
