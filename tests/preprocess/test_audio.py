"""The sound of samples: in step with the pictures, sample-exact, without decoding long files from their beginning."""

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from drawn_videos import write_video
from numpy.typing import NDArray

from preprocess.decode import audio
from preprocess.decode.audio import RATE, flac
from preprocess.decode.video import read_frames
from preprocess.quarantine import BadSource

FPS = 25
Samples = NDArray[np.float64]


def decoded(data: bytes | None) -> Samples:
    """Samples of a FLAC file, -1 to 1."""
    assert data is not None
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.layout.name, stream.codec_context.format.name) == (RATE, "mono", "s16")
        parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(stream)]
    return np.concatenate(parts) / 32768


def write_talkie(
    path: Path, codec: str, sound: Samples, rate: int, *, video_at: float = 0, sound_at: float = 0, channels: int = 1
) -> Path:
    """A video whose pictures are white while the (noisy) sound is loud; both begin at their own time."""
    seconds = len(sound) / rate
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4" if path.suffix != ".webm" else "libvpx", rate=FPS)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream(codec, rate=rate, layout="stereo" if channels == 2 else "mono")
        packets: list[Any] = []
        for number in range(round(seconds * FPS)):
            middle = round((number + 0.5) / FPS * rate)
            shade = 255 if abs(sound[middle : middle + rate // 100]).max() > 0.1 else 0
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + round(video_at * FPS), Fraction(1, FPS)
            packets += pictures.encode(frame)
        resampler = av.AudioResampler(format=track.codec_context.format or "fltp", layout=track.layout, rate=rate)
        for first in range(0, len(sound), 1024):
            block = np.tile(sound[None, first : first + 1024], (channels, 1)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo" if channels == 2 else "mono")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = first + round(sound_at * rate)
            for part in resampler.resample(frame):
                packets += track.encode(part)
        packets += pictures.encode() + track.encode()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def bursts(seconds: float, rate: int) -> Samples:
    """Noise of 0.2 s at the beginning of every second, quiet between."""
    times = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, len(times))
    return np.where(times % 1 < 0.2, noise, 0.0)


def onsets(sound: Samples) -> Samples:
    """Seconds at which noise begins after silence."""
    loud = np.convolve(abs(sound) > 0.05, np.ones(16), "full")[: len(sound)] > 0
    starts = np.flatnonzero(loud & ~np.concatenate([[False], loud[:-1]]))
    kept = starts[np.concatenate([[True], np.diff(starts) > RATE // 3])]
    return kept / RATE


@dataclass(frozen=True)
class Talkie:
    """Container, codec and clocks of a video with sound."""

    kind: str
    codec: str
    rate: int
    channels: int = 1
    video_at: float = 0.0
    sound_at: float = 0.0


TALKIES = [
    Talkie("mp4", "aac", 44100, channels=2),
    Talkie("mp4", "aac", 48000, sound_at=0.4),
    Talkie("mkv", "pcm_s16le", 48000, video_at=0.4),
    Talkie("mkv", "aac", 44100, sound_at=1.2),
    Talkie("webm", "libopus", 48000, channels=2),
    Talkie("avi", "pcm_s16le", 22050),
    Talkie("avi", "libmp3lame", 44100),
    Talkie("mpg", "mp2", 48000),
    Talkie("ts", "aac", 48000, sound_at=0.4),
    Talkie("mov", "pcm_u8", 8000),
]


@pytest.mark.parametrize("talkie", TALKIES, ids=lambda talkie: f"{talkie.kind}-{talkie.codec}")
def test_sound_begins_with_its_picture(talkie: Talkie, tmp_path: Path) -> None:
    film = write_talkie(
        tmp_path / f"film.{talkie.kind}",
        talkie.codec,
        bursts(40, talkie.rate),
        talkie.rate,
        video_at=talkie.video_at,
        sound_at=talkie.sound_at,
        channels=talkie.channels,
    )
    shift = talkie.sound_at - talkie.video_at
    # AVI has no place to say how much silence the MP3 encoder put in front: players show the same delay.
    tolerance = 0.03 if talkie.codec == "libmp3lame" else 0.002
    for start, end in ((0.0, 5.0), (20.5, 24.5), (33.25, 39.0)):
        heard = onsets(decoded(flac(film, start, end))) + start
        expected = np.arange(50) + shift
        # Not the beginning of the track, which some codecs smear.
        inside = expected[(expected > max(start, shift) + 0.05) & (expected < end - 0.05)]
        heard = heard[(heard > max(start, shift) + 0.05) & (heard < end - 0.01)]
        assert len(heard) == len(inside)
        assert abs(heard - inside).max() < tolerance, (start, heard - inside)


def test_the_clock_is_that_of_the_frames(tmp_path: Path) -> None:
    film = write_talkie(tmp_path / "film.mp4", "aac", bursts(10, 44100), 44100)
    white = [frame.time for frame in read_frames(film, span=(3.5, 6.5)) if frame.rgb.mean() > 127]
    heard = onsets(decoded(flac(film, 3.5, 6.5))) + 3.5
    first = [time for time in white if time - 1 / FPS not in [round(other, 6) for other in white]]
    assert white[0] == pytest.approx(4.0, abs=1 / FPS)
    assert heard[0] == pytest.approx(first[0], abs=1 / FPS)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (0.123, 2.56), (1.0, 1.0 + 64 / 29.97), (1.5, 9.0), (7.0, 8.0)])
def test_the_length_is_exact_and_lossless_where_nothing_is_converted(start: float, end: float, tmp_path: Path) -> None:
    sound = np.round(bursts(3, RATE) * 32768) / 32768
    film = write_talkie(tmp_path / "film.mov", "pcm_s16le", sound, RATE)
    heard = decoded(flac(film, start, end))
    assert len(heard) == round((end - start) * RATE)
    first = round(start * RATE)
    expected = np.zeros(len(heard))
    given = sound[first : first + len(heard)]
    expected[: len(given)] = given
    np.testing.assert_array_equal(heard, expected)


def test_the_same_bytes_at_every_call_and_no_names_of_software(tmp_path: Path) -> None:
    film = write_talkie(tmp_path / "film.mp4", "aac", bursts(5, 44100), 44100)
    first = flac(film, 1.0, 3.0)
    assert first is not None
    assert flac(film, 1.0, 3.0) == first
    assert b"Lavf" not in first


def test_a_long_file_is_not_decoded_from_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = write_talkie(tmp_path / "film.mp4", "aac", bursts(60, 16000), 16000)
    whole = decoded(flac(film, 0.0, 60.0))
    count = 0
    mono = audio._mono

    def counted(frame: Any) -> Samples:
        nonlocal count
        count += frame.samples
        return mono(frame)

    monkeypatch.setattr(audio, "_mono", counted)
    part = decoded(flac(film, 50.0, 52.0))
    assert count < 5 * 16000
    # Not the same to the bit: this codec fills bands with noise of its own, which depends on where decoding starts.
    assert np.corrcoef(part, whole[50 * RATE : 52 * RATE])[0, 1] > 0.98


def test_a_silent_video_has_no_sound(tmp_path: Path) -> None:
    film = write_video(tmp_path / "silent.mp4", np.zeros((10, 48, 64, 3), np.uint8))
    assert flac(film, 0.0, 0.2) is None
    assert flac(tmp_path, 0.0, 0.2) is None
    with pytest.raises(BadSource, match="unreadable"):
        flac(tmp_path / "gone.mp4", 0.0, 0.2)


def test_damaged_sound_is_silent_and_the_rest_stays_in_place(tmp_path: Path) -> None:
    film = write_talkie(tmp_path / "film.ts", "mp2", bursts(20, 48000), 48000)
    data = bytearray(film.read_bytes())
    middle = len(data) // 2 // 188 * 188
    data[middle : middle + 188 * 40] = bytes(188 * 40)
    film.write_bytes(data)
    heard = onsets(decoded(flac(film, 0.0, 20.0)))
    assert len(heard) >= 16
    assert abs(heard - np.round(heard)).max() < 0.3
    assert np.median(abs(heard - np.round(heard))) < 0.004


def test_a_video_that_is_cut_off_keeps_the_sound_before(tmp_path: Path) -> None:
    film = write_talkie(tmp_path / "film.mkv", "aac", bursts(20, 44100), 44100)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    heard = decoded(flac(film, 0.0, 18.0))
    assert len(heard) == 18 * RATE
    assert 5 <= len(onsets(heard)) <= 12
