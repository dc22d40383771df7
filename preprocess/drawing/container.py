"""A drawn video as a file: pictures, exact label maps as a second video stream, and sound."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from preprocess.arrays import Image
from preprocess.decode.audio import RATE
from preprocess.drawing import FPS
from preprocess.drawing.speech import Sound

_CODING = {"preset": "veryfast", "threads": "1"}
# The macroblock tree of libx264 comes out differently from call to call.
_SAME_EACH_TIME = {"x264-params": "mbtree=0"}
_SOUND_BITS = 64_000


def write_video(path: Path, frames: Iterable[tuple[Image, Image]], size: int, sound: Sound, crf: int) -> None:
    """Writes one MP4 file: H.264 pictures, lossless H.264 label maps (grey values are region numbers), AAC sound.

    Args:
        path: the file.
        frames: pictures (size, size, 3) with their label maps (size, size).
        size: in pixels, even.
        sound: mono samples at 16 kHz, -1 to 1.
        crf: quality of the pictures, 0 (best) to 51.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        pictures = _video_stream(container, size, "yuv420p", {"crf": str(crf), **_SAME_EACH_TIME})
        regions = _video_stream(container, size, "gray", {"qp": "0"})
        voice = container.add_stream("aac", rate=RATE, layout="mono", bit_rate=_SOUND_BITS)
        voice.codec_context.flags |= av.codec.context.Flags.bitexact
        for number, (rgb, labels) in enumerate(frames):
            for stream, plane, form in ((pictures, rgb, "rgb24"), (regions, labels, "gray")):
                picture = av.VideoFrame.from_ndarray(plane, format=form)
                picture.pts, picture.time_base = number, Fraction(1, FPS)
                container.mux(stream.encode(picture))
        spoken = av.AudioFrame.from_ndarray(np.clip(sound, -1, 1)[None], format="fltp", layout="mono")
        spoken.sample_rate, spoken.time_base, spoken.pts = RATE, Fraction(1, RATE), 0
        container.mux(voice.encode(spoken))
        for stream in (pictures, regions, voice):
            container.mux(stream.encode())


def _video_stream(container: Any, size: int, pix_fmt: str, options: dict[str, str]) -> Any:
    stream = container.add_stream("libx264", rate=FPS, options={**_CODING, **options})
    stream.width = stream.height = size
    stream.pix_fmt = pix_fmt
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    return stream
