"""Puts the studio into the menu of a Linux desktop: a .desktop file and an icon, for one person."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from studio.errors import StudioError
from studio.paths import atomic, resource

NAME = "score-studio"


def install() -> list[Path]:
    """Write the desktop file and the icon under XDG_DATA_HOME; the files written.

    Raises StudioError on other systems, SaveError if they cannot be written.
    """
    if not sys.platform.startswith("linux"):
        raise StudioError(
            "Only Linux desktops know such files.",
            f"Make a shortcut to {command()} by the means of your system.",
        )
    home = data_home()
    entry = home / "applications" / f"{NAME}.desktop"
    icon = home / "icons" / "hicolor" / "scalable" / "apps" / f"{NAME}.svg"
    template = resource(f"{NAME}.desktop").read_text(encoding="utf-8")
    with atomic(icon) as temporary:
        temporary.write_bytes(resource("icons/app.svg").read_bytes())
    with atomic(entry) as temporary:
        temporary.write_text(template.replace("{command}", command()), encoding="utf-8")
    return [entry, icon]


def data_home() -> Path:
    """XDG_DATA_HOME, or what stands for it. A relative path there counts as none, says the norm."""
    told = Path(os.environ.get("XDG_DATA_HOME", ""))
    return told if told.is_absolute() else Path.home() / ".local" / "share"


def command() -> str:
    """What starts this studio, quoted as the Exec key of a desktop file wants it."""
    script = Path(sys.executable).with_name(NAME)
    words = [str(script)] if script.exists() else [sys.executable, "-m", "studio"]
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """One argument of an Exec key (Desktop Entry Specification 1.5, "The Exec key")."""
    plain = word.replace("%", "%%")
    if not set(plain) & set(" \t\n\"'\\><~|&;$*?#()`"):
        return plain
    inside = "".join(f"\\{c}" if c in '"`$\\' else c for c in plain)
    # The value of a key is itself a string in which a backslash is written twice.
    return f'"{inside}"'.replace("\\", "\\\\")
