"""ADM's files: everything deduced from shapes, the rest from the published model of the same shapes."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import save_file
from test_adm import Published, inputs, published_state, shaped

from studio.diffusion.sde import TableVPSDE
from studio.errors import CheckpointError, SpecError
from studio.weights import formats
from studio.weights.formats.adm import PRESETS, Preset, shape_of
from studio.weights.formats.refused import check_tree

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [
    shaped(),
    shaped(classes=7, colours=1),
    shaped(resample="conv", modulation="add", blocks=3, attention=()),
    shaped(resample="pool", blocks=2),
    shaped(resample="pool", attention=(0, 2)),
    shaped(channels=(32,), attention=(0,), blocks=2, resample="pool"),
    shaped(width=64, channels=(32, 64, 64, 96), attention=(1, 3)),
]


@pytest.fixture
def tiny(monkeypatch):
    """A published model that is small: its shape is recognised."""

    def publish(shape, name="tiny", **more):
        more = {"head_width": 32} | more
        monkeypatch.setitem(PRESETS, f"adm/{name}", Preset(8, shape, **more))
        return shape

    return publish


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_that_shapes_show_is_seen(shape):
    assert shape_of(published_state(shape), "it") == shape


@pytest.mark.parametrize("preset", PRESETS)
def test_every_published_file_is_recognised(preset):
    known = PRESETS[preset]
    state = published_state(known.shape, draw=lambda *size: torch.empty(size, device="meta"))
    shape = shape_of(state, "it")
    assert shape == known.shape
    alike = [p for p in PRESETS.values() if p.shape == shape]
    assert all(p == known for p in alike), "two presets of one shape must mean the same"


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("rows", ["by head", "by kind"])
def test_a_file_gives_the_noise_that_its_network_predicts(tmp_path, tiny, rows, learned):
    shape = tiny(shaped(), rows=rows)
    state = published_state(shape, learned)
    torch.save(state, tmp_path / "ema_0.9999_100.pt")
    opened = formats.open_model(tmp_path / "ema_0.9999_100.pt")
    assert (opened.info.size, opened.info.colours) == (8, 3)
    assert ("variances" in " ".join(opened.read().notes)) == learned
    score, (x, _), i = opened.score(), inputs(shape), torch.tensor([3, 999])
    t = (i + 1) / 1000
    s = score.sde.marginal(t)[1].reshape(-1, 1, 1, 1)
    wanted = Published(state, shape, lambda c: c // 32, rows)(x, i.float())
    torch.testing.assert_close(-score(x, t) * s, wanted, rtol=1e-3, atol=1e-3)


def test_the_noise_at_each_step_is_that_of_its_schedule(tmp_path, tiny):
    shape = tiny(shaped(), schedule="squaredcos_cap_v2", steps=4000)
    torch.save(published_state(shape), tmp_path / "a.pt")
    opened = formats.open_model(tmp_path / "a.pt")
    assert "cosine" in " ".join(opened.notes)
    curve = [math.cos((k / 4000 + 0.008) / 1.008 * math.pi / 2) ** 2 for k in (0, 2000)]
    a = opened.info.sde.marginal(torch.tensor([0.5], dtype=torch.float64))[0]
    assert float(a) ** 2 == pytest.approx(curve[1] / curve[0], rel=1e-6)


@pytest.mark.parametrize("counts_to", [1000, 4000])
def test_a_long_schedule_is_counted_as_it_was_trained(tmp_path, tiny, counts_to):
    shape = tiny(shaped(), steps=4000, counts_to=counts_to)
    torch.save(published_state(shape), tmp_path / "a.pt")
    output = formats.open_model(tmp_path / "a.pt").info.output
    told = []

    def net(x, label, y):
        told.append(label)
        return x

    output.noise(net, torch.zeros(2, 3, 8, 8), torch.tensor([1, 4000]) / 4000, None, TableVPSDE())
    torch.testing.assert_close(told[0], torch.tensor([0, 3999]) * (counts_to / 4000))


def test_half_precision_and_parallel_names_are_made_plain(tmp_path, tiny):
    shape = tiny(shaped())
    state = {f"module.{k}": v.half() for k, v in published_state(shape).items()}
    save_file(state, tmp_path / "a.safetensors")
    opened = formats.open_model(tmp_path / "a.safetensors")
    assert {p.dtype for p in opened.network().parameters()} == {torch.float32}


def test_a_model_with_classes_wants_one(tmp_path, tiny):
    shape = tiny(shaped(classes=2))
    state = published_state(shape)
    torch.save(state, tmp_path / "a.pt")
    score, (x, _) = formats.open_model(tmp_path / "a.pt").score(), inputs(shape)
    assert score.classes == ("0", "1")
    t = torch.tensor([0.5, 1.0])
    with pytest.raises(SpecError, match="Choose a class"):
        score(x, t)
    y = torch.tensor([1, 0])
    s = score.sde.marginal(t)[1].reshape(-1, 1, 1, 1)
    wanted = Published(state, shape, lambda c: c // 32, "by head")(x, 1000 * t - 1, y)
    torch.testing.assert_close(-score.labelled(y)(x, t) * s, wanted, rtol=1e-3, atol=1e-3)


def test_raw_weights_point_to_their_average(tmp_path, tiny):
    tiny(shaped())
    torch.save(published_state(shaped()), tmp_path / "model000100.pt")
    assert "ema_" in " ".join(formats.open_model(tmp_path / "model000100.pt").notes)


def test_unknown_shapes_ask_for_a_preset_and_take_it(tmp_path, tiny):
    tiny(shaped(blocks=3), name="other")
    torch.save(published_state(shaped()), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"Name the published one.*adm/imagenet64"):
        formats.open_model(tmp_path / "a.pt")
    opened = formats.open_model(tmp_path / "a.pt", "adm/other")
    assert opened.notes == ()
    opened.network()
    with pytest.raises(SpecError, match="no preset “adm/nothing”"):
        formats.open_model(tmp_path / "a.pt", "adm/nothing")


def without(*parts):
    return lambda state: {k: v for k, v in state.items() if not any(p in k for p in parts)}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without("output_blocks.5.0.in_layers.2"), "do not fit"),
        (without("output_blocks.5"), "way up"),
        (without("input_blocks.3."), "lacks parts"),
        (lambda s: s | {"time_embed.0.weight": torch.zeros(4)}, "lacks parts"),
        (lambda s: s | {"out.2.bias": torch.full((6,), math.nan)}, "finite"),
        (lambda s: s | {"input_blocks.9999.0.op.weight": torch.zeros(1)}, "way up"),
        (lambda s: s | {"output_blocks.0.0.in_layers.2.weight": torch.zeros(1)}, "do not fit"),
        (lambda s: s | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}, "enlarges"),
        (lambda s: s | {"input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3)}, "latents"),
        (lambda s: s | {"input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, "9 channels"),
        (lambda s: s | {"x.transformer_blocks.0": torch.zeros(1)}, "latents"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(tmp_path, tiny, damage, reason):
    tiny(shaped())
    torch.save(damage(published_state(shaped())), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=reason):
        formats.open_model(tmp_path / "a.pt", "adm/tiny").network()


def test_a_classifier_of_the_family_is_no_model(tmp_path):
    state = without("output_blocks.", "out.2")(published_state(shaped()))
    torch.save(state | {"out.2.positional_embedding": torch.zeros(2, 2)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="tells classes apart"):
        formats.open_model(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="tells classes apart"):
        check_tree(state, "a.pt")


def test_heads_that_do_not_divide_are_refused(tmp_path, tiny):
    tiny(shaped(), heads=7)
    torch.save(published_state(shaped()), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="heads"):
        formats.open_model(tmp_path / "a.pt").network()
