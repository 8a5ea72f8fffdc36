"""What is trained: a plan as a Spec, and plans for an evening, a day and a night.

Fields that came later have defaults that mean what was done before, so that old plans stay true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from studio.diffusion.objective import Objective
from studio.diffusion.objectives import LogNormal
from studio.diffusion.score import Output, Preconditioned
from studio.diffusion.sde import SDE, VPSDE
from studio.spec import option


@dataclass(frozen=True)
class Training:
    """A training plan. What the network looks like, what it learns, and for how long."""

    start: str = option(
        "",
        label="Start from",
        flag="from",
        help="A model to go on from: a name, folder or file. It brings its SDE and network.",
    )
    size: int = option(32, label="Size", range=(8, 1024), help="Pixels on a side.")
    sde: SDE = option(VPSDE, label="Noising", help="How pictures become noise.")
    output: Output = option(Preconditioned, label="Network predicts")
    objective: Objective = option(LogNormal, label="Objective")
    network: str = option(
        "unet",
        label="Network",
        help="unet; or grown: a stage of twice the size around the model that it starts from.",
    )
    channels: tuple[int, ...] = (64, 128, 128)
    blocks: tuple[int, ...] = (2, 2, 2)
    attention: tuple[int, ...] = ()
    embedding: int = option(128, range=(16, 2048))
    patch: int = option(2, label="Folded pixels", range=(1, 8), help="2 suits a CPU.")
    top: int = option(24, label="Thin top stage", range=(0, 256), help="Channels at full size.")
    dropout: float = option(0.0, label="Dropout", range=(0, 0.9))
    steps: int = option(20_000, label="Steps", range=(1, 10**8))
    batch: int = option(64, label="Batch", range=(1, 65536))
    accumulate: int = option(1, label="Accumulate", range=(1, 1024), help="Parts of a batch.")
    rate: float = option(8e-4, label="Learning rate", range=(1e-7, 1), log=True)
    warmup: int = option(500, label="Warm-up steps", range=(0, 10**6))
    cooldown: float = option(
        0.3, label="Cool-down", range=(0, 1), help="Share of steps at the end."
    )
    clip: float = option(1.0, label="Gradient clip", range=(1e-3, 1e6))
    ema: float = option(0.999, label="Averaging", range=(0, 0.99999))
    flips: bool = option(False, label="Mirror", help="Learn each picture mirrored as well.")
    label_dropout: float = option(0.15, label="Class dropout", range=(0, 1))
    precision: str = option("bf16", label="Precision", choices=("bf16", "fp32"))
    compiled: bool = option(False, label="Compile", help="Slow start, faster steps.")
    seed: int = option(0, label="Seed", range=(0, 2**31))
    train: str = option(
        "all",
        label="What is trained",
        choices=("all", "last", "adapters"),
        help="All weights, those of the last blocks, or small adapters beside the layers (LoRA).",
    )
    rank: int = option(
        8, label="Rank of adapters", range=(1, 512), help="Larger learns more, and weighs more."
    )
    last: int = option(
        4, label="Last blocks", range=(1, 256), help="How many blocks, counted from the picture."
    )
    checkpointing: bool = option(
        False, label="Save memory", help="Blocks are computed again on the way back: slower."
    )
    ema_lengths: tuple[float, ...] = option(
        (0.05, 0.1),
        label="Kept averages",
        range=(0.01, 0.25),
        help="Two lengths, as shares of the run, from which any other is made afterwards.",
    )


def usual_rate(plan: Training) -> float:
    """The learning rate that suits what is trained."""
    if plan.train == "adapters":
        return 1e-3  # of little that starts at nothing
    # From trained weights, faster steps forget more than they learn.
    return 1e-4 if plan.start else Training.rate


@dataclass(frozen=True)
class Preset:
    """A plan for people who do not want to make one: what it changes in another."""

    title: str
    help: str
    changes: Mapping[str, Any]

    def of(self, plan: Training) -> Training:
        """The plan with this preset's settings."""
        return replace(plan, **self.changes)


PRESETS: dict[str, Preset] = {
    "quick look": Preset(
        "Quick look",
        "500 steps: whether it learns at all, in minutes.",
        {"steps": 500, "warmup": 50, "ema": 0.99},
    ),
    "personal": Preset(
        "Personal",
        "5,000 steps: a model in the manner of a few hundred pictures.",
        {"steps": 5_000, "warmup": 200, "ema": 0.999},
    ),
    "overnight": Preset(
        "Overnight",
        "50,000 steps: as good as it gets, for thousands of pictures or a fast device.",
        {"steps": 50_000, "warmup": 500, "ema": 0.9995},
    ),
}
