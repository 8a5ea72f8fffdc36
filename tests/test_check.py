"""What a plan costs and whether it can work is known from a step or two of it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from test_trainer import TINY, some_pictures

from studio.diffusion.sde import VESDE
from studio.errors import DataError, StudioError
from studio.training import check as checking
from studio.training.check import check, disk_needed, free_memory
from studio.training.data import Pictures
from studio.training.trainer import Trainer
from studio.weights import formats

pytestmark = pytest.mark.usefixtures("one_thread")

NONE = some_pictures(4)


def many_pictures(count=240, colours=3, classes=()):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 8, 8, colours), np.uint8)
    labels = np.arange(count) % max(1, len(classes))
    return Pictures(pixels, labels if classes else np.full(count, -1), classes)


def checked(tmp_path, plan=TINY, learned=None, held=NONE, start=None):
    return check(plan, learned or many_pictures(), held, start, "cpu", tmp_path / "a" / "b")


def said(found, words):
    return any(words in warning for warning in found.warnings)


def test_a_plan_that_is_well_made_has_nothing_said_of_it(tmp_path):
    found = checked(tmp_path)
    assert found.warnings == ()
    assert found.seconds_per_step > 0
    assert found.seconds == pytest.approx(found.seconds_per_step * TINY.steps, rel=0.05)
    assert found.parameters == found.trained > 1000
    assert found.sigma_max is None
    assert not (tmp_path / "a").exists()


def test_memory_and_disk_are_told(tmp_path):
    found = checked(tmp_path)
    assert found.memory > 0
    assert found.memory_free == pytest.approx(free_memory("cpu"), rel=0.5)
    assert found.disk_free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_a_larger_batch_needs_more_memory_as_it_is_foreseen(tmp_path):
    plan = replace(TINY, size=32, channels=(32, 32), precision="fp32")
    data = Pictures(np.zeros((99, 32, 32, 3), np.uint8), np.full(99, -1))
    trainer = Trainer(replace(plan, batch=4), data, tmp_path)
    four = checking._kept(trainer.advance)
    eight = checking._kept(Trainer(replace(plan, batch=8), data, tmp_path / "8").advance)
    weights = sum(p.numel() for p in trainer.net.parameters()) * 4
    assert eight - four == pytest.approx(four - weights, rel=0.25)


def test_the_disk_that_is_foreseen_holds_the_run(tmp_path):
    trainer = Trainer(TINY, some_pictures(), tmp_path)
    while trainer.step < TINY.steps:
        trainer.advance()
    trainer.save()
    filled = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert filled < disk_needed(trainer) < 20 * filled


@pytest.mark.parametrize(("count", "words"), [(30, "will learn them by heart"), (120, "may learn")])
def test_few_pictures_are_warned_of(tmp_path, count, words):
    assert said(checked(tmp_path, learned=many_pictures(count)), words)


def test_a_batch_of_more_than_there_is_is_warned_of(tmp_path):
    found = checked(tmp_path, replace(TINY, batch=64), many_pictures(60))
    assert said(found, "each of the 60 pictures more than once")


def test_a_run_that_sees_each_picture_too_often_is_warned_of(tmp_path):
    found = checked(tmp_path, replace(TINY, steps=10**6))
    assert said(found, "learned 33,333 times")


def test_holding_nothing_out_is_warned_of(tmp_path):
    nothing = many_pictures().split(0.0)[1]
    assert said(checked(tmp_path, held=nothing), "Nothing is held out")


def test_the_strongest_noise_is_suggested_by_the_pictures(tmp_path):
    data = many_pictures(60)
    found = checked(tmp_path, replace(TINY, sde=VESDE(sigma_max=500.0)), data)
    largest = pdist(data.pixels.reshape(60, -1) / 127.5).max()
    assert found.sigma_max == pytest.approx(largest, rel=1e-4)
    assert said(found, f"for these pictures {largest:.0f}")
    assert not said(checked(tmp_path, replace(TINY, sde=VESDE(sigma_max=largest)), data), "noise")


def test_what_does_not_fit_its_start_is_warned_of(tmp_path, tiny_checkpoint):
    start = formats.open_model(tiny_checkpoint)
    plan = replace(TINY, start="tiny")
    grey = np.repeat(many_pictures(colours=1).pixels, 3, axis=3)
    found = checked(tmp_path, plan, replace(many_pictures(), pixels=grey), start=start)
    assert said(found, "will forget its colours")
    found = checked(tmp_path, plan, many_pictures(classes=("a", "b")), start=start)
    assert said(found, "classes of the folder are none of tiny's")
    large = Pictures(np.zeros((240, 16, 16, 3), np.uint8), np.full(240, -1))
    found = checked(tmp_path, replace(plan, size=16), large, start=start)
    assert said(found, "was made for 8 px and will learn 16 px")


@pytest.mark.parametrize(
    "changes", [{"train": "adapters", "rank": 2}, {"train": "last", "last": 1}]
)
def test_how_much_is_trained_is_told(tmp_path, tiny_checkpoint, changes):
    plan = replace(TINY, start="tiny", **changes)
    found = checked(tmp_path, plan, start=formats.open_model(tiny_checkpoint))
    assert 0 < found.trained < found.parameters


def test_a_batch_that_does_not_fit_is_not_tried(tmp_path, monkeypatch):
    """Nobody is told in time on a processor: so it is foreseen from a few pictures."""
    seen = []
    plain = Trainer.advance
    monkeypatch.setattr(
        Trainer, "advance", lambda self: (seen.append(self.plan.batch), plain(self))[1]
    )
    monkeypatch.setattr(checking, "free_memory", lambda device: 3_000_000)
    found = checked(tmp_path, replace(TINY, batch=512))
    assert max(seen) == 8
    assert said(found, "Accumulate the batch in")
    assert found.seconds_per_step > 0
    monkeypatch.setattr(checking, "free_memory", lambda device: 3000)
    assert said(checked(tmp_path, replace(TINY, batch=512)), "Not one picture fits")


def test_running_out_of_memory_is_answered_with_what_fits(tmp_path, monkeypatch):
    plain = Trainer.advance

    def advance(self):
        if self.plan.batch > 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return plain(self)

    monkeypatch.setattr(Trainer, "advance", advance)
    assert said(checked(tmp_path, replace(TINY, batch=64)), "A step needs about")


def test_a_long_run_and_a_full_disk_are_warned_of(tmp_path, monkeypatch):
    found = checked(tmp_path, replace(TINY, steps=10**8))
    assert said(found, "days here")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1000))
    assert said(checked(tmp_path), "fills")


def test_a_plan_that_cannot_be_run_is_refused(tmp_path):
    with pytest.raises(StudioError, match="a size that 2 divides"):
        checked(tmp_path, replace(TINY, size=9))
    with pytest.raises(DataError):
        checked(tmp_path, learned=some_pictures(1))


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    def advance(self):
        raise RuntimeError("something else")

    monkeypatch.setattr(checking._Probe, "_timed", lambda self: advance(self))
    with pytest.raises(RuntimeError, match="something else"):
        checked(tmp_path)


def test_pictures_of_which_only_the_middle_is_learned_are_told(tmp_path):
    assert said(checked(tmp_path, learned=replace(many_pictures(), cut=7)), "7 pictures are larger")


def test_what_an_earlier_run_has_left_is_not_taken_for_free(tmp_path):
    plan = replace(TINY, size=32, channels=(32, 32), precision="fp32", batch=32)
    data = Pictures(np.zeros((99, 32, 32, 3), np.uint8), np.full(99, -1))
    first, again = (checked(tmp_path, plan, data).memory for _ in range(2))
    assert again > first / 2
