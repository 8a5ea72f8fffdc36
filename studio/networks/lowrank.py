"""A change of low rank that is added to a layer's weight (LoRA).

A weight W (O, I, …) is used as W + B A, with A (R, I, …) and B (O, R). B is zero at first. A convolution
is a matrix of O rows for this.

Source: Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models".
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


class LowRank(nn.Module):
    """The change of one weight, of no more rank than the weight itself can have."""

    def __init__(self, weight: Tensor, rank: int, generator: Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape[0], weight[0].numel()
        r = min(rank, outputs, inputs)
        bound = math.sqrt(3 / inputs)  # deviation 1 / √inputs, as a layer of its own would have
        a = (2 * torch.rand(r, *weight.shape[1:], generator=generator) - 1) * bound
        self.a = nn.Parameter(a.to(weight))
        self.b = nn.Parameter(weight.new_zeros(outputs, r))

    def forward(self, original: Tensor) -> Tensor:
        # In full precision, as it is added when a model is written.
        with torch.autocast(original.device.type, enabled=False):
            return original + (self.b @ self.a.flatten(1)).view_as(original)


def attach(net: nn.Module, rank: int, seed: int = 0) -> None:
    """Give every linear and convolutional layer a change of low rank; only those are trained."""
    net.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for module in list(net.modules()):
        if isinstance(module, LAYERS) and getattr(module, "groups", 1) == 1:
            change = LowRank(module.weight, rank, generator)
            parametrize.register_parametrization(module, "weight", change, unsafe=True)
