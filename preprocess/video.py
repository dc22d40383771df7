"""Decoding with PyAV: upright RGB frames with time stamps, one at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import av
import numpy as np

from preprocess.arrays import Image
from preprocess.quarantine import BadSource

Span = tuple[float, float]
"""Start and end in seconds of the video's own time; the end is exclusive."""


@dataclass(frozen=True)
class VideoInfo:
    """Header of a video: seconds (0 when unknown), mean frames per second."""

    seconds: float
    fps: float


@dataclass(frozen=True)
class Frame:
    """One decoded frame: position in the (resampled) span, seconds from the video's start, RGB (H, W, 3)."""

    index: int
    time: float
    rgb: Image


def probe(file: Path | IO[bytes]) -> VideoInfo:
    """Length and frame rate from the header.

    Raises:
        BadSource: it is no readable video container, or has no video stream.
    """
    with _open(file) as container:
        stream = _video_stream(container)
        seconds = 0.0
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            seconds = container.duration / av.time_base
        return VideoInfo(seconds=max(0.0, seconds), fps=_rate(stream))


def read_frames(file: Path, span: Span | None = None, fps: float | None = None) -> Iterator[Frame]:
    """Frames of a video (or of a span of it) in order; the same frames at every call.

    Args:
        file: a local video of any kind FFmpeg reads.
        span: seconds to read, end exclusive; None is all.
        fps: resample to this rate (the frame on screen at each tick); None keeps the video's own frames.

    Raises:
        BadSource: unreadable, no video, or damaged on the way.
    """
    with _open(file) as container:
        stream = _video_stream(container)
        # One thread: the stage runs one worker a core, and a unit's time then does not depend on its neighbours.
        stream.codec_context.thread_count = 1
        pictures = _pictures(container, stream, span)
        if fps is not None:
            pictures = _resampled(pictures, fps, span[0] if span else None)
        for index, (time, picture) in enumerate(pictures):
            yield Frame(index, time, _upright(picture))


def _open(file: Path | IO[bytes]) -> Any:
    try:
        return av.open(str(file) if isinstance(file, Path) else file, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise BadSource("unreadable", f"FFmpeg can't open it: {_text(error)}") from error


def _video_stream(container: Any) -> Any:
    for stream in container.streams.video:
        # An audio file's cover picture is a video stream too.
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise BadSource("no-video", "it has no video stream")


def _rate(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(rate) if rate else 25.0


def _pictures(container: Any, stream: Any, span: Span | None) -> Iterator[tuple[float, Any]]:
    origin = float((stream.start_time or 0) * stream.time_base)
    rate, count = _rate(stream), 0
    if span and span[0] > 0:
        container.seek(int((origin + span[0]) / stream.time_base), stream=stream, backward=True)
    try:
        for picture in container.decode(stream):
            time = count / rate if picture.time is None else picture.time - origin
            count += 1
            if picture.is_corrupt and (span is None or time >= span[0]):
                raise BadSource("damaged", f"the picture at {time:.2f} s is corrupt")
            if span and time >= span[1]:
                return
            if span is None or time >= span[0]:
                yield time, picture
    except (av.FFmpegError, OSError) as error:
        raise BadSource("damaged", f"decoding failed after {count} frames: {_text(error)}") from error
    if count == 0:
        raise BadSource("no-video", "the video stream has no frames")


def _resampled(pictures: Iterable[tuple[float, Any]], fps: float, start: float | None) -> Iterator[tuple[float, Any]]:
    shown: tuple[float, Any] | None = None
    tick = 0
    for time, picture in pictures:
        if shown is None:
            start = time if start is None else start
        else:
            # Ticks before the first picture show nothing; a tick shows the picture that is on screen then.
            while (due := (start or 0.0) + tick / fps) < time:
                if due >= shown[0]:
                    yield due, shown[1]
                tick += 1
        shown = time, picture
    if shown is not None:
        yield (start or 0.0) + tick / fps, shown[1]


def _upright(picture: Any) -> Image:
    rgb: Image = picture.to_ndarray(format="rgb24")
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
