"""Videos in odd codecs, shapes and containers, written with PyAV, and files that were damaged afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
MILLISECONDS = Fraction(1, 1000)


@dataclass(frozen=True)
class Coding:
    """How a stream is encoded.

    Attributes:
        rotation: degrees in the container's metadata.
        aspect: width of a pixel over its height.
        times: milliseconds of each frame; None is 30 a second.
    """

    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    rotation: int = 0
    aspect: Fraction | None = None
    times: Sequence[int] | None = None


H264 = Coding()


def encode(path: Path, frames: Frames, coding: Coding = H264, format: str | None = None, **options: str) -> Path:
    """Writes frames (F, H, W, 3) RGB as one stream; keywords are options of the container."""
    return encode_streams(path, [(frames, coding)], format, **options)


def encode_streams(
    path: Path, streams: Sequence[tuple[Frames, Coding]], format: str | None = None, **options: str
) -> Path:
    """Writes one video stream for each array of frames."""
    with av.open(str(path), "w", format=format, options=options) as output:
        added = [add_stream(output, frames, coding) for frames, coding in streams]
        for stream, (frames, coding) in zip(added, streams, strict=True):
            write_frames(output, stream, frames, coding)
    return path


def encode_live(path: Path, frames: Frames, coding: Coding = H264, format: str = "matroska", **options: str) -> Path:
    """Writes frames as a recorder does that can never go back: where the format needs that, no length and no index."""
    with path.open("wb") as file, av.open(_OneWay(file), "w", format=format, options=options) as output:
        write_frames(output, add_stream(output, frames, coding), frames, coding)
    return path


class _OneWay:
    """A file that can be written on only."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def add_stream(output: Any, frames: Frames, coding: Coding = H264) -> Any:
    """A stream for frames of this size in an open container."""
    preset = {"crf": "8", "preset": "ultrafast"} if coding.codec == "libx264" else {}
    stream = output.add_stream(coding.codec, rate=30, options={"threads": "1", **preset, **coding.options})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = coding.pix_fmt
    if coding.times is not None:
        stream.codec_context.time_base = MILLISECONDS
    if coding.rotation:
        stream.set_display_rotation(coding.rotation)
    if coding.aspect is not None:
        stream.codec_context.sample_aspect_ratio = coding.aspect
    return stream


def write_frames(output: Any, stream: Any, frames: Frames, coding: Coding = H264) -> None:
    """Encodes frames into a stream of an open container."""
    for number, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        if coding.times is not None:
            picture.pts, picture.time_base = coding.times[number], MILLISECONDS
        output.mux(stream.encode(picture))
    output.mux(stream.encode())


def without_first_packets(source: Path, path: Path, count: int) -> Path:
    """Copies a video without its first packets, so that it begins in the middle of a group of pictures."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(given.streams.video[0])):
            if packet.dts is not None and number >= count:
                packet.stream = stream
                output.mux(packet)
    return path


def resized(frames: Frames, width: int, height: int) -> Frames:
    """Frames in another size."""
    shape = (width, height)
    return np.stack([cv2.resize(frame, shape, interpolation=cv2.INTER_CUBIC) for frame in frames]).astype(np.uint8)


def turned(frames: Frames, degrees: int) -> Frames:
    """Frames as a camera that was turned by so much stores them."""
    return np.ascontiguousarray(np.rot90(frames, -degrees // 90, axes=(1, 2)))


def keep_share(path: Path, share: float) -> Path:
    """Cuts the end of a file off."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def overwrite(path: Path, old: bytes, new: bytes) -> Path:
    """Replaces bytes of a file by as many others; they must be there."""
    data = path.read_bytes()
    if old not in data or len(old) != len(new):
        raise ValueError(f"{path} does not hold {old!r}")
    path.write_bytes(data.replace(old, new))
    return path


def scramble(path: Path, start: float, end: float) -> Path:
    """Replaces a part of a file (shares of its length) by noise."""
    data = bytearray(path.read_bytes())
    a, b = int(len(data) * start), int(len(data) * end)
    data[a:b] = np.random.default_rng(0).bytes(b - a)
    path.write_bytes(data)
    return path
