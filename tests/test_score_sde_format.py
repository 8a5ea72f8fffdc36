"""Checkpoints of score_sde_pytorch, made here in its layout: opened, deduced, and refused in words.

What a score has to be is written down here once more from the papers, by family.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from score_sde_reference import Config, Reference, checkpoint, model_table

from studio import cli, recipes, spec
from studio.diffusion.sde import VESDE, VPSDE, SubVPSDE
from studio.engine.jobs import SampleJob, Setting
from studio.errors import CheckpointError, SpecError
from studio.weights import formats
from studio.weights.formats import native
from studio.weights.formats.score_sde import PRESETS
from studio.weights.shelf import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")

# Fewer stages than the published ones: every size comes from the file, and these are fast.
NCSN = Config()
LARGE = Config(progressive="output_skip", progressive_input="input_skip")
LEVELS = replace(NCSN, embedding="positional")
VP = replace(LEVELS, centered=True)
DDPMPP = replace(VP, fir=False, progressive_input="none")
DDPM = replace(DDPMPP, nf=32, resblock="ddpm", skip_rescale=False, groups=32)


def ve(sigma_max=50.0):
    """(network, x, t) -> score: told sigma, answers with sigma times the score."""

    def score(h, x, t):
        sigma = 0.01 * (sigma_max / 0.01) ** t
        return h(x, sigma) / column(sigma)

    return score


def ve_levels(sigma_max=50.0):
    """Told the number of the noise level, counted from the noisiest."""

    def score(h, x, t):
        table = np.exp(np.linspace(np.log(sigma_max), np.log(0.01), 1000))
        level = torch.round((1 - t) * 999)
        return h(x, level) / column(torch.from_numpy(table)[level.long()])

    return score


def vp(h, x, t):
    b = 0.1 * t + 19.9 * t**2 / 2
    return -h(x, 999 * t) / column(torch.sqrt(1 - torch.exp(-b)))


def subvp(h, x, t):
    b = 0.1 * t + 19.9 * t**2 / 2
    return -h(x, 999 * t) / column(1 - torch.exp(-b))


def vp_steps(h, x, t):
    """Told the number of the step, whose noise is that of DDPM's table."""
    alpha_bar = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    step = torch.round(t * 1000) - 1
    return -h(x, step) / column(torch.sqrt(1 - alpha_bar[step.long()]))


def column(v):
    return v.double()[:, None, None, None]


#: preset -> (network, score, pictures of so many pixels)
PUBLISHED = {
    "ve/cifar10_ncsnpp_continuous": (NCSN, ve(), 32),
    "ve/cifar10_ncsnpp_deep_continuous": (replace(NCSN, num_res_blocks=2), ve(), 32),
    "ve/cifar10_ncsnpp": (LEVELS, ve_levels(), 32),
    "ve/cifar10_ddpm": (replace(DDPM, centered=False), ve_levels(), 32),
    "ve/celeba_ncsnpp": (LEVELS, ve_levels(90.0), 64),
    "ve/bedroom_ncsnpp_continuous": (LARGE, ve(378.0), 256),
    "ve/church_ncsnpp_continuous": (LARGE, ve(380.0), 256),
    "ve/celebahq_256_ncsnpp_continuous": (LARGE, ve(348.0), 256),
    "ve/ffhq_256_ncsnpp_continuous": (LARGE, ve(348.0), 256),
    "ve/celebahq_ncsnpp_continuous": (LARGE, ve(1348.0), 1024),
    "ve/ffhq_ncsnpp_continuous": (LARGE, ve(1348.0), 1024),
    "vp/cifar10_ncsnpp": (VP, vp_steps, 32),
    "vp/cifar10_ncsnpp_continuous": (VP, vp, 32),
    "vp/cifar10_ncsnpp_deep_continuous": (replace(VP, num_res_blocks=2), vp, 32),
    "vp/cifar10_ddpmpp": (DDPMPP, vp_steps, 32),
    "vp/cifar10_ddpmpp_continuous": (DDPMPP, vp, 32),
    "vp/cifar10_ddpmpp_deep_continuous": (replace(DDPMPP, num_res_blocks=2), vp, 32),
    "vp/ddpm/cifar10": (DDPM, vp_steps, 32),
    "vp/ddpm/cifar10_continuous": (DDPM, vp, 32),
    "vp/ddpm/cifar10_unconditional": (DDPM, vp_steps, 32),
    "vp/ddpm/celebahq": (DDPM, vp_steps, 256),
    "vp/ddpm/bedroom": (DDPM, vp_steps, 256),
    "vp/ddpm/church": (DDPM, vp_steps, 256),
    "subvp/cifar10_ncsnpp_continuous": (VP, subvp, 32),
    "subvp/cifar10_ncsnpp_deep_continuous": (replace(VP, num_res_blocks=2), subvp, 32),
    "subvp/cifar10_ddpmpp_continuous": (DDPMPP, subvp, 32),
    "subvp/cifar10_ddpmpp_deep_continuous": (replace(DDPMPP, num_res_blocks=2), subvp, 32),
    "subvp/cifar10_ddpm_continuous": (DDPM, subvp, 32),
}

