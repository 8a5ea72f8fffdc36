"""RefineNet against the formulas of the papers, from tensors named as published files name them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from studio.errors import CheckpointError
from studio.networks.catalog import build
from studio.networks.refinenet import InstanceNormPlus
from studio.weights.formats.ncsn import rename

pytestmark = pytest.mark.usefixtures("one_thread")

# Of each stage, in the order of the picture's way: its name in a file, width, dilation, what its first
# block does; and the order of the RefineNet blocks on the way back.
PLANS = {
    4: (
        [("1", 1, 1, ""), ("2", 2, 1, "halve"), ("3", 2, 2, "dilate"), ("4", 2, 4, "dilate")],
        ["1", "2", "3", "4"],
    ),
    5: (
        [
            ("1", 1, 1, ""),
            ("2", 2, 1, "halve"),
            ("3", 2, 1, "halve"),
            ("4", 4, 2, "dilate"),
            ("5", 4, 4, "dilate"),
        ],
        ["1", "2", "3", "4", "5"],
    ),
    6: (
        [
            ("1", 1, 1, ""),
            ("2", 2, 1, "halve"),
            ("3", 2, 1, "halve"),
            ("31", 2, 1, "halve"),
            ("4", 4, 2, "dilate"),
            ("5", 4, 4, "dilate"),
        ],
        ["1", "2", "31", "3", "4", "5"],
    ),
}


def published_state(depth=4, levels=0, width=4, colours=3, seed=0):
    """Random weights under the names, and in the order, of a published file."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def tensor(name, *shape):
        fan = max(1, math.prod(shape[1:]))
        state[name] = torch.randn(*shape, generator=generator) / math.sqrt(fan)

    def conv(name, inputs, outputs, size=3, bias=True):
        tensor(f"{name}.weight", outputs, inputs, size, size)
        if bias:
            tensor(f"{name}.bias", outputs)

    def norm(name, channels):
        if levels:
            tensor(f"{name}.embed.weight", levels, 3 * channels)
            state[f"{name}.embed.weight"] *= 3  # a row is no fan
        else:
            for part in ("alpha", "gamma", "beta"):
                tensor(f"{name}.{part}", channels)

    def units(name, channels, count):
        for k in range(1, count + 1):
            for i in (1, 2):
                if levels:
                    norm(f"{name}.{k}_{i}_norm", channels)
                conv(f"{name}.{k}_{i}_conv", channels, channels, bias=False)

    stages, back = PLANS[depth]
    conv("begin_conv", colours, width)
    norm("normalizer", width)
    conv("end_conv", width, colours)
    before = width
    for name, times, _, entry in stages:
        here = width * times
        for j in (0, 1):
            block, first = f"res{name}.{j}", j == 0 and entry
            inside = before if first else here
            conv(f"{block}.conv1", inside, inside)
            norm(f"{block}.normalize2", inside)
            wrap = ".conv" if first == "halve" else ""
            conv(f"{block}.conv2{wrap}", inside, here)
            if first:
                conv(f"{block}.shortcut{wrap}", inside, here, 1 if first == "halve" else 3)
            norm(f"{block}.normalize1", inside)
        before = here
    widths = [width * times for _, times, _, _ in stages]
    for k, name in enumerate(back):
        own = widths[-1 - k]
        out = widths[max(len(widths) - 2 - k, 0)]
        for i in range(1 if k == 0 else 2):
            units(f"refine{name}.adapt_convs.{i}", own, 2)
        units(f"refine{name}.output_convs", out, 3 if k == len(back) - 1 else 1)
        if k:
            for i in (0, 1):
                conv(f"refine{name}.msf.convs.{i}", own, out)
                if levels:
                    norm(f"refine{name}.msf.norms.{i}", own)
        for i in (0, 1):
            conv(f"refine{name}.crp.convs.{i}", out, out, bias=False)
            if levels:
                norm(f"refine{name}.crp.norms.{i}", out)
    return state


