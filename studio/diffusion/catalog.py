"""Every sampler by its short name, the same in Python, forms, recipes and on the command line."""

from __future__ import annotations

from studio.diffusion.adaptive import AdaptiveSDE
from studio.diffusion.flow import DormandPrince
from studio.diffusion.grids import UniformTime
from studio.diffusion.langevin import AnnealedLangevinDynamics, LangevinDynamics
from studio.diffusion.predictors import PREDICTORS
from studio.diffusion.sampler import Sampler
from studio.diffusion.stepping import PredictorCorrector, alone
from studio.spec import family

_ALONE = {name: alone(predictor) for name, predictor in PREDICTORS.items()}

SAMPLERS = family(
    Sampler,
    {
        "pc": PredictorCorrector,
        **_ALONE,
        "adaptive": AdaptiveSDE,
        "rk45": DormandPrince,
        "ald": AnnealedLangevinDynamics,
        "langevin": LangevinDynamics,
    },
)

#: What a person starts from: name -> (label, sampler).
PRESETS: dict[str, tuple[str, Sampler]] = {
    "quick": ("Quick", _ALONE["dpm2m-sde"](steps=24)),
    "balanced": ("Balanced", PredictorCorrector(steps=100)),
    "paper": ("Paper", PredictorCorrector(steps=1000, grid=UniformTime())),
    "flow": ("Exact flow", DormandPrince()),
}
