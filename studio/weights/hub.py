"""Models from the Hugging Face hub, fetched so that nothing is lost and nothing comes twice.

`look` says what a model consists of, `fetch` brings it. While it comes, it lies in a hidden folder
beside its place, `.owner--name.part`: whole files in `files`, the growing one in `parts`, and in
`state.json` what it is to become. It is moved into place as a whole, with its `origin.json`.
Listing, login, endpoint, cache and offline mode are those of huggingface_hub; the bytes are ours,
because the library forgets a half file at the end of its process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio import __version__
from studio.errors import HubError, SaveError
from studio.paths import atomic, user_dir
from studio.weights import library, transfer
from studio.weights import listing as listings
from studio.weights.library import Kept, Origin
from studio.weights.listing import Listing, RemoteFile, as_size
from studio.weights.transfer import PATIENCE, Patience, Place, Transient

__all__ = ["HubError", "Listing", "Received", "RemoteFile", "Unfinished", "as_size"]

_LOOK_TRIES = 3  # a person waits for it
_RESERVE = 32 * 2**20  # bytes that stay free on the disk
_WINDOW = 5.0  # seconds over which a speed is taken


@dataclass(frozen=True)
class Received:
    """How far a download is. `speed` is bytes a second, smoothed; 0 while it is not known."""

    done: int
    total: int
    file: str
    speed: float = 0.0
    note: str = ""  # what a person should know: a try again, a file begun anew

    @property
    def eta(self) -> float | None:
        """Seconds left, or None while the speed is not known."""
        return (self.total - self.done) / self.speed if self.speed > 0 else None


@dataclass(frozen=True)
class Unfinished:
    """A download that was begun, and can be gone on with. `folder` is where its model will be."""

    id: str
    revision: str
    done: int
    total: int
    folder: Path


# -- what there is ----------------------------------------------------------------------------------


def checked_id(text: str) -> str:
    """The id "owner/name" in what a person typed or pasted. Raises HubError if there is none."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    id = text.strip()
    if page := re.match(r"https?://(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+)", id):
        id = page[1]
    try:
        validate_repo_id(id)
        if id.isascii() and id.count("/") == 1:
            return id
    except HFValidationError:
        pass
    raise HubError(
        f"“{text[:80]}” is no model of the hub.", "An id is owner/name, as google/ddpm-cifar10-32."
    )


def folder_of(id: str, models: Path | None = None) -> Path:
    """Where the model `id` lies, or will lie, on a person's shelf. Raises HubError if no id."""
    return (models or user_dir() / "models") / checked_id(id).replace("/", "--")


def look(
    id: str, revision: str = "main", token: str | None = None, patience: Patience = PATIENCE
) -> Listing:
    """What the model `id` ("owner/name") consists of. Blocks for as long as the network takes.

    `token` is for private and gated models; None means the one that a login stored, if any.
    Raises HubError.
    """
    id, revision = checked_id(id), _checked_revision(revision)
    facts = _asked(id, revision, _checked_token(token), patience)
    try:
        siblings = facts.siblings or []
        if len(siblings) > listings.MOST_LISTED:
            raise HubError(f"{id} lists {len(siblings)} files, which no model has.")
        files = [listings.remote_file(id, _sibling(s)) for s in siblings]
        commit, tags = str(facts.sha), [str(tag) for tag in facts.tags or []]
    except (AttributeError, TypeError, KeyError) as error:
        raise HubError(f"The hub's listing of {id} cannot be understood.") from error
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise HubError(f"The hub names no commit of {id}.")
    licence = next((t.partition(":")[2] for t in tags if t.startswith("license:")), "")
    about = [str(facts.pipeline_tag or ""), str(facts.library_name or "")]
    return Listing(
        id,
        commit,
        listings.needed(id, files),
        licence[:80],
        ", ".join(text.replace("-", " ") for text in about if text)[:200],
        revision,
    )


