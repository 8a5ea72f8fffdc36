"""NCSN and NCSNv2 files of every layout, written here as their makers' code writes them."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file
from test_refinenet import Published, published_state

from studio.diffusion.sde import VESDE
from studio.errors import CheckpointError, SpecError
from studio.weights import formats
from studio.weights.formats.ncsn import PRESETS

pytestmark = pytest.mark.usefixtures("one_thread")

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def levels_of(high, count, low=0.01):
    return torch.exp(torch.linspace(math.log(high), math.log(low), count))


def parallel(state):
    return {f"module.{k}": v for k, v in state.items()}


def v2_list(path, sigmas, depth=4, average=True):
    """As ncsnv2 saves: [weights, optimizer, epoch, step, averaged weights by name]."""
    raw, averaged = published_state(depth, seed=1), published_state(depth, seed=2)
    state = parallel({"sigmas": sigmas} | raw)
    optimizer = {"state": {0: {"step": 7}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    states = [state, optimizer, 3, 300_000]
    torch.save([*states, averaged] if average else states, path)
    return averaged if average else raw


def score_sde(path, depth=4, levels=0):
    """As score_sde saves: tables, with an average that has no names."""
    raw, averaged = (published_state(depth, levels, seed=k) for k in (1, 2))
    shadow = [v.clone() for v in averaged.values()]
    ema = {"decay": 0.999, "num_updates": 5, "shadow_params": shadow}
    torch.save({"optimizer": {}, "model": parallel(raw), "ema": ema, "step": 5}, path)
    return averaged


def test_a_list_of_ncsnv2_gives_its_average_and_its_noise_levels(tmp_path):
    path = tmp_path / "checkpoint_300000.pth"
    averaged = v2_list(path, levels_of(50, 232))
    opened = formats.open_model(path)
    assert opened.info.sde == VESDE(0.01, 50)
    assert opened.info.value_range == (0, 1)
    assert (opened.info.size, opened.info.steps) == (32, 300_000)
    assert "average" in " ".join(opened.read().notes)
    score, t = opened.score(), torch.tensor([0.2, 0.9])
    sigma = score.sde.sigma(t).reshape(-1, 1, 1, 1)
    x = X + sigma * torch.randn(X.shape, generator=torch.Generator().manual_seed(1))
    wanted = Published(averaged, 4, 0)(x, None) / sigma
    torch.testing.assert_close(score(x, t) * sigma, wanted * sigma, rtol=1e-4, atol=1e-4)


def test_without_an_average_the_raw_weights_are_used(tmp_path):
    raw = v2_list(tmp_path / "a.pth", levels_of(50, 232), average=False)
    read = formats.open_model(tmp_path / "a.pth").read()
    torch.testing.assert_close(read.tensors["stem.weight"], raw["begin_conv.weight"])
    assert read.notes == ()


@pytest.mark.parametrize(
    ("depth", "high", "count", "size"),
    [(4, 90, 500, 64), (5, 190, 1086, 128), (5, 140, 788, 64), (6, 348, 2311, 256), (4, 60, 9, 32)],
)
def test_the_size_comes_from_the_published_model_with_these_levels(
    tmp_path, depth, high, count, size
):
    v2_list(tmp_path / "a.pth", levels_of(high, count), depth)
    opened = formats.open_model(tmp_path / "a.pth")
    assert opened.info.size == size
    assert f"{size} px" in " ".join(opened.notes)
    assert opened.info.sde == VESDE(0.01, high)
    assert opened.network().options.depth == depth


def test_a_list_of_ncsn_answers_with_the_score_itself(tmp_path):
    state = published_state(levels=10)
    torch.save([parallel(state), {"state": {}, "param_groups": []}], tmp_path / "a.pth")
    opened = formats.open_model(tmp_path / "a.pth")
    assert opened.info.sde == VESDE(0.01, 1)
    assert "published" in " ".join(opened.notes)
    # The index of level k in time: 0 is the noisiest, at t = 1, and 9 the cleanest, at t = 0.
    level = torch.tensor([0, 6])
    found = opened.score()(X, 1 - level / 9)
    torch.testing.assert_close(found, Published(state, 4, 10)(X, level), rtol=1e-4, atol=1e-4)


def test_the_nameless_average_of_score_sde_is_put_in_its_places(tmp_path):
    averaged = score_sde(tmp_path / "a.pth", levels=10)
    opened = formats.open_model(tmp_path / "a.pth")
    level = torch.tensor([1, 8])
    found = opened.score()(X, 1 - level / 9)
    torch.testing.assert_close(found, Published(averaged, 4, 10)(X, level), rtol=1e-4, atol=1e-4)


def test_noise_levels_that_are_open_are_asked_for_and_come_from_a_preset(tmp_path):
    score_sde(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="ncsnv2/cifar10, ncsnv2/celeba"):
        formats.open_model(tmp_path / "a.pth")
    opened = formats.open_model(tmp_path / "a.pth", "ncsnv2/celeba")
    assert (opened.info.sde, opened.info.size) == (VESDE(0.01, 90), 64)
    assert opened.notes == ()


def test_a_preset_that_does_not_exist_is_refused(tmp_path):
    score_sde(tmp_path / "a.pth")
    with pytest.raises(SpecError, match="no preset “ncsnv2/ciphar”"):
        formats.open_model(tmp_path / "a.pth", "ncsnv2/ciphar")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_opens_a_file_of_its_kind(tmp_path, preset):
    known = PRESETS[preset]
    levels = known.levels if known.conditional else 0
    state = published_state(known.depth, levels, colours=known.colours)
    torch.save(state, tmp_path / "a.pth")
    opened = formats.open_model(tmp_path / "a.pth", preset)
    assert opened.info.shape == (known.colours, known.size, known.size)
    assert opened.info.sde == VESDE(known.sigma_min, known.sigma_max)
    opened.network()


def test_bare_weights_of_safetensors_are_known_too(tmp_path):
    save_file({"sigmas": levels_of(50, 232)} | published_state(), tmp_path / "a.safetensors")
    assert formats.open_model(tmp_path / "a.safetensors").format == "NCSN"


def test_levels_that_are_not_geometric_are_pointed_out(tmp_path):
    v2_list(tmp_path / "a.pth", torch.linspace(50, 0.01, 232))
    assert "not evenly spaced" in " ".join(formats.open_model(tmp_path / "a.pth").notes)


@pytest.mark.parametrize(
    ("sigmas", "reason"),
    [
        (torch.tensor([]), "none"),
        (torch.tensor([1.0]), "none"),
        (torch.tensor([math.nan, 1.0]), "none"),
        (torch.tensor([1.0, -1.0]), "none"),
        (torch.tensor([0.01, 1.0, 50.0]), "do not fall"),
        (torch.tensor([1e9, 0.01]), "must be from"),
    ],
)
def test_noise_levels_that_are_none_are_refused(tmp_path, sigmas, reason):
    v2_list(tmp_path / "a.pth", sigmas)
    with pytest.raises(CheckpointError, match=reason):
        formats.open_model(tmp_path / "a.pth")


def drop(name):
    return lambda state: {k: v for k, v in state.items() if k != name}


@pytest.mark.parametrize(
    "damage",
    [
        drop("res3.1.conv2.weight"),
        drop("res2.0.conv1.weight"),
        drop("refine4.msf.convs.1.bias"),
        lambda state: state | {"res1.0.conv1.weight": torch.zeros(4, 4, 5, 5)},
        lambda state: state | {"end_conv.bias": torch.full((3,), math.nan)},
        lambda state: state | {"begin_conv.weight": torch.zeros(4)},
        lambda state: state | {"normalizer.embed.weight": torch.zeros(4)},
    ],
)
def test_a_damaged_file_is_refused_in_words(tmp_path, damage):
    torch.save(damage({"sigmas": levels_of(50, 232)} | published_state()), tmp_path / "a.pth")
    with pytest.raises(CheckpointError):
        formats.open_model(tmp_path / "a.pth").network()


@pytest.mark.parametrize(
    "shadow", [None, [], [torch.zeros(1)] * 98, ["a"] * 98, {"begin_conv.weight": 3}]
)
def test_an_average_of_other_weights_is_refused(tmp_path, shadow):
    state = published_state(levels=10)
    torch.save({"model": state, "ema": {"shadow_params": shadow}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="average of other weights"):
        formats.open_model(tmp_path / "a.pth").read()


def test_tensors_without_a_place_are_named(tmp_path):
    state = published_state(levels=10) | {"extra.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "a.pth")
    assert formats.open_model(tmp_path / "a.pth").read().left == ("extra.weight",)
