"""All that is random in a step of training, as a function of (seed, step, place in the batch) alone.

So a batch may be cut into parts, or shared among machines, in any way: every picture meets the same
noise. What is large is drawn in blocks of places, each with dice of its own, so that no machine draws
what another one needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from studio.lazy import torch
from studio.training.optimization import dice

if TYPE_CHECKING:
    from torch import Generator, Tensor

BLOCK = 16  # places


class Draws:
    """Of one step: the place on the noise axis of every picture, evenly spread over the batch, which of
    them are mirrored and which lose their label; and on demand their noise."""

    def __init__(self, seed: int, step: int, batch: int) -> None:
        self._key, self._batch = (seed, step), batch
        generator = dice(seed, step)
        order = torch.randperm(batch, generator=generator)
        #: (B,), one in each B-th of (0, 1), which lowers the variance.
        self.u = (order + torch.rand(batch, generator=generator)) / batch
        self.mirrored = torch.rand(batch, generator=generator) < 0.5
        self.free = torch.rand(batch, generator=generator)

    def noise(self, places: range, shape: tuple[int, ...], device: str = "cpu") -> Tensor:
        """Unit noise (len(places), *shape) of these places, on a device."""
        # A graphics card draws for itself; what it draws is of its own kind, and the same every time.
        kind = device if device.startswith("cuda") else "cpu"
        parts = []
        for block in blocks(places):
            generator = torch.Generator(kind).manual_seed(self._seed(block))
            drawn = torch.randn(BLOCK, *shape, generator=generator, device=kind)
            first = block * BLOCK
            parts.append(drawn[max(0, places.start - first) : places.stop - first])
        return torch.cat(parts).to(device)

    def dice(self, place: int) -> Generator:
        """A generator of what else is random, for pictures from `place` on."""
        return torch.Generator().manual_seed(self._seed((1 << 32) + place))

    def _seed(self, block: int) -> int:
        state = np.random.SeedSequence((*self._key, block)).generate_state(1, np.uint64)
        return int(state[0] >> np.uint64(1))


def varying(seed: int, step: int, block: int) -> np.random.Generator:
    """What varies the pictures in a block of places of a step."""
    return np.random.default_rng((seed, step, block, 1))


def blocks(places: range) -> range:
    """The blocks that hold these places."""
    return range(places.start // BLOCK, -(-places.stop // BLOCK))
