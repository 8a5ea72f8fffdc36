"""The bench measures on any machine, and says so where it cannot."""

from __future__ import annotations

import json
import subprocess

import pytest

from studio import bench, bench_compare, cli

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_the_rows_without_a_window_are_measured(tiny_checkpoint, capsys):
    words = ["bench", "--quick", "--no-window", "--device", "cpu", "--model", str(tiny_checkpoint)]
    assert cli.main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in said["rows"]}
    for name in ("dpm2m over its network", "pc over its network", "live view, 30 pictures/s"):
        assert rows[name]["value"] is not None
    assert rows["training"]["value"] > 0
    assert said["machine"]["torch"]
    assert set(said["failed"]) == {name for name, row in rows.items() if row["ok"] is False}


def window_says(monkeypatch, stdout: str, stderr: str = "", code: int = 0) -> list[bench.Row]:
    done = subprocess.CompletedProcess([], code, stdout, stderr)
    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: done)
    return bench.window_rows()


def test_the_windows_figures_become_rows(monkeypatch):
    rows = window_says(monkeypatch, 'noise\n{"window_seconds": 0.5, "gap_p99_ms": 20.0}\n')
    found = {row.name: row for row in rows}
    assert found["window shown"].ok is True
    assert found["gap of the window's loop, 99 %"].ok is False
    assert found["first moving picture"].value is None
    assert found["first moving picture"].reason


def test_a_window_that_does_not_open_is_a_reason_not_an_error(monkeypatch):
    rows = window_says(monkeypatch, "", "Traceback\nqt: no screen\n", 1)
    assert {row.reason for row in rows} == {"qt: no screen"}
    assert all(row.value is None and row.ok is None for row in rows)


def test_a_window_with_a_problem_says_it(monkeypatch):
    rows = window_says(monkeypatch, '{"problem": "no model"}\n')
    assert {row.reason for row in rows} == {"no model"}


def test_what_is_kept_of_a_run_is_measured():
    kept = bench_compare.kept_of_a_run()
    assert 90 <= kept.frames <= 97
    assert kept.frame_bytes / kept.frames * 96 < 40e6
    assert kept.states > 20


def test_two_lanes_are_measured_beside_their_calls(tiny_checkpoint):
    ratio = bench_compare.lanes_over_calls(
        str(tiny_checkpoint), "cpu", 6, False, lambda: None, lambda: None
    )
    assert ratio > 1  # against calls that cost nothing
