"""The page where models come from: an id of the hub, and a list of public models worth a download."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from studio import spec
from studio.diffusion.sde import SDES
from studio.ui.page import scrolled
from studio.weights.known import KNOWN, Known
from studio.weights.listing import as_size


class GetModels(QWidget):
    """`wanted` carries what was typed or the id of a known model, and the token for a private one."""

    wanted = Signal(str, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("getModels")
        self.rows: dict[str, KnownRow] = {}
        self._states: tuple[set[str], set[str]] = (set(), set())
        title = QLabel(self.tr("Public models"))
        title.setProperty("role", "heading")
        note = QLabel(
            self.tr(
                "Each is fetched from huggingface.co when you press Get; nothing is sent there."
            )
        )
        note.setProperty("role", "muted")
        note.setWordWrap(True)
        inner = QWidget()
        self._list = QVBoxLayout(inner)
        self._list.setContentsMargins(0, 0, 6, 0)
        self._list.setSpacing(6)
        self._list.addStretch()
        box = QVBoxLayout(self)
        box.setContentsMargins(12, 4, 6, 8)
        box.setSpacing(8)
        box.addLayout(self._hub())
        box.addWidget(title)
        box.addWidget(note)
        box.addWidget(scrolled(inner), 1)

    def _hub(self) -> QGridLayout:
        label = QLabel(self.tr("From the hub"))
        label.setProperty("role", "heading")
        self.id = QLineEdit()
        self.id.setObjectName("hubId")
        self.id.setAccessibleName(self.tr("Model of the hub"))
        self.id.setPlaceholderText(
            self.tr("owner/name, or the address of a model's page on huggingface.co")
        )
        self.id.setToolTip(self.tr("Which model to fetch: owner/name, or its page's address"))
        self.id.setClearButtonEnabled(True)
        self.get = QPushButton(self.tr("Get"))
        self.get.setObjectName("hubGet")
        self.get.setAccessibleName(self.tr("Get this model"))
        self.get.setToolTip(self.tr("Type which model first"))
        self.get.setEnabled(False)
        self.private = QCheckBox(self.tr("Private model"))
        self.private.setObjectName("hubPrivate")
        self.private.setToolTip(self.tr("It needs a token, or the login of this machine"))
        self.token = QLineEdit()
        self.token.setObjectName("hubToken")
        self.token.setEchoMode(QLineEdit.EchoMode.Password)
        self.token.setAccessibleName(self.tr("Token"))
        self.token.setPlaceholderText(self.tr("Token; empty: the login of this machine"))
        self.token.setToolTip(self.tr("Used for this download alone; it is written nowhere"))
        self.token.hide()
        self.private.toggled.connect(self.token.setVisible)
        self.private.toggled.connect(lambda on: on or self.token.clear())
        self.id.textChanged.connect(self._typed)
        self.id.returnPressed.connect(self._ask)
        self.token.returnPressed.connect(self._ask)
        self.get.clicked.connect(self._ask)
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 16, 6)  # as far as the cards, beside their scroll bar
        grid.setSpacing(8)
        grid.addWidget(label, 0, 0, 1, 3)
        grid.addWidget(self.id, 1, 0)
        grid.addWidget(self.private, 1, 1)
        grid.addWidget(self.get, 1, 2)
        grid.addWidget(self.token, 2, 0)
        grid.setColumnStretch(0, 1)
        return grid

    def show_states(self, here: set[str], coming: set[str]) -> None:
        """Which of the known models stand on the shelf, and which are being fetched (lower case)."""
        self._states = here, coming
        for id, row in self.rows.items():
            row.show_state(id in here, id in coming)

    def showEvent(self, event: QShowEvent) -> None:
        # Not before: these are many widgets, and the window is to be there in a moment.
        if not self.rows:
            for known in KNOWN:
                row = KnownRow(known)
                row.get.clicked.connect(lambda _=False, k=known: self.wanted.emit(k.id, ""))
                self.rows[known.id.lower()] = row
                self._list.insertWidget(self._list.count() - 1, row)
            self.show_states(*self._states)
        super().showEvent(event)

    def clear(self) -> None:
        """After a download has begun: ready for the next."""
        self.id.clear()
        self.token.clear()
        self.private.setChecked(False)

    def _typed(self, text: str) -> None:
        self.get.setEnabled(bool(text.strip()))
        self.get.setToolTip(
            self.tr("Download this model") if text.strip() else self.tr("Type which model first")
        )

    def _ask(self) -> None:
        if self.id.text().strip():
            self.wanted.emit(self.id.text(), self.token.text().strip())


class KnownRow(QFrame):
    """A public model: what it is, how large, on what terms, and a Get button."""

    def __init__(self, known: Known) -> None:
        super().__init__()
        self.setObjectName("knownModel")
        self.setProperty("role", "card")
        self.setAccessibleName(known.title)
        self.known = known
        name = QLabel(known.title)
        name.setProperty("role", "heading")
        id = QLabel(known.id)
        id.setProperty("role", "muted")
        id.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        head = QHBoxLayout()
        head.setSpacing(10)
        head.addWidget(name)
        head.addWidget(id)
        head.addStretch()
        facts = QLabel(
            " · ".join(
                (
                    f"{known.size} × {known.size}",
                    spec.title(SDES[known.sde]) if known.sde in SDES else known.sde,
                    as_size(known.bytes),
                    known.licence,
                )
            )
        )
        says = QLabel(known.says)
        says.setProperty("role", "muted")
        says.setWordWrap(True)
        self.get = QPushButton()
        self.get.setObjectName(f"get_{known.id.replace('/', '_')}")
        self.get.setMinimumWidth(110)
        grid = QGridLayout(self)
        grid.setContentsMargins(12, 8, 10, 8)
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(3)
        grid.addLayout(head, 0, 0)
        grid.addWidget(facts, 1, 0)
        grid.addWidget(says, 2, 0)
        grid.addWidget(self.get, 0, 1, 3, 1, Qt.AlignmentFlag.AlignVCenter)
        grid.setColumnStretch(0, 1)
        self.show_state(False, False)

    def show_state(self, here: bool, coming: bool) -> None:
        text = self.tr("Get")
        tip = self.tr("Download {size} from huggingface.co").format(size=as_size(self.known.bytes))
        if here:
            text, tip = self.tr("On the shelf"), self.tr("This model is on your machine already")
        elif coming:
            text, tip = self.tr("On its way"), self.tr("Its download is in the list below")
        self.get.setText(text)
        self.get.setToolTip(tip)
        self.get.setAccessibleName(f"{text}: {self.known.title}")
        self.get.setEnabled(not (here or coming))
