"""Training of a classifier of noised pictures, which lends a model classes it was never told of.

It sees every decade of noise alike: ln(sigma) is drawn evenly over the range of the plan's SDE. Where
nothing can be told any more the right answer is the share of each class, and that is learned, too.
Kept are `classifier.safetensors` (averaged weights) and `classifier-resume.safetensors`.

Source: Song et al. 2021, section 5 and appendix I; Dhariwal and Nichol 2021.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studio import spec
from studio.diffusion import pictures
from studio.diffusion.objectives import LikelihoodWeighted
from studio.diffusion.score import expand
from studio.diffusion.sde import FIRST_TIME, SDE, VPSDE
from studio.errors import DataError, SpecError
from studio.lazy import no_grad, torch
from studio.spec import option
from studio.training import optimization
from studio.training.optimization import Shuffled
from studio.weights import classifiers, tensors
from studio.weights.classifiers import ClassifierInfo

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from studio.diffusion.conditions import NoisyClassifier
    from studio.training.data import Pictures

RESUME = "classifier-resume.safetensors"
_LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # that accuracy is told of
_MOST_JUDGED = 512  # pictures a level


@dataclass(frozen=True)
class ClassifierTraining:
    """A training plan: what the network looks like, which noise it meets, and for how long."""

    size: int = option(32, label="Size", range=(8, 1024), help="Pixels on a side.")
    sde: SDE = option(VPSDE, label="Noising", help="Its range of noise levels is learned.")
    channels: tuple[int, ...] = (48, 96, 96)
    blocks: tuple[int, ...] = (1, 1, 1)
    attention: tuple[int, ...] = (2,)
    embedding: int = option(128, range=(16, 2048))
    patch: int = option(2, label="Folded pixels", range=(1, 8), help="2 suits a CPU.")
    dropout: float = option(0.1, label="Dropout", range=(0, 0.9))
    steps: int = option(3000, label="Steps", range=(1, 10**8))
    batch: int = option(64, label="Batch", range=(1, 65536))
    rate: float = option(1e-3, label="Learning rate", range=(1e-7, 1), log=True)
    warmup: int = option(100, label="Warm-up steps", range=(0, 10**6))
    cooldown: float = option(
        0.3, label="Cool-down", range=(0, 1), help="Share of steps at the end."
    )
    clip: float = option(1.0, label="Gradient clip", range=(1e-3, 1e6))
    ema: float = option(0.995, label="Averaging", range=(0, 0.99999))
    flips: bool = option(False, label="Mirror", help="Learn each picture mirrored as well.")
    held_out: float = option(
        0.1, label="Held out", range=(0, 0.9), help="Share of pictures kept to measure it with."
    )
    seed: int = option(0, label="Seed", range=(0, 2**31))


#: What may change when a run is resumed.
_MAY_CHANGE = ("steps", "rate", "warmup", "cooldown", "clip")


class ClassifierTrainer:
    """The state of one run: network, optimizer, average, step. `trainer.train` takes it to its end."""

    def __init__(
        self, plan: ClassifierTraining, data: Pictures, folder: Path, device: str = "cpu"
    ) -> None:
        """Raises DataError if the pictures have no classes, or SpecError if the plan makes no sense or
        the folder holds a run of another."""
        from studio.networks.ema import Ema

        spec.check(plan)
        labelled = np.flatnonzero(data.labels >= 0)
        if len(data.classes) < 2 or len(labelled) < 2:
            raise DataError(
                "A classifier needs pictures of two classes or more.",
                "Put the pictures of each class into a folder of their own, inside one.",
            )
        self.plan, self.folder, self.device = plan, folder, device
        self.info = _info(plan, data)
        torch.manual_seed(plan.seed)
        self.net = classifiers.build(self.info).to(device).train()
        self.ema = Ema(self.net, plan.ema)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=plan.rate, fused=True)
        self.step = 0
        self._learned, self._judged = _split(labelled, plan.held_out, plan.seed)
        self._pixels = torch.from_numpy(data.pixels).to(device)
        self._labels = torch.from_numpy(data.labels).to(device)
        self._order = Shuffled(len(self._learned), plan.seed)
        if (folder / RESUME).exists():
            self._resume(folder / RESUME)

    def advance(self) -> Tensor:
        """One optimizer step; the mean cross-entropy of its batch in nats, on the device.

        Raises StudioError when the loss is no longer finite; the last save stays good.
        """
        plan, generator = self.plan, optimization.dice(self.plan.seed, self.step)
        torch.manual_seed(generator.initial_seed())  # dropout asks the global generator
        x, y = self._batch(generator)
        with torch.enable_grad():
            loss = _cross_entropy(classifiers.classifier_of(self.net, self.info), self.info.sde,
                                  x, y, generator)  # fmt: skip
            loss.backward()
        rate = optimization.learning_rate(plan, self.step)
        optimization.descend(self.net, self.optimizer, rate, plan.clip, self.step)
        self.step += 1
        self.ema.update(self.step)
        return loss.detach()

    def _batch(self, generator: Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(self._learned[self._order.batch(self.step, self.plan.batch)])
        chosen = chosen.to(self.device)
        x = pictures.to_state(self._pixels[chosen], self.info.value_range, self.device)
        if self.plan.flips:
            mirrored = torch.rand(len(x), generator=generator).to(x.device) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        return x, self._labels[chosen]

    # -- how good it is -----------------------------------------------------------------------------

    @no_grad
    def accuracy(self) -> list[tuple[float, float]]:
        """(noise level, share of held-out pictures whose class is named) from clean to noise; none if
        no picture was held out."""
        if not len(self._judged):
            return []
        net = classifiers.build(self.info)
        net.load_state_dict(self.ema.shadow)
        judge = classifiers.classifier_of(net.to(self.device).eval(), self.info)
        chosen = torch.from_numpy(self._judged[:_MOST_JUDGED]).to(self.device)
        x = pictures.to_state(self._pixels[chosen], self.info.value_range, self.device)
        labels, generator = self._labels[chosen], torch.Generator().manual_seed(self.plan.seed)
        lowest, highest = self.info.sde.sigma(torch.tensor([FIRST_TIME, 1.0])).tolist()
        found = []
        for sigma in (level for level in _LEVELS if 0.99 * lowest <= level <= highest):
            y = x + sigma * torch.randn(x.shape, generator=generator).to(x)
            answers = judge.fn(y, x.new_full((len(x),), sigma)).argmax(1)
            found.append((sigma, float((answers == labels).float().mean())))
        return found

    # -- what is kept -------------------------------------------------------------------------------

    def save(self) -> Path:
        """Write the classifier and the resume file. Each is replaced as a whole or not at all."""
        self.info = replace(self.info, steps=self.step)
        changing = optimization.held(self.net, self.ema, self.optimizer)
        kept = {
            "plan": spec.to_dict(self.plan),
            "step": self.step,
            "classes": list(self.info.classes),
        }
        tensors.write_tensors(self.folder / RESUME, changing, {"training": json.dumps(kept)})
        return classifiers.save(self.folder, self.info, self.ema.shadow)

    def _resume(self, path: Path) -> None:
        metadata = tensors.read_header(path).get("__metadata__", {})
        try:
            kept = json.loads(metadata["training"])
            before, step = spec.from_dict(ClassifierTraining, kept["plan"]), int(kept["step"])
            classes = tuple(kept["classes"])
        except (KeyError, ValueError, TypeError, SpecError) as error:
            raise DataError(f"{path.name} is not a run that can be resumed: {error}") from error
        same = {f: getattr(before, f) for f in _MAY_CHANGE}
        if replace(self.plan, **same) != before or classes != self.info.classes:
            raise SpecError(
                f"“{self.folder.name}” was begun with another plan, or other classes.",
                "Give the same settings and pictures, or another name with --out.",
            )
        found = tensors.read_safetensors(path)
        optimization.restore(found, self.net, self.ema, self.optimizer, step)
        self.step = step


def _cross_entropy(
    judge: NoisyClassifier, sde: SDE, x_0: Tensor, y: Tensor, generator: Generator
) -> Tensor:
    """-ln p(y | x_t), the mean over a batch at noise levels even in ln(sigma)."""
    noised = LikelihoodWeighted().noised(sde, x_0, generator)
    a, s = sde.marginal(noised.t)
    told = judge.fn(noised.x / expand(a, x_0), s / a)
    return -told.gather(1, y[:, None]).mean()


def _split(places: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of pictures to learn from and to measure with. At least one is learned from."""
    mixed = np.random.default_rng((seed, 1 << 20)).permutation(places)
    count = min(len(places) - 1, round(share * len(places)))
    return mixed[count:], mixed[:count]


def _info(plan: ClassifierTraining, data: Pictures) -> ClassifierInfo:
    colours = data.pixels.shape[3]
    options: dict[str, Any] = {
        "size": plan.size,
        "colours": colours,
        "classes": len(data.classes),
        "channels": list(plan.channels),
        "blocks": list(plan.blocks),
        "attention": list(plan.attention),
        "patch": plan.patch,
        "embedding": plan.embedding,
        "dropout": plan.dropout,
    }
    return ClassifierInfo(plan.sde, options, plan.size, colours, classes=data.classes)
