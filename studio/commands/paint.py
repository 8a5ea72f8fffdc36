"""`inpaint`, `colorize`, `sketch`, `upscale`, `deblur`: a photo, or a folder of them, painted by a model.

Each photo is a PaintJob, as on the canvas of the window. The result is the whole photo with its box
made anew; it keeps the photo's transparency, and carries the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from studio import choose, photos, recipes, spec, terminal
from studio.commands import Outcome, positional
from studio.commands.drawing import Drawing, watch
from studio.commands.photo_files import Beside, Work, planned
from studio.diffusion import colour, tasks
from studio.diffusion.sampler import Sampler
from studio.diffusion.tasks import METHODS, Method, Task
from studio.engine import boxes
from studio.engine.boxes import Rect
from studio.engine.events import Finished
from studio.engine.jobs import Setting
from studio.engine.paint import WAYS, PaintJob, PaintRecipe
from studio.errors import PictureError, SaveError, SpecError, StudioError
from studio.photos import Photo
from studio.spec import option
from studio.weights.model import ModelInfo
from studio.weights.shelf import Shelf

SOME_FAILED = 3
"""The exit code when some of several photos failed, and others were painted."""

_SQUARE = 1.25  # sides of a photo that is taken whole
_NARROWEST = 16  # sides of a box that is scaled
_LEAST = 4  # pixels of a box
_MOST = 2048 * 2048  # pixels of a box at full size
_BLURRED = 4  # times the model's side: much more than that is seen to be scaled


@dataclass(frozen=True)
class _Chosen:
    """What --option may reach into."""

    title: ClassVar[str] = "This command"
    task: Task
    sampler: Sampler


@dataclass(frozen=True)
class _Where:
    """What is said of where to paint: a file or folder of masks, and of strokes; the box; the way."""

    mask: Beside = Beside("mask", None)
    strokes: Beside = Beside("strokes", None)
    box: str = "all"
    way: str = "windows"


@dataclass(frozen=True)
class _Run:
    """What all photos of a command share."""

    chosen: _Chosen
    info: ModelInfo
    setting: Setting
    single: bool


@dataclass(frozen=True, kw_only=True)
class Painting(Drawing):
    """Options of every painting command."""

    photo: str = positional(help="A photo, or a folder of photos.")
    out: str = option(
        "", help="The PNG to write: out.png if not given; a folder, for a folder of photos."
    )

    def run(self) -> Outcome:
        photo, where = Path(self.photo), self._where()
        works = planned(photo, self.out, self.count, (where.mask, where.strokes))
        if self.frames and photo.is_dir():
            raise SaveError("An animation shows one photo, not a folder.", "Leave out --frames.")
        self.check_frames()
        shelf = Shelf()
        chosen, notes = self._chosen(shelf)
        for text in notes:
            terminal.note(text)
        info = shelf.find(self.model, self.preset).info
        assert info is not None
        setting = Setting(shelf, self.device, rate=0)
        run = _Run(chosen, info, setting, not photo.is_dir())
        done, failed = self._all(works, run)
        data = {
            "model": self.model,
            "task": spec.to_dict(chosen.task),
            "sampler": spec.to_dict(chosen.sampler),
            "count": self.count,
            "seed": self.seed,
            "device": setting.device,
            "files": [file for result in done for file in result["files"]],
            "photos": done,
            "failed": failed,
            "calls": sum(result["calls"] for result in done),
            "seconds": round(sum(result["seconds"] for result in done), 3),
            "notes": notes,
        }
        return Outcome(*_told(data))

    def _task(self) -> Task:
        """What is wanted, by the command's own options."""
        raise NotImplementedError

    def _where(self) -> _Where:
        return _Where()

    def _prepared(self, photo: Photo) -> Photo:
        """The photo as it is painted."""
        return photo

    def _chosen(self, shelf: Shelf) -> tuple[_Chosen, list[str]]:
        """Task and sampler with all their options, and what is to be told."""
        sampler, notes = self.chosen(shelf, {})
        chosen = choose.with_options(_Chosen(self._task(), sampler), self.options())
        spec.check(chosen)
        return chosen, notes

    # -- photo by photo ------------------------------------------------------------------------------

    def _all(
        self, works: list[Work], run: _Run
    ) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """What was done, and what failed. Raises StudioError if it was the only photo."""
        done, failed = [], []
        for i, work in enumerate(works):
            title = "Painting" if run.single else f"{i + 1}/{len(works)} {work.place}"
            try:
                done.append(self._one(work, run, title))
            except StudioError as error:
                if run.single:
                    raise
                terminal.note(f"failed {work.place}: {' '.join(str(error).split())}")
                failed.append({"path": str(work.photo), "reason": str(error)})
        return done, failed

    def _one(self, work: Work, run: _Run, title: str) -> dict[str, Any]:
        """Paint a photo and write what comes of it. Raises StudioError, and then nothing is written."""
        photo = self._prepared(photos.read(work.photo))
        if photo.note:
            terminal.note(f"{photo.name}: {photo.note}")
        job = self._job(photo, work, run)
        _check(job, run.info)
        for path in work.files:
            recipes.check_writable(path)
        for text in _remarks(job, photo, run.info):
            terminal.note(f"{photo.name}: {text}")
        finished, kept = watch(
            job.run(run.setting), title, terminal.note if run.single else lambda _: None
        )
        self._write(work, photo, job.box(), finished)
        files = [*work.files, *self.write_frames(kept)]
        return {
            "path": str(work.photo),
            "files": [str(path) for path in files],
            "box": list(job.box()),
            "calls": finished.calls,
            "seconds": round(finished.seconds, 3),
            "proof": finished.recipe["proof"],
            "recipe": finished.recipe,
        }

    def _job(self, photo: Photo, work: Work, run: _Run) -> PaintJob:
        height, width = photo.pixels.shape[:2]
        size, where = (width, height), self._where()
        path = where.mask.of(work.place)
        mask = None if path is None else photos.read_mask(path, size)
        path = where.strokes.of(work.place)
        strokes = None if path is None else read_strokes(path, size)
        box = placed(where.box, size, mask, run.info.size)
        sample = self.job(run.chosen.sampler)
        recipe = PaintRecipe(sample=sample, task=run.chosen.task, way=where.way, box=box)
        return PaintJob(recipe, photo.on_white, mask, strokes)

    def _write(self, work: Work, photo: Photo, box: Rect, finished: Finished) -> None:
        for i, (path, made) in enumerate(zip(work.files, finished.pictures)):
            # Candidate i comes out the same alone, with its own seed.
            sample = finished.recipe["sample"] | {"count": 1, "seed": self.seed + i}
            pixels = laid(photo, box, made)
            photos.write(path, pixels, photo.alpha, finished.recipe | {"sample": sample})


