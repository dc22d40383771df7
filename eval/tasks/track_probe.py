"""Linear probe on frozen features: which source track does a held-out window come from?

The probe learns from windows of split 'train' and is scored on windows of split 'val', the last part of each track,
which shares no frame with it. The same probe on raw pixels and on an untrained encoder stands beside it: a track can be
told by its light and background alone, so only the difference says something about the training.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eval.features import WindowFeatures, extract, model_embedder, pixel_embedder
from eval.sequences import frame_sequences, held_out
from eval.tasks.context import Measured, TaskContext
from eval.tasks.protocols import window_spec
from pipeline.config.evaluation import EvalConfig
from pipeline.config.schema import Config
from pipeline.dataset import Dataset
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store
from pipeline.storage import Store
from train.export import model_of
from train.model import MaskedAutoencoder

CHECKPOINT, UNTRAINED, PIXELS = "checkpoint", "untrained", "pixels"
_MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class ProbeScore:
    """How well a probe does on held-out windows; rows of the confusion matrix are the truth."""

    accuracy: float
    balanced_accuracy: float
    confusion: NDArray[np.int64]


def linear_probe(
    train_x: NDArray[np.float32],
    train_y: Sequence[str],
    test_x: NDArray[np.float32],
    test_y: Sequence[str],
    *,
    classes: Sequence[str],
    seed: int,
) -> ProbeScore:
    """Logistic regression (L2, C=1) on standardised features.

    Args:
        train_x: (windows, D) features to learn from.
        train_y: their classes.
        test_x: (windows, D) features to score on.
        test_y: their classes.
        classes: order of the confusion matrix.
        seed: of the solver.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MAX_ITERATIONS, random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(train_x, train_y)
        except ConvergenceWarning:
            raise MarlinError(f"the linear probe did not converge in {_MAX_ITERATIONS} iterations") from None
    answers = model.predict(test_x)
    return ProbeScore(
        float(accuracy_score(test_y, answers)),
        float(balanced_accuracy_score(test_y, answers)),
        confusion_matrix(test_y, answers, labels=list(classes)).astype(np.int64),
    )


def store(cfg: Config) -> Store:
    """The run's own dataset."""
    return dataset_store(cfg)


def settings(cfg: EvalConfig) -> dict[str, Any]:
    """The part of the configuration that the result depends on."""
    return {"seed": cfg.seed, "window_stride": cfg.window_stride}


def check(cfg: Config, dataset: Dataset) -> None:
    """Whether the dataset can serve this task.

    Raises:
        MarlinError: nothing is held out, or fewer than two tracks have both a training and a held-out part.
    """
    classes_of(dataset)


def run(context: TaskContext) -> Measured:
    """Probe the checkpoint and its baselines.

    Raises:
        MarlinError: nothing is held out, or fewer than two tracks have both a training and a held-out part.
    """
    cfg = context.cfg
    sequences = frame_sequences(context.dataset.samples)
    classes, left_out = classes_of(context.dataset)
    spec = window_spec(cfg)
    embedders = {
        CHECKPOINT: model_embedder(context.model),
        UNTRAINED: model_embedder(_untrained(context)),
        PIXELS: pixel_embedder,
    }
    kept = [sequence for sequence in sequences if sequence.label in classes]
    found = extract(context.store, kept, embedders, spec, context.progress)
    scores = {name: _score(found, name, classes, cfg.eval.seed) for name in embedders}
    return Measured(_result(found, scores, classes, left_out))


def classes_of(dataset: Dataset) -> tuple[list[str], list[str]]:
    """Tracks that have both splits, and those that can't be asked for.

    Raises:
        MarlinError: nothing is held out, or fewer than two tracks have both a training and a held-out part.
    """
    held_out(dataset)
    return split_classes([(s.label, s.split) for s in frame_sequences(dataset.samples)], dataset.url)


def split_classes(parts: Sequence[tuple[str, str]], where: str) -> tuple[list[str], list[str]]:
    """Tracks that have both splits, and those that can't be asked for, from (label, split) pairs.

    Raises:
        MarlinError: fewer than two tracks have both.
    """
    train = {label for label, split in parts if split == "train"}
    val = {label for label, split in parts if split == "val"}
    classes = sorted(train & val)
    if len(classes) < 2:
        raise MarlinError(
            f"track-probe needs at least two tracks with both a training and a held-out part; dataset {where} has "
            f"{len(classes)}: add videos, or set preprocess.holdout so that both parts reach preprocess.min_frames"
        )
    return classes, sorted((train | val) - set(classes))


def _untrained(context: TaskContext) -> MaskedAutoencoder:
    """The same architecture with fresh weights, the same ones for every checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.cfg.eval.seed)
        return model_of(context.cfg)


def _score(found: WindowFeatures, name: str, classes: Sequence[str], seed: int) -> ProbeScore:
    labels = [owner.label for owner in found.owners]
    train = np.array([owner.split == "train" for owner in found.owners])
    train_y = [label for label, chosen in zip(labels, train, strict=True) if chosen]
    test_y = [label for label, chosen in zip(labels, train, strict=True) if not chosen]
    features = found.features[name]
    return linear_probe(features[train], train_y, features[~train], test_y, classes=classes, seed=seed)


def _result(
    found: WindowFeatures, scores: dict[str, ProbeScore], classes: list[str], left_out: list[str]
) -> dict[str, Any]:
    train = Counter(owner.label for owner in found.owners if owner.split == "train")
    test = Counter(owner.label for owner in found.owners if owner.split == "val")
    commonest = max(classes, key=lambda label: train[label])
    metrics = {"majority_accuracy": test[commonest] / test.total(), "chance_balanced_accuracy": 1 / len(classes)}
    for name, score in scores.items():
        prefix = "" if name == CHECKPOINT else f"{name}_"
        metrics[f"{prefix}accuracy"] = score.accuracy
        metrics[f"{prefix}balanced_accuracy"] = score.balanced_accuracy
    return {
        "metrics": metrics,
        "classes": classes,
        "train_windows": {label: train[label] for label in classes},
        "test_windows": {label: test[label] for label in classes},
        "left_out": left_out,
        "confusion": {name: score.confusion.tolist() for name, score in scores.items()},
    }
