"""Painting from the command line and from Python: what comes out, what stays, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_OPTIONS, gaussian_score, tiny_network
from PIL import Image

import studio
from studio import cli, photos, recipes, spec
from studio.commands import paint
from studio.diffusion.conditions import All, Condition
from studio.diffusion.linear import Blur
from studio.diffusion.pictures import to_pictures
from studio.diffusion.sde import VESDE, VPSDE
from studio.engine import boxes
from studio.engine.events import Finished
from studio.engine.jobs import Setting
from studio.engine.paint import PaintJob, PaintRecipe
from studio.errors import PictureError, SpecError
from studio.weights.formats import native
from studio.weights.model import ModelInfo
from studio.weights.shelf import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = ["--steps", 2]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    info = ModelInfo(options=TINY_OPTIONS, size=8, classes=("cat", "dog"), steps=12)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    native.save(folder, info, tiny_network().state_dict(), card="# Tiny\n")
    return folder


@pytest.fixture(autouse=True)
def model(home: Path, tiny: Path) -> None:
    """A small model with two classes on the shelf."""
    shutil.copytree(tiny, home / "models" / "tiny")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a photo of 16 × 12 and a mask for it, that the test stands in."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(12, 16)).save("photo.png")
    write_mask("mask.png", (12, 16), (4, 5, 6, 4))
    return tmp_path


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def write_mask(name: str | Path, shape: tuple[int, int], rect: boxes.Rect) -> np.ndarray:
    x, y, w, h = rect
    mask = np.zeros(shape, np.uint8)
    mask[y : y + h, x : x + w] = 255
    Image.fromarray(mask).save(name)
    return mask


@pytest.fixture
def run(capsys):
    """Runs a command line with --json; (exit code, the one object on stdout)."""

    def run(*words: object) -> tuple[int, dict]:
        capsys.readouterr()
        code = cli.main([*map(str, words), "--device", "cpu", "--json"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        return code, json.loads(lines[0])

    return run


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


INPAINT = ["inpaint", "tiny", "photo.png", "--mask", "mask.png", *FEW]


# -- what comes out -------------------------------------------------------------------------------


def test_what_is_not_masked_stays_bit_for_bit(run):
    code, said = run(*INPAINT, "--out", "new/out.png")
    assert (code, said["files"]) == (0, ["new/out.png"])
    before, after, free = pixels("photo.png"), pixels("new/out.png"), pixels("mask.png") > 0
    assert np.array_equal(before[~free], after[~free])
    assert not np.array_equal(before[free], after[free])
    assert said["photos"][0]["proof"] == {"kept": 0}


def test_the_recipe_in_it_makes_it_again_as_the_canvas_would(run):
    words = ["--seed", 3, "--label", "dog", "--option", "method.weight=2", "--method", "pigdm"]
    _, said = run(*INPAINT, *words, "--box", "2,2,10,9", "--out", "out.png")
    recipe = spec.from_dict(PaintRecipe, recipes.read_recipe(Path("out.png")))
    assert spec.to_dict(recipe) == said["photos"][0]["recipe"]
    assert (recipe.kind, recipe.box, recipe.sample.classes) == ("paint", (2, 2, 10, 9), "dog")
    assert (spec.kind(recipe.task.method), recipe.task.method.weight) == ("pigdm", 2)
    # The canvas hands over what is in the box.
    crop, mask = (pixels(name)[2:11, 2:12] for name in ("photo.png", "mask.png"))
    job = PaintJob(recipe, crop, mask, boxed=True)
    assert job.inputs() == recipe.inputs
    *_, last = job.run(Setting(Shelf(), "cpu"))
    assert isinstance(last, Finished)
    assert np.array_equal(last.pictures[0], pixels("out.png")[2:11, 2:12])


def test_several_candidates_are_files_and_each_comes_again_alone(run):
    _, said = run(*INPAINT, "--count", 3, "--label", "each", "--out", "out.png")
    assert said["files"] == ["out-1.png", "out-2.png", "out-3.png"]
    run(*INPAINT, "--seed", 2, "--label", "each", "--out", "alone.png")
    third, alone = (pixels(name).astype(int) for name in ("out-3.png", "alone.png"))
    assert np.abs(third - alone).max() <= 1
    kept = [recipes.read_recipe(Path(name)) for name in ("out-3.png", "alone.png")]
    assert kept[0]["sample"] == kept[1]["sample"]
    assert not np.array_equal(pixels("out-1.png"), third)


def test_brightness_stays_and_colours_are_found(run):
    _, said = run("colorize", "tiny", "photo.png", *FEW, "--weights", "mean", "--out", "out.png")
    before, after = (pixels(name).astype(int) for name in ("photo.png", "out.png"))
    assert np.array_equal(before.sum(-1), after.sum(-1))
    assert not np.array_equal(before, after)
    assert said["photos"][0]["proof"] == {"brightness": 0}


def test_hints_and_sketches_are_strokes_on_nothing(run):
    strokes = np.zeros((12, 16, 4), np.uint8)
    strokes[4:8, 4:10] = (255, 0, 0, 255)
    Image.fromarray(strokes).save("strokes.png")
    colorize, sketch = (
        ["colorize", "tiny", "photo.png", *FEW],
        ["sketch", "tiny", "photo.png", *FEW],
    )
    for plain, words in (
        (INPAINT, ["--sketch", "strokes.png", "--closeness", 0.9]),
        (colorize, ["--hints", "strokes.png", "--closeness", 0.9]),
        (sketch, ["--sketch", "strokes.png", "--strength", 0.2]),
    ):
        run(*plain, "--out", "plain.png")
        code, said = run(*plain, *words, "--out", "hinted.png")
        assert code == 0
        assert "sketch" in said["photos"][0]["recipe"]["inputs"]
        assert not np.array_equal(pixels("plain.png"), pixels("hinted.png"))


def test_a_sketch_is_followed_as_closely_as_is_said(run):
    away = []
    for strength in (0.02, 1):
        run("sketch", "tiny", "photo.png", "--steps", 6, "--strength", strength, "--way", "windows",
            "--out", "out.png")  # fmt: skip
        away.append(np.abs(pixels("out.png").astype(int) - pixels("photo.png")).mean())
    assert away[0] < 20 < away[1]


def test_an_enlarged_photo_has_the_photo_as_the_means_of_its_blocks(run):
    Image.fromarray(noise(6, 5) // 2 + 64).save("small.png")
    _, said = run("upscale", "tiny", "small.png", *FEW, "--factor", 4, "--out", "out.png")
    large = pixels("out.png").astype(float)
    assert large.shape == (24, 20, 3)
    assert said["photos"][0]["box"] == [0, 0, 20, 24]
    means = large.reshape(6, 4, 5, 4, 3).mean((1, 3))
    # Where the model leaves the range the clip moves a mean: not more than a little, here.
    assert np.median(np.abs(means - pixels("small.png"))) <= 1


def test_a_blurred_photo_is_changed_only_where_it_may(run):
    _, said = run("deblur", "tiny", "photo.png", *FEW, "--mask", "mask.png", "--radius", 0.8,
                  "--out", "out.png")  # fmt: skip
    free = pixels("mask.png") > 0
    assert np.array_equal(pixels("photo.png")[~free], pixels("out.png")[~free])
    assert said["task"]["radius"] == 0.8


@pytest.mark.parametrize("way", ["windows", "cascade"])
def test_a_box_larger_than_the_model_is_painted_at_its_size(run, way):
    code, said = run(*INPAINT, "--way", way, "--frames", "run.gif", "--out", "out.png")
    assert code == 0
    assert said["files"] == ["out.png", "run.gif"]
    with Image.open("run.gif") as film:
        assert film.n_frames >= 2
    free = pixels("mask.png") > 0
    assert np.array_equal(pixels("photo.png")[~free], pixels("out.png")[~free])


def test_transparency_is_kept_and_read_on_white(run):
    shape = noise(12, 16)
    alpha = np.full((12, 16), 255, np.uint8)
    alpha[:, :8], alpha[:, 8:10] = 0, 128
    Image.fromarray(np.dstack([shape, alpha])).save("photo.png")
    photo = photos.read(Path("photo.png"))
    code, _ = run(*INPAINT, "--out", "out.png")
    assert code == 0
    after, free = pixels("out.png"), pixels("mask.png") > 0
    assert np.array_equal(after[..., 3], alpha)
    assert np.array_equal(after[~free], pixels("photo.png")[~free])
    assert np.array_equal(after[alpha == 0], pixels("photo.png")[alpha == 0])
    job = spec.from_dict(PaintRecipe, recipes.read_recipe(Path("out.png")))
    *_, last = PaintJob(job, photo.on_white, pixels("mask.png")).run(Setting(Shelf(), "cpu"))
    seen = photos.read(Path("out.png")).on_white.astype(int)
    x, y, w, h = job.box
    part = slice(y, y + h), slice(x, x + w)
    full = (free & (alpha == 255))[part]
    assert np.array_equal(seen[part][full], last.pictures[0][full])


def test_half_transparent_pixels_look_as_they_were_made():
    colours, alpha = noise(4, 4), np.full((4, 4), 128, np.uint8)
    photo = photos.Photo(colours, alpha, "a.png")
    made = photo.on_white.copy()
    assert np.array_equal(paint.laid(photo, (0, 0, 4, 4), made), colours)
    made[1, 1] = (200, 180, 240)
    seen = photos.Photo(paint.laid(photo, (0, 0, 4, 4), made), alpha, "a.png").on_white
    assert np.abs(seen.astype(int) - made).max() <= 1


# -- where the box lies ---------------------------------------------------------------------------


def test_the_box_suits_the_photo():
    mask = np.zeros((100, 300), np.uint8)
    mask[40:50, 200:220] = 255
    near = (168, 0, 84, 100)
    assert paint.placed("", (300, 100), mask, 8)[2:] == (84, 84)
    assert near[2] == 20 + 2 * boxes.PADDING
    assert paint.placed("all", (300, 100), mask, 8) == (0, 0, 300, 100)
    assert paint.placed("", (300, 100), None, 8) == (0, 0, 300, 100)
    assert paint.placed("", (110, 100), mask[:, 190:], 8) == (0, 0, 110, 100)
    assert paint.placed("mask", (110, 100), mask[:, 190:], 8)[2:] == (84, 84)
    assert paint.placed(" 1, 2,30,40", (300, 100), mask, 8) == (1, 2, 30, 40)
    # Larger than the photo is high: what of the square lies in it.
    assert paint.placed("mask", (300, 100), mask, 128)[3] == 100


# -- folders --------------------------------------------------------------------------------------


@pytest.fixture
def album(here: Path) -> Path:
    """Photos in a folder and one below it, some of which are none; masks in another."""
    album, masks = here / "album", here / "masks"
    for folder in (album / "deep", masks / "deep", album / ".hidden"):
        folder.mkdir(parents=True)
    for i, place in enumerate(("a.png", "deep/b.png", "lonely.png", ".hidden/c.png")):
        Image.fromarray(noise(12, 16, i)).save(album / place)
    for place in ("a.png", "deep/b.png", "cut.png", "text.png"):
        write_mask(masks / place, (12, 16), (4, 5, 6, 4))
    (album / "text.jpg").write_text("no picture")
    whole = (album / "a.png").read_bytes()
    (album / "cut.png").write_bytes(whole[: len(whole) // 2])
    return album


def test_a_folder_is_painted_photo_by_photo(run, album, capsys):
    words = ["inpaint", "tiny", "album", "--mask", "masks", *FEW, "--out", "out"]
    code, said = run(*words)
    assert code == paint.SOME_FAILED
    assert said["files"] == ["out/a.png", "out/deep/b.png"]
    assert [Path(f["path"]).name for f in said["failed"]] == ["cut.png", "lonely.png", "text.jpg"]
    assert all("\n" not in failed["reason"] for failed in said["failed"])
    assert sorted(p.name for p in Path("out").rglob("*.png")) == ["a.png", "b.png"]
    run("inpaint", "tiny", "album/deep/b.png", "--mask", "masks/deep/b.png", *FEW)
    assert np.array_equal(pixels("out.png"), pixels("out/deep/b.png"))
    assert cli.main([*map(str, words), "--device", "cpu"]) == paint.SOME_FAILED
    out, err = capsys.readouterr()
    assert "3 of 5 photos failed" in out
    assert sum(line.startswith("failed ") for line in err.splitlines()) == 3


def test_one_mask_serves_all_photos_of_its_size(run, album):
    for name in ("cut.png", "text.jpg"):
        (album / name).unlink()
    code, said = run("inpaint", "tiny", "album", "--mask", "mask.png", *FEW, "--out", "out")
    assert (code, len(said["files"]), said["failed"]) == (0, 3, [])
    Image.fromarray(noise(9, 9)).save(album / "small.png")
    code, said = run("inpaint", "tiny", "album", "--mask", "mask.png", *FEW, "--out", "out")
    assert code == paint.SOME_FAILED
    assert "16 × 12 pixels; the picture is 9 × 9" in said["failed"][0]["reason"]


def test_a_folder_of_which_nothing_can_be_painted_fails(run, album):
    for path in album.rglob("*.png"):
        path.unlink()
    code, said = run("colorize", "tiny", "album", *FEW, "--out", "out")
    assert code == 2
    assert "None of 1" in said["error"]
    assert not Path("out").exists()


def test_photos_that_differ_in_suffix_alone_become_two_files(run, here):
    (here / "twins").mkdir()
    for name in ("a.png", "a.bmp"):
        Image.fromarray(noise(8, 8)).save(here / "twins" / name)
    _, said = run("colorize", "tiny", "twins", *FEW, "--out", "twins/out")
    assert said["files"] == ["twins/out/a.bmp.png", "twins/out/a.png.png"]
    # What was made before is no photo of the next run.
    assert run("colorize", "tiny", "twins", *FEW, "--out", "twins/out")[1]["files"] == said["files"]


# -- what is refused ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grey(tmp_path_factory) -> Path:
    """A model of grey pictures."""
    info = ModelInfo(options=TINY_OPTIONS | {"colours": 1}, size=8, colours=1, steps=12)
    folder = tmp_path_factory.mktemp("models") / "grey"
    native.save(folder, info, tiny_network(colours=1).state_dict(), card="# Grey\n")
    return folder


def spoil(here: Path) -> None:
    write_mask("empty.png", (12, 16), (0, 0, 0, 0))
    write_mask("full.png", (12, 16), (0, 0, 16, 12))
    write_mask("other.png", (16, 12), (4, 5, 6, 4))
    (here / "text.jpg").write_text("no picture")
    (here / "cut.png").write_bytes((here / "photo.png").read_bytes()[:200])
    Image.new("RGB", (1, 1)).save("dot.png")
    Image.new("L", (1, 1), 255).save("dot-mask.png")
    Image.new("L", (30_000, 20)).save("wide.png")
    Image.new("RGB", (16, 12), "red").save("opaque.png")
    (here / "folder").mkdir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inpaint", "tiny", "photo.png"], "Give --mask"),
        (["inpaint", "tiny"], "must be given"),
        (["inpaint", "tiny", "photo.png", "--mask", "empty.png"], "Nothing is painted"),
        (["inpaint", "tiny", "photo.png", "--mask", "full.png"], "nothing of the picture is kept"),
        (["inpaint", "tiny", "photo.png", "--mask", "other.png"], "12 × 16 pixels; the picture"),
        (["inpaint", "tiny", "photo.png", "--mask", "text.jpg"], "text.jpg is not a picture"),
        (["inpaint", "tiny", "photo.png", "--mask", "nowhere.png"], "no picture at nowhere.png"),
        (["inpaint", "tiny", "text.jpg", "--mask", "mask.png"], "text.jpg is not a picture"),
        (["inpaint", "tiny", "cut.png", "--mask", "mask.png"], "cut.png is cut short"),
        (["inpaint", "tiny", "dot.png", "--mask", "dot-mask.png"], "painted"),
        (["colorize", "tiny", "dot.png"], "1 × 1 pixels: too small"),
        (["colorize", "tiny", "wide.png"], "30000 × 20 pixels: too narrow"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--method", "magic"], "magic"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--box", "a"], "is no box"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--box", "9,0,9,9"], "not inside"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--box", "0,0,4,4"], "inside the"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--sampler", "rk45"], "fixed steps"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--option", "weight=1"], "weight"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--sketch", "opaque.png"], "cover"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--out", "a.jpg"], "a.png"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--out", "mask.png"], "replaced"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--out", "photo.png"], "replaced"),
        (["inpaint", "tiny", "photo.png", "--mask", "mask.png", "--label", "bird"], "“bird”"),
        (["inpaint", "nobody", "photo.png", "--mask", "mask.png"], "no model “nobody”"),
        (["colorize", "grey", "photo.png"], "makes grey pictures"),
        (["sketch", "grey", "photo.png"], "makes grey pictures"),
        (["sketch", "tiny", "photo.png", "--box", "mask"], "no mask"),
        (["sketch", "tiny", "photo.png", "--strength", "2"], "from 0.02 to 1"),
        (["upscale", "tiny", "photo.png", "--factor", "3"], "2, 4, 8"),
        (["upscale", "tiny", "wide.png", "--factor", "8"], "too large"),
        (["deblur", "tiny", "photo.png", "--method", "replace"], "blur"),
        (["colorize", "tiny", "folder", "--out", "out"], "No picture"),
        (["colorize", "tiny", "folder"], "--out FOLDER"),
        (["colorize", "tiny", "folder", "--out", "folder"], "folders of their own"),
        (["colorize", "tiny", "photo.png", "--out", "folder"], "is a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_is_answered_in_one_line(words, said, here, grey, capsys):
    spoil(here)
    words = [str(grey) if word == "grey" else word for word in words]
    before = sorted(here.rglob("*"))
    assert cli.main([*words, "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line != "Loading the model"]
    assert out == ""
    assert len(lines) == 1
    assert said in lines[0]
    assert sorted(here.rglob("*")) == before


def test_an_animation_shows_one_photo(run, album):
    code, said = run("colorize", "tiny", "album", "--out", "out", "--frames", "a.webp")
    assert (code, "one photo" in said["error"]) == (2, True)


# -- from Python ----------------------------------------------------------------------------------


def last(steps):
    return list(steps)[-1].denoised


@pytest.mark.parametrize("method", ["replace", "repaint"])
@pytest.mark.parametrize(("sde", "value_range"), [(VPSDE(), (-1.0, 1.0)), (VESDE(), (0.0, 1.0))])
def test_python_keeps_what_is_known_in_any_value_range(sde, value_range, method):
    score = studio.Score.from_function(
        gaussian_score(sde, 0.5, (3, 8, 8)).fn, sde, (3, 8, 8), value_range
    )
    picture, mask = noise(8, 8), np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    known = studio.inpaint(picture, mask, method=method)
    made = last(studio.sample(score, 2, "ancestral", steps=20, condition=known))
    after = to_pictures(made, value_range)
    assert np.array_equal(after[:, ~mask], np.stack([picture[~mask]] * 2))
    assert not np.array_equal(after[0, mask], picture[mask])


def test_python_adds_conditions_up():
    score = gaussian_score(VPSDE(), 0.5, (3, 8, 8))
    picture, mask = noise(8, 8), np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    both = All((studio.inpaint(picture, mask), Condition()))
    after = to_pictures(last(studio.sample(score, 1, "ancestral", 10, condition=both)), (-1, 1))
    assert np.array_equal(after[0, ~mask], picture[~mask])


def test_python_colours_sketches_and_restores():
    score = gaussian_score(VPSDE(), 0.5, (3, 8, 8))
    picture = noise(8, 8) // 2 + 64
    made = {
        name: to_pictures(last(studio.sample(score, 1, "ancestral", 30, condition=known)), (-1, 1))[
            0
        ].astype(int)
        for name, known in {
            "colorize": studio.colorize(picture, weights="mean"),
            "sketch": studio.sketch(picture, strength=0.05),
            "upscale": studio.upscale(picture, factor=2),
            "deblur": studio.deblur(picture, radius=0.5),
        }.items()
    }
    inside = ((made["colorize"] > 0) & (made["colorize"] < 255)).all(-1)
    bright = np.abs(made["colorize"].mean(-1) - picture.mean(-1))
    assert bright[inside].max() <= 1
    assert np.abs(made["sketch"] - picture).max() < 30
    means = [v.reshape(4, 2, 4, 2, 3).mean((1, 3)) for v in (made["upscale"], picture)]
    assert np.median(np.abs(means[0] - means[1])) <= 1
    seen = Blur(0.5).forward(torch.from_numpy(made["deblur"]).permute(2, 0, 1)[None].double())
    assert np.abs(seen[0].permute(1, 2, 0).numpy() - picture).mean() < 5


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (lambda p, m: studio.inpaint(p[:4], m), "picture has shape"),
        (lambda p, m: studio.inpaint(p / 255, m), "float64"),
        (lambda p, m: studio.inpaint(p[..., 0], m), "picture has shape"),
        (lambda p, m: studio.inpaint(p, m[:4]), "mask has shape"),
        (lambda p, m: studio.inpaint(p, m & False), "Nothing is masked"),
        (lambda p, m: studio.inpaint(p, m | True), "All is masked"),
        (lambda p, m: studio.sketch(p, strokes=p), "strokes has shape"),
    ],
)
def test_python_says_what_does_not_suit_the_model(known, said):
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    with pytest.raises(PictureError, match=said):
        studio.sample(gaussian_score(VPSDE(), 0.5, (3, 8, 8)), condition=known(noise(8, 8), mask))


def test_python_says_at_once_what_is_no_option():
    with pytest.raises(SpecError, match="wieght"):
        studio.inpaint(noise(8, 8), np.zeros((8, 8), bool), method="pigdm", wieght=2)
    with pytest.raises(SpecError, match="from 0 to 10"):
        studio.inpaint(noise(8, 8), np.zeros((8, 8), bool), method="pigdm", weight=20)


def test_a_condition_that_was_not_told_the_model_does_nothing_wrong():
    known = studio.colorize(noise(8, 8))
    with pytest.raises(SpecError, match=r"condition\.on"):
        known.constrain(torch.zeros(1, 3, 8, 8), 0.5, VPSDE(), None)
