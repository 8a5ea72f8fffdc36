"""One file over HTTP into a part file that survives whatever happens.

A part file holds exactly the bytes that came, from the first on, so its length says where to go on:
after a pause, a dropped connection, a killed process. `If-Range` makes a server that has another file
by now send all of it, and the checksum of the hub has the last word.
The session (proxies, certificates, offline mode) is the one of huggingface_hub.
"""

from __future__ import annotations

import contextlib
import difflib
import email.utils
import hashlib
import io
import math
import os
import re
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from studio.errors import HubError
from studio.weights.known import KNOWN
from studio.weights.listing import RemoteFile

_CHUNK = 4 * 2**20  # bytes hashed at a time
_REDIRECTS = 8
_TICK = 0.1  # seconds between reports, and at most from a pause to its effect while waiting


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds, and how often to try again."""

    connect: float = 15.0
    silence: float = 30.0  # without a byte; then the connection is taken for dead
    tries: int = 6  # in a row that bring nothing new
    backoff: float = 1.0  # before the second try; doubles with each
    longest: float = 120.0  # that a server may ask us to wait

    @property
    def timeout(self) -> tuple[float, float, float, float]:
        """For httpx: connect, read, write, and a free connection."""
        return self.connect, self.silence, self.silence, self.connect

    def delay(self, tried: int) -> float:
        return min(self.backoff * 2 ** (tried - 1), 30.0)


PATIENCE = Patience()


@dataclass
class Progress:
    """What a transfer tells while it works: bytes of this file that are there, and what happened."""

    done: int = 0
    note: str = ""


@dataclass
class _Attempts:
    """Tries in a row that brought nothing new, and the most that was ever there."""

    patience: Patience
    tried: int = 0
    best: int = 0
    wrong: int = 0
    news: str = ""

    def reached(self, done: int) -> None:
        if done > self.best:
            self.best, self.tried = done, 0


@dataclass
class Place:
    """Where a file grows. `etags` remembers, by path, which version of a file a part is of."""

    part: Path
    etags: dict[str, str] = field(default_factory=dict)

    @property
    def length(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def clear(self) -> None:
        self.part.unlink(missing_ok=True)


class Transient(Exception):
    """The network failed in a way that may pass. `wait`: what the server asked for, in seconds."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class _Wrong(Exception):
    """What came is not the file that was promised."""


# -- one file ---------------------------------------------------------------------------------------


def fetch_file(
    id: str,
    file: RemoteFile,
    url: str,
    headers: dict[str, str],
    place: Place,
    patience: Patience = PATIENCE,
) -> Generator[Progress, None, None]:
    """Bring `file` into its part file, whole and checked.

    Yields several times a second. Closing it leaves the part file as it is. Raises HubError, with
    what has come still there unless it was wrong.
    """
    tries = _Attempts(patience)
    while True:
        try:
            if place.length > file.size:
                raise _Wrong("is longer than it should be")
            if place.length < file.size or not place.part.exists():
                yield from _receive(id, file, url, headers, place, patience, tries)
            yield from _checked(file, place)
            return
        except _Wrong as error:
            place.clear()
            tries.wrong += 1
            tries.best = 0
            if tries.wrong > 1:
                raise HubError(
                    f"{file.path} of {id} {error}, twice in a row: it was deleted.",
                    "Try again later; the other files are kept.",
                ) from error
            yield Progress(0, f"{file.path} {error}: fetching it anew")
        except Transient as error:
            tries.tried += 1
            if tries.tried >= patience.tries or error.wait > patience.longest:
                raise _given_up(id, file, place, error) from error
            yield from _wait(error, tries, place.length)


def _given_up(id: str, file: RemoteFile, place: Place, error: Transient) -> HubError:
    asked = f" The server asks for {error.wait:.0f} seconds of rest." if error.wait else ""
    return HubError(
        f"{id} could not be fetched: {error}. {place.length:,} of {file.size:,} bytes of "
        f"{file.path} are kept.{asked}",
        "Try again later; the download goes on from there.",
    )


def _wait(error: Transient, tries: _Attempts, done: int) -> Iterator[Progress]:
    """Rest before the next try, ready to be paused meanwhile."""
    seconds = max(error.wait, tries.patience.delay(tries.tried))
    note = f"{error}; trying again in {seconds:.0f} s"
    end = time.monotonic() + seconds
    yield Progress(done, note)
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _TICK))
        yield Progress(done)


