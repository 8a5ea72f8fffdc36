"""The log for TensorBoard: written where the package is, and its lack said where it is not."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from test_train_jobs import events, folder, job  # noqa: F401

from studio.errors import DataError
from studio.training.board import Board

pytestmark = pytest.mark.usefixtures("one_thread")
installed = importlib.util.find_spec("tensorboard") is not None


def test_without_the_package_it_is_said_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="tensorboard") as caught:
        Board(tmp_path)
    assert "score-studio[tensorboard]" in caught.value.hint


def test_a_run_that_cannot_be_logged_does_not_begin(folder, home, monkeypatch):  # noqa: F811
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="tensorboard"):
        events(job(folder, tensorboard=True))
    assert not (home / "models" / "mine" / "model.safetensors").exists()


@pytest.mark.skipif(not installed, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore")
def test_curves_and_samples_are_logged(folder, home):  # noqa: F811
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events(job(folder, tensorboard=True))
    found = EventAccumulator(str(home / "models" / "mine" / "tensorboard"))
    found.Reload()
    assert {"loss", "held-out loss", "bits per dimension"} <= set(found.Tags()["scalars"])
    assert [e.step for e in found.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [e.step for e in found.Images("samples")] == [0, 3, 6]
    assert np.isfinite([e.value for e in found.Scalars("held-out loss")]).all()
