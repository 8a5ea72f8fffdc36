"""Coverage-guided fuzzing of the readers, for as long as one likes. Not part of the test run.

    pip install atheris
    python tests/fuzz_readers.py -max_total_time=600

Each input is tried as every kind of weight file and description; anything but tensors, a model or
one sentence (StudioError) is a find.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["studio.weights", "studio.spec", "json", "safetensors"]):
    import torch  # noqa: F401  (before the readers, whose torch is lazy)

    from studio.errors import StudioError
    from studio.weights import formats, tensors
    from studio.weights.formats import diffusers

HOME = Path(tempfile.mkdtemp())
KINDS = ("x.safetensors", "x.pth", "model.safetensors", "x.json", "diffusers")


def one_input(data: bytes) -> None:
    kind = KINDS[data[0] % len(KINDS)] if data else KINDS[0]
    try:
        if kind == "diffusers":
            folder = HOME / "folder"
            folder.mkdir(exist_ok=True)
            half = len(data) // 2
            (folder / "config.json").write_bytes(data[1:half])
            (folder / "scheduler_config.json").write_bytes(data[half:])
            formats.open_model(folder)
            return
        path = HOME / kind
        path.write_bytes(data[1:])
        if kind == "x.json":
            diffusers.read_json(path)
        elif kind == "x.pth":
            tensors.read_pickle(path)
        else:
            tensors.read_header(path)
            tensors.read_safetensors(path)
            formats.open_model(path).network()
    except StudioError:
        pass


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
