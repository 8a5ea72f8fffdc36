"""Training of score models by any objective: the state of a run, and what is kept of it.

A run that was stopped, killed or moved goes on as if nothing had happened. Kept are the model (averaged
weights, what everyone uses), `resume.safetensors` (weights, averages and Adam's moments, what only a
resumed run needs), averages of other lengths, adapters where those were trained, and the recipe.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import spec
from studio.diffusion import pictures
from studio.diffusion.objective import Noised
from studio.diffusion.score import Published, Score
from studio.diffusion.sde import SDE
from studio.errors import DataError, SaveError, SpecError
from studio.lazy import torch
from studio.training import adapters, lengths, optimization, parts
from studio.training.draws import Draws
from studio.training.feed import feed
from studio.training.lengths import Averages
from studio.training.many import ALONE, Team
from studio.training.optimization import Shuffled
from studio.training.plan import Training
from studio.training.runs import RESUME as RESUME
from studio.training.sizes import GROWN, fill, grown, resized
from studio.weights import tensors
from studio.weights.formats import native
from studio.weights.model import ModelInfo, Opened, score_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from studio.training.data import Pictures

#: What may change when a run is resumed.
_MAY_CHANGE = {
    *("steps", "rate", "warmup", "cooldown", "clip"),
    *("precision", "compiled", "accumulate", "checkpointing"),
}


class Trainer:
    """The state of one run: network, optimizer, averages, step."""

    def __init__(
        self,
        plan: Training,
        data: Pictures,
        folder: Path,
        device: str = "cpu",
        start: Opened | None = None,
        team: Team = ALONE,
    ) -> None:
        """`start` is the model that `plan.start` names, for a run that begins with its weights."""
        _check(plan, data)
        self.plan, self.folder, self.team = plan, folder, team
        self.device = team.device(device)
        self._places = team.places(plan.batch)
        if len(self._places) % plan.accumulate:
            raise SpecError("The batch must divide into its accumulated parts.")
        before = team.told(begun(folder) if team.main else None)
        if before is not None:
            # A run of before there were averages of several lengths goes on without.
            self.plan = plan = replace(plan, ema_lengths=before.plan.ema_lengths)
        self.info, start = _begin(plan, data, before, start)
        self.net = _network(plan, self.info, start, self.device)
        self._joined = team.join(self.net)
        self._call = torch.compile(self._joined) if plan.compiled else self._joined
        self.ema, self.averages, self.optimizer = self._followers()
        self.step, self.eased, self.stopping = 0, 1.0, False
        #: Set it to stop after the next step, in all processes alike.
        self.asked = False
        #: Of the last step, this process's part: ln(sigma) and the loss of each picture, (n,).
        self.seen: tuple[Tensor, Tensor] | None = None
        # Labels of other classes than the model's say nothing to it: its pictures are of any class.
        known = bool(data.classes) and data.classes == self.info.classes
        self._labels = torch.from_numpy(data.labels).to(self.device) if known else None
        self._order = Shuffled(len(data), plan.seed)
        self._feed = feed(data, self._order, plan, self._places, self.info.colours, self.device)
        if before is not None:
            self._check_resumed(before)
            self._restore(before)

    def _followers(self) -> tuple[Any, Averages, torch.optim.Adam]:
        """What goes along with the weights: their average, those of other lengths, Adam."""
        from studio.networks.ema import Ema

        live = {n: p for n, p in self.net.named_parameters() if p.requires_grad}
        optimizer = torch.optim.Adam(live.values(), lr=self.plan.rate, fused=True)
        named = {n: p.detach() for n, p in live.items()}
        return Ema(self.net, self.plan.ema), Averages(named, self.plan.ema_lengths), optimizer

    @property
    def labelled(self) -> bool:
        """Whether pictures are learned with their class."""
        return self._labels is not None

    # -- one step ---------------------------------------------------------------------------------

    def advance(self) -> Tensor:
        """One optimizer step; the mean loss of its batch, on the device.

        Raises LostFooting when the gradients are no longer finite; the weights stay as they were.
        """
        plan, draws = self.plan, Draws(self.plan.seed, self.step, self.plan.batch)
        total, seen = torch.zeros(2, device=self.device), []
        total[1] = float(self.asked)
        each = len(self._places) // plan.accumulate
        with torch.enable_grad():
            for first in range(self._places.start, self._places.stop, each):
                part = range(first, first + each)
                last = part.stop == self._places.stop
                with contextlib.nullcontext() if last else self.team.alone(self._joined):
                    losses, levels = self._losses(part, draws)
                    (losses.mean() / plan.accumulate).backward()
                seen.append((levels, losses.detach()))
                total[0] += losses.detach().mean() / plan.accumulate
        self._descend()
        self.seen = tuple(torch.cat(v) for v in zip(*seen))  # type: ignore[assignment]
        loss, asked = self.team.mean(total)
        self.stopping = self.asked if self.team.count == 1 else bool(asked > 0)
        return loss

    def _descend(self) -> None:
        rate = self.eased * optimization.learning_rate(self.plan, self.step)
        optimization.descend(self.net, self.optimizer, rate, self.plan.clip, self.step)
        self.step += 1
        self.ema.update(self.step)
        self.averages.update(self.step)
        if self.averages.lengths and self.team.main and lengths.due(self.step):
            # It is worth less than the run; a full disk is told where that is saved.
            with contextlib.suppress(SaveError):
                lengths.write(self.folder, self.step, self.averages)

    def _losses(self, part: range, draws: Draws) -> tuple[Tensor, Tensor]:
        """(loss, ln(sigma)) of the pictures at some places of the batch, (n,) each."""
        plan, sde = self.plan, self.info.sde
        if plan.dropout or self.info.options.get("dropout"):
            torch.manual_seed(draws.dice(part.start).initial_seed())  # it asks the global dice
        x, y = self.batch(part, draws)
        t = plan.objective.times(draws.u[part.start : part.stop].to(x), sde)
        noised = Noised.of(sde, x, t, draws.noise(part, tuple(x.shape[1:]), self.device))
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, plan.precision == "bf16"):
            losses = plan.objective.weighted(
                self._call, self.info.output, sde, noised, y, draws.dice(part.start)
            )
        return losses, sde.sigma(t).log()

    def batch(self, part: range, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """The pictures at some places of the batch of this step as states, and their classes."""
        plan, here = self.plan, slice(part.start, part.stop)
        pixels, chosen = self._feed.take(self.step, part)
        x = pictures.to_state(pixels, self.info.value_range, self.device)
        if plan.flips:
            mirrored = draws.mirrored[here].to(x.device)
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        x = x.contiguous(memory_format=torch.channels_last)
        if self._labels is None:
            return x, None
        free = draws.free[here].to(x.device) < plan.label_dropout
        return x, torch.where(free, -1, self._labels[chosen])

    # -- what is kept -----------------------------------------------------------------------------

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights, those of adapters added to the network's own."""
        return adapters.merged(self.ema.shadow)

    def network(self) -> nn.Module:
        """A network to evaluate that holds the averaged weights themselves: they change with the next
        step."""
        from studio.networks.catalog import build

        with torch.device("meta"):
            net = build(self.info.network, self.info.options)
        net.load_state_dict(self.averaged(), assign=True)
        return net.to(self.device).eval().requires_grad_(False)

    def score(self) -> Score:
        """The averaged model as it is until the next step, for previews."""
        return score_of(self.network(), self.info, self.device)

    def save(self) -> Path:
        """Write the run and its model. Each file is replaced as a whole or not at all.

        Raises SaveError if that fails; what was there before stays.
        """
        path = self.folder / native.WEIGHTS
        if not self.team.main:
            return path
        info = replace(self.info, steps=self.step)
        kept = {
            "plan": spec.to_dict(self.plan),
            "step": self.step,
            "model": spec.to_dict(info),
            "eased": self.eased,
        }
        tensors.write_tensors(self.folder / RESUME, self._state(), {"training": json.dumps(kept)})
        half = {k: v.half() if v.is_floating_point() else v for k, v in self.averaged().items()}
        if self.averages.lengths and self.step:
            lengths.write(self.folder, self.step, self.averages)
        if self.plan.train == "adapters":
            adapters.save(self.folder, adapters.of(self.ema.shadow, self.plan.start))
        return native.save(self.folder, info, half)

    def back(self) -> float:
        """Put the run back to its last save, or its weights to their average where there is none, with
        half the learning rate. The share of the plan's rate that is left.
        """
        eased = self.eased / 2
        before = self.team.told(begun(self.folder) if self.team.main else None)
        if before is not None:
            self._restore(before)
        else:
            with torch.no_grad():
                for name, parameter in self.net.named_parameters():
                    parameter.copy_(self.ema.shadow[name])
            self.optimizer.state.clear()
        self.eased = eased
        return eased

    def _state(self) -> dict[str, Tensor]:
        held = optimization.held(self.net, self.ema, self.optimizer)
        return held | {f"averages.{k}": v for k, v in self.averages.state().items()}

    def _restore(self, before: Begun) -> None:
        mine = tensors.read_safetensors(self.folder / RESUME) if self.team.main else {}
        found = self.team.shared(mine)
        optimization.restore(found, self.net, self.ema, self.optimizer, before.step)
        self.averages.load(optimization.under("averages.", found))
        self.step, self.eased = before.step, before.eased
        if self.team.main:
            lengths.forget_after(self.folder, self.step)

    def _check_resumed(self, before: Begun) -> None:
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


