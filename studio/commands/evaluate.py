"""`score-studio evaluate`: the figures of a model's card, measured again."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from studio import choose, recipes, terminal
from studio.commands import Command, Outcome, positional
from studio.diffusion import pictures
from studio.errors import DataError
from studio.spec import option
from studio.weights.devices import resolve
from studio.weights.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Measure a model against pictures: grain, and whether the class asked for is recognised."""

    model: str = positional(help="A name on the shelf, or the path of a model's folder.")
    data: str = positional(help="Pictures to compare with: a folder or an image pack (.npz).")
    sampler: str = option("quick", help="A sampler or preset by its short name.")
    count: int = option(128, range=(2, 100_000), help="Pictures to sample.")
    seed: int = option(0, range=(0, 2**32 - 1), help="Picture i has the seed + i.")
    compositions: int = option(4000, range=(100, 10**6), help="Compositions from a pack of parts.")
    sheet: str = option("", help="Write the sampled pictures to this PNG as well.")
    device: str = option("auto", help="auto, cpu, cuda or mps.")

    def run(self) -> Outcome:
        from studio.training import data as packs
        from studio.training import evaluation

        score = Shelf().load(self.model, resolve(self.device))
        sampler, _ = choose.sampler(self.sampler)
        # A seed of its own: the compositions are not those that the model was trained on.
        real = packs.load(Path(self.data), score.shape[1], self.compositions, seed=987_654_321)
        if real.pixels.shape[1:] != (*score.shape[1:], score.shape[0]):
            raise DataError(f"{self.data} has other channels than {self.model}.")
        terminal.note(f"Sampling {self.count} pictures")
        begun = time.perf_counter()
        made, labels = evaluation.draw(score, sampler, self.count, self.seed)
        seconds = time.perf_counter() - begun
        figures = evaluation.figures(score, made, labels, real)
        if self.sheet:
            recipes.write_png(Path(self.sheet), pictures.grid(made))
        data = dataclasses.asdict(figures) | {"seconds": seconds}
        return Outcome(data, "\n".join(_told(figures)))


def _told(figures: object) -> list[str]:
    facts = dataclasses.asdict(figures)  # type: ignore[call-overload]
    lines = [
        f"pictures    {facts['count']}",
        f"grain       {facts['grain']:.2f} grey levels, median (real {facts['real_grain']:.2f})",
    ]
    if facts["recovered"] == facts["recovered"]:
        lines.append(
            f"class       {100 * facts['recovered']:.1f} % recognised "
            f"(real {100 * facts['real_recovered']:.1f} %)"
        )
    return lines
