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

from studio import choose, spec, terminal
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
from studio.errors import StudioError
from studio.lazy import torch
from studio.training.card import processor
from studio.training.data import Pictures
from studio.training.trainer import Trainer, Training
from studio.weights import devices, formats
from studio.weights.model import ModelInfo, score_of
from studio.weights.shelf import Shelf

if TYPE_CHECKING:
    from torch import Tensor, nn

_BATCH = 16


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

    model: str = spec.option("", help="A model; else the first on the shelf, or an untrained one.")
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
        for entry in Shelf().entries():
            if entry.info is not None:
                return entry.path
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
        """Pictures a second of the trainer against a bare loop: network, loss, Adam."""
        terminal.note("bench: training")
        plan = Training(batch=_BATCH, size=self.info.size, steps=10_000)
        shape = (64, plan.size, plan.size, 3)
        rng = np.random.default_rng(0)
        data = Pictures(rng.integers(0, 256, shape, np.uint8), np.full(64, -1))
        trainer = Trainer(plan, data, self.scratch / "run", self.device)
        bare = _bare_training(plan, data, self.scratch / "bare", self.device)
        trainer.advance()
        bare()
        ours, theirs = [], []
        for _ in range(8 if self.quick else 30):
            ours.append(self._timed(trainer.advance))
            theirs.append(self._timed(bare))
        share = median(theirs) / median(ours)
        speed = _BATCH / median(ours)
        return [
            Row("training", round(speed, 1), "pictures/s"),
            Row("training, of a bare loop", round(share, 4), "", "at least 0.95", share >= 0.95),
        ]

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
        with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
            most = float(
                subprocess.run(
                    [sys.executable, "-c", _PEAK, self.model, str(self.scratch / "out.png")],
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=600,
                    stdin=subprocess.DEVNULL,
                    env=_environment(),
                ).stdout.split()[-1]
            )
            return [at_most(name, most / 1e6, "MB", 1000)]
        return [Row(name, None, "MB", "at most 1000", reason="this system does not tell")]

    def _steps(self, sampler: Any) -> Iterator[Any]:
        score = self.score
        noise = Noise.of(0, _BATCH, score.shape, score.sde, device=self.device, depth=sampler.depth)
        return sampler.run(score, noise)

    def _bare(self) -> Callable[[], Tensor]:
        """One call of the network with nothing around it."""
        x = torch.randn(_BATCH, *self.info.shape, device=self.device)
        label = noise_label(self.info.sde, torch.full((_BATCH,), 0.5, device=self.device))
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
import resource, sys
from studio.cli import main
code = main(["sample", sys.argv[1], "--count", "16", "--out", sys.argv[2], "--json"])
unit = 1 if sys.platform == "darwin" else 1024
print()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
sys.exit(code)
"""


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
    ("stop_ms", "stop in the window", "ms", None),
    ("brush_p99_ms", "brush, 4096², radius 512, 99 %", "ms", 16.0),
    ("pan_p99_ms", "pan of a 24 Mpx photo, 99 %", "ms", 16.0),
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
            timeout=180,
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        figures = json.loads(lines[-1]) if lines else {}
    except subprocess.TimeoutExpired:
        return {}, "the window did not answer within three minutes"
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
