"""A lone file of weights and the JSON that describes it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY, TINY_OPTIONS, tiny_network
from safetensors.torch import save_file

from studio import spec
from studio.errors import CheckpointError
from studio.weights import formats
from studio.weights.formats import bare
from studio.weights.model import ModelInfo

pytestmark = pytest.mark.usefixtures("one_thread")

INFO = ModelInfo(options=TINY_OPTIONS, size=8, classes=("cat", "dog"), steps=12)


def weights(path, metadata=None):
    save_file(tiny_network().state_dict(), path, metadata)
    return path


def describe(path, **changes):
    path.write_text(json.dumps(spec.to_dict(INFO) | changes))


@pytest.mark.parametrize("beside", ["net.json", "config.json"])
def test_the_description_lies_beside_the_weights(tmp_path, beside):
    path = weights(tmp_path / "net.safetensors")
    describe(tmp_path / beside)
    opened = formats.open_model(path)
    assert (opened.name, opened.info, opened.format) == ("net", INFO, bare.Bare.title)
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([0.3])
    torch.testing.assert_close(opened.network()(x, t), tiny_network()(x, t))


def test_or_it_stands_in_the_header(tmp_path):
    path = weights(tmp_path / "net.safetensors", {"model": json.dumps(spec.to_dict(INFO))})
    assert formats.open_model(path).info == INFO


def test_the_example_of_the_documentation_works(tmp_path):
    from studio.networks.catalog import build

    start = bare.__doc__.index("    {")
    example = bare.__doc__[start : bare.__doc__.index("\n    }") + 6].replace("128", "8")
    save_file(build("refinenet", {"width": 8}).state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "net.json").write_text(example)
    opened = formats.open_model(tmp_path / "net.safetensors")
    opened.network()
    assert opened.info.value_range == (0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "[1]",
        '{"_class_name": "UNet2DModel"}',
        '{"model": {"type": "image_v1"}}',
    ],
)
def test_the_configuration_of_another_program_is_not_ours(tmp_path, text):
    path = weights(tmp_path / "net.safetensors")
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "net.json").write_bytes(b"\xff\xfe\x00")
    assert formats.recognise(path) is None
    with pytest.raises(CheckpointError, match="no description beside it"):
        bare.Bare().open(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": 10**9}, "impossible"),
        ({"size": "big"}, "size cannot be"),
        ({"sde": {"kind": "nothing"}}, "no sde “nothing”"),
        ({"surprise": 1}, "no setting “surprise”"),
        ({"value_range": [1, 0]}, "impossible"),
        ({"network": "nothing"}, "no network “nothing”"),
        ({"options": TINY_OPTIONS | {"size": 16}}, "do not fit"),
        ({"options": TINY_OPTIONS | {"channels": [8, 32]}}, "do not fit"),
    ],
)
def test_a_wrong_description_is_refused_in_words(tmp_path, change, reason):
    path = weights(tmp_path / "net.safetensors")
    describe(tmp_path / "net.json", **change)
    with pytest.raises(CheckpointError, match=reason):
        formats.open_model(path).network()


def test_damaged_weights_are_refused_when_they_are_read(tmp_path):
    path = weights(tmp_path / "net.safetensors")
    describe(tmp_path / "net.json")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        formats.open_model(path).read()


def test_describing_a_file_loads_no_torch(tmp_path):
    path = weights(tmp_path / "net.safetensors")
    describe(tmp_path / "net.json")
    code = (
        "import sys, pathlib; from studio.weights import formats\n"
        f"assert formats.open_model(pathlib.Path({str(path)!r})).info.size == 8\n"
        "assert 'torch._C' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
