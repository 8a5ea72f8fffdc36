"""Averages of any length after training, against averages that were computed directly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.errors import DataError, SpecError
from studio.training import lengths
from studio.training.lengths import Averages, exponent, mix, profile


def direct(path, length, step):
    """The average at `step` of weights path (T, ...), by its own profile."""
    shares = profile(length, step, np.arange(step + 1.0))
    return np.tensordot(shares, path[:step], 1)


def wander(steps, size=6, seed=0):
    """Weights that wander towards a place and jitter around it, (T, size)."""
    rng = np.random.default_rng(seed)
    way = np.cumsum(rng.normal(size=(steps, size)), 0) / np.sqrt(steps)
    return way + 0.3 * rng.normal(size=(steps, size))


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.25])
def test_the_profile_of_a_length_has_that_deviation(length):
    edges = np.linspace(0, 1, 200_001)
    shares, middle = profile(length, 1, edges), (edges[1:] + edges[:-1]) / 2
    assert shares.sum() == pytest.approx(1)
    mean = shares @ middle
    assert np.sqrt(shares @ (middle - mean) ** 2) == pytest.approx(length, rel=1e-3)


def test_exponents_are_those_of_the_paper():
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.01)


@pytest.mark.parametrize("length", [0.0, 0.3, -1.0])
def test_lengths_that_no_profile_has_are_refused(length):
    with pytest.raises(SpecError):
        exponent(length)


def test_an_average_kept_step_by_step_is_the_one_of_its_profile():
    path = wander(300)
    live = {"w": torch.zeros(6, dtype=torch.float64)}
    averages = Averages(live, (0.05, 0.1), every=1)
    for step, weights in enumerate(path, 1):
        live["w"].copy_(torch.from_numpy(weights))
        averages.update(step)
    for i, length in enumerate(averages.lengths):
        np.testing.assert_allclose(averages.state()[f"{i}.w"], direct(path, length, 300))


def test_an_average_brought_up_to_date_now_and_then_is_the_one_of_those_steps():
    path, live = wander(400), {"w": torch.zeros(6, dtype=torch.float64)}
    averages = Averages(live, (0.1,), every=4)
    for step, weights in enumerate(path, 1):
        live["w"].copy_(torch.from_numpy(weights))
        averages.update(step)
    np.testing.assert_allclose(averages.state()["0.w"], direct(path[3::4], 0.1, 100))


def run(folder, path, kept=(0.05, 0.1)):
    """Keep the averages of a run as training does."""
    live = {"w": torch.zeros(path.shape[1])}
    averages = Averages(live, kept)
    for step, weights in enumerate(path, 1):
        live["w"].copy_(torch.from_numpy(weights))
        averages.update(step)
        if lengths.due(step) or step == len(path):
            lengths.write(folder, step, averages)


@pytest.mark.parametrize("length", [0.03, 0.05, 0.07, 0.1, 0.15, 0.2])
def test_another_length_is_near_the_average_computed_directly(tmp_path, length):
    path = np.repeat(wander(750), lengths.EVERY, axis=0)
    run(tmp_path, path)
    found, step, how = lengths.rebuilt(tmp_path, length)
    wanted = direct(path, length, 3000)
    assert step == 3000
    # Nearer by far than an average of a length beside it is, and than the weights themselves.
    away = np.linalg.norm(found["w"].numpy() - wanted)
    beside = direct(path, 1.5 * length if length < 0.15 else 0.1, 3000)
    assert away < (0.25 if length >= 0.05 else 0.6) * np.linalg.norm(beside - wanted)
    assert away < 0.2 * np.linalg.norm(path[-1] - wanted)
    assert how.error < 0.2
    assert how.factors.sum() == pytest.approx(1)


def test_a_length_that_was_kept_comes_back_as_it_was(tmp_path):
    path = np.repeat(wander(125), lengths.EVERY, axis=0)
    run(tmp_path, path)
    found, _, how = lengths.rebuilt(tmp_path, 0.1)
    assert how.error < 0.01
    np.testing.assert_allclose(found["w"], direct(path, 0.1, 500), atol=2e-3)


def test_weights_that_stand_still_are_their_own_average(tmp_path):
    run(tmp_path, np.full((400, 3), 0.5))
    for length in (0.02, 0.08, 0.25):
        found, _, _ = lengths.rebuilt(tmp_path, length)
        np.testing.assert_allclose(found["w"], 0.5, rtol=1e-5)


def test_few_files_are_kept_however_long_a_run_is(tmp_path):
    live = {"w": torch.zeros(1)}
    averages = Averages(live, (0.05, 0.1))
    for step in [s for s in range(1, 200_000) if lengths.due(s)]:
        lengths.write(tmp_path, step, averages)
    found = lengths.written(tmp_path)
    assert 6 <= len(found) <= lengths.MOST
    assert found[0].step >= found[-1].step / 6.5


def test_a_run_that_stopped_between_keeps_that_until_it_has_gone_on(tmp_path):
    averages = Averages({"w": torch.zeros(1)}, (0.05, 0.1))
    lengths.write(tmp_path, 1234, averages)
    assert not lengths.due(1232)
    assert [w.step for w in lengths.written(tmp_path)] == [1232]
    lengths.write(tmp_path, 1300, averages)
    assert [w.step for w in lengths.written(tmp_path)] == [1300]
    assert lengths.write(tmp_path / "new", 3, averages) is None


@pytest.mark.parametrize("length", [0.001, 0.27])
def test_lengths_out_of_reach_are_refused_with_those_in_reach(tmp_path, length):
    with pytest.raises(SpecError, match=r"0\.02 to 0\.25"):
        lengths.rebuilt(tmp_path, length)


def test_a_run_without_averages_says_so(tmp_path):
    with pytest.raises(DataError, match="kept no averages"):
        lengths.rebuilt(tmp_path, 0.1)


def test_the_mix_of_many_profiles_is_nearest_of_all():
    """No single kept average is nearer to the wanted profile than the mix."""
    kept = [(at, length) for at in (500, 700, 1000) for length in (0.05, 0.1)]
    edges = np.arange(1001.0)
    wanted = profile(0.07, 1000, edges)
    alone = [
        np.linalg.norm(profile(length, at, edges) - wanted) / np.linalg.norm(wanted)
        for at, length in kept
    ]
    assert mix(kept, 0.07, 1000).error < 0.2 * min(alone)
