"""Folders of frame images: which ones are, in which order, at which times."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_videos import counting_frames, number_of
from hypothesis import given
from hypothesis import strategies as st

from preprocess.corpora import Source
from preprocess.corpora.clip import Clip
from preprocess.decode.frames import read_frames, series, sha256_frames
from preprocess.quarantine import BadSource


def write_frames(folder: Path, count: int, name: str = "0.{}.jpg", first: int = 1) -> Path:
    """Frames that show their number, counted from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(counting_frames(count)):
        cv2.imwrite(str(folder / name.format(number + first)), frame[..., ::-1])
    return folder


@given(st.permutations([8, 9, 10, 11, 99, 100, 1000]), st.sampled_from(["0.{}.jpg", "{}.PNG", "img_{:06d}.webp"]))
def test_frames_follow_their_numbers_in_any_order_of_the_names(numbers: list[int], name: str) -> None:
    names = [name.format(number) for number in numbers]
    assert series([*names, "cover.jpg", "list7.txt", ".9.jpg"]) == [name.format(number) for number in sorted(numbers)]


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["1.jpg"],
        ["a.jpg", "b.jpg"],
        ["a1.jpg", "b2.jpg"],
        ["1.jpg", "2.png"],
        ["1.jpg", "01.jpg"],
        ["1.txt", "2.txt"],
    ],
)
def test_other_images_are_no_frames(names: list[str]) -> None:
    assert series(names) == []


def test_frames_are_read_in_order_with_their_times(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", 12, first=7)  # 7 to 18: as text, 10 comes before 7
    frames = list(read_frames(folder, 24.0))
    assert [number_of(frame.rgb) for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == [number / 24 for number in range(12)]
    assert [frame.index for frame in frames] == list(range(12))


@given(cut=st.integers(1, 11), rate=st.sampled_from([24.0, 25.0, 29.97]))
def test_spans_share_no_frame_and_miss_none(cut: int, rate: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "spans"
    if not folder.exists():
        write_frames(folder, 12)
    border = cut / 24
    parts = [[number_of(frame.rgb) for frame in read_frames(folder, rate, span)] for span in ((0, border), (border, 9))]
    assert parts[0] + parts[1] == list(range(12))


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(24.0, [*range(12)]), (12.0, [0, 2, 4, 6, 8, 10]), (48.0, [n // 2 for n in range(24)])],
)
def test_frames_are_resampled(fps: float, expected: list[int], tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", 12)
    frames = list(read_frames(folder, 24.0, fps=fps))
    assert [number_of(frame.rgb) for frame in frames] == expected
    assert [frame.time for frame in frames] == pytest.approx([n / fps for n in range(len(expected))])


def test_a_clip_of_a_folder_has_the_rate_of_its_source(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", 4)
    clip = Clip(folder, (0.0, 0.1), Source("v", "v", "v/", frame_rate=20.0), "000000")
    assert clip.rate() == 20.0
    assert [number_of(frame.rgb) for frame in clip.frames(None)] == [0, 1]
    assert clip.sha256() == sha256_frames(folder)


def test_the_hash_changes_with_content_and_order_only(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", 4)
    before = sha256_frames(folder)
    (folder / "readme.txt").touch()
    assert sha256_frames(folder) == before
    (folder / "0.1.jpg").rename(folder / "0.9.jpg")
    moved = sha256_frames(folder)
    (folder / "0.2.jpg").write_bytes((folder / "0.3.jpg").read_bytes())
    assert len({before, moved, sha256_frames(folder)}) == 3


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("damage", ["empty", "cut off", "text"])
def test_a_damaged_frame_is_named(suffix: str, damage: str, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", 4, name="{:04d}" + suffix)
    bad = folder / f"0003{suffix}"
    data = bad.read_bytes()
    bad.write_bytes({"empty": b"", "cut off": data[: len(data) // 2], "text": b"no image"}[damage])
    with pytest.raises(BadSource, match=rf"damaged: .*0003\{suffix}"):
        list(read_frames(folder, 25.0))


def test_a_missing_or_empty_folder_is_a_bad_source(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="unreadable"):
        list(read_frames(tmp_path / "gone", 25.0))
    with pytest.raises(BadSource, match="no-video"):
        list(read_frames(tmp_path, 25.0))


def test_an_unreadable_frame_is_named(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "v", 3)
    (folder / "0.2.jpg").unlink()
    (folder / "0.2.jpg").symlink_to(tmp_path / "nowhere")
    for use in (lambda: list(read_frames(folder, 25.0)), lambda: sha256_frames(folder)):
        with pytest.raises(BadSource, match=r"unreadable: .*0\.2\.jpg"):
            use()


def test_grey_and_transparent_frames_become_rgb(tmp_path: Path) -> None:
    for number, picture in enumerate((np.full((8, 8), 200, np.uint8), np.full((8, 8, 4), 100, np.uint8))):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    frames = list(read_frames(tmp_path, 25.0))
    assert [(frame.rgb.shape, frame.rgb.dtype, int(frame.rgb[0, 0, 0])) for frame in frames] == [
        ((8, 8, 3), np.uint8, 200),
        ((8, 8, 3), np.uint8, 100),
    ]
