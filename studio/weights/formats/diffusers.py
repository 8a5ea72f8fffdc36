"""Folders as diffusers writes them: pixel-space U-Nets (`UNet2DModel`) with their scheduler.

Both layouts are read: nested (`unet/`, `scheduler/`), and flat, with everything at the root, as the
google/* models on the hub have it; also a U-Net's folder alone. What the folder says of itself is read
from its JSON files, without torch, and is not trusted: names stay inside the folder, no code of it
is run. Every tensor must find its place, or nothing is loaded.

Source: the loaders of diffusers 0.42, and its scripts for the names that versions before 0.3 used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from studio import spec
from studio.errors import CheckpointError, SpecError
from studio.lazy import torch
from studio.weights import tensors
from studio.weights.formats.base import Format
from studio.weights.formats.schedulers import Process, assumed, count, process_of
from studio.weights.model import ModelInfo, Opened, Weights

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model_index.json"
CONFIG = "config.json"
SCHEDULER = "scheduler_config.json"
WEIGHTS = "diffusion_pytorch_model"
#: Written beside a folder that the studio exported: its ModelInfo, so that it opens as it was.
OURS = "score_studio.json"
#: What the network is called inside the component that such a folder brings.
PREFIX = "network."

_LARGEST_JSON = 8 * 2**20
_PLACES = ("unet_ema", "unet", "model")
_NETWORKS = ("UNet2DModel", "UNetUnconditionalModel", "NCSNpp")
_PIXELS_ONLY = "The studio opens models that work on pixels: UNet2DModel with its scheduler."

#: Parts of a pipeline that tell that it is none for us, and what it is then.
_FOREIGN = (
    (("text_encoder", "text_encoder_2", "tokenizer", "bert", "prior"), "draws what a text says"),
    (("image_encoder", "feature_extractor", "cond_encoder"), "draws after a picture's description"),
    (("vae", "vqvae", "movq", "vqgan"), "works on the latents of an autoencoder, not on pixels"),
    (("transformer", "dit"), "is a transformer, not a U-Net"),
    (("mel",), "makes sound"),
)
_STRANGERS = {
    "UNet2DConditionModel": "is told what to draw by a text",
    "UNet1DModel": "makes sequences, not pictures",
    "UNet3DConditionModel": "makes films",
    "Transformer": "is a transformer, not a U-Net",
    "UViT": "is a transformer, not a U-Net",
    "Autoencoder": "is an autoencoder, which makes no pictures by itself",
    "VQModel": "is an autoencoder, which makes no pictures by itself",
    "Onnx": "is in ONNX form, without weights that can be read one by one",
    "Flax": "has weights for Flax only",
}

#: What the fields of UNet2DModel were called in its first versions.
_OLD_FIELDS = {
    "image_size": "sample_size",
    "num_res_blocks": "layers_per_block",
    "block_channels": "block_out_channels",
    "down_blocks": "down_block_types",
    "up_blocks": "up_block_types",
    "downscale_freq_shift": "freq_shift",
    "resnet_num_groups": "norm_num_groups",
    "resnet_act_fn": "act_fn",
    "resnet_eps": "norm_eps",
    "num_head_channels": "attention_head_dim",
}
#: The fields that our options share with its configuration, and those that may be null.
_FIELDS = (
    *("center_input_sample", "time_embedding_type", "time_embedding_dim", "freq_shift"),
    *("flip_sin_to_cos", "down_block_types", "mid_block_type", "up_block_types"),
    *("block_out_channels", "layers_per_block", "mid_block_scale_factor", "downsample_padding"),
    *("downsample_type", "upsample_type", "dropout", "act_fn", "attention_head_dim"),
    *("norm_num_groups", "attn_norm_num_groups", "norm_eps", "resnet_time_scale_shift"),
    *("add_attention", "class_embed_type", "num_class_embeds"),
)
_NULLABLE = ("mid_block_type", "attention_head_dim", "norm_num_groups")

#: Old names of tensors: their first part, and the part before "weight" or "bias".
_OLD_STEMS = {
    "time_steps": "time_proj",
    "mid": "mid_block",
    "downsample_blocks": "down_blocks",
    "upsample_blocks": "up_blocks",
}
_OLD_LAYERS = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
    "op": "conv",
    "Conv2d_0": "conv",
}


class Diffusers(Format):
    title: ClassVar[str] = "diffusers"

    def claims(self, path: Path) -> bool:
        try:
            return _find(path) is not None
        except OSError:
            return False

    def open(self, path: Path, preset: str = "") -> Opened:
        found = _find(path)
        if found is None:
            raise CheckpointError(f"“{path.name}” is no folder of a diffusers model.")
        home, unet = found
        name = _name(home)
        if (home / OURS).is_file():
            return _reopen(home, name)
        index = read_json(home / INDEX) if (home / INDEX).is_file() else {}
        _refuse_pipeline(index, name)
        folder = unet or _network_folder(home)
        config = read_json(_inside(folder, CONFIG))
        process = _process(home, index, config)
        info = _info(config, index, process)
        notes = process.notes
        if folder.name == "unet_ema":
            notes = (*notes, "The averaged weights (unet_ema) are used.")
        return Opened(name, self.title, info, partial(_read, folder), notes)


# -- the folder ---------------------------------------------------------------------------------


def _find(path: Path) -> tuple[Path, Path | None] | None:
    """(the model's folder, the network's folder in it if that was chosen), or None if it is none."""
    if path.is_file():
        named = path.name.startswith((WEIGHTS, "diffusion_model."))
        if not named and path.name not in (INDEX, OURS):
            return None
        path = path.parent
    if (path / INDEX).is_file() or (path / OURS).is_file():
        return path, None
    if any((path / place / CONFIG).is_file() for place in _PLACES):
        return path, None
    if not (path / CONFIG).is_file() or not _is_network(path):
        return None
    inside = path.name in _PLACES and (path.parent / INDEX).is_file()
    return (path.parent if inside else path), path


def _is_network(folder: Path) -> bool:
    if any(folder.glob(f"{WEIGHTS}*")):
        return True
    try:
        return "_diffusers_version" in read_json(folder / CONFIG)
    except CheckpointError:
        return False


def _network_folder(home: Path) -> Path:
    """Where the network's configuration and weights lie: averaged weights before plain ones."""
    for place in _PLACES:
        if (home / place / CONFIG).is_file():
            return home / place
    if (home / CONFIG).is_file():
        return home
    raise CheckpointError(
        f"“{home.name}” has no configuration of a network ({CONFIG}).",
        "Download the whole model again, with its JSON files.",
    )


