"""`encode`, `decode`, `interpolate`: pictures and their noise, by the probability flow.

A latent file is an .npz, read without pickle: `latent`, float32 (N, C, H, W), the state at time 1,
and `about`, JSON text that says which model and SDE it belongs to.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio import recipes, spec, terminal
from studio.commands import Command, Outcome, given, positional
from studio.diffusion import pictures
from studio.diffusion.score import Score
from studio.engine.events import Event, Finished, Note, Progress
from studio.engine.flow_jobs import (
    MOST_FRAMES,
    Decoded,
    DecodeJob,
    Encoded,
    EncodeJob,
    InterpolateJob,
    RoundTripJob,
    row,
    there_and_back,
)
from studio.engine.jobs import Setting
from studio.errors import PictureError
from studio.paths import atomic
from studio.spec import option
from studio.weights.shelf import Shelf

_MOST = 64  # pictures in a latent file
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True)
class _FlowCommand(Command):
    tolerance: float = option(1e-5, range=(1e-7, 0.1), help="Of the solver; smaller is finer.")
    label: str = option("", help="As pictures of this class of the model.")
    device: str = option("auto", help="auto, cpu, cuda or mps.")

    def _setting(self, model: str) -> tuple[Setting, Score]:
        setting = Setting(Shelf(), self.device, rate=0)
        return setting, setting.shelf.load(model, setting.device)


@dataclass(frozen=True, kw_only=True)
class Encode(_FlowCommand):
    """Find the noise that a picture comes from, by the flow.

    The picture is fitted to the model as training fits it: a centred square, scaled.
    """

    model: str = positional(help="A name on the shelf, or the path of a model's folder.")
    picture: str = positional(help="A picture.")
    out: str = option("latent.npz", help="The .npz to write.")
    check: bool = option(False, help="Decode it again and tell the error.")

    def run(self) -> Outcome:
        out = given.to_write(self.out, ".npz")
        setting, score = self._setting(self.model)
        pixels = given.picture(Path(self.picture), score)[None]
        kind = RoundTripJob if self.check else EncodeJob
        job = kind(model=self.model, tolerance=self.tolerance, label=self.label, pixels=pixels)
        events, last = watch("Encoding", job.run(setting))
        latent = next(e.latent for e in events if isinstance(e, Encoded))
        data: dict[str, Any] = {
            "model": self.model,
            "file": str(out),
            "shape": list(latent.noise.shape),
            # One for noise: much more says that the model does not know such pictures.
            "deviation": latent.deviation,
            "mean": latent.mean,
            "correlation": latent.correlation,
            "calls": last.calls,
            "seconds": round(last.seconds, 3),
        }
        lines = [f"wrote {out}", f"noise of deviation {latent.deviation:.3f} (expected 1)"]
        for trip in (e.trip for e in events if isinstance(e, Decoded) and e.trip):
            data["roundtrip"] = asdict(trip)
            lines.append(
                f"round trip: error {trip.mean:.4f} / 255, at most {trip.max:.4f}, "
                f"PSNR {trip.psnr:.1f} dB"
            )
        write_latent(out, latent.noise, score, self.model)
        return Outcome(data, "\n".join([*lines, _cost(last)]))


@dataclass(frozen=True, kw_only=True)
class Decode(_FlowCommand):
    """Make the pictures that a file of noise stands for, by the flow."""

    model: str = positional(help="A name on the shelf, or the path of a model's folder.")
    latent: str = positional(help="An .npz that `encode` wrote.")
    out: str = option("out.png", help="The PNG to write.")
    temperature: float = option(
        1.0, range=(0.0, 2.0), help="Scales the noise. Below 1: plainer pictures."
    )

    def run(self) -> Outcome:
        out = given.to_write(self.out, ".png")
        setting, score = self._setting(self.model)
        job = DecodeJob(
            model=self.model,
            tolerance=self.tolerance,
            label=self.label,
            noise=read_latent(Path(self.latent), score),
            temperature=self.temperature,
        )
        finished, last = _finished("Decoding", job.run(setting))
        recipes.write_png(out, pictures.grid(finished.pictures))
        data = {
            "model": self.model,
            "file": str(out),
            "count": len(finished.pictures),
            "calls": last.calls,
            "seconds": round(last.seconds, 3),
        }
        return Outcome(data, f"wrote {out}\n{_cost(last)}")


@dataclass(frozen=True, kw_only=True)
class Interpolate(_FlowCommand):
    """Go from one picture to another through the noise that each comes from."""

    model: str = positional(help="A name on the shelf, or the path of a model's folder.")
    first: str = positional(help="The picture to begin with, or the seed of a sample.")
    second: str = positional(help="The picture to end with, or the seed of a sample.")
    count: int = option(8, range=(2, MOST_FRAMES), help="Pictures, with both ends.")
    temperature: float = option(
        1.0, range=(0.0, 2.0), help="Scales the noise. Below 1: plainer pictures."
    )
    out: str = option("strip.png", help="The PNG to write, all pictures in a row.")
    film: str = option("", help="Also write there and back as an animation, .webp or .gif.")

    def run(self) -> Outcome:
        files = [given.to_write(self.out, ".png")]
        if self.film:
            files.append(Path(self.film))
            recipes.check_animation(files[1])
            recipes.check_writable(files[1])
        setting, score = self._setting(self.model)
        job = InterpolateJob(
            model=self.model,
            tolerance=self.tolerance,
            label=self.label,
            ends=(_end(self.first, score), _end(self.second, score)),
            count=self.count,
            temperature=self.temperature,
        )
        finished, last = _finished("Interpolating", job.run(setting))
        recipes.write_png(files[0], recipes.enlarged(row(finished.pictures)))
        if self.film:
            recipes.write_animation(files[1], there_and_back(finished.pictures))
        data = {
            "model": self.model,
            "files": [str(path) for path in files],
            "count": self.count,
            "calls": last.calls,
            "seconds": round(last.seconds, 3),
        }
        return Outcome(data, "\n".join(f"wrote {path}" for path in files) + f"\n{_cost(last)}")


def _end(text: str, score: Score) -> np.ndarray | int:
    """What stands at an end of a way: a picture, or the seed that a whole number is."""
    path = Path(text)
    if text.isascii() and text.isdigit() and int(text) < 2**32 and not path.exists():
        return int(text)
    return given.picture(path, score)


# -- latents as files -----------------------------------------------------------------------------


def write_latent(path: Path, latent: np.ndarray, score: Score, model: str) -> None:
    """Write noise (N, C, H, W) with what it belongs to. Raises SaveError if it cannot be written."""
    about = {"version": 1, "model": model, "sde": spec.to_dict(score.sde)}
    with atomic(path) as temporary:
        np.savez_compressed(temporary, latent=latent, about=np.array(json.dumps(about)))


def read_latent(path: Path, score: Score) -> np.ndarray:
    """The noise in a file, float32 (N, C, H, W). Its content is untrusted.

    Raises PictureError if it cannot be read or is not for this model.
    """
    most = _MOST * math.prod(score.shape) * 8 + 2**16
    try:
        with path.open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > most:
                    raise ValueError("it is too large for this model")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                values = archive["latent"]
                about = json.loads(str(archive["about"])) if "about" in archive else {}
        sde = about.get("sde") if isinstance(about, dict) else None
    except FileNotFoundError as error:
        raise PictureError(f"There is no latent at {path}.") from error
    except (*_UNREADABLE, RecursionError) as error:
        raise PictureError(
            f"{path.name} is not a latent that can be read: {error}.", "Make one with encode."
        ) from error
    if values.dtype.kind != "f" or values.shape[1:] != score.shape or not 1 <= len(values) <= _MOST:
        raise PictureError(f"{path.name} holds no noise of shape {score.shape}, as this model has.")
    if not np.isfinite(values).all():
        raise PictureError(f"{path.name} holds noise that is not made of finite numbers.")
    if sde is not None and sde != spec.to_dict(score.sde):
        raise PictureError(
            f"{path.name} was made with another noising process than this model has.",
            "Decode it with the model that encoded it.",
        )
    return values.astype(np.float32)


# -- watching -------------------------------------------------------------------------------------


def watch(
    title: str, events: Iterator[Event], say: Callable[[Event], str] = lambda _: ""
) -> tuple[list[Event], Progress]:
    """Run a job to its end, showing how it goes, and what `say` has to say of an event: all of its
    events but Progress, and the last Progress."""
    kept, last, text = [], Progress(0, 0), ""
    with terminal.progress(title) as update:
        for event in events:
            if isinstance(event, Progress):
                last = event
                update(event.step, event.total, text or f"{event.calls} calls")
            elif isinstance(event, Note):
                if last.calls:  # that it begins need not be said
                    terminal.note(event.text)
            else:
                kept.append(event)
                text = say(event) or text
    return kept, last


def _finished(title: str, events: Iterator[Event]) -> tuple[Finished, Progress]:
    kept, last = watch(title, events)
    return next(e for e in kept if isinstance(e, Finished)), last


def _cost(last: Progress) -> str:
    return f"{last.calls} network calls, {last.seconds:.1f} s"
