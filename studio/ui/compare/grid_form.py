"""A grid as it is set: a sample, what differs across and down, and what is wrong with it, if anything."""

from __future__ import annotations

from dataclasses import replace

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from studio import spec
from studio.diffusion.catalog import PRESETS, SAMPLERS
from studio.engine.grid import Axis, GridJob, GridRecipe
from studio.errors import SpecError
from studio.ui.compare.axis_editor import AxisEditor, Offer
from studio.ui.recipe_panel import RecipePanel
from studio.ui.session import Session

#: A sampler that has a setting most samplers lack.
_HAS = {"snr": "pc", "corrector.steps": "pc", "tolerance": "rk45", "temperature": "rk45"}
_FILLED = 4  # values of an axis that are filled in from the shelf or the classes


class GridForm(QWidget):
    """Edits a GridRecipe on the model of the session. Emits `changed` when anything is other. `why_not`
    says what is wrong; it is told beside the axis that it is about, too.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session, self.why_not = session, ""
        self.panel = RecipePanel()
        self.panel.seed.lock.hide()  # a grid goes on with its cells, so its seed always stays
        self.across = AxisEditor(self.tr("Across"), "gridX")
        self.down = AxisEditor(self.tr("Down"), "gridY")
        self.vary = QCheckBox(self.tr("A seed each"))
        self.vary.setObjectName("gridVarySeed")
        self.vary.setToolTip(self.tr("Every cell has another seed; else all have the same"))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        for widget in (self.across, self.down, self.vary, self.panel):
            column.addWidget(widget)
        column.addStretch()
        self.across.set_axis(Axis("steps", ("5", "10", "20", "50")))
        self.down.set_axis(Axis("sampler", ("dpm2m-sde", "dpm2m", "pc")))
        self.panel.set_model(session.model)
        self.panel.count.setValue(1)
        for editor in (self.across, self.down, self.panel):
            editor.changed.connect(self._edited)
        self.vary.toggled.connect(lambda _: self._edited())
        session.model_changed.connect(lambda _: self._model_changed())
        session.shelf_changed.connect(self._model_changed)
        self._edited()

    def recipe(self) -> GridRecipe:
        """The grid as it is set. Raises SpecError if a part of it makes no sense."""
        x, y, base = self.across.axis(), self.down.axis(), self.panel.job()
        seeded = "seed" in (x.name, y.name)
        return GridRecipe(base=base, x=x, y=y, vary_seed=self.vary.isChecked() and not seeded)

    def show_recipe(self, recipe: GridRecipe) -> None:
        """Show a grid. Raises SpecError if its model is not here."""
        name = recipe.base.model
        if not any(e.name == name and e.info for e in self._session.shelf.entries()):
            raise SpecError(
                self.tr("The model {name} is not here.").format(name=name),
                self.tr("Get it on the Models page, then open the recipe again."),
            )
        self._session.choose_model(name)
        self.panel.show_job(recipe.base)
        self.across.set_axis(recipe.x)
        self.down.set_axis(recipe.y)
        self.vary.setChecked(recipe.vary_seed)
        self._edited()

    def rearrange(self, before: GridRecipe, now: GridRecipe) -> None:
        """The values of axes are in another order; an axis changed since stays. Emits nothing."""
        for editor, old, new in ((self.across, before.x, now.x), (self.down, before.y, now.y)):
            if _axis_of(editor) == old:
                editor.set_axis(new)
        self._check()

    @property
    def told(self) -> bool:
        """Whether an axis says what is wrong."""
        return bool(self.across.problem.text() or self.down.problem.text())

    def _model_changed(self) -> None:
        count = self.panel.count.value()
        self.panel.set_model(self._session.model)
        self.panel.count.setValue(count)
        self._edited()

    def _edited(self) -> None:
        offers = self._offers()
        self.across.offer(offers)
        self.down.offer(offers)
        axes = self.across.setting, self.down.setting
        self.vary.setEnabled(all(combo.currentData() != "seed" for combo in axes))
        self._check()
        self.changed.emit()

    def _offers(self) -> dict[str, Offer]:
        """Values to begin with, for the model and the sample that are chosen."""
        classes = self.panel.classes
        known = [classes.itemData(i) for i in range(classes.count())]
        known = tuple(name for name in known if name)
        classless = "" if known else self.tr("This model was trained without classes.")
        model, entries = self._session.model, self._session.shelf.entries()
        usable = tuple(e.name for e in entries if e.info is not None)
        shape = model.info.shape if model and model.info else None
        fitting = [e.name for e in entries if e.info is not None and e.info.shape == shape]
        fitting.sort(key=lambda name: model is None or name != model.name)
        seed = self.panel.seed.value()
        return {
            "sampler": Offer(("dpm2m-sde", "dpm2m", "pc"), (*SAMPLERS, *PRESETS)),
            "steps": Offer(("5", "10", "20", "50")),
            "snr": Offer(("0.08", "0.16", "0.32")),
            "corrector.steps": Offer(("1", "2", "4")),
            "tolerance": Offer(("0.1", "0.01", "0.001")),
            "temperature": Offer(("0.8", "0.9", "1")),
            "guidance": Offer(("1", "2", "4"), why_not=classless),
            "seed": Offer(tuple(str((seed + i) % 2**32) for i in range(_FILLED))),
            "class": Offer(
                tuple(n for n in known if n != "each")[:_FILLED], known, why_not=classless
            ),
            "model": Offer(tuple(fitting[:_FILLED]), usable),
        }

    def _check(self) -> None:
        """Tell what is wrong beside where it is."""
        self.why_not = ""
        for editor in (self.across, self.down):
            try:
                editor.axis()
                editor.tell("")
            except SpecError as error:
                editor.tell(str(error))
                self.why_not = str(error)
        if not self.why_not:
            try:
                self._check_together()
            except SpecError as error:
                self.why_not = str(error)

    def _check_together(self) -> None:
        """Raises SpecError, told beside the axis it is about, if the parts do not go together."""
        recipe = self.recipe()
        names = recipe.x.name, recipe.y.name
        try:
            if names[0] and names[0] == names[1]:
                raise SpecError(self.tr("Both axes change the same setting."))
            if "guidance" in names and "class" not in names and not recipe.base.classes:
                raise SpecError(self.tr("Guidance needs a class: choose one in the recipe."))
            GridJob(recipe).cells()
        except SpecError as error:
            alone = _alone(recipe) == error.message or names[0] == "guidance" != names[1]
            editor, name = (self.across, names[0]) if alone else (self.down, names[1])
            lacks = name in _HAS and "has no setting" in error.message
            editor.tell(self._way_out(_HAS[name]) if lacks else str(error))
            raise

    def _way_out(self, sampler: str) -> str:
        return self.tr("Not every sampler here has this. Choose {sampler} as the sampler.").format(
            sampler=spec.title(SAMPLERS[sampler])
        )


def _axis_of(editor: AxisEditor) -> Axis | None:
    """What an editor says; None while that makes no sense."""
    try:
        return editor.axis()
    except SpecError:
        return None


def _alone(recipe: GridRecipe) -> str:
    """What is wrong with the axis across alone; empty if nothing."""
    try:
        GridJob(replace(recipe, y=Axis())).cells()
    except SpecError as error:
        return error.message
    return ""