def _name(home: Path) -> str:
    """What the model is called; in the hub's cache the folder itself is named by a revision."""
    cached = home.parent.name == "snapshots" and home.parent.parent.name.startswith("models--")
    return home.parent.parent.name.split("--")[-1] if cached else home.resolve().name


def read_json(path: Path) -> dict[str, Any]:
    """A JSON table that may come from anywhere. Raises CheckpointError if it is none."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_JSON + 1)
        if len(text) > _LARGEST_JSON:
            raise CheckpointError(f"{path.name} is too long to be a description of a model.")
        data = json.loads(text)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} is damaged: it is no JSON that can be read.", "Get the file again."
        ) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path.name} is damaged: it holds no table.")
    return data


def _inside(folder: Path, name: str) -> Path:
    return tensors.within(folder, name)


# -- what it says of itself ---------------------------------------------------------------------


def _refuse_pipeline(index: Mapping[str, Any], name: str) -> None:
    """Raise CheckpointError, with the reason, if a pipeline is none of pixels and noise alone."""
    parts = {
        k: tuple(str(part) for part in v)
        for k, v in index.items()
        if isinstance(v, list) and len(v) == 2 and v[0] is not None and not k.startswith("_")
    }
    for names, what in _FOREIGN:
        if any(n in parts for n in names):
            raise CheckpointError(f"“{name}” {what}.", _PIXELS_ONLY)
    library, network = next((parts[k] for k in ("unet", "model") if k in parts), ("", ""))
    if network:
        _refuse_network(network, name)
    if library not in ("", "diffusers"):
        raise CheckpointError(
            f"“{name}” needs program code of its own ({library:.60}), which is not run here.",
            _PIXELS_ONLY,
        )


def _refuse_network(network: str, name: str) -> None:
    if network in _NETWORKS:
        return
    what = next((w for k, w in _STRANGERS.items() if k in network), "is none that we know")
    raise CheckpointError(f"“{name}” has a network, {network:.60}, that {what}.", _PIXELS_ONLY)


def _process(home: Path, index: Mapping[str, Any], config: Mapping[str, Any]) -> Process:
    """What the scheduler says, wherever it lies."""
    embedding = str(config.get("time_embedding_type") or "positional")
    for folder in (home / "scheduler", home):
        if (folder / SCHEDULER).is_file():
            said = read_json(_inside(folder, SCHEDULER))
            listed = index.get("scheduler")
            if "_class_name" not in said and isinstance(listed, list) and len(listed) == 2:
                said["_class_name"] = listed[1]
            return process_of(said, embedding)
    return assumed(embedding)


def _info(config: dict[str, Any], index: Mapping[str, Any], process: Process) -> ModelInfo:
    options = options_of(config)
    classes = _classes(options["classes"], index)
    info = ModelInfo(
        process.sde,
        process.output,
        "unet2d",
        options,
        options["size"],
        options["colours"],
        process.value_range,
        classes,
        max(0, count(config, "optimization_step", 0)),
    )
    try:
        info.check()
    except SpecError as error:
        raise CheckpointError(f"The model's description makes no sense: {error}") from error
    return info


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of our `unet2d` from a configuration of UNet2DModel, of any version.

    Raises CheckpointError if it is of another network, or of pictures that we do not make.
    """
    config = dict(config)
    network = str(config.get("_class_name") or "UNet2DModel")
    _refuse_network(network, "This model")
    for old, new in _OLD_FIELDS.items():
        if config.get(old) is not None and config.get(new) is None:
            config[new] = config[old]
    if network != "UNet2DModel" and config.get("block_out_channels") is None:
        raise CheckpointError(
            f"The network is a {network} of a very early version, described in other words.",
            "Look for a newer upload of the same model.",
        )
    if network == "UNetUnconditionalModel":
        config.setdefault("attention_head_dim", 32)  # its default; today it is 8
    options = {
        k: config[k] for k in _FIELDS if k in config and (config[k] is not None or k in _NULLABLE)
    }
    for way in ("down_block_types", "up_block_types"):
        if isinstance(options.get(way), list):
            options[way] = [str(v).removeprefix("UNetRes") for v in options[way]]
    rows = count(config, "num_class_embeds", 0)
    return options | {"size": _size(config), "colours": _colours(config), "classes": rows}


