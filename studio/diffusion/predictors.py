"""Every predictor by its short name: of the reverse SDE first, then of the probability flow."""

from __future__ import annotations

from studio.diffusion.move import Move, Predictor
from studio.diffusion.multistep import DPM2M, DPM2MSDE, DPM3M, UniPC
from studio.diffusion.one_step import Euler, Heun
from studio.diffusion.reverse import SRA1, Ancestral, EulerMaruyama, Milstein, ReverseDiffusion
from studio.spec import family

__all__ = [
    "DPM2M",
    "DPM2MSDE",
    "DPM3M",
    "PREDICTORS",
    "SRA1",
    "Ancestral",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Milstein",
    "Move",
    "Predictor",
    "ReverseDiffusion",
    "UniPC",
]

PREDICTORS = family(
    Predictor,
    {
        "reverse": ReverseDiffusion,
        "em": EulerMaruyama,
        "ancestral": Ancestral,
        "milstein": Milstein,
        "sra1": SRA1,
        "dpm2m-sde": DPM2MSDE,
        "dpm2m": DPM2M,
        "dpm3m": DPM3M,
        "unipc": UniPC,
        "heun": Heun,
        "euler": Euler,
    },
)
