"""Scores of labelled tasks against cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.questions import Question
from eval.scores import all_scores, intervals, main_scores, majority, output_scores

PAIR = Question("attributes", "binary", ("look/a", "look/b", "act/c"))
ONE = Question("deepfake", "binary", ("fake",))
THREE = Question("sentiment7", "class", ("-", "0", "+"))

TRUTH = np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0]])
FOUND = np.array([[0.9, 0.2, 0.4], [0.6, 0.1, 0.8], [0.7, 0.3, 0.1], [0.4, 0.6, 0.3]], np.float32)


def test_yes_or_no_questions() -> None:
    # Wrong at 0.5: (0, c), (1, a), (2, b). Pairs of a yes and a no that are in order: a 4 of 4, b 4 of 4, c 4 of 4.
    scores = all_scores(PAIR, TRUTH, FOUND)
    assert scores["accuracy"] == 9 / 12
    assert scores["look_accuracy"] == 6 / 8
    assert scores["act_accuracy"] == 3 / 4
    assert scores["macro_auc"] == scores["look_macro_auc"] == scores["act_auc"] == 1.0
    # All twelve at once: yes .9 .4 .8 .7 .3 .6, no .2 .6 .1 .1 .4 .3; of 36 pairs .4 beats .2 .1 .1 .3 and draws with
    # .4, .3 beats .2 .1 .1 and draws with .3, .6 beats all but .6, with which it draws.
    assert scores["auc"] == pytest.approx((3 * 6 + 4.5 + 3.5 + 5.5) / 36)
    # Of `look` alone: yes .9 .7 .3 .6, no .2 .6 .1 .4.
    assert scores["look_auc"] == pytest.approx((4 + 4 + 2 + 3.5) / 16)
    assert scores["exact_match"] == 1 / 4
    assert scores["macro_balanced_accuracy"] == pytest.approx((3 / 4 + 3 / 4 + 3 / 4) / 3)
    # F1: a 2 right of 3 said, 2 there: 4/5; b 1 of 1 said, 2 there: 2/3; c 1 of 1 said, 2 there: 2/3.
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 2 / 3 + 2 / 3) / 3)


def test_classes() -> None:
    truth = np.eye(3, dtype=int)[[0, 0, 0, 1, 2, 2]]
    found = np.array([[3, 1, 1], [3, 1, 1], [1, 3, 1], [1, 3, 1], [1, 1, 3], [3, 1, 1]], np.float32) / 5
    scores = all_scores(THREE, truth, found)
    assert scores["accuracy"] == 4 / 6
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    # F1: 2 of 3 said and 3 there; 1 of 2 said and 1 there; 1 of 1 said and 2 there.
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 2 / 3) / 3)
    assert output_scores(THREE, truth, found)["+"] == {"share": 2 / 6, "recall": 0.5}


def test_scores_that_need_both_answers_are_left_out_where_there_is_one() -> None:
    scores = all_scores(ONE, np.array([[1], [1]]), np.array([[0.9], [0.2]], np.float32))
    assert scores["accuracy"] == 0.5
    assert not {"auc", "macro_auc"} & set(scores)
    assert output_scores(PAIR, TRUTH[:2], FOUND[:2])["act/c"] == {"share": 1.0, "accuracy": 0.5}


def test_the_majority_of_the_training_is_what_accuracy_has_to_beat() -> None:
    train = np.array([[1, 0, 0], [1, 0, 1], [0, 0, 0]])
    assert majority(PAIR, train, TRUTH) == {"accuracy": 6 / 12, "look_accuracy": 4 / 8, "act_accuracy": 2 / 4}
    classes = np.eye(3, dtype=int)
    assert majority(THREE, classes[[0, 1, 1]], classes[[1, 1, 2]]) == {"accuracy": pytest.approx(2 / 3)}


def test_intervals_hold_the_score_and_narrow_with_more_people() -> None:
    def width(people: int, each: int) -> float:
        dice = np.random.default_rng(0)
        right = dice.random(people) < 0.7  # all videos of a person are alike
        truth = np.repeat(dice.integers(0, 2, people), each)[:, None]
        found = np.where(np.repeat(right, each)[:, None], truth, 1 - truth).astype(np.float32)
        names = [f"p{index // each}" for index in range(people * each)]
        low, high = intervals(ONE, truth, found, names, resamples=300, seed=1)["accuracy"]
        assert low < main_scores(ONE, truth, found)["accuracy"] < high
        return high - low

    few, many = width(20, 50), width(1000, 1)
    # The binomial spread of 20 and 1000 draws of 0.7, plus or minus 1.96 deviations.
    assert few == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 20), rel=0.35)
    assert many == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 1000), rel=0.25)


@given(st.integers(2, 30), st.integers(0, 1000))
def test_the_order_of_videos_does_not_matter(videos: int, seed: int) -> None:
    dice = np.random.default_rng(seed)
    truth, found = dice.integers(0, 2, (videos, 3)), dice.random((videos, 3)).astype(np.float32)
    order = dice.permutation(videos)
    assert all_scores(PAIR, truth[order], found[order]) == pytest.approx(all_scores(PAIR, truth, found))
