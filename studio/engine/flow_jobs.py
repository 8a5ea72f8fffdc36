"""The probability flow as jobs: how likely pictures are, pictures to noise and back, ways between two.

Pictures are uint8 (N, H, W, C) at the model's size, noise is float32 (N, C, H, W) of deviation
`prior_std`; `ReadJob` and `fitted` bring pictures to that size as training does. The window and the
commands share these jobs. A job that is closed has told all that it had finished.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
from PIL import Image, ImageOps

from studio import spec
from studio.diffusion import pictures
from studio.diffusion.conditions import Condition
from studio.diffusion.flow import FlowMap, slerp
from studio.diffusion.likelihood import LikelihoodStep, Measure
from studio.diffusion.noise import Noise
from studio.diffusion.sampler import Step
from studio.diffusion.score import Score
from studio.diffusion.sde import log_snr_at
from studio.engine.events import Done, Event, Finished, Note, Picture, Progress
from studio.engine.jobs import Watch, class_condition, in_groups, interruptible, live_frame
from studio.errors import DataError, PictureError, SpecError
from studio.lazy import torch
from studio.training import data

if TYPE_CHECKING:
    from torch import Tensor

    from studio.engine.engine import Context

T = TypeVar("T")
Shape = tuple[int, int, int]

MOST_FRAMES = 64
BATCH = 8


# -- pictures for a model -------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """Pictures at a model's size: uint8 (N, H, W, C), the name of each, and (name, why) of the rest."""

    pixels: np.ndarray
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    left_out: int = 0  # beyond the limit


@dataclass(frozen=True)
class ReadJob:
    """Read the pictures at `path` for a model of `shape` (C, H, W): Progress, and a Given as Done."""

    lane: ClassVar[str] = "io"
    path: Path
    shape: Shape
    limit: int = 10**6

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note(f"Reading {self.path.name}")
        yield Done((yield from read(self.path, self.shape, self.limit)))


def read(path: Path, shape: Shape, limit: int) -> Generator[Event, Any, Given]:
    """A picture, the pictures below a folder in the order of their names, or an image pack; `limit`
    of them at most. Raises PictureError or DataError if there is none."""
    if path.is_dir():
        return (yield from _folder(path, shape, limit))
    if path.suffix.lower() != ".npz":
        return Given(read_one(path, shape)[None], (str(path),))
    # A seed of its own: compositions are not those that a model was trained on.
    pack = data.load(path, shape[1], limit, seed=987_654_321)
    if pack.pixels.shape[-1] != shape[0]:
        raise DataError(f"{path.name} has other channels than the model.")
    count = min(limit, len(pack))
    names = tuple(f"{path}#{i}" for i in range(count))
    return Given(pack.pixels[:count], names, left_out=len(pack) - count)


def read_one(path: Path, shape: Shape) -> np.ndarray:
    """A picture file fitted to a model of `shape` (C, H, W) as training fits it: upright, a centred
    square, scaled. uint8 (H, W, C). Raises PictureError if it cannot be read."""
    return _channels(data.read_picture(path, shape[1]), shape)


def fitted(pixels: np.ndarray, shape: Shape) -> np.ndarray:
    """Pictures, uint8 (N, H, W, C), fitted to a model of `shape` as `read_one` fits a file."""
    size = shape[1], shape[2]
    images = [Image.fromarray(p[..., 0] if p.shape[2] == 1 else p).convert("RGB") for p in pixels]
    squares = [ImageOps.fit(i, size, Image.Resampling.LANCZOS) for i in images]
    return np.stack([_channels(square, shape) for square in squares])


def picture_files(folder: Path) -> list[Path]:
    """The files below a folder that are named as pictures, in the order of their names."""
    files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in data.SUFFIXES]
    return [p for p in files if p.is_file() and not _hidden(p.relative_to(folder))]


