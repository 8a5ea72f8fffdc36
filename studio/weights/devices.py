"""Where a model runs: CUDA (ROCm answers to the same name), Apple's MPS, or the processor."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from studio.errors import DeviceError
from studio.lazy import torch


@dataclass(frozen=True)
class DeviceFacts:
    """What a person is told of the device; memory in bytes, 0 if it cannot be told."""

    device: str
    name: str
    used: int = 0
    total: int = 0


def resolve(wanted: str = "auto") -> str:
    """The device to use. "auto" takes the best there is. Raises DeviceError if it is not there."""
    there = available()
    if wanted == "auto":
        return there[0]
    if wanted in there or (wanted.startswith("cuda:") and "cuda" in there):
        return wanted
    raise DeviceError(f"There is no device “{wanted}” here.", f"Use {' or '.join(there)}.")


def available() -> list[str]:
    """Devices that torch can use here, best first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def facts(device: str) -> DeviceFacts:
    if device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(device)
        return DeviceFacts(device, torch.cuda.get_device_name(device), total - free, total)
    if device == "mps":
        return DeviceFacts(device, "Apple GPU", torch.mps.current_allocated_memory())
    return DeviceFacts(device, f"CPU, {torch.get_num_threads()} threads", resident_bytes())


def resident_bytes() -> int:
    """Memory that this process holds now; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def keep_freed(most: int = 2**29) -> None:
    """Let this process keep memory that it frees, up to `most` bytes, for what it asks for next.

    A network's call frees and asks for the same hundred megabytes every time; that the system gives
    them anew, page by page, takes a tenth to a quarter of the call. To be said before the first thread
    begins, for each would have a heap of its own. Where the allocator is not GNU's, nothing happens.
    """
    if (allocator := _allocator("mallopt")) is not None:
        # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD with the largest there may be, M_ARENA_MAX.
        for name, value in ((-1, most), (-3, 2**25), (-8, 1)):
            allocator(name, value)


def give_back() -> None:
    """Hand memory that is free back to the system, where its allocator keeps it. Work of another kind
    leaves it in pieces, beside which the next work would ask for more."""
    if (allocator := _allocator("malloc_trim")) is not None:
        allocator(0)


def _allocator(function: str) -> Callable[..., Any] | None:
    """A function of GNU's memory allocator; None where it is another one."""
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        return getattr(ctypes.CDLL(None), function, None)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device or the machine has no memory left."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate" in text)
    )
