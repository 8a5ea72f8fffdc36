"""Training as a job: what it tells, what may be sent to it, what it leaves, and how it goes on."""

from __future__ import annotations

import asyncio
import csv
import json
import lzma
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import REPOSITORY, TINY_OPTIONS, tiny_network
from PIL import Image

from studio import spec
from studio.engine import sheets, train_jobs, training_run
from studio.engine.engine import Engine
from studio.engine.events import Done, Levels, Metric, Note, Progress, Saved
from studio.engine.jobs import SampleJob, Setting
from studio.engine.library import kept_strip
from studio.engine.train_jobs import (
    CheckPlan,
    Discard,
    RolledBack,
    SampleNow,
    SaveNow,
    Sheet,
    StopNow,
    TrainJob,
    TrainResult,
)
from studio.errors import DataError, SaveError, SpecError
from studio.training.check import Checked
from studio.training.choices import Choices
from studio.training.plan import Training
from studio.training.runs import Recipe, read_recipe, write_recipe
from studio.training.trainer import begun
from studio.weights.formats import native
from studio.weights.model import ModelInfo
from studio.weights.shelf import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")

PLAN = Training(
    size=8,
    channels=(8, 16),
    blocks=(1, 1),
    embedding=16,
    patch=1,
    top=0,
    steps=6,
    batch=8,
    warmup=2,
    rate=2e-3,
    precision="fp32",
)


@pytest.fixture
def folder(tmp_path):
    """Forty pictures, half light and half dark, and a file that is none."""
    rng, place = np.random.default_rng(0), tmp_path / "pictures"
    place.mkdir()
    for i in range(40):
        pixels = rng.integers(0, 120, (9, 9, 3)).astype(np.uint8) + np.uint8(120 * (i % 2))
        Image.fromarray(pixels).save(place / f"{i:02}.png")
    (place / "broken.png").write_text("no picture")
    return place


@pytest.fixture
def tiny(home):
    info = ModelInfo(options=TINY_OPTIONS, size=8, classes=("cat", "dog"), steps=12)
    native.save(home / "models" / "tiny", info, tiny_network().state_dict())
    return "tiny"


def job(folder, **changes):
    plan = replace(PLAN, **changes.pop("plan", {}))
    usual = {"out": "mine", "sample_every": 3, "save_seconds": 1e9}
    return TrainJob(str(folder), plan, **(usual | changes))


def setting():
    return Setting(Shelf(), "cpu", rate=1e9)


def events(job):
    return list(job.run(setting()))


def of(kind, told):
    return [event for event in told if isinstance(event, kind)]


def sent(job, wishes):
    """The events of a job to which a message is sent after the Progress of some steps."""
    run, told, message = job.run(setting()), [], None
    try:
        while True:
            told.append(run.send(message))
            message = None
            if isinstance(told[-1], Progress):
                message = wishes.pop(told[-1].step, None)
    except StopIteration:
        return told


# -- what is told ---------------------------------------------------------------------------------


def test_a_training_tells_how_it_goes_and_what_has_come_of_it(folder, home):
    told = events(job(folder))
    assert [e.step for e in of(Progress, told)][:6] == [1, 2, 3, 4, 5, 6]
    assert [e.calls for e in of(Progress, told)][:2] == [8, 16]
    names = {e.name for e in of(Metric, told)}
    assert names == {"loss", "held-out", "bits", "pace"}
    held_out = [p for e in of(Metric, told) if e.name == "held-out" for p in e.points]
    assert [step for step, _ in held_out] == [0, 3, 6]
    assert all(math.isfinite(value) for _, value in held_out)
    levels = of(Levels, told)[-1]
    assert levels.seen.sum() >= 8
    assert len(levels.edges) == len(levels.loss) + 1
    shown = of(Sheet, told)
    assert [s.step for s in shown] == [0, 3, 6]
    for sheet in shown:
        assert sheet.pictures.shape == sheet.nearest.shape == (8, 8, 8, 3)
        assert sheet.distance.shape == (8,)
        assert 0 <= sheet.memorised <= 1
    assert of(Saved, told)[-1].path == home / "models" / "mine" / "model.safetensors"
    result = told[-1].value
    assert isinstance(told[-1], Done)
    assert isinstance(result, TrainResult)
    assert (result.name, result.step, result.pictures) == ("mine", 6, 40)
    assert result.held > 0
    assert [name for name, _ in result.skipped] == ["broken.png"]
    assert (result.before.step, result.after.step) == (0, 6)
    assert math.isfinite(result.loss)
    assert math.isfinite(result.bits)


