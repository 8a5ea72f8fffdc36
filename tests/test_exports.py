"""What is saved from the window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studio import recipes, spec
from studio.engine.events import Saved
from studio.engine.exports import ExportJob
from studio.engine.jobs import SampleJob
from studio.errors import SaveError

RECIPE = spec.to_dict(SampleJob(model="tiny", count=5, seed=40, classes="each"))


def stack(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (5, 8, 8, 3), dtype=np.uint8)


def saved(job: ExportJob) -> list[Path]:
    return [e.path for e in job.run(None) if isinstance(e, Saved)]  # type: ignore[arg-type]


def test_a_picture_is_saved_true_to_the_pixel_with_the_recipe_of_itself_alone(
    tmp_path: Path,
) -> None:
    (path,) = saved(ExportJob(tmp_path / "a.png", "picture", stack(), RECIPE, chosen=3))
    assert (np.asarray(Image.open(path)) == stack()[3]).all()
    alone = spec.from_dict(SampleJob, recipes.read_recipe(path))
    assert (alone.seed, alone.count, alone.classes) == (43, 1, "each")


def test_a_folder_gets_every_picture_under_its_own_seed(tmp_path: Path) -> None:
    paths = saved(ExportJob(tmp_path / "all", "folder", stack(), RECIPE))
    assert [p.name for p in paths] == [f"tiny-{40 + i}.png" for i in range(5)]
    assert recipes.read_recipe(paths[4])["seed"] == 44  # type: ignore[index]


def test_a_sheet_carries_the_recipe_of_all(tmp_path: Path) -> None:
    (path,) = saved(ExportJob(tmp_path / "sheet.png", "sheet", stack(), RECIPE))
    assert recipes.read_recipe(path) == RECIPE


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_film_shows_the_frames_in_their_order(tmp_path: Path, suffix: str) -> None:
    frames = tuple(stack(i) for i in range(6))
    (path,) = saved(ExportJob(tmp_path / f"run{suffix}", "film", stack(), RECIPE, frames=frames))
    with Image.open(path) as film:
        assert film.n_frames >= 6
        assert film.width >= 256


def test_frames_of_known_steps_are_told_below(tmp_path: Path) -> None:
    frames = stack(1), stack(2)
    plain, told = (
        saved(ExportJob(tmp_path / f"{i}.webp", "film", stack(), {}, frames=frames, steps=steps))[0]
        for i, steps in enumerate(((), (100, 2000)))
    )
    with Image.open(plain) as one, Image.open(told) as other:
        assert other.height > one.height
    assert recipes.read_recipe(told) is None


def test_views_of_one_channel_make_a_film_too(tmp_path: Path) -> None:
    frames = tuple(stack(i)[..., :1] for i in range(3))
    (path,) = saved(ExportJob(tmp_path / "run.webp", "film", stack(), RECIPE, frames=frames))
    assert path.stat().st_size > 0


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(SaveError, match="No space left"):
        saved(ExportJob(path, "picture", stack(), RECIPE))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
