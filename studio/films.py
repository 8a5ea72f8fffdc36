"""Films of a run: GIF, WebP and MP4, with captions; and strips of its moments as one picture.

A shot is one moment: a stack of pictures, uint8 (N, H, W, C), and where the run was. MP4 needs the
package imageio-ffmpeg, which brings its own ffmpeg; the other kinds need nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from studio import recipes
from studio.errors import SaveError
from studio.paths import atomic
from studio.spec import option

SUFFIXES = (*recipes.ANIMATIONS, ".mp4")
_LONGEST = 2048  # pixels of a film's longer side
_LONGEST_NOTE = 30_000  # characters that every system takes as an argument
_CELL = 96  # pixels of the shorter side of a picture in a strip
_DARK, _LIGHT = (24, 24, 27), (236, 236, 240)


@dataclass(frozen=True)
class Film:
    """How a film of a run looks."""

    view: str = option(
        "denoised",
        label="View",
        choices=("x", "denoised", "score", "change"),
        help="x is the noisy state, denoised what the model expects.",
    )
    fps: float = option(
        0.0, label="Frames a second", range=(0, 60), help="0: as many as make four seconds."
    )
    hold: float = option(
        2.0, label="Hold", range=(0, 30), help="Seconds for which the result stays."
    )
    ping_pong: bool = option(False, label="There and back")
    caption: str = option(
        "sigma",
        label="Caption",
        choices=("sigma", "log-SNR", "step", "none"),
        help="Below the picture, with step and network calls.",
    )


@dataclass(frozen=True, eq=False)
class Shot:
    """A moment of a run: pictures, uint8 (N, H, W, C), of the size of all others of the film."""

    pictures: np.ndarray
    log_snr: float
    step: int
    calls: int


def check(path: Path) -> None:
    """Raise SaveError, before long work, if `path` is not named as a film that can be written here."""
    if path.suffix.lower() not in SUFFIXES:
        raise SaveError(
            f"{path.name} cannot hold a film.",
            f"Name it {path.stem}.webp, {path.stem}.gif or {path.stem}.mp4.",
        )
    if path.suffix.lower() == ".mp4" and not has_mp4():
        raise SaveError(
            "MP4 films need a package that is not installed.",
            "pip install imageio-ffmpeg, or save a WebP.",
        )


def has_mp4() -> bool:
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def write(
    path: Path, shots: Sequence[Shot], film: Film, recipe: dict[str, Any] | None = None
) -> None:
    """Write a film by its suffix, with the job that made it. The file is replaced as a whole.

    Raises SaveError if it cannot be written.
    """
    check(path)
    if not shots:
        raise SaveError(f"There is no frame to put into {path.name}.")
    frames, held = [sheet(shot, film.caption) for shot in shots], len(shots) - 1
    if film.ping_pong:
        frames = [*frames, *frames[-2:0:-1]]
    seconds = len(frames) / film.fps if film.fps else 4.0
    if path.suffix.lower() == ".mp4":
        rate = min(60.0, max(1.0, len(frames) / seconds))
        still = [frames[held]] * round(film.hold * rate)
        _write_mp4(path, [*frames[: held + 1], *still, *frames[held + 1 :]], rate, recipe)
    else:
        recipes.write_animation(path, frames, seconds, film.hold, recipe, held)


def _write_mp4(
    path: Path, frames: list[np.ndarray], rate: float, recipe: dict[str, Any] | None
) -> None:
    writing = importlib.import_module("imageio_ffmpeg").write_frames
    frames = [_even(frame) for frame in frames]
    height, width = frames[0].shape[:2]
    extra = ["-movflags", "+faststart"]
    if recipe is not None and len(text := recipes.note(recipe)) <= _LONGEST_NOTE:
        extra += ["-metadata", f"comment={text}"]
    with atomic(path) as temporary:
        writer = writing(
            str(temporary),
            (width, height),
            fps=rate,
            codec="libx264",
            quality=8,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=extra,
        )
        writer.send(None)
        try:
            for frame in frames:
                writer.send(frame.tobytes())
        finally:
            writer.close()
        if not temporary.stat().st_size:
            raise OSError(0, "ffmpeg wrote nothing")


def _even(frame: np.ndarray) -> np.ndarray:
    """A frame (H, W, 3) with even sides, which the colours of an MP4 need."""
    h, w = frame.shape[:2]
    return np.ascontiguousarray(np.pad(frame, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge"))


# -- pictures ---------------------------------------------------------------------------------------


def sheet(shot: Shot, style: str = "sigma") -> np.ndarray:
    """A shot as one picture (H, W, 3), large enough to be seen, with its caption below it."""
    picture = _coloured(recipes.contact_sheet(shot.pictures))
    if (scale := _LONGEST / max(picture.shape[:2])) < 1:
        height, width = (max(1, round(v * scale)) for v in picture.shape[:2])
        small = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        picture = np.array(small)
    return captioned(picture, captions(shot, style))


def strip(shots: Sequence[Shot], count: int = 12, style: str = "sigma") -> np.ndarray:
    """`count` moments side by side, evenly in log-SNR, as one picture (H, W, 3): a row for each of
    their pictures."""
    if not shots:
        raise SaveError("There is no frame to put into a strip.")
    columns = []
    for shot in evenly(shots, count):
        cells = [recipes.enlarged(_coloured(picture), _CELL) for picture in shot.pictures]
        gap = np.full((2, *cells[0].shape[1:]), _DARK, np.uint8)
        column = np.concatenate([part for cell in cells for part in (cell, gap)][:-1])
        column = captioned(column, captions(shot, style)[-1:])
        columns += [column, np.full((len(column), 2, 3), _DARK, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def evenly(shots: Sequence[Shot], count: int) -> list[Shot]:
    """At most `count` of the shots, as evenly in log-SNR as can be; both ends are among them."""
    low, high = shots[0].log_snr, shots[-1].log_snr
    chosen = {0, len(shots) - 1}
    for i in range(1, count - 1):
        wanted = low + (high - low) * i / (count - 1)
        near = range(len(shots))
        chosen.add(min(near, key=lambda k, at=wanted: abs(shots[k].log_snr - at)))
    return [shots[i] for i in sorted(chosen)]


def captions(shot: Shot, style: str) -> list[str]:
    """What is said below a shot, the longest text first; none if it is to have none."""
    if style == "none":
        return []
    if style == "step":
        return [f"step {shot.step}"]
    # Only what the font that comes with Pillow can draw.
    if style == "sigma":
        where = f"sigma {math.exp(min(700.0, -shot.log_snr / 2)):.3g}"
    else:
        where = f"log-SNR {shot.log_snr:.1f}"
    step = f"{where} · step {shot.step}"
    return [f"{step} · {shot.calls} network calls", f"{step} · {shot.calls} calls", step, where]


def captioned(picture: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """A picture (H, W, 3) above the first of the texts that fits below it, at a size that can be read
    when the film is shown as large as a screen."""
    if not texts:
        return picture
    width = picture.shape[1]
    wanted = max(13, round(min(picture.shape[:2]) / 24))
    font, text = _fitting(texts, wanted, width - wanted)
    band = Image.new("RGB", (width, round(1.9 * wanted)), _DARK)
    middle = width / 2, band.height / 2
    ImageDraw.Draw(band).text(middle, text, fill=_LIGHT, font=font, anchor="mm")
    return np.concatenate([picture, np.asarray(band)])


def _fitting(texts: Sequence[str], wanted: int, width: float) -> tuple[Any, str]:
    """The font and the first of the texts that is no wider than this; the last one, small, if none."""
    font = ImageFont.load_default(wanted)
    for text in texts:
        if font.getlength(text) <= width:
            return font, text
    for size in (11, 9, 7):
        font = ImageFont.load_default(size)
        if font.getlength(texts[-1]) <= width:
            break
    return font, texts[-1]


def _coloured(picture: np.ndarray) -> np.ndarray:
    return picture if picture.shape[-1] == 3 else picture.repeat(3, axis=-1)
