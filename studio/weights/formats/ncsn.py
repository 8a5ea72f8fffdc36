"""Files of NCSN and NCSNv2, as their makers' code and score_sde save them.

Three layouts: a list of weights, optimizer, epoch, step and, with an average, a table of averaged
weights by name; a table with "model" and, under "ema", a list of averaged weights without names, in
the order of the model's; and the weights alone. Names may begin with "module.".

Files of NCSNv2 hold their noise levels. Those of NCSN do not, nor do those of score_sde: where more
than one published configuration fits, a preset has to say which it is. The size of the picture is in
no file; it changes no number, as these networks are convolutions throughout.

Sources: the code and configurations of Song and Ermon 2019 and 2020, and of Song et al. 2021.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from studio.diffusion.score import Published
from studio.diffusion.sde import VESDE
from studio.errors import CheckpointError, SpecError
from studio.lazy import torch
from studio.weights.formats.base import StateFormat
from studio.weights.model import ModelInfo, Opened, Weights

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Preset:
    """What a published configuration knows and its files do not say."""

    depth: int  # stages of the network
    conditional: bool  # whether the network is told the level
    size: int
    levels: int
    sigma_max: float
    sigma_min: float = 0.01
    colours: int = 3


#: 1 to 0.01 in ten levels, or from the largest distance of two pictures by technique 1 of NCSNv2.
PRESETS: dict[str, Preset] = {
    "ncsn/cifar10": Preset(4, True, 32, 10, 1),
    "ncsn/celeba": Preset(4, True, 32, 10, 1),
    "ncsn/mnist": Preset(4, True, 28, 10, 1, colours=1),
    "ncsn/cifar10_124": Preset(4, True, 32, 232, 50),
    "ncsn/celeba_124": Preset(4, True, 64, 500, 90),
    "ncsnv2/cifar10": Preset(4, False, 32, 232, 50),
    "ncsnv2/celeba": Preset(4, False, 64, 500, 90),
    "ncsnv2/church64": Preset(5, False, 64, 788, 140),
    "ncsnv2/bedroom128": Preset(5, False, 128, 1086, 190),
    "ncsnv2/tower128": Preset(5, False, 128, 1086, 190),
    "ncsnv2/ffhq256": Preset(6, False, 256, 2311, 348),
}

#: The names of stages and of RefineNet blocks in a file, in our order; by how many there are.
_DOWN = {4: ["1", "2", "3", "4"], 5: ["1", "2", "3", "4", "5"], 6: ["1", "2", "3", "31", "4", "5"]}
_UP = {4: ["1", "2", "3", "4"], 5: ["1", "2", "3", "4", "5"], 6: ["1", "2", "31", "3", "4", "5"]}
_SIZES = {4: 32, 5: 128, 6: 256}
_PARTS = {
    "begin_conv": "stem",
    "end_conv": "head",
    "normalizer": "norm",
    "normalize1": "norm_in",
    "normalize2": "norm_out",
    "conv1": "conv_in",
    "conv2": "conv_out",
    "adapt_convs": "adapt",
    "output_convs": "out",
    "msf": "fuse",
    "crp": "pool",
}


class Ncsn(StateFormat):
    title: ClassVar[str] = "NCSN"

    def fits(self, tree: Any) -> bool:
        return {"begin_conv.weight", "end_conv.weight", "refine1.crp.convs.0.weight"} <= set(
            _model(tree)
        )

    def open_tree(self, tree: Any, name: str, preset: str = "") -> Opened:
        state = _model(tree)
        options = _options(state, name)
        known = _known(options, state, name, preset)
        options["size"] = known.size
        levels = known.levels
        output = (
            Published("score", "level", levels=levels)
            if options["levels"]
            else Published("minus_noise", "sigma", levels=max(levels, 2))
        )
        try:
            info = ModelInfo(
                sde=VESDE(known.sigma_min, known.sigma_max),
                output=output,
                network="refinenet",
                options=options,
                size=known.size,
                colours=options["colours"],
                value_range=(0.0, 1.0),
                steps=_steps(tree),
            )
            info.check()
        except SpecError as error:
            raise CheckpointError(f"{name} cannot be used: {error}") from error
        notes = _notes(state, known, preset)
        return Opened(name, self.title, info, partial(_read, tree, name, options["depth"]), notes)


def _model(tree: Any) -> dict[str, Tensor]:
    """The tensors of the model in one of the layouts, by their names without "module."."""
    if isinstance(tree, list | tuple) and tree:
        tree = tree[0]
    elif isinstance(tree, Mapping) and isinstance(tree.get("model"), Mapping):
        tree = tree["model"]
    return _named(tree)


def _named(table: Any) -> dict[str, Tensor]:
    if not isinstance(table, Mapping):
        return {}
    return {
        name.removeprefix("module."): v
        for name, v in table.items()
        if isinstance(name, str) and isinstance(v, torch.Tensor)
    }


def _steps(tree: Any) -> int:
    found = tree[3] if isinstance(tree, list | tuple) and len(tree) > 3 else 0
    if isinstance(tree, Mapping):
        found = tree.get("step", 0)
    return found if isinstance(found, int) and found >= 0 else 0


def _options(state: dict[str, Tensor], name: str) -> dict[str, Any]:
    """The network's options, all but the size, from the shapes."""
    stem = state["begin_conv.weight"]
    depth = sum(f"res{k}.0.conv1.weight" in state for k in ("1", "2", "3", "31", "4", "5"))
    table = state.get("normalizer.embed.weight")
    if depth not in _DOWN or stem.ndim != 4 or (table is not None and table.ndim != 2):
        raise CheckpointError(f"{name} looks like NCSN, but lacks parts of its network.")
    return {
        "colours": int(stem.shape[1]),
        "width": int(stem.shape[0]),
        "depth": depth,
        "levels": 0 if table is None else int(table.shape[0]),
    }


