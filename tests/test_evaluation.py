"""The figures of a card, on pictures whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import gaussian_score

from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.sde import VPSDE
from studio.errors import DataError
from studio.lazy import torch
from studio.training.data import Pictures
from studio.training.evaluation import Ruler, accuracy, grain, renamed, train_classifier
from studio.training.features import FeatureSpace
from studio.training.kept import draw

pytestmark = pytest.mark.usefixtures("one_thread")


def gradients(count: int, size: int = 16) -> np.ndarray:
    """Smooth pictures: each channel changes evenly from top to bottom."""
    down = np.linspace(0, 200, size).reshape(1, size, 1, 1)
    tint = np.arange(count).reshape(count, 1, 1, 1) % 40
    return np.broadcast_to(down + tint, (count, size, size, 3)).round().astype(np.uint8)


def test_a_smooth_gradient_has_no_grain_and_noise_has_its_own_deviation() -> None:
    assert grain(gradients(8)).max() < 0.5
    rng = np.random.default_rng(0)
    noisy = (gradients(64) + 20 + rng.normal(0, 6, (64, 16, 16, 3))).round().clip(0, 255)
    # Taking the mean of 3×3 away leaves 8/9 of the variance of white noise.
    assert np.median(grain(noisy.astype(np.uint8))) == pytest.approx(6 * np.sqrt(8 / 9), rel=0.05)


def test_grain_looks_at_the_corners_only() -> None:
    pixels = gradients(4)
    pixels[:, 6:-6, 6:-6] = np.random.default_rng(0).integers(0, 255, (4, 4, 4, 3))
    assert grain(pixels).max() < 0.5


def dots(count: int) -> Pictures:
    """Two classes: a bright spot above, or below."""
    labels = np.arange(count) % 2
    pixels = np.full((count, 16, 16, 3), 40, np.uint8)
    for i, label in enumerate(labels):
        pixels[i, 2:6, 4:12] = 220 if label == 0 else 40
        pixels[i, 10:14, 4:12] = 220 if label == 1 else 40
        pixels[i] += np.random.default_rng(i).integers(0, 20, (16, 16, 3), dtype=np.uint8)
    return Pictures(pixels, labels.astype(np.int64), ("above", "below"))


def test_a_classifier_learns_what_can_be_seen() -> None:
    seen = dots(128)
    classifier = train_classifier(seen.pixels, seen.labels, 2, steps=60)
    fresh = dots(90)
    assert accuracy(classifier, fresh.pixels, fresh.labels) > 0.98
    assert accuracy(classifier, fresh.pixels, 1 - fresh.labels) < 0.02


def test_pictures_are_drawn_by_seed_whatever_the_batch() -> None:
    score = gaussian_score(VPSDE(), 0.5, (3, 8, 8))
    made = draw(score, SAMPLERS["dpm2m"](steps=5), 40, seed=3)
    some = draw(score, SAMPLERS["dpm2m"](steps=5), 2, seed=3 + 35)
    assert np.abs(made.pixels[35:37].astype(int) - some.pixels.astype(int)).max() <= 1
    assert (made.labels == -1).all()
    assert made.calls == SAMPLERS["dpm2m"](steps=5).cost()


def few_numbers(width: int = 12) -> FeatureSpace:
    """A space without training: the means of bands of rows, of each colour."""

    def fn(pixels: np.ndarray) -> torch.Tensor:
        bands = pixels.astype(np.float32).reshape(len(pixels), 4, -1, pixels.shape[2], 3)
        return torch.from_numpy(bands.mean((2, 3)).reshape(len(pixels), width) / 50)

    return FeatureSpace("bands", width, fn)


def test_pictures_of_the_law_get_what_real_ones_get_and_others_do_not() -> None:
    ruler = Ruler(few_numbers(), dots(200))
    same, floor = dots(60), ruler.floor(60)
    found = ruler.figures(same.pixels, same.labels)
    assert found.count == floor.count == 60
    assert abs(found.kernel.value) < 3 * found.kernel.error
    assert found.frechet.value == pytest.approx(floor.frechet.value, abs=0.05)
    assert found.named.value == floor.named.value == 1
    other = ruler.figures(255 - same.pixels, same.labels)
    assert other.frechet.value > 10 * floor.frechet.value
    assert other.kernel.value > 10 * other.kernel.error
    assert other.precision.value == other.recall.value == other.coverage.value == 0
    assert other.named.value < 0.1


def test_pictures_without_classes_leave_recognition_out() -> None:
    real = dots(40)
    ruler = Ruler(few_numbers(), real)
    assert np.isnan(ruler.figures(real.pixels, np.full(40, -1)).named.value)
    without = Pictures(real.pixels, np.full(40, -1))
    assert np.isnan(Ruler(few_numbers(), without).floor(20).named.value)


def test_the_reference_may_be_other_pictures_and_then_all_real_ones_are_held_against_it() -> None:
    ruler = Ruler(few_numbers(), dots(30), dots(50))
    assert len(ruler.reference) == 50
    assert ruler.floor(100).count == 30


def test_a_handful_of_pictures_is_too_few() -> None:
    with pytest.raises(DataError, match="too few"):
        Ruler(few_numbers(), dots(9))
    with pytest.raises(DataError, match="at least"):
        Ruler(few_numbers(), dots(40)).figures(dots(3).pixels, dots(3).labels)


def test_classes_are_matched_by_their_names() -> None:
    labels = np.array([0, 1, 2, -1])
    found = renamed(labels, ("dog", "cat", "owl"), ("cat", "dog"))
    assert found.tolist() == [1, 0, -1, -1]
