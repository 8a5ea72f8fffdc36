"""Pictures as files: the recipe comes back, and what is not a recipe of ours does no harm."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio import recipes
from studio.errors import PictureError, SaveError

JOB = {"model": "critters-32", "sampler": {"kind": "pc", "steps": 3}, "classes": "“é” 猫"}


def picture(height: int = 5, width: int = 7, channels: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def png_with(tmp_path, text: str):
    path, chunks = tmp_path / "x.png", PngInfo()
    chunks.add_text(recipes.KEY, text)
    Image.fromarray(picture()).save(path, pnginfo=chunks)
    return path


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_gives_back_its_pixels_and_its_recipe(tmp_path, channels):
    path, pixels = tmp_path / "new folder" / "a.png", picture(channels=channels)
    recipes.write_png(path, pixels, JOB)
    assert recipes.read_recipe(path) == JOB
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_a_picture_without_a_recipe_has_none(tmp_path):
    recipes.write_png(tmp_path / "a.png", picture())
    Image.fromarray(picture()).save(tmp_path / "b.jpg")
    assert recipes.read_recipe(tmp_path / "a.png") is None
    assert recipes.read_recipe(tmp_path / "b.jpg") is None


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"version": 1, "job": []}',
        '{"version": "1", "job": {}}',
        '{"version": 1, "job": {"snr": NaN}}',
        "[" * 100_000,
        json.dumps({"version": 1, "job": {"a": "x" * 2**20}}),
    ],
    ids=lambda text: text[:20],
)
def test_a_damaged_recipe_is_said(tmp_path, text):
    with pytest.raises(PictureError, match="damaged"):
        recipes.read_recipe(png_with(tmp_path, text))


def test_a_recipe_from_the_future_is_said(tmp_path):
    with pytest.raises(PictureError, match="newer"):
        recipes.read_recipe(png_with(tmp_path, '{"version": 2, "job": {}}'))


def test_what_is_no_picture_is_said(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(PictureError, match=r"a\.png"):
        recipes.read_recipe(tmp_path / "a.png")
    with pytest.raises(PictureError, match="no picture at"):
        recipes.read_recipe(tmp_path / "b.png")
    with pytest.raises(PictureError):
        recipes.read_recipe(tmp_path)


@pytest.mark.parametrize("suffix", recipes.ANIMATIONS)
def test_an_animation_has_its_frames_and_holds_the_last(tmp_path, suffix):
    frames = [np.full((8, 12, 3), level, np.uint8) for level in (0, 120, 255)]
    path = tmp_path / f"run{suffix}"
    recipes.write_animation(path, frames, seconds=0.3, hold=2.0)
    with Image.open(path) as image:
        assert image.n_frames == 3
        assert image.size == (384, 256)  # enlarged, so that the short side has 256
        shown, durations = [], []
        for i in range(3):
            image.seek(i)
            image.load()
            durations.append(image.info["duration"])
            shown.append(int(np.asarray(image.convert("RGB")).mean()))
    assert durations == [100, 100, 2100]
    assert np.allclose(shown, [0, 120, 255], atol=3)


def test_an_animation_of_another_kind_is_refused(tmp_path):
    with pytest.raises(SaveError, match=r"run\.webp"):
        recipes.write_animation(tmp_path / "run.mp4", [picture()])
    with pytest.raises(SaveError):
        recipes.write_animation(tmp_path / "run.gif", [])


def test_enlarging_repeats_pixels():
    small = picture(2, 3)
    large = recipes.enlarged(small, least=10)
    assert large.shape == (10, 15, 3)
    assert np.array_equal(large[::5, ::5], small)
    assert recipes.enlarged(large, least=10) is large


def test_a_contact_sheet_shows_every_picture():
    stack = np.stack([np.full((4, 4, 3), 10 * i, np.uint8) for i in range(1, 6)])
    sheet = recipes.contact_sheet(stack, least=4)
    assert {10, 20, 30, 40, 50} <= set(np.unique(sheet))


def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SaveError):
        recipes.check_writable(tmp_path / "file" / "a.png")
    with pytest.raises(SaveError, match="folder"):
        recipes.check_writable(tmp_path)
    recipes.check_writable(tmp_path / "new" / "a.png")
    assert list((tmp_path / "new").iterdir()) == []
