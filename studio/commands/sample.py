"""`score-studio sample`: pictures from noise, into PNGs that carry their recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studio import recipes, spec, terminal
from studio.commands import Outcome
from studio.commands.drawing import Drawing, watch
from studio.diffusion import pictures
from studio.engine.events import Finished
from studio.engine.jobs import Setting
from studio.errors import SaveError
from studio.weights.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class Sample(Drawing):
    """Sample pictures from a model.

    Several pictures are laid out as one sheet; with --separate each gets a file of its own.
    """

    out: str = spec.option("out.png", help="The PNG to write.")
    separate: bool = spec.option(False, help="Write out-1.png, out-2.png, … instead of one sheet.")

    def run(self) -> Outcome:
        files = self._files()
        for path in files:
            recipes.check_writable(path)
        self.check_frames()
        shelf = Shelf()
        sampler, notes = self.chosen(shelf, self.options())
        for text in notes:
            terminal.note(text)
        setting = Setting(shelf, self.device, rate=0)
        finished, kept = watch(self.job(sampler).run(setting))
        self._write(finished, files)
        files += self.write_frames(kept)
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

    def _write(self, finished: Finished, files: list[Path]) -> None:
        if not self.separate:
            recipes.write_png(files[0], pictures.grid(finished.pictures), finished.recipe)
            return
        for i, (path, picture) in enumerate(zip(files, finished.pictures)):
            # Picture i comes out the same alone, with its own seed.
            alone = finished.recipe | {"count": 1, "seed": self.seed + i}
            recipes.write_png(path, picture, alone)
