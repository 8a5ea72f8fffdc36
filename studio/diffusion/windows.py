"""The score of a canvas larger than a model's pictures, from overlapping windows of the model's size.

Every window is answered as a picture of its own, and the answers are averaged with weights that are
smooth, fade to the window's border and add up to one at every pixel. The grid of windows moves with
the noise level: no place is a border at every level, so no seam stays. Windows lie inside the canvas.

Letters: canvas (H, W), window (h, w); an axis has K windows of n pixels on a side of L.
Sources: Bar-Tal et al. 2023, "MultiDiffusion" (averaged windows); Roberts 2018, "The Unreasonable
Effectiveness of Quasirandom Sequences" (how the grid moves).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from studio.diffusion.score import Score, expand
from studio.errors import SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from studio.diffusion.score import Function

    #: A score that is told the place in the batch of the canvas each window is cut from:
    #: (windows (M, C, h, w), t (M,), places (M,)) -> (M, C, h, w).
    Inner = Callable[[Tensor, Tensor, Tensor], Tensor]

# How far the grid moves along each axis while the log-SNR changes by one, in distances of windows:
# 1/ρ and 1/ρ² of the plastic number ρ³ = ρ + 1, of which the multiples fill the square evenly.
_MOVES = (0.7548776662466927, 0.5698402909980532)


def windowed(
    score: Score,
    size: tuple[int, int],
    overlap: float = 0.5,
    batch: int = 64,
    where: Tensor | None = None,
    known: Tensor | None = None,
) -> Score:
    """The score of pictures of `size` (H, W), no side shorter than the model's.

    `overlap` is the share of a window that the next one covers at least, in [0, 1); `batch`, how many
    windows the model is given at once. With `where`, bool (H, W), only windows that touch it are
    computed, and pixels in none of them have score zero: the denoised estimate there is x / a. Given
    `known`, a picture as a state (C, H, W), they have the score of that picture: the estimate there is
    the picture itself, and the score as a whole is as long as Langevin steps expect.

    Takes memory for about 2 / (1 - overlap)² states of the canvas beside what the model takes. Raises
    SpecError if the canvas is smaller than the model's pictures, or an argument does not fit it.
    """
    size = (int(size[0]), int(size[1]))
    _check(score, size, overlap, batch)
    if size == score.shape[1:]:
        return score
    canvas = _Canvas(
        score, size, overlap, batch, _Area.of(where, size), _fitting(known, score, size)
    )

    def plain(windows: Tensor, t: Tensor, places: Tensor) -> Tensor:
        return score.fn(windows, t)

    def labelled(labels: Tensor) -> Function:
        def inner(windows: Tensor, t: Tensor, places: Tensor) -> Tensor:
            assert score.conditional is not None
            return score.conditional(labels[places.to(labels.device)])(windows, t)

        return canvas.of(inner)

    return replace(
        score,
        fn=canvas.of(plain),
        shape=(score.shape[0], *size),
        conditional=None if score.conditional is None else labelled,
    )


@dataclass(frozen=True)
class _Axis:
    """The windows along one side of a canvas, and how their answers are put together there."""

    starts: np.ndarray  # (K,) int, rising
    weights: np.ndarray  # (K, L) of each window at each pixel, zero outside it; they add up to one
    window: int  # n

    @staticmethod
    def of(length: int, window: int, overlap: float, share: float) -> _Axis:
        """Windows a stride apart, the first of them moved by `share` of a stride, all kept inside."""
        stride = max(1, int(window * (1 - overlap)))
        last, first = length - window, -round(share * stride)
        starts = np.unique(np.arange(first, last + stride, stride).clip(0, last))
        within = (np.arange(length) - starts[:, None] + 0.5) / window
        # The squared raised cosine: flat in the middle, and down to the border without a kink.
        weights = np.where((within > 0) & (within < 1), np.sin(np.pi * within) ** 4, 0)
        return _Axis(starts, weights / weights.sum(0), window)

    def kept(self, windows: np.ndarray) -> _Axis:
        """The windows at these places alone, weighted as among all."""
        return replace(self, starts=self.starts[windows], weights=self.weights[windows])

    def cut(self, x: Tensor, dim: int) -> Tensor:
        """x with `dim` of L pixels replaced by the K n pixels of the windows, one after another."""
        index = self.starts[:, None] + np.arange(self.window)
        return x.index_select(dim, torch.from_numpy(index.reshape(-1)).to(x.device))

    def join(self, windows: Tensor, dim: int) -> Tensor:
        """The weighted mean at each of L pixels of what the windows, as `cut` laid them, say there.

        It collects instead of scattering: so the sum has one order on every device.
        """
        there = self.weights > 0
        order = np.argsort(~there, axis=0, kind="stable")[: there.sum(0).max()]
        pixel = np.arange(self.weights.shape[1])
        index = order * self.window + (pixel - self.starts[order]).clip(0, self.window - 1)
        shape = [-1 if d == dim else 1 for d in range(windows.ndim)]
        total = None
        for places, share in zip(index, np.take_along_axis(self.weights, order, axis=0)):
            said = windows.index_select(dim, torch.from_numpy(places).to(windows.device))
            part = said * torch.from_numpy(share).to(windows.dtype).to(windows.device).reshape(
                shape
            )
            total = part if total is None else total + part
        assert total is not None
        return total


@dataclass(frozen=True)
class _Area:
    """Where a score is wanted: how many such pixels lie above and left of each corner, (H+1, W+1)."""

    counts: np.ndarray | None  # None: everywhere

    @staticmethod
    def of(where: Tensor | None, size: tuple[int, int]) -> _Area:
        if where is None:
            return _Area(None)
        if tuple(where.shape) != size:
            raise SpecError(f"The mask is {tuple(where.shape)}; the canvas is {size}.")
        wanted = where.detach().cpu().numpy().astype(np.int64)
        return _Area(np.pad(wanted.cumsum(0).cumsum(1), ((1, 0), (1, 0))))

    def touched(self, rows: _Axis, columns: _Axis) -> np.ndarray:
        """Which windows have a wanted pixel, bool (rows' K, columns' K)."""
        if self.counts is None:
            return np.ones((len(rows.starts), len(columns.starts)), bool)
        top, left = rows.starts[:, None], columns.starts[None]
        bottom, right = top + rows.window, left + columns.window
        n = self.counts
        return n[bottom, right] - n[top, right] - n[bottom, left] + n[top, left] > 0


@dataclass(frozen=True)
class _Canvas:
    """A canvas laid over a model's score: see `windowed`."""

    score: Score
    size: tuple[int, int]
    overlap: float
    batch: int
    area: _Area
    known: Tensor | None

    def of(self, inner: Inner) -> Function:
        """score(x, t) of the canvas (B, C, H, W), from that of its windows."""

        def fn(x: Tensor, t: Tensor) -> Tensor:
            # Samples at one time share a grid. It follows from t in full precision on every device.
            times, which = torch.unique(t.detach().cpu().double(), return_inverse=True)
            places = torch.arange(len(t), device=x.device)
            if len(times) == 1:
                return self._at(inner, x, t, places, times)
            groups = [(which == i).nonzero().flatten().to(x.device) for i in range(len(times))]
            parts = [self._at(inner, x[g], t[g], g, times[i : i + 1]) for i, g in enumerate(groups)]
            return torch.cat(parts)[torch.cat(groups).argsort()]

        return fn

    def _at(self, inner: Inner, x: Tensor, t: Tensor, places: Tensor, time: Tensor) -> Tensor:
        level = float(self.score.sde.log_snr(time))
        rows, columns = (
            _Axis.of(length, window, self.overlap, level * move % 1)
            for length, window, move in zip(self.size, self.score.shape[1:], _MOVES)
        )
        touched = self.area.touched(rows, columns)
        if not touched.any():
            return self._elsewhere(torch.zeros_like(x), x, t, np.zeros(self.size))
        cover = rows.weights.T @ touched @ columns.weights
        down, across = np.flatnonzero(touched.any(1)), np.flatnonzero(touched.any(0))
        rows, columns, computed = rows.kept(down), columns.kept(across), touched[down][:, across]
        answers = self._answers(inner, columns.cut(rows.cut(x, 2), 3), t, places, computed)
        return self._elsewhere(rows.join(columns.join(answers, 3), 2), x, t, cover)

    def _answers(
        self, inner: Inner, cut: Tensor, t: Tensor, places: Tensor, computed: np.ndarray
    ) -> Tensor:
        """What the model says of the windows in `cut` (B, C, K h, K' w), laid out as they are; zero
        for those that are not `computed`, bool (K, K')."""
        (count, colours), (down, across) = cut.shape[:2], computed.shape
        h, w = self.score.shape[1:]
        windows = cut.reshape(count, colours, down, h, across, w).permute(2, 4, 0, 1, 3, 5)
        windows = windows.reshape(-1, colours, h, w)
        chosen = np.flatnonzero(computed.reshape(-1).repeat(count))
        index = torch.from_numpy(chosen).to(cut.device)
        parts = []
        for some in index.split(self.batch):
            own = some % count
            parts.append(inner(windows[some], t[own], places[own]))
        answers = torch.cat(parts)
        if not computed.all():
            answers = torch.zeros_like(windows).index_copy(0, index, answers)
        laid = answers.reshape(down, across, count, colours, h, w).permute(2, 3, 0, 4, 1, 5)
        return laid.reshape(count, colours, down * h, across * w)

    def _elsewhere(self, score: Tensor, x: Tensor, t: Tensor, cover: np.ndarray) -> Tensor:
        """With the score of the known picture where windows, with weights `cover` (H, W), are silent."""
        if self.known is None:
            return score
        # What the weights lack of one by rounding would be divided by a small s².
        silent = np.where(cover > 1 - 1e-9, 0, 1 - cover)
        a, s = (expand(v, x) for v in self.score.sde.marginal(t))
        rest = torch.from_numpy(silent).to(x.dtype).to(x.device)
        return score + rest * (a * self.known.to(x) - x) / s**2


def _check(score: Score, size: tuple[int, int], overlap: float, batch: int) -> None:
    (height, width), (h, w) = size, score.shape[1:]
    if height < h or width < w:
        raise SpecError(
            f"The canvas of {width} × {height} is smaller than the model's pictures of {w} × {h}.",
            "Enlarge it, or choose a smaller model.",
        )
    if not 0 <= overlap < 1:
        raise SpecError(
            f"Windows cannot overlap by {overlap}.", "Choose 0 or more, and less than 1."
        )
    if batch < 1:
        raise SpecError(f"{batch} windows at once are none.", "Choose one or more.")


def _fitting(known: Tensor | None, score: Score, size: tuple[int, int]) -> Tensor | None:
    if known is not None and tuple(known.shape) != (score.shape[0], *size):
        shape = (score.shape[0], *size)
        raise SpecError(f"The known picture is {tuple(known.shape)}; the canvas is {shape}.")
    return known
