"""How likely is this picture? Bits per dimension of pictures and folders, along the flow, live."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import Qt, QTimer
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMenu,
    QSplitter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from studio import recipes
from studio.diffusion.likelihood import Measure
from studio.engine.events import Event
from studio.engine.flow_jobs import (
    LikelihoodJob,
    Measured,
    apart,
    outliers,
    shades,
)
from studio.errors import SpecError
from studio.spec import option
from studio.ui.fields import Rows
from studio.ui.flow.panes import Panes
from studio.ui.flow.plot import Bits, BitsPlot
from studio.ui.flow.ranking import Ranked, Ranking
from studio.ui.flow.tool import Tool, heading, muted, tool_button, write_text
from studio.ui.flow.well import Well
from studio.ui.form import Form
from studio.ui.runner import Runner
from studio.ui.session import Session

_REDRAW = 100  # milliseconds between pictures of a measurement under way
_NAMED = 4  # files that are named in a sentence; the rest in its tooltip


@dataclass(frozen=True)
class Exactness:
    """How exactly likelihoods are measured."""

    tolerance: float = option(
        1e-4,
        label="Tolerance",
        range=(1e-7, 0.1),
        log=True,
        help="Error of the solver in a step. 1e-4 gives bits to a few thousandths; 1e-5 is what "
        "papers use, at twice the time.",
    )
    probes: int = option(
        2,
        label="Probes",
        range=(1, 100),
        help="Random directions that estimate the divergence. More give a smaller error bar, each "
        "for one more pass back through the network.",
    )
    repeats: int = option(
        1,
        label="Repeats",
        range=(1, 100),
        help="Measure each picture anew with other probes and another spreading over its levels, "
        "and average. The error bar then holds both.",
    )

    @property
    def measure(self) -> Measure:
        return Measure(
            probes=self.probes, repeats=self.repeats, rtol=self.tolerance, atol=self.tolerance
        )


class _Found:
    """What is measured of a set so far: final figures, and guesses for what is under way."""

    def __init__(self, count: int, size: int) -> None:
        self.bits = np.full(count, math.nan)
        self.error = np.full(count, math.nan)
        self.map = np.full((count, size, size), math.nan, np.float32)
        self.done = np.zeros(count, bool)
        self.begun = np.zeros(count, bool)

    def take(self, event: Measured) -> None:
        part = slice(event.first, event.first + len(event.bits))
        self.bits[part], self.error[part] = event.bits, event.error
        self.map[part], self.done[part], self.begun[part] = event.map, event.finished, True


class Meter(Tool):
    """`measure` is for pictures from elsewhere in the studio."""

    name = "measure"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setObjectName("likelihoodMeter")
        empty = (
            self.tr("Click to choose a picture or folder, or drop one."),
            self.tr("A second folder to compare with, if you like."),
        )
        self.wells = (
            Well(session, self.tr("Pictures"), empty[0], True),
            Well(session, self.tr("Against"), empty[1], True),
        )
        for well, name in zip(self.wells, ("meterPictures", "meterAgainst")):
            well.setObjectName(name)
            well.changed.connect(self._given)
            well.failed.connect(self.fail)
            well.bug.connect(self.bug)
        self._found: dict[int, _Found] = {}
        self._way: list[tuple[float, float, float]] = []  # the estimates of one picture alone
        self._lanes: tuple[int, ...] = ()  # which well each set of the job is of
        self._draw_soon = QTimer(self, singleShot=True, interval=_REDRAW)
        self._draw_soon.timeout.connect(self._redraw)
        self._new_figures = False  # since the ranking was drawn
        self._run_after = False  # measure as soon as what was given is read
        self._picked = (0, 0)
        self.form = Form(Exactness())
        self.form.changed.connect(lambda _: self._reset())
        self.answer = QLabel()
        self.answer.setObjectName("meterAnswer")
        self.answer.setProperty("role", "title")
        self.answer.setWordWrap(True)
        self.answer.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.details = muted()
        self.details.setObjectName("meterDetails")
        self.plot = BitsPlot()
        self.ranking = Ranking()
        self.ranking.picked.connect(self._pick)
        self.panes = Panes(
            (self.tr("Picture"), self.tr("One of them, as the model sees it")),
            (self.tr("Where the density changes"), self.tr("And which of its pixels cost most")),
        )
        self.panes.set_note(0, "")
        self.lay_out(self._inputs(), self._view())
        self._show()

    def title(self) -> str:
        return self.tr("Likelihood")

    def verb(self) -> str:
        return self.tr("Measure")

    # -- layout -------------------------------------------------------------------------------------

    def _inputs(self) -> QWidget:
        inputs = QWidget()
        box = QVBoxLayout(inputs)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addWidget(heading(self.tr("How likely is a picture?")))
        box.addWidget(
            muted(
                self.tr(
                    "The bits per dimension that the model needs for it, along the probability "
                    "flow: the fewer, the likelier. Two folders are laid over each other."
                )
            )
        )
        for well in self.wells:
            box.addWidget(well)
        rows = Rows()
        rows.field(self.tr("Class"), self.classes)
        box.addLayout(rows)
        box.addWidget(self.form)
        box.addStretch()
        return inputs

    def _view(self) -> QWidget:
        below = QSplitter(Qt.Orientation.Horizontal)
        below.setChildrenCollapsible(False)
        below.addWidget(self.ranking)
        below.addWidget(self.panes)
        below.setSizes([480, 420])
        self.save_button = self._save_menu()
        split = QSplitter(Qt.Orientation.Vertical)
        split.setChildrenCollapsible(False)
        split.addWidget(self.plot)
        split.addWidget(below)
        split.setSizes([300, 320])
        view = QWidget()
        box = QVBoxLayout(view)
        box.setContentsMargins(8, 12, 12, 12)
        box.setSpacing(6)
        top = QHBoxLayout()
        top.addWidget(self.answer, 1)
        top.addWidget(self.save_button, 0, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignRight)
        box.addLayout(top)
        box.addWidget(self.details)
        box.addWidget(split, 1)
        return view

    def _save_menu(self) -> QToolButton:
        tip = self.tr("Save the figures as a table, or the map that is shown")
        button = tool_button("save", self.tr("Save"), tip)
        button.setObjectName("meterSave")
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(button)
        menu.addAction(self.tr("Table of all figures (CSV)…"), self._ask_table)
        menu.addAction(self.tr("Map of this picture…"), self._ask_map)
        button.setMenu(menu)
        return button

    def runners(self) -> list[Runner]:
        return [*super().runners(), *(well.reader for well in self.wells)]

    def shown(self) -> None:
        self.plot.load_plot()

    # -- what is measured ---------------------------------------------------------------------------

    def measure(self, pixels: np.ndarray, name: str) -> None:
        """Measure pictures, uint8 (H, W, C) or (N, H, W, C) of any size, as soon as may be."""
        self.runner.stop()
        self._run_after = True
        self.wells[0].put(pixels, name)

    def open(self, path: Path) -> None:
        """Take a picture or a folder; a second one, while the first well is filled, goes against it."""
        well = self.wells[0] if self.wells[0].source is None else self.wells[1]
        well.open(path)

    def why_not(self) -> str:
        model = self.session.model
        if model is None or model.info is None:
            return self.tr("There is no model on the shelf yet: get one, or train one.")
        if not model.info.output.continuous:
            return self.tr(
                "This model knows a fixed set of noise levels and nothing between them, so it has "
                "no likelihood. Choose one that was trained in continuous time."
            )
        if all(well.given is None for well in self.wells):
            return self.tr("Choose a picture or a folder first.")
        return ""

    def job(self) -> LikelihoodJob:
        model = self.session.model
        sets = {i: w.given.pixels for i, w in enumerate(self.wells) if w.given is not None}
        if model is None or not sets:
            raise SpecError(self.why_not())
        exactness: Exactness = self.form.value()
        return LikelihoodJob(model.name, tuple(sets.values()), exactness.measure, self.label)

    def run_or_stop(self) -> None:
        if not self.runner.busy and not self.why_not():
            self._forget()
        super().run_or_stop()

    def changed(self) -> None:
        self._reset()

    def _given(self) -> None:
        # What is under way is of other pictures than those that stand here now.
        self.runner.stop()
        self._reset()
        if self._run_after and self.wells[0].given is not None:
            self._start_soon()

    def _start_soon(self) -> None:
        if self.runner.busy:
            return  # `refresh` comes by when it has ended
        self._run_after = False
        self.run_or_stop()

    def refresh(self) -> None:
        super().refresh()
        if not self.runner.busy and self._draw_soon.isActive():
            self._redraw()
        if self._run_after and not self.runner.busy and self.wells[0].given is not None:
            self._start_soon()

    def _reset(self) -> None:
        """Other pictures, or otherwise measured: what was found says nothing of that."""
        self._forget()
        super().changed()

    def _forget(self) -> None:
        self._found = {
            i: _Found(len(w.given.pixels), w.given.pixels.shape[1])
            for i, w in enumerate(self.wells)
            if w.given is not None
        }
        self._lanes = tuple(self._found)
        self._way = []
        self._picked = (next(iter(self._found), 0), 0)
        self.plot.clear()
        self._show()

    # -- events -------------------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        if not isinstance(event, Measured):
            return
        found = self._found[self._lanes[event.lane]]
        found.take(event)
        if self._alone():
            self._way.append((event.log_snr, float(event.bits[0]), float(event.error[0])))
        self._new_figures |= event.finished
        if not self._draw_soon.isActive():
            self._draw_soon.start()

    def _redraw(self) -> None:
        self._draw_soon.stop()
        ranked, self._new_figures = self._new_figures, False
        self._show(ranked)

    def _alone(self) -> bool:
        return sum(len(f.bits) for f in self._found.values()) == 1

    # -- showing ------------------------------------------------------------------------------------

    def _show(self, ranked: bool = True) -> None:
        answer, details, border = self._told()
        self.answer.setText(answer)
        self.answer.setVisible(bool(answer))
        self.details.setText(details)
        self.details.setVisible(bool(details))
        self.details.setToolTip(self._skipped(10**6))
        if self._alone():
            self.plot.show_way(self._way)
        elif any(f.begun.any() for f in self._found.values()):
            self.plot.show_sets(
                tuple(
                    Bits(self.wells[i].name, f.bits[f.begun])
                    for i, f in self._found.items()
                    if f.begun.any()
                ),
                border,
            )
        if ranked:
            self._rank()
        self.save_button.setVisible(any(f.done.any() for f in self._found.values()))
        self._show_picked()

    def _told(self) -> tuple[str, str, float | None]:
        """(the answer, what else there is to say, the border between two sets)."""
        measured = {i: f for i, f in self._found.items() if f.done.any() or f.begun.any()}
        lines, border = [], None
        if skipped := self._skipped(_NAMED):
            lines.append(skipped)
        if not measured:
            return "", "\n".join(lines), None
        if self._alone():
            found = next(iter(measured.values()))
            unknown = math.isnan(found.error[0])
            lines.insert(0, self._about_error(unknown))
            return self._figure(found.bits[0], found.error[0]), "\n".join(lines), None
        answer = "   ".join(self._mean(i, f) for i, f in measured.items())
        pairs = [f.bits[f.done] for f in measured.values()]
        if len(pairs) == 2 and min(map(len, pairs)) >= 2:
            sentence, border = self._apart(*pairs)
            lines.insert(0, sentence)
        for i, f in measured.items():
            lines += self._outliers(i, f)
        return answer, "\n".join(lines), border

    def _about_error(self, unknown: bool) -> str:
        if unknown:
            return self.tr("With one probe and one repeat there is no error bar.")
        return self.tr(
            "The error bar is one standard error of the probes and repeats. On the way the figure is a "
            "guess that takes the state for noise of its own strength; a jump at the end says that it "
            "is not the noise that the model expects."
        )

    def _figure(self, bits: float, error: float) -> str:
        if math.isnan(error):
            return self.tr("{bits:.3f} bits per dimension").format(bits=bits)
        return self.tr("{bits:.3f} ± {error:.3f} bits per dimension").format(bits=bits, error=error)

    def _mean(self, lane: int, found: _Found) -> str:
        bits, count = found.bits[found.begun], len(found.bits)
        error = bits.std(ddof=1) / math.sqrt(len(bits)) if len(bits) > 1 else found.error[0]
        return self.tr("{name}: {bits:.3f} ± {error:.3f} ({done} of {count})").format(
            name=self.wells[lane].name,
            bits=float(bits.mean()),
            error=float(error),
            done=int(found.done.sum()),
            count=count,
        )

    def _apart(self, first: np.ndarray, second: np.ndarray) -> tuple[str, float]:
        told = apart(first, second)
        names = [well.name for well in self.wells]
        likelier = names[0] if told.auc >= 0.5 else names[1]
        other = names[1] if told.auc >= 0.5 else names[0]
        facts = {
            "likelier": likelier,
            "other": other,
            "pairs": round(100 * max(told.auc, 1 - told.auc)),
            "auc": max(told.auc, 1 - told.auc),
            "error": told.error,
            "sorted": round(100 * told.sorted),
        }
        if told.told_apart:
            sentence = self.tr(
                "Told apart: in {pairs} of 100 pairs the picture of {likelier} is likelier than that "
                "of {other} (AUC {auc:.3f} ± {error:.3f}); the dotted border puts {sorted} % on the "
                "right side."
            )
        else:
            sentence = self.tr(
                "Not told apart: in {pairs} of 100 pairs the picture of {likelier} is likelier than "
                "that of {other}, which may be chance (AUC {auc:.3f} ± {error:.3f})."
            )
        return sentence.format(**facts), told.border

    def _outliers(self, lane: int, found: _Found) -> list[str]:
        given = self.wells[lane].given
        flags = outliers(found.bits[found.done])
        if given is None or not flags.any():
            return []
        names = [Path(given.names[i]).name for i in np.flatnonzero(found.done)[flags]]
        shown = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        return [
            self.tr("Far from the rest of {name}: {count} ({files}).").format(
                name=self.wells[lane].name, count=len(names), files=shown
            )
        ]

    def _skipped(self, most: int) -> str:
        skipped = [
            f"{well.name}: {why}"
            for well in self.wells
            for _, why in (well.given.skipped if well.given is not None else ())
        ]
        if not skipped:
            return ""
        told = " ".join(skipped[:most])
        return self.tr("Could not be read: {count}. {files}").format(
            count=len(skipped), files=told + (" …" if len(skipped) > most else "")
        )

    def _rank(self) -> None:
        """What is far from its set first, then the least likely, of all sets together."""
        ranked = []
        for i, found in self._found.items():
            given = self.wells[i].given
            if given is None:
                continue
            far = np.zeros(len(found.bits), bool)
            far[found.done] = outliers(found.bits[found.done])
            for k in np.flatnonzero(found.done):
                figure = self._figure(found.bits[k], found.error[k])
                told = f"{Path(given.names[k]).name}\n{self.wells[i].name}\n{figure}"
                if far[k]:
                    told += "\n" + self.tr("far from the rest")
                caption = f"{found.bits[k]:.2f}" + (" ⚑" if far[k] else "")
                picture, bits = given.pixels[k], float(found.bits[k])
                ranked.append(Ranked(i, int(k), picture, bits, caption, told, bool(far[k])))
        ranked.sort(key=lambda r: (not r.outlier, -r.bits))
        self.ranking.show_pictures(ranked)
        self.ranking.setVisible(bool(ranked) and not self._alone())

    def _pick(self, lane: int, index: int) -> None:
        self._picked = lane, index
        self._show_picked()

    def _show_picked(self) -> None:
        lane, index = self._picked
        found, given = self._found.get(lane), self.wells[lane].given
        if found is None or given is None or index >= len(found.bits):
            self.panes.clear()
            return
        name = Path(given.names[index]).name
        self.panes.show_picture(0, given.pixels[index], name)
        if not found.begun[index]:
            self.panes.clear(1)
            return
        shaded, (low, high) = shades(found.map[index])
        self.panes.show_picture(
            1,
            ramp(shaded),
            self.tr("dark {low:.1f} to bright {high:.1f} nats per value").format(
                low=low, high=high
            ),
        )

    # -- keeping ------------------------------------------------------------------------------------

    def table(self) -> str:
        """The figures of all that is measured, as CSV."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("set", "file", "bits per dimension", "standard error"))
        for i, found in self._found.items():
            given = self.wells[i].given
            if given is None:
                continue
            for k in np.flatnonzero(found.done):
                error = "" if math.isnan(found.error[k]) else f"{found.error[k]:.6f}"
                rows.writerow((self.wells[i].name, given.names[k], f"{found.bits[k]:.6f}", error))
        return out.getvalue()

    def _ask_table(self) -> None:
        text = self.table()
        self.save("likelihood.csv", "CSV (*.csv)", lambda path: write_text(path, text))

    def _ask_map(self) -> None:
        lane, index = self._picked
        picture = recipes.enlarged(ramp(shades(self._found[lane].map[index])[0]))
        self.save("map.png", "PNG (*.png)", lambda path: recipes.write_png(path, picture))

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self.plot.load_plot()


_ANCHORS = np.array([[13, 8, 36], [92, 32, 110], [190, 66, 90], [244, 140, 60], [252, 236, 170]])


def ramp(grey: np.ndarray) -> np.ndarray:
    """Levels (H, W) as colours (H, W, 3) whose brightness rises evenly, so that they can also be read
    by those who see no hues."""
    at = np.linspace(0, 255, len(_ANCHORS))
    levels = np.arange(256)
    table = np.stack([np.interp(levels, at, _ANCHORS[:, c]) for c in range(3)], 1)
    return table.astype(np.uint8)[grey]
