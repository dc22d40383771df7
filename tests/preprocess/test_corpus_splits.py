"""Split lists of any corpus: who is where, and what is said of lists that do not fit."""

from pathlib import Path
from typing import Any

import pytest
from corpora import put

from pipeline.config.schema import CorpusConfig
from pipeline.errors import UsageError
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
        "folder: 1 of 3 listed train entries are not in the corpus, as gone",
        "folder: 1 of 4 videos are in no split list and left out, as d.mp4",
    )


@pytest.mark.parametrize(
    ("files", "where", "message"),
    [
        ({}, "lists", r"corpus\.splits: no train, val or test list .* in lists"),
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
    with pytest.raises(UsageError, match=message):
        listed("folder", tmp_path, splits=where)
