"""Blocks of every network: which are trained, which are computed twice, and pictures of other sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import TINY_OPTIONS

from studio.errors import SpecError
from studio.networks.catalog import NETWORKS, build
from studio.training import parts
from studio.training.sizes import resized
from studio.weights.model import ModelInfo

SMALL: dict[str, dict[str, Any]] = {
    "unet": TINY_OPTIONS | {"classes": 0},
    "grown": {
        "size": 16,
        "inner": TINY_OPTIONS | {"classes": 0, "patch": 2, "top": 4},
        "top": 4,
    },
    "ncsnpp": {"size": 8, "width": 8, "multipliers": [1, 2], "blocks": 1},
    "adm": {
        "size": 8,
        "width": 32,
        "channels": [32, 32],
        "blocks": 1,
        "attention": [1],
        "head_width": 16,
    },
    "refinenet": {"size": 8, "width": 4},
    "unet2d": {
        "size": 8,
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    },
}
every_network = pytest.mark.parametrize("name", list(NETWORKS))


def network(name):
    torch.manual_seed(0)
    net = build(name, SMALL[name])
    with torch.no_grad():
        for parameter in net.parameters():
            if not bool(parameter.any()):
                parameter.copy_(0.1 * torch.randn_like(parameter))
    return net.train()


def info(name):
    return ModelInfo(network=name, options=SMALL[name], size=SMALL[name]["size"])


def gradients(net, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 3, size, size, generator=generator)
    net(x, torch.tensor([0.5, 1.0]), None).square().mean().backward()
    return {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


@every_network
def test_every_network_has_blocks_and_a_forward_pass_comes_to_them(name):
    net = network(name)
    found, order = parts.blocks(net), parts.called(net, info(name))
    assert len(found) >= 4
    assert set(found) <= set(order)
    inside = [n for n in found if any(n.startswith(f"{other}.") for other in found)]
    assert inside == []


@every_network
def test_the_last_blocks_are_trained_and_the_first_layer_is_not(name):
    net = network(name)
    parts.train_last(net, info(name), 1)
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    few = gradients(net, SMALL[name]["size"])
    assert 0 < len(few) < len(before)
    assert not any(n.startswith(("stem", "enter", "conv_in")) for n in few)
    parts.train_last(net, info(name), 3)
    assert {n for n, p in net.named_parameters() if p.requires_grad} > set(few)


def test_of_a_unet_the_last_block_and_the_head_are_trained():
    net = network("unet")
    parts.train_last(net, info("unet"), 1)
    assert {n.split(".")[0] for n, p in net.named_parameters() if p.requires_grad} == {
        "up",
        "norm",
        "head",
    }


def test_more_blocks_than_there_are_cannot_be_trained():
    with pytest.raises(SpecError, match="blocks, not 99"):
        parts.train_last(network("unet"), info("unet"), 99)


@every_network
def test_what_is_computed_twice_has_the_same_gradients(name):
    size = SMALL[name]["size"]
    once = gradients(network(name), size)
    net = network(name)
    parts.compute_twice(net)
    twice = gradients(net, size)
    assert once.keys() == twice.keys()
    for key, value in once.items():
        torch.testing.assert_close(twice[key], value)


def kept_bytes(net, size):
    """What a forward pass keeps for the way back."""
    seen = {}

    def pack(x):
        seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        net(torch.rand(4, 3, size, size), torch.ones(4), None)
    return sum(seen.values())


def test_what_is_computed_twice_is_not_kept():
    whole = kept_bytes(network("unet"), 8)
    net = network("unet")
    parts.compute_twice(net)
    assert kept_bytes(net, 8) < 0.6 * whole


@every_network
def test_every_network_takes_pictures_of_twice_the_size(name):
    made = info(name)
    other = resized(made, 2 * made.size)
    assert (other.size, other.shape) == (2 * made.size, (3, 2 * made.size, 2 * made.size))
    net = build(other.network, other.options)
    net.load_state_dict(network(name).state_dict())
    x = torch.rand(1, *other.shape)
    assert net(x, torch.ones(1), None).shape == x.shape


def test_a_size_that_a_network_cannot_take_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match="cannot take pictures of 33 px") as caught:
        resized(info("unet"), 33)
    assert "32 px" in caught.value.hint


def test_the_size_that_a_model_has_is_left_alone():
    made = info("grown")
    assert resized(made, 16) is made
