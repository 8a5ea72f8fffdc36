"""Low-rank adapters as files, and laid on models: a little that was trained beside a network.

What was trained is added to the weights for good when a model is written, and is kept beside it in the
layout of the peft library, so that it can be laid on the model that it was trained from again. See
`networks.lowrank` for what is trained.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import CheckpointError
from studio.paths import atomic
from studio.weights import tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_INSIDE = re.compile(r"(.+)\.parametrizations\.weight\.(original|0\.a|0\.b)")


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network with adapters as that of one without: they are added to the weights."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        inside = _INSIDE.fullmatch(name)
        if inside is None:
            found[name] = value
        elif inside[2] == "original":
            a, b = (state[f"{inside[1]}.parametrizations.weight.0.{k}"] for k in "ab")
            found[f"{inside[1]}.weight"] = value + (b @ a.flatten(1)).view_as(value)
    return found


@dataclass(frozen=True)
class Adapters:
    """Pairs (A, B) by the name of their layer, and what each product is multiplied by."""

    pairs: dict[str, tuple[Tensor, Tensor]]
    scales: dict[str, float]
    start: str = ""  # the model that they were trained on

    def on(self, state: Mapping[str, Tensor], share: float = 1.0) -> dict[str, Tensor]:
        """The state of a network with `share` of these added.

        Raises CheckpointError if they do not fit.
        """
        found = dict(state)
        for layer, (a, b) in self.pairs.items():
            name = f"{layer}.weight"
            weight = found.get(name)
            change = (b.float().flatten(1) @ a.float().flatten(1)) * (share * self.scales[layer])
            if weight is None or weight.numel() != change.numel():
                raise CheckpointError(
                    f"These adapters were made for another network: “{layer:.80}” does not fit.",
                    f"Lay them on “{self.start}”." if self.start else "",
                )
            found[name] = weight.float() + change.view_as(weight)
        return found


def of(state: Mapping[str, Tensor], start: str) -> Adapters:
    """The adapters in the state of a network that has them."""
    pairs = {}
    for name in state:
        inside = _INSIDE.fullmatch(name)
        if inside is not None and inside[2] == "0.a":
            pairs[inside[1]] = state[name], state[f"{name[:-1]}b"]
    return Adapters(pairs, dict.fromkeys(pairs, 1.0), start)


# -- files ----------------------------------------------------------------------------------------


def save(folder: Path, adapters: Adapters) -> Path:
    """Write adapters as the peft library does. Raises SaveError if that fails."""
    state: dict[str, Tensor] = {}
    for layer, (a, b) in adapters.pairs.items():
        # Of a convolution the library has B as one of 1 × 1.
        shape = (*b.shape, *[1] * (a.ndim - 2))
        state[f"{_PREFIX}{layer}.lora_A.weight"] = a
        state[f"{_PREFIX}{layer}.lora_B.weight"] = b.reshape(shape)
    tensors.write_tensors(folder / WEIGHTS, state, {"kind": "adapters"})
    with atomic(folder / CONFIG) as temporary:
        temporary.write_text(json.dumps(_config(adapters), indent=1), encoding="utf-8")
    return folder / WEIGHTS


def _config(adapters: Adapters) -> dict[str, Any]:
    ranks = {layer: a.shape[0] for layer, (a, _) in adapters.pairs.items()}
    most = max(ranks.values(), default=1)
    fewer = {layer: rank for layer, rank in ranks.items() if rank != most}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": adapters.start,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": fewer,
        "alpha_pattern": fewer,
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }


def load(folder: Path) -> Adapters:
    """Adapters in the layout of the peft library. Raises CheckpointError if they are not for us."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        alpha = float(config["lora_alpha"])
        alphas, start = config.get("alpha_pattern") or {}, config.get("base_model_name_or_path")
        if config["peft_type"] != "LORA" or config.get("use_dora") or config.get("use_rslora"):
            raise ValueError("they are adapters of another kind")
        pairs = _pairs(tensors.read_safetensors(folder / WEIGHTS))
        ranks = {layer: a.shape[0] for layer, (a, _) in pairs.items()}
        scales = {layer: float(_named(alphas, layer, alpha)) / r for layer, r in ranks.items()}
        return Adapters(pairs, scales, str(start or ""))
    except FileNotFoundError as error:
        raise CheckpointError(f"There are no adapters in {folder}.") from error
    except (OSError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"The adapters in {folder.name} cannot be read: {error}") from error


def _named(table: Mapping[str, Any], layer: str, other: float) -> Any:
    """What a table says of a layer, by its name or the end of it."""
    keys = [k for k in table if layer == k or layer.endswith(f".{k}")]
    return table[max(keys, key=len)] if keys else other


def _pairs(state: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    pairs = {}
    for name, a in state.items():
        layer = name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        if not name.endswith(".lora_A.weight"):
            continue
        b = state[f"{_PREFIX}{layer}.lora_B.weight"]
        if a.ndim < 2 or b.ndim < 2 or b[0].numel() != a.shape[0]:
            raise ValueError(f"the pair of {layer:.80} does not fit together")
        pairs[layer] = a, b.flatten(1)
    if not pairs:
        raise ValueError("there are none")
    return pairs