def _known(options: dict[str, Any], state: dict[str, Tensor], name: str, preset: str) -> Preset:
    """Everything that is to be known beside the shapes: from the file first, then from a preset."""
    if preset and preset not in PRESETS:
        raise SpecError(f"There is no preset “{preset}” for NCSN.", f"Known: {', '.join(PRESETS)}.")
    depth, colours, rows = options["depth"], options["colours"], options["levels"]
    near = [
        p
        for p in PRESETS.values()
        if (p.depth, p.colours, p.conditional) == (depth, colours, rows > 0)
        and rows in (0, p.levels)
    ]
    if preset:
        near = [PRESETS[preset]]
    if "sigmas" in state:
        levels, high, low = _range(state["sigmas"], name)
        if not preset:
            near = [p for p in near if math.isclose(p.sigma_max, high, rel_tol=1e-3)]
        size = near[0].size if near else _SIZES[depth]
        return Preset(depth, rows > 0, size, rows or levels, high, low, colours)
    if len({(p.sigma_max, p.sigma_min) for p in near}) != 1:
        raise CheckpointError(
            f"{name} does not say for which noise levels it is made.",
            f"Name its configuration as a preset: {', '.join(PRESETS)}.",
        )
    return replace(near[0], levels=rows or near[0].levels)


def _range(sigmas: Tensor, name: str) -> tuple[int, float, float]:
    """(how many, largest, smallest) of the noise levels in a file, which fall."""
    values = sigmas.double().flatten()
    if len(values) < 2 or not bool((torch.isfinite(values) & (values > 0)).all()):
        raise CheckpointError(f"{name} holds noise levels that are none.")
    if not bool((values[1:] < values[:-1]).all()):
        raise CheckpointError(f"{name} holds noise levels that do not fall.")
    # Single precision, so 0.01 comes as 0.00999999977648.
    return len(values), float(f"{float(values[0]):.6g}"), float(f"{float(values[-1]):.6g}")


def _notes(state: dict[str, Tensor], known: Preset, preset: str) -> tuple[str, ...]:
    sigmas = state.get("sigmas")
    notes = []
    if sigmas is not None:
        steps = sigmas.double().log().diff()
        if not torch.allclose(steps, steps.mean(), rtol=1e-2):
            notes.append(
                "Its noise levels are not evenly spaced in ln σ; the studio spaces them evenly."
            )
    elif not preset:
        notes.append(
            f"Its noise levels, {known.sigma_max:g} to {known.sigma_min:g}, are those of the published"
            " model of its shape."
        )
    if not preset:
        notes.append(f"Its files do not tell the size of pictures; {known.size} px is assumed.")
    return tuple(notes)


def _read(tree: Any, name: str, depth: int) -> Weights:
    state = _model(tree)
    averaged = _average(tree, state, name)
    notes = ("The averaged weights are used.",) if averaged else ()
    state |= averaged
    tensors: dict[str, Tensor] = {}
    left = []
    for old, v in state.items():
        new = rename(old, depth)
        if new:
            tensors[new] = v.float()
        elif old != "sigmas":
            left.append(old)
    return Weights(tensors, tuple(left), notes)


def _average(tree: Any, state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The averaged weights of a file by name; empty if it has none."""
    found: dict[str, Tensor] = {}
    if isinstance(tree, list | tuple) and len(tree) > 4:
        found = _named(tree[4])
    elif isinstance(tree, Mapping) and isinstance(tree.get("ema"), Mapping):
        shadow = tree["ema"].get("shadow_params")
        # Without names, in the order of the model's weights, which `sigmas` does not belong to.
        trained = [k for k in state if k != "sigmas"]
        if not isinstance(shadow, list | tuple) or len(shadow) != len(trained):
            raise CheckpointError(f"{name} holds an average of other weights than its own.")
        found = dict(zip(trained, shadow))
    for k, v in found.items():
        if k not in state or not isinstance(v, torch.Tensor) or v.shape != state[k].shape:
            raise CheckpointError(f"{name} holds an average of other weights than its own.")
    return found


def rename(name: str, depth: int) -> str:
    """Our name for a tensor of the file; empty if we have no place for it."""
    first, *rest = name.split(".")
    if match := re.fullmatch(r"(res|refine)(\d+)", first):
        where, order = ("down", _DOWN) if match[1] == "res" else ("refine", _UP)
        if match[2] not in order[depth]:
            return ""
        path = [where, str(order[depth].index(match[2]))]
    elif first in ("begin_conv", "normalizer", "end_conv"):
        path = [_PARTS[first]]
    else:
        return ""
    for part in rest:
        if unit := re.fullmatch(r"([123])_([12])_(conv|norm)", part):
            path += [f"{unit[3]}s", str(2 * int(unit[1]) + int(unit[2]) - 3)]
        else:
            path.append(_PARTS.get(part, part))
    # A convolution before a mean of four pixels is wrapped, once or twice; a table of norms once.
    new = re.sub(r"(conv_out|shortcut)\.conv(\.1)?\.", r"\1.", ".".join(path))
    return re.sub(r"embed\.weight$", "table", new)
