"""What a person says in a word, as Specs: a sampler by its short name, an option by its bare name.

Python, the command line and whatever else takes names share these, so that a name means the same
everywhere.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Mapping
from typing import Any, TypeVar

from studio import spec
from studio.diffusion.catalog import PRESETS, SAMPLERS
from studio.diffusion.sampler import Sampler
from studio.errors import SpecError

T = TypeVar("T")


def sampler(
    wanted: str | Sampler, steps: int | None = None, options: Mapping[str, Any] | None = None
) -> tuple[Sampler, str]:
    """The sampler called `wanted` (or preset, or Spec) with its options, and a note or "".

    The note says that `steps` was left out because the sampler chooses its own. Raises SpecError if
    a name is unknown or a value out of bounds.
    """
    chosen, note = _named(wanted) if isinstance(wanted, str) else wanted, ""
    if steps is not None:
        if "steps" in _fields(chosen):
            chosen = spec.replace(chosen, "steps", steps)
        else:
            note = f"{spec.title(type(chosen))} chooses its own steps; {steps} is ignored."
    chosen = with_options(chosen, options or {})
    spec.check(chosen)
    return chosen, note


def with_options(base: T, options: Mapping[str, Any]) -> T:
    """`base` with options set by path ("corrector.snr") or by bare name ("snr") if that is enough: of
    several settings of that name the outermost is meant.

    Options that choose a member of a family ("corrector": "none") go first, because the others may
    be theirs. Raises SpecError for names that are unknown or stand for several settings.
    """
    order = sorted(options, key=lambda name: (not _chooses(base, name), name.count(".")))
    for name in order:
        base = spec.replace(base, _path(base, name), options[name])
    return base


def numbers(text: str, name: str, least: int = 2, most: int = 100_000) -> list[int]:
    """`"100,20"` as whole numbers, the smallest first, each once. Raises SpecError, naming the option."""
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise SpecError(f"--{name} must be whole numbers with commas, not “{text}”.") from None
    if found[0] < least or found[-1] > most:
        raise SpecError(f"--{name} must be from {least} to {most}.")
    return found


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """`("snr=0.2", …)` as a table. Raises SpecError for a text without a name or an equals sign."""
    table: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise SpecError(f"“{text}” is no option.", "Write it as name=value, as in snr=0.2.")
        table[name.strip()] = value.strip()
    return table


def _named(name: str) -> Sampler:
    if name in PRESETS:
        return PRESETS[name][1]
    if name in SAMPLERS:
        return SAMPLERS[name]()  # pyright: ignore[reportAbstractUsage]
    known = [*SAMPLERS, *PRESETS]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean “{near[0]}”?" if near else f"Known: {', '.join(known)}."
    raise SpecError(f"There is no sampler “{name}”.", hint)


def _fields(base: Any) -> dict[str, dataclasses.Field[Any]]:
    return {f.name: f for f in dataclasses.fields(base)}


def _chooses(base: Any, name: str) -> bool:
    """Whether the option picks a member of a family."""
    found = _ends(_paths(base), name)
    return any(dataclasses.is_dataclass(_at(base, path)) for path in found)


def _at(base: Any, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), base)


def _ends(paths: list[str], name: str) -> list[str]:
    """The paths that `name` may stand for: of those that end with it, the outermost."""
    ends = [p for p in paths if p == name or p.endswith(f".{name}")]
    least = min((p.count(".") for p in ends), default=0)
    return [p for p in ends if p.count(".") == least]


def _paths(base: Any, prefix: str = "") -> list[str]:
    """The path of every setting in `base` and in the Specs inside it."""
    found: list[str] = []
    for name in _fields(base):
        found.append(prefix + name)
        if dataclasses.is_dataclass(value := getattr(base, name)):
            found += _paths(value, f"{prefix}{name}.")
    return found


def _path(base: Any, name: str) -> str:
    known = _paths(base)
    ends = _ends(known, name)
    if len(ends) == 1:
        return ends[0]
    title = spec.title(type(base))
    if ends:
        raise SpecError(f"“{name}” could be several settings.", f"Say {' or '.join(ends)}.")
    near = difflib.get_close_matches(name, [*known, *(p.rpartition(".")[2] for p in known)], n=1)
    hint = f"Did you mean “{near[0]}”?" if near else f"Known: {', '.join(known)}."
    raise SpecError(f"{title} has no setting “{name}”.", hint)
