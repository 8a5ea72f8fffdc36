"""The window: modes, model chip, device chip, status line, menus. No logic of any mode."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QByteArray, QSettings, QSignalBlocker, Qt, QTimer
from PySide6.QtGui import (
    QAction,
    QActionGroup,
    QCloseEvent,
    QDragEnterEvent,
    QDropEvent,
    QKeySequence,
    QPaintEvent,
)
from PySide6.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMenu,
    QMessageBox,
    QToolButton,
    QWidget,
)

from studio import recipes, spec
from studio.engine.jobs import SampleJob
from studio.errors import StudioError
from studio.paths import user_dir
from studio.ui import theme
from studio.ui.collector import Collector
from studio.ui.device_menu import DeviceMenu, device_title
from studio.ui.dialogs import CrashDialog, ask, report_of
from studio.ui.modes import Modes
from studio.ui.recipe_panel import summary
from studio.ui.runner import spawn
from studio.ui.session import Session
from studio.ui.tabs import TABS, Mode, Tab
from studio.weights import formats

if TYPE_CHECKING:
    from studio.ui.selfcheck import SelfCheckDialog

LAYOUT_VERSION = 1
PROJECT = ".studio"  # what the canvas saves
RUNS = (".traj", ".replay")  # what the sample mode saves of a run
_MODES = {"paint": "canvas", "race": "compare", "grid": "compare"}  # by the kind of a recipe


class MainWindow(QMainWindow):
    """Built inside a running asyncio loop; closed by `await shutdown()`."""

    def __init__(self, session: Session, on_close: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.session = session
        session.summon = self._summon
        self._on_close = on_close
        self._closing = False
        self._painted = False
        self.shown_at = 0.0  # when all of it was on screen first, by perf_counter
        self._blank: dict[str, QWidget] = {}  # modes that are not built yet
        self._whole = asyncio.Event()
        self.checks: SelfCheckDialog | None = None
        self.setObjectName("mainWindow")
        self.setWindowTitle("Score Studio")
        self.setWindowIcon(theme.app_icon())
        self.setAcceptDrops(True)
        self.resize(1320, 840)
        self.modes = Modes()
        self.modes.setObjectName("modes")
        self.modes.setDocumentMode(True)
        self.modes.setCornerWidget(self._chips(), Qt.Corner.TopRightCorner)
        self.status = QLabel(self.tr("Ready"))
        self.status.setObjectName("status")
        self.status.setAccessibleName(self.tr("Status"))
        self.statusBar().addWidget(self.status, 1)
        self.tabs: dict[str, Tab] = {}
        for name, mode in TABS.items():
            self._add_tab(name, mode)
        self.page(next(iter(TABS)))
        self.modes.currentChanged.connect(self._turned)
        self.setCentralWidget(self.modes)
        self._menus()
        self._restore_layout()
        session.model_changed.connect(self._tell_model)
        session.settings_changed.connect(self._tell_settings)
        self._tell_model(session.model)
        self._collector = Collector(lambda: session.engine.facts is not None, self)
        self._device_timer = QTimer(self, interval=2000)
        self._device_timer.timeout.connect(self._tell_device)
        self._device_timer.start()
        self._tell_device()

    # -- layout -------------------------------------------------------------------------------------

    def _add_tab(self, name: str, mode: Mode) -> None:
        """A place for a mode, which is built when it is needed, or after the first paint."""
        blank = QWidget()
        self._blank[name] = blank
        number = self.modes.count() + 1
        self.modes.addTab(blank, f"{number}  {self.tr(mode.title)}")
        self.modes.setTabToolTip(number - 1, f"{self.tr(mode.title)} (Ctrl+{number})")

    def page(self, name: str) -> Tab:
        """A mode's page, built now if it is not there yet."""
        blank = self._blank.pop(name, None)
        if blank is None:
            return self.tabs[name]
        tab = self.tabs[name] = TABS[name].make(self.session)
        tab.status.connect(self.tell)
        tab.bug.connect(self.crashed)
        tab.leave.connect(self.turn_to)
        tab.mark.connect(partial(self._mark, name))
        if name == "sample":
            self._listen_to_sample(tab)
        place, chosen = self.modes.indexOf(blank), self.modes.currentWidget() is blank
        text, tip = self.modes.tabText(place), self.modes.tabToolTip(place)
        with QSignalBlocker(self.modes):
            self.modes.removeTab(place)
            self.modes.insertTab(place, tab, text)
            self.modes.setTabToolTip(place, tip)
            if chosen:
                self.modes.setCurrentIndex(place)
        blank.deleteLater()
        if self._painted:
            tab.shown()
        return tab

    def _mark(self, name: str, word: str) -> None:
        """Show a word beside a mode's title."""
        number = list(TABS).index(name) + 1
        text = f"{number}  {self.tr(TABS[name].title)}"
        self.modes.setTabText(number - 1, f"{text} · {word}" if word else text)

    def _listen_to_sample(self, tab: Any) -> None:
        """What of its results is for other modes."""
        tab.recipe_requested.connect(self._restore)
        tab.painting_requested.connect(
            lambda job, made: self._canvas().open_painting(job, made)  # type: ignore[attr-defined]
        )
        tab.sample_requested.connect(
            lambda run, picture, name: self._canvas().open_sample(run, picture, name)  # type: ignore[attr-defined]
        )

    def _canvas(self) -> Tab:
        return self.turn_to("canvas")

    def _summon(self, kind: str) -> None:
        """Build the mode that runs recipes of a kind."""
        if kind in _MODES:
            self.page(_MODES[kind]).ready_for(kind)

    def turn_to(self, name: str) -> Tab:
        """Show a mode."""
        tab = self.page(name)
        self.modes.setCurrentWidget(tab)
        return tab

    def complete(self) -> None:
        """Build every page that is not there yet."""
        for name in TABS:
            self.page(name)
        self._whole.set()

    def _turned(self, index: int) -> None:
        page = self.modes.widget(index)
        for name, blank in list(self._blank.items()):
            if blank is page:
                self.page(name)

    def _chips(self) -> QWidget:
        self.model_chip = QToolButton()
        self.model_chip.setObjectName("modelChip")
        self.model_chip.setProperty("chip", True)
        self.model_chip.setIcon(theme.icon("model"))
        self.model_chip.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.model_chip.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.model_chip.setToolTip(self.tr("The model in use; click to choose another"))
        self.model_chip.setAccessibleName(self.tr("Model"))
        menu = QMenu(self)
        menu.aboutToShow.connect(self._fill_models)
        self.model_chip.setMenu(menu)
        self.device_chip = QToolButton()
        self.device_chip.setObjectName("deviceChip")
        self.device_chip.setProperty("chip", True)
        self.device_chip.setIcon(theme.icon("device"))
        self.device_chip.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.device_chip.setAccessibleName(self.tr("Device"))
        self.device_chip.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.device_menu = DeviceMenu(self.session, self)
        self.device_chip.setMenu(self.device_menu)
        chips = QWidget()
        row = QHBoxLayout(chips)
        row.setContentsMargins(8, 4, 12, 4)
        row.setSpacing(8)
        row.addWidget(self.model_chip)
        row.addWidget(self.device_chip)
        return chips

    def _menus(self) -> None:
        file = self.menuBar().addMenu(self.tr("&File"))
        self._action(file, self.tr("Open…"), "Ctrl+O", self._open)
        self._action(file, self.tr("Open recipe from a PNG…"), "", self._open_png)
        file.addSeparator()
        self._action(file, self.tr("Quit"), "Ctrl+Q", self.close)
        view = self.menuBar().addMenu(self.tr("&View"))
        for i, (name, mode) in enumerate(TABS.items()):
            self._action(
                view, self.tr(mode.title), f"Ctrl+{i + 1}", lambda name=name: self.turn_to(name)
            )
        view.addSeparator()
        themes = QActionGroup(self)
        for scheme, text in (
            ("system", self.tr("As the system")),
            ("light", self.tr("Light")),
            ("dark", self.tr("Dark")),
        ):
            action = self._action(view, text, "", lambda s=scheme: self.session.remember(theme=s))
            action.setObjectName(f"theme_{scheme}")
            action.setCheckable(True)
            action.setChecked(self.session.settings.theme == scheme)
            themes.addAction(action)
        view.addSeparator()
        self._action(view, self.tr("Full screen"), "F11", self._full_screen)
        self._action(view, self.tr("Reset layout"), "", self._reset_layout)
        about = self.menuBar().addMenu(self.tr("&Help"))
        self._action(about, self.tr("Keys"), "F1", self._keys)
        self._action(about, self.tr("Self-check…"), "", self._self_check)
        self._action(about, self.tr("About Score Studio"), "", self._about)

    def _action(self, menu: QMenu, text: str, keys: str, verb: Callable[[], Any]) -> QAction:
        action = menu.addAction(text)
        action.setShortcut(QKeySequence(keys))
        action.triggered.connect(lambda *_: verb())
        return action

    def _restore_layout(self) -> None:
        kept = QSettings(str(user_dir() / "layout.ini"), QSettings.Format.IniFormat)
        geometry = kept.value("geometry")
        if isinstance(geometry, QByteArray):
            self.restoreGeometry(geometry)
        state = kept.value("state")
        if isinstance(state, QByteArray):
            self.restoreState(state, LAYOUT_VERSION)

    def _save_layout(self) -> None:
        kept = QSettings(str(user_dir() / "layout.ini"), QSettings.Format.IniFormat)
        kept.setValue("geometry", self.saveGeometry())
        kept.setValue("state", self.saveState(LAYOUT_VERSION))

    def _reset_layout(self) -> None:
        self.showNormal()
        self.resize(1320, 840)

    def _full_screen(self) -> None:
        self.showNormal() if self.isFullScreen() else self.showFullScreen()

    # -- telling ------------------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """Say in the status line what is happening."""
        self.status.setText(text)

    def crashed(self, error: BaseException) -> None:
        """A bug: keep it in the log and show it, never in silence."""
        report = report_of(error)
        log = user_dir() / "crash.log"
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(report + "\n")
        except OSError:
            report += "\n(The log could not be written.)"
        CrashDialog(report, str(log), self).open()

    def _tell_model(self, entry: Any) -> None:
        self.model_chip.setText(entry.name if entry else self.tr("No model"))

    def _tell_settings(self, settings: Any) -> None:
        from PySide6.QtWidgets import QApplication

        app = QApplication.instance()
        assert isinstance(app, QApplication)
        theme.apply(app, settings.theme)
        self._tell_device()

    def _tell_device(self) -> None:
        facts, settings = self.session.engine.facts, self.session.settings
        if facts is None:
            self.device_chip.setText(device_title(settings.device))
            self.device_chip.setToolTip(
                self.tr("Where models run; its memory is told once one does")
            )
            return
        used = facts.used / 2**30
        text = f"{facts.device.upper()} · {used:.1f} GB"
        if facts.total:
            text = f"{facts.device.upper()} · {used:.1f} / {facts.total / 2**30:.0f} GB"
        if settings.dtype != "fp32":
            text += f" · {settings.dtype}"
        self.device_chip.setText(text)
        self.device_chip.setToolTip(
            self.tr("{name}: memory in use. Click to choose.").format(name=facts.name)
        )

    def _fill_models(self) -> None:
        menu = self.model_chip.menu()
        menu.clear()
        for entry in self.session.shelf.entries():
            info = entry.info
            text = f"{entry.name}   {info.size} px · {info.sde.title}" if info else entry.name
            action = menu.addAction(text)
            action.setEnabled(info is not None)
            action.setToolTip(entry.problem)
            action.setCheckable(True)
            used = self.session.model
            action.setChecked(used is not None and used.path == entry.path)
            action.triggered.connect(lambda _=False, n=entry.name: self.session.choose_model(n))
        if menu.isEmpty():
            menu.addAction(self.tr("No model on the shelf yet")).setEnabled(False)
        menu.addSeparator()
        more = menu.addAction(self.tr("Models…"))
        more.triggered.connect(lambda: self.turn_to("models"))

    def _keys(self) -> None:
        rows = (
            ("Ctrl+Enter", self.tr("Run or stop")),
            ("Esc", self.tr("Back to the grid; stop")),
            ("K", self.tr("Pause, go on")),
            (".", self.tr("One step")),
            ("F", self.tr("Finish quickly from here")),
            ("X", self.tr("Next view")),
            ("B L", self.tr("On a run: branch at the playhead on another seed; play what is kept")),
            ("Q", self.tr("Add the recipe to the queue; Ctrl+Shift+Enter: before all that wait")),
            ("R", self.tr("New seed")),
            ("← →", self.tr("On the timeline: to the frame before, after")),
            ("Ctrl+arrows", self.tr("On a grid: move the column or the row of the cell")),
            ("Page Up Down", self.tr("On a grid: make a cell that waits sooner, later")),
            ("Home End", self.tr("On the timeline: to the noise, to the live head")),
            ("B E L M G", self.tr("On the canvas: brush, eraser, lasso, rectangle, fill")),
            ("I C H W", self.tr("On the canvas: eyedropper, box, pan, wipe")),
            ("[ ]  { }", self.tr("On the canvas: size and hardness of the brush")),
            ("1 … 9 0", self.tr("On the canvas: how far a pixel may change, 10 to 100 %")),
            ("Space Tab", self.tr("On the canvas, held: pan; the photo as it is")),
            ("Enter Del", self.tr("On the canvas: accept, discard the candidate; ← → flip")),
            ("Ctrl+S", self.tr("Save the picture with its recipe")),
            ("Ctrl+E", self.tr("Export a film of the run")),
            ("Ctrl+O", self.tr("Restore the recipe in a PNG")),
            ("Ctrl+Shift+Enter", self.tr("On a plan: check it by one real step")),
            ("N Ctrl+S", self.tr("On a training: draw its samples now, save it now")),
            (", . L", self.tr("On a training: to the samples before, after; play them")),
            ("Alt+1 Alt+2", self.tr("Training: its pictures, how it learns; pages of Compare")),
            ("Enter F2 Del", self.tr("On a model: use it, rename it, remove it")),
        )
        cells = "".join(f"<tr><td><b>{k}</b>&nbsp;&nbsp;</td><td>{v}</td></tr>" for k, v in rows)
        self._message(self.tr("Keys"), f"<table cellspacing='6'>{cells}</table>")

    def _self_check(self) -> None:
        if self.checks is None:
            from studio.ui.selfcheck import SelfCheckDialog

            self.checks = SelfCheckDialog(self.session, self)
            self.checks.runner.bug.connect(self.crashed)
        self.checks.show()
        self.checks.activateWindow()

    def _about(self) -> None:
        import studio

        self._message(
            self.tr("About Score Studio"),
            f"<b>Score Studio {studio.__version__}</b><p>"
            + self.tr(
                "Pictures from noise by solving reverse stochastic differential equations, as in "
                "Song et al. 2021. Nothing you make leaves this machine."
            ),
        )

    def _message(self, title: str, text: str) -> None:
        box = QMessageBox(QMessageBox.Icon.NoIcon, title, text, parent=self)
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.open()

    def _restore(self, recipe: dict[str, Any]) -> None:
        """Set up a recipe of the history in the mode that it is for."""
        tab = self.turn_to(_MODES.get(str(recipe.get("kind")), "sample"))
        tab.errors.clear()
        try:
            tab.open_recipe(recipe)
            self.tell(self.tr("Set from the history; Run begins"))
        except StudioError as error:
            tab.errors.show_error(error)

    # -- recipes ------------------------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        paths = [Path(u.toLocalFile()) for u in event.mimeData().urls() if u.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.open_path(paths[0])

    def open_path(self, path: Path) -> None:
        """What is dropped: weights, or a folder with some, are a model; any other folder is to be learned
        from; a picture is for the mode that is shown, or may carry a recipe."""
        from studio.ui.tabs.models import WEIGHTS, ModelsTab

        tab = self.modes.currentWidget()
        if path.is_dir() and not _holds_weights(path, WEIGHTS):
            self.turn_to("train").open_path(path)
        elif path.is_dir() or path.suffix.lower() in WEIGHTS:
            models = self.turn_to("models")
            assert isinstance(models, ModelsTab)
            models.add_path(path)
        elif path.suffix.lower() == PROJECT:
            self.turn_to("canvas").open_path(path)
        elif path.suffix.lower() in RUNS:
            self.turn_to("sample").open_path(path)
        elif not (isinstance(tab, Tab) and tab.open_path(path)):
            self.open_file(path)

    def _open(self) -> None:
        """In a mode that opens files, one for it; else the recipe in a picture."""
        tab = self.modes.currentWidget()
        if not (isinstance(tab, Tab) and tab.ask_open()):
            self._open_png()

    def _open_png(self) -> None:
        kinds = self.tr("Pictures and runs (*.png *.traj *.replay)")
        path, _ = QFileDialog.getOpenFileName(self, self.tr("Open"), "", kinds)
        if path and Path(path).suffix.lower() in RUNS:
            self.open_path(Path(path))
        elif path:
            self.open_file(Path(path))

    def open_file(self, path: Path) -> None:
        """Offer to restore the recipe in a PNG, after showing what would change. A picture without one
        is opened on the canvas."""
        spawn(self._open_file(path))

    async def _open_file(self, path: Path) -> None:
        tab = self.page("sample")
        try:
            recipe = recipes.read_recipe(path)
            if recipe is None:
                self.turn_to("canvas").open_path(path)
                return
            tab = self.page(_MODES.get(str(recipe.get("kind")), "sample"))
            lines = tab.changes(recipe)
            if not lines:
                self.tell(
                    self.tr("{name} has the recipe that is set already").format(name=path.name)
                )
                return
            title = self.tr("Restore the recipe of {name}?").format(name=path.name)
            if await ask(self, self.tr("Recipe"), title, "\n".join(lines), self.tr("Restore")):
                tab.open_recipe(recipe)
                self.modes.setCurrentWidget(tab)
                self.tell(self.tr("Recipe restored; press Run to make the pictures again"))
        except StudioError as error:
            tab.errors.show_error(error)
        except Exception as error:
            self.crashed(error)

    async def offer_recovery(self, crashed: bool) -> None:
        """Offer what an earlier session left unsaved; after a crash, also the recipe in use."""
        await self._whole.wait()
        if crashed and self.session.settings.recipe:
            await self._offer_recipe()
        for tab in self.tabs.values():
            await tab.offer_recovery()

    async def _offer_recipe(self) -> None:
        recipe = self.session.settings.recipe
        try:
            shown = summary(spec.from_dict(SampleJob, recipe))
        except StudioError:
            return  # of another version of the studio: nothing to offer
        question = self.tr("The studio did not close in order last time. Restore your recipe?")
        if await ask(self, self.tr("Welcome back"), question, shown, self.tr("Restore")):
            try:
                self.page("sample").open_recipe(recipe)
            except StudioError as error:
                self.tell(str(error))

    # -- closing ------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self._painted:
            self._painted = True
            # What takes long and need not be there at first comes after the first paint.
            QTimer.singleShot(0, self, self._shown)

    def _shown(self) -> None:
        self.shown_at = time.perf_counter()
        for tab in list(self.tabs.values()):
            tab.shown()
        self._build_next()

    def _build_next(self) -> None:
        """One page at a time, so that the window answers between them."""
        if self._closing or not self._blank:
            self._whole.set()
            return
        self.page(next(iter(self._blank)))
        QTimer.singleShot(0, self, self._build_next)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Ask once during work, then hand over to whoever shuts the window down."""
        event.ignore()
        if self._closing:
            return
        at_stake = [tab for tab in self.tabs.values() if tab.at_stake()]
        self._closing = True
        spawn(self._close(at_stake))

    async def _close(self, at_stake: list[Tab]) -> None:
        lost = self.tr("Finished results stay in the history; the run under way is stopped.")
        words = lost, self.tr("Stop and close"), ""
        if all(tab.keeps for tab in at_stake):
            words = "", self.tr("Save and quit"), self.tr("Keep going")
        if at_stake and not await ask(
            self,
            self.tr("Close the studio?"),
            " ".join(tab.at_stake() for tab in at_stake),
            *words,
        ):
            self._closing = False
            return
        if self._on_close is not None:
            self._on_close()
        else:
            await self.shutdown()

    async def shutdown(self) -> None:
        """Stop all work, keep the layout, leave no thread behind."""
        self._closing = True
        self._device_timer.stop()
        self._save_layout()
        self.hide()
        self.session.queue.close()
        for tab in self.tabs.values():
            tab.closing()
        await self.tabs["sample"].history.close_up()  # type: ignore[attr-defined]
        runners = [runner for tab in self.tabs.values() for runner in tab.runners()]
        runners += self.device_menu.runners()
        if self.checks is not None:
            runners.append(self.checks.runner)
        for runner in runners:
            runner.stop()
        await self.session.engine.close()
        await asyncio.gather(*(runner.finished() for runner in runners))
        self.session.remember(clean=True)
        self._collector.stop()
        self.deleteLater()


def _holds_weights(folder: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a folder is a model's. One that cannot be looked into is not."""
    try:
        files = [path.suffix.lower() for path in folder.iterdir()]
    except OSError:
        return False
    return formats.recognise(folder) is not None or any(suffix in suffixes for suffix in files)
