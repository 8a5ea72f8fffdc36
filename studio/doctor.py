"""`score-studio doctor`: is everything here that the studio needs, and if not, what to type.

Qt's own message about missing libraries names the wrong package and then aborts, so the window asks
`require_display` before Qt is loaded. Whatever could crash is looked at in a process of its own.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from studio import paths, recipes
from studio.commands import Command, Outcome
from studio.errors import DeviceError, SaveError
from studio.weights.shelf import Shelf

OK, NOTE, PROBLEM = "ok", "note", "problem"

_LEAST_PYTHON = (3, 11)
_LEAST_QT = (6, 8)
_BAD_QT = {
    "6.11.0": "lays out docks wrongly",
    "6.11.1": "lays out docks wrongly",
    "6.12.0": "loses references to None and aborts Python 3.11",
}
_LEAST_TORCH, _NEXT_TORCH = (2, 11), (2, 14)
_LEAST_DISK = 2 * 2**30

# What Qt loads at once (any window system), for X11 and for Wayland:
# soname -> package of Debian and Ubuntu, of Fedora, of Arch.
_Packages = dict[str, tuple[str, str, str]]
_BASE: _Packages = {
    "libEGL.so.1": ("libegl1", "libglvnd-egl", "libglvnd"),
    "libGL.so.1": ("libgl1", "libglvnd-glx", "libglvnd"),
    "libxkbcommon.so.0": ("libxkbcommon0", "libxkbcommon", "libxkbcommon"),
    "libfontconfig.so.1": ("libfontconfig1", "fontconfig", "fontconfig"),
    "libfreetype.so.6": ("libfreetype6", "freetype", "freetype2"),
    "libglib-2.0.so.0": ("libglib2.0-0", "glib2", "glib2"),
    "libgthread-2.0.so.0": ("libglib2.0-0", "glib2", "glib2"),
    "libdbus-1.so.3": ("libdbus-1-3", "dbus-libs", "dbus"),
    "libX11.so.6": ("libx11-6", "libX11", "libx11"),
}
_X11: _Packages = {
    "libxcb-cursor.so.0": ("libxcb-cursor0", "xcb-util-cursor", "xcb-util-cursor"),
    "libxcb-icccm.so.4": ("libxcb-icccm4", "xcb-util-wm", "xcb-util-wm"),
    "libxcb-image.so.0": ("libxcb-image0", "xcb-util-image", "xcb-util-image"),
    "libxcb-keysyms.so.1": ("libxcb-keysyms1", "xcb-util-keysyms", "xcb-util-keysyms"),
    "libxcb-render-util.so.0": (
        "libxcb-render-util0",
        "xcb-util-renderutil",
        "xcb-util-renderutil",
    ),
    "libxcb-util.so.1": ("libxcb-util1", "xcb-util", "xcb-util"),
    "libxcb-render.so.0": ("libxcb-render0", "libxcb", "libxcb"),
    "libxcb-shape.so.0": ("libxcb-shape0", "libxcb", "libxcb"),
    "libxcb-shm.so.0": ("libxcb-shm0", "libxcb", "libxcb"),
    "libxcb-sync.so.1": ("libxcb-sync1", "libxcb", "libxcb"),
    "libxcb-randr.so.0": ("libxcb-randr0", "libxcb", "libxcb"),
    "libxcb-xfixes.so.0": ("libxcb-xfixes0", "libxcb", "libxcb"),
    "libxcb-xkb.so.1": ("libxcb-xkb1", "libxcb", "libxcb"),
    "libxkbcommon-x11.so.0": ("libxkbcommon-x11-0", "libxkbcommon-x11", "libxkbcommon-x11"),
    "libX11-xcb.so.1": ("libx11-xcb1", "libX11-xcb", "libx11"),
}
_WAYLAND: _Packages = {
    "libwayland-client.so.0": ("libwayland-client0", "libwayland-client", "wayland"),
    "libwayland-cursor.so.0": ("libwayland-cursor0", "libwayland-cursor", "wayland"),
}
_FONTS = ("fonts-dejavu-core", "dejavu-sans-fonts", "ttf-dejavu")

# Distribution (ID or ID_LIKE in os-release) -> column above, how to install.
_FAMILIES = {
    "debian": (0, "apt-get install"),
    "ubuntu": (0, "apt-get install"),
    "fedora": (1, "dnf install"),
    "rhel": (1, "dnf install"),
    "arch": (2, "pacman -S"),
}

Loads = Callable[[str], bool]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. A problem keeps the studio from working, a note does not."""

    name: str
    state: str
    found: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Look whether everything the studio needs is here, and say what to do if not."""

    def run(self) -> Outcome:
        checks = examine()
        usable = all(check.state != PROBLEM for check in checks)
        rows = [f"{c.state:<8} {c.name:<10} {c.found}" for c in checks]
        fixes = [f"{c.name}: {c.fix}" for c in checks if c.fix]
        text = "\n".join([*rows, *(["", "To do", *fixes] if fixes else [])])
        data = {"usable": usable, "checks": [asdict(check) for check in checks]}
        return Outcome(data, text, 0 if usable else 2)


def examine() -> list[Check]:
    """Everything, in the order in which it is needed. Takes a few seconds: torch is loaded."""
    return [
        python(),
        libraries(os.environ),
        fonts(),
        display(os.environ),
        qt(),
        window_system(os.environ),
        torch(),
        home(),
        disk(),
        models(),
    ]


def require_display() -> None:
    """Raise DeviceError, with what to type, if Qt would abort for want of a screen or library."""
    for check in (libraries(os.environ), display(os.environ)):
        if check.state != OK:
            raise DeviceError(f"The window cannot open: {check.found}", check.fix)


# -- one check each -------------------------------------------------------------------------------


def python() -> Check:
    version = platform.python_version()
    if sys.version_info < _LEAST_PYTHON:
        return Check("Python", PROBLEM, version, "Use Python 3.11 or newer.")
    return Check("Python", OK, f"{version}, {platform.system()} {platform.machine()}")


def libraries(environ: Mapping[str, str], loads: Loads | None = None) -> Check:
    """The libraries that Qt wants from the system, on Linux, for the window system in use."""
    if not sys.platform.startswith("linux"):
        return Check("Libraries", OK, "Qt brings its own")
    missing = missing_libraries(environ, loads or _loads)
    if not missing:
        return Check("Libraries", OK, "all that Qt needs")
    return Check("Libraries", PROBLEM, f"missing {', '.join(missing)}.", install_line(missing))


def missing_libraries(environ: Mapping[str, str], loads: Loads) -> list[str]:
    """Sonames that Qt cannot do without and that do not load. One window system is enough."""
    base = [name for name in _BASE if not loads(name)]
    ways = [[name for name in way if not loads(name)] for way in _ways(environ)]
    return base + min(ways, key=len, default=[])


def _ways(environ: Mapping[str, str]) -> list[_Packages]:
    """The libraries of each window system that could show the window."""
    asked = environ.get("QT_QPA_PLATFORM", "")
    if asked:
        ways = {"xcb": [_X11], "wayland": [_WAYLAND]}
        return ways.get(asked.partition(":")[0].partition("-")[0].partition(";")[0], [])
    found = [_WAYLAND] if environ.get("WAYLAND_DISPLAY") else []
    return [*found, _X11] if environ.get("DISPLAY") else found


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        # A conda environment keeps its own, which Qt finds and ctypes does not.
        return (Path(sys.prefix) / "lib" / soname).exists()
    return True


def install_line(sonames: Iterable[str], release: str | None = None) -> str:
    """The one line that installs the packages of these libraries on this distribution."""
    known = _BASE | _X11 | _WAYLAND
    return _install([known[name] for name in sonames], release)


def _install(packages: Iterable[tuple[str, str, str]], release: str | None = None) -> str:
    packages = list(packages)
    for name in _distribution(_os_release() if release is None else release):
        if name in _FAMILIES:
            column, command = _FAMILIES[name]
            wanted = dict.fromkeys(names[column] for names in packages)
            return f"Type: {_sudo()}{command} {' '.join(wanted)}"
    wanted = dict.fromkeys(names[0] for names in packages)
    return f"Install what your system calls {', '.join(wanted)} (names of Debian)."


def _distribution(release: str) -> list[str]:
    """ID and ID_LIKE of an os-release file, the nearest first."""
    parted = [line.partition("=") for line in release.splitlines()]
    table = {key: value for key, _, value in parted}
    return [word for key in ("ID", "ID_LIKE") for word in table.get(key, "").strip("\"'").split()]


def _os_release() -> str:
    try:
        return Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sudo() -> str:
    return "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "


def fonts() -> Check:
    """Whether Qt will find letters. Other systems than Linux always have some."""
    if not sys.platform.startswith("linux"):
        return Check("Fonts", OK, "those of the system")
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts")]
    folders += [Path.home() / ".fonts", Path.home() / ".local/share/fonts"]
    kinds = {".ttf", ".otf", ".ttc", ".pfb"}
    for folder in folders:
        if any(path.suffix.lower() in kinds for path in folder.rglob("*")):
            return Check("Fonts", OK, str(folder))
    return Check(
        "Fonts",
        PROBLEM if display(os.environ).state == OK else NOTE,
        "none: the window would show empty boxes",
        _install([_FONTS]),
    )


def display(environ: Mapping[str, str]) -> Check:
    """Whether there is a screen to open a window on."""
    if not sys.platform.startswith("linux"):
        return Check("Screen", OK, "that of the system")
    for name in ("QT_QPA_PLATFORM", "WAYLAND_DISPLAY", "DISPLAY"):
        if environ.get(name):
            return Check("Screen", OK, f"{name}={environ[name]}")
    return Check(
        "Screen",
        NOTE,
        "there is no screen (neither DISPLAY nor WAYLAND_DISPLAY is set).",
        "The commands work without one, as score-studio sample does; ssh -X brings one along.",
    )


def qt() -> Check:
    """The version of PySide6 against those that are known to misbehave."""
    found = _version("PySide6-Essentials") or _version("PySide6")
    wanted = ",".join([f">={'.'.join(map(str, _LEAST_QT))}", *(f"!={v}" for v in _BAD_QT)])
    fix = f"Type: {sys.executable} -m pip install 'PySide6-Essentials{wanted}'"
    if not found:
        return Check("Qt", PROBLEM, "PySide6 is not installed", fix)
    if found in _BAD_QT:
        return Check("Qt", PROBLEM, f"PySide6 {found} {_BAD_QT[found]}", fix)
    if _numbers(found) < _LEAST_QT:
        return Check("Qt", PROBLEM, f"PySide6 {found} is too old", fix)
    return Check("Qt", OK, f"PySide6 {found}")


def window_system(environ: Mapping[str, str]) -> Check:
    """Whether Qt really starts, tried in a process that may abort."""
    if display(environ).state != OK:
        return Check("Window", NOTE, "not tried without a screen")
    code = "from PySide6.QtWidgets import QApplication as A; print(A([]).platformName())"
    ended, said = _try(code)
    if ended == 0:
        return Check("Window", OK, f"Qt starts on {said}")
    fix = "Mend the libraries above; if they are fine, report this." if said else ""
    return Check("Window", PROBLEM, f"Qt does not start: {said}", fix)


def torch() -> Check:
    """The version of torch and its devices, from a process of its own: it may be broken."""
    code = (
        "import torch; from studio.weights.devices import available, facts; "
        "print(torch.__version__, '|', '; '.join(facts(d).name for d in available()))"
    )
    ended, said = _try(code)
    fix = f"Type: {sys.executable} -m pip install --force-reinstall 'torch>=2.11,<2.14'"
    if ended:
        return Check("torch", PROBLEM, f"does not load: {said}", fix)
    version = said.partition(" | ")[0]
    if not _LEAST_TORCH <= _numbers(version) < _NEXT_TORCH:
        return Check("torch", NOTE, f"{said}: not a version the studio was tried with", fix)
    return Check("torch", OK, said.replace(" | ", " on "))


def home() -> Check:
    """Whether models and settings can be kept."""
    folder = paths.user_dir()
    try:
        recipes.check_writable(folder / "check")
    except SaveError as error:
        fix = "Make it writable, or set STUDIO_HOME to a folder that is."
        return Check("Home", PROBLEM, error.message, fix)
    return Check("Home", OK, str(folder))


def disk() -> Check:
    place = paths.user_dir()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    said = f"{free / 2**30:.1f} GB free"
    if free < _LEAST_DISK:
        return Check("Disk", NOTE, said, "Free some space before you train.")
    return Check("Disk", OK, said)


def models() -> Check:
    """Whether there is a model to sample from, and which files on the shelf cannot be used."""
    entries = Shelf().entries()
    bad = [entry.name for entry in entries if entry.problem]
    good = [entry.name for entry in entries if not entry.problem]
    if bad:
        fix = "See score-studio models info; remove the folder or get it again."
        return Check("Models", NOTE, f"cannot be used: {', '.join(bad)}", fix)
    if not good:
        return Check("Models", NOTE, "none yet", "Train one with score-studio train.")
    return Check("Models", OK, ", ".join(good))


def _try(code: str) -> tuple[int, str]:
    """(exit code, last line said) of Python code in a process of its own."""
    package = str(Path(__file__).resolve().parent.parent)
    found = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": found},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    lines = ((done.stdout if done.returncode == 0 else done.stderr) or "").strip().splitlines()
    return done.returncode, lines[-1] if lines else f"exit code {done.returncode}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, int]:
    """Major and minor of a version; (0, 0) if it has none."""
    parts = version.split(".")[:2]
    return (int(parts[0]), int(parts[1])) if all(p.isdigit() for p in parts) else (0, 0)