def test_the_result_is_a_model_like_any_other(folder, home):
    events(job(folder))
    entry = Shelf().find("mine")
    assert entry.info.steps == 6
    for said in ("pictures: 40 pictures", "held out", "| steps | 6 |", "samples/step-000006.png"):
        assert said in entry.card
    assert "train --recipe" in entry.card
    assert "| rate" not in entry.card.lower() or "0.002" in entry.card
    sample = SampleJob(model="mine", count=1)
    assert list(sample.run(setting()))[-1].pictures.shape == (1, 8, 8, 3)


def test_the_picture_said_to_be_nearest_is_one_that_was_learned_from(folder, home):
    shown = of(Sheet, events(job(folder)))[-1]
    from studio.training import data

    learned, held = data.load(folder, 8, 0, 0).split(0.1)
    known = {p.tobytes() for p in learned.pixels}
    assert all(p.tobytes() in known for p in shown.nearest)
    assert not any(p.tobytes() in known for p in held.pixels)


def test_without_looks_nothing_is_drawn(folder, home):
    told = events(job(folder, sample_every=0))
    assert not of(Sheet, told)
    assert math.isnan(told[-1].value.held_out)
    assert not (home / "models" / "mine" / "samples").exists()


def test_nothing_held_out_is_nothing_measured(folder):
    told = events(job(folder, choices=Choices(held_out=0.0)))
    assert {e.name for e in of(Metric, told)} == {"loss", "pace"}
    assert math.isnan(told[-1].value.after.memorised)
    assert told[-1].value.held == 0


def asked(told, monkeypatch):
    """The classes that a network was asked for."""
    seen = []
    plain = training_run.class_condition
    monkeypatch.setattr(
        training_run, "class_condition", lambda *a: (seen.append(a[1]), plain(*a))[1]
    )
    events(told)
    return set(seen)


def test_classes_that_are_learned_are_drawn_and_those_of_before_are_not(folder, tiny, monkeypatch):
    assert asked(job(folder, plan={"start": tiny}, out="a"), monkeypatch) == {""}
    for name in ("cat", "dog"):
        (folder / name).mkdir()
    for i, path in enumerate(sorted(folder.glob("[0-9]*.png"))):
        path.rename(folder / ("cat" if i % 2 else "dog") / path.name)
    (folder / "broken.png").unlink()
    assert asked(job(folder, plan={"start": tiny}, out="b"), monkeypatch) == {"each"}
    assert asked(job(folder, out="c"), monkeypatch) == {"each"}


@pytest.mark.parametrize(
    "choices",
    [Choices(flips=True), Choices(framing="random"), Choices(framing="native", jitter=0.1)],
)
def test_pictures_are_varied_as_was_chosen(folder, choices):
    first, again = (events(job(folder, choices=choices, out=name)) for name in "ab")
    assert first[-1].value.loss == again[-1].value.loss
    assert first[-1].value.loss != events(job(folder, out="c"))[-1].value.loss
    assert math.isfinite(first[-1].value.held_out)


def test_mirroring_alone_is_done_by_the_trainer_where_the_pictures_lie(folder, home):
    events(job(folder, choices=Choices(flips=True)))
    assert begun(home / "models" / "mine").plan.flips
    assert read_recipe(home / "models" / "mine").choices.flips


def test_fine_tuning_begins_with_what_the_model_makes(folder, tiny):
    told = events(job(folder, plan={"start": tiny, "rate": 1e-4}))
    before = of(Sheet, told)[0]
    score = Shelf().load(tiny)
    assert before.step == 0
    assert before.pictures.shape[1:] == score.shape[1:] + score.shape[:1]
    assert told[-1].value.classes == ()


# -- what is sent ---------------------------------------------------------------------------------


def test_a_sheet_and_a_save_may_be_asked_for(folder):
    told = sent(job(folder, sample_every=0), {2: SampleNow(), 4: SaveNow()})
    assert [s.step for s in of(Sheet, told)] == [2]
    place = told.index(of(Sheet, told)[0])
    assert of(Progress, told[:place])[-1].step == 2  # at once, not after another step
    saved = [told.index(s) for s in of(Saved, told)]
    assert of(Progress, told[: saved[0]])[-1].step == 4


def test_asked_to_stop_it_saves_and_tells_what_it_came_to(folder, home):
    told = sent(job(folder), {2: StopNow()})
    result = told[-1].value
    assert (result.step, result.stopped) == (3, True)
    assert native.read_info(home / "models" / "mine" / "model.safetensors").steps == 3


