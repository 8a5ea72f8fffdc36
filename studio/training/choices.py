"""What a person decided about a folder of pictures: how it is framed, varied, and what is left out.

Knows nothing of files: paths are those of the scan, relative to the folder, with forward slashes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from studio.spec import option

FRAMINGS = ("centre", "random", "native")


@dataclass(frozen=True)
class Crop:
    """The square of a picture that is learned from, as shares of the upright picture, 0 to 1.

    `left` is a share of its width, `top` of its height, `side` of its shorter side.
    """

    path: str
    left: float = option(0.0, range=(0, 1))
    top: float = option(0.0, range=(0, 1))
    side: float = option(1.0, range=(0.01, 1))

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in pixels, moved inside the picture where it would leave it."""
        side = self.side * min(width, height)
        left = min(self.left * width, width - side)
        top = min(self.top * height, height - side)
        return left, top, left + side, top + side


@dataclass(frozen=True)
class Choices:
    """What is made of the pictures of a folder before they are learned from."""

    framing: str = option(
        "centre",
        label="Framing",
        choices=FRAMINGS,
        help="centre: the largest square in the middle. random: another square of the picture each "
        "time. native: squares at the picture's own pixels, to learn a texture or one photo.",
    )
    flips: bool = option(False, label="Mirror", help="Learn each picture mirrored as well.")
    turns: bool = option(
        False, label="Quarter turns", help="Learn each picture turned as well: for textures."
    )
    jitter: float = option(
        0.0, label="Light varies", range=(0, 0.5), help="How far brightness and contrast change."
    )
    background: str = option(
        "#ffffff", label="Background", help="The colour behind transparent pictures."
    )
    labels: bool = option(
        True, label="Classes", help="Sub-folders are classes, if every picture lies in one."
    )
    twins: bool = option(
        True, label="Near-duplicates", help="Learn from all; else only from the first of each."
    )
    held_out: float = option(
        0.1,
        label="Held out",
        range=(0, 0.5),
        help="Share of the pictures that only measures how well the others were learned.",
    )
    crops: tuple[Crop, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether a picture looks different each time it is drawn."""
        return self.framing != "centre" or self.flips or self.turns or self.jitter > 0


def lot(key: str) -> float:
    """Where a picture falls, from 0 to 1: the same on every machine and in every run."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
