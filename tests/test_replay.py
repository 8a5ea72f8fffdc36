"""Replays: the same pixels elsewhere, or an honest word on how far they are from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import build

from studio import cli, recipes, spec
from studio.diffusion import pictures
from studio.engine import replay
from studio.engine.branch import branched
from studio.engine.events import Begun, Done, Finished
from studio.engine.exports import ExportJob
from studio.engine.jobs import SampleJob, Setting
from studio.engine.paint import PaintRecipe
from studio.errors import CheckpointError, PictureError, SpecError
from studio.weights.shelf import Shelf


def setting(checkpoint: Path) -> Setting:
    return Setting(Shelf([checkpoint.parent]), "cpu", rate=0)


def job(checkpoint: Path, **changes: Any) -> SampleJob:
    return SampleJob(str(checkpoint), build("ancestral", steps=5), 2, 5, **changes)


@pytest.fixture
def made(tiny_checkpoint: Path) -> tuple[Path, Finished]:
    return tiny_checkpoint, list(job(tiny_checkpoint).run(setting(tiny_checkpoint)))[-1]


@pytest.fixture
def saved(made: Any, tmp_path: Path) -> Path:
    checkpoint, finished = made
    path = tmp_path / "a.replay"
    export = ExportJob(path, "replay", finished.pictures, finished.recipe)
    list(export.run(setting(checkpoint)))
    return path


def verdict_of(wanted: replay.Replay, checkpoint: Path) -> replay.Verdict:
    return list(replay.ReplayJob(wanted).run(setting(checkpoint)))[-1].value


def changed(path: Path, **values: Any) -> Path:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return path


def test_a_replay_is_bit_exact_and_nothing_differs(made: Any, saved: Path) -> None:
    wanted = replay.read(saved)
    assert verdict_of(wanted, made[0]) == replay.Verdict("exact", 0, 0.0)
    assert replay.differences(wanted, setting(made[0])) == []
    assert set(wanted.made) == {"studio", "torch", "model", "device", "dtype"}


def test_a_branch_is_replayed_from_nothing(made: Any, tmp_path: Path) -> None:
    checkpoint, _ = made
    told = list(job(checkpoint).run(setting(checkpoint)))
    trajectory = next(e.trajectory for e in told if isinstance(e, Begun))
    work = branched(trajectory, 0.0, seed=77)
    finished = list(work.run(setting(checkpoint)))[-1]
    path = tmp_path / "branch.png"
    recipes.write_png(path, pictures.grid(finished.pictures), finished.recipe)
    assert verdict_of(replay.read(path), checkpoint).result == "exact"


@pytest.mark.parametrize("which", ["one", "sheet"])
def test_any_png_with_a_recipe_can_be_replayed(made: Any, tmp_path: Path, which: str) -> None:
    checkpoint, finished = made
    path = tmp_path / "a.png"
    export = ExportJob(
        path, {"one": "picture"}.get(which, "sheet"), finished.pictures, finished.recipe, chosen=1
    )
    list(export.run(setting(checkpoint)))
    assert verdict_of(replay.read(path), checkpoint).result in ("exact", "close")


def test_pixels_that_are_apart_are_measured(made: Any, tmp_path: Path) -> None:
    checkpoint, finished = made
    sheet = pictures.grid(finished.pictures)
    for by, result in ((2, "close"), (60, "different")):
        other = sheet.copy()
        other[0, 0, 0] = other[0, 0, 0] + by if other[0, 0, 0] < 128 else other[0, 0, 0] - by
        recipes.write_png(tmp_path / "a.png", other, finished.recipe)
        verdict = verdict_of(replay.read(tmp_path / "a.png"), checkpoint)
        assert (verdict.result, verdict.most) == (result, by)
        assert str(by) in str(verdict)


def test_without_the_pixels_only_their_hash_is_compared(made: Any, saved: Path) -> None:
    data = json.loads(saved.read_text())
    del data["png"]
    saved.write_text(json.dumps(data))
    assert verdict_of(replay.read(saved), made[0]).result == "exact"
    other = data["pixels"] | {"sha256": "0" * 64}
    assert verdict_of(replay.read(changed(saved, pixels=other)), made[0]).result == "different"


def test_a_picture_that_was_scaled_is_said(made: Any, tmp_path: Path) -> None:
    checkpoint, finished = made
    recipes.write_png(tmp_path / "a.png", np.zeros((5, 5, 3), np.uint8), finished.recipe)
    with pytest.raises(PictureError, match="scaled"):
        verdict_of(replay.read(tmp_path / "a.png"), checkpoint)


def test_what_differs_is_said_before_anything_runs(made: Any, saved: Path) -> None:
    checkpoint = made[0]
    there = json.loads(saved.read_text())["made"]
    elsewhere = there | {"torch": "1.0", "device": "cuda", "model": "f" * 64, "studio": "9"}
    found = replay.differences(replay.read(changed(saved, made=elsewhere)), setting(checkpoint))
    assert {d.name: d.matters for d in found} == {
        "studio": False,
        "torch": True,
        "model": True,
        "device": True,
    }
    assert "cuda → cpu" in str(next(d for d in found if d.name == "device"))


def test_another_model_has_another_hash(made: Any, tmp_path: Path) -> None:
    checkpoint = made[0]
    before = replay.model_hash(Shelf([]), job(checkpoint))
    weights = checkpoint / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert replay.model_hash(Shelf([]), job(checkpoint)) != before


def test_a_model_that_is_gone_is_said(made: Any, saved: Path) -> None:
    wanted = replay.read(saved)
    gone = replace(wanted, recipe=wanted.recipe | {"model": "gone"})
    (difference,) = replay.differences(gone, setting(made[0]))
    assert "no model “gone”" in str(difference)
    with pytest.raises(CheckpointError):
        verdict_of(gone, made[0])


def test_a_painted_picture_needs_what_it_began_with(tmp_path: Path) -> None:
    recipe = spec.to_dict(PaintRecipe())
    recipes.write_png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8), recipe)
    with pytest.raises(PictureError, match="mask and strokes"):
        replay.read(tmp_path / "a.png").job()
    recipes.write_png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8), {"kind": "race"})
    with pytest.raises(PictureError, match="race"):
        replay.read(tmp_path / "a.png").job()
    recipes.write_png(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8), {"count": 10**9})
    with pytest.raises(SpecError):
        replay.read(tmp_path / "a.png").job()


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"job": []},
        {"version": "1"},
        {"pixels": {"sha256": 7, "shape": [8, 8, 3]}},
        {"pixels": {"sha256": "0" * 64, "shape": [18, 8, 3]}},
        {"pixels": {"sha256": "0" * 64, "shape": [10**6, 10**6, 3]}},
        {"png": "###"},
        {"png": "AAAA"},
        {"made": {"torch": [1]}},
        {"made": 3},
    ],
    ids=str,
)
def test_damaged_replays_are_said(saved: Path, change: dict[str, Any]) -> None:
    with pytest.raises(PictureError, match=r"a\.replay"):
        replay.read(changed(saved, **change))


def test_files_that_are_no_replays_are_said(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="newer"):
        replay.read(changed(saved, version=2))
    for text in ("", "[]", "no json", "[" * 100_000, '{"format": NaN}'):
        saved.write_text(text)
        with pytest.raises(PictureError, match="damaged"):
            replay.read(saved)
    saved.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PictureError, match="damaged"):
        replay.read(saved)
    with pytest.raises(PictureError, match="no replay at"):
        replay.read(tmp_path / "none.replay")
    recipes.write_png(tmp_path / "plain.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(PictureError, match="no recipe"):
        replay.read(tmp_path / "plain.png")


# -- on the command line ------------------------------------------------------------------------------


def test_the_command_says_exact_and_writes_what_came_out(
    made: Any, saved: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "again.png"
    assert cli.main(["replay", str(saved), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["result"] == "exact"
    assert told["differences"] == []
    assert recipes.read_recipe(out) == made[1].recipe


def test_the_command_ends_with_3_if_one_can_see_a_difference(
    made: Any, tmp_path: Path, capsys: Any
) -> None:
    sheet = 255 - pictures.grid(made[1].pictures)
    recipes.write_png(tmp_path / "a.png", sheet, made[1].recipe)
    assert cli.main(["replay", str(tmp_path / "a.png")]) == 3
    assert capsys.readouterr().out.startswith("different: at most")


def test_the_command_refuses_what_it_cannot_read_in_one_line(tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["replay", str(tmp_path / "none.replay")]) == 2
    assert "no replay at" in capsys.readouterr().err


def test_done_carries_the_verdict(made: Any, saved: Path) -> None:
    events = list(replay.ReplayJob(replay.read(saved)).run(setting(made[0])))
    assert isinstance(events[-1], Done)
    assert isinstance(events[-2], Finished)
