"""One self-contained Python module from the source of a network, for whoever opens it without us.

Of each file of ours that the network needs, only what it uses is taken. Needs nothing but torch (and
diffusers, for what is put below it).
"""

from __future__ import annotations

import ast
import inspect
import sys
from types import ModuleType

_HEAD = '''"""A network of Score Studio, for diffusers: its own source, put together by its export (MIT).

The weights beside it may have another licence: see the README.md of the folder.
"""

from __future__ import annotations

'''
_DIFFUSERS = """from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
"""


def module_text(*wanted: type) -> str:
    """Source with the classes `wanted` and all of ours that they use.

    Raises RuntimeError if two of the files define different things by one name.
    """
    imports: set[str] = set()
    pieces: dict[str, str] = {}
    for module in {sys.modules[c.__module__]: None for c in wanted}:
        names = {c.__name__ for c in wanted if c.__module__ == module.__name__}
        _gather(module, names, imports, pieces)
    head = _HEAD + "\n".join(sorted(imports)) + "\n" + _DIFFUSERS
    return head + "".join(f"\n\n{text}\n" for text in pieces.values())


def _gather(
    module: ModuleType, wanted: set[str], imports: set[str], pieces: dict[str, str]
) -> None:
    """Add what `wanted` needs of a file: first what it needs of others, then its own, in order."""
    text = inspect.getsource(module)
    tree = ast.parse(text)
    defined = {name: node for node in tree.body for name in _names(node)}
    needed = _closure(wanted, defined)
    used = {n.id for name in needed for n in ast.walk(defined[name]) if isinstance(n, ast.Name)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("studio"):
            names = {alias.name for alias in node.names} & used
            if names:
                _gather(sys.modules[str(node.module)], names, imports, pieces)
        elif isinstance(node, ast.Import | ast.ImportFrom) and "__future__" not in ast.unparse(
            node
        ):
            imports.add(ast.unparse(node))
    lines = text.splitlines()
    for node in tree.body:
        if any(name in needed for name in _names(node)):
            _add(pieces, _names(node)[0], _piece(lines, node))


def _names(node: ast.stmt) -> list[str]:
    """What a statement at the top of a file defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else targets
    return [t.id for t in targets if isinstance(t, ast.Name)]


def _closure(wanted: set[str], defined: dict[str, ast.stmt]) -> set[str]:
    needed: set[str] = set()
    ahead = sorted(wanted & defined.keys())
    while ahead:
        name = ahead.pop()
        needed.add(name)
        inside = {n.id for n in ast.walk(defined[name]) if isinstance(n, ast.Name)}
        ahead += sorted((inside & defined.keys()) - needed)
    return needed


def _piece(lines: list[str], node: ast.stmt) -> str:
    """The source of a statement, with its decorators and the comment right above."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(d.lineno for d in decorators)]) - 1
    while first and lines[first - 1].startswith("#:"):
        first -= 1
    return "\n".join(lines[first : node.end_lineno])


def _add(pieces: dict[str, str], name: str, text: str) -> None:
    if pieces.setdefault(name, text) != text:
        raise RuntimeError(f"{name} stands for two things in the files of a network.")
