"""From the configuration of a diffusers scheduler to our SDE and Output, and back.

A scheduler says how a network was trained (noise levels, what it answers with) and how its authors
sample from it. The first is kept, the second is for our own samplers and only noted. Read without
torch from untrusted JSON.

Source: the scheduler classes of diffusers 0.42; Lin et al. 2023, "Common Diffusion Noise Schedules
and Sample Steps are Flawed", algorithm 1 (a last step without any picture left).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from typing import Any

from studio import spec
from studio.diffusion.score import Output, Published
from studio.diffusion.sde import FIRST_TIME, SDE, VESDE, VPSDE, TableVPSDE, step_betas
from studio.errors import CheckpointError, SpecError

#: Schedulers of the DDPM family by the ends that their betas have where a file leaves them out.
DISCRETE: dict[str, tuple[float, float]] = {
    name: (1e-4, 0.02)
    for name in (
        "DDIMInverseScheduler",
        "DDIMParallelScheduler",
        "DDIMScheduler",
        "DDPMParallelScheduler",
        "DDPMScheduler",
        "DEISMultistepScheduler",
        "DPMSolverMultistepInverseScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerAncestralDiscreteScheduler",
        "EulerDiscreteScheduler",
        "LMSDiscreteScheduler",
        "PNDMScheduler",
        "RePaintScheduler",
        "SASolverScheduler",
        "UniPCMultistepScheduler",
    )
} | {
    name: (0.00085, 0.012)
    for name in (
        "DPMSolverSDEScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
    )
}
_VE = ("ScoreSdeVeScheduler", "VeSdeScheduler")
_VP = ("ScoreSdeVpScheduler", "VpSdeScheduler")
_ANSWERS = {"epsilon": "noise", "sample": "picture", "v_prediction": "velocity"}
_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid")

#: What other schedulers are for, by the beginning of their name.
_OTHERS = {
    "KarrasVe": "networks of Karras et al. that expect their own input scaling",
    "EDM": "networks with EDM's preconditioning, which UNet2DModel does not have",
    "FlowMatch": "flow matching, which is no score of a noising process here",
    "FlowMap": "flow maps, which are no scores",
    "LCM": "models distilled to a few steps, which are no scores any more",
    "TCD": "models distilled to a few steps, which are no scores any more",
    "CMStochasticIterative": "consistency models, which are no scores",
    "SCM": "consistency models, which are no scores",
    "IPNDM": "a schedule of its own",
    "UnCLIP": "models that are told what to draw by a text",
}


@dataclass(frozen=True)
class Process:
    """How a network was trained, and so how it is to be asked."""

    sde: SDE
    output: Output
    value_range: tuple[float, float]
    notes: tuple[str, ...] = ()


def process_of(config: Mapping[str, Any], embedding: str) -> Process:
    """The Process that a scheduler's configuration describes.

    `embedding` is the network's time embedding: "fourier" ones are told sigma, "positional" ones the
    step. Raises CheckpointError if the scheduler is none we can honour.
    """
    name = str(config.get("_class_name"))
    if name in _VE:
        process = _variance_exploding(config, embedding)
    elif name in _VP:
        process = _variance_preserving(config, embedding)
    elif name in DISCRETE:
        process = _discrete(config, embedding, DISCRETE[name])
    else:
        raise _unknown(name)
    try:
        spec.check(process.sde)
    except SpecError as error:
        raise CheckpointError(f"The scheduler's numbers are out of bounds: {error}") from error
    return process


def assumed(embedding: str) -> Process:
    """The Process of a network that comes without a scheduler: DDPM's own.

    Raises CheckpointError for a Fourier embedding: its noise levels differ from model to model.
    """
    if embedding != "positional":
        raise CheckpointError(
            "This network is told the noise level itself, and no scheduler says which levels.",
            "Put the model's scheduler_config.json beside it, and open the folder again.",
        )
    note = "There is no scheduler: DDPM's linear betas (0.0001 to 0.02, 1000 steps) are assumed."
    return Process(TableVPSDE(), _by_step("noise", 1000), (-1.0, 1.0), (note,))


def _variance_exploding(config: Mapping[str, Any], embedding: str) -> Process:
    if embedding != "fourier":
        raise CheckpointError(
            "A VE scheduler goes with a network that is told sigma (a Fourier embedding); this one "
            "is told the step."
        )
    sde = VESDE(number(config, "sigma_min", 0.01), number(config, "sigma_max", 1348.0))
    corrections = count(config, "correct_steps", 1)
    note = (
        f"Its authors sample with {count(config, 'num_train_timesteps', 2000)} steps of pc, "
        f"{corrections} correction{'' if corrections == 1 else 's'} each at a signal-to-noise of "
        f"{number(config, 'snr', 0.15):g}."
    )
    return Process(sde, Published("minus_noise", "sigma"), (0.0, 1.0), (note,))


def _variance_preserving(config: Mapping[str, Any], embedding: str) -> Process:
    if embedding != "positional":
        raise CheckpointError("A VP scheduler goes with a network that is told the time.")
    sde = VPSDE(number(config, "beta_min", 0.1), number(config, "beta_max", 20.0))
    return Process(sde, Published("noise", "time", 999.0), (-1.0, 1.0))


def _discrete(config: Mapping[str, Any], embedding: str, ends: tuple[float, float]) -> Process:
    if embedding != "positional":
        raise CheckpointError(
            "A scheduler of the DDPM family goes with a network that is told the step; this one is "
            "told sigma (a Fourier embedding).",
            "Put the scheduler that the network was trained with beside it.",
        )
    answer = config.get("prediction_type") or "epsilon"
    if config.get("predict_epsilon") is False:  # how this was written before prediction_type
        answer = "sample"
    if answer not in _ANSWERS or config.get("use_flow_sigmas") is True:
        raise CheckpointError(
            f"The network answers with “{answer!s:.40}” of another kind of process than a score's.",
            f"Understood are {', '.join(_ANSWERS)}.",
        )
    if config.get("timestep_type") == "continuous":
        raise CheckpointError("Networks that are told ln(sigma) by the scheduler are not read yet.")
    sde, notes = _table(config, ends)
    if config.get("clip_sample") is True or config.get("thresholding") is True:
        notes.append("Its scheduler clips each estimate to the value range; our samplers do not.")
    return Process(sde, _by_step(_ANSWERS[answer], sde.count), (-1.0, 1.0), tuple(notes))


def _by_step(predicts: str, steps: int) -> Published:
    """Told the step as diffusers counts it, from 0: t = (i + 1) / N is step i."""
    return Published(predicts, "time", float(steps), -1.0)


def _table(config: Mapping[str, Any], ends: tuple[float, float]) -> tuple[TableVPSDE, list[str]]:
    """The SDE of a scheduler's betas, and what is to be said of it."""
    old = count(config, "timesteps", 1000)  # as its first versions called it
    steps = count(config, "num_train_timesteps", old)
    first, last = number(config, "beta_start", ends[0]), number(config, "beta_end", ends[1])
    try:
        if (given := config.get("trained_betas")) is not None:
            if not isinstance(given, list) or len(given) > 10_000:
                raise CheckpointError("The scheduler's trained_betas are no list of betas.")
            betas = tuple(number({"beta": beta}, "beta", 0) for beta in given)
            sde = TableVPSDE(betas=betas)
            notes = [f"Noise levels are a table of {len(betas)} betas."]
        else:
            schedule = config.get("beta_schedule") or "linear"
            if schedule not in _SCHEDULES:
                raise CheckpointError(
                    f"The beta schedule “{schedule!s:.40}” is not known here.",
                    f"Known: {', '.join(_SCHEDULES)}.",
                )
            sde, notes = TableVPSDE(schedule, first, last, steps), []
        spec.check(sde)  # before anything is made from its numbers
        if config.get("rescale_betas_zero_snr") is True:
            sde = TableVPSDE(betas=_without_a_trace(sde))
            notes.append(
                "Its last step holds no trace of the picture; ours holds less than 1 / 4000."
            )
    except SpecError as error:
        raise CheckpointError(f"The scheduler's betas make no sense: {error}") from error
    return sde, notes


