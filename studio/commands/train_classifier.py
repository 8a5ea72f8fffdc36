"""`score-studio train-classifier`: a labelled folder or pack into a classifier that guides models."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import choose, recipes, spec, terminal
from studio.commands import Command, Outcome, positional, training
from studio.errors import SpecError
from studio.training import card
from studio.training.classifier import ClassifierTrainer, ClassifierTraining
from studio.training.data import Pictures
from studio.training.log import Log
from studio.training.loop import train
from studio.weights import classifiers, formats
from studio.weights.devices import resolve

Accuracy = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class TrainClassifier(ClassifierTraining, Command):
    """Train a classifier of noised pictures, which guides models that know no classes.

    A run that exists under this name is resumed. Ctrl-C stops and saves.
    """

    data: str = positional(help="A folder with a folder for each class, or an image pack (.npz).")
    out: str = spec.option("", help="A name for it, or with a slash in it a folder. Needed.")
    compositions: int = spec.option(
        20_000, range=(2, 10**7), help="Pictures composed from a pack of parts."
    )
    save_seconds: float = spec.option(60.0, range=(0, 10**6), help="Seconds between saves.")
    device: str = spec.option("auto", help="auto, cpu, cuda or mps.")
    option: tuple[str, ...] = spec.option(
        (), help="A setting inside another, as sde.sigma_max=90. May be repeated."
    )

    def run(self) -> Outcome:
        folder, plan = self._folder(), self.plan()
        recipes.check_writable(folder / classifiers.WEIGHTS)
        device = resolve(self.device)
        found = training.pictures(self.data, plan.size, self.compositions, plan.seed)
        trainer = ClassifierTrainer(plan, found, folder, device)
        first = trainer.step
        if first:
            terminal.note(f"Resuming “{folder.name}” at step {first}")
        log = Log(folder, first)
        stopped = training.follow(train(trainer, self.save_seconds), log, self.batch)
        accuracy = [] if stopped else trainer.accuracy()
        facts = self._facts(trainer, found, log, accuracy)
        facts |= {"resumed_at": first, "interrupted": stopped}
        said = f"{folder.name} is at step {trainer.step}, loss {log.loss:.4f}: {folder}"
        if stopped:
            return Outcome(facts, f"{said}\nThe same command goes on from here.", code=130)
        card.write(folder, self._card(trainer, found, log, accuracy))
        return Outcome(facts, "\n".join([said, *_told(accuracy)]))

    def plan(self) -> ClassifierTraining:
        """The plan of this command: its fields, and what --option says inside them.

        Raises SpecError if a setting is unknown or out of bounds.
        """
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(ClassifierTraining)}
        plan = choose.with_options(ClassifierTraining(**fields), choose.pairs(self.option))
        spec.check(plan)
        return plan

    def _folder(self) -> Path:
        folder = training.folder(self.out)
        if folder.is_dir() and formats.recognise(folder):
            raise SpecError(
                f"“{folder.name}” is a model that makes pictures.", "Give another name with --out."
            )
        return folder

    def _card(
        self, trainer: ClassifierTrainer, found: Pictures, log: Log, accuracy: Accuracy
    ) -> str:
        text = card.text(
            name=trainer.folder.name,
            data=Path(self.data).name,
            pictures=found,
            command=training.command_line("train-classifier", self),
            step=trainer.step,
            curve=log.curve(),
            seconds=log.seconds,
            device=trainer.device,
        )
        rows = "\n".join(f"| {sigma:g} | {share:.1%} |" for sigma, share in accuracy)
        chance = f"Chance is {1 / len(found.classes):.1%} where classes are equally many."
        return (
            f"{text}\nA classifier of noised pictures: it guides models, and makes none.\n\n"
            f"| noise σ | held-out pictures told right |\n|---:|---:|\n{rows}\n\n{chance}\n"
        )

    def _facts(
        self, trainer: ClassifierTrainer, found: Pictures, log: Log, accuracy: Accuracy
    ) -> dict[str, Any]:
        return {
            "name": trainer.folder.name,
            "path": str(trainer.folder),
            "pictures": len(found),
            "classes": list(found.classes),
            "skipped": [{"file": name, "reason": reason} for name, reason in found.skipped],
            "steps": trainer.step,
            "loss": log.loss,
            "accuracy": [{"sigma": sigma, "share": share} for sigma, share in accuracy],
            "pictures_per_second": log.speed,
            "seconds": round(log.seconds, 1),
            "device": trainer.device,
            "plan": spec.to_dict(trainer.plan),
        }


def _told(accuracy: Accuracy) -> list[str]:
    return [f"told right at noise {sigma:g}: {share:.0%}" for sigma, share in accuracy]
