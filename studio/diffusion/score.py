"""A Score: the gradient of the log density of noised pictures, seen as score(x, t) of one SDE.

This is the only place that knows what a network predicts. `Output` turns a network's answer into
a score; everything else in the studio sees scores and denoised estimates only.

Letters: as in sde.py; `y = x / a` is the picture plus noise of deviation sigma; `z` unit noise;
`D` the denoised estimate E[x_0 | x_t]. They are one quantity in four coats:
score = -z / s = (a D - x) / s².

Sources: Song et al. 2021 (score); Ho et al. 2020 (noise); Salimans and Ho 2022 (v); Karras et al.
2022, "Elucidating the Design Space of Diffusion-Based Generative Models", table 1 (preconditioning).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from studio.diffusion.sde import FIRST_TIME, SDE
from studio.errors import SpecError
from studio.lazy import torch
from studio.spec import family, option

if TYPE_CHECKING:
    from torch import Tensor

    #: A network: (input (B, C, H, W), noise label (B,), class index (B,) or None) -> (B, C, H, W).
    Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
    Function = Callable[[Tensor, Tensor], Tensor]


def expand(v: Tensor, x: Tensor) -> Tensor:
    """v of shape (B,), reshaped to broadcast against x of shape (B, ...)."""
    return v.reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True)
class Score:
    """score(x, t): x (B, C, H, W) in `value_range`, t (B,) in [eps, 1] -> (B, C, H, W)."""

    fn: Function
    sde: SDE
    shape: tuple[int, int, int]  # C, H, W
    value_range: tuple[float, float] = (-1.0, 1.0)
    classes: tuple[str, ...] = ()
    conditional: Callable[[Tensor], Function] | None = field(default=None, compare=False)
    device: str = "cpu"  # where x and t have to be
    continuous: bool = True  # whether it is a function of every time, as the likelihood needs it
    free: bool = True  # whether a model with classes can be asked without one

    @staticmethod
    def from_function(
        fn: Function,
        sde: SDE,
        shape: tuple[int, int, int],
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> Score:
        """An analytic score: fn(x, t) -> score."""
        return Score(fn, sde, shape, value_range)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.fn(x, t)

    def denoised(self, x: Tensor, t: Tensor) -> Tensor:
        """The mean of all pictures that x (B, C, H, W) at time t (B,) may come from (Tweedie)."""
        return self.tweedie(x, t, self(x, t))

    def tweedie(self, x: Tensor, t: Tensor, score: Tensor) -> Tensor:
        """The denoised estimate that belongs to a score already computed at (x, t)."""
        a, s = self.sde.marginal(t)
        return torch.addcmul(x, expand(s**2, x), score) / expand(a, x)

    def labelled(self, labels: Tensor) -> Score:
        """The score of pictures of the classes `labels` (B,); index -1 means any class.

        Raises SpecError if the model has no class input, or an index does not exist.
        """
        if self.conditional is None:
            raise SpecError("This model was trained without classes.", "Leave the class free.")
        if not self.free and bool((labels < 0).any()):
            raise SpecError("This model knows no pictures of any class.", "Choose a class.")
        if bool(((labels < -1) | (labels >= len(self.classes))).any()):
            some = ", ".join(self.classes[:8]) + (", …" if self.classes[8:] else "")
            raise SpecError(f"This model has the classes {some}.")
        return replace(self, fn=self.conditional(labels), conditional=None)

    def under(self, sde: SDE) -> Score:
        """The same pictures noised by another SDE: what is known of y = x / a at a noise level is
        known under every SDE that comes to that level.

        Above the levels of this SDE the denoised estimate is that of its last level, from a state
        scaled down to it; below them the score is that of its first.
        """
        last = float(self.sde.sigma(torch.ones(1, dtype=torch.float64, device="cpu")))

        def seen(fn: Function) -> Function:
            def call(x: Tensor, t: Tensor) -> Tensor:
                (a, s), sigma = sde.marginal(t), sde.sigma(t)
                share = (last / sigma).clamp_max(1)
                then = self.sde.time(sigma * share).clamp(FIRST_TIME, 1.0)
                factor = self.sde.marginal(then)[0] / a
                inner = fn(expand(factor * share, x) * x, then)
                return expand(factor * share**2, x) * inner - expand((1 - share) / s**2, x) * x

            return call

        inner = self.conditional
        conditional = None if inner is None else (lambda labels: seen(inner(labels)))
        return replace(self, fn=seen(self.fn), conditional=conditional, sde=sde)


@dataclass(frozen=True)
class Output(ABC):
    """What a network predicts, and how it is fed. `noise` is its answer as unit noise z."""

    title: ClassVar[str] = "Output"

    @property
    def continuous(self) -> bool:
        """Whether the network is told the noise level itself, not the nearest of a set."""
        return True

    def noise(self, net: Network, x: Tensor, t: Tensor, y: Tensor | None, sde: SDE) -> Tensor:
        """The estimate of z in x = a x_0 + s z, shape of x."""
        return self._noise(net, x, t, y, *sde.marginal(t))

    def score(self, net: Network, x: Tensor, t: Tensor, y: Tensor | None, sde: SDE) -> Tensor:
        """The estimate of the score of x_t."""
        a, s = sde.marginal(t)
        return self._noise(net, x, t, y, a, s) / expand(-s, x)

    @abstractmethod
    def _noise(
        self, net: Network, x: Tensor, t: Tensor, y: Tensor | None, a: Tensor, s: Tensor
    ) -> Tensor:
        """As `noise`, told the SDE's marginal (a, s) at t."""


