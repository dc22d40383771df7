"""Decoding: order, times, spans, resampling, rotation, and files that are no videos."""

import struct
from pathlib import Path

import numpy as np
import pytest
from drawn_videos import counting_frames, number_of, write_audio, write_video
from odd_videos import Coding, encode

from preprocess.decode.video import probe, read_frames
from preprocess.quarantine import BadSource


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety numbered frames at 30 per second."""
    return write_video(tmp_path_factory.mktemp("video") / "counted.mp4", counting_frames(90))


def test_frames_come_in_order_with_their_times(counted: Path) -> None:
    frames = list(read_frames(counted))
    assert [number_of(frame.rgb) for frame in frames] == list(range(90))
    assert [frame.index for frame in frames] == list(range(90))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(90) / 30, atol=1e-3)
    assert frames[0].rgb.shape == (48, 64, 3)
    assert probe(counted).fps == 30
    assert probe(counted).seconds == pytest.approx(3, abs=0.01)


def test_spans_share_no_frame_and_miss_none(counted: Path) -> None:
    spans = [(0.0, 1.0), (1.0, 2.0), (2.0, 99.0)]
    numbers = [[number_of(frame.rgb) for frame in read_frames(counted, span)] for span in spans]
    assert [number for part in numbers for number in part] == list(range(90))
    assert numbers[1] == list(range(30, 60))
    assert next(iter(read_frames(counted, spans[1]))).index == 0


@pytest.mark.parametrize(("fps", "expected"), [(10, list(range(0, 90, 3))), (60, [n for n in range(90) for _ in "ab"])])
def test_resampling_shows_what_is_on_screen(counted: Path, fps: float, expected: list[int]) -> None:
    frames = list(read_frames(counted, fps=fps))
    numbers = [number_of(frame.rgb) for frame in frames]
    assert numbers[: len(expected) - 2] == expected[: len(expected) - 2]
    assert abs(len(numbers) - len(expected)) <= 1
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(len(frames)) / fps, atol=1e-3)


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (1, 0)), (180, (1, 1)), (270, (0, 1))])
def test_rotation_in_the_metadata_is_undone(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    frames = np.zeros((3, 64, 96, 3), np.uint8)
    frames[:, :32, :48] = 255
    shown = next(iter(read_frames(write_video(tmp_path / "turned.mp4", frames, rotation=rotation)))).rgb
    assert shown.shape == ((96, 64, 3) if rotation % 180 else (64, 96, 3))
    height, width = shown.shape[0] // 2, shown.shape[1] // 2
    bright = [
        (row, column)
        for row in (0, 1)
        for column in (0, 1)
        if shown[row * height : (row + 1) * height, column * width : (column + 1) * width].mean() > 128
    ]
    assert bright == [corner]


def test_odd_sizes_decode(tmp_path: Path) -> None:
    import av

    path = tmp_path / "odd.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 33, 51, "bgr0"
        picture = av.VideoFrame.from_ndarray(np.full((33, 51, 3), 90, np.uint8), format="rgb24")
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    assert [frame.rgb.shape for frame in read_frames(path)] == [(33, 51, 3)]


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _text(path: Path) -> Path:
    path.write_text("this is no video\n" * 50)
    return path


def _headless(path: Path) -> Path:
    data = write_video(path, counting_frames(30)).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [(_empty, "unreadable"), (_text, "unreadable"), (_headless, "unreadable"), (write_audio, "no-video")],
)
def test_what_is_no_video_is_told_apart(tmp_path: Path, make, reason: str) -> None:
    path = make(tmp_path / "bad.mp4")
    with pytest.raises(BadSource) as caught:
        list(read_frames(path))
    assert caught.value.reason == reason
    assert str(tmp_path) not in caught.value.detail


def test_garbage_in_the_middle_is_damage(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "bad.mp4", np.random.default_rng(0).integers(0, 255, (30, 96, 128, 3), dtype=np.uint8)
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path.write_bytes(data)
    with pytest.raises(BadSource) as caught:
        list(read_frames(path))
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("a.ts", Coding(options={"g": "48"})),
        ("a.ts", Coding("libx265", options={"x265-params": "keyint=48:log-level=none"})),
        ("a.mpg", Coding("mpeg2video", options={"g": "48", "bf": "2", "b": "4M"})),
        ("a.avi", Coding(options={"g": "48", "bf": "2"})),
        ("a.mkv", Coding(options={"g": "48"})),
        ("a.webm", Coding("libvpx-vp9", options={"g": "48", "b": "2M"})),
        ("a.flv", Coding(options={"g": "48"})),
        ("a.h264", Coding(options={"g": "48"})),
    ],
)
def test_spans_meet_without_gap_or_overlap_in_containers_that_can_hardly_seek(
    tmp_path: Path, name: str, coding: Coding
) -> None:
    path = encode(tmp_path / name, counting_frames(200), coding)
    spans = [(0.0, 2.0), (2.0, 4.0), (4.0, 99.0)]
    numbers = [number_of(frame.rgb) for span in spans for frame in read_frames(path, span)]
    assert numbers == list(range(200))


@pytest.mark.parametrize("jump", [-100, 3600])
def test_a_jump_of_the_clock_is_not_filled_with_repeated_frames(tmp_path: Path, jump: int) -> None:
    first = [1_000_000 + 33 * number for number in range(30)]
    path = tmp_path / "joined.ts"
    parts = []
    for times in (first, [time + 1000 * jump for time in first]):
        options = {"output_ts_offset": "0", "avoid_negative_ts": "disabled"}
        part = encode(tmp_path / "part.ts", counting_frames(30), Coding(times=times), **options)
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    numbers = [number_of(frame.rgb) for frame in read_frames(path, fps=10.0)]
    assert 18 <= len(numbers) <= 24
    assert sorted(set(numbers[:10])) == numbers[:10]
    assert {number for number in numbers[10:] if number < 25}


def test_a_length_that_can_not_be_right_is_measured(tmp_path: Path) -> None:
    path = encode(tmp_path / "long.mkv", counting_frames(60))
    data = bytearray(path.read_bytes())
    place = data.index(b"\x44\x89\x88") + 3
    data[place : place + 8] = struct.pack(">d", 3.6e9)
    path.write_bytes(data)
    assert probe(path).seconds == pytest.approx(2.0, abs=0.1)