_MADE: dict[tuple, Reference] = {}


def made(config, seed=0):
    """A reference network; making one costs time, and none of them is ever changed."""
    key = (repr(config), seed)
    if key not in _MADE:
        _MADE[key] = Reference(config, seed)
    return _MADE[key]


def written(path, tree):
    torch.save(tree, path)
    return path


def opened(path, preset=""):
    return formats.open_model(path, preset)


def difference(found, wanted):
    return float((found.double() - wanted).norm() / wanted.norm())


def test_every_preset_is_tried_here():
    assert PUBLISHED.keys() == PRESETS.keys()


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_score_is_the_published_one(tmp_path, preset):
    config, formula, size = PUBLISHED[preset]
    reference = made(config)
    model = opened(written(tmp_path / "checkpoint_8.pth", checkpoint(reference)), preset)
    assert (model.name, model.info.steps, model.info.size) == ("checkpoint_8", 1200, size)
    assert model.info.value_range == ((-1, 1) if config.centered else (0, 1))
    score = model.score()
    # Networks of this kind take any size that their stages divide; a small one is a fast one.
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.9])
    if formula.__qualname__.startswith("ve_levels"):
        t = torch.tensor([99 / 999, 900 / 999])  # between its levels such a network is not told
    assert difference(score(x, t), formula(reference, x, t.double())) < 1e-4


def test_the_averages_are_used_and_not_the_last_weights(tmp_path):
    last, average = made(NCSN), made(NCSN, seed=1)
    tree = checkpoint(last, average)
    # The frequencies are not trained: there is one set of them, in the model.
    key = "all_modules.0.W"
    merged = Reference(NCSN)
    merged.state = average.state | {key: last.state[key]}
    model = opened(written(tmp_path / "c.pth", tree), "ve/cifar10_ncsnpp_continuous")
    x, t = torch.rand(1, 3, 8, 8), torch.tensor([0.5])
    assert difference(model.score()(x, t), ve()(merged, x, t.double())) < 1e-4
    assert difference(model.score()(x, t), ve()(last, x, t.double())) > 0.1
    assert "averages" in model.read().notes[0]


@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("levels", [True, False])
def test_a_bare_table_of_weights_is_enough(tmp_path, prefix, levels):
    reference = made(NCSN)
    table = model_table(reference, prefix)
    if not levels:
        del table[f"{prefix}sigmas"]
    model = opened(written(tmp_path / "weights.pt", table), "ve/cifar10_ncsnpp_continuous")
    x, t = torch.rand(1, 3, 8, 8), torch.tensor([0.5])
    assert difference(model.score()(x, t), ve()(reference, x, t.double())) < 1e-4
    assert "no averages" in model.read().notes[0]


