"""What a labelled task asks of a video, and the videos of a dataset that have an answer.

Shapes: V videos, C outputs of a classifier.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.sequences import FrameSequence, frame_sequences
from pipeline.config.evaluation import EvalConfig
from pipeline.dataset import Dataset
from pipeline.errors import MarlinError

Kind = Literal["binary", "class"]
Labels = Mapping[str, Any]

SENTIMENT_CLASSES = ("-3", "-2", "-1", "0", "1", "2", "3")


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        name: of the question.
        kind: "binary": each output is an answer of its own, yes or no; "class": one output is right.
        outputs: their names; those of several groups are `<group>/<name>`.
    """

    name: str
    kind: Kind
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """How the answer to a question follows from the labels of a video.

    Attributes:
        question: what is asked.
        needs: labels that it takes.
        answer: truth of all outputs as 0s and 1s, from the labels of a video that has all that is needed; None where
            the question leaves such a video out.
    """

    question: Question
    needs: tuple[str, ...]
    answer: Callable[[Labels], list[int] | None]


@dataclass(frozen=True)
class Video:
    """A raw video of a dataset: its faces, and what the corpus says of it."""

    name: str
    identity: str
    split: str
    labels: Labels
    sequences: tuple[FrameSequence, ...]


@dataclass(frozen=True)
class Answered:
    """The videos of a dataset that have an answer.

    Attributes:
        question: what was asked.
        videos: in the order of their names.
        truth_VC: 0s and 1s.
        left_out: how many videos have none, by reason.
    """

    question: Question
    videos: tuple[Video, ...]
    truth_VC: NDArray[np.int64]
    left_out: Mapping[str, int]

    def of_split(self, split: str) -> NDArray[np.int64]:
        """Rows of the videos of a split."""
        return np.flatnonzero([video.split == split for video in self.videos])


def attributes(dataset: Dataset, cfg: EvalConfig, only: str = "") -> Rule:
    """Every binary label of a dataset, or those of one group: the 40 appearances and 35 actions of CelebV-HQ."""
    groups = [name for name, schema in dataset.labels.items() if schema["type"] == "binary" and only in ("", name)]
    if not groups:
        raise _lacks(dataset, f"binary labels '{only}'" if only else "binary labels", "attributes")
    outputs = tuple(f"{group}/{name}" for group in groups for name in dataset.labels[group]["names"])

    def answer(labels: Labels) -> list[int]:
        return [int(value) for group in groups for value in labels[group]]

    return Rule(Question(only or "attributes", "binary", outputs), tuple(groups), answer)


def emotion(dataset: Dataset, cfg: EvalConfig) -> Rule:
    """Whether each emotion of CMU-MOSEI is there: its intensity of 0 to 3 is above `eval.emotion_threshold`."""
    names = _schema(dataset, "emotion", "emotion")["names"]

    def answer(labels: Labels) -> list[int]:
        return [int(value > cfg.emotion_threshold) for value in labels["emotion"]]

    return Rule(Question("emotion", "binary", tuple(names)), ("emotion",), answer)


def sentiment7(dataset: Dataset, cfg: EvalConfig) -> Rule:
    """The sentiment of CMU-MOSEI, -3 to 3, rounded to the nearest of seven classes; halves to the even one."""
    _schema(dataset, "sentiment", "sentiment")

    def answer(labels: Labels) -> list[int]:
        nearest = int(np.clip(np.rint(labels["sentiment"]), -3, 3))
        return [int(str(nearest) == name) for name in SENTIMENT_CLASSES]

    return Rule(Question("sentiment7", "class", SENTIMENT_CLASSES), ("sentiment",), answer)


def sentiment2(dataset: Dataset, cfg: EvalConfig) -> Rule:
    """Whether the sentiment of CMU-MOSEI is positive; `eval.sentiment_zero` says what 0 is."""
    _schema(dataset, "sentiment", "sentiment")

    def answer(labels: Labels) -> list[int] | None:
        value = labels["sentiment"]
        if value == 0 and cfg.sentiment_zero == "left-out":
            return None
        return [int(value > 0 or (value == 0 and cfg.sentiment_zero == "positive"))]

    return Rule(Question("sentiment2", "binary", ("positive",)), ("sentiment",), answer)


def deepfake(dataset: Dataset, cfg: EvalConfig) -> Rule:
    """Whether a video of FaceForensics++ is manipulated."""
    _schema(dataset, "fake", "deepfake")
    return Rule(Question("deepfake", "binary", ("fake",)), ("fake",), lambda labels: [int(labels["fake"] == "fake")])


