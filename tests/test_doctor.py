"""The doctor names what is missing, and the one line that mends it."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib

import pytest
from conftest import REPOSITORY

from studio import cli, desktop, doctor
from studio.errors import DeviceError, StudioError

DEBIAN = 'PRETTY_NAME="Debian"\nID=debian\n'
MINT = 'ID=linuxmint\nID_LIKE="ubuntu debian"\n'
FEDORA = "ID=fedora\n"
ARCH = "ID=manjaro\nID_LIKE=arch\n"

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")


def without(*missing: str):
    return lambda soname: soname not in missing


@pytest.fixture
def no_sudo(monkeypatch):
    monkeypatch.setattr(doctor, "_sudo", lambda: "sudo ")


@pytest.mark.usefixtures("no_sudo")
@pytest.mark.parametrize(
    ("release", "line"),
    [
        (DEBIAN, "Type: sudo apt-get install libxcb-icccm4 libegl1"),
        (MINT, "Type: sudo apt-get install libxcb-icccm4 libegl1"),
        (FEDORA, "Type: sudo dnf install xcb-util-wm libglvnd-egl"),
        (ARCH, "Type: sudo pacman -S xcb-util-wm libglvnd"),
    ],
)
def test_every_distribution_gets_its_own_line(release, line):
    assert doctor.install_line(["libxcb-icccm.so.4", "libEGL.so.1"], release) == line


def test_an_unknown_distribution_gets_names_to_look_for():
    assert "libegl1" in doctor.install_line(["libEGL.so.1"], "ID=plan9\n")


def test_one_package_is_named_once():
    line = doctor.install_line(["libglib-2.0.so.0", "libgthread-2.0.so.0"], DEBIAN)
    assert line.count("libglib2.0-0") == 1


def test_only_the_window_system_in_use_is_asked_for():
    gone = without("libxcb-cursor.so.0")
    assert doctor.missing_libraries({"DISPLAY": ":0"}, gone) == ["libxcb-cursor.so.0"]
    assert doctor.missing_libraries({"QT_QPA_PLATFORM": "xcb"}, gone) == ["libxcb-cursor.so.0"]
    assert doctor.missing_libraries({"QT_QPA_PLATFORM": "offscreen"}, gone) == []
    assert doctor.missing_libraries({"WAYLAND_DISPLAY": "wayland-0"}, gone) == []
    assert doctor.missing_libraries({"WAYLAND_DISPLAY": "w", "DISPLAY": ":0"}, gone) == []
    assert doctor.missing_libraries({}, gone) == []


def test_what_every_window_system_needs_is_always_asked_for():
    gone = without("libEGL.so.1")
    assert doctor.missing_libraries({"QT_QPA_PLATFORM": "offscreen"}, gone) == ["libEGL.so.1"]


@on_linux
def test_a_missing_library_is_a_problem_with_a_fix():
    check = doctor.libraries({"DISPLAY": ":0"}, without("libxcb-icccm.so.4"))
    assert check.state == doctor.PROBLEM
    assert "libxcb-icccm.so.4" in check.found
    assert check.fix


@on_linux
def test_no_screen_is_said_before_qt_aborts(monkeypatch):
    for name in ("QT_QPA_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DeviceError, match="no screen"):
        doctor.require_display()


@on_linux
def test_the_window_is_not_tried_without_a_screen(monkeypatch, capsys):
    for name in ("QT_QPA_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main([]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_pins_are_those_of_the_package():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pins = {re.split("[<>=!]", line)[0]: line for line in project["dependencies"]}
    assert pins["PySide6-Essentials"].endswith(
        ",".join([">=6.8", *(f"!={version}" for version in doctor._BAD_QT)])
    )
    least, following = (".".join(map(str, v)) for v in (doctor._LEAST_TORCH, doctor._NEXT_TORCH))
    assert pins["torch"] == f"torch>={least},<{following}"
    assert project["requires-python"] == ">=" + ".".join(map(str, doctor._LEAST_PYTHON))


@pytest.mark.parametrize("version", ["6.11.0", "6.11.1", "6.12.0", "6.7.3", ""])
def test_a_bad_qt_is_a_problem(monkeypatch, version):
    monkeypatch.setattr(doctor, "_version", lambda package: version)
    check = doctor.qt()
    assert check.state == doctor.PROBLEM
    assert "pip install" in check.fix


def test_a_broken_torch_is_told_not_raised(monkeypatch, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('libcudnn.so.9: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "studio" / "doctor.py"))
    check = doctor.torch()
    assert check.state == doctor.PROBLEM
    assert "libcudnn" in check.found


def test_a_home_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "file" / "home"))
    assert doctor.home().state == doctor.PROBLEM


def test_a_damaged_model_is_noted(home):
    (home / "models" / "bad").mkdir(parents=True)
    (home / "models" / "bad" / "model.safetensors").write_bytes(b"x" * 40)
    check = doctor.models()
    assert check.state == doctor.NOTE
    assert "bad" in check.found


@pytest.mark.slow
def test_the_whole_examination_as_json(capsys):
    code = cli.main(["doctor", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert code == (0 if said["usable"] else 2)
    states = {check["name"]: check["state"] for check in said["checks"]}
    assert states["torch"] == states["Python"] == states["Qt"] == "ok"


# -- the desktop's menu ---------------------------------------------------------------------------


@on_linux
def test_the_desktop_file_and_icon_are_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert cli.main(["--install-desktop"]) == 0
    entry = (tmp_path / "applications" / "score-studio.desktop").read_text()
    assert "{" not in entry
    assert re.search(r"^Exec=.+ gui$", entry, re.MULTILINE)
    icon = tmp_path / "icons" / "hicolor" / "scalable" / "apps" / "score-studio.svg"
    assert "<svg" in icon.read_text()
    assert str(icon) in capsys.readouterr().out


def test_a_relative_data_home_counts_as_none(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "here")
    assert desktop.data_home().parts[-2:] == (".local", "share")


def test_other_systems_are_told(monkeypatch):
    monkeypatch.setattr(desktop.sys, "platform", "win32")
    with pytest.raises(StudioError, match="Linux"):
        desktop.install()


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/usr/bin/score-studio", "/usr/bin/score-studio"),
        ("/home/a b/x", '"/home/a b/x"'),
        ("/100%/x", "/100%%/x"),
        ("/a$b/x", '"/a\\\\$b/x"'),
    ],
)
def test_the_command_is_quoted_as_the_norm_wants(word, quoted):
    assert desktop._quoted(word) == quoted


def test_the_check_leaves_the_environment_alone():
    before = dict(os.environ)
    doctor.libraries(os.environ)
    assert dict(os.environ) == before
