"""Folders and packs of pictures: odd ones are read or named, hostile ones refused."""

from __future__ import annotations

import io
import json
import lzma
import shutil
import threading
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from studio import photos
from studio.errors import DataError, SpecError
from studio.training import cache, data, framing, readers
from studio.training.choices import FRAMINGS, Choices, Crop

SIZE = 8


def gradient(width=16, height=16):
    """Red grows to the right, green downwards: any turn or flip shows."""
    across = np.linspace(0, 255, width).astype(np.uint8)
    down = np.linspace(0, 255, height).astype(np.uint8)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = across[None], down[:, None]
    return Image.fromarray(pixels)


def close(a, b, by=12):
    return np.abs(a.astype(int) - b.astype(int)).max() <= by


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def only(folder):
    found = data.load(folder, SIZE, 0, 0)
    assert len(found) == 1, found.skipped
    return found.pixels[0]


UPRIGHT = np.asarray(gradient().resize((SIZE, SIZE), Image.Resampling.LANCZOS))


# -- folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turned", "flag"),
    [
        (None, 1),
        (Image.Transpose.FLIP_LEFT_RIGHT, 2),
        (Image.Transpose.ROTATE_180, 3),
        (Image.Transpose.ROTATE_90, 6),
        (Image.Transpose.ROTATE_270, 8),
    ],
)
def test_cameras_that_were_turned_give_upright_pictures(folder, turned, flag):
    image = gradient() if turned is None else gradient().transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = flag
    image.save(folder / "a.png", exif=exif)
    assert close(only(folder), UPRIGHT)


@pytest.mark.parametrize(
    ("mode", "suffix", "by"),
    [("RGB", "png", 2), ("CMYK", "jpg", 40), ("P", "gif", 60), ("RGBA", "webp", 40)],
)
def test_pictures_of_many_kinds_become_rgb(folder, mode, suffix, by):
    gradient().convert(mode).save(folder / f"a.{suffix}")
    assert close(only(folder), UPRIGHT, by)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_pictures_become_grey_rgb(folder, mode):
    gradient().convert(mode).save(folder / "a.png")
    pixels = only(folder)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert np.ptp(pixels, axis=2).max() == 0


def test_sixteen_bit_greys_keep_their_shades(folder):
    deep = np.linspace(0, 65535, 16).astype(np.uint16)[None].repeat(16, 0)
    Image.fromarray(deep).save(folder / "a.png")
    wanted = Image.fromarray((deep >> 8).astype(np.uint8)).resize((SIZE, SIZE), 1)
    row = only(folder)[0, :, 0].astype(int)
    assert row[0] < 40
    assert row[-1] > 215
    assert (np.diff(row) > 0).all()
    assert close(only(folder)[..., 0], np.asarray(wanted), 25)


def test_pictures_are_cut_to_the_square_in_their_middle(folder):
    wide = Image.new("RGB", (48, 16), "red")
    wide.paste("blue", (16, 0, 32, 16))
    wide.save(folder / "a.png")
    assert only(folder)[2:-2, 2:-2].reshape(-1, 3).mean(0).tolist() == pytest.approx(
        [0, 0, 255], abs=3
    )


def test_what_cannot_be_read_is_skipped_and_named(folder):
    gradient(64, 64).save(folder / "good.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 3])
    (folder / "text.jpg").write_text("not a picture at all")
    (folder / "empty.webp").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture, and nobody said so")
    (folder / ".hidden.png").write_bytes(whole)
    found = data.load(folder, SIZE, 0, 0)
    assert len(found) == 1
    assert sorted(name for name, _ in found.skipped) == ["cut.png", "empty.webp", "text.jpg"]
    assert dict(found.skipped)["text.jpg"] == "not a picture"
    assert all(reason for _, reason in found.skipped)


def test_subfolders_are_classes_if_every_picture_lies_in_one(folder):
    for name in ("dog", "cat"):
        (folder / name / "deep").mkdir(parents=True)
        gradient().save(folder / name / "deep" / "a.png")
        gradient().save(folder / name / "b.png")
    found = data.load(folder, SIZE, 0, 0)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 0, 1, 1]
    gradient().save(folder / "stray.png")
    assert data.load(folder, SIZE, 0, 0).classes == ()
    assert set(data.load(folder, SIZE, 0, 0).labels.tolist()) == {-1}


