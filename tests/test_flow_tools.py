"""Pictures to noise and back, the ways between two noises, and the commands for all of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_OPTIONS, every_sde, gaussian_score, mixture_score, tiny_network
from PIL import Image

import studio
from studio import cli
from studio.commands import given
from studio.diffusion.flow import DormandPrince, FlowMap, NoiseClock, slerp
from studio.diffusion.noise import Noise
from studio.diffusion.sde import VPSDE
from studio.errors import PictureError, SolverError, SpecError
from studio.weights.formats import native
from studio.weights.model import ModelInfo
from studio.weights.shelf import Shelf

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (3, 4, 4)


def two_heaps(sde):
    return mixture_score(sde, (-0.6, 0.4), 0.3, (0.3, 0.7), SHAPE)


def last(steps):
    return list(steps)[-1]


# -- the flow as a map ----------------------------------------------------------------------------


@every_sde
def test_a_picture_comes_back_from_its_noise(sde):
    score = two_heaps(sde)
    x = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = studio.encode(score, x)
    assert float((studio.decode(score, latent) - x).abs().max()) < 1e-3


@every_sde
def test_noise_comes_back_from_its_picture(sde):
    score = two_heaps(sde)
    latent = Noise.of(0, 2, SHAPE, sde).start() * sde.prior_std
    x = studio.decode(score, latent)
    again = studio.encode(score, x)
    torch.testing.assert_close(again, latent, atol=2e-3 * sde.prior_std, rtol=0)


@every_sde
def test_a_gaussian_picture_is_only_stretched(sde):
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    a, s = sde.marginal(torch.tensor([1e-5, 1.0], dtype=torch.float64))
    first, final = torch.sqrt((a * 0.5) ** 2 + s**2)
    for tolerance, allowed in ((1e-3, 1e-2), (1e-5, 1e-4), (1e-7, 2e-6)):
        end = last(FlowMap(tolerance, tolerance).encode(gaussian_score(sde, 0.5, SHAPE), x))
        torch.testing.assert_close(end.x, x * final / first, rtol=allowed, atol=allowed)


@every_sde
def test_the_sampler_and_the_map_go_the_same_way(sde):
    score = two_heaps(sde)
    noise = Noise.of(3, 2, SHAPE, sde, dtype=torch.float64)
    sampled = last(DormandPrince(rtol=1e-6, atol=1e-7).run(score, noise)).denoised
    decoded = last(FlowMap(1e-6, 1e-7).decode(score, noise.start() * sde.prior_std)).denoised
    # The sampler leaves the flow a little earlier, for the mean of what it may become.
    torch.testing.assert_close(decoded, sampled, atol=2e-3, rtol=0)


@every_sde
def test_the_clock_of_noise_runs_with_the_sde(sde):
    clock, t = NoiseClock(sde), torch.tensor([1e-4, 0.01, 0.3, 1.0], dtype=torch.float64)
    u = torch.log(sde.sigma(t))
    torch.testing.assert_close(clock.time(u), t, rtol=1e-6, atol=1e-9)
    # kept and pull are f and g²/2 times dt/du, which is the slope of `time`.
    near = 1e-4
    speed = (clock.time(u[:3] + near) - clock.time(u[:3] - near)) / (2 * near)
    f, g = sde.coefficients(t[:3])
    kept, pull = clock.terms(t[:3])
    torch.testing.assert_close(kept, f * speed, rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(pull, g**2 / 2 * speed, rtol=1e-3, atol=1e-9)


def test_every_step_tells_where_it_is():
    score = two_heaps(VPSDE())
    x = torch.zeros(2, *SHAPE)
    there = list(FlowMap(1e-4, 1e-4).encode(score, x))
    back = list(FlowMap(1e-4, 1e-4).decode(score, there[-1].x))
    assert [s.t for s in there] == sorted(s.t for s in there)
    assert [s.t for s in back] == sorted((s.t for s in back), reverse=True)
    assert (there[-1].t, back[-1].t) == (1.0, 1e-5)
    for steps in (there, back):
        assert steps[-1].nfe == 6 * len(steps) + 1
        assert steps[-1].total == len(steps)
        assert all(s.total >= s.index for s in steps)
    torch.testing.assert_close(back[-1].denoised, back[-1].x, atol=5e-3, rtol=0)


@every_sde
def test_a_picture_is_encoded_alike_alone_and_in_company(sde):
    score, x = two_heaps(sde), torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, *SHAPE)
    together, alone = studio.encode(score, x), studio.encode(score, x[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-5)


def test_a_flow_that_cannot_be_followed_says_so():
    stiff = studio.Score.from_function(lambda x, t: x * math.nan, VPSDE(), SHAPE)
    with pytest.raises(SolverError, match="stiff"):
        studio.encode(stiff, torch.ones(1, *SHAPE))


@pytest.mark.parametrize(
    "x", [torch.ones(1, 3, 4, 5), torch.ones(3, 4, 4), torch.ones(1, *SHAPE).int()]
)
def test_what_does_not_fit_the_model_is_refused(x):
    with pytest.raises(PictureError, match="shape"):
        studio.decode(two_heaps(VPSDE()), x)


# -- between two noises ---------------------------------------------------------------------------


def test_the_way_between_two_noises_stays_among_noises():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 32, 32, generator=generator)
    b = 1.1 * torch.randn(3, 32, 32, generator=generator)
    shares = torch.linspace(0, 1, 9)
    between = slerp(a, b, shares)
    torch.testing.assert_close(between[0], a)
    torch.testing.assert_close(between[-1], b)
    lengths = between.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, a.norm() + shares * (b.norm() - a.norm()))
    directions = between.flatten(1) / lengths[:, None]
    cosines = (directions[1:] * directions[:-1]).sum(1)
    torch.testing.assert_close(cosines, cosines[:1].expand(8), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 0.0])
def test_noises_of_one_direction_are_joined_by_a_line(factor):
    a = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    between = slerp(a, factor * a, torch.tensor([0.0, 0.25, 1.0]))
    wanted = torch.stack([a, (0.75 + 0.25 * factor) * a, factor * a])
    torch.testing.assert_close(between, wanted, rtol=1e-3, atol=1e-3)


def test_temperature_scales_the_noise_a_sample_begins_from():
    score, noise = gaussian_score(VPSDE(), 0.5, SHAPE), Noise.of(0, 2, SHAPE, VPSDE())
    warm, cold = (last(DormandPrince(1e-5, 1e-5, k).run(score, noise)).x for k in (1.0, 0.5))
    torch.testing.assert_close(cold, warm / 2, rtol=1e-3, atol=1e-4)
    with pytest.raises(SpecError, match="Temperature"):
        next(DormandPrince(temperature=3.0).run(score, noise))


# -- the public face ------------------------------------------------------------------------------


def test_the_likelihood_is_one_line_of_python():
    score = gaussian_score(VPSDE(), 0.5, SHAPE)
    x = 0.5 * torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    wanted = (2 * x**2 + math.log(0.5 * math.sqrt(2 * math.pi))).flatten(1).mean(1) / math.log(2)
    bits = studio.log_likelihood(score, x)
    torch.testing.assert_close(bits, wanted, atol=1e-3, rtol=0)
    exact = studio.log_likelihood(score, x.double(), method="exact", precision="float64")
    torch.testing.assert_close(exact.float(), wanted, atol=1e-3, rtol=0)
    with pytest.raises(SpecError, match="probes"):
        studio.log_likelihood(score, x, probs=3)
    with pytest.raises(PictureError, match="shape"):
        studio.log_likelihood(score, x[:, :1])


# -- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def model(home: Path) -> str:
    info = ModelInfo(options=TINY_OPTIONS, size=8, classes=("cat", "dog"), steps=12)
    native.save(home / "models" / "tiny", info, tiny_network().state_dict(), card="# Tiny\n")
    return "tiny"


@pytest.fixture
def exact(monkeypatch) -> str:
    """A model whose density is known: values N(0, 0.5²) for each level's middle, at 8 pixels."""
    score = gaussian_score(VPSDE(), 0.5, (3, 8, 8))
    monkeypatch.setattr(Shelf, "load", lambda *_, **__: score)
    return "exact"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        pixels = rng.integers(0, 256, (9 + i, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (folder / "broken.png").write_text("no picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


@pytest.fixture
def run(capsys):
    """Runs a command line with --json; (exit code, the one object on stdout)."""

    def run(*words: object) -> tuple[int, dict]:
        capsys.readouterr()
        code = cli.main([*map(str, words), "--device", "cpu", "--json"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        return code, json.loads(lines[0])

    return run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


ROUGH = ["--tolerance", "0.05"]


def test_a_folder_is_measured_file_by_file(run, exact, folder, tmp_path):
    words = ["likelihood", exact, folder, "--map", tmp_path / "map.png"]
    code, said = run(*words, "--batch", 2)
    assert code == 0
    assert [Path(f["path"]).name for f in said["files"]] == ["0.png", "1.png", "2.png"]
    assert [Path(s["path"]).name for s in said["skipped"]] == ["broken.png"]
    bits = [f["bits"] for f in said["files"]]
    assert said["mean"] == pytest.approx(np.mean(bits))
    assert said["error"] == pytest.approx(np.std(bits, ddof=1) / math.sqrt(3))
    assert pixels(tmp_path / "map.png").ndim == 2
    # A picture alone has the bits that it has in company, and they are those of its levels.
    _, alone = run("likelihood", exact, folder / "2.png", "--seed", 2)
    assert alone["files"][0]["bits"] == pytest.approx(bits[2], abs=1e-4)
    levels = torch.from_numpy(
        given.picture(folder / "2.png", gaussian_score(VPSDE(), 1, (3, 8, 8)))
    )
    normal = torch.distributions.Normal(128.0, 64.0)
    chance = normal.cdf(levels.double() + 1) - normal.cdf(levels.double())
    assert bits[2] == pytest.approx(float(-torch.log2(chance).mean()), abs=4e-3)


def test_the_figure_is_that_of_the_library(run, model, folder):
    words = ["--tolerance", 0.1, "--probes", 1, "--limit", 1, "--label", "dog"]
    _, said = run("likelihood", model, folder, *words)
    assert said["left_out"] == 3
    assert len(said["files"]) == 1
    score = studio.load(model, device="cpu").labelled(torch.tensor([1]))
    picture = given.picture(folder / "0.png", score)[None]
    bits = studio.log_likelihood(score, picture, rtol=0.1, atol=0.1, probes=1)
    assert said["mean"] == pytest.approx(float(bits), abs=1e-4)


def test_a_single_probe_has_no_error_to_tell(run, exact, folder, capsys):
    words = ["likelihood", exact, folder / "0.png", *ROUGH, "--probes", 1]
    assert run(*words)[1]["error"] is None
    assert cli.main([*map(str, words), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "±" not in out
    assert "bits per dimension" in out


def test_a_tiny_picture_is_measured_exactly(run, exact, folder):
    _, said = run("likelihood", exact, folder / "0.png", *ROUGH, "--exact")
    assert said["measure"]["method"] == "exact"
    assert said["error"] == 0


def test_a_picture_goes_to_noise_and_back(run, exact, folder, tmp_path):
    latent, made = tmp_path / "a.npz", tmp_path / "b.png"
    code, said = run("encode", exact, folder / "0.png", "--out", latent, "--check")
    assert code == 0
    assert said["shape"] == [1, 3, 8, 8]
    assert said["roundtrip"]["mean"] <= said["roundtrip"]["max"] < 0.1
    code, said = run("decode", exact, latent, "--out", made)
    assert (code, said["count"]) == (0, 1)
    wanted = given.picture(folder / "0.png", gaussian_score(VPSDE(), 0.5, (3, 8, 8)))
    assert np.array_equal(pixels(made), wanted)
    run("decode", exact, latent, "--temperature", 0, "--out", made)
    assert np.ptp(pixels(made)) == 0


def test_a_network_s_picture_goes_to_noise_and_back(run, model, folder, tmp_path):
    latent, made = tmp_path / "a.npz", tmp_path / "b.png"
    words = ["--label", "cat", "--tolerance", "1e-3", "--out"]
    assert run("encode", model, folder / "0.png", *words, latent)[0] == 0
    assert run("decode", model, latent, *words, made)[0] == 0
    wanted = given.picture(folder / "0.png", gaussian_score(VPSDE(), 0.5, (3, 8, 8)))
    assert np.abs(pixels(made).astype(int) - wanted).mean() < 10


def test_the_way_between_two_pictures_is_a_strip_and_a_film(run, exact, folder, tmp_path):
    strip, film = tmp_path / "strip.png", tmp_path / "film.gif"
    code, said = run("interpolate", exact, folder / "0.png", folder / "1.png", *ROUGH,
                     "--count", 3, "--out", strip, "--film", film)  # fmt: skip
    assert code == 0
    assert said["files"] == [str(strip), str(film)]
    height, width, _ = pixels(strip).shape
    assert width / height == pytest.approx((3 * 10 - 2) / 8)
    with Image.open(film) as image:
        assert image.n_frames == 4


def bad_latents(folder: Path) -> dict[str, Path]:
    good = np.zeros((1, 3, 8, 8), np.float32)
    contents = {
        "wrong-shape": {"latent": good[:, :, :4]},
        "whole-numbers": {"latent": good.astype(int)},
        "not-finite": {"latent": good + np.nan},
        "nothing": {"other": good},
        "objects": {"latent": np.array([{}], dtype=object)},
        "empty": {"latent": good[:0]},
        "too-large": {"latent": np.zeros((1, 3, 800, 800))},
        "another-sde": {"latent": good, "about": np.array('{"sde": {"kind": "ve"}}')},
        "nested": {"latent": good, "about": np.array("[" * 100_000)},
    }
    for name, arrays in contents.items():
        np.savez_compressed(folder / f"{name}.npz", **arrays)
    (folder / "text.npz").write_text("no latent")
    return {name: folder / f"{name}.npz" for name in [*contents, "text", "missing"]}


def test_a_latent_that_is_none_is_told_in_one_line(run, model, tmp_path, capsys):
    for name, path in bad_latents(tmp_path).items():
        code, said = run("decode", model, path, "--out", tmp_path / "a.png")
        assert code == 2, name
        assert path.name in said["error"], name
        assert "\n" not in said["error"]
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["likelihood", "tiny"], "DATA must be given"),
        (["likelihood", "tiny", "nowhere.png"], "no picture at nowhere.png"),
        (["likelihood", "tiny", "text.png"], "text.png is not a picture"),
        (["likelihood", "tiny", "text.npz"], "not an image pack"),
        (["likelihood", "tiny", "empty"], "No picture in empty"),
        (["likelihood", "tiny", "a.png", "--probes", "0"], "from 1 to 1000"),
        (["likelihood", "tiny", "a.png", "--tolerance", "nan"], "finite"),
        (["likelihood", "tiny", "a.png", "--map", "map.jpg"], "map.png"),
        (["likelihood", "tiny", "a.png", "--label", "bird"], "no class “bird”"),
        (["likelihood", "nobody", "a.png"], "no model “nobody”"),
        (["encode", "tiny", "nowhere.png"], "no picture at"),
        (["encode", "tiny", "a.png", "--out", "a.png"], "a.npz"),
        (["decode", "tiny", "a.npz", "--temperature", "-1"], "from 0 to 2"),
        (["interpolate", "tiny", "a.png"], "must be given"),
        (["interpolate", "tiny", "a.png", "a.png", "--count", "1"], "from 2 to 64"),
        (["interpolate", "tiny", "a.png", "a.png", "--film", "a.mp4"], "a.webp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_answered_in_one_line(words, said, model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    for name in ("text.png", "text.npz"):
        Path(name).write_text("neither")
    Path("empty").mkdir()
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err


def test_a_grey_model_is_given_grey_pictures(tmp_path):
    Image.new("RGB", (10, 8), (255, 0, 0)).save(tmp_path / "red.png")
    score = gaussian_score(VPSDE(), 0.5, (1, 8, 8))
    assert given.picture(tmp_path / "red.png", score).shape == (8, 8, 1)
