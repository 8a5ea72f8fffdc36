"""The command line: what is typed, what comes out, and how every mistake is answered in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, TINY_OPTIONS, tiny_network
from PIL import Image

from studio import cli, recipes, spec
from studio.commands import training
from studio.commands.train import Train
from studio.diffusion.correctors import CORRECTORS
from studio.engine import training_run
from studio.engine.jobs import SampleJob
from studio.training.plan import Training
from studio.weights.formats import native
from studio.weights.model import ModelInfo

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ["--size", "8", "--channels", "8", "16", "--blocks", "1", "1", "--embedding", "16"]
SMALL += ["--patch", "1", "--top", "0", "--batch", "4", "--precision", "fp32", "--device", "cpu"]


@pytest.fixture
def model(home: Path) -> str:
    """A small model with two classes on the shelf."""
    info = ModelInfo(options=TINY_OPTIONS, size=8, classes=("cat", "dog"), steps=12)
    native.save(home / "models" / "tiny", info, tiny_network().state_dict(), card="# Tiny\n")
    return "tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty small pictures and a file that is none."""
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for i in range(40):
        colour = rng.integers(0, 256, 3, np.uint8)
        Image.fromarray(np.broadcast_to(colour, (9, 9, 3)).copy()).save(folder / f"{i:02}.png")
    (folder / "broken.png").write_text("no picture")
    return folder


