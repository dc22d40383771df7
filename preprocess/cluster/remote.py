"""Detector and parser in Ray actors of their own, for clusters where GPUs are shared by many decoding workers.

A worker has one call in flight, so what waits in the object store is at most one batch of pictures a worker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.config.schema import PreprocessConfig
from pipeline.errors import MarlinError
from preprocess.arrays import Floats, Image
from preprocess.faces.detect import Detection, Detector
from preprocess.faces.mesh import MeshNet
from preprocess.models import Networks, describe, load_parser, model_files
from preprocess.parsers.base import Device


class NetworkActor:
    """Holds the networks that gain from a GPU; made into a Ray actor by the stage."""

    def __init__(self, cfg: PreprocessConfig, device: Device) -> None:
        files = model_files(cfg)
        paths = {file.name: file.path for file in files}
        self._detector = Detector(paths["scrfd"], cfg.detect_threshold, device)
        self._parser = load_parser(cfg, files, device)

    def parser_name(self) -> str:
        """Name of the parser, as it stands in samples."""
        return self._parser.name

    def detect(self, rgb: Image) -> list[Detection]:
        """Faces of a frame."""
        return self._detector(rgb)

    def parse(self, pictures: Sequence[Image], points: Sequence[Floats]) -> list[Image | None]:
        """Label maps of pictures."""
        return self._parser(pictures, points)


@dataclass(frozen=True)
class _RemoteDetector:
    actor: Any

    def __call__(self, rgb: Image) -> list[Detection]:
        found: list[Detection] = _result(self.actor.detect.remote(rgb))
        return found


@dataclass(frozen=True)
class _RemoteParser:
    actor: Any
    name: str

    def __call__(self, pictures: Sequence[Image], points: Sequence[Floats]) -> list[Image | None]:
        labels: list[Image | None] = _result(self.actor.parse.remote(list(pictures), list(points)))
        return labels


def connect(actor: Any, cfg: PreprocessConfig) -> Networks:
    """The networks of a worker whose detector and parser live in an actor; the mesh follows faces in the worker.

    Raises:
        MarlinError: a file is not what it should be, or the actor can't start.
    """
    files = model_files(cfg)
    paths = {file.name: file.path for file in files}
    return Networks(
        detector=_RemoteDetector(actor),
        mesh=MeshNet(paths["face_landmark"]),
        parser=_RemoteParser(actor, _result(actor.parser_name.remote())),
        models=tuple((entry["name"], entry["sha256"]) for entry in describe(files)),
    )


def _result(reference: Any) -> Any:
    # A network that fails is no fault of the video at hand: the stage ends, nothing goes to quarantine.
    try:
        return ray.get(reference)
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, MarlinError):
            raise cause from error
        text = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise MarlinError(f"a network actor failed: {text}") from error
