"""Face detection: an SCRFD network run by insightface."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pipeline.errors import MarlinError
from preprocess.arrays import Floats, Image
from preprocess.sessions import onnx_providers, session_options


@dataclass(frozen=True)
class Detection:
    """A detected face: box (4,), score, the two eyes (2, 2) with the one further left in the picture first."""

    box: Floats
    score: float
    eyes: Floats


class Detector:
    """SCRFD, on the CPU ('cpu') or on the GPU where onnxruntime has CUDA ('cuda')."""

    def __init__(self, path: Path, threshold: float, device: str = "cpu") -> None:
        from insightface.model_zoo import get_model

        self._net = get_model(str(path), providers=onnx_providers(device), sess_options=session_options())
        if self._net is None or not hasattr(self._net, "detect"):
            raise MarlinError(f"{path} is not a face detector that insightface knows: give an SCRFD ONNX file")
        # A negative number would move it to the CPU; the providers above have chosen already.
        self._net.prepare(0, det_thresh=threshold)
        # The same numbers as insightface's own, ten times as fast; a version that does not ask for it stays right.
        self._net._prepare_input_blob = partial(input_blob, self._net.input_mean, self._net.input_std)

    def __call__(self, rgb: Image) -> list[Detection]:
        """Faces of a frame, largest first."""
        boxes, keypoints = self._net.detect(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        found = [
            Detection(box=row[:4].astype(np.float32), score=float(row[4]), eyes=points[:2].astype(np.float32))
            for row, points in zip(boxes, keypoints, strict=True)
        ]
        return sorted(found, key=lambda face: (-float(np.prod(face.box[2:] - face.box[:2])), *face.box.tolist()))


def input_blob(mean: float, std: float, bgr: Image, size: tuple[int, int]) -> Floats:
    """What SCRFD looks at: (1, 3, H, W) RGB, less the mean and over the deviation, of a picture of size (W, H)."""
    blob = np.empty((1, 3, size[1], size[0]), np.float32)
    for plane, channel in zip(blob[0], reversed(cv2.split(bgr)), strict=True):
        np.subtract(channel, np.float32(mean), out=plane)
        np.multiply(plane, np.float32(1 / std), out=plane)
    return blob
