"""Fetching a model survives every way in which a network, a server or a person can get in between."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
from conftest import REPOSITORY
from hub_server import Hub, Repo, blob, serving

from studio.errors import HubError, SaveError, StudioError
from studio.weights import hub as hubs
from studio.weights import library, listing
from studio.weights.hub import discard, fetch, folder_of, look, unfinished
from studio.weights.transfer import Patience, retry_after

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
ID = "someone/faces-64"
QUICK = Patience(connect=1.0, silence=0.2, tries=3, backoff=0.01, longest=0.5)
DROP, STALL = ("drop", 150_000), ("stall", 150_000)
DATA = random.Random(0).randbytes(400_000)


def a_repo(**changes: bytes) -> Repo:
    files = {
        "model_index.json": b'{"_class_name": "DDPMPipeline"}',
        "unet/config.json": b'{"sample_size": 64}',
        "scheduler/scheduler_config.json": b"{}",
        "README.md": b"# Faces",
        ".gitattributes": b"*.bin filter=lfs",
        WEIGHTS: DATA,
    }
    return Repo(files | changes)


@pytest.fixture(scope="module")
def server():
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """A hub with one model, which huggingface_hub and the studio take for the real one."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, place in (("HF_HUB_CACHE", "cache"), ("HF_TOKEN_PATH", "token")):
        monkeypatch.setattr(huggingface_hub.constants, name, str(tmp_path / "hf" / place))
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.begin()
    server.repos[ID] = a_repo()
    return server


def get(id: str = ID, **how):
    """Look and fetch to the end; what was said on the way, and the folder."""
    token = how.pop("token", None)
    found = how.pop("listing", None) or look(id, token=token, patience=QUICK)
    said, steps = [], fetch(found, folder_of(id), token, patience=QUICK, **how)
    try:
        while True:
            said.append(next(steps))
    except StopIteration as done:
        return said, done.value


def until(steps, reached):
    """Take steps until one satisfies `reached`, then close."""
    for step in steps:
        if reached(step):
            steps.close()
            return step
    raise AssertionError("it never came to that")


def interrupted(hub: Hub) -> None:
    """Begin a download, and lose the hub after 150,000 bytes of the weights."""
    hub.tricks[WEIGHTS] = [DROP, *[("status", 500)] * 5]
    with pytest.raises(HubError):
        get()
    hub.tricks.clear()
    hub.asked.clear()


def is_whole(folder: Path, repo: Repo | None = None) -> bool:
    files = (repo or a_repo()).files
    got = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    return got == files.keys() - {".gitattributes"} | {"origin.json"} and all(
        (folder / p).read_bytes() == files[p] for p in got - {"origin.json"}
    )


