"""One training on many devices and machines: who does which part of a batch, and what they share.

`accelerate launch` and `torchrun` start the same command many times and say in the environment how many
there are. Each takes its places of every batch; gradients are averaged, so all hold the same weights.
The first of them alone writes files, draws samples and measures.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from studio.errors import DeviceError, SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn

T = TypeVar("T")


class Team(ABC):
    """The processes that train together."""

    index: int = 0  # of this one
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes, draws and measures."""
        return self.index == 0

    def places(self, batch: int) -> range:
        """The places of a batch that this process takes. Raises SpecError if it cannot be shared."""
        if batch % self.count:
            raise SpecError(
                f"A batch of {batch} cannot be shared by {self.count} processes.",
                f"Take a batch that {self.count} divides.",
            )
        each = batch // self.count
        return range(self.index * each, (self.index + 1) * each)

    @abstractmethod
    def device(self, wanted: str) -> str:
        """The device of this process."""

    @abstractmethod
    def join(self, net: nn.Module) -> nn.Module:
        """The network, with gradients that are the mean over all processes."""

    @abstractmethod
    def alone(self, net: nn.Module) -> AbstractContextManager[Any]:
        """Within this the gradients of a joined network stay this process's own."""

    @abstractmethod
    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes, the same in each."""

    @abstractmethod
    def told(self, value: T) -> T:
        """What the main process has as `value`."""

    @abstractmethod
    def shared(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the main process has."""


class Alone(Team):
    """One process: nothing is shared with anyone."""

    def device(self, wanted: str) -> str:
        return wanted

    def join(self, net: nn.Module) -> nn.Module:
        return net

    def alone(self, net: nn.Module) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        return values

    def told(self, value: T) -> T:
        return value

    def shared(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state


class Many(Team):
    """Processes that were launched together, brought together by accelerate."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.index, self.count = accelerator.process_index, accelerator.num_processes

    def device(self, wanted: str) -> str:
        device = self._accelerator.device
        return "cpu" if device.type == "cpu" else str(device)

    def join(self, net: nn.Module) -> nn.Module:
        return self._accelerator.prepare_model(net, device_placement=False)

    def alone(self, net: nn.Module) -> AbstractContextManager[Any]:
        return self._accelerator.no_sync(net)

    def mean(self, values: Tensor) -> Tensor:
        found = self._accelerator.reduce(values, "mean")
        assert isinstance(found, torch.Tensor)
        return found

    def told(self, value: T) -> T:
        from accelerate.utils import broadcast_object_list

        held = [value]
        broadcast_object_list(held)
        return held[0]

    def shared(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        from accelerate.utils import broadcast

        shapes = self.told({k: (v.shape, v.dtype) for k, v in state.items()})
        found: dict[str, Tensor] = {}
        for name, (shape, dtype) in shapes.items():
            mine = state[name] if self.main else torch.empty(shape, dtype=dtype)
            sent = broadcast(mine.to(self._accelerator.device))
            assert isinstance(sent, torch.Tensor)
            found[name] = sent.cpu()
        return found


ALONE = Alone()


def launched() -> int:
    """How many processes were launched together; 1 if this one was started by itself."""
    try:
        return max(1, int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError:
        return 1


def main() -> bool:
    """Whether this process is the one that writes, draws and speaks."""
    return launched() == 1 or os.environ.get("RANK", "0") == "0"


def leave() -> None:
    """Part from the others, when all have come to the end: one that is gone early breaks their lines."""
    if launched() > 1 and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def team(device: str) -> Team:
    """Those that this process was launched with. `device`: "cpu" keeps all of them off accelerators.

    Raises DeviceError if accelerate is missing where it is needed.
    """
    if launched() == 1:
        return ALONE
    if importlib.util.find_spec("accelerate") is None:
        raise DeviceError(
            "Training on many devices needs the package accelerate.",
            "Install it with: pip install score-studio[many]",
        )
    from accelerate import Accelerator

    return Many(Accelerator(cpu=device == "cpu", mixed_precision="no"))
