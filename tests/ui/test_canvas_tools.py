"""The tool strip, the options bar and the mask menu, on a real canvas and document."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QColor, QInputDevice, QPointingDevice, QTabletEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QApplication,
    QDoubleSpinBox,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from studio.ui import theme
from studio.ui.canvas.brush import Brush
from studio.ui.canvas.colour_button import RECENT
from studio.ui.canvas.document import Document
from studio.ui.canvas.masks import Masks
from studio.ui.canvas.options_bar import OptionsBar
from studio.ui.canvas.tool_strip import ToolStrip
from studio.ui.canvas.view import CanvasView
from ui.conftest import Shown

KEYS = {
    "brush": "B",
    "eraser": "E",
    "lasso": "L",
    "rect": "M",
    "fill": "G",
    "pick": "I",
    "box": "C",
    "pan": "H",
    "wipe": "W",
}


class Page(QWidget):
    """A canvas between its tools, as a mode has it."""

    def __init__(self, masks: Masks) -> None:
        super().__init__()
        self.view = CanvasView()
        self.strip = ToolStrip(self.view)
        self.bar = OptionsBar(self.view, masks)
        column = QVBoxLayout(self)
        for part in (self.bar, self.strip):
            column.addWidget(part)
        column.addWidget(self.view, 1)
        self.edited: list[str] = []
        self.view.edited.connect(self.edited.append)

    def open(self, document: Document | None) -> None:
        self.view.set_document(document)
        self.bar.set_document(document)


@pytest.fixture
def masks(tmp_path: Path) -> Masks:
    return Masks(tmp_path / "masks")


@pytest.fixture
def document() -> Document:
    return Document.of(np.full((60, 80, 3), 128, np.uint8), name="grey")


@pytest.fixture
def page(shown: Shown, masks: Masks, document: Document) -> Page:
    page = Page(masks)
    page.open(document)
    shown(page, 1200, 560)
    page.view.setFocus()
    return page


@pytest.fixture(autouse=True)
def light_afterwards(qapp: QApplication) -> Iterator[None]:
    yield
    theme.apply(qapp, "light")


def paint(page: Page, layer: str = "mask", brush: Brush | None = None) -> None:
    """A stroke, told of as the canvas tells of one."""
    assert page.view.document is not None
    stroke = page.view.document.stroke(layer, brush or Brush(radius=6, hardness=1))
    stroke.to(30, 30)
    stroke.end()
    page.view.edited.emit(layer)


def becomes(condition: Callable[[], bool]) -> bool:
    """Whether something that is put off comes about, within five seconds."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        QTest.qWait(5)
    return condition()


# -- tools --------------------------------------------------------------------------------------


def test_a_button_chooses_its_tool(page):
    for tool in reversed(KEYS):
        page.strip.button(tool).click()
        assert page.view.tool == tool


def test_the_key_that_a_tooltip_names_chooses_the_tool_and_presses_the_button(page):
    for tool, key in reversed(KEYS.items()):
        assert f"({key})" in page.strip.button(tool).toolTip()
        QTest.keyClick(page.view, key.lower())
        assert page.view.tool == tool
        assert [name for name in KEYS if page.strip.button(name).isChecked()] == [tool]


def test_clicking_tools_and_dragging_sliders_leaves_the_keys_to_the_canvas(page):
    for part in (page.strip.button("lasso"), page.bar.size_amount.slider, page.bar.pressure):
        QTest.mouseClick(part, Qt.MouseButton.LeftButton)
        assert page.view.hasFocus()


def test_arrow_keys_go_through_the_tools(page):
    page.strip.button("brush").setFocus()
    QTest.keyClick(page.strip.button("brush"), Qt.Key.Key_Down)
    assert page.view.tool == "eraser"
    assert page.strip.button("eraser").hasFocus()


def test_everything_has_a_name_a_tooltip_and_an_object_name(page):
    kinds = (QAbstractButton, QSlider, QDoubleSpinBox)
    controls = [w for kind in kinds for w in page.findChildren(kind)]
    for control in controls:
        if not control.objectName().startswith("qt_"):
            assert control.objectName(), control
            assert control.toolTip(), control.objectName()
            assert control.accessibleName() or control.text(), control.objectName()
    names = [w.objectName() for w in controls if not w.objectName().startswith("qt_")]
    assert len(set(names)) == len(names)
    assert page.strip.findChild(QWidget, "maskBrush") is page.strip.button("brush")


