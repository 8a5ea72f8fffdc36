"""What only a graphics card can show. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY_OPTIONS, build, every_sampler, noise_for, tiny_network

from studio.diffusion import pictures
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.likelihood import Measure
from studio.diffusion.noise import Noise
from studio.diffusion.score import Score
from studio.training.data import Pictures
from studio.training.loop import train
from studio.training.plan import Training
from studio.training.trainer import Trainer
from studio.weights.model import ModelInfo, score_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

INFO = ModelInfo(options=TINY_OPTIONS, size=8, classes=("a", "b"))
FIXED = [name for name, cls in SAMPLERS.items() if "steps" in cls.__dataclass_fields__]


def tiny(device: str, dtype: str = "fp32") -> Score:
    return score_of(tiny_network().to(device), INFO, device, dtype)


def last(sampler: str, device: str, dtype: str = "fp32", count: int = 2) -> torch.Tensor:
    chosen, score = build(sampler, steps=12), tiny(device, dtype)
    noise = noise_for(chosen, score, seed=7, count=count, device=device)
    *_, step = chosen.run(score, noise)
    return step.x.cpu()


@pytest.mark.parametrize("sampler", FIXED)
def test_fixed_steps_never_wait_for_the_card(sampler):
    chosen, score = build(sampler, steps=8), tiny("cuda")
    run = chosen.run(score, noise_for(chosen, score, device="cuda"))
    next(run)  # the grid is made on the host, and kernels are loaded
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(6):
            next(run)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@every_sampler
def test_a_seed_gives_the_same_picture_on_the_card(sampler):
    torch.testing.assert_close(last(sampler, "cuda"), last(sampler, "cpu"), rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_is_close(dtype):
    away = (last("dpm2m", "cuda", dtype) - last("dpm2m", "cuda")).abs()
    assert float(away.mean()) < 0.02


def test_likelihood_agrees_with_the_processors():
    generator = torch.Generator().manual_seed(0)
    shown = torch.randint(0, 256, (2, 8, 8, 3), generator=generator, dtype=torch.uint8).numpy()
    found = []
    for device in ("cpu", "cuda"):
        x = pictures.to_state(shown, (-1.0, 1.0), device)
        *_, end = Measure(rtol=1e-3, atol=1e-3).run(tiny(device), x)
        found.append(end.bits.cpu())
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-3)


def test_training_learns_on_the_card_and_goes_on_exactly(tmp_path):
    shown = torch.randint(0, 256, (16, 8, 8, 3), dtype=torch.uint8).numpy()
    data = Pictures(shown, torch.full((16,), -1).numpy())
    plan = Training(
        size=8,
        channels=(8, 16),
        blocks=(1, 1),
        embedding=16,
        patch=1,
        top=0,
        batch=8,
        steps=6,
        warmup=1,
        precision="fp32",
    )
    whole = [s.loss for s in train(Trainer(plan, data, tmp_path / "whole", "cuda"))][:6]
    part = train(Trainer(plan, data, tmp_path / "part", "cuda"))
    first = [next(part).loss for _ in range(3)]
    part.close()
    rest = [s.loss for s in train(Trainer(plan, data, tmp_path / "part", "cuda"))][:3]
    assert first + rest == pytest.approx(whole, rel=1e-4)


def test_noise_on_the_card_is_the_hosts():
    at = {
        device: Noise.of(3, 2, (3, 8, 8), INFO.sde, device=device).increment(0.9, 0.4).cpu()
        for device in ("cpu", "cuda")
    }
    torch.testing.assert_close(at["cuda"], at["cpu"])
