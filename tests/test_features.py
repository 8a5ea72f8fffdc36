"""Feature spaces: learned and resumed alike, kept in a file that may be damaged, seen at any size."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio import cli, paths
from studio.errors import CheckpointError, DataError, SpecError, StudioError
from studio.lazy import torch
from studio.training import distances, features
from studio.training.data import Pictures
from studio.training.feature_trainer import FeatureTrainer, FeatureTraining, blurred_by
from studio.training.loop import train
from studio.weights import features as files
from studio.weights import formats, tensors
from studio.weights.features import USUAL, WEIGHTS, FeatureInfo

pytestmark = pytest.mark.usefixtures("one_thread")

PLAN = FeatureTraining(
    size=16, channels=(8, 8, 8), features=8, thumbnail=4, steps=60, batch=32, warmup=5, seed=1
)


def stripes(count: int, colours: int = 3) -> Pictures:
    """Two classes: stripes across, or down, of any colour."""
    rng = np.random.default_rng(count)
    labels = np.arange(count) % 2
    pixels = np.empty((count, 16, 16, colours), np.uint8)
    for i, label in enumerate(labels):
        rows = np.broadcast_to((np.arange(16) // 2 % 2)[:, None], (16, 16))
        shape = rows if label == 0 else rows.T
        pixels[i] = 40 + shape[:, :, None] * rng.integers(60, 200, colours)
    return Pictures(pixels, labels.astype(np.int64), ("across", "down"))


def greys(count: int) -> Pictures:
    """Pictures without classes, of one channel."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 1), dtype=np.uint8)
    return Pictures(pixels, np.full(count, -1))


def learned(folder: Path, plan: FeatureTraining = PLAN) -> FeatureTrainer:
    trainer = FeatureTrainer(plan, [stripes(60), stripes(40, 1), greys(20)], folder)
    for _ in train(trainer, save_seconds=1e9):
        pass
    return trainer


# -- learning ---------------------------------------------------------------------------------------


def test_what_can_be_seen_is_learned_and_told_of_pictures_that_were_not(tmp_path) -> None:
    trainer = learned(tmp_path / "space")
    assert trainer.info.classes == (("across", "down"),)
    assert trainer.accuracy(stripes(70)) > 0.95
    assert np.isnan(trainer.accuracy(greys(20)))


def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_happened(tmp_path) -> None:
    whole = learned(tmp_path / "whole")
    steps = train(FeatureTrainer(PLAN, [stripes(60), stripes(40, 1), greys(20)], tmp_path / "part"))
    for step in steps:
        if step.step == 17:
            steps.close()
    again = learned(tmp_path / "part")
    for name, wanted in whole.net.state_dict().items():
        torch.testing.assert_close(again.net.state_dict()[name], wanted, msg=name)


def test_a_folder_with_a_run_of_another_plan_is_left_alone(tmp_path) -> None:
    learned(tmp_path)
    with pytest.raises(SpecError, match="another plan"):
        FeatureTrainer(FeatureTraining(**vars(PLAN) | {"features": 9}), [stripes(60)], tmp_path)


def test_no_pictures_is_an_error() -> None:
    with pytest.raises(DataError, match="two pictures"):
        FeatureTrainer(PLAN, [], Path("nowhere"))


def test_a_blur_spreads_a_point_by_its_deviation() -> None:
    x = torch.zeros(1, 1, 33, 33)
    x[0, 0, 16, 16] = 1
    blurred = blurred_by(x, 1.7)[0, 0]
    place = torch.arange(33) - 16.0
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-4)
    assert float((blurred.sum(0) * place**2).sum()) == pytest.approx(1.7**2, rel=0.03)


# -- the command ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pictures in two classes."""
    some = stripes(24)
    for i, pixels in enumerate(some.pixels):
        place = tmp_path / "pictures" / some.classes[some.labels[i]]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path / "pictures"


SMALL = ["--size", "16", "--channels", "8", "8", "8", "--features", "8", "--steps", "4"]
SMALL += ["--batch", "16", "--thumbnail", "4"]


