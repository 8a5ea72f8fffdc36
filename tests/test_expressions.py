"""Formulas that a person types: what they mean, and how it is said that they mean nothing."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY

from studio.diffusion.expressions import MOST_CHARACTERS, parse
from studio.errors import SpecError

T = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)

#: What is typed -> what it means, by Python's own mathematics.
MEANINGS = {
    "0": lambda t: 0.0,
    "  t ": lambda t: t,
    "1.5e-2": lambda t: 0.015,
    ".5*t": lambda t: t / 2,
    "3.": lambda t: 3.0,
    "e^t": math.exp,
    "exp(t)": math.exp,
    "e**t": math.exp,
    "25^t": lambda t: 25**t,
    "-t^2": lambda t: -(t**2),
    "(-t)^2": lambda t: t**2,
    "2^-t": lambda t: 2**-t,
    "2^3^t": lambda t: 2 ** (3**t),
    "1 - t - 2": lambda t: -1 - t,
    "8/4/2": lambda t: 1.0,
    "2 + 3 * t": lambda t: 2 + 3 * t,
    "(2 + 3) * t": lambda t: 5 * t,
    "--t": lambda t: t,
    "+t - -1": lambda t: t + 1,
    "-(0.1+19.9*t)/2": lambda t: -(0.1 + 19.9 * t) / 2,
    "sqrt(0.1 + 19.9*t)": lambda t: math.sqrt(0.1 + 19.9 * t),
    "log(1 + t) + sin(pi*t)*cos(t)": lambda t: (
        math.log(1 + t) + math.sin(math.pi * t) * math.cos(t)
    ),
    "tan(t) + sinh(t) - cosh(t)*tanh(t)": lambda t: math.tan(t),
    "abs(t - 1)": lambda t: abs(t - 1),
    "max(t, 0.4)*min(1, 2*t)": lambda t: max(t, 0.4) * min(1, 2 * t),
    "2·t − π×t": lambda t: 2 * t - math.pi * t,
}


@pytest.mark.parametrize("text", list(MEANINGS))
def test_a_formula_means_what_it_means_on_paper(text):
    wanted = torch.tensor([MEANINGS[text](float(t)) for t in T], dtype=torch.float64)
    torch.testing.assert_close(parse(text).value(T), wanted, rtol=1e-14, atol=1e-14)


def test_a_constant_has_the_shape_of_time():
    assert parse("2").value(T).shape == T.shape
    assert parse("2").value(T[0]).shape == ()
    assert parse("t*e").value(T.float()).dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "part", "hint"),
    [
        ("2*sine(t)", "at character 3, there is no “sine”", "Did you mean “sin”?"),
        ("x", "there is no “x”", "t, pi"),
        ("2t", "at character 2, a sign is missing before “t”", "2*t"),
        ("2 e^t", "a sign is missing before “e”", "2*t"),
        ("exp t", "“exp” wants its value in parentheses", "exp(t)"),
        ("(1 + t", "at the end, a “)” is missing", ""),
        ("max(t)", "“max” compares two values", "max(t, 0.5)"),
        ("sin(t, 1)", "a “)” is missing, not “,”", ""),
        ("1 + t)", "a “)” closes nothing", ""),
        ("2 +", "at the end, it ends too soon", ""),
        ("2 + * t", "something is missing before “*”", ""),
        ("()", "something is missing before “)”", ""),
        ("t % 2", "a sign is missing before “%”", ""),
        ("$", "“$” means nothing here", "parentheses"),
        ("1e999", "too large a number", ""),
        ("", "A formula is missing", "e^t"),
        ("   ", "A formula is missing", "e^t"),
    ],
)
def test_what_means_nothing_is_refused_with_its_place(text, part, hint):
    with pytest.raises(SpecError) as refused:
        parse(text)
    assert part in refused.value.message
    assert refused.value.message.count(".") == 1 or text in refused.value.message
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "t.__class__",
        "exec(1)",
        "(lambda: 0)()",
        "t if t else 1",
        "torch",
        "add(t, t)",
        "[1, 2]",
        "f\n",
        "\x1b[2J",
        "１",
    ],
)
def test_no_program_is_a_formula(text):
    with pytest.raises(SpecError):
        parse(text)


def test_length_and_depth_are_bounded():
    parse("+".join("t" * 100))
    parse("(" * 30 + "t" + ")" * 30)
    for text in (
        "t+" * MOST_CHARACTERS,
        "(" * 90 + "t" + ")" * 90,
        "-" * 190 + "t",
        "2^" * 90 + "t",
        "abs(" * 45 + "t" + ")" * 5,
    ):
        with pytest.raises(SpecError):
            parse(text)


def test_reading_a_formula_does_not_load_torch():
    code = (
        "import sys\n"
        "from studio.diffusion.expressions import parse\n"
        "from studio.diffusion.sde import OwnSDE\n"
        "parse('e^t'), OwnSDE(g='3*exp(t)')\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