def _without_a_trace(sde: TableVPSDE) -> tuple[float, ...]:
    """The betas, rescaled so that nothing of the picture is left at the end."""
    left = [math.sqrt(v) for v in accumulate((1 - beta for beta in step_betas(sde)), mul)]
    bars = [((v - left[-1]) * left[0] / (left[0] - left[-1])) ** 2 for v in left]
    # Nothing at all would have no noise level. Half of what the step before has, or diffusers' least.
    bars[-1] = min(2.0**-24, bars[-2] / 4)
    return tuple(1 - now / before for before, now in zip([1.0, *bars], bars))


def number(config: Mapping[str, Any], name: str, default: float) -> float:
    """A finite number out of untrusted JSON. Raises CheckpointError if it is none."""
    value = config.get(name)
    if value is None:
        return default
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        return float(value)
    raise CheckpointError(f"{name} is {value!r:.40}, which is no number to work with.")


def count(config: Mapping[str, Any], name: str, default: int) -> int:
    """A whole number out of untrusted JSON. Raises CheckpointError if it is none."""
    value = number(config, name, default)
    if value % 1:
        raise CheckpointError(f"{name} is {value:g}, which is no whole number.")
    return int(value)


def _unknown(name: str) -> CheckpointError:
    reason = next((why for start, why in _OTHERS.items() if name.startswith(start)), "")
    said = f"is for {reason}" if reason else "is none that the studio can honour"
    return CheckpointError(
        f"The model's scheduler, {name:.60}, {said}.",
        "Models with a DDPM, DDIM, ScoreSdeVe or ScoreSdeVp scheduler and their relatives open.",
    )