@pytest.fixture
def run(capsys):
    """Runs a command line with --json; (exit code, the one object on stdout)."""

    def run(*words: object) -> tuple[int, dict]:
        capsys.readouterr()
        code = cli.main([*map(str, words), "--json"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        return code, json.loads(lines[0])

    return run


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# -- asking for help ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    assert cli.main([*name.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert f"score-studio {name}" in out
    assert "--json" in out


def test_the_overview_names_every_command_and_loads_nothing_heavy():
    code = (
        "import sys; from studio.cli import main; code = main(['--help'])\n"
        "heavy = {'torch', 'PySide6'} & sys.modules.keys()\n"
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_the_version_is_that_of_the_package(run):
    import studio

    assert run("--version") == (0, {"version": studio.__version__})


def test_the_module_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "studio", "samle"], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 2
    assert done.stderr == "score-studio: There is no command “samle”. Did you mean “sample”?\n"


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "no command “nonsense”"),
        (["models", "lis"], "Did you mean “models list”"),
        (["sample"], "MODEL must be given"),
        (["sample", "tiny", "extra"], "extra"),
        (["sample", "tiny", "--stepz", "3"], "Did you mean --steps"),
        (["compare", "tiny", "--model", "tiny"], "MODEL is given without --model"),
        (["sample", "tiny", "--steps"], "--steps"),
        (["sample", "tiny", "--steps", "many"], "many"),
        (["sample", "tiny", "--steps", "0"], "from 1 to"),
        (["sample", "tiny", "--count", "65"], "from 1 to 64"),
        (["sample", "tiny", "--seed", "-1"], "Seed"),
        (["sample", "tiny", "--view", "inside"], "inside"),
        (["sample", "nobody"], "no model “nobody”"),
        (["sample", "tiny", "--sampler", "heunn"], "Did you mean “heun”"),
        (["sample", "tiny", "--option", "snr"], "name=value"),
        (["sample", "tiny", "--sampler", "pc", "--option", "snrr=1"], "Did you mean"),
        (["sample", "tiny", "--sampler", "pc", "--option", "snr=9"], "from 0.001 to 1"),
        (["sample", "tiny", "--sampler", "pc", "--predictor", "best"], "no predictor “best”"),
        (["sample", "tiny", "--sampler", "dpm2m", "--corrector", "none"], "no setting “corrector”"),
        (["sample", "tiny", "--label", "bird"], "no class “bird”"),
        (["sample", "tiny", "--device", "gpu9"], "no device “gpu9”"),
        (["sample", "tiny", "--out", "a.jpg"], "a.png"),
        (["sample", "tiny", "--frames", "a.mp4"], "a.webp"),
        (["models", "info", "nobody"], "no model"),
        (["train", "nowhere", "--out", "x"], "nothing at nowhere"),
        (["train", "nowhere"], "--out NAME"),
        (["train", "nowhere", "--out", ".x"], "no name"),
        (["train", "nowhere", "--out", "x", "--sde", "vpp"], "vpp"),
        (["train", "nowhere", "--out", "x", "--rate", "5"], "Learning rate"),
        (["train", "nowhere", "--out", "x", "--option", "mean=-99"], "from -6 to 6"),
        (["train", "nowhere", "--out", "x", "--option", "sigma_data=1"], "several"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_answered_in_one_line(words, said, model, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line != "Loading the model"]
    assert out == ""
    assert len(lines) == 1
    assert lines[0].startswith("score-studio: ")
    assert said in lines[0]
    assert not list(tmp_path.glob("*.png"))


def test_a_mistake_is_one_json_object_too(run):
    code, said = run("sample", "nobody")
    assert code == 2
    assert "nobody" in said["error"]
    assert set(said) == {"error", "hint"}


def test_a_place_that_cannot_be_written_is_known_before_sampling(run, model, tmp_path):
    (tmp_path / "file").write_text("x")
    code, said = run("sample", model, "--out", tmp_path / "file" / "a.png")
    assert code == 2
    assert "a.png" in said["error"]


def test_a_fault_of_ours_says_where_to_report(monkeypatch, capsys):
    def broken(self):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("studio.commands.models.ListModels.run", broken)
    assert cli.main(["models"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "report" in err


def test_interrupting_gives_130(monkeypatch, run):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("studio.commands.models.ListModels.run", interrupted)
    assert run("models") == (130, {"error": "interrupted", "hint": ""})


def test_no_memory_is_a_mistake_not_a_fault(monkeypatch, run):
    def full(self):
        raise MemoryError

    monkeypatch.setattr("studio.commands.models.ListModels.run", full)
    code, said = run("models")
    assert code == 2
    assert "memory" in said["error"]


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_closed_pipe_is_no_fault():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "studio", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141


def test_numbers_that_json_lacks_become_null():
    assert cli._finite({"a": [float("nan"), 1.5], "b": float("inf")}) == {
        "a": [None, 1.5],
        "b": None,
    }


# -- the shelf ------------------------------------------------------------------------------------


def test_models_are_listed_and_told(run, model):
    code, said = run("models")
    assert code == 0
    assert [m["name"] for m in said["models"] if not m["ships"]] == ["tiny"]
    code, said = run("models", "info", "tiny")
    assert (said["size"], said["classes"], said["card"]) == (8, ["cat", "dog"], "# Tiny\n")


def test_a_damaged_model_is_listed_with_its_problem(run, home, capsys):
    (home / "models" / "bad").mkdir(parents=True)
    (home / "models" / "bad" / "model.safetensors").write_bytes(b"\xff" * 64)
    _, said = run("models", "list")
    assert next(m for m in said["models"] if m["name"] == "bad")["problem"]
    assert cli.main(["models"]) == 0
    assert "bad" in capsys.readouterr().out


# -- sampling -------------------------------------------------------------------------------------


def test_the_same_words_make_the_same_picture(run, model, tmp_path):
    words = ["sample", model, "--sampler", "pc", "--steps", 3, "--seed", 7]
    for name in ("a.png", "new/b.png"):
        assert run(*words, "--out", tmp_path / name)[0] == 0
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "new" / "b.png"))
    run(*words[:-1], 8, "--out", tmp_path / "c.png")
    assert not np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "c.png"))


def test_the_recipe_in_a_picture_makes_it_again(run, model, tmp_path):
    _, said = run("sample", model, "--sampler", "pc", "--steps", 2, "--option", "snr=0.1",
                  "--predictor", "em", "--label", "dog", "--out", tmp_path / "a.png")  # fmt: skip
    job = spec.from_dict(SampleJob, recipes.read_recipe(tmp_path / "a.png"))
    assert spec.to_dict(job) == said["recipe"]
    assert job.sampler.corrector.snr == 0.1
    assert spec.kind(job.sampler.predictor) == "em"
    assert (job.classes, job.count, said["calls"]) == ("dog", 1, 5)


