"""Score Studio: watch a picture emerge from noise.

The public face, for scripts and notebooks. Importing it loads neither torch nor Qt; each name is
found at its first use.

    import studio
    score = studio.load("critters-32")
    for step in studio.sample(score, count=4, sampler="dpm2m", steps=20):
        print(step.index, step.t)
    pictures = step.denoised

    known = studio.inpaint(picture, mask)  # uint8 (32, 32, 3); True where to repaint
    for step in studio.sample(score, count=4, condition=known):
        ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studio.diffusion.score import Score as Score
    from studio.diffusion.sde import VESDE as VESDE
    from studio.diffusion.sde import VPSDE as VPSDE
    from studio.diffusion.sde import SubVPSDE as SubVPSDE
    from studio.face import colorize as colorize
    from studio.face import deblur as deblur
    from studio.face import decode as decode
    from studio.face import encode as encode
    from studio.face import inpaint as inpaint
    from studio.face import load as load
    from studio.face import log_likelihood as log_likelihood
    from studio.face import sample as sample
    from studio.face import sketch as sketch
    from studio.face import upscale as upscale

__version__ = "0.1.0"

_HOMES = {
    "load": "studio.face",
    "sample": "studio.face",
    "log_likelihood": "studio.face",
    "encode": "studio.face",
    "decode": "studio.face",
    "inpaint": "studio.face",
    "colorize": "studio.face",
    "sketch": "studio.face",
    "upscale": "studio.face",
    "deblur": "studio.face",
    "Score": "studio.diffusion.score",
    "VESDE": "studio.diffusion.sde",
    "VPSDE": "studio.diffusion.sde",
    "SubVPSDE": "studio.diffusion.sde",
}

__all__ = [
    "VESDE",
    "VPSDE",
    "Score",
    "SubVPSDE",
    "__version__",
    "colorize",
    "deblur",
    "decode",
    "encode",
    "inpaint",
    "load",
    "log_likelihood",
    "sample",
    "sketch",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