def _receive(
    id: str,
    file: RemoteFile,
    url: str,
    headers: dict[str, str],
    place: Place,
    patience: Patience,
    tries: _Attempts,
) -> Iterator[Progress]:
    """One answer of the server, appended to the part file."""
    start = place.length
    tries.best = max(tries.best, start)
    asked = {**headers, "Accept-Encoding": "identity"}
    if start:
        asked["Range"] = f"bytes={start}-"
        if etag := place.etags.get(file.path, ""):
            asked["If-Range"] = etag
    with reach(url, asked, patience) as (answer, at_home):
        if answer.status_code == 416:
            raise _Wrong("is not as long on the server as the hub says")
        refuse(answer, id, at_home)
        begin = _accepted(answer, file, start)
        if begin < start:
            place.clear()
            yield Progress(0, f"{file.path} changed on the server: fetching it anew")
        place.etags[file.path] = _strong(answer.headers.get("etag", ""))
        yield from _append(answer, file, place, begin, tries)
    if place.length < file.size:
        raise Transient("the connection ended early")


def _strong(etag: str) -> str:
    """An ETag if it promises the same bytes and can be sent back as it is, else ""."""
    return etag if re.fullmatch(r'"[!#-~]{1,200}"', etag) else ""


def _append(
    answer: Any, file: RemoteFile, place: Place, done: int, tries: _Attempts
) -> Iterator[Progress]:
    place.part.parent.mkdir(parents=True, exist_ok=True)
    # Unbuffered: what the file holds is what came, whatever happens to this process.
    with place.part.open("ab", buffering=0) as out:
        yield Progress(done)
        last = time.monotonic()
        for chunk in _chunks(answer):
            if done + len(chunk) > file.size:
                raise _Wrong("is longer than it should be")
            _write(out, chunk)
            done += len(chunk)
            tries.reached(done)
            if time.monotonic() - last >= _TICK:
                last = time.monotonic()
                yield Progress(done)
        if done == file.size:
            os.fsync(out.fileno())


def _write(out: io.FileIO, chunk: bytes) -> None:
    """All of `chunk`: an unbuffered file may take less at once."""
    left = memoryview(chunk)
    while left:
        left = left[out.write(left) :]


def _accepted(answer: Any, file: RemoteFile, start: int) -> int:
    """Where the answer begins in the file: at `start`, or at 0. Raises _Wrong if it is no part."""
    encoded = answer.headers.get("content-encoding", "identity") != "identity"
    if answer.status_code == 206 and not encoded:
        span = re.fullmatch(
            r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("content-range", "").strip()
        )
        if not span or int(span[1]) != start or span[3] not in ("*", str(file.size)):
            raise _Wrong("came as another part than was asked for")
        return start
    if answer.status_code not in (200, 206):
        raise Transient(f"the server answered {answer.status_code}")
    length = answer.headers.get("content-length", "")
    if length.isdigit() and not encoded and int(length) != file.size:
        raise _Wrong(f"has {int(length):,} bytes instead of {file.size:,}")
    if answer.status_code == 206:
        raise _Wrong("came as a compressed part")
    return 0


def _checked(file: RemoteFile, place: Place) -> Generator[Progress, None, str]:
    """The sha256 of a part file that is as long as it should be. Raises _Wrong if it is another."""
    whole = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with place.part.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            whole.update(chunk)
            if not file.sha256:
                blob.update(chunk)
            yield Progress(file.size)
    if file.sha256 and whole.hexdigest() != file.sha256:
        raise _Wrong("does not have the checksum that the hub names")
    if not file.sha256 and file.blob and blob.hexdigest() != file.blob:
        raise _Wrong("does not have the checksum that the hub names")
    return whole.hexdigest()


def same_content(path: Path, file: RemoteFile) -> str:
    """The sha256 of `path` if it is `file`, checked; empty if it is not or nothing can be checked."""
    if not file.key or not path.is_file() or path.stat().st_size != file.size:
        return ""
    check = _checked(file, Place(path))
    try:
        while True:
            next(check)
    except StopIteration as done:
        return done.value
    except _Wrong:
        return ""


