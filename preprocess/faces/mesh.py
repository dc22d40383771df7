"""MediaPipe's 468-point face mesh and person mask, run by OpenCV's DNN module."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import MarlinError
from preprocess.arrays import Floats, Image
from preprocess.faces.geometry import box_of, larger_side
from preprocess.faces.quality import head_pose

MESH_SIDE, PERSON_SIDE = 192, 256
POINTS = 468
# Output layers by name: OpenCV 5 lists only the first output of this file as an output.
POINTS_LAYER, PRESENCE_LAYER = "conv2d_21", "conv2d_31"
RIGHT_EYE_CORNER, LEFT_EYE_CORNER = 33, 263
ROI_SCALE = 1.5


@dataclass(frozen=True)
class Roi:
    """Rotated square of a frame that a network looks at: centre, side in pixels, angle of the eye line in radians."""

    x: float
    y: float
    side: float
    angle: float


@dataclass(frozen=True)
class MeshFit:
    """Points (468, 2) in frame pixels, the probability that a face is there, and its yaw and pitch in degrees."""

    points: Floats
    presence: float
    pose: tuple[float, float]


def roi_of_box(box: Floats, eyes: Floats) -> Roi:
    """Where the mesh should look, given a detected box and its eyes (2, 2), picture left first."""
    across = eyes[1] - eyes[0]
    angle = float(np.arctan2(across[1], across[0]))
    return Roi(float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2, ROI_SCALE * larger_side(box), angle)


def roi_of_points(points: Floats) -> Roi:
    """Where the mesh should look, given its points in the frame before."""
    return roi_of_box(box_of(points), points[[RIGHT_EYE_CORNER, LEFT_EYE_CORNER]])


def _read_net(path: Path) -> cv2.dnn.Net:
    # The classic engine exists in OpenCV 4 and 5 and keeps every output of these two files.
    try:
        return cv2.dnn.readNetFromTFLite(str(path), cv2.dnn.ENGINE_CLASSIC)
    except cv2.error as error:
        raise MarlinError(f"{path} is not a TFLite file that OpenCV {cv2.__version__} reads: {error.err}") from error


def _blob(rgb: Image) -> Floats:
    # Planes first, then floats: an eighth of the time of the other order, the same numbers.
    planes = np.stack(cv2.split(rgb))[None].astype(np.float32)
    planes /= 255.0
    return planes


class MeshNet:
    """face_landmark.tflite: 468 points and a presence score, in a region of interest."""

    def __init__(self, path: Path) -> None:
        cv2.setNumThreads(1)
        self._net = _read_net(path)
        if not {POINTS_LAYER, PRESENCE_LAYER} <= set(self._net.getLayerNames()):
            raise MarlinError(f"{path} is not MediaPipe's face_landmark.tflite: run `marlin models pull`")

    def __call__(self, rgb: Image, roi: Roi) -> MeshFit:
        """Fits the mesh to what is seen in a region of a frame."""
        to_net = _roi_matrix(roi, MESH_SIDE)
        self._net.setInput(_blob(np.asarray(cv2.warpAffine(rgb, to_net, (MESH_SIDE, MESH_SIDE)), np.uint8)))
        points, presence = self._net.forward([POINTS_LAYER, PRESENCE_LAYER])
        mesh = np.asarray(points, np.float32).reshape(POINTS, 3)
        back = cv2.invertAffineTransform(to_net).astype(np.float32)
        logit = float(np.asarray(presence).reshape(-1)[0])
        return MeshFit(
            points=mesh[:, :2] @ back[:, :2].T + back[:, 2],
            presence=float(1 / (1 + np.exp(-logit))),
            pose=head_pose(mesh),
        )


class PersonNet:
    """selfie_segmentation.tflite: how much each pixel belongs to a person."""

    def __init__(self, path: Path) -> None:
        cv2.setNumThreads(1)
        self._net = _read_net(path)

    def __call__(self, rgb: Image) -> Floats:
        """Probability (256, 256), a map of the whole of a picture (H, W, 3) of a head and its surroundings."""
        side = (PERSON_SIDE, PERSON_SIDE)
        self._net.setInput(_blob(np.asarray(cv2.resize(rgb, side, interpolation=cv2.INTER_LINEAR), np.uint8)))
        return np.asarray(self._net.forward(), np.float32).reshape(side)


def _roi_matrix(roi: Roi, side: int) -> Floats:
    scale = side / max(roi.side, 1.0)
    cos, sin = np.cos(roi.angle) * scale, np.sin(roi.angle) * scale
    shift_x = side / 2 - (cos * roi.x + sin * roi.y)
    shift_y = side / 2 - (-sin * roi.x + cos * roi.y)
    return np.array([[cos, sin, shift_x], [-sin, cos, shift_y]], np.float64)
