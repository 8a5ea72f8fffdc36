"""A model as a folder of diffusers, whatever its network, SDE and output.

Where diffusers has both network and scheduler, the folder is its own kind and opens without a line of
ours. Any other network comes as source code in the folder, wrapped so that it predicts the noise of a
DDPM process: every linear SDE is one, seen in x' = x / √(a² + s²) with alpha-bar = a² / (a² + s²).
Which of our inputs, labels and answers belong to a step is worked out here and written as numbers, so
the code in the folder knows no SDE. Beside it lies what the studio needs to open it as it was.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import spec
from studio.errors import SaveError
from studio.lazy import torch
from studio.weights.formats import schedulers
from studio.weights.formats.diffusers import CONFIG, INDEX, OURS, PREFIX, SCHEDULER, WEIGHTS
from studio.weights.formats.source import module_text
from studio.weights.model import ModelInfo, Opened, network_of

if TYPE_CHECKING:
    from torch import Tensor, nn

#: The version of diffusers that these folders are written for.
VERSION = "0.42.0"
CARD = "README.md"
_STEPS = 1000
_CLASS = "ScoreStudioUNet"


def export(opened: Opened, folder: Path, card: str = "") -> Path:
    """Write the model as a folder that `DiffusionPipeline.from_pretrained` opens; returns `folder`.

    `card` is the model's card (Markdown), which goes into the folder's README.md with the credits it
    holds. An earlier export is replaced as a whole, anything else is left alone: SaveError. Also
    raises SaveError if the folder cannot be written, CheckpointError if the model cannot be read.
    """
    if folder.exists() and not (folder / OURS).is_file() and not _is_empty(folder):
        raise SaveError(
            f"“{folder.name}” exists and is no model exported before.", "Choose another name."
        )
    info = opened.info
    net = network_of(opened.name, info, opened.read().tensors)
    scheduler = schedulers.config_of(info.sde, info.output, info.value_range)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}-", dir=folder.parent))
        try:
            if info.network == "unet2d" and scheduler is not None:
                _write_unet2d(made, info, net, scheduler)
            else:
                _write_component(made, info, net)
            _write_json(made / OURS, {"model": spec.to_dict(info)})
            readme = _readme(
                opened.name, info, card, (made / "unet" / f"{_module(info)}.py").exists()
            )
            (made / CARD).write_text(readme, encoding="utf-8")
            _swap(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise SaveError(
            f"{folder.name} could not be saved in {folder.parent}: {error.strerror or error}.",
            "Choose another folder, or free some space.",
        ) from error
    return folder


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _swap(made: Path, folder: Path) -> None:
    """Put a finished folder where an earlier one may be; that one is gone only after."""
    mask = os.umask(0)
    os.umask(mask)
    made.chmod(0o777 & ~mask)  # mkdtemp makes folders private
    if not folder.exists():
        made.rename(folder)
        return
    aside = made.with_name(f"{made.name}-old")
    folder.rename(aside)
    try:
        made.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _write_weights(folder: Path, state: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    # Not our own mark: a file inside this folder is no model by itself.
    tensors = {k: v.detach().contiguous().cpu() for k, v in state.items()}
    save_file(tensors, folder / "unet" / f"{WEIGHTS}.safetensors", {"format": "pt"})


def _write_index(folder: Path, pipeline: str, network: tuple[str, str], scheduler: str) -> None:
    index = {"_class_name": pipeline, "_diffusers_version": VERSION}
    parts = {"scheduler": ["diffusers", scheduler], "unet": list(network)}
    _write_json(folder / INDEX, index | parts)


# -- a network that diffusers has ---------------------------------------------------------------


def _write_unet2d(
    folder: Path, info: ModelInfo, net: nn.Module, scheduler: Mapping[str, Any]
) -> None:
    options = dataclasses.asdict(net.options)  # type: ignore[call-overload]
    size, colours, classes = (options.pop(k) for k in ("size", "colours", "classes"))
    rows = options.pop("num_class_embeds")
    config = {
        "_class_name": "UNet2DModel",
        "_diffusers_version": VERSION,
        "sample_size": size,
        "in_channels": colours,
        "out_channels": colours,
        "num_class_embeds": (rows or classes) if classes else None,
    }
    _write_json(folder / "unet" / CONFIG, config | options)
    _write_weights(folder, net.state_dict())
    named = {"_diffusers_version": VERSION, **scheduler}
    _write_json(folder / "scheduler" / SCHEDULER, named)
    kind = str(scheduler["_class_name"])
    pipeline = "ScoreSdeVePipeline" if kind == "ScoreSdeVeScheduler" else "DDPMPipeline"
    _write_index(folder, pipeline, ("diffusers", "UNet2DModel"), kind)


# -- any other network --------------------------------------------------------------------------


def _module(info: ModelInfo) -> str:
    return f"score_studio_{info.network}"


def _write_component(folder: Path, info: ModelInfo, net: nn.Module) -> None:
    table, betas = _steps(info)
    config = {
        "_class_name": _CLASS,
        "_diffusers_version": VERSION,
        "sample_size": info.size,
        "in_channels": info.colours,
        "out_channels": info.colours,
        "classes": list(info.classes),
        "options": dataclasses.asdict(net.options),  # type: ignore[call-overload]
        "steps": table,
    }
    _write_json(folder / "unet" / CONFIG, config)
    _write_weights(folder, {PREFIX + k: v for k, v in net.state_dict().items()})
    code = module_text(type(net), type(net.options)) + _COMPONENT.format(
        options=type(net.options).__name__, network=type(net).__name__
    )
    (folder / "unet" / f"{_module(info)}.py").write_text(code, encoding="utf-8")
    scheduler = {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": len(betas),
        "trained_betas": betas,
        "prediction_type": "epsilon",
        "clip_sample": False,
        "set_alpha_to_one": True,
        "timestep_spacing": "trailing",
    }
    _write_json(folder / "scheduler" / SCHEDULER, scheduler)
    _write_index(folder, "DDIMPipeline", (_module(info), _CLASS), "DDIMScheduler")


def _steps(info: ModelInfo) -> tuple[dict[str, list[float]], list[float]]:
    """What the component does at each step, and the betas of the steps.

    At a step, epsilon = skip x' + skip_shift + gain net(scale x' + shift, label). Our state is
    x = h r x' + a m, where pictures are m ± h and r² = a² + s² / h²: then alpha-bar is a² / r².
    """
    sde, (low, high) = info.sde, info.value_range
    steps = getattr(sde, "count", _STEPS)
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    a, s = sde.marginal(t)
    h, m = (high - low) / 2, (high + low) / 2
    r = torch.sqrt(a**2 + (s / h) ** 2)
    into, label, skip, gain = _probe(info, t)
    table = {
        "label": label,
        "scale": into * h * r,
        "shift": into * a * m,
        "skip": skip * h * r,
        "skip_shift": skip * a * m,
        "gain": gain,
    }
    # -ln(alpha-bar), in the form that keeps its digits where there is hardly any noise.
    integrals = torch.log1p((s / (h * a)) ** 2).tolist()
    return {k: _digits(v) for k, v in table.items()}, schedulers.betas_of(integrals)


def _probe(info: ModelInfo, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(c, label, A, B) of z = A x + B net(c x, label), each (N,), by asking an Output with made-up nets.

    Every Output is of this form: it scales, it labels, it mixes.
    """
    asked: list[Tensor] = []

    def answer(value: float) -> Any:
        def net(x: Tensor, label: Tensor, y: Tensor | None) -> Tensor:
            asked[:] = [x.flatten(), label]
            return torch.full_like(x, value)

        return net

    one = torch.ones(len(t), 1, 1, 1, dtype=torch.float64)
    skip = info.output.noise(answer(0.0), one, t, None, info.sde).flatten()
    into, label = asked
    gain = info.output.noise(answer(1.0), one * 0, t, None, info.sde).flatten()
    return into, label.double(), skip, gain


