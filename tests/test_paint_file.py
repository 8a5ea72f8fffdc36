"""Paintings in files: read back whole, refused when damaged, kept by the history and gone with it."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_paint_branch import OTHER, all_of, middle, painting, way_of
from test_paint_job import MASK, PICTURE, hole, photo, recipe

from studio.engine import paint_file
from studio.engine.history import History
from studio.engine.paint import Layers, PaintJob, branched
from studio.errors import PictureError, StudioError

pytestmark = pytest.mark.usefixtures("one_thread")


def same(one: PaintJob, other: PaintJob) -> bool:
    arrays = [
        (a, b)
        for left, right in zip((one.painted, *one.later), (other.painted, *other.later))
        for a, b in zip(vars(left).values(), vars(right).values())
    ]
    alike = all((a is None) == (b is None) and (a is None or (a == b).all()) for a, b in arrays)
    return alike and one.recipe == other.recipe and (one.picture == other.picture).all()


def test_a_job_comes_back_with_everything_in_its_box(tmp_path: Path) -> None:
    strokes = np.zeros((13, 20, 4), np.uint8)
    strokes[4:8, 5:9] = (200, 10, 10, 255)
    job = PaintJob(recipe(box=(2, 1, 12, 9)), photo(20, 13), hole(20, 13, 4, 3, 5, 5), strokes)
    paint_file.save(job, tmp_path / "a.painting")
    read = paint_file.load(tmp_path / "a.painting")
    assert read.boxed
    assert same(read, job.alone())


def test_a_branch_comes_back_and_makes_the_same(tmp_path: Path) -> None:
    trajectory = way_of(all_of(painting()))
    job = branched(trajectory, middle(trajectory), Layers(OTHER), seed=4).job
    paint_file.save(job, tmp_path / "a.painting")
    read = paint_file.load(tmp_path / "a.painting")
    assert same(read, job)
    assert (all_of(read)[-1].pictures == all_of(job)[-1].pictures).all()


def altered(path: Path, change: Any) -> None:
    """The file with another description."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    head = json.loads(members["painting.json"])
    change(head)
    members["painting.json"] = json.dumps(head).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.pop("arrays"),
        lambda head: head.update(arrays=[]),
        lambda head: head["arrays"][0].update(mask=["|u1", [9, 9]]),
        lambda head: head["arrays"][0].update(mask=["|O", [8, 8]]),
        lambda head: head["arrays"][0].update(picture=["|u1", [10**6, 10**6, 3]]),
        lambda head: head["arrays"][0].update(other=["|u1", [8, 8]]),
        lambda head: head["arrays"].append({"mask": ["|u1", [8, 8]]}),
        lambda head: head["recipe"].update(task={"kind": "cook"}),
        lambda head: head.update(recipe=[1]),
        lambda head: head.update(version=9),
        lambda head: head.update(version="one"),
    ],
)
def test_a_file_that_lies_is_refused(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "a.painting"
    paint_file.save(PaintJob(recipe(), PICTURE, MASK), path)
    altered(path, change)
    with pytest.raises(PictureError):
        paint_file.load(path)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.painting"
    with pytest.raises(PictureError, match="not here"):
        paint_file.load(path)
    for data in (b"", b"PK\x03\x04 no zip", b"\0" * 1000):
        path.write_bytes(data)
        with pytest.raises(PictureError, match="damaged"):
            paint_file.load(path)
    paint_file.save(PaintJob(recipe(), PICTURE, MASK), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(PictureError, match="damaged"):
        paint_file.load(path)


def test_what_makes_no_sense_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(StudioError):
        paint_file.save(PaintJob(recipe(), PICTURE), tmp_path / "a.painting")
    assert not list(tmp_path.iterdir())


# -- in the history --------------------------------------------------------------------------------


def test_a_painting_is_kept_with_what_it_was_made_of_and_goes_with_it(tmp_path: Path) -> None:
    history = History(tmp_path)
    last = all_of(painting())[-1]
    item = history.add(last)
    assert same(history.painting(item.id), last.given)
    assert (all_of(history.painting(item.id))[-1].pictures == last.pictures).all()
    given = next((tmp_path / "given").iterdir())
    assert item.bytes > given.stat().st_size + history.path(item.id).stat().st_size
    history.remove([item.id])
    assert given.exists(), "it may be had back"
    history.close()
    assert not given.exists()


def test_an_index_built_again_counts_it_and_orphans_go(tmp_path: Path) -> None:
    history = History(tmp_path)
    item = history.add(all_of(painting())[-1])
    history.close()
    (tmp_path / "index.sqlite").unlink()
    (tmp_path / "given" / "20200101T000000000-1-abcdef.painting").write_bytes(b"x")
    again = History(tmp_path)
    again.open()
    assert len(list((tmp_path / "given").iterdir())) == 1
    found = again.find(item.id)
    assert found is not None
    assert found.bytes > 0.8 * item.bytes
    again.close()


def test_a_result_of_a_full_disk_is_kept_without_it(tmp_path: Path, monkeypatch: Any) -> None:
    def full(*_: Any) -> None:
        raise StudioError("no room")

    monkeypatch.setattr(paint_file, "save", full)
    history = History(tmp_path)
    item = history.add(all_of(painting())[-1])
    assert len(history.pictures(item.id)) == 2
    with pytest.raises(PictureError, match="not here"):
        history.painting(item.id)
    history.close()


def test_a_painting_from_the_midst_of_a_run_is_kept_without_its_state(tmp_path: Path) -> None:
    from test_paint_branch import from_run, sample_setting

    job, _ = from_run()
    last = list(job.run(sample_setting()))[-1]
    assert last.given.begun is None
    history = History(tmp_path)
    read = history.painting(history.add(last).id)
    history.close()
    made = list(read.run(sample_setting()))[-1].pictures.astype(int)
    assert np.abs(made - last.pictures).max() <= 1
    assert replace(read, begun=None).recipe.origin is not None