def test_several_pictures_are_one_sheet_or_each_a_file(run, model, tmp_path):
    words = ["sample", model, "--sampler", "dpm2m", "--steps", 2, "--count", 3, "--label", "each"]
    _, sheet = run(*words, "--out", tmp_path / "sheet.png")
    assert sheet["files"] == [str(tmp_path / "sheet.png")]
    assert pixels(tmp_path / "sheet.png").shape == (18, 18, 3)
    _, apart = run(*words, "--out", tmp_path / "p.png", "--separate")
    assert [Path(f).name for f in apart["files"]] == ["p-1.png", "p-2.png", "p-3.png"]
    third = tmp_path / "p-3.png"
    assert np.array_equal(pixels(third), pixels(tmp_path / "sheet.png")[10:, :8])
    assert recipes.read_recipe(third)["seed"] == 2


def test_a_picture_of_a_batch_comes_again_alone(run, model, tmp_path):
    words = ["sample", model, "--sampler", "dpm2m", "--steps", 2, "--label", "each"]
    run(*words, "--count", 2, "--separate", "--out", tmp_path / "p.png")
    run(*words, "--seed", 1, "--out", tmp_path / "alone.png")
    difference = pixels(tmp_path / "p-2.png").astype(int) - pixels(tmp_path / "alone.png")
    assert np.abs(difference).max() <= 1
    assert recipes.read_recipe(tmp_path / "p-2.png") == recipes.read_recipe(tmp_path / "alone.png")


@pytest.mark.parametrize("view", ["x", "denoised", "score", "change"])
def test_a_run_is_written_as_an_animation(run, model, tmp_path, view):
    moving = tmp_path / "run.gif"
    _, said = run("sample", model, "--sampler", "dpm2m", "--steps", 4, "--count", 2,
                  "--out", tmp_path / "a.png", "--frames", moving, "--view", view)  # fmt: skip
    assert str(moving) in said["files"]
    with Image.open(moving) as image:
        assert image.n_frames >= 4


def test_steps_of_an_adaptive_sampler_are_ignored_with_a_note(run, model, tmp_path):
    code, said = run("sample", model, "--sampler", "rk45", "--steps", 9, "--option", "rtol=0.2",
                     "--option", "atol=0.2", "--out", tmp_path / "a.png")  # fmt: skip
    assert code == 0
    assert "9 is ignored" in said["notes"][0]


def test_without_a_sampler_a_model_is_sampled_as_suits_it(run, model, home, tmp_path):
    path = home / "models" / "other"
    info = native.read_info(home / "models" / "tiny" / native.WEIGHTS)
    info = dataclasses.replace(info, preset="balanced")
    native.save(path, info, tiny_network().state_dict())
    words = ["--steps", 1, "--out", tmp_path / "a.png"]
    assert run("sample", "tiny", *words)[1]["sampler"]["kind"] == "dpm2m-sde"
    assert run("sample", "other", *words)[1]["sampler"]["kind"] == "pc"


# -- training -------------------------------------------------------------------------------------


def test_a_folder_becomes_a_model_that_resumes_and_samples(run, folder, home, tmp_path):
    words = ["train", folder, "--out", "mine", *SMALL, "--option", "objective.mean=-1.5"]
    code, said = run(*words, "--steps", 3, "--sample-every", 2)
    assert code == 0
    assert (said["steps"], said["pictures"], said["resumed_at"]) == (3, 40, 0)
    assert [s["file"] for s in said["skipped"]] == ["broken.png"]
    assert said["plan"]["objective"]["mean"] == -1.5
    made = home / "models" / "mine"
    assert pixels(made / "samples" / "step-000002.png").shape[0] >= 256
    assert "3" in (made / "card.md").read_text(encoding="utf-8")

    code, said = run(*words, "--steps", 5)
    assert (code, said["resumed_at"], said["steps"]) == (0, 3, 5)
    assert "| steps | 5 |" in (made / "card.md").read_text(encoding="utf-8")
    assert len((made / "log.csv").read_text().splitlines()) == 3

    code, _ = run("sample", "mine", "--steps", 2, "--out", tmp_path / "a.png")
    assert code == 0


def test_a_finished_run_has_nothing_to_do(run, folder):
    words = ["train", folder, "--out", "mine", *SMALL, "--steps", 1]
    run(*words)
    code, said = run(*words)
    assert (code, said["steps"], said["resumed_at"]) == (0, 1, 1)