def test_what_is_discarded_leaves_nothing(folder, home):
    told = sent(job(folder, save_seconds=0.0), {4: Discard()})
    assert not of(Done, told)
    assert not (home / "models" / "mine").exists()
    assert folder.exists()


def test_a_discarded_run_leaves_what_is_not_its_own(folder, tmp_path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "letter.txt").write_text("dear")
    sent(job(folder, out=str(place), save_seconds=0.0), {3: Discard()})
    assert [p.name for p in place.iterdir()] == ["letter.txt"]


def test_a_model_that_is_there_is_not_trained_over(folder, home, tiny):
    before = (home / "models" / tiny / "model.safetensors").read_bytes()
    with pytest.raises(SpecError, match="is a model already"):
        events(job(folder, out=tiny))
    assert (home / "models" / tiny / "model.safetensors").read_bytes() == before


def test_a_card_that_a_person_wrote_outlives_the_run(folder, home):
    place = home / "models" / "mine"
    place.mkdir(parents=True)
    (place / "card.md").write_text("dear reader")
    sent(job(folder), {2: Discard()})
    assert (place / "card.md").read_text() == "dear reader"


def test_a_message_during_the_first_samples_is_heard(folder, home):
    run = job(folder).run(setting())
    while not isinstance(next(run), Metric):
        pass
    with pytest.raises(StopIteration):
        while True:
            run.send(Discard())
    assert not (home / "models" / "mine").exists()


def test_closing_saves(folder, home):
    run = job(folder).run(setting())
    while not (isinstance(event := next(run), Progress) and event.step == 4):
        pass
    run.close()
    place = home / "models" / "mine"
    assert begun(place).step == 4
    assert "| steps | 4 |" in (place / "card.md").read_text()


def test_a_run_that_is_left_before_its_first_step_leaves_nothing(folder, home):
    run = job(folder).run(setting())
    while not isinstance(next(run), Sheet):
        pass
    run.close()
    assert not (home / "models" / "mine").exists()


def test_other_work_goes_on_while_a_training_is_held(folder, tiny):
    async def both():
        engine = Engine(Setting(Shelf(), "cpu"))
        training = engine.start(job(folder, plan={"steps": 10_000}, sample_every=0))
        async for event in training:
            if isinstance(event, Progress) and event.step == 2:
                training.pause()
                break
        done = [e async for e in engine.start(SampleJob(model=tiny, count=1))]
        training.send(SampleNow())
        training.step()
        drawn = False
        async for event in training:
            drawn |= isinstance(event, Sheet)
            if drawn:
                training.stop()
        await engine.close()
        return done[-1].pictures, drawn

    pixels, drawn = asyncio.run(both())
    assert pixels.shape == (1, 8, 8, 3)
    assert drawn


# -- going on -------------------------------------------------------------------------------------


def losses_of(place):
    with (place / "log.csv").open() as file:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)}


def test_a_run_is_found_again_and_goes_on_with_its_curves_and_sheets(folder, home):
    sent(job(folder), {3: StopNow()})
    (found,) = train_jobs.runs()
    assert (found.name, found.step, found.total, found.resumable) == ("mine", 4, 6, True)
    assert found.data == str(folder)
    assert found.loss == pytest.approx(losses_of(found.folder)[4])
    kept = train_jobs.sheets(found.folder)
    assert [s.step for s in kept] == [0, 3]
    again = train_jobs.resumed(found.folder)
    assert (again.plan, again.choices, again.sample_every) == (PLAN, Choices(), 3)
    told = events(replace(again, save_seconds=1e9))
    assert told[0] == Note("Resuming “mine” at step 4")
    first = of(Metric, told)[0]
    assert (first.name, first.points[-1][0]) == ("loss", 4)
    assert [s.step for s in of(Sheet, told)] == [6]
    result = told[-1].value
    assert (result.before.step, result.resumed_at, result.step) == (0, 4, 6)
    assert not train_jobs.runs()[0].resumable  # it has come to its end


def test_sheets_come_back_from_the_disk_as_they_were(folder, home):
    shown = of(Sheet, events(job(folder)))
    kept = train_jobs.sheets(home / "models" / "mine")
    assert [s.step for s in kept] == [s.step for s in shown]
    for was, sheet in zip(shown, kept):
        np.testing.assert_array_equal(sheet.pictures, was.pictures)
        np.testing.assert_array_equal(sheet.nearest, was.nearest)
        np.testing.assert_allclose(sheet.distance, was.distance, atol=0.001)
        assert sheet.memorised == pytest.approx(was.memorised, abs=1e-4)


