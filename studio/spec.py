"""Specs: frozen dataclasses that hold what a person can choose.

One declaration gives the JSON in a picture's recipe, the form in the window and the options of the
command line. A *family* is a base class with named members (`PREDICTORS = family(Predictor, {...})`):
wherever a field has the type of the base, any member may stand, and its name is its `kind`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from studio.errors import SpecError

T = TypeVar("T")

_FAMILIES: dict[type, dict[str, Any]] = {}


@dataclass(frozen=True)
class About:
    """What is said of one field: its label, one honest sentence, the values allowed."""

    label: str = ""
    help: str = ""
    range: tuple[float, float] | None = None
    choices: tuple[Any, ...] = ()
    log: bool = False  # spans decades: a form steps by factors
    flag: str = ""  # on the command line, where the field's name is not the word people type


def option(
    default: Any,
    *,
    label: str = "",
    help: str = "",
    range: tuple[float, float] | None = None,
    choices: tuple[Any, ...] = (),
    log: bool = False,
    flag: str = "",
) -> Any:
    """A dataclass field with its label, help and bounds. A callable default is a factory."""
    about = {"about": About(label, help, range, choices, log, flag)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=about)
    return dataclasses.field(default=default, metadata=about)


def about(field: dataclasses.Field[Any]) -> About:
    """The About of a field; an empty one where the field was declared without `option`."""
    return field.metadata.get("about") or About()


def fields(spec: Any) -> tuple[dataclasses.Field[Any], ...]:
    """The fields of a Spec, in their order."""
    return dataclasses.fields(spec)


def label(field: dataclasses.Field[Any]) -> str:
    return about(field).label or field.name.replace("_", " ").capitalize()


def family(base: type[T], members: dict[str, type[T]]) -> dict[str, type[T]]:
    """Remember `members` as all that may stand where a field has the type `base`."""
    _FAMILIES[base] = members
    return members


def members(base: type[T]) -> dict[str, type[T]] | None:
    """The family of `base`, or None if it has none."""
    return _FAMILIES.get(base)


def kind(spec: Any) -> str:
    """The name under which the class of `spec` stands in its family."""
    for classes in _FAMILIES.values():
        for name, cls in classes.items():
            if type(spec) is cls:
                return name
    raise SpecError(f"{type(spec).__name__} belongs to no family.")


def title(cls: type) -> str:
    """What a person reads for a member: its `title` attribute, else the class name."""
    return cls.__dict__.get("title") or cls.__name__


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """The resolved types of a Spec's fields."""
    return typing.get_type_hints(cls)


def to_dict(spec: Any) -> dict[str, Any]:
    """A Spec as plain JSON data. Members of a family carry their `kind`."""
    out: dict[str, Any] = {}
    if any(type(spec) in classes.values() for classes in _FAMILIES.values()):
        out["kind"] = kind(spec)
    for field in dataclasses.fields(spec):
        out[field.name] = _data(getattr(spec, field.name))
    return out


def _data(value: Any) -> Any:
    """A field's value as plain JSON data: a Spec, a tuple of them, or what is plain already."""
    if isinstance(value, tuple):
        return [_data(v) for v in value]
    return to_dict(value) if dataclasses.is_dataclass(value) else value


def from_dict(base: type[T], data: Any) -> T:
    """Build a Spec from untrusted JSON data. Raises SpecError with the field's name."""
    if not isinstance(data, Mapping):
        raise SpecError(f"{title(base)} must be a table of settings, not {_show(data)}.")
    data = dict(data)
    cls: type = base
    if (named := members(base)) is not None:
        cls = _pick(named, data.pop("kind", None), title(base))
    else:
        data.pop("kind", None)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in data:
        if name not in fields:
            raise SpecError(f"{title(cls)} has no setting “{name}”.", _nearest(name, fields))
    kinds = hints(cls)
    return cls(**{k: _convert(kinds[k], v, f"{title(cls)}: {k}") for k, v in data.items()})


def check(spec: Any) -> None:
    """Raise SpecError if a value of `spec`, or of a Spec inside it, is out of its bounds."""
    for field in dataclasses.fields(spec):
        value, facts = getattr(spec, field.name), about(field)
        for inner in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(inner):
                check(inner)
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"{label(field)} must be a finite number, not {value}.")
        if facts.range and isinstance(value, int | float) and not isinstance(value, bool):
            low, high = facts.range
            if not low <= value <= high:
                raise SpecError(f"{label(field)} must be from {low:g} to {high:g}, not {value:g}.")
        if facts.choices and value not in facts.choices:
            names = ", ".join(str(c) for c in facts.choices)
            raise SpecError(f"{label(field)} must be one of {names}, not {_show(value)}.")


def replace(spec: T, path: str, value: Any) -> T:
    """`spec` with the field at `path` changed: `"predictor.steps"` reaches into a Spec inside."""
    head, _, rest = path.partition(".")
    names = [f.name for f in dataclasses.fields(spec)]  # type: ignore[arg-type]
    if head not in names:
        raise SpecError(f"{title(type(spec))} has no setting “{head}”.", _nearest(head, names))
    if rest:
        value = replace(getattr(spec, head), rest, value)
    else:
        value = _convert(hints(type(spec))[head], value, f"{title(type(spec))}: {head}")
    return dataclasses.replace(spec, **{head: value})  # type: ignore[type-var]


def _pick(named: Mapping[str, type], name: Any, what: str) -> type:
    if not isinstance(name, str) or name not in named:
        raise SpecError(f"There is no {what.lower()} “{name}”.", _nearest(str(name), named))
    return named[name]


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean “{near[0]}”?" if near else f"Known: {', '.join(known)}."


def _convert(wanted: Any, value: Any, where: str) -> Any:
    """`value` from JSON or a command line as the type `wanted`. Raises SpecError."""
    options = typing.get_args(wanted) if _is_union(wanted) else (wanted,)
    if value is None and type(None) in options:
        return None
    for one in options:
        if one is type(None):
            continue
        if isinstance(one, type) and (members(one) or dataclasses.is_dataclass(one)):
            if isinstance(value, one):
                return value
            return from_dict(one, {"kind": value} if isinstance(value, str) else value)
        if typing.get_origin(one) is tuple:
            inner = typing.get_args(one)
            fixed = len(inner) if Ellipsis not in inner else None
            if isinstance(value, list | tuple) and fixed in (None, len(value)):
                return tuple(_convert(inner[0], v, where) for v in value)
            continue
        if typing.get_origin(one) is dict and isinstance(value, Mapping):
            return dict(value)
        if (plain := _plain(one, value)) is not None:
            return plain
    raise SpecError(f"{where} cannot be {_show(value)}.")


def _plain(wanted: type, value: Any) -> Any:
    """`value` as bool, int, float or str where nothing is lost by it, else None."""
    if isinstance(value, bool) or wanted is bool:
        words = {"true": True, "yes": True, "false": False, "no": False}
        value = words.get(value.lower(), value) if isinstance(value, str) else value
        return value if wanted is bool and isinstance(value, bool) else None
    if wanted is str:
        return value if isinstance(value, str) else None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if wanted is float:
        return number
    return int(number) if wanted is int and math.isfinite(number) and number % 1 == 0 else None


def _is_union(wanted: Any) -> bool:
    return typing.get_origin(wanted) in (typing.Union, types.UnionType)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
