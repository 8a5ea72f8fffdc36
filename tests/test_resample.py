"""Resampling against its definition: zeros put in, a convolution summed by hand, pixels left out."""

from __future__ import annotations

import pytest
import torch
from score_sde_reference import slow_down, slow_up, upfirdn
from torch.nn import functional as F

from studio.networks.resample import (
    TAPS,
    Resample,
    fir_down,
    fir_down_conv,
    fir_kernel,
    fir_up,
    fir_up_conv,
)

pytestmark = pytest.mark.usefixtures("one_thread")

every_taps = pytest.mark.parametrize(
    "taps",
    [TAPS, (1, 1), (1,), (1, 2, 1), (1, 2, 3, 0), (1, 4, 6, 4, 1), (1, 5, 10, 10, 5, 1)],
    ids=str,
)


def picture(seed=0, size=8, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, size, size + 2, generator=generator, dtype=torch.float64)


def kernel(taps):
    return fir_kernel(taps).double()


@every_taps
def test_halving_is_the_definition(taps):
    x = picture()
    torch.testing.assert_close(fir_down(x, kernel(taps)), slow_down(x, taps), rtol=0, atol=1e-6)


@every_taps
def test_doubling_is_the_definition(taps):
    x = picture()
    torch.testing.assert_close(fir_up(x, kernel(taps)), slow_up(x, taps), rtol=0, atol=1e-6)


@pytest.mark.parametrize("taps", [TAPS, (1, 2, 1), (1, 2, 3, 0)], ids=str)
def test_convolutions_with_a_filter_are_the_definition(taps):
    x, weight = picture(), picture(1, 3, 3)[:, :, :, :3]
    extra = len(taps)
    filtered = upfirdn(x, taps, ((extra + 1) // 2, extra // 2))
    down = fir_down_conv(x, weight, kernel(taps))
    torch.testing.assert_close(down, F.conv2d(filtered, weight, stride=2), rtol=0, atol=1e-6)
    assert down.shape[2:] == (4, 5)

    wide = torch.zeros(2, 3, 15, 19, dtype=x.dtype)
    wide[:, :, ::2, ::2] = x
    extra = len(taps) - 4
    wide = F.conv2d(wide, weight, padding=2)
    wanted = 4 * upfirdn(wide, taps, ((extra + 1) // 2 + 1, extra // 2 + 1))
    up = fir_up_conv(x, weight, kernel(taps))
    torch.testing.assert_close(up, wanted, rtol=0, atol=1e-6)
    assert up.shape[2:] == (16, 20)


def test_a_flat_picture_stays_as_bright():
    x = torch.ones(1, 1, 8, 8)
    resample = Resample()
    torch.testing.assert_close(resample.down(x)[..., 1:-1, 1:-1], torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(resample.up(x)[..., 2:-2, 2:-2], torch.ones(1, 1, 12, 12))


def test_without_a_filter_pixels_are_averaged_and_repeated():
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    resample = Resample(())
    assert resample.down(x).tolist() == [[[[1.5]]]]
    assert resample.up(x)[0, 0].tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2


def test_the_kernel_is_no_weight_and_follows_its_network():
    with torch.device("meta"):
        resample = Resample()
    assert resample.state_dict() == {}
    assert resample.kernel.device.type == "cpu"  # it has values even where weights have none
    assert resample.double().kernel.dtype == torch.float64


def test_gradients_go_through():
    x = picture(size=4).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: fir_up(fir_down(x, kernel(TAPS)), kernel(TAPS)), (x,))
