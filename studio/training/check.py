"""What a plan will cost and whether it can work, found by one real step of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Checked:
    """One real step, measured. Bytes and seconds; `warnings` are whole sentences."""

    memory: int  # that the step needed at its peak
    memory_free: int  # that the device had before it
    seconds_per_step: float
    seconds: float  # of the whole plan
    disk: int  # that the run will fill
    disk_free: int
    parameters: int
    trained: int  # of the parameters
    sigma_max: float | None = None  # suggested by the pictures, where the SDE has one to choose
    warnings: tuple[str, ...] = ()
