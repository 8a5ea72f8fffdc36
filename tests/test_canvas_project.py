"""Projects, recovery and kept masks: what is saved comes back, and bad files do no harm."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.errors import PictureError, SaveError, StudioError
from studio.ui.canvas import autosave, masks, png, project
from studio.ui.canvas.autosave import Autosave
from studio.ui.canvas.brush import Brush
from studio.ui.canvas.document import Document
from studio.ui.canvas.masks import Masks


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def painted(w: int = 330, h: int = 290) -> Document:
    """A document with something in every layer."""
    doc = Document.of(noise(h, w, 3), noise(h, w, seed=1), name="holiday")
    for layer in ("mask", "sketch"):
        stroke = doc.stroke(layer, Brush(strength=0.7, hardness=0.3))
        stroke.to(20, 20)
        stroke.to(280, 250)
        stroke.end()
    doc.accept((250, 250, 20, 20), noise(20, 20, 3, seed=2))
    doc.set_box((7, 8, 64, 65))
    return doc


def same(one: Document, other: Document) -> bool:
    layers = ("photo", "alpha", "mask", "sketch")
    return one.box == other.box and all(
        np.array_equal(getattr(one, layer), getattr(other, layer)) for layer in layers
    )


def rewritten(path: Path, **members: bytes | None) -> Path:
    """The project with members replaced, by their names without suffix; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    for stem, data in members.items():
        name = f"{stem}.json" if stem == "project" else f"{stem}.png"
        content.pop(name, None)
        if data is not None:
            content[name] = data
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def described(path: Path, **changes: object) -> Path:
    with zipfile.ZipFile(path) as archive:
        about = json.loads(archive.read("project.json"))
    return rewritten(path, project=json.dumps(about | changes).encode())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "holiday.studio"
    project.save(painted(), path)
    return path


# -- PNG ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (640, 700)])
def test_pillow_reads_what_we_write(channels, size):
    shape = (size[1], size[0]) if channels == 1 else (size[1], size[0], channels)
    pixels = noise(*shape)
    file = io.BytesIO()
    png.write(file, np.array_split(pixels, min(3, size[1])), size, channels)
    with Image.open(file) as image:
        assert (np.asarray(image) == pixels).all()
    assert (png.read(io.BytesIO(file.getvalue()), size, channels) == pixels).all()


# -- projects -----------------------------------------------------------------------------------


def test_a_project_comes_back_as_it_was(tmp_path):
    doc, extras = painted(), {"recipe": {"steps": 3, "name": "ünï"}, "list": [1, 2.5, None]}
    path = tmp_path / "new" / "holiday.studio"
    assert doc.modified
    project.save(doc, path, extras)
    assert not doc.modified
    assert (doc.path, doc.name) == (path, "holiday")
    back, found = project.open_project(path)
    assert same(doc, back)
    assert found == extras
    assert (back.name, back.path, back.modified) == ("holiday", path, False)
    assert not back.history.undo()
    assert back.bounds("mask") == doc.bounds("mask")
    assert back.bounds("sketch") == doc.bounds("sketch")


def test_an_untouched_document_is_saved_as_its_photo_alone(tmp_path):
    doc = Document.of(noise(20, 30, 3))
    project.save(doc, tmp_path / "a.studio")
    with zipfile.ZipFile(tmp_path / "a.studio") as archive:
        assert sorted(archive.namelist()) == ["photo.png", "project.json"]
    assert same(doc, project.open_project(tmp_path / "a.studio")[0])


def test_what_is_done_while_saving_stays_unsaved(tmp_path):
    doc = painted()
    taken = project.snapshot(doc)
    doc.invert_mask()
    project.write(taken, tmp_path / "a.studio")
    project.saved(doc, taken, tmp_path / "a.studio")
    assert doc.modified
    doc.history.undo()
    assert not doc.modified
    assert same(doc, project.open_project(tmp_path / "a.studio")[0])


def test_a_snapshot_does_not_change_with_the_document(tmp_path):
    doc = painted()
    project.save(doc, tmp_path / "before.studio")
    taken = project.snapshot(doc)
    doc.clear("mask")
    doc.accept((0, 0, 330, 290), noise(290, 330, 3, seed=5))
    project.write(taken, tmp_path / "taken.studio")
    one, _ = project.open_project(tmp_path / "before.studio")
    other, _ = project.open_project(tmp_path / "taken.studio")
    assert same(one, other)


