"""`marlin lipsync`: length, size, sound and mark of what it writes, and what it can't take."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from drawn_runs import MakeRun
from drawn_videos import write_audio, write_video
from hypothesis import given
from hypothesis import strategies as st
from talking import pictures, talks

from eval.lipsync import dub
from eval.lipsync.film import SOURCE_TYPE, write_film
from eval.lipsync.generator import Form, Generator
from eval.lipsync.weights import generator_bytes
from pipeline.cli import main
from pipeline.config.schema import PreprocessConfig
from pipeline.errors import MarlinError
from pipeline.layout import run_store
from preprocess.decode.audio import RATE, read_sound
from preprocess.decode.video import read_frames
from preprocess.follow import FaceTrack


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    path = tmp_path / "generator.safetensors"
    path.write_bytes(generator_bytes(Generator(Form("wav2lip", 32, 5, 1, 0.0))))
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """40 frames of a talking face, 64×64, without sound."""
    [talk, *_] = talks(3, 40)
    return write_video(tmp_path / "face.mp4", pictures(talk, 40, 64)[0], fps=25)


def write_sound(path: Path, seconds: float, rate: int, channels: int, *, gap: float = 0, tone_hz: int = 440) -> Path:
    """A tone in all channels; time stamps of its second half are later by the gap, in seconds."""
    tone = np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * tone_hz / rate) * 8000
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    codec, kind = ("aac", "fltp") if path.suffix == ".ts" else ("pcm_s16le", "s16")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        half = len(tone) // 2
        for begin, part in ((0, tone[:half]), (half + round(gap * rate), tone[half:])):
            samples = np.repeat(part.astype(np.int16), channels)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), begin
            for fit in av.AudioResampler(format=kind, layout=layout, rate=rate).resample(frame):
                container.mux(stream.encode(fit))
        container.mux(stream.encode())
    return path


def dubbed(generator: Path, video: Path, sound: Path, *more: str) -> Path:
    out = video.parent / "dubbed.mp4"
    assert main(["lipsync", str(video), str(sound), "-o", str(out), "-m", str(generator), *more]) == 0
    return out


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 1), (44100, 2), (48000, 6), (96000, 2)])
def test_sound_of_any_rate_and_channels_is_put_beside_the_pictures(
    generator: Path, video: Path, rate: int, channels: int
) -> None:
    sound = write_sound(video.parent / "sound.wav", 1.2, rate, channels)
    out = dubbed(generator, video, sound, "--cropped")
    heard, given = read_sound(out), read_sound(sound)
    assert len(given) / RATE == pytest.approx(1.2, abs=1e-3)
    assert len(heard) / RATE == pytest.approx(1.2, abs=0.1)  # AAC fills its last frame
    assert np.argmax(np.abs(np.fft.rfft(heard[:RATE]))) == pytest.approx(440, abs=2)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.channels == min(2, channels)
    frames = list(read_frames(out))
    assert len(frames) == 30
    assert frames[0].rgb.shape == (64, 64, 3)


@pytest.mark.parametrize(("seconds", "frames"), [(0.4, 10), (1.61, 41), (4.0, 100)])
def test_the_video_is_as_long_as_the_sound(generator: Path, video: Path, seconds: float, frames: int) -> None:
    sound = write_sound(video.parent / "sound.wav", seconds, 16000, 1)
    out = dubbed(generator, video, sound, "--cropped")
    shown = [frame.rgb.astype(int) for frame in read_frames(out)]
    assert len(shown) == frames
    given = [frame.rgb.astype(int) for frame in read_frames(video)]
    for place in range(0, frames, 7):  # it begins again where it ends; the upper half is that of the video
        assert np.abs(shown[place][:28] - given[place % 40][:28]).mean() < 5


def test_only_the_lower_half_of_the_face_is_drawn_anew(generator: Path, video: Path) -> None:
    out = dubbed(generator, video, write_sound(video.parent / "sound.wav", 1.6, 16000, 1), "--cropped")
    shown, given = (np.stack([f.rgb for f in read_frames(path)]).astype(int) for path in (out, video))
    changed = np.abs(shown - given).mean((0, 3))
    assert changed[:30].max() < 12  # coding
    assert changed[40:56, 16:48].mean() > 3 * changed[:30].mean()


def test_metadata_say_that_it_is_synthetic(generator: Path, video: Path) -> None:
    out = dubbed(generator, video, write_audio(video.parent / "speech.m4a"), "--cropped")
    with av.open(str(out)) as container:
        assert container.metadata["digital_source_type"] == SOURCE_TYPE
        assert container.metadata["comment"] == "Synthetic: lips drawn by marlin lipsync to the sound of speech.m4a"


def test_other_rates_are_resampled_and_the_sound_may_be_that_of_a_video(generator: Path, tmp_path: Path) -> None:
    [talk, *_] = talks(3, 60)
    video = write_video(tmp_path / "fast.mp4", pictures(talk, 60, 64)[0], fps=50)
    sound = write_sound(tmp_path / "tone.mkv", 1.0, 16000, 1)
    assert len(list(read_frames(dubbed(generator, video, sound, "--cropped")))) == 25


def test_odd_sizes_are_kept(generator: Path, tmp_path: Path) -> None:
    [talk, *_] = talks(3, 40)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(pictures(talk, 40, 64)[0][:, :63, :57, ::-1]):
        cv2.imwrite(str(folder / f"{number:03d}.png"), frame)
    sound = write_sound(tmp_path / "sound.wav", 1, 16000, 1)
    frames = list(read_frames(dubbed(generator, folder, sound, "--cropped")))
    assert frames[0].rgb.shape == (63, 57, 3)


def test_sound_is_what_the_lips_follow_whatever_time_stamps_say(generator: Path, video: Path) -> None:
    folder = video.parent
    gap = write_sound(folder / "gap.mkv", 1.6, 16000, 1, gap=2)
    early, late = (write_sound(folder / f"{n}.ts", 1.0, 48000, 1, tone_hz=n) for n in (440, 880))
    (folder / "both.ts").write_bytes(early.read_bytes() + late.read_bytes())  # the clock steps back
    stereo = write_sound(folder / "stereo.ts", 1.0, 44100, 2, tone_hz=880)
    (folder / "changes.ts").write_bytes(early.read_bytes() + stereo.read_bytes())
    for sound, seconds in ((gap, 1.6), (folder / "both.ts", 2.0), (folder / "changes.ts", 2.0)):
        read = read_sound(sound)
        assert len(read) / RATE == pytest.approx(seconds, abs=0.12)  # AAC begins and ends with some silence
        out = dubbed(generator, video, sound, "--cropped")
        assert len(list(read_frames(out))) == int(np.ceil(len(read) / RATE * 25))
        heard = read_sound(out)
        assert len(heard) / RATE == pytest.approx(len(read) / RATE, abs=0.05)
        for begin in range(RATE // 5, round(seconds * RATE) - RATE // 2, RATE // 4):
            spectra = [np.abs(np.fft.rfft(one[begin : begin + RATE // 4])) for one in (heard, read)]
            assert abs(int(spectra[0].argmax()) - int(spectra[1].argmax())) <= 1


def test_damaged_sound_is_left_out_of_both(generator: Path, video: Path) -> None:
    sound = write_sound(video.parent / "sound.ts", 3.0, 48000, 1)
    data = bytearray(sound.read_bytes())
    middle = len(data) // 2 // 188 * 188
    data[middle : middle + 188 * 8] = np.random.default_rng(0).bytes(188 * 8)
    sound.write_bytes(data)
    read = read_sound(sound)
    assert 1 < len(read) / RATE < 3
    heard = read_sound(dubbed(generator, video, sound, "--cropped"))
    assert len(heard) / RATE == pytest.approx(len(read) / RATE, abs=0.05)


def test_colours_are_those_that_the_file_says(generator: Path, tmp_path: Path) -> None:
    """By hand: red, 219 steps of its share of the light from 16 on, as BT.709 has it."""
    shown = np.broadcast_to(np.array([200, 40, 60], np.uint8), (30, 64, 64, 3))
    out = tmp_path / "film.mp4"
    write_film(out, shown, (64, 64), write_sound(tmp_path / "sound.wav", 1.2, 16000, 1), "")
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
        light = frame.to_ndarray()[:64].mean()
    assert light == pytest.approx(16 + 219 / 255 * (0.2126 * 200 + 0.7152 * 40 + 0.0722 * 60), abs=1)
    assert np.abs(next(iter(read_frames(out))).rgb.astype(int) - shown[0]).max() <= 3


def face(number: int, start: int, frames: int) -> FaceTrack:
    return FaceTrack(number, start, 25.0, frames, np.arange(start, start + frames)[:, None] * np.ones(3))


def spans(parts: list[FaceTrack]) -> list[tuple[int, int, int]]:
    return [(part.number, part.start, part.start + part.frames) for part in parts]


@pytest.mark.parametrize(
    ("tracks", "frames", "expected"),
    [
        ([(0, 100), (90, 90)], 500, [(0, 0, 100), (1, 100, 180)]),
        ([(0, 100), (90, 190)], 500, [(0, 0, 90), (1, 90, 280)]),
        ([(0, 100), (20, 10)], 500, [(0, 0, 100)]),
        ([(0, 50), (10, 1000)], 55, [(0, 0, 50), (1, 50, 55)]),  # what is not shown does not count
        ([(0, 10), (20, 10)], 15, [(0, 0, 10)]),
        ([(20, 10)], 15, []),
    ],
)
def test_every_face_is_dubbed_while_none_is_seen_that_is_seen_longer(
    tracks: list[tuple[int, int]], frames: int, expected: list[tuple[int, int, int]]
) -> None:
    assert spans(dub.in_turn([face(n, *span) for n, span in enumerate(tracks)], frames)) == expected


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), min_size=1, max_size=6), st.integers(1, 80))
def test_one_face_at_every_moment_that_has_any(tracks: list[tuple[int, int]], frames: int) -> None:
    parts = dub.in_turn([face(n, *span) for n, span in enumerate(tracks)], frames)
    dubbed_at = [at for part in parts for at in range(part.start, part.start + part.frames)]
    assert dubbed_at == [at for at in range(frames) if any(a <= at < a + n for a, n in tracks)]
    for part in parts:
        assert part.squares is not None
        assert part.squares[:, 0].tolist() == list(range(part.start, part.start + part.frames))


def test_faces_are_found_as_the_checkpoint_was_trained(
    generator: Path, video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[PreprocessConfig] = []

    def networks(cfg: PreprocessConfig) -> None:
        asked.append(cfg)
        raise MarlinError("enough")

    monkeypatch.setattr(dub, "face_networks", networks)
    out = video.parent / "dubbed.mp4"
    words = ["lipsync", "-o", str(out), "-m", str(generator), str(video)]
    words.append(str(write_sound(video.parent / "a.wav", 1, 16000, 1)))
    assert main([*words, "preprocess.min_face=20", "preprocess.size=320"]) == 1
    assert (asked[0].min_face, asked[0].size, asked[0].fps) == (20, 32, 25)
    assert main([*words, "model.size=tiny"]) == 2
    assert "model.size=tiny says nothing of how faces are found" in capsys.readouterr().err
    assert main([*words, "--encoder", "vit"]) == 2
    assert "has no generator 'vit': its face encoder is wav2lip" in capsys.readouterr().err


def test_settings_of_a_run_are_those_it_was_trained_with(make_run: MakeRun) -> None:
    run = make_run("preprocess.detect_threshold=0.7", "preprocess.models.detector=mine.onnx")
    found = dub.face_settings(run_store(run).url, Form("wav2lip", 64, 5, 1, 0.25), ["preprocess.min_face=20"])
    assert (found.detect_threshold, found.models.detector, found.min_face) == (0.7, "mine.onnx", 20)
    assert (found.fps, found.size, found.margin) == (25, 64, 0.25)


def test_frames_without_a_face_stay_as_they_are(generator: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = np.tile(np.array([32.0, 32.0, 50.0]), (12, 1))
    tracks = [
        FaceTrack(0, 10, 25.0, 12, squares),
        FaceTrack(1, 15, 25.0, 5, squares[:5]),
        FaceTrack(2, 30, 25.0, 5, squares[:5]),
    ]
    monkeypatch.setattr(dub, "face_networks", lambda cfg: (None, None))
    monkeypatch.setattr(dub, "find_tracks", lambda clip, cfg, *networks: tracks)
    out = dubbed(generator, video, write_sound(video.parent / "sound.wav", 1.6, 16000, 1))
    shown, given = (np.stack([f.rgb for f in read_frames(path)]).astype(int) for path in (out, video))
    changed = np.abs(shown - given)[:, 36:52, 20:44].mean((1, 2, 3))
    drawn = [*range(10, 22), *range(30, 35)]
    others = [place for place in range(40) if place not in drawn]
    assert changed[others].max() < changed[drawn].min()


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        ("silent.mp4", "it has no sound that FFmpeg can decode"),
        ("text.wav", "FFmpeg can't open it"),
        ("short.wav", "it lasts 0.10 s: give 0.2 s or more"),
        ("missing.wav", "missing.wav"),
    ],
)
def test_sound_that_is_none_is_refused(
    generator: Path, video: Path, sound: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = video.parent
    (folder / "silent.mp4").write_bytes(video.read_bytes())
    (folder / "text.wav").write_text("no sound")
    write_sound(folder / "short.wav", 0.1, 16000, 1)
    out = folder / "dubbed.mp4"
    assert main(["lipsync", str(video), str(folder / sound), "-o", str(out), "-m", str(generator), "--cropped"]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert str(folder / sound) in said
    assert not out.exists()


def test_wrong_names_are_refused(
    generator: Path, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = write_sound(tmp_path / "sound.wav", 1, 16000, 1)
    words = ["lipsync", str(video), str(sound), "--cropped"]
    assert main([*words, "-o", str(tmp_path / "out.avi"), "-m", str(generator)]) == 2
    assert "must end with .mp4" in capsys.readouterr().err
    assert main([*words, "-o", str(tmp_path / "out.mp4"), "-m", str(sound)]) == 1
    assert "is no whole lip-sync generator" in capsys.readouterr().err
    assert main([*words, "-o", str(tmp_path / "out.mp4"), "-m", str(tmp_path / "run")]) == 2
    assert "no published checkpoint lies there" in capsys.readouterr().err
    words[1] = str(sound)
    assert main([*words, "-o", str(tmp_path / "out.mp4"), "-m", str(generator)]) == 1
    assert "no-video" in capsys.readouterr().err
