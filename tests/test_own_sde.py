"""Your own SDE: the marginals of any dx = f(t) x dt + g(t) dw, and a model seen under another SDE."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from conftest import gaussian_score
from PIL import Image

from studio import cli, recipes, spec
from studio.diffusion.sde import FIRST_TIME, SDE, SDES, VESDE, VPSDE, OwnSDE, SubVPSDE
from studio.errors import SpecError
from studio.weights.shelf import Shelf

T = torch.cat([torch.tensor([FIRST_TIME, 1e-4, 1e-3]), torch.linspace(0.01, 1, 60)]).double()
VP_TWIN = OwnSDE("-(0.1+19.9*t)/2", "sqrt(0.1+19.9*t)")
#: sigma(t) = √(sigma_min² r^2t - sigma_min²): VE's, but that it begins at nothing.
VE_TWIN = OwnSDE("0", f"0.01*sqrt(2*{math.log(5000)!r})*5000^t")
INTEGRAL = "(0.1*t + 19.9*t^2/2)"
SUB_VP_TWIN = OwnSDE("-(0.1+19.9*t)/2", f"sqrt((0.1+19.9*t)*(1-exp(-2*{INTEGRAL}))) + 1e-12")
ODD = [
    OwnSDE("sqrt(t)", "2"),
    OwnSDE("-log(t)", "3"),
    OwnSDE("-1/sqrt(t)", "1+t"),
    OwnSDE("-1/(1.001-t)", "sqrt(2*t/(1.001-t))"),
    OwnSDE("0", "4*abs(t-0.3)+0.001"),
    OwnSDE("sin(20*t)", "5+4*sin(200*t)"),
    OwnSDE("-2*t", "max(1, 9*t)"),
    OwnSDE("-t", "3*sqrt(t)"),
]
every_odd = pytest.mark.parametrize("sde", ODD, ids=lambda sde: f"{sde.f} | {sde.g}")


def close(ours, wanted, rtol):
    torch.testing.assert_close(ours, wanted, rtol=rtol, atol=0)


@pytest.mark.parametrize(("ours", "theirs"), [(VP_TWIN, VPSDE()), (SUB_VP_TWIN, SubVPSDE())])
def test_the_formulas_of_a_known_sde_are_that_sde(ours, theirs):
    for mine, wanted in zip(ours.marginal(T), theirs.marginal(T)):
        close(mine, wanted, 1e-8)
    for mine, wanted in zip(ours.coefficients(T), theirs.coefficients(T)):
        close(mine, wanted, 1e-6)
    close(ours.time(theirs.sigma(T)), T, 1e-8)


def test_ve_s_marginals_come_out_less_its_first_variance():
    close(VE_TWIN.sigma(T) ** 2 + 0.01**2, VESDE().sigma(T) ** 2, 1e-11)
    close(VE_TWIN.coefficients(T)[1], VESDE().coefficients(T)[1], 1e-12)


@pytest.mark.parametrize(
    ("sde", "variance"),
    [
        (OwnSDE("0", "e^t"), lambda t: torch.expm1(2 * t) / 2),
        (OwnSDE("0", "25^t"), lambda t: torch.expm1(2 * math.log(25) * t) / math.log(25) / 2),
        (OwnSDE("1", "2*e^t"), lambda t: 4 * t),
        (OwnSDE("0", "2*sqrt(t)"), lambda t: 2 * t**2),
        (OwnSDE("0", "3*t^2"), lambda t: 9 * t**5 / 5),
    ],
)
def test_closed_forms_come_out(sde, variance):
    close(sde.sigma(T) ** 2, variance(T), 1e-12)


@every_odd
def test_marginals_are_the_integrals_of_the_formulas(sde):
    """Against numpy's Gauss-Legendre points in a thousand pieces, closer and closer to 0."""
    edges = np.concatenate([np.geomspace(FIRST_TIME, 0.05, 300), np.linspace(0.05, 1, 961)[1:]])
    edges = np.union1d(edges, [0.3, 1 / 9])  # where some of them have a kink
    points, weights = np.polynomial.legendre.leggauss(6)
    low, width = edges[:-1, None], np.diff(edges)[:, None]
    times = torch.from_numpy(low + width * (points + 1) / 2)
    weights = width * weights / 2
    (a, _), (f, g) = sde.marginal(times), sde.coefficients(times)
    (a_end, _), sigma = sde.marginal(torch.from_numpy(edges)), sde.sigma(torch.from_numpy(edges))
    np.testing.assert_allclose(np.diff(a_end.log()), (weights * f.numpy()).sum(1), 1e-7, 1e-10)
    np.testing.assert_allclose(
        np.diff(sigma**2), (weights * (g / a).numpy() ** 2).sum(1), 1e-7, 1e-12
    )


