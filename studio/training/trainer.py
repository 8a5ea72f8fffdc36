"""Training of score models by any objective, as a generator of TrainSteps.

A run that was stopped, killed or moved goes on as if nothing had happened. Two files are kept: the
model (averaged weights, what everyone uses) and `resume.safetensors` (weights, average and Adam's
moments, what only a resumed run needs).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from studio import spec
from studio.diffusion import pictures
from studio.diffusion.score import Score
from studio.errors import DataError, SpecError, StudioError
from studio.lazy import torch
from studio.paths import atomic
from studio.training import optimization
from studio.training.optimization import Pace, Shuffled
from studio.training.plan import Training
from studio.weights import tensors
from studio.weights.formats import native
from studio.weights.model import ModelInfo, Opened, score_of

if TYPE_CHECKING:
    from torch import Tensor

    from studio.training.data import Pictures

RESUME = "resume.safetensors"


#: What may change when a run is resumed.
_MAY_CHANGE = {"steps", "rate", "warmup", "cooldown", "clip", "precision", "compiled", "accumulate"}


@dataclass(frozen=True)
class TrainStep:
    """After a step: how far, the loss of its batch, pictures a second so far, what was saved."""

    step: int
    total: int
    loss: float
    speed: float
    saved: Path | None = None


class Trainer:
    """The state of one run: network, optimizer, average, step."""

    def __init__(
        self,
        plan: Training,
        data: Pictures,
        folder: Path,
        device: str = "cpu",
        start: Opened | None = None,
    ) -> None:
        """`start` is the model that `plan.start` names, for a run that begins with its weights."""
        spec.check(plan)
        if plan.batch % plan.accumulate:
            raise SpecError("The batch must divide into its accumulated parts.")
        if plan.compiled and plan.objective.second_order:
            raise SpecError(
                f"A compiled network cannot be trained by {spec.title(type(plan.objective))}.",
                "Leave --compiled out, or choose another objective.",
            )
        if len(data) < 2:
            raise DataError("Training needs at least two pictures.")
        from studio.networks.catalog import build
        from studio.networks.ema import Ema

        self.plan, self.folder, self.device = plan, folder, device
        before = begun(folder)
        if before is not None and plan.start:
            self.info, start = before.info, None  # the model it began with may be gone by now
        else:
            self.info = replace(start.info, steps=0) if start else _info(plan, data)
        torch.manual_seed(plan.seed)
        self.net = build(self.info.network, self.info.options).to(device).train()
        if start:
            self.net.load_state_dict(start.network(device).state_dict())
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = Ema(self.net, plan.ema)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=plan.rate, fused=True)
        self.step = 0
        self._call = torch.compile(self.net) if plan.compiled else self.net
        pixels = optimization.coloured(data.pixels, self.info.colours)
        self._pixels = torch.from_numpy(pixels).to(device)
        # Labels of other classes than the model's say nothing to it: its pictures are of any class.
        known = bool(data.classes) and data.classes == self.info.classes
        self._labels = torch.from_numpy(data.labels).to(device) if known else None
        self._order = Shuffled(len(data), plan.seed)
        if before is not None:
            self._resume(folder / RESUME, before)

    # -- one step ---------------------------------------------------------------------------------

    def advance(self) -> Tensor:
        """One optimizer step; the mean loss of its batch, on the device.

        Raises StudioError when the loss is no longer finite; the last save stays good.
        """
        plan, generator = self.plan, optimization.dice(self.plan.seed, self.step)
        if plan.dropout:
            torch.manual_seed(generator.initial_seed())  # dropout asks the global generator
        x, y = self._batch(generator)
        total = torch.zeros((), device=self.device)
        with torch.enable_grad():
            for part, labels in zip(x.chunk(plan.accumulate), _chunks(y, plan.accumulate)):
                with torch.autocast(
                    torch.device(self.device).type, torch.bfloat16, plan.precision == "bf16"
                ):
                    losses, _ = plan.objective.loss(
                        self._call, self.info.output, self.info.sde, part, labels, generator
                    )
                loss = losses.mean() / plan.accumulate
                loss.backward()
                total += loss.detach()
        rate = optimization.learning_rate(plan, self.step)
        optimization.descend(self.net, self.optimizer, rate, plan.clip, self.step)
        self.step += 1
        self.ema.update(self.step)
        return total

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        plan = self.plan
        chosen = torch.from_numpy(self._order.batch(self.step, plan.batch)).to(self.device)
        x = pictures.to_state(self._pixels[chosen], self.info.value_range, self.device)
        if plan.flips:
            mirrored = torch.rand(len(x), generator=generator).to(x.device) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        x = x.contiguous(memory_format=torch.channels_last)
        if self._labels is None:
            return x, None
        free = torch.rand(len(x), generator=generator).to(x.device) < plan.label_dropout
        return x, torch.where(free, -1, self._labels[chosen])

    # -- what is kept -----------------------------------------------------------------------------

    def score(self) -> Score:
        """The averaged model as it is now, for previews."""
        from studio.networks.catalog import build

        net = build(self.info.network, self.info.options)
        net.load_state_dict(self.ema.shadow)
        return score_of(net.to(self.device).eval().requires_grad_(False), self.info, self.device)

    def save(self) -> Path:
        """Write the model and the resume file. Each is replaced as a whole or not at all."""
        info = replace(self.info, steps=self.step)
        half = {k: v.half() if v.is_floating_point() else v for k, v in self.ema.shadow.items()}
        held = optimization.held(self.net, self.ema, self.optimizer)
        kept = {"plan": spec.to_dict(self.plan), "step": self.step, "model": spec.to_dict(info)}
        tensors.write_tensors(self.folder / RESUME, held, {"training": json.dumps(kept)})
        path = native.save(self.folder, info, half)
        with atomic(self.folder / "recipe.json") as temporary:
            temporary.write_text(json.dumps(spec.to_dict(self.plan), indent=1), encoding="utf-8")
        return path

    def _resume(self, path: Path, before: Begun) -> None:
        same = {f: getattr(before.plan, f) for f in _MAY_CHANGE}
        if replace(self.plan, **same) != before.plan:
            raise SpecError(
                f"“{self.folder.name}” was begun with another plan.",
                "Give the same settings, or another name with --out.",
            )
        if before.info.classes != self.info.classes:
            raise DataError(
                f"“{self.folder.name}” was begun with other classes: "
                f"{', '.join(before.info.classes) or 'none'}.",
                "Give the same pictures, or another name with --out.",
            )
        kept = tensors.read_safetensors(path)
        optimization.restore(kept, self.net, self.ema, self.optimizer, before.step)
        self.step = before.step


class Run(Protocol):
    """What is trained: it has come to `step`, and can go one further or be saved."""

    step: int

    @property
    def plan(self) -> Plan: ...
    def advance(self) -> Tensor: ...
    def save(self) -> Path: ...


class Plan(Pace, Protocol):
    """A pace, and how many pictures a step sees."""

    @property
    def batch(self) -> int: ...


def train(trainer: Run, save_seconds: float = 60.0) -> Generator[TrainStep, None, None]:
    """Train to the end of the plan. Saves every `save_seconds` and when it ends or is closed."""
    begun, first, saved_at = time.monotonic(), trainer.step, time.monotonic()
    unsaved = False
    try:
        while trainer.step < trainer.plan.steps:
            loss = float(trainer.advance())
            unsaved, now, saved = True, time.monotonic(), None
            if now - saved_at > save_seconds:
                saved, saved_at, unsaved = trainer.save(), time.monotonic(), False
            speed = (trainer.step - first) * trainer.plan.batch / max(1e-9, now - begun)
            yield TrainStep(trainer.step, trainer.plan.steps, loss, speed, saved)
        if unsaved:
            unsaved = False
            path = trainer.save()
            yield TrainStep(trainer.step, trainer.plan.steps, math.nan, 0.0, path)
    except StudioError:
        unsaved = False  # the last good save must not be replaced
        raise
    finally:
        if unsaved:
            trainer.save()


@dataclass(frozen=True)
class Begun:
    """What a resume file says of its run."""

    plan: Training
    step: int
    info: ModelInfo


def begun(folder: Path) -> Begun | None:
    """The run in a folder that can be resumed, or None. Raises DataError if its file is damaged."""
    path = folder / RESUME
    if not path.exists():
        return None
    metadata = tensors.read_header(path).get("__metadata__", {})
    try:
        kept = json.loads(metadata["training"])
        # A run of before there were averages of several lengths keeps none.
        plan = spec.from_dict(Training, {"ema_lengths": [], **kept["plan"]})
        step = int(kept["step"])
        info = spec.from_dict(ModelInfo, kept["model"])
        info.check()
        return Begun(plan, step, info)
    except (KeyError, ValueError, TypeError, SpecError) as error:
        raise DataError(f"{path.name} is not a run that can be resumed: {error}") from error


def _info(plan: Training, data: Pictures) -> ModelInfo:
    colours = data.pixels.shape[3]
    options: dict[str, Any] = {
        "size": plan.size,
        "colours": colours,
        "channels": list(plan.channels),
        "blocks": list(plan.blocks),
        "attention": list(plan.attention),
        "patch": plan.patch,
        "top": plan.top,
        "embedding": plan.embedding,
        "classes": len(data.classes),
        "dropout": plan.dropout,
    }
    return ModelInfo(
        plan.sde, plan.output, plan.network, options, plan.size, colours, classes=data.classes
    )


def _chunks(y: Tensor | None, parts: int) -> list[Any]:
    return [None] * parts if y is None else list(y.chunk(parts))
