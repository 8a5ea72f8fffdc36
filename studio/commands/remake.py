"""`score-studio models average` and `models adapt`: other models out of what a training has kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studio import spec
from studio.commands import Command, Outcome, positional
from studio.training import remade
from studio.training.lengths import LONGEST, SHORTEST
from studio.weights.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class AverageModel(Command):
    """Make a model of a training with its weights averaged over another share of the run.

    A short average is sharper and less settled, a long one smoother. Nothing is trained.
    """

    name: str = positional(help="A model that was trained here.")
    length: float = spec.option(
        0.1,
        label="Length",
        range=(SHORTEST, LONGEST),
        help="The deviation of the average's weights, as a share of the run.",
    )
    out: str = spec.option("", help="A name for the new model. Needed.")

    def run(self) -> Outcome:
        spec.check(self)
        made = remade.with_length(Shelf().find(self.name).path, self.length, self.out)
        facts = {"name": made.path.name, "path": str(made.path), "step": made.step}
        said = f"{made.path.name}: {self.name} at step {made.step}, averaged over {self.length:g}"
        near = f", {made.error:.1%} off that profile" if made.error > 0.005 else ""
        return Outcome(facts | {"length": self.length, "error": made.error}, said + near)


@dataclass(frozen=True, kw_only=True)
class AdaptModel(Command):
    """Lay adapters (LoRA, in the layout of the peft library) on a model, as a new one."""

    name: str = positional(help="The model that they were trained on.")
    adapters: str = positional(help="A folder with adapter_model.safetensors and its config.")
    share: float = spec.option(1.0, label="Share", range=(-4, 4), help="How much of them is added.")
    out: str = spec.option("", help="A name for the new model. Needed.")

    def run(self) -> Outcome:
        spec.check(self)
        opened = Shelf().find(self.name).opened
        assert opened is not None
        folder = Path(self.adapters).expanduser()
        made = remade.with_adapters(opened, folder, self.out, self.share)
        facts = {"name": made.path.name, "path": str(made.path), "share": self.share}
        return Outcome(facts, f"{made.path.name}: {self.name} with {folder.name}: {made.path}")