def noise_label(sigma: Tensor) -> Tensor:
    """What our networks are told about a noise level, (B,), whatever the SDE."""
    return torch.log(sigma) / 4


def _unit_input(x: Tensor, a: Tensor, s: Tensor, sigma_data: float) -> Tensor:
    """x scaled to variance one for data of deviation sigma_data."""
    return x / expand(torch.sqrt((a * sigma_data) ** 2 + s**2), x)


@dataclass(frozen=True)
class NoiseOutput(Output):
    """The network answers with the noise z."""

    title: ClassVar[str] = "Noise"
    sigma_data: float = option(
        0.5, label="σ data", range=(0.01, 10), help="Spread of the pictures."
    )

    def _noise(
        self, net: Network, x: Tensor, t: Tensor, y: Tensor | None, a: Tensor, s: Tensor
    ) -> Tensor:
        return net(_unit_input(x, a, s, self.sigma_data), noise_label(s / a), y)


@dataclass(frozen=True)
class ScoreOutput(Output):
    """The network answers with the score itself."""

    title: ClassVar[str] = "Score"
    sigma_data: float = option(
        0.5, label="σ data", range=(0.01, 10), help="Spread of the pictures."
    )

    def _noise(
        self, net: Network, x: Tensor, t: Tensor, y: Tensor | None, a: Tensor, s: Tensor
    ) -> Tensor:
        score = net(_unit_input(x, a, s, self.sigma_data), noise_label(s / a), y)
        return score * expand(-s, x)


@dataclass(frozen=True)
class PictureOutput(Output):
    """The network answers with the clean picture x_0."""

    title: ClassVar[str] = "Picture"
    sigma_data: float = option(
        0.5, label="σ data", range=(0.01, 10), help="Spread of the pictures."
    )

    def _noise(
        self, net: Network, x: Tensor, t: Tensor, y: Tensor | None, a: Tensor, s: Tensor
    ) -> Tensor:
        clean = net(_unit_input(x, a, s, self.sigma_data), noise_label(s / a), y)
        return (x - expand(a, x) * clean) / expand(s, x)


@dataclass(frozen=True)
class VelocityOutput(Output):
    """The network answers with v = cos φ z - sin φ x_0, where tan φ = sigma."""

    title: ClassVar[str] = "Velocity"
    sigma_data: float = option(
        0.5, label="σ data", range=(0.01, 10), help="Spread of the pictures."
    )

    def _noise(
        self, net: Network, x: Tensor, t: Tensor, y: Tensor | None, a: Tensor, s: Tensor
    ) -> Tensor:
        v = net(_unit_input(x, a, s, self.sigma_data), noise_label(s / a), y)
        # With r = √(a² + s²): x / r = cos φ x_0 + sin φ z, hence z = sin φ x / r + cos φ v.
        r = torch.sqrt(a**2 + s**2)
        return torch.addcmul(expand(s / r**2, x) * x, expand(a / r, x), v)