@pytest.mark.parametrize(
    "raw", ["", "{}", "[1]", '[{"step": "a"}]', '[{"step": 3, "shape": [1, 9e9]}]']
)
def test_damaged_sheets_are_left_out(folder, home, raw):
    events(job(folder))
    place = home / "models" / "mine"
    (place / "samples" / "index.json").write_text(raw)
    assert train_jobs.sheets(place) == []


def test_a_lost_picture_costs_its_sheet_only(folder, home):
    events(job(folder))
    place = home / "models" / "mine"
    (place / "samples" / "step-000003.png").write_bytes(b"no picture")
    assert [s.step for s in train_jobs.sheets(place)] == [0, 6]
    assert sheets.last_sheet(place).step == 6


def test_the_shelf_shows_what_was_drawn_last(folder, home):
    shown = of(Sheet, events(job(folder)))[-1]
    strip = kept_strip(Shelf().find("mine"))
    np.testing.assert_array_equal(strip, shown.pictures[:4])


def test_a_run_whose_pictures_are_gone_cannot_go_on(folder, home, tmp_path):
    sent(job(folder), {3: StopNow()})
    folder.rename(tmp_path / "moved")
    (found,) = train_jobs.runs()
    assert not found.resumable
    with pytest.raises(DataError, match="are gone"):
        train_jobs.resumed(found.folder)


def test_damaged_runs_are_passed_over(folder, home):
    sent(job(folder), {3: StopNow()})
    other = home / "models" / "other"
    other.mkdir()
    (other / "resume.safetensors").write_bytes(b"nonsense")
    assert [r.name for r in train_jobs.runs()] == ["mine"]


def test_recipes_of_before_are_read(tmp_path):
    path = REPOSITORY / "checkpoints" / "critters-32" / "recipe.json"
    recipe = read_recipe(path)
    assert (recipe.plan.steps, recipe.plan.ema_lengths, recipe.data) == (13200, (), "")
    assert recipe.choices.held_out == 0
    assert read_recipe(path.parent) == recipe
    with pytest.raises(DataError, match="does not say"):
        train_jobs.resumed(path.parent)


def test_recipes_come_back(tmp_path):
    recipe = Recipe(replace(PLAN, start="a", train="adapters"), Choices(turns=True), "/x", 5, 7)
    write_recipe(tmp_path, recipe)
    assert read_recipe(tmp_path) == recipe == read_recipe(tmp_path / "recipe.json")


@pytest.mark.parametrize(
    "raw",
    ["", "[]", '{"plan": 3}', '{"plan": {"steps": "x"}}', '{"plan": {}, "other": 1}', "{" * 9999],
)
def test_recipes_that_mean_nothing_are_refused(tmp_path, raw):
    (tmp_path / "recipe.json").write_text(raw)
    with pytest.raises(DataError, match="no recipe"):
        read_recipe(tmp_path)