@dataclass(frozen=True)
class Begun:
    """What a resume file says of its run."""

    plan: Training
    step: int
    info: ModelInfo
    eased: float = 1.0  # the share of the plan's rate that it goes on with


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
        info = spec.from_dict(ModelInfo, kept["model"])
        info.check()
        return Begun(plan, int(kept["step"]), info, float(kept.get("eased", 1.0)))
    except (KeyError, ValueError, TypeError, SpecError) as error:
        raise DataError(f"{path.name} is not a run that can be resumed: {error}") from error


def _check(plan: Training, data: Pictures) -> None:
    """Raise StudioError if the plan makes no sense, or there is too little to learn from."""
    spec.check(plan)
    for length in plan.ema_lengths:
        lengths.exponent(length)
    if plan.compiled and plan.objective.second_order:
        raise SpecError(
            f"A compiled network cannot be trained by {spec.title(type(plan.objective))}.",
            "Leave --compiled out, or choose another objective.",
        )
    if plan.train != "all" and not plan.start:
        raise SpecError(
            "Only a model that is there can be trained in part.",
            "Choose a model to start from, or train all of it.",
        )
    if plan.network == GROWN and not plan.start:
        raise SpecError("Only a model that is there can grow.", "Choose one to start from.")
    if len(data) < 2:
        raise DataError("Training needs at least two pictures.")