def _digits(values: Tensor) -> list[float]:
    """As many digits as single precision has."""
    return [float(f"{v:.9g}") for v in values.tolist()]


_COMPONENT = '''

class ScoreStudioUNet(ModelMixin, ConfigMixin):
    """The network above as a predictor of the noise in a DDPM process of pictures in [-1, 1].

    `steps` says what to do at each step: epsilon = skip x + skip_shift + gain net(scale x + shift,
    label). Between two steps, as some schedulers ask for, it goes in a straight line.
    """

    @register_to_config
    def __init__(self, sample_size, in_channels, out_channels, classes, options, steps):
        super().__init__()
        self.network = {network}({options}(**{{k: _frozen(v) for k, v in options.items()}}))
        #: The class that pipelines draw, which do not ask for one: its index, or None for any.
        self.class_label = None
        self._rows = {{}}

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        """sample (B, C, H, W), timestep a number or (B,), class_labels (B,) or None -> the noise."""
        x = sample.float()
        label, scale, shift, skip, skip_shift, gain = self._at(timestep, x)
        if class_labels is None and self.class_label is not None:
            class_labels = torch.full((len(x),), self.class_label, device=x.device)
        inputs = (scale * x + shift).to(self.dtype)
        answer = self.network(inputs, label.flatten(), class_labels).float()
        noise = (skip * x + skip_shift + gain * answer).to(sample.dtype)
        return UNet2DOutput(sample=noise) if return_dict else (noise,)

    def _at(self, timestep, x):
        """The six numbers of each sample's step, each (B, 1, 1, 1)."""
        if x.device not in self._rows:
            rows = [self.config.steps[k] for k in _ROWS]
            self._rows[x.device] = torch.tensor(rows, device=x.device)
        table = self._rows[x.device]
        last = table.shape[1] - 1
        at = torch.as_tensor(timestep, dtype=torch.float32, device=x.device)
        at = at.reshape(-1).clamp(0, last).expand(len(x))
        low = at.long().clamp(max=last - 1)
        rows = torch.lerp(table[:, low], table[:, low + 1], at - low)
        return rows[:, :, None, None, None].unbind()


_ROWS = ("label", "scale", "shift", "skip", "skip_shift", "gain")


def _frozen(value):
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
'''


