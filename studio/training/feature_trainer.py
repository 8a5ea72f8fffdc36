"""Training of a feature space: one network names the class of pictures of several packs at once, redraws
each in a few pixels, and tells how much noise and blur has been laid over it.

The first answer makes features of what is shown, the second of where and in which colours, the third of
how clean it is: the faults of a sampler. Packs are drawn from by the root of their size, so that a
large one does not drown the rest. Kept are `features.safetensors` (averaged weights, half precision) and
`features-resume.safetensors`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studio import spec
from studio.diffusion import pictures
from studio.errors import DataError, SpecError
from studio.lazy import no_grad, torch
from studio.spec import option
from studio.training import optimization
from studio.training.data import Pictures
from studio.training.optimization import Shuffled
from studio.weights import features, tensors
from studio.weights.features import FeatureInfo

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from studio.networks.features import Answers

RESUME = "features-resume.safetensors"
_SHIFT = 4  # pixels that a picture is moved by, at most
_TINT = 0.2  # of brightness and contrast, at most
_NOISE = (0.004, 0.4)  # deviations in a range of 2: from half a grey level
_BLUR = (0.4, 2.0)  # deviations in pixels
_NO_CLASS = -100  # what cross-entropy passes over


@dataclass(frozen=True)
class FeatureTraining:
    """A training plan: what the network looks like, and for how long it learns."""

    size: int = option(32, label="Size", range=(16, 256), help="Pixels on a side that it sees.")
    channels: tuple[int, ...] = (48, 96, 96)
    features: int = option(128, label="Features", range=(8, 2048))
    thumbnail: int = option(8, label="Thumbnail", range=(1, 64), help="Pixels that it redraws.")
    redraw: float = option(1.0, range=(0, 100), help="Weight of redrawing, beside naming at 1.")
    damage: float = option(4.0, range=(0, 100), help="Weight of telling noise and blur.")
    steps: int = option(4000, label="Steps", range=(1, 10**8))
    batch: int = option(128, label="Batch", range=(8, 65536))
    rate: float = option(2e-3, label="Learning rate", range=(1e-7, 1), log=True)
    warmup: int = option(200, label="Warm-up steps", range=(0, 10**6))
    cooldown: float = option(
        0.6, label="Cool-down", range=(0, 1), help="Share of steps at the end."
    )
    decay: float = option(0.02, label="Weight decay", range=(0, 10))
    clip: float = option(1.0, label="Gradient clip", range=(1e-3, 1e6))
    ema: float = option(0.99, label="Averaging", range=(0, 0.99999))
    precision: str = option("bf16", label="Precision", choices=("bf16", "fp32"))
    seed: int = option(0, label="Seed", range=(0, 2**31))


class FeatureTrainer:
    """The state of one run: network, optimizer, average, step. `trainer.train` takes it to its end."""

    def __init__(
        self, plan: FeatureTraining, packs: Sequence[Pictures], folder: Path, device: str = "cpu"
    ) -> None:
        """Packs whose classes have the same names are one. Raises DataError if there are no
        pictures, or SpecError if the plan makes no sense or the folder holds a run of another."""
        from studio.networks.ema import Ema

        spec.check(plan)
        if sum(map(len, packs)) < 2:
            raise DataError("Features are learned from two pictures or more.")
        self.plan, self.folder, self.device = plan, folder, device
        groups = tuple(dict.fromkeys(pack.classes for pack in packs if pack.classes))
        self.info = FeatureInfo(_options(plan, groups), groups)
        torch.manual_seed(plan.seed)
        self.net = features.build(self.info).to(device).train()
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = Ema(self.net, plan.ema)
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=plan.rate, weight_decay=plan.decay, fused=True
        )
        self.step = 0
        self._packs = [_Pack.of(pack, groups, plan.seed) for pack in _joined(packs)]
        if (folder / RESUME).exists():
            self._resume(folder / RESUME)

    def advance(self) -> Tensor:
        """One optimizer step; the loss of its batch, on the device.

        Raises StudioError when the loss is no longer finite; the last save stays good.
        """
        plan, generator = self.plan, optimization.dice(self.plan.seed, self.step)
        x, labels = self._batch(generator)
        seen, damage = _damaged(_moved(x, generator), generator)
        with torch.enable_grad():
            with torch.autocast(
                torch.device(self.device).type, torch.bfloat16, plan.precision == "bf16"
            ):
                found = self.net(seen.damaged.contiguous(memory_format=torch.channels_last))
            loss = self._loss(self.net.answers(found), labels, seen.clean, damage)
            loss.backward()
        rate = optimization.learning_rate(plan, self.step)
        optimization.descend(self.net, self.optimizer, rate, plan.clip, self.step)
        self.step += 1
        self.ema.update(self.step)
        return loss.detach()

    def _loss(self, said: Answers, labels: Tensor, clean: Tensor, damage: Tensor) -> Tensor:
        from torch.nn import functional as F

        from studio.networks.features import thumbnail

        loss = self.plan.redraw * F.mse_loss(
            said.thumbnail, thumbnail(clean, self.plan.thumbnail)
        ) + self.plan.damage * F.mse_loss(said.damage, damage)
        if bool((labels >= 0).any()):
            loss = loss + F.cross_entropy(said.classes, labels, ignore_index=_NO_CLASS)
        return loss

    def _batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, S, S) from -1 to 1 and their places among all classes, of every pack its
        share."""
        parts, labels = [], []
        for pack, count in zip(self._packs, _shares(self._packs, self.plan.batch)):
            chosen = pack.order.batch(self.step, count)
            parts.append(pack.pixels[chosen])
            labels.append(pack.labels[chosen])
        x = pictures.to_state(np.concatenate(parts), (-1.0, 1.0), self.device)
        return x, torch.from_numpy(np.concatenate(labels)).to(self.device)

    # -- how good it is -----------------------------------------------------------------------------

    @no_grad
    def accuracy(self, pack: Pictures) -> float:
        """The share of a pack's pictures whose class the averaged network names, among the classes of
        all packs; nan where it knows none of them."""
        if pack.classes not in self.info.classes:
            return math.nan
        net = features.build(self.info)
        net.load_state_dict(self.ema.shadow)
        net = net.to(self.device).eval()
        first = _place(self.info.classes, pack.classes)
        pixels = optimization.coloured(pack.pixels, 3)
        right = []
        for start in range(0, len(pack), 256):
            x = pictures.to_state(pixels[start : start + 256], (-1.0, 1.0), self.device)
            answer = net.answers(net(x)).classes.argmax(1).cpu().numpy()
            right.append(answer == first + pack.labels[start : start + 256])
        return float(np.concatenate(right)[pack.labels >= 0].mean())

    # -- what is kept -------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write the features and the resume file. Each is replaced as a whole or not at all."""
        info = replace(self.info, steps=self.step)
        held = optimization.held(self.net, self.ema, self.optimizer)
        kept = {"plan": spec.to_dict(self.plan), "step": self.step, "classes": info.classes}
        tensors.write_tensors(self.folder / RESUME, held, {"training": json.dumps(kept)})
        # Variances stay whole: they may be far below what a half can hold.
        half = {
            k: v.half() if v.is_floating_point() and "running" not in k else v
            for k, v in self.ema.shadow.items()
        }
        return features.save(self.folder, info, half)

    def _resume(self, path: Path) -> None:
        try:
            kept = json.loads(tensors.read_header(path)["__metadata__"]["training"])
            before, step = spec.from_dict(FeatureTraining, kept["plan"]), int(kept["step"])
            groups = tuple(tuple(group) for group in kept["classes"])
        except (KeyError, ValueError, TypeError, SpecError) as error:
            raise DataError(f"{path.name} is not a run that can be resumed: {error}") from error
        if replace(self.plan, steps=before.steps) != before or groups != self.info.classes:
            raise SpecError(
                f"“{self.folder.name}” was begun with another plan, or other classes.",
                "Give the same settings and pictures, or another name with --out.",
            )
        found = tensors.read_safetensors(path)
        optimization.restore(found, self.net, self.ema, self.optimizer, step)
        self.step = step


