"""One training on many processes is the training of one."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from test_trainer import TINY, some_pictures

from studio.errors import DeviceError, SpecError
from studio.training import many
from studio.training.draws import Draws
from studio.training.many import ALONE, Alone
from studio.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")


class Part(Alone):
    """One of several processes, whose others are elsewhere."""

    def __init__(self, index, count):
        self.index, self.count = index, count


def test_a_batch_is_shared_without_a_rest():
    places = [Part(i, 4).places(32) for i in range(4)]
    assert [p for part in places for p in part] == list(range(32))
    with pytest.raises(SpecError, match="shared by 3 processes"):
        Part(0, 3).places(32)
    assert ALONE.places(5) == range(5)


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"flips": True}])
def test_the_parts_of_a_batch_are_the_batch(tmp_path, changes):
    """The gradients of two processes have the mean that one process has."""
    plan = replace(TINY, batch=24, clip=1e6, **changes)

    def gradient(team, name):
        trainer, found = Trainer(plan, some_pictures(), tmp_path / name, team=team), []
        trainer.optimizer.step = lambda: found.extend(
            p.grad.flatten().clone() for p in trainer.net.parameters() if p.grad is not None
        )
        trainer.advance()
        return torch.cat(found)

    whole = gradient(ALONE, "whole")
    parts = [gradient(Part(i, 2), str(i)) for i in range(2)]
    torch.testing.assert_close(sum(parts) / 2, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("cut", [1, 7, 16, 40])
def test_noise_is_that_of_its_place_however_a_batch_is_cut(cut):
    draws = Draws(3, 5, 48)
    whole = draws.noise(range(48), (3, 4, 4))
    parts = [draws.noise(range(i, min(48, i + cut)), (3, 4, 4)) for i in range(0, 48, cut)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(Draws(3, 6, 48).noise(range(48), (3, 4, 4)), whole)
    assert abs(float(whole.mean())) < 0.1
    assert float(whole.std()) == pytest.approx(1, abs=0.05)


def test_places_on_the_noise_axis_are_even():
    u = Draws(0, 0, 64).u
    assert torch.equal((u * 64).floor().sort().values, torch.arange(64.0))


def test_without_accelerate_many_processes_are_refused_with_the_way_out(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="accelerate") as caught:
        many.team("cpu")
    assert "score-studio[many]" in caught.value.hint


@pytest.mark.parametrize(("words", "count"), [("", 1), ("1", 1), ("4", 4), ("many", 1)])
def test_how_many_were_launched_is_read_from_the_environment(monkeypatch, words, count):
    monkeypatch.setenv("WORLD_SIZE", words)
    assert many.launched() == count
    monkeypatch.setenv("RANK", "1")
    assert many.main() == (count == 1)


# -- for real -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    rng, place = np.random.default_rng(0), tmp_path / "pictures"
    place.mkdir()
    for i in range(40):
        pixels = rng.integers(0, 120, (9, 9, 3)).astype(np.uint8) + np.uint8(120 * (i % 2))
        Image.fromarray(pixels).save(place / f"{i:02}.png")
    return place


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def train(words, processes):
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    launch += ["--master_port", str(free_port())]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "studio", "train", *words]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    (said,) = done.stdout.splitlines()  # one of them speaks
    return json.loads(said)


def measured(home, name):
    with (home / "models" / name / "measures.csv").open() as file:
        return [(int(r["step"]), float(r["held_out"])) for r in csv.DictReader(file)]


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_one_goes_on_from_two(folder, home):
    words = [str(folder), "--size", "8", "--channels", "8", "16", "--blocks", "1", "1"]
    words += ["--embedding", "16", "--patch", "1", "--top", "0", "--batch", "16", "--flips"]
    words += ["--precision", "fp32", "--device", "cpu", "--sample-every", "10"]
    one = train([*words, "--out", "one", "--steps", "30"], 1)
    two = train([*words, "--out", "two", "--steps", "20"], 2)
    assert two["steps"] == 20
    again = train(["--recipe", str(home / "models" / "two"), "--steps", "30"], 1)
    assert (again["resumed_at"], again["steps"]) == (20, 30)
    assert again["loss"] == pytest.approx(one["loss"], rel=1e-4)
    # The rate cools down at the end of each of the plans, so only what is before that is the same.
    first, second = dict(measured(home, "one")), dict(measured(home, "two"))
    assert second[10] == pytest.approx(first[10], rel=1e-4)


@pytest.mark.slow
def test_two_processes_go_on_from_where_they_stopped(folder, home):
    words = [str(folder), "--size", "8", "--channels", "8", "16", "--blocks", "1", "1"]
    words += ["--embedding", "16", "--patch", "1", "--top", "0", "--batch", "16"]
    words += ["--precision", "fp32", "--device", "cpu", "--sample-every", "0"]
    words += ["--cooldown", "0", "--out", "parts"]
    train([*words, "--steps", "10"], 2)
    found = train([*words, "--steps", "20"], 2)
    whole = train([*words[:-1], "whole", "--steps", "20"], 1)
    assert found["resumed_at"] == 10
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-3)
    assert (Path(found["path"]) / "resume.safetensors").exists()
