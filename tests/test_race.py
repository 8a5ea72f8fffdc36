"""Races: one start for all, nobody gets ahead, calls made together, and what befalls a single lane."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gaussian_score, mixture_score, tiny_network
from greenlet import getcurrent, greenlet

from studio import spec
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Step
from studio.diffusion.score import Preconditioned, Score, network_score
from studio.diffusion.sde import VESDE, VPSDE, SubVPSDE
from studio.engine.engine import Engine, Stopped
from studio.engine.events import (
    Begun,
    Done,
    Failed,
    Finished,
    Metric,
    Note,
    Picture,
    Progress,
    Standing,
)
from studio.engine.jobs import FinishWith, SampleJob, Setting
from studio.engine.lockstep import Strand, together
from studio.engine.race import (
    Lane,
    MeasureLane,
    ProbeJob,
    RaceJob,
    RaceRecipe,
    StopLane,
    lanes_of,
    paper_settings,
    same_calls,
    same_time,
)
from studio.errors import SpecError
from studio.weights.shelf import Shelf

SHAPE = (3, 8, 8)
pytestmark = pytest.mark.usefixtures("one_thread")


class Models:
    """A shelf of scores by name."""

    def __init__(self, **scores: Score) -> None:
        self.scores = scores

    def load(self, source: str, device: str, dtype: str, preset: str = "") -> Score:
        return self.scores[source]


def setting(score: Score | None = None, rate: float = 0, **more: Score) -> Setting:
    exact = score or gaussian_score(VPSDE(), 0.5, SHAPE)
    return Setting(Models(exact=exact, **more), "cpu", rate=rate)


def lane(sampler: str, model: str = "exact", **options: Any) -> Lane:
    of_lane = {k: options.pop(k) for k in ("sde", "temperature", "classes") if k in options}
    return Lane(model, SAMPLERS[sampler](**options), **of_lane)


def race(*lanes: Lane, count: int = 2, seed: int = 3, sync: str = "log_snr", **how: Any) -> RaceJob:
    return RaceJob(RaceRecipe(lanes=lanes, count=count, seed=seed, sync=sync), **how)


def told(job: RaceJob, where: Setting | None = None, **messages: Any) -> list[Any]:
    """All events of a job. A message is sent in answer to the first Progress of step `after`."""
    run, events, answer = job.run(where or setting()), [], None
    while True:
        try:
            event = run.send(answer)
        except StopIteration:
            return events
        events.append(event)
        answer = None
        if isinstance(event, Progress) and event.step == messages.get("after"):
            answer = messages.pop("message", None)


def results(events: list[Any]) -> dict[int, np.ndarray]:
    return {e.lane: e.pictures for e in events if isinstance(e, Finished)}


def alone(job: RaceJob, index: int, where: Setting | None = None) -> np.ndarray:
    return list(job.recipe.lanes[index].job(job.recipe).run(where or setting()))[-1].pictures


def apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def curve(events: list[Any], name: str = "distance 0-1") -> list[tuple[float, float]]:
    return [p for e in events if isinstance(e, Metric) and e.name == name for p in e.points]


def network(**changes: Any) -> Score:
    net = tiny_network(**changes)
    return network_score(net, Preconditioned(), VPSDE(), SHAPE, classes=("cat", "dog"))


def strands() -> list[greenlet]:
    """Stacks that something is still held on."""
    return [o for o in gc.get_objects() if type(o) is greenlet and o and o is not getcurrent()]


@pytest.fixture(autouse=True)
def no_stack_is_left() -> Iterator[None]:
    yield
    assert not strands()


# -- one start ------------------------------------------------------------------------------------


def test_every_lane_is_the_run_it_would_be_alone() -> None:
    job = race(lane("pc", steps=20), lane("rk45"), lane("dpm2m", steps=12), lane("ald", steps=9))
    made = results(told(job))
    assert sorted(made) == [0, 1, 2, 3]
    for index, shown in made.items():
        assert apart(shown, alone(job, index)) == 0


def test_lanes_start_from_one_noise_whatever_their_sde() -> None:
    lanes = [lane("heun", steps=40, sde=sde) for sde in (VPSDE(), VESDE(), SubVPSDE())]
    made = results(told(race(*lanes)))
    # The flow of a Gaussian scales the start: one noise has one picture, whatever the way to it.
    assert apart(made[0], made[1]) <= 4
    assert apart(made[0], made[2]) <= 4


def test_lanes_that_take_noise_follow_one_path() -> None:
    score = mixture_score(VPSDE(), (-0.6, 0.6), 0.1, (0.5, 0.5), SHAPE)
    coarse, fine = lane("ancestral", steps=60), lane("em", steps=150)
    made = results(told(race(coarse, fine), setting(score)))
    other = results(told(race(coarse, seed=90), setting(score)))[0]
    same = np.abs(made[0].astype(int) - made[1]).mean()
    assert same < np.abs(made[0].astype(int) - other).mean() / 3


def test_temperature_scales_the_start_and_the_noise_on_the_way() -> None:
    # Of a Gaussian, every sampler is linear in its noise: half of it all is half of the picture.
    for name in ("ancestral", "pc", "euler"):
        noise = Noise.of(0, 2, SHAPE, VPSDE(), dtype=torch.float64, depth=8)
        cool = replace(noise, temperature=0.5)
        score = gaussian_score(VPSDE(), 0.5, SHAPE)
        sampler = SAMPLERS[name](steps=5)
        whole, half = ([*sampler.run(score, n)][-1].x for n in (noise, cool))
        torch.testing.assert_close(half, whole / 2)
        torch.testing.assert_close(cool.alone(1).fresh(0.5, 3), noise.alone(1).fresh(0.5, 3) / 2)
        torch.testing.assert_close(
            cool.branch(0.5, 1).increment(0.6, 0.4), noise.branch(0.5, 1).increment(0.6, 0.4) / 2
        )


def test_a_cool_lane_varies_less() -> None:
    made = results(told(race(lane("pc", steps=20), lane("pc", steps=20, temperature=0.5), count=8)))
    assert made[1].std() == pytest.approx(made[0].std() / 2, rel=0.1)


# -- together -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", ["log_snr", "calls", "time"])
def test_the_lane_that_is_behind_goes_next(sync: str) -> None:
    events = told(race(lane("pc", steps=40), lane("heun", steps=10), lane("rk45"), sync=sync))
    where = {"log_snr": "log_snr", "calls": "calls", "time": "seconds"}[sync]
    stands: dict[int, float] = {}
    done: set[int] = set()
    for event in events:
        if isinstance(event, Finished):
            done.add(event.lane)
        if isinstance(event, Progress):
            # Nobody steps who is ahead of a runner, but for those who began the turn level with him.
            before = stands.get(event.lane, -math.inf)
            others = [v for k, v in stands.items() if k not in done and k != event.lane]
            assert all(before <= other + 1e-4 for other in others)
            stands[event.lane] = getattr(event, where)
    assert done == {0, 1, 2}


def test_a_lane_that_finishes_early_waits_finished() -> None:
    events = told(race(lane("ancestral", steps=4), lane("ancestral", steps=40), sync="calls"))
    end = next(i for i, e in enumerate(events) if isinstance(e, Finished))
    assert events[end].lane == 0
    assert events[end].calls == 5
    assert {e.lane for e in events[end + 1 :] if isinstance(e, Progress)} == {1}
    standings = [e.state for e in events if isinstance(e, Standing) and e.lane == 0]
    assert standings[-1] == "finished"


def test_when_pictures_are_due_every_lane_shows_one() -> None:
    job = race(lane("pc", steps=30), lane("ancestral", steps=30), lane("euler", steps=30))
    events = told(job, setting(rate=1e9))
    shown = [sum(isinstance(e, Picture) and e.lane == i for e in events) for i in range(3)]
    assert shown == [31, 31, 31]


def test_every_lane_keeps_a_trajectory_of_its_own() -> None:
    begun = [e for e in told(race(lane("pc", steps=9), lane("rk45"))) if isinstance(e, Begun)]
    assert [e.lane for e in begun] == [0, 1]
    assert begun[0].trajectory is not begun[1].trajectory
    assert all(e.trajectory.frames[-1].log_snr == e.trajectory.high for e in begun)


# -- the scoreboard -------------------------------------------------------------------------------


def test_the_scoreboard_counts_calls_seconds_and_attempts() -> None:
    events = told(race(lane("pc", steps=10), lane("rk45"), lane("adaptive")))
    last = {e.lane: e for e in events if isinstance(e, Standing)}
    assert last[0].calls == 21
    assert (last[0].accepted, last[0].rejected) == (None, None)
    assert all(e.seconds > 0 for e in last.values())
    tried = last[1].accepted + last[1].rejected
    assert 0 < tried <= (last[1].calls - 2) / 6  # six new slopes an attempt, one first, Tweedie's
    assert last[2].accepted > 0


def test_the_flow_tells_which_of_its_steps_were_taken() -> None:
    score = gaussian_score(VPSDE(), 0.05, SHAPE)
    steps = list(SAMPLERS["rk45"]().run(score, Noise.of(0, 3, SHAPE, VPSDE())))[:-1]
    times = torch.stack([torch.ones(3), *[s.memory["t"] for s in steps]])
    assert (times.diff(dim=0) != 0).sum(0).tolist() == steps[-1].memory["accepted"].tolist()
    tried = (times[:-1] > times[-1]).sum(0)
    both = steps[-1].memory["accepted"] + steps[-1].memory["rejected"]
    assert both.tolist() == tried.tolist()
    resumed = list(
        SAMPLERS["rk45"]().run(score, Noise.of(0, 3, SHAPE, VPSDE()), resume=steps[len(steps) // 2])
    )
    assert resumed[-2].memory["rejected"].tolist() == steps[-1].memory["rejected"].tolist()


def test_two_lanes_alike_are_nowhere_apart() -> None:
    found = curve(told(race(lane("euler", steps=20), lane("euler", steps=20), sync="calls")))
    assert len(found) == 48
    assert max(d for _, d in found) < 1e-6


def test_two_exact_solvers_of_one_flow_are_nearly_nowhere_apart() -> None:
    # The estimates of one are made where its steps begin, of the other where they end.
    lanes = lane("heun", steps=24), lane("rk45", rtol=1e-7, atol=1e-7)
    assert max(d for _, d in curve(told(race(*lanes)))) < 0.02


@pytest.mark.parametrize("sync", ["log_snr", "calls"])
def test_the_distance_is_that_of_the_estimates_at_the_same_log_snr(sync: str) -> None:
    # From one noise the flow of N(m, v) leads to a D that is known: D = m + v k z, of two models.
    sde, one, two = VPSDE(), 0.5, 0.25
    scores = {"other": gaussian_score(sde, two, SHAPE, mean=0.3)}
    lanes = lane("heun", steps=60), lane("rk45", model="other", rtol=1e-7, atol=1e-7)
    events = told(
        race(*lanes, sync=sync, count=3), setting(gaussian_score(sde, one, SHAPE), **scores)
    )
    z = Noise.of(3, 3, SHAPE, sde, dtype=torch.float64).start()
    a1, s1 = (float(v) for v in sde.marginal(torch.ones(1, dtype=torch.float64)))
    for snr, distance in curve(events)[2:]:
        gap = sde.log_snr(torch.linspace(sde.eps, 1, 100_001, dtype=torch.float64)) - snr
        t = torch.linspace(sde.eps, 1, 100_001, dtype=torch.float64)[gap.abs().argmin()]
        a, s = (float(v) for v in sde.marginal(t[None]))

        def clean(std: float, mean: float, a: float = a, s: float = s) -> torch.Tensor:
            start = (z - a1 * mean) / math.hypot(a1 * std, s1)
            return mean + a * std**2 / math.hypot(a * std, s) * start

        wanted = float((clean(one, 0) - clean(two, 0.3)).pow(2).mean().sqrt()) / 2
        assert distance == pytest.approx(wanted, abs=0.01)


def test_bits_per_dimension_are_measured_on_request() -> None:
    exact = gaussian_score(VPSDE(), 0.25, SHAPE)
    events = told(race(lane("rk45"), lane("euler", steps=9), bits=True), setting(exact))
    last = {e.lane: e for e in events if isinstance(e, Standing)}
    # Of a Gaussian of deviation 32 shades: its entropy, about.
    wanted = 0.5 * math.log2(2 * math.pi * math.e * (0.25 * 128) ** 2)
    assert last[0].bits == pytest.approx(wanted, abs=0.3)
    assert last[1].bits is not None


def test_one_lane_can_be_measured_as_soon_as_it_is_there() -> None:
    job = race(lane("euler", steps=4), lane("euler", steps=30), sync="calls")
    events = told(job, after=2, message=MeasureLane(0))
    measured = next(i for i, e in enumerate(events) if isinstance(e, Standing) and e.bits)
    assert events[measured].lane == 0
    assert any(isinstance(e, Finished) and e.lane == 1 for e in events[measured:])


def test_a_model_without_likelihood_says_so_and_the_race_goes_on() -> None:
    steps = replace(gaussian_score(VPSDE(), 0.5, SHAPE), continuous=False)
    events = told(race(lane("euler", steps=4), lane("pc", steps=4), bits=True), setting(steps))
    assert sum("likelihood" in e.text for e in events if isinstance(e, Note)) == 2
    assert len(results(events)) == 2


# -- one lane -------------------------------------------------------------------------------------


def test_stopping_one_lane_leaves_the_others() -> None:
    job = race(lane("pc", steps=20), lane("pc", steps=20), lane("ancestral", steps=20))
    events = told(job, after=5, message=StopLane(1))
    made = results(events)
    assert sorted(made) == [0, 2]
    assert apart(made[0], alone(job, 0)) <= 1
    assert [e.state for e in events if isinstance(e, Standing) and e.lane == 1] == ["stopped"]
    assert max(e.step for e in events if isinstance(e, Progress) and e.lane == 1) <= 6


def test_a_lane_that_waits_ahead_of_the_others_is_stopped_at_once() -> None:
    job = race(lane("ancestral", steps=2), lane("pc", steps=50))
    events = told(job, after=1, message=StopLane(0))
    stopped = next(i for i, e in enumerate(events) if isinstance(e, Standing))
    assert sum(isinstance(e, Progress) and e.lane == 1 for e in events[:stopped]) <= 1


@pytest.mark.parametrize("share", [True, False])
def test_a_lane_that_diverges_says_so_and_leaves_the_others(share: bool) -> None:
    def fn(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = VPSDE().marginal(t)
        good = -x / ((a * 0.5) ** 2 + s**2).reshape(-1, 1, 1, 1)
        return torch.where(x.abs().flatten(1).amax(1).reshape(-1, 1, 1, 1) > 8, torch.nan, good)

    score = Score.from_function(fn, VPSDE(), SHAPE)
    hot = lane("ancestral", steps=20, temperature=2.0)
    hot = replace(
        hot,
        sampler=SAMPLERS["pc"](
            steps=20,
            corrector=spec.from_dict(
                type(SAMPLERS["pc"]().corrector).__bases__[0], {"kind": "langevin", "snr": 1.0}
            ),
        ),
    )
    events = told(race(lane("euler", steps=20), hot, share=share), setting(score))
    failed = [e for e in events if isinstance(e, Failed)]
    assert [e.lane for e in failed] == [1]
    assert "diverged" in failed[0].message
    assert failed[0].hint
    assert sorted(results(events)) == [0]
    states = [e.state for e in events if isinstance(e, Standing) and e.lane == 1]
    assert states[-1] == "failed"


def test_a_fault_of_ours_is_no_lanes_misfortune() -> None:
    def fn(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    score = Score.from_function(fn, VPSDE(), SHAPE)
    with pytest.raises(ZeroDivisionError):
        told(race(lane("euler", steps=4), lane("pc", steps=4)), setting(score))


def test_a_lane_can_be_finished_with_another_sampler() -> None:
    job = race(lane("pc", steps=100), lane("pc", steps=40))
    events = told(job, after=5, message=FinishWith(SAMPLERS["dpm2m"](steps=7), lane=0))
    calls = {e.lane: e.calls for e in events if isinstance(e, Finished)}
    assert calls[1] == 81
    assert 5 * 2 + 8 <= calls[0] <= 6 * 2 + 8
    recipe = next(e.recipe for e in events if isinstance(e, Finished) and e.lane == 0)
    assert recipe["kind"] == "race"


# -- calls made together --------------------------------------------------------------------------


class Counted:
    """A score that notes the size of every batch."""

    def __init__(self, score: Score) -> None:
        self.batches: list[int] = []
        inner = score.conditional
        assert inner is not None
        self.score = replace(
            score, fn=self._noting(score.fn), conditional=lambda y: self._noting(inner(y))
        )

    def _noting(self, fn: Any) -> Any:
        def call(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.batches.append(len(x))
            return fn(x, t)

        return call


@pytest.mark.parametrize("classes", ["", "dog"])
def test_lanes_at_one_place_share_a_batch_and_their_pictures_do_not_change(classes: str) -> None:
    score = Counted(network())
    lanes = [lane(n, steps=6, classes=classes) for n in ("pc", "ancestral", "dpm2m")]
    shared = told(race(*lanes), setting(score.score))
    # Six levels and Tweedie's for all three at once, and the second call of pc at each level alone.
    assert score.batches == [6, 2] * 6 + [6]
    separate = told(race(*lanes, share=False), setting(score.score))
    for index, made in results(shared).items():
        assert apart(made, results(separate)[index]) <= 1
    calls = [
        {e.lane: e.calls for e in events if isinstance(e, Finished)}
        for events in (shared, separate)
    ]
    assert calls[0] == calls[1] == {0: 13, 1: 7, 2: 7}


def test_states_of_shared_calls_are_those_of_separate_ones() -> None:
    score, noise = network(), Noise.of(0, 2, SHAPE, VPSDE())
    samplers = [SAMPLERS["pc"](steps=5), SAMPLERS["heun"](steps=5), SAMPLERS["rk45"]()]
    alone = [list(s.run(score, noise)) for s in samplers]
    held = [Strand() for _ in samplers]
    for strand, sampler in zip(held, samplers):
        strand.follow(sampler.run(strand.score(score), noise))
    made: list[list[Step]] = [[] for _ in held]
    for _ in range(max(map(len, alone))):
        together(held)
        for steps, strand in zip(made, held):
            steps += [step] if (step := next(strand, None)) is not None else []
    for strand in held:
        strand.close()
    for one, other in zip(alone, made):
        assert len(one) == len(other)
        torch.testing.assert_close(one[-1].x, other[-1].x, rtol=1e-3, atol=1e-4)
        assert not other[-1].x.requires_grad


def test_lanes_of_two_sdes_of_one_model_share_a_batch() -> None:
    score = Counted(network())
    lanes = lane("euler", steps=5), lane("euler", steps=5, sde=VPSDE(beta_max=12.0))
    told(race(*lanes, sync="calls"), setting(score.score))
    assert score.batches == [4] * 6


def test_lanes_of_two_models_share_nothing() -> None:
    one, two = Counted(network()), Counted(network())
    lanes = lane("euler", steps=3), lane("euler", steps=3, model="other")
    told(race(*lanes), setting(one.score, other=two.score))
    assert one.batches == two.batches == [2] * 4


def test_what_does_not_fit_together_is_asked_one_after_the_other() -> None:
    counted = Counted(network())

    def small(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return counted.score.fn(x, t)

    score = replace(counted.score, fn=small)
    assert (
        len(results(told(race(lane("euler", steps=3), lane("pc", steps=3)), setting(score)))) == 2
    )


def test_a_strand_gives_its_items_its_end_and_then_nothing() -> None:
    strand = Strand().follow(iter([1, 2]))  # type: ignore[arg-type]
    assert list(strand) == [1, 2]
    assert list(strand) == []
    strand.close()


def test_an_error_of_the_network_rises_in_the_one_who_asked() -> None:
    caught: list[str] = []

    def steps(score: Score) -> Iterator[Any]:
        try:
            yield score(torch.zeros(1, *SHAPE), torch.ones(1))
        except ValueError as error:
            caught.append(str(error))
            yield "went on"

    def fn(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    strand = Strand()
    strand.follow(steps(strand.score(Score.from_function(fn, VPSDE(), SHAPE))))
    assert list(strand) == ["went on"]
    assert caught == ["no"]


def test_closing_a_strand_runs_the_finally_of_what_it_held() -> None:
    closed: list[str] = []

    def steps(score: Score, name: str) -> Iterator[Any]:
        try:
            yield 0
            yield score(torch.zeros(1, *SHAPE), torch.ones(1))
        finally:
            closed.append(name)

    idle, asking = Strand(), Strand()
    for strand, name in ((idle, "idle"), (asking, "asking")):
        strand.follow(steps(strand.score(gaussian_score(VPSDE(), 1, SHAPE)), name))
        next(strand)
    asking.resume()  # now it waits for an answer
    for strand in (idle, asking, asking):
        strand.close()
    assert closed == ["idle", "asking"]
    assert list(idle) == []


def test_a_strand_keeps_the_owners_grad_mode() -> None:
    seen: list[bool] = []

    def steps() -> Iterator[Any]:
        for _ in range(2):
            seen.append(torch.is_grad_enabled())
            yield 0

    with torch.no_grad():
        list(Strand().follow(steps()))
    assert seen == [False, False]
    assert torch.is_grad_enabled()


def test_a_gradient_is_taken_where_it_is_asked_for() -> None:
    def steps(score: Score) -> Iterator[Any]:
        x = torch.ones(1, *SHAPE, requires_grad=True)
        (slope,) = torch.autograd.grad(score(x, torch.ones(1)).sum(), x)
        yield float(slope.mean())

    strand = Strand()
    strand.follow(steps(strand.score(gaussian_score(VPSDE(), 1, SHAPE))))
    assert list(strand) == [pytest.approx(-1.0)]


# -- ending ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 2, 3, 10])
def test_closing_the_job_ends_every_lane(after: int) -> None:
    run = race(lane("pc", steps=50), lane("pc", steps=50), lane("heun", steps=50)).run(
        setting(network())
    )
    for _ in range(after):
        next(run)
    run.close()
    assert not strands()


def test_a_stop_reaches_a_race_in_the_middle_of_a_step() -> None:
    where = setting(network())
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise Stopped

    where.check = check  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        told(race(lane("pc", steps=50), lane("heun", steps=50)), where)
    assert asked == 4
    assert not strands()


def test_a_race_in_the_engine_can_be_paused_stopped_and_leaves_no_stack() -> None:
    async def work() -> list[str]:
        engine = Engine(setting(network(), rate=1e9))
        run = engine.start(race(lane("pc", steps=900), lane("heun", steps=900)))
        seen = []
        async for event in run:
            seen.append(type(event).__name__)
            if seen.count("Progress") == 4:
                run.send(StopLane(0))
            if isinstance(event, Standing) and event.state == "stopped":
                run.stop()
        await engine.close()
        return seen

    assert "Picture" in asyncio.run(work())
    assert not strands()


# -- settings -------------------------------------------------------------------------------------


def test_a_recipe_with_lanes_becomes_json_and_comes_back() -> None:
    import json

    recipe = race(lane("pc", steps=7, sde=VESDE()), lane("rk45", temperature=0.5)).recipe
    data = json.loads(json.dumps(spec.to_dict(recipe)))
    assert data["kind"] == "race"
    assert data["lanes"][1]["sampler"]["kind"] == "rk45"
    assert spec.from_dict(RaceRecipe, data) == recipe


def test_a_wrong_value_in_a_lane_is_refused() -> None:
    with pytest.raises(SpecError, match="Temperature"):
        spec.check(RaceRecipe(lanes=(lane("rk45"), lane("pc", temperature=7))))
    with pytest.raises(SpecError, match="no setting"):
        spec.from_dict(RaceRecipe, {"lanes": [{"samplers": "pc"}]})
    with pytest.raises(SpecError):
        spec.from_dict(RaceRecipe, {"lanes": "pc"})


@pytest.mark.parametrize("count", [0, 9])
def test_a_race_has_one_to_eight_lanes(count: int) -> None:
    with pytest.raises(SpecError, match="lanes"):
        told(race(*[lane("pc", steps=2)] * count))


def test_models_of_different_sizes_do_not_race() -> None:
    where = setting(other=gaussian_score(VPSDE(), 0.5, (1, 16, 16)))
    lanes = lane("pc", steps=2), lane("pc", steps=3), lane("rk45", model="other")
    with pytest.raises(SpecError) as refused:
        told(race(*lanes), where)
    for word in ("Lane 1", "exact", "8 × 8", "Lane 3", "other", "16 × 16", "1 channel"):
        assert word in refused.value.message


def test_models_of_other_channels_do_not_race() -> None:
    where = setting(other=gaussian_score(VPSDE(), 0.5, (1, 8, 8)))
    with pytest.raises(SpecError, match=r"with 3 channels and .* with 1 channel"):
        told(race(lane("pc", steps=2), lane("rk45", model="other")), where)


def test_the_recipe_of_a_lane_makes_its_pictures_again(tiny_checkpoint: Path) -> None:
    here = Setting(Shelf(), "cpu", rate=0)
    model = str(tiny_checkpoint)
    job = race(
        lane("ancestral", model=model, steps=5),
        lane("em", model=model, steps=6, temperature=0.8),
    )
    for event in told(job, here):
        if isinstance(event, Finished):
            kind = RaceRecipe if event.recipe.get("kind") == "race" else SampleJob
            made = spec.from_dict(kind, event.recipe)
            again = list((RaceJob(made) if kind is RaceRecipe else made).run(here))
            finished = [e for e in again if isinstance(e, Finished) and e.lane in (0, event.lane)]
            assert apart(finished[-1].pictures, event.pictures) <= 1


def test_same_calls_gives_every_lane_the_steps_for_them() -> None:
    lanes = same_calls(lanes_of("exact", ["pc", "heun", "dpm2m", "ald", "rk45"]), 61)
    assert [x.sampler.cost() for x in lanes] == [61, 61, 61, 61, None]
    assert same_calls(lanes[:1], 0)[0].sampler.cost() == 3  # one step at least
    assert lanes[4] == lanes_of("exact", ["rk45"])[0]


def test_same_time_gives_a_slow_model_fewer_steps() -> None:
    lanes = same_time(lanes_of("exact", ["dpm2m", "dpm2m", "pc"]), (0.1, 0.2, 0.1), 4.2)
    assert [x.sampler.steps for x in lanes] == [41, 20, 20]


def test_paper_settings_are_those_of_the_paper() -> None:
    lanes = paper_settings(lanes_of("exact", ["pc", "rk45", "euler", "ancestral"]))
    assert lanes[0].sampler.cost() == 2001
    assert (lanes[1].sampler.rtol, lanes[1].sampler.atol) == (1e-5, 1e-5)
    assert lanes[2] == lanes_of("exact", ["euler"])[0]
    assert spec.kind(lanes[3].sampler.grid) == "time"


def test_a_probe_finds_the_seconds_of_a_call_in_each_lane() -> None:
    events = list(ProbeJob((lane("pc"), lane("rk45")), count=2).run(setting(network())))
    assert isinstance(events[-1], Done)
    assert len(events[-1].value) == 2
    assert all(0 < s < 1 for s in events[-1].value)


def test_a_name_nobody_knows_gets_a_hint() -> None:
    with pytest.raises(SpecError, match="heun"):
        lanes_of("exact", ["pc", "heunn"])