_CLOSENESS = "How closely those colours are kept."


@dataclass(frozen=True, kw_only=True)
class _Boxed(Painting):
    mask: str = option(
        "",
        help="Where to paint: a picture of the photo's size, white (or opaque) there; or a folder.",
    )
    box: str = option(
        "", help="x,y,w,h, all, or mask: a square around it. Empty: what suits the photo."
    )
    way: str = option(
        "box",
        choices=tuple(WAYS),
        help="How a box larger than the model's pictures is made: scaled, in windows, or both.",
    )

    def _where(self) -> _Where:
        return _Where(_beside("mask", self.mask), Beside("strokes", None), self.box, self.way)


@dataclass(frozen=True, kw_only=True)
class _Stroked(_Boxed):
    strokes: str = option(
        "",
        help="Colours painted on a transparent picture of the photo's size; or a folder.",
        flag="sketch",
    )

    def _where(self) -> _Where:
        return replace(super()._where(), strokes=_beside("strokes", self.strokes))


@dataclass(frozen=True, kw_only=True)
class Inpaint(_Stroked):
    """Paint a part of a photo anew.

    The rest of it stays as it is, bit for bit. Photos may be a folder, and so may the masks.
    """

    method: str = option("replace", choices=tuple(METHODS), help="How the rest is held.")
    closeness: float = option(0.5, range=(0, 1), help=_CLOSENESS)

    def _task(self) -> Task:
        if not self.mask:
            raise SpecError("What should change is not said.", "Give --mask mask.png, white there.")
        return tasks.Inpaint(_method(self.method), self.closeness)


