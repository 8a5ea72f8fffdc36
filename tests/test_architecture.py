"""The house rules of ARCHITECTURE.md, read off the source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

STUDIO = REPOSITORY / "studio"
SOURCES = sorted(STUDIO.rglob("*.py"))
each_source = pytest.mark.parametrize(
    "path", SOURCES, ids=[str(p.relative_to(STUDIO)) for p in SOURCES]
)

#: From the ground up; an import may only point to the same layer or a lower one.
LAYERS = [
    {"errors", "spec", "paths", "settings", "lazy"},
    {"diffusion"},
    {"networks"},
    {"weights", "recipes", "photos", "films", "choose"},
    {"training"},
    {"engine"},
    {"ui"},
    {"app", "cli", "__init__", "__main__", "commands", "face", "terminal"}
    | {"desktop", "doctor", "bench", "bench_compare", "bench_models"},
]
HOMES = {
    "PySide6": {"ui", "app"},
    "pyqtgraph": {"ui", "app"},
    "superqt": {"ui", "app"},
    "qasync": {"app"},
    "huggingface_hub": {"weights"},
}


def room(path: Path) -> str:
    return path.relative_to(STUDIO).parts[0].removesuffix(".py")


def height(name: str) -> int:
    return next((i for i, layer in enumerate(LAYERS) if name in layer), len(LAYERS))


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in it: "studio.spec", "torch.nn"."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_room_has_its_place_in_the_house():
    known = set().union(*LAYERS)
    assert {room(p) for p in SOURCES} <= known


@each_source
def test_imports_point_down_only(path):
    own = height(room(path))
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "studio" or parts[1:] in ([], ["__version__"]):
            continue
        # `from studio import spec` names a room; `from studio import load` the public face.
        target = parts[1] if any(parts[1] in layer for layer in LAYERS) else "__init__"
        assert height(target) <= own, f"{room(path)} may not import {name}"


@each_source
def test_foreign_packages_stay_in_their_rooms(path):
    for name in imported(path):
        homes = HOMES.get(name.split(".")[0])
        assert homes is None or room(path) in homes, f"{room(path)} may not import {name}"
        if room(path) == "ui":
            assert name.split(".")[0] != "torch", "the window names no torch"
            assert name != "studio.lazy.torch", "the window names no torch"
        if room(path) == "networks":
            assert not name.startswith("studio.diffusion"), "networks know no SDE"


@each_source
def test_functions_fit_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


@each_source
def test_modules_say_what_they_are_for(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree)


@each_source
def test_nothing_is_swallowed_in_silence(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            only_pass = all(isinstance(line, ast.Pass) for line in node.body)
            assert not (broad and only_pass), f"line {node.lineno}"


# -- what is loaded when ------------------------------------------------------------------------


def in_a_fresh_process(code: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr


def exists(module: str) -> bool:
    path = REPOSITORY / Path(*module.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


SPEC_MODULES = [
    "studio",
    "studio.cli",
    "studio.settings",
    "studio.diffusion.catalog",
    "studio.diffusion.objectives",
    "studio.weights.model",
    "studio.weights.formats",
    "studio.weights.shelf",
    "studio.training.trainer",
    "studio.engine.jobs",
]


@pytest.mark.parametrize("module", SPEC_MODULES)
def test_importing_loads_neither_torch_nor_qt(module):
    if not exists(module):
        pytest.skip(f"{module} is not written yet")
    in_a_fresh_process(
        f"import sys, {module}\n"
        "heavy = {'torch', 'PySide6'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )


def test_building_every_spec_loads_neither_torch_nor_qt():
    in_a_fresh_process(
        "import sys, json\n"
        "from studio import spec\n"
        "import studio.diffusion.catalog, studio.diffusion.objectives\n"
        "import studio.training.trainer, studio.weights.model\n"
        "for family in list(spec._FAMILIES.values()):\n"
        "    for cls in family.values():\n"
        "        made = cls()\n"
        "        spec.check(made)\n"
        "        json.dumps(spec.to_dict(made))\n"
        "        getattr(made, 'stochastic', None)\n"
        "studio.training.trainer.Training(), studio.weights.model.ModelInfo()\n"
        "heavy = {'torch', 'PySide6'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
    )


@pytest.mark.parametrize("module", ["studio.ui.form", "studio.ui.main_window", "studio.app"])
def test_the_window_is_there_before_torch(module):
    if not exists(module):
        pytest.skip(f"{module} is not written yet")
    in_a_fresh_process(f"import sys, {module}\nassert 'torch' not in sys.modules")


def test_an_unknown_name_does_not_load_torch_for_a_guess():
    in_a_fresh_process(
        "import sys\n"
        "from studio import spec\n"
        "from studio.diffusion.catalog import SAMPLERS\n"
        "from studio.diffusion.sampler import Sampler\n"
        "from studio.errors import SpecError\n"
        "try:\n"
        "    spec.from_dict(Sampler, {'kind': 'heunn'})\n"
        "except SpecError as error:\n"
        "    assert 'heun' in str(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