def part_of(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.part" / "parts" / WEIGHTS


# -- when all goes well -------------------------------------------------------------------------


def test_a_listing_says_what_a_model_takes(hub):
    found = look(ID)
    assert {f.path for f in found.files} == a_repo().files.keys() - {".gitattributes"}
    assert found.revision == a_repo().sha
    assert found.licence == "apache-2.0"
    assert found.bytes == sum(len(v) for k, v in a_repo().files.items() if k != ".gitattributes")
    weights = next(f for f in found.files if f.path == WEIGHTS)
    assert weights.sha256 == hashlib.sha256(DATA).hexdigest()


def test_a_model_comes_whole_with_its_origin(hub):
    said, folder = get()
    assert folder == folder_of(ID)
    assert folder.name == "someone--faces-64"
    assert is_whole(folder)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    dones = [s.done for s in said]
    assert dones == sorted(dones)
    assert dones[-1] == said[-1].total == look(ID).bytes
    origin = library.origin_in(folder)
    assert origin is not None
    assert (origin.source, origin.revision) == (ID, a_repo().sha)
    assert origin.files[WEIGHTS].sha256 == hashlib.sha256(DATA).hexdigest()


def test_what_is_there_is_not_fetched_again(hub):
    get()
    hub.asked.clear()
    said, folder = get()
    assert [a.path for a in hub.asked if "/api/" not in a.path] == []
    assert said[-1].done == said[-1].total
    assert is_whole(folder)


def test_a_model_in_the_hubs_cache_is_taken_from_there(hub, tmp_path):
    snapshot = tmp_path / "hf/cache/models--someone--faces-64/snapshots" / a_repo().sha
    (snapshot / "unet").mkdir(parents=True)
    (snapshot / WEIGHTS).write_bytes(DATA)
    _, folder = get()
    assert hub.of(WEIGHTS) == []
    assert is_whole(folder)


def test_a_damaged_file_in_the_cache_is_not_believed(hub, tmp_path):
    snapshot = tmp_path / "hf/cache/models--someone--faces-64/snapshots" / a_repo().sha
    (snapshot / "unet").mkdir(parents=True)
    (snapshot / WEIGHTS).write_bytes(DATA[:-1] + b"!")
    assert is_whole(get()[1])


def test_a_newer_revision_replaces_the_model_and_brings_only_what_changed(hub):
    _, folder = get()
    hub.repos[ID] = a_repo(**{"README.md": b"# Better faces"})
    hub.asked.clear()
    get()
    assert is_whole(folder, hub.repos[ID])
    assert hub.of(WEIGHTS) == []


def test_an_empty_file_and_a_compressed_one_come_as_they_are(hub):
    hub.repos[ID] = a_repo(**{"README.md": b""})
    hub.tricks["unet/config.json"] = [("gzip",)]
    assert is_whole(get()[1], hub.repos[ID])


def test_a_page_address_is_an_id():
    assert hubs.checked_id(" https://huggingface.co/google/ddpm-cat-256/tree/main ") == (
        "google/ddpm-cat-256"
    )


# -- pausing, going on, cancelling --------------------------------------------------------------


def test_a_paused_download_goes_on_where_it_was(hub):
    hub.slow, folder = 0.05, folder_of(ID)
    step = until(fetch(look(ID), folder, patience=QUICK), lambda s: s.done > 100_000)
    length = part_of(folder).stat().st_size
    (begun,) = unfinished()
    assert (begun.id, begun.revision, begun.folder) == (ID, a_repo().sha, folder)
    assert begun.done >= step.done > length > 0
    assert begun.total == step.total
    hub.slow = 0.0
    hub.asked.clear()
    said, _ = get()
    assert [a.start for a in hub.of(WEIGHTS)] == [length]
    assert said[0].done == begun.done
    assert is_whole(folder)
    assert unfinished() == []


def test_speed_and_time_left_are_told(hub):
    hub.slow = 0.06
    said, _ = get()
    fast = [s for s in said if s.speed > 0]
    assert fast
    assert 65536 / 0.06 / 4 < fast[-1].speed < 65536 / 0.06 * 2
    assert fast[0].eta == pytest.approx((fast[0].total - fast[0].done) / fast[0].speed)
    assert said[0].eta is None


@pytest.mark.parametrize("what", ["the unfinished", "the folder"])
def test_a_cancelled_download_leaves_nothing(hub, what):
    hub.slow, folder = 0.05, folder_of(ID)
    until(fetch(look(ID), folder, patience=QUICK), lambda s: s.done > 100_000)
    discard(unfinished()[0] if what == "the unfinished" else folder)
    assert list(folder.parent.iterdir()) == []
    discard(folder)  # nothing to cancel is no error


def test_two_downloads_of_one_model_do_not_get_mixed_up(hub):
    hub.slow = 0.05
    first = fetch(look(ID), folder_of(ID), patience=QUICK)
    next(first)
    with pytest.raises(HubError, match="being fetched already"):
        get()
    with pytest.raises(HubError, match="being fetched already"):
        discard(folder_of(ID))
    hub.slow = 0.0
    for _ in first:
        pass
    assert is_whole(folder_of(ID))


@pytest.mark.parametrize(
    "how",
    [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
    ids=["killed", "interrupted"],
)
def test_a_process_that_ends_midway_loses_nothing(hub, home, tmp_path, how):
    repo = hub.repos[ID] = a_repo(**{WEIGHTS: random.Random(1).randbytes(3_000_000)})
    hub.slow = 0.05
    command = [sys.executable, "-m", "studio", "models", "get", ID, "--json"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HOME": str(tmp_path / "hf")}
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    # A shell that runs the tests in the background has told them to ignore Ctrl-C.
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    running = subprocess.Popen(command, env=environment, preexec_fn=heed, **out)
    folder, end = folder_of(ID), time.monotonic() + 30
    while not (part_of(folder).exists() and part_of(folder).stat().st_size > 300_000):
        assert running.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    running.send_signal(how)
    said, _ = running.communicate()
    length = part_of(folder).stat().st_size
    assert 0 < length < 3_000_000
    assert unfinished()[0].done >= length
    if how == signal.SIGINT:
        assert (running.returncode, json.loads(said)["interrupted"]) == (130, True)
    hub.slow = 0.0
    hub.asked.clear()
    again = subprocess.run(command, env=environment, **out, check=False)
    told = json.loads(again.stdout)
    assert again.returncode == 0
    assert [(a.start, a.sent) for a in hub.of(WEIGHTS)] == [(length, 3_000_000 - length)]
    assert told["done"] == told["bytes"]
    assert is_whole(folder, repo)


# -- a network that fails -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tricks", "starts"),
    [
        ([DROP], [0, 150_000]),
        ([STALL], [0, 150_000]),
        ([DROP, ("drop", 100_000)], [0, 150_000, 250_000]),
        ([("status", 500)], [0, 0]),
        ([DROP, ("status", 503)], [0, 150_000, 150_000]),
        ([("status", 429, {"Retry-After": "0.1"})], [0, 0]),
        ([("status", 403)], [0, 0]),  # a link of the store that grew old
        ([DROP, ("ignore range",)], [0, 150_000]),
        ([DROP, ("other range",)], [0, 150_000, 0]),
        ([DROP, ("status", 416)], [0, 150_000, 0]),
        ([DROP, ("corrupt",)], [0, 150_000]),  # the part before the flaw is what counts
        ([("corrupt",)], [0, 0]),
        ([("longer",)], [0, 0]),
        ([("shorter",)], [0, 0]),
        ([("endless",)], [0, 0]),
        ([("drop", 0), ("drop", 0)], [0, 0, 0]),
    ],
)
def test_a_failure_that_passes_is_got_over(hub, tricks, starts):
    hub.tricks[WEIGHTS] = list(tricks)
    _, folder = get()
    assert [a.start for a in hub.of(WEIGHTS)] == starts
    assert is_whole(folder)


def test_what_happens_is_told(hub):
    hub.tricks[WEIGHTS] = [DROP, ("status", 502), ("ignore range",)]
    notes = " ".join(s.note for s in get()[0])
    assert "the connection broke; trying again" in notes
    assert "answered 502" in notes
    assert "changed on the server: fetching it anew" in notes


@pytest.mark.parametrize(
    ("trick", "why"),
    [
        (("drop", 0), "connection broke"),
        (("stall", 0), "fell silent"),
        (("status", 500), "answered 500"),
        (("status", 429, {"Retry-After": "3600"}), "3600 seconds of rest"),
        (("status", 204), "answered 204"),
    ],
)
def test_a_failure_that_stays_is_said_and_what_came_is_kept(hub, trick, why):
    hub.tricks[WEIGHTS] = [DROP, *[trick] * 5]
    with pytest.raises(HubError, match=why) as caught:
        get()
    assert "150,000 of 400,000 bytes" in caught.value.message
    assert part_of(folder_of(ID)).stat().st_size == 150_000
    hub.tricks.clear()
    hub.asked.clear()
    assert is_whole(get()[1])
    assert [a.start for a in hub.of(WEIGHTS)] == [150_000]


def test_a_server_that_starts_over_and_drops_does_so_only_a_few_times(hub):
    hub.tricks[WEIGHTS] = [("drop", 200_000)] * 2 + [("status", 500)] * 9
    hub.etag = "one"
    steps = fetch(look(ID), folder_of(ID), patience=QUICK)
    with pytest.raises(HubError):
        for _ in steps:
            hub.etag = str(time.monotonic())  # every answer is of another file
    assert len(hub.of(WEIGHTS)) <= 8


@pytest.mark.parametrize("trick", ["corrupt", "longer", "shorter", "endless"])
def test_a_file_that_is_wrong_twice_is_refused_and_deleted(hub, trick):
    hub.tricks[WEIGHTS] = [(trick,)] * 2
    with pytest.raises(HubError, match="twice in a row"):
        get()
    assert len(hub.of(WEIGHTS)) == 2
    assert not part_of(folder_of(ID)).exists()
    assert not folder_of(ID).exists()


def test_a_small_file_is_checked_by_its_blob(hub):
    hub.tricks["unet/config.json"] = [("corrupt",), ("corrupt",)]
    with pytest.raises(HubError, match="checksum"):
        get()


def test_a_file_that_changed_on_the_hub_is_fetched_anew_and_this_is_said(hub):
    interrupted(hub)
    hub.repos[ID] = a_repo(**{WEIGHTS: DATA[::-1]})
    hub.asked.clear()
    said, folder = get()
    assert "has changed on the hub" in said[0].note
    assert [a.start for a in hub.of(WEIGHTS)] == [0]
    assert is_whole(folder, hub.repos[ID])


def test_a_part_of_another_version_is_thrown_away_by_its_etag(hub):
    interrupted(hub)
    hub.etag = "two"
    said, folder = get()
    (asked,) = hub.of(WEIGHTS)
    assert (asked.start, asked.headers["if-range"]) == (150_000, '"one"')
    assert asked.sent == len(DATA)
    assert any("changed on the server" in s.note for s in said)
    assert is_whole(folder)


@pytest.mark.parametrize("etag", ["", "two words", "café"])
def test_an_etag_that_cannot_be_sent_back_is_done_without(hub, etag):
    hub.etag = etag
    interrupted(hub)
    assert is_whole(get()[1])
    assert [a.start for a in hub.of(WEIGHTS)] == [150_000]


def test_a_part_that_is_too_long_is_thrown_away(hub):
    interrupted(hub)
    with part_of(folder_of(ID)).open("ab") as part:
        part.write(bytes(500_000))
    assert is_whole(get()[1])


def test_a_pause_takes_effect_while_waiting(hub):
    hub.tricks[WEIGHTS] = [("status", 503, {"Retry-After": "100"})]
    patient = replace(QUICK, longest=200)
    steps = fetch(look(ID), folder_of(ID), patience=patient)
    began = time.monotonic()
    until(steps, lambda s: "trying again in 100 s" in s.note)
    assert time.monotonic() - began < 2


def test_how_long_a_server_asks_to_wait():
    def seconds(text):
        return retry_after({"retry-after": text} if text else {})

    assert (seconds("7"), seconds("0.5"), seconds(""), seconds("soon")) == (7, 0.5, 0, 0)
    assert seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert seconds("-5") == 0
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 55 < seconds(later) <= 61


# -- who may have what --------------------------------------------------------------------------


def test_the_token_goes_to_the_hub_and_to_no_other_host(hub):
    hub.token = "hf_secret"
    assert is_whole(get(token="hf_secret")[1])
    at_hub = [a for a in hub.asked if a.host == "hub"]
    at_store = [a for a in hub.asked if a.host == "store"]
    assert at_hub
    assert at_store
    assert all(a.headers.get("authorization") == "Bearer hf_secret" for a in at_hub)
    assert not any("authorization" in a.headers for a in at_store)
    kept = [p for p in folder_of(ID).parent.rglob("*") if p.is_file()]
    assert not any(b"hf_secret" in p.read_bytes() for p in kept)


def test_a_token_does_not_come_back_after_a_foreign_host(hub):
    hub.token = "hf_secret"
    back = f"{hub.url}/{ID}/resolve/{a_repo().sha}/README.md"
    hub.tricks[f"hub:{'README.md'}"] = [("redirect", f"{hub.store}/store/{ID}/README.md")]
    hub.tricks["README.md"] = [("redirect", back)] * 3
    with pytest.raises(HubError):
        get(token="hf_secret")
    tried = [a for a in hub.asked if a.path.endswith("README.md")]
    assert [(a.host, "authorization" in a.headers) for a in tried[:3]] == [
        ("hub", True),
        ("store", False),
        ("hub", False),
    ]


def test_the_stored_login_is_used(hub, monkeypatch):
    hub.token = "hf_stored"
    monkeypatch.setenv("HF_TOKEN", "hf_stored")
    assert is_whole(get()[1])


@pytest.mark.parametrize(
    ("prepare", "said", "hint"),
    [
        (lambda h: h.repos.clear(), "no model", "login"),
        (lambda h: setattr(h, "token", "x"), "private", "--token"),
        (lambda h: setattr(h.repos[ID], "gated", True), "agreed to its terms", "huggingface.co"),
        (lambda h: h.tricks.update(listing=[("status", 500)] * 9), "answered 500", "try again"),
        (lambda h: h.tricks.update(listing=[("status", 403)]), "terms", "log in"),
        (
            lambda h: h.tricks.update(listing=[("status", 429, {"Retry-After": "999"})]),
            "999 seconds",
            "",
        ),
        (lambda h: h.tricks.update(listing=[("stall",)] * 9), "fell silent", "connection"),
        (lambda h: h.tricks.update(listing=[("status", 451)]), "status 451", "browser"),
        (
            lambda h: h.tricks.update(
                {"hub:README.md": [("status", 404, {"X-Error-Code": "EntryNotFound"})]}
            ),
            "not there any more",
            "again",
        ),
    ],
)
def test_a_refusal_is_one_sentence_with_a_way_out(hub, prepare, said, hint):
    prepare(hub)
    with pytest.raises(HubError, match=said) as caught:
        get()
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_listing_is_tried_again(hub):
    hub.tricks["listing"] = [("status", 502), ("status", 429, {"Retry-After": "0.01"})]
    assert look(ID, patience=QUICK).id == ID


def test_a_misspelled_model_is_guessed(hub):
    with pytest.raises(HubError) as caught:
        look("google/ddpm-cifar-32", patience=QUICK)
    assert "Did you mean google/ddpm-cifar10-32?" in caught.value.hint


def test_a_revision_that_is_not_there_is_said(hub):
    with pytest.raises(HubError, match="no such revision"):
        look(ID, "v9", patience=QUICK)
    assert look(ID, a_repo().sha, patience=QUICK).revision == a_repo().sha


def test_a_hub_that_cannot_be_reached_is_said(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="cannot be reached"):
        look(ID, patience=QUICK)


def test_a_hub_that_is_switched_off_is_said(hub, monkeypatch):
    found = look(ID)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        look(ID)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        get(listing=found)


@pytest.mark.parametrize(
    "where", ["file:///etc/passwd", "ftp://elsewhere/x", "", "https://", "javascript:1"]
)
def test_a_redirect_to_no_place_for_a_download_is_not_followed(hub, where):
    hub.tricks["hub:README.md"] = [("redirect", where)] * 3
    with pytest.raises(HubError):
        get()
    assert not folder_of(ID).exists()


def test_redirects_without_end_are_given_up(hub):
    around = f"{hub.url}/{ID}/resolve/{a_repo().sha}/README.md"
    hub.tricks["hub:README.md"] = [("redirect", around)] * 50
    with pytest.raises(HubError, match="without end"):
        get()


# -- a hostile listing --------------------------------------------------------------------------


def saying(**changes):
    """A listing with a file more, which is bad."""

    def change(facts):
        facts["siblings"].append(
            {"rfilename": "config.json", "size": 5, "blobId": "0" * 40} | changes
        )
        return facts

    return change


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "..\\x",
        "C:/x",
        "c:x",
        "a\x00b",
        "a//b",
        "./a",
        "",
        "a\nb",
        "x" * 500,
        "a/",
        7,
        None,
    ],
)
def test_a_file_that_would_lie_elsewhere_is_refused(hub, path):
    hub.listing = saying(rfilename=path)
    with pytest.raises(HubError):
        look(ID, patience=QUICK)
    assert not [a for a in hub.asked if "/resolve/" in a.path]


