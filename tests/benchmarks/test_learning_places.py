"""Probes by place: what a place shows through time, and a layer that learns from more features than videos."""

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.learning.baselines import SIDE, moving_pixels
from benchmarks.learning.places import over_time, probe_places
from eval.questions import Answered, Question, Video

SPLITS = ("train", "train", "train", "val", "test")


def asked(truth_VC: NDArray[np.int64]) -> Answered:
    """Videos of a person each, three of five to learn from, with made-up answers."""
    videos = tuple(Video(f"{row:03d}", f"p{row}", SPLITS[row % len(SPLITS)], {}, ()) for row in range(len(truth_VC)))
    names = tuple(f"appearance/{column}" for column in range(truth_VC.shape[1]))
    return Answered(Question("appearance", "binary", names), videos, truth_VC, {})


def planted(videos: int, width: int, dice: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of which one direction tells the answer, and the rest nothing."""
    truth_VC = dice.integers(0, 2, (videos, 1))
    features_VF = dice.standard_normal((videos, width)).astype(np.float32)
    features_VF[:, : width // 10] += 2 * truth_VC - 1
    return features_VF, truth_VC


def test_a_place_is_told_by_its_mean_and_its_deviation_over_time() -> None:
    tokens_BTPD = np.random.default_rng(0).standard_normal((2, 4, 9, 3)).astype(np.float32)
    embed = over_time(lambda frames: tokens_BTPD.reshape(2, 36, 3), tubelets=4)
    found_BF = embed(np.zeros((2, 8, 6, 6, 3), np.uint8))
    expected = [tokens_BTPD.mean(1).reshape(2, -1), tokens_BTPD.std(1).reshape(2, -1)]
    np.testing.assert_allclose(found_BF, np.concatenate(expected, axis=1), rtol=1e-6)


def test_moving_pixels_know_where_something_moves() -> None:
    clip_THWC = np.full((4, 64, 64, 3), 100, np.uint8)
    clip_THWC[::2, :4, :4] = 200  # the first place of 16×16
    mean_SSC, deviation_SSC = moving_pixels(clip_THWC[None])[0].reshape(2, SIDE, SIDE, 3)
    assert mean_SSC[0, 0] == pytest.approx(150 / 255)
    assert deviation_SSC[0, 0] == pytest.approx(50 / 255)
    assert deviation_SSC.any(axis=2).sum() == 1


def test_a_weak_sign_in_many_features_is_found() -> None:
    features_VF, truth_VC = planted(200, 2_000, np.random.default_rng(1))
    assert probe_places(asked(truth_VC), features_VF)["macro_auc"] > 0.95


def test_nothing_is_learned_from_what_is_scored() -> None:
    features_VF, truth_VC = planted(200, 500, np.random.default_rng(2))
    scored = asked(truth_VC).of_split("test")
    truth_VC[scored] = 1 - truth_VC[scored]
    assert probe_places(asked(truth_VC), features_VF)["macro_auc"] < 0.05


def test_noise_tells_nothing() -> None:
    dice = np.random.default_rng(3)
    features_VF = dice.standard_normal((400, 300)).astype(np.float32)
    assert abs(probe_places(asked(dice.integers(0, 2, (400, 4))), features_VF)["macro_auc"] - 0.5) < 0.1


def test_an_answer_that_never_differs_while_learning_is_no_failure() -> None:
    features_VF, truth_VC = planted(100, 50, np.random.default_rng(4))
    constant = np.zeros_like(truth_VC)
    constant[asked(truth_VC).of_split("test")[:2]] = 1
    found = probe_places(asked(np.concatenate([truth_VC, constant], axis=1)), features_VF)
    assert 0.7 < found["macro_auc"] < 0.8  # one answer known, one guessed
