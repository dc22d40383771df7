"""Crops with sub-pixel place and zero padding."""

import numpy as np

from preprocess.faces.crop import crop_matrix, extract

RNG = np.random.default_rng(3)


def test_a_crop_at_native_scale_is_the_frame_itself() -> None:
    frame = RNG.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    crop = extract(frame, np.array([40.0, 30.0, 32.0]), size=32)
    np.testing.assert_array_equal(crop, frame[14:46, 24:56])


def test_what_lies_outside_the_frame_is_zero() -> None:
    frame = np.full((40, 40, 3), 200, np.uint8)
    crop = extract(frame, np.array([0.0, 20.0, 40.0]), size=40)
    assert (crop[:, :20] == 0).all()
    assert (crop[1:-1, 21:] == 200).all()


def test_padding_widens_the_crop_around_the_same_pixels() -> None:
    frame = RNG.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    square = np.array([37.3, 31.8, 25.0])
    wide = extract(frame, square, size=32, pad=8)
    np.testing.assert_array_equal(wide[8:40, 8:40], extract(frame, square, size=32))


def test_large_faces_are_averaged_not_sampled() -> None:
    checkers = (np.indices((600, 600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    crop = extract(np.repeat(checkers[..., None], 3, axis=2), np.array([300.0, 300.0, 560.0]), size=56)
    assert np.abs(crop[2:-2, 2:-2].astype(float) - 127.5).max() <= 2


def test_matrix_maps_the_squares_corners_to_the_crops() -> None:
    matrix = crop_matrix(np.array([50.0, 40.0, 20.0]), size=100, pad=10)
    corners = np.array([[40, 30], [60, 50]]) - 0.5  # edges in pixel centres
    np.testing.assert_allclose(corners @ matrix[:, :2].T + matrix[:, 2], [[9.5, 9.5], [109.5, 109.5]])
