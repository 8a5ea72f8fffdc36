"""`score-studio compare`: samplers and models from one start, side by side, with what each has cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from studio import choose, photos, recipes, spec, terminal
from studio.commands import Command, Outcome, given, positional
from studio.engine.events import Begun, Event, Failed, Finished, Metric, Note, Progress, Standing
from studio.engine.jobs import Setting
from studio.engine.race import SYNCS, Lane, RaceJob, RaceRecipe, same_calls
from studio.engine.trajectory import VIEWS, Trajectory
from studio.errors import SolverError, SpecError
from studio.weights.shelf import Shelf

_SIDE = 128  # pixels of a picture on the page, at least
_ACROSS = 8  # pictures in a row
_MOMENTS = 72  # of an animation
_LONGEST = 2048  # pixels of an animation's longer side
_GAP, _BAND, _LETTERS = 4, 24, 14
_PAPER, _INK = "#ffffff", "#222222"


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Let samplers, or models, race from the same noise.

    The PNG has a row for each lane and carries the recipe of the race. With several models and several
    samplers, the first model goes with the first sampler, and so on.
    """

    model: str = positional(help="A model, or several: MODEL,MODEL2.")
    samplers: str = spec.option("pc,rk45", help="Samplers or presets, as pc,rk45,dpm2m.")
    steps: int | None = spec.option(None, range=(1, 10_000), help="Steps of every lane.")
    calls: int | None = spec.option(
        None, range=(2, 10**6), help="Network calls of every lane, instead of steps."
    )
    count: int = spec.option(2, range=(1, 64), help="Pictures in each lane.")
    seed: int = spec.option(0, range=(0, 2**32 - 1), help="Picture i has the seed + i.")
    sync: str = spec.option("log_snr", choices=SYNCS, help="In what the lanes keep together.")
    bits: bool = spec.option(False, help="Measure the results: bits per dimension by their model.")
    label: str = spec.option("", help="A class of the models, or each for all in turn.")
    guidance: float = spec.option(1.0, range=(0, 100), help="How clearly the class is to show.")
    preset: str = spec.option("", help="A published configuration, for files that need one.")
    option: tuple[str, ...] = spec.option(
        (), help="A setting of one lane, the first being 0, or of all: 0.snr=0.2. May be repeated."
    )
    out: str = spec.option("race.png", help="The PNG to write.")
    frames: str = spec.option("", help="Also write the race as an animation, .webp or .gif.")
    view: str = spec.option("denoised", choices=VIEWS, help="What the animation shows.")
    device: str = spec.option("auto", help="auto, cpu, cuda or mps.")

    def run(self) -> Outcome:
        files = [given.to_write(self.out, ".png")]
        if self.frames:
            files.append(Path(self.frames))
            recipes.check_animation(files[1])
            recipes.check_writable(files[1])
        lanes, notes = self.lanes()
        recipe = RaceRecipe(lanes=lanes, count=self.count, seed=self.seed, sync=self.sync)
        recipe.check()
        for text in notes:
            terminal.note(text)
        setting, seen = Setting(Shelf(), self.device, rate=0), _Seen(lanes)
        with terminal.progress("Racing") as update:
            for event in RaceJob(recipe, self.bits).run(setting):
                seen.take(event)
                if isinstance(event, Progress):
                    update(*seen.progress())
        seen.check()
        recipes.write_png(files[0], seen.page(), spec.to_dict(recipe))
        if self.frames:
            recipes.write_animation(files[1], seen.moments(self.view))
        data = seen.data() | {
            "files": [str(path) for path in files],
            "count": self.count,
            "seed": self.seed,
            "sync": self.sync,
            "device": setting.device,
            "notes": notes,
            "recipe": spec.to_dict(recipe),
        }
        wrote = [f"wrote {path}" for path in files]
        return Outcome(data, "\n".join([*wrote, *seen.table()]), 3 if seen.failed else 0)

    def lanes(self) -> tuple[tuple[Lane, ...], list[str]]:
        """The lanes, and what is to be told about them. Raises SpecError."""
        if self.steps is not None and self.calls is not None:
            raise SpecError("Steps and calls cannot both be given.", "Leave out one of them.")
        models = [self.model] if Path(self.model).exists() else _named(self.model, "model")
        names, lanes, notes = _named(self.samplers, "sampler"), [], []
        if len(models) > 1 and len(names) > 1 and len(models) != len(names):
            raise SpecError(
                f"{len(models)} models and {len(names)} samplers cannot be paired.",
                "Give one of either, or as many of both.",
            )
        options = self._options(lane_count := max(len(models), len(names)))
        for i in range(lane_count):
            sampler, note = choose.sampler(names[i % len(names)], self.steps)
            lane = Lane(
                models[i % len(models)], sampler, self.label, self.guidance, None, 1.0, self.preset
            )
            if self.calls is not None:
                (lane,) = same_calls((lane,), self.calls)
                if lane.sampler.cost() is None:
                    note = f"{lane.sampler.title} makes as many calls as it needs."
            lanes.append(choose.with_options(lane, options[i]))
            notes += [note] if note and note not in notes else []
        return tuple(lanes), notes

    def _options(self, lanes: int) -> list[dict[str, str]]:
        """What --option says of each lane. Raises SpecError."""
        table: list[dict[str, str]] = [{} for _ in range(lanes)]
        for name, value in choose.pairs(self.option).items():
            place, dot, rest = name.partition(".")
            if not (dot and place.isdecimal()):
                for one in table:
                    one.setdefault(name, value)
            elif int(place) >= lanes:
                raise SpecError(
                    f"There is no lane {place}: the lanes are 0 to {lanes - 1}.",
                    "The first lane is 0.",
                )
            else:
                table[int(place)][rest] = value
        return table