@dataclass(frozen=True)
class _Pack:
    """Pictures (N, S, S, 3) of one kind, their places among all classes, and the order of seeing them."""

    pixels: np.ndarray
    labels: np.ndarray
    order: Shuffled

    @staticmethod
    def of(pack: Pictures, groups: tuple[tuple[str, ...], ...], seed: int) -> _Pack:
        labels = np.full(len(pack), _NO_CLASS, np.int64)
        if pack.classes:
            first = _place(groups, pack.classes)
            labels = np.where(pack.labels >= 0, first + pack.labels, _NO_CLASS)
        pixels = optimization.coloured(pack.pixels, 3)
        return _Pack(pixels, labels, Shuffled(len(pixels), seed))


@dataclass(frozen=True)
class _Seen:
    damaged: Tensor
    clean: Tensor


def _options(plan: FeatureTraining, groups: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    return {
        "size": plan.size,
        "classes": sum(map(len, groups)),
        "channels": list(plan.channels),
        "features": plan.features,
        "thumbnail": plan.thumbnail,
    }


def _place(groups: tuple[tuple[str, ...], ...], classes: tuple[str, ...]) -> int:
    """Where the first of `classes` is among the classes of all groups."""
    return sum(map(len, groups[: groups.index(classes)]))


def _joined(packs: Sequence[Pictures]) -> list[Pictures]:
    """One pack for each set of classes."""
    found: dict[tuple[str, ...], list[Pictures]] = {}
    for pack in packs:
        found.setdefault(pack.classes, []).append(pack)
    return [
        Pictures(
            np.concatenate([optimization.coloured(p.pixels, 3) for p in some]),
            np.concatenate([p.labels for p in some]),
            classes,
        )
        for classes, some in found.items()
    ]


def _shares(packs: Sequence[_Pack], batch: int) -> list[int]:
    """How many pictures of a batch are of each pack: by the root of its size, one at least."""
    roots = np.sqrt([len(pack.pixels) for pack in packs])
    edges = np.rint(np.cumsum(roots) / roots.sum() * batch).astype(int)
    return np.maximum(1, np.diff(edges, prepend=0)).tolist()


# -- what is done to pictures ---------------------------------------------------------------------


def _moved(x: Tensor, generator: Generator) -> Tensor:
    """Each picture shifted, mirrored or not, and a little brighter, darker, flatter or harder."""
    from torch.nn import functional as F

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(x.device)

    n, size = len(x), x.shape[3]
    x = torch.where(drawn(n, 1, 1, 1) < 0.5, x.flip(3), x)
    shifts = (drawn(2, n) * (2 * _SHIFT + 1)).long()
    padded = F.pad(x, (_SHIFT,) * 4, mode="reflect").permute(0, 2, 3, 1)
    place = torch.arange(size, device=x.device)
    down, across = (place + shift[:, None] for shift in shifts)
    row = torch.arange(n, device=x.device)[:, None, None]
    x = padded[row, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)
    contrast, brightness = (_TINT * (2 * drawn(n, 1, 1, 1) - 1) for _ in range(2))
    return (x * (1 + contrast) + brightness).clamp(-1, 1)


def _damaged(x: Tensor, generator: Generator) -> tuple[_Seen, Tensor]:
    """A quarter of the pictures under noise, a quarter blurred; and (B, 2) how much, about 0 to 1."""
    n, quarter = len(x), len(x) // 4
    order = torch.randperm(n, generator=generator).to(x.device)
    noisy, blurred = order[:quarter], order[quarter : 2 * quarter]
    damaged, told = x.clone(), x.new_zeros(n, 2)
    share = torch.rand(quarter, generator=generator)
    sigma = (_NOISE[0] * (_NOISE[1] / _NOISE[0]) ** share).to(x.device)
    z = torch.randn(x[noisy].shape, generator=generator).to(x.device)
    damaged[noisy] = (x[noisy] + sigma[:, None, None, None] * z).clamp(-1, 1)
    # In logarithms, because a little noise in a clean picture is as plain as more in a grainy one.
    told[noisy, 0] = torch.log1p(sigma / _NOISE[0]) / math.log1p(_NOISE[1] / _NOISE[0])
    if quarter:
        width = float(torch.empty(()).uniform_(*_BLUR, generator=generator))
        damaged[blurred] = blurred_by(x[blurred], width)
        told[blurred, 1] = width / _BLUR[1]
    # In whole grey levels, as all pictures that will ever be measured are.
    return _Seen(torch.round((damaged + 1) * 127.5) / 127.5 - 1, x), told


def blurred_by(x: Tensor, deviation: float) -> Tensor:
    """Pictures (B, C, H, W) under a Gaussian blur of a deviation in pixels."""
    from torch.nn import functional as F

    reach = max(1, math.ceil(3 * deviation))
    place = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weights = torch.softmax(-(place**2) / (2 * deviation**2), 0)
    c = x.shape[1]
    x = F.pad(x, (reach,) * 4, mode="replicate")
    x = F.conv2d(x, weights.reshape(1, 1, -1, 1).expand(c, 1, -1, 1), groups=c)
    return F.conv2d(x, weights.reshape(1, 1, 1, -1).expand(c, 1, 1, -1), groups=c)
