"""The marginals of dx = f(t) x dt + g(t) dw for any f and g: integrated once, then looked up.

With F the integral of f from 0, x_t | x_0 has the mean factor a = exp(F) and the noise level
sigma² = G, the integral of g² / a². Time is cut into panels, down to 1e-6 towards 0; in each, f and
g² / a² are interpolated by polynomials through Chebyshev points, and F and G are those polynomials'
antiderivatives, exactly. A panel in which one of them misses its formula is halved. So a and sigma
are continuous, and their slopes are what the formulas say.

Written from each panel's left end on, where the first panel's begin at 0: nothing is subtracted, so
they keep their digits in single precision, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.errors import SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    Formula = Callable[[Tensor], Tensor]

_POINTS = 10  # of each panel; the error of a smooth formula falls as their power
_PANELS, _HALVINGS = 32, 15  # even ones, and how often the first is halved towards 0
_FINEST, _MOST = 2.0**-40, 4000  # the narrowest panel, and how many there may be
_EXACT = 1e-13  # error of a panel above which it is halved
_TOLERATED = 1e-6  # and what the narrowest may have, for kinks and roots
_LARGEST = 1e8  # of sigma, of a and of 1 / a
_LEAST = 1e-15  # sigma at the first time
_NEWTON = 9


@dataclass(frozen=True)
class Curve:
    """F and G on [0, 1]: in panel k, sums of pieces[j, :, k] u^j with u from 0 to 1."""

    edges: Tensor  # (N + 1,)
    pieces: Tensor  # (n, 2, N)

    def at(self, t: Tensor) -> Tensor:
        """F and G at times t of any shape: (2, *shape)."""
        k = (torch.searchsorted(self.edges, t.detach().contiguous(), right=True) - 1).clamp(
            0, self._last
        )
        u = (t - self.edges[k]) / (self.edges[k + 1] - self.edges[k])
        return _sum(self.pieces[:, :, k], u.expand(self.pieces.shape[1], *u.shape))

    def time(self, level: Tensor) -> Tensor:
        """The times at which G is `level`."""
        rising = self.pieces[:, 1]
        k = torch.searchsorted(rising[0].contiguous(), level.detach().contiguous(), right=True) - 1
        k = k.clamp(0, self._last)
        low, high = self.edges[k], self.edges[k + 1]
        return low + root(rising[:, k], level) * (high - low)

    def to(self, device: torch.device, dtype: torch.dtype) -> Curve:
        return Curve(self.edges.to(device, dtype), self.pieces.to(device, dtype))

    @property
    def _last(self) -> int:
        return self.pieces.shape[-1] - 1


def root(pieces: Tensor, level: Tensor) -> Tensor:
    """The u in [0, 1] at which rising polynomials, sums of pieces[j] u^j with pieces (n, B), are
    `level` (B,): Newton's steps, kept between bounds.
    """
    slopes = _derivative(pieces)
    low, high = torch.zeros_like(level), torch.ones_like(level)
    u = ((level - pieces[0]) / pieces[1:].sum(0)).clamp(0, 1)
    for _ in range(_NEWTON):
        over = u * _sum(pieces[1:], u) - (level - pieces[0])
        low, high = torch.where(over <= 0, u, low), torch.where(over >= 0, u, high)
        newton = u - over / _sum(slopes, u)
        inside = (newton >= low) & (newton <= high)
        u = torch.where(inside, newton, (low + high) / 2)
    return u


def integrate(f: Formula, g: Formula, first: float) -> Curve:
    """F and G, float64 on the CPU, to about 1e-12 of their size.

    Raises SpecError if f is not finite or g not positive somewhere on (0, 1], if they are too wild
    to integrate, or if there is too much noise at time `first` or too little at time 1.
    """
    edges = _first_edges()
    while True:
        curve, missed = _through(f, g, edges, first)
        rough = (missed > _EXACT) & (edges.diff() > _FINEST)
        if not bool(rough.any()) or len(edges) + int(rough.sum()) > _MOST:
            break
        edges = torch.cat([edges, ((edges[:-1] + edges[1:]) / 2)[rough]]).sort().values
    if bool((wild := missed > _TOLERATED).any()):
        raise SpecError(
            f"f(t) and g(t) cannot be integrated near t = {float(edges[:-1][wild][0]):.3g}.",
            "Keep them finite and smooth there.",
        )
    _judge(curve, first)
    return curve


def _through(f: Formula, g: Formula, edges: Tensor, first: float) -> tuple[Curve, Tensor]:
    """F and G in these panels; and what either gets wrong in each, (N,), as a share of a, and of
    sigma² from `first` on.
    """
    widths = edges.diff()
    drift, off = _interpolated(lambda t: _finite("f", f(t), t), edges)
    log_a = _antiderivative(drift, widths)
    alone = Curve(edges, log_a[:, None])
    growth, out = _interpolated(lambda t: _growth(g, t, alone), edges)
    variance = _antiderivative(growth, widths)
    ends = variance.sum(0)
    ends = ends.clamp_min(float(ends[edges[1:] >= first][0]))
    return Curve(edges, torch.stack([log_a, variance], 1)), torch.maximum(off, out / ends) * widths


def _first_edges() -> Tensor:
    even = torch.linspace(0, 1, _PANELS + 1, dtype=torch.float64, device="cpu")
    halved = even[1] / 2.0 ** torch.arange(_HALVINGS, 0, -1, dtype=torch.float64, device="cpu")
    return torch.cat([even[:1], halved, even[1:]])


def _interpolated(formula: Formula, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Polynomials in u (n, N) through the formula in each panel, and by how much they miss it
    between their points, (N,).
    """
    u = torch.cat([_chebyshev(_POINTS), _chebyshev(_POINTS + 1)])
    values = formula(edges[:-1] + u[:, None] * edges.diff())
    powers = u[:, None] ** torch.arange(_POINTS, dtype=u.dtype, device="cpu")
    pieces = torch.linalg.solve(powers[:_POINTS], values[:_POINTS])
    return pieces, (powers[_POINTS:] @ pieces - values[_POINTS:]).abs().amax(0)


