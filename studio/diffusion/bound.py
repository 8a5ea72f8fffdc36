"""A bound on the bits of pictures from how well noise is found in them: no solver, no trace.

For every linear SDE, with D values in a picture, sigma = s / a, and e(sigma) the mean squared error of
the noise found at that level,

    -ln p(x_0) <= E[-ln prior(x_1)] - D ln(a_1 / a_0) + D ∫ (e - 1) d ln(sigma)

in the mean over noise, where the integral goes from the first time to the last and p is the density of
pictures with the little noise of the first time. It is exact where the network's score is that of the
model's own marginals.

Source: Song et al. 2021, "Maximum Likelihood Training of Score-Based Diffusion Models", theorem 3 and
equation 12, with g² / s² dt = d ln(sigma²).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from studio.diffusion.pictures import LEVELS
from studio.diffusion.sde import FIRST_TIME, SDE
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def bits_bound(sde: SDE, x_0: Tensor, errors: Tensor, value_range: tuple[float, float]) -> float:
    """Bits per dimension of 8-bit pictures, at most. x_0 (B, C, H, W): the pictures spread over their
    levels, in `value_range`; `errors` (M,): of the noise, at levels even in ln(sigma).
    """
    ends = torch.tensor([FIRST_TIME, 1.0], dtype=torch.float64)
    (a_0, a_1), (s_0, s_1) = (v.tolist() for v in sde.marginal(ends))
    variance = sde.prior_std**2
    square = a_1**2 * float(x_0.double().pow(2).mean()) + s_1**2
    prior = 0.5 * (math.log(2 * math.pi * variance) + square / variance)
    way = math.log(s_1 / a_1) - math.log(s_0 / a_0)
    nats = prior - math.log(a_1 / a_0) + way * (float(errors.double().mean()) - 1)
    low, high = value_range
    return nats / math.log(2) + math.log2(LEVELS / (high - low))
