"""Features of the faces of raw videos, without a dataset.

Shapes: B windows of a batch, W windows of a track, T frames, S×S pixels, D width of a feature.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eval.features import BATCHES_AHEAD, Embedder, WindowSpec, best_device
from eval.sequences import windows
from pipeline.background import Background
from pipeline.config.schema import Config, PreprocessConfig
from preprocess.corpora.clip import Clip
from preprocess.faces.detect import Detector
from preprocess.faces.mesh import MeshNet
from preprocess.follow import FaceTrack, read_crops
from preprocess.models import face_files

Window = tuple[FaceTrack, NDArray[np.uint8]]


@dataclass(frozen=True)
class TrackFeatures:
    """Features (W, D) of one face, (W, N, D) where tokens are kept; the seconds (W) at which its windows begin."""

    track: FaceTrack
    seconds: NDArray[np.float64]
    features_WD: NDArray[np.float32]


@dataclass(frozen=True)
class FaceWindow:
    """One window (T, S, S, 3) RGB of a face, and the seconds of its first and last frame."""

    track: FaceTrack
    frames: NDArray[np.uint8]
    begin: float
    end: float


def face_networks(cfg: PreprocessConfig) -> tuple[Detector, MeshNet]:
    """The networks that find faces, the detector on the accelerator where there is one.

    Raises:
        MarlinError: their files are not there.
    """
    detector, mesh = face_files(cfg)
    device: Literal["cpu", "cuda"] = "cuda" if best_device().type == "cuda" else "cpu"
    return Detector(detector, cfg.detect_threshold, device), MeshNet(mesh)


def video_features(
    clip: Clip, tracks: Sequence[FaceTrack], cfg: PreprocessConfig, embed: Embedder, spec: WindowSpec
) -> list[TrackFeatures]:
    """Features of all windows of some tracks; each frame is decoded once, and only frames of open windows are held.

    Args:
        clip: the video.
        tracks: its faces (`preprocess.follow`).
        cfg: how the faces are cut out.
        embed: the encoder.
        spec: the windows.

    Raises:
        BadSource: the video is damaged.
    """
    rows: dict[FaceTrack, list[NDArray[np.float32]]] = {track: [] for track in tracks}
    with closing(Background(window_batches(clip, tracks, cfg, spec), BATCHES_AHEAD)) as batches:
        for owners, frames_BTHWC in batches:
            for track, feature_D in zip(owners, embed(frames_BTHWC), strict=True):
                rows[track].append(feature_D)
    return [track_features(track, features, spec) for track, features in rows.items()]


def track_features(track: FaceTrack, features: Sequence[NDArray[np.float32]], spec: WindowSpec) -> TrackFeatures:
    """The features of all windows of a face, with the seconds of their begins."""
    return TrackFeatures(track, (spec.plan(track.frames)[:, 0] + track.start) / track.fps, np.stack(features))


def middle_windows(clip: Clip, tracks: Sequence[FaceTrack], cfg: Config) -> list[FaceWindow]:
    """The window in the middle of each track, as long as a clip of the training; only its frames are held.

    Args:
        clip: the video.
        tracks: its faces (`preprocess.follow`).
        cfg: of the training.

    Raises:
        BadSource: the video is damaged.
    """
    plans = {}
    for track in tracks:
        index_WT = windows(track.frames, cfg.data.frames, cfg.data.stride, 1)
        plans[track] = index_WT[len(index_WT) // 2].tolist()
    crops: dict[FaceTrack, dict[int, NDArray[np.uint8]]] = {track: {} for track in tracks}
    for track, place, crop in read_crops(clip, tracks, cfg.preprocess):
        if place in plans[track]:
            crops[track][place] = crop
    found = []
    for track, plan in plans.items():
        begin, end = ((track.start + place) / track.fps for place in (plan[0], plan[-1]))
        found.append(FaceWindow(track, np.stack([crops[track][place] for place in plan]), begin, end))
    return found


def window_batches(
    clip: Clip, tracks: Sequence[FaceTrack], cfg: PreprocessConfig, spec: WindowSpec
) -> Generator[tuple[list[FaceTrack], NDArray[np.uint8]], None, None]:
    """Batches of windows (B, T, S, S, 3), whichever face's is complete next, and the face of each.

    Raises:
        BadSource: the video is damaged.
    """
    source = _windows(clip, tracks, cfg, spec)
    while batch := list(islice(source, spec.batch)):
        yield [track for track, _ in batch], np.stack([frames for _, frames in batch])


def _windows(clip: Clip, tracks: Sequence[FaceTrack], cfg: PreprocessConfig, spec: WindowSpec) -> Iterator[Window]:
    """Windows (T, S, S, 3) in the order in which they are complete."""
    plans = {track: list(spec.plan(track.frames)) for track in tracks}
    held: dict[FaceTrack, dict[int, NDArray[np.uint8]]] = {track: {} for track in tracks}
    for track, place, crop in read_crops(clip, tracks, cfg):
        plan, frames = plans[track], held[track]
        frames[place] = crop
        while plan and plan[0][-1] == place:
            yield track, np.stack([frames[index] for index in plan.pop(0).tolist()])
        first = plan[0][0] if plan else track.frames
        held[track] = {index: frame for index, frame in frames.items() if index >= first}
