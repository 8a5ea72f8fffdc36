"""Operations on a person's shelf happen whole or not at all, and what ships is left alone."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from conftest import TINY_OPTIONS, tiny_network

from studio.errors import CheckpointError, SaveError
from studio.weights import formats, library
from studio.weights.formats import native
from studio.weights.library import Kept, Origin
from studio.weights.model import ModelInfo, score_of
from studio.weights.shelf import Entry, Shelf

INFO = ModelInfo(options=TINY_OPTIONS, size=8, classes=("cat", "dog"), steps=12)


@pytest.fixture
def mine(home) -> Entry:
    """A model of the person's own."""
    native.save(home / "models" / "mine", INFO, tiny_network().state_dict(), card="# Mine\n")
    return Shelf().find("mine")


@pytest.fixture
def shipped_model() -> Entry:
    return next(e for e in Shelf().entries() if e.ships)


def names(home) -> list[str]:
    return sorted(p.name for p in (home / "models").iterdir())


# -- adding -------------------------------------------------------------------------------------


def test_an_added_model_answers_as_the_source(tiny_checkpoint, home):
    entry = library.add(tiny_checkpoint)
    assert entry.path == home / "models" / "tiny"
    assert names(home) == ["tiny"]
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.9])
    assert torch.equal(Shelf().load("tiny")(x, t), score_of(tiny_network(), INFO)(x, t))


def test_a_card_says_where_it_came_from_and_what_was_found(tiny_checkpoint):
    card = library.add(tiny_checkpoint, "other").card
    assert card.startswith("# other")
    assert "added from | tiny" in card
    assert f"{len(tiny_network().state_dict())} matched" in card
    assert "## The card it came with" in card
    assert "For tests." in card


def test_the_origin_names_every_file(tiny_checkpoint):
    entry = library.add(tiny_checkpoint, "other")
    origin = library.origin(entry)
    assert origin is not None
    assert origin.source == "tiny"
    assert set(origin.files) == {"model.safetensors", "card.md"}
    assert origin.files["card.md"] == Kept(
        library.sha256(entry.path / "card.md"), (entry.path / "card.md").stat().st_size
    )


def test_a_single_file_can_be_added_anywhere(tiny_checkpoint, tmp_path):
    entry = library.add(tiny_checkpoint / native.WEIGHTS, "copy", folder=tmp_path / "elsewhere")
    assert entry.path == tmp_path / "elsewhere" / "copy"
    assert formats.open_model(entry.path).info == INFO


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "a/b",
        "a\\b",
        ".hidden",
        "-dash",
        "~",
        "C:",
        "a\x00b",
        "a\nb",
        " x",
        "x ",
        "x.",
        "?",
        "x" * 101,
        "..",
    ],
)
def test_a_name_that_is_a_path_is_refused(tiny_checkpoint, mine, home, name):
    with pytest.raises(CheckpointError, match="no name for a model"):
        library.add(tiny_checkpoint, name)
    with pytest.raises(CheckpointError, match="no name for a model"):
        library.rename(mine, name)
    assert names(home) == ["mine"]


def test_a_taken_name_is_refused(tiny_checkpoint, mine, home, shipped_model):
    for name in ("mine", "MINE"):
        with pytest.raises(CheckpointError, match="on the shelf already"):
            library.add(tiny_checkpoint, name)
    with pytest.raises(CheckpointError, match="ships"):
        library.add(tiny_checkpoint, shipped_model.name)
    with pytest.raises(CheckpointError, match="ships"):
        library.rename(mine, shipped_model.name)
    assert names(home) == ["mine"]


def test_what_is_no_model_is_not_added(tmp_path, home):
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 64)
    for source in (tmp_path, tmp_path / "x.safetensors", tmp_path / "nothing"):
        with pytest.raises(CheckpointError):
            library.add(source)
    assert not (home / "models").exists() or names(home) == []


def test_weights_that_do_not_fit_are_not_added(tmp_path, home):
    state = tiny_network().state_dict()
    state.pop(next(iter(state)))
    native.save(tmp_path / "broken", INFO, state)
    with pytest.raises(CheckpointError, match="do not fit"):
        library.add(tmp_path / "broken")
    assert not (home / "models").exists() or names(home) == []


