"""Error against network calls: distances known exactly, budgets kept, a folder that resumes."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
from conftest import every_sde
from PIL import Image

from studio import choose, cli
from studio.commands.steps import EvaluateSteps
from studio.diffusion.catalog import PRESETS, SAMPLERS
from studio.diffusion.sde import VPSDE
from studio.errors import DataError, SpecError
from studio.lazy import torch
from studio.training import chart, evaluation, steps
from studio.training.data import Pictures
from studio.training.distances import frechet_distance, sliced_distance
from studio.training.features import FeatureSpace

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    """Fewer exact samples and steps of training, which are most of the time of a short run."""
    monkeypatch.setattr(steps, "_EXACT", 1024)
    hasty = functools.partial(evaluation.train_classifier, steps=40)
    monkeypatch.setattr(evaluation, "train_classifier", hasty)


def named(name: str):
    return choose.sampler(name)[0]


# -- distances --------------------------------------------------------------------------------------


def test_the_sliced_distance_of_values_on_a_line_is_the_wasserstein_distance() -> None:
    a, b = np.array([[0.0], [1.0], [2.0]]), np.array([[5.0], [3.0], [4.0]])
    assert sliced_distance(a, b) == pytest.approx(3)
    # Half of the one set moves by 1: the quantile functions differ by 1 on half of the shares.
    assert sliced_distance(np.array([[0.0]]), np.array([[0.0], [1.0]])) == pytest.approx(0.5**0.5)
    # 2 against 3 values: shares 1/3, 1/6, 1/6, 1/3 with gaps 0, 1, 0, 1.
    two, three = np.array([[0.0], [2.0]]), np.array([[0.0], [1.0], [3.0]])
    assert sliced_distance(two, three) == pytest.approx(math.sqrt(1 / 6 + 1 / 6 + 1 / 3))


def test_a_shift_is_seen_with_its_length_in_one_direction() -> None:
    a = np.random.default_rng(0).normal(size=(50, 16))
    shift = np.full(16, 0.5)
    # The mean square of a projection on random directions is the square length over the dimension.
    assert sliced_distance(a, a + shift, 4000) == pytest.approx(0.5, rel=0.05)
    assert sliced_distance(a, a) == 0


def test_the_frechet_distance_is_that_of_gaussians() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 5)), rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 1
    first, second = np.cov(a.T), np.cov(b.T)
    wanted = np.sum((a.mean(0) - b.mean(0)) ** 2)
    wanted += np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(a, b) == pytest.approx(wanted)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


# -- exact mixtures ---------------------------------------------------------------------------------


@every_sde
def test_the_score_of_the_mixture_is_the_slope_of_its_log_density(sde) -> None:
    exact = steps.Mixture.of()
    t = torch.tensor([0.4, 0.1], dtype=torch.float64)
    x = torch.from_numpy(exact.draw(2, seed=3)).requires_grad_()
    a, s = sde.marginal(t)
    parts = []
    for mean, axes, widths in zip(exact.means, exact.axes, exact.widths):
        own = torch.diag_embed(a[:, None] ** 2 * widths**2)
        covariance = axes @ own @ axes.T + s[:, None, None] ** 2 * torch.eye(32)
        normal = torch.distributions.MultivariateNormal(a[:, None] * mean, covariance)
        parts.append(normal.log_prob(x))
    density = torch.logsumexp(torch.stack(parts) + exact.weights.log()[:, None], 0).sum()
    (wanted,) = torch.autograd.grad(density, x)
    got = exact.score(sde)(x.detach().reshape(2, 2, 4, 4), t)
    torch.testing.assert_close(got.reshape(2, 32), wanted)


def test_samples_of_the_mixture_have_its_moments() -> None:
    exact = steps.Mixture.of()
    drawn = exact.draw(20_000, seed=5)
    mean = exact.weights @ exact.means
    within = exact.axes @ torch.diag_embed(exact.widths**2) @ exact.axes.mT
    away = exact.means - mean
    covariance = torch.einsum("k,kij->ij", exact.weights, within)
    covariance += torch.einsum("k,ki,kj->ij", exact.weights, away, away)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.02)


def test_a_good_sampler_comes_to_the_floor_and_a_hasty_one_does_not() -> None:
    subject = steps.mixture("VP", VPSDE())
    hasty, good = steps.trials(["dpm2m"], [3, 60], named)
    (far,), (near,) = (steps.measure(subject, trial, [128]) for trial in (hasty, good))
    floor = subject.floor(128)["sliced"]
    assert near.errors["sliced"] < 1.3 * floor
    assert far.errors["sliced"] > 1.5 * floor


# -- budgets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [5, 20, 101])
def test_no_sampler_takes_more_calls_than_it_may_and_one_step_more_would(calls) -> None:
    plan = steps.trials(SAMPLERS, [calls], named)
    assert {t.name for t in plan} >= set(SAMPLERS) - {"ald"}
    for trial in plan:
        if trial.budget:
            cost = trial.sampler.cost()
            more = steps.spec.replace(trial.sampler, "steps", trial.sampler.steps + 1)
            assert cost <= calls < more.cost()


@pytest.mark.parametrize("name", ["pc", "sra1", "unipc", "rk45"])
def test_calls_are_those_that_the_run_makes(name) -> None:
    asked = 0
    subject = steps.mixture("VP", VPSDE())

    def counting(x, t):
        nonlocal asked
        asked += 1
        return subject.score(x, t)

    counted = steps.dataclasses.replace(
        subject, score=steps.Score.from_function(counting, VPSDE(), (2, 4, 4))
    )
    trial = steps.trials([name], [9], named)[0]
    (row,) = steps.measure(counted, trial, [4])
    assert row.calls == asked
    assert not trial.budget or asked <= 9


def test_presets_are_measured_with_their_own_settings() -> None:
    (paper,) = steps.trials(["paper"], [40], named)
    assert paper.sampler.grid == PRESETS["paper"][1].grid


def test_samplers_that_choose_their_steps_are_measured_by_tolerance() -> None:
    one, two = steps.trials(["adaptive"], [5], named, [0.1, 0.05])
    assert (one.sampler.rtol, two.sampler.rtol) == (0.1, 0.05)
    assert one.sampler.atol == pytest.approx(2 * two.sampler.atol)
    with pytest.raises(SpecError, match="must be from"):
        steps.trials(["rk45"], [5], named, [100.0])


def test_a_solver_that_diverges_has_a_row_without_figures() -> None:
    subject = steps.mixture("VP", VPSDE())
    broken = steps.Score.from_function(lambda x, t: x * math.inf, VPSDE(), (2, 4, 4))
    trial = steps.trials(["euler"], [5], named)[0]
    (row,) = steps.measure(steps.dataclasses.replace(subject, score=broken), trial, [4])
    assert row.errors == {}
    assert math.isnan(row.calls)


def test_the_first_pictures_of_a_run_have_a_row_of_their_own() -> None:
    subject = steps.mixture("VP", VPSDE())
    trial = steps.trials(["ancestral"], [5], named)[0]
    few, many = steps.measure(subject, trial, [16, 32])
    (alone,) = steps.measure(subject, trial, [16])
    assert (few.count, many.count) == (16, 32)
    assert few.errors["sliced"] == pytest.approx(alone.errors["sliced"], rel=1e-6)


# -- a model beside pictures ------------------------------------------------------------------------


def spots(count: int) -> Pictures:
    labels = np.arange(count) % 2
    pixels = np.random.default_rng(0).integers(0, 60, (count, 8, 8, 3), dtype=np.uint8)
    pixels[labels == 1, :4] += 150
    return Pictures(pixels, labels.astype(np.int64), ("dark", "bright"))


def test_real_pictures_are_at_the_floor_and_grey_ones_far_from_it() -> None:
    score = steps.Score.from_function(lambda x, t: -x, VPSDE(), (3, 8, 8))
    subject = steps.model("spots", score, spots(240))
    floor = subject.floor(40)
    right, grey = (
        subject.errors(spots(40).pixels),
        subject.errors(np.full((40, 8, 8, 3), 128, "u1")),
    )
    for kind in ("sliced", "frechet"):
        assert right[kind] < 2 * floor[kind]
        assert grey[kind] > 5 * floor[kind]


def test_pictures_without_classes_are_refused() -> None:
    score = steps.Score.from_function(lambda x, t: -x, VPSDE(), (3, 8, 8))
    plain = Pictures(spots(30).pixels, np.full(30, -1), ())
    with pytest.raises(DataError, match="no classes"):
        steps.model("spots", score, plain)


def test_a_feature_space_needs_no_classes() -> None:
    score = steps.Score.from_function(lambda x, t: -x, VPSDE(), (3, 8, 8))
    plain = Pictures(spots(120).pixels, np.full(120, -1), ())
    rows = FeatureSpace(
        "rows", 8, lambda pixels: torch.from_numpy(pixels.mean((2, 3), dtype=np.float32))
    )
    subject = steps.model("spots", score, plain, space=rows)
    assert subject.errors(plain.pixels[:40])["frechet"] < 3 * subject.floor(40)["frechet"]


# -- the command ------------------------------------------------------------------------------------


def command(folder, **options) -> EvaluateSteps:
    usual = {"samplers": "dpm2m,euler", "calls": "3,5", "count": "8", "out": str(folder)}
    return EvaluateSteps(**usual | options)


def test_results_come_as_table_csv_and_plot(tmp_path) -> None:
    outcome = command(tmp_path).run()
    measured = [row for row in outcome.data["rows"] if row["budget"]]
    assert len(measured) == 3 * 2 * 2
    assert "VP, 8 pictures: sliced" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "table.csv").read_text().startswith("subject,sampler,setting,budget,count")
    with Image.open(tmp_path / "steps-to-quality.png") as image:
        assert image.getpixel((0, 0)) == (255, 255, 255)


def test_what_was_measured_is_not_measured_again(tmp_path, monkeypatch) -> None:
    before = command(tmp_path).run()
    monkeypatch.setattr(steps, "measure", lambda *_: pytest.fail("measured again"))
    assert command(tmp_path).run() == before


def test_a_line_cut_short_by_a_crash_is_measured_again(tmp_path) -> None:
    before = command(tmp_path).run()
    results = tmp_path / "results.jsonl"
    results.write_text(results.read_text()[:-30])
    after = command(tmp_path).run()
    timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in after.data["rows"]]
    assert timeless == [
        {k: v for k, v in row.items() if k != "seconds"} for row in before.data["rows"]
    ]


def test_another_run_adds_its_rows(tmp_path) -> None:
    command(tmp_path).run()
    text = command(tmp_path, samplers="heun").run().text
    assert "`dpm2m`" in text
    assert "`heun`" in text


def test_a_model_is_measured_against_a_folder(tmp_path, tiny_checkpoint) -> None:
    stack = spots(36)
    for i, (pixels, label) in enumerate(zip(stack.pixels, stack.labels)):
        folder = tmp_path / "pictures" / stack.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    files = {"model": str(tiny_checkpoint), "data": str(tmp_path / "pictures")}
    found = command(tmp_path / "out", device="cpu", count="4,6", calls="3", **files).run()
    assert "6 pictures: frechet" in found.text
    assert {row["count"] for row in found.data["rows"]} == {4, 6}


BAD = ({"tolerances": "tight"}, "tight")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"calls": "5,x"}, "whole numbers"),
        ({"count": "1"}, "from 2"),
        ({"samplers": "nix"}, "nix"),
        BAD,
    ],
)
def test_words_that_make_no_sense_are_refused_in_one_sentence(tmp_path, options, said) -> None:
    with pytest.raises(SpecError, match=said):
        command(tmp_path, **options).run()


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"key": 1}', json.dumps({"key": "", "facts": "", "errors": []})]
)
def test_a_damaged_folder_is_named(tmp_path, line) -> None:
    (tmp_path / "results.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="damaged"):
        command(tmp_path).run()


def test_a_model_without_pictures_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="against pictures"):
        command(tmp_path, model="critters-32").run()


def test_the_command_line_knows_it() -> None:
    parsed = cli.parse("evaluate-steps", ["--calls", "5,10", "--samplers", "pc"])
    assert isinstance(parsed, EvaluateSteps)
    assert parsed.model == ""


# -- the plot ---------------------------------------------------------------------------------------


def test_a_curve_that_falls_is_drawn_falling() -> None:
    curve = np.array([(5.0, 1.0), (50.0, 0.1)])
    pixels = chart.draw([chart.Panel("", "", {"a": curve})]).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0])[:, :390] > 80
    rows, columns = np.nonzero(blue)
    assert np.polyfit(columns, rows, 1)[0] > 0  # rows grow downwards


def test_empty_and_lone_points_are_drawn_without_complaint() -> None:
    for curve in (np.empty((0, 2)), np.array([(5.0, 1.0)])):
        assert chart.draw([chart.Panel("", "", {"a": curve})]).shape[2] == 3
    assert chart.draw([]).shape[2] == 3
