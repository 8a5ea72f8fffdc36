"""What is watched of a training: levels, held-out pictures, and what is learned by heart."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_network
from scipy.spatial.distance import pdist
from test_trainer import TINY

from studio.diffusion.objectives import OBJECTIVES
from studio.diffusion.sde import VESDE, VPSDE
from studio.training import log
from studio.training.data import Pictures
from studio.training.watch import HeldOut, LevelLosses, Memory, largest_distance
from studio.weights.model import ModelInfo

pytestmark = pytest.mark.usefixtures("one_thread")

INFO = ModelInfo(size=8)


def noise_pictures(count, seed=0, size=8, colours=3):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, colours), np.uint8)
    return Pictures(pixels, np.full(count, -1, np.int64))


# -- by noise level -------------------------------------------------------------------------------


def test_losses_are_told_by_their_noise_level():
    watched = LevelLosses(VPSDE())
    middles = (watched.edges[1:] + watched.edges[:-1]) / 2
    for _ in range(50):
        watched.add(torch.tensor(middles[2:]), torch.arange(2.0, len(middles)))
    assert np.isnan(watched.loss[:2]).all()
    np.testing.assert_allclose(watched.loss[2:], np.arange(2.0, len(middles)))
    assert watched.seen.tolist() == [0, 0, *[50] * (len(middles) - 2)]


def test_losses_by_level_follow_the_training():
    watched = LevelLosses(VESDE())
    at = torch.tensor([float(watched.edges.mean())])
    for loss in [5.0] * 300 + [1.0] * 500:
        watched.add(at, torch.tensor([loss]))
    assert np.nanmin(watched.loss) == pytest.approx(1, abs=0.05)


def test_a_loss_that_is_no_number_is_not_counted():
    watched = LevelLosses(VPSDE())
    watched.add(torch.tensor([0.0, 0.0]), torch.tensor([math.nan, 2.0]))
    assert np.nanmax(watched.loss) == pytest.approx(2)
    assert watched.seen.sum() == 1


def test_losses_of_the_beginning_are_told_once_enough_was_seen_of_each_level():
    watched = LevelLosses(VPSDE())
    middles = torch.tensor((watched.edges[1:] + watched.edges[:-1]) / 2)
    for loss in [3.0] * 31:
        watched.add(middles, torch.full((12,), loss))
    assert np.isnan(watched.first).all()
    for loss in [3.0] * 9 + [1.0] * 200:
        watched.add(middles, torch.full((12,), loss))
    assert watched.first.tolist() == pytest.approx([3.0] * 12)
    assert watched.loss.max() < 2


def test_losses_by_level_go_on_where_an_earlier_part_of_the_run_has_left_them(tmp_path: Path):
    watched, after = LevelLosses(VPSDE()), LevelLosses(VPSDE())
    middles = torch.tensor((watched.edges[1:] + watched.edges[:-1]) / 2)
    for _ in range(40):
        watched.add(middles[3:], torch.arange(9.0))
    log.keep_levels(tmp_path, watched.rows)
    after.go_on(log.levels(tmp_path))
    for levels in (watched, after):
        levels.add(middles[3:], torch.ones(9))
    np.testing.assert_allclose(after.rows, watched.rows, rtol=1e-4)


DAMAGED = {
    "empty": "",
    "of one column": "low\n1\n",
    "no numbers": "a,b,c,d,e,f\n1,2,3,4,5,x\n",
    "endless": "h\n0,1,1,1e400,1,1\n",
    "unknown": "h\n0,1,1,1,nan,1\n",
    "zeros": "\0" * 40,
    "one long field": "h\n" + "7" * 200_000,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_levels_that_are_damaged_are_no_levels(tmp_path: Path, text: str):
    (tmp_path / "levels.csv").write_text(text)
    assert log.levels(tmp_path) == []
    watched = LevelLosses(VPSDE())
    watched.go_on([])
    assert not watched.seen.any()


# -- held out -------------------------------------------------------------------------------------


def test_the_same_network_always_has_the_same_figures():
    held = HeldOut(noise_pictures(5), INFO, TINY, "cpu")
    net = tiny_network(classes=0)
    torch.manual_seed(1)
    first = held.measure(net)
    torch.manual_seed(2)
    assert held.measure(net) == first == HeldOut(noise_pictures(5), INFO, TINY, "cpu").measure(net)
    assert all(map(math.isfinite, first))


def test_pictures_that_a_network_knows_have_fewer_bits():
    """Even noise has eight bits; one flat grey, for who knows it, has few."""
    flat = Pictures(np.full((4, 8, 8, 3), 128, np.uint8), np.full(4, -1, np.int64))
    wanted = 128 / 127.5 - 1

    class Knows(torch.nn.Module):
        def forward(self, x, label, y):
            # The preconditioned answer that makes the estimate the flat grey.
            sigma, d = torch.exp(4 * label)[:, None, None, None], 0.5
            total = torch.sqrt(sigma**2 + d**2)
            return (wanted - d**2 / total**2 * (x * total)) * total / (sigma * d)

    _, bits = HeldOut(flat, INFO, TINY, "cpu").measure(Knows())
    _, clueless = HeldOut(noise_pictures(4), INFO, TINY, "cpu").measure(tiny_network(classes=0))
    assert bits < 4 < 8 < clueless


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_every_objective_can_be_measured(objective):
    plan = replace(TINY, objective=OBJECTIVES[objective]())
    loss, bits = HeldOut(noise_pictures(3), INFO, plan, "cpu").measure(tiny_network(classes=0))
    assert math.isfinite(loss)
    assert math.isfinite(bits)


def test_classes_are_told_to_the_network():
    class Told(torch.nn.Module):
        seen: list = []

        def forward(self, x, label, y):
            self.seen.append(y)
            return torch.zeros_like(x)

    data = replace(noise_pictures(2), labels=np.array([0, 1]), classes=("a", "b"))
    HeldOut(data, replace(INFO, classes=("a", "b")), TINY, "cpu").measure(Told())
    assert Told.seen[0][:4].tolist() == [0, 1, 0, 1]
    HeldOut(data, INFO, TINY, "cpu").measure(Told())
    assert Told.seen[-1] is None


# -- by heart -------------------------------------------------------------------------------------


def test_the_nearest_picture_is_found_with_its_distance():
    learned = noise_pictures(300)
    memory = Memory(learned, noise_pictures(40, seed=1), mirrored=False)
    off = learned.pixels[[7, 250]].astype(int)
    off[0] = np.clip(off[0], 10, 245) + 3
    samples = off.astype(np.uint8)
    found = memory.nearest(samples)
    np.testing.assert_array_equal(found.pictures, learned.pixels[[7, 250]])
    wanted = [np.sqrt(((samples[0].astype(float) - learned.pixels[7]) ** 2).mean()), 0]
    assert found.distance == pytest.approx(wanted, abs=0.1)


def test_copies_are_told_from_pictures_of_the_same_kind():
    learned, held = noise_pictures(200), noise_pictures(50, seed=1)
    memory = Memory(learned, held, mirrored=False)
    assert memory.nearest(learned.pixels[:16]).memorised == pytest.approx(1, abs=0.01)
    assert memory.nearest(noise_pictures(16, seed=2).pixels).memorised < 0.02
    half = np.concatenate([learned.pixels[:8], noise_pictures(8, seed=3).pixels])
    assert memory.nearest(half).memorised == pytest.approx(0.5, abs=0.02)


def test_a_mirrored_copy_is_a_copy_where_pictures_were_learned_mirrored():
    learned, held = noise_pictures(50), noise_pictures(20, seed=1)
    mirrored = np.ascontiguousarray(learned.pixels[:4, :, ::-1])
    assert Memory(learned, held, mirrored=True).nearest(mirrored).memorised > 0.99
    assert Memory(learned, held, mirrored=False).nearest(mirrored).memorised < 0.05


def test_without_held_out_pictures_nothing_is_said_of_memory():
    learned = noise_pictures(10)
    memory = Memory(learned, learned.split(0.0)[1], mirrored=False)
    found = memory.nearest(learned.pixels[:2])
    assert math.isnan(found.memorised)
    assert found.distance == pytest.approx([0, 0], abs=0.1)


def test_samples_of_other_colours_and_large_pictures_are_compared():
    learned = noise_pictures(10, size=80, colours=1)
    memory = Memory(learned, noise_pictures(5, seed=1, size=80, colours=1), mirrored=False)
    colour = np.repeat(learned.pixels[:2], 3, axis=3)
    assert memory.nearest(colour).memorised > 0.98


# -- the largest distance -------------------------------------------------------------------------


@pytest.mark.parametrize("span", [(-1.0, 1.0), (0.0, 1.0)])
def test_the_largest_distance_is_exact_for_few_pictures(span):
    data = noise_pictures(120)
    low, high = span
    flat = data.pixels.reshape(120, -1) / 255 * (high - low)
    found = largest_distance(data, replace(INFO, value_range=span))
    assert found == pytest.approx(pdist(flat).max(), rel=1e-4)


def test_of_many_pictures_the_odd_ones_are_found():
    data = noise_pictures(3000)
    data.pixels[17], data.pixels[2431] = 0, 255
    most = math.sqrt(8 * 8 * 3) * 2
    assert 0.8 * most < largest_distance(data, INFO) <= most * 1.0001