# -- the wire ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def reach(url: str, headers: dict[str, str], patience: Patience) -> Iterator[tuple[Any, bool]]:
    """The answer to a GET after all redirects, its body not read; and whether the hub itself gave it.

    The authorization goes to the first host and to no other. Raises Transient, or HubError if a
    redirect leads where no download should.
    """
    from huggingface_hub.utils import get_session

    home, at, asked = _host(url), url, dict(headers)
    with network():
        for _ in range(_REDIRECTS):
            if _host(at) != home:
                asked = {
                    k: v for k, v in asked.items() if k.lower() not in ("authorization", "cookie")
                }
            stream = get_session().stream(
                "GET", at, headers=asked, timeout=patience.timeout, follow_redirects=False
            )
            with stream as answer:
                if answer.status_code not in (301, 302, 303, 307, 308):
                    yield answer, _host(at) == home
                    return
                at = _next(at, answer.headers.get("location", ""))
    raise HubError(f"{urlsplit(url).netloc} redirects without end.")


def _next(at: str, location: str) -> str:
    """Where a redirect leads. Raises HubError if it is no place for a download."""
    there = urljoin(at, location)
    scheme, netloc = urlsplit(there)[:2]
    if not location or not netloc or scheme not in ("https", urlsplit(at).scheme):
        raise HubError(f"{urlsplit(at).netloc} redirects to {there[:80]!r}: not followed.")
    return there


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _chunks(answer: Any) -> Iterator[bytes]:
    with network():
        yield from answer.iter_bytes()


@contextlib.contextmanager
def network() -> Iterator[None]:
    """What goes wrong on the wire, as Transient; offline mode as HubError."""
    # HTTPError is httpx's or httpx2's, whichever the library uses: both name their errors alike.
    from huggingface_hub.errors import (
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]
        OfflineModeIsEnabled,
    )

    wire = sys.modules[HTTPError.__module__.partition(".")[0]]
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise HubError(
            "The hub is switched off by HF_HUB_OFFLINE.",
            "Unset it, or add a model that you have: score-studio models add FOLDER.",
        ) from error
    except (HTTPError, wire.InvalidURL, wire.StreamError) as error:
        raise Transient(_why(error)) from error


def _why(error: Exception) -> str:
    """An error of the network in a few words."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    if kind in ("ReadTimeout", "WriteTimeout"):
        return "the server fell silent"
    if kind in ("ConnectTimeout", "PoolTimeout"):
        return "the server cannot be reached in time"
    if kind == "ConnectError":
        return f"the server cannot be reached ({text[:100]})"
    return "the connection broke"


def refuse(answer: Any, id: str, at_home: bool = True) -> None:
    """Raise what a status means: HubError for an answer that will stay, Transient for one that may
    not. `at_home`: whether the hub itself answered, and not a store that it redirected to."""
    status, code = answer.status_code, answer.headers.get("x-error-code", "")
    if status < 400:
        return
    if status == 429 or status >= 500 or status == 408 or (status in (401, 403) and not at_home):
        # A store refuses a link that has grown old; the hub makes a new one at each try.
        raise Transient(f"the server answered {status}", retry_after(answer.headers))
    raise refusal(id, status, code, answer.headers.get("x-error-message", ""))


def refusal(id: str, status: int, code: str = "", message: str = "") -> HubError:
    """What it means that the hub does not give a model, and what to do."""
    if code == "GatedRepo" or (status == 403 and code != "RepoNotFound"):
        return HubError(
            f"{id} is given only to those who agreed to its terms.",
            f"Agree at huggingface.co/{id}, then log in: hf auth login, or give --token.",
        )
    if code == "RevisionNotFound":
        return HubError(f"{id} has no such revision.", "Leave it out to get the newest.")
    if code == "EntryNotFound":
        return HubError(f"A file of {id} is not there any more.", "Look it up again.")
    if status == 401 and "invalid credentials" in message.lower():
        return HubError("The hub does not know this token.", "Log in anew: hf auth login.")
    if status in (401, 404):
        near = difflib.get_close_matches(id, [known.id for known in KNOWN], n=1)
        hint = f"Did you mean {near[0]}? " if near and near[0] != id else ""
        hint += "A private one needs a login: hf auth login, or --token."
        return HubError(f"There is no model {id} on the hub, or it is private.", hint)
    return HubError(f"The hub refuses {id} (status {status}).", "Look at its page in a browser.")


def retry_after(headers: Any) -> float:
    """The seconds of rest that a server asks for, in seconds or as a date; 0 if it does not."""
    text = (headers.get("retry-after") or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    with contextlib.suppress(TypeError, ValueError):
        then = email.utils.parsedate_to_datetime(text).timestamp()
        return max(0.0, math.ceil(then - time.time()))
    return 0.0
