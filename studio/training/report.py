"""The figures of a model as data, as a table for its card, and in words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.training.distances import Figure
from studio.training.evaluation import Figures
from studio.training.memorisation import Gauge

#: The figures of a row: field -> (heading, factor, digits). Shares are told in per cent.
_COLUMNS = {
    "frechet": ("Fréchet", 1.0, 2),
    "kernel": ("kernel ×10³", 1e3, 2),
    "precision": ("precision %", 100.0, 1),
    "recall": ("recall %", 100.0, 1),
    "density": ("density", 1.0, 2),
    "coverage": ("coverage %", 100.0, 1),
    "named": ("class %", 100.0, 1),
    "grain": ("grain", 1.0, 2),
}
_SPACES = {"features": "by features", "pixels": "by pixels"}


@dataclass(frozen=True)
class Row:
    """The figures of a sampler's pictures. `calls` is 0 where none were made here."""

    sampler: str
    setting: str
    calls: int
    seconds: float  # of all pictures
    figures: Figures


@dataclass(frozen=True)
class Report:
    """Everything measured of a model, or of pictures. `real` are the figures of right ones."""

    model: str
    data: str
    space: str
    reference: str
    real: Figures
    rows: tuple[Row, ...] = ()
    bits: Figure | None = None
    bits_count: int = 0
    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    train: str = ""

    def with_row(self, row: Row) -> Report:
        return dataclasses.replace(self, rows=(*self.rows, row))

    def facts(self) -> dict[str, Any]:
        """As plain data for JSON; what is unknown is null."""
        bits = self.bits and dataclasses.asdict(self.bits) | {"count": self.bits_count}
        data = {
            "model": self.model,
            "data": self.data,
            "features": self.space,
            "reference": self.reference,
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "real": dataclasses.asdict(self.real),
            "bits_per_dimension": bits,
            "memorisation": {
                space: dataclasses.asdict(gauge) | {"repeats": gauge.repeats}
                for space, gauge in self.gauges.items()
            },
        }
        return _plain(data)

    def table(self) -> str:
        """A Markdown table of the figures, and what else there is to say, for a card."""
        shown = [
            (name, *about)
            for name, about in _COLUMNS.items()
            if not math.isnan(getattr(self.real, name).value)
            or any(not math.isnan(getattr(row.figures, name).value) for row in self.rows)
        ]
        head = ["pictures of", "calls", "pictures", *(heading for _, heading, _, _ in shown)]
        rows = [
            [_label(row), _calls(row), str(row.figures.count), *_cells(row.figures, shown)]
            for row in self.rows
        ]
        rows.append(["real", "–", str(self.real.count), *_cells(self.real, shown)])
        lines = [_line(head), "|---|" + "---:|" * (len(head) - 1), *map(_line, rows), ""]
        lines.append(f"Features: `{self.space}`. Reference: {self.reference}.")
        return "\n".join([*lines, *self._told()])

    def _told(self) -> list[str]:
        lines = []
        fewer = self.real.count
        if any(row.figures.count > fewer for row in self.rows):
            lines.append(
                f"There are {fewer} real pictures beside the reference, and the Fréchet distance of "
                f"fewer is larger: --count {fewer} compares like with like."
            )
        if self.bits is not None:
            lines.append(
                f"Bits per dimension: {told(self.bits, 1, 3)} ({self.bits_count} held-out pictures)."
            )
        for space, gauge in self.gauges.items():
            close, nearer = told(gauge.close, 100, 1), told(gauge.nearer, 100, 1)
            lines.append(
                f"Nearest training picture {_SPACES[space]}, beside the nearest of others: {close} % "
                f"are closer than 1 % of held-out pictures are; nearer than a held-out picture in "
                f"{nearer} % of pairs (50: nothing is repeated); {gauge.ratio:.2f} times as far."
            )
        if any(gauge.repeats for gauge in self.gauges.values()):
            lines.append("It repeats pictures that it was trained on.")
        return lines


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def told(figure: Figure, factor: float, digits: int) -> str:
    """A figure with its error: "3.14 ± 0.02"; "–" if it is unknown."""
    if math.isnan(figure.value):
        return "–"
    value = f"{factor * figure.value:.{digits}f}"
    return value if math.isnan(figure.error) else f"{value} ± {factor * figure.error:.{digits}f}"


def _cells(figures: Figures, shown: list[tuple[str, str, float, int]]) -> list[str]:
    return [told(getattr(figures, name), factor, digits) for name, _, factor, digits in shown]


def _label(row: Row) -> str:
    return f"`{row.sampler}`, {row.setting}" if row.setting else f"`{row.sampler}`"


def _calls(row: Row) -> str:
    return str(row.calls) if row.calls else "–"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
