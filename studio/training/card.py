"""The card of a trained model: from what it was made, how, for how long, on what machine."""

from __future__ import annotations

import platform
from pathlib import Path

from studio.paths import atomic
from studio.training.data import Pictures
from studio.weights import devices
from studio.weights.formats.native import CARD

MARK = "<!-- written by score-studio train; delete this line to keep the card as it is -->"


def text(
    *,
    name: str,
    data: str,
    pictures: Pictures,
    command: str,
    step: int,
    curve: list[tuple[int, float]],
    seconds: float,
    device: str,
) -> str:
    """The card as Markdown. `curve` is (step, smoothed loss)."""
    classes = ", ".join(pictures.classes) or "none"
    rows = "\n".join(f"| {at} | {loss:.4f} |" for at, loss in curve)
    return f"""# {name}

{MARK}

| | |
|---|---|
| trained on | {data}: {len(pictures)} pictures |
| classes | {classes} |
| steps | {step} |
| time | {duration(seconds)} on {machine(device)} |

Made by

    {command}

| step | loss (smoothed) |
|---:|---:|
{rows}
"""


def write(folder: Path, content: str) -> bool:
    """Put the card into a model's folder, unless a person has written one. Whether it was written.

    Raises SaveError if it cannot be.
    """
    path = folder / CARD
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        return False
    with atomic(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return True


def machine(device: str) -> str:
    """The processor or graphics card, and the version of torch, in a few words."""
    from studio.lazy import torch

    if device.startswith(("cuda", "mps")):
        return f"{devices.facts(device).name}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def processor() -> str:
    """The processor's model name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "an unnamed processor"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {left:02} s"
