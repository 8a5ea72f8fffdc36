"""A folder as folders are: every file is a picture, a broken one or something else, and says why."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from studio import photos
from studio.errors import DataError, PictureError, SpecError
from studio.training import cache, folder
from studio.training.choices import Choices
from studio.training.folder import File

# Pillow remarks on the damaged files that are tried here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
SIZE = 16


def picture(seed=0, width=48, height=32):
    """Soft blobs, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def scanned(place, known=None, **options):
    files = [f for _, _, new in folder.scan(place, SIZE, known or {}, **options) for f in new]
    return {f.path: f for f in files}


def only(place):
    (file,) = scanned(place).values()
    return file


# -- kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "name", "flags"),
    [
        ("RGB", "a.png", ()),
        ("RGB", "UPPER.JPEG", ()),
        ("RGB", "a.bmp", ()),
        ("RGB", "a.tiff", ()),
        ("RGB", "a.ppm", ()),
        ("RGB", "a.webp", ()),
        ("RGB", "a.tga", ()),
        ("L", "a.png", ("grey",)),
        ("1", "a.png", ("grey", "converted")),
        ("P", "a.gif", ("converted",)),
        ("P", "a.png", ("converted",)),
        ("CMYK", "a.jpg", ("converted",)),
        ("CMYK", "a.tif", ("converted",)),
        ("LAB", "a.tif", ("converted",)),
    ],
)
def test_pictures_of_every_kind_are_found(place, mode, name, flags):
    image = Image.fromarray(np.asarray(picture())).convert(mode) if mode != "LAB" else None
    if image is None:
        image = Image.merge("LAB", picture().split())
    image.save(place / name)
    found = only(place)
    assert (found.path, found.result, found.reason) == (name, "image", "")
    assert found.size == (48, 32)
    assert found.flags == flags


def test_sixteen_bits_are_told(place):
    deep = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    Image.fromarray(deep).save(place / "grey.png")
    assert only(place).flags == ("grey", "converted")


@pytest.mark.parametrize("flag", range(1, 9))
def test_sizes_are_those_of_the_upright_picture(place, flag):
    exif = Image.Exif()
    exif[0x0112] = flag
    picture(width=200, height=120).save(place / "a.jpg", exif=exif)
    found = only(place)
    assert found.size == ((120, 200) if flag >= 5 else (200, 120))
    shown = folder.thumbnail(place, found, 50)
    assert shown.shape == ((50, 30, 3) if flag >= 5 else (30, 50, 3))


def test_names_do_not_make_pictures_but_contents_do(place):
    picture().save(place / "no_suffix", "JPEG")
    picture(1).save(place / "download.jpg_large", "WEBP")
    picture(2).save(place / "really_a_png.jpg", "PNG")
    (place / "README").write_text("text")
    assert {p: f.result for p, f in scanned(place).items()} == {
        "README": "ignore",
        "download.jpg_large": "image",
        "no_suffix": "image",
        "really_a_png.jpg": "image",
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".hidden.png", "hidden"),
        ("Thumbs.db", "kept by the system"),
        ("desktop.ini", "kept by the system"),
        ("notes.txt", "not a picture"),
        ("film.mp4", "not a picture"),
        ("LICENSE", "not a picture"),
    ],
)
def test_what_is_no_picture_is_passed_over(place, name, reason):
    (place / name).write_bytes(b"\0\0\0\x18ftypisom and more")
    assert only(place) == File(name, "ignore", reason, stamp=only(place).stamp)


def test_hidden_folders_are_not_looked_into(place):
    for name in (".git", "__MACOSX", "@eaDir"):
        (place / name).mkdir()
        picture().save(place / name / "a.png")
    assert {p: f.result for p, f in scanned(place).items()} == {
        ".git/": "ignore",
        "@eaDir/": "ignore",
        "__MACOSX/": "ignore",
    }


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", b"", "empty"),
        ("text.jpg", b"not a picture at all", "not a picture"),
        ("noise.webp", bytes(range(1, 256)) * 9, "not a picture that can be read"),
        ("photo.heic", b"\0\0\0\x18ftypheic" + bytes(64), "HEIC"),
        ("no_suffix", b"\0\0\0\x18ftypheic" + bytes(64), "HEIC"),
        ("photo.nef", b"MM\0*" + bytes(64), "raw photo"),
        ("photo.jxl", b"\xff\x0a" + bytes(64), "JPEG XL"),
        ("logo.svg", b"<svg/>", "drawing"),
    ],
)
def test_what_cannot_be_read_is_an_error_and_says_why(place, name, content, reason):
    (place / name).write_bytes(content)
    found = only(place)
    assert found.result == "error"
    assert reason in found.reason
    assert name not in found.reason, "the list has it already"
    assert found.size == (0, 0)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "tif"])
