"""An exponential moving average of a network's weights: what is sampled with and what is shipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Follows the weights of `net`, slowly. Early on it follows faster, so it is never mostly noise."""

    def __init__(self, net: nn.Module, rate: float) -> None:
        self.rate = rate
        live = net.state_dict()
        self.shadow = {k: v.detach().clone() for k, v in live.items()}
        # state_dict hands out the live tensors, which training changes in place.
        self._pairs = [(s, live[k]) for k, s in self.shadow.items() if s.is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after training step `step` (from 1)."""
        rate = min(self.rate, (1 + step) / (10 + step))
        for shadow, live in self._pairs:
            shadow.lerp_(live, 1 - rate)

    def load(self, state: dict[str, Tensor]) -> None:
        for key, value in self.shadow.items():
            value.copy_(state[key])
