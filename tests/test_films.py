"""Films and strips of a run: their moments, captions and times, and the recipe that they carry."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import build, mixture_score
from PIL import Image
from test_jobs import OneModel

from studio import films, recipes, spec
from studio.diffusion.sde import VPSDE
from studio.engine.events import Begun, Saved
from studio.engine.exports import ExportJob, shots
from studio.engine.jobs import SampleJob, Setting
from studio.engine.trajectory import VIEWS, Trajectory
from studio.errors import PictureError, SaveError
from studio.films import Film, Shot

RECIPE = spec.to_dict(SampleJob(model="tiny “é”", count=5, seed=40, classes="each"))


def flat(level: int, i: int, n: int = 1, h: int = 8, w: int = 8, c: int = 3) -> Shot:
    return Shot(np.full((n, h, w, c), level, np.uint8), float(i), i, 2 * i)


def three() -> list[Shot]:
    return [flat(level, i) for i, level in enumerate((0, 120, 255))]


def shown(path: Path) -> tuple[list[int], list[int]]:
    """The brightness in the middle of every frame of an animation, and how long it stays."""
    levels, durations = [], []
    with Image.open(path) as film:
        for i in range(film.n_frames):  # type: ignore[attr-defined]
            film.seek(i)
            film.load()
            durations.append(film.info["duration"])
            pixels = np.asarray(film.convert("RGB"))
            levels.append(int(pixels[100, 100, 0]))
    return levels, durations


@pytest.mark.parametrize("suffix", recipes.ANIMATIONS)
def test_a_film_has_its_frames_its_speed_and_its_recipe(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    films.write(path, three(), Film(fps=10, hold=1.5), RECIPE)
    levels, durations = shown(path)
    assert np.allclose(levels, [0, 120, 255], atol=3)
    assert durations == [100, 100, 1600]
    assert recipes.read_recipe(path) == RECIPE


@pytest.mark.parametrize("suffix", recipes.ANIMATIONS)
def test_there_and_back_holds_the_result_and_comes_back_to_the_start(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"run{suffix}"
    films.write(path, three(), Film(fps=10, hold=1, ping_pong=True))
    levels, durations = shown(path)
    assert np.allclose(levels, [0, 120, 255, 120], atol=3)
    assert durations == [100, 100, 1100, 100]
    assert recipes.read_recipe(path) is None


def test_films_of_other_makers_have_no_recipe(tmp_path: Path) -> None:
    image = Image.fromarray(three()[1].pictures[0])
    image.save(tmp_path / "a.gif", comment=b"made by hand")
    image.save(tmp_path / "b.webp")
    (tmp_path / "c.mp4").write_bytes(b"\0\0\0\x14ftypisom" + bytes(100))
    for name in ("a.gif", "b.webp", "c.mp4"):
        assert recipes.read_recipe(tmp_path / name) is None


def test_a_damaged_recipe_of_a_film_is_said(tmp_path: Path) -> None:
    image = Image.fromarray(three()[1].pictures[0])
    image.save(tmp_path / "a.gif", comment=b"score-studio {oops")
    with pytest.raises(PictureError, match="damaged"):
        recipes.read_recipe(tmp_path / "a.gif")


@pytest.mark.parametrize(
    "body", [b"\xff" * 64, b"\0\0\0\x10moov" + b"\0" * 7, b"\0\0\0\1moov", b""]
)
def test_a_damaged_mp4_does_no_harm(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x0cftypisom" + body)
    with contextlib.suppress(PictureError):
        assert recipes.read_recipe(tmp_path / "a.mp4") is None


# -- MP4 ----------------------------------------------------------------------------------------------


def test_without_its_package_mp4_says_how_to_get_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(films, "has_mp4", lambda: False)
    with pytest.raises(SaveError, match="pip install imageio-ffmpeg"):
        films.write(tmp_path / "a.mp4", three(), Film())


def test_an_mp4_carries_the_recipe_and_all_frames(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "run.mp4"
    odd = [flat(v, i, h=257, w=301) for i, v in enumerate((0, 120, 255))]
    films.write(path, odd, Film(fps=10, hold=1.0), RECIPE)
    assert recipes.read_recipe(path) == RECIPE
    count, seconds = ffmpeg.count_frames_and_secs(str(path))
    assert count == 13
    assert seconds == pytest.approx(1.3, abs=0.11)
    reader = ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    assert width % 2 == height % 2 == 0
    middles = [np.frombuffer(f, np.uint8).reshape(height, width, 3)[100, 100, 0] for f in reader]
    assert np.allclose(middles[:3], [0, 120, 255], atol=6)


# -- captions, sheets, strips --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("h", "w", "n"),
    [(8, 8, 1), (32, 32, 16), (64, 64, 4), (256, 256, 1), (1024, 700, 1), (16, 200, 2)],
)
def test_captions_fit_and_can_be_read_at_any_size(h: int, w: int, n: int) -> None:
    shot = flat(90, 3, n, h, w)
    with_text, without = films.sheet(shot), films.sheet(shot, "none")
    assert with_text.shape[1] == without.shape[1] >= 256
    assert max(without.shape) <= 2048
    band = with_text[without.shape[0] :]
    assert len(band) >= 20
    assert (with_text[: without.shape[0]] == without).all()
    inked = (band > 128).any(-1)
    assert inked.any()
    # Nothing touches the borders, and letters are at least seven pixels high.
    assert not inked[[0, -1]].any()
    assert not inked[:, [0, 1, -2, -1]].any()
    assert inked.any(1).sum() >= 7


def test_captions_say_where_the_run_was() -> None:
    shot = Shot(flat(0, 0).pictures, -2.0, 7, 14)
    assert films.captions(shot, "sigma")[0] == "sigma 2.72 · step 7 · 14 network calls"
    assert films.captions(shot, "log-SNR")[-1] == "log-SNR -2.0"
    assert films.captions(shot, "none") == []


def test_a_strip_has_twelve_moments_evenly_in_log_snr() -> None:
    uneven = [
        flat(0, 0),
        *(flat(i, i) for i in (1, 2, 3)),
        *(flat(i % 250, i) for i in range(10, 111)),
    ]
    chosen = films.evenly(uneven, 12)
    assert len(chosen) == 12
    assert [s.step for s in chosen] == [0, *range(10, 111, 10)]
    sheet = films.strip(uneven, 12)
    assert sheet.shape[1] == 12 * 96 + 11 * 2
    assert films.strip(uneven[:2]).shape[1] == 2 * 96 + 2


def test_a_strip_has_a_row_for_each_picture() -> None:
    one, two = (films.strip([flat(9, i, n) for i in range(3)], style="none") for n in (1, 2))
    assert len(two) == 2 * len(one) + 2


def test_what_cannot_be_a_film_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=r"run\.webp"):
        films.write(tmp_path / "run.avi", three(), Film())
    with pytest.raises(SaveError):
        films.write(tmp_path / "run.gif", [], Film())
    with pytest.raises(SaveError):
        films.strip([])


# -- from a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run() -> tuple[Trajectory, Any]:
    score = mixture_score(VPSDE(), (-0.6, 0.6), 0.2, (0.5, 0.5), (3, 8, 8))
    job = SampleJob("exact", build("ancestral", steps=15), 2, 5)
    told = list(job.run(Setting(OneModel(score), "cpu", rate=1e9)))
    return next(e.trajectory for e in told if isinstance(e, Begun)), told[-1]


def export(path: Path, kind: str, run: Any, **more: Any) -> Path:
    trajectory, finished = run
    job = ExportJob(path, kind, finished.pictures, finished.recipe, trajectory=trajectory, **more)
    (saved,) = [e.path for e in job.run(None) if isinstance(e, Saved)]  # type: ignore[arg-type]
    return saved


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_a_run_makes_a_film_that_ends_with_the_result(
    tmp_path: Path, run: Any, view: str
) -> None:
    trajectory, finished = run
    found = shots(trajectory, view)
    assert (found[-1].pictures == finished.pictures).all()
    path = export(tmp_path / "run.webp", "film", run, film=Film(view=view, fps=20))
    assert recipes.read_recipe(path) == finished.recipe
    with Image.open(path) as film:
        assert film.n_frames > 10  # type: ignore[attr-defined]


def test_a_strip_of_a_run_is_a_png_with_its_recipe(tmp_path: Path, run: Any) -> None:
    path = export(tmp_path / "strip.png", "strip", run)
    assert recipes.read_recipe(path) == run[1].recipe


def test_a_run_is_saved_as_a_trajectory(tmp_path: Path, run: Any) -> None:
    from studio.engine.trajectory_file import open_trajectory

    path = export(tmp_path / "run.traj", "trajectory", run)
    assert len(open_trajectory(path).frames) == len(run[0].frames)
