"""`score-studio replay`: a recipe once more, and whether the same pixels come out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from studio import recipes, spec, terminal
from studio.commands import Command, Outcome, positional
from studio.commands.drawing import watch
from studio.diffusion import pictures
from studio.engine import replay
from studio.engine.jobs import Setting
from studio.weights.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class Replay(Command):
    """Make the pictures of a .replay file, or of a PNG with a recipe, again; say if they are the same.

    Settings that differ from those the pictures were made with are said first. Exit code 3 if the
    pictures differ so that one can see it.
    """

    file: str = positional(help="A .replay file, or a picture that carries its recipe.")
    out: str = spec.option("", help="Also write what came out, as a PNG.")
    device: str = spec.option("auto", help="auto (as it was made, if it can be), cpu, cuda or mps.")

    def run(self) -> Outcome:
        if self.out:
            recipes.check_writable(Path(self.out))
        wanted = replay.read(Path(self.file))
        job = wanted.job()
        setting = Setting(
            Shelf(), replay.device_of(wanted, self.device), 0, wanted.made.get("dtype", "fp32")
        )
        changed = replay.differences(wanted, setting)
        for difference in changed:
            terminal.note(f"differs: {difference}")
        finished, _ = watch(job.run(setting), "Replaying")
        verdict = replay.judged(wanted, finished.pictures)
        if self.out:
            shown = finished.pictures
            sheet = shown[0] if len(shown) == 1 else pictures.grid(shown)
            recipes.write_png(Path(self.out), sheet, finished.recipe)
        data = {
            "file": self.file,
            **dataclasses.asdict(verdict),
            "differences": [dataclasses.asdict(d) for d in changed],
            "out": self.out,
            "device": setting.device,
            "calls": finished.calls,
            "seconds": round(finished.seconds, 3),
            "recipe": finished.recipe,
        }
        return Outcome(data, str(verdict), 3 if verdict.result == "different" else 0)
