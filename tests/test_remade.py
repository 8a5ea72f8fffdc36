"""Other models out of what a training has kept: another average, adapters on their start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_train_jobs import PLAN, events, folder, job, tiny  # noqa: F401

from studio import cli
from studio.training import lengths, remade
from studio.training.trainer import Trainer
from studio.weights.shelf import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")


def weights_of(name):
    return Shelf().find(name).opened.network().state_dict()


def test_a_model_is_averaged_over_another_length(folder, home, monkeypatch):  # noqa: F811
    """Against the average of all the weights that the training went through."""
    path, plain = [], Trainer._descend

    def descend(trainer):
        plain(trainer)
        if trainer.step % lengths.EVERY == 0:
            path.append({k: p.detach().clone() for k, p in trainer.net.named_parameters()})

    monkeypatch.setattr(Trainer, "_descend", descend)
    events(job(folder, plan={"steps": 120}, sample_every=0))
    made = remade.with_length(home / "models" / "mine", 0.07, "other")
    assert (made.path, made.step) == (home / "models" / "other", 120)
    assert made.error < 0.1
    shares = lengths.profile(0.07, len(path), np.arange(len(path) + 1.0))
    found, before = weights_of("other"), weights_of("mine")
    away = moved = 0.0
    for name in path[0]:
        wanted = sum(float(s) * w[name] for s, w in zip(shares, path))
        away += float((found[name] - wanted).square().sum())
        moved += float((before[name] - wanted).square().sum())
    assert away < 0.02 * moved
    assert "7 % of the run" in Shelf().find("other").card


@pytest.mark.parametrize(
    "changes", [{"train": "adapters", "rank": 2}, {"train": "last", "last": 1}]
)
def test_a_model_trained_in_part_is_averaged_too(folder, home, tiny, changes):  # noqa: F811
    plan = {"start": tiny, "steps": 40, "rate": 5e-3} | changes
    events(job(folder, plan=plan, sample_every=0))
    remade.with_length(home / "models" / "mine", 0.1, "other")
    found, mine, start = (weights_of(name) for name in ("other", "mine", tiny))
    # It lies where the training led, not at its start, and what was left alone is left alone.
    name = "head.weight"
    assert torch.dist(found[name], mine[name]) < 0.5 * torch.dist(start[name], mine[name])
    if plan["train"] == "last":
        torch.testing.assert_close(found["stem.weight"], start["stem.weight"], rtol=1e-3, atol=1e-3)


def test_adapters_make_a_model_of_their_start_again(folder, home, tiny, capsys):  # noqa: F811
    plan = {"start": tiny, "steps": 10, "rate": 5e-3, "train": "adapters"}
    events(job(folder, plan=plan, sample_every=0))
    place = str(home / "models" / "mine")
    assert cli.main(["models", "adapt", tiny, place, "--out", "again"]) == 0
    assert cli.main(["models", "adapt", tiny, place, "--out", "none", "--share", "0"]) == 0
    again, mine, none, start = (weights_of(name) for name in ("again", "mine", "none", tiny))
    for name, value in again.items():
        torch.testing.assert_close(value, mine[name], rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(none[name], start[name], rtol=2e-3, atol=2e-3)
    assert Shelf().find("again").info.classes == ("cat", "dog")


def test_the_command_makes_another_average(folder, home, capsys):  # noqa: F811
    events(job(folder, plan={"steps": 40}, sample_every=0))
    words = ["models", "average", "mine", "--length", "0.1", "--out"]
    assert cli.main([*words, "tenth"]) == 0
    assert "averaged over 0.1" in capsys.readouterr().out
    assert Shelf().find("tenth").info.steps == 40
    for spoilt, said in (
        ([*words, "tenth"], "already"),
        ([*words, ""], "needs a name"),
        (["models", "average", "mine", "--length", "0.5", "--out", "x"], "from 0.02 to 0.25"),
    ):
        assert cli.main(spoilt) == 2
        assert said in capsys.readouterr().err


def test_a_model_without_averages_says_so(tiny, home, capsys):  # noqa: F811
    assert cli.main(["models", "average", tiny, "--out", "x"]) == 2
    assert "kept no averages" in capsys.readouterr().err
    assert not (home / "models" / "x").exists()


def test_a_plan_may_keep_none(folder, home):  # noqa: F811
    events(job(folder, plan=vars(replace(PLAN, ema_lengths=())), sample_every=0))
    assert not (home / "models" / "mine" / "averages").exists()
