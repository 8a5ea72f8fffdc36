"""The jobs of the Models mode, with a hub that is made up and a model that is tiny."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from studio.engine.engine import Engine
from studio.engine.events import Finished, Note, Progress, Saved, Transfer
from studio.engine.jobs import Setting
from studio.engine.library import (
    STRIP,
    AddJob,
    DiscardJob,
    EjectJob,
    ExportModelJob,
    GetJob,
    RemoveJob,
    RenameJob,
    StripsJob,
    ThumbnailsJob,
    VerifyJob,
    is_small,
    kept_strip,
    parse_id,
    strip_file,
)
from studio.errors import CheckpointError, HubError
from studio.weights import hub, library
from studio.weights.shelf import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def setting(home: Path, tiny_checkpoint: Path) -> Setting:
    """A context whose shelf holds the model “tiny”, the person's own."""
    (home / "models").mkdir(parents=True)
    tiny_checkpoint.rename(home / "models" / "tiny")
    return Setting(Shelf(), "cpu")


@pytest.fixture
def made_up_hub(monkeypatch: pytest.MonkeyPatch, home: Path) -> dict[str, Any]:
    """Serves one model in three parts; notes what it was asked, and whether it was closed."""
    seen: dict[str, Any] = {"closed": False}
    listing = hub.Listing("owner/name", "a" * 40, (hub.RemoteFile("model.safetensors", 300),))

    def look(id: str, revision: str, token: str | None) -> hub.Listing:
        seen["asked"] = id, revision, token
        return listing

    def fetch(
        listing: hub.Listing, folder: Path, token: str | None
    ) -> Generator[hub.Received, None, Path]:
        try:
            for done in (100, 200, 300):
                yield hub.Received(
                    done, 300, "model.safetensors", 50.0, note="again" * (done == 200)
                )
            return folder
        finally:
            seen["closed"] = True

    monkeypatch.setattr(hub, "look", look)
    monkeypatch.setattr(hub, "fetch", fetch)
    monkeypatch.setattr(hub, "discard", lambda what: seen.update(discarded=what))
    return seen


# -- ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("google/ddpm-cifar10-32", ("google/ddpm-cifar10-32", "main")),
        ("  google/ncsnpp-church-256/ ", ("google/ncsnpp-church-256", "main")),
        ("https://huggingface.co/google/ddpm-cifar10-32", ("google/ddpm-cifar10-32", "main")),
        ("huggingface.co/a/b?library=diffusers#use", ("a/b", "main")),
        ("https://huggingface.co/a/b/tree/v1.0", ("a/b", "v1.0")),
        ("https://huggingface.co/a/b/blob/main/README.md", ("a/b", "main")),
        ("https://hf.co/a/b", ("a/b", "main")),
    ],
)
def test_an_id_is_found_in_what_people_paste(typed: str, meant: tuple[str, str]) -> None:
    assert parse_id(typed) == meant


@pytest.mark.parametrize("typed", ["", "name", "a/b/c", "https://example.com/a/b", "../b", "a b/c"])
def test_what_is_no_id_is_refused_with_an_example(typed: str) -> None:
    if typed == "../b":
        # Dots are letters of an id; the hub itself has the last word on such names.
        assert parse_id(typed)[0] == "../b"
        return
    with pytest.raises(HubError, match="no model of the hub") as caught:
        parse_id(typed)
    assert "owner/name" in caught.value.hint


# -- downloads --------------------------------------------------------------------------------------


def test_a_download_tells_its_bytes_and_where_the_model_is(
    setting: Setting, home: Path, made_up_hub: dict[str, Any]
) -> None:
    told = list(GetJob("owner/name", "v2", token="secret").run(setting))
    assert made_up_hub["asked"] == ("owner/name", "v2", "secret")
    assert [e.done for e in told if isinstance(e, Transfer)] == [0, 100, 200, 300]
    assert all(e.total == 300 for e in told if isinstance(e, Transfer))
    assert Note("again") in told
    assert told[-1] == Saved(home / "models" / "owner--name")


def test_closing_a_download_closes_the_connection(
    setting: Setting, made_up_hub: dict[str, Any]
) -> None:
    run = GetJob("owner/name").run(setting)
    while not isinstance(event := next(run), Transfer) or not event.done:
        pass
    run.close()
    assert made_up_hub["closed"]


def test_a_token_is_not_shown_and_an_empty_one_means_the_stored_login(
    setting: Setting, made_up_hub: dict[str, Any]
) -> None:
    assert "secret" not in repr(GetJob("owner/name", token="secret"))
    list(GetJob("owner/name").run(setting))
    assert made_up_hub["asked"][2] is None


def test_a_cancelled_download_is_deleted(
    setting: Setting, home: Path, made_up_hub: dict[str, Any]
) -> None:
    list(DiscardJob("owner/name").run(setting))
    assert made_up_hub["discarded"] == home / "models" / "owner--name"


def test_downloads_and_other_files_are_no_work_for_the_device() -> None:
    for job in (GetJob, DiscardJob, AddJob, VerifyJob, ExportModelJob, RenameJob, RemoveJob):
        assert job.lane == "io"
    assert not hasattr(ThumbnailsJob, "lane")


