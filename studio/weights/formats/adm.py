"""Files of ADM ("guided diffusion") and of improved DDPM: a plain table of weights, `.pt`.

Everything that shapes show is taken from them. They do not show how many heads its attention has,
how the rows of the heads lie, the schedule, or the size of the picture: those are taken from the
published configuration whose shapes are the same, or from a preset. Two things happen on the way in:
the rows of the heads are put in our order, and the variances that a network with "learned sigma"
predicts after the noise are cut off.

Sources: the code and published flags of Dhariwal and Nichol 2021 and of Nichol and Dhariwal 2021; Choi
et al. 2021 (ILVR) for `ffhq_10m`, which Chung et al. 2023 (DPS) made known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from studio.diffusion.score import Published
from studio.diffusion.sde import TableVPSDE
from studio.errors import CheckpointError, SpecError
from studio.lazy import torch
from studio.weights.formats.base import StateFormat
from studio.weights.model import ModelInfo, Opened, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """What the shapes in a file show."""

    width: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]  # stages
    classes: int
    resample: str = "block"
    modulation: str = "scale_shift"
    colours: int = 3


@dataclass(frozen=True)
class Preset:
    """A published configuration: its shape, and what its file does not say."""

    size: int
    shape: Shape
    heads: int = 0  # of every attention; 0 for heads of `head_width` channels
    head_width: int = 64
    rows: str = "by head"  # q, k, v of the first head, then of the next; or "by kind": all q first
    schedule: str = "linear"
    steps: int = 1000
    counts_to: int = 1000  # what the network is told at the last step, plus one step


def _shape(
    width: int,
    times: tuple[float, ...],
    blocks: int,
    *attention: int,
    classes: int = 0,
    resample: str = "block",
    modulation: str = "scale_shift",
) -> Shape:
    """`times`: the channels of each stage as multiples of `width`."""
    channels = tuple(int(width * k) for k in times)
    return Shape(width, channels, blocks, attention, classes, resample, modulation)


_DEEP = (1, 1, 2, 2, 4, 4)
_UNCONDITIONAL = Preset(256, _shape(256, _DEEP, 2, 3, 4, 5))
_COSINE = "squaredcos_cap_v2"

PRESETS: dict[str, Preset] = {
    "adm/imagenet64": Preset(
        64,
        _shape(192, (1, 2, 3, 4), 3, 1, 2, 3, classes=1000),
        rows="by kind",
        schedule=_COSINE,
    ),
    "adm/imagenet128": Preset(128, _shape(256, (1, 1, 2, 3, 4), 2, 2, 3, 4, classes=1000), heads=4),
    "adm/imagenet256": Preset(256, _shape(256, _DEEP, 2, 3, 4, 5, classes=1000)),
    "adm/imagenet256_uncond": _UNCONDITIONAL,
    "adm/imagenet512": Preset(512, _shape(256, (0.5, *_DEEP), 2, 4, 5, 6, classes=1000)),
    "adm/lsun_bedroom": _UNCONDITIONAL,
    "adm/lsun_cat": _UNCONDITIONAL,
    "adm/lsun_horse": _UNCONDITIONAL,
    "adm/ffhq_10m": Preset(256, _shape(128, _DEEP, 1, 4)),
    "improved/cifar10": Preset(
        32,
        _shape(128, (1, 2, 2, 2), 3, 1, 2, resample="conv"),
        heads=4,
        schedule=_COSINE,
        steps=4000,
    ),
    "improved/imagenet64": Preset(
        64,
        _shape(128, (1, 2, 3, 4), 3, 2, 3, resample="conv"),
        heads=4,
        schedule=_COSINE,
        steps=4000,
    ),
    "improved/imagenet64_cond": Preset(
        64,
        _shape(192, (1, 2, 3, 4), 3, 2, 3, classes=1000, resample="conv"),
        heads=4,
        schedule=_COSINE,
        steps=4000,
        counts_to=4000,
    ),
    "improved/lsun_bedroom": Preset(
        256, _shape(128, _DEEP, 2, 4, resample="conv", modulation="add"), heads=1
    ),
}

_INNER = {
    "in_layers.0": "norm_in",
    "in_layers.2": "conv_in",
    "emb_layers.1": "modulation",
    "out_layers.0": "norm_out",
    "out_layers.3": "conv_out",
    "skip_connection": "shortcut",
    "norm": "norm",
    "qkv": "qkv",
    "proj_out": "out",
    "op": "conv",
    "conv": "conv",
}
_DOWN = {"op.weight": "conv", "in_layers.2.weight": "block"}
_OUTER = {
    "input_blocks.0.0": "stem",
    "time_embed.0": "embedding.hidden",
    "time_embed.2": "embedding.out",
    "label_emb": "label",
    "out.0": "norm",
    "out.2": "head",
}


class AdmFiles(StateFormat):
    title: ClassVar[str] = "Guided diffusion (ADM)"

    def fits(self, tree: Any) -> bool:
        state = _named(tree)
        return {"input_blocks.0.0.weight", "time_embed.0.weight", "out.2.weight"} <= set(
            state
        ) and any(k.startswith("output_blocks.") for k in state)

    def open_tree(self, tree: Any, name: str, preset: str = "") -> Opened:
        if preset and preset not in PRESETS:
            raise SpecError(
                f"There is no preset “{preset}” for ADM.", f"Known: {', '.join(PRESETS)}."
            )
        state = _named(tree)
        shape = shape_of(state, name)
        chosen, notes = (PRESETS[preset], ()) if preset else _recognised(shape, name)
        if re.fullmatch(r"model\d+", name):
            notes += ("A file called “ema_…” beside it would hold the averaged weights.",)
        info = ModelInfo(
            sde=TableVPSDE(schedule=chosen.schedule, steps=chosen.steps),
            output=Published(
                "noise",
                "time",
                scale=float(chosen.counts_to),
                shift=-chosen.counts_to / chosen.steps,
            ),
            network="adm",
            options=_options(shape, chosen),
            size=chosen.size,
            colours=shape.colours,
            classes=tuple(str(k) for k in range(shape.classes)),
        )
        try:
            info.check()
        except SpecError as error:
            raise CheckpointError(f"{name} cannot be used: {error}") from error
        return Opened(name, self.title, info, partial(_read, state, shape, chosen), notes)


def _named(tree: Any) -> dict[str, Tensor]:
    if not isinstance(tree, Mapping):
        return {}
    return {
        name.removeprefix("module."): v
        for name, v in tree.items()
        if isinstance(name, str) and isinstance(v, torch.Tensor)
    }


def shape_of(state: dict[str, Tensor], name: str) -> Shape:
    """What the tensors of a file show. Raises CheckpointError if they are no whole network of ours."""

    def size(key: str, axis: int) -> int:
        if key not in state or state[key].ndim <= axis:
            raise CheckpointError(f"{name} looks like ADM, but lacks parts of its network: {key}.")
        return int(state[key].shape[axis])

    colours, outputs = size("input_blocks.0.0.weight", 1), size("out.2.weight", 0)
    _check_purpose(state, colours, outputs, name)
    per_stage = _per_stage(state)
    count = _count(state, "output_blocks")
    stages, rest = divmod(count, per_stage)
    if rest or count != _count(state, "input_blocks"):
        raise CheckpointError(f"{name} looks like ADM, but its way up does not fit its way down.")
    firsts = [f"input_blocks.{k * per_stage + 1}" for k in range(stages)]
    channels = tuple(size(f"{first}.0.in_layers.2.weight", 0) for first in firsts)
    told = size(f"{firsts[0]}.0.emb_layers.1.weight", 0)
    down = f"input_blocks.{per_stage}.0"
    return Shape(
        width=size("time_embed.0.weight", 1),
        channels=channels,
        blocks=per_stage - 1,
        attention=tuple(k for k, first in enumerate(firsts) if f"{first}.1.qkv.weight" in state),
        classes=size("label_emb.weight", 0) if "label_emb.weight" in state else 0,
        resample=next((kind for mark, kind in _DOWN.items() if f"{down}.{mark}" in state), "pool"),
        modulation="scale_shift" if told == 2 * channels[0] else "add",
        colours=colours,
    )


def _check_purpose(state: dict[str, Tensor], colours: int, outputs: int, name: str) -> None:
    """Raise CheckpointError for a network of the same family that makes no pictures by itself."""
    if any(".transformer_blocks." in k for k in state) or colours == 4:
        raise CheckpointError(
            f"{name} works on the latents of an autoencoder, not on pictures.",
            "The studio reads networks that work on pixels.",
        )
    if colours == 6 and outputs in (3, 6):
        raise CheckpointError(
            f"{name} enlarges small pictures and makes none by itself.",
            "Open the model that it belongs to.",
        )
    if colours not in (1, 3) or outputs not in (colours, 2 * colours):
        raise CheckpointError(f"{name} takes {colours} channels and answers with {outputs}.")


def _count(state: dict[str, Tensor], part: str) -> int:
    """How many blocks of a way there are, by the largest number in their names."""
    found = [re.match(rf"{part}\.(\d{{1,4}})\.", k) for k in state]
    return 1 + max((int(m[1]) for m in found if m), default=-1)


def _per_stage(state: dict[str, Tensor]) -> int:
    """The blocks of each stage on the way up: one more than on the way down."""
    count = _count(state, "output_blocks")
    grows = re.compile(r"output_blocks\.(\d{1,4})\.[12]\.(in_layers|conv)\.")
    found = [int(m[1]) for m in map(grows.match, state) if m]
    if found:
        return min(found) + 1
    # Nothing is learned where the resolution changes, so a block without weights marks a stage.
    names = {int(m[1]) for m in map(re.compile(r"input_blocks\.(\d{1,4})\.").match, state) if m}
    return next((k for k in range(1, count) if k not in names), max(count, 1))


def _recognised(shape: Shape, name: str) -> tuple[Preset, tuple[str, ...]]:
    """The published configuration with these shapes, and a note of what that decides."""
    same = [k for k, p in PRESETS.items() if p.shape == shape]
    if not same:
        raise CheckpointError(
            f"{name} has shapes of no published ADM model, so its heads, schedule and size are open.",
            f"Name the published one that it was trained like as a preset: {', '.join(PRESETS)}.",
        )
    chosen = PRESETS[same[0]]
    schedule = "cosine" if chosen.schedule == _COSINE else chosen.schedule
    note = (
        f"Its shapes are those of {' and '.join(same)}: pictures of {chosen.size} px, a {schedule}"
        f" schedule of {chosen.steps} steps and that model's attention heads are assumed."
    )
    return chosen, (note,)


def _options(shape: Shape, chosen: Preset) -> dict[str, Any]:
    return {
        "size": chosen.size,
        "colours": shape.colours,
        "width": shape.width,
        "channels": list(shape.channels),
        "blocks": shape.blocks,
        "attention": list(shape.attention),
        "heads": chosen.heads,
        "head_width": chosen.head_width,
        "modulation": shape.modulation,
        "resample": shape.resample,
        "classes": shape.classes,
    }


def _read(state: dict[str, Tensor], shape: Shape, chosen: Preset) -> Weights:
    tensors: dict[str, Tensor] = {}
    left = []
    for old, v in state.items():
        new = rename(old, shape.blocks + 1)
        if not new:
            left.append(old)
            continue
        if ".qkv." in new and chosen.rows == "by head":
            v = _by_kind(v, chosen)
        tensors[new] = v[: shape.colours].float() if new.startswith("head.") else v.float()
    learned = state["out.2.weight"].shape[0] > shape.colours
    notes = ("The variances that it predicts beside the noise are not used.",) if learned else ()
    return Weights(tensors, tuple(left), notes)


def _by_kind(v: Tensor, chosen: Preset) -> Tensor:
    """Rows (3 C, ...) that lie head by head, as all queries, then all keys, then all values."""
    heads = chosen.heads or max(1, v.shape[0] // 3 // chosen.head_width)
    if v.shape[0] % (3 * heads):
        return v  # the network will say that the heads do not divide it
    return v.unflatten(0, (heads, 3, -1)).transpose(0, 1).reshape(v.shape)


def rename(old: str, per_stage: int) -> str:
    """Our name for a tensor of the file; empty if we have no place for it."""
    head, _, leaf = old.rpartition(".")
    if head in _OUTER:
        return f"{_OUTER[head]}.{leaf}"
    match = re.fullmatch(r"(input|middle|output)_blocks?\.(\d{1,4})\.(?:(\d)\.)?(.+)", head)
    if not match or match[4] not in _INNER:
        return ""
    where, index, k, inner = match[1], int(match[2]), match[3], _INNER[match[4]]
    if where == "middle":
        return f"middle.{index}.{inner}.{leaf}"
    attends = inner in ("norm", "qkv", "out")
    if where == "input":
        part = "attention" if attends else "block" if index % per_stage else "resize"
        return f"down.{index - 1}.{part}.{inner}.{leaf}"
    part = "attention" if attends else "block" if k == "0" else "resize"
    return f"up.{index}.{part}.{inner}.{leaf}"
