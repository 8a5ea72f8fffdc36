"""`score-studio train`: a folder of pictures, or a pack, into a model of your own."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import choose, recipes, spec, terminal
from studio.commands import Command, Outcome, positional, training
from studio.diffusion import pictures
from studio.diffusion.noise import Noise
from studio.engine.jobs import class_condition
from studio.errors import SaveError
from studio.training import card
from studio.training.data import Pictures
from studio.training.log import Log
from studio.training.loop import TrainStep, train
from studio.training.plan import Training
from studio.training.trainer import Trainer, begun
from studio.weights.devices import resolve
from studio.weights.model import ModelInfo
from studio.weights.shelf import Shelf

_SHOWN = 16  # pictures in a sample of the run
_SAMPLE_STEPS = 20
_FINE_RATE = 1e-4  # from trained weights, faster steps forget more than they learn


@dataclass(frozen=True, kw_only=True)
class Train(Training, Command):
    """Train a model on a folder of pictures or a pack.

    A run that exists under this name is resumed. Ctrl-C stops and saves.
    """

    data: str = positional(help="A folder of pictures, or an image pack (.npz).")
    out: str = spec.option("", help="A name for the shelf, or with a slash in it a folder. Needed.")
    compositions: int = spec.option(
        60_000, range=(2, 10**7), help="Pictures composed from a pack of parts."
    )
    sample_every: int = spec.option(
        500, range=(0, 10**8), help="Steps between samples of the run; 0 for none."
    )
    save_seconds: float = spec.option(60.0, range=(0, 10**6), help="Seconds between saves.")
    device: str = spec.option("auto", help="auto, cpu, cuda or mps.")
    option: tuple[str, ...] = spec.option(
        (), help="A setting inside another, as objective.mean=-1.5. May be repeated."
    )

    def run(self) -> Outcome:
        folder = training.folder(self.out)
        before = begun(folder)
        start = Shelf().find(self.start).opened if self.start and before is None else None
        plan = self.plan(before.info if before else start.info if start else None)
        recipes.check_writable(folder / "model.safetensors")
        device = resolve(self.device)
        found = training.pictures(self.data, plan.size, self.compositions, plan.seed)
        trainer = Trainer(plan, found, folder, device, start)
        if trainer.step:
            terminal.note(f"Resuming “{folder.name}” at step {trainer.step}")
        log = Log(folder, trainer.step)
        first = trainer.step
        stopped = self._train(trainer, log)
        facts = self._facts(trainer, found, log) | {"resumed_at": first, "interrupted": stopped}
        said = f"{folder.name} is at step {trainer.step}, loss {log.loss:.4f}: {folder}"
        if stopped:
            return Outcome(facts, f"{said}\nThe same command goes on from here.", code=130)
        card.write(folder, self._card(trainer, found, log))
        return Outcome(facts, said)

    def plan(self, start: ModelInfo | None = None) -> Training:
        """The plan of this command: its fields, and what --option says inside them.

        The model that it starts from brings its size, SDE, output and network, and a slower rate
        unless one is given. Raises SpecError if a setting is unknown or out of bounds.
        """
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(Training)}
        if self.start and self.rate == Training.rate:
            fields["rate"] = _FINE_RATE
        if self.start and start is not None:
            fields |= {k: getattr(start, k) for k in ("size", "sde", "output", "network")}
        plan = choose.with_options(Training(**fields), choose.pairs(self.option))
        spec.check(plan)
        return plan

    def _train(self, trainer: Trainer, log: Log) -> bool:
        def sample(step: TrainStep) -> None:
            if self._samples_due(step):
                _write_samples(trainer, step.step)
                log.pause()

        return training.follow(train(trainer, self.save_seconds), log, self.batch, sample)

    def _samples_due(self, step: TrainStep) -> bool:
        return (
            bool(self.sample_every)
            and not math.isnan(step.loss)
            and (step.step % self.sample_every == 0)
        )

    def _card(self, trainer: Trainer, found: Pictures, log: Log) -> str:
        return card.text(
            name=trainer.folder.name,
            data=Path(self.data).name,
            pictures=found,
            command=training.command_line("train", self),
            step=trainer.step,
            curve=log.curve(),
            seconds=log.seconds,
            device=trainer.device,
        )

    def _facts(self, trainer: Trainer, found: Pictures, log: Log) -> dict[str, Any]:
        return {
            "name": trainer.folder.name,
            "path": str(trainer.folder),
            "pictures": len(found),
            "classes": list(found.classes),
            "skipped": [{"file": name, "reason": reason} for name, reason in found.skipped],
            "steps": trainer.step,
            "loss": log.loss,
            "pictures_per_second": log.speed,
            "seconds": round(log.seconds, 1),
            "device": trainer.device,
            "plan": spec.to_dict(trainer.plan),
        }


def _write_samples(trainer: Trainer, step: int) -> None:
    """What the model makes of the same noise at this step. A full disk does not end the run."""
    score = trainer.score()
    sampler, _ = choose.sampler("dpm2m", _SAMPLE_STEPS)
    condition = class_condition(score, "each" if score.classes else "", _SHOWN, 0)
    noise = Noise.of(0, _SHOWN, score.shape, score.sde, device=trainer.device)
    (last,) = deque(sampler.run(score, noise, condition), maxlen=1)
    sheet = recipes.contact_sheet(pictures.to_pictures(last.x, score.value_range))
    try:
        recipes.write_png(trainer.folder / "samples" / f"step-{step:06}.png", sheet)
    except SaveError as error:
        terminal.note(str(error))