def _size(config: Mapping[str, Any]) -> int:
    size = config.get("sample_size")
    if isinstance(size, list) and len(size) == 2:
        if size[0] != size[1]:
            raise CheckpointError(
                f"The model makes pictures of {size[0]!s:.9} × {size[1]!s:.9} px; only square ones "
                "are made here."
            )
        size = size[0]
    if size is None:
        raise CheckpointError(
            "The model does not say how large its pictures are.",
            f"Write their size in pixels as “sample_size” into its {CONFIG}.",
        )
    return count({"sample_size": size}, "sample_size", 0)


def _colours(config: Mapping[str, Any]) -> int:
    taken, given = count(config, "in_channels", 3), count(config, "out_channels", 3)
    if taken == given and taken in (1, 3):
        return taken
    if taken == given == 4:
        what = "works on four channels: most likely latents of an autoencoder, not pixels"
    elif given == 2 * taken:
        what = "answers with its own variance besides the noise, which is not read here"
    else:
        what = f"takes {taken} channels and gives {given}"
    raise CheckpointError(
        f"The model {what}.", "Pictures here have one channel or three, on both sides."
    )


def _classes(rows: int, index: Mapping[str, Any]) -> tuple[str, ...]:
    if not 0 <= rows <= 100_000:
        raise CheckpointError(f"A model with {rows} classes is none that can be used.")
    names = index.get("id2label")
    known = names if isinstance(names, dict) else {}
    return tuple(str(known.get(str(i), f"class {i}"))[:80] for i in range(rows))


