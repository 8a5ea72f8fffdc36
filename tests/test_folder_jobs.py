"""Looking through a folder beside other work: batches, thumbnails, previews, and an end at any time."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from studio import photos
from studio.engine import folder_jobs
from studio.engine.engine import Engine
from studio.engine.events import Done, Note, Progress
from studio.engine.folder_jobs import (
    AugmentPreview,
    Found,
    PackPreview,
    ScanFolder,
    Summary,
    Thumb,
    Thumbnails,
)
from studio.errors import DataError, PictureError
from studio.training.choices import Choices, Crop
from studio.training.folder import File

SIZE = 16
CONTEXT = SimpleNamespace(shelf=None, device="cpu", dtype="float32", facts=None)


def picture(seed=0, width=48, height=32):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(12):
        picture(i).save(folder / f"{i:02}.png")
    picture(3).save(folder / "twin.jpg")
    Image.new("L", (9, 9), 30).save(folder / "dot.png")
    (folder / "broken.png").write_text("no picture")
    (folder / "notes.txt").write_text("none either")
    return folder


def events(job):
    return list(job.run(CONTEXT))


def found(heard):
    return [f for e in heard if isinstance(e, Found) for f in e.files]


def test_a_scan_tells_every_file_and_sums_them_up(place):
    heard = events(ScanFolder(str(place), SIZE))
    files = found(heard)
    assert len(files) == 16
    assert heard[-1] == Done(Summary.of(files, heard[-1].value.seconds))
    summary = heard[-1].value
    assert (summary.images, summary.errors, summary.ignored, summary.twins) == (14, 1, 1, 1)
    assert summary.flags == {"small": 1, "grey": 1, "flat": 1}
    assert summary.bytes == sum(f.stat().st_size for f in place.glob("*.*g")) - 10
    last = [e for e in heard if isinstance(e, Progress)][-1]
    assert (last.step, last.total) == (16, 16)


def test_a_folder_that_is_none_ends_the_scan_with_its_reason(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        events(ScanFolder(str(tmp_path / "nowhere"), SIZE))


def test_a_scan_whose_disk_hangs_says_so_and_can_be_stopped(place, monkeypatch):
    opened, glance = threading.Event(), photos.glance

    def slow(path, *rest):
        opened.wait()
        return glance(path, *rest)

    monkeypatch.setattr(photos, "glance", slow)
    monkeypatch.setattr(folder_jobs, "_QUIET", 0.1)

    async def stopped():
        engine = Engine(CONTEXT)
        run = engine.start(ScanFolder(str(place), SIZE))
        async for event in run:
            if isinstance(event, Note):
                run.stop()
        await engine.close()
        return run.state

    try:
        assert asyncio.run(asyncio.wait_for(stopped(), 60)) == "ended"
    finally:
        opened.set()


def test_a_scan_is_not_in_the_way_of_the_loop(place):
    async def watched():
        engine = Engine(CONTEXT)
        seen = [event async for event in engine.start(ScanFolder(str(place), SIZE))]
        await engine.close()
        return seen

    heard = asyncio.run(watched())
    assert len(found(heard)) == 16
    assert isinstance(heard[-1], Done)


def test_thumbnails_come_in_order_and_a_lost_one_is_empty(place):
    files = found(events(ScanFolder(str(place), SIZE)))
    images = tuple(f for f in files if f.result == "image")
    (place / "05.png").unlink()
    thumbs = [e for e in events(Thumbnails(str(place), images, 24)) if isinstance(e, Thumb)]
    assert [t.path for t in thumbs] == [f.path for f in images]
    shapes = {t.path: t.pixels.shape for t in thumbs}
    assert shapes["05.png"] == (0, 0, 3)
    assert shapes["04.png"] == (16, 24, 3)
    assert shapes["dot.png"] == (9, 9, 3), "not enlarged"


def test_a_preview_shows_what_the_model_will_see(place):
    choices = Choices(framing="random", flips=True, jitter=0.2, crops=(Crop("04.png", side=0.9),))
    job = AugmentPreview(str(place), File("04.png", "image"), SIZE, choices, 6)
    heard = events(job)
    shown = heard[-1].value
    assert shown.shape == (6, SIZE, SIZE, 3)
    assert len({square.tobytes() for square in shown}) == 6
    np.testing.assert_array_equal(events(job)[-1].value, shown)
    with pytest.raises(PictureError):
        events(AugmentPreview(str(place), File("gone.png", "image"), SIZE, choices))


def test_a_pack_can_be_looked_at(tmp_path):
    import lzma

    pixels = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)
    blob = np.frombuffer(lzma.compress(pixels.tobytes()), np.uint8)
    meta = '{"count": 3, "height": 8, "width": 8, "channels": 3, "codec": "xz", "classes": ["a"]}'
    np.savez(
        tmp_path / "pack.npz",
        meta=meta,
        blob=blob,
        offsets=np.array([0, len(blob)]),
        counts=np.array([3]),
        labels=np.array([0, 0, -1]),
    )
    for path in (tmp_path / "pack.npz", tmp_path):
        heard = events(PackPreview(str(path), 8))
        np.testing.assert_array_equal(heard[-1].value.pixels, pixels)
        assert heard[-1].value.classes == ("a",)
    (only,) = found(events(ScanFolder(str(tmp_path), 8)))[:1]
    assert (only.result, only.reason) == ("ignore", "an image pack, not a picture")
