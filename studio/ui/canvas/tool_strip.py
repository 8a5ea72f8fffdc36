"""The tools of the canvas, one below the other. The keys are the canvas's own; here they are told."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import QButtonGroup, QFrame, QToolButton, QVBoxLayout, QWidget

from studio.ui import theme
from studio.ui.canvas.view import CanvasView

#: (tool, icon, key) from the top down; None is a line between groups.
_TOOLS = (
    ("brush", "brush", "B"),
    ("eraser", "eraser", "E"),
    ("lasso", "lasso", "L"),
    ("rect", "rect", "M"),
    ("fill", "fill", "G"),
    None,
    ("pick", "pick", "I"),
    ("box", "box", "C"),
    None,
    ("pan", "hand", "H"),
    ("wipe", "wipe", "W"),
)


class ToolStrip(QWidget):
    """Chooses the tool of a canvas, and follows when the canvas is given another."""

    def __init__(self, view: CanvasView, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("toolStrip")
        self.setAccessibleName(self.tr("Tools"))
        self._view = view
        self._buttons: dict[str, QToolButton] = {}
        self._group = QButtonGroup(self)
        column = QVBoxLayout(self)
        column.setContentsMargins(4, 4, 4, 4)
        column.setSpacing(3)
        for entry in _TOOLS:
            if entry is None:
                column.addWidget(_line())
            else:
                column.addWidget(self._button(*entry))
        column.addStretch()
        self._follow(view.tool)
        view.tool_changed.connect(self._follow)

    def button(self, tool: str) -> QToolButton:
        """The button of a tool. Raises KeyError if there is no such tool."""
        return self._buttons[tool]

    def _button(self, tool: str, icon: str, key: str) -> QToolButton:
        title, help = self._words()[tool]
        button = QToolButton()
        button.setObjectName("maskBrush" if tool == "brush" else f"tool_{tool}")
        button.setCheckable(True)
        button.setIcon(theme.icon(icon))
        button.setIconSize(QSize(20, 20))
        button.setToolTip(f"{title} ({key})\n{help}")
        button.setAccessibleName(title)
        button.setAccessibleDescription(help)
        # A click must not take the keys away from the canvas.
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.toggled.connect(lambda on: self._view.set_tool(tool) if on else None)
        self._group.addButton(button)
        self._buttons[tool] = button
        return button

    def _follow(self, tool: str) -> None:
        self._buttons[tool].setChecked(True)

    def _words(self) -> dict[str, tuple[str, str]]:
        """What a person is told of each tool."""
        return {
            "brush": (
                self.tr("Brush"),
                self.tr("Paint what may change. Shift-click draws a line, Alt-drag resizes."),
            ),
            "eraser": (
                self.tr("Eraser"),
                self.tr("Take paint away. The right button does so with every tool that paints."),
            ),
            "lasso": (
                self.tr("Lasso"),
                self.tr("Draw around an area, or click its corners. Ctrl takes it away."),
            ),
            "rect": (
                self.tr("Rectangle"),
                self.tr("Fill a rectangle. Shift makes it square, Ctrl takes it away."),
            ),
            "fill": (
                self.tr("Fill"),
                self.tr("Fill what looks alike around a click. Ctrl takes it away."),
            ),
            "pick": (self.tr("Eyedropper"), self.tr("Take the colour from the picture.")),
            "box": (
                self.tr("Box"),
                self.tr("Place the part of the picture that goes through the model."),
            ),
            "pan": (
                self.tr("Pan"),
                self.tr("Move the picture. Holding Space does so with any tool."),
            ),
            "wipe": (
                self.tr("Wipe"),
                self.tr("Drag a line between the photo and the candidate."),
            ),
        }


def _line() -> QFrame:
    line = QFrame()
    line.setObjectName("stripLine")
    line.setFrameShape(QFrame.Shape.NoFrame)
    line.setFixedHeight(1)
    return line
