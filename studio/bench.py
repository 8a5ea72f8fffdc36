"""`score-studio bench`: what the studio costs over its networks, against the budgets it keeps.

What is compared runs interleaved, step by step, and medians are compared, so that another program
on the machine slows both alike. Rows of the window come from a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from studio import bench_compare, choose, spec, terminal
from studio.commands import Command, Outcome
from studio.diffusion import pictures
from studio.diffusion.flow import flow
from studio.diffusion.likelihood import Measure
from studio.diffusion.noise import Noise
from studio.diffusion.score import Score, noise_label
from studio.diffusion.sde import FIRST_TIME
from studio.engine.engine import Engine
from studio.engine.events import Progress
from studio.engine.jobs import SampleJob, Setting, Watch, Watched
from studio.engine.training_run import Looks, Lot
from studio.errors import StudioError
from studio.lazy import torch
from studio.training.card import processor
from studio.training.data import Pictures
from studio.training.plan import Training
from studio.training.trainer import Trainer
from studio.weights import devices, formats
from studio.weights.model import ModelInfo, score_of
from studio.weights.shelf import Shelf

if TYPE_CHECKING:
    from torch import Tensor, nn

_BATCH = 16
_SUBJECT = "critters-32"  # it ships, and is quick: what is done beside its calls shows most
_LOOK_EVERY = 250  # steps of a training between two looks at it


@dataclass(frozen=True)
class Row:
    """One figure. `ok` is None where there is no budget, or it could not be measured."""

    name: str
    value: float | None
    unit: str
    budget: str = ""
    ok: bool | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Measure what the studio costs, against its budgets."""

    model: str = spec.option("", help="A model; else critters-32, or an untrained one.")
    device: str = spec.option("auto", help="auto, cpu, cuda or mps.")
    quick: bool = spec.option(False, help="Fewer steps: less certain figures in less time.")
    window: bool = spec.option(True, help="Leave out the rows of the window.")

    def run(self) -> Outcome:
        device = devices.resolve(self.device)
        with tempfile.TemporaryDirectory() as scratch:
            bench = _Bench(self._subject(Path(scratch)), device, Path(scratch), self.quick)
            rows = [row for part in self._parts(bench) for row in _guarded(part)]
        where = machine(device)
        failed = [row.name for row in rows if row.ok is False]
        lines = [f"{key}: {value}" for key, value in where.items()] + ["", *map(_line, rows)]
        data = {"machine": where, "model": bench.model, "failed": failed}
        return Outcome(data | {"rows": [dataclasses.asdict(row) for row in rows]}, "\n".join(lines))

    def _parts(self, bench: _Bench) -> list[Callable[[], list[Row]]]:
        parts = [
            lambda: bench.overhead("dpm2m"),
            lambda: bench.overhead("pc"),
            bench.live_view,
            bench.race,
            bench.kept,
            bench.stop,
            bench.training,
            bench.likelihood,
            bench.memory,
        ]
        return [*parts, window_rows] if self.window else parts

    def _subject(self, scratch: Path) -> Path:
        """The folder of the model to measure with."""
        if self.model:
            return Shelf().find(self.model).path
        there = {e.name: e.path for e in Shelf().entries() if e.info is not None}
        if there:
            return there.get(_SUBJECT) or next(iter(there.values()))
        terminal.note("No model on the shelf: measuring with an untrained one")
        return untrained(scratch / "untrained")


def untrained(folder: Path) -> Path:
    """A model folder with the network of the default training plan, not trained."""
    data = Pictures(np.zeros((2, 32, 32, 3), np.uint8), np.full(2, -1))
    Trainer(Training(), data, folder).save()
    return folder


def machine(device: str) -> dict[str, Any]:
    """What the figures belong to."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": devices.facts(device).name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def at_most(name: str, value: float, unit: str, most: float) -> Row:
    return Row(name, round(value, 4), unit, f"at most {most:g}", value <= most)


def _guarded(part: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a part; what a person could mend is said in a row instead of ending the bench."""
    try:
        return part()
    except StudioError as error:
        return [Row("not measured", None, "", reason=str(error))]