@pytest.mark.parametrize("size", [-1, 10**15, "5", None, 1.5, True, [1]])
def test_a_size_that_cannot_be_is_refused(hub, size):
    hub.listing = saying(size=size)
    with pytest.raises(HubError, match="impossible size"):
        look(ID, patience=QUICK)


@pytest.mark.parametrize(
    "lfs",
    [
        {"size": 5, "sha256": "../../x", "pointerSize": 1},
        {"size": 5, "sha256": "A" * 64, "pointerSize": 1},
        {"size": -5, "sha256": "a" * 64, "pointerSize": 1},
        {"size": 5},
        "lfs",
    ],
)
def test_a_checksum_that_is_none_is_refused(hub, lfs):
    hub.listing = saying(lfs=lfs)
    with pytest.raises(HubError):
        look(ID, patience=QUICK)


@pytest.mark.parametrize(
    "listing",
    [
        b"not json",
        b"[]",
        {},
        {"id": ID},
        {"id": ID, "sha": "main", "siblings": []},
        {"id": ID, "sha": "a" * 40, "siblings": [{}]},
        {"id": ID, "sha": "a" * 40, "siblings": "many"},
        {"id": ID, "sha": "../../" + "a" * 34, "siblings": []},
    ],
)
def test_a_listing_that_is_none_is_refused(hub, listing):
    hub.listing = listing
    with pytest.raises(HubError):
        look(ID, patience=QUICK)


