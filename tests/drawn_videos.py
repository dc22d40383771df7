"""Videos made by the tests themselves."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_video(path: Path, frames: NDArray[np.uint8], fps: int = 30, rotation: int = 0) -> Path:
    """Writes frames (F, H, W, 3) RGB as H.264; `rotation` is the angle in the container's metadata."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "12", "preset": "veryfast", "threads": "1"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def write_audio(path: Path, seconds: float = 1.0) -> Path:
    """Writes a silent file with an audio stream only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, int(16000 * seconds)), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
        for part in (frame, None):
            container.mux(stream.encode(part))
    return path


def with_tone(path: Path, video: Path, seconds: float, rate: int = 16000) -> Path:
    """Writes a copy of a video with a tone as its sound."""
    tone = np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * 440 / rate).astype(np.float32) / 2
    with av.open(str(video)) as given, av.open(str(path), "w") as container:
        pictures = container.add_stream_from_template(given.streams.video[0])
        sound = container.add_stream("aac", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                container.mux(packet)
        for part in (frame, None):
            container.mux(sound.encode(part))
    return path


def counting_frames(count: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Frames that show their number (below 256) as eight black or white bars."""
    bits = np.arange(count)[:, None] >> np.arange(8) & 1
    bars = np.repeat((bits * 255).astype(np.uint8), width // 8, axis=1)
    return np.broadcast_to(bars[:, None, :, None], (count, height, width, 3)).copy()


def number_of(rgb: NDArray[np.uint8]) -> int:
    """Which of the counting frames this is."""
    bars = rgb.mean(axis=(0, 2)).reshape(8, -1).mean(axis=1) > 127
    return int((bars << np.arange(8)).sum())
