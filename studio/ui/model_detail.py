"""One model in full: its samples, what can be done with it, its card, its facts, what was checked.

A card is somebody else's text: nothing in it is loaded, and a link is opened only after a question.
"""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QRectF, QSize, Qt, QUrl, Signal
from PySide6.QtGui import (
    QDesktopServices,
    QPainter,
    QPaintEvent,
    QTextCursor,
    QTextDocument,
    QTextTable,
)
from PySide6.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QTabWidget,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.ui.dialogs import ask
from studio.ui.flow_layout import FlowLayout
from studio.ui.model_card import Card, body_of, draw_sample, hub_id
from studio.ui.page import scrolled
from studio.ui.runner import spawn
from studio.weights.listing import as_size
from studio.weights.shelf import Entry

_SAMPLE = 96


class ModelDetail(QWidget):
    """`asked` carries what a person wants done with the model: use, verify, export, rename, …"""

    asked = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("modelDetail")
        self._entry: Entry | None = None
        self.title = QLabel()
        self.title.setObjectName("modelTitle")
        self.title.setProperty("role", "title")
        self.title.setTextFormat(Qt.TextFormat.PlainText)
        self.title.setWordWrap(True)
        self.facts = QLabel()
        self.facts.setProperty("role", "muted")
        self.facts.setWordWrap(True)
        self.problem = QLabel()
        self.problem.setObjectName("modelProblem")
        self.problem.setWordWrap(True)
        self.problem.setTextFormat(Qt.TextFormat.PlainText)
        self.problem.setProperty("tone", "warning")
        self.problem.setContentsMargins(10, 6, 10, 6)
        self.samples = Samples()
        self.buttons: dict[str, QPushButton] = {}
        self.pages = self._pages()
        box = QVBoxLayout(self)
        box.setContentsMargins(12, 4, 16, 12)
        box.setSpacing(8)
        box.addWidget(self.title)
        box.addWidget(self.facts)
        box.addWidget(self.problem)
        box.addLayout(self._sample_row())
        box.addLayout(self._verbs())
        box.addWidget(self.pages, 1)

    # -- layout -------------------------------------------------------------------------------------

    def _sample_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(self.samples)
        make = self._verb(
            "thumbnails",
            self.tr("Make thumbnails"),
            self.tr("Draw four samples in the background; other runs come first"),
        )
        row.addWidget(make, 0, Qt.AlignmentFlag.AlignVCenter)
        row.addStretch()
        return row

    def _verbs(self) -> FlowLayout:
        row = FlowLayout()
        verbs = (
            ("use", self.tr("Use in Sample"), self.tr("Sample with this model (Enter)")),
            ("verify", self.tr("Verify"), self.tr("Check every file and weight of it")),
            (
                "export",
                self.tr("Export for diffusers…"),
                self.tr("Write a copy that the diffusers library reads"),
            ),
            ("eject", self.tr("Eject"), self.tr("Let go of the memory it takes")),
            ("rename", self.tr("Rename…"), self.tr("Give it another name (F2)")),
            ("remove", self.tr("Remove…"), self.tr("Delete it from this machine (Delete)")),
            ("folder", self.tr("Open folder"), self.tr("Show its files")),
        )
        for name, text, tip in verbs:
            button = self._verb(name, text, tip)
            if name == "use":
                button.setProperty("primary", True)
            row.addWidget(button)
        return row

    def _verb(self, name: str, text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setObjectName(f"model_{name}")
        button.setToolTip(tip)
        button.setAccessibleName(text)
        button.clicked.connect(lambda: self.asked.emit(name))
        self.buttons[name] = button
        return button

    def _pages(self) -> QTabWidget:
        pages = QTabWidget()
        pages.setObjectName("modelPages")
        pages.setAccessibleName(self.tr("Card, facts, report"))
        pages.setDocumentMode(True)
        self.card = CardView()
        self.rows = QFormLayout()
        self.rows.setContentsMargins(8, 10, 8, 8)
        self.rows.setHorizontalSpacing(18)
        self.rows.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        facts = QWidget()
        facts.setLayout(self.rows)
        self.report = QPlainTextEdit()
        self.report.setObjectName("modelReport")
        self.report.setAccessibleName(self.tr("Report"))
        self.report.setToolTip(self.tr("What was deduced, assumed and checked"))
        self.report.setReadOnly(True)
        pages.addTab(self.card, self.tr("Card"))
        pages.addTab(scrolled(facts), self.tr("Facts"))
        pages.addTab(self.report, self.tr("Report"))
        return pages

    # -- showing ------------------------------------------------------------------------------------

    def show_model(self, entry: Entry | None, card: Card | None) -> None:
        """Show another model, or the same one as it is now; None shows nothing."""
        same = entry is not None and self._entry is not None and entry.path == self._entry.path
        self._entry = entry
        self.setVisible(entry is not None)
        if entry is None or card is None:
            return
        self.title.setText(entry.name)
        self.title.setToolTip(entry.name)
        states = [self.tr("in use")] * card.used + [self.tr("in memory")] * card.resident
        self.facts.setText(" · ".join(filter(None, (card.facts, card.origin, *states))))
        self.problem.setText(entry.problem)
        self.problem.setVisible(bool(entry.problem))
        self._enable(entry, card)
        if not same:
            text = body_of(entry.card).strip()
            self.card.show_text(text or self.tr("*This model came without a card.*"))
            self.show_report(())
        self._show_facts(entry, card)

    def show_samples(self, images: list[Any] | None, drawing: bool, known: bool) -> None:
        """The strip; `drawing` while it is being made, `known` once it was looked for."""
        self.samples.show_images(images, drawing)
        self.samples.setVisible(self._entry is not None and not self._entry.problem)
        wanted = known and not images and self._entry is not None and not self._entry.problem
        self.buttons["thumbnails"].setVisible(wanted or drawing)
        self.buttons["thumbnails"].setEnabled(not drawing)
        text = self.tr("Drawing…") if drawing else self.tr("Make thumbnails")
        self.buttons["thumbnails"].setText(text)

    def show_report(self, checked: tuple[str, ...]) -> None:
        """What opening the model left open, then what was checked, a line each."""
        opened = self._entry.opened if self._entry else None
        lines = [*(opened.notes if opened else ()), *checked]
        if not checked:
            lines.append(self.tr("Verify reads every file and tells here which weights fit."))
        self.report.setPlainText("\n".join(lines))
        if checked:
            self.pages.setCurrentWidget(self.report)

    def set_busy(self, busy: bool) -> None:
        """While one of them is at work, the verbs that touch files wait."""
        for name in ("verify", "export", "rename", "remove"):
            self.buttons[name].setEnabled(not busy)
        if not busy and self._entry is not None:
            self._able(self._entry)

    def _enable(self, entry: Entry, card: Card) -> None:
        self._able(entry)
        self.buttons["eject"].setEnabled(card.resident)

    def _able(self, entry: Entry) -> None:
        whole = not entry.problem
        self.buttons["use"].setEnabled(whole)
        self.buttons["export"].setEnabled(whole)
        self.buttons["verify"].setEnabled(True)
        for name in ("rename", "remove"):
            # Enabled also for what ships: pressing says why it stays.
            self.buttons[name].setEnabled(True)

    def _show_facts(self, entry: Entry, card: Card) -> None:
        while self.rows.rowCount():
            self.rows.removeRow(0)
        for label, value in self._rows(entry, card):
            text = QLabel(value)
            text.setTextFormat(Qt.TextFormat.PlainText)
            text.setWordWrap(True)
            text.setTextInteractionFlags(
                Qt.TextInteractionFlag.TextSelectableByMouse
                | Qt.TextInteractionFlag.TextSelectableByKeyboard
            )
            name = QLabel(label)
            name.setProperty("role", "muted")
            self.rows.addRow(name, text)

    def _rows(self, entry: Entry, card: Card) -> list[tuple[str, str]]:
        rows = [
            (self.tr("Licence"), card.licence),
            (self.tr("On disk"), as_size(entry.bytes)),
            (self.tr("From"), hub_id(entry) or card.source),
        ]
        if entry.opened is not None and (info := entry.info) is not None:
            colours = self.tr("grey") if info.colours == 1 else self.tr("colour")
            rows += [
                (self.tr("Format"), entry.opened.format),
                (self.tr("Pictures"), f"{info.size} × {info.size}, {colours}"),
                (self.tr("Process"), _options(info.sde)),
                (self.tr("Network predicts"), _options(info.output)),
                (self.tr("Network"), info.network),
                (self.tr("Value range"), "{:g} … {:g}".format(*info.value_range)),
                (self.tr("Classes"), ", ".join(info.classes) or self.tr("none")),
            ]
            if info.steps:
                rows.append((self.tr("Training steps"), f"{info.steps:,}".replace(",", " ")))
        return [*rows, (self.tr("Folder"), str(entry.path))]


class Samples(QWidget):
    """Four samples side by side; quiet plates while there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("modelSamples")
        self.setToolTip(self.tr("Samples of this model, drawn by the studio or by its maker"))
        self.setAccessibleName(self.tr("Samples"))
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        self._images: list[Any] | None = None
        self._drawing = False

    def show_images(self, images: list[Any] | None, drawing: bool) -> None:
        self._images, self._drawing = images, drawing
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(4 * _SAMPLE + 18, _SAMPLE)

    def minimumSizeHint(self) -> QSize:
        return QSize(4 * 48 + 18, _SAMPLE)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        side = min(float(_SAMPLE), (self.width() - 18) / 4)
        for i in range(4):
            image = self._images[i] if self._images and i < len(self._images) else None
            draw_sample(painter, QRectF(i * (side + 6), 0, side, side), image)
        painter.end()


class CardView(QTextBrowser):
    """A card's Markdown. Loads nothing by itself; a link asks before it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("modelCard")
        self.setAccessibleName(self.tr("Card"))
        self.setToolTip(self.tr("What the maker of the model says of it"))
        self.setOpenLinks(False)
        self.setOpenExternalLinks(False)
        self.anchorClicked.connect(self._asked)

    def show_text(self, markdown: str) -> None:
        features = QTextDocument.MarkdownFeature.MarkdownDialectGitHub
        self.document().setMarkdown(
            markdown, features | QTextDocument.MarkdownFeature.MarkdownNoHTML
        )
        self._air()
        self.moveCursor(QTextCursor.MoveOperation.Start)

    def _air(self) -> None:
        """Room above headings; tables without lines, and without a head where that is empty."""
        for frame in self.document().rootFrame().childFrames():
            if isinstance(frame, QTextTable):
                head = [frame.cellAt(0, column) for column in range(frame.columns())]
                empty = all(c.firstCursorPosition() == c.lastCursorPosition() for c in head)
                if empty and frame.rows() > 1:
                    frame.removeRows(0, 1)
                plain = frame.format().toTableFormat()
                plain.setBorder(0)
                frame.setFormat(plain)
        block = self.document().begin()
        while block.isValid():
            layout = block.blockFormat()
            if layout.headingLevel() and block.position() > 0:
                layout.setTopMargin(14)
                QTextCursor(block).setBlockFormat(layout)
            block = block.next()

    def loadResource(self, kind: int, name: QUrl | str) -> Any:
        return None

    def _asked(self, url: QUrl) -> None:
        if url.scheme() in ("http", "https"):
            spawn(self._open(url))

    async def _open(self, url: QUrl) -> None:
        shown = url.toDisplayString()[:200]
        question = self.tr("Open this page in your browser?")
        if await ask(self, self.tr("Link"), question, shown, self.tr("Open")):
            QDesktopServices.openUrl(url)


def _options(made: Any) -> str:
    """A Spec in a line: its title, and its settings."""
    settings = {k: v for k, v in spec.to_dict(made).items() if k != "kind"}
    told = ", ".join(
        f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
    )
    return f"{spec.title(type(made))} ({told})" if told else spec.title(type(made))
