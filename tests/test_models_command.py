"""`score-studio models …` from a person's shell: what is said, what is done, and how it ends."""

from __future__ import annotations

import io
import json
import sys

import huggingface_hub.constants
import pytest
import torch
from conftest import SHIPPED, SHIPPED_CLASSIFIERS, TINY_OPTIONS, tiny_network
from hub_server import Repo, serving

import studio
from studio import cli, spec
from studio.networks.classifier import ClassifierOptions
from studio.weights import classifiers
from studio.weights import hub as hubs
from studio.weights.formats import native
from studio.weights.known import KNOWN
from studio.weights.model import ModelInfo
from studio.weights.shelf import Shelf

INFO = ModelInfo(options=TINY_OPTIONS, size=8, classes=("cat", "dog"), steps=12)
ID = "someone/tiny"


@pytest.fixture
def run(capsys):
    """Run a command line; the exit code, and what it said as JSON or, without --json, as text."""

    def call(*words: str):
        code = cli.main(list(words))
        out = capsys.readouterr()
        said = json.loads(out.out) if "--json" in words else out.out + out.err
        return code, said

    return call


@pytest.fixture
def mine(home):
    native.save(home / "models" / "mine", INFO, tiny_network().state_dict(), card="# Mine\n")
    return home / "models" / "mine"


