"""A model at another size of pictures than it was made for, where its network allows.

Our networks are convolutions and attention over places, which know no size; what limits them is how
often they halve a picture. So the same weights serve another size (`resized`); or a network takes a
trained one in and works at twice its size from the beginning (`grown`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from studio.errors import CheckpointError, SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import nn

    from studio.weights.model import ModelInfo

GROWN = "grown"  # the network's name in the catalog
_REACH = 64  # how far from a size another is looked for


def resized(info: ModelInfo, size: int) -> ModelInfo:
    """The description of the same model for pictures of `size` pixels.

    Raises SpecError, with the nearest size there is, if its network cannot take them.
    """
    if size == info.size:
        return info
    found = _at(info, size)
    if not _takes(found, info):
        near = [
            other
            for away in range(1, _REACH)
            for other in (size - away, size + away)
            if other >= 8 and _takes(_at(info, other), info)
        ]
        raise SpecError(
            f"This model's network cannot take pictures of {size} px.",
            f"Choose {near[0]} px, or the {info.size} px that it was made for."
            if near
            else f"Choose the {info.size} px that it was made for.",
        )
    return found


def grown(info: ModelInfo, size: int, top: int) -> ModelInfo:
    """The description of a model of twice the size around that of `info`, with `top` channels there.

    Raises SpecError if its network cannot grow, or not to this size.
    """
    if info.network != "unet" or not info.options.get("top") or size != 2 * info.size:
        raise SpecError(
            "Only a U-Net with a thin stage on top can grow, and only to twice its size.",
            f"Choose {2 * info.size} px, or leave the network as it is.",
        )
    options = {"size": size, "colours": info.colours, "classes": len(info.classes), "top": top}
    return replace(info, network=GROWN, size=size, options={**options, "inner": info.options})


def fill(net: nn.Module, start: nn.Module) -> None:
    """Give a network the weights of the one it starts from; one that has grown, inside it."""
    inside = type(net) is not type(start)
    (net.inner if inside else net).load_state_dict(start.state_dict())  # type: ignore[operator,union-attr]


def _at(info: ModelInfo, size: int) -> ModelInfo:
    return replace(info, size=size, options=_options(info.network, info.options, size))


def _options(network: str, options: dict[str, Any], size: int) -> dict[str, Any]:
    found = {**options, "size": size}
    if network == "grown":  # of which the inner network sees half
        inner = dict(options.get("inner") or {})
        found["inner"] = {**inner, "size": size // 2}
    return found


def _takes(found: ModelInfo, made: ModelInfo) -> bool:
    """Whether the network can be built so, with the same weights."""
    from studio.networks.catalog import build

    with torch.device("meta"):
        try:
            there = build(found.network, found.options).state_dict()
        except CheckpointError:
            return False
        before = build(made.network, made.options).state_dict()
    return {k: v.shape for k, v in there.items()} == {k: v.shape for k, v in before.items()}
