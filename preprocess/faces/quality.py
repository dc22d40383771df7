"""Measures of a face that the filters of the configuration judge by."""

import cv2
import numpy as np

from preprocess.arrays import Floats, Image
from preprocess.faces.portrait import face_of

RIGHT_SIDE, LEFT_SIDE, FOREHEAD, CHIN = 234, 454, 10, 152
_FLAT = 1.0


def sharpness(picture: Image) -> float:
    """Variance of the Laplacian of a portrait's face (64×64 pixels) over the variance of its grey values.

    The quotient does not depend on contrast, so a dark face is not taken for a blurred one. 0 for a flat picture.
    """
    face = face_of(picture)
    spread = float(face.var())
    if spread < _FLAT:
        return 0.0
    return float(np.asarray(cv2.Laplacian(face, cv2.CV_32F)).var()) / spread


def head_pose(points: Floats) -> tuple[float, float]:
    """Yaw and pitch in degrees of a mesh (468, 3), with x to the right, y down and z away from the viewer.

    Roll, yaw and pitch turn the face in this order about its own axes, so roll in the picture changes neither. The
    sideways axis runs between the mesh's two sides, the upright one from chin to forehead. Yaw is positive when the
    face turns to the right of the picture, pitch when it looks up.
    """
    across, up = points[LEFT_SIDE] - points[RIGHT_SIDE], points[FOREHEAD] - points[CHIN]
    roll = np.arctan2(across[1], across[0])
    yaw = np.arctan2(across[2], np.hypot(across[0], across[1]))
    cos, sin = np.cos(roll), np.sin(roll)
    sideways, upright = cos * up[0] + sin * up[1], cos * up[1] - sin * up[0]
    # Undo the yaw: what is left of the upright axis leans towards the viewer or away from it.
    depth = np.cos(yaw) * up[2] - np.sin(yaw) * sideways
    return float(np.degrees(yaw)), float(np.degrees(np.arctan2(depth, -upright)))
