"""Which networks there are, by the name that a checkpoint carries."""

from __future__ import annotations

from typing import Any

from torch import nn

from studio import spec
from studio.errors import CheckpointError, SpecError
from studio.networks.adm import Adm, AdmOptions
from studio.networks.grown import Grown, GrownOptions
from studio.networks.ncsnpp import NCSNpp, NCSNppOptions
from studio.networks.refinenet import RefineNet, RefineNetOptions
from studio.networks.unet import UNet, UNetOptions
from studio.networks.unet2d import UNet2D, UNet2DOptions

NETWORKS: dict[str, tuple[type[Any], type[nn.Module]]] = {
    "unet": (UNetOptions, UNet),
    "grown": (GrownOptions, Grown),
    "ncsnpp": (NCSNppOptions, NCSNpp),
    "adm": (AdmOptions, Adm),
    "refinenet": (RefineNetOptions, RefineNet),
    "unet2d": (UNet2DOptions, UNet2D),
}


def build(name: str, options: dict[str, Any]) -> nn.Module:
    """A fresh network. Raises CheckpointError if the name or an option means nothing to us."""
    if name not in NETWORKS:
        raise CheckpointError(f"There is no network “{name}” in this version of the studio.")
    kind, module = NETWORKS[name]
    try:
        return module(spec.from_dict(kind, options))
    except (SpecError, TypeError) as error:
        raise CheckpointError(f"The network's options make no sense: {error}") from error