def test_too_many_files_are_refused(hub):
    many = [{"rfilename": f"{i}.txt", "size": 1, "blobId": "0" * 40} for i in range(20_001)]
    hub.listing = {"id": ID, "sha": "a" * 40, "siblings": many, "tags": []}
    with pytest.raises(HubError, match="20001 files"):
        look(ID, patience=QUICK)


@pytest.mark.parametrize(
    "id",
    [
        "faces",
        "a/b/c",
        "a b/c",
        "../x",
        "a/..",
        "a/.b",
        "",
        "/",
        "a/",
        "a\x00/b",
        "a/b--c",
        "a/b.git",
        "a/" + "b" * 97,
        "C:\\x/y",
        "a/é",
        "http://evil.example/a/b",
    ],
)
def test_an_id_that_is_none_is_refused(id):
    with pytest.raises(HubError, match="no model of the hub"):
        look(id)
    with pytest.raises(HubError):
        folder_of(id)


@pytest.mark.parametrize("revision", ["", "../x", "a b", "x\n", "x" * 300])
def test_a_revision_that_is_none_is_refused(revision):
    with pytest.raises(HubError, match="no revision"):
        look(ID, revision)


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "é"])
def test_a_token_that_is_none_is_refused_and_not_repeated(token):
    with pytest.raises(HubError) as caught:
        look(ID, token=token)
    assert token not in str(caught.value)


