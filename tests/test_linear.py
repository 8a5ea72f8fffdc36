"""Linear measurements against matrices: adjoints, inverses, what is put back, the blur by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from studio.diffusion import colour
from studio.diffusion.linear import Blocks, Blur, Coordinates
from studio.errors import SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 4, 6)
SIZE = math.prod(SHAPE)
BASIS = colour.basis(colour.WEIGHTS["rec709"])


def until(seed=0):
    """Some coordinates known for good, some down to a level, some never."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.tensor([0.0, 0.5, math.inf], dtype=torch.float64)
    return levels[torch.randint(3, (1, *SHAPE), generator=generator)]


OPERATORS = {
    "some values": Coordinates(until()),
    "some colours": Coordinates(until(1), BASIS),
    "some now": Coordinates(until()).at(torch.ones(1)),
    "blocks": Blocks(2),
    "blur": Blur(0.7),
}
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
every_exact = pytest.mark.parametrize(
    "operator", [op for op in OPERATORS.values() if op.exact], ids=list(OPERATORS)[:-1]
)


def units(shape=SHAPE):
    return torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)


def matrix(operator, shape=SHAPE):
    """A, a column for each value of a picture."""
    return operator.forward(units(shape)).flatten(1).T


def somewhere(*shape, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@every_operator
def test_the_adjoint_is_the_transposed_matrix(operator):
    a = matrix(operator)
    y = operator.forward(somewhere(2, *SHAPE))
    y = somewhere(*y.shape, seed=6)
    close(operator.adjoint(y).flatten(1), y.flatten(1) @ a)


@every_operator
@pytest.mark.parametrize("v", [0.3, 1e-4])
def test_solve_is_the_inverse_matrix(operator, v):
    """On what can be measured; elsewhere nobody asks."""
    a, r2 = matrix(operator), torch.tensor([0.7, 2.0], dtype=torch.float64)
    y = operator.forward(somewhere(2, *SHAPE))
    found = operator.solve(y, r2.reshape(-1, 1, 1, 1), v)
    for i in range(2):
        whole = r2[i] * a @ a.T + v * torch.eye(len(a), dtype=torch.float64)
        wanted = torch.linalg.solve(whole, y[i].flatten())
        torch.testing.assert_close(found[i].flatten(), wanted, rtol=1e-7, atol=1e-7)


@every_exact
def test_what_is_restored_is_the_smallest_state_that_measures_the_same(operator):
    a, y = matrix(operator), operator.forward(somewhere(2, *SHAPE))
    restored = operator.restored(y)
    close(operator.forward(restored), y)
    close(restored.flatten(1), y.flatten(1) @ torch.linalg.pinv(a).T)


@every_exact
def test_putting_back_changes_nothing_else(operator):
    x, picture = somewhere(2, *SHAPE), somewhere(1, *SHAPE, seed=9)
    put = x + operator.restored(operator.forward(picture - x))
    close(operator.forward(put), operator.forward(picture).expand(2, -1, -1, -1))
    rest = put - x
    close(rest, operator.restored(operator.forward(rest)))


@every_operator
def test_maps_keep_the_precision_they_are_given(operator):
    x = somewhere(1, *SHAPE).float()
    y = operator.forward(x)
    solved = operator.solve(y, y.new_ones(1, 1, 1, 1), 0.1)
    assert {v.dtype for v in (y, solved, operator.adjoint(y))} == {torch.float32}
    torch.testing.assert_close(y, operator.forward(x.double()).float(), rtol=1e-5, atol=1e-5)


# -- coordinates ----------------------------------------------------------------------------------


def test_a_coordinate_is_known_down_to_its_level_and_not_below():
    levels = torch.tensor([0.0, 0.5, math.inf], dtype=torch.float64).reshape(1, 1, 1, 3)
    operator = Coordinates(levels)
    now = operator.at(torch.tensor([0.49, 0.5, 5.0]))
    known = now.forward(torch.ones(3, 1, 1, 3)).reshape(3, 3).tolist()
    assert known == [[1, 0, 0], [1, 1, 0], [1, 1, 0]]
    assert operator.free_below == math.inf
    assert Coordinates(levels[..., :2]).free_below == 0.5


def test_a_basis_of_brightness_knows_brightness_alone():
    levels = torch.full((1, *SHAPE), math.inf, dtype=torch.float64)
    levels[:, 0] = 0
    operator = Coordinates(levels, BASIS)
    w = torch.tensor(colour.WEIGHTS["rec709"], dtype=torch.float64)
    x = somewhere(2, *SHAPE)
    told = torch.einsum("c,bchw->bhw", w / w.norm(), x)
    y = operator.forward(x)
    close(y[:, 0], told)
    assert not y[:, 1:].any()


def test_each_sample_keeps_its_own_coordinates():
    both = torch.cat([until(0), until(1)])
    one = Coordinates(both).of(torch.tensor([1]))
    assert torch.equal(one.until, both[1:])
    shared = Coordinates(until())
    assert shared.of(torch.tensor([0, 0, 0])) is shared


# -- blocks and blur ------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 4])
def test_blocks_are_means(side):
    x = somewhere(1, 2, 4, 8)
    wanted = x.reshape(1, 2, 4 // side, side, 8 // side, side).mean((3, 5))
    close(Blocks(side).forward(x), wanted)


@pytest.mark.parametrize("size", [(5, 4), (4, 5), (1, 1)])
def test_pictures_that_do_not_fall_into_blocks_are_refused(size):
    with pytest.raises(SpecError, match=f"{size[1]}×{size[0]} has no 2×2 blocks"):
        Blocks(2).forward(torch.zeros(1, 1, *size))


def mirrored_blur(n, radius):
    """The blur of n values by its definition: a periodic Gaussian's answer to each cosine wave, with
    which values mirrored at both ends repeat (the cosine transform of type II)."""
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    waves = np.cos(np.pi * k * (2 * i + 1) / (2 * n)) * np.sqrt(np.where(k == 0, 1, 2) / n)
    passed = np.exp(-2 * (np.pi * radius * k / (2 * n)) ** 2)
    return torch.from_numpy(waves.T @ (passed * waves))


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 7), (1, 1)])
@pytest.mark.parametrize("radius", [0.3, 1.0, 4.0])
def test_a_blur_is_its_matrix_along_each_axis(size, radius):
    x = somewhere(2, 1, *size)
    rows, columns = (mirrored_blur(n, radius) for n in size)
    close(Blur(radius).forward(x), rows @ x @ columns.T)


