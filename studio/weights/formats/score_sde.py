"""Checkpoints of score_sde_pytorch: one `.pth` file of optimizer, model, averages and step.

The model is a table of `module.all_modules.<i>.…`, numbered in the order of computation. Its averages,
which are the weights to use, are a list without names: one tensor for each that was trained, in the
order of the table. Frozen Fourier frequencies are in the table and not in the list.

Shapes and names show the whole network but for its filter (where no convolution goes with it), its value
range, its norms' groups and its SDE. Those come from a preset, named as the published configuration.

Source: yang-song/score_sde_pytorch, its `configs` and `models`; Song et al. 2021, appendix H.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from studio import spec
from studio.diffusion.score import Published
from studio.diffusion.sde import SDE, VESDE, VPSDE, SubVPSDE, TableVPSDE
from studio.errors import CheckpointError, SpecError
from studio.lazy import torch
from studio.weights.formats.base import StateFormat
from studio.weights.model import ModelInfo, Opened, Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from studio.networks.ncsnpp import NCSNpp, NCSNppOptions

    Layer = dict[str, Tensor]

_SIGMA = Published("minus_noise", "sigma")
_TIME = Published("noise", "time", scale=999.0)
# Trained at a thousand levels: step i, counted from 0, has the noise that lies at t = (i + 1) / 1000.
_STEP = Published("noise", "time", scale=1000.0, shift=-1.0)


@dataclass(frozen=True)
class Configuration:
    """A published configuration: what a file shows of it, and below that what no file can show."""

    block: str = "biggan"
    embedding: str = "fourier"
    progressive: str = "none"
    progressive_input: str = "residual"
    fir: bool = True
    sde: SDE = VESDE()
    output: Published = _SIGMA
    size: int = 32

    @property
    def network(self) -> dict[str, Any]:
        """The options of the network that no file shows."""
        ddpm = self.block == "ddpm"
        return {
            "groups": 32 if ddpm else 0,
            "skip_rescale": not ddpm,
            "centered": not isinstance(self.sde, VESDE),
        }


_VE = Configuration()
_VE_LARGE = replace(_VE, progressive="output_skip", progressive_input="input_skip", size=256)
_VE_LEVELS = replace(_VE, embedding="positional", output=Published("minus_noise", "level"))
_VP = replace(_VE, embedding="positional", sde=VPSDE(), output=_TIME)
_VP_PP = replace(_VP, progressive_input="none", fir=False)
_VP_DDPM = replace(_VP_PP, block="ddpm")
_DISCRETE = {"sde": TableVPSDE(), "output": _STEP}
_SUBVP = SubVPSDE()

#: By the names of the configuration files.
PRESETS: dict[str, Configuration] = {
    "ve/cifar10_ncsnpp_continuous": _VE,
    "ve/cifar10_ncsnpp_deep_continuous": _VE,
    "ve/cifar10_ncsnpp": _VE_LEVELS,
    "ve/cifar10_ddpm": replace(_VP_DDPM, sde=VESDE(), output=_VE_LEVELS.output),
    "ve/celeba_ncsnpp": replace(_VE_LEVELS, sde=VESDE(sigma_max=90.0), size=64),
    "ve/bedroom_ncsnpp_continuous": replace(_VE_LARGE, sde=VESDE(sigma_max=378.0)),
    "ve/church_ncsnpp_continuous": replace(_VE_LARGE, sde=VESDE(sigma_max=380.0)),
    "ve/celebahq_256_ncsnpp_continuous": replace(_VE_LARGE, sde=VESDE(sigma_max=348.0)),
    "ve/ffhq_256_ncsnpp_continuous": replace(_VE_LARGE, sde=VESDE(sigma_max=348.0)),
    "ve/celebahq_ncsnpp_continuous": replace(_VE_LARGE, sde=VESDE(sigma_max=1348.0), size=1024),
    "ve/ffhq_ncsnpp_continuous": replace(_VE_LARGE, sde=VESDE(sigma_max=1348.0), size=1024),
    "vp/cifar10_ncsnpp": replace(_VP, **_DISCRETE),
    "vp/cifar10_ncsnpp_continuous": _VP,
    "vp/cifar10_ncsnpp_deep_continuous": _VP,
    "vp/cifar10_ddpmpp": replace(_VP_PP, **_DISCRETE),
    "vp/cifar10_ddpmpp_continuous": _VP_PP,
    "vp/cifar10_ddpmpp_deep_continuous": _VP_PP,
    "vp/ddpm/cifar10": replace(_VP_DDPM, **_DISCRETE),
    "vp/ddpm/cifar10_continuous": _VP_DDPM,
    "vp/ddpm/cifar10_unconditional": replace(_VP_DDPM, **_DISCRETE),
    "vp/ddpm/celebahq": replace(_VP_DDPM, **_DISCRETE, size=256),
    "vp/ddpm/bedroom": replace(_VP_DDPM, **_DISCRETE, size=256),
    "vp/ddpm/church": replace(_VP_DDPM, **_DISCRETE, size=256),
    "subvp/cifar10_ncsnpp_continuous": replace(_VP, sde=_SUBVP),
    "subvp/cifar10_ncsnpp_deep_continuous": replace(_VP, sde=_SUBVP),
    "subvp/cifar10_ddpmpp_continuous": replace(_VP_PP, sde=_SUBVP),
    "subvp/cifar10_ddpmpp_deep_continuous": replace(_VP_PP, sde=_SUBVP),
    "subvp/cifar10_ddpm_continuous": replace(_VP_DDPM, sde=_SUBVP),
}


class ScoreSde(StateFormat):
    title: ClassVar[str] = "score_sde"

    def fits(self, tree: Any) -> bool:
        return any(_KEY.match(k) for k in _model_of(tree))

    def open_tree(self, tree: Any, name: str, preset: str = "") -> Opened:
        if preset and preset not in PRESETS:
            near = difflib.get_close_matches(preset, PRESETS, n=1, cutoff=0.0)
            raise SpecError(
                f"There is no preset “{preset}” for files of score_sde.",
                f"Did you mean “{near[0]}”?" if near else "",
            )
        model = _model_of(tree)
        _check_plain(name, model.values())
        layers = _numbered(name, model)
        net = _fitting(name, layers)
        chosen, notes = _configuration(name, net.options, layers, preset, _sigmas(model))
        info, more = _info(name, net.options, chosen, tree)
        averages = _averages(name, tree, model)
        weights = _numbered(name, model | averages) if averages else layers
        used = "its averages were used" if averages else "it has no averages"
        read = partial(_read, net, weights, used)
        return Opened(name, self.title, info, read, (*notes, *more))


# -- what the file holds --------------------------------------------------------------------------

_KEY = re.compile(r"all_modules\.(\d{1,5})\.(.+)", re.ASCII)


def _model_of(tree: Any) -> dict[str, Tensor]:
    """The table of the network's tensors, without the `module.` of a parallel run; empty if none."""
    if isinstance(tree, Mapping) and isinstance(tree.get("model"), Mapping):
        tree = tree["model"]
    if not isinstance(tree, Mapping):
        return {}
    return {
        re.sub(r"^(module\.)+", "", k): v
        for k, v in tree.items()
        if isinstance(k, str) and isinstance(v, torch.Tensor)
    }


