"""The command line. It finds the command, fills it from the options, and says how it ended.

Exit codes: 0; 2 with one line for what the person can mend; 3 when some of several files failed; 130
when interrupted; 1 for a fault of ours. With --json, stdout gets exactly one JSON object, also when it
fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import inspect
import io
import json
import math
import os
import re
import sys
import typing
from collections.abc import Sequence
from typing import Annotated, Any

from studio import spec
from studio.commands import Command, Outcome
from studio.errors import StudioError
from studio.weights import devices

#: Every command: what is typed -> where it is.
COMMANDS = {
    "gui": "studio.commands.gui:Gui",
    "sample": "studio.commands.sample:Sample",
    "inpaint": "studio.commands.paint:Inpaint",
    "colorize": "studio.commands.paint:Colorize",
    "sketch": "studio.commands.paint:Sketch",
    "upscale": "studio.commands.paint:Upscale",
    "deblur": "studio.commands.paint:Deblur",
    "replay": "studio.commands.replay:Replay",
    "likelihood": "studio.commands.likelihood:Likelihood",
    "compare": "studio.commands.compare:Compare",
    "grid": "studio.commands.grid:Grid",
    "encode": "studio.commands.flow_tools:Encode",
    "decode": "studio.commands.flow_tools:Decode",
    "interpolate": "studio.commands.flow_tools:Interpolate",
    "train": "studio.commands.train:Train",
    "train-classifier": "studio.commands.train_classifier:TrainClassifier",
    "train-features": "studio.commands.features:TrainFeatures",
    "folder": "studio.commands.folder:Folder",
    "evaluate": "studio.commands.evaluate:Evaluate",
    "evaluate-painting": "studio.commands.evaluate_painting:EvaluatePainting",
    "evaluate-steps": "studio.commands.steps:EvaluateSteps",
    "models list": "studio.commands.models:ListModels",
    "models info": "studio.commands.models:ModelInfo",
    "models known": "studio.commands.models:KnownModels",
    "models get": "studio.commands.models:GetModel",
    "models add": "studio.commands.models:AddModel",
    "models export": "studio.commands.models:ExportModel",
    "models average": "studio.commands.remake:AverageModel",
    "models adapt": "studio.commands.remake:AdaptModel",
    "models rename": "studio.commands.models:RenameModel",
    "models remove": "studio.commands.models:RemoveModel",
    "models verify": "studio.commands.models:VerifyModels",
    "selfcheck": "studio.commands.selfcheck:SelfCheck",
    "doctor": "studio.doctor:Doctor",
    "bench": "studio.bench:Bench",
    "bench-models": "studio.bench_models:BenchModels",
}

_PIPE_CLOSED = 141  # what a shell shows for a program that SIGPIPE ended


class _Usage(StudioError):
    """The command line could not be understood."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, without the program's name. Returns the exit code; raises nothing."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A Windows console may lack “ or →, which is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    devices.keep_freed()
    try:
        return _show(_run(words), "--json" in words)
    except BrokenPipeError:
        _silence()
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        return _interrupted("--json" in words)
    except Exception as error:
        return _failed(error, "--json" in words)


def _run(words: list[str]) -> Outcome:
    if words and words[0] in ("-h", "--help"):
        return Outcome({"commands": list(COMMANDS)}, _overview())
    if words and words[0] == "--version":
        from studio import __version__

        return Outcome({"version": __version__}, f"score-studio {__version__}")
    name, rest = _command(words)
    command = parse(name, rest)
    return command if isinstance(command, Outcome) else command.run()


def _command(words: list[str]) -> tuple[str, list[str]]:
    """The command and its arguments. None means the window, `models` means `models list`."""
    if not words or words[0].startswith("-"):
        return "gui", words
    if " ".join(words[:2]) in COMMANDS:
        return " ".join(words[:2]), words[2:]
    if words[0] in COMMANDS:
        return words[0], words[1:]
    group = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if group and (len(words) == 1 or words[1].startswith("-")):
        return group[0], words[1:]
    wanted = " ".join(words[:2]) if group else words[0]
    near = difflib.get_close_matches(wanted, COMMANDS, n=1)
    hint = f"Did you mean “{near[0]}”?" if near else f"Commands: {', '.join(COMMANDS)}."
    raise _Usage(f"There is no command “{wanted}”.", hint)


def _overview() -> str:
    lines = ["Watch a picture emerge from noise.", "", "score-studio [COMMAND] [OPTIONS]", ""]
    for name, place in COMMANDS.items():
        lines.append(f"  {name:<16}  {_first_line(_load(place))}")
    return "\n".join([*lines, "", "No command opens the window. COMMAND --help lists its options."])


def _load(place: str) -> type[Command]:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


# -- from words to a command ----------------------------------------------------------------------