def _asked(id: str, revision: str, token: str | None, patience: Patience) -> Any:
    """The hub's facts about a model, tried a few times."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=_endpoint(), library_name="score-studio", library_version=__version__)
    for tried in range(1, _LOOK_TRIES + 1):
        try:
            with transfer.network():
                try:
                    return api.model_info(
                        id,
                        revision=revision,
                        files_metadata=True,
                        timeout=patience.silence,
                        token=token,
                    )
                except HfHubHTTPError as error:
                    transfer.refuse(error.response, id)
                    raise
        except Transient as error:
            if tried == _LOOK_TRIES or error.wait > patience.longest / 10:
                rest = f" It asks for {error.wait:.0f} seconds of rest." if error.wait else ""
                raise HubError(
                    f"The hub could not be asked about {id}: {error}.{rest}",
                    "Look at your connection, and try again.",
                ) from error
            time.sleep(max(error.wait, patience.delay(tried)))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise HubError(f"The hub's listing of {id} cannot be understood.") from error
    raise AssertionError("unreachable")


def _sibling(sibling: Any) -> dict[str, Any]:
    lfs = sibling.lfs
    size, sha256 = (lfs.size, lfs.sha256) if lfs else (sibling.size, "")
    return {"path": sibling.rfilename, "size": size, "sha256": sha256, "blob": sibling.blob_id}


def _checked_revision(text: str) -> str:
    if not re.fullmatch(r"[\w./-]{1,200}", text, re.ASCII) or ".." in text:
        raise HubError(f"“{text[:60]}” is no revision.", "Give a branch, a tag or a commit.")
    return text


def _checked_token(token: str | None) -> str | None:
    if token is not None and not re.fullmatch(r"[!-~]{1,500}", token):
        raise HubError("The token holds characters that no token has.", "Copy it anew.")
    return token


def _endpoint() -> str | None:
    """HF_ENDPOINT as it is now; huggingface_hub reads it once."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


# -- bringing it ------------------------------------------------------------------------------------


@dataclass
class _Work:
    """The hidden folder of a download, and what is known of it."""

    folder: Path  # where the model will lie
    listing: Listing
    etags: dict[str, str] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return _root(self.folder)

    def place(self, kind: str, path: str = "") -> Path:
        """A path in `files` or `parts`. Raises HubError if it leads through a link."""
        at = self.root
        for name in ("", kind, *path.split("/")):
            at = at / name
            if at.is_symlink():
                raise HubError(f"{at} is a link to elsewhere: nothing is saved through it.")
        return at

    def done(self, file: RemoteFile) -> int:
        """Bytes of a file that are there."""
        for kind in ("files", "parts"):
            path = self.place(kind, file.path)
            if path.is_file():
                return min(path.stat().st_size, file.size)
        return 0

    def whole(self, file: RemoteFile) -> bool:
        path = self.place("files", file.path)
        return path.is_file() and path.stat().st_size == file.size

    def keep(self, file: RemoteFile, source: Path) -> None:
        """Move a finished part among the whole files."""
        target = self.place("files", file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)

    def drop(self, file: RemoteFile) -> None:
        for kind in ("files", "parts"):
            self.place(kind, file.path).unlink(missing_ok=True)

    def save(self) -> None:
        state = {"listing": listings.to_dict(self.listing), "etags": self.etags}
        with atomic(self.root / "state.json") as temporary:
            temporary.write_text(json.dumps(state), encoding="utf-8")


def fetch(
    listing: Listing, folder: Path, token: str | None = None, patience: Patience = PATIENCE
) -> Generator[Received, None, Path]:
    """Download a model into `folder` (see `folder_of`) and return it; several Received a second.

    What came before, or lies in the hub's cache, is not fetched again. Closing the generator
    pauses. Raises HubError, with what has come kept, SaveError if the disk does not take it.
    """
    listings.from_dict(listings.to_dict(listing))  # whoever made it: names and sizes hold
    if _is_there(listing, folder):
        yield Received(listing.bytes, listing.bytes, "")
        return folder
    _check_target(listing, folder)
    try:
        with _alone(folder):
            yield from _download(listing, folder, _checked_token(token), patience)
        shutil.rmtree(_root(folder), ignore_errors=True)
    except OSError as error:
        raise SaveError(
            f"{listing.id} could not be saved: {error.strerror or error}.",
            "What has come is kept. Free some space, or choose another folder, and go on.",
        ) from error
    return folder


