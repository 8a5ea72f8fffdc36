"""`score-studio train`: recipes, presets and choices, and what it says."""

from __future__ import annotations

import json

import pytest
from test_train_jobs import folder, tiny  # noqa: F401

from studio import cli, spec
from studio.training.plan import PRESETS, Training
from studio.training.runs import read_recipe

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ["--size", "8", "--channels", "8", "16", "--blocks", "1", "1", "--embedding", "16"]
SMALL += ["--patch", "1", "--top", "0", "--batch", "8", "--precision", "fp32"]
QUICK = ["--device", "cpu", "--sample-every", "0"]


@pytest.fixture
def run(capsys):
    """Runs a command line with --json; (exit code, the one object on stdout)."""

    def run(*words):
        code = cli.main([*map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def job(*words):
    return cli.parse("train", list(map(str, words))).job()


def test_a_recipe_is_run_again_to_the_same_model(run, folder, home):  # noqa: F811
    words = ["train", folder, *SMALL, *QUICK, "--steps", 4, "--turns", "--held-out", "0.2"]
    code, first = run(*words, "--out", "one")
    assert code == 0
    recipe = home / "models" / "one" / "recipe.json"
    kept = read_recipe(recipe)
    assert kept.choices.turns
    assert kept.choices.held_out == 0.2
    code, second = run("train", "--recipe", recipe, "--out", "two", *QUICK)
    assert code == 0
    assert (second["loss"], second["plan"]) == (first["loss"], first["plan"])
    assert second["held_out"] == first["held_out"] > 0


def test_what_is_said_besides_a_recipe_counts(folder, home, run):  # noqa: F811
    run("train", folder, *SMALL, *QUICK, "--steps", 2, "--out", "one")
    made = job("--recipe", home / "models" / "one", "--steps", 9, "--flips", "--jitter", "0.1")
    assert (made.plan.steps, made.plan.flips, made.choices.jitter) == (9, True, 0.1)
    assert (made.plan.size, made.plan.channels) == (8, (8, 16))
    assert made.out == str(home / "models" / "one")  # it goes on with the run that it lies in


def test_a_recipe_of_before_needs_its_pictures(run, tmp_path):
    old = {k: v for k, v in spec.to_dict(Training()).items() if k != "ema_lengths"}
    (tmp_path / "recipe.json").write_text(json.dumps(old))
    code, said = run("train", "--recipe", tmp_path / "recipe.json", "--out", "x")
    assert (code, said["error"]) == (2, "DATA must be given.")
    made = job(tmp_path, "--recipe", tmp_path / "recipe.json", "--out", "x")
    assert made.plan == Training(ema_lengths=())


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_is_a_plan_of_which_more_may_be_said(name, tmp_path):
    made = job(tmp_path, "--out", "x", "--preset", name.split()[0], "--warmup", "7")
    assert made.plan.steps == PRESETS[name].changes["steps"]
    assert made.plan.warmup == 7


def test_unknown_presets_are_refused(run, tmp_path):
    code, said = run("train", tmp_path, "--out", "x", "--preset", "fast")
    assert code == 2
    assert "quick look, personal, overnight" in said["hint"]


def test_the_rate_suits_what_is_trained(tiny, tmp_path):  # noqa: F811
    rates = {
        what: job(tmp_path, "--out", "x", *words).plan.rate
        for what, words in {
            "scratch": [],
            "start": ["--from", tiny],
            "adapters": ["--from", tiny, "--train", "adapters"],
            "said": ["--from", tiny, "--rate", "0.01"],
        }.items()
    }
    assert rates == {"scratch": 8e-4, "start": 1e-4, "adapters": 1e-3, "said": 0.01}


def test_a_model_brings_its_size_unless_another_is_said(tiny, tmp_path, folder, run):  # noqa: F811
    assert job(tmp_path, "--out", "x", "--from", tiny).plan.size == 8
    assert job(tmp_path, "--out", "x").plan.size == 32
    words = ["train", folder, "--from", tiny, "--size", 16, "--batch", 4, "--steps", 1, *QUICK]
    code, said = run(*words, "--out", "large")
    assert (code, said["plan"]["size"]) == (0, 16)
    code, said = run(*words[:4], "--size", 17, "--out", "odd", *QUICK)
    assert code == 2
    assert "cannot take pictures of 17 px" in said["error"]


def test_adapters_are_trained_and_kept_for_other_programs(tiny, folder, home, run):  # noqa: F811
    words = ["train", folder, "--from", tiny, "--train", "adapters", "--rank", 2, "--steps", 2]
    code, _ = run(*words, "--batch", 4, "--precision", "fp32", "--out", "lora", *QUICK)
    assert code == 0
    place = home / "models" / "lora"
    assert json.loads((place / "adapter_config.json").read_text())["r"] == 2
    assert (place / "adapter_model.safetensors").exists()
    assert "adapters" in (place / "card.md").read_text()


def test_a_plan_is_checked_without_training(folder, home, run):  # noqa: F811
    words = ["train", folder, *SMALL, "--device", "cpu", "--out", "x", "--check", "--steps", 10]
    code, said = run(*words)
    assert code == 0
    assert said["seconds_per_step"] > 0
    assert said["trained"] == said["parameters"]
    assert any("learn them by heart" in warning for warning in said["warnings"])
    assert not (home / "models" / "x").exists()


def test_what_happens_is_said_on_the_way(folder, capsys):  # noqa: F811
    words = ["train", str(folder), *SMALL, "--steps", "4", "--out", "mine", "--device", "cpu"]
    assert cli.main([*words, "--sample-every", "2"]) == 0
    told = capsys.readouterr()
    assert "step 2: samples drawn, held-out loss" in told.err
    assert "left out broken.png" in told.err
    assert "mine is at step 4" in told.out
