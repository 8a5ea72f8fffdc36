"""The self-check as a job: every sampler, the likelihood and every condition against exact answers.

It needs no model. A law is one event; curves of end error against network calls come as Metrics,
named "SDE sampler", for those who draw them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio import spec
from studio.diffusion.catalog import SAMPLERS
from studio.diffusion.condition_laws import condition_laws
from studio.diffusion.flow_laws import likelihood_laws
from studio.diffusion.laws import ORDERS, Law, end_error, sampler_laws
from studio.diffusion.posterior_laws import posterior_laws
from studio.diffusion.predictors import PREDICTORS
from studio.diffusion.sampler import Sampler
from studio.diffusion.sde import SDE, SDES
from studio.engine.events import Event, Metric, Note, Progress
from studio.lazy import torch
from studio.spec import option

if TYPE_CHECKING:
    from studio.engine.engine import Context

#: Network calls at which the end errors of a curve are measured, and of which pictures.
CURVE_CALLS = (10, 20, 40, 80, 160)
CURVE_STD = 0.5


@dataclass(frozen=True)
class Checked(Event):
    """A law that was measured."""

    law: Law


#: A part of the check: what it looks at, and what it finds as it goes.
Part = tuple[str, Iterator[Event]]
#: What is measured besides the samplers.
_OTHERS = {
    "likelihood": likelihood_laws,
    "conditions": condition_laws,
    "posteriors": posterior_laws,
}


@dataclass(frozen=True)
class SelfCheckJob:
    """Measure every law: Checked events, with Progress in parts."""

    quick: bool = option(False, label="Quick", help="Each sampler with one SDE instead of all.")
    curves: bool = False

    def run(self, context: Context) -> Generator[Event, Any, None]:
        threads = torch.get_num_threads()
        # Small tensors are slower with more threads than one.
        torch.set_num_threads(1)
        try:
            yield from self._measured(context)
        finally:
            torch.set_num_threads(threads)

    def _measured(self, context: Context) -> Iterator[Event]:
        parts = self.parts()
        for done, (title, events) in enumerate(parts):
            yield Note(title)
            for event in events:
                context.check()
                yield event
            yield Progress(done + 1, len(parts))

    def parts(self) -> list[Part]:
        """What there is to measure, in order."""
        parts = [
            _part(f"{sampler}, {sde}", sampler_laws(_only(sde), [sampler]))
            for i, sampler in enumerate(SAMPLERS)
            for sde in self._sdes(i)
        ]
        for i, (title, laws) in enumerate(_OTHERS.items()):
            parts += [_part(f"{title}, {sde}", laws(_only(sde))) for sde in self._sdes(i)]
        if self.curves:
            shown = ["vp"] if self.quick else list(SDES)
            parts += [(f"curves, {sde}", _curves(sde)) for sde in shown]
        return parts

    def _sdes(self, turn: int) -> list[str]:
        """The SDEs of a part: all, or by turns another one."""
        names = list(SDES)
        return [names[turn % len(names)]] if self.quick else names


def _only(sde: str) -> dict[str, SDE]:
    return {sde: spec.from_dict(SDE, {"kind": sde})}


def _part(title: str, laws: Iterator[Law]) -> Part:
    return title, (Checked(law) for law in laws)


def _curves(sde: str) -> Iterator[Event]:
    """By how much the pictures of each sampler with fixed steps spread too much or too little."""
    for name in ORDERS:
        points = []
        for calls in CURVE_CALLS:
            sampler = spec.from_dict(
                Sampler, {"kind": name, "steps": calls // PREDICTORS[name].calls}
            )
            points.append((float(calls), abs(end_error(sampler, _only(sde)[sde], CURVE_STD))))
        yield Metric(f"{sde} {name}", tuple(points))


@dataclass(frozen=True)
class Row:
    """A law of one sampler or other part, under every SDE that it was measured with."""

    laws: tuple[Law, ...]

    @property
    def ok(self) -> bool:
        return all(law.ok for law in self.laws)

    @property
    def subject(self) -> str:
        return self.laws[0].sampler

    @property
    def name(self) -> str:
        return self.laws[0].name

    @property
    def theory(self) -> str:
        """What the measures should be, and how far from it they may be."""
        wanted = [law.expected for law in self.laws]
        ends = dict.fromkeys(_figure(self.name, v) for v in (min(wanted), max(wanted)))
        allowed = _figure(self.name, max(law.tolerance for law in self.laws)).lstrip("+")
        return f"{' to '.join(ends)} ± {allowed}"

    def measured(self, sde: str) -> str:
        """What was measured with this SDE; "" if nothing was."""
        found = [law for law in self.laws if law.sde == sde]
        if not found:
            return ""
        return _figure(self.name, found[0].measured) + ("" if found[0].ok else " !")


def rows(laws: Iterable[Law]) -> list[Row]:
    """One row for each law of each part, in the order in which they came."""
    together: dict[tuple[str, str], list[Law]] = {}
    for law in laws:
        together.setdefault((law.sampler, law.name), []).append(law)
    return [Row(tuple(found)) for found in together.values()]


def table(laws: Iterable[Law]) -> str:
    """The laws as lines of text: what was measured with each SDE, and what theory says."""
    cells = [["", "", "law", *SDES, "theory"]]
    for row in rows(laws):
        measured = [row.measured(sde) for sde in SDES]
        cells.append(["ok" if row.ok else "OFF", row.subject, row.name, *measured, row.theory])
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells
    )


def _figure(name: str, value: float) -> str:
    """An error in percent, anything else as a number."""
    if not name.startswith("error"):
        return f"{value:.3f}"
    if value == 0:
        return "0 %"
    return f"{100 * value:+.2f} %" if abs(value) >= 5e-5 else f"{100 * value:+.0e} %"
