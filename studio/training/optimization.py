"""What every training run shares: the order of pictures, the rate, a step, what a resumed run needs.

Everything random in step n is drawn from (seed, n), so that a run that was stopped, killed or moved
goes on as if nothing had happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from studio.errors import StudioError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn
    from torch.optim import Optimizer

    from studio.networks.ema import Ema


class Pace(Protocol):
    """What a plan says of its steps."""

    @property
    def steps(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def warmup(self) -> int: ...
    @property
    def cooldown(self) -> float: ...


class LostFooting(StudioError):
    """The gradients of a step are no longer finite. The weights are as they were before it."""


def dice(seed: int, step: int) -> Generator:
    """The generator of all that is random in a step."""
    return torch.Generator().manual_seed(seed * 2_654_435_761 + step)


def learning_rate(plan: Pace, step: int) -> float:
    """Up to the plan's rate while it warms up, down to zero over its last share of steps."""
    cool = max(1, round(plan.steps * plan.cooldown))
    warm = (step + 1) / max(1, plan.warmup)
    return plan.rate * min(1.0, warm, max(0, plan.steps - step) / cool)


class Shuffled:
    """Which pictures a step sees: each once in an epoch, in an order of that epoch's own."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def batch(self, step: int, size: int) -> np.ndarray:
        """The places (size,) of the pictures of a step."""
        epochs, within = divmod(np.arange(step * size, (step + 1) * size), self._count)
        found = np.empty(size, np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            now = epochs == epoch
            found[now] = self._epoch(epoch)[within[now]]
        return found

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            rng = np.random.default_rng((self._seed, epoch))
            self._order = epoch, rng.permutation(self._count)
        return self._order[1]


def descend(net: nn.Module, optimizer: Optimizer, rate: float, clip: float, step: int) -> None:
    """One optimizer step along the gradients that are there, which are then gone.

    Raises LostFooting when they are no longer finite; the weights stay as they were.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
    if not bool(torch.isfinite(norm)):
        optimizer.zero_grad(set_to_none=True)
        raise LostFooting(
            f"Training lost its footing at step {step + 1}: the loss is not a number.",
            "Resume from the last save with half the learning rate.",
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def held(net: nn.Module, ema: Ema, optimizer: Optimizer) -> dict[str, Tensor]:
    """Everything that changes in training: weights, their average, Adam's moments."""
    found = {f"net.{k}": v for k, v in net.state_dict().items()}
    found |= {f"ema.{k}": ema.shadow[k] for k in ema.followed}
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    for i, state in optimizer.state_dict()["state"].items():
        found |= {f"adam.{names[i]}.{k}": state[k] for k in ("exp_avg", "exp_avg_sq")}
    return found


def restore(
    found: dict[str, Tensor], net: nn.Module, ema: Ema, optimizer: Optimizer, step: int
) -> None:
    """Undo `held`, after `step` steps."""
    net.load_state_dict(under("net.", found))
    ema.load(under("ema.", found))
    moments = under("adam.", found)
    optimizer.state.clear()
    for name, parameter in net.named_parameters():
        if f"{name}.exp_avg" in moments:
            # Laid out as the parameter is (channels last); the fused step pairs by place.
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                **{
                    k: torch.zeros_like(parameter).copy_(moments[f"{name}.{k}"])
                    for k in ("exp_avg", "exp_avg_sq")
                },
            }


def coloured(pixels: np.ndarray, colours: int) -> np.ndarray:
    """uint8 pictures (N, H, W, C) with `colours` channels: grey is their mean."""
    if pixels.shape[3] == colours:
        return pixels
    if colours == 1:
        return np.rint(pixels.mean(3, keepdims=True)).astype(np.uint8)
    return np.repeat(pixels, colours, axis=3)


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