def test_reading_reports_how_far_it_is(folder):
    for i in range(3):
        gradient().save(folder / f"{i}.png")
    heard = []
    data.load(folder, SIZE, 0, 0, lambda done, total: heard.append((done, total)))
    assert heard == sorted(heard)
    assert heard[-1][0] == heard[-1][1] > 0


def test_folders_with_nothing_to_learn_from_are_refused(folder):
    with pytest.raises(DataError, match="No picture"):
        data.load(folder, SIZE, 0, 0)
    (folder / "a.png").write_text("no")
    with pytest.raises(DataError, match="No picture"):
        data.load(folder, SIZE, 0, 0)


# -- packs --------------------------------------------------------------------------------------


def pictures(count=5, channels=3, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size, size, channels)).astype(np.uint8)


def encoded(chunk, codec):
    if codec == "xz":
        return lzma.compress(chunk.tobytes())
    n, h, w, c = chunk.shape
    buffer = io.BytesIO()
    stack = chunk.reshape(n * h, w, c)
    Image.fromarray(stack.squeeze(2) if c == 1 else stack).save(
        buffer, "WEBP", lossless=True, exact=True
    )
    return buffer.getvalue()


def pack_of(pixels, labels=None, classes=("cat", "dog"), codec="xz", chunk=2, **changes):
    """The arrays of an image pack, as the format's page describes them."""
    n, h, w, c = pixels.shape
    parts = [pixels[i : i + chunk] for i in range(0, n, chunk)]
    blobs = [encoded(part, codec) for part in parts]
    meta = {"count": n, "height": h, "width": w, "channels": c, "codec": codec}
    meta["classes"] = list(classes)
    changed = changes.pop("meta", {})
    arrays = {
        "meta": changed if isinstance(changed, str) else json.dumps(meta | changed),
        "blob": np.frombuffer(b"".join(blobs), np.uint8),
        "offsets": np.cumsum([0, *map(len, blobs)]).astype(np.int64),
        "counts": np.array([len(p) for p in parts]),
        "labels": np.arange(n, dtype=np.int16) % 2
        if labels is None
        else np.asarray(labels, np.int16),
    }
    return arrays | changes


@pytest.fixture
def pack(tmp_path):
    def write(arrays):
        path = tmp_path / "pack.npz"
        np.savez(path, **arrays)
        return path

    return write