def test_a_run_of_before_goes_on_with_all_its_pictures(folder, home):
    """Its resume file has no averages of other lengths, and nothing was held out."""
    place = home / "models" / "mine"
    events(job(folder, plan={"ema_lengths": (), "steps": 3}, choices=Choices(held_out=0.0)))
    old = spec.to_dict(replace(PLAN, steps=3))
    for name in ("train", "rank", "last", "checkpointing", "ema_lengths"):
        del old[name]
    (place / "recipe.json").write_text(json.dumps(old))
    told = events(job(folder))
    assert told[-1].value.step == 6
    assert told[-1].value.held == 0
    assert not (place / "averages").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(folder, home, tmp_path):
    """A real kill -9 of a process, somewhere in its work: the losses after are those of a run that was
    never interrupted."""
    script = (
        "import sys; import torch; torch.set_num_threads(1)\n"
        "from studio.engine import training_run\n"
        "plain = training_run.train\n"
        "def told(*a):\n"
        "    for step in plain(*a):\n"
        "        if step.loss == step.loss: print(step.step, step.loss, flush=True)\n"
        "        yield step\n"
        "training_run.train = told\n"
        "from studio.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["train", str(folder), "--size", "8", "--channels", "8", "16", "--blocks", "1", "1"]
    words += ["--embedding", "16", "--patch", "1", "--top", "0", "--batch", "8", "--flips"]
    words += ["--precision", "fp32", "--device", "cpu", "--steps", "60", "--save-seconds", "0.2"]
    words += ["--sample-every", "25", "--dropout", "0.1"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def start(out):
        command = [sys.executable, "-c", script, *words, "--out", out]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def read(process):
        said, _ = process.communicate()
        lines = [line.split() for line in said.splitlines()]
        return {int(line[0]): float(line[1]) for line in lines if len(line) == 2}

    whole = start("whole")
    wanted = read(whole)
    assert whole.returncode == 0
    assert len(wanted) == 60
    killed = start("parts")
    first = {}
    resume = home / "models" / "parts" / "resume.safetensors"
    for line in killed.stdout:
        step, loss = line.split()
        first[int(step)] = float(loss)
        if int(step) >= 20 and resume.exists():
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.stdout.close()
    killed.wait()
    saved = begun(home / "models" / "parts").step
    assert 0 < saved <= max(first)
    again = start("parts")
    second = read(again)
    assert again.returncode == 0
    assert min(second) == saved + 1
    for step, loss in (first | second).items():
        assert loss == pytest.approx(wanted[step], rel=1e-4), step


# -- what goes wrong ------------------------------------------------------------------------------


def test_a_run_that_falls_is_put_back_and_says_so(folder, monkeypatch):
    from studio.training.trainer import Trainer

    plain, spoilt = Trainer.advance, []

    def advance(trainer):
        if trainer.step == 4 and not spoilt:
            spoilt.append(True)
            trainer.net.head.weight.data.fill_(math.nan)
        return plain(trainer)

    monkeypatch.setattr(Trainer, "advance", advance)
    told = events(job(folder, save_seconds=0.0))
    (back,) = of(RolledBack, told)
    assert (back.step, back.rate) == (4, pytest.approx(PLAN.rate / 2))
    assert back.reason == "The loss was not a number."
    assert told[-1].value.step == 6


def test_a_full_disk_is_said_and_the_run_goes_on(folder, home, monkeypatch):
    from studio.training.trainer import Trainer

    plain, full = Trainer.save, [True]

    def save(trainer):
        if full[0]:
            raise SaveError("There is no room.", "Free some.")
        return plain(trainer)

    monkeypatch.setattr(Trainer, "save", save)
    told = []
    for event in job(folder, save_seconds=0.0).run(setting()):
        told.append(event)
        full[0] = sum("no room" in n.text for n in of(Note, told)) < 9
    assert told[-1].value.step == 6
    assert native.read_info(home / "models" / "mine" / "model.safetensors").steps == 6


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(folder, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SaveError):
        next(job(folder, out=str(tmp_path / "file" / "x")).run(setting()))


@pytest.mark.parametrize("out", ["", ".x", "a\nb"])
def test_names_that_are_none_are_refused(folder, out):
    with pytest.raises(SpecError):
        events(job(folder, out=out))


# -- checking -------------------------------------------------------------------------------------


def test_a_plan_is_checked_without_leaving_anything(folder, home, tiny):
    there = sorted(p.name for p in (home / "models").iterdir())
    told = list(CheckPlan(str(folder), replace(PLAN, start=tiny)).run(setting()))
    found = told[-1].value
    assert isinstance(found, Checked)
    assert found.seconds_per_step > 0
    assert found.seconds >= PLAN.steps * found.seconds_per_step
    assert sorted(p.name for p in (home / "models").iterdir()) == there


def test_the_time_of_samples_is_not_counted_as_training(folder, monkeypatch):
    told = events(job(folder))
    paced = [p for e in of(Metric, told) if e.name == "pace" for p in e.points]
    assert paced
    assert all(pace > 0 for _, pace in paced)
    assert of(Progress, told)[-1].seconds <= time.process_time() + 60


def test_a_pack_may_be_learned_from(home, tmp_path, folder):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    raw = lzma.compress(pixels.tobytes())
    np.savez(
        tmp_path / "some.npz",
        meta=json.dumps({"count": 30, "height": 8, "width": 8, "channels": 3, "codec": "xz"}),
        blob=np.frombuffer(raw, np.uint8),
        offsets=np.array([0, len(raw)]),
        counts=np.array([30]),
        labels=np.full(30, -1),
    )
    told = events(job(tmp_path / "some.npz"))
    assert told[-1].value.pictures == 30


def test_a_pack_that_measures_is_not_learned_from(tmp_path):
    with pytest.raises(DataError, match="there to measure with"):
        list(job(tmp_path / "critters64-test.npz").run(setting()))
