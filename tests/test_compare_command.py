"""`score-studio compare`: what is typed, the table and the picture that come out, and every mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY_OPTIONS, tiny_network
from PIL import Image

from studio import cli, recipes, spec
from studio.engine.events import Finished
from studio.engine.jobs import Setting
from studio.engine.race import RaceJob, RaceRecipe
from studio.weights.formats import native
from studio.weights.model import ModelInfo
from studio.weights.shelf import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small models: two alike, one that is larger, and one whose numbers overflow."""
    folder = tmp_path_factory.mktemp("models")
    for name, size, factor in (
        ("tiny", 8, 1),
        ("other", 8, 1),
        ("large", 16, 1),
        ("wild", 8, 1e30),
    ):
        options = TINY_OPTIONS | {"size": size}
        info = ModelInfo(options=options, size=size, classes=("cat", "dog"), steps=12)
        weights = {k: v * factor for k, v in tiny_network(size=size).state_dict().items()}
        native.save(folder / name, info, weights, card=f"# {name}\n")
    return folder


@pytest.fixture
def model(home: Path, made: Path) -> str:
    """The name of a small model on the shelf, which has the others too."""
    shutil.copytree(made, home / "models")
    return "tiny"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `compare` with --json; (exit code, the one object on stdout)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, dict[str, Any]]:
        code = cli.main(["compare", *map(str, words), "--device", "cpu", "--json"])
        out = capsys.readouterr().out.strip()
        assert out.count("\n") == 0
        return code, json.loads(out)

    return run


def test_the_lanes_their_cost_and_how_far_they_are_apart(model: str, run: Any) -> None:
    code, said = run(model, "--samplers", "pc,rk45", "--steps", 6, "--count", 2, "--seed", 3)
    assert code == 0
    pc, rk45 = said["lanes"]
    assert (pc["sampler"], pc["model"], pc["nfe"], pc["stopped"]) == ("pc", "tiny", 13, None)
    assert pc["accepted"] is None
    assert rk45["accepted"] > 0
    for one in (pc, rk45):
        assert one["calls_per_second"] == pytest.approx(one["nfe"] / one["seconds"], rel=0.1)
        assert one["bits"] is None
    snrs, apart = zip(*said["distance"])
    assert list(snrs) == sorted(snrs)
    assert all(0 <= d <= 1 for d in apart)
    assert any("6 is ignored" in note for note in said["notes"])


def test_the_picture_has_a_row_a_lane_and_carries_the_recipe(model: str, run: Any) -> None:
    run(model, "--samplers", "euler,dpm2m", "--steps", 4, "--count", 3, "--out", "a.png")
    recipe = recipes.read_recipe(Path("a.png"))
    assert recipe is not None
    assert recipe["kind"] == "race"
    made = spec.from_dict(RaceRecipe, recipe)
    setting = Setting(Shelf(), "cpu", rate=0)
    page = np.asarray(Image.open("a.png"))
    for event in RaceJob(made).run(setting):
        if isinstance(event, Finished):
            top = 24 + event.lane * (24 + 128 + 4)
            for i, picture in enumerate(event.pictures):
                row = page[top : top + 128, i * 132 : i * 132 + 128]
                assert (row[8::16, 8::16].astype(int) - picture).max() <= 1


def test_models_race_with_one_sampler(model: str, run: Any) -> None:
    code, said = run("tiny,other", "--samplers", "dpm2m", "--calls", 9)
    assert code == 0
    assert [(x["model"], x["nfe"]) for x in said["lanes"]] == [("tiny", 9), ("other", 9)]
    # Two models with the same weights, from one noise.
    assert max(d for _, d in said["distance"]) < 1e-5


def test_one_lane_can_be_set_otherwise(model: str, run: Any) -> None:
    words = ("--option", "0.snr=0.3", "--option", "1.temperature=0.7", "--option", "steps=3")
    _, said = run(model, "--samplers", "pc,dpm2m,pc", *words)
    lanes = [x["settings"] for x in said["lanes"]]
    assert [x["sampler"].get("corrector", {}).get("snr") for x in lanes] == [0.3, None, 0.16]
    assert [x["temperature"] for x in lanes] == [1, 0.7, 1]
    assert [x["nfe"] for x in said["lanes"]] == [7, 4, 7]
    assert sorted(said["distances"]) == ["0-1", "0-2", "1-2"]


def test_an_animation_shows_the_lanes_side_by_side(model: str, run: Any) -> None:
    words = ("--frames", "race.webp", "--count", 1, "--steps", 5, "--sync", "calls", "--view", "x")
    code, said = run(model, "--samplers", "euler,ancestral,dpm2m", *words)
    assert code == 0
    assert said["files"] == ["race.png", "race.webp"]
    with Image.open("race.webp") as film:
        assert film.n_frames > 5
        assert film.width > 2 * film.height


def test_bits_per_dimension_are_measured_if_asked_for(model: str, run: Any) -> None:
    _, said = run(model, "--samplers", "euler", "--steps", 3, "--count", 1, "--bits")
    assert isinstance(said["lanes"][0]["bits"], float)


def test_a_lane_that_diverges_is_told_and_the_others_are_kept(model: str, run: Any) -> None:
    code, said = run("wild,tiny", "--samplers", "euler", "--steps", 3, "--frames", "race.gif")
    assert code == 3
    assert "diverged" in said["lanes"][0]["stopped"]
    assert said["lanes"][1]["stopped"] is None
    assert Path("race.png").exists()
    assert Path("race.gif").exists()


def test_where_no_lane_arrives_nothing_is_written(model: str, run: Any) -> None:
    code, said = run("wild", "--samplers", "euler,pc", "--steps", 3)
    assert code == 2
    assert "No lane" in said["error"]
    assert not Path("race.png").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nobody"], "nobody"),
        (["tiny", "--samplers", "pc,rk54"], "rk54"),
        (["tiny", "--samplers", "pc,,rk45"], "empty"),
        (["tiny", "--samplers", ",".join(["euler"] * 9)], "lanes"),
        (["tiny,large", "--samplers", "euler"], "Lane 2 (large)"),
        (["tiny,other,tiny", "--samplers", "euler,pc"], "paired"),
        (["tiny", "--steps", "5", "--calls", "9"], "both"),
        (["tiny", "--option", "2.snr=0.2"], "no lane 2"),
        (["tiny", "--option", "0.snr"], "no option"),
        (["tiny", "--option", "0.colour=3"], "colour"),
        (["tiny", "--option", "0.temperature=9"], "Temperature"),
        (["tiny", "--label", "unicorn"], "unicorn"),
        (["tiny", "--sync", "luck"], "sync"),
        (["tiny", "--count", "0"], "Count"),
        (["tiny", "--out", "race.jpg"], "race.jpg"),
        (["tiny", "--frames", "race.mov"], "race.mov"),
    ],
)
def test_a_mistake_is_one_line(model: str, run: Any, words: list[str], told: str) -> None:
    code, said = run(*words)
    assert code == 2
    assert told.lower() in said["error"].lower()
    assert not list(Path().glob("race*"))
