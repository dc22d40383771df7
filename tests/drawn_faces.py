"""A drawn face: a mesh of 468 points whose regions are known, and pictures in which each class has its own colour."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.parsers.polygons import (
    FACE_OVAL,
    LEFT_BROW,
    LEFT_EYE_RING,
    LIPS,
    NOSE_POINTS,
    RIGHT_BROW,
    RIGHT_EYE_RING,
)

# RGB of class k: corners and middles of the colour cube, black first (what lies outside a picture is class 0).
PALETTE = np.array([(k // 9 * 127, k // 3 % 3 * 127, k % 3 * 127) for k in range(27)], np.uint8)[
    [0, *np.random.default_rng(3).permutation(np.arange(1, 27))]
]

# Ellipses in heights of the face, y down: centre x, centre y, half width, half height. Left is the person's own.
FACE = (0.0, 0.0, 0.37, 0.5)
HAIR = (0.0, -0.12, 0.5, 0.62)
PLACES: dict[str, tuple[float, float, float, float]] = {
    "left-brow": (0.17, -0.24, 0.11, 0.035),
    "right-brow": (-0.17, -0.24, 0.11, 0.035),
    "left-eye": (0.17, -0.12, 0.09, 0.04),
    "right-eye": (-0.17, -0.12, 0.09, 0.04),
    "nose": (0.0, 0.05, 0.07, 0.13),
    "upper-lip": (0.0, 0.27, 0.14, 0.03),
    "inner-mouth": (0.0, 0.3, 0.12, 0.03),
    "lower-lip": (0.0, 0.33, 0.13, 0.03),
}


@dataclass(frozen=True)
class Pose:
    """Where the drawn face is: centre in pixels, height in pixels, turned by so many degrees."""

    x: float
    y: float
    height: float
    degrees: float = 0.0

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """Points (N, 2) in heights of the face as pixels."""
        turn = np.deg2rad(self.degrees)
        matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        return (points @ matrix * self.height + (self.x, self.y)).astype(np.float32)


def mesh(pose: Pose) -> NDArray[np.float32]:
    """Mesh points (468, 2) of the face in a pose."""
    points = np.zeros((468, 2))
    points[FACE_OVAL] = _ring(FACE, len(FACE_OVAL), start=-90)
    points[LIPS] = _ring((0.0, 0.3, 0.15, 0.06), len(LIPS), start=180, turn=-1)
    points[LEFT_EYE_RING] = _ring(PLACES["left-eye"], len(LEFT_EYE_RING))
    points[RIGHT_EYE_RING] = _ring(PLACES["right-eye"], len(RIGHT_EYE_RING))
    points[LEFT_BROW] = _ring(PLACES["left-brow"], len(LEFT_BROW))
    points[RIGHT_BROW] = _ring(PLACES["right-brow"], len(RIGHT_BROW))
    points[NOSE_POINTS] = _ring(PLACES["nose"], len(NOSE_POINTS))
    points[1] = (0.0, 0.08)
    return pose.place(points)


def paint(classes: dict[str, int], pose: Pose, side: int) -> NDArray[np.uint8]:
    """Class map (side, side) of the face: `classes` names the class of each part, in the order of painting."""
    canvas = np.zeros((side, side), np.uint8)
    for part, value in classes.items():
        ellipse = {"hair": HAIR, "face": FACE}.get(part) or PLACES[part]
        outline = np.rint(pose.place(_ring(ellipse, 90)) * 16).astype(np.int32)
        cv2.fillPoly(canvas, [outline], value, shift=4)
    return canvas


def uniform(classes: NDArray[np.uint8], reach: int) -> NDArray[np.bool_]:
    """Where all pixels up to `reach` away have the same class."""
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return np.asarray(cv2.erode(classes, kernel) == cv2.dilate(classes, kernel))


def _ring(
    ellipse: tuple[float, float, float, float], count: int, start: float = 0, turn: int = 1
) -> NDArray[np.float64]:
    x, y, across, down = ellipse
    angles = np.deg2rad(start) + turn * np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + across * np.cos(angles), y + down * np.sin(angles)], axis=1)