@dataclass(frozen=True)
class Preconditioned(Output):
    """EDM's choice: input, skip and output scaled so that the network always works on unit variance.

    Written in y = x / a and sigma = s / a, so it serves every SDE:
    D = c_skip y + c_out net(c_in y, ln(sigma) / 4).
    """

    title: ClassVar[str] = "Preconditioned (EDM)"
    sigma_data: float = option(
        0.5, label="σ data", range=(0.01, 10), help="Spread of the pictures."
    )

    def _noise(
        self, net: Network, x: Tensor, t: Tensor, y: Tensor | None, a: Tensor, s: Tensor
    ) -> Tensor:
        sigma, d = s / a, self.sigma_data
        total = torch.sqrt(sigma**2 + d**2)
        answer = net(x / expand(a * total, x), noise_label(sigma), y)
        # z = (y - D) / sigma with the difference of 1 and c_skip taken by hand: exact at small sigma.
        kept = expand(sigma / (a * total**2), x) * x
        return torch.addcmul(kept, expand(-d / total, x), answer)


@dataclass(frozen=True)
class Published(Output):
    """How published networks are fed: x as it is, and a noise label of their own kind.

    `label`: "time", scale t + shift; "sigma", the noise level itself; "level", the index of the
    nearest of `levels` noise levels, evenly spaced in t, with 0 the noisiest. A network of the VE
    family answers with sigma times the score, "minus_noise": the division that its papers do inside
    it is left to us, which keeps the digits. The first of that family answers with the "score".
    """

    title: ClassVar[str] = "As published"
    predicts: str = option(
        "noise",
        label="Answer",
        choices=("noise", "minus_noise", "score", "picture", "velocity"),
        help="What the network gives back.",
    )
    label: str = option(
        "time",
        label="Noise label",
        choices=("time", "sigma", "level"),
        help="How the network is told the noise level.",
    )
    scale: float = option(999.0, label="Label scale", range=(1e-3, 1e6), help="Of the time label.")
    shift: float = option(0.0, label="Label shift", range=(-1e3, 1e3), help="Of the time label.")
    levels: int = option(1000, label="Levels", range=(2, 10**6), help="Of a level label.")

    @property
    def continuous(self) -> bool:
        return self.label != "level"

    def _noise(
        self, net: Network, x: Tensor, t: Tensor, y: Tensor | None, a: Tensor, s: Tensor
    ) -> Tensor:
        answer = net(x, self._label(t, s / a), y)
        if self.predicts == "noise":
            return answer
        if self.predicts == "minus_noise":
            return -answer
        if self.predicts == "score":
            return answer * expand(-s, x)
        if self.predicts == "picture":
            return (x - expand(a, x) * answer) / expand(s, x)
        r = torch.sqrt(a**2 + s**2)  # velocity, as above
        return torch.addcmul(expand(s / r**2, x) * x, expand(a / r, x), answer)

    def _label(self, t: Tensor, sigma: Tensor) -> Tensor:
        if self.label == "sigma":
            return sigma
        if self.label == "level":
            return torch.round((1 - t) * (self.levels - 1))
        return (self.scale * t + self.shift).clamp_min(0)


OUTPUTS = family(
    Output,
    {
        "noise": NoiseOutput,
        "score": ScoreOutput,
        "picture": PictureOutput,
        "velocity": VelocityOutput,
        "edm": Preconditioned,
        "published": Published,
    },
)


def network_score(
    net: Network,
    output: Output,
    sde: SDE,
    shape: tuple[int, int, int],
    value_range: tuple[float, float] = (-1.0, 1.0),
    classes: tuple[str, ...] = (),
    device: str = "cpu",
    free: bool = True,
) -> Score:
    """The Score of a trained network. A network with classes is told "any class" unless labelled; one
    that is not `free` has no such class, and refuses.
    """

    def conditional(labels: Tensor | None) -> Function:
        def fn(x: Tensor, t: Tensor) -> Tensor:
            y = None
            if classes and (free or labels is not None):
                y = x.new_full((len(x),), -1, dtype=torch.long) if labels is None else labels
            return output.score(net, x, t, y, sde)

        return fn

    return Score(
        conditional(None),
        sde,
        shape,
        value_range,
        classes,
        conditional if classes else None,
        device,
        output.continuous,
        free,
    )
