"""The timeline: keeps frames by noise level, scrubs between them, follows the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QSignalSpy, QTest

from studio.ui.timeline import Timeline

LEFT = Qt.MouseButton.LeftButton
NONE = Qt.KeyboardModifier.NoModifier
TIMES = [-8.0, -6.0, -4.0, -2.0, 0.0, 2.0]


def frame(value: int = 128, channels: int = 3) -> np.ndarray:
    return np.full((32, 32, channels), value, np.uint8)


@pytest.fixture
def timeline(shown: Callable[..., Any]) -> Timeline:
    return shown(Timeline(), 700, 96)


@pytest.fixture
def running(timeline: Timeline) -> Timeline:
    """Six frames are kept; the run stands at the last of them."""
    timeline.begin(-8.0, 8.0)
    for i, when in enumerate(TIMES):
        timeline.add(when, frame(40 * i))
        timeline.set_live(when)
    return timeline


def told(spy: QSignalSpy) -> list[float]:
    return [spy.at(i)[0] for i in range(spy.count())]


def spot(timeline: Timeline, log_snr: float) -> QPoint:
    return QPoint(round(timeline.x_of(log_snr)), 30)


def test_noise_is_left_and_clean_is_right(timeline: Timeline) -> None:
    timeline.begin(-8.0, 8.0)
    xs = [timeline.x_of(v) for v in (-8.0, 0.0, 8.0)]
    assert xs == sorted(xs)
    for value in (-8.0, -3.3, 7.0):
        assert timeline.log_snr_at(timeline.x_of(value)) == pytest.approx(value)
    assert timeline.log_snr_at(-50) == -8.0


def test_left_and_right_go_from_frame_to_frame(running: Timeline) -> None:
    spy = QSignalSpy(running.scrubbed)
    QTest.keyClick(running, Qt.Key.Key_Left)
    QTest.keyClick(running, Qt.Key.Key_Comma)
    QTest.keyClick(running, Qt.Key.Key_Right)
    QTest.keyClick(running, Qt.Key.Key_Period)
    assert told(spy) == [0.0, -2.0, 0.0, 2.0]
    assert running.playhead == 2.0


def test_right_of_the_last_frame_lies_the_run(running: Timeline) -> None:
    live = QSignalSpy(running.live_requested)
    running.set_playhead(2.0)
    QTest.keyClick(running, Qt.Key.Key_Right)
    assert live.count() == 1
    assert running.playhead is None
    QTest.keyClick(running, Qt.Key.Key_Right)
    assert live.count() == 1


def test_left_of_a_run_that_went_on_is_the_last_frame(running: Timeline) -> None:
    running.set_live(2.5)
    spy = QSignalSpy(running.scrubbed)
    QTest.keyClick(running, Qt.Key.Key_Left)
    assert told(spy) == [2.0]


def test_home_end_and_pages(running: Timeline) -> None:
    spy, live = QSignalSpy(running.scrubbed), QSignalSpy(running.live_requested)
    QTest.keyClick(running, Qt.Key.Key_Home)
    QTest.keyClick(running, Qt.Key.Key_PageDown)
    QTest.keyClick(running, Qt.Key.Key_PageUp)
    assert told(spy) == [-8.0, -6.0, -8.0]
    QTest.keyClick(running, Qt.Key.Key_End)
    assert live.count() == 1
    assert running.playhead is None


def test_dragging_scrubs_over_kept_frames_and_never_ahead_of_the_run(running: Timeline) -> None:
    spy = QSignalSpy(running.scrubbed)
    QTest.mousePress(running, LEFT, NONE, spot(running, -6.1))
    QTest.mouseMove(running, spot(running, -3.8))
    QTest.mouseMove(running, spot(running, -3.9))
    QTest.mouseMove(running, spot(running, 7.0))
    QTest.mouseRelease(running, LEFT, NONE, spot(running, 7.0))
    assert told(spy) == [-6.0, -4.0, 2.0]
    QTest.mouseMove(running, spot(running, -8.0))
    assert running.playhead == 2.0


def test_double_click_and_the_live_button_go_back_to_the_run(running: Timeline) -> None:
    live = QSignalSpy(running.live_requested)
    running.set_playhead(-4.0)
    QTest.mouseDClick(running, LEFT, NONE, spot(running, -4.0))
    assert running.playhead is None
    running.set_playhead(-4.0)
    QTest.mouseClick(running, LEFT, NONE, running.live_area().center().toPoint())
    assert running.playhead is None
    assert live.count() == 2


def test_scrubbing_does_not_stop_the_live_head(running: Timeline, grab) -> None:
    running.set_playhead(-4.0)
    before = grab(running)
    running.add(4.0, frame(200))
    running.set_live(4.0)
    assert running.playhead == -4.0
    assert (grab(running) != before).any()


def test_setting_the_playhead_says_nothing(running: Timeline) -> None:
    spy, live = QSignalSpy(running.scrubbed), QSignalSpy(running.live_requested)
    running.set_playhead(-2.0)
    running.set_playhead(None)
    assert spy.count() == live.count() == 0


def test_frames_come_in_any_order_and_within_the_axis(timeline: Timeline) -> None:
    timeline.begin(-8.0, 8.0)
    for when in (3.0, -1.0, float("-inf"), 3.0, float("nan")):
        timeline.add(when, frame(channels=1))
    assert timeline.times == [-8.0, -1.0, 3.0]


def test_long_runs_keep_a_bounded_number_of_frames(timeline: Timeline) -> None:
    timeline.begin(0.0, 1.0)
    for i in range(3000):
        timeline.add(i / 3000, frame()[:4, :4])
    assert 300 < len(timeline.times) <= 1024
    assert timeline.times[-1] > 0.99


def test_a_new_run_starts_afresh(running: Timeline) -> None:
    running.set_playhead(-4.0)
    running.begin(-5.0, 5.0)
    assert running.times == []
    assert running.playhead is None
    with pytest.raises(ValueError, match="noise to clean"):
        running.begin(1.0, 1.0)


def test_without_frames_nothing_is_asked_for(timeline: Timeline) -> None:
    spy, live = QSignalSpy(timeline.scrubbed), QSignalSpy(timeline.live_requested)
    for ready in (False, True):
        if ready:
            timeline.begin(-8.0, 8.0)
        QTest.mouseClick(timeline, LEFT, NONE, QPoint(100, 30))
        for key in (Qt.Key.Key_Left, Qt.Key.Key_Home, Qt.Key.Key_End):
            QTest.keyClick(timeline, key)
    assert spy.count() == live.count() == 0


def test_the_filmstrip_shows_the_frames(running: Timeline, grab) -> None:
    running.set_playhead(2.0)
    seen = grab(running)[32]
    early, late = (seen[round(running.x_of(v))] for v in (-7.6, 0.3))
    assert list(early) == [0, 0, 0]
    assert list(late) == [160, 160, 160]


def test_all_states_paint_at_any_width(timeline: Timeline, grab) -> None:
    for width in (300, 1600):
        timeline.resize(width, 96)
        timeline.clear()
        assert len(np.unique(grab(timeline).reshape(-1, 3), axis=0)) > 10
        timeline.begin(-12.0, 9.0)
        for shape in ((8, 40, 3), (40, 8, 1)):
            timeline.add(0.0, np.zeros(shape, np.uint8))
            grab(timeline)


def test_screen_readers_hear_the_moment(running: Timeline) -> None:
    assert running.accessibleDescription() == "Following the run"
    running.set_playhead(-2.0)
    assert running.accessibleDescription() == "log-SNR −2.0 · σ 2.72"
    assert running.objectName() == "timeline"
    assert running.toolTip()
