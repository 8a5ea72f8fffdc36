"""The figures of the ways to repaint: what they compare, and that they tell good from bad."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from studio import cli
from studio.commands.evaluate_painting import _masks, _ratio
from studio.diffusion.tasks import METHODS

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_ratio_is_that_of_the_mask_alone():
    picture = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 2:4] = 255
    made = picture + np.where(mask[..., None] > 0, 10, 90).astype(np.uint8)
    assert _ratio(made, picture, mask) == pytest.approx(20 * np.log10(255 / 10))


@pytest.mark.parametrize("side", [8, 32, 64])
def test_every_mask_leaves_something(side):
    for mask in _masks(side).values():
        assert mask.shape == (side, side)
        assert 0 < np.count_nonzero(mask) < mask.size


def test_every_method_has_a_row_for_every_mask(tmp_path, tiny_checkpoint, capsys):
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{i}.png")
    out = tmp_path / "out" / "all.png"
    arguments = ["evaluate-painting", str(tiny_checkpoint), str(tmp_path), "--count", "2"]
    code = cli.main([*arguments, "--steps", "2", "--tries", "1", "--out", str(out), "--json"])
    assert code == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {(r["mask"], r["method"]) for r in rows} == {
        (mask, method) for mask in _masks(8) for method in METHODS
    }
    assert all(np.isfinite(r["psnr"]) and r["calls"] >= 3 for r in rows)
    assert out.exists()
