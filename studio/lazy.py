"""torch, loaded at its first use. Loading it takes seconds, and the window must show before that.

Modules that hold Specs (so that forms and command-line options can be built from them) write
`from studio.lazy import torch` and put type imports under TYPE_CHECKING.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class _Lazy(ModuleType):
    """Stands for a module until an attribute is asked for. Thread-safe through the import lock."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import torch
else:
    torch = _Lazy("torch")


def no_grad(function: Callable[P, R]) -> Callable[P, R]:
    """`@torch.no_grad()` that does not load torch until the function is called.

    On a generator, gradients are off only between its yields, never in the code that consumes it.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return torch.no_grad()(function)(*args, **kwargs)

    return wrapper
