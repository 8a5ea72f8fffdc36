"""Mode 5, Models: what stands on the shelf, what can be fetched, and what is on its way."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt, QUrl, Signal
from PySide6.QtGui import QDesktopServices, QDragEnterEvent, QDropEvent, QShowEvent
from PySide6.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QProgressBar,
    QPushButton,
    QSplitter,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from studio.engine.engine import Job
from studio.engine.events import Event, Finished, Note, Saved
from studio.engine.library import (
    AddJob,
    EjectJob,
    ExportModelJob,
    RemoveJob,
    RenameJob,
    StripsJob,
    ThumbnailsJob,
    VerifyJob,
    is_small,
    parse_id,
)
from studio.errors import CheckpointError, SaveError, StudioError
from studio.paths import user_dir
from studio.ui import theme
from studio.ui.dialogs import ask
from studio.ui.downloads import Downloads
from studio.ui.get_models import GetModels
from studio.ui.model_card import ModelList, card_of, hub_id
from studio.ui.model_detail import ModelDetail
from studio.ui.runner import Runner, spawn
from studio.ui.session import Session
from studio.ui.tabs import Tab
from studio.weights.formats import PICKLES
from studio.weights.listing import as_size
from studio.weights.shelf import Entry

#: Files that are taken for a model when they are dropped.
WEIGHTS = (".safetensors", *PICKLES)


class ModelsTab(Tab):
    title = "Models"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.setObjectName("modelsPage")
        self.setAcceptDrops(True)
        self._entries: dict[str, Entry] = {}
        self._looked: set[str] = set()  # models whose strip was looked for
        self._to_draw: list[str] = []
        self._drawing = ""
        self._checked: list[str] = []
        self._job: Job | None = None
        self._shown = False
        self._strips = Runner(session.engine, self._strip_found)
        self._drawer = Runner(session.engine, self._strip_found)
        self._memory = Runner(session.engine, lambda _: None)
        self.list = ModelList()
        self.detail = ModelDetail()
        self.get_models = GetModels()
        self.downloads = Downloads(session.engine)
        self._build()
        self._connect()

    # -- layout -------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.total = QLabel()
        self.total.setObjectName("diskUse")
        self.total.setProperty("role", "muted")
        left = QWidget()
        column = QVBoxLayout(left)
        column.setContentsMargins(12, 4, 4, 8)
        column.setSpacing(6)
        column.addWidget(self.list, 1)
        column.addWidget(self.total)
        split = QSplitter(Qt.Orientation.Horizontal)
        split.setObjectName("modelsSplit")
        split.setChildrenCollapsible(False)
        split.addWidget(left)
        split.addWidget(self.detail)
        split.setStretchFactor(0, 2)
        split.setStretchFactor(1, 3)
        split.setSizes([480, 760])
        self.pages = QStackedWidget()
        self.pages.addWidget(split)
        self.pages.addWidget(self.get_models)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(self._bar())
        box.addWidget(self._messages())
        box.addWidget(self.pages, 1)
        box.addWidget(self.downloads)

    def _bar(self) -> QHBoxLayout:
        bar = QHBoxLayout()
        bar.setContentsMargins(12, 10, 12, 2)
        bar.setSpacing(0)
        self.views = QButtonGroup(self)
        views = (
            ("here", self.tr("On this machine"), self.tr("The models you can use now")),
            ("more", self.tr("Get more"), self.tr("Public models, and any model of the hub")),
        )
        for i, (name, text, tip) in enumerate(views):
            button = QPushButton(text)
            button.setCheckable(True)
            button.setChecked(i == 0)
            button.setObjectName(f"models_{name}")
            button.setProperty("segment", True)
            button.setToolTip(tip)
            button.setAccessibleName(text)
            self.views.addButton(button, i)
            bar.addWidget(button)
        bar.addStretch()
        self.add_file = self._button(
            "addFile", self.tr("Add file…"), self.tr("A file of weights; or drop it here")
        )
        self.add_folder = self._button(
            "addFolder", self.tr("Add folder…"), self.tr("A model's folder; or drop it here")
        )
        bar.addWidget(self.add_file)
        bar.addSpacing(6)
        bar.addWidget(self.add_folder)
        return bar

    def _button(self, name: str, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setIcon(theme.icon("open"))
        button.setObjectName(name)
        button.setToolTip(tip)
        button.setAccessibleName(text)
        return button

    def _messages(self) -> QWidget:
        """What is at work, what went wrong, and the question for a preset; hidden without any."""
        self.work = QFrame()
        self.work.setObjectName("modelWork")
        self.work_text = QLabel()
        self.work_text.setTextFormat(Qt.TextFormat.PlainText)
        busy = QProgressBar()
        busy.setRange(0, 0)
        busy.setTextVisible(False)
        busy.setFixedWidth(120)
        busy.setAccessibleName(self.tr("At work"))
        stop = QPushButton(self.tr("Stop"))
        stop.setObjectName("stopWork")
        stop.setToolTip(self.tr("Stop; nothing is left half done"))
        stop.clicked.connect(self.runner.stop)
        row = QHBoxLayout(self.work)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(10)
        row.addWidget(busy)
        row.addWidget(self.work_text, 1)
        row.addWidget(stop)
        self.work.hide()
        self.presets = PresetQuestion()
        messages = QWidget()
        box = QVBoxLayout(messages)
        box.setContentsMargins(12, 2, 12, 2)
        box.setSpacing(4)
        box.addWidget(self.work)
        box.addWidget(self.errors)
        box.addWidget(self.presets)
        return messages

    def _connect(self) -> None:
        self.views.idClicked.connect(self._turn_to)
        self.add_file.clicked.connect(self._ask_file)
        self.add_folder.clicked.connect(self._ask_folder)
        self.list.chosen.connect(self._show_model)
        self.list.use_requested.connect(lambda name: self.do("use", name))
        self.list.remove_requested.connect(lambda name: self.do("remove", name))
        self.list.rename_requested.connect(lambda name: self.do("rename", name))
        self.detail.asked.connect(lambda verb: self.do(verb, self.list.selected()))
        self.get_models.wanted.connect(self.get)
        self.downloads.arrived.connect(self._arrived)
        self.downloads.use_requested.connect(self._use_folder)
        self.downloads.changed.connect(self._tell_known)
        self.downloads.bug.connect(self.bug)
        self.presets.accepted.connect(lambda path, preset: self.add_path(path, preset))
        self.runner.state_changed.connect(self._work_state)
        self.runner.failed.connect(self._failed)
        self.session.model_changed.connect(lambda _: self.refresh())
        self.session.shelf_changed.connect(self.refresh)
        for runner in (self._strips, self._drawer, self._memory):
            runner.bug.connect(self.bug)
        self._strips.state_changed.connect(self._strips_looked)
        self._drawer.state_changed.connect(self._drawn)
        self._drawer.failed.connect(self._failed)
        self._memory.failed.connect(self._failed)
        self._memory.state_changed.connect(lambda state: state == "idle" and self.refresh())

    def _turn_to(self, page: int) -> None:
        self.pages.setCurrentIndex(page)
        (self.get_models.id if page else self.list).setFocus()

    # -- what stands here ---------------------------------------------------------------------------

    def shown(self) -> None:
        self.downloads.restore()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._shown = True
        self.refresh()

    def refresh(self) -> None:
        """Look at the shelf again. Waits until the page is on screen."""
        if not self._shown or not self.isVisible():
            return
        entries = self.session.shelf.entries()
        self._entries = {entry.name: entry for entry in entries}
        used = self.session.model.path if self.session.model else None
        resident = set(self.session.shelf.loaded())
        first = not self.list.names()
        self.list.show_cards([card_of(e, e.path == used, e.path in resident) for e in entries])
        if first and self.session.model is not None:
            self.list.select(self.session.model.name)
        self.total.setText(self._disk_use(entries))
        self._tell_known()
        self._look_for_strips()

    def _disk_use(self, entries: list[Entry]) -> str:
        size = as_size(sum(entry.bytes for entry in entries))
        told = self.tr("{count} models, {size} on disk").format(count=len(entries), size=size)
        if len(entries) == 1:
            told = self.tr("1 model, {size} on disk").format(size=size)
        try:
            free = shutil.disk_usage(user_dir() if user_dir().exists() else Path.home()).free
        except OSError:
            return told  # a home that cannot be asked
        return self.tr("{told} · {free} free").format(told=told, free=as_size(free))

    def _show_model(self, name: str) -> None:
        entry = self._entries.get(name)
        self.detail.show_model(entry, self.list.card(name))
        self.detail.set_busy(self.runner.busy)
        self._show_samples()

    def _show_samples(self) -> None:
        name = self.list.selected()
        self.detail.show_samples(
            self.list.strip(name),
            drawing=name != "" and name in (self._drawing, *self._to_draw),
            known=name in self._looked,
        )

    def _tell_known(self) -> None:
        here = {hub_id(entry).lower() for entry in self._entries.values()}
        coming = {row.job.id.lower() for row in self.downloads.rows if row.state != "done"}
        self.get_models.show_states(here, coming)

    # -- strips -------------------------------------------------------------------------------------

    def _look_for_strips(self) -> None:
        names = tuple(n for n in self._entries if n not in self._looked)
        if names:
            self._strips.start(lambda: StripsJob(names))

    def _strip_found(self, event: Event) -> None:
        if isinstance(event, Finished):
            self.list.set_strip(event.recipe["model"], event.pictures)
            self._show_samples()

    def _strips_looked(self, state: str) -> None:
        """What has no strip and is small gets one drawn; what is large waits to be asked."""
        if state != "idle":
            return
        new = [name for name in self._entries if name not in self._looked]
        self._looked.update(new)
        wanted = [name for name in new if self.list.strip(name) is None]
        self._to_draw += [name for name in wanted if is_small(self._entries[name])]
        self._show_samples()
        self._draw_next()

    def _draw_next(self) -> None:
        if not self._to_draw or self._drawer.busy:
            return
        self._drawing = name = self._to_draw.pop(0)
        self._drawer.start(lambda: ThumbnailsJob(name))

    def _drawn(self, state: str) -> None:
        if state == "idle":
            self._drawing = ""
            self._show_samples()
            self._draw_next()

    # -- verbs --------------------------------------------------------------------------------------

    def do(self, verb: str, name: str) -> None:
        """What a button, a key or a menu asks of the model called `name`."""
        entry = self._entries.get(name)
        if entry is None:
            return
        self.errors.clear()
        verbs: dict[str, Callable[[Entry], None]] = {
            "use": self._use,
            "verify": lambda e: self._start(VerifyJob(e.name)),
            "export": self._export,
            "rename": self._rename,
            "remove": self._ask_remove,
            "eject": lambda e: self._memory.start(lambda: EjectJob(e.path)),
            "folder": self._open_folder,
            "thumbnails": self._draw,
        }
        verbs[verb](entry)

    def get(self, text: str, token: str = "") -> None:
        """Download a model of the hub, by its id or its page's address."""
        self.errors.clear()
        try:
            id, revision = parse_id(text)
        except StudioError as error:
            self.errors.show_error(error)
            return
        self.downloads.get(id, revision, token)
        self.get_models.clear()
        self.status.emit(self.tr("Downloading {id}").format(id=id))

    def add_path(self, path: Path, preset: str = "") -> None:
        """Put the model at `path` onto the shelf."""
        self.errors.clear()
        self.presets.hide()
        self._start(AddJob(path, preset=preset))

    def _start(self, job: Job) -> None:
        if self.runner.busy:
            self.status.emit(self.tr("One thing after the other: this waits for what is at work"))
            return
        self._job, self._checked = job, []
        self.runner.start(lambda: job)

    def _use(self, entry: Entry) -> None:
        if entry.info is not None:
            self.session.choose_model(entry.name)
            self.leave.emit("sample")

    def _use_folder(self, folder: Path) -> None:
        entry = next((e for e in self.session.shelf.entries() if e.path == folder), None)
        if entry is None or entry.info is None:
            self.errors.show_error(
                CheckpointError(
                    f"{folder.name} came, but cannot be used.",
                    entry.problem if entry else "Its files are of no format that the studio reads.",
                )
            )
            return
        self._use(entry)

    def _export(self, entry: Entry) -> None:
        where = QFileDialog.getExistingDirectory(self, self.tr("Export into"))
        if where:
            self._start(ExportModelJob(entry.name, Path(where)))

    def _rename(self, entry: Entry) -> None:
        if self._refused(entry):
            return
        dialog = QInputDialog(self)
        dialog.setObjectName("renameModel")
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(self.tr("Rename {name}").format(name=entry.name))
        dialog.setLabelText(self.tr("New name"))
        dialog.setTextValue(entry.name)
        dialog.textValueSelected.connect(
            lambda new: self._start(RenameJob(entry.name, new.strip()))
        )
        dialog.resize(440, dialog.sizeHint().height())
        dialog.open()

    def _ask_remove(self, entry: Entry) -> None:
        if not self._refused(entry):
            spawn(self._remove(entry))

    async def _remove(self, entry: Entry) -> None:
        question = self.tr("Remove {name} from this machine?").format(name=entry.name)
        said = self.tr("Its folder, {size}, is deleted for good. Pictures you saved stay.").format(
            size=as_size(entry.bytes)
        )
        if await ask(self, self.tr("Remove a model"), question, said, self.tr("Remove")):
            self._start(RemoveJob(entry.name))

    def _refused(self, entry: Entry) -> bool:
        """What ships is not changed; says so."""
        if entry.ships:
            self.errors.show_error(
                SaveError(
                    f"{entry.name} ships with the studio and stays as it is.",
                    "Only models of your own can be renamed and removed.",
                )
            )
        return entry.ships

    def _open_folder(self, entry: Entry) -> None:
        folder = entry.path if entry.path.is_dir() else entry.path.parent
        if not QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder))):
            self.status.emit(self.tr("The folder is {path}").format(path=folder))

    def _draw(self, entry: Entry) -> None:
        if entry.name not in (self._drawing, *self._to_draw):
            self._to_draw.append(entry.name)
        self._draw_next()
        self._show_samples()

    def _ask_file(self) -> None:
        kinds = self.tr("Weights") + " (*.safetensors *.pth *.pt *.bin *.ckpt);;"
        path, _ = QFileDialog.getOpenFileName(
            self, self.tr("Add a model"), "", kinds + self.tr("All files") + " (*)"
        )
        if path:
            self.add_path(Path(path))

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, self.tr("Add a model's folder"))
        if path:
            self.add_path(Path(path))

    # -- what comes back ----------------------------------------------------------------------------

    def receive(self, event: Event) -> None:
        match event:
            case Note():
                self.work_text.setText(self.tr(event.text))
                self.status.emit(self.tr(event.text))
                self._checked.append(event.text)
            case Saved():
                self._saved(event.path)

    def _saved(self, path: Path) -> None:
        if isinstance(self._job, ExportModelJob):
            self.status.emit(self.tr("Exported to {path}").format(path=path))
            return
        if isinstance(self._job, RenameJob) and self.session.settings.model == self._job.name:
            self.session.remember(model=path.name)
        self._changed(path.name)
        self.status.emit(self.tr("{name} is on the shelf").format(name=path.name))

    def _arrived(self, folder: Path) -> None:
        self._changed(folder.name)
        self.status.emit(self.tr("{name} is here").format(name=folder.name))

    def _changed(self, name: str) -> None:
        """The shelf has changed; mark `name` once it is shown."""
        self.session.look_again()
        if name in self.list.names():
            self.list.select(name)

    def _work_state(self, state: str) -> None:
        busy = state != "idle"
        self.work.setVisible(busy)
        for button in (self.add_file, self.add_folder):
            button.setEnabled(not busy)
        self.detail.set_busy(busy)
        if state == "idle":
            self._work_ended()

    def _work_ended(self) -> None:
        if isinstance(self._job, RemoveJob) and not self.errors.text:
            gone = self._entries.get(self._job.name)
            if gone is not None:
                self._memory.start(lambda: EjectJob(gone.path))
            self._looked.discard(self._job.name)
            self.session.look_again()
            self.status.emit(self.tr("{name} was removed").format(name=self._job.name))
        elif isinstance(self._job, VerifyJob) and self.list.selected() == self._job.name:
            self.detail.show_report(tuple(self._checked[1:]))

    def _failed(self, error: StudioError) -> None:
        presets = presets_in(error)
        if presets and isinstance(self._job, AddJob) and not self._job.preset:
            self.presets.show_question(self._job.path, presets)
        self.errors.show_error(error)
        self.status.emit(error.message)

    # -- dropping, closing --------------------------------------------------------------------------

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        paths = [Path(u.toLocalFile()) for u in event.mimeData().urls() if u.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.add_path(paths[0])

    def at_stake(self) -> str:
        return self.tr("A model is being worked on.") if self.runner.busy else ""

    def runners(self) -> list[Runner]:
        own = [self.runner, self._strips, self._drawer, self._memory]
        return [*own, *self.downloads.runners()]


class PresetQuestion(QFrame):
    """Asked when a file of weights does not say which published configuration it is of."""

    accepted = Signal(object, str)

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("presetQuestion")
        self.setProperty("role", "card")
        self._path = Path()
        self._text = QLabel()
        self._text.setTextFormat(Qt.TextFormat.PlainText)
        self.choice = QComboBox()
        self.choice.setObjectName("addPreset")
        self.choice.setAccessibleName(self.tr("Preset"))
        self.choice.setToolTip(self.tr("The published configuration that it was trained with"))
        add = QPushButton(self.tr("Add"))
        add.setObjectName("addWithPreset")
        add.setToolTip(self.tr("Add it as a model of this configuration"))
        add.clicked.connect(self._accept)
        cancel = QPushButton(self.tr("Cancel"))
        cancel.setObjectName("presetCancel")
        cancel.setToolTip(self.tr("Leave the file where it is"))
        cancel.clicked.connect(self.hide)
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 8, 10, 8)
        row.addWidget(self._text)
        row.addWidget(self.choice, 1)
        row.addWidget(add)
        row.addWidget(cancel)
        self.hide()

    def show_question(self, path: Path, presets: list[str]) -> None:
        self._path = path
        self._text.setText(self.tr("{name} was trained as").format(name=path.name))
        self.choice.clear()
        self.choice.addItems(presets)
        self.show()
        self.choice.setFocus()

    def _accept(self) -> None:
        self.hide()
        self.accepted.emit(self._path, self.choice.currentText())


def presets_in(error: StudioError) -> list[str]:
    """The presets that an error offers, as "ve/church_ncsnpp_continuous"."""
    return list(dict.fromkeys(re.findall(r"\b(?:ve|vp|subvp)/\w+(?:/\w+)*", error.hint)))