def test_a_file_of_model_and_averages_only_is_enough(tmp_path):
    tree = checkpoint(made(NCSN))
    path = written(tmp_path / "c.pth", {k: tree[k] for k in ("model", "ema")})
    assert opened(path, "ve/cifar10_ncsnpp_continuous").info.steps == 0


def test_an_opened_file_can_be_kept_in_our_own_format(tmp_path):
    model = opened(
        written(tmp_path / "c.pth", checkpoint(made(DDPMPP))), "subvp/cifar10_ddpmpp_continuous"
    )
    native.save(tmp_path / "kept", model.info, model.read().tensors)
    kept = opened(tmp_path / "kept")
    assert kept.info == model.info
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([0.5])
    torch.testing.assert_close(kept.score()(x, t), model.score()(x, t))


# -- what the file shows --------------------------------------------------------------------------

ODD_ONES = {
    "as published for cifar": replace(NCSN, ch_mult=(1, 2, 2, 2), num_res_blocks=4),
    "as published for 256 px": replace(
        LARGE, ch_mult=(1, 1, 2, 2, 2, 2, 2), attention=(4,), num_res_blocks=2
    ),
    "joined inputs": replace(LARGE, combine="cat", ch_mult=(1, 2, 2), attention=(2,)),
    "gray": replace(LARGE, colours=1, attention=()),
    "wide, shallow, attentive": replace(NCSN, nf=16, ch_mult=(1, 3), attention=(0, 1)),
    "three stages the same": replace(NCSN, ch_mult=(1, 1, 1), attention=()),
    "deaf": replace(NCSN, conditional=False),
}


@pytest.mark.parametrize("name", ODD_ONES)
def test_every_size_comes_from_the_file(tmp_path, name):
    config = ODD_ONES[name]
    preset = "ve/cifar10_ncsnpp_continuous"
    if config.progressive == "output_skip":
        preset = "ve/ffhq_256_ncsnpp_continuous"
    reference = made(config)
    model = opened(written(tmp_path / "c.pth", checkpoint(reference)), preset)
    small = max(8, 2 ** (len(config.ch_mult) - 1))
    x, t = torch.rand(1, config.colours, small, small), torch.tensor([0.4])
    formula = ve(model.info.sde.sigma_max)
    assert difference(model.score()(x, t), formula(reference, x, t.double())) < 1e-4
    options = model.info.options
    assert options["blocks"] == config.num_res_blocks
    assert options["multipliers"] == list(config.ch_mult)
    assert options["attention"] == list(config.attention)


def test_ddpm_without_convolutions_where_the_size_changes_is_told_apart(tmp_path):
    reference = made(replace(DDPM, resamp_with_conv=False))
    model = opened(written(tmp_path / "c.pth", checkpoint(reference)), "vp/ddpm/cifar10_continuous")
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([0.4])
    assert difference(model.score()(x, t), vp(reference, x, t.double())) < 1e-4


# -- without a preset -----------------------------------------------------------------------------


def levels(low, high, count=2000):
    return torch.from_numpy(np.exp(np.linspace(math.log(high), math.log(low), count)))


def test_a_fourier_network_is_guessed_and_the_guess_is_said(tmp_path):
    stages = {"ch_mult": (1, 1, 2, 2, 2, 2, 2), "attention": (4,), "num_res_blocks": 2}
    tree = checkpoint(made(replace(LARGE, **stages)))
    tree["model"]["module.sigmas"] = levels(0.01, 380)
    model = opened(written(tmp_path / "c.pth", tree))
    assert model.info.sde == VESDE(0.01, 380.0)
    assert (model.info.size, model.info.value_range) == (256, (0.0, 1.0))
    assert any("256 px were assumed" in note for note in model.notes)
    assert any("preset" in note for note in model.notes)


def test_a_guess_that_would_change_the_numbers_is_not_made(tmp_path):
    tree = checkpoint(made(LARGE))
    del tree["model"]["module.sigmas"]
    with pytest.raises(CheckpointError, match="which SDE") as caught:
        opened(written(tmp_path / "c.pth", tree))
    assert "ve/bedroom_ncsnpp_continuous" in caught.value.hint
    assert "cifar10" not in caught.value.hint