def test_pictures_that_were_cut_short_are_errors(place, suffix):
    picture(width=200, height=200).save(place / f"a.{suffix}")
    whole = (place / f"a.{suffix}").read_bytes()
    (place / f"a.{suffix}").write_bytes(whole[: len(whole) // 2])
    assert only(place).result == "error"
    assert only(place).reason


def test_a_decoder_that_fails_oddly_costs_one_picture(place, monkeypatch):
    picture(0).save(place / "a.png")
    picture(1).save(place / "b.png")
    glance = photos.glance

    def odd(path, *rest):
        if path.name == "a.png":
            raise ZeroDivisionError("of a width")
        return glance(path, *rest)

    monkeypatch.setattr(photos, "glance", odd)
    found = scanned(place)
    assert (found["a.png"].result, found["b.png"].result) == ("error", "image")
    assert "of a width" in found["a.png"].reason


# -- what is told of pictures ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "flags"),
    [
        (SIZE, SIZE, ()),
        (SIZE - 1, 30, ("small",)),
        (1, 1, ("small", "grey", "flat")),
        (100, 40, ()),
        (101, 40, ("extreme",)),
        (40, 101, ("extreme",)),
    ],
)
def test_small_and_long_pictures_are_marked(place, width, height, flags):
    image = picture(3, width, height)
    (image if width > 1 else Image.new("RGB", (1, 1))).save(place / "a.png")
    assert only(place).flags == flags


def test_transparent_and_animated_pictures_are_marked(place):
    clear = picture().convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(place / "clear.png")
    opaque = picture(1).convert("RGBA")
    opaque.save(place / "opaque.png")
    frames = [picture(i) for i in (2, 3)]
    frames[0].save(place / "moves.webp", save_all=True, append_images=frames[1:], lossless=True)
    found = scanned(place)
    assert found["clear.png"].flags == ("transparent",)
    assert found["opaque.png"].flags == ()
    assert found["moves.webp"].flags == ("animated",)
    shown = folder.thumbnail(place, found["moves.webp"], 48)
    np.testing.assert_array_equal(shown, np.asarray(frames[0]))


def test_thumbnails_show_the_whole_picture_on_a_background(place):
    Image.new("RGBA", (80, 20), (255, 0, 0, 0)).save(place / "a.png")
    shown = folder.thumbnail(place, only(place), 40, "#102030")
    assert shown.shape == (10, 40, 3)
    assert (shown == (0x10, 0x20, 0x30)).all()
    with pytest.raises(PictureError):
        folder.thumbnail(place, File("gone.png", "image"), 40)


@pytest.mark.parametrize(("text", "means"), [("#FFF", "#ffffff"), ("tomato", "#ff6347")])
def test_colours_are_read_as_people_write_them(text, means):
    assert folder.colour(text) == means


@pytest.mark.parametrize("text", ["", "#12", "no colour", "#gggggg"])
def test_what_is_no_colour_is_said(text):
    with pytest.raises(SpecError, match="no colour"):
        folder.colour(text)


# -- near-duplicates ------------------------------------------------------------------------------


def saved_again(image):
    """The same picture as people come by it twice."""
    return {
        "again.jpg": (image, {"quality": 60}),
        "half.png": (image.resize((image.width // 2, image.height // 2)), {}),
        "brighter.png": (image.point(lambda v: min(255, round(v * 1.04))), {}),
    }


def test_near_duplicates_are_told_with_the_first_of_them(place):
    for seed in range(20):
        picture(seed, 240, 160).save(place / f"{seed:02}.png")
    for name, (image, options) in saved_again(picture(7, 240, 160)).items():
        image.save(place / name, **options)
    twins = {path: f.twin for path, f in scanned(place).items() if f.twin}
    assert twins == dict.fromkeys(saved_again(picture()), "07.png")


def test_a_copy_is_the_twin_of_what_it_was_copied_from(place):
    picture(0).save(place / "IMG_1003.jpg")
    shutil.copy(place / "IMG_1003.jpg", place / "IMG_1003 (1).jpg")
    assert scanned(place)["IMG_1003 (1).jpg"].twin == "IMG_1003.jpg"


def test_other_pictures_are_no_twins(place):
    picture(0).save(place / "a.png")
    picture(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place / "mirrored.png")
    picture(0, 64, 32).save(place / "wider.png")
    picture(0).convert("L").save(place / "grey.png")
    for colour in ("red", "green", "#202020", "#404040", "white"):
        Image.new("RGB", (48, 32), colour).save(place / f"flat {colour}.png")
    assert not [f.path for f in scanned(place).values() if f.twin]


def test_flat_pictures_of_one_colour_are_twins(place):
    for i in range(3):
        Image.new("RGB", (48, 32), (200, 100 + i, 50)).save(place / f"{i}.png")
    assert [f.twin for f in scanned(place).values()] == ["", "0.png", "0.png"]


# -- folders --------------------------------------------------------------------------------------


def test_folders_in_folders_and_odd_names_are_found(place):
    names = [
        "a/b/c/d/deep.png",
        "it's 100% #1 & co.png",
        "猫の写真.png",
        "line\nbreak.png",
        "🐙.png",
    ]
    for i, name in enumerate(names):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(place / name)
    assert {p: f.result for p, f in scanned(place).items()} == dict.fromkeys(names, "image")


@pytest.mark.skipif(os.name == "nt", reason="Windows has names of text only")
def test_names_that_are_no_text_are_found(place):
    picture().save(place / "a.png")
    try:
        os.rename(place / "a.png", os.fsencode(place) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this disk takes text only")
    (found,) = scanned(place).values()
    assert found.result == "image"
    cache.remember(place, [found])
    assert cache.remembered(place) == {found.path: found}


def test_a_link_that_leads_back_is_not_followed_for_ever(place):
    (place / "a").mkdir()
    picture().save(place / "a" / "a.png")
    try:
        (place / "a" / "up").symlink_to(place, target_is_directory=True)
        (place / "gone.png").symlink_to(place / "nowhere.png")
    except OSError:
        pytest.skip("links cannot be made here")
    found = scanned(place)
    assert found["a/a.png"].result == "image"
    assert found["gone.png"].reason == "a link to a file that is gone"
    assert len(found) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_not_waited_for(place):
    os.mkfifo(place / "a.png")
    assert only(place).result == "ignore"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="all is open to root")
def test_folders_that_are_not_open_are_said(place):
    (place / "closed").mkdir(mode=0)
    picture().save(place / "a.png")
    found = scanned(place)
    assert "cannot be opened" in found["closed/"].reason
    assert found["a.png"].result == "image"
    place.chmod(0)
    with pytest.raises(DataError, match="not open to you"):
        scanned(place)
    place.chmod(0o700)
    (place / "closed").chmod(0o700)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match="no folder at"):
        scanned(tmp_path / "nowhere")
    (tmp_path / "file").write_text("a file")
    with pytest.raises(DataError, match="a file, not a folder"):
        scanned(tmp_path / "file")


def test_an_empty_folder_has_nothing(place):
    assert scanned(place) == {}


def test_a_folder_that_vanishes_is_said_at_once(place, monkeypatch):
    for i in range(4):
        picture(i).save(place / f"{i}.png")
    glance = photos.glance

    def vanishing(path, *rest):
        shutil.rmtree(place, ignore_errors=True)
        return glance(path, *rest)

    monkeypatch.setattr(photos, "glance", vanishing)
    with pytest.raises(DataError, match="is gone"):
        scanned(place)


def test_the_order_is_always_the_same_and_all_is_counted(place):
    for i in range(300):
        (place / f"{i % 7}").mkdir(exist_ok=True)
        picture(i % 9, 20, 20).save(place / f"{i % 7}" / f"{i}.png")
    steps = list(folder.scan(place, SIZE))
    assert steps[-1][:2] == (300, 300)
    assert [f.path for _, _, new in steps for f in new] == list(scanned(place))


# -- known from before ----------------------------------------------------------------------------


def refuse(*_):
    raise AssertionError("it was read again")


def test_what_has_not_changed_is_not_read_again(place, monkeypatch):
    picture(0).save(place / "a.png")
    shutil.copy(place / "a.png", place / "b.png")
    (place / "notes").write_text("text")
    known = scanned(place)
    monkeypatch.setattr(photos, "glance", refuse)
    assert scanned(place, known) == known
    (place / "a.png").unlink()
    assert scanned(place, known)["b.png"].twin == "", "it is the first now"


def test_what_has_changed_is_read_again(place):
    picture(0).save(place / "a.png")
    (place / "b.png").write_text("no picture")
    known = scanned(place)
    picture(0, 300, 200).save(place / "a.png")
    picture(1).save(place / "b.png")
    found = scanned(place, known)
    assert found["a.png"].size == (300, 200)
    assert found["b.png"].result == "image"


def test_how_small_is_small_depends_on_the_model(place):
    picture(0, 40, 40).save(place / "a.png")
    known = scanned(place)
    for size, flags in ((64, ("small",)), (32, ())):
        ((_, _, files),) = [s for s in folder.scan(place, size, known) if s[2]]
        assert files[0].flags == flags


def test_scans_are_remembered(place, monkeypatch):
    picture(0).save(place / "a.png")
    first = [f for _, _, new in cache.scanned(place, SIZE) for f in new]
    monkeypatch.setattr(photos, "glance", refuse)
    assert [f for _, _, new in cache.scanned(place, SIZE) for f in new] == first
    cache.forget(place)
    assert cache.remembered(place) == {}


def test_a_scan_that_was_broken_off_keeps_what_it_found(place):
    for i in range(5):
        picture(i).save(place / f"{i}.png")
    scan = cache.scanned(place, SIZE)
    for _, _, new in scan:
        if new:
            break
    scan.close()
    assert cache.remembered(place)


@pytest.mark.parametrize(
    "line", ["{", "[]", '["a.png"]', '["a","image","",0,0,[],1,2,3,""]', "null", "é"]
)
def test_a_damaged_memory_is_none(place, line):
    picture(0).save(place / "a.png")
    list(cache.scanned(place, SIZE))
    (index,) = cache.home().glob("*.jsonl")
    index.write_text(f"{index.read_text()}{line}\n", encoding="utf-8")
    assert cache.remembered(place) == {}


# -- what is learned from -------------------------------------------------------------------------

FILES = [
    File("a.png", "image"),
    File("b.png", "image", twin="a.png"),
    File("c.png", "image", twin="a.png"),
    File("d.png", "image"),
    File("e.png", "error", "empty"),
    File("f.txt", "ignore", "not a picture"),
]


@pytest.mark.parametrize(
    ("choices", "names"),
    [
        (Choices(), "abcd"),
        (Choices(excluded=("b.png", "nowhere.png")), "acd"),
        (Choices(twins=False), "ad"),
        (Choices(twins=False, excluded=("a.png",)), "bd"),
        (Choices(excluded=("a.png", "b.png", "c.png", "d.png")), ""),
    ],
)
def test_pictures_are_chosen_as_a_person_decided(choices, names):
    assert [f.path[0] for f in folder.chosen(FILES, choices)] == list(names)


@pytest.mark.parametrize(
    ("paths", "names", "labels"),
    [
        ([], (), []),
        (["a.png", "b.png"], (), [-1, -1]),
        (["cat/a.png", "dog/b.png", "cat/deep/c.png"], ("cat", "dog"), [0, 1, 0]),
        (["cat/a.png", "b.png"], (), [-1, -1]),
        (["cat/a.png", "cat/b.png"], (), [-1, -1]),
        (["mine/cat/a.png", "mine/dog/b.png"], ("cat", "dog"), [0, 1]),
        (["mine/cat/a.png", "mine/b.png"], (), [-1, -1]),
    ],
)
def test_classes_are_the_folders_that_divide_all_pictures(paths, names, labels):
    assert folder.classes(paths) == (names, labels)
