"""Scores of labelled tasks, from true answers and probabilities, and how sure they are.

Shapes: V videos, C outputs. Truth is 0s and 1s; an output is answered with yes from a probability of 0.5 on.
Scores that need both kinds of truth, as an area under the ROC curve does, are left out where there is one kind only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score

from eval.questions import Question

Truth = NDArray[np.int64]
Probabilities = NDArray[np.float64]
Scores = dict[str, float]
Measure = Callable[[Truth, Probabilities], Scores]

CONFIDENCE = 0.95


def headline(question: Question, truth_VC: Truth, found_VC: Probabilities) -> float:
    """The score that the best epoch is chosen by: AUC; accuracy of classes, and where all answers are alike."""
    if question.kind == "binary" and truth_VC.min() != truth_VC.max():
        return float(roc_auc_score(truth_VC.ravel(), found_VC.ravel()))
    return main_scores(question, truth_VC, found_VC)["accuracy"]


def main_scores(question: Question, truth_VC: Truth, found_VC: Probabilities) -> Scores:
    """What tables report: accuracy, and for yes-or-no questions the area under the ROC curve.

    Over all outputs of all videos at once ("micro"), which is also their mean accuracy. Where outputs are in groups,
    each group's `<group>_accuracy` and `<group>_auc` stand beside the overall ones.
    """
    if question.kind == "class":
        return {"accuracy": float(accuracy_score(truth_VC.argmax(1), found_VC.argmax(1)))}
    return _micro(truth_VC, found_VC) | _of_groups(_micro, question, truth_VC, found_VC)


def all_scores(question: Question, truth_VC: Truth, found_VC: Probabilities) -> Scores:
    """`main_scores` and those that weigh every output, or every class, alike ("macro").

    Of yes-or-no questions: the share of videos with all outputs right, macro AUC, balanced accuracy and F1, for each
    group too. Of classes: balanced accuracy and macro F1.
    """
    scores = main_scores(question, truth_VC, found_VC)
    if question.kind == "class":
        truth, answer = truth_VC.argmax(1), found_VC.argmax(1)
        scores["balanced_accuracy"] = _balanced(truth, answer)
        scores["macro_f1"] = float(f1_score(truth, answer, average="macro", zero_division=0))
        return scores
    scores |= _macro(truth_VC, found_VC)
    return scores | _of_groups(_macro, question, truth_VC, found_VC)


def output_scores(question: Question, truth_VC: Truth, found_VC: Probabilities) -> dict[str, Scores]:
    """For each output: the share of videos it is true of, accuracy and AUC; for a class: its share and recall."""
    table: dict[str, Scores] = {}
    for column, name in enumerate(question.outputs):
        truth_V = truth_VC[:, column]
        row: Scores = {"share": float(truth_V.mean())}
        if question.kind == "class":
            if truth_V.any():
                row["recall"] = float(recall_score(truth_V, found_VC.argmax(1) == column))
        else:
            row |= _micro(truth_V[:, None], found_VC[:, [column]])
        table[name] = row
    return table


def majority(question: Question, train_VC: Truth, truth_VC: Truth) -> Scores:
    """Accuracies, by the names of `main_scores`, of always answering what was commonest in the training."""
    constant = np.broadcast_to(train_VC.mean(0), truth_VC.shape).astype(np.float64)
    scores = main_scores(question, truth_VC, constant)
    return {name: value for name, value in scores.items() if name.endswith("accuracy")}


def intervals(
    question: Question,
    truth_VC: Truth,
    found_VC: Probabilities,
    people: Sequence[str],
    *,
    resamples: int,
    seed: int,
) -> dict[str, list[float]]:
    """Percentile bootstrap intervals of `main_scores`, 95%, drawing people with all their videos.

    Args:
        question: what was asked.
        truth_VC: true answers.
        found_VC: probabilities.
        people: who is seen in each video; videos of one person say less than as many of different ones.
        resamples: how many draws; 0 gives nothing.
        seed: of the draws.

    Returns:
        Lower and upper end by name of the score.
    """
    drawn: dict[str, list[float]] = {}
    for rows in people_draws(people, resamples, seed):
        for name, value in main_scores(question, truth_VC[rows], found_VC[rows]).items():
            drawn.setdefault(name, []).append(value)
    return {name: percentile_ends(values) for name, values in drawn.items()}


def people_draws(people: Sequence[str], resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows of the videos of as many people as there are, drawn with replacement, with all their videos.

    Args:
        people: who is seen in each video.
        resamples: how many draws.
        seed: of the draws.
    """
    names = sorted(set(people))
    rows_of = [np.flatnonzero([person == name for person in people]) for name in names]
    dice = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.concatenate([rows_of[index] for index in dice.integers(len(names), size=len(names))])


def percentile_ends(drawn: Sequence[float]) -> list[float]:
    """Lower and upper end of the 95% interval of a drawn value."""
    tail = (1 - CONFIDENCE) / 2
    return [float(end) for end in np.quantile(drawn, (tail, 1 - tail))]


def output_groups(question: Question) -> Mapping[str, list[int]]:
    """Columns of each group of outputs, `<group>/<name>`; empty where the outputs are in no group or all in one."""
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(question.outputs):
        group, slash, _ = name.partition("/")
        if slash:
            groups.setdefault(group, []).append(column)
    return groups if len(groups) > 1 else {}


def _of_groups(measure: Measure, question: Question, truth_VC: Truth, found_VC: Probabilities) -> Scores:
    return {
        f"{group}_{name}": value
        for group, columns in output_groups(question).items()
        for name, value in measure(truth_VC[:, columns], found_VC[:, columns]).items()
    }


def _micro(truth_VC: Truth, found_VC: Probabilities) -> Scores:
    truth, found = truth_VC.ravel(), found_VC.ravel()
    scores = {"accuracy": float(accuracy_score(truth, found >= 0.5))}
    if truth.min() != truth.max():
        scores["auc"] = float(roc_auc_score(truth, found))
    return scores


def _macro(truth_VC: Truth, found_VC: Probabilities) -> Scores:
    answers = (found_VC >= 0.5).astype(np.int64)
    columns = range(truth_VC.shape[1])
    both = [c for c in columns if truth_VC[:, c].min() != truth_VC[:, c].max()]
    scores = {
        "exact_match": float(accuracy_score(truth_VC, answers)),
        "macro_balanced_accuracy": float(np.mean([_balanced(truth_VC[:, c], answers[:, c]) for c in columns])),
        "macro_f1": float(np.mean([f1_score(truth_VC[:, c], answers[:, c], zero_division=0) for c in columns])),
    }
    if both:
        scores["macro_auc"] = float(np.mean([roc_auc_score(truth_VC[:, c], found_VC[:, c]) for c in both]))
    return scores


def _balanced(truth_V: Truth, answer_V: Truth) -> float:
    """Mean recall of the classes that occur."""
    return float(recall_score(truth_V, answer_V, labels=np.unique(truth_V), average="macro"))
