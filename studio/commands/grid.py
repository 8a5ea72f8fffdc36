"""`score-studio grid`: two settings over a few values each, as one picture and a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from studio import choose, recipes, spec, terminal
from studio.commands import Command, Outcome, positional
from studio.engine.events import Failed, Finished, Note
from studio.engine.grid import Axis, CellDone, GridJob, GridRecipe, Laid, write
from studio.engine.jobs import SampleJob, Setting
from studio.errors import SaveError
from studio.weights.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class Grid(Command):
    """Sample over two settings, as a picture with a legend, a .csv and a .json beside it.

    A grid that was stopped goes on where it was when it is asked for again.
    """

    model: str = positional(help="A name on the shelf, or the path of a model's folder.")
    x: str = spec.option("steps=5,10,20,50", help="Across: a setting and its values.")
    y: str = spec.option(
        "sampler=dpm2m,ancestral,pc", help="Down; any setting of sample, such as seed=1,2,3."
    )
    out: str = spec.option("grid.png", help="The PNG to write.")
    sampler: str = spec.option("quick", help="Where neither axis is the sampler.")
    steps: int | None = spec.option(None, range=(1, 10_000), help="Where no axis is the steps.")
    count: int = spec.option(1, range=(1, 64), help="Pictures in a cell.")
    seed: int = spec.option(0, range=(0, 2**32 - 1), help="Picture i has the seed + i.")
    label: str = spec.option("", help="A class, or each for all in turn.")
    guidance: float = spec.option(1.0, range=(0, 100), help="How clearly the class is to show.")
    vary_seed: bool = spec.option(False, help="Every cell has another seed.")
    legend: bool = spec.option(True, help="Write what the cells are at the edges.")
    device: str = spec.option("auto", help="auto, cpu, cuda or mps.")

    def run(self) -> Outcome:
        out = Path(self.out)
        if out.suffix.lower() != ".png":
            raise SaveError(
                f"{out.name} is not named as a PNG.", f"Name it {out.stem or 'grid'}.png."
            )
        recipes.check_writable(out)
        sampler, note = choose.sampler(self.sampler, self.steps)
        if note:
            terminal.note(note)
        base = SampleJob(self.model, sampler, self.count, self.seed, self.label, self.guidance)
        recipe = GridRecipe(
            base=base, x=Axis.of(self.x), y=Axis.of(self.y), vary_seed=self.vary_seed
        )
        job = GridJob(recipe)
        setting = Setting(Shelf(), self.device, rate=0)
        done: dict[tuple[int, int], CellDone] = {}
        predicted, cells, failed, finished = math.nan, 0, [], None
        with terminal.progress("Grid") as update:
            for event in job.run(setting):
                if isinstance(event, Note):
                    terminal.note(event.text)
                elif isinstance(event, Laid):
                    predicted, cells = event.seconds, len(event.cells)
                    terminal.note(_cost(event))
                elif isinstance(event, Failed):
                    failed.append(event.message)
                    terminal.note(event.message)
                elif isinstance(event, CellDone):
                    done[event.column, event.row] = event
                    update(len(done), cells, f"{event.calls} calls")
                elif isinstance(event, Finished):
                    finished = event
        assert finished is not None
        facts = {
            "predicted_seconds": None if math.isnan(predicted) else round(predicted, 2),
            "seconds": round(finished.seconds, 2),
            "calls": finished.calls,
            "failed": failed,
            "device": setting.device,
        }
        data = write(job, done, out, self.legend, facts)
        text = "\n".join(f"wrote {path}" for path in data["files"])
        return Outcome(data, f"{text}\n{finished.calls} network calls, {finished.seconds:.1f} s")


def _cost(laid: Laid) -> str:
    kept = f"{laid.kept} kept from before, " if laid.kept else ""
    known = "" if math.isnan(laid.seconds) else f", about {laid.seconds:.0f} s"
    return f"{len(laid.cells)} cells: {kept}{laid.calls} network calls to make{known}"