def parse(name: str, words: Sequence[str]) -> Command | Outcome:
    """The command `name` filled from its options; an Outcome if only help was wanted.

    Raises StudioError, in one line, if the words make no sense.
    """
    import tyro

    cls = _load(COMMANDS[name])
    said, complained = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            values = tyro.cli(
                _form(cls),
                prog=f"score-studio {name}",
                description=inspect.cleandoc(cls.__doc__ or ""),
                args=list(words),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            return Outcome({"help": said.getvalue()}, said.getvalue().rstrip())
        raise _complaint(complained.getvalue(), name, cls) from None
    said_so = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    usual = {f.name: f.default for f in dataclasses.fields(values)}
    given = {name: value for name, value in said_so.items() if value != usual[name]}
    command = spec.from_dict(cls, given)
    spec.check(command)
    return command


def _form(cls: type[Command]) -> type:
    """The command as tyro wants it: help beside each field, families by name, and everything else
    as text, because `spec` converts it and complains in one sentence."""
    fields = [(f.name, _annotated(cls, f), _default(f)) for f in dataclasses.fields(cls)]
    required = [(name, kind) for name, kind, default in fields if default is dataclasses.MISSING]
    optional = [
        (name, kind, dataclasses.field(default=default))
        for name, kind, default in fields
        if default is not dataclasses.MISSING
    ]
    return dataclasses.make_dataclass(cls.__name__, [*required, *optional], frozen=True)


def _annotated(cls: type[Command], field: dataclasses.Field[Any]) -> Any:
    """The type of a field with what tyro should know of it."""
    from tyro import conf

    kind, place = spec.hints(cls)[field.name], bool(field.metadata.get("positional"))
    members = spec.members(kind) if isinstance(kind, type) else None
    choices = spec.about(field).choices or tuple(members or ())
    metavar = field.name.upper() if place else _metavar(kind)
    silent = "" if _default(field) in ("", False, True, ()) else None
    arg = {"help": _help(field), "help_behavior_hint": silent}
    if flag := spec.about(field).flag:
        arg["name"] = flag
    marks: list[Any] = [conf.Positional] if place else []
    if choices:
        return Annotated[(typing.Literal[tuple(choices)], conf.arg(**arg), *marks)]
    if kind is bool:
        return Annotated[(bool, conf.arg(**arg), *marks)]
    if typing.get_origin(kind) is tuple:
        if kind == tuple[str, ...] and not place:
            marks.append(conf.UseAppendAction)
        return Annotated[(tuple[str, ...], conf.arg(**arg, metavar=metavar), *marks)]
    return Annotated[(str, conf.arg(**arg, metavar=metavar), *marks)]


def flag(field: dataclasses.Field[Any]) -> str:
    """The word of a field on the command line, without its dashes."""
    return spec.about(field).flag or field.name.replace("_", "-")


def _metavar(kind: Any) -> str:
    """What stands after a flag in the help: INT, FLOAT or TEXT."""
    inner = typing.get_args(kind)[0] if typing.get_args(kind) else kind
    word = {int: "INT", float: "FLOAT"}.get(inner, "TEXT")
    return f"{word} …" if kind == tuple[int, ...] else word


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default as tyro is told it: a family's member by name, numbers as text, None as ""."""
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        return spec.kind(field.default_factory())
    if default is dataclasses.MISSING or isinstance(default, bool | str):
        return default
    if isinstance(default, tuple):
        return tuple(map(str, default))
    return "" if default is None else str(default)


def _help(field: dataclasses.Field[Any]) -> str:
    facts = spec.about(field)
    text = facts.help or f"{spec.label(field)}."
    return f"{text} From {facts.range[0]:,g} to {facts.range[1]:,g}." if facts.range else text


def _complaint(box: str, name: str, cls: type[Command]) -> _Usage:
    """tyro's framed complaint as one sentence, with the nearest option where one was mistyped."""
    message = _sentence(box) or "The options could not be understood"
    flags = [f"--{flag(f)}" for f in dataclasses.fields(cls)]
    needed = [f.name.upper() for f in dataclasses.fields(cls) if _default(f) is dataclasses.MISSING]
    hint = f"See score-studio {name} --help."
    if message.startswith("Missing from") or "Required" in message:
        message = f"{' and '.join(needed)} must be given"
    elif message.startswith("Unrecognized options"):
        wrong = re.search(r"--[\w-]+|$", message)
        near = difflib.get_close_matches(wrong[0] if wrong else "", flags, n=1)
        if near and near[0].lstrip("-").upper() in needed:
            hint = f"{near[0].lstrip('-').upper()} is given without {near[0]}, as it is."
        elif near:
            hint = f"Did you mean {near[0]}?"
    return _Usage(message[0].upper() + message[1:].rstrip(".") + ".", hint)


def _sentence(box: str) -> str:
    """What stands in a frame of tyro's between its title and its next rule; "" if frames change."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [line.strip(" │|\n") for line in plain.splitlines()]
    parts: list[list[str]] = [[]]
    for row in filter(None, rows):
        if set(row[-3:]) <= set("─-╮╯+"):
            parts.append([])
        else:
            parts[-1].append(row)
    return " ".join(parts[1]) if len(parts) > 1 else ""


# -- from an outcome to the terminal --------------------------------------------------------------


def _show(outcome: Outcome, as_json: bool) -> int:
    if outcome.silent:
        return outcome.code
    if as_json:
        _print_json(outcome.data)
    elif outcome.text:
        print(outcome.text)
    sys.stdout.flush()
    return outcome.code


def _interrupted(as_json: bool) -> int:
    if as_json:
        _print_json({"error": "interrupted", "hint": ""})
    sys.stderr.write("score-studio: interrupted\n")
    return 130


def _failed(error: Exception, as_json: bool) -> int:
    """Say what went wrong: in one line, or with everything a report needs."""
    from studio.engine.engine import explained

    told = explained(error)
    known = isinstance(told, StudioError)
    if as_json:
        hint = told.hint if known else ""
        _print_json({"error": told.message if known else repr(error), "hint": hint})
    if known:
        sys.stderr.write(f"score-studio: {' '.join(str(told).split())}\n")
        return 2
    import traceback

    sys.stderr.write("".join(traceback.format_exception(error)))
    sys.stderr.write(
        "score-studio: this is a fault of the studio, not of your command. Please report it, with "
        "the lines above and what `score-studio doctor` says, where you got the studio from.\n"
    )
    return 1


def _print_json(data: dict[str, Any]) -> None:
    print(json.dumps(_finite(data), allow_nan=False), flush=True)


def _finite(value: Any) -> Any:
    """JSON knows no infinity and no nan: they become null."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _silence() -> None:
    """Nobody reads our output any more: what is still buffered goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
