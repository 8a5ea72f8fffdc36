"""What a person wants of a picture: repaint it, colour it, make one of a sketch, sharpen it. A task says
what of the picture is known, and so becomes a condition; how, is left to one of the METHODS.

Everything here has the model's size. One number serves masks, soft edges, strokes and sketches: a
*strength* from 0 to 1, how far a value may change, which stands for the noise level down to which it
is held (see `level`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from studio.diffusion import colour, pictures
from studio.diffusion.conditions import All, Condition, Travel
from studio.diffusion.linear import Blocks, Blur, Coordinates, Linear
from studio.diffusion.measured import PosteriorSampling, PseudoinverseGuidance, Replacement
from studio.diffusion.noise import Noise
from studio.diffusion.score import Score
from studio.diffusion.sde import SDE
from studio.errors import PictureError, SpecError
from studio.lazy import torch
from studio.spec import family, option

if TYPE_CHECKING:
    from torch import Tensor

#: Noise levels, in units of half the value range, that strengths just above 0 and just below 1 stand for.
_FAINTEST, _STRONGEST = 0.02, 10.0


def noise_level(strength: float) -> float:
    """The noise level that a strength stands for, in units of half the value range."""
    return _FAINTEST * (_STRONGEST / _FAINTEST) ** strength


def level(strength: Tensor, half: float) -> Tensor:
    """The noise level sigma down to which a value is held that may change by `strength`, 0 to 1, where
    values span 2 · `half`: 0 for strength 0, infinity for 1, between them even in ln(sigma)."""
    sigma = half * _FAINTEST * (_STRONGEST / _FAINTEST) ** strength
    sigma = torch.where(strength <= 0, torch.zeros_like(sigma), sigma)
    return torch.where(strength >= 1, torch.full_like(sigma, torch.inf), sigma)


@dataclass(frozen=True)
class Scene:
    """What there is to see: the picture and the colours painted on it as states (1, C, H, W); how far
    each pixel may change (1, 1, H, W), from 0 known to 1 free; where there is paint (1, 1, H, W), 0 to 1.
    """

    picture: Tensor
    change: Tensor
    paint: Tensor
    painted: Tensor
    value_range: tuple[float, float]

    @property
    def half(self) -> float:
        """Half the span of the values."""
        low, high = self.value_range
        return (high - low) / 2

    @property
    def masked(self) -> bool:
        """Whether something is marked to be changed."""
        return bool((self.change > 0).any())

    def covered(self) -> Tensor:
        """The picture with the paint on it."""
        return torch.lerp(self.picture, self.paint, self.painted)

    def until(self, strength: Tensor) -> Tensor:
        """The noise levels of `level`, for this picture."""
        return level(strength, self.half)


@dataclass(frozen=True)
class Method(ABC):
    """A way to draw pictures of which something is known."""

    title: ClassVar[str] = "Method"

    @abstractmethod
    def condition(self, operator: Linear, picture: Tensor, half: float) -> Condition:
        """That `operator` applied to `picture` is known. Raises SpecError if this method cannot."""


@dataclass(frozen=True)
class Replace(Method):
    """The paper's: what is known is put back, noised, after every step. Costs nothing more; use it
    where every second counts."""

    title: ClassVar[str] = "Replacement"

    def condition(self, operator: Linear, picture: Tensor, half: float) -> Condition:
        return Replacement(operator, picture)


@dataclass(frozen=True)
class TimeTravel(Method):
    """Replacement that goes back in time where old and new do not fit (RePaint). Use it against seams; it
    costs more calls where they are needed."""

    title: ClassVar[str] = "Replacement with time travel"
    jump: int = option(5, label="Steps back", range=(2, 50), help="How far it goes back.")
    repeats: int = option(4, label="At most", range=(1, 20), help="Times at each place.")
    threshold: float = option(
        0.6,
        label="Misfit",
        range=(0, 10),
        help="How badly the border must fit; 0 always goes back.",
    )

    def condition(self, operator: Linear, picture: Tensor, half: float) -> Condition:
        return Replacement(operator, picture, Travel(self.jump, self.repeats, self.threshold))


@dataclass(frozen=True)
class Pseudoinverse(Method):
    """Pseudoinverse guidance (ΠGDM): Bayes' rule as if what is left open were normal. Use it where the
    new part should follow the old one; twice the work."""

    title: ClassVar[str] = "Pseudoinverse guidance"
    weight: float = option(1.0, label="Weight", range=(0, 10), help="1 is Bayes' rule.")
    noise: float = option(
        0.0, label="Error", range=(0, 1), help="Of what is known, where the value range is 2."
    )

    def condition(self, operator: Linear, picture: Tensor, half: float) -> Condition:
        error = self.noise if operator.exact else max(self.noise, 0.02)
        return PseudoinverseGuidance(operator, picture, error * half, 0.5 * half, self.weight)


@dataclass(frozen=True)
class Posterior(Method):
    """Diffusion posterior sampling (DPS): down the gradient of the distance to what is known. Use it
    first: the new part fits the old one best. Twice the work, and less varied."""

    title: ClassVar[str] = "Posterior sampling"
    weight: float = option(1.0, label="Weight", range=(0, 10), help="1 is as published.")
    rate: float = option(
        2.0,
        label="Step (ζ)",
        range=(0.01, 5),
        help="Length of a move in a run of 1,000 steps: 0.5 to 1 as published; longer fits better.",
    )

    def condition(self, operator: Linear, picture: Tensor, half: float) -> Condition:
        return PosteriorSampling(operator, picture, self.rate * half, self.weight)


METHODS = family(
    Method, {"replace": Replace, "repaint": TimeTravel, "pigdm": Pseudoinverse, "dps": Posterior}
)


@dataclass(frozen=True)
class Task(ABC):
    title: ClassVar[str] = "Task"
    #: Whether something has to be masked, and whether something has to stay unmasked.
    needs_mask: ClassVar[bool] = False
    needs_rest: ClassVar[bool] = False

    @abstractmethod
    def conditions(self, scene: Scene) -> tuple[Condition, ...]:
        """What is known of the scene. Raises SpecError or PictureError if it does not suit the task."""


@dataclass(frozen=True)
class Inpaint(Task):
    """Paint over what should change; the rest stays as it is. Colours painted there are hints."""

    title: ClassVar[str] = "Inpaint"
    needs_mask: ClassVar[bool] = True
    needs_rest: ClassVar[bool] = True
    method: Method = option(Posterior, label="Method")
    hints: float = option(
        0.5, label="Colour hints", range=(0, 1), help="How closely colours painted there are kept."
    )

    def conditions(self, scene: Scene) -> tuple[Condition, ...]:
        until = scene.until(scene.change).expand_as(scene.picture)
        known = self.method.condition(Coordinates(until), scene.picture, scene.half)
        return (known, *_hints(scene, self.hints))


@dataclass(frozen=True)
class Colorize(Task):
    """Brightness stays exactly as it is, colours are found. Colours painted on it are hints."""

    title: ClassVar[str] = "Colorize"
    weights: str = option(
        "rec601",
        label="Brightness",
        choices=tuple(colour.WEIGHTS),
        help="What brightness means: the plain mean, video's Rec. 601 or Rec. 709, or sepia's.",
    )
    method: Method = option(Replace, label="Method")
    hints: float = option(
        0.7, label="Colour hints", range=(0, 1), help="How closely colours painted on it are kept."
    )

    def conditions(self, scene: Scene) -> tuple[Condition, ...]:
        if scene.picture.shape[1] != 3:
            raise PictureError(
                "This model makes grey pictures.", "Choose a model of colour pictures."
            )
        basis = colour.basis(colour.WEIGHTS[self.weights]).to(scene.picture)
        change = scene.change if scene.masked else torch.ones_like(scene.change)
        # Chroma is as free as the mask says, brightness is known everywhere.
        until = scene.until(change).expand_as(scene.picture).clone()
        until[:, 0] = 0
        known = self.method.condition(Coordinates(until, basis), scene.picture, scene.half)
        return (known, *_hints(scene, self.hints, basis))


@dataclass(frozen=True)
class Sketch(Task):
    """Strokes become a picture: they are noised to a level and denoised (SDEdit). Without a mask the
    whole box may change."""

    title: ClassVar[str] = "Sketch to picture"
    strength: float = option(
        0.6,
        label="Change",
        range=(0.02, 1),
        help="How far it may go from the sketch: the noise that it starts from.",
    )

    def conditions(self, scene: Scene) -> tuple[Condition, ...]:
        change = scene.change if scene.masked else torch.ones_like(scene.change)
        covered = scene.covered()
        until = scene.until(change * self.strength).expand_as(covered)
        return (Replacement(Coordinates(until), covered),)


@dataclass(frozen=True)
class Upscale(Task):
    """The picture is taken for the means of blocks of pixels, and what could be behind them is found."""

    title: ClassVar[str] = "Super-resolution"
    factor: int = option(
        2, label="Factor", choices=(2, 4, 8), help="Pixels along the side of a block."
    )
    method: Method = option(Replace, label="Method")

    def conditions(self, scene: Scene) -> tuple[Condition, ...]:
        return (self.method.condition(Blocks(self.factor), scene.picture, scene.half),)


@dataclass(frozen=True)
class Deblur(Task):
    """The picture is taken for a blurred one, and what could be behind it is found."""

    title: ClassVar[str] = "Deblur"
    radius: float = option(1.0, label="Radius", range=(0.2, 16), help="Of the blur, in pixels.")
    method: Method = option(Pseudoinverse, label="Method")

    def conditions(self, scene: Scene) -> tuple[Condition, ...]:
        return (self.method.condition(Blur(self.radius), scene.picture, scene.half),)


TASKS = family(
    Task,
    {
        "inpaint": Inpaint,
        "colorize": Colorize,
        "sketch": Sketch,
        "upscale": Upscale,
        "deblur": Deblur,
    },
)


@dataclass(frozen=True, eq=False)
class Pictured(Condition):
    """What a task wants of a picture of the model's size, before it is said which model; `on` says it.

    The picture is uint8 (H, W, C), or (H, W) if it is grey; `mask` (H, W), True or up to 255 where it may
    change; `strokes` uint8 (H, W, 4), colours and how opaque they are.
    """

    task: Task
    picture: np.ndarray
    mask: np.ndarray | None = None
    strokes: np.ndarray | None = None

    def on(self, score: Score) -> Condition:
        """Raises PictureError if the picture is none of this model's, or nothing in it may change."""
        (channels, h, w), picture = score.shape, np.asarray(self.picture)
        picture = picture[..., None] if picture.ndim == 2 else picture
        _check_pixels("picture", picture, (h, w, channels))
        state = pictures.to_state(picture[None].copy(), score.value_range, score.device)
        paint, painted = state, torch.zeros_like(state[:, :1])
        if self.strokes is not None:
            _check_pixels("strokes", self.strokes, (h, w, 4))
            colours = self.strokes[..., :channels]
            paint = pictures.to_state(colours[None].copy(), score.value_range, score.device)
            painted = torch.from_numpy(self.strokes[None, None, ..., 3] / 255).to(state)
        change = torch.from_numpy(self._change((h, w))[None, None]).to(state)
        scene = Scene(state, change, paint, painted, score.value_range)
        return All(self.task.conditions(scene))

    def guide(self, score: Score) -> Score:
        return self.on(score).guide(score)

    def constrain(self, x: Tensor, t: float, sde: SDE, noise: Noise) -> Tensor:
        raise SpecError("This condition does not know its model.", "Take condition.on(score).")

    def _change(self, size: tuple[int, int]) -> np.ndarray:
        """How far each pixel may change, (H, W), 0 to 1."""
        if self.mask is None:
            change = np.ones(size)
        elif self.mask.dtype == np.bool_:
            change = self.mask.astype(np.float64)
        else:
            _check_pixels("mask", self.mask, size)
            change = self.mask / 255
        if change.shape != size:
            raise PictureError(f"The mask has shape {change.shape}, where {size} is needed.")
        if self.task.needs_mask and not change.any():
            raise PictureError("Nothing is masked.", "Make the mask True where to repaint.")
        if self.task.needs_rest and change.all():
            raise PictureError("All is masked, so nothing of the picture is kept.")
        return change


def _check_pixels(name: str, pixels: np.ndarray, shape: tuple[int, ...]) -> None:
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        raise PictureError(
            f"The {name} has shape {pixels.shape} of {pixels.dtype}, "
            f"where {shape} of uint8 is needed."
        )


def _hints(scene: Scene, closeness: float, basis: Tensor | None = None) -> tuple[Condition, ...]:
    """Colours painted where the scene may change, held until the noise falls to a level that the
    closeness says; of colours in a basis the first coordinate, brightness, is not looked at."""
    where = scene.painted * (scene.change > 0 if scene.masked else 1)
    if not closeness or not bool(where.any()):
        return ()
    until = scene.until(1 - closeness * where).expand_as(scene.paint).clone()
    if basis is not None:
        until[:, 0] = torch.inf
    return (Replacement(Coordinates(until, basis), scene.paint),)
