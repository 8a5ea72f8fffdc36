"""The canvas: marks go where the pointer went, nothing else changes, and what is seen is true."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PySide6.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import (
    QDropEvent,
    QImage,
    QInputDevice,
    QKeyEvent,
    QMouseEvent,
    QPointingDevice,
    QTabletEvent,
    QWheelEvent,
)
from PySide6.QtTest import QSignalSpy, QTest
from PySide6.QtWidgets import QApplication, QHBoxLayout, QLineEdit, QWidget

from studio.ui.canvas.brush import Brush
from studio.ui.canvas.camera import Camera
from studio.ui.canvas.document import Document
from studio.ui.canvas.pyramid import Pyramid
from studio.ui.canvas.tools import moved_box, resized_box
from studio.ui.canvas.view import CanvasView

LEFT, MIDDLE, RIGHT = (
    Qt.MouseButton.LeftButton,
    Qt.MouseButton.MiddleButton,
    Qt.MouseButton.RightButton,
)
NONE, SHIFT, CONTROL, ALT = (
    Qt.KeyboardModifier.NoModifier,
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.ControlModifier,
    Qt.KeyboardModifier.AltModifier,
)
HARD = Brush(radius=6, hardness=1.0)
Points = list[tuple[float, float]]


def photo(height: int = 120, width: int = 160) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


def plain(height: int = 120, width: int = 160, colour: tuple[int, ...] = (70, 90, 80)):
    return np.full((height, width, len(colour)), colour, np.uint8)


@pytest.fixture
def view(shown: Callable[..., Any]) -> CanvasView:
    canvas = shown(CanvasView(), 720, 560)
    canvas.set_document(Document.of(plain()))
    canvas.set_brush(HARD)
    return canvas


def document(view: CanvasView) -> Document:
    assert view.document is not None
    return view.document


def place(view: CanvasView, x: float, y: float) -> QPoint:
    return view.to_widget(x, y).toPoint()


def drag(
    view: CanvasView,
    points: Points,
    button: Qt.MouseButton = LEFT,
    mods: Qt.KeyboardModifier = NONE,
) -> None:
    """Press at the first picture point, move through the others, release."""
    QTest.mousePress(view, button, mods, place(view, *points[0]))
    for point in points[1:]:
        # QTest.mouseMove has no modifiers.
        where = QPointF(place(view, *point))
        event = _mouse(QEvent.Type.MouseMove, view, where, button, mods)
        QApplication.sendEvent(view, event)
    QTest.mouseRelease(view, button, mods, place(view, *points[-1]))


def _mouse(kind, view: CanvasView, where: QPointF, button, mods):
    return QMouseEvent(kind, where, view.mapToGlobal(where), Qt.MouseButton.NoButton, button, mods)


def click(view: CanvasView, x: float, y: float, mods: Qt.KeyboardModifier = NONE) -> None:
    QTest.mouseClick(view, LEFT, mods, place(view, x, y))


def turn(view: CanvasView, where: QPointF, notches: int) -> None:
    event = QWheelEvent(
        where,
        view.mapToGlobal(where),
        QPoint(),
        QPoint(0, 120 * notches),
        Qt.MouseButton.NoButton,
        NONE,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(view, event)


def seen(view: CanvasView, grab, x: float, y: float) -> np.ndarray:
    """The colour on screen in the middle of a picture pixel."""
    at = place(view, x + 0.5, y + 0.5)
    return grab(view)[at.y(), at.x()].astype(int)


def heard(spy: QSignalSpy) -> list[Any]:
    return [spy.at(i)[0] for i in range(spy.count())]


# ---- what is seen -----------------------------------------------------------------------------


def test_true_pixels_are_seen_at_whole_enlargements(view: CanvasView, grab) -> None:
    pixels = photo()
    view.set_document(Document.of(pixels))
    view.set_tool("pan")
    view.clearFocus()
    assert view.zoom == 4.0
    corner = place(view, 0, 0)
    expected = pixels.repeat(4, 0).repeat(4, 1)
    part = grab(view)[corner.y() :, corner.x() :][: len(expected), : expected.shape[1]]
    np.testing.assert_array_equal(part, expected[: len(part), : part.shape[1]])


def test_small_levels_are_area_averages() -> None:
    pixels = photo(300, 421)
    pyramid = Pyramid(pixels)
    width = pyramid.image(2).width()
    pyramid.refresh(2, (0, 0, width, pyramid.image(2).height()))
    image = pyramid.image(2).convertToFormat(QImage.Format.Format_RGB888)
    lines = np.frombuffer(image.constBits(), np.uint8).reshape(-1, image.bytesPerLine())
    made = lines[:, : 3 * width].reshape(-1, width, 3)[:75, :105]
    blocks = pixels[:300, :420].reshape(75, 4, 105, 4, 3).astype(float)
    assert np.abs(made - blocks.mean((1, 3))).max() <= 1.5
    assert abs((made - blocks.mean((1, 3))).mean()) < 0.1


def test_a_change_reaches_every_level_and_nothing_beside_it() -> None:
    pixels = np.zeros((512, 512), np.uint8)
    pyramid = Pyramid(pixels, blank=True)
    whole = (0, 0, 128, 128)
    assert pyramid.stale(2, whole) == 0
    pixels[200:264, 300:364] = 200
    pyramid.touch((300, 200, 64, 64))
    assert 0 < pyramid.stale(2, whole) < 512 * 512
    pyramid.refresh(2, whole)
    values = np.frombuffer(pyramid.image(2).constBits(), np.uint8).reshape(128, 128)
    expected = np.zeros((128, 128), np.uint8)
    expected[50:66, 75:91] = 200
    np.testing.assert_array_equal(values, expected)


def test_refining_comes_to_an_end_and_equals_averaging_at_once() -> None:
    pixels = photo(700, 3000)[..., 0].repeat(2, 1)
    whole = (0, 0, 750, 88)
    slowly, at_once = Pyramid(pixels), Pyramid(pixels)
    slowly.sample(3, whole)
    portions = 0
    while slowly.refine(3, whole, 0.0) is not None:
        portions += 1
    at_once.refresh(3, whole)
    assert slowly.stale(3, whole) == 0
    assert portions > 4
    assert slowly.image(3) == at_once.image(3)


def test_large_photos_show_at_once_and_become_exact(view: CanvasView, grab) -> None:
    pixels = np.ascontiguousarray(photo(800, 1000).repeat(3, 0).repeat(3, 1))
    view.set_document(Document.of(pixels))
    view.repaint()
    assert view._scene.coarse
    while view._scene.coarse:
        view._refine()
    smooth = np.asarray(Image.fromarray(pixels).reduce(4), dtype=float)
    at, zoom = place(view, 1400, 1000), view.zoom
    side = round(400 * zoom)
    part = grab(view)[at.y() : at.y() + side, at.x() : at.x() + side].astype(float)
    assert abs(part.mean() - smooth[250:350, 350:450].mean()) < 3


def test_panning_and_strokes_compose_what_a_whole_paint_would(view: CanvasView, grab) -> None:
    view.set_document(Document.of(photo(700, 900)))
    view.set_brush(Brush(radius=60, hardness=0.5))
    view.zoom_to(0.63)
    grab(view)
    drag(view, [(200, 200), (500, 400), (600, 200)])
    for dx, dy in ((13, -7), (-40, 22), (3, 3)):
        view.pan(dx, dy)
        view.repaint()
    drag(view, [(300, 500), (700, 300)], RIGHT)
    pieces = grab(view).astype(int)
    view._scene.spoil()
    assert np.abs(grab(view).astype(int) - pieces).max() <= 3


def test_the_mask_is_tinted_and_hatched_by_its_strength(view: CanvasView, grab) -> None:
    plainly = grab(view).astype(int)
    document(view).fill_rect("mask", (40, 30, 30, 30), HARD)
    document(view).fill_rect("mask", (90, 30, 30, 30), replace(HARD, strength=0.3))
    marked = np.abs(grab(view).astype(int) - plainly).sum(-1)

    def inside(x: int) -> np.ndarray:
        a, b = place(view, x + 3, 33), place(view, x + 27, 57)
        return marked[a.y() : b.y(), a.x() : b.x()]

    strong, faint, none = inside(40), inside(90), inside(5)
    assert strong.mean() > 1.5 * faint.mean() > 0
    assert strong.std() > 20
    assert not none.any()
    assert faint.min() > 0


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_the_masks_outline_is_seen_on_any_ground(view: CanvasView, grab, ground: int) -> None:
    view.set_document(Document.of(plain(colour=(ground,) * 3)))
    view.set_tool("pan")
    document(view).fill_rect("mask", (40, 30, 30, 30), HARD)
    edge = place(view, 40, 45)
    across = grab(view)[edge.y(), edge.x() - 2 : edge.x() + 2].astype(int).mean(-1)
    assert across.max() - across.min() > 100


def test_a_candidate_lies_over_its_rectangle_and_the_wipe_divides_it(
    view: CanvasView, grab
) -> None:
    view.set_tool("pan")
    view.set_result(plain(8, 8, (250, 10, 10)), (40, 20, 64, 64))
    assert tuple(seen(view, grab, 60, 50)) == (250, 10, 10)
    assert tuple(seen(view, grab, 30, 50)) == (70, 90, 80)
    view.set_wipe(0.5)
    assert tuple(seen(view, grab, 55, 40)) == (70, 90, 80)
    assert tuple(seen(view, grab, 90, 40)) == (250, 10, 10)
    told = QSignalSpy(view.wipe_changed)
    view.set_tool("wipe")
    drag(view, [(72, 40), (88, 40)])
    assert heard(told)[-1] == pytest.approx(0.75, abs=0.01)
    assert tuple(seen(view, grab, 80, 30)) == (70, 90, 80)
    view.set_wipe(None)
    view.set_result(None, (0, 0, 0, 0))
    assert tuple(seen(view, grab, 90, 40)) == (70, 90, 80)


def test_a_mask_over_a_candidate_hides_nothing_until_somebody_paints(
    view: CanvasView, grab
) -> None:
    document(view).fill_rect("mask", (40, 20, 64, 64), HARD)
    view.set_tool("pan")
    view.set_result(plain(64, 64, (250, 10, 10)), (40, 20, 64, 64))
    assert tuple(seen(view, grab, 60, 50)) == (250, 10, 10)
    view.set_tool("brush")
    QTest.mousePress(view, LEFT, NONE, place(view, 130, 90))
    assert tuple(seen(view, grab, 60, 50)) != (250, 10, 10)
    QTest.mouseRelease(view, LEFT, NONE, place(view, 130, 90))
    assert tuple(seen(view, grab, 60, 50)) == (250, 10, 10)


def test_doubt_is_lighter_where_it_is_higher_and_absent_at_zero(view: CanvasView, grab) -> None:
    view.set_document(Document.of(plain(colour=(20, 20, 20))))
    view.set_tool("pan")
    values = np.zeros((64, 64), np.uint8)
    values[:, 24:40], values[:, 40:] = 128, 255
    view.set_heat(values, (40, 20, 64, 64))
    low, middle, high = (seen(view, grab, x, 50).sum() for x in (50, 72, 98))
    assert low == 60 < middle < high


def test_holding_tab_shows_the_photo_alone(view: CanvasView, grab) -> None:
    pure = seen(view, grab, 60, 50)
    document(view).fill_rect("sketch", (40, 20, 64, 64), HARD)
    document(view).fill_rect("mask", (40, 20, 64, 64), HARD)
    assert (seen(view, grab, 60, 50) != pure).any()
    QTest.keyPress(view, Qt.Key.Key_Tab)
    assert (seen(view, grab, 60, 50) == pure).all()
    view._keyboard._tap.stop()  # as if it had been held for long
    QTest.keyRelease(view, Qt.Key.Key_Tab)
    assert (seen(view, grab, 60, 50) != pure).any()


def test_what_is_transparent_shows_a_checkerboard(view: CanvasView, grab) -> None:
    alpha = np.full((120, 160), 255, np.uint8)
    alpha[:, 80:] = 0
    view.set_document(Document.of(plain(), alpha))
    view.set_tool("pan")
    a, b = place(view, 90, 20), place(view, 150, 100)
    clear = grab(view)[a.y() : b.y(), a.x() : b.x()].reshape(-1, 3)
    assert len(np.unique(clear, axis=0)) == 2
    assert tuple(seen(view, grab, 40, 50)) == (70, 90, 80)


def test_an_accepted_candidate_is_seen(view: CanvasView, grab) -> None:
    view.set_tool("pan")
    document(view).accept((40, 20, 8, 8), plain(8, 8, (1, 2, 3)))
    assert tuple(seen(view, grab, 44, 24)) == (1, 2, 3)
    document(view).history.undo()
    assert tuple(seen(view, grab, 44, 24)) == (70, 90, 80)


# ---- camera -----------------------------------------------------------------------------------


def test_the_wheel_keeps_the_point_under_the_cursor(view: CanvasView) -> None:
    where = QPointF(410, 300)
    before = view.to_picture(where)
    told = QSignalSpy(view.zoom_changed)
    for notches in (1, 1, 3, -2, 1):
        turn(view, where, notches)
        after = view.to_picture(where)
        assert np.abs(np.subtract(after, before)).max() <= 1 / view.zoom
    assert heard(told)[-1] == view.zoom
    turn(view, where, 40)
    assert view.zoom == 64.0
    turn(view, where, -80)
    assert view.zoom == pytest.approx(0.05)


def test_from_two_hundred_per_cent_pixels_are_whole(view: CanvasView) -> None:
    view.zoom_to(1.0)
    scales = []
    while view.zoom < 64:
        turn(view, QPointF(300, 200), 1)
        scales.append(view.zoom)
    assert all(s == int(s) for s in scales if s >= 2)
    assert scales == sorted(set(scales))


@pytest.mark.parametrize("ratio", [1.0, 1.5])
def test_fitting_shows_the_whole_picture(ratio: float) -> None:
    camera = Camera((4000, 3000), (round(700 * ratio), round(520 * ratio)))
    fitted = camera.showing((0, 0, 4000, 3000), 24)
    shown = fitted.shown()
    assert shown.width() == pytest.approx(4000 * fitted.scale, abs=1)
    assert shown.height() == pytest.approx(camera.view[1] - 48, abs=1)


def test_the_middle_button_space_and_the_tool_pan(view: CanvasView) -> None:
    view.zoom_to(8.0)

    def moved(button: Qt.MouseButton = LEFT) -> QPointF:
        before = view.to_widget(0, 0)
        a = QPoint(300, 250)
        QTest.mousePress(view, button, NONE, a)
        QTest.mouseMove(view, a + QPoint(30, -20))
        QTest.mouseRelease(view, button, NONE, a + QPoint(30, -20))
        return view.to_widget(0, 0) - before

    assert moved(MIDDLE) == QPointF(30, -20)
    QTest.keyPress(view, Qt.Key.Key_Space)
    assert moved() == QPointF(30, -20)
    QTest.keyRelease(view, Qt.Key.Key_Space)
    view.set_tool("pan")
    assert moved() == QPointF(30, -20)
    assert not document(view).mask.any()


def test_the_box_can_be_looked_at(view: CanvasView) -> None:
    document(view).set_box((100, 60, 32, 32))
    view.show_box()
    assert view.rect().contains(place(view, 100, 60))
    assert view.zoom == 14.0
    centre = view.to_widget(116, 76)
    assert centre.x() == pytest.approx(360, abs=1)


# ---- marks ------------------------------------------------------------------------------------


def test_paint_goes_where_the_mouse_went_and_undo_takes_it_back(view: CanvasView) -> None:
    told, began = QSignalSpy(view.edited), QSignalSpy(view.stroke_began)
    drag(view, [(30, 40), (90, 40), (90, 80)])
    mask = document(view).mask
    assert mask[40, 30:90].min() == 255
    assert mask[40:80, 90].min() == 255
    assert not mask[60:, :80].any()
    assert not document(view).sketch.any()
    assert heard(told) == ["mask"]
    assert began.count() == 1
    assert document(view).history.undo()
    assert not document(view).mask.any()


def test_the_right_button_and_the_eraser_erase(view: CanvasView) -> None:
    document(view).invert_mask()
    drag(view, [(30, 40), (60, 40)], RIGHT)
    view.set_tool("eraser")
    drag(view, [(30, 90), (60, 90)])
    mask = document(view).mask
    assert not mask[40, 30:60].any()
    assert not mask[90, 30:60].any()
    assert mask[65].min() == 255


def test_escape_takes_an_unfinished_stroke_back(view: CanvasView) -> None:
    told = QSignalSpy(view.edited)
    QTest.mousePress(view, LEFT, NONE, place(view, 50, 50))
    assert document(view).mask.any()
    QTest.keyClick(view, Qt.Key.Key_Escape)
    QTest.mouseRelease(view, LEFT, NONE, place(view, 50, 50))
    assert not document(view).mask.any()
    assert told.count() == 0


def test_shift_draws_a_straight_line_from_the_last_stroke(view: CanvasView) -> None:
    click(view, 20, 20)
    click(view, 120, 100, SHIFT)
    assert document(view).mask[60, 70] == 255
    view.set_document(Document.of(plain()))
    click(view, 20, 100, SHIFT)
    assert not document(view).mask[60].any()


def test_on_the_sketch_layer_colour_is_laid_over_the_photo(view: CanvasView, grab) -> None:
    view.set_layer("sketch")
    view.set_brush(replace(HARD, colour=(12, 200, 99)))
    drag(view, [(30, 40), (90, 40)])
    assert tuple(document(view).sketch[40, 60]) == (12, 200, 99, 255)
    assert not document(view).mask.any()
    assert tuple(seen(view, grab, 60, 40)) == (12, 200, 99)


def test_a_lasso_is_dragged_or_clicked_and_control_takes_away(view: CanvasView) -> None:
    view.set_tool("lasso")
    drag(view, [(20, 20), (120, 20), (120, 100), (20, 100)])
    assert document(view).mask[60, 70] == 255
    assert document(view).mask[110].max() == 0
    click(view, 50, 40, CONTROL)
    for point in ((90, 40), (90, 80)):
        click(view, *point)
    QTest.mouseDClick(view, LEFT, NONE, place(view, 90, 80))
    assert document(view).mask[50, 85] == 0
    assert document(view).mask[75, 55] == 255
    for point in ((5, 5), (15, 5), (15, 15)):
        click(view, *point)
    QTest.keyClick(view, Qt.Key.Key_Escape)
    QTest.keyClick(view, Qt.Key.Key_Return)
    assert document(view).mask[7, 13] == 0


def test_a_rectangle_is_filled_and_shift_makes_it_square(view: CanvasView) -> None:
    view.set_tool("rect")
    drag(view, [(20, 30), (60, 50)])
    assert document(view).bounds("mask") == (20, 30, 40, 20)
    document(view).clear("mask")
    drag(view, [(20, 30), (60, 50)], mods=SHIFT)
    assert document(view).bounds("mask") == (20, 30, 40, 40)
    drag(view, [(-10, 0), (400, 400)], mods=CONTROL)
    assert document(view).bounds("mask") is None


def test_fill_and_eyedropper_take_the_pixel_under_the_pointer(view: CanvasView) -> None:
    pixels = plain()
    pixels[:, 80:] = (200, 30, 60)
    view.set_document(Document.of(pixels))
    view.set_tool("fill")
    click(view, 120, 60)
    assert document(view).bounds("mask") == (80, 0, 80, 120)
    view.set_tool("pick")
    told = QSignalSpy(view.brush_changed)
    click(view, 120, 60)
    assert view.brush.colour == (200, 30, 60)
    assert told.count() == 1
    click(view, -5, 60)
    assert view.brush.colour == (200, 30, 60)


# ---- the box ----------------------------------------------------------------------------------


def test_the_box_moves_resizes_and_is_drawn_anew(view: CanvasView) -> None:
    view.set_tool("box")
    document(view).set_box((40, 30, 40, 40))
    drag(view, [(60, 50), (80, 60)])
    assert document(view).box == (60, 40, 40, 40)
    drag(view, [(100, 80), (90, 70)])
    assert document(view).box == (60, 40, 30, 30)
    drag(view, [(90, 55), (110, 55)], mods=SHIFT)
    assert document(view).box == (60, 40, 50, 30)
    drag(view, [(10, 10), (30, 25)])
    assert document(view).box == (10, 10, 20, 20)
    assert document(view).history.undo()
    assert document(view).box == (60, 40, 50, 30)


def test_a_click_leaves_the_box_alone(view: CanvasView) -> None:
    view.set_tool("box")
    document(view).set_box((40, 30, 40, 40))
    click(view, 10, 10)
    assert document(view).box == (40, 30, 40, 40)


def test_boxes_snap_to_the_edges_and_stay_inside() -> None:
    size = (160, 120)
    assert moved_box((40, 30, 40, 40), -38, 5, size, 4) == (0, 35, 40, 40)
    assert moved_box((40, 30, 40, 40), 77, 47, size, 4) == (120, 80, 40, 40)
    assert moved_box((40, 30, 40, 40), 500, -500, size, 4) == (120, 0, 40, 40)


@pytest.mark.parametrize("handle", [(0, 0), (2, 0), (0, 2), (2, 2), (1, 0), (0, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("square", [True, False])
def test_any_grip_leaves_a_box_inside_the_picture(handle: tuple[int, int], square: bool) -> None:
    rng = np.random.default_rng(1)
    for grip in rng.uniform(-300, 400, (50, 2)):
        x, y, w, h = resized_box((40, 30, 40, 40), handle, tuple(grip), (160, 120), 4, square)
        assert x >= 0 <= y
        assert x + w <= 160
        assert y + h <= 120
        assert min(w, h) >= 8
        assert w == h or not square


# ---- pen --------------------------------------------------------------------------------------


def pen(kind: QEvent.Type, view: CanvasView, at: tuple[float, float], pressure: float, **what: Any):
    """Send what a pen sends; returns whether it was accepted."""
    nib = QPointingDevice.PointerType.Pen
    capability = QInputDevice.Capability
    feels = what.get("feels", True)
    device = QPointingDevice(
        "pen",
        7,
        QInputDevice.DeviceType.Stylus,
        what.get("end", nib),
        capability.Position | capability.Pressure if feels else capability.Position,
        1,
        2,
    )
    where, no = view.to_widget(*at), Qt.MouseButton.NoButton
    down = LEFT if kind != QEvent.Type.TabletRelease else no
    event = QTabletEvent(
        kind,
        device,
        where,
        view.mapToGlobal(where),
        pressure,
        0,
        0,
        0,
        0,
        0,
        NONE,
        LEFT if kind != QEvent.Type.TabletMove else no,
        what.get("buttons", down),
    )
    event.ignore()
    QApplication.sendEvent(view, event)
    return event.isAccepted()


PRESS, MOVE, RELEASE = (
    QEvent.Type.TabletPress,
    QEvent.Type.TabletMove,
    QEvent.Type.TabletRelease,
)


def test_pressure_narrows_the_brush_and_mice_are_not_heard_meanwhile(view: CanvasView) -> None:
    view.set_brush(replace(HARD, radius=20))
    assert pen(PRESS, view, (40, 60), 0.25)
    QTest.mousePress(view, LEFT, NONE, place(view, 10, 10))
    QTest.mouseMove(view, place(view, 100, 10))
    QTest.mouseRelease(view, LEFT, NONE, place(view, 100, 10))
    assert pen(MOVE, view, (80, 60), 1.0)
    assert pen(MOVE, view, (120, 60), 0.0)
    assert pen(RELEASE, view, (120, 60), 0.0)
    mask = document(view).mask
    assert not mask[:20].any()
    assert 8 <= (mask[:, 40] > 128).sum() <= 30
    assert (mask[:, 80] > 128).sum() >= 38
    assert not mask[:, 110:].any()
    assert document(view).history.undo()
    assert not document(view).mask.any()


@pytest.mark.parametrize("what", [{"pressure": 0.0}, {"pressure": 0.5, "feels": False}])
def test_pens_that_feel_nothing_paint_in_full(view: CanvasView, what: dict[str, Any]) -> None:
    pressure = what.pop("pressure")
    view.set_brush(replace(HARD, radius=20))
    pen(PRESS, view, (60, 60), pressure, **what)
    pen(MOVE, view, (80, 60), pressure, **what)
    pen(RELEASE, view, (80, 60), pressure, **what)
    assert (document(view).mask[:, 70] > 128).sum() >= 38


def test_the_other_end_of_the_pen_erases(view: CanvasView) -> None:
    document(view).invert_mask()
    end = QPointingDevice.PointerType.Eraser
    for kind, x in ((PRESS, 40), (MOVE, 80), (RELEASE, 80)):
        pen(kind, view, (x, 60), 1.0, end=end)
    assert not document(view).mask[60, 40:80].any()


# ---- keys -------------------------------------------------------------------------------------


def test_letters_choose_tools_and_digits_the_strength(view: CanvasView) -> None:
    told = QSignalSpy(view.tool_changed)
    for key in "ELMGICHWB":
        QTest.keyClick(view, key.lower())
    names = ["eraser", "lasso", "rect", "fill", "pick", "box", "pan", "wipe", "brush"]
    assert heard(told) == names
    QTest.keyClick(view, "3")
    assert view.brush.strength == pytest.approx(0.3)
    QTest.keyClick(view, "0")
    assert view.brush.strength == 1.0
    QTest.keyClick(view, "]")
    assert view.brush.radius > 6
    QTest.keyClick(view, "[")
    QTest.keyClick(view, "[")
    assert view.brush.radius < 6
    QTest.keyClick(view, "{", SHIFT)
    assert view.brush.hardness == pytest.approx(0.9)
    layers = QSignalSpy(view.layer_changed)
    QTest.keyClick(view, "x")
    QTest.keyClick(view, "x")
    assert heard(layers) == ["sketch", "mask"]


def test_keys_are_taken_only_with_the_focus(shown: Callable[..., Any]) -> None:
    window, canvas, field = QWidget(), CanvasView(), QLineEdit()
    row = QHBoxLayout(window)
    row.addWidget(canvas)
    row.addWidget(field)
    canvas.set_document(Document.of(plain()))
    shown(window, 600, 300)
    field.setFocus()
    QTest.keyClicks(field, "elm5")
    assert field.text() == "elm5"
    assert canvas.tool == "brush"
    canvas.setFocus()
    QTest.keyClick(canvas, Qt.Key.Key_Tab)
    assert field.hasFocus()


def test_keys_with_control_are_left_to_the_window(view: CanvasView) -> None:
    def taken(key: Qt.Key, mods: Qt.KeyboardModifier = CONTROL) -> bool:
        event = QKeyEvent(QEvent.Type.ShortcutOverride, key, mods)
        event.ignore()
        QApplication.sendEvent(view, event)
        return event.isAccepted()

    assert not taken(Qt.Key.Key_Return)
    assert not taken(Qt.Key.Key_Z)
    assert not taken(Qt.Key.Key_B)
    assert not taken(Qt.Key.Key_Escape, NONE)
    assert taken(Qt.Key.Key_I)
    assert taken(Qt.Key.Key_Delete, NONE)


def test_keys_zoom_fit_and_invert(view: CanvasView) -> None:
    fit = view.zoom
    QTest.keyClick(view, Qt.Key.Key_0, CONTROL | ALT)
    assert view.zoom == 1.0
    QTest.keyClick(view, "+")
    assert view.zoom > 1.0
    QTest.keyClick(view, Qt.Key.Key_0, CONTROL)
    assert view.zoom == fit
    assert view.fits
    QTest.keyClick(view, Qt.Key.Key_I, CONTROL)
    assert document(view).mask.min() == 255


def test_alt_drag_changes_size_and_hardness(view: CanvasView) -> None:
    drag(view, [(60, 60), (70, 70)], mods=ALT)
    assert view.brush.radius == pytest.approx(16, abs=0.3)
    assert view.brush.hardness == pytest.approx(0.8, abs=0.02)
    assert not document(view).mask.any()


def test_candidates_are_flipped_accepted_and_discarded(view: CanvasView) -> None:
    flips = QSignalSpy(view.flip_requested)
    accepts, discards = QSignalSpy(view.accept_requested), QSignalSpy(view.discard_requested)
    QTest.keyClick(view, Qt.Key.Key_Return)
    view.set_result(plain(8, 8), (0, 0, 64, 64))
    for key in (Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_Return, Qt.Key.Key_Delete):
        QTest.keyClick(view, key)
    assert heard(flips) == [-1, 1]
    assert (accepts.count(), discards.count()) == (1, 1)


def test_the_keyboard_alone_can_paint(view: CanvasView) -> None:
    for key in (Qt.Key.Key_Right, Qt.Key.Key_Right, Qt.Key.Key_Down):
        QTest.keyClick(view, key, SHIFT)
    QTest.keyClick(view, Qt.Key.Key_Return)
    x, y, w, h = document(view).bounds("mask") or (0, 0, 0, 0)
    assert (x + w / 2, y + h / 2) == pytest.approx((81.5, 61.5), abs=0.6)
    view.set_tool("box")
    document(view).set_box((64, 32, 32, 32))
    QTest.keyClick(view, Qt.Key.Key_Left, SHIFT)
    assert document(view).box == (62, 32, 32, 32)


# ---- what comes in, and what is said ----------------------------------------------------------


def test_files_and_pictures_are_dropped_and_pasted(view: CanvasView, tmp_path: Path) -> None:
    files, pictures = QSignalSpy(view.dropped), QSignalSpy(view.pasted)
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(tmp_path / "it's 100% ü.png"))])
    event = QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, LEFT, NONE)
    view.dropEvent(event)
    assert heard(files) == [[tmp_path / "it's 100% ü.png"]]
    pixels = np.dstack([photo(5, 7), np.full((5, 7), 130, np.uint8)])
    image = QImage(pixels.tobytes(), 7, 5, 28, QImage.Format.Format_RGBA8888)
    QApplication.clipboard().setImage(image)
    QTest.keyClick(view, Qt.Key.Key_V, CONTROL)
    np.testing.assert_array_equal(heard(pictures)[0], pixels)
    QApplication.clipboard().setText("words")
    view.paste()
    assert (files.count(), pictures.count()) == (1, 1)


def test_the_empty_canvas_says_what_to_do(view: CanvasView, grab) -> None:
    view.set_document(None)
    assert len(np.unique(grab(view)[..., 0])) > 20
    asked = QSignalSpy(view.open_requested)
    QTest.mouseClick(view, LEFT, NONE, QPoint(300, 200))
    QTest.keyClick(view, Qt.Key.Key_Return)
    QTest.keyClick(view, "e")
    turn(view, QPointF(100, 100), 1)
    assert asked.count() == 2
    assert view.tool == "brush"
    view._speech.timeout.emit()
    assert view.accessibleName() == "Open, paste or drop a picture"


def test_screen_readers_hear_tool_layer_and_zoom(view: CanvasView) -> None:
    view.set_tool("eraser")
    view.set_layer("sketch")
    view.set_busy("working")
    view._speech.timeout.emit()
    assert view.accessibleName() == "Canvas: untitled, 160 by 120 pixels, working"
    heard = "Eraser on the sketch, zoom 400 %, brush 12 pixels, strength 100 %"
    assert view.accessibleDescription() == heard


def test_the_pixel_under_the_pointer_is_told(view: CanvasView) -> None:
    told = QSignalSpy(view.pointed)
    QTest.mouseMove(view, place(view, 30.5, 40.5))
    QTest.mouseMove(view, QPoint(2, 2))
    assert heard(told) == [(30, 40, (70, 90, 80)), None]


def test_a_document_that_is_gone_is_not_listened_to(view: CanvasView) -> None:
    old = document(view)
    view.set_document(Document.of(plain(40, 50)))
    old.fill_rect("mask", (0, 0, 100, 100), HARD)
    view.repaint()
    assert not document(view).mask.any()


def test_wrong_arrays_tools_and_layers_are_refused(view: CanvasView) -> None:
    with pytest.raises(ValueError, match="uint8"):
        view.set_result(np.zeros((4, 4, 3)), (0, 0, 4, 4))
    with pytest.raises(KeyError):
        view.set_tool("hammer")
    with pytest.raises(ValueError, match="layer"):
        view.set_layer("photo")


def test_painting_takes_no_references_of_none(view: CanvasView) -> None:
    document(view).fill_rect("mask", (40, 20, 64, 64), HARD)
    view.set_result(plain(8, 8), (0, 0, 64, 64))
    view.repaint()
    gc.collect()
    before = sys.getrefcount(None)
    for _ in range(60):
        view._scene.spoil()
        view.repaint()
    gc.collect()
    assert sys.getrefcount(None) > before - 20
