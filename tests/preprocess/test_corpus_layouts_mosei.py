"""The layout of CMU-MOSEI: segments, folds, labels, and what is said of mismatches."""

from pathlib import Path
from typing import Any

import pytest
from corpora import put, put_csv
from listings import by_name, has, listed, splits

from pipeline.errors import UsageError

# CMU-MOSEI

ROW = {
    "video_id": "-3g5yACwYnA",
    "clip_id": 0,
    "start": 1.5,
    "end": 4.25,
    "text": "It is, well, fine",
    "sentiment": -0.5,
    "happy": 0,
    "sad": 0.33,
    "anger": 0,
    "surprise": 0,
    "disgust": 0.66,
    "fear": 0,
    "mode": "train",
}


def test_mosei_segments_are_files_or_times_and_never_merged(tmp_path: Path) -> None:
    rows = [
        ROW,
        {**ROW, "clip_id": 1, "start": 4.25, "end": 6},
        {**ROW, "clip_id": 2, "start": -0.01, "end": 7, "sentiment": ""},
        {**ROW, "video_id": "100178", "clip_id": 5, "mode": "valid"},
        {**ROW, "video_id": "gone", "mode": "test"},
    ]
    put_csv(tmp_path / "labels.csv", rows)
    put(tmp_path / "Raw/Videos/Full/Combined/-3g5yACwYnA.mp4")
    put(tmp_path / "Raw/Videos/Segmented/Combined/-3g5yACwYnA_1.mp4")
    put(tmp_path / "Raw/100178/5.mp4")
    put(tmp_path / "Raw/unlabelled.mp4")
    listing = listed("mosei", tmp_path)
    sources = by_name(listing)
    full = "Raw/Videos/Full/Combined/-3g5yACwYnA.mp4"
    assert {name: (source.path, source.span) for name, source in sources.items()} == {
        "-3g5yACwYnA_0": (full, (1.5, 4.25)),
        "-3g5yACwYnA_1": ("Raw/Videos/Segmented/Combined/-3g5yACwYnA_1.mp4", None),
        "-3g5yACwYnA_2": (full, (0.0, 7.0)),
        "100178_5": ("Raw/100178/5.mp4", None),
    }
    assert sources["-3g5yACwYnA_0"].labels == {"sentiment": -0.5, "emotion": [0, 0.33, 0, 0, 0.66, 0]}
    assert "sentiment" not in sources["-3g5yACwYnA_2"].labels
    assert sources["-3g5yACwYnA_0"].text == "It is, well, fine"
    assert sources["-3g5yACwYnA_0"].identity == "-3g5yACwYnA"
    assert [source.split for source in listing.sources] == ["train", "train", "train", "val"]
    assert listing.labels["emotion"]["names"] == ["happy", "sad", "anger", "surprise", "disgust", "fear"]
    assert listing.labels["sentiment"] == {"type": "real", "range": [-3, 3]}
    assert has(listing, "mosei: 1 of 5 labelled segments has no video, as gone_0")
    assert has(listing, "mosei: 1 of 4 videos has no label and is left out, as Raw/unlabelled.mp4")
    assert has(listing, "mosei: 3 train videos, the official split has 16,726")


def test_mosei_files_of_one_name_are_told_and_whole_videos_are_no_strangers(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "clip_id": 1}, {**ROW, "video_id": "whole"}, {**ROW, "video_id": "aBc"}]
    put_csv(tmp_path / "labels.csv", rows)
    for file in ("a/-3g5yACwYnA_0.mp4", "b/-3g5yACwYnA_0.mkv", "c/-3g5yACwYnA_1.mp4", "full/-3g5yACwYnA.mp4"):
        put(tmp_path / file)
    for file in ("full/whole.mp4", "other/whole.avi", "full/ABC.mp4", "x.mp4"):
        put(tmp_path / file)
    listing = listed("mosei", tmp_path)
    assert {source.name: source.path for source in listing.sources} == {
        "-3g5yACwYnA_0": "a/-3g5yACwYnA_0.mp4",
        "-3g5yACwYnA_1": "c/-3g5yACwYnA_1.mp4",
        "whole_0": "full/whole.mp4",
    }
    assert listing.findings[:4] == (
        "mosei: 1 of 4 labelled segments has no video, as aBc_0",
        "mosei: 1 name differs from a video's in upper and lower case alone, as aBc (ABC)",
        "mosei: 2 videos have the name of another one and are left out, as b/-3g5yACwYnA_0.mkv, other/whole.avi",
        "mosei: 2 of 8 videos have no label and are left out, as full/ABC.mp4, x.mp4",
    )


