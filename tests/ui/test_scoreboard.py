"""The scoreboard: what it says of each lane, the curves between lanes, and its copy for a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest

from studio.engine.events import Progress, Standing
from studio.ui.compare.marks import LETTERS
from studio.ui.compare.scoreboard import Scoreboard


@pytest.fixture
def board(shown: Callable[..., Any]) -> Scoreboard:
    board = shown(Scoreboard(), 280, 600)
    board.set_lanes([("pc", "critters"), ("rk45", "critters")])
    return board


def column(board: Scoreboard, lane: int) -> dict[str, str]:
    """What is written of a lane, by the words of the rows."""
    lines = [line.split("\t") for line in board.text().split("\n\n")[0].splitlines()]
    return {line[0]: line[1 + lane] for line in lines[1:]}


def written(board: Scoreboard) -> None:
    QTest.qWait(150)


def test_nothing_is_claimed_before_it_is_known(board: Scoreboard) -> None:
    told = column(board, 1)
    assert told.pop("Sampler") == "rk45"
    assert set(told.values()) == {"–"}


def test_each_lane_has_its_own_numbers(board: Scoreboard) -> None:
    board.standing(Standing("running", 200, 4.0, lane=0))
    board.standing(Standing("running", 66, 3.0, 11.5, 5.0, 2.561, lane=1))
    board.progress(Progress(10, 20, 66, -3.2, 3.0, lane=1))
    written(board)
    assert column(board, 0)["Calls/s"] == "50"
    assert column(board, 0)["Rejected"] == "–"
    adaptive = column(board, 1)
    assert adaptive["log-SNR"] == "−3.2"
    assert adaptive["Accepted"] == "11.5"
    assert adaptive["Rejected"] == "5"
    assert adaptive["Bits/dim"] == "2.56"
    assert board.table.item(2, 2).text() == "66"


def test_calls_follow_every_step_although_standings_come_rarely(board: Scoreboard) -> None:
    board.standing(Standing("running", 7, 1.0, 1.0, 0.0, lane=1))
    board.progress(Progress(4, 20, 25, -1.7, 3.0, lane=1))
    now = board.scores()[1].standing
    assert (now.calls, now.seconds, now.accepted) == (25, 3.0, 1.0)


def test_the_numbers_of_a_lane_that_is_not_there_are_no_trouble(board: Scoreboard) -> None:
    board.standing(Standing("running", 1, lane=3))
    board.distances.add("distance 0-3", ((0.0, 1.0),))
    board.distances.add("score", ((0.0, 1.0),))
    board.distances.add("distance x", ((0.0, 1.0),))
    assert board.distances.rows() == []


def test_there_is_a_curve_for_every_pair_of_lanes(board: Scoreboard) -> None:
    board.set_lanes([("pc", "m")] * 4)
    board.distances.load()
    for b in range(4):
        for a in range(b):
            board.distances.add(f"distance {a}-{b}", ((2.0, 0.2), (-1.0, 0.1 * b)))
    written(board)
    assert board.distances.points((1, 3)) == [(2.0, 0.2), (-1.0, pytest.approx(0.3))]
    for pair, curves in board.distances._curves.items():
        x, y = curves[0].getData()
        assert list(x) == [-1.0, 2.0]
        assert list(y) == [pytest.approx(10 * pair[1]), pytest.approx(20.0)]
    assert len(board.distances._curves) == 6


def test_a_new_race_begins_with_empty_curves(board: Scoreboard) -> None:
    board.distances.load()
    board.distances.add("distance 0-1", ((0.0, 0.5),))
    written(board)
    board.set_lanes([("pc", "m"), ("ald", "m"), ("em", "m")])
    assert board.distances.rows() == []
    assert board.table.columnCount() == 4


def test_the_copy_holds_the_table_and_every_point(board: Scoreboard) -> None:
    board.standing(Standing("finished", 81, 9.7, lane=0))
    board.distances.add("distance 0-1", ((1.5, 0.25), (-2.0, 0.125)))
    board.copy()
    table, points = QGuiApplication.clipboard().text().split("\n\n")
    assert table.splitlines()[0].split("\t")[1:] == list(LETTERS[:2])
    assert [line.split("\t") for line in points.splitlines()[1:]] == [
        ["A-B", "-2", "0.125"],
        ["A-B", "1.5", "0.25"],
    ]