def test_a_failure_on_the_disk_leaves_the_shelf_as_it_was(tiny_checkpoint, home, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(SaveError, match="No space left"):
        library.add(tiny_checkpoint)
    assert names(home) == []


# -- renaming and removing ----------------------------------------------------------------------


def test_a_renamed_model_is_found_under_its_new_name_alone(mine, home):
    entry = library.rename(mine, "yours")
    assert (entry.name, entry.info) == ("yours", INFO)
    assert names(home) == ["yours"]
    with pytest.raises(CheckpointError, match="called “yours” already"):
        library.rename(entry, "yours")


def test_a_removed_model_is_gone_and_its_bytes_are_told(mine, home):
    before = library.used_bytes()
    assert before > 1000
    assert library.remove(mine) == before
    assert names(home) == []
    assert library.used_bytes() == 0
    with pytest.raises(CheckpointError, match="not on your shelf"):
        library.remove(mine)


def test_a_model_that_cannot_be_opened_can_be_removed(home):
    (home / "models" / "bad").mkdir(parents=True)
    (home / "models" / "bad" / native.WEIGHTS).write_bytes(b"\xff" * 64)
    bad = next(e for e in Shelf().entries() if e.name == "bad")
    assert library.remove(library.rename(bad, "worse")) == 64


def test_what_ships_and_what_lies_elsewhere_is_left_alone(tiny_checkpoint, shipped_model):
    elsewhere = Shelf().find(str(tiny_checkpoint))
    for entry, why in ((shipped_model, "ships"), (elsewhere, "not on your shelf")):
        for change in (library.remove, lambda e: library.rename(e, "new")):
            with pytest.raises(CheckpointError, match=why):
                change(entry)
        assert entry.path.exists()


def test_a_link_on_the_shelf_is_removed_but_not_what_it_leads_to(tiny_checkpoint, home):
    (home / "models").mkdir(parents=True)
    (home / "models" / "linked").symlink_to(tiny_checkpoint)
    library.remove(Shelf().find("linked"))
    assert names(home) == []
    assert (tiny_checkpoint / native.WEIGHTS).is_file()


def test_what_an_interrupted_removal_left_goes_with_the_next(mine, home):
    (home / "models" / ".trash-old").mkdir()
    library.remove(mine)
    assert names(home) == []


def test_removing_fails_in_words(mine, monkeypatch):
    def busy(*_, **__):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(shutil, "rmtree", busy)
    with pytest.raises(SaveError, match="busy"):
        library.remove(mine)


# -- verifying ----------------------------------------------------------------------------------


def test_a_whole_model_is_whole(tiny_checkpoint):
    verified = library.verify(library.add(tiny_checkpoint))
    assert verified.ok
    assert "All 2 files" in verified.lines[0]
    assert "all finite" in verified.lines[1]


def test_a_model_without_origin_is_judged_by_its_weights(mine, shipped_model):
    for entry in (mine, shipped_model):
        verified = library.verify(entry)
        assert verified.ok
        assert "Nothing was noted" in verified.lines[0]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "card.md").unlink(), "card.md is missing"),
        (lambda f: (f / "card.md").write_text("changed"), "bytes instead of"),
        (lambda f: flip(f / native.WEIGHTS), "checksum differs"),
        (lambda f: truncate(f / native.WEIGHTS), "damaged"),
    ],
)
def test_damage_is_named(tiny_checkpoint, damage, said):
    entry = library.add(tiny_checkpoint)
    damage(entry.path)
    verified = library.verify(entry)
    assert not verified.ok
    assert said in " ".join(verified.lines)


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def test_weights_that_are_not_finite_are_not_whole(home):
    state = tiny_network().state_dict()
    next(iter(state.values())).view(-1)[0] = float("nan")
    native.save(home / "models" / "nan", INFO, state)
    verified = library.verify(Shelf().find("nan"))
    assert not verified.ok
    assert "not finite" in verified.lines[-1]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"source": 1, "files": 3}', "\0", "[" * 100_000, '{"files": {"a": 1}}'],
)
def test_an_origin_that_makes_no_sense_counts_as_none(mine, text):
    (mine.path / library.ORIGIN).write_text(text)
    assert library.origin(mine) is None
    assert library.verify(mine).ok


def test_an_origin_that_names_files_elsewhere_reads_none_of_them(mine, home):
    (home / "secret").write_text("x")
    for name in ("../../secret", str(home / "secret")):
        library.write_origin(mine.path, Origin("x", files={name: Kept("0" * 64, 1)}))
        assert f"{name} is missing." in library.verify(mine).lines


def test_an_origin_comes_back_as_it_was(tmp_path):
    tmp_path.joinpath("m").mkdir()
    origin = Origin("a/b", "c" * 40, library.now(), {"unet/x": Kept("d" * 64, 5)})
    library.write_origin(tmp_path / "m", origin)
    assert library.origin_in(tmp_path / "m") == origin
    json.loads((tmp_path / "m" / "origin.json").read_text())


# -- models of the hub on the shelf -------------------------------------------------------------


def test_a_fetched_model_is_found_by_its_id(home):
    native.save(home / "models" / "someone--tiny", INFO, tiny_network().state_dict())
    assert Shelf().find("someone/tiny").name == "someone--tiny"
    assert Shelf().load("someone/tiny").shape == (3, 8, 8)


def test_a_path_is_taken_before_an_id(home, tiny_checkpoint, monkeypatch):
    native.save(home / "models" / "x--tiny", INFO, tiny_network().state_dict())
    monkeypatch.chdir(tiny_checkpoint.parent)
    (tiny_checkpoint.parent / "x").mkdir()
    shutil.copytree(tiny_checkpoint, tiny_checkpoint.parent / "x" / "tiny")
    assert Shelf().find("x/tiny").path == tiny_checkpoint.parent / "x" / "tiny"


def test_an_id_that_was_not_fetched_says_how():
    import studio

    with pytest.raises(CheckpointError) as caught:
        studio.load("google/ddpm-cat-256", device="cpu")
    assert "score-studio models get google/ddpm-cat-256" in caught.value.hint
