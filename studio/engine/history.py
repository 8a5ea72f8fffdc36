"""The history: every finished result kept with its recipe, found again, and bounded in bytes.

In the folder: `pictures/<id>.png`, all pictures of a result as a sheet without gaps, with its recipe;
`stars/<id>`, an empty file for each result with a star; `given/<id>.painting`, what a painting was made
of; `index.sqlite`, what is searched, and the thumbnails. Pictures and stars are the truth: an index that
is lost or damaged is built again from them. An id says when a result was made (UTC) and how many
pictures it has: `20260731T142205123-16-9f3a01`; so ids are in the order of time.

What is removed is only marked until the history is closed, so that it can be had back. Every method
may be called from any thread and waits for the disk: call them in the I/O lane. One studio at a time
uses a folder.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import io
import json
import os
import re
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studio import recipes
from studio.diffusion.pictures import columns, grid
from studio.engine import paint_file
from studio.engine.events import Finished
from studio.engine.paint import PaintJob
from studio.errors import PictureError, SaveError, StudioError

#: Bytes that a history may take, unless told otherwise.
BOUND = 2 * 10**9
#: The longer side of a thumbnail in pixels; smaller pictures are kept as they are.
THUMBNAIL = 160

_ID = re.compile(r"(\d{8}T\d{9})-(\d{1,4})-[0-9a-f]{6}")
_OURS = 0x53635374  # SQLite's application_id of our files
_MOST_PIXELS = 80 * 10**6  # of a sheet: readers refuse much larger ones
_MOST_NODES = 5000  # of a recipe that are looked at
_EXACT = 64  # pixels; a thumbnail up to this is kept without loss
_SOME = 500  # ids in one question to the index

#: Step i brings an index from version i to version i + 1.
_STEPS = (
    """
    create table results (
        id text primary key, kind text, model text, sampler text, seed integer, count integer,
        width integer, height integer, made real, calls integer, seconds real, starred integer,
        bytes integer, models text, samplers text, words text, removed integer
    ) without rowid;
    create table details (id text primary key, recipe text, thumbnail blob);
    """,
)

_SHOWN = (
    "id, kind, model, sampler, seed, count, width, height, made, calls, seconds, bytes, starred"
)


@dataclass(frozen=True)
class Item:
    """A result as it is listed. `made` is in seconds since 1970; `width` and `height` are those of one
    of its pictures; `seed` is that of the first."""

    id: str
    kind: str
    model: str
    sampler: str
    seed: int | None
    count: int
    width: int
    height: int
    made: float
    calls: int
    seconds: float
    bytes: int
    starred: bool


@dataclass(frozen=True)
class Use:
    """How much is kept, and how many bytes may be."""

    results: int
    bytes: int
    bound: int


@dataclass(frozen=True)
class Facts:
    """What a recipe of any kind says of its result; several models or samplers stand side by side."""

    kind: str
    models: tuple[str, ...]
    samplers: tuple[str, ...]
    seed: int | None
    words: str

    @property
    def model(self) -> str:
        return ", ".join(self.models)

    @property
    def sampler(self) -> str:
        return ", ".join(self.samplers)


class History:
    """The results in a folder. `problem` says in a sentence why nothing is kept, if so: then
    searches find nothing, and what would write raises SaveError."""

    def __init__(self, folder: Path, bound: int = BOUND) -> None:
        self.folder, self.bound = folder, bound
        self.problem = ""
        self._pictures, self._stars = folder / "pictures", folder / "stars"
        self._given = folder / "given"
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None

    # -- opening and closing ------------------------------------------------------------------------

    def open(self) -> None:
        """Read the index, and mend what an earlier session left half done. Others call it as needed."""
        with self._lock:
            if self._db is not None or self.problem:
                return
            try:
                self._pictures.mkdir(parents=True, exist_ok=True)
                self._stars.mkdir(exist_ok=True)
                self._connect_or_rebuild()
            except (OSError, sqlite3.Error, SaveError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                self._drop_connection()
                self.problem = f"The history is off: {self.folder} cannot be used ({reason})."

    def close(self) -> None:
        """Delete for good what was removed, and close the index."""
        with self._lock:
            if self._db is not None:
                with contextlib.suppress(StudioError), self._index() as db:
                    self._purge(db)
            self._drop_connection()

    def _connect_or_rebuild(self) -> None:
        try:
            self._connect()
        except sqlite3.OperationalError:
            raise  # the disk, not the file
        except sqlite3.DatabaseError:
            self._set_aside()
            self._connect()

    def _connect(self) -> None:
        db = sqlite3.connect(self.folder / "index.sqlite", timeout=10, check_same_thread=False)
        self._db = db
        db.execute("pragma journal_mode = wal")
        # A crash of the studio loses nothing so; one of the machine the last results' rows, which are
        # found again by their pictures.
        db.execute("pragma synchronous = normal")
        self._migrate(db)
        with db:
            self._mend(db)

    def _migrate(self, db: sqlite3.Connection) -> None:
        version = db.execute("pragma user_version").fetchone()[0]
        ours = db.execute("pragma application_id").fetchone()[0] == _OURS
        if not ours and db.execute("select count(*) from sqlite_master").fetchone()[0]:
            raise sqlite3.DatabaseError("it is not the index of a history")
        if version > len(_STEPS):
            raise SaveError("it was written by a newer studio")
        for step, script in enumerate(_STEPS[version:], version + 1):
            done = f"pragma application_id = {_OURS}; pragma user_version = {step};"
            db.executescript(f"begin immediate; {script}; {done} commit;")

    def _drop_connection(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _set_aside(self) -> None:
        """Keep a damaged index for whoever wants to look into it, and begin without one."""
        self._drop_connection()
        index = self.folder / "index.sqlite"
        if index.exists():
            os.replace(index, index.with_suffix(".sqlite.damaged"))
        for suffix in ("-wal", "-shm"):
            index.with_name(index.name + suffix).unlink(missing_ok=True)

    def _mend(self, db: sqlite3.Connection) -> None:
        """Make index and files agree."""
        self._purge(db)
        names = os.listdir(self._pictures)
        for name in names:
            if name.startswith(".2") and name.endswith(".png"):
                (self._pictures / name).unlink(missing_ok=True)  # of a write that was cut off
        there = {name[:-4] for name in names if name.endswith(".png") and _ID.fullmatch(name[:-4])}
        known = {row[0] for row in db.execute("select id from results")}
        self._forget(db, known - there)
        stars = set(os.listdir(self._stars))
        for id in sorted(there - known):
            self._adopt(db, id, id in stars)
        for id in stars - there:
            (self._stars / id).unlink(missing_ok=True)
        for path in self._given.iterdir() if self._given.is_dir() else ():
            if path.stem not in there:
                path.unlink(missing_ok=True)

    def _adopt(self, db: sqlite3.Connection, id: str, starred: bool) -> None:
        """Take a picture that the index does not know into it. What cannot be read is set aside."""
        path = self.path(id)
        try:
            recipe = recipes.read_recipe(path) or {}
            with Image.open(path) as image:
                size = image.size
            taken = sum(p.stat().st_size for p in (path, self._given_path(id)) if p.is_file())
            self._insert(db, _described(id, recipe, size, starred, taken), recipe)
        except (PictureError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            os.replace(path, path.with_suffix(".png.damaged"))

    # -- the index ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        """The index, for this thread alone and in one transaction. Raises SaveError."""
        with self._lock:
            self.open()
            if self._db is None:
                raise SaveError(self.problem, "Choose a folder that can be written.")
            try:
                with self._db:
                    yield self._db
            except sqlite3.OperationalError as error:
                raise SaveError(
                    f"The history in {self.folder} could not be used: {error}.", "Free some space."
                ) from error
            except sqlite3.DatabaseError as error:
                self._set_aside()
                raise SaveError(
                    "The index of the history was damaged and is built again from its pictures.",
                    "Try once more.",
                ) from error

    def _insert(self, db: sqlite3.Connection, item: Item, recipe: dict[str, Any]) -> None:
        told = facts(recipe)
        # A leading space marks where a name begins.
        values: dict[str, Any] = {
            **vars(item),
            "models": _names(told.models),
            "samplers": _names(told.samplers),
            "words": f"{item.kind} {told.words}".casefold(),
        }
        marks = ", ".join("?" * len(values))
        db.execute(
            f"insert or replace into results ({', '.join(values)}) values ({marks})",
            tuple(values.values()),
        )
        db.execute(
            "insert or replace into details (id, recipe) values (?, ?)",
            (item.id, json.dumps(recipe)),
        )

    def _forget(self, db: sqlite3.Connection, ids: Iterable[str]) -> None:
        for table in ("results", "details"):
            db.executemany(f"delete from {table} where id = ?", [(id,) for id in ids])

    def _delete(self, db: sqlite3.Connection, ids: Sequence[str]) -> None:
        """Delete results for good. Files first: a row without its file is dropped at the next opening."""
        for id in ids:
            for path in (self.path(id), self._stars / id, self._given_path(id)):
                path.unlink(missing_ok=True)
        self._forget(db, ids)

    def _purge(self, db: sqlite3.Connection) -> None:
        rows = db.execute("select id from results where removed is not null")
        self._delete(db, [row[0] for row in rows])

    def _make_room(self, db: sqlite3.Connection, keep: str = "") -> None:
        """Delete what was removed, then the oldest without a star, until all fits into the bound."""
        total = db.execute("select total(bytes) from results").fetchone()[0]
        if total <= self.bound:
            return
        going = []
        for id, size in db.execute(
            "select id, bytes from results where (not starred or removed is not null) and id != ?"
            " order by removed is null, id",
            (keep,),
        ):
            if total <= self.bound:
                break
            going.append(id)
            total -= size
        self._delete(db, going)

    # -- keeping ------------------------------------------------------------------------------------

    def add(self, result: Finished, kind: str = "") -> Item:
        """Keep a result; the oldest ones without a star make room for it if there are too many bytes.

        `kind` is that of the recipe unless said. Raises SaveError, with nothing changed, if it cannot
        be written.
        """
        stack = result.pictures
        if stack.ndim != 4 or not len(stack) or stack[..., 0].size > _MOST_PIXELS:
            raise SaveError(
                "A result of this size is not kept in the history.", "Save it yourself."
            )
        with self._index():
            pass  # says at once why nothing can be kept
        id, recipe = _new_id(len(stack)), result.recipe
        path, sheet = self.path(id), grid(stack, gap=0)
        self._write(path, sheet, recipe)
        thumbnail = _packed(_small(stack[0]))
        size = path.stat().st_size + len(thumbnail) + self._keep_given(id, result)
        item = _described(id, recipe, (sheet.shape[1], sheet.shape[0]), False, size)
        item = replace(item, kind=kind or item.kind, calls=result.calls, seconds=result.seconds)
        try:
            with self._index() as db:
                self._insert(db, item, recipe)
                db.execute("update details set thumbnail = ? where id = ?", (thumbnail, id))
                self._make_room(db, keep=id)
        except SaveError:
            path.unlink(missing_ok=True)
            self._given_path(id).unlink(missing_ok=True)
            raise
        return item

    def _keep_given(self, id: str, result: Finished) -> int:
        """Keep what the recipe of a result needs besides itself; its bytes. Where there is no room for
        it, the result is kept alone."""
        if not isinstance(result.given, PaintJob):
            return 0
        try:
            paint_file.save(result.given, self._given_path(id))
            return self._given_path(id).stat().st_size
        except (StudioError, OSError):
            return 0

    def _given_path(self, id: str) -> Path:
        return self._given / f"{id}.painting"

    def painting(self, id: str) -> PaintJob:
        """What a painting was made of. Raises PictureError if it is not there."""
        return paint_file.load(self._given_path(id))

    def _write(self, path: Path, sheet: np.ndarray, recipe: dict[str, Any]) -> None:
        try:
            recipes.write_png(path, sheet, recipe)
        except SaveError as error:
            if getattr(error.__cause__, "errno", None) != errno.ENOSPC:
                raise
            with self._index() as db:
                self._purge(db)
            recipes.write_png(path, sheet, recipe)

    def star(self, id: str, on: bool) -> None:
        """Give a result a star, which keeps it from making room for others, or take it away."""
        marker = self._stars / id
        with self._index() as db:
            if not db.execute("update results set starred = ? where id = ?", (on, id)).rowcount:
                return
            try:
                marker.touch() if on else marker.unlink(missing_ok=True)
            except OSError as error:
                raise SaveError(
                    f"The star could not be kept in {self._stars}: {error.strerror or error}.",
                    "Free some space.",
                ) from error

    def remove(self, ids: Sequence[str]) -> int:
        """Take results out; what is answered brings them back by `undo`, until the history is closed or
        their space is needed."""
        with self._index() as db:
            token = db.execute("select coalesce(max(removed), 0) + 1 from results").fetchone()[0]
            db.executemany(
                "update results set removed = ? where id = ? and removed is null",
                [(token, id) for id in ids],
            )
            return token

    def undo(self, token: int) -> int:
        """Bring back what was removed together; answers how many results were."""
        with self._index() as db:
            done = db.execute("update results set removed = null where removed = ?", (token,))
            return done.rowcount

    def limit(self, bound: int) -> None:
        """How many bytes may be kept from now on; what is too much goes."""
        self.bound = bound
        with self._index() as db:
            self._make_room(db)

    # -- finding ------------------------------------------------------------------------------------

    def search(
        self,
        text: str = "",
        model: str = "",
        sampler: str = "",
        seed: int | None = None,
        since: float | None = None,
        until: float | None = None,
        starred: bool = False,
        kind: str = "",
        limit: int = -1,
        offset: int = 0,
    ) -> list[Item]:
        """The results that fit everything that is asked, newest first.

        Of `text` every word is somewhere in the recipe; the names of `model` and `sampler` begin so;
        `seed` is that of any picture of a batch; `since` <= made < `until`. A negative `limit` is none.
        """
        asked: list[tuple[str, tuple[Any, ...]]] = [
            ("instr(words, ?)", (word,)) for word in text.casefold().split()
        ]
        if model:
            asked.append(("instr(models, ?)", (_SEPARATOR + model.casefold(),)))
        if sampler:
            asked.append(("instr(samplers, ?)", (_SEPARATOR + sampler.casefold(),)))
        if seed is not None:
            asked.append(("seed <= ? and ? < seed + count", (_bounded(seed), _bounded(seed))))
        if since is not None:
            asked.append(("made >= ?", (since,)))
        if until is not None:
            asked.append(("made < ?", (until,)))
        if starred:
            asked.append(("starred", ()))
        if kind:
            asked.append(("kind = ?", (kind,)))
        where = " and ".join(["removed is null", *(condition for condition, _ in asked)])
        values = [value for _, some in asked for value in some]
        question = f"select {_SHOWN} from results where {where} order by id desc"
        return self._ask(f"{question} limit ? offset ?", (*values, limit, offset))

    def _ask(self, question: str, values: Sequence[Any]) -> list[Item]:
        self.open()
        if self.problem:
            return []
        with self._index() as db:
            rows = db.execute(question, values)
            return [Item(*row[:-1], starred=row[-1] == 1) for row in rows]

    def find(self, id: str) -> Item | None:
        """A result by its id; None if it is not there any more."""
        found = self._ask(f"select {_SHOWN} from results where id = ?", (id,))
        return found[0] if found else None

    def path(self, id: str) -> Path:
        """The PNG of a result."""
        return self._pictures / f"{id}.png"

    def pictures(self, id: str) -> np.ndarray:
        """The pictures of a result, uint8 (N, H, W, C). Raises PictureError if they are not there."""
        made = _ID.fullmatch(id)
        try:
            if made is None:
                raise ValueError("it is no id")
            with Image.open(self.path(id)) as image:
                sheet = np.asarray(image)
        except FileNotFoundError as error:
            raise PictureError("This result is not in the history any more.") from error
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise PictureError("This result of the history is damaged.") from error
        return _cut(sheet, int(made[2]))

    def recipe(self, id: str) -> dict[str, Any]:
        """The recipe of a result. Raises PictureError if it is not there."""
        with self._index() as db:
            row = db.execute("select recipe from details where id = ?", (id,)).fetchone()
        if row is None:
            raise PictureError("This result is not in the history any more.")
        return json.loads(row[0])

    def thumbnail(self, id: str) -> np.ndarray | None:
        """The first picture, small, uint8 (H, W, 3); None if it cannot be had."""
        return self.thumbnails([id]).get(id)

    def thumbnails(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """The thumbnails of several results, those that can be had."""
        packed: dict[str, bytes | None] = {}
        with self._index() as db:
            for some in (ids[i : i + _SOME] for i in range(0, len(ids), _SOME)):
                marks = ", ".join("?" * len(some))
                question = f"select id, thumbnail from details where id in ({marks})"
                packed |= dict(db.execute(question, some))
        found = {id: _unpacked(data) for id, data in packed.items()}
        for id in (id for id, picture in found.items() if picture is None):
            found[id] = self._draw_thumbnail(id)
        return {id: picture for id, picture in found.items() if picture is not None}

    def _draw_thumbnail(self, id: str) -> np.ndarray | None:
        try:
            small = _small(self.pictures(id)[0])
        except PictureError:
            return None
        with contextlib.suppress(SaveError), self._index() as db:
            db.execute("update details set thumbnail = ? where id = ?", (_packed(small), id))
        return np.asarray(small)

    def disk_use(self) -> Use:
        """What is kept, without what was removed."""
        self.open()
        if self.problem:
            return Use(0, 0, self.bound)
        with self._index() as db:
            question = "select count(*), total(bytes) from results where removed is null"
            count, size = db.execute(question).fetchone()
        return Use(count, int(size), self.bound)


# -- what a recipe says -----------------------------------------------------------------------------


def facts(recipe: dict[str, Any]) -> Facts:
    """What any recipe says of models, samplers and seed, wherever in it; the outermost comes first."""
    models: dict[str, None] = {}
    samplers: dict[str, None] = {}
    seed: int | None = None
    words: dict[str, None] = {}
    for name, value in _nodes(recipe):
        if name == "sampler" and isinstance(value, dict):
            value = value.get("kind")
        if isinstance(value, str) and 0 < len(value) <= 80:
            words[value] = None
            if name in ("model", "sampler"):
                (models if name == "model" else samplers)[value] = None
        elif name == "seed" and type(value) is int:
            words[str(value)[:20]] = None
            seed = value if seed is None and 0 <= value < 2**62 else seed
    kind = recipe.get("kind")
    kind = kind[:40] if isinstance(kind, str) and kind else "sample"
    return Facts(kind, tuple(models), tuple(samplers), seed, " ".join(words)[:4000])


def _nodes(recipe: Any) -> Iterator[tuple[str, Any]]:
    """Every named value of JSON data, the outermost first."""
    waiting = deque([("", recipe)])
    for _ in range(_MOST_NODES):
        if not waiting:
            return
        name, value = waiting.popleft()
        yield name, value
        if isinstance(value, dict):
            waiting.extend((str(key), inner) for key, inner in value.items())
        elif isinstance(value, list | tuple):
            waiting.extend((name, inner) for inner in value)


def query(text: str, today: datetime.date | None = None) -> dict[str, Any]:
    """What a person typed, as arguments of `search`: free words, "starred", and words like
    `model:critters`, `sampler:heun`, `seed:7`, `kind:paint`, `date:2026-07`, `since:yesterday`,
    `until:2026-07-31`. What is not understood is a free word.
    """
    today = today or datetime.date.today()
    asked: dict[str, Any] = {}
    free: list[str] = []
    for match in re.finditer(r'(?:(\w+):)?(?:"([^"]*)"|(\S+))', text):
        name, value = (match[1] or "").lower(), match[2] or match[3] or ""
        if not name and value.lower() in ("starred", "star:", "★"):
            asked["starred"] = True
        elif name in ("model", "sampler", "kind") and value:
            asked[name] = value.lower() if name == "kind" else value
        elif name == "seed" and value.isascii() and value.isdigit():
            asked["seed"] = int(value)
        elif name in ("date", "since", "until") and (span := _span(value.lower(), today)):
            asked |= {"since": span[0]} if name != "until" else {}
            asked |= {"until": span[1]} if name != "since" else {}
        else:
            free.append(match[0].replace('"', ""))
    return asked | ({"text": " ".join(free)} if free else {})


def _span(text: str, today: datetime.date) -> tuple[float, float] | None:
    """The first and the last moment of a day, month or year, local time; None if it is none."""
    named = {"today": today, "yesterday": today - datetime.timedelta(days=1)}
    if text in named:
        text = named[text].isoformat()
    match = re.fullmatch(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?", text)
    if match is None:
        return None
    year, month, day = (int(part) if part else 0 for part in match.groups())
    try:
        first = datetime.datetime(year, month or 1, day or 1)
        if day:
            after = first + datetime.timedelta(days=1)
        else:
            years, months = divmod(month, 12)
            after = datetime.datetime(year + (years if month else 1), months + 1 if month else 1, 1)
        return first.timestamp(), after.timestamp()
    except (ValueError, OverflowError, OSError):
        return None


_SEPARATOR = "\n"


def _names(names: Iterable[str]) -> str:
    return "".join(_SEPARATOR + name.casefold() for name in names)


def _bounded(number: int) -> int:
    return max(-1, min(number, 2**62))


# -- ids, sheets, thumbnails ------------------------------------------------------------------------


_last = [0]  # milliseconds of the newest id


def _new_id(count: int) -> str:
    """An id that sorts after all others that were made here: no two have the same millisecond."""
    _last[0] = max(_last[0] + 1, time.time_ns() // 10**6)
    now = _last[0] / 1000
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
    return f"{stamp}{_last[0] % 1000:03d}-{count}-{secrets.token_hex(3)}"


def _made(id: str) -> float:
    """Seconds since 1970 out of an id. Raises ValueError if it tells no time."""
    moment = datetime.datetime.strptime(f"{id[:15]}+0000", "%Y%m%dT%H%M%S%z")
    return moment.timestamp() + int(id[15:18]) / 1000


def _described(
    id: str, recipe: dict[str, Any], size: tuple[int, int], starred: bool, bytes: int
) -> Item:
    """The Item of a sheet of this size (W, H). Raises ValueError if the id tells no time."""
    told, match = facts(recipe), _ID.fullmatch(id)
    if match is None or not int(match[2]):
        raise ValueError(f"{id} is no id")
    count = int(match[2])
    across = columns(count)
    return Item(
        id=id,
        kind=told.kind,
        model=told.model[:200],
        sampler=told.sampler[:200],
        seed=told.seed,
        count=count,
        width=size[0] // across,
        height=size[1] // -(-count // across),
        made=_made(id),
        calls=0,
        seconds=0.0,
        starred=starred,
        bytes=bytes,
    )


def _cut(sheet: np.ndarray, count: int) -> np.ndarray:
    """A sheet without gaps, (H', W') or (H', W', C), as the stack that it was made of."""
    sheet = sheet[..., None] if sheet.ndim == 2 else sheet
    across = columns(count)
    down = -(-count // across)
    h, w = sheet.shape[0] // down, sheet.shape[1] // across
    if not h or not w:
        raise PictureError("This result of the history is damaged.")
    tiles = sheet[: down * h, : across * w].reshape(down, h, across, w, -1).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, h, w, sheet.shape[2])[:count])


def _small(picture: np.ndarray) -> Image.Image:
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return image


def _packed(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "WEBP", quality=85, lossless=max(image.size) <= _EXACT)
    return data.getvalue()


def _unpacked(data: bytes | None) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
