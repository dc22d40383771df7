"""The registered model: MLflow runs this file (models from code), so that nothing is pickled.

    features = mlflow.pyfunc.load_model("models:/faces@best").predict(pandas.DataFrame({"video": ["a.mp4"]}))

A row for each face of each video: `video`, `track`, `start_s`, `windows`, and `feature`, the mean over the windows. A
video that can't be used gives one row with the reason in `error`. Parameters, each optional: `cropped` (the videos show
nothing but a face: nothing is looked for), `stride` (frames of a window between the begins of two), `batch` (windows at
once).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from eval.features import WindowSpec, model_embedder
from eval.videos import video_features
from preprocess.faces.detect import Detector
from preprocess.faces.mesh import MeshNet
from preprocess.follow import find_tracks, video_clip, whole_picture
from preprocess.quarantine import BadSource
from train.export import load_model


class FaceVideoFeatures(PythonModel):
    """Paths of videos in, features of the faces in them out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the weights and the networks that find faces."""
        model, self._cfg = load_model(Path(context.artifacts["checkpoint"]))
        self._embed = model_embedder(model)
        networks = Path(context.artifacts["networks"])
        self._detect = Detector(networks / "scrfd.onnx", self._cfg.preprocess.detect_threshold)
        self._fit = MeshNet(networks / "face_landmark.tflite")

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Features of each face of each path in the column `video`."""
        chosen: Mapping[str, Any] = params or {}
        rows = [row for video in model_input["video"] for row in self._rows(str(video), chosen)]
        return pd.DataFrame(rows, columns=["video", "track", "start_s", "windows", "feature", "error"])

    def _rows(self, video: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        cfg, clip = self._cfg.preprocess, video_clip(Path(video))
        rate, settings = self._cfg.data.stride, self._cfg.eval.features
        stride, batch = params.get("stride", settings.stride), params.get("batch", settings.batch)
        spec = WindowSpec(self._cfg.data.frames, rate, stride * rate, batch)
        try:
            cropped = params.get("cropped", False)
            tracks = [whole_picture(clip, cfg)] if cropped else find_tracks(clip, cfg, self._detect, self._fit)
            for found in video_features(clip, tracks, cfg, self._embed, spec):
                yield {
                    "video": video,
                    "track": found.track.number,
                    "start_s": found.track.start / found.track.fps,
                    "windows": len(found.seconds),
                    "feature": found.features_WD.mean(axis=0).tolist(),
                    "error": "",
                }
        except (BadSource, av.FFmpegError) as bad:
            yield {"video": video, "track": -1, "start_s": 0.0, "windows": 0, "feature": [], "error": str(bad)}


mlflow.models.set_model(FaceVideoFeatures())
