"""Face detection: an SCRFD network run by insightface."""

from dataclasses import dataclass
from pathlib import Path

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

    def __call__(self, rgb: Image) -> list[Detection]:
        """Faces of a frame, largest first."""
        boxes, keypoints = self._net.detect(np.ascontiguousarray(rgb[..., ::-1]))
        found = [
            Detection(box=row[:4].astype(np.float32), score=float(row[4]), eyes=points[:2].astype(np.float32))
            for row, points in zip(boxes, keypoints, strict=True)
        ]
        return sorted(found, key=lambda face: (-float(np.prod(face.box[2:] - face.box[:2])), *face.box.tolist()))
