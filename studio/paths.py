"""Where things are: what ships with the studio, and what a person's studio keeps.

`STUDIO_HOME` moves everything that is kept into one folder, for tests and portable installs.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from studio.errors import SaveError

_PACKAGE = Path(__file__).resolve().parent


def shipped(kind: str) -> Path:
    """The folder `resources` or `checkpoints`: beside the package in a checkout, inside a wheel."""
    beside = _PACKAGE.parent / kind
    return beside if (_PACKAGE.parent / "pyproject.toml").exists() else _PACKAGE / "_data" / kind


def resource(name: str) -> Path:
    return shipped("resources") / name


def user_dir() -> Path:
    """Where models, history, settings and logs are kept. Not created until something is saved."""
    home = os.environ.get("STUDIO_HOME")
    return Path(home) if home else Path(platformdirs.user_data_dir("score-studio", appauthor=False))


def model_dirs() -> list[Path]:
    """Folders with models: a person's own first, then those that ship."""
    return [user_dir() / "models", shipped("checkpoints")]


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if the block succeeds.

    Raises SaveError, with `path` untouched, if the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name[:40]}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes files private; a saved file has the rights of any new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SaveError(
            f"{path.name} could not be saved in {path.parent}: {reason}.",
            "Choose another folder, or free some space.",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