@every_odd
def test_time_inverts_sigma_however_odd_the_formulas(sde):
    close(sde.time(sde.sigma(T)), T, 1e-7)
    assert bool((sde.sigma(T).diff() > 0).all())
    assert FIRST_TIME <= sde.eps <= 1


@pytest.mark.parametrize("sde", [OwnSDE(), *ODD[:4]])
def test_single_precision_keeps_its_digits(sde):
    t = T.float()
    for ours, exact in [
        *zip(sde.marginal(t), sde.marginal(t.double())),
        *zip(sde.coefficients(t), sde.coefficients(t.double())),
    ]:
        torch.testing.assert_close(ours.double(), exact, rtol=2e-6, atol=1e-7)


def test_sampling_stops_where_the_noise_is_a_hundredth():
    for sde in (OwnSDE(), VP_TWIN):
        assert float(sde.sigma(torch.tensor([sde.eps]))) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    ("f", "g", "words"),
    [
        ("0", "0", "g(t) must be above 0"),
        ("0", "-1", "g(t) must be above 0"),
        ("0", "9*sin(10*t)", "g(t) must be above 0"),
        ("0", "0.5", "forgets too little"),
        ("9", "1", "forgets too little"),
        ("0", "9^9^9^9", "no finite number"),
        ("0", "sqrt(t-0.5)", "no finite number at t ="),
        ("-1/t", "9", "cannot be integrated near t = 0"),
        ("-1/(1-t)", "9", "cannot be integrated near t = 1"),
        ("-40", "1", "too large"),
        ("0", "1e12", "too large"),
        ("0", "1e4", "begins with too much noise"),
        ("0", "t^9*99", "adds no noise"),
        ("0", "99*exp(-20*t)", "adds no noise"),
    ],
)
def test_what_is_no_noising_process_is_refused_in_words(f, g, words):
    sde = OwnSDE(f, g)  # the text alone is fine
    for _ in range(2):
        with pytest.raises(SpecError, match=words.replace("(", r"\(").replace(")", r"\)")):
            sde.marginal(torch.ones(1))


def test_formulas_that_mean_nothing_are_refused_at_once():
    with pytest.raises(SpecError, match="sine"):
        OwnSDE(g="sine(t)")
    with pytest.raises(SpecError, match="no “os”"):
        spec.from_dict(SDE, {"kind": "own", "f": "os", "g": "1"})


def test_it_becomes_json_and_comes_back():
    told = spec.to_dict(OwnSDE("-t", "3*e^t"))
    assert told == {"kind": "own", "f": "-t", "g": "3*e^t"}
    assert spec.from_dict(SDE, told) == OwnSDE("-t", "3*e^t")


def test_the_integrals_serve_training_after_inference():
    sde = OwnSDE(g="7*e^t")
    t = torch.linspace(0.1, 1, 5)
    with torch.inference_mode():
        sde.marginal(t)
    t.requires_grad_()
    sde.marginal(t)[1].sum().backward()
    assert t.grad is not None


# -- a model under another SDE --------------------------------------------------------------------

PROCESSES = {name: cls() for name, cls in SDES.items()} | {"faded": OwnSDE("-3*t", "9*e^t")}
pairs = pytest.mark.parametrize("new", list(PROCESSES))
trained = pytest.mark.parametrize("old", list(PROCESSES))


