"""A hub on this machine for tests: the few routes that a download uses, and misbehaviour on command.

`tricks[path]` is a list of what goes wrong at the next requests for a file, one each, in order; after
that all goes well. Every request is remembered with the headers that came.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 4096  # files from this size on are LFS: with a sha256, and kept in the store


@dataclass
class Asked:
    """A request that came."""

    path: str
    headers: dict[str, str]
    host: str  # "hub" or "store"
    sent: int = 0  # bytes of its body

    @property
    def start(self) -> int:
        found = re.match(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else 0


@dataclass
class Repo:
    files: dict[str, bytes]
    tags: tuple[str, ...] = ("license:apache-2.0",)
    gated: bool = False

    @property
    def sha(self) -> str:
        names = "".join(f"{k}{hashlib.sha1(v).hexdigest()}" for k, v in sorted(self.files.items()))
        return hashlib.sha1(names.encode()).hexdigest()


@dataclass
class Hub:
    """What the server knows; tests change it as they like."""

    url: str = ""
    store: str = ""  # where large files are: another host
    repos: dict[str, Repo] = field(default_factory=dict)
    tricks: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    token: str = ""  # without it nothing is given, if set
    etag: str = "one"
    listing: Any = None  # said instead of a listing
    slow: float = 0.0  # seconds between pieces of 64 kB
    stop: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> None:
        """As new, for another test."""
        self.stop.set()
        fresh = Hub(self.url, self.store)
        self.__dict__.update(fresh.__dict__)

    def of(self, name: str) -> list[Asked]:
        """The requests for a file that reached its bytes."""
        return [a for a in self.asked if a.path.endswith(name) and a.host == "store"]


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def listed(repo: Repo) -> dict[str, Any]:
    siblings = []
    for path, data in repo.files.items():
        entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": blob(data)}
        if len(data) >= LARGE:
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
        siblings.append(entry)
    return {
        "_id": "x",
        "id": "a/b",
        "modelId": "a/b",
        "sha": repo.sha,
        "siblings": siblings,
        "tags": list(repo.tags),
        "pipeline_tag": "unconditional-image-generation",
        "library_name": "diffusers",
        "gated": repo.gated,
        "private": False,
        "downloads": 1,
        "likes": 0,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every small answer waits 40 ms
    hub: Hub
    role: str

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.now = Asked(path, headers, self.role)
        self.hub.asked.append(self.now)
        with contextlib.suppress(ConnectionError):
            if self.role == "store":
                self._file(path.removeprefix("/store/"))
            elif path.startswith("/api/models/"):
                self._listing(path.removeprefix("/api/models/"))
            else:
                self._resolve(path.strip("/"))

    # -- routes ---------------------------------------------------------------------------------

    def _listing(self, rest: str) -> None:
        id = "/".join(rest.split("/")[:2])
        if self._tricked("listing"):
            return
        repo = self.hub.repos.get(id)
        if repo is None or not self._welcome():
            self._status(401 if self.hub.token else 404, {"X-Error-Code": "RepoNotFound"})
        elif not rest.endswith(("/main", repo.sha)):
            self._status(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            said = listed(repo) if self.hub.listing is None else self.hub.listing
            self._json(said(listed(repo)) if callable(said) else said)

    def _resolve(self, rest: str) -> None:
        id, _, tail = rest.partition("/resolve/")
        repo, path = self.hub.repos.get(id), tail.partition("/")[2]
        if repo is None or not self._welcome():
            self._status(401, {"X-Error-Code": "RepoNotFound"})
        elif repo.gated:
            self._status(403, {"X-Error-Code": "GatedRepo"})
        elif path not in repo.files:
            self._status(404, {"X-Error-Code": "EntryNotFound"})
        elif self._tricked(f"hub:{path}"):
            pass
        elif len(repo.files[path]) >= LARGE:
            where = {"Location": f"{self.hub.store}/store/{id}/{path}", "X-Repo-Commit": repo.sha}
            self._status(302, where)
        else:
            self._serve(repo.files[path], path)

    def _file(self, rest: str) -> None:
        owner, name, path = rest.split("/", 2)
        self._serve(self.hub.repos[f"{owner}/{name}"].files[path], path)

    def _welcome(self) -> bool:
        given = self.headers.get("Authorization", "")
        return not self.hub.token or given == f"Bearer {self.hub.token}"

    # -- bytes ----------------------------------------------------------------------------------

    def _serve(self, data: bytes, path: str) -> None:
        trick = self._trick(path)
        kind = trick[0] if trick else ""
        if kind == "status":
            return self._status(trick[1], trick[2] if len(trick) > 2 else {})
        if kind == "redirect":
            return self._status(302, {"Location": trick[1]})
        if kind == "corrupt":
            data = bytes([data[0] ^ 1]) + data[1:]
        if kind == "longer":
            data = data + b"more"
        if kind == "shorter":
            data = data[:-1]
        start, code = 0, 200
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", f'"{self.hub.etag}"') == f'"{self.hub.etag}"'
        if wanted and same and kind != "ignore range":
            start, code = int(wanted[1]), 206
            if start >= len(data):
                return self._status(416, {"Content-Range": f"bytes */{len(data)}"})
        body, headers = data[start:], {"ETag": f'"{self.hub.etag}"'}
        if code == 206:
            first = start + 1 if kind == "other range" else start
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if kind == "gzip":
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        self.send_response(code)
        endless = kind == "endless"
        if not endless:
            headers["Content-Length"] = str(len(body))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if endless:
            body, self.close_connection = body + b"x" * 200_000, True
        self._send(body[: trick[1]] if kind in ("drop", "stall") else body)
        if kind == "stall":
            self.hub.stop.wait(5)
        if kind in ("drop", "stall"):
            self.close_connection = True
        return None

    def _send(self, body: bytes) -> None:
        for i in range(0, len(body), 65536):
            piece = body[i : i + 65536]
            self.wfile.write(piece)
            self.now.sent += len(piece)
            if self.hub.slow:
                self.wfile.flush()
                time.sleep(self.hub.slow)

    def _trick(self, path: str) -> tuple[Any, ...]:
        waiting = self.hub.tricks.get(path) or []
        return waiting.pop(0) if waiting else ()

    def _tricked(self, what: str) -> bool:
        """Answer with a status or a redirect if one is due."""
        trick = self._trick(what)
        if not trick:
            return False
        if trick[0] == "redirect":
            self._status(302, {"Location": trick[1]})
        elif trick[0] == "stall":
            self.hub.stop.wait(5)
            self.close_connection = True
        else:
            self._status(trick[1], trick[2] if len(trick) > 2 else {})
        return True

    def _json(self, data: Any) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _status(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in ({"Content-Length": "0"} | headers).items():
            self.send_header(key, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away is what many tests are about


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub and, on another port, its store."""
    hub = Hub()
    with contextlib.ExitStack() as stack:
        for role in ("hub", "store"):
            handler = type("Bound", (Handler,), {"hub": hub, "role": role})
            server = stack.enter_context(_Server(("127.0.0.1", 0), handler))
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            url = f"http://127.0.0.1:{server.server_address[1]}"
            if role == "hub":
                hub.url = url
            else:
                hub.store = url
        stack.callback(hub.stop.set)
        yield hub