# -- the disk -----------------------------------------------------------------------------------


def test_a_full_disk_is_seen_before_the_first_byte(hub, monkeypatch):
    free = SimpleNamespace(total=10**9, used=10**9, free=2**25)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(HubError, match=r"40. kB are missing"):
        get()
    assert hub.of(WEIGHTS) == []


def test_a_disk_that_takes_nothing_more_is_said_and_what_came_is_kept(hub, monkeypatch):
    def full(out, chunk):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("studio.weights.transfer._write", full)
    with pytest.raises(SaveError, match="No space left"):
        get()
    monkeypatch.undo()


@pytest.mark.parametrize("where", [".", "files", "parts", "the model"])
def test_nothing_is_saved_through_a_link(hub, tmp_path, where):
    elsewhere, folder = tmp_path / "elsewhere", folder_of(ID)
    elsewhere.mkdir()
    root = folder.parent / f".{folder.name}.part"
    link = folder if where == "the model" else root / where
    link.parent.mkdir(parents=True, exist_ok=True)
    if where == ".":
        link = root
    link.symlink_to(elsewhere)
    with pytest.raises(HubError, match="link"):
        get()
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("where", ["parts/unet", "files/unet", f"parts/{WEIGHTS}"])
def test_a_link_among_the_parts_is_not_followed(hub, tmp_path, where):
    elsewhere, folder = tmp_path / "elsewhere", folder_of(ID)
    elsewhere.mkdir()
    link = folder.parent / f".{folder.name}.part" / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    assert is_whole(get()[1])
    assert list(elsewhere.iterdir()) == []


