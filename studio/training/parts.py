"""The blocks of a network, whatever network it is: which are trained, and which are computed twice.

A block is the least that has two layers with weights of its own, as a residual block or an attention.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from studio.errors import SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from studio.weights.model import ModelInfo


def blocks(net: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a network by name, in the order of its definition."""
    from torch import nn

    found: dict[str, nn.Module] = {}

    def layers(module: nn.Module) -> int:
        kinds = nn.Linear | nn.Conv1d | nn.Conv2d
        return sum(isinstance(m, kinds) for m in module.modules())

    def visit(name: str, module: nn.Module) -> bool:
        """Whether the module is a block or holds one."""
        inside = [
            visit(f"{name}.{n}" if name else n, child) for n, child in module.named_children()
        ]
        if any(inside):
            return True
        if isinstance(module, nn.ModuleList) or layers(module) < 2:
            return False
        found[name] = module
        return True

    visit("", net)
    return found


def called(net: nn.Module, info: ModelInfo) -> list[str]:
    """The names of all modules in the order in which a forward pass comes to them first."""
    order: list[str] = []
    names = {module: name for name, module in net.named_modules()}

    def note(module: nn.Module, *_: Any) -> None:
        if names[module] not in order:
            order.append(names[module])

    hooks = [module.register_forward_pre_hook(note) for module in net.modules()]
    device = next(net.parameters()).device
    x, one = torch.zeros(1, *info.shape, device=device), torch.ones(1, device=device)
    y = torch.zeros(1, dtype=torch.long, device=device) if info.classes else None
    try:
        with torch.no_grad():
            net(x, one, y)
    finally:
        for hook in hooks:
            hook.remove()
    return order


def train_last(net: nn.Module, info: ModelInfo, count: int) -> None:
    """Leave only the last `count` blocks to training, and what is computed behind the first of them.

    Raises SpecError if the network has fewer.
    """
    order = {name: place for place, name in enumerate(called(net, info))}
    places = sorted(order[name] for name in blocks(net) if name in order)
    if count > len(places):
        raise SpecError(
            f"The network has {len(places)} blocks, not {count}.", "Train fewer blocks, or all."
        )
    first = places[-count]
    for name, parameter in net.named_parameters():
        # A layer that is never called lends its weights to the nearest around it that is.
        owner = name.rpartition(".")[0]
        while owner not in order:
            owner = owner.rpartition(".")[0]
        parameter.requires_grad_(order[owner] >= first and owner != "")
    _ask_for_gradients(net)


def _ask_for_gradients(net: nn.Module) -> None:
    """Have trained norms give gradients of their input, needed or not: on processors torch (2.13) crashes
    over a channels-last input that wants none."""
    from torch import nn

    def ask(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        (x,) = inputs
        wanted = x.requires_grad or not torch.is_grad_enabled() or not module.weight.requires_grad
        return None if wanted else (x.detach().requires_grad_(),)

    for module in net.modules():
        if isinstance(module, nn.GroupNorm) and module.affine:
            module.register_forward_pre_hook(ask)


def compute_twice(net: nn.Module) -> None:
    """Keep nothing of what happens inside blocks for the way back: it is computed again then."""
    from torch.utils.checkpoint import checkpoint

    for block in blocks(net).values():
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def trained(net: nn.Module) -> list[nn.Parameter]:
    return [p for p in net.parameters() if p.requires_grad]
