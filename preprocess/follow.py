"""Faces of a single video as crops, for those who want no dataset: found, tracked and cut out as for one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config.schema import PreprocessConfig
from preprocess.arrays import Floats, Image
from preprocess.corpora.base import Source
from preprocess.corpora.clip import Clip
from preprocess.faces.boxes import smooth_squares, track_boxes
from preprocess.faces.choose import fault_of
from preprocess.faces.crop import extract, whole
from preprocess.faces.find import find_faces
from preprocess.faces.tracker import Detect, Fit
from preprocess.quarantine import BadSource


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One face through consecutive frames of a video.

    Attributes:
        number: of the track in its video.
        start: index of its first frame.
        fps: frames per second of the indices.
        squares: (n, 3) centre and side to cut out of each frame; None cuts nothing out.
        frames: how many frames it has.
    """

    number: int
    start: int
    fps: float
    frames: int
    squares: Floats | None = None


def video_clip(file: Path) -> Clip:
    """A video by itself, or a folder of its frames."""
    return Clip(file, None, Source(file.name, "", file.name), "")


def find_tracks(clip: Clip, cfg: PreprocessConfig, detect: Detect, fit: Fit) -> list[FaceTrack]:
    """The faces of a clip that pass the configuration's filters, each as long as it is seen; a whole pass.

    Args:
        clip: what to look through.
        cfg: rate, filters, margin.
        detect, fit: the networks that the tracker asks.

    Raises:
        BadSource: unreadable, damaged, or without such a face.
    """
    found = find_faces(clip, cfg, detect, fit)
    tracks, faults = [], []
    for track in found.tracks:
        squares = smooth_squares(track_boxes(track), found.fps)
        fault = fault_of(track.observations, squares, cfg)
        if fault:
            faults.append(fault)
            continue
        wide = squares.astype(np.float64) * (1, 1, 1 + 2 * cfg.margin)
        tracks.append(FaceTrack(track.id, track.start, found.fps, len(squares), wide))
    if not tracks:
        raise BadSource("no-face", f"no face that can be used: {', '.join(sorted(set(faults)))}")
    return tracks


def whole_picture(clip: Clip, cfg: PreprocessConfig) -> FaceTrack:
    """The track of a video that shows nothing but a face, as crops of a dataset do. A pass that decodes.

    Raises:
        BadSource: unreadable or damaged.
    """
    return FaceTrack(0, 0, cfg.fps or clip.rate(), sum(1 for _ in clip.frames(cfg.fps)))


def read_crops(
    clip: Clip, tracks: Sequence[FaceTrack], cfg: PreprocessConfig
) -> Iterator[tuple[FaceTrack, int, Image]]:
    """Every face of every frame, in the order of the frames: its track, its place in the track, (size, size, 3) RGB.

    Raises:
        BadSource: the video gave fewer frames than before.
    """
    end = max(track.start + track.frames for track in tracks)
    seen = 0
    for frame in clip.frames(cfg.fps):
        seen = frame.index + 1
        for track in tracks:
            place = frame.index - track.start
            if 0 <= place < track.frames:
                yield track, place, _crop(frame.rgb, track, place, cfg.size)
        if seen == end:
            return
    raise BadSource("damaged", f"it gave {seen} frames when it was read again, and {end} before")


def _crop(rgb: Image, track: FaceTrack, place: int, size: int) -> Image:
    if track.squares is not None:
        return extract(rgb, track.squares[place], size)
    return whole(rgb, size)