@pytest.mark.parametrize("config", [LEVELS, DDPMPP, DDPM], ids=["ncsn++", "ddpm++", "ddpm"])
def test_vp_and_sub_vp_cannot_be_told_apart(tmp_path, config):
    with pytest.raises(CheckpointError, match="which SDE") as caught:
        opened(written(tmp_path / "c.pth", checkpoint(made(config))))
    assert "--preset" in caught.value.hint
    assert "vp/" in caught.value.hint
    assert "subvp/" in caught.value.hint


def test_noise_levels_that_are_not_the_presets_are_said(tmp_path):
    tree = checkpoint(made(LARGE))
    tree["model"]["module.sigmas"] = levels(0.01, 380)
    model = opened(written(tmp_path / "c.pth", tree), "ve/ffhq_256_ncsnpp_continuous")
    assert model.info.sde == VESDE(0.01, 348.0)
    assert any("380" in note and "348" in note for note in model.notes)


def test_the_presets_constants_are_the_published_ones():
    assert PRESETS["vp/cifar10_ddpmpp_continuous"].sde == VPSDE(0.1, 20.0)
    assert PRESETS["subvp/cifar10_ddpmpp_continuous"].sde == SubVPSDE(0.1, 20.0)
    assert PRESETS["ve/ffhq_ncsnpp_continuous"].sde == VESDE(0.01, 1348.0)
    assert PRESETS["ve/celeba_ncsnpp"].output.levels == 1000


# -- what is refused ------------------------------------------------------------------------------


def test_a_preset_that_does_not_exist_is_refused_with_the_nearest(tmp_path):
    path = written(tmp_path / "c.pth", checkpoint(made(NCSN)))
    with pytest.raises(SpecError, match="ve/cifar10_ncsnpp_continuous"):
        opened(path, "ve/cifar_ncsnpp_continous")


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("vp/cifar10_ncsnpp_continuous", "embedding is fourier, not positional"),
        ("vp/ddpm/cifar10", "biggan, not ddpm"),
        ("ve/ffhq_256_ncsnpp_continuous", "progressive input is residual, not input_skip"),
    ],
)
def test_a_preset_of_another_network_is_refused_in_words(tmp_path, preset, words):
    path = written(tmp_path / "c.pth", checkpoint(made(NCSN)))
    with pytest.raises(CheckpointError, match=words) as caught:
        opened(path, preset)
    assert "ve/cifar10_ncsnpp_continuous" in caught.value.hint


def broken(change, config=NCSN):
    tree = checkpoint(made(config))
    change(tree)
    return tree


def with_frequencies(tree):
    tree["ema"]["shadow_params"].insert(0, tree["model"]["module.all_modules.0.W"])


def swapped(tree):
    shadow = tree["ema"]["shadow_params"]
    shadow[2], shadow[4] = shadow[4], shadow[2]


def renamed(old, new):
    def change(tree):
        tree["model"][new] = tree["model"].pop(old)

    return change