def test_a_run_is_not_resumed_with_another_plan(run, folder):
    words = ["train", folder, *SMALL, "--steps", 1, "--out", "mine"]
    run(*words)
    code, said = run(*words, "--seed", 1)
    assert code == 2
    assert "another plan" in said["error"]


def test_a_card_written_by_hand_stays(run, folder, tmp_path):
    out = tmp_path / "elsewhere" / "mine"
    out.mkdir(parents=True)
    (out / "card.md").write_text("mine")
    code, said = run("train", folder, "--out", out, *SMALL, "--steps", 1)
    assert (code, said["path"]) == (0, str(out))
    assert (out / "card.md").read_text() == "mine"


def test_sub_folders_are_classes(run, folder, tmp_path):
    for name in ("red", "blue"):
        (folder / name).mkdir()
    for i, path in enumerate(sorted(folder.glob("[0-9]*.png"))):
        path.rename(folder / ("red" if i % 2 else "blue") / path.name)
    (folder / "broken.png").unlink()
    _, said = run("train", folder, "--out", "mine", *SMALL, "--steps", 1)
    assert said["classes"] == ["blue", "red"]
    code, _ = run("sample", "mine", "--label", "red", "--steps", 1, "--out", tmp_path / "a.png")
    assert code == 0


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_after_the_step_and_saves(run, folder, home, monkeypatch, number):
    plain = training_run.train

    def interrupting(*settings):
        for step in plain(*settings):
            if step.step == 2:
                os.kill(os.getpid(), number)
            yield step

    monkeypatch.setattr(training_run, "train", interrupting)
    before = signal.getsignal(number)
    words = ["train", folder, "--out", "mine", *SMALL, "--steps", 50]
    code, said = run(*words)
    assert code == 130
    assert said["interrupted"]
    assert 2 <= said["steps"] < 50
    assert native.read_info(home / "models" / "mine" / "model.safetensors").steps == said["steps"]
    assert signal.getsignal(number) is before


def test_the_command_in_the_card_is_the_command(folder):
    words = ["train", str(folder), "--out", "mine", *SMALL, "--sde", "ve", "--flips"]
    words += ["--option", "objective.mean=-1.5"]
    made = cli.parse("train", words[1:])
    again = training.command_line("train", made).replace("'", "").split()[2:]
    assert cli.parse("train", [*again, "--device", "cpu"]) == made
    assert made.plan().objective.mean == -1.5


def test_every_field_of_a_plan_is_a_flag():
    assert {f.name for f in dataclasses.fields(Training)} <= {
        f.name for f in dataclasses.fields(Train)
    }


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_save(run, folder, home):
    words = ["train", str(folder), "--out", "mine", *SMALL, "--save-seconds", "0"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", *words, "--steps", "1000000"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    weights = home / "models" / "mine" / "model.safetensors"
    until = time.monotonic() + 120
    while not (weights.exists() and native.read_info(weights).steps > 3):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.wait()
    saved = native.read_info(weights).steps
    code, said = run(*words, "--steps", saved + 3)
    assert code == 0
    assert said["resumed_at"] >= saved
    assert said["steps"] == max(saved + 3, said["resumed_at"])


def test_training_goes_on_from_a_model_of_the_shelf(run, model, folder, home):
    words = ["train", folder, "--from", model, "--out", "fine", "--steps", 2, "--batch", 4]
    code, said = run(*words, "--sample-every", 0, "--precision", "fp32", "--device", "cpu")
    assert code == 0
    assert (said["plan"]["rate"], said["plan"]["size"]) == (1e-4, 8)
    assert "--from tiny" in (home / "models" / "fine" / "card.md").read_text()
    assert native.read_info(home / "models" / "fine" / "model.safetensors").classes == (
        "cat",
        "dog",
    )


@pytest.mark.parametrize("corrector", list(CORRECTORS))
def test_the_help_of_sample_names_every_corrector(capsys, corrector):
    with contextlib.suppress(SystemExit):
        cli.main(["sample", "--help"])
    assert corrector in capsys.readouterr().out


def test_a_preset_for_a_model_that_describes_itself_is_refused(model, tmp_path, capsys):
    words = ["sample", model, "--preset", "ve/cifar10_ncsnpp", "--out", str(tmp_path / "o.png")]
    assert cli.main(words) == 2
    assert "describes itself" in capsys.readouterr().err