@pytest.mark.parametrize("codec", ["xz", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pack_gives_back_its_pictures(pack, codec, channels):
    pixels = pictures(channels=channels)
    found = data.load(pack(pack_of(pixels, codec=codec)), SIZE, 0, 0)
    np.testing.assert_array_equal(found.pixels, pixels)
    assert found.labels.tolist() == [0, 1, 0, 1, 0]
    assert found.labels.dtype == np.int64
    assert found.classes == ("cat", "dog")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pack_of_another_size_is_scaled(pack, channels):
    flat = np.full((3, 16, 16, channels), 90, np.uint8)
    found = data.load(pack(pack_of(flat)), SIZE, 0, 0)
    assert found.pixels.shape == (3, SIZE, SIZE, channels)
    assert (found.pixels == 90).all()


HOSTILE = {
    "no meta": {"meta": "{"},
    "meta a list": {"meta": "[]"},
    "meta deep": {"meta": "[" * 100_000},
    "meta a number": {"meta": "3"},
    "count infinite": {"meta": {"count": float("inf")}},
    "count negative": {"meta": {"count": -5}},
    "count too large": {"meta": {"count": 6}},
    "size huge": {"meta": {"height": 10**9}},
    "size zero": {"meta": {"width": 0}},
    "two channels": {"meta": {"channels": 2}},
    "codec a list": {"meta": {"codec": []}},
    "codec unlike the blob": {"meta": {"codec": "webp"}},
    "classes a number": {"meta": {"classes": 3}},
    "counts disagree": {"counts": np.array([1, 1, 1])},
    "counts negative": {"counts": np.array([7, -1, -1])},
    "counts no list": {"counts": np.array(5)},
    "offsets too few": {"offsets": np.array([0, 3])},
    "offsets backwards": {"offsets": np.array([0, 500, 3, 9])},
    "offsets no numbers": {"offsets": np.array(["a", "b", "c", "d"])},
    "offsets fractional": {"offsets": np.array([0, 0.5, 1.5, 2.5])},
    "blob empty": {"blob": np.zeros(0, np.uint8)},
    "blob noise": {"blob": np.full(4000, 7, np.uint8)},
    "blob no list": {"blob": np.array(3)},
    "labels too few": {"labels": np.array([0])},
    "labels out of range": {"labels": np.array([0, 1, 2, 0, 1])},
    "labels below any": {"labels": np.array([0, 1, -2, 0, 1])},
    "labels no numbers": {"labels": np.array(list("abcde"))},
    "pickled": {"blob": np.array([{"a": 1}], dtype=object)},
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_packs_are_refused(pack, name):
    changes = dict(HOSTILE[name])
    labels = changes.pop("labels", None)
    arrays = pack_of(pictures(), **changes)
    if labels is not None:
        arrays["labels"] = labels
    path = pack(arrays)
    with pytest.raises(DataError):
        data.load(path, SIZE, 0, 0)


def test_a_small_blob_cannot_unfold_into_all_memory(pack):
    bomb = lzma.compress(bytes(64 * 2**20), preset=0)
    arrays = pack_of(pictures(2), chunk=2)
    arrays |= {"blob": np.frombuffer(bomb, np.uint8), "offsets": np.array([0, len(bomb)])}
    path = pack(arrays)
    tracemalloc.start()
    with pytest.raises(DataError):
        data.load(path, SIZE, 0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_files_that_are_no_pack_are_refused(tmp_path, pack):
    with pytest.raises(DataError, match="nothing at"):
        data.load(tmp_path / "none.npz", SIZE, 0, 0)
    whole = pack(pack_of(pictures())).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        file.writestr("readme", "hello")
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(bytes(flipped))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("zip.npz", "array.npy", "cut.npz", "flipped.npz", "text.npz", "empty.npz"):
        with pytest.raises(DataError):
            data.load(tmp_path / name, SIZE, 0, 0)


# -- packs of parts -----------------------------------------------------------------------------


def parts_pack():
    """Two species, two colours each; a body fills the middle, eyes are one row of white."""
    names, parts, groups = [], [], []
    for species, tone in (("cat", 200), ("dog", 40)):
        for colour, shift in (("dark", 0), ("light", 30)):
            body = np.zeros((SIZE, SIZE, 4), np.uint8)
            body[2:6, 2:6] = (tone + shift, tone, tone, 255)
            eyes = np.zeros((SIZE, SIZE, 4), np.uint8)
            eyes[3, 3:5] = 255
            for layer, part in (("1-body", body), ("2-eyes", eyes)):
                names.append(f"{species}/{colour}/{layer}")
                groups.append(len(names) - 1)
                parts.append(part)
    return pack_of(np.stack(parts), labels=groups, classes=names)


def test_compositions_depend_on_the_seed_only(pack):
    path = pack(parts_pack())
    first, again = (data.load(path, SIZE, 12, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, data.load(path, SIZE, 12, seed=5).pixels)
    longer = data.load(path, SIZE, 20, seed=4)
    np.testing.assert_array_equal(longer.pixels[:12], first.pixels)


def test_compositions_take_species_in_turn_and_lay_layers_in_order(pack):
    found = data.load(pack(parts_pack()), SIZE, 12, seed=4)
    assert found.pixels.shape == (12, SIZE, SIZE, 3)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 1] * 6
    assert (found.pixels[:, 3, 3:5] == 255).all(), "eyes lie over the body"
    bodies = found.pixels[:, 5, 4].astype(int)
    tones = np.where(found.labels == 0, 200, 40)
    assert (bodies[:, 1] == tones).all()
    assert set((bodies[:, 0] - tones).tolist()) == {0, 30}, "both colours are drawn"


def test_backgrounds_vary(pack):
    found = data.load(pack(parts_pack()), SIZE, 40, seed=4)
    corners = found.pixels[:, 0, 0].astype(int)
    assert len(np.unique(corners, axis=0)) > 10
    assert corners.min() > 150, "pastel"


def test_parts_without_names_are_refused(pack):
    arrays = parts_pack()
    meta = json.loads(arrays["meta"])
    arrays["meta"] = json.dumps(meta | {"classes": ["a"] * len(meta["classes"])})
    with pytest.raises(DataError, match="species/colour/layer"):
        data.load(pack(arrays), SIZE, 4, 0)


def test_one_picture_is_read_as_a_folder_of_them_is(folder):
    image = Image.fromarray(np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3))
    image.save(folder / "one.png")
    alone = np.asarray(data.read_picture(folder / "one.png", 8))
    assert (alone == data.load(folder, 8, 0, 0).pixels[0]).all()


# -- what a person decided ------------------------------------------------------------------------


def blobs(seed=0, width=48, height=32):
    """Soft blobs, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def many(folder):
    """A folder of forty pictures, more than are read ahead of one another."""
    for i in range(40):
        blobs(i, 24 + i % 3, 20).save(folder / f"{i:02}.png")
    return folder


def read(place, **choices):
    return data.load(place, SIZE, 0, 0, choices=Choices(**choices))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_every_picture_is_there_under_its_name(many, framing):
    found = read(many, framing=framing)
    assert sorted(found.names) == [f"{i:02}.png" for i in range(40)]
    assert (found.size, found.colours, len(found)) == (SIZE, 3, 40)
    for name, pixels in zip(found.names, found.pixels):
        alone = data.read_one(many, name, SIZE, Choices(framing=framing))
        np.testing.assert_array_equal(pixels, alone.pixels[0])


def test_transparent_pictures_lie_on_the_chosen_colour(folder):
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(folder / "a.png")
    assert (read(folder, background="#204060").pixels[0] == (0x20, 0x40, 0x60)).all()
    with pytest.raises(SpecError, match="no colour"):
        read(folder, background="mud")


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_crop_is_all_that_is_seen_of_a_picture(folder, framing):
    image = Image.new("RGB", (64, 32), "red")
    image.paste("blue", (32, 0, 64, 32))
    image.save(folder / "a.png")
    crop = Crop("a.png", 0.6, 0.1, 0.8)
    found = read(folder, framing=framing, crops=(crop,))
    drawn = found.draw(np.zeros(20, int), np.random.default_rng(0))
    for pixels in (*found.pixels, *drawn):
        assert close(pixels, np.full_like(pixels, (0, 0, 255)), 2)


def test_what_is_excluded_is_not_learned_from(many):
    names = read(many, excluded=("03.png", "nowhere.png")).names
    assert len(names) == 39
    assert "03.png" not in names
    with pytest.raises(DataError, match="left out"):
        read(many, excluded=tuple(f"{i:02}.png" for i in range(40)))


def test_near_duplicates_are_left_out_if_wanted(many):
    blobs(7, 25, 20).save(many / "again.bmp")
    assert "again.bmp" in read(many).names
    assert "again.bmp" not in read(many, twins=False).names


def test_classes_can_be_left_out(folder):
    for name in ("dog", "cat"):
        (folder / name).mkdir()
        gradient().save(folder / name / "a.png")
    found = read(folder, labels=False)
    assert found.classes == ()
    assert found.labels.tolist() == [-1, -1]


def test_small_pictures_are_enlarged(folder):
    Image.new("RGB", (3, 2), "red").save(folder / "a.png")
    for way in FRAMINGS:
        found = read(folder, framing=way)
        drawn = found.draw(np.zeros(4, int), np.random.default_rng(0))
        assert (drawn == (255, 0, 0)).all()
        assert drawn.shape == (4, SIZE, SIZE, 3)


# -- drawn anew -----------------------------------------------------------------------------------


def test_what_stays_is_drawn_as_it_is(many):
    found = read(many)
    places = np.array([3, 3, 0])
    drawn = found.draw(places, np.random.default_rng(0))
    assert not found.moves
    np.testing.assert_array_equal(drawn, found.pixels[places])
    drawn[:] = 0
    assert found.pixels[3].any(), "what is drawn is a copy"


def test_draws_depend_on_the_dice_only(many):
    found = read(many, framing="random", flips=True, turns=True, jitter=0.2)
    assert found.moves
    places = np.arange(40)
    first, again, other = (found.draw(places, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_native_squares_are_the_pictures_own_pixels_from_everywhere(folder):
    image = blobs(0, 14, 11)
    image.save(folder / "a.png")
    pixels = np.asarray(image)
    windows = {
        pixels[y : y + SIZE, x : x + SIZE].tobytes()
        for y in range(11 - SIZE + 1)
        for x in range(14 - SIZE + 1)
    }
    found = read(folder, framing="native")
    drawn = found.draw(np.zeros(500, int), np.random.default_rng(0))
    assert {square.tobytes() for square in drawn} == windows


def test_random_squares_are_parts_of_the_picture_at_many_scales(folder):
    """Red grows to the right, green downwards: a square's corners tell where it was cut."""
    gradient(400, 300).save(folder / "a.png")
    found = read(folder, framing="random")
    drawn = found.draw(np.zeros(300, int), np.random.default_rng(0)).astype(float)
    wide = (drawn[:, 4, -1, 0] - drawn[:, 4, 0, 0]) / 255 * 400 * SIZE / (SIZE - 1)
    high = (drawn[:, -1, 4, 1] - drawn[:, 0, 4, 1]) / 255 * 300 * SIZE / (SIZE - 1)
    assert np.abs(wide - high).max() < 12, "squares"
    assert 170 < wide.min() < 200 < 280 < wide.max() < 312
    middle = drawn[:, 4, 4, 0] / 255
    assert middle.min() < 0.3
    assert middle.max() > 0.7


def test_turns_and_flips_give_all_eight_ways_to_lay_a_square(folder):
    blobs(0, SIZE, SIZE).save(folder / "a.png")
    found = read(folder, flips=True, turns=True)
    ways = set()
    for turned in (np.rot90(found.pixels[0], k) for k in range(4)):
        ways |= {turned.tobytes(), turned[:, ::-1].tobytes()}
    drawn = found.draw(np.zeros(200, int), np.random.default_rng(0))
    assert {square.tobytes() for square in drawn} == ways
    mirrored = read(folder, flips=True).draw(np.zeros(50, int), np.random.default_rng(0))
    assert {s.tobytes() for s in mirrored} == {
        found.pixels[0].tobytes(),
        found.pixels[0][:, ::-1].tobytes(),
    }


def test_jitter_changes_the_light_about_the_picture_as_it_is(folder):
    Image.new("L", (SIZE, SIZE), 100).save(folder / "a.png")
    drawn = read(folder, jitter=0.2).draw(np.zeros(2000, int), np.random.default_rng(0))
    assert np.ptp(drawn, axis=(1, 2, 3)).max() == 0, "one light for the whole picture"
    levels = drawn[:, 0, 0, 0].astype(float)
    assert abs(levels.mean() - 100) < 1.5
    assert 60 < levels.min() < 75
    assert 125 < levels.max() < 140


def test_grey_pictures_are_counted(folder):
    for i in range(4):
        image = blobs(i)
        (image.convert("L") if i == 0 else image).save(folder / f"{i}.png")
    assert read(folder).grey == 0.25


# -- held out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5])
def test_a_split_divides_everything(many, share, framing):
    found = read(many, framing=framing)
    learned, held = found.split(share)
    assert len(learned) + len(held) == 40
    assert not set(learned.names) & set(held.names)
    assert bool(len(held)) == (share > 0)
    for part in (learned, held):
        assert np.shares_memory(part.pixels, found.pixels) or not len(part), "no copy"
        for i, name in enumerate(part.names):
            place = found.names.index(name)
            np.testing.assert_array_equal(part.pixels[i], found.pixels[place])
            if framing == "native":
                np.testing.assert_array_equal(part.stock[i], found.stock[place])


def test_a_larger_share_holds_out_the_same_and_more(many):
    found = read(many)
    tenth, half = (set(found.split(share)[1].names) for share in (0.1, 0.5))
    assert tenth < half


def test_another_picture_changes_nobodys_lot(many):
    before = set(read(many).split(0.3)[1].names)
    blobs(99).save(many / "new.png")
    assert set(read(many).split(0.3)[1].names) - {"new.png"} == before


def test_near_duplicates_are_held_out_together(many):
    for i in range(40):
        blobs(i, 24 + i % 3, 20).save(many / f"{i:02} again.bmp")
    _, held = read(many).split(0.3)
    assert len(held) % 2 == 0
    assert {n[:2] for n in held.names if "again" in n} == {
        n[:2] for n in held.names if "again" not in n
    }


def test_few_pictures_are_never_all_held_out(folder):
    for i in range(3):
        blobs(i).save(folder / f"{i}.png")
    for share in (0.1, 0.5):
        assert len(read(folder).split(share)[0]) >= 1


def test_packs_are_split_the_same_way_every_time(pack):
    found = data.load(pack(pack_of(pictures(200))), SIZE, 0, 0)
    (learned, held), (_, again) = found.split(0.1), found.split(0.1)
    assert len(learned) + len(held) == 200
    assert 8 <= len(held) <= 35
    np.testing.assert_array_equal(held.pixels, again.pixels)


# -- kept on the disk -----------------------------------------------------------------------------


@pytest.mark.parametrize("framing", FRAMINGS)
def test_pictures_are_decoded_once(many, framing, monkeypatch):
    first = read(many, framing=framing)

    def refuse(*_):
        raise AssertionError("it was decoded again")

    monkeypatch.setattr(photos, "read_rgb", refuse)
    again = read(many, framing=framing, flips=True, jitter=0.1, held_out=0.2)
    assert again.names == first.names
    np.testing.assert_array_equal(again.pixels, first.pixels)
    if framing != "centre":
        np.testing.assert_array_equal(again.stock.values, first.stock.values)


def test_what_was_changed_is_decoded_again(many):
    before = read(many)
    Image.new("RGB", (24, 20), "red").save(many / "05.png")
    found = read(many)
    place = found.names.index("05.png")
    assert (found.pixels[place] == (255, 0, 0)).all()
    assert read(many, background="#123456").names == before.names


@pytest.mark.parametrize("name", ["squares.bin", "stock.bin", "places.npy", "names.jsonl"])
def test_a_damaged_cache_is_made_again(many, name):
    first = read(many, framing="random")
    first = np.array(first.pixels), np.array(first.stock.values)
    (kept,) = cache.home().glob(f"*/{name}")
    kept.write_bytes(kept.read_bytes()[:-100])
    again = read(many, framing="random")
    np.testing.assert_array_equal(again.pixels, first[0])
    np.testing.assert_array_equal(again.stock.values, first[1])


def test_the_cache_is_bounded(many, monkeypatch):
    monkeypatch.setattr(cache, "MOST_BYTES", 40 * SIZE * SIZE * 3 * 5 // 2)
    for grey in ("#000000", "#111111", "#222222", "#333333"):
        read(many, background=grey)
    assert len([p for p in cache.home().iterdir() if p.is_dir()]) == 2


def test_a_full_disk_is_said_before_anything_is_read(many, monkeypatch):
    usage = shutil.disk_usage(many)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(DataError, match="GB are needed"):
        read(many)


def test_large_pictures_share_the_room_there_is():
    assert framing.share([10, 10, 10], 100) == 10
    assert framing.share([10, 1000, 1000], 100) == 45
    assert framing.share([1000] * 4, 100) == 25
    assert framing.share([], 100) == 100


@pytest.mark.parametrize("way", ["random", "native"])
@pytest.mark.parametrize("most", [10**9, 3000, 1])
@pytest.mark.parametrize("size", [(400, 300), (90, 400), (20, 20), (5, 50)])
def test_what_is_kept_of_a_picture_is_enough_and_not_too_much(way, most, size):
    kept = framing.kept(blobs(0, *size), 16, way, None, most)
    assert min(kept.shape[:2]) >= 16
    whole = framing.area(size, 16, way, None)
    least = 16 * 16 * max(size) / min(size) * 1.2  # no side may be below the square's
    assert kept.shape[0] * kept.shape[1] <= max(min(most, whole) * 1.2, least)
    assert framing.middle(kept, 16, way).shape == (16, 16, 3)


# -- while it is read -----------------------------------------------------------------------------


def test_reading_can_be_left_at_any_time_and_leaves_nothing(many):
    whole = sum(1 for _ in data.read(many, SIZE, 0, 0))
    cache.forget(many)
    shutil.rmtree(cache.home())
    for steps in range(whole):
        reading = data.read(many, SIZE, 0, 0)
        for _ in range(steps):
            next(reading, None)
        reading.close()
        assert not list(cache.home().glob("making-*"))
        if list(cache.home().glob("*/squares.bin")):
            break
    assert steps > 1


def test_a_disk_that_hangs_does_not_hang_whoever_reads(many, monkeypatch):
    opened, read_rgb = threading.Event(), photos.read_rgb

    def slow(path, *rest):
        opened.wait()
        return read_rgb(path, *rest)

    monkeypatch.setattr(photos, "read_rgb", slow)
    reading = data.read(many, SIZE, 0, 0)
    while next(reading)[0] < 40:
        pass
    assert {next(reading) for _ in range(3)} == {(40, 80)}
    opened.set()
    with pytest.raises(StopIteration) as end:
        while True:
            next(reading)
    assert len(end.value.value) == 40


def test_a_file_that_hangs_is_skipped_and_tried_again_next_time(many, monkeypatch):
    opened, read_rgb = threading.Event(), photos.read_rgb

    def slow(path, *rest):
        if path.name == "07.png":
            opened.wait()
        return read_rgb(path, *rest)

    monkeypatch.setattr(photos, "read_rgb", slow)
    with monkeypatch.context() as hasty:
        hasty.setattr(readers, "PATIENCE", 2.0)
        found = read(many)
    assert len(found) == 39
    assert "not answering" in dict(found.skipped)["07.png"]
    opened.set()
    assert len(read(many)) == 40


def test_a_folder_that_is_removed_while_it_is_read_is_said(many, monkeypatch):
    opened, read_rgb = threading.Event(), photos.read_rgb

    def slow(path, *rest):
        opened.wait()
        return read_rgb(path, *rest)

    monkeypatch.setattr(photos, "read_rgb", slow)
    reading = data.read(many, SIZE, 0, 0)
    while next(reading)[0] < 40:
        pass
    shutil.rmtree(many)
    opened.set()
    with pytest.raises(DataError, match="is gone"):
        list(reading)


def test_one_picture_is_told_where_it_should_lie(folder):
    gradient().save(folder / "a.png")
    with pytest.raises(DataError, match="one picture"):
        data.load(folder / "a.png", SIZE, 0, 0)


# -- folders of packs -----------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path):
    (tmp_path / "packs").mkdir()

    def put(name, arrays):
        np.savez(tmp_path / "packs" / name, **arrays)
        return tmp_path / "packs"

    return put


def test_packs_of_a_folder_are_joined_but_for_those_that_measure(shelf):
    parts = [pictures(4, seed=seed) for seed in range(3)]
    shelf("p-train-1.npz", pack_of(parts[0], labels=[0, 1, -1, 0]))
    shelf("p-train-2.npz", pack_of(parts[1], labels=[0, 1, 1, 0], classes=("dog", "owl")))
    place = shelf("p-test.npz", pack_of(parts[2]))
    gradient().save(place / "contact_sheet.png")
    np.savez(place / "numbers.npz", x=np.zeros(3))
    found = data.load(place, SIZE, 0, 0)
    np.testing.assert_array_equal(found.pixels, np.concatenate(parts[:2]))
    assert found.classes == ("cat", "dog", "owl")
    assert found.labels.tolist() == [0, 1, -1, 0, 1, 2, 2, 1]


def test_packs_of_several_shapes_become_one(shelf):
    shelf("a.npz", pack_of(np.full((2, 16, 16, 1), 90, np.uint8)))
    place = shelf("b.npz", pack_of(np.full((2, SIZE, SIZE, 3), 50, np.uint8)))
    found = data.load(place, SIZE, 0, 0)
    assert found.pixels.shape == (4, SIZE, SIZE, 3)
    assert found.pixels[:, 0, 0, 0].tolist() == [90, 90, 50, 50]


def test_a_folder_with_nothing_but_measures_is_refused(shelf):
    place = shelf("p-test.npz", pack_of(pictures()))
    with pytest.raises(DataError, match="measure"):
        data.load(place, SIZE, 0, 0)


def test_larger_packs_give_squares_of_their_own_pixels(pack):
    pixels = pictures(3, size=12)
    path = pack(pack_of(pixels))
    found = data.load(path, SIZE, 0, 0, choices=Choices(framing="native"))
    drawn = found.draw(np.array([2] * 200), np.random.default_rng(0))
    windows = {pixels[2, y : y + SIZE, x : x + SIZE].tobytes() for y in range(5) for x in range(5)}
    assert {square.tobytes() for square in drawn} == windows


def test_of_what_there_is_no_room_for_the_middle_is_kept_and_counted(many, monkeypatch):
    assert read(many, framing="native").cut == 0
    monkeypatch.setattr(cache, "most_of_one", lambda: 3 * 40 * 12 * 12)
    assert read(many, framing="native").cut == 40
    assert read(many, framing="centre").cut == 0
