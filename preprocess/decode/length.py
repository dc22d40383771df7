"""Measures videos whose header does not say how long they are: recordings written live, bare streams.

Nothing is decoded. Each cluster of a Matroska or WebM file has its time, so the two ends of the file are enough. All
else is read once from beginning to end, in order.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import IO, Any, cast

import av

from preprocess.decode.video import opened, probe, stream_origin, video_stream
from preprocess.quarantine import BadSource

# A cluster that begins with its time: its ID, its length in one to eight bytes, perhaps a checksum, the ID of the time.
_LENGTH = (
    rb"(?:[\x80-\xff]|[\x40-\x7f].|[\x20-\x3f].{2}|[\x10-\x1f].{3}"
    rb"|[\x08-\x0f].{4}|[\x04-\x07].{5}|[\x02-\x03].{6}|\x01.{7})"
)
_CLUSTER = re.compile(rb"\x1f\x43\xb6\x75" + _LENGTH + rb"(?:\xbf\x84.{4})?\xe7", re.DOTALL)
_HEAD = 1 << 20
# Bytes at the end in which the last cluster is looked for, one after the other.
_TAILS = (1 << 20, 8 << 20)


def measured_seconds(stream: IO[bytes], halt: Event) -> float:
    """Length by the time stamps of the last packets, or by the count of packets where they have none.

    Args:
        stream: the whole video, seekable.
        halt: once it is set, nobody waits for the answer any more.

    Returns:
        Seconds as `read_frames` counts them; 0 where there are no packets.

    Raises:
        BadSource: it is no readable video container, or has no video stream.
    """
    stream = cast("IO[bytes]", _UntilHalt(stream, halt))
    frame = 1 / probe(stream).fps
    with _reopened(stream) as container:
        video = video_stream(container)
        origin, index = stream_origin(video), video.index
        clustered = "matroska" in container.format.name
    last = _last_cluster(stream, index) if clustered else None
    if last is None:
        with _reopened(stream) as container:
            count, last = _packets(container, video_stream(container))
        if last is None:
            return count * frame
    return max(0.0, last - origin + frame)


class _UntilHalt:
    """A stream that ends as soon as nobody waits for it."""

    def __init__(self, stream: IO[bytes], halt: Event) -> None:
        self._stream, self._halt = stream, halt
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        return b"" if self._halt.is_set() else self._stream.read(size)


@contextmanager
def _reopened(stream: IO[bytes]) -> Iterator[Any]:
    stream.seek(0)
    with opened(stream) as container:
        yield container


def _packets(container: Any, video: Any) -> tuple[int, float | None]:
    """How many packets there are, and the latest time stamp in seconds; None where they have none."""
    count, last = 0, None
    try:
        for packet in container.demux(video):
            count += packet.size > 0
            if packet.pts is not None:
                last = packet.pts if last is None else max(last, packet.pts)
    except (av.FFmpegError, OSError):
        pass  # cut off or damaged there: what comes before it counts
    return count, None if last is None else float(last * video.time_base)


def _last_cluster(stream: IO[bytes], index: int) -> float | None:
    """The latest time stamp of a Matroska file: FFmpeg is given its head and its last clusters as one file."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(_HEAD)
    first = _CLUSTER.search(head)
    for length in _TAILS:
        if first is None or length >= size - first.start():
            return None
        stream.seek(size - length)
        tail = stream.read(length)
        if cluster := _CLUSTER.search(tail):
            both = io.BytesIO(head[: first.start()] + tail[cluster.start() :])
            try:
                with opened(both) as container:
                    _, last = _packets(container, container.streams[index])
            except (BadSource, IndexError):
                return None
            if last is not None:
                return last
    return None
