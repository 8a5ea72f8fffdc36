"""A model between file and Score: what it says of itself, its tensors, and the network they fill.

Every format ends here. `Opened` is a model that was looked at, and not read yet; a format gives it
without torch wherever its description allows, so a shelf of models lists at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio import spec
from studio.diffusion.score import Output, Preconditioned, Score, network_score
from studio.diffusion.sde import SDE, VPSDE
from studio.errors import CheckpointError, SpecError
from studio.lazy import torch
from studio.spec import option

if TYPE_CHECKING:
    from torch import Tensor, nn

    from studio.diffusion.score import Network

#: How the network computes. Weights stay in float32; norms and sums do, too.
DTYPES = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class ModelInfo:
    """What a weight file says of itself."""

    sde: SDE = option(VPSDE)
    output: Output = option(Preconditioned)
    network: str = "unet"
    options: dict[str, Any] = option(dict)
    size: int = 32
    colours: int = 3
    value_range: tuple[float, float] = (-1.0, 1.0)
    classes: tuple[str, ...] = ()
    steps: int = 0  # training steps behind these weights
    preset: str = ""  # the sampler preset that suits it best; empty for the studio's default

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.colours, self.size, self.size

    def check(self) -> None:
        """Raise SpecError if something in it is out of bounds."""
        spec.check(self)
        low, high = self.value_range
        if not (1 <= self.size <= 4096 and self.colours in (1, 3) and -1e6 < low < high < 1e6):
            raise SpecError("size, channels or value range are impossible.")


@dataclass(frozen=True)
class Weights:
    """The tensors of a network by its own names, and how a file's tensors came to be them."""

    tensors: dict[str, Tensor]
    left: tuple[str, ...] = ()  # tensors of the file that have no place in the network
    notes: tuple[str, ...] = ()  # what was deduced or assumed, a sentence each


@dataclass(frozen=True)
class Opened:
    """A model in some format: its description, and `read`, which gets its weights."""

    name: str
    format: str
    info: ModelInfo
    read: Callable[[], Weights]
    notes: tuple[str, ...] = ()  # what the description left open and how it was filled

    def network(self, device: str = "cpu", weights: Weights | None = None) -> nn.Module:
        """The network with its weights in float32, ready to evaluate.

        Raises CheckpointError if a tensor is missing, unknown, of the wrong shape or not finite.
        """
        return network_of(self.name, self.info, (weights or self.read()).tensors, device)

    def score(self, device: str = "cpu", dtype: str = "fp32") -> Score:
        return score_of(self.network(device), self.info, device, dtype)


def network_of(
    name: str, info: ModelInfo, tensors: dict[str, Tensor], device: str = "cpu"
) -> nn.Module:
    """The network that `info` describes, holding `tensors` themselves where it can."""
    from studio.networks.catalog import build

    # Without memory: a description may ask for any amount of it, and the tensors bring their own.
    with torch.device("meta"):
        net = build(info.network, info.options)
    made_for = vars(net.options)
    if (info.size, info.colours, len(info.classes)) != tuple(
        made_for[k] for k in ("size", "colours", "classes")
    ):
        raise CheckpointError(f"{name} describes a model and a network that do not fit.")
    if unfit := _unfit(net.state_dict(), tensors):
        raise CheckpointError(
            f"The weights of {name} do not fit its description: tensors {unfit}.",
            "Get weights and description from the same place again.",
        )
    if not all(_finite(v) for v in tensors.values()):
        raise CheckpointError(f"{name} holds weights that are not finite numbers.")
    net.load_state_dict(tensors, assign=True)
    del tensors  # a network may lay them out anew, one by one: nobody should keep the old ones
    return net.float().to(device).eval().requires_grad_(False)


def _unfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Which tensors are amiss, some of each kind by name; "" if every one has its place."""
    both = wanted.keys() & found.keys()
    sides = {
        "missing": wanted.keys() - found.keys(),
        "without a place": found.keys() - wanted.keys(),
        "of another shape": {k for k in both if wanted[k].shape != found[k].shape},
    }
    return "; ".join(
        f"{len(keys)} {side} ({', '.join(k[:80] for k in sorted(keys)[:3])}{', …' * (len(keys) > 3)})"
        for side, keys in sides.items()
        if keys
    )


def _finite(v: Tensor) -> bool:
    if not v.is_floating_point() or bool(torch.isfinite(v.sum(dtype=torch.float32))):
        return True
    return bool(torch.isfinite(v).all())  # a sum may overflow where no number does


def score_of(net: nn.Module, info: ModelInfo, device: str = "cpu", dtype: str = "fp32") -> Score:
    """The Score of a network on `device` that `info` describes. `dtype`: one of DTYPES."""
    return network_score(
        _in(dtype, net, device),
        info.output,
        info.sde,
        info.shape,
        info.value_range,
        info.classes,
        device,
        getattr(net, "free", True),
    )


def _in(dtype: str, net: nn.Module, device: str) -> Network:
    """`net` computing in `dtype`, answering in float32."""
    if dtype == "fp32":
        return net
    if dtype not in DTYPES or (dtype == "fp16" and not device.startswith("cuda")):
        raise SpecError(
            f"{dtype} is not sound on {device}.", "Choose fp32, or bf16 to trade digits for speed."
        )
    kind = torch.bfloat16 if dtype == "bf16" else torch.float16

    def call(x: Tensor, label: Tensor, y: Tensor | None) -> Tensor:
        with torch.autocast(torch.device(device).type, kind):
            return net(x, label, y).float()

    return call
