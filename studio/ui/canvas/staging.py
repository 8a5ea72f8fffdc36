"""Candidates before one is taken: what the strip and the canvas show of a run, while it forms and after.

Pictures of a run come at the model's size. What is shown of them is laid into the photo as the result
will be, at a size that can be done thirty times a second.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from PySide6.QtCore import QObject, Signal

from studio import photos
from studio.diffusion.tasks import Colorize
from studio.engine.events import Finished
from studio.engine.paint import PaintJob, Rect, doubt
from studio.ui.canvas.document import Document
from studio.ui.canvas.strip import CandidateStrip
from studio.ui.canvas.view import CanvasView

_VIEWED, _THUMBNAIL = 640, 128  # pixels of the longer side


class Preview:
    """The box of a job at no more than `longest` pixels, into which pictures of a run are laid."""

    def __init__(self, job: PaintJob, longest: int) -> None:
        h, w = job.picture.shape[:2]
        scale = min(1.0, longest / max(w, h))
        self._size = max(1, round(w * scale)), max(1, round(h * scale))
        self._crop = Image.fromarray(photos.resized(job.picture, self._size))
        self._mask = None
        if job.mask is not None:
            share = np.minimum(job.mask.astype(np.uint16) * 2, 255).astype(np.uint8)
            self._mask = Image.fromarray(photos.resized(share, self._size))
        self._colours_only = isinstance(job.recipe.task, Colorize)

    def of(self, picture: np.ndarray) -> np.ndarray:
        """A picture (h, w, 1 or 3) of the box laid in, uint8 (H, W, 3)."""
        colours = np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))
        made = Image.fromarray(colours).resize(self._size, Image.Resampling.BILINEAR)
        if self._colours_only:
            _, *chroma = made.convert("YCbCr").split()
            bright, _, _ = self._crop.convert("YCbCr").split()
            made = Image.merge("YCbCr", (bright, *chroma)).convert("RGB")
        if self._mask is not None:
            made = Image.composite(made, self._crop, self._mask)
        return np.asarray(made)


class Staging(QObject):
    """The candidates of the last run, in a strip and over the canvas."""

    accepted = Signal(int)  # the candidate's number

    def __init__(self, view: CanvasView, strip: CandidateStrip) -> None:
        super().__init__(view)
        self._view, self._strip = view, strip
        self._results: list[np.ndarray] = []
        self._frame: np.ndarray | None = None  # of a run that forms
        self._previews: tuple[Preview, Preview] | None = None
        self.box: Rect = (0, 0, 1, 1)
        self.recipe: dict[str, Any] = {}
        strip.chosen.connect(lambda _: self._show())
        strip.accepted.connect(lambda _: self.accept())
        strip.discarded.connect(self._discarded)
        strip.cleared.connect(self.clear)
        strip.wipe_toggled.connect(self._wipe)
        strip.doubt_toggled.connect(lambda _: self._heat())
        view.accept_requested.connect(strip.accept)
        view.discard_requested.connect(strip.discard)
        view.flip_requested.connect(strip.flip)

    @property
    def count(self) -> int:
        """How many candidates are finished."""
        return len(self._results)

    def begin(self, job: PaintJob, box: Rect) -> None:
        """A run of this job has begun; earlier candidates stay in sight until it shows something."""
        self._previews = Preview(job, _VIEWED), Preview(job, _THUMBNAIL)
        self._pending = box
        self._strip.set_forming(job.recipe.sample.count)
        self._strip.set_note("")

    def change(self, job: PaintJob) -> None:
        """The run under way goes by another mask or task from now on."""
        self._previews = Preview(job, _VIEWED), Preview(job, _THUMBNAIL)

    def form(self, stack: np.ndarray) -> None:
        """Pictures of a run under way, (N, h, w, C) at the model's size."""
        if self._previews is None:
            return
        self._results, self._frame, self.box = [], stack, self._pending
        self._strip.set_pictures(np.stack([self._previews[1].of(picture) for picture in stack]))
        self._show()

    def finish(self, event: Finished) -> None:
        """The run has come to its end: its candidates can be taken."""
        assert self._previews is not None
        self._frame, self._results, self.box = None, list(event.pictures), self._pending
        self.recipe = event.recipe
        seed = event.recipe["sample"]["seed"]
        self._strip.set_pictures(
            np.stack([_small(picture, _THUMBNAIL) for picture in self._results])
        )
        self._strip.set_captions(
            [self.tr("Seed {seed}").format(seed=seed + i) for i in range(len(self._results))]
        )
        self._strip.finish()
        self._prove(event.recipe["proof"])
        self._show()
        self._heat()

    def end(self) -> None:
        """The run has ended, finished or not. One that was stopped leaves no candidates."""
        if self._strip.forming or self._frame is not None:
            self.clear()

    def clear(self) -> None:
        """Let go of all candidates."""
        self._results, self._frame, self._previews = [], None, None
        self._strip.clear()
        self._view.set_result(None, self.box)
        self._view.set_heat(None, self.box)

    def accept(self) -> None:
        """Put the chosen candidate into the document, as one step to undo; the mask stays."""
        chosen, document = self._strip.current, self._view.document
        if document is None or chosen is None or chosen >= len(self._results):
            return
        document.accept(self.box, self._results[chosen])
        self.clear()
        self.accepted.emit(chosen)

    # -- showing ------------------------------------------------------------------------------------

    def _show(self) -> None:
        chosen = self._strip.current
        if self._frame is not None and self._previews is not None:
            picture = self._frame[min(chosen or 0, len(self._frame) - 1)]
            self._view.set_result(self._previews[0].of(picture), self.box)
        elif chosen is not None and chosen < len(self._results):
            self._view.set_result(self._results[chosen], self.box)
        else:
            self._view.set_result(None, self.box)

    def _heat(self) -> None:
        shown = self._strip.doubt.isChecked() and len(self._results) > 1
        heat = doubt(np.stack([_small(r, _VIEWED) for r in self._results])) if shown else None
        self._view.set_heat(heat, self.box)

    def _wipe(self, on: bool) -> None:
        self._view.set_wipe(0.5 if on else None)
        self._view.set_tool("wipe" if on else "brush")

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
        return crop.copy()
    return photos.Photo(crop, document.alpha[y : y + h, x : x + w], "").on_white.copy()


def _small(picture: np.ndarray, longest: int) -> np.ndarray:
    h, w = picture.shape[:2]
    scale = min(1.0, longest / max(w, h))
    return photos.resized(picture, (max(1, round(w * scale)), max(1, round(h * scale))))