def _reopen(home: Path, name: str) -> Opened:
    """A folder that the studio exported, as it was before."""
    try:
        info = spec.from_dict(ModelInfo, read_json(_inside(home, OURS)).get("model"))
        info.check()
    except SpecError as error:
        raise CheckpointError(f"{OURS} describes its model wrongly: {error}") from error
    return Opened(name, Diffusers.title, info, partial(_read, home / "unet"))


# -- the weights --------------------------------------------------------------------------------


def _read(folder: Path) -> Weights:
    """The network's tensors by our names."""
    file = _weight_file(folder)
    if file.name.endswith(".json") or ".index." in file.name:
        found: Any = tensors.read_sharded(file)
    elif file.suffix == ".safetensors":
        found = tensors.read_safetensors(file)
    else:
        found = tensors.read_pickle(file, mapped=False)
    if not isinstance(found, dict) or not all(torch.is_tensor(v) for v in found.values()):
        raise CheckpointError(f"{file.name} holds no plain table of tensors.")
    notes = [] if file.name == f"{WEIGHTS}.safetensors" else [f"The weights are in {file.name}."]
    given, left = _renamed(found)
    if left or given.keys() != found.keys():
        notes.append("Tensors with the names of early versions were renamed.")
    if any(v.dtype in (torch.float16, torch.bfloat16) for v in given.values()):
        notes.append("The weights were saved in half precision.")
    return Weights(given, left, tuple(notes))


def _weight_file(folder: Path) -> Path:
    """The file of weights, or the index of several: safetensors first, full precision first."""
    for pattern in _patterns():
        # What is not averaged, where a variant says so, comes last.
        for file in sorted(folder.glob(pattern), key=lambda f: ("non_ema" in f.name, f.name)):
            return _inside(folder, file.name)
    if any(folder.glob("*.msgpack")):
        raise CheckpointError(f"“{folder.name}” has weights for Flax only.", _PIXELS_ONLY)
    if any(folder.glob("*.onnx")) or any(folder.glob("openvino*")):
        raise CheckpointError(
            f"“{folder.name}” is in a form made for running only (ONNX, OpenVINO).", _PIXELS_ONLY
        )
    raise CheckpointError(
        f"There are no weights in “{folder.name}” ({WEIGHTS}.safetensors or .bin).",
        "Download the whole model again.",
    )


def _patterns() -> Iterator[str]:
    for suffix in ("safetensors", "bin"):
        yield f"{WEIGHTS}.{suffix}"
        yield f"{WEIGHTS}.{suffix}.index.json"
        yield f"{WEIGHTS}.{suffix}.index.*.json"
        yield f"{WEIGHTS}.[!0-9]*.{suffix}"
    yield "diffusion_model.pt"
    yield "diffusion_model.bin"


def _renamed(found: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors by today's names, and the names of those that stood in the file twice."""
    given, left = {}, []
    ours = bool(found) and all(k.startswith(PREFIX) for k in found)
    for old, tensor in found.items():
        name = old.removeprefix(PREFIX) if ours else _today(old)
        if name != old and not ours and name in found:
            left.append(old)  # early versions kept some layers under two names
            continue
        if tensor.ndim > 2 and ".attentions." in name and ".to_" in name:
            tensor = tensor.flatten(1) if tensor[0, 0].numel() == 1 else tensor
        given[name] = tensor
    return given, tuple(left)


def _today(name: str) -> str:
    if name == "time_proj.W":
        return "time_proj.weight"
    parts = name.split(".")
    parts[0] = _OLD_STEMS.get(parts[0], parts[0])
    if len(parts) > 2:
        parts[-2] = _OLD_LAYERS.get(parts[-2], parts[-2])
    return ".".join(parts)
