"""What survives a crash: a recovery project for each open document, and the last masks.

A folder holds `<session>-<document>.studio` files, and `<session>.lock`, locked as long as that
session runs, so that nobody is offered what another window is still painting. Saving is in two parts:
`snapshot` on the thread of the document, then `write` on any other, one at a time.
"""

from __future__ import annotations

import os
import re
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import SaveError
from studio.ui.canvas import project
from studio.ui.canvas.document import Document
from studio.ui.canvas.project import Encoded, Snapshot

EVERY = 30.0  # seconds
_NAME = re.compile(r"([0-9a-f]{32})-([0-9a-f]{32})" + re.escape(project.SUFFIX))


@dataclass
class _Kept:
    """What is known of one document."""

    since: float  # when it was saved last, or last seen as it was saved
    state: int | None = None  # of its history, as the recovery project has it
    snapshot: Snapshot | None = None
    encoded: Encoded = field(default_factory=dict)


class Autosave:
    """Recovery projects in `folder`, one for each document at most."""

    def __init__(self, folder: Path, every: float = EVERY) -> None:
        self.folder, self.every = folder, every
        self._session = uuid.uuid4().hex
        self._lock: int | None = None  # a file descriptor, open to the end of the process
        self._kept: dict[str, _Kept] = {}

    def path(self, document: Document) -> Path:
        """Where the document's recovery project lies, once there is one."""
        return self._path(document.key)

    def due(self, document: Document, now: float) -> bool:
        """Whether to save at `now`, in seconds of a clock that only goes forward: `every` seconds
        after the last time or the first change, if anything has changed since."""
        kept = self._kept.setdefault(document.key, _Kept(now))
        if not document.modified or document.history.state == kept.state:
            kept.since = now
        return now - kept.since >= self.every

    def snapshot(
        self, document: Document, now: float, extras: dict[str, Any] | None = None
    ) -> Snapshot:
        """Copy what has changed since the last time, for `write`. `extras` is JSON data."""
        kept = self._kept.setdefault(document.key, _Kept(now))
        path = None if document.path is None else str(document.path)
        wrapped = {"path": path, "extras": extras or {}}
        kept.snapshot = project.snapshot(document, wrapped, kept.snapshot)
        kept.since, kept.state = now, document.history.state
        return kept.snapshot

    def write(self, snapshot: Snapshot) -> None:
        """Write a recovery project; nothing if the document was forgotten meanwhile.

        Raises SaveError if it cannot be written: it is due again soon.
        """
        kept = self._kept.get(snapshot.key)
        if kept is None:
            return
        try:
            self._hold()
            project.write(snapshot, self._path(snapshot.key), kept.encoded)
        except SaveError:
            kept.state = None
            raise
        if snapshot.key not in self._kept:
            self._path(snapshot.key).unlink(missing_ok=True)

    def recoverable(self) -> list[Path]:
        """Projects that sessions left behind which run no more, the newest first."""
        left: list[tuple[float, Path]] = []
        alive: dict[str, bool] = {self._session: True}
        for path in self.folder.glob(f"*{project.SUFFIX}"):
            name = _NAME.fullmatch(path.name)
            if name is None:
                continue
            session = name[1]
            if session not in alive:
                alive[session] = _locked(self._lock_path(session))
            if not alive[session]:
                left.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(left, reverse=True)]

    def recover(self, path: Path) -> tuple[Document, dict[str, Any]]:
        """The document and extras of a recovery project. The document counts as modified, and its
        path is where the person had saved it. Raises PictureError if the file is damaged."""
        document, wrapped = project.open_project(path)
        document.path = Path(wrapped["path"]) if isinstance(wrapped.get("path"), str) else None
        document.history.mark(-1)
        extras = wrapped.get("extras")
        return document, extras if isinstance(extras, dict) else {}

    def forget(self, given: Document | Path) -> None:
        """Delete a recovery project: its document was saved or closed, or nobody wants it back."""
        if isinstance(given, Path):
            given.unlink(missing_ok=True)
            name = _NAME.fullmatch(given.name)
            if name is not None and not list(self.folder.glob(f"{name[1]}-*")):
                self._lock_path(name[1]).unlink(missing_ok=True)
            return
        self._kept.pop(given.key, None)
        self.path(given).unlink(missing_ok=True)

    def close(self) -> None:
        """The session ends as it should. What was not forgotten is offered again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            self._lock_path(self._session).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{self._session}-{key}{project.SUFFIX}"

    def _lock_path(self, session: str) -> Path:
        return self.folder / f"{session}.lock"

    def _hold(self) -> None:
        """Show other sessions that this one runs. Raises SaveError if it cannot."""
        if self._lock is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._lock_path(self._session), os.O_CREAT | os.O_RDWR, 0o666)
        except OSError as error:
            raise SaveError(
                f"Nothing can be kept for recovery in {self.folder}: {error.strerror or error}.",
                "Free some space, or save the project yourself.",
            ) from error
        _take(lock)
        self._lock = lock


if sys.platform == "win32":

    def _take(file: int) -> bool:
        # An open file cannot be deleted there: holding it open is the lock.
        return file >= 0

    def _locked(path: Path) -> bool:
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return True
        return False

else:
    import fcntl

    def _take(file: int) -> bool:
        """Lock a file until it is closed or the process ends. False if another holds it."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _locked(path: Path) -> bool:
        try:
            with path.open("rb") as file:
                return not _take(file.fileno())
        except OSError:
            return False
