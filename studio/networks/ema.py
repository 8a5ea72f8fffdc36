"""An exponential moving average of a network's weights: what is sampled with and what is shipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Ema:
    """Follows the weights of `net`, slowly. Early on it follows faster, so it is never mostly noise.

    What is not trained is not averaged: of that the average holds the network's own tensors.
    """

    def __init__(self, net: nn.Module, rate: float) -> None:
        self.rate = rate
        # state_dict hands out the live tensors, which training changes in place.
        live, still = (
            net.state_dict(),
            {n for n, p in net.named_parameters() if not p.requires_grad},
        )
        self.followed = [k for k, v in live.items() if v.is_floating_point() and k not in still]
        self.shadow = {k: v if k in still else v.detach().clone() for k, v in live.items()}
        self._shadows = [self.shadow[k] for k in self.followed]
        self._lives = [live[k] for k in self.followed]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after training step `step` (from 1)."""
        slide(self._shadows, self._lives, 1 - min(self.rate, (1 + step) / (10 + step)))

    def load(self, state: dict[str, Tensor]) -> None:
        for key, value in self.shadow.items():
            if key in state:
                value.copy_(state[key])


def slide(kept: list[Tensor], live: list[Tensor], share: float) -> None:
    """Move tensors by a share of the way to others, in place, with as few calls as can be."""
    torch._foreach_lerp_(kept, live, share)  # pyright: ignore[reportPrivateImportUsage]
