"""Videos that bring label maps along as a second video stream, written by hand as a user would."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
LOSSLESS = {"qp": "0", "threads": "1"}


def some_maps(count: int, height: int, width: int, seed: int = 0) -> Frames:
    """Label maps (count, height, width) of random blocks of 8 pixels, all seven regions in each."""
    dice = np.random.default_rng(seed)
    blocks = dice.integers(0, 7, (count, height // 8, width // 8), np.uint8)
    blocks[:, 0, :7] = np.arange(7)
    return np.repeat(np.repeat(blocks, 8, axis=1), 8, axis=2)


def write_labelled(
    path: Path,
    frames: Frames,
    maps: Sequence[Frames],
    *,
    fps: int = 25,
    map_fps: int | None = None,
    pix_fmt: str = "gray",
    rotation: int = 0,
    late: int = 0,
) -> Path:
    """Writes frames (F, H, W, 3) RGB, then each array of label maps (F, H, W) as one more lossless stream.

    In `yuv420p` the maps are the brightness, with grey colours. The pictures are turned by `rotation` degrees when they
    are shown; the maps begin `late` frames after the pictures.
    """
    with av.open(str(path), "w") as container:
        shown = container.add_stream("libx264", rate=fps, options={"crf": "12", "threads": "1"})
        shown.height, shown.width, shown.pix_fmt = *frames.shape[1:3], "yuv420p"
        added = []
        for labels in maps:
            stream = container.add_stream("libx264", rate=map_fps or fps, options=LOSSLESS)
            stream.height, stream.width, stream.pix_fmt = *labels.shape[1:3], pix_fmt
            added.append(stream)
        if rotation:
            shown.set_display_rotation(rotation)
        for frame in frames:
            container.mux(shown.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        for stream, labels in zip(added, maps, strict=True):
            for number, plane in enumerate(labels):
                picture = _picture(plane, pix_fmt)
                picture.pts, picture.time_base = number + late, Fraction(1, map_fps or fps)
                container.mux(stream.encode(picture))
        for stream in (shown, *added):
            container.mux(stream.encode())
    return path


def _picture(plane: Frames, pix_fmt: str) -> av.VideoFrame:
    if pix_fmt == "yuv420p":
        height, width = plane.shape
        plane = np.concatenate([plane, np.full((height // 2, width), 128, np.uint8)])
    return av.VideoFrame.from_ndarray(plane, format=pix_fmt)