@dataclass(frozen=True, kw_only=True)
class Colorize(_Stroked):
    """Give a photo colours.

    Its brightness stays as exactly as 8 bits can say it. With a mask, the rest stays as it is.
    """

    weights: str = option("rec601", choices=tuple(colour.WEIGHTS), help="What brightness means.")
    method: str = option("replace", choices=tuple(METHODS), help="How brightness is held.")
    strokes: str = option(
        "",
        help="Colours painted on a transparent picture of the photo's size, as hints; or a folder.",
        flag="hints",
    )
    closeness: float = option(0.7, range=(0, 1), help=_CLOSENESS)

    def _task(self) -> Task:
        return tasks.Colorize(self.weights, _method(self.method), self.closeness)


@dataclass(frozen=True, kw_only=True)
class Sketch(_Stroked):
    """Turn a sketch into a picture of the model's kind.

    The photo is the sketch, or has it laid over it by --sketch.
    """

    strength: float = option(0.7, range=(0.02, 1), help="How far it may go from the sketch.")

    def _task(self) -> Task:
        return tasks.Sketch(self.strength)


@dataclass(frozen=True, kw_only=True)
class Upscale(Painting):
    """Enlarge a photo, with what could be behind its pixels.

    The mean of each block of new pixels is the pixel it comes from.
    """

    factor: int = option(2, help="How many times larger: 2, 4 or 8.")
    method: str = option("replace", choices=tuple(METHODS), help="How the photo is held.")

    def _task(self) -> Task:
        return tasks.Upscale(self.factor, _method(self.method))

    def _prepared(self, photo: Photo) -> Photo:
        h, w = photo.pixels.shape[:2]
        if h * w * self.factor**2 > _MOST:
            raise PictureError(
                f"{photo.name} is too large to be made {self.factor} times as large.",
                f"At most {_MOST // self.factor**2:,} pixels can be.",
            )
        # Repeated, not smoothed: so that the means of blocks are the photo.
        pixels, alpha = (
            None if v is None else v.repeat(self.factor, 0).repeat(self.factor, 1)
            for v in (photo.pixels, photo.alpha)
        )
        assert pixels is not None
        return replace(photo, pixels=pixels, alpha=alpha)


@dataclass(frozen=True, kw_only=True)
class Deblur(_Boxed):
    """Sharpen a blurred photo, with what could be behind the blur."""

    radius: float = option(1.0, range=(0.2, 16), help="Of the blur, in pixels.")
    method: str = option("pigdm", choices=tuple(METHODS), help="How the photo is held.")
    way: str = option(
        "windows", choices=tuple(WAYS), help="How a box larger than the model's pictures is made."
    )

    def _task(self) -> Task:
        return tasks.Deblur(self.radius, _method(self.method))


def _beside(name: str, path: str) -> Beside:
    return Beside(name, Path(path) if path else None)


def _method(name: str) -> Method:
    return spec.from_dict(Method, {"kind": name})


# -- what is given --------------------------------------------------------------------------------