def config_of(sde: SDE, output: Output, value_range: tuple[float, float]) -> dict[str, Any] | None:
    """The other way: the scheduler's configuration under which diffusers asks a network as we do.

    None if no scheduler does. A continuous VP process becomes a table of the steps that its labels
    count, 0 to the label's scale.
    """
    if not isinstance(output, Published):
        return None
    if isinstance(sde, VESDE):
        same = (output.predicts, output.label, value_range) == ("minus_noise", "sigma", (0.0, 1.0))
        return _ve_config(sde) if same else None
    answer = next((k for k, v in _ANSWERS.items() if v == output.predicts), None)
    if answer is None or output.label != "time" or value_range != (-1.0, 1.0):
        return None
    config = {"_class_name": "DDPMScheduler", "prediction_type": answer, "clip_sample": False}
    if isinstance(sde, TableVPSDE):
        if (output.scale, output.shift) != (float(sde.count), -1.0):
            return None
        if not sde.betas:
            ends = {"beta_start": sde.beta_start, "beta_end": sde.beta_end}
            steps = {"num_train_timesteps": sde.steps, "beta_schedule": sde.schedule}
            return config | steps | ends
        return config | _betas(list(sde.betas))
    steps = int(output.scale + output.shift) + 1
    if not isinstance(sde, VPSDE) or not 2 <= steps <= 10_000 or not -1 <= output.shift <= 0:
        return None
    times = [max(FIRST_TIME, (step - output.shift) / output.scale) for step in range(steps)]
    slope = sde.beta_max - sde.beta_min
    return config | _betas(betas_of([t * sde.beta_min + t**2 * slope / 2 for t in times]))


def _ve_config(sde: VESDE) -> dict[str, Any]:
    return {
        "_class_name": "ScoreSdeVeScheduler",
        "num_train_timesteps": 1000,
        "snr": 0.16,
        "sigma_min": sde.sigma_min,
        "sigma_max": sde.sigma_max,
        "sampling_eps": sde.eps,
        "correct_steps": 1,
    }


def _betas(betas: list[float]) -> dict[str, Any]:
    return {"num_train_timesteps": len(betas), "trained_betas": betas}


def betas_of(integrals: list[float]) -> list[float]:
    """The betas of steps at which the integral of beta is `integrals`, rising."""
    return [-math.expm1(before - now) for before, now in pairwise([0.0, *integrals])]