@pytest.mark.parametrize(
    "change",
    [
        with_frequencies,
        swapped,
        lambda tree: tree["ema"]["shadow_params"].pop(),
        lambda tree: tree["ema"]["shadow_params"].pop(0),
        lambda tree: tree["ema"]["shadow_params"].clear(),
    ],
)
def test_averages_that_do_not_match_the_network_are_refused(tmp_path, change):
    path = written(tmp_path / "c.pth", broken(change))
    with pytest.raises(CheckpointError, match="do not match"):
        opened(path, "ve/cifar10_ncsnpp_continuous")


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree["model"].pop("module.all_modules.4.Conv_1.bias"),
        lambda tree: tree["model"].update({"module.all_modules.4.Conv_7.bias": torch.zeros(8)}),
        lambda tree: tree["model"].update({"module.all_modules.400.weight": torch.zeros(8)}),
        lambda tree: tree["model"].update({"module.wings": torch.zeros(8)}),
        lambda tree: tree["model"].update({"module.all_modules.4.Conv_0.weight": torch.zeros(8)}),
        lambda tree: tree["model"].update({"module.all_modules.3.weight": torch.zeros(0, 3, 3, 3)}),
        lambda tree: tree["model"].update({"module.all_modules.3.bias": torch.tensor(1.0)}),
        lambda tree: tree["model"].update({"module.all_modules.3.weight": torch.zeros(8, 2, 3, 3)}),
        lambda tree: tree["model"].update(
            {"module.all_modules.3.bias": torch.zeros(8, dtype=torch.int64)}
        ),
        renamed("module.all_modules.4.Conv_0.weight", "module.all_modules.99.Conv_0.weight"),
        lambda tree: tree["model"].update(
            {"module.all_modules.3.weight": torch.zeros(1).expand(2**20, 3, 3, 3)}
        ),
    ],
)
def test_nothing_loads_half(tmp_path, change):
    tree = broken(change)
    del tree["ema"]
    with pytest.raises(CheckpointError):
        opened(written(tmp_path / "c.pth", tree), "ve/cifar10_ncsnpp_continuous")


@pytest.mark.parametrize("ema", [[], {"shadow_params": 3}, {"shadow_params": [1, 2]}, {}])
def test_averages_in_an_unknown_form_are_refused(tmp_path, ema):
    tree = checkpoint(made(NCSN)) | {"ema": ema}
    with pytest.raises(CheckpointError, match="averaged weights"):
        opened(written(tmp_path / "c.pth", tree), "ve/cifar10_ncsnpp_continuous")


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    tree = broken(lambda tree: tree["ema"]["shadow_params"][3].fill_(math.nan))
    model = opened(written(tmp_path / "c.pth", tree), "ve/cifar10_ncsnpp_continuous")
    with pytest.raises(CheckpointError, match="not finite"):
        model.network()


def test_networks_of_other_families_are_refused(tmp_path):
    path = written(tmp_path / "c.pth", {"model": {"module.begin_conv.weight": torch.zeros(3)}})
    with pytest.raises(CheckpointError):
        opened(path)


def test_norms_that_do_not_divide_the_channels_are_refused_in_words(tmp_path):
    reference = made(replace(DDPM, nf=8, groups=0))
    with pytest.raises(CheckpointError, match="32 groups"):
        opened(written(tmp_path / "c.pth", checkpoint(reference)), "vp/ddpm/cifar10")


class Harm:
    def __reduce__(self):
        return (pytest.fail, ("code in a file was run",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    tree = checkpoint(made(NCSN)) | {"optimizer": Harm()}
    path = written(tmp_path / "c.pth", tree)
    with pytest.raises(CheckpointError, match="not opened"):
        opened(path, "ve/cifar10_ncsnpp_continuous")
    path.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(CheckpointError):
        opened(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = written(tmp_path / "c.pth", checkpoint(made(NCSN)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError):
        opened(path, "ve/cifar10_ncsnpp_continuous")


@pytest.mark.parametrize("preset", ["vp/cifar10_ddpmpp_continuous", "ve/cifar10_ncsnpp_continuous"])
def test_a_picture_sampled_with_a_preset_is_made_again_by_its_recipe(tmp_path, capsys, preset):
    path = written(tmp_path / "checkpoint_8.pth", checkpoint(made(PUBLISHED[preset][0])))
    out = tmp_path / "out.png"
    words = ["sample", str(path), "--preset", preset, "--out", str(out), "--device", "cpu"]
    assert cli.main([*words, "--sampler", "ancestral", "--steps", "2"]) == 0
    recipe = recipes.read_recipe(out)
    job = spec.from_dict(SampleJob, recipe)
    assert (job.model, job.model_preset) == (str(path), preset)
    *_, finished = job.run(Setting(Shelf(), "cpu"))
    with Image.open(out) as image:
        assert (np.asarray(image) == finished.pictures[0]).all()
    assert "Traceback" not in capsys.readouterr().err
