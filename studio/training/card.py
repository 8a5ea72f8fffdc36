"""The card of a trained model: from what it was made, how, for how long, on what machine."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio import spec
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
    plan: Any = None,
    held: int = 0,
    measures: Sequence[tuple[int, float, float, float]] = (),
    samples: str = "",
) -> str:
    """The card as Markdown. `curve` is (step, smoothed loss), `measures` (step, held-out loss, bits,
    share learned by heart), `plan` a Spec, whose settings are told, `samples` a file beside the card.
    """
    kept = f", of which {held} were held out" if held else ""
    parts = [
        f"# {name}\n\n{MARK}",
        f"![samples]({samples})" if samples else "",
        _table(
            ("", ""),
            [
                ("trained on", f"{data}: {len(pictures)} pictures{kept}"),
                ("classes", ", ".join(pictures.classes) or "none"),
                ("steps", str(step)),
                ("time", f"{duration(seconds)} on {machine(device)}"),
            ],
        ),
        f"Made by\n\n    {command}",
        _table(("step", "loss (smoothed)"), [(str(at), f"{loss:.4f}") for at, loss in curve]),
        _measured(measures),
        _settings(plan),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    rule = "|---|---|" if not any(head) else "|" + "---:|" * len(head)
    lines = [" | ".join(row) for row in (head, *rows)]
    return "\n".join([f"| {lines[0]} |", rule, *(f"| {line} |" for line in lines[1:])])


def _measured(measures: Sequence[tuple[int, float, float, float]]) -> str:
    """What was measured on held-out pictures; "" where nothing was."""
    rows = [row for row in measures if math.isfinite(row[1])]
    if not rows:
        return ""
    head = ("step", "held-out loss", "bits per dimension, at most", "learned by heart")
    told = [(str(s), f"{a:.4f}", f"{b:.3f}", f"{100 * c:.0f} %") for s, a, b, c in rows]
    return "On the held-out pictures, under the same noise:\n\n" + _table(head, told)


def _settings(plan: Any) -> str:
    """The settings of a plan that are not as they always are."""
    if plan is None:
        return ""
    usual = type(plan)()
    changed = []
    for field in spec.fields(plan):
        value = getattr(plan, field.name)
        if value != getattr(usual, field.name):
            changed.append((spec.label(field).lower(), _said(value)))
    return _table(("", ""), changed) if changed else ""


def _said(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        inside = ", ".join(
            f"{spec.label(f).lower()} {getattr(value, f.name):g}"
            for f in spec.fields(value)
            if isinstance(getattr(value, f.name), int | float)
        )
        return f"{spec.title(type(value))}{inside and f': {inside}'}"  # type: ignore[arg-type]
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def write(folder: Path, content: str) -> bool:
    """Put the card into a model's folder, unless a person has written one. Whether it was written.

    Raises SaveError if it cannot be.
    """
    if (folder / CARD).exists() and not is_ours(folder):
        return False
    with atomic(folder / CARD) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return True


def is_ours(folder: Path) -> bool:
    """Whether there is a card that the studio wrote, and nobody else."""
    try:
        return MARK in (folder / CARD).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


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
