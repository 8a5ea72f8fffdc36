"""`score-studio likelihood`: how many bits a model needs for a picture."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio import recipes, spec, terminal
from studio.commands import Command, Outcome, given, positional
from studio.commands.flow_tools import watch
from studio.diffusion.likelihood import Measure
from studio.engine.events import Event
from studio.engine.flow_jobs import LikelihoodJob, Measured, shades
from studio.engine.jobs import Setting
from studio.spec import option
from studio.weights.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class Likelihood(Command):
    """Measure how likely a model finds pictures: bits per dimension, the fewer the likelier.

    A picture is fitted to the model as training fits it: a centred square, scaled.
    """

    model: str = positional(help="A name on the shelf, or the path of a model's folder.")
    data: str = positional(help="A picture, a folder of pictures or an image pack (.npz).")
    repeats: int = option(1, range=(1, 100), help="Measurements of each picture, averaged.")
    probes: int = option(2, range=(1, 1000), help="Probes of the trace; more narrow the error.")
    tolerance: float = option(1e-5, range=(1e-7, 0.1), help="Of the solver. Quick: 1e-4.")
    exact: bool = option(False, help="The exact trace instead of probes. For tiny pictures.")
    map: str = option("", help="Also write where the log density changes, to this PNG.")
    limit: int = option(64, range=(1, 10**6), help="Pictures of a folder or pack, at most.")
    label: str = option("", help="As pictures of this class of the model.")
    seed: int = option(0, range=(0, 2**32 - 1), help="Picture i is measured with the seed + i.")
    batch: int = option(8, range=(1, 4096), help="Pictures at once.")
    device: str = option("auto", help="auto, cpu, cuda or mps.")

    def run(self) -> Outcome:
        shown = given.to_write(self.map, ".png") if self.map else None
        setting = Setting(Shelf(), self.device, rate=2)
        score = setting.shelf.load(self.model, setting.device)
        chosen = given.pictures(Path(self.data), score.shape, self.limit)
        if chosen.left_out:
            terminal.note(f"Measuring the first {len(chosen.names)}; --limit takes more")
        measure = self._measure()
        job = LikelihoodJob(
            self.model, (chosen.pixels,), measure, self.label, self.seed, self.batch
        )
        events, last = watch("Measuring", job.run(setting), _running)
        ends = [e for e in events if isinstance(e, Measured) and e.finished]
        bits = [b for end in ends for b in end.bits.tolist()]
        errors = [e for end in ends for e in end.error.tolist()]
        mean, error = _mean(bits, errors)
        data = {
            "model": self.model,
            "files": [
                {"path": p, "bits": b, "error": e} for p, b, e in zip(chosen.names, bits, errors)
            ],
            "mean": mean,
            "error": error,
            "skipped": [{"path": p, "reason": why} for p, why in chosen.skipped],
            "left_out": chosen.left_out,
            "measure": spec.to_dict(measure),
            "calls": last.calls,
            "seconds": round(last.seconds, 3),
        }
        if shown:
            data["map"] = _write_map(shown, np.concatenate([end.map for end in ends]))
        return Outcome(data, "\n".join(_told(data)))

    def _measure(self) -> Measure:
        return Measure(
            method="exact" if self.exact else "hutchinson",
            probes=self.probes,
            repeats=self.repeats,
            rtol=self.tolerance,
            atol=self.tolerance,
        )


def _running(event: Event) -> str:
    return f"{event.bits.mean():.2f} bits per dimension" if isinstance(event, Measured) else ""


def _mean(bits: list[float], errors: list[float]) -> tuple[float, float]:
    """The mean and its standard error: of the pictures' spread, or of the one picture."""
    if len(bits) == 1:
        return bits[0], errors[0]
    return statistics.fmean(bits), statistics.stdev(bits) / math.sqrt(len(bits))


def _write_map(path: Path, maps: np.ndarray) -> dict[str, object]:
    """The maps (N, H, W) as grey pictures, from black where the density changes least to white."""
    stack, (low, high) = shades(maps)
    recipes.write_png(path, recipes.contact_sheet(stack[..., None]))
    return {"path": str(path), "black": low, "white": high, "unit": "nats per value"}


def _told(data: dict[str, object]) -> list[str]:
    files = data["files"]
    assert isinstance(files, list)
    lines = [f"{_figure(f['bits'], f['error'])}  {f['path']}" for f in files]
    if len(files) > 1:
        lines.append(f"{_figure(data['mean'], data['error'])}  mean of {len(files)} pictures")
    skipped = data["skipped"]
    assert isinstance(skipped, list)
    lines += [f"skipped {s['path']}: {s['reason']}" for s in skipped]
    return [*lines, f"bits per dimension; {data['calls']} network calls, {data['seconds']:.1f} s"]


def _figure(bits: object, error: object) -> str:
    unknown = not isinstance(error, float) or math.isnan(error)
    return f"{bits:.4f}" + ("" if unknown else f" ± {error:.4f}")