def test_mosei_labels_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"sentiment": 0.5},
        {"sentiment": 9},
        {"sentiment": "glad", "happy": ""},
        {"sentiment": "", **dict.fromkeys(("happy", "sad", "anger", "disgust", "fear"), "")},
        {"fear": -1},
    ]
    full = [{**ROW, "note": "", **row, "clip_id": clip, "mode": ""} for clip, row in enumerate(rows)]
    put_csv(tmp_path / "labels.csv", [{key: cell for key, cell in row.items() if key != "surprise"} for row in full])
    put(tmp_path / "-3g5yACwYnA.mp4")
    listing = listed("mosei", tmp_path)
    assert [[*source.labels] for source in listing.sources] == [
        ["sentiment", "emotion"],
        ["emotion"],
        [],
        [],
        ["sentiment"],
    ]
    assert {source.split for source in listing.sources} == {None}
    assert listing.findings[:4] == (
        "mosei: labels.csv has no column for 1 of 7 labels, as surprise",
        "mosei: 1 column of labels.csv is not known and left out, as note",
        "mosei: 2 of 5 labelled segments have no sentiment label: not all a number from -3 to 3, "
        "as -3g5yACwYnA_1, -3g5yACwYnA_2",
        "mosei: 2 of 5 labelled segments have no emotion label: not all a number from 0 to 3, "
        "as -3g5yACwYnA_2, -3g5yACwYnA_4",
    )


def test_mosei_reads_the_folds_of_the_sdk_without_running_them(tmp_path: Path) -> None:
    put_csv(tmp_path / "labels.csv", [{**ROW, "mode": "test"}, {**ROW, "video_id": "other", "mode": "train"}])
    put(tmp_path / "-3g5yACwYnA_0.mp4")
    put(tmp_path / "other_0.mp4")
    folds = put(
        tmp_path / "folds.py",
        f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nstandard_train_fold = ['-3g5yACwYnA']\n"
        "standard_valid_fold=['other',]\nstandard_test_fold=[]\n",
    )
    listing = listed("mosei", tmp_path, splits=str(folds))
    assert splits(listing) == {"-3g5yACwYnA_0": "train", "other_0": "val"}
    assert not (tmp_path / "ran").exists()
    put(folds, "standard_train_fold = open('x').read()")
    with pytest.raises(UsageError, match="can't be read"):
        listed("mosei", tmp_path, splits=str(folds))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"name": "x"}], "needs the columns video_id and clip_id, it has name"),
        ([ROW, ROW], "two rows of segment -3g5yACwYnA_0: average"),
        ([{**ROW, "clip_id": ""}], "labels.csv: a segment of -3g5yACwYnA has no clip_id: mend it"),
        ([{**ROW, "video_id": ""}], "labels.csv: segment 0 has no video_id: mend it"),
        ([{**ROW, "mode": "training"}], "segment -3g5yACwYnA_0 is of split training: choose from train"),
        ([{**ROW, "end": 1}], "segment -3g5yACwYnA_0 needs a start and a later end"),
    ],
)
def test_mosei_tables_that_do_not_fit_are_named(rows: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    put_csv(tmp_path / "labels.csv", rows)
    put(tmp_path / "-3g5yACwYnA.mp4")
    with pytest.raises(UsageError, match=message):
        listed("mosei", tmp_path)
