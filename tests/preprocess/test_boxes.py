"""Boxes of tracks: offsets between networks, gaps, and smoothing in time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocess.faces.boxes import smooth_squares, track_boxes
from preprocess.faces.geometry import iou
from preprocess.faces.track import Observation, Track

SQUARE = np.array([[0, 0], [0, 10], [10, 0], [10, 10]], np.float32)


def test_boxes_are_the_detectors_between_its_looks_too() -> None:
    seen = [Observation(points=SQUARE + np.array([x, 0])) for x in range(11)]
    for index in (0, 10):
        seen[index].detected = np.array([index - 2, -4, index + 12, 10], np.float32)
    boxes = track_boxes(Track(0, seen))
    np.testing.assert_allclose(boxes, [[x - 2, -4, x + 12, 10] for x in range(11)], atol=1e-5)


def test_missed_frames_are_interpolated() -> None:
    seen = [Observation(points=SQUARE), Observation(), Observation(), Observation(points=SQUARE + 6)]
    np.testing.assert_allclose(track_boxes(Track(5, seen))[:, 0], [0, 2, 4, 6], atol=1e-5)


def test_smoothing_takes_jitter_and_adds_no_delay() -> None:
    time = np.arange(200)
    path = 100 + 40 * np.sin(time / 40)
    jitter = np.random.default_rng(1).normal(0, 1.5, (200, 4))
    boxes = np.stack([path - 30, path - 30, path + 30, path + 30], axis=1)

    smooth = smooth_squares(boxes + jitter, fps=30)
    rough = smooth_squares(boxes + jitter, fps=1)

    acceleration = [np.abs(np.diff(squares, 2, axis=0)).mean() for squares in (smooth, rough)]
    assert acceleration[0] < acceleration[1] / 10
    lags = [np.abs(smooth[20 + lag : 180 + lag, 0] - path[20:180]).mean() for lag in range(-5, 6)]
    assert int(np.argmin(lags)) == 5


@given(st.integers(1, 40), st.floats(1, 120))
def test_any_length_and_rate_is_smoothed(frames: int, fps: float) -> None:
    boxes = np.tile([10.0, 20.0, 40.0, 60.0], (frames, 1))
    np.testing.assert_allclose(smooth_squares(boxes, fps), np.tile([25.0, 40.0, 40.0], (frames, 1)), atol=1e-6)


def test_overlap_of_boxes() -> None:
    a = np.array([0.0, 0, 10, 10])
    assert iou(a, a) == 1
    assert iou(a, a + 20) == 0
    assert abs(iou(a, a + np.array([5, 0, 5, 0])) - 1 / 3) < 1e-9
    assert iou(np.zeros(4), np.zeros(4)) == 0
