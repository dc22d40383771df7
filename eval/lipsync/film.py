"""Writes a dubbed video: H.264 at its size, sound, and the mark that it is synthetic."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import av
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

from eval.lipsync.faces import Image
from eval.lipsync.mel import FPS
from pipeline.errors import MarlinError
from pipeline.storage.atomic import os_error, whole_file
from preprocess.decode.audio import sound_frames
from preprocess.quarantine import BadSource

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's name for real pictures of which a model drew a part."""

_CRF = "18"
_RATE, _BIT_RATE = 48_000, 160_000


def write_film(out: Path, frames: Iterable[Image], size: tuple[int, int], sound: Path, comment: str) -> None:
    """Write an MP4 file, whole or not at all.

    Args:
        out: the file.
        frames: RGB bytes (H, W, 3) at 25 a second.
        size: width and height; with an odd one, colours are kept at full resolution, which fewer players show.
        sound: file whose sound is put beside them, as `read_sound` reads it.
        comment: of the metadata, beside `SOURCE_TYPE`.

    Raises:
        MarlinError: it can't be written, or the sound can't be read.
    """
    try:
        with whole_file(out) as file:
            # Names of our own in the metadata of an MP4 need to be asked for.
            options = {"movflags": "use_metadata_tags"}
            with av.open(file, "w", format="mp4", options=options) as container:
                container.metadata.update({"comment": comment, "digital_source_type": SOURCE_TYPE})
                _write(container, frames, size, sound)
    except OSError as error:
        raise os_error(out, error) from None
    except av.FFmpegError as error:
        raise MarlinError(f"{out}: FFmpeg can't write it: {error}") from None


def _write(container: Any, frames: Iterable[Image], size: tuple[int, int], sound: Path) -> None:
    video = _video_stream(container, size)
    colours = VideoReformatter()
    with closing(_read(sound)) as source:
        first = next(source)
        layout = "mono" if first.layout.nb_channels == 1 else "stereo"
        voice = container.add_stream("aac", rate=_RATE, layout=layout, bit_rate=_BIT_RATE)
        samples = _resampled(chain([first], source), layout)
        said = 0
        for number, rgb in enumerate(frames):
            picture = _coded(colours, rgb, video.pix_fmt)
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(picture))
            # Pictures and sound in turns, so that neither waits in memory for the other.
            while said * FPS < (number + 1) * _RATE and (piece := next(samples, None)) is not None:
                said = _speak(container, voice, piece, said)
        for piece in samples:
            said = _speak(container, voice, piece, said)
    for stream in (video, voice):
        container.mux(stream.encode())


def _video_stream(container: Any, size: tuple[int, int]) -> Any:
    video = container.add_stream("libx264", rate=FPS, options={"crf": _CRF})
    video.width, video.height = size
    video.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
    # Without a tag, players guess what colours mean by the size of the picture.
    coded = video.codec_context
    coded.colorspace, coded.color_range = Colorspace.ITU709, ColorRange.MPEG
    coded.color_primaries, coded.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    return video


def _coded(colours: VideoReformatter, rgb: Image, pix_fmt: str) -> Any:
    return colours.reformat(
        av.VideoFrame.from_ndarray(rgb, format="rgb24"),
        format=pix_fmt,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        dst_color_primaries=ColorPrimaries.BT709,
        dst_color_trc=ColorTrc.BT709,
    )


def _speak(container: Any, voice: Any, piece: Any, said: int) -> int:
    piece.pts, piece.time_base = said, Fraction(1, _RATE)
    container.mux(voice.encode(piece))
    return said + int(piece.samples)


def _read(sound: Path) -> Generator[Any, None, None]:
    try:
        yield from sound_frames(sound)
    except (BadSource, av.FFmpegError, OSError) as bad:
        raise MarlinError(f"{sound}: {bad}") from None


def _resampled(frames: Iterable[Any], layout: str) -> Iterator[Any]:
    """The sound at `_RATE`. A resampler takes one kind of frames: where a stream changes, another one goes on."""
    for _, alike in groupby(frames, key=lambda frame: (frame.format.name, frame.layout.name, frame.sample_rate)):
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=_RATE)
        for frame in alike:
            frame.pts = None
            yield from resampler.resample(frame)
        yield from resampler.resample(None)