class Published:
    """The network of the papers, term by term, from a table of a file's tensors."""

    def __init__(self, state, depth, levels):
        self.state, self.depth, self.levels = state, depth, levels

    def norm(self, name, x, level):
        """InstanceNorm++: gamma (z + alpha m) + beta, with m the maps' means, themselves normalised."""
        s = self.state
        if self.levels:
            rows = s[f"{name}.embed.weight"][level]
            gamma, alpha, beta = rows.reshape(len(x), 3, -1).unbind(1)
        else:
            gamma, alpha, beta = (s[f"{name}.{k}"].expand(len(x), -1) for k in GREEK)
        means = x.mean((2, 3))
        off = means - means.sum(1, keepdim=True) / means.shape[1]
        m = off / torch.sqrt((off**2).sum(1, keepdim=True) / (means.shape[1] - 1) + 1e-5)
        rest = x - means[..., None, None]
        z = rest / torch.sqrt((rest**2).mean((2, 3), keepdim=True) + 1e-5)
        gamma, alpha, beta, m = (v[..., None, None] for v in (gamma, alpha, beta, m))
        return gamma * (z + alpha * m) + beta

    def maybe(self, name, x, level):
        return self.norm(name, x, level) if self.levels else x

    def conv(self, name, x, dilation=1):
        weight = self.state[f"{name}.weight"]
        reach = dilation * (weight.shape[-1] // 2)
        bias = self.state.get(f"{name}.bias")
        return F.conv2d(x, weight, bias, padding=reach, dilation=dilation)

    def block(self, name, x, level, dilation, entry):
        h = self.conv(f"{name}.conv1", F.elu(self.norm(f"{name}.normalize1", x, level)), dilation)
        h = F.elu(self.norm(f"{name}.normalize2", h, level))
        if entry == "halve":
            return four(self.conv(f"{name}.conv2.conv", h)) + four(
                self.conv(f"{name}.shortcut.conv", x)
            )
        h = self.conv(f"{name}.conv2", h, dilation)
        return h + (self.conv(f"{name}.shortcut", x, dilation) if entry else x)

    def units(self, name, x, level, count):
        for k in range(1, count + 1):
            h = x
            for i in (1, 2):
                h = self.maybe(f"{name}.{k}_{i}_norm", h, level)
                h = self.conv(f"{name}.{k}_{i}_conv", F.elu(h))
            x = x + h
        return x

    def chain(self, name, x, level):
        path = total = F.elu(x)
        for i in (0, 1):
            path = self.maybe(f"{name}.norms.{i}", path, level)
            path = self.conv(f"{name}.convs.{i}", around(path, "mean" if self.levels else "max"))
            total = total + path
        return total

    def refine(self, name, xs, level, last):
        hs = [self.units(f"{name}.adapt_convs.{i}", x, level, 2) for i, x in enumerate(xs)]
        h = hs[0]
        if len(hs) > 1:
            parts = []
            for i, part in enumerate(hs):
                part = self.maybe(f"{name}.msf.norms.{i}", part, level)
                parts.append(stretched(self.conv(f"{name}.msf.convs.{i}", part), len(hs[0][0, 0])))
            h = sum(parts)
        return self.units(f"{name}.output_convs", self.chain(f"{name}.crp", h, level), level, last)

    def __call__(self, x, level):
        stages, back = PLANS[self.depth]
        h, layers = self.conv("begin_conv", 2 * x - 1), []
        for name, _, dilation, entry in stages:
            h = self.block(f"res{name}.0", h, level, dilation, entry)
            h = self.block(f"res{name}.1", h, level, dilation, "")
            layers.append(h)
        h = self.refine(f"refine{back[0]}", [layers.pop()], level, 1)
        for name in back[1:]:
            h = self.refine(f"refine{name}", [layers.pop(), h], level, 1 if layers else 3)
        return self.conv("end_conv", F.elu(self.norm("normalizer", h, level)))


GREEK = ("gamma", "alpha", "beta")


def four(x):
    """The mean of each square of four pixels."""
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def around(x, kind):
    """The mean (with zeros beyond the border) or maximum of the 5 × 5 pixels around each."""
    padded = F.pad(x, (2, 2, 2, 2), value=0.0 if kind == "mean" else -math.inf)
    n = x.shape[-1]
    shifted = torch.stack([padded[..., i : i + n, j : j + n] for i in range(5) for j in range(5)])
    return shifted.mean(0) if kind == "mean" else shifted.amax(0)


def stretched(x, size):
    """Linear interpolation in which the corner pixels stay where they are."""
    have = x.shape[-1]
    place = torch.arange(size) * (have - 1) / (size - 1)
    weights = (1 - (place[:, None] - torch.arange(have)).abs()).clamp_min(0)
    return torch.einsum("nh,bchw,mw->bcnm", weights, x, weights)


def ours(state, depth, levels, size, width=4, colours=3):
    net = build(
        "refinenet",
        {"size": size, "colours": colours, "width": width, "depth": depth, "levels": levels},
    )
    net.load_state_dict({rename(k, depth): v for k, v in state.items()})
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("levels", [0, 3])
def test_instance_norm_plus_is_its_formula(levels):
    x = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)) * 2 + 1
    norm, level = InstanceNormPlus(5, levels), torch.tensor([2, 0])
    state = {f"n.{k}": v.detach() for k, v in norm.named_parameters()}
    if levels:
        state = {"n.embed.weight": norm.table.detach()}
    with torch.no_grad():
        found = norm(x, level)
    torch.testing.assert_close(found, Published(state, 4, levels).norm("n", x, level))


