"""The networks: shapes, a quiet start, gradients everywhere, and options that make no sense."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY_OPTIONS, tiny_network

from studio.errors import CheckpointError
from studio.networks.catalog import build
from studio.networks.ema import Ema
from studio.networks.layers import NoiseEmbedding

pytestmark = pytest.mark.usefixtures("one_thread")

# (size, colours, stages, patch, top)
SIZES = [
    (28, 1, 3, 1, 0),
    (28, 3, 2, 2, 8),
    (32, 3, 3, 1, 0),
    (32, 1, 3, 2, 0),
    (32, 3, 2, 2, 8),
    (64, 3, 3, 2, 8),
    (64, 1, 4, 1, 0),
    (64, 3, 2, 4, 0),
]


def options(size=8, colours=3, stages=2, patch=1, top=0, **more):
    widths = [8, 16, 16, 16][:stages]
    return {
        "size": size,
        "colours": colours,
        "channels": widths,
        "blocks": [1] * stages,
        "attention": [stages - 1],
        "patch": patch,
        "top": top,
        "embedding": 16,
        **more,
    }


def inputs(size=8, colours=3, count=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, colours, size, size, generator=generator), torch.linspace(
        -1, 1, count
    )


@pytest.mark.parametrize(("size", "colours", "stages", "patch", "top"), SIZES)
def test_a_fresh_network_predicts_zero_of_the_right_shape(size, colours, stages, patch, top):
    net = build("unet", options(size, colours, stages, patch, top))
    x, label = inputs(size, colours)
    answer = net(x, label)
    assert answer.shape == x.shape
    assert not bool(answer.any())


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("patch", "top"), [(1, 0), (2, 0), (2, 8)])
def test_gradients_reach_every_parameter(classes, patch, top):
    more = {} if classes == 0 else {"classes": classes}
    net = tiny_network(**options(16, 3, 2, patch, top), **more | {"classes": classes})
    net = net.train().requires_grad_(True)
    x, label = inputs(16, 3, 4)
    y = torch.tensor([0, 1, 2, -1]) if classes else None
    net(x, label, y).square().mean().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert silent == []


def test_classes_and_noise_labels_matter():
    net, (x, label) = tiny_network(), inputs()
    answers = [net(x, label, torch.tensor([y, y])) for y in (-1, 0, 1)]
    assert not torch.allclose(answers[0], answers[1])
    assert not torch.allclose(answers[1], answers[2])
    torch.testing.assert_close(net(x, label), answers[0])  # no class given means any class
    assert not torch.allclose(net(x, label + 0.1), answers[0])


def test_bfloat16_is_close_to_float32():
    net, (x, label) = tiny_network(classes=0), inputs(count=4)
    exact = net(x, label)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x, label)
    assert rough.dtype == torch.float32
    # bfloat16 has eight bits; a few layers deep that is a few percent of the spread.
    assert float((rough - exact).std() / exact.std()) < 0.03


def test_an_answer_does_not_depend_on_batch_mates():
    net, (x, label) = tiny_network(classes=0), inputs(count=4)
    torch.testing.assert_close(net(x[:1], label[:1]), net(x, label)[:1], rtol=1e-5, atol=1e-5)


def test_the_noise_embedding_tells_near_labels_apart():
    embedding = NoiseEmbedding(16)
    features = embedding(torch.tensor([-1.2, -1.199, 0.0, 1.2]))
    assert features.shape == (4, 16)
    distances = torch.cdist(features, features).detach() + torch.eye(4)
    assert float(distances.min()) > 1e-3


def test_dropout_is_off_when_evaluating():
    net, (x, label) = tiny_network(classes=0, dropout=0.5), inputs()
    assert torch.equal(net(x, label), net(x, label))


NONSENSE = [
    ("size", 9, "divides"),
    ("size", 7, "7 is not"),
    ("size", 2**20, "divides"),
    ("size", 10**400, "size"),
    ("size", "big", "size"),
    ("colours", 2, "channels"),
    ("channels", [], "stages"),
    ("channels", [8, 0], "channels"),
    ("channels", [8, 10**9], "channels"),
    ("channels", [8], "block counts"),
    ("blocks", [1, 0], "blocks"),
    ("blocks", [1, 10**6], "blocks"),
    ("patch", 0, "folded"),
    ("patch", 3, "folded"),
    ("top", 8, "folded"),
    ("embedding", 0, "embedding"),
    ("embedding", -3, "embedding"),
    ("embedding", 10**12, "embedding"),
    ("dropout", 1.5, "dropout"),
    ("dropout", float("nan"), "dropout"),
    ("classes", -1, "U-Net"),
    ("wings", 2, "wings"),
]


@pytest.mark.parametrize(("name", "value", "word"), NONSENSE, ids=range(len(NONSENSE)))
def test_options_that_make_no_sense_are_refused_in_words(name, value, word):
    with pytest.raises(CheckpointError, match=word):
        build("unet", TINY_OPTIONS | {name: value})


def test_an_unknown_network_is_refused_by_name():
    with pytest.raises(CheckpointError, match="resnet"):
        build("resnet", {})


def test_the_average_follows_quickly_at_first_and_slowly_later():
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    average = Ema(net, 0.9)
    torch.nn.init.ones_(net.weight)
    average.update(1)
    assert float(average.shadow["weight"]) == pytest.approx(1 - 2 / 11)  # (1 + n) / (10 + n)
    torch.nn.init.zeros_(net.weight)
    before = float(average.shadow["weight"])
    average.update(10_000)
    assert float(average.shadow["weight"]) == pytest.approx(0.9 * before)


def test_the_average_has_copies_of_its_own():
    net = torch.nn.Linear(2, 2)
    average = Ema(net, 0.9)
    kept = {k: v.clone() for k, v in average.shadow.items()}
    with torch.no_grad():
        net.weight.add_(1)
    assert torch.equal(average.shadow["weight"], kept["weight"])
    other = {k: v + 2 for k, v in kept.items()}
    average.load(other)
    assert torch.equal(average.shadow["bias"], other["bias"])
