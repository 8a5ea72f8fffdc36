"""How far two sets of points are apart: features of made pictures and of real ones. No network here.

A set is (N, D). Every figure comes with its standard error, by leaving out one of twenty random groups
of a set at a time (the grouped jackknife), for both sets; that of shares is the binomial one.

The Fréchet distance of few points is too large, by about D / N even where the laws are one, so it means
something beside what as many right points get. The kernel distance has no such bias and may be negative.

Sources: Heusel et al. 2017 (Fréchet); Bińkowski et al. 2018, "Demystifying MMD GANs" (kernel: cubic,
unbiased); Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric"; Naeem et al. 2020, "Reliable
Fidelity and Diversity Metrics" (density, coverage); Bonneel et al. 2015, "Sliced and Radon Wasserstein
Barycenters of Measures"; Efron and Stein 1981 (jackknife).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

GROUPS = 20  # of the jackknife
NEIGHBOURS = 3  # whose distance is the radius of a ball of the manifold
_CROWD = 5  # the same for density and coverage
_ROWS = 1024  # of a matrix of all pairs at once


@dataclass(frozen=True)
class Figure:
    """A value with its standard error, nan where that is unknown."""

    value: float
    error: float = math.nan


# -- laws by their moments ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sums:
    """The count, the sum (D,) and the sum of products (D, D) of points."""

    count: int
    first: np.ndarray
    second: np.ndarray

    @staticmethod
    def of(points: np.ndarray) -> _Sums:
        return _Sums(len(points), points.sum(0), points.T @ points)

    def without(self, other: _Sums) -> _Sums:
        return _Sums(self.count - other.count, self.first - other.first, self.second - other.second)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance."""
        mean = self.first / self.count
        spread = self.second - self.count * np.outer(mean, mean)
        return mean, spread / (self.count - 1)


def frechet(a: np.ndarray, b: np.ndarray) -> Figure:
    """Squared Wasserstein-2 distance of the Gaussians with the moments of (N, D) and (M, D)."""
    first, second = _about_one_point(a, b)
    whole, other = _Sums.of(first), _Sums.of(second)
    to_second, to_first = _Law.of(other), _Law.of(whole)
    spread = _spread([to_second.away(whole.without(part)) for part in _parts(first)])
    spread += _spread([to_first.away(other.without(part)) for part in _parts(second)])
    return Figure(to_second.away(whole), math.sqrt(spread))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The value of `frechet` alone."""
    first, second = _about_one_point(a, b)
    return _Law.of(_Sums.of(second)).away(_Sums.of(first))


def _about_one_point(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets about the mean of the second, where sums of squares lose fewest digits."""
    middle = b.mean(0, dtype=np.float64)
    return a.astype(np.float64) - middle, b.astype(np.float64) - middle


@dataclass(frozen=True)
class _Law:
    """A Gaussian: its mean, covariance and the root of that."""

    mean: np.ndarray
    covariance: np.ndarray
    root: np.ndarray

    @staticmethod
    def of(sums: _Sums) -> _Law:
        mean, covariance = sums.moments()
        values, vectors = np.linalg.eigh(covariance)
        return _Law(mean, covariance, vectors * np.sqrt(values.clip(0)) @ vectors.T)

    def away(self, sums: _Sums) -> float:
        """The squared distance of the Gaussian of other points."""
        mean, covariance = sums.moments()
        shared = np.linalg.eigvalsh(self.root @ covariance @ self.root).clip(0)
        gap = mean - self.mean
        traces = np.trace(covariance) + np.trace(self.covariance)
        return float(gap @ gap + traces - 2 * np.sqrt(shared).sum())


# -- laws by a kernel -----------------------------------------------------------------------------


def kernel(a: np.ndarray, b: np.ndarray) -> Figure:
    """Squared maximum mean discrepancy of (N, D) and (M, D) under k(x, y) = (x·y / D + 1)³, unbiased.

    Over all pairs at once. Its expectation is what subsets of any size have, and it scatters less.
    """
    first, second = (_grouped(x.astype(np.float64)) for x in (a, b))
    within, across, beyond = (
        _kernel_sums(first, first),
        _kernel_sums(first, second),
        _kernel_sums(second, second),
    )
    own, other = first.sizes, second.sizes

    def value(kept: np.ndarray, there: np.ndarray) -> float:
        n, m = own @ kept, other @ there
        near = kept @ within @ kept / (n * (n - 1)) + there @ beyond @ there / (m * (m - 1))
        return float(near - 2 * (kept @ across @ there) / (n * m))

    every, all_there = np.ones(len(own)), np.ones(len(other))
    spread = _spread([value(every - unit, all_there) for unit in np.eye(len(own))])
    spread += _spread([value(every, all_there - unit) for unit in np.eye(len(other))])
    return Figure(value(every, all_there), math.sqrt(spread))


@dataclass(frozen=True)
class _Grouped:
    points: np.ndarray  # in the order of their groups
    starts: np.ndarray
    sizes: np.ndarray


def _grouped(points: np.ndarray) -> _Grouped:
    groups = _groups(len(points))
    sizes = np.array([len(group) for group in groups])
    starts = np.concatenate([[0], sizes.cumsum()[:-1]])
    return _Grouped(points[np.concatenate(groups)], starts, sizes)


