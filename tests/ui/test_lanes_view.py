"""Lanes of pictures: one camera, one frame for two of them, lenses that show what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtTest import QSignalSpy, QTest

from studio.engine.density import Density
from studio.engine.trajectory import Frame
from studio.ui.compare import lenses
from studio.ui.compare.densities import Densities
from studio.ui.compare.lanes_view import MODES, LanesView

LEFT = Qt.MouseButton.LeftButton
SHIFT = Qt.KeyboardModifier.ShiftModifier


def stack(value: int, count: int = 4, channels: int = 3, size: int = 8) -> np.ndarray:
    return np.full((count, size, size, channels), value, np.uint8)


def frame(value: int, count: int = 4, log_snr: float = 0.0) -> Frame:
    """A moment whose noisy state is as bright as `value`, its estimate 20 brighter."""
    return Frame(
        log_snr,
        3,
        6,
        stack(value, count),
        stack(value + 20, count),
        stack(85, count, 1),
        stack(0, count, 1),
    )


@pytest.fixture
def lanes(shown: Callable[..., Any]) -> LanesView:
    """Two lanes, the first dark and the second bright."""
    view = shown(LanesView(), 800, 400)
    view.set_lanes(["one", "two"])
    for lane, value in enumerate((40, 200)):
        view.show_frame(lane, frame(value))
    QTest.qWait(1)
    return view


def two_more(lanes: LanesView) -> None:
    lanes.set_lanes(["a", "b", "c", "d"])
    for lane in range(4):
        lanes.show_frame(lane, frame(50 * lane))
    QTest.qWait(1)


def picture(lanes: LanesView) -> np.ndarray:
    return lanes.merged.picture(0)


# -- one camera -----------------------------------------------------------------------------------


def test_zoom_pan_and_solo_of_one_lane_are_those_of_all(lanes: LanesView) -> None:
    two_more(lanes)
    first, *others = [lanes.lane_view(i) for i in range(4)]
    others[1].zoom_by(8.0, QPointF(20, 20))
    assert {v.zoom for v in others} == {first.zoom}
    assert first.cell_rect(2) == others[0].cell_rect(2)
    start = QPoint(100, 60)
    QTest.mousePress(first, LEFT, pos=start)
    for step in (20, 40, 60):
        QTest.mouseMove(first, start + QPoint(-step, -step // 2))
    QTest.mouseRelease(first, LEFT, pos=start + QPoint(-60, -30))
    assert all(v.cell_rect(1) == first.cell_rect(1) for v in others)
    others[2].solo = 3
    assert first.solo == 3
    first.zoom_to_fit()
    assert all(v.fits and v.solo == 3 for v in others)


def test_the_camera_goes_along_from_side_by_side_to_one_frame(lanes: LanesView) -> None:
    lanes.lane_view(1).solo = 2
    lanes.set_mode("wipe")
    assert lanes.merged.solo == 2
    lanes.leave_solo()
    lanes.set_mode("side")
    assert lanes.lane_view(0).solo is None


def test_a_lane_that_shows_pictures_later_looks_where_the_others_look(lanes: LanesView) -> None:
    lanes.set_lanes(["one", "two"])
    lanes.show_frame(0, frame(10))
    QTest.qWait(1)
    lanes.lane_view(0).solo = 1
    lanes.show_frame(1, frame(10))
    QTest.qWait(1)
    assert lanes.lane_view(1).solo == 1


# -- two lanes in one frame -----------------------------------------------------------------------


def test_a_wipe_shows_one_lane_left_and_the_other_right_of_its_line(lanes: LanesView) -> None:
    lanes.set_mode("wipe")
    lanes.set_share(0.25)
    assert (picture(lanes)[:, :2] == 60).all()
    assert (picture(lanes)[:, 2:] == 220).all()


def test_the_line_of_a_wipe_is_dragged_and_moved_by_keys(lanes: LanesView) -> None:
    lanes.set_mode("wipe")
    moved = QSignalSpy(lanes.share_changed)
    box = lanes.merged.cell_rect(1)
    there = box.center().toPoint()
    QTest.mousePress(lanes.merged, LEFT, pos=there)
    QTest.mouseMove(lanes.merged, there + QPoint(round(box.width() / 4), 0))
    QTest.mouseRelease(lanes.merged, LEFT, pos=there)
    assert moved.count() >= 1
    assert lanes.merged.solo is None  # taking the line is no click on the picture
    before = lanes.share
    QTest.keyClick(lanes.merged, Qt.Key.Key_Left, SHIFT)
    assert lanes.share == pytest.approx(before - 0.05)


def test_blinking_shows_the_second_lane_while_space_is_held(lanes: LanesView) -> None:
    lanes.set_mode("blink")
    assert (picture(lanes) == 60).all()
    QTest.keyPress(lanes.merged, Qt.Key.Key_Space)
    assert (picture(lanes) == 220).all()
    QTest.keyRelease(lanes.merged, Qt.Key.Key_Space)
    assert (picture(lanes) == 60).all()


def test_any_two_lanes_can_be_compared(lanes: LanesView) -> None:
    two_more(lanes)
    lanes.set_mode("wipe")
    lanes.set_pair((1, 3))
    lanes.set_share(0.5)
    assert (picture(lanes)[:, 0] == 70).all()
    assert (picture(lanes)[:, -1] == 170).all()


def test_every_mode_shows_a_lane_alone_until_the_other_has_pictures(lanes: LanesView) -> None:
    for mode in MODES[1:]:
        lanes.set_lanes(["one", "two"])
        lanes.set_mode(mode)
        lanes.show_frame(1, frame(90))
        QTest.qWait(1)
        assert (picture(lanes) == 110).all()


def test_a_race_with_fewer_lanes_forgets_a_pair_it_does_not_have(lanes: LanesView) -> None:
    two_more(lanes)
    lanes.set_pair((2, 3))
    lanes.set_lanes(["one", "two"])
    assert lanes.pair == (0, 1)


# -- the difference -------------------------------------------------------------------------------


def test_equal_pictures_differ_by_white() -> None:
    assert (lenses.difference(stack(90), stack(90), 32) == 255).all()


def test_blue_where_the_first_is_higher_red_where_the_second_is() -> None:
    blue = lenses.difference(stack(90), stack(60), 4)[0, 0, 0].astype(int)
    red = lenses.difference(stack(60), stack(90), 4)[0, 0, 0].astype(int)
    assert blue[2] > blue[0]
    assert red[0] > red[2]


def test_gain_enlarges_a_difference_and_holds_it_at_the_end() -> None:
    def white(gain: int) -> int:
        return int(lenses.difference(stack(100), stack(104), gain)[0, 0, 0, 2])

    shades = [white(gain) for gain in lenses.GAINS]
    assert shades == sorted(shades, reverse=True)
    assert white(1) < 255
    end = lenses.difference(stack(0), stack(255), 1)
    assert (lenses.difference(stack(0), stack(255), 32) == end).all()


def test_no_channel_hides_the_difference_of_another() -> None:
    one, other = stack(100), stack(100)
    other[..., 0] += 30
    other[..., 2] -= 30
    assert (lenses.signed(one, other) != 0).all()
    other[..., 1] += 60
    assert (lenses.signed(one, other) == 60).all()


def test_both_ends_of_the_difference_are_about_as_dark() -> None:
    def light(colour: np.ndarray) -> float:
        """Luminance of an sRGB colour, IEC 61966-2-1."""
        c = colour / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    blue = light(lenses.difference(stack(255), stack(0), 1)[0, 0, 0])
    red = light(lenses.difference(stack(0), stack(255), 1)[0, 0, 0])
    assert abs(blue - red) < 0.06


# -- lenses ---------------------------------------------------------------------------------------


def test_the_loupe_shows_the_estimate_in_the_noisy_state(
    lanes: LanesView, grab: Callable[..., np.ndarray]
) -> None:
    lanes.set_view("x")
    lanes.set_loupe(True)
    view = lanes.lane_view(0)
    middle = view.cell_rect(0).center()
    lanes.radius = 20.0
    QTest.mouseMove(view, middle.toPoint())
    for lane, value in ((0, 40), (1, 200)):
        seen = grab(lanes.lane_view(lane))
        at = round(middle.y()), round(middle.x())
        assert (seen[at] == value + 20).all()
        assert (seen[at[0], at[1] + 40] == value).all()


def test_the_arrows_are_the_score_of_a_known_state() -> None:
    # At log-SNR 0, a = s: s · score = (estimate - middle) - √2 (state - middle), here all one number.
    at = frame(100)
    views = at.denoised, at.x, at.score
    field = lenses.pulls(at, *views)
    assert (field > 0).all()  # a brighter estimate pulls upward
    # Its length is what the view of the score says: 85 of 255 is a third of 3.
    assert np.sqrt((field**2).mean(-1)) == pytest.approx(1.0, abs=1e-5)
    pull = lenses.patches(field[0], 2)
    assert pull[..., 1] == pytest.approx(np.sqrt(4 * 4 * 3))  # n equal values of one
    assert pull[..., 0] == pytest.approx(0.0, abs=1e-5)


def test_arrows_of_pure_noise_are_about_one() -> None:
    noise = np.random.default_rng(1).normal(size=(64, 64, 3)).astype(np.float32)
    pull = lenses.patches(noise, 8)
    assert pull.std(axis=(0, 1)) == pytest.approx([1.0, 1.0], abs=0.3)


def test_every_lens_and_mode_can_be_painted_with_any_frame(lanes: LanesView) -> None:
    for channels in (1, 3):
        seen = [stack(9, 3, channels), stack(20, 3, channels), stack(5, 3, 1), stack(1, 3, 1)]
        for mode in MODES:
            lanes.set_lanes(["one", "two"])
            lanes.set_mode(mode)
            lanes.set_loupe(True)
            lanes.set_arrows(True)
            for name in ("x", "denoised", "score", "change"):
                lanes.set_view(name)
                for lane in range(2):
                    lanes.show_frame(lane, Frame(2.0, 1, 1, *seen))
                lanes.grab()


# -- headers --------------------------------------------------------------------------------------


def test_a_lane_under_way_can_be_stopped_and_finished_by_itself(lanes: LanesView) -> None:
    stopped, finished = QSignalSpy(lanes.stop_requested), QSignalSpy(lanes.finish_requested)
    header = lanes.header(1)
    assert header.stop.isHidden()
    lanes.set_state(1, "running")
    header.stop.click()
    header.finish.menu().actions()[0].trigger()
    assert stopped.at(0) == [1]
    assert finished.at(0)[0] == 1
    lanes.set_state(1, "finished")
    assert header.stop.isHidden()
    assert "finished" in header.told.text()


def test_a_lane_that_failed_says_why_on_its_own_line(lanes: LanesView) -> None:
    lanes.set_state(0, "failed", "The solver diverged.")
    assert "The solver diverged." in lanes.header(0).title.text()
    assert "The solver diverged." in lanes.header(0).accessibleName()
    assert "diverged" not in lanes.header(1).title.text()


def test_frames_faster_than_the_screen_are_drawn_once(lanes: LanesView) -> None:
    drawn = []
    draw = lanes.lane_view(0).set_pictures
    lanes.lane_view(0).set_pictures = lambda p: drawn.append(draw(p))  # type: ignore[method-assign]
    for value in range(50):
        lanes.show_frame(0, frame(value))
    QTest.qWait(5)
    assert len(drawn) == 1
    assert (lanes.lane_view(0).picture(0) == 69).all()


# -- densities ------------------------------------------------------------------------------------


def grown(lane: int, log_snr: float, nats: float) -> Density:
    """One half of each picture has grown twice as much as the other."""
    told = np.full((4, 8, 8), nats, np.float16)
    told[:, :, 4:] *= 2
    return Density(log_snr, told, lane=lane)


def test_densities_are_grey_of_one_scale_at_each_moment(
    lanes: LanesView, grab: Callable[..., np.ndarray]
) -> None:
    maps = Densities()
    for event in (grown(0, -4, 2), grown(0, 4, 6), grown(1, 4, 3)):
        maps.add(event)
    assert maps.at(2, 0.0) is None
    assert maps.scale(-9.0) == (0, 0)
    assert maps.scale(4.0) == (3, 12)
    # Between two moments it changes evenly; the other lane is there from the beginning, unchanged.
    assert maps.scale(0.0) == (0, 8)
    first, second = (maps.at(lane, 4.0)[0, 0, :, 0] for lane in range(2))
    assert (first[0], first[-1], second[0], second[-1]) == (85, 255, 0, 85)
    lanes.set_view("density")
    lanes.show_densities(maps, {})
    assert lanes.lane_view(0).picture(0).max() == 255
    plain = grab(lanes)
    lanes.set_mode("difference")
    assert (grab(lanes) != plain).any()


def test_a_lane_without_a_density_says_why(lanes: LanesView) -> None:
    maps = Densities()
    maps.add(grown(1, 4, 3))
    lanes.set_view("density")
    lanes.show_densities(maps, {0: "It draws noise."})
    QTest.qWait(1)
    assert lanes.lane_view(0).count == 0
    assert lanes.lane_view(0)._empty[1] == "It draws noise."
    assert lanes.lane_view(1).count == 4
    assert lanes.seen(0) is None
    lanes.set_mode("wipe")
    assert lanes.merged.count == 4
    lanes.set_mode("side")
    lanes.set_view("denoised")
    assert lanes.lane_view(0).count == 4
