"""The recipe of a race, left in the window: two to four lanes, what they share, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from studio.diffusion.catalog import PRESETS
from studio.engine.jobs import MOST_PICTURES
from studio.engine.race import (
    SYNCS,
    Lane,
    RaceRecipe,
    paper_settings,
    same_calls,
    same_time,
)
from studio.errors import SpecError
from studio.ui.compare.lane_row import LaneRow, titles, unfit
from studio.ui.compare.marks import LETTERS, MOST_LANES
from studio.ui.fields import Rows, Whole
from studio.ui.seed import SeedEdit
from studio.weights.shelf import Entry

FEWEST_LANES = 2
#: What a new lane begins with: the first of these that no lane has yet.
_USUAL = ("balanced", "flow", "quick", "paper")


class LaneEditor(QWidget):
    """Edits a RaceRecipe. Emits `changed` when a person changes it, and `probe_wanted` when "same time"
    is asked for and nobody knows yet how long a call of each lane takes: answer with `set_speeds`."""

    changed = Signal()
    probe_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._entries: list[Entry] = []
        self._speeds: dict[tuple[Lane, ...], tuple[float, ...]] = {}  # of lanes without samplers
        self.rows: list[LaneRow] = []
        self.add_button = QPushButton(self.tr("Add lane"))
        self.add_button.setObjectName("addLane")
        self.add_button.clicked.connect(self.add_lane)
        self.terms, self.amount = self._terms()
        self.count = self._count()
        self.seed = SeedEdit()
        self.sync = self._sync()
        self.bits = QCheckBox(self.tr("Bits per dimension of the results"))
        self.bits.setObjectName("bits")
        self.bits.setToolTip(
            self.tr("At the end, measure by the flow how likely each lane's pictures are")
        )
        self.cost = QLabel()
        self.cost.setObjectName("cost")
        self.cost.setProperty("role", "muted")
        self.cost.setWordWrap(True)
        self._lay_out()
        for name in _USUAL[:FEWEST_LANES]:
            self._insert(Lane(sampler=PRESETS[name][1]))
        self._arranged()
        self.terms.activated.connect(self._terms_chosen)
        self.amount.valueChanged.connect(lambda _: self._terms_chosen(0))
        self.seed.changed.connect(lambda _: self.changed.emit())
        self.count.valueChanged.connect(lambda _: self.changed.emit())
        self.sync.activated.connect(lambda _: self.changed.emit())
        self.bits.toggled.connect(lambda _: self.changed.emit())

    # ---- parts --------------------------------------------------------------------------------

    def _terms(self) -> tuple[QComboBox, Whole]:
        combo, amount = QComboBox(), Whole()
        combo.setObjectName("terms")
        combo.setAccessibleName(self.tr("Terms"))
        for key, text, tip in (
            ("own", self.tr("Own settings"), self.tr("Every lane as it is set")),
            (
                "calls",
                self.tr("Same calls"),
                self.tr("As many steps as so many network calls allow, in every lane"),
            ),
            (
                "time",
                self.tr("Same time"),
                self.tr("As many steps as can be made in so many seconds; tried out first"),
            ),
            (
                "paper",
                self.tr("Paper settings"),
                self.tr("As in Song et al. 2021: 1000 steps, or a tolerance of 1e-5"),
            ),
        ):
            combo.addItem(text, key)
            combo.setItemData(combo.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        combo.setToolTip(self.tr("On what terms the lanes race"))
        amount.setObjectName("termsAmount")
        amount.setAccessibleName(self.tr("How much"))
        amount.setKeyboardTracking(False)
        amount.hide()
        return combo, amount

    def _count(self) -> Whole:
        spin = Whole()
        spin.setObjectName("count")
        spin.setAccessibleName(self.tr("Pictures"))
        spin.setToolTip(self.tr("How many pictures in each lane"))
        spin.setRange(1, MOST_PICTURES)
        spin.setValue(4)
        return spin

    def _sync(self) -> QComboBox:
        words = {
            "log_snr": (self.tr("Noise level"), self.tr("The lane with the most noise goes next")),
            "calls": (
                self.tr("Calls"),
                self.tr("The lane with the fewest network calls goes next"),
            ),
            "time": (self.tr("Time"), self.tr("The lane with the fewest seconds goes next")),
        }
        combo = QComboBox()
        combo.setObjectName("sync")
        combo.setAccessibleName(self.tr("Together in"))
        combo.setToolTip(self.tr("In what the lanes keep together while they race"))
        for key in SYNCS:
            combo.addItem(words[key][0], key)
            combo.setItemData(combo.count() - 1, words[key][1], Qt.ItemDataRole.ToolTipRole)
        return combo

    def _lay_out(self) -> None:
        self._lanes = QVBoxLayout()
        self._lanes.setSpacing(6)
        terms = QHBoxLayout()
        terms.addWidget(self.terms, 1)
        terms.addWidget(self.amount)
        form = Rows()
        form.field(self.tr("Terms"), terms)
        form.field(self.tr("Pictures"), self.count)
        form.field(self.tr("Seed"), self.seed)
        form.field(self.tr("Together in"), self.sync)
        title = QLabel(self.tr("Lanes"))
        title.setProperty("role", "heading")
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(8)
        box.addWidget(title)
        box.addLayout(self._lanes)
        box.addWidget(self.add_button)
        box.addSpacing(4)
        box.addLayout(form)
        box.addWidget(self.bits)
        box.addWidget(self.cost)
        box.addStretch()

    # ---- the recipe ---------------------------------------------------------------------------

    def lanes(self) -> tuple[Lane, ...]:
        """Every lane as it is set. Raises SpecError if one makes no sense."""
        return tuple(row.lane() for row in self.rows)

    def recipe(self) -> RaceRecipe:
        """The race as it is set. Raises SpecError if it makes no sense."""
        recipe = RaceRecipe(
            lanes=self.lanes(),
            count=self.count.value(),
            seed=self.seed.value(),
            sync=self.sync.currentData(),
        )
        recipe.check()
        return recipe

    def show_recipe(self, recipe: RaceRecipe) -> None:
        """Show the settings of a race. Raises SpecError if it has too few or too many lanes."""
        fits(recipe)
        while self.rows:
            self._take(self.rows[-1])
        for lane in recipe.lanes:
            self._insert(lane)
        self.count.setValue(recipe.count)
        self.seed.set_value(recipe.seed)
        self.sync.setCurrentIndex(self.sync.findData(recipe.sync))
        self._own_terms()
        self._arranged()

    def titles(self) -> list[str]:
        """A few words on each lane."""
        return titles(self.lanes())

    # ---- models -------------------------------------------------------------------------------

    def set_entries(self, entries: Sequence[Entry]) -> None:
        """The models on the shelf."""
        self._entries = list(entries)
        self._speeds.clear()
        self._offer()

    def set_model(self, name: str, before: str = "") -> None:
        """The lanes that race on the model `before` go over to another, as do those it does not fit."""
        for row in self.rows:
            lane = row.lane()
            if before in ("", lane.model):
                row.set_lane(replace(lane, model=name, model_preset=""))
        self._same_kind()
        self._tell()

    def _offer(self) -> None:
        """To the first lane every model; to the others those that make the same pictures."""
        like = self._entry(self.rows[0].lane().model) if self.rows else None
        for i, row in enumerate(self.rows):
            row.offer(self._entries, like if i else None)

    def _same_kind(self) -> None:
        """Lanes whose model does not fit the first one's take that one."""
        first = self.rows[0].lane().model
        like = self._entry(first)
        for row in self.rows[1:]:
            lane = row.lane()
            entry = self._entry(lane.model)
            if entry is not None and unfit(entry, like):
                row.set_lane(replace(lane, model=first, model_preset=""))
        self._offer()

    def _entry(self, name: str) -> Entry | None:
        return next((e for e in self._entries if e.name == name), None)

    # ---- lanes --------------------------------------------------------------------------------

    def add_lane(self) -> None:
        """Another lane, with a sampler that no lane has yet."""
        if len(self.rows) < MOST_LANES:
            lanes = self.lanes()
            taken = [lane.sampler for lane in lanes]
            free = [PRESETS[n][1] for n in _USUAL if PRESETS[n][1] not in taken]
            self._insert(replace(lanes[0], sampler=(free or taken)[0]))
            self._own_terms()
            self._arranged()
            self.changed.emit()

    def remove_lane(self, row: LaneRow) -> None:
        if len(self.rows) > FEWEST_LANES:
            self._take(row)
            self._same_kind()
            self._arranged()
            self.changed.emit()

    def _insert(self, lane: Lane) -> None:
        row = LaneRow(len(self.rows), lane, self)
        row.changed.connect(lambda: self._row_changed(row))
        row.removed.connect(lambda: self.remove_lane(row))
        self.rows.append(row)
        self._lanes.addWidget(row)
        row.set_lane(lane)

    def _take(self, row: LaneRow) -> None:
        self.rows.remove(row)
        self._lanes.removeWidget(row)
        row.hide()
        row.deleteLater()

    def _row_changed(self, row: LaneRow) -> None:
        if row is self.rows[0]:
            self._same_kind()
        self._own_terms()
        self._tell()
        self.changed.emit()

    def _arranged(self) -> None:
        """After lanes have come or gone."""
        few = self.tr("A race has at least two lanes") if len(self.rows) <= FEWEST_LANES else ""
        for number, row in enumerate(self.rows):
            row.set_number(number)
            row.set_removable(few)
        full = len(self.rows) >= MOST_LANES
        self.add_button.setEnabled(not full)
        self.add_button.setToolTip(
            self.tr("There is room for four lanes") if full else self.tr("Another sampler or model")
        )
        self._offer()
        self._tell()

    # ---- terms --------------------------------------------------------------------------------

    def _own_terms(self) -> None:
        self.terms.setCurrentIndex(0)
        self.amount.hide()

    def _terms_chosen(self, _: int) -> None:
        """Set the lanes on the terms that are chosen."""
        terms = self.terms.currentData()
        self._show_amount(terms)
        lanes = self.lanes()
        if terms == "calls":
            self._set(same_calls(lanes, self.amount.value()))
        elif terms == "paper":
            self._set(paper_settings(lanes))
        elif terms == "time":
            speeds = self._speeds.get(self._kind())
            if speeds is None:
                self.probe_wanted.emit()
            else:
                self._set(same_time(lanes, speeds, float(self.amount.value())))

    def _show_amount(self, terms: str) -> None:
        low, high, usual, suffix, name = {
            "calls": (2, 20_000, 200, self.tr(" calls"), self.tr("Network calls")),
            "time": (1, 3600, 20, self.tr(" s"), self.tr("Seconds")),
        }.get(terms, (1, 1, 1, "", ""))
        self.amount.setVisible(bool(name))
        if name and self.amount.suffix() != suffix:
            self.amount.blockSignals(True)
            self.amount.setRange(low, high)
            self.amount.setValue(usual)
            self.amount.setSuffix(suffix)
            self.amount.setAccessibleName(name)
            self.amount.setToolTip(name)
            self.amount.blockSignals(False)

    def set_speeds(self, seconds: Sequence[float]) -> None:
        """How long a network call of each lane takes, as a ProbeJob found."""
        if len(seconds) == len(self.rows):
            self._speeds[self._kind()] = tuple(seconds)
            if self.terms.currentData() == "time":
                self._terms_chosen(0)

    def _kind(self) -> tuple[Lane, ...]:
        """The lanes apart from their samplers, which do not change what a call costs."""
        plain = PRESETS["quick"][1]
        count = Lane(model=str(self.count.value()))
        return (count, *(replace(lane, sampler=plain) for lane in self.lanes()))

    def _set(self, lanes: Sequence[Lane]) -> None:
        for row, lane in zip(self.rows, lanes, strict=True):
            row.set_lane(lane)
        self._tell()
        self.changed.emit()

    def _tell(self) -> None:
        """What the race costs."""
        try:
            lanes = self.lanes()
        except SpecError:
            return  # told by the form that it is wrong in
        costs = [lane.sampler.cost() for lane in lanes]
        known = sum(c for c in costs if c is not None)
        open_ = ", ".join(LETTERS[i] for i, c in enumerate(costs) if c is None)
        text = self.tr("%n network calls", "", known)
        if open_ and known:
            text = self.tr("{known}, and as many as the tolerance of {lanes} asks for").format(
                known=text, lanes=open_
            )
        elif open_:
            text = self.tr("As many network calls as the tolerances ask for")
        self.cost.setText(text)


def fits(recipe: RaceRecipe) -> None:
    """Raise SpecError if a race has more or fewer lanes than the window shows."""
    if not FEWEST_LANES <= len(recipe.lanes) <= MOST_LANES:
        raise SpecError(
            f"The window shows from {FEWEST_LANES} to {MOST_LANES} lanes; "
            f"this race has {len(recipe.lanes)}.",
            "Run it on the command line.",
        )