def _begin(
    plan: Training, data: Pictures, before: Begun | None, start: Opened | None
) -> tuple[ModelInfo, Opened | None]:
    """(what the model is, the model whose weights it begins with)."""
    if before is not None and plan.start:
        return before.info, None  # the model it began with may be gone by now
    if start is not None:
        grows = plan.network == GROWN != start.info.network
        info = grown(start.info, plan.size, plan.top) if grows else resized(start.info, plan.size)
        return replace(info, sde=_noising(plan, info), steps=0), start
    return _info(plan, data), None


def _noising(plan: Training, info: ModelInfo) -> SDE:
    """The plan's noising, if it names another than the usual one, else that of the model.

    Our outputs are told sigma, which means the same under every SDE; published ones are not.
    """
    if plan.sde == Training().sde or plan.sde == info.sde:
        return info.sde
    if isinstance(info.output, Published):
        raise SpecError(
            "This model was published for a noising of its own, and knows no other.",
            "Leave --sde out, or start from a model that was trained here.",
        )
    return plan.sde


def _network(plan: Training, info: ModelInfo, start: Opened | None, device: str) -> nn.Module:
    """The network to train, with the part of it that is."""
    from studio.networks.catalog import build
    from studio.networks.lowrank import attach

    torch.manual_seed(plan.seed)
    net = build(info.network, info.options).to(device).train()
    if start is not None:
        fill(net, start.network(device))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if plan.train == "last":
        parts.train_last(net, info, plan.last)
    elif plan.train == "adapters":
        attach(net, plan.rank, plan.seed)
    if plan.checkpointing:
        parts.compute_twice(net)
    return net


def _info(plan: Training, data: Pictures) -> ModelInfo:
    colours = data.colours
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
