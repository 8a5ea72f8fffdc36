"""The mask's menu: what can be done to all of the mask at once, and the masks there were before.

What needs a file is asked for by signals; what fails is said by the canvas.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QAction, QIcon, QImage, QKeySequence, QPainter, QPixmap
from PySide6.QtWidgets import QInputDialog, QMenu, QWidget

from studio.errors import StudioError
from studio.ui.canvas.document import MOST_GROWTH, Document
from studio.ui.canvas.masks import KeptMask, Masks
from studio.ui.canvas.view import CanvasView

_THUMBNAIL = 40  # logical pixels


class MaskMenu(QMenu):
    """Acts on the mask of the document that the canvas shows; each verb is one step to undo."""

    import_requested = Signal()
    export_requested = Signal()

    def __init__(
        self, view: CanvasView, masks: Masks | None = None, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setObjectName("maskMenuList")
        self.setToolTipsVisible(True)
        self._view, self._masks = view, masks
        self._pixels = {"grow": 4, "shrink": 4, "feather": 8}  # as asked for last
        self.question: QInputDialog | None = None
        self._fill()
        self.last = QMenu(self.tr("Last masks"), self)
        self.last.setObjectName("lastMasks")
        self.last.setToolTipsVisible(True)
        self.addMenu(self.last).setVisible(masks is not None)
        self.aboutToShow.connect(self.refresh)
        self.last.aboutToShow.connect(self._fill_last)

    def action(self, name: str) -> QAction:
        """An action by its name, such as "invert". Raises KeyError if there is none."""
        return self._actions[name]

    def refresh(self) -> None:
        """Offer what can be done now."""
        document = self._view.document
        painted = document is not None and document.bounds("mask") is not None
        for name in ("clear", "grow", "shrink", "feather", "threshold", "export"):
            self._actions[name].setEnabled(painted)
        for name in ("invert", "import"):
            self._actions[name].setEnabled(document is not None)
        alpha = document is not None and document.alpha is not None
        self._actions["alpha"].setEnabled(alpha)
        self._actions["alpha"].setToolTip(
            self.tr("Paint what is transparent in the picture")
            if alpha or document is None
            else self.tr("This picture has no transparency")
        )
        self.last.menuAction().setEnabled(document is not None)

    def _fill(self) -> None:
        self._actions: dict[str, QAction] = {}
        add = self._add
        add("invert", self.tr("Invert"), self.tr("Swap what may change and what stays"), "Ctrl+I")
        add("clear", self.tr("Clear"), self.tr("Paint nothing: every pixel stays"))
        self.addSeparator()
        add("grow", self.tr("Grow…"), self.tr("Widen what is painted by some pixels"))
        add("shrink", self.tr("Shrink…"), self.tr("Narrow what is painted by some pixels"))
        add("feather", self.tr("Feather…"), self.tr("Soften the edges, so that they blend"))
        add("threshold", self.tr("Threshold"), self.tr("Make every pixel either free or kept"))
        self.addSeparator()
        add("alpha", self.tr("From transparency"), "")
        add("import", self.tr("Import…"), self.tr("Take a picture as the mask: white may change"))
        add("export", self.tr("Export…"), self.tr("Save the mask as a picture"))
        verbs: dict[str, Callable[[], object]] = {
            "invert": lambda: self._do(Document.invert_mask),
            "clear": lambda: self._do(lambda document: document.clear("mask")),
            "grow": lambda: self._ask("grow"),
            "shrink": lambda: self._ask("shrink"),
            "feather": lambda: self._ask("feather"),
            "threshold": lambda: self._do(Document.threshold_mask),
            "alpha": lambda: self._do(Document.mask_from_alpha),
            "import": self.import_requested.emit,
            "export": self.export_requested.emit,
        }
        for name, verb in verbs.items():
            self._actions[name].triggered.connect(lambda _=False, verb=verb: verb())

    def _add(self, name: str, text: str, tip: str, key: str = "") -> None:
        action = self.addAction(text)
        action.setObjectName(f"mask_{name}")
        action.setToolTip(tip)
        if key:
            # The key is the canvas's; here it is only shown.
            action.setShortcut(QKeySequence(key))
            action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        self._actions[name] = action

    def _do(self, verb: Callable[[Document], object]) -> None:
        document = self._view.document
        if document is None:
            return
        before = document.history.state
        try:
            verb(document)
        except StudioError as error:
            self._view.notice(str(error))
        if document.history.state != before:
            self._view.edited.emit("mask")

    # -- pixels -------------------------------------------------------------------------------------

    def _ask(self, name: str) -> None:
        """Ask how many pixels, then do it."""
        titles = {
            "grow": (self.tr("Grow mask"), self.tr("Pixels to grow by on every side:")),
            "shrink": (self.tr("Shrink mask"), self.tr("Pixels to shrink by on every side:")),
            "feather": (self.tr("Feather mask"), self.tr("Pixels over which edges fade:")),
        }
        box = QInputDialog(self._view.window())
        box.setObjectName("maskPixels")
        box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        box.setWindowTitle(titles[name][0])
        box.setLabelText(titles[name][1])
        box.setInputMode(QInputDialog.InputMode.IntInput)
        box.setIntRange(1, MOST_GROWTH)
        box.setIntValue(self._pixels[name])
        box.intValueSelected.connect(lambda pixels: self._apply(name, pixels))
        box.finished.connect(self._answered)
        self.question = box
        box.open()

    def _answered(self) -> None:
        self.question = None

    def _apply(self, name: str, pixels: int) -> None:
        self._pixels[name] = pixels
        verbs: dict[str, Callable[[Document], object]] = {
            "grow": lambda document: document.grow_mask(pixels),
            "shrink": lambda document: document.grow_mask(-pixels),
            "feather": lambda document: document.feather_mask(pixels),
        }
        self._do(verbs[name])

    # -- masks there were ---------------------------------------------------------------------------

    def _fill_last(self) -> None:
        self.last.clear()
        document = self._view.document
        kept = self._masks.list() if self._masks is not None and document is not None else []
        for i, mask in enumerate(kept):
            action = self.last.addAction(_thumbnail(mask.thumb), f"{mask.size[0]} × {mask.size[1]}")
            action.setObjectName(f"lastMask_{i}")
            fits = document is not None and mask.size == document.size
            action.setEnabled(fits)
            action.setToolTip(
                self.tr("Put this mask back")
                if fits
                else self.tr("This mask belongs to a picture of another size")
            )
            action.triggered.connect(lambda _=False, mask=mask: self._restore(mask))
        if not kept:
            self.last.addAction(self.tr("None yet: a run keeps its mask")).setEnabled(False)

    def _restore(self, kept: KeptMask) -> None:
        masks = self._masks
        if masks is not None:
            self._do(lambda document: document.set_mask(masks.read(kept), "Earlier mask"))


def _thumbnail(values: np.ndarray) -> QIcon:
    """A mask, uint8 (h, w), in the middle of a black square."""
    pixels = np.ascontiguousarray(values)
    h, w = pixels.shape
    image = QImage(pixels.data, w, h, w, QImage.Format.Format_Grayscale8)
    side = 2 * _THUMBNAIL
    fitted = image.scaled(
        QSize(side, side),
        Qt.AspectRatioMode.KeepAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )
    square = QPixmap(side, side)
    square.fill(Qt.GlobalColor.black)
    painter = QPainter(square)
    painter.drawImage((side - fitted.width()) // 2, (side - fitted.height()) // 2, fitted)
    painter.end()
    icon = QIcon(square)
    # A mask that does not fit is greyed by its words; its picture stays as it was.
    icon.addPixmap(square, QIcon.Mode.Disabled)
    return icon
