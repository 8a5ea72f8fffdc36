"""What waits runs in the order a person gave it, one at a time, and is offered again after a crash."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from studio.engine.engine import Engine
from studio.engine.events import Done
from studio.engine.jobs import Setting
from studio.engine.queue import MOST, Queue, Waiting, new_id
from studio.errors import SpecError


class Desk:
    """A queue whose runs end when they are told to."""

    def __init__(self, path: Path) -> None:
        self.started: list[str] = []
        self.told = 0
        self.queue = Queue(path, lambda entry: self.started.append(entry.recipe["name"]))
        self.queue.listen(self._count)

    def _count(self) -> None:
        self.told += 1

    def put(self, *names: str, first: bool = False) -> list[str]:
        return [self.queue.put({"name": name}, first) for name in names]

    def end(self) -> None:
        assert self.queue.running is not None
        self.queue.ended(self.queue.running.id)

    @property
    def waiting(self) -> str:
        return "".join(entry.recipe["name"] for entry in self.queue.waiting())

    @property
    def offered(self) -> str:
        return "".join(entry.recipe["name"] for entry in self.queue.offered())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "queue.json"


@pytest.fixture
def desk(path: Path) -> Desk:
    return Desk(path)


def test_one_runs_at_a_time_in_the_order_it_was_put(desk):
    desk.put(*"abc")
    assert desk.started == ["a"]
    assert desk.waiting == "bc"
    desk.end()
    desk.end()
    assert desk.started == ["a", "b", "c"]
    desk.end()
    assert desk.queue.running is None
    desk.put("d")
    assert desk.started[-1] == "d"


def test_what_waits_is_moved_jumps_ahead_and_is_dropped(desk):
    _, b, c, d = desk.put(*"abcd")
    desk.queue.move(d, 1)
    assert desk.waiting == "bdc"
    desk.queue.jump(c)
    assert desk.waiting == "cbd"
    desk.queue.move(c, 99)
    assert desk.waiting == "bdc"
    desk.queue.move(c, -5)
    assert desk.waiting == "cbd"
    desk.queue.drop(b)
    assert desk.waiting == "cd"
    desk.put("e", first=True)
    assert desk.waiting == "ecd"
    for id in ("gone", b):
        desk.queue.move(id, 0)
        desk.queue.drop(id)
    assert desk.waiting == "ecd"


def test_several_are_put_into_order_at_once(desk):
    _, b, c, d, _ = desk.put(*"abcde")
    before = desk.told
    desk.queue.arrange([d, "gone", b])
    assert desk.waiting == "dbce"
    assert desk.told == before + 1
    desk.queue.arrange([c])
    assert desk.waiting == "cdbe"


def test_listeners_are_told_of_each_change(desk):
    before = desk.told
    (a, b) = desk.put("a", "b")
    desk.queue.drop(b)
    assert desk.told == before + 3
    desk.queue.ended("another")
    assert desk.told == before + 3
    desk.queue.ended(a)
    assert desk.told == before + 4


def test_what_waited_is_offered_after_a_restart_and_runs_only_if_accepted(desk, path):
    desk.put(*"abc")
    desk.queue.close()  # in order: what ran was given up
    again = Desk(path)
    assert (again.offered, again.started) == ("bc", [])
    third = Desk(path)  # closed without an answer: offered once more
    assert third.offered == "bc"
    third.put("x")
    assert third.started == ["x"]
    third.queue.accept()
    assert third.waiting == "bc"
    assert third.offered == ""
    third.end()
    assert third.started == ["x", "b"]


def test_after_a_crash_what_ran_is_offered_too(desk, path):
    desk.put(*"abc")
    again = Desk(path)
    assert again.offered == "abc"
    again.queue.drop(again.queue.offered()[1].id)
    assert again.offered == "ac"
    again.queue.decline()
    assert Desk(path).offered == ""


def test_nothing_starts_once_it_is_closed(desk, path):
    a, _ = desk.put("a", "b")
    desk.queue.close()
    desk.queue.ended(a)
    assert desk.started == ["a"]
    assert Desk(path).offered == "b"


def test_a_run_that_fails_at_once_lets_the_next_start(path):
    started = []

    def start(entry: Waiting) -> None:
        started.append(entry.recipe["n"])
        if entry.recipe["n"]:
            queue.ended(entry.id)

    queue = Queue(path, start)
    queue.put({"n": 0})
    for n in range(1, 400):  # none of them nests in the one before
        queue.put({"n": n})
    assert queue.running is not None
    queue.ended(queue.running.id)
    assert started == list(range(400))
    assert queue.running is None


def test_too_many_are_refused(path):
    kept = [{"id": str(i), "recipe": {}} for i in range(MOST)]
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": 1, "running": [], "waiting": kept, "offered": []}))
    queue = Queue(path, lambda entry: None)
    assert len(queue.offered()) == MOST
    with pytest.raises(SpecError, match="waiting already"):
        queue.put({})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 2}',
        '{"version": "x", "running": [], "waiting": [], "offered": []}',
        '{"version": 1, "running": [], "waiting": [3], "offered": []}',
        '{"version": 1, "running": [], "waiting": [{"id": 1, "recipe": {}}], "offered": []}',
        '{"version": 1, "running": [], "waiting": [{"id": "a", "recipe": []}], "offered": []}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_set_aside_and_said(path, text):
    path.parent.mkdir(parents=True)
    path.write_text(text)
    queue = Queue(path, lambda entry: None)
    assert queue.offered() == ()
    assert "could not be read" in queue.problem
    assert path.with_suffix(".json.damaged").read_text() == text
    queue.put({"name": "a"})
    assert json.loads(path.read_text())["running"][0]["recipe"] == {"name": "a"}


def test_one_that_stands_twice_is_offered_once(path):
    entry = {"id": "a", "recipe": {"name": "a"}}
    path.parent.mkdir(parents=True)
    kept = {"version": 1, "running": [entry], "waiting": [entry], "offered": []}
    path.write_text(json.dumps(kept))
    assert Desk(path).offered == "a"


def test_without_a_place_to_write_it_lasts_until_the_end(tmp_path):
    (tmp_path / "file").write_text("in the way")
    desk = Desk(tmp_path / "file" / "queue.json")
    desk.put(*"ab")
    assert (desk.started, desk.waiting) == (["a"], "b")
    assert "only until the studio is closed" in desk.queue.problem


def test_on_an_engine_the_next_one_starts_when_the_last_has_ended(path):
    order: list[str] = []

    class Job:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, context: Any):
            order.append(f"{self.name} begins")
            yield Done()
            order.append(f"{self.name} ends")

    async def whole() -> None:
        engine = Engine(Setting(shelf=None, device="cpu"))
        tasks: list[asyncio.Task[None]] = []
        most = 0

        async def watch(entry: Waiting) -> None:
            nonlocal most
            most = max(most, len(engine.runs()))
            async for _ in engine.start(Job(entry.recipe["name"])):
                pass
            queue.ended(entry.id)

        def start(entry: Waiting) -> None:
            tasks.append(asyncio.get_running_loop().create_task(watch(entry)))

        queue = Queue(path, start)
        _, _, c = (queue.put({"name": name}) for name in "abc")
        queue.jump(c)
        async with asyncio.timeout(120):
            while queue.running is not None:
                await asyncio.sleep(0)
        await engine.close()
        await asyncio.gather(*tasks)
        assert most <= 1

    asyncio.run(whole())
    assert order == [f"{name} {what}" for name in "acb" for what in ("begins", "ends")]


# -- what a recipe needs besides itself -------------------------------------------------------------


def with_file(queue: Queue, text: str = "picture") -> str:
    id = new_id()
    queue.given(id).parent.mkdir(parents=True, exist_ok=True)
    queue.given(id).write_text(text)
    return id


def test_the_file_of_a_recipe_goes_when_it_leaves(desk, path):
    queue = desk.queue
    ids = [with_file(queue) for _ in range(4)]
    for i, id in enumerate(ids):
        queue.put({"name": str(i)}, id=id)
    assert all(queue.given(id).exists() for id in ids)
    queue.drop(ids[1])
    queue.ended(ids[0])
    assert [queue.given(id).exists() for id in ids] == [False, False, True, True]
    queue.close()
    # What ran is given up; what waits is kept with its file for the next session.
    assert [queue.given(id).exists() for id in ids] == [False, False, False, True]
    later = Queue(path, lambda entry: None)
    assert [e.id for e in later.offered()] == [ids[3]]
    assert later.given(ids[3]).read_text() == "picture"
    later.decline()
    assert not later.given(ids[3]).exists()


def test_files_that_belong_to_nobody_are_tidied_away(desk, path):
    id = with_file(desk.queue)
    desk.queue.close()
    later = Queue(path, lambda entry: None)
    assert not later.given(id).exists()


def test_an_id_that_could_be_a_path_is_no_id(path):
    entry = {"id": "../../important", "recipe": {}}
    path.parent.mkdir()
    path.write_text(json.dumps({"version": 1, "running": [], "waiting": [entry], "offered": []}))
    queue = Queue(path, lambda entry: None)
    assert queue.offered() == ()
    assert queue.problem