class _Bench:
    """The rows that need only torch."""

    def __init__(self, folder: Path, device: str, scratch: Path, quick: bool) -> None:
        self.model, self.device, self.scratch, self.quick = str(folder), device, scratch, quick
        opened = formats.open_model(folder)
        self.info: ModelInfo = opened.info
        self.net: nn.Module = opened.network(device)
        self.score: Score = score_of(self.net, self.info, device)
        self.steps = 24 if quick else 120

    def overhead(self, name: str) -> list[Row]:
        """Time of a sampler's step against its bare network calls, made between the steps."""
        terminal.note(f"bench: overhead of {name}")
        sampler, _ = choose.sampler(name, self.steps)
        steps, bare = self._steps(sampler), self._bare()
        next(steps)
        bare()
        ratios, calls = [], []
        for _ in range(self.steps - 1):
            before = self._timed(bare)
            begun = time.perf_counter()
            step = next(steps)
            self._wait()
            took = time.perf_counter() - begun
            after = self._timed(bare)
            count = step.nfe / step.index
            calls.append((before + after) / 2)
            ratios.append(took / (count * (before + after) / 2))
        percent = 100 * (median(ratios) - 1)
        return [
            Row(f"network, {_BATCH} pictures", round(1000 * median(calls), 3), "ms/call"),
            at_most(f"{name} over its network", percent, "%", 3),
        ]

    def live_view(self) -> list[Row]:
        """The same run, with pictures made 30 times a second and without any."""
        terminal.note("bench: live view")
        sampler, _ = choose.sampler("dpm2m", self.steps)
        context = _OwnClock(self.device, 30.0)
        watched = Watched(context, self.score, self._steps(sampler), Watch())
        plain = self._steps(sampler)
        next(plain)
        _through_step(watched)
        shown = unseen = 0.0
        for _ in range(self.steps - 2):
            begun = time.perf_counter()
            _through_step(watched)
            self._wait()
            took = time.perf_counter() - begun
            context.now += took
            shown += took
            unseen += self._timed(lambda: next(plain))
        percent = 100 * (shown / unseen - 1)
        most = 1 if self.device.startswith("cuda") else 3
        return [at_most("live view, 30 pictures/s", percent, "%", most)]

    def race(self) -> list[Row]:
        """Two lanes advanced together against their network calls: each for itself, and in one batch."""
        terminal.note("bench: two lanes of a race")
        subject = self.model, self.device, self.steps
        apart, together = (
            100 * (bench_compare.lanes_over_calls(*subject, share, self._bare(), self._wait) - 1)
            for share in (False, True)
        )
        return [
            at_most("two lanes over their calls", apart, "%", 3),
            Row("two lanes that share a batch", round(together, 4), "% over two calls"),
        ]

    def kept(self) -> list[Row]:
        """What the moments of a run of 16 pictures of 64 pixels take."""
        terminal.note("bench: what is kept of a run")
        kept = bench_compare.kept_of_a_run()
        whole = kept.frame_bytes / kept.frames * 96
        return [
            at_most("96 moments of 16 × 64²", whole / 1e6, "MB", 40),
            Row(f"{kept.states} exact states of it", round(kept.state_bytes / 1e6, 2), "MB"),
        ]

    def stop(self) -> list[Row]:
        """From asking a run to stop until it has ended, less one network call."""
        terminal.note("bench: stop")
        call = median(self._timed(self._bare()) for _ in range(8))
        late = [asyncio.run(self._stopped()) for _ in range(3 if self.quick else 8)]
        return [at_most("stop, beyond one call", 1000 * max(0.0, max(late) - call), "ms", 100)]

    async def _stopped(self) -> float:
        engine = Engine(Setting(Shelf(), self.device))
        sampler, _ = choose.sampler("dpm2m", 10_000)
        run = engine.start(SampleJob(self.model, sampler, _BATCH))
        begun = 0.0
        async for event in run:
            if isinstance(event, Progress) and not begun:
                run.stop()
                begun = time.perf_counter()
        took = time.perf_counter() - begun
        await engine.close()
        return took

    def training(self) -> list[Row]:
        """Pictures a second of the trainer, with the samples and measurements that a run has every 250
        steps, against a bare loop: network, loss, Adam. And the memory of both."""
        terminal.note("bench: training")
        plan, data = _training_subject(self.info.size)
        trainer = Trainer(plan, data, self.scratch / "run", self.device)
        lot = Lot(data, data, data, mirrored=False)
        looks = Looks(trainer, lot, _LOOK_EVERY)
        bare = _bare_training(plan, data, self.scratch / "bare", self.device)
        trainer.advance()
        bare()
        ours, theirs = [], []
        for _ in range(5 if self.quick else 20):
            ours.append(self._timed(trainer.advance))
            theirs.append(self._timed(bare))
        look, beside = self._look(trainer, looks, bare)
        # Each with what ran beside it, so that another program slows both alike.
        step, bare_step = median(ours), median(theirs)
        share = _LOOK_EVERY / (_LOOK_EVERY * step / bare_step + look / beside)
        told = Row("training", round(plan.batch / step, 1), "pictures/s")
        name = "training, of a bare loop"
        return [told, Row(name, round(share, 4), "", "at least 0.95", share >= 0.95), self._peaks()]

    def _look(self, trainer: Trainer, looks: Looks, bare: Callable[[], Any]) -> tuple[float, float]:
        """Seconds of one look at a run, and of a bare step before and after it."""

        def look() -> None:
            net, x = trainer.network(), None
            for x in looks.draw(net):  # noqa: B007
                pass
            assert x is not None
            looks.sheet(1, x)
            looks.measure(net)
            devices.give_back()

        look()
        before = [self._timed(bare) for _ in range(3)]
        took = self._timed(look)
        return took, median([*before, *(self._timed(bare) for _ in range(3))])

    def _peaks(self) -> Row:
        """The most memory of a training with looks and saves, against that of a bare loop's."""
        name, budget = "its memory, of a bare loop", "at most 1.1"
        found = []
        for which in ("ours", "bare"):
            code = _TRAINING_PEAK.format(which, self.info.size, str(self.scratch), self.device)
            if (most := _printed(code)) is None:
                return Row(name, None, "", budget, reason="this system does not tell")
            found.append(most)
        share = found[0] / found[1]
        return Row(name, round(share, 4), "", budget, share <= 1.1)

    def likelihood(self) -> list[Row]:
        """Bits per dimension of a batch, against a solver of scipy's at the same tolerance that has
        two passes an evaluation, one for the flow and one for its divergence."""
        terminal.note("bench: likelihood")
        name, tolerance, seconds = "likelihood_speedup", 1e-3 if self.quick else 1e-4, [0.0, 0.0]
        if importlib.util.find_spec("scipy") is None:
            return [Row(name, None, "", "at least 1.35", reason="scipy is not installed")]
        count, score = 2 if self.quick else 4, self.score
        noise = Noise.of(0, count, score.shape, score.sde, device=self.device)
        *_, made = choose.sampler("quick")[0].run(score, noise)
        x, probe = made.denoised, torch.where(noise.fresh(1.0, 0) < 0, -1.0, 1.0)
        ours = Measure(probes=1, rtol=tolerance, atol=tolerance).run(score, x)
        lanes: list[Iterator[Any]] = [ours, _separate_passes(score, x, probe, tolerance)]
        waiting = {0, 1}
        while waiting:
            # The one that has had less time goes on, so that both see the same machine.
            lane = min(waiting, key=seconds.__getitem__)
            begun = time.perf_counter()
            if next(lanes[lane], None) is None:
                waiting.remove(lane)
            self._wait()
            seconds[lane] += time.perf_counter() - begun
        ratio = seconds[1] / seconds[0]
        return [Row(name, round(ratio, 3), "times", "at least 1.35", ratio >= 1.35)]

    def memory(self) -> list[Row]:
        """The most memory that a process of its own holds while it samples."""
        terminal.note("bench: memory")
        name = "memory of sampling, at most"
        most = _printed(_PEAK, self.model, str(self.scratch / "out.png"))
        if most is not None:
            return [at_most(name, most / 1e6, "MB", 1000)]
        return [Row(name, None, "MB", "at most 1000", reason="this system does not tell")]

    def _steps(self, sampler: Any) -> Iterator[Any]:
        score = self.score
        noise = Noise.of(0, _BATCH, score.shape, score.sde, device=self.device, depth=sampler.depth)
        return sampler.run(score, noise)

    def _bare(self) -> Callable[[], Tensor]:
        """One call of the network with nothing around it."""
        x = torch.randn(_BATCH, *self.info.shape, device=self.device)
        label = noise_label(self.info.sde.sigma(torch.full((_BATCH,), 0.5, device=self.device)))
        y = torch.full((_BATCH,), -1, device=self.device) if self.info.classes else None

        def call() -> Tensor:
            with torch.no_grad():
                return self.net(x, label, y)

        return call

    def _timed(self, work: Callable[[], Any]) -> float:
        begun = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - begun

    def _wait(self) -> None:
        """A graphics card works on while Python goes ahead; the clock must not."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()
        elif self.device == "mps":
            torch.mps.synchronize()


# Sampling in a process of its own, which then tells the most memory it held, in bytes.
_PEAK = """
import sys
from studio.bench import peak_memory
from studio.cli import main
code = main(["sample", sys.argv[1], "--count", "16", "--out", sys.argv[2], "--json"])
print()
print(peak_memory())
sys.exit(code)
"""


# Training in a process of its own, which then tells the most memory that the device held, in bytes.
_TRAINING_PEAK = """
from studio.bench import training_peak
from studio.weights import devices
devices.keep_freed()
print(training_peak({!r}, {!r}, {!r}, {!r}))
"""


def _printed(code: str, *words: str) -> float | None:
    """The last word that a program prints, as a number; None if it does not come to that."""
    with contextlib.suppress(OSError, ValueError, IndexError, subprocess.SubprocessError):
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=1200,
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
        return float(done.stdout.split()[-1])
    return None


def training_peak(which: str, size: int, scratch: str, device: str) -> int:
    """Train for some steps, "ours" or a "bare" loop, and tell the most memory that was held."""
    plan, data = _training_subject(size)
    folder = Path(scratch) / f"peak-{which}"
    if which == "bare":
        step = _bare_training(plan, data, folder, device)
        for _ in range(6):
            step()
    else:
        trainer = Trainer(plan, data, folder, device)
        looks = Looks(trainer, Lot(data, data, data, mirrored=False), _LOOK_EVERY)
        for _ in range(3):
            trainer.advance()
            net = trainer.network()
            *_, x = looks.draw(net)
            looks.sheet(1, x)
            looks.measure(net)
            devices.give_back()
            trainer.save()
    return torch.cuda.max_memory_allocated() if device.startswith("cuda") else peak_memory()


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            # What getrusage tells of a process begins with what the one held that started it.
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _training_subject(size: int) -> tuple[Training, Pictures]:
    """A plan for pictures of this size, and some noise to learn."""
    plan = Training(size=size, steps=10_000)
    rng = np.random.default_rng(0)
    return plan, Pictures(rng.integers(0, 256, (64, size, size, 3), np.uint8), np.full(64, -1))


def _separate_passes(score: Score, x: Tensor, probe: Tensor, tolerance: float) -> Iterator[Any]:
    """The solver after each step, with the state of a whole batch on the host, in double precision."""
    from scipy.integrate import RK45

    count = len(x)

    def slope(t: float, y: np.ndarray) -> np.ndarray:
        at = torch.from_numpy(y[:-count]).reshape(x.shape).to(x)
        times = x.new_full((count,), t)
        with torch.no_grad():
            drift = flow(score, at, times)
        with torch.enable_grad():
            at.requires_grad_(True)
            (pulled,) = torch.autograd.grad((flow(score, at, times) * probe).sum(), at)
        divergence = (pulled * probe).flatten(1).sum(1)
        return np.concatenate([v.flatten().cpu().numpy() for v in (drift, divergence)])

    start = np.concatenate([x.flatten().cpu().numpy(), np.zeros(count)])
    solver = RK45(slope, FIRST_TIME, start, 1.0, rtol=tolerance, atol=tolerance)
    while solver.status == "running":
        solver.step()
        yield solver


class _OwnClock(Setting):
    """A Context whose display ticks follow a clock that counts the watched run's time only."""

    def __init__(self, device: str, rate: float) -> None:
        super().__init__(None, device, rate)
        self.now, self._shown = 0.0, 0.0

    def wants_picture(self) -> bool:
        if self.now - self._shown < self._gap:
            return False
        self._shown = self.now
        return True