# -- brush --------------------------------------------------------------------------------------


def test_the_box_for_the_size_holds_the_diameter(page):
    page.bar.size_amount.spin.setValue(100)
    assert page.view.brush.radius == 50
    page.view.set_brush(replace(page.view.brush, radius=8.0))
    assert page.bar.size_amount.value() == 16


def test_each_part_of_the_size_slider_multiplies_the_size_by_as_much(page):
    slider, sizes = page.bar.size_amount.slider, []
    for share in (0, 0.25, 0.5, 0.75, 1):
        slider.setValue(round(share * slider.maximum()))
        sizes.append(2 * page.view.brush.radius)
    assert sizes == [1, 8, 64, 512, 4096]


def test_hardness_and_strength_are_percentages_of_the_brush(page):
    page.bar.hardness.spin.setValue(35)
    page.bar.strength.slider.setValue(page.bar.strength.slider.maximum())
    assert page.view.brush.hardness == 0.35
    assert page.view.brush.strength == 1
    QTest.keyClick(page.view, "4")
    assert page.bar.strength.value() == 40


def test_following_the_canvas_does_not_change_its_brush(page):
    brush = Brush(radius=37.123, hardness=0.123, strength=0.456, colour=(1, 2, 3))
    page.view.set_brush(brush)
    assert page.view.brush == brush
    assert page.bar.size_amount.value() == pytest.approx(74.2)


def test_a_number_counts_once_it_is_typed_and_enter_goes_back_to_the_canvas(page):
    spin = page.bar.size_amount.spin
    spin.setFocus()
    spin.selectAll()
    QTest.keyClicks(spin, "250")
    assert page.view.brush.radius == 32
    QTest.keyClick(spin, Qt.Key.Key_Return)
    assert page.view.brush.radius == 125
    assert page.view.hasFocus()


def test_strength_is_called_by_what_it_does_on_the_layer(page):
    assert page.bar.strength.label.text() == "Change"
    QTest.keyClick(page.view, "x")
    assert page.bar.strength.label.text() == "Opacity"
    assert page.bar.layers.findChild(QAbstractButton, "layer_sketch").isChecked()


def test_the_layer_switch_sets_the_layer_of_the_canvas(page):
    page.bar.layers.findChild(QAbstractButton, "layer_sketch").click()
    assert page.view.layer == "sketch"
    page.bar.layers.findChild(QAbstractButton, "layer_mask").click()
    assert page.view.layer == "mask"


def test_what_a_tool_does_not_use_is_grey(page):
    page.view.set_tool("lasso")
    assert not page.bar.size_amount.isEnabled()
    assert page.bar.strength.isEnabled()
    page.view.set_tool("pan")
    assert not page.bar.strength.isEnabled()
    page.view.set_tool("eraser")
    assert page.bar.size_amount.isEnabled()


def pen(view: CanvasView, kind: QEvent.Type, pressure: float) -> None:
    able = QInputDevice.Capability.Position | QInputDevice.Capability.Pressure
    device = QPointingDevice(
        "pen", 1, QInputDevice.DeviceType.Stylus, QPointingDevice.PointerType.Pen, able, 1, 3
    )
    at, button = view.to_widget(30, 30), Qt.MouseButton.LeftButton
    buttons = Qt.MouseButton.NoButton if kind == QEvent.Type.TabletRelease else button
    everywhere = QPointF(view.mapToGlobal(at.toPoint()))
    event = QTabletEvent(
        kind,
        device,
        at,
        everywhere,
        pressure,
        0,
        0,
        0,
        0,
        0,
        Qt.KeyboardModifier(0),
        button,
        buttons,
    )
    QApplication.sendEvent(view, event)


@pytest.mark.parametrize("feels", [True, False])
def test_pen_pressure_can_be_turned_off(page, document, feels):
    page.view.set_brush(Brush(radius=16, hardness=1))
    page.bar.pressure.setChecked(feels)
    pen(page.view, QEvent.Type.TabletPress, 0.25)
    pen(page.view, QEvent.Type.TabletRelease, 0)
    _, _, width, _ = document.bounds("mask")
    assert (width < 12) == feels
    assert (width > 30) != feels


# -- colour -------------------------------------------------------------------------------------


