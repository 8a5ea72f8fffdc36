"""`score-studio evaluate-painting`: how close repainted parts come to what was there."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from studio import choose, recipes, spec, terminal
from studio.commands import Command, Outcome, positional
from studio.commands.given import pictures
from studio.diffusion.tasks import METHODS, Inpaint, Method
from studio.engine.events import Finished
from studio.engine.jobs import SampleJob, Setting
from studio.engine.paint import PaintJob, PaintRecipe
from studio.weights.devices import resolve
from studio.weights.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class EvaluatePainting(Command):
    """Repaint parts of held-out pictures by every method, and compare with what was there.

    Three masks: a box in the middle, the right half, a scribble. The figure is the peak signal-to-noise
    ratio inside the mask, which rewards the mean of all answers more than a good one; seconds are those
    of one picture.
    """

    model: str = positional(help="A name on the shelf, or the path of a model's folder.")
    data: str = positional(help="Pictures that the model has not seen: a folder or an image pack.")
    sampler: str = spec.option("dpm2m-sde", help="A sampler with fixed steps.")
    steps: int = spec.option(30, range=(2, 1000), help="Its steps.")
    count: int = spec.option(16, range=(1, 1000), help="Pictures, the first ones.")
    tries: int = spec.option(2, range=(1, 16), help="Candidates for each.")
    out: str = spec.option("", help="Also write a PNG of the pictures, masked and repainted.")
    device: str = spec.option("auto", help="auto, cpu, cuda or mps.")

    def run(self) -> Outcome:
        shelf = Shelf()
        setting = Setting(shelf, self.device, rate=0)
        given = pictures(
            Path(self.data), shelf.load(self.model, resolve(self.device)).shape, self.count
        )
        sampler, _ = choose.sampler(self.sampler, self.steps)
        sample = SampleJob(self.model, sampler, self.tries)
        rows, shown = [], []
        masks = _masks(given.pixels.shape[1])
        with terminal.progress("Repainting") as update:
            for mask_name, mask in masks.items():
                for method in METHODS:
                    row, results = self._measured(setting, given.pixels, mask, method, sample)
                    rows.append({"mask": mask_name, "method": method} | row)
                    shown.append(np.concatenate(results, 1))
                    update(len(rows), len(masks) * len(METHODS), f"{mask_name}, {method}")
        if self.out:
            recipes.write_png(Path(self.out), recipes.enlarged(np.concatenate(shown)))
        return Outcome({"rows": rows, "device": setting.device}, _table(rows))

    def _measured(
        self, setting: Setting, stack: np.ndarray, mask: np.ndarray, method: str, sample: SampleJob
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        ratios, results, calls, begun = [], [], 0, time.perf_counter()
        for i, pixels in enumerate(stack):
            picture = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
            recipe = PaintRecipe(
                sample=replace(sample, seed=i),
                task=Inpaint(spec.from_dict(Method, {"kind": method})),
            )
            finished = _finished(PaintJob(recipe, picture, mask), setting)
            calls += finished.calls
            ratios += [_ratio(made, picture, mask) for made in finished.pictures]
            results.append(np.concatenate([picture, *finished.pictures]))
        seconds = (time.perf_counter() - begun) / (len(stack) * sample.count)
        row = {
            "psnr": round(float(np.mean(ratios)), 2),
            "error": round(float(np.std(ratios) / math.sqrt(len(ratios))), 2),
            "seconds": round(seconds, 3),
            "calls": round(calls / len(stack), 1),
        }
        return row, results


def _finished(job: PaintJob, setting: Setting) -> Finished:
    found = [event for event in job.run(setting) if isinstance(event, Finished)]
    return found[0]


def _masks(side: int) -> dict[str, np.ndarray]:
    """A box in the middle, the right half and a scribble, for pictures of a size."""
    box, half = (np.zeros((side, side), np.uint8) for _ in range(2))
    box[side * 5 // 16 : side * 3 // 4, side * 5 // 16 : side * 3 // 4] = 255
    half[:, side // 2 :] = 255
    page = Image.new("L", (side, side))
    points = [(0.1, 0.88), (0.31, 0.25), (0.5, 0.7), (0.75, 0.19), (0.9, 0.62)]
    line = [(x * side, y * side) for x, y in points]
    ImageDraw.Draw(page).line(line, fill=255, width=max(1, side // 8))
    return {"box": box, "half": half, "scribble": np.asarray(page)}


def _ratio(made: np.ndarray, picture: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio inside the mask, in dB."""
    away = (made.astype(float) - picture)[mask > 0]
    return 10 * math.log10(255**2 / max(1e-9, float((away**2).mean())))


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'mask':10}{'method':10}{'PSNR dB':>14}{'s/picture':>11}{'calls':>8}"]
    for r in rows:
        psnr = f"{r['psnr']:.1f} ± {r['error']:.1f}"
        lines.append(
            f"{r['mask']:10}{r['method']:10}{psnr:>14}{r['seconds']:>11.2f}{r['calls']:>8.0f}"
        )
    return "\n".join(lines)
