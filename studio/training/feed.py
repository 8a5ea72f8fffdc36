"""Where the pictures of a step come from: all lie on the device, or they are drawn a step ahead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from studio.lazy import torch
from studio.training.draws import BLOCK, blocks, varying
from studio.training.optimization import Shuffled
from studio.training.plan import Training
from studio.weights import devices

if TYPE_CHECKING:
    from torch import Tensor

    from studio.training.data import Pictures


class Feed(ABC):
    """The pictures of this process's places in every batch."""

    def __init__(self, order: Shuffled, plan: Training, colours: int, device: str) -> None:
        self._order, self._plan = order, plan
        self._colours, self._device = colours, device

    @abstractmethod
    def take(self, step: int, part: range) -> tuple[Tensor, Tensor]:
        """(uint8 pictures (n, H, W, C), which of all they are (n,)), for some places of a batch."""


class Held(Feed):
    """All pictures are on the device."""

    def __init__(
        self, data: Pictures, order: Shuffled, plan: Training, colours: int, device: str
    ) -> None:
        super().__init__(order, plan, colours, device)
        self._pixels = torch.from_numpy(data.pixels).to(device)

    def take(self, step: int, part: range) -> tuple[Tensor, Tensor]:
        places = self._order.batch(step, self._plan.batch)[part.start : part.stop]
        chosen = torch.from_numpy(places).to(self._device)
        return coloured(self._pixels[chosen], self._colours), chosen


class Drawn(Feed):
    """Pictures that look different each time, or are too many for the device: a thread of its own draws
    those of the next step."""

    def __init__(
        self,
        data: Pictures,
        order: Shuffled,
        plan: Training,
        colours: int,
        device: str,
        places: range,
    ) -> None:
        super().__init__(order, plan, colours, device)
        self._data, self._places = data, places
        self._thread = ThreadPoolExecutor(1, "pictures")
        self._ahead: tuple[int, Future[tuple[np.ndarray, np.ndarray]]] | None = None
        self._now: tuple[int, np.ndarray, np.ndarray] | None = None

    def take(self, step: int, part: range) -> tuple[Tensor, Tensor]:
        if self._now is None or self._now[0] != step:
            self._now = step, *self._of(step)
        _, pixels, chosen = self._now
        here = slice(part.start - self._places.start, part.stop - self._places.start)
        found = torch.from_numpy(pixels[here]).to(self._device)
        return coloured(found, self._colours), torch.from_numpy(chosen[here]).to(self._device)

    def _of(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        ahead, self._ahead = self._ahead, None
        found = ahead[1].result() if ahead is not None and ahead[0] == step else self._draw(step)
        self._ahead = step + 1, self._thread.submit(self._draw, step + 1)
        return found

    def _draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        plan, mine = self._plan, self._places
        places = self._order.batch(step, plan.batch)
        parts = []
        for block in blocks(mine):
            # Whole blocks, so that a picture is the same wherever a batch is cut.
            first = block * BLOCK
            drawn = self._data.draw(places[first : first + BLOCK], varying(plan.seed, step, block))
            parts.append(drawn[max(0, mine.start - first) : mine.stop - first])
        return np.concatenate(parts), places[mine.start : mine.stop]


def feed(
    data: Pictures, order: Shuffled, plan: Training, places: range, colours: int, device: str
) -> Feed:
    """The feed that suits the pictures and the device."""
    if data.moves or not data.pixels.flags.writeable or not _fits(data, device):
        return Drawn(data, order, plan, colours, device, places)
    return Held(data, order, plan, colours, device)


def _fits(data: Pictures, device: str) -> bool:
    """Whether the pictures may be held: not where they are read off a disk as they are needed, nor where
    a graphics card would lose most of its memory to them."""
    if isinstance(data.pixels, np.memmap):
        return False
    if not device.startswith("cuda"):
        return True
    facts = devices.facts(device)
    return data.pixels.nbytes < 0.25 * (facts.total - facts.used)


def coloured(pixels: Tensor, colours: int) -> Tensor:
    """uint8 pictures (N, H, W, C) with `colours` channels: grey is their mean."""
    if pixels.shape[3] == colours:
        return pixels
    if colours == 1:
        return pixels.float().mean(3, keepdim=True).round().to(torch.uint8)
    return pixels.expand(-1, -1, -1, colours)
