"""`score-studio evaluate`: figures as data and as a table, and a folder that goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import gaussian_score
from PIL import Image

from studio import cli
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.sde import VPSDE
from studio.training import evaluation, kept
from studio.training.data import Pictures
from studio.training.feature_trainer import FeatureTrainer, FeatureTraining
from studio.training.kept import Made

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def space(tmp_path: Path) -> str:
    """A small feature space that has learned nothing."""
    plan = FeatureTraining(size=16, channels=(4, 4, 4), features=8, thumbnail=4)
    trainer = FeatureTrainer(plan, [Pictures(squares(8), np.full(8, -1))], tmp_path / "space")
    trainer.save()
    return str(tmp_path / "space")


def squares(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def folder_of(place: Path, pixels: np.ndarray) -> str:
    """A folder of pictures in the classes of the tiny model."""
    for i, picture in enumerate(pixels):
        part = place / ("cat", "dog")[i % 2]
        part.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(part / f"{i:03}.png")
    return str(place)


@pytest.fixture
def real(tmp_path: Path) -> str:
    return folder_of(tmp_path / "real", squares(40))


@pytest.fixture
def words(tiny_checkpoint: Path, real: str, space: str) -> list[str]:
    """A quick evaluation of a tiny model."""
    return [
        *("evaluate", str(tiny_checkpoint), real, "--features", space, "--count", "12"),
        *("--bits", "0", "--sampler", "dpm2m", "--calls", "3", "--device", "cpu", "--json"),
    ]


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def told(capsys: pytest.CaptureFixture[str], words: list[str], code: int = 0) -> dict:
    assert cli.main(words) == code
    return json.loads(capsys.readouterr().out)


def test_every_figure_is_told_with_its_error_beside_that_of_real_pictures(words, capsys) -> None:
    found = told(capsys, [*words, "--bits", "2"])
    assert found["features"] == "space"
    assert found["reference"] == "20 pictures of real"
    (row,) = found["rows"]
    assert (row["sampler"], row["setting"], row["calls"]) == ("dpm2m", "2 steps", 3)
    assert row["figures"]["count"] == found["real"]["count"] == 12
    names = {"frechet", "kernel", "precision", "recall", "density", "coverage", "named", "grain"}
    for figures in (row["figures"], found["real"]):
        assert figures.keys() == names | {"count"}
        assert all(figures[name].keys() == {"value", "error"} for name in names)
    assert found["bits_per_dimension"]["count"] == 2
    assert found["bits_per_dimension"]["value"] > 0
    assert found["memorisation"] == {}


def test_several_samplers_and_budgets_have_a_row_each(words, capsys) -> None:
    found = told(capsys, [*words, "--samplers", "dpm2m,pc", "--calls", "3,9"])
    rows = [(r["sampler"], r["calls"]) for r in found["rows"]]
    assert rows == [("dpm2m", 3), ("pc", 3), ("dpm2m", 9), ("pc", 9)]
    assert found["bits_per_dimension"] is None


def test_a_model_that_repeats_its_training_pictures_is_told(words, tmp_path, capsys) -> None:
    train = folder_of(tmp_path / "train", squares(30, seed=5))
    # The very pictures of training, as if a model had made them.
    words = ["evaluate", train, *words[2:], "--train", train, "--out", str(tmp_path / "out")]
    found = told(capsys, words)
    assert found["rows"][0]["sampler"] == "as given"
    for gauge in found["memorisation"].values():
        assert gauge["repeats"]
        assert gauge["close"]["value"] == gauge["nearer"]["value"] == 1
    assert "It repeats" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert min(size(tmp_path / "out" / "nearest.png")) >= 300


def test_of_one_folder_the_share_that_was_held_out_measures(words, capsys) -> None:
    found = told(capsys, [*words, "--held-out", "0.5", "--reference", "train"])
    learned, measured = int(found["reference"].split()[0]), found["real"]["count"]
    assert learned > 12
    assert measured == min(12, 40 - learned)
    assert set(found["memorisation"]) == {"features", "pixels"}


def test_a_folder_keeps_figures_a_table_a_sheet_and_samples(words, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    found = told(capsys, [*words, "--bits", "1", "--out", str(out)])
    assert json.loads((out / "figures.json").read_text(encoding="utf-8")) == found
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "| `dpm2m`, 2 steps | 3 | 12 |" in table
    assert "Bits per dimension:" in table
    assert min(size(out / "sheet.png")) >= 400
    kinds = {path.name for path in (out / "samples").iterdir()}
    assert kinds == {"dpm2m-2-steps.npz", "bits.json"}


def test_what_is_kept_is_not_measured_again(words, tmp_path, capsys, monkeypatch) -> None:
    words = [*words, "--bits", "1", "--out", str(tmp_path / "out")]
    first = told(capsys, words)

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(evaluation, "runs", never)
    monkeypatch.setattr(evaluation, "bits", never)
    assert told(capsys, words) == first
    assert told(capsys, [*words, "--count", "9"])["rows"][0]["figures"]["count"] == 9


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--reference", "train"], "needs --train"),
        (["--held-out", "0.1", "--train", "x"], "what was trained on"),
        (["--features", "nothing"], "no feature space"),
        (["--calls", "many"], "whole numbers"),
        (["--calls", "0"], "from 1"),
        (["--samplers", "fast"], "no sampler"),
        (["--count", "3"], "from 8"),
        (["--train", "nowhere"], "nowhere"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(words, capsys, more, message) -> None:
    assert message.lower() in told(capsys, [*words, *more], code=2)["error"].lower()


def test_few_pictures_are_told(words, tmp_path, capsys) -> None:
    few = folder_of(tmp_path / "few", squares(5))
    assert "too few" in told(capsys, [words[0], words[1], few, *words[3:]], code=2)["error"]


def test_more_made_pictures_than_real_ones_are_told(words, tmp_path) -> None:
    out = tmp_path / "out"
    assert cli.main([*words, "--count", "30", "--out", str(out)]) == 0
    assert "--count 20 compares like with like" in (out / "table.md").read_text(encoding="utf-8")


# -- what is kept -----------------------------------------------------------------------------------


def score():
    return gaussian_score(VPSDE(), 0.5, (3, 8, 8))


def test_more_pictures_go_on_from_fewer_and_are_the_same(tmp_path) -> None:
    sampler, path = SAMPLERS["dpm2m"](steps=4), tmp_path / "made.npz"
    few = kept.draw(score(), sampler, 5, 3, 2, path)
    many = kept.draw(score(), sampler, 9, 3, 4, path)
    at_once = kept.draw(score(), sampler, 9, 3)
    assert len(kept.draw(score(), sampler, 5, 3, path=path)) == 5
    np.testing.assert_array_equal(many.pixels[:5], few.pixels)
    assert np.abs(many.pixels.astype(int) - at_once.pixels.astype(int)).max() <= 1


def test_an_interrupted_run_keeps_what_it_had(tmp_path, monkeypatch) -> None:
    sampler, path, runs = SAMPLERS["dpm2m"](steps=4), tmp_path / "made.npz", evaluation.runs

    def broken(*args):
        for i, result in enumerate(runs(*args)):
            if i == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(evaluation, "runs", broken)
    with pytest.raises(KeyboardInterrupt):
        kept.draw(score(), sampler, 40, 0, 8, path)
    monkeypatch.setattr(evaluation, "runs", runs)
    facts = json.loads(str(np.load(path)["told"]))["facts"]
    before = kept.read(path, facts, (3, 8, 8))
    assert before is not None
    assert len(before) == 16
    assert len(kept.draw(score(), sampler, 40, 0, 8, path)) == 40


def test_pictures_of_another_model_sampler_or_seed_are_not_taken(tmp_path) -> None:
    path = tmp_path / "made.npz"
    made = Made(squares(4), np.full(4, -1), 3, 1.0)
    made.save(path, {"seed": 1})
    assert kept.read(path, {"seed": 2}, (3, 8, 8)) is None
    assert kept.read(path, {"seed": 1}, (3, 9, 8)) is None
    found = kept.read(path, {"seed": 1}, (3, 8, 8))
    assert found is not None
    np.testing.assert_array_equal(found.pixels, made.pixels)
    path.write_bytes(path.read_bytes()[:-40])
    assert kept.read(path, {"seed": 1}, (3, 8, 8)) is None


def test_bits_go_on_from_those_that_are_there_and_damage_is_measured_again(tmp_path) -> None:
    real = Pictures(squares(5), np.full(5, -1))
    some = evaluation.taken(real, slice(2))
    kept.bits(score(), some, 1, path=tmp_path / "bits.json")
    whole = kept.bits(score(), real, 2)
    again = kept.bits(score(), real, 2, path=tmp_path / "bits.json")
    assert again.value == pytest.approx(whole.value, abs=1e-3)
    assert again.error == pytest.approx(whole.error, abs=1e-3)
    (tmp_path / "bits.json").write_text('{"facts": 1')
    assert kept.bits(score(), real, 5, path=tmp_path / "bits.json").value == whole.value


def test_bits_of_a_gaussian_are_those_of_its_density() -> None:
    std, count = 0.2, 64
    values = np.random.default_rng(0).normal(0, std, (count, 8, 8, 3)).clip(-0.99, 0.99)
    pixels = ((values + 1) * 127.5).round().astype(np.uint8)
    found = kept.bits(score_of(std), Pictures(pixels, np.full(count, -1)), 32)
    # The entropy of a value, in units of a grey level: 256 levels to a range of 2.
    entropy = 0.5 * np.log2(2 * np.pi * np.e * std**2) + np.log2(128)
    assert found.value == pytest.approx(entropy, abs=0.03)


def score_of(std: float):
    return gaussian_score(VPSDE(), std, (3, 8, 8))