def test_the_colour_dialog_is_opened_not_waited_for_and_gives_the_brush_its_colour(page):
    page.view.set_layer("sketch")
    page.bar.colour.click()
    dialog = page.bar.colour.dialog
    assert dialog.isVisible()
    dialog.setCurrentColor(QColor(10, 20, 30))
    dialog.accept()
    assert page.view.brush.colour == (10, 20, 30)
    assert page.bar.colour.recent[0] == (10, 20, 30)
    assert page.bar.colour.dialog is None


def test_colours_that_were_painted_with_come_back_by_one_click(page):
    page.view.set_layer("sketch")
    for colour in ((9, 8, 7), (70, 80, 90)):
        page.view.set_brush(replace(page.view.brush, colour=colour))
        paint(page, "sketch")
    assert page.bar.colour.recent[:2] == [(70, 80, 90), (9, 8, 7)]
    assert len(page.bar.colour.recent) == RECENT
    page.bar.colour.findChild(QAbstractButton, "recentColour_1").click()
    assert page.view.brush.colour == (9, 8, 7)


def test_the_colour_follows_the_eyedropper(page):
    page.view.set_tool("pick")
    QTest.mouseClick(
        page.view, Qt.MouseButton.LeftButton, pos=page.view.to_widget(20, 20).toPoint()
    )
    assert page.bar.colour.colour() == (128, 128, 128)


def test_colours_can_be_cleared_in_one_step(page, document):
    paint(page, "sketch")
    page.bar.colour.clear_requested.emit()
    assert document.bounds("sketch") is None
    document.history.undo()
    assert document.bounds("sketch") is not None


# -- undo ---------------------------------------------------------------------------------------


def test_undo_and_redo_say_what_they_would_do(page):
    assert not page.bar.undo_action.isEnabled()
    paint(page)
    assert page.bar.undo_action.text() == "Undo: Brush stroke"
    page.bar.undo_action.trigger()
    assert not page.bar.undo_action.isEnabled()
    assert page.bar.redo_action.toolTip().startswith("Redo: Brush stroke (")


def test_undo_tells_which_layer_was_edited(page, document):
    paint(page)
    document.set_box((0, 0, 20, 20))
    page.edited.clear()
    page.bar.undo_action.trigger()
    page.bar.undo_action.trigger()
    assert page.edited == ["box", "mask"]


