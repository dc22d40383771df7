"""Folder corpora, local and in a bucket."""

import os
from pathlib import Path

import pytest
from corpora import put

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from preprocess.corpora import Source, list_corpus, open_media
from preprocess.quarantine import BadSource


def _names(path: object) -> list[str]:
    return [source.name for source in list_corpus(CorpusConfig(path=str(path))).sources]


def test_videos_are_found_below_sorted_by_path(tmp_path: Path) -> None:
    names = ["b.MP4", "a/2.mov", "a/10.webm", "ä quote's \n.mkv", "notes.txt", ".hidden.mp4", "a/list.csv"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert _names(tmp_path) == ["a/10.webm", "a/2.mov", "b.MP4", "ä quote's \n.mkv"]
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


@pytest.mark.parametrize("path", ["", "/nowhere/at/all"])
def test_a_missing_folder_is_named(path: str) -> None:
    with pytest.raises(UsageError, match=r"corpus\.path"):
        _names(path)


def test_a_vanished_file_is_unreadable(tmp_path: Path) -> None:
    media = open_media("folder", str(tmp_path))
    with pytest.raises(BadSource, match="unreadable"), media.open(Source("gone.mp4", "gone", "gone.mp4")):
        pass


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
        "folder: 1 folders hold images, but not the numbered frames of one video: left out, as photos/",
    )


def test_a_folder_that_is_itself_a_video_of_frames(tmp_path: Path) -> None:
    put(tmp_path / "walk/1.jpg")
    put(tmp_path / "walk/2.jpg")
    media = open_media("folder", str(tmp_path / "walk"))
    (source,) = list_corpus(CorpusConfig(path=str(tmp_path / "walk"))).sources
    assert (source.name, media.probe(source).seconds) == ("walk", 2 / 25)
    with media.open(source) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["1.jpg", "2.jpg"]
