"""Split lists of any corpus: who is where, and what is said of lists that do not fit."""

from pathlib import Path
from typing import Any

import pytest
from corpora import put

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
from pipeline.storage import open_store
from preprocess.corpora import Listing, list_corpus


def listed(kind: str, path: Path | str, **keys: Any) -> Listing:
    return list_corpus(CorpusConfig(kind=kind, path=str(path), **keys))  # type: ignore[arg-type]


def splits(listing: Listing) -> dict[str, str | None]:
    return {source.name: source.split for source in listing.sources}


def test_lists_of_a_plain_folder_name_files_or_their_stems(tmp_path: Path) -> None:
    for name in ("x/a.mp4", "x/b.mov", "c.mp4", "d.mp4"):
        put(tmp_path / "raw" / name)
    put(tmp_path / "lists/train.txt", "x/a\nx/b.mov\n\n gone \n")
    put(tmp_path / "lists/dev.json", '["c"]')
    listing = listed("folder", tmp_path / "raw", splits=str(tmp_path / "lists"))
    assert splits(listing) == {"c.mp4": "val", "x/a.mp4": "train", "x/b.mov": "train"}
    assert listing.findings == (
        "folder: 1 of 3 listed train entries is not in the corpus, as gone",
        "folder: 1 of 4 videos is in no split list and left out, as d.mp4",
    )


@pytest.mark.parametrize(
    ("files", "where", "message"),
    [
        ({}, "lists", r"corpus\.splits: lists in .* is no folder of lists: give a folder with train, val, test"),
        ({"lists/notes.md": "x"}, "lists", "lists in .* holds no train, val or test list: give a folder"),
        ({"s.json/notes.md": "x"}, "s.json", r"s\.json in .* holds no train, val or test list: give a folder"),
        ({"one.txt": "a"}, "one.txt", r"one\.txt in .* is no folder of lists: give a folder"),
        ({"one.txt": "a"}, "one.txt/s.json", r"there is no one\.txt/s\.json in .*corpus\.splits"),
        ({"lists/train.txt/x": "a"}, "lists", r"lists/train\.txt in .* is a folder, a file is needed: name another"),
        ({"lists/train.txt": "a", "lists/val.txt": " \n"}, "lists", r"lists/val\.txt in .* is empty: write it again"),
        ({"s.json": ""}, "s.json", r"corpus\.splits: s\.json in .* is empty: write it again"),
        ({"s.json": '{"train": [], "val": []}'}, "s.json", r"the lists of s\.json are empty: fill them"),
        ({"s.json": '{"train": null}'}, "s.json", r"train of s\.json should hold a list"),
        ({"s.json": '{"train": "ab"}'}, "s.json", r"train of s\.json should hold a list"),
        ({"s.json": '{"train": [{"a": 1}]}'}, "s.json", r"s\.json lists \{'a': 1\}, which names no video: mend it"),
        ({"s.json": '{"val": ["a"], "dev": ["b"]}'}, "s.json", r"s\.json has two val lists: keep one"),
        ({"s.json": '{"train": ["a"], "train": ["b"]}'}, "s.json", "'train' is there twice in one object"),
        ({"s.json": "[" * 100_000}, "s.json", r"s\.json in .* is no JSON"),
        ({"lists/train.txt": "a\0b"}, "lists", "lists/train.txt is not UTF-8 text but binary"),
        ({}, "s.json", r"there is no s\.json in .*corpus\.splits"),
        ({"lists/train.txt": "a", "lists/val.txt": "a"}, "lists", "a is both in the train and the val list"),
        ({"lists/val.txt": "a", "lists/dev.txt": "a"}, "lists", "two val lists"),
        ({"lists/train.json": "{"}, "lists", "lists/train.json is no JSON"),
        ({"lists/train.json": "{}"}, "lists", "should hold a list"),
        ({"s.json": '{"training": []}'}, "s.json", "train, val and test, and nothing else"),
        ({"lists/train.txt": "a\xff"}, "lists", "not UTF-8"),
    ],
)
def test_lists_that_do_not_fit_are_named(files: dict[str, str], where: str, message: str, tmp_path: Path) -> None:
    put(tmp_path / "a.mp4")
    for name, text in files.items():
        put(tmp_path / name, text.encode("latin-1"))
    with pytest.raises(UsageError, match=message) as found:
        listed("folder", tmp_path, splits=where)
    assert "\n" not in str(found.value)


def test_lists_elsewhere_that_do_not_fit_are_named(tmp_path: Path, s3_url: str) -> None:
    put(tmp_path / "raw/a.mp4")
    put(tmp_path / "one.txt", "a")
    open_store(s3_url).write("lists/train.txt/x", b"a")
    for where, message in (
        (f"{tmp_path}/one.txt", r"one\.txt is no folder of lists"),
        (f"{tmp_path}/one.txt/", r"one\.txt/ is no folder of lists"),
        (f"{tmp_path}/raw", r"/raw holds no train, val or test list"),
        (f"{s3_url}/lists", r"lists/train\.txt is a folder, a file is needed"),
        (f"{s3_url}/nowhere", r"/nowhere is no folder of lists"),
        (f"{s3_url}/lists/s.json", r"there is no s3://.*/s\.json: put it there, or set corpus\.splits"),
    ):
        with pytest.raises(UsageError, match=message):
            listed("folder", tmp_path / "raw", splits=where)


def test_entries_in_other_letters_are_named(tmp_path: Path) -> None:
    for name in ("Anna.mp4", "bert.mp4"):
        put(tmp_path / name)
    put(tmp_path / "lists/train.txt", "anna\nbert\n")
    listing = listed("folder", tmp_path, splits="lists")
    assert splits(listing) == {"bert.mp4": "train"}
    assert "folder: 1 of them differs from a video in upper and lower case alone, as anna (Anna)" in listing.findings
