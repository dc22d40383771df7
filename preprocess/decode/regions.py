"""Label maps that a video brings along: its second video stream, whose grey values are the numbers of regions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from preprocess.arrays import Image
from preprocess.decode.video import Span, read_pictures, upright, video_stream, video_streams
from preprocess.quarantine import BadSource
from preprocess.regions import REGIONS


def read_label_maps(file: Path, span: Span | None = None, fps: float | None = None) -> Iterator[tuple[float, Image]]:
    """Seconds and label map (H, W), values index `REGIONS`, of each frame that `read_frames` gives.

    The values are exact where the stream is coded without loss: they are taken from its brightness as it was decoded.

    Raises:
        BadSource: no second video stream, or one that holds no label maps; and as `read_frames`.
    """
    # Tools that turn a video say so of its pictures alone: maps are turned as these are.
    rotation = next((shown.rotation for _, shown, _ in read_pictures(file, span, fps)), 0)
    for time, picture, _ in read_pictures(file, span, fps, _second_stream):
        labels = upright(_brightness(picture), rotation)
        if labels.max() >= len(REGIONS):
            raise BadSource(
                "no-regions",
                f"its second video stream has the value {labels.max()} at {time:.2f} s, and regions are 0 to "
                f"{len(REGIONS) - 1}: code it without loss (libx264 with qp=0)",
            )
        yield time, labels


def _second_stream(container: Any) -> Any:
    """The first video stream that is not the one of the pictures."""
    shown = video_stream(container)
    for stream in video_streams(container):
        if stream.index != shown.index:
            return stream
    raise BadSource("no-regions", "it has no second video stream with label maps, which preprocess.parser=given takes")


def _brightness(picture: Any) -> Image:
    """The first plane (H, W) of a decoded picture, with no conversion of its range."""
    parts = picture.format.components
    if (
        picture.format.is_rgb
        or not parts[0].is_luma
        or parts[0].bits != 8
        or not (picture.format.is_planar or len(parts) == 1)
    ):
        raise BadSource(
            "no-regions", f"its second video stream is {picture.format.name}: code label maps as gray or yuv420p"
        )
    plane = picture.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return np.ascontiguousarray(rows[:, : plane.width])
