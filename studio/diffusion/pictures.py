"""uint8 pictures <-> states. The only file that scales pixels.

A picture is uint8, (H, W, C) with C 1 or 3, or a stack (N, H, W, C). A state is float, (B, C, H, W),
in the checkpoint's value range.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 256  # of an 8-bit value


def to_state(
    pictures: np.ndarray | Tensor, value_range: tuple[float, float], device: str = "cpu"
) -> Tensor:
    """uint8 (N, H, W, C) -> float32 (N, C, H, W); 0 and 255 become the ends of `value_range`."""
    low, high = value_range
    x = torch.as_tensor(pictures).to(device).permute(0, 3, 1, 2)
    return x.to(torch.float32) * ((high - low) / 255) + low


def to_pictures(x: Tensor, value_range: tuple[float, float]) -> np.ndarray:
    """float (B, C, H, W) -> uint8 (B, H, W, C), rounded and clipped."""
    low, high = value_range
    scaled = (x - low).mul_(255 / (high - low))
    return in_bytes(scaled.nan_to_num_(nan=127.5).clamp_(0, 255).round_())


def in_bytes(x: Tensor) -> np.ndarray:
    """Whole numbers from 0 to 255 (B, C, H, W) -> uint8 (B, H, W, C), copied to the host as bytes."""
    pixels = x.to(torch.uint8, memory_format=torch.channels_last)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())


def dequantized(
    pictures: np.ndarray | Tensor, value_range: tuple[float, float], share: Tensor
) -> Tensor:
    """uint8 (N, H, W, C) as continuous values (N, C, H, W): level k of 256 becomes the place `share`
    (from 0 to 1, broadcast) of the way through the k-th of 256 equal parts of `value_range`. In the
    precision and on the device of `share`.
    """
    low, high = value_range
    levels = torch.as_tensor(pictures).to(share.device).permute(0, 3, 1, 2).to(share.dtype)
    return low + (levels + share) * ((high - low) / LEVELS)


def magnitude(field: Tensor, scale: Tensor) -> np.ndarray:
    """A field (B, C, H, W) as uint8 (B, H, W, 1): its length over channels, `scale` (B,) is white."""
    length = field.float().square().mean(1, keepdim=True).sqrt_()
    return to_pictures(length.div_(scale.reshape(-1, 1, 1, 1)), (0.0, 1.0))


def columns(count: int) -> int:
    """How many columns a grid of `count` pictures has: as square as can be, wider than tall."""
    return max(1, math.ceil(math.sqrt(count)))


def grid(pictures: np.ndarray, gap: int = 2, background: int = 128) -> np.ndarray:
    """A stack (N, H, W, C) laid out as one picture, with `gap` pixels between."""
    n, h, w, c = pictures.shape
    across = columns(n)
    down = math.ceil(n / across)
    sheet = np.full((down * (h + gap) - gap, across * (w + gap) - gap, c), background, np.uint8)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, across)
        sheet[
            row * (h + gap) : row * (h + gap) + h, column * (w + gap) : column * (w + gap) + w
        ] = picture
    return sheet
