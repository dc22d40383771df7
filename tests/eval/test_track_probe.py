"""The linear probe on data whose answer is known."""

import numpy as np
import pytest

from eval.features import pixel_embedder
from eval.tasks.track_probe import linear_probe, split_classes
from pipeline.errors import MarlinError

CLASSES = ["a", "b", "c", "d"]


def clusters(seed: int, rows: int, spread: float) -> tuple[np.ndarray, list[str]]:
    """Four clusters at the corners of a square in a 6-dimensional space."""
    dice = np.random.default_rng(seed)
    labels = dice.integers(0, 4, rows)
    centres = np.array([[0, 0], [0, 9], [9, 0], [9, 9]], np.float32)
    features = dice.normal(0, 1, (rows, 6)).astype(np.float32) * spread
    features[:, :2] += centres[labels]
    return features, [CLASSES[label] for label in labels]


def test_separable_clusters_are_told_apart() -> None:
    train_x, train_y = clusters(0, 80, 0.5)
    test_x, test_y = clusters(1, 40, 0.5)
    score = linear_probe(train_x, train_y, test_x, test_y, classes=CLASSES, seed=0)
    assert score.accuracy == 1.0
    assert score.balanced_accuracy == 1.0
    assert score.confusion.sum() == 40
    assert np.trace(score.confusion) == 40


def test_shuffled_labels_give_chance() -> None:
    train_x, train_y = clusters(0, 400, 0.5)
    test_x, test_y = clusters(1, 400, 0.5)
    dice = np.random.default_rng(2)
    shuffled = [str(label) for label in dice.permutation(train_y)]
    score = linear_probe(train_x, shuffled, test_x, [str(y) for y in dice.permutation(test_y)], classes=CLASSES, seed=0)
    assert score.accuracy == pytest.approx(0.25, abs=0.08)


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    train_x = np.array([[0.0], [0.1], [5.0], [5.1]], np.float32)
    test_x = np.array([[0.0], [5.0], [5.0]], np.float32)
    score = linear_probe(train_x, ["a", "a", "b", "b"], test_x, ["a", "a", "b"], classes=["a", "b"], seed=0)
    assert score.confusion.tolist() == [[1, 1], [0, 1]]
    assert score.accuracy == pytest.approx(2 / 3)
    assert score.balanced_accuracy == pytest.approx(0.75)


def test_only_tracks_with_both_parts_are_asked_for() -> None:
    parts = [("a", "train"), ("a", "val"), ("b", "train"), ("c", "val"), ("d", "train"), ("d", "val")]
    assert split_classes(parts, "here") == (["a", "d"], ["b", "c"])


def test_one_track_is_not_enough() -> None:
    with pytest.raises(MarlinError, match=r"at least two tracks .* dataset here has 1"):
        split_classes([("a", "train"), ("a", "val"), ("b", "train")], "here")


def test_pixel_baseline_is_the_mean_grey_frame() -> None:
    clips = np.zeros((1, 2, 16, 16, 3), np.uint8)
    clips[0, 1] = 255
    features = pixel_embedder(clips)
    assert features.shape == (1, 64)
    assert features == pytest.approx(0.5, abs=1e-3)
