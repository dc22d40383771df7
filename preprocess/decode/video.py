"""Decoding with PyAV: upright RGB frames with time stamps, one at a time."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from preprocess.arrays import Image
from preprocess.decode.frame import Frame
from preprocess.decode.stall import begin_step, end_steps
from preprocess.quarantine import BadSource

Span = tuple[float, float]
"""Start and end in seconds of the video's own time; the end is exclusive."""

# No video of faces has so few bytes a second: a header that says so is not believed.
_FEWEST_BYTES_A_SECOND = 1000
# A picture is repeated for so long when frames are resampled; a longer gap is a jump of the time stamps.
_LONGEST_HOLD = 10.0
# How far before a span decoding starts, in seconds; the last is the beginning of the file. Without an index a seek can
# land after the key frame it needs, and the first time stamps after it are guesses: then it starts earlier.
_LEADS = (0.0, 10.0, 60.0, math.inf)
_UNINDEXED = ("mpegts", "mpeg", "avi")
# Time stamps that step back by less, in seconds, are guesses; by more, the clock was set anew and its time goes on.
_GUESSED, _LEAST_STEP = 1.0, 0.001


@dataclass(frozen=True)
class VideoInfo:
    """Header of a video: seconds (0 when unknown), mean frames per second."""

    seconds: float
    fps: float


def probe(file: Path | IO[bytes]) -> VideoInfo:
    """Length and frame rate from the header, the length from the last packets if the header can't be right.

    Raises:
        BadSource: it is no readable video container, or has no video stream.
    """
    with opened(file) as container:
        stream = video_stream(container)
        seconds = 0.0
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            seconds = container.duration / av.time_base
        if seconds * _FEWEST_BYTES_A_SECOND > container.size > 0:
            seconds = _measured_seconds(container, stream, seconds)
        return VideoInfo(seconds=max(0.0, seconds), fps=_rate(stream))


def read_frames(file: Path, span: Span | None = None, fps: float | None = None) -> Iterator[Frame]:
    """Frames of a video (or of a span of it) in order; the same frames at every call.

    They are shown as a player shows them: upright, with square pixels, from the first key frame on, of the stream with
    the largest picture.

    Args:
        file: a local video of any kind FFmpeg reads.
        span: seconds to read, end exclusive; None is all.
        fps: resample to this rate (the frame on screen at each tick); None keeps the video's own frames.

    Raises:
        BadSource: unreadable, no video, cut off, or damaged on the way.
    """
    colours = VideoReformatter()
    for index, (time, picture, aspect) in enumerate(read_pictures(file, span, fps)):
        yield Frame(index, time, partial(_as_shown, picture, aspect, colours))


def read_pictures(
    file: Path, span: Span | None, fps: float | None, choose: Callable[[Any], Any] | None = None
) -> Iterator[tuple[float, Any, Fraction | None]]:
    """What `read_frames` shows, as it was decoded: seconds, PyAV's frame, its pixel's aspect.

    Seconds count from the begin of the stream that `read_frames` shows, whatever stream is chosen.

    Args:
        file, span, fps: as for `read_frames`.
        choose: gives the stream of an open container; None is the one with the largest picture.

    Raises:
        BadSource: as `read_frames`, and what `choose` raises.
    """
    _check_whole(file)
    for lead in _LEADS if span and span[0] > 0 else (math.inf,):
        with opened(file) as container:
            stream = (choose or video_stream)(container)
            # One thread: the stage runs one worker a core, and a unit's time then does not depend on its neighbours.
            stream.codec_context.thread_count = 1
            origin = stream_origin(video_stream(container))
            pictures = _decoded(container, stream, origin)
            if span and lead < math.inf:
                sought = _sought(container, stream, pictures, (origin, span[0]), lead)
                if sought is None:
                    continue
                pictures = sought
            pictures = _within(pictures, span)
            if fps is not None:
                pictures = _resampled(pictures, fps, span[0] if span else None)
            for time, picture in pictures:
                yield time, picture, stream.sample_aspect_ratio
            return


@contextmanager
def opened(file: Path | IO[bytes]) -> Iterator[Any]:
    """A container open for reading, that refers to no other file. Raises `BadSource` when FFmpeg can't open it."""
    with ExitStack() as stack:
        begin_step()
        stack.callback(end_steps)
        try:
            stream = stack.enter_context(file.open("rb")) if isinstance(file, Path) else file
            if not stream.read(1):
                raise BadSource("unreadable", "the file is empty")
            stream.seek(0)
            container = stack.enter_context(av.open(stream, metadata_errors="replace", io_open=_refuse_other))
        except av.PermissionError as error:
            raise BadSource("unreadable", "it is a playlist of other files, or refers to some") from error
        except (av.FFmpegError, OSError, ValueError) as error:
            raise BadSource("unreadable", f"FFmpeg can't open it: {_text(error)}") from error
        yield container


def _refuse_other(url: str, flags: int, options: object) -> NoReturn:
    # A playlist under a video's name could make FFmpeg fetch any file or address.
    raise PermissionError("it refers to other files")


def video_stream(container: Any) -> Any:
    """The stream with the largest picture. Raises `BadSource` where there is none that can be decoded."""
    streams = video_streams(container)
    if not streams:
        raise BadSource("no-video", "it has no video stream")
    readable = [stream for stream in streams if stream.codec_context is not None]
    if not readable:
        raise BadSource("unreadable", "FFmpeg has no decoder for its video codec")
    return max(readable, key=lambda stream: stream.width * stream.height)


