"""Formulas in t that a person types, as "-(0.1 + 19.9*t)/2" or "e^t".

Read by a parser of our own, never as Python: numbers, t, pi, e, + - * / ^ (or **), parentheses and
the functions below, and nothing else. Reading needs no torch; `value` does.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.errors import SpecError
from studio.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

#: A formula may be no longer, and nest no deeper.
MOST_CHARACTERS, MOST_NESTED = 200, 40

CONSTANTS = {"pi": math.pi, "π": math.pi, "e": math.e}
#: Functions of one value by name, and those of two; all are called the same in torch.
FUNCTIONS = ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "abs")
PAIRED = {"min": "minimum", "max": "maximum"}
_OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "div", "^": "pow"}
#: Other ways to type a sign, each of one character, so that places stay places.
_SAME = str.maketrans({"−": "-", "–": "-", "·": "*", "×": "*"})
_TOKEN = re.compile(
    r"\s*(?P<token>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[^\W\d]\w*|\*\*|\S)"
)
_DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Expression:
    """A formula. `operation` is "t", "number" or the name of a torch function of `parts`."""

    operation: str
    parts: tuple[Expression, ...] = ()
    number: float = 0.0

    def value(self, t: Tensor) -> Tensor:
        """The value at times t (B,), (B,). Not finite where the formula is not."""
        return self._at(t).expand(t.shape)

    def _at(self, t: Tensor) -> Tensor:
        if self.operation == "t":
            return t
        if self.operation == "number":
            return t.new_full((), self.number)
        return getattr(torch, self.operation)(*(part._at(t) for part in self.parts))


@functools.lru_cache(maxsize=256)
def parse(text: str) -> Expression:
    """The formula in `text`. Raises SpecError, in one sentence that names the place."""
    if not text.strip():
        raise SpecError("A formula is missing.", "Write one in t, as e^t; 0 for none.")
    if len(text) > MOST_CHARACTERS:
        raise SpecError(f"A formula may have {MOST_CHARACTERS} characters, not {len(text)}.")
    if not text.isprintable():
        raise SpecError("A formula is one line of characters that can be printed.")
    return _Reader(text).whole()


class _Reader:
    """Reads from left to right; each method is a rule of the grammar, the loosest binding first."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = [
            (found["token"], found.start("token")) for found in _TOKEN.finditer(_plain(text))
        ]
        self._next = 0
        self._depth = 0

    def whole(self) -> Expression:
        read = self._sum()
        if self._token == ")":
            raise self._error("a “)” closes nothing", "Take it out, or open it with “(”.")
        if self._token:
            raise self._error(
                f"a sign is missing before “{self._token}”", "Write a product with *, as 2*t."
            )
        return read

    def _sum(self) -> Expression:
        read = self._product()
        while self._token in ("+", "-"):
            operation = _OPERATORS[self._take()]
            read = Expression(operation, (read, self._product()))
        return read

    def _product(self) -> Expression:
        read = self._signed()
        while self._token in ("*", "/"):
            operation = _OPERATORS[self._take()]
            read = Expression(operation, (read, self._signed()))
        return read

    def _signed(self) -> Expression:
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise self._error("it nests too deeply", f"At most {MOST_NESTED} levels are read.")
        if self._token in ("+", "-"):
            negative = self._take() == "-"
            read = self._signed()
            read = Expression("neg", (read,)) if negative else read
        else:
            read = self._power()
        self._depth -= 1
        return read

    def _power(self) -> Expression:
        base = self._single()
        if self._token in ("^", "**"):
            self._take()
            return Expression("pow", (base, self._signed()))
        return base

    def _single(self) -> Expression:
        token = self._token
        if token == "(":
            self._take()
            return self._closed(self._sum())
        if token[:1] in _DIGITS or (token[:1] == "." and len(token) > 1):
            return self._number(float(token))
        if token[:1].isalpha() or token[:1] == "_":
            return self._named(token)
        if not token:
            raise self._error("it ends too soon", "Something is missing after the last sign.")
        if token in {*_OPERATORS, "**", ")", ","}:
            raise self._error(f"something is missing before “{token}”")
        raise self._error(f"“{token}” means nothing here", _vocabulary())

    def _number(self, number: float) -> Expression:
        if not math.isfinite(number):
            raise self._error(f"“{self._token}” is too large a number")
        self._take()
        return Expression("number", number=number)

    def _named(self, name: str) -> Expression:
        if name == "t":
            self._take()
            return Expression("t")
        if name in CONSTANTS:
            self._take()
            return Expression("number", number=CONSTANTS[name])
        if name in FUNCTIONS or name in PAIRED:
            self._take()
            return self._call(name)
        known = [*FUNCTIONS, *PAIRED, *CONSTANTS, "t"]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean “{near[0]}”?" if near else _vocabulary()
        raise self._error(f"there is no “{name}”", hint)

    def _call(self, name: str) -> Expression:
        if self._token != "(":
            raise self._error(f"“{name}” wants its value in parentheses", f"As in {name}(t).")
        self._take()
        first = self._sum()
        if name in FUNCTIONS:
            return self._closed(Expression(name, (first,)))
        if self._token != ",":
            raise self._error(f"“{name}” compares two values", f"As in {name}(t, 0.5).")
        self._take()
        return self._closed(Expression(PAIRED[name], (first, self._sum())))

    def _closed(self, read: Expression) -> Expression:
        if self._token != ")":
            wanted = f", not “{self._token}”" if self._token else ""
            raise self._error(f"a “)” is missing{wanted}")
        self._take()
        return read

    @property
    def _token(self) -> str:
        """The token under the eye; "" at the end."""
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        self._next += 1
        return self._tokens[self._next - 1][0]

    def _error(self, what: str, hint: str = "") -> SpecError:
        if self._next < len(self._tokens):
            place = f"at character {self._tokens[self._next][1] + 1}"
        else:
            place = "at the end"
        return SpecError(f"In “{self.text}”, {place}, {what}.", hint)


def _plain(text: str) -> str:
    return text.translate(_SAME)


def _vocabulary() -> str:
    words = ", ".join(["t", *CONSTANTS, *FUNCTIONS, *PAIRED])
    return f"A formula has numbers, + - * / ^, parentheses, and {words}."
