"""The sound of a span of a video, in step with its pictures."""

import io
import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from preprocess.decode.video import opened, stream_origin, video_stream
from preprocess.quarantine import BadSource

RATE = 16000
"""Samples per second of stored sound."""

Sound = NDArray[np.float64]

# Decoding starts so much before a span, in seconds: codecs need some sound to get into step, and seeking is coarse.
# The last is the beginning of the file.
_LEADS = (1.0, 30.0, math.inf)
# Time stamps are rounded and jitter by less, in seconds; a larger step is a gap or an overlap.
_JITTER = 0.05
# Sound around a span that the filter of the resampling may need, in seconds.
_EDGE = 0.05


def flac(file: Path, start: float, end: float) -> bytes | None:
    """The sound of a span as mono 16-bit FLAC at 16 kHz; the same bytes at every call.

    The length is exactly round((end - start) * 16000) samples: what the file has no sound for, or none that can be
    decoded, is silent. A long file is not decoded from its beginning.

    Args:
        file: a local video; a folder of frames has no sound.
        start, end: seconds on the clock of `Frame.time`, that is from the video stream's first picture.

    Returns:
        None where there is no sound track.

    Raises:
        BadSource: the file can't be opened, or has no video.
    """
    sound = None if file.is_dir() else _sound(file, start, end)
    return None if sound is None else encode_flac(sound)


def read_sound(file: Path | IO[bytes]) -> Sound:
    """All the sound of a file, with or without pictures: mono samples at 16 kHz, what `sound_frames` gives.

    Channels are averaged.

    Raises:
        BadSource: the file can't be opened, has no sound track, or none of it can be decoded.
    """
    parts = [
        _resampled(np.concatenate([_mono(frame) for frame in frames]), rate)
        for rate, frames in groupby(sound_frames(file), key=lambda frame: int(frame.sample_rate))
    ]
    if not parts:
        raise BadSource("damaged", "none of its sound can be decoded")
    return np.concatenate(parts)


def sound_frames(file: Path | IO[bytes]) -> Iterator[Any]:
    """PyAV's frames of the sound of a file, each right after the one before, whatever time stamps say.

    Of several sound tracks it is the one a player would choose. What is damaged is left out.

    Raises:
        BadSource: the file can't be opened, or has no sound track.
    """
    with opened(file) as container:
        stream = container.streams.best("audio")
        if stream is None or stream.codec_context is None:
            raise BadSource("unreadable", "it has no sound that FFmpeg can decode")
        stream.codec_context.thread_count = 1
        for frame in _decoded(container, stream):
            if frame.samples:
                yield frame


def _sound(file: Path, start: float, end: float) -> Sound | None:
    for lead in _LEADS:
        with opened(file) as container:
            stream = container.streams.best("audio")
            if stream is None or stream.codec_context is None:
                return None
            stream.codec_context.thread_count = 1
            pieces = _pieces(container, stream, start - lead - _EDGE, end + _EDGE)
            if pieces is not None:
                return _placed(pieces, start, end)
    raise AssertionError("reading from the beginning needs no seeking")


def _pieces(container: Any, stream: Any, since: float, until: float) -> list[tuple[float, int, Sound]] | None:
    """Decoded sound as (second, samples per second, mono samples); None where seeking went too far."""
    zero = stream_origin(video_stream(container))
    first = stream_origin(stream) - zero
    sought = since > max(first, 0.0)
    if sought:
        try:
            container.seek(int((since + zero) / stream.time_base), stream=stream, backward=True)
        except (av.FFmpegError, OSError):
            return None
    pieces: list[tuple[float, int, Sound]] = []
    for frame in _decoded(container, stream):
        if frame.time is None:
            time = pieces[-1][0] + len(pieces[-1][2]) / pieces[-1][1] if pieces else first
        else:
            time = frame.time - zero
        if sought and not pieces and time > since + _LEADS[0]:
            return None
        if time >= until:
            break
        if frame.samples:
            pieces.append((time, frame.sample_rate, _mono(frame)))
    return None if sought and not pieces else pieces


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    packets = container.demux(stream)
    with suppress(av.FFmpegError, OSError):  # a file that is cut off ends here
        for packet in packets:
            with suppress(av.FFmpegError):  # a damaged packet is silent
                yield from packet.decode()


def _mono(frame: Any) -> Sound:
    samples = frame.to_ndarray()
    samples = samples if frame.format.is_planar else samples.reshape(-1, len(frame.layout.channels)).T
    middle, scale = 0.0, 1.0
    if samples.dtype.kind != "f":
        info = np.iinfo(samples.dtype)
        scale = (float(info.max) - float(info.min) + 1) / 2
        middle = 0.0 if info.min < 0 else scale
    mono: Sound = np.nan_to_num((samples.astype(np.float64) - middle) / scale).mean(axis=0)
    return mono


def _placed(pieces: list[tuple[float, int, Sound]], start: float, end: float) -> Sound:
    """The samples of [start, end) at `RATE`, each piece where its time stamp says."""
    length = round((end - start) * RATE)
    if not pieces:
        return np.zeros(length)
    rate = pieces[0][1]
    edge = math.ceil(_EDGE * rate)
    line = np.zeros(2 * edge + math.ceil((end - start) * rate) + 1)
    at: int | None = None
    for time, own_rate, samples in pieces:
        if own_rate != rate:
            continue  # a stream that changes its rate on the way: no codec of videos does
        due = edge + round((time - start) * rate)
        if at is None or abs(due - at) > _JITTER * rate:
            at = due
        low, high = max(0, -at), min(len(samples), len(line) - at)
        if high > low:
            line[at + low : at + high] = samples[low:high]
        at += len(samples)
    up, down = _ratio(rate)
    # The filter keeps the beginning where it is, so the edge must end on a sample of the new rate.
    skip = math.ceil(edge * up / down)
    offset = round(skip * down / up) - edge
    line = np.concatenate([np.zeros(offset), line]) if offset else line
    resampled: Sound = resample_poly(line, up, down) if up != down else line
    return resampled[skip : skip + length]


def _resampled(samples: Sound, rate: int) -> Sound:
    up, down = _ratio(rate)
    resampled: Sound = resample_poly(samples, up, down) if up != down else samples
    return resampled


def _ratio(rate: int) -> tuple[int, int]:
    """From a rate to `RATE`: by what to multiply and to divide."""
    common = math.gcd(RATE, rate)
    return RATE // common, rate // common


def encode_flac(sound: Sound) -> bytes:
    """Mono sound at 16 kHz, -1 to 1, as 16-bit FLAC; the same bytes at every call."""
    samples = np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16)
    buffer = io.BytesIO()
    # Bit-exact: no names and versions of the software in the file.
    with av.open(buffer, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono", format="s16")
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        stream.codec_context.thread_count = 1
        block = 4096
        for first in range(0, len(samples), block):
            frame = av.AudioFrame.from_ndarray(samples[None, first : first + block], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