def _download(
    listing: Listing, folder: Path, token: str | None, patience: Patience
) -> Iterator[Received]:
    work = _Work(folder, listing)
    yield from _take_up(work)
    for file in listing.files:
        if not work.whole(file):
            _adopt(work, file)
    _check_space(work)
    meter = _Meter()
    for file in listing.files:
        if not work.whole(file):
            yield from _bring(work, file, token, patience, meter)
    yield Received(listing.bytes, listing.bytes, "", meter.speed)
    _put_into_place(work)


def _take_up(work: _Work) -> Iterator[Received]:
    """Go on from what lies there: parts of files that have changed on the hub are thrown away."""
    before = _noted(work.folder)
    kept = {f.path: f for f in before.listing.files} if before else {}
    notes = []
    for path, old in kept.items():
        new = next((f for f in work.listing.files if f.path == path), None)
        if new is None or (new.key, new.size) != (old.key, old.size):
            if work.done(old):
                notes.append(f"{path} has changed on the hub: fetching it anew")
            work.drop(old)
        elif before:
            work.etags[path] = before.etags.get(path, "")
    for kind in ("files", "parts"):
        _drop_strangers(work.place(kind), {f.path for f in work.listing.files} & kept.keys())
    work.save()
    done = sum(map(work.done, work.listing.files))
    for note in notes or [""]:
        yield Received(done, work.listing.bytes, "", note=note)


def _drop_strangers(root: Path, known: set[str]) -> None:
    """Delete files of an earlier download of which nothing is known."""
    for path in [p for p in root.rglob("*") if not p.is_dir() or p.is_symlink()]:
        if path.relative_to(root).as_posix() not in known:
            path.unlink()


def _adopt(work: _Work, file: RemoteFile) -> None:
    """Take a file that is on this machine already: in the hub's cache, or in an older revision."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(work.listing.id, file.path, revision=work.listing.revision)
    for source in (
        Path(cached).resolve() if isinstance(cached, str) else None,
        work.folder / file.path,
    ):
        if source and transfer.same_content(source, file):
            copy = work.place("parts", file.path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.unlink(missing_ok=True)
            try:
                os.link(source, copy)
            except OSError:  # another disk, or one that knows no links
                shutil.copyfile(source, copy)
            work.keep(file, copy)
            return


def _bring(
    work: _Work, file: RemoteFile, token: str | None, patience: Patience, meter: _Meter
) -> Iterator[Received]:
    """Fetch one file, told as the progress of them all."""
    listing = work.listing
    place = Place(work.place("parts", file.path), work.etags)
    others = sum(work.done(f) for f in listing.files if f != file)
    noted = dict(work.etags)
    steps = transfer.fetch_file(
        listing.id, file, _url(listing, file), _headers(token), place, patience
    )
    with contextlib.closing(steps):
        for step in steps:
            if work.etags != noted:
                work.save()
                noted = dict(work.etags)
            done = others + step.done
            speed = meter.add(done)
            yield Received(done, listing.bytes, file.path, speed, step.note)
    work.keep(file, place.part)


def _url(listing: Listing, file: RemoteFile) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(listing.id, file.path, revision=listing.revision, endpoint=_endpoint())


def _headers(token: str | None) -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers(token=token, library_name="score-studio", library_version=__version__)


def _put_into_place(work: _Work) -> None:
    """Write down where the model came from, and move it to the shelf in one go."""
    whole = work.place("files")
    listing = work.listing
    kept = {f.path: Kept(f.sha256 or library.sha256(whole / f.path), f.size) for f in listing.files}
    library.write_origin(whole, Origin(listing.id, listing.revision, library.now(), kept))
    if not work.folder.exists():
        os.rename(whole, work.folder)
        return
    old = work.root / "old"
    library.delete(old)
    os.rename(work.folder, old)
    try:
        os.rename(whole, work.folder)
    except OSError:
        os.rename(old, work.folder)
        raise


class _Meter:
    """The speed over the last seconds, in bytes a second."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self.speed = 0.0

    def add(self, done: int) -> float:
        now = time.monotonic()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # a file was begun anew
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        then, before = self._seen[0]
        if now - then >= 0.2:
            self.speed = (done - before) / (now - then)
        return self.speed


