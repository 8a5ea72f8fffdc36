"""What is known of a picture by measuring it: put back or guided to, alone and together."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
from conftest import (
    REPOSITORY,
    build,
    every_sde,
    gaussian_score,
    mixture_score,
    noise_for,
    steps_of,
    tiny_network,
)

from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.conditions import (
    FREE,
    All,
    Changing,
    ClassifierGuidance,
    ClassLabel,
    Condition,
    Meter,
    NoisyClassifier,
    Travel,
)
from studio.diffusion.linear import Blocks, Blur, Coordinates
from studio.diffusion.measured import PosteriorSampling, PseudoinverseGuidance, Replacement
from studio.diffusion.noise import Noise
from studio.diffusion.score import OUTPUTS, network_score
from studio.diffusion.sde import VPSDE
from studio.errors import SolverError, SpecError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (1, 4, 6)
VP = VPSDE()


def half(level=math.inf):
    """Coordinates of which the left half is known, the rest above a level."""
    until = torch.full((1, *SHAPE), level, dtype=torch.float64)
    until[..., :3] = 0
    return Coordinates(until)


def picture(seed=0, count=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64) * 1.6 - 0.8


def score(sde=VP):
    """Pictures of dark and bright values: a score with a curved density, so that nothing is affine."""
    return mixture_score(sde, (-0.6, 0.4), 0.15, (0.3, 0.7), SHAPE)


GUIDING = {
    "pigdm": PseudoinverseGuidance(half(), picture()),
    "pigdm-noise": PseudoinverseGuidance(half(), picture(), noise=0.1, weight=0.5),
    "pigdm-blur": PseudoinverseGuidance(Blur(0.8), picture(), noise=0.1),
    "pigdm-blocks": PseudoinverseGuidance(Blocks(2), picture()),
    "dps": PosteriorSampling(half(), picture()),
    "dps-blocks": PosteriorSampling(Blocks(2), picture(), rate=0.1),
}
every_guiding = pytest.mark.parametrize("condition", GUIDING.values(), ids=GUIDING)


def somewhere(sde=VP, count=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(0.05, 0.95, count, dtype=torch.float64)
    a, s = (v.reshape(-1, 1, 1, 1) for v in sde.marginal(t))
    z = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    return a * picture(seed + 1, count) + s * z, t


def last_of(sampler, condition, sde=VP, seed=0, count=3, of=None, **kw):
    of = of or score(sde)
    noise = noise_for(sampler, of, seed, count, dtype=torch.float64)
    *_, last = sampler.run(of, noise, condition, **kw)
    return last


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def counted(of, calls):
    def fn(x, t):
        calls.append(len(x))
        return of.fn(x, t)

    return replace(of, fn=fn)


# -- putting back ---------------------------------------------------------------------------------


@every_sde
def test_what_is_known_is_put_back_as_noised_as_the_rest(sde):
    noise = Noise.of(0, 200, SHAPE, sde, dtype=torch.float64)
    x, condition = torch.full((200, *SHAPE), 7.0).double(), Replacement(half(), picture())
    t = 0.6
    put = condition.constrain(x, t, sde, noise)
    assert torch.equal(put[..., 3:], x[..., 3:])
    a, s = (float(v) for v in sde.marginal(torch.tensor([t], dtype=torch.float64)))
    z = (put - a * picture())[..., :3] / s
    assert float(z.mean()) == pytest.approx(0, abs=4 / math.sqrt(z.numel()))
    assert float(z.std()) == pytest.approx(1, abs=4 / math.sqrt(2 * z.numel()))
    assert torch.equal(condition.constrain(x, t, sde, noise), put)
    assert not torch.equal(condition.constrain(x, 0.5, sde, noise), put)


STEPPING = [name for name in SAMPLERS if SAMPLERS[name].holds and name != "langevin"]


@pytest.mark.parametrize("sampler", STEPPING)
@pytest.mark.parametrize("operator", [half(), Blocks(2)], ids=["half", "blocks"])
def test_what_was_put_back_is_exact_in_the_end(sampler, operator):
    last = last_of(build(sampler, steps=6), Replacement(operator, picture()))
    found, wanted = operator.forward(last.x), operator.forward(picture())
    torch.testing.assert_close(found, wanted.expand_as(found), rtol=0, atol=1e-12)
    assert torch.equal(last.x, last.denoised)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if not SAMPLERS[name].holds])
def test_solvers_that_choose_their_steps_put_nothing_back(sampler):
    with pytest.raises(SpecError, match="cannot hold pixels"):
        last_of(build(sampler), Replacement(half(), picture()))


def test_a_value_held_down_to_a_level_is_let_go_there():
    until = torch.zeros(1, *SHAPE, dtype=torch.float64)
    until[..., 2:4], until[..., 4:] = 0.5, math.inf
    condition = Replacement(Coordinates(until), picture())
    noise = Noise.of(0, 2, SHAPE, VP, dtype=torch.float64)
    for step in build("dpm2m-sde", steps=40).run(score(), noise, condition):
        if not step.finished:
            put = condition.constrain(step.x, step.t, VP, noise)
            close(put, step.x)  # a step ends with what is known in place
            free = condition.constrain(torch.zeros_like(step.x), step.t, VP, noise) == 0
            sigma = float(VP.sigma(torch.tensor([step.t], dtype=torch.float64)))
            assert bool(free[..., 4:].all())
            assert bool(free[..., 2:4].all()) == (sigma < 0.5)
            assert not bool(free[..., :2].any())


@every_sde
def test_a_run_begins_where_there_is_something_to_find_out(sde):
    operator = half(0.5)
    begin = Replacement(operator, picture()).begin(sde)
    assert float(sde.sigma(torch.tensor([begin], dtype=torch.float64))) == pytest.approx(0.5)
    assert Replacement(half(), picture()).begin(sde) == 1
    assert PosteriorSampling(operator, picture()).begin(sde) == 1
    both = All((Replacement(half(), picture()), Replacement(operator, picture())))
    assert both.begin(sde) == begin
    chosen = build("dpm2m", steps=8)
    steps = steps_of(chosen, gaussian_score(sde, 0.5, SHAPE), count=1)
    run = chosen.run(score(sde), noise_for(chosen, score(sde)), Replacement(operator, picture()))
    assert next(run).t < begin < steps[0].t


def test_a_sketch_begins_as_the_noised_sketch():
    condition = Replacement(half(0.3), picture())
    states = []

    def watched(x, t):
        states.append((x, t))
        return score()(x, t)

    noise = Noise.of(0, 2, SHAPE, VP, dtype=torch.float64)
    next(build("dpm2m", steps=5).run(replace(score(), fn=watched), noise, condition))
    x, t = states[0]
    close(x, condition.constrain(torch.zeros_like(x), float(t[0]), VP, noise))


def test_pictures_of_another_size_are_refused():
    small = Replacement(half(), picture()[..., :2])
    with pytest.raises(SpecError, match="not of the size"):
        last_of(build("dpm2m", steps=3), small)


def test_a_blur_cannot_be_put_back():
    with pytest.raises(SpecError, match="blur"):
        Replacement(Blur(1.0), picture())


# -- guiding --------------------------------------------------------------------------------------


@every_guiding
def test_guidance_works_without_gradients_and_in_inference_mode(condition):
    x, t = somewhere()
    guided = condition.guide(score())
    wanted = guided(x, t)
    assert not torch.allclose(wanted, score()(x, t))
    with torch.no_grad():
        found = guided(x, t)
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted)
    with torch.inference_mode():
        torch.testing.assert_close(guided(x + 0, t + 0), wanted)
        again = last_of(build("dpm2m", steps=3), condition).x
    torch.testing.assert_close(again, last_of(build("dpm2m", steps=3), condition).x)


@every_guiding
def test_a_guided_score_does_not_depend_on_batch_mates_and_their_times(condition):
    x, t = somewhere()
    guided = condition.guide(score())
    whole = guided(x, t)
    for i in range(len(x)):
        torch.testing.assert_close(guided(x[i : i + 1], t[i : i + 1])[0], whole[i])


@every_guiding
def test_a_guided_score_can_be_differentiated(condition):
    """What the likelihood, or a condition outside of this one, needs: against differences."""
    (x, t), way = somewhere(count=3), picture(7, 3)
    guided = condition.guide(score())
    at = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(guided(at, t).sum(), at)
    h = 1e-5
    wanted = (guided(x + h * way, t) - guided(x - h * way, t)).sum((1, 2, 3)) / (2 * h)
    torch.testing.assert_close((slope * way).sum((1, 2, 3)), wanted, rtol=1e-5, atol=1e-5)


@every_guiding
def test_guidance_outside_of_guidance_sees_the_guided_estimate(condition):
    """One in the other is not the sum: the outer one pulls on what the inner one makes of D."""
    x, t = somewhere()
    outer = PseudoinverseGuidance(half(), -picture())
    inner = condition.guide(score())
    found = outer.guide(inner)(x, t)
    at = x.clone().requires_grad_()
    free = inner(at, t)
    clean = inner.tweedie(at, t, free)

    def pull(v):
        return torch.autograd.grad(clean, at, v, retain_graph=True)[0]

    wanted = free + outer.term(at, t, clean, pull, VP)
    torch.testing.assert_close(found, wanted.detach())


@every_guiding
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_guidance_keeps_the_precision_of_the_state(condition, dtype):
    x, t = somewhere()
    found = condition.guide(score())(x.to(dtype), t.to(dtype))
    assert found.dtype == dtype
    wanted = condition.guide(score())(x, t)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "sampler", ["pc", "heun", "adaptive", "rk45", "dpm2m-sde", "unipc", "sra1"]
)
@pytest.mark.parametrize("method", ["pigdm", "dps"])
def test_every_kind_of_sampler_is_guided_to_what_is_known(sampler, method):
    chosen = build(sampler, steps=40, rtol=0.1, atol=0.02)
    known = torch.full((1, *SHAPE), 0.4).double()  # a middle of the mixture: as if it were drawn
    condition = replace(GUIDING[method], picture=known)
    last = last_of(chosen, condition, count=4)
    assert float((last.x - known)[..., :3].abs().max()) < 0.03
    assert float(last.x[..., 3:].std()) > 0.3


def test_a_networks_gradient_guides_it():
    shape = (3, 8, 8)
    of = network_score(tiny_network(classes=0), OUTPUTS["edm"](), VP, shape)
    until = torch.full((1, *shape), math.inf)
    until[..., :4] = 0
    wanted = torch.full((1, *shape), 0.25)
    chosen = build("dpm2m", steps=20)
    noise = noise_for(chosen, of)
    off = []
    for condition in (FREE, PseudoinverseGuidance(Coordinates(until), wanted)):
        *_, last = chosen.run(of, noise, condition)
        off.append(float((last.x - wanted)[..., :4].abs().mean()))
    assert off[1] < 0.1 * off[0]


@pytest.mark.parametrize("kind", [PseudoinverseGuidance, PosteriorSampling])
def test_weight_nought_changes_nothing_and_twice_the_weight_adds_twice(kind):
    x, t = somewhere()
    free = score()(x, t)
    added = [kind(half(), picture(), weight=w).guide(score())(x, t) - free for w in (0.0, 1.0, 2.0)]
    assert not added[0].any()
    torch.testing.assert_close(added[2], 2 * added[1])


def test_posterior_sampling_never_goes_past_where_the_gap_closes():
    """However large its rate, a move closes the gap to first order at most."""
    x, t = somewhere(count=6)
    condition = PosteriorSampling(half(), picture(), rate=1e9)
    free = score()
    added = condition.guide(free)(x, t) - free(x, t)
    a, sigma = (v.reshape(-1, 1, 1, 1) for v in (VP.marginal(t)[0], VP.sigma(t)))
    # sigma² times the term is the move of y = x / a, and a is the way of the term.
    move = sigma**2 * added * a * a
    at = x.clone().requires_grad_()
    clean = free.denoised(at, t)
    gap = (picture() - clean)[..., :3].flatten(1).norm(dim=1)
    (slope,) = torch.autograd.grad(gap.sum(), at)
    closed = -(slope * move).sum((1, 2, 3))
    torch.testing.assert_close(closed, gap.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_terms_that_are_no_numbers_stop_the_run_with_a_clear_word(broken):
    bad = PseudoinverseGuidance(half(), torch.full((1, *SHAPE), broken))
    with pytest.raises(SolverError, match="no longer finite") as caught:
        last_of(build("dpm2m", steps=4), bad)
    assert caught.value.hint


# -- together -------------------------------------------------------------------------------------


def test_guiding_conditions_add_up_and_share_one_call():
    x, t = somewhere()
    free, calls = score()(x, t), []
    parts = tuple(GUIDING.values())
    found = All(parts).guide(counted(score(), calls))(x, t)
    assert calls == [len(x)]
    wanted = free + sum(part.guide(score())(x, t) - free for part in parts)
    torch.testing.assert_close(found, wanted)


def told(y, sigma):
    """ln p of two classes: pictures that are dark, and that are bright, by their means."""
    away = torch.stack([(y - m).flatten(1).pow(2).mean(1) for m in (-0.6, 0.4)], 1)
    return torch.log_softmax(-away / (1 + sigma[:, None] ** 2), 1)


def test_guiding_adds_to_other_conditions_too():
    x, t = somewhere()
    free, classifier = score()(x, t), NoisyClassifier(told, SHAPE, ("dark", "bright"))
    bright = ClassifierGuidance(classifier, (1,) * len(x), 2.0)
    known = GUIDING["dps"]
    for parts in ((bright, known), (known, bright)):
        found = All(parts).guide(score())(x, t)
        wanted = sum(part.guide(score())(x, t) - free for part in parts)
        # The classifier moves the estimate that is compared with what is known: not quite the sum.
        inner = bright.guide(score())
        torch.testing.assert_close(found, known.guide(inner)(x, t))
        assert float(torch.cosine_similarity((found - free).flatten(), wanted.flatten(), 0)) > 0.95


def test_guided_pictures_of_a_class_are_of_that_class():
    def conditional(labels):
        means = torch.tensor([-0.6, 0.4, 0.0], dtype=torch.float64)[labels].reshape(-1, 1, 1, 1)

        def fn(x, t):
            a, s = (v.reshape(-1, 1, 1, 1) for v in VP.marginal(t))
            return (a * means - x) / ((a * 0.2) ** 2 + s**2)

        return fn

    of = replace(score(), classes=("dark", "bright"), conditional=conditional)
    known = PseudoinverseGuidance(half(), torch.zeros(1, *SHAPE).double(), spread=0.2)
    for order in (1, -1):
        both = All((ClassLabel((0, 1, 1)), known)[::order])
        last = last_of(build("dpm2m", steps=20), both, of=of)
        assert float(last.x[..., :3].abs().max()) < 0.01
        means = last.x[..., 3:].mean((1, 2, 3)).tolist()
        assert means == pytest.approx([-0.6, 0.4, 0.4], abs=0.15)


def test_the_meter_reads_each_terms_share_of_the_score():
    x, t = somewhere()
    free, meter = score()(x, t), Meter()
    classifier = NoisyClassifier(told, SHAPE, ("dark", "bright"))
    bright = ClassifierGuidance(classifier, (1,) * len(x))
    parts = (GUIDING["pigdm"], Replacement(half(), picture()), bright)
    assert meter.read() == {}
    found = All(parts, meter).guide(score())(x, t)
    torch.testing.assert_close(found, All(parts).guide(score())(x, t))
    inner = bright.guide(score())(x, t)
    shares = {
        "ClassifierGuidance": (inner - free, free),
        "PseudoinverseGuidance": (found - inner, inner),
    }
    wanted = {
        name: float((term.flatten(1).norm(dim=1) / base.flatten(1).norm(dim=1)).mean())
        for name, (term, base) in shares.items()
    }
    assert meter.read() == pytest.approx(wanted)


class Shifted(Condition):
    """A condition that says who was asked."""

    def __init__(self, by):
        self.by = by

    def guide(self, score):
        return replace(score, fn=lambda x, t: score.fn(x, t) + self.by)

    def constrain(self, x, t, sde, noise):
        return x + self.by


def test_a_changing_condition_is_another_from_the_next_call_on():
    x, t = somewhere()
    changing = Changing(Shifted(1.0))
    guided, free = changing.guide(score()), score()(x, t)
    torch.testing.assert_close(guided(x, t), free + 1)
    changing.now = Shifted(2.0)
    torch.testing.assert_close(guided(x, t), free + 2)
    torch.testing.assert_close(changing.constrain(x, 0.5, VP, None), x + 2)
    changing.now = FREE
    torch.testing.assert_close(guided(x, t), free)
    assert not changing.constrains


def test_a_condition_changed_in_mid_run_ends_as_the_new_one_says():
    chosen, new = build("dpm2m-sde", steps=20), -picture()
    changing = Changing(Replacement(half(), picture()))
    noise = Noise.of(0, 2, SHAPE, VP, dtype=torch.float64)
    for step in chosen.run(score(), noise, changing):
        if step.index == 8:
            changing.now = Replacement(half(), new)
    torch.testing.assert_close(step.x[..., :3], new[..., :3].expand(2, -1, -1, -1))


def test_a_part_of_a_batch_keeps_what_is_known_of_it():
    pictures = picture(3, 3)
    until = torch.cat([half().until] * 3)
    until[1] = 0
    for kind in (Replacement, PseudoinverseGuidance, PosteriorSampling):
        some = All((Changing(kind(Coordinates(until), pictures)),)).of([1, 2]).parts[0].now
        assert torch.equal(some.picture, pictures[1:])
        assert torch.equal(some.operator.until, until[1:])
    shared = Replacement(half(), picture()).of([2])
    assert shared.picture.shape[0] == 1


# -- time travel ----------------------------------------------------------------------------------


def travelling(threshold, jump=3, repeats=2):
    return Replacement(half(), picture(), Travel(jump, repeats, threshold))


def test_nothing_travels_where_nothing_is_off():
    chosen = build("dpm2m-sde", steps=12)
    there, plain = (last_of(chosen, c) for c in (travelling(1e9), Replacement(half(), picture())))
    assert torch.equal(there.x, plain.x)
    assert there.nfe == plain.nfe


@pytest.mark.parametrize("sampler", ["pc", "dpm2m-sde", "ancestral", "dpm3m", "unipc", "heun"])
def test_whoever_always_travels_makes_every_stretch_again(sampler):
    chosen = build(sampler, steps=9)
    calls = chosen.cost()
    last = last_of(chosen, travelling(-1.0))
    stretch = (calls - 1) * 3 // 9
    assert last.nfe == calls + 2 * 2 * stretch  # two ends inside, twice each
    torch.testing.assert_close(last.x[..., :3], picture()[..., :3].expand(3, -1, -1, -1))


@pytest.mark.parametrize("sampler", ["dpm2m-sde", "dpm3m", "unipc", "pc"])
@pytest.mark.parametrize("jump", [2, 3])
def test_who_travels_does_not_depend_on_batch_mates(sampler, jump):
    chosen, misfits = build(sampler, steps=12, order=3), []

    class Watched(Replacement):
        def misfit(self, clean, t, sde):
            misfits.append(super().misfit(clean, t, sde))
            return misfits[-1]

    last_of(chosen, Watched(half(), picture(), Travel(jump, 2, 1e9)), count=6)
    middle = 1.001 * float(misfits[1].median())  # not one of them, which might fall to either side
    misfits.clear()
    condition = Watched(half(), picture(), Travel(jump, 2, middle))
    together = last_of(chosen, condition, count=6)
    off = [rows > middle for rows in misfits]
    assert any(rows.any() and not rows.all() for rows in off)
    for i in range(6):
        alone = last_of(chosen, condition, seed=i, count=1)
        torch.testing.assert_close(alone.x[0], together.x[i])


@pytest.mark.parametrize("sampler", ["dpm2m-sde", "unipc", "pc"])
def test_a_travelling_run_goes_on_from_its_steps_as_if_never_stopped(sampler):
    """From any step inside a stretch; where stretches end, it may miss a way back."""
    chosen, condition = build(sampler, steps=9), travelling(-1.0)
    noise = Noise.of(0, 2, SHAPE, VP, dtype=torch.float64, depth=chosen.depth)
    whole = list(chosen.run(score(), noise, condition))
    inside = [s for s in whole[:-1] if int(s.memory["place"]) % 3]
    assert len(inside) == 6
    for kept in inside:
        rest = list(chosen.run(score(), noise, condition, resume=kept))
        assert torch.equal(rest[-1].x, whole[-1].x)
        assert [s.index for s in rest] == [s.index for s in whole[kept.index :]]


def test_steps_of_a_travelling_run_rise_and_its_total_is_reached():
    chosen = build("dpm2m-sde", steps=9)
    noise = Noise.of(0, 2, SHAPE, VP, dtype=torch.float64)
    *before, last = chosen.run(score(), noise, travelling(-1.0))
    assert [s.index for s in before] == list(range(1, len(before) + 1))
    assert before[-1].index == before[-1].total == last.index


def test_the_misfit_is_that_beside_the_border():
    """The root mean square of the gap at known pixels up to two from the border, by what is hidden."""
    condition, sigma = travelling(0.6), 0.5
    t = float(VP.time(torch.tensor([sigma], dtype=torch.float64)))
    clean = picture().expand(2, -1, -1, -1).clone()
    clean[0, :, :, 0] += 5  # three pixels from the border: not looked at
    clean[0, :, :, 3:] += 5  # not known
    clean[1, :, :, 1:3] += 0.2
    hidden = 0.5 * sigma / math.hypot(sigma, 0.5)
    found = condition.misfit(clean, t, VP).tolist()
    assert found == pytest.approx([0, 0.2 / hidden], abs=1e-9)
    assert All((FREE, condition)).misfit(clean, t, VP).tolist() == pytest.approx(found)
    assert All((FREE, condition)).travel is condition.travel


# -- cost -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_guidance_costs_no_more_than_it_must():
    """Beside a plain run: what needs no gradient a few per cent, what does about thrice. The best
    of several, in time of this process: the machine may have other things to do."""
    from studio.weights.shelf import Shelf

    folder = REPOSITORY / "checkpoints" / "critters-32"
    if not folder.exists():
        pytest.skip("the checkpoint is not here")
    of = Shelf().load(str(folder), "cpu", "fp32")
    known = torch.full((1, *of.shape), math.inf)
    known[..., :16] = 0
    wanted = torch.zeros(1, *of.shape)
    conditions = {
        "plain": FREE,
        "put back": Replacement(Coordinates(known), wanted),
        "guided": PseudoinverseGuidance(Coordinates(known), wanted),
    }
    chosen, seconds = build("dpm2m-sde", steps=3), {name: [] for name in conditions}
    for _ in range(9):
        for name, condition in conditions.items():
            begun = time.process_time()
            list(chosen.run(of, noise_for(chosen, of, count=4), condition))
            seconds[name].append(time.process_time() - begun)
    plain, put, guided = (min(v) for v in seconds.values())
    assert put < 1.15 * plain
    assert guided < 3.7 * plain
