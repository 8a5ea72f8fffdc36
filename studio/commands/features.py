"""`score-studio train-features`: pictures into a space that distances are measured in."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import recipes, spec, terminal
from studio.commands import Command, Outcome, positional, training
from studio.errors import SpecError
from studio.training import card
from studio.training.data import Pictures
from studio.training.feature_trainer import FeatureTrainer, FeatureTraining
from studio.training.log import Log
from studio.training.loop import train
from studio.weights import features, formats
from studio.weights.devices import resolve


@dataclass(frozen=True, kw_only=True)
class TrainFeatures(FeatureTraining, Command):
    """Train a network whose features say how far two sets of pictures are apart.

    A run that exists under this name is resumed. Ctrl-C stops and saves. Figures of different feature
    spaces cannot be compared, so give it a name of its own.
    """

    data: tuple[str, ...] = positional(help="Folders of pictures, or image packs (.npz), to learn.")
    judge: tuple[str, ...] = spec.option(
        (), help="Pictures that were not learned, to measure it with. May be repeated."
    )
    out: str = spec.option("", help="A name for it, or with a slash in it a folder. Needed.")
    compositions: int = spec.option(
        12_000, range=(2, 10**7), help="Pictures composed from a pack of parts."
    )
    save_seconds: float = spec.option(60.0, range=(0, 10**6), help="Seconds between saves.")
    device: str = spec.option("auto", help="auto, cpu, cuda or mps.")

    def run(self) -> Outcome:
        folder, plan = self._folder(), self.plan()
        recipes.check_writable(folder / features.WEIGHTS)
        device = resolve(self.device)
        packs = self._read(self.data, plan.seed)
        judges = self._read(self.judge, plan.seed + 987)
        trainer = FeatureTrainer(plan, list(packs.values()), folder, device)
        if trainer.step:
            terminal.note(f"Resuming “{folder.name}” at step {trainer.step}")
        log = Log(folder, trainer.step)
        stopped = training.follow(train(trainer, self.save_seconds), log, self.batch)
        accuracy = (
            {} if stopped else {name: trainer.accuracy(pack) for name, pack in judges.items()}
        )
        facts = self._facts(trainer, packs, log, accuracy) | {"interrupted": stopped}
        said = f"{folder.name} is at step {trainer.step}, loss {log.loss:.4f}: {folder}"
        if stopped:
            return Outcome(facts, f"{said}\nThe same command goes on from here.", code=130)
        card.write(folder, self._card(trainer, packs, log, accuracy))
        told = [f"told right in {name}: {share:.1%}" for name, share in accuracy.items()]
        return Outcome(facts, "\n".join([said, *told]))

    def plan(self) -> FeatureTraining:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(FeatureTraining)}
        plan = FeatureTraining(**fields)
        spec.check(plan)
        return plan

    def _folder(self) -> Path:
        folder = training.folder(self.out)
        if folder.is_dir() and formats.recognise(folder):
            raise SpecError(
                f"“{folder.name}” is a model that makes pictures.", "Give another name with --out."
            )
        return folder

    def _read(self, paths: tuple[str, ...], seed: int) -> dict[str, Pictures]:
        return {
            Path(path).name: training.pictures(path, self.size, self.compositions, seed)
            for path in paths
        }

    def _card(
        self,
        trainer: FeatureTrainer,
        packs: dict[str, Pictures],
        log: Log,
        accuracy: dict[str, float],
    ) -> str:
        learned = "; ".join(f"{name}: {len(pack)} pictures" for name, pack in packs.items())
        classes = "; ".join(", ".join(group) for group in trainer.info.classes) or "none"
        command = training.command_line("train-features", self)
        rows = "\n".join(f"| {name} | {share:.1%} |" for name, share in accuracy.items())
        return f"""# {trainer.folder.name}

{card.MARK}

A feature space: it says how far pictures are apart, and makes none.

| | |
|---|---|
| trained on | {learned} |
| classes | {classes} |
| steps | {trainer.step}, loss {log.loss:.4f} |
| time | {card.duration(log.seconds)} on {card.machine(trainer.device)} |

Made by

    {command}

| held-out pictures | told right |
|---|---:|
{rows}
"""

    def _facts(
        self,
        trainer: FeatureTrainer,
        packs: dict[str, Pictures],
        log: Log,
        accuracy: dict[str, float],
    ) -> dict[str, Any]:
        return {
            "name": trainer.folder.name,
            "path": str(trainer.folder),
            "pictures": {name: len(pack) for name, pack in packs.items()},
            "classes": [list(group) for group in trainer.info.classes],
            "steps": trainer.step,
            "loss": log.loss,
            "accuracy": accuracy,
            "pictures_per_second": log.speed,
            "seconds": round(log.seconds, 1),
            "device": trainer.device,
            "plan": spec.to_dict(trainer.plan),
        }