def _folder(folder: Path, shape: Shape, limit: int) -> Generator[Event, Any, Given]:
    files = picture_files(folder)
    pixels, names, skipped = [], [], []
    for path in files:
        if len(pixels) == limit:
            break
        try:
            pixels.append(read_one(path, shape))
            names.append(str(path))
        except PictureError as error:
            skipped.append((str(path), error.message))
        yield Progress(len(pixels) + len(skipped), min(limit, len(files)))
    if not pixels:
        raise DataError(f"No picture in {folder} can be read.", "Choose a folder with pictures.")
    left = len(files) - len(pixels) - len(skipped)
    return Given(np.stack(pixels), tuple(names), tuple(skipped), left)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _channels(square: Image.Image, shape: Shape) -> np.ndarray:
    grey = square.convert("L") if shape[0] == 1 else square
    return np.array(grey).reshape(shape[1], shape[2], shape[0])


# -- how likely pictures are ----------------------------------------------------------------------


@dataclass(frozen=True)
class Measured(Event):
    """Bits per dimension of the pictures of the set `lane` from the one at `first` on.

    A guess until `finished`. `error` is the standard error, nan where nothing was repeated; `map`
    (n, H, W) the change of the log density at each pixel, in nats per value.
    """

    first: int
    bits: np.ndarray
    error: np.ndarray
    map: np.ndarray
    log_snr: float
    finished: bool = False


@dataclass(frozen=True)
class LikelihoodJob:
    """Measure sets of pictures, each a stack: their batches in turn, so that all sets grow together.

    Picture i of a set is measured with the seed + i. Yields Measured and Progress.
    """

    model: str
    sets: tuple[np.ndarray, ...]
    measure: Measure
    label: str = ""
    seed: int = 0
    batch: int = BATCH

    def run(self, context: Context) -> Generator[Event, Any, None]:
        spec.check(self.measure)
        yield Note("Loading the model")
        score, watch = _loaded(self.model, context), Watch()
        # Said before the first of many batches, not in the midst of them.
        conditions = [class_condition(score, self.label, len(s), self.seed) for s in self.sets]
        parts = self._parts()
        for done, (lane, part) in enumerate(parts):
            known, whole = conditions[lane].of(part), _Whole(done, len(parts), watch)
            some = functools.partial(self._some, context, score, known, lane, part.start, whole)
            yield from in_groups(len(part), some)

    def _some(
        self,
        context: Context,
        score: Score,
        known: Condition,
        lane: int,
        start: int,
        whole: _Whole,
        part: range,
    ) -> Generator[Event, Any, None]:
        first = start + part.start
        some = self.sets[lane][first : start + part.stop]
        steps = self.measure.run(known.of(part).guide(score), some, self.seed + first)
        yield from _measured(context, score, steps, first, lane, whole)

    def expected_calls(self) -> int:
        """How often the network may be asked, guessed from the tolerance."""
        return self.measure.repeats * len(self._parts()) * usual_calls(self.measure.rtol)

    def _parts(self) -> list[tuple[int, range]]:
        """(set, its pictures) of every batch, a batch of each set in turn."""
        parts = [
            (first, lane, range(first, min(first + self.batch, len(pixels))))
            for lane, pixels in enumerate(self.sets)
            for first in range(0, len(pixels), self.batch)
        ]
        return [(lane, part) for _, lane, part in sorted(parts, key=lambda p: p[:2])]


@dataclass
class _Whole:
    """What a part of a job is a part of."""

    done: int
    parts: int
    watch: Watch

    def progress(self, index: int, total: int, calls: int, log_snr: float) -> Progress:
        """`index` of `total` steps of this part, told as steps of all parts."""
        steps = self.done * total + index
        return Progress(steps, total * self.parts, calls, log_snr, self.watch.seconds)


