"""What a plan will cost and whether it can work, found by real steps of it.

A few pictures go first, so that a batch that does not fit is known before it is tried: on a processor
nobody is told of too little memory, the system ends the program.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from studio.diffusion.sde import VESDE
from studio.lazy import torch
from studio.training import lengths, parts
from studio.training.plan import Training
from studio.training.trainer import Trainer
from studio.training.watch import largest_distance
from studio.weights import devices

if TYPE_CHECKING:
    from studio.training.data import Pictures
    from studio.weights.model import Opened

_FEW = 8  # pictures that go first
_PATIENT = 10.0  # seconds of a step above which it is not made again to be timed better
_ROOM = 0.9  # of the free memory that a step may take
_FOR_SAMPLES = 1.02  # times: samples and measurements on the way


@dataclass(frozen=True)
class Checked:
    """One real step, measured. Bytes and seconds; `warnings` are whole sentences."""

    memory: int  # that the step needed at its peak
    memory_free: int  # that the device had before it; 0 where that cannot be told
    seconds_per_step: float
    seconds: float  # of the whole plan
    disk: int  # that the run will fill
    disk_free: int
    parameters: int
    trained: int  # of the parameters
    sigma_max: float | None = None  # suggested by the pictures, where the SDE has one to choose
    warnings: tuple[str, ...] = ()


def check(
    plan: Training,
    learned: Pictures,
    held: Pictures,
    start: Opened | None,
    device: str,
    place: Path,
) -> Checked:
    """Make real steps of a plan, in memory alone. `place`: where the run will be kept.

    Raises StudioError if the plan cannot be run at all.
    """
    free, disk_free = free_memory(device), shutil.disk_usage(_existing(place)).free
    warnings = _of_pictures(plan, learned, held, start)
    with tempfile.TemporaryDirectory() as scratch:
        probe = _Probe(replace(plan, compiled=False), learned, Path(scratch), device, start)
        seconds, memory, more = probe.measure(free)
        trainer = probe.trainer
    sigma = None
    if isinstance(trainer.info.sde, VESDE):
        sigma = largest_distance(learned, trainer.info)
        warnings += _of_noise(plan, trainer.info.sde.sigma_max, sigma)
    disk = disk_needed(trainer)
    warnings += more + _of_cost(plan, seconds, memory, free, disk, disk_free)
    return Checked(
        memory=memory,
        memory_free=free,
        seconds_per_step=seconds,
        seconds=seconds * plan.steps * _FOR_SAMPLES,
        disk=disk,
        disk_free=disk_free,
        parameters=sum(p.numel() for p in trainer.net.parameters()),
        trained=sum(p.numel() for p in parts.trained(trainer.net)),
        sigma_max=sigma,
        warnings=tuple(warnings),
    )


class _Probe:
    """Real steps of a plan, first of a few pictures, then of the whole batch if it fits."""

    def __init__(
        self, plan: Training, data: Pictures, scratch: Path, device: str, start: Opened | None
    ) -> None:
        self.plan, self._device = plan, device
        self._make = lambda plan: Trainer(plan, data, scratch, device, start)
        self._part = plan.batch // plan.accumulate
        devices.give_back()  # what an earlier run left lying would be counted as free of charge
        self._before = _held(device)
        few = min(_FEW, self._part)
        self.trainer = self._make(replace(plan, batch=few, accumulate=1))
        self._few = few

    def measure(self, free: int) -> tuple[float, int, list[str]]:
        """(seconds of a step, bytes at its peak, what to say of it)."""
        kept = _kept(self.trainer.advance)
        fixed = _fixed(self.trainer)
        needed = fixed + kept * self._part // self._few
        if free and needed > _ROOM * free:
            return self._guessed(fixed, kept, needed, free)
        few = self.trainer
        try:
            if self.plan.batch > self._few:
                self.trainer = self._make(self.plan)
            seconds, memory = self._timed()
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            self.trainer = few
            return self._guessed(fixed, kept, max(needed, free), free)
        return seconds, max(memory, needed), []

    def _timed(self) -> tuple[float, int]:
        _reset_peak(self._device)
        seconds = _seconds(self.trainer.advance, self._device)
        if seconds < _PATIENT:  # the first one also warms up
            seconds = min(seconds, _seconds(self.trainer.advance, self._device))
        return seconds, max(0, _peak(self._device) - self._before)

    def _guessed(
        self, fixed: int, kept: int, needed: int, free: int
    ) -> tuple[float, int, list[str]]:
        """What a batch that does not fit would cost, and what would fit."""
        seconds = _seconds(self.trainer.advance, self._device)
        said = f"A step needs about {_size(needed)} of memory, and {_size(free)} are free."
        at_once = int((_ROOM * free - fixed) * self._few / max(1, kept))
        if at_once < 1:
            return seconds * self.plan.batch / self._few, needed, [
                f"{said} Not one picture fits: train adapters, or a smaller network."
            ]  # fmt: skip
        pieces = next(
            n for n in range(1, self.plan.batch + 1)
            if self.plan.batch % n == 0 and self.plan.batch // n <= at_once
        )  # fmt: skip
        hint = f"Accumulate the batch in {pieces} parts, or save memory by computing blocks twice."
        return seconds * self.plan.batch / self._few, needed, [f"{said} {hint}"]


def _of_pictures(
    plan: Training, learned: Pictures, held: Pictures, start: Opened | None
) -> list[str]:
    """What is to be said of the pictures before anything is learned from them."""
    count, said = len(learned), []
    if count < 50:
        said.append(f"{count} pictures are so few that the model will learn them by heart.")
    elif count < 200:
        said.append(
            f"{count} pictures are few: the model may learn them by heart. 200 and more are good."
        )
    if plan.batch > count:
        said.append(
            f"A batch of {plan.batch} holds each of the {count} pictures more than once: a smaller "
            "batch is faster and as good."
        )
    if count >= 50 and plan.steps * plan.batch > 3000 * count:
        often = plan.steps * plan.batch // count
        said.append(f"Each picture is learned {often:,} times, which is often enough to know it.")
    if learned.cut:
        said.append(
            f"{learned.cut:,} pictures are larger than there is room for: of these, the middle is "
            "learned. Fewer pictures keep more of each."
        )
    if not len(held):
        said.append("Nothing is held out, so nobody will know whether it learns by heart.")
    return said + (_of_start(plan, learned, start) if start is not None else [])


def _of_start(plan: Training, learned: Pictures, start: Opened) -> list[str]:
    info, said = start.info, []
    if plan.size != info.size:
        said.append(
            f"{start.name} was made for {info.size} px and will learn {plan.size} px: it needs "
            "more steps than at its own size."
        )
    if learned.classes and learned.classes != info.classes:
        said.append(f"The classes of the folder are none of {start.name}'s: they are not learned.")
    if info.colours == 1 and learned.colours == 3:
        said.append(f"{start.name} knows no colours: the pictures become grey.")
    elif info.colours == 3 and learned.grey > 0.9:
        said.append(f"Nearly all pictures are grey, and {start.name} will forget its colours.")
    return said


def _of_noise(plan: Training, chosen: float, suggested: float) -> list[str]:
    if plan.start or 0.5 * suggested <= chosen <= 3 * suggested:
        return []
    return [
        f"The strongest noise is {chosen:g}; for these pictures {suggested:.0f}, their largest "
        "distance, would suit better."
    ]


def _of_cost(
    plan: Training, seconds: float, memory: int, free: int, disk: int, disk_free: int
) -> list[str]:
    said = []
    if seconds * plan.steps > 3 * 86400:
        days = seconds * plan.steps / 86400
        said.append(f"All of it takes {days:.0f} days here. Take fewer steps or a smaller model.")
    if disk > _ROOM * disk_free:
        said.append(
            f"The run fills {_size(disk)} of the disk, of which {_size(disk_free)} are free."
        )
    if plan.compiled:
        said.append("Compiling takes a minute or two at the beginning, and makes steps faster.")
    return said


def disk_needed(trainer: Trainer) -> int:
    """Bytes that a run fills at most: what it resumes by, its model, averages, sheets."""
    whole = sum(v.numel() for v in trainer.net.state_dict().values())
    trained = sum(p.numel() for p in parts.trained(trainer.net))
    kept = len(trainer.plan.ema_lengths)
    resume = 4 * (whole + (3 + kept) * trained)
    averages = 2 * kept * trained * lengths.MOST
    sheets = min(200, trainer.plan.steps // 250 + 2) * 2 * 16 * math.prod(trainer.info.shape)
    # A file is there twice while it is replaced.
    return 2 * resume + 2 * whole + averages + sheets


# -- measuring ------------------------------------------------------------------------------------


def _kept(step: Callable[[], object]) -> int:
    """Bytes that a step keeps for its way back."""
    seen: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        step()
    return sum(seen.values())


def _fixed(trainer: Trainer) -> int:
    """Bytes of weights, gradients, moments and averages."""
    whole = sum(v.numel() for v in trainer.net.state_dict().values())
    trained = sum(p.numel() for p in parts.trained(trainer.net))
    return 4 * (whole + (4 + len(trainer.plan.ema_lengths)) * trained)


def _seconds(step: Callable[[], object], device: str) -> float:
    begun = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - begun


def _held(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.memory_allocated(device)
    return torch.mps.current_allocated_memory() if device == "mps" else devices.resident_bytes()


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # then the peak is that of the program's whole life, or is not told


def _peak(device: str) -> int:
    """The most memory held since the peak was reset; 0 where that is not told."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if device == "mps":
        return torch.mps.driver_allocated_memory()
    return _told(Path("/proc/self/status"), "VmHWM:")


def free_memory(device: str) -> int:
    """Bytes that a device can still give; 0 where that cannot be told."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    if device == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    there = _told(Path("/proc/meminfo"), "MemAvailable:")
    if not there and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        there = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _limit()
    return min(there, limit) if limit is not None and there else there


def _limit() -> int | None:
    """What a container still allows, or None."""
    group = Path("/sys/fs/cgroup")
    try:
        most, used = ((group / f"memory.{k}").read_text().strip() for k in ("max", "current"))
        return None if most == "max" else max(0, int(most) - int(used))
    except (OSError, ValueError):
        return None


def _told(path: Path, name: str) -> int:
    """A number of kB in a table of the system's, in bytes; 0 if it is not there."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return 1024 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return 0


def _existing(place: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _size(count: int) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    raise AssertionError