# -- the shelf --------------------------------------------------------------------------------------


def test_adding_verifying_renaming_and_removing_go_to_the_library(
    setting: Setting, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = setting.shelf.find("tiny")
    seen: list[Any] = []
    monkeypatch.setattr(library, "add", lambda *a: seen.append(a) or entry)
    monkeypatch.setattr(library, "rename", lambda *a: seen.append(a) or entry)
    monkeypatch.setattr(library, "remove", lambda *a: seen.append(a) or 1)
    monkeypatch.setattr(library, "verify", lambda e: library.Verified(True, ("All fits.",)))
    assert list(AddJob(home, preset="p").run(setting))[-1] == Saved(entry.path)
    assert list(RenameJob("tiny", "new").run(setting))[-1] == Saved(entry.path)
    list(RemoveJob("tiny").run(setting))
    assert list(VerifyJob("tiny").run(setting))[-1] == Note("All fits.")
    kinds = [a[0] if isinstance(a[0], Path) else a[0].name for a in seen]
    assert kinds == [home, "tiny", "tiny"]


def test_an_export_takes_the_card_along(setting: Setting, tmp_path: Path) -> None:
    told = list(ExportModelJob("tiny", tmp_path / "out").run(setting))
    folder = tmp_path / "out" / "tiny"
    assert told[-1] == Saved(folder)
    assert "For tests." in (folder / "README.md").read_text()


def test_a_model_that_is_not_whole_is_said_to_be_so(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "verify", lambda e: library.Verified(False, ("a.bin is short.",)))
    with pytest.raises(CheckpointError, match=r"a\.bin is short") as caught:
        list(VerifyJob("tiny").run(setting))
    assert caught.value.hint


def test_a_model_that_has_gone_is_named(setting: Setting) -> None:
    with pytest.raises(CheckpointError, match="“gone”"):
        list(RemoveJob("gone").run(setting))


def test_ejecting_lets_go_of_one_model_or_of_all(setting: Setting) -> None:
    setting.shelf.load("tiny", "cpu")
    list(EjectJob(Path("another")).run(setting))
    assert setting.shelf.loaded()
    list(EjectJob().run(setting))
    assert not setting.shelf.loaded()


# -- strips -----------------------------------------------------------------------------------------


def test_thumbnails_are_drawn_once_and_kept(setting: Setting) -> None:
    assert not list(StripsJob(("tiny",)).run(setting))
    told = list(ThumbnailsJob("tiny").run(setting))
    assert any(isinstance(e, Progress) for e in told)
    drawn = told[-1]
    assert isinstance(drawn, Finished)
    assert drawn.pictures.shape == (STRIP, 8, 8, 3)
    (kept,) = list(StripsJob(("tiny", "gone")).run(setting))
    assert isinstance(kept, Finished)
    assert kept.recipe == {"model": "tiny"}
    assert (kept.pictures == drawn.pictures).all()
    assert not setting.shelf.loaded()  # a thumbnail does not fill the memory


def test_thumbnails_leave_a_model_in_memory_that_was_there(setting: Setting) -> None:
    setting.shelf.load("tiny", "cpu")
    list(ThumbnailsJob("tiny").run(setting))
    assert setting.shelf.loaded()


def test_a_model_that_has_changed_gets_new_thumbnails(setting: Setting) -> None:
    entry = setting.shelf.find("tiny")
    before = strip_file(entry)
    assert strip_file(entry) == before
    (entry.path / "card.md").write_text("another")
    assert strip_file(entry) != before


def test_samples_that_came_with_a_model_are_its_strip(setting: Setting) -> None:
    folder = setting.shelf.find("tiny").path / "samples"
    folder.mkdir()
    (folder / "0-damaged.png").write_bytes(b"no picture")
    for i, mode in enumerate(("L", "RGBA", "RGB", "P", "RGB", "RGB")):
        Image.new(mode, (40 + i, 30)).save(folder / f"{i + 1}.png")
    strip = kept_strip(setting.shelf.find("tiny"))
    assert strip is not None
    assert strip.shape[0] == STRIP
    assert strip.shape[1] == strip.shape[2]
    assert strip.dtype == np.uint8


def test_thumbnails_that_cannot_be_kept_are_shown_all_the_same(
    setting: Setting, home: Path
) -> None:
    (home / "thumbnails").write_text("in the way")
    told = list(ThumbnailsJob("tiny").run(setting))
    assert isinstance(told[-1], Finished)
    assert any(isinstance(e, Note) and "not kept" in e.text for e in told)


def test_only_what_is_quick_is_drawn_unasked(setting: Setting) -> None:
    entry = setting.shelf.find("tiny")
    assert is_small(entry)
    with (entry.path / "more.bin").open("wb") as file:
        file.truncate(2**30)
    assert not is_small(setting.shelf.find("tiny"))


def test_thumbnails_are_background_work(setting: Setting) -> None:
    import asyncio

    async def work() -> None:
        engine = Engine(setting)
        run = engine.start(ThumbnailsJob("tiny"))
        assert run.background
        began = time.monotonic()
        async for _ in run:
            assert time.monotonic() - began < 30
        await engine.close()

    asyncio.run(work())
