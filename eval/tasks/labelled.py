"""Tasks that need labels: a question about videos, and how its answer is learned.

Shapes: V videos, C outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.questions import TOPICS, Answered, answered, scored_split, shared_people
from eval.scores import all_scores, intervals, main_scores, majority, output_scores
from eval.shots import nested_subsets
from eval.subgroups import manipulations, subgroups
from eval.tasks.context import Measured, TaskContext
from eval.tasks.protocols import PROTOCOLS, Attempt, Learned
from pipeline.config.evaluation import EvalConfig
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from pipeline.storage import Store, open_store

_COMMON = {"seed", "window_stride", "label_shares", "repeats", "bootstrap", "subgroups"}


@dataclass(frozen=True)
class LabelledTask:
    """A question (`eval.questions.TOPICS`) with a way to learn its answer (`eval.tasks.protocols.PROTOCOLS`)."""

    question: str
    protocol: str

    def store(self, cfg: Config) -> Store:
        """The dataset with the labels: that of `eval.datasets`, or the run's."""
        url: str = getattr(cfg.eval.datasets, TOPICS[self.question].dataset)
        return open_store(url) if url else dataset_store(cfg)

    def settings(self, cfg: EvalConfig) -> dict[str, Any]:
        """The part of the configuration that its result depends on."""
        sections = PROTOCOLS[self.protocol].settings
        plain = cfg.model_dump(mode="json", include=_COMMON | set(TOPICS[self.question].settings))
        return plain | cfg.model_dump(mode="json", include=dict(sections))

    def check(self, cfg: Config, dataset: Dataset) -> None:
        """Whether the dataset can serve this task.

        Raises:
            MarlinError: it has no such labels, or too few.
        """
        self._answered(cfg, dataset)

    def run(self, context: TaskContext) -> Measured:
        """Learn from each share of the training labels, as often as asked, and score on held-out videos.

        Raises:
            MarlinError: the dataset can't serve the question, learning fails, or a process does.
        """
        found = self._answered(context.cfg, context.dataset)
        learn = PROTOCOLS[self.protocol].learn
        everything = [(attempt, learn(context, attempt)) for attempt in attempts(found, context.cfg.eval)]
        return Measured(_result(context, found, everything), everything[0][1].head)

    def _answered(self, cfg: Config, dataset: Dataset) -> Answered:
        size = int(dataset.info["size"])
        if size != cfg.preprocess.size:
            raise MarlinError(
                f"{dataset.url} has frames of {size} pixels and the model takes {cfg.preprocess.size}: preprocess it "
                f"with preprocess.size={cfg.preprocess.size}"
            )
        return answered(dataset, TOPICS[self.question].rule(dataset, cfg.eval), cfg.eval)


def attempts(found: Answered, cfg: EvalConfig) -> list[Attempt]:
    """What is learned from, by seed and share, the largest share first.

    A share is one of the videos that the best epoch is chosen on, too: who has few labels has few of both. Where those
    are the ones that are scored, nothing is chosen.
    """
    train, scored, split = found.of_split("train"), found.of_split(scored_split(found)), scored_split(found)
    held_out = found.of_split("val") if split == "test" else scored[:0]
    made = []
    for seed in range(cfg.seed, cfg.seed + cfg.repeats):
        parts = [_subsets(found.truth_VC, rows, cfg.label_shares, seed) for rows in (train, held_out)]
        for share in sorted(set(cfg.label_shares), reverse=True):
            made.append(Attempt(found, parts[0][share], parts[1][share], scored, share, seed))
    return made


def _subsets(
    truth_VC: NDArray[np.int64], rows: NDArray[np.int64], shares: Sequence[float], seed: int
) -> dict[float, NDArray[np.int64]]:
    if not len(rows):
        return dict.fromkeys(shares, rows)
    return {share: rows[part] for share, part in nested_subsets(truth_VC[rows], shares, seed).items()}


def _result(context: TaskContext, found: Answered, everything: Sequence[tuple[Attempt, Learned]]) -> dict[str, Any]:
    cfg, question = context.cfg.eval, found.question
    first, full = everything[0]
    truth_VC, train_VC = found.truth_VC[first.scored], found.truth_VC[found.of_split("train")]
    shots = [_shot(attempt, learned) for attempt, learned in everything]
    shares = sorted({shot["share"] for shot in shots}, reverse=True)
    summary = [_summary([shot for shot in shots if shot["share"] == share]) for share in shares]
    baseline = {f"majority_{name}": value for name, value in majority(question, train_VC, truth_VC).items()}
    videos = [found.videos[row] for row in first.scored]
    groups = dict(subgroups(context.dataset, videos, cfg.subgroups))
    if question.name == "deepfake":
        groups |= manipulations(videos)
    people = [video.identity for video in videos]
    return {
        "metrics": summary[0]["mean"] | baseline,
        "question": question.name,
        "kind": question.kind,
        "shares": summary,
        "shots": shots,
        "in_detail": {"share": first.share, "seed": first.seed},
        "intervals": intervals(question, truth_VC, full.found_VC, people, resamples=cfg.bootstrap, seed=cfg.seed),
        "per_label": output_scores(question, truth_VC, full.found_VC),
        "subgroups": {
            name: {"videos": len(rows), "metrics": main_scores(question, truth_VC[rows], full.found_VC[rows])}
            for name, rows in groups.items()
        },
        "videos": {split: len(found.of_split(split)) for split in ("train", "val", "test")},
        "scored": scored_split(found),
        "shared_people": shared_people(found),
        "left_out": dict(found.left_out),
    }


def _shot(attempt: Attempt, learned: Learned) -> dict[str, Any]:
    scores = all_scores(attempt.found.question, attempt.found.truth_VC[attempt.scored], learned.found_VC)
    told = {"share": attempt.share, "seed": attempt.seed, "videos": len(attempt.train), "metrics": scores}
    return told | dict(learned.details)


def _summary(shots: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over the repeats of a share; scores that some lack are left out."""
    names = [name for name in shots[0]["metrics"] if all(name in shot["metrics"] for shot in shots)]
    values = {name: np.array([shot["metrics"][name] for shot in shots]) for name in names}
    return {
        "share": shots[0]["share"],
        "videos": shots[0]["videos"],
        "mean": {name: float(value.mean()) for name, value in values.items()},
        "std": {name: float(value.std(ddof=1)) for name, value in values.items() if len(value) > 1},
    }