def _numbered(name: str, model: dict[str, Tensor]) -> dict[int, Layer]:
    """The tensors of each numbered layer, in the file's order."""
    layers: dict[int, Layer] = {}
    for key, tensor in model.items():
        if key == "sigmas":  # a table of constants, not a weight
            continue
        if (found := _KEY.fullmatch(key)) is None:
            raise CheckpointError(f"{name} holds a tensor that belongs to no layer: {key}.")
        layers.setdefault(int(found[1]), {})[found[2]] = tensor
    return layers


def _check_plain(name: str, tensors: Any) -> None:
    for t in tensors:
        plain = t.layout == torch.strided and not t.is_quantized and t.is_floating_point()
        # A view may claim more numbers than the file holds, and copies of it would then need them.
        if not plain or t.numel() * t.element_size() > t.untyped_storage().nbytes():
            raise CheckpointError(f"{name} holds a tensor that is no plain table of weights.")


def _sigmas(model: dict[str, Tensor]) -> tuple[float, float, int] | None:
    """The smallest and largest of the noise levels in the file and how many there are, if it does."""
    table = model.get("sigmas")
    if table is None or table.ndim != 1 or not 2 <= len(table) <= 10**6:
        return None
    low, high = sorted((float(f"{float(table[0]):.6g}"), float(f"{float(table[-1]):.6g}")))
    return (low, high, len(table)) if 1e-5 <= low <= 1 <= high <= 5000 else None


