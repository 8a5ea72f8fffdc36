"""What is asked of the memory allocator, where there is one that can be asked."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from studio.weights import devices

# Faults of memory pages in a network-like call that frees what it asks for, after the first.
_FAULTS = """
import resource, threading, torch
from studio.weights import devices
{}
def work():
    global faults
    for round in range(6):
        if round == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [torch.empty(10**6).fill_(1) for _ in range(20)]
        del held
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_kept_for_the_next_call() -> None:
    def faults(said: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", _FAULTS.format(said)], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("devices.keep_freed()") < 2000 < faults("")


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_other_systems_are_left_alone(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    devices.keep_freed()
    devices.give_back()