def test_a_snapshot_shares_what_has_not_changed():
    doc = painted(900, 800)
    one = project.snapshot(doc)
    doc.fill_rect("mask", (0, 0, 10, 10), Brush())
    other = project.snapshot(doc, previous=one)
    fresh = [place for place in other.tiles if other.tiles[place] is not one.tiles.get(place)]
    assert fresh == [("mask", 0, 0)]
    stranger = project.snapshot(painted(900, 800), previous=one)
    assert not any(stranger.tiles[p] is one.tiles.get(p) for p in stranger.tiles)


def test_a_save_that_fails_keeps_the_file_and_the_document_modified(saved, monkeypatch):
    before = saved.read_bytes()
    doc = painted()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(png, "write", full)
    with pytest.raises(SaveError, match="No space"):
        project.save(doc, saved)
    assert saved.read_bytes() == before
    assert doc.modified
    assert doc.path is None
    assert [p.name for p in saved.parent.glob("*studio")] == ["holiday.studio"]


# -- hostile projects ---------------------------------------------------------------------------


def coded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def huge_png() -> bytes:
    """A PNG that says it has 60000 x 60000 pixels."""
    file = io.BytesIO()
    png.write(file, [np.zeros((1, 60000, 3), np.uint8)], (60000, 60000), 3)
    return file.getvalue()


BAD = {
    "another size": lambda p: rewritten(p, mask=coded(noise(290, 331))),
    "another kind": lambda p: rewritten(p, mask=coded(noise(290, 330, 3))),
    "a JPEG": lambda p: rewritten(p, photo=coded(noise(290, 330, 3), "JPEG")),
    "a huge picture": lambda p: rewritten(p, photo=huge_png()),
    "a zip bomb": lambda p: rewritten(p, mask=b"\0" * 50_000_000),
    "a long description": lambda p: rewritten(p, project=b" " * 50_000_000),
    "half a picture": lambda p: rewritten(p, photo=coded(noise(290, 330, 3))[:4000]),
    "no picture": lambda p: rewritten(p, photo=b"hello"),
    "no photo": lambda p: rewritten(p, photo=None),
    "no mask": lambda p: rewritten(p, mask=None),
    "no description": lambda p: rewritten(p, project=None),
    "no JSON": lambda p: rewritten(p, project=b"{"),
    "a list": lambda p: rewritten(p, project=b"[]"),
    "deep JSON": lambda p: rewritten(p, project=b"[" * 200_000),
    "odd bytes": lambda p: rewritten(p, project=b"\xff\xfe\x00"),
    "not a number": lambda p: described(p, extras={"a": float("nan")}),
    "no layers": lambda p: described(p, layers=[]),
    "layers that are none": lambda p: described(p, layers=3),
    "no extras": lambda p: described(p, extras=[1]),
    "a negative size": lambda p: described(p, size=[-330, -290]),
    "a size that is too large": lambda p: described(p, size=[330_000, 290_000]),
    "a size of text": lambda p: described(p, size=["330", "290"]),
    "a size of truth": lambda p: described(p, size=[True, True]),
    "a short box": lambda p: described(p, box=[1, 2]),
    "a broken box": lambda p: described(p, box=[1, 2, 3, 1e400]),
    "version 0": lambda p: described(p, version=0),
    "version two": lambda p: described(p, version="two"),
    "a newer version": lambda p: described(p, version=2),
}


@pytest.mark.parametrize("harm", BAD.values(), ids=list(BAD))
def test_a_bad_project_is_refused_in_one_sentence(harm, saved):
    harm(saved)
    with pytest.raises(PictureError) as caught:
        project.open_project(saved)
    assert "holiday.studio" in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_newer_project_says_so(saved):
    with pytest.raises(PictureError, match="newer"):
        project.open_project(described(saved, version=7))


def test_files_that_are_no_projects(tmp_path):
    (tmp_path / "a.studio").write_bytes(b"hello")
    (tmp_path / "b.studio").write_bytes(b"")
    (tmp_path / "c.studio").mkdir()
    for name in ("a", "b", "c", "missing"):
        with pytest.raises(PictureError):
            project.open_project(tmp_path / f"{name}.studio")


