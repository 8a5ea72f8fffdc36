"""The worker's contract, tried with jobs that compute nothing."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from studio.engine.engine import ENDED, PAUSED, Engine
from studio.engine.events import Finished, Metric, Note, Picture, Progress
from studio.engine.jobs import Setting
from studio.engine.trajectory import Frame
from studio.errors import DeviceError, StudioError


def a_frame(step: int = 0) -> Frame:
    blank = np.zeros((1, 2, 2, 3), np.uint8)
    return Frame(float(step), step, step, blank, blank, blank[..., :1], blank[..., :1])


@dataclass
class Counting:
    """Yields Progress until it is closed; keeps what it was sent and how it ended."""

    total: int = 10**9
    sent: list[Any] = field(default_factory=list)
    closed: bool = False
    at: int = 0

    def run(self, context: Any):
        try:
            while self.at < self.total:
                self.at += 1
                message = yield Progress(self.at, self.total)
                if message is not None:
                    self.sent.append(message)
        finally:
            self.closed = True


@dataclass
class Failing:
    error: BaseException

    def run(self, context: Any):
        yield Note("about to fail")
        raise self.error


@dataclass
class Telling:
    events: list[Any]

    def run(self, context: Any):
        yield from self.events


def trying(work: Any) -> None:
    """Run a coroutine function with a fresh engine, and close the engine after it."""

    async def whole() -> None:
        engine = Engine(Setting(shelf=None, device="cpu"))
        try:
            async with asyncio.timeout(120):
                await work(engine)
        finally:
            await engine.close()

    asyncio.run(whole())


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_events_arrive_in_order_and_the_run_ends() -> None:
    async def work(engine: Engine) -> None:
        told = [Note("one"), Note("two"), Note("three")]
        run = engine.start(Telling(told))
        assert [event async for event in run] == told
        assert run.state == ENDED

    trying(work)


def test_stop_runs_the_jobs_finally() -> None:
    async def work(engine: Engine) -> None:
        job = Counting()
        run = engine.start(job)
        async for _ in run:
            run.stop()
        assert job.closed
        run.stop()  # on a run that has ended: nothing happens
        assert run.state == ENDED

    trying(work)


def test_a_paused_run_stands_still_and_a_step_moves_it_by_one() -> None:
    async def work(engine: Engine) -> None:
        job = Counting()
        run = engine.start(job)
        await until(lambda: job.at > 5)
        run.pause()
        other = engine.start(Telling([Note("meanwhile")]))  # proves the worker is idle by now
        assert [event async for event in other] == [Note("meanwhile")]
        held = job.at
        assert run.state == PAUSED
        run.step()
        await until(lambda: job.at == held + 1)
        run.resume()
        await until(lambda: job.at > held + 5)
        run.stop()
        async for _ in run:
            pass
        assert job.closed

    trying(work)


def test_jobs_of_one_lane_run_one_after_the_other() -> None:
    async def work(engine: Engine) -> None:
        first, second = Counting(total=200), Counting(total=1)
        runs = engine.start(first), engine.start(second)
        await until(lambda: second.closed)
        assert first.closed
        for run in runs:
            async for _ in run:
                pass

    trying(work)


def test_a_message_reaches_the_job_at_its_next_yield() -> None:
    async def work(engine: Engine) -> None:
        job = Counting()
        run = engine.start(job)
        run.send("change the rules")
        await until(lambda: job.sent)
        assert job.sent == ["change the rules"]
        run.stop()

    trying(work)


def test_pictures_and_progress_are_replaced_and_nothing_else_is_lost() -> None:
    async def work(engine: Engine) -> None:
        told: list[Any] = []
        for i in range(500):
            told += [
                Progress(i, 500),
                Picture(a_frame(i)),
                Metric("loss", ((i, 0.0),)),
                Note(str(i)),
            ]
        run = engine.start(Telling(told))
        await until(lambda: run.state == ENDED)
        seen = [event async for event in run]
        assert [e.text for e in seen if isinstance(e, Note)] == [str(i) for i in range(500)]
        points = [p for e in seen if isinstance(e, Metric) for p in e.points]
        assert points == [(i, 0.0) for i in range(500)]
        assert [e.frame.step for e in seen if isinstance(e, Picture)] == [499]
        assert [e.step for e in seen if isinstance(e, Progress)] == [499]

    trying(work)


def test_lanes_of_pictures_do_not_replace_each_other() -> None:
    async def work(engine: Engine) -> None:
        run = engine.start(Telling([Picture(a_frame(), lane=0), Picture(a_frame(), lane=1)]))
        await until(lambda: run.state == ENDED)
        assert [event.lane async for event in run] == [0, 1]

    trying(work)


@pytest.mark.parametrize("error", [StudioError("no such model", "pick another"), KeyError("bug")])
def test_an_error_is_raised_where_the_events_are_read(error: BaseException) -> None:
    async def work(engine: Engine) -> None:
        seen = []
        with pytest.raises(type(error)) as caught:
            async for event in engine.start(Failing(error)):
                seen.append(event)
        assert caught.value is error
        assert seen == [Note("about to fail")]

    trying(work)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_running_out_of_memory_comes_with_a_way_out(error: BaseException) -> None:
    async def work(engine: Engine) -> None:
        with pytest.raises(DeviceError) as caught:
            async for _ in engine.start(Failing(error)):
                pass
        assert caught.value.hint

    trying(work)


def test_a_failed_job_leaves_the_engine_working() -> None:
    async def work(engine: Engine) -> None:
        with pytest.raises(KeyError):
            async for _ in engine.start(Failing(KeyError("bug"))):
                pass
        assert [e async for e in engine.start(Telling([Note("still here")]))]

    trying(work)


def test_cancelling_the_reader_stops_the_job() -> None:
    async def work(engine: Engine) -> None:
        job = Counting()

        async def read() -> None:
            async for _ in engine.start(job):
                pass

        task = asyncio.get_running_loop().create_task(read())
        await until(lambda: job.at > 2)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: job.closed)

    trying(work)


def test_closing_stops_running_paused_and_queued_jobs_and_ends_the_threads() -> None:
    async def work(engine: Engine) -> None:
        running, queued = Counting(), Counting()
        run = engine.start(running)
        engine.start(queued)
        await until(lambda: running.at > 2)
        run.pause()
        await until(lambda: queued.at > 2)  # a paused run lets the next one on
        await engine.close()
        assert running.closed
        assert queued.closed
        assert not any(lane.thread.is_alive() for lane in engine._lanes.values())

    trying(work)


@pytest.mark.parametrize("lane", ["device", "io"])
def test_what_is_started_after_closing_never_runs(lane: str) -> None:
    @dataclass
    class Late(Counting):
        lane = ""

    Late.lane = lane

    async def work(engine: Engine) -> None:
        await engine.close()
        late = Late()
        assert [event async for event in engine.start(late)] == []
        assert late.at == 0

    before = threading.active_count()
    trying(work)
    assert threading.active_count() == before


def test_a_flood_of_events_leaves_the_loop_breathing() -> None:
    async def work(engine: Engine) -> None:
        longest, last = 0.0, asyncio.get_running_loop().time()
        ticking = True

        async def tick() -> None:
            nonlocal longest, last
            while ticking:
                await asyncio.sleep(0.001)
                now = asyncio.get_running_loop().time()
                longest, last = max(longest, now - last), now

        ticker = asyncio.get_running_loop().create_task(tick())
        async for _ in engine.start(Telling([Note(str(i)) for i in range(5000)])):
            pass
        ticking = False
        await ticker
        assert longest < 0.25  # the naive hand-over stalls for as long as the flood lasts

    trying(work)


def test_io_jobs_do_not_wait_for_the_device() -> None:
    async def work(engine: Engine) -> None:
        busy = engine.start(Counting())

        @dataclass
        class Disk(Telling):
            lane = "io"

        assert [e async for e in engine.start(Disk([Note("saved")]))] == [Note("saved")]
        busy.stop()

    trying(work)


def test_an_io_job_that_waits_holds_up_no_other() -> None:
    silent = threading.Event()

    @dataclass
    class Waiting:
        lane = "io"

        def run(self, context: Any):
            yield Note("waiting for the network")
            silent.wait(10)

    @dataclass
    class Disk(Telling):
        lane = "io"

    async def work(engine: Engine) -> None:
        download = engine.start(Waiting())
        assert await anext(download) == Note("waiting for the network")
        assert [e async for e in engine.start(Disk([Note("saved")]))] == [Note("saved")]
        paused = engine.start(Waiting())
        paused.pause()
        assert [e async for e in engine.start(Disk([Note("saved")]))] == [Note("saved")]
        assert len(engine.runs()) == 2
        silent.set()
        assert [e async for e in download] == []

    trying(work)
    assert not [t for t in threading.enumerate() if t.name == "io"]


def test_background_work_makes_way_and_goes_on_after() -> None:
    @dataclass
    class Drawing(Counting):
        background = True

    async def work(engine: Engine) -> None:
        drawing = Drawing()
        run = engine.start(drawing)
        await until(lambda: drawing.at > 3)
        asked = Counting(total=500)
        first = engine.start(asked)
        await until(lambda: asked.at > 1)
        held = drawing.at
        await until(lambda: asked.closed)
        assert drawing.at <= held + 1  # the event that was under way when it was asked to wait
        await until(lambda: drawing.at > held + 3)
        for each in (run, first):
            each.stop()

    trying(work)


def test_a_run_keeps_the_device_and_numbers_it_began_with() -> None:
    class Devices(Setting):
        @property
        def device(self) -> str:
            return self._wanted

    @dataclass
    class Asking:
        seen: list[Any] = field(default_factory=list)

        def run(self, context: Any):
            for i in range(2):
                self.seen.append((context.device, context.dtype))
                yield Note(str(i))

    async def work() -> None:
        engine = Engine(Devices(None, "cpu"))
        job, later = Asking(), Asking()
        run = engine.start(job)
        run.step()
        await until(lambda: job.seen)
        engine.choose("cuda", "bf16")
        run.resume()
        assert len([e async for e in run]) == 2
        assert [e async for e in engine.start(later)]
        await engine.close()
        assert job.seen == [("cpu", "fp32")] * 2 or job.seen[0] == job.seen[1]
        assert later.seen == [("cuda", "bf16")] * 2

    asyncio.run(work())


def test_finished_carries_pictures_and_recipe() -> None:
    stack = np.zeros((2, 4, 4, 3), np.uint8)

    async def work(engine: Engine) -> None:
        (event,) = [e async for e in engine.start(Telling([Finished(stack, {"seed": 1}, 3, 0.5)]))]
        assert event.pictures is stack
        assert event.recipe == {"seed": 1}

    trying(work)
