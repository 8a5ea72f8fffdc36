"""A model file comes back as it was, and what is not one is refused in words."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import REPOSITORY, TINY_OPTIONS, tiny_network
from safetensors.torch import save_file

from studio import paths
from studio.diffusion.score import OUTPUTS
from studio.diffusion.sde import SDES, VESDE
from studio.errors import CheckpointError, SaveError
from studio.weights import formats
from studio.weights.formats import native
from studio.weights.formats.native import WEIGHTS, read_info
from studio.weights.model import ModelInfo, score_of

INFO = ModelInfo(options=TINY_OPTIONS, size=8, classes=("cat", "dog"), steps=12)


def header_of(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def with_header(path, change):
    """Rewrite the file with its header changed by `change(header)`."""
    header, body = header_of(path)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def with_model(path, change):
    """Rewrite the file with its description changed."""

    def rewrite(header):
        model = json.loads(header["__metadata__"]["model"])
        change(model)
        header["__metadata__"]["model"] = json.dumps(model)

    with_header(path, rewrite)


def opened(path):
    return formats.open_model(path).score()


@pytest.mark.parametrize("sde", list(SDES))
@pytest.mark.parametrize("output", list(OUTPUTS))
def test_a_description_comes_back_as_it_was(tmp_path, sde, output):
    info = replace(
        INFO,
        sde=SDES[sde](),
        output=OUTPUTS[output](),
        value_range=(0.0, 1.0),
        preset="paper",
    )
    path = native.save(tmp_path / "m", info, {"w": torch.zeros(2)})
    assert read_info(path) == info
    assert read_info(path).shape == (3, 8, 8)


def test_weights_come_back_as_they_were(tiny_checkpoint):
    path = tiny_checkpoint / WEIGHTS
    net, wanted = formats.open_model(path).network(), tiny_network().state_dict()
    assert net.state_dict().keys() == wanted.keys()
    assert all(torch.equal(v, wanted[k]) for k, v in net.state_dict().items())
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())
    assert (tiny_checkpoint / native.CARD).read_text(encoding="utf-8").startswith("# Tiny")


def test_an_opened_model_answers_as_the_saved_one(tiny_checkpoint):
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.9])
    score = opened(tiny_checkpoint / WEIGHTS)
    assert torch.equal(score(x, t), score_of(tiny_network(), INFO)(x, t))
    assert score.classes == ("cat", "dog")
    assert score.labelled(torch.tensor([0, 1]))(x, t).shape == x.shape


def test_half_precision_weights_are_opened_in_float32(tmp_path):
    half = {k: v.half() for k, v in tiny_network().state_dict().items()}
    path = native.save(tmp_path / "half", INFO, half)
    net = formats.open_model(path).network()
    assert all(p.dtype == torch.float32 for p in net.parameters())


def test_constants_of_the_sde_are_part_of_the_file(tmp_path):
    info = replace(INFO, sde=VESDE(0.02, 90.0))
    path = native.save(tmp_path / "ve", info, tiny_network().state_dict())
    assert opened(path).sde == VESDE(0.02, 90.0)


# -- what is not a model ------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no model file"):
        read_info(tmp_path / "nothing" / WEIGHTS)


def test_a_folder_in_the_files_place_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_info(tmp_path)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"abc",
        b"\x00" * 8,
        b"\xff" * 64,
        b"PK\x03\x04" + b"\x00" * 60,
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 3) + b"\xc3\x28}",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ],
)
def test_bytes_that_are_no_model_are_refused(tmp_path, raw):
    path = tmp_path / WEIGHTS
    path.write_bytes(raw)
    with pytest.raises(CheckpointError):
        read_info(path)


def test_another_programs_weights_are_told_apart(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="not a model of this studio"):
        read_info(tmp_path / WEIGHTS)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(size=-3),
        lambda m: m.update(size=10**400),
        lambda m: m.update(colours=2),
        lambda m: m.update(value_range=[1.0, -1.0]),
        lambda m: m.update(value_range=[float("-inf"), 1.0]),
        lambda m: m.update(value_range=[float("nan"), 1.0]),
        lambda m: m.update(sde={"kind": "warp"}),
        lambda m: m.update(sde={"kind": "vp", "beta_max": -1}),
        lambda m: m.update(sde=None),
        lambda m: m.update(output={"kind": "edm", "sigma_data": float("nan")}),
        lambda m: m.update(classes=[1, 2]),
        lambda m: m.update(options=[]),
        lambda m: m.update(surprise=1),
    ],
)
def test_descriptions_that_make_no_sense_are_refused(tiny_checkpoint, change):
    path = tiny_checkpoint / WEIGHTS
    with_model(path, change)
    with pytest.raises(CheckpointError, match="describes its model wrongly"):
        read_info(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000])
def test_descriptions_that_are_no_table_are_refused(tiny_checkpoint, text):
    path = tiny_checkpoint / WEIGHTS
    with_header(path, lambda header: header["__metadata__"].update(model=text))
    with pytest.raises(CheckpointError):
        read_info(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["options"].update(channels=[8, 24]),
        lambda m: m["options"].update(channels=["a", "b"]),
        lambda m: m["options"].update(classes=5),
        lambda m: m["options"].update(embedding=10**12),
        lambda m: m["options"].update(channels=[4096] * 2, blocks=[64] * 2),  # half a terabyte
        lambda m: m.update(network="resnet"),
        lambda m: m.update(classes=["cat", "dog", "bird"]),
        lambda m: m.update(classes=[]),
        lambda m: m.update(size=16),
        lambda m: m.update(colours=1),
    ],
)
def test_weights_that_do_not_fit_their_description_are_refused(tiny_checkpoint, change):
    path = tiny_checkpoint / WEIGHTS
    with_model(path, change)
    with pytest.raises(CheckpointError):
        formats.open_model(path).network()


def test_a_truncated_file_is_refused(tiny_checkpoint):
    path = tiny_checkpoint / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        formats.open_model(path).network()


def test_a_tensor_too_many_or_too_few_is_named(tmp_path):
    state = tiny_network().state_dict()
    path = native.save(tmp_path / "more", INFO, state | {"zebra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="zebra"):
        formats.open_model(path).network()
    state.pop("head.bias")
    path = native.save(tmp_path / "less", INFO, state)
    with pytest.raises(CheckpointError, match=r"head\.bias"):
        formats.open_model(path).network()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(tmp_path, value):
    state = tiny_network().state_dict()
    state["head.bias"] = torch.full_like(state["head.bias"], value)
    path = native.save(tmp_path / "bad", INFO, state)
    with pytest.raises(CheckpointError, match="not finite"):
        formats.open_model(path).network()


# -- saving -------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_the_old_file(tiny_checkpoint, monkeypatch):
    path = tiny_checkpoint / WEIGHTS
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SaveError, match="No space left"):
        native.save(tiny_checkpoint, INFO, {"w": torch.ones(3)})
    assert path.read_bytes() == before
    assert sorted(p.name for p in tiny_checkpoint.iterdir()) == [native.CARD, WEIGHTS]


def test_a_place_that_cannot_be_written_is_a_save_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveError):
        native.save(tmp_path / "file" / "model", INFO, {"w": torch.ones(1)})


def test_atomic_takes_the_place_only_at_the_end(tmp_path):
    path = tmp_path / "new" / "note.txt"
    with paths.atomic(path) as temporary:
        temporary.write_text("hello")
        assert not path.exists()
    assert path.read_text() == "hello"
    with pytest.raises(KeyError), paths.atomic(path) as temporary:
        temporary.write_text({}["half"])
    assert path.read_text() == "hello"
    assert list(path.parent.iterdir()) == [path]


def test_a_saved_file_may_be_read_by_whoever_may_read_new_files(tmp_path):
    with paths.atomic(tmp_path / "ours") as temporary:
        temporary.write_text("x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_is_kept_lies_below_the_studios_home(home):
    assert paths.user_dir() == home
    assert paths.model_dirs()[0] == home / "models"


def test_a_header_is_read_without_torch(tiny_checkpoint):
    code = (
        "import sys; from pathlib import Path\n"
        "from studio.weights.formats.native import read_info\n"
        f"info = read_info(Path({str(tiny_checkpoint / WEIGHTS)!r}))\n"
        "assert info.classes == ('cat', 'dog'), info\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert done.returncode == 0, done.stderr