def video_streams(container: Any) -> list[Any]:
    """All streams of moving pictures, in their order."""
    picture = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    # An audio file's cover picture is a video stream too.
    return [stream for stream in container.streams.video if not stream.disposition & picture]


def _rate(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(rate) if rate else 25.0


def stream_origin(stream: Any) -> float:
    """Where a stream begins, in seconds of its container's clock."""
    return float((stream.start_time or 0) * stream.time_base)


def _measured_seconds(container: Any, stream: Any, claimed: float) -> float:
    """Length by the time stamps of the last packets; 0 (unknown) where they can't be found."""
    origin = stream_origin(stream)
    try:
        container.seek(int((origin + claimed) / stream.time_base), stream=stream, backward=True)
        stamps = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
    except (av.FFmpegError, OSError, OverflowError):
        return 0.0
    return float(max(stamps) * stream.time_base) - origin + 1 / _rate(stream) if stamps else 0.0


def _check_whole(file: Path) -> None:
    """Refuses a Matroska file that is shorter than it says: FFmpeg ends such a file without an error."""
    try:
        with file.open("rb") as stream:
            start = stream.read(256)
    except OSError as error:
        raise BadSource("unreadable", _text(error)) from error
    place = start.find(b"\x18\x53\x80\x67")
    if not start.startswith(b"\x1a\x45\xdf\xa3") or not 0 <= place < len(start) - 12:
        return
    first = start[place + 4]
    width = 9 - first.bit_length()
    bits = 7 * width
    size = int.from_bytes(start[place + 4 : place + 4 + width], "big") & ((1 << bits) - 1)
    missing = place + 4 + width + size - file.stat().st_size
    if first and size != (1 << bits) - 1 and missing > 0:  # all ones: written live, length unknown
        raise BadSource("damaged", f"the file is cut off: {missing} bytes are missing at its end")


def _within(pictures: Iterable[tuple[float, Any]], span: Span | None) -> Iterator[tuple[float, Any]]:
    start, end = span or (-math.inf, math.inf)
    count = 0
    for time, picture in pictures:
        count += 1
        if time >= start and picture.is_corrupt:
            raise BadSource("damaged", f"the picture at {time:.2f} s is corrupt")
        if time >= end:
            return
        if time >= start:
            yield time, picture
    if count == 0:
        raise BadSource("no-video", "the video stream has no frames")


def _sought(
    container: Any, stream: Any, pictures: Iterator[tuple[float, Any]], place: tuple[float, float], lead: float
) -> Iterator[tuple[float, Any]] | None:
    """Pictures from some time before `place` (origin and start) on; None where seeking does not lead there."""
    origin, start = place
    if lead == 0 and container.format.name in _UNINDEXED:
        return None
    try:
        container.seek(int((origin + start - lead) / stream.time_base), stream=stream, backward=True)
    except (av.FFmpegError, OSError):
        return None
    first = next(pictures, None)
    return None if first is None or first[0] > start else itertools.chain([first], pictures)


def _decoded(container: Any, stream: Any, origin: float) -> Iterator[tuple[float, Any]]:
    """Pictures from here on, with their seconds after `origin`.

    What precedes the first key frame can't be decoded and is left out.
    """
    rate, count, key = _rate(stream), 0, False
    last = -math.inf
    for packet in container.demux(stream):
        begin_step()
        key = key or packet.is_keyframe  # its own picture may be cut away by an edit list
        try:
            pictures = packet.decode()
        except (av.FFmpegError, OSError) as error:
            if not key:
                continue
            raise BadSource("damaged", f"decoding failed after {count} frames: {_text(error)}") from error
        for picture in pictures:
            key = key or picture.key_frame
            if key:
                time = count / rate if picture.time is None else picture.time - origin
                if time < last - _GUESSED:
                    origin -= last + 1 / rate - time
                    time = last + 1 / rate
                # Where B-frames have no time stamps of their own (AVI), guesses step back and forth; order is right.
                last = max(time, last + _LEAST_STEP)
                yield last, picture
                count += 1


def _resampled(pictures: Iterable[tuple[float, Any]], fps: float, start: float | None) -> Iterator[tuple[float, Any]]:
    shown: tuple[float, Any] | None = None
    tick = 0
    for time, picture in pictures:
        if shown is None:
            start = time if start is None else start
        elif time - shown[0] <= _LONGEST_HOLD:
            # Ticks before the first picture show nothing; a tick shows the picture that is on screen then.
            while (due := (start or 0.0) + tick / fps) < time:
                if due >= shown[0]:
                    yield due, shown[1]
                tick += 1
        else:
            yield (start or 0.0) + tick / fps, shown[1]
            start, tick = time, 0
        shown = time, picture
    if shown is not None:
        yield (start or 0.0) + tick / fps, shown[1]


def _as_shown(picture: Any, aspect: Fraction | None, colours: VideoReformatter) -> Image:
    width, height = picture.width, picture.height
    if aspect and 1 / 4 <= aspect <= 4:  # others are mistakes
        # Never shrunk: the side that is too short grows.
        width, height = round(width * max(aspect, 1)), round(height / min(aspect, 1))
    # A picture's own conversion would set up a scaler, with threads of its own, and take them down, for each frame.
    shown: Any = colours.reformat(picture, format="rgb24", width=width, height=height, threads=1)
    rgb: Image = shown.to_ndarray()
    return upright(rgb, picture.rotation)


def upright(shown: Image, rotation: float) -> Image:
    """An array (H, W, …) turned by the degrees that a decoded picture asks for."""
    turns = round(rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(shown, turns)) if turns else shown


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