def test_a_model_of_another_source_is_not_overwritten(hub):
    folder = folder_of(ID)
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(HubError, match="on the shelf already"):
        get()
    assert (folder / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"etags": {}, "listing": {"id": "x"}}', "\0"])
def test_a_state_that_makes_no_sense_is_no_download(hub, state):
    interrupted(hub)
    root = folder_of(ID).parent / f".{folder_of(ID).name}.part"
    (root / "state.json").write_text(state)
    assert unfinished() == []
    assert is_whole(get()[1])


def test_an_unfinished_download_is_not_taken_for_a_model(hub):
    from studio.weights.shelf import Shelf

    interrupted(hub)
    assert [e.name for e in Shelf().entries() if not e.ships] == []


# -- which files --------------------------------------------------------------------------------


def chosen(*paths: str, size: int = 10) -> set[str]:
    files = [listing.RemoteFile(p, size, "", blob(b"")) for p in paths]
    return {f.path for f in listing.needed(ID, files)}


UNET, FLAT = "unet/diffusion_pytorch_model", "diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("paths", "wanted"),
    [
        # both formats: the one that runs no code
        (
            ["config.json", f"{FLAT}.bin", f"{FLAT}.safetensors", "images/a.png", "run.py"],
            {"config.json", f"{FLAT}.safetensors"},
        ),
        (
            ["config.json", f"{FLAT}.bin", "scheduler_config.json", "model_index.json", "a.onnx"],
            {"config.json", f"{FLAT}.bin", "scheduler_config.json", "model_index.json"},
        ),
        # nested, beside twins in half precision and other frameworks
        (
            [
                "unet/config.json",
                f"{UNET}.safetensors",
                f"{UNET}.fp16.safetensors",
                f"{UNET}.non_ema.bin",
                "unet/flax_model.msgpack",
                "LICENSE",
            ],
            {"unet/config.json", f"{UNET}.safetensors", "LICENSE"},
        ),
        # in shards, with their index
        (
            ["unet/config.json", f"{UNET}.safetensors.index.json"]
            + [f"{UNET}-0000{i}-of-00002.safetensors" for i in (1, 2)],
            {"unet/config.json", f"{UNET}.safetensors.index.json"}
            | {f"{UNET}-0000{i}-of-00002.safetensors" for i in (1, 2)},
        ),
        # a shard is missing: the other format
        (
            [
                "unet/config.json",
                f"{UNET}.safetensors.index.json",
                f"{UNET}.bin",
                f"{UNET}-00001-of-00002.safetensors",
            ],
            {"unet/config.json", f"{UNET}.bin"},
        ),
        # only half precision
        (
            ["unet/config.json", f"{UNET}.fp16.safetensors", f"{UNET}.fp16.bin"],
            {"unet/config.json", f"{UNET}.fp16.safetensors"},
        ),
        # the studio's own
        (["model.safetensors", "card.md", "recipe.json"], {"model.safetensors", "card.md"}),
        # a single file, as of score_sde
        (["checkpoint_8.pth", "README.md", "assets/x.npz"], {"checkpoint_8.pth", "README.md"}),
        (["exp/ve/checkpoint_8.pth"], {"exp/ve/checkpoint_8.pth"}),
    ],
)
def test_only_what_a_model_needs_is_fetched(paths, wanted):
    assert chosen(*paths) == wanted


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["README.md", "x.gguf"], "no weights"),
        (["a.pth", "b.pth"], "2 files of weights"),
        (["unet/config.json", f"{UNET}.bin", "vae/config.json"], "latent space"),
        (["model_index.json", "transformer/config.json"], "latent space"),
    ],
)
def test_a_repository_that_is_no_model_for_us_is_refused_in_words(paths, said):
    with pytest.raises(HubError, match=said):
        chosen(*paths)


