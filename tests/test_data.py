"""Folders and packs of pictures: odd ones are read or named, hostile ones refused."""

from __future__ import annotations

import io
import json
import lzma
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from studio.errors import DataError
from studio.training import data

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
