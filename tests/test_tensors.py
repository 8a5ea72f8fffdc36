"""Files of tensors from strangers: whatever is in them, they give tensors or one sentence."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import struct
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from studio.errors import CheckpointError
from studio.weights import tensors
from studio.weights.tensors import read_header, read_pickle, read_safetensors

#: STUDIO_FUZZ=100000 tries more; see CONTRIBUTING.
INPUTS = int(os.environ.get("STUDIO_FUZZ", "150"))
fuzzed = settings(
    max_examples=INPUTS,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4, dtype=torch.float16)}


def saved(value, **options) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def in_safetensors() -> bytes:
    from safetensors.torch import save

    return save(STATE, {"format": "pt"})


def refused(path, reader) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        reader(path)
    assert "\n" not in str(caught.value)
    return caught.value


# -- what is fine -------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_in_tables_and_lists_come_back(tmp_path, zipped):
    path = tmp_path / "x.pth"
    path.write_bytes(
        saved(
            {"model": STATE, "ema": [*STATE.values()], "step": 3},
            _use_new_zipfile_serialization=zipped,
        )
    )
    tree = read_pickle(path)
    assert tree["step"] == 3
    assert all(torch.equal(tree["model"][k], v) for k, v in STATE.items())
    assert all(torch.equal(a, b) for a, b in zip(tree["ema"], STATE.values()))


# -- what would run code ------------------------------------------------------------------------


class Hostile:
    """Unpickled, it would make a file."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("place", ["root", "inside"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, zipped, place):
    trace = tmp_path / "trace"
    value = Hostile(trace) if place == "root" else {"model": STATE, "extra": [Hostile(trace)]}
    path = tmp_path / "x.pth"
    path.write_bytes(saved(value, _use_new_zipfile_serialization=zipped))
    assert "could run code" in str(refused(path, read_pickle))
    assert not trace.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'touch trace'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"csubprocess\nPopen\n(S'ls'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93\x8c\x01x\x85R.",
        b"cstudio.paths\nuser_dir\n(tR.",
        b"ctorch\nload\n(S'x'\ntR.",
        b"ctorch.hub\nload\n(S'x'\ntR.",
    ],
)
def test_bare_pickles_with_code_are_refused(tmp_path, code):
    path = tmp_path / "x.pt"
    path.write_bytes(code)
    refused(path, read_pickle)


# -- what claims too much -----------------------------------------------------------------------


def test_a_zip_that_unpacks_to_more_than_it_weighs_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}))
        archive.writestr("x/data/0", b"\0" * 50_000_000)
    assert path.stat().st_size < 100_000
    assert "more than it weighs" in str(refused(path, read_pickle))


def test_a_tensor_spread_over_one_number_is_refused(tmp_path):
    path = tmp_path / "wide.pth"
    path.write_bytes(saved({"w": torch.zeros(1).expand(1_000_000, 1_000_000)}))
    assert "larger than the file" in str(refused(path, read_pickle))


def test_a_sparse_tensor_is_refused(tmp_path):
    path = tmp_path / "sparse.pth"
    path.write_bytes(saved({"w": torch.eye(3).to_sparse()}))
    refused(path, read_pickle)


@pytest.mark.parametrize("length", [2**31, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_gigabytes_is_refused_unread(tmp_path, length):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}" * 100)
    refused(path, read_header)
    refused(path, read_safetensors)


@pytest.mark.parametrize(
    "shape", [[2**62], [2**31, 2**31, 2**31], [-1], [10**9, 10**9], [1.5], ["x"]]
)
def test_absurd_shapes_are_refused(tmp_path, shape):
    header = {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    refused(path, read_safetensors)


@pytest.mark.parametrize("offsets", [[0, 2**62], [-4, 0], [4, 0], [0, 8], [2, 6]])
def test_tensors_outside_the_file_are_refused(tmp_path, offsets):
    header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    refused(path, read_safetensors)


def test_what_cannot_be_read_is_named(tmp_path):
    for reader in (read_header, read_pickle, read_safetensors):
        assert "x.pth" in str(refused(tmp_path / "x.pth", reader))
        refused(tmp_path, reader)


def test_a_write_keeps_our_mark(tmp_path):
    tensors.write_tensors(tmp_path / "x.safetensors", STATE, {"more": "1"})
    assert read_header(tmp_path / "x.safetensors")["__metadata__"] == {
        "format": tensors.FORMAT,
        "more": "1",
    }


# -- anything at all ----------------------------------------------------------------------------


def gives_tensors_or_a_sentence(path, raw, reader) -> None:
    path.write_bytes(raw)
    said = ""
    with contextlib.suppress(CheckpointError):
        try:
            reader(path)
        except CheckpointError as error:
            said = str(error)
            raise
    assert "\n" not in said


@st.composite
def mangled(draw, whole: bytes) -> bytes:
    """A good file with some bytes changed, cut out, doubled or added."""
    raw = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        kind = draw(st.sampled_from(["set", "cut", "insert", "repeat", "end"]))
        if kind == "set" and raw:
            raw[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del raw[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            raw[at:at] = draw(st.binary(max_size=24))
        elif kind == "repeat":
            raw[at:at] = raw[at : at + draw(st.integers(1, 64))]
        else:
            del raw[at:]
    return bytes(raw)


@fuzzed
@given(raw=st.one_of(st.binary(max_size=300), mangled(in_safetensors())))
def test_any_bytes_as_safetensors(tmp_path_factory, raw):
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    gives_tensors_or_a_sentence(path, raw, read_header)
    gives_tensors_or_a_sentence(path, raw, read_safetensors)


@fuzzed
@given(raw=st.one_of(st.binary(max_size=300), mangled(saved({"model": STATE, "step": 1}))))
def test_any_bytes_as_a_zip_of_torch(tmp_path_factory, raw):
    gives_tensors_or_a_sentence(tmp_path_factory.getbasetemp() / "fuzz.pth", raw, read_pickle)


@fuzzed
@given(raw=mangled(saved({"model": STATE, "step": 1}, _use_new_zipfile_serialization=False)))
def test_any_bytes_as_a_legacy_file_of_torch(tmp_path_factory, raw):
    gives_tensors_or_a_sentence(tmp_path_factory.getbasetemp() / "fuzz.pt", raw, read_pickle)


def test_a_good_file_beside_them_is_read(tmp_path):
    save_file(STATE, tmp_path / "x.safetensors")
    assert read_safetensors(tmp_path / "x.safetensors").keys() == STATE.keys()