def test_members_with_evil_names_are_left_alone(saved, tmp_path):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("../../evil.txt", "evil")
        archive.writestr("/tmp/evil.txt", "evil")
    before = sorted(tmp_path.rglob("*"))
    assert same(project.open_project(saved)[0], painted())
    assert sorted(tmp_path.rglob("*")) == before


def test_any_damage_is_a_studio_error_or_no_damage(saved):
    """Bytes changed, cut and doubled at random places."""
    rng, whole = np.random.default_rng(0), saved.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(len(data), size=rng.integers(1, 6)):
            data[place] = rng.integers(256)
        if rng.random() < 0.3:
            del data[rng.integers(len(data)) :]
        if rng.random() < 0.3:
            # The end of a zip is where its list of members lies.
            data[-rng.integers(1, 300)] ^= 255
        saved.write_bytes(data)
        try:
            project.open_project(saved)
        except StudioError:
            continue


def test_a_box_outside_the_picture_becomes_the_whole_picture(saved):
    back, _ = project.open_project(described(saved, box=[5000, 5000, 10, 10]))
    assert back.box == (0, 0, 330, 290)


# -- autosave -----------------------------------------------------------------------------------


def keep(saver: Autosave, doc: Document, now: float, **extras: object) -> None:
    saver.write(saver.snapshot(doc, now, extras))


def test_it_is_due_half_a_minute_after_a_change_and_after_each_save(tmp_path):
    saver, doc = Autosave(tmp_path), Document.of(noise(20, 30, 3))
    assert not saver.due(doc, 0)
    assert not saver.due(doc, 100)
    doc.invert_mask()
    assert not saver.due(doc, 101)
    assert not saver.due(doc, 129)
    assert saver.due(doc, 130)
    keep(saver, doc, 130)
    assert not saver.due(doc, 170)
    doc.invert_mask()
    assert not saver.due(doc, 171)
    assert saver.due(doc, 200)
    project.save(doc, tmp_path / "a.studio")
    assert not saver.due(doc, 201)


def test_one_recovery_project_a_document(tmp_path):
    saver, one, other = Autosave(tmp_path), painted(), painted()
    for now in (0, 40, 80):
        one.invert_mask()
        keep(saver, one, now)
    keep(saver, other, 80)
    assert len(list(tmp_path.glob("*.studio"))) == 2
    saver.forget(one)
    assert [p for p in tmp_path.glob("*.studio")] == [saver.path(other)]
    saver.close()


def test_after_a_crash_the_document_is_offered_once_and_comes_back(tmp_path):
    doc = painted()
    doc.path = Path("/somewhere/holiday.studio")
    crashed = Autosave(tmp_path)
    keep(crashed, doc, 0, recipe={"steps": 4})
    assert crashed.recoverable() == []
    running = Autosave(tmp_path)
    assert running.recoverable() == []  # its lock is held
    assert crashed._lock is not None
    os.close(crashed._lock)  # as the system does when a process dies
    (found,) = running.recoverable()
    back, extras = running.recover(found)
    assert same(back, doc)
    assert extras == {"recipe": {"steps": 4}}
    assert (back.path, back.modified, back.name) == (doc.path, True, "holiday")
    running.forget(found)
    assert running.recoverable() == []
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_leaves_its_document(tmp_path):
    code = (
        "import sys, os, numpy as np\n"
        "from pathlib import Path\n"
        "from studio.ui.canvas.autosave import Autosave\n"
        "from studio.ui.canvas.document import Document\n"
        "saver, doc = Autosave(Path(sys.argv[1])), Document.of(np.zeros((9, 9, 3), np.uint8))\n"
        "doc.invert_mask()\n"
        "saver.write(saver.snapshot(doc, 0))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = str(Path(project.__file__).parents[3])
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, cwd=root)
    saver = Autosave(tmp_path)
    (found,) = saver.recoverable()
    assert (saver.recover(found)[0].mask == 255).all()


