"""What the commands that draw with a model share: sampler, seed, class, and how a run is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio import choose, photos, recipes, spec, terminal
from studio.commands import Command, positional
from studio.diffusion import pictures
from studio.diffusion.correctors import CORRECTORS
from studio.diffusion.predictors import PREDICTORS
from studio.diffusion.sampler import Sampler
from studio.diffusion.sde import SDE, SDES
from studio.engine.events import Begun, Event, Finished, Note, Progress
from studio.engine.jobs import SampleJob
from studio.engine.trajectory import VIEWS, Trajectory
from studio.weights.shelf import Shelf

_LONGEST = 2048  # pixels of an animation's longer side


@dataclass(frozen=True, kw_only=True)
class Drawing(Command):
    """Options of every run of a sampler."""

    model: str = positional(help="A name on the shelf, or the path of a model's folder.")
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
    frames: str = spec.option("", help="Also write the run as an animation, .webp or .gif.")
    view: str = spec.option("x", choices=VIEWS, help="What the animation shows.")
    device: str = spec.option("auto", help="auto, cpu, cuda or mps.")

    def check_frames(self) -> None:
        """Raise SaveError, before long work, if the animation that is wanted cannot be written."""
        if self.frames:
            recipes.check_animation(Path(self.frames))
            recipes.check_writable(Path(self.frames))

    def write_frames(self, kept: list[Trajectory]) -> list[Path]:
        """Write the animation if it is wanted. What was written."""
        if not self.frames:
            return []
        recipes.write_animation(Path(self.frames), moments(kept, self.view))
        return [Path(self.frames)]

    def chosen(self, shelf: Shelf, options: dict[str, str]) -> tuple[Sampler, list[str]]:
        """The sampler with its options, and what is to be told about it. Raises StudioError."""
        info = shelf.find(self.model, self.preset).info
        suits = (info.preset if info else "") or "quick"
        wanted = {"predictor": self.predictor, "corrector": self.corrector}
        options = {k: v for k, v in wanted.items() if v} | options
        sampler, note = choose.sampler(self.sampler or suits, self.steps, options)
        return sampler, [note] if note else []

    def job(self, sampler: Sampler) -> SampleJob:
        """What is sampled, apart from what a command adds. Raises SpecError."""
        return SampleJob(
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

    def options(self) -> dict[str, str]:
        """What --option says of everything but the SDE. Raises SpecError."""
        return self._options()[0]

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


def watch(
    events: Iterator[Event], title: str = "Sampling", note: Callable[[str], None] = terminal.note
) -> tuple[Finished, list[Trajectory]]:
    """Run a job to its end, showing how it goes; its result and the trajectories of its parts."""
    finished, begun = None, []
    with terminal.progress(title) as update:
        for event in events:
            if isinstance(event, Note):
                note(event.text)
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


def moments(parts: list[Trajectory], view: str) -> list[np.ndarray]:
    """A sheet for each kept moment of a run, all its parts side by side; of runs of several sizes, one
    after another."""
    runs: dict[tuple[int, ...], list[Trajectory]] = {}
    for part in parts:
        runs.setdefault(part.frames[0].x.shape[1:3], []).append(part)
    sheets = [sheet for run in runs.values() for sheet in _sheets(run, view)]
    height, width = (max(sheet.shape[i] for sheet in sheets) for i in (0, 1))
    shrink = min(1.0, _LONGEST / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    return [photos.resized(sheet, size) for sheet in sheets]


def _sheets(parts: list[Trajectory], view: str) -> list[np.ndarray]:
    sheets = []
    for frame in parts[0].frames:
        near = [part.nearest(frame.log_snr) or frame for part in parts]
        # The last moment of a run has no score and no change: the picture ends every animation.
        shown = "denoised" if frame is parts[0].frames[-1] else view
        sheets.append(np.concatenate([moment.view(shown) for moment in near]))
    channels = max(sheet.shape[-1] for sheet in sheets)
    return [pictures.grid(s.repeat(channels // s.shape[-1], axis=-1)) for s in sheets]