@trained
@pairs
def test_a_score_under_another_sde_is_the_score_of_that_sde(old, new):
    old, new = PROCESSES[old], PROCESSES[new]
    seen = gaussian_score(old, 0.5, (1, 4, 4), mean=0.3).under(new)
    exact = gaussian_score(new, 0.5, (1, 4, 4), mean=0.3)
    assert seen.sde == new
    low, high = old.sigma(torch.tensor([FIRST_TIME, 1.0], dtype=torch.float64)).tolist()
    t = torch.linspace(0.002, 1, 40, dtype=torch.float64)
    t = t[(new.sigma(t) >= low) & (new.sigma(t) <= high)]
    x = torch.randn(len(t), 1, 4, 4, dtype=torch.float64) * new.prior_std
    torch.testing.assert_close(seen(x, t), exact(x, t), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(seen.denoised(x, t), exact.denoised(x, t), rtol=1e-5, atol=1e-5)


@trained
@pairs
def test_levels_that_were_not_trained_get_a_score_of_the_right_size(old, new):
    old, new = PROCESSES[old], PROCESSES[new]
    seen = gaussian_score(old, 0.5, (1, 4, 4)).under(new)
    t = torch.tensor([1.0], dtype=torch.float64)
    x = torch.randn(1, 1, 4, 4, dtype=torch.float64) * new.prior_std
    exact = gaussian_score(new, 0.5, (1, 4, 4))(x, t)
    torch.testing.assert_close(seen(x, t), exact, rtol=0.01, atol=0)


def test_classes_stay_classes_under_another_sde():
    from studio.diffusion.score import Score

    def of(mean):
        return gaussian_score(VPSDE(), 0.5, (1, 2, 2), mean).fn

    score = Score(
        of(0.0),
        VPSDE(),
        (1, 2, 2),
        classes=("low", "high"),
        conditional=lambda labels: of(-1.0 if int(labels[0]) == 0 else 1.0),
    )
    x, t = torch.zeros(1, 1, 2, 2).double(), torch.tensor([0.5]).double()
    seen = score.under(VESDE()).labelled(torch.tensor([1]))
    exact = gaussian_score(VESDE(), 0.5, (1, 2, 2), 1.0)
    torch.testing.assert_close(seen(x, t), exact(x, t), rtol=1e-6, atol=0)


# -- by the command line --------------------------------------------------------------------------


@pytest.fixture
def score_studio(capsys):
    """Runs a command line with --json; (exit code, the object on stdout)."""

    def run(*words):
        capsys.readouterr()
        code = cli.main([*map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_model_is_trained_with_its_own_sde_and_keeps_it(score_studio, tmp_path, home):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(6):
        Image.new("RGB", (8, 8), (40 * i, 90, 200 - 30 * i)).save(pictures / f"{i}.png")
    small = "--size 8 --channels 8 --blocks 1 --embedding 16 --patch 1 --top 0 --batch 4 --steps 3"
    words = ["train", pictures, "--out", "mine", *small.split(), "--sample-every", 0]
    words += ["--precision", "fp32", "--device", "cpu", "--sde", "own", "--option", "sde.g=9*e^t"]
    code, said = score_studio(*words)
    assert (code, said["plan"]["sde"]) == (0, {"kind": "own", "f": "0", "g": "9*e^t"})
    entry = Shelf().find("mine")
    assert entry.info is not None
    assert entry.info.sde == OwnSDE(g="9*e^t")
    assert "sde.g=9*e^t" in (home / "models" / "mine" / "card.md").read_text(encoding="utf-8")
    out = tmp_path / "out.png"
    code, said = score_studio("sample", "mine", "--steps", 3, "--device", "cpu", "--out", out)
    assert code == 0
    assert said["recipe"]["sde"] is None
    code, said = score_studio(*words[:4], *words[4:-1], "sde.g=sine(t)")
    assert (code, "sine" in said["error"]) == (2, True)


def test_a_model_is_sampled_under_another_sde(score_studio, tmp_path, home, tiny_checkpoint):
    home.mkdir()
    words = ["sample", tiny_checkpoint, "--device", "cpu", "--steps", 4, "--sampler", "dpm2m"]
    out = tmp_path / "out.png"
    code, said = score_studio(
        *words, "--out", out, "--sde", "own", "--option", "sde.g=40*t", "--option", "steps=5"
    )
    assert code == 0
    assert said["recipe"]["sde"] == {"kind": "own", "f": "0", "g": "40*t"}
    assert said["recipe"]["sampler"]["steps"] == 5
    assert recipes.read_recipe(out) == said["recipe"]
    for sde, option, complaint in [
        ("owm", "sde.g=1", "owm"),
        ("own", "sde.h=1", "“h”"),
        ("own", "sde.g=2t", "a sign is missing"),
        ("own", "sde.g=t/9", "forgets too little"),
        ("", "sde.g=1", "sde"),
    ]:
        chosen = ["--sde", sde] if sde else []
        code, said = score_studio(*words, "--out", out, *chosen, "--option", option)
        assert (code, complaint in said["error"]) == (2, True), said
