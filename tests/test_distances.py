"""Distances of sets of points, against what is known of laws and of a few points."""

from __future__ import annotations

import math

import numpy as np
import pytest

from studio.training import distances
from studio.training.distances import frechet, frechet_distance, kernel, manifolds, nearest

# -- Fréchet ----------------------------------------------------------------------------------------


def moments(mean: list[float], deviations: list[float]) -> np.ndarray:
    """Points in the plane with exactly this mean, these deviations and no correlation."""
    x, y = deviations
    corners = np.array([[x, y], [x, -y], [-x, y], [-x, -y]]) * math.sqrt(3) / 2
    return corners + mean


def test_the_frechet_distance_of_uncorrelated_gaussians_is_that_of_means_and_deviations() -> None:
    a, b = moments([0, 0], [1, 2]), moments([3, 1], [4, 0.5])
    np.testing.assert_allclose(np.cov(a.T), np.diag([1, 4]), atol=1e-12)
    assert frechet(a, b).value == pytest.approx(9 + 1 + 3**2 + 1.5**2)
    assert frechet_distance(a, b) == pytest.approx(22.25 - 1.25 + 0.25)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_does_not_care_about_a_turn_of_both() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 6)), rng.normal(size=(80, 6)) * 2 + 1
    turn = np.linalg.qr(rng.normal(size=(6, 6))).Q
    assert frechet(a @ turn, b @ turn).value == pytest.approx(frechet(a, b).value)
    assert frechet(a, b).value == pytest.approx(frechet(b, a).value)


def test_features_far_from_zero_lose_no_digits() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(60, 4)), rng.normal(size=(60, 4)) + 1
    assert frechet(a + 1e6, b + 1e6).value == pytest.approx(frechet(a, b).value, rel=1e-6)


# -- the kernel -------------------------------------------------------------------------------------


def discrepancy(p: np.ndarray, q: np.ndarray) -> float:
    """What the kernel distance of laws that are even over rows (K, D) must be.

    (x·y / D + 1)³ is an inner product of moments: the squared differences of the first, second and
    third moments, weighted by 3 / D, 3 / D² and 1 / D³.
    """
    total, d = 0.0, p.shape[1]
    for order, weight in ((1, 3), (2, 3), (3, 1)):
        product = {1: "ki->i", 2: "ki,kj->ij", 3: "ki,kj,kl->ijl"}[order]
        first, second = (np.einsum(product, *[x] * order) / len(x) for x in (p, q))
        total += weight / d**order * ((first - second) ** 2).sum()
    return total


def test_the_kernel_distance_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 0.4
    draws = [
        kernel(p[rng.integers(7, size=12)], q[rng.integers(5, size=9)]).value for _ in range(4000)
    ]
    error = np.std(draws) / math.sqrt(len(draws))
    assert np.mean(draws) == pytest.approx(discrepancy(p, q), abs=3.5 * error)
    assert error < 0.1 * discrepancy(p, q)


def test_the_kernel_distance_of_one_law_is_zero_on_average() -> None:
    rng = np.random.default_rng(2)
    draws = [kernel(rng.normal(size=(20, 4)), rng.normal(size=(15, 4))).value for _ in range(2000)]
    assert abs(np.mean(draws)) < 3.5 * np.std(draws) / math.sqrt(len(draws))
    assert min(draws) < 0 < max(draws)


def test_the_kernel_distance_is_the_sum_over_all_pairs_whatever_the_blocks(monkeypatch) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(23, 4)), rng.normal(size=(31, 4)) + 1

    def mean(x: np.ndarray, y: np.ndarray, alike: bool) -> float:
        values = (x @ y.T / 4 + 1) ** 3
        return values[~np.eye(len(x), dtype=bool)].mean() if alike else values.mean()

    wanted = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    assert kernel(a, b).value == pytest.approx(wanted)
    monkeypatch.setattr(distances, "_ROWS", 7)
    assert kernel(a, b).value == pytest.approx(wanted)


@pytest.mark.parametrize("distance", [frechet, kernel])
def test_error_bars_are_about_as_long_as_figures_scatter(distance) -> None:
    rng = np.random.default_rng(4)
    found = [
        distance(rng.normal(size=(200, 3)), rng.normal(size=(260, 3)) + 0.5) for _ in range(80)
    ]
    scatter = np.std([f.value for f in found])
    assert 0.75 * scatter < np.mean([f.error for f in found]) < 1.4 * scatter


# -- manifolds --------------------------------------------------------------------------------------


def line(*places: float) -> np.ndarray:
    return np.array(places, np.float64)[:, None]


def test_precision_and_recall_of_points_on_a_line() -> None:
    # The third neighbours of 0 … 6 are 3, 2, 2, 3 (of the middle: 2), … away.
    real = line(0, 1, 2, 3, 4, 5, 6)
    # 3.4 is among them; 8 is within 3 of 6; 20 is nowhere near.
    made = line(3.4, 8, 20, 40, 60, 80)
    found = manifolds(made, real)
    assert found.precision.value == pytest.approx(2 / 6)
    # 3.4's third neighbour is 40, so its ball of 36.6 has all real points in it.
    assert found.recall.value == 1


def test_a_set_covers_itself_and_none_that_is_elsewhere() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 3))
    same = manifolds(a, a)
    assert same.precision.value == same.recall.value == same.coverage.value == 1
    far = manifolds(a, a + 100)
    assert far.precision.value == far.recall.value == far.coverage.value == far.density.value == 0


def test_one_mode_of_two_is_precise_and_recalls_half() -> None:
    rng = np.random.default_rng(1)
    modes = rng.normal(size=(200, 3)) + np.repeat([[0, 0, 0], [100, 0, 0]], 100, axis=0)
    one = rng.normal(size=(200, 3))
    found = manifolds(one, modes)
    assert found.precision.value > 0.9
    assert 0.4 < found.recall.value <= 0.5
    assert 0.4 < found.coverage.value <= 0.5
    assert manifolds(modes, one).precision.value <= 0.5


def test_density_counts_the_balls_that_a_point_is_in() -> None:
    # Each ball to the fifth neighbour holds all of six points at one distance from each other.
    real = np.eye(6)
    found = manifolds(np.full((6, 6), 1 / 6), real)
    assert found.density.value == pytest.approx(6 / 5)
    assert found.coverage.value == 1


def test_density_of_one_law_is_one() -> None:
    rng = np.random.default_rng(2)
    found = manifolds(rng.normal(size=(1500, 4)), rng.normal(size=(1500, 4)))
    assert found.density.value == pytest.approx(1, abs=3 * found.density.error)


# -- nearest ----------------------------------------------------------------------------------------


def test_the_nearest_is_found_in_bytes_and_a_copy_is_at_no_distance(monkeypatch) -> None:
    monkeypatch.setattr(distances, "_ROWS", 16)
    rng = np.random.default_rng(0)
    among = rng.integers(0, 256, (100, 3072), dtype=np.uint8)
    asked = among[[17, 99, 0]].copy()
    asked[1, 0] = among[99, 0] ^ 3
    distance, place = nearest(asked, among)
    assert place.tolist() == [17, 99, 0]
    assert distance[[0, 2]].tolist() == [0, 0]
    assert distance[1] == abs(int(asked[1, 0]) - int(among[99, 0]))
