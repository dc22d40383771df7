"""Faces put back into frames: nothing but the lower half changes, and there is no seam."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.lipsync.paste import paste
from preprocess.faces.crop import extract


def scene(height: int = 180, width: int = 240) -> np.ndarray:
    """A smooth picture."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 23 + n) + np.cos(y / 31 - n) for n in range(3)]
    return np.rint(np.stack(waves, axis=-1) * 50 + 127).astype(np.uint8)


def steps(picture: np.ndarray) -> float:
    """The largest step from a pixel to the next."""
    signed = picture.astype(int)
    return float(max(np.abs(np.diff(signed, axis=axis)).max() for axis in (0, 1)))


@given(x=st.floats(-50, 290), y=st.floats(-50, 230), side=st.floats(20, 200), size=st.sampled_from([32, 96]))
def test_all_outside_of_the_lower_half_stays_bit_for_bit(x: float, y: float, side: float, size: int) -> None:
    frame = scene()
    drawn = np.full((size, size, 3), 255, np.uint8)
    pasted = paste(frame, drawn, np.array([x, y, side, side]))
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
    inside = (abs(columns + 0.5 - x) <= side / 2) & (rows + 0.5 >= y) & (rows + 0.5 <= y + side / 2)
    np.testing.assert_array_equal(pasted[~inside], frame[~inside])
    assert pasted.shape == frame.shape


def test_a_face_comes_back_to_where_it_was_cut_out() -> None:
    frame = scene()
    square = np.array([121.3, 88.7, 110.2])
    pasted = paste(frame, extract(frame, square, 96), square[[0, 1, 2, 2]])
    assert np.abs(pasted.astype(int) - frame).max() <= 3


@pytest.mark.parametrize("size", [96, 224])
def test_a_face_of_another_brightness_leaves_no_line(size: int) -> None:
    frame = scene()
    square = np.array([120.0, 90.0, 128.0])
    brighter = np.clip(extract(frame, square, size).astype(int) + 40, 0, 255).astype(np.uint8)
    pasted = paste(frame, brighter, square[[0, 1, 2, 2]])
    assert pasted[120, 120].astype(int) - frame[120, 120] == pytest.approx(np.full(3, 40), abs=3)
    # 40 grey values over a seam of 16 pixels, nowhere steeper than 1.5 times their mean.
    assert steps(pasted) <= steps(frame) + 1.5 * 40 / 16 + 2


def test_a_stretched_face_fills_its_box() -> None:
    frame = np.zeros((60, 100, 3), np.uint8)
    pasted = paste(frame, np.full((32, 32, 3), 200, np.uint8), np.array([50.0, 30.0, 100.0, 60.0]))
    assert pasted[45, 15:85].min() == 200
    assert pasted[:30].max() == 0