def test_train_features_learns_from_folders_and_writes_a_card(folder, tmp_path, capsys) -> None:
    out = str(tmp_path / "space")
    words = ["train-features", str(folder), str(folder), "--judge", str(folder), "--out", out]
    assert cli.main([*words, *SMALL, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 4
    assert told["classes"] == [["across", "down"]]
    assert set(told["accuracy"]) == {"pictures"}
    card = (tmp_path / "space" / "card.md").read_text(encoding="utf-8")
    assert "| pictures |" in card
    assert f"--judge {folder}" in card
    assert features.space(out).of(stripes(3).pixels).shape == (3, 8)
    assert formats.recognise(tmp_path / "space") is None


# -- files ------------------------------------------------------------------------------------------


def test_features_from_a_file_are_those_of_the_average(tmp_path) -> None:
    trainer = learned(tmp_path / "space")
    net = files.build(trainer.info)
    net.load_state_dict(trainer.ema.shadow)
    x = features.seen(stripes(5).pixels, 16)
    with torch.no_grad():
        wanted = net.eval()(x)
    found = features.space(str(tmp_path / "space")).of(stripes(5).pixels)
    np.testing.assert_allclose(found, wanted.numpy(), atol=0.02)  # halves


def test_features_do_not_depend_on_company(tmp_path) -> None:
    learned(tmp_path / "space")
    space = features.space(str(tmp_path / "space"))
    many = space.of(stripes(300).pixels)
    np.testing.assert_allclose(space.of(stripes(300).pixels[290:]), many[290:], atol=1e-5)


def test_an_unknown_space_is_told_with_those_there_are(home) -> None:
    with pytest.raises(CheckpointError, match="no feature space “nothing”"):
        files.find("nothing")


@pytest.mark.parametrize(
    "info",
    [
        FeatureInfo({"size": 10**9}),
        FeatureInfo({"features": 10**9}),
        FeatureInfo({"channels": [1, 2]}),
        FeatureInfo({"classes": 3}, (("a", "b"),)),
        FeatureInfo({"colour": 3}),
        FeatureInfo({"channels": "many"}),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(tmp_path, info) -> None:
    files.save(tmp_path, info, {"weight": torch.zeros(2)})
    with pytest.raises(CheckpointError):
        files.load(str(tmp_path))


def test_weights_that_do_not_fit_or_are_not_finite_are_refused(tmp_path) -> None:
    trainer = learned(tmp_path)
    state = dict(trainer.ema.shadow)
    files.save(tmp_path, trainer.info, state | {"more": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="does not fit"):
        files.load(str(tmp_path))
    name = "named.weight"
    files.save(tmp_path, trainer.info, state | {name: torch.full_like(state[name], float("nan"))})
    with pytest.raises(CheckpointError, match="not finite"):
        files.load(str(tmp_path))


def test_other_files_are_told_apart(tmp_path) -> None:
    tensors.write_tensors(tmp_path / WEIGHTS, {"x": torch.zeros(1)}, {"kind": "classifier"})
    with pytest.raises(CheckpointError, match="no feature space"):
        files.load(str(tmp_path))
    (tmp_path / WEIGHTS).write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        files.load(str(tmp_path))


# -- pictures -> points -----------------------------------------------------------------------------


def test_pictures_are_reduced_without_aliases() -> None:
    # Lines one pixel wide are grey when every second pixel is gone, not all light or all dark.
    lines = np.zeros((1, 64, 64, 3), np.uint8)
    lines[:, ::2] = 255
    seen = features.seen(lines, 16)
    assert seen.shape == (1, 3, 16, 16)
    assert float(seen[..., 2:-2, 2:-2].abs().max()) < 0.05


def test_pictures_of_the_right_size_are_left_as_they_are() -> None:
    pixels = stripes(2).pixels
    np.testing.assert_allclose((features.seen(pixels, 16).numpy() + 1) * 127.5,
                               pixels.transpose(0, 3, 1, 2), atol=1e-4)  # fmt: skip


def test_inception_is_asked_for_where_it_is(monkeypatch) -> None:
    class Extractor(torch.nn.Module):
        def __init__(self, name: str, wanted: list[str]) -> None:
            super().__init__()
            assert wanted == ["2048"]

        def forward(self, x):
            assert x.dtype == torch.uint8
            assert x.shape[1] == 3
            return (x.float().mean((2, 3)).repeat(1, 683)[:, :2048],)

    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    space = features.space("inception")
    assert space.name == "inception-v3-compat"
    assert space.of(stripes(4, 1).pixels).shape == (4, 2048)


def test_inception_is_missed_in_one_sentence(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(StudioError, match="torch-fidelity, which is not installed") as told:
        features.space("inception")
    assert USUAL in told.value.hint


def test_a_probe_finds_a_line_between_classes() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(400, 3)).astype(np.float32)
    labels = (points @ [1, 2, -1] > 0.5).astype(np.int64)
    probe = features.probe(points[:300], labels[:300], 2)
    assert (probe(points[300:]) == labels[300:]).mean() > 0.95


# -- the space that ships ---------------------------------------------------------------------------


def patches(count: int) -> np.ndarray:
    """Squares of 32 pixels cut out of the sample pictures that ship."""
    rng = np.random.default_rng(0)
    found = []
    sources = sorted(paths.resource("samples").glob("*.png")) + sorted(
        paths.resource("samples").glob("*.jpg")
    )
    pages = [np.asarray(Image.open(path).convert("RGB").resize((160, 160))) for path in sources]
    for i in range(count):
        y, x = rng.integers(0, 128, 2)
        found.append(pages[i % len(pages)][y : y + 32, x : x + 32])
    return np.stack(found)


@pytest.fixture(scope="module")
def shipped() -> features.FeatureSpace:
    return features.space()


def test_a_space_ships_under_its_name_and_no_list_of_models_shows_it(shipped) -> None:
    assert shipped.name == USUAL
    assert shipped.width == 128
    assert (paths.shipped("checkpoints") / USUAL / WEIGHTS).stat().st_size < 1_500_000
    assert formats.recognise(paths.shipped("checkpoints") / USUAL) is None


def noisy(pixels: np.ndarray, deviation: float) -> np.ndarray:
    z = np.random.default_rng(1).normal(0, deviation, pixels.shape)
    return (pixels + z).round().clip(0, 255).astype(np.uint8)


def soft(pixels: np.ndarray, deviation: float) -> np.ndarray:
    x = blurred_by(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), deviation)
    return x.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("damage", [noisy, soft])
def test_distances_grow_with_what_is_done_to_pictures(shipped, damage) -> None:
    pixels = patches(400)
    known = shipped.of(pixels[:200])
    levels = (3, 9, 27) if damage is noisy else (0.5, 1, 2)
    for distance in (distances.frechet, distances.kernel):
        found = [distance(shipped.of(pixels[200:]), known).value]
        found += [distance(shipped.of(damage(pixels[200:], v)), known).value for v in levels]
        assert found == sorted(found)
        assert found[-1] > 2 * max(found[:2])