@pytest.mark.parametrize("levels", [0, 5])
@pytest.mark.parametrize(("depth", "size"), [(4, 8), (4, 28), (5, 16), (6, 16)])
def test_the_network_is_that_of_the_papers(depth, size, levels):
    state = published_state(depth, levels)
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([0, 4])
    wanted = Published(state, depth, levels)(x, level)
    found = ours(state, depth, levels, size)(x, level.float())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.std()))


def test_only_a_network_with_levels_hears_the_level():
    x = torch.rand(1, 3, 8, 8)
    deaf, hearing = (ours(published_state(4, n), 4, n, 8) for n in (0, 5))
    first, last = torch.tensor([0.0]), torch.tensor([4.0])
    assert torch.equal(deaf(x, first), deaf(x, last))
    assert not torch.allclose(hearing(x, first), hearing(x, last))


def test_centred_pictures_are_taken_as_they_are():
    state = published_state()
    net, x, t = ours(state, 4, 0, 8), torch.rand(1, 3, 8, 8), torch.zeros(1)
    centred = build("refinenet", {"size": 8, "width": 4, "centred": True}).requires_grad_(False)
    centred.load_state_dict(net.state_dict())
    torch.testing.assert_close(centred(2 * x - 1, t), net(x, t))


def parameters(**options):
    with torch.device("meta"):
        net = build("refinenet", options)
    return sum(p.numel() for p in net.parameters())


def test_the_published_networks_have_their_known_size():
    # 29.7 million is what the literature gives for NCSNv2 on CIFAR-10; the tables of NCSN add, for each
    # norm of c channels that NCSNv2 has too, 3 c times nine more rows, and the rest are new.
    assert parameters() == pytest.approx(29.7e6, rel=1e-3)
    for depth, levels in ((4, 0), (4, 10), (5, 0), (6, 0)):
        state = published_state(depth, levels, width=8)
        total = sum(v.numel() for v in state.values())
        assert parameters(size=32, depth=depth, levels=levels, width=8) == total


@pytest.mark.parametrize(
    "wrong",
    [
        {"depth": 3},
        {"width": 1},
        {"width": 10**9},
        {"levels": -1},
        {"levels": 10**9},
        {"size": 31},
        {"size": 20, "depth": 6},
        {"size": 10**6},
        {"colours": 2},
        {"classes": 5},
    ],
)
def test_options_that_make_no_sense_are_refused_before_memory_is_asked_for(wrong):
    with pytest.raises(CheckpointError, match="options make no sense"):
        build("refinenet", wrong)


def test_gradients_reach_every_weight():
    net = build("refinenet", {"size": 8, "width": 4, "levels": 3})
    net(torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())
