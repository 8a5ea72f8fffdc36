"""`score-studio bench-models`: what published models cost here, against the libraries they come from.

The networks are of the published sizes with random weights, so nothing is downloaded. Opening is
compared with reading the file by safetensors and building the module; calls are compared, one by one
in turn, with diffusers' own module where that library is installed.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from studio import spec, terminal
from studio.bench import Row, at_most, machine
from studio.commands import Command, Outcome
from studio.lazy import no_grad, torch
from studio.weights import devices, formats, tensors

#: config.json of google/ncsnpp-*-256 and google/ddpm-cifar10-32, as far as it says something.
_SKIP = ["SkipDownBlock2D"] * 4 + ["AttnSkipDownBlock2D"] + ["SkipDownBlock2D"] * 2
NCSNPP: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "sample_size": 256,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [128, 128, 256, 256, 256, 256, 256],
    "layers_per_block": 2,
    "down_block_types": _SKIP,
    "up_block_types": [k.replace("Down", "Up") for k in reversed(_SKIP)],
    "time_embedding_type": "fourier",
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "center_input_sample": True,
    "norm_num_groups": None,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
    "mid_block_scale_factor": 2**0.5,
}
DDPM: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [128, 256, 256, 256],
    "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "time_embedding_type": "positional",
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "attention_head_dim": None,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
}
_SCHEDULERS = {
    "fourier": {"_class_name": "ScoreSdeVeScheduler", "sigma_min": 0.01, "sigma_max": 380.0},
    "positional": {"_class_name": "DDPMScheduler", "beta_start": 1e-4, "beta_end": 0.02},
}


@dataclass(frozen=True, kw_only=True)
class BenchModels(Command):
    """Measure what opening and calling published networks costs, against other libraries."""

    calls: int = spec.option(5, range=(1, 1000), help="Calls of each network.")

    def run(self) -> Outcome:
        with tempfile.TemporaryDirectory() as scratch:
            ncsnpp = _folder(Path(scratch) / "ncsnpp-256", NCSNPP)
            ddpm = _folder(Path(scratch) / "ddpm-cifar10-32", DDPM)
            rows = [*_opening(ncsnpp), *self._speed("ddpm-cifar10-32", ddpm, DDPM, 4)]
            rows += self._speed("ncsnpp-256", ncsnpp, NCSNPP, 1)
        where = machine("cpu")
        lines = [f"{key}: {value}" for key, value in where.items()] + [""]
        lines += [f"{r.name:<32} {r.value} {r.unit}  {r.budget or r.reason}" for r in rows]
        data = {"machine": where, "failed": [r.name for r in rows if r.ok is False]}
        return Outcome(data | {"rows": [dataclasses.asdict(r) for r in rows]}, "\n".join(lines))

    @no_grad
    def _speed(self, name: str, folder: Path, config: dict[str, Any], batch: int) -> list[Row]:
        """The time of a call, and diffusers' in turn with it."""
        terminal.note(f"bench: calls of {name}")
        net = formats.open_model(folder).network()
        x = torch.randn(batch, 3, config["sample_size"], config["sample_size"])
        label = torch.full((batch,), 5.0)
        kinds: dict[str, Callable[[], Any]] = {"ours": lambda: net(x, label)}
        try:
            diffusers: Any = importlib.import_module("diffusers")
        except ImportError:
            terminal.note("diffusers is not installed: nothing to compare with")
        else:
            theirs = diffusers.UNet2DModel.from_config(config).eval()
            kinds["diffusers"] = lambda: theirs(x, label)
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(self.calls + 1):
            for kind, call in kinds.items():
                begun = time.perf_counter()
                call()
                times[kind].append(time.perf_counter() - begun)
        ours = median(times["ours"][1:])
        rows = [Row(f"{name}_call", round(1e3 * ours, 1), "ms")]
        if "diffusers" in times:
            ratio = ours / median(times["diffusers"][1:])
            rows.append(at_most(f"{name}_against_diffusers", ratio, "× its time", 1.0))
        return rows


def _folder(folder: Path, config: dict[str, Any]) -> Path:
    """A flat diffusers folder with random weights."""
    from studio.networks.catalog import build
    from studio.weights.formats.diffusers import options_of

    net = build("unet2d", options_of(config))
    folder.mkdir()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    tensors.write_tensors(folder / "diffusion_pytorch_model.safetensors", state, {"format": "pt"})
    kind = config["time_embedding_type"]
    for name, content in (("config", config), ("scheduler_config", _SCHEDULERS[kind])):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def _opening(folder: Path) -> list[Row]:
    """Time and memory of opening, against safetensors' own load and building the module."""
    from safetensors.torch import load_file

    from studio.networks.catalog import build

    terminal.note("bench: opening a large model")
    file = folder / "diffusion_pytorch_model.safetensors"
    info = formats.open_model(folder).info

    def load() -> None:
        for tensor in load_file(file).values():
            tensor.sum()  # it maps the file; a tensor is loaded when it is read

    ratios = []
    for _ in range(3):
        theirs = _seconds(load) + _seconds(lambda: build(info.network, info.options))
        ratios.append(_seconds(lambda: formats.open_model(folder).network()) / theirs)
    gc.collect()
    with _peak() as peak:
        net = formats.open_model(folder).network()
    del net
    return [
        at_most("opening_time", median(ratios), "× load and build", 1.3),
        at_most("opening_memory", peak[0] / file.stat().st_size, "× the file", 1.2),
    ]


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


@contextmanager
def _peak() -> Iterator[list[float]]:
    """A list with the most memory, in bytes, that this process held over what it holds now."""
    base, found, done = devices.resident_bytes(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            found[0] = max(found[0], devices.resident_bytes() - base)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
