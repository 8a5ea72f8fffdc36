"""Reading ahead in threads: in order, never hanging, always to be stopped."""

from __future__ import annotations

import threading

import pytest

from studio.errors import DataError
from studio.training import readers


class Gate:
    """A disk that answers for some things only once it is opened."""

    def __init__(self, *stuck):
        self.stuck, self.opened = stuck, threading.Event()

    def read(self, thing):
        if thing in self.stuck:
            self.opened.wait()
        return thing * 10


@pytest.fixture
def gate():
    made = Gate(2)
    yield made
    made.opened.set()


def late(thing):
    return f"{thing} is late"


def results(reading):
    return [result for _, _, new in reading for result in new]


def test_results_come_in_the_order_of_the_things():
    barrier = threading.Barrier(2)

    def call(thing):
        if thing < 2:
            barrier.wait()  # two at a time, or this would wait for ever
        return thing

    assert results(readers.read(call, range(500), late, threads=2)) == list(range(500))


def test_nothing_to_read_is_soon_done():
    assert list(readers.read(abs, [], late)) == [(0, 0, [])]


def test_the_total_grows_while_things_are_drawn():
    more = threading.Event()

    def things():
        yield 0
        more.wait()
        yield 1

    reading = readers.read(abs, things(), late)
    while (seen := next(reading))[0] == 0:
        pass
    assert seen[:2] == (1, 1)
    more.set()
    assert list(reading)[-1][:2] == (2, 2)


def test_one_who_waits_is_answered_although_the_disk_is_not_there(gate):
    gate.stuck = range(10)
    reading = readers.read(gate.read, range(10), late)
    assert [next(reading) for _ in range(3)] == [(0, 10, [])] * 3
    reading.close()


def test_what_takes_too_long_is_given_up_and_the_rest_is_read(gate):
    found = results(readers.read(gate.read, range(6), late, threads=2, patience=0.5))
    assert found == [0, 10, "2 is late", 30, 40, 50]


def test_a_disk_that_never_answers_is_said(gate):
    gate.stuck = range(100)
    with pytest.raises(DataError, match="does not answer"):
        results(readers.read(gate.read, range(100), late, threads=2, patience=0.01))


def test_a_folder_that_cannot_be_listed_in_time_is_said(gate):
    def things():
        yield 0
        gate.opened.wait()

    with pytest.raises(DataError, match="does not answer"):
        results(readers.read(abs, things(), late, patience=0.01))


@pytest.mark.parametrize("where", ["call", "things"])
def test_what_is_raised_in_a_thread_is_raised_here(where):
    def broken(*_):
        raise DataError("It broke.")
        yield

    def fail(_):
        raise DataError("It broke.")

    reading = (
        readers.read(fail, range(9), late) if where == "call" else readers.read(abs, broken(), late)
    )
    with pytest.raises(DataError, match="It broke"):
        results(reading)


def test_closing_ends_the_threads_that_can_end():
    before = threading.active_count()
    drawn = []

    def things():
        for i in range(10**9):
            drawn.append(i)
            yield i

    reading = readers.read(abs, things(), late)
    next(reading)
    reading.close()
    for thread in threading.enumerate():
        if thread.name == "reader":
            thread.join()
    assert threading.active_count() == before


def test_no_more_is_read_ahead_than_may_wait(gate):
    gate.stuck, seen = (0,), []

    def call(thing):
        seen.append(thing)
        return gate.read(thing)

    reading = readers.read(call, range(100), late, threads=2, ahead=8)
    while next(reading)[0] < 7:
        pass
    next(reading)
    assert sorted(seen) == list(range(8))
    gate.opened.set()
    assert results(reading) == [10 * i for i in range(100)]


def test_one_question_is_answered_or_given_up(gate):
    def answer(asked):
        while True:
            try:
                next(asked)
            except StopIteration as end:
                return end.value

    assert answer(readers.asked(lambda: 7)) == 7
    with pytest.raises(DataError, match="does not answer"):
        answer(readers.asked(lambda: gate.read(2), patience=0.01))


def test_work_ahead_comes_in_order_and_before_it_is_asked_for():
    made = threading.Event()

    def call(step):
        if step == 3:
            made.set()
        return step

    steps = readers.ahead(call, range(20), threads=2, depth=4)
    assert next(steps) == 0
    made.wait()
    assert list(steps) == list(range(1, 20))


def test_a_fault_of_work_ahead_is_told_where_it_is_awaited():
    steps = readers.ahead(lambda step: 1 // (2 - step), range(9))
    assert next(steps) == 0
    assert next(steps) == 1
    with pytest.raises(ZeroDivisionError):
        next(steps)