# -- what lies there --------------------------------------------------------------------------------


def unfinished(models: Path | None = None) -> list[Unfinished]:
    """The downloads that were begun in a folder of models, by default the person's own."""
    models = models or user_dir() / "models"
    found = []
    for root in sorted(models.glob(".*.part")) if models.is_dir() else []:
        folder = models / root.name[1 : -len(".part")]
        work = _noted(folder)
        if work is None or _is_there(work.listing, folder):
            continue
        listing = work.listing
        with contextlib.suppress(HubError):  # a link where a file should be
            done = sum(map(work.done, listing.files))
            found.append(Unfinished(listing.id, listing.revision, done, listing.bytes, folder))
    return found


def discard(what: Unfinished | Path) -> None:
    """Cancel an unfinished download, or that of a model's folder: what has come is deleted.

    Raises HubError if it is running, SaveError if it cannot be deleted.
    """
    folder = what.folder if isinstance(what, Unfinished) else what
    root = _root(folder)
    if root.is_symlink():
        root.unlink()
    if not root.exists():
        return
    try:
        with _alone(folder):
            for kind in ("state.json", "parts", "files", "old"):
                library.delete(root / kind)
        library.delete(root)
    except OSError as error:
        raise SaveError(f"{root} could not be deleted: {error.strerror or error}.") from error


def _root(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.part"


def _noted(folder: Path) -> _Work | None:
    """What was written down of a download; None if nothing, or nothing that makes sense."""
    file = _root(folder) / "state.json"
    if file.is_symlink() or file.parent.is_symlink():
        return None
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        etags = {str(k): str(v) for k, v in state["etags"].items()}
        return _Work(folder, listings.from_dict(state["listing"]), etags)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, HubError):
        return None


def _is_there(listing: Listing, folder: Path) -> bool:
    """Whether the model lies in its folder already, whole, at this revision."""
    origin = library.origin_in(folder)
    return (
        origin is not None
        and (origin.source, origin.revision) == (listing.id, listing.revision)
        and all(
            (folder / f.path).is_file() and (folder / f.path).stat().st_size == f.size
            for f in listing.files
        )
    )


def _check_target(listing: Listing, folder: Path) -> None:
    if folder.is_symlink():
        raise HubError(f"{folder} is a link to elsewhere: nothing is saved through it.")
    origin = library.origin_in(folder)
    if folder.exists() and (origin is None or origin.source != listing.id):
        raise HubError(
            f"“{folder.name}” is on the shelf already, and did not come from {listing.id}.",
            f"Give it another name: score-studio models rename {folder.name} NAME.",
        )


def _check_space(work: _Work) -> None:
    left = work.listing.bytes - sum(map(work.done, work.listing.files))
    free = shutil.disk_usage(work.root).free
    if left + _RESERVE > free:
        raise HubError(
            f"{work.listing.id} takes {as_size(left)} more; on the disk of {work.folder.parent} "
            f"{as_size(left + _RESERVE - free)} are missing.",
            "Free some space; what has come is kept.",
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else works on this download, in this process or another. Raises HubError if so."""
    from huggingface_hub.utils import WeakFileLock

    root = _root(folder)
    if root.is_symlink():
        raise HubError(f"{root} is a link to elsewhere: nothing is saved through it.")
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(root / "lock", timeout=0.2))
        except TimeoutError as error:
            raise HubError(
                f"{folder.name} is being fetched already.", "Wait for it, or stop it there."
            ) from error
        yield