def _averages(name: str, tree: Any, model: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The averaged tensors by the names of those that they are averages of, or None without any.

    Raises CheckpointError unless the list and the trained tensors agree one by one.
    """
    ema = tree.get("ema") if isinstance(tree, Mapping) else None
    if ema is None or "model" not in tree:
        return None
    listed = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(listed, list | tuple) or not all(isinstance(t, torch.Tensor) for t in listed):
        raise CheckpointError(f"{name} holds averaged weights in a form that is not known.")
    _check_plain(name, listed)
    trained = [k for k in model if k != "sigmas" and not _is_frozen(k, model[k])]
    order = [int(found[1]) for k in trained if (found := _KEY.match(k))]
    agree = [tuple(t.shape) for t in listed] == [tuple(model[k].shape) for k in trained]
    if not agree or order != sorted(order):
        raise CheckpointError(
            f"The averaged weights of {name} do not match its network: {len(listed)} tensors "
            f"without names, for {len(trained)} that were trained.",
            "The file was put together from different runs; get it again.",
        )
    return dict(zip(trained, listed))


def _is_frozen(key: str, tensor: Tensor) -> bool:
    """Whether it is the Fourier frequencies, the only tensor that is not trained."""
    return key == "all_modules.0.W" and tensor.ndim == 1


# -- from names and shapes to options -------------------------------------------------------------


def _kind(layer: Layer) -> str:
    """What a numbered layer is. Raises CheckpointError if it is nothing of this family."""
    if "Conv_0.weight" in layer and "GroupNorm_0.weight" in layer:
        return "block"
    if "NIN_3.W" in layer:
        return "attention"
    if layer.keys() == {"W"}:
        return "fourier"
    found = next((k for k in (*_COMBINE, *_SAMPLER, "weight") if f"{k}.weight" in layer), "weight")
    tensor = layer.get("weight", layer.get(f"{found}.weight"))
    if tensor is None or not 1 <= tensor.ndim <= 4:
        raise CheckpointError(f"A layer of {', '.join(layer)} is of no network of score_sde.")
    if "weight" in layer:
        return {1: "norm", 2: "dense", 4: "conv"}.get(tensor.ndim, "unknown")
    return "combine" if tensor.shape[-1] == 1 else "sampler"


def _fitting(name: str, layers: dict[int, Layer]) -> NCSNpp:
    """The one network that has these layers, without weights; its size is the least it could be."""
    example = ""
    for options in _plausible(layers):
        try:
            net = _bare(options)
        except SpecError as error:
            example = example or f", for example because of this: {error.message}"
            continue
        wrong = _differences(net, layers)
        if not wrong:
            return net
        example = example or f", for example because of {wrong[0]}"
    raise CheckpointError(
        f"{name} is no NCSN++, DDPM++ or DDPM that the studio knows{example}.",
        "Other networks of score_sde, such as NCSNv2, are formats of their own.",
    )


def _plausible(layers: dict[int, Layer]) -> Iterator[NCSNppOptions]:
    """The options that the layers may have come from, found by counting them."""
    kinds = {i: _kind(layers[i]) for i in sorted(layers)}
    stem = next((layers[i]["weight"] for i, kind in kinds.items() if kind == "conv"), None)
    blocks = [i for i, kind in kinds.items() if kind == "block"]
    if stem is None or not all(stem.shape) or any(_odd(layers[i]) for i in blocks):
        return
    width, colours = stem.shape[:2]
    facts = _facts(layers, kinds, colours) | {"width": width, "colours": colours}
    changing = {i for i in blocks if _changes_resolution(layers[i])}
    plain = [i for i in blocks if i not in changing]
    for count in range(1, 65):
        stages, rest = divmod(len(plain) - 2, 2 * count + 1)
        if rest or not 1 <= stages <= 11:
            continue
        if facts["block"] == "biggan" and 2 * (stages - 1) != len(changing):
            continue
        firsts = [plain[k * count] for k in range(stages)]
        yield from _variants(
            facts,
            size=4 * 2 ** (stages - 1),
            multipliers=tuple(layers[i]["Conv_0.weight"].shape[0] // width for i in firsts),
            blocks=count,
            attention=tuple(k for k, i in enumerate(firsts) if kinds.get(i + 1) == "attention"),
        )


def _variants(facts: dict[str, Any], **counted: Any) -> Iterator[NCSNppOptions]:
    """The options with these facts, and each way of what the facts leave open."""
    from studio.networks.ncsnpp import NCSNppOptions

    for combine in ("sum", "cat") if facts["progressive_input"] == "input_skip" else ("sum",):
        for conv in (True, False) if facts["block"] == "ddpm" else (True,):
            try:
                yield NCSNppOptions(
                    **facts, **counted, progressive_combine=combine, resample_conv=conv
                )
            except SpecError:
                continue  # counted wrongly: another way of counting may be right


def _odd(layer: Layer) -> bool:
    return layer["Conv_0.weight"].ndim != 4


def _changes_resolution(layer: Layer) -> bool:
    """Whether a block halves or doubles: its shortcut has a convolution that it needs for nothing."""
    outputs, inputs = layer["Conv_0.weight"].shape[:2]
    return outputs == inputs and "Conv_2.weight" in layer


def _facts(layers: dict[int, Layer], kinds: dict[int, str], colours: int) -> dict[str, Any]:
    """The options that single layers betray."""
    samplers = [layers[i] for i, kind in kinds.items() if kind == "sampler"]
    norms = [i for i, kind in kinds.items() if kind == "norm"]
    heads = [layers[i + 1]["weight"] for i in norms if kinds.get(i + 1) == "conv"]
    progressive = "none"
    if len(heads) > 1:
        progressive = "output_skip" if heads[0].shape[0] == colours else "residual"
    progressive_input = "none"
    if "combine" in kinds.values():
        progressive_input = "input_skip"
    elif any(t.shape[1] == colours for layer in samplers for t in layer.values() if t.ndim == 4):
        progressive_input = "residual"
    return {
        "block": "biggan" if any("Conv_2.weight" in v for v in layers.values()) else "ddpm",
        "embedding": "fourier" if "fourier" in kinds.values() else "positional",
        "conditional": any("Dense_0.weight" in v for v in layers.values()),
        "progressive": progressive,
        "progressive_input": progressive_input,
    }


def _differences(net: NCSNpp, layers: dict[int, Layer]) -> list[str]:
    """The tensors of the network that the file has not so, and those of the file without a place."""
    shapes = {
        i: {k: torch.empty(t.shape, device="meta") for k, t in layer.items()}
        for i, layer in layers.items()
    }
    found, left = _named(net, shapes)
    wanted = {k: tuple(v.shape) for k, v in net.state_dict().items()}
    have = {k: tuple(v.shape) for k, v in found.items()}
    return [*left, *(k for k in wanted | have if wanted.get(k) != have.get(k))]


def _bare(options: NCSNppOptions) -> NCSNpp:
    """The network without memory for its weights. Raises SpecError if it cannot be built."""
    from studio.networks.ncsnpp import NCSNpp

    with torch.device("meta"):
        return NCSNpp(options)


# -- from the file's names to ours ----------------------------------------------------------------

_BLOCK = {
    "GroupNorm_0": "norm_in",
    "Conv_0": "conv_in",
    "Dense_0": "shift",
    "GroupNorm_1": "norm_out",
    "Conv_1": "conv_out",
    "Conv_2": "skip",
    "NIN_0": "skip",
}
_ATTENTION = {"GroupNorm_0": "norm", "NIN_0": "qkv", "NIN_1": "qkv", "NIN_2": "qkv", "NIN_3": "out"}
_SAMPLER = {"Conv_0": "conv", "Conv2d_0": "conv"}
_COMBINE = {"Conv": "", "Conv_0": ""}
_LEAVES = {"weight": "weight", "bias": "bias", "W": "weight", "b": "bias"}


def _names(unit: nn.Module, layer: Layer) -> dict[str, str]:
    """Parts of a numbered layer, by the names of the parts of our layer that they belong to."""
    from studio.networks import ncsnpp

    if isinstance(unit, ncsnpp.Block):
        return _BLOCK
    if isinstance(unit, ncsnpp.Attention):
        return _ATTENTION
    if isinstance(unit, ncsnpp.Down | ncsnpp.Up):
        return _SAMPLER
    return {"": ""} if "weight" in layer else _COMBINE


def _named(net: NCSNpp, layers: dict[int, Layer]) -> tuple[dict[str, Tensor], list[str]]:
    """The file's tensors by our names, and the names of those that have no place."""
    out: dict[str, Tensor] = {}
    left = {f"all_modules.{i}.{k}" for i, layer in layers.items() for k in layer}
    for i, (name, unit) in enumerate(net.units()):
        layer = layers.get(i, {})
        if net.fourier is not None and unit is net.fourier:
            if "W" in layer:
                out[f"{name}.frequencies"] = layer["W"]
                left.discard(f"all_modules.{i}.W")
            continue
        parts: dict[str, list[Tensor]] = {}
        for theirs, ours in _names(unit, layer).items():
            for leaf, kind in _LEAVES.items():
                if (tensor := layer.get(key := f"{theirs}.{leaf}".strip("."))) is not None:
                    left.discard(f"all_modules.{i}.{key}")
                    own = ".".join(n for n in (name, ours, kind) if n)
                    parts.setdefault(own, []).append(_turned(tensor, leaf))
        for own, tensors in parts.items():
            same = len({t.shape[1:] for t in tensors}) == 1
            out[own] = torch.cat(tensors) if same and len(tensors) > 1 else tensors[0]
    return out, sorted(left)


def _turned(tensor: Tensor, leaf: str) -> Tensor:
    """A tensor as our layers hold it: their 1×1 networks keep (inputs, outputs), ours a kernel."""
    return tensor.t().contiguous()[:, :, None, None] if leaf == "W" and tensor.ndim == 2 else tensor


def _read(net: NCSNpp, layers: dict[int, Layer], used: str) -> Weights:
    tensors, left = _named(net, layers)
    assert not left, left  # `_fitting` has seen to it
    count = sum(len(layer) for layer in layers.values())
    return Weights(
        {k: v.detach().float().contiguous() for k, v in tensors.items()},
        notes=(f"All {count} tensors of the network matched; {used}.",),
    )


# -- what the file does not show ------------------------------------------------------------------


def _configuration(
    name: str,
    shown: NCSNppOptions,
    layers: dict[int, Layer],
    preset: str,
    sigmas: tuple[float, float, int] | None,
) -> tuple[Configuration, list[str]]:
    """The configuration of a file and how it was found. Raises CheckpointError if it is not clear."""
    visible = {f.name: getattr(shown, f.name) for f in fields(Configuration)[:4]}
    if (fir := _fir_shown(layers)) is not None:
        visible["fir"] = fir
    if preset:
        chosen = PRESETS[preset]
        odd = [k for k, v in visible.items() if getattr(chosen, k) != v]
        if odd:
            said = "; ".join(
                f"{_WORDS[k]} {_say(visible[k])}, not {_say(getattr(chosen, k))}" for k in odd
            )
            raise CheckpointError(
                f"{name} is not of the preset {preset}: {said}.", _suggestion(visible)
            )
        return chosen, _conflicts(chosen, sigmas)
    candidates = {
        k: _with_levels(c, sigmas)
        for k, c in PRESETS.items()
        if all(getattr(c, field) == v for field, v in visible.items())
    }
    if len({replace(c, size=0) for c in candidates.values()}) != 1:
        raise CheckpointError(
            f"{name} does not say which SDE it was trained with.", _suggestion(visible)
        )
    names, chosen = list(candidates), next(iter(candidates.values()))
    chosen = replace(chosen, size=0)  # not settled by it
    return chosen, [f"SDE and value range were taken from the preset {names[0]}, the likeliest."]


_WORDS = {
    "block": "its blocks are of the kind",
    "embedding": "its noise embedding is",
    "progressive": "its progressive output is",
    "progressive_input": "its progressive input is",
    "fir": "its filter is",
}


def _say(value: str | bool) -> str:
    return value if isinstance(value, str) else ("on" if value else "off")


def _suggestion(visible: dict[str, Any]) -> str:
    names = [
        k for k, c in PRESETS.items() if all(getattr(c, field) == v for field, v in visible.items())
    ]
    if not names:
        return "No published configuration has such a network."
    return f"Choose the preset (--preset) that it was trained with: {', '.join(names)}."


def _fir_shown(layers: dict[int, Layer]) -> bool | None:
    """Whether resampling convolutions show a filter (they are named after it); None without any."""
    kinds = [_kind(layer) == "sampler" and "Conv2d_0.weight" in layer for layer in layers.values()]
    if any(kinds):
        return True
    return False if any(_kind(layer) == "sampler" for layer in layers.values()) else None


def _with_levels(c: Configuration, sigmas: tuple[float, float, int] | None) -> Configuration:
    """A VE configuration with the noise levels that the file lists."""
    if not isinstance(c.sde, VESDE) or sigmas is None:
        return c
    low, high, count = sigmas
    output = replace(c.output, levels=count) if c.output.label == "level" else c.output
    return replace(c, sde=VESDE(low, high), output=output)


def _conflicts(c: Configuration, sigmas: tuple[float, float, int] | None) -> list[str]:
    if sigmas is None or not isinstance(c.sde, VESDE):
        return []
    low, high, count = sigmas
    same = math.isclose(low, c.sde.sigma_min, rel_tol=1e-3)
    same = same and math.isclose(high, c.sde.sigma_max, rel_tol=1e-3)
    if same and (c.output.label != "level" or count == c.output.levels):
        return []
    return [
        f"The file lists {count} noise levels from {low:g} to {high:g}; the preset's were used, "
        f"{c.sde.sigma_min:g} to {c.sde.sigma_max:g}."
    ]


def _info(
    name: str, shown: NCSNppOptions, chosen: Configuration, tree: Any
) -> tuple[ModelInfo, list[str]]:
    """The description of the model, and what in it was assumed."""
    from studio.networks.resample import TAPS

    seen = max(shown.attention, default=None)
    likely = shown.size if seen is None else 16 * 2**seen  # attention is at 16 px in all of them
    notes = []
    if not chosen.size:
        notes.append(f"Pictures of {likely} px were assumed, from where its attention is.")
    elif seen is not None and likely != chosen.size:
        notes.append(
            f"Its attention is where pictures of {likely} px would have it; "
            f"the preset's are {chosen.size} px."
        )
    step = tree.get("step", 0) if isinstance(tree, Mapping) else 0
    try:
        options = replace(
            shown, size=chosen.size or likely, fir=TAPS if chosen.fir else (), **chosen.network
        )
        if options.groups:  # `_fitting` has seen the others
            _bare(options)
    except SpecError as error:
        raise CheckpointError(f"{name} does not fit its preset: {error.message}") from error
    info = ModelInfo(
        sde=chosen.sde,
        output=chosen.output,
        network="ncsnpp",
        options=spec.to_dict(options),
        size=options.size,
        colours=options.colours,
        value_range=(-1.0, 1.0) if options.centered else (0.0, 1.0),
        steps=step if isinstance(step, int) and 0 <= step < 2**53 else 0,
    )
    info.check()
    return info, notes
