"""What labelled tasks ask: answers to labels worked out by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from drawn_runs import small_config
from labelled import SCHEMAS
from synthetic import DrawnTrack, write_dataset

from eval.questions import TOPICS, answered, shared_people
from eval.subgroups import manipulations, subgroups
from pipeline.config.evaluation import EvalConfig
from pipeline.dataset import Dataset, load_dataset
from pipeline.errors import MarlinError
from pipeline.storage import open_store

SENTIMENTS = {-3: "-3", -2.6: "-3", -1.5: "-2", -0.5: "0", -0.4: "0", 0: "0", 0.5: "0", 1.5: "2", 2.5: "2", 3: "3"}


def dataset_of(tmp_path: Path, question: str, labels: list[Mapping[str, Any]], **tracks: Any) -> Dataset:
    """One video a label, all but the last two to learn from."""
    store = open_store(str(tmp_path / question))
    last = len(labels) - 2
    videos = [
        DrawnTrack(f"v{n:02d}.mp4", (32,) if n < last else (), (), test=() if n < last else (32,), labels=one)
        for n, one in enumerate(labels)
    ]
    write_dataset(store, videos, labels=SCHEMAS[question])
    return load_dataset(store)


def truth(dataset: Dataset, question: str, cfg: EvalConfig) -> list[list[int]]:
    return answered(dataset, TOPICS[question].rule(dataset, cfg), cfg).truth_VC.tolist()


def config(tmp_path: Path, *overrides: str) -> EvalConfig:
    return small_config(tmp_path, *overrides).eval


def test_a_sentiment_is_rounded_to_the_nearest_class_and_halves_to_the_even_one(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, "sentiment7", [{"sentiment": value} for value in SENTIMENTS])
    rule = TOPICS["sentiment7"].rule(dataset, config(tmp_path))
    rows = truth(dataset, "sentiment7", config(tmp_path))
    assert [rule.question.outputs[row.index(1)] for row in rows] == list(SENTIMENTS.values())
    assert all(sum(row) == 1 for row in rows)


@pytest.mark.parametrize(("zero", "expected"), [("positive", [0, 1, 1, 1]), ("negative", [0, 0, 1, 1])])
def test_a_sentiment_is_positive_above_zero(tmp_path: Path, zero: str, expected: list[int]) -> None:
    dataset = dataset_of(tmp_path, "sentiment2", [{"sentiment": value} for value in (-0.1, 0, 0.1, 3)])
    rows = truth(dataset, "sentiment2", config(tmp_path, f"eval.sentiment_zero={zero}"))
    assert rows == [[value] for value in expected]


def test_a_sentiment_of_zero_may_be_left_out(tmp_path: Path) -> None:
    cfg = config(tmp_path, "eval.sentiment_zero=left-out")
    dataset = dataset_of(tmp_path, "sentiment2", [{"sentiment": value} for value in (-1, 0, 1, 2)])
    found = answered(dataset, TOPICS["sentiment2"].rule(dataset, cfg), cfg)
    assert [video.name for video in found.videos] == ["v00.mp4", "v02.mp4", "v03.mp4"]
    assert found.left_out == {"not asked": 1}


@pytest.mark.parametrize(("threshold", "expected"), [(0, [[0, 1], [1, 1], [1, 0]]), (1, [[0, 0], [0, 1], [1, 0]])])
def test_an_emotion_is_there_above_the_threshold(tmp_path: Path, threshold: float, expected: list[list[int]]) -> None:
    labels = [{"emotion": pair} for pair in ([0, 1], [1, 1.1], [3, 0])]
    cfg = config(tmp_path, f"eval.emotion_threshold={threshold}")
    assert truth(dataset_of(tmp_path, "emotion", labels), "emotion", cfg) == expected


def test_attributes_may_be_asked_by_group(tmp_path: Path) -> None:
    labels = [{"appearance": [1, 0], "action": [1]}, {"appearance": [0, 1], "action": [0]}, {"appearance": [1, 1]}]
    cfg = config(tmp_path, "eval.max_unlabelled=0.5")
    dataset = dataset_of(tmp_path, "attributes", labels)
    assert truth(dataset, "appearance", cfg) == [[1, 0], [0, 1], [1, 1]]
    assert truth(dataset, "action", cfg) == [[1], [0]]
    assert sorted(map(tuple, truth(dataset, "attributes", cfg))) == [(0, 0, 1), (1, 1, 0)]
    with pytest.raises(MarlinError, match="no binary labels 'appearance'"):
        TOPICS["appearance"].rule(dataset_of(tmp_path, "emotion", [{"emotion": [0, 1]}] * 3), cfg)


def test_a_video_that_is_cut_into_parts_of_two_splits_is_refused(tmp_path: Path) -> None:
    store, cfg = open_store(str(tmp_path / "cut")), config(tmp_path)
    videos = [DrawnTrack(f"v{n}.mp4", (32,), (32,), labels={"emotion": [n, 0]}) for n in range(3)]
    write_dataset(store, videos, labels=SCHEMAS["emotion"])
    with pytest.raises(MarlinError, match=r"parts of the videos .* as v0\.mp4, .*holdout_identities instead of"):
        truth(load_dataset(store), "emotion", cfg)


def test_people_of_both_splits_are_counted(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, "emotion", [{"emotion": [0, 1]}] * 5)
    cfg = config(tmp_path)
    found = answered(dataset, TOPICS["emotion"].rule(dataset, cfg), cfg)
    assert shared_people(found) == 0


def test_groups_are_of_the_label_that_is_named(tmp_path: Path) -> None:
    labels = [{"appearance": [young, male], "action": [0]} for young, male in ((1, 0), (1, 1), (0, 0), (0, 0))]
    dataset = dataset_of(tmp_path, "attributes", labels)
    cfg = config(tmp_path)
    videos = answered(dataset, TOPICS["attributes"].rule(dataset, cfg), cfg).videos
    found = subgroups(dataset, videos, ["appearance/male", "method"])
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "appearance/male=0": [0, 2, 3],
        "appearance/male=1": [1],
    }


def test_a_manipulation_is_scored_with_the_originals_and_a_fake_of_none_with_nothing(tmp_path: Path) -> None:
    real, face = {"fake": "real", "method": "original"}, {"fake": "fake", "method": "Face2Face"}
    labels = [real, face, {"fake": "fake"}, {"fake": "real"}, face]
    dataset = dataset_of(tmp_path, "deepfake", labels)
    cfg = config(tmp_path)
    videos = answered(dataset, TOPICS["deepfake"].rule(dataset, cfg), cfg).videos
    assert {name: rows.tolist() for name, rows in manipulations(videos).items()} == {"method=Face2Face": [0, 1, 3, 4]}