def test_a_model_too_large_to_be_one_is_refused():
    with pytest.raises(HubError, match=r"too large|would take more"):
        chosen("config.json", f"{FLAT}.bin", size=2**35 + 2**34)


def test_a_lone_file_is_told_apart(hub):
    hub.repos["a/lone"] = Repo({"checkpoint_8.pth": DATA, "README.md": b"x"})
    assert look("a/lone").lone == "checkpoint_8.pth"
    assert look(ID).lone == ""


def test_sizes_for_people():
    sizes = (0, 999, 1000, 9_806_486, 143_000_000, 1_300_000_000)
    assert [listing.as_size(n) for n in sizes] == [
        *("0 B", "999 B", "1 kB", "9.81 MB", "143 MB", "1.3 GB")
    ]


def test_every_known_model_is_an_id_with_an_sde_of_ours():
    from studio.diffusion.sde import SDES
    from studio.weights.known import KNOWN

    assert len({k.id for k in KNOWN}) == len(KNOWN) > 10
    for known in KNOWN:
        assert hubs.checked_id(known.id) == known.id
        assert known.sde in SDES
        assert known.title
        assert known.says.endswith(".")
        assert known.bytes > 10**8


def test_errors_of_the_hub_are_for_people():
    assert issubclass(HubError, StudioError)
    assert Hub().repos == {}