def _through_step(watched: Watched) -> None:
    """Draw events up to the next Progress: the pictures of the step before are among them."""
    while not isinstance(watched.next(), Progress):
        pass


def _bare_training(plan: Training, data: Pictures, folder: Path, device: str) -> Callable[[], None]:
    """One step of the plainest loop that trains the same network with the same loss and Adam."""
    net = Trainer(plan, data, folder, device).net
    optimizer = torch.optim.Adam(net.parameters(), lr=plan.rate, fused=True)
    state = pictures.to_state(data.pixels, (-1.0, 1.0), device)
    state = state.contiguous(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        chosen = torch.randint(len(state), (plan.batch,), generator=generator).to(device)
        kind = torch.device(device).type
        with torch.autocast(kind, torch.bfloat16, plan.precision == "bf16"):
            losses, _ = plan.objective.loss(
                net, plan.output, plan.sde, state[chosen], None, generator
            )
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


# -- the window -----------------------------------------------------------------------------------

_WINDOW = (
    ("window_seconds", "window shown", "s", 1.0),
    ("first_picture_seconds", "first moving picture", "s", 10.0),
    ("gap_p99_ms", "gap of the window's loop, 99 %", "ms", 16.0),
    ("idle_rss_mb", "memory before a model is loaded", "MB", 300.0),
    ("race_gap_p99_ms", "gap with four lanes racing, 99 %", "ms", 16.0),
    ("scrub_p99_ms", "scrub to a kept moment, 99 %", "ms", 16.0),
    ("stop_ms", "stop in the window", "ms", None),
    ("brush_p99_ms", "brush, 4096², radius 512, 99 %", "ms", 16.0),
    ("pan_p99_ms", "pan of a 24 Mpx photo, 99 %", "ms", 16.0),
    ("first_candidate_ms", "first pixels of a candidate", "ms", None),
    ("paint_gap_p99_ms", "gap while a candidate is painted on", "ms", 16.0),
    ("train_gap_p99_ms", "gap of the loop while training, 99 %", "ms", 16.0),
)


def window_rows() -> list[Row]:
    """What the window measures of itself, in a process of its own; offscreen without a screen."""
    terminal.note("bench: the window")
    found, reason = _window_figures()
    rows = []
    for key, name, unit, most in _WINDOW:
        budget = f"at most {most:g}" if most else ""
        value = found.get(key)
        if not isinstance(value, int | float):
            rows.append(Row(name, None, unit, budget, reason=reason or "the window did not say"))
        elif most:
            rows.append(at_most(name, value, unit, most))
        else:
            rows.append(Row(name, round(value, 2), unit))
    return rows


def _window_figures() -> tuple[dict[str, Any], str]:
    """(figures, "") or ({}, why there are none)."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "studio.app", "--measure"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=300,
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        figures = json.loads(lines[-1]) if lines else {}
    except subprocess.TimeoutExpired:
        return {}, "the window did not answer within five minutes"
    except (OSError, ValueError) as error:
        return {}, str(error)
    said = done.stderr.strip().splitlines()
    problem = figures.get("problem") or (said[-1] if said else f"exit code {done.returncode}")
    return figures, "" if lines and "problem" not in figures else str(problem)


def _environment() -> dict[str, str]:
    """Ours, with the studio found from anywhere, and no screen asked of a machine without one."""
    package = str(Path(__file__).resolve().parent.parent)
    found = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": found}
    screens = ("QT_QPA_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in screens):
        environment["QT_QPA_PLATFORM"] = "offscreen"
    return environment


def _line(row: Row) -> str:
    mark = {True: "ok", False: "OVER", None: ""}[row.ok]
    value = "not measured" if row.value is None else f"{row.value:g} {row.unit}"
    return f"{mark:<5}{row.name:<34}{value:<18}{row.budget}{row.reason and f'  ({row.reason})'}"