def test_a_blur_is_the_gaussian_of_its_radius_with_mirrored_ends():
    """Summed by hand, on a picture mirrored again and again: what cosine waves are short for."""
    radius, n = 1.5, 9
    x = somewhere(n)
    i = torch.arange(-40, 41).double()
    kernel = torch.exp(-(i**2) / (2 * radius**2))
    kernel /= kernel.sum()
    ends = torch.cat([x, x.flip(0)])
    wanted = [
        sum(k * ends[(p + int(j)) % (2 * n)] for k, j in zip(kernel, i, strict=True))
        for p in range(n)
    ]
    found = Blur(radius).forward(x.reshape(1, 1, 1, n)).flatten()
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-5, atol=1e-5)


def test_a_blur_keeps_an_even_picture_and_its_mean():
    even = torch.full((1, 1, 5, 4), 0.7, dtype=torch.float64)
    close(Blur(2.0).forward(even), even)
    x = somewhere(1, 1, 5, 4)
    close(Blur(2.0).forward(x).mean(), x.mean())


def test_the_picture_a_blur_is_seen_in_is_the_blurred_one():
    x = somewhere(1, *SHAPE)
    assert Blur(1.0).measured(x) is x
    assert torch.equal(Blocks(2).measured(x), Blocks(2).forward(x))