@pytest.fixture(scope="module")
def server():
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch, tiny_checkpoint):
    """A hub with one small model in the studio's own format."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, place in (("HF_HUB_CACHE", "cache"), ("HF_TOKEN_PATH", "token")):
        monkeypatch.setattr(huggingface_hub.constants, name, str(tmp_path / "hf" / place))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.begin()
    files = {p.name: p.read_bytes() for p in tiny_checkpoint.iterdir()}
    server.repos[ID] = Repo(files)
    return server


def test_a_model_is_got_listed_verified_renamed_and_removed(run, hub, home):
    code, said = run("models", "get", ID, "--json")
    assert code == 0
    assert (said["done"], said["problem"], said["interrupted"]) == (said["bytes"], "", False)
    assert said["licence"] == "apache-2.0"
    code, said = run("models", "list", "--json")
    (entry,) = [m for m in said["models"] if not m["ships"]]
    assert (entry["name"], entry["source"], entry["format"]) == (
        "someone--tiny",
        ID,
        "Score Studio",
    )
    assert said["used_bytes"] == entry["bytes"] > 0
    assert said["unfinished"] == []
    code, said = run("models", "info", ID, "--json")
    assert code == 0
    assert said["revision"] == hub.repos[ID].sha
    code, said = run("models", "verify", ID, "--json")
    assert (code, said["ok"]) == (0, True)
    code, said = run("models", "rename", ID, "faces", "--json")
    assert (code, said["name"]) == (0, "faces")
    code, said = run("models", "remove", "faces", "--yes", "--json")
    assert (code, said["freed_bytes"]) == (0, entry["bytes"])
    assert list((home / "models").iterdir()) == []


def test_getting_says_how_it_goes_on_stderr_alone(hub, capsys):
    assert cli.main(["models", "get", ID]) == 0
    out = capsys.readouterr()
    assert out.out.startswith(f"{ID} is on the shelf: ")
    assert "licence: apache-2.0" in out.err
    assert cli.main(["models", "get", ID]) == 0
    assert "is on the shelf" in capsys.readouterr().out


def test_ctrl_c_pauses_and_the_same_command_goes_on(run, hub, monkeypatch):
    hub.repos[ID].files["model.safetensors"] += bytes(500_000)
    hub.slow = 0.02
    told = hubs.fetch

    def interrupted(*args):
        for step in told(*args):
            yield step
            if step.done > 100_000:
                raise KeyboardInterrupt
        return args[1]

    monkeypatch.setattr(hubs, "fetch", interrupted)
    code, said = run("models", "get", ID, "--json")
    assert (code, said["interrupted"]) == (130, True)
    assert 100_000 < said["done"] < said["bytes"]
    (begun,) = run("models", "list", "--json")[1]["unfinished"]
    assert begun["id"] == ID
    assert begun["done"] >= said["done"]
    assert "get it to go on" in run("models", "list")[1]
    monkeypatch.setattr(hubs, "fetch", told)
    hub.slow = 0.0
    code, said = run("models", "get", ID, "--json")
    assert (code, said["interrupted"], said["done"]) == (0, False, said["bytes"])
    assert len([a for a in hub.asked if a.start > 0 and a.host == "store"]) == 1


def test_an_unfinished_download_can_be_removed(run, hub, home):
    hub.repos[ID].files["model.safetensors"] += bytes(500_000)
    hub.slow = 0.02
    steps = hubs.fetch(hubs.look(ID), hubs.folder_of(ID))
    while next(steps).done < 100_000:
        pass
    steps.close()
    code, said = run("models", "remove", ID, "--json")
    assert (code, "--yes" in said["hint"]) == (2, True)
    assert run("models", "remove", ID, "--yes", "--json")[0] == 0
    assert list((home / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["get", "no id"], "no model of the hub"),
        (["get", "someone/nobody"], "There is no model someone/nobody on the hub"),
        (["get", ID, "--revision", "v9"], "no such revision"),
        (["get", ID, "--token", "two words"], "token"),
        (["add", "nowhere"], "nothing at nowhere"),
        (["rename", "nobody", "x"], "no model “nobody”"),
        (["remove", "nobody", "--yes"], "no model “nobody”"),
        (["remove", "critters-32", "--yes"], "ships with the studio"),
        (["rename", "critters-32", "x"], "ships with the studio"),
        (["verify", "nobody"], "no model “nobody”"),
        (["info", "google/ddpm-cat-256"], "models get google/ddpm-cat-256"),
        (["remove"], "NAME must be given"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(run, hub, words, said):
    code, text = run("models", *words)
    assert code == 2
    assert said in text
    assert text.count("\n") == 1
    code, data = run("models", *words, "--json")
    assert code == 2
    assert said in f"{data['error']} {data['hint']}"


def test_a_model_that_cannot_be_used_is_kept_and_said(run, hub):
    hub.repos[ID] = Repo({"model.safetensors": b"\xff" * 5000})
    code, said = run("models", "get", ID, "--json")
    assert code == 0
    assert "damaged" in said["problem"]


def test_a_lone_file_says_how_it_comes_on_the_shelf(run, hub):
    hub.repos[ID] = Repo({"checkpoint_8.pth": b"x" * 5000})
    code, said = run("models", "get", ID)
    assert code == 0
    assert "score-studio models add" in said
    assert "checkpoint_8.pth" in said


def test_a_folder_is_added_under_a_name(run, tiny_checkpoint):
    code, said = run("models", "add", str(tiny_checkpoint), "--name", "cats", "--json")
    assert (code, said["name"], said["source"]) == (0, "cats", "tiny")
    assert said["card"].startswith("# cats")
    assert Shelf().find("cats").info == INFO


def test_removing_asks_where_a_person_sits(run, mine, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    code, said = run("models", "remove", "mine")
    assert code == 2
    assert "for good? Type yes:" in said
    assert "left as it is" in said
    assert mine.exists()
    monkeypatch.setattr(sys, "stdin", Terminal("yes\n"))
    assert run("models", "remove", "mine")[0] == 0
    assert not mine.exists()


def test_removing_unasked_is_refused_where_nobody_can_be_asked(run, mine):
    code, said = run("models", "remove", "mine")
    assert code == 2
    assert "--yes" in said
    assert mine.exists()


def test_all_models_are_verified_and_a_bad_one_is_named(run, mine):
    code, said = run("models", "verify", "--json")
    assert (code, said["ok"]) == (0, True)
    assert {m["name"] for m in said["models"]} == {"mine", *SHIPPED}
    (mine / native.WEIGHTS).write_bytes(b"\xff" * 64)
    code, said = run("models", "verify")
    assert code == 2
    assert "NOT whole" in said
    assert "damaged" in said


def test_known_models_are_listed(run):
    code, said = run("models", "known", "--json")
    assert code == 0
    assert [k["id"] for k in said["known"]] == [k.id for k in KNOWN]
    assert "google/ddpm-cifar10-32" in run("models", "known")[1]


def test_an_exported_model_is_got_from_a_hub_as_it_was(run, hub, mine, tmp_path):
    out = tmp_path / "exported"
    code, said = run("models", "export", "mine", str(out), "--json")
    assert code == 0
    assert said["files"]
    files = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    hub.repos[ID] = Repo(files)
    code, said = run("models", "get", ID, "--json")
    assert (code, said["problem"]) == (0, "")
    state = Shelf().find("mine").opened.network().state_dict()
    got = Shelf().find(ID).opened.network().state_dict()
    assert got.keys() == state.keys()
    assert all(torch.equal(got[k], v) for k, v in state.items())
    assert studio.load(ID, "cpu").shape == (3, 8, 8)
    assert run("models", "verify", ID, "--json")[1]["ok"]


# -- classifiers ----------------------------------------------------------------------------------


@pytest.fixture
def judge(home):
    options = ClassifierOptions(
        size=8, classes=2, channels=(8,), blocks=(1,), attention=(), embedding=8, patch=1
    )
    info = classifiers.ClassifierInfo(
        options=spec.to_dict(options), size=8, classes=("dark", "light")
    )
    net = classifiers.build(info)
    return classifiers.save(home / "models" / "judge", info, net.state_dict())


def test_classifiers_are_listed_apart_from_models(run, mine, judge):
    code, said = run("models", "list", "--json")
    assert code == 0
    assert {m["kind"] for m in said["models"]} == {"model"}
    (entry,) = (c for c in said["classifiers"] if c["name"] not in SHIPPED_CLASSIFIERS)
    assert (entry["name"], entry["kind"], entry["classes"]) == (
        "judge",
        "classifier",
        ["dark", "light"],
    )
    assert "judge" in run("models", "list")[1]


def test_a_classifier_is_shown_verified_renamed_and_removed(run, judge):
    code, said = run("models", "info", "judge", "--json")
    assert (code, said["kind"], said["size"]) == (0, "classifier", 8)
    assert run("models", "verify", "judge", "--json")[1]["ok"]
    assert run("models", "rename", "judge", "critic")[0] == 0
    assert {name for name, _ in classifiers.entries()} == {"critic", *SHIPPED_CLASSIFIERS}
    assert run("models", "remove", "critic", "--yes")[0] == 0
    assert [name for name, _ in classifiers.entries()] == SHIPPED_CLASSIFIERS


def test_a_damaged_classifier_is_told_and_not_whole(run, judge):
    judge.write_bytes(judge.read_bytes()[:200])
    assert run("models", "list", "--json")[1]["classifiers"][0]["problem"]
    assert "cannot be used" in run("models", "list")[1]
    assert run("models", "verify", "judge")[0] == 2


def test_a_classifier_given_for_a_model_is_told_what_it_is_for(run, judge, tmp_path):
    for source in ("judge", str(judge), str(judge.parent)):
        code, said = run("sample", source, "--out", str(tmp_path / "out.png"))
        assert code == 2
        assert "is a classifier" in said
        assert "--classifier judge" in said