def _named(text: str, what: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise SpecError(f"“{text}” names a {what} that is empty.", "Write them as one,two.")
    return names


@dataclass
class _Seen:
    """What was seen of a race."""

    lanes: Sequence[Lane]
    trajectories: dict[int, Trajectory] = field(default_factory=dict)
    steps: dict[int, Progress] = field(default_factory=dict)
    standings: dict[int, Standing] = field(default_factory=dict)
    results: dict[int, np.ndarray] = field(default_factory=dict)
    failed: dict[int, Failed] = field(default_factory=dict)
    distances: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        if isinstance(event, Note):
            terminal.note(event.text)
        elif isinstance(event, Begun):
            self.trajectories[event.lane] = event.trajectory
        elif isinstance(event, Progress):
            self.steps[event.lane] = event
        elif isinstance(event, Standing):
            self.standings[event.lane] = event
        elif isinstance(event, Finished):
            self.results[event.lane] = event.pictures
        elif isinstance(event, Metric) and event.name.startswith("distance "):
            self.distances.setdefault(event.name.removeprefix("distance "), []).extend(event.points)
        elif isinstance(event, Failed):
            self.failed[event.lane] = event
            terminal.note(f"{self.lanes[event.lane].name}: {event.message}")

    def progress(self) -> tuple[int, int, str]:
        """Steps done, of how many, and the calls made."""
        seen = self.steps.values()
        calls = sum(p.calls for p in seen)
        return sum(p.step for p in seen), sum(p.total for p in seen), f"{calls} calls"

    def check(self) -> None:
        """Raise SolverError if no lane has come to its end."""
        if not self.results:
            first = self.failed[min(self.failed)]
            raise SolverError(f"No lane came to its end. {first.message}", first.hint)

    def data(self) -> dict[str, Any]:
        rows = []
        for i, lane in enumerate(self.lanes):
            stand = self.standings[i]
            speed = stand.calls / stand.seconds if stand.seconds else math.nan
            rows.append(
                {
                    "sampler": spec.kind(lane.sampler),
                    "model": lane.model,
                    "nfe": stand.calls,
                    "seconds": round(stand.seconds, 3),
                    "calls_per_second": round(speed, 2),
                    "accepted": stand.accepted,
                    "rejected": stand.rejected,
                    "bits": stand.bits,
                    "stopped": self.failed[i].message if i in self.failed else None,
                    "settings": spec.to_dict(lane),
                }
            )
        points = {pair: sorted(map(list, curve)) for pair, curve in self.distances.items()}
        return {"lanes": rows, "distance": points.get("0-1", []), "distances": points}

    def table(self) -> list[str]:
        """The scoreboard, a line a lane."""
        lines = [f"{'lane':<28} {'calls':>6} {'seconds':>8} {'calls/s':>8}  steps taken (refused)"]
        for row, lane in zip(self.data()["lanes"], self.lanes):
            taken = "" if row["accepted"] is None else f"{row['accepted']:.1f}"
            taken += "" if row["rejected"] is None else f" ({row['rejected']:.1f})"
            more = row["stopped"] or ("" if row["bits"] is None else f"{row['bits']:.3f} bits/dim")
            lines.append(
                f"{lane.name:<28} {row['nfe']:>6} {row['seconds']:>8.2f} "
                f"{row['calls_per_second']:>8.1f}  {taken}  {more}".rstrip()
            )
        for pair, points in self.distances.items():
            lines.append(f"distance {pair} at the end: {sorted(points)[-1][1]:.4f} of the range")
        return lines

    # -- pictures ---------------------------------------------------------------------------------

    def page(self) -> np.ndarray:
        """A labelled row for each lane, uint8 (H, W, 3)."""
        rows = []
        for i, lane in enumerate(self.lanes):
            stand = self.standings[i]
            said = "did not finish" if i in self.failed else f"{stand.seconds:.1f} s"
            text = f"{lane.name}: {stand.calls} calls, {said}"
            rows.append(_labelled(text, _row(self._last(i))))
        return _joined(rows, down=True)

    def moments(self, view: str) -> list[np.ndarray]:
        """The race at marks even in log-SNR, its lanes side by side."""
        kept = {i: t for i, t in self.trajectories.items() if t.frames}
        low = min(t.frames[0].log_snr for t in kept.values())
        high = max(t.frames[-1].log_snr for t in kept.values())
        sheets = [
            self._moment(kept, snr, view if snr < high else "denoised")
            for snr in np.linspace(low, high, _MOMENTS).tolist()
        ]
        height, width = sheets[0].shape[:2]
        shrink = min(1.0, _LONGEST / max(height, width))
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        return [photos.resized(sheet, size) for sheet in sheets] if shrink < 1 else sheets

    def _moment(self, kept: dict[int, Trajectory], snr: float, view: str) -> np.ndarray:
        columns = []
        for i, trajectory in kept.items():
            frame = trajectory.nearest(snr)
            assert frame is not None
            across = math.ceil(math.sqrt(len(frame.denoised)))
            columns.append(_labelled(self.lanes[i].name, _row(frame.view(view), across)))
        return _joined(columns, down=False)

    def _last(self, lane: int) -> np.ndarray:
        """The result of a lane, or where it was when it could not go on."""
        if lane in self.results:
            return self.results[lane]
        if frames := self.trajectories[lane].frames:
            return frames[-1].denoised
        return np.full_like(next(iter(self.results.values())), 128)


def _row(stack: np.ndarray, across: int = _ACROSS) -> np.ndarray:
    """Pictures (N, H, W, C) in rows of `across`, enlarged if they are small: (H', W', 3)."""
    n, h, w, c = stack.shape
    factor = max(1, math.ceil(_SIDE / min(h, w)))
    big = stack.repeat(factor, 1).repeat(factor, 2).repeat(3 // c, 3)
    across = min(n, across)
    high, wide = big.shape[1] + _GAP, big.shape[2] + _GAP
    page = np.full((math.ceil(n / across) * high - _GAP, across * wide - _GAP, 3), 255, np.uint8)
    for i, picture in enumerate(big):
        y, x = i // across * high, i % across * wide
        page[y : y + high - _GAP, x : x + wide - _GAP] = picture
    return page


def _labelled(text: str, page: np.ndarray) -> np.ndarray:
    """A page (H, W, 3) below a line of text, as wide as both need."""
    font = ImageFont.load_default(_LETTERS)
    width = max(page.shape[1], math.ceil(font.getlength(text)) + 2 * _GAP)
    whole = Image.new("RGB", (width, page.shape[0] + _BAND), _PAPER)
    ImageDraw.Draw(whole).text((_GAP, _BAND / 2), text, fill=_INK, font=font, anchor="lm")
    whole.paste(Image.fromarray(page), (0, _BAND))
    return np.asarray(whole)


def _joined(pages: Sequence[np.ndarray], down: bool) -> np.ndarray:
    """Pages (H, W, 3) below or beside each other, on white."""
    height, width = (max(page.shape[i] for page in pages) for i in (0, 1))
    padded = [
        np.pad(
            page,
            (
                (0, _GAP if down else height - page.shape[0]),
                (0, width - page.shape[1] if down else 2 * _GAP),
                (0, 0),
            ),
            constant_values=255,
        )
        for page in pages
    ]
    return np.concatenate(padded, 0 if down else 1)