def read_strokes(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Colours painted on nothing, uint8 (H, W, 4). Raises PictureError if they are none of `size`."""
    photo = photos.read(path)
    (h, w), (width, height) = photo.pixels.shape[:2], size
    if (w, h) != size:
        raise PictureError(
            f"The strokes {path.name} are {w} × {h} pixels; the picture is {width} × {height}.",
            "Give strokes of the picture's size.",
        )
    if photo.alpha is None:
        raise PictureError(
            f"{path.name} is not transparent anywhere, so it would cover all of the picture.",
            "Save the strokes alone, without what is below.",
        )
    return np.concatenate([photo.pixels, photo.alpha[..., None]], axis=-1)


def placed(text: str, size: tuple[int, int], mask: np.ndarray | None, side: int) -> Rect:
    """The box that `text` says, in a picture of `size`, for a model of `side`. Empty text is the whole
    picture, but a square around the mask in one that is far from square."""
    whole = (0, 0, *size)
    marked = None if mask is None else boxes.bounds(mask)
    if not text:
        text = "mask" if marked and max(size) > _SQUARE * min(size) else "all"
    if text == "all":
        return whole
    if text == "mask":
        if marked is None:
            raise PictureError("There is no mask to place the box around.", "Say --box x,y,w,h.")
        return boxes.within(boxes.around(marked, size, side), size) or whole
    try:
        x, y, w, h = (int(number) for number in text.split(","))
    except ValueError as error:
        raise SpecError(
            f"“{text}” is no box.", "Write it as x,y,w,h in pixels: --box 64,0,256,256."
        ) from error
    if boxes.within((x, y, w, h), size) != (x, y, w, h):
        raise SpecError(
            f"The box {x},{y},{w},{h} is not inside the picture of {size[0]} × {size[1]} pixels."
        )
    return x, y, w, h


def _check(job: PaintJob, info: ModelInfo) -> None:
    """Raise StudioError, before a model is loaded, if this job would fail or come to nothing."""
    job.check()
    x, y, w, h = job.box()
    if min(w, h) < _LEAST:
        raise PictureError(f"The box is {w} × {h} pixels: too small to see anything in it.")
    if job.recipe.way != "windows" and max(w, h) > _NARROWEST * min(w, h):
        raise PictureError(
            f"The box is {w} × {h} pixels: too narrow to be scaled.",
            "Choose a part of it with --box x,y,w,h.",
        )
    if job.recipe.way != "box" and w * h > _MOST:
        raise PictureError(
            f"The box is {w} × {h} pixels: too large to be made at full size.",
            "Choose a part of it with --box x,y,w,h, or --way box.",
        )
    part = job.picture[y : y + h, x : x + w]
    if info.colours == 1 and (part != part[..., :1]).any():
        raise PictureError(
            "This model makes grey pictures, and the photo has colours.",
            "Choose a model of colour pictures.",
        )
    if info.colours == 1 and isinstance(job.recipe.task, tasks.Colorize):
        raise PictureError("This model makes grey pictures.", "Choose a model of colour pictures.")


def _remarks(job: PaintJob, photo: Photo, info: ModelInfo) -> list[str]:
    """What a person might be surprised by."""
    found, (x, y, w, h) = [], job.box()
    invents = isinstance(job.recipe.task, tasks.Inpaint | tasks.Sketch)
    if invents and job.recipe.way == "box" and max(w, h) > _BLURRED * info.size:
        found.append(
            f"the box is {w} × {h}, the model's pictures {info.size} × {info.size}, so what is new "
            "is soft; see --way and --box"
        )
    if photo.alpha is not None and job.mask is not None:
        part = slice(y, y + h), slice(x, x + w)
        if ((photo.alpha[part] == 0) & (job.mask[part] > 0)).any():
            found.append("where it is transparent it stays so, and what is painted is not seen")
    return found


# -- what is made ---------------------------------------------------------------------------------


def laid(photo: Photo, box: Rect, made: np.ndarray) -> np.ndarray:
    """The photo's pixels, uint8 (H, W, 3), with `made` (h, w, 3) in the box. What is half transparent
    gets the colour that looks as it was made when laid on white; what did not change stays as it was."""
    x, y, w, h = box
    part = slice(y, y + h), slice(x, x + w)
    pixels = photo.pixels.copy()
    if photo.alpha is None:
        pixels[part] = made
        return pixels
    share = photo.alpha[part].astype(np.float64)[..., None] / 255
    changed = (made != photo.on_white[part]).any(-1) & (share[..., 0] > 0)
    colours = 255 - (255 - made.astype(np.float64)) / np.maximum(share, 1 / 255)
    pixels[part][changed] = colours.clip(0, 255).round().astype(np.uint8)[changed]
    return pixels


def _told(data: dict[str, Any]) -> tuple[dict[str, Any], str, int]:
    """The result for programs and for people, and the exit code."""
    done, failed = data["photos"], data["failed"]
    lines = [f"wrote {file}" for file in data["files"]]
    for name, unit in (("kept", "pixels that are not masked"), ("brightness", "brightness")):
        errors = [photo["proof"][name] for photo in done if name in photo["proof"]]
        if errors:
            lines.append(f"{unit}: changed by at most {max(errors):.2g} of 255")
    lines.append(f"{data['calls']} network calls, {data['seconds']:.1f} s")
    if not failed:
        return data, "\n".join(lines), 0
    lines.append(f"{len(failed)} of {len(done) + len(failed)} photos failed")
    if done:
        return data, "\n".join(lines), SOME_FAILED
    return data | {"error": f"None of {len(failed)} photos could be painted."}, "", 2