def _kernel_sums(a: _Grouped, b: _Grouped) -> np.ndarray:
    """Sums of the kernel over pairs from a group and a group; of a point with itself left out."""
    sums = np.zeros((len(a.sizes), len(b.sizes)))
    group = np.repeat(np.arange(len(a.sizes)), a.sizes)
    for rows in _rows(len(a.points)):
        products = a.points[rows] @ b.points.T / a.points.shape[1] + 1
        values = products * products * products  # a power would take ten times as long
        if a is b:
            values[np.arange(len(values)), np.arange(rows.start, rows.stop)] = 0
        np.add.at(sums, group[rows], np.add.reduceat(values, b.starts, axis=1))
    return sums


# -- the jackknife --------------------------------------------------------------------------------


def _groups(count: int) -> list[np.ndarray]:
    """The places of `count` points in random groups, for points may come in an order."""
    order = np.random.default_rng(count).permutation(count)
    return np.array_split(order, max(2, min(GROUPS, count // 2)))


def _parts(points: np.ndarray) -> Iterator[_Sums]:
    return (_Sums.of(points[group]) for group in _groups(len(points)))


def _spread(values: list[float]) -> float:
    """The variance of a figure from what it is without each group."""
    away = np.array(values) - np.mean(values)
    return float((len(values) - 1) / len(values) * (away @ away))


# -- laws by their neighbours ---------------------------------------------------------------------


@dataclass(frozen=True)
class Manifolds:
    """How two sets cover each other. `precision`: the share of made points in the real manifold, the
    balls around real points that reach their third neighbour; `recall`: of real points in that of the
    made. `density`: how many of the balls to the fifth neighbour a made point lies in, over five (1 for
    one law); `coverage`: the share of those balls with a made point in them.
    """

    precision: Figure
    recall: Figure
    density: Figure
    coverage: Figure


def manifolds(made: np.ndarray, real: np.ndarray) -> Manifolds:
    """The Manifolds of (N, D) and (M, D), each with more than five points. They depend on N and M."""
    one, other = made.astype(np.float64), real.astype(np.float64)
    made_radii = _radii(one, (NEIGHBOURS,))[0]
    real_radii, wide = _radii(other, (NEIGHBOURS, _CROWD))
    precise, crowd = np.zeros(len(one), bool), np.zeros(len(one))
    recalled, covered = np.zeros(len(other), bool), np.zeros(len(other), bool)
    for rows in _rows(len(one)):
        d = _squares(one[rows], other)
        precise[rows] = (d <= real_radii).any(1)
        recalled |= (d <= made_radii[rows, None]).any(0)
        inside = d <= wide
        crowd[rows] = inside.sum(1) / _CROWD
        covered |= inside.any(0)
    error = float(crowd.std(ddof=1) / math.sqrt(len(crowd)))
    return Manifolds(
        share(precise), share(recalled), Figure(float(crowd.mean()), error), share(covered)
    )


def share(which: np.ndarray) -> Figure:
    """The share of what is true of bool (N,), with its binomial error."""
    p = float(which.mean())
    return Figure(p, math.sqrt(p * (1 - p) / len(which)))


def _radii(points: np.ndarray, ranks: tuple[int, ...]) -> np.ndarray:
    """Squared distances (len(ranks), N) of each point to its neighbours of these ranks."""
    found = np.empty((len(ranks), len(points)))
    for rows in _rows(len(points)):
        d = _squares(points[rows], points)
        d[np.arange(len(d)), np.arange(rows.start, rows.stop)] = -1  # itself comes first
        found[:, rows] = np.partition(d, ranks, axis=1)[:, ranks].T
    return found


def nearest(
    points: np.ndarray, among: np.ndarray, report: Callable[[int, int], None] = lambda *_: None
) -> tuple[np.ndarray, np.ndarray]:
    """(distance (N,), place (N,)) of the nearest of (M, D) to each of (N, D), of any numeric type."""
    one = points.astype(np.float32)
    best, place = np.full(len(one), np.inf, np.float32), np.zeros(len(one), np.int64)
    for rows in _rows(len(among)):
        d = _squares(one, among[rows].astype(np.float32))
        at = d.argmin(1)
        least = d[np.arange(len(d)), at]
        closer = least < best
        best[closer], place[closer] = least[closer], rows.start + at[closer]
        report(rows.stop, len(among))
    # By differences, because sums of squares cancel where two are nearly one.
    gap = points.astype(np.float64) - among[place]
    return np.sqrt((gap**2).sum(1)), place


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances (N, M) of (N, D) and (M, D)."""
    d = a @ b.T
    d *= -2
    d += (a**2).sum(1)[:, None]
    d += (b**2).sum(1)
    return d.clip(0, out=d)


def _rows(count: int) -> Iterator[slice]:
    return (slice(i, min(i + _ROWS, count)) for i in range(0, count, _ROWS))


# -- laws by their shadows ------------------------------------------------------------------------


def sliced_distance(a: np.ndarray, b: np.ndarray, projections: int = 128, seed: int = 0) -> float:
    """Sliced Wasserstein-2 distance of two sets (N, D) and (M, D), in units of one value.

    The root mean square, over fixed random directions, of the exact distance in each.
    """
    directions = np.random.default_rng(seed).normal(size=(a.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    low, high = (np.sort(x.astype(np.float64) @ directions, axis=0) for x in (a, b))
    n, m = len(a), len(b)
    # Both quantile functions are constant between these shares, counted in 1 / (n m).
    edges = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(edges, prepend=0) / (n * m)
    gaps = low[(edges - 1) // m] - high[(edges - 1) // n]
    return float(np.sqrt((widths @ gaps**2).mean()))
