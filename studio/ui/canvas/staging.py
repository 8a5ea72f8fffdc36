"""Candidates before one is taken: what the strip and the canvas show of a run, while it forms and after.

Pictures of a run come at the model's size. What is shown of them is laid into the photo as the result
will be, at a size that can be done thirty times a second.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from PySide6.QtCore import QObject, Signal

from studio import photos
from studio.diffusion.tasks import Colorize, noise_level
from studio.engine.events import Finished
from studio.engine.paint import PaintJob, Rect, doubt
from studio.ui.canvas.document import Document
from studio.ui.canvas.strip import CandidateStrip
from studio.ui.canvas.view import CanvasView

_VIEWED, _THUMBNAIL = 640, 128  # pixels of the longer side


@dataclass(frozen=True)
class Taken:
    """What was accepted: where, what tells its pixels from others, and the recipe that makes them as its
    first picture."""

    box: Rect
    digest: str
    recipe: dict[str, Any]

    @staticmethod
    def of(pixels: np.ndarray, box: Rect, recipe: dict[str, Any]) -> Taken:
        return Taken(box, _digest(pixels), recipe)

    @staticmethod
    def read(given: Any) -> Taken | None:
        """One that was kept as JSON data; None if it makes no sense."""
        match given:
            case {
                "box": [int(x), int(y), int(w), int(h)],
                "digest": str(digest),
                "recipe": dict(recipe),
            }:
                return Taken((x, y, w, h), digest, recipe)
        return None

    def stands(self, photo: np.ndarray) -> bool:
        """Whether the photo (H, W, 3) still has these very pixels: they may have been undone."""
        x, y, w, h = self.box
        return _digest(photo[y : y + h, x : x + w]) == self.digest


class Preview:
    """The box of a job at no more than `longest` pixels, into which pictures of a run are laid."""

    def __init__(self, job: PaintJob, longest: int) -> None:
        h, w = job.picture.shape[:2]
        scale = min(1.0, longest / max(w, h))
        self._size = max(1, round(w * scale)), max(1, round(h * scale))
        self._crop = Image.fromarray(_small(job.picture, longest))
        self._mask = None
        if job.mask is not None:
            share = np.minimum(_small(job.mask, longest).astype(np.uint16) * 2, 255)
            self._mask = Image.fromarray(share.astype(np.uint8))
        self._colours_only = isinstance(job.recipe.task, Colorize)

    def of(self, picture: np.ndarray, paint: np.ndarray | None = None) -> np.ndarray:
        """A picture (h, w, 1 or 3) of the box laid in, uint8 (H, W, 3), with paint (h, w, 4) on it."""
        colours = np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))
        made = Image.fromarray(colours).resize(self._size, Image.Resampling.BILINEAR)
        if self._colours_only:
            _, *chroma = made.convert("YCbCr").split()
            bright, _, _ = self._crop.convert("YCbCr").split()
            made = Image.merge("YCbCr", (bright, *chroma)).convert("RGB")
        if paint is not None:
            strokes = Image.fromarray(paint).resize(self._size, Image.Resampling.NEAREST)
            made.paste(strokes, (0, 0), strokes)
        if self._mask is not None:
            made = Image.composite(made, self._crop, self._mask)
        return np.asarray(made)


class Staging(QObject):
    """The candidates of the last run, in a strip and over the canvas.

    While a run forms, those of the run before wait: if it is stopped, they are there again.
    """

    accepted = Signal(object)  # Taken

    def __init__(self, view: CanvasView, strip: CandidateStrip) -> None:
        super().__init__(view)
        self._view, self._strip = view, strip
        self.accepting = False  # whether the photo changes by what is being accepted
        self._results: list[np.ndarray] = []
        self._box: Rect = (0, 0, 1, 1)  # of the results
        self._recipe: dict[str, Any] = {}
        self._forming: Rect | None = None  # the box of a run under way
        self._frame: np.ndarray | None = None  # of that run
        self._paint: np.ndarray | None = None
        self._previews: tuple[Preview, Preview] | None = None
        self._past: tuple[np.ndarray, Rect] | None = None  # a moment that a run has left behind
        self._back: tuple[PaintJob, Preview, Preview] | None = None  # what it is laid into
        self._before = "brush"  # the tool before the wipe
        self._start: tuple[np.ndarray, Rect] | None = None  # what a run would begin from
        strip.chosen.connect(lambda _: self._show())
        strip.accepted.connect(lambda _: self.accept())
        strip.discarded.connect(self._discarded)
        strip.cleared.connect(self.clear)
        strip.wipe_toggled.connect(self._wipe)
        strip.doubt_toggled.connect(lambda _: self._heat())
        view.wipe_changed.connect(lambda share: strip.wipe.setChecked(share is not None))
        view.accept_requested.connect(strip.accept)
        view.discard_requested.connect(strip.discard)
        view.flip_requested.connect(strip.flip)

    @property
    def count(self) -> int:
        """How many candidates are finished."""
        return len(self._results)

    def begin(self, job: PaintJob, box: Rect) -> None:
        """A run of this job has begun; earlier candidates stay in sight until it shows something."""
        self.change(job)
        self._forming = box
        self._strip.set_forming(job.recipe.sample.count)
        self._strip.set_note("")

    def change(self, job: PaintJob) -> None:
        """The run under way goes by another mask or task from now on."""
        self._previews = Preview(job, _VIEWED), Preview(job, _THUMBNAIL)

    def form(self, stack: np.ndarray, paint: np.ndarray | None = None) -> None:
        """Pictures of a run under way, (N, h, w, C) at the model's size, and paint that waits to become
        a part of them, (h, w, 4) of the box."""
        if self._previews is None or self._forming is None:
            return
        self._leave_past()
        if paint is not None or stack is not self._frame:
            self._paint = paint  # else it has been taken over by a state not seen yet
        self._frame = stack
        small = self._previews[1]
        self._strip.set_pictures(np.stack([small.of(picture, self._paint) for picture in stack]))
        self._show()

    def finish(self, event: Finished) -> None:
        """The run has come to its end: its candidates can be taken."""
        if self._forming is None:
            return  # given up already; its last word was on the way
        box, self._forming = self._forming, None
        self.show(event, box)

    def show(self, event: Finished, box: Rect) -> None:
        """Show what a run has come to: its candidates can be taken."""
        self._results, self._box, self._recipe = list(event.pictures), box, event.recipe
        self._frame = self._paint = self._start = None
        self._leave_past()
        self._lay_out()

    def look_back(self, stack: np.ndarray, job: PaintJob, box: Rect) -> None:
        """Show a moment that a run of this job has left behind: pictures (N, h, w, C) at the model's
        size. `form`, `show` and `end` lead back."""
        if self._back is None or self._back[0] is not job:
            self._back = job, Preview(job, _VIEWED), Preview(job, _THUMBNAIL)
        self._past = stack, box
        self._strip.hold(True)
        self._strip.set_pictures(np.stack([self._back[2].of(picture) for picture in stack]))
        self._view.set_heat(None, box)
        self._show()

    def _leave_past(self) -> None:
        self._past = None
        self._strip.hold(False)

    def end(self) -> None:
        """The run has ended. If it was stopped, what it had half formed makes way for what was there."""
        if self._forming is None:
            return
        self._leave_past()
        self._forming = self._frame = self._paint = None
        if self._results:
            self._lay_out()
        else:
            self.clear()

    def clear(self) -> None:
        """Let go of all candidates, and of what forms."""
        self._leave_past()
        self._results = []
        self._forming = self._frame = self._paint = self._previews = None
        self._strip.clear()
        self._view.set_heat(None, self._box)
        self._show()

    def accept(self) -> None:
        """Put the chosen candidate into the document, as one step to undo; the mask stays."""
        chosen, document = self._strip.current, self._view.document
        if document is None or chosen is None or chosen >= len(self._results):
            return
        pixels, box, recipe = self._results[chosen], self._box, self._recipe
        # The seed that makes this candidate the first.
        sample = {**recipe["sample"], "seed": recipe["sample"]["seed"] + chosen}
        self.clear()
        self.accepting = True
        try:
            document.accept(box, pixels)
        finally:
            self.accepting = False
        self.accepted.emit(Taken.of(pixels, box, {**recipe, "sample": sample}))

    def show_start(self, picture: np.ndarray | None, box: Rect = (0, 0, 1, 1)) -> None:
        """What a run would begin from, shown while there is nothing else; None if nothing."""
        self._start = None if picture is None else (picture, box)
        if not self._results and self._forming is None:
            self._show()

    # -- showing ------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """Show the finished candidates."""
        self._strip.set_pictures(
            np.stack([_small(picture, _THUMBNAIL) for picture in self._results])
        )
        seed = self._recipe["sample"]["seed"]
        self._strip.set_captions(
            [self.tr("Seed {seed}").format(seed=seed + i) for i in range(len(self._results))]
        )
        self._strip.finish()
        self._prove(self._recipe["proof"])
        self._show()
        self._heat()

    def _show(self) -> None:
        chosen = self._strip.current
        if self._past is not None and self._back is not None:
            stack, box = self._past
            picture = stack[min(chosen or 0, len(stack) - 1)]
            self._view.set_result(self._back[1].of(picture), box)
        elif self._frame is not None and self._previews is not None and self._forming is not None:
            picture = self._frame[min(chosen or 0, len(self._frame) - 1)]
            self._view.set_result(self._previews[0].of(picture, self._paint), self._forming)
        elif chosen is not None and chosen < len(self._results):
            self._view.set_result(self._results[chosen], self._box)
        elif self._start is not None:
            self._view.set_result(*self._start)
        else:
            self._view.set_result(None, self._box)

    def _heat(self) -> None:
        shown = self._strip.doubt.isChecked() and len(self._results) > 1 and self._frame is None
        heat = doubt(np.stack([_small(r, _VIEWED) for r in self._results])) if shown else None
        self._view.set_heat(heat, self._box)

    def _wipe(self, on: bool) -> None:
        view = self._view
        if on and view.tool != "wipe":
            self._before, _ = view.tool, view.set_tool("wipe")
        elif not on:
            view.set_wipe(None)
            if view.tool == "wipe":
                view.set_tool(self._before)

    def _discarded(self, index: int) -> None:
        if index < len(self._results):
            del self._results[index]
        if not self._results:
            self.clear()
            return
        self._show()
        self._heat()

    def _prove(self, proof: dict[str, float]) -> None:
        """The exactness badge: what is certain to be unchanged, and by how much it is not."""
        said, exact = [], True
        if "kept" in proof:
            exact = proof["kept"] == 0
            said.append(
                self.tr("kept pixels unchanged")
                if exact
                else self.tr("kept pixels off by {n:.0f}/255").format(n=proof["kept"])
            )
        if "brightness" in proof:
            off = proof["brightness"]
            exact = exact and off < 0.5
            said.append(self.tr("brightness within {n:.2f}/255").format(n=off))
        if said:
            text = ", ".join(said)
            self._strip.set_note(f"✓ {text}" if exact else text, "good" if exact else "warning")


def of_document(document: Document, box: Rect) -> np.ndarray:
    """What one sees of the photo in the box: laid on white where it is transparent, (h, w, 3)."""
    x, y, w, h = box
    crop = document.photo[y : y + h, x : x + w]
    if document.alpha is None:
        return crop  # not a copy, which takes long: when the photo changes, its run is stopped
    return photos.Photo(crop, document.alpha[y : y + h, x : x + w], "").on_white.copy()


def sketched(document: Document, box: Rect, longest: int) -> np.ndarray:
    """What one sees of the photo and the colours in the box, (h, w, 3), `longest` pixels at most."""
    x, y, w, h = box
    part = np.s_[y : y + h : _stride(w, h, longest), x : x + w : _stride(w, h, longest)]
    photo, strokes = document.photo[part], Image.fromarray(document.sketch[part].copy())
    if document.alpha is not None:
        photo = photos.Photo(photo, document.alpha[part], "").on_white
    below = Image.fromarray(photo.copy())
    below.paste(strokes, (0, 0), strokes)
    return _small(np.asarray(below), longest)


def noised(picture: np.ndarray, strength: float) -> np.ndarray:
    """A picture with the noise that a strength stands for, scaled so that it can be seen, as noisy states
    are."""
    clean = picture.astype(np.float32) / 127.5 - 1
    sigma = noise_level(strength)
    z = np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    seen = (clean + sigma * z) / np.sqrt(1 + sigma**2)
    pixels = ((seen + 1) * 127.5).clip(0, 255).astype(np.uint8)
    # As true pixels: smoothed, it would not look like noise.
    factor = max(1, _VIEWED // max(pixels.shape))
    return pixels.repeat(factor, 0).repeat(factor, 1)


def _small(picture: np.ndarray, longest: int) -> np.ndarray:
    """A picture (H, W) or (H, W, C) of no more than `longest` pixels, to be looked at."""
    h, w = picture.shape[:2]
    scale = min(1.0, longest / max(w, h))
    # A filter over all of a large photo would hold up the window, and nobody would see it.
    some = picture[:: _stride(w, h, longest), :: _stride(w, h, longest)]
    return photos.resized(some, (max(1, round(w * scale)), max(1, round(h * scale))))


def _stride(w: int, h: int, longest: int) -> int:
    return max(1, max(w, h) // (3 * longest))


def _digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]