# -- the card -----------------------------------------------------------------------------------


def _readme(name: str, info: ModelInfo, card: str, code: bool) -> str:
    front, body = _front_matter(card)
    licence = front.get("license", "")
    tags = ["unconditional-image-generation", "diffusers", "score-studio"]
    head = ["---", "library_name: diffusers", "pipeline_tag: unconditional-image-generation"]
    head += [f"license: {licence}"] if licence else []
    head += ["tags:", *(f"- {tag}" for tag in tags), "---", ""]
    parts = ["\n".join(head), f"# {name}\n", _about(info), _how(info, code)]
    if body.strip():
        parts.append("## Its card\n\nAs the model came, with its licence and credits:\n")
        parts.append(_lowered(body))
    return "\n".join(parts).rstrip() + "\n"


def _about(info: ModelInfo) -> str:
    kind = "pixels, grey" if info.colours == 1 else "pixels"
    classes = f", of the classes {', '.join(info.classes[:20])}" if info.classes else ""
    return f"Pictures of {info.size}×{info.size} {kind}{classes}. Exported by Score Studio.\n"


def _how(info: ModelInfo, code: bool) -> str:
    trust = ", trust_remote_code=True" if code else ""
    lines = [
        "## How to open it\n",
        "```python",
        "from diffusers import DiffusionPipeline",
        "",
        f'pipeline = DiffusionPipeline.from_pretrained("this folder"{trust})',
    ]
    if info.classes and code:
        lines.append("pipeline.unet.class_label = 0  # the index of a class; None for any")
    if not info.classes or code:
        lines.append("pipeline().images[0]")
    lines.append("```\n")
    if info.classes and not code:
        lines.append("Call `pipeline.unet(x, step, class_labels=…)`: it must be told a class.\n")
    if code:
        lines.append(
            "Its network is not part of diffusers, so the folder brings the source of it, "
            f"`unet/{_module(info)}.py`. `trust_remote_code=True` says that you have looked at it and "
            "let it run. It computes in float32; use `torch.autocast` for speed.\n"
        )
    lines.append(f"Score Studio opens the folder as it is, by `{OURS}`, and runs no code of it.\n")
    return "\n".join(lines)


def _front_matter(card: str) -> tuple[dict[str, str], str]:
    """The simple fields of a card's front matter, and the rest of the card."""
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if not found:
        return {}, card
    fields = re.findall(r"^([a-z_]+): *([\w.+-]+) *$", found[1], re.MULTILINE)
    return dict(fields), card[found.end() :]


def _lowered(body: str) -> str:
    """A card's headings a step lower, below our own; code blocks as they are."""
    parts = re.split(r"(```.*?```)", body, flags=re.DOTALL)
    return "".join(
        p if p.startswith("```") else re.sub(r"(?m)^(#{1,4}) ", r"##\1 ", p) for p in parts
    )
