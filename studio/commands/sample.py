"""`score-studio sample`: pictures from noise, into PNGs that carry their recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio import choose, recipes, spec, terminal
from studio.commands import Command, Outcome, positional
from studio.diffusion import pictures
from studio.diffusion.correctors import CORRECTORS
from studio.diffusion.predictors import PREDICTORS
from studio.diffusion.sampler import Sampler
from studio.diffusion.sde import SDE, SDES
from studio.engine.events import Begun, Event, Finished, Note, Progress
from studio.engine.jobs import SampleJob, Setting
from studio.engine.trajectory import VIEWS, Trajectory
from studio.errors import SaveError
from studio.weights.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class Sample(Command):
    """Sample pictures from a model.

    Several pictures are laid out as one sheet; with --separate each gets a file of its own.
    """

    model: str = positional(help="A name on the shelf, or the path of a model's folder.")
    out: str = spec.option("out.png", help="The PNG to write.")
    sampler: str = spec.option(
        "", help="pc, dpm2m, rk45, … or a preset; empty: what suits the model."
    )
    steps: int | None = spec.option(
        None, range=(1, 10_000), help="Steps; the sampler's own if not given."
    )
    count: int = spec.option(1, range=(1, 64), help="How many pictures.")
    seed: int = spec.option(0, range=(0, 2**32 - 1), help="Picture i has the seed + i.")
    label: str = spec.option(
        "", help="A class of the model or classifier, or each for all in turn."
    )
    guidance: float = spec.option(
        1.0, range=(0, 100), help="How clearly the class is to show; 1 is as it was learned."
    )
    classifier: str = spec.option(
        "", help="A classifier that knows the class (see train-classifier), for any model."
    )
    sde: str = spec.option(
        "", help=f"Another noising than the model's: {', '.join(SDES)}; --option sde.g=e^t."
    )
    preset: str = spec.option(
        "", help="A published configuration, for a model file that does not describe itself."
    )
    predictor: str = spec.option("", help=f"Of sampler pc: {', '.join(PREDICTORS)}.")
    corrector: str = spec.option("", help=f"Of sampler pc: {', '.join(CORRECTORS)}.")
    option: tuple[str, ...] = spec.option(
        (), help="Any other setting, as snr=0.2. May be repeated."
    )
    separate: bool = spec.option(False, help="Write out-1.png, out-2.png, … instead of one sheet.")
    frames: str = spec.option("", help="Also write the run as an animation, .webp or .gif.")
    view: str = spec.option("x", choices=VIEWS, help="What the animation shows.")
    device: str = spec.option("auto", help="auto, cpu, cuda or mps.")

    def run(self) -> Outcome:
        files = self._files()
        for path in files:
            recipes.check_writable(path)
        if self.frames:
            recipes.check_animation(Path(self.frames))
            recipes.check_writable(Path(self.frames))
        shelf = Shelf()
        sampler, notes = self._sampler(shelf)
        for text in notes:
            terminal.note(text)
        job = SampleJob(
            self.model,
            sampler,
            self.count,
            self.seed,
            self.label,
            self.guidance,
            self.classifier,
            self._sde(),
            self.preset,
        )
        setting = Setting(shelf, self.device, rate=0)
        finished, kept = _watch(job.run(setting))
        self._write(finished, files)
        if self.frames:
            recipes.write_animation(Path(self.frames), _moments(kept, self.view))
            files.append(Path(self.frames))
        data = {
            "model": self.model,
            "files": [str(path) for path in files],
            "sampler": spec.to_dict(sampler),
            "count": self.count,
            "seed": self.seed,
            "device": setting.device,
            "calls": finished.calls,
            "seconds": round(finished.seconds, 3),
            "notes": notes,
            "recipe": finished.recipe,
        }
        cost = f"{finished.calls} network calls, {finished.seconds:.1f} s"
        return Outcome(data, "\n".join(f"wrote {path}" for path in files) + f"\n{cost}")

    def _files(self) -> list[Path]:
        out = Path(self.out)
        if out.suffix.lower() != ".png":
            raise SaveError(
                f"{out.name} is not named as a PNG, which carries its recipe.",
                f"Name it {out.stem or 'out'}.png.",
            )
        if not self.separate:
            return [out]
        return [out.with_name(f"{out.stem}-{i + 1}{out.suffix}") for i in range(self.count)]

    def _sampler(self, shelf: Shelf) -> tuple[Sampler, list[str]]:
        info = shelf.find(self.model, self.preset).info
        suits = (info.preset if info else "") or "quick"
        wanted = {"predictor": self.predictor, "corrector": self.corrector}
        options = {k: v for k, v in wanted.items() if v} | self._options()[0]
        sampler, note = choose.sampler(self.sampler or suits, self.steps, options)
        return sampler, [note] if note else []

    def _sde(self) -> SDE | None:
        if not self.sde:
            return None
        return choose.with_options(spec.from_dict(SDE, {"kind": self.sde}), self._options()[1])

    def _options(self) -> tuple[dict[str, str], dict[str, str]]:
        """What --option says of the sampler, and of the SDE where one is named."""
        of_sampler, of_sde = choose.pairs(self.option), {}
        for name in [name for name in of_sampler if self.sde and name.startswith("sde.")]:
            of_sde[name.removeprefix("sde.")] = of_sampler.pop(name)
        return of_sampler, of_sde

    def _write(self, finished: Finished, files: list[Path]) -> None:
        if not self.separate:
            recipes.write_png(files[0], pictures.grid(finished.pictures), finished.recipe)
            return
        for i, (path, picture) in enumerate(zip(files, finished.pictures)):
            # Picture i comes out the same alone, with its own seed.
            alone = finished.recipe | {"count": 1, "seed": self.seed + i}
            recipes.write_png(path, picture, alone)


def _watch(events: Iterator[Event]) -> tuple[Finished, list[Trajectory]]:
    """Run a job to its end, showing how it goes; its result and the trajectories of its parts."""
    finished, begun = None, []
    with terminal.progress("Sampling") as update:
        for event in events:
            if isinstance(event, Note):
                terminal.note(event.text)
            elif isinstance(event, Begun):
                begun.append(event.trajectory)
            elif isinstance(event, Progress):
                update(event.step, event.total, f"{event.calls} calls")
            elif isinstance(event, Finished):
                finished = event
    assert finished is not None
    # A part that ran out of memory was begun again, smaller.
    whole = [t for t in begun if t.frames and t.frames[-1].log_snr == t.high]
    return finished, whole


def _moments(parts: list[Trajectory], view: str) -> list[np.ndarray]:
    """A sheet for each kept moment of a run, all parts side by side."""
    sheets = []
    for frame in parts[0].frames:
        near = [part.nearest(frame.log_snr) or frame for part in parts]
        # The last moment of a run has no score and no change: the picture ends every animation.
        shown = "denoised" if frame is parts[0].frames[-1] else view
        sheets.append(np.concatenate([moment.view(shown) for moment in near]))
    channels = max(sheet.shape[-1] for sheet in sheets)
    return [pictures.grid(s.repeat(channels // s.shape[-1], axis=-1)) for s in sheets]
