"""The flow as jobs: bits, noises and ways as events, told while they form, kept when stopped."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import gaussian_score, mixture_score
from PIL import Image

import studio
from studio.diffusion import pictures
from studio.diffusion.likelihood import Measure
from studio.diffusion.sde import VESDE, VPSDE
from studio.engine.engine import Stopped
from studio.engine.events import Done, Finished, Picture, Progress
from studio.engine.flow_jobs import (
    Cost,
    Decoded,
    DecodeJob,
    Encoded,
    EncodeJob,
    InterpolateJob,
    LikelihoodJob,
    Measured,
    ProbeJob,
    ReadJob,
    RoundTripJob,
    apart,
    coarse_to_fine,
    fitted,
    outliers,
    shades,
    there_and_back,
)
from studio.engine.jobs import Setting
from studio.errors import DataError, PictureError, SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 4, 4)
ROUGH = Measure(rtol=1e-2, atol=1e-2, probes=1)


class OneModel:
    """A shelf with one score, whatever is asked for."""

    def __init__(self, score: Any) -> None:
        self.score = score

    def load(self, *_: object, **__: object) -> Any:
        return self.score


def setting(score: Any = None, rate: float = 1e9) -> Setting:
    return Setting(OneModel(score or mixed()), "cpu", rate=rate)


def mixed(sde: Any = None) -> Any:
    return mixture_score(sde or VPSDE(), (-0.6, 0.4), 0.4, (0.3, 0.7), SHAPE)


def some_pictures(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 4, 4, 3), np.uint8)


def told(job: Any, kind: type, score: Any = None) -> list[Any]:
    return [e for e in job.run(setting(score)) if isinstance(e, kind)]


# -- likelihood -----------------------------------------------------------------------------------


def test_the_bits_of_a_set_are_those_of_the_library():
    pixels = some_pictures(3)
    job = LikelihoodJob("m", (pixels,), ROUGH, batch=2)
    ends = [e for e in told(job, Measured) if e.finished]
    assert [e.first for e in ends] == [0, 2]
    bits = np.concatenate([e.bits for e in ends])
    wanted = studio.log_likelihood(mixed(), pixels, rtol=1e-2, atol=1e-2, probes=1)
    np.testing.assert_allclose(bits, wanted.numpy(), atol=1e-5)
    assert ends[0].map.shape == (2, 4, 4)


def test_two_sets_grow_together_and_each_has_the_bits_that_it_has_alone():
    a, b = some_pictures(4, 1), some_pictures(2, 2)
    both = [e for e in told(LikelihoodJob("m", (a, b), ROUGH, batch=2), Measured) if e.finished]
    assert [(e.lane, e.first) for e in both] == [(0, 0), (1, 0), (0, 2)]
    (alone,) = (e for e in told(LikelihoodJob("m", (b,), ROUGH), Measured) if e.finished)
    np.testing.assert_allclose(both[1].bits, alone.bits, atol=1e-5)


def test_an_estimate_is_told_while_the_flow_integrates_and_settles():
    events = told(LikelihoodJob("m", (some_pictures(1),), ROUGH), Measured)
    assert len(events) > 5
    assert [e.finished for e in events] == [False] * (len(events) - 1) + [True]
    snrs = [e.log_snr for e in events]
    assert snrs == sorted(snrs, reverse=True)
    assert abs(events[-2].bits[0] - events[-1].bits[0]) < abs(
        events[0].bits[0] - events[-1].bits[0]
    )


def test_progress_of_many_batches_runs_to_its_end_once():
    job = LikelihoodJob("m", (some_pictures(3),), replace(ROUGH, repeats=2), batch=2)
    steps = told(job, Progress)
    shares = [e.step / e.total for e in steps]
    assert shares[-1] == 1
    assert all(0 < s <= 1 for s in shares)
    assert [e.calls for e in steps] == sorted(e.calls for e in steps)


def test_a_network_of_fixed_levels_is_refused_with_the_reason():
    discrete = replace(mixed(), continuous=False)
    with pytest.raises(SpecError, match="fixed set of noise levels"):
        told(LikelihoodJob("m", (some_pictures(1),), ROUGH), Measured, discrete)


@pytest.mark.parametrize(
    "job",
    [
        LikelihoodJob("m", (some_pictures(1),), ROUGH),
        RoundTripJob(model="m", pixels=some_pictures(1)),
        InterpolateJob(model="m", ends=(0, 1)),
    ],
    ids=lambda job: type(job).__name__,
)
def test_a_stop_is_heeded_within_a_network_call(job):
    class Stopping(Setting):
        calls = 0

        def check(self) -> None:
            self.calls += 1
            if self.calls == 4:
                raise Stopped

    context = Stopping(OneModel(mixed()), "cpu", rate=0)
    with pytest.raises(Stopped):
        list(job.run(context))
    assert context.calls == 4


def test_the_map_is_grey_between_its_darkest_and_brightest():
    grey, (low, high) = shades(np.linspace(-1.0, 1.0, 101))
    assert grey[[0, 50, 100]].tolist() == [0, 128, 255]
    assert (low, high) == pytest.approx((-0.98, 0.98))
    assert shades(np.zeros((2, 2)))[0].max() == 0


# -- told apart -----------------------------------------------------------------------------------


def test_sets_that_do_not_touch_are_told_apart():
    found = apart(np.arange(10.0), np.arange(10.0) + 20)
    assert (found.auc, found.sorted, found.told_apart) == (1, 1, True)
    assert 9 < found.border < 20
    turned = apart(np.arange(10.0) + 20, np.arange(10.0))
    assert (turned.auc, turned.sorted, turned.told_apart) == (0, 1, True)


def test_the_area_under_the_curve_is_that_of_two_gaussians():
    rng = np.random.default_rng(0)
    found = apart(rng.normal(0, 1, 800), rng.normal(1, 1, 800))
    normal = torch.distributions.Normal(0.0, 1.0)
    assert found.auc == pytest.approx(float(normal.cdf(torch.tensor(0.5**0.5))), abs=0.02)
    assert found.sorted == pytest.approx(float(normal.cdf(torch.tensor(0.5))), abs=0.03)
    assert 0.005 < found.error < 0.02


def test_sets_of_one_law_are_not_told_apart():
    rng = np.random.default_rng(1)
    assert not apart(rng.normal(size=60), rng.normal(size=60)).told_apart
    assert not apart(np.ones(5), np.ones(5)).told_apart
    assert not apart(np.array([1.0]), np.array([2.0])).told_apart


def test_outliers_are_far_from_the_median_of_enough_pictures():
    bits = np.array([3.0, 3.1, 2.9, 3.05, 2.95, 3.02, 2.98, 9.0])
    assert outliers(bits).tolist() == [False] * 7 + [True]
    assert not outliers(bits[4:]).any()
    assert not outliers(np.ones(9)).any()
    assert outliers(np.array([])).shape == (0,)


# -- to noise and back ----------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=["vp", "ve"])
def test_a_picture_comes_back_with_the_error_that_is_told(sde):
    pixels = some_pictures(2)
    events = list(RoundTripJob(model="m", pixels=pixels, tolerance=1e-4).run(setting(mixed(sde))))
    (encoded,) = (e for e in events if isinstance(e, Encoded))
    (decoded,) = (e for e in events if isinstance(e, Decoded))
    assert np.array_equal(decoded.pictures, pixels)
    assert decoded.trip.mean <= decoded.trip.rms <= decoded.trip.max < 0.5
    assert decoded.trip.psnr == pytest.approx(20 * math.log10(255 / decoded.trip.rms))
    assert encoded.latent.noise.shape == (2, *SHAPE)
    assert encoded.latent.shown.dtype == np.uint8
    assert isinstance(events[-1], Finished)


def test_the_statistics_of_unit_noise_are_those_of_unit_noise():
    score = gaussian_score(VESDE(), 0.5, (3, 32, 32))
    x = np.random.default_rng(0).normal(128, 64, (4, 32, 32, 3)).clip(0, 255).astype(np.uint8)
    (encoded,) = told(EncodeJob(model="m", pixels=x, tolerance=1e-2), Encoded, score)
    latent = encoded.latent
    assert latent.mean == pytest.approx(0, abs=0.03)
    assert latent.deviation == pytest.approx(1, abs=0.05)
    assert latent.correlation == pytest.approx(0, abs=0.03)
    assert latent.shown.mean() == pytest.approx(127.5, abs=3)
    plain = np.full_like(x, 200)
    (encoded,) = told(EncodeJob(model="m", pixels=plain, tolerance=1e-2), Encoded, score)
    assert encoded.latent.deviation < 0.1


def test_the_way_to_noise_can_be_watched():
    frames = told(EncodeJob(model="m", pixels=some_pictures(1), tolerance=1e-2), Picture)
    assert len(frames) > 5
    assert frames[0].frame.log_snr > frames[-1].frame.log_snr
    assert frames[-1].frame.x.shape == (1, 4, 4, 3)


def test_temperature_scales_the_noise_and_the_difference_is_told():
    score = gaussian_score(VPSDE(), 0.5, SHAPE)
    pixels = some_pictures(1)
    (encoded,) = told(EncodeJob(model="m", pixels=pixels), Encoded, score)
    job = DecodeJob(
        model="m", noise=encoded.latent.noise, temperature=0.5, original=pixels, tolerance=1e-4
    )
    (decoded,) = told(job, Decoded, score)
    # A Gaussian's flow is linear, so half the noise is half the way from the middle.
    half = 127.5 + (pixels.astype(float) - 127.5) / 2
    np.testing.assert_allclose(decoded.pictures, half, atol=1)
    assert decoded.trip.max == pytest.approx(np.abs(half - pixels).max(), abs=0.5)


# -- ways -----------------------------------------------------------------------------------------


def test_a_way_goes_from_one_picture_to_the_other():
    a, b = some_pictures(2, 3)
    job = InterpolateJob(model="m", ends=(a, b), count=5, tolerance=1e-4, batch=2)
    events = list(job.run(setting()))
    made = [e for e in events if isinstance(e, Decoded)]
    assert [e.places for e in made] == [(0, 4), (2, 1), (3,)]
    whole = events[-1].pictures
    assert np.abs(whole[0].astype(int) - a).max() <= 1
    assert np.abs(whole[-1].astype(int) - b).max() <= 1
    turned = told(replace(job, ends=(b, a)), Finished)[0].pictures
    assert np.abs(turned[::-1].astype(int) - whole).max() <= 1


def test_a_way_between_seeds_begins_with_what_the_seeds_make():
    from studio.diffusion.noise import Noise

    score = mixed()
    (finished,) = told(InterpolateJob(model="m", ends=(3, 9), count=3), Finished)
    z = torch.cat([Noise.of(s, 1, SHAPE, score.sde).start() for s in (3, 9)])
    wanted = studio.decode(score, z * score.sde.prior_std, 1e-4)
    shown = pictures.to_pictures(wanted, score.value_range)
    assert np.abs(finished.pictures[[0, 2]].astype(int) - shown).max() <= 1


def test_known_noise_is_not_encoded_again():
    a, b = some_pictures(2, 3)
    job = InterpolateJob(model="m", ends=(a, b), count=2)
    (encoded,) = told(job, Encoded)
    again = replace(job, ends=(encoded.latent.noise[0], encoded.latent.noise[1]))
    first, second = told(job, Finished)[0], told(again, Finished)[0]
    assert np.array_equal(first.pictures, second.pictures)
    assert second.calls < first.calls
    assert again.expected_calls() < job.expected_calls()


@pytest.mark.parametrize("count", [1, 65])
def test_a_way_of_too_few_or_too_many_pictures_is_refused(count):
    with pytest.raises(SpecError, match="2 to 64"):
        told(InterpolateJob(model="m", ends=(0, 1), count=count), Finished)


@pytest.mark.parametrize("count", [2, 3, 8, 17, 64])
def test_every_place_is_made_once_and_gaps_are_halved(count):
    order = coarse_to_fine(count)
    assert sorted(order) == list(range(count))
    assert order[:2] == [0, count - 1]
    if count > 2:
        assert order[2] == (count - 1) // 2


def test_a_film_returns_without_showing_an_end_twice():
    stack = np.arange(4)
    assert [int(i) for i in there_and_back(stack)] == [0, 1, 2, 3, 2, 1]


# -- what it costs, and what is given -------------------------------------------------------------


def test_a_probe_tells_calls_and_seconds_before_the_run():
    job = LikelihoodJob("m", (some_pictures(20),), ROUGH)
    (done,) = told(ProbeJob(job), Done)
    cost = done.value
    assert isinstance(cost, Cost)
    assert cost.calls == job.expected_calls() > 0
    assert cost.seconds > 0
    real = told(job, Progress)[-1]
    assert real.calls / 3 < cost.calls < 3 * real.calls


def test_a_folder_is_read_with_the_reasons_of_what_is_left_out(tmp_path):
    for i in range(3):
        Image.fromarray(some_pictures(1, i)[0]).resize((9, 5)).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("neither")
    events = list(ReadJob(tmp_path, SHAPE, 10).run(setting()))
    given = events[-1].value
    assert given.pixels.shape == (3, 4, 4, 3)
    assert [Path(n).name for n in given.names] == ["0.png", "1.png", "2.png"]
    assert [(Path(p).name, why) for p, why in given.skipped] == [
        ("broken.png", "broken.png is not a picture.")
    ]
    assert [e.step for e in events if isinstance(e, Progress)] == [1, 2, 3, 4]


def test_nothing_to_read_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, kind in ((tmp_path / "empty", DataError), (tmp_path / "no.png", PictureError)):
        with pytest.raises(kind):
            list(ReadJob(path, SHAPE).run(setting()))


def test_pixels_are_fitted_as_a_file_is(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    (done,) = told(ReadJob(tmp_path / "wide.png", SHAPE), Done)
    assert np.array_equal(fitted(wide[None], SHAPE), done.value.pixels)
    assert fitted(wide[None], (1, 4, 4)).shape == (1, 4, 4, 1)
    assert fitted(wide[None, ..., :1], SHAPE).shape == (1, 4, 4, 3)
