"""What people try to open that cannot be used, each recognised and named, with what to do instead.

`check_path` looks at names and at the first bytes; `check_tree` at the names of the tensors, after
no format has known them. Neither executes or unpacks anything.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from studio.errors import CheckpointError

_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
_PIXELS = "The studio reads networks that work on pixels."
_MANY = 100_000  # names looked at; no network has more tensors, but lists may hold each other


def check_path(path: Path) -> None:
    """Raise CheckpointError, in words, if a file or folder is known to be of no use here."""
    if path.is_dir():
        _check_folder(path)
    elif path.is_file():
        _check_file(path)


def _check_folder(path: Path) -> None:
    """A checkout without its large files; everything else that a folder may be, its format says."""
    for suffix in _WEIGHTS:
        for file in path.glob(f"*{suffix}"):
            if file.is_file() and _start(file).startswith(_POINTER):
                _check_file(file)


_POINTER = b"version https://git-lfs"


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(256)
    except OSError:
        return b" "  # whoever reads it next says why it cannot be read


def _check_file(path: Path) -> None:
    start, name = _start(path), path.name
    suffix = path.suffix.lower()
    if not start and suffix in _WEIGHTS:
        raise CheckpointError(f"{name} is empty.", "Get the file again.")
    if start.startswith(_POINTER):
        raise CheckpointError(
            f"{name} is only a pointer to the real file, as Git LFS leaves it.",
            "Run “git lfs pull” in its folder.",
        )
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise CheckpointError(
            f"{name} is a web page, not a file of weights: the download was refused.",
            "Open its address in a browser, and save the file from there.",
        )
    if suffix in (".pkl", ".pickle"):
        raise CheckpointError(
            f"{name} is a pickle, which runs code of its own when it is opened, as those of EDM and"
            " StyleGAN do.",
            "Save its weights elsewhere as a plain table of tensors; mind their licence.",
        )
    for kind, known in _KINDS.items():
        if known(suffix, start, path):
            raise CheckpointError(f"{name} is {kind}", "Get the weights of PyTorch instead.")


def _is_script(suffix: str, start: bytes, path: Path) -> bool:
    """Whether an archive holds compiled code beside its tensors."""
    if suffix not in _WEIGHTS or not start.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


_KINDS: dict[str, Callable[[str, bytes, Path], bool]] = {
    "an ONNX graph, which cannot be taken apart into our networks.": (
        lambda suffix, start, path: suffix == ".onnx"
    ),
    "a GGUF file, which holds rounded weights for other programs.": (
        lambda suffix, start, path: suffix == ".gguf" or start.startswith(b"GGUF")
    ),
    "a file of Flax or TensorFlow.": (
        lambda suffix, start, path: suffix in (".msgpack", ".h5", ".pb", ".tflite")
    ),
    "a TorchScript archive: a program, not weights.": _is_script,
}


def check_tree(tree: Any, name: str) -> None:
    """Raise CheckpointError, in words, if what a file held is known to be of no use here."""
    if not isinstance(tree, Mapping | list | tuple):
        return
    names = set(itertools.islice(_names(tree), _MANY))
    if isinstance(tree, Mapping) and {"state", "param_groups"} <= tree.keys():
        raise CheckpointError(
            f"{name} is the state of an optimizer, without a model.",
            "Open the file of the model or of its average beside it.",
        )
    for marks, sentence, hint in _NETWORKS:
        if all(any(mark in k for k in names) for mark in marks):
            raise CheckpointError(f"{name} {sentence}", hint)
    if "input_blocks.0.0.weight" in {k.removeprefix("module.") for k in names}:
        raise CheckpointError(
            f"{name} tells classes apart; it makes no pictures.",
            "Open the diffusion model that it belongs to.",
        )


#: (parts of names that all have to occur, sentence, hint)
_NETWORKS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("lora_",),
        "holds only small changes to another model (LoRA).",
        "Open a whole model.",
    ),
    (
        ("first_stage_model.",),
        "is a latent diffusion model: it works on the codes of an autoencoder, not on pictures.",
        _PIXELS,
    ),
    (
        ("model.diffusion_model.",),
        "is a latent diffusion model: it works on the codes of an autoencoder, not on pictures.",
        _PIXELS,
    ),
    (
        ("cond_stage_model.",),
        "reads text for a latent diffusion model.",
        _PIXELS,
    ),
    (
        ("text_model.encoder.",),
        "reads text; it makes no pictures.",
        _PIXELS,
    ),
    (
        ("adaLN_modulation.",),
        "is a diffusion transformer (DiT), which the studio has no network for.",
        "Choose a model with a U-Net.",
    ),
    (
        ("transformer_blocks.", "pos_embed"),
        "is a diffusion transformer, which the studio has no network for.",
        "Choose a model with a U-Net.",
    ),
    (
        ("transformer_blocks.", "attn2."),
        "is a network that is steered by text.",
        _PIXELS,
    ),
    (
        ("decoder.conv_in.", "encoder.conv_in."),
        "is an autoencoder: it packs pictures and makes none by itself.",
        _PIXELS,
    ),
    (
        ("init_conv.weight", "downs.0."),
        "comes from denoising-diffusion-pytorch, whose network the studio does not have.",
        "Choose a model of another kind.",
    ),
    (
        ("inner_model.", "mapping"),
        "comes from k-diffusion, whose network the studio does not have.",
        "Choose a model of another kind.",
    ),
)


def _names(tree: Any, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """The names of everything in nested tables and lists, joined by dots."""
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        name = f"{prefix}{key}"
        yield name
        if depth < 3 and isinstance(value, Mapping | list | tuple):
            yield from _names(value, f"{name}.", depth + 1)