@dataclass(frozen=True)
class Topic:
    """A question that a configuration can ask by name.

    Attributes:
        rule: as a dataset's labels allow it; raises `MarlinError` where they don't.
        dataset: key of `eval.datasets`.
        settings: keys of `eval` that its answer depends on.
    """

    rule: Callable[[Dataset, EvalConfig], Rule]
    dataset: str
    settings: tuple[str, ...] = ()


TOPICS: Mapping[str, Topic] = {
    "attributes": Topic(attributes, "attributes"),
    "appearance": Topic(partial(attributes, only="appearance"), "attributes"),
    "action": Topic(partial(attributes, only="action"), "attributes"),
    "emotion": Topic(emotion, "emotion", ("emotion_threshold",)),
    "sentiment7": Topic(sentiment7, "sentiment"),
    "sentiment2": Topic(sentiment2, "sentiment", ("sentiment_zero",)),
    "deepfake": Topic(deepfake, "deepfake"),
}


def videos_of(dataset: Dataset) -> list[Video]:
    """All videos that gave samples, by name. Each is in one split: a part held out of a video is a video of its own."""
    by_video: dict[tuple[str, str], list[FrameSequence]] = {}
    for sequence in frame_sequences(dataset.samples):
        by_video.setdefault((sequence.source, sequence.split), []).append(sequence)
    return [
        Video(name, dataset.sources[name].identity, split, dataset.sources[name].labels, tuple(sequences))
        for (name, split), sequences in sorted(by_video.items())
    ]


def answered(dataset: Dataset, rule: Rule, cfg: EvalConfig) -> Answered:
    """The videos that have an answer.

    Raises:
        MarlinError: more than `eval.max_unlabelled` of them lack a label, there is nothing to learn from or to score
            on, or a part of a video is learned from and another one scored.
    """
    videos, rows, left_out, unlabelled = [], [], Counter[str](), []
    everything = videos_of(dataset)
    for video in everything:
        lacking = [name for name in rule.needs if video.labels.get(name) is None]
        if lacking:
            left_out[f"no {lacking[0]} label"] += 1
            unlabelled.append(video.name)
            continue
        row = rule.answer(video.labels)
        if row is None:
            left_out["not asked"] += 1
            continue
        videos.append(video)
        rows.append(row)
    if len(unlabelled) > cfg.max_unlabelled * len(everything):
        raise MarlinError(
            f"{len(unlabelled)} of {len(everything)} videos of {dataset.url} lack a label of {rule.question.name}, as "
            f"{', '.join(unlabelled[:3])}: mend the corpus's labels, or raise eval.max_unlabelled={cfg.max_unlabelled}"
        )
    truth = np.array(rows, np.int64).reshape(-1, len(rule.question.outputs))
    found = Answered(rule.question, tuple(videos), truth, dict(left_out))
    _check_splits(found, dataset.url)
    return found


def scored_split(found: Answered) -> str:
    """The split that results are of: "test", or "val" where a corpus has no test."""
    return "test" if len(found.of_split("test")) else "val"


def shared_people(found: Answered) -> int:
    """How many of those who are seen in the scored videos are seen in the training, too."""
    people = {
        split: {found.videos[row].identity for row in found.of_split(split)} for split in ("train", "val", "test")
    }
    return len(people["train"] & people[scored_split(found)])


def _check_splits(found: Answered, where: str) -> None:
    name = found.question.name
    train, scored = ({found.videos[row].name for row in found.of_split(s)} for s in ("train", scored_split(found)))
    if not train:
        raise MarlinError(f"{where} has no labelled videos of split 'train' for {name}: see corpus.splits")
    if not scored:
        raise MarlinError(
            f"{where} has no labelled videos of split 'test' or 'val' for {name}: set corpus.splits, or "
            "preprocess.holdout_identities, and preprocess into another corpus.name"
        )
    if both := sorted(train & scored):
        raise MarlinError(
            f"{where} holds out parts of the videos that {name} would learn from, as {both[0]}, and a label is of a "
            "whole video: preprocess with preprocess.holdout_identities instead of preprocess.holdout"
        )


def _schema(dataset: Dataset, label: str, question: str) -> Labels:
    if label not in dataset.labels:
        raise _lacks(dataset, f"label '{label}'", question)
    schema: Labels = dataset.labels[label]
    return schema


def _lacks(dataset: Dataset, what: str, question: str) -> MarlinError:
    there = ", ".join(dataset.labels) or "none"
    return MarlinError(
        f"{dataset.url} has no {what} (it has {there}): set eval.datasets.{question} to a dataset that has"
    )
