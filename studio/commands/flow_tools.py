"""`encode`, `decode`, `interpolate`: pictures and their noise, by the probability flow.

A latent file is an .npz, read without pickle: `latent`, float32 (N, C, H, W), the state at time 1,
and `about`, JSON text that says which model and SDE it belongs to.
"""

from __future__ import annotations

import json
import math
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studio import recipes, spec, terminal
from studio.commands import Command, Outcome, given, positional
from studio.diffusion import pictures
from studio.diffusion.flow import FlowMap, slerp
from studio.diffusion.sampler import Step
from studio.diffusion.score import Score
from studio.errors import PictureError
from studio.lazy import torch
from studio.paths import atomic
from studio.spec import option
from studio.weights.devices import resolve
from studio.weights.shelf import Shelf

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 64  # pictures in a latent file
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, kw_only=True)
class _FlowCommand(Command):
    tolerance: float = option(1e-5, range=(1e-7, 0.1), help="Of the solver; smaller is finer.")
    label: str = option("", help="As pictures of this class of the model.")
    device: str = option("auto", help="auto, cpu, cuda or mps.")

    def _score(self, model: str) -> Score:
        return Shelf().load(model, resolve(self.device))

    @property
    def _map(self) -> FlowMap:
        return FlowMap(self.tolerance, self.tolerance)

    def _encode(self, score: Score, pixels: np.ndarray) -> Step:
        x = pictures.to_state(pixels, score.value_range, score.device)
        labelled = given.of_class(score, self.label, len(x))
        return _watch("Encoding", self._map.encode(labelled, x))

    def _decode(self, score: Score, latent: Tensor) -> Step:
        labelled = given.of_class(score, self.label, len(latent))
        return _watch("Decoding", self._map.decode(labelled, latent))


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
        score = self._score(self.model)
        pixels = given.picture(Path(self.picture), score)[None]
        begun = time.perf_counter()
        end = self._encode(score, pixels)
        data: dict[str, Any] = {
            "model": self.model,
            "file": str(out),
            "shape": list(end.x.shape),
            # One for noise: much more says that the model does not know such pictures.
            "deviation": float(end.x.std()) / score.sde.prior_std,
            "calls": end.nfe,
        }
        lines = [f"wrote {out}", f"noise of deviation {data['deviation']:.3f} (expected 1)"]
        if self.check:
            back = self._decode(score, end.x)
            x = pictures.to_state(pixels, score.value_range, score.device)
            data["roundtrip"] = roundtrip(x, back.x, score)
            data["calls"] += back.nfe
            lines.append(
                "round trip: error {mean:.4f} / 255, at most {max:.4f}".format(**data["roundtrip"])
            )
        data["seconds"] = round(time.perf_counter() - begun, 3)
        write_latent(out, end.x, score, self.model)
        return Outcome(data, "\n".join([*lines, _cost(data)]))


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
        score = self._score(self.model)
        latent = read_latent(Path(self.latent), score)
        begun = time.perf_counter()
        end = self._decode(score, latent * self.temperature)
        made = pictures.to_pictures(end.x, score.value_range)
        recipes.write_png(out, pictures.grid(made))
        data = {
            "model": self.model,
            "file": str(out),
            "count": len(made),
            "calls": end.nfe,
            "seconds": round(time.perf_counter() - begun, 3),
        }
        return Outcome(data, f"wrote {out}\n{_cost(data)}")


@dataclass(frozen=True, kw_only=True)
class Interpolate(_FlowCommand):
    """Go from one picture to another through the noise that each comes from."""

    model: str = positional(help="A name on the shelf, or the path of a model's folder.")
    first: str = positional(help="The picture to begin with.")
    second: str = positional(help="The picture to end with.")
    count: int = option(8, range=(2, _MOST), help="Pictures, with both ends.")
    out: str = option("strip.png", help="The PNG to write, all pictures in a row.")
    film: str = option("", help="Also write there and back as an animation, .webp or .gif.")

    def run(self) -> Outcome:
        files = [given.to_write(self.out, ".png")]
        if self.film:
            files.append(Path(self.film))
            recipes.check_animation(files[1])
            recipes.check_writable(files[1])
        score = self._score(self.model)
        pixels = np.stack([given.picture(Path(p), score) for p in (self.first, self.second)])
        begun = time.perf_counter()
        ends = self._encode(score, pixels)
        shares = torch.linspace(0, 1, self.count, device=ends.x.device)
        between = self._decode(score, slerp(ends.x[0], ends.x[1], shares))
        made = pictures.to_pictures(between.x, score.value_range)
        recipes.write_png(files[0], recipes.enlarged(_row(made)))
        if self.film:
            recipes.write_animation(files[1], [*made, *made[-2:0:-1]])
        data = {
            "model": self.model,
            "files": [str(path) for path in files],
            "count": self.count,
            "calls": ends.nfe + between.nfe,
            "seconds": round(time.perf_counter() - begun, 3),
        }
        return Outcome(data, "\n".join(f"wrote {path}" for path in files) + f"\n{_cost(data)}")


# -- latents as files -----------------------------------------------------------------------------


def write_latent(path: Path, latent: Tensor, score: Score, model: str) -> None:
    """Write noise (N, C, H, W) with what it belongs to. Raises SaveError if it cannot be written."""
    about = {"version": 1, "model": model, "sde": spec.to_dict(score.sde)}
    values = latent.detach().float().cpu().numpy()
    with atomic(path) as temporary:
        np.savez_compressed(temporary, latent=values, about=np.array(json.dumps(about)))


def read_latent(path: Path, score: Score) -> Tensor:
    """The noise in a file, (N, C, H, W) on the score's device. Its content is untrusted.

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
    return torch.from_numpy(values.astype(np.float32)).to(score.device)


def roundtrip(x: Tensor, back: Tensor, score: Score) -> dict[str, float]:
    """The largest and the mean error of pictures that went to noise and back, in 1/255."""
    low, high = score.value_range
    error = (back - x).abs() * (255 / (high - low))
    return {"max": float(error.max()), "mean": float(error.mean())}


def _row(stack: np.ndarray, gap: int = 2) -> np.ndarray:
    """Pictures (N, H, W, C) side by side."""
    n, h, w, c = stack.shape
    row = np.full((h, n * (w + gap) - gap, c), 128, np.uint8)
    for i, picture in enumerate(stack):
        row[:, i * (w + gap) : i * (w + gap) + w] = picture
    return row


def _watch(title: str, steps: Iterator[Step]) -> Step:
    step = None
    with terminal.progress(title) as update:
        for step in steps:
            update(step.index, step.total, f"{step.nfe} calls")
    assert step is not None
    return step


def _cost(data: dict[str, Any]) -> str:
    return f"{data['calls']} network calls, {data['seconds']:.1f} s"
