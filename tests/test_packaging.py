"""What a person installs: the wheel holds the code, the resources and the models that ship."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

import studio


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def files_below(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder.parent).as_posix())
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_module(wheel):
    names = set(wheel.namelist())
    assert files_below(REPOSITORY / "studio") <= names
    assert "studio/py.typed" in names


@pytest.mark.parametrize("kind", ["resources", "checkpoints"])
def test_the_wheel_holds_what_ships(wheel, kind):
    wanted = files_below(REPOSITORY / kind)
    assert wanted
    assert {f"studio/_data/{name}" for name in wanted} <= set(wheel.namelist())


def test_a_model_ships(wheel):
    assert any(name.endswith("/model.safetensors") for name in wheel.namelist())
    assert not any(name.endswith("/resume.safetensors") for name in wheel.namelist())


def test_nothing_else_is_in_the_wheel(wheel):
    rooms = {name.split("/")[0] for name in wheel.namelist()}
    assert rooms == {"studio", f"score_studio-{studio.__version__}.dist-info"}


def test_the_wheel_says_version_licence_and_command(wheel):
    info = f"score_studio-{studio.__version__}.dist-info"
    assert "MIT License" in wheel.read(f"{info}/licenses/LICENSE").decode()
    assert "score-studio = studio.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "Name: score-studio" in wheel.read(f"{info}/METADATA").decode()


@pytest.mark.slow
def test_an_installed_wheel_finds_what_ships(wheel, tmp_path):
    wheel.extractall(tmp_path)
    code = (
        "from studio import paths; from studio.weights.shelf import Shelf\n"
        "assert paths.resource('icons/app.svg').is_file()\n"
        "assert '_data' in str(paths.shipped('checkpoints'))\n"
        "assert any(entry.ships and entry.info for entry in Shelf().entries())"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "STUDIO_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_the_changelog_tells_of_this_version():
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(studio.__version__)}\b", changelog, re.MULTILINE)


def test_the_readme_names_pictures_and_files_that_exist():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_the_script_of_continuous_integration_can_be_run():
    script = REPOSITORY / ".ci" / "run"
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")
    if os.name == "posix":
        assert os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_project_file_is_sound():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"score-studio": "studio.cli:main"}