def _measured(
    context: Context,
    score: Score,
    steps: Iterator[LikelihoodStep],
    first: int,
    lane: int,
    whole: _Whole,
) -> Generator[Event, Any, None]:
    before = whole.watch.calls
    for step in _timed(steps, whole.watch):
        whole.watch.calls = before + step.calls
        snr = log_snr_at(score.sde, step.t)
        if step.finished or context.wants_picture():
            values = (step.bits, step.error, step.map.mean(1))
            bits, error, map = (v.float().cpu().numpy() for v in values)
            yield Measured(first, bits, error, map, snr, step.finished, lane=lane)
        yield whole.progress(step.index, step.total, whole.watch.calls, snr)


def shades(maps: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Maps (…) as uint8 of the same shape, and the values that are black and white: all but one in a
    hundred at each end lie between."""
    low, high = np.quantile(maps, (0.01, 0.99)).tolist()
    grey = 255 * (maps - low) / max(high - low, 1e-12)
    return grey.clip(0, 255).round().astype(np.uint8), (low, high)


@dataclass(frozen=True)
class Apart:
    """How well bits per dimension tell the pictures of two sets apart.

    `auc` is the chance that one of the second needs more bits than one of the first, with its
    standard error; `sorted` the share that the best single border puts into the right set, each set
    counting half.
    """

    auc: float
    error: float
    sorted: float
    border: float

    @property
    def told_apart(self) -> bool:
        """Whether chance alone would hardly do so: three standard errors from one half."""
        return abs(self.auc - 0.5) > 3 * self.error and abs(self.auc - 0.5) > 0.1


def apart(first: np.ndarray, second: np.ndarray) -> Apart:
    """Compare the bits of two sets of pictures, each of shape (N,) with N at least 1.

    Source: Mann and Whitney 1947; Hanley and McNeil 1982 for the error.
    """
    n, m = len(first), len(second)
    difference = second[None] - first[:, None]
    auc = float((difference > 0).mean() + (difference == 0).mean() / 2)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n - 1) * (q1 - auc**2) + (m - 1) * (q2 - auc**2)
    # Where all pairs agree the formula gives nothing; one pair that did not would be about this much.
    error = max(math.sqrt(max(0.0, variance) / (n * m)), 0.5 / min(n, m))
    values = np.sort(np.concatenate([first, second]))
    borders = (values[1:] + values[:-1]) / 2
    below = np.array([((first < b).mean() + (second >= b).mean()) / 2 for b in borders])
    best = int(np.abs(below - 0.5).argmax())
    return Apart(auc, error, float(max(below[best], 1 - below[best])), float(borders[best]))


def outliers(bits: np.ndarray) -> np.ndarray:
    """Which of the bits (N,) lie far from the rest, bool (N,): 3.5 robust deviations from the median.

    Source: Iglewicz and Hoaglin 1993. Fewer than eight pictures have no outliers.
    """
    if len(bits) < 8:
        return np.zeros(len(bits), bool)
    away = np.abs(bits - np.median(bits))
    spread = float(np.median(away)) * 1.4826
    return (away > 3.5 * spread) & (spread > 0)


# -- pictures to noise and back -------------------------------------------------------------------


@dataclass(frozen=True)
class Latent:
    """Noise, float32 (N, C, H, W), and how far it is from the unit noise that it should be.

    All in units of `prior_std`: its `mean` (0), `deviation` (1), and the `correlation` of
    neighbouring pixels (0). `shown` is uint8 (N, H, W, C), from -3 deviations to 3.
    """

    noise: np.ndarray
    shown: np.ndarray
    mean: float
    deviation: float
    correlation: float


@dataclass(frozen=True)
class Trip:
    """How far pictures came back from what they were, in 1/255: the largest, mean and root mean
    square error; and the peak signal-to-noise ratio in dB, infinite where nothing changed."""

    max: float
    mean: float
    rms: float
    psnr: float


@dataclass(frozen=True)
class Encoded(Event):
    """The noise of pictures."""

    latent: Latent


@dataclass(frozen=True)
class Decoded(Event):
    """Pictures of noise, uint8 (n, H, W, C): those at `places` of all that are to be made. `trip` is
    their difference from the pictures that they were to be, if there are some."""

    pictures: np.ndarray
    places: tuple[int, ...]
    trip: Trip | None = None


@dataclass(frozen=True, kw_only=True)
class _FlowJob:
    model: str
    tolerance: float = 1e-4
    label: str = ""

    @property
    def _map(self) -> FlowMap:
        return FlowMap(self.tolerance, self.tolerance)

    def _begin(self, context: Context) -> Score:
        spec.check(self._map)
        return _loaded(self.model, context)

    def _encode(
        self, context: Context, score: Score, pixels: np.ndarray, whole: _Whole
    ) -> Generator[Event, Any, Tensor]:
        def some(part: range) -> Generator[Event, Any, Tensor]:
            x = pictures.to_state(pixels[part], score.value_range, score.device)
            guided = class_condition(score, self.label, len(pixels), 0).of(part).guide(score)
            return (yield from _followed(context, score, self._map.encode(guided, x), whole))

        return torch.cat((yield from in_groups(len(pixels), some)))

    def _decode(
        self, context: Context, score: Score, latent: Tensor, whole: _Whole
    ) -> Generator[Event, Any, Tensor]:
        def some(part: range) -> Generator[Event, Any, Tensor]:
            z = latent[part.start : part.stop]
            guided = class_condition(score, self.label, len(latent), 0).of(part).guide(score)
            return (yield from _followed(context, score, self._map.decode(guided, z), whole))

        return torch.cat((yield from in_groups(len(latent), some)))


@dataclass(frozen=True, kw_only=True)
class EncodeJob(_FlowJob):
    """Find the noise of pictures: Encoded."""

    pixels: np.ndarray

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note("Loading the model")
        score = self._begin(context)
        z = yield from self._encode(context, score, self.pixels, _Whole(0, 1, Watch()))
        yield Encoded(latent_of(z, score))

    def expected_calls(self) -> int:
        return usual_calls(self.tolerance)


@dataclass(frozen=True, kw_only=True)
class DecodeJob(_FlowJob):
    """Make the pictures of noise, float32 (N, C, H, W): Decoded and Finished. The noise is scaled by
    `temperature`; with `original`, uint8 (N, H, W, C), the difference from it is told."""

    noise: np.ndarray
    temperature: float = 1.0
    original: np.ndarray | None = None

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note("Loading the model")
        score, watch = self._begin(context), Watch()
        z = _on_device(self.noise, score) * self.temperature
        x = yield from self._decode(context, score, z, _Whole(0, 1, watch))
        yield from _told(x, self.original, score, watch)

    def expected_calls(self) -> int:
        return usual_calls(self.tolerance)


@dataclass(frozen=True, kw_only=True)
class RoundTripJob(_FlowJob):
    """Pictures to noise and back: Encoded, Decoded with the error, Finished."""

    pixels: np.ndarray
    temperature: float = 1.0

    def run(self, context: Context) -> Generator[Event, Any, None]:
        yield Note("Loading the model")
        score, watch = self._begin(context), Watch()
        z = yield from self._encode(context, score, self.pixels, _Whole(0, 2, watch))
        yield Encoded(latent_of(z, score))
        x = yield from self._decode(context, score, z * self.temperature, _Whole(1, 2, watch))
        yield from _told(x, self.pixels, score, watch)

    def expected_calls(self) -> int:
        return 2 * usual_calls(self.tolerance)


@dataclass(frozen=True, kw_only=True)
class InterpolateJob(_FlowJob):
    """From one picture to another through their noises: Encoded once, Decoded as they come, Finished.

    An end is a picture, uint8 (H, W, C), the seed of a sample, or noise, float32 (C, H, W). What is
    in the middle between others comes first, so that the whole way is there early.
    """

    ends: tuple[np.ndarray | int, np.ndarray | int]
    count: int = 9
    temperature: float = 1.0
    batch: int = BATCH

    def run(self, context: Context) -> Generator[Event, Any, None]:
        if not 2 <= self.count <= MOST_FRAMES:
            raise SpecError(f"A way has 2 to {MOST_FRAMES} pictures.")
        yield Note("Loading the model")
        score, watch = self._begin(context), Watch()
        groups = self._groups()
        ends = yield from self._noise(context, score, _Whole(0, len(groups) + 1, watch))
        yield Encoded(latent_of(ends, score))
        shares = torch.linspace(0, 1, self.count, device=ends.device)
        made: dict[int, np.ndarray] = {}
        for done, places in enumerate(groups, 1):
            z = slerp(ends[0], ends[1], shares[list(places)]) * self.temperature
            x = yield from self._decode(context, score, z, _Whole(done, len(groups) + 1, watch))
            stack = pictures.to_pictures(x, score.value_range)
            made |= dict(zip(places, stack))
            yield Decoded(stack, places)
        whole = np.stack([made[i] for i in range(self.count)])
        yield Finished(whole, {}, watch.calls, watch.seconds)

    def expected_calls(self) -> int:
        return (len(self._groups()) + bool(self._photos())) * usual_calls(self.tolerance)

    def _noise(
        self, context: Context, score: Score, whole: _Whole
    ) -> Generator[Event, Any, Tensor]:
        """The noise of both ends, (2, C, H, W)."""
        photos = self._photos()
        found = iter(())
        if photos:
            found = iter((yield from self._encode(context, score, np.stack(photos), whole)))
        return torch.stack(
            [next(found) if _is_photo(end) else _given_noise(end, score) for end in self.ends]
        )

    def _photos(self) -> list[np.ndarray]:
        return [end for end in self.ends if isinstance(end, np.ndarray) and _is_photo(end)]

    def _groups(self) -> list[tuple[int, ...]]:
        order = coarse_to_fine(self.count)
        return [tuple(order[i : i + self.batch]) for i in range(0, len(order), self.batch)]


def coarse_to_fine(count: int) -> list[int]:
    """0 to count - 1 in an order in which every next one halves a gap: both ends, the middle, …"""
    order, gaps = [0, count - 1][: max(1, count)], [(0, count - 1)]
    while gaps:
        halves = []
        for low, high in gaps:
            if high - low > 1:
                middle = (low + high) // 2
                order.append(middle)
                halves += [(low, middle), (middle, high)]
        gaps = halves
    return order


def latent_of(z: Tensor, score: Score) -> Latent:
    """Noise (N, C, H, W) on any device as a Latent."""
    unit = z.detach().float() / score.sde.prior_std
    middle = unit - unit.mean()
    beside = (middle[..., 1:] * middle[..., :-1]).mean() + (
        middle[..., 1:, :] * middle[..., :-1, :]
    ).mean()
    return Latent(
        z.detach().float().cpu().numpy(),
        pictures.to_pictures(unit, (-3.0, 3.0)),
        float(unit.mean()),
        float(unit.std()),
        float(beside / 2 / middle.pow(2).mean().clamp_min(1e-20)),
    )


def trip(x: Tensor, pixels: np.ndarray, score: Score) -> Trip:
    """How far states x (N, C, H, W) are from the pictures that they were to become again."""
    low, high = score.value_range
    wanted = pictures.to_state(pixels, score.value_range, score.device)
    error = (x.float() - wanted).abs() * (255 / (high - low))
    square = float(error.double().pow(2).mean())
    psnr = math.inf if square == 0 else 10 * math.log10(255**2 / square)
    return Trip(float(error.max()), float(error.mean()), math.sqrt(square), psnr)


def _told(
    x: Tensor, original: np.ndarray | None, score: Score, watch: Watch
) -> Generator[Event, Any, None]:
    stack = pictures.to_pictures(x, score.value_range)
    back = None if original is None else trip(x, original, score)
    yield Decoded(stack, tuple(range(len(stack))), back)
    yield Finished(stack, {}, watch.calls, watch.seconds)


def _followed(
    context: Context, score: Score, steps: Iterator[Step], whole: _Whole
) -> Generator[Event, Any, Tensor]:
    """Progress of a way along the flow, and how it looks now and then; where it ends."""
    before, x = whole.watch.calls, None
    for step in _timed(steps, whole.watch):
        x = step.x
        whole.watch.calls = before + step.nfe
        snr = log_snr_at(score.sde, step.t)
        if context.wants_picture():
            yield Picture(live_frame(score, step, snr))
        yield whole.progress(step.index, step.total, whole.watch.calls, snr)
    assert x is not None
    return x


def _is_photo(end: np.ndarray | int) -> bool:
    return isinstance(end, np.ndarray) and end.dtype == np.uint8


def _given_noise(end: np.ndarray | int, score: Score) -> Tensor:
    if isinstance(end, np.ndarray):
        return _on_device(end[None], score)[0]
    noise = Noise.of(end, 1, score.shape, score.sde, device=score.device)
    return noise.start()[0] * score.sde.prior_std


def _on_device(noise: np.ndarray, score: Score) -> Tensor:
    return torch.from_numpy(noise.astype(np.float32)).to(score.device)


def _loaded(model: str, context: Context) -> Score:
    """The model's score, which asks before every call whether to stop. In full precision whatever a
    person has chosen: what is wanted here are figures."""
    return interruptible(context.shelf.load(model, context.device), context)


def _timed(steps: Iterator[T], watch: Watch) -> Iterator[T]:
    """The steps, with the seconds that each took counted."""
    while True:
        begun = time.perf_counter()
        step = next(steps, None)
        watch.seconds += time.perf_counter() - begun
        if step is None:
            return
        yield step


# -- ways as pictures -----------------------------------------------------------------------------


def row(stack: np.ndarray, gap: int = 2) -> np.ndarray:
    """Pictures (N, H, W, C) side by side, uint8 (H, W', C)."""
    n, h, w, c = stack.shape
    out = np.full((h, n * (w + gap) - gap, c), 128, np.uint8)
    for i, picture in enumerate(stack):
        out[:, i * (w + gap) : i * (w + gap) + w] = picture
    return out


def there_and_back(stack: np.ndarray) -> list[np.ndarray]:
    """The pictures of a film (N, H, W, C) that goes to the end and returns, without a jump."""
    return [*stack, *stack[-2:0:-1]]


# -- what it will cost ----------------------------------------------------------------------------


class Counts(Protocol):
    """A job that can guess how often it will ask the network."""

    def run(self, context: Context) -> Generator[Event, Any, None]: ...

    def expected_calls(self) -> int: ...


@dataclass(frozen=True)
class Cost:
    calls: int
    seconds: float


@dataclass(frozen=True)
class ProbeJob:
    """Run the first two steps of a job, and tell by them what all of it costs: a Cost as Done."""

    background: ClassVar[bool] = True
    job: Counts

    def run(self, context: Context) -> Generator[Event, Any, None]:
        # The first step also warms up the device, so only the second counts.
        seen: list[Progress] = []
        events = self.job.run(context)
        try:
            for event in events:
                if isinstance(event, Progress):
                    seen.append(event)
                    if len(seen) == 2:
                        break
                yield Note("Looking what it will cost")
        finally:
            events.close()
        first, last = (Progress(0, 0), *seen)[-2:]
        each = (last.seconds - first.seconds) / max(1, last.calls - first.calls)
        calls = self.job.expected_calls()
        yield Done(Cost(calls, calls * each))


def usual_calls(tolerance: float) -> int:
    """About how often the network is asked on one way along the flow."""
    # Thirteen of the longest steps at least; what a finer one takes was measured with the model that
    # ships, on pictures like its own and unlike.
    return max(79, round(172 * (1e-5 / tolerance) ** 0.25))
