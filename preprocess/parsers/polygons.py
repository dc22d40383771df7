"""Polygons of the 468-point mesh (MediaPipe's published topology) that make up facial regions."""

import cv2
import numpy as np

from preprocess.arrays import Floats, Image, Mask
from preprocess.regions import LEFT_EYE, MOUTH, NOSE, RIGHT_EYE

FACE_OVAL = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
]  # fmt: skip
LIPS = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185]
LEFT_EYE_RING = [263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466]
RIGHT_EYE_RING = [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246]
LEFT_BROW = [276, 283, 282, 295, 285, 336, 296, 334, 293, 300]
RIGHT_BROW = [46, 53, 52, 65, 55, 107, 66, 105, 63, 70]
NOSE_POINTS = [168, 6, 193, 417, 122, 351, 196, 419, 198, 420, 49, 279, 129, 358, 64, 294, 98, 327, 97, 326, 2, 94]
TOP, CHIN = 10, 152
NOSE_TIP, RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER = 1, 61, 291

# The mesh ends in the middle of the forehead: the arc is raised by this share of the face's height at its top,
# less towards the temples. What is hair up there is labelled hair.
FOREHEAD_LIFT = 0.2
FOREHEAD_FROM = 0.3


def face_axes(points: Floats) -> tuple[Floats, Floats, float]:
    """Middle of the face (2,), unit vector from chin to forehead (2,), and height in pixels."""
    up = points[TOP] - points[CHIN]
    height = max(float(np.linalg.norm(up)), 1e-3)
    return (points[TOP] + points[CHIN]) / 2, up / height, height


def face_outline(points: Floats) -> Floats:
    """Outline of the skin (36, 2): the mesh's oval with its forehead arc raised."""
    middle, up, height = face_axes(points)
    oval = points[FACE_OVAL]
    along = (oval - middle) @ up / (height / 2)
    lift = FOREHEAD_LIFT * height * np.clip((along - FOREHEAD_FROM) / (1 - FOREHEAD_FROM), 0.0, 1.0) ** 0.5
    raised: Floats = oval + lift[:, None] * up
    return raised


def five_points(points: Floats) -> Floats:
    """The five points that faces are aligned by (5, 2): right eye, left eye, nose, right and left mouth corner."""
    eyes = [points[ring].mean(axis=0) for ring in (RIGHT_EYE_RING, LEFT_EYE_RING)]
    return np.stack([*eyes, *points[[NOSE_TIP, RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER]]])


def fill(polygon: Floats, shape: tuple[int, int]) -> Mask:
    """Inside of a polygon (N, 2) as a mask (H, W)."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [_fixed(polygon)], 1, shift=_SHIFT)
    return canvas.view(bool)


def draw_parts(labels: Image, points: Floats) -> None:
    """Paints nose, mouth, eyes and brows of a mesh into a label map (H, W), in place."""
    parts = [
        (NOSE, _hull(points[NOSE_POINTS])),
        (MOUTH, points[LIPS]),
        (LEFT_EYE, _hull(points[LEFT_BROW])),
        (LEFT_EYE, points[LEFT_EYE_RING]),
        (RIGHT_EYE, _hull(points[RIGHT_BROW])),
        (RIGHT_EYE, points[RIGHT_EYE_RING]),
    ]
    for region, polygon in parts:
        cv2.fillPoly(labels, [_fixed(polygon)], region, shift=_SHIFT)


_SHIFT = 4


def _fixed(polygon: Floats) -> "np.ndarray[tuple[int, ...], np.dtype[np.int32]]":
    # Far outside the picture nothing is drawn, and OpenCV's fixed point would overflow.
    return np.rint(np.clip(polygon, -4000, 8000) * (1 << _SHIFT)).astype(np.int32)


def _hull(points: Floats) -> Floats:
    hull: Floats = np.asarray(cv2.convexHull(points.astype(np.float32)), np.float32).reshape(-1, 2)
    return hull