def _chebyshev(count: int) -> Tensor:
    """Chebyshev points on [0, 1], none of them at an end."""
    angle = (torch.arange(count, dtype=torch.float64, device="cpu") + 0.5) / count
    return (1 - torch.cos(torch.pi * angle)) / 2


def _antiderivative(pieces: Tensor, widths: Tensor) -> Tensor:
    """Of polynomials (n, N) in panels of these widths, from 0 on: (n + 1, N)."""
    rising = pieces / (_powers(pieces) + 1) * widths
    ends = rising.sum(0).cumsum(0)
    return torch.cat([torch.cat([ends.new_zeros(1), ends[:-1]])[None], rising])


def _sum(pieces: Tensor, u: Tensor) -> Tensor:
    """pieces[j] u^j summed over j, pieces (n, *shape of u)."""
    *rest, total = pieces.unbind()
    for piece in reversed(rest):
        total = torch.addcmul(piece, total, u)
    return total


def _derivative(pieces: Tensor) -> Tensor:
    return pieces[1:] * (_powers(pieces[1:]) + 1)


def _powers(pieces: Tensor) -> Tensor:
    """0, 1, … along the first dimension."""
    powers = torch.arange(len(pieces), dtype=pieces.dtype, device=pieces.device)
    return powers.reshape(-1, *(1,) * (pieces.ndim - 1))


# -- what cannot be a noising process -------------------------------------------------------------


def _growth(g: Formula, t: Tensor, log_a: Curve) -> Tensor:
    """g² / a² at times t."""
    value = _finite("g", g(t), t)
    if not bool((value > 0).all()):
        where = (value <= 0).nonzero()[0]
        raise SpecError(
            f"g(t) must be above 0 on the way; at t = {_at(t, where)} it is {_at(value, where)}."
        )
    return _finite("σ", (value * torch.exp(-log_a.at(t)[0])) ** 2, t)


def _finite(name: str, value: Tensor, t: Tensor) -> Tensor:
    if not bool(torch.isfinite(value).all()):
        where = (~torch.isfinite(value)).nonzero()[0]
        raise SpecError(f"{name}(t) is no finite number at t = {_at(t, where)}.")
    return value


def _at(v: Tensor, where: Tensor) -> str:
    return f"{float(v[tuple(where)]):.3g}"


def _judge(curve: Curve, first: float) -> None:
    """Raises SpecError if sigma or a has values that no sampler could work with."""
    ends = torch.cat([curve.pieces[0], curve.pieces[:, :, -1:].sum(0)], 1)
    early = curve.at(torch.tensor([first], dtype=torch.float64, device="cpu"))[1]
    begin, end = float(early) ** 0.5, float(ends[1, -1]) ** 0.5
    if end < 1:
        raise SpecError(
            f"This process forgets too little: its noise ends at {end:.3g} times the picture.",
            "Let g grow: σ(1) has to be 1 at least, and 5 or more for good pictures.",
        )
    if not (end < _LARGEST and float(ends[0].abs().max()) < math.log(_LARGEST)):
        raise SpecError("f and g lead to numbers that are too large.", "Take smaller ones.")
    if begin > 1:
        raise SpecError(
            f"This process begins with too much noise: {begin:.3g} times the picture.",
            "Let g begin smaller.",
        )
    if begin < _LEAST or not bool((ends[1].diff() > 0).all()):
        raise SpecError("This process adds no noise for a part of its way.", "Let g be larger.")
