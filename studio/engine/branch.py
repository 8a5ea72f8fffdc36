"""Branches: a run that leaves the way it was on, at a kept state, for another seed, sampler, class,
guidance, temperature or mask; and the tree of such runs.

A run is a row of *legs*. The first begins at noise; each branch ends one leg and begins the next. A job
names its branches, so its pictures come again from noise alone, or, at less cost, from the last state
that was kept before the last branch: to the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from studio import spec
from studio.diffusion.conditions import Condition
from studio.diffusion.flow import DormandPrince
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Sampler, Step
from studio.diffusion.score import Score, expand
from studio.diffusion.tasks import Task
from studio.engine.trajectory import Frame, State, Trajectory
from studio.errors import SpecError
from studio.spec import option

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from studio.engine.engine import Context
    from studio.engine.events import Event
    from studio.engine.jobs import SampleJob

_SAME = 1e-9  # times that differ by less, of themselves, are one time on two machines


@dataclass(frozen=True)
class Branch:
    """Where a run leaves the way it was on, and what is other from there; None is as before.

    A run comes to it with the first Step at or below time `t` that has at least this index.
    """

    t: float = option(1.0, label="Time", range=(0, 1))
    step: int = option(0, label="Step", range=(0, 10**6), help="Steps of the leg before it.")
    seed: int | None = option(
        None, label="Seed", range=(0, 2**32 - 1), help="Of the noise below this time."
    )
    sampler: Sampler | None = option(None, label="Sampler", help="Begins anew at this time.")
    classes: str | None = option(None, label="Class", help="Empty: any class.")
    guidance: float | None = option(None, label="Guidance", range=(0, 100))
    temperature: float | None = option(
        None,
        label="Temperature",
        range=(0, 2),
        help="Of the noise in the state and below: less looks plainer.",
    )
    task: Task | None = option(None, label="Task", help="Of a painting, from here on.")
    inputs: dict[str, str] = option(
        dict, label="Painted", help="Of a painting: what identifies mask and strokes from here on."
    )

    @property
    def conditioned(self) -> bool:
        """Whether what is known of the picture is other."""
        told = self.classes is not None or self.guidance is not None
        return told or self.task is not None or bool(self.inputs)

    def here(self, step: Step) -> bool:
        """Whether a run that has come to this Step leaves here."""
        # Both: time stands still for some samplers, and others are each at their own.
        return step.index >= self.step and 0 < step.t <= self.t * (1 + _SAME)


@dataclass(frozen=True)
class Leg:
    """A stretch of a run between two branches: what it is run with. `job` is as it is on this leg, for
    these samples alone; `begin` is the time at which its sampler began, if not at the usual one. A
    condition that `changes` by itself is that of every leg; else the job says what is known.
    """

    job: SampleJob
    score: Score
    noise: Noise
    condition: Condition
    begin: float | None = None
    changes: bool = False

    def steps(self) -> Iterator[Step]:
        """The Steps from noise on."""
        return self.job.sampler.run(self.score, self.noise, self.condition)

    def on(self, branch: Branch, t: float) -> Leg:
        """The leg after a branch that is taken at time t. Raises StudioError if it cannot be."""
        job = replace(
            self.job,
            sampler=branch.sampler or self.job.sampler,
            classes=self.job.classes if branch.classes is None else branch.classes,
            guidance=self.job.guidance if branch.guidance is None else branch.guidance,
        )
        condition = self.condition
        if branch.conditioned and not self.changes:
            condition = job.condition(self.score, self.noise.device)
        # One path at every depth, so a sampler that wants it finer may have it.
        noise = replace(self.noise, depth=max(self.noise.depth, job.sampler.depth))
        if branch.seed is not None:
            noise = noise.branch(t, branch.seed)
        if branch.temperature is not None:
            noise = replace(noise, temperature=branch.temperature)
        begin = t if self.anew(branch) else self.begin
        return Leg(job, self.score, noise, condition, begin, self.changes)

    def anew(self, branch: Branch) -> bool:
        """Whether the sampler begins anew at a branch, instead of going on."""
        if branch.sampler is not None:
            return True
        # It remembers a slope that would no longer be the slope there.
        changed = branch.conditioned or branch.temperature is not None
        return changed and isinstance(self.job.sampler, DormandPrince)

    def left(self, branch: Branch, step: Step) -> Iterator[Step]:
        """The Steps after a branch that is taken at this Step. Raises StudioError if it cannot be."""
        after = self.on(branch, step.t)
        step = replace(step, x=self._cooled(branch, step))
        run = after.job.sampler.run
        if not self.anew(branch):
            _check_memory(after.job.sampler, step)
            return run(after.score, after.noise, after.condition, None, after.begin, step)
        if "t" in step.memory and len(step.memory["t"].unique()) > 1:
            raise SpecError(
                "The pictures of this sampler are each at their own time.",
                "Let it run to its end, branch one picture alone, or change only the seed.",
            )
        return run(after.score, after.noise, after.condition, step.x, step.t)

    def _cooled(self, branch: Branch, step: Step) -> Tensor:
        """The state with its noise, what it has besides the denoised estimate, brought to the
        temperature of the branch."""
        if branch.temperature is None or self.noise.temperature == 0:
            return step.x
        t = step.memory.get("t", step.x.new_full((len(step.x),), step.t))
        mean = expand(self.score.sde.marginal(t)[0], step.x) * step.denoised
        return mean + (branch.temperature / self.noise.temperature) * (step.x - mean)


#: What a sampler cannot go on without.
_REMEMBERED = {"AdaptiveSDE": {"low", "clock"}, "DormandPrince": {"t", "h", "slope"}}


def _check_memory(sampler: Sampler, step: Step) -> None:
    if not _REMEMBERED.get(type(sampler).__name__, set()) <= step.memory.keys():
        raise SpecError("This state lacks what its sampler needs to go on.", "Branch elsewhere.")


class Way:
    """The legs of a run, one after another. `taken` are the branches that lie behind it; `told` makes
    of the job that leads here the recipe that does, empty if none can."""

    def __init__(
        self, leg: Leg, told: Callable[[SampleJob], dict[str, Any]] = spec.to_dict
    ) -> None:
        self.leg, self._told = leg, told
        self.taken: tuple[Branch, ...] = ()
        self.note = ""  # what is to be said of the branch taken last
        self._job, self._ahead = leg.job, list(leg.job.branches)

    @property
    def job(self) -> SampleJob:
        """The job that leads here and on to the end, for these samples alone."""
        return replace(self._job, branches=(*self.taken, *self._ahead))

    @property
    def recipe(self) -> dict[str, Any]:
        """What makes these samples as they are here, and goes on to the end."""
        return self._told(self.job)

    @property
    def missed(self) -> bool:
        """Whether branches are left that the run did not come to."""
        return bool(self._ahead)

    def here(self, step: Step) -> Branch | None:
        """The next branch, if it is to be taken at this Step."""
        return self._ahead[0] if self._ahead and self._ahead[0].here(step) else None

    def turn(self, branch: Branch, step: Step) -> tuple[bool, Iterator[Step]]:
        """Take a branch: whether its sampler begins anew, and its Steps. Raises StudioError."""
        anew, steps = self.leg.anew(branch), self.leg.left(branch, step)
        self._pass(branch, step.t)
        self.note = _said(branch, self.leg.job.sampler)
        return anew, steps

    def resume(self, state: State, part: range) -> tuple[int, Iterator[Step]]:
        """The Steps of a part of the samples after a kept state at which the last branch leaves, and how
        many network calls before it they count as theirs."""
        if state.items["x"].shape[1:] != self.leg.score.shape:
            raise SpecError("The model is not the one of this state: its pictures differ in shape.")
        if not self._ahead:
            raise SpecError("This recipe has no branch to go on with.")
        *before, last = self._ahead
        for branch in before:
            self._pass(branch, branch.t)
        anew, steps = self.turn(last, state.step(self.leg.noise.device, part))
        return (0 if anew else state.nfe), steps

    def leave(self, branch: Branch) -> None:
        """Put a branch here, before those that lie ahead, which are not taken any more."""
        self._ahead = [branch]

    def _pass(self, branch: Branch, t: float) -> None:
        self.leg = self.leg.on(branch, t)
        self.taken = (*self.taken, branch)
        self._ahead = self._ahead[1:]


def _said(branch: Branch, sampler: Sampler) -> str:
    if branch.seed is not None and not sampler.stochastic:
        return f"{sampler.title} draws no noise: another seed changes nothing below the start"
    return ""


# -- as a job ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BranchJob:
    """Goes on from a kept state to the end. `recipe` makes the same pictures from nothing; its last
    branch leaves at the state."""

    recipe: SampleJob
    state: State

    def run(self, context: Context) -> Generator[Event, Any, None]:
        """Events as those of a SampleJob; calls and seconds are of this run alone."""
        return self.recipe.made(context, self.state)


def branched(trajectory: Trajectory, log_snr: float, **changes: Any) -> BranchJob:
    """A branch from the last state kept at or above the noise of a log-SNR. `changes` are fields of a
    Branch. Raises SpecError, with the reason, if there can be none.
    """
    from studio.engine.jobs import SampleJob

    state = trajectory.state_before(log_snr)
    if not trajectory.recipe or "kind" in trajectory.recipe:
        raise SpecError("Only runs that sample from noise can be branched.")
    if state is None:
        raise SpecError(
            "No state of this run was kept so early.", "Branch at a later moment of the run."
        )
    job = spec.from_dict(SampleJob, trajectory.recipe)
    branch = Branch(state.t, state.index, **changes)
    if branch == Branch(state.t, state.index):
        raise SpecError("Nothing is other on this branch.", "Change the seed, or another setting.")
    job = replace(job, branches=(*job.branches[: state.leg], branch))
    spec.check(job)
    return BranchJob(job, state)


# -- the tree ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Node:
    """A run in a Tree: where it left its parent, and what came of it."""

    id: int
    parent: int | None
    log_snr: float
    label: str
    row: int  # where it is drawn: each node has a row of its own
    trajectory: Trajectory | None = None
    result: Any = None  # the Finished event, when there is one
    thumbnail: np.ndarray | None = None


@dataclass
class Tree:
    """Runs that share their past. A node holds only what is its own, so that the past is drawn once."""

    nodes: list[Node] = field(default_factory=list)

    def add(
        self,
        label: str,
        trajectory: Trajectory | None = None,
        parent: int | None = None,
        log_snr: float | None = None,
    ) -> Node:
        """A run that left `parent` at a log-SNR; without a parent, one from noise."""
        low = trajectory.low if trajectory else 0.0
        left = low if log_snr is None else log_snr
        node = Node(len(self.nodes), parent, left, label, len(self.nodes), trajectory)
        self.nodes = [*self.nodes, node]
        return node

    def update(self, id: int, **values: Any) -> Node:
        """A node with other values: its trajectory once it begins, its result once it ends."""
        node = replace(self.nodes[id], **values)
        self.nodes = [*self.nodes[:id], node, *self.nodes[id + 1 :]]
        return node

    def children(self, id: int | None) -> list[Node]:
        return [n for n in self.nodes if n.parent == id]

    def past(self, id: int) -> list[Node]:
        """The nodes from the first run to this one."""
        node = self.nodes[id]
        return [*([] if node.parent is None else self.past(node.parent)), node]

    def frames(self, id: int) -> list[Frame]:
        """The frames that lead from noise to the end of a run, those of the shared past included."""
        found: list[Frame] = []
        row = self.past(id)
        for node, after in zip(row, [*row[1:], None]):
            own = node.trajectory.frames if node.trajectory else []
            found += [f for f in own if after is None or f.log_snr <= after.log_snr]
        return found

    def nearest(self, id: int, log_snr: float) -> Frame | None:
        """The frame of a run's whole way closest to a log-SNR."""
        return min(self.frames(id), key=lambda f: abs(f.log_snr - log_snr), default=None)

    def lines(self) -> list[tuple[int, float, float, int]]:
        """What to draw, once each: (row, from, to, row that it leaves), in log-SNR. The first run's
        row is left by itself."""
        found = []
        for node in self.nodes:
            frames = node.trajectory.frames if node.trajectory else []
            end = frames[-1].log_snr if frames else node.log_snr
            start = node.row if node.parent is None else self.nodes[node.parent].row
            found.append((node.row, node.log_snr, max(node.log_snr, end), start))
        return found