def test_only_changed_layers_are_compressed_again(tmp_path, monkeypatch):
    saver, doc, written = Autosave(tmp_path), painted(), []
    write = png.write

    def counted(file, bands, size, channels):
        written.append(channels)
        write(file, bands, size, channels)

    monkeypatch.setattr(png, "write", counted)
    keep(saver, doc, 0)
    assert written == [3, 1, 1, 4]
    doc.invert_mask()
    keep(saver, doc, 40)
    assert written == [3, 1, 1, 4, 1]
    assert saver._lock is not None
    os.close(saver._lock)
    (found,) = Autosave(tmp_path).recoverable()
    assert same(project.open_project(found)[0], doc)


def test_a_document_forgotten_while_it_is_written_leaves_no_file(tmp_path):
    saver, doc = Autosave(tmp_path), painted()
    taken = saver.snapshot(doc, 0)
    saver.forget(doc)
    saver.write(taken)
    assert not saver.path(doc).exists()


def test_a_write_that_fails_is_due_again(tmp_path):
    (tmp_path / "file").write_text("in the way")
    saver, doc = Autosave(tmp_path / "file"), painted()
    taken = saver.snapshot(doc, 0)
    with pytest.raises(SaveError, match="recovery"):
        saver.write(taken)
    assert saver.due(doc, 40)


def test_a_damaged_recovery_project_is_refused(tmp_path):
    path = tmp_path / f"{'0' * 32}-{'1' * 32}.studio"
    path.write_bytes(b"damaged")
    saver = Autosave(tmp_path)
    assert saver.recoverable() == [path]
    with pytest.raises(PictureError):
        saver.recover(path)
    assert path.exists()


def test_no_folder_is_made_until_something_is_kept(tmp_path):
    saver = Autosave(tmp_path / "canvas")
    assert saver.recoverable() == []
    saver.close()
    assert Masks(tmp_path / "canvas").list() == []
    assert not (tmp_path / "canvas").exists()
    assert autosave.EVERY == 30


# -- masks --------------------------------------------------------------------------------------


def test_the_last_masks_come_back_newest_first(tmp_path):
    made = [noise(40 + i, 50, seed=i) for i in range(14)]
    for mask in made:
        Masks(tmp_path).add(mask)
    kept = Masks(tmp_path).list()
    assert len(kept) == masks.MOST == len(list(tmp_path.iterdir()))
    for known, mask in zip(kept, reversed(made)):
        assert known.size == (mask.shape[1], mask.shape[0])
        assert (Masks(tmp_path).read(known) == mask).all()


def test_a_thumbnail_is_small_and_shows_the_mask(tmp_path):
    mask = np.zeros((300, 600), np.uint8)
    mask[:, 300:] = 255
    Masks(tmp_path).add(mask)
    (kept,) = Masks(tmp_path).list()
    assert kept.thumb.shape == (48, 96)
    assert not kept.thumb[:, :44].any()
    assert (kept.thumb[:, 52:] == 255).all()


def test_empty_masks_and_repetitions_are_not_kept(tmp_path):
    ring = Masks(tmp_path)
    assert ring.add(np.zeros((9, 9), np.uint8)) is None
    assert ring.add(noise(9, 9)) is not None
    assert ring.add(noise(9, 9)) is None
    assert len(ring.list()) == 1


def test_damaged_masks_are_left_out(tmp_path):
    ring = Masks(tmp_path)
    good = ring.add(noise(30, 30))
    assert good is not None
    whole = good.read_bytes()
    head = {"size": [20000, 20000], "thumb": [9, 9], "bytes": 20}
    broken = [
        b"",
        b"hello",
        whole[:25],
        whole[:70],
        whole.replace(b'"size": [30', b'"size": [0'),
        whole.replace(b'"thumb": [30', b'"thumb": [31'),
        b"score studio mask 1\n" + json.dumps(head).encode() + b"\n" + zlib.compress(b"0" * 81),
    ]
    for i, data in enumerate(broken):
        (tmp_path / f"{i:020d}.mask").write_bytes(data)
    (tmp_path / "other.mask").write_bytes(whole)
    (kept,) = ring.list()
    assert kept.path == good
    good.write_bytes(whole[:-9])
    with pytest.raises(PictureError):
        ring.read(kept)
    good.unlink()
    with pytest.raises(PictureError):
        ring.read(kept)
