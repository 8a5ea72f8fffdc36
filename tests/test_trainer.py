"""Training learns, stops, goes on as if nothing had happened, and never spoils what is saved."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_network

from studio.diffusion.objectives import OBJECTIVES
from studio.diffusion.predictors import DPM2M
from studio.diffusion.score import OUTPUTS, expand
from studio.diffusion.sde import SDES, VESDE, VPSDE
from studio.diffusion.stepping import PredictorCorrector
from studio.errors import DataError, SaveError, SpecError, StudioError
from studio.training.data import Pictures
from studio.training.draws import Draws
from studio.training.loop import Guard, train
from studio.training.plan import Training
from studio.training.trainer import RESUME, Trainer
from studio.weights import formats
from studio.weights.formats.native import WEIGHTS, read_info

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = Training(
    size=8,
    channels=(8, 16),
    blocks=(1, 1),
    embedding=16,
    patch=1,
    top=0,
    steps=12,
    batch=8,
    warmup=2,
    rate=2e-3,
    ema=0.9,
    precision="fp32",
    seed=3,
)


def some_pictures(count=20, classes=()):
    """Each picture has one grey of its own, left half darker."""
    rng = np.random.default_rng(0)
    pixels = np.empty((count, 8, 8, 3), np.uint8)
    pixels[:] = rng.choice(np.arange(120, 250), (count, 1, 1, 1), replace=False)
    pixels[:, :, :4] -= 100
    labels = np.arange(count) % len(classes) if classes else np.full(count, -1)
    return Pictures(pixels, labels.astype(np.int64), classes)


def losses(trainer, **options):
    return [step.loss for step in train(trainer, **options) if not math.isnan(step.loss)]


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def weights(trainer):
    return {k: v.clone() for k, v in trainer.net.state_dict().items()}


def test_a_tiny_plan_learns(tmp_path):
    plan = replace(TINY, steps=150, batch=16)
    seen = losses(Trainer(plan, some_pictures(), tmp_path))
    assert len(seen) == 150
    assert np.mean(seen[-30:]) < 0.7 * np.mean(seen[:10])


@pytest.mark.parametrize("output", list(OUTPUTS))
@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_every_output_and_objective_can_be_trained(tmp_path, output, objective):
    chosen = {"output": OUTPUTS[output](), "objective": OBJECTIVES[objective]()}
    plan = replace(TINY, steps=2, sde=VESDE(sigma_max=10.0), **chosen)
    assert all(map(math.isfinite, losses(Trainer(plan, some_pictures(), tmp_path))))


def test_the_same_plan_gives_the_same_weights(tmp_path):
    runs = [Trainer(TINY, some_pictures(), tmp_path / name) for name in "ab"]
    assert losses(runs[0]) == losses(runs[1])
    first, second = (weights(run) for run in runs)
    assert all(torch.equal(v, second[k]) for k, v in first.items())


@pytest.mark.parametrize("changes", [{}, {"flips": True}, {"accumulate": 2}, {"dropout": 0.3}])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tmp_path, changes):
    plan, data = replace(TINY, **changes), some_pictures(classes=("a", "b"))
    whole = Trainer(plan, data, tmp_path / "whole")
    wanted = losses(whole)
    run, seen = train(Trainer(plan, data, tmp_path / "parts")), []
    for step in run:
        seen.append(step.loss)
        if step.step == 5:
            break
    run.close()
    torch.manual_seed(99)  # what other work does to the world's dice must not matter
    resumed = Trainer(plan, data, tmp_path / "parts")
    assert resumed.step == 5
    seen += losses(resumed)
    assert seen == pytest.approx(wanted, rel=1e-4)
    for name, value in weights(resumed).items():
        torch.testing.assert_close(value, weights(whole)[name], rtol=1e-3, atol=1e-5)
    for name, value in resumed.ema.shadow.items():
        torch.testing.assert_close(value, whole.ema.shadow[name], rtol=1e-3, atol=1e-5)


def test_closing_a_run_saves_it(tmp_path):
    run = train(Trainer(TINY, some_pictures(), tmp_path))
    next(run)
    assert not (tmp_path / WEIGHTS).exists()
    run.close()
    assert read_info(tmp_path / WEIGHTS).steps == 1
    assert (tmp_path / RESUME).exists()


def test_a_run_saves_on_its_way_and_says_so(tmp_path):
    steps = list(train(Trainer(TINY, some_pictures(), tmp_path), save_seconds=0.0))
    assert all(step.saved == tmp_path / WEIGHTS for step in steps)
    assert [s.step for s in steps] == list(range(1, TINY.steps + 1))


def test_a_finished_runs_files_open_as_a_model(tmp_path):
    trainer = Trainer(TINY, some_pictures(classes=("a", "b")), tmp_path / "mine")
    *_, last = train(trainer)
    assert last.saved == tmp_path / "mine" / WEIGHTS
    info = read_info(last.saved)
    assert (info.steps, info.size, info.classes) == (TINY.steps, 8, ("a", "b"))
    score = formats.open_model(last.saved).score()
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.2, 0.8])
    preview = trainer.score()(x, t)
    torch.testing.assert_close(score(x, t), preview, rtol=0.02, atol=0.02)  # kept as half
    assert list(train(Trainer(TINY, some_pictures(classes=("a", "b")), tmp_path / "mine"))) == []


def test_a_longer_plan_goes_on_from_a_finished_one(tmp_path):
    list(train(Trainer(TINY, some_pictures(), tmp_path)))
    longer = Trainer(replace(TINY, steps=15, rate=1e-3), some_pictures(), tmp_path)
    assert longer.step == 12
    assert len(losses(longer)) == 3


@pytest.mark.parametrize(
    "changes",
    [{"seed": 4}, {"sde": VESDE()}, {"channels": (8, 24)}, {"batch": 16}, {"ema": 0.5}],
)
def test_a_changed_plan_is_refused(tmp_path, changes):
    list(train(Trainer(replace(TINY, steps=1), some_pictures(), tmp_path)))
    with pytest.raises(SpecError, match="another plan"):
        Trainer(replace(TINY, **changes), some_pictures(), tmp_path)


@pytest.mark.parametrize("classes", [(), ("a", "c"), ("a", "b", "c")])
def test_other_classes_than_the_run_began_with_are_refused(tmp_path, classes):
    list(train(Trainer(replace(TINY, steps=1), some_pictures(classes=("a", "b")), tmp_path)))
    with pytest.raises(DataError, match="other classes: a, b"):
        Trainer(TINY, some_pictures(classes=classes), tmp_path)


def test_a_damaged_resume_file_is_refused_in_words(tmp_path):
    list(train(Trainer(replace(TINY, steps=1), some_pictures(), tmp_path)))
    whole = (tmp_path / RESUME).read_bytes()
    for raw in (b"", b"nonsense" * 9, whole[: len(whole) // 2]):
        (tmp_path / RESUME).write_bytes(raw)
        with pytest.raises(StudioError):
            Trainer(TINY, some_pictures(), tmp_path)
    (tmp_path / RESUME).write_bytes((tmp_path / WEIGHTS).read_bytes())
    with pytest.raises(DataError, match="resumed"):
        Trainer(TINY, some_pictures(), tmp_path)


def test_a_loss_that_is_no_number_leaves_the_last_save(tmp_path):
    trainer = Trainer(TINY, some_pictures(), tmp_path)
    run = train(trainer, save_seconds=0.0)
    next(run)
    kept = files(tmp_path)
    with torch.no_grad():
        trainer.net.head.weight.fill_(math.nan)
    with pytest.raises(StudioError, match="not a number") as caught:
        next(run)
    assert "learning rate" in caught.value.hint
    assert files(tmp_path) == kept


def spoil(trainer):
    with torch.no_grad():
        trainer.net.head.weight.fill_(math.nan)


def test_a_guarded_run_goes_back_to_its_last_save_with_half_the_rate(tmp_path):
    trainer = Trainer(TINY, some_pictures(), tmp_path)
    run = train(trainer, save_seconds=0.0, guard=Guard(trainer))
    for _ in range(4):
        next(run)
    good = weights(trainer)
    spoil(trainer)
    fell = next(run)
    assert (fell.step, fell.back.eased) == (4, 0.5)
    assert "not a number" in fell.back.reason
    assert math.isnan(fell.loss)
    assert all(torch.equal(v, good[k]) for k, v in weights(trainer).items())
    assert next(run).step == 5
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(TINY.rate / 2)
    run.close()
    again = Trainer(TINY, some_pictures(), tmp_path)
    assert (again.step, again.eased) == (5, 0.5)


def test_a_run_that_was_never_saved_goes_back_to_its_average(tmp_path):
    trainer = Trainer(TINY, some_pictures(), tmp_path)
    run = train(trainer, guard=Guard(trainer))
    for _ in range(3):
        next(run)
    average = {k: v.clone() for k, v in trainer.ema.shadow.items()}
    spoil(trainer)
    assert next(run).back is not None
    assert all(torch.equal(v, average[k]) for k, v in weights(trainer).items())
    assert math.isfinite(next(run).loss)


def test_a_run_that_falls_again_and_again_ends_with_what_to_do(tmp_path):
    trainer = Trainer(TINY, some_pictures(), tmp_path)
    run = train(trainer, save_seconds=0.0, guard=Guard(trainer))
    next(run)
    kept = files(tmp_path)
    falls = 0
    with pytest.raises(StudioError, match=r"cannot get past step 1, tried 5 times") as caught:
        while True:
            spoil(trainer)
            falls += next(run).back is not None
    assert falls == 4
    assert "learning rate" in caught.value.hint
    assert files(tmp_path) == kept


class Losses:
    """A run whose losses are given."""

    def __init__(self, values):
        self.values, self.step, self.eased, self.stopping = list(values), 0, 1.0, False
        self.plan = replace(TINY, steps=len(self.values))

    def advance(self):
        self.step += 1
        return torch.tensor(self.values[self.step - 1])

    def save(self):
        return Path("nowhere")

    def back(self):
        self.step, self.eased = self.step - 20, self.eased / 2
        self.values[self.step :] = [1.0] * (len(self.values) - self.step)
        return self.eased


def backs(values):
    run = Losses(values)
    return [step.back for step in train(run, 1e9, Guard(run)) if step.back]


def usual(count, mean=1.0):
    rng = np.random.default_rng(0)
    return list(mean + 0.15 * rng.normal(size=count))


def test_a_spike_of_the_loss_puts_the_run_back():
    (back,) = backs(usual(200) + [8.0] * 100)
    assert back.eased == 0.5
    assert "The loss rose from 0.9" in back.reason


@pytest.mark.parametrize(
    "values",
    [
        usual(300),
        [*usual(150), 50.0, *usual(150)],  # one batch is an accident
        list(np.geomspace(50, 0.3, 300)),  # as a run begins
        usual(300, mean=-2.0),  # sliced score matching has any sign
        list(1 + 0.8 * np.sin(np.arange(300) / 9)),
    ],
)
def test_losses_as_they_are_leave_a_run_alone(values):
    assert backs(values) == []


def test_what_is_trained_outlives_a_full_disk(tmp_path, monkeypatch):
    trainer = Trainer(TINY, some_pictures(), tmp_path)
    save, full = trainer.save, [True]

    def saving():
        if full[0]:
            raise SaveError("There is no room.", "Free some.")
        return save()

    monkeypatch.setattr(trainer, "save", saving)
    troubles, saved = [], []
    for step in train(trainer, save_seconds=0.0):
        troubles += [step.trouble] if step.trouble else []
        saved += [step.saved] if step.saved else []
        full[0] = len(troubles) < TINY.steps + 3  # also past the last step
    assert troubles[0] == "There is no room. Free some."
    assert len(troubles) == TINY.steps + 3
    assert saved == [tmp_path / WEIGHTS]
    assert read_info(saved[0]).steps == TINY.steps


def test_a_run_that_cannot_be_saved_says_so_when_it_is_left(tmp_path):
    plan, place = replace(TINY, steps=2), tmp_path / "file"
    place.write_text("no folder")
    with pytest.raises(SaveError):
        list(train(Trainer(plan, some_pictures(), place / "x"), save_seconds=0.0, patience=0.0))


def test_a_run_whose_folder_is_removed_makes_it_again(tmp_path):
    trainer = Trainer(TINY, some_pictures(), tmp_path / "run")
    run = train(trainer, save_seconds=0.0)
    next(run)
    shutil.rmtree(tmp_path / "run")
    next(run)
    run.close()
    assert Trainer(TINY, some_pictures(), tmp_path / "run").step == 2


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulating_gives_the_gradient_of_the_whole_batch(tmp_path, parts):
    """Every picture meets the same noise, however the batch is cut."""
    found = {}
    for count in (1, parts):
        plan = replace(TINY, batch=48, accumulate=count, clip=1e6, flips=True)
        trainer = Trainer(plan, some_pictures(64), tmp_path / str(count))

        def remember(net=trainer.net, count=count):
            grads = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
            found[count] = torch.cat(grads).clone()

        trainer.optimizer.step = remember
        trainer.advance()
    torch.testing.assert_close(found[parts], found[1], rtol=1e-3, atol=1e-5)


def test_the_rate_warms_up_stays_and_cools_down(tmp_path):
    plan = replace(TINY, steps=10, warmup=4, cooldown=0.3, rate=1e-2)
    trainer, rates = Trainer(plan, some_pictures(), tmp_path), []
    for _ in train(trainer):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    wanted = [1 / 4, 2 / 4, 3 / 4, 1, 1, 1, 1, 1, 2 / 3, 1 / 3]
    assert rates[:10] == pytest.approx([1e-2 * share for share in wanted])


def test_the_average_is_kept_up_with_every_step(tmp_path):
    trainer = Trainer(TINY, some_pictures(), tmp_path)
    before = weights(trainer)
    trainer.advance()
    for name, value in weights(trainer).items():
        wanted = torch.lerp(before[name], value, 1 - 2 / 11)  # (1 + n) / (10 + n) at n = 1
        torch.testing.assert_close(trainer.ema.shadow[name], wanted)


def batch_of(trainer):
    batch = trainer.plan.batch
    return trainer.batch(range(batch), Draws(trainer.plan.seed, trainer.step, batch))


def test_flips_show_pictures_and_their_mirrors(tmp_path):
    trainer = Trainer(replace(TINY, flips=True, batch=16), some_pictures(), tmp_path)
    x, _ = batch_of(trainer)
    darker_left = x[:, 0, 0, 0] < x[:, 0, 0, 7]
    assert 0 < int(darker_left.sum()) < 16
    plain, _ = batch_of(Trainer(replace(TINY, batch=16), some_pictures(), tmp_path))
    assert bool((plain[:, 0, 0, 0] < plain[:, 0, 0, 7]).all())


def test_labels_stay_with_their_pictures_and_some_are_left_out(tmp_path):
    data = some_pictures(classes=("a", "b"))
    shade = {int(p[0, 0, 0]): int(y) for p, y in zip(data.pixels, data.labels)}
    trainer = Trainer(replace(TINY, batch=20, label_dropout=0.3), data, tmp_path)
    x, y = batch_of(trainer)
    shown = ((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    kept = [(s, label) for s, label in zip(shown, y.tolist()) if label >= 0]
    assert 5 < len(kept) < 20
    assert all(shade[s] == label for s, label in kept)


def test_an_epoch_shows_every_picture_once(tmp_path):
    data = some_pictures(12)
    data.pixels[:, 0, 0, 0] = np.arange(12)
    trainer = Trainer(replace(TINY, batch=4), data, tmp_path)
    epochs = []
    for step in range(6):
        trainer.step = step
        x, _ = batch_of(trainer)
        epochs += ((x[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
    assert sorted(epochs[:12]) == sorted(epochs[12:]) == list(range(12))
    assert epochs[:12] != epochs[12:]


@pytest.mark.parametrize(
    "changes",
    [{"batch": 0}, {"batch": 9, "accumulate": 2}, {"rate": 0.0}, {"rate": math.nan}, {"clip": 0.0}],
)
def test_plans_that_make_no_sense_are_refused(tmp_path, changes):
    with pytest.raises(SpecError):
        Trainer(replace(TINY, **changes), some_pictures(), tmp_path)


@pytest.mark.parametrize("changes", [{"channels": (8,)}, {"size": 9}, {"top": 8}])
def test_networks_that_cannot_be_built_are_refused(tmp_path, changes):
    with pytest.raises(StudioError):
        Trainer(replace(TINY, **changes), some_pictures(), tmp_path)


def test_one_picture_is_too_few(tmp_path):
    with pytest.raises(DataError, match="two pictures"):
        Trainer(TINY, some_pictures(1), tmp_path)


# -- what is learned ----------------------------------------------------------------------------


@pytest.mark.parametrize("sde", list(SDES))
@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_training_times_lie_where_the_sde_lives(sde, objective):
    sde, objective = SDES[sde](), OBJECTIVES[objective]()
    u = torch.linspace(1e-7, 1 - 1e-7, 1001)
    t = objective.times(u, sde)
    assert float(t.min()) >= 1e-5 * (1 - 1e-6)
    assert float(t.max()) <= 1
    assert bool((t.diff() >= 0).all())
    assert bool(torch.isfinite(objective.weight(t, sde)).all())


def test_log_normal_levels_have_the_asked_mean_and_spread():
    objective, sde = OBJECTIVES["lognormal"](mean=-1.0, std=0.8), VPSDE()
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    levels = torch.log(sde.sigma(objective.times(u, sde)))
    assert float(levels.mean()) == pytest.approx(-1.0, abs=0.01)
    assert float(levels.std()) == pytest.approx(0.8, abs=0.01)


def test_log_normal_weighs_as_edm_does():
    """EDM: lambda = (sigma² + d²) / (sigma d)² on the error of D, which is sigma² that of z."""
    sde, d = VESDE(), 0.3
    t = torch.linspace(0.01, 1, 9, dtype=torch.float64)
    sigma = sde.sigma(t)
    wanted = sigma**2 * (sigma**2 + d**2) / (sigma * d) ** 2
    ours = OBJECTIVES["lognormal"](sigma_data=d).weight(t, sde)
    torch.testing.assert_close(ours, wanted)


@pytest.mark.parametrize("sde", list(SDES))
def test_the_loss_of_a_network_that_knows_nothing_is_the_weight(sde):
    """A network that answers "no noise" errs by |z|² = 1 per value, times the weight."""
    sde, objective = SDES[sde](), OBJECTIVES["lognormal"]()
    x = torch.zeros(64, 3, 16, 16)
    loss, t = objective.loss(
        lambda x, label, y: torch.zeros_like(x),
        OUTPUTS["noise"](),
        sde,
        x,
        None,
        torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(loss, objective.weight(t, sde), rtol=0.25, atol=0)
    assert float((loss / objective.weight(t, sde)).mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("sde", list(SDES))
def test_the_exact_score_has_the_least_loss(sde):
    """Denoising score matching is minimal at the true score: shrinking or stretching it costs."""
    sde, std = SDES[sde](), 0.5
    x = torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * std

    def loss(factor):
        def net(unit, label, y):
            sigma = expand(torch.exp(4 * label), unit)
            noisy = unit * torch.sqrt(std**2 + sigma**2)
            return factor * noisy * sigma / (std**2 + sigma**2)

        return (
            OBJECTIVES["lognormal"]()
            .loss(
                net,
                OUTPUTS["noise"](sigma_data=std),
                sde,
                x,
                None,
                torch.Generator().manual_seed(2),
            )[0]
            .mean()
        )

    assert float(loss(1.0)) < min(float(loss(0.9)), float(loss(1.1)))


@pytest.mark.slow
def test_a_trained_model_samples_what_it_was_shown(tmp_path):
    """Two flat greys: after a short training the samples are near one or the other."""
    pixels = np.full((32, 8, 8, 3), 60, np.uint8)
    pixels[16:] = 190
    data = Pictures(pixels, np.full(32, -1, np.int64))
    trainer = Trainer(replace(TINY, steps=500, batch=32, ema=0.98), data, tmp_path)
    list(train(trainer))
    from conftest import noise_for

    score = trainer.score()
    sampler = PredictorCorrector(steps=30, predictor=DPM2M())
    *_, last = sampler.run(score, noise_for(sampler, score, count=16))
    means = (last.denoised.flatten(1).mean(1) + 1) * 127.5
    nearest = torch.minimum((means - 60).abs(), (means - 190).abs())
    assert float(nearest.median()) < 20
    assert 0 < int((means > 125).sum()) < 16


# -- from a model that is there -----------------------------------------------------------------


def test_a_run_may_start_from_any_model(tmp_path, tiny_checkpoint):
    start = formats.open_model(tiny_checkpoint)
    plan = replace(TINY, start="tiny", steps=3, rate=1e-4)
    trainer = Trainer(plan, some_pictures(), tmp_path / "fine", start=start)
    assert all(torch.equal(v, tiny_network().state_dict()[k]) for k, v in weights(trainer).items())
    assert all(math.isfinite(loss) for loss in losses(trainer))
    tuned = formats.open_model(tmp_path / "fine")
    assert (tuned.info.options, tuned.info.classes) == (start.info.options, ("cat", "dog"))
    assert tuned.info.steps == 3


def test_a_run_from_a_model_resumes_without_that_model(tmp_path, tiny_checkpoint):
    start = formats.open_model(tiny_checkpoint)
    plan = replace(TINY, start="tiny", steps=4)
    whole = Trainer(plan, some_pictures(), tmp_path / "whole", start=start)
    losses(whole)
    losses(
        Trainer(
            replace(plan, steps=2, cooldown=0.0), some_pictures(), tmp_path / "parts", start=start
        )
    )
    again = Trainer(plan, some_pictures(), tmp_path / "parts")
    assert again.step == 2
    assert replace(again.info, steps=0) == whole.info


def test_grey_pictures_teach_a_colour_model(tmp_path, tiny_checkpoint):
    colour = some_pictures()
    grey = replace(colour, pixels=colour.pixels[..., :1])
    trainer = Trainer(
        replace(TINY, start="tiny", steps=1),
        grey,
        tmp_path / "fine",
        start=formats.open_model(tiny_checkpoint),
    )
    assert all(map(math.isfinite, losses(trainer)))


def test_a_model_grows_to_twice_its_size_and_goes_on(tmp_path):
    small = replace(TINY, patch=2, top=4, steps=2)
    train_to_end(Trainer(small, some_pictures(), tmp_path / "small"))
    start = formats.open_model(tmp_path / "small")
    pixels = np.repeat(np.repeat(some_pictures().pixels, 2, 1), 2, 2)
    large = replace(small, start="small", size=16, network="grown", steps=4)
    trainer = Trainer(large, Pictures(pixels, np.full(20, -1)), tmp_path / "large", "cpu", start)
    for name, value in start.network().state_dict().items():
        torch.testing.assert_close(trainer.net.inner.state_dict()[name], value)
    train_to_end(trainer)
    assert formats.open_model(tmp_path / "large").info.shape == (3, 16, 16)
    again = Trainer(large, Pictures(pixels, np.full(20, -1)), tmp_path / "large")
    assert again.step == 4


@pytest.mark.parametrize(
    ("size", "patch", "start"), [(24, 2, "small"), (16, 1, "small"), (16, 2, "")]
)
def test_what_cannot_grow_is_refused(size, patch, start, tmp_path):
    small = replace(TINY, patch=patch, top=4 if patch > 1 else 0, steps=1)
    train_to_end(Trainer(small, some_pictures(), tmp_path / "small"))
    opened = formats.open_model(tmp_path / "small") if start else None
    large = replace(small, start=start, size=size, network="grown")
    pictures = Pictures(np.zeros((4, size, size, 3), np.uint8), np.full(4, -1))
    with pytest.raises(SpecError, match="grow"):
        Trainer(large, pictures, tmp_path / "large", "cpu", opened)


def test_a_model_can_be_trained_on_for_another_noising(tmp_path):
    train_to_end(Trainer(replace(TINY, steps=1), some_pictures(), tmp_path / "vp"))
    start = formats.open_model(tmp_path / "vp")
    plan = replace(TINY, start="vp", sde=VESDE(sigma_max=20.0), steps=1)
    trainer = Trainer(plan, some_pictures(), tmp_path / "ve", "cpu", start)
    assert trainer.info.sde == VESDE(sigma_max=20.0)
    same = Trainer(replace(TINY, start="vp"), some_pictures(), tmp_path / "same", "cpu", start)
    assert same.info.sde == VPSDE()


def train_to_end(trainer):
    for _ in train(trainer):
        pass