def test_the_keys_for_undo_work_from_the_canvas(page, document):
    paint(page)
    QTest.keyClick(page.view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert document.bounds("mask") is None
    QTest.keyClick(page.view, Qt.Key.Key_Y, Qt.KeyboardModifier.ControlModifier)
    assert document.bounds("mask") is not None


def test_a_change_from_elsewhere_is_followed_soon_but_not_at_every_move(page, document):
    document.invert_mask()
    assert not page.bar.undo_action.isEnabled()
    assert becomes(lambda: page.bar.undo_action.text() == "Undo: Invert mask")


def test_another_document_brings_its_own_history(page, document):
    paint(page)
    page.open(Document.of(np.zeros((8, 8, 3), np.uint8)))
    assert not page.bar.undo_action.isEnabled()
    assert becomes(lambda: not page.bar._later.isActive())
    document.invert_mask()
    assert not page.bar._later.isActive()
    page.open(document)
    assert page.bar.undo_action.text() == "Undo: Invert mask"


def test_nothing_is_undone_while_a_mark_is_being_made(page, document):
    paint(page)
    at = page.view.to_widget(60, 50).toPoint()
    QTest.mousePress(page.view, Qt.MouseButton.LeftButton, pos=at)
    page.bar.undo_action.trigger()
    QTest.mouseRelease(page.view, Qt.MouseButton.LeftButton, pos=at)
    assert document.mask[30, 30] == 255


# -- mask menu ----------------------------------------------------------------------------------


def do(page: Page, name: str) -> None:
    page.bar.mask_menu.refresh()
    assert page.bar.mask_menu.action(name).isEnabled()
    page.bar.mask_menu.action(name).trigger()


def test_inverting_is_one_step_and_an_edit(page, document):
    do(page, "invert")
    assert (document.mask == 255).all()
    assert page.edited == ["mask"]
    page.bar.undo_action.trigger()
    assert not document.mask.any()


def test_clearing_and_hardening_the_mask(page, document):
    paint(page, brush=Brush(radius=12, hardness=0))
    do(page, "threshold")
    assert set(np.unique(document.mask)) == {0, 255}
    do(page, "clear")
    assert document.bounds("mask") is None


@pytest.mark.parametrize(("name", "by"), [("grow", 3), ("shrink", -3)])
def test_growing_asks_for_pixels_and_moves_every_side(page, document, name, by):
    document.fill_rect("mask", (20, 20, 20, 10), Brush())
    do(page, name)
    page.bar.mask_menu.question.setIntValue(3)
    page.bar.mask_menu.question.accept()
    # Round corners do not change the bounds.
    assert document.bounds("mask") == (20 - by, 20 - by, 20 + 2 * by, 10 + 2 * by)
    do(page, name)
    assert page.bar.mask_menu.question.intValue() == 3
    page.bar.mask_menu.question.reject()
    assert page.bar.mask_menu.question is None


def test_feathering_leaves_values_between(page, document):
    document.fill_rect("mask", (20, 20, 20, 10), Brush())
    do(page, "feather")
    page.bar.mask_menu.question.setIntValue(2)
    page.bar.mask_menu.question.accept()
    assert 0 < document.mask[25, 19] < 255


def test_what_cannot_be_done_is_grey(page, shown, masks):
    menu = page.bar.mask_menu
    menu.refresh()
    assert not menu.action("clear").isEnabled()
    assert not menu.action("alpha").isEnabled()
    assert menu.action("invert").isEnabled()
    page.open(None)
    menu.refresh()
    assert not any(menu.action(name).isEnabled() for name in ("invert", "import", "export"))


def test_transparency_becomes_the_mask(page):
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[2:4] = 0
    document = Document.of(np.zeros((8, 8, 3), np.uint8), alpha)
    page.open(document)
    do(page, "alpha")
    assert (document.mask == 255 - alpha).all()


def test_files_are_asked_for(page):
    asked: list[str] = []
    page.bar.mask_import_requested.connect(lambda: asked.append("import"))
    page.bar.mask_export_requested.connect(lambda: asked.append("export"))
    paint(page)
    do(page, "import")
    do(page, "export")
    assert asked == ["import", "export"]


def test_an_earlier_mask_comes_back_if_it_has_the_size_of_the_picture(page, document, masks):
    masks.add(np.full((10, 10), 255, np.uint8))
    paint(page)
    wanted = document.mask.copy()
    masks.add(wanted)
    do(page, "clear")
    page.bar.mask_menu.last.aboutToShow.emit()
    newest, other = page.bar.mask_menu.last.actions()
    assert not other.isEnabled()
    newest.trigger()
    assert (document.mask == wanted).all()


def test_a_damaged_mask_is_told_of_and_changes_nothing(page, document, masks, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(page.view, "notice", said.append)
    paint(page)
    before, path = document.mask.copy(), masks.add(np.array(document.mask))
    page.bar.mask_menu.last.aboutToShow.emit()
    path.write_bytes(b"not a mask")
    page.bar.mask_menu.last.actions()[0].trigger()
    assert "damaged" in said[0]
    assert (document.mask == before).all()


# -- zoom and looks -----------------------------------------------------------------------------


def test_the_zoom_is_shown_and_can_be_chosen(page):
    actions = {action.text(): action for action in page.bar.zoom.menu().actions()}
    actions["400 %"].trigger()
    assert page.view.zoom == 4
    assert page.bar.zoom.text() == "400 %"
    actions["Whole picture"].trigger()
    assert page.view.fits


@pytest.mark.parametrize(("width", "lines", "sliders"), [(1400, 1, True), (560, 2, False)])
def test_sliders_give_way_where_that_saves_a_line(page, qapp, width, lines, sliders):
    page.resize(width, 700)
    qapp.processEvents()
    qapp.processEvents()
    assert page.bar.hardness.slider.isVisible() == sliders
    assert page.bar.hardness.spin.isVisible()
    tops = {part.y() for part in page.bar.children() if isinstance(part, QWidget)}
    assert len(tops) == lines


def test_the_pictures_follow_the_appearance(page, qapp, grab):
    light = grab(page.strip.button("brush"))
    theme.apply(qapp, "dark")
    qapp.processEvents()
    dark = grab(page.strip.button("brush"))
    assert light.mean() > 128 > dark.mean()
