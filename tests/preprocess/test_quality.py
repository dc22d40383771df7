"""Measures of a face: pose, sharpness, likeness, and the small picture they are taken from."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import PreprocessConfig
from preprocess.decode.frame import Frame
from preprocess.decode.video import read_frames
from preprocess.faces.geometry import box_of
from preprocess.faces.mesh import POINTS, MeshFit, roi_of_box
from preprocess.faces.portrait import FACE, SIDE, face_of, features, likeness, portrait
from preprocess.faces.quality import CHIN, FOREHEAD, LEFT_SIDE, RIGHT_SIDE, head_pose, sharpness
from preprocess.models import Networks

ROOM = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def _turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """A mesh that looks at the viewer, turned by angles in degrees."""
    points = np.random.default_rng(1).normal(0, 40, (POINTS, 3))
    points[[RIGHT_SIDE, LEFT_SIDE]] = (-50, 0, 0), (50, 0, 0)
    points[[FOREHEAD, CHIN]] = (0, -60, 0), (0, 60, 0)
    y, p, r = np.radians([yaw, pitch, roll])
    nod = [[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]]
    turn = [[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]]
    tilt = [[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]]
    return points @ (np.array(tilt) @ turn @ nod).T + (300, 200, 10)


@given(st.floats(-80, 80), st.floats(-80, 80), st.floats(-170, 170))
def test_pose_of_a_turned_mesh_is_how_it_was_turned(yaw: float, pitch: float, roll: float) -> None:
    np.testing.assert_allclose(head_pose(_turned(yaw, pitch, roll)), (yaw, pitch), atol=1e-6)


def _fit(networks: Networks, rgb: np.ndarray) -> MeshFit:
    face = networks.detector(rgb)[0]
    return networks.mesh(rgb, roi_of_box(face.box, face.eyes))


@pytest.fixture(scope="module")
def still(samples: dict[str, Path]) -> Frame:
    """A man who looks at the camera."""
    return next(read_frames(samples["single_face"]))


def test_pose_of_a_real_face(networks: Networks, samples: dict[str, Path], still: Frame) -> None:
    yaw, pitch = _fit(networks, still.rgb).pose
    assert abs(yaw) < 6
    assert abs(pitch) < 12
    mirrored = _fit(networks, np.ascontiguousarray(still.rgb[:, ::-1])).pose
    assert mirrored[0] == pytest.approx(-yaw, abs=4)
    # A woman who looks down and a little to her right, then up, then with her face to her left and raised.
    frames = {frame.index: frame.rgb for frame in read_frames(samples["WolfgangLanger_Pexels"])}
    poses = {index: _fit(networks, frames[index]).pose for index in (16, 184, 368, 464)}
    assert poses[16][0] < -5
    assert poses[184][1] > 8
    assert poses[368][0] > 8
    assert poses[464][1] < -8


def test_sharpness_falls_with_blur_and_not_with_light(networks: Networks, still: Frame) -> None:
    points = _fit(networks, still.rgb).points
    side = float(np.ptp(points[:, 1]))

    def measured(rgb: np.ndarray) -> float:
        return sharpness(portrait(rgb, box_of(points)))

    values = [measured(cv2.GaussianBlur(still.rgb, (0, 0), share * side)) for share in (0.01, 0.02, 0.04)]
    assert all(before > 2 * after for before, after in pairwise([measured(still.rgb), *values]))
    assert values[-1] < PreprocessConfig().min_sharpness < values[-2]
    dark = (still.rgb * 0.3 + 10).astype(np.uint8)
    assert measured(dark) == pytest.approx(measured(still.rgb), rel=0.15)
    assert sharpness(np.full((SIDE, SIDE), 90, np.uint8)) == 0


@given(st.floats(-100, 260), st.floats(-100, 220), st.floats(0.1, 300))
def test_a_portrait_can_be_taken_anywhere(x: float, y: float, side: float) -> None:
    picture = portrait(ROOM, np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2]))
    assert picture.shape == (SIDE, SIDE)


def test_a_portrait_shows_the_box_and_half_as_much_around() -> None:
    rgb = np.zeros((600, 600, 3), np.uint8)
    rgb[200:400, 200:400] = 255
    picture = portrait(rgb, np.array([200.0, 200, 400, 400]))
    assert face_of(picture).shape == (FACE, FACE)
    assert face_of(picture).mean() > 250
    assert picture.sum() == pytest.approx(255 * FACE * FACE, rel=0.03)


def test_likeness_is_correlation() -> None:
    picture = cv2.resize(cv2.cvtColor(ROOM, cv2.COLOR_RGB2GRAY), (SIDE, SIDE))
    lighter = (picture * 0.5 + 90).astype(np.uint8)
    assert likeness(features(picture), features(lighter)) > 0.99
    assert likeness(features(picture), features(255 - picture)) < -0.99
    assert likeness(features(picture), features(np.zeros_like(picture))) == 1
