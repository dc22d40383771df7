"""Folder corpora, local and in a bucket."""

import os
from pathlib import Path

import pytest
from corpora import put

from pipeline.config.schema import CorpusConfig
from pipeline.errors import MarlinError
from pipeline.storage import open_store
from preprocess.corpora import Source, list_corpus, open_media
from preprocess.quarantine import BadSource


def _names(path: object) -> list[str]:
    return [source.name for source in list_corpus(CorpusConfig(path=str(path))).sources]


def test_videos_are_found_below_sorted_by_path(tmp_path: Path) -> None:
    names = ["b.MP4", "a/2.mov", "a/10.webm", "ä quote's \n.mkv", "cctv.dav", "notes.txt", ".hidden.mp4", "a/list.csv"]
    hidden = [".Trash-1000/files/gone.mp4", "a/.thumbs/1.jpg", "a/.thumbs/2.jpg"]
    for name in names + hidden:
        put(tmp_path / name)
    assert _names(tmp_path) == ["a/10.webm", "a/2.mov", "b.MP4", "cctv.dav", "ä quote's \n.mkv"]
    identities = [source.identity for source in list_corpus(CorpusConfig(path=str(tmp_path))).sources]
    assert identities[:2] == ["a/10", "a/2"]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "corpus/deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "corpus/deep/a.mp4").touch()
    (tmp_path / "elsewhere/b.mp4").touch()
    (tmp_path / "corpus/deep/loop").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus/out").symlink_to(tmp_path / "elsewhere")
    assert _names(tmp_path / "corpus") == ["deep/a.mp4", "out/b.mp4"]


def test_names_that_are_no_text_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")).touch()
    (tmp_path / "good.mp4").touch()
    assert _names(tmp_path) == ["good.mp4"]
    assert "UTF-8" in caplog.text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", r"corpus\.path is empty: set it"),
        ("/nowhere/at/all", r"corpus\.path: /nowhere/at/all is not a folder: create it"),
        (__file__, r"corpus\.path: .*test_corpus_folder\.py is a file: name the folder"),
        (f"{__file__}/below", r"corpus\.path: .*/below is not a folder: create it"),
        ("gs://bucket/raw", r"corpus\.path: gs:// can't be read: use a path"),
        (f"/{'x' * 300}", "the name is too long"),
    ],
)
def test_a_missing_folder_is_named(path: str, message: str) -> None:
    with pytest.raises(MarlinError, match=message):
        _names(path)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gone.mp4", "it is gone"),
        ("gone/", "it is gone"),
        ("file.mp4/", "it is no folder of frames, but a file"),
        ("folder", "it is a folder: a folder of frames is named with / at its end"),
        ("link.mp4", "it is a link that leads nowhere"),
        ("loop.mp4", "it is a link that leads nowhere"),
        ("pipe.mp4", "it is no regular file"),
        ("x" * 300, "it can't be opened: File name too long"),
    ],
)
def test_what_can_not_be_opened_says_why(name: str, why: str, tmp_path: Path) -> None:
    put(tmp_path / "file.mp4")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.mp4").symlink_to("nowhere")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    media = open_media("folder", str(tmp_path))
    with pytest.raises(BadSource) as found, media.open(Source(name, name, name)):
        pass
    assert (found.value.reason, found.value.detail) == ("unreadable", why)


def test_folders_of_frames_stand_beside_videos(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a/2.jpg", "b c/f_10.png", "b c/f_9.png", "mixed/1.jpg", "mixed/2.jpg", "mixed/v.mp4"):
        put(tmp_path / name)
    put(tmp_path / "photos/cat.jpg")
    put(tmp_path / "photos/dog1.jpg")
    listing = list_corpus(CorpusConfig(path=str(tmp_path), frame_rate=30))
    sources = {source.name: source for source in listing.sources}
    assert {name: source.path for name, source in sources.items()} == {
        "a": "a/",
        "b c": "b c/",
        "mixed/v.mp4": "mixed/v.mp4",
    }
    assert sources["a"].frame_rate == 30
    assert listing.findings == (
        "folder: 1 folder holds images, but not the numbered frames of one video: left out, as photos/",
    )


def test_a_folder_that_is_itself_a_video_of_frames(tmp_path: Path) -> None:
    put(tmp_path / "walk/1.jpg")
    put(tmp_path / "walk/2.jpg")
    media = open_media("folder", str(tmp_path / "walk"))
    (source,) = list_corpus(CorpusConfig(path=str(tmp_path / "walk"))).sources
    assert (source.name, media.probe(source).seconds) == ("walk", 2 / 25)
    with media.open(source) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["1.jpg", "2.jpg"]


def test_a_video_and_frames_of_one_name_in_a_bucket_are_two(s3_url: str) -> None:
    store = open_store(s3_url)
    for key in ("a.mp4", "a.mp4/1.jpg", "a.mp4/2.jpg"):
        store.write(key, key.encode())
    listing = list_corpus(CorpusConfig(path=s3_url))
    assert [(source.name, source.identity, source.path) for source in listing.sources] == [
        ("a.mp4", "a", "a.mp4"),
        ("a.mp4/", "a", "a.mp4/"),
    ]
    media = open_media("folder", s3_url)
    video, frames = listing.sources
    with media.open(video) as file, media.open(frames) as folder:
        assert file.read_bytes() == b"a.mp4"
        assert sorted(path.name for path in folder.iterdir()) == ["1.jpg", "2.jpg"]
    store.delete("a.mp4")
    assert [source.name for source in list_corpus(CorpusConfig(path=s3_url)).sources] == ["a.mp4/"]


def test_a_name_is_given_once(tmp_path: Path) -> None:
    for name in ("walk/1.jpg", "walk/2.jpg", "walk/walk/1.jpg", "walk/walk/2.jpg"):
        put(tmp_path / name)
    listing = list_corpus(CorpusConfig(path=str(tmp_path / "walk")))
    assert [(source.name, source.path) for source in listing.sources] == [("walk", "./")]
    assert listing.findings == ("folder: 1 video has the name of another one and is left out, as walk/ (beside ./)",)


def test_findings_are_one_line_whatever_the_names(tmp_path: Path) -> None:
    put(tmp_path / "two\nlines (a|b) {n}/1.jpg")
    [finding] = list_corpus(CorpusConfig(path=str(tmp_path))).findings
    assert finding.endswith(r"left out, as two\nlines (a|b) {n}/")
